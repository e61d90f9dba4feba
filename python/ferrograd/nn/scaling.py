"""Layers of one operation: constants, learned factors and offsets, changes of the gradient alone."""

from collections.abc import Sequence

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike
from ferrograd.checks import check_bool, check_number
from ferrograd.convert import operand
from ferrograd.nn.activation_functions import check_finite
from ferrograd.nn.layers import check_count
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = [
    "Add",
    "AddConstant",
    "Bias",
    "CMul",
    "GradientReversal",
    "Inc",
    "L1Penalty",
    "Mul",
    "MulConstant",
    "Power",
    "Scale",
]


class MulConstant(Module):
    """``y = c x``; derivative c.

    Parameters
    ----------
    constant : float
        The factor c.
    inplace : bool, default False
        Accepted for the lectures' sake; the result is a new tensor either way, so that backward sees what it
        needs.

    Raises
    ------
    ConfigError
        If `constant` is no finite number or `inplace` no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.MulConstant(0.5)(fg.tensor([4.0])).tolist()
    [2.0]
    """

    def __init__(self, constant: float, inplace: bool = False) -> None:
        super().__init__()
        self.constant = check_finite("MulConstant", "constant", constant)
        check_bool("inplace", inplace)
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input) * self.constant

    def extra_repr(self) -> str:
        """Return the constant."""
        return f"constant={self.constant}"


class AddConstant(Module):
    """``y = x + c``; derivative 1.

    Parameters
    ----------
    constant : float
        The summand c.
    inplace : bool, default False
        As for `MulConstant`.

    Raises
    ------
    ConfigError
        If `constant` is no finite number or `inplace` no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.AddConstant(0.5)(fg.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.5000])
    """

    def __init__(self, constant: float, inplace: bool = False) -> None:
        super().__init__()
        self.constant = check_finite("AddConstant", "constant", constant)
        check_bool("inplace", inplace)
        self.inplace = inplace

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input) + self.constant

    def extra_repr(self) -> str:
        """Return the constant."""
        return f"constant={self.constant}"


class Inc(AddConstant):
    """``y = x + step``; derivative 1. `AddConstant` that counts by one.

    Parameters
    ----------
    step : float, default 1.0
        The summand.
    inplace : bool, default False
        As for `MulConstant`.

    Raises
    ------
    ConfigError
        If `step` is no finite number or `inplace` no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Inc()(fg.tensor([1.0, 2.0])).tolist()
    [2.0, 3.0]
    """

    def __init__(self, step: float = 1.0, inplace: bool = False) -> None:
        super().__init__(check_finite("Inc", "step", step), inplace)


class Power(Module):
    """``y = x^p``; derivative ``p x^(p - 1)``.

    Parameters
    ----------
    exponent : float
        The power p. Negative x have no power that is not whole: NaN.

    Raises
    ------
    ConfigError
        If `exponent` is no finite number.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Power(2)(fg.tensor([-1.0, 2.0]))
    tensor([1., 4.])
    """

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = check_finite("Power", "exponent", exponent)

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        return operand("input", input) ** self.exponent

    def extra_repr(self) -> str:
        """Return the exponent."""
        return f"exponent={self.exponent}"


