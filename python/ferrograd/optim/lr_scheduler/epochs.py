"""Schedules that are stepped after each epoch."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from ferrograd._core import ConfigError
from ferrograd.checks import as_list, check_int
from ferrograd.optim.lr_scheduler.base import LRScheduler, check_optimizer
from ferrograd.optim.optimizer import Optimizer, check_range

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "PolynomialLR",
    "StepLR",
]

_Factor: TypeAlias = Callable[[int], float]


class _FunctionLR(LRScheduler):
    """A schedule by functions of the step, one for all groups or one for each."""

    _unsaved = (*LRScheduler._unsaved, "lr_lambdas")

    def __init__(
        self, optimizer: Optimizer, lr_lambda: _Factor | Sequence[_Factor], last_epoch: int = -1
    ) -> None:
        groups = len(check_optimizer(type(self).__name__, optimizer).param_groups)
        given = [lr_lambda] * groups if callable(lr_lambda) else lr_lambda
        is_list = isinstance(given, list | tuple) and len(given) == groups
        if not is_list or not all(callable(function) for function in given):
            raise ConfigError(f"{type(self).__name__}: lr_lambda must be a function, or one for each group")
        self.lr_lambdas = list(given)
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> list[float]:
        return [float(function(self.last_epoch)) for function in self.lr_lambdas]


class LambdaLR(_FunctionLR):
    """The first rate times a function of the number of steps: ``lr_t = lr_0 f(t)``.

    A function is no part of `state_dict`.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    lr_lambda : callable, or list of callable
        Called with the number of steps made; one for all groups, or one for each.
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
    >>> schedule = lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.4, 0.2667, 0.2]
    """

    def get_lr(self) -> list[float]:
        """Return the first rates times the functions."""
        return [rate * factor for rate, factor in zip(self.base_lrs, self._factors(), strict=True)]

    def _first(self) -> list[float]:
        return self.get_lr()


class MultiplicativeLR(_FunctionLR):
    """The rate before times a function of the number of steps: ``lr_t = lr_{t-1} f(t)``.

    A function is no part of `state_dict`.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    lr_lambda : callable, or list of callable
        Called with the number of steps made; one for all groups, or one for each.
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
    >>> schedule = lr_scheduler.MultiplicativeLR(optimizer, lambda t: 0.5)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.4, 0.2, 0.1]
    """

    def get_lr(self) -> list[float]:
        """Return the present rates times the functions."""
        if self._is_initial:
            return self._rates()
        return [rate * factor for rate, factor in zip(self._rates(), self._factors(), strict=True)]

    def _first(self) -> list[float]:
        # In a `SequentialLR` it goes on from the part before.
        return self._rates()


class StepLR(LRScheduler):
    """Times `gamma` every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    step_size : int
        Steps between two changes, at least 1.
    gamma : float, default 0.1
        Factor.
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
    >>> schedule = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.8, 0.4, 0.4]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        check_int("StepLR: step_size", step_size, low=1)
        check_range("StepLR", "gamma", gamma)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        changes = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return [rate * self.gamma if changes else rate for rate in self._rates()]


class MultiStepLR(LRScheduler):
    """Times `gamma` at each milestone.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    milestones : iterable of int
        Numbers of steps; one that occurs twice counts twice.
    gamma : float, default 0.1
        Factor.
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
    >>> schedule = lr_scheduler.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.4, 0.4, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        found: list[int] = as_list("MultiStepLR: milestones", "integers", milestones)
        for milestone in found:
            check_int("MultiStepLR: milestones", milestone, low=0)
        self.milestones = sorted(found)
        check_range("MultiStepLR", "gamma", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [rate * factor for rate in self._rates()]


class ConstantLR(LRScheduler):
    """Times `factor` for the first `total_iters` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    factor : float, default 1/3
        Factor, in (0, 1].
    total_iters : int, default 5
        Steps until it ends.
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
    >>> schedule = lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.4, 0.4, 0.8, 0.8]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        check_range("ConstantLR", "factor", factor, high=1.0, has_high=True)
        if factor == 0:
            raise ConfigError("ConstantLR: factor must be above 0: the rates could not come back")
        check_int("ConstantLR: total_iters", total_iters, low=0)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._rates()]
        if self.last_epoch != self.total_iters:
            return self._rates()
        return [rate * (1.0 / self.factor) for rate in self._rates()]

    def _first(self) -> list[float]:
        return [rate * self.factor for rate in self.base_lrs]


