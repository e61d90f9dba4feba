"""Gradient descent whose parameters are averaged over the steps."""

from collections.abc import Mapping
from typing import Any

from ferrograd._core import Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_rates, floats

__all__ = ["ASGD"]


class ASGD(Optimizer):
    """Averaged gradient descent: ``p = (1 - lambd eta) p - eta g``, and an average of p beside it.

    ``eta = lr / (1 + lambd lr t)^alpha`` falls with the number t of steps made; ``ax = ax + mu (p - ax)``
    with ``mu = 1 / max(1, t - t0)``: p itself up to step t0, then its mean (Polyak and Juditsky, 1992). The
    average is ``optimizer.state[p]["ax"]``. A rate that is changed acts one step later, as in PyTorch.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.01
        Rate of learning at the start, at least 0.
    lambd : float, default 0.0001
        Shrinking of p, and how fast the rate falls; at least 0.
    alpha : float, default 0.75
        Power with which the rate falls, at least 0.
    t0 : float, default 1000000.0
        The step after which p is averaged.
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
    >>> optimizer = fg.optim.ASGD([p], lr=0.25, lambd=0)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.5
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.01,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    buffers = ("ax",)
    scalars = ("eta", "mu")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("ASGD", group, *self.defaults)

    def fresh_scalars(self, group: Mapping[str, Any]) -> dict[str, float]:
        """Return the rate and the share of the first step."""
        return {"eta": float(group["lr"]), "mu": 1.0}

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        state = self.state.get(param) or self.fresh_scalars(group)
        return {
            "kind": "asgd",
            **floats(group, "lr", "lambd", "alpha", "t0", "weight_decay"),
            "step": self.steps_of(param) + 1,
            "eta_and_mu": (state["eta"], state["mu"]),
        }
