"""What lectures show about graphs, gates and the chain rule, with their numbers: rows A."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.autograd import GradcheckError, grad, gradcheck, numeric_gradient

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def leaf(values: object, dtype: Any = np.float64) -> fg.Tensor:
    return fg.tensor(np.array(values, dtype=dtype), requires_grad=True)


def unit(dtype: Any) -> float:
    """Return the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps)


def is_of(dtype: Any, *tensors: fg.Tensor) -> bool:
    return all(tensor.dtype.name == np.dtype(dtype).name for tensor in tensors)


def grad_of(tensor: fg.Tensor) -> Any:
    assert tensor.grad is not None
    return tensor.grad.tolist()


class Add:
    """z = x + y."""

    def forward(self, x: Any, y: Any) -> Any:
        return x + y

    def backward(self, dout: Any) -> Any:
        return dout, dout


class Multiply:
    """z = x y; keeps both factors, each is the other's local derivative."""

    def forward(self, x: Any, y: Any) -> Any:
        self.x, self.y = x, y
        return x * y

    def backward(self, dout: Any) -> Any:
        return dout * self.y, dout * self.x


class Larger:
    """z = max(x, y); keeps who won."""

    def forward(self, x: Any, y: Any) -> Any:
        self.share = np.where(x > y, 1.0, np.where(x < y, 0.0, 0.5))
        return np.maximum(x, y)

    def backward(self, dout: Any) -> Any:
        return dout * self.share, dout * (1 - self.share)


class Sigmoid:
    """s = 1 / (1 + exp(-x)); keeps s and counts its backward calls."""

    backward_calls = 0

    def forward(self, x: Any) -> Any:
        self.s = 1 / (1 + np.exp(-x))
        return self.s

    def backward(self, dout: Any) -> Any:
        self.backward_calls += 1
        return dout * self.s * (1 - self.s)


class Split:
    """Cartesian to polar: two outputs."""

    def forward(self, x: Any, y: Any) -> Any:
        self.x, self.y, self.r = x, y, np.hypot(x, y)
        return self.r, np.arctan2(y, x)

    def backward(self, dout: Any) -> Any:
        d_r, d_angle = dout
        x, y, r = self.x, self.y, self.r
        return d_r * x / r - d_angle * y / r**2, d_r * y / r + d_angle * x / r**2


class Wire:
    """Hand the value through, and record the gradient that comes back along this one edge."""

    def __init__(self, arrivals: list[float]) -> None:
        self.arrivals = arrivals

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dout: Any) -> Any:
        self.arrivals.append(float(dout))
        return dout


def circuit(add: Any = "add", mul: Any = "mul") -> tuple[fg.Graph, fg.Node]:
    """f = (x + y) z; the node is q = x + y."""
    g = fg.Graph()
    q = g.add(add, g.input("x"), g.input("y"), name="q")
    g.output(g.add(mul, q, g.input("z"), name="f"))
    return g, q


def run_circuit(values: dict[str, float], dtype: Any) -> tuple[float, float, dict[str, float]]:
    """Return q, f and the gradients of (x + y) z, and check that the two interfaces agree."""
    g, q = circuit()
    f = g.forward({name: dtype(value) for name, value in values.items()})
    assert isinstance(f, fg.Tensor)
    assert is_of(dtype, f)
    grads = {name: value.item() for name, value in g.backward().items()}
    tensors = {name: leaf(value, dtype) for name, value in values.items()}
    result = (tensors["x"] + tensors["y"]) * tensors["z"]
    result.backward()
    assert result.item() == f.item()
    assert {name: grad_of(tensor) for name, tensor in tensors.items()} == grads
    assert isinstance(q.value, fg.Tensor)
    return q.value.item(), f.item(), grads


@DTYPES
def test_a1_sum_times_factor(dtype: Any) -> None:
    q, f, grads = run_circuit({"x": -2.0, "y": 5.0, "z": -4.0}, dtype)
    assert (q, f, grads) == (3, -12, {"x": -4, "y": -4, "z": 3})


@DTYPES
def test_a2_sum_times_factor_at_another_point(dtype: Any) -> None:
    d, f, grads = run_circuit({"x": 1.0, "y": -3.0, "z": 4.0}, dtype)
    assert (d, f, grads) == (-2, -8, {"x": 4, "y": 4, "z": -2})


