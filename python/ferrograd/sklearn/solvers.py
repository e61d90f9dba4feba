"""The solvers: native epochs of gradient descent and Adam, and SciPy's L-BFGS-B with the native gradient."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.optimize import _check_optimize_result

from ferrograd import _core, optim
from ferrograd._core import ConfigError
from ferrograd._typing import Array
from ferrograd.sklearn.activations import refused
from ferrograd.sklearn.callbacks import Tasks, Watchers
from ferrograd.sklearn.network import Fit, Task, parameters_of, tables
from ferrograd.sklearn.randomness import continued, is_native
from ferrograd.sklearn.schedules import Rates, schedule_of
from ferrograd.sklearn.turns import native

__all__ = ["Adam", "Data", "Sgd", "fit_lbfgs", "fit_stochastic"]


class Data(NamedTuple):
    """Checked inputs, targets as the loss takes them, and sample weights."""

    X: Any
    target: Array
    weight: Array | None

    @property
    def rows(self) -> int:
        """Number of samples."""
        return int(self.X.shape[0])

    def tables(self) -> list[Any]:
        """Return what the native side reads."""
        found = [tables(self.X), self.target]
        return found if self.weight is None else [*found, self.weight]


@dataclass
class Sgd:
    """What gradient descent keeps from call to call of `partial_fit`."""

    learning_rate_init: float
    schedule: str
    momentum: float
    nesterov: bool
    power_t: float
    weight_decay: float
    learning_rate: float
    velocities: list[Array]
    lr_schedule: dict[str, Any] | None = None

    @classmethod
    def of(cls, estimator: Any, parameters: Sequence[Array]) -> "Sgd":
        """Return the state before the first step."""
        rate = float(estimator.learning_rate_init)
        return cls(
            rate,
            estimator.learning_rate,
            float(estimator.momentum),
            bool(estimator.nesterovs_momentum),
            float(estimator.power_t),
            float(estimator.weight_decay),
            rate,
            [np.zeros_like(array) for array in parameters],
        )

    @property
    def states(self) -> list[list[Array]]:
        """Arrays that go with the parameters."""
        return [self.velocities] if self.momentum else []

    @property
    def rate(self) -> float:
        """The present rate."""
        return self.learning_rate

    @rate.setter
    def rate(self, value: float) -> None:
        self.learning_rate = value

    def rules(self) -> list[dict[str, Any]]:
        """Return the next step of weights and that of biases in the native form."""
        shared = {
            "kind": "sgd",
            "lr": self.learning_rate,
            "momentum": self.momentum,
            "dampening": 0.0,
            "nesterov": self.nesterov,
            "first_step": False,
            "velocity": True,
        }
        return [{**shared, "weight_decay": decay} for decay in (self.weight_decay, 0.0)]

    def falling(self, seen: int) -> tuple[float, float, int] | None:
        """Return how the rate falls after each epoch."""
        return (self.learning_rate_init, self.power_t, seen) if self.schedule == "invscaling" else None

    def advance(self, steps: int, seen: int | None, states: list[list[Array]]) -> None:
        """Take note of steps; of `seen` rows in all if an epoch has ended."""
        if states:
            [self.velocities] = states
        if seen is not None and self.schedule == "invscaling":
            self.learning_rate = self.learning_rate_init / (seen + 1) ** self.power_t

    def goes_on(self, message: str, verbose: Any) -> bool:
        """Whether training goes on, at a smaller rate, where it would have stopped."""
        if self.schedule == "adaptive" and self.learning_rate > 1e-6:
            self.learning_rate /= 5.0
            if verbose:
                print(f"{message} Setting learning rate to {self.learning_rate:f}")
            return True
        if verbose:
            print(
                message + (" Learning rate too small." if self.schedule == "adaptive" else "") + " Stopping."
            )
        return False


@dataclass
class Adam:
    """What Adam keeps from call to call of `partial_fit`."""

    learning_rate_init: float
    beta_1: float
    beta_2: float
    epsilon: float
    weight_decay: float
    t: int
    ms: list[Array]
    vs: list[Array]
    rate: float
    lr_schedule: dict[str, Any] | None = None

    @classmethod
    def of(cls, estimator: Any, parameters: Sequence[Array]) -> "Adam":
        """Return the state before the first step."""
        ms, vs = ([np.zeros_like(array) for array in parameters] for _ in range(2))
        names = "learning_rate_init", "beta_1", "beta_2", "epsilon", "weight_decay"
        rate, beta_1, beta_2, eps, decay = (float(getattr(estimator, name)) for name in names)
        return cls(rate, beta_1, beta_2, eps, decay, 0, ms, vs, rate)

    @property
    def states(self) -> list[list[Array]]:
        """Arrays that go with the parameters."""
        return [self.ms, self.vs]

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, corrections included."""
        if not self.t:
            return self.rate
        return self.rate * math.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)

    def rules(self) -> list[dict[str, Any]]:
        """Return the next step of weights and that of biases in the native form."""
        shared = {
            "kind": "adam",
            "lr": self.rate,
            "beta1": self.beta_1,
            "beta2": self.beta_2,
            "eps": self.epsilon,
            "decoupled": True,
            "eps_hat": True,
            "step": self.t + 1,
        }
        return [{**shared, "weight_decay": decay} for decay in (self.weight_decay, 0.0)]

    def falling(self, seen: int) -> None:
        """Return None: the rate has no schedule."""

    def advance(self, steps: int, seen: int | None, states: list[list[Array]]) -> None:
        """Take note of steps."""
        self.t += steps
        self.ms, self.vs = states

    def goes_on(self, message: str, verbose: Any) -> bool:
        """Return False: training stops."""
        if verbose:
            print(message + " Stopping.")
        return False


