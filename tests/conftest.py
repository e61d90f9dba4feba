"""Fixtures of all tests: every test starts from the same seed, and leaves recording switched on."""

from collections.abc import Iterator

import pytest

import ferrograd as fg


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    fg.manual_seed(0)
    yield
    assert fg.is_grad_enabled(), "the test left recording switched off"
