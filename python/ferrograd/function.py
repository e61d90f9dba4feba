"""Functions whose derivative is written by hand, beside those that the operations have."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from numbers import Number
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import DType, DTypeError, GraphError, ShapeError, Tensor
from ferrograd._typing import Array
from ferrograd.autograd import no_grad
from ferrograd.checks import check_tensor

__all__ = ["Function", "FunctionContext", "once_differentiable"]


class FunctionContext:
    """What `Function.forward` leaves for `Function.backward`; further attributes may be assigned.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        For each argument of `Function.apply`, whether its gradient is wanted.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Scale(fg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x, factor):
    ...         ctx.factor = factor
    ...         return x * factor
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g * ctx.factor, None
    >>> x = fg.tensor([1.0], requires_grad=True)
    >>> Scale.apply(x, 3.0).backward()
    >>> x.grad
    tensor([3.])
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Tensor | None, ...] | None = None
        self._marked: tuple[Tensor, ...] = ()

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which results have no gradient; they may be integers or bools. Once in a call of forward.

        They do not require a gradient, and `Function.backward` gets zeros in their places.

        Raises
        ------
        DTypeError
            If something is no Tensor; at the end of forward, if it holds integers that floats cannot.
        GraphError
            At the end of forward, if something is not among its results.

        Examples
        --------
        >>> import ferrograd as fg
        >>> class Largest(fg.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         values, ctx.indices = x.max(0)
        ...         ctx.mark_non_differentiable(ctx.indices)
        ...         return values, ctx.indices
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_output, _):
        ...         return fg.nn.functional.one_hot(ctx.indices, 2) * grad_output
        >>> x = fg.tensor([1.0, 3.0], requires_grad=True)
        >>> value, index = Largest.apply(x)
        >>> value.backward()
        >>> index, index.requires_grad, x.grad
        (tensor(1), False, tensor([0., 1.]))
        """
        for position, tensor in enumerate(args):
            check_tensor(f"mark_non_differentiable: argument {position}", tensor)
        self._marked = args

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors, or None, until `Function.backward`; once in a call of forward.

        Raises
        ------
        DTypeError
            If something is neither a Tensor nor None.
        """
        for position, tensor in enumerate(tensors):
            if tensor is not None and not isinstance(tensor, Tensor):
                raise DTypeError(
                    f"save_for_backward: argument {position} is {type(tensor).__name__}, not a Tensor or None"
                )
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors that were saved, in order.

        Raises
        ------
        GraphError
            If nothing was saved.
        """
        if self._saved is None:
            raise GraphError("saved_tensors: forward of this function saved nothing")
        return self._saved


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a `Function.backward` whose own derivative is not known; written below ``@staticmethod``.

    It may use numpy then under ``create_graph=True`` too; a derivative of the gradient raises GraphError.

    Parameters
    ----------
    fn : callable
        The backward.

    Returns
    -------
    callable
        The same, with nothing recorded inside.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Sine(fg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x.sin()
    ...
    ...     @staticmethod
    ...     @fg.autograd.once_differentiable
    ...     def backward(ctx, grad_output):
    ...         return grad_output * np.cos(ctx.saved_tensors[0].numpy())
    >>> import numpy as np
    >>> x = fg.tensor(0.0, requires_grad=True)
    >>> fg.autograd.grad(Sine.apply(x), x, create_graph=True)[0].item()
    1.0
    """

    @wraps(fn)
    def backward(*args: Any) -> Any:
        with no_grad():
            return fn(*args)

    vars(backward)["is_once"] = True
    return backward


