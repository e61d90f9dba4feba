"""Every op: its value against numpy, its gradient against centred differences in float64."""

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


UNARY: dict[str, tuple[Callable[[fg.Tensor], fg.Tensor], Callable[[Array], Array], float, float]] = {
    "neg": (lambda x: -x, np.negative, -2, 2),
    "exp": (fg.Tensor.exp, np.exp, -2, 2),
    "expm1": (fg.Tensor.expm1, np.expm1, -2, 2),
    "log": (fg.Tensor.log, np.log, 0.1, 3),
    "log1p": (fg.Tensor.log1p, np.log1p, -0.5, 3),
    "sqrt": (fg.Tensor.sqrt, np.sqrt, 0.1, 3),
    "square": (fg.Tensor.square, np.square, -2, 2),
    "reciprocal": (fg.Tensor.reciprocal, np.reciprocal, 0.2, 3),
    "abs": (abs, np.abs, -2, 2),
    "sign": (fg.Tensor.sign, np.sign, -2, 2),
    "sin": (fg.Tensor.sin, np.sin, -4, 4),
    "cos": (fg.Tensor.cos, np.cos, -4, 4),
    "relu": (fg.Tensor.relu, lambda x: np.maximum(x, 0), -2, 2),
    "leaky_relu": (lambda x: x.leaky_relu(0.2), lambda x: np.where(x > 0, x, 0.2 * x), -2, 2),
    "elu": (lambda x: x.elu(1.5), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x)), -2, 2),
    "sigmoid": (fg.Tensor.sigmoid, sigmoid, -4, 4),
    "tanh": (fg.Tensor.tanh, np.tanh, -3, 3),
    "softplus": (lambda x: x.softplus(2.0), lambda x: np.log1p(np.exp(2 * x)) / 2, -3, 3),
    "softmax": (lambda x: x.softmax(-1), softmax, -3, 3),
    "log_softmax": (lambda x: x.log_softmax(-1), lambda x: np.log(softmax(x)), -3, 3),
    "clamp": (lambda x: x.clamp(-0.5, 0.75), lambda x: np.clip(x, -0.5, 0.75), -2, 2),
    "clamp to a minimum": (lambda x: x.clamp(min=0.1), lambda x: np.maximum(x, 0.1), -2, 2),
    "x ** 3": (lambda x: x**3, lambda x: x**3, -2, 2),
    "x ** 0.5": (lambda x: x**0.5, np.sqrt, 0.1, 2),
    "2 ** x": (lambda x: 2**x, lambda x: 2**x, -2, 2),
    "x + 1.5": (lambda x: x + 1.5, lambda x: x + 1.5, -2, 2),
    "1.5 - x": (lambda x: 1.5 - x, lambda x: 1.5 - x, -2, 2),
    "x - 1.5": (lambda x: x - 1.5, lambda x: x - 1.5, -2, 2),
    "x * 3": (lambda x: x * 3, lambda x: x * 3, -2, 2),
    "x / 3": (lambda x: x / 3, lambda x: x / 3, -2, 2),
    "3 / x": (lambda x: 3 / x, lambda x: 3 / x, 0.3, 2),
    "sum": (lambda x: x.sum(), np.sum, -2, 2),
    "sum of a dim": (lambda x: x.sum(0), lambda x: x.sum(0), -2, 2),
    "mean of dims": (lambda x: x.mean((0, 1), keepdim=True), lambda x: x.mean((0, 1), keepdims=True), -2, 2),
    "amax": (lambda x: x.amax(1), lambda x: x.max(1), -2, 2),
    "amin": (lambda x: x.amin(0, keepdim=True), lambda x: x.min(0, keepdims=True), -2, 2),
    "max": (lambda x: x.max(), np.max, -2, 2),
    "min along a dim": (lambda x: x.min(1).values, lambda x: x.min(1), -2, 2),
    "var": (lambda x: x.var(1), lambda x: x.var(1, ddof=1), -2, 2),
    "var biased": (lambda x: x.var(unbiased=False), np.var, -2, 2),
    "var with correction": (lambda x: x.var(0, correction=0.5), lambda x: x.var(0, ddof=0.5), -2, 2),
    "logsumexp": (lambda x: x.logsumexp(1), lambda x: np.log(np.exp(x).sum(1)), -2, 2),
    "maxout": (lambda x: x.maxout(2, 1), lambda x: x.reshape(3, 2, 2).max(2), -2, 2),
    "reshape": (lambda x: x.reshape(2, -1), lambda x: x.reshape(2, -1), -2, 2),
    "view": (lambda x: x.view((4, 3)), lambda x: x.reshape(4, 3), -2, 2),
    "flatten": (fg.Tensor.flatten, np.ravel, -2, 2),
    "T": (lambda x: x.T * 2, lambda x: x.T * 2, -2, 2),
    "permute": (lambda x: x.permute(1, 0), lambda x: x.T, -2, 2),
    "transpose": (lambda x: x.transpose(-1, 0), lambda x: x.T, -2, 2),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda x: x[:, None], -2, 2),
    "squeeze": (lambda x: x[:1].squeeze(0), lambda x: x[0], -2, 2),
    "expand": (lambda x: x.unsqueeze(0).expand(2, -1, -1), lambda x: np.stack([x, x]), -2, 2),
    "slice": (lambda x: x[1:, ::2], lambda x: x[1:, ::2], -2, 2),
    "integer array": (lambda x: x[[2, 0, 2]], lambda x: x[[2, 0, 2]], -2, 2),
    "mask": (lambda x: x[x > 0.3], lambda x: x[x > 0.3], -2, 2),
    "strided input": (lambda x: x.T[::2].exp(), lambda x: np.exp(x.T[::2]), -2, 2),
    "to float32 and back": (lambda x: x.clone() + x.contiguous(), lambda x: x + x, -2, 2),
    "cat": (lambda x: fg.cat([x, x * 2], 1), lambda x: np.concatenate([x, x * 2], 1), -2, 2),
    "stack": (lambda x: fg.stack([x, x * 2], -1), lambda x: np.stack([x, x * 2], -1), -2, 2),
    "where": (lambda x: fg.where(x > 0, x * 2, 0.5), lambda x: np.where(x > 0, x * 2, 0.5), -2, 2),
}


