"""A schedule that follows a measured value."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ferrograd._core import ConfigError, Tensor
from ferrograd.checks import check_int
from ferrograd.optim.lr_scheduler.base import LRScheduler, check_optimizer, per_group
from ferrograd.optim.optimizer import Optimizer, check_range

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` when a value has not improved for more than `patience` steps.

    In `Trainer.fit` the value is the validation's loss, or the training's where there is no validation; with
    ``mode="max"`` the accuracy takes the place of the loss.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    mode : {"min", "max"}, default "min"
        Whether less or more is better.
    factor : float, default 0.1
        Factor, in [0, 1).
    patience : int, default 10
        Steps without improvement that are borne.
    threshold : float, default 0.0001
        What counts as an improvement.
    threshold_mode : {"rel", "abs"}, default "rel"
        Whether the threshold is a share of the best value or a difference to it.
    cooldown : int, default 0
        Steps after a reduction that are not counted.
    min_lr : float, or list of float, default 0
        The smallest rate, for all groups or for each.
    eps : float, default 1e-8
        A smaller reduction is not made.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.optim import lr_scheduler
    >>> optimizer = fg.optim.SGD([fg.tensor([1.0], requires_grad=True)], lr=0.8)
    >>> schedule = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (1.0, 1.0, 1.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.4]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        self.optimizer = check_optimizer(name, optimizer)
        if mode not in ("min", "max"):
            raise ConfigError(f"{name}: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ConfigError(f"{name}: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        check_range(name, "factor", factor, high=1.0)
        check_int(f"{name}: patience", patience, low=0)
        check_range(name, "threshold", threshold)
        check_int(f"{name}: cooldown", cooldown, low=0)
        check_range(name, "eps", eps)
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lrs = per_group(name, "min_lr", min_lr, optimizer)
        self.eps = eps
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self._last_lr = self._rates()

    def step(self, metrics: float | Tensor | None = None) -> None:
        """Look at the next value, and reduce the rates if it is time.

        Parameters
        ----------
        metrics : float
            The measured value; NaN is no improvement.

        Raises
        ------
        ConfigError
            If it is no number.
        """
        if not hasattr(metrics, "__float__"):
            raise ConfigError(f"ReduceLROnPlateau: metrics must be a number, got {metrics!r}")
        value = float(metrics)  # type: ignore[arg-type]
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            reduced = []
            for rate, low in zip(self._rates(), self.min_lrs, strict=True):
                less = max(rate * self.factor, low)
                reduced.append(less if rate - less > self.eps else rate)
            self._assign(reduced)
        self._last_lr = self._rates()

    def follow(self, logs: Mapping[str, Any]) -> None:
        """Step with the value of an epoch's logs.

        Raises
        ------
        ConfigError
            If the logs have no such value.
        """
        name = "loss" if self.mode == "min" else "accuracy"
        value = logs.get(f"val_{name}", logs.get(name))
        if value is None:
            raise ConfigError(f"ReduceLROnPlateau: mode 'max' needs an accuracy, got the logs {sorted(logs)}")
        self.step(value)

    def _is_better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "abs":
            return sign * value < sign * self.best - self.threshold
        return sign * value < sign * self.best * (1.0 - sign * self.threshold)
