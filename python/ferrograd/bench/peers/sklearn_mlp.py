"""scikit-learn's MLPClassifier: `fit` as the loop, `partial_fit` as the step."""

import time
import warnings
from typing import Any

import sklearn
from sklearn.neural_network import MLPClassifier

from ferrograd._typing import Array
from ferrograd.bench.peers import Peer
from ferrograd.bench.problem import ADAM, Data, Problem


class SklearnMlp(Peer):
    """No penalty, no momentum, no early stop; starts warm from the given weights."""

    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None:
        warnings.simplefilter("ignore")
        classes = problem.widths[-1]
        if classes == 2:
            raise ValueError("two classes are a single logistic output there, which is another network")
        if problem.batch < classes:
            raise ValueError("a batch without every class cannot start it")
        self.problem, self.data, self.mode = problem, data, mode
        batches, rows, inputs = data.X.shape
        self.X, self.y = data.X.reshape(batches * rows, inputs), data.y.reshape(-1)
        options: dict[str, Any] = {"solver": problem.optimizer, "learning_rate_init": problem.lr}
        if problem.optimizer == "sgd":
            options |= {"momentum": 0.0, "nesterovs_momentum": False}
        else:
            options |= {"beta_1": ADAM["beta1"], "beta_2": ADAM["beta2"], "epsilon": ADAM["eps"]}
        self.model = MLPClassifier(
            problem.widths[1:-1],
            alpha=0.0,
            batch_size=problem.batch,
            shuffle=False,
            tol=0.0,
            n_iter_no_change=10**9,
            warm_start=True,
            random_state=0,
            **options,
        )
        # The first call makes the arrays that `reset` fills.
        self.model.partial_fit(data.X[0], data.y[0], classes=range(classes))
        self.reset()

    @staticmethod
    def versions() -> dict[str, str]:
        """Its version; the BLAS is numpy's and SciPy's."""
        return {"scikit-learn": sklearn.__version__}

    def reset(self) -> None:
        """Put the initial weights in place of the model's."""
        self.model.coefs_ = [weight.copy() for weight in self.data.weights[::2]]
        self.model.intercepts_ = [weight.copy() for weight in self.data.weights[1::2]]
        # Made anew on the next call; it refers to the arrays that were just replaced.
        self.model.__dict__.pop("_optimizer", None)

    def train(self, batches: int, epochs: int) -> None:
        """`fit` over the rows, or a call of `partial_fit` for each batch."""
        if self.mode == "step":
            for _ in range(epochs):
                for i in range(batches):
                    self.model.partial_fit(self.data.X[i], self.data.y[i])
            return
        self._fit(batches, epochs)

    def train_shuffled(self, epochs: int) -> None:
        """`fit` with its own shuffling."""
        self.model.shuffle = True
        self._fit(len(self.data.X), epochs)

    def weights(self) -> list[Array]:
        """Return the weights themselves."""
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return [weight for pair in pairs for weight in pair]

    def seconds(self, batches: int, epochs: int) -> float:
        """In a loop, one epoch more less one epoch: what `fit` does around its epochs is not counted."""
        if self.mode == "step":
            return super().seconds(batches, epochs)
        start = time.perf_counter()
        self._fit(batches, epochs + 1)
        middle = time.perf_counter()
        self._fit(batches, 1)
        return 2 * middle - start - time.perf_counter()

    def _fit(self, batches: int, epochs: int) -> None:
        rows = batches * self.problem.batch
        self.model.max_iter = epochs
        self.model.fit(self.X[:rows], self.y[:rows])
