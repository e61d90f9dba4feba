"""What a training run can go back to: a snapshot in memory, a file with weights and optimizer state."""

import json
from collections.abc import Callable
from os import PathLike
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, CorruptFileError, ShapeError, Tensor
from ferrograd.autograd import no_grad
from ferrograd.nn.module import Module
from ferrograd.optim import Optimizer

__all__ = ["Snapshot", "load", "save"]

_Model = Callable[[Tensor], Tensor]

# Where the file's metadata holds what is not a tensor.
_KEY = "ferrograd.trainer"


def save(path: str | PathLike[str], model: _Model, optimizer: Optimizer) -> None:
    """Write weights and optimizer state to a safetensors file, atomically."""
    tensors = {f"model.{name}": value for name, value in _model_state(model, optimizer).items()}
    state = optimizer.state_dict()
    counts: dict[str, dict[str, int]] = {}
    for number, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{number}.{key}"] = value.detach()
            else:
                counts.setdefault(str(number), {})[key] = value
    content = {"groups": state["param_groups"], "counts": counts, "kind": type(optimizer).__name__}
    _core.save_tensors(path, tensors, {_KEY: json.dumps(content)})


def load(path: str | PathLike[str], model: _Model, optimizer: Optimizer) -> None:
    """Take over what `save` wrote; on any error model and optimizer are as they were."""
    tensors, metadata = _core.load_tensors(path)
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {}
    try:
        content = json.loads(metadata[_KEY])
        groups, counts, kind = content["groups"], content["counts"], content["kind"]
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
    before = optimizer.state_dict()
    optimizer.load_state_dict({"param_groups": groups, "state": state})
    try:
        _load_model_state(model, optimizer, weights)
    except Exception:
        optimizer.load_state_dict(before)
        raise


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
        state = [value for param in params for value in self.optimizer.state_tensors(param)]
        tensors = [*params, *self.buffers, *state]
        if [id(tensor) for tensor in tensors] == [id(tensor) for tensor, _ in self.values]:
            with no_grad():
                for tensor, value in self.values:
                    value.copy_(tensor.detach())
        else:
            self.values = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self.steps = [(param, self.optimizer.steps_of(param)) for param in params]

    def restore(self) -> None:
        """Go back to what was remembered."""
        with no_grad():
            for tensor, value in self.values:
                tensor.detach().copy_(value)
        for param, steps in self.steps:
            self.optimizer.count_steps(param, steps - self.optimizer.steps_of(param))
