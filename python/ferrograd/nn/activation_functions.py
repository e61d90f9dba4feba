"""Activations as functions, beyond those of `ferrograd.ops`; `nn.functional` has all of them.

Each takes a tensor of any shape or anything numpy can read, and returns a tensor of its shape. In the
formulas ``g`` is the gradient from above. At a kink the derivative is that of the flat side. Integers become
float32; options out of range raise `ConfigError`.
"""

import math
from numbers import Real

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.checks import check_int
from ferrograd.convert import operand
from ferrograd.ops import leaky_relu

__all__ = [
    "celu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "logsigmoid",
    "mish",
    "relu6",
    "rrelu",
    "selu",
    "silu",
    "softmin",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]


def check_finite(owner: str, name: str, value: float) -> float:
    """Return `value` if it is a finite number; bools are refused."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(f"{owner}: {name} must be a finite number, got {value!r}")
    return float(value)


def check_alpha(owner: str, alpha: float) -> float:
    """Return `alpha` if it is a finite number other than 0."""
    if check_finite(owner, "alpha", alpha) == 0:
        raise ConfigError(f"{owner}: alpha must not be 0")
    return alpha


def check_lambd(owner: str, lambd: float) -> float:
    """Return `lambd` if it is a finite number of at least 0."""
    if check_finite(owner, "lambd", lambd) < 0:
        raise ConfigError(f"{owner}: lambd must be at least 0, got {lambd!r}")
    return lambd


def check_interval(owner: str, names: tuple[str, str], low: float, high: float) -> None:
    """Refuse ends of an interval in the wrong order."""
    if check_finite(owner, names[0], low) > check_finite(owner, names[1], high):
        raise ConfigError(f"{owner}: {names[1]} must be at least {names[0]}, got {low!r} and {high!r}")


def check_approximate(owner: str, approximate: str) -> str:
    """Return `approximate` if it is "none" or "tanh"."""
    if approximate not in ("none", "tanh"):
        raise ConfigError(f"{owner}: approximate must be 'none' or 'tanh', got {approximate!r}")
    return approximate


def celu(input: TensorLike, alpha: float = 1.0) -> Tensor:
    """Return ``x`` if positive, else ``alpha (e^(x / alpha) - 1)``; gradient ``g`` or ``g e^(x / alpha)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.celu([-1.0, 2.0], alpha=0.5)
    tensor([-0.4323,  2.0000])
    """
    return _core.activation("celu", input, check_alpha("celu", alpha))


def selu(input: TensorLike) -> Tensor:
    """Return ``s x`` where positive, else ``s a (exp(x) - 1)``; gradient ``g s``, ``g s a exp(x)``.

    ``s = 1.0507`` and ``a = 1.67326`` keep mean 0 and variance 1 (Klambauer et al., 2017).

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.selu([-1.0, 2.0])
    tensor([-1.1113,  2.1014])
    """
    return _core.activation("selu", input)


def gelu(input: TensorLike, approximate: str = "none") -> Tensor:
    """Return ``x Phi(x)``, Phi the normal distribution function; gradient ``g (Phi(x) + x phi(x))``.

    "tanh" takes ``x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`` (Hendrycks and Gimpel, 2016).

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.gelu([-1.0, 2.0])
    tensor([-0.1587,  1.9545])
    """
    is_exact = check_approximate("gelu", approximate) == "none"
    return _core.activation("gelu" if is_exact else "gelu_tanh", input)


def silu(input: TensorLike) -> Tensor:
    """Return ``x s`` with ``s = sigmoid(x)``; gradient ``g s (1 + x (1 - s))``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.silu([-1.0, 2.0])
    tensor([-0.2689,  1.7616])
    """
    return _core.activation("silu", input)


def mish(input: TensorLike) -> Tensor:
    """Return ``x t``, ``t = tanh(softplus(x))``; gradient ``g (t + x (1 - t^2) sigmoid(x))``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.mish([-1.0, 2.0])
    tensor([-0.3034,  1.9440])
    """
    return _core.activation("mish", input)


def softsign(input: TensorLike) -> Tensor:
    """Return ``x / (1 + abs(x))``; gradient ``g / (1 + abs(x))^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.softsign([-1.0, 3.0])
    tensor([-0.5000,  0.7500])
    """
    return _core.activation("softsign", input)


def logsigmoid(input: TensorLike) -> Tensor:
    """Return ``-log(1 + exp(-x))`` without overflow; gradient ``g sigmoid(-x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.logsigmoid([0.0, -1000.0])
    tensor([-6.9315e-01, -1.0000e+03])
    """
    return _core.activation("logsigmoid", input)


def hardtanh(input: TensorLike, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Return ``x`` held in [min_val, max_val]; gradient ``g`` inside, 0 at the ends and beyond.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.hardtanh([-2.0, 0.5, 2.0])
    tensor([-1.0000,  0.5000,  1.0000])
    """
    check_interval("hardtanh", ("min_val", "max_val"), min_val, max_val)
    return _core.activation("hardtanh", input, min_val, max_val)


def relu6(input: TensorLike) -> Tensor:
    """Return ``x`` held in [0, 6]; gradient ``g`` inside, 0 at the ends and beyond.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.relu6([-1.0, 2.0, 8.0])
    tensor([0., 2., 6.])
    """
    return _core.activation("hardtanh", input, 0.0, 6.0)


def hardsigmoid(input: TensorLike) -> Tensor:
    """Return ``x / 6 + 1/2`` held in [0, 1]; gradient ``g / 6`` where ``-3 < x < 3``, else 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.hardsigmoid([-4.0, 0.0, 1.5])
    tensor([0.0000, 0.5000, 0.7500])
    """
    return _core.activation("hardsigmoid", input)


def hardswish(input: TensorLike) -> Tensor:
    """Return ``x hardsigmoid(x)``; gradient ``g (x / 3 + 1/2)`` where ``-3 < x < 3``, else 0 or ``g``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.hardswish([-4.0, 1.0, 4.0])
    tensor([0.0000, 0.6667, 4.0000])
    """
    return _core.activation("hardswish", input)


def hardshrink(input: TensorLike, lambd: float = 0.5) -> Tensor:
    """Return ``x`` where ``abs(x) > lambd``, else 0; gradient ``g`` or 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.hardshrink([-0.3, 0.6])
    tensor([0.0000, 0.6000])
    """
    return _core.activation("hardshrink", input, check_lambd("hardshrink", lambd))


def softshrink(input: TensorLike, lambd: float = 0.5) -> Tensor:
    """Return ``x`` moved by `lambd` towards 0, at most to 0; gradient ``g`` if ``abs(x) > lambd``, else 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.softshrink([-0.3, 0.75])
    tensor([0.0000, 0.2500])
    """
    return _core.activation("softshrink", input, check_lambd("softshrink", lambd))


def tanhshrink(input: TensorLike) -> Tensor:
    """Return ``x - tanh(x)``; gradient ``g tanh(x)^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.tanhshrink([0.0, 2.0])
    tensor([0.0000, 1.0360])
    """
    return _core.activation("tanhshrink", input)


def threshold(input: TensorLike, threshold: float, value: float) -> Tensor:
    """Return ``x`` where ``x > threshold``, else `value`; gradient ``g`` or 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.threshold([0.1, 0.7], 0.5, -1.0)
    tensor([-1.0000,  0.7000])
    """
    numbers = (check_finite("threshold", "threshold", threshold), check_finite("threshold", "value", value))
    return _core.activation("threshold", input, *numbers)


def glu(input: TensorLike, dim: int = -1) -> Tensor:
    """Return ``a sigmoid(b)``, a and b the halves along `dim`; gradients ``g s`` and ``g a s (1 - s)``.

    Raises `ShapeError` if the length of `dim` is odd.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.glu([1.0, 2.0, 0.0, 100.0])
    tensor([0.5000, 2.0000])
    """
    input = operand("input", input)
    check_int("glu: dim", dim, low=-(2**63))
    if not -input.ndim <= dim < input.ndim:
        raise ShapeError(f"glu: expected a dimension of shape {input.shape}, got dim={dim}")
    length = input.shape[dim]
    if length % 2:
        raise ShapeError(f"glu: expected an even length of dimension {dim}, got shape {input.shape}")
    before = (slice(None),) * (dim % input.ndim)
    gates = input[(*before, slice(length // 2, None))]
    return input[(*before, slice(length // 2))] * gates.sigmoid()


def softmin(input: TensorLike, dim: int) -> Tensor:
    """Return ``p = softmax(-x)`` along `dim`; gradient ``-p (g - sum(g p))``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.softmin([0.0, 0.0], 0)
    tensor([0.5000, 0.5000])
    """
    return operand("input", input).neg().softmax(dim)


def rrelu(input: TensorLike, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    """Return ``x`` where positive, else ``a x``; gradient ``g`` or ``g a``.

    In training each element has an ``a`` of its own, drawn from [lower, upper) anew at each call and at each
    step of a plan; else a is ``(lower + upper) / 2`` (Xu et al., "Empirical Evaluation of Rectified
    Activations", 2015).

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.rrelu([-2.0, 2.0], lower=0.1, upper=0.3)
    tensor([-0.4000,  2.0000])
    """
    check_interval("rrelu", ("lower", "upper"), lower, upper)
    input = operand("input", input)
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    slopes = _core.noise(input.shape, False, input.dtype) * (upper - lower) + lower
    return _core.where(input > 0, input, input * slopes)
