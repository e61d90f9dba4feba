"""Callbacks that write a line for each epoch to a file: tables for a spreadsheet, JSON for programs."""

import csv
import json
import math
import os
import time
from abc import ABC, abstractmethod
from typing import IO

from ferrograd._core import ConfigError
from ferrograd.callbacks import INTERVAL, Callback
from ferrograd.checks import check_bool

__all__ = ["CSVLogger", "JSONLinesLogger"]

PathLike = str | os.PathLike[str]

_Epochs = list[tuple[int, dict[str, float]]]
_ENCODER = json.JSONEncoder(allow_nan=False)


class _Logger(Callback, ABC):
    """A file with a line an epoch. It is open only to write, which is done ten times a second at most."""

    def __init__(self, path: PathLike, append: bool = False) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"path: expected a path, got {path!r}")
        check_bool("append", append)
        self.path = os.fspath(path)
        self.append = append
        self._waiting: _Epochs = []
        self._due = 0.0

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Make the file; an earlier one is emptied unless `append` is set."""
        self._waiting, self._due = [], 0.0
        with self._open("a" if self.append else "w"):
            pass

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Note the epoch, and write what waits unless that was done within the last tenth of a second."""
        # A copy: callbacks may add to it.
        self._waiting.append((epoch, logs.copy()))
        now = time.monotonic()
        if now >= self._due:
            self._due = now + INTERVAL
            self._write()

    def on_train_exit(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        with self._open("a") as file:
            self._lines(file, waiting)

    @abstractmethod
    def _lines(self, file: IO[str], epochs: _Epochs) -> None: ...

    def _open(self, mode: str) -> IO[str]:
        return open(self.path, mode, newline="", encoding="utf-8")


class CSVLogger(_Logger):
    """Write epochs to a CSV file: a heading, then a row an epoch with its number, counted from 0.

    The file is written to ten times a second at most: a row may wait for the next epoch's end. All are there
    when the fit is over, also where an error or Ctrl-C ended it.

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
        self._keys: set[str] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Note the epoch, and write what waits unless that was done within the last tenth of a second."""
        if logs.keys() != self._keys:
            self._check(["epoch", *logs])
            self._keys = set(logs)
        super().on_epoch_end(epoch, logs)

    def _check(self, names: list[str]) -> None:
        """Compare the columns of an epoch with the heading; the first one writes it."""
        if self._names is None:
            self._names = names
            with self._open("a") as file:
                csv.writer(file, lineterminator="\n").writerow(names)
        elif sorted(names) != sorted(self._names):
            raise ConfigError(f"{self.path}: expected the columns {self._names}, got {names}")

    def _lines(self, file: IO[str], epochs: _Epochs) -> None:
        names = self._names or []
        rows = ([epoch if name == "epoch" else logs[name] for name in names] for epoch, logs in epochs)
        csv.writer(file, lineterminator="\n").writerows(rows)


class JSONLinesLogger(_Logger):
    """Write epochs to a file of JSON lines: an object an epoch; NaN and infinity, which JSON lacks, as null.

    The file is written to ten times a second at most: a line may wait for the next epoch's end. All are there
    when the fit is over, also where an error or Ctrl-C ended it.

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

    def _lines(self, file: IO[str], epochs: _Epochs) -> None:
        for epoch, logs in epochs:
            values = {name: value if math.isfinite(value) else None for name, value in logs.items()}
            file.write(_ENCODER.encode({"epoch": epoch, **values}) + "\n")
