"""How a trainer and a schedule go together: what is checked before a fit, the rates of an epoch's batches."""

from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.compiled import members
from ferrograd.optim import Optimizer
from ferrograd.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["check_schedule", "rates_of", "updates_of"]


def updates_of(rows: int, batch: int, drop_last: bool, accumulate: int) -> int:
    """Return the number of updates in an epoch."""
    batches = rows // batch if drop_last else -(-rows // batch)
    return -(-batches // accumulate)


def check_schedule(schedule: Any, optimizer: Optimizer, epochs: int, updates: int) -> None:
    """Raise `ConfigError` if a schedule does not suit an optimizer, or cannot make that many steps."""
    if schedule is None:
        return
    if not isinstance(schedule, LRScheduler):
        kind = type(schedule).__name__
        raise ConfigError(f"schedule: expected one of ferrograd.optim.lr_scheduler, got {kind}")
    if schedule.optimizer is not optimizer:
        raise ConfigError("schedule: expected one of this trainer's optimizer, got that of another")
    if schedule.per_batch and isinstance(schedule, ReduceLROnPlateau):
        raise ConfigError("schedule: ReduceLROnPlateau follows a value of each epoch, got per_batch=True")
    schedule.check_steps(epochs * updates if schedule.per_batch else epochs)


def rates_of(schedule: LRScheduler, optimizer: Optimizer, updates: int) -> Tensor:
    """Return rates and momenta of the next updates, of shape (updates, trained parameters, 2)."""
    numbers = {id(group): number for number, group in enumerate(optimizer.param_groups)}
    of_groups = schedule.upcoming(updates)
    return _core.tensor(of_groups[:, [numbers[id(group)] for group, _ in members(optimizer)]])
