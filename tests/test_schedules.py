"""Schedules: options, states, combinations. Their rates are compared in `test_torch_reference.py`."""

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd.optim import lr_scheduler as schedules

# One of each, with the options that it needs.
KINDS: dict[str, Any] = {
    "StepLR": lambda o: schedules.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [1, 3, 3]),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 3, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, T_mult=2),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.3, total_steps=60),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0, threshold=0.5),
    "LinearLR": lambda o: schedules.LinearLR(o, total_iters=4),
    "ConstantLR": lambda o: schedules.ConstantLR(o, total_iters=3),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, total_iters=6, power=2.0),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.3, step_size_up=3, mode="triangular2"),
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda t: 1 / (1 + t)),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda t: 0.9),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, total_iters=3), schedules.CosineAnnealingLR(o, 5)], [3]
    ),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o, 0.5, 2), schedules.ExponentialLR(o, 0.8)]
    ),
    "WarmupCosineLR": lambda o: schedules.WarmupCosineLR(o, 5, 30, start_factor=0.1),
    "SWALR": lambda o: optim.swa_utils.SWALR(o, [0.01, 0.3], anneal_epochs=4),
}
OF_STEPS = [name for name in KINDS if name != "ReduceLROnPlateau"]


def optimizer(**options: Any) -> optim.SGD:
    groups = [{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(2))], "lr": 0.02}]
    return optim.SGD(groups, lr=0.1, momentum=0.9, **options)


def rates(schedule: schedules.LRScheduler, steps: int) -> list[list[float]]:
    found = [schedule.get_last_lr()]
    for _ in range(steps):
        schedule.step()
        found.append(schedule.get_last_lr())
        groups = schedule.optimizer.param_groups
        assert [group["lr"] for group in groups] == found[-1]
    return found


def test_every_public_schedule_is_tested_here() -> None:
    assert set(KINDS) | {"LRScheduler"} == {*schedules.__all__, "SWALR"}


@pytest.mark.parametrize("name", OF_STEPS)
def test_upcoming_rates_are_those_of_the_steps_and_change_nothing(name: str) -> None:
    first, second = optimizer(), optimizer()
    ahead, stepped = KINDS[name](first), KINDS[name](second)
    for _ in range(2):
        groups = copy.deepcopy([{**group, "params": None} for group in first.param_groups])
        state = copy.deepcopy(ahead.state_dict())
        found = ahead.upcoming(7)
        assert found.shape == (7, 2, 2)
        assert state == ahead.state_dict()
        assert groups == [{**group, "params": None} for group in first.param_groups]
        for row in found:
            assert row[:, 0].tolist() == [group["lr"] for group in second.param_groups]
            if not math.isnan(row[0, 1]):
                assert row[:, 1].tolist() == [group["momentum"] for group in second.param_groups]
            stepped.step()
        ahead.advance(7)
        assert ahead.get_last_lr() == stepped.get_last_lr()
        assert [g["momentum"] for g in first.param_groups] == [g["momentum"] for g in second.param_groups]


@pytest.mark.parametrize("name", KINDS)
def test_a_state_dict_goes_through_json_and_continues(name: str) -> None:
    first, second = optimizer(), optimizer()
    one, other = KINDS[name](first), KINDS[name](second)
    value = [(0.5,)] if name == "ReduceLROnPlateau" else [()]
    for arguments in value * 3:
        one.step(*arguments)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for arguments in value * 4:
        one.step(*arguments)
        other.step(*arguments)
        assert one.get_last_lr() == other.get_last_lr() == [group["lr"] for group in second.param_groups]


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("LambdaLR", "MultiplicativeLR")])
def test_a_copy_with_its_optimizer_continues(name: str) -> None:
    pair = (first := optimizer(), KINDS[name](first))
    for duplicate in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert duplicate[1].optimizer is duplicate[0]
        assert duplicate[1].state_dict() == pair[1].state_dict()


