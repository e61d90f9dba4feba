"""What there is to draw: computations that run while they are recorded, and explicit graphs."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, Graph, GraphError, Node, Tensor
from ferrograd.autograd import enable_grad
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.calls import Call, recorded_calls
from ferrograd.nn.module import Module

__all__ = ["Step", "number_in", "of_graph", "of_run", "run_recorded", "span_of"]


class Step:
    """One operation or leaf of a run, with all that a rule of derivatives reads.

    Attributes
    ----------
    tensor : Tensor
        The value, connected to the graph.
    sources : tuple of int
        Positions of its operands.
    number : int
        Its place in the order of creation; -1 for leaves.
    """

    def __init__(self, tensor: Tensor, sources: tuple[int, ...], number: int) -> None:
        self.tensor = tensor
        self.sources = sources
        self.number = number
        self.grad: Tensor | None = None


class _Identities:
    """Tells the nodes behind tensors apart: each look at a parent makes a new object.

    A constant is known by its values among those that have names; others are one for each use.
    """

    def __init__(self, named: Iterable[Tensor]) -> None:
        self._leaves: dict[tuple[Any, ...], list[tuple[Tensor, int]]] = {}
        self._named = {_content(tensor) for tensor in named if not tensor.requires_grad}

    def __call__(self, tensor: Tensor) -> tuple[Any, ...]:
        if tensor.op is not None:
            return "op", _core.recorded([tensor])[-1][0]
        if not tensor.requires_grad:
            content = _content(tensor)
            return content if content in self._named else ("constant", object())
        alike = self._leaves.setdefault((tensor.dtype.name, tensor.shape), [])
        for leaf, number in alike:
            if not _core.reaches_beyond([tensor], [leaf]):
                return "leaf", tensor.shape, tensor.dtype.name, number
        alike.append((tensor, len(alike)))
        return "leaf", tensor.shape, tensor.dtype.name, len(alike) - 1


def _content(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype.name, tensor.shape, tensor.detach().numpy().tobytes()


def run_recorded(
    owner: str,
    function: Callable[[], Any],
    use: Callable[[list[Step], list[int], Callable[[Tensor], int | None]], None],
    *,
    named: Iterable[Tensor],
    with_grads: bool,
) -> None:
    """Run `function` with every operation recorded, and let `use` look before the values are freed.

    `use` gets the steps behind what was returned, sources first, the positions of the results, and what finds
    the position of a tensor.
    """

    def record(_: Any) -> list[Tensor]:
        found = function()
        roots = list(found) if isinstance(found, tuple | list) else [found]
        for root in roots:
            if not isinstance(root, Tensor):
                raise ConfigError(f"{owner}: the function must return tensors, got {type(root).__name__}")
        identify = _Identities(named)
        steps, results, position = _steps(roots, identify)
        if with_grads:
            _differentiate(steps, roots)
        use(steps, results, lambda tensor: position.get(identify(tensor)))
        is_used.append(True)
        return []

    is_used: list[bool] = []
    try:
        with enable_grad():
            # Of no examples: it records every operation of this thread with all its operands.
            _core.vmap(record, [], 0)
    except GraphError:
        # Assignments to buffers, such as running means, are refused there; here they are left out.
        if not is_used:
            raise


def _steps(
    roots: list[Tensor], identify: Callable[[Tensor], tuple[Any, ...]]
) -> tuple[list[Step], list[int], dict[tuple[Any, ...], int]]:
    """Return what is behind `roots`, their positions, and the positions of all by identity."""
    known: dict[tuple[Any, ...], tuple[Tensor, list[tuple[Any, ...]]]] = {}
    order: list[tuple[Any, ...]] = []
    keys = [identify(root) for root in roots]
    pending = [(root, key, False) for root, key in zip(roots[::-1], keys[::-1], strict=True)]
    while pending:
        tensor, key, is_done = pending.pop()
        if is_done:
            order.append(key)
        elif key not in known:
            parents = [(parent, identify(parent)) for parent in tensor.parents]
            known[key] = (tensor, [k for _, k in parents])
            pending.append((tensor, key, True))
            pending += [(parent, k, False) for parent, k in reversed(parents) if k not in known]
    position = {key: i for i, key in enumerate(order)}
    steps = []
    for key in order:
        tensor, parents_keys = known[key]
        number = int(key[1]) if key[0] == "op" else -1
        steps.append(Step(tensor, tuple(position[k] for k in parents_keys), number))
    return steps, [position[key] for key in keys], position


def _differentiate(steps: list[Step], roots: list[Tensor]) -> None:
    """Set the gradients of the sum of what was returned."""
    outputs = [root for root in roots if root.requires_grad]
    wanted = [step for step in steps if step.tensor.requires_grad]
    if outputs:
        ones = [_core.ones_like(output) for output in outputs]
        tensors = [step.tensor for step in wanted]
        grads = _core.grad(outputs, tensors, ones, retain_graph=True, allow_unused=True)
        for step, grad in zip(wanted, grads, strict=True):
            step.grad = grad


# What an operation with a number makes of its operand, and how the number follows from both.
_WITH_NUMBER: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "add": (np.add, lambda u, v: v - u),
    "mul": (np.multiply, lambda u, v: v / u),
    "div": (np.divide, lambda u, v: u / v),
    "pow": (np.power, lambda u, v: np.log(np.abs(v)) / np.log(np.abs(u))),
}


def number_in(step: Step, steps: list[Step]) -> str:
    """Return the number that is part of an operation, as 1 is of ``x + 1``; empty if none is found.

    It is the shortest that makes the result of the operand.
    """
    if step.tensor.op not in _WITH_NUMBER or len(step.sources) != 1 or step.tensor.numel() == 0:
        return ""
    apply, solve = _WITH_NUMBER[step.tensor.op]
    u, v = steps[step.sources[0]].tensor.detach().numpy(), step.tensor.detach().numpy()
    # Nothing follows from a factor of 0, nor from a power of 0 or 1.
    with np.errstate(all="ignore"):
        found = solve(u.astype(np.float64), v.astype(np.float64)).reshape(-1)
        found = found[np.isfinite(found) & (found != 0.0)]
        middle = float(np.median(found)) if found.size else 0.0
        for digits in range(1, 8) if middle else ():
            text = f"{middle:.{digits}g}"
            again = apply(u, u.dtype.type(float(text)))
            # Our power is not numpy's.
            tolerance = 1e-6 if step.tensor.op == "pow" else 0.0
            if np.allclose(again, v, rtol=tolerance, atol=0.0, equal_nan=True):
                return f"{float(text):.7g}"
    return ""


def of_run(
    owner: str,
    function: Callable[[], Any],
    model: Module | None,
    names: Mapping[str, Tensor],
    *,
    with_grads: bool,
) -> list[Vertex]:
    """Return the graph of what `function` returns, with the names of the model's calls and parameters."""
    vertices: list[Vertex] = []
    own = {} if model is None else dict(model.named_parameters())

    def use(steps: list[Step], results: list[int], find: Callable[[Tensor], int | None]) -> None:
        label = {find(tensor): name for name, tensor in own.items()}
        kinds = dict.fromkeys(label, "parameter")
        label |= {find(tensor): name for name, tensor in names.items()}
        place = span_of(calls)
        for i, step in enumerate(steps):
            tensor = step.tensor
            kind = kinds.get(i, "input" if tensor.requires_grad or i in label else "constant")
            module, note = place(step.number) if tensor.op else (_owner(label.get(i, ""), own), "")
            text = f"{tensor.op} {number_in(step, steps)}".rstrip() if tensor.op else label.get(i) or kind
            if tensor.op and i in label:
                text = f"{label[i]} = {text}"
            kind = "op" if tensor.op else kind
            shape, value = tensor.shape, tensor.detach()
            vertex = Vertex(text, kind, step.sources, shape, value, step.grad, module, note=note)
            if text == "constant" and tensor.numel() == 1:
                # It is its own name.
                vertex = replace(vertex, label=vertex.value_text(), shape=None, value=None)
            vertices.append(vertex)

    calls: list[Call] = []
    with recorded_calls(model) if model is not None else nullcontext(calls) as calls:
        run_recorded(owner, function, use, named=names.values(), with_grads=with_grads)
    return vertices


