"""Other uses of Adam's means: Nesterov's momentum, a rectified rate, the largest gradient."""

from collections.abc import Mapping
from typing import Any

from ferrograd._core import Tensor
from ferrograd.optim.adam import adam_options, check_adam
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_rates

__all__ = ["Adamax", "NAdam", "RAdam"]


class NAdam(Optimizer):
    """Adam with Nesterov's momentum: m and v as in `Adam`, and a momentum that grows.

    With ``u_t = b1 (1 - 0.96^(t momentum_decay) / 2)``, ``P_t = u_1 u_2 ... u_t`` and ``v' = v / (1 - b2^t)``
    the step is ``p = p - lr ((1 - u_t) / (1 - P_t) g + u_{t+1} / (1 - P_{t+1}) m) / (sqrt(v') + eps)``
    (Dozat, "Incorporating Nesterov momentum into Adam", 2016).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.002
        Rate of learning, at least 0.
    betas : (float, float), default (0.9, 0.999)
        b1 and b2, each in [0, 1).
    eps : float, default 1e-8
        Added to the root.
    weight_decay : float, default 0
        Factor of p added to the gradient; with `decoupled_weight_decay` p shrinks by ``lr weight_decay p``
        instead.
    momentum_decay : float, default 0.004
        How fast the momentum grows, at least 0.
    decoupled_weight_decay : bool, default False
        As in `AdamW`.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.NAdam([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.735887
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    buffers = ("exp_avg", "exp_avg_sq")
    scalars = ("mu_product",)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_adam(self, group)
        check_flag(self._name(), "decoupled_weight_decay", group["decoupled_weight_decay"])
        check_rates("NAdam", group, "momentum_decay")

    def fresh_scalars(self, group: Mapping[str, Any]) -> dict[str, float]:
        """Return the empty product."""
        return {"mu_product": 1.0}

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        return {
            "kind": "nadam",
            **adam_options(self, group, param),
            "momentum_decay": float(group["momentum_decay"]),
            "decoupled": group["decoupled_weight_decay"],
            "mu_product": self.state.get(param, {}).get("mu_product", 1.0),
        }


class RAdam(Optimizer):
    """Adam whose rate is rectified while its variance is unknown; m and v as in `Adam`.

    With ``R = 2 / (1 - b2) - 1`` and ``r = R - 2 t b2^t / (1 - b2^t)`` the step is ``p = p - lr m' s sqrt(1 -
    b2^t) / (sqrt(v) + eps)``, ``s^2 = (r - 4) (r - 2) R / ((R - 4) (R - 2) r)``, where ``r > 5``; else it is
    ``p = p - lr m'``, with ``m' = m / (1 - b1^t)`` (Liu et al., "On the variance of the adaptive learning
    rate and beyond", 2019).

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
    decoupled_weight_decay : bool, default False
        As in `AdamW`.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.RAdam([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.5
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    buffers = ("exp_avg", "exp_avg_sq")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_adam(self, group)
        check_flag(self._name(), "decoupled_weight_decay", group["decoupled_weight_decay"])

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        decoupled = group["decoupled_weight_decay"]
        return {"kind": "radam", **adam_options(self, group, param), "decoupled": decoupled}


class Adamax(Optimizer):
    """Adam with the largest gradient in place of the root: ``u = max(b2 u, |g| + eps)``.

    The step is ``p = p - lr / (1 - b1^t) m / u`` with m as in `Adam` (Kingma and Ba, "Adam", 2014, section
    7.1).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.002
        Rate of learning, at least 0.
    betas : (float, float), default (0.9, 0.999)
        b1 and b2, each in [0, 1).
    eps : float, default 1e-8
        Added to the absolute gradient.
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
    >>> optimizer = fg.optim.Adamax([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.75
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    buffers = ("exp_avg", "exp_inf")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_adam(self, group)

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        return {"kind": "adamax", **adam_options(self, group, param)}
