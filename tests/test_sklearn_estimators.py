"""The estimators among scikit-learn's tools: copies, searches, data of many kinds, errors, interruptions."""

import copy
import pickle
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array, csr_array
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
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
    polars = pytest.importorskip("polars")
    table = polars.DataFrame(frame.to_dict("list"))
    np.testing.assert_array_equal(model.predict(table), model.predict(frame))


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


def test_widths_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be > 0, got \[4, 0\]"):
        MLPClassifier((4, 0)).fit(X, y)


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


# What scikit-learn's do not have


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 2, 150)])
def test_class_weights_are_sample_weights(solver: str, weight: Any) -> None:
    options = {"solver": solver, "max_iter": 4, "random_state": 0}
    targets = np.minimum(y, 1)
    first = MLPClassifier(**options, class_weight={1: 3.0}).fit(X, targets, sample_weight=weight)
    factors = np.where(targets == 1, 3.0, 1.0) * (1 if weight is None else weight)
    second = MLPClassifier(**options).fit(X, targets, sample_weight=factors)
    np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])
    balanced = MLPClassifier(**options, class_weight="balanced").fit(X, targets, sample_weight=weight)
    counted = np.where(targets == 1, 150 / 200, 150 / 100) * (1 if weight is None else weight)
    third = MLPClassifier(**options).fit(X, targets, sample_weight=counted)
    np.testing.assert_array_equal(balanced.coefs_[0], third.coefs_[0])


def test_class_weights_count_in_training_and_not_in_the_score_that_stops_it() -> None:
    options = {"max_iter": 4, "random_state": 0, "early_stopping": True}
    targets = np.minimum(y, 1)
    by_class = MLPClassifier(**options, class_weight={1: 3.0}).fit(X, targets)
    by_row = MLPClassifier(**options).fit(X, targets, sample_weight=np.where(targets == 1, 3.0, 1.0))
    assert by_class.loss_curve_ == by_row.loss_curve_
    assert by_class.validation_scores_ != by_row.validation_scores_
    rows = 15 * np.array(by_class.validation_scores_)
    np.testing.assert_allclose(rows, rows.round(), atol=1e-9)


def test_balanced_weights_need_all_rows() -> None:
    with pytest.raises(ValueError, match="class_weight: expected a dict for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(InvalidParameterError, match="'class_weight' parameter of MLPClassifier"):
        MLPClassifier(class_weight="equal").fit(X, y)


@pytest.mark.parametrize("dtype", ["float32", np.float32, "float64"])
def test_the_dtype_may_be_another_than_that_of_the_rows(dtype: Any) -> None:
    model = MLPRegressor(max_iter=3, random_state=0, dtype=dtype).fit(X, y)
    other = MLPRegressor(max_iter=3, random_state=0).fit(X.astype(dtype), y)
    np.testing.assert_array_equal(model.coefs_[0], other.coefs_[0])
    assert model.coefs_[0].dtype == model.predict(X).dtype == np.dtype(dtype)


@BOTH
def test_initial_parameters_may_be_given(kind: Any) -> None:
    first = kind(max_iter=3, random_state=0).fit(X, y)
    second = kind(
        max_iter=1,
        shuffle=False,
        learning_rate_init=1e-300,
        coefs_init=[array.tolist() for array in first.coefs_],
        intercepts_init=first.intercepts_,
    ).fit(X, y)
    np.testing.assert_array_equal(second.coefs_[1], first.coefs_[1])
    np.testing.assert_array_equal(second.predict(X), first.predict(X))
    second.coefs_[0][:] = 0
    assert np.abs(first.coefs_[0]).min() > 0
    message = r"coefs_init\[1\]: expected finite values of shape \(100, \d\), got shape \(100, 7\)"
    with pytest.raises(ValueError, match=message):
        kind(coefs_init=[np.ones((4, 100)), np.ones((100, 7))]).fit(X, y)
    with pytest.raises(ValueError, match="intercepts_init: expected 2 arrays, one a layer, got 1"):
        kind(intercepts_init=[[0.0]]).fit(X, y)
    with pytest.raises(ValueError, match=r"intercepts_init\[0\]: .* got NaN or infinity"):
        kind(intercepts_init=[np.full(100, np.nan), np.zeros(3)]).fit(X, y)


def test_a_gradient_is_clipped_to_a_norm() -> None:
    options = {"solver": "sgd", "momentum": 0.0, "max_iter": 1, "batch_size": 150, "random_state": 0}
    start = MLPRegressor(**options, learning_rate_init=1e-300).fit(X, y)
    model = MLPRegressor(**options, learning_rate_init=0.5, clip_norm=1e-3).fit(X, y)
    steps = [
        after - before
        for name in ("coefs_", "intercepts_")
        for after, before in zip(getattr(model, name), getattr(start, name), strict=True)
    ]
    assert np.sqrt(sum((step**2).sum() for step in steps)) == pytest.approx(0.5e-3, rel=1e-2)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_training_ends_with_its_time(solver: str) -> None:
    options = {"max_iter": 10**7, "max_fun": 10**9, "tol": 0.0, "n_iter_no_change": np.inf, "alpha": 0.0}
    digits, labels = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).permutation(labels)
    start = time.perf_counter()
    model = MLPClassifier((200,), solver=solver, max_time=0.3, **options).fit(digits, noise)
    assert 0.3 < time.perf_counter() - start < 20
    assert 0 < model.n_iter_ < 10**7
    assert model.predict(digits).shape == noise.shape


