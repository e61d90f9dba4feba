"""A graph as it is drawn: boxes with their sources, values and gradients."""

from dataclasses import dataclass, field
from math import prod

from ferrograd._core import Tensor

__all__ = ["Vertex"]


@dataclass(frozen=True)
class Vertex:
    """A box of a picture, and what goes out of it.

    Attributes
    ----------
    label : str
        What it says: an operation, or the name of a value.
    kind : {"input", "parameter", "constant", "op", "fused", "group"}
        What it is.
    sources : tuple of int
        Positions of the vertices that it reads.
    shape : tuple of int, or None
        Of its value; None if it has several or none.
    value, grad : Tensor or None
        Its value, and the gradient of the outputs by it.
    module : str
        The call of a module that it belongs to: dotted, or empty.
    parts : tuple of str
        The operations of a fused one.
    note : str
        What stands below the label.
    band : str
        The title of the part of the picture that it stands in; empty if there are no parts.
    """

    label: str
    kind: str
    sources: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None
    value: Tensor | None = field(default=None, compare=False)
    grad: Tensor | None = field(default=None, compare=False)
    module: str = ""
    parts: tuple[str, ...] = ()
    note: str = ""
    band: str = ""

    def value_text(self) -> str:
        """Return the number, or the shape of a tensor."""
        number = _number(self.value)
        if number:
            return number
        return "" if self.shape is None else str(tuple(self.shape))

    def grad_text(self) -> str:
        """Return the number, or the Euclidean norm of a tensor."""
        number = _number(self.grad)
        if number or self.grad is None:
            return number
        return f"norm {float(self.grad.detach().norm().item()):.3g}"


def _number(tensor: Tensor | None) -> str:
    if tensor is None or prod(tensor.shape) != 1:
        return ""
    value = tensor.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
