"""Bad input outside the Trainer: each row a named error, or a result that is defined; nothing else changes."""

# ruff: noqa: E501 -- a row of a table is a line

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

Call = Callable[["Bench"], Any]


class Bench:
    """What a call can damage: tensors, a graph, a layer with gradients and an optimizer that has made a step."""

    def __init__(self) -> None:
        fg.manual_seed(0)
        self.x = fg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
        self.ints = fg.tensor([1, 2, 3])
        self.layer = nn.Linear(3, 2).double()
        self.optimizer = optim.Adam(self.layer.parameters(), lr=0.1)
        self.layer(self.x).square().sum().backward()
        self.optimizer.step()
        self.y = (self.x * 2).exp()
        self.graph = fg.Graph()
        self.a, self.b = self.graph.input("a"), self.graph.input("b")
        self.product = self.graph.add("mul", self.a, self.b, name="product")

    def snapshot(self) -> Any:
        """Every number, flag and setting that no failed call may change."""
        tensors = [self.x, self.ints, *self.layer.parameters()]
        values = [(t.numpy().tobytes(), t.dtype.name, t.shape, t.requires_grad) for t in tensors]
        grads = [None if t.grad is None else t.grad.numpy().tobytes() for t in tensors]
        state = [
            value.numpy().tobytes() if isinstance(value, fg.Tensor) else value
            for entries in self.optimizer.state.values()
            for value in entries.values()
        ]
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
        sizes = [len(g["params"]) for g in self.optimizer.param_groups]
        nodes = [node.name for node in self.graph.nodes_topologically_sorted()]
        grad_of_y = fg.autograd.grad(self.y.sum(), self.x, retain_graph=True)[0]
        assert grad_of_y is not None
        settings = (fg.get_num_threads(), fg.is_grad_enabled(), self.layer.training)
        return values, grads, state, groups, sizes, nodes, grad_of_y.numpy().tobytes(), settings


Shape, DType, Config = fg.ShapeError, fg.DTypeError, fg.ConfigError
Graph, Label = fg.GraphError, fg.LabelError
REAL = "expected real numbers, got dtype"

# name, call, error, message
DTYPE: list[tuple[str, Call, type[Exception], str]] = [
    ("complex64", lambda b: fg.tensor(np.ones(2, np.complex64)), DType, REAL),
    ("complex128 to a method", lambda b: b.x + np.ones(3, complex), DType, REAL),
    ("str", lambda b: fg.tensor("1"), DType, REAL),
    ("bytes", lambda b: fg.tensor(b"1"), DType, REAL),
    ("list of str", lambda b: b.x * ["1", "2", "3"], DType, REAL),
    ("datetime", lambda b: fg.tensor(np.array(["2020"], "M8[Y]")), DType, REAL),
    ("timedelta", lambda b: b.x.copy_(np.ones((2, 3), "m8[s]")), DType, REAL),
    ("structured", lambda b: fg.tensor(np.zeros(2, [("a", "f4")])), DType, REAL),
    ("void", lambda b: fg.tensor(np.zeros(2, "V4")), DType, REAL),
    ("object", lambda b: fg.tensor(np.array([object()])), DType, REAL),
    ("None", lambda b: fg.tensor(None), DType, REAL),
    ("dict", lambda b: fg.cat([{}, {}]), DType, REAL),
    ("a class", lambda b: fg.tensor(int), DType, REAL),
    ("a module for a tensor", lambda b: fg.relu(b.layer), DType, REAL),
    ("dtype int32", lambda b: fg.zeros(2, dtype="int32"), DType, "dtype: expected one of float32"),
    ("dtype float16", lambda b: b.x.to(np.float16), DType, "dtype: expected one of float32"),
    ("dtype 7", lambda b: fg.ones(2, dtype=7), DType, "dtype: expected one of float32"),
    ("gradient of integers", lambda b: fg.tensor([1], requires_grad=True), DType, "requires_grad"),
    ("gradient of bools", lambda b: fg.tensor([True]).requires_grad_(), DType, "requires_grad"),
    ("mean of integers", lambda b: b.ints.mean(), DType, "mean"),
    ("var of integers", lambda b: b.ints.var(), DType, "expected float32 or float64, got int64"),
    ("softmax of integers", lambda b: b.ints.softmax(0), DType, "softmax"),
    ("module to int64", lambda b: b.layer.to("int64"), DType, "float32 or float64, got 'int64'"),
    ("float index", lambda b: b.x[1.5], DType, "expected integers or bools"),
    ("bool index", lambda b: b.x[True], DType, "got a bool"),
    ("str index", lambda b: b.x["a"], DType, "expected real numbers"),
    ("float index array", lambda b: b.x[np.array([0.0])], DType, "integers or bools"),
    ("float into integers", lambda b: b.ints.__setitem__(0, 1.5), DType, "int64"),
    (
        "float labels",
        lambda b: nn.functional.multi_margin_loss(b.x, fg.tensor([0.0, 1.0])),
        DType,
        "int64|integer",
    ),
    (
        "bool labels",
        lambda b: nn.CrossEntropyLoss()(b.x, np.array([True, False])),
        DType,
        "class indices as int64",
    ),
    ("and of floats", lambda b: b.x & b.x, DType, "bool"),
    ("invert of floats", lambda b: ~b.x, DType, "bool|integer"),
]

