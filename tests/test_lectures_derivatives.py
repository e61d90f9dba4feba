"""The lectures' Jacobians and Hessians (rows A11 to A13, A15, A21), by `fg.func`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import func

RNG = np.random.default_rng(12)


def test_a11_the_jacobian_of_relu_is_a_diagonal_of_zeros_and_ones() -> None:
    x = RNG.normal(size=64)
    found = func.jacobian(fg.Tensor.relu)(fg.tensor(x)).numpy()
    np.testing.assert_array_equal(found, np.diag((x > 0).astype(float)))


def test_a11_a_jacobian_that_cannot_fit_is_refused_with_its_size() -> None:
    with pytest.raises(MemoryError, match=r"256000000000000 bytes for shape \(8000000, 8000000\)"):
        func.jacobian(fg.Tensor.relu)(fg.zeros(8_000_000))


def test_a12_jacobians_of_matrix_products() -> None:
    w, v, x = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 4)), RNG.normal(size=3)
    W, V, X = fg.tensor(w), fg.tensor(v), fg.tensor(x)
    by_w, by_x = func.jacobian(lambda W, x: W @ x, argnums=(0, 1))(W, X)
    np.testing.assert_array_equal(by_x.numpy(), w)
    expected = np.zeros((4, 4, 3))
    expected[np.arange(4), np.arange(4)] = x
    np.testing.assert_array_equal(by_w.numpy(), expected)
    np.testing.assert_allclose(func.jacobian(lambda x: V @ (W @ x))(X).numpy(), v @ w, rtol=1e-14)
    # Rows: each row of the product moves with its own row only.
    rows = RNG.normal(size=(5, 4))
    found = func.jacobian(lambda X: X @ W)(fg.tensor(rows)).numpy()
    for i in range(5):
        for j in range(5):
            np.testing.assert_array_equal(found[i, :, j], w.T if i == j else np.zeros((3, 4)))


def test_a13_reverse_forward_differences_and_a_formula_agree() -> None:
    def function(x: fg.Tensor) -> fg.Tensor:
        a, b, c, d, e = (x[i] for i in range(5))
        return fg.stack([a * b + c.sin(), d.exp() * e, a * a / e])

    at = RNG.uniform(0.5, 1.5, 5)
    a, b, c, d, e = at
    formula = np.array(
        [
            [b, a, np.cos(c), 0, 0],
            [0, 0, 0, np.exp(d) * e, np.exp(d)],
            [2 * a / e, 0, 0, 0, -((a / e) ** 2)],
        ]
    )
    x = fg.tensor(at)
    _, pull = func.vjp(function, x)
    reverse = np.stack([pull(seed)[0].numpy() for seed in fg.eye(3, dtype=fg.float64)])
    units = fg.eye(5, dtype=fg.float64)
    forward = np.stack([func.jvp(function, (x,), (unit,))[1].numpy() for unit in units], axis=1)
    steps = 1e-6 * np.eye(5)
    differences = np.stack(
        [(function(fg.tensor(at + s)).numpy() - function(fg.tensor(at - s)).numpy()) / 2e-6 for s in steps],
        axis=1,
    )
    ways = {
        "reverse": reverse,
        "forward": forward,
        "centred differences": differences,
        "jacobian": func.jacobian(function)(x).numpy(),
    }
    print()
    for name, found in ways.items():
        print(f"A13: {name}: {np.abs(found - formula).max():.1e} from the formula")
        np.testing.assert_allclose(found, formula, atol=1e-7)
    # The exact ones agree to rounding.
    np.testing.assert_allclose(reverse, forward, rtol=1e-14)


def test_a21_three_reverse_sweeps_or_ten_forward_sweeps_make_the_matrix() -> None:
    w = fg.tensor(RNG.normal(size=(3, 10)))

    def function(x: fg.Tensor) -> fg.Tensor:
        return (w @ x.sin()).tanh()

    x = fg.tensor(RNG.normal(size=10))
    _, pull = func.vjp(function, x)
    rows = [pull(seed)[0].numpy() for seed in fg.eye(3, dtype=fg.float64)]
    units = fg.eye(10, dtype=fg.float64)
    columns = [func.jvp(function, (x,), (unit,))[1].numpy() for unit in units]
    np.testing.assert_allclose(np.stack(rows), np.stack(columns, axis=1), rtol=1e-12)


@pytest.mark.parametrize("product", [func.hvp, func.vhp])
def test_a15_a_product_with_the_hessian_needs_no_matrix(product: Callable[..., Any]) -> None:
    # The matrix would take 80 GB.
    x, t = RNG.normal(size=100_000), RNG.normal(size=100_000)

    def function(x: fg.Tensor) -> fg.Tensor:
        return (x**3).sum() / 6 + (x[1:] * x[:-1]).sum()

    _, (found,) = product(function, (fg.tensor(x),), (fg.tensor(t),))
    expected = x * t + np.pad(t[1:], (0, 1)) + np.pad(t[:-1], (1, 0))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
