"""Every optimizer trains inside the plan, with the bits of eager steps where the same kernel runs."""

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd.optim import lr_scheduler

# Ways to train: the kind and its options. Muon takes matrices only.
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("AdamW", {"lr": 0.05}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.01}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.01, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05, "betas": (0.9, 0.95)}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.01, "decoupled_weight_decay": True}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.01}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"weight_decay": 0.01}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5}),
    ("RMSprop", {"centered": True, "weight_decay": 0.01}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Rprop", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.01, "t0": 3.0}),
    ("Lion", {"lr": 0.01, "weight_decay": 0.1}),
    ("Muon", {"lr": 0.02}),
    ("Muon", {"lr": 0.02, "nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}),
    ("LBFGS", {"max_iter": 3}),
    ("LBFGS", {"max_iter": 3, "line_search_fn": "strong_wolfe", "history_size": 4}),
]
IDS = [f"{kind}-{'-'.join(map(str, options))}" for kind, options in WAYS]
ways = pytest.mark.parametrize(("kind", "options"), WAYS, ids=IDS)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 5))
Y = (X.sum(axis=1) > 0).astype(np.int64)


def problem(kind: str, options: dict[str, Any], dtype: Any, groups: int = 1) -> tuple[Any, Any]:
    """Return a model of fixed weights and an optimizer; with two groups the biases have a smaller rate."""
    model = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 3)).to(dtype)
    values = np.random.default_rng(1)
    with fg.no_grad():
        for param in model.parameters():
            param.copy_(fg.tensor(values.normal(size=param.shape)))
    chosen: Any = [p for p in model.parameters() if p.ndim == 2 or kind != "Muon"]
    if groups == 2:
        chosen = [
            {"params": [p for p in chosen if p.ndim == 2]},
            {"params": [p for p in chosen if p.ndim == 1], "lr": 0.003},
        ]
    return model, getattr(optim, kind)(chosen, **options)


def eager(model: Any, optimizer: Any, dtype: Any, batch: int, epochs: int) -> None:
    x, loss_function = X.astype(dtype.name), nn.CrossEntropyLoss()
    for _ in range(epochs):
        for start in range(0, len(X), batch):
            rows = slice(start, start + batch)

            def closure(rows: slice = rows) -> fg.Tensor:
                optimizer.zero_grad()
                loss: fg.Tensor = loss_function(model(fg.tensor(x[rows])), fg.tensor(Y[rows]))
                loss.backward()
                return loss

            optimizer.step(closure)


def fit(model: Any, optimizer: Any, batch: int, epochs: int) -> fg.Trainer:
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optimizer)
    trainer.fit(X, Y, epochs=epochs, batch_size=batch, shuffle=False, progress=False)
    return trainer


def same(left: Any, right: Any) -> bool:
    if isinstance(left, fg.Tensor):
        return bool(np.array_equal(left.numpy(), right.numpy()))
    return bool(left == right)


def check_same(left: tuple[Any, Any], right: tuple[Any, Any]) -> None:
    for one, other in zip(left[0].parameters(), right[0].parameters(), strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
        mine, theirs = left[1].state.get(one, {}), right[1].state.get(other, {})
        assert set(mine) == set(theirs)
        assert all(same(mine[key], theirs[key]) for key in mine)


def test_every_public_optimizer_is_in_the_table() -> None:
    names = {name for name in optim.__all__ if isinstance(getattr(optim, name), type)}
    assert {kind for kind, _ in WAYS} == names - {"Optimizer"}


@ways
@pytest.mark.parametrize("dtype", [fg.float32, fg.float64], ids=["float32", "float64"])
def test_the_plan_has_the_bits_of_eager_steps(kind: str, options: dict[str, Any], dtype: Any) -> None:
    """50 rows in batches of 16: two plans, and weights packed in blocks."""
    stepped, fitted = problem(kind, options, dtype), problem(kind, options, dtype)
    eager(*stepped, dtype, 16, 3)
    fit(*fitted, 16, 3)
    check_same(stepped, fitted)


@ways
def test_train_steps_continue_a_fit_and_eager_steps_continue_both(kind: str, options: dict[str, Any]) -> None:
    stepped, mixed = problem(kind, options, fg.float32), problem(kind, options, fg.float32)
    eager(*stepped, fg.float32, 50, 4)
    trainer = fit(*mixed, 50, 1)
    for _ in range(2):
        trainer.train_step(X, Y)
    eager(*mixed, fg.float32, 50, 1)
    check_same(stepped, mixed)


@ways
def test_training_lowers_the_loss(kind: str, options: dict[str, Any]) -> None:
    model, optimizer = problem(kind, options, fg.float32)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optimizer)
    before = trainer.evaluate(X, Y)["loss"]
    trainer.fit(X, Y, epochs=10, batch_size=50, progress=False)
    assert trainer.evaluate(X, Y)["loss"] < before