def _owner(name: str, own: Mapping[str, Tensor]) -> str:
    return name.rpartition(".")[0] if name in own else ""


def span_of(calls: list[Call]) -> Callable[[int], tuple[str, str]]:
    """Return what finds the innermost call of a module around an operation, and the module's class."""
    counts: dict[str, int] = {}
    spans: list[tuple[int, int, str, str]] = []
    for call in calls:
        if not call.name:
            continue
        counts[call.name] = counts.get(call.name, 0) + 1
        again = f"#{counts[call.name]}" if counts[call.name] > 1 else ""
        spans.append((call.first, call.last, call.name + again, type(call.module).__name__))

    def place(number: int) -> tuple[str, str]:
        # Inner calls end, and are listed, before the outer ones.
        inside = (span[2:] for span in spans if span[0] < number <= span[1])
        return next(inside, ("", ""))

    return place


def of_graph(owner: str, graph: Graph) -> list[Vertex]:
    """Return the nodes of an explicit graph, with what `forward` and `backward` left there."""
    nodes = graph.nodes_topologically_sorted()
    position = {_of_all_outputs(node): i for i, node in enumerate(nodes)}
    vertices = []
    for node in nodes:
        if any(source is None for source in node.sources):
            raise GraphError(f'{owner}: a source of "{node.name}" is not connected')
        sources = tuple(position[_of_all_outputs(source)] for source in node.sources if source is not None)
        value = node.value if isinstance(node.value, Tensor) else None
        grad = node.grad if isinstance(node.grad, Tensor) else None
        is_named = node.op != "input" and not node.name.startswith(node.op)
        text = node.name if node.op == "input" else f"{node.name} = {node.op}" if is_named else node.op
        kind = "input" if node.op == "input" else "op"
        if kind == "op" and not sources:
            text, kind = node.op, "constant"
        vertices.append(Vertex(text, kind, sources, None if value is None else value.shape, value, grad))
    return vertices


def _of_all_outputs(node: Node) -> str:
    return node.name
