"""The estimators among scikit-learn's tools: copies, searches, data of many kinds, errors, interruptions."""

import copy
import pickle
import subprocess
import sys
import threading
import warnings
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy.sparse import csc_array, csr_array
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
KINDS = theirs.MLPClassifier, MLPClassifier
BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])


def fitted(**options: Any) -> MLPClassifier:
    return MLPClassifier(**{"max_iter": 5, "random_state": 0, **options}).fit(X, y)


@BOTH
def test_parameters_are_scikit_learns_and_ours_come_after(kind: Any) -> None:
    if "loss" not in theirs.MLPRegressor().get_params():
        pytest.skip("another release's parameters")
    nones = ("early_stopping_metric", "dtype", "coefs_init", "intercepts_init")
    shared: dict[str, Any] = dict.fromkeys((*nones, "clip_norm", "max_time", "n_threads"))
    shared |= {"dropout": 0.0, "input_dropout": 0.0, "weight_decay": 0.0}
    shared |= {"normalization": None, "out_activation": None, "l1": 0.0, "standardize": False}
    shared |= {"lr_schedule": None, "callbacks": None}
    own = {
        "MLPRegressor": {"correct_multioutput": False, "huber_delta": 1.0, "quantile": 0.5, **shared},
        "MLPClassifier": {"loss": "log_loss", "class_weight": None, **shared},
    }
    expected = getattr(theirs, kind.__name__)().get_params(deep=False)
    # The classifier's loss is an attribute there and no parameter.
    assert kind().get_params() == {**expected, **own[kind.__name__]}
    assert kind._parameter_constraints.keys() == kind().get_params().keys()


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@BOTH
def test_fitted_attributes_are_scikit_learns(kind: Any, solver: str, early_stopping: bool) -> None:
    options = {"solver": solver, "early_stopping": early_stopping, "max_iter": 3, "random_state": 0}
    models = [k(**options).fit(X, y) for k in (getattr(theirs, kind.__name__), kind)]
    names = [{name for name in vars(model) if name.endswith("_")} for model in models]
    assert names[0] == names[1]
    assert [type(v) for v in models[1].coefs_] == [np.ndarray, np.ndarray]


@BOTH
def test_copies_predict_the_same_and_go_on_the_same(kind: Any, tmp_path: Any) -> None:
    model = kind(max_iter=5, random_state=0).fit(X, y)
    joblib.dump(model, tmp_path / "model")
    copies = [
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        joblib.load(tmp_path / "model"),
        joblib.load(tmp_path / "model", mmap_mode="r"),
    ]
    expected = model.predict(X)
    model.partial_fit(X, y)
    for other in copies:
        np.testing.assert_array_equal(other.predict(X), expected)
        other.partial_fit(X, y)
        np.testing.assert_array_equal(other.coefs_[0], model.coefs_[0])
    assert not hasattr(clone(model), "coefs_")


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_a_grid_search_has_the_results_of_one_job(backend: str) -> None:
    grid = {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__hidden_layer_sizes": [(5,), (20,)]}
    results = []
    for jobs in (1, 2):
        model = make_pipeline(StandardScaler(), MLPClassifier(max_iter=8, random_state=0))
        with joblib.parallel_backend(backend):
            results.append(
                GridSearchCV(model, grid, cv=3, n_jobs=jobs).fit(X, y).cv_results_["mean_test_score"]
            )
    np.testing.assert_array_equal(*results)
    assert cross_validate(fitted(), X, y, cv=3, n_jobs=2)["test_score"].shape == (3,)


def test_frames_have_names_and_other_names_are_refused() -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = MLPClassifier(max_iter=5, random_state=0).fit(frame, y)
    assert model.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(model.predict(frame), fitted().predict(X))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))


def test_polars_frames_have_names_too() -> None:
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9):
        pytest.skip("earlier releases of scikit-learn cannot tell the names of this polars")
    table = pl.DataFrame(dict(zip("abcd", X.T, strict=True)))
    model = MLPClassifier(max_iter=5, random_state=0).fit(table, y)
    assert model.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(model.predict(table), fitted().predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table.rename({"a": "z"}))


