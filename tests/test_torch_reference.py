"""Values, gradients and training runs of PyTorch 2.13: agreed with to 1e-10 in float64, to 2e-6 in float32.

`data/torch_reference.npz` holds for each case of its manifest the inputs ``in0``, ``in1``, ..., the output,
the gradient that was sent back (``cotangent``) and the gradients that arrived; or what an optimizer, a
schedule or a training run made of its start. In float32 the measure is the array's largest magnitude.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

with np.load(Path(__file__).parent / "data" / "torch_reference.npz", allow_pickle=False) as archive:
    REFERENCE = dict(archive)
MANIFEST = json.loads(str(REFERENCE["manifest"]))
# What a run starts from; all else is compared.
GIVEN = ("in", "cotangent", "param/", "X", "y", "metric")


class Case:
    """An entry of the manifest, to be run in a dtype."""

    def __init__(self, entry: dict[str, Any], dtype: fg.DType) -> None:
        self.name, self.of, self.dtype = entry["case"], entry["name"], dtype
        self.options = {
            key: self.real(np.array(value)) if entry["kind"] == "loss" and isinstance(value, list) else value
            for key, value in entry["kwargs"].items()
        }
        self.n_inputs = entry.get("n_inputs", 0)

    def real(self, array: Array) -> Array:
        return array.astype(self.dtype.name) if array.dtype == np.float64 else array

    def array(self, key: str) -> Array:
        return self.real(REFERENCE[key])

    def inputs(self) -> list[fg.Tensor]:
        return [
            fg.tensor(
                self.array(f"{self.name}/in{number}"),
                requires_grad=f"{self.name}/grad{number}" in REFERENCE,
            )
            for number in range(self.n_inputs)
        ]

    def results(self, inputs: list[fg.Tensor], output: fg.Tensor) -> Arrays:
        output.backward(self.array(f"{self.name}/cotangent"))
        found = {"out": output.detach().numpy()}
        for number, tensor in enumerate(inputs):
            if tensor.grad is not None:
                found[f"grad{number}"] = tensor.grad.numpy()
        return found


def run_op(case: Case) -> Arrays:
    inputs, function = case.inputs(), getattr(fg, case.of)
    is_of_list = case.of in ("cat", "stack")
    return case.results(
        inputs, function(inputs, **case.options) if is_of_list else function(*inputs, **case.options)
    )


def run_module(case: Case) -> Arrays:
    inputs = case.inputs()
    return case.results(inputs, getattr(fg.nn, case.of)(**case.options)(*inputs))


def run_prelu(case: Case) -> Arrays:
    inputs = case.inputs()
    return case.results(inputs, fg.nn.functional.prelu(*inputs))


def run_layer(case: Case) -> Arrays:
    training = case.options.pop("training", True)
    layer = getattr(fg.nn, case.of)(**case.options).to(case.dtype).train(training)
    tensors = case.inputs()
    weights = [name for name, _ in layer.named_parameters()]
    inputs, values = tensors[: -len(weights)], tensors[-len(weights) :]
    layer.load_state_dict({**layer.state_dict(), **dict(zip(weights, values, strict=True))})
    return case.results([*inputs, *layer.parameters()], layer(*inputs))


def run_optimizer(case: Case) -> Arrays:
    # The objective is 1/2 sum c (p - t)^2 + sum cos(p), its gradient c (p - t) - sin(p).
    c, t = (fg.tensor(case.array(f"optimizer/{name}")) for name in "ct")
    p = fg.nn.Parameter(case.array("optimizer/p0"))
    optimizer = getattr(fg.optim, case.of)([p], **case.options)

    def closure() -> fg.Tensor:
        optimizer.zero_grad()
        loss = (c * (p - t).square()).sum() * 0.5 + p.cos().sum()
        loss.backward()
        return loss

    if case.of == "LBFGS":
        optimizer.step(closure)
        return {"final": p.detach().numpy()}
    path = []
    for _ in REFERENCE[f"{case.name}/trajectory"]:
        optimizer.step(closure)
        path.append(p.detach().numpy().copy())
    return {"trajectory": np.array(path)}


def run_schedule(case: Case) -> Arrays:
    """Rates are numbers of Python, whatever the dtype of the parameters."""
    parameter = fg.nn.Parameter(np.ones(1, case.dtype.name))
    optimizer = fg.optim.SGD([parameter], lr=0.1, momentum=0.9)
    schedule = getattr(fg.optim.lr_scheduler, case.of)(optimizer, **case.options)
    steps: list[Any] = [()] * (len(REFERENCE[f"{case.name}/lr"]) - 1)
    found = schedule.get_last_lr()
    if case.of == "ReduceLROnPlateau":
        steps, found = [(metric,) for metric in REFERENCE[f"{case.name}/metric"]], []
    for arguments in steps:
        schedule.step(*arguments)
        found = found + schedule.get_last_lr()
    return {"lr": np.array(found)}


def built(case: Case) -> tuple[fg.nn.Sequential, fg.nn.Loss, fg.optim.SGD]:
    model, sizes = fg.nn.Sequential(), case.options["sizes"]
    for number in range(len(sizes) - 1):
        if number:
            model.append(getattr(fg.nn, case.options["activation"])())
        model.append(fg.nn.Linear(sizes[number], sizes[number + 1], dtype=case.dtype))
    model.load_state_dict({name: case.array(f"{case.name}/param/{name}") for name in model.state_dict()})
    optimizer = fg.optim.SGD(model.parameters(), lr=case.options["lr"], momentum=case.options["momentum"])
    return model, getattr(fg.nn, case.options["loss"])(), optimizer


def trained(model: fg.nn.Module, losses: Any) -> Arrays:
    found = {f"final/{name}": value.numpy().copy() for name, value in model.state_dict().items()}
    return {"losses": np.array(losses), **found}


def batches(case: Case) -> list[tuple[Array, Array]]:
    X, y = case.array(f"{case.name}/X"), case.array(f"{case.name}/y")
    size = case.options["batch"]
    return [(X[start : start + size], y[start : start + size]) for start in range(0, len(X), size)]


def run_eager(case: Case) -> Arrays:
    model, loss_function, optimizer = built(case)
    losses = []
    for x, y in batches(case) * case.options["epochs"]:
        optimizer.zero_grad()
        loss = loss_function(model(fg.tensor(x)), fg.tensor(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return trained(model, losses)


def run_steps(case: Case) -> Arrays:
    model, loss_function, optimizer = built(case)
    trainer = fg.Trainer(model, loss_function, optimizer)
    return trained(model, [trainer.train_step(x, y) for x, y in batches(case) * case.options["epochs"]])


def run_fit(case: Case) -> Arrays:
    """A fit reports means of epochs: they are compared here, and given back as the losses of the file."""
    model, loss_function, optimizer = built(case)
    history = fg.Trainer(model, loss_function, optimizer).fit(
        case.array(f"{case.name}/X"),
        case.array(f"{case.name}/y"),
        epochs=case.options["epochs"],
        batch_size=case.options["batch"],
        shuffle=False,
        progress=False,
    )
    losses = REFERENCE[f"{case.name}/losses"]
    means = losses.reshape(case.options["epochs"], -1).mean(axis=1)
    rtol = 1e-10 if case.dtype == fg.float64 else 2e-6
    np.testing.assert_allclose(history.history["loss"], means, rtol=rtol)
    return trained(model, losses)


RUNS: dict[str, Callable[[Case], Arrays]] = {
    "op": run_op,
    "activation": run_module,
    "activation_with_weight": run_prelu,
    "loss": run_module,
    "layer": run_layer,
    "optimizer": run_optimizer,
    "schedule": run_schedule,
    "trajectory": run_eager,
}


# PyTorch's gradients of these have a constant that it rounds to float32, 1/6 and alpha: what theirs must be
# multiplied with, by the input, to have that of the formula.
SIXTH, ALPHA = float(np.float32(1 / 6)), float(np.float32(1.3))
ROUNDED = {
    "activation18_Hardsigmoid": lambda x: 1 / (6 * SIXTH),
    "activation05_CELU": lambda x: np.where(x < 0, np.exp(x / 1.3 - x / ALPHA) * ALPHA / 1.3, 1.0),
}


def expected_of(name: str, key: str) -> Array:
    expected = REFERENCE[f"{name}/{key}"]
    if name in ROUNDED and key == "grad0":
        return expected * ROUNDED[name](REFERENCE[f"{name}/in0"])
    return expected


def check(found: Arrays, case: Case) -> None:
    """Each number in float64, the largest difference over the largest magnitude in float32."""
    known = {key.removeprefix(f"{case.name}/") for key in REFERENCE if key.startswith(f"{case.name}/")}
    assert set(found) == {key for key in known if not key.startswith(GIVEN)}
    for key, value in found.items():
        expected = expected_of(case.name, key)
        if case.dtype == fg.float64 or key == "lr":
            np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10, err_msg=key)
        else:
            assert key == "losses" or value.dtype == np.float32
            largest = np.abs(expected).max()
            np.testing.assert_allclose(value, expected, rtol=0, atol=2e-6 * largest, err_msg=key)


BOTH = (fg.float64, fg.float32)
CASES = [(entry, dtype) for entry in MANIFEST for dtype in BOTH]


def named(cases: list[tuple[dict[str, Any], fg.DType]]) -> Any:
    ids = [f"{entry['case']}-{dtype.name}" for entry, dtype in cases]
    return pytest.mark.parametrize(("entry", "dtype"), cases, ids=ids)


@named(CASES)
def test_case_matches_torch(entry: dict[str, Any], dtype: fg.DType) -> None:
    case = Case(entry, dtype)
    check(RUNS[entry["kind"]](case), case)


@named([case for case in CASES if case[0]["kind"] == "trajectory"])
@pytest.mark.parametrize("run", [run_steps, run_fit])
def test_trainer_matches_torch(entry: dict[str, Any], dtype: fg.DType, run: Any) -> None:
    case = Case(entry, dtype)
    check(run(case), case)
