"""Doubt: intervals and probabilities, against simulated sweeps whose truth is known, and brute force."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnsweep.answers import chances, doubt, pareto, phrases, spread
from attnsweep.core.bits import packed
from attnsweep.core.errors import UserError
from attnsweep.results.schema import CONFIGURATION

EXAMPLES = 400
TRUTH = np.array([0.80, 0.82, 0.82, 0.85, 0.86, 0.88, 0.90, 0.90])


def row(depth: float, seed: int, right: np.ndarray, **values: object) -> dict[str, object]:
    """A done trial of the images task that got those test examples right."""
    known = {
        "status": "done", "task": "images", "model": "vit", "dataset": "mnist", "seed": seed, "depth": depth,
        "params": 1000 * depth, "latency_ms_p50": depth, "measured_on": "cpu", "runtime": "eager",
        "latency_batch": 1, "data_sha256": "d", "numerics": 1, "attnsweep": "1",
        "trial_id": f"{depth:g}-{seed}", "val_acc": right.mean(), "test_acc": right.mean(),
        "test_right": packed(right), "test_examples": len(right),
    }  # fmt: skip
    return {**dict.fromkeys(column.name for column in CONFIGURATION), **known, **values}


def flags(
    chance: np.random.Generator, seeds: int, *, of_seed: float, truth: np.ndarray = TRUTH
) -> np.ndarray:
    """Which examples each seed of each setting gets right, (settings, seeds, examples). Over all examples
    and seeds a setting's accuracy is its `truth`; half of the examples are easy for all, and a seed is better
    or worse than its setting by `of_seed`, as standard deviation.
    """
    easy = np.where(chance.random(EXAMPLES) < 0.5, 0.08, -0.08)
    own = truth[:, None] + of_seed * chance.standard_normal((len(truth), seeds))
    return chance.random((len(truth), seeds, EXAMPLES)) < own[:, :, None] + easy


def simulated(chance: np.random.Generator, seeds: int, *, of_seed: float) -> pd.DataFrame:
    """The rows of such a sweep."""
    right = flags(chance, seeds, of_seed=of_seed)
    return pd.DataFrame([row(i + 1, j, one) for i, of in enumerate(right) for j, one in enumerate(of)])


def drawn(right: np.ndarray, chance: np.random.Generator, draws: int = 400) -> np.ndarray:
    """What the accuracy of each setting may be, from the flags of its seeds: (settings, draws)."""
    seeds, by_seed = right.shape[1], right.mean(axis=2)
    variance = by_seed.var(axis=1, ddof=1) if seeds > 1 else np.zeros(len(right))
    lie = spread.moderated(variance, np.full(len(right), seeds - 1))
    share, count = right.mean(axis=1), np.full(len(right), float(seeds))
    moved = doubt.changes(share, doubt.on_example(share, count), lie, count, draws, chance)
    return by_seed.mean(axis=1)[:, None] + moved


def share_within(draws: np.ndarray, truth: np.ndarray) -> float:
    """How many of the true values lie in the intervals of their draws."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    return float(((low <= truth) & (truth <= high)).mean())


# --- Intervals cover the truth at their stated rate ---


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_seed"), [(3, 0.012), (2, 0.012), (3, 0.03), (1, 0.0)])
def test_intervals_of_settings_and_of_differences_cover_the_truth_at_their_stated_rate(seeds, of_seed):
    chance, truth = np.random.default_rng(1), TRUTH - 0.1
    of_one, of_two = [], []
    for _ in range(120):
        draws = drawn(flags(chance, seeds, of_seed=of_seed, truth=truth), chance)
        of_one.append(share_within(draws, truth))
        of_two.append(share_within(draws[1:] - draws[:-1], truth[1:] - truth[:-1]))
    assert 0.92 <= np.mean(of_one) <= 0.98, "settings share a test set: 120 sweeps say it to within 2 points"
    assert 0.92 <= np.mean(of_two) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("examples", "truth"), [(20, 0.9), (100, 0.9), (100, 0.97), (400, 0.97)])
def test_of_few_examples_and_of_settings_that_err_on_the_same_ones_intervals_cover_too(examples, truth):
    """Two equal settings, one seed each, whose answers are the same on four of five examples."""
    chance, of_one, of_two = np.random.default_rng(0), [], []
    for _ in range(200):
        first, other = chance.random((2, examples)), chance.random(examples) < 0.2
        right = np.stack([first[0], np.where(other, first[1], first[0])])[:, None] < truth
        draws = drawn(right, chance, 200)
        of_one.append(share_within(draws, np.full(2, truth)))
        of_two.append(share_within(draws[1:] - draws[:-1], np.zeros(1)))
    assert np.mean(of_one) > 0.92 and np.mean(of_two) > 0.93


