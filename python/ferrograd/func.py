"""Derivatives of functions as functions: `grad`, `vjp`, `jvp`, `jacobian`, `hessian`; `vmap`; their `cost`.

A function here takes tensors, or tuples, lists and dicts of them, and returns such. A derivative of it is
a function of the same kind: it can be differentiated again, by itself or by an ``autograd.grad`` around it.
What it returns is recorded where the arguments, or tensors that the function uses besides, require a
gradient; otherwise nothing is kept. Names and arguments are those of ``torch.func`` where it has them:
`jacobian` is its ``jacrev``, and `value_and_grad` its ``grad_and_value`` with the value first.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, Tensor
from ferrograd.batching import vmap
from ferrograd.checks import check_callable
from ferrograd.cost import Cost, Work, measure
from ferrograd.random import fork_rng
from ferrograd.recorded import Recorded
from ferrograd.sparse import SparseMatrix, block_diagonal
from ferrograd.tree import Rebuild, flatten, match

__all__ = [
    "Cost",
    "SparseMatrix",
    "Work",
    "cost",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "sparse_jacobian",
    "value_and_grad",
    "vhp",
    "vjp",
    "vmap",
]


class _Call:
    """A call that was recorded: `run` with flat tensors, and how they were arranged."""

    arrange_outputs: Rebuild
    aux: Any

    def __init__(
        self,
        owner: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        at: Any,
        has_aux: bool,
        options: dict[str, Any],
    ) -> None:
        check_callable(owner, func)
        places = _places(owner, at, len(args))
        chosen = tuple(args[place] for place in places)
        inputs, self.arrange_inputs = flatten(owner, "an argument to differentiate by", chosen)
        self.is_recording = _core.is_grad_enabled()

        def flat(variables: list[Tensor]) -> list[Tensor]:
            moved = list(args)
            for place, argument in zip(places, self.arrange_inputs(variables), strict=True):
                moved[place] = argument
            result = func(*moved, **options)
            if has_aux:
                if not isinstance(result, tuple) or len(result) != 2:
                    raise DTypeError(
                        f"{owner}: with has_aux the function must return a pair (output, aux), "
                        f"got {type(result).__name__}"
                    )
                result, self.aux = result
            outputs, self.arrange_outputs = flatten(owner, "the function's output", result)
            return outputs

        self.run = Recorded(owner, flat, inputs, connects=self.is_recording)
        self.connects = self.leads_out(self.run.outputs)
        self.single = not isinstance(at, tuple)

    def leads_out(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the caller may differentiate `tensors`: by more than the constants that it gave."""
        return self.is_recording and _core.reaches_beyond(tensors, self.run.variables)

    def value(self) -> Any:
        outputs = self.run.outputs
        return self.arrange_outputs(outputs if self.connects else [y.detach() for y in outputs])

    def passed_on(self) -> Any:
        """What the function returned as aux."""
        tensors, arrange = flatten(self.run.owner, "aux", self.aux, keeps_others=True)
        return arrange(tensors if self.leads_out(tensors) else [x.detach() for x in tensors])

    def by_argument(self, parts: Sequence[Tensor]) -> Any:
        """Arranged as the arguments are; without the tuple where `argnums` is a number."""
        arranged = self.arrange_inputs(parts)
        return arranged[0] if self.single else arranged

    def joins(self, factors: Sequence[Tensor]) -> bool:
        """Whether a product with `factors` is recorded."""
        return _core.is_grad_enabled() and (self.connects or any(x.requires_grad for x in factors))


def _places(owner: str, at: Any, count: int) -> list[int]:
    numbers = at if isinstance(at, tuple) else (at,)
    for number in numbers:
        if not isinstance(number, int) or not -count <= number < count:
            raise ConfigError(
                f"{owner}: argnums must be a position of {count} arguments, or a tuple of them, got {at!r}"
            )
    places = [number % count for number in numbers]
    if len(set(places)) != len(places) or not places:
        raise ConfigError(f"{owner}: argnums must name each argument once, got {at!r}")
    return places


