"""What lectures show about training, with their numbers: rows D."""

from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.autograd import grad
from ferrograd.nn import functional

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
Array = np.ndarray[Any, np.dtype[Any]]


def leaf(values: object, dtype: Any = np.float64) -> fg.Tensor:
    return fg.tensor(np.array(values, dtype=dtype), requires_grad=True)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def dense(weight: Array, bias: Array | None = None) -> fg.nn.Linear:
    """Return the layer `x @ weight + bias`, weight (inputs, outputs) as the lectures write it."""
    layer = fg.nn.Linear(*weight.shape, bias=bias is not None, dtype=weight.dtype)
    with fg.no_grad():
        layer.weight.copy_(weight.T)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def half_sum(scores: fg.Tensor, target: fg.Tensor) -> fg.Tensor:
    """1/2 sum (h - y)^2."""
    return functional.half_squared_error(scores, target, reduction="sum")


def test_d1_four_samples_sixty_thousand_passes() -> None:
    X = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], np.float64)
    y = np.array([[0], [1], [1], [0]], np.float64)
    state = np.random.RandomState(1)
    w0, w1 = 2 * state.rand(3, 4) - 1, 2 * state.rand(4, 1) - 1
    model = fg.nn.Sequential(dense(w0), fg.nn.Sigmoid(), dense(w1), fg.nn.Sigmoid())
    trainer = fg.Trainer(model, half_sum, fg.optim.SGD(model.parameters(), lr=1.0))

    def outputs() -> Array:
        return trainer.predict(X)[:, 0]

    def update(times: int) -> None:
        # The table again and again in batches of four: each batch is a full pass.
        trainer.fit(np.tile(X, (times, 1)), np.tile(y, (times, 1)), epochs=1, batch_size=4, shuffle=False)

    expected = {
        1: [0.47372957, 0.48895696, 0.54384086, 0.54470837],
        1000: [0.03508131, 0.95463069, 0.96195439, 0.05360758],
        60000: [0.00260572, 0.99672209, 0.99701711, 0.00386759],
    }
    passes = 1
    for number, values in expected.items():
        if number > passes:
            update(number - passes)
            passes = number
        np.testing.assert_allclose(outputs(), values, rtol=0, atol=6e-9)


def two_layer_data() -> list[Array]:
    """x, y, w1, w2 of the two-layer programs."""
    state = np.random.RandomState(0)
    return [state.randn(*shape) for shape in ((64, 1000), (64, 10), (1000, 100), (100, 10))]


def test_d2_two_layers_with_sigmoid() -> None:
    x, y, w1, w2 = two_layer_data()
    expected = {
        0: (24635.893498628233, 1e-12),
        1: (17744.75214146344, 1e-12),
        10: (8926.01022369324, 1e-10),
        100: (2383.1555754621945, 1e-8),
        1999: (4.348502931436994, 1e-6),
    }
    model = fg.nn.Sequential(dense(w1), fg.nn.Sigmoid(), dense(w2))
    optimizer = fg.optim.SGD(model.parameters(), lr=1e-4)
    trainer = fg.Trainer(model, fg.nn.MSELoss(reduction="sum"), optimizer)
    losses = trainer.fit(x, y, epochs=2000, batch_size=64, shuffle=False).history["loss"]
    for step, (loss, tolerance) in expected.items():
        assert losses[step] == pytest.approx(loss, rel=tolerance), step

    # The same listing in tensors, for its first steps.
    inputs, targets = fg.tensor(x), fg.tensor(y)
    a, b = leaf(w1), leaf(w2)
    for step in range(11):
        loss = ((inputs @ a).sigmoid() @ b - targets).square().sum()
        if step in expected:
            assert loss.item() == pytest.approx(expected[step][0], rel=expected[step][1]), step
        for weight, slope in zip((a, b), grad(loss, [a, b]), strict=True):
            with fg.no_grad():
                weight -= 1e-4 * slope


def test_d3_two_layers_with_relu() -> None:
    x, y, w1, w2 = (fg.tensor(values) for values in two_layer_data())
    w1.requires_grad_()
    w2.requires_grad_()
    losses = []
    for _ in range(500):
        y_pred = x.mm(w1).clamp(min=0).mm(w2)
        loss = (y_pred - y).pow(2).sum()
        losses.append(loss.item())
        loss.backward()
        with fg.no_grad():
            for weight in (w1, w2):
                assert weight.grad is not None
                weight -= 1e-6 * weight.grad
                weight.grad.zero_()
    expected = {
        0: 26365524.193454307,
        10: 1401510.3554378166,
        100: 834.5962716369365,
        499: 6.947019049377543e-05,
    }
    for step, loss in expected.items():
        assert losses[step] == pytest.approx(loss, rel=1e-6), step


