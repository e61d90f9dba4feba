"""Fits go scikit-learn's way: the same draws, the same losses, the same number of epochs."""

from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier as TheirClassifier

from ferrograd import _core
from ferrograd.sklearn import MLPClassifier, MLPRegressor
from ferrograd.sklearn.randomness import continued
from trajectory import CELLS, EPOCHS, data, difference, fits

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize(("task", "solver", "form"), CELLS)
def test_the_losses_of_every_cell_are_scikit_learns(task: str, solver: str, form: str) -> None:
    found = difference(task, solver, form)
    assert found.n_iter[0] == found.n_iter[1]
    # lbfgs has one loss; its line search magnifies roundings.
    assert max(found.loss, found.coefs) < 1e-8 if solver == "lbfgs" else found.loss < 1e-9
    assert solver == "lbfgs" or found.n_iter[0] > 1


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("sgd", {"learning_rate": "invscaling", "power_t": 0.3}),
        ("nesterov", {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1}),
        ("sgd", {"momentum": 0.0}),
        ("nesterov", {"momentum": 1.0, "learning_rate_init": 1e-3}),
        ("adam", {"shuffle": False}),
        ("adam", {"alpha": 0.0}),
        ("sgd", {"alpha": 0.0, "momentum": 0.0}),
        ("adam", {"batch_size": "auto", "tol": 0.05, "n_iter_no_change": 2}),
        ("adam", {"activation": "logistic"}),
        ("adam", {"activation": "tanh", "hidden_layer_sizes": 5}),
        ("adam", {"activation": "identity", "hidden_layer_sizes": ()}),
        ("adam", {"batch_size": 1, "max_iter": 3}),
        ("adam", {"beta_1": 0.0, "beta_2": 0.5, "epsilon": 0.1}),
    ],
)
@pytest.mark.parametrize("form", ["plain", "early_stopping"])
def test_options_act_as_scikit_learns(solver: str, options: dict[str, Any], form: str) -> None:
    first, second = fits("multiclass", solver, form, **options)
    assert np.abs(np.subtract(first.loss_curve_, second.loss_curve_)).max() < 1e-9
    for name in ("n_iter_", "t_", "_no_improvement_count", "validation_scores_", "out_activation_"):
        assert getattr(first, name) == getattr(second, name)
    assert first._optimizer.learning_rate == pytest.approx(second._optimizer.learning_rate, rel=1e-12)
    ends = [[model.best_loss_, model.best_validation_score_, model.loss_] for model in (first, second)]
    np.testing.assert_allclose(*np.array(ends, float), rtol=1e-9)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_sure_and_wrong_predictions_are_reported_as_scikit_learn_reports_them(task: str) -> None:
    X, y = data(task)
    options = {"max_iter": 5, "random_state": 1, "learning_rate_init": 0.5}
    first, second = (kind(**options).fit(200 * X, y).loss_curve_ for kind in (TheirClassifier, MLPClassifier))
    assert first[0] > 5
    # Where it subtracts a probability near 1 from 1, scikit-learn loses digits.
    np.testing.assert_allclose(second, first, rtol=1e-9 if task == "multiclass" else 1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_loss_is_reported_as_precisely_where_scores_are_large(task: str, dtype: type) -> None:
    X, y = data(task)
    rows = (X * (1e6 if dtype is np.float32 else 1e100)).astype(dtype)
    options = {"max_iter": 4, "random_state": 1, "alpha": 0.0}
    first, second = (kind(**options).fit(rows, y).loss_curve_ for kind in (TheirClassifier, MLPClassifier))
    assert first[0] > 5
    # Where it subtracts a probability near 1 from 1, scikit-learn loses digits.
    digits = 1e-12 if task == "multiclass" else 1e-4
    np.testing.assert_allclose(second, first, rtol=1e-5 if dtype is np.float32 else digits)


def test_float32_has_the_same_batches_and_the_loss_up_to_rounding() -> None:
    X, y = data("multiclass")
    models = [
        kind(max_iter=EPOCHS, random_state=1, batch_size=48).fit(X.astype(np.float32), y)
        for kind in (TheirClassifier, MLPClassifier)
    ]
    assert np.abs(np.subtract(models[0].loss_curve_, models[1].loss_curve_)).max() < 1e-5
    assert {array.dtype for array in [*models[1].coefs_, *models[1].intercepts_]} == {np.dtype(np.float32)}
    assert models[1].predict_proba(X.astype(np.float32)).dtype == np.float32


def test_partial_fit_and_warm_start_go_on_as_scikit_learns() -> None:
    X, y = data("binary")
    curves = []
    for kind in (TheirClassifier, MLPClassifier):
        model = kind(random_state=4, warm_start=True, max_iter=3, batch_size=50).fit(X, y).fit(X, y)
        for start in (0, 30, 70):
            model.partial_fit(X[start : start + 60], y[start : start + 60])
        curves.append((model.loss_curve_, model.t_))
    assert np.abs(np.subtract(curves[0][0], curves[1][0])).max() < 1e-12
    assert curves[0][1] == curves[1][1]
    assert len(curves[1][0]) == 9


@pytest.mark.parametrize("early_stopping", [False, True])
def test_every_kind_of_random_state_is_followed_and_left_where_scikit_learn_leaves_it(
    early_stopping: bool,
) -> None:
    X, y = data("multiclass")
    states = [
        lambda: np.random.RandomState(8),
        lambda: np.random.RandomState(np.random.PCG64(8)),
        lambda: np.random.RandomState(np.random.MT19937(8)),
    ]
    for make in states:
        found = []
        for kind in (TheirClassifier, MLPClassifier):
            state = make()
            state.standard_normal()  # A second normal is kept for later: that is state too.
            model = kind(random_state=state, max_iter=4, early_stopping=early_stopping).fit(X, y)
            found.append((model.loss_curve_, state.standard_normal(), state.randint(1 << 30)))
        assert np.abs(np.subtract(found[0][0], found[1][0])).max() < 1e-12
        assert found[0][1:] == found[1][1:]


def test_without_a_random_state_it_is_the_global_one() -> None:
    X, y = data("regression 1")
    np.random.seed(3)
    first = MLPRegressor(max_iter=3).fit(X, y)
    after = np.random.randint(1 << 30)
    state = np.random.RandomState(3)
    second = MLPRegressor(max_iter=3, random_state=state).fit(X, y)
    assert first.loss_curve_ == second.loss_curve_
    assert after == state.randint(1 << 30)


@pytest.mark.parametrize("rows", [1, 2, 3, 623, 624, 625, 70_000])
def test_native_permutations_are_numpys(rows: int) -> None:
    ours, numpys = np.random.RandomState(rows), np.random.RandomState(rows)
    for _ in range(3):
        with continued(ours) as generator:
            order = generator.permutation(rows)
        assert (order == numpys.permutation(rows)).all()
    assert ours.get_state()[2] == numpys.get_state()[2]
    assert (ours.get_state()[1] == numpys.get_state()[1]).all()


@pytest.mark.parametrize("shape", [(), (0,), (311,), (312,), (313,), (625, 3), (64, 100)])
@pytest.mark.parametrize("bounds", [(-0.1, 0.1), (0.0, 1.0), (-1e300, 1e-300), (3.0, 3.0)])
def test_native_uniform_numbers_are_numpys(shape: tuple[int, ...], bounds: tuple[float, float]) -> None:
    ours, numpys = np.random.RandomState(5), np.random.RandomState(5)
    for _ in range(3):
        with continued(ours) as generator:
            values = generator.uniform(*bounds, shape)
        expected = np.asarray(numpys.uniform(*bounds, shape))
        assert values.dtype == expected.dtype
        assert values.shape == expected.shape
        assert values.tobytes() == expected.tobytes()
    assert ours.get_state()[2] == numpys.get_state()[2]
    assert (ours.get_state()[1] == numpys.get_state()[1]).all()


@pytest.mark.parametrize("activation", ["relu", "logistic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bit_generator", [np.random.MT19937, np.random.PCG64, np.random.Philox])
def test_initial_parameters_are_scikit_learns_to_the_bit(
    activation: str, dtype: type, bit_generator: Any
) -> None:
    X, y = data("multiclass")
    options = {"hidden_layer_sizes": (30, 20), "learning_rate_init": 1e-300, "max_iter": 1}
    found = []
    for kind in (TheirClassifier, MLPClassifier):
        state = np.random.RandomState(bit_generator(2))
        model = kind(activation=activation, random_state=state, alpha=0.0, **options).fit(X.astype(dtype), y)
        found.append([array.tobytes() for array in (*model.coefs_, *model.intercepts_)])
    assert found[0] == found[1]


def test_a_generator_goes_on_after_an_error_between_the_draws_of_a_fit() -> None:
    X, y = data("binary")
    ours, numpys = np.random.RandomState(1), np.random.RandomState(1)
    model = MLPClassifier((4,), random_state=ours, coefs_init=[np.zeros((X.shape[1], 4)), np.zeros((3, 1))])
    with pytest.raises(ValueError, match=r"coefs_init\[1\]"):
        model.fit(X, y)
    # The biases of the first layer had been drawn.
    numpys.uniform(size=4)
    assert ours.randint(1 << 30) == numpys.randint(1 << 30)


def test_a_generator_goes_on_after_an_error() -> None:
    ours, numpys = np.random.RandomState(1), np.random.RandomState(1)

    def fail() -> None:
        with continued(ours) as generator:
            generator.permutation(50)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    numpys.permutation(50)
    assert ours.randint(1 << 30) == numpys.randint(1 << 30)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(_core.ConfigError, match="expected 624 words and a position among them"):
        _core.MT19937(b"1234", 0)
    with pytest.raises(_core.ConfigError, match="expected 624 words and a position among them"):
        _core.MT19937(bytes(2496), 625)
    with pytest.raises(_core.ConfigError, match="expected a permutation of 3 rows"):
        _core.Epochs(3, 2).permute(np.array([0, 1, 1]))


def test_several_outputs_can_have_the_gradient_of_the_loss() -> None:
    X, y = data("regression 3")
    options = {
        "solver": "sgd",
        "momentum": 0.0,
        "alpha": 0.0,
        "max_iter": 1,
        "batch_size": 130,
        "random_state": 0,
    }
    start = MLPRegressor(**options, learning_rate_init=1e-300).fit(X, y)
    steps = [
        MLPRegressor(**options, learning_rate_init=0.01, correct_multioutput=flag).fit(X, y).coefs_[0]
        - start.coefs_[0]
        for flag in (False, True)
    ]
    assert np.abs(steps[0]).max() > 1e-4
    np.testing.assert_allclose(steps[0], 3 * steps[1], rtol=1e-9, atol=1e-15)
