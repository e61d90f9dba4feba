"""Recording switches, `grad` and the numeric check."""

import threading

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.autograd import GradcheckError, grad, gradcheck, numeric_gradient


def f64(values: object, requires_grad: bool = True) -> fg.Tensor:
    return fg.tensor(np.array(values, dtype=np.float64), requires_grad=requires_grad)


class Cube:
    """A gate with a wrong derivative: 2 x^2 where 3 x^2 is right."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return x**3

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout * 2 * self.x**2


def test_no_grad_records_nothing_and_restores() -> None:
    x = f64([1.0, 2.0])
    with fg.no_grad():
        assert not fg.is_grad_enabled()
        assert not (x * 2).requires_grad
        with fg.enable_grad():
            assert (x * 2).requires_grad
        assert not fg.is_grad_enabled()
    assert (x * 2).requires_grad


def test_no_grad_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), fg.no_grad():
        _ = 1 / 0
    assert fg.is_grad_enabled()


def test_no_grad_decorates_recursive_functions() -> None:
    @fg.no_grad()
    def depth(n: int) -> int:
        assert not fg.is_grad_enabled()
        return 0 if n == 0 else 1 + depth(n - 1)

    assert depth(3) == 3
    assert fg.is_grad_enabled()


def test_one_instance_of_no_grad_can_be_nested() -> None:
    switch = fg.no_grad()
    with switch:
        with switch:
            pass
        assert not fg.is_grad_enabled()
    assert fg.is_grad_enabled()


def test_recording_is_switched_per_thread() -> None:
    seen = []
    with fg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(fg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_set_grad_enabled_works_as_a_function_and_as_a_block() -> None:
    with fg.set_grad_enabled(False):
        assert not fg.is_grad_enabled()
    assert fg.is_grad_enabled()
    fg.set_grad_enabled(False)
    assert not fg.is_grad_enabled()
    fg.set_grad_enabled(True)


def test_in_place_change_of_a_leaf_is_refused_while_recording() -> None:
    w = f64([1.0])
    with pytest.raises(fg.GraphError):
        w += 1.0
    assert w.tolist() == [1.0]
    with fg.no_grad():
        w += 1.0
    assert w.tolist() == [2.0]


def test_grad_returns_one_gradient_for_each_input_and_accumulates_none() -> None:
    x, y = f64([1.0, 2.0]), f64([3.0, 4.0])
    dx, dy = grad((x * y).sum(), [x, y])
    assert dx is not None
    assert dy is not None
    assert dx.tolist() == [3.0, 4.0]
    assert dy.tolist() == [1.0, 2.0]
    assert x.grad is None


def test_grad_of_an_unused_input_is_an_error_unless_allowed() -> None:
    x, y = f64([1.0]), f64([1.0])
    with pytest.raises(fg.GraphError):
        grad(x.sum(), [x, y])
    assert grad(x.sum(), [x, y], allow_unused=True)[1] is None


def test_second_derivative_by_create_graph() -> None:
    x = f64(2.0)
    (first,) = grad(x**3, x, create_graph=True)
    assert first is not None
    (second,) = grad(first, x)
    assert second is not None
    assert (first.item(), second.item()) == (12.0, 12.0)


def test_backward_without_gradient_needs_a_scalar() -> None:
    with pytest.raises(fg.GraphError):
        (f64([1.0, 2.0]) * 2).backward()


def test_second_backward_on_a_freed_graph_is_an_error() -> None:
    x = f64(2.0)
    y = x.exp() * x
    y.backward()
    with pytest.raises(fg.GraphError):
        y.backward()


def test_gradcheck_passes_for_several_inputs_and_outputs() -> None:
    x, y = f64([[0.3, -0.2], [0.5, 1.0]]), f64([0.7, -1.1])
    assert gradcheck(lambda x, y: ((x * y).sin(), x.exp().sum(dim=0)), [x, y])


def test_gradcheck_passes_for_second_derivatives() -> None:
    x = f64([0.3, -0.2])

    def slope(x: fg.Tensor) -> fg.Tensor:
        (dx,) = grad((x.sin() * x).sum(), x, create_graph=True)
        assert dx is not None
        return dx

    assert gradcheck(slope, x)


def test_gradcheck_restores_the_inputs_to_the_bit() -> None:
    x = f64([0.1, 1 / 3])
    before = x.numpy()
    gradcheck(lambda x: x.square().sum(), x)
    np.testing.assert_array_equal(x.numpy(), before)
    assert x.grad is None


def test_gradcheck_names_input_element_and_both_values() -> None:
    x, y = f64([[1.0, 1.0], [1.0, 2.0]], requires_grad=False), f64([[1.0, 1.0], [1.0, 2.0]])
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x, y: fg.gate(Cube())(y), [x, y])
    message = str(caught.value)
    # d y^3 = 12 at y = 2, where the gate says 8: the worst element.
    assert "input 1, element (1, 1)" in message
    assert "analytic 8.0" in message
    assert "numeric 12.0" in message or "numeric 11.99" in message
    assert gradcheck(lambda x, y: fg.gate(Cube())(y), [x, y], raise_exception=False) is False


def test_gradcheck_needs_float64() -> None:
    x = fg.tensor([1.0], requires_grad=True)
    with pytest.raises(fg.DTypeError, match="input 0 must be float64, got float32"):
        gradcheck(lambda x: x.sum(), x)


def test_gradcheck_needs_an_input_that_requires_a_gradient() -> None:
    with pytest.raises(ValueError, match="no input requires a gradient"):
        gradcheck(lambda x: x.sum(), f64([1.0], requires_grad=False))


def test_gradcheck_takes_scalars_and_empty_tensors() -> None:
    assert gradcheck(lambda x: x * x, f64(3.0))
    assert gradcheck(lambda x: x.sum(), f64(np.zeros((0, 2))))


def test_numeric_gradient_is_of_every_checked_input_and_restores_it() -> None:
    x, w, constant = f64([[1.0, 2.0]]), f64([0.1, 0.2]), f64([3.0, 5.0], requires_grad=False)
    before = x.numpy().tobytes(), w.numpy().tobytes()
    found = numeric_gradient(lambda x, w, c: ((x @ w) ** 2 + (w * c).sum()).sum(), [x, w, constant])
    assert [gradient.shape for gradient in found.gradients] == [(1, 2), (2,)]
    np.testing.assert_allclose(found.gradients[0], [[0.1, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(found.gradients[1], [4.0, 7.0], rtol=1e-6)
    assert (found.evaluations, found.step, found.method) == (8, 1e-6, "centred")
    assert (x.numpy().tobytes(), w.numpy().tobytes()) == before


def test_numeric_gradient_of_a_function_that_computes_gradients() -> None:
    def slope(x: fg.Tensor) -> fg.Tensor:
        (found,) = grad((x**3).sum(), x, create_graph=True)
        return found.sum()

    for method, tolerance in (("centred", 1e-7), ("forward", 1e-5)):
        found = numeric_gradient(slope, f64([2.0, 3.0]), method=method)
        np.testing.assert_allclose(found.gradients[0], [12.0, 18.0], rtol=tolerance)


def test_numeric_gradient_of_no_elements_is_empty() -> None:
    found = numeric_gradient(lambda x: x.sum(), f64(np.zeros((0, 3))))
    assert found.gradients[0].shape == (0, 3)


def test_numeric_gradient_names_what_does_not_fit() -> None:
    x = f64([1.0, 2.0])
    with pytest.raises(fg.ConfigError, match="eps: expected a finite number above 0"):
        numeric_gradient(lambda x: x.sum(), x, eps=0.0)
    with pytest.raises(fg.ConfigError, match="'centred' or 'forward'"):
        numeric_gradient(lambda x: x.sum(), x, method="backward")
    with pytest.raises(fg.ShapeError, match=r"one element, got \(2,\)"):
        numeric_gradient(lambda x: x * 2, x)
    with pytest.raises(fg.DTypeError, match="numeric_gradient: input 0 must be float64"):
        numeric_gradient(lambda x: x.sum(), fg.ones(2, requires_grad=True))
    with pytest.raises(fg.DTypeError, match="returns a Tensor, got float"):
        numeric_gradient(lambda x: 1.0, x)
    with pytest.raises(ValueError, match="no input requires a gradient"):
        numeric_gradient(lambda x: x.sum(), x.detach())


def test_backward_reaches_the_inputs_alone() -> None:
    x, y = (fg.tensor([2.0, 3.0], requires_grad=True) for _ in range(2))
    z = x * y
    z.sum().backward(inputs=x, retain_graph=True)
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 3.0]
    assert y.grad is None
    z.sum().backward(inputs=[z, y])
    assert z.grad is not None
    assert y.grad is not None
    assert (z.grad.tolist(), y.grad.tolist(), x.grad.tolist()) == ([1.0, 1.0], [2.0, 3.0], [2.0, 3.0])


def test_backward_names_an_input_without_gradient() -> None:
    x, other = fg.tensor(2.0, requires_grad=True), fg.tensor(1.0)
    with pytest.raises(fg.GraphError, match="backward: input 1 does not require a gradient"):
        (x * x).backward(inputs=[x, other])
    with pytest.raises(TypeError):
        (x * x).backward(inputs=3)  # type: ignore[arg-type]
    assert x.grad is None
    unused = fg.tensor(1.0, requires_grad=True)
    (x * x).backward(inputs=unused)
    assert unused.grad is None
