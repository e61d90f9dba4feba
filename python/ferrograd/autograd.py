"""Gradients on demand: `grad`, the switches that turn recording on and off, and the numeric check."""

from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from ferrograd import _core, functional
from ferrograd._core import (
    ConfigError,
    DTypeError,
    FerrogradError,
    ShapeError,
    Tensor,
    grad,
    is_grad_enabled,
)
from ferrograd._typing import Array

__all__ = [
    "Function",
    "FunctionContext",
    "GradcheckError",
    "NumericGradient",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "is_grad_enabled",
    "no_grad",
    "numeric_gradient",
    "once_differentiable",
    "set_grad_enabled",
]


class set_grad_enabled:
    """Turn the recording of operations on or off, at once and until the end of a ``with`` block.

    Parameters
    ----------
    mode : bool
        Whether operations on tensors that require a gradient are recorded. The switch is per thread.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor(2.0, requires_grad=True)
    >>> with fg.set_grad_enabled(False):
    ...     (x * x).requires_grad
    False
    """

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        # One entry per block entered: an instance may be entered again while it is open.
        self._previous = [_core.set_grad_enabled(mode)]
        self._is_pending = True

    def __enter__(self) -> Self:
        if self._is_pending:
            self._is_pending = False
        else:
            self._previous.append(_core.set_grad_enabled(self._mode))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _core.set_grad_enabled(self._previous.pop())


class _GradMode(ContextDecorator):
    """A ``with`` block or decorator that holds the switch at one position."""

    _mode: bool

    def __init__(self) -> None:
        self._previous: list[bool] = []

    def _recreate_cm(self) -> Self:
        # A decorated function may be entered from several threads: each call gets its own stack.
        return type(self)()

    def __enter__(self) -> Self:
        self._previous.append(_core.set_grad_enabled(self._mode))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _core.set_grad_enabled(self._previous.pop())


class no_grad(_GradMode):
    """Record nothing inside: a ``with`` block, or a decorator written ``@no_grad()``.

    Results do not require a gradient, and leaves may be changed in place.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> with fg.no_grad():
    ...     w -= 0.5
    >>> w.tolist()
    [0.5, 1.5]
    """

    _mode = False


class enable_grad(_GradMode):
    """Record inside, also within `no_grad`: a ``with`` block, or a decorator written ``@enable_grad()``."""

    _mode = True


class GradcheckError(FerrogradError, RuntimeError):
    """Raised by `gradcheck` where the analytic and the numeric gradient differ."""


