"""ferrograd beside numpy, operation by operation, and what Python costs around them.

pytest benches --benchmark-group-by=group

Both sides of a pair are checked equal before they are timed, each on one thread. Runs are short: this shows a
regression, claims are made with `ferrograd bench`.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.bench.peers.numpy_loop import NumpyLoop
from ferrograd.bench.peers.trainer import Trainer
from ferrograd.bench.problem import Problem, mean_loss
from ferrograd.nn import functional

pytest.importorskip("pytest_benchmark")

LIBRARIES = ("ferrograd", "numpy")
RNG = np.random.default_rng(0)


class Pair(NamedTuple):
    """The same computation twice; each call returns its arrays."""

    ours: Callable[[], Any]
    plain: Callable[[], Any]


def compare(benchmark: Any, group: str, library: str, pair: Pair, rtol: float = 1e-4) -> None:
    # A group for each pair: its table then shows one ratio.
    benchmark.group = group
    for ours, plain in zip(arrays(pair.ours()), arrays(pair.plain()), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=rtol, atol=1e-5)
    benchmark(pair.ours if library == "ferrograd" else pair.plain)


def arrays(found: Any) -> list[np.ndarray]:
    parts = found if isinstance(found, tuple | list) else (found,)
    return [np.asarray(part.detach().numpy() if isinstance(part, fg.Tensor) else part) for part in parts]


def speed(test: Any) -> Any:
    """Mark a test: both libraries, and short runs."""
    test = pytest.mark.parametrize("library", LIBRARIES)(test)
    return pytest.mark.benchmark(max_time=0.15, min_rounds=5, min_time=1e-5)(test)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


# Dense layers


DENSE = [(64, 64, 64), (64, 784, 128), (128, 512, 512)]


@pytest.mark.parametrize(("batch", "inputs", "outputs"), DENSE)
@speed
def test_dense_forward(benchmark: Any, batch: int, inputs: int, outputs: int, library: str) -> None:
    x, W, b = normal(batch, inputs), normal(outputs, inputs) / inputs**0.5, normal(outputs)
    layer = fg.nn.Linear(inputs, outputs)
    with fg.no_grad():
        layer.weight.copy_(W)
        layer.bias.copy_(b)
        mine, transposed, out = (
            fg.tensor(x),
            np.ascontiguousarray(W.T),
            np.empty((batch, outputs), np.float32),
        )

        def plain() -> np.ndarray:
            np.matmul(x, transposed, out=out)
            return np.add(out, b, out=out)

        compare(
            benchmark,
            f"dense forward {batch} x {inputs} x {outputs}",
            library,
            Pair(lambda: layer(mine), plain),
        )


@pytest.mark.parametrize(("batch", "inputs", "outputs"), DENSE)
@speed
def test_dense_backward(benchmark: Any, batch: int, inputs: int, outputs: int, library: str) -> None:
    x, W, g = normal(batch, inputs), normal(outputs, inputs) / inputs**0.5, normal(batch, outputs)
    leaves = [fg.tensor(array, requires_grad=True) for array in (x, W, np.zeros(outputs, np.float32))]
    out, gradient = fg.nn.functional.linear(*leaves), fg.tensor(g)
    dx, dW, db = np.empty_like(x), np.empty_like(W), np.empty(outputs, np.float32)

    def plain() -> tuple[np.ndarray, ...]:
        return np.matmul(g, W, out=dx), np.matmul(g.T, x, out=dW), np.add.reduce(g, axis=0, out=db)

    pair = Pair(lambda: fg.autograd.grad(out, leaves, gradient, retain_graph=True), plain)
    compare(benchmark, f"dense backward {batch} x {inputs} x {outputs}", library, pair, rtol=1e-3)


# Activations: value, and gradient from what the value's computation kept


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    # Ours, numpy's value of x, numpy's gradient of g, x and the value y. np.where would be slow here.
    "relu": (fg.relu, lambda x: np.maximum(x, 0), lambda g, x, y: g * (x > 0)),
    "leaky_relu": (
        functional.leaky_relu,
        lambda x: np.maximum(x, 0.01 * x),
        lambda g, x, y: g * (np.float32(0.99) * (x > 0) + np.float32(0.01)),
    ),
    "elu": (
        functional.elu,
        lambda x: np.maximum(x, 0) + np.expm1(np.minimum(x, 0)),
        lambda g, x, y: g * np.minimum(y + 1, 1),
    ),
    "sigmoid": (fg.sigmoid, sigmoid, lambda g, x, y: g * y * (1 - y)),
    "tanh": (fg.tanh, np.tanh, lambda g, x, y: g * (1 - y * y)),
    "softplus": (
        functional.softplus,
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        lambda g, x, y: g * sigmoid(x),
    ),
    "softmax": (
        lambda x: fg.softmax(x, 1),
        lambda x: (e := np.exp(x - x.max(1, keepdims=True))) / e.sum(1, keepdims=True),
        lambda g, x, y: y * (g - (g * y).sum(1, keepdims=True)),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@speed
def test_activation_forward(benchmark: Any, name: str, library: str) -> None:
    x, (ours, plain, _) = normal(128, 512), ACTIVATIONS[name]
    mine = fg.tensor(x)
    compare(benchmark, f"activation forward {name}", library, Pair(lambda: ours(mine), lambda: plain(x)))


@pytest.mark.parametrize("name", ACTIVATIONS)
@speed
def test_activation_backward(benchmark: Any, name: str, library: str) -> None:
    x, g, (ours, plain, derivative) = normal(128, 512), normal(128, 512), ACTIVATIONS[name]
    mine, gradient, y = fg.tensor(x, requires_grad=True), fg.tensor(g), plain(x)
    out = ours(mine)
    pair = Pair(lambda: fg.autograd.grad(out, mine, gradient, retain_graph=True), lambda: derivative(g, x, y))
    compare(benchmark, f"activation backward {name}", library, pair)


# Losses: value and gradient


def cross_entropy(x: np.ndarray, t: np.ndarray) -> tuple[Any, np.ndarray]:
    rows, p = np.arange(len(x)), x - x.max(1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[rows, t]).mean()
    p[rows, t] -= 1
    p /= len(x)
    return loss, p


def hinge(x: np.ndarray, t: np.ndarray) -> tuple[Any, np.ndarray]:
    rows = np.arange(len(x))
    margins = x - x[rows, t][:, None]
    margins += 1
    np.maximum(margins, 0, out=margins)
    margins[rows, t] = 0
    gradient = (margins > 0).astype(np.float32)
    gradient[rows, t] = -gradient.sum(1)
    gradient /= len(x)
    return margins.sum() / len(x), gradient


def squared_error(x: np.ndarray, t: np.ndarray) -> tuple[Any, np.ndarray]:
    difference = x - t
    loss = np.mean(difference * difference)
    difference *= 2 / x.size
    return loss, difference


LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "svm": (functional.multiclass_hinge_loss, hinge),
    "cross_entropy": (functional.cross_entropy, cross_entropy),
    "mse": (functional.mse_loss, squared_error),
}


@pytest.mark.parametrize(("rows", "classes"), [(64, 10), (1024, 100)])
@pytest.mark.parametrize("name", LOSSES)
@speed
def test_loss(benchmark: Any, name: str, rows: int, classes: int, library: str) -> None:
    x, t = normal(rows, classes), RNG.integers(0, classes, rows)
    target = normal(rows, classes) if name == "mse" else t
    ours, plain = LOSSES[name]
    mine, wanted = fg.tensor(x, requires_grad=True), fg.tensor(target)

    def value_and_gradient() -> tuple[fg.Tensor, Any]:
        loss = ours(mine, wanted)
        return loss, fg.autograd.grad(loss, mine)[0]

    compare(
        benchmark,
        f"loss with gradient {name} {rows} x {classes}",
        library,
        Pair(value_and_gradient, lambda: plain(x, target)),
    )


# A whole step: forward, loss, backward, update


@pytest.mark.parametrize("name", ["2-16-16-2:32", "64-64-10:64", "784-128-10:64", "17-256-256-6:64:adam"])
@speed
def test_step(benchmark: Any, name: str, library: str) -> None:
    problem = Problem.parse(name)
    data = problem.make()
    peers = {"ferrograd": Trainer(problem, data, "step", 1)}
    peers["numpy"] = NumpyLoop(problem, data, "step", 1)
    losses = []
    for peer in peers.values():
        peer.train(10, 1)
        losses.append(mean_loss(peer.weights(), data))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0] < mean_loss(data.weights, data)
    benchmark.group = f"overhead: train_step, {name}" if name.startswith("2-") else f"training step {name}"
    benchmark(peers[library].train, 1, 1)


# What Python costs


@speed
def test_tensor_operation(benchmark: Any, library: str) -> None:
    a, b = normal(8), normal(8)
    x, y = fg.tensor(a), fg.tensor(b)
    compare(benchmark, "overhead: x + y of 8 numbers", library, Pair(lambda: x + y, lambda: a + b))


@speed
def test_predict_one_row(benchmark: Any, library: str) -> None:
    problem = Problem.parse("64-64-10:1")
    data = problem.make()
    peer = Trainer(problem, data, "step", 1)
    row, (W1, b1, W2, b2) = data.X[0], data.weights

    def plain() -> np.ndarray:
        h = row @ W1
        h += b1
        np.maximum(h, 0, out=h)
        scores = h @ W2
        scores += b2
        return scores

    compare(
        benchmark,
        "overhead: predict of one row, 64-64-10",
        library,
        Pair(lambda: peer.trainer.predict(row), plain),
    )


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.benchmark(group="overhead: import in a new process")
def test_import(benchmark: Any, library: str) -> None:
    command = [sys.executable, "-c", f"import {library}"]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=5, warmup_rounds=1)
