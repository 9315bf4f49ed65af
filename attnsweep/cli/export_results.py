"""`attnsweep export-results`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from attnsweep.answers import selection
from attnsweep.answers.exports.forms import EXPORTS, export
from attnsweep.cli.options import add_results
from attnsweep.figures.arguments import add_where
from attnsweep.results.loading import load


def main(arguments: Sequence[str]) -> int:
    """Writes the results for another tool: a CSV file, a LaTeX table, an Optuna study in an SQLite file,
    which optuna-dashboard opens, a folder of TensorBoard's event files, or an SQLite file of MLflow's.
    """
    parser = argparse.ArgumentParser(prog="python -m attnsweep export-results", description=main.__doc__)
    parser.add_argument("form", choices=EXPORTS)
    parser.add_argument("place", type=Path, help="the file, of tensorboard the folder")
    add_results(parser)
    add_where(parser)
    options = parser.parse_args(arguments)
    trials = load(options.results, status=None, all_columns=True)
    trials = selection.where(trials, options.where)
    written = export(options.form, trials, load(options.results, "epochs"), options.place)
    print(f"wrote {options.place}: {written}")
    return 0
