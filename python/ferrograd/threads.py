"""Threads for the length of a call."""

from collections.abc import Iterator
from contextlib import contextmanager

from ferrograd import _core

__all__ = ["MAX_THREADS", "threads"]

# More than any machine of this kind has; each costs a stack.
MAX_THREADS = 1024


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use so many threads inside, or as few as an outer call allows; None leaves the number as it is.

    The number is the calling thread's own: what others run meanwhile keeps theirs.
    """
    if count is None:
        yield
        return
    before = _core.set_own_threads(count)
    if 0 < before < count:
        _core.set_own_threads(before)
    try:
        yield
    finally:
        _core.set_own_threads(before)
