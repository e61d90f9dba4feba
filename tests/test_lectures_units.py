"""What lectures show about layers of one operation and threshold units: rows A9, A17, B2, B9, D16."""

import itertools
import math
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.autograd import GradcheckError, gradcheck

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
INPUTS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


@DTYPES
@pytest.mark.parametrize("constant", [2.5, -1.0, 0.0])
def test_a9_multiplying_by_a_constant_in_place_or_not(dtype: Any, constant: float) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    results = []
    for inplace in (True, False):
        # What came before needs its own result for backward: it must still be there.
        bottom = fg.tensor(x, requires_grad=True)
        middle = bottom.exp()
        y = nn.MulConstant(constant, inplace=inplace)(middle)
        assert y.dtype.name == np.dtype(dtype).name
        np.testing.assert_array_equal(middle.numpy(), fg.tensor(x).exp().numpy())
        y.sum().backward()
        assert bottom.grad is not None
        np.testing.assert_allclose(bottom.grad.numpy(), constant * middle.numpy(), rtol=1e-6)
        results.append((y.tolist(), bottom.grad.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("constant", ["2", None, math.nan, [1.0], fg.ones(1)])
def test_a9_a_constant_that_is_no_number_is_refused(constant: Any) -> None:
    with pytest.raises(fg.ConfigError, match="MulConstant: constant must be a finite number"):
        nn.MulConstant(constant)
    with pytest.raises(fg.ConfigError, match="inplace: expected True or False"):
        nn.MulConstant(2.0, inplace=constant)


def test_a17_the_numeric_check_names_the_worst_element_of_every_input() -> None:
    class Wrong:
        """x y^2, with the derivatives of x[1] and of y[0, 1] off."""

        def forward(self, x: Any, y: Any) -> Any:
            self.x, self.y = x, y
            return (x * y**2).sum()

        def backward(self, dout: Any) -> Any:
            dx, dy = dout * (self.y**2).sum(0), dout * 2 * self.x * self.y
            dx[1] *= 1.5
            dy[0, 1] += 0.125
            return dx, dy

    x = fg.tensor([1.0, 2.0, 3.0], dtype=fg.float64, requires_grad=True)
    y = fg.tensor([[1.0, 2.0, 3.0]], dtype=fg.float64, requires_grad=True)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x, y, z: fg.gate(Wrong())(x, y) + z.sum(), [x, y, fg.ones_like(x).requires_grad_()])
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("gradcheck: input 0, element (1,): analytic 6.0, numeric ")
    assert first.endswith("step 1e-06, 2 evaluations per input element)")
    assert second.startswith("input 1, element (0, 1): analytic 8.125, numeric ")
    assert second.endswith("(output 0, element ())")
    assert third.startswith("input 2, element (")
    assert third.endswith("passes)")


def test_a17_the_report_names_the_worst_element_of_every_parameter() -> None:
    class Planted(fg.autograd.Function):
        """A value that is passed on, with a gradient that is off at one element."""

        @staticmethod
        def forward(ctx: Any, x: fg.Tensor, at: tuple[int, ...]) -> fg.Tensor:
            ctx.at = at
            return x * 1

        @staticmethod
        def backward(ctx: Any, *grads: fg.Tensor) -> Any:
            off = grads[0].clone()
            off[ctx.at] = off[ctx.at] * 1.5
            return off, None

    class Model(nn.Linear):
        def forward(self, x: fg.Tensor) -> fg.Tensor:
            weight, bias = Planted.apply(self.weight, (1, 2)), Planted.apply(self.bias, (0,))
            return nn.functional.linear(x, weight, bias)

    fg.manual_seed(0)
    report = fg.check_gradients(Model(3, 2), fg.randn(5, 3), fg.randn(5, 2), nn.MSELoss())
    assert [(row.name, row.worst, row.verdict) for row in report.parameters] == [
        ("weight", (1, 2), "WRONG in 17% of its elements"),
        ("bias", (0,), "WRONG in 50% of its elements"),
    ]
    for row in report.parameters:
        # The centred difference is the true derivative; the relative error that of 1.5 to 1.
        assert row.analytic == pytest.approx(1.5 * row.numeric, rel=1e-7)
        assert row.max_error == pytest.approx(1 / 3, rel=1e-6)
    right = fg.check_gradients(nn.Linear(3, 2), fg.randn(5, 3), fg.randn(5, 2), nn.MSELoss())
    assert right.agrees
    assert all(len(row.worst) == len(row.shape) and row.max_error < 1e-6 for row in right.parameters)


@DTYPES
def test_d16_a_layer_neuron_by_neuron_is_one_matrix_product(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = (fg.tensor(rng.normal(size=s).astype(dtype)) for s in ((64,), (100, 64), (100,)))

    def by_neurons() -> fg.Tensor:
        return fg.stack([(w[i] * x).sum() + b[i] for i in range(100)])

    def by_product() -> fg.Tensor:
        return w @ x + b

    exact = w.numpy().astype(np.float64) @ x.numpy().astype(np.float64) + b.numpy()
    unit = np.finfo(dtype).eps
    for layer in (by_neurons, by_product):
        np.testing.assert_allclose(layer().numpy(), exact, rtol=0, atol=64 * unit * np.abs(exact).max())
    seconds = [min(timeit.repeat(layer, number=3, repeat=5)) for layer in (by_neurons, by_product)]
    # How much is for the benchmarks to tell.
    print(f"\nD16: {np.dtype(dtype)}, neuron by neuron takes {seconds[0] / seconds[1]:.0f} times the product")


def test_d16_the_weights_of_a_linear_model_are_a_template_for_each_digit() -> None:
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    X, y = fg.datasets.load_digits()
    fg.manual_seed(0)
    model = nn.Linear(64, 10)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.01), l2=0.01)
    trainer.fit(X / 16, y, epochs=20, seed=0, progress=False)
    assert trainer.evaluate(X / 16, y)["accuracy"] > 0.93
    figure = fg.viz.weight_images(model, shape=(8, 8))
    panels, weight = figure.axes[:10], model.weight.detach().numpy()
    assert [panel.get_title() for panel in panels] == [str(digit) for digit in range(10)]
    for digit, panel in enumerate(panels):
        (image,) = panel.images
        np.testing.assert_array_equal(image.get_array(), weight[digit].reshape(8, 8))
    # A template fits the mean image of its own digit best.
    means = np.stack([X[y == digit].mean(0) / 16 for digit in range(10)])
    scores = means @ weight.T + model.bias.detach().numpy()
    assert scores.argmax(1).tolist() == list(range(10))


