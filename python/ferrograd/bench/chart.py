"""The results as a picture: time of a step over ours, a line for each row."""

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
    rows = [row for row in results["rows"] if "ratio" in row][::-1]
    try:
        import matplotlib
    except ImportError:
        return False
    if not rows:
        return False
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.9 + 0.5 * len(rows)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    slowest, fastest = 1.0, 1.0
    for y, row in enumerate(rows):
        times = {name: found["over_ours"] for name, found in row["peers"].items() if "over_ours" in found}
        slowest, fastest = max(slowest, *times.values()), min(fastest, *times.values())
        axes.plot([min(times.values()), max(times.values())], [y, y], color="#BBBBBB", linewidth=3, zorder=1)
        for name, (colour, marker) in _STYLE.items():
            if name in times:
                axes.plot(times[name], y, marker, color=colour, markersize=8, markeredgecolor="white")
    for name in results["peers"]:
        if name != OURS:
            colour, marker = _STYLE[name]
            axes.plot([], [], marker, color=colour, markersize=8, label=name)
    axes.axvline(1, color="black", linewidth=2, zorder=2, label=f"ferrograd {results['versions'][OURS]}")
    axes.set_xscale("log")
    axes.set_xlim(fastest / 1.25, slowest * 1.25)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if fastest / 1.2 < t < slowest * 1.2]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    labels = [f"{row['name']}\n{_time(row['peers'][OURS]['median'])}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.grid(axis="x", color="#DDDDDD")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        "time over ferrograd's (logarithmic); under each network: batch, ferrograd's time of a step"
    )
    kind = "whole loop" if results["mode"] == "loop" else "step by step from Python"
    axes.set_title(f"Training step, {kind}, {results['dtype']}, {results['threads']} threads", loc="left")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    machine = results["machine"]
    versions = ", ".join(f"{name} {text}" for name, text in results["versions"].items() if name != OURS)
    caption = f"{machine['cpu']}; Python {machine['python']}, {versions}\n{machine['command']}"
    figure.supxlabel(caption, fontsize=7, color="#555555")
    figure.savefig(path)
    return True


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"
