"""Names, order and defaults of functions are PyTorch 2.13's: `nn.functional`, `nn.init`, `autograd`, `ops`.

Modules, optimizers and schedules are compared in `test_catalogue.py` and `test_optim_plan.py`, training tools
in `test_training_tools.py`. What follows was written down from PyTorch, without ``size_average`` and
``reduce``, which it calls legacy, ``inplace``, ``_stacklevel`` and ``out``. Ours may go on behind.
"""

import inspect
from typing import Any

import pytest

import ferrograd as fg

REDUCED = "input, target, reduction='mean'"
FUNCTIONAL = {
    "binary_cross_entropy": "input, target, weight=None, reduction='mean'",
    "binary_cross_entropy_with_logits": "input, target, weight=None, reduction='mean', pos_weight=None",
    "celu": "input, alpha=1.0",
    "cosine_embedding_loss": "input1, input2, target, margin=0, reduction='mean'",
    "cross_entropy": "input, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0",
    "dropout": "input, p=0.5, training=True",
    "elu": "input, alpha=1.0",
    "embedding": (
        "input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, "
        "sparse=False"
    ),
    "gaussian_nll_loss": "input, target, var, full=False, eps=1e-06, reduction='mean'",
    "gelu": "input, approximate='none'",
    "glu": "input, dim=-1",
    "hardshrink": "input, lambd=0.5",
    "hardsigmoid": "input",
    "hardswish": "input",
    "hardtanh": "input, min_val=-1.0, max_val=1.0",
    "hinge_embedding_loss": "input, target, margin=1.0, reduction='mean'",
    "huber_loss": "input, target, reduction='mean', delta=1.0, weight=None",
    "kl_div": "input, target, reduction='mean', log_target=False",
    "l1_loss": f"{REDUCED}, weight=None",
    "leaky_relu": "input, negative_slope=0.01",
    "linear": "input, weight, bias=None",
    "logsigmoid": "input",
    "margin_ranking_loss": "input1, input2, target, margin=0, reduction='mean'",
    "mish": "input",
    "mse_loss": f"{REDUCED}, weight=None",
    "multi_margin_loss": "input, target, p=1, margin=1.0, weight=None, reduction='mean'",
    "multilabel_margin_loss": REDUCED,
    "multilabel_soft_margin_loss": "input, target, weight=None, reduction='mean'",
    "nll_loss": "input, target, weight=None, ignore_index=-100, reduction='mean'",
    "one_hot": "tensor, num_classes=-1",
    "pad": "input, pad, mode='constant', value=None",
    "poisson_nll_loss": "input, target, log_input=True, full=False, eps=1e-08, reduction='mean'",
    "prelu": "input, weight",
    "relu": "input",
    "relu6": "input",
    "rrelu": f"input, lower={1 / 8}, upper={1 / 3}, training=False",
    "selu": "input",
    "sigmoid": "input",
    "silu": "input",
    "smooth_l1_loss": "input, target, reduction='mean', beta=1.0",
    "soft_margin_loss": REDUCED,
    "softplus": "input, beta=1.0, threshold=20.0",
    "softshrink": "input, lambd=0.5",
    "softsign": "input",
    "tanh": "input",
    "tanhshrink": "input",
    "threshold": "input, threshold, value",
    "triplet_margin_loss": (
        "anchor, positive, negative, margin=1.0, p=2, eps=1e-06, swap=False, reduction='mean'"
    ),
    # PyTorch guesses a `dim` that is not given, which it says is deprecated.
    **{name: "input, dim, dtype=None" for name in ("softmax", "log_softmax", "softmin")},
}
OWN_FUNCTIONAL = {
    *("half_squared_error", "l2_penalty", "log_cosh_loss", "margin_loss", "maxout", "multiclass_hinge_loss"),
    "quantile_loss",
}

KAIMING = "tensor, a=0, mode='fan_in', nonlinearity='leaky_relu', generator=None"
INIT = {
    "calculate_gain": "nonlinearity, param=None",
    "constant_": "tensor, val",
    "eye_": "tensor",
    "kaiming_normal_": KAIMING,
    "kaiming_uniform_": KAIMING,
    "normal_": "tensor, mean=0.0, std=1.0, generator=None",
    "ones_": "tensor",
    "orthogonal_": "tensor, gain=1, generator=None",
    "sparse_": "tensor, sparsity, std=0.01, generator=None",
    "trunc_normal_": "tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None",
    "uniform_": "tensor, a=0.0, b=1.0, generator=None",
    "xavier_normal_": "tensor, gain=1.0, generator=None",
    "xavier_uniform_": "tensor, gain=1.0, generator=None",
    "zeros_": "tensor",
}

CHECK = "*, eps=1e-06, atol=1e-05, rtol=0.001, raise_exception=True, nondet_tol=0.0, fast_mode=False"
AUTOGRAD = {
    "grad": (
        "outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, allow_unused=None, "
        "is_grads_batched=False, materialize_grads=False"
    ),
    "gradcheck": f"func, inputs, {CHECK}",
    "gradgradcheck": f"func, inputs, grad_outputs=None, {CHECK}",
    "enable_grad": "",
    "no_grad": "",
    "set_grad_enabled": "mode",
    "is_grad_enabled": "",
}
OWN_AUTOGRAD = {
    "Function",
    "once_differentiable",
    "FunctionContext",
    "GradcheckError",
    "NumericGradient",
    "functional",
    "numeric_gradient",
}

