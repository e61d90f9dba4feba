"""PyTorch, eager and compiled: a Python loop over preloaded tensors is the best loop that it has."""

from typing import Any

import torch
from torch.nn import functional

from ferrograd._typing import Array
from ferrograd.bench.peers import Peer
from ferrograd.bench.problem import ADAM, Data, Problem


class TorchEager(Peer):
    """Fused optimizer, gradients set to None; loop and step are the same here."""

    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.problem, self.data = problem, data
        self.X, self.y = torch.from_numpy(data.X), torch.from_numpy(data.y)
        self.layers = [
            torch.nn.Linear(*W.shape, dtype=getattr(torch, problem.dtype)) for W in data.weights[::2]
        ]
        modules = [module for layer in self.layers for module in (layer, torch.nn.ReLU())]
        self.model = torch.nn.Sequential(*modules[:-1])
        params = self.model.parameters()
        self.optimizer: Any
        if problem.optimizer == "adam":
            betas = (ADAM["beta1"], ADAM["beta2"])
            self.optimizer = torch.optim.Adam(
                params, lr=problem.lr, betas=betas, eps=ADAM["eps"], **self.rule()
            )
        else:
            self.optimizer = torch.optim.SGD(params, lr=problem.lr, **self.rule())
        self.loss_of: Any = self._loss_of
        self.update: Any = self.optimizer.step
        self.loss = 0.0
        self.reset()

    @staticmethod
    def rule() -> dict[str, bool]:
        """Return how the optimizer goes through the parameters."""
        return {"fused": True}

    @staticmethod
    def versions() -> dict[str, str]:
        """Return its version, with the BLAS it calls."""
        return {"torch": f"{torch.__version__} ({'MKL' if torch.backends.mkl.is_available() else 'no MKL'})"}

    def reset(self) -> None:
        """Fill weights and moments in place: what was compiled refers to them."""
        with torch.no_grad():
            pairs = zip(self.data.weights[::2], self.data.weights[1::2], strict=True)
            for layer, (W, b) in zip(self.layers, pairs, strict=True):
                layer.weight.copy_(torch.from_numpy(W.T))
                layer.bias.copy_(torch.from_numpy(b))
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, torch.Tensor):
                        value.zero_()

    def train(self, batches: int, epochs: int) -> None:
        """Go through the batches in order."""
        for _ in range(epochs):
            for x, y in zip(self.X[:batches].unbind(), self.y[:batches].unbind(), strict=True):
                self._step(x, y)

    def train_shuffled(self, epochs: int) -> None:
        """Gather each batch."""
        X, y = self.X.flatten(0, 1), self.y.flatten()
        torch.manual_seed(0)
        for _ in range(epochs):
            for rows in torch.randperm(len(X)).split(self.problem.batch):
                self._step(X[rows], y[rows])

    def weights(self) -> list[Array]:
        """Transpose: a Linear keeps (outputs, inputs)."""
        params = [tensor for layer in self.layers for tensor in (layer.weight.T, layer.bias)]
        return [tensor.detach().numpy() for tensor in params]

    def _loss_of(self, x: Any, labels: Any) -> Any:
        return functional.cross_entropy(self.model(x), labels)

    def _step(self, x: Any, labels: Any) -> None:
        loss = self.loss_of(x, labels)
        loss.backward()
        self.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss += loss.item()


class TorchCompiled(TorchEager):
    """`torch.compile` of the loss with its backward pass, and of the optimizer's step."""

    def __init__(self, problem: Problem, data: Data, mode: str, threads: int) -> None:
        # A limit counts how often the same function was compiled, over all problems of this process.
        torch.compiler.reset()
        super().__init__(problem, data, mode, threads)
        self.loss_of = torch.compile(self._loss_of, fullgraph=True, dynamic=False)
        self.update = torch.compile(self.optimizer.step, fullgraph=False)

    @staticmethod
    def rule() -> dict[str, bool]:
        """Return the form that the compiler fuses by itself."""
        return {"foreach": True}