def _sizes(owner: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if not sizes:
        raise ConfigError(f"{owner}: expected at least one size")
    return tuple(check_count(owner, "size", size) for size in sizes)


class CMul(Module):
    """``y = x w``, w learned, broadcast; derivatives w by x and x by w, summed over what was broadcast.

    Parameters
    ----------
    *size : int
        Shape of w.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter of shape size
        Ones at first.

    Raises
    ------
    ConfigError
        If a size is no count.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.CMul(3)(fg.ones(2, 3)).shape
    (2, 3)
    """

    weight: Parameter

    def __init__(self, *size: int, device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.weight = Parameter(_core.full(_sizes("CMul", size), 1.0, dtype=dtype, device=device))

    def forward(self, input: TensorLike) -> Tensor:
        """Return the input's shape, broadcast with the weight's."""
        return operand("input", input) * self.weight

    def extra_repr(self) -> str:
        """Return the size."""
        return ", ".join(map(str, self.weight.shape))


class Mul(Module):
    """``y = w x`` with one learned factor; derivatives w by x and ``sum(g x)`` by w.

    Parameters
    ----------
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter of shape (1,)
        1 at first.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.Mul()
    >>> fg.nn.init.constant_(layer.weight, 3.0).item()
    3.0
    >>> layer(fg.tensor([-1.0, 2.0])).tolist()
    [-3.0, 6.0]
    """

    weight: Parameter

    def __init__(self, device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.weight = Parameter(_core.full((1,), 1.0, dtype=dtype, device=device))

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        x = operand("input", input)
        return (x * self.weight).reshape(x.shape)


class Bias(Module):
    """``y = x + b``, b learned, broadcast; derivatives 1 by x and 1 by b, summed over what was broadcast.

    Parameters
    ----------
    *size : int
        Shape of b.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    bias : Parameter of shape size
        Zeros at first.

    Raises
    ------
    ConfigError
        If a size is no count.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Bias(3)(fg.ones(2, 3)).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    bias: Parameter

    def __init__(self, *size: int, device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.bias = Parameter(_core.full(_sizes(type(self).__name__, size), 0.0, dtype=dtype, device=device))

    def forward(self, input: TensorLike) -> Tensor:
        """Return the input's shape, broadcast with the bias's."""
        return operand("input", input) + self.bias

    def extra_repr(self) -> str:
        """Return the size."""
        return ", ".join(map(str, self.bias.shape))


class Scale(Module):
    """``y = w x + b`` for each feature; derivatives w by x, and x by w and 1 by b, summed over the rows.

    The layer that follows a normalisation without its own factors.

    Parameters
    ----------
    num_features : int
        Length of the last dimension.
    bias : bool, default True
        Whether there is a b.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    weight : Parameter of shape (num_features,)
        Ones at first.
    bias : Parameter of shape (num_features,), or None
        Zeros at first.

    Raises
    ------
    ConfigError
        If `num_features` is no count or `bias` no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Scale(3)(fg.ones(2, 3)).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        num_features: int,
        bias: bool = True,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        check_bool("bias", bias)
        self.num_features = check_count("Scale", "num_features", num_features)
        self.weight = Parameter(_core.full((num_features,), 1.0, dtype=dtype, device=device))
        self.register_parameter(
            "bias",
            Parameter(_core.full((num_features,), 0.0, dtype=dtype, device=device)) if bias else None,
        )

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape, ``(..., num_features)``."""
        x = operand("input", input)
        if x.ndim == 0 or x.shape[-1] != self.num_features:
            raise ShapeError(f"Scale: expected shape (..., {self.num_features}), got {x.shape}")
        scaled = x * self.weight
        return scaled if self.bias is None else scaled + self.bias

    def extra_repr(self) -> str:
        """Return the size."""
        return f"{self.num_features}, bias={self.bias is not None}"


class Add(Bias):
    """`Bias` for one dimension, or one learned offset for all of it.

    Parameters
    ----------
    input_size : int
        Length of the last dimension.
    scalar : bool, default False
        Whether all elements share one offset.
    device, dtype : optional
        As for `Linear`.

    Raises
    ------
    ConfigError
        If `input_size` is no count or `scalar` no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.Add(3)
    >>> layer(fg.zeros(2, 3)).shape
    (2, 3)
    """

    def __init__(
        self,
        input_size: int,
        scalar: bool = False,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        check_bool("scalar", scalar)
        check_count("Add", "input_size", input_size)
        super().__init__(1 if scalar else input_size, device=device, dtype=dtype)


class GradientReversal(Module):
    """``y = x`` with the gradient ``-scale g``: what follows is trained against what stands before.

    It is not the derivative, so that `gradcheck` refuses it. Ganin and Lempitsky, "Unsupervised Domain
    Adaptation by Backpropagation", 2015.

    Parameters
    ----------
    scale : float, default 1.0
        Factor of the reversed gradient.

    Raises
    ------
    ConfigError
        If `scale` is no finite number.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([3.0], requires_grad=True)
    >>> fg.nn.GradientReversal(0.5)(x).sum().backward()
    >>> x.grad.tolist()
    [-0.5]
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = check_finite("GradientReversal", "scale", scale)

    def forward(self, input: TensorLike) -> Tensor:
        """Return the input's values."""
        return _core.activation("reverse_gradient", input, self.scale)

    def extra_repr(self) -> str:
        """Return the scale."""
        return f"scale={self.scale}"


class L1Penalty(Module):
    """``y = x`` with gradient ``g + l1weight sign(x)``: as if ``l1weight sum(abs(x))`` were in the loss.

    The loss that is reported is without it, and the gradient is not the derivative of ``y``, so that
    `gradcheck` refuses it. Only in training; at 0 the sign is 0.

    Parameters
    ----------
    l1weight : float
        Strength of the penalty, at least 0.
    size_average : bool, default False
        Whether it is divided by the number of elements.

    Raises
    ------
    ConfigError
        If `l1weight` is negative or `size_average` no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([3.0, -2.0], requires_grad=True)
    >>> fg.nn.L1Penalty(0.25)(x).sum().backward()
    >>> x.grad.tolist()
    [1.25, 0.75]
    """

    def __init__(self, l1weight: float, size_average: bool = False) -> None:
        super().__init__()
        check_number("l1weight", l1weight, low=0.0)
        check_bool("size_average", size_average)
        self.l1weight = float(l1weight)
        self.size_average = size_average

    def forward(self, input: TensorLike) -> Tensor:
        """Return the input's values."""
        x = operand("input", input)
        if not self.training:
            return x
        share = max(1, x.numel()) if self.size_average else 1
        return _core.activation("l1_penalty", x, self.l1weight / share)

    def extra_repr(self) -> str:
        """Return the strength."""
        return f"l1weight={self.l1weight}, size_average={self.size_average}"
