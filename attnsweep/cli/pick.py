"""`attnsweep pick`: the best architecture under a budget."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attnsweep.answers import naming, pareto, selection
from attnsweep.answers.choice import Choice, choose
from attnsweep.answers.doubt import NOTHING
from attnsweep.cli.options import add_results
from attnsweep.core.clean import clean, cleaned
from attnsweep.core.text import limit
from attnsweep.figures.arguments import add_runtime, add_where
from attnsweep.results.loading import load
from attnsweep.results.schema import MEASURES

MOST = 10  # settings that are printed
UNSTABLE = f"latency_unstable: known to no better than 3 %; {pareto.MEASURE} --again"


def main(arguments: Sequence[str]) -> int:
    """The architectures with the highest validation accuracy under a budget, in a sentence and as a table."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep pick", description=main.__doc__)
    add_results(parser, positional=True)
    parser.add_argument("--latency-ms", help="at most this latency (latency_ms_p50)")
    parser.add_argument("--params", help="at most that many parameters, such as 1M or 2e6")
    parser.add_argument("--macs", help="at most that many multiply-accumulates per example, such as 20M")
    parser.add_argument("--memory-mb", help="at most this peak memory of training, in MB")
    parser.add_argument("--dataset", help="the data set; needed where the results have several")
    parser.add_argument("--measured-on", help="latency on this device; default: the one that the trials name")
    add_runtime(parser)
    add_where(parser)
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON object, no more")
    options = vars(parser.parse_args(arguments))
    return pick(asked={name: options.pop(name) for name in pareto.BUDGETS}, **options)


def pick(
    results: str,
    *,
    asked: Mapping[str, str | None],
    dataset: str | None = None,
    measured_on: str | None = None,
    runtime: str | None = None,
    where: str | None = None,
    as_json: bool = False,
) -> int:
    """Prints the settings with the highest mean validation accuracy under a budget, the best first, each with
    the id of one of its trials. `asked` has the limits as they were typed, by their names in `BUDGETS`.
    """
    budget = {name: limit(name, value) for name, value in asked.items() if value is not None}
    rows = load(results, status=None, all_columns=True, runtime=runtime, measured_on=measured_on)
    rows = selection.where(rows, where)
    needed = "latency_ms" in budget or measured_on is not None
    rows, remarks = (selection.of_device(rows, measured_on), []) if needed else selection.comparable(rows)
    choice = choose(rows, budget, dataset)
    if as_json:
        print(in_json(choice, remarks))
        return 0
    print(f"{clean(choice.sentence)}\n")
    shown = cleaned(to_show(choice.settings)).dropna(axis="columns", how="all")
    print(shown.to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    if len(choice.settings) > MOST:
        print(f"and {len(choice.settings) - MOST:,} more within the budget")
    if shown.get("latency_unstable", pd.Series()).eq(True).any():
        remarks.append(UNSTABLE)
    for remark in (*choice.remarks, *remarks):
        print(clean(remark))
    return 0


def to_show(best: pd.DataFrame) -> pd.DataFrame:
    """Of the first settings what tells all apart, and the measures that are to be seen beside them."""
    axes, models = naming.distinguishing(best), naming.model_names(best)
    best = best.head(MOST)
    measures = [column.name for column in MEASURES.values() if "pick" in column.shown]
    added: dict[str, Any] = {"model": best["model"].map(models)}
    if "low" in best:
        quality, known = pareto.judged_by(best), best["doubt_of"].ne(NOTHING)
        ends = {f"{quality}_{end}": best[end].where(known) for end in ("low", "high")}
        added |= {"seeds": [seeds_of(row) for _, row in best.iterrows()], **ends}
        after = measures.index(quality) + 1 if quality in measures else len(measures)
        measures[after:after] = [*ends, "p_front"]
    wanted = dict.fromkeys(["trial_id", "model", "dataset", *axes, "seeds", *measures])
    there = best[[name for name in wanted if name in best]]  # pandas warns of additions to whole rows
    typed = naming.as_typed(there, axes).assign(**added)
    return typed[[name for name in wanted if name in typed]]


def seeds_of(row: "pd.Series[Any]") -> str:
    """The number of a setting's seeds; `1 of 3` where others failed."""
    begun = row["seeds_begun"]
    return f"{row['seeds']}" if pd.isna(begun) or begun <= row["seeds"] else f"{row['seeds']} of {begun:.0f}"


def in_json(choice: Choice, remarks: Sequence[str]) -> str:
    """The choice as one JSON object: `sentence`, `remarks`, and `settings`, best first, null where nothing is
    known.
    """
    settings = choice.settings.dropna(axis="columns", how="all")
    records = json.loads(settings.to_json(orient="records", double_precision=15))
    return json.dumps(
        {"sentence": choice.sentence, "remarks": [*choice.remarks, *remarks], "settings": records}
    )