PROGRAM = """
import ferrograd as torch

device = torch.device("cpu")
learning_rate = 1e-6
x = torch.randn(64, 1000, device=device, dtype=torch.float)
y = torch.randn(64, 10, device=device, dtype=torch.float)
w1 = torch.randn(1000, 100, device=device, dtype=torch.float, requires_grad=True)
w2 = torch.randn(100, 10, device=device, dtype=torch.float, requires_grad=True)
for t in range(500):
    y_pred = x.mm(w1).clamp(min=0).mm(w2)
    loss = (y_pred - y).pow(2).sum()
    losses.append(loss.item())
    loss.backward()
    with torch.no_grad():
        w1 -= learning_rate * w1.grad
        w2 -= learning_rate * w2.grad
        w1.grad.zero_()
        w2.grad.zero_()
"""


def test_d4_a_pytorch_program_with_another_import() -> None:
    losses: list[float] = []
    exec(compile(PROGRAM, "lecture.py", "exec"), {"losses": losses})
    assert len(losses) == 500
    assert all(type(loss) is float for loss in losses)
    assert losses[0] >= 1e4 * losses[-1]


def test_d5_staged_softmax_network() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((7, 5)), rng.integers(0, 3, 7)
    W1, b1 = rng.standard_normal((5, 6)), rng.standard_normal(6)
    W2, b2 = rng.standard_normal((6, 3)), rng.standard_normal(3)
    onehot = np.eye(3)[y]

    h1 = np.maximum(0, X @ W1 + b1)
    scores = h1 @ W2 + b2
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(7), y]).mean()
    dscores = (p - onehot) / 7
    dh1 = dscores @ W2.T
    dW2, db2 = h1.T @ dscores, dscores.sum(0)
    dz1 = dh1 * (h1 > 0)
    dW1, db1 = X.T @ dz1, dz1.sum(0)

    g = fg.Graph()
    inputs = {name: g.input(name) for name in ("X", "W1", "b1", "W2", "b2", "onehot")}
    hidden = g.add("add", g.add("matmul", inputs["X"], inputs["W1"]), inputs["b1"])
    relu = g.add("relu", hidden, name="h1")
    logits = g.add("add", g.add("matmul", relu, inputs["W2"]), inputs["b2"], name="scores")
    right = g.add("sum", g.add("mul", g.add("log_softmax", logits), inputs["onehot"]))
    g.output(g.add("mul", right, -1 / 7, name="loss"))
    g.forward({"X": X, "W1": W1, "b1": b1, "W2": W2, "b2": b2, "onehot": onehot})
    g.backward()
    nodes = {node.name: node for node in g.nodes_topologically_sorted()}
    values = {"h1": h1, "scores": scores, "loss": loss}
    slopes = {"scores": dscores, "h1": dh1, "W2": dW2, "b2": db2, "W1": dW1, "b1": db1}
    for name, value in values.items():
        np.testing.assert_allclose(nodes[name].value.numpy(), value, rtol=1e-12, atol=1e-14)
    for name, slope in slopes.items():
        np.testing.assert_allclose(nodes[name].grad.numpy(), slope, rtol=1e-12, atol=1e-14)

    # As tensors, the stages kept by retain_grad.
    leaves = {name: leaf(value) for name, value in {"W1": W1, "b1": b1, "W2": W2, "b2": b2}.items()}
    stages = {"h1": (fg.tensor(X) @ leaves["W1"] + leaves["b1"]).relu()}
    stages["scores"] = stages["h1"] @ leaves["W2"] + leaves["b2"]
    for stage in stages.values():
        stage.retain_grad()
    functional.cross_entropy(stages["scores"], y).backward()
    for name, tensor in {**leaves, **stages}.items():
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), slopes[name], rtol=1e-12, atol=1e-14)


