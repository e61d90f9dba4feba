"""How long `ferrograd.sklearn` takes beside scikit-learn: the same data, hyper-parameters and threads.

Results are compared first. Times are the best of several turns in one process, the two libraries in
alternation. Run it with OMP_NUM_THREADS=2 on an idle machine, the extension built for release; MNIST is made
of random pixels, which take as long.
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold

from ferrograd import sklearn as ours

# The threads of BLAS wait actively for some 30 ms after the last product, while something else is timed.
_PAUSE, _MANY = 0.2, 20
# Neither stops early.
_ALL = {"tol": 0.0, "n_iter_no_change": 10**6, "random_state": 0}


def _fit(kind: str, X: Any, y: Any, **options: Any) -> Callable[[Any], Any]:
    return lambda library: getattr(library, kind)(**options).fit(X, y)


def _same_fit(first: Any, second: Any) -> float:
    assert first.n_iter_ == second.n_iter_
    losses = [getattr(model, "loss_curve_", [model.loss_]) for model in (first, second)]
    return float(np.abs(np.subtract(*losses)).max())


def _same_values(first: Any, second: Any) -> float:
    return float(np.abs(np.subtract(first, second)).max())


_GRID = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2], "hidden_layer_sizes": [(50,), (100,)]}


def _search(X: Any, y: Any) -> Callable[[Any], Any]:
    def run(library: Any) -> Any:
        model = library.MLPClassifier(max_iter=50, random_state=0)
        return GridSearchCV(model, _GRID, cv=3, n_jobs=2).fit(X, y).cv_results_["mean_test_score"]

    return run


def _search_in_one_process(X: Any, y: Any) -> Callable[[Any], Any]:
    def run(library: Any) -> Any:
        if library is theirs:
            return _search(X, y)(library)
        points, folds = list(ParameterGrid(_GRID)), list(StratifiedKFold(3).split(X, y))
        models = [
            library.MLPClassifier(**point, max_iter=50, random_state=0) for point in points for _ in folds
        ]
        library.fit_many(models, X, y, rows=[train for train, _ in folds] * len(points))
        tests = [test for _, test in folds] * len(points)
        scores = [model.score(X[test], y[test]) for model, test in zip(models, tests, strict=True)]
        means = np.reshape(scores, (len(points), -1)).mean(1)
        # As the search does at its end.
        clone(models[int(means.argmax()) * len(folds)]).fit(X, y)
        return means

    return run


def tasks() -> dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], float], float, int]]:
    """Return for each task what runs, how results are compared, the largest ratio, and the turns."""
    iris, digits = load_iris(return_X_y=True), load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60_000, 784)) / 255.0
    X, noise = rng.standard_normal((20_000, 50)), rng.standard_normal(20_000)
    fitted = {
        library: library.MLPClassifier(max_iter=5, random_state=0).fit(*digits) for library in (theirs, ours)
    }
    many = np.resize(digits[0], (10_000, 64))
    adam = {**_ALL, "solver": "adam"}
    wide = {"hidden_layer_sizes": (256, 256), "batch_size": 200, "max_iter": 20}
    return {
        "iris, adam, 200 epochs": (_fit("MLPClassifier", *iris, **adam, max_iter=200), _same_fit, 0.10, 7),
        "digits, adam, 50 epochs": (_fit("MLPClassifier", *digits, **adam, max_iter=50), _same_fit, 0.15, 3),
        "MNIST size, adam, 5 epochs": (
            _fit(
                "MLPClassifier",
                pixels,
                rng.integers(0, 10, 60_000),
                **adam,
                hidden_layer_sizes=(128,),
                batch_size=128,
                max_iter=5,
            ),
            _same_fit,
            0.33,
            2,
        ),
        "regression 20,000 x 50, 20 epochs": (
            _fit("MLPRegressor", X, np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * noise, **adam, **wide),
            _same_fit,
            0.40,
            2,
        ),
        "digits, lbfgs, max_iter=100": (
            _fit("MLPClassifier", *digits, solver="lbfgs", max_iter=100, random_state=0),
            _same_fit,
            0.50,
            3,
        ),
        "predict, 1 row": (lambda library: fitted[library].predict(many[:1]), _same_values, 0.25, 300),
        "predict, 10,000 rows": (lambda library: fitted[library].predict(many), _same_values, 0.50, 20),
        "24 fits on digits, n_jobs=2": (_search(*digits), _same_values, 0.25, 3),
        "the same 24 fits, n_jobs=2, fit_many": (_search_in_one_process(*digits), _same_values, 0.25, 3),
    }


def main(names: list[str]) -> None:
    """Print the table; of the tasks whose name has one of `names` in it, if there are any."""
    warnings.simplefilter("ignore")
    print("| task | scikit-learn | ferrograd | ratio | at most | results apart |")
    print("|---|---|---|---|---|---|")
    for task, (run, compare, limit, turns) in tasks().items():
        if names and not any(name in task for name in names):
            continue
        if "n_jobs" in task:
            joblib.Parallel(n_jobs=2)(joblib.delayed(time.sleep)(0.1) for _ in range(4))
        apart = compare(*(run(library) for library in (theirs, ours)))
        best = dict.fromkeys((theirs, ours), float("inf"))
        for _ in range(turns):
            for library in best:
                if turns < _MANY:
                    time.sleep(_PAUSE)
                start = time.perf_counter()
                run(library)
                best[library] = min(best[library], time.perf_counter() - start)
        slow, fast = best[theirs], best[ours]
        times = f"{slow * 1e3:.3g} ms | {fast * 1e3:.3g} ms | {fast / slow:.2f}"
        print(f"| {task} | {times} | {limit:.2f} | {apart:.0e} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
