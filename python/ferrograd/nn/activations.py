"""Activation functions as modules: elementwise, or along one dimension."""

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter
from ferrograd.ops import as_tensor

__all__ = ["ELU", "LeakyReLU", "LogSoftmax", "PReLU", "ReLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Module):
    """``max(0, x)``; derivative 1 where ``x > 0``, else 0 (also at 0).

    Parameters
    ----------
    inplace : bool, default False
        Accepted for PyTorch's sake; the result is a new tensor either way, and a plan reuses memory on its
        own.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).relu()


class LeakyReLU(Module):
    """``x`` where ``x > 0``, else ``negative_slope * x``; derivative 1 or `negative_slope` (also at 0).

    Parameters
    ----------
    negative_slope : float, default 0.01
        Slope on the negative side. Lectures often draw 0.1.
    inplace : bool, default False
        As for `ReLU`.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).leaky_relu(self.negative_slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """``x`` where ``x > 0``, else ``a x`` with a learned: He et al., "Delving Deep into Rectifiers", 2015.

    Parameters
    ----------
    num_parameters : int, default 1
        1, or the number of channels (length of dimension 1).
    init : float, default 0.25
        First value of a.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter, shape (num_parameters,)
        The slope a; its gradient is ``g x`` summed where ``x <= 0``.
    """

    weight: Parameter

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if isinstance(num_parameters, bool) or num_parameters < 1:
            raise ConfigError(f"PReLU: num_parameters must be at least 1, got {num_parameters!r}")
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(_core.full((num_parameters,), init, dtype=dtype, device=device))

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).prelu(self.weight)

    def extra_repr(self) -> str:
        """Return the number of slopes."""
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """``x`` where ``x > 0``, else ``alpha (exp(x) - 1)``; derivative 1 or ``alpha exp(x)``.

    Parameters
    ----------
    alpha : float, default 1.0
        Minus the limit on the negative side.
    inplace : bool, default False
        As for `ReLU`.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).elu(self.alpha)

    def extra_repr(self) -> str:
        """Return alpha."""
        return f"alpha={self.alpha}"


class Sigmoid(Module):
    """``s = 1 / (1 + exp(-x))``; derivative ``s (1 - s)``."""

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).sigmoid()


class Tanh(Module):
    """``t = tanh(x)``; derivative ``1 - t^2``."""

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).tanh()


class Softplus(Module):
    """``log(1 + exp(beta x)) / beta``, or ``x`` where ``beta x > threshold``; derivative ``sigmoid(beta x)``.

    Parameters
    ----------
    beta : float, default 1.0
        Sharpness.
    threshold : float, default 20.0
        Where the linear part begins.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).softplus(self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return beta and the threshold."""
        return f"beta={self.beta}, threshold={self.threshold}"


class _AlongDimension(Module):
    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def _dim(self) -> int:
        if self.dim is None:
            raise ConfigError(f"{type(self).__name__}: dim must be given, for instance dim=-1")
        return self.dim

    def extra_repr(self) -> str:
        """Return the dimension."""
        return f"dim={self.dim}"


class Softmax(_AlongDimension):
    """``p_i = exp(x_i) / sum_j exp(x_j)`` along a dimension; ``dp_i/dx_j = p_i (i == j) - p_i p_j``.

    Parameters
    ----------
    dim : int
        The dimension that sums to one. `CrossEntropyLoss` takes logits: put no softmax before it.
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).softmax(self._dim())


class LogSoftmax(_AlongDimension):
    """``x_i - log sum_j exp(x_j)`` along a dimension; derivative ``(i == j) - softmax(x)_j``.

    Parameters
    ----------
    dim : int
        The dimension that is normalised.
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return as_tensor(input).log_softmax(self._dim())
