"""Activations by name: of hidden layers, with their parameters, and of the output."""

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils._param_validation import InvalidParameterError

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.nn import functional as F

__all__ = ["OUT_NAMES", "Activation", "Out", "activations", "out_activation", "refused"]

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
    "maxout": lambda x, pieces=2: F.maxout(x, pieces),
}

# Those that `out_activation` may name.
OUT_NAMES = ("exp", *(name for name in _HIDDEN if name != "maxout"))

_ALL: dict[str, Callable[..., Tensor]] = {
    **_HIDDEN,
    "softmax": lambda x: x.softmax(1),
    "exp": lambda x: x.exp(),
    # Logarithms of probabilities, from the scores: a probability that rounds to 0 has one too. Those that
    # round to 1 are equal, as the probabilities are.
    "log logistic": lambda x: _core.where(x < -30, -F.softplus(-x), x.sigmoid().log()),
    "log logistic pair": lambda x: -F.softplus(_core.cat([x, -x], 1)),
    "log softmax": lambda x: x.log_softmax(1),
}


# More affine maps to a unit than anybody needs: an error finds a number that was meant for something else.
_PIECES = 1000


class Activation(NamedTuple):
    """An activation with its parameters."""

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def pieces(self) -> int:
        """Columns of the weights that make a unit."""
        return int(dict(self.parameters).get("pieces", 2)) if self.name == "maxout" else 1

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return _ALL[self.name](x, **dict(self.parameters))


# As `out_activation_` has it: a name, or a name with options.
Out = str | tuple[str, dict[str, Any]]


def refused(owner: str, name: str, expected: str, got: Any) -> InvalidParameterError:
    """Return scikit-learn's error for a parameter that is none of what is expected."""
    text = f"The {name!r} parameter of {owner} must be {expected}. Got {got!r} instead."
    return InvalidParameterError(text)


def _parse(owner: str, parameter: str, given: Any, names: Collection[str], or_else: str) -> Activation:
    def refuse(expected: str, got: Any) -> InvalidParameterError:
        return refused(owner, parameter, expected, got)

    name, options = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
    if not isinstance(name, str) or name not in names or not isinstance(options, dict):
        raise refuse(f"one of {', '.join(map(repr, names))}{or_else}", given)
    if not options:
        return Activation(name)
    known = list(inspect.signature(_ALL[name]).parameters)[1:]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise refuse(f"{name} with parameters among {known}", unknown[0])
    found = Activation(name, tuple(sorted(options.items())))
    is_count = isinstance(options.get("pieces"), int | np.integer)
    if name == "maxout" and not (is_count and 1 <= options["pieces"] <= _PIECES):
        raise refuse(f"maxout with pieces an int from 1 to {_PIECES}", options)
    try:
        found(_core.zeros((1, found.pieces)))
    except (ConfigError, TypeError) as error:
        raise refuse(f"{name} with parameters that it takes ({error})", options) from None
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
            expected = f"a list of {hidden} activations, one for each hidden layer"
            raise refused(owner, "activation", expected, given)
        return tuple(_hidden(owner, one) for one in given)
    return (_hidden(owner, given),) * hidden


def _hidden(owner: str, given: Any) -> Activation:
    or_else = ", one of them with a dict of its parameters, or a list"
    return _parse(owner, "activation", given, _HIDDEN, or_else)


def out_activation(owner: str, given: Any, names: Collection[str]) -> Activation:
    """Return the activation of the output, of one of the names that go with the loss.

    Raises
    ------
    InvalidParameterError
        If it has another name, or a parameter is unknown.
    """
    or_else = " with this loss" + " or one of them with a dict of its parameters" * (len(names) > 1)
    return _parse(owner, "out_activation", given, names, or_else)
