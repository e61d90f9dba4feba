"""What lectures show about the cost of derivatives, counted: rows A11, A14, A15, A21; times are printed."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import _core, func

RNG = np.random.default_rng(8)
Function = Callable[..., fg.Tensor]


def operations(function: Callable[[], Any]) -> int:
    """Count operations; sums of gradients are not among them."""
    count: int = _core.counted(function)[1]
    return count


def kept(result: fg.Tensor) -> list[tuple[int, int, int]]:
    return _core.recorded([result])


def test_a11_memory_of_backward_is_linear_in_the_elements() -> None:
    # The matrix of one vector would take 64 MiB, of a batch of 16 it would take 16 GiB, of 100 625 GiB.
    assert 4096**2 * 4 == 64 << 20
    bytes_kept = {}
    for batch in (1, 16, 100):
        x = fg.zeros(batch, 4096, requires_grad=True)
        assert (batch * 4096) ** 2 * 4 == batch**2 * (64 << 20)
        y = (x * 1.0).relu()
        bytes_kept[batch] = sum(op[2] for op in kept(y))
        y.backward(fg.ones(batch, 4096))
    assert bytes_kept == {batch: batch * 4096 * 4 for batch in (1, 16, 100)}
    with pytest.raises(MemoryError, match=r"shape \(4194304, 4194304\)"):
        func.jacobian(fg.Tensor.relu)(fg.zeros(1024 * 4096))


UNARY: list[Function] = [fg.exp, fg.log, fg.sin, fg.sqrt, fg.sigmoid, fg.tanh]
BINARY: list[Function] = [fg.Tensor.__add__, fg.Tensor.__sub__, fg.Tensor.__mul__, fg.Tensor.__truediv__]


def program(seed: int, steps: int, unary: list[Function], binary: list[Function]) -> Function:
    """A random function of so many operations; each step may use every earlier result."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(unary) + len(binary), steps)
    sources = [rng.integers(0, 3 + step, 2) for step in range(steps)]

    def function(*inputs: fg.Tensor) -> fg.Tensor:
        values = list(inputs)
        for pick, (first, second) in zip(picks, sources, strict=True):
            if pick < len(unary):
                values.append(unary[pick](values[first]))
            else:
                values.append(binary[pick - len(unary)](values[first], values[second]))
        return values[-1]

    return function


def both(function: Function, inputs: tuple[fg.Tensor, ...]) -> int:
    """Operations of the value and of its gradient by all inputs."""
    return operations(lambda: func.vjp(function, *inputs)[1](fg.ones(7)))


def test_a14_value_and_gradient_cost_at_most_five_values() -> None:
    inputs = tuple(fg.tensor(RNG.uniform(0.5, 1.5, 7).astype(np.float32)) for _ in range(3))
    # Each operation alone.
    worst = 0.0
    for op in UNARY:
        assert operations(lambda op=op: op(inputs[0])) == 7
        worst = max(worst, both(op, inputs[:1]) / 7)
    for op in BINARY:
        assert operations(lambda op=op: op(*inputs[:2])) == 7
        worst = max(worst, both(op, inputs[:2]) / 7)
    assert worst == 5
    ratios = []
    for seed in range(40):
        function = program(seed, 60, UNARY, BINARY)
        ratios.append(both(function, inputs) / operations(lambda function=function: function(*inputs)))
    print(f"\nA14: value + gradient over value, counted: at most {max(ratios):.2f}")
    assert 1 < max(ratios) <= 5
    # Polynomials, by multiplications alone.
    ratios = []
    for seed in range(40):
        function = program(seed, 60, [], [fg.Tensor.__mul__])
        ratios.append(both(function, inputs) / operations(lambda function=function: function(*inputs)))
    print(f"A14: the same for products: at most {max(ratios):.2f}")
    assert 1 < max(ratios) <= 3


