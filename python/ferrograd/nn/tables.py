"""Modules over lists of tensors: one module for all, one element, a gated mixture."""

from collections.abc import Sequence
from typing import Any

from ferrograd._core import ConfigError, DTypeError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.convert import operand
from ferrograd.nn.module import Module
from ferrograd.ops import as_tensor, stack

__all__ = ["MapTable", "MixtureTable", "SelectTable"]


def _check_table(owner: str, input: Any) -> None:
    if not isinstance(input, tuple | list):
        raise DTypeError(f"{owner}: expected a tuple or list, got {type(input).__name__}")


class MapTable(Module):
    """Call one module, with its one set of parameters, on each element of a list; its gradients add up.

    Parameters
    ----------
    module : Module
        Called with each element.

    Raises
    ------
    ConfigError
        If `module` is no Module.
    DTypeError
        When called, if the input is neither a tuple nor a list.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.MapTable(fg.nn.Linear(3, 2))
    >>> [y.shape for y in layer([fg.ones(4, 3), fg.ones(5, 3)])]
    [(4, 2), (5, 2)]
    """

    def __init__(self, module: Module) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise ConfigError(f"MapTable: expected a Module, got {type(module).__name__}")
        self.module = module

    def forward(self, input: Sequence[Any]) -> list[Any]:
        """Return the results in a list as long as the input."""
        _check_table("MapTable", input)
        return [self.module(element) for element in input]


class SelectTable(Module):
    """Return one element of a list; the others get no gradient.

    Parameters
    ----------
    index : int
        Which; from the end where it is negative.

    Raises
    ------
    ConfigError
        If `index` is no integer.
    DTypeError
        When called, if the input is neither a tuple nor a list.
    ShapeError
        When called, if it is too short.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.SelectTable(-1)([fg.zeros(2), fg.ones(3)]).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        if isinstance(index, bool) or not isinstance(index, int):
            raise ConfigError(f"SelectTable: index must be an integer, got {index!r}")
        self.index = index

    def forward(self, input: Sequence[Any]) -> Any:
        """Return the element."""
        _check_table("SelectTable", input)
        if not -len(input) <= self.index < len(input):
            raise ShapeError(f"SelectTable: expected an element {self.index}, got {len(input)} elements")
        return input[self.index]

    def extra_repr(self) -> str:
        """Return the index."""
        return f"{self.index}"


class MixtureTable(Module):
    """Mix the results of experts: ``y = sum over k of gate[:, k] expert[k]``.

    Derivatives: ``gate[:, k]`` by expert k, and by gate k the sum of its products with expert k. Jacobs et
    al., "Adaptive Mixtures of Local Experts", 1991.

    Raises
    ------
    DTypeError
        When called, if the input is no pair of gate and experts.
    ShapeError
        When called, if the gate has not a column for each expert, or the experts differ in shape.

    Examples
    --------
    >>> import ferrograd as fg
    >>> gate = fg.tensor([[0.25, 0.75]])
    >>> fg.nn.MixtureTable()((gate, [fg.tensor([[4.0, 8.0]]), fg.tensor([[0.0, 4.0]])])).tolist()
    [[1.0, 5.0]]
    """

    def forward(self, input: tuple[TensorLike, Sequence[TensorLike]]) -> Tensor:
        """Map a gate ``(batch, experts)`` and tensors ``(batch, ...)`` to ``(batch, ...)``."""
        if not isinstance(input, tuple | list) or len(input) != 2 or not isinstance(input[1], tuple | list):
            raise DTypeError("MixtureTable: expected a pair (gate, experts) with a tuple or list of experts")
        gate, experts = as_tensor(input[0]), [operand("expert", expert) for expert in input[1]]
        shapes = {expert.shape for expert in experts}
        if len(shapes) != 1 or gate.shape != (*next(iter(shapes))[:1], len(experts)):
            got = [expert.shape for expert in experts]
            raise ShapeError(
                "MixtureTable: expected a gate (batch, experts) and experts of one shape (batch, ...), "
                f"got {gate.shape} and {got}"
            )
        joined = stack(experts, dim=1)
        weights = gate.reshape((*gate.shape, *(1,) * (joined.ndim - 2)))
        return (joined * weights).sum(1)
