"""Compiled steps with what they depend on: how a trainer knows that a plan is still the model's."""

from typing import Any, NamedTuple

from ferrograd import _core
from ferrograd._typing import Array
from ferrograd.nn.module import Module, attributes
from ferrograd.optim import Optimizer

__all__ = ["Compiled", "watch"]


class Compiled(NamedTuple):
    """An engine, what its steps depend on, and what the model returns for a sample.

    The key is a description of model, data and optimizer that takes long to make and names objects by `id`;
    they are kept, so that no id is given to another object. `kept` begins with the model and the optimizer.
    """

    key: Any
    kept: list[Any]
    engine: _core.Engine
    score_shape: tuple[int, ...]
    score_dtype: _core.DType
    updated: list[int]
    watch: _core.Watch | None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        (shape, _), *_ = self.key[1]
        return tuple(shape)

    def is_current(self, model: Any, optimizer: Optimizer, rows: int) -> bool:
        """Whether so many rows of this model can be predicted: compiled, and nothing was assigned since."""
        return (
            self.kept[0] is model
            and self.kept[1] is optimizer
            and self.watch is not None
            and self.watch.holds()
            and self.engine.has(rows)
        )

    def scores(self, tables: list[Array], batch: int, rows: int) -> Array:
        """Run the prediction for all rows, `batch` at a time."""
        scores = _core.zeros((rows, *self.score_shape), dtype=self.score_dtype)
        self.engine.epoch(tables, batch, 0, rows, None, scores)
        return scores.numpy()


def watch(model: Any, optimizer: Optimizer) -> _core.Watch | None:
    """Watch what predictions depend on; None where the model could change without an assignment."""
    fields = attributes(model) if isinstance(model, Module) else []
    groups = optimizer.param_groups
    return None if fields is None else _core.Watch([groups, *groups, *(g["params"] for g in groups), *fields])
