"""Every public layer and loss: trains in a plan as it does eagerly, has right gradients of both orders, and
PyTorch's names and defaults."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.autograd import gradcheck, gradgradcheck

# A power of two: a trainer multiplies a loss by its rows and divides the sum by them.
ROWS, WIDTH, STEPS = 16, 6, 4
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, WIDTH))
TARGET = RNG.normal(size=(ROWS, 3))
LABELS = RNG.integers(0, WIDTH, ROWS)
SIGNS = np.where(RNG.random((ROWS, WIDTH)) < 0.5, -1.0, 1.0)
SHARES = RNG.random((ROWS, WIDTH))
SHARES /= SHARES.sum(1, keepdims=True)
CSR_PAIRS = np.stack([RNG.integers(0, 9, (ROWS, 4)).astype(float), RNG.normal(size=(ROWS, 4))], axis=2)
WEIGHTS = RNG.random(WIDTH) + 0.5
# Not layers and not losses.
BASES = {"Module", "ModuleList", "Loss", "Parameter", "functional", "init", "utils"}


class Around(nn.Module):
    """A layer, called by a function of the layer and the input."""

    def __init__(self, layer: nn.Module, call: Callable[[Any, fg.Tensor], fg.Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, input: fg.Tensor) -> fg.Tensor:
        return self.call(self.layer, input)


# The layer stands behind Linear(6, 6) and gives so many features; those that draw are in RANDOM.
LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "Add": (lambda: nn.Add(WIDTH), 6),
    "AddConstant": (lambda: nn.AddConstant(0.5), 6),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(WIDTH), 6),
    "Bias": (lambda: nn.Bias(WIDTH), 6),
    "Bilinear": (lambda: Around(nn.Bilinear(2, 4, 5), lambda layer, x: layer(x[:, :2], x[:, 2:])), 5),
    "CELU": (lambda: nn.CELU(1.3), 6),
    "CMul": (lambda: nn.CMul(WIDTH), 6),
    "Concat": (lambda: nn.Concat(nn.Linear(WIDTH, 2), nn.Sequential(nn.Linear(WIDTH, 3), nn.Tanh())), 5),
    "ELU": (nn.ELU, 6),
    "Flatten": (nn.Flatten, 6),
    "GELU": (lambda: nn.Sequential(nn.GELU(), nn.GELU("tanh")), 6),
    "GLU": (nn.GLU, 3),
    "GradientReversal": (lambda: nn.GradientReversal(0.5), 6),
    "Hardshrink": (nn.Hardshrink, 6),
    "Hardsigmoid": (nn.Hardsigmoid, 6),
    "Hardswish": (nn.Hardswish, 6),
    "Hardtanh": (nn.Hardtanh, 6),
    "Identity": (nn.Identity, 6),
    "Inc": (lambda: nn.Inc(0.5), 6),
    "L1Penalty": (lambda: nn.L1Penalty(0.1), 6),
    "LayerNorm": (lambda: nn.LayerNorm(WIDTH), 6),
    "LeakyReLU": (nn.LeakyReLU, 6),
    "Linear": (lambda: nn.Linear(WIDTH, 4), 4),
    "LogSigmoid": (nn.LogSigmoid, 6),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), 6),
    "MapTable": (
        lambda: Around(
            nn.MapTable(nn.Linear(3, 2)), lambda layer, x: fg.cat(layer([x[:, :3], x[:, 3:].tanh()]), 1)
        ),
        4,
    ),
    "Maxout": (lambda: nn.Maxout(WIDTH, 4, 3), 4),
    "Mish": (nn.Mish, 6),
    "MixtureTable": (
        lambda: Around(
            nn.MixtureTable(), lambda layer, x: layer((x[:, :2].softmax(1), [x[:, 2:5], x[:, 3:].tanh()]))
        ),
        3,
    ),
    "Mul": (nn.Mul, 6),
    "MulConstant": (lambda: nn.MulConstant(-2.0), 6),
    "PReLU": (lambda: nn.PReLU(WIDTH), 6),
    "Parallel": (
        lambda: Around(
            nn.Parallel(nn.Linear(3, 2), nn.Linear(3, 4)), lambda layer, x: layer(x.reshape(-1, 2, 3))
        ),
        6,
    ),
    "Power": (lambda: nn.Power(3), 6),
    "RMSNorm": (lambda: nn.RMSNorm(WIDTH), 6),
    "RandomDAG": (lambda: nn.RandomDAG(WIDTH, 4, nodes=12, width=5, p=0.3), 4),
    "ReLU": (nn.ReLU, 6),
    "ReLU6": (nn.ReLU6, 6),
    "Residual": (lambda: nn.Residual(nn.Linear(WIDTH, WIDTH), nn.Tanh()), 6),
    "SELU": (nn.SELU, 6),
    "Scale": (lambda: nn.Scale(WIDTH), 6),
    "SelectTable": (
        lambda: Around(nn.SelectTable(-1), lambda layer, x: layer([x[:, :2], x[:, 2:].sin()])),
        4,
    ),
    "Sequential": (lambda: nn.Sequential(nn.Linear(WIDTH, 4), nn.Sigmoid()), 4),
    "SiLU": (nn.SiLU, 6),
    "Sigmoid": (nn.Sigmoid, 6),
    "Softmax": (lambda: nn.Softmax(1), 6),
    "Softmin": (lambda: nn.Softmin(1), 6),
    "Softplus": (nn.Softplus, 6),
    "Softshrink": (nn.Softshrink, 6),
    "Softsign": (nn.Softsign, 6),
    "Tanh": (nn.Tanh, 6),
    "Tanhshrink": (nn.Tanhshrink, 6),
    "Threshold": (lambda: nn.Threshold(0.1, -0.5), 6),
}
# Layers whose input is not the result of another one.
FIRST: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "Embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 2, padding_idx=3), nn.Flatten()),
        RNG.integers(0, 7, (ROWS, 3)).astype(float),
    ),
    "SparseLinear": (lambda: nn.SparseLinear(9, WIDTH), CSR_PAIRS),
}
RANDOM: dict[str, Callable[[], nn.Module]] = {
    "AlphaDropout": lambda: nn.AlphaDropout(0.3),
    "Dropout": lambda: nn.Dropout(0.3),
    "GaussianNoise": lambda: nn.GaussianNoise(0.3),
    "RReLU": lambda: nn.RReLU(0.1, 0.6),
}


def halves(loss: nn.Loss) -> Callable[..., fg.Tensor]:
    return lambda x, target: loss(x[:, :3], x[:, 3:], target)


def thirds(loss: nn.Loss) -> Callable[..., fg.Tensor]:
    return lambda x, target: loss(x[:, :2], x[:, 2:4], x[:, 4:])


class Probabilities(nn.Loss):
    """A loss of the sigmoids, or the logarithms of the softmax, of the scores."""

    def __init__(self, loss: nn.Loss, is_log: bool) -> None:
        super().__init__()
        self.loss = loss
        self.is_log = is_log

    def forward(self, x: fg.Tensor, target: fg.Tensor) -> fg.Tensor:
        return self.loss(x.log_softmax(1) if self.is_log else x.sigmoid(), target)


SEVERAL = np.stack([RNG.permutation(WIDTH) for _ in range(ROWS)])
SEVERAL[:, 4], SEVERAL[::2, 1] = -1, -1
LOSSES: dict[str, tuple[Callable[..., fg.Tensor], Any]] = {
    "BCELoss": (Probabilities(nn.BCELoss(), False), SHARES),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), SHARES),
    "CosineEmbeddingLoss": (halves(nn.CosineEmbeddingLoss(0.1)), SIGNS[:, 0]),
    "CrossEntropyLoss": (nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1), LABELS),
    "GaussianNLLLoss": (
        lambda x, t: nn.GaussianNLLLoss(full=True)(x[:, :3], t, x[:, 3:].exp()),
        TARGET,
    ),
    "HalfSquaredErrorLoss": (nn.HalfSquaredErrorLoss(), X[::-1]),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss(), SIGNS),
    "HuberLoss": (nn.HuberLoss(delta=0.6), X[::-1]),
    "KLDivLoss": (Probabilities(nn.KLDivLoss("batchmean"), True), SHARES),
    "L1Loss": (nn.L1Loss(), X[::-1]),
    "LogCoshLoss": (nn.LogCoshLoss(), X[::-1]),
    "MSELoss": (nn.MSELoss(), X[::-1]),
    "MarginLoss": (nn.MarginLoss(), SIGNS),
    "MarginRankingLoss": (halves(nn.MarginRankingLoss(0.3)), SIGNS[:, :3]),
    "MultiCriterion": (nn.MultiCriterion(nn.MSELoss(), nn.L1Loss(), weights=[1.0, 0.3]), X[::-1]),
    "MultiLabelMarginLoss": (nn.MultiLabelMarginLoss(), SEVERAL),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss(WEIGHTS), SHARES),
    "MultiMarginLoss": (nn.MultiMarginLoss(p=2, weight=WEIGHTS), LABELS),
    "MulticlassHingeLoss": (nn.MulticlassHingeLoss(), LABELS),
    "NLLLoss": (Probabilities(nn.NLLLoss(weight=WEIGHTS), True), LABELS),
    "ParallelCriterion": (
        lambda x, t: nn.ParallelCriterion(nn.MSELoss(), nn.L1Loss())(
            [x[:, :3], x[:, 3:]], [t[:, :3], t[:, 3:]]
        ),
        X[::-1],
    ),
    "PoissonNLLLoss": (nn.PoissonNLLLoss(full=True), RNG.poisson(2.0, (ROWS, WIDTH)).astype(float)),
    "QuantileLoss": (nn.QuantileLoss([0.1, 0.25, 0.4, 0.5, 0.75, 0.9]), X[::-1, 0]),
    "SmoothL1Loss": (nn.SmoothL1Loss(beta=0.4), X[::-1]),
    "SoftMarginLoss": (nn.SoftMarginLoss(), SIGNS),
    "TripletMarginLoss": (thirds(nn.TripletMarginLoss(swap=True)), X),
}


def test_the_tables_have_every_public_layer_and_loss() -> None:
    public = set(nn.__all__) - BASES
    assert set(LAYERS) | set(FIRST) | set(RANDOM) | set(LOSSES) == public


def both_ways(build: Callable[[], nn.Module], loss: Any, x: Any, y: Any, rate: float = 0.02) -> None:
    """Train by hand and in a plan: losses, parameters and buffers agree to the bit."""
    runs = []
    for compiled in (True, False):
        fg.manual_seed(3)
        model = build().double()
        if isinstance(loss, nn.Loss):
            loss.double()
        optimizer = fg.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
        trainer = fg.Trainer(model, loss, optimizer)
        losses = []
        for _ in range(STEPS):
            if compiled:
                losses.append(trainer.train_step(x, y))
                continue
            optimizer.zero_grad()
            value = loss(model(fg.tensor(x)), fg.tensor(y))
            value.backward()
            optimizer.step()
            losses.append(value.item())
        predicted = trainer.predict(x) if compiled else model.eval()(fg.tensor(x)).numpy()
        state = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        runs.append((np.array(losses), predicted, state))
    (found, scores, values), (expected, reference, state) = runs
    np.testing.assert_array_equal(found, expected)
    assert found[0] != found[-1]
    for key, value in values.items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)
    np.testing.assert_array_equal(scores, reference)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_trains_in_a_plan_as_it_does_eagerly(name: str) -> None:
    make, width = LAYERS[name]
    both_ways(
        lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), make(), nn.Linear(width, 3)), nn.MSELoss(), X, TARGET
    )


@pytest.mark.parametrize("name", FIRST)
def test_a_first_layer_trains_in_a_plan_as_it_does_eagerly(name: str) -> None:
    make, x = FIRST[name]
    both_ways(lambda: nn.Sequential(make(), nn.Linear(WIDTH, 3)), nn.MSELoss(), x, TARGET)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_trains_in_a_plan_as_it_does_eagerly(name: str) -> None:
    loss, target = LOSSES[name]
    both_ways(lambda: nn.Linear(WIDTH, WIDTH), loss, X, target)


@pytest.mark.parametrize("name", RANDOM)
def test_a_layer_that_draws_does_so_anew_in_each_step_of_a_plan(name: str) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), RANDOM[name](), nn.Linear(WIDTH, 3)).double()
    still = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.0))
    assert len({still.train_step(X, TARGET) for _ in range(5)}) == 5
    expected = model.eval()(fg.tensor(X)).numpy()
    np.testing.assert_array_equal(still.predict(X), expected)
    np.testing.assert_array_equal(still.predict(X), expected)
    trainer = fg.Trainer(model.train(), nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.02))
    losses = trainer.fit(X, TARGET, epochs=60, progress=False, seed=0).history["loss"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("GradientReversal", "L1Penalty")])
def test_layer_gradients_of_both_orders_match_differences(name: str) -> None:
    fg.manual_seed(2)
    layer = LAYERS[name][0]().double()
    x = fg.tensor(np.random.default_rng(11).normal(size=(ROWS if name == "Parallel" else 3, WIDTH)))
    inputs = [x.requires_grad_(), *layer.parameters()]
    assert gradcheck(lambda x, *parameters: layer(x), inputs)
    assert gradgradcheck(lambda x, *parameters: layer(x), inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_of_both_orders_match_differences(name: str) -> None:
    loss, target = LOSSES[name]
    if isinstance(loss, nn.Loss):
        loss.double()
    x = fg.tensor(X[:3], requires_grad=True)
    y = fg.tensor(np.ascontiguousarray(target[:3]))
    assert gradcheck(lambda x: loss(x, y), [x])
    assert gradgradcheck(lambda x: loss(x, y), [x])


REDUCED = [
    name
    for name, (loss, _) in LOSSES.items()
    if isinstance(loss, nn.Loss) and not isinstance(loss, Probabilities)
]


@pytest.mark.parametrize("name", REDUCED)
def test_sample_weights_reach_every_loss(name: str) -> None:
    loss, target = LOSSES[name]
    assert isinstance(loss, nn.Loss)
    loss.double()
    model = nn.Linear(WIDTH, WIDTH).double()
    trainer = fg.Trainer(model, loss, fg.optim.SGD(model.parameters(), lr=0.1))
    chosen = np.arange(ROWS) < 5
    weights = chosen.astype(float)
    found = trainer.evaluate(X, target, sample_weight=weights)["loss"]
    each = loss.unreduced()(model(fg.tensor(X[:5])), fg.tensor(np.ascontiguousarray(target[:5])))
    assert found == pytest.approx(each.mean().item(), rel=1e-12)


# PyTorch 2.13, without what only it has; ours may go on behind.
SIGNATURES = {
    "CrossEntropyLoss": "weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0",
    "NLLLoss": "weight=None, ignore_index=-100, reduction='mean'",
    "BCELoss": "weight=None, reduction='mean'",
    "BCEWithLogitsLoss": "weight=None, reduction='mean', pos_weight=None",
    "MSELoss": "reduction='mean'",
    "L1Loss": "reduction='mean'",
    "SmoothL1Loss": "reduction='mean', beta=1.0",
    "HuberLoss": "reduction='mean', delta=1.0",
    "MultiMarginLoss": "p=1, margin=1.0, weight=None, reduction='mean'",
    "MultiLabelMarginLoss": "reduction='mean'",
    "MultiLabelSoftMarginLoss": "weight=None, reduction='mean'",
    "SoftMarginLoss": "reduction='mean'",
    "HingeEmbeddingLoss": "margin=1.0, reduction='mean'",
    "MarginRankingLoss": "margin=0.0, reduction='mean'",
    "CosineEmbeddingLoss": "margin=0.0, reduction='mean'",
    "TripletMarginLoss": "margin=1.0, p=2.0, eps=1e-06, swap=False, reduction='mean'",
    "KLDivLoss": "reduction='mean', log_target=False",
    "PoissonNLLLoss": "log_input=True, full=False, eps=1e-08, reduction='mean'",
    "GaussianNLLLoss": "*, full=False, eps=1e-06, reduction='mean'",
    "ReLU": "inplace=False",
    "LeakyReLU": "negative_slope=0.01, inplace=False",
    "ELU": "alpha=1.0, inplace=False",
    "CELU": "alpha=1.0, inplace=False",
    "SELU": "inplace=False",
    "GELU": "approximate='none'",
    "SiLU": "inplace=False",
    "Mish": "inplace=False",
    "Softplus": "beta=1.0, threshold=20.0",
    "Softsign": "",
    "Sigmoid": "",
    "Tanh": "",
    "LogSigmoid": "",
    "Hardtanh": "min_val=-1.0, max_val=1.0, inplace=False",
    "Hardsigmoid": "inplace=False",
    "Hardswish": "inplace=False",
    "ReLU6": "inplace=False",
    "Hardshrink": "lambd=0.5",
    "Softshrink": "lambd=0.5",
    "Tanhshrink": "",
    "Threshold": "threshold, value, inplace=False",
    "PReLU": "num_parameters=1, init=0.25, device=None, dtype=None",
    "RReLU": f"lower=0.125, upper={1 / 3}, inplace=False",
    "GLU": "dim=-1",
    "Softmax": "dim=None",
    "LogSoftmax": "dim=None",
    "Softmin": "dim=None",
    "Linear": "in_features, out_features, bias=True, device=None, dtype=None",
    "Bilinear": "in1_features, in2_features, out_features, bias=True, device=None, dtype=None",
    "Dropout": "p=0.5, inplace=False",
    "AlphaDropout": "p=0.5, inplace=False",
    "BatchNorm1d": (
        "num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, "
        "device=None, dtype=None"
    ),
    "LayerNorm": "normalized_shape, eps=1e-05, elementwise_affine=True, bias=True, device=None, dtype=None",
    "RMSNorm": "normalized_shape, eps=None, elementwise_affine=True, device=None, dtype=None",
    "Embedding": (
        "num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0, "
        "scale_grad_by_freq=False, sparse=False"
    ),
    "Flatten": "start_dim=1, end_dim=-1",
    "Identity": "*args, **kwargs",
    "Sequential": "*args",
}
# Names that PyTorch does not have.
OURS = {
    *(
        "Add",
        "AddConstant",
        "Bias",
        "CMul",
        "Concat",
        "GaussianNoise",
        "GradientReversal",
        "Inc",
        "L1Penalty",
    ),
    *(
        "HalfSquaredErrorLoss",
        "LogCoshLoss",
        "MapTable",
        "MarginLoss",
        "Maxout",
        "MixtureTable",
        "Mul",
        "MulConstant",
        "MultiCriterion",
    ),
    *("MulticlassHingeLoss", "Parallel", "ParallelCriterion", "Power", "QuantileLoss", "RandomDAG"),
    *("Residual", "Scale", "SelectTable", "SparseLinear"),
}


def test_every_public_name_is_pytorchs_or_ours() -> None:
    assert set(SIGNATURES) | OURS == set(nn.__all__) - BASES
    assert not set(SIGNATURES) & OURS


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_defaults_are_pytorchs(name: str) -> None:
    parameters = list(inspect.signature(getattr(nn, name)).parameters.values())
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    found = str(inspect.Signature(bare))[1:-1]
    expected = SIGNATURES[name]
    assert found == expected or (expected and f"{found}, ".startswith(f"{expected}, "))


# What the lectures list, section E: under PyTorch's name where it has one.
LISTED = {
    nn: (
        "Linear Bias MulConstant AddConstant Mul CMul Add Inc Scale Identity Power Flatten Concat "
        "Parallel MapTable SelectTable MixtureTable Sequential Module Residual Embedding SparseLinear "
        "Dropout LayerNorm BatchNorm1d Maxout PReLU RReLU ReLU ReLU6 LeakyReLU ELU CELU SELU GELU "
        "SiLU Mish Sigmoid LogSigmoid Tanh Tanhshrink Hardtanh Hardsigmoid Hardshrink Softmax "
        "LogSoftmax Softmin Softplus Softshrink Softsign Threshold L1Penalty GradientReversal MSELoss "
        "L1Loss SmoothL1Loss HuberLoss NLLLoss CrossEntropyLoss BCELoss BCEWithLogitsLoss MarginLoss "
        "MultiMarginLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss SoftMarginLoss "
        "HingeEmbeddingLoss MarginRankingLoss CosineEmbeddingLoss TripletMarginLoss KLDivLoss "
        "PoissonNLLLoss GaussianNLLLoss MultiCriterion ParallelCriterion"
    ),
    fg.Tensor: (
        "abs clamp exp log sqrt square pow max min mean sum mm mv reshape flatten transpose select narrow "
        "index_select masked_select"
    ),
    fg.func: "sparse_jacobian",
}


@pytest.mark.parametrize(
    ("space", "name"), [(space, name) for space, names in LISTED.items() for name in names.split()]
)
def test_every_name_that_the_lectures_list_exists(space: Any, name: str) -> None:
    assert callable(getattr(space, name))


def test_what_is_kept_is_freed_on_request() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    layer(fg.ones(1, 2)).sum().backward()
    assert layer.clear_state() is layer
    assert all(parameter.grad is None for parameter in layer.parameters())

    graph = fg.Graph()
    node = graph.add("exp", graph.input("x"))
    graph.output(node)
    graph.forward({"x": 1.0})
    graph.backward()
    assert node.value is not None
    graph.clear_state()
    assert (node.value, node.grad) == (None, None)
    with pytest.raises(fg.GraphError, match="backward before forward"):
        graph.backward()
    assert graph.forward({"x": 0.0}).item() == 1.0  # type: ignore[union-attr]

    trainer = fg.Trainer(layer, nn.MSELoss(), fg.optim.SGD(layer.parameters(), lr=0.1))
    x = np.ones((4, 2), np.float32)
    before = [trainer.train_step(x, x), trainer.predict(x).tolist()]
    trainer.clear_state()
    assert trainer.predict(x).tolist() == before[1]
    assert trainer.train_step(x, x) < before[0]
