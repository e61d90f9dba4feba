"""Repeated calls of train_step take a short way: every change is seen, every bit is the long way's."""

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 12)
T = RNG.normal(size=(12, 3)).astype(np.float32)


def plain(params: Any) -> fg.optim.SGD:
    return fg.optim.SGD(params, lr=0.1)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": plain,
    "nesterov": lambda p: fg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: fg.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: fg.optim.AdamW(p, lr=0.01, amsgrad=True),
    "nadam": lambda p: fg.optim.NAdam(p, lr=0.01),
    "asgd": lambda p: fg.optim.ASGD(p, lr=0.1, lambd=0.01, t0=100),
}


def make(optimizer: Callable[..., Any] = plain, loss: Any = None, **options: Any) -> fg.Trainer:
    fg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3))
    loss = nn.CrossEntropyLoss() if loss is None else loss
    return fg.Trainer(model, loss, optimizer(model.parameters()), **options)


class Slow:
    """A trainer that never takes the short way."""

    def __init__(self, trainer: fg.Trainer) -> None:
        self.trainer = trainer

    def train_step(self, X: Any, y: Any) -> float:
        compiled = self.trainer._engines.get("train")
        if compiled is not None:
            self.trainer._engines["train"] = compiled._replace(again=None)
        return self.trainer.train_step(X, y)


def is_repeated(trainer: fg.Trainer, X: Any = X, y: Any = Y) -> bool:
    """Whether the next step takes the short way; makes it."""
    return trainer._step_again(X, y) is not None


def state(trainer: fg.Trainer) -> list[Any]:
    values = [param.detach().numpy() for param in trainer.model.parameters()]
    for entries in trainer.optimizer.state_dict()["state"].values():
        values += [v.numpy() if isinstance(v, fg.Tensor) else v for _, v in sorted(entries.items())]
    return values


def assert_same(one: fg.Trainer, other: fg.Trainer) -> None:
    for a, b in zip(state(one), state(other), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"l2": 0.1}, {"clip_grad_norm": 0.01}, {"n_threads": 1}])
def test_the_short_way_has_the_bits_of_the_long_one(name: str, options: dict[str, Any]) -> None:
    fast, slow = make(OPTIMIZERS[name], **options), make(OPTIMIZERS[name], **options)
    for step in range(300):
        rows = 12 if step % 3 else 5
        wanted = Slow(slow).train_step(X[:rows], Y[:rows])
        assert fast.train_step(X[:rows], Y[:rows]) == wanted
    assert is_repeated(fast)
    Slow(slow).train_step(X, Y)
    assert_same(fast, slow)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.HalfSquaredErrorLoss(), nn.functional.mse_loss])
def test_floating_targets(loss: Any) -> None:
    fast, slow = make(loss=loss), make(loss=copy.copy(loss))
    for _ in range(4):
        assert fast.train_step(X, T) == Slow(slow).train_step(X, T)
    assert is_repeated(fast, X, T)
    assert not is_repeated(fast, X, Y[:, None].repeat(3, 1))


def test_batches_of_any_dtype_and_strides() -> None:
    tables = [
        X.astype(np.float64),
        np.asfortranarray(X),
        np.tile(X, (1, 2))[:, 4:],
        X[::-1][::-1],
        (X * 10).astype(np.int8),
    ]
    for table in tables:
        fast, slow = make(), make()
        fast.train_step(X, Y)
        slow.train_step(X, Y)
        assert fast._step_again(table, Y.astype(np.uint8)) == Slow(slow).train_step(table, Y.astype(np.uint8))
        assert_same(fast, slow)


def lower_rate(trainer: Any) -> None:
    trainer.optimizer.param_groups[0]["lr"] = 0.01


def momentum(trainer: Any) -> None:
    trainer.optimizer.param_groups[0]["momentum"] = 0.5


def another_group(trainer: Any) -> None:
    removed = trainer.optimizer.param_groups[0]["params"].pop()
    trainer.optimizer.add_param_group({"params": [removed], "lr": 0.5})


def parameter_left_out(trainer: Any) -> None:
    trainer.optimizer.state.pop(trainer.optimizer.param_groups[0]["params"].pop(0), None)


