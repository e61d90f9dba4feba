"""Callbacks around a fit and each of its epochs: scikit-learn's (1.9 and later), and the library's own."""

from contextlib import ExitStack
from typing import Any

from ferrograd._core import Tensor
from ferrograd.callbacks import Callback, notify
from ferrograd.optim import Optimizer
from ferrograd.sklearn.activations import refused

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: there are no callbacks."""


__all__ = ["CallbackSupportMixin", "Tasks", "Watchers", "check_callbacks", "release"]


class Tasks:
    """The fit and its epochs (for lbfgs its iterations) as tasks that callbacks are told of."""

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, *, epochs: int) -> None:
        self._estimator = estimator
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"X": X, "y": y, "metadata": metadata}
        self._fit = estimator._init_callback_context(max_subtasks=epochs)
        self._epoch: Any = None
        self._fit.call_on_fit_task_begin(estimator=estimator, **self._data)

    def begin(self) -> None:
        """Tell that an epoch begins."""
        self._epoch = self._fit.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end(self) -> bool:
        """Tell that an epoch has ended, with the estimator's parameters set; whether to stop."""
        epoch, self._epoch = self._epoch, None
        stops = epoch.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes={}, **self._data
        )
        return bool(stops)

    def close(self) -> None:
        """Tell that the fit has ended; an epoch that has begun was none."""
        if self._epoch is not None:
            self._epoch.call_on_fit_task_end(estimator=self._estimator)
        self._fit.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes={}, **self._data)


def check_callbacks(estimator: Any) -> None:
    """Raise `InvalidParameterError` unless an estimator's callbacks are the library's."""
    odd = [watcher for watcher in estimator.callbacks or () if not isinstance(watcher, Callback)]
    if odd:
        raise refused(type(estimator).__name__, "callbacks", "a list of ferrograd.Callback or None", odd[0])


class Watchers:
    """The library's callbacks of an estimator. To them it is the trainer.

    Attributes
    ----------
    model : BaseMultilayerPerceptron
        The estimator, with the parameters of the last epoch.
    optimizer : Optimizer
        Holds the tensors that are trained, and their rate.
    stop_training : bool
        Set to True it ends the fit after the epoch.
    """

    def __init__(self, estimator: Any, optimizer: Optimizer, moved: list[Tensor]) -> None:
        self.model, self.optimizer, self.stop_training = estimator, optimizer, False
        self._moved = moved
        self._watchers: list[Any] = list(estimator.callbacks or ())
        for watcher in self._watchers:
            watcher.set_trainer(self)
        notify(self._watchers, "on_train_begin", {})

    def tensors(self) -> list[Tensor]:
        """Return what training moves."""
        return self._moved

    def begin(self, epoch: int) -> None:
        """Tell that an epoch begins."""
        notify(self._watchers, "on_epoch_begin", epoch, {})

    def end(self, epoch: int, logs: dict[str, float]) -> bool:
        """Tell that an epoch has ended, with the estimator's parameters set; whether to stop."""
        notify(self._watchers, "on_epoch_end", epoch, logs)
        return self.stop_training

    def close(self) -> None:
        """Tell that the fit has ended."""
        notify(self._watchers, "on_train_end", {})


def release(estimator: Any) -> None:
    """Take the fit away from an estimator's callbacks, which are copied with the estimator."""
    given = estimator.callbacks if isinstance(estimator.callbacks, list | tuple) else ()
    with ExitStack() as stack:
        for watcher in given:
            # A fit that is refused before it begins has told them nothing.
            if isinstance(watcher, Callback) and isinstance(vars(watcher).get("trainer"), Watchers):
                stack.callback(vars(watcher).pop, "trainer")
                stack.callback(watcher.on_train_exit)
