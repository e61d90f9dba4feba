"""Checks at the boundary of a training run: arrays that the native side reads in place, options in range."""

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from ferrograd._core import ConfigError, DTypeError, ShapeError, Tensor
from ferrograd._typing import Array, TensorLike

__all__ = [
    "as_list",
    "as_table",
    "check_bool",
    "check_callable",
    "check_int",
    "check_number",
    "check_path",
    "check_tensor",
]


def as_table(name: str, data: TensorLike | None) -> Array:
    """Return data as an array of a real dtype that the native side can read; a copy only if it must be."""
    if data is None:
        raise DTypeError(f"{name}: expected an array, got None")
    if isinstance(data, Tensor):
        return data.numpy()
    if hasattr(data, "toarray") and hasattr(data, "nnz"):
        raise DTypeError(f"{name}: expected a dense array, got a sparse matrix; use {name}.toarray()")
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"{name}: expected rows of equal length; {error}") from error
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise ConfigError(f"{name}: masked elements have no value; fill them with .filled(value)")
    if array.dtype.kind == "O":
        try:
            is_integer = all(isinstance(value, int | np.integer) for value in array.flat)
            array = array.astype(np.int64 if is_integer else np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DTypeError(f"{name}: expected real numbers, got objects; {error}") from error
    if array.dtype.kind not in "biuf":
        hint = (
            "; encode classes as integers, as numpy.unique(y, return_inverse=True) does"
            if name == "y"
            else ""
        )
        raise DTypeError(f"{name}: expected real numbers, got dtype {array.dtype}{hint}")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim > 2 and not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array


def as_list(name: str, expected: str, values: Any) -> list[Any]:
    """Return the values as a list; raise `DTypeError` if there are none to go through."""
    if not isinstance(values, Iterable):
        raise DTypeError(f"{name}: expected {expected}, got {values!r}")
    return list(values)


def check_tensor(name: str, value: Any) -> None:
    """Raise `DTypeError` unless `value` is a Tensor."""
    if not isinstance(value, Tensor):
        raise DTypeError(f"{name}: expected a Tensor, got {value!r}")


def check_path(owner: str, path: Any) -> str:
    """Return the path of a file; raise `DTypeError` if it is none."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise DTypeError(f"{owner}: path must be a str or a path, got {path!r}") from None


def check_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise `ConfigError` unless `value` is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name}: expected an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        bound = f"at least {low}" if high is None or value < low else f"at most {high}"
        raise ConfigError(f"{name}: expected {bound}, got {value}")


def check_bool(name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is a bool."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name}: expected True or False, got {value!r}")


def check_callable(owner: str, func: Any) -> None:
    """Raise `ConfigError` unless `func` can be called."""
    if not callable(func):
        raise ConfigError(f"{owner}: expected a function, got {func!r}")


def check_number(name: str, value: Any, low: float, *, open_low: bool = False) -> None:
    """Raise `ConfigError` unless `value` is a finite number of at least `low`, or above it if `open_low`."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < low or (open_low and value == low):
        bound = f"above {low:g}" if open_low else f"of at least {low:g}"
        raise ConfigError(f"{name}: expected a finite number {bound}, got {value!r}")