@pytest.mark.parametrize(
    ("kind", "options"), [way for way in WAYS if way[0] not in ("Muon", "LBFGS")], ids=IDS[:-4]
)
def test_groups_and_frozen_parameters(kind: str, options: dict[str, Any]) -> None:
    pairs = [problem(kind, options, fg.float32, groups=2) for _ in range(2)]
    frozen = [next(model.parameters()) for model, _ in pairs]
    before = frozen[0].tolist()
    for param in frozen:
        param.requires_grad_(False)
    eager(*pairs[0], fg.float32, 16, 2)
    fit(*pairs[1], 16, 2)
    check_same(*pairs)
    assert frozen[0].tolist() == before
    for param in frozen:
        param.requires_grad_(True)
    eager(*pairs[0], fg.float32, 16, 1)
    fit(*pairs[1], 16, 1)
    check_same(*pairs)
    assert frozen[0].tolist() != before


@ways
def test_a_saved_run_continues_to_the_bit(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    whole, first, second = (problem(kind, options, fg.float32) for _ in range(3))
    for _ in range(2):
        trainer = fit(*whole, 50, 2)
    fit(*first, 50, 2).save(tmp_path / "run.safetensors")
    trainer = fg.Trainer(second[0], nn.CrossEntropyLoss(), second[1])
    trainer.load(tmp_path / "run.safetensors")
    trainer.fit(X, Y, epochs=2, batch_size=50, shuffle=False, progress=False)
    check_same(whole, second)


@ways
def test_a_state_dict_continues_to_the_bit(kind: str, options: dict[str, Any]) -> None:
    first, second = problem(kind, options, fg.float32), problem(kind, options, fg.float32)
    eager(*first, fg.float32, 50, 2)
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(copy.deepcopy(first[1].state_dict()))
    eager(*first, fg.float32, 50, 2)
    eager(*second, fg.float32, 50, 2)
    check_same(first, second)


@ways
def test_no_result_depends_on_the_threads(kind: str, options: dict[str, Any]) -> None:
    threads = fg.get_num_threads()
    pairs = []
    try:
        for number in (1, 3):
            fg.set_num_threads(number)
            pair = problem(kind, options, fg.float32)
            fit(*pair, 50, 3)
            pairs.append(pair)
    finally:
        fg.set_num_threads(threads)
    check_same(*pairs)


def test_lbfgs_wants_a_closure_and_one_group() -> None:
    _, optimizer = problem("LBFGS", {}, fg.float32)
    with pytest.raises(fg.ConfigError, match="step needs a closure, got None"):
        optimizer.step()
    with pytest.raises(fg.ConfigError, match="one group, got a second"):
        optimizer.add_param_group({"params": [nn.Parameter(np.ones(1))]})


def test_an_error_of_the_closure_leaves_lbfgs_as_it_was() -> None:
    model, optimizer = problem("LBFGS", {"line_search_fn": "strong_wolfe"}, fg.float64)
    eager(model, optimizer, fg.float64, 50, 1)
    before = [param.tolist() for param in model.parameters()]
    state = dict(optimizer.state[next(model.parameters())])
    calls = 0

    def closure() -> fg.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("the third call fails")
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(fg.tensor(X)), fg.tensor(Y))
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="the third call fails"):
        optimizer.step(closure)
    assert [param.tolist() for param in model.parameters()] == before
    now = optimizer.state[next(model.parameters())]
    assert all(now[key] is state[key] for key in state)


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("NAdam", {"momentum_decay": -1}, "momentum_decay"),
        ("NAdam", {"betas": (0.9, 1.0)}, r"betas\[1\]"),
        ("NAdam", {"decoupled_weight_decay": 1}, "decoupled_weight_decay"),
        ("RAdam", {"lr": -1}, "lr"),
        ("RAdam", {"eps": float("nan")}, "eps"),
        ("Adamax", {"betas": 0.9}, "betas"),
        ("Adamax", {"weight_decay": "x"}, "weight_decay"),
        ("Adagrad", {"lr_decay": -1}, "lr_decay"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value"),
        ("Adadelta", {"rho": 1.5}, "rho"),
        ("Adadelta", {"eps": -1}, "eps"),
        ("RMSprop", {"alpha": 1.0}, "alpha"),
        ("RMSprop", {"momentum": -1}, "momentum"),
        ("RMSprop", {"centered": 1}, "centered"),
        ("Rprop", {"etas": (1.5, 2.0)}, "etas"),
        ("Rprop", {"etas": 0.5}, "etas"),
        ("Rprop", {"step_sizes": (2.0, 1.0)}, "step_sizes"),
        ("ASGD", {"alpha": -1}, "alpha"),
        ("ASGD", {"t0": float("inf")}, "t0"),
        ("Lion", {"betas": (1.0, 0.9)}, r"betas\[0\]"),
        ("Lion", {"lr": True}, "lr"),
        ("Muon", {"ns_steps": 100}, "ns_steps"),
        ("Muon", {"ns_coefficients": (1.0, 2.0)}, "ns_coefficients"),
        ("Muon", {"adjust_lr_fn": "x"}, "adjust_lr_fn"),
        ("Muon", {"momentum": 1.5}, "momentum"),
        ("LBFGS", {"max_iter": 0}, "max_iter"),
        ("LBFGS", {"history_size": 0}, "history_size"),
        ("LBFGS", {"line_search_fn": "armijo"}, "line_search_fn"),
        ("LBFGS", {"tolerance_grad": -1}, "tolerance_grad"),
    ],
)
def test_the_option_that_is_wrong_is_named(kind: str, options: dict[str, Any], name: str) -> None:
    with pytest.raises(fg.ConfigError, match=f"{kind}: {name}"):
        getattr(optim, kind)([nn.Parameter(np.ones((2, 2)))], **options)


