"""The data of a training run: checked once, then read in place by the native side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, LabelError, ShapeError, Tensor
from ferrograd._typing import Array, TensorLike
from ferrograd.autograd import no_grad
from ferrograd.checks import as_table
from ferrograd.random import fork_rng

__all__ = [
    "Samples",
    "called",
    "check_labels",
    "counts_classes",
    "inputs",
    "with_targets",
    "with_weights",
]

# The native side numbers rows in 32 bits.
_MAX_ROWS = 2**32 - 1


class Samples(NamedTuple):
    """Inputs, targets and sample weights with the dtypes of their placeholders, in a plan's order."""

    tables: list[Array]
    dtypes: list[_core.DType]

    @property
    def rows(self) -> int:
        """Number of samples."""
        return len(self.tables[0])

    def first(self, rows: int) -> "Samples":
        """Return copies of the first rows."""
        return Samples([table[:rows].copy() for table in self.tables], self.dtypes)

    def repeated(self, rows: int) -> "Samples":
        """Return so many rows: the first, and again from the start where there are fewer."""
        tables = [np.resize(table, (rows, *table.shape[1:])) for table in self.tables]
        return Samples(tables, self.dtypes)

    def has_labels(self) -> bool:
        """Whether the targets are class numbers, one a row."""
        return len(self.tables) > 1 and self.dtypes[1] == _core.int64 and self.tables[1].ndim == 1


def inputs(X: TensorLike, dtype: _core.DType, *, allow_empty: bool) -> Samples:
    """Check the inputs; they are converted to `dtype` batch by batch."""
    table = as_table("X", X)
    if table.ndim < 2:
        raise ShapeError(
            f"X: expected shape (n_samples, n_features), got {table.shape}; "
            "use X.reshape(-1, 1) for one feature or X.reshape(1, -1) for one sample"
        )
    if len(table) == 0 and not allow_empty:
        raise ShapeError(f"X: expected at least one sample, got shape {table.shape}")
    if len(table) > _MAX_ROWS:
        raise ConfigError(f"X: expected at most {_MAX_ROWS} rows, got {len(table)}")
    _core.check_finite(table, "X")
    return Samples([table], [dtype])


def called(model: Callable[[Tensor], Any], batch: Tensor, name: str) -> Any:
    """Return what a model gives for a batch; an error says so where it takes the batch as one sample."""
    try:
        return model(batch)
    except ShapeError as error:
        try:
            with no_grad(), fork_rng():
                model(batch.unsqueeze(0))
        except Exception:
            raise error from None
        raise ShapeError(f"{error}; if these {len(batch)} rows are one sample, pass {name}[None]") from error


def with_targets(samples: Samples, y: TensorLike | None) -> Samples:
    """Add targets: integers are class numbers, floats take the dtype of the inputs."""
    table = as_table("y", y)
    if table.ndim == 0 or len(table) != samples.rows:
        one = (
            "; for one sample pass X[None] and a y of length 1" if table.ndim == 0 or len(table) == 1 else ""
        )
        raise ShapeError(f"y: expected {samples.rows} rows, as X has, got shape {table.shape}{one}")
    _core.check_finite(table, "y")
    if table.dtype == np.uint64 and (table > np.uint64(2**63 - 1)).any():
        row = int(np.argmax(table.reshape(len(table), -1).max(1)))
        raise LabelError(f"y: expected class labels below 2**63, got {table[row]} in row {row}")
    dtype = _core.int64 if table.dtype.kind in "iub" else samples.dtypes[0]
    return Samples([*samples.tables, table], [*samples.dtypes, dtype])


def with_weights(samples: Samples, sample_weight: TensorLike) -> Samples:
    """Add sample weights."""
    table = as_table("sample_weight", sample_weight)
    if table.shape != (samples.rows,):
        raise ShapeError(f"sample_weight: expected shape ({samples.rows},), got {table.shape}")
    _core.check_finite(table, "sample_weight")
    if (table < 0).any() or not (table > 0).any():
        raise ConfigError("sample_weight: expected values of at least 0, not all of them 0")
    return Samples([*samples.tables, table], [*samples.dtypes, samples.dtypes[0]])


def check_labels(samples: Samples, score_shape: tuple[int, ...], ignored: int | None) -> None:
    """Raise `LabelError` at the first class number that scores of this shape have no column for."""
    if not samples.has_labels() or len(score_shape) != 1:
        return
    labels = samples.tables[1]
    outside = (labels < 0) | (labels >= score_shape[0])
    if ignored is not None:
        outside &= labels != ignored
    if outside.any():
        row = int(np.argmax(outside))
        allowed = f"0..{score_shape[0] - 1}"
        raise LabelError(f"y: expected class labels in {allowed}, got {labels[row]} in row {row}")


def counts_classes(samples: Samples, score_shape: tuple[int, ...]) -> bool:
    """Whether an accuracy can be told: targets are class numbers, scores have a column for each."""
    return samples.has_labels() and len(score_shape) == 1
