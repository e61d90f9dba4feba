"""Every operation as a function: `fg.NAME(input, ...)`, PyTorch's names and argument names.

Each takes a tensor or anything numpy can read, and calls the method or native function of the same name.
In the formulas ``g`` is the gradient that arrives from above; where an operation broadcasts, the gradient of
an input is summed back over the dimensions it was stretched along. Shapes that do not broadcast raise
`ShapeError`, dtypes without the operation `DTypeError`. Where an operation only moves elements, each gradient
goes back to where its element came from.
"""

from collections.abc import Sequence

from ferrograd import _core, along, elementwise, reductions
from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.along import *  # noqa: F403
from ferrograd.convert import as_tensor, operand
from ferrograd.elementwise import *  # noqa: F403
from ferrograd.reductions import *  # noqa: F403

__all__ = [
    "as_tensor",
    "broadcast_to",
    "cat",
    "clone",
    "dot",
    "elu",
    "flatten",
    "leaky_relu",
    "linear",
    "log_softmax",
    "matmul",
    "maxout",
    "mm",
    "mv",
    "numel",
    "permute",
    "prelu",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "softplus",
    "squeeze",
    "stack",
    "t",
    "tanh",
    "transpose",
    "unsqueeze",
]
__all__ += along.__all__ + elementwise.__all__ + reductions.__all__


def matmul(input: TensorLike, other: TensorLike) -> Tensor:
    """Multiply as ``input @ other``: ``(..., m, k) @ (..., k, n)``, vectors as rows or columns.

    Gradients ``g @ other^T`` and ``input^T @ g``. Raises `ShapeError` if the inner dimensions differ.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    tensor([21., 43.])
    """
    return operand("input", input).matmul(other)


def mm(input: TensorLike, mat2: TensorLike) -> Tensor:
    """Multiply two matrices, ``(m, k) @ (k, n)``; gradients as `matmul`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.mm([[1.0, 2.0]], [[3.0], [4.0]])
    tensor([[11.]])
    """
    return operand("input", input).mm(mat2)


def mv(input: TensorLike, vec: TensorLike) -> Tensor:
    """Multiply a matrix and a vector, ``(m, k) @ (k,)``; gradients as `matmul`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.mv([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0])
    tensor([3., 7.])
    """
    return operand("input", input).mv(vec)


def dot(input: TensorLike, other: TensorLike) -> Tensor:
    """Return the inner product of two vectors ``(n,)``; gradients ``g other`` and ``g input``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.dot([1.0, 2.0], [3.0, 4.0])
    tensor(11.)
    """
    return operand("input", input).dot(other)


def relu(input: TensorLike) -> Tensor:
    """Return ``max(0, input)``; gradient ``g`` where ``x > 0``, zero at zero.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([-1.0, 2.0], requires_grad=True)
    >>> fg.relu(x).sum().backward()
    >>> x.grad
    tensor([0., 1.])
    """
    return operand("input", input).relu()


