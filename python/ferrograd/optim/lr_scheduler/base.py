"""Base of the schedules: they set the rates of an optimizer's groups, step by step."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ferrograd._core import ConfigError
from ferrograd._typing import Array
from ferrograd.checks import check_int
from ferrograd.optim.optimizer import Optimizer, check_range

__all__ = ["LRScheduler", "per_group"]


class LRScheduler:
    """Base class, which keeps the rates: a subclass defines `get_lr`, those that follow the present ones.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    last_epoch : int, default -1
        Steps made before, where an optimizer with ``"initial_lr"`` in its groups is taken over.

    Attributes
    ----------
    last_epoch : int
        Steps made.
    base_lrs : list of float
        The groups' rates at the start.
    per_batch : bool
        Whether `Trainer.fit` steps it after each batch instead of each epoch; may be assigned.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Halved(fg.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [base / 2**self.last_epoch for base in self.base_lrs]
    >>> optimizer = fg.optim.SGD([fg.tensor([1.0], requires_grad=True)], lr=0.8)
    >>> Halved(optimizer).upcoming(3)[:, 0, 0].tolist()
    [0.8, 0.4, 0.2]
    """

    per_batch: bool = False

    # What a state dict leaves out: it belongs to others, or cannot be written to a file.
    _unsaved: ClassVar[tuple[str, ...]] = ("optimizer", "per_batch")

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        self.optimizer = check_optimizer(name, optimizer)
        check_int(f"{name}: last_epoch", last_epoch, low=-1)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ConfigError(f"{name}: last_epoch needs 'initial_lr' in group {number} of the optimizer")
        self.base_lrs: list[float] = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._is_initial = False
        self._begin()

    # What a subclass defines

    def get_lr(self) -> list[float]:
        """Return the groups' rates after `last_epoch` steps from those before, the present ones: the same."""
        return self._rates()

    def _first(self) -> list[float]:
        """Return the rates of step 0, whatever the present ones are."""
        return self.base_lrs

    def check_steps(self, steps: int) -> None:
        """Raise `ConfigError` if so many further steps are too many."""

    # What is common

    def step(self) -> None:
        """Set the next rates."""
        self.check_steps(1)
        self.last_epoch += 1
        self._assign(self.get_lr())

    def follow(self, logs: Mapping[str, Any]) -> None:
        """Make the step that follows an epoch with these logs."""
        self.step()

    def get_last_lr(self) -> list[float]:
        """Return the groups' rates that were set last."""
        return self._last_lr

    def upcoming(self, steps: int) -> Array:
        """Return rates and momenta of this and the following steps.

        Returns
        -------
        ndarray of shape (steps, groups, 2)
            Rates, and momenta where the schedule sets them, else NaN.
        """
        groups = self.optimizer.param_groups
        saved, options = copy.deepcopy(self.state_dict()), [dict(group) for group in groups]
        found = np.full((steps, len(groups), 2), np.nan)
        for row in found:
            row[:, 0] = self.get_last_lr()
            self.step()
        self.load_state_dict(saved)
        for group, before in zip(groups, options, strict=True):
            group.update(before)
        return found

    def advance(self, steps: int) -> None:
        """Make several steps."""
        for _ in range(steps):
            self.step()

    def state_dict(self) -> dict[str, Any]:
        """Return options and state: numbers, strings and lists. The rates themselves are the optimizer's."""
        return {key: value for key, value in vars(self).items() if key not in self._unsaved}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises
        ------
        ConfigError
            If it belongs to another kind of schedule; nothing was changed then.
        """
        self._check_state(state_dict)
        vars(self).update(state_dict)

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        name, expected = f"load_state_dict of {type(self).__name__}", sorted(self.state_dict())
        got = sorted(state_dict) if isinstance(state_dict, Mapping) else repr(state_dict)
        if got != expected:
            raise ConfigError(f"{name}: expected a dict with the keys {expected}, got {got}")
        for key, value in self.state_dict().items():
            if _kind(state_dict[key]) != _kind(value):
                raise ConfigError(f"{name}: expected {key} as {_kind(value)}, got {state_dict[key]!r}")

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _assign(self, rates: Sequence[float]) -> None:
        self._last_lr = [float(rate) for rate in rates]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    # What `SequentialLR` does with its parts

    def _begin(self) -> None:
        """Make the step that sets the first rates."""
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _undo(self) -> None:
        """Forget the step that set the first rates."""
        self.last_epoch -= 1

    def _restart(self) -> None:
        """Begin anew at step 0, from the first rates."""
        self.last_epoch = 0
        self._assign(self._first())


def _kind(value: Any) -> str:
    """Return what a value of a state is, in a file's terms."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def check_optimizer(owner: str, optimizer: Any) -> Optimizer:
    """Return the optimizer; raise `ConfigError` if it is none."""
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"{owner}: optimizer must be an Optimizer, got {type(optimizer).__name__}")
    return optimizer


def per_group(
    owner: str, name: str, value: Any, optimizer: Optimizer, low: float = 0.0, high: float = float("inf")
) -> list[float]:
    """Return an option as a number for each group; raise `ConfigError` unless each is in [low, high)."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, list | tuple) else [value] * groups
    if len(values) != groups:
        raise ConfigError(f"{owner}: {name} must be a number or {groups} numbers, got {value!r}")
    for number in values:
        check_range(owner, name, number, low, high)
    return [float(number) for number in values]
