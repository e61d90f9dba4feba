"""scikit-learn's callbacks (1.9 and later) around a fit and each of its epochs."""

from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: there are no callbacks."""


__all__ = ["CallbackSupportMixin", "Tasks"]


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
