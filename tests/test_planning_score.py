"""The score of driving: hand-made drives, of which each breaks one rule."""

import dataclasses

import numpy as np
import pytest
from scipy.signal import savgol_filter

from attnsweep.tasks.driving.judging import course, score
from attnsweep.tasks.driving.judging.closed_loop import Drive, progress_along
from attnsweep.tasks.driving.judging.comfort import discomfort
from attnsweep.tasks.driving.world.cast import CAR, EGO, PARKED
from attnsweep.tasks.driving.world.geometry import from_frame
from attnsweep.tasks.driving.world.ground import Placement
from attnsweep.tasks.driving.world.kinematics import DT

ALL = 14.0  # the sum of the weights


def states(x: np.ndarray, y: np.ndarray, yaw: float = 0.0) -> np.ndarray:
    """States (t, 5) of someone at these places."""
    velocity = [np.gradient(one, DT) for one in (x, y)]
    return np.stack([x, y, np.full(len(x), yaw), *velocity], axis=1)


def staged(
    *others: np.ndarray, speed: float = 10.0, start: float = 0.0, seconds: float = 5.0, kind: int = CAR
) -> Drive:
    """A drive of one scene: the ego goes straight on at a speed, in the middle of its lane and outside of
    junctions, among others with states (t, 5).
    """
    t = np.arange(round(seconds / DT) + 1) * DT
    state = np.stack([states(start + speed * t, 0 * t), *others], axis=1)[:, None]
    never, shape = np.zeros((len(t), 1), dtype=bool), state.shape[:3]
    step = np.where(t > 0, speed * DT, 0.0)[:, None]
    return Drive(
        dt=DT, state=state, active=np.ones(shape, dtype=bool), kind=np.full(shape[1:], kind),
        size=np.full((*shape[1:], 2), [4.0, 2.0]), handover=0,
        placement=Placement(never, never.copy(), never.copy(), step),
        progress=(speed * t)[:, None], lateral_offset=np.zeros(shape[:2]), ran_red=never.copy(),
        impeding=never.copy(), way=np.array([1e3]), to_stop=np.full(shape[:2], np.inf), lost=np.zeros(1),
    )  # fmt: skip


def at_junction(drive: Drive) -> Drive:
    """The same inside a junction."""
    inside = np.ones_like(drive.placement.at_junction)
    return dataclasses.replace(drive, placement=dataclasses.replace(drive.placement, at_junction=inside))


def still(x: float, y: float = 0.0, *, seconds: float = 5.0) -> np.ndarray:
    """States (t, 5) of someone who stands."""
    ones = np.ones(round(seconds / DT) + 1)
    return states(x * ones, y * ones)


def moving(x: float, speed: float, y: float = 0.0, *, seconds: float = 5.0) -> np.ndarray:
    """States (t, 5) of someone who drives along x."""
    t = np.arange(round(seconds / DT) + 1) * DT
    return states(x + speed * t, y + 0 * t)


def crossing(x: float, y: float, speed: float, *, seconds: float = 5.0) -> np.ndarray:
    """States (t, 5) of someone who drives along y, from a place on."""
    t = np.arange(round(seconds / DT) + 1) * DT
    return states(x + 0 * t, y + speed * t, yaw=np.copysign(np.pi / 2, speed))


def only(scores: score.Scores, name: str) -> float:
    return float(getattr(scores, name)[0])


def test_an_undisturbed_drive_scores_one() -> None:
    scores = score.score_drive(staged(moving(30.0, 10.0), moving(0.0, 10.0, y=3.5)))
    assert only(scores, "score") == 1.0 and scores.success[0] and not scores.at_fault[0]


# --- Collisions ---


def test_driving_into_a_car_that_waits_costs_all_and_into_a_parked_one_half() -> None:
    for kind, expected in ((CAR, 0.0), (PARKED, 0.5)):
        drive = staged(still(30.0))
        drive.kind[0, 1] = kind
        scores = score.score_drive(drive)
        assert only(scores, "no_collision") == expected and scores.at_fault[0]
        assert only(scores, "ttc") == 0.0  # it was foreseeable
        assert only(scores, "score") == pytest.approx(expected * 9 / ALL)


