"""`attnsweep show`: one trial in full, and the line that reruns it."""

import argparse
from collections.abc import Sequence
from typing import Any

import pandas as pd

from attnsweep.cli.options import add_results
from attnsweep.core import terminal
from attnsweep.core.clean import clean
from attnsweep.core.columns import BITS
from attnsweep.core.errors import UserError
from attnsweep.results.loading import load
from attnsweep.results.schema import EPOCHS, MEASURES
from attnsweep.space.rerun import find_trial, rerun_line

CURVE = tuple(column.name for column in EPOCHS if "curve" in column.shown)


def main(arguments: Sequence[str]) -> int:
    """Prints everything about one trial, its learning curve, and the line that reruns it."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep show", description=main.__doc__)
    parser.add_argument("trial_id", metavar="TRIAL_ID", help="the id, or its first digits")
    add_results(parser)
    options = parser.parse_args(arguments)
    return show(options.results, options.trial_id)


def show(results: str, trial_id: str) -> int:
    """See `main`."""
    screen, row = terminal.screen(), find_trial(results, trial_id)
    for column in MEASURES.values():
        value = row[column.name]
        if column.type != BITS and not pd.isna(value):
            screen.print(
                f"{column.name:<20} {clean(written(value))} {column.unit}".rstrip(),
                highlight=False,
                markup=False,
            )
    epochs = load(results, "epochs")
    curve = epochs[epochs["trial_id"] == row["trial_id"]].sort_values("epoch")
    if not curve.empty:
        shown = curve[list(CURVE)].dropna(axis="columns", how="all")
        screen.print("\n" + shown.to_string(index=False, float_format="{:.4g}".format), highlight=False)
    try:
        last = f"run it again: {rerun_line(row)}"
    except UserError as error:  # of another version, or of somebody else: the rest is worth seeing
        last = f"it cannot be run again from here: {error}"
    screen.print(f"\n{last}", highlight=False, markup=False)
    return 0


def written(value: Any) -> str:
    """A value of a row as people write it."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.5g}" if isinstance(value, float) and not value.is_integer() else str(value)
