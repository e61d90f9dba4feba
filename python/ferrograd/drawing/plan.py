"""A compiled training step as it is drawn: instructions and what flows between them, as the compiler says."""

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd.anomaly import named_calls
from ferrograd.compiled import trained
from ferrograd.drawing.collapse import kinds_of
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.module import Module
from ferrograd.threads import threads

if TYPE_CHECKING:
    from ferrograd.plan import Plan
    from ferrograd.trainer import Trainer

__all__ = ["of_plan"]

_BANDS = ("forward", "loss", "backward and updates")
_FORWARD, _LOSS, _BACKWARD = range(len(_BANDS))


class _Value(NamedTuple):
    """A value of the plan, with the layer that computes it, and whose gradient it is part of."""

    kind: str
    number: int | None
    constant: float | None
    shape: list[int]
    layer: str | None
    gradient_of: str | None


class _Part(NamedTuple):
    """An instruction; what it updates by the number of the trained parameter."""

    name: str
    reads: list[int]
    writes: list[int]
    updates: list[int]


class _Named:
    """What things are called in a trainer."""

    def __init__(self, trainer: "Trainer") -> None:
        model = trainer.model
        own: list[tuple[str, Tensor]] = []
        self.kinds: dict[str, str] = {}
        self.model = type(model).__name__
        if isinstance(model, Module):
            own = [*model.named_parameters(), *model.named_buffers()]
            self.kinds = kinds_of(model)
        self.leaves = {_core.node_id(tensor): name for name, tensor in own}
        # Those that the loss depends on, as the step counts them.
        learned = [_core.node_id(param) for param in trained(trainer.optimizer)]
        self.updated = [self.leaves.get(learned[number], "a parameter") for number in trainer._updated]
        self.parameters = set(learned)

    def layer(self, value: _Value) -> str:
        """Return the dotted name of the layer that computes a value, empty outside those of the model."""
        return value.layer if value.layer in self.kinds else ""

    def is_of_model(self, value: _Value) -> bool:
        return value.layer is not None and (value.layer in self.kinds or value.layer == self.model)


def of_plan(plan: "Plan") -> list[Vertex]:
    """Return the instructions of a step, which is compiled anew."""
    # Of the same model: a function knows its own parameters, not copies of them.
    trainer = copy.copy(plan.trainer)
    data, engine = plan.samples.repeated(plan.rows), _core.Engine(0)
    with threads(trainer.n_threads), named_calls():
        trainer._compile(engine, data, plan.rows, trains=True, accumulate=plan.accumulate, placed=True)
    outline = engine.outline(plan.rows)
    values, parts = [_Value(*value) for value in outline[0]], [_Part(*part) for part in outline[1]]
    outputs, assigned = outline[2], outline[3]
    named = _Named(trainer)
    writer = {value: number for number, part in enumerate(parts) for value in part.writes}
    bands = _bands(parts, values, writer, named)

    vertices: list[Vertex] = []
    place: dict[int, int] = {}
    notes = {outputs[0]: "scores", outputs[1]: "loss"}

    def source(value: int, band: str) -> int:
        """Return the position of what gives a value; leaves are put before what reads them first."""
        if value not in place:
            place[value] = len(vertices)
            vertices.append(_leaf(values[value], named, band))
        return place[value]

    for number in sorted(range(len(parts)), key=lambda number: bands[number]):
        part, band = parts[number], _BANDS[bands[number]]
        sources = tuple(dict.fromkeys(source(value, band) for value in part.reads))
        place |= dict.fromkeys(part.writes, len(vertices))
        given = [notes[value] for value in part.writes if value in notes]
        vertices.append(replace(_instruction(part, values, named, given), sources=sources, band=band))
    for node, output in assigned:
        position = source(outputs[output], _BANDS[_FORWARD])
        name = named.leaves.get(node, "sum of gradients")
        vertices.append(Vertex(name, "parameter", (position,), note="assigned", band=vertices[position].band))
    return vertices


def _bands(parts: list[_Part], values: list[_Value], writer: dict[int, int], named: _Named) -> list[int]:
    """Return the band of each instruction, none before that of what it reads."""
    reads = [[writer[value] for value in part.reads if value in writer] for part in parts]
    found: list[int] = []
    for part, read in zip(parts, reads, strict=True):
        # A loss comes before its gradient, if they are one instruction.
        first = values[part.writes[0]] if part.writes else None
        if first is None or first.gradient_of is not None:
            found.append(_BACKWARD)
        elif first.layer is not None or part.name.endswith("+grad"):
            found.append(_FORWARD if named.is_of_model(first) else _LOSS)
        else:
            # A penalty, or a norm to clip by.
            found.append(max([_LOSS, *(found[other] for other in read)]))
    # What a loss's gradient is scaled by, and what the model computes outside its layers.
    for number in reversed(range(len(parts))):
        for other in reads[number]:
            found[other] = min(found[other], found[number])
    return found


def _leaf(value: _Value, named: _Named, band: str) -> Vertex:
    shape = tuple(value.shape)
    if value.kind == "input":
        return Vertex(("X", "y", "sample_weight")[value.number or 0], "input", (), shape, band=band)
    if value.kind == "leaf":
        name = named.leaves.get(value.number or 0, "")
        kind = "parameter" if name or value.number in named.parameters else "constant"
        label, module = name or "parameter", name.rpartition(".")[0]
        return Vertex(label if kind == "parameter" else "constant", kind, (), shape, module=module, band=band)
    if value.constant is None:
        return Vertex("constant", "constant", (), shape, band=band)
    return Vertex(f"{value.constant:.4g}", "constant", band=band)


def _instruction(part: _Part, values: list[_Value], named: _Named, given: list[str]) -> Vertex:
    updated = [named.updated[number] for number in part.updates]
    # Of a loss with its gradient the latter, which has a row for each sample.
    last = values[part.writes[-1]] if part.writes else None
    module = named.layer(last) if last else updated[0].rpartition(".")[0]
    layer = f"{module} {named.kinds[module]}" if module else ""
    text = f"updates {', '.join(updated)}" if updated else layer
    text = ": ".join(filter(None, (text, ", ".join(given))))
    shape, parts = None if last is None else tuple(last.shape), tuple(part.name.split("+"))
    if len(parts) > 1:
        return Vertex(text or "one instruction", "fused", (), shape, module=module, parts=parts)
    return Vertex(part.name, "op", (), shape, module=module, note=text.removeprefix("updates "))
