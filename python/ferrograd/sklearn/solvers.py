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

from ferrograd import _core
from ferrograd._core import ConfigError
from ferrograd._typing import Array
from ferrograd.sklearn.callbacks import Tasks
from ferrograd.sklearn.network import Fit, Task, tables
from ferrograd.sklearn.randomness import continued, is_native
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

    @classmethod
    def of(cls, estimator: Any, parameters: Sequence[Array]) -> "Adam":
        """Return the state before the first step."""
        ms, vs = ([np.zeros_like(array) for array in parameters] for _ in range(2))
        names = "learning_rate_init", "beta_1", "beta_2", "epsilon", "weight_decay"
        rate, beta_1, beta_2, eps, decay = (float(getattr(estimator, name)) for name in names)
        return cls(rate, beta_1, beta_2, eps, decay, 0, ms, vs)

    @property
    def states(self) -> list[list[Array]]:
        """Arrays that go with the parameters."""
        return [self.ms, self.vs]

    @property
    def learning_rate(self) -> float:
        """The rate of the last step, corrections included."""
        if not self.t:
            return self.learning_rate_init
        return self.learning_rate_init * math.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)

    def rules(self) -> list[dict[str, Any]]:
        """Return the next step of weights and that of biases in the native form."""
        shared = {
            "kind": "adam",
            "lr": self.learning_rate_init,
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
    parameters = [*estimator.coefs_, *estimator.intercepts_]
    if not incremental or not hasattr(estimator, "_optimizer"):
        kind: Any = Sgd if estimator.solver == "sgd" else Adam
        estimator._optimizer = kind.of(estimator, parameters)
    optimizer: Sgd | Adam = estimator._optimizer
    batch = _batch_size(estimator, data.rows)
    sizes = sorted({batch, data.rows % batch or batch}, reverse=True)
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
    is_watched = bool(held or validate or tasks or estimator.verbose or incremental)
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
            optimizer.advance(fit.engine.steps_made - before, seen, fit.state_arrays())

    estimator.n_iter_ = 0
    try:
        while estimator.n_iter_ < estimator.max_iter:
            if tasks is not None:
                tasks.begin()
            is_over = run(1 if is_single else estimator.max_iter - estimator.n_iter_)
            if estimator.verbose:
                print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
            if loss_of_held is not None:
                with native():
                    loss = loss_of_held()
                estimator.validation_loss_curve_.append(loss)
            if validate is not None:
                is_over = _watch_score(estimator, validate())
            is_stopped = tasks is not None and tasks.end()
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
            if estimator.n_iter_ == estimator.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=4,
                )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=4)
    if validate is not None:
        estimator.coefs_ = estimator._best_coefs
        estimator.intercepts_ = estimator._best_intercepts


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
    return bool(estimator._no_improvement_count > estimator.n_iter_no_change)


def fit_lbfgs(estimator: Any, task: Task, data: Data, tasks: Tasks | None) -> None:
    """Minimize with SciPy's L-BFGS-B; loss and gradient over all rows are native."""
    task = task._replace(is_weighted=data.weight is not None, clip_norm=None, dropout=())
    parameters = [*estimator.coefs_, *estimator.intercepts_]
    fit = Fit(task, parameters, 0, [data.rows], whole=True)
    read = data.tables()

    end = math.inf if estimator.max_time is None else time.monotonic() + estimator.max_time

    def evaluate(x: Array) -> tuple[float, Array]:
        with native():
            return _core.loss_and_gradient(fit.engine, x, read)

    def after_iteration(x: Array) -> None:
        if tasks is not None:
            fit.put(x)
            fit.give(estimator)
            if tasks.end():
                raise StopIteration
            tasks.begin()
        if time.monotonic() > end:
            raise StopIteration

    if tasks is not None:
        tasks.begin()
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
    fit.give(estimator)
