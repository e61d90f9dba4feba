"""Which recorded operations belong to which call of a module."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ferrograd import _core
from ferrograd.nn.hooks import drop_idle_hooks
from ferrograd.nn.module import Module

__all__ = ["Call", "recorded_calls"]


class Call(NamedTuple):
    """A call of a module; its recorded operations have the numbers above `first`, up to `last`.

    What it has of `operations` and `multiply_adds` is known inside `_core.counted`, and 0 outside. It is not
    `outermost` inside another call of its module.
    """

    name: str
    module: Module
    first: int
    last: int
    output: Any
    operations: int
    multiply_adds: int
    outermost: bool


@contextmanager
def recorded_calls(model: Module) -> Iterator[list[Call]]:
    """Fill the list with the calls of a model and its modules that are made inside, inner ones first."""
    calls: list[Call] = []
    open_calls: list[tuple[int, int, int]] = []
    depths: Counter[int] = Counter()
    named = list(model.named_modules())
    names = {id(module): name for name, module in named}

    def enter(module: Module, args: Any) -> None:
        open_calls.append((_core.last_id(), *_core.counted_so_far()))
        depths[id(module)] += 1

    def leave(module: Module, args: Any, output: Any) -> None:
        depths[id(module)] -= 1
        first, operations, multiply_adds = open_calls.pop()
        now = _core.counted_so_far()
        made = now[0] - operations, now[1] - multiply_adds
        outermost = not depths[id(module)]
        calls.append(Call(names[id(module)], module, first, _core.last_id(), output, *made, outermost))

    handles = [module.register_forward_pre_hook(enter) for _, module in named]
    handles += [module.register_forward_hook(leave) for _, module in named]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for _, module in named:
            drop_idle_hooks(module)
