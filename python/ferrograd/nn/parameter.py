"""Parameter: a tensor that a module trains."""

from collections.abc import Callable
from typing import Any, Self

from ferrograd._core import Tensor
from ferrograd._typing import Array, TensorLike


class Parameter(Tensor):
    """A leaf tensor that a `Module` registers when it is assigned as an attribute.

    Parameters
    ----------
    data : Tensor or array_like
        Initial values. The values of a tensor are shared, as in PyTorch; others are copied, and a numpy array
        keeps its dtype.
    requires_grad : bool, default True
        Whether `backward` accumulates into ``.grad``; set it to False to freeze the parameter.

    Notes
    -----
    Copies (`copy.deepcopy`) and pickles hold the values and `requires_grad`, not the gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.nn.Parameter([1.0, 2.0])
    >>> w.requires_grad
    True
    >>> [name for name, _ in fg.nn.Linear(2, 1).named_parameters()]
    ['weight', 'bias']
    """

    def __new__(cls, data: TensorLike, requires_grad: bool = True) -> Self:
        """Make a leaf of `data`."""
        return super().__new__(cls, data, None, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any], /) -> Self:
        return type(self)(self.detach().clone(), self.requires_grad)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type[Self], Array, bool]]:
        return _rebuild, (type(self), self.numpy(), self.requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def _rebuild(cls: type[Parameter], data: Array, requires_grad: bool) -> Parameter:
    return cls(data, requires_grad)
