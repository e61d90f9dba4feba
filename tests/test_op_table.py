"""Every public operation, by its row of `op_table`: values, both gradients, layouts, errors, plans."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from op_table import NOT_OPS, TABLE, Array, Sample

ALL = pytest.mark.parametrize("name", TABLE)
DIFFERENTIABLE = pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.differentiable])
# Pairs of shapes that broadcast.
SHAPES = [((3, 4), (4,)), ((), (3,)), ((3, 1), (1, 4)), ((2, 1, 3), (2, 1)), ((1,), (2, 2)), ((0, 1), (1, 3))]

Call = Callable[..., Any]


def is_operand(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def changed(value: Any, change: Callable[[Array], Any]) -> Any:
    """`value` with `change` made of each operand, also of those in a list."""
    if isinstance(value, list):
        return [changed(part, change) for part in value]
    return change(value) if is_operand(value) else value


def operands(values: Any) -> Iterator[fg.Tensor]:
    for value in values:
        if isinstance(value, fg.Tensor):
            yield value
        elif isinstance(value, list):
            yield from operands(value)


def call(name: str, *args: Any, **options: Any) -> Any:
    """By the function or, where there is none, the method."""
    row = TABLE[name]
    return getattr(fg.Tensor if row.home is None else row.home, name)(*args, **options)


def arguments(sample: Sample, change: Callable[[Array], Any] | None = None) -> list[Any]:
    change = change or (lambda array: fg.tensor(array, requires_grad=True))
    return [changed(value, change) for value in sample.args]


def results(output: Any) -> list[fg.Tensor]:
    return [output] if isinstance(output, fg.Tensor) else list(output)


def bits(tensor: fg.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.numpy().tobytes()


def function_of(name: str, sample: Sample) -> tuple[Call, list[fg.Tensor]]:
    """The operation as a function of its operands alone, and these."""
    args = arguments(sample)
    tensors = list(operands(args))

    def function(*values: fg.Tensor) -> list[fg.Tensor]:
        rest = iter(values)

        def place(value: Any) -> Any:
            if isinstance(value, list):
                return [place(part) for part in value]
            return next(rest) if isinstance(value, fg.Tensor) else value

        output = results(call(name, *[place(value) for value in args], **sample.options))
        return [result for result in output if result.dtype.is_floating_point]

    return function, tensors


def check_gradients(function: Call, tensors: list[fg.Tensor]) -> None:
    """First and second gradients against centred differences."""
    assert fg.autograd.gradcheck(function, tensors, atol=1e-6, rtol=1e-5)
    assert fg.autograd.gradgradcheck(function, tensors, atol=1e-5, rtol=1e-4)


def test_the_table_has_every_public_operation() -> None:
    methods = {name for name in dir(fg.Tensor) if not name.startswith("_") and not name.endswith("_")}
    public = (methods | set(fg.ops.__all__) | {"pad", "one_hot"}) - NOT_OPS
    assert public - set(TABLE) == set(), "operations without a row in tests/op_table.py"
    assert set(TABLE) - public == set(), "rows without an operation"


@ALL
def test_the_row_is_complete(name: str) -> None:
    row = TABLE[name]
    assert row.samples
    assert len(row.errors) >= 3
    function = name in fg.ops.__all__ or row.home is fg.nn.functional
    assert function == (row.home is not None)
    assert row.is_method == hasattr(fg.Tensor, name) or name == "where"


@ALL
def test_values_are_those_of_numpy_by_function_and_method(name: str) -> None:
    row = TABLE[name]
    for sample in row.samples:
        args = arguments(sample)
        output = results(call(name, *args, **sample.options))
        expected = row.reference(*sample.args, **sample.options)
        expected = list(expected) if isinstance(expected, tuple | list) else [expected]
        assert len(output) == len(expected)
        for result, array in zip(output, expected, strict=True):
            assert result.shape == np.shape(array)
            np.testing.assert_allclose(result.numpy(), array, rtol=1e-12, atol=1e-13)
            assert result.requires_grad == (row.differentiable and result.dtype.is_floating_point)
        if row.is_method and row.home is not None:
            first = fg.tensor(args[0]) if isinstance(args[0], np.ndarray) else args[0]
            by_method = results(getattr(first, name)(*args[1:], **sample.options))
            assert [bits(result) for result in by_method] == [bits(result) for result in output]


@DIFFERENTIABLE
def test_gradients_and_their_gradients_match_centred_differences(name: str) -> None:
    for sample in TABLE[name].samples:
        check_gradients(*function_of(name, sample))


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.broadcasts])
def test_shapes_broadcast(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    row = TABLE[name]
    arrays = [np.resize(array, shape) for array, shape in zip(row.samples[0].args, shapes, strict=True)]
    result = call(name, *map(fg.tensor, arrays))
    expected = row.reference(*arrays)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-13)
    if row.differentiable:
        check_gradients(*function_of(name, Sample(*arrays)))


@ALL
def test_float32_agrees_with_float64(name: str) -> None:
    for sample in TABLE[name].samples:
        single = arguments(sample, lambda array: fg.tensor(array.astype(np.float32), requires_grad=True))
        # The same numbers: what is compared is the arithmetic.
        double = arguments(
            sample, lambda array: fg.tensor(array.astype(np.float32).astype(float), requires_grad=True)
        )
        pairs = zip(
            results(call(name, *single, **sample.options)),
            results(call(name, *double, **sample.options)),
            strict=True,
        )
        for low, high in pairs:
            assert low.dtype == (fg.float32 if high.dtype == fg.float64 else high.dtype)
            size = np.abs(high.numpy()).max() if high.numel() and high.dtype == fg.float64 else 1.0
            np.testing.assert_allclose(low.numpy(), high.numpy(), rtol=0, atol=2e-6 * max(size, 1e-30))
            if high.requires_grad:
                weights = np.linspace(0.5, 1.5, high.numel()).reshape(high.shape)
                (low * fg.tensor(weights).float()).sum().backward()
                (high * weights).sum().backward()
        for low, high in zip(operands(single), operands(double), strict=True):
            if high.grad is not None:
                assert low.grad is not None
                assert low.grad.dtype == fg.float32
                size = np.abs(high.grad.numpy()).max(initial=1e-3)
                np.testing.assert_allclose(low.grad.numpy(), high.grad.numpy(), rtol=0, atol=1e-5 * size)


def strided(array: Array) -> fg.Tensor:
    """The same values as every second element of a transposed tensor."""
    wide = np.zeros([2 * n for n in array.shape[::-1]])
    wide[tuple(slice(None, None, 2) for _ in array.shape)] = array.T
    view = (
        fg.tensor(wide)[tuple(slice(None, None, 2) for _ in array.shape)] if array.ndim else fg.tensor(array)
    )
    return view.T.detach().requires_grad_()


@ALL
def test_strided_operands_give_the_same_bits(name: str) -> None:
    for sample in TABLE[name].samples:
        if name == "view":
            continue  # refuses them
        runs = []
        for change in (None, strided):
            args = arguments(sample, change)
            output = results(call(name, *args, **sample.options))
            for result in output:
                if result.requires_grad:
                    (result * np.linspace(0.5, 1.5, result.numel()).reshape(result.shape)).sum().backward()
            grads = [x.grad for x in operands(args)]
            runs.append(([bits(y) for y in output], [g if g is None else bits(g) for g in grads]))
            assert all(x.is_contiguous() == (change is None or x.numel() < 2) for x in operands(args))
        (values, gradients), (strided_values, strided_gradients) = runs
        assert values == strided_values
        assert gradients == strided_gradients


@ALL
def test_nothing_to_work_on_has_a_shape_and_a_gradient(name: str) -> None:
    sample, expected = TABLE[name].empty
    args = arguments(sample)
    if isinstance(expected, type):
        with pytest.raises(expected, match=r"at least one element"):
            call(name, *args, **sample.options)
        return
    result = results(call(name, *args, **sample.options))[0]
    assert result.shape == expected
    if result.requires_grad:
        result.sum().backward()
        for operand in operands(args):
            assert operand.grad is None or operand.grad.shape == operand.shape


@ALL
def test_what_is_refused_is_named_and_changes_nothing(name: str) -> None:
    for sample, error, text in TABLE[name].errors:
        args = arguments(sample)
        before = [bits(x) for x in operands(args)]
        with pytest.raises(error, match=text) as caught:
            call(name, *args, **sample.options)
        assert error is TypeError or isinstance(caught.value, fg.FerrogradError)
        assert [bits(x) for x in operands(args)] == before
        assert all(x.grad is None and x.requires_grad for x in operands(args))


class Model(fg.nn.Module):
    """An operation on parameters, added up and put on each row of the input."""

    def __init__(self, name: str, sample: Sample) -> None:
        super().__init__()
        self.function, tensors = function_of(name, sample)
        for number, tensor in enumerate(tensors):
            self.register_parameter(f"operand{number}", fg.nn.Parameter(tensor))

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        total = x
        for result in self.function(*self.parameters()):
            total = total + (result.sin() + result).mean()
        return total


@DIFFERENTIABLE
def test_a_plan_trains_what_eager_trains(name: str) -> None:
    X, y = np.arange(6.0).reshape(6, 1) / 6, np.ones((6, 1))
    for sample in TABLE[name].samples:
        model, twin = Model(name, sample), Model(name, sample)
        trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.01))
        if text := TABLE[name].dynamic:
            with pytest.raises(fg.GraphError, match=text):
                trainer.fit(X, y, epochs=1, batch_size=3, shuffle=False, progress=False)
            continue
        trainer.fit(X, y, epochs=2, batch_size=3, shuffle=False, progress=False)
        optimizer = fg.optim.SGD(twin.parameters(), lr=0.01)
        for start in (0, 3, 0, 3):
            optimizer.zero_grad()
            fg.nn.MSELoss()(twin(fg.tensor(X[start : start + 3])), y[start : start + 3]).backward()
            optimizer.step()
        for trained, eager in zip(model.parameters(), twin.parameters(), strict=True):
            np.testing.assert_allclose(trained.numpy(), eager.numpy(), rtol=1e-13, atol=1e-14)


class Picks(fg.nn.Module):
    """Operations whose indices depend on the batch."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = fg.nn.Linear(5, 4, dtype=fg.float64)
        self.layer.load_state_dict({"weight": np.sin(np.arange(20.0)).reshape(4, 5), "bias": np.zeros(4)})

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        scores = self.layer(x)
        if self.kind == "topk":
            return scores.topk(2, 1).values
        if self.kind == "sort":
            return scores.sort(0, descending=True).values[:, :2]
        if self.kind == "max":
            return scores.max(1, keepdim=True).values + fg.zeros(1, 2, dtype=fg.float64)
        if self.kind == "scatter_add":
            return fg.zeros_like(scores).scatter_add(1, scores.argsort(1), scores)[:, :2]
        if self.kind == "one_hot":
            chosen = fg.nn.functional.one_hot(scores.argmax(1), 4)
            return (scores * chosen)[:, :2]
        return scores.index_select(1, scores.mean(0).argsort()[:2])


