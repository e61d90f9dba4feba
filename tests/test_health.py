"""`Trainer.health`: each illness is planted, found and given its hint; a well network has none."""

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.health import _trend

RNG = np.random.RandomState(0)
X = RNG.randn(64, 4)
Y = (X[:, :1] - X[:, 1:2] * X[:, 2:3]).copy()


def trainer_of(*layers: nn.Module, lr: float = 0.01, **options: Any) -> fg.Trainer:
    model = nn.Sequential(*layers)
    return fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=lr), **options)


def hints(report: fg.HealthReport) -> list[str]:
    return [finding.check for finding in report.findings if finding.hint]


def found(report: fg.HealthReport, check: str) -> fg.Finding:
    return next(finding for finding in report.findings if finding.check == check)


def test_a_well_network_has_no_hint() -> None:
    trainer = trainer_of(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    trainer.fit(X, Y, epochs=12, batch_size=16, seed=0, progress=False)
    report = trainer.health()
    assert hints(report) == []
    assert report.is_healthy
    assert (report.rows, report.trend) == (64, "falling")
    checks = [finding.check for finding in report.findings]
    assert checks == ["dead units", "saturation", "gradients", "steps", "inputs", "loss"]


def test_dead_units_are_counted_by_layer() -> None:
    trainer = trainer_of(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    with fg.no_grad():
        bias = trainer.model[2].bias
        bias.data.copy_(np.r_[np.full(6, -1000.0), np.full(2, 1000.0)].astype(np.float32))
    report = trainer.health(X, Y)
    assert [(a.layer, a.op) for a in report.activations] == [("1", "relu"), ("3", "relu")]
    assert report.activations[1].share == 0.75
    assert hints(report)[0] == "dead units"
    assert "75% of the ReLUs are 0 for all rows in layer 3" in found(report, "dead units").found


def test_a_unit_that_is_alive_for_one_row_is_not_dead() -> None:
    trainer = trainer_of(nn.Linear(1, 1, bias=False), nn.ReLU())
    with fg.no_grad():
        trainer.model[0].weight.fill_(1.0)
    rows = np.r_[np.full(63, -1.0), 1.0][:, None]
    assert trainer.health(rows, rows).activations[0].share == 0.0
    assert trainer.health(rows[:63], rows[:63]).activations[0].share == 1.0


@pytest.mark.parametrize(("layer", "op"), [(nn.Tanh, "tanh"), (nn.Sigmoid, "sigmoid")])
def test_saturation_is_measured(layer: type[nn.Module], op: str) -> None:
    trainer = trainer_of(nn.Linear(1, 1, bias=False), layer(), nn.Linear(1, 1))
    with fg.no_grad():
        trainer.model[0].weight.fill_(1.0)
    # Four of these ten lie where the slope is below a twentieth of the largest: tanh 2.2, sigmoid 4.4.
    scale = 1.0 if op == "tanh" else 2.0
    rows = scale * np.array([-9.0, -2.3, -2.1, -1.0, -0.5, 0.5, 1.0, 2.1, 2.3, 9.0])[:, None]
    report = trainer.health(rows, rows)
    assert [(a.op, a.share) for a in report.activations] == [(op, 0.4)]
    assert "saturation" not in hints(report)
    assert "saturation" in hints(trainer.health(100 * rows, rows))


def test_gradients_are_those_of_backward_before_clipping() -> None:
    trainer = trainer_of(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), clip_grad_norm=1e-3)
    report = trainer.health(X, Y)
    model = copy.deepcopy(trainer.model).double()
    nn.MSELoss()(model(fg.tensor(X)), fg.tensor(Y)).backward()
    expected = {name: float(param.grad.norm()) for name, param in model.named_parameters()}
    assert {p.name: p.gradient_norm for p in report.parameters} == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", [fg.optim.SGD, fg.optim.Adam, fg.optim.RMSprop])
@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_ratio_is_that_of_the_step_that_comes(kind: Any, clip: float | None) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    trainer = fg.Trainer(model, nn.MSELoss(), kind(model.parameters(), lr=0.03), l2=0.1, clip_grad_norm=clip)
    trainer.fit(X, Y, epochs=2, batch_size=16, progress=False)
    foretold = {p.name: p.update_ratio for p in trainer.health(X, Y).parameters}
    before = {name: param.detach().numpy() for name, param in model.named_parameters()}
    trainer.train_step(X, Y)
    for name, param in model.named_parameters():
        moved = np.linalg.norm(param.detach().numpy() - before[name]) / np.linalg.norm(before[name])
        assert foretold[name] == pytest.approx(moved, rel=1e-9)


def test_long_and_short_steps_get_a_hint() -> None:
    long = trainer_of(nn.Linear(4, 1), lr=10.0).health(X, Y)
    short = trainer_of(nn.Linear(4, 1), lr=1e-9).health(X, Y)
    assert "smaller learning rate" in found(long, "steps").hint
    assert "larger learning rate" in found(short, "steps").hint


def test_vanishing_and_exploding_gradients_get_a_hint() -> None:
    deep = [layer for _ in range(12) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    vanishing = trainer_of(nn.Linear(4, 8), *deep, nn.Linear(8, 1))
    assert "vanish" in found(vanishing.health(X, Y), "gradients").hint
    exploding = trainer_of(*(nn.Linear(4, 4, bias=False) for _ in range(6)), nn.Linear(4, 1, bias=False))
    # Equal factors but for the first: its gradient has the product of the others, the last one's lacks it.
    with fg.no_grad():
        for factor, layer in zip([1e-6, *[10.0] * 6], exploding.model, strict=True):
            layer.weight.copy_(factor * np.eye(4)[: layer.out_features])
    assert "explode" in found(exploding.health(X, Y), "gradients").hint


def test_unscaled_features_are_named() -> None:
    rows = np.c_[X[:, 0], X[:, 1] * 50, X[:, 2] + 20, np.ones(64), X[:, 3] * 1e-4]
    report = trainer_of(nn.Linear(5, 1)).health(rows, Y)
    # The second is wide, the third far from 0; beside the last one the first is wide too.
    assert report.unscaled == (0, 1, 2)
    assert "3 of 5 features are not scaled: 0, 1, 2" in found(report, "inputs").found
    assert trainer_of(nn.Linear(4, 1)).health(X, Y).unscaled == ()
    assert trainer_of(nn.Linear(4, 1)).health(X > 0, Y).unscaled == ()
    assert trainer_of(nn.Linear(4, 1)).health(X * 1e-6, Y).unscaled == (0, 1, 2, 3)
    assert trainer_of(nn.Linear(2, 1)).health(np.full((64, 2), [0.1, 1e6]), Y).unscaled == (1,)
    # The deviation of a constant is that of rounding, beside which no other is wide.
    assert trainer_of(nn.Linear(5, 1)).health(np.c_[X, np.full(64, 0.1)], Y).unscaled == ()


def losses_of(trainer: fg.Trainer, rates: list[float]) -> fg.HealthReport:
    """Train with a rate for each epoch."""

    class Rates(fg.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = rates[epoch]

    trainer.fit(X, Y, epochs=len(rates), batch_size=64, callbacks=[Rates()], seed=0, progress=False)
    return trainer.health()


def test_the_trend_is_that_of_the_last_epochs() -> None:
    assert losses_of(trainer_of(nn.Linear(4, 1)), [0.05] * 8).trend == "falling"
    standing = losses_of(trainer_of(nn.Linear(4, 1)), [0.05] * 4 + [0.0] * 12)
    assert standing.trend == "flat"
    assert "loss" in hints(standing)
    rising = losses_of(trainer_of(nn.Linear(4, 1)), [2.0] * 6)
    assert rising.trend == "rising"
    assert found(rising, "loss").hint == "a smaller learning rate"
    assert losses_of(trainer_of(nn.Linear(4, 1)), [0.05] * 3).trend == "unknown"
    assert trainer_of(nn.Linear(4, 1)).health(X, Y).trend == "unknown"


@pytest.mark.parametrize("epochs", [0, 6])
def test_a_fit_that_diverged_is_not_called_falling(epochs: int) -> None:
    trainer = trainer_of(nn.Linear(4, 1))

    class Leap(fg.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = 0.05 if epoch < epochs else 1e30

    with pytest.warns(fg.ConvergenceWarning):
        trainer.fit(X, Y, epochs=12, batch_size=16, callbacks=[Leap()], seed=0, progress=False)
    report = trainer.health()
    assert report.trend == "not finite"
    assert f"in epoch {epochs}, where the fit stopped" in found(report, "loss").found
    assert "smaller learning rate" in found(report, "loss").hint
    trainer.optimizer.param_groups[0]["lr"] = 0.05
    trainer.fit(X, Y, epochs=8, batch_size=16, seed=0, progress=False)
    assert trainer.health().trend != "not finite"


@pytest.mark.parametrize(
    ("losses", "trend"),
    [
        ([1, 2, 1, 2, 1, 2], "flat"),
        ([2, 1, 2, 1, 2, 1], "flat"),
        ([10, 9, 8, 7, 6, 5, 4, 100, 3, 2], "falling"),
        ([5, 4, 4.5, 3, 3.5, 2.5, 2.8, 2], "falling"),
        ([1, 2, 3, 4], "rising"),
        ([3, 3, 3, 3], "flat"),
    ],
)
def test_a_loss_that_goes_up_and_down_has_no_trend(losses: list[float], trend: str) -> None:
    assert _trend(losses) == trend


def test_vectors_that_begin_at_zero_take_no_long_steps() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.Adam(model.parameters()))
    with fg.no_grad():
        model[0].bias.fill_(1e-5)
    steps = found(trainer.health(X, Y), "steps")
    assert not steps.hint
    assert "the other weights less" in steps.found
    alone = trainer_of(nn.Linear(4, 1)).health(X, Y)
    assert "other weights" not in found(alone, "steps").found


def test_sample_weights_of_the_fit_are_part_of_the_loss() -> None:
    trainer = trainer_of(nn.Linear(4, 1), lr=0.0)
    weight = np.r_[np.full(32, 0.0), np.full(32, 3.0)]
    trainer.fit(X, Y, epochs=1, sample_weight=weight, progress=False)
    assert trainer.health().loss == pytest.approx(trainer.health(X[32:], Y[32:]).loss, rel=1e-6)
    rows, targets = np.tile(X, (5, 1)), np.tile(Y, (5, 1))
    trainer.fit(rows, targets, epochs=1, sample_weight=np.arange(320) >= 256, progress=False)
    assert trainer.health().loss == pytest.approx(trainer.health(X, Y).loss, rel=1e-6)


def test_overfitting_is_seen_in_the_validation_loss() -> None:
    model = nn.Linear(4, 1)
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.05))
    trainer.fit(X, Y, epochs=10, validation_data=(X, -Y * 5), seed=0, progress=False)
    loss = found(trainer.health(), "loss")
    assert "that of validation is rising" in loss.found
    assert "overfits" in loss.hint


def test_a_callback_may_ask_during_the_fit_and_changes_nothing() -> None:
    reports: list[fg.HealthReport] = []

    class Ask(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            reports.append(self.trainer.health())

    def fitted(callbacks: list[fg.Callback]) -> list[bytes]:
        fg.manual_seed(3)
        layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        model = nn.Sequential(*layers)
        trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.Adam(model.parameters(), lr=0.01))
        trainer.fit(X, Y, epochs=5, batch_size=16, callbacks=callbacks, progress=False)
        trainer.health()
        states = [value for state in trainer.optimizer.state.values() for value in state.values()]
        tensors = [*model.state_dict().values(), *(v for v in states if isinstance(v, fg.Tensor))]
        assert all(param.grad is None for param in model.parameters())
        return [value.numpy().tobytes() for value in tensors] + [fg.rand(2).numpy().tobytes()]

    assert fitted([Ask()]) == fitted([])
    assert len(reports) == 5
    assert [report.trend for report in reports[:4]] == ["unknown"] * 3 + [reports[3].trend]


def test_the_default_rows_are_copies_of_the_first_ones_of_the_fit() -> None:
    rows, targets = np.repeat(X, 10, axis=0), np.repeat(Y, 10, axis=0)
    trainer = trainer_of(nn.Linear(4, 1))
    trainer.fit(rows, targets, epochs=1, progress=False)
    expected = trainer.health(rows[:256], targets[:256])
    assert trainer.health(rows, targets).rows == 640
    rows[:], targets[:] = 0.0, 0.0
    report = trainer.health()
    assert (report.rows, report.loss) == (256, expected.loss)
    # A copy makes its plans, and its reports, anew.
    with pytest.raises(fg.ConfigError, match="no fit of this trainer"):
        pickle.loads(pickle.dumps(trainer)).health()


def test_functions_called_in_forward_and_repeated_layers_have_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.act = nn.Tanh()

        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return self.act(self.inner(self.act(self.inner(x)))).relu().sigmoid().sum(1, keepdim=True)

    model = Twice()
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters()))
    names = [(a.layer, a.op) for a in trainer.health(X, Y).activations]
    assert names == [("act", "tanh"), ("act#2", "tanh"), ("relu", "relu"), ("sigmoid", "sigmoid")]


