"""Every optimizer with every option against its published formula, written once more in numpy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd._typing import Array

# From the state, the parameter, its gradient and the number of the step to the parameter.
Formula = Callable[[dict[str, Any], Array, Array, int], Array]


def moments(s: dict[str, Any], g: Array, b1: float, b2: float) -> tuple[Array, Array]:
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    return s["m"], s["v"]


def nadam(*, decoupled: bool) -> Formula:
    lr, b1, b2, decay, growth = 0.05, 0.9, 0.99, 0.1, 0.01

    def step(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
        p, g = (p * (1 - lr * decay), g) if decoupled else (p, g + decay * p)
        m, v = moments(s, g, b1, b2)
        mu, nu = (b1 * (1 - 0.5 * 0.96 ** (k * growth)) for k in (t, t + 1))
        s["mu"] = s.get("mu", 1.0) * mu
        ahead = (1 - mu) / (1 - s["mu"]) * g + nu / (1 - s["mu"] * nu) * m
        return p - lr * ahead / (np.sqrt(v / (1 - b2**t)) + 1e-8)

    return step


def radam(*, decoupled: bool) -> Formula:
    lr, b1, b2, decay = 0.05, 0.9, 0.8, 0.1

    def step(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
        p, g = (p * (1 - lr * decay), g) if decoupled else (p, g + decay * p)
        m, v = moments(s, g, b1, b2)
        m = m / (1 - b1**t)
        longest = 2 / (1 - b2) - 1
        rho = longest - 2 * t * b2**t / (1 - b2**t)
        s["rectified"] = s.get("rectified", 0) + (rho > 5)
        if rho <= 5:
            return p - lr * m
        rate = (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)
        return p - lr * m * math.sqrt(rate) * math.sqrt(1 - b2**t) / (np.sqrt(v) + 1e-8)

    return step


def adamax(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
    g = g + 0.1 * p
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["u"] = np.maximum(0.8 * s.get("u", 0.0), np.abs(g) + 1e-3)
    return p - 0.05 / (1 - 0.9**t) * s["m"] / s["u"]


def adagrad(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
    g = g + 0.1 * p
    s["sum"] = s.get("sum", 0.3) + g * g
    return p - 0.1 / (1 + (t - 1) * 0.2) * g / (np.sqrt(s["sum"]) + 1e-3)


def adadelta(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
    g = g + 0.1 * p
    s["v"] = 0.8 * s.get("v", 0.0) + 0.2 * g * g
    delta = np.sqrt(s.get("u", 0.0) + 1e-3) / np.sqrt(s["v"] + 1e-3) * g
    s["u"] = 0.8 * s.get("u", 0.0) + 0.2 * delta**2
    return p - 0.5 * delta


def rmsprop(*, momentum: float, centered: bool) -> Formula:
    def step(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
        g = g + 0.1 * p
        s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g * g
        s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
        d = g / (np.sqrt(s["v"] - s["m"] ** 2 * centered) + 1e-3)
        s["b"] = momentum * s.get("b", 0.0) + d
        return p - 0.02 * s["b"]

    return step


def rprop(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
    agreement = g * s.get("g", 0.0)
    factor = np.where(agreement > 0, 1.3, np.where(agreement < 0, 0.4, 1.0))
    s["size"] = np.clip(s.get("size", 0.1) * factor, 0.01, 0.2)
    s["g"] = np.where(agreement < 0, 0.0, g)
    return p - np.sign(s["g"]) * s["size"]


def asgd(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
    lr, lambd, alpha, t0 = 0.1, 0.05, 0.6, 3.0
    g = g + 0.1 * p
    p = p * (1 - lambd * s.get("eta", lr)) - s.get("eta", lr) * g
    mu = s.get("mu", 1.0)
    s["ax"] = s.get("ax", 0.0) + mu * (p - s.get("ax", 0.0))
    s["eta"], s["mu"] = lr / (1 + lambd * lr * t) ** alpha, 1 / max(1.0, t - t0)
    return p


def lion(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
    m = s.get("m", np.zeros_like(g))
    p = p * (1 - 0.02 * 0.1) - 0.02 * np.sign(0.8 * m + 0.2 * g)
    s["m"] = 0.9 * m + 0.1 * g
    return p


def muon(*, nesterov: bool, ratio: float) -> Formula:
    a, b, c = 3.4445, -4.775, 2.0315

    def step(s: dict[str, Any], p: Array, g: Array, t: int) -> Array:
        s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
        x = 0.9 * s["m"] + 0.1 * g if nesterov else s["m"]
        # Its singular values are put in the polynomial; the singular vectors stay.
        u, values, v = np.linalg.svd(x, full_matrices=False)
        values = values / math.sqrt((values**2).sum())
        for _ in range(4):
            values = a * values + b * values**3 + c * values**5
        return p * (1 - 0.05 * 0.1) - 0.05 * ratio * (u * values) @ v

    return step


WAYS: dict[str, tuple[str, dict[str, Any], Formula]] = {}
for flag in (False, True):
    shared = {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": flag}
    WAYS[f"nadam-{flag}"] = (
        "NAdam",
        {**shared, "betas": (0.9, 0.99), "momentum_decay": 0.01},
        nadam(decoupled=flag),
    )
    WAYS[f"radam-{flag}"] = ("RAdam", {**shared, "betas": (0.9, 0.8)}, radam(decoupled=flag))
    for momentum in (0.0, 0.6):
        WAYS[f"rmsprop-{flag}-{momentum}"] = (
            "RMSprop",
            {
                "lr": 0.02,
                "alpha": 0.9,
                "eps": 1e-3,
                "weight_decay": 0.1,
                "momentum": momentum,
                "centered": flag,
            },
            rmsprop(momentum=momentum, centered=flag),
        )
    WAYS[f"muon-{flag}"] = (
        "Muon",
        {
            "lr": 0.05,
            "momentum": 0.9,
            "ns_steps": 4,
            "nesterov": flag,
            "adjust_lr_fn": "match_rms_adamw" if flag else None,
        },
        muon(nesterov=flag, ratio=0.2 * 2 if flag else math.sqrt(4 / 3)),
    )
WAYS["adamax"] = ("Adamax", {"lr": 0.05, "betas": (0.9, 0.8), "eps": 1e-3, "weight_decay": 0.1}, adamax)
WAYS["adagrad"] = (
    "Adagrad",
    {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3},
    adagrad,
)
WAYS["adadelta"] = ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}, adadelta)
WAYS["rprop"] = ("Rprop", {"lr": 0.1, "etas": (0.4, 1.3), "step_sizes": (0.01, 0.2)}, rprop)
WAYS["asgd"] = ("ASGD", {"lr": 0.1, "lambd": 0.05, "alpha": 0.6, "t0": 3.0, "weight_decay": 0.1}, asgd)
WAYS["lion"] = ("Lion", {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1}, lion)


@pytest.mark.parametrize("name", WAYS)
def test_twelve_steps_follow_the_formula(name: str) -> None:
    """On a valley of different slopes, in which gradients change their signs."""
    kind, options, formula = WAYS[name]
    rng = np.random.default_rng(3)
    curve, target = rng.uniform(0.5, 6.0, size=(4, 3)), rng.normal(size=(4, 3))
    want = rng.normal(size=(4, 3))
    p = nn.Parameter(want)
    optimizer, state = getattr(optim, kind)([p], **options), {}
    for t in range(1, 13):
        p.grad = fg.tensor(curve * (p.numpy() - target))
        want = formula(state, want, curve * (want - target), t)
        optimizer.step()
        np.testing.assert_allclose(p.numpy(), want, rtol=1e-11, atol=1e-12)
    if name.startswith("radam"):
        assert 0 < state["rectified"] < 12
    if kind == "ASGD":
        np.testing.assert_allclose(optimizer.state[p]["ax"].numpy(), state["ax"], rtol=1e-11)


def test_a_constant_gradient_has_no_variance_and_no_nan() -> None:
    p = nn.Parameter(np.ones(100))
    optimizer = optim.RMSprop([p], alpha=0.5, centered=True)
    for _ in range(200):
        p.grad = fg.tensor(np.linspace(0.1, 0.9, 100))
        optimizer.step()
    assert np.isfinite(p.numpy()).all()


def saddle(p: fg.Tensor) -> fg.Tensor:
    return p[0].square() - p[1].square()


def valley(p: fg.Tensor) -> fg.Tensor:
    return p[0].square() * 0.05 + p[1].square() * 2.0


@pytest.mark.parametrize("surface", [saddle, valley])
@pytest.mark.parametrize(("kind", "lr"), [("Adagrad", 0.3), ("Adadelta", 1.0), ("RMSprop", 0.05)])
def test_paths_of_the_animation(surface: Any, kind: str, lr: float) -> None:
    """The lectures' animation: adaptive rates leave a saddle and follow a valley."""
    p = nn.Parameter(np.array([1.0, 1e-3]) if surface is saddle else np.array([-4.0, 1.0]))
    optimizer = getattr(optim, kind)([p], lr=lr)
    values = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = surface(p)
        loss.backward()
        values.append(loss.item())
        optimizer.step()
    assert values[-1] < min(0.0, values[0]) if surface is saddle else values[-1] < values[0] / 4