@pytest.mark.parametrize("container", [csr_array, csc_array])
def test_sparse_rows_give_the_bits_of_dense_ones(container: Any) -> None:
    digits, labels = load_digits(return_X_y=True)
    for solver in ("adam", "lbfgs"):
        models = [
            MLPClassifier(max_iter=3, random_state=0, solver=solver).fit(rows, labels)
            for rows in (digits, container(digits))
        ]
        np.testing.assert_array_equal(models[0].coefs_[0], models[1].coefs_[0])
        np.testing.assert_array_equal(
            models[0].predict_proba(digits), models[1].predict_proba(container(digits))
        )


def test_entries_that_name_an_element_twice_add_up() -> None:
    twice = csr_array((np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2])), shape=(1, 4))
    model = fitted()
    np.testing.assert_array_equal(model.predict_proba(twice), model.predict_proba([[0.0, 3.0, 0.0, 0.0]]))


@pytest.mark.parametrize("labels", [y == 1, y.astype(str), np.array(["a", "b", "c"], object)[y], y - 1])
def test_labels_of_every_kind_come_back(labels: Any) -> None:
    model = MLPClassifier((30,), solver="lbfgs", max_iter=200, random_state=0).fit(X, labels)
    assert model.score(X, labels) > 0.9
    assert model.predict(X[:1]).dtype == model.classes_.dtype
    assert model.classes_.tolist() == np.unique(labels).tolist()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X), rtol=0, atol=1e-15)


def test_a_column_of_targets_is_taken_with_a_warning() -> None:
    with pytest.warns(DataConversionWarning):
        model = MLPRegressor(max_iter=2).fit(X, y[:, None])
    assert model.predict(X).shape == (150,)


@pytest.mark.parametrize("rows", [1, 2, 3, 150, 1024, 1025, 3000])
def test_a_row_is_predicted_as_among_others(rows: int) -> None:
    model = fitted()
    many = np.resize(X, (rows, 4))
    found = model.predict_proba(many)
    assert found.shape == (rows, 3)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.resize(model.predict_proba(X), (rows, 3)))
    np.testing.assert_array_equal(model.predict_proba(np.asfortranarray(many)), found)
    np.testing.assert_array_equal(model.predict_proba(many.tolist()), found)


def test_predictions_follow_the_parameters_that_the_user_sets() -> None:
    model, other = fitted(), fitted(random_state=1)
    model.predict(X)
    model.coefs_[0][:] = other.coefs_[0]
    model.coefs_[1] = other.coefs_[1]
    model.intercepts_ = other.intercepts_
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    model.coefs_ = [np.zeros((4, 2)), np.zeros((2, 3))]
    model.intercepts_ = [np.zeros(2), np.zeros(3)]
    np.testing.assert_allclose(model.predict_proba(X), 1 / 3)


def test_rows_of_another_precision_raise_the_precision_as_in_numpy() -> None:
    narrow = MLPClassifier(max_iter=5, random_state=0).fit(X.astype(np.float32), y)
    assert narrow.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert narrow.predict_proba(X).dtype == np.float64
    assert fitted().predict_proba(X.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        *((np.asarray, dtype) for dtype in (">f8", ">f4", "f2", "g", ">i4", "u1", "?")),
        *((csr_array, dtype) for dtype in ("g", "u1", "?")),
    ],
)
def test_rows_of_every_kind_of_number_are_predicted(form: Any, dtype: str) -> None:
    rows = form((10 * X).astype(dtype))
    models = [kind((5,), max_iter=3, random_state=0).fit(X, y) for kind in KINDS]
    expected, found = (model.predict_proba(rows) for model in models)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-3 if dtype == "f2" else 1e-9)
    np.testing.assert_array_equal(models[1].activations(rows)[-1], found)
    if dtype not in ("f2", "?"):
        models[1].fit(rows, y)


def test_sparse_rows_may_be_numbered_in_another_byte_order() -> None:
    rows, expected = csr_array(X), fitted().predict_proba(X)
    rows.indices, rows.indptr = rows.indices.astype(">i4"), rows.indptr.astype(">i8")
    np.testing.assert_array_equal(fitted().predict_proba(rows), expected)


def test_an_activation_that_there_is_not_is_told_before_the_data_are_looked_at() -> None:
    for kind in KINDS:
        with pytest.raises(InvalidParameterError, match="'activation' parameter of MLPClassifier must be"):
            kind(activation="softmax").fit(X * np.nan, y)


