"""Fronts, hypervolumes, means over seeds and picking, against brute force and by what they refuse."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnsweep.answers import naming, pareto, selection
from attnsweep.core.errors import UserError
from attnsweep.results.schema import CONFIGURATION

AXES = [column.name for column in CONFIGURATION]
small = st.one_of(st.integers(1, 6).map(float), st.just(math.nan))  # few values, so that ties are frequent
points = st.lists(st.tuples(small, small), max_size=12)


def rows_of(pairs: list[tuple[float, float]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["latency_ms_p50", "test_acc"], dtype=float)


def trial(model: str = "vit", **values: object) -> dict[str, object]:
    """A row of the trials table with every configuration column; what is not named is null or plausible."""
    known = {
        "dataset": "mnist",
        "seed": 0,
        "epochs": 15,
        "params": 1000,
        "measured_on": "cpu",
        "latency_batch": 1,
    }
    scores = {"val_acc": 0.5, "test_acc": 0.5, "test_acc_best": 0.5, "latency_ms_p50": 1.0, "status": "done"}
    return {**dict.fromkeys(AXES), **known, **scores, "model": model, **values}


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def brute_force_front(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    known = [pair for pair in pairs if not any(map(math.isnan, pair))]
    return sorted(pair for pair in known if not any(beats(other, pair) for other in known))


def covered_cells(pairs: list[tuple[float, float]], corner: pareto.Reference) -> float:
    """The area of the union of the points' boxes, cell by cell of the grid through all of their corners."""
    logs = [(math.log10(cost), quality) for cost, quality in pairs]
    across = sorted({math.log10(corner.cost), *(x for x, _ in logs)})
    up = sorted({corner.quality, *(y for _, y in logs)})
    return sum(
        (right - left) * (top - bottom)
        for left, right in itertools.pairwise(across)
        for bottom, top in itertools.pairwise(up)
        if right <= math.log10(corner.cost) and bottom >= corner.quality
        if any(x <= left and y >= top for x, y in logs)
    )


@pytest.mark.slow
@given(points)
def test_the_front_is_what_brute_force_finds_ties_and_nulls_included(pairs):
    found = pareto.front(rows_of(pairs))
    assert list(found.itertuples(index=False, name=None)) == brute_force_front(pairs)


@pytest.mark.slow
@given(points, st.randoms())
def test_the_front_does_not_depend_on_the_order_of_the_rows(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert pareto.front(rows_of(pairs)).values.tolist() == pareto.front(rows_of(shuffled)).values.tolist()


@pytest.mark.slow
@given(points)
def test_the_front_of_a_front_is_itself(pairs):
    once = pareto.front(rows_of(pairs))
    pd.testing.assert_frame_equal(pareto.front(once), once)


def test_rows_with_the_same_cost_and_quality_all_stay_in_their_order():
    frame = rows_of([(2, 0.9), (1, 0.5), (2, 0.9)]).assign(name=["first", "cheap", "second"])
    assert pareto.front(frame)["name"].tolist() == ["cheap", "first", "second"]


def test_a_row_is_beaten_by_one_that_is_equal_on_one_side_and_better_on_the_other():
    frame = rows_of([(1, 0.5), (1, 0.6), (2, 0.6)])
    assert pareto.front(frame).index.tolist() == [1]


def test_rows_that_are_not_done_are_not_on_the_front():
    frame = rows_of([(1, 0.9), (2, 0.8)]).assign(status=["stopped", "done"])
    assert pareto.front(frame)["test_acc"].tolist() == [0.8]


def test_the_front_reads_arrow_columns_with_nulls():
    frame = rows_of([(1, 0.5), (2, math.nan), (3, 0.7)]).convert_dtypes(dtype_backend="pyarrow")
    assert pareto.front(frame)["latency_ms_p50"].tolist() == [1, 3]


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from([0.1, 1.0, 10.0, 100.0, 1000.0]), st.integers(-2, 8)), max_size=8))
def test_the_hypervolume_is_the_area_that_brute_force_counts(pairs):
    corner = pareto.Reference(cost=100.0, quality=1.0)
    found = pareto.hypervolume(rows_of(pairs), corner)
    assert found == pytest.approx(covered_cells(pairs, corner))


