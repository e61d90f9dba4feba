"""The contract of `Trainer`: what a fit computes, records, restores and refuses."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

RNG = np.random.default_rng(7)
X = RNG.normal(size=(30, 6))
Y = RNG.integers(0, 3, 30)
QUIET: dict[str, Any] = {"progress": False, "shuffle": False}


def make(
    layers: Callable[[], list[nn.Module]] | None = None,
    *,
    optimizer: str = "momentum",
    loss: Any = None,
    dtype: Any = fg.float64,
    seed: int = 1,
    **options: Any,
) -> fg.Trainer:
    """A trainer whose weights follow from `seed`."""
    fg.manual_seed(seed)
    made_layers = layers() if layers else [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)]
    model = nn.Sequential(*made_layers).to(dtype)
    params = list(model.parameters())
    made: optim.Optimizer
    if optimizer == "sgd":
        made = optim.SGD(params, lr=0.1)
    elif optimizer == "momentum":
        made = optim.SGD(params, lr=0.1, momentum=0.9)
    else:
        made = optim.Adam(params, lr=0.01)
    return fg.Trainer(model, loss or nn.CrossEntropyLoss(), made, **options)


def weights(trainer: fg.Trainer) -> list[bytes]:
    return [param.numpy().tobytes() for param in trainer.optimizer.param_groups[0]["params"]]


def arrays(trainer: fg.Trainer) -> list[Any]:
    return [param.numpy() for param in trainer.optimizer.param_groups[0]["params"]]


def state(trainer: fg.Trainer) -> list[Any]:
    entries = trainer.optimizer.state_dict()["state"].items()
    return [
        (number, key, value.numpy().tobytes() if isinstance(value, fg.Tensor) else value)
        for number, found in sorted(entries)
        for key, value in sorted(found.items())
    ]


def eager_gradients(trainer: fg.Trainer, x: Any, y: Any) -> list[Any]:
    loss = trainer.loss(trainer.model(fg.tensor(x)), fg.tensor(y))
    grads = fg.autograd.grad(loss, trainer.optimizer.param_groups[0]["params"])
    return [grad.numpy() for grad in grads if grad is not None]


# What a fit computes


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_second_fit_continues(optimizer: str) -> None:
    whole, halves = make(optimizer=optimizer), make(optimizer=optimizer)
    long = whole.fit(X, Y, epochs=6, batch_size=8, **QUIET)
    first = halves.fit(X, Y, epochs=2, batch_size=8, **QUIET)
    second = halves.fit(X, Y, epochs=4, batch_size=8, **QUIET)
    assert weights(whole) == weights(halves)
    assert state(whole) == state(halves)
    assert first.history["loss"] + second.history["loss"] == long.history["loss"]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_fit_equals_the_same_train_steps(optimizer: str) -> None:
    fitted, stepped = make(optimizer=optimizer), make(optimizer=optimizer)
    history = fitted.fit(X, Y, epochs=2, batch_size=8, **QUIET)
    losses = [stepped.train_step(X[i : i + 8], Y[i : i + 8]) for _ in range(2) for i in range(0, 30, 8)]
    assert weights(fitted) == weights(stepped)
    assert state(fitted) == state(stepped)
    sizes = [8, 8, 8, 6]
    expected = [np.average(losses[:4], weights=sizes), np.average(losses[4:], weights=sizes)]
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-14)


def test_history_has_a_value_an_epoch_under_each_name() -> None:
    history = make().fit(X, Y, epochs=3, validation_data=(X[:5], Y[:5]), progress=False)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert {len(values) for values in history.history.values()} == {3}
    assert history.epoch == [0, 1, 2]
    assert all(type(value) is float for values in history.history.values() for value in values)
    regression = make(lambda: [nn.Linear(6, 1)], loss=nn.MSELoss())
    history = regression.fit(X, X[:, :1], epochs=2, validation_data=(X, X[:, :1]), progress=False)
    assert list(history.history) == ["loss", "val_loss"]
    assert make().fit(X, Y, epochs=0).history == {}


def test_loss_is_the_weighted_mean_of_batch_losses_with_the_penalty() -> None:
    sample_weight = RNG.uniform(0, 2, 30)
    trainer = make(optimizer="sgd", l2=0.3)
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    history = trainer.fit(X, Y, epochs=2, batch_size=8, sample_weight=sample_weight, **QUIET)
    w1, b1, w2, b2 = arrays(trainer)
    scores = np.tanh(X @ w1.T + b1) @ w2.T + b2
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(30), Y]
    expected = np.average(losses, weights=sample_weight) + 0.15 * ((w1**2).sum() + (w2**2).sum())
    np.testing.assert_allclose(history.history["loss"], [expected, expected], rtol=1e-12)
    accuracy = (scores.argmax(1) == Y).mean()
    assert history.history["accuracy"] == [accuracy, accuracy]
    result = trainer.evaluate(X, Y, sample_weight, batch_size=7)
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-12)
    assert result["accuracy"] == accuracy


def test_loss_is_measured_before_the_update() -> None:
    trainer = make()
    before = trainer.evaluate(X, Y)["loss"]
    assert trainer.fit(X, Y, epochs=1, batch_size=30, **QUIET).history["loss"] == [before]
    before = trainer.evaluate(X, Y)["loss"]
    assert trainer.train_step(X, Y) == before


def test_l2_pulls_at_weights_and_not_at_biases() -> None:
    trainer = make(optimizer="sgd", l2=0.5)
    trainer.optimizer.param_groups[0]["lr"] = 1.0
    before, gradients = arrays(trainer), eager_gradients(trainer, X, Y)
    trainer.train_step(X, Y)
    for old, new, gradient in zip(before, arrays(trainer), gradients, strict=True):
        penalty = 0.5 * old if old.ndim >= 2 else 0.0
        np.testing.assert_allclose(old - new, gradient + penalty, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clipping_equals_eager_clipping(limit: float) -> None:
    trainer = make(optimizer="sgd", clip_grad_norm=limit)
    before, gradients = arrays(trainer), eager_gradients(trainer, X, Y)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    factor = min(1.0, limit / (norm + 1e-6))
    assert (factor < 1) == (limit == 0.01)
    trainer.train_step(X, Y)
    for old, new, gradient in zip(before, arrays(trainer), gradients, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * factor * gradient, rtol=1e-12, atol=1e-15)


LOSSES = [
    nn.CrossEntropyLoss(),
    nn.MultiMarginLoss(),
    nn.MulticlassHingeLoss(),
    nn.CrossEntropyLoss(reduction="sum"),
]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_weight_of_two_is_a_sample_twice(loss: nn.Loss) -> None:
    counts = RNG.integers(0, 4, 30)
    weighted, repeated = make(loss=loss), make(loss=loss)
    options: dict[str, Any] = {"epochs": 5, "batch_size": 1000, **QUIET}
    weighted.optimizer.param_groups[0]["lr"] = repeated.optimizer.param_groups[0]["lr"] = 0.001
    weighted.fit(X, Y, sample_weight=counts, **options)
    repeated.fit(np.repeat(X, counts, axis=0), np.repeat(Y, counts), **options)
    for a, b in zip(arrays(weighted), arrays(repeated), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_validation_is_evaluation_after_the_epoch_and_changes_nothing() -> None:
    plain, validated = (make(lambda: [nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 3)]) for _ in range(2))
    plain.fit(X, Y, epochs=3, seed=0, progress=False)
    weight = np.linspace(0, 1, 30)
    history = validated.fit(X, Y, epochs=3, seed=0, progress=False, validation_data=(X, Y, weight))
    assert weights(plain) == weights(validated)
    found = validated.evaluate(X, Y, weight)
    assert (history.history["val_loss"][-1], history.history["val_accuracy"][-1]) == (
        found["loss"],
        found["accuracy"],
    )


def test_drop_last_leaves_the_short_batch_out() -> None:
    dropped, cut = make(), make()
    a = dropped.fit(X, Y, epochs=2, batch_size=8, drop_last=True, **QUIET)
    b = cut.fit(X[:24], Y[:24], epochs=2, batch_size=8, **QUIET)
    assert weights(dropped) == weights(cut)
    assert a.history == b.history


def test_a_short_last_batch_equals_its_own_step() -> None:
    for rows in (1, 5, 29, 30, 31):
        trainer = make()
        trainer.fit(X, Y, epochs=1, batch_size=rows, **QUIET)
        stepped = make()
        for start in range(0, 30, rows):
            stepped.train_step(X[start : start + rows], Y[start : start + rows])
        assert weights(trainer) == weights(stepped), rows


# Data are read as they are


def test_uint8_images_equal_their_float_copy() -> None:
    images = RNG.integers(0, 256, (30, 4, 5), dtype=np.uint8)
    results = []
    for data in (images, images.astype(np.float32), images.astype(np.float64)):
        trainer = make(lambda: [nn.Flatten(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3)], dtype=fg.float32)
        trainer.fit(data, Y, epochs=3, batch_size=7, seed=5, progress=False)
        results.append((weights(trainer), trainer.predict(data).tobytes()))
    assert results[0] == results[1] == results[2]


def layouts(values: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """The same values in other places and orders."""
    wide = np.zeros((2 * values.shape[0], *values.shape[1:]), values.dtype)
    wide[::2] = values
    yield "step", wide[::2]
    yield "fortran", np.asfortranarray(values)
    yield "negative", np.ascontiguousarray(values[::-1])[::-1]
    read_only = values.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    unaligned = np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(values.dtype).reshape(values.shape)
    yield "unaligned", unaligned
    yield "big-endian", values.astype(values.dtype.newbyteorder(">"))
    path = folder / f"{values.dtype}.npy"
    np.save(path, values)
    yield "memmap r", np.load(path, mmap_mode="r")
    yield "memmap c", np.load(path, mmap_mode="c")
    yield "object", values.astype(object)
    yield "list", values.tolist()


def test_every_layout_has_the_bits_of_the_contiguous_copy(tmp_path: Path) -> None:
    def run(x: Any, y: Any) -> tuple[list[bytes], bytes]:
        trainer = make()
        trainer.fit(x, y, epochs=2, batch_size=7, seed=3, progress=False)
        return weights(trainer), trainer.predict(x).tobytes()

    expected = run(X, Y)
    for (name, x), (_, y) in zip(layouts(X, tmp_path), layouts(Y, tmp_path), strict=True):
        assert run(x, y) == expected, name
    assert run(fg.tensor(X), fg.tensor(Y)) == expected


def test_a_row_repeated_by_zero_strides_is_read_in_place() -> None:
    row = X[0]
    repeated = np.broadcast_to(row, (30, 6))
    a, b = make(), make()
    a.fit(repeated, Y, epochs=1, **QUIET)
    b.fit(repeated.copy(), Y, epochs=1, **QUIET)
    assert weights(a) == weights(b)


# Seeds


def test_a_seed_fixes_every_bit_and_another_seed_does_not() -> None:
    def run(seed: int | None, start: int = 0) -> list[bytes]:
        trainer = make(
            lambda: [nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)], dtype=fg.float32
        )
        fg.manual_seed(start)
        trainer.fit(X, Y, epochs=3, batch_size=7, seed=seed, progress=False)
        return weights(trainer)

    assert run(1) == run(1) == run(1, start=9)
    assert run(1) != run(2)
    assert run(None) == run(None) != run(None, start=9)
    assert run(np.int64(1)) == run(1)  # type: ignore[arg-type]
    assert run(2**64 - 1) == run(2**64 - 1)


def test_shuffling_differs_between_epochs_and_from_the_order_given() -> None:
    seen: list[list[bytes]] = []
    for epochs, shuffle in [(1, True), (1, False)]:
        trainer = make()
        trainer.fit(X, Y, epochs=epochs, batch_size=4, shuffle=shuffle, seed=0, progress=False)
        seen.append(weights(trainer))
    assert seen[0] != seen[1]
    # Rate 0: the loss of an epoch is a sum in the epoch's order, which alone can differ.
    trainer = make(dtype=fg.float32, optimizer="sgd")
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    many = RNG.normal(size=(999, 6))
    history = trainer.fit(many, Y[RNG.integers(0, 30, 999)], epochs=6, batch_size=4, seed=0, progress=False)
    assert len(set(history.history["loss"])) > 1


# Callbacks


class Recorder(fg.Callback):
    """Writes down what it is told."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.events: list[str] = []
        self.weights: list[list[bytes]] = []

    def on_train_begin(self, logs: dict[str, float]) -> None:
        self.events.append("begin")

    def on_train_end(self, logs: dict[str, float]) -> None:
        self.events.append("end")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        self.events.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.events.append(f"epoch {epoch} {'/'.join(logs)}")
        self.weights.append(weights(self.trainer))


