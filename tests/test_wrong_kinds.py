"""Arguments of a wrong kind: whatever is put in the place of an argument, the error is one of ours and named.

Each argument of each call below is replaced, one at a time, by what it cannot be, or can be. A call that
fails must raise an error of the library, whose message names the argument or the call, and shows no Rust.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd.nn import functional as F
from op_table import TABLE, Sample
from test_catalogue import LAYERS, LOSSES, Around, Probabilities, X

Make = Callable[[], list[Any]]


class Odd:
    """No number and no sequence."""


WRONG: dict[str, Any] = {
    "None": None,
    "text": "abc",
    "a fraction": 1.5,
    "NaN": float("nan"),
    "negative": -99,
    "beyond 64 bits": 2**70,
    "an object": Odd(),
    "texts": ["a", "b"],
    "a matrix": fg.ones(2, 2),
    "integers": fg.tensor([7, 8, 9]),
    "a dict": {"q": 1},
    "fractions": [1.5, 2.5],
    "a bool": True,
    "nothing": [],
    "negatives": [-5, -6],
    "too many": [1] * 12,
}


def f64(*shape: int) -> fg.Tensor:
    return fg.tensor((np.arange(int(np.prod(shape)), dtype=float).reshape(shape) + 1) / 10)


def parameters() -> list[fg.Tensor]:
    weight = f64(2, 3).requires_grad_()
    weight.square().sum().backward()
    return [weight]


def sgd() -> optim.SGD:
    return optim.SGD(parameters(), lr=0.1, momentum=0.9)


def schedules() -> list[Any]:
    optimizer = sgd()
    return [optim.lr_scheduler.ConstantLR(optimizer), optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


def total(x: fg.Tensor) -> fg.Tensor:
    return (x * x).sum()


def leaf() -> fg.Tensor:
    return f64(2).requires_grad_()


def model() -> nn.Linear:
    return nn.Linear(3, 2)


def trainer() -> fg.Trainer:
    made = model()
    return fg.Trainer(made, nn.MSELoss(), optim.SGD(made.parameters(), lr=0.01))


ROWS, TARGETS = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
LABELS = fg.tensor([0, 2])
# The function and arguments that it takes.
CALLS: dict[str, tuple[Callable[..., Any], Make]] = {}


def add(prefix: str, space: Any, made: dict[str, Make]) -> None:
    for name, make in made.items():
        CALLS[f"{prefix}{name}"] = (getattr(space, name), make)


for op, row in TABLE.items():
    sample = row.samples[0]
    if not sample.options:

        def given(sample: Sample = sample) -> list[Any]:
            return [fg.tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in sample.args]

        if callable(getattr(row.home, op, None)):
            CALLS[op] = (getattr(row.home, op), given)
        if row.is_method:
            CALLS[f"Tensor.{op}"] = (getattr(fg.Tensor, op), given)
CURVES = (
    "celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 rrelu "
    "selu sigmoid silu softplus softshrink softsign tanh tanhshrink dropout"
)
PAIRS = (
    "mse_loss l1_loss smooth_l1_loss huber_loss kl_div half_squared_error log_cosh_loss margin_loss "
    "hinge_embedding_loss soft_margin_loss poisson_nll_loss binary_cross_entropy "
    "binary_cross_entropy_with_logits multilabel_soft_margin_loss"
)
CLASSES = "cross_entropy nll_loss multi_margin_loss multiclass_hinge_loss"
add("F.", F, {name: lambda: [f64(2, 4)] for name in CURVES.split()})
add("F.", F, {name: lambda: [f64(2, 3), f64(2, 3)] for name in PAIRS.split()})
add("F.", F, {name: lambda: [f64(2, 3), LABELS] for name in CLASSES.split()})
add("F.", F, {name: lambda: [f64(2, 3), 1] for name in ("softmax", "log_softmax", "softmin")})
add(
    "F.",
    F,
    {
        "threshold": lambda: [f64(2, 3), 0.1, 0.2],
        "prelu": lambda: [f64(2, 3), f64(1)],
        "maxout": lambda: [f64(2, 4), 2],
        "linear": lambda: [f64(2, 3), f64(4, 3), f64(4)],
        "one_hot": lambda: [LABELS, 4],
        "pad": lambda: [f64(2, 3), (1, 1)],
        "embedding": lambda: [LABELS, f64(4, 3)],
        "multilabel_margin_loss": lambda: [f64(1, 3), fg.tensor([[0, -1, -1]])],
        "cosine_embedding_loss": lambda: [f64(2, 3), f64(2, 3), f64(2).sign()],
        "margin_ranking_loss": lambda: [f64(2, 3), f64(2, 3), f64(2, 3).sign()],
        "gaussian_nll_loss": lambda: [f64(2, 3), f64(2, 3), f64(2, 3)],
        "triplet_margin_loss": lambda: [f64(2, 3), f64(2, 3), f64(2, 3)],
        "quantile_loss": lambda: [f64(2, 3), f64(2), [0.1, 0.5, 0.9]],
        "l2_penalty": lambda: [[f64(2, 2)], 0.1],
    },
)
SIZES: dict[str, tuple[Any, ...]] = {
    **{name: (3,) for name in ("Add", "BatchNorm1d", "Bias", "CMul", "LayerNorm", "RMSNorm", "Scale")},
    **{name: (0.1,) for name in ("AddConstant", "GaussianNoise", "Inc", "L1Penalty", "MulConstant")},
    **{name: (4, 3) for name in ("Embedding", "Linear", "RandomDAG", "SparseLinear")},
    "Bilinear": (2, 3, 4),
    "Maxout": (3, 2, 2),
    "Power": (2,),
    "SelectTable": (0,),
    "Threshold": (0.1, 0.2),
}
CONTAINERS = ("Concat", "Parallel", "Residual", "Sequential", "MapTable")
for kind in nn.__all__:
    cls = getattr(nn, kind)
    if not isinstance(cls, type) or kind in ("Module", "Parameter", "Loss"):
        continue
    if kind in CONTAINERS:
        CALLS[f"nn.{kind}"] = (cls, lambda: [model()])
    elif kind in ("MultiCriterion", "ParallelCriterion"):
        CALLS[f"nn.{kind}"] = (cls, lambda: [nn.MSELoss()])
    else:
        CALLS[f"nn.{kind}"] = (cls, lambda kind=kind: list(SIZES.get(kind, ())))  # type: ignore[misc]
for name in nn.init.__all__:
    more = {"constant_": [0.5], "sparse_": [0.5]}.get(name, [])
    first: Make = (lambda: ["relu"]) if name == "calculate_gain" else (lambda m=more: [fg.zeros(4, 4), *m])  # type: ignore[misc]
    CALLS[f"init.{name}"] = (getattr(nn.init, name), first)
add(
    "utils.",
    nn.utils,
    {
        "clip_grad_norm_": lambda: [parameters(), 1.0],
        "clip_grad_value_": lambda: [parameters(), 1.0],
        "parameters_to_vector": lambda: [parameters()],
        "vector_to_parameters": lambda: [f64(6), parameters()],
    },
)
add(
    "Module.",
    nn.Module,
    {
        "add_module": lambda: [nn.Sequential(model()), "a", nn.ReLU()],
        "apply": lambda: [model(), lambda module: None],
        "load_state_dict": lambda: [model(), model().state_dict()],
        "register_buffer": lambda: [model(), "b", f64(2)],
        "register_parameter": lambda: [model(), "p", nn.Parameter(f64(2))],
        "save": lambda: [model(), "/nowhere/model.safetensors"],
        "load": lambda: [model(), "/nowhere/model.safetensors"],
    },
)
OPTIMIZERS = [
    name
    for name in optim.__all__
    if isinstance(getattr(optim, name), type)
    and issubclass(getattr(optim, name), optim.Optimizer)
    and name != "Optimizer"
]
add("optim.", optim, {name: lambda: [parameters()] for name in OPTIMIZERS})
add("", fg, {"set_rng_state": lambda: [fg.get_rng_state()], "manual_seed": lambda: [3]})
add("Generator.", fg.Generator, {"set_state": lambda: [fg.Generator(), fg.get_rng_state()]})
add("Optimizer.", optim.Optimizer, {"step": lambda: [sgd()]})
add(
    "lr_scheduler.",
    optim.lr_scheduler,
    {
        "StepLR": lambda: [sgd(), 3],
        "MultiStepLR": lambda: [sgd(), [1, 3]],
        "ExponentialLR": lambda: [sgd(), 0.9],
        "CosineAnnealingLR": lambda: [sgd(), 5],
        "CosineAnnealingWarmRestarts": lambda: [sgd(), 5],
        "OneCycleLR": lambda: [sgd(), 0.1, 10],
        "CyclicLR": lambda: [sgd(), 0.1, 0.2],
        "WarmupCosineLR": lambda: [sgd(), 2, 10],
        "LinearLR": lambda: [sgd()],
        "ConstantLR": lambda: [sgd()],
        "PolynomialLR": lambda: [sgd()],
        "ReduceLROnPlateau": lambda: [sgd()],
        "ChainedScheduler": lambda: [schedules()],
    },
)
add(
    "autograd.",
    fg.autograd,
    {
        "grad": lambda: [total(x := leaf()), x],
        "gradcheck": lambda: [total, leaf()],
        "gradgradcheck": lambda: [total, leaf()],
        "numeric_gradient": lambda: [total, leaf()],
        "set_grad_enabled": lambda: [True],
    },
)
add(
    "functional.",
    fg.autograd.functional,
    {
        **{name: lambda: [total, leaf()] for name in ("hessian", "jacobian", "vjp")},
        **{name: lambda: [total, leaf(), f64(2)] for name in ("hvp", "jvp", "vhp")},
    },
)
for name in ("grad", "value_and_grad", "jacobian", "hessian", "vmap"):
    transform = getattr(fg.func, name)

    def applied(*args: Any, transform: Any = transform, **options: Any) -> Any:
        return transform(*args, **options)(f64(2))

    applied.__signature__ = inspect.signature(transform)  # type: ignore[attr-defined]
    CALLS[f"func.{name}"] = (applied, lambda: [total])
add(
    "func.",
    fg.func,
    {
        "jvp": lambda: [total, (leaf(),), (f64(2),)],
        "vjp": lambda: [fg.square, leaf()],
        "hvp": lambda: [total, (leaf(),), (f64(2),)],
        "vhp": lambda: [total, (leaf(),), f64(1)[0]],
    },
)
add(
    "",
    fg,
    {
        **{name: lambda: [2, 3] for name in ("zeros", "ones", "empty", "rand", "randn")},
        "full": lambda: [(2,), 1.0],
        "arange": lambda: [0, 3, 1],
        "linspace": lambda: [0, 1, 3],
        "eye": lambda: [2],
        "randint": lambda: [0, 3, (2,)],
        **{name: lambda: [f64(2)] for name in ("empty_like", "rand_like", "randn_like")},
        "full_like": lambda: [f64(2), 1.0],
        "randint_like": lambda: [f64(2), 0, 3],
        "zeros_like": lambda: [f64(2)],
        "anomaly_mode": lambda: [False],
        "load": lambda: ["/nowhere/model.safetensors"],
    },
)
add(
    "Tensor.",
    fg.Tensor,
    {
        "backward": lambda: [total(leaf()), fg.tensor(1.0, dtype=fg.float64)],
        "reshape": lambda: [f64(2, 3), 6],
        "view": lambda: [f64(2, 3), 6],
        "expand": lambda: [f64(2, 3), 2, 3],
        "permute": lambda: [f64(2, 3), 1, 0],
        "transpose": lambda: [f64(2, 3), 0, 1],
        "unsqueeze": lambda: [f64(2, 3), 0],
        "squeeze": lambda: [f64(2, 3), 0],
        "flatten": lambda: [f64(2, 3)],
        "broadcast_to": lambda: [f64(2, 3), (2, 3)],
        "uniform_": lambda: [f64(2, 3)],
        "normal_": lambda: [f64(2, 3)],
        "fill_": lambda: [f64(2, 3), 1.0],
        "copy_": lambda: [f64(2, 3), f64(2, 3)],
        "requires_grad_": lambda: [f64(2)],
        "register_hook": lambda: [leaf(), lambda grad: None],
        "size": lambda: [f64(2), 0],
    },
)
add(
    "Trainer.",
    fg.Trainer,
    {
        "train_step": lambda: [trainer(), ROWS, TARGETS],
        "evaluate": lambda: [trainer(), ROWS, TARGETS],
        "predict": lambda: [trainer(), ROWS],
        "save": lambda: [trainer(), "/nowhere/trainer.safetensors"],
        "load": lambda: [trainer(), "/nowhere/trainer.safetensors"],
    },
)


def without(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function as if it had no such argument."""

    def shortened(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    signature = inspect.signature(function)
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != name]
    shortened.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return shortened


