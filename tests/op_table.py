"""The table of all public operations: sample inputs, what numpy computes, and inputs that are refused.

In a sample every float64 array is an operand with a gradient; integers and bools are passed as they are. The
arguments are those of the function; the method of the same name takes all but the first.
"""

# ruff: noqa: E501 -- a row of a table is a line

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import ferrograd as fg

Array = np.ndarray[Any, Any]


class Sample:
    """Arguments of a call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options


@dataclass
class Row:
    """What there is to know of an operation."""

    reference: Callable[..., Any]
    samples: list[Sample]
    # Arguments that are refused, the error, and words of its message; at least three.
    errors: Sequence[tuple[Sample, type[Exception], str]]
    # Arguments without elements, and the shape of the (first) result, or the error.
    empty: tuple[Sample, Any]
    # Whether the operands broadcast: then pairs of shapes are tried, made of the first sample's values.
    broadcasts: bool = False
    differentiable: bool = True
    # Why a plan cannot hold it; None where it can.
    dynamic: str | None = None
    # Where the function is; None if there is only a method.
    home: Any = field(default_factory=lambda: fg)
    is_method: bool = True


RNG = np.random.default_rng(4)
Shape, DType, Config, Range = fg.ShapeError, fg.DTypeError, fg.ConfigError, fg.OutOfRangeError
REAL = "expected real numbers"


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    """Numbers that lie apart from each other and from 0, so that no step of a difference crosses a kink."""
    count = int(np.prod(shape))
    places = low + (high - low) * (np.arange(count) + RNG.uniform(0.2, 0.8, count)) / max(count, 1)
    places[np.abs(places) < 0.02] += 0.05
    return RNG.permutation(places).reshape(shape)


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


erf = np.vectorize(math.erf, otypes=[np.float64])

X, Y, Z = draw(3, 4), draw(3, 4), draw(2, 3, 4)
POSITIVE = draw(3, 4, low=0.2, high=3)
EMPTY = np.zeros((0, 3))
NOT_NUMBERS = [
    (Sample("1"), DType, REAL),
    (Sample(np.ones(2, complex)), DType, REAL),
    (Sample({}), DType, REAL),
]


def unary(reference: Callable[[Array], Array], low: float = -2.0, high: float = 2.0, **options: Any) -> Row:
    samples = [Sample(draw(3, 4, low=low, high=high)), Sample(draw(low=low, high=high))]
    return Row(reference, samples, NOT_NUMBERS, (Sample(EMPTY), (0, 3)), **options)


def binary(
    reference: Callable[..., Array], low: float = -2.0, high: float = 2.0, name: str = "", **options: Any
) -> Row:
    errors = [
        (Sample(X, np.ones(3)), Shape, rf"{name}: shapes do not broadcast, \(3, 4\) and \(3,\)"),
        (Sample(X, "a"), DType, REAL),
        (Sample({}, X), DType, REAL),
    ]
    sample = Sample(draw(3, 4, low=low, high=high), draw(3, 4, low=low, high=high))
    return Row(reference, [sample], errors, (Sample(EMPTY, np.ones(3)), (0, 3)), broadcasts=True, **options)


def reduction(
    reference: Callable[..., Array], *samples: Sample, name: str, empty: Any = (3,), **options: Any
) -> Row:
    errors = [
        (Sample(X, 2), Shape, f"{name}: dimension 2 is out of range"),
        (Sample(X, (0, -2)), Shape, f"{name}: expected each dimension once"),
        (Sample("1"), DType, REAL),
    ]
    return Row(reference, list(samples), errors, (Sample(EMPTY, 0), empty), **options)


def over(function: Callable[..., Any]) -> Callable[..., Any]:
    """numpy's arguments of a reduction."""
    return lambda x, dim=None, keepdim=False, **o: function(
        x, axis=tuple(dim) if isinstance(dim, list) else dim, keepdims=keepdim, **o
    )


ANY_DIM = [Sample(X), Sample(X, 0), Sample(Z, (0, 2), keepdim=True), Sample(Z, -1), Sample(draw())]
MASK = X > 0.3
FLAGS = [Sample(MASK), Sample(MASK, 0), Sample(MASK, 1, keepdim=True)]
BAD_DIM = "dimension 5 is out of range"


