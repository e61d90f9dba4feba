"""The native training loop: a model, a loss and an optimizer compiled to a plan that runs whole epochs."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from ferrograd import _core, checkpoint
from ferrograd._core import AnomalyError, ConfigError, GraphError, Tensor
from ferrograd._typing import Array, TensorLike
from ferrograd.anomaly import name_update
from ferrograd.callbacks import (
    Callback,
    ConvergenceWarning,
    EarlyStopping,
    History,
    WeightAveraging,
    notify,
    progress_bar,
)
from ferrograd.checks import as_list, check_bool, check_int, check_number
from ferrograd.compiled import trained
from ferrograd.nn.module import Module
from ferrograd.optim import Optimizer
from ferrograd.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from ferrograd.plan import Plan
from ferrograd.plans import Plans
from ferrograd.samples import (
    Samples,
    counts_classes,
)
from ferrograd.scheduling import check_schedule, rates_of, updates_of
from ferrograd.threads import MAX_THREADS, threads

if TYPE_CHECKING:
    from ferrograd.health import HealthReport

__all__ = ["Callback", "ConvergenceWarning", "EarlyStopping", "History", "Trainer", "WeightAveraging"]

# Rows that are predicted at a time: enough for the matrix products, little enough for the caches.
_PREDICT_ROWS = 1024


class Trainer(Plans):
    """Train a model natively: the step is traced once per batch shape, epochs run without Python.

    The model's Python code runs once while the step is traced. Its control flow is fixed then: what depends
    on values (``if x.sum() > 0``) keeps the branch of the traced batch.

    Parameters
    ----------
    model : Module or callable
        Called with a batch, a Tensor of shape ``(batch, ...)``; returns scores ``(batch, ...)``.
    loss : callable
        Called with ``(scores, targets)``; returns a scalar. Those of `ferrograd.nn` also take sample weights.
    optimizer : Optimizer
        Its parameters are trained; options that are changed between epochs are followed.
    l2 : float, default 0.0
        Adds ``l2 / 2 * sum(W ** 2)`` over the parameters of two or more dimensions (weights, not biases) to
        the loss; the gradient is ``l2 * W``.
    clip_grad_norm : float, optional
        Largest Euclidean norm of the whole gradient: a longer one is scaled down, as in PyTorch.
    n_threads : int, optional
        Threads of this trainer's runs, by default those of `ferrograd.set_num_threads`; no result changes.

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
            raise ConfigError(
                f"optimizer: expected an Optimizer of ferrograd.optim, got {type(optimizer).__name__}"
            )
        check_number("l2", l2, low=0.0)
        if clip_grad_norm is not None:
            check_number("clip_grad_norm", clip_grad_norm, low=0.0, open_low=True)
        if n_threads is not None:
            check_int("n_threads", n_threads, low=1, high=MAX_THREADS)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.l2 = float(l2)
        self.clip_grad_norm = clip_grad_norm
        self.n_threads = n_threads
        self.stop_training = False
        self._dtype()
        self._reset()

    # Training

    def fit(
        self,
        X: TensorLike,
        y: TensorLike,
        *,
        epochs: int = 10,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int | None = None,
        sample_weight: TensorLike | None = None,
        validation_data: tuple[TensorLike, TensorLike] | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | str = "auto",
        drop_last: bool = False,
        schedule: LRScheduler | None = None,
        accumulate: int = 1,
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
        schedule : LRScheduler, optional
            Sets the learning rate of this trainer's optimizer: stepped after each epoch, before the
            callbacks, or after each batch where it is of that kind (`OneCycleLR`, `CyclicLR`,
            `WarmupCosineLR`, or ``per_batch`` set); the rates of an epoch's batches are handed to the native
            loop as an array.
        accumulate : int, default 1
            Batches whose mean gradient makes an update. Where the loss is a mean over batches of one size, k
            of them are one batch of k times the size, up to rounding, in the memory of one; layers that mix
            rows, such as batch normalisation, see the small batches. An epoch ends with an update: the mean
            is over the batches that are left, all of one weight. `clip_grad_norm` limits the mean, and a
            schedule by batch is stepped after each update.

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
        AnomalyError
            In `anomaly_mode`, with epoch and batch; the model keeps the weights of the last whole step.

        Warns
        -----
        ConvergenceWarning
            If the loss becomes NaN or infinite. Training stops; the weights are those at the end of the
            finite epoch with the lowest loss, else the initial ones.
        """
        check_int("epochs", epochs, low=0)
        check_int("batch_size", batch_size, low=1)
        check_int("accumulate", accumulate, low=1)
        check_bool("shuffle", shuffle)
        check_bool("drop_last", drop_last)
        if not (isinstance(progress, bool) or progress == "auto"):
            raise ConfigError(f"progress: expected True, False or 'auto', got {progress!r}")
        data = self._data(X, y, sample_weight)
        validation = self._validation(validation_data)
        callbacks = as_list("callbacks", "objects of ferrograd.Callback", callbacks)
        for watcher in callbacks:
            if not isinstance(watcher, Callback):
                raise ConfigError(f"callbacks: expected objects of ferrograd.Callback, got {watcher!r}")
        batch = min(batch_size, data.rows)
        if accumulate > 1 and self.optimizer.evaluates_again:
            kind = type(self.optimizer).__name__
            raise ConfigError(f"accumulate: {kind} evaluates each batch several times, got {accumulate}")
        accumulate = min(accumulate, -(-data.rows // batch))
        updates = updates_of(data.rows, batch, drop_last, accumulate)
        check_schedule(schedule, self.optimizer, epochs, updates)
        with self._alone(), threads(self.n_threads):
            if validation is not None:
                # Data that do not fit are found before anything is changed.
                rows = min(_PREDICT_ROWS, validation.rows)
                with self._reading:
                    self._engine("evaluate", validation, rows, validation.rows % rows)
            seed = self._seed(seed)
            engine = _core.Engine(seed)
            sizes = {batch} if drop_last else {batch, data.rows % batch or batch}
            for rows in sorted(sizes, reverse=True):
                self._compile(engine, data, rows, trains=True, accumulate=accumulate)
            score_shape = self._score_shape
            has_accuracy = counts_classes(data, score_shape)
            if isinstance(schedule, ReduceLROnPlateau) and schedule.mode == "max" and not has_accuracy:
                raise ConfigError("schedule: mode 'max' needs an accuracy, and the targets are no classes")
            history = History()
            self._logs, self._diverged = history.history, None
            self._note(engine, data, batch, accumulate)
            watchers: list[Callback] = [*callbacks, history]
            bar = progress_bar(progress, epochs)
            self.stop_training = False
            best = checkpoint.Snapshot(self.optimizer, self.model)
            lowest = math.inf
            for watcher in watchers:
                watcher.set_trainer(self)
            with ExitStack() as stack:
                for finish in (bar.close, *(watcher.on_train_exit for watcher in watchers)):
                    stack.callback(finish)
                notify(watchers, "on_train_begin", {})
                for epoch in range(epochs):
                    notify(watchers, "on_epoch_begin", epoch, {})
                    order = (seed, epoch) if shuffle else None
                    with self._naming(epoch):
                        result = self._epoch(engine, data, batch, order, drop_last, schedule, updates)
                    loss, weight, correct, rows, diverged = result
                    if diverged is not None:
                        best.restore()
                        self._diverged = epoch, diverged[1]
                        self._warn_diverged(epoch, *diverged, kept=math.isfinite(lowest))
                        break
                    logs: dict[str, float] = {"loss": loss / weight if weight else math.nan}
                    if has_accuracy:
                        logs["accuracy"] = correct / rows if rows else math.nan
                    # Nothing goes back to the last epoch. An update of a finite epoch may overflow.
                    is_last = epoch == epochs - 1
                    if not is_last and logs["loss"] < lowest and _core.are_finite(trained(self.optimizer)):
                        lowest = logs["loss"]
                        best.take()
                    if validation is not None:
                        with self._naming(epoch, "validation batch"):
                            found = self._evaluate(validation, _PREDICT_ROWS)
                        logs.update({f"val_{name}": value for name, value in found.items()})
                    if schedule is not None and not schedule.per_batch:
                        schedule.follow(logs)
                    notify(watchers, "on_epoch_end", epoch, logs)
                    bar.update(logs)
                    if self.stop_training:
                        break
                notify(watchers, "on_train_end", {})
        return history

    def train_step(self, X: TensorLike, y: TensorLike) -> float:
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
        loss = self._step_again(X, y)
        if loss is None:
            loss = self._step(X, y)
        if not math.isfinite(loss):
            warnings.warn(f"the loss is {loss}; the step was not made", ConvergenceWarning, stacklevel=2)
        return loss

    def _step(self, X: TensorLike, y: TensorLike) -> float:
        data = self._data(X, y, None)
        with self._alone(), threads(self.n_threads):
            compiled = self._engine("train", data, data.rows)
            result = self._epoch(compiled.engine, data, data.rows, None, drop_last=False)
            self._note(compiled.engine, data, data.rows)
            # Now: what a step counts has been counted.
            self._engines["train"] = compiled.with_step_again(self._own(), data)
        loss, weight, _, _, diverged = result
        return loss / weight if diverged is None else diverged[1]

    def _step_again(self, X: TensorLike, y: TensorLike) -> float | None:
        """Make a step by the plan of the last one; None where that may be another's."""
        compiled = self._engines.get("train")
        if compiled is None or compiled.again is None or not self._lock.acquire(blocking=False):
            return None
        try:
            loss: float | None = self._repeat(compiled.again, X, y, self._own())
            return loss
        finally:
            self._lock.release()

    def _epoch(
        self,
        engine: _core.Engine,
        data: Samples,
        batch: int,
        order: tuple[int, int] | None,
        drop_last: bool,
        schedule: LRScheduler | None = None,
        updates: int = 1,
    ) -> tuple[float, float, int, int, tuple[int, float] | None]:
        """Run an epoch with the optimizer's present options, and count its steps in the optimizer's state."""
        for group in self.optimizer.param_groups:
            self.optimizer.check_group(group)
        params, rates = trained(self.optimizer), None
        if schedule is not None and schedule.per_batch:
            rates = rates_of(schedule, self.optimizer, updates)
        self.optimizer.hand_over(engine, params, rates)
        before = engine.updates_made
        try:
            return engine.epoch(data.tables, batch, 0, data.rows, order, None, drop_last)
        finally:
            made = engine.updates_made - before
            self.optimizer.take_back(engine, params, self._updated, made)
            if schedule is not None and schedule.per_batch:
                schedule.advance(made)

    @contextmanager
    def _naming(self, epoch: int, batch: str = "batch") -> Iterator[None]:
        """Add the epoch to an anomaly, and to that of an update the name of the parameter."""
        try:
            yield
        except AnomalyError as error:
            error.epoch = epoch
            if error.phase == "update":
                name_update(error, self.model, trained(self.optimizer))
            error.args = (f"epoch {epoch}, {batch} {error.batch}: {error.args[0]}",)
            raise

    def _warn_diverged(self, epoch: int, batch: int, loss: float, *, kept: bool) -> None:
        weights = "those of the epoch with the lowest loss" if kept else "the initial ones"
        warnings.warn(
            f"the loss became {loss} in epoch {epoch}, batch {batch}; training stopped, "
            f"the weights are {weights}. Try a smaller learning rate, "
            "scaled inputs (mean 0, variance 1), or clip_grad_norm",
            ConvergenceWarning,
            stacklevel=3,
        )

    def tensors(self) -> list[Tensor]:
        """Return what training moves: the optimizer's parameters, and the model's buffers."""
        buffers = list(self.model.buffers()) if isinstance(self.model, Module) else []
        return [*(param for group in self.optimizer.param_groups for param in group["params"]), *buffers]

    # Prediction and evaluation

    def predict(self, X: TensorLike, batch_size: int | None = None) -> Array:
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
            check_int("batch_size", batch_size, low=1)
        elif (scores := self._predict_again(X)) is not None:
            return scores
        data = self._data(X, None, None, has_targets=False, allow_empty=True)
        if data.rows == 0:
            return self._empty_prediction(data)
        batch = min(batch_size or _PREDICT_ROWS, data.rows)
        with self._reading, threads(self.n_threads):
            compiled = self._engine("predict", data, batch, data.rows % batch)
            return compiled.scores(data.tables, batch, data.rows)

    def _predict_again(self, X: TensorLike) -> Array | None:
        """Predict few rows by the plan of the last prediction; None where that may be another's."""
        compiled = self._engines.get("predict")
        if compiled is None or compiled.again is None or compiled.kept[0] is not self.model:
            return None
        with self._reading:
            scores: Array | None = self._repeat(compiled.again, X)
        return scores

    def evaluate(
        self,
        X: TensorLike,
        y: TensorLike,
        sample_weight: TensorLike | None = None,
        batch_size: int | None = None,
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
            check_int("batch_size", batch_size, low=1)
        data = self._data(X, y, sample_weight)
        with threads(self.n_threads):
            return self._evaluate(data, batch_size or _PREDICT_ROWS)

    def _evaluate(self, data: Samples, batch: int) -> dict[str, float]:
        batch = min(batch, data.rows)
        with self._reading:
            compiled = self._engine("evaluate", data, batch, data.rows % batch)
            loss, weight, correct, rows, diverged = compiled.engine.epoch(data.tables, batch, 0, data.rows)
        result = {"loss": diverged[1] if diverged is not None else loss / weight}
        if counts_classes(data, compiled.score_shape):
            result["accuracy"] = math.nan if diverged is not None else correct / rows
        return result

    def health(self, X: TensorLike | None = None, y: TensorLike | None = None) -> "HealthReport":
        """Look into the network at some rows: what is dead, what explodes, and what might help.

        Looked at are, after one forward and one backward pass on a copy in float64 and training mode (without
        what draws random numbers): the shares of ReLUs that are 0 for all rows, and of saturated sigmoids and
        tanhs; each parameter's gradient norm, and how far the next step would move it; the features' means
        and variances; and the trend of the last fit's losses. Nothing is changed. A callback may ask during
        the fit.

        Parameters
        ----------
        X, y : array_like, optional
            Inputs and targets as `fit` takes them; by default the first 256 rows of the last fit's.

        Returns
        -------
        HealthReport
            ``str()`` of it is a text with a hint for what is not well; ``to_dict()`` gives numbers.

        Raises
        ------
        ConfigError
            If there was no fit and no rows are given, or one of `X` and `y` is missing; or the model is no
            Module.
        ShapeError, DTypeError, LabelError, NonFiniteError
            If the data do not fit.

        Examples
        --------
        >>> import ferrograd as fg
        >>> model = fg.nn.Sequential(fg.nn.Linear(1, 8), fg.nn.Tanh(), fg.nn.Linear(8, 1))
        >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.001))
        >>> report = trainer.health([[300.0], [400.0]], [[0.3], [0.4]])
        >>> [finding.check for finding in report.findings if finding.hint]
        ['saturation', 'gradients', 'inputs']
        """
        from ferrograd.health import examine

        if (X is None) != (y is None):
            raise ConfigError(f"health: expected both X and y, or none, got no {'X' if X is None else 'y'}")
        samples = self._seen if X is None else self._data(X, y, None)
        if samples is None:
            raise ConfigError("health: X, y: expected rows to look at, as there was no fit of this trainer")
        with self._reading:
            losses, held = self._logs.get("loss", ()), self._logs.get("val_loss", ())
            return examine(self, samples, losses, held, self._diverged)

    @property
    def plan(self) -> Plan:
        """The training step that the last `fit` or `train_step` compiled; `ferrograd.draw` shows it.

        Raises
        ------
        GraphError
            If there was none.
        """
        if self._planned is None or self._seen is None:
            raise GraphError("plan: no step was compiled: call fit or train_step first")
        rows, instructions, accumulate = self._planned
        return Plan(rows, instructions, self, self._seen, accumulate)

    def clear_state(self) -> None:
        """Free the compiled steps with their memory; they are made anew where they are needed.

        Model and optimizer stay as they are.

        Raises
        ------
        GraphError
            If this trainer is fitting.
        """
        with self._alone(), self._reading:
            self._engines.clear()

    def _empty_prediction(self, data: Samples) -> Array:
        row = np.zeros((1, *data.tables[0].shape[1:]), data.tables[0].dtype)
        return self.predict(row)[:0]

    # Files

    def save(self, path: str | PathLike[str], schedule: LRScheduler | None = None) -> None:
        """Write the model's weights and the optimizer's state to a safetensors file, atomically.

        Parameters
        ----------
        path : path
            The file.
        schedule : LRScheduler, optional
            Its state is written too.

        Raises
        ------
        CheckpointError
            If the file cannot be written; an old one is then as it was.
        """
        checkpoint.save(path, self.model, self.optimizer, schedule)

    def load(self, path: str | PathLike[str], schedule: LRScheduler | None = None) -> None:
        """Take over weights and optimizer state that `save` wrote. All is checked before anything is changed.

        Parameters
        ----------
        path : path
            The file.
        schedule : LRScheduler, optional
            Takes over the state of the schedule that was written.

        Raises
        ------
        CorruptFileError
            If the file is damaged or no trainer wrote it.
        ConfigError, ShapeError
            If it belongs to another model, optimizer or schedule.
        """
        checkpoint.load(path, self.model, self.optimizer, schedule)
