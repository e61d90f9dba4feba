"""Layers that disturb their input in training; a plan draws anew at each step."""

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.checks import check_number
from ferrograd.convert import operand
from ferrograd.nn import functional
from ferrograd.nn.module import Module

__all__ = ["AlphaDropout", "GaussianNoise"]

# Minus scale times alpha of SELU: what a unit is at the far left, and is set to where it is dropped.
_DROPPED = -1.7580993408473766


class AlphaDropout(Module):
    """In training, set elements to SELU's left limit at random, so that mean 0 and variance 1 are kept.

    ``y = a (x m + c (1 - m)) + b`` with m 1 or 0, ``c = -1.7581``, ``a = ((1 - p) (1 + p c^2))^(-1/2)`` and
    ``b = -a p c``; derivative ``a m``. Klambauer et al., "Self-Normalizing Neural Networks", 2017.

    Parameters
    ----------
    p : float, default 0.5
        Probability of dropping, in [0, 1].
    inplace : bool, default False
        Accepted for PyTorch's sake; the result is a new tensor either way.

    Raises
    ------
    ConfigError
        If `p` is not in [0, 1].

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.AlphaDropout(0.2).eval()(fg.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = functional.check_probability("AlphaDropout", p)
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        x, p = operand("input", input), self.p
        if not self.training or p == 0:
            return x
        if p == 1:
            return x * 0.0
        a: float = ((1 - p) * (1 + p * _DROPPED**2)) ** -0.5
        kept = _core.dropout_mask(x.shape, p, x.dtype) > 0
        return _core.where(kept, x, _DROPPED) * a - a * p * _DROPPED

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class GaussianNoise(Module):
    """In training, add normal noise, ``y = x + std e``; derivative 1. As a first layer it is input noise.

    Parameters
    ----------
    std : float, default 0.1
        Standard deviation, at least 0.

    Raises
    ------
    ConfigError
        If `std` is negative or no finite number.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.GaussianNoise(0.5).eval()(fg.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, std: float = 0.1) -> None:
        super().__init__()
        check_number("std", std, low=0.0)
        self.std = float(std)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        x = operand("input", input)
        if not self.training or self.std == 0:
            return x
        return x + _core.noise(x.shape, True, x.dtype) * self.std

    def extra_repr(self) -> str:
        """Return the standard deviation."""
        return f"std={self.std}"