LAYOUT: list[tuple[str, Call, type[Exception], str]] = [
    ("ragged list", lambda b: fg.tensor([[1], [2, 3]]), Shape, "ragged"),
    ("nine dimensions", lambda b: fg.tensor(np.zeros((1,) * 9)), Shape, "at most 8 dimensions"),
    ("masked", lambda b: fg.tensor(np.ma.masked_array([1.0, 2.0], [0, 1])), Config, "masked"),
    ("masked operand", lambda b: b.x + np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]), Config, "masked"),
    ("too many rows by zero strides", lambda b: fg.tensor(np.broadcast_to(np.float32(0), (2**50,))), Shape, r"at most 2\^48 elements"),
    ("a size that overflows", lambda b: fg.zeros(2**40, 2**40), Shape, r"zeros: expected at most 2\^48 elements"),
    ("a size that wraps to little", lambda b: fg.zeros(2**32, 2**32, 2**32), Shape, r"zeros: expected at most 2\^48 elements"),
    ("negative size", lambda b: fg.zeros(-1), Shape, r"zeros: expected sizes of at least 0, got \[-1\]"),
    ("float size", lambda b: fg.zeros(2.5), DType, "size: expected integers, got float"),
    ("no size", lambda b: fg.zeros(2, None), DType, "size: expected integers, got None"),
    ("huge dimension", lambda b: b.x.sum((0, 2**70)), Config, f"dim: expected integers in range, got {2**70}"),
    ("expand that overflows", lambda b: fg.ones(1, 1).expand(2**40, 2**40) + 1, Shape, r"expand: expected at most 2\^48 elements"),
    ("broadcast", lambda b: b.x + fg.ones(2), Shape, r"add: shapes do not broadcast, \(2, 3\) and \(2,\)"),
    ("broadcast of three", lambda b: fg.where(b.x > 0, b.x, fg.ones(4)), Shape, r"where: shapes do not broadcast, \(2, 3\) and \(4,\)"),
    ("maximum", lambda b: b.x.maximum(np.ones((3, 3))), Shape, r"maximum: .*\(2, 3\).*\(3, 3\)"),
    ("matmul", lambda b: b.x @ b.x, Shape, r"matmul: inner dimensions differ, \(2, 3\) @ \(2, 3\)"),
    ("matmul of a scalar", lambda b: b.x @ 2.0, Shape, "matmul"),
    ("mm of a vector", lambda b: b.x.mm(fg.ones(3)), Shape, "mm"),
    ("mv of a matrix", lambda b: b.x.mv(fg.ones(3, 3)), Shape, "mv"),
    ("dot of matrices", lambda b: b.x.dot(b.x), Shape, "dot"),
    ("linear", lambda b: b.layer(b.x.T), Shape, r"linear: expected input of shape \(\.\.\., 3\).*got \(3, 2\)"),
    ("linear weight", lambda b: fg.linear(b.x, np.ones(3)), Shape, "linear"),
    ("linear bias", lambda b: fg.linear(b.x, np.ones((2, 3)), np.ones(3)), Shape, "shapes do not broadcast"),
    ("reshape", lambda b: b.x.reshape(4), Shape, "reshape"),
    ("reshape with two unknowns", lambda b: b.x.reshape(-1, -1), Shape, "reshape"),
    ("reshape with a remainder", lambda b: b.x.reshape(4, -1), Shape, "reshape"),
    ("reshape to negative", lambda b: b.x.reshape(-2, -3), Shape, "reshape"),
    ("view across strides", lambda b: b.x.T.view(6), Shape, "view"),
    ("permute twice", lambda b: b.x.permute(0, 0), Shape, "permute"),
    ("permute too few", lambda b: b.x.permute(0), Shape, "permute"),
    ("transpose", lambda b: b.x.transpose(0, 2), Shape, "transpose"),
    ("t of three", lambda b: fg.ones(2, 2, 2).t(), Shape, "t"),
    ("squeeze", lambda b: b.x.squeeze(5), Shape, "squeeze"),
    ("unsqueeze", lambda b: b.x.unsqueeze(4), Shape, "unsqueeze"),
    ("flatten backwards", lambda b: b.x.flatten(1, 0), Shape, "flatten"),
    ("expand", lambda b: b.x.expand(4, 3), Shape, "expand|broadcast_to"),
    ("sum over no dimension", lambda b: b.x.sum(2), Shape, "sum"),
    ("sum over one twice", lambda b: b.x.sum((0, -2)), Shape, "sum"),
    ("argmax over no dimension", lambda b: b.x.argmax(-3), Shape, "argmax"),
    ("max of nothing", lambda b: fg.zeros(0).max(), Shape, "max"),
    ("max over nothing", lambda b: fg.zeros(2, 0).max(1), Shape, "max"),
    ("amin of nothing", lambda b: fg.zeros(0, 3).amin(0), Shape, "amin"),
    ("argmin of nothing", lambda b: fg.zeros(0).argmin(), Shape, "argmin"),
    ("softmax over no dimension", lambda b: b.x.softmax(2), Shape, "softmax"),
    ("maxout", lambda b: b.x.maxout(2), Shape, "maxout"),
    ("prelu", lambda b: b.x.prelu(np.ones(2)), Shape, "prelu"),
    ("cat of shapes", lambda b: fg.cat([b.x, fg.ones(2, 2)]), Shape, "cat"),
    ("cat of ranks", lambda b: fg.cat([b.x, fg.ones(3)]), Shape, "cat"),
    ("cat of nothing", lambda b: fg.cat([]), Config, "at least one tensor"),
    ("cat of scalars", lambda b: fg.cat([fg.tensor(1.0)]), Shape, "cat"),
    ("stack of shapes", lambda b: fg.stack([b.x, b.x.T]), Shape, "stack"),
    ("stack over no dimension", lambda b: fg.stack([b.x], 5), Shape, "dimension 5 is out of range"),
    ("index", lambda b: b.x[2], fg.OutOfRangeError, "index 2 is out of range for dimension 0 of size 2"),
    ("huge index", lambda b: b.x[2**70], DType, "index: expected integers or bools"),
    ("index of a scalar", lambda b: fg.tensor(1.0)[0], fg.OutOfRangeError, "at most 0 indices"),
    ("negative slice step", lambda b: b.x[::-1], ValueError, "slice step of at least 1"),
    ("mask of another length", lambda b: b.x[np.array([True])], Shape, "mask"),
    ("index arrays that do not broadcast", lambda b: b.x[[0, 1], [0, 1, 2]], Shape, "index: shapes do not broadcast"),
    ("set a wrong shape", lambda b: b.x.detach().__setitem__(0, np.ones(2)), Shape, "shapes do not broadcast"),
    ("copy a wrong shape", lambda b: b.x.detach().copy_(np.ones((3, 2))), Shape, r"\(3, 2\)"),
    ("add in place to less", lambda b: fg.ones(3).add_(np.ones((2, 3))), Shape, "shapes do not broadcast"),
    ("item of several", lambda b: b.x.item(), Shape, "item"),
    ("truth of several", lambda b: bool(b.x), Shape, "ambiguous"),
    ("length of a scalar", lambda b: len(fg.tensor(1.0)), TypeError, "0-d|len"),
    ("mse of a column and a row", lambda b: nn.MSELoss()(fg.ones(3, 1), np.ones(3)), Shape, r"\(3, 1\) and \(3,?\)"),
    ("l1 of shapes", lambda b: nn.L1Loss()(fg.ones(3), np.ones(4)), Shape, r"\(3,?\) and \(4,?\)"),
    ("bce of shapes", lambda b: nn.BCELoss()(fg.ones(3), np.ones((3, 1))), Shape, r"\(3,?\) and \(3, 1\)"),
    ("cross-entropy rows", lambda b: nn.CrossEntropyLoss()(b.x, fg.tensor([0])), Shape, "cross_entropy"),
    ("cross-entropy of a vector", lambda b: nn.CrossEntropyLoss()(fg.ones(3), fg.tensor([0])), Shape, "cross_entropy"),
    ("cross-entropy weight", lambda b: nn.CrossEntropyLoss([1.0])(b.x, fg.tensor([0, 1])), Shape, "weight"),
    ("state of another shape", lambda b: b.layer.load_state_dict({"weight": np.ones((2, 2)), "bias": np.ones(2)}), Shape, "weight"),
]  # fmt: skip