class Function:
    """Base of functions with a backward of their own, called as ``Name.apply(*args)``.

    A subclass defines two static methods, ``forward(ctx, *args)`` and ``backward(ctx, *grad_outputs)``; or
    three, with ``forward(*args)`` and `setup_context`. Inside them nothing is recorded: they may use numpy or
    anything else. Each use costs a call of Python, in a `Trainer` too, which runs it at every batch.

    Second derivatives are those of the operations in backward: under ``create_graph=True``, and in forward
    mode, it gets the saved arguments and results as parts of the graph and is recorded itself. It must be
    written with tensors for that, or be marked as `once_differentiable`. Not inside the steps of a `Trainer`.

    Raises
    ------
    GraphError
        At `apply`, if no argument is a Tensor; in backward, if it returns another number of gradients than
        there are arguments; at a second backward, if the first freed what was saved. Under
        ``create_graph=True``, if backward takes values out of the graph, by ``numpy()`` or ``item()``, or if
        forward kept a floating tensor that is neither an argument nor a result, or something else than
        tensors, plain values and tuples, lists and dicts of them.
    ShapeError
        In backward, if a gradient has another shape than its argument.
    DTypeError
        If forward or backward returns something else than tensors.

    See Also
    --------
    ferrograd.gate : the same for an object whose methods take and return numpy arrays.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Cube(fg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...
    ...     @staticmethod
    ...     def backward(ctx, grad_output):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x**2 * grad_output
    >>> x = fg.tensor([2.0], dtype=fg.float64, requires_grad=True)
    >>> Cube.apply(x).tolist()
    [8.0]
    >>> fg.autograd.gradcheck(Cube.apply, x)
    True
    """

    @staticmethod
    def forward(ctx: FunctionContext, *args: Any) -> Any:
        """Return a floating tensor, or a tuple of several; every subclass defines it.

        Without `ctx` where it defines `setup_context` too.
        """
        raise GraphError("Function: the subclass defines no forward")

    @staticmethod
    def setup_context(ctx: FunctionContext, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what backward needs; a subclass that defines it has a forward without `ctx`.

        Parameters
        ----------
        ctx : FunctionContext
            What `backward` gets.
        inputs : tuple
            The arguments of `apply`.
        output : object
            What forward returned.

        Examples
        --------
        >>> import ferrograd as fg
        >>> class Square(fg.autograd.Function):
        ...     @staticmethod
        ...     def forward(x):
        ...         return x * x
        ...
        ...     @staticmethod
        ...     def setup_context(ctx, inputs, output):
        ...         ctx.save_for_backward(*inputs)
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_output):
        ...         return 2 * ctx.saved_tensors[0] * grad_output
        >>> fg.func.grad(Square.apply)(fg.tensor(3.0)).item()
        6.0
        """
        raise GraphError("Function: the subclass defines no setup_context")

    @staticmethod
    def backward(ctx: FunctionContext, *grad_outputs: Tensor) -> Any:
        """Return the gradient of each argument; None for zero, and for arguments that are no tensors."""
        raise GraphError("Function: the subclass defines no backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Compute forward and record it with the backward of this class."""
        places = [place for place, arg in enumerate(args) if isinstance(arg, Tensor)]
        if not places:
            raise GraphError(f"{cls.__name__}.apply: none of the arguments is a Tensor")
        # Errors of the native side name the class of the object.
        use = type(cls.__name__, (_Use,), {})(cls, args, places)
        return use.finished(_core.gate(use)(*(args[place] for place in places)))


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a tuple, list or dict with its values changed."""
    if isinstance(value, dict):
        return {key: change(inner) for key, inner in value.items()}
    inner = [change(part) for part in value]
    if isinstance(value, list):
        return inner
    return value._make(inner) if hasattr(value, "_make") else tuple(inner)


def _may_hide_values(value: Any) -> bool:
    """Whether something else than a tensor may hold numbers that depend on the arguments.

    A plain number may too: it counts as a constant, as in PyTorch.
    """
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "biuSU"
    if isinstance(value, FunctionType):
        return value.__closure__ is not None
    plain = (Number, str, bytes, type(None), type, slice, range, BuiltinFunctionType, np.generic, _core.DType)
    return not isinstance(value, plain)


class _Use:
    """One call of `Function.apply`, in the form of a gate. A plan calls it once for each batch."""

    def __init__(self, function: type[Function], args: Sequence[Any], places: list[int]) -> None:
        self.function = function
        self.places = places
        self.shapes = [args[place].shape for place in places]
        self.needs = tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        self.others = [None if isinstance(arg, Tensor) else arg for arg in args]
        self.ctx = FunctionContext(self.needs)
        # Where a tensor that the context keeps comes from, by its id: 0 and the number of the argument, or
        # 1 and that of the result.
        self.origins: dict[int, tuple[int, int]] = {}
        # The dtypes of the results that have no gradient, by their number.
        self.marked: dict[int, DType] = {}

    @no_grad()
    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        self.ctx = FunctionContext(self.needs)
        args = list(self.others)
        for place, array in zip(self.places, arrays, strict=True):
            args[place] = _core.tensor(array)
        if self.function.setup_context is Function.setup_context:
            output = self.function.forward(self.ctx, *args)
        else:
            forward: Callable[..., Any] = self.function.forward
            output = forward(*args)
            self.function.setup_context(self.ctx, tuple(args), output)
        outputs = output if isinstance(output, tuple) else (output,)
        self._mark(outputs)
        known = {id(args[place]): (0, number) for number, place in enumerate(self.places)}
        known |= {id(result): (1, number) for number, result in enumerate(outputs)}
        self.origins = {id(kept): known[id(kept)] for kept in self._kept() if id(kept) in known}
        for number, output in enumerate(outputs):
            if not self._check("forward", output).dtype.is_floating_point and number not in self.marked:
                raise DTypeError(
                    f"{self.function.__name__}: forward must return floating tensors, got {output.dtype}; "
                    "mark_non_differentiable takes others"
                )
        return tuple(self._as_floats(outputs))

    def _mark(self, outputs: Sequence[Any]) -> None:
        """Note which results have no gradient."""
        marked, self.ctx._marked = {id(tensor) for tensor in self.ctx._marked}, ()
        self.marked = {number: y.dtype for number, y in enumerate(outputs) if id(y) in marked}
        if len(self.marked) != len(marked):
            raise GraphError(
                f"{self.function.__name__}: mark_non_differentiable got a tensor that is no result"
            )

    def _as_floats(self, outputs: Sequence[Tensor]) -> Iterator[Array]:
        """Give the results as arrays of floats: one op has one dtype, and `finished` turns them back."""
        floating = [y.dtype for y in outputs if y.dtype.is_floating_point]
        dtype = floating[0] if floating else _core.float64
        for y in outputs:
            values = y.numpy()
            if not y.dtype.is_floating_point:
                values, exact = values.astype(np.float32 if dtype == _core.float32 else np.float64), values
                if not (values.astype(exact.dtype) == exact).all():
                    raise DTypeError(
                        f"{self.function.__name__}: a result without gradient holds integers that are no "
                        f"{dtype.name}, the dtype of the result beside it"
                    )
            yield values

    def finished(self, results: Any) -> Any:
        """Return the results of the gate, those without gradient detached and in their dtypes."""
        if not self.marked:
            return results
        made = list(results) if isinstance(results, tuple) else [results]
        for number, dtype in self.marked.items():
            made[number] = made[number].detach().to(dtype)
        return tuple(made) if isinstance(results, tuple) else made[0]

    @no_grad()
    def backward(self, dout: Array | tuple[Array, ...]) -> tuple[Array | None, ...]:
        arrays = dout if isinstance(dout, tuple) else (dout,)
        chosen = self._gradients(self.ctx, [_core.tensor(array) for array in arrays])
        return tuple(None if grad is None else grad.numpy() for grad in chosen)

    def backward_recorded(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> list[Tensor | None] | None:
        """Return the gradients as parts of the graph; None where that cannot be."""
        if getattr(self.function.backward, "is_once", False):
            return None

        def joined(value: Any) -> Any:
            if isinstance(value, tuple | list | dict):
                return _rebuilt(value, joined)
            if not isinstance(value, Tensor):
                if _may_hide_values(value):
                    raise GraphError(
                        f"{self.function.__name__}: forward kept a {type(value).__name__}, whose share in "
                        "the derivative cannot be seen; keep tensors, or mark backward as once_differentiable"
                    )
                return value
            if id(value) in self.origins:
                side, number = self.origins[id(value)]
                return (inputs, outputs)[side][number]
            if value.dtype.is_floating_point:
                raise GraphError(
                    f"{self.function.__name__}: forward kept a tensor that is neither an argument nor a "
                    "result, so that its derivative is not known; return it too, or mark backward as "
                    "once_differentiable"
                )
            return value

        ctx = FunctionContext(self.needs)
        for name, value in vars(self.ctx).items():
            vars(ctx)[name] = joined(value)
        return self._gradients(ctx, grads)

    def _kept(self) -> list[Any]:
        """Return what the context keeps of forward."""
        found: list[Any] = []

        def note(value: Any) -> Any:
            if isinstance(value, tuple | list | dict):
                return _rebuilt(value, note)
            found.append(value)
            return value

        note(vars(self.ctx))
        return found

    def _gradients(self, ctx: FunctionContext, grads: Sequence[Tensor]) -> list[Tensor | None]:
        """Call backward; return the gradients of the arguments that are tensors."""
        returned = self.function.backward(ctx, *grads)
        found = returned if isinstance(returned, tuple) else (returned,)
        name = self.function.__name__
        if len(found) != len(self.needs):
            raise GraphError(
                f"{name}: backward must return a gradient for each of {len(self.needs)} arguments, "
                f"got {len(found)}"
            )
        for place, grad in enumerate(found):
            if grad is not None and place not in self.places:
                raise GraphError(
                    f"{name}: the gradient of argument {place}, which is no Tensor, must be None"
                )
        chosen: list[Tensor | None] = []
        for place, shape in zip(self.places, self.shapes, strict=True):
            grad = None if found[place] is None else self._check("backward", found[place])
            if grad is not None and grad.shape != shape:
                raise ShapeError(
                    f"{name}: the gradient of argument {place} must have shape {shape}, got {grad.shape}"
                )
            chosen.append(grad)
        return chosen

    def _check(self, method: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise DTypeError(
                f"{self.function.__name__}: {method} must return Tensors, got {type(value).__name__}"
            )
        return value
