"""A drawn graph as SVG: values above the wires, gradients below them."""

import unicodedata
from itertools import pairwise
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from ferrograd.drawing.layout import Layout, layered
from ferrograd.drawing.vertices import Vertex

__all__ = ["to_svg"]

_FONT = 12.0
_SMALL = 10.0
# Of the widest of the usual fixed-width fonts, in widths of an em.
_CHARACTER = 0.61
_LINE = 15.0
_MARGIN = 14.0
_PADDING = 8.0
_LONGEST = 26
# A row of columns: a page shows it with letters that can be read.
_ROW = 1100.0

# Okabe and Ito's colours, which colour-blind people tell apart; in the dark the lighter ones of them.
_STYLE = """
.fg-draw { font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace; }
.fg-draw .ground { fill: #ffffff; }
.fg-draw text { font-size: 12px; fill: #1a1a1a; }
.fg-draw .note { font-size: 10px; fill: #555555; }
.fg-draw .box { fill: #f4f4f4; stroke: #444444; stroke-width: 1.2; }
.fg-draw .input { fill: #d9edf9; stroke: #0072b2; }
.fg-draw .parameter { fill: #fff3c4; stroke: #b57f00; }
.fg-draw .constant { fill: #ffffff; stroke: #777777; stroke-dasharray: 3 2; }
.fg-draw .group { fill: #e6f4ee; stroke: #009e73; }
.fg-draw .frame { fill: none; stroke: #cc79a7; stroke-width: 1.6; stroke-dasharray: 6 3; }
.fg-draw .wire { fill: none; stroke: #777777; stroke-width: 1.2; }
.fg-draw .head { fill: #777777; }
.fg-draw .value { fill: #0072b2; font-weight: 600; }
.fg-draw .grad { fill: #d55e00; font-weight: 600; }
@media (prefers-color-scheme: dark) {
.fg-draw .ground { fill: #14171a; }
.fg-draw text { fill: #ededed; }
.fg-draw .note { fill: #b5b5b5; }
.fg-draw .box { fill: #24292e; stroke: #aaaaaa; }
.fg-draw .input { fill: #0e2f45; stroke: #56b4e9; }
.fg-draw .parameter { fill: #3a3000; stroke: #e69f00; }
.fg-draw .constant { fill: #14171a; stroke: #999999; }
.fg-draw .group { fill: #06352a; stroke: #00b98a; }
.fg-draw .wire { stroke: #999999; }
.fg-draw .head { fill: #999999; }
.fg-draw .value { fill: #56b4e9; }
.fg-draw .grad { fill: #e69f00; }
}
"""


class _Cell(NamedTuple):
    """A box with its wire: texts cut to length, and sizes."""

    label: str
    note: str
    parts: tuple[str, ...]
    value: str
    grad: str
    box_width: float
    width: float
    height: float