class LinearLR(LRScheduler):
    """A factor that goes from `start_factor` to `end_factor` in `total_iters` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    start_factor : float, default 1/3
        Factor at the start, in (0, 1].
    end_factor : float, default 1.0
        Factor at the end, in [0, 1].
    total_iters : int, default 5
        Steps from one to the other.
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
    >>> schedule = lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.2, 0.4, 0.6, 0.8]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        check_range("LinearLR", "start_factor", start_factor, high=1.0, has_high=True)
        if start_factor == 0:
            raise ConfigError("LinearLR: start_factor must be above 0")
        check_range("LinearLR", "end_factor", end_factor, high=1.0, has_high=True)
        check_int("LinearLR: total_iters", total_iters, low=1)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates()]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return [rate * (1.0 + rise / before) for rate in self._rates()]

    def _first(self) -> list[float]:
        return [rate * self.start_factor for rate in self.base_lrs]


class ExponentialLR(LRScheduler):
    """Times `gamma` at every step.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    gamma : float
        Factor.
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
    >>> schedule = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.4, 0.2, 0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gamma: float,
        last_epoch: int = -1,
    ) -> None:
        check_range("ExponentialLR", "gamma", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        return self._rates() if self._is_initial else [rate * self.gamma for rate in self._rates()]


class PolynomialLR(LRScheduler):
    """A power of the share of steps that are left: ``lr_t = lr_0 (1 - t / total_iters)^power``.

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    total_iters : int, default 5
        Steps until the rate is 0.
    power : float, default 1.0
        The power.
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
    >>> schedule = lr_scheduler.PolynomialLR(optimizer, total_iters=4)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.6, 0.4, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        check_int("PolynomialLR: total_iters", total_iters, low=1)
        check_range("PolynomialLR", "power", power)
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        left = 1.0 - self.last_epoch / self.total_iters
        before = 1.0 - (self.last_epoch - 1) / self.total_iters
        return [rate * (left / before) ** self.power for rate in self._rates()]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine: ``lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi t / T_max)) / 2``.

    After `T_max` steps the rate rises again. It follows from the rate before, so that it goes together with
    other schedules (Loshchilov and Hutter, "SGDR", 2017).

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    T_max : int
        Steps from the first rate to `eta_min`.
    eta_min : float, default 0.0
        The smallest rate.
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
    >>> schedule = lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.6828, 0.4, 0.1172]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        check_int("CosineAnnealingLR: T_max", T_max, low=1)
        check_range("CosineAnnealingLR", "eta_min", eta_min)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        if self._is_initial:
            return self._rates()
        low, angle = self.eta_min, math.pi / self.T_max
        # Where the step before was at the smallest rate there is nothing to multiply.
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            pairs = zip(self._rates(), self.base_lrs, strict=True)
            return [rate + (base - low) * (1.0 - math.cos(angle)) / 2.0 for rate, base in pairs]
        factor = (1.0 + math.cos(angle * self.last_epoch)) / (1.0 + math.cos(angle * (self.last_epoch - 1)))
        return [factor * (rate - low) + low for rate in self._rates()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine again and again: ``lr = eta_min + (lr_0 - eta_min) (1 + cos(pi T_cur / T_i)) / 2``.

    T_cur counts the steps since the last restart; the i-th period lasts ``T_i = T_0 T_mult^i`` steps
    (Loshchilov and Hutter, "SGDR", 2017).

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    T_0 : int
        Steps of the first period.
    T_mult : int, default 1
        Factor of the next period's length.
    eta_min : float, default 0.0
        The smallest rate.
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
    >>> schedule = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)
    >>> schedule.upcoming(4)[:, 0, 0].round(4).tolist()
    [0.8, 0.4, 0.8, 0.4]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        check_int("CosineAnnealingWarmRestarts: T_0", T_0, low=1)
        check_int("CosineAnnealingWarmRestarts: T_mult", T_mult, low=1)
        check_range("CosineAnnealingWarmRestarts", "eta_min", eta_min)
        self.T_0 = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        position, period = self.last_epoch, self.T_0
        while self.T_mult > 1 and position >= period:
            position -= period
            period *= self.T_mult
        fall = (1.0 + math.cos(math.pi * (position % period) / period)) / 2.0
        return [self.eta_min + (base - self.eta_min) * fall for base in self.base_lrs]
