"""`check_gradients`: a model's gradients beside centred differences of its loss, parameter by parameter."""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, NonFiniteError, Tensor
from ferrograd._typing import Array, TensorLike
from ferrograd.autograd import enable_grad, no_grad
from ferrograd.checks import check_int
from ferrograd.columns import aligned
from ferrograd.plain import plain
from ferrograd.problem import Problem, is_of_scikit_learn, problem_of
from ferrograd.random import fork_rng

__all__ = ["GradientReport", "ParameterCheck", "check_gradients"]

# The cube root of the rounding error in float64: there truncation and rounding are about the same.
_STEP = 6e-6
# Larger relative errors than this are no matter of rounding.
_TOLERANCE = 1e-4
# Slopes to the left and to the right that differ by more, in relation, are looked at for a kink. The part of
# curvature is in proportion to the step: at a kink steps shorter by these factors find another difference.
_BENT = 1e-3
_SHORTER = (3.0, 10.0)
# scikit-learn's private backward pass, as of these versions, and what it takes.
_KNOWN_VERSIONS = ((1, 6), (1, 9))
_BACKPROP = ["X", "y", "activations", "deltas", "coef_grads", "intercept_grads"]


@dataclass(frozen=True)
class ParameterCheck:
    """A row of a `GradientReport`.

    Attributes
    ----------
    name : str
        Of the parameter.
    shape : tuple of int
        Of the parameter.
    checked : int
        Elements that were compared.
    max_error, median_error : float
        Of the relative errors ``|a - n| / max(|a|, |n|, floor)`` of the analytic derivative a and the numeric
        n; the floor is where the rounding of n alone would be an error of 1e-5. Elements at a kink are left
        out; NaN if all are.
    worst : tuple of int
        The element of the largest error.
    analytic, numeric : float
        The derivatives there.
    ratio : float
        The factor c for which ``c n`` is nearest to a, over the elements above the floor; NaN without any.
    kinks : int
        Elements whose step crosses a kink, such as that of a ReLU, where n is wrong.
    verdict : str
        In words.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(2, 1)
    >>> report = fg.check_gradients(model, fg.ones(3, 2), fg.zeros(3, 1), fg.nn.MSELoss())
    >>> row = report.parameters[0]
    >>> row.name, row.shape, row.checked, round(row.ratio, 4), row.kinks, row.verdict
    ('weight', (1, 2), 2, 1.0, 0, 'agrees')
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    max_error: float
    median_error: float
    worst: tuple[int, ...]
    analytic: float
    numeric: float
    ratio: float
    kinks: int
    verdict: str


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` returns; printed, it is a table.

    Attributes
    ----------
    model : str
        The class of the model.
    loss : float
        At the parameters.
    step : float
        Of the differences, times ``max(1, |p|)`` for an element p.
    evaluations : int
        Of the loss, for the differences.
    parameters : tuple of ParameterCheck
        A row for each parameter.
    verdict : str
        In words, over all parameters.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(2, 1)
    >>> report = fg.check_gradients(model, fg.ones(3, 2), fg.zeros(3, 1), fg.nn.MSELoss())
    >>> report.agrees, report.evaluations, sorted(report.to_dict())[:3]
    (True, 7, ['agrees', 'evaluations', 'loss'])
    """

    model: str
    loss: float
    step: float
    evaluations: int
    parameters: tuple[ParameterCheck, ...]
    verdict: str

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and no parameter's gradient differs."""
        return _is_compared(self.parameters) and not any(_is_wrong(row) for row in self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists and numbers, None for one that is not finite."""
        return {**plain(self), "agrees": self.agrees}

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("parameter", "shape", "verdict", "max error", "median", "worst", "ratio", "kinks", "checked")
        ]
        for row in self.parameters:
            size = int(np.prod(row.shape))
            checked = f"{row.checked:,} of {size:,}" if row.checked < size else "all"
            errors = f"{row.max_error:.1e}", f"{row.median_error:.1e}", str(row.worst)
            names = row.name, str(row.shape), row.verdict
            rows.append((*names, *errors, f"{row.ratio:.4f}".replace("nan", "-"), str(row.kinks), checked))
        lines = aligned(rows, left=3)
        head = f"gradients of {self.model}, loss {self.loss:.6g}: {self.verdict}"
        foot = (
            f"centred differences in float64, step {self.step:g} max(1, |p|), {self.evaluations:,} "
            "evaluations; ratio: analytic over numeric"
        )
        return "\n".join([head, "", lines[0], "-" * len(lines[0]), *lines[1:], "", foot])


class _Subject(NamedTuple):
    """What is compared: arrays that are changed in place, the loss there, and its gradients."""

    name: str
    arrays: dict[str, Array]
    loss: Callable[[], float]
    gradients: Callable[[], list[Array]]


@fork_rng()
def check_gradients(
    model: Any,
    X: TensorLike,
    y: TensorLike,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    *,
    max_elements: int | None = 100,
) -> GradientReport:
    """Compare a model's gradients with centred differences of its loss, and say in words what is wrong.

    For each parameter element p the quotient ``(L(p + h) - L(p - h)) / (2 h)`` with ``h = 6e-6 max(1, |p|)``
    is compared with the backward pass, in float64 on a copy of the model. An error in a derivative shows as
    a relative error near 1, a forgotten factor as the ratio of the two. Where a step crosses a kink the
    quotient means nothing; such elements are counted and left out.

    Parameters
    ----------
    model : Module, Trainer or estimator
        A module is checked in training mode, except that layers which draw random numbers do not; what else
        draws from `manual_seed`'s generator gets the same numbers in each evaluation. A
        `Trainer` with its loss and penalty; a fitted `MLPClassifier` or `MLPRegressor` of `ferrograd.sklearn`
        without its dropout. Also one of scikit-learn's own, by its private backward pass.
    X : array_like of shape (n_samples, ...)
        Inputs; a few rows are enough, of each class one.
    y : array_like of shape (n_samples,) or (n_samples, ...)
        Targets, as the model's fit takes them.
    loss : callable, optional
        For a Module, called with ``(scores, targets)``; the others bring theirs.
    max_elements : int or None, default 100
        Elements of a parameter that are looked at, chosen at random, the same in each call; None for all.
        Each costs two evaluations, and four more where the loss is bent.

    Returns
    -------
    GradientReport
        ``str()`` of it is a table, ``to_dict()`` gives numbers.

    Raises
    ------
    ConfigError
        If `model` is none of these, `loss` is missing or not wanted, the loss changes from call to call (it
        draws from another generator), or scikit-learn is of a version whose backward pass is not known here.
    ShapeError, DTypeError, LabelError, NonFiniteError
        If the data do not fit, or the loss is NaN or infinite.

    See Also
    --------
    ferrograd.autograd.gradcheck : for functions of tensors.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Wrong(fg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x.square()
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         return g * ctx.saved_tensors[0]  # without the 2
    >>> class Squares(fg.nn.Linear):
    ...     def forward(self, x):
    ...         return Wrong.apply(super().forward(x))
    >>> report = fg.check_gradients(Squares(2, 1), [[1.0, 2.0]], [[5.0]], fg.nn.MSELoss())
    >>> print(report.verdict)
    WRONG: the gradients of weight, bias are 0.50 times the derivatives
    """
    if max_elements is not None:
        check_int("max_elements", max_elements, low=1)
    owner = "check_gradients"
    if is_of_scikit_learn(model) and loss is None:
        subject = _of_scikit_learn(model, X, y)
    else:
        subject = _of_problem(problem_of(owner, model, X, y, loss, trains=True))
    value = subject.loss()
    if not np.isfinite(value):
        raise NonFiniteError(f"{owner}: loss: expected a finite number at the parameters, got {value}")
    if subject.loss() != value:
        raise ConfigError(f"{owner}: model: its loss changes from call to call; switch off what is random")
    rows = []
    scale = _scale(subject, value)
    counter = [0]
    for (name, array), analytic in zip(subject.arrays.items(), subject.gradients(), strict=True):
        chosen = _chosen(array.size, max_elements)
        rows.append(_row(subject, name, array, analytic, chosen, value, scale, counter))
    return GradientReport(subject.name, value, _STEP, counter[0] + 1, tuple(rows), _overall(rows))


def _chosen(size: int, most: int | None) -> list[int]:
    if most is None or size <= most:
        return list(range(size))
    return sorted(np.random.default_rng(0).choice(size, most, replace=False).tolist())


def _scale(subject: _Subject, value: float) -> float:
    """Return what the rounding errors of the loss are in proportion to.

    Where a fit is close they are those of the scores, of which the loss itself says nothing, so one from
    parameters further away is looked at.
    """
    rng = np.random.default_rng(0)
    before = {name: array.copy() for name, array in subject.arrays.items()}
    try:
        for array in subject.arrays.values():
            array += rng.uniform(-1.0, 1.0, array.shape) * np.maximum(1.0, np.abs(array))
        away = abs(subject.loss())
    finally:
        for name, array in subject.arrays.items():
            array[...] = before[name]
    return max(abs(value), min(1.0, away) if np.isfinite(away) else 1.0)


def _row(
    subject: _Subject,
    name: str,
    array: Array,
    analytic: Array,
    chosen: list[int],
    value: float,
    scale: float,
    counter: list[int],
) -> ParameterCheck:
    flat, slopes = array.reshape(-1), analytic.reshape(-1)
    limits = np.finfo(np.float64)
    unit = float(limits.eps) * scale
    found, wanted, errors, floors, places, kinks = [], [], [], [], [], 0
    for j in chosen:
        before = float(flat[j])
        step = _STEP * max(1.0, abs(before))

        def differences(step: float, j: int = j, before: float = before) -> tuple[float, float]:
            """Return the centred quotient, and how far those of the two sides are apart."""
            # What is really added is what is divided by.
            up, down = before + step, before - step
            try:
                flat[j] = up
                above = subject.loss()
                flat[j] = down
                below = subject.loss()
            finally:
                flat[j] = before
            counter[0] += 2
            bend = abs((above - value) / (up - before) - (value - below) / (before - down))
            return (above - below) / (up - down), bend

        numeric, bend = differences(step)
        floor = max(1e5 * unit / step, float(limits.tiny))
        if bend > max(_BENT * abs(numeric), 0.1 * floor):
            shares = [factor * differences(step / factor)[1] / bend for factor in _SHORTER]
            if any(abs(share - 1) > 0.2 for share in shares):
                kinks += 1
                continue
        a = float(slopes[j])
        error = abs(a - numeric) / max(abs(a), abs(numeric), floor)
        found.append(a)
        wanted.append(numeric)
        # What is no number is as wrong as can be.
        errors.append(error if np.isfinite(error) else np.inf)
        floors.append(floor)
        places.append(j)
    worst = int(np.argmax(errors)) if errors else -1
    analytics, numerics = np.array(found), np.array(wanted)
    # Where both are next to nothing their ratio is that of their rounding errors.
    is_large = np.maximum(np.abs(analytics), np.abs(numerics)) > np.array(floors)
    large = numerics[is_large]
    size = float(large @ large)
    row = ParameterCheck(
        name,
        tuple(array.shape),
        len(chosen),
        float(max(errors)) if errors else float("nan"),
        float(np.median(errors)) if errors else float("nan"),
        tuple(int(i) for i in np.unravel_index(places[worst], array.shape)) if errors else (),
        found[worst] if errors else float("nan"),
        wanted[worst] if errors else float("nan"),
        float(analytics[is_large] @ large) / size if size > 0 else float("nan"),
        kinks,
        "",
    )
    return replace(row, verdict=_verdict(row, analytics, numerics))


def _is_compared(rows: Sequence[ParameterCheck]) -> bool:
    return any(row.checked > row.kinks for row in rows)


def _is_wrong(row: ParameterCheck) -> bool:
    return row.max_error > _TOLERANCE


def _verdict(row: ParameterCheck, a: Array, n: Array) -> str:
    if row.checked == 0:
        return "has no elements"
    if len(a) == 0:
        return "only kinks: try other data"
    if not _is_wrong(row):
        if not np.any(a):
            return "agrees: all 0"
        return f"agrees, {row.kinks} at a kink" if row.kinks else "agrees"
    if not np.isfinite(a).all():
        return "WRONG: not finite"
    if not np.any(a):
        return "WRONG: 0 everywhere"
    if np.linalg.norm(a - row.ratio * n) <= 1e-3 * np.linalg.norm(a):
        return "WRONG: the sign" if abs(row.ratio + 1) < 1e-3 else f"WRONG: {row.ratio:.2f} times"
    share = np.mean(np.abs(a - n) > _TOLERANCE * np.maximum(np.abs(a), np.abs(n)))
    return f"WRONG in {share:.0%} of its elements"


def _overall(rows: list[ParameterCheck]) -> str:
    if not _is_compared(rows):
        return "nothing was compared: every element is at a kink, or there is none; try other data"
    wrong = [row for row in rows if _is_wrong(row)]
    kinks = sum(row.kinks for row in rows)
    left_out = f"; {kinks} elements at a kink were left out" if kinks else ""
    if not wrong:
        return f"the backward pass agrees with the differences{left_out}"
    names = ", ".join(row.name for row in wrong)
    factors = {f"{row.ratio:.2f}" for row in wrong if row.verdict.endswith("times")}
    if len(factors) == 1 and all(row.verdict.endswith("times") for row in wrong):
        return f"WRONG: the gradients of {names} are {factors.pop()} times the derivatives{left_out}"
    return f"WRONG: the gradients of {names} are not the derivatives of the loss{left_out}"


def _of_problem(problem: Problem) -> _Subject:
    params = problem.parameters
    # The tensors follow these arrays.
    arrays = {name: param.detach().numpy() for name, param in params.items()}

    def follow() -> None:
        with no_grad():
            for name, param in params.items():
                param.data.copy_(arrays[name])

    def loss() -> float:
        follow()
        # With the same random numbers each time, where the model draws them by itself.
        with fork_rng(), no_grad():
            return float(problem.loss(problem.scores()).item())

    def gradients() -> list[Array]:
        follow()
        with fork_rng(), enable_grad():
            value = problem.loss(problem.scores())
        if not value.requires_grad:
            return [np.zeros_like(array) for array in arrays.values()]
        grads = _core.grad(value, list(params.values()), allow_unused=True)
        return [
            np.zeros_like(array) if grad is None else grad.numpy()
            for grad, array in zip(grads, arrays.values(), strict=True)
        ]

    return _Subject(problem.name, arrays, loss, gradients)


def _of_scikit_learn(model: Any, X: Any, y: Any) -> _Subject:
    import sklearn
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    takes = list(inspect.signature(model._backprop).parameters) if hasattr(model, "_backprop") else []
    is_known = [name for name in takes if name != "sample_weight"] == _BACKPROP
    if not _KNOWN_VERSIONS[0] <= version <= _KNOWN_VERSIONS[1] or not is_known:
        raise ConfigError(
            f"check_gradients: model: the backward pass of scikit-learn {sklearn.__version__} is not known; "
            "that of 1.6 to 1.9 is"
        )
    model = copy.deepcopy(model)
    X, y = model._validate_input(X, y, incremental=True, reset=False)
    X = np.asarray(X if isinstance(X, np.ndarray) else X.toarray(), dtype=np.float64)
    y = y.reshape(len(y), -1)
    model.coefs_ = [array.astype(np.float64) for array in model.coefs_]
    model.intercepts_ = [array.astype(np.float64) for array in model.intercepts_]
    arrays = {f"coefs_[{i}]": array for i, array in enumerate(model.coefs_)}
    arrays |= {f"intercepts_[{i}]": array for i, array in enumerate(model.intercepts_)}
    weight = (None,) if "sample_weight" in takes else ()

    def passed() -> tuple[float, list[Array], list[Array]]:
        layers = len(model.coefs_)
        activations: list[Any] = [X] + [None] * layers
        grads = [np.empty_like(a) for a in model.coefs_], [np.empty_like(a) for a in model.intercepts_]
        value, coefs, intercepts = model._backprop(X, y, *weight, activations, [None] * layers, *grads)
        return float(value), coefs, intercepts

    def gradients() -> list[Array]:
        _, coefs, intercepts = passed()
        return [*coefs, *intercepts]

    return _Subject(type(model).__name__, arrays, lambda: passed()[0], gradients)
