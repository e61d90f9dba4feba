"""`trace`: backpropagation of one sample, step by step, as text, HTML and LaTeX."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import ShapeError, Tensor
from ferrograd._typing import Array, TensorLike
from ferrograd.checks import as_table
from ferrograd.compiled import is_of_labels
from ferrograd.drawing.read import Find, Step, run_recorded
from ferrograd.plain import plain
from ferrograd.problem import problem_of
from ferrograd.random import fork_rng

__all__ = ["Trace", "TraceOperand", "TraceStep", "trace"]

# A Jacobian of more elements is not written out, an array of more is cut short.
_JACOBIAN = 64
_ELEMENTS = 16
# What data, constants, steps and the loss are called.
_RESERVED = re.compile(r"[xyL]|[cv]\d+")


@dataclass(frozen=True)
class TraceOperand:
    """What a step of a `Trace` passes on to one of the values that it was computed from.

    Attributes
    ----------
    name : str
        Of the value.
    kind : {"elementwise", "jacobian", "whole"}
        Whether `local` has a derivative for each element, is the Jacobian (elements of the result, elements
        of the operand), or is None as that is too large.
    local : ndarray or None
        The local derivative of the result by the operand.
    downstream : ndarray
        Upstream times local: the operand's gradient along this way.

    Examples
    --------
    >>> import ferrograd as fg
    >>> found = fg.trace(fg.nn.Sequential(fg.nn.Linear(1, 1), fg.nn.Tanh()), [0.5], [1.0], fg.nn.MSELoss())
    >>> tanh = next(step for step in found.steps if step.op == "tanh")
    >>> operand = tanh.operands[0]
    >>> operand.kind, bool(operand.downstream == tanh.upstream * operand.local)
    ('elementwise', True)
    """

    name: str
    kind: str
    local: Array | None
    downstream: Array


@dataclass(frozen=True)
class TraceStep:
    """A step of a `Trace`: an operation, in the order of the forward pass.

    Attributes
    ----------
    name : str
        Of its value: v1, v2, ..., and L for the loss.
    op : str
        The operation.
    value : ndarray
        What it gave.
    upstream : ndarray
        The gradient of the loss by it.
    operands : tuple of TraceOperand
        Those that a gradient flows to, each once.
    inputs : tuple of str
        The names of all that it was computed from, in order; a number that is part of it comes last.

    Examples
    --------
    >>> import ferrograd as fg
    >>> found = fg.trace(fg.nn.Linear(1, 1, bias=False), [2.0], [0.0], fg.nn.MSELoss())
    >>> [(step.name, step.op, step.inputs) for step in found.steps[1:3]]
    [('v2', 'matmul', ('x', 'v1')), ('v3', 'mse', ('v2', 'y'))]
    """

    name: str
    op: str
    value: Array
    upstream: Array
    operands: tuple[TraceOperand, ...]
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What `trace` returns; printed, it is a text.

    Attributes
    ----------
    loss : float
        Of the sample.
    leaves : dict of str to ndarray
        The values that the forward pass begins with: x, y, parameters and constants.
    steps : tuple of TraceStep
        The operations in forward order; backward goes through them in reverse.
    gradients : dict of str to ndarray
        Of the parameters: what arrived over all ways, added up.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(1, 1, bias=False)
    >>> with fg.no_grad():
    ...     _ = model.weight.fill_(3.0)
    >>> found = fg.trace(model, [2.0], [5.0], fg.nn.MSELoss())
    >>> found.loss, found.gradients["weight"].tolist()
    (1.0, [[4.0]])
    >>> found.to_dict()["steps"][-1]["name"]
    'L'
    """

    loss: float
    leaves: dict[str, Array]
    steps: tuple[TraceStep, ...]
    gradients: dict[str, Array]

    def text(self) -> str:
        """Return both passes as lines of plain text."""
        lines = [f"{name} = {_short(value)}" for name, value in self.leaves.items()]
        lines = ["forward", *(f"  {line}" for line in lines)]
        lines += [f"  {s.name} = {s.op}({', '.join(s.inputs)}) = {_short(s.value)}" for s in self.steps]
        lines += ["backward", f"  dL/dL = {_short(np.ones(()))}"]
        for step in reversed(self.steps):
            for operand in step.operands:
                ways = f"dL/d{operand.name} += dL/d{step.name} * d{step.name}/d{operand.name}"
                lines.append(f"  {ways}   ({step.op})")
                numbers = f"{_short(step.upstream)} * {_local(step, operand)}"
                lines.append(f"      = {numbers} = {_short(operand.downstream)}")
        lines += ["gradients", *(f"  dL/d{name} = {_short(g)}" for name, g in self.gradients.items())]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def html(self) -> str:
        """Return both passes as tables."""
        forward = [(name, "", _short(value)) for name, value in self.leaves.items()]
        forward += [(s.name, f"{s.op}({', '.join(s.inputs)})", _short(s.value)) for s in self.steps]
        backward = [
            (f"dL/d{o.name}", f"{s.name} = {s.op}", _short(s.upstream), _local(s, o), _short(o.downstream))
            for s in reversed(self.steps)
            for o in s.operands
        ]
        sums = [(f"dL/d{name}", _short(gradient)) for name, gradient in self.gradients.items()]
        return "\n".join(
            [
                '<div class="fg-trace">',
                _table("Forward", ("value", "operation", "result"), forward),
                _table("Backward", ("gradient", "of", "upstream", "local", "downstream"), backward),
                _table("Gradients", ("of", "sum over all ways"), sums),
                "</div>",
            ]
        )

    def _repr_html_(self) -> str:
        return self.html()

    def latex(self) -> str:
        """Return both passes as an environment of amsmath, ``align*``."""
        lines = [rf"{_symbol(name)} &= {_matrix(value)}" for name, value in self.leaves.items()]
        for step in self.steps:
            inputs = ", ".join(map(_symbol, step.inputs))
            call = rf"\operatorname{{{_plain(step.op)}}}\left({inputs}\right)"
            lines.append(rf"{_symbol(step.name)} &= {call} = {_matrix(step.value)}")
        for step in reversed(self.steps):
            for operand in step.operands:
                up, by = _symbol(step.name), _symbol(operand.name)
                local = _formula(operand)
                product = r"\odot" if operand.kind == "elementwise" and operand.downstream.ndim else r"\cdot"
                symbols = rf"\frac{{\partial L}}{{\partial {up}}} {product} "
                symbols += rf"\frac{{\partial {up}}}{{\partial {by}}}"
                numbers = rf"{_matrix(step.upstream)} {product} {local} = " if local else ""
                left = rf"\frac{{\partial L}}{{\partial {by}}} &\mathrel{{+}}= {symbols}"
                lines.append(rf"{left} = {numbers}{_matrix(operand.downstream)}")
        return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists and numbers, None for one that is not finite."""
        found: dict[str, Any] = plain(self)
        return found


@fork_rng()
def trace(
    model: Any,
    x: TensorLike,
    y: TensorLike,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Trace:
    """Show backpropagation of one sample: each value, each local derivative, and what is passed on.

    The loss L is computed in evaluation mode and float64, on a copy of the model. Backward then goes through
    the operations in reverse: where v was computed from u, ``dL/du += dL/dv * dv/du``, upstream times local.
    For an elementwise operation the product is one of elements; for others it is that with the Jacobian
    ``J[i, j] = dv_i / du_j``, ``(dL/dv) J``, which is written out up to 64 elements. Of other arrays with
    more than 16 the texts have shape and norm. A parameter that is called as something else here, such as x
    or v1, has a prime: ``x'``.

    Parameters
    ----------
    model : Module, Trainer or estimator
        A `Trainer`, and a fitted estimator of `ferrograd.sklearn`, bring their loss.
    x : array_like
        One sample, of shape (1, ...), which is what the model is called with. A vector is one sample of its
        features, and a number one of one feature.
    y : array_like
        Its target: a class, or numbers in the shape of the model's scores. A vector of several numbers, or of
        floating ones, is that of one sample.
    loss : callable, optional
        For a Module, called with ``(scores, targets)``.

    Returns
    -------
    Trace
        ``str()`` or ``text()``, ``html()`` (shown in a notebook), ``latex()`` and ``to_dict()`` give it.

    Raises
    ------
    ConfigError
        If `model` is none of these, or `loss` is missing or not wanted.
    ShapeError
        If `x` or `y` is of more than one sample.
    DTypeError, LabelError, NonFiniteError
        If they do not fit the model.

    See Also
    --------
    draw : the same as a picture.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(1, 1)
    >>> with fg.no_grad():
    ...     _ = model.weight.fill_(3.0), model.bias.fill_(1.0)
    >>> print(fg.trace(model, [2.0], [5.0], fg.nn.MSELoss()))  # doctest: +ELLIPSIS
    forward
      weight = [[3]]
      bias = [1]
      x = [[2]]
      y = [[5]]
      v1 = permute(weight) = [[3]]
      v2 = matmul(x, v1) = [[6]]
      v3 = add(v2, bias) = [[7]]
      v4 = mse(v3, y) = [[4]]
      v5 = sum(v4) = 4
      L = div(v5, 1) = 4
    backward
      dL/dL = 1
      ...
      dL/dv3 += dL/dv4 * dv4/dv3   (mse)
          = [[1]] * [[4]] = [[4]]
      ...
      dL/dv1 += dL/dv2 * dv2/dv1   (matmul)
          = [[4]] * [[2]] = [[8]]
      ...
    gradients
      dL/dweight = [[8]]
      dL/dbias = [4]
    """
    owner = "trace"
    judge = getattr(model, "loss", None) if loss is None else loss
    X, target = _one_sample(owner, x, y, is_class=is_of_labels(judge))
    problem = problem_of(owner, model, X, target, loss, trains=False)
    found: list[Trace] = []

    def use(steps: list[Step], results: list[int], find: Find) -> None:
        names: dict[int | None, str] = {}
        for name, parameter in problem.parameters.items():
            while _RESERVED.fullmatch(name) or name in names.values():
                name += "'"
            names[find(parameter)] = name
        names |= {find(t): name for name, t in zip(("x", "y"), problem.data, strict=False)}
        found.append(_told(steps, results[0], names))

    def run() -> Tensor:
        return problem.loss(problem.scores())

    run_recorded(owner, run, use, with_grads=True)
    return found[0]


def _one_sample(owner: str, x: TensorLike, y: TensorLike, *, is_class: bool) -> tuple[Array, Array]:
    # Classes may be strings to an estimator; what y may be is looked at where its problem is made.
    table, target = as_table("x", x), y.numpy() if isinstance(y, Tensor) else np.asarray(y)
    if table.ndim > 1 and len(table) != 1:
        raise ShapeError(
            f"{owner}: x: expected one sample, (n_features,) or (1, ...), got {table.shape}, which is "
            f"{len(table)} samples; if it is one sample of that shape, pass x[None]"
        )
    if table.ndim < 2:
        table = table.reshape(1, -1)
    # Several integers are numbers, or the classes of several samples.
    is_row = target.dtype.kind == "f" or (target.dtype.kind in "biu" and target.size > 1 and not is_class)
    if target.ndim == 0 or (target.ndim == 1 and is_row):
        target = target.reshape(1, *([-1] if target.ndim else []))
    if len(target) != 1:
        raise ShapeError(f"{owner}: y: expected the target of one sample, got {target.shape}")
    return table, target


def _told(steps: list[Step], root: int, given: dict[int | None, str]) -> Trace:
    """Name the steps and take each apart."""
    names: dict[int, str] = {}
    leaves: dict[str, Array] = {}
    constants = operations = 0
    for i, step in enumerate(steps):
        if step.tensor.op is None:
            if i not in given:
                constants += 1
            names[i] = given.get(i, f"c{constants}")
            leaves[names[i]] = step.tensor.detach().numpy()
        elif i == root:
            names[i] = "L"
        else:
            operations += 1
            names[i] = f"v{operations}"
    told, gradients = [], {}
    for i, step in enumerate(steps):
        value = step.tensor.detach().numpy()
        upstream = np.zeros_like(value) if step.grad is None else step.grad.detach().numpy()
        if step.tensor.op is None:
            if step.tensor.requires_grad:
                gradients[names[i]] = upstream
            continue
        number = step.number_text
        inputs = *(names[source] for source in step.sources), *([number] if number else [])
        operands = _operands(step, steps, names) if step.grad is not None else ()
        told.append(TraceStep(names[i], step.tensor.op, value, upstream, operands, inputs))
    return Trace(float(steps[root].tensor.item()), leaves, tuple(told), gradients)


def _operands(step: Step, steps: list[Step], names: dict[int, str]) -> tuple[TraceOperand, ...]:
    assert step.grad is not None
    # Latest first: where one operand was computed from another, what flows through it is known and left out.
    wanted = [s for s in sorted(set(step.sources), reverse=True) if steps[s].tensor.requires_grad]
    size = step.tensor.numel()
    found: dict[int, TraceOperand] = {}
    for source in wanted:
        operand = steps[source].tensor
        later = [steps[s].tensor for s in found]

        def pulled(seed: Tensor, operand: Tensor = operand, later: list[Tensor] = later) -> Array:
            return _local_gradient(step.tensor, operand, later, seed)

        downstream = pulled(step.grad)
        shape = step.tensor.shape
        is_elementwise = operand.shape == shape and _is_elementwise(size, shape, pulled)
        if is_elementwise:
            kind, local = "elementwise", pulled(_core.ones_like(step.tensor))
        elif size * operand.numel() <= _JACOBIAN:
            rows = [pulled(_unit(step.tensor, i)).reshape(-1) for i in range(size)]
            kind, local = "jacobian", np.stack(rows) if rows else np.zeros((0, operand.numel()))
        else:
            kind, local = "whole", None
        found[source] = TraceOperand(names[source], kind, local, downstream)
    return tuple(found[source] for source in dict.fromkeys(step.sources) if source in found)


def _unit(like: Tensor, place: int) -> Tensor:
    unit = np.zeros(like.numel())
    unit[place] = 1.0
    return _core.tensor(unit.reshape(like.shape), dtype=like.dtype)


def _local_gradient(result: Tensor, operand: Tensor, later: list[Tensor], seed: Tensor) -> Array:
    """Return ``seed * d result / d operand`` with the other operands, `later` ones of them, held fixed."""
    grads = _core.grad([result], [operand, *later], [seed], retain_graph=True, allow_unused=True)
    total = np.zeros(operand.shape) if grads[0] is None else grads[0].detach().numpy()
    for number, other in enumerate(later):
        # What reaches a later operand directly goes on from there to this one.
        direct = _core.tensor(_local_gradient(result, other, later[:number], seed), dtype=other.dtype)
        (onward,) = _core.grad([other], [operand], [direct], retain_graph=True, allow_unused=True)
        if onward is not None:
            total = total - onward.detach().numpy()
    return total


def _is_elementwise(size: int, shape: tuple[int, ...], pulled: Callable[[Tensor], Array]) -> bool:
    """Whether each element depends on its own alone: then a random seed only scales the derivatives."""
    seed = np.random.default_rng(0).uniform(1.0, 2.0, shape)
    whole = pulled(_core.ones(*shape, dtype=_core.float64))
    return size < 2 or bool(np.allclose(pulled(_core.tensor(seed)), whole * seed, rtol=1e-12, atol=0.0))


# Writing


def _short(value: Array, most: int = _ELEMENTS) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return _number(array.item())
    if array.size > most:
        return f"array {array.shape}, norm {_number(float(np.linalg.norm(array)))}"
    return "[" + ", ".join(_short(part) for part in array) + "]"


def _number(value: Any) -> str:
    # Without the sign of a negative zero.
    return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)


def _local(step: TraceStep, operand: TraceOperand) -> str:
    if operand.local is None:
        return f"Jacobian ({step.value.size}, {operand.downstream.size})"
    return f"J {_short(operand.local, _JACOBIAN)}" if operand.kind == "jacobian" else _short(operand.local)


def _table(title: str, head: tuple[str, ...], rows: list[Any]) -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [f"<table><caption>{escape(title)}</caption>", f"<thead><tr>{cells}</tr></thead>", "<tbody>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</tbody>", "</table>"])


def _plain(text: str) -> str:
    return text.replace("\\", "").replace("{", "").replace("}", "").replace("_", r"\_")


def _symbol(name: str) -> str:
    if name.replace(".", "").replace("e", "").replace("-", "").replace("+", "").isdigit():
        return _latex_number(float(name))
    if name[0] in "vc" and name[1:].isdigit():
        return f"{name[0]}_{{{name[1:]}}}"
    return name if len(name) == 1 else rf"\mathrm{{{_plain(name)}}}"


def _formula(operand: TraceOperand) -> str:
    most = _JACOBIAN if operand.kind == "jacobian" else _ELEMENTS
    return "" if operand.local is None else _matrix(operand.local, most)


def _matrix(value: Array, most: int = _ELEMENTS) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return _latex_number(array.item())
    if array.size > most or array.ndim > 2:
        shape = r" \times ".join(map(str, array.shape))
        return rf"\left[{shape}\right]"
    rows = np.atleast_2d(array)
    body = r" \\ ".join(" & ".join(_latex_number(x) for x in row.tolist()) for row in rows)
    return rf"\begin{{bmatrix}} {body} \end{{bmatrix}}"


def _latex_number(value: Any) -> str:
    text = _number(value)
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return {"nan": r"\mathrm{NaN}", "inf": r"\infty", "-inf": r"-\infty"}.get(text, text)
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}"
