"""`fg.draw` of a compiled step: each instruction is there, and fused ones are framed."""

from itertools import combinations
from typing import Any

import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.drawing import Drawing
from ferrograd.drawing.collapse import LARGEST
from ferrograd.drawing.plan import of_plan
from ferrograd.drawing.vertices import Vertex
from picture import check_geometry, geometry


def planned(loss: nn.Module, *layers: nn.Module, **options: Any) -> fg.Trainer:
    model = nn.Sequential(*layers)
    trainer = fg.Trainer(model, loss, fg.optim.Adam(model.parameters(), lr=0.01), **options)
    y = [0, 1, 2] * 10 if isinstance(loss, nn.CrossEntropyLoss) else fg.rand(30, 3)
    trainer.fit(fg.rand(30, 4), y, epochs=1, batch_size=30, progress=False)
    return trainer


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_each_instruction_of_a_plan_is_drawn_and_fused_ones_are_framed(
    activation: Any, loss: Any, l2: float
) -> None:
    layers = nn.Linear(4, 8), activation(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
    plan = planned(loss(), *layers, l2=l2).plan
    assert any("penalty" in name for name in plan.instructions) == (l2 > 0)
    picture = fg.draw(plan)
    assert picture.title == f"training step for 30 rows, {len(plan.instructions)} instructions"
    fused = sorted("+".join(v.parts) for v in picture.vertices if v.parts)
    assert fused == sorted(name for name in plan.instructions if "+" in name)
    plain = sorted(v.label for v in picture.vertices if v.kind == "op")
    assert plain == sorted(name for name in plan.instructions if "+" not in name)
    updates = [v.label.removeprefix("updates ") for v in picture.vertices if "update" in v.parts]
    assert sorted(", ".join(updates).split(", ")) == sorted(
        name for name, _ in plan.trainer.model.named_parameters()
    )
    assert picture.svg().count('class="frame"') == len(fused) > 5
    assert "dashed" in picture.dot()
    assert "matmul → bias" in picture.mermaid()


def block() -> nn.Module:
    return nn.Residual(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)))


