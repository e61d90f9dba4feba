"""What derivatives cost: operations, time and memory of a function's value, gradient and Hessian product."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd.autograd import no_grad
from ferrograd.columns import aligned
from ferrograd.plain import plain
from ferrograd.recorded import Recorded
from ferrograd.tree import flatten

__all__ = ["Cost", "Work", "measure"]

# A measurement is the best of the runs that fit into so many seconds, and of three at least.
_SECONDS = 0.1
# Centred differences that take longer are not run.
_LONGEST = 1.0
# Any step costs the same.
_STEP = 1e-6


@dataclass(frozen=True)
class Work:
    """One computation of a `Cost`.

    Attributes
    ----------
    operations : int
        A multiply-add of a matrix product is 2. An elementwise operation is 1 per element of its result, and
        3 for the gradients of activations such as ``g s (1 - s)``; a reduction 1 per element of its operand.
        Moving values (views, copies, joins, lookups) is none, nor is what a gate or a `Function` does.
    sums : int
        Additions where several gradients arrive at one value, or several tangents at one result, by element;
        not in `operations`.
    seconds : float
        Best of a few runs.
    extrapolated : bool
        Whether `seconds` is the time of a value times the number of values: it was too long to run.

    Examples
    --------
    >>> import ferrograd as fg
    >>> cost = fg.func.cost(lambda x: (x * x).sum(), fg.tensor([1.0, 2.0, 3.0]))
    >>> cost.value.operations, cost.value.extrapolated
    (6, False)
    """

    operations: int
    sums: int
    seconds: float
    extrapolated: bool = False


@dataclass(frozen=True)
class Cost:
    """What `ferrograd.func.cost` returns; printed, it is a table.

    Attributes
    ----------
    inputs : int
        Elements of the inputs.
    value, gradient, product, differences : Work
        Of the value; of value and gradient; of value, gradient and one product with the Hessian; of the
        gradient by centred differences.
    kept_bytes : int
        What the operations of a value keep for backward, without the inputs.

    Examples
    --------
    >>> import ferrograd as fg
    >>> cost = fg.func.cost(lambda x: (x * x).sum(), fg.tensor([1.0, 2.0, 3.0]))
    >>> cost.inputs, cost.gradient.operations
    (3, 12)
    >>> sorted(cost.to_dict()["value"])
    ['extrapolated', 'operations', 'seconds', 'sums']
    """

    inputs: int
    value: Work
    gradient: Work
    product: Work
    differences: Work
    kept_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts and numbers."""
        found: dict[str, Any] = plain(self)
        return found

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("", "operations", "per value", "sums", "seconds", "per value")]
        works = {
            "value": self.value,
            "value + gradient": self.gradient,
            "+ Hessian product": self.product,
            "centred differences": self.differences,
        }
        for name, work in works.items():
            counted = f"{work.operations / max(1, self.value.operations):.2f}"
            timed = f"{work.seconds / self.value.seconds:.2f}"
            seconds = f"{work.seconds:.3g}{' (extrapolated)' if work.extrapolated else ''}"
            rows.append((name, f"{work.operations:,}", counted, f"{work.sums:,}", seconds, timed))
        lines = [line.rstrip() for line in aligned(rows, left=1)]
        lines.append(f"inputs: {self.inputs:,}; kept for backward: {self.kept_bytes:,} bytes")
        return "\n".join(lines)


def _seconds(function: Callable[[], Any]) -> float:
    best, spent, runs = float("inf"), 0.0, 0
    while runs < 3 or spent < _SECONDS:
        start = perf_counter()
        function()
        took = perf_counter() - start
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best


def measure(
    func: Callable[..., Tensor],
    inputs: tuple[Any, ...],
    gradient: Callable[[], Any],
    product: Callable[[], Any],
) -> Cost:
    """Count and time `func` at `inputs` and its derivatives there, which the callers compute."""
    leaves, arrange = flatten("cost", "an input", inputs)

    def flat(values: list[Tensor]) -> list[Tensor]:
        return flatten("cost", "the function's output", func(*arrange(values)))[0]

    recorded = Recorded("cost", flat, leaves, connects=False)
    kept = sum(op[2] for op in _core.recorded([recorded.scalar()]))
    moved = [x.detach().clone() for x in leaves]

    @no_grad()
    def value() -> None:
        func(*arrange(moved))

    @no_grad()
    def differences() -> None:
        for x in moved:
            start = x.numpy()
            for j in range(x.numel()):
                for step in (_STEP, -_STEP):
                    beside = start.copy()
                    beside.reshape(-1)[j] += step
                    x.copy_(beside)
                    func(*arrange(moved))
            x.copy_(start)

    def work(function: Callable[[], Any]) -> Work:
        _, operations, sums = _core.counted(function)
        return Work(operations, sums, _seconds(function))

    of_value = work(value)
    count = sum(x.numel() for x in leaves)
    by_differences = Work(2 * count * of_value.operations, 0, 2 * count * of_value.seconds, extrapolated=True)
    if by_differences.seconds < _LONGEST:
        start = perf_counter()
        differences()
        by_differences = Work(by_differences.operations, 0, perf_counter() - start)
    return Cost(count, of_value, work(gradient), work(product), by_differences, kept)