@DTYPES
def test_a3_sigmoid_neuron_gate_by_gate(dtype: Any) -> None:
    g = fg.Graph()
    w0, x0, w1, x1, w2 = (g.input(name) for name in ("w0", "x0", "w1", "x1", "w2"))
    products = g.add("add", g.add("mul", w0, x0), g.add("mul", w1, x1))
    total = g.add("add", products, w2)
    negated = g.add("neg", total)
    exponential = g.add("exp", negated)
    shifted = g.add("add", exponential, 1.0)
    result = g.add("reciprocal", shifted)
    values = {"w0": 2.0, "x0": -1.0, "w1": -3.0, "x1": -2.0, "w2": -3.0}
    value = g.forward({name: dtype(v) for name, v in values.items()})
    assert round(value.item(), 4) == 0.7311
    grads = {name: found.item() for name, found in g.backward().items()}
    chain = [result, shifted, exponential, negated, total, products]
    assert [round(node.grad.item(), 2) for node in chain] == [1.00, -0.53, -0.53, -0.20, 0.20, 0.20]
    # The lectures show 2 * 0.2 = 0.39: 2 * 0.1966.
    rounded = {name: round(found, 2) for name, found in grads.items()}
    assert rounded == {"w0": -0.20, "x0": 0.39, "w1": -0.39, "x1": -0.59, "w2": 0.20}

    leaves = {name: leaf(v, dtype) for name, v in values.items()}
    s = (leaves["w0"] * leaves["x0"] + leaves["w1"] * leaves["x1"] + leaves["w2"]).sigmoid()
    s.backward()
    assert s.item() == pytest.approx(value.item(), rel=4 * unit(dtype))
    assert total.grad.item() == pytest.approx(s.item() * (1 - s.item()), rel=8 * unit(dtype))
    for name, found in grads.items():
        assert grad_of(leaves[name]) == pytest.approx(found, rel=8 * unit(dtype))


@DTYPES
def test_a4_two_routes_to_one_variable(dtype: Any) -> None:
    a, b = leaf(4.0, dtype), leaf(3.0, dtype)
    c = a + b
    d = a * c
    assert d.item() == 28
    assert [found.item() for found in grad(d, [a, b, c], retain_graph=True)] == [11, 4, 4]
    assert grad(c, a, retain_graph=True)[0].item() == 1

    # Backward hands a its gradient along two edges, the direct one first.
    at_a: list[float] = []
    at_b: list[float] = []
    g = fg.Graph()
    a_in, b_in = g.input("a"), g.input("b")
    total = g.add("add", g.add(Wire(at_a), a_in), g.add(Wire(at_b), b_in))
    g.output(g.add("mul", g.add(Wire(at_a), a_in), total))
    assert g.forward({"a": dtype(4.0), "b": dtype(3.0)}).item() == 28
    assert {name: found.item() for name, found in g.backward().items()} == {"a": 11, "b": 4}
    assert np.cumsum([0, *at_a]).tolist() == [0, 7, 11]
    assert np.cumsum([0, *at_b]).tolist() == [0, 4]


def test_a4_gradients_can_be_watched_while_backward_runs() -> None:
    seen: list[tuple[Any, Any]] = []

    def look() -> None:
        seen.append(tuple(0 if node.grad is None else node.grad.item() for node in (a, b)))

    class WatchedAdd(Add):
        def backward(self, dout: Any) -> Any:
            look()
            return super().backward(dout)

    class WatchedMultiply(Multiply):
        def backward(self, dout: Any) -> Any:
            look()
            return super().backward(dout)

    g = fg.Graph()
    a, b = g.input("a"), g.input("b")
    g.output(g.add(WatchedMultiply(), a, g.add(WatchedAdd(), a, b)))
    g.forward({"a": 4.0, "b": 3.0})
    g.backward()
    look()
    assert seen == [(0, 0), (7, 0), (11, 4)]


@DTYPES
def test_a5_gate_patterns(dtype: Any) -> None:
    upstream = dtype(2.0)
    x, y = leaf(3.0, dtype), leaf(-4.0, dtype)
    assert [found.item() for found in grad(x + y, [x, y], upstream)] == [2, 2]
    assert [found.item() for found in grad(x * y, [x, y], upstream)] == [-8, 6]
    assert [found.item() for found in grad(fg.maximum(x, y), [x, y], upstream)] == [2, 0]
    # The documented rule at a tie: half to each.
    assert "half to each at a tie" in (fg.maximum.__doc__ or "")
    tie = leaf(3.0, dtype)
    assert [found.item() for found in grad(fg.maximum(x, tie), [x, tie], upstream)] == [1, 1]
    # A branch: 5 along one way, y = -4 along the other.
    (found,) = grad(x * 5 + x * y, x)
    assert found.item() == 1