def test_the_hypervolume_of_one_point_is_its_accuracy_times_its_decades():
    assert pareto.hypervolume(rows_of([(1, 0.9)]), pareto.Reference(cost=100.0)) == pytest.approx(1.8)


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0.1, 99.0), st.floats(0.01, 1.0)), min_size=1, max_size=8))
def test_the_hypervolume_does_not_depend_on_the_unit_of_the_cost(pairs):
    milliseconds, seconds = rows_of(pairs), rows_of([(cost / 1000, quality) for cost, quality in pairs])
    one = pareto.hypervolume(milliseconds, pareto.Reference(cost=100.0))
    other = pareto.hypervolume(seconds, pareto.Reference(cost=0.1))
    assert one == pytest.approx(other)


@pytest.mark.parametrize(("worst", "corner"), [(0.4, 1.0), (9.99, 10.0), (10.0, 100.0), (4.5e7, 1e8)])
def test_the_reference_is_the_first_power_of_ten_above_the_worst_cost(worst, corner):
    found = pareto.reference(rows_of([(0.3, 0.9), (worst, 0.1), (math.nan, 0.5)]))
    assert (found.cost, found.quality) == (corner, 0.0)


def test_a_cost_without_logarithm_or_without_any_value_is_refused():
    with pytest.raises(UserError, match="latency_ms_p50=0 has no logarithm"):
        pareto.hypervolume(rows_of([(0, 0.5)]), pareto.Reference(cost=10.0))
    with pytest.raises(UserError, match="no row has latency_ms_p50"):
        pareto.reference(rows_of([(math.nan, 0.5)]))


def test_rows_of_several_data_sets_share_no_front():
    frame = pd.DataFrame([trial(dataset="mnist"), trial(dataset="cifar10"), trial(dataset="mnist")])
    with pytest.raises(UserError) as refusal:
        pareto.front(frame)
    assert "cifar10 (1 row), mnist (2 rows)" in str(refusal.value)
    assert """frame[frame['dataset'] == 'cifar10']""" in str(refusal.value)


def test_of_many_groups_a_sentence_names_some():
    frame = pd.DataFrame([trial(dataset=f"set{i:02}") for i in range(14)])
    with pytest.raises(UserError, match=r"set09 \(1 row\), 4 more; select one"):
        pareto.front(frame)


def test_latencies_of_several_devices_share_no_front_but_parameters_do():
    better = trial(measured_on="Xeon, 1 thread", val_acc=0.6, test_acc=0.6)
    frame = pd.DataFrame([trial(measured_on="A100"), better])
    with pytest.raises(UserError, match=r"A100 \(1 row\), Xeon, 1 thread \(1 row\)"):
        pareto.front(frame)
    assert pareto.front(frame, cost="params")["test_acc"].tolist() == [0.6]


def test_latencies_of_several_batch_sizes_share_no_front():
    with pytest.raises(UserError, match="differ in latency_batch"):
        pareto.front(pd.DataFrame([trial(latency_batch=1), trial(latency_batch=8)]))


def test_rows_that_the_front_leaves_out_do_not_make_it_refuse():
    frame = pd.DataFrame([trial(), trial(latency_ms_p50=None, measured_on=None, latency_batch=None)])
    assert len(pareto.front(frame)) == 1


def test_a_misspelt_column_is_answered_with_the_right_one():
    with pytest.raises(
        UserError, match="column 'latency_p50' is not in these rows, did you mean 'latency_ms_p50'"
    ):
        pareto.front(rows_of([(1, 0.5)]), cost="latency_p50")


@pytest.mark.parametrize("column", ["model", "trial_id", "finished_at"])
def test_columns_without_numbers_are_refused(column):
    frame = pd.DataFrame([trial(trial_id="a", finished_at=pd.Timestamp(0))])
    with pytest.raises(UserError, match=f"column '{column}' holds no numbers"):
        pareto.front(frame, quality=column)


@pytest.mark.parametrize("frame", ["results", None, {"test_acc": [0.5]}])
def test_what_is_no_frame_is_answered_in_a_sentence(frame):
    with pytest.raises(UserError, match=f"a DataFrame is wanted.* not {type(frame).__name__}"):
        pareto.front(frame)


def test_a_condition_is_one_that_is_true_or_false_of_each_row():
    frame = pd.DataFrame([trial(depth=2, git_dirty=True), trial(depth=4, git_dirty=False), trial(depth=None)])
    for condition in ("depth == 2", "git_dirty", "model == 'vit' and depth < 3", "depth.eq(2)"):
        assert selection.where(frame, condition)["depth"].tolist() == [2]
    for condition in ("1", "depth", "model", "depth + 1", "depth = 2", "True", "@depth", "depth ="):
        with pytest.raises(UserError, match="cannot be evaluated"):
            selection.where(frame, condition)