@DTYPES
def test_d6_rates_on_a_parabola(dtype: Any) -> None:
    def descend(rate: float) -> list[float]:
        theta = leaf([1.0], dtype)
        optimizer = fg.optim.SGD([theta], lr=rate)
        path = []
        for _ in range(100):
            optimizer.zero_grad()
            theta.square().sum().backward()
            optimizer.step()
            path.append(theta.item())
        return path

    # A hundred factors, each rounded: 100 units.
    tolerance = 200 * float(np.finfo(dtype).eps)
    assert descend(0.01)[-1] == pytest.approx(0.13261955589475316, rel=tolerance)
    assert descend(0.1)[-1] == pytest.approx(2.037e-10, rel=1e-4)
    assert descend(1.0) == [-1.0, 1.0] * 50
    assert abs(descend(1.1)[-1]) == pytest.approx(8.28e7, rel=1e-3)

    theta = fg.nn.Parameter(leaf([1.0], dtype))
    trainer = fg.Trainer(lambda x: x * theta, lambda h, _: h.square().sum(), fg.optim.SGD([theta], lr=1.1))
    row = np.ones((1, 1), dtype)
    with pytest.warns(fg.ConvergenceWarning, match="the loss became inf in epoch .* smaller learning rate"):
        history = trainer.fit(row, row, epochs=10_000)
    assert np.isfinite(history.history["loss"]).all()
    assert len(history.history["loss"]) < 10_000
    # The weights of the best finite epoch, the first.
    assert abs(theta.item()) == pytest.approx(1.2, rel=1e-6)


