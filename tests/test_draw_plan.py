"""`fg.draw` of a compiled step: each instruction is there, and fused ones are framed."""

import re
import xml.etree.ElementTree as ET
from itertools import combinations
from typing import Any

import pytest

import ferrograd as fg
from ferrograd import nn
from picture import SVG, check_geometry, geometry


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


def test_frames_have_room() -> None:
    check_geometry(fg.draw(nn.Sequential(nn.Linear(4, 3), nn.ReLU())))
    picture = fg.draw(planned(nn.CrossEntropyLoss(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).plan)
    view, boxes, labels, _ = geometry(picture.svg())
    frames = len([v for v in picture.vertices if v.parts])
    inner = sum(len(v.parts) for v in picture.vertices)
    assert len(boxes) == len(picture.vertices) + inner
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other) or one.holds(other) or other.holds(one)
    held = [(a, b) for a in boxes for b in boxes if a is not b and a.holds(b)]
    assert len(held) == inner >= 2 * frames
    for one, other in combinations(labels, 2):
        assert not one.overlaps(other), (one.what, other.what)
    assert all(view.holds(item) for item in boxes + labels)
    assert all(box.holds(label) for label in labels for box in boxes if box.overlaps(label))


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        ((nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), {"clip_grad_norm": 1.0}),
        ((nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)), {}),
    ],
)
def test_what_has_no_counterpart_is_counted_and_no_frame_is_made_up(layers: Any, options: Any) -> None:
    plan = planned(nn.CrossEntropyLoss(), *layers, **options).plan
    picture = fg.draw(plan)
    assert re.search(r", \d+ without a counterpart", picture.title)
    drawn = [("+".join(v.parts)) for v in picture.vertices if v.parts]
    assert drawn
    assert all(drawn.count(name) <= plan.instructions.count(name) for name in drawn)
    assert ET.fromstring(picture.svg()).tag == f"{SVG}svg"


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
