"""What layers, activations and losses do beyond training: their numbers, states and refusals."""

import math
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn

RNG = np.random.default_rng(9)


def tensor(*shape: int) -> fg.Tensor:
    return fg.tensor(RNG.normal(size=shape))


# Normalisation


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_values_follow_the_batches_eagerly_and_in_a_plan(momentum: float | None) -> None:
    batches = RNG.normal(2.0, 3.0, size=(4, 16, 5))
    mean, var = np.zeros(5), np.ones(5)
    for number, batch in enumerate(batches, start=1):
        share = 1 / number if momentum is None else momentum
        mean = (1 - share) * mean + share * batch.mean(0)
        var = (1 - share) * var + share * batch.var(0, ddof=1)
    eager = nn.BatchNorm1d(5, momentum=momentum).double()
    for batch in batches:
        eager(fg.tensor(batch))
    planned = nn.BatchNorm1d(5, momentum=momentum).double()
    trainer = fg.Trainer(planned, nn.MSELoss(), fg.optim.SGD(planned.parameters(), lr=0.0))
    trainer.fit(batches.reshape(64, 5), np.zeros((64, 5)), epochs=1, batch_size=16, shuffle=False)
    for layer in (eager, planned):
        np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
        assert layer.num_batches_tracked.item() == 4
    x = fg.tensor(batches[0])
    expected = (batches[0] - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(planned.eval()(x).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(trainer.predict(batches[0]), expected, rtol=1e-10)
    np.testing.assert_array_equal(planned(x[3:4]).numpy(), planned(x).numpy()[3:4])


def test_compiling_predicting_and_evaluating_move_no_running_value() -> None:
    layer = nn.BatchNorm1d(3).double()
    trainer = fg.Trainer(layer, nn.MSELoss(), fg.optim.SGD(layer.parameters(), lr=0.1))
    x = RNG.normal(size=(8, 3))
    trainer.predict(x)
    trainer.evaluate(x, x)
    assert layer.num_batches_tracked.item() == 0
    trainer.train_step(x, x)
    assert layer.num_batches_tracked.item() == 1


def test_a_layer_used_twice_moves_its_running_values_twice_in_a_plan_too() -> None:
    x, states = RNG.normal(1.0, 2.0, size=(8, 3)), []
    for compiled in (True, False):
        layer = nn.BatchNorm1d(3).double()
        model = nn.Sequential(layer, nn.Tanh(), layer)
        if compiled:
            trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.0))
            trainer.train_step(x, x)
        else:
            model(fg.tensor(x))
        states.append([buffer.tolist() for buffer in layer.buffers()])
    assert states[0] == states[1]
    assert states[0][2] == 2


def test_divergence_takes_the_running_values_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Power(3), nn.Linear(2, 1)).double()
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=1e6))
    with pytest.warns(fg.ConvergenceWarning):
        trainer.fit(RNG.normal(size=(16, 2)), np.ones((16, 1)), epochs=200, batch_size=16, progress=False)
    assert np.isfinite(model[0].running_var.numpy()).all()


def test_normalised_rows_have_mean_zero_and_variance_one() -> None:
    x = tensor(4, 3, 6)
    y = nn.LayerNorm((3, 6), eps=0.0).double()(x).numpy().reshape(4, 18)
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(1), 1, rtol=1e-12)
    z = nn.RMSNorm(6, elementwise_affine=False)(x).numpy()
    np.testing.assert_allclose(np.square(z).mean(-1), 1, rtol=1e-12)
    w = nn.BatchNorm1d(3, affine=False, track_running_stats=False).double()(x).numpy()
    np.testing.assert_allclose(w.mean((0, 2)), 0, atol=1e-14)


# Lookups


def test_the_padding_row_is_zero_and_gets_no_gradient() -> None:
    layer = nn.Embedding(5, 2, padding_idx=-1)
    assert layer.padding_idx == 4
    layer(fg.tensor([[4, 0], [0, 4]])).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[2.0, 2.0], *[[0.0, 0.0]] * 4]
    assert layer(fg.tensor([4])).tolist() == [[0.0, 0.0]]


def test_a_sparse_input_gives_what_a_dense_one_does() -> None:
    dense = RNG.normal(size=(4, 7)) * (RNG.random((4, 7)) < 0.4)
    dense[2] = 0
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=4))])
    layer = nn.SparseLinear(7, 3).double()
    found = layer((indptr, columns, dense[rows, columns]))
    expected = dense @ layer.weight.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)
    found.sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), np.repeat(dense.sum(0)[:, None], 3, 1), rtol=1e-12)


