"""The results as a picture: time of a step over ours, a line for each row."""

import textwrap
from pathlib import Path
from typing import Any

from ferrograd.bench.peers import OURS

# Okabe and Ito's colours, told apart by colour-blind readers; the markers tell them apart in grey.
_STYLE = {
    "numpy": ("#E69F00", "o"),
    "scikit-learn": ("#009E73", "s"),
    "jax": ("#0072B2", "^"),
    "torch": ("#D55E00", "D"),
    "torch-compiled": ("#CC79A7", "v"),
}


def draw(results: dict[str, Any], path: Path) -> bool:
    """Write a PNG file; return False where matplotlib is not installed or there is nothing to draw."""
    rows = [row for row in results["rows"] if "ratio" in row]
    try:
        import matplotlib
    except ImportError:
        return False
    if not rows:
        return False
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    is_sweep = "sweep" in results
    height = 5.0 if is_sweep else 1.9 + 0.5 * len(rows)
    figure = Figure(figsize=(9, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    (_sweep if is_sweep else _table)(axes, results, rows)
    axes.grid(color="#DDDDDD", axis="both" if is_sweep else "x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    kind = "whole loop" if results["mode"] == "loop" else "step by step from Python"
    axes.set_title(f"Training step, {kind}, {results['dtype']}, threads: {results['threads']}", loc="left")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    machine = results["machine"]
    versions = ", ".join(f"{name} {text}" for name, text in results["versions"].items())
    caption = (f"{machine['cpu']}; Python {machine['python']}, {versions}", machine["command"])
    lines = [line for text in caption for line in textwrap.wrap(text, 150, break_on_hyphens=False)]
    figure.supxlabel("\n".join(lines), fontsize=7, color="#555555")
    figure.savefig(path)
    return True


def _table(axes: Any, results: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A line for each row, from the fastest to the slowest."""
    rows = rows[::-1]
    slowest, fastest = 1.0, 1.0
    for y, row in enumerate(rows):
        times = {name: found["over_ours"] for name, found in row["peers"].items() if "over_ours" in found}
        slowest, fastest = max(slowest, *times.values()), min(fastest, *times.values())
        axes.plot([min(times.values()), max(times.values())], [y, y], color="#BBBBBB", linewidth=3, zorder=1)
        for number, (name, (colour, marker)) in enumerate(_STYLE.items()):
            if name in times:
                # Beside each other, so that equal times do not hide one.
                place = y + 0.1 * (number - 2)
                axes.plot(times[name], place, marker, color=colour, markersize=8, markeredgecolor="white")
    for name in results["peers"]:
        if name != OURS:
            colour, marker = _STYLE[name]
            axes.plot([], [], marker, color=colour, markersize=8, label=name)
    axes.axvline(1, color="black", linewidth=2, zorder=2, label="ferrograd")
    axes.set_xscale("log")
    axes.set_xlim(fastest / 1.25, slowest * 1.25)
    _set_ticks(axes.xaxis, fastest / 1.2, slowest * 1.2)
    labels = [f"{row['name']}\n{_time(row['peers'][OURS]['median'])}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("time over ferrograd's; under each network and batch: ferrograd's time of a step")


def _sweep(axes: Any, results: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A point for each network, marked by its fastest peer."""
    for name, (colour, marker) in _STYLE.items():
        found = [(row["flop"], row["ratio"]) for row in rows if row["best"] == name]
        if found:
            axes.plot(
                *zip(*found, strict=True), marker, color=colour, markeredgecolor="white",
                label=f"fastest peer {name}",
            )  # fmt: skip
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ratios = [row["ratio"] for row in rows]
    axes.set_ylim(min(0.5, *ratios) / 1.2, max(2.0, *ratios) * 1.2)
    _set_ticks(axes.yaxis, min(0.5, *ratios) / 1.2, max(2.0, *ratios) * 1.2)
    axes.set_xlabel("operations of a step")
    axes.set_ylabel("ferrograd's time over the fastest peer's")


def _set_ticks(axis: Any, low: float, high: float) -> None:
    """Label ratios as plain numbers."""
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    ticks = [step for step in steps if low < step < high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"
