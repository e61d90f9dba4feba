"""Activations made of straight pieces, and those with a random slope."""

from ferrograd._core import Tensor
from ferrograd._typing import TensorLike
from ferrograd.nn import activation_functions as functions
from ferrograd.nn.module import Module

__all__ = [
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "RReLU",
    "ReLU6",
    "Softshrink",
    "Threshold",
]


class Hardtanh(Module):
    """``x`` held in [min_val, max_val]; derivative 1 inside, 0 at the ends and beyond.

    Parameters
    ----------
    min_val : float, default -1.0
        Smallest value.
    max_val : float, default 1.0
        Largest value.
    inplace : bool, default False
        As for `ReLU`.

    Raises
    ------
    ConfigError
        If `max_val` is below `min_val`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Hardtanh()(fg.tensor([-3.0, 0.5, 2.0])).tolist()
    [-1.0, 0.5, 1.0]
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        functions.check_interval("Hardtanh", ("min_val", "max_val"), min_val, max_val)
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Module):
    """``x`` held in [0, 6]; derivative 1 inside, 0 at the ends and beyond.

    Parameters
    ----------
    inplace : bool, default False
        As for `ReLU`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.ReLU6()(fg.tensor([-1.0, 2.0, 8.0]))
    tensor([0., 2., 6.])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.relu6(input)


class Hardsigmoid(Module):
    """``x / 6 + 1/2`` held in [0, 1]; derivative 1/6 where ``-3 < x < 3``, else 0.

    Parameters
    ----------
    inplace : bool, default False
        As for `ReLU`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Hardsigmoid()(fg.tensor([-4.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.hardsigmoid(input)


class Hardswish(Module):
    """``x hardsigmoid(x)``; derivative ``x / 3 + 1/2`` where ``-3 < x < 3``, 0 below, 1 above.

    Parameters
    ----------
    inplace : bool, default False
        As for `ReLU`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Hardswish()(fg.tensor([-4.0, 1.0, 4.0]))
    tensor([0.0000, 0.6667, 4.0000])
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.hardswish(input)


class Hardshrink(Module):
    """``x`` where ``abs(x) > lambd``, else 0; derivative 1 or 0.

    Parameters
    ----------
    lambd : float, default 0.5
        Half the width of the gap, at least 0.

    Raises
    ------
    ConfigError
        If `lambd` is below 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Hardshrink()(fg.tensor([-0.3, 0.6]))
    tensor([0.0000, 0.6000])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = functions.check_lambd("Hardshrink", lambd)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"lambd={self.lambd}"


class Softshrink(Module):
    """``x`` moved towards 0 by `lambd`, at most to 0; derivative 1 where ``abs(x) > lambd``, else 0.

    Parameters
    ----------
    lambd : float, default 0.5
        How far, at least 0.

    Raises
    ------
    ConfigError
        If `lambd` is below 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Softshrink()(fg.tensor([-2.0, 0.25, 1.0])).tolist()
    [-1.5, 0.0, 0.5]
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = functions.check_lambd("Softshrink", lambd)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"lambd={self.lambd}"


class Threshold(Module):
    """``x`` where ``x > threshold``, else `value`; derivative 1 or 0.

    Parameters
    ----------
    threshold : float
        What x must exceed.
    value : float
        What stands for the others.
    inplace : bool, default False
        As for `ReLU`.

    Raises
    ------
    ConfigError
        If a number is not finite.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Threshold(0.5, -1.0)(fg.tensor([0.1, 0.7]))
    tensor([-1.0000,  0.7000])
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = functions.check_finite("Threshold", "threshold", threshold)
        self.value = functions.check_finite("Threshold", "value", value)
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.threshold(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"threshold={self.threshold}, value={self.value}"


class RReLU(Module):
    """In training ``x`` where ``x > 0``, else ``a x`` with random a; in evaluation a is their mean.

    Parameters
    ----------
    lower : float, default 1 / 8
        Lower end of the interval that a is drawn from, for each element at each call.
    upper : float, default 1 / 3
        Upper end.
    inplace : bool, default False
        As for `ReLU`.

    Raises
    ------
    ConfigError
        If `upper` is below `lower`.

    Notes
    -----
    Derivative 1 or a. Xu et al., "Empirical Evaluation of Rectified Activations", 2015.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.RReLU(0.1, 0.3).eval()(fg.tensor([-2.0, 2.0]))
    tensor([-0.4000,  2.0000])
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        functions.check_interval("RReLU", ("lower", "upper"), lower, upper)
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return functions.rrelu(input, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"lower={self.lower}, upper={self.upper}"
