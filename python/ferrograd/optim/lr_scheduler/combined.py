"""Schedules made of schedules: one after the other, or all at once."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from ferrograd._core import ConfigError
from ferrograd.checks import as_list, check_int
from ferrograd.optim.lr_scheduler.base import LRScheduler, check_optimizer
from ferrograd.optim.lr_scheduler.plateau import ReduceLROnPlateau
from ferrograd.optim.optimizer import Optimizer

__all__ = ["ChainedScheduler", "SequentialLR"]


class _Combined(LRScheduler):
    _unsaved = (*LRScheduler._unsaved, "schedulers")

    def _take(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        name = type(self).__name__
        self.schedulers: list[LRScheduler] = as_list(f"{name}: schedulers", "schedules", schedulers)
        if not self.schedulers:
            raise ConfigError(f"{name}: schedulers is empty")
        for number, part in enumerate(self.schedulers):
            if not isinstance(part, LRScheduler) or isinstance(part, ReduceLROnPlateau | _Combined):
                kind = type(part).__name__
                raise ConfigError(f"{name}: schedulers[{number}] must be a schedule of steps, got {kind}")
        self.optimizer = check_optimizer(name, optimizer or self.schedulers[0].optimizer)
        for number, part in enumerate(self.schedulers):
            if part.optimizer is not self.optimizer:
                raise ConfigError(f"{name}: schedulers[{number}] must belong to the same optimizer")
        self.per_batch = any(part.per_batch for part in self.schedulers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with that of the parts."""
        return {**super().state_dict(), "schedulers": [part.state_dict() for part in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises
        ------
        ConfigError
            If it belongs to another kind of schedule; nothing was changed then.
        """
        self._check_state(state_dict)
        parts = state_dict["schedulers"]
        if len(parts) != len(self.schedulers):
            raise ConfigError(
                f"load_state_dict of {type(self).__name__}: expected {len(self.schedulers)} schedulers, "
                f"got {len(parts)}"
            )
        for part, state in zip(self.schedulers, parts, strict=True):
            part._check_state(state)
        for part, state in zip(self.schedulers, parts, strict=True):
            part.load_state_dict(state)
        vars(self).update({key: value for key, value in state_dict.items() if key != "schedulers"})


class SequentialLR(_Combined):
    """One schedule after the other, each from its own step 0.

    In `Trainer.fit` all of them are stepped after each batch if one of them is.

    Parameters
    ----------
    optimizer : Optimizer
        That of all schedules.
    schedulers : sequence of LRScheduler
        The schedules, of any kind but `ReduceLROnPlateau`, `SequentialLR` and `ChainedScheduler`.
    milestones : sequence of int
        Numbers of steps after which the second and the following schedules begin, in ascending order.
    last_epoch : int, default -1
        Steps made before, less 1.

    Raises
    ------
    ConfigError
        If a schedule belongs to another optimizer, or an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.optim import lr_scheduler
    >>> optimizer = fg.optim.SGD([fg.tensor([1.0], requires_grad=True)], lr=0.8)
    >>> first = lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> second = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> schedule = lr_scheduler.SequentialLR(optimizer, [first, second], milestones=[2])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.4, 0.4, 0.8, 0.4]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        check_optimizer("SequentialLR", optimizer)
        self._take(optimizer, schedulers)
        check_int("SequentialLR: last_epoch", last_epoch, low=-1)
        self.milestones: list[int] = as_list("SequentialLR: milestones", "integers", milestones)
        for milestone in self.milestones:
            check_int("SequentialLR: milestones", milestone, low=1)
        if len(self.milestones) != len(self.schedulers) - 1 or self.milestones != sorted(self.milestones):
            wanted = f"{len(self.schedulers) - 1} ascending numbers"
            raise ConfigError(f"SequentialLR: milestones must be {wanted}, got {milestones!r}")
        self.last_epoch = last_epoch + 1
        # Each part has set its first rates; only those of the first one count.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for part in self.schedulers:
            part._undo()
        self.schedulers[0]._begin()
        self._last_lr = self.schedulers[0].get_last_lr()

    def step(self) -> None:
        """Set the next rates."""
        self.last_epoch += 1
        number = bisect_right(self.milestones, self.last_epoch)
        part = self.schedulers[number]
        if number > 0 and self.milestones[number - 1] == self.last_epoch:
            part._restart()
        else:
            part.step()
        self._last_lr = part.get_last_lr()


class ChainedScheduler(_Combined):
    """Several schedules at once: each step steps them all, so that their factors multiply.

    In `Trainer.fit` all of them are stepped after each batch if one of them is.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        The schedules, of any kind but `ReduceLROnPlateau`, `SequentialLR` and `ChainedScheduler`.
    optimizer : Optimizer, optional
        That of all schedules.

    Raises
    ------
    ConfigError
        If a schedule belongs to another optimizer.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.optim import lr_scheduler
    >>> optimizer = fg.optim.SGD([fg.tensor([1.0], requires_grad=True)], lr=0.8)
    >>> first = lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> second = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> schedule = lr_scheduler.ChainedScheduler([first, second])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.4, 0.2, 0.2, 0.1]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._take(optimizer, schedulers)
        self._last_lr = self._rates()

    def step(self) -> None:
        """Step all."""
        for part in self.schedulers:
            part.step()
        self._last_lr = self._rates()
