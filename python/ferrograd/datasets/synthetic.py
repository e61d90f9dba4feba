"""Points in the plane with classes: small problems on which a network can be watched."""

import operator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ferrograd._core import ConfigError

__all__ = ["Dataset", "make_circles", "make_gauss", "make_moons", "make_spiral", "make_xor"]


class Dataset(NamedTuple):
    """Features ``X``, float32 of shape (rows, features), and classes ``y``, int64 of shape (rows,).

    Examples
    --------
    >>> import ferrograd as fg
    >>> data = fg.datasets.make_moons(n_samples=4, seed=0)
    >>> data.X is data[0], data.y.tolist() == data[1].tolist()
    (True, True)
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]


def make_moons(n_samples: int = 100, noise: float = 0.0, seed: int | None = None) -> Dataset:
    """Two half circles that interlock.

    Parameters
    ----------
    n_samples : int, default 100
        Points; the first class gets half, rounded down.
    noise : float, default 0.0
        Standard deviation of what is added to each coordinate.
    seed : int, optional
        Makes the draw repeatable.

    Returns
    -------
    Dataset
        Named tuple ``(X, y)``: (n_samples, 2) float32, (n_samples,) int64, in random order.

    Raises
    ------
    ConfigError
        If `n_samples` is no int of at least 2, or `noise` is negative.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_moons(seed=0)
    >>> X.shape, y.shape
    ((100, 2), (100,))
    """
    first, second = _halves("make_moons", n_samples)
    upper, lower = np.linspace(0, np.pi, first), np.linspace(0, np.pi, second)
    points = np.concatenate(
        [
            np.column_stack([np.cos(upper), np.sin(upper)]),
            np.column_stack([1 - np.cos(lower), 0.5 - np.sin(lower)]),
        ]
    )
    return _finish(
        "make_moons", points, np.repeat([0, 1], [first, second]), noise, np.random.default_rng(seed)
    )


def make_circles(
    n_samples: int = 100, noise: float = 0.0, factor: float = 0.5, seed: int | None = None
) -> Dataset:
    """A circle of radius 1 around one of radius `factor`.

    Parameters
    ----------
    n_samples, noise, seed
        As `make_moons`.
    factor : float, default 0.5
        Radius of the inner circle, class 1, in [0, 1).

    Returns
    -------
    Dataset
        Named tuple ``(X, y)``, as `make_moons`.

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_circles(seed=0)
    >>> X.shape, y.shape
    ((100, 2), (100,))
    """
    if not 0 <= factor < 1:
        raise ConfigError(f"make_circles: factor must lie in [0, 1), got {factor!r}")
    outer, inner = _halves("make_circles", n_samples)
    angles = np.concatenate([np.linspace(0, 2 * np.pi, count, endpoint=False) for count in (outer, inner)])
    classes = np.repeat([0, 1], [outer, inner])
    radius = np.where(classes == 0, 1.0, factor)
    points = np.column_stack([radius * np.cos(angles), radius * np.sin(angles)])
    return _finish("make_circles", points, classes, noise, np.random.default_rng(seed))


def make_spiral(
    n_samples: int = 100, noise: float = 0.0, turns: float = 1.0, n_classes: int = 2, seed: int | None = None
) -> Dataset:
    """Spirals that wind out of the origin, one for each class.

    Parameters
    ----------
    n_samples, noise, seed
        As `make_moons`; classes differ by at most one point.
    turns : float, default 1.0
        Turns of a spiral between radius 0 and 1, above 0.
    n_classes : int, default 2
        Spirals, at least 2.

    Returns
    -------
    Dataset
        Named tuple ``(X, y)``, as `make_moons`.

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_spiral(seed=0)
    >>> X.shape, y.shape
    ((100, 2), (100,))
    """
    n_samples = _count("make_spiral", "n_samples", n_samples, 2)
    n_classes = _count("make_spiral", "n_classes", n_classes, 2)
    if not turns > 0:
        raise ConfigError(f"make_spiral: turns must be above 0, got {turns!r}")
    counts = [len(part) for part in np.array_split(np.arange(n_samples), n_classes)]
    radius = np.concatenate([np.linspace(0, 1, count) for count in counts])
    classes = np.repeat(np.arange(n_classes), counts)
    angles = 2 * np.pi * (turns * radius + classes / n_classes)
    points = np.column_stack([radius * np.cos(angles), radius * np.sin(angles)])
    return _finish("make_spiral", points, classes, noise, np.random.default_rng(seed))


def make_xor(n_samples: int = 100, noise: float = 0.0, seed: int | None = None) -> Dataset:
    """Points in the square [-1, 1] x [-1, 1], class 1 where the signs of the coordinates differ.

    Parameters
    ----------
    n_samples, noise, seed
        As `make_moons`. Classes are given before the noise is added.

    Returns
    -------
    Dataset
        Named tuple ``(X, y)``, as `make_moons`.

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_xor(seed=0)
    >>> X.shape, y.shape
    ((100, 2), (100,))
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (_count("make_xor", "n_samples", n_samples, 2), 2))
    return _finish("make_xor", points, ((points[:, 0] > 0) != (points[:, 1] > 0)).astype(int), noise, rng)


def make_gauss(
    n_samples: int = 100, noise: float = 0.5, n_classes: int = 2, seed: int | None = None
) -> Dataset:
    """Normal clouds around points on the unit circle, one for each class.

    Parameters
    ----------
    n_samples, seed
        As `make_moons`; classes differ by at most one point.
    noise : float, default 0.5
        Standard deviation of each cloud.
    n_classes : int, default 2
        Clouds, at least 2.

    Returns
    -------
    Dataset
        Named tuple ``(X, y)``, as `make_moons`.

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_gauss(seed=0)
    >>> X.shape, y.shape
    ((100, 2), (100,))
    """
    n_samples = _count("make_gauss", "n_samples", n_samples, 2)
    classes = np.sort(np.arange(n_samples) % _count("make_gauss", "n_classes", n_classes, 2))
    angles = 2 * np.pi * classes / n_classes
    points = np.column_stack([np.cos(angles), np.sin(angles)])
    return _finish("make_gauss", points, classes, noise, np.random.default_rng(seed))


def _count(owner: str, name: str, value: int, minimum: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < minimum:
        raise ConfigError(f"{owner}: {name} must be an int of at least {minimum}, got {value!r}")
    return operator.index(value)


def _halves(owner: str, n_samples: int) -> tuple[int, int]:
    n_samples = _count(owner, "n_samples", n_samples, 2)
    return n_samples // 2, n_samples - n_samples // 2


def _finish(
    owner: str,
    points: npt.NDArray[np.float64],
    classes: npt.NDArray[np.int_],
    noise: float,
    rng: np.random.Generator,
) -> Dataset:
    if not noise >= 0:
        raise ConfigError(f"{owner}: noise must be at least 0, got {noise!r}")
    if noise:
        points = points + rng.normal(0.0, noise, points.shape)
    order = rng.permutation(len(points))
    return Dataset(points[order].astype(np.float32), classes[order].astype(np.int64))
