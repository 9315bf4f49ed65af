"""Draws bits per byte against latency per token, parameters and memory of the cache, with the fronts.

    python analysis/text.py RESULTS [--out figures]

A point is a trial; grey lines are what counting and compressing reach on the same text
(attnsweep.tasks.text.baselines).
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from attnsweep.answers import pareto
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.figures.canvas import INK, STYLE, Layout, canvas, save
from attnsweep.figures.panels import Point
from attnsweep.figures.placement import LabelPlacer
from attnsweep.results.loading import load
from attnsweep.tasks.text.baselines import bits_per_byte

COSTS = {
    "latency_ms_per_token": "Latency per token (ms)",
    "params": "Parameters",
    "cache_bytes": "Cache at full context (bytes)",
}
LOOKS = {
    "sinusoidal": ("#0072B2", "s"), "learned": ("#B0478C", "D"), "rope": ("#D55E00", "o"),
    "alibi": ("#009E73", "^"), "none": ("#777777", "X"),
}  # fmt: skip
OTHER = ("#444444", "v")
NEAR = 0.1  # bits: of two lines so near the lower one has its name below
LAYOUT = Layout(panel=(3.1, 3.0), gap=(0.55, 0.5), left=0.75, right=0.35, above=1.0, below=0.75)
DRAWN = ("gzip", "xz", "5-gram, Kneser-Ney")


def settings(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished trials on one text, means over seeds. Raises UserError where there are none."""
    frame = frame[(frame["task"] == "text") & (frame["status"] == "done")]
    if frame.empty:
        raise UserError("no finished trial of text there; run sweeps/text.py first")
    return pareto.over_seeds(frame)


def draw(shown: pd.DataFrame, baselines: dict[str, float]) -> Figure:
    """A panel for each cost that is known."""
    costs = [cost for cost in COSTS if shown[cost].notna().any()]
    name, where = str(shown["dataset"].iloc[0]).rsplit("/", 1)[-1], shown["measured_on"].dropna()
    on = f"latency on {where.iloc[0]}" if len(where) else "latency not measured"
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (1, len(costs)), LAYOUT, title=f"Bits per byte on {name} against what they cost",
            subtitle=f"{len(shown)} settings, {shown['epochs'].iloc[0]:.0f} epochs; lower left is better; "
            f"numbers are blocks / heads of keys; {on}",
            footnote="Filled: on the front. Grey lines: counting and compressing on the same test part.",
        )  # fmt: skip
        for axes, cost in zip(grid[0], costs, strict=True):
            panel(axes, shown.dropna(subset=[cost]), cost, baselines)
        grid[0][0].set_ylabel("Test bits per byte")
    return figure


def panel(axes: "matplotlib.axes.Axes", shown: pd.DataFrame, cost: str, baselines: dict[str, float]) -> None:
    """One cost: points, the front as a staircase, baselines as lines."""
    best = pareto.front(shown, cost, "test_saved")
    axes.step(best[cost], best["test_bpb"], where="post", color=INK, linewidth=0.8, zorder=1)
    for i, one in shown.iterrows():
        colour, marker = LOOKS.get(one["positions"], OTHER)
        filled = colour if i in best.index else "none"
        axes.scatter(
            one[cost], one["test_bpb"], marker=marker, s=30, facecolor=filled, edgecolor=colour, zorder=2
        )
    levels = sorted((baselines[label], label) for label in DRAWN)
    levels = [level for level in levels if level[0] < 1.3 * shown["test_bpb"].max()]
    for i, (bits, label) in enumerate(levels):
        axes.axhline(bits, color="#BBBBBB", linewidth=0.8, zorder=0)
        below = i + 1 < len(levels) and levels[i + 1][0] - bits < NEAR
        axes.annotate(label, (0.55, bits), xycoords=("axes fraction", "data"), size=7, ha="center",
                      va="top" if below else "bottom", color="#888888")  # fmt: skip
    for name in dict.fromkeys(shown["positions"]):
        colour, marker = LOOKS.get(name, OTHER)
        axes.scatter([], [], color=colour, marker=marker, label=name)
    if cost == "params":
        axes.legend(frameon=False, fontsize=8, loc="best")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(COSTS[cost])
    axes.margins(y=0.1)
    points = [
        Point(f"{one['depth']:.0f}/{one['kv_heads']:.0f}", one["positions"], one[cost],
              *[one["test_bpb"]] * 3, seeds=1, on_front=i in best.index)
        for i, one in shown.iterrows()
    ]  # fmt: skip
    LabelPlacer(axes, points, [], colour=lambda name: LOOKS.get(name, OTHER)[0]).place()


def short(value: float) -> str:
    """A number at a tick, thousands as k."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def table(shown: pd.DataFrame, baselines: dict[str, float]) -> str:
    """A Markdown table, best first, then the baselines."""
    lines = [
        "| positions | heads of keys | depth | bits per byte | parameters | ms per token | cache, bytes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for _, one in shown.sort_values("test_bpb").iterrows():
        ms = one["latency_ms_per_token"]
        cells = (
            one["positions"], f"{one['kv_heads']:.0f}", f"{one['depth']:.0f}", f"{one['test_bpb']:.3f}",
            f"{one['params']:,.0f}", "" if pd.isna(ms) else f"{ms:.3f}", f"{one['cache_bytes']:,.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {name} | | | {bits:.3f} | | | |" for name, bits in baselines.items()]
    return "\n".join(lines)


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="?", default="results")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    options = parser.parse_args()
    shown = settings(load(options.results, all_columns=True))
    baselines = bits_per_byte(str(shown["dataset"].iloc[0]))
    print(table(shown, baselines))
    for path in save(draw(shown, baselines), options.out, "text"):
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
