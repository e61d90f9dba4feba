"""Pictures of what a network makes of a plane: the regions of its classes, and how a layer bends the grid."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ferrograd._core import ConfigError, NonFiniteError, ShapeError
from ferrograd._typing import Array
from ferrograd.checks import check_callable, check_int, check_number
from ferrograd.nn import Sequential
from ferrograd.random import fork_rng
from ferrograd.viz.canvas import axes, colour, pyplot
from ferrograd.viz.models import Labels, class_scores, evaluate, labels, module_of, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["boundary_series", "decision_boundary", "hidden_space"]

# Classes that a legend names without hiding the points.
_INSIDE = 5


@fork_rng()
def decision_boundary(
    model: Any, X: Any, y: Any = None, *, resolution: int = 200, margin: float = 0.1, ax: "Axes | None" = None
) -> "Axes":
    """Draw the regions of a classifier's classes in the plane, with the points.

    Each place has the colour of the class whose probability is the largest there, the stronger the more
    probable it is; lines are drawn where the class changes.

    Parameters
    ----------
    model : estimator, Trainer, Module or callable
        Takes rows of two features. A fitted classifier gives its classes; of the others the result counts as
        scores ``(n_samples, n_classes)`` of the classes 0, 1, ..., or as one score, which is positive for
        class 1; with `nn.BCELoss` a trainer's score is that class's probability.
    X : array_like of shape (n_samples, 2)
        Points that are drawn; they also say which part of the plane is seen.
    y : array_like of shape (n_samples,), optional
        Their classes, from 0 unless the model knows its own; without them the points are grey.
    resolution : int, default 200
        Places along each axis at which the model is asked.
    margin : float, default 0.1
        What is seen beyond the points, as a share of their extent.
    ax : matplotlib Axes, optional
        Where to draw, by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ShapeError, ConfigError
        If `X` has not two columns, `y` not one label a row, or an argument is out of range.
    NonFiniteError
        If `X` is not finite, or the model gives NaN.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_moons(n_samples=100, noise=0.1, seed=0)
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 16), fg.nn.Tanh(), fg.nn.Linear(16, 2))
    >>> trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.05))
    >>> history = trainer.fit(X, y, epochs=50, batch_size=32, seed=0)
    >>> ax = fg.viz.decision_boundary(trainer, X, y)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['0', '1']
    """
    owner = "decision_boundary"
    rows = points(owner, X, 2)
    check_int("resolution", resolution, low=2, high=4096)
    check_number("margin", margin, low=0.0)
    probabilities, classes = class_scores(owner, model)
    x0, x1 = (_extent(owner, rows[:, i], margin) for i in (0, 1))
    grid = np.meshgrid(np.linspace(*x0, resolution), np.linspace(*x1, resolution))
    shares = probabilities(np.column_stack([g.ravel() for g in grid]).astype(rows.dtype, copy=False))
    missing = int(np.isnan(shares).any(axis=1).sum())
    if missing:
        raise NonFiniteError(f"{owner}: model: expected scores, got NaN at {missing} of {len(shares)} places")
    if classes is None:
        classes = list(range(shares.shape[1]))
    known: Labels | None = None if y is None else labels(owner, y, classes, len(rows))
    ax = axes(owner, ax)
    best = shares.argmax(axis=1)
    ax.imshow(
        _blend(best, shares.max(axis=1), shares.shape[1]).reshape(resolution, resolution, 3),
        extent=(*x0, *x1), origin="lower", aspect="auto", interpolation="nearest", zorder=0,
    )  # fmt: skip
    for number in range(shares.shape[1] if shares.shape[1] > 2 else 1):
        others = np.delete(shares, number, axis=1).max(axis=1)
        lead = (shares[:, number] - others).reshape(resolution, resolution)
        if lead.min() < 0 < lead.max():
            ax.contour(*grid, lead, levels=[0.0], colors="#303030", linewidths=1.0)
    _scatter(ax, rows, known)
    ax.set(xlim=x0, ylim=x1, xlabel="feature 0", ylabel="feature 1")
    return ax


def boundary_series(
    fit: Callable[[Any], Any],
    values: Iterable[Any],
    X: Any,
    y: Any,
    *,
    label: str = "",
    resolution: int = 150,
    axs: Any = None,
) -> list["Axes"]:
    """Draw decision boundaries side by side, one for each value of a setting.

    So lectures show what more hidden units or a stronger penalty do.

    Parameters
    ----------
    fit : callable
        ``fit(value)`` returns a fitted model, as `decision_boundary` takes it.
    values : iterable
        Values of the setting.
    X, y : array_like of shapes (n_samples, 2) and (n_samples,)
        The points.
    label : str, default ""
        What a value is: panels are entitled "`label` `value`".
    resolution : int, default 150
        Places along each axis at which a model is asked.
    axs : sequence of matplotlib Axes, optional
        Where to draw, one for each value; by default a new figure.

    Returns
    -------
    list of matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ConfigError
        If there is no value, or there are not as many axes as values.

    Examples
    --------
    >>> import ferrograd as fg
    >>> from ferrograd.sklearn import MLPClassifier
    >>> X, y = fg.datasets.make_moons(n_samples=100, noise=0.35, seed=0)
    >>> def fit(units):
    ...     return MLPClassifier((units,), solver="lbfgs", max_iter=2000, random_state=0).fit(X, y)
    >>> panels = fg.viz.boundary_series(fit, [3, 20], X, y, label="hidden units:")
    >>> [ax.get_title() for ax in panels]
    ['hidden units: 3', 'hidden units: 20']
    """
    owner = "boundary_series"
    check_callable(f"{owner}: fit", fit)
    chosen = list(values)
    if not chosen:
        raise ConfigError(f"{owner}: values: expected at least one, got none")
    if axs is None:
        size = (3.4 * len(chosen), 3.4)
        axs = pyplot(owner).subplots(1, len(chosen), figsize=size, squeeze=False, layout="constrained")[1]
    panels: list[Axes] = list(np.ravel(axs))
    if len(panels) != len(chosen):
        raise ConfigError(f"{owner}: axs: expected {len(chosen)} axes, one for each value, got {len(panels)}")
    for ax, value in zip(panels, chosen, strict=True):
        decision_boundary(fit(value), X, y, resolution=resolution, ax=ax)
        ax.set_title(f"{label} {value}".strip(), fontsize="medium", wrap=True)
    for ax in panels[1:]:
        ax.set_ylabel("")
        if (legend := ax.get_legend()) is not None:
            legend.remove()
    return panels


@fork_rng()
def hidden_space(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    layer: int | None = None,
    units: tuple[int, int] = (0, 1),
    lines: int = 21,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw where a hidden layer puts the points and the lines of the input plane's grid.

    A layer bends and folds the plane until the last, linear layer can part the classes by a straight line.

    Parameters
    ----------
    model : Module, Trainer or fitted estimator of this library
        A sequence of layers (`nn.Sequential`) whose inputs have two features.
    X : array_like of shape (n_samples, 2)
        Points.
    y : array_like of shape (n_samples,), optional
        Their classes.
    layer : int, optional
        The layers up to this one are applied, counted from 0 or, negative, from the end; by default all but
        the last one.
    units : tuple of int, default (0, 1)
        The two units of that layer that are the axes of the picture.
    lines : int, default 21
        Lines of the grid in each direction.
    ax : matplotlib Axes, optional
        Where to draw, by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ConfigError, ShapeError
        If the model is no sequence, has no such layer or units, or `X` has not two columns.

    Examples
    --------
    >>> import ferrograd as fg
    >>> X, y = fg.datasets.make_circles(n_samples=60, seed=0)
    >>> model = fg.nn.Sequential(fg.nn.Linear(2, 3), fg.nn.Tanh(), fg.nn.Linear(3, 2))
    >>> ax = fg.viz.hidden_space(model, X, y, units=(0, 2))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('unit 0 of Tanh', 'unit 2 of Tanh')
    """
    owner = "hidden_space"
    rows = points(owner, X, 2)
    check_int("lines", lines, low=2, high=1000)
    if not isinstance(units, tuple | list) or len(units) != 2:
        raise ConfigError(f"{owner}: units: expected the numbers of two units, got {units!r}")
    network = module_of(owner, model)
    layers = list(network.children())
    if not isinstance(network, Sequential) or len(layers) < 2:
        raise ConfigError(
            f"{owner}: model: expected an nn.Sequential of at least two layers, got {type(network).__name__}"
        )
    last = len(layers) - 2 if layer is None else layer
    check_int("layer", last, low=-len(layers), high=len(layers) - 1)
    last %= len(layers)
    part = network[: last + 1]
    classes = np.asarray(model.classes_).tolist() if hasattr(model, "classes_") else None
    known = None if y is None else labels(owner, y, classes, len(rows))

    def place(inputs: Array) -> Array:
        result = evaluate(part, inputs)
        if result.ndim != 2:
            raise ShapeError(f"{owner}: layer {last}: expected a matrix, got the shape {result.shape}")
        for unit in units:
            check_int("units", unit, low=0, high=result.shape[1] - 1)
        return result[:, list(units)]

    placed = place(rows)
    ax = axes(owner, ax)
    (left, right), (low, high) = (_extent(owner, rows[:, i], 0.1) for i in (0, 1))
    along = np.linspace(0.0, 1.0, 200)
    for at in np.linspace(0.0, 1.0, lines):
        upright = np.column_stack([np.full(200, left + at * (right - left)), low + along * (high - low)])
        level = np.column_stack([left + along * (right - left), np.full(200, low + at * (high - low))])
        for line in (upright, level):
            ax.plot(*place(line.astype(rows.dtype)).T, color="#9AA5AD", linewidth=0.6, zorder=1)
    _scatter(ax, placed, known)
    name = type(layers[last]).__name__
    ax.set(xlabel=f"unit {units[0]} of {name}", ylabel=f"unit {units[1]} of {name}")
    return ax