LABELS: list[tuple[str, Call, type[Exception], str]] = [
    (
        "label too large",
        lambda b: nn.CrossEntropyLoss()(b.x, fg.tensor([0, 3])),
        Label,
        "class index 3 at position 1",
    ),
    (
        "label negative",
        lambda b: nn.CrossEntropyLoss()(b.x, fg.tensor([-1, 0])),
        Label,
        "class index -1 at position 0",
    ),
    ("label huge", lambda b: nn.CrossEntropyLoss()(b.x, fg.tensor([0, 2**62])), Label, "4611686018427387904"),
    ("label -100 in a hinge loss", lambda b: nn.MultiMarginLoss()(b.x, fg.tensor([0, -100])), Label, "-100"),
    (
        "label in the lectures' hinge",
        lambda b: nn.MulticlassHingeLoss()(b.x, fg.tensor([5, 0])),
        Label,
        "class index 5",
    ),
    (
        "label with a gradient",
        lambda b: nn.CrossEntropyLoss()(b.layer(b.x), fg.tensor([2, 0])),
        Label,
        "class index 2",
    ),
    ("label uint64", lambda b: fg.tensor(np.array([2**64 - 1], np.uint64)), Config, r"below 2\*\*63"),
    (
        "labels as a column",
        lambda b: nn.CrossEntropyLoss()(b.x, fg.tensor([[0], [1]])),
        Shape,
        "cross_entropy",
    ),
    ("labels as text", lambda b: nn.CrossEntropyLoss()(b.x, ["a", "b"]), DType, REAL),
    ("labels with None", lambda b: nn.CrossEntropyLoss()(b.x, [0, None]), DType, REAL),
]

