"""What one value of an axis is worth over another, model by model: gains paired by seed, with intervals, and
whether the order of the models changes; a table and a figure.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnsweep.answers import pareto, selection
from attnsweep.answers.spread import reach_of_mean
from attnsweep.core.errors import UserError
from attnsweep.core.labels import model_name
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import counted
from attnsweep.figures.arguments import add_where
from attnsweep.figures.canvas import INK, STYLE, Layout, canvas, save, style_of
from attnsweep.figures.placement import GREY
from attnsweep.results.loading import load
from attnsweep.tasks.registry import AXES

LAYOUT = Layout(panel=(2.6, 2.6), gap=(1.6, 0.4), left=0.75, right=1.1, above=0.65, below=0.6)
PAIRED_BY = ("arch_id", "dataset", "seed", "epochs")


# --- Compute ---


@dataclass(frozen=True)
class Gain:
    """One model's mean quality under either value, and the mean of its differences over seeds with its 95 %
    interval by Student's t, infinite for one seed. Fractions.
    """

    model: str
    before: float
    after: float
    low: float
    high: float
    seeds: int

    @property
    def mean(self) -> float:
        return self.after - self.before


def gains(frame: pd.DataFrame, axis: str, value: str, over: str) -> list[Gain]:
    """The gains of the rows with `axis` at `value` over those with it at `over`, the best model under `over`
    first. Rows are pairs where architecture, data, epochs and seed are equal.

    Raises UserError where there is no such axis, where no row has a partner, or one has several.
    """
    if axis not in AXES:
        raise UserError(f"there is no axis {axis!r}; `attnsweep columns` lists them")
    rows, quality = selection.done(frame), pareto.judged_by(frame)
    selection.require(rows, axis, quality, *PAIRED_BY)
    keys = [name for name in (*PAIRED_BY, "data_sha256") if name in rows]
    sides = [rows.loc[rows[axis].astype(str) == one, [*keys, "model", quality]] for one in (value, over)]
    for side, one in zip(sides, (value, over), strict=True):
        if side.duplicated(keys).any():
            raise UserError(f"several rows of one seed have {axis}={one}; choose among them with --where")
    pairs = sides[0].merge(sides[1][[*keys, quality]], on=keys, suffixes=("", "_over"))
    if pairs.empty:
        raise UserError(f"no two rows differ in {axis}={value} and {axis}={over} alone")
    gained = (gain_of(str(model), of[quality], of[f"{quality}_over"]) for model, of in pairs.groupby("model"))
    return sorted(gained, key=lambda gain: -gain.before)


def gain_of(model: str, after: pd.Series, before: pd.Series) -> Gain:
    """The gain of one model, from its seeds' qualities under either value in the same order."""
    mean, reach = (after - before).mean(), reach_of_mean(after - before)
    return Gain(model, before.mean(), after.mean(), mean - reach, mean + reach, len(after))


def swapped(found: Sequence[Gain]) -> list[tuple[str, str]]:
    """The pairs of models whose order by their means changes, the better one of before first."""
    return [
        (one.model, other.model)
        for one, other in itertools.permutations(found, 2)
        if one.before > other.before and one.after < other.after
    ]


def order_in_words(found: Sequence[Gain]) -> str:
    """What becomes of the models' order, of which means alone say nothing of noise."""
    pairs = [f"{model_name(other)} passes {model_name(one)}" for one, other in swapped(found)]
    return f"by their means {', '.join(pairs)}" if pairs else "the order of their means stays"


def markdown(found: Sequence[Gain], value: str, over: str) -> str:
    """The table, in percent and percentage points."""
    lines = [f"| model | {over} | {value} | gain | 95 % | seeds |", "|---|--:|--:|--:|---|--:|"]
    for gain in found:
        ends = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}" if gain.seeds > 1 else "-"
        shown = f"{100 * gain.before:.1f} | {100 * gain.after:.1f} | {100 * gain.mean:+.1f}"
        lines.append(f"| {model_name(gain.model)} | {shown} | {ends} | {gain.seeds} |")
    return "\n".join(lines)


# --- Draw ---


def draw(found: Sequence[Gain], axis: str, value: str, over: str, *, subtitle: str) -> Figure:
    """Quality under either value on the left, gains with intervals on the right."""
    title = f"What {axis}={value} is worth over {over}"
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (1, 2), LAYOUT, title=title, subtitle=subtitle,
            footnote="Left: means over seeds. Right: means of the differences between trials of one seed, "
            "with 95 % intervals by Student's t.",
        )  # fmt: skip
        draw_slopes(grid[0, 0], found, value, over)
        draw_gains(grid[0, 1], found)
    return figure


def draw_slopes(axes: Axes, found: Sequence[Gain], value: str, over: str) -> None:
    """A line per model from one value to the other, with its name at its end."""
    ends = [100 * one for gain in found for one in (gain.before, gain.after)]
    heights = spread_out([100 * gain.after for gain in found], least=0.07 * (max(ends) - min(ends)))
    for gain, height in zip(found, heights, strict=True):
        colour, marker = style_of(gain.model)
        before, after, name = 100 * gain.before, 100 * gain.after, gain.model
        axes.plot((0, 1), (before, after), color=colour, marker=marker, linewidth=1.4, markersize=5)
        axes.annotate(name, (1, after), (1.08, height), color=colour, va="center", annotation_clip=False)
    axes.set_xticks((0, 1), (over, value))
    axes.set_xlim(-0.12, 1.1)
    axes.set_ylabel("test accuracy (%)")


def spread_out(heights: Sequence[float], *, least: float) -> list[float]:
    """The heights, moved up where the next lower one is nearer than `least`."""
    placed = [0.0] * len(heights)
    below = -math.inf
    for i in sorted(range(len(heights)), key=lambda i: heights[i]):
        placed[i] = below = max(heights[i], below + least)
    return placed


def draw_gains(axes: Axes, found: Sequence[Gain]) -> None:
    """A mean with its interval per model, beside no gain."""
    axes.axvline(0, color=GREY, linewidth=0.8)
    for row, gain in enumerate(found):
        colour, marker = style_of(gain.model)
        axes.plot(100 * gain.mean, row, color=colour, marker=marker, markersize=6)
        if gain.seeds > 1:
            axes.plot((100 * gain.low, 100 * gain.high), (row, row), color=colour, linewidth=1.6)
    axes.set_yticks(range(len(found)), [gain.model for gain in found])
    axes.invert_yaxis()
    axes.set_xlabel("gain (percentage points)", color=INK)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes the figure; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").replace("\n", " "))
    add = parser.add_argument
    add("results", nargs="+", help="folders or URIs with results")
    add("--axis", default="recipe", help="the axis; default: recipe")
    add("--value", default="modern", help="the value that gains; default: modern")
    add("--over", default="published", help="the value that it gains over; default: published")
    add_where(parser)
    add("--out", type=Path, default=Path(), help="folder of gains.svg and gains.png")
    options = parser.parse_args(argv)
    return exit_status(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Prints and draws what the options ask for."""
    frame = selection.where(pd.concat([load(one) for one in options.results]), options.where)
    found = gains(frame, options.axis, options.value, options.over)
    print(markdown(found, options.value, options.over))
    seeds = sorted({gain.seeds for gain in found})
    subtitle = f"{counted(len(found), 'model')}, {' or '.join(map(str, seeds))} seeds each; "
    subtitle += order_in_words(found)
    figure = draw(found, options.axis, options.value, options.over, subtitle=subtitle)
    print(*save(figure, options.out, "gains"), sep="\n")
