"""A last batch that is short: the plans of both sizes keep weights and states in one place.

Whoever looks at them, or sets them, between steps or when an epoch has ended early, finds them as without
packed copies. `anomaly_mode` keeps the numbers and packs nothing, so each run is compared with itself in it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd._typing import Array
from ferrograd.sklearn import MLPClassifier

RNG = np.random.default_rng(3)
# Batches of 16 and 5.
X = RNG.normal(size=(37, 9)).astype(np.float32)
Y = RNG.integers(0, 3, 37)
HELD = RNG.normal(size=(21, 9)).astype(np.float32), RNG.integers(0, 3, 21)
BATCH = 16

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.02),
    "amsgrad": lambda p: optim.AdamW(p, lr=0.02, amsgrad=True),
}


def make(name: str = "adam", *, penalty: float = 0.0) -> fg.Trainer:
    fg.manual_seed(2)
    model = nn.Sequential(nn.Linear(9, 33), nn.Tanh(), nn.Linear(33, 20), nn.ReLU(), nn.Linear(20, 3))
    return fg.Trainer(model, nn.CrossEntropyLoss(), OPTIMIZERS[name](model.parameters()), l2=penalty)


def seen(trainer: fg.Trainer) -> list[Any]:
    """Return the bits of all that a user sees: weights, states, predictions, evaluations."""
    states = trainer.optimizer.state_dict()["state"].values()
    values = [v.numpy() if isinstance(v, fg.Tensor) else v for s in states for _, v in sorted(s.items())]
    values += [v.numpy() for v in trainer.model.state_dict().values()]
    values += [trainer.predict(X), trainer.predict(X[:1]), trainer.predict(X, batch_size=11)]
    return [np.asarray(v).tobytes() for v in values] + [trainer.evaluate(*HELD), trainer.evaluate(X, Y)]


def assert_same_without_packing(run: Callable[[], Any]) -> None:
    with fg.anomaly_mode():
        wanted = run()
    assert run() == wanted


class Watch(fg.Callback):
    """Looks at everything after each epoch, and, where it is asked to, sets weights and states."""

    def __init__(self, *, writes: bool = False) -> None:
        self.writes = writes
        self.found: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.found += [logs.copy(), seen(self.trainer)]
        if self.writes:
            with fg.no_grad():
                weight = self.trainer.model[epoch % 3 * 2].weight
                weight.copy_(weight * 0.9)
                for value in self.trainer.optimizer.state.get(weight, {}).values():
                    if isinstance(value, fg.Tensor) and value.shape == weight.shape:
                        value.copy_(value * 0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_what_is_seen_between_epochs(name: str, writes: bool, penalty: float) -> None:
    def run() -> Any:
        trainer, watch = make(name, penalty=penalty), Watch(writes=writes)
        trainer.fit(X, Y, epochs=5, batch_size=BATCH, seed=1, validation_data=HELD, callbacks=[watch])
        return watch.found, seen(trainer)

    assert_same_without_packing(run)


def test_early_stopping_restores_the_best_weights() -> None:
    def run() -> Any:
        trainer = make("amsgrad")
        stop = fg.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
        options: Any = {"batch_size": BATCH, "seed": 1, "validation_data": HELD}
        history = trainer.fit(X, Y, epochs=200, callbacks=[stop], **options).history
        assert len(history["loss"]) < 200
        assert trainer.evaluate(*HELD)["loss"] == min(history["val_loss"])
        return history, seen(trainer)

    assert_same_without_packing(run)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_between_epochs_continues_to_the_bit(name: str, tmp_path: Path) -> None:
    class Save(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            self.trainer.save(tmp_path / f"{epoch}.safetensors")

    def fit(trainer: fg.Trainer, epochs: int, *callbacks: fg.Callback) -> fg.Trainer:
        trainer.fit(X, Y, epochs=epochs, batch_size=BATCH, shuffle=False, callbacks=callbacks)
        return trainer

    whole = fit(make(name), 6, Save())
    continued = make(name)
    continued.load(tmp_path / "2.safetensors")
    assert seen(fit(continued, 3)) == seen(whole)
    with fg.anomaly_mode():
        assert seen(fit(make(name), 6)) == seen(whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_several_sizes_and_writes_between_them(name: str) -> None:
    def run() -> Any:
        trainer, found = make(name), []
        for number, rows in enumerate([16, 5, 16, 16, 5, 1, 5, 37, 16, 1, 5]):
            found.append(trainer.train_step(X[:rows], Y[:rows]))
            if number % 3 == 1:
                found.append(seen(trainer))
            if number % 4 == 2:
                with fg.no_grad():
                    trainer.model[2].weight.mul_(1.1)
                state = trainer.optimizer.state_dict()
                trainer.optimizer.load_state_dict(state)
            if number == 6:
                trainer.fit(X, Y, epochs=2, batch_size=BATCH, seed=1)
        return found, seen(trainer)

    assert_same_without_packing(run)


@pytest.mark.filterwarnings("ignore:the loss is")
def test_a_failure_between_epochs_and_steps_that_are_not_made() -> None:
    class Fail(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 1:
                raise ZeroDivisionError

    def run() -> Any:
        trainer = make("adam")
        with pytest.raises(ZeroDivisionError):
            trainer.fit(X, Y, epochs=3, batch_size=BATCH, seed=1, callbacks=[Fail()])
        found = [seen(trainer)]
        for rows in (16, 5, 16):
            trainer.train_step(X[:rows], Y[:rows])
            before = seen(trainer)
            weight, kept = trainer.model[4].weight, trainer.model[4].weight.detach().clone()
            with fg.no_grad():
                weight.fill_(3e38)
            with contextlib.suppress(fg.AnomalyError):
                trainer.train_step(X[:rows], Y[:rows])
            with fg.no_grad():
                weight.copy_(kept)
            assert seen(trainer) == before
            found.append(before)
        trainer.fit(X, Y, epochs=2, batch_size=BATCH, seed=1)
        return found, seen(trainer)

    assert_same_without_packing(run)


@pytest.mark.parametrize("interruption", range(6))
def test_an_interruption_leaves_the_weights_of_a_whole_step(interruption: int) -> None:
    trainer, begun = make("adam"), threading.Event()

    class Begun(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            begun.set()

    def interrupt() -> None:
        begun.wait()
        threading.Event().wait(0.003 * interruption)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        # So long an epoch that it is interrupted within.
        order: Array = np.arange(37 * 2999) % 37
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X[order], Y[order], epochs=100, batch_size=BATCH, shuffle=False, callbacks=[Begun()])
    finally:
        begun.set()
        thread.join()
    made = int(next(iter(trainer.optimizer.state_dict()["state"].values()))["step"])
    assert len(order) % BATCH != 0
    per_epoch = -(-len(order) // BATCH)
    assert per_epoch <= made < 100 * per_epoch
    again = make("adam")
    again.fit(X[order], Y[order], epochs=made // per_epoch, batch_size=BATCH, shuffle=False)
    if left := made % per_epoch:
        part = order[: left * BATCH]
        again.fit(X[part], Y[part], epochs=1, batch_size=BATCH, shuffle=False)
    assert seen(trainer) == seen(again)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_estimators(early: bool, solver: str) -> None:
    def run() -> Any:
        model = MLPClassifier((12, 7), solver=solver, batch_size=BATCH, max_iter=8, random_state=0)
        model.set_params(early_stopping=early, n_iter_no_change=3)
        model.fit(X, Y)
        weights = [value.tobytes() for value in [*model.coefs_, *model.intercepts_]]
        return model.loss_curve_, getattr(model, "validation_scores_", None), weights

    assert_same_without_packing(run)
