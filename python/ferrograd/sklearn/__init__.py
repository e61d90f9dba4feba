"""Multi-layer perceptrons with scikit-learn's interface: ``from ferrograd.sklearn import MLPClassifier``.

They take the place of `sklearn.neural_network`'s: the same parameters, attributes, messages and, for the same
`random_state`, the same initial weights, mini-batches and losses. Training and prediction are native.
`fit_many` fits several of them side by side.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("ferrograd.sklearn needs scikit-learn: pip install 'ferrograd[sklearn]'") from error

from ferrograd.sklearn.classifier import MLPClassifier
from ferrograd.sklearn.many import fit_many
from ferrograd.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "fit_many"]
