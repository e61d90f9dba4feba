"""Forward mode: the rule of every operation against the double backward form and centred differences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import func
from ferrograd.autograd import functional
from ferrograd.nn import functional as F
from op_table import TABLE, Sample
from test_op_table import DIFFERENTIABLE, function_of

RNG = np.random.default_rng(11)
STEP = 1e-6


def directions(tensors: list[fg.Tensor]) -> tuple[fg.Tensor, ...]:
    return tuple(fg.tensor(RNG.uniform(0.5, 1.5, x.shape)) for x in tensors)


def moved_by_differences(function: Callable[..., Any], at: list[fg.Tensor], along: Any) -> list[Any]:
    up, down = (
        function(*[fg.tensor(x.numpy() + step * t.numpy()) for x, t in zip(at, along, strict=True)])
        for step in (STEP, -STEP)
    )
    return [(a.numpy() - b.numpy()) / (2 * STEP) for a, b in zip(up, down, strict=True)]


def check(function: Callable[..., list[fg.Tensor]], tensors: list[fg.Tensor]) -> None:
    """Value and tangent in both modes, and the tangent's own gradients by the point and the direction."""
    along = directions(tensors)
    at = [x.detach() for x in tensors]
    value, moved = func.jvp(function, tuple(at), along)
    expected, double = functional.jvp(lambda *x: tuple(function(*x)), tuple(at), along)
    differences = moved_by_differences(function, at, along)
    assert len(value) == len(moved) == len(double) == len(differences)
    for y, z, tangent, other, numeric in zip(value, expected, moved, double, differences, strict=True):
        assert y.numpy().tobytes() == z.numpy().tobytes()
        assert not tangent.requires_grad
        assert (tangent.shape, tangent.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(tangent.numpy(), other.numpy(), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(tangent.numpy(), numeric, rtol=1e-5, atol=1e-6)
    # One operand moves at a time: the others have no tangent.
    for place in range(len(at)):
        fixed = [x if i != place else None for i, x in enumerate(at)]
        _, alone = func.jvp(
            lambda x, fixed=fixed: function(*[x if y is None else y for y in fixed]),
            (at[place],),
            (along[place],),
        )
        zeros = tuple(t if i == place else fg.zeros_like(t) for i, t in enumerate(along))
        for one, other in zip(alone, func.jvp(function, tuple(at), zeros)[1], strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-12, atol=1e-13)


@DIFFERENTIABLE
def test_every_operation_has_a_rule(name: str) -> None:
    for sample in TABLE[name].samples:
        check(*function_of(name, sample))


@DIFFERENTIABLE
def test_rules_can_be_differentiated(name: str) -> None:
    function, tensors = function_of(name, TABLE[name].samples[0])
    count = len(tensors)

    def tangent(*values: fg.Tensor) -> list[fg.Tensor]:
        return func.jvp(function, values[:count], values[count:])[1]

    along = [t.requires_grad_() for t in directions(tensors)]
    assert fg.autograd.gradcheck(tangent, [*tensors, *along], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name", [name for name, row in TABLE.items() if row.broadcasts and row.differentiable]
)
def test_tangents_broadcast(name: str) -> None:
    for shapes in (((3, 4), (4,)), ((), (3,)), ((3, 1), (1, 4)), ((0, 1), (1, 3))):
        first = TABLE[name].samples[0].args
        check(*function_of(name, Sample(*[np.resize(x, s) for x, s in zip(first, shapes, strict=True)])))


X = RNG.normal(size=(5, 4)) * 2
LABELS = fg.tensor(np.array([0, 3, 1, 1, 2]))
SHARES = fg.tensor(RNG.dirichlet(np.ones(4), 5))
WEIGHT = fg.tensor(np.array([0.5, 1.0, 2.0, 0.7]))
INSIDE = RNG.uniform(0.1, 0.9, (5, 4))

# Functions whose gradients are primitive operations too: their own rules are those of the second derivative.
FUNCTIONS: dict[str, tuple[Callable[..., fg.Tensor], list[Any]]] = {
    "relu": (F.relu, [X]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), [X]),
    "elu": (F.elu, [X]),
    "sigmoid": (F.sigmoid, [X]),
    "tanh": (F.tanh, [X]),
    "softplus": (lambda x: F.softplus(x, 2.0, 3.0), [X]),
    "clamp": (lambda x: x.clamp(-1.0, 1.0), [X]),
    "celu": (lambda x: F.celu(x, 0.7), [X]),
    "selu": (F.selu, [X]),
    "gelu": (F.gelu, [X]),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), [X]),
    "silu": (F.silu, [X]),
    "mish": (F.mish, [X]),
    "softsign": (F.softsign, [X]),
    "logsigmoid": (F.logsigmoid, [X]),
    "hardtanh": (F.hardtanh, [X]),
    "hardsigmoid": (F.hardsigmoid, [X]),
    "hardswish": (F.hardswish, [X]),
    "hardshrink": (F.hardshrink, [X]),
    "softshrink": (F.softshrink, [X]),
    "tanhshrink": (F.tanhshrink, [X]),
    "threshold": (lambda x: F.threshold(x, 0.3, 0.1), [X]),
    "log_cosh": (lambda x: F.log_cosh_loss(x, fg.zeros_like(x), reduction="none"), [X]),
    "cross_entropy": (lambda x: F.cross_entropy(x, LABELS, reduction="none"), [X]),
    "cross_entropy_weighted": (
        lambda x: F.cross_entropy(x, LABELS, WEIGHT, ignore_index=1, label_smoothing=0.1),
        [X],
    ),
    "soft_cross_entropy": (lambda x: F.cross_entropy(x, SHARES, WEIGHT, label_smoothing=0.1), [X]),
    "multi_margin": (lambda x: F.multi_margin_loss(x, LABELS, reduction="none"), [X]),
    "multi_margin_squared": (lambda x: F.multi_margin_loss(x, LABELS, p=2, weight=WEIGHT), [X]),
    "nll_loss": (lambda x: F.nll_loss(x, LABELS, WEIGHT), [X]),
    "mse": (lambda x, t: F.mse_loss(x, t, reduction="none"), [X, X[::-1] / 3]),
    "bce": (lambda x: F.binary_cross_entropy(x, SHARES), [INSIDE]),
    "bce_with_logits": (lambda x: F.binary_cross_entropy_with_logits(x, SHARES, pos_weight=WEIGHT), [X]),
    "linear": (F.linear, [X, RNG.normal(size=(3, 4)), RNG.normal(size=3)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_and_losses_have_rules_and_so_have_their_gradients(name: str) -> None:
    function, arrays = FUNCTIONS[name]
    tensors = [fg.tensor(np.ascontiguousarray(array)) for array in arrays]
    check(lambda *x: [function(*x)], tensors)

    def curved(*x: fg.Tensor) -> fg.Tensor:
        return (function(*x) + function(*x).square()).sum()

    def slopes(*x: fg.Tensor) -> Any:
        return func.grad(curved, argnums=tuple(range(len(x))))(*x)

    along = directions(tensors)
    _, forward = func.hvp(curved, tuple(tensors), along)
    _, backward = func.vhp(curved, tuple(tensors), along)
    numeric = moved_by_differences(slopes, tensors, along)
    for one, other, difference in zip(forward, backward, numeric, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(one.numpy(), difference, rtol=1e-4, atol=1e-5)


def test_a_tangent_of_what_is_used_twice_is_added_up() -> None:
    x, t = fg.tensor(2.0), fg.tensor(1.0)
    assert func.jvp(lambda x: x * x + x.exp() * x, (x,), (t,))[1].item() == pytest.approx(4 + 3 * np.e**2)


def test_integers_and_steps_do_not_move() -> None:
    x, t = fg.tensor([3.0, 1.0]), fg.tensor([1.0, 1.0])
    _, moved = func.jvp(lambda x: (x.argsort(), (x > 2).float(), x.floor()), (x,), (t,))
    assert [part.tolist() for part in moved] == [[0, 0], [0.0, 0.0], [0.0, 0.0]]


def test_a_declared_gradient_is_a_declared_tangent() -> None:
    x, t = fg.tensor([3.0, -1.0]), fg.tensor([1.0, 10.0])
    assert func.jvp(fg.nn.GradientReversal(2.0), (x,), (t,))[1].tolist() == [-2.0, -20.0]
    assert func.jvp(fg.nn.L1Penalty(2.0), (x,), (t,))[1].tolist() == [1.0, 10.0]


def test_a_gate_without_a_rule_is_named() -> None:
    class Cube:
        def forward(self, x: Any) -> Any:
            self.x = x
            return x**3

        def backward(self, dout: Any) -> Any:
            return dout * 3 * self.x**2

    x = fg.tensor([1.0])
    with pytest.raises(fg.GraphError, match="Cube: a gate's backward works on plain numbers"):
        func.jvp(fg.gate(Cube()), (x,), (x,))


def test_a_long_chain_takes_one_pass() -> None:
    def chain(x: fg.Tensor) -> fg.Tensor:
        for _ in range(100_000):
            x = x + 1.0
        return x

    assert func.jvp(chain, (fg.tensor(0.0),), (fg.tensor(3.0),))[1].item() == 3.0
