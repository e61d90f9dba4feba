"""Functions of one example as functions of many: `vmap`."""

from collections.abc import Callable, Sequence
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd.checks import check_callable
from ferrograd.tree import Rebuild, flatten

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any],
    in_dims: int | tuple[int | None, ...] = 0,
    out_dims: int | tuple[int, ...] = 0,
) -> Callable[..., Any]:
    """Return the function that computes `func` for each example of a batch, all at once.

    ``vmap(f)(X)[i] = f(X[i])``. The function runs once, on the first example; each of its operations is then
    computed for the whole batch. So no loop is left, gradients flow through the result, and derivatives may
    be inside: ``vmap(grad(loss))`` gives a gradient for each example.

    The function must not look at values: ``if``, ``item()`` and ``numpy()`` on what depends on the batch are
    refused, and so are gates, a `Function`, the masks of dropout, and layers that assign to buffers, such as
    `BatchNorm1d` in training. Tensors that the function makes itself, by `rand` too, are the same for all.

    Parameters
    ----------
    func : callable
        Takes tensors, or tuples, lists and dicts of them; returns such.
    in_dims : int or tuple of int or None, default 0
        Which dimension of the arguments holds the examples; by argument for a tuple, None for one that all
        examples share. It holds for all tensors of an argument.
    out_dims : int or tuple of int, default 0
        Where the results have that dimension; by tensor for a tuple, in their order.

    Returns
    -------
    callable
        Takes the arguments of `func` with the dimension of the examples; keyword arguments are shared. What
        depends on no example is repeated.

    Raises
    ------
    ConfigError
        If `in_dims` or `out_dims` is neither; when called, if `in_dims` does not name each argument, or none
        that is not shared.
    ShapeError
        When called, if an argument lacks the dimension or they differ in length.
    DTypeError
        When called, if an argument that is not shared, or the result, is not of tensors.
    GraphError
        When called, if the function looks at values, or an operation has no rule.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.func.vmap(lambda x, w: x @ w, in_dims=(0, None))(fg.eye(2), fg.tensor([3.0, 4.0])).tolist()
    [3.0, 4.0]
    >>> slope = fg.func.grad(lambda w, x: (w * x).sum().square())
    >>> fg.func.vmap(slope, in_dims=(None, 0))(fg.ones(2), fg.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist()
    [[6.0, 12.0], [0.0, 2.0]]
    """
    check_callable("vmap", func)
    check_places("in_dims", in_dims, allows_none=True)
    check_places("out_dims", out_dims, allows_none=False)

    def batched(*args: Any, **rest: Any) -> Any:
        places = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        if len(places) != len(args):
            raise ConfigError(f"vmap: in_dims must name each of {len(args)} arguments, got {in_dims!r}")
        moved: list[Tensor] = []
        rebuild: dict[int, tuple[int, Rebuild]] = {}
        for number, (arg, place) in enumerate(zip(args, places, strict=True)):
            if place is not None:
                leaves, build = flatten("vmap", f"argument {number}", arg)
                rebuild[number] = (len(leaves), build)
                moved += [to_front(f"argument {number}", x, place) for x in leaves]
        sizes = {x.shape[0] for x in moved}
        if len(sizes) != 1:
            text = f"lengths {sorted(sizes)}" if sizes else "no argument with a dimension"
            raise (ShapeError if sizes else ConfigError)(f"vmap: expected one number of examples, got {text}")
        size = sizes.pop()
        arranged: list[Rebuild] = []

        def one(examples: Sequence[Tensor]) -> list[Tensor]:
            left, chosen = list(examples), list(args)
            for number, (count, build) in rebuild.items():
                chosen[number] = build(left[:count])
                del left[:count]
            outputs, arrange = flatten("vmap", "the function's output", func(*chosen, **rest))
            arranged.append(arrange)
            return outputs

        results = []
        found = _core.vmap(one, moved, size)
        ends = out_dims if isinstance(out_dims, tuple) else (out_dims,) * len(found)
        if len(ends) != len(found):
            raise ConfigError(f"vmap: out_dims must name each of {len(found)} results, got {out_dims!r}")
        for (value, is_batched), end in zip(found, ends, strict=True):
            whole = value if is_batched else value.broadcast_to((size, *value.shape))
            results.append(from_front(whole, end))
        return arranged[0](results)

    return batched


def check_places(name: str, value: Any, *, allows_none: bool) -> None:
    """Raise `ConfigError` unless `value` is a dimension or a tuple of them."""
    for place in value if isinstance(value, tuple) else (value,):
        is_shared = place is None and allows_none and isinstance(value, tuple)
        if not is_shared and (isinstance(place, bool) or not isinstance(place, int)):
            expected = "an integer, or a tuple of integers" + (" and None" if allows_none else "")
            raise ConfigError(f"vmap: {name} must be {expected}, got {value!r}")


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