def perceptron(targets: list[int], epochs: int) -> tuple[Any, list[int]]:
    """Train a threshold unit from zero, in order, with rate 1; return it and the mistakes by epoch."""
    weight, bias = fg.zeros(2, dtype=fg.float64), fg.zeros(1, dtype=fg.float64)
    mistakes = []
    for _ in range(epochs):
        wrong = 0
        for x, target in zip(INPUTS, targets, strict=True):
            output = fg.heaviside(fg.tensor(x) @ weight + bias, 0.0).item()
            error = target - output
            weight = weight + error * x
            bias = bias + error
            wrong += error != 0
        mistakes.append(wrong)
    return (*weight.tolist(), bias.item()), mistakes


def test_b2_a_threshold_unit_learns_what_a_line_separates() -> None:
    found, mistakes = perceptron([0, 1, 1, 1], 10)
    assert (found, sum(mistakes), mistakes[-1]) == ((1.0, 1.0, 0.0), 4, 0)
    found, mistakes = perceptron([0, 0, 0, 1], 10)
    assert (found, sum(mistakes), mistakes[-1]) == ((2.0, 1.0, -2.0), 10, 0)
    for targets in ([0, 1, 1, 0], [1, 0, 0, 1]):
        _, mistakes = perceptron(targets, 1000)
        assert min(mistakes) > 0
        assert mistakes[-1] == 4


def test_b2_the_gradient_of_a_step_is_zero_by_definition_and_is_documented_so() -> None:
    x = fg.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    y = fg.heaviside(x, fg.zeros(3))
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist() if x.grad is not None else None) == ([0.0, 0.0, 1.0], [0.0] * 3)
    assert "zero by definition" in " ".join((fg.heaviside.__doc__ or "").split())


def unit(excites: list[int], inhibits: list[int], threshold: float, x: fg.Tensor) -> fg.Tensor:
    """A McCulloch-Pitts unit: 1 where no inhibitor is 1 and `threshold` exciters are; a row a case."""

    def total(places: list[int]) -> fg.Tensor:
        return x[:, places].sum(1) if places else fg.zeros(x.shape[0])

    excited = fg.heaviside(total(excites) - threshold, 1.0)
    return excited * fg.heaviside(-total(inhibits), 1.0)


def tables(units: list[Callable[[fg.Tensor], fg.Tensor]]) -> set[tuple[float, ...]]:
    x = fg.tensor(INPUTS.astype(np.float32))
    return {tuple(unit(x).tolist()) for unit in units}


def every_unit(inputs: int) -> list[Callable[[fg.Tensor], fg.Tensor]]:
    found: list[Callable[[fg.Tensor], fg.Tensor]] = []
    for roles in itertools.product("+- ", repeat=inputs):
        excites = [i for i, role in enumerate(roles) if role == "+"]
        inhibits = [i for i, role in enumerate(roles) if role == "-"]
        for threshold in range(len(excites) + 2):
            found.append(
                lambda x, e=excites, i=inhibits, t=threshold: unit(e, i, t, x)  # type: ignore[misc]
            )
    return found


def test_b9_one_unit_computes_eleven_functions_and_two_layers_all_sixteen() -> None:
    single = every_unit(2)
    assert len(tables(single)) == 11
    hidden = sorted(tables(single))
    reached = set()
    x = fg.tensor(INPUTS.astype(np.float32))
    by_table = {tuple(first(x).tolist()): first for first in single}
    for pair in itertools.combinations(hidden, 2):
        middle = fg.stack([by_table[table](x) for table in pair], dim=1)
        reached |= {tuple(last(middle).tolist()) for last in single}
    assert len(reached) == 16


def test_b9_unrolled_in_time_a_small_net_computes_parity() -> None:
    bits = np.array(list(itertools.product([0.0, 1.0], repeat=8)), np.float32)
    assert len(bits) == 256
    state = fg.zeros(256)
    for step in range(8):
        both = fg.stack([state, fg.tensor(np.ascontiguousarray(bits[:, step]))], dim=1)
        # Exclusive or: one and not the other, or the other and not the one.
        middle = fg.stack([unit([0], [1], 1, both), unit([1], [0], 1, both)], dim=1)
        state = unit([0, 1], [], 1, middle)
    np.testing.assert_array_equal(state.numpy(), bits.sum(1) % 2)
