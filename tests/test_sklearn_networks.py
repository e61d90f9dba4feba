"""Networks that scikit-learn's estimators do not have: maxout, normalisation, outputs, L1, standardized."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array, csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor, network

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
numbers = X @ np.array([1.0, -2.0, 0.5, 3.0])
BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])

# One of each, and all together.
NETWORKS: dict[str, dict[str, Any]] = {
    "maxout": {"activation": "maxout"},
    "maxout of 3": {"activation": [("maxout", {"pieces": 3}), "tanh"]},
    "batch": {"normalization": "batch"},
    "layer": {"normalization": "layer", "activation": "tanh"},
    "standardized": {"standardize": True},
    "l1": {"l1": 0.3},
    "all": {
        "normalization": "batch",
        "activation": ["maxout", "gelu"],
        "standardize": True,
        "l1": 0.01,
        "dropout": 0.1,
        "input_dropout": 0.1,
    },
}
EACH = pytest.mark.parametrize("name", NETWORKS)


def fitted(kind: Any, name: str, **options: Any) -> Any:
    defaults = {"hidden_layer_sizes": (7, 5), "max_iter": 6, "random_state": 0, "batch_size": 50}
    return kind(**{**defaults, **NETWORKS[name], **options}).fit(X, y)


def outputs(model: Any, rows: Any) -> Any:
    return model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)[:, None]


# Eager training agrees: values, gradients and running statistics.


def eager(model: Any) -> tuple[fg.nn.Module, list[fg.Tensor]]:
    """Return a module of the estimator's network in training, and its weights."""
    module = model.to_module().train()
    return module, [p for name, p in module.named_parameters() if p.ndim == 2]


