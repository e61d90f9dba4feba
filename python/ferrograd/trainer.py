"""The native training loop: a model, a loss and an optimizer compiled to a plan that runs whole epochs."""

import json
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ferrograd import _core
from ferrograd._core import ConfigError, CorruptFileError, DTypeError, GraphError, LabelError, ShapeError, Tensor
from ferrograd.autograd import no_grad
from ferrograd.callbacks import Callback, ConvergenceWarning, EarlyStopping, History, progress_bar
from ferrograd.nn.losses import CrossEntropyLoss, Loss, MulticlassHingeLoss, MultiMarginLoss
from ferrograd.nn.module import Module
from ferrograd.optim import Optimizer

__all__ = ["Callback", "ConvergenceWarning", "EarlyStopping", "History", "Trainer"]

_Array: TypeAlias = npt.NDArray[Any]
_Table: TypeAlias = Tensor | npt.ArrayLike

# Rows that are predicted at a time: enough for the matrix products, little enough for the caches.
_PREDICT_ROWS = 1024

# The native side counts rows in 32 bits.
_MAX_ROWS = 2**32 - 1

# Losses whose integer targets are class numbers.
_LABEL_LOSSES = (CrossEntropyLoss, MultiMarginLoss, MulticlassHingeLoss)

# More threads than any machine of this kind has; each costs a stack.
_MAX_THREADS = 1024


class _Data(NamedTuple):
    """Checked arrays: inputs, targets and sample weights, in the order of the plan's placeholders."""

    tables: list[_Array]
    dtypes: list[_core.DType]

    @property
    def rows(self) -> int:
        return len(self.tables[0])


class _Compiled(NamedTuple):
    """An engine, what its steps depend on, and what the model returns for a sample.

    The key names objects by `id`; they are kept, so that no id is given to another object.
    """

    key: Any
    kept: list[Any]
    engine: _core.Engine
    score_shape: tuple[int, ...]
    score_dtype: _core.DType


