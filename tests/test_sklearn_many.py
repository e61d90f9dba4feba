"""`fit_many`: each fit is its own to the bit, whatever runs beside it; an error or Ctrl-C changes nothing."""

import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.utils._param_validation import InvalidParameterError

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor, fit_many

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, len(y))

SOLVERS: list[dict[str, Any]] = [
    {},
    {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "max_iter": 30},
    {"solver": "lbfgs", "hidden_layer_sizes": (20,)},
    {"solver": "lbfgs", "alpha": 1.0, "max_iter": 40},
    {"early_stopping": True, "n_iter_no_change": 2},
    {"early_stopping": True, "early_stopping_metric": "loss"},
    {"dropout": 0.2, "hidden_layer_sizes": (30, 20), "activation": "tanh"},
    {"dtype": "float32", "batch_size": 40, "weight_decay": 0.01, "clip_norm": 0.5},
    {"shuffle": False, "random_state": 7, "n_threads": 1},
]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = fg.get_num_threads()
    yield
    assert fg.get_num_threads() == before or fg.set_num_threads(before) is None


def make(kind: Any = MLPClassifier, **options: Any) -> Any:
    return kind(**{"hidden_layer_sizes": (16,), "max_iter": 8, "random_state": 0, **options})


def own(models: list[Any], *args: Any, **arguments: Any) -> list[Any]:
    return [clone(model).fit(*args, **arguments) for model in models]


def fitted(model: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(model).items() if name.endswith("_")}


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert fitted(one).keys() == fitted(other).keys()
        for name, value in fitted(other).items():
            arrays = fitted(one)[name], value
            if isinstance(value, list):
                assert len(arrays[0]) == len(value)
                assert all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True)), name
            else:
                assert np.array_equal(*arrays), name


@pytest.mark.parametrize("threads", [1, 2, 3, 40])
def test_each_fit_is_its_own_to_the_bit(threads: int) -> None:
    # Beside regressors of the class numbers; the estimators' own losses too.
    extra = [make(loss="hinge"), make(class_weight="balanced"), make(MLPRegressor, loss="poisson")]
    models = [make(kind, **options) for kind in (MLPClassifier, MLPRegressor) for options in SOLVERS] + extra
    expected = own(models, X, y, WEIGHT)
    fg.set_num_threads(threads)
    found = fit_many(models, X, y, WEIGHT)
    assert all(one is other for one, other in zip(found, models, strict=True))
    assert_equal(found, expected)
    assert all(np.array_equal(a.predict(X), b.predict(X)) for a, b in zip(found, expected, strict=True))


def test_a_fit_that_goes_on_is_its_own_too() -> None:
    models = [make(warm_start=True, random_state=n).fit(X, y) for n in range(3)]
    others = [make(warm_start=True, random_state=n).fit(X, y) for n in range(3)]
    assert_equal(fit_many(models, X, y), [model.fit(X, y) for model in others])


@pytest.mark.parametrize("container", [np.asarray, np.float32, np.int64, list, csr_array, pd.DataFrame])
def test_rows_are_those_of_folds(container: Any) -> None:
    rows = [np.arange(0, 100), np.arange(150) % 3 > 0, slice(20, None), None, list(range(149, 40, -1))]
    models = [make(random_state=n) for n in range(len(rows))]
    table = container(X)
    if container is pd.DataFrame:
        table.columns = list("abcd")
    expected = []
    for model, place in zip(models, rows, strict=True):
        place = np.arange(150)[slice(None) if place is None else place]
        part = table.iloc[place] if container is pd.DataFrame else container(csr_array(X)[place].toarray())
        if container is pd.DataFrame:
            part.columns = list("abcd")
        expected += own([model], part, y[place], WEIGHT[place])
    assert_equal(fit_many(models, table, y, WEIGHT, rows=rows), expected)


def test_a_fit_may_have_arguments_of_its_own() -> None:
    held = {"X_val": X[::5], "y_val": y[::5]}
    given: list[dict[str, Any]] = [{}, {"y": y > 0}, {"sample_weight": WEIGHT}, held, {"X": X[:, :2]}]
    models = [make() for _ in given]
    expected = [
        model.fit(**{"X": X, "y": y, **arguments})
        for model, arguments in zip([make() for _ in given], given, strict=True)
    ]
    assert_equal(fit_many(models, X, y, fit_params=given), expected)
    assert len(models[3].validation_loss_curve_) == 8
    assert models[1].classes_.dtype == bool


# Generators


def generators() -> list[Any]:
    one, other = np.random.RandomState(1), np.random.RandomState(2)
    same = np.random.RandomState(one._bit_generator)
    return [None, one, 3, other, same, None, one, np.random.RandomState(np.random.PCG64(5)), 3]


def state_of(generator: Any) -> bytes:
    """Return the state of a RandomState, or of numpy's global one."""
    return pickle.dumps((generator or np.random.mtrand._rand).get_state(legacy=False))


