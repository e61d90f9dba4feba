"""Jacobians of known structure: blocks along the diagonal, as compressed rows."""

from typing import NamedTuple

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import Array
from ferrograd.recorded import Recorded

__all__ = ["SparseMatrix", "block_diagonal"]


class SparseMatrix(NamedTuple):
    """A matrix in compressed rows (CSR), of which the elements that may differ from zero are stored.

    Attributes
    ----------
    indptr : ndarray of int64, shape (rows + 1,)
        Row i has the elements from ``indptr[i]`` up to ``indptr[i + 1]``.
    indices : ndarray of int64
        The column of each element.
    values : Tensor
        The elements.
    shape : tuple (rows, columns)

    Examples
    --------
    >>> import ferrograd as fg
    >>> jacobian = fg.func.sparse_jacobian(lambda x: x * x)(fg.tensor([1.0, 2.0]))
    >>> jacobian.indices.tolist(), jacobian.values
    ([0, 1], tensor([2., 4.]))
    """

    indptr: Array
    indices: Array
    values: Tensor
    shape: tuple[int, int]

    def to_dense(self) -> Tensor:
        """Return the whole matrix."""
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        flat = _core.tensor(rows * self.shape[1] + self.indices)
        zeros = _core.zeros(self.shape[0] * self.shape[1], dtype=self.values.dtype)
        return zeros.scatter_add(0, flat, self.values).reshape(self.shape)


def block_diagonal(run: Recorded, structure: str, create_graph: bool) -> SparseMatrix:
    """Return the Jacobian of the only output by the only input, which has the structure or is refused.

    One backward pass for each column of the output's rows; one more finds another structure.
    """
    owner = run.owner
    if len(run.outputs) != 1 or len(run.variables) != 1:
        raise ShapeError(f"{owner}: expected one input and one output tensor")
    x, y = run.variables[0], run.outputs[0]
    if structure == "elementwise":
        inner, outer, fits = 1, 1, x.shape == y.shape
    else:
        fits = x.ndim > 0 and y.ndim > 0 and x.shape[:-1] == y.shape[:-1]
        inner, outer = (x.shape[-1], y.shape[-1]) if fits else (0, 0)
    if not fits:
        raise ShapeError(
            f"{owner}: an output of shape {y.shape} for an input of shape {x.shape} is not {structure}"
        )
    blocks = x.numel() // inner if inner else 0

    def pulled(seed: Array) -> Tensor:
        cotangent = _core.tensor(np.broadcast_to(seed, (blocks, outer)).reshape(y.shape), dtype=y.dtype)
        (found,) = run.pull([y], [cotangent], create_graph=create_graph)
        return found.reshape((blocks, inner))

    values = _core.stack([pulled(unit) for unit in np.eye(outer)], dim=1) if outer else None
    if values is None or blocks == 0:
        values = _core.zeros(blocks, outer, inner, dtype=x.dtype)
    # A product with random factors tells, but by chance, whether anything lies outside the blocks.
    probe = np.random.default_rng(0).uniform(0.5, 1.5, (blocks, outer))
    known = values.numpy()
    with np.errstate(invalid="ignore"):
        expected = np.einsum("bo,boi->bi", probe, known)
    found = pulled(probe).numpy()
    # Of infinite slopes nothing can be told.
    is_finite = np.isfinite(expected)
    sizes = np.einsum("bo,boi->bi", probe, np.abs(np.where(np.isfinite(known), known, 0.0)))
    scale = max(sizes.max(initial=0.0), float(np.finfo(np.float32).tiny))
    tolerance = float(np.sqrt(np.finfo(x.dtype.name).eps)) * scale
    if not np.allclose(found[is_finite], expected[is_finite], rtol=0, atol=tolerance):
        raise ConfigError(f"{owner}: the function is not {structure}: elements of different blocks are mixed")
    rows = blocks * outer
    columns = np.arange(blocks * inner).reshape(blocks, 1, inner)
    return SparseMatrix(
        np.arange(rows + 1) * inner,
        np.broadcast_to(columns, (blocks, outer, inner)).reshape(-1),
        values.reshape((-1,)),
        (y.numel(), x.numel()),
    )
