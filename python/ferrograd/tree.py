"""Tensors in tuples, lists and dicts: taken out in order and put back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from ferrograd._core import DTypeError, ShapeError, Tensor

Rebuild: TypeAlias = Callable[[Iterable[Any]], Any]


def flatten(owner: str, what: str, tree: Any, *, keeps_others: bool = False) -> tuple[list[Tensor], Rebuild]:
    """Return the tensors of `tree` in order, and a function that puts others in their places.

    Anything else in it is an error, or stays where it is if `keeps_others`.
    """
    leaves: list[Tensor] = []

    def walk(part: Any) -> Callable[[Iterator[Any]], Any]:
        if isinstance(part, Tensor):
            leaves.append(part)
            return lambda values: next(values)
        if isinstance(part, dict):
            entries = {key: walk(value) for key, value in part.items()}
            return lambda values: {key: build(values) for key, build in entries.items()}
        if isinstance(part, tuple | list):
            parts = [walk(value) for value in part]
            # A named tuple takes its fields one by one.
            make = getattr(part, "_make", type(part))
            return lambda values: make([build(values) for build in parts])
        if keeps_others:
            return lambda _: part
        raise DTypeError(
            f"{owner}: {what} must be a tensor, or a tuple, list or dict of them, got {type(part).__name__}"
        )

    build = walk(tree)
    return leaves, lambda values: build(iter(values))


def match(owner: str, what: str, tree: Any, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors of `tree`, which must be as many as in `like` and of the same shapes."""
    leaves, _ = flatten(owner, what, tree)
    expected, got = [tuple(x.shape) for x in like], [tuple(x.shape) for x in leaves]
    if got != expected:
        raise ShapeError(f"{owner}: {what} must have the shapes {expected}, got {got}")
    return leaves