def _primals(owner: str, primals: Any) -> tuple[Any, ...]:
    if not isinstance(primals, tuple) or not primals:
        raise ConfigError(
            f"{owner}: primals must be a tuple of one argument or more, "
            f"got {'()' if isinstance(primals, tuple) else type(primals).__name__}"
        )
    return primals


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the gradient of `func`.

    The gradient of ``f`` at ``x`` holds ``df/dx_j`` for each element ``x_j``. One backward pass; as in
    ``torch.func.grad``.

    Parameters
    ----------
    func : callable
        Returns a tensor of one element.
    argnums : int or tuple of int, default 0
        Which arguments to differentiate by. Each is a float tensor, or a tuple, list or dict of them.
    has_aux : bool, default False
        Whether `func` returns a pair, of which the second part is passed on.

    Returns
    -------
    callable
        Takes the arguments of `func`; returns what the argument looks like, with the gradients as its
        tensors; a tuple of such for a tuple `argnums`; and aux beside it if `has_aux`. A tensor that the
        value does not depend on has the gradient 0.

    Raises
    ------
    ShapeError
        When called, if `func` returns more than one element.
    DTypeError
        When called, if an argument to differentiate by is not of float tensors.
    ConfigError
        When called, if `argnums` names no argument or one twice.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, 2.0])
    >>> fg.func.grad(lambda x: (x**3).sum())(x).tolist()
    [3.0, 12.0]
    >>> slope = fg.func.grad(lambda x: x**3)
    >>> fg.func.grad(slope)(fg.tensor(2.0)).item()
    12.0
    """

    def gradient(*args: Any, **rest: Any) -> Any:
        call, parts = _gradient("grad", func, argnums, has_aux, args, rest)
        return (parts, call.passed_on()) if has_aux else parts

    return gradient


def value_and_grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the value and the gradient of `func`, in this order.

    As `grad`, without a second evaluation for the value.

    Parameters
    ----------
    func : callable
        Returns a tensor of one element.
    argnums : int or tuple of int, default 0
        Which arguments to differentiate by.
    has_aux : bool, default False
        Whether `func` returns a pair, of which the second part is passed on.

    Returns
    -------
    callable
        Takes the arguments of `func`; returns ``(value, gradient)``, or ``((value, aux), gradient)``.

    Raises
    ------
    ShapeError, DTypeError, ConfigError
        As `grad`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> value, slope = fg.func.value_and_grad(lambda x, y: (x * y).sum(), argnums=1)(
    ...     fg.tensor([1.0, 2.0]), fg.tensor([3.0, 4.0])
    ... )
    >>> value.item(), slope.tolist()
    (11.0, [1.0, 2.0])
    """

    def both(*args: Any, **rest: Any) -> Any:
        call, parts = _gradient("value_and_grad", func, argnums, has_aux, args, rest)
        return (call.value(), call.passed_on()) if has_aux else call.value(), parts

    return both