@pytest.mark.parametrize(("n", "m"), [(10, 3), (3, 10)])
def test_a14_a_jacobian_costs_m_times_that_in_reverse_and_n_times_in_forward_mode(n: int, m: int) -> None:
    inputs = tuple(fg.tensor(RNG.uniform(0.5, 1.5, 7)) for _ in range(n))

    def function(*inputs: fg.Tensor) -> list[fg.Tensor]:
        values = list(inputs)
        for step in range(60):
            first, second = values[-1 - step % n], values[-1 - step % 2]
            values.append((BINARY[step % 4](first, second), UNARY[step % 6](first))[step % 3 == 0])
        return values[-m:]

    value = operations(lambda: function(*inputs))
    _, pull = func.vjp(function, *inputs)
    reverse = [
        operations(lambda i=i: pull([fg.ones(7) if i == k else fg.zeros(7) for k in range(m)]))
        for i in range(m)
    ]
    assert value + sum(reverse) <= m * 5 * value
    ones, zeros = fg.ones(7, dtype=fg.float64), fg.zeros(7, dtype=fg.float64)
    forward = [
        operations(lambda j=j: func.jvp(function, inputs, tuple(ones if j == k else zeros for k in range(n))))
        for j in range(n)
    ]
    print(f"\nA14: n={n}, m={m}: value {value}, reverse {value + sum(reverse)}, forward {sum(forward)}")
    assert max(forward) <= 5 * value
    assert sum(forward) <= n * 5 * value


def test_a14_costs_are_reported_with_times() -> None:
    x = fg.tensor(RNG.normal(size=200))
    found = func.cost(lambda x: (x.sin() * x).sum(), x)
    assert (found.inputs, found.value.operations) == (200, 600)
    # cos, and two products; the seed is spread without one.
    assert found.gradient.operations == 600 + 200 * 4
    assert found.gradient.sums == 200
    assert found.differences.operations == 400 * 600
    assert not found.differences.extrapolated
    assert found.kept_bytes == 200 * 8
    for work in (found.value, found.gradient, found.product, found.differences):
        assert work.seconds > 0
    assert found.to_dict()["value"]["operations"] == 600
    lines = str(found).splitlines()
    assert lines[0].split() == ["operations", "per", "value", "sums", "seconds", "per", "value"]
    assert lines[2].startswith("value + gradient")
    assert lines[2].split()[3:6] == ["1,400", "2.33", "200"]
    assert lines[-1] == "inputs: 200; kept for backward: 1,600 bytes"
    print(f"\n{found}")


def test_a14_what_is_too_long_is_extrapolated_and_says_so() -> None:
    x = fg.zeros(300_000)
    found = func.cost(lambda x: (x * x).sum(), x)
    assert found.differences.extrapolated
    assert found.differences.seconds == 600_000 * found.value.seconds
    assert "(extrapolated)" in str(found)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: func.cost(lambda: fg.zeros(1)), fg.ConfigError, "cost: primals must be a tuple"),
        (lambda: func.cost(lambda x: x, fg.zeros(2)), fg.ShapeError, "cost: the function must return one"),
        (lambda: func.cost(lambda x: x.sum(), fg.tensor([1])), fg.DTypeError, "input 0 must be float32"),
        (lambda: func.cost(lambda x: 1.0, fg.zeros(2)), fg.DTypeError, "cost: .* tensor, .*, got float"),
        (lambda: func.cost(lambda x: x.sum(), "x"), fg.DTypeError, "an input must be a tensor"),
    ],
)
def test_a14_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a15_a_hessian_product_costs_a_few_gradients_at_any_size() -> None:
    def rosenbrock(x: fg.Tensor) -> fg.Tensor:
        return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()

    def waves(x: fg.Tensor) -> fg.Tensor:
        return (x.sin() * x.exp()).sum()

    for name, function in (("rosenbrock", rosenbrock), ("waves", waves)):
        ratios = []
        for n in (10, 1000, 100_000):
            x = fg.tensor(RNG.uniform(-1, 1, n))
            slope = operations(lambda function=function, x=x: func.value_and_grad(function)(x))
            product, largest = 0, 0

            def run(function: Function = function, x: fg.Tensor = x) -> None:
                func.hvp(function, (x,), (fg.ones_like(x).detach(),))

            product = operations(run)
            # No matrix: nothing that is kept has more elements than a few vectors.
            tracked = x.clone().requires_grad_()
            (gradient,) = fg.autograd.grad(function(tracked), tracked, create_graph=True)
            largest = max(op[2] for op in kept(gradient))
            assert largest <= 4 * 8 * n
            ratios.append(product / slope)
            cost = func.cost(function, x)
            timed = cost.product.seconds / cost.gradient.seconds
            print(f"\nA15: {name}, n={n}: {ratios[-1]:.2f} times the operations, {timed:.2f} times the time")
        assert max(ratios) <= 6
        assert max(ratios) < 1.2 * min(ratios)