def test_threads_are_those_of_the_call() -> None:
    before = fg.get_num_threads()
    model = MLPClassifier(max_iter=2, random_state=0, n_threads=1).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), fitted(max_iter=2).predict_proba(X))
    assert fg.get_num_threads() == before
    with pytest.raises(InvalidParameterError, match="'n_threads'"):
        MLPClassifier(n_threads=0).fit(X, y)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_weights_decay_apart_from_the_gradient(solver: str) -> None:
    options = {
        "solver": solver,
        "max_iter": 1,
        "batch_size": 150,
        "random_state": 0,
        "learning_rate_init": 0.5,
    }
    start = MLPRegressor(**{**options, "learning_rate_init": 1e-300}).fit(X, y)
    plain = MLPRegressor(**options).fit(X, y)
    decayed = MLPRegressor(**options, weight_decay=0.1).fit(X, y)
    for n in range(2):
        np.testing.assert_allclose(
            decayed.coefs_[n], plain.coefs_[n] - 0.5 * 0.1 * start.coefs_[n], rtol=1e-12, atol=1e-14
        )
        np.testing.assert_array_equal(decayed.intercepts_[n], plain.intercepts_[n])


def test_dropout_has_the_masks_of_its_seed_and_acts_in_training_only() -> None:
    options = {"max_iter": 3, "random_state": 0}
    models = [fitted(**options, dropout=p) for p in (0.5, 0.5, [0.5], 0.0)]
    assert models[0].loss_curve_ == models[1].loss_curve_ == models[2].loss_curve_
    assert models[0].loss_curve_ != models[3].loss_curve_
    assert fitted(**{**options, "random_state": 1}, dropout=0.5).loss_curve_ != models[0].loss_curve_
    np.testing.assert_array_equal(models[0].predict_proba(X), models[0].predict_proba(X))
    # Almost all inputs dropped: nothing but the biases learns, and the others see no row.
    blind = MLPClassifier(max_iter=30, random_state=0, input_dropout=1 - 1e-12).fit(X[:, :3], y)
    np.testing.assert_allclose(blind.coefs_[0].std(), np.sqrt(2 / 103), rtol=0.2)
    for p in (1.0, [0.1, 0.2], "half"):
        with pytest.raises(InvalidParameterError, match="The 'dropout' parameter of MLPClassifier must be"):
            MLPClassifier(dropout=p).fit(X, y)


@pytest.mark.parametrize(
    ("activation", "reference"),
    [
        ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
        (("leaky_relu", {"negative_slope": 0.3}), lambda x: np.where(x > 0, x, 0.3 * x)),
        (("elu", {"alpha": 2.0}), lambda x: np.where(x > 0, x, 2 * np.expm1(x))),
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("softplus", lambda x: np.log1p(np.exp(x))),
        (["tanh"], np.tanh),
    ],
)
def test_hidden_layers_may_have_other_activations(activation: Any, reference: Any) -> None:
    model = MLPRegressor(activation=activation, max_iter=3, random_state=0).fit(X, y)
    hidden = reference(X @ model.coefs_[0] + model.intercepts_[0])
    expected = hidden @ model.coefs_[1] + model.intercepts_[1]
    np.testing.assert_allclose(model.predict(X), expected[:, 0], rtol=1e-12)


