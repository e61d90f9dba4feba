"""Tables of numbers as images: weights, the confusion of classes, what a prediction depends on."""

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import Array
from ferrograd.autograd import grad
from ferrograd.checks import as_table, check_int
from ferrograd.nn.layers import Linear
from ferrograd.nn.module import Module, in_mode
from ferrograd.random import fork_rng
from ferrograd.trainer import Trainer
from ferrograd.viz.canvas import axes, pyplot
from ferrograd.viz.models import dtype_of, module_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ConfusionMatrix", "confusion_matrix", "saliency", "weight_images"]


def weight_images(
    weights: Any,
    *,
    shape: tuple[int, int] | None = None,
    columns: int | None = None,
    titles: Any = None,
) -> "Figure":
    """Draw the weights that lead to each unit as an image: blue is negative, white 0, red positive.

    The units of a linear classifier of images are a template for each class.

    Parameters
    ----------
    weights : Linear, Module, Trainer, fitted estimator, Tensor or array_like
        A matrix of shape (n_units, n_inputs), a layer's, or the first of a model's.
    shape : tuple of int, optional
        Height and width of an image, whose product is n_inputs; by default as near to a square as that goes.
    columns : int, optional
        Images in a row, by default about as many as there are rows.
    titles : sequence of str, optional
        What each unit is called, by default its number.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ShapeError, ConfigError
        If `weights` is no matrix and has none, or `shape` or `titles` do not fit it.
    NonFiniteError
        If a weight is NaN or infinite.

    Examples
    --------
    >>> import ferrograd as fg
    >>> figure = fg.viz.weight_images(fg.nn.Linear(64, 10))
    >>> len(figure.axes), figure.axes[9].get_title()
    (11, '9')
    """
    owner = "weight_images"
    if hasattr(weights, "coefs_"):
        weights = np.asarray(weights.coefs_[0]).T
    if isinstance(weights, Trainer | Module) and not hasattr(weights, "weight"):
        layers = (layer for layer in module_of(owner, weights).modules() if isinstance(layer, Linear))
        weights = next(layers, weights)
    weights = getattr(weights, "weight", weights)
    if isinstance(weights, Trainer | Module):
        kind = type(weights).__name__
        raise ConfigError(f"{owner}: weights: expected a model with a Linear layer, got {kind} without")
    matrix = as_table("weights", weights.detach() if isinstance(weights, Tensor) else weights)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ShapeError(f"{owner}: weights: expected (n_units, n_inputs), got the shape {matrix.shape}")
    _core.check_finite(matrix, "weights")
    units, inputs = matrix.shape
    height, width = _sides(owner, inputs) if shape is None else _sides(owner, inputs, shape)
    names = [str(unit) for unit in range(units)] if titles is None else [str(title) for title in titles]
    if len(names) != units:
        raise ConfigError(f"{owner}: titles: expected {units}, one for each unit, got {len(names)}")
    across = math.ceil(math.sqrt(units)) if columns is None else columns
    check_int("columns", across, low=1)
    down = math.ceil(units / across)
    size = (1.3 * across + 0.8, 1.45 * down)
    figure: Figure
    figure, panels = pyplot(owner).subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    most = float(np.abs(matrix).max()) or 1.0
    for panel in panels.flat[units:]:
        panel.remove()
    for panel, row, name in zip(panels.flat, matrix, names, strict=False):
        image = panel.imshow(row.reshape(height, width), cmap="RdBu_r", vmin=-most, vmax=most)
        panel.set_title(name, fontsize=9)
        panel.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=list(panels.flat[:units]), shrink=0.8)
    return figure


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How often rows of each class were taken for each class.

    Attributes
    ----------
    counts : ndarray of int of shape (n_classes, n_classes)
        Rows by their class (first axis) and by the predicted one (second axis).
    labels : list
        The classes.

    Examples
    --------
    >>> import ferrograd as fg
    >>> found = fg.viz.confusion_matrix(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> found.accuracy
    0.6666666666666666
    """

    counts: npt.NDArray[np.int64]
    labels: list[Any]

    @property
    def accuracy(self) -> float:
        """The share of rows whose class was predicted."""
        return float(np.trace(self.counts) / max(1, self.counts.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Return labels, counts and accuracy as plain Python values."""
        return {
            "labels": list(self.labels),
            "counts": self.counts.tolist(),
            "accuracy": self.accuracy,
        }

    def __str__(self) -> str:
        names = [str(label) for label in self.labels]
        cells = [[str(count) for count in row] for row in self.counts]
        wide = max(len("true"), *(len(name) for name in names))
        widths = [max(len(name), *(len(row[j]) for row in cells)) for j, name in enumerate(names)]
        head = " ".join(["true".ljust(wide), *(n.rjust(w) for n, w in zip(names, widths, strict=True))])
        rows = [
            " ".join([name.ljust(wide), *(c.rjust(w) for c, w in zip(row, widths, strict=True))])
            for name, row in zip(names, cells, strict=True)
        ]
        return "\n".join([f"{head}   (predicted)", *rows, f"accuracy {self.accuracy:.4f}"])

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the shares of each class's rows, with their counts; raises ImportError without matplotlib."""
        count, longest = len(self.labels), max(len(str(label)) for label in self.labels)
        ax = axes(
            "ConfusionMatrix.plot", ax, (1.8 + 0.5 * count + 0.1 * longest, 1.6 + 0.5 * count + 0.1 * longest)
        )
        shares = self.counts / np.maximum(1, self.counts.sum(axis=1, keepdims=True))
        ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for i, j in np.ndindex(shares.shape):
            # Zeros would hide what matters.
            if self.counts[i, j]:
                ink = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, str(self.counts[i, j]), ha="center", va="center", color=ink, fontsize=9)
        names = [str(label) for label in self.labels]
        ticks = [float(place) for place in range(len(names))]
        ax.xaxis.set_ticks(ticks, names, rotation=45 if max(map(len, names)) > 3 else 0)
        ax.yaxis.set_ticks(ticks, names)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        ax.set_title(f"accuracy {self.accuracy:.2%}")
        return ax


