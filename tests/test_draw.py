"""`fg.draw`: what is in a picture, that it is well formed, and that nothing in it overlaps."""

import math
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.drawing import Drawing
from ferrograd.drawing.collapse import LARGEST, collapsed
from ferrograd.drawing.layout import layered
from ferrograd.drawing.pages import paged
from ferrograd.drawing.read import span_of
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.calls import Call
from picture import SVG, Box, check_geometry, geometry, random_vertices


def scalars(**values: float) -> dict[str, fg.Tensor]:
    return {name: fg.tensor(float(value), requires_grad=True) for name, value in values.items()}


def texts(picture: Drawing) -> list[tuple[str, str, str]]:
    return [(v.label, v.value_text(), v.grad_text()) for v in picture.vertices]


def test_the_lectures_circuit_has_its_values_and_gradients() -> None:
    t = scalars(x=-2, y=5, z=-4)
    found = fg.draw(lambda: (t["x"] + t["y"]) * t["z"], names=t)
    assert texts(found) == [
        ("x", "-2", "-4"),
        ("y", "5", "-4"),
        ("z", "-4", "3"),
        ("add", "3", "-4"),
        ("mul", "-12", "1"),
    ]
    assert [v.sources for v in found.vertices] == [(), (), (), (0, 1), (3, 2)]
    assert all(x.grad is None for x in t.values())


def test_the_lectures_neuron_has_its_values_and_gradients() -> None:
    t = scalars(w0=2, x0=-1, w1=-3, x1=-2, w2=-3)

    def neuron() -> fg.Tensor:
        return 1 / (1 + (-(t["w0"] * t["x0"] + t["w1"] * t["x1"] + t["w2"])).exp())

    found = {v.label: (v.value_text(), v.grad_text()) for v in fg.draw(neuron, names=t).vertices}
    # s (1 - s) = 0.1966 at s = 0.7311
    assert found["div"] == ("0.7311", "1")
    assert found["exp"] == ("0.3679", "-0.5344")
    assert found["neg"] == ("-1", "-0.1966")
    assert (found["w0"], found["x0"]) == (("2", "-0.1966"), ("-1", "0.3932"))
    assert (found["w1"], found["x1"]) == (("-3", "-0.3932"), ("-2", "-0.5898"))


def test_numbers_that_are_part_of_an_operation_are_written() -> None:
    x = fg.tensor([1.5, -2.25, 0.0], requires_grad=True)

    def function() -> fg.Tensor:
        return ((x + 1) * 0.1 / 3 - 7) ** 3

    assert [v.label for v in fg.draw(function, names={"x": x}).vertices] == [
        "x",
        "add 1",
        "mul 0.1",
        "div 3",
        "add -7",
        "pow 3",
    ]
    large = fg.tensor([1.0, 2.0], requires_grad=True)
    assert [v.label for v in fg.draw(lambda: large + 1e-5 + 1e-9, names={"x": large}).vertices] == [
        "x",
        "add 1e-05",
        "add 1e-09",
    ]
    zero = fg.tensor(0.0, requires_grad=True)
    assert [v.label for v in fg.draw(lambda: zero * 5, names={"0": zero}).vertices] == ["0", "mul 5"]


def test_a_tensor_is_drawn_as_what_computes_it_also_after_backward() -> None:
    t = scalars(x=1.5, y=-2)

    def function() -> fg.Tensor:
        return ((t["x"] * t["y"]).tanh() + t["x"] ** 2).exp()

    expected = fg.draw(function, names=t)
    before, after = function(), function()
    after.backward()
    grads = {name: tensor.grad for name, tensor in t.items()}
    for found in (fg.draw(before, names=t), fg.draw(after, names=t)):
        assert texts(found) == texts(expected)
        assert [v.sources for v in found.vertices] == [v.sources for v in expected.vertices]
    for name, tensor in t.items():
        assert tensor.grad is not None
        assert tensor.grad.item() == grads[name].item()  # type: ignore[union-attr]


def test_a_networks_loss_has_the_bits_that_it_had() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    X, y = fg.rand(6, 4), fg.tensor([0, 1, 2, 0, 1, 2])
    loss = nn.CrossEntropyLoss()(model(X), y)
    loss.backward()
    own = dict(model.named_parameters())
    found = {v.label: v for v in fg.draw(loss, names={"X": X, **own}).vertices}
    for name, parameter in own.items():
        assert found[name].grad is not None
        assert parameter.grad is not None
        np.testing.assert_array_equal(found[name].grad.numpy(), parameter.grad.numpy())  # type: ignore[union-attr]
    last = list(found.values())[-1]
    assert last.value is not None
    assert last.value.item() == loss.item()


