"""What all losses share: reductions, and checks of their arguments."""

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.convert import operand

__all__ = ["check_reduction", "check_same_shape", "mean_over_labels", "reduce"]

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(owner: str, reduction: str) -> str:
    """Return `reduction` if it is "none", "mean" or "sum"."""
    if reduction not in REDUCTIONS:
        raise ConfigError(f"{owner}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    return reduction


def check_same_shape(owner: str, input: Tensor, target: Tensor, names: str = "input and target") -> None:
    """Refuse shapes that differ: broadcasting (n, 1) against (n,) would compare all pairs."""
    if input.shape != target.shape:
        raise ShapeError(f"{owner}: {names} must have the same shape, got {input.shape} and {target.shape}")


def reduce(owner: str, losses: Tensor, reduction: str) -> Tensor:
    """Return the losses, their mean or their sum."""
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    check_reduction(owner, reduction)
    return losses


def mean_over_labels(losses: Tensor, target: Tensor, weight: TensorLike | None, ignore_index: int) -> Tensor:
    """Return the sum over the weights of the rows that are counted: PyTorch's mean of losses of labels."""
    if weight is None:
        return losses.sum() / _core.count_labels(target, ignore_index, losses.dtype)
    counted = target.long().ne(ignore_index)
    # Rows that are ignored have a class number no weight belongs to: they look up class 0 and are masked.
    row_weights = operand("weight", weight)[_core.where(counted, target, 0)]
    return losses.sum() / _core.where(counted, row_weights, 0.0).sum()
