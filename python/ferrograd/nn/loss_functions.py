"""Losses as functions, composed of ops; `nn.functional` has all of them.

Tensors or anything numpy can read are taken. ``x`` is the input, ``t`` the target, ``d = x - t``. "mean"
divides by the number of losses, "sum" adds them up, "none" returns them one by one, in the input's shape
where nothing else is said. Shapes that do not fit raise `ShapeError`, options out of range `ConfigError`.
"""

import math
from collections.abc import Sequence

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, LabelError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.checks import as_list
from ferrograd.convert import operand
from ferrograd.nn.activation_functions import check_finite, logsigmoid
from ferrograd.nn.reduction import check_same_shape, mean_over_labels, reduce

__all__ = [
    "cosine_embedding_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "log_cosh_loss",
    "margin_loss",
    "margin_ranking_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "quantile_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
]


def check_positive(owner: str, name: str, value: float, *, or_zero: bool = False) -> float:
    """Return `value` if it is a finite number above 0, or 0 where that is allowed."""
    if check_finite(owner, name, value) < 0 or (value == 0 and not or_zero):
        raise ConfigError(f"{owner}: {name} must be {'at least' if or_zero else 'above'} 0, got {value!r}")
    return value


def _pair(owner: str, input: TensorLike, target: TensorLike) -> tuple[Tensor, Tensor]:
    x, t = operand("input", input), operand("target", target)
    check_same_shape(owner, x, t)
    return x, t