CONFIG: list[tuple[str, Call, type[Exception], str]] = [
    *[(f"threads {n!r}", lambda b, n=n: fg.set_num_threads(n), Config, "threads") for n in (0, -1, 10**6)],
    *[(f"threads {n!r}", lambda b, n=n: fg.set_num_threads(n), TypeError, "integer") for n in (1.5, None, "2", [1])],
    ("threads beyond integers", lambda b: fg.set_num_threads(2**70), Config, "threads: expected an integer in range"),
    ("seed text", lambda b: fg.manual_seed("a"), Config, "seed: expected an integer"),
    ("state list", lambda b: fg.set_rng_state([1, 2]), DType, r"new_state: expected the bytes .* got int64"),
    ("state none", lambda b: fg.set_rng_state(None), DType, "new_state: "),
    (
        "state short",
        lambda b: fg.Generator().set_state(fg.Generator().get_state()[:8]),
        Shape,
        r"new_state: expected the 16 bytes of get_state, got shape \(8,\)",
    ),
    ("seed float", lambda b: fg.manual_seed(0.5), Config, "seed: expected an integer"),
    ("a number that is no uint8", lambda b: fg.zeros(2, dtype="uint8") == -100, Config, "-100 does not fit uint8"),
    ("a sum that is no uint8", lambda b: fg.zeros((), dtype="uint8") + 256, Config, "256 does not fit uint8"),
    ("device", lambda b: fg.zeros(1, device="tpu"), fg.DeviceError, "tpu"),
    ("arange step zero", lambda b: fg.arange(0, 3, 0), Config, "step"),
    ("arange nan", lambda b: fg.arange(float("nan")), Config, "arange"),
    ("arange infinite", lambda b: fg.arange(float("inf")), Config, "arange"),
    ("linspace negative", lambda b: fg.linspace(0, 1, -2), Shape, "linspace: expected sizes"),
    ("eye negative", lambda b: fg.eye(-1), Shape, "eye: expected sizes"),
    ("randint empty", lambda b: fg.randint(3, 3, (2,)), Config, "high: expected a value above low = 3, got 3"),
    ("clamp of nothing", lambda b: b.x.clamp(), Config, "clamp"),
    ("linear 0 inputs as float", lambda b: nn.Linear(2.0, 1), Config, "Linear: in_features must be an int"),
    ("linear negative", lambda b: nn.Linear(-1, 1), Config, "Linear: in_features must be an int"),
    ("linear bool", lambda b: nn.Linear(True, 1), Config, "Linear: in_features must be an int"),
    ("linear huge", lambda b: nn.Linear(2**40, 2**40), Shape, r"at most 2\^48 elements"),
    *[(f"dropout {p!r}", lambda b, p=p: nn.Dropout(p), Config, "p") for p in (-0.1, 1.5, float("nan"), "a", None)],
    ("softmax without dim", lambda b: nn.Softmax()(b.x), Config, "dim"),
    ("reduction", lambda b: nn.MSELoss("average"), Config, "reduction"),
    ("smoothing", lambda b: nn.CrossEntropyLoss(label_smoothing=1.5), Config, "label_smoothing"),
    ("hinge power", lambda b: nn.MultiMarginLoss(p=3), Config, "p"),
    ("train mode", lambda b: b.layer.train(1), Config, "mode must be a bool"),
    ("maxout pieces", lambda b: b.x.maxout(0), Shape, "maxout: expected a dimension that 0 pieces divide"),
    ("module name with a dot", lambda b: b.layer.add_module("a.b", nn.ReLU()), Config, "without dots"),
    ("parameter of another kind", lambda b: setattr(b.layer, "weight", fg.ones(1)), TypeError, "Parameter or None"),
    ("buffer of another kind", lambda b: b.layer.register_buffer("z", 1), TypeError, "Tensor or None"),
    ("no parameters", lambda b: optim.SGD([]), Config, "params is empty"),
    ("one parameter", lambda b: optim.SGD(b.x), Config, "several tensors"),
    ("not a parameter", lambda b: optim.SGD([1.0]), Config, r"params\[0\] must be a Tensor"),
    ("a result", lambda b: optim.Adam([b.y]), Config, "only leaves"),
    ("integers", lambda b: optim.Adam([b.ints]), Config, "must be floating"),
    ("a parameter twice", lambda b: optim.SGD([b.x, b.x]), Config, "appears twice"),
    ("unknown option", lambda b: optim.SGD([{"params": [b.x], "rate": 1}]), Config, "unknown option 'rate'"),
    ("a known parameter again", lambda b: b.optimizer.add_param_group({"params": [b.layer.bias]}), Config, "appears twice"),
    ("group without params", lambda b: b.optimizer.add_param_group({"lr": 1}), Config, "params"),
    ("group with a bad rate", lambda b: b.optimizer.add_param_group({"params": [b.x], "lr": -1}), Config, "lr"),
    *[(f"SGD lr {v!r}", lambda b, v=v: optim.SGD([b.x], lr=v), Config, "lr") for v in (-1, float("nan"), float("inf"), "a", None, True)],
    ("momentum", lambda b: optim.SGD([b.x], momentum=-0.1), Config, "momentum"),
    ("dampening", lambda b: optim.SGD([b.x], dampening=1.5), Config, "dampening"),
    ("weight decay", lambda b: optim.SGD([b.x], weight_decay=-1), Config, "weight_decay"),
    ("nesterov alone", lambda b: optim.SGD([b.x], nesterov=True), Config, "nesterov"),
    *[(f"betas {v!r}", lambda b, v=v: optim.Adam([b.x], betas=v), Config, "betas") for v in ((1.0, 0.9), (0.9, -0.1), (0.9, 1.0), 0.9, (0.9,), "ab")],
    ("eps", lambda b: optim.Adam([b.x], eps=-1e-8), Config, "eps"),
    ("amsgrad", lambda b: optim.AdamW([b.x], amsgrad=1), Config, "amsgrad"),
    ("bad option at a step", lambda b: step_with(b, lr=-1.0), Config, "lr"),
    ("optimizer state without groups", lambda b: b.optimizer.load_state_dict({}), Config, "param_groups"),
    ("optimizer state of other sizes", lambda b: b.optimizer.load_state_dict(optim.Adam([b.x]).state_dict()), Config, "groups of sizes"),
    ("optimizer state of other shapes", lambda b: b.optimizer.load_state_dict(changed_state(b, exp_avg=np.ones(7))), Shape, "exp_avg"),
    ("optimizer state with a bad option", lambda b: b.optimizer.load_state_dict(changed_state(b, lr=float("nan"))), Config, "lr"),
    ("state with missing names", lambda b: b.layer.load_state_dict({"weight": np.ones((2, 3))}), Config, "missing keys: bias"),
    ("state with unknown names", lambda b: b.layer.load_state_dict({**b.layer.state_dict(), "z": 1}), Config, "unexpected keys: z"),
    ("state that is text", lambda b: b.layer.load_state_dict({"weight": "a", "bias": np.ones(2)}), DType, REAL),
    ("state with a late fault", lambda b: b.layer.load_state_dict({"weight": np.ones((2, 3)), "bias": [None, 1]}), DType, REAL),
    ("mnist folder missing", lambda b: fg.datasets.load_mnist("no/such/folder"), fg.CheckpointError, "no/such/folder"),
    ("load a missing file", lambda b: fg.load("no-such-file"), fg.CheckpointError, "no-such-file|No such file"),
    ("load a folder", lambda b: fg.load("."), fg.CorruptFileError, "not a regular file"),
    ("save below a missing folder", lambda b: b.layer.save("no/such/folder/f"), fg.CheckpointError, "No such file"),
    ("load a number", lambda b: fg.load(1.5), DType, "load: path must be a str or a path, got 1.5"),
]  # fmt: skip


