"""The points that the playground trains on: data sets or the user's table; checks of a request's fields."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ferrograd import datasets
from ferrograd._core import ConfigError
from ferrograd.table import InputError

__all__ = [
    "MOST_CLASSES",
    "MOST_POINTS",
    "SETS",
    "Points",
    "checked",
    "choice",
    "coordinates",
    "integer",
    "make",
    "number",
    "parse_csv",
    "read_csv",
    "shown",
]

MOST_POINTS = 2000
# As many as there are colours.
MOST_CLASSES = 8
# Coordinates beyond this lose their meaning in float32.
_FARTHEST = 1e6

# The noise of each data set with which it looks as its name says.
SETS = {"circles": 0.08, "gauss": 0.35, "moons": 0.12, "spiral": 0.03, "xor": 0.0}

Floats = npt.NDArray[np.float64]


class Points(NamedTuple):
    """Points in the user's units, and how they are scaled for the network.

    ``xy`` float64 (n, 2), ``classes`` int64 (n,), ``names`` of the classes, ``view`` (left, right, bottom,
    top) of the plane that is seen, ``centre`` and ``scale`` (2,): the network sees ``(xy - centre) / scale``.
    """

    xy: Floats
    classes: npt.NDArray[np.int64]
    names: tuple[str, ...]
    view: tuple[float, float, float, float]
    centre: Floats
    scale: Floats

    def scaled(self, xy: Floats) -> npt.NDArray[np.float32]:
        """Return places of the plane as the network sees them."""
        result: npt.NDArray[np.float32] = ((xy - self.centre) / self.scale).astype(np.float32)
        return result

    def nearest(self, x: float, y: float) -> int:
        """Return the index of the point that is nearest as it is seen: by shares of the view."""
        left, right, bottom, top = self.view
        away = (self.xy - (x, y)) / (right - left, top - bottom)
        return int((away**2).sum(axis=1).argmin())

    def with_point(self, x: float, y: float, number: int) -> "Points":
        """Return these and one more; the view grows to hold it."""
        left, right, bottom, top = self.view
        named = self.names
        for new in range(len(named), number + 1):
            # A table's own classes may be numbers.
            named = (*named, f"new {new}" if str(new) in named else str(new))
        return self._replace(
            xy=np.vstack([self.xy, (x, y)]),
            classes=np.append(self.classes, number),
            names=named,
            view=(min(left, x), max(right, x), min(bottom, y), max(top, y)),
        )

    def only(self, kept: npt.NDArray[np.bool_]) -> "Points":
        """Return those that are marked; names, scale and view stay."""
        return self._replace(xy=self.xy[kept], classes=self.classes[kept])


def checked(body: Mapping[str, Any], checks: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """Return the fields of a request, each as its check returns it; raise `ConfigError` for another field."""
    for name in body:
        if name not in checks:
            raise ConfigError(f"{name[:40]}: unknown field, expected some of {', '.join(checks)}")
    return {name: checks[name](name, value) for name, value in body.items()}


def choice(options: Sequence[str]) -> Callable[[str, Any], str]:
    """Return a check that a value is one of these."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            raise ConfigError(f"{name}: expected one of {', '.join(options)}, got {shown(value)}")
        return value

    return check


def integer(low: int, high: int) -> Callable[[str, Any], int]:
    """Return a check that a value is an integer in [low, high]."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name}: expected an integer from {low} to {high}, got {shown(value)}")
        return value

    return check


def number(low: float, high: float) -> Callable[[str, Any], float]:
    """Return a check that a value is a number in [low, high]."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, got {shown(value)}")
        return float(value)

    return check


def shown(value: Any) -> str:
    """Return a value as a message shows it: not the whole of a long one."""
    if isinstance(value, int) and abs(value) > 10**20:
        return "an integer of more than 20 digits"
    try:
        text = repr(value)
    except RecursionError:
        return "something nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


def coordinates(name: str, value: Any, count: int = 2) -> list[Any]:
    """Check that a value is a list that starts with two coordinates; return it."""
    if not isinstance(value, list) or len(value) != count:
        expected = "[x, y]" if count == 2 else "[x, y, class]"
        raise ConfigError(f"{name}: expected {expected}, got {shown(value)}")
    within = number(-_FARTHEST, _FARTHEST)
    return [within(f"{name}: x", value[0]), within(f"{name}: y", value[1]), *value[2:]]


