"""Where pictures are drawn: matplotlib, if it is there, and colours that all readers can tell apart."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "axes", "colour", "pyplot"]

# The palette of Okabe and Ito (2008), strongest first: told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#B8A900")


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
    """Return the colour of a class or a curve; they come again after eight."""
    return COLOURS[number % len(COLOURS)]