@pytest.mark.parametrize("name", ["selu", "gelu"])
def test_each_layer_may_have_its_own_activation(name: str) -> None:
    model = MLPClassifier((5, 6), activation=["logistic", name], max_iter=3, random_state=0).fit(X, y)
    hidden = fg.tensor(1 / (1 + np.exp(-(X @ model.coefs_[0] + model.intercepts_[0]))))
    hidden = getattr(fg.nn.functional, name)(hidden @ model.coefs_[1] + model.intercepts_[1])
    expected = (hidden @ model.coefs_[2] + model.intercepts_[2]).softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-12)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


@pytest.mark.parametrize(
    "activation", ["sin", ["relu"], ("elu", {"beta": 1}), ("elu", 3), ("softplus", {"beta": "x"}), 5]
)
def test_an_activation_that_is_none_is_refused(activation: Any) -> None:
    with pytest.raises(InvalidParameterError, match="The 'activation' parameter of MLPClassifier must be"):
        MLPClassifier((3, 3), activation=activation).fit(X, y)


@BOTH
def test_validation_data_may_be_given(kind: Any) -> None:
    options = {"max_iter": 6, "random_state": 0, "alpha": 1.0}
    model = kind(**options).fit(X, y, X_val=X[::3], y_val=y[::3])
    plain = kind(**options).fit(X, y)
    assert model.loss_curve_ == plain.loss_curve_
    assert not hasattr(plain, "validation_loss_curve_")
    assert len(model.validation_loss_curve_) == 6
    if kind is MLPRegressor:
        expected = 0.5 * np.mean((model.predict(X[::3]) - y[::3]) ** 2)
    else:
        expected = -np.mean(model.predict_log_proba(X[::3])[np.arange(50), y[::3]])
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
    weight = np.arange(50.0)
    weighted = kind(**options).fit(X, y, X_val=csr_array(X[::3]), y_val=y[::3], sample_weight_val=weight)
    repeated = np.repeat(np.arange(50), weight.astype(int))
    again = kind(**options).fit(X, y, X_val=X[::3][repeated], y_val=y[::3][repeated])
    np.testing.assert_allclose(weighted.validation_loss_curve_, again.validation_loss_curve_, rtol=1e-12)


@BOTH
def test_early_stopping_goes_by_validation_data_that_are_given(kind: Any) -> None:
    options = {"max_iter": 8, "random_state": 0, "early_stopping": True, "tol": 0.0}
    model = kind(**options).fit(X, y, X_val=X[::3], y_val=y[::3])
    # No row is set aside.
    assert model.loss_curve_ == kind(**{**options, "early_stopping": False}).fit(X, y).loss_curve_
    assert model.score(X[::3], y[::3]) == pytest.approx(model.best_validation_score_, rel=1e-12)
    by_loss = kind(**options, early_stopping_metric="loss").fit(X, y, X_val=X[::3], y_val=y[::3])
    assert by_loss.validation_scores_ == [-loss for loss in by_loss.validation_loss_curve_]
    scoring = "neg_mean_absolute_error" if kind is MLPRegressor else "balanced_accuracy"
    frame = pd.DataFrame(X, columns=list("abcd"))
    scored = kind(**options, early_stopping_metric=scoring).fit(frame, y, X_val=frame[::3], y_val=y[::3])
    expected = get_scorer(scoring)(scored, frame[::3], y[::3])
    assert scored.best_validation_score_ == pytest.approx(expected, rel=1e-12)


def test_a_part_may_be_set_aside_for_the_loss() -> None:
    model = fitted(early_stopping=True, early_stopping_metric="loss")
    other = fitted(early_stopping=True)
    assert model.loss_curve_ == other.loss_curve_
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 5


