"""What a model consists of, layer by layer, and what one pass costs."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd._typing import DTypeLike
from ferrograd.autograd import enable_grad
from ferrograd.checks import check_int
from ferrograd.columns import aligned
from ferrograd.nn.calls import Call, recorded_calls
from ferrograd.nn.module import Module, in_mode
from ferrograd.plain import plain
from ferrograd.random import fork_rng

__all__ = ["Layer", "Summary", "summary"]


@dataclass(frozen=True)
class Layer:
    """A row of a `Summary`.

    Attributes
    ----------
    name : str
        Dotted, as in `Module.named_modules`.
    kind : str
        The class.
    output_shape : tuple of int, or None
        Of its last call; None if it was not called or returns no tensor.
    parameters : int
        Elements of its own parameters; those shared with an earlier layer count there.
    multiply_adds : int
        Of its matrix products, over all its calls.
    kept_bytes : int
        What its operations keep for backward and no earlier one does, without parameters and the input.
    operations : int
        Floating-point operations of all its calls, as `ferrograd.func.cost` counts them: a multiply-add of a
        matrix product is 2, an elementwise operation 1 an element.

    Examples
    --------
    >>> import ferrograd as fg
    >>> (layer,) = fg.nn.utils.summary(fg.nn.Linear(4, 3), (2, 4)).layers
    >>> layer.kind, layer.output_shape, layer.parameters, layer.multiply_adds, layer.operations
    ('Linear', (2, 3), 15, 24, 54)
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int
    kept_bytes: int
    operations: int


@dataclass(frozen=True)
class Summary:
    """What `summary` returns; printed, it is a table.

    Attributes
    ----------
    layers : tuple of Layer
        The modules that have no modules inside, and those with parameters of their own.
    parameters, trained_parameters : int
        Elements of all parameters, and of those that require a gradient.
    multiply_adds, kept_bytes, operations : int
        Of the whole pass, operations outside the layers included.
    parameter_bytes : int
        Memory of the parameters; a gradient of each takes as much again, and an optimizer what it remembers.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Sequential(fg.nn.Linear(4, 3), fg.nn.ReLU())
    >>> found = fg.nn.utils.summary(model, (2, 4))
    >>> len(found.layers), found.parameters, found.to_dict()["multiply_adds"]
    (2, 15, 24)
    """

    layers: tuple[Layer, ...]
    parameters: int
    trained_parameters: int
    multiply_adds: int
    kept_bytes: int
    operations: int
    parameter_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists and numbers."""
        found: dict[str, Any] = plain(self)
        return found

    def __str__(self) -> str:
        head = ("layer", "output shape", "parameters", "multiply-adds", "FLOPs", "kept bytes")
        rows: list[tuple[str, ...]] = [head]
        for layer in self.layers:
            name = f"{layer.name} ({layer.kind})" if layer.name else layer.kind
            shape = "-" if layer.output_shape is None else str(layer.output_shape)
            costs = (layer.parameters, layer.multiply_adds, layer.operations, layer.kept_bytes)
            rows.append((name, shape, *(f"{cost:,}" for cost in costs)))
        totals = (self.parameters, self.multiply_adds, self.operations, self.kept_bytes)
        rows.append(("total", "", *(f"{cost:,}" for cost in totals)))
        lines = aligned(rows, left=2)
        rule = "-" * len(lines[0])
        memory = f"memory of the parameters: {self.parameter_bytes:,} bytes"
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], memory])


@fork_rng()
def summary(model: Module, input_shape: Sequence[int], dtype: DTypeLike | None = None) -> Summary:
    """Run a model on zeros and tell each layer's output shape, parameters, operations and kept bytes.

    It runs in evaluation mode, so that it changes no buffer and layers draw nothing: dropout masks and a
    batch's own statistics are not in the figures. A multiply-add is one term of a matrix product, so that
    ``Linear`` on a batch has ``batch * in_features * out_features``; other operations count none. FLOPs count
    all arithmetic, 2 for a multiply-add.

    Parameters
    ----------
    model : Module
        Called with one tensor.
    input_shape : sequence of int
        Of that tensor, the batch included.
    dtype : optional
        Of that tensor; by default that of the first floating parameter, else float32.

    Returns
    -------
    Summary
        ``str()`` of it is a table, `Summary.to_dict` gives dicts.

    Raises
    ------
    ConfigError
        If `model` is no Module, or `input_shape` no sequence of integers of at least 0.
    ShapeError, DTypeError
        If the model does not take such an input.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Sequential(fg.nn.Linear(4, 8), fg.nn.ReLU(), fg.nn.Linear(8, 3))
    >>> print(fg.nn.utils.summary(model, (10, 4)))
    layer       output shape  parameters  multiply-adds  FLOPs  kept bytes
    ----------------------------------------------------------------------
    0 (Linear)  (10, 8)               40            320    720           0
    1 (ReLU)    (10, 8)                0              0     80         320
    2 (Linear)  (10, 3)               27            240    510           0
    ----------------------------------------------------------------------
    total                             67            560  1,310         320
    memory of the parameters: 268 bytes
    """
    if not isinstance(model, Module):
        raise ConfigError(f"summary: model must be a Module, got {type(model).__name__}")
    if isinstance(input_shape, str) or not isinstance(input_shape, Sequence):
        raise ConfigError(f"summary: input_shape must be a sequence of integers, got {input_shape!r}")
    for size in input_shape:
        check_int("input_shape", size, low=0)
    parameters = list(model.parameters())
    if dtype is None:
        floating = (parameter.dtype for parameter in parameters if parameter.dtype.is_floating_point)
        dtype = next(floating, _core.float32)

    def run() -> tuple[Any, int]:
        output = model(_core.zeros(input_shape, dtype=dtype))
        return output, _core.counted_so_far()[1]

    with recorded_calls(model) as found_calls, in_mode(model, training=False), enable_grad():
        (output, multiply_adds), operations, _ = _core.counted(run)
        found = output if isinstance(output, tuple | list) else (output,)
        ops = _core.recorded([tensor for tensor in found if isinstance(tensor, Tensor)])
    numbers = [number for number, _, _ in ops]
    # Of the operations before each.
    kept = [0, *accumulate(op[2] for op in ops)]
    calls: dict[int, list[Call]] = {}
    for call in found_calls:
        if call.outermost:
            calls.setdefault(id(call.module), []).append(call)

    layers: list[Layer] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in seen]
        seen.update(map(id, own))
        if own or not any(True for _ in module.children()):
            own_calls = calls.get(id(module), [])
            spans = [[bisect_right(numbers, end) for end in (call.first, call.last)] for call in own_calls]
            shapes = [call.output.shape for call in own_calls if isinstance(call.output, Tensor)]
            layers.append(
                Layer(
                    name,
                    type(module).__name__,
                    shapes[-1] if shapes else None,
                    sum(parameter.numel() for parameter in own),
                    sum(call.multiply_adds for call in own_calls),
                    sum(kept[last] - kept[first] for first, last in spans),
                    sum(call.operations for call in own_calls),
                )
            )
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    return Summary(
        tuple(layers),
        total,
        trained,
        multiply_adds,
        kept[-1],
        operations,
        sum(parameter.numel() * parameter.dtype.itemsize for parameter in parameters),
    )
