"""The network of an estimator as tensors, with the plans that train it and predict."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd._typing import Array
from ferrograd.nn import functional as F
from ferrograd.sklearn.activations import OUT, Activation

__all__ = ["Fit", "Predictions", "Task", "tables"]

# Rows that are predicted at a time.
_PREDICT_ROWS = 1024


class Task(NamedTuple):
    """What is trained: everything that a compiled step depends on besides rows and widths."""

    activations: tuple[Activation, ...]
    loss: str  # a regressor's or a hinge, or "softmax" or "logistic"
    alpha: float
    correct_multioutput: bool
    clip_norm: float | None
    dropout: tuple[float, ...] = ()  # of the input, then of each hidden layer
    huber_delta: float = 1.0
    quantiles: float | tuple[float, ...] = 0.5
    is_weighted: bool = False


def tables(X: Any) -> Any:
    """Return rows as the native side reads them: an array, or the parts of sparse rows."""
    if isinstance(X, np.ndarray):
        return X
    rows = X.tocsr()
    return rows.data, rows.indices, rows.indptr, rows.shape[1]


class _Network:
    """Weights of shape (inputs, outputs), and biases."""

    def __init__(self, parameters: Sequence[Array], dtype: _core.DType) -> None:
        self.parameters = [
            _core.tensor(np.asarray(array), dtype=dtype, requires_grad=True) for array in parameters
        ]
        self.depth = len(self.parameters) // 2

    def __call__(
        self, x: Tensor, activations: tuple[Activation, ...], dropout: tuple[float, ...] = ()
    ) -> Tensor:
        for number in range(self.depth):
            if number:
                x = activations[number - 1](x)
            if dropout:
                x = F.dropout(x, dropout[number])
            x = x @ self.parameters[number] + self.parameters[self.depth + number]
        return x


def _dtype(dtype: Any) -> _core.DType:
    return _core.float32 if dtype == np.float32 else _core.float64


# Those whose targets are class numbers.
_LABELS = ("softmax", "multiclass_hinge", "multiclass_squared_hinge")

# Of an element; a row's loss is the mean over the outputs.
_ELEMENTS: dict[str, Callable[[Task, Tensor, Tensor], Tensor]] = {
    "absolute_error": lambda task, x, t: F.l1_loss(x, t, "none"),
    "huber": lambda task, x, t: F.huber_loss(x, t, "none", task.huber_delta),
    "quantile": lambda task, x, t: F.quantile_loss(x, t, task.quantiles, "none"),
}


def _losses(task: Task, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each row, whose gradient counts, and what is reported of it."""
    loss = task.loss
    if loss in _LABELS and loss != "softmax":
        losses = F.multiclass_hinge_loss(scores, target, 2 if "squared" in loss else 1, reduction="none")
        return losses, losses
    if loss in ("hinge", "squared_hinge"):
        losses = F.margin_loss(scores, 2 * target - 1, reduction="none")
        losses = (losses if loss == "hinge" else losses.square()).sum(1)
        return losses, losses
    if loss in _ELEMENTS:
        losses = _ELEMENTS[loss](task, scores, target).mean(1)
        return losses, losses
    if loss == "squared_error":
        losses = F.half_squared_error(scores, target, "none")
        return losses, losses
    if loss == "poisson":
        # Half the deviance: what does not depend on the scores is part of scikit-learn's loss.
        constant = target * (target + (target == 0).to(target.dtype)).log() - target
        losses = (F.poisson_nll_loss(scores, target, full=False, reduction="none") + constant).sum(1)
        return losses, losses
    is_softmax = loss == "softmax"
    losses = _core.cross_entropy(scores, target) if is_softmax else _core.bce_with_logits(scores, target)
    # scikit-learn reports the loss of probabilities between eps and 1 - eps.
    eps = float(np.finfo(np.float32 if scores.dtype == _core.float32 else np.float64).eps)
    clipped = losses.detach().clamp(-math.log1p(-eps), -math.log(eps))
    return (losses, clipped) if is_softmax else (losses.sum(1), clipped.sum(1))


