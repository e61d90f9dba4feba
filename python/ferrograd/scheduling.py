"""How a trainer and a schedule go together: what is checked before a fit, the rates of an epoch's batches."""

from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.compiled import members
from ferrograd.optim import Optimizer
from ferrograd.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["batches_of", "check_schedule", "rates_of"]


def batches_of(rows: int, batch: int, drop_last: bool) -> int:
    """Return the number of batches of an epoch."""
    return rows // batch if drop_last else -(-rows // batch)


def check_schedule(schedule: Any, optimizer: Optimizer, epochs: int, batches: int) -> None:
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
    schedule.check_steps(epochs * batches if schedule.per_batch else epochs)


def rates_of(schedule: LRScheduler, optimizer: Optimizer, batches: int) -> Tensor:
    """Return rates and momenta of the next batches, of shape (batches, trained parameters, 2)."""
    numbers = {id(group): number for number, group in enumerate(optimizer.param_groups)}
    of_groups = schedule.upcoming(batches)
    return _core.tensor(of_groups[:, [numbers[id(group)] for group, _ in members(optimizer)]])
