"""Sums, means, extremes and truth over dimensions; `ferrograd.ops` has them."""

from collections.abc import Sequence

from ferrograd._core import Tensor, ValuesIndices
from ferrograd._typing import TensorLike
from ferrograd.convert import operand

__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "logsumexp",
    "max",
    "mean",
    "min",
    "sum",
    "var",
]


def any(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return whether any element over `dim` (all dimensions if None) is not zero; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.any([[True, False], [False, False]], dim=1)
    tensor([ True, False])
    """
    return operand("input", input).any(dim, keepdim)


def all(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return whether all elements over `dim` (all dimensions if None) are not zero; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.all([[True, False], [True, True]], dim=1)
    tensor([False,  True])
    """
    return operand("input", input).all(dim, keepdim)


def argmax(input: TensorLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the int64 index of the largest element, the first at a tie; of the flat tensor if no `dim`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.argmax([[3.0, 1.0], [2.0, 5.0]], dim=1)
    tensor([0, 1])
    """
    return operand("input", input).argmax(dim, keepdim)


def argmin(input: TensorLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the int64 index of the smallest element, the first at a tie; of the flat tensor if no `dim`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.argmin([3.0, 1.0, 2.0]).item()
    1
    """
    return operand("input", input).argmin(dim, keepdim)


def sum(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Add over `dim` (all dimensions if None); gradient ``g``, stretched back.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.sum([[1.0, 2.0], [3.0, 4.0]], dim=1, keepdim=True)
    tensor([[3.],
            [7.]])
    """
    return operand("input", input).sum(dim, keepdim)


def mean(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Average over `dim` (all dimensions if None) of n elements; gradient ``g / n``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.mean([[1.0, 2.0], [3.0, 6.0]], dim=0)
    tensor([2., 4.])
    """
    return operand("input", input).mean(dim, keepdim)


def amax(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the largest over `dim`; the gradient is shared equally among those that tie.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([3.0, 1.0, 3.0], requires_grad=True)
    >>> fg.amax(x).backward()
    >>> x.grad
    tensor([0.5000, 0.0000, 0.5000])
    """
    return operand("input", input).amax(dim, keepdim)


def amin(input: TensorLike, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the smallest over `dim`; the gradient is shared equally among those that tie.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.amin([[3.0, 1.0], [2.0, 5.0]], dim=0)
    tensor([2., 1.])
    """
    return operand("input", input).amin(dim, keepdim)


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

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.max([[3.0, 1.0], [2.0, 5.0]], 1)
    ValuesIndices(values=tensor([3., 5.]), indices=tensor([0, 1]))
    >>> fg.max([3.0, 1.0], [2.0, 5.0])
    tensor([3., 5.])
    """
    if dim is None:
        return operand("input", input).max()
    if isinstance(dim, int):
        return operand("input", input).max(dim, keepdim)
    return operand("input", input).maximum(dim)


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

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.min([[3.0, 1.0], [2.0, 5.0]], 1).indices
    tensor([1, 0])
    """
    if dim is None:
        return operand("input", input).min()
    if isinstance(dim, int):
        return operand("input", input).min(dim, keepdim)
    return operand("input", input).minimum(dim)


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

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.var([1.0, 2.0, 6.0])
    tensor(7.)
    >>> fg.var([1.0, 2.0, 6.0], correction=0)
    tensor(4.6667)
    """
    return operand("input", input).var(dim, unbiased, keepdim, correction=correction)


def logsumexp(input: TensorLike, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """Return ``log(sum(exp(input)))`` over `dim` without overflow; gradient ``g softmax(x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.logsumexp([1000.0, 1000.0], dim=0)
    tensor(1000.6932)
    """
    return operand("input", input).logsumexp(dim, keepdim)
