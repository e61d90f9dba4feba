"""Normalisation over the batch, or over the features of each row."""

from collections.abc import Sequence

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike
from ferrograd.checks import check_number
from ferrograd.convert import operand
from ferrograd.nn.layers import check_count
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = ["BatchNorm1d", "LayerNorm", "RMSNorm"]


def _filled(
    shape: Sequence[int], value: float, dtype: DTypeLike | None, device: DeviceLike | None
) -> Parameter:
    return Parameter(_core.full(shape, value, dtype=dtype, device=device))


class BatchNorm1d(Module):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, mean and variance of each feature over the batch.

    In training the batch's own mean and variance (divided by the count) are taken, and the running ones move
    towards them: ``r = (1 - momentum) r + momentum s``, s with the variance divided by the count less 1. In a
    plan they move at each step too. In evaluation the running ones are taken, so that a row's result does not
    depend on the other rows. Ioffe and Szegedy, "Batch Normalization", 2015.

    Parameters
    ----------
    num_features : int
        Length of dimension 1.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        Share of the new batch in the running values; None takes the mean over all batches.
    affine : bool, default True
        Whether there are weight and bias.
    track_running_stats : bool, default True
        Whether there are running values; without them evaluation takes the batch's.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight, bias : Parameter of shape (num_features,), or None
        Ones and zeros at first.
    running_mean, running_var : Tensor of shape (num_features,), or None
        Zeros and ones at first.
    num_batches_tracked : Tensor, int64, or None
        Batches seen in training.

    Raises
    ------
    ConfigError
        If an option is out of range.
    ShapeError
        When called, if the input is not (batch, features) or (batch, features, length), or has a single value
        of each feature in training.

    Notes
    -----
    With ``z = (x - mean) / s``, ``s = sqrt(var + eps)`` and the gradient g from above:
    ``dx = weight / s (g - mean(g) - z mean(g z))`` in training, means over the batch, and
    ``dx = g weight / s`` in evaluation; ``dweight = sum(g z)``, ``dbias = sum(g)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.BatchNorm1d(2)
    >>> layer(fg.tensor([[0.0, 4.0], [2.0, 8.0]])).shape
    (2, 2)
    >>> [round(value, 4) for value in layer.running_mean.tolist()]
    [0.1, 0.6]
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.num_features = check_count("BatchNorm1d", "num_features", num_features)
        check_number("eps", eps, low=0.0)
        if momentum is not None:
            check_number("momentum", momentum, low=0.0)
            if momentum > 1:
                raise ConfigError(f"BatchNorm1d: momentum must lie in [0, 1], got {momentum!r}")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        shape = (self.num_features,)
        self.register_parameter("weight", _filled(shape, 1.0, dtype, device) if affine else None)
        self.register_parameter("bias", _filled(shape, 0.0, dtype, device) if affine else None)
        for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
            running = _core.full(shape, value, dtype=dtype, device=device) if track_running_stats else None
            self.register_buffer(name, running)
        count = _core.zeros((), dtype="int64") if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)

    def forward(self, input: TensorLike) -> Tensor:
        """Map ``(batch, features)`` or ``(batch, features, length)`` to the same shape."""
        x = operand("input", input)
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            expected = f"(batch, {self.num_features}) or (batch, {self.num_features}, length)"
            raise ShapeError(f"BatchNorm1d: expected shape {expected}, got {x.shape}")
        dims = 0 if x.ndim == 2 else (0, 2)
        shape = (self.num_features,) if x.ndim == 2 else (self.num_features, 1)
        if self.training or self.running_mean is None or self.running_var is None:
            count = x.numel() // self.num_features
            if self.training and count < 2:
                raise ShapeError(f"BatchNorm1d: training needs two values a feature, got shape {x.shape}")
            mean = x.mean(dims)
            d = x - mean.reshape(shape)
            var = d.square().mean(dims)
            if self.training:
                self._track(mean.detach(), var.detach() * (count / (count - 1)))
        else:
            d, var = x - self.running_mean.reshape(shape), self.running_var
        y = d / (var + self.eps).sqrt().reshape(shape)
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        return y if self.bias is None else y + self.bias.reshape(shape)

    def _track(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        count = _core.latest(self.num_batches_tracked) + 1
        share = 1 / count.to(mean.dtype) if self.momentum is None else self.momentum
        _core.assign(self.num_batches_tracked, count)
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            before = _core.latest(running)
            _core.assign(running, before * (1 - share) + value.to(running.dtype) * share)

    def extra_repr(self) -> str:
        """Return the options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _ByRow(Module):
    """Normalises over the last dimensions, which have a given shape."""

    def __init__(self, normalized_shape: int | Sequence[int]) -> None:
        super().__init__()
        owner = type(self).__name__
        sizes = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        if not sizes:
            raise ConfigError(f"{owner}: normalized_shape must have at least one dimension, got ()")
        self.normalized_shape = tuple(check_count(owner, "normalized_shape", size) for size in sizes)

    def _dims(self, x: Tensor) -> tuple[int, ...]:
        rank = len(self.normalized_shape)
        if x.shape[-rank:] != self.normalized_shape:
            sizes = ", ".join(map(str, self.normalized_shape))
            raise ShapeError(f"{type(self).__name__}: expected shape (..., {sizes}), got {x.shape}")
        return tuple(range(-rank, 0))


class LayerNorm(_ByRow):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, by row.

    Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Shape of the last dimensions.
    eps : float, default 1e-5
        Added to the variance, which is divided by the count.
    elementwise_affine : bool, default True
        Whether there is a weight.
    bias : bool, default True
        Whether there is a bias, if `elementwise_affine`.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight, bias : Parameter of shape normalized_shape, or None
        Ones and zeros at first.

    Raises
    ------
    ConfigError
        If a size is no count or `eps` negative.
    ShapeError
        When called, if the input's last dimensions are others.

    Notes
    -----
    With ``z = (x - mean) / s``, ``s = sqrt(var + eps)`` and ``h = g weight``:
    ``dx = (h - mean(h) - z mean(h z)) / s``; ``dweight = sum(g z)`` and ``dbias = sum(g)`` over the rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> y = fg.nn.LayerNorm(2)(fg.tensor([[1.0, 3.0]]))
    >>> [round(value, 3) for value in y.tolist()[0]]
    [-1.0, 1.0]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(normalized_shape)
        check_number("eps", eps, low=0.0)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        has_bias = elementwise_affine and bias
        self.register_parameter("weight", _filled(shape, 1.0, dtype, device) if elementwise_affine else None)
        self.register_parameter("bias", _filled(shape, 0.0, dtype, device) if has_bias else None)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        x = operand("input", input)
        dims = self._dims(x)
        d = x - x.mean(dims, keepdim=True)
        y = d / (d.square().mean(dims, keepdim=True) + self.eps).sqrt()
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return the options."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(_ByRow):
    """``y = x / sqrt(mean(x^2) + eps) * weight``, the mean over the last dimensions of each row.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Shape of the last dimensions.
    eps : float or None, default None
        Added to the mean; None takes the rounding unit of the input's dtype.
    elementwise_affine : bool, default True
        Whether there is a weight.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter of shape normalized_shape, or None
        Ones at first.

    Raises
    ------
    ConfigError
        If a size is no count or `eps` negative.
    ShapeError
        When called, if the input's last dimensions are others.

    Notes
    -----
    With ``s = sqrt(mean(x^2) + eps)``, ``z = x / s`` and ``h = g weight``: ``dx = (h - z mean(h z)) / s``;
    ``dweight = sum(g z)`` over the rows.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.RMSNorm(2, eps=0.0)(fg.tensor([[3.0, 3.0]])).tolist()
    [[1.0, 1.0]]
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(normalized_shape)
        if eps is not None:
            check_number("eps", eps, low=0.0)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = _filled(self.normalized_shape, 1.0, dtype, device) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        x = operand("input", input)
        dims = self._dims(x)
        unit = 2.0**-52 if x.dtype == _core.float64 else 2.0**-23
        y = x / (x.square().mean(dims, keepdim=True) + (unit if self.eps is None else self.eps)).sqrt()
        return y if self.weight is None else y * self.weight

    def extra_repr(self) -> str:
        """Return the options."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
