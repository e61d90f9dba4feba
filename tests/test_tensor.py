"""The class Tensor: construction, properties, conversion, printing, copies and changes in place."""

import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import ferrograd as fg


class Weight(fg.Tensor):
    """A subclass with its own constructor, as nn.Parameter."""

    def __new__(cls, data: Any) -> "Weight":
        return super().__new__(cls, data, requires_grad=True)


def test_data_are_copied_by_the_function() -> None:
    source = np.ones(3)
    x = fg.tensor(source)
    source[0] = 5
    y = fg.tensor(x)
    x[1] = 7
    assert x.tolist() == [1, 7, 1]
    assert y.tolist() == [1, 1, 1]
    z = x.numpy()
    z[:] = 0
    assert x.sum().item() == 9


def test_the_class_shares_a_tensors_values() -> None:
    x = fg.zeros(2)
    y = fg.Tensor(x)
    x[0] = 3
    assert y.tolist() == [3, 0]


def test_properties() -> None:
    x = fg.zeros(2, 3, dtype=fg.float64, requires_grad=True)
    assert (x.shape, x.ndim, x.dim(), x.numel(), len(x)) == ((2, 3), 2, 2, 6, 2)
    assert (x.size(), x.size(-1)) == ((2, 3), 3)
    assert x.dtype is fg.float64
    assert x.dtype.itemsize == 8
    assert x.device == fg.device("cpu")
    assert x.is_leaf
    assert x.op is None
    assert x.parents == ()
    assert x.T.stride() == (1, 3)
    assert not x.T.is_contiguous()
    assert x.T.contiguous().is_contiguous()


def test_scalars_become_pythons_numbers() -> None:
    for value, kind in [(2.5, float), (7, int), (True, bool)]:
        item = fg.tensor(value).item()
        assert type(item) is kind
        assert item == value
    assert float(fg.tensor([2.5])) == 2.5
    assert int(fg.tensor(2.9)) == 2
    assert f"{fg.tensor(2.5):.2f}" == "2.50"
    with pytest.raises(fg.ShapeError, match="one element"):
        fg.ones(2).item()
    with pytest.raises(fg.ShapeError, match="ambiguous"):
        bool(fg.ones(2))
    assert not fg.tensor(0.0)
    with pytest.raises(TypeError, match="no length"):
        len(fg.tensor(1.0))


def test_numpy_reads_tensors() -> None:
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    assert np.asarray(x).dtype == np.float32
    assert np.array(x, dtype=np.int64).tolist() == [1, 2]
    assert np.exp(x.numpy()).shape == (2,)
    with pytest.raises(ValueError, match="shared"):
        np.array(x, copy=False)


PRINTED = {
    "tensor(3.)": lambda: fg.tensor(3.0),
    "tensor([1.5000, 2.0000])": lambda: fg.tensor([1.5, 2.0]),
    "tensor([1, 2])": lambda: fg.tensor([1, 2]),
    "tensor([ True, False])": lambda: fg.tensor([True, False]),
    "tensor([7], dtype=ferrograd.uint8)": lambda: fg.tensor([7], dtype=fg.uint8),
    "tensor([1., 2.], requires_grad=True)": lambda: fg.tensor([1.0, 2.0], requires_grad=True),
    "tensor([], size=(0, 3))": lambda: fg.zeros(0, 3),
    "tensor([ 1., nan, inf])": lambda: fg.tensor([1.0, float("nan"), float("inf")]),
    "tensor([[1., 2.],\n        [3., 4.]], dtype=ferrograd.float64, grad_fn=<mul>)": lambda: (
        fg.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True) * 1.0
    ),
}


@pytest.mark.parametrize("text", PRINTED)
def test_tensors_print_as_pytorchs(text: str) -> None:
    assert repr(PRINTED[text]()) == text


def test_large_tensors_are_summarised() -> None:
    assert repr(fg.zeros(2000)) == "tensor([0., 0., 0., ..., 0., 0., 0.])"


def test_comparison_is_elementwise_and_hash_by_identity() -> None:
    x = fg.tensor([1.0, 2.0])
    assert (x == [1.0, 3.0]).tolist() == [True, False]
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert {x: "here"}[x] == "here"


def test_changes_in_place_keep_object_and_storage() -> None:
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    view, before = w.detach(), w
    (w * w).sum().backward()
    with fg.no_grad():
        w -= 0.5 * w.grad
        w *= 2
        w += fg.ones(2)
        w /= 4
    assert w is before
    assert view.tolist() == [0.25, 0.25]
    assert w.requires_grad
    assert w.is_leaf


def test_zeroing_a_gradient_changes_what_is_stored() -> None:
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    (w * 3).sum().backward()
    assert w.grad is not None
    w.grad.zero_()
    assert w.grad.tolist() == [0, 0]
    (w * 3).sum().backward()
    assert w.grad.tolist() == [3, 3]
    w.grad = None
    assert w.grad is None
    with pytest.raises(fg.ShapeError, match="grad: expected shape"):
        w.grad = fg.ones(3)


