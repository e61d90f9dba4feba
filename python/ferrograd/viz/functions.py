"""Functions drawn: an activation with its slope, and the paths of optimizers down a surface."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ferrograd import _core, optim
from ferrograd._core import ConfigError, Tensor
from ferrograd._typing import Array
from ferrograd.autograd import grad, no_grad
from ferrograd.checks import check_int, check_number
from ferrograd.nn import functional
from ferrograd.random import fork_rng
from ferrograd.viz.canvas import axes, colour, pyplot

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

__all__ = ["Paths", "activation", "optimizer_paths"]


@fork_rng()
def activation(
    function: Any, *, low: float = -5.0, high: float = 5.0, count: int = 501, ax: "Axes | None" = None
) -> "Axes":
    """Draw a function of one number and its derivative, as the library computes it.

    Parameters
    ----------
    function : str, Module or callable
        The name of a function of `nn.functional`, a layer, or a function of a Tensor, element by element.
    low, high : float, default -5.0 and 5.0
        The ends of the interval.
    count : int, default 501
        Places at which it is drawn.
    ax : matplotlib Axes, optional
        Where to draw, by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ConfigError
        If there is no function of that name, the interval is empty, or the result has another shape.

    Examples
    --------
    >>> import ferrograd as fg
    >>> ax = fg.viz.activation("tanh")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['tanh', 'derivative']
    """
    owner = "activation"
    check_int("count", count, low=2)
    for name, end in (("low", low), ("high", high)):
        check_number(name, end, low=-1e300)
    if not low < high:
        raise ConfigError(f"{owner}: expected low < high, got {low} and {high}")
    name = function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
    if isinstance(function, str):
        found = getattr(functional, function, None)
        if not callable(found):
            raise ConfigError(f"{owner}: function: expected a name of nn.functional, got {function!r}")
        function = found
    if not callable(function):
        raise ConfigError(f"{owner}: function: expected a name, a layer or a function, got {function!r}")
    x = _core.tensor(np.linspace(low, high, count), requires_grad=True)
    try:
        y = function(x)
    except TypeError as error:
        raise ConfigError(f"{owner}: function: expected one of a Tensor alone; {error}") from None
    if not isinstance(y, Tensor) or y.shape != x.shape:
        raise ConfigError(f"{owner}: function: expected a value for each of {count} elements, got {y!r}")
    slope = grad(y.sum(), [x], allow_unused=True)[0] if y.requires_grad else None
    ax = axes(owner, ax)
    places = x.detach().numpy()
    ax.axhline(0.0, color="#B0B0B0", linewidth=0.8)
    ax.axvline(0.0, color="#B0B0B0", linewidth=0.8)
    ax.plot(places, y.detach().numpy(), color=colour(0), label=name)
    ax.plot(
        places, np.zeros(count) if slope is None else slope.numpy(), "--", color=colour(1), label="derivative"
    )
    ax.set(xlabel="x", xlim=(low, high))
    ax.legend(loc="best", framealpha=0.9)
    return ax


# Functions of two numbers, where a path begins, and the part of the plane that is seen.
_SURFACES: dict[str, tuple[Callable[[Any, Any], Any], tuple[float, float], tuple[float, ...]]] = {
    "saddle": (lambda x, y: x * x - y * y, (1.0, 1e-3), (-1.3, 1.3, -1.3, 1.3)),
    "valley": (lambda x, y: 0.005 * x * x + y * y, (-8.0, 1.0), (-9.0, 2.0, -1.5, 1.5)),
}

# Rates at which the differences show, in the order in which the methods were found.
_RULES: dict[str, Callable[[list[Tensor]], optim.Optimizer]] = {
    "SGD": lambda params: optim.SGD(params, lr=0.02),
    "momentum": lambda params: optim.SGD(params, lr=0.02, momentum=0.9),
    "Nesterov": lambda params: optim.SGD(params, lr=0.02, momentum=0.9, nesterov=True),
    "Adagrad": lambda params: optim.Adagrad(params, lr=0.1),
    "Adadelta": lambda params: optim.Adadelta(params),
    "RMSprop": lambda params: optim.RMSprop(params, lr=0.02),
    "Adam": lambda params: optim.Adam(params, lr=0.05),
}


@dataclasses.dataclass(frozen=True)
class Paths:
    """Paths of optimizers down a surface.

    Attributes
    ----------
    paths : dict of ndarray of shape (steps + 1, 2)
        The places of each optimizer, the start first.
    losses : dict of ndarray of shape (steps + 1,)
        The values there.
    surface : callable
        ``surface(x, y)``, of numbers or arrays.
    view : tuple of float
        Left, right, lower and upper end of what is drawn.

    Examples
    --------
    >>> import ferrograd as fg
    >>> found = fg.viz.optimizer_paths("saddle", steps=30)
    >>> sorted(found.paths) == sorted(found.losses), found.paths["Adam"].shape
    (True, (31, 2))
    """

    paths: dict[str, Array]
    losses: dict[str, Array]
    surface: Callable[[Any, Any], Any]
    view: tuple[float, ...]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the surface's contours and the whole paths; raises ImportError without matplotlib."""
        ax = self._background("Paths.plot", ax)
        for number, (name, path) in enumerate(self.paths.items()):
            ax.plot(*path.T, color=colour(number), label=name, linewidth=1.8)
            ax.plot(*path[-1], "o", color=colour(number), markersize=6, markeredgecolor="white")
        ax.legend(loc="lower right", framealpha=0.9, fontsize=8)
        return ax

    def animate(self, *, interval: int = 40, ax: "Axes | None" = None) -> "FuncAnimation":
        """Return an animation, a step a frame of `interval` ms; its ``save("paths.gif")`` writes a file."""
        check_int("interval", interval, low=1)
        plt = pyplot("Paths.animate")
        from matplotlib.animation import FuncAnimation

        ax = self._background("Paths.animate", ax)
        drawn = []
        for number, name in enumerate(self.paths):
            (line,) = ax.plot([], [], color=colour(number), label=name, linewidth=1.8)
            (head,) = ax.plot([], [], "o", color=colour(number), markersize=6, markeredgecolor="white")
            drawn.append((line, head))
        ax.legend(loc="lower right", framealpha=0.9, fontsize=8)

        def show(frame: int) -> list[Any]:
            for (line, head), path in zip(drawn, self.paths.values(), strict=True):
                line.set_data(*path[: frame + 1].T)
                head.set_data(*path[frame : frame + 1].T)
            return [artist for pair in drawn for artist in pair]

        frames = len(next(iter(self.paths.values())))
        made = FuncAnimation(ax.figure, show, frames=frames, interval=interval, blit=True)
        # The animation draws into this figure only: it is not to be shown for itself.
        plt.close(ax.figure)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return places and values as plain lists."""
        return {
            name: {"path": path.tolist(), "loss": self.losses[name].tolist()}
            for name, path in self.paths.items()
        }

    def __str__(self) -> str:
        steps = len(next(iter(self.paths.values()))) - 1
        wide = max(len("optimizer"), *(len(name) for name in self.paths))
        lines = [f"{'optimizer':{wide}} {'x':>10} {'y':>10} {'loss':>10}   (after {steps} steps)"]
        for name, path in self.paths.items():
            x, y = path[-1]
            lines.append(f"{name:{wide}} {x:>10.3g} {y:>10.3g} {self.losses[name][-1]:>10.3g}")
        return "\n".join(lines)

    def _background(self, owner: str, ax: "Axes | None") -> "Axes":
        ax = axes(owner, ax, (6.0, 4.5))
        left, right, low, high = self.view
        grid = np.meshgrid(np.linspace(left, right, 200), np.linspace(low, high, 200))
        ax.contour(*grid, self.surface(*grid), levels=24, cmap="Greys", linewidths=0.7, alpha=0.7)
        ax.set(xlim=(left, right), ylim=(low, high), xlabel="x", ylabel="y")
        return ax


def _numbers(owner: str, name: str, given: Any, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        found = ()
    if len(found) != count or not np.isfinite(found).all():
        raise ConfigError(f"{owner}: {name}: expected {count} finite numbers, got {given!r}")
    return found


@fork_rng()
def optimizer_paths(
    surface: Any = "saddle",
    optimizers: Mapping[str, Callable[[list[Tensor]], optim.Optimizer]] | None = None,
    *,
    start: Sequence[float] | None = None,
    steps: int = 120,
    view: Sequence[float] | None = None,
) -> Paths:
    """Run optimizers down a surface from one start, as the well-known animation does.

    Parameters
    ----------
    surface : {"saddle", "valley"} or callable, default "saddle"
        ``x ** 2 - y ** 2``, ``0.005 * x ** 2 + y ** 2``, or ``surface(x, y)`` that takes arrays of numpy as
        well as Tensors.
    optimizers : mapping of str to callable, optional
        Makes an optimizer of a list of parameters, under the name that the legend shows; by default SGD,
        momentum, Nesterov, Adagrad, Adadelta, RMSprop and Adam, with rates at which their differences show.
    start : pair of float, optional
        Where the paths begin; needed with a surface of one's own.
    steps : int, default 120
        Updates.
    view : four float, optional
        Left, right, lower and upper end of the picture, by default what holds the paths.

    Returns
    -------
    Paths

    Raises
    ------
    ConfigError
        If the surface is unknown, has no start, or an argument is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> print(fg.viz.optimizer_paths("valley", {"SGD": lambda p: fg.optim.SGD(p, lr=0.5)}, steps=2))
    optimizer          x          y       loss   (after 2 steps)
    SGD            -7.92          0      0.314
    """
    owner = "optimizer_paths"
    check_int("steps", steps, low=1)
    if callable(surface):
        function, begin, seen = surface, start, view
    elif isinstance(surface, str) and surface in _SURFACES:
        function, own_start, own_view = _SURFACES[surface]
        begin, seen = own_start if start is None else start, own_view if view is None else view
    else:
        raise ConfigError(
            f"{owner}: surface: expected {', '.join(map(repr, _SURFACES))} or a function, got {surface!r}"
        )
    begin = _numbers(owner, "start", begin, 2)
    seen = None if seen is None else _numbers(owner, "view", seen, 4)
    rules = _RULES if optimizers is None else optimizers
    if not isinstance(rules, Mapping) or not rules:
        raise ConfigError(f"{owner}: optimizers: expected at least one by its name, got {optimizers!r}")
    paths, losses = {}, {}
    for name, make in rules.items():
        place = _core.tensor(np.asarray(begin, dtype=np.float64), requires_grad=True)
        optimizer = make([place])
        path = [place.detach().numpy().copy()]

        def closure(place: Tensor = place, optimizer: optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = function(place[0], place[1])
            loss.backward()
            return loss

        for _ in range(steps):
            optimizer.step(closure)
            path.append(place.detach().numpy().copy())
        paths[name] = np.stack(path)
        with no_grad():
            losses[name] = np.asarray(function(*paths[name].T), dtype=np.float64)
    if seen is None:
        everywhere = np.concatenate(list(paths.values()))
        everywhere = everywhere[np.isfinite(everywhere).all(axis=1)]
        low, high = everywhere.min(axis=0), everywhere.max(axis=0)
        room = 0.15 * np.maximum(high - low, 1e-3)
        seen = (low[0] - room[0], high[0] + room[0], low[1] - room[1], high[1] + room[1])
    return Paths(paths, losses, function, tuple(map(float, seen)))
