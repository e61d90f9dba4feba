"""The squared error and the count of labels: one op each, with the bits of the ops they stand for."""

from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn
from ferrograd.nn import functional

RNG = np.random.default_rng(0)
DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 3), (40,), (), (2, 3, 5)])
def test_squared_error_is_the_square_of_the_difference(shape: Any, dtype: Any) -> None:
    pairs = []
    for loss in (fg._core.squared_error, lambda x, t: (x - t).square()):
        rng = np.random.default_rng(1)
        x, t = (
            fg.tensor(np.asarray(rng.normal(size=shape), dtype=dtype), requires_grad=True) for _ in range(2)
        )
        value = loss(x, t)
        pairs.append([value, *fg.autograd.grad(value.mean(), [x, t])])
    for one, other in zip(*pairs, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one.detach().numpy(), other.detach().numpy())


def test_squared_error_promotes_and_refuses() -> None:
    x, wide = fg.tensor([1.0, 2.0]), fg.tensor(np.array([0.5, 0.5]))
    assert functional.mse_loss(x, wide, "none").dtype == fg.float64
    assert functional.mse_loss(x, fg.tensor([0, 4]), "none").tolist() == [1.0, 4.0]
    with pytest.raises(fg.DTypeError, match="mse"):
        functional.mse_loss(fg.tensor([1]), fg.tensor([2]))
    with pytest.raises(fg.ShapeError, match="same shape"):
        functional.mse_loss(x, fg.zeros(2, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_are_counted(dtype: Any) -> None:
    labels = RNG.integers(-1, 4, 1000)
    wanted = np.count_nonzero(labels != 2)
    for table in (labels, labels[::-1], labels.astype(np.uint8)):
        count = fg._core.count_labels(fg.tensor(table), 2, np.dtype(dtype).name)
        assert count.shape == ()
        assert count.dtype.name == np.dtype(dtype).name
        assert count.item() == wanted
    with pytest.raises(fg.DTypeError, match="integers"):
        fg._core.count_labels(fg.zeros(3), 2, fg.float32)
    with pytest.raises(fg.DTypeError, match="float"):
        fg._core.count_labels(fg.tensor([1]), 2, fg.int64)


def test_a_compiled_step_has_one_instruction_for_each() -> None:
    layer = nn.Linear(4, 3)
    x, t = RNG.normal(size=(8, 4)).astype(np.float32), RNG.normal(size=(8, 3)).astype(np.float32)
    found = []
    for loss, y in [(nn.MSELoss(), t), (nn.CrossEntropyLoss(), np.arange(8) % 3)]:
        trainer = fg.Trainer(layer, loss, fg.optim.SGD(layer.parameters(), lr=0.1))
        trainer.train_step(x, y)
        found.append(trainer._engines["train"].engine.instructions(8))
    assert "mse+grad" in found[0]
    assert not {"sub", "square"} & set(found[0])
    assert {"count_labels", "cross_entropy+grad"} <= set(found[1])
    assert not {"ne", "to"} & set(found[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_tensors(dtype: Any) -> None:
    values = np.full((70, 1000), np.finfo(dtype).max, dtype=dtype)
    good = fg.tensor(values)
    assert fg._core.are_finite([good, fg.zeros(0), fg.tensor([1, 2])])
    for bad in (np.nan, np.inf, -np.inf):
        values[69, 999] = bad
        assert not fg._core.are_finite([good, fg.tensor(values)])
