"""Functions with a backward written by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import func, nn, optim
from ferrograd.autograd import Function, FunctionContext, functional, grad, gradcheck, once_differentiable


class Softplus(Function):
    """log(1 + exp(s x)), through numpy."""

    @staticmethod
    def forward(ctx: FunctionContext, x: fg.Tensor, s: float = 1.0) -> fg.Tensor:
        ctx.save_for_backward(x)
        ctx.s = s  # type: ignore[attr-defined]
        return fg.tensor(np.logaddexp(0.0, s * x.numpy()))

    @staticmethod
    def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        assert x is not None
        s: float = ctx.s  # type: ignore[attr-defined]
        return s * (x * s).sigmoid() * grads[0], None


class Polar(Function):
    """Radius and angle; says in `wanted` which gradients were asked for."""

    wanted: tuple[bool, ...] = ()

    @staticmethod
    def forward(ctx: FunctionContext, x: fg.Tensor, y: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
        ctx.save_for_backward(x, y)
        return (x * x + y * y).sqrt(), fg.tensor(np.arctan2(y.numpy(), x.numpy()))

    @staticmethod
    def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
        x, y = ctx.saved_tensors
        assert x is not None
        assert y is not None
        Polar.wanted = ctx.needs_input_grad
        r = (x * x + y * y).sqrt()
        along, around = grads
        return along * x / r - around * y / (r * r), along * y / r + around * x / (r * r)


def leaf(values: Any) -> fg.Tensor:
    return fg.tensor(np.asarray(values, dtype=np.float64), requires_grad=True)


def test_values_and_gradients_are_right() -> None:
    assert gradcheck(lambda x: Softplus.apply(x, 2.0), leaf([[0.3, -1.2], [0.0, 2.0]]))
    assert gradcheck(lambda x, y: Polar.apply(x, y), [leaf([0.5, -1.0]), leaf([1.5, 0.7])])
    assert gradcheck(lambda x: Softplus.apply(Softplus.apply(x * 2, 1.0), 0.5), leaf(0.4))


class Cube(Function):
    """x^3; keeps its argument."""

    @staticmethod
    def forward(ctx: FunctionContext, *args: Any) -> fg.Tensor:
        ctx.save_for_backward(args[0])
        return fg.tensor(args[0].numpy() ** 3)

    @staticmethod
    def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        assert x is not None
        return 3 * x * x * grads[0]


class Exp(Function):
    """e^x; keeps its result, as an attribute."""

    @staticmethod
    def forward(ctx: FunctionContext, *args: Any) -> fg.Tensor:
        ctx.result = fg.tensor(np.exp(args[0].numpy()))  # type: ignore[attr-defined]
        return ctx.result  # type: ignore[attr-defined, no-any-return]

    @staticmethod
    def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
        return ctx.result * grads[0]  # type: ignore[attr-defined]


class OnceCube(Cube):
    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        assert x is not None
        return fg.tensor(3 * x.numpy() ** 2) * grads[0]


SECOND: list[tuple[Callable[..., Any], list[Any]]] = [
    (lambda x: Softplus.apply(x, 2.0), [[[0.3, -1.2], [0.0, 2.0]]]),
    (lambda x, y: Polar.apply(x, y)[0] + Polar.apply(y * y, x)[1], [[0.5, -1.0], [1.5, 0.7]]),
    (Cube.apply, [[0.4, -2.0]]),
    (Exp.apply, [[0.4, -2.0]]),
    (lambda x: Cube.apply(Exp.apply(x)) * x, [0.3]),
]


@pytest.mark.parametrize(("function", "at"), SECOND)
def test_second_and_third_derivatives_and_forward_mode_are_right(
    function: Callable[..., Any], at: list[Any]
) -> None:
    inputs = [leaf(values) for values in at]
    weights = np.random.default_rng(0).normal(size=inputs[0].shape)

    def slope(*inputs: fg.Tensor) -> Any:
        return grad(function(*inputs), inputs, weights, create_graph=True)

    assert gradcheck(slope, inputs)

    def bend(*inputs: fg.Tensor) -> Any:
        return grad(slope(*inputs)[0].sum(), inputs, create_graph=True, allow_unused=True)

    assert gradcheck(bend, inputs)
    plain = tuple(x.detach() for x in inputs)
    along = tuple(fg.tensor(np.random.default_rng(1).normal(size=x.shape)) for x in plain)
    _, moved = func.jvp(function, plain, along)
    double = functional.jvp(function, plain, along)[1]
    np.testing.assert_allclose(moved.numpy(), double.numpy(), rtol=1e-12)
    step = 1e-6
    up, down = (function(*[x + s * t for x, t in zip(plain, along, strict=True)]) for s in (step, -step))
    np.testing.assert_allclose(moved.numpy(), (up.numpy() - down.numpy()) / (2 * step), rtol=1e-6)

    def total(*inputs: fg.Tensor) -> fg.Tensor:
        return (function(*inputs) * fg.tensor(weights)).sum()

    for one, other in zip(func.hvp(total, plain, along)[1], func.vhp(total, plain, along)[1], strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-10, atol=1e-12)


def test_a_function_that_is_differentiable_once_says_so_at_the_second() -> None:
    x = leaf([2.0])
    (slope,) = grad(OnceCube.apply(x), x, create_graph=True)
    assert slope.item() == 12.0
    with pytest.raises(fg.GraphError, match="OnceCube: its backward works on plain numbers"):
        slope.backward()
    with pytest.raises(fg.GraphError, match="OnceCube: its backward works on plain numbers"):
        func.jvp(OnceCube.apply, (x.detach(),), (x.detach(),))
    assert gradcheck(OnceCube.apply, x)


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: fg.tensor(x.numpy()),
        lambda x: fg.tensor(np.asarray(x)),
        lambda x: fg.tensor(x),
        lambda x: fg.tensor(x.tolist()),
        lambda x: x[0].item(),
        lambda x: float(x[0]),
    ],
)
def test_values_that_leave_the_graph_are_no_constants(leave: Callable[[fg.Tensor], Any]) -> None:
    class Left(Cube):
        @staticmethod
        def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
            (x,) = ctx.saved_tensors
            assert x is not None
            return 3 * leave(x) * x * grads[0]

    x = leaf([2.0])
    assert gradcheck(Left.apply, x)
    with pytest.raises(fg.GraphError, match="backward: values left the graph"):
        grad(Left.apply(x), x, create_graph=True)
    # Elsewhere they may.
    assert x.numpy().tolist() == [2.0]


def test_what_forward_keeps_besides_has_no_derivative() -> None:
    class Kept(Cube):
        @staticmethod
        def forward(ctx: FunctionContext, *args: Any) -> fg.Tensor:
            ctx.save_for_backward(args[0] * args[0])
            ctx.positive = args[0] > 0  # type: ignore[attr-defined]
            return args[0] ** 3

        @staticmethod
        def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
            (square,) = ctx.saved_tensors
            assert square is not None
            return 3 * square * grads[0]

    x = leaf([2.0])
    assert gradcheck(Kept.apply, x)
    with pytest.raises(fg.GraphError, match="Kept: forward kept a tensor that is neither"):
        grad(Kept.apply(x), x, create_graph=True)


def test_a_wrong_backward_is_found() -> None:
    class Wrong(Softplus):
        @staticmethod
        def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
            return grads[0], None

    assert not gradcheck(lambda x: Wrong.apply(x, 1.0), leaf([0.3]), raise_exception=False)


def test_the_context_says_which_gradients_are_wanted() -> None:
    x, y = leaf([1.0]), fg.tensor([2.0], dtype=fg.float64)
    Polar.apply(x, y)[0].backward()
    assert Polar.wanted == (True, False)
    assert y.grad is None


def test_a_function_used_twice_keeps_its_uses_apart() -> None:
    x = leaf([1.0, -2.0])
    first, second = Softplus.apply(x, 1.0), Softplus.apply(x, 3.0)
    (second + first).sum().backward()
    expected = 1 / (1 + np.exp(-x.detach().numpy())) + 3 / (1 + np.exp(-3 * x.detach().numpy()))
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12)


def test_none_is_a_gradient_of_zero() -> None:
    class First(Function):
        @staticmethod
        def forward(ctx: FunctionContext, *args: fg.Tensor) -> fg.Tensor:
            return args[0] + 0.0

        @staticmethod
        def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
            return grads[0], None

    x, y = leaf([1.0]), leaf([2.0])
    First.apply(x, y).backward()
    assert y.grad is not None
    assert y.grad.tolist() == [0.0]


class Layer(nn.Module):
    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.outer = nn.Linear(4, 2)
        self.by_hand = by_hand

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        hidden = self.inner(x)
        return self.outer(Softplus.apply(hidden, 1.0) if self.by_hand else hidden.softplus())


def test_it_trains_in_a_plan_on_batches_that_differ() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    found = []
    for by_hand in (True, False):
        fg.manual_seed(0)
        model = Layer(by_hand).double()
        trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5))
        trainer.fit(x, y, epochs=3, batch_size=8, seed=1, progress=False)
        found.append(trainer.predict(x))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10, atol=1e-13)


# Bad input


def made(output: Any, gradient: Any = None) -> fg.Tensor:
    """The result of a function of (tensor, number) whose methods return these."""

    class Odd(Function):
        @staticmethod
        def forward(ctx: FunctionContext, *args: Any) -> Any:
            return args[0] * 2 if output is None else output

        @staticmethod
        def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
            return ctx.saved_tensors if gradient is None else gradient

    result: fg.Tensor = Odd.apply(leaf([1.0, 2.0]), 3)
    return result.sum()


def freed() -> None:
    y = Softplus.apply(leaf([1.0]), 1.0)
    y.backward()
    y.backward()


def saved_number() -> None:
    FunctionContext(()).save_for_backward(1.0)  # type: ignore[arg-type]


ONES = fg.ones(2, dtype=fg.float64)
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Softplus.apply(1.0), fg.GraphError, "Softplus.apply: none of the arguments is a Tensor"),
    (lambda: Function.apply(leaf([1.0])), fg.GraphError, "defines no forward"),
    (lambda: made(2.0), fg.DTypeError, "Odd: forward must return Tensors, got float"),
    (lambda: made(None, "x").backward(), fg.GraphError, "each of 2 arguments, got 1"),
    (lambda: made(None, ("x", None)).backward(), fg.DTypeError, "Odd: backward must return Tensors, got str"),
    (lambda: made(None, (ONES, ONES)).backward(), fg.GraphError, "argument 1, which is no Tensor"),
    (lambda: made(None, (ONES[:1], None)).backward(), fg.ShapeError, r"argument 0 must have shape \(2,\)"),
    (lambda: made(None).backward(), fg.GraphError, "saved nothing"),
    (freed, fg.GraphError, "freed by an earlier backward"),
    (saved_number, fg.DTypeError, "save_for_backward: argument 0 is float"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


class Held(fg.autograd.Function):
    """x^3 with x kept as `how` says."""

    @staticmethod
    def forward(ctx: Any, x: fg.Tensor, how: str) -> fg.Tensor:
        ctx.how = how
        if how == "list":
            ctx.held = [x]
        elif how == "dict":
            ctx.held = {"x": (x, 1)}
        elif how == "closure":
            ctx.held = lambda: 3 * x**2
        elif how == "array":
            ctx.held = x.numpy()
        return x**3

    @staticmethod
    def backward(ctx: Any, g: fg.Tensor) -> tuple[fg.Tensor, None]:
        held = ctx.held
        if ctx.how == "closure":
            return held() * g, None
        x = {"list": lambda: held[0], "dict": lambda: held["x"][0], "array": lambda: fg.tensor(held)}[
            ctx.how
        ]()
        return 3 * x**2 * g, None


@pytest.mark.parametrize("how", ["list", "dict"])
def test_tensors_in_containers_are_parts_of_the_graph(how: str) -> None:
    x = fg.tensor([1.0, 2.0], dtype=fg.float64)
    hessian = fg.func.hessian(lambda a: Held.apply(a, how).sum())(x)
    assert hessian.tolist() == [[6.0, 0.0], [0.0, 12.0]]


@pytest.mark.parametrize(("how", "kind"), [("closure", "function"), ("array", "ndarray")])
def test_values_that_are_hidden_from_the_graph_raise(how: str, kind: str) -> None:
    x = fg.tensor([1.0, 2.0], dtype=fg.float64, requires_grad=True)
    Held.apply(x, how).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 12.0]
    with pytest.raises(fg.GraphError, match=f"forward kept a {kind}"):
        fg.autograd.grad(Held.apply(x, how).sum(), x, create_graph=True)


def test_results_of_forward_are_floating() -> None:
    class Above(fg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: fg.Tensor) -> fg.Tensor:
            return x > 1

    with pytest.raises(fg.DTypeError, match=r"Above: forward must return floating tensors, got .*bool"):
        Above.apply(fg.tensor([1.0, 2.0]))


class Parts(Function):
    """The square and, without gradients, the sign and the place of the largest; forward has no context."""

    seen: tuple[fg.Tensor, ...] = ()

    @staticmethod
    def forward(x: fg.Tensor) -> Any:  # type: ignore[override]
        return x * x, x > 0, x.argmax()

    @staticmethod
    def setup_context(ctx: FunctionContext, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: FunctionContext, *grads: fg.Tensor) -> Any:
        Parts.seen = grads
        return 2 * ctx.saved_tensors[0] * grads[0]  # type: ignore[operator]


def test_a_forward_without_context_and_results_without_gradient() -> None:
    x = leaf([1.0, -3.0])
    squares, signs, place = Parts.apply(x)
    assert (signs.tolist(), signs.dtype, place.item(), place.dtype) == ([True, False], fg.bool, 0, fg.int64)
    assert (squares.requires_grad, signs.requires_grad, place.requires_grad) == (True, False, False)
    (slope,) = grad(squares.sum(), x)
    assert slope is not None
    assert slope.tolist() == [2.0, -6.0]
    assert [g.tolist() for g in Parts.seen] == [[1.0, 1.0], [0.0, 0.0], 0.0]
    assert gradcheck(lambda x: Parts.apply(x)[0], leaf([0.3, -0.7]))
    assert fg.autograd.gradgradcheck(lambda x: Parts.apply(x)[0], leaf([0.3, -0.7]))


def test_results_without_gradient_in_a_trainer() -> None:
    data = np.array([[1.0, -3.0, 2.0], [0.5, 2.0, -1.0]])
    runs = []
    for chosen in (True, False):
        fg.manual_seed(0)
        layer = nn.Linear(3, 3).double()

        def model(x: fg.Tensor, layer: Any = layer, chosen: bool = chosen) -> fg.Tensor:
            z = layer(x)
            if chosen:
                squares, signs, _ = Parts.apply(z)
                return fg.where(signs, squares, -squares)
            return z * z.abs()

        made = fg.Trainer(model, nn.MSELoss(), optim.SGD(layer.parameters(), lr=0.01))
        runs.append([made.train_step(data, data) for _ in range(5)])
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-12)


def test_marks_that_do_not_fit_are_named() -> None:
    class Stranger(Function):
        @staticmethod
        def forward(ctx: FunctionContext, x: fg.Tensor) -> fg.Tensor:
            ctx.mark_non_differentiable(fg.ones(1))
            return x * 2

    with pytest.raises(
        fg.GraphError, match="Stranger: mark_non_differentiable got a tensor that is no result"
    ):
        Stranger.apply(leaf(1.0))

    class Wide(Function):
        @staticmethod
        def forward(ctx: FunctionContext, x: fg.Tensor) -> Any:
            count = fg.tensor(2**24 + 1)
            ctx.mark_non_differentiable(count)
            return x * 2, count

    assert Wide.apply(leaf(1.0))[1].item() == 2**24 + 1
    with pytest.raises(fg.DTypeError, match="integers that are no float32"):
        Wide.apply(fg.tensor(1.0))
    with pytest.raises(fg.DTypeError, match="mark_non_differentiable: argument 0: expected a Tensor, got 3"):
        FunctionContext(()).mark_non_differentiable(3)  # type: ignore[arg-type]

    class Half(Function):
        @staticmethod
        def forward(x: fg.Tensor) -> fg.Tensor:  # type: ignore[override]
            return x / 2

        @staticmethod
        def setup_context(ctx: FunctionContext, inputs: tuple[Any, ...], output: Any) -> None:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        Half.apply(leaf(1.0))
