"""`pick` in a sentence, and the table below it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_doubt import EXAMPLES, row

from attnsweep.__main__ import main
from attnsweep.answers import choice
from attnsweep.cli.pick import to_show
from attnsweep.core.errors import UserError
from attnsweep.results.store import Store

BASE = np.arange(EXAMPLES)


def sweep() -> pd.DataFrame:
    """Four settings of a model: the second is nearly as good as the third and a third as dear, the fourth is
    better and dearer still.
    """
    hits = {1: 280, 2: 379, 3: 380, 4: 392}
    rows = []
    for depth, right in hits.items():
        for seed in range(3):
            flags = np.roll(BASE < right, seed)  # seeds agree on nearly all examples
            rows.append(row(depth, seed, flags, latency_ms_p50={1: 0.1, 2: 0.5, 3: 1.5, 4: 2.6}[depth]))
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_the_sentence_names_the_best_what_is_as_good_for_less_and_what_more_costs():
    found = choice.choose(sweep(), {"latency_ms": 2})
    assert found.sentence.startswith("vit depth=3: 95.0 % (")
    assert ", 3 seeds) at 1.5 ms; vit depth=2 is within noise of it and 3 times as fast" in found.sentence
    assert found.sentence.endswith("the next half point costs 1.1 ms more (vit depth=4)")
    assert found.settings["depth"].tolist() == [3, 2, 1]


@pytest.mark.slow
def test_where_nothing_is_better_the_sentence_says_so():
    assert choice.choose(sweep(), {}).sentence.endswith("nothing here is half a point better")


@pytest.mark.slow
def test_one_seed_and_seeds_that_failed_are_said():
    frame = sweep()
    lost = frame["seed"].ne(0)
    frame.loc[lost, ["test_acc", "val_acc"]] = np.nan
    frame.loc[lost, "status"] = "failed"
    found = choice.choose(frame, {"params": 1e9})
    assert "1 of 3 seeds done" in found.sentence
    assert any(remark.startswith("one seed alone: 4 of 4 settings") for remark in found.remarks)
    assert any("8 seeds of 4 settings not done" in remark for remark in found.remarks)


def test_a_setting_of_which_one_seed_lacks_its_quality_on_test_is_judged_by_the_others():
    frame = sweep()
    frame.loc[9, ["test_acc", "test_right"]] = np.nan, None  # the first seed of the best
    found = choice.choose(frame, {})
    assert found.sentence.startswith("vit depth=4: 98.0 % (") and found.settings["p_front"].notna().all()


def test_without_a_test_or_the_name_of_a_model_there_is_a_choice_still():
    found = choice.choose(sweep().assign(test_acc=None, test_right=None, model=None), {})
    assert found.sentence == "? depth=4" and found.settings["depth"].tolist() == [4, 3, 2, 1]


@pytest.mark.slow
def test_what_costs_nothing_is_cheaper_by_no_number():
    free = sweep().assign(params=lambda rows: 1000 * rows["depth"].eq(3))
    sentence = choice.choose(free[free["depth"].isin([2, 3])], {"params": 1e6}).sentence
    assert "vit depth=2 is within noise of it and takes no parameters" in sentence
    assert "within noise" not in choice.choose(free[free["depth"].eq(2)], {"params": 1e6}).sentence


@pytest.mark.slow
def test_settings_without_the_cost_are_counted():
    frame = sweep()
    frame.loc[frame["depth"] == 1, "latency_ms_p50"] = np.nan
    found = choice.choose(frame, {"latency_ms": 2})
    left_out = "1 setting left out, for want of latency_ms_p50"
    assert f"{left_out}; measure: python -m attnsweep measure RESULTS" in found.remarks
    rules = frame.assign(params=frame["params"].where(frame["depth"] > 1, 0))
    assert left_out in choice.choose(rules, {"latency_ms": 2}).remarks, "which nothing can measure"


@pytest.mark.slow
def test_nothing_that_fits_names_the_nearest_and_the_budget_that_it_needs():
    with pytest.raises(
        UserError, match=r"nothing fits .*params <= 10; the nearest is vit depth=1, .*params=1000"
    ):
        choice.choose(sweep(), {"params": 10, "latency_ms": 5})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["macs", "memory_mb"])
def test_other_budgets_bound_their_columns(name):
    column = {"macs": "macs", "memory_mb": "peak_mem_mb"}[name]
    frame = sweep().assign(**{column: lambda rows: rows["depth"] * 1e6, "device": "cpu"})
    found = choice.choose(frame, {name: 2e6})
    assert found.settings["depth"].tolist() == [2, 1]
    assert (" at 2 M multiply-accumulates" if name == "macs" else " at 2000000 MB") in found.sentence


@pytest.fixture
def results(tmp_path: Path) -> str:
    store = Store(tmp_path / "results")
    for i, one in enumerate(sweep().to_dict("records")):
        known = {
            key: value for key, value in one.items() if not (isinstance(value, float) and np.isnan(value))
        }
        store.write_trial(known | {"trial_id": f"{i:012x}", "depth": int(one["depth"])})
    return str(tmp_path / "results")


def test_a_whole_number_is_shown_whole_where_others_have_none():
    frame = sweep()
    frame["depth"] = frame["depth"].map({1: None, 2: 20_000, 3: 30_000, 4: 65_536})
    shown = to_show(choice.choose(frame, {}).settings)
    assert shown["depth"].fillna("-").tolist() == ["65536", "30000", "20000", "-"]


@pytest.mark.filterwarnings("error")
def test_rows_of_many_columns_are_shown_without_a_warning_of_pandas():
    best = choice.choose(sweep().assign(model="vit"), {}).settings
    more = pd.DataFrame({f"column{i}": pd.Categorical([1] * len(best)) for i in range(101)})
    shown = to_show(pd.concat([best, more.set_index(best.index)], axis=1))
    assert shown["seeds"].tolist() == ["3"] * 4 and "column0" not in shown


@pytest.mark.slow
def test_the_command_prints_the_sentence_then_the_table_with_ids_that_show_takes(results, capsys):
    assert main(["pick", "--results", results, "--latency-ms", "2ms", "--params", "1M"]) == 0
    sentence, table = capsys.readouterr().out.split("\n\n", 1)
    assert sentence.startswith("vit depth=3: 95.0 %")
    head, first = (line.split() for line in table.splitlines()[:2])
    assert {"test_acc_low", "test_acc_high", "p_front"} <= set(head)
    assert main(["show", first[0], "--results", results]) == 0
    shown = capsys.readouterr().out
    assert "depth                3" in shown and "test_right" not in shown


@pytest.mark.slow
def test_the_command_as_json_prints_one_object_and_nothing_else(results, capsys):
    assert main(["pick", "--results", results, "--where", "depth < 4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sentence"].startswith("vit depth=3")
    assert [one["depth"] for one in said["settings"]] == [3, 2, 1]
    assert said["settings"][0]["low"] < said["settings"][0]["test_acc"] < said["settings"][0]["high"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--params", "lots"], "params='lots' is out of range"),
        (["--latency-ms", "2M"], "latency_ms='2M' is out of range"),
        (["--dataset", "mnits"], "did you mean 'mnist'"),
        (["--where", "depth >"], "cannot be evaluated"),
        (["--where", ""], "'' cannot be evaluated"),
        (["--where", "depth > 99"], "no row satisfies"),
        (["--runtime", "openvino"], "nothing was measured under"),
    ],
)
def test_what_makes_no_sense_is_answered_in_a_sentence(results, capsys, words, answer):
    assert main(["pick", "--results", results, *words]) == 2
    out, err = capsys.readouterr()
    assert answer in err and not out and len(err.strip().splitlines()) == 1