def test_a_state_of_another_kind_is_refused_and_nothing_changes() -> None:
    schedule = schedules.StepLR(optimizer(), 2)
    before = dict(schedule.state_dict())
    for state in (schedules.ExponentialLR(optimizer(), 0.5).state_dict(), {}, 3):
        with pytest.raises(fg.ConfigError, match="load_state_dict of StepLR: expected a dict with the keys"):
            schedule.load_state_dict(state)
    with pytest.raises(fg.ConfigError, match="expected gamma as a number, got 'half'"):
        schedule.load_state_dict({**before, "gamma": "half"})
    assert schedule.state_dict() == before
    chained = KINDS["ChainedScheduler"](optimizer())
    state = copy.deepcopy(chained.state_dict())
    with pytest.raises(fg.ConfigError, match="expected 2 schedulers, got 1"):
        chained.load_state_dict({**state, "schedulers": state["schedulers"][:1]})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda o: schedules.StepLR(3, 2), "optimizer"),
        (lambda o: schedules.StepLR(o, 0), "step_size"),
        (lambda o: schedules.StepLR(o, 2, gamma=-1), "gamma"),
        (lambda o: schedules.StepLR(o, 2, last_epoch=3), "initial_lr"),
        (lambda o: schedules.StepLR(o, 2, last_epoch=-2), "last_epoch"),
        (lambda o: schedules.MultiStepLR(o, [1.5]), "milestones"),
        (lambda o: schedules.MultiStepLR(o, [1], gamma=math.nan), "gamma"),
        (lambda o: schedules.ExponentialLR(o, "x"), "gamma"),
        (lambda o: schedules.CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: schedules.CosineAnnealingLR(o, 3, eta_min=-1), "eta_min"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 0), "T_0"),
        (lambda o: schedules.CosineAnnealingWarmRestarts(o, 1, T_mult=0), "T_mult"),
        (lambda o: schedules.OneCycleLR(o, 0.1), "total_steps"),
        (lambda o: schedules.OneCycleLR(o, 0.1, total_steps=0), "total_steps"),
        (lambda o: schedules.OneCycleLR(o, 0.1, epochs=2), "steps_per_epoch"),
        (lambda o: schedules.OneCycleLR(o, [0.1], total_steps=9), "max_lr"),
        (lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9, pct_start=2.0), "pct_start"),
        (lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9, anneal_strategy="exp"), "anneal_strategy"),
        (lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9, div_factor=0), "div_factor"),
        (lambda o: schedules.OneCycleLR(o, 0.1, total_steps=9, max_momentum=1.5), "max_momentum"),
        (lambda o: schedules.OneCycleLR(optim.Adagrad(list(o.state)), 0.1, total_steps=9), "params is empty"),
        (lambda o: schedules.LinearLR(o, start_factor=0), "start_factor"),
        (lambda o: schedules.LinearLR(o, end_factor=2), "end_factor"),
        (lambda o: schedules.LinearLR(o, total_iters=0), "total_iters"),
        (lambda o: schedules.ConstantLR(o, 0), "factor"),
        (lambda o: schedules.ConstantLR(o, 0.5, -1), "total_iters"),
        (lambda o: schedules.PolynomialLR(o, 0), "total_iters"),
        (lambda o: schedules.PolynomialLR(o, 3, power=-1), "power"),
        (lambda o: schedules.CyclicLR(o, 0.1, 0.2, step_size_up=0), "step_size_up"),
        (lambda o: schedules.CyclicLR(o, 0.1, 0.2, step_size_down=0), "step_size_down"),
        (lambda o: schedules.CyclicLR(o, 0.1, 0.2, mode="square"), "mode"),
        (lambda o: schedules.CyclicLR(o, 0.1, 0.2, scale_mode="epoch"), "scale_mode"),
        (lambda o: schedules.CyclicLR(o, 0.1, 0.2, scale_fn=1), "scale_fn"),
        (lambda o: schedules.CyclicLR(o, -0.1, 0.2), "base_lr"),
        (lambda o: schedules.LambdaLR(o, 3), "lr_lambda"),
        (lambda o: schedules.MultiplicativeLR(o, [math.sqrt]), "lr_lambda"),
        (lambda o: schedules.WarmupCosineLR(o, 5, 5), "total_steps"),
        (lambda o: schedules.WarmupCosineLR(o, -1, 5), "warmup_steps"),
        (lambda o: optim.swa_utils.SWALR(o, -0.1), "swa_lr"),
        (lambda o: optim.swa_utils.SWALR(o, [0.1]), "swa_lr"),
        (lambda o: optim.swa_utils.SWALR(o, 0.1, anneal_epochs=-1), "anneal_epochs"),
        (lambda o: optim.swa_utils.SWALR(o, 0.1, anneal_strategy="exp"), "anneal_strategy"),
        (lambda o: optim.swa_utils.SWALR(3, 0.1), "optimizer"),
        (lambda o: schedules.ReduceLROnPlateau(o, mode="best"), "mode"),
        (lambda o: schedules.ReduceLROnPlateau(o, factor=1.0), "factor"),
        (lambda o: schedules.ReduceLROnPlateau(o, patience=-1), "patience"),
        (lambda o: schedules.ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode"),
        (lambda o: schedules.ReduceLROnPlateau(o, min_lr=[0, 0, 0]), "min_lr"),
        (lambda o: schedules.ReduceLROnPlateau(o).step(), "metrics"),
        (lambda o: schedules.SequentialLR(o, [], []), "schedulers"),
        (lambda o: schedules.SequentialLR(o, [schedules.StepLR(o, 2)], [3]), "milestones"),
        (lambda o: schedules.SequentialLR(o, [schedules.StepLR(optimizer(), 2)], []), "same optimizer"),
        (lambda o: schedules.ChainedScheduler([schedules.ReduceLROnPlateau(o)]), "got ReduceLROnPlateau"),
        (lambda o: schedules.ChainedScheduler([]), "schedulers"),
    ],
)
def test_the_option_that_is_wrong_is_named(make: Any, name: str) -> None:
    with pytest.raises(fg.ConfigError, match=name):
        make(optimizer())


