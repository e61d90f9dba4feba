"""Activation functions as modules: elementwise, or along one dimension."""

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike
from ferrograd.checks import check_int
from ferrograd.convert import operand
from ferrograd.nn import activation_functions as functions
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]


class ReLU(Module):
    """``max(0, x)``; derivative 1 where ``x > 0``, else 0 (also at 0).

    Parameters
    ----------
    inplace : bool, default False
        Accepted for PyTorch's sake; the result is a new tensor either way, and a plan reuses memory on its
        own.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.ReLU()(fg.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).relu()


class LeakyReLU(Module):
    """``x`` where ``x > 0``, else ``negative_slope * x``; derivative 1 or `negative_slope` (also at 0).

    Parameters
    ----------
    negative_slope : float, default 0.01
        Slope on the negative side. Lectures often draw 0.1.
    inplace : bool, default False
        As for `ReLU`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.LeakyReLU()(fg.tensor([-1.0, 2.0]))
    tensor([-0.0100,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).leaky_relu(self.negative_slope)

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

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.PReLU()(fg.tensor([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
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
        check_int("PReLU: num_parameters", num_parameters, low=1)
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(_core.full((num_parameters,), init, dtype=dtype, device=device))

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).prelu(self.weight)

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

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.ELU()(fg.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).elu(self.alpha)

    def extra_repr(self) -> str:
        """Return alpha."""
        return f"alpha={self.alpha}"


class Sigmoid(Module):
    """``s = 1 / (1 + exp(-x))``; derivative ``s (1 - s)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Sigmoid()(fg.tensor([-1.0, 2.0]))
    tensor([0.2689, 0.8808])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).sigmoid()


class Tanh(Module):
    """``t = tanh(x)``; derivative ``1 - t^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Tanh()(fg.tensor([-1.0, 2.0]))
    tensor([-0.7616,  0.9640])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).tanh()


class Softplus(Module):
    """``log(1 + exp(beta x)) / beta``, or ``x`` where ``beta x > threshold``; derivative ``sigmoid(beta x)``.

    Parameters
    ----------
    beta : float, default 1.0
        Sharpness.
    threshold : float, default 20.0
        Where the linear part begins.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Softplus()(fg.tensor([-1.0, 2.0]))
    tensor([0.3133, 2.1269])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).softplus(self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return beta and the threshold."""
        return f"beta={self.beta}, threshold={self.threshold}"


class CELU(Module):
    """``x`` where ``x > 0``, else ``alpha (exp(x / alpha) - 1)``; derivative 1 or ``exp(x / alpha)``.

    Parameters
    ----------
    alpha : float, default 1.0
        Minus the limit on the negative side, not 0: Barron, "Continuously Differentiable Exponential
        Linear Units", 2017.
    inplace : bool, default False
        As for `ReLU`.

    Raises
    ------
    ConfigError
        If `alpha` is 0 or no finite number.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.CELU()(fg.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = functions.check_alpha("CELU", alpha)
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.celu(input, self.alpha)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"alpha={self.alpha}"


class SELU(Module):
    """``s x`` where ``x > 0``, else ``s a (exp(x) - 1)``; derivative ``s`` or ``s a exp(x)``.

    Parameters
    ----------
    inplace : bool, default False
        As for `ReLU`.

    Notes
    -----
    ``s = 1.0507`` and ``a = 1.67326`` keep mean 0 and variance 1 from layer to layer: Klambauer et al.,
    "Self-Normalizing Neural Networks", 2017.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.SELU()(fg.tensor([1.0, -1.0])).tolist()
    [1.0507010221481323, -1.1113307476043701]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.selu(input)


class GELU(Module):
    """``x Phi(x)``, Phi the normal distribution function; derivative ``Phi(x) + x phi(x)``.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        "tanh" takes ``x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``: Hendrycks and Gimpel, "Gaussian
        Error Linear Units", 2016.

    Raises
    ------
    ConfigError
        If `approximate` is something else.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.GELU()(fg.tensor([0.0, 1.0], dtype=fg.float64)).tolist()
    [0.0, 0.8413447460685429]
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = functions.check_approximate("GELU", approximate)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """``x s`` with ``s = sigmoid(x)``; derivative ``s (1 + x (1 - s))``. Also called swish.

    Parameters
    ----------
    inplace : bool, default False
        As for `ReLU`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.SiLU()(fg.tensor([-1.0, 2.0]))
    tensor([-0.2689,  1.7616])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.silu(input)


class Mish(Module):
    """``x t`` with ``t = tanh(softplus(x))``; derivative ``t + x (1 - t^2) sigmoid(x)``.

    Parameters
    ----------
    inplace : bool, default False
        As for `ReLU`.

    Notes
    -----
    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Mish()(fg.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.9440])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.mish(input)


class Softsign(Module):
    """``x / (1 + abs(x))``; derivative ``1 / (1 + abs(x))^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Softsign()(fg.tensor([-1.0, 2.0]))
    tensor([-0.5000,  0.6667])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.softsign(input)


class LogSigmoid(Module):
    """``-log(1 + exp(-x))``, without overflow; derivative ``sigmoid(-x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.LogSigmoid()(fg.tensor([-1.0, 2.0]))
    tensor([-1.3133, -0.1269])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.logsigmoid(input)


class Tanhshrink(Module):
    """``x - tanh(x)``; derivative ``tanh(x)^2``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Tanhshrink()(fg.tensor([-1.0, 2.0]))
    tensor([-0.2384,  1.0360])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.tanhshrink(input)


class GLU(Module):
    """``a sigmoid(b)``, a and b the halves along `dim`; derivatives ``s`` and ``a s (1 - s)``.

    Parameters
    ----------
    dim : int, default -1
        The dimension that is halved.

    Raises
    ------
    ShapeError
        If the length of the dimension is odd.

    Notes
    -----
    Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2017.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.GLU()(fg.tensor([[1.0, 2.0, 0.0, 0.0]])).tolist()
    [[0.5, 1.0]]
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of half the length along the dimension."""
        return functions.glu(input, self.dim)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"dim={self.dim}"


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

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Softmax(1)(fg.tensor([[0.0, 1.0], [2.0, 2.0]]))
    tensor([[0.2689, 0.7311],
            [0.5000, 0.5000]])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).softmax(self._dim())


class LogSoftmax(_AlongDimension):
    """``x_i - log sum_j exp(x_j)`` along a dimension; derivative ``(i == j) - softmax(x)_j``.

    Parameters
    ----------
    dim : int
        The dimension that is normalised.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.LogSoftmax(1)(fg.tensor([[0.0, 1.0], [2.0, 2.0]]))
    tensor([[-1.3133, -0.3133],
            [-0.6931, -0.6931]])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input).log_softmax(self._dim())


class Softmin(_AlongDimension):
    """``p_i = exp(-x_i) / sum_j exp(-x_j)`` along a dimension; ``dp_i/dx_j = p_i p_j - p_i (i == j)``.

    Parameters
    ----------
    dim : int
        The dimension that sums to one.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Softmin(1)(fg.tensor([[0.0, 1.0], [2.0, 2.0]]))
    tensor([[0.7311, 0.2689],
            [0.5000, 0.5000]])
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.softmin(input, self._dim())
