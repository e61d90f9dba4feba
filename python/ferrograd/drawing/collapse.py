"""Large graphs with groups in the place of most of their boxes."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ferrograd.drawing.segments import segments
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.module import Module

__all__ = ["LARGEST", "collapsed", "is_large", "kinds_of"]

# More boxes than this are not read.
LARGEST = 60

# What is part of a group stands for nothing of its own.
_LEAVES = ("parameter", "constant")

# What a group is called: its band, then the dotted name of a call of a module, or where it begins in the
# order of operations; None for what stands alone.
_Key = tuple[str, str | int]


def kinds_of(model: Any) -> dict[str, str]:
    """Return the classes of a model's modules, by their dotted names."""
    named = model.named_modules() if isinstance(model, Module) else ()
    return {name: type(module).__name__ for name, module in named if name}


def collapsed(vertices: list[Vertex], kinds: Mapping[str, str]) -> list[Vertex]:
    """Return the graph as it is up to `LARGEST` vertices, else with groups in the place of most of them.

    Groups are the calls of modules, of the deepest level that is coarse enough, with what lies between them
    where that is too much. Without modules, or with too many, they are stretches of operations: one or
    several rounds of what repeats itself, and what is between places where few values pass. `kinds` are the
    classes of modules by name.
    """
    if not is_large(vertices):
        return vertices
    vertices = _leaves_by_band(vertices)

    def of_module(key: _Key, members: list[Vertex]) -> tuple[str, str]:
        name, _, call = str(key[1]).partition("#")
        label = f"{name} {kinds.get(name, '')}".rstrip()
        return f"{label} (call {call})" if call else label, _counted(members)

    depth = max((v.module.count(".") + 1 for v in vertices if v.module and v.kind not in _LEAVES), default=0)
    while depth:
        keys = [_at(v, depth) for v in vertices]
        for made in (keys, _with_neighbours(vertices, keys)):
            found = _contracted(vertices, made, of_module)
            if not is_large(found):
                return found
        depth -= 1
    operations = [i for i, v in enumerate(vertices) if v.kind not in _LEAVES and v.kind != "input"]
    place = {v: i for i, v in enumerate(operations)}
    reads = [[place[s] for s in vertices[i].sources if s in place] for i in operations]
    names = [(vertices[i].label, vertices[i].shape, vertices[i].band) for i in operations]
    cuts, rounds = segments(names, reads)
    keys = [None] * len(vertices)
    for start, stop in zip(cuts, [*cuts[1:], len(operations)], strict=True):
        for i in operations[start:stop] if stop - start > 1 else ():
            keys[i] = (vertices[i].band, start)

    def label(key: _Key, members: list[Vertex]) -> tuple[str, str]:
        return _stretch_label(members, rounds.get(int(key[1]), 1))

    found = _contracted(vertices, keys, label)
    return _contracted(vertices, _with_inputs(vertices, keys), label) if is_large(found) else found


def is_large(vertices: list[Vertex]) -> bool:
    """Whether nobody would read them; where there are bands, leaves are repeated by name and do not count."""
    return sum(1 for v in vertices if v.sources or not v.band) > LARGEST


def _leaves_by_band(vertices: list[Vertex]) -> list[Vertex]:
    """Return the graph with a leaf in each band that reads it: it can then be inside a group there."""
    found: list[Vertex] = []
    place: dict[tuple[int, str], int] = {}
    for i, v in enumerate(vertices):
        if v.kind in _LEAVES and not v.sources:
            continue
        for source in v.sources:
            leaf = vertices[source]
            if leaf.kind in _LEAVES and not leaf.sources and (source, v.band) not in place:
                place[source, v.band] = len(found)
                found.append(replace(leaf, band=v.band))
        sources = tuple(place.get((s, v.band), place.get((s, ""), -1)) for s in v.sources)
        place[i, ""] = len(found)
        found.append(replace(v, sources=sources))
    return found


