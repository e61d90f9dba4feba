"""`fg.anomaly_mode`: where a NaN is born, eagerly and in a plan, and what is left behind."""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from test_catalogue import LAYERS, LOSSES, TARGET, WIDTH
from test_catalogue import X as ROWS

RNG = np.random.default_rng(4)
X = RNG.normal(size=(40, 3))
Y = RNG.normal(size=(40, 2))


class Root(nn.Module):
    """NaN below 0, an infinite slope at 0."""

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return x.sqrt()


class Unit(nn.Module):
    """Rows of length 1: 0 / 0 for a row of zeros."""

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return x / x.square().sum(1, keepdim=True).sqrt()


def caught(call: Callable[[], Any], check_inf: bool = False) -> fg.AnomalyError:
    with pytest.raises(fg.AnomalyError) as found, fg.anomaly_mode(check_inf):
        call()
    assert fg._core.get_anomaly_mode() is None
    return found.value


def test_forward_names_op_place_and_operands() -> None:
    error = caught(lambda: fg.tensor([[4.0, 1.0], [1.0, -1.0]]).log().sum())
    assert (error.op, error.phase, error.layer, error.epoch, error.batch) == (
        "log",
        "forward",
        None,
        None,
        None,
    )
    assert str(error) == "log: the result is NaN at (1, 1); operand 0: float32 (2, 2) from -1.0 to 4.0"
    assert error.inputs[0].tolist() == [[4.0, 1.0], [1.0, -1.0]]
    assert isinstance(error, fg.NonFiniteError)


def test_what_came_in_as_nan_shows_among_the_operands() -> None:
    error = caught(lambda: fg.tensor([1.0, math.nan, math.inf]) + fg.tensor([1, 2, 3]))
    assert "operand 0: float32 (3,) from 1.0 to 1.0, 2 of 3 not finite; operand 1: float32" in str(error)


def test_backward_names_the_op_of_forward_and_its_layer() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), Root()))
    x = fg.tensor([[-1.0, 4.0]], requires_grad=True)

    def run() -> None:
        (model(x) * 0).sum().backward()

    error = caught(run)
    assert (error.op, error.phase, error.layer) == ("sqrt", "backward", "1.1")
    assert str(error).startswith("sqrt: the gradient is NaN at (0, 0), in layer 1.1; operand 0: ")
    assert x.grad is None
    # The infinite slope that comes first.
    error = caught(lambda: model(x).sum().backward(), check_inf=True)
    assert (error.op, error.phase, str(error)[:26]) == ("sqrt", "backward", "sqrt: the gradient is inf ")


def test_a_sum_of_gradients_a_hook_and_a_tangent() -> None:
    x = fg.tensor([1e308], dtype=fg.float64, requires_grad=True)

    def meet() -> None:
        y = x.exp() * 0 + x
        ((y * 1e308).sum() + (y * 1e308).sum()).backward()

    assert caught(meet, check_inf=True).phase == "forward"
    z = fg.tensor([1.0], requires_grad=True)

    def hooked() -> None:
        y = z * 2
        y.register_hook(lambda grad: grad * math.nan)
        (y + 1).sum().backward()

    error = caught(hooked)
    assert (error.op, error.phase) == ("mul", "backward")
    zero = fg.tensor([0.0])
    error = caught(lambda: fg.func.jvp(lambda x: x.sqrt(), (zero,), (zero,)))
    assert (error.op, error.phase) == ("sqrt", "jvp")


def test_second_derivatives_carry_the_layer_too() -> None:
    layer = nn.Sequential(Root())
    x = fg.tensor([0.0], requires_grad=True)

    def run() -> None:
        (slope,) = fg.autograd.grad(layer(x).sum(), x, create_graph=True)
        (1 / slope).sum().backward()

    error = caught(run)
    assert (error.op, error.phase, error.layer) == ("div", "backward", "0")


