"""`nn.utils.summary`: figures that can be counted by hand."""

import json
from collections.abc import Callable
from typing import Any

import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.nn.utils import Layer, summary


class Twice(nn.Module):
    """A layer used twice, a product of its own, and a layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Linear(3, 3, bias=False)
        self.idle = nn.Linear(2, 2)
        self.scale = nn.Parameter([1.0, 1.0, 1.0])

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        hidden = self.square(self.square(x)) * self.scale
        return hidden @ hidden.t()


def test_each_layer_has_its_shape_parameters_products_and_bytes() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 3, bias=False))).double()
    found = summary(model, (5, 4))
    # tanh keeps its output, (5, 8) of 8 bytes; the second product finds it kept.
    assert found.layers == (
        Layer("0", "Linear", (5, 8), 40, 160, 0, 2 * 160 + 40),
        Layer("1.0", "Tanh", (5, 8), 0, 0, 320, 40),
        Layer("1.1", "Linear", (5, 3), 24, 120, 0, 2 * 120),
    )
    assert (found.parameters, found.trained_parameters) == (64, 64)
    assert (found.multiply_adds, found.kept_bytes) == (280, 320)
    assert (found.operations, found.parameter_bytes) == (640, 64 * 8)


def test_calls_add_up_and_the_total_has_what_no_layer_did() -> None:
    model = Twice()
    model.idle.requires_grad_(False)
    found = summary(model, [4, 3])
    rows = {layer.name: layer for layer in found.layers}
    assert list(rows) == ["", "square", "idle"]
    assert rows["square"].multiply_adds == 2 * 4 * 9
    assert rows["idle"] == Layer("idle", "Linear", None, 6, 0, 0, 0)
    # The products, the factors and the product of the rows.
    assert rows["square"].operations == 2 * 2 * 4 * 9
    assert found.operations == 2 * found.multiply_adds + 4 * 3
    assert rows[""].multiply_adds == found.multiply_adds == 2 * 4 * 9 + 4 * 4 * 3
    assert (found.parameters, found.trained_parameters) == (9 + 6 + 3, 9 + 3)


def test_a_shared_parameter_is_counted_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    found = summary(nn.Sequential(first, second), (1, 3))
    assert [layer.parameters for layer in found.layers] == [12, 0]
    assert found.parameters == 12


def test_frozen_layers_cost_their_operations_and_keep_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
    trained = summary(model, (5, 4))
    frozen = summary(model.requires_grad_(False), (5, 4))
    assert (frozen.multiply_adds, frozen.operations) == (trained.multiply_adds, trained.operations)
    assert (frozen.multiply_adds, frozen.kept_bytes, trained.kept_bytes) == (160, 0, 160)
    assert [layer.multiply_adds for layer in frozen.layers] == [160, 0]


class Countdown(nn.Module):
    """Calls itself until nothing is left of the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(fg.ones(3, 3))

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return x if len(x) == 1 else self(x[1:] @ self.weight)


def test_a_call_inside_one_of_the_same_module_is_counted_once() -> None:
    found = summary(Countdown(), (4, 3))
    assert found.layers[0].multiply_adds == found.multiply_adds == (3 + 2 + 1) * 9
    assert found.layers[0].operations == found.operations == 2 * found.multiply_adds
    # Products keep their operands: the second that of the first, the third that of the second.
    assert found.layers[0].kept_bytes == found.kept_bytes


def test_the_table_and_the_dict_say_the_same() -> None:
    found = summary(nn.Sequential(nn.Linear(100, 50), nn.ReLU()), (8, 100))
    lines = str(found).splitlines()
    assert " ".join(lines[0].split()) == "layer output shape parameters multiply-adds FLOPs kept bytes"
    assert lines[2].split() == ["0", "(Linear)", "(8,", "50)", "5,050", "40,000", "80,400", "0"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == "memory of the parameters: 20,200 bytes"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    told = json.loads(json.dumps(found.to_dict()))
    assert told["multiply_adds"] == 40_000
    assert told["layers"][0]["output_shape"] == [8, 50]


def test_indices_are_taken_where_asked_for() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 2))
    found = summary(model, (3, 2), dtype=fg.int64)
    assert [layer.output_shape for layer in found.layers] == [(3, 2, 4), (3, 8), (3, 2)]


def test_nothing_is_changed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    fields = [dict(vars(module)) for module in model.modules()]
    state = [value.tolist() for value in model.state_dict().values()]
    fg.manual_seed(3)
    expected = fg.rand(2).tolist()
    fg.manual_seed(3)
    summary(model, (6, 4))
    assert fg.rand(2).tolist() == expected
    assert [value.tolist() for value in model.state_dict().values()] == state
    assert [dict(vars(module)) for module in model.modules()] == fields
    assert all(param.grad is None for param in model.parameters())


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: summary(len, (1,)), fg.ConfigError, "model must be a Module"),  # type: ignore[arg-type]
    (lambda: summary(nn.ReLU(), 3), fg.ConfigError, "input_shape must be a sequence"),  # type: ignore[arg-type]
    (lambda: summary(nn.ReLU(), (2, -1)), fg.ConfigError, "input_shape: expected at least 0"),
    (lambda: summary(nn.ReLU(), "ab"), fg.ConfigError, "input_shape must be"),  # type: ignore[arg-type]
    (lambda: summary(nn.Linear(3, 2), (4, 5)), fg.ShapeError, "inner dimensions|expected"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_hooks_are_taken_away_after_an_error() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(fg.FerrogradError):
        summary(model, (4, 5))
    assert "forward" not in vars(model)
