"""`fg.trace`: upstream times local is downstream at every step, and the sums are the gradients."""

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn


def check(found: fg.Trace) -> None:
    """Multiply anew, and add up anew."""
    arrived: dict[str, Any] = {"L": 1.0}
    for step in reversed(found.steps):
        if step.name in arrived:
            np.testing.assert_allclose(step.upstream, arrived[step.name], rtol=1e-12, atol=1e-15)
        for operand in step.operands:
            if operand.kind == "elementwise":
                product = step.upstream * operand.local
            elif operand.kind == "jacobian":
                assert operand.local is not None
                assert operand.local.shape == (step.value.size, operand.downstream.size)
                product = (step.upstream.reshape(-1) @ operand.local).reshape(operand.downstream.shape)
            else:
                assert operand.local is None
                product = operand.downstream
            np.testing.assert_allclose(operand.downstream, product, rtol=1e-12, atol=1e-15)
            arrived[operand.name] = arrived.get(operand.name, 0.0) + operand.downstream
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(gradient, arrived[name], rtol=1e-12, atol=1e-15)


def backward(model: nn.Module, loss: Any, x: Any, y: Any) -> dict[str, list[Any]]:
    model.zero_grad()
    loss(model(fg.tensor(x, dtype=fg.float64)), y).backward()
    return {name: param.grad.numpy() for name, param in model.named_parameters()}


class Neuron(nn.Module):
    """The lecture's: 1 / (1 + exp(-(w0 x0 + w1 x1 + w2)))."""

    def __init__(self) -> None:
        super().__init__()
        self.w0, self.w1, self.w2 = nn.Parameter(2.0), nn.Parameter(-3.0), nn.Parameter(-3.0)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        z = self.w0 * x[0, 0] + self.w1 * x[0, 1] + self.w2
        return (1.0 / (1.0 + (-z).exp())).reshape(1, 1)


def test_the_lectures_neuron_step_by_step() -> None:
    found = fg.trace(Neuron(), [-1.0, -2.0], [[0.0]], lambda score, y: score.sum())
    check(found)
    assert found.loss == pytest.approx(0.7310585786300049)
    steps = {step.op: step for step in found.steps}
    # d(1/v) = -1/v^2, d exp = exp, d(-v) = -1
    assert steps["div"].operands[0].local == pytest.approx(-(0.7310585786300049**2))
    assert steps["exp"].operands[0].local == pytest.approx(np.exp(-1.0))
    assert steps["neg"].operands[0].local == pytest.approx(-1.0)
    assert steps["neg"].operands[0].downstream == pytest.approx(0.19661193324148185)
    assert found.gradients["w0"] == pytest.approx(-0.19661193324148185)
    assert found.gradients["w1"] == pytest.approx(-0.3932238664829637)
    assert found.gradients["w2"] == pytest.approx(0.19661193324148185)


def test_the_sums_are_the_gradients_of_backward() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x, y, loss = [0.3, -0.7, 1.1], fg.tensor([2]), nn.CrossEntropyLoss()
    found = fg.trace(model, x, 2, loss)
    check(found)
    expected = backward(model, loss, [x], y)
    assert found.gradients.keys() == expected.keys()
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-12)
    kinds = {step.op: step.operands[0].kind for step in found.steps if step.operands}
    assert kinds["tanh"] == kinds["relu"] == "elementwise"
    assert kinds["permute"] != "elementwise"
    assert found.leaves.keys() >= {"x", "y", "0.weight", "4.bias"}


