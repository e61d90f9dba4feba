"""Activations by name: of hidden layers, with their parameters, and of the output."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from sklearn.utils._param_validation import InvalidParameterError

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.nn import functional as F

__all__ = ["OUT", "Activation", "activations"]

_HIDDEN: dict[str, Callable[..., Tensor]] = {
    "identity": lambda x: x,
    "logistic": lambda x: x.sigmoid(),
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
}

OUT: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "logistic": lambda x: x.sigmoid(),
    "softmax": lambda x: x.softmax(1),
    "exp": lambda x: x.exp(),
    # Logarithms of probabilities, from the scores: a probability that rounds to 0 has one too. Those that
    # round to 1 are equal, as the probabilities are.
    "log logistic": lambda x: _core.where(x < -30, -F.softplus(-x), x.sigmoid().log()),
    "log logistic pair": lambda x: -F.softplus(_core.cat([x, -x], 1)),
    "log softmax": lambda x: x.log_softmax(1),
}


class Activation(NamedTuple):
    """An activation with its parameters."""

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return _HIDDEN[self.name](x, **dict(self.parameters))


def _refuse(owner: str, expected: str, got: Any) -> InvalidParameterError:
    return InvalidParameterError(
        f"The 'activation' parameter of {owner} must be {expected}. Got {got!r} instead."
    )


def _parse(owner: str, given: Any) -> Activation:
    name, options = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
    if not isinstance(name, str) or name not in _HIDDEN or not isinstance(options, dict):
        names = ", ".join(repr(known) for known in _HIDDEN)
        raise _refuse(owner, f"one of {names}, one of them with a dict of its parameters, or a list", given)
    if not options:
        return Activation(name)
    known = list(inspect.signature(_HIDDEN[name]).parameters)[1:]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise _refuse(owner, f"{name} with parameters among {known}", unknown[0])
    found = Activation(name, tuple(sorted(options.items())))
    try:
        found(_core.zeros((1,)))
    except (ConfigError, TypeError) as error:
        raise _refuse(owner, f"{name} with parameters that it takes ({error})", options) from None
    return found


def activations(owner: str, given: Any, hidden: int) -> tuple[Activation, ...]:
    """Return the activation of each hidden layer: one for all of them, or a list.

    Raises
    ------
    InvalidParameterError
        If a name or a parameter is unknown, or there are more or fewer than hidden layers.
    """
    if isinstance(given, list):
        if len(given) != hidden:
            raise _refuse(owner, f"a list of {hidden} activations, one for each hidden layer", given)
        return tuple(_parse(owner, one) for one in given)
    return (_parse(owner, given),) * hidden
