"""Every public layer, loss and optimizer trains in a plan, to the bits of eager steps, without Python."""

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
import test_catalogue as catalogue
import test_optim_plan as optimizers
from ferrograd import nn

EPOCHS = 3
WIDTH, X, TARGET = catalogue.WIDTH, catalogue.X, catalogue.TARGET


class Calls(fg.Callback):
    """Counts the calls of Python functions in all epochs but the first."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        if epoch == 1:
            sys.setprofile(self.count)

    def on_train_end(self, logs: dict[str, float]) -> None:
        sys.setprofile(None)

    def count(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.files[frame.f_code.co_filename.rpartition("ferrograd/")[2]] += 1


def fitted(make: Callable[[], tuple[Any, Any, Any]], x: Any, y: Any, batch: int) -> tuple[Any, Counter[str]]:
    fg.manual_seed(3)
    model, loss, optimizer = make()
    calls = Calls()
    fg.Trainer(model, loss, optimizer).fit(
        x, y, epochs=EPOCHS, batch_size=batch, shuffle=False, progress=False, callbacks=[calls]
    )
    return model, calls.files


def check(make: Callable[[], tuple[Any, Any, Any]], x: Any, y: Any, *, is_random: bool = False) -> None:
    """Train in four batches by hand and in a plan, and in one batch."""
    planned, calls = fitted(make, x, y, 4)
    assert not [name for name in calls if name.startswith(("nn/", "ops", "functional"))]
    assert calls["callbacks.py"] > 0
    if is_random:
        return  # no epoch is like that of other batches: which are kept depends on their losses
    _, of_one_batch = fitted(make, x, y, catalogue.ROWS)
    assert calls == of_one_batch
    fg.manual_seed(3)
    model, loss, optimizer = make()
    for start in [*range(0, catalogue.ROWS, 4)] * EPOCHS:

        def closure(rows: slice = slice(start, start + 4)) -> fg.Tensor:
            optimizer.zero_grad()
            value: fg.Tensor = loss(model(fg.tensor(x[rows])), fg.tensor(y[rows]))
            value.backward()
            return value

        optimizer.step(closure)
    for (name, value), other in zip(planned.state_dict().items(), model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(value.numpy(), other.numpy(), err_msg=name)


def with_sgd(model: nn.Module, loss: Any) -> tuple[Any, Any, Any]:
    model = model.double()
    if isinstance(loss, nn.Loss):
        loss.double()
    return model, loss, fg.optim.SGD(model.parameters(), lr=0.02, momentum=0.5)


def test_the_tables_have_every_public_name() -> None:
    catalogue.test_the_tables_have_every_public_layer_and_loss()
    optimizers.test_every_public_optimizer_is_in_the_table()


@pytest.mark.parametrize("name", [*catalogue.LAYERS, *catalogue.RANDOM])
def test_a_layer_needs_no_python(name: str) -> None:
    make, width = catalogue.LAYERS.get(name) or (catalogue.RANDOM[name], WIDTH)
    check(
        lambda: with_sgd(nn.Sequential(nn.Linear(WIDTH, WIDTH), make(), nn.Linear(width, 3)), nn.MSELoss()),
        X,
        TARGET,
        is_random=name in catalogue.RANDOM,
    )


@pytest.mark.parametrize("name", catalogue.FIRST)
def test_a_first_layer_needs_no_python(name: str) -> None:
    make, x = catalogue.FIRST[name]
    check(lambda: with_sgd(nn.Sequential(make(), nn.Linear(WIDTH, 3)), nn.MSELoss()), x, TARGET)


@pytest.mark.parametrize("name", catalogue.LOSSES)
def test_a_loss_needs_no_python(name: str) -> None:
    loss, target = catalogue.LOSSES[name]
    check(lambda: with_sgd(nn.Linear(WIDTH, WIDTH), loss), X, np.ascontiguousarray(target))


@optimizers.ways
def test_an_optimizer_needs_no_python(kind: str, options: dict[str, Any]) -> None:
    def make() -> tuple[Any, Any, Any]:
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3)).double()
        params = [param for param in model.parameters() if param.ndim == 2 or kind != "Muon"]
        return model, nn.MSELoss(), getattr(fg.optim, kind)(params, **options)

    check(make, X, TARGET)
