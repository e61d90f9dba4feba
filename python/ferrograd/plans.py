"""The plans of a trainer: compiled when they are needed, fed with checked data, run on its threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, GraphError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.checks import check_int
from ferrograd.compiled import Compiled, describe, ignored_label, is_of_labels, objects, trained
from ferrograd.nn.losses import Loss
from ferrograd.nn.module import Module, in_mode
from ferrograd.objective import objective
from ferrograd.optim import Optimizer
from ferrograd.random import fork_rng
from ferrograd.samples import Samples, called, check_labels, inputs, with_targets, with_weights
from ferrograd.threads import threads

__all__ = ["Plans"]

# Rows of the last fit that a health report looks at.
_NOTED_ROWS = 256


class Plans:
    """What a `Trainer` has below its methods: a model, a loss and an optimizer with their compiled steps."""

    model: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Optimizer
    l2: float
    clip_grad_norm: float | None
    n_threads: int | None

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # Predictions of several threads take turns; a callback of a fit may predict too.
        self._reading = threading.RLock()
        self._engines: dict[str, Compiled] = {}
        # Numbers of the trained parameters that the present step updates.
        self._updated: list[int] = []
        # The first rows of the last fit, its losses, the batch and the instructions of its step, and how many
        # batches make an update.
        self._seen: Samples | None = None
        self._planned: tuple[int, tuple[str, ...], int] | None = None
        self._logs: dict[str, list[float]] = {}
        # Where the last fit stopped for a loss that is no number: the epoch, and the loss.
        self._diverged: tuple[int, float] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled plans behind: they are made anew."""
        made_anew = ("_lock", "_reading", "_engines", "_updated", "_seen", "_logs", "_planned", "_diverged")
        return {key: value for key, value in self.__dict__.items() if key not in made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the state of a copy."""
        self.__dict__.update(state)
        self._reset()

    # Compilation

    def _note(self, engine: _core.Engine, data: Samples, batch: int, accumulate: int = 1) -> None:
        """Remember what `plan` and `health` look at."""
        self._seen = data.first(_NOTED_ROWS)
        self._planned = batch, tuple(engine.instructions(batch)), accumulate

    def _engine(self, kind: str, data: Samples, *sizes: int) -> Compiled:
        """Return the cached engine of a kind with steps for these batch sizes, compiled where needed."""
        trains = kind == "train"
        cached = self._engines.get(kind)
        if cached is not None and cached.key == describe(self._own(), data, trains=trains):
            engine = cached.engine
            self._check_labels(data, cached.score_shape)
        else:
            cached, engine = None, _core.Engine(self._seed(None) if trains else 0)
        for rows in sizes:
            if rows and not engine.has(rows):
                self._compile(engine, data, rows, trains=trains)
                cached = None
        if cached is None:
            # The key is made now: compiling creates the optimizer's state.
            key = describe(self._own(), data, trains=trains)
            kept = objects(*self._own()[:3])
            scores = (self._score_shape, self._score_dtype)
            cached = Compiled(key, kept, engine, *scores, self._updated)
        if trains:
            self._updated = cached.updated
        elif kind == "predict" and _core.get_anomaly_mode() is None:
            # Perhaps the same as before, but assigned anew.
            cached = cached.with_prediction_again(self.model, data)
        self._engines[kind] = cached
        return cached

    def _own(self) -> tuple[Any, ...]:
        """Return what a step depends on, besides the data."""
        options = self.l2, self.clip_grad_norm, _core.get_anomaly_mode()
        return self.model, self.loss, self.optimizer, *options

    def _compile(
        self,
        engine: _core.Engine,
        data: Samples,
        rows: int,
        *,
        trains: bool,
        accumulate: int = 1,
        placed: bool = False,
    ) -> None:
        # What does not fit float32 becomes infinite here as in the gather, which does not warn either.
        with np.errstate(over="ignore"):
            placeholders = [
                _core.tensor(np.ascontiguousarray(table[:rows]), dtype=dtype)
                for table, dtype in zip(data.tables, data.dtypes, strict=True)
            ]
        had_state = set(self.optimizer.state)
        parameters = []
        if trains:
            for options in self.optimizer.param_groups:
                self.optimizer.check_group(options)
            if not trained(self.optimizer):
                raise GraphError("trainer: none of the optimizer's parameters requires a gradient")
            for number, param in enumerate(trained(self.optimizer)):
                parameters.append((param, number, self.optimizer.state_tensors(param)))

        def step(batch: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> Any:
            scores = called(self.model, batch, "X")
            if not isinstance(scores, Tensor):
                raise ConfigError(f"model: expected it to return a Tensor, got {type(scores).__name__}")
            if scores.ndim == 0 or scores.shape[0] != rows:
                raise ShapeError(f"model: expected {rows} rows for {rows} samples, got shape {scores.shape}")
            self._score_shape, self._score_dtype = scores.shape[1:], scores.dtype
            if target is None:
                return scores, None
            self._check_labels(data, scores.shape[1:])
            learned = trained(self.optimizer)
            return scores, objective(self.loss, scores, target, weight, self.l2, learned)

        try:
            mode = in_mode(self.model, training=trains) if isinstance(self.model, Module) else nullcontext()
            # What a plan draws follows from its engine's key, whatever was drawn while it was recorded.
            with fork_rng(), mode:
                updated = engine.compile(
                    step,
                    placeholders,
                    parameters,
                    self.clip_grad_norm if trains else None,
                    whole=not self.optimizer.is_element_wise,
                    accumulate=accumulate,
                    placed=placed,
                )
                if trains:
                    self._updated = updated
        except BaseException:
            for param in set(self.optimizer.state) - had_state:
                del self.optimizer.state[param]
            raise

    def _dtype(self) -> _core.DType:
        params = [param for group in self.optimizer.param_groups for param in group["params"]]
        dtypes = {param.dtype for param in params}
        if len(dtypes) != 1:
            names = sorted(dtype.name for dtype in dtypes)
            raise ConfigError(f"optimizer: expected parameters of one dtype, got {names}")
        dtype: _core.DType = params[0].dtype
        return dtype

    # Data

    def _data(
        self,
        X: TensorLike,
        y: TensorLike | None,
        sample_weight: TensorLike | None,
        *,
        has_targets: bool = True,
        allow_empty: bool = False,
    ) -> Samples:
        found = inputs(X, self._dtype(), allow_empty=allow_empty)
        if has_targets:
            found = with_targets(found, y)
        if sample_weight is not None:
            if not isinstance(self.loss, Loss) or self.loss.reduction == "none":
                raise ConfigError(
                    "sample_weight: needs a loss of ferrograd.nn with reduction 'mean' or 'sum'"
                )
            found = with_weights(found, sample_weight)
        return found

    def _validation(self, data: Any) -> Samples | None:
        if data is None:
            return None
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise ConfigError("validation_data: expected a tuple (X, y) or (X, y, sample_weight)")
        return self._data(data[0], data[1], data[2] if len(data) == 3 else None)

    def _check_labels(self, data: Samples, score_shape: tuple[int, ...]) -> None:
        if is_of_labels(self.loss):
            check_labels(data, score_shape, ignored_label(self.loss))

    # Runs

    @staticmethod
    def _seed(seed: int | None) -> int:
        if seed is None:
            return int(_core.randint(0, 2**62, ()).item())
        check_int("seed", seed, low=0, high=2**64 - 1)
        return int(seed)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise GraphError("trainer: already fitting in another thread or callback")
        try:
            yield
        finally:
            self._lock.release()

    def _repeat(self, again: Any, *arguments: Any) -> Any:
        # A context costs as much as a small step.
        if self.n_threads is None:
            return again(*arguments)
        with threads(self.n_threads):
            return again(*arguments)
