"""`fg.func.vmap`: each operation's rule against a loop over the examples, nesting, gradients, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import func, nn
from ferrograd.nn import functional as F
from op_table import TABLE
from test_catalogue import LAYERS, LOSSES, WIDTH
from test_op_table import function_of

RNG = np.random.default_rng(6)


def f64(*shape: int, requires_grad: bool = False) -> fg.Tensor:
    return fg.tensor(RNG.uniform(0.2, 1.5, shape), requires_grad=requires_grad)


def looped(function: Callable[..., Any], inputs: list[fg.Tensor], dims: list[int | None]) -> list[Any]:
    """What a loop over the examples gives, by result."""
    size = next(x.shape[d] for x, d in zip(inputs, dims, strict=True) if d is not None)
    rows = []
    for i in range(size):
        result = function(*[x if d is None else x.select(d, i) for x, d in zip(inputs, dims, strict=True)])
        rows.append([y.numpy() for y in (result if isinstance(result, list | tuple) else [result])])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def agree(function: Callable[..., Any], inputs: list[fg.Tensor], dims: list[int | None]) -> None:
    found = func.vmap(function, tuple(dims))(*inputs)
    found = found if isinstance(found, list | tuple) else [found]
    expected = looped(function, inputs, dims)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-12, atol=1e-13)


def slopes_of(function: Callable[..., Any]) -> Callable[..., Any]:
    def total(*inputs: fg.Tensor) -> fg.Tensor:
        parts = [y.square().sum() for y in function(*inputs) if y.dtype.is_floating_point]
        return sum(parts[1:], parts[0])

    return lambda *inputs: func.grad(total, argnums=tuple(range(len(inputs))))(*inputs)


@pytest.mark.parametrize(
    "name", [name for name, row in TABLE.items() if row.differentiable and name != "masked_select"]
)
def test_every_operation_has_a_rule_and_so_has_its_gradient(name: str) -> None:
    """Each operand in a batch alone, and all of them together."""
    for sample in TABLE[name].samples:
        function, tensors = function_of(name, sample)
        plain = [x.detach() for x in tensors]
        batches = [fg.stack([x, x * 0.9 + 0.01, x * 1.1]) for x in plain]
        picks = [[i == j for j in range(len(plain))] for i in range(len(plain))] + [[True] * len(plain)]
        for pick in picks:
            inputs = [b if chosen else x for b, x, chosen in zip(batches, plain, pick, strict=True)]
            dims = [0 if chosen else None for chosen in pick]
            agree(function, inputs, dims)
            agree(slopes_of(function), inputs, dims)


@pytest.mark.parametrize(
    ("function", "shapes", "dims"),
    [
        (lambda x: x.flatten() @ x.flatten(), [(4, 2, 3)], [0]),
        (lambda x, w: x @ w, [(3, 4), (4, 2)], [0, None]),
        (lambda x, w: x @ w, [(4, 5), (4,)], [1, None]),
        (lambda x, w: w @ x, [(5, 4), (3, 4)], [0, None]),
        (lambda x, w: x @ w, [(4,), (4, 3)], [None, 1]),
        (lambda x, y: x @ y, [(3, 2, 4), (3, 4, 5)], [0, 0]),
        (lambda x, y: x @ y, [(2, 4), (3, 6, 4, 5)], [None, 0]),
        (lambda x: x + fg.ones(2, 3), [(4,)], [0]),
        (lambda x: fg.cat([x, x * 2, fg.zeros(1, dtype=fg.float64)]), [(4, 3)], [0]),
        (lambda x: x.expand(3, 2), [(4, 2)], [0]),
        (lambda x: x[1:, None, ::2].transpose(0, 1), [(4, 3, 5)], [0]),
        (lambda x: x[fg.tensor([2, 0, 0])], [(4, 3, 5)], [0]),
        (lambda x: x.max(1).values, [(4, 3, 5)], [0]),
        (lambda x: x.argmax(), [(4, 3)], [0]),
        (lambda x: x.sort().values, [(4, 6)], [0]),
        (lambda x: (x > 0.5).any(), [(4, 6)], [0]),
        (lambda x: fg.where(x > 0.7, x, -x), [(4, 6)], [-1]),
        (lambda x: fg.tensor(x) * 2, [(4, 6)], [0]),
        (lambda x: x.detach() * x, [(4, 6)], [0]),
    ],
)
def test_what_the_table_lacks(function: Any, shapes: list[Any], dims: list[int | None]) -> None:
    agree(function, [f64(*shape) for shape in shapes], dims)


def test_indices_and_labels_may_differ_from_example_to_example() -> None:
    index = fg.tensor(RNG.integers(0, 3, (5, 4)))
    agree(lambda x, i: x[i], [f64(5, 3, 2), index], [0, 0])
    agree(lambda x, i: x[i], [f64(3, 2), index], [None, 0])
    agree(lambda x, i: func.grad(lambda x: x[i].square().sum())(x), [f64(3, 2), index], [None, 0])
    agree(lambda i: F.one_hot(i, 3), [index], [0])
    labels = fg.tensor(RNG.integers(0, 3, (5, 4)))
    labels[0, 1] = 2
    for loss in (F.cross_entropy, F.nll_loss, F.multi_margin_loss):
        agree(loss, [f64(5, 4, 3), labels], [0, 0])
        agree(loss, [f64(4, 3), labels], [None, 0])
        agree(lambda x, t, loss=loss: func.grad(loss)(x, t), [f64(5, 4, 3), labels], [0, 0])
    agree(lambda x, t: F.cross_entropy(x, t, ignore_index=1), [f64(5, 4, 3), labels], [0, 0])


# The case of Parallel is for a fixed number of rows.
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Parallel"])
def test_every_layer_maps(name: str) -> None:
    fg.manual_seed(0)
    layer = LAYERS[name][0]().double().eval()
    agree(layer, [f64(5, 3, WIDTH)], [0])


# These look at values: whether a variance is negative, which labels there are.
LOOKING = ("GaussianNLLLoss", "MultiLabelMarginLoss")


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in LOOKING])
def test_every_loss_maps(name: str) -> None:
    loss, target = LOSSES[name]
    if isinstance(loss, nn.Loss):
        loss.double()
    rows = np.ascontiguousarray(target[:12]).reshape(3, 4, *target.shape[1:])
    agree(loss, [f64(3, 4, WIDTH), fg.tensor(rows)], [0, 0])


@pytest.mark.parametrize("name", LOOKING)
def test_a_loss_that_looks_at_values_is_refused(name: str) -> None:
    loss, target = LOSSES[name]
    rows = np.ascontiguousarray(target[:12]).reshape(3, 4, *target.shape[1:])
    with pytest.raises(fg.GraphError, match="vmap: the function reads the values"):
        func.vmap(loss)(f64(3, 4, WIDTH), fg.tensor(rows))


def test_losses_of_single_numbers_map() -> None:
    weighted = nn.BCEWithLogitsLoss(pos_weight=[2.5]).double()
    for loss in (weighted, F.mse_loss, nn.BCEWithLogitsLoss()):
        agree(loss, [f64(5), f64(5) / 2], [0, 0])
        agree(slopes_of(lambda x, t, loss=loss: [loss(x, t)]), [f64(5), f64(5) / 2], [0, 0])


def test_a_gradient_for_each_example() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = f64(6, 3), fg.tensor(RNG.integers(0, 2, 6))
    params = list(model.parameters())

    def loss(params: list[fg.Tensor], x: fg.Tensor, y: fg.Tensor) -> fg.Tensor:
        hidden = F.linear(x.unsqueeze(0), params[0], params[1]).tanh()
        return F.cross_entropy(F.linear(hidden, params[2], params[3]), y.unsqueeze(0))

    plain = [p.detach() for p in params]
    found = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(plain, x, y)
    for i in range(6):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for one, parameter in zip(found, params, strict=True):
            assert parameter.grad is not None
            np.testing.assert_allclose(one.numpy()[i], parameter.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_gradients_flow_through_to_the_batch_and_to_what_is_shared() -> None:
    w, x = f64(3, requires_grad=True), f64(5, 3, requires_grad=True)
    assert fg.autograd.gradcheck(lambda x, w: func.vmap(lambda x: (x * w).sin().sum())(x), [x, w])
    assert fg.autograd.gradcheck(
        lambda x, w: func.vmap(func.grad(lambda x: ((x * w).sin() * x).sum()))(x), [x, w]
    )
    with fg.no_grad():
        assert not func.vmap(lambda x: x * w)(x).requires_grad
    halved = func.vmap(lambda x: x.detach() * 0.5)(x)
    assert not halved.requires_grad


def test_it_nests_and_joins_with_the_other_transforms() -> None:
    x, y = f64(3, 4), f64(5, 4)
    outer = func.vmap(lambda a: func.vmap(lambda b: (a * b).sum())(y))(x)
    np.testing.assert_allclose(outer.numpy(), x.numpy() @ y.numpy().T, rtol=1e-13)
    rows = func.vmap(func.jacobian(lambda x: x.square() * x.sum()))(x)
    assert rows.shape == (3, 4, 4)
    np.testing.assert_allclose(
        rows.numpy()[1], func.jacobian(lambda x: x.square() * x.sum())(x[1]).numpy(), rtol=1e-12
    )
    product = func.vmap(lambda x, t: func.hvp(lambda x: (x**3).sum(), (x,), (t,))[1][0])(x, fg.ones(3, 4))
    np.testing.assert_allclose(product.numpy(), 6 * x.numpy(), rtol=1e-12)
    slope = func.grad(lambda x: func.vmap(lambda x: x.exp().sum())(x).sum())(x)
    np.testing.assert_allclose(slope.numpy(), np.exp(x.numpy()), rtol=1e-13)
    _, moved = func.jvp(func.vmap(lambda x: x.exp().sum()), (x,), (fg.ones(3, 4, dtype=fg.float64),))
    np.testing.assert_allclose(moved.numpy(), np.exp(x.numpy()).sum(1), rtol=1e-13)


def test_it_trains_inside_a_plan() -> None:
    data, target = RNG.normal(size=(16, 3)), RNG.normal(size=(16, 2))
    found = []
    for mapped in (True, False):
        fg.manual_seed(0)
        layer = nn.Linear(3, 2).double()
        model: Any = (
            layer if not mapped else (lambda x, layer=layer: func.vmap(lambda r: layer(r.unsqueeze(0))[0])(x))
        )
        trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(layer.parameters(), lr=0.1))
        found.append(
            trainer.fit(data, target, epochs=5, batch_size=8, seed=0, progress=False).history["loss"]
        )
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_dimensions_trees_and_results_that_do_not_depend() -> None:
    x = f64(3, 4)
    assert func.vmap(lambda x: x * 2, in_dims=1, out_dims=1)(x).tolist() == (x * 2).tolist()
    assert func.vmap(lambda x: x.unsqueeze(0), out_dims=-1)(x).shape == (1, 4, 3)
    first, (second, third) = func.vmap(
        lambda p, k, s=0.0: (p["a"] + k + s, (fg.ones(2), p["b"][0])), in_dims=(0, None), out_dims=(0, 1, 0)
    )({"a": x, "b": [x * 3]}, 2.0, s=1.0)
    assert first.tolist() == (x + 3.0).tolist()
    assert second.shape == (2, 3)
    assert third.tolist() == (x * 3).tolist()
    assert func.vmap(lambda x: x.sum())(fg.zeros(0, 4)).shape == (0,)


def test_places_may_be_built_like_arguments_and_results() -> None:
    x, y = f64(3, 4), f64(4, 3)

    def pair(p: Any, k: float) -> Any:
        return {"sum": p["a"] + p["b"][0] + k, "rest": (p["a"], p["b"][1])}

    places = ({"a": 0, "b": (1, None)}, None)
    found = func.vmap(pair, places, {"sum": 1, "rest": (0, None)})({"a": x, "b": (y, fg.ones(2))}, 2.0)
    np.testing.assert_allclose(found["sum"].numpy(), (x.numpy() + y.numpy().T + 2.0).T, rtol=1e-15)
    assert found["rest"][0].tolist() == x.tolist()
    assert found["rest"][1].tolist() == [1.0, 1.0]
    both = func.vmap(lambda p: (p[0], (p[1], p[1])), ([0, 1],), (0, 1))([x, y])
    assert both[1][0].tolist() == both[1][1].tolist() == y.tolist()


@pytest.mark.parametrize("size", [0, 1, 5])
@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_chunks_give_the_same_numbers(size: int, chunk: int) -> None:
    x, w = f64(size, 3, requires_grad=True), f64(3, requires_grad=True)

    def function(x: fg.Tensor) -> Any:
        return (x * w).sin(), x.sum(), fg.ones(2), fg.rand(2, dtype=fg.float64) * x.sum()

    runs = []
    for chunk_size in (None, chunk):
        fg.manual_seed(4)
        found = func.vmap(function, randomness="different", chunk_size=chunk_size)(x)
        slopes = fg.autograd.grad(found[0].sum() + (found[1] ** 2).sum() + found[3].sum(), [x, w])
        runs.append(
            ([part.tolist() for part in found], [part.numpy() for part in slopes if part is not None])
        )
    assert runs[0][0] == runs[1][0]
    for whole, pieces in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_allclose(pieces, whole, rtol=1e-13)


def test_random_numbers_are_refused_different_or_the_same() -> None:
    zeros = fg.zeros(64, 5)
    noise: list[Callable[[fg.Tensor], fg.Tensor]] = [
        lambda x: x + fg.rand(5),
        lambda x: x + fg.randn(5),
        lambda x: F.dropout(x + 1, 0.5),
        lambda x: nn.GaussianNoise(0.3)(x),
        lambda x: F.rrelu(x - 1, training=True),
        lambda x: func.vmap(lambda y: y + fg.rand(1)[0], randomness="different")(x),
    ]
    for add in noise:
        different = func.vmap(add, randomness="different")(zeros).numpy()
        assert len({row.tobytes() for row in different}) > 20
        same = func.vmap(add, randomness="same")(zeros).numpy()
        assert len({row.tobytes() for row in same}) == 1
        assert len(set(same[0].tolist())) > 1
        with pytest.raises(fg.GraphError, match="vmap: the function draws random numbers; give randomness="):
            func.vmap(add)(zeros)
    # The first example has the numbers that it has alone.
    for add in noise[:2]:
        fg.manual_seed(1)
        batch = func.vmap(add, randomness="different")(zeros)
        fg.manual_seed(1)
        assert batch[0].tolist() == add(zeros[0]).tolist()
    # Gradients go through the same numbers.
    x = f64(6, 3, requires_grad=True)

    def scaled(x: fg.Tensor) -> fg.Tensor:
        fg.manual_seed(2)
        return func.vmap(lambda x: (x * fg.randn(3, dtype=fg.float64)).sin(), randomness="different")(x)

    assert fg.autograd.gradcheck(scaled, x)
    drawn = func.vmap(lambda x: x + fg.randint(0, 1000, (1,)), randomness="same")(zeros)
    assert len({row.tobytes() for row in drawn.numpy()}) == 1


def test_different_dropout_in_a_trainer_is_drawn_anew_for_each_example_and_step() -> None:
    weight = nn.Parameter(fg.zeros(1))
    seen = []

    def model(x: fg.Tensor) -> fg.Tensor:
        return func.vmap(F.dropout, randomness="different")(x) + weight

    trainer = fg.Trainer(model, nn.MSELoss(reduction="sum"), fg.optim.SGD([weight], lr=0.0))
    ones = np.ones((8, 64), np.float32)
    for _ in range(4):
        seen.append(trainer.train_step(ones, np.zeros_like(ones)))
    assert len(set(seen)) > 1


class Choosy(nn.Module):
    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return x if x.sum() > 0 else -x


class Cube:
    def forward(self, x: Any) -> Any:
        return x**3

    def backward(self, dout: Any) -> Any:
        return dout


X = f64(3, 4)
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: func.vmap(Choosy())(X), fg.GraphError, "vmap: the function reads the values"),
    (lambda: func.vmap(lambda x: x * x.sum().item())(X), fg.GraphError, "reads the values"),
    (lambda: func.vmap(lambda x: x * float(x[0]))(X), fg.GraphError, "reads the values"),
    (lambda: func.vmap(lambda x: fg.tensor(x.numpy()))(X), fg.GraphError, "reads the values"),
    (lambda: func.vmap(lambda x: x[x > 0.5])(X), fg.GraphError, "boolean mask"),
    (lambda: func.vmap(lambda x: x.masked_select(x > 0.5))(X), fg.GraphError, "its shape depends on data"),
    (lambda: func.vmap(F.dropout)(X), fg.GraphError, "draws random numbers"),
    (lambda: func.vmap(fg.gate(Cube()))(X), fg.GraphError, "vmap: Cube has no rule"),
    (lambda: func.vmap(nn.BatchNorm1d(4))(f64(3, 2, 4).float()), fg.GraphError, "assigns to buffers"),
    (
        lambda: func.vmap(fg.exp, in_dims=2)(X),
        fg.ShapeError,
        r"argument 0 of shape \(3, 4\) has no dimension 2",
    ),
    (lambda: func.vmap(fg.exp, out_dims=2)(X), fg.ShapeError, "cannot have its examples in dimension 2"),
    (
        lambda: func.vmap(lambda x, y: x)(X, X[:2]),
        fg.ShapeError,
        r"one number of examples, got lengths \[2, 3\]",
    ),
    (lambda: func.vmap(lambda x: x, in_dims=(None,))(X), fg.ConfigError, "got no argument with a dimension"),
    (lambda: func.vmap(lambda x: x, in_dims=(0, 0))(X), fg.ConfigError, "each of 1 arguments"),
    (
        lambda: func.vmap(lambda x: x, out_dims=(0, 0))(X),
        fg.ConfigError,
        "not built like the result, which is a Tensor",
    ),
    (lambda: func.vmap(lambda x: x, in_dims=None), fg.ConfigError, "in_dims must be an integer"),
    (
        lambda: func.vmap(lambda x: x, out_dims=(None,))(X),
        fg.ConfigError,
        "out_dims is None for a result that",
    ),
    (lambda: func.vmap(lambda x: x, out_dims=None)(X), fg.ConfigError, "out_dims is None for a result"),
    (lambda: func.vmap(lambda x: x, ({"a": 0},))(X), fg.ConfigError, "in_dims .*not built like argument 0"),
    (lambda: func.vmap(lambda x: x, ((0, 0),))((X,)), fg.ConfigError, "argument 0, which is a tuple of 1"),
    (lambda: func.vmap(lambda x: x, ("a",)), fg.ConfigError, "in_dims must be an integer"),
    (lambda: func.vmap(lambda x: x, randomness="never"), fg.ConfigError, "randomness must be 'error'"),
    (lambda: func.vmap(lambda x: x, chunk_size=0), fg.ConfigError, "chunk_size: expected at least 1, got 0"),
    (
        lambda: func.vmap(lambda x: x + fg.randint(0, 3, (1,)), randomness="different")(X),
        fg.GraphError,
        "randint draws numbers once",
    ),
    (
        lambda: func.vmap(lambda x: x + fg.zeros(4).normal_(), randomness="different")(X),
        fg.GraphError,
        "normal_ draws numbers once",
    ),
    (lambda: func.vmap(lambda x: x)(2.0), fg.DTypeError, "argument 0 must be a tensor"),
    (lambda: func.vmap(lambda x: 2.0)(X), fg.DTypeError, "the function's output must be a tensor"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
    # Nothing is left of the attempt: a mask is refused in a trace.
    assert X[X > 0.5].sum().item() > 0
