"""A long row of operations cut into stretches: rounds of what repeats itself, and parts that share little."""

from collections.abc import Hashable, Sequence
from itertools import accumulate

__all__ = ["segments"]

# Boxes that the stretches become, about.
_BOXES = 24
# What repeats itself at least so often, over at least such a share of the operations.
_ROUNDS, _SHARE = 3, 0.2
# Operations of a round, at most.
_PERIOD = 120


def segments(names: Sequence[Hashable], reads: Sequence[Sequence[int]]) -> tuple[list[int], dict[int, int]]:
    """Return where stretches begin, and how many rounds those have that are rounds, by their beginning.

    Stretches of one order do not read each other in a loop.

    Parameters
    ----------
    names : sequence of hashable
        What each operation is.
    reads : sequence of sequences of int
        The operations that each reads, all lower than its own.
    """
    count = len(names)
    # How many values that are computed before an operation are read from there on.
    last = list(range(count))
    for i, found in enumerate(reads):
        for source in found:
            last[source] = i
    change = [0] * (count + 1)
    for i, end in enumerate(last):
        change[i + 1 if end > i else count] += 1
        change[end + 1 if end > i else count] -= 1
    passing = list(accumulate(change))
    steps = [
        (name, tuple(sorted(i - source for source in found)))
        for i, (name, found) in enumerate(zip(names, reads, strict=True))
    ]
    cuts: list[int] = []
    rounds: dict[int, int] = {}
    _split(steps, passing, 0, count, cuts, rounds)
    return cuts, rounds


def _split(
    steps: list[tuple[Hashable, tuple[int, ...]]],
    passing: list[int],
    start: int,
    stop: int,
    cuts: list[int],
    rounds: dict[int, int],
) -> None:
    """Cut the operations from `start` to `stop`."""
    count = len(steps)
    found = _repetition(steps, start, stop)
    if found is not None and found[1] - found[0] >= _SHARE * count:
        first, end, period = found
        # A round begins where few values pass.
        first += min(range(period), key=lambda shift: (passing[first + shift], shift))
        whole = (end - first) // period
        if whole >= _ROUNDS:
            end = first + whole * period
            boxes = max(1, round(_BOXES * (end - first) / count))
            together = -(-whole // boxes)
            _split(steps, passing, start, first, cuts, rounds)
            for i in range(0, whole, together):
                cuts.append(first + i * period)
                rounds[cuts[-1]] = min(together, whole - i)
            _split(steps, passing, end, stop, cuts, rounds)
            return
    longest = -(-count // _BOXES)
    while start < stop:
        cuts.append(start)
        if stop - start <= longest:
            return
        # Rather a short stretch than one that much goes out of.
        start = min(range(start + max(1, longest // 2), start + longest + 1), key=lambda i: (passing[i], -i))


def _repetition(
    steps: list[tuple[Hashable, tuple[int, ...]]], start: int, stop: int
) -> tuple[int, int, int] | None:
    """Return where the longest repetition begins and ends, and the operations of a round."""
    best: tuple[int, int, int] | None = None
    for period in range(1, min(_PERIOD, (stop - start) // _ROUNDS) + 1):
        run = start
        for i in range(start, stop - period + 1):
            if i == stop - period or steps[i] != steps[i + period]:
                # A longer period that says the same says it worse.
                if i - run >= (_ROUNDS - 1) * period and (
                    best is None or i + period - run > best[1] - best[0] + period
                ):
                    best = run, i + period, period
                run = i + 1
    return best