# Noise


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    fg.manual_seed(1)
    y = nn.AlphaDropout(0.3)(fg.randn(200_000)).numpy()
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.02
    noisy = nn.GaussianNoise(0.5)(fg.zeros(200_000)).numpy()
    assert abs(noisy.std() - 0.5) < 0.01
    slopes = -nn.RReLU()(fg.full((200_000,), -1.0)).numpy()
    assert slopes.min() >= 1 / 8
    assert slopes.max() < 1 / 3
    assert abs(slopes.mean() - (1 / 8 + 1 / 3) / 2) < 0.001
    assert nn.RReLU().eval()(fg.tensor([-1.0])).item() == pytest.approx(-(1 / 8 + 1 / 3) / 2)


# Wiring


def test_a_random_dag_is_acyclic_and_depends_on_its_seed_alone() -> None:
    models = [nn.RandomDAG(4, 2, nodes=32, width=3, p=0.2, seed=seed) for seed in (1, 1, 2)]
    assert models[0].edges == models[1].edges != models[2].edges
    assert all(source < target for source, target in models[0].edges)
    assert 60 < len(models[0].edges) < 140
    with_none = nn.RandomDAG(4, 2, nodes=3, p=0.0)
    assert with_none.edges == ()
    assert with_none.ends == (0, 1, 2)


