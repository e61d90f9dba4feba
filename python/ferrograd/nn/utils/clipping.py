"""Gradients made smaller before a step: by their common norm, or element by element."""

import math
from collections.abc import Iterable

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, NonFiniteError, Tensor
from ferrograd.autograd import no_grad
from ferrograd.checks import as_list

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their common norm is at most `max_norm`.

    With ``n = (sum over all elements of |g|^p)^(1/p)`` each gradient becomes
    ``g min(1, max_norm / (n + 1e-6))``, in place: the direction stays. Pascanu, Mikolov and Bengio, "On the
    difficulty of training recurrent neural networks", 2013; names and the 1e-6 are PyTorch's. A `Trainer`
    does the same inside its steps by ``clip_grad_norm=``.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    max_norm : float
        The largest norm, at least 0; ``math.inf`` changes nothing and still returns the norm.
    norm_type : float, default 2.0
        The p, above 0; ``math.inf`` takes the largest magnitude.
    error_if_nonfinite : bool, default False
        Whether a norm that is NaN or infinite raises; otherwise it goes into the factor.

    Returns
    -------
    Tensor of shape ()
        The norm n before the scaling; 0 where there is no gradient. Float64 if a gradient is.

    Raises
    ------
    ConfigError
        If `max_norm` or `norm_type` is out of range.
    NonFiniteError
        If the norm is NaN or infinite and `error_if_nonfinite` is set; no gradient was changed then.
    DTypeError
        If an entry of `parameters` is no Tensor.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> fg.nn.utils.clip_grad_norm_([w], max_norm=1.0).item()
    10.0
    >>> w.grad.numpy().round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    owner = "clip_grad_norm_"
    _check_bound(owner, "max_norm", max_norm)
    _check_bound(owner, "norm_type", norm_type)
    if norm_type == 0:
        raise ConfigError(f"{owner}: norm_type must be above 0, got {norm_type!r}")
    grads = _gradients(owner, parameters)
    if not grads:
        return _core.zeros(())
    widest = _core.float64 if any(grad.dtype == _core.float64 for grad in grads) else grads[0].dtype
    total = _core.stack([grad.norm(norm_type).to(widest) for grad in grads]).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise NonFiniteError(f"{owner}: the norm of the gradients is {total.item()}, nothing was clipped")
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor.to(grad.dtype))
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of the gradients to ``[-clip_value, clip_value]``, in place.

    Unlike `clip_grad_norm_` this changes the direction of the step. NaN stays NaN.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    clip_value : float
        The largest magnitude, at least 0.

    Raises
    ------
    ConfigError
        If `clip_value` is out of range.
    DTypeError
        If an entry of `parameters` is no Tensor.

    Examples
    --------
    >>> import ferrograd as fg
    >>> w = fg.tensor([0.25, -4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> fg.nn.utils.clip_grad_value_([w], 1.0)
    >>> w.grad.tolist()
    [0.5, -1.0]
    """
    _check_bound("clip_grad_value_", "clip_value", clip_value)
    for grad in _gradients("clip_grad_value_", parameters):
        grad.copy_(grad.clamp(-clip_value, clip_value))


def _gradients(owner: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = (
        [parameters]
        if isinstance(parameters, Tensor)
        else as_list(f"{owner}: parameters", "tensors", parameters)
    )
    for position, parameter in enumerate(listed):
        if not isinstance(parameter, Tensor):
            raise DTypeError(f"{owner}: parameter {position} is {type(parameter).__name__}, not a Tensor")
    # Each once, or a parameter that is listed twice would be scaled twice. Detached: the gradient of a
    # backward with create_graph is the result of an op, and only leaves can be changed.
    distinct = {id(parameter): parameter for parameter in listed}.values()
    return [parameter.grad.detach() for parameter in distinct if parameter.grad is not None]


def _check_bound(owner: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"{owner}: {name} must be a number of at least 0, got {value!r}")