def test_muon_wants_matrices() -> None:
    with pytest.raises(fg.ConfigError, match=r"params must be matrices, got one of shape \(3,\)"):
        optim.Muon([nn.Parameter(np.ones(3))])


# PyTorch 2.13's names and defaults, without those that the interfaces page leaves out and `maximize`.
BETAS = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
MOMENTA = {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
NEEDED = inspect.Parameter.empty
SIGNATURES: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 1e-3, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False},
    "Adam": {"lr": 1e-3, **BETAS, "amsgrad": False, "decoupled_weight_decay": False},
    "AdamW": {"lr": 1e-3, **BETAS, "weight_decay": 1e-2, "amsgrad": False},
    "NAdam": {"lr": 2e-3, **BETAS, "momentum_decay": 4e-3, "decoupled_weight_decay": False},
    "RAdam": {"lr": 1e-3, **BETAS, "decoupled_weight_decay": False},
    "Adamax": {"lr": 2e-3, **BETAS},
    "Adagrad": {
        "lr": 1e-2,
        "lr_decay": 0,
        "weight_decay": 0,
        "initial_accumulator_value": 0,
        "eps": 1e-10,
    },
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0},
    "RMSprop": {
        "lr": 1e-2,
        "alpha": 0.99,
        "eps": 1e-8,
        "weight_decay": 0,
        "momentum": 0,
        "centered": False,
    },
    "Rprop": {"lr": 1e-2, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50)},
    "ASGD": {"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0},
    "Muon": {
        "lr": 1e-3,
        "weight_decay": 0.1,
        "momentum": 0.95,
        "nesterov": True,
        "ns_coefficients": (3.4445, -4.775, 2.0315),
        "eps": 1e-7,
        "ns_steps": 5,
        "adjust_lr_fn": None,
    },
    "LBFGS": {
        "lr": 1,
        "max_iter": 20,
        "max_eval": None,
        "tolerance_grad": 1e-7,
        "tolerance_change": 1e-9,
        "history_size": 100,
        "line_search_fn": None,
    },
    "StepLR": {"step_size": NEEDED, "gamma": 0.1},
    "MultiStepLR": {"milestones": NEEDED, "gamma": 0.1},
    "ExponentialLR": {"gamma": NEEDED},
    "CosineAnnealingLR": {"T_max": NEEDED, "eta_min": 0.0},
    "CosineAnnealingWarmRestarts": {"T_0": NEEDED, "T_mult": 1, "eta_min": 0.0},
    "OneCycleLR": {
        "max_lr": NEEDED,
        "total_steps": None,
        "epochs": None,
        "steps_per_epoch": None,
        "pct_start": 0.3,
        "anneal_strategy": "cos",
        **MOMENTA,
        "div_factor": 25.0,
        "final_div_factor": 1e4,
        "three_phase": False,
    },
    "ReduceLROnPlateau": {
        "mode": "min",
        "factor": 0.1,
        "patience": 10,
        "threshold": 1e-4,
        "threshold_mode": "rel",
        "cooldown": 0,
        "min_lr": 0,
        "eps": 1e-8,
    },
    "LinearLR": {"start_factor": 1 / 3, "end_factor": 1.0, "total_iters": 5},
    "ConstantLR": {"factor": 1 / 3, "total_iters": 5},
    "PolynomialLR": {"total_iters": 5, "power": 1.0},
    "CyclicLR": {
        "base_lr": NEEDED,
        "max_lr": NEEDED,
        "step_size_up": 2000,
        "step_size_down": None,
        "mode": "triangular",
        "gamma": 1.0,
        "scale_fn": None,
        "scale_mode": "cycle",
        **MOMENTA,
        "base_momentum": 0.8,
        "max_momentum": 0.9,
    },
    "LambdaLR": {"lr_lambda": NEEDED},
    "MultiplicativeLR": {"lr_lambda": NEEDED},
    "SequentialLR": {"schedulers": NEEDED, "milestones": NEEDED},
}
# Not PyTorch's, or of another form.
OWN = {"Lion", "WarmupCosineLR", "ChainedScheduler", "LRScheduler", "Optimizer"}


def test_every_public_name_has_a_recorded_signature() -> None:
    names = {*optim.__all__, *lr_scheduler.__all__} - {"lr_scheduler", "swa_utils"}
    assert names == set(SIGNATURES) | OWN


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_order_and_defaults_are_pytorchs(name: str) -> None:
    is_schedule = hasattr(lr_scheduler, name)
    parameters = inspect.signature(getattr(lr_scheduler if is_schedule else optim, name)).parameters
    got = [(key, parameter.default) for key, parameter in parameters.items()]
    last = [("last_epoch", -1)] if is_schedule and name != "ReduceLROnPlateau" else []
    first = ("optimizer" if is_schedule else "params", NEEDED)
    assert got == [first, *SIGNATURES[name].items(), *last]
