"""Layers, activations and losses as functions, under PyTorch's names; the modules of `nn` call them."""

import operator
from collections.abc import Iterable
from numbers import Real

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.along import one_hot, pad
from ferrograd.checks import as_list, check_number, check_tensor
from ferrograd.convert import operand
from ferrograd.nn import activation_functions, lookup_functions, loss_functions
from ferrograd.nn.activation_functions import *  # noqa: F403
from ferrograd.nn.lookup_functions import *  # noqa: F403
from ferrograd.nn.loss_functions import *  # noqa: F403
from ferrograd.nn.reduction import check_same_shape, mean_over_labels, reduce
from ferrograd.ops import (
    elu,
    leaky_relu,
    linear,
    log_softmax,
    maxout,
    prelu,
    relu,
    sigmoid,
    softmax,
    softplus,
    tanh,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "elu",
    "half_squared_error",
    "l1_loss",
    "l2_penalty",
    "leaky_relu",
    "linear",
    "log_softmax",
    "maxout",
    "mse_loss",
    "multi_margin_loss",
    "multiclass_hinge_loss",
    "one_hot",
    "pad",
    "prelu",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
    *activation_functions.__all__,
    *lookup_functions.__all__,
    *loss_functions.__all__,
]


def check_probability(owner: str, p: float) -> float:
    """Return `p` if it lies in [0, 1]."""
    if isinstance(p, bool) or not isinstance(p, Real) or not 0 <= p <= 1:
        raise ConfigError(f"{owner}: p must lie in [0, 1], got {p!r}")
    return p


def check_smoothing(owner: str, value: float) -> float:
    """Return the label smoothing if it lies in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise ConfigError(f"{owner}: label_smoothing must lie in [0, 1], got {value!r}")
    return value


def dropout(input: TensorLike, p: float = 0.5, training: bool = True) -> Tensor:
    """Set elements to zero with probability `p` and scale the others by ``1 / (1 - p)``, if `training`.

    Parameters
    ----------
    input : Tensor or array_like
        Any shape.
    p : float, default 0.5
        Probability of zero, in [0, 1].
    training : bool, default True
        False returns the input.

    Returns
    -------
    Tensor
        ``x * mask``; gradient ``g * mask``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.ones(1000)
    >>> y = fg.nn.functional.dropout(x, 0.5)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    >>> fg.nn.functional.dropout(x, 0.5, training=False) is x
    True
    """
    check_probability("dropout", p)
    input = operand("input", input)
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0.0
    return input * _core.dropout_mask(input.shape, p, input.dtype)


def mse_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Squared error ``(x - t)^2``; derivative ``2 (x - t)``.

    Parameters
    ----------
    input, target : Tensor or array_like
        The same shape, any.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements, not of rows.

    Returns
    -------
    Tensor
        A scalar, or the input's shape for "none".

    Raises
    ------
    ShapeError
        If the shapes differ; the message shows both.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.mse_loss([1.0, 2.0], [1.0, 5.0])
    tensor(4.5000)
    """
    input, target = operand("input", input), operand("target", target)
    check_same_shape("mse_loss", input, target)
    return reduce("mse_loss", _core.squared_error(input, target), reduction)


def l1_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Absolute error ``abs(x - t)``; derivative ``sign(x - t)``. Parameters as `mse_loss`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.l1_loss([1.0, 2.0], [1.0, 5.0])
    tensor(1.5000)
    """
    input, target = operand("input", input), operand("target", target)
    check_same_shape("l1_loss", input, target)
    return reduce("l1_loss", (input - target).abs(), reduction)


def half_squared_error(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Half the squared distance of each row, ``1/2 sum_j (x_j - t_j)^2``; derivative ``x - t``.

    "mean" gives the lectures' ``J = 1/m sum over rows of 1/2 norm(x - t)^2``.

    Parameters
    ----------
    input, target : Tensor or array_like, shape (batch, ...)
        The same shape.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of rows, not of elements as `mse_loss` does.

    Returns
    -------
    Tensor
        A scalar, or ``(batch,)`` for "none".

    Raises
    ------
    ShapeError
        If the shapes differ or have no rows; the message shows them.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.half_squared_error([[1.0, 2.0], [0.0, 0.0]], [[1.0, 5.0], [1.0, 0.0]])
    tensor(2.5000)
    """
    input, target = operand("input", input), operand("target", target)
    check_same_shape("half_squared_error", input, target)
    if input.ndim == 0:
        raise ShapeError("half_squared_error: expected rows, shape (batch, ...), got ()")
    halves = _core.squared_error(input, target) * 0.5
    rows = halves.flatten(1).sum(1) if input.ndim > 1 else halves
    return reduce("half_squared_error", rows, reduction)


