"""`fg.check_gradients`: planted bugs are found in one call, and right gradients pass."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn

sklearn = pytest.importorskip("sklearn")
from sklearn import neural_network as theirs  # noqa: E402

from ferrograd import sklearn as ours  # noqa: E402

RNG = np.random.RandomState(0)
X = RNG.randn(12, 4)
LABELS = np.arange(12) % 3
TARGETS = np.c_[X[:, 0], X[:, 1] ** 2, X[:, 2] - X[:, 3]]


@pytest.fixture(autouse=True)
def _short_fits() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Scaled(fg.autograd.Function):
    """The identity, with a gradient of our choice."""

    factor = 1.0

    @classmethod
    def forward(cls, ctx: Any, x: Any) -> Any:
        return x * 1.0

    @classmethod
    def backward(cls, ctx: Any, g: Any) -> Any:
        return g * cls.factor


def planted(factor: float) -> nn.Module:
    wrong = type("Wrong", (Scaled,), {"factor": factor})

    class Layer(nn.Module):
        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return wrong.apply(x)

    return nn.Sequential(nn.Linear(4, 6), Layer(), nn.Tanh(), nn.Linear(6, 3))


def rows(report: fg.GradientReport) -> dict[str, fg.ParameterCheck]:
    return {row.name: row for row in report.parameters}


def test_right_gradients_agree() -> None:
    report = fg.check_gradients(planted(1.0), X, LABELS, nn.CrossEntropyLoss())
    assert report.agrees
    assert report.verdict == "the backward pass agrees with the differences"
    for row in report.parameters:
        assert row.max_error < 1e-7
        assert abs(row.ratio - 1) < 1e-8
        assert (row.verdict, row.kinks) == ("agrees", 0)
        assert len(row.worst) == len(row.shape)
    assert report.evaluations == 1 + 2 * (24 + 6 + 18 + 3)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (3.0, "WRONG: 3.00 times"),
        (-1.0, "WRONG: the sign"),
        (0.0, "WRONG: 0 everywhere"),
        (1.01, "WRONG: 1.01 times"),
    ],
)
def test_a_planted_bug_is_found_below_it_and_not_above(factor: float, verdict: str) -> None:
    report = fg.check_gradients(planted(factor), X, LABELS, nn.CrossEntropyLoss())
    found = rows(report)
    assert not report.agrees
    assert report.verdict.startswith("WRONG: the gradients of 0.weight, 0.bias are ")
    for name in ("0.weight", "0.bias"):
        assert found[name].verdict == verdict
        assert found[name].ratio == pytest.approx(factor, abs=1e-6)
        row = found[name]
        assert row.analytic == pytest.approx(factor * row.numeric, rel=1e-5)
    assert found["3.weight"].verdict == found["3.bias"].verdict == "agrees"


def test_a_bug_in_one_element_is_named() -> None:
    class OneWrong(fg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, w: Any) -> Any:
            return w * 1.0

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * fg.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.5, 1.0]], dtype=fg.float64)

    class Layer(nn.Linear):
        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return x @ OneWrong.apply(self.weight).t() + self.bias

    row = rows(fg.check_gradients(Layer(4, 2), X, TARGETS[:, :2], nn.MSELoss()))["weight"]
    assert row.worst == (1, 2)
    assert row.analytic == pytest.approx(row.numeric / 2)
    assert row.verdict == "WRONG in 12% of its elements"


def test_scikit_learns_regressor_of_several_outputs_is_found_out() -> None:
    for count in (2, 3):
        model = theirs.MLPRegressor(hidden_layer_sizes=(7,), max_iter=3, alpha=0.0, random_state=0)
        model.fit(X, TARGETS[:, :count])
        before = [array.copy() for array in [*model.coefs_, *model.intercepts_]]
        report = fg.check_gradients(model, X, TARGETS[:, :count])
        assert not report.agrees
        assert f"are {count}.00 times the derivatives" in report.verdict
        for row in report.parameters:
            assert row.ratio == pytest.approx(count, abs=1e-4)
        for array, old in zip([*model.coefs_, *model.intercepts_], before, strict=True):
            np.testing.assert_array_equal(array, old)
    single = theirs.MLPRegressor(max_iter=3, random_state=0).fit(X, TARGETS[:, 0])
    assert fg.check_gradients(single, X, TARGETS[:, 0]).agrees


@pytest.mark.parametrize(
    "y", [LABELS, LABELS % 2, np.array(["a", "b", "c"])[LABELS], np.c_[LABELS > 0, LABELS < 2]]
)
@pytest.mark.parametrize("module", [theirs, ours])
def test_classifiers_agree(module: Any, y: Any) -> None:
    model = module.MLPClassifier(hidden_layer_sizes=(5, 4), activation="tanh", max_iter=3, random_state=0)
    report = fg.check_gradients(model.fit(X, y), X, y)
    assert report.agrees
    assert [row.name for row in report.parameters][::3] == ["coefs_[0]", "intercepts_[0]"]


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile", "poisson"])
def test_our_regressors_agree(loss: str) -> None:
    y = np.abs(TARGETS[:, 0])
    model = ours.MLPRegressor(loss, hidden_layer_sizes=(5,), max_iter=3, random_state=0, dropout=0.5)
    assert fg.check_gradients(model.fit(X, y), X, y).agrees


def test_our_regressor_has_scikit_learns_factor_unless_asked_not_to() -> None:
    model = ours.MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, alpha=0.0, random_state=0).fit(X, TARGETS)
    assert "3.00 times" in fg.check_gradients(model, X, TARGETS).verdict
    model = ours.MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0, correct_multioutput=True)
    assert fg.check_gradients(model.fit(X, TARGETS), X, TARGETS).agrees


def test_class_weights_are_part_of_the_loss() -> None:
    model = ours.MLPClassifier(hidden_layer_sizes=(5,), max_iter=3, random_state=0, class_weight="balanced")
    y = np.r_[np.zeros(9), np.ones(3)].astype(int)
    assert fg.check_gradients(model.fit(X, y), X, y).agrees


def test_a_trainer_brings_its_loss_and_its_penalty() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()), l2=0.5)
    report = fg.check_gradients(trainer, X, LABELS)
    assert report.agrees
    weights = sum(float(p.square().sum()) for p in model.parameters() if p.ndim == 2)
    plain = fg.check_gradients(model, X, LABELS, nn.CrossEntropyLoss())
    assert report.loss == pytest.approx(plain.loss + 0.25 * weights)


def test_steps_across_a_kink_are_counted_and_left_out() -> None:
    # Zero times anything lies on the kink: each step of the weight crosses it, one of the other layer none.
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with fg.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()
    report = fg.check_gradients(model, [[1.0, 2.0]], [[3.0]], nn.MSELoss())
    found = rows(report)
    assert found["0.weight"].kinks == 6
    assert found["0.weight"].verdict == "only kinks: try other data"
    assert found["2.bias"].kinks == 0
    assert "9 elements at a kink were left out" in report.verdict
    assert report.agrees


@pytest.mark.parametrize("share", [0.01, 0.05, 0.085, 0.09, 0.2, 0.25, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_kink_is_found_wherever_it_lies_in_the_step(share: float, sign: int) -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    with fg.no_grad():
        model[0].weight.fill_(sign * share * 6e-6)
    report = fg.check_gradients(model, [[1.0]], [[-1.0]], nn.L1Loss())
    assert report.parameters[0].kinks == 1


def test_there_is_no_kink_past_the_step() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    with fg.no_grad():
        model[0].weight.fill_(7e-6)
    (row,) = fg.check_gradients(model, [[1.0]], [[-1.0]], nn.L1Loss()).parameters
    assert (row.kinks, row.verdict) == (0, "agrees")


def test_nothing_but_kinks_is_no_agreement() -> None:
    model = nn.Linear(1, 1, bias=False)
    with fg.no_grad():
        model.weight.zero_()
    report = fg.check_gradients(model, [[1.0]], [[0.0]], lambda a, b: (a - b).abs().sum())
    assert not report.agrees
    assert report.verdict.startswith("nothing was compared")
    told = report.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["parameters"][0]["max_error"] is None
    assert told["parameters"][0]["shape"] == [1, 1]


@pytest.mark.parametrize("share", [1e-11, 1e-3, 1.0, 1e9])
def test_a_bug_is_found_however_small_the_loss(share: float) -> None:
    def small(scores: fg.Tensor, targets: fg.Tensor) -> fg.Tensor:
        return nn.functional.mse_loss(scores, targets) * share

    found = rows(fg.check_gradients(planted(3.0), X, TARGETS, small))
    assert found["0.weight"].verdict == found["0.bias"].verdict == "WRONG: 3.00 times"
    assert found["3.weight"].verdict == "agrees"
    assert fg.check_gradients(planted(1.0), X, TARGETS, small).agrees


@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e-3])
def test_next_to_a_perfect_fit_rounding_is_no_error(offset: float) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with fg.no_grad():
        targets = model(fg.tensor(X)).numpy() + offset
    report = fg.check_gradients(model, X, targets, nn.MSELoss())
    assert report.agrees, str(report)


def test_a_kink_does_not_hide_a_bug() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), planted(2.0)[1], nn.Linear(6, 3))
    assert not fg.check_gradients(model, X, LABELS, nn.CrossEntropyLoss()).agrees


def test_curvature_is_no_kink() -> None:
    class Steep(nn.Linear):
        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return (super().forward(x) * 30).exp()

    model = Steep(1, 1).double()
    with fg.no_grad():
        model.weight.fill_(0.9)
    report = fg.check_gradients(model, [[1.0]], [[0.0]], nn.MSELoss())
    assert [row.kinks for row in report.parameters] == [0, 0]
    assert report.agrees


def test_only_some_elements_of_large_parameters_are_looked_at() -> None:
    model = nn.Linear(40, 50)
    report = fg.check_gradients(model, np.ones((2, 40)), np.zeros((2, 50)), nn.MSELoss(), max_elements=30)
    assert [row.checked for row in report.parameters] == [30, 30]
    assert report.evaluations == 121
    assert "30 of 2,000" in str(report)


def test_nothing_is_changed() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    state = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    fg.manual_seed(4)
    expected = fg.rand(2).tolist()
    fg.manual_seed(4)
    assert fg.check_gradients(model, X.astype(np.float32), LABELS, nn.CrossEntropyLoss()).agrees
    assert fg.rand(2).tolist() == expected
    assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == state
    assert all(param.grad is None and param.dtype == fg.float32 for param in model.parameters())
    assert all(module.training for module in model.modules())


def test_the_table_and_the_dict_say_the_same() -> None:
    report = fg.check_gradients(planted(2.0), X, LABELS, nn.CrossEntropyLoss())
    lines = str(report).splitlines()
    assert lines[0].startswith("gradients of Sequential, loss ")
    assert "WRONG" in lines[0]
    assert any("WRONG: 2.00 times" in line and "2.0000" in line for line in lines)
    found = json.loads(json.dumps(report.to_dict()))
    assert found["agrees"] is False
    assert found["parameters"][0]["ratio"] == report.parameters[0].ratio


def test_an_unknown_scikit_learn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = theirs.MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, random_state=0).fit(X, TARGETS)
    monkeypatch.setattr(sklearn, "__version__", "9.0.1")
    with pytest.raises(fg.ConfigError, match=r"the backward pass of scikit-learn 9\.0\.1 is not known"):
        fg.check_gradients(model, X, TARGETS)
    monkeypatch.undo()
    monkeypatch.setattr(type(model), "_backprop", lambda self, X: None)
    with pytest.raises(fg.ConfigError, match="is not known"):
        fg.check_gradients(model, X, TARGETS)


class Random(nn.Linear):
    """Draws without being a layer that is known to."""

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return nn.functional.dropout(super().forward(x)) + fg.rand(1, dtype=x.dtype)


class Drifting(nn.Linear):
    """Draws from a generator that nobody knows of."""

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return super().forward(x) + float(RNG.normal())


def test_a_model_that_draws_gets_the_same_numbers_in_each_evaluation() -> None:
    report = fg.check_gradients(Random(4, 3), X, TARGETS, nn.MSELoss())
    assert report.agrees, report


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fg.check_gradients(nn.Linear(4, 3), X, LABELS), "loss: expected a callable for a Module"),
        (lambda: fg.check_gradients(len, X, LABELS), "model: expected a Module, a Trainer or an estimator"),
        (lambda: fg.check_gradients(None, X, LABELS), "of ferrograd, got None$"),
        (lambda: fg.check_gradients(lambda x: x, X, LABELS, nn.MSELoss()), "model: .*, got function$"),
        (
            lambda: fg.check_gradients(nn.Linear(4, 3), X, LABELS, nn.MSELoss(), max_elements=0),
            "max_elements",
        ),
        (lambda: fg.check_gradients(Drifting(4, 3), X, TARGETS, nn.MSELoss()), "changes from call to call"),
        (
            lambda: fg.check_gradients(
                theirs.MLPRegressor(max_iter=1).fit(X, TARGETS), X, TARGETS, nn.MSELoss()
            ),
            "loss: MLPRegressor brings its own",
        ),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(fg.ConfigError, match=message):
        call()


def test_errors_of_the_data_come_from_the_usual_checks() -> None:
    with pytest.raises(fg.LabelError, match=r"y: expected class labels in 0\.\.1"):
        fg.check_gradients(nn.Linear(4, 2), X, LABELS, nn.CrossEntropyLoss())
    with pytest.raises(fg.NonFiniteError, match="X"):
        fg.check_gradients(nn.Linear(4, 3), X * np.nan, LABELS, nn.CrossEntropyLoss())
    model = nn.Linear(4, 3)
    with fg.no_grad():
        model.bias.fill_(np.nan)
    with pytest.raises(fg.NonFiniteError, match=r"check_gradients: loss: .* got nan"):
        fg.check_gradients(model, X, LABELS, nn.CrossEntropyLoss())
    frozen = nn.Linear(4, 3).requires_grad_(False)
    with pytest.raises(fg.GraphError, match="none of its parameters"):
        fg.check_gradients(frozen, X, LABELS, nn.CrossEntropyLoss())
