"""The estimators as other things: a module, values of layers, gradients, scikit-learn's classes, files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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


def of_theirs(kind: Any, **options: Any) -> Any:
    found = getattr(theirs, kind.__name__)()
    if not options.keys() <= found.get_params().keys():
        pytest.skip("another release's parameters")
    return found.set_params(**options)


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
    np.testing.assert_allclose(found[0], model._layers().activations[0](one).numpy(), rtol=1e-12)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel", "regression", "outputs", "poisson"])
def test_activations_are_scikit_learns(task: str) -> None:
    kind, target, own = TASKS[task]
    reference = of_theirs(kind, hidden_layer_sizes=(7, 5), max_iter=2, **own).fit(X, target)
    model = fitted(task)
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


# Those of the tasks that scikit-learn has too.
SHARED = pytest.mark.parametrize(
    "task", ["multiclass", "binary", "multilabel", "regression", "outputs", "poisson"]
)


def same(first: Any, second: Any) -> None:
    """Check predictions and what a fit reports."""
    asked = ["predict"] if isinstance(first, MLPRegressor) else ["predict", "predict_proba"]
    for method in asked:
        np.testing.assert_allclose(getattr(first, method)(X), getattr(second, method)(X), rtol=1e-9)
    for name in ("n_iter_", "t_", "n_outputs_", "n_layers_", "out_activation_", "n_features_in_"):
        assert getattr(first, name) == getattr(second, name)
    np.testing.assert_allclose(first.loss_, second.loss_, rtol=1e-9)
    if hasattr(first, "loss_curve_") or hasattr(second, "loss_curve_"):
        np.testing.assert_allclose(first.loss_curve_, second.loss_curve_, rtol=1e-9)


@SHARED
def test_the_way_to_scikit_learn_and_back_keeps_predictions(task: str) -> None:
    model = fitted(task)
    of_theirs(TASKS[task][0], **TASKS[task][2])
    before = [array.copy() for array in model.coefs_]
    there = model.to_sklearn()
    assert type(there) is getattr(theirs, type(model).__name__)
    same(model, there)
    back = type(model).from_sklearn(there)
    assert back.get_params() == model.get_params()
    same(back, there)
    there.coefs_[0][:] = back.coefs_[0][:] = 0
    assert all((array == old).all() for array, old in zip(model.coefs_, before, strict=True))
    assert back.__dict__.keys() - {"_predictions"} == model.__dict__.keys() - {
        "_predictions",
        "_random_state",
    }


@BOTH
def test_what_is_not_fitted_stays_so(kind: Any) -> None:
    model = kind(alpha=0.5, hidden_layer_sizes=(3, 4), n_threads=2)
    there = model.to_sklearn()
    assert (there.alpha, there.hidden_layer_sizes) == (0.5, (3, 4))
    back = kind.from_sklearn(there)
    assert back.get_params() == {**model.get_params(), "n_threads": None}
    for one in (there, back):
        with pytest.raises(NotFittedError):
            one.predict(X)


@pytest.mark.parametrize("task", ["multiclass", "binary", "outputs"])
@pytest.mark.parametrize(
    ("solver", "learning_rate"),
    [("adam", "constant"), ("sgd", "constant"), ("sgd", "invscaling"), ("sgd", "adaptive")],
)
def test_partial_fit_goes_on_the_same_on_the_other_side(task: str, solver: str, learning_rate: str) -> None:
    kind, target, own = TASKS[task]
    options = {
        **own,
        "hidden_layer_sizes": (6,),
        "solver": solver,
        "learning_rate": learning_rate,
        "learning_rate_init": 0.01,
        "random_state": 3,
    }
    there = of_theirs(kind, **options)
    here = kind(**options)
    first = {} if kind is MLPRegressor else {"classes": np.unique(target)}
    for model in (here, there):
        for _ in range(3):
            model.partial_fit(X, target, **first)
    crossed = kind.from_sklearn(there), here.to_sklearn()
    for model in (here, there, *crossed):
        for _ in range(3):
            model.partial_fit(X, target)
    for model in (there, *crossed):
        np.testing.assert_allclose(model.loss_curve_, here.loss_curve_, rtol=1e-9)
        same(here, model)
    # That the state counts: without it the way is another.
    fresh = kind.from_sklearn(there)
    del fresh._optimizer
    assert abs(fresh.partial_fit(X, target).coefs_[0] - here.partial_fit(X, target).coefs_[0]).max() > 1e-9


@BOTH
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_warm_start_goes_on_the_same_on_the_other_side(
    kind: Any, solver: str, early_stopping: bool
) -> None:
    options = {
        "solver": solver,
        "early_stopping": early_stopping,
        "warm_start": True,
        "max_iter": 6,
        "hidden_layer_sizes": (6,),
    }
    here = kind(**options, random_state=np.random.RandomState(1)).fit(X, y)
    there = here.to_sklearn()
    back = kind.from_sklearn(there)
    for model in (here, there, back):
        # The generator goes along too, from where it is.
        model.fit(X, y)
    same(here, there)
    same(here, back)


def test_labels_and_names_of_columns_go_along() -> None:
    frame, labels = pd.DataFrame(X, columns=list("abcd")), np.array(["no", "yes", "perhaps"])[y]
    model = MLPClassifier(max_iter=3, random_state=0).fit(frame, labels)
    for other in (there := model.to_sklearn(), MLPClassifier.from_sklearn(there)):
        assert other.feature_names_in_.tolist() == list("abcd")
        assert (other.predict(frame) == model.predict(frame)).all()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (MLPClassifier(loss="hinge"), "loss"),
        (MLPClassifier(class_weight="balanced"), "class_weight"),
        (MLPClassifier(activation="gelu"), "activation"),
        (MLPRegressor(activation=["relu"]), "activation"),
        (MLPRegressor(loss="huber"), "loss"),
        (MLPRegressor(quantile=[0.1, 0.9]), "quantile"),
        (MLPRegressor(correct_multioutput=True), "correct_multioutput"),
        (MLPRegressor(dropout=0.5), "dropout"),
        (MLPRegressor(weight_decay=0.1), "weight_decay"),
        (MLPRegressor(clip_norm=1.0), "clip_norm"),
        (MLPRegressor(dtype="float32"), "dtype"),
        (MLPRegressor(coefs_init=[np.ones((4, 1))]), "coefs_init"),
        (MLPClassifier(early_stopping_metric="loss"), "early_stopping_metric"),
        (MLPClassifier(max_time=3), "max_time"),
    ],
)
def test_what_scikit_learn_lacks_is_named(model: Any, name: str) -> None:
    with pytest.raises(fg.ConfigError, match=rf"to_sklearn: .*\b{name}\b"):
        model.to_sklearn()


def test_only_scikit_learns_class_of_the_name_is_taken() -> None:
    class Other(theirs.MLPRegressor):
        def __init__(self, extra: int = 1) -> None:
            super().__init__()
            self.extra = extra

    with pytest.raises(fg.ConfigError, match=r"est: expected an sklearn.neural_network.MLPClassifier, got"):
        MLPClassifier.from_sklearn(theirs.MLPRegressor())
    with pytest.raises(fg.ConfigError, match=r"est: expected .*, got ferrograd.sklearn"):
        MLPRegressor.from_sklearn(MLPRegressor())
    with pytest.raises(fg.ConfigError, match="MLPRegressor has no parameter 'extra'"):
        MLPRegressor.from_sklearn(Other())


def reloaded(model: Any, folder: Path) -> Any:
    model.save(folder / "model.safetensors")
    return type(model).load(folder / "model.safetensors")


@EACH
def test_a_file_keeps_predictions_to_the_bit_and_training(task: str, tmp_path: Path) -> None:
    model = fitted(task)
    back = reloaded(model, tmp_path)
    assert back.get_params() == model.get_params()
    assert back.__dict__.keys() == model.__dict__.keys() - {"_predictions", "_random_state"}
    for name in ("loss_", "n_iter_", "t_", "n_layers_", "out_activation_"):
        assert getattr(back, name) == getattr(model, name)
    target = TASKS[task][1]
    for _ in range(2):
        assert (back.predict(X) == model.predict(X)).all()
        assert (outputs(back, X) == outputs(model, X)).all()
        if model.solver == "lbfgs":
            break
        for one in (back, model):
            one.partial_fit(X, target)
        assert back.loss_curve_ == model.loss_curve_


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes", "perhaps"]),
        np.array(["no", "yes", "perhaps"], object),
        np.array([3, -1, 7], np.int16),
        np.array([0.0, 1.0, 2.0]),
        np.array([1, 2, 3], np.float32),
        np.array([False, True, True]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_of_any_dtype_come_back(labels: np.ndarray, tmp_path: Path) -> None:
    model = MLPClassifier((3,), max_iter=2, random_state=0).fit(X, labels[y])
    back = reloaded(model, tmp_path)
    assert back.classes_.dtype == model.classes_.dtype
    assert [type(label) for label in back.classes_] == [type(label) for label in model.classes_]
    assert (back.predict(X) == model.predict(X)).all()
    assert back.score(X, labels[y]) == model.score(X, labels[y])


def test_parameters_of_every_kind_come_back(tmp_path: Path) -> None:
    model = MLPClassifier(
        [6, 5],
        [("elu", {"alpha": 0.5}), "relu"],
        class_weight={"a": 2.0, 3: np.float64(0.5)},
        n_iter_no_change=np.inf,
        dtype=np.float32,
        coefs_init=[np.ones((2, 6)), np.ones((6, 5)), np.ones((5, 1))],
        random_state=np.random.RandomState(5),
        dropout=(0.1, 0.2),
    )
    model.random_state.normal()
    back = reloaded(model, tmp_path)
    mine, theirs_ = model.get_params(), back.get_params()
    assert all((a == b).all() for a, b in zip(mine.pop("coefs_init"), theirs_.pop("coefs_init"), strict=True))
    first, second = mine.pop("random_state"), theirs_.pop("random_state")
    assert first.normal(size=3).tolist() == second.normal(size=3).tolist()
    assert mine == theirs_
    with pytest.raises(NotFittedError):
        back.predict(X)


def test_early_stopping_and_names_of_columns_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = MLPRegressor(max_iter=5, early_stopping=True, random_state=0, warm_start=True).fit(frame, y)
    back = reloaded(model, tmp_path)
    assert back.feature_names_in_.tolist() == list("abcd")
    assert back.validation_scores_ == model.validation_scores_
    assert (back.fit(frame, y).predict(frame) == model.fit(frame, y).predict(frame)).all()


def test_what_a_file_does_not_hold_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(fg.ConfigError, match=r"save: early_stopping_metric: expected .*, got <function"):
        MLPRegressor(early_stopping_metric=lambda *_: 0.0).save(path)
    state = np.random.RandomState(np.random.PCG64(1))
    with pytest.raises(fg.ConfigError, match=r"save: random_state: expected .* MT19937, got RandomState"):
        MLPRegressor(random_state=state).save(path)
    assert not path.exists()


def test_a_file_of_the_other_class_a_damaged_one_and_none_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(fg.CheckpointError):
        MLPRegressor.load(path)
    model = fitted("regression")
    model.save(path)
    with pytest.raises(fg.ConfigError, match="expected a file of MLPClassifier, got one of MLPRegressor"):
        MLPClassifier.load(path)
    whole = path.read_bytes()
    for damaged in (whole[:-5], b"", whole[:40]):
        path.write_bytes(damaged)
        with pytest.raises(fg.CorruptFileError):
            MLPRegressor.load(path)
    fg.nn.Linear(2, 3).save(path)
    with pytest.raises(fg.CorruptFileError, match="no estimator's file"):
        MLPRegressor.load(path)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("parameters", "nonsense", 1),
        ("parameters", "alpha", {"nonsense": 1}),
        ("fitted", "fit", 1),
        ("fitted", "coefs_", [{"tensor": "intercepts_.0"}]),
        ("fitted", "coefs_", []),
        ("fitted", "coefs_", [{"tensor": "none"}]),
        ("fitted", "n_features_in_", 5),
        ("fitted", "classes_", None),
        ("fitted", "classes_", {"array": [1, 1 << 70], "dtype": "<i8"}),
        ("fitted", "out_activation_", "nonsense"),
        ("fitted", "_label_binarizer", {"dict": []}),
        ("fitted", "_optimizer", {"dict": [["t", 1]]}),
        ("fitted", "mean_", {"tensor": "coefs_.0"}),
        ("fitted", "scale_", {"tensor": "intercepts_.0"}),
        ("fitted", "normalizations_", [{"dict": []}]),
        ("fitted", "normalizations_", [{"dict": [["weight", {"tensor": "intercepts_.1"}]]}] * 2),
    ],
)
def test_contents_that_contradict_are_refused(part: str, name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    fitted("multiclass").save(path)
    tensors, metadata = fg._core.load_tensors(path)
    content = json.loads(metadata["ferrograd.sklearn"])
    content[part][name] = value
    fg._core.save_tensors(path, tensors, {"ferrograd.sklearn": json.dumps(content)})
    with pytest.raises(fg.CorruptFileError, match="no estimator's file"):
        MLPClassifier.load(path)