@pytest.mark.parametrize("name", UNARY)
def test_one_operand_matches_numpy_and_centred_differences(name: str) -> None:
    function, reference, low, high = UNARY[name]
    x = draw(3, 4, low=low, high=high)
    result = function(fg.tensor(x))
    expected = reference(x)
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-13, atol=1e-14)
    assert_gradients(function, x)


BINARY: dict[str, tuple[Callable[..., fg.Tensor], Callable[..., Array]]] = {
    "add": (lambda a, b: a + b, np.add),
    "sub": (lambda a, b: a - b, np.subtract),
    "mul": (lambda a, b: a * b, np.multiply),
    "div": (lambda a, b: a / b, np.divide),
    "pow": (lambda a, b: a**b, np.power),
    "maximum": (fg.Tensor.maximum, np.maximum),
    "minimum": (fg.Tensor.minimum, np.minimum),
}
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((), (3,)), ((3, 1), (1, 4)), ((2, 1, 3), (4, 1))]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_two_operands_broadcast(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    function, reference = BINARY[name]
    a, b = draw(*shapes[0], low=0.3, high=2.0), draw(*shapes[1], low=0.4, high=1.9)
    np.testing.assert_allclose(function(fg.tensor(a), fg.tensor(b)).numpy(), reference(a, b), rtol=1e-13)
    assert_gradients(function, a, b)


PRODUCTS = [
    ((3, 4), (4, 2)),
    ((4,), (4,)),
    ((4,), (4, 2)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 2)),
    ((2, 1, 3, 4), (5, 4, 2)),
]