def step_with(bench: Bench, **options: Any) -> None:
    group = bench.optimizer.param_groups[0]
    before = dict(group)
    group.update(options)
    try:
        bench.optimizer.step()
    finally:
        group.update(before)


def changed_state(bench: Bench, **values: Any) -> dict[str, Any]:
    state = bench.optimizer.state_dict()
    for key, value in values.items():
        target = state["param_groups"][0] if key in state["param_groups"][0] else state["state"][1]
        target[key] = value
    return state


def freed(bench: Bench) -> fg.Tensor:
    z = (bench.x * 2).exp().sum()
    fg.autograd.grad(z, bench.x)
    return z


class NoGate:
    """Lacks backward."""

    def forward(self, x: Any) -> Any:
        return x


class WrongGate(NoGate):
    """Answers with whatever it was given."""

    def __init__(self, output: Any = 1.0, gradient: Any = 1.0) -> None:
        self.output, self.gradient = output, gradient

    def forward(self, *x: Any) -> Any:
        return self.output

    def backward(self, dout: Any) -> Any:
        return self.gradient


def other_node() -> fg.Node:
    return fg.Graph().input("foreign")


def loop(bench: Bench) -> fg.Graph:
    g = fg.Graph()
    p = g.add("add", g.input("x"), None, name="p")
    g.connect(g.add("neg", p, name="q"), p, 1)
    g.output(p)
    return g


def wired(slot: int, op: str = "mul") -> fg.Graph:
    g = fg.Graph()
    a = g.input("a")
    node = g.add(op, a, a) if op == "mul" else g.add(op, a)
    g.connect(a, node, slot)
    g.output(node)
    return g


def evaluated(bench: Bench) -> fg.Graph:
    bench.graph.forward({"a": 2.0, "b": 3.0})
    return bench.graph