def _batch_size(estimator: Any, rows: int) -> int:
    if isinstance(estimator.batch_size, str):
        return min(200, rows)
    if estimator.batch_size > rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=4
        )
    return min(int(estimator.batch_size), rows)


def fit_stochastic(
    estimator: Any,
    task: Task,
    data: Data,
    *,
    incremental: bool,
    held: Data | None,
    validate: Callable[[], float] | None,
    tasks: Tasks | None,
) -> None:
    """Run the epochs, natively as long as nobody looks on.

    Parameters
    ----------
    estimator : BaseMultilayerPerceptron
        Its fitted attributes are updated after each epoch, or at the end where nobody looks on.
    task : Task
        The loss.
    data : Data
        The training rows.
    incremental : bool
        Whether to stop after one epoch and go on with the optimizer's state.
    held : Data, optional
        Rows whose loss is noted after each epoch.
    validate : callable, optional
        Returns the validation score of the present parameters, which then decides when to stop.
    tasks : Tasks, optional
        Told of each epoch; may stop.
    """
    task = task._replace(is_weighted=data.weight is not None)
    trained, others = parameters_of(estimator)
    parameters = trained + others
    if not incremental or not hasattr(estimator, "_optimizer"):
        kind: Any = Sgd if estimator.solver == "sgd" else Adam
        estimator._optimizer = kind.of(estimator, trained)
    optimizer: Sgd | Adam = estimator._optimizer
    batch = _batch_size(estimator, data.rows)
    sizes = sorted({batch, data.rows % batch or batch}, reverse=True)
    if task.layers.normalization == "batch" and 1 in sizes:
        raise ValueError(
            f"normalization: 'batch' needs two rows in each batch, got a last one of one row: {data.rows} "
            f"rows in batches of {batch}; choose another batch_size"
        )
    random_state = estimator._random_state
    fit = Fit.cached(
        estimator._predictions,
        task,
        parameters,
        len(optimizer.states),
        sizes,
        keep=incremental,
        seed=lambda: int(random_state.randint(2**31 - 1)),
    )
    fit.set(parameters, optimizer.states)
    patience = None
    if validate is None:
        # None where the last fit stopped early.
        best = math.inf if estimator.best_loss_ is None else estimator.best_loss_
        patience = (best, estimator._no_improvement_count, estimator.tol, float(estimator.n_iter_no_change))
    falling = optimizer.falling(estimator.t_)
    epochs = _core.Epochs(data.rows, batch, patience, falling, estimator.max_time)
    fit.engine.set_rules(optimizer.rules())
    draws_natively = estimator.shuffle and is_native(random_state)
    rates = None
    if estimator.callbacks or estimator.lr_schedule is not None or optimizer.lr_schedule is not None:
        rates = Rates(estimator, optimizer, fit.network.trained, -(-data.rows // batch))
    is_watched = bool(held or validate or tasks or estimator.verbose or incremental or estimator.callbacks)
    is_watched = is_watched or (rates is not None and rates.is_by_epoch)
    is_single = is_watched or (estimator.shuffle and not draws_natively)
    read = data.tables()
    loss_of_held = None if held is None else fit.losses_of(task, held.tables(), held.rows)

    def run(count: int) -> bool:
        before, done = fit.engine.steps_made, len(epochs.losses)
        try:
            if draws_natively:
                with continued(random_state) as generator, native():
                    return epochs.run(fit.engine, read, count, generator)
            if estimator.shuffle:
                order = np.arange(data.rows)
                random_state.shuffle(order)
                epochs.permute(order)
            with native():
                return epochs.run(fit.engine, read, count)
        except ConfigError as error:
            if "sample_weight" in str(error):
                raise ZeroDivisionError("Weights sum to zero, can't be normalized") from error
            raise
        finally:
            losses = epochs.losses[done:]
            estimator.loss_curve_.extend(losses)
            estimator.n_iter_ += len(losses)
            estimator.t_ += len(losses) * data.rows
            if losses:
                estimator.loss_ = losses[-1]
            if epochs.patience is not None:
                best, estimator._no_improvement_count = epochs.patience
                if losses:
                    estimator.best_loss_ = best
            fit.give(estimator)
            seen = estimator.t_ if losses else None
            made = fit.engine.steps_made - before
            optimizer.advance(made, seen, fit.state_arrays())
            if rates is not None:
                rates.advance(made)

    estimator.n_iter_ = 0
    moved = fit.network.parameters
    watchers = None if rates is None else Watchers(estimator, rates.optimizer, moved)
    try:
        while estimator.n_iter_ < estimator.max_iter:
            if tasks is not None:
                tasks.begin()
            if watchers is not None:
                watchers.begin(estimator.n_iter_)
            count = 1 if is_single else estimator.max_iter - estimator.n_iter_
            is_over = run(count if rates is None else rates.hand_over(fit.engine, count))
            if estimator.verbose:
                print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
            if loss_of_held is not None:
                with native():
                    loss = loss_of_held()
                estimator.validation_loss_curve_.append(loss)
            if validate is not None:
                is_over = _watch_score(estimator, validate())
            is_stopped = tasks is not None and tasks.end()
            if rates is not None and watchers is not None:
                logs = _logs(estimator, has_loss=held is not None, has_score=validate is not None)
                rates.follow(logs)
                is_stopped = watchers.end(estimator.n_iter_ - 1, logs) or is_stopped
                rates.take_over(fit.engine)
            if is_over:
                what = "Training loss" if validate is None else "Validation score"
                message = (
                    f"{what} did not improve more than tol={estimator.tol:f} "
                    f"for {estimator.n_iter_no_change} consecutive epochs."
                )
                if not optimizer.goes_on(message, estimator.verbose):
                    break
                estimator._no_improvement_count = 0
                if validate is None:
                    epochs.patience = (estimator.best_loss_, 0)
                fit.engine.set_rules(optimizer.rules())
            if incremental or is_stopped or epochs.is_late:
                break
            # A schedule over all epochs has been meant to see the last.
            if estimator.n_iter_ == estimator.max_iter and not (rates is not None and rates.is_by_batch):
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        is_spare = not (incremental or estimator.callbacks)
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=4)
        is_spare = False
    if watchers is not None:
        watchers.close()
        # They may have put the best weights back.
        fit.give(estimator)
    if is_spare:
        fit.spare()
    if validate is not None:
        estimator.coefs_ = estimator._best_coefs
        estimator.intercepts_ = estimator._best_intercepts
        if task.layers.normalization:
            estimator.normalizations_ = estimator._best_normalizations


def _logs(estimator: Any, *, has_loss: bool, has_score: bool) -> dict[str, float]:
    """Return what the last epoch has given, under the names that callbacks know."""
    logs = {"loss": estimator.loss_}
    if has_loss:
        logs["val_loss"] = estimator.validation_loss_curve_[-1]
    if has_score:
        logs["val_score"] = estimator.validation_scores_[-1]
    return logs


def _watch_score(estimator: Any, score: float) -> bool:
    """Take note of a validation score; whether it has not been better for long enough. It may be NaN."""
    estimator.validation_scores_.append(score)
    if estimator.verbose:
        print(f"Validation score: {score:f}")
    is_bad = score < estimator.best_validation_score_ + estimator.tol
    estimator._no_improvement_count = estimator._no_improvement_count + 1 if is_bad else 0
    if score > estimator.best_validation_score_:
        estimator.best_validation_score_ = score
        estimator._best_coefs = estimator.coefs_
        estimator._best_intercepts = estimator.intercepts_
        if hasattr(estimator, "normalizations_"):
            estimator._best_normalizations = estimator.normalizations_
    return bool(estimator._no_improvement_count > estimator.n_iter_no_change)


def fit_lbfgs(estimator: Any, task: Task, data: Data, tasks: Tasks | None) -> None:
    """Minimize with SciPy's L-BFGS-B; loss and gradient over all rows are native."""
    schedule_of(estimator)
    if task.layers.normalization == "batch":
        raise refused(type(estimator).__name__, "normalization", "None or 'layer' for 'lbfgs'", "batch")
    layers = task.layers._replace(dropout=())
    task = task._replace(layers=layers, is_weighted=data.weight is not None, clip_norm=None)
    parameters, others = parameters_of(estimator)
    fit = Fit(task, parameters + others, 0, [data.rows], whole=True)
    read = data.tables()

    end = math.inf if estimator.max_time is None else time.monotonic() + estimator.max_time
    watchers, made = None, 0
    if estimator.callbacks:
        watchers = Watchers(estimator, optim.SGD(fit.network.trained), fit.network.parameters)

    def evaluate(x: Array) -> tuple[float, Array]:
        with native():
            return _core.loss_and_gradient(fit.engine, x, read)

    def after_iteration(intermediate_result: Any) -> None:
        nonlocal made
        made += 1
        is_stopped = time.monotonic() > end
        if tasks is not None or watchers is not None:
            fit.put(intermediate_result.x)
            fit.give(estimator)
        if tasks is not None:
            is_stopped = tasks.end() or is_stopped
        if watchers is not None:
            is_stopped = watchers.end(made - 1, {"loss": float(intermediate_result.fun)}) or is_stopped
        if is_stopped:
            raise StopIteration
        if tasks is not None:
            tasks.begin()
        if watchers is not None:
            watchers.begin(made)

    if tasks is not None:
        tasks.begin()
    if watchers is not None:
        watchers.begin(0)
    result = scipy.optimize.minimize(
        evaluate,
        np.hstack([array.ravel() for array in parameters]),
        method="L-BFGS-B",
        jac=True,
        callback=after_iteration,
        options={"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol},
    )
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = float(result.fun)
    fit.put(result.x)
    if watchers is not None:
        watchers.close()
    fit.give(estimator)
