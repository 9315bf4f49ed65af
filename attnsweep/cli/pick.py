"""`attnsweep pick`."""

import argparse
from collections.abc import Sequence

import pandas as pd

from attnsweep.answers import pareto
from attnsweep.cli.options import add_results
from attnsweep.core.clean import cleaned
from attnsweep.results.schema import MEASURES
from attnsweep.results.store import load

MOST = 10  # settings that are printed


def main(arguments: Sequence[str]) -> int:
    """The architectures with the highest validation accuracy under a budget."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep pick", description=main.__doc__)
    add_results(parser)
    parser.add_argument("--latency-ms", type=float, help="at most this median latency, in ms")
    parser.add_argument("--params", type=float, help="at most that many parameters, such as 2e6")
    parser.add_argument("--dataset", help="the data set; needed where the results have several")
    parser.add_argument("--measured-on", help="the device; needed where latency was measured on several")
    parser.add_argument("--where", help='only rows for which this pandas query holds, such as "epochs == 15"')
    options = parser.parse_args(arguments)
    return pick(**vars(options))


def pick(
    results: str,
    *,
    latency_ms: float | None,
    params: float | None,
    dataset: str | None,
    measured_on: str | None,
    where: str | None = None,
) -> int:
    """Prints the settings with the highest mean validation accuracy under a budget, the best first, each with
    the id of one of its trials.
    """
    rows = load(results, all_columns=True)
    rows = pareto.where(rows, where) if where else rows
    if latency_ms is not None or measured_on is not None:
        rows = pareto.of_device(rows, measured_on)
    best = pareto.pick(rows, latency_ms=latency_ms, params=params, dataset=dataset)
    shown = cleaned(to_show(best)).dropna(axis="columns", how="all").head(MOST)
    print(shown.to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    if len(best) > MOST:
        print(f"and {len(best) - MOST:,} more within the budget")
    return 0


def to_show(best: pd.DataFrame) -> pd.DataFrame:
    """What tells the settings apart, and the measures that are to be seen beside them."""
    axes, models = pareto.distinguishing(best), pareto.model_names(best)
    typed = pareto.as_typed(best, axes).assign(model=best["model"].map(models))
    measures = (column.name for column in MEASURES.values() if "pick" in column.shown)
    wanted = dict.fromkeys(["trial_id", "model", "dataset", *axes, "seeds", *measures])
    return typed[[name for name in wanted if name in typed]]