def test_an_optimizer_that_searches_its_step_has_no_ratio() -> None:
    model = nn.Linear(4, 1)
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.LBFGS(model.parameters()))
    report = trainer.health(X, Y)
    assert all(np.isnan(p.update_ratio) for p in report.parameters)
    assert "steps" not in hints(report)


def test_the_dict_is_strict_json() -> None:
    model = nn.Linear(4, 1)
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.LBFGS(model.parameters()))
    told = trainer.health(X * 1000, Y).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["parameters"][0]["update_ratio"] is None
    assert told["unscaled"] == [0, 1, 2, 3]


def test_the_text_and_the_dict_say_the_same() -> None:
    trainer = trainer_of(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    report = trainer.health(X * 1000, Y)
    text = str(report)
    for finding in report.findings:
        assert finding.found in text
        assert finding.hint in text
    assert text.splitlines()[0].startswith("health on 64 rows, loss ")
    told = json.loads(json.dumps(report.to_dict()))
    assert told["is_healthy"] is False
    assert told["activations"] == [{"layer": "1", "op": "tanh", "share": report.activations[0].share}]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: trainer_of(nn.Linear(4, 1)).health(), fg.ConfigError, "X, y: expected rows to look at"),
        (
            lambda: trainer_of(nn.Linear(4, 1)).health(X),
            fg.ConfigError,
            "expected both X and y, or none, got no y",
        ),
        (lambda: trainer_of(nn.Linear(4, 1)).health(X * np.nan, Y), fg.NonFiniteError, "X"),
        (
            lambda: fg.Trainer(lambda x: x @ W, nn.MSELoss(), fg.optim.SGD([W])).health(X, Y),
            fg.ConfigError,
            "model: expected a trainer of a Module",
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


W = fg.zeros(4, 1, requires_grad=True)
