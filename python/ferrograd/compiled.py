"""Compiled steps with what they depend on: how a trainer knows that a plan is still the model's."""

from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from ferrograd import _core, optim
from ferrograd._core import Tensor
from ferrograd._typing import Array
from ferrograd.nn.losses import CrossEntropyLoss, MulticlassHingeLoss, MultiMarginLoss, NLLLoss
from ferrograd.nn.module import Module, attributes, signature
from ferrograd.optim import Optimizer
from ferrograd.samples import Samples

__all__ = ["Compiled", "describe", "ignored_label", "is_of_labels", "members", "objects", "trained"]

# Losses whose integer targets are class numbers.
_LABEL_LOSSES = (CrossEntropyLoss, MultiMarginLoss, MulticlassHingeLoss, NLLLoss)

# Optimizers whose rules follow from their options, and options that do not change unless they are assigned.
_KNOWN = {kind for kind in vars(optim).values() if isinstance(kind, type) and kind is not Optimizer}
_FIXED = (int, float, str, np.number, type(None))


class Compiled(NamedTuple):
    """An engine, what its steps depend on, and what the model returns for a sample.

    The key is a description of model, data and optimizer that takes long to make and names objects by `id`;
    they are kept, so that no id is given to another object. `kept` begins with the model.

    `again` repeats a call where nothing was assigned since: making the key takes many times as long as a
    step.
    """

    key: Any
    kept: list[Any]
    engine: _core.Engine
    score_shape: tuple[int, ...]
    score_dtype: _core.DType
    updated: list[int]
    again: Any = None

    def scores(self, tables: list[Array], batch: int, rows: int) -> Array:
        """Run the prediction for all rows, `batch` at a time."""
        scores = _core.zeros((rows, *self.score_shape), dtype=self.score_dtype)
        self.engine.epoch(tables, batch, 0, rows, None, scores)
        return scores.numpy()

    def with_prediction_again(self, model: Any, data: Samples) -> "Compiled":
        """Remember what predictions depend on, where no change of it can go unnoticed."""
        fields = _fields(model)
        if fields is None:
            return self._replace(again=None)
        row = data.tables[0].shape[1:]
        watch = _core.Watch(fields)
        again = _core.PredictAgain(self.engine, watch, row, self.score_shape, self.score_dtype)
        return self._replace(again=again)

    def with_step_again(self, own: tuple[Any, ...], data: Samples) -> "Compiled":
        """Remember what a step depends on, where no change of it can go unnoticed.

        `own` are the trainer's options: model, loss and optimizer come first.
        """
        model, loss, optimizer = own[:3]
        fields, of_loss = _fields(model), _fields(loss)
        # How a callable object prints is part of the key.
        is_callable_object = not isinstance(loss, Module | FunctionType | BuiltinFunctionType)
        if fields is None or of_loss is None or is_callable_object or not _is_known(optimizer):
            return self._replace(again=None)
        groups: list[dict[str, Any]] = optimizer.param_groups
        params = [param for group in groups for param in group["params"]]
        if isinstance(model, Module):
            params += model.parameters()
        # Each step counts where the parameter is updated.
        learned = trained(optimizer)
        updated = {id(learned[number]): number for number in self.updated}
        states = [(state, updated.get(id(param))) for param, state in optimizer.state.items()]
        counted = [(state, number) for state, number in states if number is not None]
        others = [state for state, number in states if number is None]
        watch = _core.Watch(
            [*fields, *of_loss, vars(optimizer), optimizer.state, *groups, *others],
            [groups, *(group["params"] for group in groups)],
            params,
            counted,
            optimizer.scalars,
        )
        x, y = data.tables
        # Inputs are converted from any dtype; integer targets are class numbers.
        kinds = ((x.shape[1:], None), (y.shape[1:], data.dtypes[1] == _core.int64))
        has_labels = is_of_labels(loss) and data.has_labels() and len(self.score_shape) == 1
        labels = (self.score_shape[0], ignored_label(loss)) if has_labels else None
        return self._replace(again=_core.StepAgain(self.engine, watch, own, kinds, labels))


def _fields(function: Any) -> list[dict[str, Any]] | None:
    """Return the dicts that a model or a loss reads; None where a change could go unnoticed."""
    return attributes(function) if isinstance(function, Module) else []


def _is_known(optimizer: Optimizer) -> bool:
    options = [value for group in optimizer.param_groups for key, value in group.items() if key != "params"]
    flat = [part for value in options for part in (value if isinstance(value, tuple) else (value,))]
    # The watch keeps what the rules of single parameters hand on, not the memory of all.
    is_counted = type(optimizer) in _KNOWN and not optimizer.evaluates_again
    return is_counted and all(isinstance(value, _FIXED) for value in flat)


def is_of_labels(loss: Any) -> bool:
    """Whether integer targets are class numbers to this loss."""
    return isinstance(loss, _LABEL_LOSSES)


def ignored_label(loss: Any) -> int | None:
    """Return the class number that counts nothing."""
    ignored: int | None = getattr(loss, "ignore_index", None)
    return ignored


def members(optimizer: Optimizer) -> list[tuple[dict[str, Any], Tensor]]:
    """Return the parameters that are trained, each with its group."""
    groups = optimizer.param_groups
    return [(group, param) for group in groups for param in group["params"] if param.requires_grad]


def trained(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters that are trained."""
    return [param for _, param in members(optimizer)]


def _buffers(optimizer: Optimizer) -> list[Tensor]:
    states = (optimizer.state.get(param, {}) for param in trained(optimizer))
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def describe(own: tuple[Any, ...], data: Samples, *, trains: bool) -> Any:
    """Return what a compiled step depends on. `own` are the trainer's options, the first three as above."""
    model, loss, optimizer = own[:3]
    tables = [(table.shape[1:], dtype) for table, dtype in zip(*data, strict=True)]
    learned = [id(param) for param in trained(optimizer)]
    of_model = signature(model) if isinstance(model, Module) else id(model)
    of_loss = signature(loss) if isinstance(loss, Module) else (id(loss), repr(loss))
    # A step keeps the optimizer's buffers.
    names = [optimizer.buffer_names(group) for group in optimizer.param_groups]
    places = (
        (names, optimizer.is_element_wise, [id(value) for value in _buffers(optimizer)]) if trains else None
    )
    return of_model, of_loss, learned, own[3:], tables, places


def objects(model: Any, loss: Any, optimizer: Optimizer) -> list[Any]:
    """Return all that `describe` names by its id."""
    found = [model, loss]
    for function in (model, loss):
        if isinstance(function, Module):
            found += [*function.modules(), *function.parameters(), *function.buffers()]
    return [*found, *trained(optimizer), *_buffers(optimizer)]
