"""All parameters as one vector, and back."""

import math
from collections.abc import Iterable

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, ShapeError, Tensor
from ferrograd.autograd import no_grad
from ferrograd.checks import as_list

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Return the elements of all parameters one after the other, each in row-major order.

    Gradients flow through it: the parameters' gradients are the pieces of the vector's.

    Parameters
    ----------
    parameters : iterable of Tensor
        At least one.

    Returns
    -------
    Tensor of shape (n,)
        n is the number of elements of all.

    Raises
    ------
    ConfigError
        If there is none.
    DTypeError
        If an entry is no Tensor.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.utils.parameters_to_vector([fg.ones(2, 2), fg.zeros(1)]).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.0]
    """
    listed = _listed("parameters_to_vector", parameters)
    return _core.cat([parameter.flatten() for parameter in listed])


@no_grad()
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the pieces of a vector into the parameters, in place: the reverse of `parameters_to_vector`.

    Parameters
    ----------
    vec : Tensor of shape (n,)
        Converted to each parameter's dtype.
    parameters : iterable of Tensor
        Together they have n elements.

    Raises
    ------
    ShapeError
        If `vec` has another shape than (n,); PyTorch takes a longer one and ignores the rest. Nothing was
        changed then.
    ConfigError
        If there is no parameter.
    DTypeError
        If `vec` or an entry of `parameters` is no Tensor.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.Linear(2, 1)
    >>> fg.nn.utils.vector_to_parameters(fg.tensor([1.0, 2.0, 3.0]), layer.parameters())
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[1.0, 2.0]], [3.0])
    """
    owner = "vector_to_parameters"
    if not isinstance(vec, Tensor):
        raise DTypeError(f"{owner}: vec is {type(vec).__name__}, not a Tensor")
    listed = _listed(owner, parameters)
    total = sum(math.prod(parameter.shape) for parameter in listed)
    if vec.shape != (total,):
        raise ShapeError(f"{owner}: expected a vector of shape ({total},), got {vec.shape}")
    # A copy: the vector may be a view of a parameter.
    pieces = vec.detach().clone().split([parameter.numel() for parameter in listed])
    for parameter, piece in zip(listed, pieces, strict=True):
        parameter.copy_(piece.reshape(parameter.shape))


def _listed(owner: str, parameters: Iterable[Tensor]) -> list[Tensor]:
    listed: list[Tensor] = as_list(f"{owner}: parameters", "tensors", parameters)
    if not listed:
        raise ConfigError(f"{owner}: there are no parameters")
    for position, parameter in enumerate(listed):
        if not isinstance(parameter, Tensor):
            raise DTypeError(f"{owner}: parameter {position} is {type(parameter).__name__}, not a Tensor")
    return listed