def test_columns_that_point_the_other_way_are_refused():
    with pytest.raises(UserError, match="'val_loss' is better when lower"):
        pareto.front(pd.DataFrame([trial(val_loss=0.1)]), quality="val_loss")
    with pytest.raises(UserError, match="'throughput_per_s' is better when higher"):
        pareto.front(pd.DataFrame([trial(throughput_per_s=10.0)]), cost="throughput_per_s")


def test_rows_that_differ_only_in_seed_become_one_with_mean_range_and_deviation():
    frame = pd.DataFrame(
        [trial(depth=2, seed=seed, test_acc=acc) for seed, acc in enumerate([0.7, 0.9, 0.8])]
    )
    (row,) = pareto.over_seeds(frame).to_dict("records")
    assert row["test_acc"] == pytest.approx(0.8)
    assert (row["test_acc_min"], row["test_acc_max"], row["seeds"]) == (0.7, 0.9, 3)
    assert row["test_acc_sd"] == pytest.approx(0.1)


def test_models_without_an_axis_are_grouped_over_their_nulls():
    frame = pd.DataFrame([trial("cnn", seed=0), trial("cnn", seed=1), trial("vit", depth=4, seed=0)])
    rows = pareto.over_seeds(frame)
    assert rows[["model", "seeds"]].values.tolist() == [["cnn", 2], ["vit", 1]]
    assert rows["depth"].isna().tolist() == [True, False]


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, 2, 4]), st.sampled_from([1e-4, 3e-4]), st.integers(0, 3)),
        min_size=1,
        unique=True,
    )
)
def test_over_seeds_keeps_one_row_for_each_setting_and_counts_its_seeds(choices):
    frame = pd.DataFrame([trial(depth=depth, lr=lr, seed=seed) for depth, lr, seed in choices])
    rows = pareto.over_seeds(frame)
    seeds: dict[tuple[object, float], set[int]] = {}
    for depth, lr, seed in choices:
        seeds.setdefault((depth, lr), set()).add(seed)
    found = {(None if pd.isna(row.depth) else row.depth, row.lr): row.seeds for row in rows.itertuples()}
    assert found == {setting: len(of) for setting, of in seeds.items()}


def test_latency_over_seeds_is_the_median_and_parameters_stay_whole_numbers():
    frame = pd.DataFrame([trial(seed=seed, latency_ms_p50=ms) for seed, ms in enumerate([1.0, 9.0, 2.0])])
    rows = pareto.over_seeds(frame)
    assert rows["latency_ms_p50"].tolist() == [2.0]
    assert rows["params"].dtype == np.int64


def test_a_setting_measured_on_two_devices_is_refused():
    frame = pd.DataFrame([trial(seed=0, measured_on="A100"), trial(seed=1, measured_on="H100")])
    with pytest.raises(UserError, match=r"A100 \(1 row\), H100 \(1 row\)"):
        pareto.over_seeds(frame)


def test_what_seeds_took_on_different_devices_has_no_median_and_shares_no_front():
    trained = {"train_s": 10.0, "device": "cpu"}
    frame = pd.DataFrame([trial(depth=depth, seed=seed, **trained) for depth in (2, 4) for seed in (0, 1)])
    assert pareto.over_seeds(frame)["train_s"].tolist() == [10, 10]
    frame.loc[1, "device"] = "gpu"
    assert pareto.over_seeds(frame)["train_s"].isna().tolist() == [True, False]
    frame["device"] = ["cpu", "cpu", "gpu", "gpu"]
    with pytest.raises(UserError, match="differ in device"):
        pareto.front(pareto.over_seeds(frame), "train_s")


def test_measures_that_no_row_of_ours_has_are_unknown():
    frame = pd.DataFrame([
        trial(depth=1, params=-1), trial(depth=2, latency_ms_p50=-1.0), trial(depth=3, params=0),
        trial(depth=4, val_acc=0.4, params=7),
    ])  # fmt: skip
    rows = selection.done(frame)
    assert pareto.front(frame, "params")["depth"].tolist() == [3]
    assert pareto.pick(frame, params=10)["depth"].tolist() == [3, 4]
    assert rows["params"].isna().tolist() == [True, False, False, False]
    assert rows["latency_ms_p50"].isna().tolist() == [False, True, False, False]


def test_measures_that_are_no_finite_number_are_unknown():
    frame = pd.DataFrame([trial(depth=2, latency_ms_p50=np.inf), trial(depth=4, val_acc=np.inf)])
    found = pareto.over_seeds(frame)
    assert found["latency_ms_p50"].isna().tolist() == [True, False]
    assert pareto.pick(frame)["depth"].tolist() == [2]