class Trainer:
    """Train a model natively: the step is traced once per batch shape and compiled, epochs run without Python.

    The model's Python code runs once while the step is traced. Its control flow is fixed then: what depends
    on values (``if x.sum() > 0``) keeps the branch of the traced batch.

    Parameters
    ----------
    model : Module or callable
        Called with a batch, a Tensor of shape ``(batch, ...)``; returns the scores ``(batch, ...)``.
    loss : callable
        Called with ``(scores, targets)``; returns a scalar. A loss of `ferrograd.nn` also takes sample weights.
    optimizer : Optimizer
        Its parameters are trained; options that are changed between epochs are followed.
    l2 : float, default 0.0
        Adds ``l2 / 2 * sum(W ** 2)`` over the parameters of two or more dimensions (weights, not biases) to
        the loss; the gradient is ``l2 * W``.
    clip_grad_norm : float, optional
        Largest Euclidean norm of the whole gradient: a longer one is scaled down, as in PyTorch.
    n_threads : int, optional
        Threads of this trainer's runs; by default those of `ferrograd.set_num_threads`. Never changes a result.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the parameters differ in dtype.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_moons(n_samples=200, noise=0.1, seed=0)
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 16), fg.nn.Tanh(), fg.nn.Linear(16, 2))
    >>> trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.05))
    >>> history = trainer.fit(X, y, epochs=60, batch_size=32, seed=0)
    >>> trainer.evaluate(X, y)["accuracy"] > 0.95
    True
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Optimizer,
        *,
        l2: float = 0.0,
        clip_grad_norm: float | None = None,
        n_threads: int | None = None,
    ) -> None:
        if not callable(model):
            raise ConfigError(f"model: expected a Module or a callable, got {type(model).__name__}")
        if not callable(loss):
            raise ConfigError(f"loss: expected a callable, got {type(loss).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(f"optimizer: expected an Optimizer of ferrograd.optim, got {type(optimizer).__name__}")
        _check_number("l2", l2, low=0.0)
        if clip_grad_norm is not None:
            _check_number("clip_grad_norm", clip_grad_norm, low=0.0, open_low=True)
        if n_threads is not None:
            _check_int("n_threads", n_threads, low=1, high=_MAX_THREADS)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.l2 = float(l2)
        self.clip_grad_norm = clip_grad_norm
        self.n_threads = n_threads
        self.stop_training = False
        self._dtype()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # Predictions of several threads take turns; a callback of a fit may predict too.
        self._reading = threading.RLock()
        self._engines: dict[str, _Compiled] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled plans behind: they are made anew."""
        made_anew = ("_lock", "_reading", "_engines")
        return {key: value for key, value in self.__dict__.items() if key not in made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the state of a copy."""
        self.__dict__.update(state)
        self._reset()

    # Training

    def fit(
        self,
        X: _Table,
        y: _Table,
        *,
        epochs: int = 10,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int | None = None,
        sample_weight: _Table | None = None,
        validation_data: tuple[_Table, _Table] | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | str = "auto",
        drop_last: bool = False,
    ) -> History:
        """Train for a number of epochs. A second call continues with the weights and the optimizer's state.

        Parameters
        ----------
        X : array_like of shape (n_samples, ...)
            Inputs of any real dtype and any strides; read in place, converted row by row.
        y : array_like of shape (n_samples,) or (n_samples, ...)
            Integer class labels, or floating targets, as the loss expects.
        epochs : int, default 10
            Passes through the data.
        batch_size : int, default 64
            Samples per step; the last batch may be short.
        shuffle : bool, default True
            Whether each epoch has an order of its own.
        seed : int, optional
            Fixes orders and dropout masks; drawn from `manual_seed`'s generator by default.
        sample_weight : array_like of shape (n_samples,), optional
            Factors of the samples' losses; a batch's loss is divided by their sum.
        validation_data : tuple (X, y), optional
            Evaluated after each epoch: ``val_loss`` and, for classes, ``val_accuracy``.
        callbacks : sequence of Callback, default ()
            Called around the training and each epoch.
        progress : bool or "auto", default "auto"
            A bar (from tqdm) on standard error; "auto" shows one on a terminal or in a notebook only.
        drop_last : bool, default False
            Whether to leave out a last batch that is short.

        Returns
        -------
        History
            ``history["loss"]`` is the mean over samples of the batches' losses before their updates, penalty
            included; ``history["accuracy"]`` is there where targets are classes.

        Raises
        ------
        ShapeError, DTypeError, LabelError, NonFiniteError
            If the data do not fit; nothing was changed then.
        ConfigError
            If an option is out of range.
        GraphError
            If this trainer is already fitting in another thread or callback.
        KeyboardInterrupt
            On Ctrl-C; the model keeps the weights of the last whole step.

        Warns
        -----
        ConvergenceWarning
            If the loss becomes NaN or infinite. Training stops; the weights are those at the end of the
            finite epoch with the lowest loss, else the initial ones.
        """
        _check_int("epochs", epochs, low=0)
        _check_int("batch_size", batch_size, low=1)
        _check_bool("shuffle", shuffle)
        _check_bool("drop_last", drop_last)
        if not (isinstance(progress, bool) or progress == "auto"):
            raise ConfigError(f"progress: expected True, False or 'auto', got {progress!r}")
        data = self._data(X, y, sample_weight)
        validation = self._validation(validation_data)
        batch = min(batch_size, data.rows)
        with self._alone(), self._threads():
            if validation is not None:
                # Data that do not fit are found before anything is changed.
                self._validation_engine(validation)
            seed = self._seed(seed)
            engine = _core.Engine(seed)
            sizes = {batch} if drop_last else {batch, data.rows % batch or batch}
            for rows in sorted(sizes, reverse=True):
                self._compile(engine, data, rows, trains=True)
            score_shape = self._score_shape
            history = History()
            watchers: list[Callback] = [*callbacks, history]
            bar = progress_bar(progress, epochs)
            self.stop_training = False
            best = _Snapshot(self.optimizer)
            lowest = math.inf
            for watcher in watchers:
                watcher.set_trainer(self)
            try:
                self._notify(watchers, "on_train_begin", {})
                for epoch in range(epochs):
                    self._notify(watchers, "on_epoch_begin", epoch, {})
                    order = (seed, epoch) if shuffle else None
                    result = self._epoch(engine, data, batch, order, drop_last)
                    loss, weight, correct, rows, diverged = result
                    if diverged is not None:
                        best.restore()
                        self._warn_diverged(epoch, *diverged, kept=math.isfinite(lowest))
                        break
                    logs: dict[str, float] = {"loss": loss / weight if weight else math.nan}
                    if self._counts_classes(data, score_shape):
                        logs["accuracy"] = correct / rows if rows else math.nan
                    if logs["loss"] < lowest:
                        lowest = logs["loss"]
                        best.take()
                    if validation is not None:
                        found = self._evaluate(validation, _PREDICT_ROWS)
                        logs.update({f"val_{name}": value for name, value in found.items()})
                    self._notify(watchers, "on_epoch_end", epoch, logs)
                    bar.update(logs)
                    if self.stop_training:
                        break
                self._notify(watchers, "on_train_end", {})
            finally:
                bar.close()
        return history

    def train_step(self, X: _Table, y: _Table) -> float:
        """Make one update with the whole of `X` as a batch.

        Parameters
        ----------
        X : array_like of shape (batch, ...)
            Inputs.
        y : array_like of shape (batch,) or (batch, ...)
            Targets.

        Returns
        -------
        float
            The loss before the update, penalty included. If it is NaN or infinite there was no update, and a
            ConvergenceWarning is given.
        """
        data = self._data(X, y, None)
        with self._alone(), self._threads():
            engine = self._engine("train", data, data.rows).engine
            loss, weight, _, _, diverged = self._epoch(engine, data, data.rows, None, drop_last=False)
        if diverged is not None:
            warnings.warn(f"the loss is {diverged[1]}; the step was not made", ConvergenceWarning, stacklevel=2)
            return diverged[1]
        return loss / weight

    def _epoch(
        self, engine: _core.Engine, data: _Data, batch: int, order: tuple[int, int] | None, drop_last: bool
    ) -> tuple[float, float, int, int, tuple[int, float] | None]:
        """Run an epoch with the optimizer's present options, and count its steps in the optimizer's state."""
        groups = self.optimizer.param_groups
        for group in groups:
            self.optimizer.check_group(group)
        engine.set_rules([self.optimizer.rule(groups[group], step) for group, step in self._rules()])
        before = engine.steps_made
        try:
            return engine.epoch(data.tables, batch, 0, data.rows, order, None, drop_last)
        finally:
            made = engine.steps_made - before
            for param in self._trained():
                self.optimizer.count_steps(param, made)

    def _warn_diverged(self, epoch: int, batch: int, loss: float, *, kept: bool) -> None:
        weights = "those of the epoch with the lowest loss" if kept else "the initial ones"
        warnings.warn(
            f"the loss became {loss} in epoch {epoch}, batch {batch}; training stopped, the weights are {weights}. "
            "Try a smaller learning rate, scaled inputs (mean 0, variance 1), or clip_grad_norm",
            ConvergenceWarning,
            stacklevel=3,
        )

    @staticmethod
    def _notify(watchers: Iterable[Callback], event: str, *arguments: Any) -> None:
        for watcher in watchers:
            getattr(watcher, event)(*arguments)

    # Prediction and evaluation

    def predict(self, X: _Table, batch_size: int | None = None) -> _Array:
        """Return the model's scores in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, ...)
            Inputs.
        batch_size : int, optional
            Rows that are computed at a time; changes no result.

        Returns
        -------
        ndarray of shape (n_samples, ...)
            What the model returns; a row does not depend on the other rows.
        """
        if batch_size is not None:
            _check_int("batch_size", batch_size, low=1)
        data = self._data(X, None, None, has_targets=False, allow_empty=True)
        if data.rows == 0:
            return self._empty_prediction(data)
        batch = min(batch_size or _PREDICT_ROWS, data.rows)
        with self._reading, self._threads():
            compiled = self._engine("predict", data, batch, data.rows % batch)
            scores = _core.zeros((data.rows, *compiled.score_shape), dtype=compiled.score_dtype)
            compiled.engine.epoch(data.tables, batch, 0, data.rows, None, scores)
        return scores.numpy()

    def evaluate(
        self, X: _Table, y: _Table, sample_weight: _Table | None = None, batch_size: int | None = None
    ) -> dict[str, float]:
        """Return the loss and, where targets are classes, the accuracy, in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, ...)
            Inputs.
        y : array_like
            Targets.
        sample_weight : array_like of shape (n_samples,), optional
            Factors of the samples' losses.
        batch_size : int, optional
            Rows that are computed at a time.

        Returns
        -------
        dict
            ``"loss"``: mean over samples, penalty included; ``"accuracy"``: share of rows whose largest score
            is their label's.
        """
        if batch_size is not None:
            _check_int("batch_size", batch_size, low=1)
        data = self._data(X, y, sample_weight)
        with self._threads():
            return self._evaluate(data, batch_size or _PREDICT_ROWS)

    def _evaluate(self, data: _Data, batch: int) -> dict[str, float]:
        batch = min(batch, data.rows)
        with self._reading:
            compiled = self._engine("evaluate", data, batch, data.rows % batch)
            loss, weight, correct, rows, diverged = compiled.engine.epoch(data.tables, batch, 0, data.rows)
        result = {"loss": diverged[1] if diverged is not None else loss / weight}
        if self._counts_classes(data, compiled.score_shape):
            result["accuracy"] = math.nan if diverged is not None else correct / rows
        return result

    def _empty_prediction(self, data: _Data) -> _Array:
        row = np.zeros((1, *data.tables[0].shape[1:]), data.tables[0].dtype)
        return self.predict(row)[:0]

    # Compilation

    def _validation_engine(self, data: _Data) -> None:
        batch = min(_PREDICT_ROWS, data.rows)
        with self._reading:
            self._engine("evaluate", data, batch, data.rows % batch)

    def _engine(self, kind: str, data: _Data, *sizes: int) -> _Compiled:
        """Return the cached engine of a kind with steps for these batch sizes, compiled where needed."""
        trains = kind == "train"
        tables = [(table.shape[1:], dtype) for table, dtype in zip(*data, strict=True)]
        cached = self._engines.get(kind)
        key = (self._signature(), tables, self._places() if trains else None)
        if cached is not None and cached.key == key:
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
            key = (self._signature(), tables, self._places() if trains else None)
            modules = list(self.model.modules()) if isinstance(self.model, Module) else [self.model]
            params = list(self.model.parameters()) if isinstance(self.model, Module) else []
            kept = [*modules, *params, *self._trained(), *self._state_tensors()]
            cached = _Compiled(key, kept, engine, self._score_shape, self._score_dtype)
            self._engines[kind] = cached
        return cached

    def _state_tensors(self) -> list[Tensor]:
        states = (self.optimizer.state.get(param, {}) for param in self._trained())
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def _places(self) -> Any:
        """Return what a step keeps of the optimizer: the number of each parameter's rule, the buffers."""
        rules = self._rules()
        numbers = [rules.index(self._rule_key(param)) for param in self._trained()]
        return numbers, [id(value) for value in self._state_tensors()]

    def _signature(self) -> Any:
        """Return what a compiled step depends on."""
        if not isinstance(self.model, Module):
            return (id(self.model), [id(param) for param in self._trained()], repr(self.loss), self.l2)
        modules = [(id(module), module.training) for module in self.model.modules()]
        params = [(id(param), param.requires_grad, param.dtype) for param in self.model.parameters()]
        trained = [id(param) for param in self._trained()]
        return (modules, params, trained, repr(self.model), repr(self.loss), self.l2, self.clip_grad_norm)

    def _compile(self, engine: _core.Engine, data: _Data, rows: int, *, trains: bool) -> None:
        # What does not fit float32 becomes infinite here as in the gather, which does not warn either.
        with np.errstate(over="ignore"):
            inputs = [
                _core.tensor(np.ascontiguousarray(table[:rows]), dtype=dtype)
                for table, dtype in zip(data.tables, data.dtypes, strict=True)
            ]
        had_state = set(self.optimizer.state)
        parameters = []
        if trains:
            for options in self.optimizer.param_groups:
                self.optimizer.check_group(options)
            if not self._trained():
                raise GraphError("trainer: none of the optimizer's parameters requires a gradient")
            rules = self._rules()
            for param in self._trained():
                number = rules.index(self._rule_key(param))
                parameters.append((param, number, self.optimizer.state_tensors(param)))

        def step(batch: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> Any:
            scores = self.model(batch)
            if not isinstance(scores, Tensor):
                raise ConfigError(f"model: expected it to return a Tensor, got {type(scores).__name__}")
            if scores.ndim == 0 or scores.shape[0] != rows:
                raise ShapeError(f"model: expected {rows} rows for {rows} samples, got shape {scores.shape}")
            self._score_shape, self._score_dtype = scores.shape[1:], scores.dtype
            if target is None:
                return scores, None
            self._check_labels(data, scores.shape[1:])
            return scores, self._loss(scores, target, weight)

        try:
            with self._mode(training=trains):
                engine.compile(step, inputs, parameters, self.clip_grad_norm if trains else None)
        except BaseException:
            for param in set(self.optimizer.state) - had_state:
                del self.optimizer.state[param]
            raise

    def _loss(self, scores: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            loss = self.loss(scores, target)
        else:
            assert isinstance(self.loss, Loss)
            losses = self.loss.unreduced()(scores, target)
            by_sample = losses.flatten(1).mean(1) if losses.ndim > 1 else losses
            loss = (by_sample * weight).sum()
            if self.loss.reduction == "mean":
                # A batch without weight has loss 0, not 0 / 0.
                loss = loss / weight.sum().clamp(min=float(np.finfo(np.float32).tiny))
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ShapeError(f"loss: expected a scalar Tensor, got {got}; use reduction='mean' or 'sum'")
        if self.l2:
            for param in self._trained():
                if param.ndim >= 2:
                    loss = loss + param.square().sum() * (self.l2 / 2)
        return loss

    @contextmanager
    def _mode(self, *, training: bool) -> Iterator[None]:
        """Trace in training or evaluation mode, and leave every module in its own."""
        modules = list(self.model.modules()) if isinstance(self.model, Module) else []
        before = [module.training for module in modules]
        try:
            if isinstance(self.model, Module):
                self.model.train(training)
            yield
        finally:
            for module, mode in zip(modules, before, strict=True):
                module.training = mode

    # Parameters and their rules

    def _trained(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [param for group in groups for param in group["params"] if param.requires_grad]

    def _rule_key(self, param: Tensor) -> tuple[int, int]:
        for number, group in enumerate(self.optimizer.param_groups):
            if any(param is member for member in group["params"]):
                return number, self.optimizer.steps_of(param)
        raise ConfigError("optimizer: the parameter is in no group")

    def _rules(self) -> list[tuple[int, int]]:
        """Return (group, steps made) of the trained parameters, each once: a rule of the engine each."""
        return sorted({self._rule_key(param) for param in self._trained()})

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
        X: _Table,
        y: _Table | None,
        sample_weight: _Table | None,
        *,
        has_targets: bool = True,
        allow_empty: bool = False,
    ) -> _Data:
        inputs = _as_table("X", X)
        dtype = self._dtype()
        if inputs.ndim < 2:
            raise ShapeError(
                f"X: expected shape (n_samples, n_features), got {inputs.shape}; "
                "use X.reshape(-1, 1) for one feature or X.reshape(1, -1) for one sample"
            )
        if len(inputs) == 0 and not allow_empty:
            raise ShapeError(f"X: expected at least one sample, got shape {inputs.shape}")
        if len(inputs) > _MAX_ROWS:
            raise ConfigError(f"X: expected at most {_MAX_ROWS} rows, got {len(inputs)}")
        _core.check_finite(inputs, "X")
        tables, dtypes = [inputs], [dtype]
        if has_targets:
            targets = _as_table("y", y)
            if targets.ndim == 0 or len(targets) != len(inputs):
                raise ShapeError(f"y: expected {len(inputs)} rows, as X has, got shape {targets.shape}")
            _core.check_finite(targets, "y")
            if targets.dtype == np.uint64 and (targets > np.uint64(2**63 - 1)).any():
                row = int(np.argmax(targets.reshape(len(targets), -1).max(1)))
                raise LabelError(f"y: expected class labels below 2**63, got {targets[row]} in row {row}")
            tables.append(targets)
            dtypes.append(_core.int64 if targets.dtype.kind in "iub" else dtype)
        if sample_weight is not None:
            tables.append(self._weights(sample_weight, len(inputs)))
            dtypes.append(dtype)
        return _Data(tables, dtypes)

    def _weights(self, sample_weight: _Table, rows: int) -> _Array:
        if not isinstance(self.loss, Loss) or self.loss.reduction == "none":
            raise ConfigError("sample_weight: needs a loss of ferrograd.nn with reduction 'mean' or 'sum'")
        weights = _as_table("sample_weight", sample_weight)
        if weights.shape != (rows,):
            raise ShapeError(f"sample_weight: expected shape ({rows},), got {weights.shape}")
        _core.check_finite(weights, "sample_weight")
        if (weights < 0).any() or not (weights > 0).any():
            raise ConfigError("sample_weight: expected values of at least 0, not all of them 0")
        return weights

    def _validation(self, data: Any) -> _Data | None:
        if data is None:
            return None
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise ConfigError("validation_data: expected a tuple (X, y) or (X, y, sample_weight)")
        return self._data(data[0], data[1], data[2] if len(data) == 3 else None)

    def _check_labels(self, data: _Data, score_shape: tuple[int, ...]) -> None:
        """Name the first class label that the scores have no column for, where the loss takes labels."""
        if len(data.tables) < 2 or not isinstance(self.loss, _LABEL_LOSSES):
            return
        labels = data.tables[1]
        if data.dtypes[1] != _core.int64 or labels.ndim != 1 or len(score_shape) != 1:
            return
        ignored = getattr(self.loss, "ignore_index", None)
        outside = (labels < 0) | (labels >= score_shape[0])
        if ignored is not None:
            outside &= labels != ignored
        if outside.any():
            row = int(np.argmax(outside))
            allowed = f"0..{score_shape[0] - 1}"
            raise LabelError(f"y: expected class labels in {allowed}, got {labels[row]} in row {row}")

    def _counts_classes(self, data: _Data, score_shape: tuple[int, ...]) -> bool:
        has_labels = data.dtypes[1] == _core.int64 and data.tables[1].ndim == 1
        return has_labels and len(score_shape) == 1

    # Runs

    @staticmethod
    def _seed(seed: int | None) -> int:
        if seed is None:
            return int(_core.randint(0, 2**62, ()).item())
        _check_int("seed", seed, low=0, high=2**64 - 1)
        return int(seed)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise GraphError("trainer: already fitting in another thread or callback")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = _core.get_num_threads()
        if self.n_threads is not None:
            _core.set_num_threads(self.n_threads)
        try:
            yield
        finally:
            if self.n_threads is not None:
                _core.set_num_threads(before)

    # Files

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model's weights and the optimizer's state to a safetensors file, atomically.

        Raises
        ------
        CheckpointError
            If the file cannot be written; an old one is then as it was.
        """
        tensors = {f"model.{name}": value for name, value in self._model_state().items()}
        state = self.optimizer.state_dict()
        counts: dict[str, dict[str, int]] = {}
        for number, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{number}.{key}"] = value.detach()
                else:
                    counts.setdefault(str(number), {})[key] = value
        content = {"groups": state["param_groups"], "counts": counts, "kind": type(self.optimizer).__name__}
        _core.save_tensors(path, tensors, {"ferrograd.trainer": json.dumps(content)})

    def load(self, path: str | PathLike[str]) -> None:
        """Take over weights and optimizer state that `save` wrote. All is checked before anything is changed.

        Raises
        ------
        CorruptFileError
            If the file is damaged or no trainer wrote it.
        ConfigError, ShapeError
            If it belongs to another model or optimizer.
        """
        tensors, metadata = _core.load_tensors(path)
        try:
            content = json.loads(metadata["ferrograd.trainer"])
            groups, counts, kind = content["groups"], content["counts"], content["kind"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(f"{path}: no trainer's file") from error
        if kind != type(self.optimizer).__name__:
            raise ConfigError(f"{path}: written with the optimizer {kind}, got {type(self.optimizer).__name__}")
        weights: dict[str, Tensor] = {}
        state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part == "model":
                weights[rest] = value
            else:
                number, _, key = rest.partition(".")
                state.setdefault(int(number), {})[key] = value
        for number, entries in counts.items():
            state.setdefault(int(number), {}).update(entries)
        before = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"param_groups": groups, "state": state})
        try:
            self._load_model_state(weights)
        except Exception:
            self.optimizer.load_state_dict(before)
            raise

    def _model_state(self) -> dict[str, Tensor]:
        if isinstance(self.model, Module):
            return dict(self.model.state_dict())
        params = [param for group in self.optimizer.param_groups for param in group["params"]]
        return {str(number): param.detach() for number, param in enumerate(params)}

    def _load_model_state(self, weights: dict[str, Tensor]) -> None:
        if isinstance(self.model, Module):
            self.model.load_state_dict(weights)
            return
        own = self._model_state()
        if {name: value.shape for name, value in own.items()} != {k: v.shape for k, v in weights.items()}:
            raise ShapeError("load: the file's parameters differ from the optimizer's in number or shape")
        with no_grad():
            for name, value in own.items():
                value.copy_(weights[name])


class _Snapshot:
    """Parameters and optimizer state of the best epoch so far."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.take()

    def take(self) -> None:
        self.values = [(tensor, tensor.detach().clone()) for tensor in self._tensors()]
        params = [param for group in self.optimizer.param_groups for param in group["params"]]
        self.steps = [(param, self.optimizer.steps_of(param)) for param in params]

    def restore(self) -> None:
        with no_grad():
            for tensor, value in self.values:
                tensor.detach().copy_(value)
        for param, steps in self.steps:
            self.optimizer.count_steps(param, steps - self.optimizer.steps_of(param))

    def _tensors(self) -> list[Tensor]:
        params = [param for group in self.optimizer.param_groups for param in group["params"]]
        state = [tensor for param in params for tensor in self.optimizer.state_tensors(param)]
        return params + state


def _as_table(name: str, data: _Table | None) -> _Array:
    """Return data as an array of a real dtype whose rows the native side can read; a copy only if it must be."""
    if data is None:
        raise DTypeError(f"{name}: expected an array, got None")
    if isinstance(data, Tensor):
        return data.numpy()
    if hasattr(data, "toarray") and hasattr(data, "nnz"):
        raise DTypeError(f"{name}: expected a dense array, got a sparse matrix; use {name}.toarray()")
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"{name}: expected rows of equal length; {error}") from error
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise ConfigError(f"{name}: masked elements have no value; fill them with .filled(value)")
    if array.dtype.kind == "O":
        try:
            is_integer = all(isinstance(value, int | np.integer) for value in array.flat)
            array = array.astype(np.int64 if is_integer else np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DTypeError(f"{name}: expected real numbers, got objects; {error}") from error
    if array.dtype.kind not in "biuf":
        hint = "; encode classes as integers, as numpy.unique(y, return_inverse=True) does" if name == "y" else ""
        raise DTypeError(f"{name}: expected real numbers, got dtype {array.dtype}{hint}")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim > 2 and not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array


def _check_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name}: expected an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        bound = f"at least {low}" if high is None or value < low else f"at most {high}"
        raise ConfigError(f"{name}: expected {bound}, got {value}")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name}: expected True or False, got {value!r}")


def _check_number(name: str, value: Any, low: float, *, open_low: bool = False) -> None:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < low or (open_low and value == low):
        bound = f"above {low:g}" if open_low else f"of at least {low:g}"
        raise ConfigError(f"{name}: expected a finite number {bound}, got {value!r}")
