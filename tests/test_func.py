"""`fg.func` and `fg.autograd.functional`: shapes, arrangements, nesting, what is recorded, errors."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import func
from ferrograd.autograd import functional

RNG = np.random.default_rng(3)
A = RNG.normal(size=(3, 4))
B = RNG.normal(size=4)


def f64(values: object, requires_grad: bool = False) -> fg.Tensor:
    return fg.tensor(np.array(values, dtype=np.float64), requires_grad=requires_grad)


def energy(x: fg.Tensor, y: fg.Tensor) -> fg.Tensor:
    return ((x.sin() @ y.exp()) ** 2).sum() + (x * y).sum()


def differences(function: Callable[..., fg.Tensor], arrays: list[Any], which: int) -> Any:
    """The Jacobian by one array, of the output's shape and the array's."""
    columns = []
    for j in range(arrays[which].size):
        sides = []
        for step in (1e-6, -1e-6):
            moved = [array.copy() for array in arrays]
            moved[which].reshape(-1)[j] += step
            sides.append(function(*map(fg.tensor, moved)).numpy())
        columns.append((sides[0] - sides[1]) / 2e-6)
    return np.stack(columns, axis=-1).reshape(columns[0].shape + arrays[which].shape)


def test_grad_is_that_of_centred_differences_and_of_backward() -> None:
    x, y = f64(A, True), f64(B, True)
    energy(x, y).backward()
    dx, dy = func.grad(energy, argnums=(0, 1))(f64(A), f64(B))
    assert x.grad is not None
    assert y.grad is not None
    assert (dx.numpy() == x.grad.numpy()).all()
    assert (dy.numpy() == y.grad.numpy()).all()
    np.testing.assert_allclose(dx.numpy(), differences(energy, [A, B], 0), rtol=1e-6, atol=1e-7)
    assert func.grad(energy, argnums=-1)(f64(A), f64(B)).tolist() == dy.tolist()
    value, (again, _) = func.value_and_grad(energy, argnums=(0, 1))(f64(A), f64(B))
    assert value.item() == energy(f64(A), f64(B)).item()
    assert again.tolist() == dx.tolist()


class Point(NamedTuple):
    x: fg.Tensor
    rest: dict[str, Any]


def test_arguments_and_outputs_are_trees() -> None:
    point = Point(f64([1.0, 2.0]), {"w": [f64(3.0)], "unused": f64([[1.0]])})

    def norm(p: Point, scale: float, *, shift: float) -> fg.Tensor:
        return (p.x.square().sum() * p.rest["w"][0]) * scale + shift

    slope = func.grad(norm)(point, 2.0, shift=1.0)
    assert isinstance(slope, Point)
    assert slope.x.tolist() == [12.0, 24.0]
    assert slope.rest["w"][0].item() == 10.0
    assert slope.rest["unused"].tolist() == [[0.0]]

    jacobian = func.jacobian(lambda x: {"square": x.square(), "sum": (x.sum(),)})(f64([1.0, 2.0]))
    assert jacobian["square"].tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert jacobian["sum"][0].tolist() == [1.0, 1.0]

    output, pull = func.vjp(lambda p: [p.x * 2, p.rest["w"][0]], point)
    assert [part.tolist() for part in output] == [[2.0, 4.0], 3.0]
    (pulled,) = pull([f64([1.0, 10.0]), f64(5.0)])
    assert (pulled.x.tolist(), pulled.rest["w"][0].item()) == ([2.0, 20.0], 5.0)


def test_aux_is_passed_on() -> None:
    def both(x: fg.Tensor) -> tuple[fg.Tensor, dict[str, Any]]:
        return x.square().sum(), {"doubled": x * 2, "name": "a"}

    x = f64([1.0, 2.0])
    for slope, aux in (
        func.grad(both, has_aux=True)(x),
        func.jacobian(both, has_aux=True)(x),
        func.value_and_grad(lambda x: (both(x)[0], both(x)[1]), has_aux=True)(x)[::-1],
    ):
        extra = aux if isinstance(aux, dict) else aux[1]
        assert slope.tolist() == [2.0, 4.0]
        assert extra["doubled"].tolist() == [2.0, 4.0]
        assert not extra["doubled"].requires_grad
        assert extra["name"] == "a"
    assert func.vjp(both, x, has_aux=True)[2]["name"] == "a"
    assert func.jvp(both, (x,), (x,), has_aux=True)[2]["name"] == "a"
    # It may depend on what the output does not depend on.
    w = f64(2.0, True)
    func.grad(lambda x: (x.sum(), w * 3), has_aux=True)(x)[1].backward()
    assert w.grad is not None
    assert w.grad.item() == 3.0
    # No name of an argument is taken.
    assert func.grad(lambda x, func, owner: (x * func).sum())(x, func=2.0, owner=None).tolist() == [2.0, 2.0]
    with pytest.raises(fg.DTypeError, match="grad: with has_aux the function must return a pair"):
        func.grad(energy, has_aux=True)(f64(A), f64(B))


def test_products_are_those_with_the_matrices() -> None:
    def function(x: fg.Tensor, y: fg.Tensor) -> fg.Tensor:
        return (x * y).tanh() @ y

    x, y, v, t = f64(A), f64(B), f64(RNG.normal(size=3)), (f64(RNG.normal(size=(3, 4))), f64(B[::-1].copy()))
    jx, jy = func.jacobian(function, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(jx.numpy(), differences(function, [A, B], 0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jy.numpy(), differences(function, [A, B], 1), rtol=1e-6, atol=1e-8)
    _, pull = func.vjp(function, x, y)
    for _ in range(2):
        vx, vy = pull(v)
        np.testing.assert_allclose(vx.numpy(), np.tensordot(v.numpy(), jx.numpy(), 1), rtol=1e-12)
        np.testing.assert_allclose(vy.numpy(), v.numpy() @ jy.numpy(), rtol=1e-12)
    expected = np.tensordot(jx.numpy(), t[0].numpy(), 2) + jy.numpy() @ t[1].numpy()
    for moved in (func.jvp(function, (x, y), t)[1], functional.jvp(function, (x, y), t)[1]):
        np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(functional.vjp(function, (x, y), v)[1][0].numpy(), vx.numpy(), rtol=0)
    for one, other in zip(functional.jacobian(function, (x, y)), (jx, jy), strict=True):
        assert one.tolist() == other.tolist()


def test_second_derivatives_agree_with_centred_differences_in_every_form() -> None:
    x, y = f64(A), f64(B)
    t = (f64(RNG.normal(size=(3, 4))), f64(RNG.normal(size=4)))
    blocks = func.hessian(energy, argnums=(0, 1))(x, y)
    again = functional.hessian(energy, (x, y))
    products = [np.zeros((3, 4)), np.zeros(4)]
    for a in range(2):
        for b in range(2):
            numeric = differences(func.grad(energy, argnums=a), [A, B], b)
            np.testing.assert_allclose(blocks[a][b].numpy(), numeric, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(again[a][b].numpy(), blocks[a][b].numpy(), rtol=1e-12)
            products[a] += np.tensordot(blocks[a][b].numpy(), t[b].numpy(), t[b].dim())
    for value, found in (
        func.hvp(energy, (x, y), t),
        func.vhp(energy, (x, y), t),
        functional.hvp(energy, (x, y), t),
        functional.vhp(energy, (x, y), t),
    ):
        assert value.item() == energy(x, y).item()
        for one, expected in zip(found, products, strict=True):
            np.testing.assert_allclose(one.numpy(), expected, rtol=1e-11, atol=1e-12)


def test_derivatives_nest_and_keep_their_variables_apart() -> None:
    cube = func.grad(func.grad(func.grad(lambda x: x**4)))
    assert cube(f64(2.0)).item() == 48.0
    # d/dx (x d/dy (x + y)) at y = x: 1, not 2.
    assert func.grad(lambda x: x * func.grad(lambda y: x + y)(x))(f64(1.0)).item() == 1.0
    # The same in forward mode, inside and outside.
    one = f64(1.0)

    def pushed(x: fg.Tensor) -> fg.Tensor:
        return x * func.jvp(lambda y: x + y, (x,), (one,))[1]

    assert func.jvp(pushed, (one,), (one,))[1].item() == 1.0
    assert func.grad(pushed)(one).item() == 1.0
    slope = func.grad(lambda x: (x**3).sum())
    assert func.jvp(slope, (f64([2.0]),), (f64([1.0]),))[1].tolist() == [12.0]


def test_results_are_recorded_where_something_outside_needs_them() -> None:
    w, x = f64([2.0, 3.0], True), f64([1.0, 1.0])
    plain = func.grad(lambda x: (x**3).sum())(x)
    assert not plain.requires_grad
    # By what the function uses besides: a penalty on the gradient by the input.
    slope = func.grad(lambda x: (w * x**2).sum())(x)
    (slope**2).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [16.0, 24.0]
    # By the argument.
    at = f64([1.0, 2.0], True)
    func.grad(lambda x: (x**3).sum())(at).sum().backward()
    assert at.grad is not None
    assert at.grad.tolist() == [6.0, 12.0]
    # By the direction.
    t = f64([1.0, 1.0], True)
    func.jvp(lambda x: x**2, (x,), (t,))[1].sum().backward()
    assert t.grad is not None
    assert t.grad.tolist() == [2.0, 2.0]
    with fg.no_grad():
        assert not func.grad(lambda x: (w * x**2).sum())(x).requires_grad
        assert not fg.is_grad_enabled()
    assert x.grad is None
    assert not x.requires_grad


@pytest.mark.parametrize(
    "derivative",
    [
        lambda x: functional.vjp(lambda x: (x**3).sum(), x, create_graph=True)[1],
        lambda x: functional.jvp(lambda x: x**3, x, fg.ones_like(x).detach(), create_graph=True)[1],
        lambda x: functional.jacobian(lambda x: (x**3).sum(), x, create_graph=True),
        lambda x: functional.hessian(lambda x: (x**3).sum(), x, create_graph=True),
        lambda x: functional.hvp(lambda x: (x**3).sum(), x, fg.ones_like(x).detach(), create_graph=True)[1],
        lambda x: functional.vhp(lambda x: (x**3).sum(), x, fg.ones_like(x).detach(), create_graph=True)[1],
    ],
)
def test_create_graph_connects_to_the_inputs(derivative: Callable[[fg.Tensor], fg.Tensor]) -> None:
    assert fg.autograd.gradcheck(derivative, f64([0.5, -1.5], True))


def test_without_create_graph_results_are_plain() -> None:
    x, v = f64([1.0, 2.0], True), f64([1.0, 1.0])
    total = [
        functional.jacobian(lambda x: x**2, x),
        functional.hessian(lambda x: (x**2).sum(), x),
        *functional.vjp(lambda x: x**2, x, v),
        *functional.jvp(lambda x: x**2, x, v),
        *functional.hvp(lambda x: (x**2).sum(), x, v),
        *functional.vhp(lambda x: (x**2).sum(), x, v),
    ]
    assert not any(part.requires_grad for part in total)


def test_arrangements_of_functional() -> None:
    x, y = f64([1.0, 2.0]), f64(3.0)
    rows = functional.jacobian(lambda x, y: (x * y, y.exp()), (x, y))
    assert [[part.shape for part in row] for row in rows] == [[(2, 2), (2,)], [(2,), ()]]
    assert functional.jacobian(lambda x: (x, x * 2), x)[1].shape == (2, 2)
    assert functional.jacobian(lambda x, y: x * y, (x, y))[1].tolist() == [1.0, 2.0]
    assert functional.hessian(lambda x: x.sum(), (x,))[0][0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert functional.vjp(lambda y: y**2, y)[1].item() == 6.0
    assert functional.jvp(lambda y: (y**2, y * 3), y)[1][1].item() == 3.0


def test_nothing_depends_and_nothing_is_there() -> None:
    x, v = f64([1.0, 2.0]), f64([1.0, 1.0])
    constant = f64([5.0])
    assert func.grad(lambda x: constant)(x).tolist() == [0.0, 0.0]
    assert func.jvp(lambda x: constant, (x,), (v,))[1].tolist() == [0.0]
    assert functional.jvp(lambda x: constant, x, v)[1].tolist() == [0.0]
    assert func.hvp(lambda x: x.sum(), (x,), (v,))[1][0].tolist() == [0.0, 0.0]
    empty = f64(np.zeros((0, 2)))
    assert func.jacobian(lambda x: x * 2)(empty).shape == (0, 2, 0, 2)
    assert func.jacobian(lambda x: x.sum())(empty).shape == (0, 2)
    assert func.jvp(lambda x: x * 2, (empty,), (empty,))[1].shape == (0, 2)


def test_strict_names_what_does_not_depend() -> None:
    x, v, constant = f64([1.0, 2.0]), f64([1.0, 1.0]), f64([5.0])
    with pytest.raises(fg.GraphError, match="jvp: output 1 depends on no input, which strict refuses"):
        func.jvp(lambda x: (x, constant), (x,), (v,), strict=True)
    with pytest.raises(fg.GraphError, match="vjp: no output depends on input 1, which strict refuses"):
        functional.vjp(lambda x, y: x, (x, x), v, strict=True)
    for derivative in (functional.jacobian, functional.hessian, functional.vjp):
        with pytest.raises(fg.GraphError, match=f"{derivative.__name__}: output 0 depends on no input"):
            derivative(lambda x: constant, x, strict=True)
    for product in (functional.hvp, functional.vhp):
        with pytest.raises(fg.GraphError, match="depends on no input, which strict refuses"):
            product(lambda x: x.sum(), x, v, strict=True)


def test_float32_stays_and_inputs_are_untouched() -> None:
    x = fg.tensor([1.0, 2.0])
    before = x.numpy().tobytes()
    assert func.grad(lambda x: x.square().sum())(x).dtype == fg.float32
    assert func.jvp(lambda x: x.exp(), (x,), (f64([1.0, 1.0]),))[1].dtype == fg.float32
    assert func.jacobian(lambda x: x.exp())(x).dtype == fg.float32
    assert (x.numpy().tobytes(), x.requires_grad, x.grad) == (before, False, None)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: func.grad(lambda x: x * 2)(x),
            fg.ShapeError,
            r"grad: .* one tensor of one element, got \(2,\)",
        ),
        (
            lambda x: func.grad(lambda x: 1.0)(x),
            fg.DTypeError,
            "grad: the function's output must be a tensor",
        ),
        (lambda x: func.grad(lambda x: x.sum())([1.0]), fg.DTypeError, "must be a tensor, .*, got float"),
        (
            lambda x: func.grad(lambda x: x.sum())(fg.tensor([1])),
            fg.DTypeError,
            "input 0 must be float32 or float64",
        ),
        (
            lambda x: func.grad(lambda x: x.sum(), argnums=1)(x),
            fg.ConfigError,
            "argnums must be a position of 1",
        ),
        (lambda x: func.grad(lambda x: x.sum(), argnums=(0, -1))(x), fg.ConfigError, "each argument once"),
        (lambda x: func.jacobian(lambda x: "a")(x), fg.DTypeError, "jacobian: the function's output"),
        (
            lambda x: func.vjp(lambda x: x, x)[1](f64(1.0)),
            fg.ShapeError,
            r"cotangents .* \[\(2,\)\], got \[\(\)\]",
        ),
        (lambda x: func.vjp(lambda: x), fg.ConfigError, r"vjp: primals .*, got \(\)"),
        (lambda x: func.jvp(lambda x: x, x, x), fg.ConfigError, "primals must be a tuple .*, got Tensor"),
        (
            lambda x: func.jvp(lambda x: x, (x,), (f64(1.0),)),
            fg.ShapeError,
            "jvp: tangents must have the shapes",
        ),
        (
            lambda x: func.hvp(lambda x: x, (x,), (x,)),
            fg.ShapeError,
            "hvp: the function must return one tensor",
        ),
        (
            lambda x: func.vhp(lambda x: x.sum(), (x,), (x, x)),
            fg.ShapeError,
            "vhp: cotangents must have the shapes",
        ),
        (lambda x: functional.vjp(lambda x: x, x), fg.ConfigError, r"vjp: v may be left out for .* \(2,\)"),
        (lambda x: functional.jvp(lambda x: x, x, f64(1.0)), fg.ShapeError, "jvp: v must have the shapes"),
        (lambda x: functional.jvp(lambda x: x, x, 1.0), fg.DTypeError, "jvp: v must be a Tensor or a tuple"),
        (
            lambda x: functional.hessian(lambda x: x, x),
            fg.ShapeError,
            "hessian: the function must return one",
        ),
        (
            lambda x: functional.jacobian(lambda x: [x, 1], x),
            fg.DTypeError,
            "output must be .*, got Tensor, int",
        ),
        (
            lambda x: functional.jacobian(lambda x: x, [[1.0]]),
            fg.DTypeError,
            "inputs must be a Tensor or a tuple",
        ),
    ],
)
def test_bad_input_is_named_and_changes_nothing(call: Callable[..., Any], error: Any, text: str) -> None:
    x = f64([1.0, 2.0])
    with pytest.raises(error, match=text):
        call(x)
    assert (x.tolist(), x.requires_grad, fg.is_grad_enabled()) == ([1.0, 2.0], False, True)


def test_an_error_of_the_function_comes_through_and_recording_is_as_before() -> None:
    def broken(x: fg.Tensor) -> fg.Tensor:
        raise KeyError("mine")

    with fg.no_grad():
        with pytest.raises(KeyError, match="mine"):
            func.grad(broken)(f64(1.0))
        assert not fg.is_grad_enabled()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("jacobian", ["func", "inputs", "create_graph", "strict"]),
        ("hessian", ["func", "inputs", "create_graph", "strict"]),
        *((name, ["func", "inputs", "v", "create_graph", "strict"]) for name in ("vjp", "jvp", "hvp", "vhp")),
    ],
)
def test_names_and_order_are_those_of_pytorch(name: str, parameters: list[str]) -> None:
    signature = inspect.signature(getattr(functional, name))
    assert list(signature.parameters) == parameters
    defaults = {"v": None, "create_graph": False, "strict": False}
    for parameter in parameters[2:]:
        assert signature.parameters[parameter].default == defaults[parameter]


class WithSlope(fg.nn.Module):
    """A network beside its derivative by its input, as a differential equation asks for it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        fg.manual_seed(4)
        self.net = fg.nn.Sequential(
            fg.nn.Linear(1, 8, dtype=fg.float64), fg.nn.Tanh(), fg.nn.Linear(8, 1, dtype=fg.float64)
        )

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        if self.mode == "jvp":
            value, slope = func.jvp(self.net, (x,), (fg.ones_like(x),))
        else:
            transform = func.grad if self.mode == "grad" else func.jacobian
            slope = transform(lambda x: self.net(x).sum())(x)
            value = self.net(x)
        return fg.cat([value, slope], 1)


