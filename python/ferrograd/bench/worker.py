"""The process of one library: reads requests as JSON lines, does one at a time, answers with a line each.

``python -m ferrograd.bench.worker PEER THREADS``; started and pinned by `ferrograd.bench.process`.
"""

import gc
import json
import math
import os
import sys
import time
from typing import IO, Any

import numpy as np

from ferrograd import _core
from ferrograd.bench import peers
from ferrograd.bench.problem import Data, Problem, mean_loss
from ferrograd.datasets import load_mnist

# What a library does once per run or epoch (ours checks the data, and keeps the best weights) must not weigh:
# a run has four epochs where they have 50 steps each, and never fewer steps than this.
_LEAST_STEPS = 20
# On a machine that is not quiet the estimates do not settle.
_MOST_TRIES = 8


class Session:
    """What a worker can be asked; answers are JSON objects."""

    def __init__(self, name: str, threads: int) -> None:
        self.threads = threads
        self.kind = peers.load(name)
        self.peer: peers.Peer
        self.problem: Problem
        self.data: Data
        self.run = (1, 1)

    def load(self, problem: dict[str, Any], mode: str) -> dict[str, Any]:
        """Make data and network."""
        self.unload()
        self.problem = Problem.from_json(problem)
        self.data = self.problem.make()
        self.peer = self.kind(self.problem, self.data, mode, self.threads)
        return {}

    def unload(self) -> dict[str, Any]:
        """Let go of the network: six workers share the memory."""
        for name in ("peer", "data"):
            self.__dict__.pop(name, None)
        gc.collect()
        return {}

    def check(self, steps: int) -> dict[str, Any]:
        """Train from the initial weights for exactly so many steps; return the loss before and after."""
        # Several times over the first batches where there are fewer: by a divisor, to end on the step.
        most = min(steps, len(self.data.X))
        batches = next(count for count in range(most, 0, -1) if steps % count == 0)
        self.peer.reset()
        self.peer.train(batches, steps // batches)
        self.run = (batches, steps // batches)
        loss = mean_loss(self.peer.weights(), self.data)
        if not math.isfinite(loss):
            raise ArithmeticError(f"the loss is {loss}")
        return {"initial": mean_loss(self.data.weights, self.data), "loss": loss}

    def prepare(self, seconds: float) -> dict[str, Any]:
        """Find how many steps take so long, and leave all that they need compiled and warm."""
        for _ in range(_MOST_TRIES):
            # The first time compiles.
            _, taken = self.peer.seconds(*self.run), self.peer.seconds(*self.run)
            steps = self.run[0] * self.run[1]
            # 20 times as many at most: the first estimate may be far off.
            wanted = max(_LEAST_STEPS, math.ceil(steps * min(20.0, seconds / max(taken, 1e-6))))
            if 0.7 * wanted <= steps <= 2 * wanted:
                break
            epochs = max(math.ceil(wanted / len(self.data.X)), min(4, wanted // 50), 1)
            self.run = (math.ceil(wanted / epochs), epochs)
        return {"steps": self.run[0] * self.run[1]}

    def time(self) -> dict[str, Any]:
        """Return the seconds of a step."""
        return {"seconds": self.peer.seconds(*self.run) / (self.run[0] * self.run[1])}

    def profile(self, seconds: float) -> dict[str, Any]:
        """Return where the time of a step of ours goes."""
        # Here, so that other libraries' processes do without it.
        from ferrograd.bench.peers.trainer import Trainer

        assert isinstance(self.peer, Trainer)
        return self.peer.profile(seconds)

    def peak(self, memory: bool = False) -> dict[str, Any]:
        """Return what the machine can do just now."""
        return dict(_core.machine_peak(memory))

    def mnist(self, folder: str, epochs: int, problem: dict[str, Any]) -> dict[str, Any]:
        """Train on MNIST in memory; return the seconds and the accuracy on the test images."""
        self.unload()
        images = load_mnist(folder)
        self.problem = Problem.from_json(problem)
        batch, dtype = self.problem.batch, self.problem.dtype
        # A whole number of batches, so that all do the same steps: a scan takes no short one.
        batches = len(images.X_train) // batch
        X = (images.X_train[: batches * batch].astype(np.float32) / 255).astype(dtype)
        y = images.y_train[: batches * batch]
        weights = self.problem.make().weights
        self.data = Data(X.reshape(batches, batch, -1), y.reshape(batches, batch), weights)
        self.peer = self.kind(self.problem, self.data, "loop", self.threads)
        self.peer.train_shuffled(1)
        self.peer.reset()
        start = time.perf_counter()
        self.peer.train_shuffled(epochs)
        seconds = time.perf_counter() - start
        h = images.X_test.astype(np.float32) / 255
        trained = self.peer.weights()
        for layer in range(0, len(trained), 2):
            h = (np.maximum(h, 0) if layer else h) @ trained[layer] + trained[layer + 1]
        return {"seconds": seconds, "accuracy": float((h.argmax(axis=1) == images.y_test).mean())}


def main() -> None:
    """Answer until the input ends."""
    # Libraries print what they like to standard output: answers go to a copy, the rest to the error output.
    answers: IO[str] = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def answer(reply: dict[str, Any]) -> None:
        answers.write(json.dumps(reply) + "\n")

    try:
        session = Session(sys.argv[1], int(sys.argv[2]))
        answer({"versions": session.kind.versions()})
    except ImportError as error:
        answer({"absent": str(error)})
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(getattr(session, request.pop("do"))(**request))
        except Exception as error:
            # A worker outlives a problem that its library cannot do.
            text = " ".join(str(error).split())
            answer({"error": f"{type(error).__name__}: {text[:300]}"})


if __name__ == "__main__":
    main()
