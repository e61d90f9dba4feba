"""Functions of one example as functions of many: `vmap`."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd.checks import check_callable, check_int
from ferrograd.tree import Rebuild, flatten

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Return the function that computes `func` for each example of a batch, all at once.

    ``vmap(f)(X)[i] = f(X[i])``. The function runs once, on the first example; each of its operations is then
    computed for the whole batch. So no loop is left, gradients flow through the result, and derivatives may
    be inside: ``vmap(grad(loss))`` gives a gradient for each example. Names and arguments are those of
    ``torch.func.vmap``.

    The function must not look at values: ``if``, ``item()`` and ``numpy()`` on what depends on the batch are
    refused, and so are gates, a `Function`, and layers that assign to buffers, such as `BatchNorm1d` in
    training. Tensors that the function makes itself are the same for all, but for random ones.

    Parameters
    ----------
    func : callable
        Takes tensors, or tuples, lists and dicts of them; returns such.
    in_dims : int, or tuple of int, None, or tuples, lists and dicts of them, default 0
        Which dimension of the arguments holds the examples; by argument for a tuple, None for what all
        examples share. A number holds for all tensors of an argument; a tuple, list or dict in its place goes
        into an argument that is built like it.
    out_dims : int, None, or tuple, list or dict of them, default 0
        Where the results have that dimension; by result where it is built like them. A flat tuple may name
        every tensor in order, too. None is for a result that depends on no example, and is not repeated then.
    randomness : {"error", "different", "same"}, default "error"
        What becomes of random numbers that the function draws, as dropout does: an error, numbers of its own
        for each example, or the same for all. "different" knows `rand`, `randn` and the layers of `nn`.
    chunk_size : int, optional
        How many examples are computed at once, to save memory; None for all. The numbers are the same.

    Returns
    -------
    callable
        Takes the arguments of `func` with the dimension of the examples; keyword arguments are shared. What
        depends on no example is repeated.

    Raises
    ------
    ConfigError
        If an option is none of these; when called, if `in_dims` does not fit the arguments or names no
        dimension, or `out_dims` does not fit the results.
    ShapeError
        When called, if an argument lacks the dimension or they differ in length.
    DTypeError
        When called, if an argument that is not shared, or the result, is not of tensors.
    GraphError
        When called, if the function looks at values or draws random numbers, or an operation has no rule.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.func.vmap(lambda x, w: x @ w, in_dims=(0, None))(fg.eye(2), fg.tensor([3.0, 4.0])).tolist()
    [3.0, 4.0]
    >>> slope = fg.func.grad(lambda w, x: (w * x).sum().square())
    >>> fg.func.vmap(slope, in_dims=(None, 0))(fg.ones(2), fg.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist()
    [[6.0, 12.0], [0.0, 2.0]]
    >>> noisy = fg.func.vmap(lambda x: x + fg.rand(1), randomness="different")(fg.zeros(2, 1))
    >>> noisy[0].item() != noisy[1].item()
    True
    """
    check_callable("vmap", func)
    check_places("in_dims", in_dims)
    check_places("out_dims", out_dims)
    if in_dims is None or isinstance(in_dims, list | dict):
        raise ConfigError(f"vmap: in_dims must be an integer or a tuple, got {in_dims!r}")
    if randomness not in ("error", "different", "same"):
        raise ConfigError(f"vmap: randomness must be 'error', 'different' or 'same', got {randomness!r}")
    if chunk_size is not None:
        check_int("vmap: chunk_size", chunk_size, low=1)

    def batched(*args: Any, **rest: Any) -> Any:
        places = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        if len(places) != len(args):
            raise ConfigError(f"vmap: in_dims must name each of {len(args)} arguments, got {in_dims!r}")
        moved: list[Tensor] = []
        builds = [
            _taken(f"argument {n}", *pair, moved) for n, pair in enumerate(zip(args, places, strict=True))
        ]
        sizes = {x.shape[0] for x in moved}
        if len(sizes) != 1:
            text = f"lengths {sorted(sizes)}" if sizes else "no argument with a dimension"
            raise (ShapeError if sizes else ConfigError)(f"vmap: expected one number of examples, got {text}")
        size = sizes.pop()
        arranged: list[tuple[Any, Rebuild]] = []

        def one(examples: Sequence[Tensor]) -> list[Tensor]:
            left = iter(examples)
            result = func(*[build(left) for build in builds], **rest)
            outputs, arrange = flatten("vmap", "the function's output", result)
            arranged.append((result, arrange))
            return outputs

        found = _core.vmap(one, moved, size, min(chunk_size or size, size) or 1, randomness)
        result, arrange = arranged[0]
        ends = _ends(out_dims, result, len(found))
        return arrange(_placed(*pair, end, size) for pair, end in zip(found, ends, strict=True))

    return batched


