"""Hooks on tensors and modules, eager and in a plan."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(8, 3)), RNG.integers(0, 2, 8)


def leaf(values: Any) -> fg.Tensor:
    return fg.tensor(np.asarray(values, dtype=np.float64), requires_grad=True)


def grad_of(tensor: fg.Tensor) -> list[Any]:
    assert tensor.grad is not None
    return tensor.grad.tolist()  # type: ignore[no-any-return]


def model_of() -> nn.Sequential:
    fg.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


# Tensors


def test_a_hook_sees_the_whole_gradient_of_a_result_and_of_a_leaf() -> None:
    x, seen = leaf([1.0, 2.0]), []
    y = x * 3
    y.register_hook(lambda grad: seen.append(("y", grad.tolist())))
    x.register_hook(lambda grad: seen.append(("x", grad.tolist())))
    (y * y + y).sum().backward()
    assert seen == [("y", [7.0, 13.0]), ("x", [21.0, 39.0])]
    assert grad_of(x) == [21.0, 39.0]


def test_hooks_replace_the_gradient_one_after_the_other() -> None:
    x = leaf([1.0])
    y = x * 1
    y.register_hook(lambda grad: grad + 1)
    y.register_hook(lambda grad: np.asarray(grad * 10))
    y.retain_grad()
    y.sum().backward()
    assert grad_of(x) == [20.0]
    assert grad_of(y) == [20.0]


def test_grad_goes_through_hooks_too() -> None:
    x = leaf([2.0])
    x.register_hook(lambda grad: -grad)
    (found,) = fg.autograd.grad((x * x).sum(), x)
    assert found is not None
    assert found.tolist() == [-4.0]
    assert x.grad is None


def test_a_hooks_operations_are_differentiated() -> None:
    x = leaf([2.0])

    def gradient(x: fg.Tensor) -> fg.Tensor:
        y = x * 1
        # For the first pass only: the second goes through y again.
        with y.register_hook(lambda grad: grad * grad):
            (found,) = fg.autograd.grad((y**3).sum(), x, create_graph=True)
        assert found is not None
        return found

    # (3 x^2)^2 = 9 x^4, whose derivative is 36 x^3.
    (second,) = fg.autograd.grad(gradient(x).sum(), x)
    assert second is not None
    assert second.tolist() == [288.0]
    assert fg.autograd.gradcheck(gradient, x)


def test_an_error_of_a_hook_leaves_every_gradient() -> None:
    x, y = leaf([1.0]), leaf([2.0])
    (x * y).backward()
    result = x * 1 * y

    def fails(grad: fg.Tensor) -> None:
        raise LookupError("mine")

    with x.register_hook(fails), pytest.raises(LookupError, match="mine"):
        result.backward(retain_graph=True)
    assert (grad_of(x), grad_of(y)) == ([2.0], [1.0])
    result.backward()
    assert (grad_of(x), grad_of(y)) == ([4.0], [2.0])


def test_a_removed_hook_does_nothing() -> None:
    x = leaf([1.0])
    with x.register_hook(lambda grad: grad * 2):
        x.sum().backward()
    x.sum().backward()
    handle = x.register_hook(lambda grad: grad * 100)
    handle.remove()
    handle.remove()
    x.sum().backward()
    assert grad_of(x) == [4.0]


def test_a_hook_may_remove_itself() -> None:
    x = leaf([1.0])

    def once(grad: fg.Tensor) -> fg.Tensor:
        handle.remove()
        return grad * 5

    handle = x.register_hook(once)
    x.sum().backward()
    x.sum().backward()
    assert grad_of(x) == [6.0]


def test_a_handle_outlives_its_tensor() -> None:
    handle = leaf([1.0]).register_hook(lambda grad: None)
    gc.collect()
    handle.remove()


# Modules


def test_hooks_around_forward_see_and_replace() -> None:
    layer, seen = nn.Linear(2, 1, bias=False), []
    nn.init.ones_(layer.weight)
    layer.register_forward_pre_hook(lambda module, args: seen.append((module, len(args))))
    layer.register_forward_pre_hook(lambda module, args: args[0] * 2)
    layer.register_forward_hook(lambda module, args, output: output + args[0].sum())
    assert layer(fg.tensor([[1.0, 2.0]])).tolist() == [[12.0]]
    assert seen == [(layer, 1)]


def test_hooks_run_in_order_and_a_prepended_one_first() -> None:
    layer, seen = nn.Identity(), []
    for name, prepend in (("a", False), ("b", False), ("c", True)):
        layer.register_forward_hook(lambda *_, name=name: seen.append(name), prepend=prepend)
    layer(fg.ones(1))
    assert seen == ["c", "a", "b"]


def test_hooks_get_keyword_arguments_where_they_ask_for_them() -> None:
    class Scale(nn.Module):
        def forward(self, x: fg.Tensor, factor: float = 1.0) -> fg.Tensor:
            return x * factor

    layer = Scale()
    layer.register_forward_pre_hook(lambda module, args, kwargs: (args, {"factor": 3.0}), with_kwargs=True)
    layer.register_forward_hook(
        lambda module, args, kwargs, output: output + kwargs["factor"], with_kwargs=True
    )
    assert layer(fg.tensor([1.0]), factor=2.0).tolist() == [6.0]


def test_a_backward_hook_gets_both_gradients_and_may_replace_one() -> None:
    layer, seen = nn.Linear(2, 1, bias=False).double(), []
    nn.init.constant_(layer.weight, 3.0)

    def hook(module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
        seen.append((module, [grad.tolist() for grad in grad_input], [grad.tolist() for grad in grad_output]))
        return (grad_input[0] * 10,)

    layer.register_full_backward_hook(hook)
    x = leaf([[1.0, 2.0]])
    layer(x).backward(gradient=fg.tensor([[2.0]], dtype=fg.float64))
    assert seen == [(layer, [[[6.0, 6.0]]], [[[2.0]]])]
    assert grad_of(x) == [[60.0, 60.0]]
    assert grad_of(layer.weight) == [[2.0, 4.0]]


def test_a_backward_hook_runs_where_no_input_wants_a_gradient() -> None:
    layer, seen = nn.Linear(2, 1), []
    layer.register_full_backward_hook(
        lambda module, grad_input, grad_output: seen.append((grad_input, grad_output[0].tolist()))
    )
    layer(fg.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0]])]


def test_a_backward_hook_of_several_inputs_and_outputs() -> None:
    class Swap(nn.Module):
        def forward(self, x: fg.Tensor, n: int, y: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
            return y * n, x.sum()

    layer, seen = Swap(), []

    def hook(module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
        seen.append([None if grad is None else grad.tolist() for grad in (*grad_input, *grad_output)])
        return grad_input[0] + 1, None, grad_input[2]

    layer.register_full_backward_hook(hook)
    x, y = leaf([1.0, 2.0]), leaf(3.0)
    first, second = layer(x, 4, y)
    assert (first.item(), second.item()) == (12.0, 3.0)
    (first + 5 * second).backward()
    assert seen == [[[5.0, 5.0], None, 4.0, 1.0, 5.0]]
    assert (grad_of(x), grad_of(y)) == ([6.0, 6.0], 4.0)


def test_results_and_gradients_with_idle_hooks_are_the_same_bits() -> None:
    plain, hooked = model_of(), model_of()
    for module in hooked.modules():
        module.register_forward_pre_hook(lambda *_: None)
        module.register_forward_hook(lambda *_: None)
        module.register_full_backward_hook(lambda *_: None)
    for model in (plain, hooked):
        nn.CrossEntropyLoss()(model(fg.tensor(X)), fg.tensor(Y)).backward()
    for a, b in zip(plain.parameters(), hooked.parameters(), strict=True):
        assert grad_of(a) == grad_of(b)


def test_copies_have_hooks_of_their_own() -> None:
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, args, output: output + 1)
    deep, shallow = copy.deepcopy(layer), copy.copy(layer)
    for made in (deep, shallow):
        made.register_forward_hook(lambda module, args, output: output * 10)
        assert made(fg.tensor([1.0])).tolist() == [20.0]
    assert layer(fg.tensor([1.0])).tolist() == [2.0]


def test_a_module_with_hooks_is_collected() -> None:
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda *_: None)
    layer(fg.ones(1, 2)).sum().backward()
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None


# Plans


def trained(model: nn.Sequential, **options: Any) -> list[list[Any]]:
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5), **options)
    for _ in range(3):
        trainer.train_step(X, Y)
    return [param.tolist() for param in model.parameters()]


def eager(model: nn.Sequential) -> list[list[Any]]:
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(fg.tensor(X)), fg.tensor(Y)).backward()
        optimizer.step()
    return [param.tolist() for param in model.parameters()]


def on_parameter(model: nn.Sequential) -> None:
    model[0].weight.register_hook(lambda grad: grad.clamp(-0.01, 0.01))


def on_forward(model: nn.Sequential) -> None:
    model[1].register_forward_hook(lambda module, args, output: output * output)


def on_input(model: nn.Sequential) -> None:
    model[2].register_forward_pre_hook(lambda module, args: args[0] + args[0].mean(0))


def on_backward(model: nn.Sequential) -> None:
    model[1].register_full_backward_hook(lambda module, before, after: before[0] * 0.5 + after[0])


@pytest.mark.parametrize("install", [on_parameter, on_forward, on_input, on_backward])
def test_a_plan_computes_with_the_hooks_as_eager_mode_does(install: Callable[[nn.Sequential], None]) -> None:
    models = [model_of(), model_of()]
    for model in models:
        install(model)
    found = trained(models[1])
    for a, b in zip(eager(models[0]), found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    assert found != trained(model_of())


@pytest.mark.parametrize("install", [on_parameter, on_forward, on_input, on_backward])
def test_a_step_follows_hooks_that_come(install: Callable[[nn.Sequential], None]) -> None:
    model, other = model_of(), model_of()
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5))
    trainer.train_step(X, Y)
    trainer.train_step(X, Y)
    other.load_state_dict(model.state_dict())
    install(model)
    install(other)
    trainer.train_step(X, Y)
    optimizer = optim.SGD(other.parameters(), lr=0.5)
    nn.CrossEntropyLoss()(other(fg.tensor(X)), fg.tensor(Y)).backward()
    optimizer.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-13)


def test_a_step_and_a_prediction_follow_hooks_that_go() -> None:
    model, plain = model_of(), model_of()
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5))
    handles = [
        model[0].weight.register_hook(lambda grad: grad * 0),
        model[1].register_forward_hook(lambda module, args, output: output * 0),
    ]
    trainer.train_step(X, Y)
    assert np.ptp(trainer.predict(X), axis=0).max() == 0.0
    for handle in handles:
        handle.remove()
    plain.load_state_dict(model.state_dict())
    np.testing.assert_allclose(trainer.predict(X), plain(fg.tensor(X)).detach().numpy(), rtol=1e-12)
    before = model[0].weight.tolist()
    trainer.train_step(X, Y)
    assert model[0].weight.tolist() != before


def test_a_hook_runs_once_while_a_step_is_traced() -> None:
    model, calls = model_of(), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    trained(model)
    assert len(calls) == 1


# Bad input


def through(hook: Any) -> fg.Tensor:
    y = leaf([1.0, 2.0]) * 2
    y.register_hook(hook)
    return y.sum()


def two_gradients() -> None:
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda module, before, after: (before[0], before[0]))
    layer(leaf([1.0])).sum().backward()


def assigned() -> None:
    layer: Any = nn.Tanh()
    layer.forward = len
    layer.register_forward_hook(lambda *_: None)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fg.ones(1).register_hook(print), fg.GraphError, "register_hook: the tensor does not require"),
    (lambda: leaf([1.0]).register_hook(3), fg.ConfigError, "register_hook: expected a callable, got int"),  # type: ignore[arg-type]
    (lambda: through(lambda grad: grad.sum()).backward(), fg.ShapeError, "a gradient of shape"),
    (lambda: through(lambda grad: grad.to(fg.float32)).backward(), fg.DTypeError, "register_hook: expected"),
    (lambda: through(lambda grad: "no").backward(), fg.DTypeError, "real numbers"),
    (lambda: through(lambda grad: 1 / 0).backward(), ZeroDivisionError, "division"),
    (lambda: nn.Tanh().register_forward_hook(None), fg.ConfigError, "hook: expected a callable"),  # type: ignore[arg-type]
    (two_gradients, fg.GraphError, "expected 1 gradients, got 2"),
    (assigned, fg.ConfigError, "forward of this Tanh was assigned"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_trainer_is_as_quick_as_before_once_the_hooks_are_gone() -> None:
    model = model_of()
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5))
    handle = model[0].register_forward_hook(lambda *_: None)
    trainer.train_step(X, Y)
    assert trainer._engines["train"].again is None
    handle.remove()
    trainer.train_step(X, Y)
    assert trainer._engines["train"].again is not None
