"""A graph as it is drawn: boxes with their sources, values and gradients; large ones are collapsed."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from math import prod

from ferrograd._core import Tensor

__all__ = ["LARGEST", "Vertex", "collapsed"]

# More boxes than this are not read.
LARGEST = 60

# What is part of a group stands for nothing of its own.
_LEAVES = ("parameter", "constant")


@dataclass(frozen=True)
class Vertex:
    """A box of a picture, and what goes out of it.

    Attributes
    ----------
    label : str
        What it says: an operation, or the name of a value.
    kind : {"input", "parameter", "constant", "op", "fused", "group"}
        What it is.
    sources : tuple of int
        Positions of the vertices that it reads.
    shape : tuple of int, or None
        Of its value; None if it has several or none.
    value, grad : Tensor or None
        Its value, and the gradient of the outputs by it.
    module : str
        The call of a module that it belongs to: dotted, or empty.
    parts : tuple of str
        The operations of a fused one.
    note : str
        What stands below the label.
    """

    label: str
    kind: str
    sources: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None
    value: Tensor | None = field(default=None, compare=False)
    grad: Tensor | None = field(default=None, compare=False)
    module: str = ""
    parts: tuple[str, ...] = ()
    note: str = ""

    def value_text(self) -> str:
        """Return the number, or the shape of a tensor."""
        number = _number(self.value)
        if number:
            return number
        return "" if self.shape is None else str(tuple(self.shape))

    def grad_text(self) -> str:
        """Return the number, or the Euclidean norm of a tensor."""
        number = _number(self.grad)
        if number or self.grad is None:
            return number
        return f"norm {float(self.grad.detach().norm().item()):.3g}"


def _number(tensor: Tensor | None) -> str:
    if tensor is None or prod(tensor.shape) != 1:
        return ""
    value = tensor.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def collapsed(vertices: list[Vertex]) -> list[Vertex]:
    """Return the graph as it is up to `LARGEST` vertices, else with groups in the place of most of them.

    Groups are the calls of modules, of the deepest level that is coarse enough. Where these are too many,
    they are of one length of the longest path before: operations of one name, then all of some lengths.
    """
    if len(vertices) <= LARGEST:
        return vertices
    depth = max((v.module.count(".") + 1 for v in vertices if v.module), default=0)
    while depth:
        found = _contracted(vertices, lambda i, depth=depth: _at(vertices[i].module, depth), _module_label)  # type: ignore[misc]
        if len(found) <= LARGEST:
            return found
        depth -= 1
    length: list[int] = []
    for v in vertices:
        length.append(max((length[s] + 1 for s in v.sources), default=0))
    found = _contracted(vertices, lambda i: (length[i], vertices[i].label, vertices[i].kind), _band_label)
    width = 1
    while len(found) > LARGEST:
        width *= 2
        found = _contracted(vertices, lambda i, width=width: length[i] // width, _band_label)  # type: ignore[misc]
    return found


def _at(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth])


def _module_label(key: Hashable, members: list[Vertex]) -> tuple[str, str]:
    name, _, call = str(key).partition("#")
    kinds = {v.note for v in members if v.module == key and v.note}
    label = f"{name} {kinds.pop()}" if len(kinds) == 1 else name
    return f"{label} (call {call})" if call else label, _counted(members)


def _band_label(key: Hashable, members: list[Vertex]) -> tuple[str, str]:
    labels = {v.label for v in members}
    if len(labels) == 1:
        return f"{len(members)} x {labels.pop()}", ""
    return " ".join(sorted(labels)[:3]) + (" …" if len(labels) > 3 else ""), _counted(members)


def _counted(members: Iterable[Vertex]) -> str:
    kinds = Counter(
        "parameter" if v.kind == "parameter" else "operation" for v in members if v.kind != "constant"
    )
    return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in sorted(kinds.items()))


def _contracted(
    vertices: list[Vertex],
    key: Callable[[int], Hashable],
    label: Callable[[Hashable, list[Vertex]], tuple[str, str]],
) -> list[Vertex]:
    """Make one vertex of those with one key, which an empty text is not; of groups in a loop too."""
    keys: list[Hashable] = [("alone", i) if key(i) == "" else key(i) for i in range(len(vertices))]
    consumers: dict[int, set[Hashable]] = {}
    for i, v in enumerate(vertices):
        for source in v.sources:
            consumers.setdefault(source, set()).add(keys[i])
    for i, v in enumerate(vertices):
        # What only one group reads is inside.
        if v.kind in _LEAVES:
            readers = consumers.get(i, set())
            keys[i] = next(iter(readers)) if len(readers) == 1 else ("alone", i)
    group_of = _without_loops(vertices, keys)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(group_of):
        members.setdefault(group, []).append(i)
    # By the last member's position: a group stands behind all that it reads.
    order = _sorted_groups(vertices, group_of, members)
    position = {group: place for place, group in enumerate(order)}
    read_outside = {s for i, v in enumerate(vertices) for s in v.sources if group_of[s] != group_of[i]}
    found = []
    for group in order:
        inside = [vertices[i] for i in members[group]]
        read = [position[group_of[s]] for i in members[group] for s in vertices[i].sources]
        sources = tuple(dict.fromkeys(s for s in read if s != position[group]))
        if len(inside) == 1:
            found.append(replace(inside[0], sources=sources))
            continue
        out = [i for i in members[group] if i in read_outside] or [members[group][-1]]
        last = vertices[out[-1]] if len(out) == 1 else None
        names = {keys[i] for i in members[group]}
        text, note = label(_common(names), inside)
        found.append(
            Vertex(
                text,
                "group",
                sources,
                last.shape if last else None,
                last.value if last else None,
                last.grad if last else None,
                note=note,
            )
        )
    return found


def _common(names: set[Hashable]) -> Hashable:
    """Return the one name, or what dotted ones begin with."""
    if len(names) == 1:
        return next(iter(names))
    split = [str(name).partition("#")[0].split(".") for name in names if isinstance(name, str)]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or "model"


def _without_loops(vertices: list[Vertex], keys: list[Hashable]) -> list[int]:
    """Return numbers of groups, those in one loop joined: strongly connected components, after Tarjan."""
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    group_of = [numbers[key] for key in keys]
    reads: list[set[int]] = [set() for _ in numbers]
    for i, v in enumerate(vertices):
        reads[group_of[i]].update(group_of[s] for s in v.sources)
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    joined: dict[int, int] = {}
    for start in range(len(reads)):
        if start in index:
            continue
        pending = [(start, iter(reads[start]))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while pending:
            group, rest = pending[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    pending.append((other, iter(reads[other])))
                    break
                if other not in joined:
                    low[group] = min(low[group], index[other])
            else:
                pending.pop()
                if pending:
                    low[pending[-1][0]] = min(low[pending[-1][0]], low[group])
                if low[group] == index[group]:
                    while True:
                        member = stack.pop()
                        joined[member] = group
                        if member == group:
                            break
    return [joined[group] for group in group_of]


def _sorted_groups(vertices: list[Vertex], group_of: list[int], members: dict[int, list[int]]) -> list[int]:
    """Return the groups, each behind those that it reads."""
    order: list[int] = []
    done: set[int] = set()
    for first in members:
        pending = [first]
        while pending:
            group = pending[-1]
            missing = {group_of[s] for i in members[group] for s in vertices[i].sources} - done - {group}
            if group in done or not missing:
                pending.pop()
                if group not in done:
                    done.add(group)
                    order.append(group)
                continue
            pending += sorted(missing, reverse=True)
    return order
