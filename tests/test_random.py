"""The state of generators: read, put back, and left alone by all that looks at models."""

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.nn import functional as F

mpl.use("Agg")


def test_a_state_repeats_what_was_drawn_after_it() -> None:
    fg.manual_seed(2**64 - 1)
    fg.rand(3)
    state = fg.get_rng_state()
    assert (state.dtype, state.shape, state.requires_grad) == (fg.uint8, (16,), False)

    def draws() -> list[Any]:
        dropped = F.dropout(fg.ones(20), 0.5)
        return [fg.rand(3).tolist(), fg.randn(2, dtype=fg.float64).tolist(), dropped.tolist()]

    first = draws()
    assert draws() != first
    fg.set_rng_state(state)
    assert draws() == first
    # Also from a copy with other strides, as an array.
    twice = np.stack([state.numpy(), state.numpy()], axis=1)
    fg.set_rng_state(twice[:, 0])
    assert draws() == first
    fg.set_rng_state(fg.tensor(twice)[:, 1])
    assert draws() == first


def test_generators_exchange_states() -> None:
    one, other = fg.Generator().manual_seed(7), fg.Generator()
    fg.rand(5, generator=one)
    other.set_state(one.get_state())
    assert other.seed == 7
    assert fg.randn(3, generator=other).tolist() == fg.randn(3, generator=one).tolist()
    default = fg.manual_seed(7)
    fg.rand(5)
    assert default.get_state().tolist() == fg.get_rng_state().tolist() != one.get_state().tolist()


def test_a_wrong_state_changes_nothing() -> None:
    before = fg.get_rng_state().tolist()
    for wrong in (before, before[:8], "abc", None, fg.zeros(16), fg.zeros(4, 4, dtype=fg.uint8)):
        with pytest.raises((fg.DTypeError, fg.ShapeError), match="new_state: "):
            fg.set_rng_state(wrong)  # type: ignore[arg-type]
    assert fg.get_rng_state().tolist() == before


def test_a_fork_ends_where_it_began() -> None:
    fg.manual_seed(1)
    before = fg.get_rng_state().tolist()
    with fg.random.fork_rng():
        inside = fg.rand(2).tolist()
        with pytest.raises(fg.ShapeError), fg.random.fork_rng():
            fg.rand(1).reshape(2)
        after = fg.rand(2).tolist()
    assert fg.get_rng_state().tolist() == before
    assert [fg.rand(2).tolist(), fg.rand(2).tolist()] == [inside, after]
    with fg.random.fork_rng(enabled=False):
        fg.rand(1)
    assert fg.get_rng_state().tolist() != before

    @fg.random.fork_rng()
    def drawn() -> float:
        return float(fg.rand(1).item())

    assert drawn() == drawn()


class Draws(nn.Module):
    """Draws in evaluation mode too, and in training by layers that are known to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.disturb = nn.Sequential(nn.Dropout(0.2), nn.GaussianNoise(0.1), nn.RReLU(), nn.AlphaDropout(0.1))

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        hidden = self.disturb(self.norm(self.first(x)))
        return self.last(F.dropout(F.rrelu(hidden, training=True), 0.3)) + 0.01 * fg.randn(1, dtype=x.dtype)


X, LABELS = fg.datasets.make_moons(n_samples=40, noise=0.2, seed=0)
ROWS = fg.tensor(X, dtype=fg.float32)


def chain(trainer: fg.Trainer) -> nn.Sequential:
    return nn.Sequential(nn.Identity(), trainer.model, nn.Tanh())


LOOKS: dict[str, Callable[[fg.Trainer], Any]] = {
    "draw a model": lambda t: fg.draw(t.model, inputs=X[:3]),
    "draw a call": lambda t: fg.draw(lambda: t.model(fg.rand(3, 2))),
    "draw a tensor": lambda t: fg.draw(t.loss(in_evaluation(t.model, ROWS), fg.tensor(LABELS))),
    "draw a plan": lambda t: fg.draw(t.plan).svg(),
    "cost of a plan": lambda t: t.plan.cost(steps=1),
    "trace": lambda t: fg.trace(t, X[0], int(LABELS[0])),
    "check_gradients": lambda t: fg.check_gradients(t, X[:5], LABELS[:5], max_elements=2),
    "health": lambda t: t.health(),
    "health of rows": lambda t: t.health(X[:9], LABELS[:9]),
    "summary": lambda t: nn.utils.summary(t.model, (3, 2)),
    "cost": lambda t: fg.func.cost(lambda x: in_evaluation(t.model, x).sum(), fg.ones(3, 2)),
    "decision_boundary": lambda t: fg.viz.decision_boundary(t, X, LABELS, resolution=9),
    "hidden_space": lambda t: fg.viz.hidden_space(chain(t), X, LABELS, layer=1, lines=3),
    "saliency": lambda t: fg.viz.saliency(t.model, X[0]),
    "activation": lambda t: fg.viz.activation(lambda x: F.rrelu(x, training=True)),
}


def in_evaluation(model: Any, x: fg.Tensor) -> fg.Tensor:
    """Scores whose draws the test itself puts back: to look at them is another thing than to compute them."""
    with fg.random.fork_rng(), nn.module.in_mode(model, training=False):
        scores: fg.Tensor = model(x)
    return scores


def trained(look: Callable[[fg.Trainer], Any] | None) -> list[Any]:
    """Train by a trainer and by hand, with looks in between and during the fits; return what came of it."""
    fg.manual_seed(4)
    model = Draws()
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.02))

    class Look(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            if look is not None and self.trainer._planned is not None:
                look(self.trainer)

    found: list[Any] = []
    for _ in range(2):
        history = trainer.fit(X, LABELS, epochs=2, batch_size=16, callbacks=[Look()], progress=False)
        found.append(history.history["loss"])
        if look is not None:
            look(trainer)
        found.append(trainer.predict(X[:4]).tolist())
    for _ in range(2):
        loss = trainer.loss(model(ROWS), fg.tensor(LABELS))
        loss.backward()
        if look is not None:
            look(trainer)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    found += [value.tolist() for value in model.state_dict().values()]
    return [*found, fg.rand(2).tolist()]


UNSEEN = trained(None)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", LOOKS)
def test_a_training_run_has_the_same_bits_whatever_looks_at_it(name: str) -> None:
    assert trained(LOOKS[name]) == UNSEEN


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: fg.rand(2, dtype=fg.int64, generator=generator),
        lambda generator: fg.randn(2, dtype=fg.int64, generator=generator),
        lambda generator: fg.rand_like(fg.tensor([1, 2]), generator=generator),
        lambda generator: fg.randn_like(fg.ones(2), device="tpu", generator=generator),
        lambda generator: fg.randint(3, (2,), requires_grad=True, generator=generator),
        lambda generator: fg.randint_like(fg.ones(2), 3, 3, generator=generator),
    ],
)
def test_a_refused_draw_draws_nothing(draw: Callable[[fg.Generator], Any]) -> None:
    generator = fg.Generator().manual_seed(3)
    before = generator.get_state().tolist()
    for randomness in ("same", "different"):
        with pytest.raises((fg.DTypeError, fg.ConfigError, fg.GraphError, fg.DeviceError)):
            draw(generator)
        with pytest.raises((fg.DTypeError, fg.ConfigError, fg.GraphError, fg.DeviceError)):
            fg.func.vmap(lambda x: x + draw(generator), randomness=randomness)(fg.ones(3, 2))
    assert generator.get_state().tolist() == before
