"""Layers that take rows of a weight, by number or for a sparse input, and products of two inputs."""

import math
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import ShapeError, Tensor
from ferrograd._typing import Array, DeviceLike, DTypeLike, TensorLike
from ferrograd.convert import operand
from ferrograd.nn import init
from ferrograd.nn.layers import check_count
from ferrograd.nn.lookup_functions import check_lookup, embedding, padding_row, row_numbers
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = ["Bilinear", "Embedding", "SparseLinear"]


class Bilinear(Module):
    """``y_k = x1^T W_k x2 + b_k``.

    Parameters
    ----------
    in1_features, in2_features, out_features : int
        Lengths of the last dimension of both inputs and of the output.
    bias : bool, default True
        Whether b is added.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in1_features, in2_features)
        Drawn from ``U(-1/sqrt(in1_features), 1/sqrt(in1_features))``.
    bias : Parameter of shape (out_features,), or None
        Drawn from the same interval.

    Raises
    ------
    ConfigError
        If a size is no count.
    ShapeError
        When called, if the inputs have other lengths or differ in their other dimensions.

    Notes
    -----
    With the gradient g from above: ``dx1 = sum_k g_k W_k x2``, ``dx2 = sum_k g_k W_k^T x1``,
    ``dW_k = g_k x1 x2^T`` and ``db = g``, the last two summed over the batch.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Bilinear(4, 5, 3)(fg.ones(2, 4), fg.ones(2, 5)).shape
    (2, 3)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in1_features = check_count("Bilinear", "in1_features", in1_features)
        self.in2_features = check_count("Bilinear", "in2_features", in2_features)
        self.out_features = check_count("Bilinear", "out_features", out_features)
        shape = (self.out_features, self.in1_features, self.in2_features)
        self.weight = Parameter(_core.empty(shape, dtype=dtype, device=device))
        offset = Parameter(_core.empty(self.out_features, dtype=dtype, device=device)) if bias else None
        self.register_parameter("bias", offset)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from `manual_seed`'s generator."""
        bound = 1 / math.sqrt(self.in1_features)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, input1: TensorLike, input2: TensorLike) -> Tensor:
        """Map ``(..., in1_features)`` and ``(..., in2_features)`` to ``(..., out_features)``."""
        x1, x2 = operand("input1", input1), operand("input2", input2)
        lengths = (self.in1_features, self.in2_features)
        if (x1.shape[-1:], x2.shape[-1:]) != ((lengths[0],), (lengths[1],)) or x1.shape[:-1] != x2.shape[:-1]:
            raise ShapeError(
                f"Bilinear: expected shapes (..., {lengths[0]}) and (..., {lengths[1]}), "
                f"got {x1.shape} and {x2.shape}"
            )
        # One product for all k, with the maps side by side.
        maps = self.weight.permute(1, 0, 2).reshape(self.in1_features, -1)
        halves = x1.matmul(maps).reshape(*x1.shape[:-1], self.out_features, self.in2_features)
        y = (halves * x2.unsqueeze(-2)).sum(-1)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return the sizes."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Embedding(Module):
    """Row i of a learned table for each number i; its gradient is the sum over its uses.

    Parameters
    ----------
    num_embeddings : int
        Rows of the table.
    embedding_dim : int
        Length of a row.
    padding_idx : int, optional
        A row that is zero at first and gets no gradient; negative ones count from the end.
    max_norm, norm_type, scale_grad_by_freq, sparse : optional
        As in `functional.embedding`: rows that are used are shortened in place to `max_norm`, gradients are
        divided by the number of uses; `sparse` must be False.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter, shape (num_embeddings, embedding_dim)
        Drawn from the normal distribution with mean 0 and variance 1.

    Raises
    ------
    ConfigError
        If a size is no count, `padding_idx` no row, or another option out of range.
    IndexError
        When called, if a number is outside the table.
    DTypeError
        When called, if a number is not whole. Floats that are whole are taken, where PyTorch refuses them: a
        `Trainer` hands over its inputs as floats. float32 names at most 2^24 rows.

    Notes
    -----
    ``y_j = W[i_j]``; ``dW[i]`` is the sum of ``g_j`` over all j with ``i_j = i``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> table = fg.nn.Embedding(10, 3, padding_idx=0)
    >>> table(fg.tensor([[1, 2], [0, 5]])).shape
    (2, 2, 3)
    >>> table(fg.tensor([0])).tolist()
    [[0.0, 0.0, 0.0]]
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = check_count("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = check_count("Embedding", "embedding_dim", embedding_dim)
        self.padding_idx = padding_row("Embedding", padding_idx, self.num_embeddings)
        check_lookup("Embedding", max_norm, norm_type, sparse)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        shape = (self.num_embeddings, self.embedding_dim)
        self.weight = Parameter(_core.empty(shape, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew from `manual_seed`'s generator."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.zeros_(self.weight.detach()[self.padding_idx : self.padding_idx + 1])

    def forward(self, input: TensorLike) -> Tensor:
        """Map numbers of any shape to that shape and ``(embedding_dim,)``."""
        return embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
        )

    def extra_repr(self) -> str:
        """Return the sizes and the options that are not the defaults."""
        defaults = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False}
        chosen = [
            f", {name}={getattr(self, name)}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        ]
        return f"{self.num_embeddings}, {self.embedding_dim}{''.join(chosen)}"


class SparseLinear(Module):
    """`Linear` for inputs of which few elements are not 0: it takes rows of the weight, one for each of them.

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last dimension of input and output.
    bias : bool, default True
        Whether b is added.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter, shape (in_features, out_features)
        The transpose of `Linear`'s, so that the rows taken lie together; drawn from the same interval.
    bias : Parameter of shape (out_features,), or None
        Drawn from the same interval.

    Raises
    ------
    ConfigError
        If a size is no count.
    ShapeError
        When called, if the input is none of the two forms.
    IndexError
        When called, if a column is outside the weight.

    Notes
    -----
    ``y = sum_j v_j W[c_j] + b`` over a row's columns c and values v. With the gradient g from above:
    ``dv_j = W[c_j] . g``, and row ``c_j`` of dW gets ``v_j g``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.SparseLinear(1000, 3)
    >>> csr = ([0, 2, 3], [5, 999, 0], [1.0, 2.0, 3.0])
    >>> layer(csr).shape
    (2, 3)
    >>> fg.nn.SparseLinear.pairs(*csr).tolist()
    [[[5.0, 1.0], [999.0, 2.0]], [[0.0, 3.0], [0.0, 0.0]]]
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_count("SparseLinear", "in_features", in_features)
        self.out_features = check_count("SparseLinear", "out_features", out_features)
        shape = (self.in_features, self.out_features)
        self.weight = Parameter(_core.empty(shape, dtype=dtype, device=device))
        offset = Parameter(_core.empty(self.out_features, dtype=dtype, device=device)) if bias else None
        self.register_parameter("bias", offset)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from `manual_seed`'s generator."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    @staticmethod
    def pairs(indptr: Any, indices: Any, data: Any) -> Array:
        """Return a CSR matrix as an array (rows, longest row, 2) of columns and values, filled up with zeros.

        Such an array can be trained on by a `Trainer`, where batches have one shape.

        Parameters
        ----------
        indptr : array_like of int, shape (rows + 1,)
            Row i has the elements ``indptr[i]`` to ``indptr[i + 1] - 1``.
        indices : array_like of int
            Columns of the elements.
        data : array_like
            Their values.

        Raises
        ------
        ShapeError
            If the three arrays do not make a CSR matrix.
        """
        starts, columns = np.asarray(indptr, dtype=np.int64), np.asarray(indices, dtype=np.int64)
        values = np.asarray(data)
        lengths = np.diff(starts)
        is_sound = (
            starts.ndim == columns.ndim == values.ndim == 1
            and len(starts) > 0
            and starts[0] == 0
            and (lengths >= 0).all()
            and starts[-1] == len(columns) == len(values)
        )
        if not is_sound:
            raise ShapeError(
                "SparseLinear: expected CSR arrays with indptr from 0 to the number of elements, got shapes "
                f"{starts.shape}, {columns.shape} and {values.shape}"
            )
        dtype = values.dtype if values.dtype in (np.float32, np.float64) else np.float32
        found = np.zeros((len(lengths), max(1, lengths.max(initial=0)), 2), dtype)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(columns)) - starts[rows]
        found[rows, places, 0], found[rows, places, 1] = columns, values
        return found

    def forward(self, input: Any) -> Tensor:
        """Map CSR arrays, a scipy matrix, or their `pairs`, to ``(rows, out_features)``."""
        if hasattr(input, "indptr"):
            input = (input.indptr, input.indices, input.data)
        if isinstance(input, tuple):
            dtype = self.weight.dtype
            input = _core.tensor(self.pairs(*input), dtype=dtype)
        x = operand("input", input)
        if x.ndim != 3 or x.shape[2] != 2:
            raise ShapeError(f"SparseLinear: expected pairs of shape (rows, elements, 2), got {x.shape}")
        columns = row_numbers("SparseLinear", x[:, :, 0], self.in_features)
        # Not by brackets, where negative numbers count from the end.
        rows = self.weight.index_select(0, columns.reshape(-1)).reshape(*columns.shape, self.out_features)
        y = (rows * x[:, :, 1:]).sum(1)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return the sizes."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
