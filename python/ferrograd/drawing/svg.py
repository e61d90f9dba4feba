"""A drawn graph as SVG: values above the wires, gradients below them.

Where the boxes need several rows, a wire to another row ends in a mark with its name or its number, there and
where it goes on: wires across the page cannot be followed.
"""

from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from ferrograd.drawing.pages import FONT, MARK, PADDING, SMALL, Cell, Piece, mark_width, paged, width_of
from ferrograd.drawing.vertices import Vertex

__all__ = ["to_svg"]

_MARGIN = 14.0

# Okabe and Ito's colours, which colour-blind people tell apart; in the dark the lighter ones of them.
_STYLE = """
.fg-draw { font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace; }
.fg-draw .ground { fill: #ffffff; }
.fg-draw text { font-size: 12px; fill: #1a1a1a; }
.fg-draw .note { font-size: 11px; fill: #555555; }
.fg-draw .band { font-size: 12px; font-weight: 600; fill: #555555; }
.fg-draw .rule { stroke: #cccccc; stroke-width: 1; }
.fg-draw .box { fill: #f4f4f4; stroke: #444444; stroke-width: 1.2; }
.fg-draw .input { fill: #d9edf9; stroke: #0072b2; }
.fg-draw .parameter { fill: #fff3c4; stroke: #b57f00; }
.fg-draw .constant { fill: #ffffff; stroke: #777777; stroke-dasharray: 3 2; }
.fg-draw .group { fill: #e6f4ee; stroke: #009e73; }
.fg-draw .mark { fill: #ffffff; stroke: #777777; stroke-width: 1; }
.fg-draw .frame { fill: none; stroke: #cc79a7; stroke-width: 1.6; stroke-dasharray: 6 3; }
.fg-draw .wire { fill: none; stroke: #777777; stroke-width: 1.2; }
.fg-draw .head { fill: #777777; }
.fg-draw .value { fill: #0072b2; font-weight: 600; }
.fg-draw .grad { fill: #d55e00; font-weight: 600; }
@media (prefers-color-scheme: dark) {
.fg-draw .ground { fill: #14171a; }
.fg-draw text { fill: #ededed; }
.fg-draw .note, .fg-draw .band { fill: #b5b5b5; }
.fg-draw .rule { stroke: #444a50; }
.fg-draw .box { fill: #24292e; stroke: #aaaaaa; }
.fg-draw .input { fill: #0e2f45; stroke: #56b4e9; }
.fg-draw .parameter { fill: #3a3000; stroke: #e69f00; }
.fg-draw .constant { fill: #14171a; stroke: #999999; }
.fg-draw .group { fill: #06352a; stroke: #00b98a; }
.fg-draw .mark { fill: #14171a; stroke: #999999; }
.fg-draw .wire { stroke: #999999; }
.fg-draw .head { fill: #999999; }
.fg-draw .value { fill: #56b4e9; }
.fg-draw .grad { fill: #e69f00; }
}
"""


def to_svg(vertices: list[Vertex], *, values: bool, grads: bool, title: str) -> str:
    """Return the picture as a document of its own."""
    page = paged(vertices, values=values, grads=grads)
    width, height = page.width + 2 * _MARGIN, page.height + 2 * _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.1f} {height:.1f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fg-draw" role="img" {size}>',
        f"<title>{escape(_clean(title))}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" x="0" y="0" width="{width:.1f}" height="{height:.1f}" rx="6"/>',
        f'<g transform="translate({_MARGIN} {_MARGIN})">',
    ]
    for y, band in page.titles:
        lines.append(_text("band", 0.0, y + FONT, band))
        lines.append(f'<path class="rule" d="M0 {y + FONT + 5:.1f}H{page.width:.1f}"/>')
    for piece in page.pieces:
        lines += _wires(piece, page.cells)
        for i, place in zip(piece.boxes, piece.found.places, strict=False):
            lines += _box(vertices[i], page.cells[i], piece.x + place.x, piece.y + place.y)
        for mark, place in zip(piece.marks, piece.found.places[len(piece.boxes) :], strict=True):
            lines += _mark(mark, piece.x + place.x, piece.y + place.y + MARK / 2)
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _mark(mark: str, x: float, middle: float) -> list[str]:
    wide = mark_width(mark)
    box = f'x="{x:.1f}" y="{middle - MARK / 2:.1f}" width="{wide:.1f}" height="{MARK}" rx="{MARK / 2}"'
    return [f'<rect class="mark" {box}/>', _text("note", x + wide / 2, middle + 4, mark, "middle")]


