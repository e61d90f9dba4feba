"""Operations along dimensions: products, sums and norms, picking, ordering, cutting up and moving elements.

The names, arguments and defaults are PyTorch's. ``g`` is the gradient that arrives from above. A dimension
that a tensor does not have raises `ShapeError`, an index outside its dimension `OutOfRangeError`.
"""

from collections.abc import Sequence

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor, ValuesIndices
from ferrograd._typing import TensorLike
from ferrograd.convert import operand

__all__ = [
    "argsort",
    "bmm",
    "chunk",
    "cumprod",
    "cumsum",
    "einsum",
    "flip",
    "gather",
    "index_select",
    "masked_select",
    "narrow",
    "norm",
    "prod",
    "roll",
    "scatter_add",
    "select",
    "sort",
    "split",
    "std",
    "topk",
]


def prod(input: TensorLike, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Multiply the elements along `dim`, or all of them if None.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape. Integers and bools give int64, which wraps around where it overflows.
    dim : int or None, default None
        Which dimension; None for all.
    keepdim : bool, default False
        Whether the dimension stays, with length 1.

    Returns
    -------
    Tensor
        The product; 1 of no elements. The gradient is ``g`` times the product of the other elements. It holds
        no quotient, so it is right where elements are zero.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> fg.prod(x).backward()
    >>> x.grad.tolist()
    [0.0, 6.0, 0.0]
    """
    return operand("input", input).prod(dim, keepdim)


def cumprod(input: TensorLike, dim: int) -> Tensor:
    """Return running products ``y[k] = x[0] x[1] ... x[k]`` along `dim`.

    The gradient of ``x[j]`` is ``g[k]`` times the other factors of ``y[k]``, summed over ``k >= j``; nothing
    is divided, so that zeros have gradients of every order. Integers and bools give int64.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> fg.cumprod(x, 0).sum().backward()
    >>> x.grad
    tensor([1., 8., 0.])
    """
    return operand("input", input).cumprod(dim)


def cumsum(input: TensorLike, dim: int) -> Tensor:
    """Return running sums ``y[k] = x[0] + ... + x[k]`` along `dim`.

    The gradient is ``g`` summed from the other end, ``g[k] + ... + g[n - 1]``. Integers and bools give int64.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.cumsum(fg.tensor([1, 2, 3]), 0).tolist()
    [1, 3, 6]
    """
    return operand("input", input).cumsum(dim)


def std(
    input: TensorLike,
    dim: int | Sequence[int] | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Return the standard deviation over `dim`, the root of `var`.

    `correction` is 1 if `unbiased`, else 0, unless given. Gradient ``g (x - mean) / ((n - correction) std)``,
    zero where all elements are equal. Raises `DTypeError` for integers.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.std([1.0, 2.0, 6.0])
    tensor(2.6458)
    """
    return operand("input", input).std(dim, unbiased, keepdim, correction=correction)


def norm(
    input: TensorLike,
    p: float | str = "fro",
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Tensor:
    """Return the vector norm ``(sum |x|^p)^(1/p)`` over `dim`.

    Parameters
    ----------
    input : Tensor or array_like
        float32 or float64, any shape.
    p : float or "fro", default "fro"
        The order; "fro" is 2. For infinity it is the largest ``|x|``, for minus infinity the smallest, for 0
        the number of elements that are not zero.
    dim : int, sequence of int or None, default None
        Over which dimensions; None for all.
    keepdim : bool, default False
        Whether the dimensions stay, with length 1.

    Returns
    -------
    Tensor
        The norm; 0 of no elements. Gradient ``g sign(x) (|x| / norm)^(p - 1)``, zero where the norm is and,
        for finite p, where x is; for infinite p it is shared equally among those that tie; for p = 0 it is
        zero.

    Raises
    ------
    DTypeError
        For integers.
    ConfigError
        If `p` is NaN, or text other than "fro".
    ShapeError
        If there is nothing to reduce and `p` is infinite or negative.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([[3.0, -4.0], [0.0, 0.0]])
    >>> fg.norm(x, dim=1).tolist()
    [5.0, 0.0]
    >>> fg.norm(x, 1).item(), fg.norm(x, float("inf")).item()
    (7.0, 4.0)
    """
    return operand("input", input).norm(p, dim, keepdim)


def bmm(input: TensorLike, mat2: TensorLike) -> Tensor:
    """Multiply batches of matrices, ``(b, m, k) @ (b, k, n)``; gradients as `matmul`.

    Raises `ShapeError` if an operand has not 3 dimensions, or sizes differ.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.bmm(fg.ones(5, 2, 3), fg.ones(5, 3, 4)).shape
    (5, 2, 4)
    """
    return operand("input", input).bmm(mat2)


def einsum(equation: str, *operands: TensorLike) -> Tensor:
    """Sum products of labelled dimensions, as Einstein's notation writes them.

    Each operand is reduced over what only it has, then two at a time are multiplied by one batched matrix
    product over the labels that they share, from left to right.

    Parameters
    ----------
    equation : str
        A letter for each dimension of each operand, operands separated by commas; after ``->`` the letters of
        the result in their order. The others are summed. A letter that stands twice in one operand takes the
        diagonal. ``...`` stands for further dimensions, which broadcast. Without ``->`` the result has those
        of the ellipsis and then, in alphabetical order, the letters that stand once.
    *operands : Tensor or array_like
        As many as the equation says. A dimension of length 1 is stretched to the others of its letter.

    Returns
    -------
    Tensor
        The gradient of an operand is the same sum with ``g`` in its place.

    Raises
    ------
    ConfigError
        If the equation does not hold: other signs, a letter of the result that no operand has or that stands
        twice, another number of operands.
    ShapeError
        If an operand has another number of dimensions, or one letter two lengths.

    Examples
    --------
    >>> import ferrograd as fg
    >>> a, b = fg.tensor([[1.0, 2.0], [3.0, 4.0]]), fg.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> fg.einsum("ij,jk->ik", a, b).tolist()
    [[3.0, 2.0], [7.0, 4.0]]
    >>> fg.einsum("ii", a).item()
    5.0
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    return _core.einsum(equation, *operands)


def gather(input: TensorLike, dim: int, index: TensorLike) -> Tensor:
    """Pick elements along `dim`: ``y[i][j] = x[index[i][j]][j]`` for two dimensions and `dim` 0.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape.
    dim : int
        The dimension that the index replaces.
    index : Tensor or array_like
        Integers from 0 to below ``input.shape[dim]``, of as many dimensions as `input`; no longer than it in
        the others.

    Returns
    -------
    Tensor
        Of the shape of `index`. The gradient is added up at the positions that were picked.

    Raises
    ------
    OutOfRangeError
        If an index lies outside. Negative ones do.
    ShapeError
        If the shape of `index` does not fit.
    DTypeError
        If `index` holds no integers.

    Examples
    --------
    >>> import ferrograd as fg
    >>> scores = fg.tensor([[0.1, 0.9], [0.8, 0.2]])
    >>> fg.gather(scores, 1, [[1], [0]]).tolist() == [[scores[0, 1].item()], [scores[1, 0].item()]]
    True
    """
    return operand("input", input).gather(dim, index)


def scatter_add(input: TensorLike, dim: int, index: TensorLike, src: TensorLike) -> Tensor:
    """Add elements of `src` along `dim`: ``y[index[i][j]][j] += src[i][j]`` for two dimensions and `dim` 0.

    Parameters
    ----------
    input : Tensor or array_like
        What is added to, of any shape; it is not changed.
    dim : int
        The dimension that the index replaces.
    index : Tensor or array_like
        Integers from 0 to below ``input.shape[dim]``, of as many dimensions as `input`; no longer than
        `src`, and no longer than `input` but along `dim`.
    src : Tensor or array_like
        What is added, of the dtype of `input`.

    Returns
    -------
    Tensor
        Of the shape of `input`. Gradients ``g`` for `input`, ``g`` gathered at `index` for `src`. Sums are
        made in the order of the index, whatever the number of threads.

    Raises
    ------
    OutOfRangeError
        If an index lies outside. Negative ones do.
    ShapeError
        If shapes do not fit.
    DTypeError
        If `index` holds no integers, or dtypes differ.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.scatter_add(fg.zeros(3), 0, [0, 2, 0], fg.tensor([1.0, 2.0, 3.0])).tolist()
    [4.0, 0.0, 2.0]
    """
    return operand("input", input).scatter_add(dim, index, src)


def index_select(input: TensorLike, dim: int, index: TensorLike) -> Tensor:
    """Return the slices of `dim` that `index`, a vector, names; the gradient is added up at its positions.

    Raises `OutOfRangeError` for an index that is no slice of `dim`, negative ones included, `ShapeError` if
    `index` is no vector.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.index_select(fg.tensor([[1, 2, 3], [4, 5, 6]]), 1, [2, 0, 2]).tolist()
    [[3, 1, 3], [6, 4, 6]]
    """
    return operand("input", input).index_select(dim, index)


def masked_select(input: TensorLike, mask: TensorLike) -> Tensor:
    """Return the elements where the bool `mask` is True, in row-major order, as a vector; both broadcast.

    The gradient is zero where the mask is False. The length depends on the data, which a plan cannot hold: a
    model that uses it in a `Trainer` raises `GraphError`; use `where` there. Raises `DTypeError` for other
    masks.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, -2.0, 3.0])
    >>> fg.masked_select(x, x > 0)
    tensor([1., 3.])
    """
    return operand("input", input).masked_select(mask)


def narrow(input: TensorLike, dim: int, start: int, length: int) -> Tensor:
    """Return the `length` slices of `dim` from `start` on, as a view; a negative `start` counts from the end.

    The gradient is zero elsewhere. Raises `ShapeError` if the range leaves the dimension.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.narrow([1, 2, 3, 4], 0, 1, 2)
    tensor([2, 3])
    """
    return operand("input", input).narrow(dim, start, length)


def select(input: TensorLike, dim: int, index: int) -> Tensor:
    """Return the slice `index` of `dim`, as a view without it; a negative `index` counts from the end.

    The gradient is zero elsewhere. Raises `OutOfRangeError` if the dimension has no such slice.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.select([[1, 2], [3, 4]], 1, 0)
    tensor([1, 3])
    """
    return operand("input", input).select(dim, index)


def sort(input: TensorLike, dim: int = -1, descending: bool = False, stable: bool = False) -> ValuesIndices:
    """Sort along `dim`.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape and dtype. NaN is taken as larger than any number.
    dim : int, default -1
        Along which dimension.
    descending : bool, default False
        Whether the largest comes first.
    stable : bool, default False
        Whether equal elements keep their order. Here they always do.

    Returns
    -------
    ValuesIndices
        A named tuple ``(values, indices)``. The gradient of the values goes back to the positions they came
        from; the indices have none.

    Examples
    --------
    >>> import ferrograd as fg
    >>> values, indices = fg.sort(fg.tensor([3, 1, 2]), descending=True)
    >>> values.tolist(), indices.tolist()
    ([3, 2, 1], [0, 2, 1])
    """
    return operand("input", input).sort(dim, descending, stable)


def argsort(input: TensorLike, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Return the int64 indices along `dim` that `sort` gives; no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.argsort([3.0, 1.0, 2.0])
    tensor([1, 2, 0])
    """
    return operand("input", input).argsort(dim, descending, stable)


