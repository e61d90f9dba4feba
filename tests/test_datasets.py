"""Data sets, files in MNIST's format, and the split."""

import gzip
import struct
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import datasets

PLANAR = [
    datasets.make_moons,
    datasets.make_circles,
    datasets.make_spiral,
    datasets.make_xor,
    datasets.make_gauss,
]


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, compress: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 28, 28), np.uint8), rng.integers(0, 10, 6, np.uint8)
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if compress else ''}"
            path.write_bytes(gzip.compress(content) if compress else content)
    return images, labels


def test_digits_are_the_1797_of_uci() -> None:
    X, y = datasets.load_digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.float32, (1797,), np.int64)
    assert (X.min(), X.max()) == (0.0, 16.0)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # Sum of all pixels, and the first image's first two rows, as UCI has them.
    assert int(X.sum()) == 561718
    assert X[0, :16].tolist() == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]


def test_digits_stay_small_and_carry_their_licence() -> None:
    folder = files("ferrograd.datasets").joinpath("data")
    assert len(folder.joinpath("digits.npz").read_bytes()) < 150_000
    licence = folder.joinpath("LICENSE-digits.txt").read_text(encoding="utf-8")
    assert "CC BY 4.0" in licence
    assert "Alpaydin" in licence


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
def test_mnist_is_read(tmp_path: Path, compress: bool) -> None:
    images, labels = write_mnist(tmp_path, compress)
    mnist = datasets.load_mnist(tmp_path)
    assert (mnist.X_train.dtype, mnist.y_train.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(mnist.X_train, images.reshape(6, 784))
    np.testing.assert_array_equal(mnist.y_test, labels)
    assert mnist.X_test.flags.writeable


def test_mnist_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(fg.CheckpointError, match="no folder"):
        datasets.load_mnist(tmp_path / "missing")
    with pytest.raises(fg.CheckpointError, match="train-images-idx3-ubyte"):
        datasets.load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "should hold 4704 bytes"),
        (lambda content: content + b"\0", "should hold 4704 bytes"),
        (lambda content: b"PNG!" + content, "no IDX file"),
        (lambda content: content[:3], "no IDX file"),
        (lambda content: b"", "no IDX file"),
        (lambda content: idx(np.zeros((5, 28, 28), np.uint8)), "5 images but 6 labels"),
        (lambda content: content[:4] + b"\xff" * 12, "should hold"),
    ],
)
def test_damaged_mnist_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(fg.CorruptFileError, match=message):
        datasets.load_mnist(tmp_path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=True)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(fg.CorruptFileError, match="gzip"):
        datasets.load_mnist(tmp_path)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(fg.CorruptFileError, match="gzip"):
        datasets.load_mnist(tmp_path)


@pytest.mark.parametrize("make", PLANAR)
def test_planar_problems_have_the_asked_shape_and_repeat(make: Any) -> None:
    X, y = make(n_samples=101, noise=0.1, seed=3)
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((101, 2), np.float32, (101,), np.int64)
    assert set(y) == {0, 1}
    again = make(n_samples=101, noise=0.1, seed=3)
    np.testing.assert_array_equal(X, again.X)
    np.testing.assert_array_equal(y, again.y)
    assert not np.array_equal(X, make(n_samples=101, noise=0.1, seed=4).X)


@pytest.mark.parametrize("make", PLANAR)
@pytest.mark.parametrize(
    "options", [{"n_samples": 1}, {"n_samples": 2.5}, {"noise": -1}, {"noise": float("nan")}]
)
def test_planar_problems_check_their_arguments(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(fg.ConfigError, match=next(iter(options))):
        make(**options)


def test_planar_problems_lie_where_they_should() -> None:
    X, y = datasets.make_circles(200, factor=0.3, seed=0)
    np.testing.assert_allclose(np.hypot(*X.T), np.where(y == 1, 0.3, 1.0), rtol=1e-6)
    X, y = datasets.make_xor(200, seed=0)
    np.testing.assert_array_equal(y, (X[:, 0] > 0) != (X[:, 1] > 0))
    X, y = datasets.make_moons(200, seed=0)
    np.testing.assert_allclose(np.hypot(*(X - np.where(y[:, None] == 1, [1, 0.5], [0, 0])).T), 1.0, rtol=1e-6)
    X, y = datasets.make_spiral(90, n_classes=3, turns=2, seed=0)
    angles = 2 * np.pi * (2 * np.hypot(*X.T) + y / 3)
    np.testing.assert_allclose(
        X, np.hypot(*X.T)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)]), atol=1e-5
    )
    X, y = datasets.make_gauss(90, noise=0.0, n_classes=3)
    assert np.unique(X, axis=0).shape == (3, 2)


def test_split_is_a_partition_that_keeps_rows_together() -> None:
    X, y = np.arange(40).reshape(20, 2), np.arange(20)
    X_train, X_test, y_train, y_test = datasets.train_test_split(X, y, test_size=0.3, seed=1)
    assert (len(X_train), len(X_test)) == (14, 6)
    assert sorted([*y_train, *y_test]) == list(range(20))
    np.testing.assert_array_equal(X_train[:, 0], 2 * y_train)
    np.testing.assert_array_equal(X_test[:, 0], 2 * y_test)
    again = datasets.train_test_split(X, y, test_size=0.3, seed=1)
    np.testing.assert_array_equal(again[3], y_test)


def test_split_without_shuffle_cuts_at_the_end() -> None:
    train, test = datasets.train_test_split(np.arange(5), test_size=2, shuffle=False)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [3, 4])


def test_stratified_split_keeps_the_shares() -> None:
    y = np.repeat([0, 1, 2], [60, 30, 10])
    y_train, y_test = datasets.train_test_split(y, test_size=0.3, seed=0, stratify=y)
    assert np.bincount(y_test).tolist() == [18, 9, 3]
    assert np.bincount(y_train).tolist() == [42, 21, 7]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"test_size": 0}, fg.ConfigError),
        ({"test_size": 1.5}, fg.ConfigError),
        ({"test_size": 10}, fg.ConfigError),
        ({"test_size": float("nan")}, fg.ConfigError),
        ({"test_size": True}, fg.ConfigError),
        ({"stratify": np.arange(10)}, fg.ConfigError),
        ({"stratify": np.zeros(9)}, fg.ShapeError),
        ({"stratify": np.zeros(10), "shuffle": False}, fg.ConfigError),
    ],
)
def test_split_checks_its_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="train_test_split"):
        datasets.train_test_split(np.arange(10), **options)


def test_split_refuses_arrays_of_different_length() -> None:
    with pytest.raises(fg.ShapeError, match=r"\(3,\), \(4,\)"):
        datasets.train_test_split(np.arange(3), np.arange(4))