OUTPUTS: dict[str, Any] = {
    "None": lambda x: x,
    "tanh": fg.tanh,
    "('leaky_relu', {'negative_slope': 0.3})": lambda x: fg.nn.functional.leaky_relu(x, 0.3),
}


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "maxout"},
        {"activation": [("maxout", {"pieces": 3}), "tanh"], "normalization": "layer"},
        {"normalization": "batch", "activation": "tanh"},
        {"normalization": "batch", "activation": ["maxout", "silu"], "alpha": 0.5, "l1": 0.2},
        {"normalization": "layer", "activation": "elu"},
        {"l1": 0.7, "activation": "softplus"},
        {"l1": 0.7, "alpha": 0.3, "out_activation": "tanh"},
        {"out_activation": ("leaky_relu", {"negative_slope": 0.3})},
    ],
)
def test_training_is_that_of_the_module_of_nn(options: dict[str, Any]) -> None:
    shared = {
        "hidden_layer_sizes": (6, 4),
        "solver": "sgd",
        "momentum": 0.0,
        "shuffle": False,
        "batch_size": 40,
        "alpha": 0.0,
        "random_state": 3,
        **options,
    }
    # At first nothing moves, but the running statistics, which are set back.
    start = MLPRegressor(**shared, max_iter=1, learning_rate_init=1e-300).fit(X, numbers / 10)
    module, weights = eager(start)
    for layer in module:
        if isinstance(layer, fg.nn.BatchNorm1d):
            layer.load_state_dict(fg.nn.BatchNorm1d(layer.num_features, dtype="float64").state_dict())
    optimizer = fg.optim.SGD(module.parameters(), lr=0.01)
    out = OUTPUTS[str(options.get("out_activation"))]
    losses = []
    for _ in range(3):
        total = 0.0
        for first in range(0, 150, 40):
            rows = slice(first, first + 40)
            target = fg.tensor(numbers[rows, None] / 10)
            loss = (out(module(fg.tensor(X[rows]))) - target).square().mean() / 2
            for weight in weights:
                penalty = weight.square().sum() * (shared["alpha"] / 2) + weight.abs().sum() * shared.get(
                    "l1", 0.0
                )
                loss = loss + penalty / len(target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
        losses.append(total / 150)
    model = MLPRegressor(**shared, max_iter=3, learning_rate_init=0.01).fit(X, numbers / 10)
    np.testing.assert_allclose(model.loss_curve_, losses, rtol=1e-12)
    scores = out(module.eval()(fg.tensor(X))).detach().numpy()[:, 0]
    np.testing.assert_allclose(model.predict(X), scores, rtol=1e-9)
    for mine, trained in zip(
        model.to_module().state_dict().values(), module.state_dict().values(), strict=True
    ):
        if mine.ndim:
            np.testing.assert_allclose(mine.numpy(), trained.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber", "quantile", "absolute_error"])
@pytest.mark.parametrize("out", ["softplus", "exp", "logistic", "tanh"])
def test_gradients_with_other_outputs_are_those_of_centred_differences(loss: str, out: str) -> None:
    options = {
        "loss": loss,
        "out_activation": out,
        "solver": "sgd",
        "momentum": 0.0,
        "alpha": 0.4,
        "l1": 0.3,
        "batch_size": 150,
        "hidden_layer_sizes": (5,),
        "activation": "tanh",
        "normalization": "layer",
        "standardize": True,
        "max_iter": 1,
        "random_state": 0,
    }
    if loss == "poisson" and out == "tanh":
        with pytest.raises(
            InvalidParameterError, match=r"'out_activation' .* 'exp', 'logistic', 'softplus' with"
        ):
            MLPRegressor(**options).fit(X, y)
        return
    targets = y + 0.7

    def loss_at(coefs: list[Any]) -> float:
        # What the next step reports, before it is made.
        return float(
            MLPRegressor(**options, coefs_init=coefs, learning_rate_init=1e-300).fit(X, targets).loss_
        )

    start = MLPRegressor(**options, learning_rate_init=1e-300).fit(X, targets)
    rate = 1e-3
    moved = MLPRegressor(**options, learning_rate_init=rate).fit(X, targets)
    coefs, intercepts = copy.deepcopy(start.coefs_), start.intercepts_
    options["intercepts_init"] = intercepts
    gradient = (start.coefs_[0] - moved.coefs_[0]) / rate
    for place in [(0, 0), (3, 4), (2, 1)]:
        values = []
        for step in (1e-5, -1e-5):
            changed = copy.deepcopy(coefs)
            changed[0][place] += step
            values.append(loss_at(changed))
        assert gradient[place] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8)


@EACH
@BOTH
def test_the_report_of_gradients_agrees_and_names_what_normalises(kind: Any, name: str) -> None:
    model = fitted(kind, name, alpha=0.3)
    report = fg.check_gradients(model, X[:40], y[:40])
    assert report.agrees, str(report)
    names = [row.name for row in report.parameters]
    assert ("normalizations_[1]['bias']" in names) == ("normalization" in NETWORKS[name])


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@EACH
@BOTH
def test_every_network_learns(kind: Any, name: str, solver: str) -> None:
    if solver == "lbfgs" and NETWORKS[name].get("normalization") == "batch":
        model = kind(hidden_layer_sizes=(7, 5), solver=solver, **NETWORKS[name])
        with pytest.raises(
            InvalidParameterError, match=r"'normalization' .* None or 'layer' for 'lbfgs'. Got 'batch'"
        ):
            model.fit(X, y)
        assert not hasattr(model, "coefs_")
        return
    rate, off = 0.003 if solver == "sgd" else 0.01, {"dropout": 0.0, "input_dropout": 0.0}
    model = fitted(
        kind, name, max_iter=150, hidden_layer_sizes=(24, 16), solver=solver, learning_rate_init=rate, **off
    )
    assert model.score(X, y) > 0.85


@EACH
@BOTH
def test_a_module_and_the_layers_are_those_of_the_network(kind: Any, name: str) -> None:
    model = fitted(kind, name)
    scores = model.to_module()(fg.tensor(X)).detach()
    expected = scores if kind is MLPRegressor else scores.softmax(1)
    np.testing.assert_allclose(outputs(model, X), expected.numpy(), rtol=1e-10)
    found = model.activations(X)
    assert [values.shape[1] for values in found] == [7, 5, model.n_outputs_]
    np.testing.assert_allclose(found[-1], outputs(model, X), rtol=1e-12)
    step, gradient = 1e-6, model.input_gradient(X[:9]).reshape(9, -1, 4)
    for column in range(4):
        move = step * np.eye(4)[column]
        slope = (outputs(model, X[:9] + move) - outputs(model, X[:9] - move)) / (2 * step)
        np.testing.assert_allclose(gradient[:, :, column], slope, rtol=1e-4, atol=1e-7)


@EACH
@BOTH
def test_copies_and_files_hold_the_whole_network_and_go_on(kind: Any, name: str, tmp_path: Any) -> None:
    model = fitted(kind, name, early_stopping=True).set_params(early_stopping=False)
    model.save(tmp_path / "model")
    copies = [kind.load(tmp_path / "model"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in copies:
        assert (outputs(other, X) == outputs(model, X)).all()
    model.partial_fit(X, y)
    for other in copies:
        other.partial_fit(X, y)
        assert (outputs(other, X) == outputs(model, X)).all()
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "coefs_")


@EACH
def test_float32_stays_and_threads_and_other_rows_change_no_bit(name: str) -> None:
    model = fitted(MLPClassifier, name, dtype="float32")
    arrays = [*model.coefs_, *getattr(model, "normalizations_", [{}])[0].values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert {array.dtype for array in [getattr(model, "mean_", arrays[0])]} == {np.dtype(np.float32)}
    found = model.predict_proba(X)
    assert found.dtype == np.float32
    assert (model.predict_proba(X[7:9]) == found[7:9]).all()
    assert (fitted(MLPClassifier, name, dtype="float32", n_threads=1).predict_proba(X) == found).all()
    off = {"dropout": 0.0, "input_dropout": 0.0}
    short, double = (fitted(MLPClassifier, name, dtype=dtype, **off) for dtype in ("float32", "float64"))
    np.testing.assert_allclose(short.predict_proba(X), double.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("container", [csr_array, csc_array])
@pytest.mark.parametrize("name", ["maxout", "batch", "layer", "l1"])
def test_sparse_rows_give_the_bits_of_dense_ones(name: str, container: Any) -> None:
    dense = fitted(MLPClassifier, name)
    sparse = clone(dense).fit(container(X), y)
    assert sparse.loss_curve_ == dense.loss_curve_
    assert (sparse.predict_proba(container(X)) == dense.predict_proba(X)).all()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "all"])
@BOTH
def test_a_warm_start_goes_on_with_the_whole_network(kind: Any, name: str) -> None:
    shared = {"solver": "sgd", "momentum": 0.0, "shuffle": False, "learning_rate_init": 0.001}
    whole = fitted(kind, name, **shared, max_iter=6)
    parts = fitted(kind, name, **shared, max_iter=3, warm_start=True).fit(X, y)
    assert parts.loss_curve_ == whole.loss_curve_
    assert (outputs(parts, X) == outputs(whole, X)).all()


# Maxout


def test_a_unit_of_maxout_is_the_largest_of_neighbouring_columns() -> None:
    model = MLPRegressor(
        hidden_layer_sizes=(3,), activation=("maxout", {"pieces": 4}), max_iter=3, random_state=0
    ).fit(X, y)
    assert [array.shape for array in model.coefs_] == [(4, 12), (3, 1)]
    hidden = (X @ model.coefs_[0] + model.intercepts_[0]).reshape(150, 3, 4).max(2)
    np.testing.assert_allclose(
        model.predict(X), (hidden @ model.coefs_[1] + model.intercepts_[1])[:, 0], rtol=1e-12
    )
    given = MLPRegressor(
        hidden_layer_sizes=(3,),
        activation="maxout",
        max_iter=1,
        learning_rate_init=1e-300,
        coefs_init=[np.ones((4, 6)), np.ones((3, 1))],
    ).fit(X, y)
    np.testing.assert_array_equal(given.coefs_[0], np.ones((4, 6)))
    with pytest.raises(
        ValueError, match=r"coefs_init\[0\]: expected finite values of shape \(4, 6\), got shape"
    ):
        MLPRegressor(
            hidden_layer_sizes=(3,), activation="maxout", coefs_init=[np.ones((4, 3)), np.ones((3, 1))]
        ).fit(X, y)


@pytest.mark.parametrize("pieces", [0, -1, 2.0, "two", 10**9, None])
def test_pieces_that_are_no_count_are_refused(pieces: Any) -> None:
    with pytest.raises(
        InvalidParameterError, match=r"'activation' .* maxout with pieces an int from 1 to 1000"
    ):
        MLPRegressor(activation=("maxout", {"pieces": pieces})).fit(X, y)


# Normalisation


def test_normalisation_by_batch_needs_two_rows() -> None:
    model = MLPClassifier(normalization="batch", batch_size=50, random_state=0)
    with pytest.raises(
        ValueError, match=r"normalization: 'batch' needs two rows .* 101 rows in batches of 50"
    ):
        model.fit(X[:101], y[:101])
    assert not hasattr(model, "coefs_")
    model.fit(X[:102], y[:102])
    with pytest.raises(ValueError, match="normalization: 'batch' needs two rows"):
        model.set_params(batch_size=1).partial_fit(X[:1], y[:1])
    model.set_params(batch_size=2)
    assert model.partial_fit(X[:2], y[:2]).predict(X[:1]).shape == (1,)


def test_early_stopping_restores_what_normalises_too() -> None:
    options = {"early_stopping": True, "normalization": "batch", "learning_rate_init": 0.5, "tol": 0.0}
    model = MLPClassifier((6,), max_iter=30, random_state=0, **options).fit(X, y, X_val=X[::3], y_val=y[::3])
    assert model.validation_scores_[-1] < model.best_validation_score_
    assert model.score(X[::3], y[::3]) == pytest.approx(model.best_validation_score_, rel=1e-12)


# Outputs


def test_outputs_stay_where_their_activation_keeps_them() -> None:
    shared = {"max_iter": 200, "random_state": 0, "learning_rate_init": 0.01}
    share = 1 / (1 + np.exp(-numbers + numbers.mean()))
    model = MLPRegressor(**shared, out_activation="logistic").fit(X, share)
    assert model.out_activation_ == "logistic"
    assert model.score(X, share) > 0.9
    assert ((model.predict(50 * X) >= 0) & (model.predict(50 * X) <= 1)).all()
    positive = MLPRegressor(**shared, loss="poisson", out_activation="softplus").fit(X, y + 0.5)
    assert (positive.predict(-50 * X) >= 0).all()
    assert positive.score(X, y + 0.5) > 0.8
    own = MLPRegressor(**shared, loss="poisson", out_activation="exp").fit(X, y)
    assert own.loss_curve_ == MLPRegressor(**shared, loss="poisson").fit(X, y).loss_curve_


def test_outputs_have_the_parameters_of_their_activation(tmp_path: Any) -> None:
    shared = {"max_iter": 5, "random_state": 0, "hidden_layer_sizes": (5,)}
    # Of both signs.
    rows, target = X - X.mean(0), numbers - numbers.mean()
    steep = ("leaky_relu", {"negative_slope": 0.5})
    model = MLPRegressor(**shared, out_activation=steep, warm_start=True).fit(rows, target)
    assert model.out_activation_ == steep
    scores = model.to_module()(fg.tensor(rows)).detach().numpy()[:, 0]
    assert scores.min() < 0 < scores.max()
    np.testing.assert_allclose(model.predict(rows), np.where(scores > 0, scores, scores / 2), rtol=1e-12)
    np.testing.assert_array_equal(model.activations(rows)[-1][:, 0], model.predict(rows))
    step = np.array([1e-6, 0, 0, 0])
    slopes = (model.predict(rows + step) - model.predict(rows - step)) / 2e-6
    np.testing.assert_allclose(model.input_gradient(rows)[:, 0], slopes, rtol=1e-6)
    model.save(tmp_path / "model")
    same = MLPRegressor.load(tmp_path / "model")
    assert same.out_activation_ == steep
    np.testing.assert_array_equal(same.predict(rows), model.predict(rows))
    np.testing.assert_array_equal(same.fit(rows, target).predict(rows), model.fit(rows, target).predict(rows))
    model.set_params(out_activation=("leaky_relu", {"negative_slope": 0.25}))
    with pytest.raises(
        ValueError, match=r"out_activation: expected .*0\.5.*, as in the last fit, got .*0\.25"
    ):
        model.fit(rows, target)
    other = model.set_params(warm_start=False).fit(rows, target)
    assert other.loss_ != MLPRegressor(**shared, out_activation=steep).fit(rows, target).loss_
    for plain in ("leaky_relu", ("leaky_relu", {})):
        fitted = MLPRegressor(**shared, out_activation=plain).fit(rows, target)
        assert fitted.out_activation_ == "leaky_relu"
    default = MLPRegressor(**shared, out_activation=("leaky_relu", {"negative_slope": 0.01}))
    assert default.fit(rows, target).loss_curve_ == fitted.loss_curve_


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("leaky_relu", {"slope": 1}), r"leaky_relu with parameters among \['negative_slope'\]. Got 'slope'"),
        (("leaky_relu", {"negative_slope": "0"}), "leaky_relu with parameters that it takes"),
        (("tanh", {"alpha": 1}), r"tanh with parameters among \[\]. Got 'alpha'"),
        (("maxout", {"pieces": 2}), "one of 'identity', 'exp', .* with a dict of its parameters"),
        (("elu", 1.0), "one of 'identity', 'exp', .* with a dict of its parameters"),
        (("elu", {"alpha": 1.0}, 1), "one of 'identity', 'exp', .* with a dict of its parameters"),
        ((), "one of 'identity', 'exp', .* with a dict of its parameters"),
        (["elu"], "a str among"),
    ],
)
def test_an_output_that_there_is_not_is_refused(given: Any, text: str) -> None:
    model = MLPRegressor(out_activation=given)
    with pytest.raises(
        InvalidParameterError, match=f"'out_activation' parameter of MLPRegressor must be {text}"
    ):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