@DTYPES
def test_a6_explicit_graph(dtype: Any) -> None:
    for add, mul in (("add", "mul"), (Add(), Multiply())):
        g, q = circuit(add, mul)
        order = g.nodes_topologically_sorted()
        assert [node.name for node in order] in (["x", "y", "q", "z", "f"], ["x", "y", "z", "q", "f"])
        assert g.nodes_topologically_sorted_reverse() == order[::-1]
        assert g.forward({"x": dtype(-2.0), "y": dtype(5.0), "z": dtype(-4.0)}).item() == -12
        assert {name: found.item() for name, found in g.backward().items()} == {"x": -4, "y": -4, "z": 3}
        assert q.grad.item() == -4

    # f = max(x, y) * sigmoid(z): built in, written by a user, and as tensors
    x, y, z = (np.array(values, dtype) for values in ([1.0, -2.0, 3.0], [0.5, 4.0, 3.0], [-1.0, 0.0, 2.0]))
    results = []
    for larger, sigmoid, mul in (("max", "sigmoid", "mul"), (Larger(), Sigmoid(), Multiply())):
        g = fg.Graph()
        a, b, c = g.input("x"), g.input("y"), g.input("z")
        g.output(g.add(mul, g.add(larger, a, b), g.add(sigmoid, c)))
        value = g.forward({"x": x, "y": y, "z": z})
        grads = g.backward(np.ones(3, dtype))
        results.append([value, grads["x"], grads["y"], grads["z"]])
    leaves = [leaf(values, dtype) for values in (x, y, z)]
    f = fg.maximum(leaves[0], leaves[1]) * leaves[2].sigmoid()
    results.append([f, *grad(f, leaves, np.ones(3, dtype))])
    for built_in, user, tensor in zip(*results, strict=True):
        assert is_of(dtype, built_in, user, tensor)
        np.testing.assert_array_equal(built_in.numpy(), tensor.numpy())
        np.testing.assert_allclose(user.numpy(), tensor.numpy(), rtol=4 * unit(dtype))


def test_a6_the_docstring_says_why_a_gate_caches() -> None:
    assert "keeps (caches)" in (fg.Graph.add.__doc__ or "")


@DTYPES
def test_a7_several_consumers_and_several_outputs(dtype: Any) -> None:
    g = fg.Graph()
    x, y = g.input("x"), g.input("y")
    polar = g.add(Split(), x, y)
    doubled = g.add("mul", polar[0], 2.0)
    product = g.add("mul", polar[0], polar[1])
    g.output(g.add("add", doubled, product))
    # f = 2 r + r t
    g.forward({"x": dtype(3.0), "y": dtype(4.0)})
    grads = g.backward()
    angle = math.atan2(4, 3)
    d_r, d_angle = (found.item() for found in polar.grad)
    tolerance = 8 * unit(dtype)
    assert (d_r, d_angle) == pytest.approx((2 + angle, 5), rel=tolerance)
    assert grads["x"].item() == pytest.approx(d_r * 0.6 - d_angle * 4 / 25, rel=tolerance)
    assert grads["y"].item() == pytest.approx(d_r * 0.8 + d_angle * 3 / 25, rel=tolerance)

    # A tensor that three operations read, through a gate with two outputs.
    a, b = leaf(3.0, dtype), leaf(4.0, dtype)
    r, t = fg.gate(Split())(a, b)
    (r * 2 + r * t).backward()
    assert (grad_of(a), grad_of(b)) == pytest.approx((grads["x"].item(), grads["y"].item()), rel=tolerance)