def test_a_constant_that_backward_freed_is_named() -> None:
    x = fg.tensor(2.0, requires_grad=True)
    product = (x * fg.full((20,), 3.0)).sum()
    assert [v.label for v in fg.draw(product, names={"x": x}).vertices] == ["x", "constant", "mul", "sum"]
    product.backward()
    with pytest.raises(
        fg.GraphError, match=r"an operand of shape .* was freed by backward; pass retain_graph"
    ):
        fg.draw(product)


def test_an_operation_written_in_python_is_run_again() -> None:
    class Double(fg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: fg.Tensor) -> fg.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *grads: fg.Tensor) -> fg.Tensor:
            return grads[0] * 2

    x = fg.tensor([1.0, 2.0], requires_grad=True)
    result = Double.apply(x).sum()
    result.backward()
    found = fg.draw(result, names={"x": x}).vertices
    assert found[0].grad is not None
    np.testing.assert_array_equal(found[0].grad.numpy(), [2.0, 2.0])
    assert found[-1].value_text() == "6"


def test_a_long_chain_is_drawn() -> None:
    x = fg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 1.0001
    y.backward()
    assert len(fg.draw(y).vertices) <= 60


def test_a_value_used_twice_is_one_box_with_the_sum_of_its_gradients() -> None:
    t = scalars(x=3)
    found = fg.draw(lambda: (t["x"] * t["x"]).exp() * 0 + t["x"], names=t)
    assert [v.label for v in found.vertices].count("x") == 1
    assert next(v for v in found.vertices if v.label == "mul").sources == (0, 0)
    assert found.vertices[0].grad_text() == "1"


def test_gradients_in_a_picture_are_those_of_backward() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    X, y = fg.randn(6, 4, dtype=fg.float64), fg.tensor([0, 1, 2, 0, 1, 2])
    loss = nn.CrossEntropyLoss()
    found = fg.draw(lambda: loss(model(X), y), names=dict(model.named_parameters()))
    loss(model(X), y).backward()
    drawn = {v.label: v.grad for v in found.vertices if v.kind == "input"}
    assert len(drawn) == 4
    for name, param in model.named_parameters():
        assert drawn[name].tolist() == param.grad.tolist()


def test_shapes_stand_for_tensors_and_norms_for_their_gradients() -> None:
    model = nn.Linear(2, 3)
    found = fg.draw(model, inputs=fg.ones(4, 2))
    last = found.vertices[-1]
    assert (last.value_text(), last.grad_text()) == ("(4, 3)", f"norm {math.sqrt(12):.3g}")
    assert {v.label: v.kind for v in found.vertices}["weight"] == "parameter"


def test_values_and_gradients_can_be_left_out() -> None:
    t = scalars(x=2.5)
    plain = fg.draw(lambda: t["x"].exp(), values=False, grads=False, names=t)
    assert plain.vertices[-1].grad is None
    for text in (plain.svg(), plain.dot(), plain.mermaid()):
        assert "2.5" not in re.sub(r"<title>.*?</title>|<path[^>]*>", "", text)
        assert "12.18" not in re.sub(r"<title>.*?</title>", "", text)


def test_an_explicit_graph_has_what_its_runs_left() -> None:
    graph = fg.Graph()
    x, y = graph.input("x"), graph.input("y")
    total = graph.add("add", x, y, name="q")
    graph.add("mul", total, 2.0)
    assert [v.value for v in fg.draw(graph).vertices] == [None] * 5
    graph.forward({"x": 3.0, "y": -5.0})
    graph.backward()
    found = texts(fg.draw(graph))
    assert found[0] == ("x", "3", "2")
    assert ("q = add", "-2", "2") in found
    assert found[-1] == ("mul", "-4", "1")


class SumAndDifference:
    """Two outputs."""

    def forward(self, x: Any, y: Any) -> Any:
        return x + y, x - y

    def backward(self, dout: Any) -> Any:
        return dout[0] + dout[1], dout[0] - dout[1]


