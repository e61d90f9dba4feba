"""What a picture needs to know of a model, whichever kind of model it is."""

import copy
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
from ferrograd.nn import BCELoss
from ferrograd.nn.module import Module, in_mode
from ferrograd.trainer import Trainer

__all__ = ["Labels", "class_scores", "dtype_of", "evaluate", "labels", "module_of", "points"]

# Classes as a table's rows, from 0, and what each is called.
Labels = tuple[npt.NDArray[np.int64], list[str]]


def module_of(owner: str, model: Any) -> Module:
    """Return the network of a Module, a Trainer, or one of our fitted estimators.

    Raises
    ------
    ConfigError
        If `model` is none of them.
    """
    found = model.model if isinstance(model, Trainer) else model
    if not isinstance(found, type | Module) and hasattr(found, "to_module"):
        found = found.to_module()
    if not isinstance(found, Module):
        raise ConfigError(
            f"{owner}: model: expected a Module, a Trainer of one or a fitted estimator of ferrograd, "
            f"got {type(model).__name__}"
        )
    return found


def points(owner: str, X: Any, columns: int) -> Array:
    """Return the rows of `X` as floating-point numbers.

    Raises
    ------
    ShapeError
        If it is no matrix, is empty, or has another number of columns.
    NonFiniteError
        If it holds NaN or infinity.
    """
    rows = as_table("X", X)
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != columns:
        raise ShapeError(f"{owner}: X: expected the shape (n_samples, {columns}), got {rows.shape}")
    _core.check_finite(rows, "X")
    # What lies between whole numbers is asked for too.
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def class_scores(owner: str, model: Any) -> tuple[Callable[[Array], Array], list[Any] | None]:
    """Return what gives the probability of each class for rows, and the classes if the model knows them.

    Estimators give theirs. Networks, trainers and functions give scores, of which softmax makes
    probabilities, or sigmoid where there is one score that is none yet: a trainer's loss tells.
    """
    if hasattr(model, "classes_"):
        return _of_estimator(model), np.asarray(model.classes_).tolist()
    is_probability = False
    if isinstance(model, Trainer):
        # A copy: of a model that draws random numbers later predictions are as without a look.
        predict, is_probability = copy.deepcopy(model).predict, isinstance(model.loss, BCELoss)
    elif isinstance(model, Module):
        predict = partial(evaluate, model)
    elif callable(model):
        predict = model
    else:
        raise ConfigError(
            f"{owner}: model: expected a fitted classifier, a Trainer, a Module or a function, "
            f"got {type(model).__name__}"
        )

    def probabilities(rows: Array) -> Array:
        scores = np.asarray(_array(predict(rows)), dtype=np.float64)
        if scores.ndim not in (1, 2) or len(scores) != len(rows) or scores.size == 0:
            raise ShapeError(
                f"{owner}: model: expected scores of shape ({len(rows)}, n_classes), got {scores.shape}"
            )
        if scores.ndim == 1 or scores.shape[1] == 1:
            scores = scores.reshape(-1)
            positive = scores if is_probability else 0.5 * (1.0 + np.tanh(0.5 * scores))
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
    with no_grad(), in_mode(network, training=False):
        return _array(network(_core.tensor(rows, dtype=dtype_of(network))))


def dtype_of(network: Module) -> _core.DType:
    """Return the dtype of a network's parameters; float32 if it has none."""
    return next((parameter.dtype for parameter in network.parameters()), _core.float32)


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
    known = np.unique(given).tolist() if classes is None else classes
    numbers = {label: number for number, label in enumerate(known)}
    unknown = [label for label in given.tolist() if label not in numbers]
    if unknown:
        raise ConfigError(f"{owner}: y: expected labels of {known}, got {unknown[0]!r}")
    found = np.array([numbers[label] for label in given.tolist()], dtype=np.int64)
    return found, [str(label) for label in known]
