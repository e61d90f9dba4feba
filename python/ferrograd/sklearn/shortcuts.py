"""scikit-learn's checks where their outcome can be told at once: a fit over few rows takes no longer than they do."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import validate_parameter_constraints

__all__ = ["ShortcutMixin", "are_plain", "fit_binarizer"]


# Few classes, and made at run time at times: they are not kept forever.
@lru_cache(maxsize=64)
def _defaults(constructor: Callable[..., None]) -> dict[str, Any]:
    parameters = inspect.signature(constructor).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


@lru_cache(maxsize=64)
def _names(cls: type, constructor: Callable[..., None]) -> tuple[str, ...]:
    return tuple(super(ShortcutMixin, cls)._get_param_names())


class ShortcutMixin(BaseEstimator):
    """Looks at a class's constructor once, and at the parameters that are not its defaults."""

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(_names(cls, cls.__init__))

    def _validate_params(self) -> None:
        defaults = _defaults(type(self).__init__)
        changed = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if value is not defaults.get(name, inspect.Parameter.empty)
        }
        validate_parameter_constraints(
            self._parameter_constraints, changed, caller_name=type(self).__name__
        )


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
    if type(y) is not np.ndarray or y.ndim != 1 or y.dtype.kind not in "iub" or not len(y):
        return found.fit(y)
    found.classes_ = np.unique(y)
    found.y_type_ = "binary" if len(found.classes_) <= 2 else "multiclass"
    found.sparse_input_ = False
    return found