def replaced_layer(trainer: Any) -> None:
    trainer.model[1] = nn.Tanh()


def replaced_parameter(trainer: Any) -> None:
    trainer.model[0].bias = nn.Parameter(fg.ones(8))


def weight_in_place(trainer: Any) -> None:
    with fg.no_grad():
        trainer.model[0].weight *= 0.5


def loaded(trainer: Any) -> None:
    trainer.model.load_state_dict({k: v * 0.5 for k, v in trainer.model.state_dict().items()})


def other_slope(trainer: Any) -> None:
    trainer.model[1].negative_slope = 0.7


def frozen(trainer: Any) -> None:
    trainer.model[0].weight.requires_grad = False


def smoothing(trainer: Any) -> None:
    trainer.loss.label_smoothing = 0.3


def class_weights(trainer: Any) -> None:
    trainer.loss.weight = fg.tensor([1.0, 2.0, 3.0])


def another_loss(trainer: Any) -> None:
    trainer.loss = nn.MulticlassHingeLoss()


def penalty(trainer: Any) -> None:
    trainer.l2 = 0.5


def clipping(trainer: Any) -> None:
    trainer.clip_grad_norm = 1e-3


def another_model(trainer: Any) -> None:
    trainer.model = nn.Sequential(trainer.model[0], nn.ReLU(), trainer.model[2])


def another_optimizer(trainer: Any) -> None:
    trainer.optimizer = fg.optim.Adam(trainer.model.parameters(), lr=0.5)


def fitted(trainer: Any) -> None:
    trainer.fit(X, Y, epochs=2, batch_size=4, seed=0, progress=False)


def eager_step(trainer: Any) -> None:
    nn.CrossEntropyLoss()(trainer.model(fg.tensor(X)), fg.tensor(Y)).backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def loaded_optimizer(trainer: Any) -> None:
    saved = trainer.optimizer.state_dict()
    for entries in saved["state"].values():
        entries["step"] = 50
    trainer.optimizer.load_state_dict(saved)


def step_count(trainer: Any) -> None:
    for entries in trainer.optimizer.state.values():
        entries["step"] = 3


CHANGES = [
    lower_rate,
    momentum,
    another_group,
    parameter_left_out,
    replaced_layer,
    replaced_parameter,
    weight_in_place,
    loaded,
    other_slope,
    frozen,
    smoothing,
    class_weights,
    another_loss,
    penalty,
    clipping,
    another_model,
    another_optimizer,
    fitted,
    eager_step,
    loaded_optimizer,
    step_count,
]


# Adam has no momentum.
PAIRS = [
    (change, name) for change in CHANGES for name in ("sgd", "adam") if (change, name) != (momentum, "adam")
]


@pytest.mark.parametrize(("change", "name"), PAIRS, ids=lambda part: getattr(part, "__name__", part))
def test_the_next_step_sees_every_change(change: Any, name: str) -> None:
    fast, slow = make(OPTIMIZERS[name]), make(OPTIMIZERS[name])
    for _ in range(3):
        fast.train_step(X, Y)
        slow.train_step(X, Y)
    assert is_repeated(fast)
    slow.train_step(X, Y)
    for trainer in (fast, slow):
        change(trainer)
    # What is not compiled yet cannot be repeated.
    slow._engines.clear()
    for _ in range(3):
        assert fast.train_step(X, Y) == slow.train_step(X, Y)
    assert_same(fast, slow)


def test_modes_stay_and_change_nothing() -> None:
    fast, slow = make(), make()
    for mode in (True, False, True):
        fast.model.train(mode)
        for _ in range(2):
            assert fast.train_step(X, Y) == slow.train_step(X, Y)
            assert fast.model.training is mode


def test_an_unfrozen_parameter_learns() -> None:
    trainer = make()
    trainer.model[0].weight.requires_grad = False
    trainer.train_step(X, Y)
    before = trainer.model[0].weight.numpy()
    assert is_repeated(trainer)
    assert (trainer.model[0].weight.detach().numpy() == before).all()
    trainer.model[0].weight.requires_grad = True
    trainer.train_step(X, Y)
    assert (trainer.model[0].weight.detach().numpy() != before).any()


