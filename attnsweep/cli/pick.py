"""`attnsweep pick`."""

import argparse
from collections.abc import Sequence

import pandas as pd

from attnsweep.answers import pareto
from attnsweep.cli.options import add_results
from attnsweep.core.clean import cleaned
from attnsweep.results.schema import MEASURES
from attnsweep.results.store import load


def main(arguments: Sequence[str]) -> int:
    """The architectures with the highest validation accuracy under a budget."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep pick", description=main.__doc__)
    add_results(parser)
    parser.add_argument("--latency-ms", type=float, help="at most this median latency, in ms")
    parser.add_argument("--params", type=float, help="at most that many parameters, such as 2e6")
    parser.add_argument("--dataset", help="the data set; needed where the results have several")
    parser.add_argument("--measured-on", help="the device; needed where latency was measured on several")
    options = parser.parse_args(arguments)
    return pick(**vars(options))


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
