"""Rates divided by the root of squared gradients."""

from collections.abc import Mapping
from typing import Any

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_range, check_rates, floats

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


class Adagrad(Optimizer):
    """Rates divided by the root of all squares: ``s = s + g^2``, ``p = p - lr_t g / (sqrt(s) + eps)``.

    The rate falls as ``lr_t = lr / (1 + (t - 1) lr_decay)`` (Duchi, Hazan and Singer, "Adaptive subgradient
    methods", 2011).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.01
        Rate of learning, at least 0.
    lr_decay : float, default 0
        How fast the rate falls, at least 0.
    weight_decay : float, default 0
        Factor of p added to the gradient.
    initial_accumulator_value : float, default 0
        What s starts with, at least 0.
    eps : float, default 1e-10
        Added to the root.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.Adagrad([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.75
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        }
        super().__init__(params, defaults)

    buffers = ("sum",)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("Adagrad", group, *self.defaults)

    def fresh_buffer(self, name: str, group: Mapping[str, Any], param: Tensor) -> Tensor:
        """Return the sum as it starts."""
        return _core.full(param.shape, float(group["initial_accumulator_value"]), dtype=param.dtype)

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        options = floats(group, "lr", "lr_decay", "weight_decay", "eps")
        return {"kind": "adagrad", **options, "step": self.steps_of(param) + 1}


class Adadelta(Optimizer):
    """Steps in the parameters' own units: ``d = sqrt(u + eps) / sqrt(v + eps) g``, ``p = p - lr d``.

    ``v = rho v + (1 - rho) g^2`` and, after the step's d is known, ``u = rho u + (1 - rho) d^2`` (Zeiler,
    "ADADELTA", 2012).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 1.0
        Factor of the step, at least 0.
    rho : float, default 0.9
        Decay of both means, in [0, 1].
    eps : float, default 1e-6
        Added to both means.
    weight_decay : float, default 0
        Factor of p added to the gradient.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.Adadelta([p])
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.996838
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    buffers = ("square_avg", "acc_delta")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("Adadelta", group, "lr", "eps", "weight_decay")
        check_range("Adadelta", "rho", group["rho"], high=1.0, has_high=True)

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        return {"kind": "adadelta", **floats(group, "lr", "rho", "eps", "weight_decay")}


class RMSprop(Optimizer):
    """Rates divided by the root of the mean square: ``v = a v + (1 - a) g^2``, ``d = g / (sqrt(v) + eps)``.

    The step is ``p = p - lr d``; with `momentum` ``b = momentum b + d`` takes the place of d. Where
    `centered`, the variance ``v - m^2``, ``m = a m + (1 - a) g``, takes the place of v (Hinton, lecture 6 of
    "Neural networks for machine learning", 2012; Graves, 2013).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.01
        Rate of learning, at least 0.
    alpha : float, default 0.99
        The decay a, in [0, 1).
    eps : float, default 1e-8
        Added to the root.
    weight_decay : float, default 0
        Factor of p added to the gradient.
    momentum : float, default 0
        Share of b that is kept, at least 0.
    centered : bool, default False
        Whether to divide by the standard deviation instead of the root mean square.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.RMSprop([p], lr=0.05)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.5
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
        }
        super().__init__(params, defaults)

    buffers = ("square_avg", "grad_avg", "momentum_buffer")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("RMSprop", group, "lr", "eps", "weight_decay", "momentum")
        check_range("RMSprop", "alpha", group["alpha"], high=1.0)
        check_flag("RMSprop", "centered", group["centered"])

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the mean square, the mean where centred, and the momentum buffer where there is momentum."""
        used = (True, group["centered"], group["momentum"] != 0)
        return tuple(name for name, is_used in zip(self.buffers, used, strict=True) if is_used)

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        options = floats(group, "lr", "alpha", "eps", "weight_decay", "momentum")
        return {"kind": "rmsprop", **options, "centered": group["centered"]}
