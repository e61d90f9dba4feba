"""numpy's legacy generators, continued natively."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ferrograd import _core

__all__ = ["continued", "is_native"]


def is_native(random_state: np.random.RandomState) -> bool:
    """Whether the native side can draw what this RandomState draws: it is on MT19937, as by default."""
    return isinstance(random_state._bit_generator, np.random.MT19937)


@contextmanager
def continued(random_state: np.random.RandomState) -> Iterator[_core.MT19937]:
    """Give the generator of a RandomState to the native side; it goes on from where that has got to.

    Parameters
    ----------
    random_state : RandomState
        On MT19937.

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
    state: Any = random_state.get_state(legacy=False)
    generator = _core.MT19937(state["state"]["key"].tobytes(), state["state"]["pos"])
    try:
        yield generator
    finally:
        words, position = generator.state()
        state["state"] = {"key": np.frombuffer(words, np.uint32), "pos": position}
        random_state.set_state(state)