def test_settings_that_are_right_on_the_same_examples_are_not_known_to_be_equal():
    right = np.tile(np.arange(100) < 90, (2, 1, 1)).swapaxes(0, 1).reshape(2, 1, 100)
    draws = drawn(right, np.random.default_rng(0), 2000)
    low, high = np.quantile(draws[1] - draws[0], [0.025, 0.975])
    assert -0.05 < low < -0.01 and 0.01 < high < 0.05, "about three examples: the rule of three"


@pytest.mark.slow
def test_a_bootstrap_of_the_seeds_alone_would_cover_less():
    """Why seeds are not resampled: means of three drawn with replacement from three lie too near."""
    chance, hits = np.random.default_rng(0), 0
    for _ in range(400):
        sample = chance.standard_normal(3)
        means = sample[chance.integers(0, 3, (300, 3))].mean(axis=1)
        hits += np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975)
    assert hits / 400 < 0.85


@pytest.mark.slow
def test_what_validation_selects_is_covered_and_choosing_on_test_flatters():
    """Of 54 equal settings the best on test looks points better than it is; that on validation does not."""
    chance, equal = np.random.default_rng(2), np.full(54, 0.85)
    flattered, honest, covered = [], [], 0.0
    for _ in range(60):
        right = flags(chance, 1, of_seed=0.0, truth=equal)
        selected = chance.binomial(600, equal).argmax()  # validation is drawn apart
        accuracy = right.mean(axis=(1, 2))
        flattered.append(accuracy.max() - 0.85)
        honest.append(accuracy[selected] - 0.85)
        covered += share_within(drawn(right, chance)[[selected]], equal[[selected]])
    assert np.mean(flattered) > 0.03
    assert abs(np.mean(honest)) < 0.006
    assert covered >= 54


@pytest.mark.slow
def test_the_front_is_selected_on_validation_and_its_band_is_that_of_the_test():
    worse, better = np.arange(EXAMPLES) < 300, np.arange(EXAMPLES) < 310
    rows = [row(1, 0, worse, val_acc=0.9), row(2, 0, better, val_acc=0.8), row(3, 0, worse, val_acc=0.95)]
    band = pareto.front(doubt.doubt(pd.DataFrame(rows)).settings, "latency_ms_p50")
    assert band["depth"].tolist() == [1, 3]
    assert (band["low"] < 0.75).all() and (band["high"] > 0.75).all()


def test_the_variance_of_few_seeds_is_drawn_towards_that_of_all_by_what_it_is_worth():
    chance = np.random.default_rng(0)
    alike = chance.chisquare(2, 400) / 2  # all have the variance 1
    found = spread.moderated(alike, np.full(400, 2)).variance
    assert found.mean() == pytest.approx(1, abs=0.1) and found.std() < 0.35 * alike.std()
    unlike = chance.chisquare(2, 4000) / 2 * 8 / chance.chisquare(8, 4000)  # a prior of 8 degrees of freedom
    common, dof = spread.prior(unlike, np.full(4000, 2))
    assert common == pytest.approx(1, abs=0.1) and dof == pytest.approx(8, rel=0.35)


def test_seeds_of_two_settings_alone_stand_for_themselves_and_for_those_with_one():
    own = spread.moderated(np.array([4.0, 1.0, 0.0]), np.array([2, 4, 0]))
    assert own.variance.tolist() == [4.0, 1.0, 2.0] and own.dof.tolist() == [2.0, 4.0, 6.0]
    alone = spread.moderated(np.zeros(2), np.zeros(2))
    assert alone.variance.tolist() == alone.dof.tolist() == [0, 0]


@pytest.mark.slow
def test_with_one_seed_the_interval_is_nearly_the_binomial_one_and_says_what_it_is_of():
    right = np.arange(EXAMPLES) < 340
    sure = doubt.doubt(pd.DataFrame([row(1, 0, right)]))
    (found,) = sure.settings.to_dict("records")
    exact = stats.binomtest(340, EXAMPLES).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high), abs=0.006)
    assert found["doubt_of"] == doubt.TEST_SET
    assert "one seed alone: 1 of 1 settings" in phrases.remarks(sure)[0]


@pytest.mark.slow
def test_a_setting_without_an_error_is_not_certain():
    sure = doubt.doubt(pd.DataFrame([row(1, 0, np.ones(EXAMPLES, bool))]))
    assert 1 - 4 / EXAMPLES < sure.settings["low"].iloc[0] < 1 - 1 / EXAMPLES
    assert sure.settings["high"].iloc[0] == 1