def test_threads_may_predict_with_one_estimator() -> None:
    model, found = fitted(), []
    expected = model.predict_proba(X)
    threads = [
        threading.Thread(target=lambda n=n: found.append((n, model.predict_proba(X[:n]))))
        for n in range(1, 40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 39
    assert all((part == expected[:n]).all() for n, part in found)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_change_no_bit(count: int) -> None:
    digits, labels = load_digits(return_X_y=True)
    before = fg.get_num_threads()
    expected = MLPClassifier((200,), max_iter=2, random_state=0).fit(digits, labels)
    fg.set_num_threads(count)
    try:
        model = MLPClassifier((200,), max_iter=2, random_state=0).fit(digits, labels)
    finally:
        fg.set_num_threads(before)
    assert model.coefs_[0].tobytes() == expected.coefs_[0].tobytes()
    assert model.loss_curve_ == expected.loss_curve_


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "The 'alpha' parameter of MLP.* must be a float in the range"),
        ({"solver": "newton"}, "The 'solver' parameter of MLP"),
        ({"momentum": 2}, "The 'momentum' parameter of MLP"),
        ({"hidden_layer_sizes": -1}, "The 'hidden_layer_sizes' parameter of MLP"),
        ({"n_iter_no_change": 0}, "The 'n_iter_no_change' parameter of MLP"),
    ],
)
@BOTH
def test_a_parameter_out_of_range_is_refused_in_fit(kind: Any, options: Any, message: str) -> None:
    model = kind(**options)
    with pytest.raises(InvalidParameterError, match=message):
        model.fit(X, y)


def test_widths_in_the_place_of_the_loss_are_told_apart() -> None:
    with pytest.raises(InvalidParameterError, match=r"'loss' parameter.* write hidden_layer_sizes="):
        MLPRegressor((50,)).fit(X, y)


def test_targets_of_a_regressor_may_be_sparse_and_are_numbers() -> None:
    targets = np.c_[y, y == 1].astype(float)
    options = {"max_iter": 3, "random_state": 0}
    sparse = MLPRegressor(**options).fit(X, csr_array(targets))
    assert sparse.loss_curve_ == MLPRegressor(**options).fit(X, targets).loss_curve_
    with pytest.raises(TypeError, match="y: expected real numbers, got dtype <U1"):
        MLPRegressor().fit(X, np.array(list("abc"))[y])


def test_widths_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be > 0, got \[4, 0\]"):
        MLPClassifier((4, 0)).fit(X, y)


@pytest.mark.parametrize("sizes", [["a"], (2.5,), (True,), (3, None), [[3], [4]], (3, (4,))])
@BOTH
def test_widths_that_are_no_integers_are_refused_as_by_scikit_learn(kind: Any, sizes: Any) -> None:
    kinds = []
    for k in (getattr(theirs, kind.__name__), kind):
        with pytest.raises((TypeError, ValueError)) as caught:
            k(hidden_layer_sizes=sizes).fit(X, y)
        kinds.append(caught.type)
    assert issubclass(kinds[0], kinds[1])
    assert str(caught.value) == f"hidden_layer_sizes: expected integers, got {sizes!r}"


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda: (np.where(X[0, 0] == X, np.nan, X), y, None),
        lambda: (X, y[:-1], None),
        lambda: (X[:, :0], y, None),
        lambda: (X, y, np.zeros(150)),
        lambda: (X * 1e300, y, None),
        lambda: (X, y, np.r_[np.ones(75), -np.ones(75)]),
    ],
)
@BOTH
def test_a_failed_fit_leaves_the_estimator_as_it_was(kind: Any, spoil: Any, is_fitted: bool) -> None:
    model = kind(max_iter=3, random_state=np.random.RandomState(0), solver="sgd", batch_size=150)
    if is_fitted:
        model.fit(X, y)
    before = dict(vars(model))
    predicted = model.predict(X) if is_fitted else None
    rows, targets, weight = spoil()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if np.isfinite(rows).all() and np.max(rows, initial=0) > 1e300 / 2:
            model.learning_rate_init = 1e300
            before["learning_rate_init"] = 1e300
        with pytest.raises((ValueError, ZeroDivisionError)):
            model.fit(rows, targets, sample_weight=weight)
    assert vars(model) == before
    if is_fitted:
        np.testing.assert_array_equal(model.predict(X), predicted)
    else:
        with pytest.raises(NotFittedError):
            model.predict(X)


