"""Functions whose derivative is written by hand, beside those that the operations have."""

from collections.abc import Sequence
from typing import Any

from ferrograd import _core
from ferrograd._core import DTypeError, GraphError, ShapeError, Tensor
from ferrograd._typing import Array
from ferrograd.autograd import no_grad

__all__ = ["Function", "FunctionContext"]


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


class Function:
    """Base of functions with a backward of their own, called as ``Name.apply(*args)``.

    A subclass defines two static methods. Inside them nothing is recorded: they may use numpy or anything
    else. Each use costs a call of Python, in a `Trainer` too, which runs it at every batch. The derivative
    of the backward is not known: ``create_graph=True`` through it raises GraphError.

    Raises
    ------
    GraphError
        At `apply`, if no argument is a Tensor; in backward, if it returns another number of gradients than
        there are arguments; at a second backward, if the first freed what was saved.
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
        """Return a floating tensor, or a tuple of several; every subclass defines it."""
        raise GraphError("Function: the subclass defines no forward")

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
        return _core.gate(use)(*(args[place] for place in places))


class _Use:
    """One call of `Function.apply`, in the form of a gate. A plan calls it once for each batch."""

    def __init__(self, function: type[Function], args: Sequence[Any], places: list[int]) -> None:
        self.function = function
        self.places = places
        self.shapes = [args[place].shape for place in places]
        self.needs = tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        self.others = [None if isinstance(arg, Tensor) else arg for arg in args]
        self.ctx = FunctionContext(self.needs)

    @no_grad()
    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        self.ctx = FunctionContext(self.needs)
        args = list(self.others)
        for place, array in zip(self.places, arrays, strict=True):
            args[place] = _core.tensor(array)
        output = self.function.forward(self.ctx, *args)
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(self._array("forward", output) for output in outputs)

    @no_grad()
    def backward(self, dout: Array | tuple[Array, ...]) -> tuple[Array | None, ...]:
        arrays = dout if isinstance(dout, tuple) else (dout,)
        found = self.function.backward(self.ctx, *(_core.tensor(array) for array in arrays))
        grads = found if isinstance(found, tuple) else (found,)
        name = self.function.__name__
        if len(grads) != len(self.needs):
            raise GraphError(
                f"{name}: backward must return a gradient for each of {len(self.needs)} arguments, "
                f"got {len(grads)}"
            )
        for place, grad in enumerate(grads):
            if grad is not None and place not in self.places:
                raise GraphError(
                    f"{name}: the gradient of argument {place}, which is no Tensor, must be None"
                )
        chosen = []
        for place, shape in zip(self.places, self.shapes, strict=True):
            grad = grads[place]
            array = None if grad is None else self._array("backward", grad)
            if array is not None and array.shape != shape:
                raise ShapeError(
                    f"{name}: the gradient of argument {place} must have shape {shape}, got {array.shape}"
                )
            chosen.append(array)
        return tuple(chosen)

    def _array(self, method: str, value: Any) -> Array:
        if not isinstance(value, Tensor):
            raise DTypeError(
                f"{self.function.__name__}: {method} must return Tensors, got {type(value).__name__}"
            )
        return value.numpy()