def test_the_classifiers_outputs_go_with_the_loss() -> None:
    options = {"loss": "hinge", "out_activation": "tanh", "learning_rate_init": 0.01, "random_state": 0}
    model = MLPClassifier(**options, standardize=True).fit(X, y)
    assert np.abs(model.decision_function(X)).max() < 1
    assert model.score(X, y) > 0.8
    two = MLPClassifier(**options, max_iter=9).fit(X, y == 0)
    np.testing.assert_array_equal(two.predict(X), two.decision_function(X) > 0)
    same = MLPClassifier(out_activation="softmax", max_iter=2, random_state=0).fit(X, y)
    assert same.loss_curve_ == MLPClassifier(max_iter=2, random_state=0).fit(X, y).loss_curve_
    for options, text in (
        ({"out_activation": "tanh"}, "one of 'softmax' with this loss. Got 'tanh'"),
        ({"out_activation": "softplus", "loss": "hinge"}, "one of 'identity', 'tanh', .* Got 'softplus'"),
        ({"out_activation": "maxout"}, "a str among"),
    ):
        with pytest.raises(
            InvalidParameterError, match=f"'out_activation' parameter of MLPClassifier must be {text}"
        ):
            MLPClassifier(**options).fit(X, y)


# L1


def test_l1_makes_weights_small_and_is_part_of_the_loss() -> None:
    shared = {"solver": "lbfgs", "max_iter": 300, "alpha": 0.0, "random_state": 0, "activation": "tanh"}
    plain, sparse = (MLPRegressor(**shared, l1=l1).fit(X, numbers) for l1 in (0.0, 3.0))
    small = [np.mean(np.abs(model.coefs_[0]) < 1e-3) for model in (plain, sparse)]
    assert small[0] < 0.1 < 0.5 < small[1]
    errors = np.mean((sparse.predict(X) - numbers) ** 2) / 2
    size = sum(np.abs(weight).sum() for weight in sparse.coefs_)
    assert sparse.loss_ == pytest.approx(errors + 3.0 * size / 150, rel=1e-9)
    assert sparse.score(X, numbers) > 0.95


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 2, 150)])
def test_l1_is_divided_as_the_l2_penalty_is(weight: Any) -> None:
    shared = {
        "solver": "sgd",
        "momentum": 0.0,
        "batch_size": 150,
        "max_iter": 1,
        "alpha": 0.0,
        "random_state": 0,
    }
    start = MLPRegressor(**shared, learning_rate_init=1e-300).fit(X, y, sample_weight=weight)
    plain = MLPRegressor(**shared, learning_rate_init=0.1).fit(X, y, sample_weight=weight)
    model = MLPRegressor(**shared, learning_rate_init=0.1, l1=2.0).fit(X, y, sample_weight=weight)
    total = 150 if weight is None else weight.sum()
    for n in range(2):
        step = 0.1 * 2.0 * np.sign(start.coefs_[n]) / total
        np.testing.assert_allclose(model.coefs_[n], plain.coefs_[n] - step, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(model.intercepts_[n], plain.intercepts_[n])


# Standardized inputs


@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 3, 150)])
@BOTH
def test_a_standardized_fit_is_that_of_standardized_rows(kind: Any, weight: Any) -> None:
    rows = X * [1.0, 1e3, 1e-3, 1.0] + [0.0, 1e4, 0.0, -5.0]
    scaler = StandardScaler().fit(rows, sample_weight=weight)
    shared = {"max_iter": 5, "random_state": 0}
    model = kind(**shared, standardize=True).fit(rows, y, sample_weight=weight)
    other = kind(**shared).fit(scaler.transform(rows), y, sample_weight=weight)
    np.testing.assert_allclose(model.loss_curve_, other.loss_curve_, rtol=1e-12)
    np.testing.assert_array_equal(model.mean_, scaler.mean_)
    np.testing.assert_array_equal(model.scale_, scaler.scale_)
    np.testing.assert_allclose(outputs(model, rows), outputs(other, scaler.transform(rows)), rtol=1e-9)