def _gradient(
    owner: str, func: Callable[..., Any], argnums: Any, has_aux: bool, args: Any, rest: Any
) -> tuple[_Call, Any]:
    call = _Call(owner, func, args, argnums, has_aux, rest)
    parts = call.run.pull([call.run.scalar()], None, create_graph=call.connects)
    return call, call.by_argument(parts)


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Compute ``func(*primals)`` and the function that multiplies its Jacobian from the left.

    With ``J[i, j] = d output_i / d input_j``, ``vjp_fn(v)`` is ``v^T J``: one backward pass. As in
    ``torch.func.vjp``.

    Parameters
    ----------
    func : callable
        Takes `primals`; returns a tensor, or a tuple, list or dict of them.
    *primals : Tensor, or tuple, list or dict of them
        Where. Float tensors.
    has_aux : bool, default False
        Whether `func` returns a pair, of which the second part is passed on.

    Returns
    -------
    output : as `func` returns it
    vjp_fn : callable
        Takes cotangents arranged as the output; returns a tuple with a part for each of `primals`, arranged
        as this. It may be called again.
    aux : only if `has_aux`

    Raises
    ------
    DTypeError
        If `primals` are not of float tensors or the output is not of tensors.
    ShapeError
        By `vjp_fn`, if the cotangents do not have the shapes of the output.

    Examples
    --------
    >>> import ferrograd as fg
    >>> output, pull = fg.func.vjp(lambda x: x.square(), fg.tensor([1.0, 2.0]))
    >>> output.tolist(), pull(fg.tensor([1.0, 10.0]))[0].tolist()
    ([1.0, 4.0], [2.0, 40.0])
    """
    call = _Call("vjp", func, _primals("vjp", primals), tuple(range(len(primals))), has_aux, {})

    def vjp_fn(cotangents: Any) -> Any:
        seeds = match("vjp", "cotangents", cotangents, call.run.outputs)
        joins = call.joins(seeds)
        return call.by_argument(call.run.pull(call.run.outputs, seeds, create_graph=joins))

    return (call.value(), vjp_fn, call.passed_on()) if has_aux else (call.value(), vjp_fn)


def jvp(
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> Any:
    """Compute ``func(*primals)`` and the product of its Jacobian with `tangents`, in forward mode.

    With ``J[i, j] = d output_i / d input_j`` the product is ``J t``: how fast the output moves when the input
    moves along ``t``. Each operation pushes the tangent on by its own rule, in the order of the evaluation
    (dual numbers): one pass, whatever the number of outputs. As in ``torch.func.jvp``. Where a gradient is
    so by definition (a reversed gradient, a step), so is the tangent; an L1 penalty passes it on unchanged.

    Parameters
    ----------
    func : callable
        Takes `primals`; returns a tensor, or a tuple, list or dict of them.
    primals : tuple
        Where: the arguments. Float tensors, or tuples, lists or dicts of them.
    tangents : tuple
        The direction, arranged as `primals`, of the same shapes.
    strict : bool, default False
        Whether an output that depends on no input is an error; otherwise its tangent is 0.
    has_aux : bool, default False
        Whether `func` returns a pair, of which the second part is passed on.

    Returns
    -------
    output : as `func` returns it
    jvp_out : arranged as the output
    aux : only if `has_aux`

    Raises
    ------
    ShapeError
        If `tangents` do not have the shapes of `primals`.
    DTypeError
        If `primals` are not of float tensors or the output is not of tensors.
    ConfigError
        If `primals` is no tuple.
    GraphError
        If an operation has no forward rule (a gate), or by `strict`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, t = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 10.0])
    >>> output, moved = fg.func.jvp(lambda x: (x.square(), x.sum()), (x,), (t,))
    >>> moved[0].tolist(), moved[1].item()
    ([2.0, 40.0], 11.0)
    """
    call = _Call("jvp", func, _primals("jvp", primals), tuple(range(len(primals))), has_aux, {})
    directions = match("jvp", "tangents", tangents, call.run.variables)
    moved = call.run.push(call.run.outputs, directions, create_graph=call.joins(directions), strict=strict)
    result = (call.value(), call.arrange_outputs(moved))
    return (*result, call.passed_on()) if has_aux else result


def jacobian(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian of `func`, by one backward pass an output element.

    For an output of shape ``s`` and an argument of shape ``r`` it is a tensor of shape ``(*s, *r)`` with
    ``J[i, j] = d output_i / d input_j``. As ``torch.func.jacrev``.

    Parameters
    ----------
    func : callable
        Returns a tensor, or a tuple, list or dict of them.
    argnums : int or tuple of int, default 0
        Which arguments to differentiate by. Each is a float tensor, or a tuple, list or dict of them.
    has_aux : bool, default False
        Whether `func` returns a pair, of which the second part is passed on.

    Returns
    -------
    callable
        Takes the arguments of `func`; returns what the output looks like, in place of each tensor what the
        argument looks like (a tuple of such for a tuple `argnums`), with the Jacobians as its tensors; and
        aux beside it if `has_aux`.

    Raises
    ------
    DTypeError, ConfigError
        As `grad`.
    MemoryError
        When called, if the matrix does not fit; the message says how large it is.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, 2.0])
    >>> fg.func.jacobian(lambda x: fg.stack([x.sum(), x.prod()]))(x).tolist()
    [[1.0, 1.0], [2.0, 1.0]]
    """

    def matrix(*args: Any, **rest: Any) -> Any:
        call = _Call("jacobian", func, args, argnums, has_aux, rest)
        found = call.run.jacobians(call.run.outputs, create_graph=call.connects)
        arranged = call.arrange_outputs([call.by_argument(parts) for parts in found])
        return (arranged, call.passed_on()) if has_aux else arranged

    return matrix