class Shared(nn.Module):
    """Calls a layer twice, and computes between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        x = self.first(x).tanh()
        return self.last(self.again(self.again(x)) * x.mean(0) + 1)


NORMAL = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)
PLANS: dict[str, tuple[tuple[nn.Module, ...], dict[str, Any]]] = {
    "normalised": (NORMAL, {}),
    "twice normalised": ((*NORMAL[:4], nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 3)), {}),
    "clipped": ((nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), {"clip_grad_norm": 1.0, "l2": 0.1}),
    "residual": ((nn.Linear(4, 6), block(), block(), nn.Linear(6, 3)), {}),
    "noisy": (
        (nn.GaussianNoise(0.1), nn.Linear(4, 5), nn.PReLU(), nn.RMSNorm(5), nn.Linear(5, 3)),
        {"l2": 0.1},
    ),
    "shared": ((Shared(),), {}),
    "wired at random": ((nn.RandomDAG(4, 3, nodes=5, width=6, seed=0),), {}),
}


def parts_of(vertices: list[Vertex]) -> list[str]:
    return ["+".join(v.parts) or v.label for v in vertices if v.kind in ("op", "fused")]


@pytest.mark.parametrize("name", PLANS)
def test_every_instruction_of_a_plan_is_there_and_read(name: str) -> None:
    layers, options = PLANS[name]
    plan = planned(nn.CrossEntropyLoss(), *layers, **options).plan
    vertices = of_plan(plan)
    assert sorted(parts_of(vertices)) == sorted(plan.instructions)
    read = {source for v in vertices for source in v.sources}
    for i, v in enumerate(vertices):
        # Nothing is computed that nobody wants.
        assert i in read or "update" in (*v.parts, v.label) or v.note in ("assigned", "loss"), v
        assert all(source < i for source in v.sources)
    bands = ["forward", "loss", "backward and updates"]
    found = [bands.index(v.band) for v in vertices]
    assert set(found) == {0, 1, 2}
    for v, band in zip(vertices, found, strict=True):
        assert all(found[source] <= band for source in v.sources)
        assert band == 2 or "update" not in (*v.parts, v.label)
    updated = [v.label.removeprefix("updates ") for v in vertices if "update" in v.parts]
    updated += [v.note for v in vertices if v.label == "update"]
    own = plan.trainer.model.named_parameters()
    assert sorted(", ".join(updated).split(", ")) == sorted(name for name, _ in own)


def test_the_wires_of_a_plan_are_the_right_ones() -> None:
    vertices = of_plan(planned(nn.CrossEntropyLoss(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).plan)
    names = ["+".join(v.parts) or v.label for v in vertices]
    names = [
        f"{v.label}: {name}" if v.label.startswith("updates") else name
        for v, name in zip(vertices, names, strict=True)
    ]
    assert {
        (n, tuple(sorted(names[s] for s in v.sources)))
        for v, n in zip(vertices, names, strict=True)
        if v.sources
    } == {
        ("matmul+bias+tanh", ("0.bias", "0.weight", "X")),
        ("matmul+bias", ("2.bias", "2.weight", "matmul+bias+tanh")),
        ("count_labels", ("y",)),
        ("div", ("1", "count_labels")),
        ("cross_entropy+grad", ("div", "matmul+bias", "y")),
        ("sum", ("cross_entropy+grad",)),
        ("div", ("count_labels", "sum")),
        ("matmul+tanh_grad", ("2.weight", "cross_entropy+grad", "matmul+bias+tanh")),
        ("updates 0.weight, 0.bias: matmul+sum+update", ("X", "matmul+tanh_grad")),
        ("updates 2.weight, 2.bias: matmul+sum+update", ("cross_entropy+grad", "matmul+bias+tanh")),
    }


def test_what_a_step_assigns_is_drawn() -> None:
    vertices = of_plan(planned(nn.CrossEntropyLoss(), *NORMAL).plan)
    assigned = {v.label: v for v in vertices if v.note == "assigned"}
    assert set(assigned) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    (mean,) = assigned["1.running_mean"].sources
    # (1 - momentum) running + momentum mean
    kept, new = (vertices[source] for source in vertices[mean].sources)
    assert {vertices[kept.sources[0]].label, vertices[new.sources[0]].label} == {"1.running_mean", "div"}


def test_a_plan_of_several_batches_adds_up_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters()))
    trainer.fit(fg.rand(40, 4), fg.rand(40, 3), epochs=1, batch_size=10, accumulate=2, progress=False)
    vertices = of_plan(trainer.plan)
    assert sorted(parts_of(vertices)) == sorted(trainer.plan.instructions)
    assert [v.label for v in vertices if v.note == "assigned"] == ["sum of gradients"] * 4


def test_the_plan_of_a_function_and_of_a_changed_model_is_drawn() -> None:
    weight = nn.Parameter(fg.randn(4, 3))
    trainer = fg.Trainer(lambda x: x @ weight, nn.CrossEntropyLoss(), fg.optim.SGD([weight], lr=0.1))
    trainer.fit(fg.rand(8, 4), [0, 1, 2, 0] * 2, epochs=1, batch_size=8, progress=False)
    before = weight.tolist(), fg.get_rng_state().tolist()
    vertices = of_plan(trainer.plan)
    assert sorted(parts_of(vertices)) == sorted(trainer.plan.instructions)
    assert (weight.tolist(), fg.get_rng_state().tolist()) == before
    assert [v.label for v in vertices if v.kind == "parameter"] == ["parameter"]
    with pytest.raises(fg.ConfigError, match="cost: model: expected a trainer of a Module"):
        trainer.plan.cost()
    plan = planned(nn.CrossEntropyLoss(), nn.Linear(4, 3)).plan
    assert isinstance(plan.trainer.model, nn.Sequential)
    plan.trainer.model.add_module("1", nn.Tanh())
    assert "matmul+bias+tanh" in parts_of(of_plan(plan))
    assert f"{len(parts_of(of_plan(plan)))} instructions" in fg.draw(plan).title


def test_a_large_plan_has_a_box_for_each_layer_there_and_back() -> None:
    layers = nn.Linear(4, 6), *(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU()) for _ in range(8))
    picture = fg.draw(planned(nn.CrossEntropyLoss(), *layers, nn.Linear(6, 3)).plan)
    assert "operations and leaves in" in picture.title
    assert sum(1 for v in picture.vertices if v.sources) <= LARGEST
    for band, count in (
        ("forward", "11 operations, 2 parameters"),
        ("backward and updates", "18 operations, 1 parameter"),
    ):
        norms = [v for v in picture.vertices if v.band == band and v.label.endswith(".1 LayerNorm")]
        assert sorted(v.label for v in norms) == [f"{i}.1 LayerNorm" for i in range(1, 9)]
        assert {v.note for v in norms} == {count}
    for i, v in enumerate(picture.vertices):
        assert all(source < i for source in v.sources)
    check_frames(picture)


def check_frames(picture: Drawing) -> None:
    view, boxes, labels, points = geometry(picture.svg())
    inner = sum(len(v.parts) for v in picture.vertices)
    assert len([box for box in boxes if box.what == "box"]) == len(picture.vertices) + inner
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other) or one.holds(other) or other.holds(one)
    held = [(a, b) for a in boxes for b in boxes if a is not b and a.holds(b)]
    assert len(held) == inner
    for one, other in combinations(labels, 2):
        assert not one.overlaps(other), (one.what, other.what)
    assert all(view.holds(item) for item in boxes + labels)
    assert all(box.holds(label) for label in labels for box in boxes if box.overlaps(label))
    assert all(0 <= x <= view.right and 0 <= y <= view.bottom for x, y in points)
    assert view.right < 1200


@pytest.mark.parametrize("name", PLANS)
def test_frames_have_room(name: str) -> None:
    layers, options = PLANS[name]
    picture = fg.draw(planned(nn.CrossEntropyLoss(), *layers, **options).plan)
    check_frames(picture)
    titles = [
        band for band in ("forward", "loss", "backward and updates") if f">{band}</text>" in picture.svg()
    ]
    assert len(titles) == 3
    assert all(f"subgraph b{i}" in picture.mermaid() for i, v in enumerate(picture.vertices[:1]))
    assert picture.dot().count("subgraph cluster_") == 3


def test_a_small_model_has_room() -> None:
    check_geometry(fg.draw(nn.Sequential(nn.Linear(4, 3), nn.ReLU())))


def test_looking_at_a_plan_changes_nothing() -> None:
    def trained(looks: bool) -> list[bytes]:
        fg.manual_seed(2)
        layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)
        trainer = planned(nn.CrossEntropyLoss(), *layers)
        if looks:
            fg.draw(trainer.plan)
        trainer.fit(fg.ones(30, 4), [0, 1, 2] * 10, epochs=2, batch_size=10, progress=False)
        return [value.numpy().tobytes() for value in trainer.model.state_dict().values()]

    assert trained(True) == trained(False)


def test_a_plan_is_that_of_the_last_fit_or_step() -> None:
    model = nn.Linear(2, 1)
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters()))
    with pytest.raises(fg.GraphError, match="plan: no step was compiled"):
        _ = trainer.plan
    trainer.fit(fg.ones(7, 2), fg.ones(7, 1), epochs=1, batch_size=3, progress=False)
    assert trainer.plan.rows == 3
    trainer.train_step(fg.ones(300, 2), fg.ones(300, 1))
    assert trainer.plan.rows == 300
    assert trainer.plan.to_dict() == {"rows": 300, "instructions": list(trainer.plan.instructions)}
    assert str(trainer.plan).splitlines()[1:] == [f"  {name}" for name in trainer.plan.instructions]
    fg.draw(trainer.plan)
    with pytest.raises(fg.ConfigError, match="a Plan has its own"):
        fg.draw(trainer.plan, names={})