def test_seeds_that_failed_do_not_count():
    frame = pd.DataFrame([trial(seed=0), trial(seed=1, status="failed", test_acc=None)])
    assert pareto.over_seeds(frame)["seeds"].tolist() == [1]


def test_who_sees_all_is_never_picked():
    frame = pd.DataFrame([trial("expert", val_acc=1.0), trial("vit", val_acc=0.5)])
    assert pareto.pick(frame)["model"].tolist() == ["vit"]


def test_pick_chooses_by_validation_and_reports_the_test():
    frame = pd.DataFrame([
        trial(depth=2, val_acc=0.80, test_acc=0.95),
        trial(depth=4, val_acc=0.90, test_acc=0.70, seed=0),
        trial(depth=4, val_acc=0.92, test_acc=0.72, seed=1),
    ])  # fmt: skip
    best = pareto.pick(frame).iloc[0]
    assert (best["depth"], best["seeds"], best["test_acc"]) == (4, 2, pytest.approx(0.71))


@pytest.mark.slow
def test_pick_keeps_to_every_budget():
    frame = pd.DataFrame([
        trial(depth=2, val_acc=0.7, latency_ms_p50=1.0, params=100),
        trial(depth=4, val_acc=0.8, latency_ms_p50=2.0, params=300),
        trial(depth=6, val_acc=0.9, latency_ms_p50=3.0, params=200),
    ])  # fmt: skip
    assert pareto.pick(frame, latency_ms=2.0)["depth"].tolist() == [4, 2]
    assert pareto.pick(frame, params=200)["depth"].tolist() == [6, 2]
    assert pareto.pick(frame, params="0.2k")["depth"].tolist() == [6, 2]
    assert pareto.pick(frame, latency_ms=2.5, params=250)["depth"].tolist() == [2]


def test_of_equal_accuracies_pick_puts_the_cheapest_first():
    frame = pd.DataFrame([trial(depth=4, latency_ms_p50=2.0), trial(depth=2, latency_ms_p50=1.0)])
    assert pareto.pick(frame)["depth"].tolist() == [2, 4]


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0.01, 50.0), st.integers(1000, 10**8)), min_size=1, max_size=6))
def test_the_budget_that_pick_asks_for_is_enough(costs):
    frame = pd.DataFrame([
        trial(depth=depth, latency_ms_p50=ms, params=params) for depth, (ms, params) in enumerate(costs)
    ])  # fmt: skip
    budget = {"latency_ms": 0.005, "params": 500.0}
    with pytest.raises(UserError, match="which needs") as refusal:
        pareto.pick(frame, **budget)
    needed = str(refusal.value).split("which needs ")[1].split(" and ")
    budget |= {name: float(value) for name, value in (one.split("=") for one in needed)}
    assert len(pareto.pick(frame, **budget)) >= 1


def test_a_budget_is_written_as_short_as_it_can_be():
    asked = [1e-300, 0.0012341, 1.5, 999.9999, 1000.2, 2**50, 1e300]
    assert [pareto.rounded_up(one) for one in asked] == [
        "0.001", "0.002", "1.5", "1000", "1001", "1125899906842624.0", "1e+300",
    ]  # fmt: skip


def test_rows_without_a_seed_are_said_to_have_none():
    with pytest.raises(UserError, match="has several rows of no seed"):
        pareto.over_seeds(pd.DataFrame([trial(seed=None), trial(seed=None)]))


@pytest.mark.slow
def test_where_nothing_fits_pick_names_the_nearest_setting():
    frame = pd.DataFrame([trial(depth=2, latency_ms_p50=1.2344), trial(depth=4, latency_ms_p50=3.0)])
    with pytest.raises(
        UserError,
        match=r"nothing fits latency_ms_p50 <= 1; the nearest is vit depth=2, .* latency_ms=1\.235$",
    ):
        pareto.pick(frame, latency_ms=1.0)


