"""`ferrograd bench`: reads the options, runs what they ask for, writes the report."""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ferrograd._core import ConfigError
from ferrograd.bench import chart, machine, report, sweep
from ferrograd.bench.compare import Options, check, measure, start
from ferrograd.bench.peers import MODES, OURS, PEERS
from ferrograd.bench.problem import DTYPES, TABLE, Problem
from ferrograd.bench.process import Worker, WorkerError, usable_cpus

MNIST = Problem((784, 128, 10), 128, "adam")
_QUICK_ROWS = ("2-16-16-2:32", "64-64-10:64", "784-128-10:64")
# Where the weights are more, they come from memory in each step.
_CACHED_BYTES = 32 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--rows",
        metavar="ROW,ROW",
        help="networks as WIDTHS:BATCH[:adam], such as 784-128-10:64 (default: the table)",
    )
    what.add_argument("--sweep", type=int, metavar="N", help="N random networks beside numpy and JAX")
    what.add_argument("--mnist", type=Path, metavar="FOLDER", help="5 epochs of MNIST; the four IDX files")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="loop",
        help="whole loop, or step by step from Python (default: loop)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of each library (default: all CPUs)"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="times that each is timed (default: 7; MNIST, sweep: 3)"
    )
    parser.add_argument(
        "--peers", metavar="NAME,NAME", help=f"of {', '.join(list(PEERS)[1:])} (default: all)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sweep (default: 0)")
    parser.add_argument("--minutes", type=float, default=20.0, help="the sweep stops after (default: 20)")
    parser.add_argument("--quick", action="store_true", help="three small rows, short runs")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-results"), metavar="FOLDER",
        help="for results.json and results.png (default: bench-results)",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show what the libraries write to stderr")


def run(arguments: argparse.Namespace) -> None:
    """Time training steps beside numpy, scikit-learn, JAX and PyTorch, as many as are installed."""
    options, names = _options(arguments), _peers(arguments)
    problems = _problems(arguments)
    _make_folder(arguments.out)
    results: dict[str, Any] = {"machine": machine.describe(), **dataclasses.asdict(options)}
    stolen = machine.stolen()
    workers, absent = start([OURS, *names], options.threads, verbose=arguments.verbose)
    if OURS in absent:
        raise WorkerError(f"ferrograd itself cannot be started: {absent[OURS]}")
    reference = Worker("numpy", options.threads, verbose=arguments.verbose)
    try:
        results |= {
            "dtype": arguments.dtype,
            "peers": list(workers),
            "absent": absent,
            "versions": {name: text for worker in workers.values() for name, text in worker.versions.items()},
            "rows": [],
        }
        peak = workers[OURS].ask("peak", memory=True)
        results |= {"peak": peak[f"fma_{arguments.dtype}"], "triad": peak["triad"]}
        if arguments.mnist is not None:
            results |= _mnist(workers, reference, arguments, options)
        else:
            deadline = time.monotonic() + 60 * arguments.minutes if arguments.sweep else None
            results["rows"] = _rows(workers, reference, problems, options, results["triad"], deadline)
        if arguments.sweep:
            about = {"asked": arguments.sweep, "seed": arguments.seed}
            results["sweep"] = about | sweep.summarise(results["rows"])
    finally:
        for worker in (*workers.values(), reference):
            worker.close()
    after = machine.stolen()
    results["stolen"] = None if stolen is None or after is None else round(after - stolen, 1)
    print("\n".join(report.lines(results)))
    _write(results, arguments.out)


