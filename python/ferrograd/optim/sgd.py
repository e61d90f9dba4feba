"""Stochastic gradient descent, with momentum if asked for."""

from collections.abc import Mapping
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_range

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

    state_names = ("step", "momentum_buffer")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        for name in ("lr", "momentum", "weight_decay"):
            check_range("SGD", name, group[name])
        check_range("SGD", "dampening", group["dampening"], high=1.0, has_high=True)
        check_flag("SGD", "nesterov", group["nesterov"])
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ConfigError("SGD: nesterov needs momentum above 0 and dampening 0")

    def init_state(self, param: Tensor) -> dict[str, Any]:
        """Return the state: ``momentum_buffer`` and ``step``, or nothing where there is no momentum."""
        state = self.state.get(param)
        if state is not None:
            return state
        if self._group_of(param)["momentum"] == 0:
            return {}
        return self.state.setdefault(param, {"momentum_buffer": _core.zeros_like(param), "step": 0})

    def update_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Update the parameters in place."""
        options: dict[str, Any] = {
            name: float(group[name]) for name in ("lr", "momentum", "dampening", "weight_decay")
        }
        options["nesterov"] = group["nesterov"]
        if group["momentum"] == 0:
            _core.sgd_update(params, grads, None, **options, first_step=False)
            return
        states = [self.init_state(param) for param in params]
        # A parameter may get its first gradient later than others, as after unfreezing.
        for first_step in (True, False):
            rows = [row for row, state in enumerate(states) if (state["step"] == 0) == first_step]
            if rows:
                _core.sgd_update(
                    [params[row] for row in rows],
                    [grads[row] for row in rows],
                    [states[row]["momentum_buffer"] for row in rows],
                    **options,
                    first_step=first_step,
                )
        for state in states:
            state["step"] += 1

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the momentum buffer, where there is momentum."""
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def rule(self, group: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """Return a compiled step's form of a group's options."""
        names = ("lr", "momentum", "dampening", "weight_decay")
        options: dict[str, Any] = {name: float(group[name]) for name in names}
        return {"kind": "sgd", **options, "nesterov": group["nesterov"], "first_step": steps == 0}
