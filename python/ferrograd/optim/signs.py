"""Steps along the sign of a gradient or of its mean."""

from collections.abc import Mapping
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_pair, check_rates, floats

__all__ = ["Lion", "Rprop"]


class Rprop(Optimizer):
    """A step size s for each element: ``p = p - s sign(g)``; for full batches.

    s grows by ``etas[1]`` where g keeps its sign, and shrinks by ``etas[0]`` where the sign has changed;
    there g counts as 0, in the next comparison too. s stays within `step_sizes` (Riedmiller and Braun, 1993,
    without weight backtracking).

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.01
        What each s starts with; of no effect later, at least 0.
    etas : (float, float), default (0.5, 1.2)
        Factors of s: the first in (0, 1), the second above 1.
    step_sizes : (float, float), default (1e-06, 50)
        Smallest and largest s.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.Rprop([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.75
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.01,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
        }
        super().__init__(params, defaults)

    buffers = ("prev", "step_size")

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("Rprop", group, "lr")
        check_pair("Rprop", "etas", group["etas"], high=float("inf"))
        if not 0 < group["etas"][0] < 1 < group["etas"][1]:
            raise ConfigError(f"Rprop: etas must be below and above 1, got {group['etas']!r}")
        check_pair("Rprop", "step_sizes", group["step_sizes"], high=float("inf"))
        if group["step_sizes"][0] > group["step_sizes"][1]:
            raise ConfigError(f"Rprop: step_sizes must be in order, got {group['step_sizes']!r}")

    def fresh_buffer(self, name: str, group: Mapping[str, Any], param: Tensor) -> Tensor:
        """Return no gradient, and the learning rate as each element's step size."""
        start = float(group["lr"]) if name == "step_size" else 0.0
        return _core.full(param.shape, start, dtype=param.dtype)

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        return {
            "kind": "rprop",
            "lr": float(group["lr"]),
            "eta_minus": float(group["etas"][0]),
            "eta_plus": float(group["etas"][1]),
            "smallest": float(group["step_sizes"][0]),
            "largest": float(group["step_sizes"][1]),
        }


class Lion(Optimizer):
    """Steps of one length: ``p = p - lr sign(b1 m + (1 - b1) g)``, then ``m = b2 m + (1 - b2) g``.

    Before it, p shrinks by ``lr weight_decay p`` (Chen et al., "Symbolic discovery of optimization
    algorithms", 2023). A rate three to ten times smaller than Adam's suits it.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.0001
        Length of every step, at least 0.
    betas : (float, float), default (0.9, 0.99)
        b1 and b2, each in [0, 1).
    weight_decay : float, default 0
        Share of p, times `lr`, that is taken off in each step.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.Lion([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> round(p.item(), 6)
    0.75
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    buffers = ("exp_avg",)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("Lion", group, "lr", "weight_decay")
        check_pair("Lion", "betas", group["betas"])

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        beta1, beta2 = group["betas"]
        options = floats(group, "lr", "weight_decay")
        return {"kind": "lion", **options, "beta1": float(beta1), "beta2": float(beta2)}
