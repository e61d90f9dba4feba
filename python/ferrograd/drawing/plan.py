"""A compiled training step as it is drawn: instructions and what flows between them."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd.compiled import trained
from ferrograd.drawing.read import VIEWS, Find, Step, run_recorded
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.module import Module, in_mode
from ferrograd.objective import objective

if TYPE_CHECKING:
    from ferrograd.plan import Plan

__all__ = ["of_plan"]


class _Box:
    """What becomes a vertex."""

    def __init__(
        self, label: str, kind: str, sources: list[int], shape: tuple[int, ...] | None, note: str = ""
    ) -> None:
        self.label = label
        self.kind = kind
        self.sources = sources
        self.shape = shape
        self.note = note


def of_plan(plan: "Plan") -> tuple[list[Vertex], int]:
    """Return the instructions, and how many of the plan's have no place in the picture.

    The step is recorded anew, as the compiler records it. Which operations share an instruction follows from
    the plan's own list of instructions.
    """
    boxes = _boxes(plan)
    best: tuple[int, list[list[int]], dict[int, list[str]]] | None = None
    # Whether the factor of a loss's gradient is part of its pass, the list shows.
    for with_factor in (True, False):
        groups, parts = _groups(boxes, plan.instructions, with_factor)
        left_over = _left_over(boxes, groups, parts, plan.instructions)
        if best is None or left_over < best[0]:
            best = left_over, groups, parts
    assert best is not None
    left_over, groups, parts = best
    return _vertices(boxes, groups, parts), left_over


def _boxes(plan: "Plan") -> list[_Box]:
    trainer, samples = plan.trainer, plan.samples
    tables = [np.resize(table, (plan.rows, *table.shape[1:])) for table in samples.tables]
    tensors = [_core.tensor(t, dtype=dtype) for t, dtype in zip(tables, samples.dtypes, strict=True)]
    named: dict[str, Tensor] = dict(zip(("X", "y", "sample_weight"), tensors, strict=False))
    x, target, weight = tensors[0], tensors[1], tensors[2] if len(tensors) > 2 else None
    learned = trained(trainer.optimizer)
    own = dict(trainer.model.named_parameters()) if isinstance(trainer.model, Module) else {}
    names = {i: name for i, param in enumerate(learned) for name, other in own.items() if other is param}
    boxes: list[_Box] = []

    def step() -> list[Tensor]:
        loss = objective(trainer.loss, trainer.model(x), target, weight, trainer.l2, learned)
        grads = _core.grad(loss, learned, create_graph=True, allow_unused=True)
        reached.extend(i for i, grad in enumerate(grads) if grad is not None)
        return [loss, *(grad for grad in grads if grad is not None)]

    def use(steps: list[Step], results: list[int], find: Find) -> None:
        labels = {find(tensor): name for name, tensor in named.items()}
        parameters = {find(param): name for name, param in own.items()}
        place: dict[int, int] = {}
        constants: set[int] = set()
        for i, recorded in enumerate(steps):
            tensor = recorded.tensor
            if tensor.op in VIEWS and recorded.sources[0] in place:
                place[i] = place[recorded.sources[0]]
                continue
            sources = [place[source] for source in recorded.sources]
            if tensor.op is None:
                label = (
                    labels.get(i)
                    or parameters.get(i)
                    or ("parameter" if tensor.requires_grad else "constant")
                )
                kind = "input" if i in labels else "parameter" if tensor.requires_grad else "constant"
                if kind == "constant":
                    constants.add(len(boxes))
                    label = f"{tensor.item():.4g}" if tensor.numel() == 1 else label
                boxes.append(_Box(label, kind, [], None if tensor.numel() == 1 else tensor.shape))
            else:
                # What follows from constants alone is computed once.
                is_constant = bool(sources) and all(source in constants for source in sources)
                if is_constant:
                    constants.add(len(boxes))
                boxes.append(_Box(tensor.op, "constant" if is_constant else "op", sources, tensor.shape))
            place[i] = len(boxes) - 1
        if any("update" in name for name in plan.instructions):
            for number, result in zip(reached, results[1:], strict=True):
                # By name: a wire from each parameter across the whole picture would say no more.
                boxes.append(_Box("update", "op", [place[result]], None, names.get(number, "a parameter")))

    reached: list[int] = []
    model = trainer.model
    with in_mode(model, training=True) if isinstance(model, Module) else nullcontext():
        run_recorded("draw", step, use, with_grads=False)
    return boxes


def _groups(
    boxes: list[_Box], instructions: Sequence[str], with_factor: bool
) -> tuple[list[list[int]], dict[int, list[str]]]:
    """Return groups of boxes that are one instruction, and the names of each one's parts by its first box."""
    readers: list[list[int]] = [[] for _ in boxes]
    for i, box in enumerate(boxes):
        for source in box.sources:
            readers[source].append(i)
    names = Counter(name for name in instructions if "+" in name)
    # The longest first: a shorter one is the beginning of it.
    patterns = sorted((name.split("+") for name in names), key=len, reverse=True)
    groups: list[list[int]] = []
    parts: dict[int, list[str]] = {}
    taken: set[int] = set()
    for pattern in patterns:
        found = []
        for start, box in enumerate(boxes):
            if box.label != pattern[0] or box.kind != "op" or start in taken:
                continue
            chain = _chain(boxes, readers, start, pattern[1:], with_factor)
            if chain is not None and not taken.intersection(chain):
                found.append(chain)
                taken.update(chain)
        for chain in found[: names["+".join(pattern)]]:
            groups.append(chain)
            parts[chain[0]] = pattern
        for chain in found[names["+".join(pattern)] :]:
            taken.difference_update(chain)
    if "square" not in instructions:
        # Of packed weights squares are summed at once, which the list does not tell.
        for i, box in enumerate(boxes):
            if box.label == "square" and len(readers[i]) == 1 and boxes[readers[i][0]].label == "sum":
                groups.append([i, readers[i][0]])
                parts[i] = ["sum"]
    return groups, parts