def test_momentum_is_not_cycled_where_there_is_none() -> None:
    without = optim.Adagrad([nn.Parameter(np.ones(1))])
    with pytest.raises(fg.ConfigError, match="cycle_momentum needs an optimizer with momentum or betas"):
        schedules.CyclicLR(without, 0.1, 0.2)
    adam = optim.Adam([nn.Parameter(np.ones(1))])
    schedule = schedules.OneCycleLR(adam, 0.1, total_steps=11)
    assert adam.param_groups[0]["betas"] == (0.95, 0.999)
    schedule.advance(10)
    assert adam.param_groups[0]["betas"] == pytest.approx((0.95, 0.999))


def test_one_cycle_refuses_more_steps_than_it_has() -> None:
    schedule = schedules.OneCycleLR(optimizer(), 0.1, total_steps=3)
    schedule.advance(3)
    before = schedule.get_last_lr()
    with pytest.raises(fg.ConfigError, match="total_steps is 3, got 4 steps"):
        schedule.step()
    assert (schedule.last_epoch, schedule.get_last_lr()) == (3, before)


def test_three_phases_of_one_cycle() -> None:
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    schedule = schedules.OneCycleLR(
        one, 1.0, total_steps=11, pct_start=3 / 11, anneal_strategy="linear", cycle_momentum=False,
        div_factor=5.0, final_div_factor=2.0, three_phase=True,
    )  # fmt: skip
    found = [row[0] for row in rates(schedule, 10)]
    straight = [0.2, 0.6, 1.0, 0.6, 0.2, *(0.2 - 0.1 * k / 6 for k in range(1, 7))]
    np.testing.assert_allclose(found, straight, rtol=1e-12)


def test_cyclic_modes() -> None:
    def found(**options: Any) -> list[float]:
        one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
        schedule = schedules.CyclicLR(one, 0.0, 1.0, 1, step_size_down=2, cycle_momentum=False, **options)
        return [row[0] for row in rates(schedule, 7)]

    height = np.array([0, 1, 0.5, 0, 1, 0.5, 0, 1])
    np.testing.assert_allclose(found(), height, atol=1e-12)
    cycle = np.array([1, 1, 1, 2, 2, 2, 3, 3])
    np.testing.assert_allclose(found(mode="triangular2"), height / 2.0 ** (cycle - 1), atol=1e-12)
    steps = np.arange(8)
    np.testing.assert_allclose(found(mode="exp_range", gamma=0.9), height * 0.9**steps, atol=1e-12)
    np.testing.assert_allclose(found(scale_fn=lambda c: 1 / c), height / cycle, atol=1e-12)
    by_steps = found(scale_fn=lambda t: 1 / (1 + t), scale_mode="iterations")
    np.testing.assert_allclose(by_steps, height / (1 + steps), atol=1e-12)


def test_plateau_modes() -> None:
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    schedule = schedules.ReduceLROnPlateau(
        one, "max", factor=0.5, patience=0, threshold=0.1, threshold_mode="abs", cooldown=1, min_lr=0.2
    )
    found = []
    for accuracy in (0.5, 0.55, 0.55, 0.55, 0.7, math.nan, 0.7, 0.7, 0.7):
        schedule.step(accuracy)
        found += schedule.get_last_lr()
    # The step after a reduction is not counted.
    assert found == [1.0, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]


