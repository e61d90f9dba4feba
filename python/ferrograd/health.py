"""What a training run looks like from inside: dead units, gradients, steps, inputs and the loss."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ferrograd import _core
from ferrograd._typing import Array
from ferrograd.columns import aligned
from ferrograd.drawing.read import Find, Step, run_recorded, span_of
from ferrograd.nn.calls import recorded_calls
from ferrograd.nn.module import Module
from ferrograd.nn.utils import clip_grad_norm_
from ferrograd.plain import plain
from ferrograd.problem import problem_of
from ferrograd.random import fork_rng
from ferrograd.samples import Samples

if TYPE_CHECKING:
    from ferrograd.trainer import Trainer

__all__ = ["ActivationHealth", "Finding", "HealthReport", "ParameterHealth"]

# A share of dead or saturated units, from where on it is worth a word.
_MANY = 0.5
# Where a sigmoid's or a tanh's slope has fallen to about a twentieth of its largest.
_SATURATED = {"sigmoid": (0.0125, 0.9875), "tanh": (-0.975, 0.975)}
# Of an update's length to the weight's; around 1e-3 a weight moves neither too fast nor too slow.
_STEP_TOO_LONG, _STEP_TOO_SHORT = 0.1, 1e-6
# Of gradients by element, the first layer's to the last one's, and the other way round.
_VANISHING, _EXPLODING = 1e-3, 1e3
# Of features: a mean in its standard deviations, and a standard deviation in the smallest and in ones.
_FAR, _UNEQUAL, _WIDE = 3.0, 100.0, 10.0
# A loss that changes by less between the halves of its last epochs stands still, and one that goes up and
# down: less than this share of all pairs of epochs go one way more than the other.
_FLAT, _ORDERED, _EPOCHS = 0.01, 0.35, 10


@dataclass(frozen=True)
class ActivationHealth:
    """An activation of a `HealthReport`.

    Attributes
    ----------
    layer : str
        The dotted name of the module that called it, and its number there where it called several.
    op : {"relu", "sigmoid", "tanh"}
        Which.
    share : float
        Of a ReLU the units that are 0 for all rows, and so do not learn; of a sigmoid or a tanh the elements
        whose slope is below a twentieth of the largest.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 4), fg.nn.ReLU(), fg.nn.Linear(4, 1))
    >>> with fg.no_grad():
    ...     _ = model[0].bias.fill_(-100.0)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters()))
    >>> (relu,) = trainer.health(fg.ones(8, 2), fg.ones(8, 1)).activations
    >>> relu.layer, relu.op, relu.share
    ('1', 'relu', 1.0)
    """

    layer: str
    op: str
    share: float


@dataclass(frozen=True)
class ParameterHealth:
    """A parameter of a `HealthReport`.

    Attributes
    ----------
    name : str
        Dotted.
    gradient_norm : float
        Euclidean norm of the loss's gradient by it, before clipping.
    update_ratio : float
        ``|w' - w| / |w|``: how far the next step with these rows moves it, by the optimizer's present state.
        NaN where the weight is 0, or the optimizer searches its step anew.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(1, 1, bias=False)
    >>> with fg.no_grad():
    ...     _ = model.weight.fill_(2.0)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.25))
    >>> (weight,) = trainer.health([[1.0]], [[0.0]]).parameters
    >>> weight.name, weight.gradient_norm, weight.update_ratio
    ('weight', 4.0, 0.5)
    """

    name: str
    gradient_norm: float
    update_ratio: float


@dataclass(frozen=True)
class Finding:
    """A line of a `HealthReport`: what was looked at, what was found, and what might help.

    Attributes
    ----------
    check : {"dead units", "saturation", "gradients", "steps", "inputs", "loss"}
        What was looked at.
    found : str
        What was found.
    hint : str
        What might help; empty where nothing is wrong.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(1, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.0))
    >>> report = trainer.health([[1000.0], [1001.0]], [[0.0], [1.0]])
    >>> [finding.check for finding in report.findings if finding.hint]
    ['steps', 'inputs']
    """

    check: str
    found: str
    hint: str


@dataclass(frozen=True)
class HealthReport:
    """What `Trainer.health` returns; printed, it is a text.

    Attributes
    ----------
    rows : int
        That were looked at.
    loss : float
        Of these rows, penalty included.
    trend : {"falling", "flat", "rising", "not finite", "unknown"}
        Of the last fit's loss over its last ten epochs; unknown with fewer than four. Not finite is also that
        of a fit which stopped as its loss became NaN or infinite.
    activations : tuple of ActivationHealth
        ReLUs, sigmoids and tanhs in the order of their calls.
    parameters : tuple of ParameterHealth
        In the order of the model.
    unscaled : tuple of int
        Numbers of the features that are far from mean 0, or of another spread than 1 or than the others;
        only where a row is a vector.
    findings : tuple of Finding
        A line for each check.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_moons(n_samples=100, noise=0.1, seed=0)
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 16), fg.nn.Tanh(), fg.nn.Linear(16, 2))
    >>> trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.01))
    >>> history = trainer.fit(X, y, epochs=10, seed=0)
    >>> report = trainer.health()
    >>> report.is_healthy, report.trend, report.rows
    (True, 'falling', 100)
    """

    rows: int
    loss: float
    trend: str
    activations: tuple[ActivationHealth, ...]
    parameters: tuple[ParameterHealth, ...]
    unscaled: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether there is no hint."""
        return not any(finding.hint for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists and numbers, None for one that is not finite."""
        return {**plain(self), "is_healthy": self.is_healthy}

    def __str__(self) -> str:
        lines = [f"health on {self.rows:,} rows, loss {self.loss:.6g}"]
        marked = [("!" if f.hint else "ok", f.check, f.found) for f in self.findings]
        for line, finding in zip(aligned(marked, left=3), self.findings, strict=True):
            lines.append(line.rstrip())
            if finding.hint:
                lines.append(f"      {finding.hint}")
        if self.activations:
            rows = [("activation", "", "dead or saturated")]
            rows += [(a.layer, a.op, f"{a.share:.0%}") for a in self.activations]
            lines += ["", *(line.rstrip() for line in aligned(rows, left=2))]
        table = [("parameter", "gradient norm", "update / weight")]
        table += [(p.name, f"{p.gradient_norm:.3g}", f"{p.update_ratio:.3g}") for p in self.parameters]
        return "\n".join([*lines, "", *aligned(table, left=1)])


@fork_rng()
def examine(
    trainer: "Trainer",
    samples: Samples,
    losses: Sequence[float],
    held: Sequence[float],
    diverged: tuple[int, float] | None,
) -> HealthReport:
    """Look into a trainer at some rows.

    `losses` and `held` are those of training and validation by epoch, `diverged` the epoch that the fit
    stopped in for its loss, if it did.
    """
    X, y, *weights = samples.tables
    # Of rows that count nothing all is looked at.
    weight = weights[0] if weights and weights[0].any() else None
    problem = problem_of("health", trainer, X, y, None, trains=True, sample_weight=weight)
    assert problem.model is not None
    activations: list[ActivationHealth] = []
    gradients: dict[str, Array] = {}
    value = math.nan

    def use(steps: list[Step], results: list[int], find: Find) -> None:
        nonlocal value
        value = float(steps[results[0]].tensor.item())
        activations.extend(_activations(steps, span_of(calls)))
        for name, param in problem.parameters.items():
            place = find(param)
            grad = None if place is None else steps[place].grad
            gradients[name] = np.zeros(param.shape) if grad is None else grad.detach().numpy()

    with recorded_calls(problem.model) as calls:
        run_recorded("health", lambda: problem.loss(problem.scores()), use, with_grads=True)
    ratios = _update_ratios(trainer, gradients)
    parameters = tuple(
        ParameterHealth(name, float(np.linalg.norm(grad)), ratios[name]) for name, grad in gradients.items()
    )
    trend, unscaled = _trend(losses) if diverged is None else "not finite", _unscaled(X)
    findings = (
        _dead([a for a in activations if a.op == "relu"]),
        _saturated([a for a in activations if a.op != "relu"]),
        _flow({name: grad for name, grad in gradients.items() if grad.ndim > 1}),
        _strides([p for p in parameters if gradients[p.name].ndim > 1]),
        _inputs(unscaled, X),
        _loss(trend, losses, held, diverged),
    )
    return HealthReport(len(X), value, trend, tuple(activations), parameters, unscaled, findings)


def _activations(steps: list[Step], place: Callable[[int], tuple[str, str]]) -> list[ActivationHealth]:
    found: list[ActivationHealth] = []
    counts: dict[tuple[str, str], int] = {}
    for step in steps:
        op = step.tensor.op
        if op != "relu" and op not in _SATURATED:
            continue
        values = step.tensor.detach().numpy()
        if values.size == 0:
            continue
        if op == "relu":
            share = float((values.reshape(len(values), -1) <= 0).all(0).mean()) if values.ndim else 0.0
        else:
            low, high = _SATURATED[op]
            share = float(((values < low) | (values > high)).mean())
        layer = place(step.id)[0] or op
        counts[layer, op] = counts.get((layer, op), 0) + 1
        again = f" ({counts[layer, op]})" if counts[layer, op] > 1 else ""
        found.append(ActivationHealth(layer + again, op, share))
    return found


def _update_ratios(trainer: "Trainer", gradients: dict[str, Array]) -> dict[str, float]:
    """Make the next step on a copy and see how far it goes."""
    if trainer.optimizer.evaluates_again:
        return dict.fromkeys(gradients, math.nan)
    model, optimizer = copy.deepcopy((trainer.model, trainer.optimizer))
    assert isinstance(model, Module)
    params = {name: param for name, param in model.named_parameters() if name in gradients}
    before = {name: param.detach().numpy() for name, param in params.items()}
    for name, param in params.items():
        param.grad = _core.tensor(gradients[name], dtype=param.dtype)
    if trainer.clip_grad_norm is not None:
        clip_grad_norm_(params.values(), trainer.clip_grad_norm)
    optimizer.step()
    ratios = {}
    for name, param in params.items():
        # In double precision, as the step of a training that diverges may be of any length.
        old, new = (array.astype(np.float64) for array in (before[name], param.detach().numpy()))
        with np.errstate(over="ignore", invalid="ignore"):
            size, moved = float(np.linalg.norm(old)), float(np.linalg.norm(new - old))
        ratios[name] = moved / size if size else math.nan
    return ratios


def _trend(losses: Sequence[float]) -> str:
    last = np.array(losses[-_EPOCHS:], np.float64)
    if not np.isfinite(last).all():
        return "not finite"
    if len(last) < 4:
        return "unknown"
    half = len(last) // 2
    # One epoch out of line, and a loss that goes up and down, are no trend.
    early, late = float(np.median(last[:half])), float(np.median(last[-half:]))
    change = (early - late) / max(abs(early), abs(late), np.finfo(np.float64).tiny)
    pairs = np.sign(last[:, None] - last)[np.triu_indices(len(last), 1)]
    order = float(pairs.mean())
    if change > _FLAT and order > _ORDERED:
        return "falling"
    return "rising" if change < -_FLAT and order < -_ORDERED else "flat"


def _unscaled(X: Array) -> tuple[int, ...]:
    """Return the features that are far from mean 0 or of another spread than 1 or than the others."""
    if X.ndim != 2 or X.dtype.kind == "b" or len(X) < 2:
        return ()
    table = X.astype(np.float64)
    mean, spread = table.mean(0), table.std(0)
    # A constant feature adds to a bias. Its deviation is that of rounding.
    varies = np.ptp(table, axis=0) > 0
    smallest, largest = (f(spread[varies], initial=np.nan) for f in (np.fmin.reduce, np.fmax.reduce))
    is_far = np.abs(mean) > _FAR * np.maximum(spread, 1.0)
    is_wide = (spread > _WIDE) | (spread > _UNEQUAL * smallest)
    is_narrow = varies & (largest < 1 / _UNEQUAL)
    return tuple(int(i) for i in np.flatnonzero(is_far | is_wide | is_narrow))


def _worst(found: list[ActivationHealth], what: str, hint: str) -> tuple[str, str]:
    if not found:
        return "there are none", ""
    worst = max(found, key=lambda a: a.share)
    text = f"{worst.share:.0%} of the {what} in layer {worst.layer}, the most of {len(found)}"
    return text, hint if worst.share >= _MANY else ""


def _dead(found: list[ActivationHealth]) -> Finding:
    hint = "dead ReLUs do not learn: a smaller learning rate, He initialisation, or LeakyReLU"
    return Finding("dead units", *_worst(found, "ReLUs are 0 for all rows", hint))


def _saturated(found: list[ActivationHealth]) -> Finding:
    hint = "flat sigmoids and tanhs pass next to no gradient: scale the inputs, start with smaller weights"
    return Finding("saturation", *_worst(found, "sigmoids and tanhs are saturated", hint))


def _flow(gradients: dict[str, Array]) -> Finding:
    """Compare the gradients of the first and the last weight, an element's root mean square each."""
    sizes = {n: float(np.sqrt(np.mean(np.square(g)))) if g.size else 0.0 for n, g in gradients.items()}
    if not all(map(math.isfinite, sizes.values())):
        return Finding("gradients", "some are not finite", "look with ferrograd.anomaly_mode for where")
    if len(sizes) < 2:
        return Finding("gradients", "fewer than two weights to compare", "")
    (first, low), *_, (last, high) = sizes.items()
    if high == 0:
        return Finding("gradients", f"those of {last} are 0", "" if low == 0 else "is the last layer used?")
    ratio = low / high
    found = f"an element of {first} has {ratio:.2g} times the gradient of one of {last}"
    if ratio < _VANISHING:
        return Finding("gradients", found, "they vanish: ReLUs, normalisation or residual connections")
    if ratio > _EXPLODING:
        return Finding("gradients", found, "they explode: clip_grad_norm, smaller weights or normalisation")
    return Finding("gradients", found, "")


def _strides(parameters: Sequence[ParameterHealth]) -> Finding:
    """Judge the weights; biases and factors begin at 0 or 1, where a first step is long in relation."""
    ratios = {p.name: p.update_ratio for p in parameters if not math.isnan(p.update_ratio)}
    if not ratios:
        return Finding("steps", "there is no weight whose next step is known before it is made", "")
    longest = max(ratios, key=lambda name: ratios[name])
    found = f"the next one moves {longest} by {ratios[longest]:.2g} of its length"
    found += ", the other weights less" if len(ratios) > 1 else ""
    if ratios[longest] > _STEP_TOO_LONG:
        return Finding("steps", found, "steps are long: a smaller learning rate, or clip_grad_norm")
    if ratios[longest] < _STEP_TOO_SHORT:
        return Finding("steps", found, "steps are short: a larger learning rate")
    return Finding("steps", found, "")


def _inputs(unscaled: tuple[int, ...], X: Array) -> Finding:
    if not unscaled:
        return Finding("inputs", "no feature is far from mean 0 and variance 1", "")
    shown = ", ".join(map(str, unscaled[:5])) + (", ..." if len(unscaled) > 5 else "")
    found = f"{len(unscaled)} of {X.shape[1]} features are not scaled: {shown}"
    return Finding("inputs", found, "scale each to mean 0 and variance 1, by the training data's numbers")


def _loss(
    trend: str, losses: Sequence[float], held: Sequence[float], diverged: tuple[int, float] | None
) -> Finding:
    if trend == "unknown":
        return Finding("loss", "fewer than 4 epochs to judge by", "")
    if diverged is None:
        found = f"{trend}, {losses[-1]:.4g} after {len(losses)} epochs"
    else:
        found = f"{trend}: it became {diverged[1]} in epoch {diverged[0]}, where the fit stopped"
    hints = {
        "not finite": "a smaller learning rate, scaled inputs, or clip_grad_norm",
        "rising": "a smaller learning rate",
        "flat": "done, or stuck: see the lines above; a schedule or another learning rate",
    }
    if trend == "falling" and _trend(held) == "rising":
        return Finding("loss", f"{found}; that of validation is rising", "it overfits: stop early, or l2")
    return Finding("loss", found, hints.get(trend, ""))
