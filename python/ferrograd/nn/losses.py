"""Losses as modules: called with ``(input, target)``, they return a scalar, or the losses one by one."""

import copy
from typing import Self

from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.convert import operand
from ferrograd.nn import functional
from ferrograd.nn.module import Module
from ferrograd.nn.reduction import check_reduction

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HalfSquaredErrorLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "MultiMarginLoss",
    "MulticlassHingeLoss",
    "NLLLoss",
]


class Loss(Module):
    """Base of the losses.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        What is returned: a scalar, or the losses one by one.

    Raises
    ------
    ConfigError
        If `reduction` is something else.

    Examples
    --------
    >>> import ferrograd as fg
    >>> loss = fg.nn.MSELoss(reduction="sum")
    >>> loss(fg.tensor([1.0, 2.0]), [1.0, 5.0])
    tensor(9.)
    >>> loss.unreduced()(fg.tensor([1.0, 2.0]), [1.0, 5.0])
    tensor([0., 9.])
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(type(self).__name__, reduction)

    def unreduced(self) -> Self:
        """Return a copy with reduction "none", to which sample weights can be applied."""
        loss = copy.copy(self)
        loss.reduction = "none"
        return loss

    def _register_optional(self, name: str, value: TensorLike | None) -> None:
        # A copy: the caller may go on to change the array.
        self.register_buffer(name, None if value is None else operand(name, value).detach().clone())


class MSELoss(Loss):
    """Squared error; see `functional.mse_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.MSELoss()(fg.tensor([1.0, 2.0]), [1.0, 5.0])
    tensor(4.5000)
    """

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.mse_loss(input, target, self.reduction)


class HalfSquaredErrorLoss(Loss):
    """Half the squared distance of each row, averaged over the rows; see `functional.half_squared_error`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.HalfSquaredErrorLoss()(fg.tensor([[1.0, 2.0]]), [[1.0, 5.0]])
    tensor(4.5000)
    """

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape, (batch, ...)."""
        return functional.half_squared_error(input, target, self.reduction)


class L1Loss(Loss):
    """Absolute error; see `functional.l1_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.L1Loss()(fg.tensor([1.0, 2.0]), [1.0, 5.0])
    tensor(1.5000)
    """

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.l1_loss(input, target, self.reduction)


class BCELoss(Loss):
    """Binary cross-entropy of probabilities; see `functional.binary_cross_entropy`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        Factor for each element; broadcasts.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.BCELoss()(fg.tensor([0.9, 0.2]), [1.0, 0.0])
    tensor(0.1643)
    """

    weight: Tensor | None

    def __init__(self, weight: TensorLike | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._register_optional("weight", weight)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare probabilities with targets of the same shape."""
        return functional.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits; see `functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        Factor for each element; broadcasts.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.
    pos_weight : Tensor or array_like, optional
        Factor of the positive part, along the last dimension.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.BCEWithLogitsLoss()(fg.tensor([0.0, 2.0]), [1.0, 1.0])
    tensor(0.4100)
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: TensorLike | None = None,
        reduction: str = "mean",
        pos_weight: TensorLike | None = None,
    ) -> None:
        super().__init__(reduction)
        self._register_optional("weight", weight)
        self._register_optional("pos_weight", pos_weight)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare logits with targets of the same shape."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, self.reduction, self.pos_weight
        )


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits with class numbers or probabilities; see `functional.cross_entropy`.

    Parameters
    ----------
    weight : Tensor or array_like, shape (classes,), optional
        Factor for each class.
    ignore_index : int, default -100
        Rows with this class number are not counted.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the weights of the rows counted.
    label_smoothing : float, default 0.0
        Share of the target spread over all classes.

    Examples
    --------
    >>> import ferrograd as fg
    >>> loss = fg.nn.CrossEntropyLoss()
    >>> round(loss(fg.zeros(2, 4), fg.tensor([0, 3])).item(), 4)
    1.3863
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: TensorLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        functional.check_smoothing("CrossEntropyLoss", label_smoothing)
        self._register_optional("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare logits (batch, classes) with class numbers (batch,) or probabilities (batch, classes)."""
        return functional.cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(Loss):
    """Negative log-likelihood of log-probabilities and class numbers; see `functional.nll_loss`.

    Parameters
    ----------
    weight : Tensor or array_like, shape (classes,), optional
        Factor for each class.
    ignore_index : int, default -100
        Rows with this class number are not counted.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the weights of the rows counted.

    Examples
    --------
    >>> import ferrograd as fg
    >>> scores = fg.tensor([[0.0, 0.0]]).log_softmax(1)
    >>> round(fg.nn.NLLLoss()(scores, fg.tensor([1])).item(), 4)
    0.6931
    """

    weight: Tensor | None

    def __init__(
        self, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self._register_optional("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare log-probabilities (batch, classes) with class numbers (batch,)."""
        return functional.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class MultiMarginLoss(Loss):
    """Multiclass hinge loss divided by the number of classes; see `functional.multi_margin_loss`.

    Parameters
    ----------
    p : {1, 2}, default 1
        Power.
    margin : float, default 1.0
        What the right score must exceed the others by.
    weight : Tensor or array_like, shape (classes,), optional
        Factor for each class.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.MultiMarginLoss()(fg.tensor([[3.2, 5.1, -1.7]]), [0])
    tensor(0.9667)
    """

    weight: Tensor | None

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: TensorLike | None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.p = functional.check_power("MultiMarginLoss", p)
        self.margin = margin
        self._register_optional("weight", weight)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare scores (batch, classes) with class numbers (batch,)."""
        return functional.multi_margin_loss(input, target, self.p, self.margin, self.weight, self.reduction)


class MulticlassHingeLoss(Loss):
    """Multiclass hinge loss as lectures write it, not divided by the number of classes.

    ``MultiMarginLoss`` times the number of classes; see `functional.multiclass_hinge_loss`.

    Parameters
    ----------
    p : {1, 2}, default 1
        Power.
    margin : float, default 1.0
        What the right score must exceed the others by.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> loss = fg.nn.MulticlassHingeLoss()
    >>> round(loss(fg.tensor([[3.2, 5.1, -1.7]]), fg.tensor([0])).item(), 4)
    2.9
    """

    def __init__(self, p: int = 1, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.p = functional.check_power("MulticlassHingeLoss", p)
        self.margin = margin

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare scores (batch, classes) with class numbers (batch,)."""
        return functional.multiclass_hinge_loss(input, target, self.p, self.margin, self.reduction)