def test_who_is_hit_from_behind_is_not_to_blame() -> None:
    standing = staged(moving(-20.0, 8.0), speed=0.0)
    slower = staged(moving(-8.0, 8.0), speed=5.0)
    closer = staged(moving(-9.0, 9.0), speed=5.0)
    for one in (standing, slower, closer, at_junction(slower)):
        scores = score.score_drive(one)
        assert only(scores, "no_collision") == 1.0 and not scores.at_fault[0]
        assert only(scores, "ttc") == 1.0


def test_who_reverses_into_a_car_that_stands_is_at_fault() -> None:
    scores = score.score_drive(staged(still(-10.0), speed=-3.0))
    assert only(scores, "no_collision") == 0.0 and only(scores, "score") == 0.0


def test_who_stands_is_not_at_fault_wherever_it_is_hit() -> None:
    for y in (-1.0, 0.0, 1.5):
        oncoming = moving(20.0, -8.0, y=y)
        assert only(score.score_drive(staged(oncoming, speed=0.0)), "no_collision") == 1.0


def test_who_takes_anothers_way_at_a_junction_is_at_fault_though_hit_from_the_side() -> None:
    drive = staged(crossing(20.0, -24.0, 10.0))
    assert score.score_drive(at_junction(drive)).at_fault[0]
    assert not score.score_drive(drive).at_fault[0]  # in its lane, nobody is to come from there
    drive.placement.between_lanes[:] = True
    assert score.score_drive(drive).at_fault[0]


def test_the_first_touch_decides_who_is_at_fault() -> None:
    hit = staged(moving(-6.0, 8.0, seconds=6.0), speed=0.0, seconds=6.0)  # run into while it stands
    x = np.maximum(np.arange(61) * DT - 3.0, 0.0) * 4.0  # and drives off in the other
    hit.state[:, 0, EGO, 0], hit.state[:, 0, EGO, 3] = x, np.gradient(x, DT)
    assert not score.score_drive(hit).at_fault[0]


# --- Time to collision ---


def test_time_to_collision_counts_what_is_ahead_and_closes_in() -> None:
    for speed, expected in ((1.0, 0.0), (5.0, 1.0)):  # 8 m between bumpers, less 8.1 or 4.5 m in 0.9 s
        drive = staged(moving(12.0, speed, seconds=0.1), seconds=0.1)
        assert only(score.score_drive(drive), "ttc") == expected
    beside = staged(moving(0.0, 10.0, y=2.2))
    assert only(score.score_drive(beside), "ttc") == 1.0
    standing = staged(moving(6.0, -8.0, seconds=0.1), speed=0.0, seconds=0.1)
    assert only(score.score_drive(standing), "ttc") == 1.0


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_crossing_traffic_is_seen_at_junctions(side: float) -> None:
    other = crossing(0.0, 9.0 * side, -5.0 * side, seconds=0.8)  # they would touch after 1.2 s
    drive = staged(other, speed=8.0, start=-12.0, seconds=0.8)
    assert not score.score_drive(at_junction(drive)).at_fault[0]
    assert only(score.score_drive(at_junction(drive)), "ttc") == 0.0
    assert only(score.score_drive(drive), "ttc") == 1.0  # NAVSIM: in one's own lane only what is ahead


def test_a_car_that_waits_beside_a_turn_is_no_danger_to_who_turns() -> None:
    t = np.arange(31) * DT
    angle = 5.0 * t / 10.0  # at 5 m/s around a circle of 10 m
    waiting = still(9.0, 0.0, seconds=3.0)
    turning = staged(waiting, speed=5.0, seconds=3.0)
    turning.state[:, 0, EGO] = np.stack(
        [10 * np.sin(angle), 10 * (1 - np.cos(angle)), angle, 5 * np.cos(angle), 5 * np.sin(angle)], axis=1
    )
    straight = staged(waiting, speed=5.0, seconds=3.0)
    assert only(score.score_drive(at_junction(turning)), "ttc") == 1.0
    assert only(score.score_drive(at_junction(straight)), "ttc") == 0.0


# --- The rules of the road ---


def test_leaving_the_road_costs_all_and_leaving_the_route_ends_progress() -> None:
    drive = staged()
    drive.placement.off_road[20] = True
    assert score.score_drive(drive).off_road[0] and only(score.score_drive(drive), "score") == 0.0
    lost = staged()
    lost.lateral_offset[26:] = 9.0
    scores = score.score_drive(lost, np.array([50.0]))
    assert scores.wrong_route[0] and only(scores, "progress") == pytest.approx(0.5)
    assert not scores.success[0]


