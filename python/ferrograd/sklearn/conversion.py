"""Estimators from and to scikit-learn's own."""

import copy
import inspect
from typing import Any, Self

from sklearn import neural_network
from sklearn.base import ClassifierMixin
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.utils._param_validation import InvalidParameterError

from ferrograd._core import ConfigError
from ferrograd.sklearn.inspection import folded
from ferrograd.sklearn.solvers import Adam, Sgd

__all__ = ["STATE", "ConversionMixin", "kind_of"]

# What a fit leaves that predictions, `partial_fit` and `warm_start` go by, besides the optimizer. The
# generator is not among it: each fit makes it anew from `random_state`.
STATE = (
    "coefs_",
    "intercepts_",
    "n_features_in_",
    "feature_names_in_",
    "n_outputs_",
    "n_layers_",
    "n_iter_",
    "t_",
    "out_activation_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "classes_",
    "_label_binarizer",
    "_no_improvement_count",
    "_best_coefs",
    "_best_intercepts",
    "normalizations_",
    "_best_normalizations",
    "mean_",
    "scale_",
)


def kind_of(cls: type) -> str:
    """Return the name of the class, here and in scikit-learn, that a class is or derives from."""
    return "MLPClassifier" if issubclass(cls, ClassifierMixin) else "MLPRegressor"


def _state(estimator: Any) -> dict[str, Any]:
    """Return copies of fitted attributes."""
    # One by one: where two names held the same arrays, scikit-learn's next fit would change the best weights
    # along with the present ones.
    return {name: copy.deepcopy(vars(estimator)[name]) for name in STATE if name in vars(estimator)}


def _to_theirs(optimizer: Sgd | Adam, parameters: list[Any]) -> Any:
    if isinstance(optimizer, Adam):
        adam = AdamOptimizer(
            parameters, optimizer.rate, optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        )
        adam.t, adam.ms, adam.vs = optimizer.t, *copy.deepcopy((optimizer.ms, optimizer.vs))
        return adam
    sgd = SGDOptimizer(
        parameters,
        optimizer.learning_rate_init,
        optimizer.schedule,
        optimizer.momentum,
        optimizer.nesterov,
        optimizer.power_t,
    )
    sgd.learning_rate, sgd.velocities = optimizer.learning_rate, copy.deepcopy(optimizer.velocities)
    return sgd


def _to_ours(optimizer: Any) -> Sgd | Adam:
    if isinstance(optimizer, AdamOptimizer):
        return Adam(
            float(optimizer.learning_rate_init),
            float(optimizer.beta_1),
            float(optimizer.beta_2),
            float(optimizer.epsilon),
            0.0,
            int(optimizer.t),
            copy.deepcopy(optimizer.ms),
            copy.deepcopy(optimizer.vs),
            float(optimizer.learning_rate_init),
        )
    return Sgd(
        float(optimizer.learning_rate_init),
        optimizer.lr_schedule,
        float(optimizer.momentum),
        bool(optimizer.nesterov),
        float(optimizer.power_t),
        0.0,
        float(optimizer.learning_rate),
        copy.deepcopy(optimizer.velocities),
    )


class ConversionMixin:
    """The methods of an estimator that exchange it with scikit-learn's."""

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator of the same parameters, fitted if this one is.

        Returns
        -------
        sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
            With copies of parameters and fitted attributes. Its predictions are the same up to rounding, and
            `partial_fit` and `warm_start` go on from here as they would have in this one: the optimizer's
            state is taken along. What does not change results, `n_threads`, is left behind, and so are
            callbacks and `validation_loss_curve_`. What `standardize` does is put into the first layer; there
            further training then goes another way, from rows as they are, with a new optimizer.

        Raises
        ------
        ConfigError
            If a parameter that scikit-learn does not have is not at its default (`standardize`: of an
            estimator that is not fitted), or a value is none of scikit-learn's; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from ferrograd.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
        >>> theirs = model.to_sklearn()
        >>> type(theirs).__module__.partition(".")[0], bool(np.allclose(theirs.predict(X), model.predict(X)))
        ('sklearn', True)
        """
        found = getattr(neural_network, kind_of(type(self)))()
        known, estimator = found.get_params(deep=False), dict(vars(self))
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value, default = estimator[name], parameter.default
            is_default = value is default or (isinstance(value, int | float | str) and value == default)
            is_left = name in ("n_threads", "callbacks") or (name == "standardize" and "scale_" in estimator)
            if name not in known and not is_left and not is_default:
                raise ConfigError(
                    f"to_sklearn: {name}: expected {default!r}, as scikit-learn's {type(found).__name__} has "
                    f"no such parameter, got {value!r}"
                )
        found.set_params(**{name: copy.deepcopy(estimator[name]) for name in known})
        try:
            found._validate_params()
        except InvalidParameterError as error:
            raise ConfigError(f"to_sklearn: {error}") from None
        vars(found).update(_state(self))
        if "scale_" in estimator:
            found.coefs_, found.intercepts_ = folded(self)
            found._best_coefs, found._best_intercepts = folded(self)
            del found.mean_, found.scale_
        elif "_optimizer" in estimator:
            parameters = [*found.coefs_, *found.intercepts_]
            found._optimizer = _to_theirs(estimator["_optimizer"], parameters)
        return found

    @classmethod
    def from_sklearn(cls, est: Any) -> Self:
        """Return an estimator of the parameters of scikit-learn's, fitted if that one is.

        Parameters
        ----------
        est : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
            The one that has this class's name. It stays as it is.

        Returns
        -------
        MLPClassifier or MLPRegressor
            With copies of parameters and fitted attributes. Its predictions are the same up to rounding, and
            `partial_fit` and `warm_start` go on from here as they would have in `est`: the optimizer's state
            is taken along. Callbacks are not. Only a second fit with both `warm_start` and `early_stopping`
            may differ: scikit-learn then changes the best weights of the first along with the present ones.

        Raises
        ------
        ConfigError
            If `est` is of another class, or a subclass of it has a parameter that this class does not have.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn import neural_network
        >>> from ferrograd.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> theirs = neural_network.MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", random_state=0)
        >>> model = MLPRegressor.from_sklearn(theirs.fit(X, X[:, 0] ** 2))
        >>> bool(np.allclose(theirs.predict(X), model.predict(X)))
        True
        """
        expected = getattr(neural_network, kind_of(cls))
        if not isinstance(est, expected):
            got = f"{type(est).__module__}.{type(est).__name__}"
            raise ConfigError(
                f"from_sklearn: est: expected an sklearn.neural_network.{expected.__name__}, got {got}"
            )
        given = est.get_params(deep=False)
        unknown = sorted(given.keys() - inspect.signature(cls).parameters.keys())
        if unknown:
            raise ConfigError(f"from_sklearn: est: {cls.__name__} has no parameter {unknown[0]!r}")
        found = cls(**copy.deepcopy(given))
        vars(found).update(_state(est))
        if hasattr(est, "_optimizer"):
            vars(found)["_optimizer"] = _to_ours(est._optimizer)
        return found