def sparse_jacobian(
    func: Callable[..., Any], structure: str = "elementwise", argnums: int = 0
) -> Callable[..., SparseMatrix]:
    """Return the function that computes a Jacobian of known structure, without the zeros.

    What acts element by element has a diagonal Jacobian: one backward pass gives it, ``1^T J``. What acts row
    by row, as a linear layer does, has a block for each row: one pass for each column of the output. One more
    pass, with random factors, finds a function of another structure.

    Parameters
    ----------
    func : callable
        Returns a tensor.
    structure : {"elementwise", "rows"}, default "elementwise"
        Whether each element of the output depends on the element of the input at its place only, or each row
        (all dimensions but the last) on that row only.
    argnums : int, default 0
        Which argument to differentiate by: a float tensor.

    Returns
    -------
    callable
        Takes the arguments of `func`; returns a `SparseMatrix`, of as many rows as the output has elements.

    Raises
    ------
    ConfigError
        If `structure` is something else; when called, if the function has another one.
    ShapeError
        When called, if the output's shape does not fit the structure.
    DTypeError
        As `grad`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> found = fg.func.sparse_jacobian(fg.relu)(fg.tensor([-1.0, 2.0, 3.0]))
    >>> found.values.tolist(), found.shape
    ([0.0, 1.0, 1.0], (3, 3))
    """
    if structure not in ("elementwise", "rows"):
        raise ConfigError(f"sparse_jacobian: structure must be 'elementwise' or 'rows', got {structure!r}")

    def matrix(*args: Any, **rest: Any) -> SparseMatrix:
        call = _Call("sparse_jacobian", func, args, argnums, False, rest)
        return block_diagonal(call.run, structure, call.connects)

    return matrix


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Return the function that computes the second derivatives of `func`: the Jacobian of the Jacobian.

    For an output of shape ``s`` and an argument of shape ``r`` it is a tensor of shape ``(*s, *r, *r)`` with
    ``H[i, j, k] = d^2 output_i / d input_j d input_k``. As ``torch.func.hessian``.

    Parameters
    ----------
    func : callable
        Returns a tensor, or a tuple, list or dict of them.
    argnums : int or tuple of int, default 0
        Which arguments to differentiate by.

    Returns
    -------
    callable
        Takes the arguments of `func`; returns what `jacobian` of `jacobian` does.

    Raises
    ------
    DTypeError, ConfigError
        As `grad`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.func.hessian(lambda x: x.prod())(fg.tensor([1.0, 2.0, 3.0])).tolist()
    [[0.0, 3.0, 2.0], [3.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
    """
    return jacobian(jacobian(func, argnums), argnums)


def hvp(func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Compute ``func(*primals)`` and the product of its Hessian with `tangents`, without the Hessian.

    With ``H[j, k] = d^2 f / d input_j d input_k`` it is ``H t``, the derivative of the gradient along ``t``:
    the gradient by a backward pass, and its tangent by a forward pass over that (Pearlmutter, 1994). A few
    evaluations, whatever the number of inputs.

    Parameters
    ----------
    func : callable
        Returns a tensor of one element.
    primals : tuple
        Where: the arguments. Float tensors, or tuples, lists or dicts of them.
    tangents : tuple
        The direction, arranged as `primals`, of the same shapes.

    Returns
    -------
    output : Tensor
    product : tuple
        Arranged as `primals`.

    Raises
    ------
    ShapeError
        If `tangents` do not have the shapes of `primals` or `func` returns more than one element.
    DTypeError, ConfigError, GraphError
        As `jvp`.

    See Also
    --------
    vhp : by two backward passes; the same but for rounding, as the Hessian is symmetric.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, t = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 1.0])
    >>> value, (product,) = fg.func.hvp(lambda x: (x**3).sum(), (x,), (t,))
    >>> value.item(), product.tolist()
    (9.0, [6.0, 12.0])
    """
    call, directions = _second("hvp", func, primals, tangents)
    moved = call.run.push(call.run.slopes(), directions, create_graph=call.joins(directions))
    return call.value(), call.by_argument(moved)


def vhp(func: Callable[..., Any], primals: tuple[Any, ...], cotangents: tuple[Any, ...]) -> Any:
    """Compute ``func(*primals)`` and the product of `cotangents` with its Hessian, without the Hessian.

    ``v^T H`` with ``H[j, k] = d^2 f / d input_j d input_k``: the gradient of ``v^T grad f``, by a backward
    pass over a backward pass.

    Parameters
    ----------
    func : callable
        Returns a tensor of one element.
    primals : tuple
        Where: the arguments. Float tensors, or tuples, lists or dicts of them.
    cotangents : tuple
        Arranged as `primals`, of the same shapes.

    Returns
    -------
    output : Tensor
    product : tuple
        Arranged as `primals`.

    Raises
    ------
    ShapeError
        If `cotangents` do not have the shapes of `primals` or `func` returns more than one element.
    DTypeError, ConfigError
        As `jvp`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, v = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 1.0])
    >>> fg.func.vhp(lambda x: (x**3).sum(), (x,), (v,))[1][0].tolist()
    [6.0, 12.0]
    """
    call, seeds = _second("vhp", func, primals, cotangents)
    pulled = call.run.pull(call.run.slopes(), seeds, create_graph=call.joins(seeds))
    return call.value(), call.by_argument(pulled)


def _second(owner: str, func: Callable[..., Any], primals: Any, factors: Any) -> tuple[_Call, list[Tensor]]:
    call = _Call(owner, func, _primals(owner, primals), tuple(range(len(primals))), False, {})
    what = "tangents" if owner == "hvp" else "cotangents"
    return call, match(owner, what, factors, call.run.variables)


@fork_rng()
def cost(func: Callable[..., Tensor], *inputs: Any) -> Cost:
    """Count the operations of `func`, its gradient and a product with its Hessian; measure time and memory.

    The gradient by backward costs a few values, whatever the number of inputs n (the cheap gradient
    principle), and so does a product with the Hessian; centred differences cost 2 n values. Operations are
    exact and the same on every machine, `Work` says what counts as one. Times are those of this machine now,
    and for small inputs those of Python.

    Parameters
    ----------
    func : callable
        Takes `inputs`; returns a tensor of one element.
    *inputs : Tensor, or tuple, list or dict of them
        Where. Float tensors; what else `func` needs is bound to it.

    Returns
    -------
    Cost
        ``str()`` of it is a table, `Cost.to_dict` gives dicts. Centred differences are run where they take
        less than a second; otherwise their time is that of a value times 2 n, and marked.

    Raises
    ------
    ShapeError
        If `func` returns more than one element.
    DTypeError
        If an input is not of float tensors, or `func` returns no tensor.
    ConfigError
        If there are no inputs, or `func` cannot be called.

    Notes
    -----
    `func` runs many times: what it changes, such as running statistics of a module in training mode, changes
    as often.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.ones(1000)
    >>> found = fg.func.cost(lambda x: (x * x * x).sum(), x)
    >>> found.value.operations, found.gradient.operations, found.differences.operations
    (3000, 7000, 6000000)
    >>> found.kept_bytes
    4000
    """
    check_callable("cost", func)
    primals = _primals("cost", inputs)
    leaves, arrange = flatten("cost", "an input", primals)
    tangents = arrange([_core.ones_like(x).detach() for x in leaves])
    both = value_and_grad(func, tuple(range(len(primals))))
    return measure(func, primals, lambda: both(*primals), lambda: hvp(func, primals, tangents))