def test_a_red_light_costs_all() -> None:
    drive = staged()
    assert not score.score_drive(drive).ran_red[0]
    drive.ran_red[30] = True
    assert score.score_drive(drive).ran_red[0] and only(score.score_drive(drive), "score") == 0.0


@pytest.mark.parametrize(("metres", "expected"), [(1.9, 1.0), (2.1, 0.5), (5.9, 0.5), (6.1, 0.0)])
def test_metres_against_traffic_in_a_second_cost_half_and_then_all(metres: float, expected: float) -> None:
    drive = staged()
    drive.placement.with_traffic[20:31] = -metres / 11  # as nuPlan counts a second
    scores = score.score_drive(drive)
    assert only(scores, "direction") == expected
    assert only(scores, "score") == pytest.approx(expected)
    drive.placement.with_traffic[::2] = 1.0  # on the way again in between
    assert only(score.score_drive(drive), "direction") == 1.0


def test_a_lane_is_kept_by_who_is_not_off_its_middle_for_two_seconds() -> None:
    for entries, offset, expected in ((20, 0.6, 0.0), (19, 0.6, 1.0), (40, 0.4, 1.0)):
        drive = staged()
        drive.lateral_offset[5 : 5 + entries] = offset
        scores = score.score_drive(drive)
        assert only(scores, "lane_keeping") == expected
        assert only(scores, "score") == pytest.approx((12 + 2 * expected) / ALL)
    drive.lateral_offset[5:35] = 0.6
    drive.placement.at_junction[15:30] = True  # neither counts nor interrupts: 10 and 5 entries are left
    assert only(score.score_drive(drive), "lane_keeping") == 1.0
    drive.lateral_offset[35:45] = 0.6
    assert only(score.score_drive(drive), "lane_keeping") == 0.0


# --- Progress ---


def test_progress_is_measured_by_the_experts_and_little_of_it_by_nothing() -> None:
    drive = staged()  # gains 50 m
    for expected, progress in ((100.0, 0.5), (50.0, 1.0), (40.0, 1.0), (4.0, 1.0)):
        assert only(score.score_drive(drive, np.array([expected])), "progress") == pytest.approx(progress)
    assert score.score_drive(drive, np.array([62.0])).success[0]
    assert not score.score_drive(drive, np.array([64.0])).success[0]


def test_progress_counts_from_the_handover() -> None:
    late = dataclasses.replace(staged(), handover=15)  # 35 of its 50 m are its own
    assert only(score.score_drive(late, np.array([70.0])), "progress") == pytest.approx(0.5)
    stopped = dataclasses.replace(late, progress=np.minimum(late.progress, 15.0))
    assert only(score.score_drive(stopped, np.array([70.0])), "progress") == 0.0


def test_who_makes_less_than_a_fifth_of_the_experts_progress_scores_nothing() -> None:
    for expected, made in ((251.0, 0.0), (249.0, 1.0)):
        scores = score.score_drive(staged(), np.array([expected]))
        assert only(scores, "made_progress") == made
        assert (only(scores, "score") > 0) == bool(made)


def test_who_holds_up_traffic_for_more_than_a_tenth_of_the_time_loses_by_it() -> None:
    for entries, made in ((5, 1.0), (15, 0.5), (24, 0.05), (26, 0.0)):  # of 50
        drive = staged()
        drive.impeding[1 : 1 + entries] = True
        scores = score.score_drive(drive)
        assert only(scores, "impeding") == pytest.approx(entries / 50)
        assert only(scores, "made_progress") == only(scores, "score") == pytest.approx(made)


def test_nothing_counts_after_the_goal() -> None:
    crash = staged(still(40.0))
    early = dataclasses.replace(crash, way=np.array([20.0]))
    assert score.score_drive(crash).at_fault[0] and not score.score_drive(early).at_fault[0]
    assert only(score.score_drive(early), "finish_s") == pytest.approx(2.0)
    assert np.isnan(only(score.score_drive(crash), "finish_s"))


