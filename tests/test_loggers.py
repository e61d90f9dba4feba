"""Log files: a line for each epoch, there soon after the epoch and when the fit is over."""

import contextlib
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.callbacks import progress_bar

LOGGERS = [fg.CSVLogger, fg.JSONLinesLogger]


def fit(*callbacks: fg.Callback, epochs: int = 3, **options: Any) -> fg.History:
    model = fg.nn.Linear(2, 1)
    trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.01))
    X, y = fg.ones(8, 2), fg.ones(8, 1)
    return trainer.fit(X, y, epochs=epochs, callbacks=list(callbacks), progress=False, seed=0, **options)


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a log, whichever kind it is."""
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_line_an_epoch_has_its_values_in_full(logger: Any, tmp_path: Path) -> None:
    path = tmp_path / ("log.csv" if logger is fg.CSVLogger else "log.jsonl")
    history = fit(logger(path), validation_data=(fg.ones(4, 2), fg.ones(4, 1)))
    lines = read(path)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    for name, curve in history.history.items():
        assert [line[name] for line in lines] == curve


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_second_fit_replaces_or_goes_on(logger: Any, tmp_path: Path) -> None:
    path = tmp_path / ("log.csv" if logger is fg.CSVLogger else "log.jsonl")
    for log, lengths in ((logger(path), (3, 3)), (logger(path, append=True), (6, 9))):
        for length in lengths:
            fit(log)
            assert len(read(path)) == length


@pytest.mark.parametrize("logger", LOGGERS)
def test_epochs_before_an_error_are_in_the_file(logger: Any, tmp_path: Path) -> None:
    class Stop(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    path = tmp_path / ("log.csv" if logger is fg.CSVLogger else "log.jsonl")
    log = logger(path)
    with pytest.raises(KeyboardInterrupt):
        fit(log, Stop())
    assert len(read(path)) == 2
    fit(log)
    assert len(read(path)) == 3


@pytest.mark.parametrize("logger", LOGGERS)
def test_the_file_is_written_to_ten_times_a_second_at_most(
    logger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("log.csv" if logger is fg.CSVLogger else "log.jsonl")
    log, now = logger(path), 0.0
    monkeypatch.setattr("ferrograd.loggers.time.monotonic", lambda: now)
    log.on_train_begin({})
    for epoch, (seconds, lines) in enumerate([(5.0, 1), (5.03, 1), (5.09, 1), (5.11, 4), (5.12, 4)]):
        now = seconds
        log.on_epoch_end(epoch, {"loss": 0.5})
        assert len(read(path)) == lines
    log.on_train_exit()
    assert [line["epoch"] for line in read(path)] == [0, 1, 2, 3, 4]


class Broken(fg.Callback):
    """Fails when a fit is over, and holds something only while there is one."""

    def on_train_begin(self, logs: dict[str, float]) -> None:
        self.held = True

    def on_train_exit(self) -> None:
        assert self.held
        del self.held
        raise ZeroDivisionError


@pytest.mark.parametrize("is_estimator", [False, True])
def test_one_that_fails_at_the_end_costs_the_others_nothing(is_estimator: bool, tmp_path: Path) -> None:
    paths = [tmp_path / "0.csv", tmp_path / "1.csv"]
    watchers = [fg.CSVLogger(paths[0]), Broken(), fg.CSVLogger(paths[1])]
    if is_estimator:
        sklearn = pytest.importorskip("ferrograd.sklearn")
        X, y = np.arange(16.0).reshape(8, 2), np.arange(8) % 2
        model = sklearn.MLPClassifier((3,), max_iter=5, callbacks=watchers)
        with pytest.raises(ZeroDivisionError):
            model.fit(X, y)
        # Refused before it began: they are told nothing.
        with pytest.raises(ValueError, match="NaN"):
            model.fit(np.full_like(X, np.nan), y)
    else:
        with pytest.raises(ZeroDivisionError):
            fit(*watchers, epochs=5)
    for path in paths:
        assert [line["epoch"] for line in read(path)] == [0, 1, 2, 3, 4]


class Bar:
    """What a bar of tqdm is told."""

    def __init__(self, **options: Any) -> None:
        self.total, self.moves, self.is_closed = options["total"], list[int](), False

    def set_postfix(self, values: dict[str, str], refresh: bool) -> None:
        self.values = values

    def update(self, count: int) -> None:
        self.moves.append(count)

    def close(self) -> None:
        self.is_closed = True


def test_a_bar_moves_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm.auto")
    now, bars = 0.0, []

    def build(**options: Any) -> Bar:
        bars.append(Bar(**options))
        return bars[-1]

    monkeypatch.setattr(tqdm, "tqdm", build)
    monkeypatch.setattr("ferrograd.callbacks.time.monotonic", lambda: now)
    bar = progress_bar(True, 7)
    for seconds in (5.0, 5.03, 5.09, 5.11, 5.12):
        now = seconds
        bar.update({"loss": seconds})
    assert bars[0].moves == [1, 3]
    bar.close()
    assert (bars[0].total, bars[0].moves, bars[0].is_closed) == (7, [1, 3, 1], True)
    assert bars[0].values == {"loss": "5.12"}


@pytest.mark.parametrize("epochs", [1, 40])
def test_the_bar_of_a_fit_counts_its_epochs(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm.auto")
    bars: list[Bar] = []
    monkeypatch.setattr(tqdm, "tqdm", lambda **options: bars.append(Bar(**options)) or bars[-1])

    class Stop(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 20:
                raise ZeroDivisionError

    model = fg.nn.Linear(2, 1)
    trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(ZeroDivisionError) if epochs > 20 else contextlib.nullcontext():
        trainer.fit(fg.ones(8, 2), fg.ones(8, 1), epochs=epochs, callbacks=[Stop()], progress=True)
    (bar,) = bars
    assert bar.is_closed
    assert sum(bar.moves) == min(epochs, 20)


def test_other_columns_than_the_heading_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    fit(fg.CSVLogger(path))
    with pytest.raises(fg.ConfigError, match=r"expected the columns \['epoch', 'loss'\], got .*val_loss"):
        fit(fg.CSVLogger(path, append=True), validation_data=(fg.ones(4, 2), fg.ones(4, 1)))
    assert len(read(path)) == 3


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = fg.JSONLinesLogger(path)
    log.on_train_begin({})
    log.on_epoch_end(0, {"loss": math.nan, "val_loss": 1.5})
    log.on_train_exit()
    assert read(path) == [{"epoch": 0, "loss": None, "val_loss": 1.5}]


@pytest.mark.parametrize("logger", LOGGERS)
def test_bad_arguments_are_named(logger: Any, tmp_path: Path) -> None:
    with pytest.raises(fg.ConfigError, match="path: expected a path, got 3"):
        logger(3)
    with pytest.raises(fg.ConfigError, match="append"):
        logger(tmp_path / "log", append="yes")
    with pytest.raises(FileNotFoundError):
        fit(logger(tmp_path / "missing" / "log"))
