"""What a step makes smaller: the loss, with sample weights and the penalty on large weights."""

from collections.abc import Callable, Iterable

import numpy as np

from ferrograd._core import ShapeError, Tensor
from ferrograd.nn.losses import Loss

__all__ = ["objective"]


def objective(
    loss: Callable[[Tensor, Tensor], Tensor],
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    l2: float,
    params: Iterable[Tensor],
) -> Tensor:
    """Return the loss of a batch, by its samples' weights if there are any, plus ``l2 / 2 * sum(W ** 2)``."""
    if weight is None:
        value = loss(scores, target)
    else:
        assert isinstance(loss, Loss)
        losses = loss.unreduced()(scores, target)
        by_sample = losses.flatten(1).mean(1) if losses.ndim > 1 else losses
        value = (by_sample * weight).sum()
        if loss.reduction == "mean":
            # A batch without weight has loss 0, not 0 / 0.
            value = value / weight.sum().clamp(min=float(np.finfo(np.float32).tiny))
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(f"loss: expected a scalar Tensor, got {got}; use reduction='mean' or 'sum'")
    if l2:
        for param in params:
            if param.ndim >= 2:
                # By columns of the transpose of a matrix, as a plan that keeps the weights packed sums them.
                matrix = param.t() if param.ndim == 2 else param
                value = value + matrix.square().sum(0).sum() * (l2 / 2)
    return value