def test_validation_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="X_val, y_val: expected both"):
        MLPClassifier().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match=r"y_val: expected classes among \[0 1 2\], got \[1 7\]"):
        MLPClassifier().fit(X, y, X_val=X[:2], y_val=[1, 7])
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        MLPClassifier().fit(X, y, X_val=X[:, :3], y_val=y)
    with pytest.raises(InvalidParameterError, match="'early_stopping_metric'"):
        MLPClassifier(early_stopping_metric="luck").fit(X, y)


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"loss": "absolute_error"}, lambda d: np.abs(d)),
        (
            {"loss": "huber", "huber_delta": 0.2},
            lambda d: np.where(abs(d) < 0.2, d**2 / 2, 0.2 * (abs(d) - 0.1)),
        ),
        ({"loss": "quantile", "quantile": 0.9}, lambda d: np.where(d < 0, -0.9 * d, 0.1 * d)),
        (
            {"loss": "quantile", "quantile": [0.1, 0.9]},
            lambda d: np.where(d < 0, -np.array([0.1, 0.9]) * d, np.array([0.9, 0.1]) * d),
        ),
    ],
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_other_losses_are_reported_and_go_down_their_gradient(options: Any, loss: Any, outputs: int) -> None:
    has_list = isinstance(options.get("quantile"), list)
    if has_list and outputs == 2:
        with pytest.raises(ValueError, match="y: expected one output for several quantiles, got 2"):
            MLPRegressor(**options).fit(X, np.c_[y, y])
        return
    targets = y.astype(float) if outputs == 1 else np.c_[y, X[:, 0]]
    column = targets.reshape(150, -1)
    shared = {
        "solver": "sgd",
        "momentum": 0.0,
        "batch_size": 150,
        "max_iter": 1,
        "alpha": 0.0,
        "random_state": 0,
    }
    start = MLPRegressor(**shared, **options, learning_rate_init=1e-300).fit(X, targets)

    def value(model: Any) -> float:
        return float(loss(model.predict(X).reshape(150, -1) - column).mean())

    assert start.loss_ == pytest.approx(value(start), rel=1e-12)
    moved = MLPRegressor(**shared, **options, learning_rate_init=1e-6).fit(X, targets)
    steps = [
        ((after - before) ** 2).sum()
        for name in ("coefs_", "intercepts_")
        for after, before in zip(getattr(moved, name), getattr(start, name), strict=True)
    ]
    # A step of r g makes the loss r norm(g)^2 smaller.
    assert value(start) - value(moved) == pytest.approx(sum(steps) / 1e-6, rel=1e-3)


def test_quantiles_bound_their_share_of_the_targets() -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (2000, 1))
    noisy = rows[:, 0] + 0.5 * np.random.default_rng(1).standard_normal(2000)
    options = {"loss": "quantile", "max_iter": 60, "random_state": 0, "learning_rate_init": 0.01}
    model = MLPRegressor(**options, quantile=[0.1, 0.5, 0.9], early_stopping=True).fit(rows, noisy)
    below = (noisy[:, None] < model.predict(rows)).mean(0)
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=0.05)
    for quantile in ([], [0.5, 1.0], ["half"], 0.0):
        with pytest.raises(InvalidParameterError, match="The 'quantile' parameter of MLPRegressor must be"):
            MLPRegressor(loss="quantile", quantile=quantile).fit(rows, noisy)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", ["two classes", "three classes", "labels"])
def test_hinge_losses_are_those_of_the_scores(kind: str, power: int, solver: str) -> None:
    targets = {"two classes": y == 1, "three classes": y, "labels": np.c_[y == 1, X[:, 0] > 6].astype(int)}[
        kind
    ]
    name = "hinge" if power == 1 else "squared_hinge"
    model = MLPClassifier(loss=name, solver=solver, alpha=0.0, max_iter=60, random_state=0)
    model.fit(
        X, targets, X_val=None if solver == "lbfgs" else X, y_val=None if solver == "lbfgs" else targets
    )
    scores = model.decision_function(X)
    if kind == "three classes":
        apart = np.maximum(0, 1 + scores - scores[np.arange(150), y][:, None])
        apart[np.arange(150), y] = 0
        predicted = scores.argmax(1)
    else:
        signs = np.where(targets, 1, -1).reshape(150, -1)
        apart = np.maximum(0, 1 - signs * scores.reshape(150, -1))
        predicted = scores > 0
    loss = model.loss_ if solver == "lbfgs" else model.validation_loss_curve_[-1]
    assert loss == pytest.approx((apart**power).sum(1).mean(), rel=1e-9)
    np.testing.assert_array_equal(model.predict(X), predicted)
    assert model.score(X, targets) > (0.8 if solver == "lbfgs" else 0.5)
    assert not hasattr(model, "predict_proba")
    assert not hasattr(model, "predict_log_proba")


def test_probabilities_and_margins_exclude_each_other() -> None:
    assert not hasattr(fitted(), "decision_function")
    with pytest.raises(AttributeError, match="decision_function"):
        fitted().decision_function(X)
    with pytest.raises(AttributeError, match="predict_proba"):
        fitted(loss="hinge").predict_proba(X)
    with pytest.raises(InvalidParameterError, match="'loss' parameter of MLPClassifier"):
        MLPClassifier(loss="squared_error").fit(X, y)
