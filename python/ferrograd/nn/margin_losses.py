"""Losses of margins, rankings and embeddings as modules."""

import math

from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.nn import functional
from ferrograd.nn.activation_functions import check_finite
from ferrograd.nn.loss_functions import check_positive
from ferrograd.nn.losses import Loss

__all__ = [
    "CosineEmbeddingLoss",
    "HingeEmbeddingLoss",
    "MarginLoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "SoftMarginLoss",
    "TripletMarginLoss",
]


class MarginLoss(Loss):
    """Hinge loss of two classes, ``max(0, margin - t x)``; see `functional.margin_loss`.

    Parameters
    ----------
    margin : float, default 1.0
        The margin.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.MarginLoss()(fg.tensor([0.5, 3.0]), fg.tensor([1.0, 1.0])).item()
    0.25
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_finite("MarginLoss", "margin", margin)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare scores with targets -1 and 1 of the same shape."""
        return functional.margin_loss(input, target, self.margin, self.reduction)


class SoftMarginLoss(Loss):
    """Logistic loss of two classes, ``log(1 + exp(-t x))``; see `functional.soft_margin_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.SoftMarginLoss()(fg.tensor([0.0, 2.0]), [1.0, -1.0])
    tensor(1.4100)
    """

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare scores with targets -1 and 1 of the same shape."""
        return functional.soft_margin_loss(input, target, self.reduction)


class HingeEmbeddingLoss(Loss):
    """Distances of pairs, small or above a margin; see `functional.hinge_embedding_loss`.

    Parameters
    ----------
    margin : float, default 1.0
        The margin.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.HingeEmbeddingLoss()(fg.tensor([0.5, 0.5]), fg.tensor([1.0, -1.0])).item()
    0.5
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_finite("HingeEmbeddingLoss", "margin", margin)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare distances with targets -1 and 1 of the same shape."""
        return functional.hinge_embedding_loss(input, target, self.margin, self.reduction)


class MarginRankingLoss(Loss):
    """Which of two scores is the larger; see `functional.margin_ranking_loss`.

    Parameters
    ----------
    margin : float, default 0.0
        The margin.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> loss = fg.nn.MarginRankingLoss(margin=1.0)
    >>> loss(fg.tensor([2.0]), fg.tensor([1.5]), fg.tensor([1.0])).item()
    0.5
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_finite("MarginRankingLoss", "margin", margin)

    def forward(self, input1: TensorLike, input2: TensorLike, target: TensorLike) -> Tensor:
        """Compare scores of one shape; a target of 1 wants the first larger, -1 the second."""
        return functional.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class CosineEmbeddingLoss(Loss):
    """Angles of pairs, small or large; see `functional.cosine_embedding_loss`.

    Parameters
    ----------
    margin : float, default 0.0
        The margin.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.CosineEmbeddingLoss()(fg.tensor([[1.0, 0.0]]), [[1.0, 1.0]], [1.0])
    tensor(0.2929)
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_finite("CosineEmbeddingLoss", "margin", margin)

    def forward(self, input1: TensorLike, input2: TensorLike, target: TensorLike) -> Tensor:
        """Compare vectors (batch, features); targets (batch,) are -1 or 1."""
        return functional.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(Loss):
    """An anchor nearer to one example than to another; see `functional.triplet_margin_loss`.

    Parameters
    ----------
    margin : float, default 1.0
        The margin, above 0.
    p : float, default 2.0
        Which norm measures distance; infinity is allowed.
    eps : float, default 1e-6
        Added to each difference, which keeps the norm from its kink at 0.
    swap : bool, default False
        Whether the negative's distance is taken from the nearer one of anchor and positive.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of rows.

    Raises
    ------
    ConfigError
        If `margin` or `p` is not above 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> a, far = fg.zeros(1, 2), fg.tensor([[3.0, 4.0]])
    >>> fg.nn.TripletMarginLoss()(a, a, far).item()
    0.0
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin = check_positive("TripletMarginLoss", "margin", margin)
        self.p = p if p == math.inf else check_positive("TripletMarginLoss", "p", p)
        self.eps = check_finite("TripletMarginLoss", "eps", eps)
        self.swap = swap

    def forward(self, anchor: TensorLike, positive: TensorLike, negative: TensorLike) -> Tensor:
        """Compare vectors (batch, features)."""
        return functional.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class MultiLabelMarginLoss(Loss):
    """Hinge loss of rows with several labels; see `functional.multilabel_margin_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> scores = fg.tensor([[0.1, 0.2, 0.4, 0.8]])
    >>> round(fg.nn.MultiLabelMarginLoss()(scores, fg.tensor([[3, 0, -1, 1]])).item(), 4)
    0.85
    """

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare scores (batch, classes) with labels (batch, classes), each row ended by -1."""
        return functional.multilabel_margin_loss(input, target, self.reduction)


class MultiLabelSoftMarginLoss(Loss):
    """Binary cross-entropy averaged over classes; see `functional.multilabel_soft_margin_loss`.

    Parameters
    ----------
    weight : Tensor or array_like, shape (classes,), optional
        Factor for each class.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.MultiLabelSoftMarginLoss()(fg.tensor([[0.0, 2.0]]), [[1.0, 1.0]])
    tensor(0.4100)
    """

    weight: Tensor | None

    def __init__(self, weight: TensorLike | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._register_optional("weight", weight)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare logits (..., classes) with targets of the same shape in [0, 1]."""
        return functional.multilabel_soft_margin_loss(input, target, self.weight, self.reduction)
