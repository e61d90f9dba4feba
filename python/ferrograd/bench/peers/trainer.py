"""ferrograd itself: `Trainer.fit` as the loop, `Trainer.train_step` as the step."""

import warnings
from typing import Any

import ferrograd as fg
from ferrograd._typing import Array
from ferrograd.bench.peers import Peer
from ferrograd.bench.problem import ADAM, Data, Problem


class Trainer(Peer):
    """The compiled trainer; the penalty and the callbacks are off, as everywhere here."""

    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None:
        # A diverging run stops early, so its time means nothing.
        warnings.simplefilter("error", fg.ConvergenceWarning)
        fg.set_num_threads(threads)
        self.problem, self.data, self.mode = problem, data, mode
        batches, rows, inputs = data.X.shape
        self.X, self.y = data.X.reshape(batches * rows, inputs), data.y.reshape(-1)
        self.layers: list[fg.nn.Linear] = []
        modules: list[fg.nn.Module] = []
        for W in data.weights[::2]:
            self.layers.append(fg.nn.Linear(W.shape[0], W.shape[1], dtype=problem.dtype))
            modules += [self.layers[-1], fg.nn.ReLU()]
        self.model = fg.nn.Sequential(*modules[:-1])
        self.reset()

    @staticmethod
    def versions() -> dict[str, str]:
        """Version and instruction set."""
        info = fg.info()
        return {"ferrograd": f"{info['version']} ({info['isa']})"}

    def reset(self) -> None:
        """Take the initial weights and a new optimizer."""
        with fg.no_grad():
            for layer, W, b in zip(self.layers, self.data.weights[::2], self.data.weights[1::2], strict=True):
                layer.weight.copy_(W.T)
                assert layer.bias is not None
                layer.bias.copy_(b)
        params, optimizer = self.model.parameters(), self.problem.optimizer
        rule: fg.optim.Optimizer
        if optimizer == "adam":
            rule = fg.optim.Adam(params, lr=ADAM["lr"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["eps"])
        else:
            rule = fg.optim.SGD(params, lr=self.problem.lr)
        self.trainer = fg.Trainer(self.model, fg.nn.CrossEntropyLoss(), rule)

    def train(self, batches: int, epochs: int) -> None:
        """`fit` without shuffling, or a call of `train_step` for each batch."""
        if self.mode == "step":
            train_step, X, y = self.trainer.train_step, self.data.X, self.data.y
            for _ in range(epochs):
                for i in range(batches):
                    train_step(X[i], y[i])
            return
        rows = batches * self.problem.batch
        self.trainer.fit(
            self.X[:rows], self.y[:rows], epochs=epochs, batch_size=self.problem.batch, shuffle=False, seed=0,
            progress=False,
        )  # fmt: skip

    def train_shuffled(self, epochs: int) -> None:
        """`fit` as it is."""
        self.trainer.fit(self.X, self.y, epochs=epochs, batch_size=self.problem.batch, seed=0, progress=False)

    def profile(self, seconds: float) -> dict[str, Any]:
        """Where the time of a step goes, measured over about so many seconds; after a loop."""
        cost = self.trainer.plan.cost(1)
        return self.trainer.plan.cost(max(1, int(seconds / cost.seconds))).to_dict()

    def weights(self) -> list[Array]:
        """Transpose: a Linear keeps (outputs, inputs)."""
        params = [tensor for layer in self.layers for tensor in (layer.weight.T, layer.bias)]
        return [tensor.detach().numpy() for tensor in params if tensor is not None]