@pytest.mark.parametrize("mode", ["jvp", "grad", "jacobian"])
def test_derivatives_are_trained_in_a_plan_as_in_eager(mode: str) -> None:
    X = np.linspace(0, 1, 12).reshape(12, 1)
    y = np.concatenate([np.sin(X), np.cos(X)], 1)
    model, twin = WithSlope(mode), WithSlope(mode)
    trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    history = trainer.fit(X, y, epochs=3, batch_size=6, shuffle=False, progress=False)
    optimizer = fg.optim.SGD(twin.parameters(), lr=0.1)
    for start in (0, 6) * 3:
        optimizer.zero_grad()
        fg.nn.MSELoss()(twin(fg.tensor(X[start : start + 6])), y[start : start + 6]).backward()
        optimizer.step()
    for trained, eager in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(trained.numpy(), eager.numpy(), rtol=1e-12, atol=1e-14)
    assert history.history["loss"][-1] < history.history["loss"][0]


# Known structure


@pytest.mark.parametrize(
    ("function", "structure", "shape"),
    [
        (lambda x: x.sigmoid() * x, "elementwise", (3, 4)),
        (lambda x: x.exp(), "elementwise", ()),
        (lambda x: x.relu(), "elementwise", (0, 2)),
        (lambda x: x @ fg.tensor(A.T) + 1.0, "rows", (5, 4)),
        (lambda x: x.softmax(-1), "rows", (2, 3, 4)),
        (lambda x: x.sum(-1, keepdim=True), "rows", (6,)),
        (lambda x: x[:, :0], "rows", (2, 3)),
        (lambda x: fg.zeros(2, 3, dtype=fg.float64), "rows", (2, 2)),
    ],
)
def test_a_sparse_jacobian_is_the_jacobian(function: Any, structure: str, shape: tuple[int, ...]) -> None:
    x = f64(RNG.normal(size=shape))
    found = func.sparse_jacobian(function, structure)(x)
    dense = func.jacobian(function)(x).numpy().reshape(found.shape)
    np.testing.assert_allclose(found.to_dense().numpy(), dense, rtol=1e-14)
    assert len(found.indptr) == found.shape[0] + 1
    assert found.indptr[-1] == len(found.indices) == found.values.numel()


