"""A page with the boxes of a graph: rows of columns, and marks where a wire goes to another row."""

import unicodedata
from collections import Counter
from typing import NamedTuple

from ferrograd.drawing.layout import Layout, in_rows, layered
from ferrograd.drawing.vertices import Vertex

__all__ = [
    "FONT",
    "LINE",
    "MARK",
    "PADDING",
    "SMALL",
    "Cell",
    "Page",
    "Piece",
    "mark_width",
    "paged",
    "width_of",
]

FONT = 12.0
SMALL = 11.0
# Of the widest of the usual fixed-width fonts, in widths of an em.
_CHARACTER = 0.61
LINE = 15.0
PADDING = 8.0
_LONGEST = 26
_LEAVES = ("input", "parameter", "constant")
# A row of columns: a page of about 800 shows it with letters that can be read.
_ROW = 900.0
# So much wider than that a page may be.
_WIDE = 1.2
_GAP = (24.0, 12.0)
_LANE = 10.0
# Of a mark, and of a band's title.
MARK = 18.0
_TITLE = 26.0


class Cell(NamedTuple):
    """A box with its wire: texts cut to length, and sizes."""

    label: str
    note: str
    parts: tuple[str, ...]
    value: str
    grad: str
    box_width: float
    width: float
    height: float
    mark: str = ""


