"""JAX: the whole loop as one jit with `lax.scan` over the batches, or a jitted step with donated weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ferrograd._typing import Array
from ferrograd.bench.peers import Peer
from ferrograd.bench.problem import ADAM, Data, Problem


class JaxScan(Peer):
    """The batches lie on the device beforehand; every call waits for its result."""

    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None:
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        self.problem, self.data, self.mode = problem, data, mode
        self.X, self.y = jnp.asarray(data.X), jnp.asarray(data.y.astype(np.int32))
        self.steps = list(zip(self.X, self.y, strict=True)) if mode == "step" else []
        self.part: tuple[Any, Any] = (self.X, self.y)
        self.step = jax.jit(self._step, donate_argnums=0)
        self.scan = jax.jit(lambda state, X, y: jax.lax.scan(self._scanned, state, (X, y)), donate_argnums=0)
        self.epoch = jax.jit(self._epoch, donate_argnums=0)
        self.reset()

    @staticmethod
    def versions() -> dict[str, str]:
        """Version of JAX; jaxlib has the same."""
        return {"jax": jax.__version__}

    def reset(self) -> None:
        """Copy the initial weights to the device."""
        params = [jnp.array(weight) for weight in self.data.weights]
        is_adam = self.problem.optimizer == "adam"
        moments = [[jnp.zeros_like(param) for param in params] for _ in range(2 if is_adam else 0)]
        self.state = (params, moments, jnp.zeros((), jnp.int32))

    def train(self, batches: int, epochs: int) -> None:
        """One call per epoch, or per step."""
        if self.mode == "step":
            for _ in range(epochs):
                for x, y in self.steps[:batches]:
                    self.state, _ = self.step(self.state, x, y)
        else:
            if len(self.part[0]) != batches:
                self.part = (self.X[:batches], self.y[:batches])
            for _ in range(epochs):
                self.state, _ = self.scan(self.state, *self.part)
        jax.block_until_ready(self.state)

    def train_shuffled(self, epochs: int) -> None:
        """Permutation and gather inside the jit."""
        for key in jax.random.split(jax.random.key(0), epochs):
            self.state, _ = self.epoch(self.state, self.X, self.y, key)
        jax.block_until_ready(self.state)

    def weights(self) -> list[Array]:
        """Copy the weights from the device."""
        return [np.asarray(param) for param in self.state[0]]

    def _loss(self, params: Any, x: Any, labels: Any) -> Any:
        for layer in range(0, len(params), 2):
            if layer:
                x = jax.nn.relu(x)
            x = x @ params[layer] + params[layer + 1]
        scores = jax.nn.log_softmax(x)
        return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

    def _step(self, state: Any, x: Any, labels: Any) -> Any:
        params, moments, count = state
        loss, grads = jax.value_and_grad(self._loss)(params, x, labels)
        count = count + 1
        if not moments:
            new = [param - self.problem.lr * grad for param, grad in zip(params, grads, strict=True)]
            return (new, moments, count), loss
        beta1, beta2 = ADAM["beta1"], ADAM["beta2"]
        time = count.astype(self.problem.dtype)
        first = [beta1 * m + (1 - beta1) * grad for m, grad in zip(moments[0], grads, strict=True)]
        second = [beta2 * v + (1 - beta2) * grad * grad for v, grad in zip(moments[1], grads, strict=True)]
        correction = jnp.sqrt(1 - beta2**time)
        rate = ADAM["lr"] * correction / (1 - beta1**time)
        eps = ADAM["eps"] * correction
        every = zip(params, first, second, strict=True)
        new = [param - rate * m / (jnp.sqrt(v) + eps) for param, m, v in every]
        return (new, [first, second], count), loss

    def _scanned(self, state: Any, batch: Any) -> Any:
        return self._step(state, *batch)

    def _epoch(self, state: Any, X: Any, y: Any, key: Any) -> Any:
        order = jax.random.permutation(key, y.size).reshape(y.shape)
        rows, labels = X.reshape(-1, X.shape[2]), y.reshape(-1)
        return jax.lax.scan(lambda s, at: self._step(s, rows[at], labels[at]), state, order)
