"""`x[...]` and `x[...] = value` against numpy."""

from typing import Any

import numpy as np
import pytest

import ferrograd as fg

VALUES = np.arange(24.0).reshape(2, 3, 4)
INDICES: list[Any] = [
    0,
    -1,
    np.int64(1),
    slice(1, None),
    slice(None, None, 2),
    slice(5, 9),
    None,
    ...,
    (0, 2),
    (0, 2, 3),
    (..., 1),
    (slice(None), 1),
    (slice(None), slice(0, 2), slice(1, 4, 2)),
    (0, ..., None),
    (None, slice(None), None, 2),
    [1, 0, 1],
    np.array([[0, 1], [1, 1]]),
    (slice(None), [2, 0]),
    ([0, 1], [2, 1]),
    ([0, 1], slice(None), [3, 0]),
    (slice(None), [0, 1], [2, 3]),
    (0, [1, 2]),
    np.array([True, False]),
    [False, True],
    VALUES > 7,
    (slice(None), np.array([True, False, True])),
    (slice(None), slice(None), np.array([0, -1, 2])),
    [],
    np.array([0], dtype=np.uint8),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_reading_matches_numpy(index: Any) -> None:
    expected = (
        VALUES[np.array(index, dtype=int) if index == [] else index]
        if isinstance(index, list)
        else VALUES[index]
    )
    result = fg.tensor(VALUES)[index]
    assert result.shape == expected.shape
    assert result.numpy().tolist() == expected.tolist()


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_writing_matches_numpy_and_keeps_the_object(index: Any) -> None:
    expected = VALUES.copy()
    expected[np.array(index, dtype=int) if isinstance(index, list) and not index else index] = -1
    x = fg.tensor(VALUES)
    x[index] = -1
    assert x.numpy().tolist() == expected.tolist()


def test_tensors_are_indices_and_masks() -> None:
    x = fg.tensor(VALUES)
    assert x[fg.tensor([1, 0])].numpy().tolist() == VALUES[[1, 0]].tolist()
    assert x[fg.tensor(1)].numpy().tolist() == VALUES[1].tolist()
    assert x[x > 20].tolist() == [21, 22, 23]
    assert [10, 11, 12][fg.tensor(2)] == 12


def test_a_slice_is_a_view_that_sees_writes() -> None:
    x = fg.zeros(3, 2)
    row = x[1]
    row += 5
    x[2, 0] = 7
    assert x.tolist() == [[0, 0], [5, 5], [7, 0]]
    x[0] += 1
    assert x[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (2, IndexError, "index 2 is out of range for dimension 0 of size 2"),
        ((0, -4), IndexError, "index -4 is out of range for dimension 1 of size 3"),
        ((0, 0, 0, 0), IndexError, "expected at most 3 indices"),
        ((..., ...), IndexError, "one ellipsis"),
        ([0, 5], IndexError, "index 5 is out of range"),
        (slice(None, None, -1), ValueError, "slice step of at least 1"),
        (1.5, TypeError, "expected integers or bools"),
        (True, TypeError, "got a bool"),
        (np.array([True, False, True]), ValueError, "a mask that fits"),
        ("a", TypeError, "expected real numbers"),
    ],
    ids=repr,
)
def test_wrong_indices_are_named(index: Any, error: type[Exception], text: str) -> None:
    x = fg.tensor(VALUES)
    with pytest.raises(error, match=text) as caught:
        x[index]
    assert isinstance(caught.value, fg.FerrogradError)
    with pytest.raises(error, match=text):
        x[index] = 0
    assert x.numpy().tolist() == VALUES.tolist()


def test_a_value_that_does_not_fit_changes_nothing() -> None:
    x = fg.zeros(2, 3)
    with pytest.raises(fg.ShapeError):
        x[0] = fg.ones(2)
    with pytest.raises(fg.DTypeError):
        fg.tensor([1, 2])[0] = 1.5
    with pytest.raises(fg.GraphError, match="would lose"):
        x[0] = fg.ones(3, requires_grad=True) * 2
    assert x.sum().item() == 0


def test_iteration_gives_rows_until_the_end() -> None:
    rows = list(fg.tensor(VALUES))
    assert [row.shape for row in rows] == [(3, 4), (3, 4)]
    a, b = fg.tensor([1, 2])
    assert (a.item(), b.item()) == (1, 2)
    with pytest.raises(TypeError, match="cannot be iterated"):
        iter(fg.tensor(1.0))


def test_a_repeated_index_adds_its_gradients_up() -> None:
    x = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x[[0, 0, 2]] * fg.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [11, 0, 100]
