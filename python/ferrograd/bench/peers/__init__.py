"""How each library trains a problem, one file per library; a new one is a file and a line of `PEERS`."""

import importlib
import time
from abc import ABC, abstractmethod
from typing import Any

from ferrograd._typing import Array
from ferrograd.bench.problem import Data, Problem

MODES = ("loop", "step")


class Peer(ABC):
    """A library that trains one problem. Data are converted here, before anything is timed.

    Parameters
    ----------
    problem : Problem
        What is trained.
    data : Data
        Its batches and initial weights.
    mode : str
        ``"loop"``: the library's best whole loop; ``"step"``: a call from Python for each step.
    threads : int
        The process is already pinned to as many CPUs.
    """

    @abstractmethod
    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None: ...

    @staticmethod
    @abstractmethod
    def versions() -> dict[str, str]:
        """Return the versions of what computes, by name."""

    @abstractmethod
    def reset(self) -> None:
        """Go back to the initial weights, without undoing what was compiled."""

    @abstractmethod
    def train(self, batches: int, epochs: int) -> None:
        """Train on the first batches in order, so many times; return when the last step is done."""

    @abstractmethod
    def train_shuffled(self, epochs: int) -> None:
        """Train on all rows, in a new order each epoch."""

    @abstractmethod
    def weights(self) -> list[Array]:
        """Return the present weights in the layout of `Data.weights`."""

    def seconds(self, batches: int, epochs: int) -> float:
        """Return how long `train` takes."""
        start = time.perf_counter()
        self.train(batches, epochs)
        return time.perf_counter() - start


# Name on the command line: module and class.
PEERS = {
    "ferrograd": ("trainer", "Trainer"),
    "numpy": ("numpy_loop", "NumpyLoop"),
    "scikit-learn": ("sklearn_mlp", "SklearnMlp"),
    "jax": ("jax_scan", "JaxScan"),
    "torch": ("torch_loop", "TorchEager"),
    "torch-compiled": ("torch_loop", "TorchCompiled"),
}
OURS = "ferrograd"


def load(name: str) -> Any:
    """Import a peer's class; raises ImportError where its library is not installed."""
    module, peer = PEERS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), peer)
