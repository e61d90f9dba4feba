"""Threads for the length of a call."""

from collections.abc import Iterator
from contextlib import contextmanager

from ferrograd import _core

__all__ = ["MAX_THREADS", "threads"]

# More than any machine of this kind has; each costs a stack.
MAX_THREADS = 1024


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use so many threads inside; None leaves the number as it is."""
    if count is None:
        yield
        return
    before = _core.get_num_threads()
    _core.set_num_threads(count)
    try:
        yield
    finally:
        _core.set_num_threads(before)