def test_the_time_to_the_goal_is_a_median_of_those_who_reach_it() -> None:
    one = score.score_drive(dataclasses.replace(staged(), way=np.array([20.0])))
    times = np.array([9.0, 2.0, np.nan, 3.0])
    parts = {field.name: np.repeat(getattr(one, field.name), 4) for field in dataclasses.fields(one)}
    scores = score.Scores(**parts | {"finish_s": times})
    assert scores.means()["finish_s"] == 3.0 and np.isnan(scores.means(np.isnan(times))["finish_s"])


def test_a_route_that_comes_back_gives_no_progress_for_nothing() -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = 30 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1)
    x = np.linspace(0.0, -6.0, 30)  # backwards, towards the end of the circle
    gained, off = progress_along(np.stack([x, 0 * x], axis=1), circle, start=0.0)
    assert gained.max() == 0.0 and off.max() < 1.0
    arc = circle[:50]
    gained, _ = progress_along(arc, circle, start=0.0)
    assert gained[-1] == pytest.approx(30 * angle[49], rel=1e-3)


# --- Comfort ---


def swaying(acceleration: np.ndarray, yaw: np.ndarray | None = None) -> np.ndarray:
    """States (t, 5) with accelerations (t, 2) along and across."""
    t = len(acceleration)
    velocity = np.concatenate([np.zeros((1, 2)), np.cumsum(acceleration, axis=0)[:-1] * DT])
    place = np.cumsum(velocity, axis=0) * DT
    return np.concatenate([place, (np.zeros(t) if yaw is None else yaw)[:, None], velocity], axis=1)


STEPS = np.arange(61)
ONES, NOTHING = np.ones(61), np.zeros((61, 2))
HALVES = np.where(STEPS < 30, -1.0, 1.0)


def accelerating(values: np.ndarray) -> np.ndarray:
    """States (t, 5) with accelerations (t,) along."""
    return swaying(np.stack([values, 0 * values], axis=1))


@pytest.mark.parametrize(
    ("ego", "passed"),
    [
        (swaying(np.stack([2.3 * ONES, 4.8 * ONES], axis=1)), set()),
        (accelerating(2.5 * ONES), {0}),
        (accelerating(-4.1 * ONES), {0}),
        (swaying(np.stack([0 * ONES, 5.0 * ONES], axis=1)), {1}),
        (swaying(np.stack([0 * ONES, 5.0 * (1 + HALVES)], axis=1)), {1, 2}),
        (accelerating(-8.0 * (np.abs(STEPS - 30) < 5)), {0, 3}),  # one brake of 8 m/s2 for 0.9 s
        (accelerating(-3.0 * (np.abs(STEPS - 30) < 5)), set()),
        (accelerating(np.clip(0.3 * (STEPS - 20), 0, 2.3)), set()),
        (accelerating(np.clip(0.6 * (STEPS - 20), 0, 2.3) + np.clip(0.6 * (20 - STEPS), -4, 0)), set()),
        (swaying(NOTHING, 0.25 * np.sin(3.0 * DT * STEPS)), {4}),
        (swaying(NOTHING, 1.0 * DT * STEPS), {5}),
        (swaying(NOTHING, 0.9 * DT * STEPS), set()),
    ],
)
def test_each_limit_of_comfort_is_its_own(ego: np.ndarray, passed: set[int]) -> None:
    assert set(np.flatnonzero(discomfort(ego, DT).any(axis=0))) == passed


