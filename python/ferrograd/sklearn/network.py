"""The network of an estimator as tensors, with the plans that train it and predict."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ferrograd import _core, nn
from ferrograd._core import Tensor
from ferrograd._typing import Array
from ferrograd.nn import functional as F
from ferrograd.sklearn.activations import Activation

__all__ = [
    "NORMS",
    "Fit",
    "Layers",
    "Network",
    "Predictions",
    "Task",
    "normalizations",
    "parameters_of",
    "tables",
]

# Rows that are predicted at a time.
_PREDICT_ROWS = 1024


class Layers(NamedTuple):
    """What a network computes around its products: what results depend on besides arrays and their shapes."""

    activations: tuple[Activation, ...]
    normalization: str | None = None  # "batch" or "layer": before each activation, after a maxout
    is_standardized: bool = False
    dropout: tuple[float, ...] = ()  # in training, of the input, then of each hidden layer


class Task(NamedTuple):
    """What is trained: everything that a compiled step depends on besides rows and widths."""

    layers: Layers
    loss: str  # a regressor's or a hinge, or "softmax" or "logistic"
    alpha: float
    l1: float
    correct_multioutput: bool
    clip_norm: float | None
    out: Activation | None = None  # whose results the loss is of; None for the scores
    huber_delta: float = 1.0
    quantiles: float | tuple[float, ...] = 0.5
    is_weighted: bool = False


# What `normalization` names.
NORMS: dict[str, Callable[..., nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
# Of their state, in the order of a network's parameters: what is trained, and what is not.
LEARNED, _RUNNING = ("weight", "bias"), ("running_mean", "running_var")


def normalizations(kind: str, widths: Sequence[int], dtype: Any) -> list[dict[str, Array]]:
    """Return the arrays of the normalisation of each hidden layer at the start, as `nn` names them."""
    modules = [NORMS[kind](width, dtype=_dtype(dtype)) for width in widths]
    names = LEARNED + _RUNNING
    return [{n: t.detach().numpy() for n, t in m.state_dict().items() if n in names} for m in modules]


def parameters_of(estimator: Any) -> tuple[list[Array], list[Array]]:
    """Return the arrays of a fitted estimator that are trained, in the order of a network, and the others."""
    norms = getattr(estimator, "normalizations_", [])
    learned = [norm[name] for norm in norms for name in LEARNED]
    others = [norm[name] for norm in norms for name in _RUNNING if name in norm]
    if hasattr(estimator, "scale_"):
        others += [estimator.mean_, estimator.scale_]
    return [*estimator.coefs_, *estimator.intercepts_, *learned], others


def tables(X: Any) -> Any:
    """Return rows as the native side reads them: an array, or the parts of sparse rows."""
    if isinstance(X, np.ndarray):
        return X
    rows = X.tocsr()
    places = [part.astype(part.dtype.newbyteorder("="), copy=False) for part in (rows.indices, rows.indptr)]
    return rows.data, *places, rows.shape[1]


class Network:
    """Weights of shape (inputs, outputs), then biases, then what normalises, and between them the layers."""

    def __init__(self, layers: Layers, parameters: Sequence[Array], dtype: _core.DType) -> None:
        self.layers, self.depth = layers, len(layers.activations) + 1
        arrays = list(map(np.asarray, parameters))
        affine = [_core.tensor(array, dtype=dtype, requires_grad=True) for array in arrays[: 2 * self.depth]]
        self.norms: list[nn.Module] = []
        if layers.normalization:
            # Of the units that the next layer takes in.
            widths = [weight.shape[0] for weight in arrays[1 : self.depth]]
            self.norms = [NORMS[layers.normalization](width, dtype=dtype) for width in widths]
        self.trained = [*affine, *(parameter for norm in self.norms for parameter in norm.parameters())]
        running = [t for norm in self.norms for name, t in norm.named_buffers() if name in _RUNNING]
        # Mean and scale of the inputs.
        scaling = arrays[-2:] if layers.is_standardized else []
        fixed = [*running, *(_core.tensor(array, dtype=dtype) for array in scaling)]
        self.parameters: list[Tensor] = [*self.trained, *fixed]
        _core.follow(self.parameters, arrays)

    def outputs(self, x: Tensor, *, training: bool = False) -> list[Tensor]:
        """Return what each layer gives, the last one the scores."""
        layers, found = self.layers, []
        if layers.is_standardized:
            mean, scale = self.parameters[-2:]
            x = (x - mean) / scale
        for number in range(self.depth):
            if training and layers.dropout:
                x = F.dropout(x, layers.dropout[number])
            x = x @ self.parameters[number] + self.parameters[self.depth + number]
            if number < len(layers.activations):
                activation = layers.activations[number]
                steps: list[Any] = [norm.train(training) for norm in self.norms[number : number + 1]]
                # The maps of a maxout are part of the layer that is normalised.
                steps.insert(0 if activation.name == "maxout" else 1, activation)
                for step in steps:
                    x = step(x)
            found.append(x)
        return found


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
    if task.out is not None:
        scores = task.out(scores)
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
        is_log = task.out is None
        losses = F.poisson_nll_loss(scores, target, log_input=is_log, full=False, reduction="none") + constant
        losses = losses.sum(1)
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
        self.settings = _settings()
        self.network = Network(task.layers, parameters, dtype)
        self.states = [[_core.zeros_like(p) for p in self.network.trained] for _ in range(states)]
        self.engine = _core.Engine(seed)
        # A rule for weights, one for what else is trained.
        trained = [
            (p, int(n >= self.network.depth), [state[n] for state in self.states])
            for n, p in enumerate(self.network.trained)
        ]
        for rows in sizes:
            inputs = self._placeholders(task, rows)
            self.engine.compile(self._step(task, rows), inputs, trained, task.clip_norm, whole=whole)

    def _placeholders(self, task: Task, rows: int) -> list[Tensor]:
        first, last = self.network.parameters[0], self.network.parameters[self.network.depth - 1]
        dtype, is_label = first.dtype, task.loss in _LABELS
        shape = (rows,) if is_label else (rows, 1 if isinstance(task.quantiles, tuple) else last.shape[1])
        found = [_core.zeros((rows, first.shape[0]), dtype=dtype)]
        found.append(_core.zeros(shape, dtype=_core.int64 if is_label else dtype))
        return [*found, _core.ones((rows,), dtype=dtype)] if task.is_weighted else found

    def losses_of(self, task: Task, tables: list[Any], rows: int) -> Callable[[], float]:
        """Return what computes the mean loss of other rows at the present parameters, without the penalty."""
        task = task._replace(alpha=0.0, l1=0.0, is_weighted=len(tables) > 2)
        engine, batch = _core.Engine(0), min(_PREDICT_ROWS, rows)
        for size in {batch, rows % batch or batch}:
            step = self._step(task, size, training=False)
            engine.compile(step, self._placeholders(task, size), [])
        return lambda: _core.mean_loss(engine, tables, batch)

    def _step(self, task: Task, rows: int, *, training: bool = True) -> Callable[..., tuple[Tensor, Tensor]]:
        def step(x: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
            scores = self.network.outputs(x, training=training)[-1]
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
            # The difference is 0, however large the loss is beside what is reported.
            loss = mean(reported).detach() + (loss - loss.detach())
        elif task.loss == "squared_error" and outputs > 1:
            # scikit-learn reports the mean over the outputs, and goes down the gradient of their sum.
            share = loss / outputs
            loss = share if task.correct_multioutput else share.detach() + (loss - loss.detach())
        weights = self.network.parameters[: self.network.depth]
        if task.alpha:
            # By columns, as a plan that keeps the weights packed sums them.
            squares = [w.square().sum(0).sum() for w in weights]
            loss = loss + sum(squares[1:], squares[0]) * (task.alpha / 2) / total
        if task.l1:
            sizes = [w.abs().sum(0).sum() for w in weights]
            loss = loss + sum(sizes[1:], sizes[0]) * task.l1 / total
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
        """Return the training that was kept if it is of this kind, else another one; `keep` keeps it."""
        fit, key = predictions.fit, _key(task, parameters, states, sizes, whole=False)
        if fit is None or fit.key != key:
            fit = _spares.take(key) or cls(
                task, parameters, states, sizes, seed=seed() if task.layers.dropout else 0
            )
        predictions.fit = fit if keep else None
        return fit

    def spare(self) -> None:
        """Leave the training to fits to come; the caller does not look at it any more."""
        _spares.put(self)

    def set(self, parameters: Sequence[Array], states: Sequence[Sequence[Array]]) -> None:
        """Take over values."""
        _core.follow(self.network.parameters, list(parameters))
        for mine, given in zip(self.states, states, strict=True):
            _core.follow(mine, list(given))

    def put(self, flat: Array) -> None:
        """Take over what is trained, one after the other."""
        ends = np.cumsum([p.numel() for p in self.network.trained])[:-1]
        parts = zip(self.network.trained, np.split(flat, ends), strict=True)
        _core.follow(self.network.trained, [part.reshape(p.shape) for p, part in parts])

    def give(self, estimator: Any) -> None:
        """Set what an estimator has learned."""
        depth = self.network.depth
        found = [p.detach().numpy() for p in self.network.trained[: 2 * depth]]
        estimator.coefs_, estimator.intercepts_ = found[:depth], found[depth:]
        if self.network.norms:
            estimator.normalizations_ = [
                {name: tensor.detach().numpy() for name, tensor in norm.state_dict().items() if tensor.ndim}
                for norm in self.network.norms
            ]

    def state_arrays(self) -> list[list[Array]]:
        """Return copies of what the optimizer remembers."""
        return [[tensor.numpy() for tensor in tensors] for tensors in self.states]


def _key(task: Task, parameters: Sequence[Array], states: int, sizes: Sequence[int], *, whole: bool) -> Any:
    return task, [array.shape for array in parameters], parameters[0].dtype, states, tuple(sizes), whole


def _settings() -> Any:
    """Return what a plan was compiled for besides its kind; it changes no result."""
    return _core.get_num_threads(), _core.get_anomaly_mode()


class _Spares:
    """Compiled trainings that no fit has: fits over few rows take no longer than compiling."""

    # At most so many, each of about so many numbers.
    _COUNT, _NUMBERS = 8, 1 << 18

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fits: list[Fit] = []

    def take(self, key: Any) -> Fit | None:
        with self._lock:
            wanted = key, _settings()
            found = next((n for n, fit in enumerate(self._fits) if (fit.key, fit.settings) == wanted), None)
            return None if found is None else self._fits.pop(found)

    def put(self, fit: Fit) -> None:
        task, shapes, _, states, sizes, _ = fit.key
        weights = sum(map(math.prod, shapes)) * (2 + states)
        values = 4 * max(sizes) * sum(shape[-1] for shape in shapes[: fit.network.depth])
        # One that drops out has random streams of its own.
        if task.layers.dropout or weights + values > self._NUMBERS:
            return
        with self._lock:
            self._fits.append(fit)
            del self._fits[: -self._COUNT]


_spares = _Spares()


class _Plan:
    def __init__(self, layers: Layers, parameters: Sequence[Array], dtype: _core.DType) -> None:
        self.network = Network(layers, parameters, dtype)
        self.engine = _core.Engine(0)
        self.dtype = dtype
        self.shape: tuple[int, ...] = ()

    def compile(self, rows: int, width: int, out: Activation) -> None:
        """Add the step for so many rows."""

        def step(x: Tensor) -> tuple[Tensor, None]:
            scores = out(self.network.outputs(x)[-1])
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
        layers: Layers,
        out: Activation,
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
        key = (shapes, layers, out, dtype)
        rows: int = X.shape[0]
        batch = min(_PREDICT_ROWS, 1 << (rows - 1).bit_length())
        last = 1 << (rows % batch - 1).bit_length() if rows % batch else 0
        with self._lock:
            plan = self._plans.get(key)
            if plan is None:
                plan = _Plan(layers, parameters, _dtype(dtype))
                # Shapes change when somebody assigns other parameters: the old plans are then of no use.
                self._plans = {k: p for k, p in self._plans.items() if k[0] == shapes}
                self._plans[key] = plan
            _core.follow(plan.network.parameters, parameters)
            for size in (batch, last):
                if size and not plan.engine.has(size):
                    plan.compile(size, shapes[0][0], out)
            width = None if is_checked else shapes[0][0]
            return _core.predict(plan.engine, data, (batch, last), plan.shape, plan.dtype, width)