def test_a_random_dag_of_32_nodes_trains() -> None:
    fg.manual_seed(0)
    x = RNG.normal(size=(200, 4))
    model = nn.RandomDAG(4, 1, nodes=32, width=8, p=0.15, seed=3)
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.Adam(model.parameters(), lr=0.01))
    target = np.sin(x[:, :1]) * x[:, 1:2]
    losses = trainer.fit(x, target, epochs=30, batch_size=50, progress=False, seed=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


# Losses


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_pinball_loss_is_least_at_the_quantile(quantile: float) -> None:
    sample = RNG.normal(size=1001)
    candidates = np.linspace(-3, 3, 601)
    grid = np.repeat(candidates[:, None], 1001, 1)
    loss = nn.QuantileLoss(quantile, reduction="none")
    means = loss(fg.tensor(grid), fg.tensor(np.broadcast_to(sample, grid.shape).copy())).mean(1).numpy()
    assert candidates[means.argmin()] == pytest.approx(np.quantile(sample, quantile), abs=0.02)


def test_several_quantiles_are_the_mean_of_each() -> None:
    x, t = tensor(5, 3), tensor(5)
    together = nn.QuantileLoss([0.2, 0.5, 0.7])(x, t).item()
    apart = [nn.QuantileLoss(q)(x[:, i], t).item() for i, q in enumerate([0.2, 0.5, 0.7])]
    assert together == pytest.approx(np.mean(apart), rel=1e-14)
    assert nn.QuantileLoss([0.2, 0.5, 0.7])(x, t.unsqueeze(1)).item() == together


def test_losses_are_finite_far_out() -> None:
    x = fg.tensor([-1e4, 1e4], requires_grad=True)
    for loss in (nn.SoftMarginLoss(), nn.LogCoshLoss(), nn.MultiLabelSoftMarginLoss(), nn.HuberLoss()):
        value = loss(x, fg.tensor([1.0, 1.0]))
        (gradient,) = fg.autograd.grad(value, [x])
        assert math.isfinite(value.item())
        assert np.isfinite(gradient.numpy()).all()
    p = fg.tensor([[0.0, 1.0]])
    assert nn.KLDivLoss("sum")(fg.tensor([[-3.0, 0.0]]), p).item() == 0.0


def test_labels_that_are_ignored_cost_nothing() -> None:
    scores = tensor(4, 3).log_softmax(1)
    labels = fg.tensor([0, 2, 1, 1])
    whole = nn.NLLLoss()(scores[:2], labels[:2]).item()
    assert nn.NLLLoss(ignore_index=1)(scores, labels).item() == pytest.approx(whole, rel=1e-14)
    with pytest.raises(fg.LabelError, match="3"):
        nn.NLLLoss()(scores, fg.tensor([0, 3, 1, 1]))


def test_repeated_labels_and_labels_behind_the_end_of_a_row() -> None:
    scores = fg.tensor([0.1, 0.2, 0.4, 0.8], dtype=fg.float64)
    loss = nn.MultiLabelMarginLoss()
    once = loss(scores, fg.tensor([3, 0, -1, 1])).item()
    assert once == pytest.approx(0.25 * (0.4 + 0.6 + 1.1 + 1.3))
    twice = loss(scores, fg.tensor([3, 0, 0, -1])).item()
    assert twice == pytest.approx(0.25 * (0.4 + 0.6 + 2 * (1.1 + 1.3)))
    assert loss(scores, fg.tensor([-1, 0, 1, 2])).item() == 0.0
    with pytest.raises(fg.LabelError, match="0 to 3"):
        loss(scores, fg.tensor([4, -1, 0, 0]))


def test_a_plan_makes_no_step_with_a_label_that_is_no_class() -> None:
    model = nn.Linear(3, 3).double()
    trainer = fg.Trainer(model, nn.MultiLabelMarginLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    x, labels = RNG.normal(size=(4, 3)), np.array([[0, -1, -1], [1, 2, -1], [0, 1, 2], [2, -1, 0]])
    trainer.train_step(x, labels)
    before = model.weight.numpy().copy()
    labels[1, 0] = 3
    with pytest.warns(fg.ConvergenceWarning):
        trainer.train_step(x, labels)
    np.testing.assert_array_equal(model.weight.numpy(), before)


# Bad input


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.CELU(0.0), fg.ConfigError, "CELU: alpha"),
    (lambda: nn.GELU("erf"), fg.ConfigError, "approximate must be 'none' or 'tanh', got 'erf'"),
    (lambda: nn.Hardtanh(1.0, -1.0), fg.ConfigError, "max_val must be at least min_val"),
    (lambda: nn.Softshrink(-0.1), fg.ConfigError, "lambd must be at least 0"),
    (lambda: nn.Threshold(math.nan, 0.0), fg.ConfigError, "threshold must be a finite number"),
    (lambda: nn.RReLU(0.5, 0.1), fg.ConfigError, "upper must be at least lower"),
    (lambda: nn.GLU()(fg.zeros(2, 3)), fg.ShapeError, "even length"),
    (lambda: nn.GLU(dim=2)(fg.zeros(2, 4)), fg.ShapeError, "dim=2"),
    (lambda: nn.MulConstant("2"), fg.ConfigError, "constant must be a finite number"),  # type: ignore[arg-type]
    (lambda: nn.MulConstant(2.0, inplace=1), fg.ConfigError, "inplace"),  # type: ignore[arg-type]
    (lambda: nn.BatchNorm1d(0), fg.ConfigError, "num_features"),
    (lambda: nn.BatchNorm1d(3, momentum=2.0), fg.ConfigError, "momentum"),
    (lambda: nn.BatchNorm1d(3)(fg.zeros(4, 2)), fg.ShapeError, r"\(batch, 3\).*\(4, 2\)"),
    (lambda: nn.BatchNorm1d(3)(fg.zeros(1, 3)), fg.ShapeError, "two values"),
    (lambda: nn.LayerNorm(()), fg.ConfigError, "normalized_shape"),
    (lambda: nn.LayerNorm((2, 3))(fg.zeros(3, 2)), fg.ShapeError, r"\(\.\.\., 2, 3\), got \(3, 2\)"),
    (lambda: nn.RMSNorm(4)(fg.zeros(3)), fg.ShapeError, r"\(\.\.\., 4\), got \(3,\)"),
    (
        lambda: nn.Embedding(3, 2, padding_idx=3),
        fg.ConfigError,
        "padding_idx must be at least -3 and",
    ),
    (lambda: nn.Embedding(3, 2, padding_idx=-4), fg.ConfigError, "padding_idx"),
    (lambda: nn.Embedding(3, 2)(fg.tensor([3])), IndexError, "3"),
    (lambda: nn.Embedding(3, 2)(fg.tensor([0.5])), fg.DTypeError, "fractions"),
    (lambda: nn.Bilinear(2, 3, 4)(fg.zeros(5, 2), fg.zeros(4, 3)), fg.ShapeError, r"\(5, 2\) and \(4, 3\)"),
    (lambda: nn.SparseLinear(4, 2)(fg.zeros(3, 4)), fg.ShapeError, "pairs of shape"),
    (lambda: nn.SparseLinear.pairs([0, 2], [1], [1.0]), fg.ShapeError, "CSR"),
    (lambda: nn.SparseLinear(4, 2)(([0, 1], [4], [1.0])), IndexError, "4"),
    (lambda: nn.Residual(nn.Linear(2, 3))(fg.zeros(1, 2)), fg.ShapeError, r"keep shape \(1, 2\)"),
    (lambda: nn.Concat(), fg.ConfigError, "at least one branch"),
    (lambda: nn.Parallel(nn.Identity())(fg.zeros(2, 3)), fg.ShapeError, "length 1 in dimension 1"),
    (lambda: nn.RandomDAG(2, 2, nodes=0), fg.ConfigError, "nodes"),
    (lambda: nn.Inc(math.inf), fg.ConfigError, "Inc: step must be a finite number"),
    (lambda: nn.Scale(0), fg.ConfigError, "num_features"),
    (lambda: nn.Scale(2, bias=1), fg.ConfigError, "bias: expected True or False"),  # type: ignore[arg-type]
    (lambda: nn.Scale(2)(fg.zeros(2, 1)), fg.ShapeError, r"\(\.\.\., 2\), got \(2, 1\)"),
    (lambda: nn.MapTable(len), fg.ConfigError, "MapTable: expected a Module"),  # type: ignore[arg-type]
    (lambda: nn.MapTable(nn.Tanh())(fg.zeros(2)), fg.DTypeError, "MapTable: expected a tuple or list, got T"),
    (lambda: nn.SelectTable(True), fg.ConfigError, "SelectTable: index"),
    (lambda: nn.SelectTable(2)([1, 2]), fg.ShapeError, "an element 2, got 2 elements"),
    (lambda: nn.MixtureTable()((fg.zeros(2, 2), fg.zeros(2, 2, 3))), fg.DTypeError, "expected a pair"),
    (lambda: nn.MixtureTable()((fg.zeros(2, 1), [fg.zeros(2, 3)] * 2)), fg.ShapeError, r"got \(2, 1\)"),
    (lambda: nn.MixtureTable()((fg.zeros(2, 0), [])), fg.ShapeError, "experts of one shape"),
    (lambda: nn.GaussianNoise(-1.0), fg.ConfigError, "std"),
    (lambda: nn.SmoothL1Loss(beta=-1.0), fg.ConfigError, "beta must be at least 0"),
    (lambda: nn.HuberLoss(delta=0.0), fg.ConfigError, "delta must be above 0"),
    (lambda: nn.HuberLoss()(fg.zeros(3, 1), fg.zeros(3)), fg.ShapeError, r"\(3, 1\) and \(3,\)"),
    (lambda: nn.QuantileLoss([0.5, 1.0]), fg.ConfigError, "quantiles must lie between 0 and 1"),
    (lambda: nn.QuantileLoss([0.5, 0.6])(fg.zeros(3, 3), fg.zeros(3)), fg.ShapeError, r"\(\.\.\., 2\)"),
    (lambda: nn.KLDivLoss("rows"), fg.ConfigError, "batchmean"),
    (
        lambda: nn.GaussianNLLLoss()(fg.zeros(2, 3), fg.zeros(2, 3), fg.zeros(3, 2)),
        fg.ShapeError,
        r"var of shape \(2, 3\)",
    ),
    (lambda: nn.GaussianNLLLoss()(fg.zeros(2), fg.zeros(2), -fg.ones(2)), fg.ConfigError, "negative"),
    (
        lambda: nn.CosineEmbeddingLoss()(fg.zeros(2, 3), fg.zeros(2, 3), fg.zeros(3)),
        fg.ShapeError,
        r"target of shape \(2,\)",
    ),
    (lambda: nn.TripletMarginLoss(p=0.0), fg.ConfigError, "p must be above 0"),
    (lambda: nn.MultiLabelMarginLoss()(fg.zeros(3), fg.zeros(3)), fg.DTypeError, "int64"),
    (lambda: nn.MultiCriterion(), fg.ConfigError, "at least one loss"),
    (lambda: nn.MultiCriterion(nn.MSELoss(), nn.L1Loss("sum")), fg.ConfigError, "one reduction"),
    (
        lambda: nn.MultiCriterion(nn.MSELoss(), weights=[1.0, 2.0]),
        fg.ConfigError,
        "expected 1 weights, got 2",
    ),
    (lambda: nn.ParallelCriterion(nn.MSELoss())([], []), fg.ConfigError, "expected 1 inputs"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_plans_mask_is_the_same_forward_and_backward() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(fg.zeros(64))

        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return x + self.shift

    fg.manual_seed(5)
    model = nn.Sequential(Shift(), nn.Dropout(0.5))
    shift = model[0].shift
    trainer = fg.Trainer(model, nn.MSELoss(reduction="sum"), fg.optim.SGD([shift], lr=1.0))
    X = np.arange(1, 65, dtype=np.float64)[None] / 64
    masks = []
    for _ in range(3):
        with fg.no_grad():
            shift.zero_()
        loss = trainer.train_step(X.astype(np.float32), np.zeros((1, 64), np.float32))
        # What was kept has learned, d(2 x)^2 = 8 x, and is the loss.
        kept = shift.detach().numpy() != 0
        assert 0 < kept.sum() < 64
        np.testing.assert_allclose(shift.detach().numpy(), -8 * X[0] * kept, rtol=1e-6)
        np.testing.assert_allclose(loss, (4 * X[0] ** 2 * kept).sum(), rtol=1e-5)
        masks.append(kept)
    assert (masks[0] != masks[1]).any()
    assert (masks[1] != masks[2]).any()