def test_callbacks_are_told_in_order() -> None:
    recorder = Recorder()
    trainer = make()
    trainer.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[recorder], progress=False)
    logs = "loss/accuracy/val_loss/val_accuracy"
    assert recorder.events == ["begin", "epoch 0", f"epoch 0 {logs}", "epoch 1", f"epoch 1 {logs}", "end"]
    assert recorder.trainer is trainer
    assert recorder.weights[-1] == weights(trainer)


def test_stop_training_ends_after_the_epoch_and_not_the_next_fit() -> None:
    class Stop(Recorder):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            super().on_epoch_end(epoch, logs)
            self.trainer.stop_training = True

    stop = Stop()
    trainer = make()
    assert trainer.fit(X, Y, epochs=5, callbacks=[stop], progress=False).epoch == [0]
    assert stop.events[-1] == "end"
    assert trainer.fit(X, Y, epochs=3, progress=False).epoch == [0, 1, 2]


class Scripted(Recorder):
    """Logs given values under the name `score`."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        super().on_epoch_end(epoch, logs)
        logs["score"] = self.values[epoch]


@pytest.mark.parametrize(
    ("options", "values", "best", "stopped"),
    [
        ({"patience": 2}, [3, 1, 2, 2, 0, 0], 1, 3),
        ({"patience": 0}, [3, 2, 2, 0, 0, 0], 1, 2),
        ({"patience": 2, "mode": "max"}, [1, 3, 2, 2, 9, 9], 1, 3),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.9, 2.8, 0, 0, 0], 0, 2),
        ({"patience": 9}, [3, 2, 1, 4, 5, 6], 2, None),
        ({"patience": 2}, [float("nan"), 2, 1, 3, 4, 5], 2, 4),
        ({"patience": 2}, [3, float("nan"), float("nan"), 0, 0, 0], 0, 2),
    ],
)
def test_early_stopping_keeps_the_best_weights(
    options: dict[str, Any], values: list[float], best: int, stopped: int | None
) -> None:
    script = Scripted(values)
    early = fg.EarlyStopping("score", restore_best_weights=True, **options)
    trainer = make()
    history = trainer.fit(X, Y, epochs=6, callbacks=[script, early], progress=False)
    assert (early.best_epoch, early.stopped_epoch, early.best) == (best, stopped, values[best])
    assert len(history.epoch) == (6 if stopped is None else stopped + 1)
    assert weights(trainer) == script.weights[best]
    assert script.weights[best] != script.weights[-1]


def test_early_stopping_names_what_it_can_monitor() -> None:
    with pytest.raises(
        fg.ConfigError, match=r"monitor: expected one of \['accuracy', 'loss'\], got 'val_loss'"
    ):
        make().fit(X, Y, callbacks=[fg.EarlyStopping()], progress=False)


def test_a_rate_changed_by_a_callback_is_followed() -> None:
    class Freeze(Recorder):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            super().on_epoch_end(epoch, logs)
            self.trainer.optimizer.param_groups[0]["lr"] = 0.0

    freeze = Freeze()
    trainer = make()
    start = weights(trainer)
    trainer.fit(X, Y, epochs=3, callbacks=[freeze], progress=False)
    assert start != freeze.weights[0] == freeze.weights[1] == freeze.weights[2]


def test_a_callbacks_own_error_comes_out_and_the_trainer_goes_on() -> None:
    class Failing(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            raise LookupError("mine")

    trainer = make()
    with pytest.raises(LookupError, match="mine"):
        trainer.fit(X, Y, callbacks=[Failing()], progress=False)
    assert len(trainer.fit(X, Y, epochs=2, progress=False).epoch) == 2


@pytest.mark.parametrize("call", ["fit", "train_step"])
def test_training_from_a_callback_is_refused(call: str) -> None:
    class Nested(fg.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
            getattr(self.trainer, call)(X, Y)

    trainer = make()
    start = weights(trainer)
    with pytest.raises(fg.GraphError, match="already fitting in another thread or callback"):
        trainer.fit(X, Y, callbacks=[Nested()], progress=False)
    assert weights(trainer) == start


def test_a_callback_may_predict_and_evaluate() -> None:
    class Look(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            logs["mine"] = self.trainer.evaluate(X, Y)["loss"] + self.trainer.predict(X).sum()

    history = make().fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[Look()], progress=False)
    assert len(set(history.history["mine"])) == 2


# Losses that are not finite


def divergent(rate: float) -> fg.Trainer:
    trainer = make(lambda: [nn.Linear(6, 1)], loss=nn.MSELoss())
    trainer.optimizer.param_groups[0]["lr"] = rate
    return trainer


def test_a_loss_that_overflows_stops_the_fit_with_the_best_weights() -> None:
    target = X[:, :1]
    one_epoch = divergent(1e200)
    one_epoch.fit(X, target, epochs=1, batch_size=30, **QUIET)
    trainer = divergent(1e200)
    recorder = Recorder()
    with pytest.warns(
        fg.ConvergenceWarning, match=r"became (inf|nan) in epoch 1, batch 0.*lowest loss.*learning rate"
    ):
        history = trainer.fit(X, target, epochs=9, batch_size=30, callbacks=[recorder], **QUIET)
    assert history.epoch == [0]
    assert recorder.events[-1] == "end"
    assert weights(trainer) == weights(one_epoch)
    assert state(trainer) == state(one_epoch)


def test_a_loss_that_overflows_in_the_first_epoch_leaves_the_initial_weights() -> None:
    trainer = divergent(1e200)
    start = weights(trainer)
    with pytest.warns(
        fg.ConvergenceWarning, match=r"in epoch 0, batch 1; training stopped, the weights are the initial"
    ):
        history = trainer.fit(X, X[:, :1], epochs=9, batch_size=10, **QUIET)
    assert history.history == {}
    assert weights(trainer) == start
    assert all(not np.any(np.frombuffer(value)) for _, _, value in state(trainer) if isinstance(value, bytes))
    # The first step after it is a first step again.
    trainer.optimizer.param_groups[0]["lr"] = 0.1
    fresh = divergent(0.1)
    assert trainer.train_step(X, X[:, :1]) == fresh.train_step(X, X[:, :1])
    assert weights(trainer) == weights(fresh)


@pytest.mark.parametrize("dtype", [fg.float32, fg.float64], ids=repr)
def test_a_step_whose_loss_is_not_finite_is_not_made(dtype: Any) -> None:
    trainer = make(lambda: [nn.Linear(6, 3)], dtype=dtype)
    trainer.train_step(X, Y)
    before, old_state = weights(trainer), state(trainer)
    huge = np.where(X > 0, 1.0, -1.0) * np.finfo(np.float64).max
    with pytest.warns(fg.ConvergenceWarning, match="the loss is (nan|inf); the step was not made"):
        loss = trainer.train_step(huge, Y)
    assert not np.isfinite(loss)
    assert (weights(trainer), state(trainer)) == (before, old_state)
    assert np.isfinite(trainer.train_step(X, Y))
    result = trainer.evaluate(huge, Y)
    assert not np.isfinite(result["loss"])


def test_a_finite_fit_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().fit(X, Y, epochs=2)
    assert issubclass(fg.ConvergenceWarning, UserWarning)


# Parameters


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_write_between_steps_is_seen(optimizer: str) -> None:
    trainer = make(optimizer=optimizer)
    trainer.train_step(X, Y)
    trainer.predict(X)
    with fg.no_grad():
        trainer.model[0].weight.mul_(0.5)  # type: ignore[index]
        trainer.model[2].bias.copy_(np.arange(3.0))  # type: ignore[index]
    scores = trainer.model(fg.tensor(X))
    expected = trainer.loss(scores, fg.tensor(Y)).item()
    np.testing.assert_array_equal(trainer.predict(X), scores.numpy())
    assert trainer.train_step(X, Y) == expected


def test_a_frozen_parameter_is_not_changed() -> None:
    trainer = make(optimizer="adam", l2=0.1)
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.1
    frozen = trainer.model[0].weight  # type: ignore[index]
    trainer.train_step(X, Y)
    for _ in range(2):
        before = frozen.numpy()
        frozen.requires_grad_(False)
        trainer.train_step(X, Y)
        trainer.fit(X, Y, epochs=1, progress=False)
        np.testing.assert_array_equal(frozen.numpy(), before)
        frozen.requires_grad_(True)
        trainer.train_step(X, Y)
        assert (frozen.numpy() != before).any()


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_eager_and_compiled_steps_mix(optimizer: str) -> None:
    mixed, eager = make(optimizer=optimizer), make(optimizer=optimizer)

    def eager_step(trainer: fg.Trainer, only: int | None = None) -> None:
        trainer.optimizer.zero_grad()
        trainer.loss(trainer.model(fg.tensor(X)), fg.tensor(Y)).backward()
        for number, param in enumerate(trainer.optimizer.param_groups[0]["params"]):
            if only is not None and number != only:
                param.grad = None
        trainer.optimizer.step()

    # One parameter is a step ahead of the others: its bias correction is its own.
    for only in (None, 1, None):
        mixed.train_step(X, Y)
        eager_step(eager)
        eager_step(mixed, only)
        eager_step(eager, only)
    for a, b in zip(arrays(mixed), arrays(eager), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_groups_have_rates_of_their_own() -> None:
    trainer = make()
    first, second = trainer.model[0], trainer.model[2]  # type: ignore[index]
    groups = [{"params": list(first.parameters()), "lr": 0.0}, {"params": list(second.parameters())}]
    trainer.optimizer = optim.SGD(groups, lr=0.1)
    before = first.weight.numpy(), second.weight.numpy()
    trainer.fit(X, Y, epochs=1, progress=False)
    assert (first.weight.numpy() == before[0]).all()
    assert (second.weight.numpy() != before[1]).any()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_saved_trainer_continues_to_the_bit(optimizer: str, tmp_path: Path) -> None:
    trainer = make(optimizer=optimizer)
    trainer.fit(X, Y, epochs=2, progress=False)
    trainer.save(tmp_path / "trainer.safetensors")
    other = make(optimizer=optimizer, seed=2)
    other.load(tmp_path / "trainer.safetensors")
    assert (weights(other), state(other)) == (weights(trainer), state(trainer))
    expected = [trainer.train_step(X, Y) for _ in range(3)]
    assert [other.train_step(X, Y) for _ in range(3)] == expected
    # Loading replaces buffers that compiled steps know.
    for _ in range(2):
        trainer.load(tmp_path / "trainer.safetensors")
        assert [trainer.train_step(X, Y) for _ in range(3)] == expected
    assert (weights(other), state(other)) == (weights(trainer), state(trainer))


# Prediction


def test_a_rows_prediction_does_not_depend_on_its_batch() -> None:
    for dtype in (fg.float32, fg.float64):
        trainer = make(
            lambda: [nn.Linear(6, 70), nn.Tanh(), nn.Linear(70, 33), nn.ReLU(), nn.Linear(33, 3)], dtype=dtype
        )
        x = RNG.normal(size=(1100, 6))
        expected = trainer.predict(x)
        assert expected.dtype.name == dtype.name
        for batch_size in (1, 7, 64, 1024, 5000):
            assert trainer.predict(x, batch_size=batch_size).tobytes() == expected.tobytes(), batch_size
        assert trainer.predict(x[5:6]).tobytes() == expected[5:6].tobytes()
        assert trainer.predict(x[::-3]).tobytes() == expected[::-3].tobytes()
        np.testing.assert_array_equal(trainer.model(fg.tensor(x.astype(dtype.name))).numpy(), expected)


def test_prediction_is_in_evaluation_mode_and_leaves_modes_and_gradients() -> None:
    trainer = make(lambda: [nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 3)])
    model: Any = trainer.model
    expected = model.eval()(fg.tensor(X)).numpy()
    model.train()
    model[0].eval()
    model[0].weight.grad = fg.ones(9, 6, dtype=fg.float64)
    modes = [module.training for module in model.modules()]
    np.testing.assert_array_equal(trainer.predict(X), expected)
    trainer.evaluate(X, Y)
    trainer.fit(X, Y, epochs=1, progress=False)
    trainer.train_step(X, Y)
    assert [module.training for module in model.modules()] == modes
    assert model[0].weight.grad.tolist() == np.ones((9, 6)).tolist()
    assert model[2].weight.grad is None


def test_no_rows_give_no_predictions() -> None:
    trainer = make()
    assert trainer.predict(X[:0]).shape == (0, 3)
    trainer.predict(X)
    assert trainer.predict(X[:0]).shape == (0, 3)


def test_results_of_other_shapes_and_dtypes_do_not_mix() -> None:
    layer = nn.PReLU()
    trainer = fg.Trainer(layer, nn.MSELoss(), optim.SGD(layer.parameters(), lr=0.1))
    wide, narrow = np.full((4, 5), -1.0), np.full((4, 3), -1.0)
    assert trainer.predict(wide).shape == (4, 5)
    trainer.evaluate(narrow, narrow)
    assert trainer.predict(wide).shape == (4, 5)
    double = fg.Trainer(lambda x: layer(x).double(), nn.MSELoss(), optim.SGD(layer.parameters(), lr=0.1))
    assert double.predict(wide).dtype == np.float64
    np.testing.assert_array_equal(double.predict(wide), np.full((4, 5), -0.25))


def test_weights_that_overflowed_in_a_finite_epoch_are_not_kept() -> None:
    trainer = make(lambda: [nn.Linear(6, 1)], optimizer="sgd", loss=nn.MSELoss(), dtype=fg.float32)
    trainer.optimizer.param_groups[0]["lr"] = 1e38
    before = weights(trainer)
    with pytest.warns(fg.ConvergenceWarning, match="in epoch 1, batch 0; .* are the initial ones"):
        trainer.fit(100 * X, X[:, :1], batch_size=30, epochs=3, **QUIET)
    assert weights(trainer) == before
