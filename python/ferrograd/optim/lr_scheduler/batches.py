"""Schedules that are stepped after each batch; their rates for a whole epoch are computed at once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ferrograd._core import ConfigError
from ferrograd._typing import Array
from ferrograd.checks import check_bool, check_int
from ferrograd.optim.lr_scheduler.base import LRScheduler, check_optimizer, per_group
from ferrograd.optim.optimizer import Optimizer, check_range

__all__ = ["CyclicLR", "OneCycleLR", "WarmupCosineLR"]


class _BatchLR(LRScheduler, ABC):
    """A schedule that knows each step's rates without those before."""

    per_batch = True

    @abstractmethod
    def _at(self, steps: Array) -> Array:
        """Return rates and momenta at these steps, of shape (steps, groups, 2)."""

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps, and set the momenta."""
        rates, momenta = self._at(np.array([self.last_epoch]))[0].T
        for group, momentum in zip(self.optimizer.param_groups, momenta, strict=True):
            if not math.isnan(momentum):
                _set_momentum(group, float(momentum))
        return [float(rate) for rate in rates]

    def _first(self) -> list[float]:
        return self.get_lr()

    def upcoming(self, steps: int) -> Array:
        """Return rates and momenta of this and the following steps, of shape (steps, groups, 2)."""
        return self._at(np.arange(self.last_epoch, self.last_epoch + steps))

    def advance(self, steps: int) -> None:
        """Make several steps."""
        self.check_steps(steps)
        self.last_epoch += steps
        self._assign(self.get_lr())


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _momenta(
    owner: str, optimizer: Optimizer, base_momentum: Any, max_momentum: Any
) -> tuple[list[float], list[float]]:
    """Return the smallest and the largest momentum of each group."""
    if not {"momentum", "betas"} & set(optimizer.defaults):
        kind = type(optimizer).__name__
        raise ConfigError(f"{owner}: cycle_momentum needs an optimizer with momentum or betas, got {kind}")
    low = per_group(owner, "base_momentum", base_momentum, optimizer, high=1.0)
    return low, per_group(owner, "max_momentum", max_momentum, optimizer, high=1.0)


def _stack(rates: list[Array], momenta: list[Array] | None) -> Array:
    found = np.full((len(rates[0]), len(rates), 2), np.nan)
    found[:, :, 0] = np.stack(rates, axis=1)
    if momenta is not None:
        found[:, :, 1] = np.stack(momenta, axis=1)
    return found


class OneCycleLR(_BatchLR):
    """One rise from ``max_lr / div_factor`` to `max_lr`, and one fall to a small fraction of the first rate.

    The rise ends ``pct_start total_steps - 1`` steps after the start, the fall at ``total_steps - 1`` with
    ``max_lr / div_factor / final_div_factor``. The momentum goes the other way. Stepped after each batch
    (Smith and Topin, "Super-convergence", 2018).

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    max_lr : float, or list of float
        The largest rate, for all groups or for each.
    total_steps : int, optional
        Length of the cycle; by default ``epochs * steps_per_epoch``.
    epochs, steps_per_epoch : int, optional
        Used where there is no `total_steps`.
    pct_start : float, default 0.3
        Share of the steps in which the rate rises, in [0, 1].
    anneal_strategy : {"cos", "linear"}, default "cos"
        Shape of rise and fall.
    cycle_momentum : bool, default True
        Whether the momentum (or the first beta) falls from `max_momentum` to `base_momentum` and rises again.
    base_momentum, max_momentum : float, or list of float, default 0.85 and 0.95
        The smallest and the largest momentum.
    div_factor : float, default 25.0
        The first rate is ``max_lr / div_factor``.
    final_div_factor : float, default 10000.0
        The last rate is the first over `final_div_factor`.
    three_phase : bool, default False
        Whether the fall stops at the first rate, as long after the peak as the rise took, and goes on from
        there.
    last_epoch : int, default -1
        Steps made before, where an optimizer with ``"initial_lr"`` in its groups is taken over.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.optim import lr_scheduler
    >>> p = fg.tensor([1.0], requires_grad=True)
    >>> optimizer = fg.optim.SGD([p], lr=0.1)
    >>> schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10, cycle_momentum=False)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.04, 0.52, 1.0, 0.9505]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        name = "OneCycleLR"
        check_optimizer(name, optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ConfigError(f"{name}: needs total_steps, or epochs and steps_per_epoch")
            check_int(f"{name}: epochs", epochs, low=1)
            check_int(f"{name}: steps_per_epoch", steps_per_epoch, low=1)
            total_steps = epochs * steps_per_epoch
        check_int(f"{name}: total_steps", total_steps, low=1)
        check_range(name, "pct_start", pct_start, high=1.0, has_high=True)
        if anneal_strategy not in ("cos", "linear"):
            raise ConfigError(f"{name}: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        check_bool(f"{name}: cycle_momentum", cycle_momentum)
        check_bool(f"{name}: three_phase", three_phase)
        for option, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            check_range(name, option, value)
            if value == 0:
                raise ConfigError(f"{name}: {option} must be above 0")
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.max_lrs = per_group(name, "max_lr", max_lr, optimizer)
        self.initial_lrs = [rate / div_factor for rate in self.max_lrs]
        self.min_lrs = [rate / final_div_factor for rate in self.initial_lrs]
        if cycle_momentum:
            self.momenta = _momenta(name, optimizer, base_momentum, max_momentum)
        # Where phases begin and end: the rise, perhaps the way back, the fall.
        ends = [pct_start * total_steps - 1.0]
        if three_phase:
            ends.append(2.0 * pct_start * total_steps - 2.0)
        self.ends = [0.0, *ends, total_steps - 1.0]
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, self.initial_lrs, strict=True):
                group["initial_lr"] = rate
        super().__init__(optimizer, last_epoch)

    def check_steps(self, steps: int) -> None:
        """Raise `ConfigError` if so many further steps are more than `total_steps`."""
        if self.last_epoch + steps > self.total_steps:
            raise ConfigError(
                f"OneCycleLR: total_steps is {self.total_steps}, got {self.last_epoch + steps} steps"
            )

    def _at(self, steps: Array) -> Array:
        rates, momenta = [], []
        for number, (first, peak, last) in enumerate(
            zip(self.initial_lrs, self.max_lrs, self.min_lrs, strict=True)
        ):
            middle = [first] if len(self.ends) == 4 else []
            rates.append(self._anneal(steps, [first, peak, *middle, last]))
            if self.cycle_momentum:
                low, high = self.momenta[0][number], self.momenta[1][number]
                momenta.append(self._anneal(steps, [high, low, *(high for _ in middle), high]))
        return _stack(rates, momenta or None)

    def _anneal(self, steps: Array, values: list[float]) -> Array:
        # The phase of a step is the first that does not end before it; the last goes on.
        phase = np.searchsorted(self.ends[1:-1], steps)
        start, end = np.array(self.ends)[phase], np.array(self.ends)[phase + 1]
        # A phase may have no length: its end is its start.
        share = (steps - start) / np.where(end == start, 1.0, end - start)
        before, after = np.array(values)[phase], np.array(values)[phase + 1]
        is_linear = self.anneal_strategy == "linear"
        left: Array = 1.0 - share if is_linear else (1.0 + np.cos(math.pi * share)) / 2.0
        found: Array = after + (before - after) * left
        return found


class CyclicLR(_BatchLR):
    """The rate goes up and down between `base_lr` and `max_lr`, in straight lines; momentum the other way.

    With ``c = floor(1 + t / (up + down))`` cycles begun, the height of a cycle is ``max_lr - base_lr``, times
    1 ("triangular"), ``1 / 2^(c - 1)`` ("triangular2") or ``gamma^t`` ("exp_range"). Stepped after each batch
    (Smith, "Cyclical learning rates", 2017).

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    base_lr, max_lr : float, or list of float
        The smallest and the largest rate, for all groups or for each.
    step_size_up : int, default 2000
        Steps on the way up.
    step_size_down : int, optional
        Steps on the way down; by default as many as up.
    mode : {"triangular", "triangular2", "exp_range"}, default "triangular"
        Factor of the height.
    gamma : float, default 1.0
        As above.
    scale_fn : callable, optional
        Takes the place of `mode`; no part of `state_dict`.
    scale_mode : {"cycle", "iterations"}, default "cycle"
        Whether `scale_fn` is called with c or with t.
    cycle_momentum : bool, default True
        Whether the momentum (or the first beta) goes from `max_momentum` to `base_momentum` and back.
    base_momentum, max_momentum : float, or list of float, default 0.8 and 0.9
        The smallest and the largest momentum.
    last_epoch : int, default -1
        Steps made before, where an optimizer with ``"initial_lr"`` in its groups is taken over.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.optim import lr_scheduler
    >>> p = fg.tensor([1.0], requires_grad=True)
    >>> optimizer = fg.optim.SGD([p], lr=0.1)
    >>> schedule = lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, step_size_up=2, cycle_momentum=False)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.1, 0.3, 0.5, 0.3]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        name = "CyclicLR"
        check_optimizer(name, optimizer)
        check_int(f"{name}: step_size_up", step_size_up, low=1)
        check_int(
            f"{name}: step_size_down", step_size_up if step_size_down is None else step_size_down, low=1
        )
        if mode not in ("triangular", "triangular2", "exp_range"):
            raise ConfigError(
                f"{name}: mode must be 'triangular', 'triangular2' or 'exp_range', got {mode!r}"
            )
        if scale_mode not in ("cycle", "iterations"):
            raise ConfigError(f"{name}: scale_mode must be 'cycle' or 'iterations', got {scale_mode!r}")
        if scale_fn is not None and not callable(scale_fn):
            raise ConfigError(f"{name}: scale_fn must be a function, got {scale_fn!r}")
        check_range(name, "gamma", gamma)
        check_bool(f"{name}: cycle_momentum", cycle_momentum)
        self.step_size_up = step_size_up
        self.step_size_down = step_size_up if step_size_down is None else step_size_down
        self.mode = mode
        self.gamma = gamma
        self.scale_fn = scale_fn
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        base_lrs = per_group(name, "base_lr", base_lr, optimizer)
        self.max_lrs = per_group(name, "max_lr", max_lr, optimizer)
        if cycle_momentum:
            self.momenta = _momenta(name, optimizer, base_momentum, max_momentum)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, base_lrs, strict=True):
                group["initial_lr"] = rate
        super().__init__(optimizer, last_epoch)

    _unsaved = (*LRScheduler._unsaved, "scale_fn")

    def _at(self, steps: Array) -> Array:
        total = float(self.step_size_up + self.step_size_down)
        ratio = self.step_size_up / total
        cycle = np.floor(1.0 + steps / total)
        place = 1.0 + steps / total - cycle
        height = np.where(place <= ratio, place / ratio, (place - 1.0) / (ratio - 1.0))
        height = height * self._scale(steps, cycle)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        rates = [low + (high - low) * height for low, high in pairs]
        if not self.cycle_momentum:
            return _stack(rates, None)
        return _stack(rates, [high - (high - low) * height for low, high in zip(*self.momenta, strict=True)])

    def _scale(self, steps: Array, cycle: Array) -> Array:
        if self.scale_fn is not None:
            arguments = cycle if self.scale_mode == "cycle" else steps
            return np.array([self.scale_fn(argument) for argument in arguments.tolist()])
        if self.mode == "triangular2":
            return 0.5 ** (cycle - 1.0)
        return self.gamma ** steps.astype(np.float64) if self.mode == "exp_range" else np.ones(len(steps))


class WarmupCosineLR(_BatchLR):
    """A straight rise to the first rate, then half a cosine down to `eta_min`.

    ``lr_t = lr_0 (s + (1 - s) t / warmup_steps)`` with the start factor s, then ``eta_min + (lr_0 - eta_min)
    (1 + cos(pi (t - warmup_steps) / (total_steps - warmup_steps))) / 2``; after `total_steps` it stays at
    `eta_min`. Stepped after each batch; PyTorch has no schedule of this name.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    warmup_steps : int
        Steps of the rise; 0 for none.
    total_steps : int
        Steps of rise and fall, more than `warmup_steps`.
    start_factor : float, default 0.0
        What the first step's rate is multiplied with, in [0, 1].
    eta_min : float, default 0.0
        The last rate.
    last_epoch : int, default -1
        Steps made before, where an optimizer with ``"initial_lr"`` in its groups is taken over.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.optim import lr_scheduler
    >>> p = fg.tensor([1.0], requires_grad=True)
    >>> optimizer = fg.optim.SGD([p], lr=0.8)
    >>> schedule = lr_scheduler.WarmupCosineLR(optimizer, warmup_steps=2, total_steps=4, start_factor=0.5)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.4, 0.6, 0.8, 0.4]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        start_factor: float = 0.0,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        name = "WarmupCosineLR"
        check_int(f"{name}: warmup_steps", warmup_steps, low=0)
        check_int(f"{name}: total_steps", total_steps, low=warmup_steps + 1)
        check_range(name, "start_factor", start_factor, high=1.0, has_high=True)
        check_range(name, "eta_min", eta_min)
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.start_factor = start_factor
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _at(self, steps: Array) -> Array:
        rise = self.start_factor + (1.0 - self.start_factor) * steps / max(self.warmup_steps, 1)
        share = (steps - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        fall = (1.0 + np.cos(math.pi * np.clip(share, 0.0, 1.0))) / 2.0
        is_rising = steps < self.warmup_steps
        return _stack(
            [
                np.where(is_rising, base * rise, self.eta_min + (base - self.eta_min) * fall)
                for base in self.base_lrs
            ],
            None,
        )