class Residual(nn.Module):
    """One operand of the sum, and of the product, is computed from the other."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        h = self.inner(x)
        t = h.tanh()
        return (h + t) * t * h + h * h


def test_what_flows_through_another_operand_is_not_counted_twice() -> None:
    model = Residual().double()
    x, y, loss = [0.5, -1.0, 2.0], fg.tensor([[0.1, 0.2, 0.3]], dtype=fg.float64), nn.MSELoss()
    found = fg.trace(model, x, y, loss)
    check(found)
    expected = backward(model, loss, [x], y)
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-11)
    # h + t: both local derivatives are 1, although t is computed from h.
    plus = next(s for s in found.steps if s.op == "add" and len(s.inputs) == 2 and len(s.operands) == 2)
    squared = next(s for s in found.steps if s.op == "mul" and s.inputs[0] == s.inputs[1])
    for operand in (o for s in found.steps if s.op == "add" for o in s.operands if o.kind == "elementwise"):
        np.testing.assert_allclose(operand.local, np.ones((1, 3)), rtol=1e-12)
    assert plus
    assert len(squared.operands) == 1


class Square(nn.Module):
    """Turns a square matrix around: each element goes to one place, but not to its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(fg.arange(float(size * size)).reshape(size, size))

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return (self.weight.t() * x).sum().reshape(1, 1)


@pytest.mark.parametrize(("size", "kind"), [(1, "elementwise"), (2, "jacobian"), (3, "whole"), (4, "whole")])
def test_moving_elements_is_not_elementwise(size: int, kind: str) -> None:
    found = fg.trace(Square(size), np.ones(size), [[0.0]], nn.MSELoss())
    check(found)
    assert next(s for s in found.steps if s.op == "permute").operands[0].kind == kind


def test_trainers_and_estimators_bring_their_loss() -> None:
    model = nn.Linear(2, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()), l2=2.0)
    found = fg.trace(trainer, [1.0, 2.0], 1)
    check(found)
    plain = fg.trace(model, [1.0, 2.0], 1, nn.CrossEntropyLoss())
    assert found.loss == pytest.approx(plain.loss + float(model.weight.square().sum()))
    pytest.importorskip("sklearn")
    from ferrograd.sklearn import MLPClassifier

    X, y = np.random.RandomState(0).randn(30, 3), np.array(["a", "b", "c"])[np.arange(30) % 3]
    fitted = MLPClassifier(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0).fit(X, y)
    found = fg.trace(fitted, X[0], y[:1])
    check(found)
    assert list(found.gradients) == [
        name for name in found.leaves if name.startswith(("coefs_", "intercepts_"))
    ]
    assert len(found.gradients) == 4


def test_nothing_is_changed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    fg.trace(model, [1.0, 2.0, 3.0], [[0.0, 0.0, 0.0, 0.0]], nn.MSELoss())
    assert {name: value.tolist() for name, value in model.state_dict().items()} == state
    assert all(module.training for module in model.modules())
    assert all(param.grad is None and param.dtype == fg.float32 for param in model.parameters())


def traced() -> fg.Trace:
    fg.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2))
    return fg.trace(model, [1e-7, -2.0], 1, nn.CrossEntropyLoss())


def test_the_text_has_both_passes() -> None:
    found = traced()
    lines = found.text().splitlines()
    assert str(found) == found.text()
    assert [line for line in lines if not line.startswith(" ")] == ["forward", "backward", "gradients"]
    assert f"  L = div({found.steps[-1].inputs[0]}, {found.steps[-1].inputs[1]}) = {found.loss:.4g}" in lines
    assert sum("+=" in line for line in lines) == sum(len(step.operands) for step in found.steps)
    products = [line for line in lines if line.startswith("      = ")]
    assert all(re.fullmatch(r"      = .+ \* .+ = .+", line) for line in products)


def test_the_html_is_well_formed_and_escaped() -> None:
    found = traced()
    root = ET.fromstring(found.html())
    assert found._repr_html_() == found.html()
    tables = root.findall("table")
    assert [table.findtext("caption") for table in tables] == ["Forward", "Backward", "Gradients"]
    assert len(tables[0].findall("tbody/tr")) == len(found.leaves) + len(found.steps)
    assert len(tables[1].findall("tbody/tr")) == sum(len(step.operands) for step in found.steps)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_parameter("<b>&", nn.Parameter(1.0))

        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return x * self._parameters["<b>&"]

    odd = fg.trace(Odd(), [1.0], [[2.0]], nn.MSELoss()).html()
    assert ET.fromstring(odd).findall("table")[2].findtext("tbody/tr/td") == "dL/d<b>&"


