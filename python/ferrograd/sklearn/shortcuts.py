"""scikit-learn's checks where their outcome can be told at once: they took as long as a fit over few rows."""

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import validate_parameter_constraints

from ferrograd._typing import Array

__all__ = ["ShortcutMixin", "accuracy", "are_plain", "are_plain_labels", "fit_binarizer", "r_squared"]


# Parameters with their defaults, by constructor.
_KNOWN: WeakKeyDictionary[Callable[..., None], dict[str, Any]] = WeakKeyDictionary()


class ShortcutMixin(BaseEstimator):
    """Looks at a class's constructor once, and at the parameters that are not its defaults."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        constructor = cls.__init__
        if constructor not in _KNOWN:
            parameters = inspect.signature(constructor).parameters
            _KNOWN[constructor] = {name: parameters[name].default for name in super()._get_param_names()}
        return _KNOWN[constructor]

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(cls._defaults())

    def _validate_params(self) -> None:
        defaults, given = self._defaults(), self.get_params(deep=False)
        changed = {name: value for name, value in given.items() if value is not defaults[name]}
        validate_parameter_constraints(self._parameter_constraints, changed, caller_name=type(self).__name__)


def are_plain(estimator: Any, X: Any, y: Any, kinds: str, *, reset: bool) -> bool:
    """Whether `validate_data` would return X and y as they are; if so, the width is noted with `reset`.

    Parameters
    ----------
    estimator : object
        What is fitted.
    X, y : object
        Inputs and targets as they were given.
    kinds : str
        The kinds of dtype that targets may have.
    reset : bool
        Whether the first fit begins, so that any width will do.

    Returns
    -------
    bool
        True for arrays of finite native floats and of as many targets. False leaves the answer open.
    """
    known = estimator.__dict__
    are_arrays = (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.dtype.char in "fd"
        and X.dtype.isnative
        and X.size > 0
        and type(y) is np.ndarray
        and y.shape == X.shape[:1]
        and y.dtype.kind in kinds
        and "feature_names_in_" not in known
        and (reset or known.get("n_features_in_") == X.shape[1])
    )
    if not are_arrays:
        return False
    with np.errstate(all="ignore"):
        # A sum beyond all numbers is left to scikit-learn.
        if not np.isfinite(X.sum()) or not np.isfinite(y.sum()):
            return False
    if reset:
        estimator.n_features_in_ = X.shape[1]
    return True


def are_plain_labels(y: Any) -> bool:
    """Whether these are labels of one column of integers or booleans, of which there is nothing to check.

    Parameters
    ----------
    y : object
        Labels.

    Returns
    -------
    bool
        False leaves the answer open.
    """
    return type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "iub" and len(y) > 0


def fit_binarizer(y: Any) -> LabelBinarizer:
    """Return `LabelBinarizer().fit(y)`.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_classes)
        Labels.

    Returns
    -------
    LabelBinarizer
        Fitted.
    """
    found = LabelBinarizer()
    if not are_plain_labels(y):
        return found.fit(y)
    found.classes_ = np.unique(y)
    found.y_type_ = "binary" if len(found.classes_) <= 2 else "multiclass"
    found.sparse_input_ = False
    return found


def accuracy(y: Array, predicted: Array, weight: Array | None) -> float:
    """Return ``accuracy_score(y, predicted, sample_weight=weight)`` of checked labels.

    Parameters
    ----------
    y, predicted : ndarray of shape (n_samples,) or (n_samples, n_labels)
        Labels and what was predicted.
    weight : ndarray of shape (n_samples,), optional
        Weights of the samples.

    Returns
    -------
    float
        The share of rows that are right, by their weights.
    """
    if y.ndim != 1:
        return float(accuracy_score(y, predicted, sample_weight=weight))
    return float(np.average(y == predicted, weights=weight))


def r_squared(y: Array, predicted: Array, weight: Array | None) -> float:
    """Return ``r2_score(y, predicted, sample_weight=weight)`` of checked targets.

    Parameters
    ----------
    y, predicted : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Targets and what was predicted.
    weight : ndarray of shape (n_samples,), optional
        Weights of the samples.

    Returns
    -------
    float
        1 less the squared errors over those of the targets' mean.
    """
    if y.ndim == 1 and y.dtype == predicted.dtype == np.float64:
        factor = 1.0 if weight is None else weight
        errors = (factor * (y - predicted) ** 2).sum()
        spread = (factor * (y - np.average(y, weights=weight)) ** 2).sum()
        if errors and spread:
            return float(1 - errors / spread)
    return float(r2_score(y, predicted, sample_weight=weight))