@pytest.mark.parametrize("shapes", PRODUCTS, ids=str)
def test_matmul_matches_numpy(shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = draw(*shapes[0]), draw(*shapes[1])
    np.testing.assert_allclose((fg.tensor(a) @ b).numpy(), a @ b, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose((a @ fg.tensor(b)).numpy(), a @ b, rtol=1e-12, atol=1e-13)
    assert_gradients(fg.Tensor.matmul, a, b)


def test_matmul_of_transposed_views_is_that_of_copies() -> None:
    a, b = draw(4, 3), draw(2, 4)
    np.testing.assert_allclose((fg.tensor(a).T @ fg.tensor(b).T).numpy(), a.T @ b.T, rtol=1e-12)
    assert_gradients(lambda a, b: a.T @ b.T, a, b)


def test_mm_mv_and_dot_check_their_ranks() -> None:
    matrix, vector = fg.ones(2, 3), fg.ones(3)
    assert matrix.mm(fg.ones(3, 4)).shape == (2, 4)
    assert matrix.mv(vector).tolist() == [3, 3]
    assert vector.dot(vector).item() == 3
    for call in (lambda: matrix.mm(vector), lambda: matrix.mv(matrix), lambda: matrix.dot(vector)):
        with pytest.raises(fg.ShapeError, match=r"expected [12] dimensions"):
            call()


@pytest.mark.parametrize(
    "shapes", [((5, 3), (2, 3), (2,)), ((2, 5, 3), (4, 3), (4,)), ((3,), (2, 3), (2,))], ids=str
)
def test_linear_is_x_times_weight_transposed_plus_bias(shapes: tuple[tuple[int, ...], ...]) -> None:
    x, weight, bias = (draw(*shape) for shape in shapes)
    result = _core.linear(fg.tensor(x), fg.tensor(weight), fg.tensor(bias))
    np.testing.assert_allclose(result.numpy(), x @ weight.T + bias, rtol=1e-12, atol=1e-13)
    assert_gradients(_core.linear, x, weight, bias)


def test_prelu_has_one_weight_or_one_for_each_channel() -> None:
    x = draw(2, 3, 2)
    for weight in (np.array(0.25), np.array([0.25]), np.array([0.1, 0.2, 0.3])):
        slope = weight if weight.size == 1 else weight[None, :, None]
        result = fg.tensor(x).prelu(fg.tensor(weight))
        np.testing.assert_allclose(result.numpy(), np.where(x > 0, x, slope * x), rtol=1e-14)
        assert_gradients(fg.Tensor.prelu, x, weight)
    with pytest.raises(fg.ShapeError, match="expected one weight or 3"):
        fg.tensor(x).prelu(fg.ones(2))


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
    with pytest.raises(fg.LabelError, match=r"class index 3 at position 1 is outside 0\.\.3"):
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
    (lambda x: x.sum(0), (3,)),
    (lambda x: x.softmax(1), (0, 3)),
    (lambda x: x @ fg.ones(3, 2, dtype=fg.float64), (0, 2)),
    (lambda x: x.T @ fg.ones(0, 2, dtype=fg.float64), (3, 2)),
    (lambda x: fg.cat([x, x]), (0, 3)),
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


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(fg.ShapeError, match=r"add: shapes do not broadcast, \(2,\) and \(3,\)"):
        fg.ones(2) + fg.ones(3)
    with pytest.raises(fg.ShapeError, match=r"matmul: inner dimensions differ, \(12, 32\) @ \(10, 4\)"):
        fg.ones(12, 32) @ fg.ones(10, 4)
    with pytest.raises(fg.ShapeError, match="dimension 2 is out of range"):
        fg.ones(2, 2).sum(2)
    with pytest.raises(fg.ShapeError, match="maxout: expected a dimension that 2 pieces divide"):
        fg.ones(3).maxout(2)


def test_a_gradient_of_a_gradient_flows_through_every_smooth_op() -> None:
    for name in ("exp", "log", "sqrt", "reciprocal", "sin", "cos", "sigmoid", "tanh", "square", "log1p"):
        x = fg.tensor(np.array([0.3, 0.9, 1.7]), requires_grad=True)

        def slope(x: fg.Tensor, name: str = name) -> fg.Tensor:
            return fg.autograd.grad(getattr(x, name)().sum(), x, create_graph=True)[0]

        (bend,) = fg.autograd.grad(slope(x).sum(), x)
        with fg.enable_grad():
            ends = [slope(fg.tensor(x.numpy() + h, requires_grad=True)).numpy() for h in (STEP, -STEP)]
        np.testing.assert_allclose(bend.numpy(), (ends[0] - ends[1]) / (2 * STEP), rtol=1e-5, atol=1e-7)
