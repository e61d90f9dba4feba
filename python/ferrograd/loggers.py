"""Callbacks that write a line for each epoch to a file: tables for a spreadsheet, JSON for programs."""

import csv
import json
import math
import os
from typing import IO, Any

from ferrograd._core import ConfigError
from ferrograd.callbacks import Callback
from ferrograd.checks import check_bool

__all__ = ["CSVLogger", "JSONLinesLogger"]

PathLike = str | os.PathLike[str]


class _Logger(Callback):
    """A file that every epoch adds a line to. It is open for that moment only: no error leaves it so."""

    def __init__(self, path: PathLike, append: bool = False) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"path: expected a path, got {path!r}")
        check_bool("append", append)
        self.path = os.fspath(path)
        self.append = append

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Make the file; an earlier one is emptied unless `append` is set."""
        with self._open("a" if self.append else "w"):
            pass

    def _open(self, mode: str) -> IO[str]:
        return open(self.path, mode, newline="", encoding="utf-8")


class CSVLogger(_Logger):
    """Write epochs to a CSV file: a heading, then a row an epoch with its number, counted from 0.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist.
    append : bool, default False
        Whether rows are added to a file that is there, under its heading, instead of replacing it.

    Raises
    ------
    ConfigError
        If an argument has the wrong kind, or an epoch has other values than the heading says.
    OSError
        If the file cannot be written, when the fit begins.

    Examples
    --------
    >>> import ferrograd as fg, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "log.csv")
    >>> model = fg.nn.Linear(2, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.0))
    >>> log = fg.CSVLogger(path)
    >>> history = trainer.fit(fg.ones(4, 2), fg.ones(4, 1), epochs=2, callbacks=[log], progress=False)
    >>> path.read_text().splitlines()[0], len(path.read_text().splitlines())
    ('epoch,loss', 3)
    """

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Make the file, and read the heading of one that goes on."""
        super().on_train_begin(logs)
        with self._open("r") as file:
            self._names: list[str] | None = next(csv.reader(file), None)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Write the row."""
        row: dict[str, Any] = {"epoch": epoch, **logs}
        names = list(row) if self._names is None else self._names
        if sorted(row) != sorted(names):
            raise ConfigError(f"{self.path}: expected the columns {names}, got {list(row)}")
        with self._open("a") as file:
            writer = csv.writer(file, lineterminator="\n")
            if self._names is None:
                writer.writerow(names)
            writer.writerow([row[name] for name in names])
        self._names = names


class JSONLinesLogger(_Logger):
    """Write epochs to a file of JSON lines: an object an epoch; NaN and infinity, which JSON lacks, as null.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist.
    append : bool, default False
        Whether lines are added to a file that is there instead of replacing it.

    Raises
    ------
    ConfigError
        If an argument has the wrong kind.
    OSError
        If the file cannot be written, when the fit begins.

    Examples
    --------
    >>> import ferrograd as fg, json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "log.jsonl")
    >>> model = fg.nn.Linear(2, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.0))
    >>> log = fg.JSONLinesLogger(path)
    >>> history = trainer.fit(fg.ones(4, 2), fg.ones(4, 1), epochs=2, callbacks=[log], progress=False)
    >>> sorted(json.loads(path.read_text().splitlines()[1]))
    ['epoch', 'loss']
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Write the line."""
        values = {name: value if math.isfinite(value) else None for name, value in logs.items()}
        with self._open("a") as file:
            file.write(json.dumps({"epoch": epoch, **values}, allow_nan=False) + "\n")
