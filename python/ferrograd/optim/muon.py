"""Muon: steps along an orthogonal matrix."""

import math
from collections.abc import Mapping
from typing import Any

from ferrograd._core import ConfigError, Tensor
from ferrograd.checks import check_int
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_flag, check_range, check_rates, floats

__all__ = ["Muon"]


class Muon(Optimizer):
    """Steps along the orthogonal matrix nearest to the momentum; for weight matrices only.

    ``m = momentum m + (1 - momentum) g``, and with `nesterov` ``d = momentum m + (1 - momentum) g``, else ``d
    = m``. From ``x = d / max(|d|, eps)`` each of `ns_steps` iterations makes ``a x + (b x x^T + c (x x^T)^2)
    x``: the singular values approach 1, the singular vectors stay. Then ``p = p - lr weight_decay p - lr r
    x`` with ``r = sqrt(max(1, rows / columns))`` (Jordan et al., "Muon: an optimizer for hidden layers in
    neural networks", 2024). PyTorch iterates in bfloat16, this one in the parameter's dtype.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train, or groups.
    lr : float, default 0.001
        Rate of learning, at least 0.
    weight_decay : float, default 0.1
        Share of p, times `lr`, that is taken off in each step.
    momentum : float, default 0.95
        Share of m that is kept, in [0, 1].
    nesterov : bool, default True
        Whether to mix the gradient in once more.
    ns_coefficients : (float, float, float), default (3.4445, -4.775, 2.0315)
        a, b and c.
    eps : float, default 1e-07
        The least norm that is divided by.
    ns_steps : int, default 5
        Iterations, below 100.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        How r follows from the shape: as above, or ``r = 0.2 sqrt(max(rows, columns))``, which suits rates
        that were found for AdamW (Liu et al., "Muon is scalable for LLM training", 2025).

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.Muon([p], lr=0.25)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> [[round(value, 3) for value in row] for row in p.tolist()]
    [[2.737, 0.0], [0.0, 0.692]]
    """

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 0.001,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    buffers = ("momentum_buffer",)
    is_element_wise = False

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("Muon", group, "lr", "weight_decay", "eps")
        check_range("Muon", "momentum", group["momentum"], high=1.0, has_high=True)
        check_flag("Muon", "nesterov", group["nesterov"])
        check_int("Muon: ns_steps", group["ns_steps"], low=0, high=99)
        coefficients = group["ns_coefficients"]
        if not isinstance(coefficients, tuple | list) or len(coefficients) != 3:
            raise ConfigError(f"Muon: ns_coefficients must be three numbers, got {coefficients!r}")
        for position, value in enumerate(coefficients):
            check_range("Muon", f"ns_coefficients[{position}]", value, low=-math.inf)
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ConfigError(
                f"Muon: adjust_lr_fn must be 'original' or 'match_rms_adamw', got {group['adjust_lr_fn']!r}"
            )
        for param in group["params"]:
            if param.ndim != 2:
                raise ConfigError(f"Muon: params must be matrices, got one of shape {param.shape}")

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update in the native form."""
        rows, columns = param.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        else:
            ratio = math.sqrt(max(1.0, rows / max(columns, 1)))
        return {
            "kind": "muon",
            **floats(group, "lr", "weight_decay", "momentum", "eps"),
            "ratio": ratio,
            "nesterov": group["nesterov"],
            "coefficients": tuple(map(float, group["ns_coefficients"])),
            "ns_steps": group["ns_steps"],
            "shape": (rows, columns),
        }
