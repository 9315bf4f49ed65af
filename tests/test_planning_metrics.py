"""Open-loop and perception measures: closed forms, brute force, and small cases counted by hand."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_planning_scenes import PERFECT, straight_scene
from torch import nn

from attnsweep.tasks.driving.judging import open_loop
from attnsweep.tasks.driving.judging.perception import (
    Curve,
    average_precision,
    best_f1,
    curve,
    gaps,
    match,
    measure_agents,
)
from attnsweep.tasks.driving.judging.readout import Readout, read_out, scenes_of
from attnsweep.tasks.driving.judging.surroundings import chamfer, measure_surroundings, no_nearer
from attnsweep.tasks.driving.judging.tracking import (
    RECALLS,
    assigned,
    clips_of,
    count,
    idf1,
    join,
    measure_tracks,
    track_scores,
)
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.stack.prediction import Agents, Futures, Lines, Prediction
from attnsweep.tasks.driving.world.geometry import from_frame

STEPS = np.arange(1, 9) / 2


@pytest.fixture(scope="module")
def recorded() -> Samples:
    seeds = [50_000, 50_001, 50_002]
    return scenes.joined([one.samples for one in presets.record(presets.PRESETS["driving:small"], seeds)])


# --- Open loop ---


def lonely(count: int = 1, *, speed: float = 4.0) -> Samples:
    """Samples in which the ego drives straight on and nobody is near."""
    plan = np.zeros((count, 8, 3), dtype=np.float32)
    plan[..., 0] = speed * STEPS
    return {
        "plan": plan,
        "plan_mask": np.ones((count, 8), bool),
        "future_boxes": np.zeros((count, 8, 24, 5), np.float32),
        "future_boxes_mask": np.zeros((count, 8, 24), bool),
        "size": np.full((count, 2), [4.0, 2.0], np.float32),
        "depth": np.full((count, 64, 64), 5.0, np.float16),
    }


def stands(samples: Samples, x: float, y: float, yaw: float = 0.0) -> Samples:
    """The same with a car of 4 m x 2 m that stands there."""
    samples["future_boxes"][:, :, 0] = [x, y, yaw, 4.0, 2.0]
    samples["future_boxes_mask"][:, :, 0] = True
    return samples


def columns(samples: Samples, plan: np.ndarray, name: str) -> list[float]:
    found = open_loop.summary(open_loop.measures(samples, plan))
    return [found[f"{name}_{s}s"] for s in open_loop.SECONDS if f"{name}_{s}s" in found]


@pytest.mark.slow
def test_the_recorded_drive_is_no_distance_from_itself_and_hits_nothing(recorded: Samples) -> None:
    found = open_loop.summary(open_loop.measures(recorded, recorded["plan"].astype(float)))
    for name, value in found.items():
        assert value == 0.0, name


def test_a_plan_hits_what_stands_in_its_way_when_it_comes_there_and_not_before() -> None:
    sample = stands(lonely(), 12.0, 0.0)  # 4 m/s: bumpers meet after 2 s, and overlap at 2.5 s
    plan = sample["plan"].astype(float)
    assert columns(sample, plan, "col") == [0.0, 0.0, 1.0, 1.0]
    assert columns(sample, plan, "gt_col") == [0.0, 0.0, 1.0, 1.0]  # nobody is let off
    assert columns(sample, plan * 0.4, "col") == [0.0, 0.0, 0.0, 0.0]
    beside = plan + np.array([0.0, 2.1, 0.0])
    assert columns(sample, beside, "col") == [0.0] * 4


def test_the_plans_yaw_counts_unless_the_plan_stands() -> None:
    sample = stands(lonely(), 0.0, 2.5)  # beside, half a metre away
    turned = np.zeros((1, 8, 3))
    turned[..., 2] = 0.6
    assert columns(sample, turned, "col") == [0.0] * 4
    turned[..., 0] = 0.31 * np.arange(1, 9)
    assert columns(sample, turned, "col") == [1.0] * 4


def test_distances_are_taken_at_the_time_and_on_average() -> None:
    sample = lonely()
    plan = sample["plan"].astype(float)
    plan[..., 1] += STEPS  # half a metre more each key frame
    assert columns(sample, plan, "l2") == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert columns(sample, plan, "l2avg") == pytest.approx([0.75, 1.25, 1.75])


def test_what_was_not_recorded_does_not_change_the_mean() -> None:
    one, two = lonely(), lonely(2)
    plan = two["plan"].astype(float)
    plan[:, :, 1] += 1.0
    two["plan_mask"] = np.array([[True] * 8, [True] * 4 + [False] * 4])
    two["plan"][1, 4:] = 1e3  # whatever stands there
    expected = open_loop.summary(open_loop.measures(one, plan[:1]))
    assert open_loop.summary(open_loop.measures(two, plan)) == pytest.approx(expected)
    found = open_loop.measures(two, plan)
    assert np.isnan(found["l2_3s"]).tolist() == [False, True] and not np.isnan(found["l2_2s"]).any()
    for name in ("col_3s", "gt_col_3s", "offroad_3s"):
        assert np.isnan(found[name]).tolist() == [False, True], name


def test_a_plan_off_the_road_is_off_from_then_on() -> None:
    sample = lonely()
    x = np.arange(64) - 15.5  # the middles of rows
    sample["depth"][:] = np.clip(9.0 - x, -8, 8)[:, None]  # the road ends at x = 9
    assert columns(sample, sample["plan"].astype(float), "offroad") == [0.0, 1.0, 1.0, 1.0]  # 8 + 2 > 9


def test_a_plan_that_cannot_be_driven_counts_as_standing() -> None:
    sample = lonely()
    plan = sample["plan"].astype(float)
    plan[0, 3, 1] = np.nan
    assert columns(sample, plan, "l2") == pytest.approx([4.0, 8.0, 12.0, 16.0])


@pytest.mark.parametrize("turn", [0.5, 2.0, -3.0])
def test_measures_do_not_change_when_the_world_is_turned(turn: float) -> None:
    found = []
    for angle, x in ((0.0, 0.0), (turn, 70.0)):
        made = samples_of(straight_scene(turn=angle, x=x), scanner=PERFECT)
        made["depth"] = np.full_like(made["depth"], 5.0)
        plan = made["plan"].astype(float)
        plan[..., 0] *= 1.75  # into the one ahead
        plan[..., 1] += 0.1 * np.arange(8)
        found.append(open_loop.summary(open_loop.measures(made, plan)))
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert found[0]["col_4s"] == 1.0 and found[0]["l2_4s"] > 10


def test_slices_are_those_of_the_samples(recorded: Samples) -> None:
    parts = open_loop.slices(recorded)
    assert set(parts) == {"all", "moving", "turn", "interactive", "hard"}
    assert parts["all"].all() and parts["turn"].tolist() == recorded["is_turn"].tolist()
    assert 0 < parts["moving"].sum() < len(parts["moving"])


# --- Detection ---


def told(confidence: np.ndarray, xy: np.ndarray, **more: np.ndarray) -> Readout:
    """A readout of agents at these places, who stand."""
    box = np.concatenate([xy, np.tile([1.0, 0, 4, 2], (*xy.shape[:2], 1))], axis=2)
    return Readout(np.zeros((len(xy), 8, 3)), confidence, box, np.zeros_like(xy), **more)


def there(xy: list[list[tuple[float, float]]], ids: list[list[int]] | None = None) -> Samples:
    """Samples of one scene in which agents are at these places; the ego does not move."""
    count, places = len(xy), max(map(len, xy))
    box, mask, who = (
        np.zeros((count, places, 7)),
        np.zeros((count, places), bool),
        np.full((count, places), -1),
    )
    for s, agents in enumerate(xy):
        mask[s, : len(agents)] = True
        box[s, : len(agents), :2] = np.array(agents).reshape(-1, 2)
        who[s, : len(agents)] = ids[s] if ids else np.arange(1, len(agents) + 1)
    return {
        "plan": np.zeros((count, 8, 3)), "box": box, "mask": mask, "id": who,
        "previous": np.arange(-1, count - 1), "motion": np.zeros((count, 3)),
        "future": np.zeros((count, places, 8, 2)), "future_mask": np.repeat(mask[..., None], 8, axis=2),
    }  # fmt: skip


def average_precision_by_hand(
    confidence: np.ndarray, xy: np.ndarray, samples: Samples, reach: float
) -> float:
    """nuScenes' definition, a finding at a time."""
    order = sorted(itertools.product(range(len(xy)), range(xy.shape[1])), key=lambda i: -confidence[i])
    taken: set[tuple[int, int]] = set()
    hits, precision, recall = 0, [], []
    total = int(samples["mask"].sum())
    for k, (s, q) in enumerate(order, 1):
        free = [n for n in np.flatnonzero(samples["mask"][s]) if (s, n) not in taken]
        distance = {n: float(np.hypot(*(samples["box"][s, n, :2] - xy[s, q]))) for n in free}
        nearest = min(distance, key=lambda n: distance[n]) if distance else None
        if nearest is not None and distance[nearest] < reach:
            taken.add((s, nearest))
            hits += 1
        precision.append(hits / k)
        recall.append(hits / total)
    at = [np.interp(r, [0.0, *recall], [precision[0], *precision], right=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean([max(p - 0.1, 0) for p in at[11:]]) / 0.9)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_nuscenes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = there([[tuple(p) for p in rng.uniform(-10, 10, (n, 2))] for n in (5, 3, 7, 1)])
    xy = samples["box"][:, :, :2] + rng.normal(scale=1.0, size=(4, 7, 2))
    confidence = rng.uniform(size=(4, 7))
    for reach in (0.5, 1.0, 2.0, 4.0):
        matched = match(confidence, gaps(told(confidence, xy).box, samples), reach)
        expected = average_precision_by_hand(confidence, xy, samples, reach)
        assert average_precision(curve(confidence, matched, samples)) == pytest.approx(expected, abs=1e-12)


def test_average_precision_of_what_can_be_counted_by_hand() -> None:
    right = np.array([True, True, True, True])
    assert average_precision(Curve(np.linspace(1, 0.5, 4), right, 4)) == pytest.approx(1.0)
    # half of all are found, without a mistake: recalls 0.11 to 0.5 at precision 1, of 0.11 to 1
    assert average_precision(Curve(np.ones(2), right[:2], 4)) == pytest.approx(40 / 90)
    assert average_precision(Curve(np.ones(2), ~right[:2], 4)) == 0.0
    assert np.isnan(average_precision(Curve(np.ones(2), ~right[:2], 0)))


def test_the_best_threshold_of_f1_is_found() -> None:
    f1, threshold = best_f1(Curve(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False]), 3))
    assert f1 == pytest.approx(4 / 5) and threshold == 0.8
    f1, threshold = best_f1(Curve(np.array([0.9, 0.9]), np.array([True, False]), 1))
    assert f1 == pytest.approx(2 / 3)  # two of equal confidence cannot be told apart


