"""Draws test accuracy against latency and against parameters, and prints the fronts.

    python -m attnsweep plot results/ [--dataset cifar10] [--out figures/] [--where "epochs == 15"]

One panel per data set and cost; every point is a setting: the mean over its seeds, with its 95 % interval.
The front is selected on validation; its height, and the band around it, are those of the test. With
`--runtime eager,onnxruntime` each runtime has a panel and a front of its own, on one scale.
"""

import argparse
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from attnsweep.answers import naming, pareto, selection
from attnsweep.answers.chances import LATENCY_ENDS
from attnsweep.core.clean import cleaned, without_secrets
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import counted
from attnsweep.figures import fonts
from attnsweep.figures.arguments import (
    add_out,
    add_results,
    add_runtime,
    add_where,
    command_parser,
    folder_of,
)
from attnsweep.figures.canvas import MOST_OF_LINE, STYLE, Layout, canvas, save, style_of
from attnsweep.figures.panels import Panel, Point, Summary, panels, panels_by_runtime, summary
from attnsweep.figures.placement import GREY, MOST_SHOWN, LabelPlacer, cut
from attnsweep.results.loading import load

QUALITIES = {column: f"Test {name}" for column, name in pareto.JUDGED_BY.items()}
COSTS = {
    "latency_ms_p50": ("latency", "Latency (ms)"),
    "params": ("parameters", "Parameters"),
    "macs": ("multiply-accumulates", "Multiply-accumulates per example"),
}
LAYOUT = Layout(panel=(4.4, 3.3), gap=(0.6, 0.95), left=0.75, right=0.3, above=0.85, below=0.70)
MOST_ACROSS, MOST_SETS = 3, 12  # data sets
MOST_BARS = 60  # settings of a panel, up to which those off the front have their intervals drawn
# leading digits of the ticks of a log axis whose ends have less than that ratio
COST_TICKS = ((10.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (200.0, (1.0, 2.0, 5.0)), (math.inf, (1.0,)))


def draw(shown: Sequence[Panel], about: Summary) -> Figure:
    """A row of panels for each cost, a column for each data set; of one data set, or of too many to stand
    side by side, a row for each. The first `MOST_SETS` are drawn.
    """
    costs = list(dict.fromkeys(one.measured for one in shown))
    datasets = list(dict.fromkeys(one.dataset for one in shown))
    drawn = datasets[:MOST_SETS]
    shown = [uncrowded(one) for one in shown if one.dataset in drawn]
    shape = (len(costs), len(drawn))
    if not 1 < len(drawn) <= MOST_ACROSS:
        shape, shown = shape[::-1], sorted(shown, key=lambda one: drawn.index(one.dataset))
    first = f". The first {MOST_SETS} of {len(datasets)} data sets" if len(datasets) > MOST_SETS else ""
    with matplotlib.rc_context(STYLE):
        qualities = list(dict.fromkeys(QUALITIES[one.quality] for one in shown))
        what = " and ".join([qualities[0], *(name.lower() for name in qualities[1:])])
        title = f"{what} against {' and '.join(dict.fromkeys(COSTS[cost][0] for cost, _ in costs))}"
        figure, grid = canvas(
            shape, LAYOUT, title=title, subtitle=subtitle(about) + first, footnote=footnote(shown, about)
        )
        for one, axes in zip(shown, grid.flat, strict=True):
            draw_panel(axes, one, shown)
        for axes, one in zip(grid[:, 0], shown[:: grid.shape[1]], strict=True):
            axes.set_ylabel(QUALITIES[one.quality])
    return figure


def draw_panel(axes: Axes, one: Panel, shown: Sequence[Panel]) -> None:
    """One panel: its frame, points and labels."""
    name = cut(one.dataset, MOST_SHOWN) + (f", {one.runtime}" if one.runtime else "")
    axes.set_title(name, loc="left", weight="bold", size=10, pad=8)
    axes.set_xlabel(COSTS[one.cost][1])
    if not one.points:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
        return
    limit(axes, one, shown)
    ticks(axes)
    draw_points(axes, one)
    line = list(zip(*staircase(axes, one), strict=True))
    unlabelled = LabelPlacer(axes, one.points, line, colour=lambda model: style_of(model)[0]).place()
    counts = {"without a label": unlabelled, "not drawn: cost unknown": one.left_out}
    note = "; ".join(f"{counted(count, 'setting')} {what}" for what, count in counts.items() if count)
    axes.text(0.99, 0.015, note, transform=axes.transAxes, ha="right", va="bottom", color=GREY, size=7)


def uncrowded(one: Panel) -> Panel:
    """The panel; where it is crowded, without the intervals of what is not on the front."""
    if len(one.points) <= MOST_BARS:
        return one
    bare = (
        point if point.on_front else replace(point, low=point.accuracy, high=point.accuracy)
        for point in one.points
    )
    return replace(one, points=tuple(bare))


def limit(axes: Axes, one: Panel, shown: Sequence[Panel]) -> None:
    """Panels of one cost share the x axis, panels of one data set the y axis."""
    costs = [point.cost for other in shown if other.cost == one.cost for point in other.points]
    same_data = [other for other in shown if other.dataset == one.dataset]
    bounds = [end for other in same_data for point in other.points for end in (point.low, point.high)]
    axes.set_xscale("log")
    axes.set_xlim(*cost_limits(costs))
    axes.set_ylim(*accuracy_limits(bounds, crowd=max(len(other.front) for other in same_data)))


def cost_limits(costs: Sequence[float]) -> tuple[float, float]:
    """Limits of a log axis with room for labels, and far enough apart that two ticks fit."""
    low, high = math.log10(min(costs)), math.log10(max(costs))
    span, middle = max(high - low, math.log10(4.4)), (low + high) / 2
    return 10 ** (middle - 0.72 * span), 10 ** (middle + 0.64 * span)


def accuracy_limits(bounds: Sequence[float], crowd: int) -> tuple[float, float]:
    """Limits two percentage points or more apart, with room above for `crowd` labels of the front."""
    low, high = min(bounds), max(bounds)
    span, middle = max(high - low, 0.016), (low + high) / 2
    above = 0.10 + min(0.02 * max(crowd - 6, 0), 0.25)
    return max(middle - 0.60 * span, -0.03), middle + (0.5 + above) * span


def ticks(axes: Axes) -> None:
    """Round costs on the log axis, percent on the other; horizontal lines at the latter."""
    low, high = axes.get_xlim()
    leading = next(digits for ratio, digits in COST_TICKS if high / low < ratio)
    axes.xaxis.set_major_locator(LogLocator(subs=leading))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    percents = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*axes.get_ylim())
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in percents if -1e-9 <= tick <= 1 + 1e-9]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 4):g}%"))
    axes.grid(axis="y", color="#EDEDED", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.7)


