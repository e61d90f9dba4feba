"""`ferrograd.autograd.functional`: derivatives of a function at given inputs.

The names and arguments are those of ``torch.autograd.functional``. Inputs are a tensor or a tuple of them,
`func` takes them one by one and returns a tensor or a tuple of them. Results are arranged likewise: a tensor
for a tensor, a tuple for a tuple. With ``create_graph=True`` they are recorded and connected to the inputs,
so that they can be differentiated again; otherwise they are plain values. With ``strict=True`` it is an error
that a result does not depend on an input; otherwise it is 0. `ferrograd.func` has the same derivatives as
transforms of functions.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, Tensor
from ferrograd.checks import check_callable
from ferrograd.recorded import Recorded
from ferrograd.tree import match

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors: TypeAlias = Tensor | Sequence[Tensor]


def _listed(owner: str, what: str, tensors: Any) -> list[Tensor]:
    parts = [tensors] if isinstance(tensors, Tensor) else tensors
    if isinstance(parts, tuple | list) and parts and all(isinstance(part, Tensor) for part in parts):
        return list(parts)
    kinds = ", ".join(type(part).__name__ for part in parts) if isinstance(parts, tuple | list) else ""
    got = kinds or repr(tensors)
    raise DTypeError(f"{owner}: {what} must be a Tensor or a tuple of them, got {got}")


class _Evaluated(Recorded):
    """`func` at its inputs, and whether each of both sides is a tuple."""

    def __init__(self, owner: str, func: Callable[..., Tensors], inputs: Tensors, create_graph: bool) -> None:
        check_callable(owner, func)
        self.create_graph = create_graph
        self.takes_one = isinstance(inputs, Tensor)
        self.returns_one = False

        def flat(variables: list[Tensor]) -> list[Tensor]:
            result = func(*variables)
            self.returns_one = isinstance(result, Tensor)
            return _listed(owner, "the function's output", result)

        super().__init__(owner, flat, _listed(owner, "inputs", inputs), connects=create_graph)

    def value(self) -> Any:
        values = self.outputs if self.create_graph else [y.detach() for y in self.outputs]
        return values[0] if self.returns_one else tuple(values)

    def factors(self, v: Tensors | None, like: Sequence[Tensor]) -> list[Tensor]:
        if v is None:
            if len(like) != 1 or like[0].numel() != 1:
                got = ", ".join(str(tuple(x.shape)) for x in like)
                raise ConfigError(
                    f"{self.owner}: v may be left out for one tensor of one element only, here it needs {got}"
                )
            return [_core.ones_like(like[0])]
        return match(self.owner, "v", tuple(_listed(self.owner, "v", v)), like)

    def by_input(self, parts: Sequence[Any]) -> Any:
        return parts[0] if self.takes_one else tuple(parts)


def vjp(
    func: Callable[..., Tensors],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """Compute the function's value and ``v^T J``, the product of `v` with its Jacobian from the left.

    ``J[i, j] = d output_i / d input_j``. One backward pass.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor or a tuple of tensors.
    inputs : Tensor or tuple of Tensor
        Where. Float.
    v : Tensor or tuple of Tensor, optional
        Of the outputs' shapes. May be left out for an output of one element: 1.
    create_graph : bool, default False
        Whether the results are recorded and connected to the inputs.
    strict : bool, default False
        Whether it is an error that an output depends on no input, or that no output depends on an input;
        otherwise the result is 0 there.

    Returns
    -------
    func_output : as `func` returns it
    vjp : arranged as `inputs`, of their shapes

    Raises
    ------
    DTypeError
        If inputs, outputs or `v` are no tensors, or an input is not float.
    ShapeError
        If `v` does not have the shapes of the output.
    ConfigError
        If `v` is left out for more than one element.
    GraphError
        By `strict`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, v = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 10.0])
    >>> fg.autograd.functional.vjp(lambda x: x.square(), x, v)[1].tolist()
    [2.0, 40.0]
    """
    at = _Evaluated("vjp", func, inputs, create_graph)
    seeds = at.factors(v, at.outputs)
    found = at.pull(at.outputs, seeds, create_graph=create_graph, strict=strict)
    return at.value(), at.by_input(found)


def jvp(
    func: Callable[..., Tensors],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """Compute the function's value and ``J v``, the product of its Jacobian with `v` from the right.

    ``J[i, j] = d output_i / d input_j``. By two backward passes: ``u^T J`` is linear in ``u``, and its
    derivative by ``u`` along `v` is ``J v``. `ferrograd.func.jvp` does it in one forward pass.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor or a tuple of tensors.
    inputs : Tensor or tuple of Tensor
        Where. Float.
    v : Tensor or tuple of Tensor, optional
        Of the inputs' shapes. May be left out for one input of one element: 1.
    create_graph : bool, default False
        Whether the results are recorded and connected to the inputs.
    strict : bool, default False
        Whether it is an error that an output depends on no input, or that no output depends on an input;
        otherwise the result is 0 there.

    Returns
    -------
    func_output : as `func` returns it
    jvp : arranged as the output, of its shapes

    Raises
    ------
    DTypeError, ConfigError, GraphError
        As `vjp`; a GraphError also for a gate, which has no second derivative.
    ShapeError
        If `v` does not have the shapes of the inputs.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, v = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 10.0])
    >>> fg.autograd.functional.jvp(lambda x: x.prod(), x, v)[1].item()
    12.0
    """
    at = _Evaluated("jvp", func, inputs, create_graph)
    factors = at.factors(v, at.variables)
    seeds = [_core.zeros_like(y).requires_grad_() for y in at.outputs]
    pulled = at.pull(at.outputs, seeds, create_graph=True, strict=strict)
    pairs = [(g, factor) for g, factor in zip(pulled, factors, strict=True) if g.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(seeds)
    if pairs:
        gradients, weights = [g for g, _ in pairs], [factor for _, factor in pairs]
        found = _core.grad(gradients, seeds, weights, create_graph=create_graph, allow_unused=True)
    moved = [_core.zeros_like(y) if part is None else part for part, y in zip(found, at.outputs, strict=True)]
    return at.value(), moved[0] if at.returns_one else tuple(moved)


def jacobian(
    func: Callable[..., Tensors], inputs: Tensors, create_graph: bool = False, strict: bool = False
) -> Any:
    """Compute the Jacobian of a function, by one backward pass for each element of its output.

    ``J[i, j] = d output_i / d input_j``, a tensor of the output's shape followed by the input's.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor or a tuple of tensors.
    inputs : Tensor or tuple of Tensor
        Where. Float.
    create_graph : bool, default False
        Whether the result is recorded and connected to the inputs.
    strict : bool, default False
        Whether it is an error that an output does not depend on an input; otherwise the entries are 0.

    Returns
    -------
    Tensor or tuple
        A tensor for one output and one input; a tuple over the outputs or the inputs where one of them is a
        tuple; a tuple over the outputs of tuples over the inputs where both are.

    Raises
    ------
    DTypeError
        If inputs or outputs are no tensors, or an input is not float.
    GraphError
        By `strict`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.autograd.functional.jacobian(lambda x: x.square(), fg.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    at = _Evaluated("jacobian", func, inputs, create_graph)
    found = [at.by_input(row) for row in at.jacobians(at.outputs, create_graph=create_graph, strict=strict)]
    return found[0] if at.returns_one else tuple(found)


def hessian(
    func: Callable[..., Tensor], inputs: Tensors, create_graph: bool = False, strict: bool = False
) -> Any:
    """Compute the second derivatives of a scalar function, by one backward pass for each input element.

    ``H[j, k] = d^2 output / d input_j d input_k``, a tensor of one input's shape followed by the other's.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor of one element.
    inputs : Tensor or tuple of Tensor
        Where. Float.
    create_graph : bool, default False
        Whether the result is recorded and connected to the inputs.
    strict : bool, default False
        Whether it is an error that the gradient does not depend on an input; otherwise the entries are 0.

    Returns
    -------
    Tensor or tuple of tuple
        A tensor for one input; for a tuple ``H[a][b]``, by inputs a and b.

    Raises
    ------
    ShapeError
        If `func` returns more than one element.
    DTypeError, GraphError
        As `jacobian`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.autograd.functional.hessian(lambda x: x.prod(), fg.tensor([2.0, 3.0])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    at = _Evaluated("hessian", func, inputs, create_graph)
    found = at.jacobians(at.slopes(strict), create_graph=create_graph, strict=strict)
    return at.by_input([at.by_input(row) for row in found])


def vhp(
    func: Callable[..., Tensor],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """Compute a scalar function's value and ``v^T H``, the product of `v` with its Hessian, without that.

    ``H[j, k] = d^2 output / d input_j d input_k``. A backward pass over a backward pass.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor of one element.
    inputs : Tensor or tuple of Tensor
        Where. Float.
    v : Tensor or tuple of Tensor, optional
        Of the inputs' shapes. May be left out for one input of one element: 1.
    create_graph : bool, default False
        Whether the results are recorded and connected to the inputs.
    strict : bool, default False
        Whether it is an error that the gradient does not depend on an input; otherwise the result is 0.

    Returns
    -------
    func_output : Tensor
    vhp : arranged as `inputs`, of their shapes

    Raises
    ------
    ShapeError
        If `func` returns more than one element or `v` does not have the shapes of the inputs.
    DTypeError, ConfigError, GraphError
        As `vjp`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, v = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 1.0])
    >>> fg.autograd.functional.vhp(lambda x: (x**3).sum(), x, v)[1].tolist()
    [6.0, 12.0]
    """
    at = _Evaluated("vhp", func, inputs, create_graph)
    seeds = at.factors(v, at.variables)
    found = at.pull(at.slopes(strict), seeds, create_graph=create_graph, strict=strict)
    return at.value(), at.by_input(found)


def hvp(
    func: Callable[..., Tensor],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """Compute a scalar function's value and ``H v``, the product of its Hessian with `v`, without that.

    ``H[j, k] = d^2 output / d input_j d input_k``: the tangent of the gradient, by a forward pass over a
    backward pass (Pearlmutter, 1994). The same as `vhp` but for rounding, as the Hessian is symmetric.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor of one element.
    inputs : Tensor or tuple of Tensor
        Where. Float.
    v : Tensor or tuple of Tensor, optional
        Of the inputs' shapes. May be left out for one input of one element: 1.
    create_graph : bool, default False
        Whether the results are recorded and connected to the inputs.
    strict : bool, default False
        Whether it is an error that the gradient does not depend on an input; otherwise the result is 0.

    Returns
    -------
    func_output : Tensor
    hvp : arranged as `inputs`, of their shapes

    Raises
    ------
    ShapeError
        If `func` returns more than one element or `v` does not have the shapes of the inputs.
    DTypeError, ConfigError, GraphError
        As `vjp`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, v = fg.tensor([1.0, 2.0]), fg.tensor([1.0, 1.0])
    >>> fg.autograd.functional.hvp(lambda x: (x**3).sum(), x, v)[1].tolist()
    [6.0, 12.0]
    """
    at = _Evaluated("hvp", func, inputs, create_graph)
    factors = at.factors(v, at.variables)
    found = at.push(at.slopes(strict), factors, create_graph=create_graph, strict=strict)
    return at.value(), at.by_input(found)
