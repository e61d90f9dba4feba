"""What a picture needs to know of a model, whichever kind of model it is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import Array
from ferrograd.autograd import no_grad
from ferrograd.checks import as_table
from ferrograd.nn.module import Module

__all__ = ["Labels", "class_scores", "evaluate", "labels", "module_of", "points"]

# Classes as a table's rows, from 0, and what each is called.
Labels = tuple[npt.NDArray[np.int64], list[str]]


def module_of(owner: str, model: Any) -> Module:
    """Return the network of a Module, a Trainer, or one of our fitted estimators.

    Raises
    ------
    ConfigError
        If `model` is none of them.
    """
    found = getattr(model, "model", model)
    if hasattr(found, "to_module"):
        found = found.to_module()
    if not isinstance(found, Module):
        raise ConfigError(
            f"{owner}: model: expected a Module, a Trainer of one or a fitted estimator of ferrograd, "
            f"got {type(model).__name__}"
        )
    return found


def points(owner: str, X: Any, columns: int | None = None) -> Array:
    """Return the rows of `X`.

    Raises
    ------
    ShapeError
        If it is no matrix, or has another number of columns.
    """
    rows = as_table("X", X)
    if rows.ndim != 2 or columns not in (None, rows.shape[1]):
        wanted = "(n_samples, n_features)" if columns is None else f"(n_samples, {columns})"
        raise ShapeError(f"{owner}: X: expected the shape {wanted}, got {rows.shape}")
    return rows


def class_scores(owner: str, model: Any) -> tuple[Callable[[Array], Array], list[Any] | None]:
    """Return what gives the probability of each class for rows, and the classes if the model knows them.

    Estimators give theirs. Networks, trainers and functions give scores, of which softmax makes
    probabilities, or sigmoid where there is one score.
    """
    if hasattr(model, "classes_"):
        return _of_estimator(model), list(model.classes_)
    if hasattr(model, "predict"):
        predict = model.predict
    elif isinstance(model, Module):
        predict = partial(evaluate, model)
    elif callable(model):
        predict = model
    else:
        raise ConfigError(
            f"{owner}: model: expected an estimator, a Trainer, a Module or a function, "
            f"got {type(model).__name__}"
        )

    def probabilities(rows: Array) -> Array:
        scores = np.asarray(_array(predict(rows)), dtype=np.float64)
        if scores.ndim == 1 or scores.shape[1] == 1:
            positive = 0.5 * (1.0 + np.tanh(0.5 * scores.reshape(-1)))
            return np.column_stack([1.0 - positive, positive])
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: Array = powers / powers.sum(axis=1, keepdims=True)
        return shares

    return probabilities, None


def _of_estimator(model: Any) -> Callable[[Array], Array]:
    """Probabilities, or, of a classifier without them, 1 for the class that it predicts."""
    if hasattr(model, "predict_proba"):
        return lambda rows: np.asarray(model.predict_proba(rows), dtype=np.float64)
    classes = np.asarray(model.classes_)
    return lambda rows: (np.asarray(model.predict(rows))[:, None] == classes).astype(np.float64)


def evaluate(network: Module, rows: Array) -> Array:
    """Return what a network makes of rows, in evaluation mode."""
    dtype = next((parameter.dtype for parameter in network.parameters()), _core.float32)
    was_training = network.training
    network.eval()
    try:
        with no_grad():
            return _array(network(_core.tensor(rows, dtype=dtype)))
    finally:
        network.train(was_training)


def _array(values: Any) -> Array:
    return values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)


def labels(owner: str, y: Any, classes: list[Any] | None, rows: int) -> Labels:
    """Return the number of each row's class and the classes' names.

    Raises
    ------
    ShapeError
        If there is not one label a row.
    ConfigError
        If a label is none of the classes.
    """
    given = _array(y)
    if given.shape not in ((rows,), (rows, 1)):
        raise ShapeError(f"{owner}: y: expected a label for each of {rows} rows, got the shape {given.shape}")
    given = given.reshape(rows)
    known = list(np.unique(given)) if classes is None else classes
    numbers = {label: number for number, label in enumerate(known)}
    unknown = [label for label in given.tolist() if label not in numbers]
    if unknown:
        raise ConfigError(f"{owner}: y: expected labels of {known}, got {unknown[0]!r}")
    found = np.array([numbers[label] for label in given.tolist()], dtype=np.int64)
    return found, [str(label) for label in known]
