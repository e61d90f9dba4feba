"""scikit-learn's own checks of estimators, and its tests of its multi-layer perceptrons, run on ours."""

import importlib
import sys
from typing import Any

import pytest
import sklearn
from sklearn import neural_network
from sklearn.utils.estimator_checks import parametrize_with_checks

from ferrograd import sklearn as ours

if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < (1, 9):
    pytest.skip("earlier releases check and test what 1.9 has changed", allow_module_level=True)

# scikit-learn's tests that ours do not pass, each with its reason.
EXCLUDED = {
    "test_gradient": "calls the private _loss_grad_lbfgs with lists of arrays that it shares",
}

# Its tests let these warnings pass.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


# What the estimators have beyond scikit-learn's, as far as it goes with one row.
OWN = {
    "activation": ("maxout", {"pieces": 3}),
    "normalization": "layer",
    "standardize": True,
    "l1": 1e-3,
    "lr_schedule": ("cosine", {"start_factor": 0.5}),
}


@parametrize_with_checks(
    [
        ours.MLPClassifier(),
        ours.MLPRegressor(),
        ours.MLPClassifier(loss="hinge"),
        ours.MLPClassifier(**OWN),
        ours.MLPRegressor(**OWN),
    ]
)
def test_an_estimator_passes_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def theirs() -> dict[str, Any]:
    """Return scikit-learn's tests, imported with our classes in place of its own."""
    module = "sklearn.neural_network.tests.test_mlp"
    names = ("MLPClassifier", "MLPRegressor")
    kept = {name: getattr(neural_network, name) for name in names}
    sys.modules.pop(module, None)
    try:
        for name in names:
            setattr(neural_network, name, getattr(ours, name))
        return dict(vars(importlib.import_module(module)))
    finally:
        for name, kind in kept.items():
            setattr(neural_network, name, kind)
        sys.modules.pop(module, None)


@pytest.fixture
def global_random_seed() -> int:
    return 42


found = {name: test for name, test in theirs().items() if name.startswith("test_")}
globals().update({name: test for name, test in found.items() if name not in EXCLUDED})


def test_what_is_left_out_of_scikit_learns_tests_is_there() -> None:
    assert set(EXCLUDED) <= set(found)
    assert len(found) > 40
