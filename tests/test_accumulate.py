"""`Trainer.fit(accumulate=k)`: updates with the mean gradient of k batches, beside the same by hand."""

import copy
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd.optim import lr_scheduler
from test_optim_plan import ways

RNG = np.random.default_rng(3)
X = RNG.normal(size=(26, 5))
Y = (X.sum(axis=1) > 0).astype(np.int64)
EPOCHS = 3


def model_of(dtype: Any = fg.float64, **layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(
        nn.Linear(5, 20), *layers.values(), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3)
    )
    values = np.random.default_rng(1)
    with fg.no_grad():
        for param in model.parameters():
            param.copy_(fg.tensor(values.normal(size=param.shape)))
    return model.to(dtype)


def optimizer_of(model: nn.Module, kind: str, **options: Any) -> Any:
    params = [param for param in model.parameters() if param.ndim == 2 or kind != "Muon"]
    return getattr(optim, kind)(params, **options)


def groups(batch: int, accumulate: int, drop_last: bool = False) -> list[list[slice]]:
    starts = range(0, len(X) // batch * batch if drop_last else len(X), batch)
    batches = [slice(start, min(start + batch, len(X))) for start in starts]
    return [batches[start : start + accumulate] for start in range(0, len(batches), accumulate)]


def by_hand(
    model: nn.Module,
    optimizer: Any,
    batch: int,
    accumulate: int,
    *,
    clip: float | None = None,
    l2: float = 0.0,
    schedule: Any = None,
) -> None:
    loss_function = nn.CrossEntropyLoss()
    for group in groups(batch, accumulate) * EPOCHS:
        optimizer.zero_grad()
        for rows in group:
            loss = loss_function(model(fg.tensor(X[rows])), fg.tensor(Y[rows]))
            if l2:
                loss = loss + nn.functional.l2_penalty(model.parameters(), l2, half=True)
            (loss / len(group)).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()


def fit(
    model: nn.Module, optimizer: Any, batch: int, accumulate: int, *, schedule: Any = None, **options: Any
) -> fg.History:
    return fg.Trainer(model, nn.CrossEntropyLoss(), optimizer, **options).fit(
        X,
        Y,
        epochs=EPOCHS,
        batch_size=batch,
        shuffle=False,
        progress=False,
        schedule=schedule,
        accumulate=accumulate,
        seed=0,
    )


def check_close(left: nn.Module, right: nn.Module, rtol: float = 1e-10) -> None:
    for name, value in left.state_dict().items():
        np.testing.assert_allclose(
            value.numpy(), right.state_dict()[name].numpy(), rtol=rtol, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("options", [{}, {"clip_grad_norm": 0.05}, {"l2": 0.1}], ids=str)
@pytest.mark.parametrize(
    # The last: 7 batches of which one is short, in groups of which one is short.
    ("batch", "accumulate"),
    [(26, 1), (26, 5), (13, 2), (1, 26), (4, 3)],
)
def test_a_fit_makes_the_updates_of_a_loop(batch: int, accumulate: int, options: dict[str, float]) -> None:
    models = [model_of(), model_of()]
    optimizers = [optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models]
    by_hand(
        models[0],
        optimizers[0],
        batch,
        accumulate,
        clip=options.get("clip_grad_norm"),
        l2=options.get("l2", 0.0),
    )
    fit(models[1], optimizers[1], batch, accumulate, **options)
    check_close(*models)


@ways
def test_every_optimizer_takes_the_mean(kind: str, options: dict[str, Any]) -> None:
    models = [model_of(), model_of()]
    optimizers = [optimizer_of(model, kind, **options) for model in models]
    if kind == "LBFGS":
        with pytest.raises(fg.ConfigError, match="accumulate: LBFGS evaluates each batch several times"):
            fit(models[0], optimizers[0], 13, 2)
        return
    by_hand(models[0], optimizers[0], 4, 3)
    fit(models[1], optimizers[1], 4, 3)
    check_close(*models, rtol=1e-8)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        mine, theirs = (made.state.get(p, {}) for made, p in zip(optimizers, (one, other), strict=True))
        assert mine.get("step") == theirs.get("step")
        assert set(mine) == set(theirs)


def test_k_batches_are_one_of_k_times_the_size() -> None:
    models = [model_of(), model_of()]
    histories = []
    for model, batch, accumulate in zip(models, (26, 13), (1, 2), strict=True):
        optimizer = optim.Adam(model.parameters(), lr=0.05)
        histories.append(fit(model, optimizer, batch, accumulate, clip_grad_norm=0.5).history["loss"])
    check_close(*models)
    np.testing.assert_allclose(*histories, rtol=1e-10)


def test_two_halves_have_the_bits_of_the_loop() -> None:
    """Division by a power of two is exact, before the sum and after it."""
    models = [model_of(fg.float32), model_of(fg.float32)]
    optimizers = [optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models]
    loss_function = nn.CrossEntropyLoss()
    for group in groups(13, 2) * EPOCHS:
        optimizers[0].zero_grad()
        for rows in group:
            x = fg.tensor(X[rows].astype(np.float32))
            (loss_function(models[0](x), fg.tensor(Y[rows])) / 2).backward()
        optimizers[0].step()
    fit(models[1], optimizers[1], 13, 2)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_a_schedule_by_batch_is_stepped_by_update() -> None:
    models = [model_of(), model_of()]
    optimizers = [optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models]
    # 7 batches in groups of 3 make 3 updates an epoch.
    schedules = [lr_scheduler.OneCycleLR(made, 0.3, total_steps=3 * EPOCHS) for made in optimizers]
    by_hand(models[0], optimizers[0], 4, 3, schedule=schedules[0])
    fit(models[1], optimizers[1], 4, 3, schedule=schedules[1])
    check_close(*models)
    assert schedules[0].state_dict() == schedules[1].state_dict()
    with pytest.raises(fg.ConfigError, match="total_steps is 9"):
        fit(models[1], optimizers[1], 4, 3, schedule=schedules[1])


def test_running_statistics_move_with_every_batch() -> None:
    models = [model_of(norm=nn.BatchNorm1d(20)), model_of(norm=nn.BatchNorm1d(20))]
    optimizers = [optim.SGD(model.parameters(), lr=0.1) for model in models]
    by_hand(models[0], optimizers[0], 4, 3)
    fit(models[1], optimizers[1], 4, 3)
    check_close(*models)
    assert models[0].state_dict()["1.num_batches_tracked"].item() == 7 * EPOCHS


def test_every_batch_has_masks_of_its_own() -> None:
    """With weights of 0 in the first layer the loss of a batch says which units were dropped."""
    model = model_of(dropout=nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    first = fit(model, optimizer, 13, 2).history["loss"]
    model.load_state_dict(before)
    assert fit(model, optimizer, 13, 2).history["loss"] == first
    assert len(set(first)) == EPOCHS


def test_frozen_and_unused_parameters_stay() -> None:
    models = [model_of(), model_of()]
    for model in models:
        model[0].weight.requires_grad_(False)
    spare = [nn.Parameter(np.ones(2)) for _ in models]
    optimizers = [
        optim.AdamW([*model.parameters(), extra], lr=0.1) for model, extra in zip(models, spare, strict=True)
    ]
    by_hand(models[0], optimizers[0], 4, 3)
    fit(models[1], optimizers[1], 4, 3)
    check_close(*models)
    assert spare[0].tolist() == spare[1].tolist() == [1.0, 1.0]


def test_no_bit_depends_on_the_threads() -> None:
    threads, found = fg.get_num_threads(), []
    try:
        for number in (1, 3):
            fg.set_num_threads(number)
            model = model_of(fg.float32)
            fit(model, optim.Adam(model.parameters(), lr=0.05), 4, 3, clip_grad_norm=0.1)
            found.append([param.numpy().tobytes() for param in model.parameters()])
    finally:
        fg.set_num_threads(threads)
    assert found[0] == found[1]


def test_a_batch_that_diverges_stops_before_its_groups_update() -> None:
    model = nn.Linear(5, 1).double()
    before = copy.deepcopy(model.state_dict())
    trainer = fg.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    y = np.zeros((26, 1))
    y[12] = 1e200  # whose square overflows, in the fourth batch
    with pytest.warns(fg.ConvergenceWarning, match="epoch 0, batch 3"):
        trainer.fit(X, y, epochs=1, batch_size=4, accumulate=7, shuffle=False, progress=False)
    assert all(np.array_equal(before[name].numpy(), v.numpy()) for name, v in model.state_dict().items())


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_what_is_no_count_is_refused(value: Any) -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(fg.ConfigError, match="accumulate: expected"):
        fit(model, optim.SGD(model.parameters(), lr=0.1), 4, value)
    assert all(np.array_equal(before[name].numpy(), v.numpy()) for name, v in model.state_dict().items())