@pytest.mark.slow
def test_settings_are_compared_on_the_same_examples():
    """Two that differ on 12 of 400 examples, always to the same side, differ; unpaired they would not."""
    better = np.arange(EXAMPLES) < 352
    worse = np.arange(EXAMPLES) < 340
    sure = doubt.doubt(pd.DataFrame([row(1, 0, worse), row(2, 0, better)]))
    paired = chances.difference(sure, 1, 0)
    assert paired.low > 0 and paired.better > 0.99
    assert sure.settings["low"].iloc[1] < sure.settings["high"].iloc[0], "their intervals overlap"
    assert chances.within_noise_of(sure, 0) == []


@pytest.mark.slow
def test_equal_settings_are_within_noise_of_one_another():
    chance = np.random.default_rng(0)
    same = chance.random(EXAMPLES) < 0.9
    other = np.where(chance.random(EXAMPLES) < 0.1, ~same, same)
    sure = doubt.doubt(pd.DataFrame([row(1, 0, same), row(2, 0, other), row(3, 0, ~same)]))
    assert chances.within_noise_of(sure, 0) == [1] or chances.difference(sure, 0, 1).low > 0
    assert 2 not in chances.within_noise_of(sure, 0)


# --- The probability of being on the front ---


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_draw_has_the_front_that_pareto_finds(costs, random):
    qualities = np.array([[random.randint(0, 4) / 4 for _ in range(3)] for _ in costs])
    found = chances.nondominated(np.array(costs), qualities)
    for j in range(3):
        frame = pd.DataFrame({"latency_ms_p50": costs, "test_acc": qualities[:, j]})
        assert set(np.flatnonzero(found[:, j])) == set(pareto.front(frame).index)
    assert (chances.nondominated(np.tile(np.array(costs)[:, None], 3), qualities) == found).all()


def test_fronts_and_hypervolumes_are_those_of_moocore():
    moocore = pytest.importorskip("moocore", reason="moocore is not installed: pip install attnsweep[test]")
    chance = np.random.default_rng(0)
    for _ in range(20):
        frame = pd.DataFrame(chance.integers(1, 30, (40, 2)) / 30, columns=["latency_ms_p50", "test_acc"])
        points = np.column_stack([np.log10(frame["latency_ms_p50"]), -frame["test_acc"]])
        kept = moocore.is_nondominated(points, keep_weakly=True)
        assert set(np.flatnonzero(kept)) == set(pareto.front(frame).index)
        area = moocore.hypervolume(points, ref=[1.0, 0.0])
        assert pareto.hypervolume(frame, pareto.Reference(cost=10.0)) == pytest.approx(area)
        drawn = chances.nondominated(frame["latency_ms_p50"].to_numpy(), frame[["test_acc"]].to_numpy())
        assert set(np.flatnonzero(drawn[:, 0])) == set(np.flatnonzero(kept))


@pytest.mark.slow
def test_the_probability_of_being_on_the_front_is_near_one_where_it_is_clear_and_shared_where_it_is_not():
    chance = np.random.default_rng(3)
    base = np.arange(EXAMPLES)
    clear, beaten = base < 300, base < 250
    twin = np.where(chance.random(EXAMPLES) < 0.1, ~clear, clear)
    frame = pd.DataFrame([row(1, 0, clear), row(2, 0, beaten), row(3, 0, twin)])
    shares = chances.on_front(doubt.doubt(frame), "latency_ms_p50")
    assert shares[0] == 1 and shares[1] == 0
    apart = chances.difference(doubt.doubt(frame), 2, 0)
    assert shares[2] == pytest.approx((doubt.doubt(frame).draws[2] > doubt.doubt(frame).draws[0]).mean())
    assert apart.better >= shares[2]