def test_changes_that_would_lose_a_gradient_are_refused() -> None:
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    total = fg.zeros(2)
    with pytest.raises(fg.GraphError, match="no_grad"):
        w += 1
    with pytest.raises(fg.GraphError, match="would lose"):
        total += w * 2
    with pytest.raises(fg.GraphError, match="result of"):
        (w * 2).zero_()
    with pytest.raises(fg.DTypeError):
        fg.tensor([1, 2]).add_(0.5)
    with pytest.raises(fg.ShapeError):
        total += fg.ones(3, 2)
    assert w.tolist() == [1, 2]
    assert total.tolist() == [0, 0]


def test_a_change_of_a_value_that_backward_needs_is_noticed() -> None:
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    y = (w * w).sum()
    with fg.no_grad():
        w += 1
    with pytest.raises(fg.GraphError, match="changed in place"):
        y.backward()


def test_in_place_methods_return_the_tensor() -> None:
    x = fg.ones(2)
    assert x.fill_(3).add_(1).mul_([2.0, 0.5]).sub_(1) is x
    assert x.tolist() == [7, 1]
    assert x.copy_(5).tolist() == [5, 5]
    assert 0 <= x.uniform_(0, 0.5).max().item() < 0.5
    y = fg.zeros(10_000).normal_(2.0, 0.1)
    assert abs(y.mean().item() - 2) < 0.01
    assert abs(y.var().item() - 0.01) < 0.001


def test_ops_and_parents_stay_walkable_after_values_are_freed() -> None:
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * 2).exp() + 1
    y.sum().backward()
    assert y.op == "add"
    (exp,) = y.parents
    (double,) = exp.parents
    (leaf,) = double.parents
    assert (exp.op, double.op, leaf.op) == ("exp", "mul", None)
    assert double.shape == (2,)
    assert double.dtype is fg.float32
    assert "values freed" in repr(double)
    with pytest.raises(fg.GraphError, match="freed"):
        double.numpy()
    with pytest.raises(fg.GraphError, match="freed"):
        double + 1
    assert leaf.tolist() == [1, 2]


def test_retain_grad_keeps_the_gradient_of_a_result() -> None:
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [6, 12]
    with pytest.raises(fg.GraphError, match="retain_grad"):
        fg.ones(2).retain_grad()


def test_detach_and_clone() -> None:
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    assert not x.detach().requires_grad
    y = x.clone()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1]
    assert x.data.tolist() == [1, 2]


