"""`MLPClassifier`."""

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from ferrograd._typing import Array
from ferrograd.sklearn.activations import OUT_NAMES, Activation, refused
from ferrograd.sklearn.estimator import BaseMultilayerPerceptron, has_partial_fit
from ferrograd.sklearn.parameters import documented
from ferrograd.sklearn.restoring import unchanged_on_error
from ferrograd.sklearn.shortcuts import accuracy, are_plain, are_plain_labels, fit_binarizer

__all__ = ["MLPClassifier"]


def _has_probabilities(estimator: "MLPClassifier") -> bool:
    """Whether the loss makes probabilities; `AttributeError` says that it does not."""
    if estimator.loss != "log_loss":
        raise AttributeError(f"loss={estimator.loss!r} gives no probabilities, use decision_function")
    return True


def _has_margins(estimator: "MLPClassifier") -> bool:
    """Whether the loss makes margins; `AttributeError` says that it does not."""
    if estimator.loss == "log_loss":
        raise AttributeError("loss='log_loss' gives probabilities, use predict_proba")
    return True


@documented
class MLPClassifier(ClassifierMixin, BaseMultilayerPerceptron):
    """Multi-layer perceptron that minimizes the logarithmic loss; scikit-learn's class, trained natively.

    For the same `random_state` it has scikit-learn's initial weights and mini-batches and, in float64, its
    losses up to rounding. The loss of scores z is ``-log softmax(z)[y]`` for more than two classes, else
    ``-log sigmoid`` of z or -z summed over the outputs; gradient ``p - y``. What is reported is, as there,
    the loss of probabilities p clipped to between the dtype's epsilon and 1 minus it. A loss differs only
    where scikit-learn loses digits: where it takes a probability near 1 from 1.

    Parameters
    ----------
    {shared}
    loss : {'log_loss', 'hinge', 'squared_hinge'}, default='log_loss'
        With y of -1 and 1 and the score z of an output, 'hinge' is ``max(0, 1 - y * z)``, summed over the
        outputs; for more than two classes the sum of ``max(0, 1 + z[c] - z[y])`` over the other classes c.
        'squared_hinge' sums the squares. Both have `decision_function` in place of `predict_proba`.
    class_weight : dict, 'balanced' or None, default=None
        Factor of the loss of each class's rows, by class; one that is not named has 1. 'balanced' is
        ``n_samples / (n_classes * n_rows_of_the_class)``, not for `partial_fit`.
    {own}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    {fitted}

    Examples
    --------
    >>> import numpy as np
    >>> from ferrograd.sklearn import MLPClassifier
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> model = MLPClassifier((8,), solver="lbfgs", random_state=1).fit(X, ["no", "yes", "yes", "no"])
    >>> model.predict(X).tolist()
    ['no', 'yes', 'yes', 'no']

    Units of two pieces, scaled inputs, and a rate that rises and falls over all epochs:

    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_moons(n_samples=200, noise=0.1, seed=0)
    >>> options = {"activation": "maxout", "standardize": True, "lr_schedule": "onecycle"}
    >>> model = MLPClassifier((16,), **options, learning_rate_init=0.05, max_iter=100, random_state=0)
    >>> bool(model.fit(X, y).score(X, y) > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMultilayerPerceptron._parameter_constraints,
        "loss": [StrOptions({"log_loss", "hinge", "squared_hinge"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "out_activation": [StrOptions({"softmax", *OUT_NAMES}), tuple, None],
    }

    def __init__(
        self,
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
        loss: str = "log_loss",
        class_weight: Any = None,
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

    @available_if(has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Go on training for one epoch over the given data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or a label indicator matrix.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the samples' losses.
        classes : array of shape (n_classes,), default=None
            All classes that calls may bring; needed in the first call.

        Returns
        -------
        self : object
            The estimator. An error leaves it as it was.
        """
        with unchanged_on_error([self]):
            if _check_partial_fit_first_call(self, classes):
                self._label_binarizer = LabelBinarizer()
                self._label_binarizer.fit(y if type_of_target(y).startswith("multilabel") else classes)
            return self._fit(X, y, sample_weight, incremental=True)

    def _check_data(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> tuple[Any, Array, int]:
        X, y = self._check_pair(X, y, reset=reset)
        is_first = not hasattr(self, "classes_") or not (self.warm_start or incremental)
        if is_first:
            self._label_binarizer = fit_binarizer(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(np.unique(y) if are_plain_labels(y) else unique_labels(y))
        target = self._code(y, is_known=is_first or are_plain_labels(y))
        return X, target, len(self.classes_) if target.ndim == 1 else target.shape[1]

    def _check_held(self, X: Any, y: Any) -> tuple[Any, Array]:
        X, y = self._check_pair(X, y, reset=False)
        classes = unique_labels(y)
        if len(np.setdiff1d(classes, self.classes_)):
            raise ValueError(f"y_val: expected classes among {self.classes_}, got {classes}")
        return X, self._code(y, is_known=False)

    def _check_pair(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Array]:
        if are_plain(self, X, y, "iub", reset=reset):
            return X, y
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _code(self, y: Array, *, is_known: bool) -> Array:
        """Return labels as the loss takes them; those that are not known may be of a kind that is refused."""
        kind = self._label_binarizer.y_type_
        coded = None if is_known and kind in ("binary", "multiclass") else self._label_binarizer.transform(y)
        if kind == "multiclass":
            codes: Array = np.searchsorted(self.classes_, y) if coded is None else coded.argmax(1)
            return codes
        if coded is None:
            # Where there is but one class none is the second.
            coded = y == self.classes_[1] if len(self.classes_) > 1 else np.zeros(len(y), bool)
        matrix: Array = coded.astype(bool).reshape(len(coded), -1)
        return matrix

    def _check_classes(self, classes: Array) -> None:
        """Refuse classes that do not go with those of earlier calls."""
        if self.warm_start and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to "
                f"fit. Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {classes}."
            )

    def _is_multiclass(self) -> bool:
        return bool(self._label_binarizer.y_type_ == "multiclass")

    def _loss_name(self) -> str:
        if self.loss == "log_loss":
            return "softmax" if self._is_multiclass() else "logistic"
        return f"multiclass_{self.loss}" if self._is_multiclass() else str(self.loss)

    def _own_out_activation(self) -> str:
        if self.loss != "log_loss":
            return "identity"
        return "softmax" if self._is_multiclass() else "logistic"

    def _out_activations(self) -> tuple[str, ...]:
        # Probabilities have theirs; margins need both signs.
        return () if self.loss == "log_loss" else ("tanh", "leaky_relu", "elu", "selu", "gelu", "silu")

    def _stratify(self, target: Array) -> Array | None:
        return target if self.n_outputs_ == 1 else None

    def _given(self, target: Array) -> Array:
        return self.classes_[target] if target.ndim == 1 else self._decode(target)

    def _row_factors(self, target: Array, *, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight: expected a dict for partial_fit, which does not see all rows, got 'balanced'"
            )
        given = self.class_weight
        if isinstance(given, dict) and not all(
            isinstance(f, Real) and 0 <= float(f) < np.inf for f in given.values()
        ):
            expected = "'balanced' or a dict with finite factors of at least 0"
            raise refused(type(self).__name__, "class_weight", expected, given)
        factors: Array = compute_sample_weight(given, self._given(target))
        return factors

    def _decode(self, output: Array) -> Array:
        # Of probabilities, or of scores; a target is 0 or 1.
        threshold = 0.5 if self.out_activation_ in ("softmax", "logistic") else 0.0
        if self._is_multiclass():
            found: Array = self.classes_[output.argmax(1)]
        elif self.n_outputs_ == 1:
            # Where there is but one class it is the first.
            found = self.classes_[((output[:, 0] > threshold) & (len(self.classes_) > 1)).astype(np.intp)]
        else:
            found = self._label_binarizer.inverse_transform(output, threshold)
        return found

    def _metric(self, y: Array, predicted: Array, sample_weight: Array | None) -> float:
        return accuracy(y, predicted, sample_weight)

    @available_if(_has_margins)
    def decision_function(self, X: Any) -> Array:
        """Return the scores that the hinge losses are of.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Of two classes one score, above 0 for the second.
        """
        output = self._output(X)
        return output[:, 0] if self.n_outputs_ == 1 else output

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; for a label indicator matrix the probability of each label.
        """
        output = self._output(X)
        return np.hstack([1 - output, output]) if self.n_outputs_ == 1 else output

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the probabilities, finite also where a probability rounds to 0.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        check_is_fitted(self)
        pair = " pair" if self.n_outputs_ == 1 else ""
        return self._output(X, Activation(f"log {self.out_activation_}{pair}"))

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