def _cut(text: str, longest: int = _LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _width(text: str, size: float) -> float:
    units = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
    return units * size * _CHARACTER


def _cell(vertex: Vertex, has_values: bool, has_grads: bool) -> _Cell:
    label, note = _cut(vertex.label), _cut(vertex.note, 40)
    parts = tuple(_cut(part) for part in vertex.parts) if len(vertex.parts) > 1 else ()
    if parts:
        box_width = sum(_width(part, _FONT) + 2 * _PADDING for part in parts) + _PADDING * (len(parts) + 1)
        box_width = max(box_width, _width(label, _SMALL) + 2 * _PADDING)
        height = _LINE * 2 + 3 * _PADDING
    else:
        box_width = max(_width(label, _FONT), _width(note, _SMALL)) + 2 * _PADDING
        height = _LINE * (2 if note else 1) + _PADDING
    value = _cut(vertex.value_text()) if has_values else ""
    grad = _cut(vertex.grad_text()) if has_grads else ""
    wire = max(_width(value, _FONT), _width(grad, _FONT))
    wire = wire + 2 * _PADDING if wire else _PADDING
    return _Cell(label, note, parts, value, grad, box_width, box_width + wire, max(height, 2 * _LINE + 4))


def to_svg(vertices: list[Vertex], *, values: bool, grads: bool, title: str) -> str:
    """Return the picture as a document of its own."""
    cells = [_cell(vertex, values, grads) for vertex in vertices]
    sizes = [(cell.width, cell.height) for cell in cells]
    found = layered([v.sources for v in vertices], sizes, gap=(34.0, 12.0), lane=10.0, width=_ROW)
    width, height = found.width + 2 * _MARGIN, found.height + 2 * _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.1f} {height:.1f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fg-draw" role="img" {size}>',
        f"<title>{escape(_clean(title))}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" x="0" y="0" width="{width:.1f}" height="{height:.1f}" rx="6"/>',
        f'<g transform="translate({_MARGIN} {_MARGIN})">',
    ]
    lines += _wires(vertices, cells, found)
    for vertex, cell, place in zip(vertices, cells, found.places, strict=True):
        lines += _box(vertex, cell, place.x, place.y)
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _clean(text: str) -> str:
    """Leave out what XML cannot hold."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor={quoteattr(anchor)}'
    return f'<text class="{kind}" {where}>{escape(_clean(text))}</text>'


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'


def _box(vertex: Vertex, cell: _Cell, x: float, y: float) -> list[str]:
    lines = ["<g>", f"<title>{escape(_clean(_spoken(vertex)))}</title>"]
    middle = y + cell.height / 2
    if cell.parts:
        lines.append(_rect("frame", x, y, cell.box_width, cell.height))
        lines.append(_text("note", x + _PADDING, y + _SMALL + 3, cell.label))
        left, top, tall = x + _PADDING, y + _SMALL + 9, cell.height - _SMALL - 15
        for number, part in enumerate(cell.parts):
            wide = _width(part, _FONT) + 2 * _PADDING
            if number:
                lines.append(_line(left - _PADDING, left, top + tall / 2))
            lines.append(_rect("box", left, top, wide, tall))
            lines.append(_text("label", left + wide / 2, top + tall / 2 + 4, part, "middle"))
            left += wide + _PADDING
    else:
        lines.append(_rect(f"box {vertex.kind}", x, y, cell.box_width, cell.height))
        shift = -2.0 if cell.note else 4.0
        lines.append(_text("label", x + cell.box_width / 2, middle + shift, cell.label, "middle"))
        if cell.note:
            lines.append(_text("note", x + cell.box_width / 2, middle + 11, cell.note, "middle"))
    if cell.value:
        lines.append(_text("value", x + cell.box_width + _PADDING, middle - 4, cell.value))
    if cell.grad:
        lines.append(_text("grad", x + cell.box_width + _PADDING, middle + _FONT + 1, cell.grad))
    return [*lines, "</g>"]


def _line(left: float, right: float, y: float) -> str:
    return f'<path class="wire" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'


def _spoken(vertex: Vertex) -> str:
    parts = [vertex.label, vertex.note, vertex.value_text(), vertex.grad_text()]
    names = ("", "", "value ", "gradient ")
    return ", ".join(name + part for name, part in zip(names, parts, strict=True) if part)


def _wires(vertices: list[Vertex], cells: list[_Cell], found: Layout) -> list[str]:
    lines = []
    is_read = {source for vertex in vertices for source in vertex.sources}
    for i, (cell, place) in enumerate(zip(cells, found.places, strict=True)):
        if i in is_read or cell.value or cell.grad:
            end = found.column_ends[i] if i in is_read else place.x + cell.width
            lines.append(_line(place.x + cell.box_width, end, place.y + cell.height / 2))
    drawn: set[tuple[float, ...]] = set()
    for target, vertex in enumerate(vertices):
        cell, place = cells[target], found.places[target]
        routes = [found.routes[source, target] for source in vertex.sources]
        # Wires arrive at the box in the order in which they come, so that they do not cross before it.
        for number, route in enumerate(sorted(routes, key=lambda route: route[-2][1]), 1):
            x, y = place.x, place.y + cell.height * number / (len(routes) + 1)
            points = [*route[:-1], (x - 6, y)]
            if len(points) > 2 and points[-3][0] == points[-2][0]:
                points[-2] = (points[-2][0], y)
            path = ""
            for one, other in pairwise(points):
                # Edges of one source share what they have in common.
                if (*one, *other) not in drawn:
                    drawn.add((*one, *other))
                    path += _segment(*one, *other)
            lines.append(f'<path class="wire" d="{path}"/>')
            lines.append(f'<path class="head" d="M{x:.1f} {y:.1f}l-7 -3.5v7z"/>')
    return lines


def _segment(x0: float, y0: float, x1: float, y1: float) -> str:
    if x0 == x1 or y0 == y1:
        return f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
    x = (x0 + x1) / 2
    return f"M{x0:.1f} {y0:.1f}C{x:.1f} {y0:.1f} {x:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