def test_a8_a_loop_is_an_error_and_its_unrolling_is_legal() -> None:
    # h = tanh(w h + x)
    g = fg.Graph()
    x, w = g.input("x"), g.input("w")
    weighted = g.add("mul", w, None, name="weighted")
    total = g.add("add", weighted, x, name="total")
    state = g.add("tanh", total, name="state")
    g.connect(state, weighted, 1)
    for run in (g.nodes_topologically_sorted, lambda: g.forward({"x": 1.0, "w": 0.5})):
        with pytest.raises(fg.CycleError) as caught:
            run()
        message = str(caught.value)
        assert all(name in message for name in ("weighted", "total", "state"))
        assert '"x"' not in message
        assert '"w"' not in message

    steps = 5
    g = fg.Graph()
    w, h = g.input("w"), g.input("h0")
    for step in range(steps):
        h = g.add("tanh", g.add("add", g.add("mul", w, h), g.input(f"x{step}")), name=f"h{step + 1}")
    g.output(h)
    inputs = {f"x{step}": np.float64(0.3 * step) for step in range(steps)}
    value = g.forward({"w": np.float64(0.5), "h0": np.float64(0.1), **inputs})
    grads = g.backward()
    # dh/dw by the recursion dh' = (1 - h'^2) (h + w dh)
    hidden, slope = 0.1, 0.0
    for step in range(steps):
        after = math.tanh(0.5 * hidden + 0.3 * step)
        hidden, slope = after, (1 - after**2) * (hidden + 0.5 * slope)
    assert value.item() == pytest.approx(hidden, rel=1e-14)
    assert grads["w"].item() == pytest.approx(slope, rel=1e-13)


@DTYPES
@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 3), (2, 3, 4), (33, 65)], ids=str)
def test_a10_sigmoid_layer(dtype: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    bottom = leaf(rng.uniform(-8, 8, shape), dtype)
    top = rng.standard_normal(shape).astype(dtype)
    result = fg.nn.Sigmoid()(bottom)
    assert is_of(dtype, result)
    result.backward(top)
    s = result.numpy()
    tolerance = 4 * unit(dtype)
    np.testing.assert_allclose(s, 1 / (1 + np.exp(-bottom.numpy().astype(np.float64))), rtol=tolerance)
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), top * s * (1 - s), rtol=tolerance)


def test_a10_a_bottom_that_needs_no_gradient_costs_none() -> None:
    x, w = np.linspace(-2, 2, 5), leaf([1.0, 2.0, 3.0, 4.0, 5.0])
    for needs_grad in (True, False):
        layer = Sigmoid()
        bottom = fg.tensor(x, requires_grad=needs_grad)
        (fg.gate(layer)(bottom) * w).sum().backward()
        assert layer.backward_calls == int(needs_grad)
        assert (bottom.grad is not None) == needs_grad
        # The built-in op: without need nothing is recorded, so there is nothing to run backward.
        assert (bottom.sigmoid().op is not None) == needs_grad


