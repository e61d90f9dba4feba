"""The estimators as other things: a module, values of layers, gradients, scikit-learn's classes, files."""

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array
from sklearn import neural_network as theirs
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
MULTILABEL = np.column_stack([y > 0, y > 1]).astype(int)

# Tasks by name: class, targets, parameters.
TASKS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "multiclass": (MLPClassifier, y, {"activation": "tanh"}),
    "binary": (MLPClassifier, y > 0, {"activation": "logistic"}),
    "multilabel": (MLPClassifier, MULTILABEL, {"activation": "tanh", "solver": "sgd"}),
    "regression": (MLPRegressor, X @ np.ones(4), {"activation": "tanh", "solver": "lbfgs"}),
    "outputs": (MLPRegressor, X[:, :2] * X[:, 2:], {"activation": "identity"}),
    "poisson": (MLPRegressor, y + 0.5, {"loss": "poisson", "activation": "tanh"}),
    "hinge": (MLPClassifier, y, {"loss": "hinge", "activation": ["softplus", ("elu", {"alpha": 0.5})]}),
    "dropout": (MLPClassifier, y, {"activation": "gelu", "dropout": 0.2, "input_dropout": 0.1}),
}
EACH = pytest.mark.parametrize("task", TASKS)


def fitted(task: str, **options: Any) -> Any:
    kind, target, own = TASKS[task]
    defaults = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 0}
    return kind(**{**defaults, **own, **options}).fit(X, target)


def outputs(model: Any, rows: Any) -> np.ndarray:
    """What the network gives, from the public methods."""
    if isinstance(model, MLPRegressor):
        return model.predict(rows).reshape(len(rows), -1)
    found = (model.predict_proba if model.loss == "log_loss" else model.decision_function)(rows)
    return found[:, 1:] if model.n_outputs_ == 1 else found


@EACH
def test_a_module_gives_the_scores_and_has_the_transposed_weights(task: str) -> None:
    model = fitted(task)
    module = model.to_module()
    linear = [layer for layer in module if isinstance(layer, fg.nn.Linear)]
    for layer, weight, bias in zip(linear, model.coefs_, model.intercepts_, strict=True):
        assert (layer.weight.detach().numpy() == weight.T).all()
        assert (layer.bias.detach().numpy() == bias).all()
    assert sum(isinstance(layer, fg.nn.Dropout) for layer in module) == (3 if task == "dropout" else 0)
    assert not module.training
    scores = module(fg.tensor(X)).detach()
    after = {
        "identity": lambda z: z,
        "logistic": lambda z: z.sigmoid(),
        "softmax": lambda z: z.softmax(1),
        "exp": lambda z: z.exp(),
    }[model.out_activation_]
    np.testing.assert_allclose(after(scores).numpy(), outputs(model, X), rtol=1e-12)
    with fg.no_grad():
        linear[0].weight.zero_()
    assert (model.coefs_[0] != 0).any()


def test_a_module_keeps_float32_and_needs_no_hidden_layer() -> None:
    model = MLPRegressor(hidden_layer_sizes=(), max_iter=2).fit(X.astype(np.float32), y)
    module = model.to_module()
    assert len(module) == 1
    assert module[0].weight.dtype == fg.float32


@EACH
def test_activations_are_those_of_a_forward_pass(task: str) -> None:
    model = fitted(task)
    found = model.activations(X)
    assert [values.shape for values in found] == [(150, 7), (150, 5), (150, model.n_outputs_)]
    np.testing.assert_allclose(found[-1], outputs(model, X), rtol=1e-12)
    one = fg.tensor(X) @ fg.tensor(model.coefs_[0]) + fg.tensor(model.intercepts_[0])
    np.testing.assert_allclose(found[0], model._activations()[0](one).numpy(), rtol=1e-12)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel", "regression", "outputs", "poisson"])
def test_activations_are_scikit_learns(task: str) -> None:
    kind, target, own = TASKS[task]
    if not hasattr(getattr(theirs, kind.__name__)(), "loss") and "loss" in own:
        pytest.skip("another release's parameters")
    reference = getattr(theirs, kind.__name__)((7, 5), max_iter=2) if kind is MLPClassifier else None
    reference = reference or theirs.MLPRegressor(hidden_layer_sizes=(7, 5), max_iter=2)
    model = fitted(task)
    reference.set_params(**own).fit(X, target)
    reference.coefs_, reference.intercepts_ = model.coefs_, model.intercepts_
    layers: list[Any] = [X, *([None] * 3)]
    expected = reference._forward_pass(layers)[1:]
    for got, want in zip(model.activations(X), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)


@EACH
def test_input_gradient_is_that_of_centred_differences(task: str) -> None:
    model, step = fitted(task), 1e-5
    found = model.input_gradient(X)
    expected = np.empty((150, model.n_outputs_, 4))
    for column in range(4):
        move = np.zeros(4)
        move[column] = step
        expected[:, :, column] = (outputs(model, X + move) - outputs(model, X - move)) / (2 * step)
    assert found.shape == ((150, 4) if model.n_outputs_ == 1 else expected.shape)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-6, atol=1e-9)
    assert np.abs(found).max() > 1e-3


def test_rows_are_looked_at_in_blocks_dense_and_sparse_and_keep_their_dtype() -> None:
    model = fitted("multiclass", dtype="float32")
    many = np.tile(X, (8, 1))
    for ask in (model.input_gradient, lambda rows: np.hstack(model.activations(rows))):
        found = ask(many)
        assert found.dtype == np.float32
        assert (found[:150] == ask(X)).all()
        assert (found[-150:] == ask(X)).all()
        for sparse in (csr_array, csc_array):
            assert (ask(sparse(many)) == found).all()


@BOTH
@pytest.mark.parametrize("ask", ["to_module", "activations", "input_gradient"])
def test_what_is_not_fitted_has_no_network(kind: Any, ask: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(kind(), ask)(*([] if ask == "to_module" else [X]))


@pytest.mark.parametrize("ask", ["activations", "input_gradient"])
def test_rows_that_predict_refuses_are_refused(ask: str) -> None:
    model = fitted("multiclass")
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        getattr(model, ask)(X[:, :3])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        getattr(model, ask)(np.full((2, 4), np.nan))
