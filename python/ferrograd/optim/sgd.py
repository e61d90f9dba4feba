"""Stochastic gradient descent, with momentum if asked for."""

from collections.abc import Mapping
from typing import Any

from ferrograd._core import ConfigError, Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_range, check_rates, floats

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent: ``d = g + weight_decay p``, ``v = momentum v + (1 - dampening) d``, ``p = p - lr v``.

    The first step sets ``v = d``. With `nesterov` the step is ``p = p - lr (d + momentum v)``, without
    momentum ``p = p - lr d`` (Sutskever et al., "On the importance of initialization and momentum", 2013, in
    PyTorch's form: the rate stays outside v).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.001
        Rate of learning, at least 0.
    momentum : float, default 0
        Share of v that is kept, at least 0.
    dampening : float, default 0
        Share of the gradient that is left out of v.
    weight_decay : float, default 0
        Factor of p added to the gradient; of every parameter, biases too.
    nesterov : bool, default False
        Whether to look ahead.

    Raises
    ------
    ConfigError
        If an option is out of range, or `nesterov` is asked for without momentum or with dampening.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], requires_grad=True)
    >>> optimizer = fg.optim.SGD([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> p.tolist()
    [0.5]
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.001,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    buffers = ("momentum_buffer",)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("SGD", group, "lr", "momentum", "weight_decay")
        check_range("SGD", "dampening", group["dampening"], high=1.0, has_high=True)
        check_flag("SGD", "nesterov", group["nesterov"])
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ConfigError("SGD: nesterov needs momentum above 0 and dampening 0")

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the momentum buffer, where there is momentum."""
        return self.buffers if group["momentum"] != 0 else ()

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        return {
            "kind": "sgd",
            **floats(group, "lr", "momentum", "dampening", "weight_decay"),
            "nesterov": group["nesterov"],
            "first_step": self.steps_of(param) == 0,
            "velocity": False,
        }