GRAPH: list[tuple[str, Call, type[Exception], str]] = [
    ("backward of several", lambda b: b.y.backward(), Graph, "scalar"),
    ("backward without gradients", lambda b: b.ints.sum().backward(), Graph, "require"),
    ("backward twice", lambda b: freed(b).backward(), Graph, "freed|second time"),
    ("grad twice", lambda b: fg.autograd.grad(freed(b), b.x), Graph, "freed|second time"),
    ("backward with a wrong gradient", lambda b: b.y.backward(np.ones(2)), Shape, "gradient"),
    ("backward with a text", lambda b: b.y.backward("ones"), DType, REAL),
    ("grad of an unused input", lambda b: fg.autograd.grad(b.y.sum(), b.layer.weight, retain_graph=True), Graph, "allow_unused"),
    ("grad of an input that needs none", lambda b: fg.autograd.grad(b.y.sum(), b.ints, retain_graph=True), Graph, "requires? (a|no) gradient|require"),
    ("grad of no tensor", lambda b: fg.autograd.grad(1.0, b.x), TypeError, "float"),
    ("grad for no tensor", lambda b: fg.autograd.grad(b.y.sum(), 1.0, retain_graph=True), TypeError, "float"),
    ("grad with too many cotangents", lambda b: fg.autograd.grad(b.y, b.x, [b.y, b.y], retain_graph=True), Graph, "grad: expected 1 grad_outputs, got 2"),
    ("grad of several without cotangent", lambda b: fg.autograd.grad(b.y, b.x, retain_graph=True), Graph, "scalar"),
    ("in place while recording", lambda b: b.x.add_(1), Graph, "no_grad"),
    ("augmented while recording", lambda b: augmented(b), Graph, "no_grad"),
    ("in place on a result", lambda b: b.y.zero_(), Graph, "only leaves can be changed"),
    ("set an item while recording", lambda b: b.x.__setitem__(0, 1.0), Graph, "no_grad"),
    ("flag of a result", lambda b: b.y.requires_grad_(False), Graph, "leaf|leaves"),
    ("gradient of another shape", lambda b: setattr(b.x, "grad", fg.ones(2)), Shape, "grad"),
    ("gradient that is text", lambda b: setattr(b.x, "grad", "a"), DType, REAL),
    ("write to what backward needs", lambda b: written(b), Graph, "changed|in place"),
    ("a node of another graph", lambda b: b.graph.add("neg", other_node()), Graph, "another graph"),
    ("connect another graph", lambda b: b.graph.connect(other_node(), b.product, 0), Graph, "another graph"),
    ("connect a slot that an op lacks", lambda b: wired(5).forward({"a": 1.0}), Graph, "mul"),
    ("output of another graph", lambda b: b.graph.output(other_node()), Graph, "another graph"),
    ("a name taken", lambda b: b.graph.add("neg", b.a, name="product"), Graph, "is taken"),
    ("an input taken", lambda b: b.graph.input("a"), Graph, "is taken"),
    ("no op of that name", lambda b: b.graph.add("mull", b.a), Graph, "is no op"),
    ("too many sources", lambda b: wired(1, "neg").forward({"a": 1.0}), Graph, "neg"),
    ("a gate without backward", lambda b: b.graph.add(NoGate(), b.a), Graph, "forward and backward"),
    ("gate of nothing", lambda b: fg.gate(None), Graph, "forward and backward"),
    ("a loop", lambda b: loop(b).forward({"x": 1.0}), fg.CycleError, "p -> q|q -> p"),
    ("a missing value", lambda b: b.graph.forward({"a": 1.0}), Graph, 'no value for input "b"'),
    ("an unknown value", lambda b: b.graph.forward({"a": 1.0, "b": 1.0, "c": 1.0}), Graph, 'no input "c"'),
    ("a value that is text", lambda b: b.graph.forward({"a": "x", "b": 1.0}), DType, REAL),
    ("values that do not fit", lambda b: b.graph.forward({"a": np.ones(2), "b": np.ones(3)}), Shape, "mul"),
    ("graph backward before forward", lambda b: b.graph.backward(), Graph, "backward before forward"),
    ("graph backward of a wrong shape", lambda b: evaluated(b).backward(np.ones(4)), Shape, "backward: expected a gradient of shape"),
    ("graph backward of two for one", lambda b: evaluated(b).backward((1.0, 1.0)), Graph, "expected 1 gradients"),
    ("a gate that returns text", lambda b: fg.gate(WrongGate("text"))(b.x), DType, REAL),
    ("a gate that returns None", lambda b: fg.gate(WrongGate(None))(b.x), DType, REAL),
    ("a gate's gradient of a wrong shape", lambda b: fg.gate(WrongGate(np.ones(2), np.ones(5)))(b.x).sum().backward(), Shape, "WrongGate"),
    ("a gate's gradients too many", lambda b: fg.gate(WrongGate(1.0, (1.0, 2.0)))(b.x).sum().backward(), Shape, "expected 1 gradients from WrongGate"),
    ("a gate's gradient of text", lambda b: fg.gate(WrongGate(1.0, "a"))(b.x).sum().backward(), DType, REAL),
    ("create_graph through a gate", lambda b: fg.autograd.grad(fg.gate(WrongGate(1.0, 1.0))(b.x).sum(), b.x, create_graph=True), Graph, "create_graph"),
]  # fmt: skip


def augmented(bench: Bench) -> None:
    x = bench.x
    x += 1


def written(bench: Bench) -> None:
    w = fg.ones(3, requires_grad=True)
    y = (w * w).sum()
    with fg.no_grad():
        w.mul_(2)
    y.backward()


FAMILIES = {"dtype": DTYPE, "layout": LAYOUT, "labels": LABELS, "config": CONFIG, "graph": GRAPH}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        pytest.param(call, error, text, id=f"{family}: {name}")
        for family, rows in FAMILIES.items()
        for name, call, error, text in rows
    ],
)
def test_bad_input_is_named_and_changes_nothing(call: Call, error: Any, text: str, tmp_path: Path) -> None:
    bench = Bench()
    before = bench.snapshot()
    with pytest.raises(error, match=text) as caught:
        call(bench)
    # Our own class, or the built-in that Python raises for an argument of a wrong kind.
    assert isinstance(caught.value, fg.FerrogradError | TypeError | OverflowError)
    assert not isinstance(caught.value, fg.InternalError)
    assert bench.snapshot() == before


