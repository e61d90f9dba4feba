"""Losses of numbers, counts and distributions as modules."""

from collections.abc import Sequence

from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.nn import functional
from ferrograd.nn.loss_functions import check_kl_reduction, check_positive, check_quantiles
from ferrograd.nn.losses import Loss

__all__ = [
    "GaussianNLLLoss",
    "HuberLoss",
    "KLDivLoss",
    "LogCoshLoss",
    "PoissonNLLLoss",
    "QuantileLoss",
    "SmoothL1Loss",
]


class SmoothL1Loss(Loss):
    """Squared error near 0, absolute error far from it; see `functional.smooth_l1_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.
    beta : float, default 1.0
        Where the two meet, at least 0; the slope beyond is 1.

    Raises
    ------
    ConfigError
        If `beta` is negative.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.SmoothL1Loss()(fg.tensor([0.5, 3.0]), fg.zeros(2)).item()
    1.3125
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = check_positive("SmoothL1Loss", "beta", beta, or_zero=True)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.smooth_l1_loss(input, target, self.reduction, self.beta)


class HuberLoss(Loss):
    """Half the squared error near 0, a line of slope delta far from it; see `functional.huber_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.
    delta : float, default 1.0
        Where the two meet, above 0.

    Raises
    ------
    ConfigError
        If `delta` is not above 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.HuberLoss(delta=2.0)(fg.tensor([1.0, 3.0]), fg.zeros(2)).item()
    2.25
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = check_positive("HuberLoss", "delta", delta)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.huber_loss(input, target, self.reduction, self.delta)


class LogCoshLoss(Loss):
    """``log(cosh(x - t))``, a smooth absolute error; see `functional.log_cosh_loss`.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.LogCoshLoss()(fg.tensor([0.0, 0.0]), fg.zeros(2)).item()
    0.0
    """

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.log_cosh_loss(input, target, self.reduction)


class QuantileLoss(Loss):
    """Pinball loss for one or several quantiles; see `functional.quantile_loss`.

    Parameters
    ----------
    quantiles : float or sequence of float, default 0.5
        Each between 0 and 1. A sequence needs that many inputs in the last dimension for each target.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Raises
    ------
    ConfigError
        If a quantile is not between 0 and 1.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.QuantileLoss([0.25, 0.75])(fg.tensor([[0.0, 0.0]]), fg.tensor([1.0])).item()
    0.5
    """

    def __init__(self, quantiles: float | Sequence[float] = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.quantiles = (
            quantiles if isinstance(quantiles, int | float) else check_quantiles("QuantileLoss", quantiles)
        )
        check_quantiles("QuantileLoss", quantiles)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape, or (..., quantiles) with (...)."""
        return functional.quantile_loss(input, target, self.quantiles, self.reduction)


class KLDivLoss(Loss):
    """Kullback-Leibler divergence of log-probabilities from a target distribution; see `functional.kl_div`.

    Parameters
    ----------
    reduction : {"mean", "batchmean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements, "batchmean" by that of the rows: only that is the
        divergence.
    log_target : bool, default False
        Whether the target holds logarithms too.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([[0.5, 0.5]])
    >>> fg.nn.KLDivLoss("batchmean")(p.log(), p).item()
    0.0
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__()
        self.reduction = check_kl_reduction("KLDivLoss", reduction)
        self.log_target = log_target

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.kl_div(input, target, self.reduction, self.log_target)


class PoissonNLLLoss(Loss):
    """Negative log-likelihood of counts; see `functional.poisson_nll_loss`.

    Parameters
    ----------
    log_input : bool, default True
        Whether the input is the logarithm of the rate.
    full : bool, default False
        Whether Stirling's formula for ``log t!`` is added.
    eps : float, default 1e-8
        Keeps the logarithm of a rate from 0, if not `log_input`.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Raises
    ------
    ConfigError
        If `eps` is negative.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.PoissonNLLLoss()(fg.zeros(2), fg.tensor([1.0, 3.0])).item()
    1.0
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = check_positive("PoissonNLLLoss", "eps", eps, or_zero=True)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        """Compare tensors of one shape."""
        return functional.poisson_nll_loss(input, target, self.log_input, self.full, self.eps, self.reduction)


class GaussianNLLLoss(Loss):
    """Normal likelihood with predicted variances; see `functional.gaussian_nll_loss`.

    Parameters
    ----------
    full : bool, default False
        Whether ``log(2 pi) / 2`` is added.
    eps : float, default 1e-6
        Smallest variance.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Raises
    ------
    ConfigError
        If `eps` is not above 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.GaussianNLLLoss()(fg.tensor([2.0]), fg.tensor([0.0]), fg.tensor([1.0])).item()
    2.0
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = check_positive("GaussianNLLLoss", "eps", eps)

    def forward(self, input: TensorLike, target: TensorLike, var: TensorLike) -> Tensor:
        """Compare means with targets; the variances broadcast along the last dimension."""
        return functional.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)
