"""What lectures show about neurons, layers, activations and losses, with their numbers: rows B and C."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.autograd import grad, gradcheck
from ferrograd.nn import functional

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
Array = np.ndarray[Any, np.dtype[Any]]


def leaf(values: object, dtype: Any = np.float64) -> fg.Tensor:
    return fg.tensor(np.array(values, dtype=dtype), requires_grad=True)


def unit(dtype: Any) -> float:
    """Return the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def assert_close(found: fg.Tensor | Array | None, expected: object, dtype: Any, units: float = 16) -> None:
    """Equal within some units of rounding of the largest element, and of this dtype."""
    assert found is not None
    found = found.numpy() if isinstance(found, fg.Tensor) else found
    expected = np.asarray(expected, np.float64)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=units * unit(dtype) * scale)


# B. Neurons, layers, activations


@DTYPES
def test_b1_one_neuron(dtype: Any) -> None:
    x, w, b = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.8, -1.2]), 0.7
    neuron = (leaf(x, dtype) * leaf(w, dtype)).sum() + leaf(b, dtype)
    s = neuron.sigmoid()
    assert s.shape == ()
    assert isinstance(s.item(), float)
    assert_close(s, sigmoid((x * w).sum() + b), dtype)
    assert_close((leaf(x, dtype).dot(leaf(w, dtype)) + b).sigmoid(), s.item(), dtype)


@DTYPES
def test_b3_xor_by_hand(dtype: Any) -> None:
    hidden, output = fg.nn.Linear(2, 2, dtype=dtype), fg.nn.Linear(2, 1, dtype=dtype)
    # OR and NAND, then AND of both
    with fg.no_grad():
        hidden.weight.copy_(np.array([[20.0, 20.0], [-20.0, -20.0]]))
        hidden.bias.copy_(np.array([-10.0, 30.0]))
        output.weight.copy_(np.array([[20.0, 20.0]]))
        output.bias.copy_(np.array([-30.0]))
    net = fg.nn.Sequential(hidden, fg.nn.Sigmoid(), output, fg.nn.Sigmoid())
    found = net(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype)).numpy()
    np.testing.assert_allclose(found[:, 0], [0, 1, 1, 0], rtol=0, atol=1e-4)


