"""Every operation as a function: `fg.NAME(input, ...)`, PyTorch's names and argument names.

Each takes a tensor or anything numpy can read, and calls the method or native function of the same name.
In the formulas ``g`` is the gradient that arrives from above; where an operation broadcasts, the gradient of
an input is summed back over the dimensions it was stretched along. Shapes that do not broadcast raise
`ShapeError`, dtypes without the operation `DTypeError`.
"""

from collections.abc import Sequence

from ferrograd import _core, along
from ferrograd._core import Tensor, ValuesIndices
from ferrograd._typing import TensorLike
from ferrograd.along import *  # noqa: F403
from ferrograd.convert import as_tensor

__all__ = [
    "abs",
    "add",
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "as_tensor",
    "broadcast_to",
    "cat",
    "ceil",
    "clamp",
    "clone",
    "cos",
    "div",
    "dot",
    "elu",
    "eq",
    "erf",
    "exp",
    "expm1",
    "flatten",
    "floor",
    "ge",
    "gt",
    "heaviside",
    "le",
    "leaky_relu",
    "linear",
    "log",
    "log1p",
    "log_softmax",
    "logical_not",
    "logsumexp",
    "lt",
    "matmul",
    "max",
    "maximum",
    "maxout",
    "mean",
    "min",
    "minimum",
    "mm",
    "mul",
    "mv",
    "ne",
    "neg",
    "numel",
    "permute",
    "pow",
    "prelu",
    "reciprocal",
    "relu",
    "reshape",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "t",
    "tanh",
    "transpose",
    "unsqueeze",
    "var",
    "where",
]
__all__ += along.__all__


def add(input: TensorLike, other: TensorLike, *, alpha: float = 1) -> Tensor:
    """Return ``input + alpha * other``, broadcast; gradients ``g`` and ``alpha g``."""
    return as_tensor(input).add(other if alpha == 1 else as_tensor(other).mul(alpha))


def sub(input: TensorLike, other: TensorLike, *, alpha: float = 1) -> Tensor:
    """Return ``input - alpha * other``, broadcast; gradients ``g`` and ``-alpha g``."""
    return as_tensor(input).sub(other if alpha == 1 else as_tensor(other).mul(alpha))


