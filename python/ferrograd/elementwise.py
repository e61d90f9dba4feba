"""Arithmetic and comparisons, element by element; `ferrograd.ops` has them."""

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.convert import operand

__all__ = [
    "abs",
    "add",
    "ceil",
    "clamp",
    "cos",
    "div",
    "eq",
    "erf",
    "exp",
    "expm1",
    "floor",
    "ge",
    "gt",
    "heaviside",
    "le",
    "log",
    "log1p",
    "logical_not",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "neg",
    "pow",
    "reciprocal",
    "round",
    "sign",
    "sin",
    "sqrt",
    "square",
    "sub",
    "where",
]


def add(input: TensorLike, other: TensorLike, *, alpha: float = 1) -> Tensor:
    """Return ``input + alpha * other``, broadcast; gradients ``g`` and ``alpha g``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.add([1.0, 2.0], [10.0, 20.0], alpha=0.5)
    tensor([ 6., 12.])
    """
    return operand("input", input).add(other if alpha == 1 else operand("other", other).mul(alpha))


def sub(input: TensorLike, other: TensorLike, *, alpha: float = 1) -> Tensor:
    """Return ``input - alpha * other``, broadcast; gradients ``g`` and ``-alpha g``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.sub([10.0, 20.0], 4.0)
    tensor([ 6., 16.])
    """
    return operand("input", input).sub(other if alpha == 1 else operand("other", other).mul(alpha))