def test_a_generator_is_drawn_from_in_the_order_of_the_estimators() -> None:
    results, ends = [], []
    fg.set_num_threads(3)
    for fit in (lambda models: [model.fit(X, y) for model in models], lambda models: fit_many(models, X, y)):
        np.random.seed(4)
        given = generators()
        # Those that stop early have drawn less.
        models = [make(random_state=g, early_stopping=n % 2 == 0) for n, g in enumerate(given)]
        results.append(fit(models))
        ends.append([state_of(g) for g in [None, *given] if not isinstance(g, int)])
    assert_equal(*results)
    assert ends[0] == ends[1]
    assert not np.array_equal(results[1][0].coefs_[0], results[1][5].coefs_[0])


# Errors


def snapshot(models: list[Any]) -> list[Any]:
    return [
        {name: repr(value) for name, value in vars(model).items() if name != "_predictions"}
        for model in models
    ]


def test_an_error_leaves_all_as_before_and_names_the_first_that_fails() -> None:
    fg.set_num_threads(2)
    generator = np.random.RandomState(0)
    # Long enough that others have ended, and one that has been fitted and would go on.
    models = [make(random_state=n, max_iter=3) for n in range(6)]
    models[1] = make(warm_start=True, early_stopping=True, random_state=generator).fit(X, y)
    models[4] = make(random_state=generator, max_iter=10**6, tol=0.0, n_iter_no_change=10**6)
    models[2] = make(random_state=None, max_iter=200, solver="sgd", learning_rate_init=1e300)
    models[5] = make(MLPRegressor, solver="sgd", learning_rate_init=1e300, random_state=9)
    before, states = snapshot(models), [state_of(generator), state_of(None)]
    with pytest.raises(ValueError, match="non-finite parameter weights") as caught:
        fit_many(models, X, y)
    assert caught.value.__notes__ == ["fit_many: in the fit of estimators[2]"]
    assert snapshot(models) == before
    assert [state_of(generator), state_of(None)] == states
    assert not hasattr(models[0], "coefs_")
    assert_equal(fit_many([models[0]], X, y), own([models[0]], X, y))


def test_a_parameter_that_is_refused_is_before_any_fit() -> None:
    begun = []
    models = [
        make(early_stopping=True, early_stopping_metric=lambda *_: begun.append(1) or 0.0),
        make(tol=-1.0),
    ]
    with pytest.raises(InvalidParameterError, match="'tol'") as caught:
        fit_many(models, X, y)
    assert (caught.value.__notes__, begun) == (["fit_many: in the fit of estimators[1]"], [])


def bad_calls() -> list[tuple[str, type, str, Any]]:
    two = [make(), make()]
    return [
        (
            "another library",
            TypeError,
            r"estimators\[1\]: .*LogisticRegression",
            ([make(), LogisticRegression()],),
        ),
        ("a class", TypeError, r"estimators\[0\]: .*got type|ABCMeta", ([MLPClassifier],)),
        ("twice", fg.ConfigError, r"estimators\[2\]: .*that of 0 again", ([two[0], two[1], two[0]],)),
        ("rows", fg.ShapeError, "rows: expected 2 entries.*got 1", (two, {"rows": [None]})),
        (
            "fit_params",
            fg.ShapeError,
            "fit_params: expected 2 entries.*got 3",
            (two, {"fit_params": [{}] * 3}),
        ),
        ("name", fg.ConfigError, r"fit_params\[1\]: .*got 'z'", (two, {"fit_params": [{}, {"z": 1}]})),
        ("row", IndexError, "150", (two, {"rows": [None, [150]]})),
        ("mask", ValueError, "0 sample", (two, {"rows": [None, np.zeros(150, bool)]})),
        ("lengths", ValueError, "inconsistent", (two, {"fit_params": [{}, {"y": y[1:]}]})),
    ]


@pytest.mark.parametrize(
    ("error", "message", "call"), [c[1:] for c in bad_calls()], ids=[c[0] for c in bad_calls()]
)
def test_bad_input_is_named(error: type[Exception], message: str, call: Any) -> None:
    models, options = call[0], call[1] if len(call) > 1 else {}
    with pytest.raises(error, match=message):
        fit_many(models, X, y, **options)
    assert not any(hasattr(model, "coefs_") for model in models)


def test_no_estimators_are_no_fits() -> None:
    assert fit_many([], X, y) == []


# Warnings, settings, threads


@pytest.mark.filterwarnings("default")
def test_warnings_are_those_of_own_fits_and_their_filters_stay() -> None:
    fg.set_num_threads(2)
    models = [make(max_iter=2, batch_size=10**3, random_state=n) for n in range(6)] + [
        make(solver="lbfgs", max_iter=1)
    ]
    found = []
    for fit in (lambda: own(models, X, y.reshape(-1, 1)), lambda: fit_many(models, X, y.reshape(-1, 1))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = list(warnings.filters)
            fit()
            assert warnings.filters == before
        found.append(sorted((w.category.__name__, str(w.message)) for w in caught))
    assert found[0] == found[1]
    assert len(found[0]) == 6 * 3 + 2


def test_a_warning_that_is_an_error_is_one() -> None:
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(sklearn.exceptions.ConvergenceWarning, match="Maximum iterations"),
    ):
        fit_many([make(max_iter=2)], X, y)