def test_subclasses_are_kept_by_copies_and_left_by_ops() -> None:
    w = Weight([1.0, 2.0])
    w.note = ["kept"]
    assert type(w) is Weight
    assert w.requires_grad
    assert type(w * 2) is fg.Tensor
    for copied in (copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
        assert type(copied) is Weight
        assert copied.requires_grad
        assert copied.note == ["kept"]
        assert copied.note is not w.note
        with fg.no_grad():
            copied += 1
        assert w.tolist() == [1, 2]


def test_deepcopy_keeps_sharing_and_gradient() -> None:
    w = fg.tensor([1.0], requires_grad=True)
    (w * 2).sum().backward()
    first, second = copy.deepcopy([w, w])
    assert first is second
    assert first.grad.tolist() == [2]


def test_a_result_of_an_op_cannot_be_copied_with_its_history() -> None:
    y = fg.tensor([1.0], requires_grad=True) * 2
    with pytest.raises(fg.GraphError, match="result of mul"):
        copy.deepcopy(y)
    with pytest.raises(fg.GraphError, match="result of mul"):
        pickle.dumps(y)
    assert copy.deepcopy(y.detach()).tolist() == [2]


@pytest.mark.parametrize("thing", [fg.float32, fg.bool, fg.device("cpu")], ids=str)
def test_dtypes_and_devices_survive_pickle(thing: Any) -> None:
    assert pickle.loads(pickle.dumps(thing)) == thing
    assert copy.deepcopy(thing) == thing
    assert hash(pickle.loads(pickle.dumps(thing))) == hash(thing)


def test_creation_functions() -> None:
    assert fg.zeros(2, 3).shape == fg.zeros((2, 3)).shape == fg.zeros([2, 3]).shape == (2, 3)
    assert fg.ones(2, dtype="int64").tolist() == [1, 1]
    assert fg.full((2,), 7).dtype is fg.int64
    assert fg.full((2,), 7.5).tolist() == [7.5, 7.5]
    assert fg.arange(3).tolist() == [0, 1, 2]
    assert fg.arange(1, 4).dtype is fg.int64
    assert fg.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert fg.arange(5, 0, -2).tolist() == [5, 3, 1]
    assert fg.arange(3, 1).tolist() == []
    assert fg.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert fg.linspace(0, 0.3, 4, dtype=fg.float64)[-1].item() == 0.3
    assert fg.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert fg.zeros_like(np.ones((2, 1))).dtype is fg.float64
    assert fg.ones_like(fg.zeros(2), requires_grad=True).requires_grad
    assert fg.empty_like(np.ones((2, 1))).shape == (2, 1)
    assert fg.full_like([1.0, 2.0], 3).tolist() == [3.0, 3.0]
    assert fg.full_like(fg.tensor([1, 2]), 7.5, dtype=fg.float64).tolist() == [7.5, 7.5]
    with pytest.raises(fg.ShapeError, match="at least 0"):
        fg.zeros(-1)
    with pytest.raises(MemoryError):
        fg.zeros(10**13)
    with pytest.raises(fg.DeviceError, match="cuda"):
        fg.zeros(2, device="cuda")


def test_random_numbers_follow_their_seed() -> None:
    fg.manual_seed(3)
    first = [fg.rand(4).tolist(), fg.randn(4).tolist(), fg.randint(0, 10, (4,)).tolist()]
    fg.manual_seed(3)
    assert [fg.rand(4).tolist(), fg.randn(4).tolist(), fg.randint(0, 10, (4,)).tolist()] == first
    own = fg.Generator().manual_seed(3)
    assert fg.rand(4, generator=own).tolist() == first[0]
    assert own.seed == 3
    assert set(fg.randint(3, (1000,)).tolist()) == {0, 1, 2}
    with pytest.raises(fg.ConfigError, match="seed"):
        fg.manual_seed(-1)
    with pytest.raises(fg.ConfigError, match="high"):
        fg.randint(3, 3, (1,))


def test_random_numbers_like_a_tensor_are_those_of_its_size_and_dtype() -> None:
    x = fg.zeros(2, 3, dtype=fg.float64)
    pairs = [
        (lambda g: fg.rand_like(x, generator=g), lambda g: fg.rand(2, 3, dtype=x.dtype, generator=g)),
        (lambda g: fg.randn_like(x, generator=g), lambda g: fg.randn(2, 3, dtype=x.dtype, generator=g)),
        (
            lambda g: fg.randint_like(x, 2, 9, generator=g),
            lambda g: fg.randint(2, 9, (2, 3), dtype=x.dtype, generator=g),
        ),
    ]
    for like, plain in pairs:
        ours, theirs = (draw(fg.Generator().manual_seed(3)) for draw in (like, plain))
        assert ours.dtype is fg.float64
        assert ours.tolist() == theirs.tolist()
    assert fg.randn_like(x, dtype=fg.float32, requires_grad=True).requires_grad
    assert set(fg.randint_like(fg.zeros(1000), 3).tolist()) == {0, 1, 2}
    with pytest.raises(fg.DTypeError):
        fg.rand_like(fg.tensor([1, 2]))
    with pytest.raises(fg.ConfigError, match="high"):
        fg.randint_like(x, 3, 3)


def test_errors_derive_from_the_built_in_that_users_expect() -> None:
    for ours, builtin in [
        (fg.ShapeError, ValueError),
        (fg.DTypeError, TypeError),
        (fg.LabelError, ValueError),
        (fg.ConfigError, ValueError),
        (fg.GraphError, RuntimeError),
        (fg.CheckpointError, OSError),
        (fg.InternalError, RuntimeError),
    ]:
        assert issubclass(ours, builtin)
        assert issubclass(ours, fg.FerrogradError)
        assert ours.__module__ == "ferrograd"


def test_operators_leave_unknown_operands_to_their_class() -> None:
    class Other:
        def __radd__(self, other: Any) -> str:
            return "other's"

    assert fg.ones(2) + Other() == "other's"
    with pytest.raises(TypeError):
        fg.ones(2) + None
    with pytest.raises(TypeError):
        fg.ones(2) @ "text"


def test_a_chain_of_100000_ops_is_walked_and_freed_on_a_small_stack() -> None:
    def run() -> None:
        x = fg.tensor(1.0, requires_grad=True)
        y = x
        for _ in range(100_000):
            y = y + 1.0
        y.backward()
        assert x.grad is not None
        result.append(x.grad.item())
        del y

    result: list[float] = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert result == [1]


def test_tensors_are_freed_with_their_last_reference() -> None:
    x = fg.ones(3)
    gone = weakref.ref(x)
    y = x * 2
    del x
    gc.collect()
    assert gone() is None
    assert y.tolist() == [2, 2, 2]


def test_tensors_freed_by_other_threads_leave_the_rest_alone() -> None:
    handed_over: list[fg.Tensor] = []
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(200):
            values = fg.full((4, 4), float(seed + i))
            handed_over.append(values + 1)
            if len(handed_over) > 20:
                # Made by any thread, freed by this one: its memory is used again here.
                handed_over.pop(0)
            if (values * 2).tolist() != [[2.0 * (seed + i)] * 4] * 4:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
