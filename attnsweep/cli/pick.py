"""`attnsweep pick`."""

import argparse
from collections.abc import Sequence

import pandas as pd

from attnsweep.answers import pareto
from attnsweep.cli.options import add_results
from attnsweep.core.clean import cleaned
from attnsweep.core.errors import UserError
from attnsweep.figures.arguments import add_runtime
from attnsweep.results import latencies
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
    add_runtime(parser)
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
    runtime: str | None = None,
    where: str | None = None,
) -> int:
    """Prints the settings with the highest mean validation accuracy under a budget, the best first, each with
    the id of one of its trials.
    """
    rows = load(results, all_columns=True, runtime=runtime)
    rows = pareto.where(rows, where) if where else rows
    rows, remarks = comparable(rows, measured_on, needed=latency_ms is not None or measured_on is not None)
    best = pareto.pick(rows, latency_ms=latency_ms, params=params, dataset=dataset)
    shown = cleaned(to_show(best)).dropna(axis="columns", how="all").head(MOST)
    print(shown.to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    if len(best) > MOST:
        print(f"and {len(best) - MOST:,} more within the budget")
    if shown.get("latency_unstable", pd.Series()).eq(True).any():
        remarks.append(
            "latency_unstable: known to no better than 3 %; measure anew: attnsweep measure --again"
        )
    for remark in remarks:
        print(remark)
    return 0


def comparable(
    rows: pd.DataFrame, measured_on: str | None, *, needed: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The rows with latencies of one device and runtime, or, where there are several and none is `needed`,
    with none and a remark. Raises UserError where one is needed.
    """
    try:
        return pareto.of_device(rows, measured_on), []
    except UserError as error:
        if needed:
            raise
        return rows.assign(**dict.fromkeys(latencies.NAMES)), [f"no latencies are shown: {error}"]


def to_show(best: pd.DataFrame) -> pd.DataFrame:
    """What tells the settings apart, and the measures that are to be seen beside them."""
    axes, models = pareto.distinguishing(best), pareto.model_names(best)
    typed = pareto.as_typed(best, axes).assign(model=best["model"].map(models))
    measures = (column.name for column in MEASURES.values() if "pick" in column.shown)
    wanted = dict.fromkeys(["trial_id", "model", "dataset", *axes, "seeds", *measures])
    return typed[[name for name in wanted if name in typed]]