def mul(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input * other``, broadcast; gradients ``g other`` and ``g input``."""
    return as_tensor(input).mul(other)


def div(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input / other``, broadcast, floating; gradients ``g / other``, ``-g input / other^2``."""
    return as_tensor(input).div(other)


def neg(input: TensorLike) -> Tensor:
    """Return ``-input``; gradient ``-g``."""
    return as_tensor(input).neg()


def pow(input: TensorLike, exponent: TensorLike) -> Tensor:
    """Return ``input ** exponent``; gradients ``g e x^(e-1)`` and ``g x^e log x``."""
    return as_tensor(input).pow(exponent)


def exp(input: TensorLike) -> Tensor:
    """Return ``exp(input)``; gradient ``g exp(x)``."""
    return as_tensor(input).exp()


def expm1(input: TensorLike) -> Tensor:
    """Return ``exp(input) - 1``, accurate near zero; gradient ``g exp(x)``."""
    return as_tensor(input).expm1()


def log(input: TensorLike) -> Tensor:
    """Return the natural logarithm; gradient ``g / x``."""
    return as_tensor(input).log()


def log1p(input: TensorLike) -> Tensor:
    """Return ``log(1 + input)``, accurate near zero; gradient ``g / (1 + x)``."""
    return as_tensor(input).log1p()


def sqrt(input: TensorLike) -> Tensor:
    """Return the square root; gradient ``g / (2 sqrt(x))``."""
    return as_tensor(input).sqrt()


def square(input: TensorLike) -> Tensor:
    """Return ``input ** 2``; gradient ``2 g x``."""
    return as_tensor(input).square()


def reciprocal(input: TensorLike) -> Tensor:
    """Return ``1 / input``; gradient ``-g / x^2``."""
    return as_tensor(input).reciprocal()


def abs(input: TensorLike) -> Tensor:
    """Return the absolute value; gradient ``g sign(x)``, zero at zero."""
    return as_tensor(input).abs()


def sign(input: TensorLike) -> Tensor:
    """Return -1, 0 or 1 by sign; the gradient is zero."""
    return as_tensor(input).sign()


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
    return as_tensor(input).erf()


def floor(input: TensorLike) -> Tensor:
    """Return the largest integer that is not above; the gradient is zero. Integers stay as they are."""
    return as_tensor(input).floor()


def ceil(input: TensorLike) -> Tensor:
    """Return the smallest integer that is not below; the gradient is zero. Integers stay as they are."""
    return as_tensor(input).ceil()


def round(input: TensorLike, *, decimals: int = 0) -> Tensor:
    """Return the nearest number of `decimals` decimal places, the even one halfway; the gradient is zero.

    Negative `decimals` round before the point. Raises `DTypeError` for integers with other `decimals` than 0.
    """
    return as_tensor(input).round(decimals=decimals)


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
    return as_tensor(input).heaviside(values)


def sin(input: TensorLike) -> Tensor:
    """Return the sine; gradient ``g cos(x)``."""
    return as_tensor(input).sin()


def cos(input: TensorLike) -> Tensor:
    """Return the cosine; gradient ``-g sin(x)``."""
    return as_tensor(input).cos()


def maximum(input: TensorLike, other: TensorLike) -> Tensor:
    """Return the larger of each pair, or NaN; the gradient goes to the larger, half to each at a tie."""
    return as_tensor(input).maximum(other)


def minimum(input: TensorLike, other: TensorLike) -> Tensor:
    """Return the smaller of each pair, or NaN; the gradient goes to the smaller, half to each at a tie."""
    return as_tensor(input).minimum(other)


def clamp(input: TensorLike, min: float | None = None, max: float | None = None) -> Tensor:
    """Limit to ``[min, max]``, either end optional; gradient ``g`` where ``min <= x <= max``, else zero."""
    return as_tensor(input).clamp(min, max)


def where(condition: TensorLike, input: TensorLike, other: TensorLike) -> Tensor:
    """Choose from `input` where `condition` holds, else from `other`; the gradient goes to the one chosen."""
    return _core.where(condition, input, other)


def eq(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input == other`` as bool, broadcast; no gradient."""
    return as_tensor(input).eq(other)


def ne(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input != other`` as bool, broadcast; no gradient."""
    return as_tensor(input).ne(other)


def lt(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input < other`` as bool, broadcast; no gradient."""
    return as_tensor(input).lt(other)


def le(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input <= other`` as bool, broadcast; no gradient."""
    return as_tensor(input).le(other)


def gt(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input > other`` as bool, broadcast; no gradient."""
    return as_tensor(input).gt(other)


def ge(input: TensorLike, other: TensorLike) -> Tensor:
    """Return ``input >= other`` as bool, broadcast; no gradient."""
    return as_tensor(input).ge(other)


def logical_not(input: TensorLike) -> Tensor:
    """Return True where `input` is zero or False; no gradient."""
    return as_tensor(input).logical_not()


def any(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return whether any element over `dim` (all dimensions if None) is not zero; no gradient."""
    return as_tensor(input).any(dim, keepdim)


def all(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return whether all elements over `dim` (all dimensions if None) are not zero; no gradient."""
    return as_tensor(input).all(dim, keepdim)


def argmax(input: TensorLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the int64 index of the largest element, the first at a tie; of the flat tensor if no `dim`."""
    return as_tensor(input).argmax(dim, keepdim)


def argmin(input: TensorLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the int64 index of the smallest element, the first at a tie; of the flat tensor if no `dim`."""
    return as_tensor(input).argmin(dim, keepdim)


def sum(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Add over `dim` (all dimensions if None); gradient ``g``, stretched back."""
    return as_tensor(input).sum(dim, keepdim)


def mean(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Average over `dim` (all dimensions if None) of n elements; gradient ``g / n``."""
    return as_tensor(input).mean(dim, keepdim)


def amax(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the largest over `dim`; the gradient is shared equally among those that tie."""
    return as_tensor(input).amax(dim, keepdim)


def amin(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the smallest over `dim`; the gradient is shared equally among those that tie."""
    return as_tensor(input).amin(dim, keepdim)


def max(input: TensorLike, dim: TensorLike | None = None, keepdim: bool = False) -> Tensor | ValuesIndices:
    """Return the largest element; along a dimension with its index; of two tensors elementwise.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape; not empty along what is reduced.
    dim : int, Tensor or None, default None
        None: over all elements. An int: along that dimension. A tensor or array: `maximum` of the two, as
        PyTorch has it.
    keepdim : bool, default False
        Whether the dimension stays, with length 1.

    Returns
    -------
    Tensor or ValuesIndices
        With an int `dim` a named tuple ``(values, indices)``. The gradient goes to the element at the index.
    """
    if dim is None:
        return as_tensor(input).max()
    if isinstance(dim, int):
        return as_tensor(input).max(dim, keepdim)
    return as_tensor(input).maximum(dim)


def min(input: TensorLike, dim: TensorLike | None = None, keepdim: bool = False) -> Tensor | ValuesIndices:
    """Return the smallest element; along a dimension with its index; of two tensors elementwise.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape; not empty along what is reduced.
    dim : int, Tensor or None, default None
        None: over all elements. An int: along that dimension. A tensor or array: `minimum` of the two, as
        PyTorch has it.
    keepdim : bool, default False
        Whether the dimension stays, with length 1.

    Returns
    -------
    Tensor or ValuesIndices
        With an int `dim` a named tuple ``(values, indices)``. The gradient goes to the element at the index.
    """
    if dim is None:
        return as_tensor(input).min()
    if isinstance(dim, int):
        return as_tensor(input).min(dim, keepdim)
    return as_tensor(input).minimum(dim)


def var(
    input: TensorLike,
    dim: int | Sequence[int] | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Return the variance over `dim`: squared deviations summed, over ``n - correction``.

    `correction` is 1 if `unbiased`, else 0, unless given. Gradient ``2 g (x - mean) / (n - correction)``.
    """
    return as_tensor(input).var(dim, unbiased, keepdim, correction=correction)


def logsumexp(input: TensorLike, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """Return ``log(sum(exp(input)))`` over `dim` without overflow; gradient ``g softmax(x)``."""
    return as_tensor(input).logsumexp(dim, keepdim)


def matmul(input: TensorLike, other: TensorLike) -> Tensor:
    """Multiply as ``input @ other``: ``(..., m, k) @ (..., k, n)``, vectors as rows or columns.

    Gradients ``g @ other^T`` and ``input^T @ g``. Raises `ShapeError` if the inner dimensions differ.
    """
    return as_tensor(input).matmul(other)


def mm(input: TensorLike, mat2: TensorLike) -> Tensor:
    """Multiply two matrices, ``(m, k) @ (k, n)``; gradients as `matmul`."""
    return as_tensor(input).mm(mat2)


def mv(input: TensorLike, vec: TensorLike) -> Tensor:
    """Multiply a matrix and a vector, ``(m, k) @ (k,)``; gradients as `matmul`."""
    return as_tensor(input).mv(vec)


def dot(input: TensorLike, other: TensorLike) -> Tensor:
    """Return the inner product of two vectors ``(n,)``; gradients ``g other`` and ``g input``."""
    return as_tensor(input).dot(other)


def relu(input: TensorLike) -> Tensor:
    """Return ``max(0, input)``; gradient ``g`` where ``x > 0``, zero at zero."""
    return as_tensor(input).relu()


def leaky_relu(input: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """Return ``x`` if ``x > 0``, else ``negative_slope * x``; gradient ``g`` or ``negative_slope g``."""
    return as_tensor(input).leaky_relu(negative_slope)


def elu(input: TensorLike, alpha: float = 1.0) -> Tensor:
    """Return ``x`` if ``x > 0``, else ``alpha (exp(x) - 1)``; gradient ``g`` or ``g alpha exp(x)``."""
    return as_tensor(input).elu(alpha)


def sigmoid(input: TensorLike) -> Tensor:
    """Return ``s = 1 / (1 + exp(-x))``; gradient ``g s (1 - s)``."""
    return as_tensor(input).sigmoid()


def tanh(input: TensorLike) -> Tensor:
    """Return ``t = tanh(x)``; gradient ``g (1 - t^2)``."""
    return as_tensor(input).tanh()


def softplus(input: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return ``log(1 + exp(beta x)) / beta``, or ``x`` past `threshold`; gradient ``g sigmoid(beta x)``."""
    return as_tensor(input).softplus(beta, threshold)


def softmax(input: TensorLike, dim: int) -> Tensor:
    """Return ``p = exp(x) / sum(exp(x))`` along `dim`; gradient ``p (g - sum(g p))``."""
    return as_tensor(input).softmax(dim)


def log_softmax(input: TensorLike, dim: int) -> Tensor:
    """Return ``x - logsumexp(x)`` along `dim`; gradient ``g - softmax(x) sum(g)``."""
    return as_tensor(input).log_softmax(dim)


def prelu(input: TensorLike, weight: TensorLike) -> Tensor:
    """Return ``x`` if ``x > 0``, else ``weight * x``, one weight or one per channel (dimension 1).

    Gradients: ``g`` or ``weight g`` for the input, ``sum(g x)`` over ``x <= 0`` for the weight.
    """
    return as_tensor(input).prelu(weight)


def maxout(input: TensorLike, pieces: int, dim: int = -1) -> Tensor:
    """Return the largest of each `pieces` neighbours along `dim`: ``(..., n * pieces) -> (..., n)``.

    The gradient goes to the largest, the first at a tie. Raises `ShapeError` if `pieces` does not divide the
    length.
    """
    return as_tensor(input).maxout(pieces, dim)


def linear(input: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """Return ``input @ weight^T + bias``: ``(..., inputs)``, ``(outputs, inputs)`` give ``(..., outputs)``.

    Gradients ``g @ weight``, ``g^T @ input`` and ``g`` summed over the batch.
    """
    return _core.linear(input, weight, bias)


def reshape(input: TensorLike, shape: Sequence[int]) -> Tensor:
    """Return the elements in another shape, one length may be -1; a view where the strides allow it."""
    return as_tensor(input).reshape(shape)


def flatten(input: TensorLike, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the dimensions from `start_dim` to `end_dim` into one."""
    return as_tensor(input).flatten(start_dim, end_dim)


def squeeze(input: TensorLike, dim: int | None = None) -> Tensor:
    """Drop dimension `dim` if its length is 1, or all such dimensions if None."""
    return as_tensor(input).squeeze(dim)


def unsqueeze(input: TensorLike, dim: int) -> Tensor:
    """Insert a dimension of length 1 before `dim`."""
    return as_tensor(input).unsqueeze(dim)


def transpose(input: TensorLike, dim0: int, dim1: int) -> Tensor:
    """Exchange two dimensions, as a view."""
    return as_tensor(input).transpose(dim0, dim1)


def t(input: TensorLike) -> Tensor:
    """Transpose a matrix, as a view."""
    return as_tensor(input).t()


def permute(input: TensorLike, dims: Sequence[int]) -> Tensor:
    """Reorder the dimensions, as a view."""
    return as_tensor(input).permute(dims)


def broadcast_to(input: TensorLike, size: Sequence[int]) -> Tensor:
    """Stretch to the shape `size` without copying; the gradient is summed back."""
    return as_tensor(input).broadcast_to(size)


def cat(tensors: Sequence[TensorLike], dim: int = 0) -> Tensor:
    """Join along an existing dimension; all other lengths agree. The gradient is cut up again."""
    return _core.cat(tensors, dim)


def stack(tensors: Sequence[TensorLike], dim: int = 0) -> Tensor:
    """Join along a new dimension `dim`; all shapes agree. The gradient is cut up again."""
    return _core.stack(tensors, dim)


def clone(input: TensorLike) -> Tensor:
    """Return a copy that passes its gradient on."""
    return as_tensor(input).clone()


def numel(input: TensorLike) -> int:
    """Return the number of elements."""
    return as_tensor(input).numel()