@pytest.mark.parametrize("seconds", [4, 15])
def test_braking_and_accelerating_each_half_second_is_no_comfort(seconds: int) -> None:
    steps = np.arange(10 * seconds + 1)
    ego = accelerating(np.where(steps // 5 % 2, 3.0, -3.0))
    assert discomfort(ego, DT)[10:-10].any()


def test_windows_are_those_of_navsim_2_and_nuplan() -> None:
    """The jerk at each entry, by the devkits' own calls of the filter."""
    rng = np.random.default_rng(0)
    for scale in (1.0, 4.0, 12.0):
        acceleration = rng.normal(scale=scale, size=61)
        smooth = savgol_filter(acceleration[:-1], 8, 2)
        jerk = savgol_filter(smooth, 15, 2, deriv=1, delta=0.1)
        found = discomfort(accelerating(acceleration), DT)[8:-12]
        np.testing.assert_array_equal(found[:, 0], ((smooth <= -4.05) | (smooth >= 2.4))[8:-11])
        np.testing.assert_array_equal(found[:, 3], (np.abs(jerk) >= 4.13)[8:-11])


def test_a_jerk_within_limits_that_begins_at_the_end_is_comfortable() -> None:
    """Extended to its end, the filter would find more than there was."""
    ramp = np.clip(-0.35 * (STEPS - 54), None, 0)  # 3.5 m/s3
    extended = savgol_filter(savgol_filter(ramp, 8, 2), 15, 2, deriv=1, delta=DT)
    assert np.abs(extended).max() > 4.13
    assert not discomfort(accelerating(ramp), DT).any()
    assert discomfort(accelerating(2 * np.clip(-0.35 * (STEPS - 44), None, 0)), DT)[:, 3].any()


def test_comfort_counts_from_the_handover_and_looks_back() -> None:
    steps = np.arange(51)
    drive = staged()
    drive.state[:, 0, EGO] = accelerating(-8.0 * ((steps > 4) & (steps < 12)))
    for handover, expected in ((0, 0.0), (40, 1.0)):
        scores = score.score_drive(dataclasses.replace(drive, handover=handover))
        assert only(scores, "comfort") == expected
    assert only(score.score_drive(dataclasses.replace(drive, handover=12)), "comfort") == 0.0  # of the window


def test_one_jolt_costs_two_of_fourteen_and_shaking_all() -> None:
    steps = np.arange(151)
    for brakes, expected in ((steps // 5 == 12, 12 / ALL), (steps // 5 % 2 == 1, 0.0)):
        drive = staged(seconds=15.0)
        drive.state[:, 0, EGO] = accelerating(np.where(brakes, -7.0, 0.0))
        scores = score.score_drive(drive)
        assert only(scores, "score") == pytest.approx(expected)
        assert scores.rough[0] == (expected == 0)


def test_a_drive_of_a_few_entries_has_no_comfort_to_judge() -> None:
    for entries in range(1, 4):
        assert discomfort(np.zeros((entries, 5)), DT).shape == (entries, 6)


# --- In any frame, and apart ---


@pytest.mark.parametrize("turn", [0.7, 2.5, -1.9])
def test_scores_do_not_change_when_the_scene_is_turned_and_moved(turn: float) -> None:
    frame = np.array([40.0, -70.0, turn])
    for other in (still(30.0), moving(12.0, 6.0), crossing(20.0, -20.0, 10.0)):
        one = at_junction(staged(other))
        state = one.state.copy()
        state[..., :2] = from_frame(state[..., :2], frame)
        state[..., 2] += turn
        state[..., 3:] = from_frame(state[..., 3:], frame * np.array([0, 0, 1]))
        here, there = (score.score_drive(drive) for drive in (one, dataclasses.replace(one, state=state)))
        for field in dataclasses.fields(score.Scores):
            np.testing.assert_array_equal(getattr(here, field.name), getattr(there, field.name))


def test_scenes_are_told_apart_by_what_the_expert_meets() -> None:
    def slices(one: Drive) -> dict[str, bool]:
        return {name: bool(flag[0]) for name, flag in course.slices(one, score.counted(one)).items()}

    even = staged(seconds=8.0)
    assert slices(even) == {"turn": False, "interactive": False, "hard": False}
    waiting = staged(seconds=8.0)
    waiting.to_stop[30] = 12.0
    assert slices(waiting)["interactive"]
    braking = staged(seconds=8.0)
    braking.state[:, :, EGO, 0] = 10 * np.arange(81)[:, None] * DT * np.linspace(1.0, 0.4, 81)[:, None]
    assert slices(braking)["hard"]
    for turned, expected in ((0.3, False), (0.4, True)):
        bent = staged(seconds=8.0)
        bent.state[20:, :, EGO, 2] = turned
        assert slices(bent)["turn"] == expected
    creeping = staged(seconds=8.0)
    creeping.state[:, :, EGO, 2] = 0.8 * np.linspace(0, 1, 81)[:, None]  # 0.3 rad in 30 m
    assert not slices(creeping)["turn"]


def test_intervals_hold_the_mean_and_shrink_with_scenes() -> None:
    values = np.random.default_rng(0).uniform(size=400)
    low, high = score.interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    few = score.interval(values[:25])
    assert few[1] - few[0] > 2.5 * (high - low)