def test_a_function_and_a_gate_are_named() -> None:
    class Broken(fg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> fg.Tensor:
            return fg.tensor(args[0].numpy() * math.nan)

    assert caught(lambda: Broken.apply(fg.ones(2))).op == "Broken"


def test_a_masked_part_of_a_gradient_is_no_anomaly() -> None:
    base, power = fg.tensor([0.0, 2.0], requires_grad=True), fg.tensor([2.0, 0.0], requires_grad=True)
    with fg.anomaly_mode():
        (base**power).sum().backward()
    assert power.grad is not None
    assert power.grad[0].item() == 0.0


def trainer(model: nn.Module, rule: Any = optim.Adam, **options: Any) -> fg.Trainer:
    model.double()
    return fg.Trainer(model, nn.MSELoss(), rule(model.parameters(), **options))


def states(found: fg.Trainer) -> list[Any]:
    assert isinstance(found.model, nn.Module)
    buffers = [entries[key] for entries in found.optimizer.state.values() for key in sorted(entries)]
    values = [value.tolist() if isinstance(value, fg.Tensor) else value for value in buffers]
    return [parameter.tolist() for parameter in found.model.parameters()] + values


def with_unit() -> nn.Sequential:
    fg.manual_seed(1)
    first = nn.Sequential(nn.Identity(), Unit())
    return nn.Sequential(first, nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_fit_names_epoch_batch_and_layer_and_leaves_all_as_before_that_step(shuffle: bool) -> None:
    x = X.copy()
    x[29] = 0
    watched = trainer(with_unit())
    error = caught(lambda: watched.fit(x, Y, epochs=2, batch_size=8, shuffle=shuffle, seed=3))
    assert (error.op, error.phase, error.layer, error.epoch) == ("div", "forward", "0.1", 0)
    order = fitted_order(3) if shuffle else np.arange(40)
    batch = int(np.flatnonzero(order == 29)[0]) // 8
    assert error.batch == batch > 0
    assert str(error).startswith(f"epoch 0, batch {batch}: div: the result is NaN at ")
    # The row of zeros went in.
    assert (error.inputs[0].numpy() == 0).all(1).sum() == 1

    plain = trainer(with_unit())
    for number in range(batch):
        rows = order[number * 8 : number * 8 + 8]
        plain.train_step(x[rows], Y[rows])
    assert states(watched) == states(plain)


def fitted_order(seed: int) -> Any:
    """The rows of the first epoch of a fit, read from a model that keeps what it is given."""
    weight = nn.Parameter(fg.zeros(1, dtype=fg.float64))
    rows = np.arange(40.0)[:, None]
    seen: list[float] = []

    class Reader:
        def forward(self, x: Any) -> Any:
            seen.extend(x.ravel().tolist())
            return x

        def backward(self, dout: Any) -> Any:
            return dout

    found = fg.Trainer(lambda x: fg.gate(Reader())(x) * weight, nn.MSELoss(), optim.SGD([weight], lr=0.0))
    found.fit(rows, rows, epochs=1, batch_size=8, seed=seed, progress=False)
    return np.array(seen[-40:]).astype(int)


def test_backward_in_a_plan_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), Root())
    found = trainer(model)
    before = states(found)
    error = caught(lambda: found.fit(X, Y, epochs=3, batch_size=10, shuffle=False, seed=0), check_inf=True)
    assert (error.op, error.phase, error.layer, error.epoch, error.batch) == ("sqrt", "backward", "2", 0, 0)
    assert states(found)[:2] == before[:2]


def test_an_update_that_overflows_names_its_parameter() -> None:
    found = trainer(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)), optim.SGD, lr=1e308)
    error = caught(lambda: found.fit(X * 100, Y * 1e5, epochs=1, batch_size=10, seed=0), check_inf=True)
    assert (error.op, error.phase, error.epoch, error.batch) == ("update", "update", 0, 0)
    assert error.layer in {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert str(error).endswith(f"(parameter {error.layer})")


def test_the_mode_changes_no_number() -> None:
    runs = []
    for watched in (True, False):
        fg.manual_seed(2)
        model = nn.Sequential(
            nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2)
        )
        found = trainer(model, optim.SGD, lr=0.05, momentum=0.9)
        with fg.anomaly_mode(check_inf=True) if watched else fg.enable_grad():
            losses = found.fit(X, Y, epochs=3, batch_size=16, seed=5, progress=False).history["loss"]
            losses.append(found.train_step(X[:8], Y[:8]))
            losses.append(found.evaluate(X, Y)["loss"])
            predicted = found.predict(X).tolist()
        runs.append((losses, predicted, states(found)))
    assert runs[0] == runs[1]


def test_steps_and_predictions_that_were_compiled_before_are_looked_at_too() -> None:
    found = trainer(nn.Sequential(nn.Linear(3, 2), Root()), optim.SGD, lr=0.0)
    weight = found.model[0].weight  # type: ignore[index]
    ones = np.ones((4, 3))
    with fg.no_grad():
        weight.copy_(fg.ones(2, 3))
    for _ in range(2):
        found.train_step(ones, Y[:4])
        found.predict(ones[:1])
    with fg.no_grad():
        weight.copy_(-fg.ones(2, 3))
    assert caught(lambda: found.train_step(ones, Y[:4])).layer == "1"
    assert caught(lambda: found.predict(ones[:1])).layer == "1"
    with pytest.warns(fg.ConvergenceWarning):
        found.train_step(ones, Y[:4])
    assert np.isnan(found.predict(ones[:1])).all()


