"""Log files: a line for each epoch, there soon after the epoch and when the fit is over."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

import ferrograd as fg

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
    log.on_train_end({})
    assert read(path) == [{"epoch": 0, "loss": None, "val_loss": 1.5}]


@pytest.mark.parametrize("logger", LOGGERS)
def test_bad_arguments_are_named(logger: Any, tmp_path: Path) -> None:
    with pytest.raises(fg.ConfigError, match="path: expected a path, got 3"):
        logger(3)
    with pytest.raises(fg.ConfigError, match="append"):
        logger(tmp_path / "log", append="yes")
    with pytest.raises(FileNotFoundError):
        fit(logger(tmp_path / "missing" / "log"))