def short_number(value: float) -> str:
    """1200000 as 1.2M; below a thousand as it is."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9999:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def faint(colour: str) -> str:
    """A grey that keeps a trace of the colour."""
    red, green, blue = 0.38 * np.array(colors.to_rgb(colour)) + 0.62 * np.array(colors.to_rgb("#DDDDDD"))
    return colors.to_hex((red, green, blue))


def draw_points(axes: Axes, one: Panel) -> None:
    """The staircase, and each point with the range of its seeds; the front in colour and above the others."""
    costs, levels = staircase(axes, one)
    axes.plot(costs, levels, color="#555555", linewidth=1.1, solid_joinstyle="miter", zorder=2)
    low, high = ([getattr(point, end) for point in one.front for _ in (0, 1)] for end in ("low", "high"))
    axes.fill_between(costs, low, high, color="#555555", alpha=0.10, linewidth=0, zorder=1)
    for points, order in ((one.front, 5), ([point for point in one.points if not point.on_front], 3)):
        for look, alike in by_look(points).items():
            draw_alike(axes, alike, *look, order=order)


def by_look(points: Sequence[Point]) -> dict[tuple[str, str, bool, bool], list[Point]]:
    """The points by colour, marker, whether they are of one seed, and whether their cost is unsure: what
    looks alike is drawn at once, which takes a tenth of the time.
    """
    found: dict[tuple[str, str, bool, bool], list[Point]] = {}
    for point in points:
        colour, marker = style_of(point.model)
        colour = colour if point.on_front else faint(colour)
        found.setdefault((colour, marker, point.seeds == 1, point.unsure is not None), []).append(point)
    return found


def draw_alike(
    axes: Axes, points: Sequence[Point], colour: str, marker: str, alone: bool, unsure: bool, *, order: int
) -> None:
    """Points of one look with their intervals; see `by_look`."""
    costs, qualities, low, high = (
        [getattr(point, name) for point in points] for name in ("cost", "accuracy", "low", "high")
    )
    style = "dotted" if alone else "solid"  # one seed: nothing is known of others
    face, edge = ("white", colour) if unsure else (colour, "white")
    axes.vlines(costs, low, high, color=colour, linewidth=1.2, linestyle=style, zorder=order)
    if unsure:
        ends = zip(*(point.unsure or (point.cost,) * 2 for point in points), strict=True)
        axes.hlines(qualities, *ends, color=colour, linewidth=0.9, zorder=order)
    axes.plot(
        costs, qualities, marker, color=face, markersize=6.5 if order > 3 else 5, markeredgecolor=edge,
        markeredgewidth=1.2 if unsure else 0.7, zorder=order + 1,
    )  # fmt: skip


def staircase(axes: Axes, one: Panel) -> tuple[list[float], list[float]]:
    """The corners of the front from its cheapest point to the right edge: cost, accuracy."""
    costs = [point.cost for point in one.front for _ in (0, 1)]
    levels = [point.accuracy for point in one.front for _ in (0, 1)]
    return [*costs[1:], axes.get_xlim()[1]], levels


def subtitle(about: Summary) -> str:
    """Trials, seeds and epochs; the device, where latency was measured."""
    settings = f"{counted(about.settings, 'setting')}, {spread(about.seeds, 'seed')} each"
    counts = f"{counted(about.trials, 'trial')}: {settings}, {spread(about.epochs, 'epoch')}"
    device = cut(about.measured_on or "", MOST_OF_LINE)
    measured = f"of batch {about.batch} on {device}" if device else "not measured"
    measured += f" under {about.runtime}" if about.runtime not in (None, "eager") else ""
    return f"{counts}. Latency {measured}"


def footnote(shown: Sequence[Panel], about: Summary) -> str:
    """How to read the figure, and what its labels abbreviate."""
    points = [point for one in shown for point in one.points]
    words = {word.strip("0123456789.") for point in points for word in point.label.split()[1:]}
    known = [(name, form.format("")) for name, form in naming.ABBREVIATIONS.items()]
    meanings = [f"{short}\u00a0=\u00a0{name}" for name, short in known if short in words - {name}]
    sentences = {
        "Line: the front, the settings that no other beats on both cost and quality on validation; band and "
        "bars: 95\u00a0% intervals on test.": True,
        "Pale: the others.": any(not point.on_front for point in points),
        f"Where there are more than {MOST_BARS}, those have no bars.": any(
            len(one.points) > MOST_BARS for one in shown
        ),
        "Dotted: one seed, whose interval does not know how another would do.": any(
            point.seeds == 1 for point in points
        ),
        "Hollow: a latency that is known to no better than 3\u00a0%, with its interval.": any(
            point.unsure for point in points
        ),
        f"Labels: {', '.join(meanings)}.": bool(meanings),
    }
    return " ".join(sentence for sentence, holds in sentences.items() if holds)


def spread(bounds: tuple[int, int], noun: str) -> str:
    """`3 seeds`, or `1 to 3 seeds`."""
    low, high = bounds
    return counted(high, noun) if low == high else f"{low} to {counted(high, noun)}"


def table(one: Panel) -> str:
    """The front of one panel as text, with its hypervolume and the reference point that it depends on."""
    cost = f"{one.cost} under {one.runtime}" if one.runtime else one.cost
    head = f"{one.dataset}, {cost}: {len(one.front)} of {counted(len(one.points), 'setting')} on the front"
    cost = "{:,.3f}" if one.cost.startswith("latency") else "{:,.0f}"
    rows = pd.DataFrame(
        [(p.label, cost.format(p.cost), p.accuracy, p.low, p.high, p.seeds, p.p_front) for p in one.front],
        columns=["setting", one.cost, one.quality, "low", "high", "seeds", "p_front"],
    )
    rows[["low", "high"]] = rows[["low", "high"]].mask(rows["low"] == rows["high"])  # they are not known
    corner = f"{one.cost} {short_number(one.corner.cost)} and {one.quality} {one.corner.quality:g}"
    head += f"; {counted(one.left_out, 'setting')} left out, for want of {one.cost}" if one.left_out else ""
    area = f"hypervolume {one.hypervolume:.4f} {one.quality} x decades, from the reference point {corner}"
    return f"{head}\n{rows.to_string(index=False, na_rep='-', float_format='{:.4f}'.format)}\n{area}\n"


def pareto_figure(frame: pd.DataFrame) -> Figure:
    """A matplotlib figure of the trials in `frame` (see `attnsweep.load`), as for a notebook: test quality
    against cost with fronts, a panel per data set and cost. Raises UserError where rows do not compare.
    """
    frame = selection.plain(frame)
    rows = selection.of_device(cleaned(frame.assign(**absent(frame))))
    require_done(rows, "this frame")
    figure = draw(panels(rows), summary(rows))
    fonts.fit(figure)
    return figure


def require_done(frame: pd.DataFrame, name: str) -> None:
    """Raises UserError where no trial is done and has a quality on the test."""
    if selection.done(frame).dropna(subset=list(QUALITIES), how="all").empty:
        what = "no done trial with a test accuracy or score"
        raise UserError(f"{name} has {what}; {selection.instead(frame)}")


def absent(frame: pd.DataFrame) -> dict[str, None]:
    """The columns that the figure reads and that `load` has left out because they are null."""
    needed = (*QUALITIES, *COSTS, *LATENCY_ENDS, "measured_on", "latency_batch", "epochs")
    return dict.fromkeys(name for name in needed if name not in frame)


# --- Command line ---


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or of `given`."""
    parser = command_parser("plot", __doc__)
    add = parser.add_argument
    add_results(parser)
    add_out(parser)
    add("--dataset", action="append", help="only this data set; may be given several times")
    add("--measured-on", help="latency on this device; default: the one that the trials name")
    add_runtime(parser, several=True)
    add_where(parser)
    return parser.parse_args(given)