def test_sequential_parts_start_from_their_own_first_rate() -> None:
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    parts = [
        schedules.LinearLR(one, 0.5, total_iters=2),
        schedules.LambdaLR(one, lambda t: 1.0 / (1 + t)),
        schedules.ConstantLR(one, 0.25, 1),
        schedules.CosineAnnealingWarmRestarts(one, 2),
    ]
    schedule = schedules.SequentialLR(one, parts, [2, 4, 6])
    found = [row[0] for row in rates(schedule, 8)]
    np.testing.assert_allclose(found, [0.5, 0.75, 1, 0.5, 0.25, 1, 1, 0.5, 1], rtol=1e-12)


def test_warmup_cosine() -> None:
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=2.0)
    schedule = schedules.WarmupCosineLR(one, 4, 8, start_factor=0.5, eta_min=1.0)
    found = [row[0] for row in rates(schedule, 9)]
    fall = [1.0 + (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    np.testing.assert_allclose(found, [1.0, 1.25, 1.5, 1.75, *fall, 1.0], rtol=1e-12)


def test_swa_goes_from_the_rate_of_others_to_its_own() -> None:
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    found = [row[0] for row in rates(optim.swa_utils.SWALR(one, 0.2, anneal_epochs=4), 6)]
    share = (1 - np.cos(math.pi * np.minimum(np.arange(7) / 4, 1))) / 2
    np.testing.assert_allclose(found, 1.0 - 0.8 * share, rtol=1e-12)
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    assert [row[0] for row in rates(optim.swa_utils.SWALR(one, 0.2, anneal_epochs=0), 2)] == [0.2] * 3
    # The other schedule's factors reach the part that is not annealed yet.
    one = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    both = schedules.ChainedScheduler(
        [
            schedules.ExponentialLR(one, 0.5),
            optim.swa_utils.SWALR(one, 0.2, anneal_epochs=2, anneal_strategy="linear"),
        ]
    )
    found = [row[0] for row in rates(both, 3)]
    np.testing.assert_allclose(found, [1.0, 0.5 * 0.5 + 0.5 * 0.2, 0.2, 0.2], rtol=1e-12)


# In a trainer

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.int64)


def trainer(name: str, *, adam: bool = False, **options: Any) -> tuple[fg.Trainer, schedules.LRScheduler]:
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    weights = np.random.default_rng(1)
    for param in model.parameters():
        with fg.no_grad():
            param.copy_(fg.tensor(weights.normal(size=param.shape).astype(np.float32)))
    kind: Any = optim.Adam if adam else optim.SGD
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "lr": 0.02},
    ]
    own = kind(groups, lr=0.1) if adam else kind(groups, lr=0.1, momentum=0.9)
    return fg.Trainer(model, nn.CrossEntropyLoss(), own, **options), KINDS[name](own)


