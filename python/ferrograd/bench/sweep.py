"""Random networks, to find the shapes at which a peer is faster."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ferrograd.bench.problem import Problem

# A step of more takes a tenth of a second on a good core: two hundred of those would not end in time.
_MOST_FLOP = 2e10
_MOST_WEIGHTS = 1 << 26


def draw(seed: int, dtype: str) -> Iterator[Problem]:
    """Yield networks of 1 to 5 layers, widths from 2 to 4096 and batches from 1 to 4096, log-uniform.

    Those whose step costs more than 20 GFLOP, or that have more than 2^26 weights, are drawn again.
    """
    rng = np.random.default_rng(seed)
    while True:
        layers = int(rng.integers(1, 6))
        sizes = np.exp(rng.uniform(math.log(2), math.log(4096), layers + 1)).round().astype(int)
        batch = round(math.exp(rng.uniform(0, math.log(4096))))
        problem = Problem(tuple(sizes.tolist()), batch, dtype=dtype)
        if problem.flop <= _MOST_FLOP and problem.n_weights <= _MOST_WEIGHTS:
            yield problem


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the worst ratio, the geometric mean, and the shapes at which a peer was faster, worst first."""
    rated = sorted((row for row in rows if "ratio" in row), key=lambda row: -row["ratio"])
    if not rated:
        return {"shapes": 0}
    return {
        "shapes": len(rated),
        "worst": rated[0]["ratio"],
        "worst_shape": rated[0]["name"],
        "geometric_mean": math.exp(sum(math.log(row["ratio"]) for row in rated) / len(rated)),
        "misses": [(row["name"], row["ratio"], row["best"]) for row in rated if row["ratio"] > 1],
    }
