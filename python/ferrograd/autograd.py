"""Gradients on demand: `grad`, the switches that turn recording on and off, and the numeric check."""

from collections.abc import Callable, Iterator, Sequence
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
from ferrograd.checks import as_list, check_callable, check_number

__all__ = [
    "Function",
    "FunctionContext",
    "GradcheckError",
    "NumericGradient",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
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
    """Record inside, also within `no_grad`: a ``with`` block, or a decorator written ``@enable_grad()``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor(2.0, requires_grad=True)
    >>> with fg.no_grad():
    ...     with fg.enable_grad():
    ...         y = x * x
    >>> y.requires_grad
    True
    """

    _mode = True


class GradcheckError(FerrogradError, RuntimeError):
    """Raised by `gradcheck` where the analytic and the numeric gradient differ.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor(2.0, dtype=fg.float64, requires_grad=True)
    >>> try:
    ...     fg.autograd.gradcheck(lambda x: x * x.detach(), x)
    ... except fg.autograd.GradcheckError as error:
    ...     print(str(error)[:43])
    gradcheck: input 0, element (): analytic 2.
    """


def gradcheck(
    func: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    fast_mode: bool = False,
) -> bool:
    """Compare gradients with centred differences.

    Each entry of the Jacobian ``J[i, j] = d output_i / d input_j`` from the backward pass is compared with
    ``(f(x + eps e_j) - f(x - eps e_j))_i / (2 eps)``; it passes where
    ``abs(analytic - numeric) <= atol + rtol * abs(numeric)``. With `fast_mode` one number is
    compared for each pair of an output and an input, ``v J u`` with random u and v of positive elements and
    length 1, at a cost that does not grow with the number of elements.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor or a sequence of tensors. It may compute gradients itself, so
        second derivatives can be checked too.
    inputs : Tensor or sequence
        Arguments of `func`. Those that are tensors requiring a gradient are checked; they must be float64.
        They are changed in place while the check runs and are restored afterwards, to the bit.
    eps : float, default 1e-6
        Step of the difference quotient. The check costs two calls of `func` per input element, with
        `fast_mode` per input.
    atol, rtol : float, default 1e-5 and 1e-3
        Absolute and relative tolerance.
    raise_exception : bool, default True
        Whether a difference raises; otherwise it returns False.
    nondet_tol : float, default 0.0
        How much two backward passes may differ. Those of this library do not differ; those of a `Function`
        written in Python might.
    fast_mode : bool, default False
        Whether to compare along one random direction only.

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
        If no input requires a gradient, or `nondet_tol` is below 0.

    See Also
    --------
    gradgradcheck : the same for the gradients of gradients.
    numeric_gradient : the difference quotients themselves, with their step and their cost.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([0.5, 1.0], dtype=fg.float64, requires_grad=True)
    >>> fg.autograd.gradcheck(lambda x: (x * x).sum(), x)
    True
    """
    _check_options("gradcheck", func, eps=eps, atol=atol, rtol=rtol, nondet_tol=nondet_tol)
    arguments, checked = _checked_inputs("gradcheck", inputs)
    tensors = [argument for _, argument in checked]
    with enable_grad():
        analytic = _analytic_jacobians(func, arguments, tensors, fast_mode)
        again = _analytic_jacobians(func, arguments, tensors, fast_mode)
        numeric = [
            _numeric_jacobians("gradcheck", func, arguments, tensor, eps, None, fast_mode)
            for tensor in tensors
        ]

    # By input; a line for each.
    worst = [(-np.inf, "")] * len(checked)
    for column, ((position, _), tensor) in enumerate(zip(checked, tensors, strict=True)):
        for output, (shape, rows) in enumerate(analytic):
            found, expected = rows[column], numeric[column][output]
            moved = np.abs(found - again[output][1][column]).max(initial=0.0)
            if moved > nondet_tol:
                worst[column] = (
                    np.inf,
                    f"input {position}: two backward passes of output {output} differ by "
                    f"{float(moved)!r}, more than nondet_tol {nondet_tol!r}",
                )
                continue
            excess = np.abs(found - expected) - (atol + rtol * np.abs(expected))
            # A NaN on either side is a difference, and the largest.
            excess = np.where(np.isnan(excess), np.inf, excess)
            if excess.size == 0 or excess.max() <= worst[column][0]:
                continue
            i, j = np.unravel_index(int(excess.argmax()), excess.shape)
            of_input = of_output = ""
            if not fast_mode:
                of_input = f", element {_element(int(j), tensor.shape)}"
                of_output = f", element {_element(int(i), shape)}"
            worst[column] = (
                float(excess[i, j]),
                f"input {position}{of_input}: analytic {float(found[i, j])!r}, "
                f"numeric {float(expected[i, j])!r} (output {output}{of_output}{{}})",
            )
    worst.sort(key=lambda entry: -entry[0])
    if worst[0][0] <= 0:
        return True
    if raise_exception:
        each = "" if fast_mode else " element"
        how = f"; centred differences, step {eps!r}, 2 evaluations per input{each}"
        lines = [
            text.format(how if number == 0 else "; passes" if excess <= 0 else "")
            for number, (excess, text) in enumerate(worst)
            if text
        ]
        raise GradcheckError("gradcheck: " + "\n".join(lines))
    return False


def gradgradcheck(
    func: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    fast_mode: bool = False,
) -> bool:
    """Compare gradients of gradients with centred differences of gradients.

    `gradcheck` of the function ``(x, v) -> v J(x)``, which is what a backward pass computes of the inputs x
    and the gradients v of the outputs: its derivatives are ``d (v J) / d x``, in which all second derivatives
    of `func` are, and ``d (v J) / d v = J``.

    Parameters
    ----------
    func : callable
        Takes the inputs; returns a tensor or a sequence of tensors.
    inputs : Tensor or sequence
        As for `gradcheck`.
    grad_outputs : Tensor or sequence of Tensor, optional
        The v, one for each output that requires a gradient, in its shape and in float64; random ones by
        default. Those that require a gradient are checked too, as the random ones are.
    eps, atol, rtol, raise_exception, nondet_tol, fast_mode : optional
        As for `gradcheck`.

    Returns
    -------
    bool
        True where all entries agree; also where no gradient depends on anything.

    Raises
    ------
    GradcheckError
        At a difference. Inputs are counted on through `grad_outputs`; output k is the gradient with respect
        to the k-th input that requires one.
    DTypeError
        If a checked input is not float64.
    ConfigError
        If no input requires a gradient, or there are not as many `grad_outputs` as such outputs.

    See Also
    --------
    gradcheck : the same for first derivatives.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([0.5, 1.0], dtype=fg.float64, requires_grad=True)
    >>> fg.autograd.gradgradcheck(lambda x: x**3, x)
    True
    """
    owner = "gradgradcheck"
    _check_options(owner, func, eps=eps, atol=atol, rtol=rtol, nondet_tol=nondet_tol)
    arguments, checked = _checked_inputs(owner, inputs)
    with enable_grad():
        outputs = [y for y in _outputs(owner, func(*arguments)) if y.requires_grad]
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        seeds = [
            _core.tensor(rng.uniform(0.5, 1.5, y.shape), dtype=y.dtype, requires_grad=True) for y in outputs
        ]
    else:
        seeds = (
            [grad_outputs]
            if isinstance(grad_outputs, Tensor)
            else as_list(f"{owner}: grad_outputs", "tensors", grad_outputs)
        )
    if len(seeds) != len(outputs):
        raise ConfigError(f"{owner}: expected {len(outputs)} grad_outputs, one an output, got {len(seeds)}")

    def slopes(*values: Any) -> list[Tensor]:
        given, upstream = values[: len(arguments)], values[len(arguments) :]
        found = [y for y in _outputs(owner, func(*given)) if y.requires_grad]
        tensors = [given[position] for position, _ in checked]
        if not found:
            return [_core.zeros_like(x) for x in tensors]
        grads = grad(found, tensors, upstream, create_graph=True, allow_unused=True)
        # What does not depend on an input has the gradient zero; the numeric side must agree.
        return [_core.zeros_like(x) if g is None else g for g, x in zip(grads, tensors, strict=True)]

    return gradcheck(
        slopes,
        [*arguments, *seeds],
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        fast_mode=fast_mode,
    )


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

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor(2.0, dtype=fg.float64, requires_grad=True)
    >>> found = fg.autograd.numeric_gradient(lambda x: x * x, x)
    >>> found.method, found.step, found.evaluations, found.gradients[0].round(6).item()
    ('centred', 1e-06, 2, 4.0)
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
    _check_options(owner, func, eps=eps)
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


def _check_options(owner: str, func: Any, **numbers: Any) -> None:
    """Raise `ConfigError` for what is no function, and for a step or a tolerance that is none."""
    check_callable(owner, func)
    for name, value in numbers.items():
        check_number(f"{owner}: {name}", value, low=0, open_low=name == "eps")


def _checked_inputs(
    owner: str, inputs: Tensor | Sequence[Any]
) -> tuple[tuple[Any, ...], list[tuple[int, Tensor]]]:
    """Return all arguments, and those that require a gradient with their positions."""
    arguments: tuple[Any, ...] = (
        (inputs,) if isinstance(inputs, Tensor) else tuple(as_list(f"{owner}: inputs", "tensors", inputs))
    )
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
    outputs: list[Tensor] = (
        [result]
        if isinstance(result, Tensor)
        else as_list(f"{owner}: the function's output", "tensors", result)
    )
    for position, output in enumerate(outputs):
        if not isinstance(output, Tensor):
            raise DTypeError(
                f"{owner}: output {position} of the function is {type(output).__name__}, not a Tensor"
            )
    return outputs


def _directions(count: int, is_fast: bool) -> Iterator[Array]:
    """Give each unit vector, or a single random one.

    Its elements are positive: with signs the entries of a wrong Jacobian might cancel.
    """
    if is_fast:
        drawn = np.random.default_rng(0).uniform(0.5, 1.5, count)
        yield drawn / max(float(np.linalg.norm(drawn)), 1.0)
        return
    for j in range(count):
        unit = np.zeros(count)
        unit[j] = 1.0
        yield unit


def _analytic_jacobians(
    func: Callable[..., Tensor | Sequence[Tensor]],
    arguments: tuple[Any, ...],
    checked: list[Tensor],
    is_fast: bool,
) -> list[tuple[tuple[int, ...], list[Array]]]:
    """For each output its shape and, per checked input, the matrix (output elements, input elements).

    It is 1 x 1, of random directions, where `is_fast`.
    """
    jacobians = []
    for output in _outputs("gradcheck", func(*arguments)):
        height = 1 if is_fast else output.numel()
        rows = [np.zeros((height, 1 if is_fast else tensor.numel())) for tensor in checked]
        # An output that depends on no input has the gradient zero; the numeric side must agree.
        if output.requires_grad:
            for i, seed in enumerate(_directions(output.numel(), is_fast)):
                grads = grad(
                    output, checked, seed.reshape(output.shape), retain_graph=True, allow_unused=True
                )
                for row, found in zip(rows, grads, strict=True):
                    if found is None:
                        continue
                    flat = found.numpy().ravel()
                    row[i] = flat @ next(_directions(len(flat), True)) if is_fast else flat
        jacobians.append((output.shape, rows))
    return jacobians


def _numeric_jacobians(
    owner: str,
    func: Callable[..., Tensor | Sequence[Tensor]],
    arguments: tuple[Any, ...],
    tensor: Tensor,
    eps: float,
    base: list[Array] | None,
    is_fast: bool = False,
) -> list[Array]:
    """For each output the matrix (output elements, elements of `tensor`) by difference quotients.

    Centred ones; forward ones where the function's value `base` at the inputs is given.
    """
    start = tensor.numpy()

    def evaluate(way: Array, step: float) -> list[Array]:
        _write(tensor, start + step * way.reshape(start.shape))
        flat = [output.numpy().astype(np.float64).ravel() for output in _outputs(owner, func(*arguments))]
        if not is_fast:
            return flat
        return [values @ next(_directions(len(values), True))[:, None] for values in flat]

    def quotients(way: Array) -> list[Array]:
        upper = evaluate(way, eps)
        lower, width = (evaluate(way, -eps), 2 * eps) if base is None else (base, eps)
        return [(up - low) / width for up, low in zip(upper, lower, strict=True)]

    try:
        if tensor.numel() == 0 and not is_fast:
            return [np.zeros((output.numel(), 0)) for output in _outputs(owner, func(*arguments))]
        columns = [quotients(way) for way in _directions(tensor.numel(), is_fast)]
    finally:
        _write(tensor, start)
    return [np.stack(column, axis=1) for column in zip(*columns, strict=True)]


def _write(tensor: Tensor, values: Array) -> None:
    with no_grad():
        tensor.data.copy_(values)


# Last: it uses the switches above.
from ferrograd.function import Function, FunctionContext, once_differentiable  # noqa: E402