def test_the_latex_is_balanced() -> None:
    text = traced().latex()
    assert text.startswith("\\begin{align*}\n")
    assert text.endswith("\n\\end{align*}")
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\begin\{(.*?)\}", text).count("bmatrix") == text.count(r"\end{bmatrix}") > 0
    assert text.count(r"\left") == text.count(r"\right")
    # One alignment mark a line, besides those of matrices; an underscore is escaped or begins an index.
    for line in text.splitlines()[1:-1]:
        assert re.sub(r"\\begin\{bmatrix\}.*?\\end\{bmatrix\}", "", line).count("&") == 1
    assert r"\operatorname{cross\_entropy}" in text
    assert r"1 \cdot 10^{-7}" in text


def test_the_dict_holds_the_numbers() -> None:
    found = traced()
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["loss"] == found.loss
    assert told["gradients"]["0.weight"] == found.gradients["0.weight"].tolist()
    assert [step["op"] for step in told["steps"]] == [step.op for step in found.steps]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fg.trace(nn.Linear(2, 2), [1.0, 2.0], 0), fg.ConfigError, "loss: expected a callable"),
        (
            lambda: fg.trace(nn.Linear(2, 2), np.ones((3, 2)), 0, nn.CrossEntropyLoss()),
            fg.ShapeError,
            r"x: expected one sample",
        ),
        (
            lambda: fg.trace(nn.Linear(2, 2), [1.0, 2.0], [0, 1], nn.CrossEntropyLoss()),
            fg.ShapeError,
            "y: expected the target of one sample",
        ),
        (
            lambda: fg.trace(nn.Linear(2, 2), [1.0, 2.0], 7, nn.CrossEntropyLoss()),
            fg.LabelError,
            "y: expected class labels",
        ),
        (lambda: fg.trace("model", [1.0], 0), fg.ConfigError, "model: expected a Module"),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


class Confusing(nn.Module):
    """Parameters with the names of data, constants and steps."""

    def __init__(self) -> None:
        super().__init__()
        for number, name in enumerate(["x", "y", "v1", "L", "c1"]):
            self.register_parameter(name, nn.Parameter(number + 2.0))

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return (x * self.x + self.y) * self.v1 * fg.tensor([[1.5, 2.0]], dtype=fg.float64) - self.L * self.c1


def test_names_are_distinct_whatever_parameters_are_called() -> None:
    found = fg.trace(Confusing(), [1.0, 2.0], [[3.0, 4.0]], nn.MSELoss())
    check(found)
    assert found.gradients.keys() == {"x'", "y'", "v1'", "L'", "c1'"}
    names = [*found.leaves, *(step.name for step in found.steps)]
    assert len(set(names)) == len(names)
    assert found.leaves["x"].tolist() == [[1.0, 2.0]]
    assert found.leaves["x'"] == 2.0
    expected = backward(Confusing().double(), nn.MSELoss(), [[1.0, 2.0]], fg.tensor([[3.0, 4.0]]).double())
    for name, gradient in expected.items():
        np.testing.assert_allclose(found.gradients[name + "'"], gradient)


def test_integers_are_numbers_where_there_are_several_outputs() -> None:
    model = nn.Linear(3, 2)
    whole = fg.trace(model, [1.0, 2.0, 3.0], [1, 2], nn.MSELoss())
    assert whole.loss == fg.trace(model, [1.0, 2.0, 3.0], [1.0, 2.0], nn.MSELoss()).loss
    assert whole.leaves["y"].tolist() == [[1, 2]]


def test_a_jacobian_of_64_elements_is_written_out() -> None:
    found = fg.trace(nn.Sequential(nn.Linear(1, 8), nn.Softmax(1)), [1.0], np.zeros(8), nn.MSELoss())
    jacobians = [o.local for s in found.steps for o in s.operands if o.kind == "jacobian"]
    assert any(local is not None and local.size == 64 for local in jacobians)
    assert "J [[" in found.text()
    assert "J array" not in found.text()
    assert r"8 \times 8" not in found.latex()