def _chain(
    boxes: list[_Box], readers: list[list[int]], start: int, rest: list[str], with_factor: bool
) -> list[int] | None:
    """Return the boxes of an instruction that begins at `start`, the last of its results last."""
    chain, last = [start], start
    for part in rest:
        if part == "grad":
            slope = boxes[start].label + "_grad"
            twins = [i for i, b in enumerate(boxes) if b.label == slope and b.sources == boxes[start].sources]
            if not twins:
                return None
            last = twins[0]
            chain.append(last)
            if with_factor and len(readers[last]) == 1 and boxes[readers[last][0]].label == "mul":
                last = readers[last][0]
                chain.append(last)
            continue
        if part == "sum":
            # The gradient of a bias, summed in the pass of its weight's, with its update.
            read = boxes[start].sources
            sums = [i for i, b in enumerate(boxes) if b.label == "sum" and b.sources and b.sources[0] in read]
            ends = [(i, readers[i][0]) for i in sums if [boxes[r].label for r in readers[i]] == ["update"]]
            if len(ends) != 1:
                return None
            chain += ends[0]
            continue
        following = readers[last]
        name = "add" if part in ("bias", "penalty") else part
        if len(following) != 1 or boxes[following[0]].label != name:
            return None
        if part == "penalty":
            (other,) = (source for source in boxes[following[0]].sources if source != last)
            chain += _exclusive(boxes, readers, other)
        last = following[0]
        chain.append(last)
    return chain


def _exclusive(boxes: list[_Box], readers: list[list[int]], last: int) -> list[int]:
    """Return the operations that `last` ends, as far back as nothing else reads them."""
    found, pending = [], [last]
    while pending:
        box = pending.pop()
        if boxes[box].kind == "op" and len(readers[box]) == 1:
            found.append(box)
            pending += boxes[box].sources
    return found


def _left_over(
    boxes: list[_Box], groups: list[list[int]], parts: dict[int, list[str]], instructions: Sequence[str]
) -> int:
    """Count the instructions without a box, and the boxes without an instruction."""
    grouped = {i for group in groups for i in group}
    drawn = Counter("+".join(parts[group[0]]) for group in groups)
    drawn.update(box.label for i, box in enumerate(boxes) if box.kind == "op" and i not in grouped)
    given = Counter(instructions)
    return (given - drawn).total() + (drawn - given).total()


def _vertices(boxes: list[_Box], groups: list[list[int]], parts: dict[int, list[str]]) -> list[Vertex]:
    group_of = {i: group[0] for group in groups for i in group}
    members = {group[0]: group for group in groups}
    heads = [i for i in range(len(boxes)) if group_of.get(i, i) == i]
    reads = {
        head: {
            group_of.get(source, source)
            for i in members.get(head, [head])
            for source in boxes[i].sources
            if group_of.get(source, source) != head
        }
        for head in heads
    }
    # A group stands behind all that any of its boxes reads.
    order: list[int] = []
    done: set[int] = set()
    for first in heads:
        pending = [first]
        while pending:
            missing = reads[pending[-1]] - done
            if missing and pending[-1] not in done:
                pending += sorted(missing, reverse=True)
                continue
            head = pending.pop()
            if head not in done:
                done.add(head)
                order.append(head)
    position = {head: place for place, head in enumerate(order)}
    vertices = []
    for head in order:
        group = members.get(head, [head])
        sources = tuple(sorted(position[source] for source in reads[head]))
        last = boxes[group[-1]]
        inside = tuple(parts.get(head, ()))
        if len(inside) > 1:
            updated = ", ".join(sorted((boxes[i].note for i in group if boxes[i].note), reverse=True))
            label = f"updates {updated}" if updated else "one instruction"
            vertices.append(Vertex(label, "fused", sources, last.shape, parts=inside))
        else:
            vertices.append(Vertex(last.label, last.kind, sources, last.shape, note=last.note))
    return vertices