# As many epochs as there may be are no error.
CALLS["Trainer.fit"] = (without(fg.Trainer.fit, "epochs"), lambda: [trainer(), ROWS, TARGETS])
CALLS["Trainer"] = (fg.Trainer, lambda: [one := model(), nn.MSELoss(), optim.SGD(one.parameters(), lr=0.1)])
for kind, (build, _) in LAYERS.items():
    # The others are called by functions of the tests.
    if not isinstance(build(), Around):

        def called(input: Any, build: Any = build) -> Any:
            return build().double()(input)

        CALLS[f"call.{kind}"] = (without(called, "build"), lambda: [fg.tensor(X)])
for kind, (loss, target) in LOSSES.items():
    if isinstance(loss, nn.Loss) and not isinstance(loss, Probabilities):

        def lost(input: Any, target: Any, loss: nn.Loss = loss) -> Any:
            return loss(input, target)

        pair: Make = lambda t=target: [fg.tensor(X), fg.tensor(np.ascontiguousarray(t))]  # type: ignore[misc]  # noqa: E731
        CALLS[f"call.{kind}"] = (without(lost, "loss"), pair)


def graph() -> list[Any]:
    made = fg.Graph()
    made.output(made.add("exp", made.input("a")))
    return [made, {"a": 1.0}]