def test_mean_and_scale_are_of_the_rows_that_are_trained_on_and_stay() -> None:
    whole = MLPRegressor(max_iter=3, random_state=0, standardize=True, warm_start=True).fit(X, y)
    mean = whole.mean_
    assert whole.fit(3 * X, y).mean_ is mean
    assert whole.partial_fit(5 * X, y).mean_ is mean
    assert whole.set_params(warm_start=False).fit(3 * X, y).mean_ == pytest.approx(3 * X.mean(0))
    part = MLPRegressor(max_iter=3, random_state=0, standardize=True, early_stopping=True).fit(X, y)
    assert abs(part.mean_ - X.mean(0)).max() > 1e-3
    given = MLPRegressor(max_iter=3, random_state=0, standardize=True).fit(X, y, X_val=9 * X, y_val=y)
    np.testing.assert_allclose(given.mean_, X.mean(0))
    expected = 0.5 * np.mean((given.predict(9 * X) - y) ** 2)
    assert given.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
    constant = np.c_[X, np.full(150, 7.0)]
    assert MLPRegressor(max_iter=2, standardize=True).fit(constant, y).scale_[-1] == 1


@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 3, 150)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [csr_array, csc_array, csr_matrix])
@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"early_stopping": True}])
def test_sparse_rows_are_standardized_as_dense_ones(
    form: Any, dtype: Any, weight: Any, options: dict[str, Any]
) -> None:
    # Most of them, a column of zeros and one that is constant.
    rows = np.c_[np.where(X.mean(0) < X, 100 * X, 0), np.zeros(150), np.full(150, 0.1)].astype(dtype)
    shared = {"max_iter": 5, "random_state": 0, "standardize": True, **options}
    sparse, dense = (
        MLPClassifier(**shared).fit(table, y, sample_weight=weight) for table in (form(rows), rows)
    )
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(sparse.mean_, dense.mean_, rtol=8 * eps)
    np.testing.assert_allclose(sparse.scale_, dense.scale_, rtol=8 * eps)
    assert sparse.scale_[-2:].tolist() == [1, 1]
    assert sparse.loss_ == pytest.approx(dense.loss_, rel=1e4 * eps)
    np.testing.assert_array_equal(sparse.predict_proba(form(rows)), sparse.predict_proba(rows))


