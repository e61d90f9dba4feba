"""Operators, indices, losses and the cases that `test_op_table.py` has no row for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import _core

Array = np.ndarray[Any, Any]
STEP = 1e-6


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).uniform(low, high, shape)


def assert_gradients(function: Callable[..., fg.Tensor], *arrays: Array) -> None:
    """Backward against (f(x + h) - f(x - h)) / 2h, element by element, with a random upstream gradient."""
    inputs = [fg.tensor(array, requires_grad=True) for array in arrays]
    output = function(*inputs)
    upstream = np.random.default_rng(7).standard_normal(output.shape)
    output.backward(upstream)
    for which, array in enumerate(arrays):
        expected = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[which][index] += sign * STEP
                with fg.no_grad():
                    ends.append((function(*map(fg.tensor, moved)).numpy() * upstream).sum())
            expected[index] = (ends[0] - ends[1]) / (2 * STEP)
        gradient = inputs[which].grad
        assert gradient is not None
        assert gradient.dtype is fg.float64
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-7)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


OPERATORS: dict[str, tuple[Callable[[fg.Tensor], fg.Tensor], Callable[[Array], Array], float, float]] = {
    "neg": (lambda x: -x, np.negative, -2, 2),
    "abs": (abs, np.abs, -2, 2),
    "x ** 3": (lambda x: x**3, lambda x: x**3, -2, 2),
    "x ** 0.5": (lambda x: x**0.5, np.sqrt, 0.1, 2),
    "2 ** x": (lambda x: 2**x, lambda x: 2**x, -2, 2),
    "x + 1.5": (lambda x: x + 1.5, lambda x: x + 1.5, -2, 2),
    "1.5 - x": (lambda x: 1.5 - x, lambda x: 1.5 - x, -2, 2),
    "x - 1.5": (lambda x: x - 1.5, lambda x: x - 1.5, -2, 2),
    "x * 3": (lambda x: x * 3, lambda x: x * 3, -2, 2),
    "x / 3": (lambda x: x / 3, lambda x: x / 3, -2, 2),
    "3 / x": (lambda x: 3 / x, lambda x: 3 / x, 0.3, 2),
    "T": (lambda x: x.T * 2, lambda x: x.T * 2, -2, 2),
    "slice": (lambda x: x[1:, ::2], lambda x: x[1:, ::2], -2, 2),
    "integer array": (lambda x: x[[2, 0, 2]], lambda x: x[[2, 0, 2]], -2, 2),
    "mask": (lambda x: x[x > 0.3], lambda x: x[x > 0.3], -2, 2),
    "strided input": (lambda x: x.T[::2].exp(), lambda x: np.exp(x.T[::2]), -2, 2),
    "a sum of copies": (lambda x: x.clone() + x.contiguous(), lambda x: x + x, -2, 2),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_match_numpy_and_centred_differences(name: str) -> None:
    function, reference, low, high = OPERATORS[name]
    x = draw(3, 4, low=low, high=high)
    result = function(fg.tensor(x))
    expected = reference(x)
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-13, atol=1e-14)
    assert_gradients(function, x)


def test_losses_have_their_formulas_gradients() -> None:
    scores, labels = draw(4, 3), np.array([0, 2, 1, 1])
    weight, soft = np.array([1.0, 2.0, 0.5]), softmax(draw(4, 3, low=-1))
    signs, logits = (draw(4, 3) > 0).astype(float), draw(4, 3)
    log_p = np.log(softmax(scores))
    picked = log_p[np.arange(4), labels]
    hinge = np.maximum(0, 1 - scores[np.arange(4), labels][:, None] + scores)
    hinge[np.arange(4), labels] = 0
    cases: list[tuple[Callable[[fg.Tensor], fg.Tensor], Array, Array]] = [
        (lambda s: _core.cross_entropy(s, labels), scores, -picked),
        (lambda s: _core.cross_entropy(s, labels, weight), scores, -(weight[labels] * picked)),
        (lambda s: _core.cross_entropy(s, soft), scores, -(soft * log_p).sum(1)),
        (lambda s: _core.multi_margin(s, labels), scores, hinge.sum(1) / 3),
        (lambda s: _core.multi_margin(s, labels, p=2, divide_by_classes=False), scores, (hinge**2).sum(1)),
        (
            lambda p: _core.bce(p, signs),
            sigmoid(logits),
            -(signs * np.log(sigmoid(logits)) + (1 - signs) * np.log(1 - sigmoid(logits))),
        ),
        (
            lambda z: _core.bce_with_logits(z, signs, np.array(2.0)),
            logits,
            -(2 * signs * np.log(sigmoid(logits)) + (1 - signs) * np.log(1 - sigmoid(logits))),
        ),
    ]
    for function, x, expected in cases:
        np.testing.assert_allclose(function(fg.tensor(x)).numpy(), expected, rtol=1e-11, atol=1e-13)
        assert_gradients(function, x)


def test_a_label_outside_the_classes_is_named() -> None:
    with pytest.raises(fg.LabelError, match=r"class index 3 at position 1 must be at least 0 and below 3"):
        _core.cross_entropy(fg.zeros(2, 3), [0, 3])
    assert _core.cross_entropy(fg.zeros(2, 3), [0, -100]).tolist()[1] == 0


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_match_numpy_also_for_nan(op: str) -> None:
    a, b = np.array([1.0, 2.0, np.nan, np.inf]), np.array([1.0, 3.0, np.nan, -np.inf])
    expected = getattr(a, f"__{op}__")(b)
    result = getattr(fg.tensor(a), op)(b)
    assert result.dtype is fg.bool
    assert not result.requires_grad
    assert result.tolist() == expected.tolist()


def test_logic_on_masks() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    x = fg.tensor(a)
    assert (x & b).tolist() == (a & b).tolist()
    assert (b | x).tolist() == (a | b).tolist()
    assert (x ^ fg.tensor(b)).tolist() == (a ^ b).tolist()
    assert (~x).tolist() == (~a).tolist()
    assert x.any().item() is True
    assert x.all().item() is False
    assert fg.tensor([0.0, 2.0]).logical_not().tolist() == [True, False]
    with pytest.raises(fg.DTypeError, match="expected bool tensors"):
        x & fg.ones(4)


def test_positions_of_extremes() -> None:
    x = np.array([[1.0, 5.0, 5.0], [7.0, -1.0, 7.0]])
    t = fg.tensor(x)
    assert t.argmax().item() == 3
    assert t.argmax(1).tolist() == [1, 0]
    assert t.argmin(0, keepdim=True).tolist() == [[0, 1, 0]]
    values, indices = t.max(1)
    assert (values.tolist(), indices.tolist()) == ([5, 7], [1, 0])


EMPTY: list[tuple[Callable[[fg.Tensor], fg.Tensor], tuple[int, ...]]] = [
    (lambda x: x.exp() * 2 + x, (0, 3)),
    (lambda x: x.T @ fg.ones(0, 2, dtype=fg.float64), (3, 2)),
    (lambda x: x[:, 1:], (0, 2)),
    (lambda x: x[[]], (0, 3)),
]


@pytest.mark.parametrize("case", range(len(EMPTY)))
def test_empty_tensors_have_shapes_and_gradients(case: int) -> None:
    function, shape = EMPTY[case]
    x = fg.zeros(0, 3, dtype=fg.float64, requires_grad=True)
    result = function(x)
    assert result.shape == shape
    result.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 3)


def test_nan_reaches_every_result() -> None:
    x = fg.tensor([1.0, float("nan"), -1.0])
    for function in (
        fg.Tensor.relu,
        fg.Tensor.exp,
        fg.Tensor.sigmoid,
        fg.Tensor.tanh,
        abs,
        lambda t: t.clamp(0, 1),
    ):
        assert np.isnan(function(x).numpy()[1])
    for function in (fg.Tensor.sum, fg.Tensor.max, fg.Tensor.amin, fg.Tensor.mean):
        assert np.isnan(function(x).item())
    assert np.isnan(x.maximum(fg.zeros(3)).numpy()[1])