def _clean(text: str) -> str:
    """Leave out what XML cannot hold."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor={quoteattr(anchor)}'
    return f'<text class="{kind}" {where}>{escape(_clean(text))}</text>'


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'


def _box(vertex: Vertex, cell: Cell, x: float, y: float) -> list[str]:
    lines = ["<g>", f"<title>{escape(_clean(_spoken(vertex)))}</title>"]
    middle = y + cell.height / 2
    if cell.parts:
        lines.append(_rect("frame", x, y, cell.box_width, cell.height))
        lines.append(_text("note", x + PADDING, y + SMALL + 3, cell.label))
        left, top, tall = x + PADDING, y + SMALL + 9, cell.height - SMALL - 15
        for number, part in enumerate(cell.parts):
            wide = width_of(part, FONT) + 2 * PADDING
            if number:
                lines.append(_line(left - PADDING, left, top + tall / 2))
            lines.append(_rect("box", left, top, wide, tall))
            lines.append(_text("label", left + wide / 2, top + tall / 2 + 4, part, "middle"))
            left += wide + PADDING
    else:
        lines.append(_rect(f"box {vertex.kind}", x, y, cell.box_width, cell.height))
        shift = -2.0 if cell.note else 4.0
        lines.append(_text("label", x + cell.box_width / 2, middle + shift, cell.label, "middle"))
        if cell.note:
            lines.append(_text("note", x + cell.box_width / 2, middle + 11, cell.note, "middle"))
    if cell.value:
        lines.append(_text("value", x + cell.box_width + PADDING, middle - 4, cell.value))
    if cell.grad:
        lines.append(_text("grad", x + cell.box_width + PADDING, middle + FONT + 1, cell.grad))
    if cell.mark:
        lines += _mark(cell.mark, x + cell.width - mark_width(cell.mark), middle)
    return [*lines, "</g>"]


def _line(left: float, right: float, y: float) -> str:
    return f'<path class="wire" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'


def _spoken(vertex: Vertex) -> str:
    parts = [vertex.label, vertex.note, vertex.value_text(), vertex.grad_text()]
    names = ("", "", "value ", "gradient ")
    return ", ".join(name + part for name, part in zip(names, parts, strict=True) if part)


def _wires(piece: Piece, cells: list[Cell]) -> list[str]:
    lines = []
    found, left, top = piece.found, piece.x, piece.y
    is_read = {source for read in piece.sources for source in read}
    for i, (box, place) in enumerate(zip(piece.boxes, found.places, strict=False)):
        cell = cells[box]
        if i in is_read or cell.value or cell.grad or cell.mark:
            end = found.column_ends[i] if i in is_read else place.x + cell.width
            middle = top + place.y + cell.height / 2
            lines.append(_line(left + place.x + cell.box_width, left + end, middle))
    for i in range(len(piece.boxes), len(found.places)):
        place = found.places[i]
        middle = top + place.y + MARK / 2
        lines.append(_line(left + place.x + MARK / 2, left + found.column_ends[i], middle))
    drawn: set[tuple[float, ...]] = set()
    for target, box in enumerate(piece.boxes):
        cell, place = cells[box], found.places[target]
        routes = [found.routes[source, target] for source in piece.sources[target]]
        # Wires arrive at the box in the order in which they come, so that they do not cross before it.
        for number, route in enumerate(sorted(routes, key=lambda route: route[-2][1]), 1):
            x, y = left + place.x, top + place.y + cell.height * number / (len(routes) + 1)
            points = [*((left + a, top + b) for a, b in route[:-1]), (x - 6, y)]
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