def mul(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input * other``, broadcast; gradients ``g other`` and ``g input``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.mul([1.0, 2.0], [[10.0], [100.0]])
    tensor([[ 10.,  20.],
            [100., 200.]])
    """
    return operand("input", input).mul(other)


def div(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input / other``, broadcast, floating; gradients ``g / other``, ``-g input / other^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.div([1, 2], [2, 4])
    tensor([0.5000, 0.5000])
    """
    return operand("input", input).div(other)


def neg(input: TensorLike) -> Tensor:
    """Return ``-input``; gradient ``-g``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.neg([1.0, -2.0])
    tensor([-1.,  2.])
    """
    return operand("input", input).neg()


def pow(input: TensorLike, exponent: TensorLike) -> Tensor:
    """Return ``input ** exponent``; gradients ``g e x^(e-1)`` and ``g x^e log x``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, 3.0], requires_grad=True)
    >>> fg.pow(x, 2).sum().backward()
    >>> x.grad
    tensor([2., 6.])
    """
    return operand("input", input).pow(exponent)


def exp(input: TensorLike) -> Tensor:
    """Return ``exp(input)``; gradient ``g exp(x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.exp([0.0, 1.0])
    tensor([1.0000, 2.7183])
    """
    return operand("input", input).exp()


def expm1(input: TensorLike) -> Tensor:
    """Return ``exp(input) - 1``, accurate near zero; gradient ``g exp(x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.expm1([1e-8, 1.0]).tolist()[0] > 0
    True
    """
    return operand("input", input).expm1()


def log(input: TensorLike) -> Tensor:
    """Return the natural logarithm; gradient ``g / x``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.log([1.0, 10.0])
    tensor([0.0000, 2.3026])
    """
    return operand("input", input).log()


def log1p(input: TensorLike) -> Tensor:
    """Return ``log(1 + input)``, accurate near zero; gradient ``g / (1 + x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.log1p([0.0, 9.0])
    tensor([0.0000, 2.3026])
    """
    return operand("input", input).log1p()


def sqrt(input: TensorLike) -> Tensor:
    """Return the square root; gradient ``g / (2 sqrt(x))``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.sqrt([4.0, 9.0])
    tensor([2., 3.])
    """
    return operand("input", input).sqrt()


def square(input: TensorLike) -> Tensor:
    """Return ``input ** 2``; gradient ``2 g x``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.square([-3.0, 2.0])
    tensor([9., 4.])
    """
    return operand("input", input).square()


def reciprocal(input: TensorLike) -> Tensor:
    """Return ``1 / input``; gradient ``-g / x^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.reciprocal([2.0, -4.0])
    tensor([ 0.5000, -0.2500])
    """
    return operand("input", input).reciprocal()


def abs(input: TensorLike) -> Tensor:
    """Return the absolute value; gradient ``g sign(x)``, zero at zero.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.abs([-1.5, 2.0])
    tensor([1.5000, 2.0000])
    """
    return operand("input", input).abs()


def sign(input: TensorLike) -> Tensor:
    """Return -1, 0 or 1 by sign; the gradient is zero.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.sign([-3.0, 0.0, 2.0])
    tensor([-1.,  0.,  1.])
    """
    return operand("input", input).sign()


def erf(input: TensorLike) -> Tensor:
    """Return the error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to x.

    The gradient is ``2 g exp(-x^2) / sqrt(pi)``. A normal variable lies within x standard deviations of its
    mean with probability ``erf(x / sqrt(2))``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> f"{fg.erf(fg.tensor(1.0)).item():.5f}"
    '0.84270'
    """
    return operand("input", input).erf()


def floor(input: TensorLike) -> Tensor:
    """Return the largest integer that is not above; the gradient is zero. Integers stay as they are.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.floor([-1.5, 0.2])
    tensor([-2.,  0.])
    """
    return operand("input", input).floor()


def ceil(input: TensorLike) -> Tensor:
    """Return the smallest integer that is not below; the gradient is zero. Integers stay as they are.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.ceil([-1.5, 0.2])
    tensor([-1.,  1.])
    """
    return operand("input", input).ceil()


def round(input: TensorLike, *, decimals: int = 0) -> Tensor:
    """Return the nearest number of `decimals` decimal places, the even one halfway; the gradient is zero.

    Negative `decimals` round before the point. Raises `DTypeError` for integers with other `decimals` than 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.round([0.5, 1.5, 2.6])
    tensor([0., 2., 3.])
    >>> fg.round([3.14159], decimals=2)
    tensor([3.1400])
    """
    return operand("input", input).round(decimals=decimals)


def heaviside(input: TensorLike, values: TensorLike) -> Tensor:
    """Return the step 0 where ``input < 0``, 1 where ``input > 0``, `values` at 0, broadcast; NaN stays NaN.

    The gradient of `input` is zero by definition: the step is flat on both sides, so nothing that is learned
    passes through it (a threshold unit learns by a rule of its own). The gradient of `values` is ``g`` at 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.heaviside(fg.tensor([-2.0, 0.0, 3.0]), 0.5).tolist()
    [0.0, 0.5, 1.0]
    """
    return operand("input", input).heaviside(values)


def sin(input: TensorLike) -> Tensor:
    """Return the sine; gradient ``g cos(x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.sin([0.0, 1.0])
    tensor([0.0000, 0.8415])
    """
    return operand("input", input).sin()


def cos(input: TensorLike) -> Tensor:
    """Return the cosine; gradient ``-g sin(x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.cos([0.0, 1.0])
    tensor([1.0000, 0.5403])
    """
    return operand("input", input).cos()


def maximum(input: TensorLike, other: TensorLike) -> Tensor:
    """Return the larger of each pair, or NaN; the gradient goes to the larger, half to each at a tie.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, 5.0], requires_grad=True)
    >>> fg.maximum(x, [1.0, 4.0]).sum().backward()
    >>> x.grad
    tensor([0.5000, 1.0000])
    """
    return operand("input", input).maximum(other)


def minimum(input: TensorLike, other: TensorLike) -> Tensor:
    """Return the smaller of each pair, or NaN; the gradient goes to the smaller, half to each at a tie.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.minimum([1.0, 5.0], [2.0, 4.0])
    tensor([1., 4.])
    """
    return operand("input", input).minimum(other)


def clamp(input: TensorLike, min: float | None = None, max: float | None = None) -> Tensor:
    """Limit to ``[min, max]``, either end optional; gradient ``g`` where ``min <= x <= max``, else zero.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    >>> fg.clamp(x, -1.0, 1.0)
    tensor([-1.0000,  0.5000,  1.0000], grad_fn=<clamp>)
    >>> fg.clamp(x, -1.0, 1.0).sum().backward()
    >>> x.grad
    tensor([0., 1., 0.])
    """
    return operand("input", input).clamp(min, max)


def where(condition: TensorLike, input: TensorLike, other: TensorLike) -> Tensor:
    """Choose from `input` where `condition` holds, else from `other`; the gradient goes to the one chosen.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.where([True, False], [1.0, 2.0], [10.0, 20.0])
    tensor([ 1., 20.])
    """
    return _core.where(condition, input, other)


def eq(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input == other`` as bool, broadcast; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.eq([1, 2], [1, 3])
    tensor([ True, False])
    """
    return operand("input", input).eq(other)


def ne(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input != other`` as bool, broadcast; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.ne([1, 2], [1, 3])
    tensor([False,  True])
    """
    return operand("input", input).ne(other)


def lt(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input < other`` as bool, broadcast; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.lt([1, 2, 3], 2)
    tensor([ True, False, False])
    """
    return operand("input", input).lt(other)


def le(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input <= other`` as bool, broadcast; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.le([1, 2, 3], 2)
    tensor([ True,  True, False])
    """
    return operand("input", input).le(other)


def gt(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input > other`` as bool, broadcast; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.gt([1, 2, 3], 2)
    tensor([False, False,  True])
    """
    return operand("input", input).gt(other)


def ge(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input >= other`` as bool, broadcast; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.ge([1, 2, 3], 2)
    tensor([False,  True,  True])
    """
    return operand("input", input).ge(other)


def logical_not(input: TensorLike) -> Tensor:
    """Return True where `input` is zero or False; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.logical_not([True, False])
    tensor([False,  True])
    """
    return operand("input", input).logical_not()
