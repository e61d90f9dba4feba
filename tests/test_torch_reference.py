"""Values, gradients and training runs of PyTorch 2.13 in float64, agreed with to 1e-10.

`data/torch_reference.npz` holds for each case of its manifest the inputs ``in0``, ``in1``, ..., the output,
the gradient that was sent back (``cotangent``) and the gradients that arrived.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg

with np.load(Path(__file__).parent / "data" / "torch_reference.npz", allow_pickle=False) as archive:
    REFERENCE = dict(archive)
MANIFEST = json.loads(str(REFERENCE["manifest"]))
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
# PyTorch's gradients of these are off by a constant that it rounds to float32: 1/6, and 1/alpha.
ROUNDED = {"activation05_CELU", "activation18_Hardsigmoid"}


def cases(*kinds: str) -> Any:
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case["case"]) for case in MANIFEST if case["kind"] in kinds]
    )


def inputs_of(case: dict[str, Any], dtype: Any = np.float64) -> list[fg.Tensor]:
    arrays = [REFERENCE[f"{case['case']}/in{number}"] for number in range(case["n_inputs"])]
    return [
        fg.tensor(
            array.astype(dtype) if array.dtype == np.float64 else array,
            requires_grad=f"{case['case']}/grad{number}" in REFERENCE,
        )
        for number, array in enumerate(arrays)
    ]


def assert_close(found: Any, expected: Any, key: str, *, is_rounded: bool = False) -> None:
    """Relative to each element in float64, to the largest one in float32."""
    if found.dtype == np.float64:
        tolerance = {"rtol": 1e-6, "atol": 1e-9} if is_rounded else TOLERANCE
        np.testing.assert_allclose(found, expected, err_msg=key, **tolerance)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max(), err_msg=key)


def check(
    case: dict[str, Any], inputs: list[fg.Tensor], output: fg.Tensor, dtype: fg.DType = fg.float64
) -> None:
    name = case["case"]
    expected = REFERENCE[f"{name}/out"]
    assert output.shape == expected.shape
    assert output.dtype == dtype
    assert_close(output.numpy(), expected, "out")
    output.backward(REFERENCE[f"{name}/cotangent"])
    n_checked = 0
    for number, tensor in enumerate(inputs):
        key = f"{name}/grad{number}"
        if key in REFERENCE:
            assert tensor.grad is not None
            assert tensor.grad.dtype == dtype
            assert_close(tensor.grad.numpy(), REFERENCE[key], key, is_rounded=name in ROUNDED)
            n_checked += 1
    assert n_checked


@cases("op")
@pytest.mark.parametrize("dtype", [fg.float64, fg.float32], ids=lambda dtype: dtype.name)
def test_op_matches_torch(case: dict[str, Any], dtype: fg.DType) -> None:
    inputs = inputs_of(case, dtype.name)
    function = getattr(fg, case["name"])
    output = (
        function(inputs, **case["kwargs"])
        if case["name"] in ("cat", "stack")
        else function(*inputs, **case["kwargs"])
    )
    check(case, inputs, output, dtype)


@cases("activation")
def test_activation_matches_torch(case: dict[str, Any]) -> None:
    inputs = inputs_of(case)
    check(case, inputs, getattr(fg.nn, case["name"])(**case["kwargs"])(*inputs))


@cases("activation_with_weight")
def test_prelu_matches_torch(case: dict[str, Any]) -> None:
    inputs = inputs_of(case)
    check(case, inputs, fg.nn.functional.prelu(*inputs))


@cases("loss")
def test_loss_matches_torch(case: dict[str, Any]) -> None:
    inputs = inputs_of(case)
    options = {
        name: np.array(value) if isinstance(value, list) else value for name, value in case["kwargs"].items()
    }
    check(case, inputs, getattr(fg.nn, case["name"])(**options)(*inputs))


@cases("layer")
def test_layer_matches_torch(case: dict[str, Any]) -> None:
    options = dict(case["kwargs"])
    training = options.pop("training", True)
    layer = getattr(fg.nn, case["name"])(**options).double().train(training)
    tensors = inputs_of(case)
    weights = [name for name, _ in layer.named_parameters()]
    inputs, values = tensors[: -len(weights)], tensors[-len(weights) :]
    layer.load_state_dict({**layer.state_dict(), **dict(zip(weights, values, strict=True))})
    check(case, [*inputs, *layer.parameters()], layer(*inputs))


@cases("activation", "loss")
def test_single_precision_agrees_to_2e_6_of_the_largest_value(case: dict[str, Any]) -> None:
    name = case["case"]
    inputs = []
    for tensor in inputs_of(case):
        single = tensor.detach().float() if tensor.dtype == fg.float64 else tensor
        inputs.append(single.requires_grad_(tensor.requires_grad))
    options = {
        key: np.float32(value) if isinstance(value, list) else value for key, value in case["kwargs"].items()
    }
    output = getattr(fg.nn, case["name"])(**options)(*inputs)
    assert output.dtype == fg.float32
    output.backward(REFERENCE[f"{name}/cotangent"].astype(np.float32))
    found = {"out": output, **{f"grad{number}": tensor.grad for number, tensor in enumerate(inputs)}}
    for key, value in found.items():
        if f"{name}/{key}" in REFERENCE:
            expected = REFERENCE[f"{name}/{key}"]
            assert np.abs(value.detach().numpy() - expected).max() <= 2e-6 * np.abs(expected).max(), key


@cases("optimizer")
def test_optimizer_matches_torch(case: dict[str, Any]) -> None:
    # The objective is 1/2 sum c (p - t)^2 + sum cos(p), its gradient c (p - t) - sin(p).
    c, t = (fg.tensor(REFERENCE[f"optimizer/{name}"]) for name in "ct")
    p = fg.nn.Parameter(REFERENCE["optimizer/p0"])
    optimizer = getattr(fg.optim, case["name"])([p], **case["kwargs"])

    def closure() -> fg.Tensor:
        optimizer.zero_grad()
        loss = (c * (p - t).square()).sum() * 0.5 + p.cos().sum()
        loss.backward()
        return loss

    if case["name"] == "LBFGS":
        optimizer.step(closure)
        np.testing.assert_allclose(p.numpy(), REFERENCE[f"{case['case']}/final"], **TOLERANCE)
        return
    for expected in REFERENCE[f"{case['case']}/trajectory"]:
        optimizer.step(closure)
        np.testing.assert_allclose(p.numpy(), expected, **TOLERANCE)


@cases("schedule")
def test_schedule_matches_torch(case: dict[str, Any]) -> None:
    optimizer = fg.optim.SGD([fg.nn.Parameter(np.ones(1))], lr=0.1, momentum=0.9)
    schedule = getattr(fg.optim.lr_scheduler, case["name"])(optimizer, **case["kwargs"])
    expected = REFERENCE[f"{case['case']}/lr"]
    if case["name"] == "ReduceLROnPlateau":
        found = []
        for metric in REFERENCE[f"{case['case']}/metric"]:
            schedule.step(metric)
            found += schedule.get_last_lr()
    else:
        found = schedule.get_last_lr()
        for _ in expected[1:]:
            schedule.step()
            found = found + schedule.get_last_lr()
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def build(case: dict[str, Any]) -> tuple[fg.nn.Sequential, fg.nn.Loss, fg.optim.SGD]:
    options, model = case["kwargs"], fg.nn.Sequential()
    sizes = options["sizes"]
    for number in range(len(sizes) - 1):
        if number:
            model.append(getattr(fg.nn, options["activation"])())
        model.append(fg.nn.Linear(sizes[number], sizes[number + 1], dtype=fg.float64))
    model.load_state_dict({name: REFERENCE[f"{case['case']}/param/{name}"] for name in model.state_dict()})
    optimizer = fg.optim.SGD(model.parameters(), lr=options["lr"], momentum=options["momentum"])
    return model, getattr(fg.nn, options["loss"])(), optimizer


def check_final(case: dict[str, Any], model: fg.nn.Module) -> None:
    for name, value in model.state_dict().items():
        expected = REFERENCE[f"{case['case']}/final/{name}"]
        np.testing.assert_allclose(value.numpy(), expected, err_msg=name, **TOLERANCE)


@cases("trajectory")
def test_eager_training_matches_torch(case: dict[str, Any]) -> None:
    model, loss_function, optimizer = build(case)
    X, y = REFERENCE[f"{case['case']}/X"], REFERENCE[f"{case['case']}/y"]
    batch, losses = case["kwargs"]["batch"], []
    for _ in range(case["kwargs"]["epochs"]):
        for start in range(0, len(X), batch):
            optimizer.zero_grad()
            loss = loss_function(model(fg.tensor(X[start : start + batch])), y[start : start + batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(losses, REFERENCE[f"{case['case']}/losses"], **TOLERANCE)
    check_final(case, model)


@cases("trajectory")
def test_trainer_matches_torch(case: dict[str, Any]) -> None:
    model, loss_function, optimizer = build(case)
    options = case["kwargs"]
    history = fg.Trainer(model, loss_function, optimizer).fit(
        REFERENCE[f"{case['case']}/X"],
        REFERENCE[f"{case['case']}/y"],
        epochs=options["epochs"],
        batch_size=options["batch"],
        shuffle=False,
        progress=False,
    )
    per_epoch = REFERENCE[f"{case['case']}/losses"].reshape(options["epochs"], -1).mean(axis=1)
    np.testing.assert_allclose(history.history["loss"], per_epoch, **TOLERANCE)
    check_final(case, model)


@cases("trajectory")
def test_train_steps_match_torch(case: dict[str, Any]) -> None:
    model, loss_function, optimizer = build(case)
    trainer = fg.Trainer(model, loss_function, optimizer)
    X, y = REFERENCE[f"{case['case']}/X"], REFERENCE[f"{case['case']}/y"]
    batch = case["kwargs"]["batch"]
    losses = [
        trainer.train_step(X[start : start + batch], y[start : start + batch])
        for _ in range(case["kwargs"]["epochs"])
        for start in range(0, len(X), batch)
    ]
    np.testing.assert_allclose(losses, REFERENCE[f"{case['case']}/losses"], **TOLERANCE)
    check_final(case, model)
