"""What the classifier and the regressor share: parameters, checks and the flow of a fit."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ferrograd._typing import Array
from ferrograd.sklearn.activations import OUT_NAMES, Activation, Out, activations, out_activation, refused
from ferrograd.sklearn.callbacks import CallbackSupportMixin, Tasks, check_callbacks, release
from ferrograd.sklearn.conversion import ConversionMixin
from ferrograd.sklearn.inspection import InspectionMixin
from ferrograd.sklearn.network import Layers, Predictions, Task, normalizations, parameters_of
from ferrograd.sklearn.randomness import uniform_of
from ferrograd.sklearn.restoring import unchanged_on_error
from ferrograd.sklearn.shortcuts import ShortcutMixin
from ferrograd.sklearn.solvers import Data, fit_lbfgs, fit_stochastic
from ferrograd.sklearn.storage import StorageMixin
from ferrograd.sklearn.turns import native
from ferrograd.threads import MAX_THREADS, threads

__all__ = ["STOCHASTIC", "BaseMultilayerPerceptron", "has_partial_fit"]

STOCHASTIC = ("sgd", "adam")


def has_partial_fit(estimator: "BaseMultilayerPerceptron") -> bool:
    """Whether the solver can go on from call to call; `AttributeError` says that it cannot."""
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


def _given(name: str, given: Any, number: int, depth: int, shape: tuple[int, ...]) -> Array:
    """Return the initial parameter of a layer, checked."""
    if len(given) != depth:
        raise ValueError(f"{name}: expected {depth} arrays, one a layer, got {len(given)}")
    try:
        values = np.asarray(given[number], float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}[{number}]: expected numbers of shape {shape}; {error}") from None
    if values.shape != shape or not np.isfinite(values).all():
        got = f"shape {values.shape}" if values.shape != shape else "NaN or infinity"
        raise ValueError(f"{name}[{number}]: expected finite values of shape {shape}, got {got}")
    return values


def _data(X: Any, target: Array, weight: Array | None, factors: Array | None) -> Data:
    if factors is not None:
        weight = factors if weight is None else weight * factors
    return Data(X, target, weight)


class BaseMultilayerPerceptron(
    ConversionMixin, InspectionMixin, StorageMixin, CallbackSupportMixin, ShortcutMixin, ABC
):
    """Base of `MLPClassifier` and `MLPRegressor`."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        # What they hold is looked at when the number of layers is known.
        "activation": [str, tuple, list],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dtype": [StrOptions({"float32", "float64"}), Options(type, {np.float32, np.float64}), None],
        "coefs_init": [list, tuple, None],
        "intercepts_init": [list, tuple, None],
        "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "early_stopping_metric": [StrOptions({"loss", *get_scorer_names()}), callable, None],
        "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "n_threads": [Interval(Integral, 1, MAX_THREADS, closed="both"), None],
        "normalization": [StrOptions({"batch", "layer"}), None],
        "out_activation": [StrOptions(set(OUT_NAMES)), tuple, None],
        "l1": [Interval(Real, 0, None, closed="left")],
        "standardize": ["boolean"],
        # Their names and options are looked at in `schedule_of`.
        "lr_schedule": [str, tuple, None],
        "callbacks": [list, tuple, None],
    }

    def _assign(self, arguments: dict[str, Any]) -> None:
        """Set each parameter to the constructor's argument; a subclass may have other parameters."""
        self.__dict__.update((name, value) for name, value in arguments.items() if name != "self")

    # What a subclass defines

    @abstractmethod
    def _check_data(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> tuple[Any, Array, int]:
        """Return checked inputs, targets as the loss takes them, and the number of the network's outputs."""

    @abstractmethod
    def _check_held(self, X: Any, y: Any) -> tuple[Any, Array]:
        """Return checked validation data, targets as the loss takes them."""

    @abstractmethod
    def _loss_name(self) -> str:
        """Return the loss that the output activation goes with."""

    def _loss_options(self) -> dict[str, Any]:
        """Return the loss's parameters."""
        return {}

    @abstractmethod
    def _own_out_activation(self) -> str:
        """Return the name of the output activation that goes with the loss."""

    @abstractmethod
    def _out_activations(self) -> tuple[str, ...]:
        """Return the names of those that the loss can be of."""

    @abstractmethod
    def _decode(self, output: Array) -> Array:
        """Turn the network's output into predictions."""

    @abstractmethod
    def _metric(self, y: Array, predicted: Array, sample_weight: Array | None) -> float:
        """Return the score that early stopping watches."""

    def _given(self, target: Array) -> Array:
        """Return targets in the form of predictions."""
        return self._decode(target)

    def _row_factors(self, target: Array, *, incremental: bool) -> Array | None:
        """Return factors of the rows' losses in training."""
        return None

    def _stratify(self, target: Array) -> Array | None:
        """Return what a split keeps in proportion."""
        return None

    def _validate_params(self) -> None:
        super()._validate_params()
        given = self.activation
        activations(type(self).__name__, given, len(given) if isinstance(given, list) else 1)

    # Fitting

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the model to data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs. Rows of a sparse matrix are filled in batch by batch.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, a label indicator matrix, or numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the samples' losses; a batch's loss is divided by their sum.
        X_val, y_val, sample_weight_val : as X, y and sample_weight, default=None
            Validation data, for 'sgd' and 'adam': `validation_loss_curve_` holds their loss after each epoch,
            without penalty; `early_stopping` goes by them in place of rows set aside.

        Returns
        -------
        self : object
            The fitted estimator. An error leaves it as it was.
        """
        return self._fit(X, y, sample_weight, incremental=False, held=(X_val, y_val, sample_weight_val))

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool, held: tuple[Any, ...] = (None,) * 3
    ) -> Self:
        tasks = None
        if hasattr(self, "_skl_callbacks"):
            # An iteration of lbfgs is seen at its end, when the next one may have begun or not.
            epochs = 1 if incremental else self.max_iter + (self.solver == "lbfgs")
            tasks = Tasks(self, X, y, sample_weight, epochs=epochs)
        try:
            with unchanged_on_error([self]), threads(self.n_threads):
                self._fit_data(X, y, sample_weight, held, incremental=incremental, tasks=tasks)
        finally:
            release(self)
        return self

    def _fit_data(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        held: tuple[Any, ...],
        *,
        incremental: bool,
        tasks: Tasks | None,
    ) -> None:
        hidden = self._hidden()
        check_callbacks(self)
        is_first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, target, outputs = self._check_data(X, y, incremental=incremental, reset=is_first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        validation = self._held(*held)
        if validation is not None and validation.target.shape[1:] != target.shape[1:]:
            columns = [part.shape[1:] or (1,) for part in (target, validation.target)]
            raise ValueError(f"y_val: expected {columns[0][0]} columns, as y has, got {columns[1][0]}")
        self._random_state = check_random_state(self.random_state)
        self._predictions = self.__dict__.get("_predictions") or Predictions()
        if is_first:
            self._initialize([X.shape[1], *hidden, outputs], np.dtype(self.dtype or X.dtype))
        else:
            self._check_as_before(outputs)
        self.n_outputs_ = outputs
        task = self._task()
        weights = sample_weight, self._row_factors(target, incremental=incremental)
        if self.solver == "lbfgs":
            self._take_scale(X, sample_weight)
            fit_lbfgs(self, task, _data(X, target, *weights), tasks)
        else:
            self._fit_epochs(task, X, target, weights, validation, incremental=incremental, tasks=tasks)
        if tasks is not None:
            tasks.close()
        if not all(np.isfinite(array).all() for arrays in parameters_of(self) for array in arrays):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and "
                "need to be preprocessed."
            )

    def _hidden(self) -> list[int]:
        """Return the widths of the hidden layers."""
        given = self.hidden_layer_sizes
        try:
            hidden = np.atleast_1d(given).tolist() if np.size(given) else []
        except ValueError:
            raise ValueError(f"hidden_layer_sizes: expected integers, got {given!r}") from None
        if not all(isinstance(width, Integral) and not isinstance(width, bool) for width in hidden):
            raise TypeError(f"hidden_layer_sizes: expected integers, got {given!r}")
        if any(width <= 0 for width in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        return hidden

    def _initialize(self, widths: list[int], dtype: Any) -> None:
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(widths)
        self.out_activation_ = self._out_activation()
        self.coefs_: list[Array] = []
        self.intercepts_: list[Array] = []
        kinds = activations(type(self).__name__, self.activation, len(widths) - 2)
        with uniform_of(self._random_state) as uniform:
            for number, (inputs, outputs) in enumerate(pairwise(widths)):
                # The output layer is drawn as the last hidden one.
                name = kinds[min(number, len(kinds) - 1)].name if kinds else str(self.activation)
                bound = np.sqrt((2.0 if name == "logistic" else 6.0) / (inputs + outputs))
                columns = outputs * (kinds[number].pieces if number < len(kinds) else 1)
                for init, found, shape in (
                    ("coefs_init", self.coefs_, (inputs, columns)),
                    ("intercepts_init", self.intercepts_, (columns,)),
                ):
                    given = getattr(self, init)
                    if given is None:
                        values = uniform(-bound, bound, shape)
                    else:
                        values = _given(init, given, number, len(widths) - 1, shape)
                    found.append(values.astype(dtype, copy=given is not None))
        for name in ("normalizations_", "_best_normalizations", "mean_", "scale_"):
            self.__dict__.pop(name, None)
        if self.normalization is not None:
            self.normalizations_ = normalizations(self.normalization, widths[1:-1], dtype)
            self._best_normalizations = self.normalizations_
        self._best_coefs, self._best_intercepts = self.coefs_, self.intercepts_
        if self.solver in STOCHASTIC:
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None
            self.best_loss_ = None if self.early_stopping else np.inf
            self.__dict__.pop("validation_loss_curve_", None)

    def _task(self) -> Task:
        return Task(
            self._layers()._replace(is_standardized=bool(self.standardize), dropout=self._dropout()),
            self._loss_name(),
            float(self.alpha),
            float(self.l1),
            bool(getattr(self, "correct_multioutput", False)),
            None if self.clip_norm is None else float(self.clip_norm),
            None if self.out_activation_ == self._own_out_activation() else self._out(),
            **self._loss_options(),
        )

    def _out_activation(self) -> Out:
        given, own = self.out_activation, self._own_out_activation()
        if given is None:
            return own
        # In that order, and each once.
        names = dict.fromkeys((own, *self._out_activations()))
        name, options = out_activation(type(self).__name__, given, names)
        return (name, dict(options)) if options else name

    def _out(self) -> Activation:
        """Return what `out_activation_` says."""
        known = self.out_activation_
        name, options = (known, {}) if isinstance(known, str) else known
        return Activation(name, tuple(sorted(options.items())))

    def _layers(self) -> Layers:
        """Return the fitted network's layers, without dropout."""
        kinds = activations(type(self).__name__, self.activation, len(self.coefs_) - 1)
        norms = self.__dict__.get("normalizations_")
        kind = None if not norms else "batch" if "running_mean" in norms[0] else "layer"
        return Layers(kinds, kind, "scale_" in self.__dict__)

    def _check_as_before(self, outputs: int) -> None:
        """Refuse what does not go with the arrays of the last fit."""
        layers = self._layers()
        normalization = self.normalization if layers.activations else None
        for name, got, known in (
            ("y", f"{outputs} outputs", f"{self.coefs_[-1].shape[1]} outputs"),
            ("normalization", repr(normalization), repr(layers.normalization)),
            ("standardize", bool(self.standardize), layers.is_standardized),
            ("out_activation", self._out_activation(), self.out_activation_),
        ):
            if got != known:
                raise ValueError(f"{name}: expected {known}, as in the last fit, got {got}")
        for number, kind in enumerate(layers.activations):
            columns, units = self.coefs_[number].shape[1], self.coefs_[number + 1].shape[0]
            if columns != units * kind.pieces:
                raise ValueError(
                    f"activation: expected {columns // units} columns to a unit of layer {number}, as in the "
                    f"last fit, got {kind.pieces}"
                )

    def _take_scale(self, X: Any, weight: Array | None) -> None:
        """Keep mean and scale of the first rows that are trained on, if they are to be standardized."""
        if not self.standardize or hasattr(self, "scale_"):
            return
        is_dense = isinstance(X, np.ndarray)
        if not is_dense and not X.has_canonical_format:
            # It takes an element's several entries for elements.
            X = X.copy()
            X.sum_duplicates()
        with np.errstate(all="ignore"):
            # Of sparse rows it finds the means too; batches are centred when they are dense.
            scaler = StandardScaler(with_mean=is_dense).fit(X, sample_weight=weight)
        if not np.isfinite(scaler.scale_).all():
            [column, *_] = np.flatnonzero(~np.isfinite(scaler.scale_))
            raise ValueError(f"standardize: expected a finite variance in X, got none in column {column}")
        dtype = self.coefs_[0].dtype
        self.mean_ = scaler.mean_.astype(dtype)
        self.scale_ = scaler.scale_.astype(dtype)

    def _dropout(self) -> tuple[float, ...]:
        hidden, each = len(self.coefs_) - 1, self.dropout
        each = list(each) if isinstance(each, list | tuple) else [each] * hidden
        if len(each) != hidden or not all(isinstance(p, Real) and 0 <= float(p) < 1 for p in each):
            expected = f"a number in [0, 1) or a list of {hidden} of them, one for each hidden layer"
            raise refused(type(self).__name__, "dropout", expected, self.dropout)
        found = float(self.input_dropout), *map(float, each)
        return found if any(found) else ()

    def _held(self, X: Any, y: Any, weight: Any) -> Data | None:
        """Return checked validation data that were given."""
        if X is None and y is None and weight is None:
            return None
        if X is None or y is None:
            raise ValueError("X_val, y_val: expected both for validation data, got one of them as None")
        try:
            X, target = self._check_held(X, y)
            return Data(X, target, None if weight is None else _check_sample_weight(weight, X))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"validation data X_val, y_val, sample_weight_val: {error}") from error

    def _fit_epochs(
        self,
        task: Task,
        X: Any,
        target: Array,
        weights: tuple[Array | None, Array | None],
        given: Data | None,
        *,
        incremental: bool,
        tasks: Tasks | None,
    ) -> None:
        held, validate = given, None
        if self.early_stopping:
            if incremental:
                raise ValueError("partial_fit does not support early_stopping=True")
            if held is None:
                parts = train_test_split(
                    *(table for table in (X, target, *weights) if table is not None),
                    random_state=self._random_state,
                    test_size=self.validation_fraction,
                    stratify=self._stratify(target),
                )
                train, rest = iter(parts[::2]), iter(parts[1::2])
                X, target = next(train), next(train)
                held = Data(next(rest), next(rest), None if weights[0] is None else next(rest))
                first, second = (None if table is None else next(train) for table in weights)
                weights = first, second
            if held.rows < 2:
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' or the size of your "
                    "dataset."
                )
            validate = self._score_of(held)
        if given is None and self._stopping_metric() != "loss":
            held = None
        if held is not None and not hasattr(self, "validation_loss_curve_"):
            self.validation_loss_curve_: list[float] = []
        self._take_scale(X, weights[0])
        fit_stochastic(
            self,
            task,
            _data(X, target, *weights),
            incremental=incremental,
            held=held,
            validate=validate,
            tasks=tasks,
        )

    def _stopping_metric(self) -> Any:
        return self.early_stopping_metric

    def _score_of(self, held: Data) -> Callable[[], float]:
        """Return what computes the score by which training stops early."""
        given = self._given(held.target)
        metric = self._stopping_metric()
        if metric == "loss":
            return lambda: -self.validation_loss_curve_[-1]
        if metric is not None:
            scorer = check_scoring(self, metric)
            weight = {} if held.weight is None else {"sample_weight": held.weight}

            def score() -> float:
                # The rows were checked, and have lost their names.
                nameless = copy.copy(self)
                nameless.__dict__.pop("feature_names_in_", None)
                return float(scorer(nameless, held.X, given, **weight))

            return score

        def validate() -> float:
            # A diverged network has no score.
            with np.errstate(all="ignore"):
                with native():
                    output = self._output(held.X, is_checked=True)
                predicted = self._decode(output)
            if np.issubdtype(predicted.dtype, np.floating) and not np.isfinite(predicted).all():
                return float("nan")
            return self._metric(given, predicted, held.weight)

        return validate

    # Prediction

    def _output(self, X: Any, out: Activation | None = None, *, is_checked: bool = False) -> Array:
        """Return what the network gives for rows: by default that of the output activation."""
        if not is_checked:
            is_plain = (
                type(X) is np.ndarray
                and X.ndim == 2
                and X.dtype.char in "fd"
                and X.dtype.isnative
                and "coefs_" in self.__dict__
                and "feature_names_in_" not in self.__dict__
                and X.shape[0] > 0
                and X.shape[1] == self.n_features_in_
            )
            if is_plain and (found := self._run(X, out, is_checked=False)) is not None:
                return found
            check_is_fitted(self)
            X = self._check_rows(X)
        found = self._run(X, out, is_checked=True)
        assert found is not None
        return found

    def _check_rows(self, X: Any) -> Any:
        """Return rows of a fitted network, checked, as the native side reads them."""
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        dtype = X.dtype.newbyteorder("=")
        if dtype.kind == "f" and dtype.char not in "fd":
            dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
        return X.astype(dtype, copy=False)

    def _run(self, X: Any, out: Activation | None, *, is_checked: bool) -> Array | None:
        predictions = self.__dict__.get("_predictions") or Predictions()
        trained, others = parameters_of(self)
        out = out or self._out()
        with threads(self.n_threads):
            return predictions(X, trained + others, self._layers(), out, self.dtype, is_checked=is_checked)

    def predict(self, X: Any) -> Array:
        """Predict with the fitted network.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes, or numbers. A row's prediction does not depend on the other rows.
        """
        # The order of the scores is that of their softmax.
        is_softmax = self.__dict__.get("out_activation_") == "softmax"
        return self._decode(self._output(X, Activation("identity") if is_softmax else None))

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
