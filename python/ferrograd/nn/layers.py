"""Layers with parameters, and the shape and noise layers that stand between them."""

import math

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike
from ferrograd.convert import operand
from ferrograd.nn import functional, init
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = ["Dropout", "Flatten", "Identity", "Linear", "Maxout"]


def check_count(owner: str, name: str, value: int, minimum: int = 1) -> int:
    """Return `value` if it is an int of at least `minimum`; bools are refused."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < minimum:
        raise ConfigError(f"{owner}: {name} must be an int of at least {minimum}, got {value!r}")
    return value.__index__()


class Linear(Module):
    """Affine map ``y = x W^T + b``.

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last dimension of input and output.
    bias : bool, default True
        Whether b is added.
    device : str or Device, optional
        Only "cpu".
    dtype : dtype, default float32
        Dtype of the parameters.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
        Drawn from ``U(-1/sqrt(in_features), 1/sqrt(in_features))``.
    bias : Parameter of shape (out_features,), or None
        Drawn from the same interval.

    Notes
    -----
    Input ``(..., in_features)``, output ``(..., out_features)``. With the gradient g from above: ``dx = g
    W``, ``dW = g^T x`` and ``db = g`` summed over the batch. PyTorch's layout and initialisation;
    scikit-learn's ``coefs_`` are the transpose.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.Linear(4, 3)
    >>> layer(fg.ones(2, 4)).shape
    (2, 3)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_count("Linear", "in_features", in_features)
        self.out_features = check_count("Linear", "out_features", out_features)
        self.weight = Parameter(_core.empty(out_features, in_features, dtype=dtype, device=device))
        if bias:
            self.bias = Parameter(_core.empty(out_features, dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from `manual_seed`'s generator."""
        bound = 1 / math.sqrt(self.in_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: TensorLike) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        return _core.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


class Maxout(Module):
    """Largest of several affine maps: ``y_j = max over p of (w_jp . x + b_jp)``.

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last dimension of input and output.
    pieces : int, default 2
        Maps per output.
    bias : bool, default True
        Whether the maps have an offset.

    Attributes
    ----------
    linear : Linear
        All maps as one layer; rows ``j * pieces`` to ``(j + 1) * pieces - 1`` belong to output j.

    Notes
    -----
    The gradient goes to the map that is largest, the first at a tie (Goodfellow et al., "Maxout Networks",
    2013).

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Maxout(4, 3)(fg.ones(2, 4)).shape
    (2, 3)
    """

    linear: Module

    def __init__(self, in_features: int, out_features: int, pieces: int = 2, bias: bool = True) -> None:
        super().__init__()
        self.pieces = check_count("Maxout", "pieces", pieces)
        self.linear = Linear(in_features, check_count("Maxout", "out_features", out_features) * pieces, bias)

    def forward(self, input: TensorLike) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        maps: Tensor = self.linear(input)
        return maps.maxout(self.pieces)

    def extra_repr(self) -> str:
        """Return the number of pieces."""
        return f"pieces={self.pieces}"


class Identity(Module):
    """Return the input; a place holder. Arguments are accepted and ignored.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Identity(54, unused=True)(fg.tensor([-1.0, 2.0]))
    tensor([-1.,  2.])
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def forward(self, input: TensorLike) -> Tensor:
        """Return `input`."""
        return operand("input", input)


class Flatten(Module):
    """Merge dimensions into one; by default all but the batch.

    Parameters
    ----------
    start_dim, end_dim : int, default 1 and -1
        First and last dimension merged.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Flatten()(fg.zeros(2, 3, 4)).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: TensorLike) -> Tensor:
        """Map ``(batch, ...)`` to ``(batch, features)``."""
        return operand("input", input).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the dimensions."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Dropout(Module):
    """In training, set elements to zero at random and scale the others by ``1 / (1 - p)``; else do nothing.

    Parameters
    ----------
    p : float, default 0.5
        Probability of zero, in [0, 1].
    inplace : bool, default False
        Accepted for PyTorch's sake; the result is a new tensor either way.

    Raises
    ------
    ConfigError
        If `p` is not in [0, 1].

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.Dropout(0.5)
    >>> sorted(set(layer(fg.ones(1000)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(fg.ones(3))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = functional.check_probability("Dropout", p)
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functional.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"
