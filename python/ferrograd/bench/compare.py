"""One problem, several workers: results are checked equal first, then rounds are interleaved and timed."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ferrograd.bench.peers import OURS
from ferrograd.bench.problem import Problem
from ferrograd.bench.process import Worker, WorkerError

# A loss may be off by this share of what training changed it by, and by this share of itself for rounding.
# Seen: 1e-7 and 1e-16 of the change, and 1e-5 where scikit-learn adds Adam's epsilon elsewhere.
TOLERANCE = {"float32": (1e-3, 1e-5), "float64": (1e-4, 1e-11)}


class Asked(Protocol):
    """What is needed of a `Worker`."""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Do and answer."""
        ...


@dataclasses.dataclass(frozen=True)
class Options:
    """How a problem is measured.

    Parameters
    ----------
    mode : str
        ``"loop"`` or ``"step"``, for all alike.
    threads : int
        Threads of each worker.
    rounds : int
        Times that each worker is timed, in turn.
    seconds : float
        Length of a timed run.
    check_flop : float
        Operations that the check may take; decides its number of steps.
    profiles : bool
        Whether to measure where the time of our step goes, in a loop.
    """

    mode: str = "loop"
    threads: int = 1
    rounds: int = 7
    seconds: float = 0.2
    check_flop: float = 2e11
    profiles: bool = False


def start(names: Iterable[str], threads: int, *, verbose: bool) -> tuple[dict[str, Worker], dict[str, str]]:
    """Start a worker for each peer that is installed; return them, and what is missing for the others."""
    workers: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            workers[name] = Worker(name, threads, verbose=verbose)
        except WorkerError as error:
            # Not installed, or not in a state to be imported.
            absent[name] = str(error)
    return workers, absent


def check(
    workers: Mapping[str, Asked], reference: Asked, problem: Problem, options: Options
) -> tuple[dict[str, Any], dict[str, Asked]]:
    """Train for a few steps everywhere from the same weights on the same batches, and compare the losses.

    Parameters
    ----------
    workers : mapping of str to Worker
        By name.
    reference : Worker
        Computes the loss in float64; is not timed.
    problem : Problem
        What is trained.
    options : Options
        How it is measured.

    Returns
    -------
    row : dict
        A row of ``results.json``; ``row["peers"][name]`` has ``loss``, or ``error`` where it failed.
    ready : dict of str to Worker
        Those that agree, the network still loaded.

    Raises
    ------
    WorkerError
        If the reference failed.
    """
    steps = problem.steps_to_check(options.check_flop)
    exact = _losses(reference, dataclasses.replace(problem, dtype="float64"), options.mode, steps)
    reference.ask("unload")
    row: dict[str, Any] = {
        "name": problem.name,
        "flop": problem.flop,
        "weights": problem.n_weights,
        "checked_steps": steps,
        "initial_loss": exact["initial"],
        "loss": exact["loss"],
        "peers": {},
    }
    ready: dict[str, Asked] = {}
    for name, worker in workers.items():
        try:
            found = _losses(worker, problem, options.mode, steps)
            if not agrees(found["loss"], exact, problem.dtype):
                raise WorkerError(f"disagrees: loss {found['loss']:.6g}, expected {exact['loss']:.6g}")
            row["peers"][name] = {"loss": found["loss"]}
            ready[name] = worker
        except WorkerError as error:
            row["peers"][name] = {"error": str(error)}
    return row, ready


def measure(
    workers: Mapping[str, Asked], reference: Asked, problem: Problem, options: Options
) -> dict[str, Any]:
    """Check the peers, time those that agree, and compare them with ours.

    Returns
    -------
    dict
        The row of `check`. ``peers[name]`` has in addition ``steps`` per run, ``seconds`` of a step per
        round, their ``median``, and ``over_ours``, the median of the rounds' ratios. ``ratio`` is our time
        over that of the ``best`` peer, ``ratio_at_peak`` what that would be if our step took no longer than
        its operations at the measured peak, and ``profile`` where its time goes (`Plan.cost`).

    Raises
    ------
    WorkerError
        If the reference failed.
    """
    row, ready = check(workers, reference, problem, options)
    for name, worker in list(ready.items()):
        try:
            row["peers"][name] |= worker.ask("prepare", seconds=options.seconds)
        except WorkerError as error:
            row["peers"][name] = {"error": str(error)}
            del ready[name]
    if OURS in ready:
        _time(ready, row, problem, options)
        if options.profiles and options.mode == "loop":
            row["profile"] = ready[OURS].ask("profile", seconds=options.seconds)
    for worker in ready.values():
        worker.ask("unload")
    return row


def agrees(loss: float, exact: dict[str, float], dtype: str) -> bool:
    """Whether a loss is the reference's, measured by how far training moved it."""
    of_change, of_loss = TOLERANCE[dtype]
    limit = of_change * abs(exact["loss"] - exact["initial"]) + of_loss * abs(exact["loss"])
    return abs(loss - exact["loss"]) <= limit


def _losses(worker: Asked, problem: Problem, mode: str, steps: int) -> dict[str, float]:
    worker.ask("load", problem=dataclasses.asdict(problem), mode=mode)
    return worker.ask("check", steps=steps)


def _time(ready: Mapping[str, Asked], row: dict[str, Any], problem: Problem, options: Options) -> None:
    """Fill in the times. The peak is measured before and after: a share of a peak of another minute lies."""
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    peaks = [ready[OURS].ask("peak")]
    for _ in range(options.rounds):
        for name in ready:
            seconds[name].append(ready[name].ask("time")["seconds"])
    peaks.append(ready[OURS].ask("peak"))

    for name, found in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(found, seconds[OURS], strict=True)]
        row["peers"][name] |= {
            "seconds": found,
            "median": statistics.median(found),
            "over_ours": statistics.median(ratios),
        }
    median = row["peers"][OURS]["median"]
    rates = [peak[f"fma_{problem.dtype}"] for peak in peaks]
    row["peak"] = max(rates)
    row["peak_drift"] = max(rates) / min(rates) - 1
    row["share_of_peak"] = problem.flop / median / max(rates)
    others = [name for name in seconds if name != OURS]
    if others:
        row["best"] = min(others, key=lambda name: row["peers"][name]["over_ours"])
        row["ratio"] = 1 / row["peers"][row["best"]]["over_ours"]
        row["ratio_at_peak"] = row["ratio"] * row["share_of_peak"]
