"""A drawn graph in the languages of Graphviz and Mermaid."""

from ferrograd.drawing.vertices import Vertex

__all__ = ["to_dot", "to_mermaid"]

_SHAPES = {"input": "ellipse", "parameter": "ellipse", "constant": "plaintext", "group": "box3d"}
_BRACKETS = {"input": ("([", "])"), "parameter": ("[(", ")]"), "group": ("[[", "]]")}


def _lines(vertex: Vertex) -> list[str]:
    texts = [" → ".join(vertex.parts) if len(vertex.parts) > 1 else vertex.label, vertex.note]
    return [_plain(text) for text in texts if text]


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _wire(vertex: Vertex, values: bool, grads: bool) -> list[str]:
    texts = [vertex.value_text() if values else "", vertex.grad_text() if grads else ""]
    return [_plain(text) for text in texts]


def _bands(vertices: list[Vertex]) -> dict[str, list[int]]:
    """Return the numbers of the vertices by band."""
    found: dict[str, list[int]] = {}
    for number, vertex in enumerate(vertices):
        found.setdefault(vertex.band, []).append(number)
    return found


def to_dot(vertices: list[Vertex], *, values: bool, grads: bool, title: str) -> str:
    """Return a digraph: values and gradients, in two lines, at the edges."""

    def quoted(lines: list[str]) -> str:
        texts = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines]
        return '"' + "\\n".join(texts) + '"'

    found = [
        f"digraph {quoted([_plain(title)])} {{",
        "  rankdir=LR;",
        '  node [shape=box, fontname="monospace"];',
    ]
    for band, numbers in _bands(vertices).items():
        found += [f"  subgraph cluster_{numbers[0]} {{", f"  label={quoted([band])};"] if band else []
        for number in numbers:
            vertex = vertices[number]
            style = ', style=dashed, color="#cc79a7"' if len(vertex.parts) > 1 else ""
            shape = _SHAPES.get(vertex.kind, "box")
            found.append(f"  n{number} [label={quoted(_lines(vertex))}, shape={shape}{style}];")
        found += ["  }"] if band else []
    for target, vertex in enumerate(vertices):
        for source in vertex.sources:
            label = [text for text in _wire(vertices[source], values, grads) if text]
            found.append(f"  n{source} -> n{target}" + (f" [label={quoted(label)}];" if label else ";"))
    read = {source for vertex in vertices for source in vertex.sources}
    for number, vertex in enumerate(vertices):
        label = [text for text in _wire(vertex, values, grads) if text]
        if number not in read and label:
            found.append(f"  out{number} [shape=point];")
            found.append(f"  n{number} -> out{number} [label={quoted(label)}];")
    return "\n".join([*found, "}", ""])


def to_mermaid(vertices: list[Vertex], *, values: bool, grads: bool) -> str:
    """Return a flowchart: a value, then "|" and a gradient, at each edge."""

    def quoted(lines: list[str]) -> str:
        # Codes for what has a meaning there.
        texts = ["".join(f"#{ord(c)};" if c in '#&"<>`;|' else c for c in line) for line in lines]
        return '"' + "<br/>".join(texts) + '"'

    found = ["flowchart LR"]
    for band, numbers in _bands(vertices).items():
        found += [f"  subgraph b{numbers[0]}[{quoted([band])}]"] if band else []
        for number in numbers:
            left, right = _BRACKETS.get(vertices[number].kind, ("[", "]"))
            found.append(f"  n{number}{left}{quoted(_lines(vertices[number]))}{right}")
        found += ["  end"] if band else []

    def arrow(vertex: Vertex) -> str:
        value, grad = _wire(vertex, values, grads)
        text = " | ".join(part for part in (value, f"grad {grad}" if grad else "") if part)
        return f"-->|{quoted([text])}|" if text else "-->"

    for target, vertex in enumerate(vertices):
        found += [f"  n{source} {arrow(vertices[source])} n{target}" for source in vertex.sources]
    read = {source for vertex in vertices for source in vertex.sources}
    for number, vertex in enumerate(vertices):
        if number not in read and arrow(vertex) != "-->":
            found.append(f"  n{number} {arrow(vertex)} out{number}(( ))")
    return "\n".join([*found, ""])
