"""Which axis matters, and whether that is real.

    python -m attnsweep effects results/ [--dataset cifar10] [--quality test_acc] [--where "epochs == 15"]

Prints the effects of axes and of pairs with their intervals, and draws them. See docs/answers.md.
"""

import argparse
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from attnsweep.answers import doubt
from attnsweep.answers.effects import FOREST, GRID, SIZES, Effects, effects, in_words
from attnsweep.core.clean import cleaned, lines
from attnsweep.core.terminal import exit_status
from attnsweep.figures.arguments import add_out, add_rows, command_parser, folder_of, rows_of
from attnsweep.figures.canvas import STYLE, Layout, canvas, save, widest
from attnsweep.figures.placement import GREY

REAL = "#0072B2"
TITLE = {GRID: "What an axis is worth", FOREST: "Which axis a forest needs"}


def draw(found: Effects) -> Figure:
    """A bar for each axis with its interval; grey where it is not told from chance."""
    scale = 100 if found.how == GRID and doubt.is_fraction(found.quality) else 1
    unit = " (points)" if scale == 100 else ""
    axes_of = found.axes[::-1]
    left = max(1.7, 0.3 + widest([one.name for one in axes_of], STYLE["font.size"]))
    panel = (5.0, 0.4 + 0.28 * len(axes_of))
    layout = Layout(panel, gap=(0, 0), left=left, right=0.3, above=0.75, below=0.75)
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (1, 1), layout, title=TITLE[found.how], subtitle=f"{found.quality} of {found.trials:,} trials",
            footnote="Lines: 95 % intervals. Grey: not told from chance at 5 %, for all axes together.",
        )  # fmt: skip
        axes = grid[0, 0]
        for i, one in enumerate(axes_of):
            colour = REAL if one.is_real else GREY
            axes.barh(i, scale * one.size, color=colour, alpha=0.55, height=0.6)
            if not np.isnan(one.low):
                axes.hlines(i, scale * one.low, scale * one.high, color=colour, linewidth=1.6)
        axes.set_yticks(range(len(axes_of)), [one.name for one in axes_of])
        axes.axvline(0, color="#777777", linewidth=0.7)
        axes.set_xlabel(f"{found.quality}: {SIZES[found.how]}{unit}")
    return figure


def run(options: argparse.Namespace) -> None:
    """Prints and draws what the options ask for."""
    frame = cleaned(rows_of(options))
    found = effects(frame, options.quality, how=options.how)
    print(lines(in_words(found)))
    for path in save(draw(found), folder_of(options), "effects"):
        print(f"wrote {path}")


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = command_parser("effects", __doc__)
    add_rows(parser)
    parser.add_argument("--quality", help="the column that is explained; default: that which selects")
    parser.add_argument("--how", choices=(GRID, FOREST), help="default: what the values of the axes allow")
    add_out(parser)
    options = parser.parse_args(given)
    return exit_status(lambda: run(options))
