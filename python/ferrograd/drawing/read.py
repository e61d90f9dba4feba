"""What there is to draw: computations that run while they are recorded, and explicit graphs."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, Graph, GraphError, Node, Tensor
from ferrograd.autograd import enable_grad
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.calls import Call, recorded_calls
from ferrograd.nn.module import Module

__all__ = ["VIEWS", "Find", "Step", "of_graph", "of_run", "of_tensor", "run_recorded", "span_of"]

# They are ways to read an array, and no instructions.
VIEWS = frozenset({"permute", "reshape", "expand", "slice", "detach"})


class Step:
    """One operation or leaf of a run, with all that a rule of derivatives reads.

    Attributes
    ----------
    tensor : Tensor
        The value, connected to the graph.
    sources : tuple of int
        Positions of its operands.
    id : int
        Its place in the order of creation.
    number : float or None
        The number that is part of the operation, as 1 is of ``x + 1``.
    """

    def __init__(self, tensor: Tensor, sources: Sequence[int], id: int, number: float | None) -> None:
        self.tensor = tensor
        self.sources = tuple(sources)
        self.id = id
        self.number = number
        self.grad: Tensor | None = None

    @property
    def number_text(self) -> str:
        """The number, empty if there is none."""
        return "" if self.number is None else f"{self.number:.7g}"


# What finds the position of a tensor among the steps.
Find = Callable[[Tensor], int | None]


def run_recorded(
    owner: str,
    function: Callable[[], Any],
    use: Callable[[list[Step], list[int], Find], None],
    *,
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
                raise ConfigError(
                    f"{owner}: the function or model must return tensors, got {type(root).__name__}"
                )
        use(*steps_behind(roots, anew=False, with_grads=with_grads))
        is_used.append(True)
        return []

    is_used: list[bool] = []
    try:
        with enable_grad():
            # Of no examples: it records every operation of this thread with all its operands.
            _core.vmap(record, [], 0, 1, "same")
    except GraphError:
        # Assignments to buffers, such as running means, are refused there; here they are left out.
        if not is_used:
            raise


def steps_behind(roots: list[Tensor], *, anew: bool, with_grads: bool) -> tuple[list[Step], list[int], Find]:
    """Return the steps behind `roots`, sources first, the positions of `roots`, and what finds a tensor's.

    With `anew` the values are computed once more, otherwise they are those that the graph keeps.
    """
    steps = [Step(*found) for found in _core.steps(roots, anew)]
    position = {step.id: i for i, step in enumerate(steps)}
    results = [position[_core.node_id(root)] for root in roots]
    if with_grads:
        _differentiate(steps, [steps[result].tensor for result in results])
    return steps, results, lambda tensor: position.get(_core.node_id(tensor))


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

    def use(steps: list[Step], results: list[int], find: Find) -> None:
        vertices.extend(_vertices(steps, find, own, names, span_of(calls)))

    calls: list[Call] = []
    with recorded_calls(model) if model is not None else nullcontext(calls) as calls:
        run_recorded(owner, function, use, with_grads=with_grads)
    return vertices


def of_tensor(root: Tensor, names: Mapping[str, Tensor], *, with_grads: bool) -> list[Vertex]:
    """Return the graph behind a tensor, whose values are computed anew."""
    with enable_grad():
        steps, _, find = steps_behind([root], anew=True, with_grads=with_grads)
    return _vertices(steps, find, {}, names, lambda number: ("", ""))


def _vertices(
    steps: list[Step],
    find: Find,
    own: Mapping[str, Tensor],
    names: Mapping[str, Tensor],
    place: Callable[[int], tuple[str, str]],
) -> list[Vertex]:
    label = {find(tensor): name for name, tensor in own.items()}
    kinds = dict.fromkeys(label, "parameter")
    label |= {find(tensor): name for name, tensor in names.items()}
    vertices = []
    for i, step in enumerate(steps):
        tensor = step.tensor
        kind = kinds.get(i, "input" if tensor.requires_grad or i in label else "constant")
        # Whether it is a parameter or data nobody has said.
        unnamed = "leaf" if kind == "input" else kind
        module, note = place(step.id) if tensor.op else (_owner(label.get(i, ""), own), "")
        text = f"{tensor.op} {step.number_text}".rstrip() if tensor.op else label.get(i) or unnamed
        if tensor.op and i in label:
            text = f"{label[i]} = {text}"
        kind = "op" if tensor.op else kind
        shape, value = tensor.shape, tensor.detach()
        if not tensor.op or tensor.op in VIEWS:
            # Its memory may be that of a parameter, which training goes on to change.
            value = value.clone()
        vertex = Vertex(text, kind, step.sources, shape, value, step.grad, module, note=note)
        if text == "constant" and tensor.numel() == 1:
            # It is its own name.
            vertex = replace(vertex, label=vertex.value_text(), shape=None, value=None)
        vertices.append(vertex)
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
    # Inner calls end, and are listed, before the outer ones: of a call the one around it is the next that
    # began before it.
    ends = [span[1] for span in spans]
    around: list[int | None] = [None] * len(spans)
    later: list[int] = []
    for i in reversed(range(len(spans))):
        while later and spans[later[-1]][0] > spans[i][0]:
            later.pop()
        around[i] = later[-1] if later else None
        later.append(i)

    def place(number: int) -> tuple[str, str]:
        first = bisect_left(ends, number)
        i = first if first < len(spans) else None
        while i is not None and spans[i][0] >= number:
            i = around[i]
        return ("", "") if i is None else spans[i][2:]

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
        if not sources:
            # A later assignment to the tensor changes no picture.
            value = None if value is None else value.detach().clone()
        if kind == "op" and not sources:
            text, kind = node.op, "constant"
        vertices.append(Vertex(text, kind, sources, None if value is None else value.shape, value, grad))
    return vertices


def _of_all_outputs(node: Node) -> str:
    return node.name