def logistic(steps: int) -> Function:
    def function(x: fg.Tensor) -> fg.Tensor:
        for _ in range(steps - 1):
            x = 4 * x * (1 - x)
        return x

    return function


# Symbols: a product (number, factors) of factors "x" or a sum, which is a tuple of products.
Product = tuple[float, tuple[Any, ...]]


def simplified(terms: list[Product]) -> tuple[Product, ...]:
    """Multiply numbers into a lone sum, and collect terms of the same factors."""
    spread: list[Product] = []
    for number, factors in terms:
        if len(factors) == 1 and factors[0] != "x":
            spread += [(number * inner, rest) for inner, rest in factors[0]]
        else:
            spread.append((number, factors))
    collected: dict[tuple[Any, ...], float] = {}
    for number, factors in spread:
        collected[factors] = collected.get(factors, 0.0) + number
    return tuple((number, factors) for factors, number in collected.items() if number)


def symbolic(product: Product) -> tuple[Product, ...]:
    """Differentiate by x: the product rule, nothing shared."""
    number, factors = product
    terms: list[Product] = []
    for i, factor in enumerate(factors):
        others = factors[:i] + factors[i + 1 :]
        inner = ((1.0, ()),) if factor == "x" else simplified([t for term in factor for t in symbolic(term)])
        if all(not rest for _, rest in inner):
            terms.append((number * sum(c for c, _ in inner), others))
        else:
            terms.append((number, (*others, inner)))
    return simplified(terms)


def size(terms: tuple[Product, ...]) -> int:
    """Operations of a sum as it is written."""
    parts = [
        (abs(number) != 1) + len(factors) - 1 + sum(size(f) for f in factors if f != "x")
        for number, factors in terms
        if factors
    ]
    return sum(parts) + len(terms) - 1


def test_a21_a_symbolic_derivative_swells_where_the_graph_grows_by_the_step() -> None:
    product: Product = (1.0, ("x",))
    sizes = []
    for _ in range(2, 7):
        one_minus = ((1.0, ()), (-product[0], product[1]))
        product = (4 * product[0], (*product[1], one_minus))
        sizes.append(size(symbolic(product)))
    assert sizes == [2, 21, 82, 264, 768]
    x = fg.tensor(np.full(1000, 0.3), requires_grad=True)
    recorded = [kept(logistic(steps)(x)) for steps in range(2, 40)]
    nodes = [len(ops) for ops in recorded]
    memory = [sum(op[2] for op in ops) for ops in recorded]
    assert {after - before for before, after in pairwise(nodes)} == {4}
    assert len({after - before for before, after in pairwise(memory)}) == 1
    work = [
        operations(lambda s=s: func.value_and_grad(lambda x: logistic(s)(x).sum())(x)) for s in range(2, 40)
    ]
    assert len({after - before for before, after in pairwise(work)}) == 1
    print(f"\nA21: symbolic {sizes}; graph {nodes[1] - nodes[0]} nodes, {memory[1] - memory[0]} bytes a step")


def test_a21_the_fourth_logistic_map() -> None:
    value, slope = func.value_and_grad(logistic(4))(fg.tensor(0.3, dtype=fg.float64))
    assert value.item() == pytest.approx(0.99434496, rel=1e-14)
    assert slope.item() == pytest.approx(1.3090816, rel=1e-13)
