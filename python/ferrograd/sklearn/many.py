"""`fit_many`: independent fits side by side."""

import contextvars
import inspect
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from sklearn import config_context, get_config
from sklearn.utils import _safe_indexing, check_random_state

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError
from ferrograd.sklearn.estimator import BaseMultilayerPerceptron
from ferrograd.sklearn.restoring import unchanged_on_error
from ferrograd.sklearn.turns import Turn
from ferrograd.threads import threads

__all__ = ["fit_many"]

# How often Ctrl-C is looked for where a wait cannot be interrupted.
_PAUSE = 0.05

_ARGUMENTS = frozenset(inspect.signature(BaseMultilayerPerceptron.fit).parameters) - {"self"}
_BY_ROW = "X", "y", "sample_weight"


def fit_many(
    estimators: Sequence[Any],
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    rows: Sequence[Any] | None = None,
    fit_params: Sequence[Mapping[str, Any]] | None = None,
) -> list[Any]:
    """Fit estimators side by side to the same data; each gets what its own `fit` would give it, to the bit.

    For restarts, seeds, folds and grids. The estimators may differ in every parameter and in kind. With at
    least as many fits as threads (`ferrograd.set_num_threads`) each runs on one; fewer fits share the threads
    evenly. A fit's `n_threads` bounds its own share. Which threads run what changes no result, but for what
    `max_time` cuts short.

    Estimators that draw from one generator, by the same RandomState or by ``random_state=None``, are fitted
    one after the other in the order given, as own fits in a loop would draw; so are those with callbacks.
    Give numbers as `random_state` to have fits run at the same time. Scorers never run at the same time.

    Parameters
    ----------
    estimators : sequence of MLPClassifier and MLPRegressor
        What is fitted, in place. Each may occur once.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Inputs, which all fits share.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    sample_weight : array-like of shape (n_samples,), default=None
        Factors of the samples' losses.
    rows : sequence of {array-like, slice, None}, default=None
        For each estimator the rows that it is fitted to, as numbers or as a mask, with their y and
        sample_weight; None for all. They are copied while that fit runs.
    fit_params : sequence of dict, default=None
        For each estimator arguments of its `fit` in place of the shared ones or beside them, as
        ``{"y": ...}`` or ``{"X_val": ..., "y_val": ...}``. `rows` go for X, y and sample_weight in any case.

    Returns
    -------
    list
        The fitted estimators.

    Raises
    ------
    TypeError
        If something else is to be fitted.
    ConfigError
        If an estimator occurs twice, or an argument in `fit_params` is unknown.
    ShapeError
        If `rows` or `fit_params` has not one entry for each estimator.
    Exception
        What the fit of the first estimator that fails raises, with a note that tells its number. After an
        error, or Ctrl-C, no estimator has changed and no generator has moved.

    Examples
    --------
    >>> import numpy as np
    >>> from ferrograd.sklearn import MLPRegressor, fit_many
    >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> models = [MLPRegressor(solver="lbfgs", alpha=alpha, random_state=0) for alpha in (0.0, 0.1)]
    >>> folds = [np.arange(0, 30), np.arange(10, 40)]
    >>> [model.loss_ < 0.05 for model in fit_many(models, X, X[:, 0] ** 2, rows=folds)]
    [True, True]
    """
    models = list(estimators)
    _check(models)
    if type(X) is np.ndarray and X.dtype.kind in "iub":
        # What each fit would do first.
        X = X.astype(np.float64)
    shared = {"X": X, "y": y} if sample_weight is None else {"X": X, "y": y, "sample_weight": sample_weight}
    given = _each("fit_params", fit_params, len(models), {})
    for number, arguments in enumerate(given):
        if unknown := [name for name in arguments if name not in _ARGUMENTS]:
            known = ", ".join(sorted(_ARGUMENTS))
            raise ConfigError(f"fit_params[{number}]: expected arguments among {known}, got {unknown[0]!r}")
    arguments = [{**shared, **own} for own in given]
    places = _each("rows", rows, len(models), None)
    for number, model in enumerate(models):
        if not get_config()["skip_parameter_validation"]:
            with _noted(number):
                model._validate_params()
    generators = {id(found._bit_generator): found for model in models if (found := _generator(model))}
    with unchanged_on_error(models, list(generators.values())):
        _Fits(models, arguments, places).run()
    return models


def _check(models: list[Any]) -> None:
    seen: dict[int, int] = {}
    for number, model in enumerate(models):
        if not isinstance(model, BaseMultilayerPerceptron):
            kind = type(model).__name__
            raise TypeError(f"estimators[{number}]: expected an MLPClassifier or MLPRegressor, got {kind}")
        first = seen.setdefault(id(model), number)
        if first != number:
            raise ConfigError(f"estimators[{number}]: expected another estimator, got that of {first} again")