def images(folder: Path) -> dict[str, Any]:
    """The same numbers in every dtype and layout that numpy has for them."""
    base = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    found: dict[str, Any] = {
        name: base.astype(name)
        for name in (
            "float16",
            "float32",
            "float64",
            "longdouble",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            ">f2",
            ">f4",
            ">f8",
            ">i2",
            ">i4",
            ">i8",
            ">u4",
            ">u8",
            "object",
        )
    }
    wide = np.zeros((4, 9))
    wide[::2, 1::3] = base
    found["steps"] = wide[::2, 1::3]
    found["negative strides"] = base[::-1, ::-1].copy()[::-1, ::-1]
    found["fortran"] = np.asfortranarray(base)
    found["transposed"] = base.T.copy().T
    found["unaligned"] = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view("f8").reshape(2, 3)
    found["read-only"] = base.copy()
    found["read-only"].flags.writeable = False
    np.save(folder / "base.npy", base)
    found["memmap r"] = np.load(folder / "base.npy", mmap_mode="r")
    found["memmap c"] = np.load(folder / "base.npy", mmap_mode="c")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        found["matrix"] = np.matrix(base)
    found["masked without a mask"] = np.ma.masked_array(base)
    found["record field"] = np.rec.fromarrays([base, base], names="a,b").a
    found["list"] = base.tolist()
    found["list of arrays"] = list(base)
    found["tuple of lists"] = tuple(base.tolist())
    found["list of tensors"] = [fg.tensor(row) for row in base]
    found["tensor"] = fg.tensor(base)
    found["tensor view"] = fg.tensor(base.T.copy()).T
    found["buffer of bytes"] = np.frombuffer(base.tobytes()).reshape(2, 3)
    return found


def test_every_dtype_and_layout_equals_the_contiguous_copy(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2).double()
    expected = layer(fg.tensor(np.arange(6.0).reshape(2, 3))).numpy()
    for name, data in images(tmp_path).items():
        tensor = fg.tensor(data)
        assert tensor.shape == (2, 3), name
        assert tensor.numpy().astype(float).tolist() == [[0, 1, 2], [3, 4, 5]], name
        assert tensor.numpy().flags.c_contiguous
        assert tensor.numpy().flags.writeable
        for found in (
            layer(fg.tensor(data).double()),
            fg.linear(fg.tensor(data, dtype=fg.float64), layer.weight, layer.bias),
        ):
            np.testing.assert_array_equal(found.numpy(), expected, err_msg=name)
        # As an operand, a gradient, a value that is written, and a state.
        x = fg.zeros(2, 3, dtype=fg.float64, requires_grad=True)
        np.testing.assert_array_equal((x + data).numpy(), tensor.numpy().astype(float), err_msg=name)
        x.backward(data)
        assert x.grad is not None
        assert x.grad.tolist() == [[0, 1, 2], [3, 4, 5]], name
        with fg.no_grad():
            x.copy_(data)
        assert x.tolist() == [[0, 1, 2], [3, 4, 5]], name
        other = nn.Linear(3, 2, bias=False)
        other.load_state_dict({"weight": data})
        assert other.weight.tolist() == [[0, 1, 2], [3, 4, 5]], name