def _rows(
    workers: dict[str, Worker],
    reference: Worker,
    problems: Iterable[Problem],
    options: Options,
    triad: float,
    deadline: float | None,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        for problem in problems:
            if deadline is not None and time.monotonic() > deadline:
                break
            rows.append(_row(workers, reference, problem, options, triad))
            ratio, best = rows[-1].get("ratio"), rows[-1].get("best")
            _progress(problem.name if ratio is None else f"{problem.name}: {ratio:.2f} of {best}'s time")
    except KeyboardInterrupt:
        # The rows that are done took minutes.
        if not rows:
            raise
        _progress("interrupted, this is what was measured")
    return rows


def _row(
    workers: dict[str, Worker], reference: Worker, problem: Problem, options: Options, triad: float
) -> dict[str, Any]:
    try:
        row = measure(workers, reference, problem, options)
    except WorkerError as error:
        empty = {"name": problem.name, "flop": problem.flop, "checked_steps": 0, "peers": {}}
        return empty | {"error": str(error)}
    ours = row["peers"].get(OURS, {}).get("median")
    if ours is not None and problem.weight_traffic / 3 > _CACHED_BYTES:
        row["share_of_memory"] = problem.weight_traffic / ours / triad
    return row


def _mnist(
    workers: dict[str, Worker], reference: Worker, arguments: argparse.Namespace, options: Options
) -> dict[str, Any]:
    problem = dataclasses.replace(MNIST, dtype=arguments.dtype)
    row, ready = check(workers, reference, problem, options)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ready}
    for _ in range(options.rounds):
        for name in ready:
            asked = {"folder": str(arguments.mnist), "epochs": 5, "problem": dataclasses.asdict(problem)}
            runs[name].append(workers[name].ask("mnist", **asked))
            _progress(f"{name}: {runs[name][-1]['seconds']:.2f} s")
    return {"rows": [row], "mnist": {"name": problem.name, "epochs": 5, "runs": runs}}


def _options(arguments: argparse.Namespace) -> Options:
    cpus = len(usable_cpus())
    threads = cpus if arguments.threads is None else arguments.threads
    if not 1 <= threads <= cpus:
        raise ConfigError(f"threads: expected 1 to {cpus}, the CPUs that can be used, got {threads}")
    is_table = arguments.sweep is None and arguments.mnist is None
    rounds = (
        arguments.rounds if arguments.rounds is not None else 7 if is_table and not arguments.quick else 3
    )
    for name, value in (("rounds", rounds), ("sweep", arguments.sweep), ("minutes", arguments.minutes)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name}: expected a positive number, got {value}")
    if arguments.seed < 0:
        raise ConfigError(f"seed: expected no negative number, got {arguments.seed}")
    if is_table and not arguments.quick:
        return Options(arguments.mode, threads, rounds, profiles=True)
    return Options(arguments.mode, threads, rounds, seconds=0.05, check_flop=2e10, profiles=is_table)


def _peers(arguments: argparse.Namespace) -> list[str]:
    others = [name for name in PEERS if name != OURS]
    if arguments.peers is None:
        return ["numpy", "jax"] if arguments.sweep is not None else others
    names = [name.strip() for name in arguments.peers.split(",") if name.strip()]
    for name in names:
        if name not in others:
            raise ConfigError(f"peers: expected some of {', '.join(others)}, got {name!r}")
    return list(dict.fromkeys(names))


def _problems(arguments: argparse.Namespace) -> Iterable[Problem]:
    if arguments.sweep is not None:
        return itertools.islice(sweep.draw(arguments.seed, arguments.dtype), arguments.sweep)
    names = _QUICK_ROWS if arguments.quick else tuple(TABLE)
    if arguments.rows is not None:
        names = tuple(name.strip() for name in arguments.rows.split(","))
    return [Problem.parse(name, arguments.dtype) for name in names]


def _make_folder(folder: Path) -> None:
    """Find out before minutes of work whether their results can be written."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out: {str(folder)!r} is not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {str(folder)!r} cannot be made: {error.strerror}") from error


def _write(results: dict[str, Any], folder: Path) -> None:
    try:
        path = folder / "results.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path}")
        if chart.draw(results, folder / "results.png"):
            print(f"wrote {folder / 'results.png'}")
    except OSError as error:
        raise ConfigError(f"out: {str(folder)!r} cannot be written: {error.strerror}") from error


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
