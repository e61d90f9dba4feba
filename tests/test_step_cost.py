"""The cost of a step's parts: all of them, with the operations that they make, and nothing else changed."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn

RNG = np.random.default_rng(0)


def trainer(*layers: nn.Module, dtype: Any = None, **options: Any) -> fg.Trainer:
    model = nn.Sequential(*layers)
    if dtype is not None:
        model.to(dtype)
    optimizer = options.pop("optimizer", fg.optim.Adam)(model.parameters())
    return fg.Trainer(model, nn.CrossEntropyLoss(), optimizer, **options)


@pytest.mark.parametrize("dtype", [fg.float32, fg.float64])
def test_the_parts_are_the_plans_and_make_its_products(dtype: Any) -> None:
    rows, widths = 300, (20, 40, 30, 5)
    found = trainer(
        nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5), dtype=dtype, l2=0.1
    )
    X, y = RNG.normal(size=(rows, 20)), RNG.integers(0, 5, rows)
    found.fit(X, y, epochs=1, batch_size=rows, seed=0, progress=False)
    cost = found.plan.cost(steps=3)
    names = sorted(part.name for part in cost.parts if part.name != "gather")
    assert names == sorted(found.plan.instructions)
    products = sum(a * b for a, b in pairwise(widths))
    # Forward, weight gradients, and data gradients of all but the first layer.
    assert sum(part.flop for part in cost.parts) == 2 * rows * (3 * products - widths[0] * widths[1])
    assert all(part.seconds > 0 for part in cost.parts)
    assert cost.seconds == sum(part.seconds for part in cost.parts)
    assert cost.to_dict()["parts"][0]["name"] == cost.parts[0].name
    assert sum(part["share"] for part in cost.to_dict()["parts"]) == pytest.approx(1)
    text = str(cost)
    assert f"a step of {rows} rows" in text
    assert all(part.name in text for part in cost.parts)


def test_a_look_at_the_cost_changes_nothing() -> None:
    X, y = RNG.normal(size=(64, 6)), RNG.integers(0, 3, 64)
    losses = []
    for looks in (False, True):
        fg.manual_seed(0)
        found = trainer(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3))
        found.fit(X, y, epochs=2, batch_size=16, seed=0, progress=False)
        if looks:
            threads = fg.get_num_threads()
            found.plan.cost(steps=2)
            assert fg.get_num_threads() == threads
            assert found.model.training
        losses.append(found.fit(X, y, epochs=2, batch_size=16, seed=1, progress=False).history["loss"])
    assert losses[0] == losses[1]


def test_a_clipped_step_has_its_parts() -> None:
    found = trainer(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), clip_grad_norm=0.5)
    found.train_step(RNG.normal(size=(16, 6)), RNG.integers(0, 3, 16))
    names = sorted(part.name for part in found.plan.cost(steps=1).parts if part.name != "gather")
    assert names == sorted(found.plan.instructions)


def test_sample_weights_are_part_of_the_step() -> None:
    found = trainer(nn.Linear(6, 3))
    X, y = RNG.normal(size=(16, 6)), RNG.integers(0, 3, 16)
    weight = RNG.uniform(1, 2, 16)
    found.fit(X, y, sample_weight=weight, epochs=1, batch_size=16, seed=0, progress=False)
    names = sorted(part.name for part in found.plan.cost(steps=1).parts if part.name != "gather")
    assert names == sorted(found.plan.instructions)


def test_what_cannot_be_measured_is_refused() -> None:
    found = trainer(nn.Linear(6, 3), optimizer=fg.optim.LBFGS)
    found.train_step(RNG.normal(size=(16, 6)), RNG.integers(0, 3, 16))
    with pytest.raises(fg.ConfigError, match="cost: an L-BFGS step is several evaluations"):
        found.plan.cost()
    other = trainer(nn.Linear(6, 3))
    other.train_step(RNG.normal(size=(16, 6)), RNG.integers(0, 3, 16))
    with pytest.raises(fg.ConfigError, match="steps: expected at least 1, got 0"):
        other.plan.cost(steps=0)