def test_a_sparse_jacobian_of_what_has_no_room_for_the_whole_one() -> None:
    x = fg.ones(300_000)
    found = func.sparse_jacobian(lambda x: x * x)(x)
    assert found.values.numel() == 300_000
    assert (found.values.numpy() == 2).all()
    w = f64([2.0, 3.0], True)
    func.sparse_jacobian(lambda x: w * x**2)(f64([1.0, 1.0])).values.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: func.sparse_jacobian(fg.exp, "banded"), fg.ConfigError, "'elementwise' or 'rows'"),
        (lambda x: func.sparse_jacobian(lambda x: x.flip(0))(x), fg.ConfigError, "is not elementwise"),
        (lambda x: func.sparse_jacobian(lambda x: x.cumsum(0), "rows")(x), fg.ConfigError, "is not rows"),
        (
            lambda x: func.sparse_jacobian(lambda x: x.sum())(x),
            fg.ShapeError,
            r"shape \(\) .* not elementwise",
        ),
        (lambda x: func.sparse_jacobian(lambda x: (x, x))(x), fg.ShapeError, "one input and one output"),
        (lambda x: func.sparse_jacobian(fg.exp)(fg.tensor([1])), fg.DTypeError, "float32 or float64"),
    ],
)
def test_another_structure_is_named(call: Callable[..., Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(f64(A))


def test_a_structure_is_looked_at_beside_infinite_slopes() -> None:
    x = fg.tensor([0.0, 1.0, 4.0], dtype=fg.float64)
    root = fg.func.sparse_jacobian(lambda x: x.sqrt())(x)
    assert root.values.tolist() == [np.inf, 0.5, 0.25]
    with pytest.raises(fg.ConfigError, match="not elementwise"):
        fg.func.sparse_jacobian(lambda x: x.sqrt() + 1000 * x.flip(0))(x)