def _each(name: str, given: Any, count: int, default: Any) -> list[Any]:
    """Return an entry for each estimator."""
    found = [default] * count if given is None else list(given)
    if len(found) != count:
        raise ShapeError(f"{name}: expected {count} entries, one an estimator, got {len(found)}")
    return found


def _generator(model: BaseMultilayerPerceptron) -> np.random.RandomState | None:
    """Return the generator that others may draw from too."""
    is_own = isinstance(model.random_state, int | np.integer)
    return None if is_own else check_random_state(model.random_state)


def _chain(number: int, model: BaseMultilayerPerceptron) -> Any:
    """Return what is the same for those that cannot be fitted at the same time."""
    generator = _generator(model)
    return (number,) if generator is None else id(generator._bit_generator)


@contextmanager
def _noted(number: int) -> Iterator[None]:
    """Note an estimator's number on what is raised inside."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"fit_many: in the fit of estimators[{number}]")
        raise


class _Fits:
    """Fits in chains: those of a chain come one after the other, and each thread takes the next chain."""

    def __init__(
        self, models: list[BaseMultilayerPerceptron], arguments: list[dict[str, Any]], places: list[Any]
    ) -> None:
        self._models, self._arguments, self._places = models, arguments, places
        self._halts = [_core.Halt() for _ in models]
        self._turn, self._next = threading.Lock(), threading.Lock()
        self._began = self._ended = 0
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Of the first estimator that failed, so far.
        self._failed = len(models)
        self._error: BaseException | None = None
        chains: dict[Any, list[int]] = {}
        for number, model in enumerate(models):
            chains.setdefault(_chain(number, model), []).append(number)
        self._chains = list(_joined(chains.values(), models))
        self._waiting = iter(self._chains)

    def run(self) -> None:
        """Fit all of them."""
        if not self._chains:
            return
        count = _core.get_num_threads()
        share, config = max(1, count // len(self._chains)), get_config()
        anomaly_mode = _core.set_anomaly_mode(None)
        _core.set_anomaly_mode(anomaly_mode)

        def work() -> None:
            with self._next:
                self._began += 1
            try:
                # What settings a thread has of its own are those of the caller.
                _core.set_anomaly_mode(anomaly_mode)
                with config_context(**config), threads(share):
                    while (chain := self._take()) is not None:
                        for number in chain:
                            self._fit(number)
            finally:
                with self._next:
                    self._ended += 1
                self._wake.put(None)

        workers = [
            threading.Thread(target=contextvars.copy_context().run, args=(work,), name=f"ferrograd-fit-{n}")
            for n in range(min(count, len(self._chains)))
        ]
        try:
            for worker in workers:
                worker.start()
            self._wait(lambda: self._ended == len(workers))
        except BaseException:
            self._halt_after(-1)
            self._wait_for_those_that_began()
            raise
        if self._error is not None:
            raise self._error

    def _wait(self, is_over: Callable[[], bool]) -> None:
        # Not by joining: in Python 3.11 a thread counts as ended once Ctrl-C has interrupted the wait for it.
        while not is_over():
            with suppress(queue.Empty):
                self._wake.get(timeout=_PAUSE)

    def _wait_for_those_that_began(self) -> None:
        """Wait for threads that are about to end, whatever is raised meanwhile; others find nothing to do."""
        while True:
            try:
                return self._wait(lambda: self._ended == self._began)
            except BaseException:
                continue

    def _take(self) -> list[int] | None:
        with self._next:
            return next(self._waiting, None)

    def _fit(self, number: int) -> None:
        turn = Turn(self._turn, self._halts[number])
        try:
            with turn, _noted(number):
                turn.look()
                arguments = dict(self._arguments[number])
                place = self._places[number]
                if place is not None:
                    for name in _BY_ROW:
                        if arguments.get(name) is not None:
                            arguments[name] = _safe_indexing(arguments[name], place)
                self._models[number].fit(**arguments)
        except BaseException as error:
            with self._next:
                # One that was halted has failed after another one.
                if number < self._failed:
                    self._failed, self._error = number, error
            self._halt_after(number)

    def _halt_after(self, number: int) -> None:
        for halt in self._halts[number + 1 :]:
            halt.give()


def _joined(chains: Any, models: list[BaseMultilayerPerceptron]) -> Any:
    """Join the chains of estimators that have callbacks."""
    own = [number for number, model in enumerate(models) if hasattr(model, "_skl_callbacks")]
    watched = [chain for chain in chains if any(number in own for number in chain)]
    if watched:
        yield sorted(number for chain in watched for number in chain)
    yield from (chain for chain in chains if chain not in watched)
