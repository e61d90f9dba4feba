"""What a progress bar and log files add to a fit.

python benches/watching.py

All times are CPU time of the thread that trains, with one thread, which other programs disturb less than the
clock. Two figures judge a watcher. Its own time is what passes inside its calls, less what an empty callback
takes there. The ratio is that of whole fits, with and without it in alternation, the median of the pairs: it
sees what the calls do not, and is as uncertain as fits differ.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ferrograd as fg
from ferrograd import nn, trainer
from ferrograd.callbacks import progress_bar

PAIRS = 9
SECONDS = 0.3

# Rows, inputs, hidden units, classes, rows of a batch.
FITS = [(4, 2, 4, 2, 4), (178, 13, 32, 3, 32), (1437, 64, 64, 10, 64), (10_000, 784, 128, 10, 128)]


class Stopwatch(fg.Callback):
    """A callback, or a bar, around another one, which takes the CPU time of its calls."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seconds = 0.0

    def timed(self, method: Callable[..., None], *args: Any) -> None:
        start = time.thread_time()
        method(*args)
        self.seconds += time.thread_time() - start

    def on_train_begin(self, logs: dict[str, float]) -> None:
        self.timed(self.inner.on_train_begin, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.timed(self.inner.on_epoch_end, epoch, logs)

    def on_train_exit(self) -> None:
        self.timed(self.inner.on_train_exit)

    def update(self, logs: dict[str, float]) -> None:
        self.timed(self.inner.update, logs)

    def close(self) -> None:
        self.timed(self.inner.close)


class Fit:
    """A network and its data; called, it trains for some epochs and returns the CPU time."""

    def __init__(self, rows: int, inputs: int, hidden: int, classes: int, batch: int) -> None:
        self.X = np.random.default_rng(0).standard_normal((rows, inputs), np.float32)
        self.y = np.arange(rows) % classes
        self.batch = batch
        model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        optimizer = fg.optim.SGD(model.parameters(), lr=0.01)
        self.trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optimizer, n_threads=1)
        self.name = f"{rows:,} rows, {inputs}-{hidden}-{classes}"
        self(3)
        self.epochs = max(5, round(SECONDS * 20 / self(20)))

    def __call__(self, epochs: int = 0, watcher: fg.Callback | None = None, bar: bool = False) -> float:
        options: Any = {"epochs": epochs or self.epochs, "batch_size": self.batch, "progress": bar, "seed": 0}
        start = time.thread_time()
        self.trainer.fit(self.X, self.y, callbacks=[watcher] if watcher else [], **options)
        return time.thread_time() - start


def main() -> None:
    """Print a line for each fit and watcher."""
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder))


def compare(folder: Path) -> None:
    watchers: dict[str, Callable[[], fg.Callback]] = {
        "nothing": fg.Callback,
        "CSVLogger": lambda: fg.CSVLogger(folder / "log.csv"),
        "JSONLinesLogger": lambda: fg.JSONLinesLogger(folder / "log.jsonl"),
    }
    print(f"{'fit':24} {'epoch':>10} {'watcher':>16} {'own time':>10} {'share':>7} {'ratio':>7}")
    for sizes in FITS:
        fit = Fit(*sizes)
        idle = 0.0
        for name in (*watchers, "bar"):
            plain, ratios, own = [], [], []
            for _ in range(PAIRS):
                plain.append(fit())
                if name == "bar":
                    ratios.append(fit(bar=True) / plain[-1])
                    own.append(timed_bar(fit) / fit.epochs)
                else:
                    ratios.append(fit(watcher=watchers[name]()) / plain[-1])
                    watch = Stopwatch(watchers[name]())
                    fit(watcher=watch)
                    own.append(watch.seconds / fit.epochs)
            epoch, taken = statistics.median(plain) / fit.epochs, statistics.median(own)
            if name == "nothing":
                idle = taken
            more, ratio = taken - idle, statistics.median(ratios)
            figures = f"{more * 1e6:7.2f} us {more / epoch:7.2%} {ratio:7.3f}"
            print(f"{fit.name:24} {epoch * 1e6:7.0f} us {name:>16} {figures}", flush=True)


def timed_bar(fit: Fit) -> float:
    """Return the time inside the bar of a fit."""
    watches: list[Stopwatch] = []

    def build(progress: bool | str, epochs: int) -> Any:
        watches.append(Stopwatch(progress_bar(progress, epochs)))
        return watches[-1]

    trainer.progress_bar = build
    try:
        fit(bar=True)
    finally:
        trainer.progress_bar = progress_bar
    return watches[0].seconds


if __name__ == "__main__":
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        main()
