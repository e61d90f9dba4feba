"""Compiled training beside eager training, for any threads and instruction set, and what was fused."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

WIDTH = 6
RNG = np.random.default_rng(3)
X = RNG.normal(size=(20, WIDTH))
LABELS = RNG.integers(0, WIDTH, 20)
STEPS = 5


class Residual(nn.Module):
    """x + f(x), with f a lambda over two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.inner = lambda x: self.second(self.first(x).relu())

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return x + self.inner(x)


class Dag(nn.Module):
    """Nodes of linear + ReLU; each takes a sum of earlier nodes, weighted by sigmoids of trained numbers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        nodes = int(rng.integers(2, 7))
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(nodes)])
        self.sources = [
            np.flatnonzero(rng.random(node + 1) < 0.6).tolist() or [node] for node in range(nodes)
        ]
        for node, sources in enumerate(self.sources):
            self.register_parameter(f"mix{node}", nn.Parameter(rng.normal(size=len(sources))))

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        values = [x]
        for node, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            shares = getattr(self, f"mix{node}").sigmoid()
            merged = values[sources[0]] * shares[0]
            for number, source in enumerate(sources[1:], start=1):
                merged = merged + values[source] * shares[number]
            values.append(layer(merged).relu())
        total = values[-1]
        for value in values[1:-1]:
            total = total + value
        return total


class Centred(nn.Module):
    """Mixes the rows of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        h = self.layer(x)
        return (h - h.mean(0, keepdim=True)) / (h.var(0, unbiased=False, keepdim=True) + 1e-5).sqrt()


class Attention(nn.Module):
    """Softmax weights over the features, products of three factors, a row that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return (
            self.score(x).softmax(1) * self.value(x)
            + (x @ self.value.weight.T).tanh() * self.score.bias.exp()
        )


class Cube:
    """A gate: y = x^3."""

    def forward(self, x: Any) -> Any:
        self.x = x
        return x**3

    def backward(self, dout: Any) -> Any:
        return 3 * self.x**2 * dout


class Gated(nn.Module):
    """A gate written in Python between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)
        self.cube = fg.gate(Cube())

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return self.second(self.cube(self.first(x)))


def chain(seed: int) -> nn.Module:
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[], nn.Module]] = [
        nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.PReLU, nn.Identity,
    ]  # fmt: skip
    widths = [WIDTH, *rng.integers(1, 12, size=rng.integers(1, 4)).tolist(), WIDTH]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bool(rng.random() < 0.8)), kinds[rng.integers(len(kinds))]()]
    return nn.Sequential(*layers)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: nn.Sequential(Residual(), nn.Tanh(), Residual()),
    "centred": Centred,
    "attention": Attention,
    "gate": Gated,
    "prelu": lambda: nn.Sequential(nn.Linear(WIDTH, 8), nn.PReLU(8), nn.Linear(8, WIDTH)),
    "maxout": lambda: nn.Sequential(nn.Maxout(WIDTH, 5, 3), nn.Maxout(5, WIDTH, 2)),
    "softmax": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Softmax(1)),
    "log_softmax": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LogSoftmax(1)),
    "shared": lambda: nn.Sequential(*[nn.Linear(WIDTH, WIDTH), nn.ReLU()] * 3),
    **{f"chain {seed}": lambda seed=seed: chain(seed) for seed in range(12)},  # type: ignore[misc]
    **{f"dag {seed}": lambda seed=seed: Dag(seed) for seed in range(12)},  # type: ignore[misc]
}
LOSSES: list[tuple[nn.Loss, Any]] = [
    (nn.CrossEntropyLoss(label_smoothing=0.1), LABELS),
    (nn.MSELoss(), X[:, ::-1]),
    (nn.MulticlassHingeLoss(), LABELS),
    (nn.BCEWithLogitsLoss(), (X > 0).astype(np.float64)),
    (nn.L1Loss(), X[::-1]),
]
OPTIMIZERS: list[Callable[[Any], optim.Optimizer]] = [
    lambda params: optim.SGD(params, lr=0.05),
    lambda params: optim.SGD(params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda params: optim.SGD(params, lr=0.05, momentum=0.9, dampening=0.3),
    lambda params: optim.Adam(params, lr=0.01),
    lambda params: optim.Adam(params, lr=0.01, amsgrad=True, weight_decay=0.01),
    lambda params: optim.AdamW(params, lr=0.01),
]


@pytest.mark.parametrize("name", MODELS)
def test_the_plan_equals_eager_training(name: str) -> None:
    number = list(MODELS).index(name)
    (loss, target), make_optimizer = LOSSES[number % 5], OPTIMIZERS[number % 6]
    runs = []
    for compiled in (True, False):
        fg.manual_seed(number)
        model = MODELS[name]().double()
        optimizer = make_optimizer(model.parameters())
        trainer = fg.Trainer(model, loss, optimizer)
        losses = []
        for _ in range(STEPS):
            if compiled:
                losses.append(trainer.train_step(X, target))
                continue
            optimizer.zero_grad()
            eager = loss(model(fg.tensor(X)), fg.tensor(target))
            eager.backward()
            optimizer.step()
            losses.append(eager.item())
        runs.append((losses, {key: value.numpy() for key, value in model.state_dict().items()}))
    (found, values), (expected, reference) = runs
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert found[0] != found[-1]
    for key, value in values.items():
        np.testing.assert_allclose(value, reference[key], rtol=1e-12, atol=1e-12, err_msg=key)


def test_a_gate_in_a_model_trains() -> None:
    model = Gated().double()
    trainer = fg.Trainer(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.02))
    target = np.tile(X[:, :1] ** 3, WIDTH)
    losses = trainer.fit(X, target, epochs=200, batch_size=8, seed=0, progress=False).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    np.testing.assert_allclose(trainer.predict(X), model(fg.tensor(X)).numpy(), rtol=1e-12)