@pytest.mark.parametrize("batch", [4, 300])
@pytest.mark.parametrize("kind", ["topk", "sort", "max", "scatter_add", "one_hot", "index_select"])
def test_indices_follow_the_batch_in_a_plan(kind: str, batch: int) -> None:
    rows = 3 * batch
    X, y = np.random.default_rng(1).normal(size=(rows, 5)), np.zeros((rows, 2))
    model, twin = Picks(kind), Picks(kind)
    trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    trainer.fit(X, y, epochs=2, batch_size=batch, shuffle=False, progress=False)
    optimizer = fg.optim.SGD(twin.parameters(), lr=0.1)
    for start in (0, batch, 2 * batch) * 2:
        optimizer.zero_grad()
        part = slice(start, start + batch)
        fg.nn.MSELoss()(twin(fg.tensor(X[part])), y[part]).backward()
        optimizer.step()
    for trained, eager in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(trained.numpy(), eager.numpy(), rtol=1e-12, atol=1e-14)


def test_a_plan_refuses_a_one_hot_of_unknown_length() -> None:
    class Unknown(fg.nn.Module):
        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return x * fg.nn.functional.one_hot(x.argmax(1))

    layers = fg.nn.Sequential(fg.nn.Linear(3, 3), Unknown())
    trainer = fg.Trainer(layers, fg.nn.MSELoss(), fg.optim.SGD(layers.parameters(), lr=0.1))
    with pytest.raises(fg.GraphError, match="one_hot: without num_classes its shape depends on data"):
        trainer.fit(np.ones((4, 3), np.float32), np.ones((4, 3), np.float32), epochs=1, progress=False)