@DTYPES
def test_d7_vanilla_gradient_descent(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    data, step_size = rng.standard_normal((50, 7)).astype(dtype), 0.013
    start = rng.standard_normal(6).astype(dtype)

    def loss_fun(data: Array, weights: fg.Tensor) -> fg.Tensor:
        return (fg.tensor(data[:, :6]) @ weights - data[:, 6]).square().mean()

    def evaluate_gradient(loss_fun: Any, data: Array, weights: fg.Tensor) -> fg.Tensor:
        (found,) = grad(loss_fun(data, weights), weights)
        assert found is not None
        return found

    other = leaf(start, dtype)
    optimizer = fg.optim.SGD([other], lr=step_size)
    weights = leaf(start, dtype)
    steps = 0
    with fg.no_grad():
        while True:
            with fg.enable_grad():
                weights_grad = evaluate_gradient(loss_fun, data, weights)
            weights += -step_size * weights_grad

            optimizer.zero_grad()
            with fg.enable_grad():
                loss_fun(data, other).backward()
            optimizer.step()
            assert weights.numpy().tobytes() == other.numpy().tobytes()
            steps += 1
            if steps == 200:
                break
    assert not np.array_equal(weights.numpy(), start)


def test_d8_backprop_pseudo_code() -> None:
    # z = W a + b, a' = sigmoid(z), J = 1/m sum 1/2 norm(h - y)^2 + lambda/2 sum W^2, step alpha
    rng = np.random.default_rng(0)
    widths, m, decay, alpha = [3, 4, 5, 2], 6, 0.1, 0.5
    W = [rng.standard_normal(shape) for shape in zip(widths[1:], widths[:-1], strict=True)]
    b = [rng.standard_normal(rows) for rows in widths[1:]]
    X, Y = rng.standard_normal((m, 3)), rng.random((m, 2))

    # Scalar form: sums over units, sample by sample.
    d_W, d_b = [np.zeros_like(w) for w in W], [np.zeros_like(v) for v in b]
    for x, y in zip(X, Y, strict=True):
        a = [x.tolist()]
        for w, v in zip(W, b, strict=True):
            rows = range(len(v))
            a.append([sigmoid(sum(w[i, j] * a[-1][j] for j in range(len(a[-1]))) + v[i]) for i in rows])
        delta = [-(t - h) * h * (1 - h) for t, h in zip(y, a[-1], strict=True)]
        for layer in (2, 1, 0):
            for i, d in enumerate(delta):
                d_b[layer][i] += d / m
                for j, value in enumerate(a[layer]):
                    d_W[layer][i, j] += d * value / m
            # W of this layer carries the delta down to the layer below.
            back = [sum(W[layer][i, j] * d for i, d in enumerate(delta)) for j in range(len(a[layer]))]
            delta = [s * value * (1 - value) for s, value in zip(back, a[layer], strict=True)]

    # Matrix form: one column a sample.
    columns = [X.T]
    for w, v in zip(W, b, strict=True):
        columns.append(sigmoid(w @ columns[-1] + v[:, None]))
    deltas = -(Y.T - columns[-1]) * columns[-1] * (1 - columns[-1])
    for layer in (2, 1, 0):
        np.testing.assert_allclose(deltas @ columns[layer].T / m, d_W[layer], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(deltas.sum(1) / m, d_b[layer], rtol=1e-12, atol=1e-15)
        deltas = W[layer].T @ deltas * columns[layer] * (1 - columns[layer])

    layers = [dense(w.T, v) for w, v in zip(W, b, strict=True)]
    model = fg.nn.Sequential(*[module for layer in layers for module in (layer, fg.nn.Sigmoid())])
    fg.nn.HalfSquaredErrorLoss()(model(X), Y).backward()
    for layer, w, v in zip(layers, d_W, d_b, strict=True):
        np.testing.assert_allclose(layer.weight.grad.numpy(), w, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(layer.bias.grad.numpy(), v, rtol=1e-12, atol=1e-15)

    optimizer = fg.optim.SGD(model.parameters(), lr=alpha)
    fg.Trainer(model, fg.nn.HalfSquaredErrorLoss(), optimizer, l2=decay).train_step(X, Y)
    for number, layer in enumerate(layers):
        stepped = W[number] - alpha * (d_W[number] + decay * W[number])
        np.testing.assert_allclose(layer.weight.numpy(), stepped, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(layer.bias.numpy(), b[number] - alpha * d_b[number], rtol=1e-12)


@DTYPES
@pytest.mark.parametrize(
    ("start", "end", "value"),
    [(-2.0, -1.300839565941578, -3.513905038934789), (2.0, 1.130901122629987, -1.0702301817761544)],
)
def test_d10_local_minima(dtype: Any, start: float, end: float, value: float) -> None:
    def f(w: fg.Tensor) -> fg.Tensor:
        return w**4 - 3 * w**2 + w

    w = leaf(start, dtype)
    for _ in range(1000):
        (slope,) = grad(f(w), w)
        with fg.no_grad():
            w -= 0.01 * slope
    tolerance = 8 * float(np.finfo(dtype).eps)
    assert w.item() == pytest.approx(end, rel=tolerance)
    assert f(w).item() == pytest.approx(value, rel=tolerance)


@DTYPES
def test_d11_ten_sigmoids_in_a_row(dtype: Any) -> None:
    x = leaf(0.5, dtype)
    value = x
    for _ in range(10):
        value = value.sigmoid()
    value.backward()
    tolerance = 40 * float(np.finfo(dtype).eps)
    assert value.item() == pytest.approx(0.6590460145745493, rel=tolerance)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(3.4831156097851636e-07, rel=tolerance)
    assert x.grad.item() < 0.25**10


def deep_net(depth: int, width: int) -> fg.nn.Sequential:
    """`depth` sigmoid layers between a linear layer in and one out."""
    layers: list[fg.nn.Module] = [fg.nn.Linear(2, width)]
    for _ in range(depth - 1):
        layers += [fg.nn.Sigmoid(), fg.nn.Linear(width, width)]
    return fg.nn.Sequential(*layers, fg.nn.Sigmoid(), fg.nn.Linear(width, 2))


def test_d11_two_hundred_layers_train_in_a_plan() -> None:
    X, y = fg.datasets.make_moons(n_samples=200, noise=0.1, seed=0)
    X = (X - X.mean(0)) / X.std(0)
    fg.manual_seed(0)
    model = deep_net(200, 4).double()
    loss = fg.nn.CrossEntropyLoss()

    def first_gradient() -> float:
        model.zero_grad()
        loss(model(X.astype(np.float64)), y).backward()
        return float(np.abs(model[0].weight.grad.numpy()).max())

    # As initialised, each layer multiplies the gradient by at most 1/4: nothing reaches the first.
    assert first_gradient() < 0.25**200

    # Layers sigmoid(4 (x - 1/2)) have slope 1 at their fixed point 1/2: the gradient survives.
    with fg.no_grad():
        for layer in model[2:-1:2]:
            layer.weight.copy_(4 * np.eye(4))
            layer.bias.fill_(-2.0)
    assert first_gradient() > 1e-6
    # A step moves 200 layers at once: the rate is small.
    trainer = fg.Trainer(model, loss, fg.optim.Adam(model.parameters(), lr=3e-4))
    history = trainer.fit(X, y, epochs=200, batch_size=50, seed=0).history
    # A net at chance stays at log 2.
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert trainer.evaluate(X, y)["accuracy"] > 0.85


def test_d13_universal_approximation_trained() -> None:
    fg.manual_seed(0)
    x = np.linspace(0, 1, 200)[:, None]
    y = np.sin(2 * np.pi * x)
    model = fg.nn.Sequential(fg.nn.Linear(1, 20), fg.nn.Tanh(), fg.nn.Linear(20, 1)).double()
    optimizer = fg.optim.Adam(model.parameters(), lr=0.01)
    trainer = fg.Trainer(model, fg.nn.MSELoss(), optimizer)
    trainer.fit(x, y, epochs=2000, batch_size=50, seed=0)
    optimizer.param_groups[0]["lr"] = 0.001
    trainer.fit(x, y, epochs=500, batch_size=200, seed=0)
    points = np.linspace(0, 1, 1001)[:, None]
    assert np.abs(trainer.predict(points) - np.sin(2 * np.pi * points)).max() < 0.02


@pytest.mark.parametrize(("n", "error"), [(50, 0.0153), (100, 0.0076), (400, 0.0019)])
def test_d13_universal_approximation_constructed(n: int, error: float) -> None:
    k = np.arange(1, n + 1)
    f = np.sin(2 * np.pi * np.arange(n + 1) / n)
    steps = dense(np.full((1, n), 4.0 * n), -4.0 * (k - 0.5))
    model = fg.nn.Sequential(steps, fg.nn.Sigmoid(), dense(np.diff(f)[:, None]))
    x = np.linspace(0, 1, 20001)[:, None]
    found = np.abs(model(x).numpy() - np.sin(2 * np.pi * x)).max()
    assert round(float(found), 4) == error


def test_d14_feature_transformation() -> None:
    X = np.random.RandomState(0).uniform(-1, 1, (400, 2))
    squares = (X**2).sum(1, keepdims=True)
    y = (squares[:, 0] < 0.5).astype(np.int64)
    assert round(float(y.mean()), 2) == 0.37
    majority = 1 - y.mean()

    def accuracy(features: Array) -> float:
        fg.manual_seed(0)
        model = fg.nn.Linear(features.shape[1], 2, dtype=fg.float64)
        optimizer = fg.optim.Adam(model.parameters(), lr=0.05)
        trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), optimizer)
        trainer.fit(features, y, epochs=1000, batch_size=400, seed=0)
        return trainer.evaluate(features, y)["accuracy"]

    assert accuracy(X) == pytest.approx(majority, abs=0.01)
    assert round(accuracy(np.hstack([X, squares])), 2) == 1.00


def line() -> tuple[Array, Array]:
    """x = 0..9, y = (x >= 5)."""
    x = np.arange(10.0)[:, None]
    return x, (x >= 5).astype(np.float64)


def trained(loss: Any, lr: float, l2: float, epochs: int) -> tuple[float, float, fg.Trainer]:
    """Return slope and intercept of a layer fitted to the line's points."""
    x, y = line()
    model = dense(np.zeros((1, 1)), np.zeros(1))
    optimizer = fg.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    trainer = fg.Trainer(model, loss, optimizer, l2=l2)
    trainer.fit(x, y, epochs=epochs, batch_size=10, shuffle=False)
    return model.weight.item(), model.bias.item(), trainer


def test_d15_linear_regression_as_a_network() -> None:
    x, y = line()
    slope, intercept, trainer = trained(fg.nn.MSELoss(), lr=0.01, l2=0.0, epochs=4000)
    closed = np.linalg.lstsq(np.hstack([x, np.ones_like(x)]), y, rcond=None)[0][:, 0]
    assert (slope, intercept) == pytest.approx(tuple(closed), rel=1e-10)
    assert (round(slope, 7), round(intercept, 7)) == (0.1515152, -0.1818182)
    outside = trainer.predict([[12.0], [-5.0]])[:, 0]
    assert outside.round(3).tolist() == [1.636, -0.939]


def test_d15_logistic_regression_as_a_network() -> None:
    x, y = line()
    # scikit-learn's C = 1 is sum of losses + W^2 / 2: per sample l2 = 1/10.
    slope, intercept, trainer = trained(fg.nn.BCEWithLogitsLoss(), lr=0.1, l2=0.1, epochs=4000)
    # At the optimum the gradient sum (p - y) x + W is 0, and sum (p - y) too.
    p = sigmoid(slope * x + intercept)
    assert abs(((p - y) * x).sum() + slope) < 1e-9
    assert abs((p - y).sum()) < 1e-9
    probabilities = sigmoid(trainer.predict(np.linspace(-5, 14, 100)[:, None]))
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert ((trainer.predict(x) > 0) == (y == 1)).all()


def test_d15_regressions_equal_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = line()
    slope, intercept, _ = trained(fg.nn.MSELoss(), lr=0.01, l2=0.0, epochs=4000)
    linear = linear_model.LinearRegression().fit(x, y[:, 0])
    assert (slope, intercept) == pytest.approx((linear.coef_[0], linear.intercept_), rel=1e-9)
    slope, intercept, _ = trained(fg.nn.BCEWithLogitsLoss(), lr=0.1, l2=0.1, epochs=4000)
    logistic = linear_model.LogisticRegression(C=1.0, tol=1e-10).fit(x, y[:, 0])
    assert (slope, intercept) == pytest.approx((logistic.coef_[0, 0], logistic.intercept_[0]), rel=1e-5)
