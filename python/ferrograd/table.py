"""Reading of data files for the command line: CSV with a header, and numpy archives."""

import csv
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ferrograd._typing import Array

__all__ = ["InputError", "Table", "read_features", "read_table"]


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line that says what and where."""


class Table(NamedTuple):
    """Features (rows, columns) as float64 with their names, and the target column (rows,)."""

    X: npt.NDArray[np.float64]
    y: Array
    columns: list[str]
    target: str


def read_table(path: Path, target: str | None) -> Table:
    """Read features and target.

    Parameters
    ----------
    path : Path
        ``.csv``: a header, numbers in every column but the target, which may be text. ``.npz``: an array
        ``X`` (rows, ...) and the target (rows,).
    target : str, optional
        Column or array to predict; the last column, or the array ``y``.

    Returns
    -------
    Table
        The target is float64 if all of it are numbers, else text.

    Raises
    ------
    InputError
        If the file is missing or is not as described; the message names the line and the column.
    """
    if path.suffix == ".npz":
        with _open_archive(path) as archive:
            name = target or "y"
            X = _features(path, archive)
            y = _array(path, archive, name)
        if y.shape != (len(X),):
            raise InputError(f"{path}: {name!r} should have shape {(len(X),)}, has {y.shape}")
        if y.dtype.kind not in "biufUS":
            raise InputError(f"{path}: {name!r} should hold numbers or text, has dtype {y.dtype}")
        y = y.astype(str) if y.dtype.kind in "US" else y.astype(np.float64)
        if y.dtype.kind == "f":
            _check_finite(path, name, y)
        return Table(X, y, _numbered(X), name)

    header, lines, rows = _read_csv(path)
    name = target if target is not None else header[-1]
    if name not in header:
        raise InputError(f"{path}: no column {name!r}, there are {', '.join(header)}")
    columns = [column for column in header if column != name]
    if not columns:
        raise InputError(f"{path}: there is no column besides the target {name!r}")
    X = _numbers(path, header, lines, rows, columns)
    cells = [row[header.index(name)].strip() for row in rows]
    for line, cell in zip(lines, cells, strict=True):
        if not cell:
            raise InputError(f"{path}, line {line}: column {name!r} is empty")
    if all(_is_number(cell) for cell in cells):
        return Table(X, np.array([float(cell) for cell in cells]), columns, name)
    return Table(X, np.array(cells), columns, name)


def read_features(path: Path, columns: list[str]) -> npt.NDArray[np.float64]:
    """Read the named columns of a CSV file, in this order, or ``X`` of a numpy archive.

    Raises
    ------
    InputError
        If the file is missing, lacks a column, or holds something that is no number.
    """
    if path.suffix == ".npz":
        with _open_archive(path) as archive:
            X = _features(path, archive)
        if X.shape[1] != len(columns):
            raise InputError(
                f"{path}: the model was trained on {len(columns)} features, 'X' has {X.shape[1]}"
            )
        return X
    header, lines, rows = _read_csv(path)
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}, which the model was trained on")
    return _numbers(path, header, lines, rows, columns)


def _check_is_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: is not a file")


def _open_archive(path: Path) -> "np.lib.npyio.NpzFile":
    _check_is_file(path)
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is no numpy archive") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: is no numpy archive")
    return archive


def _array(path: Path, archive: "np.lib.npyio.NpzFile", name: str) -> Array:
    if name not in archive.files:
        raise InputError(f"{path}: no array {name!r}, there are {', '.join(archive.files) or 'none'}")
    try:
        array: Array = archive[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: array {name!r} cannot be read: {error}") from error
    return array


def _features(path: Path, archive: "np.lib.npyio.NpzFile") -> npt.NDArray[np.float64]:
    X = _array(path, archive, "X")
    if X.ndim < 2 or 0 in X.shape:
        raise InputError(f"{path}: 'X' should have rows and columns, has shape {X.shape}")
    if X.dtype.kind not in "biuf":
        raise InputError(f"{path}: 'X' should hold numbers, has dtype {X.dtype}")
    X = X.reshape(len(X), -1).astype(np.float64)
    _check_finite(path, "X", X)
    return X


def _check_finite(path: Path, name: str, array: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{path}: {name!r} holds {array[index]} at {index}")


def _numbered(X: Array) -> list[str]:
    return [f"x{number}" for number in range(X.shape[1])]


def _read_csv(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """Return the header, and the rows with the lines of the file they end on."""
    _check_is_file(path)
    lines, rows = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if row:
                    lines.append(reader.line_num)
                    rows.append(row)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not header:
        raise InputError(f"{path}: is empty, expected a header and rows")
    if all(_is_number(name) for name in header):
        raise InputError(f"{path}, line 1: expected a header with column names, got numbers only")
    repeated = [name for number, name in enumerate(header) if name in header[:number]]
    if repeated:
        raise InputError(f"{path}, line 1: column {repeated[0]!r} appears twice")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: expected {len(header)} cells, got {len(row)}")
    return header, lines, rows


def _numbers(
    path: Path, header: list[str], lines: list[int], rows: list[list[str]], columns: list[str]
) -> npt.NDArray[np.float64]:
    positions = [header.index(column) for column in columns]
    try:
        X = np.array([[float(row[position]) for position in positions] for row in rows], dtype=np.float64)
    except ValueError:
        X = np.array([[math.nan]])
    if np.isfinite(X).all():
        return X.reshape(len(rows), len(columns))
    # Something is wrong: look again, slowly, for the first place.
    for line, row in zip(lines, rows, strict=True):
        for column, position in zip(columns, positions, strict=True):
            if not _is_number(row[position]):
                got = "an empty cell" if not row[position].strip() else repr(row[position])
                raise InputError(f"{path}, line {line}: column {column!r} should be a number, got {got}")
    raise AssertionError("a cell that is no finite number was seen but not found")


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