def test_a_gate_with_two_outputs_is_one_box() -> None:
    graph = fg.Graph()
    both = graph.add(SumAndDifference(), graph.input("x"), graph.input("y"))
    graph.add("mul", both[0], both[1])
    graph.forward({"x": 5.0, "y": 3.0})
    found = fg.draw(graph).vertices
    assert [v.label for v in found] == ["x", "y", "SumAndDifference", "mul"]
    assert found[3].sources == (2, 2)


def test_nothing_is_changed_by_looking() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    fg.manual_seed(5)
    expected = fg.rand(3).tolist()
    fg.manual_seed(5)
    fg.draw(model, inputs=fg.ones(6, 3))
    assert fg.rand(3).tolist() == expected
    # In training mode too, where the running means would move.
    fg.draw(lambda: model[1](model[0](fg.randn(6, 3))))
    assert {name: value.tolist() for name, value in model.state_dict().items()} == state
    assert all(module.training and "forward" not in vars(module) for module in model.modules())
    assert all(param.grad is None for param in model.parameters())


def test_leaves_of_equal_values_are_told_apart() -> None:
    t = {name: fg.zeros(3, requires_grad=True) for name in "abc"}
    found = fg.draw(lambda: (t["a"] + t["b"]) * (t["c"] + t["a"]), names=t).vertices
    assert [v.label for v in found] == ["a", "b", "c", "add", "add", "mul"]
    assert [v.sources for v in found] == [(), (), (), (0, 1), (2, 0), (3, 4)]


def test_a_step_of_a_trainer_is_not_compiled_anew_because_somebody_looked() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
    X, y = fg.rand(8, 3), [0, 1] * 4
    trainer.train_step(X, y)
    engine = trainer._engines["train"].engine
    fg.draw(model, inputs=X)
    fg.draw(lambda: trainer.loss(model(X), fg.tensor(y)), names=dict(model.named_parameters()))
    trainer.health(X, y)
    trainer.train_step(X, y)
    assert trainer._engines["train"].engine is engine


# Geometry


@pytest.mark.parametrize("seed", range(60))
def test_nothing_overlaps_and_nothing_is_cut_in_random_graphs(seed: int) -> None:
    check_geometry(Drawing(random_vertices(seed), values=True, grads=True, title="a <random> & \x00 graph"))


@pytest.mark.parametrize("seed", range(30))
def test_wires_pass_between_the_boxes(seed: int) -> None:
    found = random_vertices(seed)
    rng = random.Random(seed)
    sizes = [(rng.uniform(20, 300), rng.uniform(20, 60)) for _ in found]
    sources = [v.sources for v in found]
    made = layered(sources, sizes, gap=(30.0, 10.0), lane=8.0)
    boxes = [
        Box(*place, *size, str(i)) for i, (place, size) in enumerate(zip(made.places, sizes, strict=True))
    ]
    assert set(made.routes) == {(s, target) for target, of in enumerate(sources) for s in of}
    for (source, target), route in made.routes.items():
        assert route[0][0] == made.column_ends[source]
        assert route[-1][0] == boxes[target].left
        for (x0, y0), (x1, y1) in pairwise(route):
            # A bend swings between the heights of its ends, at most.
            wire = Box(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0), "wire")
            wire.bottom, wire.right = max(wire.bottom, wire.top + 1e-6), max(wire.right, wire.left + 1e-6)
            assert not any(wire.overlaps(box) for box in boxes), (source, target)


@pytest.mark.parametrize("seed", range(30))
def test_marks_stand_for_the_wires_between_rows(seed: int) -> None:
    vertices = random_vertices(seed)
    rng = random.Random(seed)
    if seed % 2:
        # As of a plan: parts of a picture, none read by an earlier one.
        at = sorted(rng.randrange(len(vertices)) for _ in range(2))
        vertices = [replace(v, band="abc"[sum(i >= a for a in at)]) for i, v in enumerate(vertices)]
    page = paged(vertices, values=True, grads=True)
    assert sorted(box for piece in page.pieces for box in piece.boxes) == list(range(len(vertices)))
    # What stands at the end of a wire, or is the label of a leaf that has no mark.
    ends: dict[str, int] = {}
    for i, cell in enumerate(page.cells):
        if cell.mark:
            assert ends.setdefault(cell.mark, i) == i
    for i, v in enumerate(vertices):
        if not v.sources and not page.cells[i].mark:
            ends.setdefault(page.cells[i].label, i)
    place = {}
    for piece in page.pieces:
        for i, (box, read) in enumerate(zip(piece.boxes, piece.sources, strict=False)):
            found = {piece.boxes[source] for source in read if source < len(piece.boxes)}
            texts = [piece.marks[s - len(piece.boxes)] for s in read if s >= len(piece.boxes)]
            found |= {ends[mark] for text in texts for mark in text.split(", ")}
            assert found == set(vertices[box].sources)
            assert all((source, i) in piece.found.routes for source in read)
            place[box] = piece.y
    # What is read stands in the same row or above.
    assert all(place[s] <= place[i] for i, v in enumerate(vertices) for s in v.sources)
    assert page.width < 1200