# --- Futures ---


def test_displacements_are_of_the_best_mode_and_of_known_steps() -> None:
    samples = there([[(0.0, 0.0), (20.0, 0.0), (40.0, 0.0)]])
    samples["future"][0, :, :, 0] = 2.0 * STEPS
    samples["future_mask"][0, 1, 4:] = False
    futures = np.zeros((1, 4, 6, 8, 2))
    futures[0, :, :, :, 1] = 50.0  # five bad modes
    futures[0, :, 3, :, 0], futures[0, :, 3, :, 1] = 2.0 * STEPS, 0.0
    futures[0, 0, 3, :, 1] = STEPS  # off by 0.5 to 4 m
    futures[0, 1, 3, 4:, 1] = 30.0  # where nothing is known
    xy = np.array([[(0.0, 0.0), (20.0, 0.0), (40.0, 1.0), (10.0, 10.0)]])
    found = measure_agents(told(np.array([[0.9, 0.9, 0.9, 0.9]]), xy, futures=futures), samples)
    assert found["min_ade6"] == pytest.approx((2.25 + 0.0 + 1.0) / 3)
    assert found["min_fde6"] == pytest.approx((4.0 + 0.0 + 1.0) / 3)
    assert found["miss_rate"] == pytest.approx(1 / 3)
    assert found["epa"] == pytest.approx((2 - 0.5) / 3)  # two predicted to 2 m, one that is not there