def _cut(text: str, longest: int = _LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def width_of(text: str, size: float) -> float:
    """Return the width of a text in the widest font that shows it."""
    units = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
    return units * size * _CHARACTER


def _cell(vertex: Vertex, has_values: bool, has_grads: bool) -> Cell:
    label, note = _cut(vertex.label, 40 if len(vertex.parts) > 1 else _LONGEST), _cut(vertex.note, 40)
    parts = tuple(_cut(part) for part in vertex.parts) if len(vertex.parts) > 1 else ()
    if parts:
        box_width = sum(width_of(part, FONT) + 2 * PADDING for part in parts) + PADDING * (len(parts) + 1)
        box_width = max(box_width, width_of(label, SMALL) + 2 * PADDING)
        height = LINE * 2 + 3 * PADDING
    else:
        box_width = max(width_of(label, FONT), width_of(note, SMALL)) + 2 * PADDING
        height = LINE * (2 if note else 1) + PADDING
    value = _cut(vertex.value_text()) if has_values else ""
    grad = _cut(vertex.grad_text()) if has_grads else ""
    wire = max(width_of(value, FONT), width_of(grad, FONT))
    wire = wire + 2 * PADDING if wire else PADDING
    return Cell(label, note, parts, value, grad, box_width, box_width + wire, max(height, 2 * LINE + 4))


class Piece(NamedTuple):
    """Boxes of a row that hang together, in their places; behind them marks, for wires from elsewhere."""

    boxes: list[int]
    marks: list[str]
    sources: list[tuple[int, ...]]
    found: Layout
    x: float
    y: float


class Page(NamedTuple):
    """Where everything is; `titles` has the heights and the names of bands."""

    cells: list[Cell]
    pieces: list[Piece]
    titles: list[tuple[float, str]]
    width: float
    height: float


def paged(vertices: list[Vertex], *, values: bool, grads: bool) -> Page:
    """Return the boxes in their places, with values and gradients where wanted."""
    limit = _ROW
    page = _placed(vertices, values, grads, limit)
    for _ in range(3):
        if page.width > _WIDE * _ROW:
            # Marks take room too: shorter rows then.
            limit *= 0.85
            page = _placed(vertices, values, grads, limit)
    return page


def _placed(vertices: list[Vertex], values: bool, grads: bool, limit: float) -> Page:
    cells = [_cell(vertex, values, grads) for vertex in vertices]
    bands = list(dict.fromkeys(vertex.band for vertex in vertices))
    of_band = [bands.index(vertex.band) for vertex in vertices]
    sources = [vertex.sources for vertex in vertices]
    rows = in_rows(sources, [cell.width for cell in cells], of_band, gap=_GAP[0], width=limit)
    marks = _marks(vertices, rows)
    cells = [_marked(c, v, marks.get(i, "")) for i, (c, v) in enumerate(zip(cells, vertices, strict=True))]
    pieces: list[Piece] = []
    titles, y = [], 0.0
    for number, row in enumerate(rows):
        band = vertices[row[0]].band
        if band and (number == 0 or band != vertices[rows[number - 1][0]].band):
            titles.append((y, band))
            y += _TITLE
        made, y = _row(row, sources, cells, marks, y)
        pieces += made
    across = max((piece.x + piece.found.width for piece in pieces), default=0.0)
    return Page(cells, pieces, titles, across, max(0.0, y - 2 * _GAP[1]))


def _marks(vertices: list[Vertex], rows: list[list[int]]) -> dict[int, str]:
    """Return what stands for the wires that go to other rows: the name of a leaf, or a number."""
    row_of = {box: number for number, row in enumerate(rows) for box in row}
    reaching = {s for i, v in enumerate(vertices) for s in v.sources if row_of[s] != row_of[i]}
    names = Counter(_cut(vertex.label) for vertex in vertices if not vertex.sources)
    found: dict[int, str] = {}
    numbers = 0
    for box in (box for row in rows for box in row):
        if box not in reaching:
            continue
        vertex = vertices[box]
        name = _cut(vertex.label)
        # One that looks like a number would be taken for it.
        is_name = not vertex.sources and vertex.kind in _LEAVES and names[name] == 1 and not name.isdigit()
        numbers += not is_name
        found[box] = name if is_name else str(numbers)
    return found


def _marked(cell: Cell, vertex: Vertex, mark: str) -> Cell:
    """Make room for a mark behind the texts of a wire; a leaf that stands there by its name needs none."""
    if not mark or (mark == _cut(vertex.label) and not vertex.sources):
        return cell
    return cell._replace(mark=mark, width=cell.width + mark_width(mark) + PADDING / 2)


def mark_width(mark: str) -> float:
    """Return the width of a mark."""
    return max(MARK, width_of(mark, SMALL) + PADDING)


def _row(
    row: list[int], sources: list[tuple[int, ...]], cells: list[Cell], marks: dict[int, str], y: float
) -> tuple[list[Piece], float]:
    """Return the pieces of a row, side by side as far as they fit, and where the next one begins."""
    pieces: list[Piece] = []
    x = bottom = 0.0
    for boxes in _connected(row, sources):
        piece = _piece(boxes, sources, cells, marks)
        if x and x + piece.found.width > _ROW:
            x, y = 0.0, bottom
        pieces.append(piece._replace(x=x, y=y))
        x += piece.found.width + 2 * _GAP[0]
        bottom = max(bottom, y + piece.found.height + 2 * _GAP[1])
    return pieces, bottom


def _connected(row: list[int], sources: list[tuple[int, ...]]) -> list[list[int]]:
    """Return the boxes of a row by what hangs together."""
    group = {box: box for box in row}
    for box in row:
        for source in sources[box]:
            if source in group and group[source] != group[box]:
                old, new = group[box], group[source]
                group = {other: new if of == old else of for other, of in group.items()}
    return [[box for box in row if group[box] == of] for of in dict.fromkeys(group.values())]


def _piece(
    boxes: list[int], sources: list[tuple[int, ...]], cells: list[Cell], marks: dict[int, str]
) -> Piece:
    inside = set(boxes)
    local: dict[int, int] = {}
    reads: list[tuple[int, ...]] = []
    sizes: list[tuple[float, float]] = []
    texts: dict[int, str] = {}
    for box in boxes:
        read = [local[source] for source in sources[box] if source in inside]
        outside = dict.fromkeys(marks[source] for source in sources[box] if source not in inside)
        for text in _lines(sorted(outside, key=lambda mark: not mark.isdigit())):
            texts[len(reads)] = text
            read.append(len(reads))
            reads.append(())
            sizes.append((mark_width(text) + PADDING, MARK))
        local[box] = len(reads)
        reads.append(tuple(read))
        sizes.append((cells[box].width, cells[box].height))
    found = layered(reads, sizes, gap=_GAP, lane=_LANE, light=texts)
    order = [*(local[box] for box in boxes), *texts]
    position = {old: new for new, old in enumerate(order)}
    found = found._replace(
        places=[found.places[i] for i in order],
        column_ends=[found.column_ends[i] for i in order],
        routes={(position[s], position[t]): points for (s, t), points in found.routes.items()},
    )
    placed = [tuple(position[source] for source in reads[i]) for i in order]
    return Piece(boxes, list(texts.values()), placed, found, 0.0, 0.0)


def _lines(marks: list[str]) -> list[str]:
    """Return the marks of one box together, in lines that are not too long."""
    lines: list[str] = []
    for mark in marks:
        if lines and len(lines[-1]) + len(mark) <= _LONGEST:
            lines[-1] += f", {mark}"
        else:
            lines.append(mark)
    return lines