def make(kind: str, n_samples: int, noise: float, seed: int, n_classes: int) -> Points:
    """Return a data set of `ferrograd.datasets`.

    Examples
    --------
    >>> from ferrograd.playground.points import make
    >>> make("circles", n_samples=10, noise=0.0, seed=0, n_classes=2).names
    ('0', '1')
    """
    options: dict[str, Any] = {"n_samples": n_samples, "noise": noise, "seed": seed}
    if kind in ("gauss", "spiral"):
        options["n_classes"] = n_classes
    X, y = getattr(datasets, f"make_{kind}")(**options)
    names = tuple(str(found) for found in range(int(y.max()) + 1))
    xy = X.astype(np.float64)
    return Points(xy, y, names, _view(xy), np.zeros(2), np.ones(2))


def read_csv(path: Path) -> Points:
    """Read a file as `parse_csv` does; raise `InputError` if that cannot be."""
    try:
        return parse_csv(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ConfigError as error:
        raise InputError(str(error)) from error


def parse_csv(text: str, name: str = "csv") -> Points:
    r"""Read rows of two numbers and a class, scaled to mean 0 and variance 1 for the network.

    Parameters
    ----------
    text : str
        Comma-separated; a first row whose first two cells are no numbers is a heading.
    name : str, default "csv"
        What messages call it.

    Returns
    -------
    Points
        Classes are in the order of their names, those of numbers in the order of these.

    Raises
    ------
    ConfigError
        Names the line.

    Examples
    --------
    >>> from ferrograd.playground.points import parse_csv
    >>> parse_csv("width,height,kind\n1,2,tulip\n3,5,rose\n").names
    ('rose', 'tulip')
    """
    places: list[tuple[float, float]] = []
    labels: list[str] = []
    names: set[str] = set()
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    is_first = True
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            is_heading = is_first and not any(_is_number(cell) for cell in row[:2])
            is_first = False
            if is_heading:
                continue
            where = f"{name}, line {reader.line_num}"
            if len(row) != 3:
                raise ConfigError(f"{where}: expected 3 cells (two numbers and a class), got {len(row)}")
            for column, cell in enumerate(row[:2], start=1):
                if _float(cell) is None:
                    raise ConfigError(
                        f"{where}: cell {column}: expected a number within 1e6 of 0, got {shown(cell)}"
                    )
            if not row[2]:
                raise ConfigError(f"{where}: cell 3: expected a class, got an empty cell")
            if len(places) == MOST_POINTS:
                raise ConfigError(f"{where}: expected at most {MOST_POINTS} points, got more")
            places.append((float(row[0]), float(row[1])))
            labels.append(row[2])
            names.add(row[2])
            if len(names) > MOST_CLASSES:
                raise ConfigError(f"{where}: expected at most {MOST_CLASSES} classes, got more")
    except csv.Error as error:
        raise ConfigError(f"{name}, line {reader.line_num}: {error}") from error
    ordered = sorted(names, key=lambda label: (_float(label) is None, _float(label) or 0.0, label))
    if len(ordered) < 2:
        got = f"only {shown(ordered[0])}" if ordered else "no row"
        raise ConfigError(f"{name}: expected rows of at least 2 classes, got {got}")
    xy = np.array(places)
    scale = xy.std(axis=0)
    scale[scale == 0] = 1.0
    classes = np.array([ordered.index(label) for label in labels], dtype=np.int64)
    return Points(xy, classes, tuple(ordered), _view(xy), xy.mean(axis=0), scale)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _float(cell: str) -> float | None:
    value = float(cell) if _is_number(cell) else math.inf
    return value if abs(value) <= _FARTHEST else None


def _view(xy: Floats) -> tuple[float, float, float, float]:
    low, high = xy.min(axis=0), xy.max(axis=0)
    room = np.where(high > low, 0.12 * (high - low), 1.0)
    left, bottom = low - room
    right, top = high + room
    return float(left), float(right), float(bottom), float(top)
