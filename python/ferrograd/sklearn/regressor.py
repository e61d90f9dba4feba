"""`MLPRegressor`."""

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ferrograd._core import DTypeError
from ferrograd._typing import Array
from ferrograd.sklearn.activations import OUT_NAMES, refused
from ferrograd.sklearn.estimator import BaseMultilayerPerceptron, has_partial_fit
from ferrograd.sklearn.parameters import documented
from ferrograd.sklearn.shortcuts import are_plain, r_squared

__all__ = ["MLPRegressor"]


@documented
class MLPRegressor(RegressorMixin, BaseMultilayerPerceptron):
    """Multi-layer perceptron for numbers; scikit-learn's class, trained natively.

    For the same `random_state` it has scikit-learn's initial weights and mini-batches and, in float64, its
    losses up to rounding. With z the output and y the target, 'squared_error' is ``(z - y) ** 2 / 2``,
    gradient ``z - y``; 'poisson' is half the deviance of the prediction ``exp(z)``,
    ``y * log(y) - y * z - y + exp(z)``, gradient ``exp(z) - y``.

    With several outputs scikit-learn reports the mean of the squared errors over the outputs but goes down
    the gradient of their sum. So does this class, unless `correct_multioutput` is set.

    Parameters
    ----------
    loss : {'squared_error', 'poisson', 'absolute_error', 'huber', 'quantile'}, default='squared_error'
        What is minimized. The last three are not scikit-learn's; with d the output less the target they are
        ``abs(d)``, ``d ** 2 / 2`` or beyond `huber_delta` ``huber_delta * (abs(d) - huber_delta / 2)``, and
        ``q * abs(d)`` below the target, ``(1 - q) * abs(d)`` above it; means over several outputs.
    {shared}
    correct_multioutput : bool, default=False
        Whether the gradient of the squared error is that of the loss that is reported: divided by the number
        of outputs.
    huber_delta : float, default=1.0
        Where 'huber' turns from a parabola into a line.
    quantile : float or list of float, default=0.5
        For 'quantile': q, above 0 and below 1. With a list `predict` gives a column for each, y has one, and
        `early_stopping` goes by the loss.
    {own}

    Attributes
    ----------
    {fitted}

    Examples
    --------
    >>> import numpy as np
    >>> from ferrograd.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> bool(model.score(X, X[:, 0] ** 2) > 0.99)
    True

    Predictions above 0, and training that ends with the best weights by validation data:

    >>> import ferrograd as fg
    >>> y = np.exp(3 * X[:, 0])
    >>> stop = fg.EarlyStopping(patience=20, restore_best_weights=True)
    >>> options = {"out_activation": "softplus", "callbacks": [stop], "learning_rate_init": 0.02}
    >>> model = MLPRegressor(**options, max_iter=2000, n_iter_no_change=np.inf, random_state=0)
    >>> model = model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    >>> model.n_iter_ == stop.stopped_epoch + 1, bool(model.predict(X).min() > 0)
    (True, True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMultilayerPerceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson", "absolute_error", "huber", "quantile"})],
        "huber_delta": [Interval(Real, 0, None, closed="neither")],
        "quantile": [Interval(Real, 0, 1, closed="neither"), list, tuple],
        "correct_multioutput": ["boolean"],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        correct_multioutput: bool = False,
        huber_delta: float = 1.0,
        quantile: Any = 0.5,
        dropout: Any = 0.0,
        input_dropout: float = 0.0,
        weight_decay: float = 0.0,
        early_stopping_metric: Any = None,
        dtype: Any = None,
        coefs_init: Any = None,
        intercepts_init: Any = None,
        clip_norm: float | None = None,
        max_time: float | None = None,
        n_threads: int | None = None,
        normalization: str | None = None,
        out_activation: Any = None,
        l1: float = 0.0,
        standardize: bool = False,
        lr_schedule: Any = None,
        callbacks: Any = None,
    ) -> None:
        self._assign(locals())

    def _validate_params(self) -> None:
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            if isinstance(self.loss, str):
                raise
            hint = "The first argument is the loss; write hidden_layer_sizes=... for the widths."
            raise InvalidParameterError(f"{error} {hint}") from None

    @available_if(has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Go on training for one epoch over the given data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the samples' losses.

        Returns
        -------
        self : object
            The estimator. An error leaves it as it was.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_data(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> tuple[Any, Array, int]:
        if not are_plain(self, X, y, "iuf", reset=reset):
            X, y = validate_data(
                self,
                X,
                y,
                accept_sparse=["csr", "csc"],
                multi_output=True,
                y_numeric=True,
                dtype=(np.float64, np.float32),
                reset=reset,
            )
            y = y.toarray() if issparse(y) else y
            if y.dtype.kind not in "biuf":
                raise DTypeError(f"y: expected real numbers, got dtype {y.dtype}")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = y.reshape(len(y), -1)
        if self._has_list() and y.shape[1] != 1:
            raise ValueError(f"y: expected one output for several quantiles, got {y.shape[1]}")
        return X, y, len(self._quantiles()) if self._has_list() else y.shape[1]

    def _check_held(self, X: Any, y: Any) -> tuple[Any, Array]:
        X, target, _ = self._check_data(X, y, incremental=True, reset=False)
        return X, target

    def _loss_options(self) -> dict[str, Any]:
        if self.loss != "quantile":
            return {"huber_delta": float(self.huber_delta)}
        return {"quantiles": self._quantiles() if self._has_list() else float(self.quantile)}

    def _has_list(self) -> bool:
        return self.loss == "quantile" and isinstance(self.quantile, list | tuple)

    def _quantiles(self) -> tuple[float, ...]:
        found = self.quantile
        if not found or not all(isinstance(q, Real) and 0 < float(q) < 1 for q in found):
            expected = "a number above 0 and below 1 or a list of them"
            raise refused(type(self).__name__, "quantile", expected, found)
        return tuple(map(float, found))

    def _stopping_metric(self) -> Any:
        return "loss" if self._has_list() else self.early_stopping_metric

    def _loss_name(self) -> str:
        return str(self.loss)

    def _own_out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _out_activations(self) -> tuple[str, ...]:
        # A mean of counts is above 0.
        return ("logistic", "softplus") if self.loss == "poisson" else OUT_NAMES

    def _decode(self, output: Array) -> Array:
        return output.ravel() if output.shape[1] == 1 else output

    def _metric(self, y: Array, predicted: Array, sample_weight: Array | None) -> float:
        return r_squared(y, predicted, sample_weight)