ONE = [
    *("abs", "ceil", "clone", "cos", "erf", "exp", "expm1", "floor", "log", "log1p", "logical_not", "neg"),
    *("numel", "reciprocal", "relu", "sigmoid", "sign", "sin", "sqrt", "square", "t", "tanh"),
]
TWO = ["div", "dot", "eq", "ge", "gt", "le", "lt", "matmul", "maximum", "minimum", "mul", "ne"]
OVER = ["all", "amax", "amin", "any", "argmax", "argmin", "max", "mean", "min", "prod", "sum"]
OPS = {
    **dict.fromkeys(ONE, "input"),
    **dict.fromkeys(TWO, "input, other"),
    **dict.fromkeys(OVER, "input, dim=None, keepdim=False"),
    **dict.fromkeys(("add", "sub"), "input, other, *, alpha=1"),
    **dict.fromkeys(("cat", "stack"), "tensors, dim=0"),
    **dict.fromkeys(("index_select", "gather"), "input, dim, index"),
    "argsort": "input, dim=-1, descending=False, stable=False",
    "as_tensor": "data, dtype=None, device=None",
    "bmm": "input, mat2",
    "broadcast_to": "input, size",
    "chunk": "input, chunks, dim=0",
    "clamp": "input, min=None, max=None",
    "cumprod": "input, dim, dtype=None",
    "cumsum": "input, dim, dtype=None",
    "einsum": "equation, *operands",
    "elu": FUNCTIONAL["elu"],
    "flatten": "input, start_dim=0, end_dim=-1",
    "flip": "input, dims",
    "heaviside": "input, values",
    "leaky_relu": FUNCTIONAL["leaky_relu"],
    "linear": FUNCTIONAL["linear"],
    "log_softmax": "input, dim",
    "logsumexp": "input, dim, keepdim=False",
    "masked_select": "input, mask",
    "mm": "input, mat2",
    "mv": "input, vec",
    "narrow": "input, dim, start, length",
    "norm": "input, p='fro', dim=None, keepdim=False, dtype=None",
    "permute": "input, dims",
    "pow": "input, exponent",
    "prelu": "input, weight",
    "reshape": "input, shape",
    "roll": "input, shifts, dims=None",
    "round": "input, *, decimals=0",
    "scatter_add": "input, dim, index, src",
    "select": "input, dim, index",
    "softmax": "input, dim, dtype=None",
    "softplus": FUNCTIONAL["softplus"],
    "sort": "input, dim=-1, descending=False, stable=False",
    "split": "tensor, split_size_or_sections, dim=0",
    "squeeze": "input, dim=None",
    "topk": "input, k, dim=-1, largest=True, sorted=True",
    "transpose": "input, dim0, dim1",
    "unsqueeze": "input, dim",
    "where": "condition, input, other",
    # Its older form, which it still takes, with the newer keyword.
    **dict.fromkeys(("std", "var"), "input, dim=None, unbiased=True, keepdim=False, *, correction=None"),
}
OWN_OPS = {"maxout"}

# Not here: conversions on the way, factors of losses that `nn` has as sample weights, batches of gradients.
ABSENT = {"dtype", "weight", "is_grads_batched", "materialize_grads"}

RANDOM = {"get_rng_state": "", "manual_seed": "seed", "set_rng_state": "new_state"}

SPACES = {
    "random": (fg.random, RANDOM, {"fork_rng"}),
    "nn.functional": (fg.nn.functional, FUNCTIONAL, OWN_FUNCTIONAL),
    "nn.init": (fg.nn.init, INIT, set()),
    "autograd": (fg.autograd, AUTOGRAD, OWN_AUTOGRAD),
    "ops": (fg.ops, OPS, OWN_OPS),
}
ROWS: list[tuple[str, str]] = [(space, name) for space, (_, names, _) in SPACES.items() for name in names]


def parameters_of(function: Any) -> list[tuple[str, Any, Any]]:
    """Name, kind and default of each parameter, also of those that cannot be given by name."""
    kinds = {inspect.Parameter.POSITIONAL_ONLY: inspect.Parameter.POSITIONAL_OR_KEYWORD}
    found = inspect.signature(function).parameters.values()
    return [(p.name, kinds.get(p.kind, p.kind), p.default) for p in found]


def recorded(text: str) -> list[tuple[str, Any, Any]]:
    scope: dict[str, Any] = {}
    exec(f"def function({text}): pass", scope)
    return parameters_of(scope["function"])


@pytest.mark.parametrize("space", SPACES)
def test_every_public_name_is_recorded(space: str) -> None:
    home, names, own = SPACES[space]
    assert set(home.__all__) == set(names) | own
    assert not set(names) & own


@pytest.mark.parametrize(("space", "name"), ROWS)
def test_names_order_and_defaults_are_pytorchs(space: str, name: str) -> None:
    home, names, _ = SPACES[space]
    ours, theirs = parameters_of(getattr(home, name)), recorded(names[name])
    shared = min(len(ours), len(theirs))
    assert ours[:shared] == theirs[:shared]
    assert {parameter for parameter, *_ in theirs[shared:]} <= ABSENT


def test_tensor_methods_of_autograd() -> None:
    backward = [("gradient", None), ("retain_graph", None), ("create_graph", False), ("inputs", None)]
    found = inspect.signature(fg.Tensor.backward).parameters.values()
    assert [(p.name, p.default) for p in found][1:] == backward