def test_a_chain_goes_on_in_the_next_row() -> None:
    chain = [Vertex("step", "op", (i - 1,) if i else (), (3,)) for i in range(40)]
    picture = Drawing(chain, values=True, grads=False, title="chain")
    check_geometry(picture)
    view, boxes, _, _ = geometry(picture.svg())
    assert view.right < 1300
    assert len({box.top for box in boxes}) > 2


def test_real_pictures_have_room() -> None:
    t = scalars(w=2, x=-1)
    check_geometry(fg.draw(lambda: 1 / (1 + (t["w"] * t["x"]).exp()), names=t))
    check_geometry(fg.draw(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))))
    empty = Drawing([], values=True, grads=True, title="nothing")
    assert ET.fromstring(empty.svg()).tag == f"{SVG}svg"


# Collapsing


def deep(layers: int) -> nn.Sequential:
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU()) for _ in range(layers)]
    return nn.Sequential(*blocks, nn.Linear(4, 2))


def test_a_large_network_has_a_box_for_each_call_of_a_module() -> None:
    picture = fg.draw(deep(25), inputs=fg.randn(2, 4))
    assert len(picture.vertices) <= LARGEST
    assert "operations and leaves in" in picture.title
    groups = [v for v in picture.vertices if v.kind == "group"]
    assert [v.label for v in groups] == [*(f"{i} Sequential" for i in range(25)), "25 Linear"]
    assert groups[-1].note == "3 operations, 2 parameters"
    assert [v.sources for v in groups[1:]] == [(picture.vertices.index(v),) for v in groups[:-1]]
    assert groups[0].value_text() == "(2, 4)"
    assert groups[0].grad is not None
    check_geometry(picture)
    finer = fg.draw(deep(15), inputs=fg.randn(2, 4)).vertices
    assert [v.label for v in finer[1:4]] == ["0.0 Linear", "0.1 LayerNorm", "relu"]


def test_a_small_network_is_drawn_whole() -> None:
    assert not any(v.kind == "group" for v in fg.draw(deep(2), inputs=fg.randn(2, 4)).vertices)