def test_dropout_draws_anew_in_each_step() -> None:
    fg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.0))
    assert len({trainer.train_step(X, Y) for _ in range(5)}) == 5


BAD: list[Any] = [
    (np.where(X[2, 1] == X, np.nan, X), Y, fg.NonFiniteError, "X: expected finite values, got NaN in row 2"),
    (X, np.where(np.arange(12) == 7, 3, Y), fg.LabelError, r"labels in 0..2, got 3 in row 7"),
    (X, np.where(np.arange(12) == 7, -1, Y), fg.LabelError, "got -1 in row 7"),
    (X, np.full(12, 2**63, np.uint64), fg.LabelError, "below 2"),
    (X, Y[:5], fg.ShapeError, "y: expected 12 rows"),
    (X[:, :3], Y, fg.ShapeError, "linear"),
    (X[0], Y, fg.ShapeError, "n_samples, n_features"),
    (X, None, fg.DTypeError, "y: expected an array, got None"),
    (X.astype(complex), Y, fg.DTypeError, "complex"),
]


@pytest.mark.parametrize(("inputs", "labels", "error", "text"), BAD)
def test_bad_batches_are_refused_as_before(inputs: Any, labels: Any, error: Any, text: str) -> None:
    trainer, twin = make(OPTIMIZERS["adam"]), make(OPTIMIZERS["adam"])
    for _ in range(2):
        trainer.train_step(X, Y)
        twin.train_step(X, Y)
    with pytest.raises(error, match=text):
        trainer.train_step(inputs, labels)
    assert_same(trainer, twin)
    assert trainer.train_step(X, Y) == twin.train_step(X, Y)


def test_bad_options_are_refused_as_before() -> None:
    trainer = make()
    trainer.train_step(X, Y)
    trainer.optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(fg.ConfigError, match="lr"):
        trainer.train_step(X, Y)


def test_ignored_labels_are_no_error() -> None:
    trainer = make()
    trainer.train_step(X, Y)
    some = np.where(np.arange(12) < 4, -100, Y)
    assert is_repeated(trainer, X, some)


def test_a_loss_that_is_not_finite_makes_no_step() -> None:
    trainer = make(OPTIMIZERS["adam"])
    trainer.train_step(X, Y)
    before = state(trainer)
    huge = np.full_like(X, np.finfo(np.float32).max)
    assert not np.isfinite(trainer._step_again(huge, Y))
    with pytest.warns(fg.ConvergenceWarning, match="the step was not made"):
        assert not np.isfinite(trainer.train_step(huge, Y))
    for a, b in zip(before, state(trainer), strict=True):
        assert np.array_equal(a, b)
    assert is_repeated(trainer)


class Listed(nn.Module):
    """Its forward reads a list, which changes without an assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.factors = [1.0]

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.factors[0]


class Scheduled(fg.optim.SGD):
    """Its rule does not follow from its options alone."""

    rate = 0.1

    def rule(self, group: Any, steps: int) -> dict[str, Any]:
        return {**super().rule(group, steps), "lr": self.rate}


def test_what_can_change_unnoticed_is_looked_at_each_time() -> None:
    model = Listed()
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    trainer.train_step(X, Y)
    assert not is_repeated(trainer)
    trainer = make(lambda params: Scheduled(params, lr=0.1))
    trainer.train_step(X, Y)
    assert not is_repeated(trainer)
    trainer = make()
    trainer.optimizer.param_groups[0]["lr"] = np.array(0.1)
    trainer.train_step(X, Y)
    assert not is_repeated(trainer)


def test_steps_from_a_callback_and_from_threads() -> None:
    trainer = make()
    trainer.train_step(X, Y)

    class Stepping(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            trainer.train_step(X, Y)

    with pytest.raises(fg.GraphError, match="already fitting"):
        trainer.fit(X, Y, epochs=1, callbacks=[Stepping()], progress=False)
    made = []

    def work() -> None:
        for _ in range(50):
            try:
                trainer.train_step(X, Y)
                made.append(1)
            except fg.GraphError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made
    assert is_repeated(trainer)


def test_a_trainer_is_freed() -> None:
    trainer = make(OPTIMIZERS["adam"])
    trainer.train_step(X, Y)
    trainer.train_step(X, Y)
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None