def l2_penalty(
    parameters: Tensor | Iterable[Tensor], strength: float, half: bool = False, biases: bool = False
) -> Tensor:
    """Penalty on large weights: ``strength * sum W^2``; gradient ``2 strength W``.

    `half` halves it, so that the gradient is ``strength W``: what `Trainer(l2=strength)` adds to the loss. A
    plain gradient step with that form is the same as `SGD(weight_decay=strength)`, which has no loss term.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        For instance ``model.parameters()``.
    strength : float
        Factor lambda, at least 0.
    half : bool, default False
        Whether the factor is ``strength / 2``.
    biases : bool, default False
        Whether parameters of fewer than two dimensions count too.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ConfigError
        If `strength` is below 0, or no parameter counts.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.l2_penalty(fg.tensor([[1.0, 2.0]]), 0.1).item()
    0.5
    """
    check_number("l2_penalty: strength", strength, low=0)
    chosen = (
        [parameters]
        if isinstance(parameters, Tensor)
        else as_list("l2_penalty: parameters", "tensors", parameters)
    )
    for parameter in chosen:
        check_tensor("l2_penalty: parameters", parameter)
    counted = [parameter for parameter in chosen if biases or parameter.ndim >= 2]
    if not counted:
        raise ConfigError(
            f"l2_penalty: none of the {len(chosen)} parameters is a weight of two or more dimensions"
        )
    total = counted[0].square().sum()
    for parameter in counted[1:]:
        total = total + parameter.square().sum()
    return total * (strength / 2 if half else strength)


