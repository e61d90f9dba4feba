"""Compiled steps with what they depend on: how a trainer knows that a plan is still the model's."""

from typing import Any, NamedTuple

from ferrograd import _core
from ferrograd._typing import Array
from ferrograd.nn.module import Module, attributes
from ferrograd.samples import Samples

__all__ = ["Compiled", "watch"]


class Compiled(NamedTuple):
    """An engine, what its steps depend on, and what the model returns for a sample.

    The key is a description of model, data and optimizer that takes long to make and names objects by `id`;
    they are kept, so that no id is given to another object. `kept` begins with the model.
    """

    key: Any
    kept: list[Any]
    engine: _core.Engine
    score_shape: tuple[int, ...]
    score_dtype: _core.DType
    updated: list[int]
    watch: _core.Watch | None

    def scores(self, tables: list[Array], batch: int, rows: int) -> Array:
        """Run the prediction for all rows, `batch` at a time."""
        scores = _core.zeros((rows, *self.score_shape), dtype=self.score_dtype)
        self.engine.epoch(tables, batch, 0, rows, None, scores)
        return scores.numpy()

    def scores_again(self, X: Any) -> Array | None:
        """Run the prediction for few rows; None where they or the model have to be looked at more closely.

        Making the key would take many times as long as predicting a row.
        """
        watch = self.watch
        if watch is None or not (rows := watch.rows(X)) or not watch.holds() or not self.engine.has(rows):
            return None
        return self.scores([X], rows, rows)


def watch(model: Any, data: Samples) -> _core.Watch | None:
    """Watch what predictions depend on; None where rows are no vectors or changes could go unnoticed."""
    fields = attributes(model) if isinstance(model, Module) else []
    table = data.tables[0]
    return None if fields is None or table.ndim != 2 else _core.Watch(fields, table.shape[1])
