"""Initial values, written in place and without being recorded; every function returns its tensor.

Random ones take ``generator=``; without it they draw from `manual_seed`'s generator. For a weight
``(outputs, inputs)`` the fans are ``fan_in = inputs`` and ``fan_out = outputs``.
"""

import math
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, Generator, ShapeError, Tensor
from ferrograd._typing import Array
from ferrograd.autograd import no_grad
from ferrograd.checks import check_tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def _check_numbers(owner: str, tensor: Tensor, **values: Any) -> None:
    check_tensor(f"{owner}: tensor", tensor)
    for name, value in values.items():
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise ConfigError(f"{owner}: {name} must be a finite number, got {value!r}")


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from the uniform distribution on [a, b).

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.uniform_(fg.empty(100), -0.5, 0.5)
    >>> bool(w.min() >= -0.5), bool(w.max() < 0.5)
    (True, True)
    """
    _check_numbers("uniform_", tensor, a=a, b=b)
    if a > b:
        raise ConfigError(f"uniform_: a must be at most b, got a={a!r}, b={b!r}")
    return tensor.uniform_(a, b, generator)


@no_grad()
def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Draw from the normal distribution.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.normal_(fg.empty(10000), 1.0, 0.1)
    >>> f"{w.mean().item():.2f} {w.std().item():.2f}"
    '1.00 0.10'
    """
    _check_numbers("normal_", tensor, mean=mean, std=std)
    if std < 0:
        raise ConfigError(f"normal_: std must be at least 0, got {std!r}")
    return tensor.normal_(mean, std, generator)


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Set every element to `val`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.init.constant_(fg.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    _check_numbers("constant_", tensor)
    return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Set every element to zero.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.init.zeros_(fg.empty(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Set every element to one.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.init.ones_(fg.empty(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """Write the identity matrix, ones on the diagonal of a matrix of any shape.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.init.eye_(fg.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    rows, columns = _matrix("eye_", tensor)
    return tensor.copy_(np.eye(rows, columns))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps the variance through an activation.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
        1, 1, 5/3, ``sqrt(2)``, ``sqrt(2 / (1 + slope^2))`` and 3/4.
    param : float, optional
        The slope for "leaky_relu", 0.01 by default.

    Raises
    ------
    ConfigError
        If the name is unknown.

    Examples
    --------
    >>> import ferrograd as fg
    >>> f'{fg.nn.init.calculate_gain("relu"):.4f}'
    '1.4142'
    """
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if not isinstance(nonlinearity, str) or nonlinearity not in gains:
        raise ConfigError(
            f"calculate_gain: nonlinearity must be one of {[*gains, 'leaky_relu']}, got {nonlinearity!r}"
        )
    return gains[nonlinearity]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from U(-b, b), ``b = gain sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio, 2010).

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.xavier_uniform_(fg.empty(100, 50))
    >>> bool(w.abs().max() <= (6 / 150) ** 0.5)
    True
    """
    _check_numbers("xavier_uniform_", tensor, gain=gain)
    bound = gain * math.sqrt(6 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from N(0, s^2), ``s = gain sqrt(2 / (fan_in + fan_out))`` (Glorot and Bengio, 2010).

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.xavier_normal_(fg.empty(100, 100))
    >>> f"{w.std().item():.2f}"
    '0.10'
    """
    _check_numbers("xavier_normal_", tensor, gain=gain)
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans("xavier_normal_", tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Draw from U(-b, b), ``b = gain sqrt(3 / fan)`` (He et al., 2015).

    Parameters
    ----------
    tensor : Tensor
        Weight with at least two dimensions.
    a : float, default 0
        Slope for "leaky_relu".
    mode : {"fan_in", "fan_out"}, default "fan_in"
        Which fan: the first keeps the variance forward, the second backward.
    nonlinearity : str, default "leaky_relu"
        As for `calculate_gain`.
    generator : Generator, optional
        Source of the draws.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.kaiming_uniform_(fg.empty(100, 50), nonlinearity="relu")
    >>> bool(w.abs().max() <= (6 / 50) ** 0.5)
    True
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Draw from N(0, s^2), ``s = gain / sqrt(fan)`` (He et al., 2015); parameters as `kaiming_uniform_`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.kaiming_normal_(fg.empty(200, 50), nonlinearity="relu")
    >>> f"{w.std().item():.1f}"
    '0.2'
    """
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator)


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Write ``gain`` times a random matrix with orthonormal rows or columns (Saxe et al., 2013).

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.orthogonal_(fg.empty(2, 5, dtype=fg.float64))
    >>> bool(((w @ w.T) - fg.eye(2)).abs().max() < 1e-12)
    True
    """
    _check_numbers("orthogonal_", tensor)
    if tensor.ndim < 2:
        raise ShapeError(
            f"orthogonal_: the tensor must have two dimensions or more, got shape {tensor.shape}"
        )
    if tensor.numel() == 0:
        return tensor
    _check_numbers("orthogonal_", tensor, gain=gain)
    rows = tensor.shape[0]
    normal = _standard_normal((rows, tensor.numel() // rows), generator)
    is_wide = rows < normal.shape[1]
    q, r = np.linalg.qr(normal.T if is_wide else normal)
    # Signs from the diagonal of R make the distribution uniform over orthogonal matrices (Mezzadri, 2007).
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return tensor.copy_(gain * (q.T if is_wide else q).reshape(tensor.shape))


@no_grad()
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Draw from the normal distribution cut to [a, b]: what falls outside is drawn again.

    Raises
    ------
    ConfigError
        If less than a ten-thousandth of the distribution lies in [a, b]: drawing again would not end soon.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.trunc_normal_(fg.empty(1000), a=-1.0, b=1.0)
    >>> bool(w.abs().max() <= 1)
    True
    """
    _check_numbers("trunc_normal_", tensor, mean=mean, std=std)
    for name, bound in {"a": a, "b": b}.items():
        if isinstance(bound, bool) or not isinstance(bound, int | float | np.number):
            raise ConfigError(f"trunc_normal_: {name} must be a number, got {bound!r}")
    if std <= 0:
        raise ConfigError(f"trunc_normal_: std must be above 0, got {std!r}")
    inside = 0.5 * (math.erf((b - mean) / std / math.sqrt(2)) - math.erf((a - mean) / std / math.sqrt(2)))
    if inside < 1e-4:
        raise ConfigError(f"trunc_normal_: [a, b] = [{a}, {b}] holds next to nothing of N({mean}, {std}^2)")
    values = mean + std * _standard_normal((tensor.numel(),), generator)
    outside = np.flatnonzero((values < a) | (values > b))
    while outside.size:
        values[outside] = mean + std * _standard_normal((outside.size,), generator)
        outside = outside[(values[outside] < a) | (values[outside] > b)]
    return tensor.copy_(values.reshape(tensor.shape))


@no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Draw a matrix from N(0, std^2) and set the share `sparsity` of each column to zero (Martens, 2010).

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.init.sparse_(fg.empty(10, 3), 0.8)
    >>> (w == 0).sum(0)
    tensor([8, 8, 8])
    """
    rows, columns = _matrix("sparse_", tensor)
    _check_numbers("sparse_", tensor, sparsity=sparsity, std=std)
    if not 0 <= sparsity <= 1:
        raise ConfigError(f"sparse_: sparsity must be in [0, 1], got {sparsity!r}")
    values = std * _standard_normal((rows, columns), generator)
    order = _core.rand(rows, columns, generator=generator, dtype=_core.float64).numpy().argsort(axis=0)
    np.put_along_axis(values, order[: math.ceil(sparsity * rows)], 0.0, axis=0)
    return tensor.copy_(values)


def _standard_normal(shape: tuple[int, ...], generator: Generator | None) -> Array:
    return _core.randn(*shape, generator=generator, dtype=_core.float64).numpy()


def _matrix(owner: str, tensor: Tensor) -> tuple[int, int]:
    check_tensor(f"{owner}: tensor", tensor)
    if tensor.ndim != 2:
        raise ShapeError(f"{owner}: the tensor must be a matrix, got shape {tensor.shape}")
    return tensor.shape[0], tensor.shape[1]


def _fans(owner: str, tensor: Tensor) -> tuple[int, int]:
    check_tensor(f"{owner}: tensor", tensor)
    if tensor.ndim < 2:
        raise ShapeError(f"{owner}: the tensor must have two dimensions or more, got shape {tensor.shape}")
    outputs, inputs, *rest = tensor.shape
    field = math.prod(rest)
    return inputs * field, outputs * field


def _kaiming_std(owner: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan_in, fan_out = _fans(owner, tensor)
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"{owner}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    _check_numbers(owner, tensor, a=a)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)