def test_entries_that_name_an_element_twice_are_standardized_as_their_sum() -> None:
    twice = csr_array((np.repeat(X.ravel() / 2, 2), np.tile(np.repeat(range(4), 2), 150), range(0, 1201, 8)))
    before = twice.data.tobytes()
    models = [
        MLPRegressor(max_iter=3, random_state=0, standardize=True).fit(table, y) for table in (twice, X)
    ]
    np.testing.assert_allclose(models[0].scale_, models[1].scale_, rtol=1e-12)
    np.testing.assert_allclose(models[0].loss_curve_, models[1].loss_curve_, rtol=1e-12)
    assert twice.data.tobytes() == before
    assert twice.nnz == 1200


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_scale_that_overflows_is_refused() -> None:
    model = MLPRegressor(standardize=True)
    with pytest.raises(
        ValueError, match="standardize: expected a finite variance in X, got none in column 2"
    ):
        model.fit(X * [1, 1, 1e200, 1], y)
    assert not hasattr(model, "scale_")


@BOTH
def test_scikit_learn_gets_the_standardized_network_folded(kind: Any) -> None:
    model = fitted(kind, "standardized")
    there = model.to_sklearn()
    np.testing.assert_allclose(outputs(there, X), outputs(model, X), rtol=1e-9)
    assert not hasattr(there, "mean_")
    assert there.partial_fit(X, y).n_iter_ == 1
    with pytest.raises(fg.ConfigError, match="to_sklearn: standardize: expected False"):
        kind(standardize=True).to_sklearn()


