"""What every operation does first: make a tensor of what it was given."""

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd._typing import TensorLike


def as_tensor(data: TensorLike) -> Tensor:
    """Return `data` itself if it is a tensor, otherwise a tensor with a copy of it.

    Parameters
    ----------
    data : Tensor or array_like
        A numpy array keeps its dtype; Python floats become float32, ints int64.

    Returns
    -------
    Tensor
        The tensor given, or a new leaf that requires no gradient.
    """
    return data if isinstance(data, Tensor) else _core.tensor(data)
