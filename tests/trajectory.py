"""The grid of fits whose course is compared with scikit-learn's, and how far apart the two are."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn import neural_network as theirs

from ferrograd import sklearn as ours

ROWS, COLUMNS = 130, 7
EPOCHS = 20

TASKS = ("binary", "multiclass", "multilabel", "regression 1", "regression 3", "poisson")
SOLVERS: dict[str, dict[str, Any]] = {
    "sgd": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.02},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.02},
    "adam": {"solver": "adam", "learning_rate_init": 0.01},
    "lbfgs": {"solver": "lbfgs"},
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "early_stopping": {"early_stopping": True, "validation_fraction": 0.2},
    "sample_weight": {},
    "sparse": {},
    "L2": {"alpha": 3.0},
}
# Weights and the Poisson loss came to scikit-learn with 1.7.
HAS_WEIGHTS = "loss" in theirs.MLPRegressor().get_params()
CELLS = [
    (task, solver, form)
    for task in TASKS
    for solver in SOLVERS
    for form in FORMS
    if HAS_WEIGHTS or (task != "poisson" and form != "sample_weight")
]


class Difference(NamedTuple):
    """How far two fits are apart, and the epochs that each made."""

    loss: float
    coefs: float
    n_iter: tuple[int, int]


def data(task: str) -> tuple[Any, Any]:
    """Return inputs and targets of a task."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 0.7)
    scores = X @ rng.standard_normal((COLUMNS, 3)) + 0.3 * rng.standard_normal((ROWS, 3))
    targets = {
        "binary": np.where(scores[:, 0] > 0, 4, 2),
        "multiclass": np.array([3, 5, 9])[scores.argmax(1)],
        "multilabel": (scores > 0).astype(int),
        "regression 1": scores[:, 0],
        "regression 3": scores,
        "poisson": rng.poisson(np.exp(scores[:, 0] / 3)).astype(float),
    }
    return X, targets[task]


def fits(task: str, solver: str, form: str, **options: Any) -> tuple[Any, Any]:
    """Return scikit-learn's fit and ours."""
    X, y = data(task)
    kind = "MLPRegressor" if task.startswith(("regression", "poisson")) else "MLPClassifier"
    if task == "poisson":
        options["loss"] = "poisson"
    extra = {}
    if form == "sample_weight":
        extra["sample_weight"] = np.random.default_rng(6).uniform(0.2, 2, ROWS)
    fitted = []
    for library in (theirs, ours):
        shared = {"hidden_layer_sizes": (9, 6), "batch_size": 48, "max_iter": EPOCHS, "random_state": 11}
        model = getattr(library, kind)(**{**shared, **SOLVERS[solver], **FORMS[form], **options})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(csr_array(X) if form == "sparse" else X, y, **extra)
        fitted.append(model)
    return fitted[0], fitted[1]


def difference(task: str, solver: str, form: str) -> Difference:
    """Fit both and compare: the loss of each epoch, or of the end where there are none."""
    first, second = fits(task, solver, form)
    losses = [getattr(model, "loss_curve_", [model.loss_]) for model in (first, second)]
    shared = min(map(len, losses))
    loss = float(np.abs(np.subtract(losses[0][:shared], losses[1][:shared])).max())
    coefs = max(float(np.abs(a - b).max()) for a, b in zip(first.coefs_, second.coefs_, strict=True))
    return Difference(loss, coefs, (first.n_iter_, second.n_iter_))
