"""Estimators and generators as they were, after an error."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["unchanged_on_error"]


def _kept(estimator: Any) -> dict[str, Any]:
    """Return the attributes; those that a fit adds to, instead of replacing them, as copies."""
    found = dict(estimator.__dict__)
    for name, value in estimator.__dict__.items():
        if name == "_optimizer" or (isinstance(value, list) and name.endswith("_")):
            found[name] = copy.copy(value)
    return found


@contextmanager
def unchanged_on_error(
    estimators: Sequence[Any], generators: Sequence[np.random.RandomState] = ()
) -> Iterator[None]:
    """Give estimators their attributes back where something is raised inside, and generators their states.

    Parameters
    ----------
    estimators : sequence of BaseMultilayerPerceptron
        What may be fitted inside.
    generators : sequence of RandomState, default=()
        What may be drawn from.

    Examples
    --------
    >>> from ferrograd.sklearn import MLPRegressor
    >>> from ferrograd.sklearn.restoring import unchanged_on_error
    >>> model = MLPRegressor(alpha=0.5)
    >>> try:
    ...     with unchanged_on_error([model]):
    ...         model.alpha = 1 / 0
    ... except ZeroDivisionError:
    ...     print(model.alpha)
    0.5
    """
    before = [_kept(estimator) for estimator in estimators]
    states: list[Any] = [generator.get_state(legacy=False) for generator in generators]
    try:
        yield
    except BaseException:
        for estimator, attributes in zip(estimators, before, strict=True):
            estimator.__dict__.clear()
            estimator.__dict__.update(attributes)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        raise