def binary_cross_entropy(
    input: TensorLike, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """``-(t log p + (1 - t) log(1 - p))``, logarithms at least -100; derivative ``(p - t) / (p (1 - p))``.

    Parameters
    ----------
    input : Tensor or array_like
        Probabilities in [0, 1].
    target : Tensor or array_like
        In [0, 1], the shape of `input`.
    weight : Tensor or array_like, optional
        Factor for each element; broadcasts.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.

    Returns
    -------
    Tensor
        A scalar, or the input's shape for "none".

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.binary_cross_entropy([0.9, 0.2], [1.0, 0.0])
    tensor(0.1643)
    """
    input, target = operand("input", input), operand("target", target)
    check_same_shape("binary_cross_entropy", input, target)
    losses = _core.bce(input, target)
    return reduce(
        "binary_cross_entropy", losses if weight is None else losses * operand("weight", weight), reduction
    )


def binary_cross_entropy_with_logits(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """Binary cross-entropy of ``sigmoid(x)``, computed without overflow; derivative ``sigmoid(x) - t``.

    Parameters
    ----------
    input : Tensor or array_like
        Logits.
    target : Tensor or array_like
        In [0, 1], the shape of `input`.
    weight : Tensor or array_like, optional
        Factor for each element; broadcasts.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements.
    pos_weight : Tensor or array_like, optional
        Factor of the part ``t log(sigmoid(x))``; broadcasts along the last dimension.

    Returns
    -------
    Tensor
        A scalar, or the input's shape for "none".

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([0.0, 2.0], requires_grad=True)
    >>> fg.nn.functional.binary_cross_entropy_with_logits(x, [1.0, 0.0], reduction="sum").backward()
    >>> x.grad
    tensor([-0.5000,  0.8808])
    """
    input, target = operand("input", input), operand("target", target)
    check_same_shape("binary_cross_entropy_with_logits", input, target)
    losses = _core.bce_with_logits(input, target, pos_weight)
    return reduce(
        "binary_cross_entropy_with_logits",
        losses if weight is None else losses * operand("weight", weight),
        reduction,
    )


def cross_entropy(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``logsumexp(s) - s_y`` of logits; derivative ``softmax(s) - onehot(y)``.

    Parameters
    ----------
    input : Tensor or array_like, shape (batch, classes)
        Logits.
    target : Tensor or array_like
        Class numbers ``(batch,)``, integers; or probabilities ``(batch, classes)``.
    weight : Tensor or array_like, shape (classes,), optional
        Factor for each class.
    ignore_index : int, default -100
        Rows with this class number cost nothing and are not counted.
    reduction : {"mean", "sum", "none"}, default "mean"
        With class numbers "mean" divides by the weights of the rows counted, with probabilities by the rows.
    label_smoothing : float, default 0.0
        Share in [0, 1] of the target that is spread over all classes.

    Returns
    -------
    Tensor
        A scalar, or ``(batch,)`` for "none".

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    LabelError
        If a class number is outside [0, classes) and not `ignore_index`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> s = fg.tensor([[0.0, 0.0], [1.0, 3.0]], requires_grad=True)
    >>> loss = fg.nn.functional.cross_entropy(s, [0, 1])
    >>> loss.backward()
    >>> loss, s.grad
    (tensor(0.4100, grad_fn=<div>), tensor([[-0.2500,  0.2500],
            [ 0.0596, -0.0596]]))
    """
    check_smoothing("cross_entropy", label_smoothing)
    target = operand("target", target)
    losses = _core.cross_entropy(input, target, weight, ignore_index, label_smoothing)
    if reduction != "mean" or target.dtype.is_floating_point:
        return reduce("cross_entropy", losses, reduction)
    return mean_over_labels(losses, target, weight, ignore_index)


def multi_margin_loss(
    input: TensorLike,
    target: TensorLike,
    p: int = 1,
    margin: float = 1.0,
    weight: TensorLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``1/C sum over i != y of w_y max(0, margin - s_y + s_i)^p``; the derivative at the margin is zero.

    PyTorch's normalisation, divided by the number C of classes; `multiclass_hinge_loss` is not.

    Parameters
    ----------
    input : Tensor or array_like, shape (batch, classes)
        Scores.
    target : Tensor or array_like, shape (batch,)
        Class numbers.
    p : {1, 2}, default 1
        Power.
    margin : float, default 1.0
        What the right score must exceed the others by.
    weight : Tensor or array_like, shape (classes,), optional
        Factor for each class.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the rows.

    Returns
    -------
    Tensor
        A scalar, or ``(batch,)`` for "none".

    Raises
    ------
    LabelError
        If a class number is outside [0, classes).
    ConfigError
        If `p` is neither 1 nor 2.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.multi_margin_loss([[3.2, 5.1, -1.7]], [0])
    tensor(0.9667)
    """
    check_power("multi_margin_loss", p)
    losses = _core.multi_margin(input, target, p, margin, weight, True)
    return reduce("multi_margin_loss", losses, reduction)


def multiclass_hinge_loss(
    input: TensorLike, target: TensorLike, p: int = 1, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """``sum over i != y of max(0, s_i - s_y + margin)^p``, the multiclass SVM loss of the lectures.

    Not divided by the number of classes; otherwise as `multi_margin_loss`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.multiclass_hinge_loss([[3.2, 5.1, -1.7]], [0])
    tensor(2.9000)
    """
    check_power("multiclass_hinge_loss", p)
    losses = _core.multi_margin(input, target, p, margin, None, False)
    return reduce("multiclass_hinge_loss", losses, reduction)


def check_power(owner: str, p: int) -> int:
    """Return `p` if it is 1 or 2."""
    if isinstance(p, bool) or not hasattr(p, "__index__") or operator.index(p) not in (1, 2):
        raise ConfigError(f"{owner}: p must be 1 or 2, got {p!r}")
    return p