def leaky_relu(input: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """Return ``x`` if ``x > 0``, else ``negative_slope * x``; gradient ``g`` or ``negative_slope g``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.leaky_relu([-1.0, 2.0], 0.1)
    tensor([-0.1000,  2.0000])
    """
    return operand("input", input).leaky_relu(negative_slope)


def elu(input: TensorLike, alpha: float = 1.0) -> Tensor:
    """Return ``x`` if ``x > 0``, else ``alpha (exp(x) - 1)``; gradient ``g`` or ``g alpha exp(x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.elu([-1.0, 2.0])
    tensor([-0.6321,  2.0000])
    """
    return operand("input", input).elu(alpha)


def sigmoid(input: TensorLike) -> Tensor:
    """Return ``s = 1 / (1 + exp(-x))``; gradient ``g s (1 - s)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.sigmoid([0.0, 2.0])
    tensor([0.5000, 0.8808])
    """
    return operand("input", input).sigmoid()


def tanh(input: TensorLike) -> Tensor:
    """Return ``t = tanh(x)``; gradient ``g (1 - t^2)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.tanh([0.0, 1.0])
    tensor([0.0000, 0.7616])
    """
    return operand("input", input).tanh()


def softplus(input: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return ``log(1 + exp(beta x)) / beta``, or ``x`` past `threshold`; gradient ``g sigmoid(beta x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.softplus([0.0, 30.0])
    tensor([ 0.6931, 30.0000])
    """
    return operand("input", input).softplus(beta, threshold)


def softmax(input: TensorLike, dim: int) -> Tensor:
    """Return ``p = exp(x) / sum(exp(x))`` along `dim`; gradient ``p (g - sum(g p))``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.softmax([[1.0, 1.0], [0.0, 100.0]], 1)
    tensor([[5.0000e-01, 5.0000e-01],
            [3.7835e-44, 1.0000e+00]])
    """
    return operand("input", input).softmax(dim)


def log_softmax(input: TensorLike, dim: int) -> Tensor:
    """Return ``x - logsumexp(x)`` along `dim`; gradient ``g - softmax(x) sum(g)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.log_softmax([0.0, 0.0], 0)
    tensor([-0.6931, -0.6931])
    """
    return operand("input", input).log_softmax(dim)


def prelu(input: TensorLike, weight: TensorLike) -> Tensor:
    """Return ``x`` if ``x > 0``, else ``weight * x``, one weight or one per channel (dimension 1).

    Gradients: ``g`` or ``weight g`` for the input, ``sum(g x)`` over ``x <= 0`` for the weight.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.prelu([-2.0, 2.0], 0.25)
    tensor([-0.5000,  2.0000])
    """
    return operand("input", input).prelu(weight)


def maxout(input: TensorLike, pieces: int, dim: int = -1) -> Tensor:
    """Return the largest of each `pieces` neighbours along `dim`: ``(..., n * pieces) -> (..., n)``.

    The gradient goes to the largest, the first at a tie. Raises `ShapeError` if `pieces` does not divide the
    length.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.maxout([1.0, 5.0, 4.0, 2.0], 2)
    tensor([5., 4.])
    """
    return operand("input", input).maxout(pieces, dim)


def linear(input: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """Return ``input @ weight^T + bias``: ``(..., inputs)``, ``(outputs, inputs)`` give ``(..., outputs)``.

    Gradients ``g @ weight``, ``g^T @ input`` and ``g`` summed over the batch.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.linear([[1.0, 2.0]], [[1.0, 1.0], [0.0, 3.0]], [0.5, 0.0])
    tensor([[3.5000, 6.0000]])
    """
    return _core.linear(input, weight, bias)


def reshape(input: TensorLike, shape: Sequence[int]) -> Tensor:
    """Return the elements in another shape, one length may be -1; a view where the strides allow it.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.reshape([1, 2, 3, 4], (2, -1))
    tensor([[1, 2],
            [3, 4]])
    """
    return operand("input", input).reshape(shape)


def flatten(input: TensorLike, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the dimensions from `start_dim` to `end_dim` into one.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.flatten([[[1, 2]], [[3, 4]]], 1)
    tensor([[1, 2],
            [3, 4]])
    """
    return operand("input", input).flatten(start_dim, end_dim)


def squeeze(input: TensorLike, dim: int | None = None) -> Tensor:
    """Drop dimension `dim` if its length is 1, or all such dimensions if None.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.squeeze([[[1, 2]]])
    tensor([1, 2])
    """
    return operand("input", input).squeeze(dim)


def unsqueeze(input: TensorLike, dim: int) -> Tensor:
    """Insert a dimension of length 1 before `dim`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.unsqueeze([1, 2], 1)
    tensor([[1],
            [2]])
    """
    return operand("input", input).unsqueeze(dim)


def transpose(input: TensorLike, dim0: int, dim1: int) -> Tensor:
    """Exchange two dimensions, as a view.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.transpose(fg.zeros(2, 3, 4), 0, 2).shape
    (4, 3, 2)
    """
    return operand("input", input).transpose(dim0, dim1)


def t(input: TensorLike) -> Tensor:
    """Transpose a matrix, as a view.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.t([[1, 2], [3, 4]])
    tensor([[1, 3],
            [2, 4]])
    """
    return operand("input", input).t()


def permute(input: TensorLike, dims: Sequence[int]) -> Tensor:
    """Reorder the dimensions, as a view.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.permute(fg.zeros(2, 3, 4), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return operand("input", input).permute(dims)


def broadcast_to(input: TensorLike, size: Sequence[int]) -> Tensor:
    """Stretch to the shape `size` without copying; the gradient is summed back.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.broadcast_to([1, 2], (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return operand("input", input).broadcast_to(size)


def cat(tensors: Sequence[TensorLike], dim: int = 0) -> Tensor:
    """Join along an existing dimension; all other lengths agree. The gradient is cut up again.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.cat([[[1, 2]], [[3, 4], [5, 6]]])
    tensor([[1, 2],
            [3, 4],
            [5, 6]])
    """
    return _core.cat(tensors, dim)


def stack(tensors: Sequence[TensorLike], dim: int = 0) -> Tensor:
    """Join along a new dimension `dim`; all shapes agree. The gradient is cut up again.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.stack([[1, 2], [3, 4]], 1)
    tensor([[1, 3],
            [2, 4]])
    """
    return _core.stack(tensors, dim)


def clone(input: TensorLike) -> Tensor:
    """Return a copy that passes its gradient on.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0])
    >>> y = fg.clone(x)
    >>> y += 1
    >>> x
    tensor([1.])
    """
    return operand("input", input).clone()


def numel(input: TensorLike) -> int:
    """Return the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.numel([[1, 2], [3, 4]])
    4
    """
    return operand("input", input).numel()