def test_a_failed_first_partial_fit_leaves_no_classes() -> None:
    model = MLPClassifier()
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(X * np.nan, y, classes=[0, 1, 2])
    assert not hasattr(model, "classes_")


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@BOTH
def test_a_failed_call_leaves_no_trace_in_those_that_go_on(kind: Any, solver: str) -> None:
    options = {"solver": solver, "max_iter": 3, "batch_size": 50, "shuffle": False, "warm_start": True}
    models = [kind(**options, random_state=0).fit(X, y) for _ in range(2)]
    # Two steps are made before the batch without weight.
    for fit in (models[0].partial_fit, models[0].fit):
        with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
            fit(X, y, sample_weight=np.repeat([1.0, 1.0, 0.0], 50))
    curves = [model.partial_fit(X, y).loss_curve_ for model in models]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 4
    np.testing.assert_array_equal(models[0].coefs_[0], models[1].coefs_[0])


def test_partial_fit_is_there_for_both_or_none() -> None:
    for kind in (MLPClassifier, MLPRegressor):
        assert hasattr(kind(), "partial_fit")
        assert not hasattr(kind(solver="lbfgs"), "partial_fit")
        with pytest.raises(AttributeError, match="partial_fit"):
            kind(solver="lbfgs").partial_fit(X, y)


def test_warm_start_needs_as_many_outputs() -> None:
    model = MLPRegressor(max_iter=2, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="y: expected 1 outputs, as in the last fit, got 2"):
        model.fit(X, np.c_[y, y])


def test_without_scikit_learn_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import ferrograd.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "pip install 'ferrograd[sklearn]'" in run.stderr


# What is said


@BOTH
def test_what_is_printed_is_scikit_learns(kind: Any, capsys: Any) -> None:
    printed = []
    for k in (getattr(theirs, kind.__name__), kind):
        for options in (
            {"early_stopping": True, "tol": 1.0, "n_iter_no_change": 2},
            {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1},
            {"solver": "sgd", "tol": 1.0, "n_iter_no_change": 3},
        ):
            k(verbose=True, random_state=0, max_iter=40, **options).fit(X, y)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Learning rate too small. Stopping." in printed[1]


@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
def test_warnings_are_scikit_learns() -> None:
    texts = []
    for kind in (theirs.MLPClassifier, MLPClassifier):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kind(max_iter=2, batch_size=1000, random_state=0).fit(X, y)
            kind(max_iter=2, solver="lbfgs", random_state=0).fit(X, y)
        texts.append([(w.category, str(w.message)) for w in caught])
    assert texts[0] == texts[1]
    assert [category for category, _ in texts[1]] == [UserWarning, ConvergenceWarning, ConvergenceWarning]


def test_an_interruption_leaves_a_model_that_predicts(monkeypatch: Any) -> None:
    model = MLPClassifier(
        max_iter=10**9, tol=0, n_iter_no_change=np.inf, random_state=np.random.RandomState(0)
    )
    import _thread

    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.warns(UserWarning, match="Training interrupted by user."):
        model.fit(X, y)
    timer.join()
    assert 0 < model.n_iter_ == len(model.loss_curve_)
    assert model.score(X, y) > 0.3
    # The shuffle of the epoch that was cut short has been drawn.
    state = np.random.RandomState(0)
    for inputs, outputs in ((4, 100), (100, 3)):
        state.uniform(size=inputs * outputs + outputs)
    for _ in range(model.n_iter_ + 1):
        state.permutation(150)
    assert model.random_state.get_state()[2] == state.get_state()[2]


def test_callbacks_are_told_of_each_epoch() -> None:
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ScoringMonitor

    class Stop:
        """Stops after three epochs."""

        def __init__(self) -> None:
            self.seen: list[str] = []

        def setup(self, estimator: Any, context: Any) -> None:
            self.seen.append("setup")

        def teardown(self, estimator: Any, context: Any) -> None:
            self.seen.append("teardown")

        def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
            self.seen.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> bool:
            self.seen.append(f"end {context.task_name}")
            assert fitted_estimator is None or fitted_estimator.predict(X).shape == (150,)
            return self.seen.count("end epoch") == 3

    for solver in ("adam", "lbfgs"):
        stop, monitor = Stop(), ScoringMonitor(scoring="accuracy")
        model = MLPClassifier(max_iter=10, solver=solver, random_state=0).set_callbacks(stop, monitor)
        model.fit(X, y)
        epoch = ["begin epoch", "end epoch"]
        assert stop.seen == ["setup", "begin fit", *3 * epoch, "end fit", "teardown"]
        assert model.n_iter_ == 3
        expected = MLPClassifier(max_iter=3, solver=solver, random_state=0).fit(X, y)
        np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])
