"""A model with its data and its loss, copied in double precision: what reports look into."""

import copy
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ferrograd import _core, nn
from ferrograd._core import ConfigError, GraphError, Tensor
from ferrograd._typing import Array, TensorLike
from ferrograd.compiled import ignored_label, is_of_labels, trained
from ferrograd.nn.module import Module
from ferrograd.objective import objective
from ferrograd.samples import Samples, called, check_labels, inputs, with_targets, with_weights
from ferrograd.trainer import Trainer

__all__ = ["Problem", "is_of_scikit_learn", "problem_of"]

# They draw random numbers in training: with them no value has a derivative.
_RANDOM = (nn.Dropout, nn.AlphaDropout, nn.GaussianNoise, nn.RReLU)


class Problem(NamedTuple):
    """A loss of parameters, all of them copies in float64.

    Attributes
    ----------
    name : str
        The class of the model.
    model : Module or None
        The copy, if there is one.
    parameters : dict of str to Tensor
        What the loss is differentiated by.
    scores : callable
        Computes what the model gives for the data.
    loss : callable
        Computes the loss of those scores at the parameters.
    data : tuple of Tensor
        Inputs and targets.
    """

    name: str
    model: Module | None
    parameters: dict[str, Tensor]
    scores: Callable[[], Tensor]
    loss: Callable[[Tensor], Tensor]
    data: tuple[Tensor, ...]


def is_of_scikit_learn(model: Any) -> bool:
    """Whether it is an MLP of scikit-learn itself."""
    networks = sys.modules.get("sklearn.neural_network")
    return networks is not None and isinstance(model, networks.MLPClassifier | networks.MLPRegressor)


def problem_of(
    owner: str,
    model: Any,
    X: TensorLike,
    y: TensorLike,
    loss: Any,
    *,
    trains: bool,
    sample_weight: Array | None = None,
) -> Problem:
    """Return the problem of a Module with a loss, a Trainer, or an estimator of ours.

    Without `trains` it is in evaluation mode, and so are, in any case, layers that draw random numbers. Only
    a Trainer takes sample weights.
    """
    if isinstance(model, Module):
        if not callable(loss):
            got = "none" if loss is None else type(loss).__name__
            raise ConfigError(f"{owner}: loss: expected a callable for a Module, as it has none, got {got}")
        params: list[Tensor] = [param for param in model.parameters() if param.requires_grad]
        return _of_module(owner, model, loss, params, 0.0, X, y, None, trains=trains)
    estimators = sys.modules.get("ferrograd.sklearn")
    is_ours = estimators is not None and isinstance(model, estimators.MLPClassifier | estimators.MLPRegressor)
    if loss is not None and (is_ours or isinstance(model, Trainer) or is_of_scikit_learn(model)):
        raise ConfigError(f"{owner}: loss: {type(model).__name__} brings its own, pass none")
    if isinstance(model, Trainer):
        if not isinstance(model.model, Module):
            kind = type(model.model).__name__
            raise ConfigError(f"{owner}: model: expected a trainer of a Module, got one of {kind}")
        of_optimizer = trained(model.optimizer)
        own = model.model, model.loss, of_optimizer, model.l2
        return _of_module(owner, *own, X, y, sample_weight, trains=trains)
    if is_ours:
        return _of_estimator(model, X, y, trains=trains)
    package, name = type(model).__module__.partition(".")[0], type(model).__name__
    got = "None" if model is None else name if package == "builtins" else f"{package}'s {name}"
    raise ConfigError(f"{owner}: model: expected a Module, a Trainer or an estimator of ferrograd, got {got}")


def _of_module(
    owner: str,
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    params: list[Tensor],
    l2: float,
    X: TensorLike,
    y: TensorLike,
    sample_weight: Array | None,
    *,
    trains: bool,
) -> Problem:
    wanted = {id(param) for param in params}
    names = [name for name, param in model.named_parameters() if id(param) in wanted]
    if not names:
        raise GraphError(f"{owner}: model: none of its parameters requires a gradient")
    samples = with_targets(inputs(X, _core.float64, allow_empty=False), y)
    if sample_weight is not None:
        samples = with_weights(samples, sample_weight)
    of_name = type(model).__name__
    model, loss = copy.deepcopy((model, loss))
    model.double().train(trains)
    if isinstance(loss, Module):
        loss.double()
    for module in model.modules():
        module.training = trains and not isinstance(module, _RANDOM)
    own = dict(model.named_parameters())
    parameters: dict[str, Tensor] = {name: own[name] for name in names}
    for param in own.values():
        param.grad = None
    x, target, *weights = _tensors(samples)
    weight = weights[0] if weights else None

    def scores() -> Tensor:
        found = called(model, x, "X")
        if not isinstance(found, Tensor):
            raise ConfigError(f"model: expected it to return a Tensor, got {type(found).__name__}")
        if is_of_labels(loss):
            check_labels(samples, found.shape[1:], ignored_label(loss))
        return found

    def of_scores(found: Tensor) -> Tensor:
        return objective(loss, found, target, weight, l2, parameters.values())

    return Problem(of_name, model, parameters, scores, of_scores, (x, target))


def _tensors(samples: Samples) -> list[Tensor]:
    return [
        _core.tensor(np.ascontiguousarray(table), dtype=dtype)
        for table, dtype in zip(samples.tables, samples.dtypes, strict=True)
    ]


def _of_estimator(model: Any, X: Any, y: Any, *, trains: bool) -> Problem:
    # Of scikit-learn, which the caller has then.
    from sklearn.utils.validation import check_is_fitted

    from ferrograd.sklearn.network import LEARNED, Fit, parameters_of

    check_is_fitted(model)
    of_name, model = type(model).__name__, copy.deepcopy(model)
    X, target, _ = model._check_data(X, y, incremental=True, reset=False)
    X = np.ascontiguousarray(X if isinstance(X, np.ndarray) else X.toarray(), dtype=np.float64)
    weight = model._row_factors(target, incremental=False)
    task = model._task()
    layers = task.layers._replace(dropout=())
    task = task._replace(layers=layers, clip_norm=None, is_weighted=weight is not None)
    learned, others = parameters_of(model)
    fit = Fit(task, [array.astype(np.float64) for array in learned + others], 0, ())
    kinds = [("coefs_", len(model.coefs_)), ("intercepts_", len(model.intercepts_))]
    names = [f"{kind}[{number}]" for kind, count in kinds for number in range(count)]
    norms = getattr(model, "normalizations_", [])
    names += [
        f"normalizations_[{i}][{name!r}]" for i, norm in enumerate(norms) for name in LEARNED if name in norm
    ]
    x = _core.tensor(X)
    t = _core.tensor(target if target.ndim == 1 else target.astype(np.float64))
    rest = [] if weight is None else [_core.tensor(np.asarray(weight, np.float64))]

    def scores() -> Tensor:
        return fit.network.outputs(x, training=trains)[-1]

    def of_scores(found: Tensor) -> Tensor:
        return fit.loss_of(task, len(X), found, t, *rest)

    parameters = dict(zip(names, fit.network.trained, strict=True))
    return Problem(of_name, None, parameters, scores, of_scores, (x, t))
