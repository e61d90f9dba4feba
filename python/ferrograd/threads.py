"""Threads for the length of a call."""

from collections.abc import Iterator
from contextlib import contextmanager

from ferrograd import _core

__all__ = ["threads"]


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