def extreme(
    values: Callable[..., Array], places: Callable[..., Array], pair: Callable[..., Array], name: str
) -> Row:
    def reference(x: Array, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return values(x)
        if isinstance(dim, np.ndarray):
            return pair(x, dim)
        return values(x, axis=dim, keepdims=keepdim), places(x, axis=dim, keepdims=keepdim)

    samples = [Sample(X), Sample(X, 1), Sample(Z, 1, keepdim=True)]
    errors = [
        (Sample(X, 2), Shape, "dimension 2 is out of range"),
        (Sample(np.zeros((2, 0)), 1), Shape, "expected at least one element"),
        (Sample(np.zeros(0)), Shape, f"a{name}: expected at least one element"),
        (Sample("1"), DType, REAL),
    ]
    return Row(reference, samples, errors, (Sample(EMPTY, 1), (0,)))


def position(reference: Callable[..., Array], name: str) -> Row:
    samples = [Sample(X), Sample(X, 1), Sample(Z, 0, keepdim=True)]
    errors = [
        (Sample(X, -3), Shape, f"{name}: dimension -3 is out of range"),
        (Sample(np.zeros(0)), Shape, f"{name}: expected at least one element"),
        (Sample("1"), DType, REAL),
    ]
    ref = lambda x, dim=None, keepdim=False: reference(x, axis=dim, keepdims=keepdim)  # noqa: E731
    return Row(ref, samples, errors, (Sample(EMPTY, 1), (0,)), differentiable=False)


def norm(x: Array, p: Any = "fro", dim: Any = None, keepdim: bool = False) -> Array:
    size, axis = np.abs(x), tuple(dim) if isinstance(dim, list) else dim
    p = 2.0 if p == "fro" else p
    if p == 0:
        return (x != 0).sum(axis, keepdims=keepdim).astype(np.float64)
    if np.isinf(p):
        return (size.max if p > 0 else size.min)(axis, keepdims=keepdim)
    return (size**p).sum(axis, keepdims=keepdim) ** (1 / p)


def along_errors(name: str) -> list[tuple[Sample, type[Exception], str]]:
    return [
        (Sample(X, 5), Shape, f"{name}: {BAD_DIM}"),
        (Sample("1", 0), DType, REAL),
        (Sample(X, 1.5), TypeError, "float|int"),
    ]


def scattered(x: Array, dim: int, index: Any, src: Array) -> Array:
    out, index = x.copy(), np.asarray(index)
    for at in np.ndindex(index.shape):
        place = list(at)
        place[dim] = index[at]
        out[tuple(place)] += src[at]
    return out


def split(x: Array, size: Any, dim: int = 0) -> list[Array]:
    ends = np.cumsum(size)[:-1] if isinstance(size, list) else range(size, x.shape[dim], size)
    return np.split(x, list(ends), dim)


def sort(x: Array, dim: int = -1, descending: bool = False, stable: bool = False) -> tuple[Array, Array]:
    at = np.argsort(-x if descending else x, dim, kind="stable")
    return np.take_along_axis(x, at, dim), at


def topk(x: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Array, Array]:
    return tuple(np.take(part, range(k), dim) for part in sort(x, dim, largest))  # type: ignore[return-value]


def pad(x: Array, ends: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    widths = [(0, 0)] * (x.ndim - len(ends) // 2) + [
        (ends[i], ends[i + 1]) for i in range(len(ends) - 2, -1, -2)
    ]
    kept = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(widths, x.shape, strict=True))]
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    options = {"constant_values": value or 0.0} if mode == "constant" else {}
    return np.pad(kept, [(max(b, 0), max(a, 0)) for b, a in widths], names.get(mode, "constant"), **options)  # type: ignore[call-overload]


PICK = np.array([[0, 3], [1, 1], [2, 0]])
FEW = np.array([[2, 0, 1]])