class RandomlyWired(fg.nn.Module):
    """Linear + ReLU nodes on random acyclic edges; a node merges its sources by learned weights in (0, 1).

    After Xie et al., "Exploring Randomly Wired Neural Networks for Image Recognition", 2019.
    """

    def __init__(self, nodes: int, width: int, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.sources = [[i for i in range(j) if rng.random() < 0.15] for j in range(nodes)]
        consumed = {i for sources in self.sources for i in sources}
        self.ends = [i for i in range(nodes) if i not in consumed]
        self.stem = fg.nn.Linear(inputs, width)
        self.layers = fg.nn.ModuleList([fg.nn.Linear(width, width) for _ in range(nodes)])
        for layer in self.layers:
            fg.nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        for j, sources in enumerate(self.sources):
            if sources:
                self.register_parameter(f"merge{j}", fg.nn.Parameter(fg.zeros(len(sources))))
        self.head = fg.nn.Linear(width, outputs)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        stem = self.stem(x)
        values: list[fg.Tensor] = []
        for j, layer in enumerate(self.layers):
            merged = stem
            if self.sources[j]:
                weights = getattr(self, f"merge{j}").sigmoid()
                merged = sum(values[i] * weights[k] for k, i in enumerate(self.sources[j]))
            values.append(layer(merged).relu())
        return self.head(sum(values[i] for i in self.ends) / len(self.ends))


def test_a16_randomly_wired_network() -> None:
    fg.manual_seed(1)
    model = RandomlyWired(nodes=32, width=4, inputs=2, outputs=2, seed=3).double()
    assert sum(len(sources) for sources in model.sources) > 50
    assert any(len(sources) > 3 for sources in model.sources)
    X, y = fg.datasets.make_moons(n_samples=200, noise=0.1, seed=0)
    loss = fg.nn.CrossEntropyLoss()
    few, labels = fg.tensor(X[:4].astype(np.float64)), fg.tensor(y[:4])
    assert gradcheck(lambda *_: loss(model(few), labels), list(model.parameters()), rtol=1e-5, atol=1e-8)

    before = [parameter.numpy() for name, parameter in model.named_parameters() if "merge" in name]
    trainer = fg.Trainer(model, loss, fg.optim.Adam(model.parameters(), lr=0.01))
    history = trainer.fit(X, y, epochs=60, batch_size=32, seed=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    assert trainer.evaluate(X, y)["accuracy"] > 0.97
    after = [parameter.numpy() for name, parameter in model.named_parameters() if "merge" in name]
    assert any(np.abs(new - old).max() > 0.01 for new, old in zip(after, before, strict=True))


@DTYPES
def test_a18_chain_rule(dtype: Any) -> None:
    tolerance = 16 * unit(dtype)
    t = leaf(0.0, dtype)
    x, y = (t * 2).sin(), t.cos()
    (x**2 * y + x * y**4 * 3).backward()
    assert grad_of(t) == 6

    u, v = leaf(0.5, dtype), leaf(1.0, dtype)
    x, y = u * v**2, u**2 * v
    (x.exp() * y.sin()).backward()
    assert grad_of(u) == pytest.approx(2.0053666891982727, rel=tolerance)
    assert grad_of(v) == pytest.approx(0.807266799858338, rel=tolerance)

    x = leaf(1.0, dtype)
    f = (x**2).sin().exp()
    f.backward()
    assert f.item() == pytest.approx(2.319776824715853, rel=tolerance)
    assert grad_of(x) == pytest.approx(2.506761534986894, rel=tolerance)


@DTYPES
@pytest.mark.parametrize(
    ("function", "start", "value", "slope"),
    [
        (lambda x: x * x, 1.1, 21.1137767453526, 614.2189598648029),
        (lambda x: x * x, 0.9, 0.03433683820292518, 1.2208653583262283),
        (lambda x: x * 2 + 1, 1.1, 66.2, 32.0),
    ],
    ids=["square-1.1", "square-0.9", "affine"],
)
def test_a19_five_compositions(
    dtype: Any, function: Callable[[fg.Tensor], fg.Tensor], start: float, value: float, slope: float
) -> None:
    x = leaf(start, dtype)
    result = x
    for _ in range(5):
        result = function(result)
    result.backward()
    # Squaring five times multiplies the rounding error of the start by 32.
    tolerance = 64 * unit(dtype)
    assert result.item() == pytest.approx(value, rel=tolerance)
    assert grad_of(x) == pytest.approx(slope, rel=tolerance)


def test_a20_finite_differences_of_sigmoid() -> None:
    x = leaf(1.0)
    s = 1 / (1 + math.exp(-1))
    (analytic,) = grad(x.sigmoid(), x)
    assert analytic.item() == pytest.approx(s * (1 - s), rel=1e-15)

    errors: dict[str, dict[int, float]] = {"centred": {}, "forward": {}}
    for method, found in errors.items():
        for exponent in range(3, 11):
            report = numeric_gradient(fg.sigmoid, x, eps=10.0**-exponent, method=method)
            found[exponent] = abs(report.gradients[0].item() - s * (1 - s))
            assert report.step == 10.0**-exponent
    centred, forward = errors["centred"], errors["forward"]
    print("\nA20: step, error of centred and of forward differences of sigmoid at 1")
    for exponent in centred:
        print(f"A20: 1e-{exponent:02}  {centred[exponent]:.1e}  {forward[exponent]:.1e}")
    # Falls with h^2 down to about 1e-12 near h = 1e-5, then rises with rounding over h.
    assert centred[4] < centred[3] / 50
    assert min(centred, key=centred.__getitem__) in (5, 6)
    assert min(centred.values()) < 1e-11
    assert centred[10] > 1e3 * min(centred.values())
    # The forward quotient falls with h only, and is best near h = 1e-8.
    assert 5 < forward[3] / forward[4] < 20
    assert min(forward, key=forward.__getitem__) in (7, 8, 9)
    assert 1e-11 < min(forward.values()) < 3e-8

    values = leaf(np.linspace(-1, 1, 7))
    calls = 0

    def counted(values: fg.Tensor) -> fg.Tensor:
        nonlocal calls
        calls += 1
        return values.sigmoid().sum()

    report = numeric_gradient(counted, values, eps=1e-5)
    assert report.evaluations == calls == 2 * 7
    assert (report.method, report.step) == ("centred", 1e-5)
    assert str(report) == "centred differences: step 1e-05, 14 evaluations for 7 input elements"
    assert numeric_gradient(counted, values, method="forward").evaluations == 7 + 1

    class Wrong(Sigmoid):
        def backward(self, dout: Any) -> Any:
            return dout * self.s

    with pytest.raises(GradcheckError, match="step 1e-06, 2 evaluations per input element"):
        gradcheck(lambda x: fg.gate(Wrong())(x), x)
