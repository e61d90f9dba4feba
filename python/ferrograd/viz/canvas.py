"""Where pictures are drawn: matplotlib, if it is there, and colours that all readers can tell apart."""

import colorsys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "axes", "colour", "pyplot"]

# The palette of Okabe and Ito (2008), strongest first: told apart with every kind of colour vision. Two dark
# ones of Paul Tol make ten, for ten digits.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#B8A900"),
    *("#332288", "#661100"),
)


def pyplot(owner: str) -> Any:
    """Return `matplotlib.pyplot`.

    Raises
    ------
    ImportError
        If matplotlib is not installed; names the extra that brings it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"viz.{owner} needs matplotlib: pip install 'ferrograd[plot]'") from error
    return plt


def axes(owner: str, ax: "Axes | None", size: tuple[float, float] = (5.0, 4.0)) -> "Axes":
    """Return `ax`, or the only axes of a new figure of so many inches."""
    if ax is not None:
        return ax
    made: Axes = pyplot(owner).subplots(figsize=size, layout="constrained")[1]
    return made


def colour(number: int) -> str:
    """Return the colour of a class or a curve; from the eleventh on by steps around the circle of hues."""
    if number < len(COLOURS):
        return COLOURS[number]
    # The golden section leaves no hue near another one.
    parts = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.6, 0.55 + 0.3 * (number % 2))
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