def test_inputs_that_are_dropped_are_those_that_are_standardized() -> None:
    model = MLPRegressor(
        hidden_layer_sizes=(5,), standardize=True, input_dropout=0.999999, max_iter=1, random_state=0
    ).fit(X + 100, y)
    module = model.to_module().train()
    # All are dropped: what is left is the output of the mean row.
    found = module(fg.tensor(X + 100)).detach().numpy()[:, 0]
    np.testing.assert_allclose(found, model.predict(model.mean_[None])[0], rtol=1e-9)
    assert len(list(module.parameters())) == 6
    assert sum(p.requires_grad for p in module.parameters()) == 4


# Going on


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"normalization": "layer"}, "normalization: expected None, as in the last fit, got 'layer'"),
        ({"standardize": True}, "standardize: expected False, as in the last fit, got True"),
        (
            {"activation": "maxout"},
            "activation: expected 1 columns to a unit of layer 0, as in the last fit, got 2",
        ),
        ({"out_activation": "tanh"}, "out_activation: expected identity, as in the last fit, got tanh"),
    ],
)
@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_a_network_that_goes_on_stays_what_it_is(change: dict[str, Any], text: str, call: str) -> None:
    model = MLPRegressor(max_iter=3, random_state=0, warm_start=True).fit(X, y)
    before, curve = model.predict(X), list(model.loss_curve_)
    model.set_params(**change)
    with pytest.raises(ValueError, match=text):
        getattr(model, call)(X, y)
    model.set_params(**{name: MLPRegressor().get_params()[name] for name in change})
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.loss_curve_ == curve
    other = MLPRegressor(max_iter=3, random_state=0).set_params(**change).fit(X, y)
    assert other.predict(X).shape == (150,)


