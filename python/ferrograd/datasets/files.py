"""Real images: the digits of UCI, packed in the package, and MNIST from its own files."""

import gzip
import math
import struct
import zlib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ferrograd._core import CheckpointError, CorruptFileError
from ferrograd._typing import PathLike
from ferrograd.datasets.synthetic import Dataset

__all__ = ["MNIST", "load_digits", "load_mnist"]


class MNIST(NamedTuple):
    """The two parts of MNIST: images ``(rows, 784)`` as uint8, 0 to 255, and labels ``(rows,)`` as int64."""

    X_train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.int64]
    X_test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.int64]


def load_digits() -> Dataset:
    """Return the 1,797 handwritten digits of 8 by 8 pixels that come with the package.

    Returns
    -------
    Dataset
        Named tuple: ``X``, float32 of shape (1797, 64), values 0 to 16; ``y``, int64 of shape (1797,), 0 to
        9.

    Notes
    -----
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998, licensed CC BY 4.0; the test set, as in scikit-learn.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.load_digits()
    >>> X.shape, float(X.max())
    ((1797, 64), 16.0)
    """
    with (
        files("ferrograd.datasets").joinpath("data", "digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        return Dataset(archive["images"].astype(np.float32), archive["labels"].astype(np.int64))


def load_mnist(folder: PathLike) -> MNIST:
    """Read MNIST, or a data set in its format, from the four IDX files.

    Parameters
    ----------
    folder : str or path-like
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, each plain or with ``.gz``.

    Returns
    -------
    MNIST
        Named tuple ``(X_train, y_train, X_test, y_test)``; images as uint8 rows, labels as int64.

    Raises
    ------
    CheckpointError
        If the folder or a file is missing or cannot be read.
    CorruptFileError
        If a file is no IDX file of bytes, is cut short, or has not as many labels as images.
    """
    X_train, y_train = _read_part(Path(folder), "train")
    X_test, y_test = _read_part(Path(folder), "t10k")
    return MNIST(X_train, y_train, X_test, y_test)


def _read_part(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images = _read_idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise CorruptFileError(f"load_mnist: {part} has {len(images)} images but {len(labels)} labels")
    return images.reshape(len(images), math.prod(images.shape[1:])), labels.astype(np.int64)


def _read_idx(folder: Path, name: str, ndim: int) -> npt.NDArray[np.uint8]:
    candidates = [folder / name, folder / f"{name}.gz"]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        if not folder.is_dir():
            raise CheckpointError(f"load_mnist: no folder {str(folder)!r}")
        raise CheckpointError(f"load_mnist: neither {name} nor {name}.gz in {str(folder)!r}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(f"load_mnist: {str(path)!r} is no valid gzip file: {error}") from error
    except OSError as error:
        raise CheckpointError(f"load_mnist: cannot read {str(path)!r}: {error}") from error

    # IDX: two zero bytes, a type (8 is unsigned byte), the number of dimensions, then their lengths
    # big-endian.
    header = 4 + 4 * ndim
    if len(content) < header or content[:4] != bytes((0, 0, 8, ndim)):
        raise CorruptFileError(f"load_mnist: {str(path)!r} is no IDX file of bytes with {ndim} dimensions")
    shape = struct.unpack(f">{ndim}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise CorruptFileError(
            f"load_mnist: {str(path)!r} should hold {math.prod(shape)} bytes for shape {shape}, "
            f"has {len(content) - header}"
        )
    # A copy: the result can be written to and does not keep the file's bytes twice.
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