# --- Tracking ---


@dataclass(frozen=True)
class Tracked:
    """Agents that are there, and detections near them and elsewhere with the tracks that they are part of."""

    samples: Samples
    xy: np.ndarray
    confidence: np.ndarray
    tracks: np.ndarray


def tracked(seed: int) -> Tracked:
    """A scene of nine key frames, in which agents come and go and tracks change places now and then."""
    rng = np.random.default_rng(seed)
    agents, queries = int(rng.integers(2, 8)), 11
    start, speed = rng.uniform(-6, 6, (agents, 2)), rng.uniform(-1, 1, (agents, 2))
    ids = [[a for a in range(agents) if rng.random() < 0.8] or [0] for _ in range(9)]
    samples = there(
        [[tuple(start[a] + k * speed[a]) for a in seen] for k, seen in enumerate(ids)],
        [[a + 1 for a in seen] for seen in ids],
    )
    xy = rng.uniform(-8, 8, (9, queries, 2))
    xy[:, : samples["box"].shape[1]] = samples["box"][..., :2]
    tracks = np.tile(np.arange(queries), (9, 1))
    for row in tracks[rng.random(9) < 0.5]:
        row[:] = rng.permutation(queries)
    near = np.arange(queries) < samples["box"].shape[1]
    confidence = rng.uniform(0, np.where(near, 1.0, 0.5), (9, queries))
    return Tracked(samples, xy + rng.normal(scale=0.9, size=xy.shape), confidence, tracks)


