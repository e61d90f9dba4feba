"""What is done with gradients and weights around a step: clipping, vectors, averages, accumulation."""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    parameters_to_vector,
    vector_to_parameters,
)
from ferrograd.optim.swa_utils import (
    SWALR,
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
    update_bn,
)

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(12, 4)), RNG.integers(0, 3, 12)


def with_grads(*grads: Any) -> list[fg.Tensor]:
    params = []
    for grad in grads:
        param = fg.zeros(*np.shape(grad), dtype=fg.float64, requires_grad=True)
        param.grad = fg.tensor(np.asarray(grad, dtype=np.float64))
        params.append(param)
    return params


def grads_of(params: list[fg.Tensor]) -> list[np.ndarray]:
    return [param.grad.numpy() for param in params if param.grad is not None]


def model_of(seed: int = 0) -> nn.Sequential:
    fg.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()


# Clipping


@pytest.mark.parametrize("norm_type", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.1, 1e6, math.inf])
def test_the_common_norm_is_clipped_by_one_factor(norm_type: float, max_norm: float) -> None:
    before = [RNG.normal(size=(3, 2)), RNG.normal(size=5)]
    params = [*with_grads(*before), fg.zeros(2, requires_grad=True)]
    found = clip_grad_norm_(params, max_norm, norm_type)
    flat = np.abs(np.concatenate([grad.ravel() for grad in before]))
    norm = flat.max() if norm_type == math.inf else (flat**norm_type).sum() ** (1 / norm_type)
    factor = min(1.0, max_norm / (norm + 1e-6))
    assert found.shape == ()
    assert found.dtype == fg.float64
    np.testing.assert_allclose(found.item(), norm, rtol=1e-12)
    for old, new in zip(before, grads_of(params), strict=True):
        np.testing.assert_allclose(new, factor * old, rtol=1e-12)
    assert params[-1].grad is None


def test_clipping_equals_that_of_the_plan() -> None:
    models = [model_of(), model_of()]
    eager, planned = (optim.SGD(model.parameters(), lr=0.5) for model in models)
    nn.CrossEntropyLoss()(models[0](fg.tensor(X)), fg.tensor(Y)).backward()
    clip_grad_norm_(models[0].parameters(), 0.1)
    eager.step()
    fg.Trainer(models[1], nn.CrossEntropyLoss(), planned, clip_grad_norm=0.1).train_step(X, Y)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-15)


def test_a_parameter_listed_twice_is_clipped_once() -> None:
    (param,) = with_grads([3.0, 4.0])
    assert clip_grad_norm_([param, param], 1.0).item() == 5.0
    np.testing.assert_allclose(grads_of([param])[0], [0.6, 0.8], rtol=1e-6)


def test_a_gradient_that_has_a_graph_is_clipped_too() -> None:
    x = fg.tensor([3.0, 4.0], dtype=fg.float64, requires_grad=True)
    (x * x * x).sum().backward(create_graph=True)
    clip_grad_value_(x, 30.0)
    assert grads_of([x])[0].tolist() == [27.0, 30.0]


def test_without_gradients_the_norm_is_zero() -> None:
    assert clip_grad_norm_([fg.zeros(2, requires_grad=True)], 1.0).item() == 0.0