def weights(trainer: fg.Trainer) -> list[Any]:
    return [param.tolist() for param in trainer.model.parameters()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_fit_with_a_schedule_has_the_bits_of_single_steps(name: str, adam: bool) -> None:
    """50 rows in batches of 16: the last is short, so that two steps are compiled."""
    fitted, schedule = trainer(name, adam=adam)
    history = fitted.fit(X, Y, epochs=3, batch_size=16, shuffle=False, progress=False, schedule=schedule)
    stepped, own = trainer(name, adam=adam)
    for epoch in range(3):
        for start in range(0, 50, 16):
            stepped.train_step(X[start : start + 16], Y[start : start + 16])
            if own.per_batch:
                own.step()
        if isinstance(own, schedules.ReduceLROnPlateau):
            own.step(history.history["loss"][epoch])
        elif not own.per_batch:
            own.step()
    assert weights(fitted) == weights(stepped)
    assert schedule.get_last_lr() == own.get_last_lr()
    assert schedule.last_epoch == own.last_epoch if name != "ChainedScheduler" else True


def test_any_schedule_can_be_stepped_by_batch() -> None:
    fitted, schedule = trainer("CosineAnnealingLR")
    schedule.per_batch = True
    fitted.fit(X, Y, epochs=1, batch_size=25, progress=False, schedule=schedule)
    assert schedule.last_epoch == 2
    fitted.fit(X, Y, epochs=1, batch_size=20, drop_last=True, progress=False, schedule=schedule)
    assert schedule.last_epoch == 4


@pytest.mark.parametrize("name", ["OneCycleLR", "StepLR", "SequentialLR"])
def test_a_run_that_is_resumed_from_a_file_has_the_same_bits(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 16, "shuffle": False, "progress": False}
    whole, schedule = trainer(name)
    for _ in range(2):
        whole.fit(X, Y, epochs=2, schedule=schedule, **options)
    first, schedule = trainer(name)
    first.fit(X, Y, epochs=2, schedule=schedule, **options)
    first.save(tmp_path / "run.safetensors", schedule)
    second, schedule = trainer(name)
    second.load(tmp_path / "run.safetensors", schedule)
    second.fit(X, Y, epochs=2, schedule=schedule, **options)
    assert weights(second) == weights(whole)


def test_a_file_of_another_schedule_changes_nothing(tmp_path: Path) -> None:
    saved, schedule = trainer("StepLR")
    schedule.advance(3)
    saved.save(tmp_path / "with.safetensors", schedule)
    saved.save(tmp_path / "without.safetensors")
    other, own = trainer("ExponentialLR")
    before = weights(other), own.state_dict()
    with pytest.raises(fg.ConfigError, match="written with the schedule StepLR, got ExponentialLR"):
        other.load(tmp_path / "with.safetensors", own)
    with pytest.raises(fg.ConfigError, match="written with the schedule None, got ExponentialLR"):
        other.load(tmp_path / "without.safetensors", own)
    assert (weights(other), own.state_dict()) == before


def test_a_bad_schedule_is_refused_before_anything_changes() -> None:
    fitted, schedule = trainer("OneCycleLR")
    before = weights(fitted)
    with pytest.raises(fg.ConfigError, match="total_steps is 60, got 80 steps"):
        fitted.fit(X, Y, epochs=20, batch_size=16, schedule=schedule)
    with pytest.raises(fg.ConfigError, match="expected one of this trainer's optimizer"):
        fitted.fit(X, Y, schedule=trainer("StepLR")[1])
    with pytest.raises(fg.ConfigError, match="expected one of ferrograd"):
        fitted.fit(X, Y, schedule=0.1)  # type: ignore[arg-type]
    regression = fg.Trainer(fitted.model, nn.MSELoss(), fitted.optimizer)
    plateau = schedules.ReduceLROnPlateau(fitted.optimizer, mode="max")
    with pytest.raises(fg.ConfigError, match="needs an accuracy"):
        regression.fit(X, X[:, :2], schedule=plateau)
    plateau.per_batch = True
    with pytest.raises(fg.ConfigError, match="follows a value of each epoch"):
        fitted.fit(X, Y, schedule=plateau)
    assert weights(fitted) == before


def test_plateau_follows_the_validation() -> None:
    fitted, _ = trainer("StepLR")
    plateau = schedules.ReduceLROnPlateau(fitted.optimizer, mode="max", patience=0)
    history = fitted.fit(X, Y, epochs=2, validation_data=(X[:10], Y[:10]), progress=False, schedule=plateau)
    assert plateau.best == max(history.history["val_accuracy"])


def test_no_step_of_the_schedule_is_made_for_a_batch_that_diverged() -> None:
    fitted, schedule = trainer("WarmupCosineLR")
    regression = fg.Trainer(fitted.model, nn.MSELoss(), fitted.optimizer)
    targets = X[:, :2].copy()
    targets[40] = 1e30
    with pytest.warns(fg.ConvergenceWarning):
        regression.fit(X, targets, epochs=1, batch_size=10, shuffle=False, progress=False, schedule=schedule)
    assert schedule.last_epoch == 4


def test_schedules_without_rates_of_their_own_keep_the_present_ones() -> None:
    optimizer = fg.optim.SGD([fg.ones(1).requires_grad_()], lr=0.5)
    base = fg.optim.lr_scheduler.LRScheduler(optimizer)
    base.step()
    assert base.get_lr() == base.get_last_lr() == [0.5]
    assert fg.optim.lr_scheduler.ReduceLROnPlateau(optimizer).get_lr() == [0.5]


@pytest.mark.parametrize(
    ("second", "rates"),
    [
        (lambda o: schedules.MultiplicativeLR(o, lambda t: 0.1), [0.8, 0.4, 0.2, 0.2, 0.02, 0.002]),
        (lambda o: optim.swa_utils.SWALR(o, 0.05, 2, "linear"), [0.8, 0.4, 0.2, 0.2, 0.125, 0.05]),
    ],
    ids=["MultiplicativeLR", "SWALR"],
)
def test_what_changes_the_present_rate_goes_on_from_the_part_before(second: Any, rates: list[float]) -> None:
    optimizer = optim.SGD([fg.tensor([1.0], requires_grad=True)], lr=0.8)
    # Step 2 is the third; the part that follows begins with its rate.
    parts = [schedules.ExponentialLR(optimizer, 0.5), second(optimizer)]
    schedule = schedules.SequentialLR(optimizer, parts, [3])
    found = []
    for _ in rates:
        found += schedule.get_last_lr()
        schedule.step()
    np.testing.assert_allclose(found, rates, rtol=1e-12)
