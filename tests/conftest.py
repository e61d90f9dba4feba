"""Fixtures of all tests: every test starts from the same seed, and leaves recording switched on."""

import signal
from collections.abc import Iterator

import pytest

import ferrograd as fg

# A run that was started in the background ignores Ctrl-C, which tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    fg.manual_seed(0)
    yield
    assert fg.is_grad_enabled(), "the test left recording switched off"