DEFINED: list[tuple[str, Callable[[], Any], Any]] = [
    ("bool adds as a number", lambda: (fg.tensor([True, False]) + 1).tolist(), [2, 1]),
    (
        "uint8 wraps as numpy's",
        lambda: (fg.tensor(np.array([255], np.uint8)) + np.array([1], np.uint8)).tolist(),
        [0],
    ),
    ("int64 keeps 2**53 + 1", lambda: fg.tensor(2**53 + 1).item(), 2**53 + 1),
    ("uint64 below 2**63", lambda: fg.tensor(np.array([2**63 - 1], np.uint64)).tolist(), [2**63 - 1]),
    ("integers are promoted for a layer", lambda: fg.linear([[1, 2]], np.ones((1, 2))).tolist(), [[3.0]]),
    ("float16 becomes float32", lambda: fg.tensor(np.float16(1.5)).dtype.name, "float32"),
    ("longdouble becomes float64", lambda: fg.tensor(np.longdouble(1.5)).dtype.name, "float64"),
    ("an empty range", lambda: fg.arange(3, 0).shape, (0,)),
    ("an empty sum", lambda: fg.zeros(0).sum().item(), 0.0),
    ("an empty product of matrices", lambda: (fg.ones(2, 0) @ fg.ones(0, 3)).tolist(), [[0.0] * 3] * 2),
    ("a layer on no rows", lambda: nn.Linear(3, 2)(fg.zeros(0, 3)).shape, (0, 2)),
    ("a layer without inputs' gradient", lambda: nn.Linear(3, 2)(fg.zeros(0, 3)).sum().item(), 0.0),
    ("softmax of no rows", lambda: fg.zeros(0, 3).softmax(1).shape, (0, 3)),
    ("cat with an empty one", lambda: fg.cat([fg.zeros(0, 2), fg.ones(1, 2)]).tolist(), [[1.0, 1.0]]),
    ("all of nothing", lambda: fg.zeros(0).all().item(), True),
    ("slice past the end", lambda: fg.ones(3)[5:9].shape, (0,)),
    ("empty index", lambda: fg.ones(3)[[]].shape, (0,)),
    ("mask that holds nowhere", lambda: fg.ones(3)[fg.ones(3) > 2].shape, (0,)),
    ("NaN passes relu", lambda: str(fg.tensor(float("nan")).relu().item()), "nan"),
    ("NaN passes max", lambda: str(fg.tensor([1.0, float("nan"), 2.0]).max().item()), "nan"),
    ("NaN passes maximum", lambda: str(fg.tensor(1.0).maximum(float("nan")).item()), "nan"),
    ("NaN passes clamp", lambda: str(fg.tensor(float("nan")).clamp(0, 1).item()), "nan"),
    (
        "NaN passes matmul with zero",
        lambda: str((fg.zeros(1, 2) @ fg.tensor([[float("nan")], [0.0]])).item()),
        "nan",
    ),
    ("NaN passes a sum", lambda: str(fg.tensor([float("nan"), 1.0]).sum().item()), "nan"),
    ("NaN passes softmax", lambda: str(fg.tensor([float("nan"), 1.0]).softmax(0)[1].item()), "nan"),
    ("NaN is unlike itself", lambda: (fg.tensor(float("nan")) == float("nan")).item(), False),
    ("infinity minus infinity", lambda: str((fg.tensor(float("inf")) - float("inf")).item()), "nan"),
    ("log of zero", lambda: fg.tensor(0.0).log().item(), float("-inf")),
    ("log of a negative", lambda: str(fg.tensor(-1.0).log().item()), "nan"),
    ("one over zero", lambda: fg.tensor(0.0).reciprocal().item(), float("inf")),
    ("one over minus zero", lambda: fg.tensor(-0.0).reciprocal().item(), float("-inf")),
    ("exp overflows", lambda: fg.tensor(1e4).exp().item(), float("inf")),
    ("sigmoid far out", lambda: fg.tensor([-1e30, 1e30]).sigmoid().tolist(), [0.0, 1.0]),
    ("tanh of infinity", lambda: fg.tensor([float("-inf"), float("inf")]).tanh().tolist(), [-1.0, 1.0]),
    (
        "logsumexp of huge numbers",
        lambda: fg.tensor([1e30, 1e30]).logsumexp(0).item(),
        fg.tensor(1e30).item(),
    ),
    ("softmax of huge numbers", lambda: fg.tensor([1e30, -1e30]).softmax(0).tolist(), [1.0, 0.0]),
    ("a denormal is kept", lambda: (fg.tensor(np.float32(1e-45)) * 1).item(), float(np.float32(1e-45))),
    ("a denormal is reached", lambda: (fg.tensor(np.float64(2.0**-1070)) / 16).item(), 2.0**-1074),
    ("minus zero is kept", lambda: str(fg.tensor([-0.0]).tolist()), "[-0.0]"),
    ("float32 overflow is infinite", lambda: (fg.tensor(3e38) * 2).item(), float("inf")),
    (
        "mean of huge numbers in float64",
        lambda: fg.tensor(np.array([1e308, 1e308])).mean().item(),
        float("inf"),
    ),
    ("integer power", lambda: (fg.tensor([2]) ** 62).tolist(), [2**62]),
    ("integer division", lambda: (fg.tensor([1]) / 2).tolist(), [0.5]),
    ("division by zero", lambda: str((fg.tensor([1, 0]) / 0).tolist()), "[inf, nan]"),
    (
        "a lone ignored label",
        lambda: str(nn.CrossEntropyLoss()(fg.ones(1, 2), fg.tensor([-100])).item()),
        "nan",
    ),
    ("one class", lambda: nn.CrossEntropyLoss()(fg.ones(2, 1), fg.tensor([0, 0])).item(), 0.0),
    ("labels as uint8", lambda: nn.CrossEntropyLoss()(fg.zeros(1, 1), np.array([0], np.uint8)).item(), 0.0),
    (
        "ignored labels as int64",
        lambda: nn.CrossEntropyLoss()(fg.zeros(2, 1), fg.tensor([0, -100])).item(),
        0.0,
    ),
    ("dropout of everything", lambda: nn.functional.dropout(fg.ones(3), 1.0).tolist(), [0.0] * 3),
    ("dropout of nothing", lambda: nn.functional.dropout(fg.ones(3), 0.0).tolist(), [1.0] * 3),
]


@pytest.mark.parametrize(("call", "expected"), [pytest.param(*row[1:], id=row[0]) for row in DEFINED])
def test_strange_values_have_defined_results(call: Callable[[], Any], expected: Any) -> None:
    with np.errstate(all="raise"):
        assert call() == expected


def test_zero_strides_and_empty_shapes_equal_their_copies() -> None:
    for values in (
        np.broadcast_to(np.arange(3.0), (4, 3)), np.broadcast_to(2.0, (2, 3)), np.array(1.5), np.float32(1.5),
        np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((0, 0)), np.zeros(0), np.zeros((2, 0, 4)),
    ):  # fmt: skip
        tensor = fg.tensor(values)
        assert tensor.shape == np.shape(values)
        np.testing.assert_array_equal(tensor.numpy(), np.array(values))
        np.testing.assert_array_equal((tensor * 2 + 1).numpy(), np.array(values) * 2 + 1)
        assert tensor.sum().item() == np.sum(values)