def _taken(what: str, part: Any, place: Any, moved: list[Tensor]) -> Callable[[Iterator[Tensor]], Any]:
    """Add the tensors of `part` that hold examples to `moved`; return what puts one example of each back."""
    if place is None:
        return lambda _: part
    if isinstance(place, int):
        leaves, build = flatten("vmap", what, part)
        moved += [to_front(what, x, place) for x in leaves]
        return lambda left: build(islice(left, len(leaves)))
    if isinstance(place, dict):
        if not isinstance(part, dict) or set(part) != set(place):
            raise _misfit("in_dims", place, what, part)
        entries = {key: _taken(f"{what}[{key!r}]", part[key], place[key], moved) for key in part}
        return lambda left: {key: build(left) for key, build in entries.items()}
    if not isinstance(part, tuple | list) or len(part) != len(place):
        raise _misfit("in_dims", place, what, part)
    builds = [_taken(f"{what}[{n}]", *pair, moved) for n, pair in enumerate(zip(part, place, strict=True))]
    make = getattr(part, "_make", type(part))
    return lambda left: make([build(left) for build in builds])


def _ends(out_dims: Any, result: Any, count: int) -> list[int | None]:
    """Return the place of the examples for each tensor of the result."""

    def walk(place: Any, part: Any, what: str) -> list[int | None]:
        if place is None or isinstance(place, int):
            return [place] * len(flatten("vmap", what, part)[0])
        if isinstance(place, dict):
            if not isinstance(part, dict) or set(part) != set(place):
                raise _misfit("out_dims", place, what, part)
            pairs = [(place[key], part[key], f"{what}[{key!r}]") for key in part]
        else:
            if not isinstance(part, tuple | list) or len(part) != len(place):
                raise _misfit("out_dims", place, what, part)
            pairs = [(one, own, f"{what}[{n}]") for n, (one, own) in enumerate(zip(place, part, strict=True))]
        return [end for pair in pairs for end in walk(*pair)]

    is_flat = isinstance(out_dims, tuple) and all(end is None or isinstance(end, int) for end in out_dims)
    if is_flat and len(out_dims) == count:
        return list(out_dims)
    return walk(out_dims, result, "the result")


def _misfit(name: str, places: Any, what: str, part: Any) -> ConfigError:
    return ConfigError(f"vmap: {name} {places!r} is not built like {what}, which is {_outline(part)}")


def _outline(part: Any) -> str:
    """Return the kind of a value, and how many parts it has."""
    if isinstance(part, dict):
        return f"a dict with the keys {list(part)}"
    if isinstance(part, tuple | list):
        return f"a {type(part).__name__} of {len(part)}"
    return f"a {type(part).__name__}"


def _placed(value: Tensor, is_batched: bool, end: int | None, size: int) -> Tensor:
    if end is None:
        if is_batched:
            raise ConfigError("vmap: out_dims is None for a result that depends on the examples")
        return value
    return from_front(value if is_batched else value.broadcast_to((size, *value.shape)), end)


def check_places(name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is a dimension or None, or a tuple, list or dict of them."""
    if isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            check_places(name, part)
    elif value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"vmap: {name} must be an integer, or a tuple of integers and None, got {value!r}")


def to_front(what: str, x: Tensor, place: int) -> Tensor:
    """Return the tensor with a dimension moved to the front."""
    if not -x.ndim <= place < x.ndim:
        raise ShapeError(f"vmap: {what} of shape {x.shape} has no dimension {place}")
    place %= x.ndim
    return x.permute(place, *(d for d in range(x.ndim) if d != place)) if place else x


def from_front(x: Tensor, place: int) -> Tensor:
    """Return the tensor with the first dimension moved to another place."""
    if not -x.ndim <= place < x.ndim:
        raise ShapeError(f"vmap: a result of shape {x.shape} cannot have its examples in dimension {place}")
    place %= x.ndim
    order = list(range(1, x.ndim))
    order.insert(place, 0)
    return x.permute(*order) if place else x
