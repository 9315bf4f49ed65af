"""Draws how accuracy goes on to sequences longer than those of training, a curve for each kind of positions.

    python analysis/length.py RESULTS [--out figures]

A column of panels per problem: above the share of whole answers that are right, below that of their tokens,
at the length of training and at two and four times it. Means over seeds.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from attnsweep.answers import selection
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import counted
from attnsweep.figures.canvas import STYLE, Layout, canvas, save
from attnsweep.results.loading import load

TIMES = (1, 2, 4)
MEASURES = {
    "Whole answers": ("test_acc", "test_acc_long", "test_acc_longer"),
    "Tokens": ("test_token_acc", "test_token_acc_long", "test_token_acc_longer"),
}
LOOKS = {
    "sinusoidal": ("#0072B2", "s"), "learned": ("#B0478C", "D"), "rope": ("#D55E00", "o"),
    "alibi": ("#009E73", "^"), "none": ("#777777", "X"),
}  # fmt: skip
OTHER = ("#444444", "v")
LAYOUT = Layout(panel=(2.1, 1.9), gap=(0.35, 0.45), left=0.75, right=1.0, above=0.95, below=0.6)


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per problem and kind of positions: accuracies (0..1) at each length, and the trials behind them.

    Raises UserError where no row has them, or settings differ in more than problem, positions and seed.
    """
    frame = frame[(frame["task"] == "sequences") & (frame["status"] == "done")]
    names = [name for names in MEASURES.values() for name in names]
    if "test_acc_longer" not in frame or frame.empty:
        raise UserError("no finished trial of sequences there; run sweeps/length.py first")
    for name in ("length", "norm", "attention", "depth", "dim", "epochs"):
        if frame[name].nunique() > 1:
            raise UserError(f"rows that differ in {name} make no curve together; select one with --where")
    groups = frame.groupby(["dataset", "positions"], sort=False)
    return groups[names].mean().assign(trials=groups.size()).reset_index()


def draw(shown: pd.DataFrame, about: str) -> Figure:
    """A figure of two rows of panels, a column for each problem."""
    problems = list(dict.fromkeys(shown["dataset"]))
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (len(MEASURES), len(problems)), LAYOUT,
            title="Which positions carry over to longer sequences", subtitle=about,
            footnote="Above whole answers, below their tokens; decoded without a look at the right ones.",
        )  # fmt: skip
        for row, (title, names) in enumerate(MEASURES.items()):
            for column, problem in enumerate(problems):
                axes, rows = grid[row][column], shown[shown["dataset"] == problem]
                for _, one in rows.iterrows():
                    colour, marker = LOOKS.get(one["positions"], OTHER)
                    values = [100 * one[name] for name in names]
                    axes.plot(TIMES, values, color=colour, marker=marker, markersize=4, linewidth=1.4)
                axes.set_xscale("log", base=2)
                axes.set_xticks(TIMES, [f"{times}x" for times in TIMES])
                axes.minorticks_off()
                axes.set_ylim(-4, 104)
                axes.set_yticks([0, 50, 100], ["0%", "50%", "100%"] if column == 0 else ["", "", ""])
                if row == 0:
                    axes.set_title(problem, size=10, loc="left")
                if column == 0:
                    axes.set_ylabel(title)
                if row == 1:
                    axes.set_xlabel("length of training")
        for name in dict.fromkeys(shown["positions"]):
            colour, marker = LOOKS.get(name, OTHER)
            grid[0][-1].plot([], [], color=colour, marker=marker, markersize=4, linewidth=1.4, label=name)
        grid[0][-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1.05))
    return figure


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="?", default="results")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--where", help="a pandas query")
    options = parser.parse_args()
    frame = selection.where(load(options.results, all_columns=True), options.where)
    shown = curves(frame)
    one = frame.iloc[0]
    seeds = counted(int(shown["trials"].max()), "seed")
    about = (
        f"Trained on up to {one['length']:.0f} symbols, {counted(int(one['epochs']), 'epoch')}; "
        f"depth {one['depth']:.0f}, width {one['dim']:.0f}; {seeds} each"
    )
    print(table(shown))
    for path in save(draw(shown, about), options.out, "length"):
        print(f"wrote {path}")


def table(shown: pd.DataFrame) -> str:
    """A Markdown table in per cent: whole answers (tokens) at each length."""
    lines = ["| problem | positions | 1x | 2x | 4x |", "| --- | --- | ---: | ---: | ---: |"]
    for _, one in shown.iterrows():
        cells = [
            f"{100 * one[whole]:.0f} ({100 * one[tokens]:.0f})"
            for whole, tokens in zip(*MEASURES.values(), strict=True)
        ]
        lines.append(f"| {one['dataset']} | {one['positions']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_status(main))
