"""What is trained: a ReLU network with softmax cross-entropy, its data and weights, and what a step costs."""

import dataclasses
import zlib
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ferrograd._core import ConfigError
from ferrograd._typing import Array

OPTIMIZERS = ("sgd", "adam")
DTYPES = ("float32", "float64")
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
# Distinct batches of a run: more than the caches hold, little enough for six processes side by side.
_DATA_BYTES = 64 << 20
_MOST_BATCHES = 1 << 14


class Data(NamedTuple):
    """Batches ``X`` (batches, rows, inputs) with labels ``y`` (batches, rows), and initial weights.

    `weights` is ``[W, b, W, b, ...]`` with ``W`` of shape (inputs, outputs).
    """

    X: Array
    y: npt.NDArray[np.int64]
    weights: list[Array]


class Target(NamedTuple):
    """What the project asks of a row: time over the best peer's at most, share of the FMA peak at least."""

    ratio: float
    share: float | None


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network of these widths trained with batches of this size.

    Parameters
    ----------
    widths : tuple of int
        Inputs, hidden layers, classes.
    batch : int
        Rows of a step.
    optimizer : str, default "sgd"
        ``"sgd"`` without momentum, or ``"adam"``.
    dtype : str, default "float32"
        Of data and weights.
    """

    widths: tuple[int, ...]
    batch: int
    optimizer: str = "sgd"
    dtype: str = "float32"

    @classmethod
    def parse(cls, text: str, dtype: str = "float32") -> "Problem":
        """Read ``WIDTHS:BATCH[:adam]``, as in ``784-128-10:64``.

        Raises
        ------
        ConfigError
            If the text is of another form.
        """
        widths, _, rest = text.partition(":")
        batch, _, optimizer = rest.partition(":")
        numbers = [*widths.split("-"), batch]
        is_sound = len(numbers) > 2 and all(number.isdecimal() and int(number) > 0 for number in numbers)
        if not is_sound or (optimizer or "sgd") not in OPTIMIZERS:
            raise ConfigError(f"rows: expected WIDTHS:BATCH[:adam] such as 784-128-10:64, got {text!r}")
        *sizes, rows = map(int, numbers)
        if sizes[-1] < 2:
            raise ConfigError(f"rows: expected at least 2 classes, got {text!r}")
        return cls(tuple(sizes), rows, optimizer or "sgd", dtype)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Problem":
        """Rebuild what `dataclasses.asdict` wrote."""
        return cls(**{**fields, "widths": tuple(fields["widths"])})

    @property
    def name(self) -> str:
        """The text that `parse` reads."""
        suffix = "" if self.optimizer == "sgd" else f":{self.optimizer}"
        return f"{'-'.join(map(str, self.widths))}:{self.batch}{suffix}"

    @property
    def n_weights(self) -> int:
        """Elements of the weight matrices."""
        return sum(inputs * outputs for inputs, outputs in pairwise(self.widths))

    @property
    def flop(self) -> int:
        """Operations of the matrix products of a step: the first layer has no data gradient."""
        return 6 * self.batch * self.n_weights - 2 * self.batch * self.widths[0] * self.widths[1]

    @property
    def weight_traffic(self) -> int:
        """Bytes a step moves at least if no cache holds the weights: read forward, read and written back."""
        return 3 * self.n_weights * np.dtype(self.dtype).itemsize

    @property
    def lr(self) -> float:
        """Learning rate: falls with the width, as the largest curvature of the loss grows with it."""
        return ADAM["lr"] if self.optimizer == "adam" else min(0.1, 2 / max(self.widths))

    def steps_to_check(self, budget: float) -> int:
        """Return how many steps the check makes: 50, or what `budget` operations allow, at least 2."""
        return max(2, min(50, int(budget / self.flop)))

    def make(self) -> Data:
        """Return the same data and weights in every process; equal values for both dtypes."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        inputs, classes = self.widths[0], self.widths[-1]
        # Of float32, whatever the dtype: the same numbers come from the generator.
        batches = max(1, min(_MOST_BATCHES, _DATA_BYTES // (4 * self.batch * inputs)))
        # Every batch holds every class where it can: scikit-learn takes the classes from the labels.
        y = rng.permuted(np.tile(np.arange(self.batch) % classes, (batches, 1)), axis=1)
        X = rng.standard_normal((batches, self.batch, inputs), np.float32)
        centres = rng.standard_normal((classes, inputs), np.float32) / 2
        for x, labels in zip(X, y, strict=True):
            x += centres[labels]
        weights = []
        for fan_in, fan_out in pairwise(self.widths):
            weights.append(
                rng.standard_normal((fan_in, fan_out), np.float32) * np.float32((2 / fan_in) ** 0.5)
            )
            weights.append(rng.standard_normal(fan_out, np.float32) * np.float32(0.1))
        return Data(X.astype(self.dtype), y, [weight.astype(self.dtype) for weight in weights])


def mean_loss(weights: list[Array], data: Data) -> float:
    """Return the cross-entropy in float64 over the first rows of the data."""
    n_batches = max(1, 256 // data.X.shape[1])
    h = np.concatenate(data.X[:n_batches]).astype(np.float64)
    labels = np.concatenate(data.y[:n_batches])
    for layer in range(0, len(weights), 2):
        if layer:
            h = np.maximum(h, 0)
        h = h @ weights[layer].astype(np.float64) + weights[layer + 1]
    h -= h.max(axis=1, keepdims=True)
    return float((np.log(np.exp(h).sum(axis=1)) - h[np.arange(len(h)), labels]).mean())


# The rows that performance is judged by, two threads, float32.
TABLE = {
    "2-16-16-2:32": Target(0.20, None),
    "64-64-10:64": Target(0.33, 0.50),
    "784-128-10:64": Target(0.60, 0.72),
    "784-512-512-10:128": Target(0.70, 0.82),
    "784-512-512-10:1024": Target(0.87, 0.87),
    "2048-2048-2048-10:512": Target(0.90, 0.88),
    "4096-4096-10:32": Target(0.55, None),
    "17-256-256-6:64:adam": Target(0.40, 0.60),
}
