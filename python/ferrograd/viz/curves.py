"""Loss curves: on a terminal, as a picture, and live while a model trains."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ferrograd._core import ConfigError
from ferrograd.callbacks import Callback, History
from ferrograd.checks import check_bool, check_int, check_number
from ferrograd.viz.canvas import axes, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LossPlot", "loss_curves", "spark_line"]

_BARS = "▁▂▃▄▅▆▇█"


def spark_line(values: Sequence[float], width: int = 60) -> str:
    """Return a curve as one line of text, an eighth of a line high a step.

    Parameters
    ----------
    values : sequence of float
        The curve. NaN and infinity show as ``?``; of more values than `width` each character is the mean of
        its share of them.
    width : int, default 60
        Characters, at most.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.viz.spark_line([8.0, 6.0, 4.0, 2.0, 1.0, 1.0])
    '█▆▄▂▁▁'
    """
    check_int("width", width, low=1)
    try:
        # Halves: the distance of two of them is finite.
        curve = [float(value) / 2 for value in values]
    except (TypeError, ValueError):
        raise ConfigError(f"spark_line: values: expected numbers, got {values!r}") from None
    if len(curve) > width:
        cuts = [len(curve) * i // width for i in range(width + 1)]
        curve = [sum(value / (b - a) for value in curve[a:b]) for a, b in pairwise(cuts)]
    finite = [value for value in curve if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    steps, extent = len(_BARS) - 1, high - low or 1.0
    return "".join(
        _BARS[round((value - low) / extent * steps)] if math.isfinite(value) else "?" for value in curve
    )


def _curves(owner: str, record: Any) -> dict[str, list[float]]:
    """The curves of a record, by name."""
    if isinstance(record, History):
        found: Mapping[str, Any] = record.history
    elif isinstance(record, Mapping):
        found = record
    elif hasattr(record, "loss_curve_"):
        names = {
            "loss": "loss_curve_",
            "validation loss": "validation_loss_curve_",
            "validation score": "validation_scores_",
        }
        found = {name: getattr(record, attribute, None) for name, attribute in names.items()}
        found = {name: curve for name, curve in found.items() if curve is not None}
    elif hasattr(record, "coefs_"):
        raise ConfigError(f"{owner}: record: a fit by lbfgs has no loss of each epoch")
    else:
        found = {"loss": record}
    try:
        curves = {str(name): [float(value) for value in curve] for name, curve in found.items()}
    except (TypeError, ValueError):
        raise ConfigError(
            f"{owner}: record: expected a History, a dict of curves, a fitted estimator or numbers, "
            f"got {type(record).__name__}"
        ) from None
    if not curves:
        raise ConfigError(f"{owner}: record: expected at least one curve, got none")
    return curves


def loss_curves(record: Any, *, log: bool = False, ax: "Axes | None" = None) -> "Axes":
    """Draw what `Trainer.fit` returned, or the curves of a fitted estimator, epoch by epoch.

    Losses have the left axis; accuracies and scores, where there are any, the right one.

    Parameters
    ----------
    record : History, dict of sequences, fitted estimator or sequence of float
        Curves by name, one value an epoch.
    log : bool, default False
        Whether the losses' axis is logarithmic.
    ax : matplotlib Axes, optional
        Where to draw, by default a new figure.

    Returns
    -------
    matplotlib Axes
        The losses'.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ConfigError
        If `record` holds no curve.

    Examples
    --------
    >>> import ferrograd as fg
    >>> ax = fg.viz.loss_curves({"loss": [3.0, 2.0, 1.5], "val_loss": [3.1, 2.4, 2.2]}, log=True)
    >>> [line.get_label() for line in ax.get_lines()], ax.get_yscale()
    (['loss', 'val_loss'], 'log')
    """
    owner = "loss_curves"
    check_bool("log", log)
    curves = _curves(owner, record)
    if log and not any(value > 0 for name, curve in curves.items() if not _is_score(name) for value in curve):
        raise ConfigError(f"{owner}: log: expected a loss above 0, got none")
    ax = axes(owner, ax, (6.0, 4.0))
    _draw(ax, curves, log)
    return ax


def _is_score(name: str) -> bool:
    return "acc" in name or "score" in name


def _draw(ax: "Axes", curves: dict[str, list[float]], log: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    is_score = {name: _is_score(name) for name in curves}
    right = ax.twinx() if any(is_score.values()) and not all(is_score.values()) else None
    for number, (name, curve) in enumerate(curves.items()):
        target = right if right is not None and is_score[name] else ax
        style = "--" if name.startswith("val") else "-"
        # A single epoch is a point, which a line does not show.
        marker = "o" if len(curve) == 1 else ""
        epochs = range(1, len(curve) + 1)
        target.plot(epochs, curve, style, color=colour(number), label=name, marker=marker)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="score" if all(is_score.values()) else "loss")
    if log:
        ax.set_yscale("log")
    ax.grid(alpha=0.3)
    handles, names = ax.get_legend_handles_labels()
    if right is not None:
        right.set_ylabel("score")
        more, more_names = right.get_legend_handles_labels()
        handles, names = handles + more, names + more_names
    if len(names) > 1:
        # Above: within, it would lie on curves of one of the two axes.
        ax.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)


class LossPlot(Callback):
    """Show the curves while a model trains: a picture in a notebook, a spark line on a terminal.

    Elsewhere it shows nothing. It draws between epochs, never more often than every `interval` seconds.

    Parameters
    ----------
    interval : float, default 0.5
        Seconds from one picture to the next, at least.
    log : bool, default False
        Whether the losses' axis of the picture is logarithmic.
    stream : text stream, optional
        Where the spark line goes, by default standard error; a line is written only to a terminal.

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(2, 1)
    >>> trainer = fg.Trainer(model, fg.nn.MSELoss(), fg.optim.SGD(model.parameters()))
    >>> plot = fg.viz.LossPlot()
    >>> history = trainer.fit(fg.ones(4, 2), fg.ones(4, 1), epochs=3, callbacks=[plot], progress=False)
    >>> len(plot.history.history["loss"])
    3
    """

    def __init__(self, interval: float = 0.5, log: bool = False, stream: Any = None) -> None:
        check_number("interval", interval, low=0.0)
        check_bool("log", log)
        if stream is not None and not all(hasattr(stream, name) for name in ("write", "flush", "isatty")):
            raise ConfigError(f"stream: expected a text stream, got {stream!r}")
        self.interval = interval
        self.log = log
        self.stream = stream

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Begin with empty curves."""
        self.history = History()
        self._shown = -math.inf
        self._display: Any = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Take note of the epoch, and show it if it is time."""
        self.history.on_epoch_end(epoch, logs)
        if time.monotonic() - self._shown >= self.interval:
            self._show()
            self._shown = time.monotonic()

    def on_train_end(self, logs: dict[str, float]) -> None:
        """Show the whole curves."""
        if self.history.epoch:
            self._show(is_last=True)

    def _show(self, *, is_last: bool = False) -> None:
        if "ipykernel" in sys.modules:
            self._show_picture(is_last)
            return
        stream = sys.stderr if self.stream is None else self.stream
        if stream is None or stream.closed or not stream.isatty():
            return
        name, curve = next(iter(self.history.history.items()))
        text = f"{name} {spark_line(curve, 50)} {curve[-1]:.4g}"
        # Over the line before, of which nothing may be left.
        stream.write(f"\r{text:<79}" + ("\n" if is_last else ""))
        stream.flush()

    def _show_picture(self, is_last: bool) -> None:
        from IPython.display import display
        from matplotlib.figure import Figure

        # Not by pyplot, which would show each figure once more at the end of the cell.
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        _draw(figure.subplots(), self.history.history, self.log)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        if is_last:
            self._display = None