def nll_loss(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Return ``-w_y x_y`` of log-probabilities (batch, classes), labels (batch,); gradient ``-g w_y``.

    Rows labelled `ignore_index` cost nothing; "mean" divides by the weights of the others. Raises
    `LabelError` at any other label outside the classes.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([[0.25, 0.75], [0.5, 0.5]])
    >>> fg.nn.functional.nll_loss(p.log(), [1, 0])
    tensor(0.4904)
    """
    target = operand("target", target)
    losses = _core.nll(input, target, weight, ignore_index)
    if reduction == "mean":
        return mean_over_labels(losses, target, weight, ignore_index)
    return reduce("nll_loss", losses, reduction)


def smooth_l1_loss(
    input: TensorLike, target: TensorLike, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Return ``d^2 / (2 beta)`` where ``abs(d) < beta``, else ``abs(d) - beta / 2``.

    Gradient ``g d / beta`` or ``g sign(d)``. `beta` 0 gives the absolute error.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.smooth_l1_loss([0.5, 4.0], [0.0, 1.0], reduction="none")
    tensor([0.1250, 2.5000])
    """
    x, t = _pair("smooth_l1_loss", input, target)
    check_positive("smooth_l1_loss", "beta", beta, or_zero=True)
    d = x - t
    far = d.abs()
    if beta > 0:
        far = _core.where(far < beta, d.square() * (0.5 / beta), far - beta / 2)
    return reduce("smooth_l1_loss", far, reduction)


def huber_loss(input: TensorLike, target: TensorLike, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Return ``d^2 / 2`` where ``abs(d) < delta``, else ``delta (abs(d) - delta / 2)``.

    Gradient ``g d`` or ``g delta sign(d)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.huber_loss([0.5, 4.0], [0.0, 1.0], reduction="none", delta=2.0)
    tensor([0.1250, 4.0000])
    """
    x, t = _pair("huber_loss", input, target)
    check_positive("huber_loss", "delta", delta)
    d = x - t
    far = d.abs()
    losses = _core.where(far < delta, d.square() * 0.5, (far - delta / 2) * delta)
    return reduce("huber_loss", losses, reduction)


def log_cosh_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Return ``log(cosh(d))``, near ``d^2 / 2`` and far ``abs(d) - log 2``; gradient ``g tanh(d)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.log_cosh_loss([0.1, 10.0], [0.0, 0.0], reduction="none")
    tensor([4.9917e-03, 9.3069e+00])
    """
    x, t = _pair("log_cosh_loss", input, target)
    return reduce("log_cosh_loss", _core.activation("log_cosh", x - t), reduction)


def check_quantiles(owner: str, quantiles: float | Sequence[float]) -> tuple[float, ...]:
    """Return the quantiles as a tuple if all lie in (0, 1)."""
    found = (
        (quantiles,)
        if isinstance(quantiles, int | float)
        else tuple(as_list(f"{owner}: quantiles", "numbers", quantiles))
    )
    if not found or not all(isinstance(q, int | float) and 0 < q < 1 for q in found):
        raise ConfigError(f"{owner}: quantiles must lie between 0 and 1, got {quantiles!r}")
    return tuple(float(q) for q in found)


def quantile_loss(
    input: TensorLike,
    target: TensorLike,
    quantiles: float | Sequence[float] = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """Return ``q (t - x)`` where ``t > x``, else ``(1 - q) (x - t)``; gradient ``-g q`` or ``g (1 - q)``.

    Its mean is least where x is the q-quantile (Koenker and Bassett, 1978). One number q: input and target
    have the same shape. A sequence of Q: the input has a last dimension of length Q more than the target, or
    in its place where the target's last dimension is 1.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.quantile_loss([1.0, 5.0], [2.0, 2.0], 0.9, reduction="none")
    tensor([0.9000, 0.3000])
    """
    found = check_quantiles("quantile_loss", quantiles)
    x, t = operand("input", input), operand("target", target)
    if not isinstance(quantiles, int | float):
        if t.ndim == x.ndim - 1:
            t = t.unsqueeze(-1)
        if t.shape != (*x.shape[:-1], 1) or x.ndim == 0 or x.shape[-1] != len(found):
            raise ShapeError(
                f"quantile_loss: expected input (..., {len(found)}) and target (...) or (..., 1), "
                f"got {x.shape} and {operand('target', target).shape}"
            )
        shares = _core.tensor(found, dtype=x.dtype)
    else:
        check_same_shape("quantile_loss", x, t)
        shares = _core.tensor(found[0], dtype=x.dtype)
    d = x - t
    return reduce("quantile_loss", _core.where(d > 0, d * (1 - shares), d * -shares), reduction)


def check_kl_reduction(owner: str, reduction: str) -> str:
    """Return `reduction` if it is one of `kl_div`."""
    if reduction not in ("none", "batchmean", "mean", "sum"):
        raise ConfigError(
            f"{owner}: reduction must be 'none', 'batchmean', 'mean' or 'sum', got {reduction!r}"
        )
    return reduction


def kl_div(
    input: TensorLike, target: TensorLike, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """Return ``t (log t - x)`` of log-probabilities x, probabilities t; 0 if ``t = 0``; gradient ``-g t``.

    With `log_target` the target holds logarithms: ``exp(t) (t - x)``. "mean" divides by the number of
    elements; "batchmean" by that of the rows, which gives the divergence of distributions.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([0.5, 0.5])
    >>> fg.nn.functional.kl_div(p.log(), [0.25, 0.75], reduction="sum")
    tensor(0.1308)
    """
    x, t = _pair("kl_div", input, target)
    check_kl_reduction("kl_div", reduction)
    # The logarithm of 0 would make 0 * infinity.
    logarithm = t if log_target else _core.where(t > 0, t, 1.0).log()
    losses = (t.exp() if log_target else t) * (logarithm - x)
    if reduction == "batchmean":
        if losses.ndim == 0:
            raise ShapeError("kl_div: 'batchmean' needs rows, got a scalar")
        return losses.sum() / losses.shape[0]
    return reduce("kl_div", losses, reduction)


def poisson_nll_loss(
    input: TensorLike,
    target: TensorLike,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """Return ``exp(x) - t x``, or ``x - t log(x + eps)`` if not `log_input`; gradient ``g (exp(x) - t)``.

    The negative log-likelihood of counts t with rate ``exp(x)`` or x, without ``log t!``; `full` adds
    Stirling's ``t log t - t + log(2 pi t) / 2`` where ``t > 1``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.poisson_nll_loss([0.0, 1.0], [1.0, 2.0], reduction="none")
    tensor([1.0000, 0.7183])
    """
    x, t = _pair("poisson_nll_loss", input, target)
    check_positive("poisson_nll_loss", "eps", eps, or_zero=True)
    losses = x.exp() - t * x if log_input else x - t * (x + eps).log()
    if full:
        counts = _core.where(t > 1, t, 1.0)
        stirling = counts * counts.log() - counts + (counts * (2 * math.pi)).log() * 0.5
        losses = losses + _core.where(t > 1, stirling, 0.0)
    return reduce("poisson_nll_loss", losses, reduction)


def gaussian_nll_loss(
    input: TensorLike,
    target: TensorLike,
    var: TensorLike,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Return ``(log v + d^2 / v) / 2`` with ``v = max(var, eps)``; gradient ``g d / v``.

    The variance's gradient is ``g (v - d^2) / (2 v^2)``.

    The variance has the input's shape, or 1 as its last length, or lacks the last dimension. Where `eps`
    replaces it its gradient is that at eps, as in PyTorch, so that it can grow again. `full` adds
    ``log(2 pi) / 2``. Raises `ConfigError` if a variance is negative.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.gaussian_nll_loss([1.0, 2.0], [1.0, 4.0], [1.0, 4.0], reduction="none")
    tensor([0.0000, 1.1931])
    """
    x, t = _pair("gaussian_nll_loss", input, target)
    v = operand("var", var)
    check_positive("gaussian_nll_loss", "eps", eps)
    if v.shape != x.shape:
        if v.shape == x.shape[:-1] and x.ndim > 0:
            v = v.unsqueeze(-1)
        if v.shape != (*x.shape[:-1], 1):
            raise ShapeError(
                f"gaussian_nll_loss: expected var of shape {x.shape}, {(*x.shape[:-1], 1)} or "
                f"{x.shape[:-1]}, got {operand('var', var).shape}"
            )
    if v.numel() and v.detach().amin().item() < 0:
        raise ConfigError("gaussian_nll_loss: var must be at least 0, got a negative variance")
    v = _core.where(v < eps, v - v.detach() + eps, v)
    losses = (v.log() + _core.squared_error(x, t) / v) * 0.5
    return reduce("gaussian_nll_loss", losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def soft_margin_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Return ``log(1 + exp(-t x))``, targets -1 and 1, without overflow; gradient ``-g t sigmoid(-t x)``.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.soft_margin_loss([0.0, 2.0], [1.0, -1.0], reduction="none")
    tensor([0.6931, 2.1269])
    """
    x, t = _pair("soft_margin_loss", input, target)
    return reduce("soft_margin_loss", -logsigmoid(t * x), reduction)


def margin_loss(
    input: TensorLike, target: TensorLike, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return ``max(0, margin - t x)``, targets -1 and 1: the hinge of two classes; gradient ``-g t`` or 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.margin_loss([0.5, 2.0], [1.0, -1.0], reduction="none")
    tensor([0.5000, 3.0000])
    """
    x, t = _pair("margin_loss", input, target)
    check_finite("margin_loss", "margin", margin)
    return reduce("margin_loss", (margin - t * x).relu(), reduction)


def hinge_embedding_loss(
    input: TensorLike, target: TensorLike, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return ``x`` if ``t = 1``, ``max(0, margin - x)`` if ``t = -1``; gradient ``g``, or ``-g`` and 0.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.hinge_embedding_loss([0.5, 0.25], [1.0, -1.0], reduction="none")
    tensor([0.5000, 0.7500])
    """
    x, t = _pair("hinge_embedding_loss", input, target)
    check_finite("hinge_embedding_loss", "margin", margin)
    apart = _core.where(t != 1, (margin - x).relu(), 0.0)
    return reduce("hinge_embedding_loss", _core.where(t != -1, x, 0.0) + apart, reduction)


def margin_ranking_loss(
    input1: TensorLike, input2: TensorLike, target: TensorLike, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return ``max(0, margin - t (x1 - x2))``: t is 1 where x1 should be larger, else -1.

    Gradients ``-g t`` and ``g t`` where the loss is above 0, else 0. All three have one shape.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.margin_ranking_loss([2.0, 1.0], [1.0, 2.0], [1.0, 1.0], margin=0.5)
    tensor(0.7500)
    """
    x1, x2 = _pair("margin_ranking_loss", input1, input2)
    t = operand("target", target)
    check_same_shape("margin_ranking_loss", x1, t, "inputs and target")
    check_finite("margin_ranking_loss", "margin", margin)
    return reduce("margin_ranking_loss", (margin - t * (x1 - x2)).relu(), reduction)


def _rows(owner: str, x: Tensor) -> None:
    if x.ndim not in (1, 2):
        raise ShapeError(f"{owner}: expected shape (features,) or (batch, features), got {x.shape}")


def cosine_embedding_loss(
    input1: TensorLike, input2: TensorLike, target: TensorLike, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return ``1 - c`` where ``t = 1``, ``max(0, c - margin)`` where ``t = -1``, c the cosine of x1 and x2.

    ``dc/dx1 = x2 / (|x1| |x2|) - c x1 / |x1|^2``; 1e-12 is added to both squared lengths. Inputs (batch,
    features) and targets (batch,), or one pair without batch; "none" returns the target's shape.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.cosine_embedding_loss([[1.0, 0.0]], [[1.0, 1.0]], [1.0])
    tensor(0.2929)
    """
    x1, x2 = _pair("cosine_embedding_loss", input1, input2)
    t = operand("target", target)
    _rows("cosine_embedding_loss", x1)
    if t.shape != x1.shape[:-1]:
        raise ShapeError(f"cosine_embedding_loss: expected a target of shape {x1.shape[:-1]}, got {t.shape}")
    check_finite("cosine_embedding_loss", "margin", margin)
    squares = [x.square().sum(-1) + 1e-12 for x in (x1, x2)]
    cosine = (x1 * x2).sum(-1) / (squares[0] * squares[1]).sqrt()
    apart = _core.where(t == -1, (cosine - margin).relu(), 0.0)
    return reduce("cosine_embedding_loss", _core.where(t == 1, 1 - cosine, 0.0) + apart, reduction)


def _distance(x1: Tensor, x2: Tensor, p: float, eps: float) -> Tensor:
    d = (x1 - x2 + eps).abs()
    if p == math.inf:
        return d.amax(-1)
    if p == 1:
        return d.sum(-1)
    return d.square().sum(-1).sqrt() if p == 2 else (d**p).sum(-1) ** (1 / p)


def triplet_margin_loss(
    anchor: TensorLike,
    positive: TensorLike,
    negative: TensorLike,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return ``max(0, D(a, positive) - D(a, negative) + margin)``, ``D(u, v)`` the p-norm of ``u - v + eps``.

    ``dD/du_j = abs(e_j)^(p-1) sign(e_j) / D^(p-1)`` with ``e = u - v + eps``. `swap` takes the smaller one of
    ``D(a, negative)`` and ``D(positive, negative)``. All have one shape, (features,) or (batch, features);
    "none" returns () or (batch,).

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.triplet_margin_loss([[0.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.5]])
    tensor(0.5000)
    """
    a, near = _pair("triplet_margin_loss", anchor, positive)
    far = operand("negative", negative)
    check_same_shape("triplet_margin_loss", a, far, "anchor and negative")
    _rows("triplet_margin_loss", a)
    check_positive("triplet_margin_loss", "margin", margin)
    if p != math.inf:
        check_positive("triplet_margin_loss", "p", p)
    check_finite("triplet_margin_loss", "eps", eps)
    apart = _distance(a, far, p, eps)
    if swap:
        apart = apart.minimum(_distance(near, far, p, eps))
    return reduce("triplet_margin_loss", (_distance(a, near, p, eps) - apart + margin).relu(), reduction)


def multilabel_margin_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """Return ``1/C sum over labels y and classes i that are no label of max(0, 1 - (x_y - x_i))``.

    Gradient ``-g / C`` at y and ``g / C`` at i for each pair above 0. Input (batch, classes) or (classes,);
    the target has its shape and holds labels, up to the first -1. "none" returns (batch,) or (). Memory grows
    with ``batch C^2``. Raises `LabelError` at a label before that which is no class.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.multilabel_margin_loss([[0.1, 0.2, 0.4, 0.8]], [[3, 0, -1, 1]])
    tensor(0.8500)
    """
    x, labels = _pair("multilabel_margin_loss", input, target)
    _rows("multilabel_margin_loss", x)
    if labels.dtype.is_floating_point:
        raise DTypeError(f"multilabel_margin_loss: expected class numbers as int64, got {labels.dtype}")
    labels, classes = labels.long(), x.shape[-1]
    numbers = _core.arange(classes, dtype="int64")
    # A label counts where no -1 stands before it or in its place.
    ends = (labels == -1).to(x.dtype)
    before = (numbers.unsqueeze(1) <= numbers).to(x.dtype)
    counts = ends.matmul(before) == 0
    outside = counts & ((labels < 0) | (labels >= classes))
    if outside.any().item():
        raise LabelError(
            f"multilabel_margin_loss: expected labels from 0 to {classes - 1}, or -1 as their end"
        )
    # [..., y, i]: whether the y-th label is class i
    chosen = (labels.unsqueeze(-1) == numbers) & counts.unsqueeze(-1)
    own = _core.where(chosen, x.unsqueeze(-2), 0.0).sum(-1, keepdim=True)
    rival = counts.unsqueeze(-1) & chosen.any(-2, keepdim=True).logical_not()
    losses = _core.where(rival, (1 - (own - x.unsqueeze(-2))).relu(), 0.0).sum((-2, -1)) / classes
    # A plan raises nothing, but does not train on such a row either.
    losses = _core.where(outside.any(-1), math.nan, losses)
    return reduce("multilabel_margin_loss", losses, reduction)


def multilabel_soft_margin_loss(
    input: TensorLike, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """Return ``-mean over classes of w (t log s + (1 - t) log(1 - s))``, ``s = sigmoid(x)``.

    Without overflow. Gradient ``g w (s - t) / C``. Input and target (..., classes), weight (classes,); "none"
    returns the shape without the classes.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.functional.multilabel_soft_margin_loss([[0.0, 2.0]], [[1.0, 1.0]])
    tensor(0.4100)
    """
    x, t = _pair("multilabel_soft_margin_loss", input, target)
    if x.ndim == 0:
        raise ShapeError("multilabel_soft_margin_loss: expected shape (..., classes), got ()")
    losses = _core.bce_with_logits(x, t.to(x.dtype))
    if weight is not None:
        losses = losses * operand("weight", weight)
    return reduce("multilabel_soft_margin_loss", losses.mean(-1), reduction)
