"""Weighted sums of losses."""

import copy
from collections.abc import Sequence
from typing import Any, Self

from ferrograd._core import ConfigError, DTypeError, Tensor
from ferrograd.checks import as_list
from ferrograd.nn.activation_functions import check_finite
from ferrograd.nn.container import ModuleList
from ferrograd.nn.losses import Loss

__all__ = ["MultiCriterion", "ParallelCriterion"]


class _Weighted(Loss):
    """Losses of one reduction, each with its factor."""

    losses: ModuleList

    def __init__(self, *losses: Loss, weights: Sequence[float] | None = None) -> None:
        owner = type(self).__name__
        if not losses:
            raise ConfigError(f"{owner}: expected at least one loss")
        for position, loss in enumerate(losses):
            if not isinstance(loss, Loss):
                raise DTypeError(f"{owner}: argument {position} must be a Loss, got {loss!r}")
        if any(loss.reduction != losses[0].reduction for loss in losses):
            found = [loss.reduction for loss in losses]
            raise ConfigError(f"{owner}: expected losses of one reduction, got {found}")
        factors = (
            (1.0,) * len(losses) if weights is None else as_list(f"{owner}: weights", "numbers", weights)
        )
        if len(factors) != len(losses):
            raise ConfigError(f"{owner}: expected {len(losses)} weights, got {len(factors)}")
        super().__init__(losses[0].reduction)
        self.weights = tuple(check_finite(owner, "weights", factor) for factor in factors)
        self.losses = ModuleList(losses)

    def unreduced(self) -> Self:
        """Return a copy whose losses have reduction "none", to which sample weights can be applied."""
        made = copy.copy(self)
        made.losses = ModuleList([loss.unreduced() for loss in self.losses])
        made.reduction = "none"
        return made

    def _sum(self, pairs: Sequence[tuple[Any, Any]]) -> Tensor:
        total: Tensor | None = None
        for loss, factor, (input, target) in zip(self.losses, self.weights, pairs, strict=True):
            value: Tensor = loss(input, target)
            if self.reduction == "none" and value.ndim > 1:
                # Some losses are one an element, others one a row: rows are what they have in common.
                value = value.flatten(1).mean(1)
            total = value * factor if total is None else total + value * factor
        assert total is not None
        return total

    def extra_repr(self) -> str:
        """Return the factors."""
        return f"weights={self.weights}"


class MultiCriterion(_Weighted):
    """``sum_i w_i loss_i(input, target)``: several losses of one input and target; gradients add up.

    Parameters
    ----------
    *losses : Loss
        At least one, all of one reduction. With "none" each is averaged over its dimensions after the first,
        so that the result is ``(batch,)``.
    weights : sequence of float, optional
        The factors w, by default 1.

    Raises
    ------
    ConfigError
        If there is no loss, the reductions differ, or the numbers of losses and weights do.

    Examples
    --------
    >>> import ferrograd as fg
    >>> loss = fg.nn.MultiCriterion(fg.nn.MSELoss(), fg.nn.L1Loss(), weights=[1.0, 0.5])
    >>> loss(fg.tensor([2.0]), fg.tensor([0.0])).item()
    5.0
    """

    def forward(self, input: Any, target: Any) -> Tensor:
        """Compare `input` with `target` by each loss."""
        return self._sum([(input, target)] * len(self.losses))


class ParallelCriterion(_Weighted):
    """``sum_i w_i loss_i(input_i, target_i)``: a loss for each output, which gets its gradient.

    Parameters
    ----------
    *losses : Loss
        As for `MultiCriterion`.
    weights : sequence of float, optional
        The factors w, by default 1.
    repeat_target : bool, default False
        Whether there is one target for all outputs.

    Raises
    ------
    ConfigError
        As for `MultiCriterion`; when called, if the numbers of losses, inputs and targets differ.

    Examples
    --------
    >>> import ferrograd as fg
    >>> loss = fg.nn.ParallelCriterion(fg.nn.MSELoss(), fg.nn.L1Loss())
    >>> loss([fg.tensor([2.0]), fg.tensor([3.0])], [fg.tensor([0.0]), fg.tensor([1.0])]).item()
    6.0
    """

    def __init__(
        self, *losses: Loss, weights: Sequence[float] | None = None, repeat_target: bool = False
    ) -> None:
        super().__init__(*losses, weights=weights)
        self.repeat_target = repeat_target

    def forward(self, input: Sequence[Any], target: Any) -> Tensor:
        """Compare each of the inputs with its target."""
        targets = [target] * len(self.losses) if self.repeat_target else target
        if len(input) != len(self.losses) or len(targets) != len(self.losses):
            raise ConfigError(
                f"ParallelCriterion: expected {len(self.losses)} inputs and targets, "
                f"got {len(input)} and {len(targets)}"
            )
        return self._sum(list(zip(input, targets, strict=True)))
