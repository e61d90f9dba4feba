"""Schedules of the estimators' rates: those of `ferrograd.optim.lr_scheduler`, by name."""

import inspect
from typing import Any

import numpy as np

from ferrograd import _core, optim
from ferrograd._core import ConfigError, Tensor
from ferrograd.optim import lr_scheduler
from ferrograd.sklearn.activations import refused

__all__ = ["Rates", "schedule_of"]

_KINDS: dict[str, type[lr_scheduler.LRScheduler]] = {
    "constant": lr_scheduler.LRScheduler,
    "cosine": lr_scheduler.WarmupCosineLR,
    "onecycle": lr_scheduler.OneCycleLR,
    "plateau": lr_scheduler.ReduceLROnPlateau,
}
# What follows from the fit: its optimizer, its length, a loss as the value to follow.
_SET = {"optimizer", "last_epoch", "total_steps", "epochs", "steps_per_epoch", "mode"}
# Updates whose rates are handed to the native side at a time.
_UPDATES = 1 << 18

_Schedule = tuple[str, dict[str, Any]]


def schedule_of(estimator: Any) -> _Schedule | None:
    """Return name and options of an estimator's schedule; None where the rate has none.

    Raises
    ------
    InvalidParameterError
        If there is none of that name, or it has no such option, or `learning_rate` is a schedule too.
    """
    owner, given = type(estimator).__name__, estimator.lr_schedule
    if given is None:
        return None
    name, options = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
    if not isinstance(name, str) or name not in _KINDS or not isinstance(options, dict):
        names = ", ".join(map(repr, _KINDS))
        raise refused(
            owner, "lr_schedule", f"one of {names}, one of them with a dict of its options, or None", given
        )
    known = [option for option in inspect.signature(_KINDS[name]).parameters if option not in _SET]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise refused(owner, "lr_schedule", f"{name!r} with options among {known}", unknown[0])
    if estimator.solver == "sgd" and estimator.learning_rate != "constant":
        raise refused(owner, "lr_schedule", f"None with learning_rate={estimator.learning_rate!r}", given)
    return None if name == "constant" else (name, dict(options))


class Rates:
    """The rates of the updates to come, held as an optimizer of `ferrograd.optim` holds them.

    Parameters
    ----------
    estimator : BaseMultilayerPerceptron
        Names the schedule.
    own : Sgd or Adam
        The state of the estimator's optimizer; it goes on in the schedule that it has begun.
    trained : list of Tensor
        What is trained.
    updates : int
        Updates in an epoch.
    """

    def __init__(self, estimator: Any, own: Any, trained: list[Tensor], updates: int) -> None:
        self.own, self.updates = own, updates
        rate = own.learning_rate_init
        if hasattr(own, "beta_1"):
            self.optimizer: optim.Optimizer = optim.Adam(trained, lr=rate, betas=(own.beta_1, own.beta_2))
        else:
            # It holds no momentum of 1, which scikit-learn allows.
            self.optimizer = optim.SGD(trained, lr=rate, momentum=min(own.momentum, 1 - 2**-52))
        self.schedule: lr_scheduler.LRScheduler | None = None
        found = schedule_of(estimator)
        if own.lr_schedule is None and found is not None:
            total = estimator.max_iter * updates
            own.lr_schedule = {"name": found[0], "options": found[1], "total": total, "state": None}
        if own.lr_schedule is not None:
            self.schedule = self._made(type(estimator).__name__, **own.lr_schedule)
        if own.lr_schedule is None or own.lr_schedule["state"] is not None:
            self._group["lr"] = own.rate
        self._keep()

    def _made(
        self, owner: str, name: str, options: dict[str, Any], total: int, state: Any
    ) -> lr_scheduler.LRScheduler:
        given = dict(options)
        if name == "cosine":
            given = {"warmup_steps": total // 10, "total_steps": total, **given}
        elif name == "onecycle":
            has_momentum = hasattr(self.own, "beta_1") or self.own.momentum > 0
            own = {"max_lr": self.own.learning_rate_init, "cycle_momentum": has_momentum}
            given = {**own, "total_steps": total, **given}
            if given["cycle_momentum"] is True and not has_momentum:
                expected = "'onecycle' without cycle_momentum where momentum is 0"
                raise refused(owner, "lr_schedule", expected, options)
        try:
            schedule: lr_scheduler.LRScheduler = _KINDS[name](self.optimizer, **given)
        except (ConfigError, TypeError) as error:
            expected = f"{name!r} with options that it takes ({error})"
            raise refused(owner, "lr_schedule", expected, options) from None
        if state is not None:
            schedule.load_state_dict(state)
        return schedule

    @property
    def _group(self) -> dict[str, Any]:
        return self.optimizer.param_groups[0]

    def _keep(self) -> None:
        """Let the state have the rate, and what the schedule remembers."""
        self.own.rate = float(self._group["lr"])
        if self.schedule is not None:
            self.own.lr_schedule = {**self.own.lr_schedule, "state": dict(self.schedule.state_dict())}

    @property
    def is_by_batch(self) -> bool:
        """Whether each update has a rate of its own, up to the last of `max_iter` epochs."""
        return self.schedule is not None and self.schedule.per_batch

    @property
    def is_by_epoch(self) -> bool:
        """Whether the rate follows the loss of each epoch."""
        return self.schedule is not None and not self.schedule.per_batch

    def hand_over(self, engine: _core.Engine, epochs: int) -> int:
        """Set the engine's rates of at most so many epochs; return of how many they are."""
        if self.schedule is None or not self.schedule.per_batch:
            return epochs
        epochs = max(1, min(epochs, _UPDATES // self.updates))
        try:
            self.schedule.check_steps(self.updates)
        except ConfigError as error:
            raise ConfigError(f"lr_schedule: {error}; it ends after max_iter epochs") from None
        # A rule for weights, one for what else is trained.
        rates = np.repeat(self.schedule.upcoming(epochs * self.updates), 2, axis=1)
        engine.set_rules(self.own.rules(), _core.tensor(rates))
        return epochs

    def advance(self, updates: int) -> None:
        """Take note of updates."""
        if self.schedule is not None and self.schedule.per_batch:
            self.schedule.advance(updates)
            self._keep()
        else:
            self._group["lr"] = self.own.rate

    def follow(self, logs: dict[str, float]) -> None:
        """Look at what an epoch has given."""
        if self.is_by_epoch:
            assert self.schedule is not None
            self.schedule.follow(logs)

    def take_over(self, engine: _core.Engine) -> None:
        """Let the engine have a rate that was changed after an epoch."""
        if self._group["lr"] != self.own.rate:
            self._keep()
            engine.set_rules(self.own.rules())
        elif self.schedule is not None:
            self._keep()
