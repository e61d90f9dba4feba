"""What watches a training run: the history, early stopping, the progress bar."""

import math
import sys
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ferrograd._core import ConfigError, Tensor
from ferrograd.autograd import no_grad
from ferrograd.checks import check_int
from ferrograd.nn.module import Module
from ferrograd.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from ferrograd.trainer import Trainer

__all__ = [
    "INTERVAL",
    "Callback",
    "ConvergenceWarning",
    "EarlyStopping",
    "History",
    "WeightAveraging",
    "notify",
    "progress_bar",
]


# Seconds from one look at a fit to the next, at least.
INTERVAL = 0.1


class ConvergenceWarning(UserWarning):
    """Training did not converge: the loss became NaN or infinite."""


class Callback:
    """Base of the callbacks: override what is needed. All run on the calling thread, between epochs.

    Attributes
    ----------
    trainer : Trainer
        The trainer that runs; ``trainer.stop_training = True`` ends the fit after the epoch.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Losses(fg.Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         print(epoch, sorted(logs))
    >>> model = fg.nn.Linear(2, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters()))
    >>> history = trainer.fit(fg.ones(4, 2), fg.ones(4, 1), epochs=2, callbacks=[Losses()], progress=False)
    0 ['loss']
    1 ['loss']
    """

    trainer: "Trainer"

    def set_trainer(self, trainer: "Trainer") -> None:
        """Remember the trainer."""
        self.trainer = trainer

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Run before the first epoch."""

    def on_train_end(self, logs: dict[str, float]) -> None:
        """Run after the last epoch."""

    def on_train_exit(self) -> None:
        """Run at the very end, also where an error or Ctrl-C ends the fit: finish what was begun."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        """Run before an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Run after an epoch; `logs` has its loss, accuracy, and the validation's."""


def notify(watchers: Iterable[Callback], event: str, *arguments: Any) -> None:
    """Call a method of each."""
    for watcher in watchers:
        getattr(watcher, event)(*arguments)


class History(Callback):
    """The record of a fit.

    Attributes
    ----------
    history : dict of list of float
        A value an epoch under each name: ``loss``, and where there are ``accuracy``, ``val_loss``,
        ``val_accuracy``.
    epoch : list of int
        The epochs' numbers.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(2, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters()))
    >>> history = trainer.fit(fg.ones(4, 2), fg.ones(4, 1), epochs=3, progress=False)
    >>> history.epoch, sorted(history.history), len(history.history["loss"])
    ([0, 1, 2], ['loss'], 3)
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Append the epoch's values."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.6g}" for name, values in self.history.items())
        return f"History({len(self.epoch)} epochs{': ' if last else ''}{last})"


class EarlyStopping(Callback):
    """Stop when a monitored value has not improved for a number of epochs.

    Parameters
    ----------
    monitor : str, default "val_loss"
        A name of the logs.
    min_delta : float, default 0.0
        What counts as an improvement.
    patience : int, default 0
        Epochs without improvement after which training stops.
    restore_best_weights : bool, default False
        Whether to end with the weights of the best epoch, and the buffers: running means.
    mode : {"auto", "min", "max"}, default "auto"
        Whether less or more is better; "auto" takes more for names with ``acc``.

    Attributes
    ----------
    best : float
        The best value seen.
    best_epoch, stopped_epoch : int or None
        When it was seen, and when training was stopped.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(2, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.0))
    >>> stop = fg.EarlyStopping(monitor="loss", patience=2)
    >>> history = trainer.fit(fg.ones(4, 2), fg.ones(4, 1), epochs=50, callbacks=[stop], progress=False)
    >>> len(history.history["loss"])
    3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        restore_best_weights: bool = False,
        mode: str = "auto",
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ConfigError(f"mode: expected 'auto', 'min' or 'max', got {mode!r}")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ConfigError(f"patience: expected an integer of at least 0, got {patience!r}")
        if not (isinstance(min_delta, int | float) and math.isfinite(min_delta) and min_delta >= 0):
            raise ConfigError(f"min_delta: expected a finite number of at least 0, got {min_delta!r}")
        self.monitor = monitor
        self.min_delta = min_delta
        self.patience = patience
        self.mode = mode
        self.restore_best_weights = restore_best_weights

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Forget what an earlier fit left."""
        self._sign = -1.0 if self.mode == "max" or (self.mode == "auto" and "acc" in self.monitor) else 1.0
        self.best = math.inf * self._sign
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._weights: list[tuple[Tensor, Tensor]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Compare, remember, and stop when patience is over."""
        if self.monitor not in logs:
            raise ConfigError(f"monitor: expected one of {sorted(logs)}, got {self.monitor!r}")
        value = logs[self.monitor]
        # Any number is better than the NaN of a first epoch.
        is_first = self.best_epoch is None or (math.isnan(self.best) and not math.isnan(value))
        if is_first or self._sign * (self.best - value) > self.min_delta:
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self._weights = [(tensor, tensor.detach().clone()) for tensor in self.trainer.tensors()]
        elif self.best_epoch is not None and epoch - self.best_epoch >= self.patience:
            self.stopped_epoch = epoch
            self.trainer.stop_training = True

    def on_train_end(self, logs: dict[str, float]) -> None:
        """Put the best weights back, if asked to."""
        with no_grad():
            for tensor, value in self._weights:
                tensor.detach().copy_(value)