add(
    "Graph.",
    fg.Graph,
    {
        "input": lambda: [fg.Graph(), "a"],
        "add": lambda: [made := fg.Graph(), "exp", made.input("a")],
        "output": lambda: [made := fg.Graph(), made.input("a")],
        "forward": graph,
    },
)


def complaint_of(call: str, argument: str, run: Callable[[], Any]) -> str | None:
    """What is wrong with the error that `run` raises; None if nothing is."""
    try:
        with warnings.catch_warnings(action="ignore"):
            run()
    except (fg.CheckpointError, MemoryError):
        return None
    except fg.FerrogradError as error:
        text = str(error)
        # What does not fit may show in an operation inside, which the message then begins with.
        is_named = argument in text or call in text or re.match(r"(?!array:)[A-Za-z_]+: ", text) is not None
        is_clean = not isinstance(error, fg.InternalError) and not re.search(r"\d\.\.[\d=]|Some\(", text)
        return None if is_named and is_clean else f"{type(error).__name__}: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_kind_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A wrong value may be a right name of a file.
    monkeypatch.chdir(tmp_path)
    function, make = CALLS[name]
    own = name.rpartition(".")[2]
    is_method = name.split(".")[0] in (
        "Tensor",
        "Module",
        "Optimizer",
        "Graph",
        "Generator",
    ) or name.startswith("Trainer.")
    places = list(enumerate(inspect.signature(function).parameters.values()))
    assert len(places) >= len(make()) or places[-1][1].kind is inspect.Parameter.VAR_POSITIONAL
    for position, parameter in places[1:] if is_method else places:
        for what, value in WRONG.items():
            args, options = make(), {}
            if parameter.kind is inspect.Parameter.VAR_KEYWORD or parameter.name.startswith("_"):
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args[position:] = [value]
            elif position < len(args) and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                args[position] = value
            else:
                options[parameter.name] = value
            complaint = complaint_of(
                own, parameter.name, lambda args=args, options=options: function(*args, **options)
            )
            assert complaint is None, f"{parameter.name}: {what}: {complaint}"