def gradcheck(
    func: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare gradients with centred differences.

    Each entry of the Jacobian ``J[i, j] = d output_i / d input_j`` from the backward pass is compared with
    ``(f(x + eps e_j) - f(x - eps e_j))_i / (2 eps)``; it passes where
    ``abs(analytic - numeric) <= atol + rtol * abs(numeric)``.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor or a sequence of tensors. It may compute gradients itself, so
        second derivatives can be checked too.
    inputs : Tensor or sequence
        Arguments of `func`. Those that are tensors requiring a gradient are checked; they must be float64.
        They are changed in place while the check runs and are restored afterwards, to the bit.
    eps : float, default 1e-6
        Step of the difference quotient. The check costs two calls of `func` per input element.
    atol, rtol : float, default 1e-5 and 1e-3
        Absolute and relative tolerance.
    raise_exception : bool, default True
        Whether a difference raises; otherwise it returns False.

    Returns
    -------
    bool
        True where all entries agree.

    Raises
    ------
    GradcheckError
        At a difference. The message names the worst entry of every input, the worst of them first: input, its
        element, output, its element, analytic and numeric value; and the step that was used and what it cost.
    DTypeError
        If a checked input is not float64: in float32 the rounding of the quotient is larger than `atol`.
    ConfigError
        If no input requires a gradient.

    See Also
    --------
    numeric_gradient : the difference quotients themselves, with their step and their cost.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([0.5, 1.0], dtype=fg.float64, requires_grad=True)
    >>> fg.autograd.gradcheck(lambda x: (x * x).sum(), x)
    True
    """
    arguments, checked = _checked_inputs("gradcheck", inputs)
    with enable_grad():
        analytic = _analytic_jacobians(func, arguments, [argument for _, argument in checked])
        numeric = [
            _numeric_jacobians("gradcheck", func, arguments, argument, eps, None) for _, argument in checked
        ]

    # By input; a line for each.
    worst = [(-np.inf, "")] * len(checked)
    for column, (position, argument) in enumerate(checked):
        for output, (shape, rows) in enumerate(analytic):
            found, expected = rows[column], numeric[column][output]
            excess = np.abs(found - expected) - (atol + rtol * np.abs(expected))
            # A NaN on either side is a difference, and the largest.
            excess = np.where(np.isnan(excess), np.inf, excess)
            if excess.size == 0 or excess.max() <= worst[column][0]:
                continue
            i, j = np.unravel_index(int(excess.argmax()), excess.shape)
            worst[column] = (
                float(excess[i, j]),
                f"input {position}, element {_element(int(j), argument.shape)}: "
                f"analytic {float(found[i, j])!r}, numeric {float(expected[i, j])!r} "
                f"(output {output}, element {_element(int(i), shape)}{{}})",
            )
    worst.sort(key=lambda entry: -entry[0])
    if worst[0][0] <= 0:
        return True
    if raise_exception:
        how = f"; centred differences, step {eps!r}, 2 evaluations per input element"
        lines = [
            text.format(how if number == 0 else "; passes" if excess <= 0 else "")
            for number, (excess, text) in enumerate(worst)
            if text
        ]
        raise GradcheckError("gradcheck: " + "\n".join(lines))
    return False


class NumericGradient(NamedTuple):
    """What `numeric_gradient` found, and how.

    Attributes
    ----------
    gradients : tuple of ndarray
        For each input that requires a gradient, an array of its shape.
    method : {"centred", "forward"}
        Which quotient.
    step : float
        The step h of the quotient.
    evaluations : int
        Calls of the function that were made.
    """

    gradients: tuple[Array, ...]
    method: str
    step: float
    evaluations: int

    def __str__(self) -> str:
        count = sum(gradient.size for gradient in self.gradients)
        return (
            f"{self.method} differences: step {self.step:g}, "
            f"{self.evaluations} evaluations for {count} input elements"
        )


def numeric_gradient(
    func: Callable[..., Tensor],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    method: str = "centred",
) -> NumericGradient:
    """Estimate the gradient of a scalar function by difference quotients.

    Centred: ``(f(x + h e_j) - f(x - h e_j)) / (2 h)``, 2 evaluations per input element, error about
    ``h^2 f^(3) / 6 + u / h`` with u the rounding error of f: smallest near ``h = u^(1/3)``, in float64 about
    1e-5. Forward: ``(f(x + h e_j) - f(x)) / h``, 1 evaluation per input element and one more, error about
    ``h f^(2) / 2 + 2 u / h``: smallest near ``h = u^(1/2)``, about 1e-8. The backward pass costs a few
    evaluations whatever the number of inputs, and has no step to choose.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor of one element.
    inputs : Tensor or sequence
        Arguments of `func`. The gradient is estimated for those that are tensors requiring a gradient; they
        must be float64. They are changed in place meanwhile and are restored afterwards, to the bit.
    eps : float, default 1e-6
        The step h, above 0.
    method : {"centred", "forward"}, default "centred"
        Which quotient.

    Returns
    -------
    NumericGradient
        ``gradients``, ``method``, ``step`` and ``evaluations``; printed, it says how it was found.

    Raises
    ------
    ConfigError
        If `eps` is not above 0, `method` is something else, or no input requires a gradient.
    ShapeError
        If `func` returns more than one element.
    DTypeError
        If an input is not float64, or `func` returns no tensor.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, 3.0], dtype=fg.float64, requires_grad=True)
    >>> found = fg.autograd.numeric_gradient(lambda x: x.square().sum(), x)
    >>> found.gradients[0].round(6).tolist()
    [2.0, 6.0]
    >>> print(found)
    centred differences: step 1e-06, 4 evaluations for 2 input elements
    """
    owner = "numeric_gradient"
    if not 0 < eps < np.inf:
        raise ConfigError(f"{owner}: eps must be a finite number above 0, got {eps!r}")
    if method not in ("centred", "forward"):
        raise ConfigError(f"{owner}: method must be 'centred' or 'forward', got {method!r}")
    arguments, checked = _checked_inputs(owner, inputs)
    evaluations = 0

    def scalar(*values: Any) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        output = func(*values)
        if not isinstance(output, Tensor):
            raise DTypeError(
                f"{owner}: expected a function that returns a Tensor, got {type(output).__name__}"
            )
        if output.numel() != 1:
            raise ShapeError(f"{owner}: expected a function that returns one element, got {output.shape}")
        return output

    # Recording stays on: like the function of `gradcheck`, this one may compute gradients itself.
    with enable_grad():
        base = None
        if method == "forward":
            base = [scalar(*arguments).numpy().astype(np.float64).ravel()]
        gradients = []
        for _, argument in checked:
            (row,) = _numeric_jacobians(owner, scalar, arguments, argument, eps, base)
            gradients.append(row.reshape(argument.shape))
    return NumericGradient(tuple(gradients), method, float(eps), evaluations)


def _checked_inputs(
    owner: str, inputs: Tensor | Sequence[Any]
) -> tuple[tuple[Any, ...], list[tuple[int, Tensor]]]:
    """Return all arguments, and those that require a gradient with their positions."""
    arguments: tuple[Any, ...] = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [
        (position, argument)
        for position, argument in enumerate(arguments)
        if isinstance(argument, Tensor) and argument.requires_grad
    ]
    if not checked:
        raise ConfigError(f"{owner}: no input requires a gradient")
    for position, argument in checked:
        if argument.dtype != _core.float64:
            raise DTypeError(f"{owner}: input {position} must be float64, got {argument.dtype.name}")
    return arguments, checked


def _element(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(flat, shape)) if shape else ()


def _outputs(owner: str, result: Tensor | Sequence[Tensor]) -> list[Tensor]:
    outputs = [result] if isinstance(result, Tensor) else list(result)
    for position, output in enumerate(outputs):
        if not isinstance(output, Tensor):
            raise DTypeError(
                f"{owner}: output {position} of the function is {type(output).__name__}, not a Tensor"
            )
    return outputs


def _analytic_jacobians(
    func: Callable[..., Tensor | Sequence[Tensor]], arguments: tuple[Any, ...], checked: list[Tensor]
) -> list[tuple[tuple[int, ...], list[Array]]]:
    """For each output its shape and, per checked input, the matrix (output elements, input elements)."""
    jacobians = []
    for output in _outputs("gradcheck", func(*arguments)):
        rows = [np.zeros((output.numel(), tensor.numel())) for tensor in checked]
        # An output that depends on no input has the gradient zero; the numeric side must agree.
        if output.requires_grad:
            for i in range(output.numel()):
                seed = np.zeros(output.numel())
                seed[i] = 1.0
                grads = grad(
                    output, checked, seed.reshape(output.shape), retain_graph=True, allow_unused=True
                )
                for row, found in zip(rows, grads, strict=True):
                    if found is not None:
                        row[i] = found.numpy().ravel()
        jacobians.append((output.shape, rows))
    return jacobians


def _numeric_jacobians(
    owner: str,
    func: Callable[..., Tensor | Sequence[Tensor]],
    arguments: tuple[Any, ...],
    tensor: Tensor,
    eps: float,
    base: list[Array] | None,
) -> list[Array]:
    """For each output the matrix (output elements, elements of `tensor`) by difference quotients.

    Centred ones; forward ones where the function's value `base` at the inputs is given.
    """
    start = tensor.numpy()

    def evaluate(j: int, step: float) -> list[Array]:
        moved = start.copy()
        moved.reshape(-1)[j] += step
        _write(tensor, moved)
        return [output.numpy().astype(np.float64).ravel() for output in _outputs(owner, func(*arguments))]

    def quotients(j: int) -> list[Array]:
        upper = evaluate(j, eps)
        lower, width = (evaluate(j, -eps), 2 * eps) if base is None else (base, eps)
        return [(up - low) / width for up, low in zip(upper, lower, strict=True)]

    try:
        if tensor.numel() == 0:
            return [np.zeros((output.numel(), 0)) for output in _outputs(owner, func(*arguments))]
        columns = [quotients(j) for j in range(tensor.numel())]
    finally:
        _write(tensor, start)
    return [np.stack(column, axis=1) for column in zip(*columns, strict=True)]


def _write(tensor: Tensor, values: Array) -> None:
    with no_grad():
        tensor.data.copy_(values)


# Last: it uses the switches above.
from ferrograd.function import Function, FunctionContext, once_differentiable  # noqa: E402
