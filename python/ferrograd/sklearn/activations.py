"""Activations by name: of hidden layers, with their parameters, and of the output."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils._param_validation import InvalidParameterError

from ferrograd import _core
from ferrograd._core import ConfigError, Tensor
from ferrograd.nn import functional as F

__all__ = ["OUT", "OUT_NAMES", "Activation", "activations", "refused"]

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

OUT: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: _HIDDEN[name] for name in OUT_NAMES if name != "exp"},
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
        return _HIDDEN[self.name](x, **dict(self.parameters))


def refused(owner: str, name: str, expected: str, got: Any) -> InvalidParameterError:
    """Return scikit-learn's error for a parameter that is none of what is expected."""
    text = f"The {name!r} parameter of {owner} must be {expected}. Got {got!r} instead."
    return InvalidParameterError(text)


def _refuse(owner: str, expected: str, got: Any) -> InvalidParameterError:
    return refused(owner, "activation", expected, got)


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
    is_count = isinstance(options.get("pieces"), int | np.integer)
    if name == "maxout" and not (is_count and 1 <= options["pieces"] <= _PIECES):
        raise _refuse(owner, f"maxout with pieces an int from 1 to {_PIECES}", options)
    try:
        found(_core.zeros((1, found.pieces)))
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
