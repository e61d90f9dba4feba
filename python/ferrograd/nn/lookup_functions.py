"""Rows of a table by their numbers, as a function; `nn.functional` has it."""

import math
from numbers import Real

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, ShapeError, Tensor
from ferrograd._typing import TensorLike
from ferrograd.autograd import no_grad
from ferrograd.checks import check_bool, check_tensor
from ferrograd.convert import operand

__all__ = ["embedding"]

# float32 has every whole number up to this one.
_FLOAT32_ROWS = 2**24


def row_numbers(owner: str, input: TensorLike, rows: int) -> Tensor:
    """Return row numbers as int64; a trainer hands over its inputs as floats."""
    numbers = operand("input", input)
    found = numbers.long()
    if not numbers.dtype.is_floating_point:
        return found
    if numbers.dtype == _core.float32 and rows > _FLOAT32_ROWS:
        raise DTypeError(
            f"{owner}: float32 names {_FLOAT32_ROWS} rows, the table has {rows}; "
            "pass integers, or use a model in float64"
        )
    if (found.to(numbers.dtype) != numbers).any().item():
        raise DTypeError(f"{owner}: expected whole numbers of rows, got {numbers.dtype} with fractions")
    return found


def check_lookup(owner: str, max_norm: float | None, norm_type: float, sparse: bool) -> None:
    """Raise `ConfigError` if an option of a lookup is out of range."""
    if sparse:
        raise ConfigError(f"{owner}: sparse must be False, gradients are dense here; got {sparse!r}")
    options = {"norm_type": norm_type} if max_norm is None else {"max_norm": max_norm, "norm_type": norm_type}
    for name, value in options.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not value > 0 or (name == "max_norm" and not math.isfinite(value)):
            raise ConfigError(f"{owner}: {name} must be a number above 0, got {value!r}")


def padding_row(owner: str, padding_idx: int | None, rows: int) -> int | None:
    """Return the row of `padding_idx`, counted from the start."""
    if padding_idx is None:
        return None
    if isinstance(padding_idx, bool) or not hasattr(padding_idx, "__index__"):
        raise ConfigError(f"{owner}: padding_idx must be an integer, got {padding_idx!r}")
    if not -rows <= padding_idx < rows:
        raise ConfigError(
            f"{owner}: padding_idx must be at least {-rows} and below {rows}, got {padding_idx!r}"
        )
    return int(padding_idx) % rows


def embedding(
    input: TensorLike,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table by their numbers, ``y_j = W[i_j]``; ``dW[i]`` is the sum of ``g_j`` over ``i_j = i``.

    Parameters
    ----------
    input : Tensor or array_like
        Row numbers, integers of any shape. Floats that are whole are taken too, where PyTorch refuses them: a
        `Trainer` hands over its inputs as floats.
    weight : Tensor, shape (rows, width)
        The table.
    padding_idx : int, optional
        A row that gets no gradient; negative ones count from the end.
    max_norm : float, optional
        Longest norm: rows that are looked up and are longer are first shortened to it, in place, by the
        factor ``max_norm / (norm + 1e-7)``. In a `Trainer` that happens in each step before the update, and
        the lookup must be the last use of the table, else `GraphError`; a prediction leaves the table as it
        is.
    norm_type : float, default 2.0
        The p of that norm, above 0.
    scale_grad_by_freq : bool, default False
        Whether the gradient of a row is divided by the number of its uses in `input`: a mean, not a sum.
    sparse : bool, default False
        Must be False: gradients have the shape of the table.

    Returns
    -------
    Tensor
        The shape of `input` and ``(width,)``.

    Raises
    ------
    ConfigError
        If an option is out of range.
    ShapeError
        If the table is no matrix.
    IndexError
        If a number is outside the table.
    DTypeError
        If a number is not whole; or is float32 where the table has more than 2^24 rows, which float32 cannot
        tell apart.

    Examples
    --------
    >>> import ferrograd as fg
    >>> table = fg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> fg.nn.functional.embedding([1, 1, 0], table).sum().backward()
    >>> table.grad.tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    check_tensor("embedding: weight", weight)
    check_bool("embedding: scale_grad_by_freq", scale_grad_by_freq)
    if weight.ndim != 2:
        raise ShapeError(f"embedding: expected a weight of shape (rows, width), got {weight.shape}")
    check_lookup("embedding", max_norm, norm_type, sparse)
    padding_idx = padding_row("embedding", padding_idx, weight.shape[0])
    rows = row_numbers("embedding", input, weight.shape[0])
    # Not by brackets, where negative numbers count from the end.
    found = weight.index_select(0, rows.reshape(-1)).reshape(*rows.shape, weight.shape[1])
    if max_norm is not None or scale_grad_by_freq:
        ones = _core.ones(rows.numel(), dtype=weight.dtype)
        uses = _core.zeros(weight.shape[0], dtype=weight.dtype).scatter_add(0, rows.reshape(-1), ones)
        value = found.detach() if max_norm is None else _shortened(weight, uses, max_norm, norm_type)[rows]
        slope = found / uses[rows].unsqueeze(-1) if scale_grad_by_freq else found
        # The one's value with the other's gradient: what is added is 0.
        found = value + (slope - slope.detach())
    if padding_idx is None:
        return found
    return _core.where((rows != padding_idx).unsqueeze(-1), found, found.detach())


def _shortened(weight: Tensor, uses: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Shorten the rows that are used and too long, in place; return the table."""
    with no_grad():
        table = _core.latest(weight).detach()
        sizes = table.norm(norm_type, 1)
        is_long = (uses > 0) & (sizes > max_norm)
        factors = _core.where(is_long, max_norm / (sizes + 1e-7), 1.0)
        table = table * factors.unsqueeze(1)
        _core.assign(weight, table)
    return table