# name, function of a tensor, value, derivative (at a kink: the documented side)
ACTIVATIONS: list[tuple[str, Callable[[fg.Tensor], fg.Tensor], Callable[[Array], Array], Any]] = [
    ("sigmoid", fg.sigmoid, sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    ("tanh", fg.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    ("relu", fg.relu, lambda x: np.maximum(0, x), lambda x: np.where(x > 0, 1.0, 0.0)),
    (
        "leaky",
        lambda x: fg.leaky_relu(x, 0.1),
        lambda x: np.maximum(0.1 * x, x),
        lambda x: np.where(x > 0, 1.0, 0.1),
    ),
    (
        "leaky_default",
        fg.nn.LeakyReLU(),
        lambda x: np.maximum(0.01 * x, x),
        lambda x: np.where(x > 0, 1.0, 0.01),
    ),
    (
        "prelu",
        lambda x: fg.prelu(x, fg.tensor([0.25], dtype=x.dtype)),
        lambda x: np.maximum(0.25 * x, x),
        lambda x: np.where(x > 0, 1.0, 0.25),
    ),
    ("elu", fg.elu, lambda x: np.where(x > 0, x, np.expm1(x)), lambda x: np.where(x > 0, 1.0, np.exp(x))),
    (
        "elu_alpha",
        fg.nn.ELU(alpha=1.5),
        lambda x: np.where(x > 0, x, 1.5 * np.expm1(x)),
        lambda x: np.where(x > 0, 1.0, 1.5 * np.exp(x)),
    ),
]


@DTYPES
@pytest.mark.parametrize(
    ("function", "value", "slope"), [row[1:] for row in ACTIVATIONS], ids=[row[0] for row in ACTIVATIONS]
)
def test_b4_activations(
    dtype: Any, function: Callable[[fg.Tensor], fg.Tensor], value: Callable[[Array], Array], slope: Any
) -> None:
    tiny = float(np.finfo(dtype).tiny)
    points = np.concatenate([np.linspace(-10, 10, 401), [-tiny, 0.0, tiny, -1e-6, 1e-6]]).astype(dtype)
    x = leaf(points, dtype)
    result = function(x)
    result.backward(np.ones_like(points))
    exact = points.astype(np.float64)
    assert_close(result, value(exact), dtype, units=2)
    assert_close(x.grad, slope(exact), dtype, units=4)


@DTYPES
def test_b4_parametric_relu_learns_its_slope(dtype: Any) -> None:
    points = np.linspace(-10, 10, 81)
    for slope in (0.1, 0.25, 1.0):
        x, weight = leaf(points, dtype), leaf([slope], dtype)
        as_prelu = fg.prelu(x, weight)
        other = leaf([slope], dtype)
        as_maximum = fg.maximum(x * other, x)
        assert_close(as_prelu, as_maximum.numpy(), dtype, units=0)
        (found,) = grad(as_prelu.sum(), weight)
        assert_close(found, [points[points <= 0].sum()], dtype)
        if slope < 1:
            (found,) = grad(as_maximum.sum(), other)
            assert_close(found, [points[points <= 0].sum()], dtype)


@DTYPES
def test_b4_maxout(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.uniform(-10, 10, (50, 3)), rng.standard_normal((2, 3)), rng.standard_normal(2)
    layer = fg.nn.Maxout(3, 1)
    layer.linear.to(dtype)
    with fg.no_grad():
        layer.linear.weight.copy_(w)
        layer.linear.bias.copy_(b)
    inputs = leaf(x, dtype)
    result = layer(inputs)
    result.sum().backward()
    maps = x @ w.T + b
    assert_close(result[:, 0], maps.max(1), dtype)
    winner = maps.argmax(1)
    assert 0 < winner.sum() < 50
    assert_close(inputs.grad, w[winner], dtype)
    assert_close(layer.linear.bias.grad, [(winner == 0).sum(), (winner == 1).sum()], dtype)


@DTYPES
def test_b5_layers_without_activation_are_one_layer(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    w1, w2, x = (rng.standard_normal(shape).astype(dtype) / 8 for shape in ((50, 30), (20, 50), (30, 7)))
    deep = fg.tensor(w2) @ (fg.tensor(w1) @ fg.tensor(x))
    flat = (fg.tensor(w2) @ fg.tensor(w1)) @ fg.tensor(x)
    assert_close(deep, flat.numpy(), dtype, units=64)
    net = fg.nn.Sequential(
        fg.nn.Linear(30, 50, bias=False, dtype=dtype), fg.nn.Linear(50, 20, bias=False, dtype=dtype)
    )
    one = fg.nn.Linear(30, 20, bias=False, dtype=dtype)
    with fg.no_grad():
        one.weight.copy_(net[1].weight @ net[0].weight)
    assert_close(net(x.T), one(x.T).numpy(), dtype, units=64)


DEEP: list[list[Callable[[fg.Tensor], fg.Tensor]]] = [
    [fg.relu],
    [fg.tanh, fg.sigmoid],
    [fg.relu, fg.relu, fg.tanh],
    [fg.relu, fg.relu, fg.tanh, fg.sigmoid],
]


@pytest.mark.parametrize("has_bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("form", ["column", "row"])
@pytest.mark.parametrize("activations", DEEP, ids=[f"{len(row) + 1}-layers" for row in DEEP])
def test_b6_deep_nets(
    activations: Sequence[Callable[[fg.Tensor], fg.Tensor]], form: str, has_bias: bool
) -> None:
    rng = np.random.default_rng(len(activations))
    widths = [3, 5, 4, 6, 5, 2][: len(activations) + 2]
    weights = [leaf(rng.standard_normal((o, i))) for i, o in pairwise(widths)]
    biases = [leaf(rng.standard_normal(o)) for o in widths[1:]] if has_bias else []
    batch = rng.standard_normal((4, 3))

    def layer(values: fg.Tensor, number: int) -> fg.Tensor:
        w = weights[number]
        if form == "column":
            z = w @ values
            return z + biases[number].unsqueeze(1) if has_bias else z
        z = values @ w.T
        return z + biases[number] if has_bias else z

    def net(x: fg.Tensor) -> fg.Tensor:
        values = x.T if form == "column" else x
        for number, activation in enumerate(activations):
            values = activation(layer(values, number))
        values = layer(values, len(activations))
        return values.T if form == "column" else values

    x = leaf(batch)
    assert gradcheck(lambda *_: net(x), [x, *weights, *biases], atol=1e-7, rtol=1e-6)

    # The matrix form Z = A W + B of the batch, against the sum over inputs for each sample and unit.
    functions = {fg.relu: lambda z: max(z, 0.0), fg.tanh: np.tanh, fg.sigmoid: sigmoid}
    result = net(x).numpy()
    for sample, row in enumerate(batch):
        values = list(row)
        for number, w in enumerate(weights):
            offsets = biases[number].tolist() if has_bias else [0.0] * w.shape[0]
            values = [
                sum(w_ji * a_i for w_ji, a_i in zip(w_j, values, strict=True)) + b_j
                for w_j, b_j in zip(w.tolist(), offsets, strict=True)
            ]
            if number < len(activations):
                values = [functions[activations[number]](z) for z in values]
        np.testing.assert_allclose(result[sample], values, rtol=1e-13, atol=1e-13)


@DTYPES
def test_b7_forward_pass_3_4_4_1(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 1))
    w1, w2, w3 = (rng.standard_normal(shape) for shape in ((4, 3), (4, 4), (1, 4)))
    b1, b2, b3 = (rng.standard_normal((rows, 1)) for rows in (4, 4, 1))
    t = {name: leaf(value, dtype) for name, value in locals().items() if name[0] in "xwb"}
    h1 = (t["w1"] @ t["x"] + t["b1"]).sigmoid()
    h2 = (t["w2"] @ h1 + t["b2"]).sigmoid()
    out = t["w3"] @ h2 + t["b3"]
    assert out.shape == (1, 1)
    assert_close(out, w3 @ sigmoid(w2 @ sigmoid(w1 @ x + b1) + b2) + b3, dtype)


def slopes(net: fg.nn.Module, low: float, high: float, cells: int) -> Array:
    """Return the slope of a piecewise linear function of one variable at the middles of equal cells."""
    middles = low + (high - low) * (np.arange(cells) + 0.5) / cells
    x = leaf(middles[:, None])
    net(x).sum().backward()
    assert x.grad is not None
    return x.grad.numpy()[:, 0]


@pytest.mark.parametrize("k", [1, 5, 8])
def test_b8_depth_folds_space(k: int) -> None:
    # 1 - abs(2 x - 1) = 2 relu(x) - 4 relu(x - 1/2) for x in [0, 1]
    layers: list[fg.nn.Module] = []
    for _ in range(k):
        fold, join = fg.nn.Linear(1, 2, dtype=fg.float64), fg.nn.Linear(2, 1, dtype=fg.float64)
        with fg.no_grad():
            fold.weight.copy_(np.array([[1.0], [1.0]]))
            fold.bias.copy_(np.array([0.0, -0.5]))
            join.weight.copy_(np.array([[2.0, -4.0]]))
            join.bias.zero_()
        layers += [fold, fg.nn.ReLU(), join]
    found = slopes(fg.nn.Sequential(*layers), 0, 1, 4 * 2**k)
    # 2^k pieces of equal length, up and down in turn.
    signs = np.repeat(np.where(np.arange(2**k) % 2 == 0, 1.0, -1.0), 4)
    np.testing.assert_array_equal(found, signs * 2.0**k)
    assert 1 + np.count_nonzero(np.diff(found)) == {1: 2, 5: 32, 8: 256}[k]


def test_b8_one_layer_of_ten_relus_has_at_most_eleven_pieces() -> None:
    def pieces(net: fg.nn.Module) -> int:
        return 1 + int(np.count_nonzero(np.abs(np.diff(slopes(net, -50, 50, 20000))) > 1e-9))

    counts = []
    for seed in range(10):
        fg.manual_seed(seed)
        net = fg.nn.Sequential(fg.nn.Linear(1, 10), fg.nn.ReLU(), fg.nn.Linear(10, 1)).double()
        counts.append(pieces(net))
    # A unit's kink inside a cell is seen once: the slopes at the middles on both sides differ.
    assert max(counts) <= 11
    with fg.no_grad():
        net[0].weight.copy_(np.ones((10, 1)))
        net[0].bias.copy_(np.arange(10.0) - 4.5)
        net[2].weight.copy_(np.ones((1, 10)))
    assert pieces(net) == 11


# C. Losses and regularisation


@DTYPES
def test_c1_multiclass_svm(dtype: Any) -> None:
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], dtype)
    labels = np.array([0, 1, 2])
    each = fg.nn.MulticlassHingeLoss(reduction="none")(scores, labels)
    assert_close(each, [2.9, 0, 12.9], dtype)
    mean = fg.nn.MulticlassHingeLoss()(scores, labels)
    assert round(mean.item(), 4) == 5.2667
    # PyTorch's form divides by the number of classes.
    assert_close(fg.nn.MultiMarginLoss()(scores, labels), mean.item() / 3, dtype)
    assert "divided by the number of classes" in (fg.nn.MultiMarginLoss.__doc__ or "")
    assert "not divided by the number of classes" in (fg.nn.MulticlassHingeLoss.__doc__ or "")


@DTYPES
def test_c2_softmax_cross_entropy(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((6, 4)) * 3, rng.integers(0, 4, 6)
    s = leaf(scores, dtype)
    loss = fg.nn.CrossEntropyLoss()(s, labels)
    loss.backward()
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert_close(loss, -np.log(p[np.arange(6), labels]).mean(), dtype)
    assert_close(s.grad, (p - np.eye(4)[labels]) / 6, dtype)

    huge = leaf([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype)
    loss = fg.nn.CrossEntropyLoss(reduction="none")(huge, np.array([1, 2]))
    loss.sum().backward()
    assert_close(loss, [2e4, np.log(2)], dtype)
    assert_close(huge.grad, [[1, -1, 0], [0, 0.5, -0.5]], dtype)


@DTYPES
def test_c3_binary_cross_entropy(dtype: Any) -> None:
    y, p = np.array([1.0, 0.0]), np.array([0.9, 0.2])
    assert round(fg.nn.BCELoss()(p.astype(dtype), y.astype(dtype)).item(), 4) == 0.1643

    # Logistic regression as a graph: z = X w + b, s = sigmoid(z), -(y log s + (1 - y) log(1 - s))
    rng = np.random.default_rng(0)
    X, w, b = rng.standard_normal((8, 3)), rng.standard_normal(3), 0.3
    y = (rng.random(8) < 0.5).astype(np.float64)
    s = sigmoid(X @ w + b)
    g = fg.Graph()
    z = g.add("add", g.add("matmul", g.input("X"), g.input("w")), g.input("b"), name="z")
    h, target = g.add("sigmoid", z), g.input("y")
    right = g.add("mul", target, g.add("log", h))
    wrong = g.add("mul", g.add("sub", 1.0, target), g.add("log", g.add("sub", 1.0, h)))
    g.output(g.add("neg", g.add("sum", g.add("add", right, wrong))))
    values = {"X": X, "w": w, "b": np.float64(b), "y": y}
    value = g.forward({name: dtype(v) if np.ndim(v) == 0 else v.astype(dtype) for name, v in values.items()})
    grads = g.backward()
    expected = -(y * np.log(s) + (1 - y) * np.log(1 - s))
    assert_close(value, expected.sum(), dtype)
    assert_close(z.grad, s - y, dtype, units=32)
    assert_close(grads["w"], X.T @ (s - y), dtype, units=32)

    logits = leaf(X @ w + b, dtype)
    loss = fg.nn.BCEWithLogitsLoss(reduction="sum")(logits, y.astype(dtype))
    loss.backward()
    assert_close(loss, expected.sum(), dtype)
    assert_close(logits.grad, s - y, dtype)
    each = fg.nn.BCELoss(reduction="none")(logits.detach().sigmoid(), y.astype(dtype))
    assert_close(each, expected, dtype, units=32)


@DTYPES
def test_c4_forms_of_the_squared_error(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    h, y = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    squares = (h - y) ** 2
    forms: list[tuple[fg.nn.Loss, float, Array]] = [
        (fg.nn.MSELoss(reduction="sum"), squares.sum(), 2 * (h - y)),
        (fg.nn.MSELoss(), squares.mean(), 2 * (h - y) / 15),
        (fg.nn.HalfSquaredErrorLoss(), 0.5 * squares.sum(1).mean(), (h - y) / 5),
        (fg.nn.HalfSquaredErrorLoss(reduction="sum"), 0.5 * squares.sum(), h - y),
    ]
    for loss, value, slope in forms:
        x = leaf(h, dtype)
        result = loss(x, y.astype(dtype))
        result.backward()
        assert_close(result, value, dtype)
        assert_close(x.grad, slope, dtype)
    each = functional.half_squared_error(h.astype(dtype), y.astype(dtype), reduction="none")
    assert_close(each, 0.5 * squares.sum(1), dtype)
    with pytest.raises(fg.ShapeError, match=r"\(5, 3\) and \(5, 1\)"):
        functional.half_squared_error(h, y[:, :1])


@DTYPES
def test_c5_forms_of_l2_regularisation(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 3)).astype(dtype), rng.standard_normal((6, 2)).astype(dtype)
    strength, rate = 0.3, 0.1

    def start() -> fg.nn.Linear:
        fg.manual_seed(0)
        return fg.nn.Linear(3, 2, dtype=dtype)

    model = start()
    w, b = model.weight.numpy(), model.bias.numpy()
    w64 = w.astype(np.float64)
    # lambda sum W^2, gradient 2 lambda W; lambda/2 sum W^2, gradient lambda W; biases only if asked for.
    for half, factor in ((False, strength), (True, strength / 2)):
        model = start()
        penalty = functional.l2_penalty(model.parameters(), strength, half=half)
        penalty.backward()
        assert_close(penalty, factor * (w64**2).sum(), dtype)
        assert_close(model.weight.grad, 2 * factor * w64, dtype)
        assert model.bias.grad is None
        penalty = functional.l2_penalty(model.parameters(), strength, half=half, biases=True)
        assert_close(penalty, factor * ((w64**2).sum() + (b.astype(np.float64) ** 2).sum()), dtype)
    with pytest.raises(fg.ConfigError, match="none of the 1 parameters"):
        functional.l2_penalty([model.bias], strength)
    with pytest.raises(fg.ConfigError, match="at least 0"):
        functional.l2_penalty(model.parameters(), -1.0)

    # W -= alpha (dW / m + lambda W): decay in the update, and the same as lambda/2 sum W^2 in the loss.
    error = X.astype(np.float64) @ w64.T + b - y
    d_w, d_b = error.T @ X / 6, error.sum(0) / 6
    expected = w64 - rate * (d_w + strength * w64), b - rate * d_b

    def by_decay() -> fg.nn.Linear:
        model = start()
        groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
        optimizer = fg.optim.SGD(groups, lr=rate, weight_decay=strength)
        fg.nn.HalfSquaredErrorLoss()(model(X), y).backward()
        optimizer.step()
        return model

    def by_penalty() -> fg.nn.Linear:
        model = start()
        loss = fg.nn.HalfSquaredErrorLoss()(model(X), y)
        (loss + functional.l2_penalty(model.parameters(), strength, half=True)).backward()
        fg.optim.SGD(model.parameters(), lr=rate).step()
        return model

    def by_trainer() -> fg.nn.Linear:
        model = start()
        optimizer = fg.optim.SGD(model.parameters(), lr=rate)
        fg.Trainer(model, fg.nn.HalfSquaredErrorLoss(), optimizer, l2=strength).train_step(X, y)
        return model

    for update in (by_decay, by_penalty, by_trainer):
        model = update()
        assert_close(model.weight, expected[0], dtype)
        assert_close(model.bias, expected[1], dtype)


@DTYPES
def test_c6_linear_svm_step_by_step(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    X, W, y = rng.standard_normal((10, 4)), rng.standard_normal((4, 3)), rng.integers(0, 3, 10)
    strength = 0.1
    rows = np.arange(10)
    scores = X @ W
    margins = np.maximum(0, scores - scores[rows, y][:, None] + 1)
    margins[rows, y] = 0
    data_loss = margins.sum() / 10
    regulariser = strength * (W**2).sum()
    d_scores = (margins > 0).astype(np.float64)
    d_scores[rows, y] = -d_scores.sum(1)
    d_scores /= 10
    d_w = X.T @ d_scores + 2 * strength * W

    w = leaf(W, dtype)
    s = fg.tensor(X.astype(dtype)) @ w
    s.retain_grad()
    loss = fg.nn.MulticlassHingeLoss()(s, y) + functional.l2_penalty(w, strength)
    loss.backward()
    assert_close(loss, data_loss + regulariser, dtype)
    assert_close(s.grad, d_scores, dtype)
    assert_close(w.grad, d_w, dtype)

    # The same from elementary operations.
    w = leaf(W, dtype)
    s = fg.tensor(X.astype(dtype)) @ w
    each = (s - s[rows, y].unsqueeze(1) + 1).relu() * fg.tensor((np.eye(3)[y] == 0).astype(dtype))
    (each.sum() / 10 + (w**2).sum() * strength).backward()
    assert_close(w.grad, d_w, dtype)


def test_c7_planted_circle() -> None:
    # The slope of z is fixed, so the circle must be large beside the width of the sigmoid: radius 3.
    # Points on a grid, so that the optimum is the planted circle without a sampling error.
    centre, radius = np.array([1.0, -0.5]), 3.0
    X = np.stack(np.meshgrid(*[np.linspace(-6, 6, 40)] * 2), axis=-1).reshape(-1, 2)
    y = (((X - centre) ** 2).sum(1) > radius**2).astype(np.float64)
    bce = fg.nn.BCEWithLogitsLoss()

    def logits(points: Any, w: fg.Tensor) -> fg.Tensor:
        x = fg.tensor(points)
        # z = (x1 - w1)^2 + (x2 - w2)^2 - w0^2
        return (x[..., 0] - w[1]).square() + (x[..., 1] - w[2]).square() - w[0].square()

    w = leaf([1.0, 0.0, 0.0])
    for point, target in zip(X[::32], y[::32], strict=True):
        bce(logits(point, w), np.float64(target)).backward()
    (batch,) = grad(bce(logits(X[::32], w), y[::32]), w)
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy() / 50, batch.numpy(), rtol=1e-12)

    for _ in range(999):
        (slope,) = grad(bce(logits(X, w), y), w)
        with fg.no_grad():
            w -= 0.1 * slope
    found = w.numpy()
    assert abs(abs(found[0]) - radius) < 0.05
    assert np.abs(found[1:] - centre).max() < 0.05


@DTYPES
def test_c8_two_layer_svm_net(dtype: Any) -> None:
    w1, w2 = leaf([[1, -1], [0.5, 2]], dtype), leaf([[1, 0], [0, 1], [-1, 1]], dtype)
    X, y = np.array([[1, 2], [3, -1]], dtype), np.array([0, 2])
    scores = (w2 @ (w1 @ X.T).relu()).T
    each = functional.multiclass_hinge_loss(scores, y, reduction="none")
    assert each.tolist() == [11, 14]
    loss = each.mean() + functional.l2_penalty([w1, w2], 0.1)
    loss.backward()
    assert_close(loss, 13.525, dtype)
    assert_close(w1.grad, [[4.7, -1.7], [1.1, 2.4]], dtype)
    assert_close(w2.grad, [[2.2, -4.5], [2, 2.45], [-4.2, 2.45]], dtype)
