"""Looking into results from the command line: one trial in full, the best under a budget, what the columns
mean.
"""

import sys
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from attnsweep.answers import pareto
from attnsweep.core import text
from attnsweep.core.clean import clean, cleaned
from attnsweep.results.schema import EPOCHS, MEASURES, TABLES
from attnsweep.results.store import load
from attnsweep.space.rerun import find_trial, rerun_line

CURVE = tuple(column.name for column in EPOCHS if "curve" in column.shown)


def columns() -> int:
    """Prints every column of every table with its type, unit and meaning."""
    screen = Console(width=120) if not sys.stdout.isatty() else Console()
    for name, described in TABLES.items():
        table = Table(
            title=f"{name} ({len(described)} columns)", box=None, title_justify="left", header_style="dim"
        )
        for title in ("column", "type", "unit", "meaning"):
            table.add_column(title, no_wrap=title == "column")
        for column in described:
            table.add_row(column.name, str(column.type), column.unit, column.meaning)
        screen.print(table, end="\n\n")
    return 0


def show(results: str, trial_id: str) -> int:
    """Prints everything about one trial, its learning curve, and the line that reruns it."""
    screen, row = text.screen(), find_trial(results, trial_id)
    for column in MEASURES.values():
        value = row[column.name]
        if not pd.isna(value):
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
    screen.print(f"\nrun it again: {rerun_line(row)}", highlight=False, markup=False)
    return 0


def written(value: Any) -> str:
    """A value of a row as people write it."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.5g}" if isinstance(value, float) and value != int(value) else str(value)


def pick(
    results: str,
    *,
    latency_ms: float | None,
    params: float | None,
    dataset: str | None,
    measured_on: str | None,
) -> int:
    """Prints the settings with the highest mean validation accuracy under a budget, the best first."""
    rows = load(results, all_columns=True)
    if latency_ms is not None or measured_on is not None:
        rows = pareto.of_device(rows, measured_on)
    best = pareto.pick(rows, latency_ms=latency_ms, params=params, dataset=dataset)
    print(
        cleaned(best[picked_columns(best)])
        .dropna(axis="columns", how="all")
        .head(10)
        .to_string(index=False, float_format="{:.4g}".format)
    )
    return 0


def picked_columns(best: pd.DataFrame) -> list[str]:
    """What tells the settings apart, and the measures that are to be seen beside them."""
    axes = list(dict.fromkeys(["model", "dataset", *pareto.distinguishing(best)]))
    measures = (column.name for column in MEASURES.values() if "pick" in column.shown)
    return [*axes, *(name for name in measures if name in best)]