@pytest.mark.slow
def test_costs_that_are_not_well_known_are_drawn_and_one_measurement_is_drawn_once():
    """Two of equal latency, one of them better: it is on the front, and the other one is where it is drawn
    faster. Two that differ in `lr` alone share the draw.
    """
    ends = {"latency_ms_p50": 1.0, "latency_ms_low": 0.9, "latency_ms_high": 1 / 0.9}
    better, worse = np.arange(EXAMPLES) < 300, np.arange(EXAMPLES) < 200
    other = {"latency_ms_p50": 1.02, "latency_ms_low": 0.92, "latency_ms_high": 1.02**2 / 0.92}
    frame = pd.DataFrame([row(1, 0, better, lr=0.1, **ends), row(2, 0, worse, **other)])
    shares = chances.on_front(doubt.doubt(frame), "latency_ms_p50")
    of_one = math.log(1 / 0.9) / 1.96
    assert shares[0] == 1
    assert shares[1] == pytest.approx(stats.norm.cdf(-math.log(1.02) / of_one / math.sqrt(2)), abs=0.03)
    same = pd.DataFrame([row(1, 0, better, lr=0.1, **ends), row(1, 0, worse, lr=0.2, **ends)])
    assert chances.on_front(doubt.doubt(same), "latency_ms_p50").tolist() == [1, 0]
    assert (chances.on_front(doubt.doubt(frame), "params") == [1, 0]).all(), "what is counted is known"


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_trials"), [(1, True), (3, False)])
def test_a_probability_of_being_on_the_front_is_right_for_what_it_is_said_of(seeds, of_trials):
    """Simulated sweeps of six settings on 100 examples; seeds lie 6 points apart. With one seed it is right
    of the trials that ran, and says too much of new seeds; with three it is right of these.
    """
    chance, costs, found = np.random.default_rng(0), np.arange(6.0), []
    for _ in range(150):
        truth = chance.uniform(0.75, 0.95, 6)
        ran = truth[:, None] + 0.06 * chance.standard_normal((6, seeds))
        alike, apart = chance.random(100), chance.random((2, 6, seeds, 100))
        right = np.where(apart[0] < 0.6, alike, apart[1]) < ran[:, :, None]
        said = chances.nondominated(costs, drawn(right, chance, 200)).mean(axis=1)
        there = [chances.nondominated(costs, one[:, None])[:, 0] for one in (ran.mean(axis=1), truth)]
        found.append(np.stack([said, *there])[:, 1:])  # the cheapest is always on it
    all_of_them = np.concatenate(found, axis=1)
    said, of_those, of_new = all_of_them[:, all_of_them[0] > 0.8].mean(axis=1)
    assert said > 0.9 and abs(said - (of_those if of_trials else of_new)) < 0.05
    assert (said - of_new > 0.15) == of_trials
    frame = simulated(chance, seeds, of_seed=0.03)
    assert doubt.doubt(frame).of_trials == of_trials
    assert ("p_front are of the trials that ran" in str(phrases.remarks(doubt.doubt(frame)))) == of_trials


def test_a_latency_whose_interval_has_no_end_is_not_exact():
    """As of too few calls; in a row that is done an endless end is null."""
    sure = doubt.Doubt(pd.DataFrame(), "test_acc", np.zeros((3, 2000)))
    exact, endless = np.full(3, math.nan), np.array([math.nan, 0.0, 0.0])
    for high in (math.nan, math.inf):
        drawn_costs = chances.drawn_costs(np.ones(3), endless, np.array([math.nan, high, 1.0]), sure)
        low, high = np.quantile(drawn_costs, [0.025, 0.975], axis=1)
        assert low[0] == high[0] == 1
        assert low[1] == pytest.approx(0.1, rel=0.2) and high[1] == pytest.approx(10, rel=0.2)
        assert 0.2 < low[2] < 0.5
    assert (chances.drawn_costs(np.ones(3), exact, exact, sure) == 1).all()


def test_what_lacks_the_cost_has_no_probability():
    frame = pd.DataFrame([row(1, 0, np.ones(8, bool)), row(2, 0, np.ones(8, bool), latency_ms_p50=math.nan)])
    shares = chances.on_front(doubt.doubt(frame), "latency_ms_p50")
    assert shares[0] == 1 and math.isnan(shares[1])


# --- What counts as a seed ---


@pytest.mark.slow
def test_seeds_that_failed_or_diverged_count_as_begun():
    right = np.arange(EXAMPLES) < 300
    lost = [
        row(1, seed, right, status=status, test_acc=None, test_right=None, test_examples=None)
        for seed, status in ((1, "failed"), (2, "diverged"))
    ]
    none = row(3, 0, right, status="stopped", test_acc=None)
    sure = doubt.doubt(pd.DataFrame([row(1, 0, right), *lost, row(2, 0, right), none]))
    assert "1 setting left out: none of their seeds is done" in phrases.remarks(sure)
    assert sure.settings[["seeds", "seeds_begun"]].values.tolist() == [[1, 3], [1, 1]]
    assert phrases.seeds_in_words(1, 3) == "1 of 3 seeds done"
    assert any("2 seeds of 1 setting not done" in remark for remark in phrases.remarks(sure))


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [{"numerics": 2}, {"attnsweep": "2"}, {"lr": 0.1}, {"depth": 7}], ids=lambda one: next(iter(one))
)
def test_rows_that_differ_in_anything_but_the_seed_are_other_settings(other):
    right = np.arange(EXAMPLES) < 300
    frame = pd.DataFrame([row(1, 0, right, lr=0.2), row(1, 1, right) | {"lr": 0.2} | other])
    assert doubt.doubt(frame).settings["seeds"].tolist() == [1, 1]