class Around(nn.Module):
    """Uses its own child between operations of its own: a group of its operations would be in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        for _ in range(4):
            x = self.inner(x * 2).exp() + x
        return x


def test_groups_never_read_each_other_in_a_loop() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Around(), Around()

        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return self.second(self.first(x) + 1) * 3

    picture = fg.draw(Twice(), inputs=fg.randn(2, 3))
    assert 1 < len(picture.vertices) <= LARGEST
    for i, v in enumerate(picture.vertices):
        assert all(source < i for source in v.sources)


@pytest.mark.parametrize("seed", range(10))
def test_graphs_without_modules_become_stretches_of_operations(seed: int) -> None:
    rng = random.Random(seed)
    large = [
        Vertex(
            rng.choice(["add", "mul", "exp"]), "op", tuple(rng.randrange(i) for _ in range(2)) if i else ()
        )
        for i in range(700)
    ]
    found = collapsed(large, {})
    assert 1 < len(found) <= LARGEST
    assert all(source < i for i, v in enumerate(found) for source in v.sources)
    chain = collapsed([Vertex("exp", "op", (i - 1,) if i else ()) for i in range(500)], {})
    assert 1 < len(chain) <= LARGEST


def test_what_repeats_itself_becomes_rounds() -> None:
    x, w = fg.tensor(0.3, requires_grad=True), fg.tensor(0.9, requires_grad=True)

    def logistic() -> fg.Tensor:
        y = x * w
        for _ in range(90):
            y = 4 * y * (1 - y) * w
        return (y + w).exp()

    picture = fg.draw(logistic, names={"x": x, "w": w})
    groups = [v for v in picture.vertices if v.kind == "group"]
    assert {v.note for v in groups} >= {"mul 4, neg, add 1, mul, mul"}
    rounds = [re.fullmatch(r"(\d+) rounds of 5 operations", v.label) for v in groups]
    assert 88 <= sum(int(found[1]) for found in rounds if found) <= 90
    assert len(picture.vertices) < 30
    # A round begins where one value passes, and each box has its value and gradient.
    assert all(len([s for s in v.sources if picture.vertices[s].kind == "group"]) <= 1 for v in groups)
    assert all(v.value_text() and v.grad_text() for v in groups)
    check_geometry(picture)
    unrolled = [v for v in picture.vertices if v.kind == "group"][3]
    assert unrolled.value is not None
    assert 0 < unrolled.value.item() < 1


def test_a_network_of_numbers_is_drawn_in_few_boxes() -> None:
    rng = random.Random(0)
    weights = [[fg.tensor(rng.gauss(0, 1), requires_grad=True) for _ in range(9)] for _ in range(17)]

    def neuron(row: list[fg.Tensor], inputs: list[fg.Tensor]) -> fg.Tensor:
        total = row[0]
        for weight, value in zip(row[1:], inputs, strict=False):
            total = total + weight * value
        return total.tanh()

    def network() -> fg.Tensor:
        hidden = [neuron(row, [fg.tensor(0.5), fg.tensor(-1.0)]) for row in weights[:8]]
        return neuron(weights[16], [neuron(row, hidden) for row in weights[8:16]])

    picture = fg.draw(network)
    assert 10 < len(picture.vertices) <= LARGEST
    operations = [int(n) for v in picture.vertices for n in re.findall(r"(\d+) operations", v.label)]
    assert sum(operations) > 150
    check_geometry(picture)


def test_a_network_wired_at_random_has_a_box_for_each_of_its_nodes() -> None:
    picture = fg.draw(nn.RandomDAG(4, 8, seed=1), inputs=fg.randn(2, 4))
    names = [v.label for v in picture.vertices if v.kind == "group"]
    assert sorted(names) == sorted(
        ["first Linear", "last Linear", *(f"layers.{i} Linear" for i in range(32))]
    )
    check_geometry(picture)


# Files and errors


def test_each_language_is_written(tmp_path: Path) -> None:
    t = scalars(x=2)
    picture = fg.draw(lambda: t["x"].exp(), names={'a "b" <c>\n': t["x"]})
    for name, text in (("a.svg", picture.svg()), ("a.dot", picture.dot()), ("a.mmd", picture.mermaid())):
        picture.save(tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert picture._repr_svg_() == picture.svg()
    assert '"a \\"b\\" <c> "' in picture.dot()
    assert "a #34;b#34; #60;c#62;" in picture.mermaid()
    assert "n0 -> n1" in picture.dot()
    with pytest.raises(fg.ConfigError, match=r"path must end with \.svg, \.dot or \.mmd, got 'a\.png'"):
        picture.save("a.png")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fg.draw(3), "subject must be a Tensor, a model"),
        (lambda: fg.draw(nn.Linear), "a function, got the class Linear"),
        (
            lambda: fg.draw(fg.ones(1), inputs=fg.ones(1)),
            "inputs are for modules; a Tensor has been computed",
        ),
        (
            lambda: fg.draw(fg.Trainer(lambda x: x, nn.MSELoss(), fg.optim.SGD([fg.ones(1)], lr=0.1))),
            "subject: expected a trainer of a Module, got one of function",
        ),
        (lambda: fg.draw(type("Fitted", (), {"to_module": None})), "got the class Fitted"),
        (lambda: fg.draw(lambda: 3), "must return tensors, got int"),
        (lambda: fg.draw(nn.ReLU()), "cannot be guessed"),
        (lambda: fg.draw(lambda: fg.ones(1), inputs=fg.ones(1)), "inputs are for modules"),
        (lambda: fg.draw(fg.Graph(), inputs=1), "a Graph has its own"),
        (lambda: fg.draw(nn.Linear(1, 1), names=["x"]), "names must be a mapping"),
        (lambda: fg.draw(nn.Linear(1, 1), names={"x": 1.0}), "names must map str to Tensor"),
        (lambda: fg.draw(nn.Linear(1, 1), values="yes"), "values: expected True or False"),
    ],
)
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(fg.ConfigError, match=message):
        call()


def test_an_error_of_the_function_comes_out_and_leaves_no_hooks() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(fg.ShapeError):
        fg.draw(model, inputs=fg.ones(1, 5))
    assert "forward" not in vars(model)
    graph = fg.Graph()
    graph.add("add", graph.input("x"))
    with pytest.raises(fg.GraphError, match="not connected"):
        fg.draw(graph)


def test_importing_the_package_does_not_load_what_draws() -> None:
    code = "import sys, ferrograd; print([m for m in sys.modules if 'ferrograd.drawing' in m])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_innermost_call_around_an_operation_is_found() -> None:
    # Calls as they end: an inner one before that around it.
    rng = random.Random(0)
    for _ in range(50):
        calls: list[Call] = []
        number = 0

        def call(depth: int, calls: list[Call] = calls) -> None:
            nonlocal number
            first = number
            for _ in range(rng.randint(0, 3)):
                if depth < 4 and rng.random() < 0.6:
                    call(depth + 1)
                else:
                    number += 1
            calls.append(Call(f"m{len(calls)}", nn.Tanh(), first, number, None, 0, 0, True))

        call(0)
        call(0)
        place = span_of(calls)
        for op in range(number + 3):
            inside = [c.name for c in calls if c.first < op <= c.last]
            assert place(op) == ((inside[0], "Tanh") if inside else ("", ""))


class OfDict(nn.Linear):
    """Returns what is no tensor."""

    def forward(self, x: fg.Tensor) -> Any:
        return {"score": super().forward(x)}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fg.draw(nn.Linear(2, 1)).save(None), fg.DTypeError, "save: path must be a str"),
        (lambda: fg.draw(nn.Linear(2, 1), inputs="abc"), fg.DTypeError, "draw: inputs: .* got 'abc'"),
        (lambda: fg.draw(OfDict(2, 1)), fg.ConfigError, "model must return tensors, got dict"),
    ],
)
def test_what_cannot_be_drawn_or_saved_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_one_sample_that_counts_as_several_is_pointed_out() -> None:
    model, image = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), np.ones((8, 8), np.float32)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
    fg.draw(model, inputs=image[None])
    for call, message in (
        (
            lambda: fg.draw(model, inputs=image),
            r"got \(8, 8\); if these 8 rows are one sample, pass inputs\[None\]",
        ),
        (lambda: trainer.predict(image), r"one sample, pass X\[None\]"),
        (lambda: trainer.health(image, 2), r"y: expected 8 rows, .* for one sample pass X\[None\]"),
        (lambda: fg.check_gradients(trainer, image, [0] * 8), r"8 rows are one sample, pass X\[None\]"),
        (lambda: fg.trace(trainer, image, 2), r"which is 8 samples; .* pass x\[None\]"),
    ):
        with pytest.raises(fg.ShapeError, match=message):
            call()
    with pytest.raises(fg.ShapeError) as found:
        trainer.predict(np.ones((5, 60)))
    assert "None" not in str(found.value)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_trainer_and_an_estimator_are_drawn_as_their_networks() -> None:
    from ferrograd.sklearn import MLPClassifier

    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
    assert texts(fg.draw(trainer)) == texts(fg.draw(model))
    fitted = MLPClassifier((3,), max_iter=2).fit([[0, 1], [1, 0]], [0, 1])
    assert "relu" in [v.label for v in fg.draw(fitted).vertices]


def test_a_leaf_without_a_name_is_called_so() -> None:
    p = nn.Linear(2, 1)
    found = fg.draw(p(fg.ones(1, 2)).sum(), names={"w": p.weight})
    assert [v.label for v in found.vertices if v.kind == "input"] == ["w", "leaf"]


def test_a_picture_keeps_the_values_that_it_was_made_with() -> None:
    p, x = nn.Linear(2, 3), fg.ones(1, 2)

    def run() -> fg.Tensor:
        w = p.weight
        return p(x).sum() + w.t().sum() + w.reshape(6).sum() + w[0].sum() + w.expand(2, 3, 2).sum()

    graph = fg.Graph()
    node = graph.input("x")
    graph.add("mul", node, node)
    held = fg.tensor(2.0)
    graph.forward({"x": held})
    for subject in (run, run(), graph):
        picture = fg.draw(subject)
        before = [None if v.value is None else v.value.tolist() for v in picture.vertices]
        with fg.no_grad():
            p.weight.fill_(7.0), p.bias.fill_(9.0), x.fill_(5.0)
            held.fill_(9.0)
        assert [None if v.value is None else v.value.tolist() for v in picture.vertices] == before
        with fg.no_grad():
            p.weight.fill_(1.0), p.bias.fill_(1.0), x.fill_(1.0)
