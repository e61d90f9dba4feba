"""`gradcheck` and `gradgradcheck` find what is wrong, name it, and leave the inputs as they were."""

from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.autograd import Function, GradcheckError, gradcheck, gradgradcheck

MODES = pytest.mark.parametrize("fast", [False, True], ids=["each element", "one direction"])


def leaf(*shape: int) -> fg.Tensor:
    return fg.tensor(np.random.default_rng(3).uniform(0.5, 2.0, shape), requires_grad=True)


def wrong_first(x: fg.Tensor) -> fg.Tensor:
    """A square whose gradient is off by a hundredth."""
    y = x * x
    return y.detach() + 1.01 * (y - y.detach())


def wrong_second(x: fg.Tensor) -> fg.Tensor:
    """A square whose gradient has the right value, and no gradient."""
    return 2 * x.detach() * x - (x * x).detach()


@MODES
def test_a_wrong_first_derivative_is_found_by_both(fast: bool) -> None:
    x = leaf(2, 3)
    before = x.numpy().tobytes()
    with pytest.raises(GradcheckError, match=r"gradcheck: input 0.*: analytic"):
        gradcheck(wrong_first, x, fast_mode=fast)
    assert not gradcheck(wrong_first, x, fast_mode=fast, raise_exception=False)
    assert x.numpy().tobytes() == before
    assert gradcheck(wrong_first, x, rtol=0.02, fast_mode=fast)


@MODES
def test_a_wrong_second_derivative_is_found_by_the_second_alone(fast: bool) -> None:
    x = leaf(2, 3)
    assert gradcheck(wrong_second, x, fast_mode=fast)
    with pytest.raises(GradcheckError, match="input 0"):
        gradgradcheck(wrong_second, x, fast_mode=fast)
    assert not gradgradcheck(wrong_second, x, fast_mode=fast, raise_exception=False)
    assert gradgradcheck(fg.square, x, fast_mode=fast)


@MODES
def test_several_inputs_and_outputs(fast: bool) -> None:
    def function(x: fg.Tensor, n: int, y: fg.Tensor) -> tuple[fg.Tensor, ...]:
        return (x * y).sin(), x.sum(1) ** n, (x > 1).float(), y.argmax()

    inputs = [leaf(2, 3), 3, leaf(3)]
    assert gradcheck(function, inputs, fast_mode=fast)
    assert gradgradcheck(function, inputs, fast_mode=fast)


def test_the_worst_element_is_named() -> None:
    x = leaf(2, 3)

    def function(x: fg.Tensor) -> fg.Tensor:
        return fg.stack([x[0, 0] ** 2, wrong_first(x[1:, 2:]).sum()])

    with pytest.raises(GradcheckError, match=r"input 0, element \(1, 2\): .*output 0, element \(1,\)"):
        gradcheck(function, x)


def test_an_input_without_effect_has_gradients_of_zero() -> None:
    assert gradcheck(lambda x, y: x * 2, [leaf(2), leaf(3)])
    assert gradgradcheck(lambda x, y: x * 2, [leaf(2), leaf(3)])
    assert gradgradcheck(lambda x: fg.ones(2, dtype=fg.float64), leaf(2))


def test_seeds_may_be_given() -> None:
    x, seed = leaf(2), leaf(2)
    assert gradgradcheck(lambda x: x.exp(), x, seed)
    assert gradgradcheck(lambda x: (x.exp(), x.sin()), x, [seed, fg.ones(2, dtype=fg.float64)])
    with pytest.raises(fg.ConfigError, match="gradgradcheck: expected 2 grad_outputs, one an output, got 1"):
        gradgradcheck(lambda x: (x, x), x, [seed])


def test_backward_passes_that_differ_are_found() -> None:
    rng = np.random.default_rng(0)

    class Noisy(Function):
        @staticmethod
        def forward(ctx: Any, x: fg.Tensor) -> fg.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: fg.Tensor) -> fg.Tensor:
            return g * (2 + 1e-9 * rng.random())

    with pytest.raises(GradcheckError, match="two backward passes of output 0 differ by"):
        gradcheck(Noisy.apply, leaf(2))
    assert gradcheck(Noisy.apply, leaf(2), nondet_tol=1e-8)


def test_bad_input() -> None:
    for check in (gradcheck, gradgradcheck):
        with pytest.raises(fg.ConfigError, match="no input requires a gradient"):
            check(lambda x: x, fg.ones(2, dtype=fg.float64))
        with pytest.raises(fg.DTypeError, match="input 0 must be float64, got float32"):
            check(lambda x: x, fg.ones(2, requires_grad=True))
        with pytest.raises(
            fg.ConfigError, match="nondet_tol: expected a finite number of at least 0, got -1"
        ):
            check(lambda x: x, leaf(2), nondet_tol=-1)
        with pytest.raises(fg.DTypeError, match="output 0 of the function is int, not a Tensor"):
            check(lambda x: [3], leaf(2))