@pytest.mark.slow
def test_two_rows_of_one_seed_are_refused():
    right = np.arange(EXAMPLES) < 300
    with pytest.raises(UserError, match=r"vit.* has several rows of seed 0"):
        doubt.doubt(pd.DataFrame([row(1, 0, right), row(1, 0, right, trial_id="again")]))


def test_rows_of_several_data_sets_are_refused():
    right = np.arange(EXAMPLES) < 300
    with pytest.raises(UserError, match="differ in data_sha256"):
        doubt.doubt(pd.DataFrame([row(1, 0, right), row(2, 0, right, data_sha256="e")]))


# --- Rows that say less, or what is not so ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "lacking",
    [
        {"test_right": None}, {"test_examples": None}, {"test_examples": 17}, {"test_right": b"\xff"},
        {"test_right": b"\x00" * 50}, {"test_right": "text"},
    ],
)  # fmt: skip
def test_a_row_that_does_not_say_which_examples_were_right_has_a_doubt_of_its_seeds_alone(lacking):
    right = np.arange(EXAMPLES) < 300
    rows = [row(1, 0, right, **lacking), row(1, 1, ~right), row(2, 0, right), row(2, 1, ~right)]
    sure = doubt.doubt(pd.DataFrame(rows))
    assert sure.settings["doubt_of"].tolist() == [doubt.SEEDS, doubt.BOTH]
    assert any("1 of 2 settings do not say which test examples" in remark for remark in phrases.remarks(sure))


@pytest.mark.slow
def test_results_without_such_columns_at_all_are_read():
    right = np.arange(EXAMPLES) < 300
    old = pd.DataFrame([row(1, 0, right), row(2, 0, right)]).drop(columns=["test_right", "test_examples"])
    sure = doubt.doubt(old)
    assert sure.settings["doubt_of"].tolist() == [doubt.NOTHING] * 2
    assert (sure.settings["low"] == sure.settings["high"]).all(), "nothing is known; the remarks say so"
    assert chances.on_front(sure, "params").isna().all()


def test_seeds_that_are_equal_say_nothing_alone():
    rows = [row(1, seed, np.ones(8, bool), test_right=None) for seed in range(3)]
    sure = doubt.doubt(pd.DataFrame(rows))
    assert sure.settings["doubt_of"].tolist() == [doubt.NOTHING]
    assert phrases.written(sure.settings.iloc[0], "test_acc") == "100.00 % (3 seeds)"


@pytest.mark.parametrize("value", [-0.01, 1.5])
def test_a_share_that_is_below_none_or_above_all_lies_in_its_interval(value):
    """A model of text may need more than eight bits for a byte."""
    right = np.ones(EXAMPLES, bool)
    text = [row(1, seed, right, test_acc=None, test_saved=value * (seed + 1)) for seed in range(3)]
    (found,) = doubt.doubt(pd.DataFrame(text), "test_saved").settings.to_dict("records")
    assert found["low"] <= found["test_saved"] <= found["high"]


def test_nothing_done_is_a_sentence():
    with pytest.raises(UserError, match="no done trial has test_acc"):
        doubt.doubt(pd.DataFrame([row(1, 0, np.ones(8, bool), status="failed")]))


@pytest.mark.slow
def test_equal_rows_give_equal_draws_whatever_ran_before():
    frame = simulated(np.random.default_rng(0), 3, of_seed=0.01)
    assert (doubt.doubt(frame).draws == doubt.doubt(frame).draws).all()


def test_a_quality_is_written_with_its_interval_and_its_seeds():
    known = {"test_acc": 0.983, "low": 0.971, "high": 0.989, "seeds": 3, "seeds_begun": 3}
    known |= {"doubt_of": doubt.BOTH}
    assert phrases.written(known, "test_acc") == "98.3 % (97.1 to 98.9, 3 seeds)"
    alone = known | {"seeds": 1, "test_acc": 0.9912, "high": 0.9925, "low": 0.99}
    assert phrases.written(alone, "test_acc") == "99.12 % (99.00 to 99.25, 1 of 3 seeds done)"
    assert phrases.written(alone | {"seeds_begun": 1}, "test_acc") == "99.12 % (99.00 to 99.25, one seed)"
    blind = known | {"doubt_of": doubt.NOTHING, "seeds": 1, "seeds_begun": 1}
    assert phrases.written(blind, "test_acc") == "98.3 % (one seed)"
