"""What a training run can go back to: a snapshot in memory, a file with weights and optimizer state."""

import json
from collections.abc import Callable
from os import PathLike
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, CorruptFileError, ShapeError, Tensor
from ferrograd.autograd import no_grad
from ferrograd.checks import check_path
from ferrograd.nn.module import Module
from ferrograd.optim import Optimizer
from ferrograd.optim.lr_scheduler import LRScheduler

__all__ = ["Snapshot", "load", "save"]

_Model = Callable[[Tensor], Tensor]

# Where the file's metadata holds what is not a tensor.
_KEY = "ferrograd.trainer"


def save(
    path: str | PathLike[str], model: _Model, optimizer: Optimizer, schedule: LRScheduler | None = None
) -> None:
    """Write weights, optimizer state and perhaps a schedule's to a safetensors file, atomically."""
    file = _checked("save", path, schedule)
    tensors = {f"model.{name}": value for name, value in _model_state(model, optimizer).items()}
    state = optimizer.state_dict()
    counts: dict[str, dict[str, float]] = {}
    for number, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value.detach()
            else:
                counts.setdefault(str(number), {})[key] = value
    content = {"groups": state["param_groups"], "counts": counts, "kind": type(optimizer).__name__}
    if schedule is not None:
        content["schedule"] = {"kind": type(schedule).__name__, "state": schedule.state_dict()}
    _core.save_tensors(file, tensors, {_KEY: json.dumps(content)})


def load(
    path: str | PathLike[str], model: _Model, optimizer: Optimizer, schedule: LRScheduler | None = None
) -> None:
    """Take over what `save` wrote; on any error model, optimizer and schedule are as they were."""
    tensors, metadata = _core.load_tensors(_checked("load", path, schedule))
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {}
    try:
        content = json.loads(metadata[_KEY])
        groups, counts, kind = content["groups"], content["counts"], content["kind"]
        of_schedule = content.get("schedule", {})
        schedule_kind, schedule_state = of_schedule.get("kind"), of_schedule.get("state")
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part == "model":
                weights[rest] = value
            else:
                number, _, key = rest.partition(".")
                state.setdefault(int(number), {})[key] = value
        for number, entries in counts.items():
            state.setdefault(int(number), {}).update(entries)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: no trainer's file") from error
    if kind != type(optimizer).__name__:
        raise ConfigError(f"{path}: written with the optimizer {kind}, got {type(optimizer).__name__}")
    if schedule is not None and schedule_kind != type(schedule).__name__:
        raise ConfigError(f"{path}: written with the schedule {schedule_kind}, got {type(schedule).__name__}")
    before, schedule_before = optimizer.state_dict(), None
    if schedule is not None:
        schedule_before = schedule.state_dict()
        schedule.load_state_dict(schedule_state)
    try:
        optimizer.load_state_dict({"param_groups": groups, "state": state})
        _load_model_state(model, optimizer, weights)
    except Exception:
        optimizer.load_state_dict(before)
        if schedule is not None and schedule_before is not None:
            schedule.load_state_dict(schedule_before)
        raise


def _checked(owner: str, path: Any, schedule: Any) -> str:
    if schedule is not None and not isinstance(schedule, LRScheduler):
        raise ConfigError(f"{owner}: schedule must be an LRScheduler or None, got {schedule!r}")
    return check_path(owner, path)


def _params(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _model_state(model: _Model, optimizer: Optimizer) -> dict[str, Tensor]:
    if isinstance(model, Module):
        return dict(model.state_dict())
    return {str(number): param.detach() for number, param in enumerate(_params(optimizer))}


def _load_model_state(model: _Model, optimizer: Optimizer, weights: dict[str, Tensor]) -> None:
    if isinstance(model, Module):
        model.load_state_dict(weights)
        return
    own = _model_state(model, optimizer)
    expected = {name: value.shape for name, value in own.items()}
    got = {name: value.shape for name, value in weights.items()}
    if expected != got:
        raise ShapeError(f"load: expected parameters of shapes {expected}, got {got}")
    with no_grad():
        for name, value in own.items():
            value.copy_(weights[name])


class Snapshot:
    """Parameters, buffers and optimizer state at a moment, to go back to."""

    def __init__(self, optimizer: Optimizer, model: _Model) -> None:
        self.optimizer = optimizer
        # Training moves buffers too: running means.
        self.buffers = list(model.buffers()) if isinstance(model, Module) else []
        self.values: list[tuple[Tensor, Tensor]] = []
        self.take()

    def take(self) -> None:
        """Remember the present, in the memory of the last time where the tensors are the same."""
        params = _params(self.optimizer)
        # A frozen parameter has no state yet, and gets none here: its first may depend on later options.
        known = [param for param in params if param in self.optimizer.state]
        state = [value for param in known for value in self.optimizer.state_tensors(param)]
        tensors = [*params, *self.buffers, *state]
        if [id(tensor) for tensor in tensors] == [id(tensor) for tensor, _ in self.values]:
            with no_grad():
                for tensor, value in self.values:
                    value.copy_(tensor.detach())
        else:
            self.values = [(tensor, tensor.detach().clone()) for tensor in tensors]
        # What is not changed in place.
        self.others = [(param, self._state_of(param)[1]) for param in params]

    def restore(self) -> None:
        """Go back to what was remembered."""
        with no_grad():
            for tensor, value in self.values:
                tensor.detach().copy_(value)
        for param, others in self.others:
            kept, _ = self._state_of(param)
            if param in self.optimizer.state:
                self.optimizer.state[param].clear()
                self.optimizer.state[param].update(kept | others)

    def _state_of(self, param: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the part of a state that `values` holds, and the rest."""
        own, state = {id(tensor) for tensor, _ in self.values}, self.optimizer.state.get(param, {})
        kept = {key: value for key, value in state.items() if id(value) in own}
        return kept, {key: value for key, value in state.items() if key not in kept}
