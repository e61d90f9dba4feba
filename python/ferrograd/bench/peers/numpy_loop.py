"""numpy: the loop as an expert writes it, in place, into buffers that are made once."""

import numpy as np

from ferrograd._typing import Array
from ferrograd.bench.peers import Peer
from ferrograd.bench.problem import ADAM, Data, Problem


class NumpyLoop(Peer):
    """Matrix products with ``out=``; for SGD the rate goes into the loss's gradient, so no pass is for it."""

    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None:
        self.problem, self.data = problem, data
        batch, dtype = problem.batch, problem.dtype
        self.outputs = [np.empty((batch, width), dtype) for width in problem.widths[1:]]
        self.gradients = [np.empty((batch, width), dtype) for width in problem.widths[1:-1]]
        self.masks = [np.empty((batch, width), np.bool_) for width in problem.widths[1:-1]]
        self.column = np.empty((batch, 1), dtype)
        self.rows = np.arange(batch)
        self.grads = [np.empty_like(weight) for weight in data.weights]
        self.scratch = [np.empty_like(weight) for weight in data.weights]
        is_adam = problem.optimizer == "adam"
        self.scale = (1.0 if is_adam else problem.lr) / batch
        self.update = self._adam if is_adam else self._descend
        self.reset()

    @staticmethod
    def versions() -> dict[str, str]:
        """Version, and the BLAS that was built in."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"numpy": f"{np.__version__} ({blas['name']} {blas['version']})"}

    def reset(self) -> None:
        """Copy the initial weights."""
        self.params = [weight.copy() for weight in self.data.weights]
        self.first = [np.zeros_like(weight) for weight in self.params]
        self.second = [np.zeros_like(weight) for weight in self.params]
        self.steps = 0
        self.loss = 0.0

    def train(self, batches: int, epochs: int) -> None:
        """Go through the batches in order."""
        for _ in range(epochs):
            for i in range(batches):
                self._step(self.data.X[i], self.data.y[i])

    def train_shuffled(self, epochs: int) -> None:
        """Gather each batch into one buffer."""
        X, y = self.data.X.reshape(-1, self.data.X.shape[2]), self.data.y.reshape(-1)
        x, batch = np.empty_like(self.data.X[0]), self.problem.batch
        rng = np.random.default_rng(0)
        for _ in range(epochs):
            order = rng.permutation(len(X))
            for at in range(0, len(X), batch):
                rows = order[at : at + batch]
                # "clip" writes straight to `out`; the default would buffer it, to undo a wrong index.
                np.take(X, rows, axis=0, out=x, mode="clip")
                self._step(x, y[rows])

    def weights(self) -> list[Array]:
        """Return the weights themselves."""
        return list(self.params)

    def _step(self, x: Array, labels: Array) -> None:
        params, outputs, column = self.params, self.outputs, self.column
        last = len(outputs) - 1
        h = x
        for layer, z in enumerate(outputs):
            np.matmul(h, params[2 * layer], out=z)
            z += params[2 * layer + 1]
            if layer < last:
                np.maximum(z, 0, out=z)
            h = z
        np.maximum.reduce(h, axis=1, keepdims=True, out=column)
        h -= column
        np.exp(h, out=h)
        np.add.reduce(h, axis=1, keepdims=True, out=column)
        h /= column
        self.loss -= float(np.log(h[self.rows, labels]).sum())
        # d loss / d logits = (softmax - onehot) / batch
        h[self.rows, labels] -= 1
        h *= self.scale
        for layer in range(last, -1, -1):
            below = outputs[layer - 1] if layer else x
            np.matmul(below.T, h, out=self.grads[2 * layer])
            np.add.reduce(h, axis=0, out=self.grads[2 * layer + 1])
            if layer:
                gradient, mask = self.gradients[layer - 1], self.masks[layer - 1]
                np.matmul(h, params[2 * layer].T, out=gradient)
                np.greater(below, 0, out=mask)
                gradient *= mask
                h = gradient
        self.update()

    def _descend(self) -> None:
        for param, grad in zip(self.params, self.grads, strict=True):
            param -= grad

    def _adam(self) -> None:
        beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
        self.steps += 1
        correction = (1 - beta2**self.steps) ** 0.5
        rate = ADAM["lr"] * correction / (1 - beta1**self.steps)
        every = zip(self.params, self.grads, self.first, self.second, self.scratch, strict=True)
        for param, grad, first, second, scratch in every:
            first *= beta1
            np.multiply(grad, 1 - beta1, out=scratch)
            first += scratch
            second *= beta2
            np.multiply(grad, grad, out=scratch)
            scratch *= 1 - beta2
            second += scratch
            np.sqrt(second, out=scratch)
            # The correction is inside `rate`, so epsilon takes it too.
            scratch += ADAM["eps"] * correction
            np.divide(first, scratch, out=scratch)
            scratch *= rate
            param -= scratch
