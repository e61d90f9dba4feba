"""numpy's legacy generators, continued natively."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._typing import Array

__all__ = ["continued", "is_native", "uniform_of"]


_WORDS = 624
# The state of an MT19937 where numpy keeps it: its words, then the position. `get_state` and `set_state` go
# through it word by word in Python, which takes longer than an epoch over few rows.
_State = ctypes.c_uint32 * (_WORDS + 1)


def _state_of(random_state: np.random.RandomState) -> Any:
    return _State.from_address(random_state._bit_generator.ctypes.state_address)


@cache
def _is_known() -> bool:
    """Whether this numpy keeps the state as it is read here."""
    random_state = np.random.RandomState(0)
    random_state.random_sample()
    state: Any = random_state.get_state(legacy=False)
    return [*state["state"]["key"], state["state"]["pos"]] == [*_state_of(random_state)]


def is_native(random_state: np.random.RandomState) -> bool:
    """Whether the native side can draw what this RandomState draws: it is on MT19937, as by default."""
    return isinstance(random_state._bit_generator, np.random.MT19937) and _is_known()


@contextmanager
def continued(random_state: np.random.RandomState) -> Iterator[_core.MT19937]:
    """Give the generator of a RandomState to the native side; it goes on from where that has got to.

    Parameters
    ----------
    random_state : RandomState
        One that `is_native`.

    Yields
    ------
    MT19937
        Its state goes back to `random_state` in any case, also after an error.

    Examples
    --------
    >>> import numpy as np
    >>> from ferrograd.sklearn.randomness import continued
    >>> ours, numpys = np.random.RandomState(3), np.random.RandomState(3)
    >>> with continued(ours) as generator:
    ...     order = generator.permutation(5)
    >>> bool((order == numpys.permutation(5)).all()) and ours.randint(99) == numpys.randint(99)
    True
    """
    state, lock = _state_of(random_state), random_state._bit_generator.lock
    with lock:
        words, position = bytes(state)[: 4 * _WORDS], state[_WORDS]
    generator = _core.MT19937(words, position)
    try:
        yield generator
    finally:
        words, position = generator.state()
        with lock:
            ctypes.memmove(state, words, len(words))
            state[_WORDS] = position


@contextmanager
def uniform_of(random_state: np.random.RandomState) -> Iterator[Callable[..., Array]]:
    """Give what draws as ``random_state.uniform(low, high, shape)``: natively where that is possible.

    Parameters
    ----------
    random_state : RandomState
        It goes on from where the draws have left it, also after an error.

    Yields
    ------
    callable
        Returns an array of float64.

    Examples
    --------
    >>> import numpy as np
    >>> from ferrograd.sklearn.randomness import uniform_of
    >>> ours, numpys = np.random.RandomState(3), np.random.RandomState(3)
    >>> with uniform_of(ours) as uniform:
    ...     values = uniform(-0.5, 0.5, (2, 3))
    >>> bool((values == numpys.uniform(-0.5, 0.5, (2, 3))).all()) and ours.randint(99) == numpys.randint(99)
    True
    """
    if not is_native(random_state):
        yield random_state.uniform
        return
    with continued(random_state) as generator:
        yield generator.uniform
