"""Which recorded operations belong to which call of a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ferrograd import _core
from ferrograd.nn.hooks import drop_idle_hooks
from ferrograd.nn.module import Module

__all__ = ["Call", "recorded_calls"]


class Call(NamedTuple):
    """A call of a module; its operations have the numbers above `first`, up to `last`."""

    name: str
    module: Module
    first: int
    last: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


@contextmanager
def recorded_calls(model: Module) -> Iterator[list[Call]]:
    """Fill the list with the calls of a model and its modules that are made inside, inner ones first."""
    calls: list[Call] = []
    open_calls: list[int] = []
    named = list(model.named_modules())
    names = {id(module): name for name, module in named}

    def enter(module: Module, args: Any) -> None:
        open_calls.append(_core.last_id())

    def leave(module: Module, args: Any, kwargs: Any, output: Any) -> None:
        first, last = open_calls.pop(), _core.last_id()
        calls.append(Call(names[id(module)], module, first, last, args, kwargs, output))

    handles = [module.register_forward_pre_hook(enter) for _, module in named]
    handles += [module.register_forward_hook(leave, with_kwargs=True) for _, module in named]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for _, module in named:
            drop_idle_hooks(module)
