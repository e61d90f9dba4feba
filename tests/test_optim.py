"""Optimizers: options, groups, state. Their arithmetic is compared in `test_torch_reference.py`."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

OPTIMIZERS = [
    lambda params: optim.SGD(params, lr=0.1),
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    lambda params: optim.Adam(params, lr=0.1),
    lambda params: optim.Adam(params, lr=0.1, amsgrad=True),
    lambda params: optim.AdamW(params, lr=0.1),
    lambda params: optim.NAdam(params, lr=0.1, weight_decay=0.1),
    lambda params: optim.NAdam(params, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    lambda params: optim.RAdam(params, lr=0.1, betas=(0.9, 0.99)),
    lambda params: optim.RAdam(params, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    lambda params: optim.Adamax(params, lr=0.1, weight_decay=0.1),
    lambda params: optim.Adagrad(params, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1),
    lambda params: optim.Adadelta(params),
    lambda params: optim.RMSprop(params, lr=0.05),
    lambda params: optim.RMSprop(params, lr=0.05, centered=True),
    lambda params: optim.RMSprop(params, lr=0.05, momentum=0.5, weight_decay=0.01),
    lambda params: optim.RMSprop(params, lr=0.05, momentum=0.5, centered=True),
    lambda params: optim.Rprop(params),
    lambda params: optim.ASGD(params, lr=0.1, lambd=0.01, t0=2.0),
    lambda params: optim.Lion(params, lr=0.01, weight_decay=0.1),
]


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(np.array(values, dtype=np.float64))


def step(optimizer: optim.Optimizer, *params: fg.Tensor) -> None:
    optimizer.zero_grad()
    loss = sum((p.square().sum() for p in params), start=fg.tensor(0.0, dtype=fg.float64))
    assert isinstance(loss, fg.Tensor)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"lr": True}, "lr"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"dampening": 2}, "dampening"),
        ({"nesterov": 1}, "nesterov"),
        ({"nesterov": True}, "nesterov"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
    ],
)
def test_sgd_names_the_option_that_is_wrong(options: dict[str, Any], name: str) -> None:
    with pytest.raises(fg.ConfigError, match=name):
        optim.SGD([parameter(1.0)], **options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\]"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\]"),
        ({"betas": 0.9}, "betas"),
        ({"eps": -1e-8}, "eps"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"amsgrad": "yes"}, "amsgrad"),
    ],
)
@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_adam_names_the_option_that_is_wrong(kind: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(fg.ConfigError, match=name):
        kind([parameter(1.0)], **options)


def test_defaults_are_pytorchs() -> None:
    def options(optimizer: optim.Optimizer) -> dict[str, Any]:
        return {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}

    assert options(optim.SGD([parameter(1.0)])) == {
        "lr": 0.001,
        "momentum": 0,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
    }
    adam = {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    assert options(optim.Adam([parameter(1.0)])) == {**adam, "decoupled_weight_decay": False}
    assert options(optim.AdamW([parameter(1.0)])) == {
        **adam,
        "weight_decay": 0.01,
        "decoupled_weight_decay": True,
    }


def test_params_that_cannot_be_trained_are_refused() -> None:
    p = parameter(1.0)
    with pytest.raises(fg.ConfigError, match="empty"):
        optim.SGD([])
    with pytest.raises(fg.ConfigError, match="got one Parameter"):
        optim.SGD(p)
    with pytest.raises(fg.ConfigError, match="twice"):
        optim.SGD([p, p])
    with pytest.raises(fg.ConfigError, match="result of"):
        optim.SGD([p * 2])
    with pytest.raises(fg.ConfigError, match="int64"):
        optim.SGD([fg.tensor([1])])
    with pytest.raises(fg.ConfigError, match="ndarray"):
        optim.SGD([np.ones(1)])  # type: ignore[list-item]
    with pytest.raises(fg.ConfigError, match="unknown option 'rate'"):
        optim.SGD([{"params": [p], "rate": 0.1}])


def test_groups_have_options_of_their_own() -> None:
    a, b = parameter(1.0), parameter(1.0)
    optimizer = optim.SGD([{"params": [a], "lr": 0.25}, {"params": b}], lr=0.5)
    step(optimizer, a, b)
    assert (a.tolist(), b.tolist()) == ([0.5], [0.0])
    with pytest.raises(fg.ConfigError, match="twice"):
        optimizer.add_param_group({"params": [a]})


def test_a_parameter_without_gradient_is_left_alone() -> None:
    a, b = parameter(1.0), parameter(1.0)
    optimizer = optim.Adam([a, b])
    step(optimizer, a)
    assert b.tolist() == [1.0]
    assert b not in optimizer.state


def test_an_option_changed_between_steps_takes_effect() -> None:
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=0.25)
    optimizer.param_groups[0]["lr"] = 0.0
    step(optimizer, p)
    assert p.tolist() == [1.0]
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(fg.ConfigError, match="lr"):
        step(optimizer, p)
    assert p.tolist() == [1.0]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_parameter_that_joins_later_starts_from_its_own_first_step(make: Any) -> None:
    early, late, alone = parameter(1.0), parameter(1.0), parameter(1.0)
    optimizer, reference = make([early, late]), make([alone])
    step(optimizer, early)
    step(optimizer, early, late)
    step(reference, alone)
    assert late.tolist() == alone.tolist()


def test_step_calls_the_closure_with_recording_on() -> None:
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=0.25)

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return float(loss)

    with fg.no_grad():
        assert optimizer.step(closure) == 1.0
    assert p.tolist() == [0.5]


def test_zero_grad_sets_none_or_zeros() -> None:
    p = parameter(1.0)
    optimizer = optim.SGD([p])
    p.square().sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is not None
    assert p.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_state_is_created_once_and_lazily() -> None:
    p = parameter(1.0)
    optimizer = optim.Adam([p], amsgrad=True)
    assert not optimizer.state
    state = optimizer.init_state(p)
    assert optimizer.init_state(p) is state
    assert set(state) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    buffer = state["exp_avg"]
    step(optimizer, p)
    assert optimizer.state[p]["exp_avg"] is buffer
    assert state["step"] == 1
    assert optim.SGD([p]).init_state(p) == {}
    with pytest.raises(fg.ConfigError, match="no parameter group"):
        optimizer.init_state(parameter(2.0))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_state_dict_continues_to_the_bit(make: Any) -> None:
    p, q = parameter(1.0, -2.0), parameter(1.0, -2.0)
    first, second = make([p]), make([q])
    step(first, p)
    saved = copy.deepcopy(first.state_dict())
    with fg.no_grad():
        q.copy_(p)
    second.load_state_dict(saved)
    step(first, p)
    step(second, q)
    assert p.tolist() == q.tolist()


def test_load_state_dict_checks_everything_before_it_writes() -> None:
    p, q = parameter(1.0, 2.0), parameter(1.0)
    trained, fresh = optim.Adam([p], lr=0.5), optim.Adam([q], lr=0.1)
    step(trained, p)
    with pytest.raises(fg.ShapeError, match=r"exp_avg of parameter 0: expected \(1,\), got \(2,\)"):
        fresh.load_state_dict(trained.state_dict())
    assert fresh.param_groups[0]["lr"] == 0.1
    assert not fresh.state
    with pytest.raises(fg.ConfigError, match=r"sizes \[1\], got \[2\]"):
        fresh.load_state_dict(optim.Adam([p, parameter(1.0)]).state_dict())


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_model_and_optimizer_continues_to_the_bit(make: Any, duplicate: Any) -> None:
    model = nn.Linear(2, 2).double()
    optimizer = make(model.parameters())
    step(optimizer, *model.parameters())
    model_copy, optimizer_copy = duplicate((model, optimizer))
    step(optimizer, *model.parameters())
    step(optimizer_copy, *model_copy.parameters())
    for left, right in zip(model.parameters(), model_copy.parameters(), strict=True):
        assert left.tolist() == right.tolist()


def test_adamw_is_adam_with_decoupled_decay() -> None:
    p, q = parameter(1.0), parameter(1.0)
    first = optim.AdamW([p], weight_decay=0.1)
    second = optim.Adam([q], weight_decay=0.1, decoupled_weight_decay=True)
    for _ in range(3):
        step(first, p)
        step(second, q)
    assert p.tolist() == q.tolist()


def test_repr_lists_the_options() -> None:
    assert repr(optim.SGD([parameter(1.0)], lr=0.5)).splitlines() == [
        "SGD (",
        "Parameter Group 0",
        "    dampening: 0",
        "    lr: 0.5",
        "    momentum: 0",
        "    nesterov: False",
        "    weight_decay: 0",
        ")",
    ]


def test_state_of_another_kind_is_refused_and_nothing_changes() -> None:
    p = parameter(1.0)
    adam, sgd = optim.Adam([p]), optim.SGD([p], lr=0.1, momentum=0.9)
    step(adam, p)
    with pytest.raises(fg.ConfigError, match="momentum_buffer, got 'exp_avg'"):
        sgd.load_state_dict(adam.state_dict())
    assert sgd.state == {}


def test_a_momentum_buffer_without_a_count_is_that_of_a_later_step() -> None:
    p, q = parameter(1.0), parameter(1.0)
    first, second = (optim.SGD([leaf], lr=0.1, momentum=0.9, dampening=0.5) for leaf in (p, q))
    step(first, p)
    step(second, q)
    loaded = first.state_dict()
    del loaded["state"][0]["step"]
    first.load_state_dict(loaded)
    step(first, p)
    step(second, q)
    assert p.tolist() == q.tolist()


def test_a_missing_momentum_buffer_is_no_state() -> None:
    p = parameter(1.0)
    sgd = optim.SGD([p], lr=0.1)
    sgd.load_state_dict({**sgd.state_dict(), "state": {0: {"momentum_buffer": None}}})
    step(sgd, p)
    assert p.tolist() == [0.8]
