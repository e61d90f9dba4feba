"""Where the time of a training step goes."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ferrograd import _core
from ferrograd._core import ConfigError
from ferrograd.checks import check_int
from ferrograd.compiled import trained
from ferrograd.nn.module import Module
from ferrograd.optim import LBFGS
from ferrograd.plain import plain
from ferrograd.random import fork_rng
from ferrograd.threads import threads

if TYPE_CHECKING:
    from ferrograd.plan import Plan

__all__ = ["PartCost", "StepCost", "measure"]


@dataclass(frozen=True)
class PartCost:
    """An instruction of a step over all its rows, or the gradient of a parameter with its update.

    Attributes
    ----------
    name : str
        Operations that are one pass are joined by ``+``.
    seconds : float
        Of a step, on one thread.
    flop : int
        Floating-point operations of its matrix product, two to a multiply-add; 0 for what has none.
    """

    name: str
    seconds: float
    flop: int


@dataclass(frozen=True)
class StepCost:
    """What `Plan.cost` returns; printed, it is a table.

    Attributes
    ----------
    rows : int
        Of the batch.
    parts : tuple of PartCost
        In the order of the step.
    peak : float
        Floating-point operations in a second that one thread of this machine makes at most, measured at the
        same time.
    """

    rows: int
    parts: tuple[PartCost, ...]
    peak: float

    @property
    def seconds(self) -> float:
        """Of the whole step, on one thread."""
        return sum(part.seconds for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists and numbers."""
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "peak": self.peak,
            "parts": [plain(part) | {"share": part.seconds / self.seconds} for part in self.parts],
        }

    def __str__(self) -> str:
        wide = max(len("part"), *(len(part.name) for part in self.parts))
        flop = sum(part.flop for part in self.parts)
        lines = [f"{'part':{wide}} {'us':>9} {'time':>6} {'GFLOP/s':>8} {'of peak':>8}"]
        rows = [*((part.name, part.seconds, part.flop) for part in self.parts), ("step", self.seconds, flop)]
        for name, seconds, operations in rows:
            rate = operations / seconds
            product = f" {rate / 1e9:8.1f} {rate / self.peak:8.0%}" if operations else ""
            lines.append(f"{name:{wide}} {seconds * 1e6:9.1f} {seconds / self.seconds:6.0%}{product}")
        head = f"a step of {self.rows:,} rows on one thread, whose peak is {self.peak / 1e9:.0f} GFLOP/s"
        return "\n".join([head, *lines])


@fork_rng()
def measure(plan: "Plan", steps: int) -> StepCost:
    """Return what the parts of a plan take; the trainer stays as it is."""
    check_int("steps", steps, low=1)
    trainer = plan.trainer
    if isinstance(trainer.optimizer, LBFGS):
        raise ConfigError("cost: an L-BFGS step is several evaluations, whose number depends on the data")
    if not isinstance(trainer.model, Module):
        kind = type(trainer.model).__name__
        raise ConfigError(f"cost: model: expected a trainer of a Module, which is copied, got one of {kind}")
    data = plan.samples.repeated(plan.rows)
    twin = copy.deepcopy(trainer)
    with threads(1):
        engine = twin._engine("train", data, plan.rows).engine
        # Also gives the engine the rules of the update.
        twin._epoch(engine, data, plan.rows, None, drop_last=False)
        # The first steps find nothing in the caches.
        engine.profile(data.tables, plan.rows, max(1, steps // 4))
        found = engine.profile(data.tables, plan.rows, steps)
        peaks = _core.machine_peak(False)
    dtype = trained(trainer.optimizer)[0].dtype.name
    parts = tuple(PartCost(name, seconds, 2 * products) for name, seconds, products in found)
    return StepCost(plan.rows, parts, float(peaks[f"fma_{dtype}"]))