TABLE: dict[str, Row] = {
    # Arithmetic
    "add": binary(np.add, name="add"),
    "sub": binary(np.subtract, name="sub"),
    "mul": binary(np.multiply, name="mul"),
    "div": binary(np.divide, 0.3, 2, name="div"),
    "pow": binary(np.power, 0.3, 2, name="pow"),
    "maximum": binary(np.maximum, name="maximum"),
    "minimum": binary(np.minimum, name="minimum"),
    "heaviside": binary(np.heaviside, name="heaviside"),
    **{op: binary(getattr(np, numpy), name=op, differentiable=False) for op, numpy in (
        ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal"),
    )},
    "neg": unary(np.negative),
    "exp": unary(np.exp),
    "expm1": unary(np.expm1),
    "log": unary(np.log, 0.1, 3),
    "log1p": unary(np.log1p, -0.5, 3),
    "sqrt": unary(np.sqrt, 0.1, 3),
    "square": unary(np.square),
    "reciprocal": unary(np.reciprocal, 0.2, 3),
    "abs": unary(np.abs),
    "sign": unary(np.sign),
    "erf": unary(erf, -3, 3),
    "floor": unary(np.floor),
    "ceil": unary(np.ceil),
    "round": Row(
        lambda x, decimals=0: np.round(x, decimals),
        [Sample(X), Sample(X, decimals=1), Sample(100 * X, decimals=-1)],
        [*NOT_NUMBERS, (Sample(np.array([1, 2]), decimals=1), DType, "round: expected float32 or float64 for decimals = 1, got int64")],
        (Sample(EMPTY), (0, 3)),
    ),
    "sin": unary(np.sin, -4, 4),
    "cos": unary(np.cos, -4, 4),
    "logical_not": unary(np.logical_not, differentiable=False),
    "clone": unary(np.array),
    "contiguous": Row(np.array, [Sample(X), Sample(draw())], [(Sample("1"), TypeError, "Tensor"), (Sample(X, 1), TypeError, "argument"), (Sample(), TypeError, "argument")], (Sample(EMPTY), (0, 3)), home=None),
    "clamp": Row(
        lambda x, min=None, max=None: np.clip(x, min, max),
        [Sample(X, -0.5, 0.75), Sample(X, min=0.1), Sample(X, max=0.3), Sample(X, draw(4, low=-2, high=-1), draw(3, 1, low=1, high=2))],
        [(Sample(X), Config, "clamp: expected min or max"), (Sample(X, "a"), DType, REAL), (Sample(X, np.ones(3)), Shape, "do not broadcast")],
        (Sample(EMPTY, 0.0, 1.0), (0, 3)),
    ),
    "where": Row(
        lambda c, a, b: np.where(c, a, b),
        [Sample(MASK, X, Y), Sample(MASK[:, :1], draw(4), draw(3, 1)), Sample(MASK, X, 0.5)],
        [
            (Sample(X, X, Y), DType, "where: expected a bool condition, got float64"),
            (Sample(MASK, X, np.ones(3)), Shape, r"where: shapes do not broadcast, \(3, 4\) and \(3,\)"),
            (Sample("a", X, Y), DType, REAL),
        ],
        (Sample(np.zeros((0, 3), bool), EMPTY, 1.0), (0, 3)),
        is_method=False,  # its first argument is the condition
    ),
    # Reductions
    "sum": reduction(over(np.sum), *ANY_DIM, name="sum"),
    "mean": reduction(over(np.mean), *ANY_DIM, name="mean"),
    "prod": Row(
        over(np.prod),
        [Sample(X), Sample(X, 0), Sample(draw(5, 2), 0, keepdim=True), Sample(np.array([[2.0, 0, 3], [0, 0, 1]]), 1), Sample(draw())],
        [(Sample(X, 2), Shape, "prod: dimension 2 is out of range"), (Sample(X, (0, 1)), TypeError, "tuple|int"), (Sample("1"), DType, REAL)],
        (Sample(EMPTY, 0), (3,)),
    ),
    "amax": reduction(over(np.max), *ANY_DIM, name="amax", empty=Shape),
    "amin": reduction(over(np.min), *ANY_DIM, name="amin", empty=Shape),
    "any": reduction(over(np.any), *FLAGS, name="any", differentiable=False),
    "all": reduction(over(np.all), *FLAGS, name="all", differentiable=False),
    "var": reduction(
        lambda x, dim=None, unbiased=True, keepdim=False, correction=None: np.var(x, axis=dim, keepdims=keepdim, ddof=int(unbiased) if correction is None else correction),
        Sample(X), Sample(X, 1, False), Sample(Z, (0, 2), True, True), Sample(X, 0, correction=0.5), name="var",
    ),
    "std": reduction(
        lambda x, dim=None, unbiased=True, keepdim=False, correction=None: np.std(x, axis=dim, keepdims=keepdim, ddof=int(unbiased) if correction is None else correction),
        Sample(X), Sample(X, 1, False), Sample(Z, (0, 2), True, True), Sample(X, 0, correction=0.5), name="std",
    ),
    "logsumexp": Row(
        lambda x, dim, keepdim=False: np.log(np.exp(x).sum(dim, keepdims=keepdim)),
        [Sample(X, 1), Sample(Z, (0, 2), True)],
        [(Sample(X, 2), Shape, "logsumexp: dimension 2"), (Sample(X, (0, 0)), Shape, "each dimension once"), (Sample(np.array([1, 2]), 0), DType, "logsumexp")],
        (Sample(EMPTY, 0), Shape),
    ),
    "norm": Row(
        norm,
        [Sample(X), *(Sample(X, p, 1) for p in (1, 2.0, 3, 1.5, 0.5, 0, -1, math.inf, -math.inf)), Sample(Z, "fro", (0, 2), True)],
        [
            (Sample(X, 2, 2), Shape, "norm: dimension 2 is out of range"),
            (Sample(X, "nuc"), Config, "norm: p must be a number or 'fro', got 'nuc'"),
            (Sample(X, math.nan), Config, "p: expected a number, got NaN"),
            (Sample(np.array([1, 2])), DType, "norm: expected float32 or float64, got int64"),
            (Sample(EMPTY, math.inf), Shape, "norm: expected at least one element"),
        ],
        (Sample(EMPTY, 2, 0), (3,)),
    ),
    "max": extreme(np.max, np.argmax, np.maximum, "max"),
    "min": extreme(np.min, np.argmin, np.minimum, "min"),
    "argmax": position(np.argmax, "argmax"),
    "argmin": position(np.argmin, "argmin"),
    # Products
    "matmul": Row(
        np.matmul,
        [Sample(draw(*a), draw(*b)) for a, b in (
            ((3, 4), (4, 2)), ((4,), (4,)), ((4,), (4, 2)), ((3, 4), (4,)), ((2, 3, 4), (4, 2)), ((2, 1, 3, 2), (2, 2, 2)),
        )],
        [
            (Sample(X, X), Shape, r"matmul: inner dimensions differ, \(3, 4\) @ \(3, 4\)"),
            (Sample(X, 2.0), Shape, "matmul"),
            (Sample(np.ones((2, 1, 1)), np.ones((3, 1, 1))), Shape, "matmul: shapes do not broadcast"),
        ],
        (Sample(EMPTY, np.ones((3, 2))), (0, 2)),
    ),
    "mm": Row(np.matmul, [Sample(X, draw(4, 2))], [
        (Sample(X, np.ones(4)), Shape, "mm: expected 2 dimensions"), (Sample(X, X), Shape, "inner dimensions differ"), (Sample("a", X), DType, REAL),
    ], (Sample(EMPTY, np.ones((3, 2))), (0, 2))),
    "mv": Row(np.matmul, [Sample(X, draw(4))], [
        (Sample(X, X), Shape, "mv: expected 1 dimensions"), (Sample(X, np.ones(3)), Shape, "inner dimensions differ"), (Sample("a", X), DType, REAL),
    ], (Sample(EMPTY, np.ones(3)), (0,))),
    "dot": Row(np.dot, [Sample(draw(4), draw(4))], [
        (Sample(X, np.ones(4)), Shape, "dot: expected 1 dimensions"), (Sample(np.ones(3), np.ones(4)), Shape, "inner dimensions differ"), (Sample("a", X), DType, REAL),
    ], (Sample(np.zeros(0), np.zeros(0)), ())),
    "bmm": Row(np.matmul, [Sample(draw(2, 3, 2), draw(2, 2, 3))], [
        (Sample(Z, np.ones((4, 2))), Shape, r"bmm: expected 3 dimensions, got shape \(4, 2\)"),
        (Sample(Z, np.ones((3, 4, 2))), Shape, "bmm: expected as many matrices on both sides"),
        (Sample(Z, Z), Shape, "inner dimensions differ"),
    ], (Sample(np.zeros((0, 2, 3)), np.zeros((0, 3, 2))), (0, 2, 2))),
    "einsum": Row(
        np.einsum,
        [Sample(equation, *(draw(*shape) for shape in shapes)) for equation, shapes in (
            ("ij,jk->ik", ((2, 3), (3, 2))), ("ij,jk", ((2, 3), (3, 2))), ("bij,bjk->bki", ((2, 2, 3), (2, 3, 2))), ("ij,ij->ij", ((2, 3), (2, 3))),
            ("ii->i", ((3, 3),)), ("ii", ((3, 3),)), ("iij->j", ((2, 2, 3),)), ("iji->ij", ((2, 3, 2),)), ("i,j->ji", ((2,), (3,))), ("ij,kl->", ((2, 2), (2, 3))), ("ijk->ki", ((2, 3, 2),)),
            ("...ij,...jk->...ik", ((2, 1, 2, 2), (3, 2, 1))), ("...i->...", ((2, 3),)), ("bi,ij,bj->b", ((2, 3), (3, 2), (2, 2))), ("ij,jk,kl->il", ((2, 3), (3, 2), (2, 2))), ("ij,j->i", ((2, 1), (3,))),
        )],
        [
            (Sample("ij,jk->ik", X), Config, r"einsum: expected 2 operands for .*, got 1"),
            (Sample("ij,jk->ik", X, X), Shape, r"einsum: shapes do not broadcast, \(4,\) and \(3,\)"),
            (Sample("ijk->i", X), Shape, r"einsum: expected 3 dimensions for 'ijk'|einsum: expected 3 dimensions for \"ijk\""),
            (Sample("ij->k", X), Config, "each label of the result once, and in an operand"),
            (Sample("ij->ii", X), Config, "each label of the result once, and in an operand"),
            (Sample("i1->i", X), Config, "letters, commas"),
            (Sample("ii->i", X), Shape, "einsum: shapes do not broadcast"),
            (Sample("......->", X), Config, "at most one ellipsis"),
        ],
        (Sample("ij,jk->ik", EMPTY, np.ones((3, 2))), (0, 2)),
        is_method=False,
    ),
    "linear": Row(
        lambda x, w, b=0.0: x @ w.T + b,
        [Sample(draw(*x), draw(2, 3), draw(2)) for x in ((5, 3), (2, 2, 3), (3,))] + [Sample(draw(2, 3), draw(4, 3))],
        [
            (Sample(X, np.ones((2, 3))), Shape, r"linear: expected input of shape \(\.\.\., 3\)"),
            (Sample(X, np.ones(4)), Shape, "linear"),
            (Sample(X, np.ones((2, 4)), np.ones(3)), Shape, "do not broadcast"),
        ],
        (Sample(EMPTY, np.ones((2, 3)), np.ones(2)), (0, 2)),
        is_method=False,
    ),
    # Activations
    "relu": unary(lambda x: np.maximum(x, 0)),
    "sigmoid": unary(sigmoid, -4, 4),
    "tanh": unary(np.tanh, -3, 3),
    "leaky_relu": Row(
        lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x), [Sample(X), Sample(X, 0.2), Sample(X, -0.5)],
        [*NOT_NUMBERS, (Sample(X, "a"), TypeError, "str|real")], (Sample(EMPTY), (0, 3)),
    ),
    "elu": Row(
        lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)), [Sample(X), Sample(X, 1.5)],
        [*NOT_NUMBERS, (Sample(X, "a"), TypeError, "str|real")], (Sample(EMPTY), (0, 3)),
    ),
    "softplus": Row(
        lambda x, beta=1.0, threshold=20.0: np.where(beta * x > threshold, x, np.log1p(np.exp(beta * x)) / beta), [Sample(X), Sample(X, 2.0), Sample(X, 2.0, 1.0)],
        [*NOT_NUMBERS, (Sample(X, "a"), TypeError, "str|real")], (Sample(EMPTY), (0, 3)),
    ),
    "softmax": Row(softmax, [Sample(X, 1), Sample(Z, 1)], [
        (Sample(X, 5), Shape, f"softmax: {BAD_DIM}"), (Sample(np.array([1, 2]), 0), DType, "softmax"), (Sample("1", 0), DType, REAL),
    ], (Sample(EMPTY, 1), (0, 3))),
    "log_softmax": Row(lambda x, dim: np.log(softmax(x, dim)), [Sample(X, 1), Sample(Z, 1)], [
        (Sample(X, 5), Shape, f"softmax: {BAD_DIM}"), (Sample(np.array([1, 2]), 0), DType, "softmax"), (Sample("1", 0), DType, REAL),
    ], (Sample(EMPTY, 1), (0, 3))),
    "prelu": Row(
        lambda x, w: np.where(x > 0, x, x * (w if w.size == 1 else w[None, :, None])),
        [Sample(Z, np.array(0.25)), Sample(Z, np.array([0.25])), Sample(Z, np.array([0.1, 0.2, 0.3]))],
        [(Sample(Z, np.ones(2)), Shape, "prelu: expected one weight or 3"), (Sample(Z, np.ones((3, 1))), Shape, "prelu"), (Sample("1", 0.1), DType, REAL)],
        (Sample(EMPTY, np.array(0.1)), (0, 3)),
    ),
    "maxout": Row(
        lambda x, pieces, dim=-1: np.moveaxis(np.moveaxis(x, dim, -1).reshape(*np.moveaxis(x, dim, -1).shape[:-1], -1, pieces).max(-1), -1, dim),
        [Sample(X, 2), Sample(draw(4, 3), 2, 0)],
        [(Sample(X, 3), Shape, "maxout: expected a dimension that 3 pieces divide"), (Sample(X, 0), Shape, "maxout"), (Sample(X, 2, 5), Shape, f"maxout: {BAD_DIM}")],
        (Sample(EMPTY, 3), (0, 1)),
    ),
    # Shape
    "reshape": Row(np.reshape, [Sample(X, (2, -1)), Sample(X, (4, 3)), Sample(draw(), (1,))], [
        (Sample(X, (5, 2)), Shape, "reshape"), (Sample(X, (-1, -1)), Shape, "reshape"), (Sample(X, (2.5,)), TypeError, "float|int"),
    ], (Sample(EMPTY, (3, 0)), (3, 0))),
    "flatten": Row(
        lambda x, start=0, end=-1: x.reshape(*x.shape[:start], -1, *x.shape[end % x.ndim + 1 :]), [Sample(X), Sample(Z, 1), Sample(Z, 0, 1)],
        [(Sample(X, 1, 0), Shape, "flatten: expected start_dim before end_dim"), (Sample(X, 5), Shape, f"flatten: {BAD_DIM}"), (Sample("1"), DType, REAL)],
        (Sample(EMPTY), (0,)),
    ),
    "squeeze": Row(
        lambda x, dim=None: x.squeeze(dim), [Sample(draw(3, 1, 2)), Sample(draw(3, 1, 2), 1)],
        [(Sample(X, 5), Shape, f"squeeze: {BAD_DIM}"), (Sample(X, "a"), TypeError, "str|int"), (Sample("1"), DType, REAL)], (Sample(EMPTY), (0, 3)),
    ),
    "unsqueeze": Row(np.expand_dims, [Sample(X, 1), Sample(X, -1)], [
        (Sample(X, 5), Shape, f"unsqueeze: {BAD_DIM}"), (Sample(X, "a"), TypeError, "str|int"), (Sample("1", 0), DType, REAL),
    ], (Sample(EMPTY, 0), (1, 0, 3))),
    "transpose": Row(np.swapaxes, [Sample(X, 0, 1), Sample(Z, -1, 0)], [
        (Sample(X, 0, 5), Shape, f"transpose: {BAD_DIM}"), (Sample(X, 5, 0), Shape, f"transpose: {BAD_DIM}"), (Sample("1", 0, 0), DType, REAL),
    ], (Sample(EMPTY, 0, 1), (3, 0))),
    "t": Row(np.transpose, [Sample(X), Sample(draw(3))], [
        (Sample(Z), Shape, "t: expected at most 2 dimensions"), (Sample("1"), DType, REAL), (Sample({}), DType, REAL),
    ], (Sample(EMPTY), (3, 0))),
    "permute": Row(np.transpose, [Sample(Z, (2, 0, 1)), Sample(X, (-1, 0))], [
        (Sample(X, (0, 0)), Shape, "permute: expected a permutation"), (Sample(X, (0,)), Shape, "permute"), (Sample(X, (0, 5)), Shape, f"permute: {BAD_DIM}"),
    ], (Sample(EMPTY, (1, 0)), (3, 0))),
    "broadcast_to": Row(np.broadcast_to, [Sample(draw(3, 1), (2, 3, 4)), Sample(draw(), (2, 2))], [
        (Sample(X, (4, 4)), Shape, "broadcast_to: shapes do not broadcast"), (Sample(X, (4,)), Shape, "broadcast_to"), (Sample(X, (-1, 4)), Shape, "broadcast_to: expected sizes of at least 0"),
    ], (Sample(EMPTY, (2, 0, 3)), (2, 0, 3))),
    "expand": Row(
        lambda x, *sizes: np.broadcast_to(x, [x.shape[i - len(sizes)] if n == -1 else n for i, n in enumerate(sizes)]), [Sample(draw(3, 1), 2, -1, 4)],
        [(Sample(X, 4, 4), Shape, "shapes do not broadcast"), (Sample(X, -1), Shape, "expand|broadcast"), (Sample(X, 2.5), TypeError, "float|int")],
        (Sample(EMPTY, 2, -1, -1), (2, 0, 3)), home=None,
    ),
    "view": Row(lambda x, *shape: x.reshape(shape), [Sample(X, 2, -1), Sample(X, 12)], [
        (Sample(X, 5), Shape, "view"), (Sample(X, -1, -1), Shape, "view"), (Sample(X, 2.5), TypeError, "float|int"),
    ], (Sample(EMPTY, 3, 0), (3, 0)), home=None),
    "cat": Row(
        lambda parts, dim=0: np.concatenate(parts, dim), [Sample([X, Y]), Sample([X, draw(3, 2)], 1), Sample([Z, Z, Z], -1)],
        [
            (Sample([X, Z]), Shape, "cat: expected shapes equal"), (Sample([]), Config, "at least one tensor"),
            (Sample([X], 5), Shape, f"cat: {BAD_DIM}"), (Sample([X, "a"]), DType, REAL), (Sample([1.0]), Shape, "cat: expected at least one dimension"),
        ],
        (Sample([EMPTY, EMPTY]), (0, 3)), is_method=False,
    ),
    "stack": Row(
        lambda parts, dim=0: np.stack(parts, dim), [Sample([X, Y]), Sample([X, Y], -1)],
        [(Sample([X, X.T]), Shape, "stack: expected equal shapes"), (Sample([]), Config, "at least one tensor"), (Sample([X], 5), Shape, "dimension 5 is out of range")],
        (Sample([EMPTY, EMPTY]), (2, 0, 3)), is_method=False,
    ),
    # Along dimensions
    "cumprod": Row(np.cumprod, [Sample(X, 0), Sample(Z, 1), Sample(draw(7), -1), Sample(np.array([[2.0, 0, 3, 0, 5]]), 1), Sample(draw(1), 0)], along_errors("cumprod"), (Sample(EMPTY, 0), (0, 3))),
    "cumsum": Row(np.cumsum, [Sample(X, 0), Sample(Z, 1), Sample(X, -1), Sample(draw(1), 0)], along_errors("cumsum"), (Sample(EMPTY, 0), (0, 3))),
    "gather": Row(
        lambda x, dim, index: np.take_along_axis(x[tuple(slice(None if d == dim % x.ndim else n) for d, n in enumerate(np.shape(index)))], np.asarray(index), dim),
        [Sample(X, 1, PICK), Sample(X, 0, FEW), Sample(Z, -1, [[[3], [0], [3]]]), Sample(draw(3), 0, [2, 2])],
        [
            (Sample(X, 1, [[4], [0], [0]]), Range, "gather: index 4 is out of range for dimension 1 of size 4"),
            (Sample(X, 1, [[-1], [0], [0]]), Range, "gather: index -1 is out of range"),
            (Sample(X, 1, [0, 1]), Shape, "gather: expected an index of as many dimensions"),
            (Sample(X, 1, [[0]] * 4), Shape, r"no larger sizes than the input's \(3, 4\) but for dimension 1, got shape \(4, 1\)"),
            (Sample(X, 1, [[0.5]]), DType, "gather: expected int64 indices, got float32"),
            (Sample(X, 5, PICK), Shape, f"gather: {BAD_DIM}"),
        ],
        (Sample(EMPTY, 0, np.zeros((0, 3), int)), (0, 3)),
    ),
    "scatter_add": Row(
        scattered,
        [Sample(X, 1, PICK, draw(3, 2)), Sample(X, 0, FEW, draw(2, 3)), Sample(draw(3), 0, [2, 2, 0, 2], draw(4))],
        [
            (Sample(X, 1, [[4], [0], [0]], np.ones((3, 1))), Range, "scatter_add: index 4 is out of range for dimension 1 of size 4"),
            (Sample(X, 1, PICK, np.ones((3, 1))), Shape, r"no larger sizes than those of src, \(3, 1\), got shape \(3, 2\)"),
            (Sample(X, 0, [[0] * 5], np.ones((1, 5))), Shape, "scatter_add: expected an index"),
            (Sample(X, 1, PICK, np.ones((3, 2), np.float32)), DType, "scatter_add: expected float64, got float32"),
            (Sample(X, 1, PICK.astype(float), np.ones((3, 2))), DType, "scatter_add: expected int64 indices, got float64"),
        ],
        (Sample(EMPTY, 0, np.zeros((0, 3), int), EMPTY), (0, 3)),
    ),
    "index_select": Row(
        lambda x, dim, index: np.take(x, index, dim), [Sample(X, 0, [2, 0, 2]), Sample(Z, 1, [1]), Sample(X, -1, np.array([3, 3, 0]))],
        [
            (Sample(X, 0, [3]), Range, "index_select: index 3 is out of range for dimension 0 of size 3"),
            (Sample(X, 0, [-1]), Range, "index_select: index -1 is out of range"),
            (Sample(X, 0, PICK), Shape, "index_select: expected a vector of indices"),
            (Sample(X, 0, [0.5]), DType, "index_select: expected int64 indices, got float32"),
            (Sample(X, 5, [0]), Shape, f"index_select: {BAD_DIM}"),
        ],
        (Sample(X, 0, []), (0, 4)),
    ),
    "masked_select": Row(
        lambda x, mask: np.broadcast_to(x, np.broadcast_shapes(x.shape, mask.shape))[np.broadcast_to(mask, np.broadcast_shapes(x.shape, mask.shape))],
        [Sample(X, MASK), Sample(X, np.array([True, False, True, True])), Sample(draw(3, 1), MASK)],
        [
            (Sample(X, np.ones(4)), DType, "masked_select: expected a bool mask, got float64"),
            (Sample(X, np.ones(3, bool)), Shape, "masked_select: shapes do not broadcast"),
            (Sample(X, "a"), DType, REAL),
        ],
        (Sample(EMPTY, np.ones(3, bool)), (0,)),
        dynamic="masked_select: its shape depends on data",
    ),
    "narrow": Row(
        lambda x, dim, start, length: np.take(x, range(start % x.shape[dim], start % x.shape[dim] + length), dim), [Sample(X, 1, 1, 2), Sample(Z, 0, -1, 1)],
        [
            (Sample(X, 1, 3, 2), Shape, r"narrow: expected a range within 4, got 2 from 3 on"), (Sample(X, 1, -5, 1), Shape, "narrow: expected a start within dimension 1"),
            (Sample(X, 1, 0, -1), Config, "narrow: length must be at least 0, got -1"), (Sample(X, 5, 0, 1), Shape, f"narrow: {BAD_DIM}"),
        ],
        (Sample(EMPTY, 1, 1, 2), (0, 2)),
    ),
    "select": Row(
        lambda x, dim, index: np.take(x, index, dim), [Sample(X, 0, 1), Sample(Z, 1, -1)],
        [
            (Sample(X, 0, 3), Range, "select: index 3 is out of range for dimension 0 of size 3"), (Sample(X, 5, 0), Shape, f"select: {BAD_DIM}"),
            (Sample(EMPTY, 0, 0), Range, "select: index 0 is out of range"), (Sample(np.array(1.0), 0, 0), Shape, "select"),
        ],
        (Sample(EMPTY, 1, 2), (0,)),
    ),
    "sort": Row(sort, [Sample(X), Sample(X, 0, True), Sample(Z, 1, stable=True)], along_errors("argsort"), (Sample(EMPTY, 0), (0, 3))),
    "argsort": Row(lambda *a, **o: sort(*a, **o)[1], [Sample(X), Sample(X, 0, True)], along_errors("argsort"), (Sample(EMPTY, 0), (0, 3)), differentiable=False),
    "topk": Row(
        topk, [Sample(X, 2), Sample(X, 3, 0), Sample(Z, 1, 1, False), Sample(X, 4, largest=False, sorted=False)],
        [
            (Sample(X, 5), Shape, "topk: expected k of at most 4 for dimension 1, got 5"), (Sample(X, -1), Config, "topk: k must be at least 0, got -1"),
            (Sample(X, 1, 5), Shape, f"topk: {BAD_DIM}"),
        ],
        (Sample(X, 0), (3, 0)),
    ),
    "split": Row(
        split, [Sample(X, 2), Sample(X, 3, 1), Sample(X, [1, 3], 1)],
        [
            (Sample(X, 0), Config, "split: split_size must be at least 1, got 0"), (Sample(X, [1, 1]), Shape, r"split: expected sections that add up to 3, got \[1, 1\]"),
            (Sample(X, [-1, 4]), Config, "split: each section must be at least 0"), (Sample(X, 1, 5), Shape, f"split: {BAD_DIM}"),
        ],
        (Sample(EMPTY, 2), (0, 3)),
    ),
    "chunk": Row(
        lambda x, chunks, dim=0: split(x, -(-x.shape[dim] // chunks), dim), [Sample(X, 2), Sample(X, 3, 1), Sample(X, 9)],
        [(Sample(X, 0), Config, "chunk: chunks must be at least 1, got 0"), (Sample(X, 1, 5), Shape, f"chunk: {BAD_DIM}"), (Sample(np.array(1.0), 1), Shape, "chunk: expected at least one dimension")],
        (Sample(EMPTY, 2), (0, 3)),
    ),
    "roll": Row(
        np.roll, [Sample(X, 1, 0), Sample(X, 5), Sample(Z, (1, -2), (0, 2)), Sample(X, 0, 1)],
        [(Sample(X, (1, 2), 0), Shape, "roll: expected a shift for each of the 1 dims, got 2 shifts"), (Sample(X, 1, 5), Shape, f"roll: {BAD_DIM}"), (Sample(X, 0.5, 0), TypeError, "float|int|sequence")],
        (Sample(EMPTY, 1, 0), (0, 3)),
    ),
    "flip": Row(
        np.flip, [Sample(X, 0), Sample(Z, (0, 2)), Sample(X, (-1,))],
        [(Sample(X, 5), Shape, f"flip: {BAD_DIM}"), (Sample(X, (0, 0)), Shape, "flip: expected each dimension once"), (Sample("1", 0), DType, REAL)],
        (Sample(EMPTY, 0), (0, 3)),
    ),
    "pad": Row(
        pad,
        [Sample(X, (1, 2)), Sample(Z, (0, 1, 2, 0), "constant", 1.5), Sample(X, (-1, 1, 0, -1)), *(Sample(X, (2, 1, 1, 0), mode) for mode in ("reflect", "replicate", "circular"))],
        [
            (Sample(X, (1,)), Shape, r"pad: expected pairs \(before, after\), got 1 numbers"), (Sample(X, (1,) * 6), Shape, "pad: expected at most 2 pairs"),
            (Sample(X, (4, 0), "reflect"), Shape, r"pad: expected pads that fit dimension 1 of \(3, 4\), got \(4, 0\)"), (Sample(X, (-3, -3)), Shape, "pad: expected pads that fit"),
            (Sample(X, (1, 1), "mirror"), Config, "pad: mode must be 'constant'"), (Sample(X, (1, 1), "reflect", 1.0), Config, "pad: value must be None for mode"),
            (Sample(EMPTY, (0, 0, 1, 0), "replicate"), Shape, "pad: expected pads that fit"), (Sample(X, (2**60, 2**60)), Shape, r"at most 2\^48 elements"),
        ],
        (Sample(EMPTY, (0, 1, 1, 1)), (2, 4)),
        home=fg.nn.functional, is_method=False,
    ),
    "one_hot": Row(
        lambda x, n=-1: np.eye(n if n > 0 else np.max(x) + 1, dtype=int)[x], [Sample(PICK, 5), Sample(PICK), Sample(np.array(2), 3)],
        [
            (Sample(PICK, 3), fg.LabelError, r"one_hot: class index 3 at position 1 must be at least 0 and below 3"), (Sample(np.array([-1]), 3), fg.LabelError, "class index -1 at position 0"),
            (Sample(np.ones(2), 3), DType, "one_hot: expected int64 classes, got float64"), (Sample(PICK, 0), Config, "one_hot: num_classes must be at least 1, got 0"),
            (Sample(np.zeros(0, int)), Config, "one_hot: expected num_classes for an empty tensor"),
        ],
        (Sample(np.zeros((0, 2), int), 3), (0, 2, 3)),
        differentiable=False, home=fg.nn.functional, is_method=False,
    ),
}  # fmt: skip

# Methods and functions that are no operations on values: conversion, metadata, autograd, in-place changes.
NOT_OPS = {
    "as_tensor", "numel", "T", "data", "device", "dim", "dtype", "grad", "is_contiguous", "is_leaf", "item", "ndim", "numpy", "op", "parents",
    "register_hook", "requires_grad", "retain_grad", "shape", "size", "stride", "tolist", "backward", "detach", "to", "double", "float", "long",
}  # fmt: skip
