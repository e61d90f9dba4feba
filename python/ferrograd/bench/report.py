"""What the terminal shows of the results."""

import statistics
from collections.abc import Iterator
from typing import Any

from ferrograd.bench.peers import OURS
from ferrograd.bench.problem import TABLE

# A row whose peak moved by more was disturbed.
_MOST_DRIFT = 0.03
# A part of a step that takes less is among the rest.
_LEAST_SHARE = 0.04


def lines(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    if "mnist" in results:
        yield from _mnist(results["mnist"])
    elif "sweep" in results:
        yield from _sweep(results)
    else:
        yield from _rows(results)
    yield ""
    yield from _notes(results)


def _rows(results: dict[str, Any]) -> Iterator[str]:
    others = [peer for peer in results["peers"] if peer != OURS]
    # The targets are for whole loops in float32.
    targets = TABLE if (results["mode"], results["dtype"]) == ("loop", "float32") else {}
    header = f"{'network, batch':22}{'MFLOP':>8}{OURS + ' us':>14}"
    header += "".join(f"{peer:>15}" for peer in others)
    header += f"  {'over best':>9} {'target':>6} {'at peak':>7}"
    yield f"{header}  {'of peak':>7} {'target':>6}  {'of memory':>9}"
    for row in results["rows"]:
        target = targets.get(row["name"])
        line = f"{row['name']:22}{row['flop'] / 1e6:8.1f}" + _micros(row["peers"].get(OURS, {}))
        for peer in others:
            over = row["peers"].get(peer, {}).get("over_ours")
            line += f"{'-' if over is None else f'x {over:.2f}':>15}"
        ratio, share, memory = (row.get(key) for key in ("ratio", "share_of_peak", "share_of_memory"))
        line += f"  {_number(ratio, '.2f'):>9} {_number(target and target.ratio, '.2f'):>6}"
        line += f" {_number(row.get('ratio_at_peak'), '.2f'):>7}"
        line += f"  {_number(share, '.0%'):>7} {_number(target and target.share, '.0%'):>6}"
        yield f"{line}  {_number(memory, '.0%'):>9}"
    yield "x: time over ours, median of the rounds' ratios; over best: our time over that of the fastest peer"
    yield "at peak: the same if our step took no longer than its operations at the measured FMA peak"
    if any("profile" in row for row in results["rows"]):
        yield ""
        yield "where our step goes on one thread: share of its time (its product's share of the peak)"
        yield from (_profile(row) for row in results["rows"] if "profile" in row)


def _profile(row: dict[str, Any]) -> str:
    parts, peak = row["profile"]["parts"], row["profile"]["peak"]
    shown = []
    for part in sorted(parts, key=lambda part: -part["seconds"]):
        if part["share"] >= _LEAST_SHARE:
            rate = f" ({part['flop'] / part['seconds'] / peak:.0%})" if part["flop"] else ""
            shown.append(f"{part['name']} {part['share']:.0%}{rate}")
    rest = 1 - sum(part["share"] for part in parts if part["share"] >= _LEAST_SHARE)
    return f"{row['name']:22}" + ", ".join([*shown, f"rest {rest:.0%}"])


def _sweep(results: dict[str, Any]) -> Iterator[str]:
    summary = results["sweep"]
    yield f"{summary['shapes']} of {summary['asked']} random networks, seed {summary['seed']}"
    if summary["shapes"]:
        yield f"time over the best peer's: geometric mean {summary['geometric_mean']:.2f} (target 0.55)"
        yield f"worst {summary['worst']:.2f} (target 1.00) at {summary['worst_shape']}"
        yield f"shapes at which a peer was faster: {len(summary['misses'])}"
        for name, ratio, best in summary["misses"]:
            yield f"  {ratio:6.2f}  {best:14}  {name}"


def _mnist(found: dict[str, Any]) -> Iterator[str]:
    yield f"MNIST, {found['name']}, {found['epochs']} epochs, data in memory"
    yield f"{'':16}{'seconds':>9}{'over ours':>11}{'accuracy':>10}"
    own = [run["seconds"] for run in found["runs"].get(OURS, [])]
    for peer, runs in found["runs"].items():
        seconds = [run["seconds"] for run in runs]
        ratio = statistics.median(s / o for s, o in zip(seconds, own, strict=False)) if own else None
        accuracy = statistics.median(run["accuracy"] for run in runs)
        yield f"{peer:16}{statistics.median(seconds):9.2f}{_number(ratio, '.2f'):>11}{accuracy:10.2%}"


def _notes(results: dict[str, Any]) -> Iterator[str]:
    machine, rows = results["machine"], results["rows"]
    yield (
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, load {machine['load']}; "
        f"threads {results['threads']}, {results['dtype']}, mode {results['mode']}, "
        f"{results['rounds']} rounds"
    )
    yield ", ".join([f"Python {machine['python']}", *(f"{k} {v}" for k, v in results["versions"].items())])
    peak = max((row["peak"] for row in rows if "peak" in row), default=results["peak"])
    yield f"FMA peak {peak / 1e9:.0f} GF/s, memory {results['triad'] / 1e9:.1f} GB/s (triad)"
    for peer, reason in results["absent"].items():
        yield f"absent: {peer} ({reason})"
    for row in rows:
        if "error" in row:
            yield f"{row['name']}: not measured: {row['error']}"
        for peer, found in row["peers"].items():
            if "error" in found:
                yield f"{row['name']}: {peer} was not timed: {found['error']}"
        if row.get("peak_drift", 0) > _MOST_DRIFT:
            yield f"{row['name']}: the machine was not quiet, its FMA peak moved by {row['peak_drift']:.0%}"
        if "sweep" not in results and 0 < row["checked_steps"] < 50:
            yield f"{row['name']}: losses were compared after {row['checked_steps']} steps, not 50"
    if results["stolen"]:
        yield f"the hypervisor took {results['stolen']:.1f} s from this machine meanwhile"


def _micros(found: dict[str, Any]) -> str:
    return f"{found['median'] * 1e6:14.1f}" if "median" in found else f"{'-':>14}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
