"""What becomes of every kind of data, and how dtypes promote."""

from typing import Any

import numpy as np
import pytest

import ferrograd as fg

KEPT = ["float32", "float64", "int64", "uint8", "bool"]
CONVERTED = {
    "int8": "int64",
    "int16": "int64",
    "int32": "int64",
    "uint16": "int64",
    "uint32": "int64",
    "uint64": "int64",
    "float16": "float32",
    "longdouble": "float64",
    ">f4": "float32",
    ">f8": "float64",
    ">i8": "int64",
    ">i2": "int64",
}


@pytest.mark.parametrize("name", KEPT)
def test_our_dtypes_are_kept_and_returned(name: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(name)
    tensor = fg.tensor(values)
    assert tensor.dtype.name == name
    assert tensor.numpy().dtype == values.dtype
    np.testing.assert_array_equal(tensor.numpy(), values)
    assert fg.tensor(values[0, 0]).dtype is tensor.dtype


@pytest.mark.parametrize("name", CONVERTED)
def test_other_real_dtypes_are_converted(name: str) -> None:
    values = np.array([1, 2, 3]).astype(name)
    tensor = fg.tensor(values)
    assert tensor.dtype.name == CONVERTED[name]
    assert tensor.tolist() == [1, 2, 3]


REFUSED: dict[str, Any] = {
    "complex": np.ones(2, complex),
    "complex scalar": 1j,
    "str": "1.5",
    "strings": ["1", "2"],
    "bytes": b"12",
    "datetime": np.array(["2020-01-01"], dtype="M8[D]"),
    "timedelta": np.array([1], dtype="m8[s]"),
    "structured": np.zeros(2, dtype=[("a", "f4")]),
    "void": np.zeros(2, dtype="V4"),
    "object": np.array([object()]),
    "None": None,
    "None in a list": [1.0, None],
    "dict": {1: 2},
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_are_no_real_numbers_are_refused_with_their_dtype(name: str) -> None:
    with pytest.raises(fg.DTypeError, match="expected real numbers, got dtype"):
        fg.tensor(REFUSED[name])


def test_layouts_equal_their_contiguous_copies() -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    unaligned = np.frombuffer(b"x" + base.tobytes(), dtype=np.uint8)[1:].view(np.float32).reshape(base.shape)
    read_only = base.copy()
    read_only.flags.writeable = False
    for values in (
        base,
        base.T,
        base[::-1],
        base[:, ::-2],
        base[..., 1],
        base[:, :, ::3],
        np.asfortranarray(base),
        np.broadcast_to(base[0, 0], (5, 4)),
        unaligned,
        read_only,
        base[:0],
        base[:, :0],
        np.float32(3),
        base[0, 0, 0:1],
        np.array(2.5),
        base.swapaxes(0, 2)[1:, ::-1],
    ):
        tensor = fg.tensor(values)
        assert tensor.shape == values.shape
        np.testing.assert_array_equal(tensor.numpy(), values)
        assert tensor.numpy().flags.c_contiguous


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_and_other_containers() -> None:
    assert fg.tensor(np.matrix([[1.0, 2.0]])).shape == (1, 2)
    assert fg.tensor(np.ma.masked_array([1.0, 2.0], [False, False])).tolist() == [1, 2]
    with pytest.raises(fg.ConfigError, match="masked"):
        fg.tensor(np.ma.masked_array([1.0, 2.0], [False, True]))
    assert fg.tensor(np.array([1, 2.5], dtype=object)).dtype is fg.float64
    assert fg.tensor([[1, 2], (3, 4)]).tolist() == [[1, 2], [3, 4]]
    assert fg.tensor([fg.tensor([1.0]), fg.tensor([2.0])]).shape == (2, 1)
    assert fg.tensor(range(3)).tolist() == [0, 1, 2]
    assert fg.tensor(memoryview(np.arange(3.0))).dtype is fg.float64
    with pytest.raises(fg.ShapeError, match="ragged"):
        fg.tensor([[1], [2, 3]])
    with pytest.raises(fg.ShapeError, match="at most 8 dimensions"):
        fg.tensor(np.zeros((1,) * 9))
    with pytest.raises(fg.ConfigError, match=r"below 2\*\*63"):
        fg.tensor(np.array([2**63], dtype=np.uint64))


def test_pythons_numbers_have_default_dtypes() -> None:
    for data, dtype in [
        (1.5, fg.float32),
        (1, fg.int64),
        (True, fg.bool),
        ([1, 2.5], fg.float32),
        ([], fg.float32),
    ]:
        assert fg.tensor(data).dtype is dtype
    assert fg.tensor(np.float64(1.5)).dtype is fg.float64
    assert fg.tensor([np.float64(1.5)]).dtype is fg.float64
    # No detour through float32.
    assert fg.tensor([0.1], dtype=fg.float64).item() == 0.1
    assert fg.tensor(2**60 + 1).item() == 2**60 + 1


@pytest.mark.parametrize(
    "dtype", [fg.float64, "float64", np.float64, np.dtype("float64"), float, "f8"], ids=repr
)
def test_dtypes_are_named_in_many_ways(dtype: Any) -> None:
    assert fg.zeros(2, dtype=dtype).dtype is fg.float64


def test_a_dtype_that_tensors_do_not_have_is_refused() -> None:
    for dtype in ("int32", np.complex64, "nonsense", 7):
        with pytest.raises(fg.DTypeError, match="dtype: expected one of float32"):
            fg.zeros(2, dtype=dtype)


# As PyTorch promotes; 0-d marks an operand of rank 0, which is weaker within its category.
PROMOTION = [
    ("float32", "float64", "float64"),
    ("float32", "int64", "float32"),
    ("uint8", "int64", "int64"),
    ("uint8", "float32", "float32"),
    ("bool", "uint8", "uint8"),
    ("bool", "float64", "float64"),
    ("float32", "float64 0-d", "float32"),
    ("int64", "float64 0-d", "float64"),
    ("uint8", "int64 0-d", "uint8"),
]


@pytest.mark.parametrize(("left", "right", "expected"), PROMOTION)
def test_mixed_dtypes_promote_as_in_pytorch(left: str, right: str, expected: str) -> None:
    a = fg.ones(2, dtype=left)
    b = fg.ones(() if right.endswith("0-d") else (2,), dtype=right.removesuffix(" 0-d"))
    for result in (a * b, b * a, a + b, a.maximum(b)):
        assert result.dtype.name == expected
    assert (a / b).dtype.is_floating_point


def test_pythons_numbers_are_weak() -> None:
    for number in (2, 2.5, True, np.float64(2.5)):
        for dtype in (fg.float32, fg.float64):
            assert (fg.ones(2, dtype=dtype) * number).dtype is dtype
            assert (number - fg.ones(2, dtype=dtype)).dtype is dtype
    assert (fg.tensor([1, 2]) + 1).dtype is fg.int64
    assert (fg.tensor([1, 2]) * 2.5).tolist() == [2.5, 5.0]
    assert (fg.tensor([1, 2]) * 2.5).dtype is fg.float32
    assert (fg.tensor([1, 2]) / 2).tolist() == [0.5, 1.0]
    assert (fg.tensor([2, 3]) ** 2).tolist() == [4, 9]
    assert (fg.tensor([2, 3]) ** 2).dtype is fg.int64
    assert (fg.tensor([True, True]) + fg.tensor([True, False])).tolist() == [2, 1]


def test_numpy_operands_on_either_side_give_tensors() -> None:
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    array = np.array([3.0, 4.0])
    for result in (
        array * x,
        x * array,
        array - x,
        np.float64(2) * x,
        np.float32(2) + x,
        array @ x,
        array == x,
    ):
        assert isinstance(result, fg.Tensor)
    assert (array * x).dtype is fg.float64
    assert (np.float64(2) * x).dtype is fg.float32
    (array * x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is fg.float32
    assert x.grad.tolist() == [3, 4]


def test_gradients_pass_conversions_in_their_own_dtype() -> None:
    x = fg.tensor([1.0, 2.0], requires_grad=True)
    (x.double() * fg.tensor(np.array([0.1, 0.2]))).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is fg.float32


def test_gradients_of_integers_are_refused() -> None:
    with pytest.raises(fg.DTypeError, match="requires_grad: expected float32 or float64, got int64"):
        fg.tensor([1, 2], requires_grad=True)
    with pytest.raises(fg.DTypeError, match="mean"):
        fg.tensor([1, 2]).mean()
