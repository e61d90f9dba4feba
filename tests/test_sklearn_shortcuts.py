"""Checks that are decided at once decide as scikit-learn's do."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints
from sklearn.utils.validation import validate_data

import ferrograd as fg
from ferrograd.sklearn import MLPClassifier, MLPRegressor
from ferrograd.sklearn.network import Fit
from ferrograd.sklearn.shortcuts import accuracy, are_plain, fit_binarizer, r_squared

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(30, 4))
y = np.arange(30) % 3


class Subclass(MLPClassifier):
    """Has a constructor, and a default, of its own."""

    def __init__(self, alpha: Any = -1.0, extra: int = 0) -> None:
        super().__init__(alpha=alpha)
        self.extra = extra


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_defaults_are_allowed(kind: Any) -> None:
    validate_parameter_constraints(kind._parameter_constraints, kind().get_params(), kind.__name__)


def test_parameters_are_those_of_each_class() -> None:
    names = MLPClassifier._get_param_names()
    names.append("changed")
    assert "changed" not in MLPClassifier._get_param_names()
    assert Subclass._get_param_names() == ["alpha", "extra"]
    assert (Subclass(0.5, extra=2).alpha, Subclass().hidden_layer_sizes) == (0.5, (100,))
    with pytest.raises(InvalidParameterError, match="'alpha'"):
        Subclass(alpha=-2.0).fit(X, y)
    assert list(MLPRegressor().get_params()) == sorted(MLPRegressor().get_params())


@pytest.mark.parametrize(
    "labels",
    [
        y,
        y.astype(np.int8),
        y.astype(np.uint64),
        y > 0,
        y * 0,
        y - 1,
        y.astype(float),
        y.astype(str),
        list(y),
        y[::-2],
        y.reshape(-1, 1),
        np.eye(3, dtype=int)[y],
    ],
)
def test_labels_are_found_as_by_a_label_binarizer(labels: Any) -> None:
    found, expected = fit_binarizer(labels), LabelBinarizer().fit(labels)
    assert vars(found).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, strict=isinstance(value, np.ndarray))


def test_no_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        fit_binarizer(y[:0])


PLAIN = [
    (X, y),
    (X.astype(np.float32), y),
    (X[::2, 1:], y[::2]),
    (np.asfortranarray(X), y > 1),
    (X, y.astype("u1")),
]
BAD = np.where(X[3, 2] == X, np.nan, X)
OTHER = [
    (X, y[1:]),
    (X[:, :0], y),
    (X[:0], y[:0]),
    (BAD, y),
    (np.where(X[3, 2] == X, np.inf, X), y),
    (np.where(np.isnan(BAD), 1e308, 1e308), y),
    (X.astype(np.float16), y),
    (X.astype(">f8"), y),
    (X.astype(int), y),
    (X.astype(complex), y),
    (X[0], y),
    (X[:, :, None], y),
    (X.tolist(), y),
    (pd.DataFrame(X), y),
    (X.view(np.recarray), y),
    (np.ma.masked_invalid(BAD), y),
    (X, y.reshape(-1, 1)),
    (X, y.astype(str)),
    (X, y.astype(float)),
    (X, y.tolist()),
]


@pytest.mark.parametrize("pair", PLAIN)
def test_what_is_plain_would_be_taken_as_it_is(pair: Any) -> None:
    models = [MLPClassifier(), MLPClassifier()]
    assert are_plain(models[0], *pair, "iub", reset=True)
    checked = validate_data(models[1], *pair, dtype=(np.float64, np.float32), multi_output=True)
    assert all(one is other for one, other in zip(checked, pair, strict=True))
    assert vars(models[0]) == vars(models[1])
    assert are_plain(models[0], *pair, "iub", reset=False)
    assert not are_plain(models[0], pair[0][:, 1:], pair[1], "iub", reset=False)


@pytest.mark.parametrize("pair", OTHER)
def test_the_rest_is_left_to_scikit_learn(pair: Any) -> None:
    model = MLPClassifier()
    before = dict(vars(model))
    assert not are_plain(model, *pair, "iub", reset=True)
    assert vars(model) == before


def test_names_of_columns_are_forgotten_where_there_are_none() -> None:
    model = MLPClassifier(max_iter=1).fit(pd.DataFrame(X, columns=list("abcd")), y)
    assert model.fit(X[:, :3], y).n_features_in_ == 3
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_prediction_is_the_most_probable_class(dtype: Any) -> None:
    rows, labels = load_digits(return_X_y=True)
    model = MLPClassifier(max_iter=5, random_state=0).fit(rows.astype(dtype), labels + 5)
    np.testing.assert_array_equal(model.predict(rows), model.predict_proba(rows).argmax(1) + 5)


def test_a_failed_partial_fit_leaves_losses_and_optimizer_as_they_were() -> None:
    model, same = (MLPRegressor(solver="sgd", random_state=0) for _ in range(2))
    for _ in range(3):
        model.partial_fit(X, y)
        same.partial_fit(X, y)
    losses = list(model.loss_curve_)
    with pytest.raises(ValueError, match="non-finite parameter weights"), np.errstate(all="ignore"):
        model.partial_fit(X * 1e200, y)
    assert model.loss_curve_ == losses
    for one in (model, same):
        one.partial_fit(X, y)
    np.testing.assert_array_equal(model.coefs_[0], same.coefs_[0])
    assert model.loss_curve_ == same.loss_curve_


@pytest.mark.parametrize("rows", [2, 3, 129, 5000])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_scores_are_scikit_learns_to_the_bit(rows: int, is_weighted: bool) -> None:
    rng = np.random.default_rng(rows)
    weight = rng.uniform(0, 3, rows) if is_weighted else None
    for scale in (1e-9, 1.0, 1e3):
        target = rng.normal(5, 2, rows)
        predicted = target + scale * rng.normal(size=rows)
        columns = [np.c_[array, array] for array in (target, predicted)]
        short = [array.astype(np.float32) for array in (target, predicted)]
        constant = [np.ones(rows), np.ones(rows)], [np.ones(rows), predicted]
        for pair in ((target, predicted), (target, target), columns, short, *constant):
            assert r_squared(*pair, weight) == r2_score(*pair, sample_weight=weight)
    labels = rng.integers(0, 3, (2, rows))
    for pair in (labels, labels.astype(str), rng.integers(0, 2, (2, rows, 3))):
        assert accuracy(*pair, weight) == accuracy_score(*pair, sample_weight=weight)


def arrays(model: Any) -> list[bytes]:
    norms = [array for norm in vars(model).get("normalizations_", []) for array in norm.values()]
    states = [array for state in model._optimizer.states for array in state]
    found = *model.coefs_, *model.intercepts_, *norms, *states, np.array(model.loss_curve_)
    return [array.tobytes() for array in found]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "sgd"},
        {"solver": "sgd", "momentum": 0.0, "learning_rate": "invscaling"},
        {"early_stopping": True},
        {"normalization": "batch", "batch_size": 11},
        {"normalization": "layer", "activation": "maxout", "l1": 0.1, "clip_norm": 1.0},
        {"standardize": True, "lr_schedule": "cosine"},
        {"dropout": 0.3},
        {"dtype": "float32", "weight_decay": 0.1},
    ],
)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_fit_is_the_same_with_what_another_one_compiled(
    kind: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    init = Fit.__init__

    def counted(self: Fit, *arguments: Any, **others: Any) -> None:
        made.append(self)
        init(self, *arguments, **others)

    monkeypatch.setattr(Fit, "__init__", counted)
    # Widths that no other test has.
    shared = {"hidden_layer_sizes": (23, 19), "max_iter": 4, **options}
    first = kind(**shared, random_state=0).fit(X, y)
    kind(**shared, random_state=1, learning_rate_init=0.1, tol=0.1).fit(-3 * X, y[::-1])
    again = kind(**shared, random_state=0).fit(X, y)
    assert len(made) == (3 if "dropout" in options else 1)
    assert arrays(again) == arrays(first)
    # They are independent.
    held = arrays(first)
    again.partial_fit(X, y) if "early_stopping" not in options else again.fit(X, y[::-1])
    assert arrays(first) == held
    with fg.anomaly_mode():
        assert arrays(kind(**shared, random_state=0).fit(X, y)) == held


def test_a_fit_that_fails_leaves_nothing_to_others() -> None:
    options = {"hidden_layer_sizes": (22,), "solver": "sgd", "max_iter": 4, "random_state": 0}
    with pytest.raises(ValueError, match="non-finite"):
        MLPRegressor(**options, learning_rate_init=1e200).fit(X, y)
    with pytest.raises(ZeroDivisionError):
        MLPRegressor(**options, batch_size=15, shuffle=False).fit(X, y, sample_weight=np.arange(30) >= 15)
    found = MLPRegressor(**options).fit(X, y)
    assert np.isfinite(found.loss_curve_).all()
    assert arrays(MLPRegressor(**options).fit(X, y)) == arrays(found)


@pytest.mark.parametrize("labels", [y, y > 0, y.astype(np.int8), (y - 1).astype(float)])
@pytest.mark.parametrize("known", [None, [0, 1, 2, 7], [-1.0, 0.0, 1.0, 2.0]])
def test_labels_that_need_no_checks_go_the_way_of_others(labels: Any, known: Any) -> None:
    found = []
    for given in (labels, labels.tolist()):
        model = MLPClassifier((3,), random_state=0)
        try:
            model.partial_fit(X, given, classes=np.unique(labels) if known is None else known)
            found.append(arrays(model.partial_fit(X[::-1], given[::-1])))
        except ValueError as error:
            found.append([str(error)])
    assert found[0] == found[1]


@pytest.mark.parametrize("labels", [np.r_[y[:-1], 5], np.r_[y[:-1], 5].astype(np.uint8), y - 1])
def test_other_classes_are_refused_in_a_further_call(labels: Any) -> None:
    model = MLPClassifier((3,), random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`"):
        model.partial_fit(X, labels)
    with pytest.raises(ValueError, match="same classes"):
        model.set_params(warm_start=True).fit(X, labels)