def test_gradients_of_two_dtypes_have_one_norm() -> None:
    params = [*with_grads([3.0]), fg.zeros(1, requires_grad=True)]
    params[1].grad = fg.tensor([4.0])
    assert clip_grad_norm_(params, 1.0).item() == 5.0
    assert params[1].grad is not None
    assert params[1].grad.dtype == fg.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_no_number_raises_if_asked_to(bad: float) -> None:
    params = with_grads([1.0, bad], [2.0])
    with pytest.raises(fg.NonFiniteError, match="clip_grad_norm_: the norm of the gradients is"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert grads_of(params)[1].tolist() == [2.0]
    clip_grad_norm_(params, 1.0)
    assert grads_of(params)[1].tolist() != [2.0]


def test_elements_are_cut() -> None:
    params = with_grads([-3.0, 0.5, math.nan], [[2.0]])
    clip_grad_value_(params, 1.0)
    np.testing.assert_array_equal(grads_of(params)[0], [-1.0, 0.5, math.nan])
    assert grads_of(params)[1].tolist() == [[1.0]]


# Vectors


def test_vector_and_parameters_are_each_others_reverse() -> None:
    model, other = model_of(), model_of(1)
    vector = parameters_to_vector(model.parameters())
    assert vector.numpy().tolist() == [v for param in model.parameters() for v in param.numpy().ravel()]
    vector_to_parameters(vector, other.parameters())
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    assert all(param.requires_grad and param.is_leaf for param in other.parameters())


def test_gradients_flow_through_the_vector() -> None:
    inputs = [fg.tensor(RNG.normal(size=shape), requires_grad=True) for shape in ((2, 3), (4,), ())]
    assert fg.autograd.gradcheck(lambda *tensors: parameters_to_vector(tensors).square(), inputs)


def test_the_vector_may_be_a_view_of_the_parameters() -> None:
    values = fg.tensor([1.0, 2.0, 3.0])
    vector_to_parameters(values, [values[2:], values[:2]])
    assert values.tolist() == [2.0, 3.0, 1.0]


# Averages


def moved(model: nn.Module, times: int) -> list[list[np.ndarray]]:
    """Fill the model with new values so many times; yields each before it is filled again."""
    return [[RNG.normal(size=param.shape) for param in model.parameters()] for _ in range(times)]


@pytest.mark.parametrize(
    ("options", "decay"),
    [
        ({}, None),
        ({"avg_fn": get_swa_avg_fn()}, None),
        ({"multi_avg_fn": get_swa_multi_avg_fn()}, None),
        ({"avg_fn": get_ema_avg_fn(0.8)}, 0.8),
        ({"multi_avg_fn": get_ema_multi_avg_fn(0.8)}, 0.8),
    ],
)
def test_averages_are_those_of_their_formulas(options: dict[str, Any], decay: float | None) -> None:
    model = model_of()
    averaged = AveragedModel(model, **options)
    history = moved(model, 4)
    for values in history:
        vector_to_parameters(
            fg.tensor(np.concatenate([value.ravel() for value in values])), model.parameters()
        )
        averaged.update_parameters(model)
    assert averaged.n_averaged.item() == 4
    for position, param in enumerate(averaged.module.parameters()):
        expected = history[0][position]
        for values in history[1:]:
            if decay is not None:
                expected = decay * expected + (1 - decay) * values[position]
        if decay is None:
            expected = np.mean([values[position] for values in history], axis=0)
        np.testing.assert_allclose(param.numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_buffers_are_copied_or_averaged(use_buffers: bool) -> None:
    model = nn.BatchNorm1d(1)
    averaged = AveragedModel(model, use_buffers=use_buffers)
    assert model.running_mean is not None
    assert isinstance(averaged.module, nn.BatchNorm1d)
    assert averaged.module.running_mean is not None
    assert averaged.module.num_batches_tracked is not None
    for value in (1.0, 5.0):
        model.running_mean.fill_(value)
        model.num_batches_tracked = fg.tensor(int(value))
        averaged.update_parameters(model)
    assert averaged.module.running_mean.tolist() == [3.0 if use_buffers else 5.0]
    assert averaged.module.num_batches_tracked.item() == 5


def test_an_average_is_saved_loaded_and_copied() -> None:
    model = model_of()
    averaged, other = AveragedModel(model), AveragedModel(model_of(1))
    averaged.update_parameters(model)
    other.load_state_dict(averaged.state_dict())
    assert other.n_averaged.item() == 1
    x = fg.tensor(X)
    for made in (other, copy.deepcopy(averaged)):
        assert made.eval()(x).numpy().tobytes() == model.eval()(x).numpy().tobytes()


def test_a_failing_average_changes_nothing() -> None:
    model = model_of()

    def fails(average: fg.Tensor, value: fg.Tensor, n: fg.Tensor) -> fg.Tensor:
        if average.shape == (3, 5):
            raise ZeroDivisionError
        return value + 1.0

    averaged = AveragedModel(model, avg_fn=fails)
    averaged.update_parameters(model)
    before = parameters_to_vector(averaged.parameters()).tolist()
    with pytest.raises(ZeroDivisionError):
        averaged.update_parameters(model)
    assert parameters_to_vector(averaged.parameters()).tolist() == before
    assert averaged.n_averaged.item() == 1


def test_running_statistics_are_the_mean_over_the_batches() -> None:
    model = model_of()
    norm, first = model[1], model[0]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    model.eval()
    update_bn([(fg.tensor(X[:6]), Y[:6]), (fg.tensor(X[6:]), Y[6:])], model)
    hidden = first(fg.tensor(X)).detach().numpy().reshape(2, 6, 5)
    np.testing.assert_allclose(norm.running_mean.numpy(), hidden.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(norm.running_var.numpy(), hidden.var(1, ddof=1).mean(0), rtol=1e-12)
    assert norm.momentum == 0.1
    assert not norm.training


def test_running_statistics_stay_where_a_batch_fails() -> None:
    model = model_of()
    before = [buffer.tolist() for buffer in model.buffers()]
    with pytest.raises(fg.ShapeError):
        update_bn([fg.tensor(X), fg.ones(2, 2, dtype=fg.float64)], model)
    assert [buffer.tolist() for buffer in model.buffers()] == before
    assert isinstance(model[1], nn.BatchNorm1d)
    assert model[1].momentum == 0.1


def test_a_trainer_averages_the_weights_after_each_epoch() -> None:
    model = model_of()
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.1))
    averaged = AveragedModel(model)
    seen: list[np.ndarray] = []

    class Record(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            seen.append(parameters_to_vector(model.parameters()).detach().numpy())

    trainer.fit(X, Y, epochs=6, seed=0, callbacks=[fg.WeightAveraging(averaged, 2), Record()])
    assert averaged.n_averaged.item() == 4
    assert not np.array_equal(seen[2], seen[5])
    found = parameters_to_vector(averaged.parameters()).detach().numpy()
    np.testing.assert_allclose(found, np.mean(seen[2:], axis=0), rtol=1e-12, atol=1e-15)


# Accumulation


def test_accumulated_gradients_make_the_step_of_the_large_batch() -> None:
    models = [nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    loss, x, y = nn.CrossEntropyLoss(), fg.tensor(X), fg.tensor(Y)
    for part in range(3):
        rows = slice(4 * part, 4 * part + 4)
        (loss(models[0](x[rows]), y[rows]) / 3).backward()
    loss(models[1](x), y).backward()
    before = parameters_to_vector(models[0].parameters()).tolist()
    for model in models:
        optim.SGD(model.parameters(), lr=0.5).step()
    a, b = (parameters_to_vector(model.parameters()).detach().numpy() for model in models)
    assert a.tolist() != before
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


# Names and defaults

NEEDED = inspect.Parameter.empty
# As PyTorch 2.13 has them, without `foreach`.
SIGNATURES: dict[Callable[..., Any], dict[str, Any]] = {
    clip_grad_norm_: {
        "parameters": NEEDED,
        "max_norm": NEEDED,
        "norm_type": 2.0,
        "error_if_nonfinite": False,
    },
    clip_grad_value_: {"parameters": NEEDED, "clip_value": NEEDED},
    parameters_to_vector: {"parameters": NEEDED},
    vector_to_parameters: {"vec": NEEDED, "parameters": NEEDED},
    AveragedModel: {
        "model": NEEDED,
        "device": None,
        "avg_fn": None,
        "multi_avg_fn": None,
        "use_buffers": False,
    },
    get_ema_avg_fn: {"decay": 0.999},
    get_ema_multi_avg_fn: {"decay": 0.999},
    SWALR: {
        "optimizer": NEEDED,
        "swa_lr": NEEDED,
        "anneal_epochs": 10,
        "anneal_strategy": "cos",
        "last_epoch": -1,
    },
    update_bn: {"loader": NEEDED, "model": NEEDED, "device": None},
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__name__)
def test_names_and_defaults_are_pytorchs(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    assert {found.name: found.default for found in parameters} == SIGNATURES[function]


# Bad input

Call = Callable[[], Any]
BAD: list[tuple[Call, type[Exception], str]] = [
    (lambda: clip_grad_norm_(with_grads([1.0]), -1.0), fg.ConfigError, "max_norm must be a number of at"),
    (lambda: clip_grad_norm_(with_grads([1.0]), math.nan), fg.ConfigError, "max_norm must be"),
    (lambda: clip_grad_norm_(with_grads([1.0]), 1.0, 0), fg.ConfigError, "norm_type must be above 0"),
    (lambda: clip_grad_norm_(with_grads([1.0]), 1.0, True), fg.ConfigError, "norm_type must be a number"),
    (lambda: clip_grad_norm_([1.0], 1.0), fg.DTypeError, "parameter 0 is float"),  # type: ignore[list-item]
    (lambda: clip_grad_value_(with_grads([1.0]), -0.5), fg.ConfigError, "clip_value must be"),
    (lambda: clip_grad_value_([None], 0.5), fg.DTypeError, "parameter 0 is NoneType"),  # type: ignore[list-item]
    (lambda: parameters_to_vector([]), fg.ConfigError, "there are no parameters"),
    (lambda: parameters_to_vector([2]), fg.DTypeError, "parameter 0 is int"),  # type: ignore[list-item]
    (lambda: vector_to_parameters(fg.ones(3), [fg.ones(2)]), fg.ShapeError, r"shape \(2,\), got \(3,\)"),
    (lambda: vector_to_parameters(fg.ones(1, 2), [fg.ones(2)]), fg.ShapeError, r"got \(1, 2\)"),
    (lambda: vector_to_parameters([1.0], [fg.ones(1)]), fg.DTypeError, "vec is list"),  # type: ignore[arg-type]
    (lambda: get_ema_avg_fn(1.5), fg.ConfigError, "decay: expected a number of at most 1"),
    (lambda: get_ema_multi_avg_fn(-0.1), fg.ConfigError, "decay"),
    (lambda: AveragedModel(len), fg.ConfigError, "must be a Module"),  # type: ignore[arg-type]
    (
        lambda: AveragedModel(nn.ReLU(), avg_fn=get_swa_avg_fn(), multi_avg_fn=get_swa_multi_avg_fn()),
        fg.ConfigError,
        "not both",
    ),
    (
        lambda: AveragedModel(nn.Linear(1, 2)).update_parameters(nn.Linear(2, 1)),
        fg.ShapeError,
        "other parameters or buffers",
    ),
    (lambda: update_bn([], nn.BatchNorm1d(2), "cuda"), fg.DeviceError, "cuda"),
    (lambda: fg.WeightAveraging(nn.ReLU()), fg.ConfigError, "averaged: expected an AveragedModel"),  # type: ignore[arg-type]
    (lambda: fg.WeightAveraging(AveragedModel(nn.ReLU()), -1), fg.ConfigError, "start_epoch"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call: Call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_early_stopping_restores_running_means_with_the_best_weights() -> None:
    X, y = fg.datasets.make_moons(n_samples=64, noise=0.3, seed=0)
    model = fg.nn.Sequential(fg.nn.Linear(2, 8), fg.nn.BatchNorm1d(8), fg.nn.ReLU(), fg.nn.Linear(8, 2))
    trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=2.0))
    stop = fg.EarlyStopping(patience=3, restore_best_weights=True)
    history = trainer.fit(
        X, y, epochs=60, batch_size=16, validation_data=(X, y), callbacks=[stop], progress=False, seed=0
    )
    assert stop.best_epoch is not None
    assert stop.best_epoch < len(history.epoch) - 1
    assert trainer.evaluate(X, y)["loss"] == pytest.approx(stop.best, rel=1e-6)