def rows_to_draw(options: argparse.Namespace, runtime: str | None) -> pd.DataFrame:
    """The trials, of any status, that the options ask for, with their latency under `runtime` (None: the
    first that each sweep measured). Raises UserError where none is done and has a quality on the test.
    """
    frame = cleaned(
        load(options.results, status=None, all_columns=True, runtime=runtime, measured_on=options.measured_on)
    )
    require_done(frame, options.results)
    frame = selection.where(frame, options.where)
    if options.dataset:
        frame = pd.concat([selection.choose(frame, "dataset", one) for one in dict.fromkeys(options.dataset)])
    return selection.of_device(frame, options.measured_on)


def run(options: argparse.Namespace) -> None:
    """Prints and draws the fronts that the options ask for."""
    frames = {runtime: rows_to_draw(options, runtime) for runtime in options.runtime or [None]}
    frame = next(iter(frames.values()))
    shown = panels(frame) if len(frames) == 1 else panels_by_runtime(frames)
    about = summary(frame) if len(frames) == 1 else replace(summary(frame), runtime=" and ".join(frames))
    print("\n".join(table(one) for one in shown if one.points))
    for remark in dict.fromkeys(f"{one.dataset}: {remark}" for one in shown for remark in one.remarks):
        print(remark)
    if frame["latency_ms_p50"].isna().all():
        then = f"measure: python -m attnsweep measure {shlex.quote(without_secrets(options.results))}"
        print(f"No latency was measured, so costs are params and macs; {then}")
    for path in save(draw(shown, about), folder_of(options), "pareto"):
        print(f"wrote {path}")


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(arguments(given)))
