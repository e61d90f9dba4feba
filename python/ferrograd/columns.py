"""Rows of text as a table."""

from collections.abc import Sequence

__all__ = ["aligned"]


def aligned(rows: Sequence[tuple[str, ...]], left: int) -> list[str]:
    """Return a line for each row: the first `left` columns begin at one place, the others end at one."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = list(zip(row, widths, strict=True))
        first = [cell.ljust(width) for cell, width in cells[:left]]
        lines.append("  ".join([*first, *(cell.rjust(width) for cell, width in cells[left:])]))
    return lines