def confusion_matrix(y_true: Any, y_pred: Any, *, labels: Any = None) -> ConfusionMatrix:
    """Count how often rows of each class were taken for each class; `ConfusionMatrix.plot` draws it.

    Parameters
    ----------
    y_true, y_pred : array_like of shape (n_samples,)
        True and predicted classes.
    labels : sequence, optional
        The classes in the order wanted, by default all that occur, sorted.

    Returns
    -------
    ConfusionMatrix

    Raises
    ------
    ShapeError
        If the two differ in length or are no vectors.
    ConfigError
        If a class is none of `labels`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> print(fg.viz.confusion_matrix([0, 0, 1, 1, 1], [0, 1, 1, 1, 0]))
    true 0 1   (predicted)
    0    1 1
    1    1 2
    accuracy 0.6000
    """
    owner = "confusion_matrix"
    true, predicted = (np.asarray(y.numpy() if isinstance(y, Tensor) else y) for y in (y_true, y_pred))
    if true.ndim != 1 or predicted.shape != true.shape or true.size == 0:
        raise ShapeError(
            f"{owner}: y_true, y_pred: expected one shape (n_samples,), "
            f"got {true.shape} and {predicted.shape}"
        )
    if labels is None:
        known = np.unique(np.concatenate([true, predicted])).tolist()
    elif isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigError(f"{owner}: labels: expected a sequence of classes, got {labels!r}")
    else:
        known = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if len(set(known)) != len(known):
        raise ConfigError(f"{owner}: labels: expected each class once, got {known}")
    places = {label: place for place, label in enumerate(known)}
    counts = np.zeros((len(known), len(known)), dtype=np.int64)
    for pair in zip(true.tolist(), predicted.tolist(), strict=True):
        for name, label in zip(("y_true", "y_pred"), pair, strict=True):
            if label not in places:
                raise ConfigError(f"{owner}: {name}: expected one of {known}, got {label!r}")
        counts[places[pair[0]], places[pair[1]]] += 1
    return ConfusionMatrix(counts, known)


@fork_rng()
def saliency(
    model: Any,
    x: Any,
    *,
    target: int | None = None,
    shape: tuple[int, int] | None = None,
    ax: "Axes | None" = None,
) -> tuple[Array, "Axes"]:
    """Draw how strongly a score depends on each input: ``abs(d score[target] / d x)``.

    Parameters
    ----------
    model : Module, Trainer or fitted estimator of this library
        Gives scores for a batch of inputs.
    x : array_like of shape (n_features,) or (height, width)
        One sample, which the model gets as a batch of one.
    target : int, optional
        Which score, by default the largest.
    shape : tuple of int, optional
        Height and width in which a vector is drawn; by default as near to a square as that goes.
    ax : matplotlib Axes, optional
        Where to draw, by default a new figure.

    Returns
    -------
    slopes : ndarray of the shape of `x`
        The absolute gradient.
    ax : matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ConfigError, ShapeError
        If the model has no such score, or `shape` does not fit.

    Notes
    -----
    Simonyan, Vedaldi and Zisserman (2013), "Deep inside convolutional networks".

    Examples
    --------
    >>> import ferrograd as fg
    >>> slopes, ax = fg.viz.saliency(fg.nn.Linear(9, 2), [0.5] * 9, target=1)
    >>> slopes.shape, ax.images[0].get_array().shape
    ((9,), (3, 3))
    """
    owner = "saliency"
    network = module_of(owner, model)
    sample = as_table("x", x)
    if sample.ndim not in (1, 2) or sample.size == 0:
        raise ShapeError(f"{owner}: x: expected one sample of one or two dimensions, got {sample.shape}")
    _core.check_finite(sample, "x")
    given = sample.shape if shape is None and sample.ndim == 2 else shape
    height, width = _sides(owner, sample.size) if given is None else _sides(owner, sample.size, given)
    inputs = _core.tensor(sample[None], dtype=dtype_of(network), requires_grad=True)
    with in_mode(network, training=False):
        scores = network(inputs)
        if scores.ndim > 2 or math.prod(scores.shape[:-1]) != 1:
            raise ShapeError(f"{owner}: x: expected one sample, for which the model gives {scores.shape}")
        scores = scores.reshape(-1)
        chosen = int(scores.detach().numpy().argmax()) if target is None else target
        check_int("target", chosen, low=0, high=scores.shape[0] - 1)
        slope = grad(scores[chosen], [inputs], allow_unused=True)[0] if scores.requires_grad else None
    slopes: Array = np.zeros(sample.shape) if slope is None else np.abs(slope.numpy()[0])
    ax = axes(owner, ax)
    image = ax.imshow(slopes.reshape(height, width), cmap="viridis", vmin=0.0)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.set(title=f"slope of score {chosen}", xticks=[], yticks=[])
    return slopes, ax


def _sides(owner: str, count: int, shape: Any = None) -> tuple[int, int]:
    """Return height and width of so many elements: those that are given, or the most equal ones."""
    if shape is None:
        height = next(side for side in range(math.isqrt(count), 0, -1) if count % side == 0)
        return height, count // height
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise ConfigError(f"{owner}: shape: expected height and width, got {shape!r}")
    for side in shape:
        check_int("shape", side, low=1)
    if shape[0] * shape[1] != count:
        raise ShapeError(f"{owner}: shape: expected {count} elements, got {shape[0]} x {shape[1]}")
    return shape[0], shape[1]
