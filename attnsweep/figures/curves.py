"""Learning curves with bands over seeds.

python -m attnsweep curves results/ [--dataset cifar10] [--most 8] [--where "model == 'vit'"]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnsweep.answers import doubt, naming, pareto, selection
from attnsweep.answers.overview import curves
from attnsweep.core.clean import clean, cleaned
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import counted
from attnsweep.figures.arguments import add_out, add_rows, command_parser, folder_of, rows_of
from attnsweep.figures.canvas import MOST_OF_LINE, STYLE, Layout, canvas, save, style_of, widest
from attnsweep.figures.placement import cut
from attnsweep.results.loading import load

LAYOUT = Layout(panel=(6.2, 3.6), gap=(0, 0), left=0.75, right=2.2, above=0.75, below=0.75)
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
BESIDE = 0.8  # inches of a legend besides its texts
MOST = 8


def draw(frame: pd.DataFrame, epochs: pd.DataFrame, *, most: int = MOST) -> Figure:
    """The learning curves of the `most` best settings of one data set: the mean of the seeds, and from the
    lowest to the highest of them. Raises UserError where none was kept.
    """
    rows, _ = selection.comparable(selection.done(frame))
    selection.refuse_other_data(rows)
    quality = pareto.selecting(rows)
    selection.require(rows, quality)
    rows = rows.dropna(subset=[quality])
    if rows.empty:
        raise UserError(f"no done trial has {quality}; {selection.instead(frame)}")
    settings = pareto.over_seeds(rows).reset_index(drop=True)
    known = curves(rows, doubt.setting_of(rows), epochs, quality, len(settings))
    best = settings[[one is not None for one in known]].sort_values(quality, ascending=False).head(most)
    if best.empty:
        raise UserError("no learning curve was kept of these trials")
    names = naming.labels(settings, short=False)
    scale = 100 if doubt.is_fraction(quality) else 1
    chosen = f"the {len(best)} best of " if len(best) < len(settings) else ""
    data = cut(clean(rows["dataset"].iloc[0]), MOST_OF_LINE)
    title = f"{data}: {chosen}{counted(len(settings), 'setting')}"
    labels = [
        cut(names[i], MOST_OF_LINE) + (" (one seed)" if row["seeds"] == 1 else "")
        for i, row in best.iterrows()
    ]
    layout = replace(LAYOUT, right=max(LAYOUT.right, widest(labels, 8) + BESIDE))
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (1, 1), layout, title=f"{quality} by epoch", subtitle=title, footnote=footnote(best)
        )
        axes, turns = grid[0, 0], dict[str, int]()
        for i, row in best.iterrows():
            colour = style_of(row["model"])[0]
            turn = turns[colour] = turns.get(colour, -1) + 1
            draw_curve(axes, known[int(i)] or {}, row, scale=scale, turn=turn)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(quality + (" (%)" if scale == 100 else ""))
        legend = axes.legend(
            axes.lines, range(len(labels)), loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False,
            fontsize=8,
        )  # fmt: skip
        for text, name in zip(legend.get_texts(), labels, strict=True):
            text.set_text(name)  # matplotlib leaves out a label that begins with _, as a class may
    return figure


def draw_curve(
    axes: Axes, curve: Mapping[str, Sequence[float]], row: "pd.Series[Any]", *, scale: int, turn: int
) -> None:
    """A setting's curve with its band; hollow, without one, for one seed. `turn`: of those of its colour."""
    colour, alone = style_of(row["model"])[0], row["seeds"] == 1
    mean, low, high = ([scale * value for value in curve[key]] for key in ("mean", "min", "max"))
    style: Any = {"linestyle": DASHES[turn % len(DASHES)], "marker": "o" if alone else None}
    axes.plot(
        curve["epoch"], mean, color=colour, linewidth=1.5, markersize=4, markerfacecolor="white", **style
    )
    if not alone:
        axes.fill_between(curve["epoch"], low, high, color=colour, alpha=0.15, linewidth=0)


def footnote(best: pd.DataFrame) -> str:
    """How to read the figure."""
    alone = int(best["seeds"].eq(1).sum())
    single = f" {counted(alone, 'setting')} with one seed: hollow, without a band." if alone else ""
    return "Bands: from the lowest to the highest of the seeds." + single


def run(options: argparse.Namespace) -> None:
    """Draws what the options ask for."""
    figure = draw(cleaned(rows_of(options)), load(options.results, "epochs"), most=options.most)
    for path in save(figure, folder_of(options), "curves"):
        print(f"wrote {path}")


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = command_parser("curves", __doc__)
    add_rows(parser)
    text = f"settings that are drawn, the best; default {MOST}"
    parser.add_argument("--most", type=int, default=MOST, help=text)
    add_out(parser)
    options = parser.parse_args(given)
    if options.most < 1:
        parser.error(f"--most {options.most} draws nothing; use 1 or more")
    return exit_status(lambda: run(options))