def motmetrics_of(one: Tracked, shown: np.ndarray, names: list[str]) -> list[float]:
    """Figures of motmetrics, with only the detections that are shown (s, q)."""
    library = pytest.importorskip("motmetrics")
    events = library.MOTAccumulator(auto_id=True)
    for s, mask in enumerate(one.samples["mask"]):
        agents, queries = np.flatnonzero(mask), np.flatnonzero(shown[s])
        gap = np.hypot(*(one.samples["box"][s, agents, None, :2] - one.xy[s, queries]).transpose(2, 0, 1))
        events.update(one.samples["id"][s, agents], one.tracks[s, queries], np.where(gap < 2, gap, np.nan))
    return library.metrics.create().compute(events, metrics=names).iloc[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_counting_over_time_is_motmetrics(seed: int) -> None:
    one = tracked(seed)
    off, clips = gaps(told(one.confidence, one.xy).box, one.samples), clips_of(one.samples)
    thresholds = np.array([0.6, 0.3, 0.0])
    shown = one.confidence >= thresholds[:, None, None]
    tally = count(one.tracks, shown, off, clips)
    for k in range(len(thresholds)):
        names = ["num_matches", "num_switches", "num_false_positives", "motp", "idf1"]
        got = (tally.matches[k], tally.switches[k], tally.false_positives[k], tally.motp[k])
        expected = motmetrics_of(one, shown[k], names)
        assert [*got, idf1(one.tracks, shown[k], off, clips)] == pytest.approx(expected)


def devkits_averages(one: Tracked, score: np.ndarray) -> dict[str, float]:
    """AMOTA and AMOTP as nuScenes' devkit has them (`eval/tracking/algo.py`), on motmetrics."""
    names = ["num_matches", "num_misses", "num_switches", "num_false_positives", "num_objects", "motp"]
    library = pytest.importorskip("motmetrics")
    events = library.MOTAccumulator(auto_id=True)
    scores: list[float] = []
    for s, mask in enumerate(one.samples["mask"]):
        agents = np.flatnonzero(mask)
        gap = np.hypot(*(one.samples["box"][s, agents, None, :2] - one.xy[s]).transpose(2, 0, 1))
        events.update(one.samples["id"][s, agents], one.tracks[s], np.where(gap < 2, gap, np.nan))
        matched = events.mot_events.loc[s].query("Type == 'MATCH'").HId
        scores += [score[s, q] for q in range(len(one.tracks[s])) if one.tracks[s, q] in set(matched)]
    recall = np.arange(1, len(scores) + 1) / one.samples["mask"].sum()
    motar, motp = [], []
    for wanted in RECALLS:
        if wanted > recall[-1]:
            motar, motp = [*motar, 0.0], [*motp, 2.0]
            continue
        threshold = np.interp(wanted, recall, sorted(scores, reverse=True))
        matches, misses, switches, false, count, mean = motmetrics_of(one, score >= threshold, names)
        errors = misses + switches + false - (1 - matches / count) * count
        motar.append(max(0.0, 1 - errors / matches) if matches else 0.0)
        motp.append(mean if matches + switches else 2.0)
    return {"amota": float(np.mean(motar)), "amotp": float(np.mean(motp))}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_averages_over_recalls_are_nuscenes(seed: int) -> None:
    one = tracked(seed)
    readout = told(one.confidence, one.xy, offset=np.zeros_like(one.xy))
    clips = clips_of(one.samples)
    tracks = join(readout, one.samples, clips)
    found = measure_tracks(readout, one.samples)
    expected = devkits_averages(replace(one, tracks=tracks), track_scores(tracks, one.confidence, clips))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert 0 < expected["amota"] < 1


def test_a_track_has_the_mean_confidence_of_its_detections() -> None:
    samples = there([[(0.0, 0.0)]] * 4)
    samples["previous"] = np.array([-1, 0, -1, 2])
    tracks, confidence = np.array([[0, 1], [1, 0], [0, 1], [0, 1]]), np.arange(8.0).reshape(4, 2)
    expected = [[1.5, 1.5], [1.5, 1.5], [5.0, 6.0], [5.0, 6.0]]
    assert track_scores(tracks, confidence, clips_of(samples)).tolist() == expected


def test_as_many_pairs_as_possible_are_matched_at_the_least_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        gap = np.where(rng.random((4, 3)) < 0.6, rng.uniform(0, 2, (4, 3)), np.inf)
        matched = assigned(gap[None])[0]
        assert matched.sum(axis=0).max() <= 1 and matched.sum(axis=1).max() <= 1
        ways = [
            [(q, n) for q, n in zip(order, range(3), strict=True) if np.isfinite(gap[q, n])]
            for order in itertools.permutations(range(4), 3)
        ]
        best = min((-len(way), sum(gap[pair] for pair in way)) for way in ways)
        assert (-matched.sum(), gap[matched].sum()) == pytest.approx(best)


def test_perfect_tracks_reach_one_and_their_distance() -> None:
    moments = [[(2.0 * k, 0.0), (20.0 - 2.0 * k, 6.0)] for k in range(6)]
    samples = there(moments)
    xy = samples["box"][..., :2] + np.array([0.3, 0.4])
    offset = np.where(np.arange(2)[:, None] == 0, np.array([-2.0, 0.0]), np.array([2.0, 0.0]))
    said = told(np.full((6, 2), 0.8), xy, offset=np.broadcast_to(offset, (6, 2, 2)))
    assert measure_tracks(said, samples) == pytest.approx(
        {"amota": 1.0, "amotp": 0.5, "idf1": 1.0, "ids": 0.0}
    )


def test_a_change_of_identity_costs_what_it_should() -> None:
    samples = there([[(0.0, 0.0)]] * 4)
    offset = np.zeros((4, 1, 2))
    offset[2] = 9.0  # says that it was elsewhere: a new track
    found = measure_tracks(told(np.full((4, 1), 0.8), np.zeros((4, 1, 2)), offset=offset), samples)
    assert found["amota"] == pytest.approx((RECALLS <= 3 / 4).mean())  # a switch is no recall
    assert found["idf1"] == pytest.approx(2 * 2 / 8) and found["ids"] == 1


def test_recalls_that_are_not_reached_count_as_nothing() -> None:
    samples = there([[(0.0, 0.0), (20.0, 0.0)]] * 2)
    said = told(np.full((2, 1), 0.8), np.zeros((2, 1, 2)), offset=np.zeros((2, 1, 2)))
    found = measure_tracks(said, samples)  # one of two is found: recalls up to 0.5
    reached = (np.linspace(0.1, 1, 40) <= 0.5 + 1e-9).sum()
    assert found["amota"] == pytest.approx(reached / 40)
    assert found["amotp"] == pytest.approx(2.0 * (40 - reached) / 40)


def test_who_finds_nobody_gets_the_worst_and_switches_nobody() -> None:
    samples = there([[(0.0, 0.0)]] * 3)
    said = told(np.full((3, 1), 0.8), np.full((3, 1, 2), 30.0), offset=np.zeros((3, 1, 2)))
    found = measure_tracks(said, samples)
    assert found == {"amota": 0.0, "amotp": 2.0, "idf1": 0.0, "ids": 0.0}


def test_tracks_are_followed_in_the_frame_of_a_moving_ego_and_through_gaps() -> None:
    count, motion = 7, np.array([-3.0, 0.5, -0.3])  # where the ego was, from where it is
    samples = there([[(0.0, 0.0)]] * count)
    samples["motion"][:] = motion
    xy = np.zeros((count, 2, 2))
    xy[0, 0] = 12.0, 4.0  # one that stands, seen from the ego
    xy[:, 1] = np.stack(
        [np.full(count, -10.0), -10.0 + 5 * np.arange(count)], axis=1
    )  # what is new each time
    for k in range(1, count):
        xy[k, 0] = from_frame(xy[k - 1, 0], motion)
    offset = np.zeros((count, 2, 2))
    said = told(np.tile([0.9, 0.3], (count, 1)), xy, offset=offset)
    tracks = join(said, samples, clips_of(samples))
    assert (tracks[:, 0] == tracks[0, 0]).all()
    hidden = xy.copy()
    hidden[3:5, 0] = 40.0  # not found for two key frames
    gone = join(
        replace(said, box=np.concatenate([hidden, said.box[..., 2:]], axis=2)), samples, clips_of(samples)
    )
    assert gone[5, 0] == gone[2, 0] != gone[3, 0]


@pytest.mark.parametrize("turn", [0.9, -2.4])
def test_agents_are_measured_alike_in_any_frame(turn: float) -> None:
    rng = np.random.default_rng(3)
    moments = [
        [tuple(rng.uniform([6 * a - 5, k - 5], [6 * a + 5, k + 5])) for a in range(4)] for k in range(6)
    ]
    samples = there(moments)
    samples["motion"][:] = rng.uniform([-4, -0.3, -0.2], [-2, 0.3, 0.2], (6, 3))
    samples["future"] = rng.normal(size=(6, 4, 8, 2)).cumsum(axis=2)
    xy = samples["box"][..., :2] + rng.normal(scale=0.8, size=(6, 4, 2))
    offset, futures = rng.normal(size=(6, 4, 2)), rng.normal(size=(6, 4, 6, 8, 2)).cumsum(axis=3)
    frame = np.array([0.0, 0.0, turn])
    turned = {name: array.copy() for name, array in samples.items()}
    for array in (turned["box"], turned["motion"], turned["future"]):
        array[..., :2] = from_frame(array[..., :2], frame)
    here = told(rng.uniform(size=(6, 4)), xy, offset=offset, futures=futures)
    moved = {name: from_frame(array, frame) for name, array in (("offset", offset), ("futures", futures))}
    elsewhere = told(here.confidence, from_frame(xy, frame), **moved)
    for measure in (measure_agents, measure_tracks):
        found = measure(here, samples)
        assert measure(elsewhere, turned) == pytest.approx(found, abs=1e-9)
        assert 0 < found.get("ap", found.get("amota", 0)) < 1


def test_every_clip_begins_anew() -> None:
    samples = there([[(0.0, 0.0)]] * 4)
    samples["previous"] = np.array([-1, 0, -1, 2])
    clips = clips_of(samples)
    assert clips.clip.tolist() == [0, 0, 1, 1]
    said = told(np.full((4, 1), 0.8), np.zeros((4, 1, 2)), offset=np.zeros((4, 1, 2)))
    assert join(said, samples, clips)[:, 0].tolist() == [0, 0, 0, 0]
    assert measure_tracks(said, samples)["amota"] == 1.0


# --- Map and occupancy ---


def test_a_line_is_found_though_its_points_lie_elsewhere_on_it() -> None:
    line = np.stack([np.linspace(0, 30, 10), np.zeros(10)], axis=1)[None]
    same = np.stack([np.linspace(30, 0, 10) ** 1.0, np.full(10, 0.4)], axis=1)[None]  # the other way round
    assert chamfer(line, same)[0] == pytest.approx(0.4)
    crossing = np.stack([np.full(10, 15.0), np.linspace(-9, 9, 10)], axis=1)[None]
    expected = (np.abs(np.linspace(0, 30, 10) - 15).mean() + np.abs(np.linspace(-9, 9, 10)).mean()) / 2
    assert chamfer(line, crossing)[0] == pytest.approx(expected)


def test_what_bounds_a_distance_of_lines_bounds_it() -> None:
    rng = np.random.default_rng(0)
    one, other = (
        np.cumsum(rng.normal(size=(200, 10, 2)), axis=1) + rng.normal(0, 3, (200, 1, 2)) for _ in "ab"
    )
    assert (no_nearer(one, other) <= chamfer(one, other) + 1e-9).all()


@pytest.mark.slow
def test_lines_count_once_and_by_class(recorded: Samples) -> None:
    kinds = recorded["line_kind"]
    sure = np.stack([np.where(kinds == k, 0.9, 0.01) for k in range(3)], axis=2)
    plan, lines = np.zeros((len(kinds), 8, 3)), recorded["lines"].astype(float)
    found = measure_surroundings(Readout(plan, line_class=sure, line_points=lines), recorded)
    assert found == {"line_f1_05": 1.0, "line_f1_1": 1.0, "line_f1_15": 1.0}
    wrong = measure_surroundings(
        Readout(plan, line_class=np.roll(sure, 1, axis=2), line_points=lines), recorded
    )
    assert wrong["line_f1_05"] < 0.3
    aside = lines + np.array([0.0, 30.0])
    twice = Readout(
        plan, line_class=np.tile(sure, (1, 2, 1)), line_points=np.concatenate([lines, aside], axis=1)
    )
    assert measure_surroundings(twice, recorded)["line_f1_05"] == pytest.approx(2 / 3, abs=0.03)


def occupied(*squares: tuple[int, int, int, int]) -> np.ndarray:
    """Instances (1, 5, 64, 64): each (who, row, column, times) 4 cells square, from time 0 on."""
    grid = np.zeros((1, 5, 64, 64), dtype=np.uint8)
    for who, row, column, times in squares:
        grid[0, :times, row : row + 4, column : column + 4] = who
    return grid


def quality(told_cells: np.ndarray, true_cells: np.ndarray) -> dict[str, float]:
    said = Readout(np.zeros((1, 8, 3)), instances=told_cells)
    return measure_surroundings(said, {"occupancy": true_cells, "plan_mask": np.ones((1, 8), bool)})


def test_panoptic_quality_counted_by_hand() -> None:
    truth = occupied((1, 20, 30, 5), (2, 40, 10, 5))
    assert quality(truth, truth) == {"occ_iou_near": 1.0, "vpq_near": 1.0, "occ_iou_far": 1.0, "vpq_far": 1.0}
    renamed = occupied((7, 20, 30, 5), (3, 40, 10, 5))
    assert quality(renamed, truth)["vpq_far"] == 1.0  # who it is called does not matter
    shifted = occupied((7, 21, 30, 5), (3, 40, 10, 5))  # 12 of 20 cells shared
    assert quality(shifted, truth)["vpq_far"] == pytest.approx((5 * 12 / 20 + 5) / 10)
    assert quality(shifted, truth)["occ_iou_far"] == pytest.approx((12 + 16) / (20 + 16))
    missed = occupied((7, 20, 30, 5), (3, 40, 14, 5))  # one is found, one told where none is
    assert quality(missed, truth)["vpq_far"] == pytest.approx(5 / (5 + 2.5 + 2.5))
    swapped = renamed.copy()
    swapped[0, 2:][renamed[0, 2:] == 7] = 3
    swapped[0, 2:][renamed[0, 2:] == 3] = 7
    assert quality(swapped, truth)["vpq_far"] == pytest.approx(8 / 10)  # both are wrong once, at the change


def test_times_that_were_not_recorded_do_not_count_in_occupancy() -> None:
    truth, told_cells = occupied((1, 20, 30, 3)), occupied((1, 20, 30, 5), (2, 50, 30, 5))
    told_cells[0, :3][told_cells[0, :3] == 2] = 0  # wrong only where nobody knows
    known = np.arange(8)[None] < 4  # 2 s
    said = Readout(np.zeros((1, 8, 3)), instances=told_cells)
    found = measure_surroundings(said, {"occupancy": truth, "plan_mask": known})
    assert set(found.values()) == {1.0}
    assert quality(told_cells, truth)["occ_iou_far"] < 1


def test_near_is_within_fifteen_metres() -> None:
    truth, half = occupied((1, 20, 30, 5), (2, 50, 30, 5)), occupied((1, 20, 30, 5))
    found = quality(half, truth)  # rows 50 to 53 lie 34 to 38 m ahead
    assert found["occ_iou_near"] == found["vpq_near"] == 1.0
    assert found["occ_iou_far"] == 0.5


def test_coarser_cells_lie_over_finer_ones(recorded: Samples) -> None:
    coarse = recorded["map"][:, :, ::2, ::2].astype(bool)
    found = measure_surroundings(Readout(np.zeros((len(coarse), 8, 3)), map=coarse), recorded)
    assert found["map_iou_drivable"] > 0.85 and set(found) == {
        f"map_iou_{n}" for n in ("drivable", "border", "divider")
    }
    exact = measure_surroundings(Readout(np.zeros((len(coarse), 8, 3)), map=recorded["map"] > 0), recorded)
    assert set(exact.values()) == {1.0}


# --- Reading out ---


class Teller(nn.Module):
    """Says of each example what its own inputs are, so that rows can be told apart."""

    def forward(
        self, bev: torch.Tensor, route: torch.Tensor, command: torch.Tensor, ego_state: torch.Tensor
    ) -> Prediction:
        b = len(route)
        speed = ego_state[:, :1]
        logit = torch.tensor([3.0, -3.0]).expand(b, 2)
        xy = torch.stack([speed, -speed], dim=1).expand(b, 2, 2)
        box = torch.cat([xy, torch.ones(b, 2, 4)], dim=2)
        occupancy = torch.ones(b, 5, 2, 16, 16)
        occupancy[:, :, 1] = 9.0  # louder, but not there
        occupancy[:, :, 0, 8:] = -1.0
        return Prediction(
            plan=speed[:, None].expand(b, 8, 3), agents=Agents(logit, box, torch.zeros(b, 2, 2), None),
            lines=Lines(torch.zeros(b, 3, 4), torch.zeros(b, 3, 10, 2)),
            futures=Futures(torch.zeros(b, 2, 6), torch.zeros(b, 2, 6, 8, 2)),
            map=torch.ones(b, 3, 16, 16), occupancy=occupancy,
        )  # fmt: skip


def test_a_readout_holds_all_rows_in_order(recorded: Samples) -> None:
    whole, parts = (read_out(Teller(), recorded, batch_size=size) for size in (1000, 7))
    np.testing.assert_array_equal(whole.plan, parts.plan)
    np.testing.assert_allclose(whole.plan[:, 0, 0], recorded["ego_state"][:, 0])
    assert whole.offset is None and whole.confidence is not None and whole.instances is not None
    np.testing.assert_allclose(whole.confidence[0], 1 / (1 + np.exp([-3.0, 3.0])), rtol=1e-6)
    assert (whole.instances[:, :, :8] == 1).all() and (whole.instances[:, :, 8:] == 0).all()


def test_what_a_planner_does_not_tell_is_not_measured(recorded: Samples) -> None:
    silent = Readout(recorded["plan"].astype(float))
    for measure in (measure_agents, measure_tracks, measure_surroundings):
        assert measure(silent, recorded) == {}
    said = read_out(Teller(), recorded)
    assert set(measure_agents(replace(said, futures=None), recorded)) == {
        "ap_05",
        "ap_1",
        "ap_2",
        "ap_4",
        "ap",
        "f1_2m",
        "f1_threshold",
    }


def test_an_empty_scene_has_no_figures_for_agents(recorded: Samples) -> None:
    empty = dict(recorded) | {"mask": np.zeros_like(recorded["mask"])}
    said = read_out(Teller(), recorded)
    assert all(np.isnan(value) for value in measure_tracks(said, empty).values())
    assert np.isnan(measure_agents(said, empty)["ap"])


def test_the_rows_of_each_scene_stand_by_themselves(recorded: Samples) -> None:
    rows = len(recorded["plan"])
    said = Readout(np.arange(rows * 24.0).reshape(rows, 8, 3), confidence=np.zeros((rows, 2)))
    parts = list(scenes_of(said, recorded))
    assert [part["scene"][0] for _, part in parts] == list(dict.fromkeys(recorded["scene"].tolist()))
    np.testing.assert_array_equal(np.concatenate([one.plan for one, _ in parts]), said.plan)
    for one, part in parts:
        assert len(one.plan) == len(part["plan"]) == len(set(part["time"].tolist()))
        assert part["previous"].tolist() == list(range(-1, len(part["plan"]) - 1))
        assert one.box is None
