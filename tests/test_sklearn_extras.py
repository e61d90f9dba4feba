"""What the estimators have beyond scikit-learn's: weights of classes, losses, activations, stopping."""

import pickle
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_digits, load_iris
from sklearn.metrics import get_scorer
from sklearn.utils._param_validation import InvalidParameterError

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])


def fitted(**options: Any) -> MLPClassifier:
    return MLPClassifier(**{"max_iter": 5, "random_state": 0, **options}).fit(X, y)


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
    for given in ("equal", {0: -1.0}, {0: np.nan}, {1: "much"}):
        with pytest.raises(InvalidParameterError, match="'class_weight' parameter of MLPClassifier"):
            MLPClassifier(class_weight=given).fit(X, y)


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
    with pytest.raises(ValueError, match=r"coefs_init\[0\]: expected numbers of shape \(4, 100\); could not"):
        kind(coefs_init=[["a"], ["b"]]).fit(X, y)


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
    for count in (0, 10**6):
        with pytest.raises(InvalidParameterError, match="'n_threads'"):
            MLPClassifier(n_threads=count).fit(X, y)


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
    both = "validation data X_val, y_val, sample_weight_val: "
    for kind in (MLPClassifier, MLPRegressor):
        with pytest.raises(ValueError, match=both + "Input X contains NaN"):
            kind().fit(X, y, X_val=X * np.nan, y_val=y)
        with pytest.raises(ValueError, match=both + r"sample_weight.shape == \(3,\), expected \(150,\)"):
            kind().fit(X, y, X_val=X, y_val=y, sample_weight_val=np.ones(3))
    with pytest.raises(TypeError, match=both + "y: expected real numbers, got dtype <U1"):
        MLPRegressor().fit(X, y, X_val=X, y_val=y.astype(str).astype("U1"))
    with pytest.raises(ValueError, match="y_val: expected 1 columns, as y has, got 2"):
        MLPRegressor().fit(X, y, X_val=X, y_val=np.c_[y, y])
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