def topk(
    input: TensorLike, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesIndices:
    """Return the `k` largest elements along `dim`, or the smallest, in order.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape and dtype. NaN is taken as larger than any number.
    k : int
        How many, from 0 to the length of `dim`.
    dim : int, default -1
        Along which dimension.
    largest : bool, default True
        Whether the largest, else the smallest.
    sorted : bool, default True
        Whether they come in order. Here they always do; of equal elements the first comes first.

    Returns
    -------
    ValuesIndices
        A named tuple ``(values, indices)``, both of length `k` along `dim`. The gradient of the values goes
        back to the positions they came from; the indices have none.

    Raises
    ------
    ShapeError
        If `dim` holds fewer than `k`.
    ConfigError
        If `k` is negative.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.topk(fg.tensor([1.0, 4.0, 3.0]), 2).indices.tolist()
    [1, 2]
    """
    return operand("input", input).topk(k, dim, largest, sorted)


def split(
    tensor: TensorLike, split_size_or_sections: int | Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """Cut along `dim` into views of so many slices each, the last of what is left, or of the sizes listed.

    Gradients are put together again. Raises `ConfigError` for sizes below 1 (below 0 in a list), `ShapeError`
    if the sizes listed do not add up to the length.

    Examples
    --------
    >>> import ferrograd as fg
    >>> [piece.tolist() for piece in fg.split(fg.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    return operand("tensor", tensor).split(split_size_or_sections, dim)


def chunk(input: TensorLike, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along `dim` into at most `chunks` views of ``ceil(length / chunks)`` slices, the last of the rest.

    Gradients are put together again. Raises `ConfigError` if `chunks` is below 1.

    Examples
    --------
    >>> import ferrograd as fg
    >>> [piece.tolist() for piece in fg.chunk(fg.arange(5), 2)]
    [[0, 1, 2], [3, 4]]
    """
    return operand("input", input).chunk(chunks, dim)


def roll(input: TensorLike, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Shift elements along `dims`, those past the end back to the front; the gradient is shifted back.

    Without `dims` the elements are shifted in row-major order. Raises `ShapeError` unless there is a shift
    for each dimension.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.roll(fg.tensor([1, 2, 3]), 1).tolist()
    [3, 1, 2]
    """
    return operand("input", input).roll(shifts, dims)


def flip(input: TensorLike, dims: int | Sequence[int]) -> Tensor:
    """Reverse the order of the elements along each of `dims`, as a copy; the gradient is reversed back.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.flip(fg.tensor([[1, 2], [3, 4]]), (0, 1)).tolist()
    [[4, 3], [2, 1]]
    """
    return operand("input", input).flip(dims)


def pad(input: TensorLike, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Make a tensor larger at the ends of its last dimensions.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape.
    pad : sequence of int
        ``(before, after)`` for the last dimension, then for the one before it, and so on. Negative ones crop.
    mode : {"constant", "reflect", "replicate", "circular"}, default "constant"
        What is put there: a number; the elements beside the border in reverse; the border; the elements from
        the other end.
    value : float or None, default None
        The number for mode "constant"; None is 0.

    Returns
    -------
    Tensor
        The gradient of an element is the sum over the places where it stands.

    Raises
    ------
    ShapeError
        For an odd number of sizes, more pairs than dimensions, crops of more than there is, or a pad wider
        than the elements that fill it.
    ConfigError
        If `mode` is something else, or `value` is given for another mode than "constant".

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.pad(fg.tensor([1, 2, 3]), (1, 2)).tolist()
    [0, 1, 2, 3, 0, 0]
    >>> fg.nn.functional.pad(fg.tensor([1, 2, 3]), (2, 1), mode="reflect").tolist()
    [3, 2, 1, 2, 3, 2]
    """
    if not isinstance(mode, str):
        raise ConfigError(f"pad: mode must be a str, got {mode!r}")
    return _core.pad(input, pad, mode, value)


def one_hot(tensor: TensorLike, num_classes: int = -1) -> Tensor:
    """Return integers as int64 vectors that hold a 1 at that place and 0 elsewhere; no gradient.

    Parameters
    ----------
    tensor : Tensor or array_like
        Integers from 0 to below `num_classes`, any shape.
    num_classes : int, default -1
        Length of the vectors; -1 for one more than the largest integer. Then the shape depends on the data,
        and a model that does it in a `Trainer` raises `GraphError`.

    Returns
    -------
    Tensor
        Of shape ``(*tensor.shape, num_classes)``.

    Raises
    ------
    LabelError
        If an integer lies outside.
    DTypeError
        If `tensor` holds no integers.
    ConfigError
        If `num_classes` is 0 or below -1, or -1 for an empty tensor.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.one_hot([0, 2], 3).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    return _core.one_hot(tensor, num_classes)
