"""Turns of fits that run side by side: in Python one of them runs at a time, natively all of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ferrograd import _core
from ferrograd._core import GraphError

__all__ = ["Turn", "native"]

_own = threading.local()


class Turn:
    """The right to run Python among fits side by side, with the sign that ends one of them.

    What checks data and scores changes settings of the whole process for a moment, as those of `warnings`, so
    a fit has the turn except where it is in `native`.
    """

    def __init__(self, lock: threading.Lock, halt: _core.Halt) -> None:
        self._lock, self._halt = lock, halt

    def __enter__(self) -> None:
        """Take the turn, for what the calling thread does from now on."""
        self._halt.heed()
        self.take()
        _own.turn = self

    def __exit__(self, *error: object) -> None:
        """Let go of it."""
        _own.turn = None
        self.leave()

    def take(self) -> None:
        """Wait for the turn."""
        self._lock.acquire()

    def leave(self) -> None:
        """Give the turn to another fit."""
        self._lock.release()

    def look(self) -> None:
        """Raise where the fit is to end."""
        if self._halt.is_given:
            raise GraphError("halted by another thread")


@contextmanager
def native() -> Iterator[None]:
    """Let the fits side by side with this one have their turns, while it runs what changes no settings."""
    turn = getattr(_own, "turn", None)
    if turn is None:
        yield
        return
    turn.look()
    turn.leave()
    try:
        yield
    finally:
        turn.take()
    turn.look()