def _with_inputs(vertices: list[Vertex], keys: list[_Key | None]) -> list[_Key | None]:
    """Return keys with each input in the group that reads it first."""
    found = list(keys)
    for i, v in enumerate(vertices):
        for source in v.sources:
            if vertices[source].kind == "input" and found[source] is None:
                found[source] = keys[i]
    return found


def _at(vertex: Vertex, depth: int) -> _Key | None:
    """Return the call of a module down to so many levels."""
    if not vertex.module or vertex.kind in _LEAVES:
        return None
    return vertex.band, ".".join(vertex.module.split(".")[:depth])


def _with_neighbours(vertices: list[Vertex], keys: list[_Key | None]) -> list[_Key | None]:
    """Return keys with what no module made in the group that alone reads it, or that it alone reads."""
    found = list(keys)
    readers: list[set[int]] = [set() for _ in vertices]
    for i, v in enumerate(vertices):
        for source in v.sources:
            readers[source].add(i)

    def join(i: int, others: Iterable[int]) -> None:
        if found[i] is None and vertices[i].kind not in _LEAVES:
            near = {found[other] for other in others if vertices[other].kind not in _LEAVES}
            key = near.pop() if len(near) == 1 else None
            found[i] = key if key is not None and key[0] == vertices[i].band else None

    for i in reversed(range(len(vertices))):
        join(i, readers[i])
    for i, v in enumerate(vertices):
        join(i, v.sources)
    return found


def _stretch_label(members: list[Vertex], rounds: int) -> tuple[str, str]:
    """Return the operations of a stretch, of one round if there are several."""
    names = [v.label for v in members if v.kind not in _LEAVES and v.kind != "input"]
    if len(set(names)) == 1:
        return f"{len(names)} x {names[0]}", ""
    names = names[: len(names) // rounds]
    label = f"{rounds} rounds of {len(names)}" if rounds > 1 else str(len(names))
    return f"{label} operations", ", ".join(names)


def _counted(members: Iterable[Vertex]) -> str:
    counted = (v.kind for v in members if v.kind not in ("constant", "input"))
    kinds = Counter("parameter" if kind == "parameter" else "operation" for kind in counted)
    return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in sorted(kinds.items()))


def _contracted(
    vertices: list[Vertex],
    given: list[_Key | None],
    label: Callable[[_Key, list[Vertex]], tuple[str, str]],
) -> list[Vertex]:
    """Make one vertex of those with one key; of groups in a loop too."""
    keys: list[Hashable] = [("alone", i) if key is None else key for i, key in enumerate(given)]
    consumers: dict[int, set[Hashable]] = {}
    for i, v in enumerate(vertices):
        for source in v.sources:
            consumers.setdefault(source, set()).add(keys[i])
    for i, v in enumerate(vertices):
        # What only one group reads is inside.
        if v.kind in _LEAVES and not v.sources and len(readers := consumers.get(i, set())) == 1:
            keys[i] = next(iter(readers))
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
        operations = [v for v in inside if v.kind not in _LEAVES]
        if len(inside) == 1 or len(operations) == 1:
            only = (operations or inside)[0]
            with_leaves = "" if len(inside) == 1 else _counted(v for v in inside if v is not only)
            note = ", ".join(filter(None, (only.note, with_leaves)))
            found.append(replace(only, sources=sources, note=note))
            continue
        out = [i for i in members[group] if i in read_outside] or [members[group][-1]]
        last = vertices[out[-1]] if len(out) == 1 else None
        of_group = {given[i] for i in members[group]} - {None}
        text, note = label(_common(of_group), inside)
        found.append(
            Vertex(
                text,
                "group",
                sources,
                last.shape if last else None,
                last.value if last else None,
                last.grad if last else None,
                note=note,
                band=Counter(v.band for v in inside).most_common(1)[0][0],
            )
        )
    return found


def _common(keys: set[_Key | None]) -> _Key:
    """Return the one key, or what dotted names begin with."""
    known = [key for key in keys if key is not None]
    if len(known) == 1:
        return known[0]
    split = [str(name).partition("#")[0].split(".") for _, name in known]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "", ".".join(shared) or "model"


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
