"""Adam and its form with decoupled weight decay."""

from collections.abc import Mapping
from typing import Any

from ferrograd._core import Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_pair, check_rates, floats

__all__ = ["Adam", "AdamW", "adam_options", "check_adam"]


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

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.Adam([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.75
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

    buffers = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_adam(self, group)
        check_flag(self._name(), "amsgrad", group["amsgrad"])
        check_flag(self._name(), "decoupled_weight_decay", group["decoupled_weight_decay"])

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the moments and, with amsgrad, the largest second moment."""
        # The state may hold more: the maximum of an earlier time with amsgrad.
        return self.buffers[: 3 if group["amsgrad"] else 2]

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        decoupled = group["decoupled_weight_decay"]
        options = adam_options(self, group, param)
        return {"kind": "adam", **options, "decoupled": decoupled, "eps_hat": False}


class AdamW(Adam):
    """Adam after ``p = p - lr weight_decay p``: decay apart from the gradient (Loshchilov and Hutter, 2019).

    Parameters
    ----------
    params, lr, betas, eps, amsgrad
        As `Adam`.
    weight_decay : float, default 0.01
        Share of p, times `lr`, that is taken off in each step.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.AdamW([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.7475
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


def check_adam(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if one of the options that Adam and its kin share is out of range."""
    name = type(optimizer).__name__
    check_rates(name, group, "lr", "eps", "weight_decay")
    check_pair(name, "betas", group["betas"])


def adam_options(optimizer: Optimizer, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
    """Return the options that Adam and its kin share, with the number of the next step."""
    return {
        **floats(group, "lr", "eps", "weight_decay"),
        "beta1": float(group["betas"][0]),
        "beta2": float(group["betas"][1]),
        "step": optimizer.steps_of(param) + 1,
    }
