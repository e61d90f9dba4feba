"""What every operation does first: make a tensor of what it was given."""

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike


def as_tensor(data: TensorLike, dtype: DTypeLike | None = None, device: DeviceLike | None = None) -> Tensor:
    """Return `data` itself if it is a tensor of that dtype, otherwise a tensor with a copy of it.

    Parameters
    ----------
    data : Tensor or array_like
        A numpy array keeps its dtype; Python floats become float32, ints int64.
    dtype : DType, optional
        Converts to it.
    device : optional
        None or "cpu".

    Returns
    -------
    Tensor
        The tensor given, or converted with its graph; or a new leaf that requires no gradient.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.as_tensor([1.0, 2.0])
    >>> fg.as_tensor(x) is x, fg.as_tensor(x, fg.float64).dtype
    (True, ferrograd.float64)
    """
    if not isinstance(data, Tensor):
        return _core.tensor(data, dtype=dtype, device=device)
    if dtype is None and device is None:
        return data
    _core.zeros(0, device=device)
    return data if dtype is None or dtype == data.dtype else data.to(dtype)


def operand(name: str, value: TensorLike) -> Tensor:
    """Return the value of the argument of this name as a tensor; errors begin with the name."""
    return value if isinstance(value, Tensor) else _core.operand(name, value)
