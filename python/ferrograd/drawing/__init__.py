"""Pictures of graphs: `draw`, and what it returns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, Graph, Tensor
from ferrograd._typing import PathLike
from ferrograd.checks import check_bool, check_path
from ferrograd.drawing.collapse import collapsed, kinds_of
from ferrograd.drawing.plan import of_plan
from ferrograd.drawing.read import of_graph, of_run, of_tensor
from ferrograd.drawing.svg import to_svg
from ferrograd.drawing.text import to_dot, to_mermaid
from ferrograd.drawing.vertices import Vertex
from ferrograd.nn.layers import Linear
from ferrograd.nn.module import Module, in_mode
from ferrograd.plan import Plan
from ferrograd.random import fork_rng
from ferrograd.samples import called
from ferrograd.trainer import Trainer

__all__ = ["Drawing", "draw"]


class Drawing:
    """What `draw` returns: a picture in a notebook, and a file in one of three languages.

    Attributes
    ----------
    vertices : list of Vertex
        The boxes, sources first, with label, kind, sources, shape, value and gradient.
    title : str
        What a screen reader says.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor(3.0, requires_grad=True)
    >>> picture = fg.draw(lambda: x * x, names={"x": x})
    >>> [(vertex.label, vertex.value_text(), vertex.grad_text()) for vertex in picture.vertices]
    [('x', '3', '6'), ('mul', '9', '1')]
    >>> print(picture.mermaid())
    flowchart LR
      n0(["x"])
      n1["mul"]
      n0 -->|"3 #124; grad 6"| n1
      n0 -->|"3 #124; grad 6"| n1
      n1 -->|"9 #124; grad 1"| out1(( ))
    """

    def __init__(self, vertices: list[Vertex], *, values: bool, grads: bool, title: str) -> None:
        self.vertices = vertices
        self.title = title
        self._values = values
        self._grads = grads

    def svg(self) -> str:
        """Return the picture as an SVG document: left to right, readable in light and dark."""
        return to_svg(self.vertices, values=self._values, grads=self._grads, title=self.title)

    def dot(self) -> str:
        """Return the graph in the language of Graphviz."""
        return to_dot(self.vertices, values=self._values, grads=self._grads, title=self.title)

    def mermaid(self) -> str:
        """Return the graph as a flowchart of Mermaid, which Markdown pages show."""
        return to_mermaid(self.vertices, values=self._values, grads=self._grads)

    def save(self, path: PathLike) -> None:
        """Write a file in the language that its name ends with: ``.svg``, ``.dot`` or ``.mmd``.

        Parameters
        ----------
        path : path
            The file; one that is there is replaced.

        Raises
        ------
        ConfigError
            If the name ends with something else.
        DTypeError
            If `path` is no path.
        OSError
            If the file cannot be written.
        """
        writers = {".svg": self.svg, ".dot": self.dot, ".mmd": self.mermaid}
        file = Path(check_path("save", path))
        suffix = file.suffix
        if suffix not in writers:
            raise ConfigError(f"save: path must end with .svg, .dot or .mmd, got {str(path)!r}")
        file.write_text(writers[suffix](), encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg()

    def __repr__(self) -> str:
        return f"Drawing({self.title}: {len(self.vertices)} boxes)"


@fork_rng()
def draw(
    subject: Any,
    values: bool = True,
    grads: bool = True,
    *,
    inputs: Any = None,
    names: Mapping[str, Tensor] | None = None,
) -> Drawing:
    """Draw a graph of operations, with the value above each wire and the gradient below it.

    Numbers stand at wires of one element; a tensor has its shape, and its gradient the Euclidean norm. The
    gradient at a wire is that of the sum of the results by its value: what `backward` adds up there. A graph
    of more than 60 boxes is collapsed: the operations and parameters of each call of a module become a box,
    of the deepest level that is coarse enough; what no module made becomes stretches of operations, one or
    several rounds of what repeats itself. Where the boxes need several rows, a wire to another row ends in a
    mark with a number, or the name of a leaf, and goes on at the same mark. No program is needed.

    Parameters
    ----------
    subject : Tensor, Module, Trainer, estimator, Graph, Plan or callable
        Of a Tensor the graph behind it is drawn, also after a plain `backward`: the values in between, which
        that has freed, and the gradients are computed anew from the leaves as they are now, with the same
        operations; ``.grad`` stays as it is. A module, also that of a Trainer or of a fitted estimator of
        `ferrograd.sklearn`, is called with `inputs` in evaluation mode; a callable without arguments is
        called once, and what it returns is drawn. Their operations are recorded anew, whatever ran before,
        with all values in between; buffers and the gradients of parameters stay as they are. An explicit
        `Graph` has the values of its last `forward` and the gradients of its last `backward`. Of a trainer's
        ``plan`` the instructions of a step are drawn as they are compiled now:
        forward, loss, backward and updates, each with the layer that it belongs to, with shapes for values
        and without gradients at the wires; operations that are one pass over memory stand in a frame.
    values, grads : bool, default True
        Whether to write values, and gradients.
    inputs : Tensor, array_like or tuple, optional
        What a module is called with, a tuple for several. By default one row of zeros as wide as the first
        `nn.Linear` takes.
    names : mapping of str to Tensor, optional
        Names of tensors in the picture; a module's parameters have theirs. What requires a gradient and has
        no name is a "leaf".

    Returns
    -------
    Drawing
        Shown in a notebook; ``svg()``, ``dot()``, ``mermaid()`` and ``save(path)`` give the picture.

    Raises
    ------
    ConfigError
        If `subject` is none of these, what it returns is no tensor, or a module's `inputs` cannot be guessed.
    DTypeError
        If `inputs` are no tensors or arrays.
    GraphError
        If a node of a `Graph` is not connected, or a constant behind a Tensor that nobody holds was freed by
        `backward`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x, y, z = (fg.tensor(value, requires_grad=True) for value in (-2.0, 5.0, -4.0))
    >>> f = (x + y) * z
    >>> f.backward()
    >>> picture = fg.draw(f, names={"x": x, "y": y, "z": z})
    >>> [(vertex.label, vertex.value_text(), vertex.grad_text()) for vertex in picture.vertices]
    [('x', '-2', '-4'), ('y', '5', '-4'), ('z', '-4', '3'), ('add', '3', '-4'), ('mul', '-12', '1')]
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 3), fg.nn.Tanh())
    >>> [vertex.label for vertex in fg.draw(model, grads=False).vertices]
    ['0.weight', '0.bias', 'input', 'permute', 'matmul', 'add', 'tanh']
    """
    check_bool("values", values)
    check_bool("grads", grads)
    named = _checked_names(names)
    if isinstance(subject, Trainer):
        if not isinstance(subject.model, Module):
            kind = type(subject.model).__name__
            raise ConfigError(
                f"draw: subject: expected a trainer of a Module, got one of {kind}; draw its plan"
            )
        subject = subject.model
    elif hasattr(subject, "to_module") and not isinstance(subject, type):
        subject = subject.to_module()
    if isinstance(subject, Graph):
        _refuse("Graph", inputs, names)
        title, found = "graph", of_graph("draw", subject)
    elif isinstance(subject, Plan):
        _refuse("Plan", inputs, names)
        found = of_plan(subject)
        count = sum(vertex.kind in ("op", "fused") for vertex in found)
        title = f"training step for {subject.rows} rows, {count} instructions"
    elif isinstance(subject, Module):
        arguments = _arguments(subject, inputs)
        title = type(subject).__name__
        given = {"input": arguments[0]} if len(arguments) == 1 else {}
        given |= {f"input {i}": argument for i, argument in enumerate(arguments)} if not given else {}
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}

        def run() -> Any:
            if len(arguments) == 1 and arguments[0].ndim:
                return called(subject, arguments[0], "inputs")
            return subject(*arguments)

        with in_mode(subject, training=False):
            found = of_run("draw", run, subject, tensors | named, with_grads=grads)
    elif isinstance(subject, Tensor):
        if inputs is not None:
            raise ConfigError("draw: inputs are for modules; a Tensor has been computed")
        title, found = "graph", of_tensor(subject, named, with_grads=grads)
    elif not callable(subject) or isinstance(subject, type):
        got = f"the class {subject.__name__}" if isinstance(subject, type) else type(subject).__name__
        raise ConfigError(
            f"draw: subject must be a Tensor, a model, a Graph, a Plan or a function, got {got}"
        )
    else:
        if inputs is not None:
            raise ConfigError("draw: inputs are for modules; a function is called without arguments")
        title = getattr(subject, "__name__", type(subject).__name__)
        title = "graph" if title == "<lambda>" else title
        found = of_run("draw", subject, None, named, with_grads=grads)
    model = subject.trainer.model if isinstance(subject, Plan) else subject
    shown = collapsed(found, kinds_of(model))
    if len(shown) < len(found):
        title += f", {len(found)} operations and leaves in {len(shown)} boxes"
    return Drawing(shown, values=bool(values), grads=bool(grads), title=title)


def _refuse(kind: str, inputs: Any, names: Any) -> None:
    if inputs is not None or names is not None:
        raise ConfigError(f"draw: inputs and names are for modules and functions, a {kind} has its own")


def _checked_names(names: Any) -> dict[str, Tensor]:
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        raise ConfigError(f"draw: names must be a mapping of str to Tensor, got {type(names).__name__}")
    for name, tensor in names.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ConfigError(f"draw: names must map str to Tensor, got {name!r}: {type(tensor).__name__}")
    return dict(names)


def _arguments(model: Module, inputs: Any) -> tuple[Any, ...]:
    if inputs is not None:
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        try:
            return tuple(value if isinstance(value, Tensor) else _core.tensor(value) for value in given)
        except DTypeError as error:
            raise DTypeError(f"draw: inputs: expected tensors or arrays, got {inputs!r}") from error
    for module in model.modules():
        if isinstance(module, Linear):
            return (_core.zeros(1, module.in_features, dtype=module.weight.dtype),)
    kind = type(model).__name__
    raise ConfigError(f"draw: inputs of this {kind} cannot be guessed without a Linear layer; pass inputs")