def _extent(owner: str, values: Array, margin: float) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if len(values) else (-1.0, 1.0)
    room = margin * (high - low) or 1.0
    if not math.isfinite(2 * (high - low + 2 * room)):
        raise NonFiniteError(f"{owner}: X: expected points of a finite extent, got {low} to {high}")
    return low - room, high + room


def _blend(best: Array, share: Array, classes: int) -> Array:
    """Colours between white and the class's, by how far its probability is above that of a guess."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour(number)) for number in range(classes)])
    guess = 1.0 / classes
    strength = 0.15 + 0.5 * np.clip((share - guess) / (1.0 - guess), 0.0, 1.0)[:, None]
    blended: Array = 1.0 - strength * (1.0 - palette[best])
    return blended


def _scatter(ax: "Axes", rows: Array, known: Labels | None) -> None:
    # Few points are to be seen, and many are to leave something to see between them.
    size = min(70.0, max(9.0, 4400.0 / len(rows)))
    style: dict[str, Any] = {"s": size, "edgecolors": "white", "linewidths": 0.6, "zorder": 3}
    if known is None:
        ax.scatter(*rows.T, color="#606060", **style)
        return
    numbers, names = known
    for number, name in enumerate(names):
        ax.scatter(*rows[numbers == number].T, color=colour(number), label=name, **style)
    scale = max(1.0, (36.0 / size) ** 0.5)
    if len(names) <= _INSIDE:
        ax.legend(loc="best", framealpha=0.9, markerscale=scale)
    else:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=scale)