def observed(threads: int, count: int, **options: Any) -> list[Any]:
    """Return what each scoring saw: threads of its fit, the name of its thread, a setting of scikit-learn."""
    found: list[Any] = []

    def score(*_: Any) -> float:
        seen = fg.get_num_threads(), threading.current_thread().name, sklearn.get_config()["display"]
        found.append(seen)
        return 0.0

    fg.set_num_threads(threads)
    models = [
        make(early_stopping=True, early_stopping_metric=score, random_state=n, **options)
        for n in range(count)
    ]
    with sklearn.config_context(display="text"):
        fit_many(models, X, y)
    assert fg.get_num_threads() == threads
    return found


@pytest.mark.parametrize(
    ("threads", "count", "share"), [(1, 4, 1), (2, 5, 1), (3, 3, 1), (4, 2, 2), (7, 3, 2), (3, 1, 3)]
)
def test_fits_share_the_threads(threads: int, count: int, share: int) -> None:
    found = observed(threads, count)
    assert {seen[0] for seen in found} == {share}
    assert len({seen[1] for seen in found}) <= min(threads, count)
    assert {seen[2] for seen in found} == {"text"}


def test_a_fit_may_have_fewer_threads_than_its_share() -> None:
    assert {seen[0] for seen in observed(4, 1, n_threads=2)} == {2}
    assert {seen[0] for seen in observed(2, 2, n_threads=2)} == {1}


def test_a_scorer_may_fit_many() -> None:
    def score(model: Any, rows: Any, labels: Any) -> float:
        return float(fit_many([make(max_iter=2), make(max_iter=2, random_state=1)], rows, labels)[1].loss_)

    fg.set_num_threads(2)
    models = [make(early_stopping=True, early_stopping_metric=score, random_state=n) for n in range(3)]
    assert_equal(fit_many(models, X, y), own(models, X, y))


def test_an_anomaly_is_found_as_in_an_own_fit() -> None:
    model = make(MLPRegressor, solver="sgd", learning_rate_init=1e300)
    for fit in (lambda: clone(model).fit(X, y), lambda: fit_many([clone(model)], X, y)):
        with fg.anomaly_mode(), pytest.raises(fg.AnomalyError):
            fit()


@pytest.mark.skipif(not hasattr(MLPClassifier, "set_callbacks"), reason="before scikit-learn 1.9")
def test_fits_with_callbacks_come_one_after_the_other() -> None:
    from sklearn.callback import ScoringMonitor

    fg.set_num_threads(3)
    models = [make(random_state=n).set_callbacks(ScoringMonitor(scoring="accuracy")) for n in range(3)]
    found = fit_many([*models, make()], X, y)
    assert_equal(found, own([make(random_state=n) for n in (0, 1, 2, 0)], X, y))


INTERRUPTED = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, fit_many

fg.set_num_threads(2)
rng = np.random.default_rng(0)
X, y = rng.normal(size=(int(sys.argv[1]), 50)), rng.integers(0, 3, int(sys.argv[1]))
options = {"tol": 0.0, "max_iter": 10**9, "max_fun": 10**9, "n_iter_no_change": 10**9}
generator = np.random.RandomState(5)
models = [MLPClassifier(solver=sys.argv[2], random_state=n, **options) for n in (1, 2, 3, generator)]
models.append(MLPClassifier(max_iter=3, random_state=0).fit(X, y))
before = models[-1].coefs_
state = str(generator.get_state())
sent = []

def interrupt():
    time.sleep(1)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    fit_many(models, X, y)
except KeyboardInterrupt:
    latency = time.perf_counter() - sent[0]
else:
    raise AssertionError("no KeyboardInterrupt")
assert not any(hasattr(model, "coefs_") for model in models[:-1])
assert models[-1].coefs_ is before or all(a is b for a, b in zip(models[-1].coefs_, before))
assert str(generator.get_state()) == state
models[0].set_params(solver="adam", max_iter=2).fit(X, y)
assert threading.active_count() == 1, threading.enumerate()
print(latency)
"""


@pytest.mark.parametrize(("rows", "solver"), [(300, "adam"), (20_000, "sgd"), (20_000, "lbfgs")])
def test_ctrl_c_leaves_all_as_before_within_a_quarter_of_a_second(rows: int, solver: str) -> None:
    latencies: list[float] = []
    # The best of three: a machine that is busy with something else says nothing of the fits.
    while len(latencies) < 3 and min(latencies, default=1.0) >= 0.25:
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", INTERRUPTED, str(rows), solver],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert child.returncode == 0, child.stderr.decode()
        latencies.append(float(child.stdout))
    assert min(latencies) < 0.25, latencies
