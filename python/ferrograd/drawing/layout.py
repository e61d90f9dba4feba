"""Places for the boxes of a directed graph: in columns from left to right, in rows, with few crossings.

Layers by longest path, lanes for edges that cross layers, orders by barycentres (Sugiyama, Tagawa and Toda,
1981), and heights by least squares under minimum distances, which pooling adjacent violators solves exactly.
Of the libraries that do this the one in plain Python is under GPL or EPL, others need a compiled extension or
call a program; none breaks a long chain into rows.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Layout", "Place", "in_rows", "layered"]

# Sweeps over the layers for the order, and for the heights: more changed no picture that was looked at.
_ORDERS = 12
_HEIGHTS = 10

# One row may be so much longer than those of which there are several.
_LONGER = 1.1

# A lane is kept straight before a box is moved.
_LANE_WEIGHT = 8.0


class Place(NamedTuple):
    """The upper left corner of a box."""

    x: float
    y: float


class Layout(NamedTuple):
    """Where the boxes are, and how the edges run.

    `routes` has for each edge the points (x, y) that it passes, from the right side of a column to the left
    side of another; `column_ends` where the column of each box ends.
    """

    places: list[Place]
    column_ends: list[float]
    routes: dict[tuple[int, int], list[tuple[float, float]]]
    width: float
    height: float


def layered(
    sources: Sequence[Sequence[int]],
    sizes: Sequence[tuple[float, float]],
    *,
    gap: tuple[float, float],
    lane: float,
    light: Collection[int] = (),
) -> Layout:
    """Place boxes of these sizes, each right of its sources.

    Parameters
    ----------
    sources : sequence of sequences of int
        Numbers of the boxes that a box reads, all lower than its own.
    sizes : sequence of (width, height)
        Of each box.
    gap : (float, float)
        Least distance of columns, and of boxes in a column.
    lane : float
        Height kept free around an edge that passes a column.
    light : collection of int
        Boxes that stand where their readers are, and draw none to themselves.
    """
    edges = sorted({(source, target) for target, found in enumerate(sources) for source in found})
    column_of = _layers(len(sources), edges)
    columns: list[list[int]] = [[] for _ in range(max(column_of, default=-1) + 1)]
    for box, number in enumerate(column_of):
        columns[number].append(box)
    # Lanes have numbers above those of the boxes; the edges of one source share theirs.
    heights = [height for _, height in sizes]
    links: list[tuple[int, int]] = []
    lanes = [{column_of[box]: box} for box in range(len(sources))]
    for source, target in edges:
        for number in range(column_of[source] + 1, column_of[target]):
            if number not in lanes[source]:
                lanes[source][number] = len(heights)
                columns[number].append(len(heights))
                links.append((lanes[source][number - 1], len(heights)))
                column_of.append(number)
                heights.append(lane)
        links.append((lanes[source][column_of[target] - 1], target))
    before: list[list[int]] = [[] for _ in heights]
    after: list[list[int]] = [[] for _ in heights]
    for left, right in links:
        before[right].append(left)
        after[left].append(right)
    columns = _ordered(columns, before, after)
    near = [[n for n in before[v] + after[v] if n not in light or v in light] for v in range(len(heights))]
    middles = _middles(columns, near, heights, gap[1], len(sources))
    top = min((m - h / 2 for m, h in zip(middles, heights, strict=True)), default=0.0)
    middles = [middle - top for middle in middles]

    starts, ends, x = [], [], 0.0
    for column in columns:
        starts.append(x)
        ends.append(x + max((sizes[box][0] for box in column if box < len(sources)), default=0.0))
        x = ends[-1] + gap[0]
    routes = {}
    for source, target in edges:
        chain = [lanes[source][number] for number in range(column_of[source], column_of[target])]
        points = [(ends[column_of[source]], middles[source])]
        for v in [*chain[1:], target]:
            points.append((starts[column_of[v]], middles[v]))
            if v != target:
                points.append((ends[column_of[v]], middles[v]))
        routes[source, target] = points
    places = [Place(starts[column_of[box]], middles[box] - heights[box] / 2) for box in range(len(sources))]
    column_ends = [ends[column_of[box]] for box in range(len(sources))]
    bottom = max((m + h / 2 for m, h in zip(middles, heights, strict=True)), default=0.0)
    return Layout(places, column_ends, routes, max(ends, default=0.0), bottom)


def in_rows(
    sources: Sequence[Sequence[int]],
    widths: Sequence[float],
    bands: Sequence[int],
    *,
    gap: float,
    width: float,
) -> list[list[int]]:
    """Return the boxes by row: as few rows for each band as `width` allows, about equally long.

    Parameters
    ----------
    sources : sequence of sequences of int
        Numbers of the boxes that a box reads, all lower than its own and of no later band.
    widths : sequence of float
        Of each box.
    bands : sequence of int
        The band of each box: those of a higher one begin a row below.
    gap : float
        Least distance of columns.
    width : float
        Of a row, if no column is wider.
    """
    rows: list[list[int]] = []
    row_of: dict[int, int] = {}
    for band in sorted(set(bands)):
        boxes = [box for box in range(len(sources)) if bands[box] == band]
        local = {box: i for i, box in enumerate(boxes)}
        edges = sorted({(local[s], local[box]) for box in boxes for s in sources[box] if s in local})
        column_of = _layers(len(boxes), edges)
        wide = [0.0] * (max(column_of, default=-1) + 1)
        for box, column in zip(boxes, column_of, strict=True):
            wide[column] = max(wide[column], widths[box])
        # A line that hardly fits is better than two.
        whole = sum(wide) + gap * (len(wide) - 1)
        cuts = _cut(wide, gap, width if whole > _LONGER * width else whole)
        # The shortest limit that needs no more rows.
        low, high = 0.0, width
        for _ in range(12):
            middle = (low + high) / 2
            tried = _cut(wide, gap, middle)
            low, high = (low, middle) if len(tried) <= len(cuts) else (middle, high)
            cuts = tried if len(tried) <= len(cuts) else cuts
        for box, column in zip(boxes, column_of, strict=True):
            row_of[box] = len(rows) + next(i for i, cut in enumerate(cuts) if column in cut)
        # What reads nothing stands where it is read first.
        for box in boxes:
            if not sources[box]:
                readers = [row_of[other] for other in boxes if box in sources[other]]
                row_of[box] = min(readers, default=row_of[box])
        made = [[box for box in boxes if row_of[box] == len(rows) + i] for i in range(len(cuts))]
        kept = [row for row in made if row]
        for i, row in enumerate(kept):
            row_of.update(dict.fromkeys(row, len(rows) + i))
        rows += kept
    return rows


def _cut(widths: list[float], gap: float, longest: float) -> list[range]:
    """Return the columns by row."""
    rows, start, x = [], 0, 0.0
    for number, wide in enumerate(widths):
        if number > start and x + wide > longest:
            rows.append(range(start, number))
            start, x = number, 0.0
        x += wide + gap
    return [*rows, range(start, len(widths))] if widths else []


def _layers(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return the longest path from a start, or more where that makes the edges shorter."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    layer = [0] * count
    for box in range(count):
        layer[box] = max((layer[source] + 1 for source in before[box]), default=0)
    for box in reversed(range(count)):
        if after[box] and len(before[box]) <= len(after[box]):
            layer[box] = min(layer[target] for target in after[box]) - 1
    return layer


def _ordered(columns: list[list[int]], before: list[list[int]], after: list[list[int]]) -> list[list[int]]:
    best, fewest = columns, _crossings(columns, after)
    for sweep in range(_ORDERS):
        if fewest == 0:
            break
        is_forward = sweep % 2 == 0
        columns = [list(column) for column in columns]
        neighbours = before if is_forward else after
        rest = columns[1:] if is_forward else columns[-2::-1]
        place = {v: i for column in columns for i, v in enumerate(column)}
        for column in rest:
            # One without neighbours there stays where it is; equal ones keep their order, or turn it around.
            wanted = {
                v: sum(place[n] for n in neighbours[v]) / len(neighbours[v]) if neighbours[v] else place[v]
                for v in column
            }
            turned = -1 if sweep % 4 > 1 else 1
            column.sort(key=lambda v, wanted=wanted, turned=turned: (wanted[v], turned * place[v]))  # type: ignore[misc]
            place.update((v, i) for i, v in enumerate(column))
        found = _crossings(columns, after)
        if found < fewest:
            best, fewest = columns, found
    return best


def _crossings(columns: list[list[int]], after: list[list[int]]) -> int:
    total = 0
    for column, following in pairwise(columns):
        place = {v: i for i, v in enumerate(following)}
        ends: list[int] = []
        for v in column:
            arrived = sorted(place[n] for n in after[v])
            total += sum(end > new for new in arrived for end in ends)
            ends += arrived
    return total


def _middles(
    columns: list[list[int]],
    near: list[list[int]],
    heights: list[float],
    gap: float,
    count: int,
) -> list[float]:
    middles = [0.0] * len(heights)
    weights = [1.0 if v < count else _LANE_WEIGHT for v in range(len(heights))]
    for column in columns:
        _spread(column, [0.0] * len(column), weights, heights, gap, middles)
    for sweep in range(_HEIGHTS):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            wanted = []
            for v in column:
                around = [middles[n] for n in near[v]]
                wanted.append(sum(around) / len(around) if around else middles[v])
            _spread(column, wanted, weights, heights, gap, middles)
    return middles


def _spread(
    column: list[int],
    wanted: list[float],
    weights: list[float],
    heights: list[float],
    gap: float,
    middles: list[float],
) -> None:
    """Set the middles nearest to those wanted, in squares, with the boxes in order and apart."""
    # Without the distances that must lie between them, the middles may not fall: pool what would.
    offset, offsets = 0.0, []
    pools: list[tuple[float, float, int]] = []
    for i, v in enumerate(column):
        if i:
            offset += (heights[column[i - 1]] + heights[v]) / 2 + gap
        offsets.append(offset)
        mean, weight, size = wanted[i] - offset, weights[v], 1
        while pools and pools[-1][0] > mean:
            other, others_weight, others_size = pools.pop()
            mean = (mean * weight + other * others_weight) / (weight + others_weight)
            weight, size = weight + others_weight, size + others_size
        pools.append((mean, weight, size))
    flat = [mean for mean, _, size in pools for _ in range(size)]
    for v, mean, distance in zip(column, flat, offsets, strict=True):
        middles[v] = mean + distance
