"""What lectures show about paths of optimizers and about capacity: rows D9 and D12."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 120

# A surface with its gradient, and where the ball starts.
SURFACES: dict[str, tuple[Callable[[Any], Any], Callable[[Array], Array], Array]] = {
    "saddle": (
        lambda p: p[0] ** 2 - p[1] ** 2,
        lambda p: np.array([2 * p[0], -2 * p[1]]),
        np.array([1.0, 1e-3]),
    ),
    "valley": (
        lambda p: 0.005 * p[0] ** 2 + p[1] ** 2,
        lambda p: np.array([0.01 * p[0], 2 * p[1]]),
        np.array([-8.0, 1.0]),
    ),
}


def sgd(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    while True:
        p = p - 0.02 * grad(p)
        yield p


def momentum(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    v = np.zeros(2)
    while True:
        v = 0.9 * v + grad(p)
        p = p - 0.02 * v
        yield p


def nesterov(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    """Sutskever et al. 2013, at the point that is looked ahead to: p + 0.9 velocity."""
    v, ahead = np.zeros(2), p
    while True:
        g = grad(ahead)
        before = v
        v = 0.9 * v - 0.02 * g
        ahead = ahead - 0.9 * before + v + 0.9 * v
        yield ahead


def adagrad(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    total = np.zeros(2)
    while True:
        g = grad(p)
        total = total + g**2
        p = p - 0.1 * g / (np.sqrt(total) + 1e-10)
        yield p


def adadelta(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    """Zeiler 2012: steps by the ratio of two root mean squares."""
    squares, moves = np.zeros(2), np.zeros(2)
    while True:
        g = grad(p)
        squares = 0.9 * squares + 0.1 * g**2
        move = np.sqrt(moves + 1e-6) / np.sqrt(squares + 1e-6) * g
        moves = 0.9 * moves + 0.1 * move**2
        p = p - move
        yield p


def rmsprop(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    squares = np.zeros(2)
    while True:
        g = grad(p)
        squares = 0.99 * squares + 0.01 * g**2
        p = p - 0.01 * g / (np.sqrt(squares) + 1e-8)
        yield p


def adam(grad: Callable[[Array], Array], p: Array) -> Iterator[Array]:
    """Kingma and Ba 2015."""
    m, v, step = np.zeros(2), np.zeros(2), 0
    while True:
        g = grad(p)
        step += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 0.05 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        yield p


RULES: dict[str, tuple[Callable[[list[fg.Tensor]], optim.Optimizer], Callable[..., Iterator[Array]]]] = {
    "SGD": (lambda params: optim.SGD(params, lr=0.02), sgd),
    "momentum": (lambda params: optim.SGD(params, lr=0.02, momentum=0.9), momentum),
    "Nesterov": (lambda params: optim.SGD(params, lr=0.02, momentum=0.9, nesterov=True), nesterov),
    "Adagrad": (lambda params: optim.Adagrad(params, lr=0.1), adagrad),
    "Adadelta": (lambda params: optim.Adadelta(params), adadelta),
    "RMSprop": (lambda params: optim.RMSprop(params), rmsprop),
    "Adam": (lambda params: optim.Adam(params, lr=0.05), adam),
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", RULES)
def test_d9_a_path_is_that_of_the_published_formula(name: str, surface: str) -> None:
    value, slope, start = SURFACES[surface]
    make, formula = RULES[name]
    p = fg.tensor(start, requires_grad=True)
    optimizer = make([p])
    for _, expected in zip(range(STEPS), formula(slope, start), strict=False):
        optimizer.zero_grad()
        value(p).backward()
        optimizer.step()
        np.testing.assert_allclose(p.numpy(), expected, rtol=1e-9, atol=1e-12)
    # All go down; what adapts to each direction leaves the saddle.
    assert value(p).item() < value(start)
    if surface == "saddle" and name in ("Adagrad", "Adadelta", "RMSprop", "Adam"):
        assert abs(p[1].item()) > 0.1


def moons(seed: int) -> tuple[Array, Array]:
    return fg.datasets.make_moons(n_samples=200, noise=0.35, seed=seed)


def trained(units: int, l2: float, seed: int) -> tuple[float, float]:
    """Accuracy on the training data, and the norm of the weights."""
    X, y = moons(seed)
    fg.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, units), nn.Tanh(), nn.Linear(units, 2)).double()
    found = fg.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.02), l2=l2)
    found.fit(X, y, epochs=600, batch_size=200, seed=seed, progress=False)
    weights = [p.numpy() for p in model.parameters() if p.ndim == 2]
    return found.evaluate(X, y)["accuracy"], float(np.sqrt(sum((w**2).sum() for w in weights)))


def test_d12_more_units_fit_more_and_a_penalty_shrinks_the_weights() -> None:
    accuracy = [np.mean([trained(units, 0.0, seed)[0] for seed in range(5)]) for units in (3, 6, 20)]
    norms = [np.mean([trained(20, l2, seed)[1] for seed in range(5)]) for l2 in (0.001, 0.01, 0.1)]
    print(f"\nD12: accuracy {np.round(accuracy, 3)}, norms {np.round(norms, 2)}")
    assert accuracy[0] < accuracy[1] < accuracy[2]
    assert norms[0] > norms[1] > norms[2]