@pytest.mark.parametrize(
    "options",
    [{"normalization": "group"}, {"l1": -1.0}, {"standardize": "yes"}, {"out_activation": 5}, {"l1": "much"}],
)
@pytest.mark.parametrize("is_fitted", [False, True])
@BOTH
def test_a_parameter_out_of_range_changes_nothing(
    kind: Any, options: dict[str, Any], is_fitted: bool
) -> None:
    model = kind(max_iter=2, random_state=0)
    before = model.fit(X, y).predict(X) if is_fitted else None
    model.set_params(**options)
    state = dict(vars(model))
    with pytest.raises(
        InvalidParameterError, match=f"The '{next(iter(options))}' parameter of {kind.__name__} must be"
    ):
        model.fit(X, y)
    assert vars(model) == state
    if is_fitted:
        np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("options", NETWORKS.values())
def test_what_scikit_learn_lacks_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(fg.ConfigError, match=rf"to_sklearn: .*\b({'|'.join(options)})\b"):
        MLPClassifier((7, 5), **options).to_sklearn()


@pytest.mark.parametrize("options", [{}, {"lr_schedule": "cosine"}, {"early_stopping": True}])
def test_a_compiled_fit_is_put_up_for_reuse_after_the_last_look_at_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("give", "spare"):
        method = getattr(network.Fit, name)

        def noted(self: Any, *args: Any, name: str = name, method: Any = method) -> Any:
            calls.append(name)
            return method(self, *args)

        monkeypatch.setattr(network.Fit, name, noted)
    MLPClassifier((3,), max_iter=2, random_state=0, **options).fit(X, y)
    assert calls.count("spare") == 1
    assert calls[-1] == "spare"
    assert "give" in calls