def test_a_gates_own_error_stops_the_fit_between_steps() -> None:
    class Tired(Cube):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            if self.calls > 4:
                raise LookupError("tired")
            return super().forward(x)

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    gate = fg.gate(Tired())
    trainer = fg.Trainer(lambda x: gate(model(x)), nn.MSELoss(), optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(LookupError, match="tired"):
        trainer.fit(X, X, epochs=5, batch_size=10, progress=False)
    assert np.isfinite(model[0].weight.numpy()).all()


def deterministic_run() -> bytes:
    """Parameters and predictions after training with layers of odd widths, dropout and a short batch."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 37)).astype(np.float32), rng.integers(0, 5, 150)
    out = []
    for make_optimizer in (OPTIMIZERS[1], OPTIMIZERS[4]):
        fg.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(37, 131), nn.ReLU(), nn.Dropout(0.3), nn.Linear(131, 67), nn.Tanh(), nn.Linear(67, 33),
            nn.Sigmoid(), nn.Maxout(33, 9, 2), nn.ELU(), nn.Linear(9, 5),
        )  # fmt: skip
        trainer = fg.Trainer(
            model, nn.CrossEntropyLoss(), make_optimizer(model.parameters()), clip_grad_norm=1.0, l2=1e-3
        )
        history = trainer.fit(x, y, epochs=3, batch_size=64, seed=11, progress=False)
        out += [param.numpy().tobytes() for param in model.parameters()]
        out += [trainer.predict(x).tobytes(), np.array(history.history["loss"]).tobytes()]
    return b"".join(out)


@pytest.fixture(scope="module")
def reference_bits() -> bytes:
    return deterministic_run()


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    before = fg.get_num_threads()
    yield
    fg.set_num_threads(before)


@pytest.mark.usefixtures("_threads_restored")
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_change_no_bit(threads: int, reference_bits: bytes) -> None:
    fg.set_num_threads(threads)
    assert fg.get_num_threads() == threads
    assert deterministic_run() == reference_bits


@pytest.mark.usefixtures("_threads_restored")
def test_n_threads_is_the_trainers_own() -> None:
    fg.set_num_threads(2)
    seen = []

    class Look(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            seen.append(fg.get_num_threads())

    model = nn.Linear(WIDTH, WIDTH)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), n_threads=3)
    trainer.fit(X, LABELS, epochs=1, callbacks=[Look()], progress=False)
    assert (seen, fg.get_num_threads()) == ([3], 2)


@pytest.mark.parametrize("isa", fg.info()["isa_supported"])
def test_instruction_sets_change_no_bit(isa: str, reference_bits: bytes) -> None:
    code = (
        "import sys, ferrograd as fg; from test_trainer_plan import deterministic_run;"
        f"assert fg.info()['isa'] == {isa!r}; sys.stdout.buffer.write(deterministic_run())"
    )
    here = os.path.dirname(__file__)
    environment = {**os.environ, "FERROGRAD_ISA": isa, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr.decode()
    assert child.stdout == reference_bits


def test_dropout_differs_between_steps() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    gain = nn.Parameter(np.ones(1))
    trainer = fg.Trainer(lambda x: model(x) * gain, nn.L1Loss(), optim.SGD([gain], lr=0.0))
    losses = [trainer.train_step(X, np.zeros_like(X)) for _ in range(4)]
    assert len(set(losses)) == 4


# What is compiled


def instructions(trainer: fg.Trainer, rows: int) -> list[str]:
    engines = [part for part in trainer._engines["train"] if isinstance(part, fg._core.Engine)]
    found: list[str] = engines[0].instructions(rows)
    return found


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.ReLU, "relu"),
        (nn.Tanh, "tanh"),
        (nn.Sigmoid, "sigmoid"),
        (nn.ELU, "elu"),
        (nn.LeakyReLU, "leaky_relu"),
    ],
)
def test_layers_and_loss_are_fused(activation: Any, name: str) -> None:
    model = nn.Sequential(
        nn.Linear(WIDTH, 8), activation(), nn.Linear(8, 7), activation(), nn.Linear(7, WIDTH)
    )
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    trainer.train_step(X, LABELS)
    names = instructions(trainer, len(X))
    assert names.count(f"matmul+bias+{name}") == 2, names
    assert names.count("cross_entropy+grad") == 1, names


def test_dead_nodes_are_not_compiled() -> None:
    model = nn.Linear(WIDTH, WIDTH)

    def forward(x: fg.Tensor) -> fg.Tensor:
        x.exp().sum()
        return model(x)

    trainer = fg.Trainer(forward, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    trainer.train_step(X, LABELS)
    assert not [name for name in instructions(trainer, len(X)) if "exp" in name]


def test_a_step_is_traced_once_for_a_batch_size() -> None:
    model = nn.Linear(WIDTH, WIDTH)
    traced = []

    def forward(x: fg.Tensor) -> fg.Tensor:
        traced.append(x.shape[0])
        return model(x)

    trainer = fg.Trainer(forward, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    trainer.fit(X, LABELS, epochs=3, batch_size=8, progress=False)
    assert sorted(traced) == [4, 8]
    traced.clear()
    for _ in range(3):
        trainer.train_step(X, LABELS)
        trainer.train_step(X[:3], LABELS[:3])
        trainer.predict(X)
        trainer.evaluate(X, LABELS)
    assert sorted(traced) == [3, 20, 20, 20]


def test_a_changed_model_or_option_is_compiled_anew() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    trainer.train_step(X, LABELS)
    before = trainer.predict(X)
    model[1] = nn.Tanh()
    after = trainer.predict(X)
    assert (before != after).any()
    expected = trainer.loss(model(fg.tensor(X, dtype=fg.float32)), fg.tensor(LABELS)).item()
    assert trainer.train_step(X, LABELS) == expected
    trainer.l2 = 2.0
    penalty = float((model[0].weight.numpy().astype(np.float64) ** 2).sum())
    expected = trainer.loss(model(fg.tensor(X, dtype=fg.float32)), fg.tensor(LABELS)).item() + penalty
    np.testing.assert_allclose(trainer.train_step(X, LABELS), expected, rtol=1e-6)
    trainer.loss = nn.MultiMarginLoss()
    expected = trainer.loss(model(fg.tensor(X, dtype=fg.float32)), fg.tensor(LABELS)).item()
    trainer.l2 = 0.0
    np.testing.assert_allclose(trainer.train_step(X, LABELS), expected, rtol=1e-6)


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)
        self.register_buffer("scale", fg.ones(1))
        self.factor = 1.0

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return self.inner(x) * self.scale * self.factor


def test_a_replaced_buffer_or_attribute_is_seen_by_the_next_prediction() -> None:
    model = _Scaled()
    trainer = fg.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    rows = np.ones((3, 2), np.float32)
    once = trainer.predict(rows)
    model.scale = fg.full((1,), 2.0)
    assert trainer.predict(rows).tolist() == (2 * once).tolist()
    model.factor = 2.0
    assert trainer.predict(rows).tolist() == (4 * once).tolist()


def test_a_replaced_loss_of_the_same_name_is_seen_by_the_next_evaluation() -> None:
    fg.manual_seed(0)
    model = nn.Linear(2, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    rows, labels = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([0, 1])
    for weight in ([1.0, 1.0], [5.0, 1.0]):
        trainer.loss = nn.CrossEntropyLoss(weight=fg.tensor(weight))
        expected = trainer.loss(model(rows.astype(np.float32)), labels).item()
        assert trainer.evaluate(rows, labels)["loss"] == pytest.approx(expected, rel=1e-6)


def test_clipping_of_a_plain_function_may_be_changed_between_steps() -> None:
    weight = fg.tensor([[3.0]], requires_grad=True)
    trainer = fg.Trainer(lambda x: x @ weight, nn.MSELoss(), optim.SGD([weight], lr=1.0))
    rows, targets = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    trainer.train_step(rows, targets)
    assert weight.item() == -3.0
    trainer.clip_grad_norm = 0.5
    trainer.train_step(rows, targets)
    assert weight.item() == pytest.approx(-2.5, abs=1e-5)


def test_amsgrad_that_is_turned_off_is_off_in_the_plan_too() -> None:
    found = []
    for compiled in (True, False):
        p = nn.Parameter(np.array([[1.0]]))
        adam = optim.Adam([p], lr=0.1, amsgrad=True)
        trainer = fg.Trainer(lambda x, p=p: x @ p, nn.MSELoss(), adam)
        for scale in (10.0, 1.0, 1.0):
            rows, targets = np.array([[scale]]), np.array([[0.0]])
            if compiled:
                trainer.train_step(rows, targets)
            else:
                adam.zero_grad()
                nn.MSELoss()(fg.tensor(rows) @ p, targets).backward()
                adam.step()
            adam.param_groups[0]["amsgrad"] = False
        found.append(p.item())
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_a_loss_without_the_optimizers_parameters_is_refused() -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(fg.GraphError, match="none of the optimizer's parameters"):
        trainer.train_step(np.ones((2, 2)), [0, 1])


def test_momentum_that_is_turned_on_between_steps_is_followed() -> None:
    weight = fg.tensor([[1.0]], requires_grad=True)
    sgd = optim.SGD([weight], lr=0.1)
    trainer = fg.Trainer(lambda x: x @ weight, nn.MSELoss(), sgd)
    rows, targets = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    trainer.train_step(rows, targets)
    sgd.param_groups[0]["momentum"] = 0.5
    trainer.train_step(rows, targets)
    trainer.train_step(rows, targets)
    # 1 -> 0.8; v = 1.6 -> 0.64; v = 0.8 + 1.28 -> 0.432
    assert weight.item() == pytest.approx(0.432, abs=1e-6)


def test_a_parameter_that_the_loss_does_not_reach_is_left_alone_and_joins_later() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
            self.joined = False

        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return self.first(x) + self.second(x) if self.joined else self.first(x)

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.integers(0, 3, 12)
    results = []
    for native in (True, False):
        fg.manual_seed(0)
        model = Two().double()
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        loss = nn.CrossEntropyLoss()
        trainer = fg.Trainer(model, loss, optimizer)
        for step in range(6):
            model.joined = step >= 3
            if native:
                trainer.train_step(x, y)
            else:
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
        results.append([param.numpy() for param in model.parameters()])
        assert optimizer.steps_of(model.first.weight) == 6
        assert optimizer.steps_of(model.second.weight) == 3
    for ours, eager in zip(*results, strict=True):
        np.testing.assert_allclose(ours, eager, rtol=1e-12, atol=1e-14)