def test_pick_refuses_mixtures_unknown_data_sets_and_empty_budgets():
    frame = pd.DataFrame([trial(dataset="mnist"), trial(dataset="cifar10")])
    with pytest.raises(UserError, match="differ in dataset"):
        pareto.pick(frame)
    assert pareto.pick(frame, dataset="mnist")["dataset"].tolist() == ["mnist"]
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        pareto.pick(frame, dataset="cifar")
    with pytest.raises(UserError, match="params=-1 is out of range"):
        pareto.pick(frame, dataset="mnist", params=-1)


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        ({"status": "failed"}, "no done trial has val_acc; there are 2 failed; the column error says why"),
        ({"val_acc": None}, "no done trial has val_acc; choose other trials"),
        ({"macs": None}, "no done trial has macs; choose other trials, or leave it out"),
        (
            {"latency_ms_p50": None},
            "no done trial has a latency; measure: python -m attnsweep measure RESULT",
        ),
        (
            {"latency_ms_p50": None, "params": 0},  # of rules, and `measure` would measure none
            "no done trial has latency_ms_p50; choose other trials, or leave it out",
        ),
    ],
)
def test_pick_says_what_there_is_none_of_and_nothing_that_would_not_help(lacking, sentence):
    frame = pd.DataFrame([trial(**{"macs": 5, "seed": seed, **lacking}) for seed in range(2)])
    with pytest.raises(UserError, match=sentence):
        pareto.pick(frame, macs=1e6, latency_ms=1)


def test_where_there_is_no_trial_the_way_to_get_some_is_named():
    with pytest.raises(UserError, match="run a sweep first: python -m attnsweep new quickstart writes one"):
        pareto.pick(pd.DataFrame([trial()]).head(0))


@pytest.mark.slow
def test_labels_name_the_fewest_axes_that_tell_the_rows_apart():
    sizes = [(6, 128, 4, 256), (12, 768, 12, 3072), (6, 768, 12, 3072)]
    rows = [trial(depth=d, dim=dim, heads=h, mlp_dim=mlp, lr=1e-4) for d, dim, h, mlp in sizes]
    frame = pd.DataFrame([*rows, trial("cnn")])
    assert naming.labels(frame).tolist() == ["vit d6 dim128", "vit d12 dim768", "vit d6 dim768", "cnn"]
    assert naming.labels(frame, short=False)[0] == "vit depth=6 dim=128"


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.sampled_from([1, 2])] * 4), min_size=1, unique=True))
def test_labels_of_different_settings_differ(choices):
    names = ("depth", "heads", "mlp_dim", "patch_size")
    frame = pd.DataFrame([trial(**dict(zip(names, values, strict=True))) for values in choices])
    assert naming.labels(frame).is_unique


def test_one_device_is_chosen_by_name_and_rows_without_latency_stay():
    frame = pd.DataFrame([trial(measured_on=name) for name in ("A100", "H100", None)])
    with pytest.raises(UserError, match=r"A100 \(1 row\), H100 \(1 row\); choose one with --measured-on"):
        selection.of_device(frame)
    assert selection.of_device(frame, "A100").index.tolist() == [0, 2]
    with pytest.raises(UserError, match="measured_on='A10' has no rows, did you mean 'A100'"):
        selection.of_device(frame, "A10")


def test_a_query_that_is_malformed_or_holds_for_no_row_is_a_users_mistake():
    frame = pd.DataFrame([trial(depth=2), trial(depth=4)])
    assert selection.where(frame, "depth == 4").index.tolist() == [1]
    for condition in ("depth ==", "deph == 4", "depth == 5"):
        with pytest.raises(UserError, match=condition):
            selection.where(frame, condition)


@pytest.mark.slow
def test_reading_results_needs_neither_torch_nor_ray():
    code = "import sys, attnsweep.answers.pareto; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_labels_say_what_an_architecture_is_before_how_it_was_trained() -> None:
    """Two CNNs on one folder that differ in both."""
    rows = pd.DataFrame(
        [trial("cnn", image_size=40, epochs=5), trial("cnn", image_size=64, epochs=12), trial("vit", depth=2)]
    )
    assert naming.labels(rows).tolist() == ["cnn 40px ep5", "cnn 64px ep12", "vit ep15"]
    assert naming.labels(rows[:2], short=False).tolist() == ["cnn image_size=40", "cnn image_size=64"]
    rows = pd.DataFrame([trial("cnn", dim=32, batch_size=8), trial("cnn", pooling="max", batch_size=64)])
    assert naming.labels(rows).tolist() == ["cnn dim32", "cnn"]


# What tells settings apart


def names(*rows: dict[str, object], **options: bool) -> list[str]:
    return list(naming.labels(pd.DataFrame(list(rows)), **options))


