"""Splitting rows into a part to train on and a part to test on."""

import numpy as np
import numpy.typing as npt

from ferrograd._core import ConfigError, ShapeError
from ferrograd._typing import Array

__all__ = ["train_test_split"]


def train_test_split(
    *arrays: npt.ArrayLike,
    test_size: float = 0.25,
    shuffle: bool = True,
    seed: int | None = None,
    stratify: npt.ArrayLike | None = None,
) -> list[Array]:
    """Split the rows of several arrays in the same way.

    Parameters
    ----------
    *arrays : array_like
        The same number of rows, at least 2.
    test_size : float or int, default 0.25
        Share of the rows, in (0, 1), rounded up; or a number of rows.
    shuffle : bool, default True
        Whether rows are drawn at random; otherwise the test part is the end.
    seed : int, optional
        Makes the draw repeatable.
    stratify : array_like, optional
        Classes that both parts hold in their share, to a row.

    Returns
    -------
    list of ndarray
        For each array its training part and its test part.

    Raises
    ------
    ShapeError
        If the numbers of rows differ.
    ConfigError
        If a part would be empty, or `stratify` comes with ``shuffle=False`` or with a class that has one row.

    Examples
    --------
    >>> import numpy as np, ferrograd as fg
    >>> X_train, X_test = fg.datasets.train_test_split(np.arange(8), test_size=2, shuffle=False)
    >>> X_test.tolist()
    [6, 7]
    """
    if not arrays:
        raise ConfigError("train_test_split: at least one array is needed")
    columns = [np.asarray(array) for array in arrays]
    for column in columns:
        if column.ndim == 0 or len(column) != len(columns[0]):
            shapes = [column.shape for column in columns]
            raise ShapeError(f"train_test_split: arrays must have the same number of rows, got {shapes}")
    rows = len(columns[0])
    if isinstance(test_size, bool) or not np.isfinite(test_size) or test_size <= 0:
        raise ConfigError(
            f"train_test_split: test_size must be a share or a number of rows, got {test_size!r}"
        )
    n_test = int(np.ceil(test_size * rows)) if test_size < 1 else int(test_size)
    if (test_size >= 1 and n_test != test_size) or n_test >= rows:
        raise ConfigError(
            f"train_test_split: test_size {test_size!r} leaves nothing to train on of {rows} rows"
        )

    rng = np.random.default_rng(seed)
    if stratify is not None:
        if not shuffle:
            raise ConfigError("train_test_split: stratify needs shuffle=True")
        test, train = _stratified(np.asarray(stratify), rows, n_test, rng)
    else:
        order = rng.permutation(rows) if shuffle else np.r_[rows - n_test : rows, 0 : rows - n_test]
        test, train = order[:n_test], order[n_test:]
    return [part for column in columns for part in (column[train], column[test])]


def _stratified(
    classes: Array, rows: int, n_test: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    if classes.shape != (rows,):
        raise ShapeError(f"train_test_split: stratify must have shape {(rows,)}, got {classes.shape}")
    _, membership, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ConfigError("train_test_split: stratify has a class with a single row")
    if n_test < len(counts) or rows - n_test < len(counts):
        raise ConfigError(f"train_test_split: {len(counts)} classes do not fit into a part of {n_test} rows")
    # Each class gets its share rounded down; the rows left over go to the largest remainders.
    share = counts * n_test / rows
    quota = np.floor(share).astype(int)
    short = n_test - int(quota.sum())
    quota[np.argsort(quota - share, kind="stable")[:short]] += 1
    test_parts, train_parts = [], []
    for number, count in enumerate(quota):
        members = rng.permutation(np.flatnonzero(membership == number))
        test_parts.append(members[:count])
        train_parts.append(members[count:])
    return rng.permutation(np.concatenate(test_parts)), rng.permutation(np.concatenate(train_parts))