@pytest.mark.parametrize("name", [*LAYERS, *LOSSES])
def test_no_layer_and_no_loss_makes_a_nan_on_its_way(name: str) -> None:
    fg.manual_seed(3)
    if name in LAYERS:
        make, width = LAYERS[name]
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), make(), nn.Linear(width, 3)).double()
        loss, target = nn.MSELoss(), TARGET
    else:
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH)).double()
        loss, target = LOSSES[name]  # type: ignore[assignment]
    if isinstance(loss, nn.Loss):
        loss.double()
    optimizer = optim.SGD(model.parameters(), lr=0.02)
    with fg.anomaly_mode(check_inf=True):
        assert math.isfinite(
            fg.Trainer(model, loss, optimizer).train_step(ROWS, np.ascontiguousarray(target))
        )
        loss(model(fg.tensor(ROWS)), fg.tensor(np.ascontiguousarray(target))).backward()


def test_calls_cost_nothing_outside() -> None:
    plain = nn.Module.__dict__["__call__"]
    with fg.anomaly_mode():
        assert nn.Module.__dict__["__call__"] is not plain
        with fg.anomaly_mode(check_inf=True):
            assert fg._core.get_anomaly_mode() is True
        assert fg._core.get_anomaly_mode() is False
        assert nn.Module.__dict__["__call__"] is not plain
    assert nn.Module.__dict__["__call__"] is plain
    assert math.isnan(fg.tensor(-1.0).log().item())


def test_another_thread_is_left_alone() -> None:
    made: list[Any] = []
    with fg.anomaly_mode():
        thread = threading.Thread(target=lambda: made.append(nn.Sequential(Root())(fg.tensor([-1.0])).item()))
        thread.start()
        thread.join()
    assert math.isnan(made[0])


def test_bad_input_is_named() -> None:
    with pytest.raises(fg.ConfigError, match="check_inf: expected True or False, got 1"):
        fg.anomaly_mode(1)  # type: ignore[arg-type]


def test_an_anomaly_of_validation_names_the_epoch() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Root())
    with fg.no_grad():
        model[0].weight.copy_(fg.ones(2, 2))
        model[0].bias.fill_(0.5)
    trainer = fg.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=1e-6))
    X, y = np.ones((4, 2), np.float32), np.ones((4, 2), np.float32)
    with fg.anomaly_mode(), pytest.raises(fg.AnomalyError, match="epoch 0, validation batch 0: ") as caught:
        trainer.fit(X, y, epochs=2, batch_size=2, validation_data=(-X, y), progress=False)
    assert (caught.value.epoch, caught.value.batch) == (0, 0)


class Logarithm(fg.autograd.Function):
    """NaN below 0, from an operation inside; a slope that is NaN above 9."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> fg.Tensor:
        ctx.save_for_backward(args[0])
        return args[0].log()

    @staticmethod
    def backward(ctx: Any, *grads: fg.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return fg.where(x > 9, math.nan, grads[0] / x)


class Logged(nn.Module):
    def forward(self, x: fg.Tensor) -> fg.Tensor:
        return Logarithm.apply(x)


@pytest.mark.parametrize(("bad", "op", "phase"), [(-1.0, "log", "forward"), (10.0, "Logarithm", "backward")])
def test_inside_a_function_in_a_fit_op_layer_epoch_and_batch_are_known(
    bad: float, op: str, phase: str
) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(1, 1), Logged()))
    found = trainer(model, optim.SGD, lr=0.0)
    with fg.no_grad():
        for parameter, value in zip(model.parameters(), (1.0, 0.0), strict=True):
            parameter.fill_(value)
    x = np.full((12, 1), 2.0)
    x[9] = bad
    error = caught(lambda: found.fit(x, x, epochs=1, batch_size=4, shuffle=False, progress=False))
    assert (error.op, error.phase, error.layer, error.epoch, error.batch) == (op, phase, "1.1", 0, 2)
    assert str(error).startswith(f"epoch 0, batch 2: {op}: the ")
    assert math.isnan(error.value)
    # The gradients of a function's arguments are one vector.
    assert error.at == ("(1, 0)" if phase == "forward" else "(1,)")
    # Where it was raised is still to be seen.
    if phase == "forward":
        frames = []
        trace = error.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert frames[-1] == "forward"


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.LBFGS])
def test_an_eager_step_that_overflows_is_seen(rule: Any) -> None:
    fine, bad = fg.tensor([1.0], requires_grad=True), fg.tensor([1.0], requires_grad=True)
    optimizer = rule([fine, bad], lr=1.0)
    # An infinite slope along a direction makes LBFGS's step one of inf / inf.
    fine.grad, bad.grad = fg.tensor([1.0]), fg.tensor([math.inf if rule is optim.LBFGS else math.nan])
    error = caught(lambda: optimizer.step(lambda: 1.0))
    assert (error.op, error.phase, error.layer) == ("update", "update", None)
    assert "the parameter is NaN at (0,)" in str(error)
    assert str(error).endswith("(parameter 1 of the optimizer)")
    optimizer.step(lambda: 1.0)