@pytest.mark.slow
def test_models_that_were_trained_otherwise_are_told_so_on_one_data_set() -> None:
    vit, cnn = trial("vit", epochs=1, lr=1e-3, depth=2), trial("cnn", epochs=15, lr=1e-4)
    assert names(vit, cnn) == ["vit ep1 lr=0.001", "cnn ep15 lr=0.0001"]
    assert names(vit, {**cnn, "epochs": 1, "lr": 1e-3}) == ["vit", "cnn"]
    assert names(vit, {**cnn, "lr": None, "epochs": 1}) == ["vit", "cnn"], "it has no such axis"
    assert names(vit, {**cnn, "dataset": "cifar10"}) == ["vit", "cnn"], "they stand on no front together"
    assert names(vit, {**cnn, "params": 0}) == ["vit", "cnn"], "a rule is not trained"


@pytest.mark.slow
def test_what_two_models_have_swept_alike_is_no_difference_between_them() -> None:
    rates = [trial(model, lr=lr) for model in ("vit", "cnn") for lr in (1e-3, 1e-4)]
    assert names(*rates) == [f"{model} lr={lr}" for model in ("vit", "cnn") for lr in ("0.001", "0.0001")]
    assert names(*rates[:3]) == ["vit lr=0.001", "vit lr=0.0001", "cnn lr=0.001"]


OTHER: dict[str, dict[str, object]] = {
    "lr": {"lr": 1.0000001e-3},
    "model_args": {"model_args": '{"width": 3}'},
    "epochs": {"epochs": 16},
    "package": {"attnsweep": "0.2.0"},
    "numerics": {"numerics": 3},
    "text of the model": {"model_sha256": "b" * 64},
    "file of the model": {"model": "b/net.py:Net"},
    "name of the file": {"model": "a/other.py:Net"},
    "a built-in model": {"model": "Net"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER)
@pytest.mark.parametrize("short", [False, True])
def test_two_settings_have_two_names(kind: str, short: bool) -> None:
    one = trial("a/net.py:Net", lr=1e-3, model_args='{"width": 2}', model_sha256="a" * 64, numerics=2)
    one |= {"attnsweep": "0.1.0"}
    rows = pareto.over_seeds(pd.DataFrame([one, {**one, **OTHER[kind]}]))
    first, second = naming.labels(rows, short=short)
    assert first != second and len(second) < 60


@pytest.mark.slow
def test_numbers_are_as_long_as_it_takes() -> None:
    found = names(trial(lr=0.00012345678), trial(lr=0.00012349999), trial(lr=1e-3))
    assert found == ["vit lr=0.00012346", "vit lr=0.0001235", "vit lr=0.001"]


def test_a_setting_has_the_id_of_one_of_its_trials() -> None:
    frame = pd.DataFrame([trial(seed=seed, trial_id=f"id{seed}") for seed in (3, 1, 2)])
    assert list(pareto.over_seeds(frame)["trial_id"]) == ["id3"]


# Categories, as `astype("category")` makes them to save memory


@pytest.mark.slow
def test_categories_without_rows_are_none() -> None:
    frame = pd.DataFrame(
        [
            trial(dataset=dataset, depth=depth, seed=seed, measured_on=device, trial_id=f"{dataset}{depth}")
            for dataset, device in (("mnist", "cpu"), ("cifar10", "gpu"))
            for depth in (2, 4)
            for seed in (0, 1)
        ]
    )
    packed = frame.assign(
        **{name: frame[name].astype("category") for name in frame if frame[name].notna().any()}
    )
    for rows in (frame, packed):
        mnist = rows[rows["dataset"] == "mnist"]
        best = pareto.pick(mnist, latency_ms=2.0)
        assert list(best["depth"]) == [2, 4] and list(best["seeds"]) == [2, 2]
        assert list(naming.labels(pareto.over_seeds(mnist))) == ["vit d2", "vit d4"]
        assert len(pareto.front(mnist)) == 4 and pareto.hypervolume(mnist, pareto.reference(mnist)) > 0
        assert len(selection.of_device(mnist)) == 4 and len(selection.choose(rows, "dataset", "mnist")) == 4
        assert len(selection.where(rows, "depth == 2 and dataset == 'mnist'")) == 2


def test_picking_from_several_data_sets_says_how_to_choose_one() -> None:
    frame = pd.DataFrame([trial(), trial(dataset="cifar10")])
    with pytest.raises(UserError, match=r"differ in dataset .*choose one with --dataset"):
        pareto.pick(frame, params=1e6)
    with pytest.raises(UserError, match=r"or --where \"data_sha256 == 'a'\""):
        pareto.pick(pd.DataFrame([trial(data_sha256="a"), trial(data_sha256="b")]), params=1e6)