class Fit:
    """The compiled training of a network. Of its parameters the weights come first, then the biases."""

    def __init__(
        self,
        task: Task,
        parameters: Sequence[Array],
        states: int,
        sizes: Sequence[int],
        *,
        whole: bool = False,
        seed: int = 0,
    ) -> None:
        dtype = _dtype(parameters[0].dtype)
        self.key = _key(task, parameters, states, sizes, whole=whole)
        self.network = _Network(parameters, dtype)
        self.states = [[_core.zeros_like(p) for p in self.network.parameters] for _ in range(states)]
        self.engine = _core.Engine(seed)
        # A rule for weights, one for biases.
        trained = [
            (p, n // self.network.depth, [state[n] for state in self.states])
            for n, p in enumerate(self.network.parameters)
        ]
        for rows in sizes:
            inputs = self._placeholders(task, rows)
            self.engine.compile(self._step(task, rows), inputs, trained, task.clip_norm, whole=whole)

    def _placeholders(self, task: Task, rows: int) -> list[Tensor]:
        first, last = self.network.parameters[0], self.network.parameters[-1]
        dtype, is_label = first.dtype, task.loss in _LABELS
        shape = (rows,) if is_label else (rows, 1 if isinstance(task.quantiles, tuple) else last.shape[0])
        found = [_core.zeros((rows, first.shape[0]), dtype=dtype)]
        found.append(_core.zeros(shape, dtype=_core.int64 if is_label else dtype))
        return [*found, _core.ones((rows,), dtype=dtype)] if task.is_weighted else found

    def losses_of(self, task: Task, tables: list[Any], rows: int) -> Callable[[], float]:
        """Return what computes the mean loss of other rows at the present parameters, without the penalty."""
        task = task._replace(alpha=0.0, dropout=(), is_weighted=len(tables) > 2)
        engine, batch = _core.Engine(0), min(_PREDICT_ROWS, rows)
        for size in {batch, rows % batch or batch}:
            engine.compile(self._step(task, size), self._placeholders(task, size), [])
        return lambda: _core.mean_loss(engine, tables, batch)

    def _step(self, task: Task, rows: int) -> Callable[..., tuple[Tensor, Tensor]]:
        def step(x: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
            scores = self.network(x, task.activations, task.dropout)
            return scores, self.loss_of(task, rows, scores, target, weight)

        return step

    def loss_of(
        self, task: Task, rows: int, scores: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss of scores, penalty included."""
        losses, reported = _losses(task, scores, target)
        total = rows if weight is None else weight.sum()

        def mean(losses: Tensor) -> Tensor:
            return (losses if weight is None else losses * weight).sum() / total

        loss, outputs = mean(losses), scores.shape[1]
        if reported is not losses:
            loss = loss + (mean(reported) - loss).detach()
        elif task.loss == "squared_error" and outputs > 1:
            # scikit-learn reports the mean over the outputs, and goes down the gradient of their sum.
            share = loss / outputs
            loss = share if task.correct_multioutput else loss + (share - loss).detach()
        if task.alpha:
            # By columns, as a plan that keeps the weights packed sums them.
            squares = [w.square().sum(0).sum() for w in self.network.parameters[: self.network.depth]]
            loss = loss + sum(squares[1:], squares[0]) * (task.alpha / 2) / total
        return loss

    @classmethod
    def cached(
        cls,
        predictions: "Predictions",
        task: Task,
        parameters: Sequence[Array],
        states: int,
        sizes: Sequence[int],
        *,
        keep: bool,
        seed: Callable[[], int],
    ) -> "Fit":
        """Return the training that was kept if it is of this kind, else a new one; `keep` keeps it."""
        fit = predictions.fit
        if fit is None or fit.key != _key(task, parameters, states, sizes, whole=False):
            fit = cls(task, parameters, states, sizes, seed=seed() if task.dropout else 0)
        predictions.fit = fit if keep else None
        return fit

    def set(self, parameters: Sequence[Array], states: Sequence[Sequence[Array]]) -> None:
        """Take over values."""
        _core.follow(self.network.parameters, list(parameters))
        for mine, given in zip(self.states, states, strict=True):
            _core.follow(mine, list(given))

    def put(self, flat: Array) -> None:
        """Take over the parameters, one after the other."""
        ends = np.cumsum([p.numel() for p in self.network.parameters])[:-1]
        parts = zip(self.network.parameters, np.split(flat, ends), strict=True)
        _core.follow(self.network.parameters, [part.reshape(p.shape) for p, part in parts])

    def give(self, estimator: Any) -> None:
        """Set an estimator's weights and biases."""
        found = [p.detach().numpy() for p in self.network.parameters]
        estimator.coefs_, estimator.intercepts_ = found[: self.network.depth], found[self.network.depth :]

    def state_arrays(self) -> list[list[Array]]:
        """Return copies of what the optimizer remembers."""
        return [[tensor.numpy() for tensor in tensors] for tensors in self.states]


def _key(task: Task, parameters: Sequence[Array], states: int, sizes: Sequence[int], *, whole: bool) -> Any:
    return task, [array.shape for array in parameters], parameters[0].dtype, states, tuple(sizes), whole


class _Plan:
    def __init__(self, parameters: Sequence[Array], dtype: _core.DType) -> None:
        self.network = _Network(parameters, dtype)
        self.engine = _core.Engine(0)
        self.dtype = dtype
        self.shape: tuple[int, ...] = ()

    def compile(self, rows: int, width: int, activations: tuple[Activation, ...], out: str) -> None:
        """Add the step for so many rows."""

        def step(x: Tensor) -> tuple[Tensor, None]:
            scores = OUT[out](self.network(x, activations))
            self.shape = scores.shape[1:]
            return scores, None

        self.engine.compile(step, [_core.zeros((rows, width), dtype=self.dtype)], [])


class Predictions:
    """Compiled predictions of an estimator by what they return; a copy of the estimator makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[Any, _Plan] = {}
        self.fit: Fit | None = None

    def __reduce__(self) -> Any:
        """Leave the plans behind."""
        return Predictions, ()

    def __call__(
        self,
        X: Any,
        parameters: list[Array],
        activations: tuple[Activation, ...],
        out: str,
        dtype: Any = None,
        *,
        is_checked: bool,
    ) -> Array | None:
        """Return the network's results; None where rows that were not checked are not plain and finite."""
        data = tables(X)
        # As numpy's products would have it.
        kind = np.dtype(dtype or np.result_type(X.dtype, parameters[0].dtype))
        dtype = np.float32 if kind == np.float32 else np.float64
        shapes = tuple(array.shape for array in parameters)
        key = (shapes, activations, out, dtype)
        rows: int = X.shape[0]
        batch = min(_PREDICT_ROWS, 1 << (rows - 1).bit_length())
        last = 1 << (rows % batch - 1).bit_length() if rows % batch else 0
        with self._lock:
            plan = self._plans.get(key)
            if plan is None:
                plan = _Plan(parameters, _dtype(dtype))
                # Shapes change when somebody assigns other parameters: the old plans are then of no use.
                self._plans = {k: p for k, p in self._plans.items() if k[0] == shapes}
                self._plans[key] = plan
            _core.follow(plan.network.parameters, parameters)
            for size in (batch, last):
                if size and not plan.engine.has(size):
                    plan.compile(size, shapes[0][0], activations, out)
            width = None if is_checked else shapes[0][0]
            return _core.predict(plan.engine, data, (batch, last), plan.shape, plan.dtype, width)
