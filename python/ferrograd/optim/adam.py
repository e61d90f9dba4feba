"""Adam and its form with decoupled weight decay."""

from collections.abc import Mapping
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_range

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adaptive moments: ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``.

    The step is ``p = p - lr m' / (sqrt(v') + eps)``, where ``m' = m / (1 - b1^t)`` and ``v' = v / (1 -
    b2^t)`` correct for the zero start (Kingma and Ba, "Adam", 2014).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.001
        Rate of learning, at least 0.
    betas : (float, float), default (0.9, 0.999)
        b1 and b2, each in [0, 1).
    eps : float, default 1e-8
        Added to the root.
    weight_decay : float, default 0
        Factor of p added to the gradient; with `decoupled_weight_decay` p shrinks by ``lr weight_decay p``
        instead.
    amsgrad : bool, default False
        Whether the largest v so far takes the place of v (Reddi et al., 2018).
    decoupled_weight_decay : bool, default False
        As `AdamW`.

    Raises
    ------
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    state_names = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        name = self._name()
        for option in ("lr", "eps", "weight_decay"):
            check_range(name, option, group[option])
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ConfigError(f"{name}: betas must be two numbers, got {betas!r}")
        for position, beta in enumerate(betas):
            check_range(name, f"betas[{position}]", beta, high=1.0)
        check_flag(name, "amsgrad", group["amsgrad"])
        check_flag(name, "decoupled_weight_decay", group["decoupled_weight_decay"])

    def init_state(self, param: Tensor) -> dict[str, Any]:
        """Return the state: ``step``, ``exp_avg``, ``exp_avg_sq`` and, with amsgrad, ``max_exp_avg_sq``."""
        state = self.state.get(param)
        if state is None:
            state = {"step": 0, "exp_avg": _core.zeros_like(param), "exp_avg_sq": _core.zeros_like(param)}
            self.state[param] = state
        if self._group_of(param)["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = _core.zeros_like(param)
        return state

    def update_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Update the parameters in place."""
        states = []
        for param in params:
            state = self.state.get(param)
            if state is None or (group["amsgrad"] and "max_exp_avg_sq" not in state):
                state = self.init_state(param)
            states.append(state)
        for state in states:
            state["step"] += 1
        # The correction depends on the step count, which differs where a parameter got its first gradient
        # later.
        for step in sorted({state["step"] for state in states}):
            rows = [row for row, state in enumerate(states) if state["step"] == step]
            _core.adam_update(
                [params[row] for row in rows],
                [grads[row] for row in rows],
                [states[row]["exp_avg"] for row in rows],
                [states[row]["exp_avg_sq"] for row in rows],
                [states[row]["max_exp_avg_sq"] for row in rows] if group["amsgrad"] else None,
                lr=float(group["lr"]),
                beta1=float(group["betas"][0]),
                beta2=float(group["betas"][1]),
                eps=float(group["eps"]),
                weight_decay=float(group["weight_decay"]),
                decoupled=group["decoupled_weight_decay"],
                step=step,
            )

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the moments and, with amsgrad, the largest second moment."""
        # The state may hold more: the maximum of an earlier time with amsgrad.
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if group["amsgrad"] else 2]

    def rule(self, group: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """Return a compiled step's form of a group's options."""
        return {
            "kind": "adam",
            "lr": float(group["lr"]),
            "beta1": float(group["betas"][0]),
            "beta2": float(group["betas"][1]),
            "eps": float(group["eps"]),
            "weight_decay": float(group["weight_decay"]),
            "decoupled": group["decoupled_weight_decay"],
            "step": steps + 1,
        }


class AdamW(Adam):
    """Adam after ``p = p - lr weight_decay p``: decay apart from the gradient (Loshchilov and Hutter, 2019).

    Parameters
    ----------
    params, lr, betas, eps, amsgrad
        As `Adam`.
    weight_decay : float, default 0.01
        Share of p, times `lr`, that is taken off in each step.
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True)