class WeightAveraging(Callback):
    """Take the weights into an average after each epoch; see `ferrograd.optim.swa_utils`.

    Parameters
    ----------
    averaged : AveragedModel
        A copy of the trainer's model.
    start_epoch : int, default 0
        The first epoch, counted from 0 in each fit, whose weights are taken.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the fit's model is no Module.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_moons(n_samples=64, noise=0.1, seed=0)
    >>> model = fg.nn.Linear(2, 2)
    >>> trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    >>> averaged = fg.optim.swa_utils.AveragedModel(model)
    >>> history = trainer.fit(X, y, epochs=5, callbacks=[fg.WeightAveraging(averaged, start_epoch=2)])
    >>> averaged.n_averaged.item()
    3
    """

    def __init__(self, averaged: AveragedModel, start_epoch: int = 0) -> None:
        if not isinstance(averaged, AveragedModel):
            raise ConfigError(f"averaged: expected an AveragedModel, got {type(averaged).__name__}")
        check_int("start_epoch", start_epoch, low=0)
        self.averaged = averaged
        self.start_epoch = start_epoch

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Refuse a model that has no parameters of its own."""
        if not isinstance(self.trainer.model, Module):
            kind = type(self.trainer.model).__name__
            raise ConfigError(f"WeightAveraging: expected a trainer of a Module, got one of {kind}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Take the weights."""
        if epoch >= self.start_epoch and isinstance(self.trainer.model, Module):
            self.averaged.update_parameters(self.trainer.model)


class _Bar(Protocol):
    def update(self, logs: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class _Silent:
    def update(self, logs: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _Tqdm:
    """A bar that moves ten times a second at most: epochs may be shorter than writing it takes."""

    def __init__(self, tqdm: Any, epochs: int) -> None:
        # It is told when to move, and moves then.
        self.bar = tqdm(total=epochs, unit="epoch", mininterval=0, miniters=1)
        self.due = 0.0
        self.epochs = 0
        self.logs: dict[str, float] = {}

    def update(self, logs: dict[str, float]) -> None:
        self.epochs += 1
        self.logs = logs
        now = time.monotonic()
        if now >= self.due:
            self.due = now + INTERVAL
            self._move()

    def close(self) -> None:
        if self.epochs:
            self._move()
        self.bar.close()

    def _move(self) -> None:
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in self.logs.items()}, refresh=False)
        self.bar.update(self.epochs)
        self.epochs = 0


def progress_bar(progress: bool | str, epochs: int) -> _Bar:
    """Return a bar on standard error, or something silent.

    Raises
    ------
    ImportError
        If a bar was asked for and tqdm is not installed.
    """
    if progress is False or (progress == "auto" and not _is_watched()):
        return _Silent()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        if progress == "auto":
            return _Silent()
        raise ImportError("progress=True needs tqdm: pip install 'ferrograd[progress]'") from None
    return _Tqdm(tqdm, epochs)


def _is_watched() -> bool:
    """Whether a person sees standard error: a terminal or a notebook."""
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
