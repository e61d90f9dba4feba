"""The generator that all without one of their own draw from: its state, and work that leaves it alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from ferrograd._core import get_rng_state, manual_seed, set_rng_state
from ferrograd.checks import check_bool

__all__ = ["fork_rng", "get_rng_state", "manual_seed", "set_rng_state"]


@contextmanager
def fork_rng(*, enabled: bool = True) -> Iterator[None]:
    """Leave `manual_seed`'s generator as it was before: a ``with`` block, or a decorator ``@fork_rng()``.

    What draws inside goes on from the present state, which is put back at the end, also after an error. All
    that looks at models (`draw`, `trace`, `check_gradients`, `Trainer.health`, ``plan.cost``,
    `nn.utils.summary`, `func.cost`, `viz`) runs in it. Generators of their own, and draws of other threads
    meanwhile, are not its matter: what those drew is drawn again.

    Parameters
    ----------
    enabled : bool, default True
        With False nothing is put back.

    Raises
    ------
    ConfigError
        If `enabled` is no bool.

    Examples
    --------
    >>> import ferrograd as fg
    >>> with fg.random.fork_rng():
    ...     inside = fg.rand(3)
    >>> inside.tolist() == fg.rand(3).tolist()
    True
    """
    check_bool("enabled", enabled)
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)
