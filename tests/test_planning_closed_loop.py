"""Driving in closed loop, and its score: hand-made drives, the expert, and plans that cannot be driven."""

import dataclasses

import numpy as np
import pytest
import torch

from attnsweep.tasks.driving.judging import baselines, score
from attnsweep.tasks.driving.judging.closed_loop import Drive, drive, progress_along
from attnsweep.tasks.driving.judging.replay import between, replay, score_plans
from attnsweep.tasks.driving.planners import PLANNERS
from attnsweep.tasks.driving.records import scenes
from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.stack.route import along, curve
from attnsweep.tasks.driving.world.cast import CAR, EGO, PARKED
from attnsweep.tasks.driving.world.geometry import from_frame
from attnsweep.tasks.driving.world.traffic import DT

SIZES = {"dim": 128, "depth": 2}
EVERY_BASELINE = [name for name in PLANNERS if name not in ("planning", "expert")]


# --- Hand-made drives ---


def states(x: np.ndarray, y: np.ndarray, yaw: float = 0.0) -> np.ndarray:
    """States (t, 5) of someone at these places."""
    velocity = [np.gradient(one, DT) for one in (x, y)]
    return np.stack([x, y, np.full(len(x), yaw), *velocity], axis=1)


def staged(*others: np.ndarray, speed: float = 10.0, seconds: float = 5.0, kind: int = CAR) -> Drive:
    """A drive of one scene: the ego goes straight on at a speed among others with states (t, 5)."""
    t = np.arange(round(seconds / DT) + 1) * DT
    state = np.stack([states(speed * t, 0 * t), *others], axis=1)[:, None]
    shape = state.shape[:3]
    return Drive(
        dt=DT, state=state, active=np.ones(shape, dtype=bool), kind=np.full(shape[1:], kind),
        size=np.full((*shape[1:], 2), [4.0, 2.0]), progress=(speed * t)[:, None], aside=np.zeros(shape[:2]),
        depth=np.ones(shape[:2]), way=np.array([1e3]), to_stop=np.full(shape[:2], np.inf), lost=np.zeros(1),
    )  # fmt: skip


def still(x: float, y: float = 0.0, *, seconds: float = 5.0) -> np.ndarray:
    """States (t, 5) of someone who stands."""
    ones = np.ones(round(seconds / DT) + 1)
    return states(x * ones, y * ones)


def moving(x: float, speed: float, y: float = 0.0, *, seconds: float = 5.0) -> np.ndarray:
    """States (t, 5) of someone who drives along x."""
    t = np.arange(round(seconds / DT) + 1) * DT
    return states(x + speed * t, y + 0 * t)


def only(scores: score.Scores, name: str) -> float:
    return float(getattr(scores, name)[0])


def test_an_undisturbed_drive_scores_one() -> None:
    scores = score.score_drive(staged(moving(30.0, 10.0), moving(0.0, 10.0, y=3.5)))
    assert only(scores, "score") == 1.0 and scores.success[0] and not scores.at_fault[0]


def test_driving_into_a_car_that_waits_costs_all_and_into_a_parked_one_half() -> None:
    for kind, expected in ((CAR, 0.0), (PARKED, 0.5)):
        drive = staged(still(30.0))
        drive.kind[0, 1] = kind
        scores = score.score_drive(drive)
        assert only(scores, "no_collision") == expected and scores.at_fault[0]
        assert only(scores, "ttc") == 0.0  # it was foreseeable
        assert only(scores, "score") == pytest.approx(expected * 7 / 12)


def test_who_is_hit_from_behind_is_not_at_fault() -> None:
    standing = staged(moving(-20.0, 8.0), speed=0.0)
    slower = staged(moving(-8.0, 8.0), speed=5.0)
    for one in (standing, slower):
        scores = score.score_drive(one)
        assert only(scores, "no_collision") == 1.0 and not scores.at_fault[0]
        assert only(scores, "ttc") == 1.0


def test_who_stands_is_not_at_fault_wherever_it_is_hit() -> None:
    for y in (-1.0, 0.0, 1.5):
        oncoming = moving(20.0, -8.0, y=y)
        assert only(score.score_drive(staged(oncoming, speed=0.0)), "no_collision") == 1.0


def test_who_takes_anothers_way_is_at_fault_though_hit_from_the_side() -> None:
    t = np.arange(51) * DT
    crossing = states(0 * t + 20.0, -20.0 + 10.0 * t, yaw=np.pi / 2)
    assert score.score_drive(staged(crossing)).at_fault[0]


def test_time_to_collision_counts_what_is_ahead_and_closes_in() -> None:
    for speed, expected in ((1.0, 0.0), (5.0, 1.0)):  # 8 m between bumpers, less 8.1 or 4.5 m in 0.9 s
        drive = staged(moving(12.0, speed, seconds=0.1), seconds=0.1)
        assert only(score.score_drive(drive), "ttc") == expected
    beside = staged(moving(0.0, 10.0, y=2.2))
    assert only(score.score_drive(beside), "ttc") == 1.0
    standing = staged(moving(6.0, -8.0, seconds=0.1), speed=0.0, seconds=0.1)
    assert only(score.score_drive(standing), "ttc") == 1.0


def test_leaving_the_road_costs_all_and_leaving_the_route_ends_progress() -> None:
    drive = staged()
    drive.depth[20] = -0.1
    assert score.score_drive(drive).off_road[0] and only(score.score_drive(drive), "score") == 0.0
    lost = staged()
    lost.aside[26:] = 9.0
    scores = score.score_drive(lost, np.array([50.0]))
    assert scores.wrong_route[0] and only(scores, "progress") == pytest.approx(0.5)
    assert not scores.success[0]


def test_progress_is_measured_by_the_experts_and_little_of_it_by_nothing() -> None:
    drive = staged()  # gains 50 m
    for expected, progress in ((100.0, 0.5), (50.0, 1.0), (40.0, 1.0), (4.0, 1.0)):
        assert only(score.score_drive(drive, np.array([expected])), "progress") == pytest.approx(progress)
    assert score.score_drive(drive, np.array([62.0])).success[0]
    assert not score.score_drive(drive, np.array([64.0])).success[0]


def test_nothing_counts_after_the_goal() -> None:
    crash = staged(still(40.0))
    early = dataclasses.replace(crash, way=np.array([20.0]))
    assert score.score_drive(crash).at_fault[0] and not score.score_drive(early).at_fault[0]
    assert only(score.score_drive(early), "finish_s") == pytest.approx(2.0)
    assert np.isnan(only(score.score_drive(crash), "finish_s"))


def swaying(acceleration: np.ndarray, yaw: np.ndarray | None = None) -> np.ndarray:
    """States (t, 5) with accelerations (t, 2) along and across."""
    t = len(acceleration)
    velocity = np.concatenate([np.zeros((1, 2)), np.cumsum(acceleration, axis=0)[:-1] * DT])
    place = np.cumsum(velocity, axis=0) * DT
    return np.concatenate([place, (np.zeros(t) if yaw is None else yaw)[:, None], velocity], axis=1)


ONES = np.ones(61)
HALVES = np.where(np.arange(61) < 30, -1.0, 1.0)
NOTHING = np.zeros((61, 2))


@pytest.mark.parametrize(
    ("ego", "passed"),
    [
        (swaying(np.stack([2.3 * ONES, 4.8 * ONES], axis=1)), set()),
        (swaying(np.stack([2.5 * ONES, 0 * ONES], axis=1)), {0}),
        (swaying(np.stack([-4.1 * ONES, 0 * ONES], axis=1)), {0}),
        (swaying(np.stack([0 * ONES, 5.0 * ONES], axis=1)), {1}),
        (swaying(np.stack([0 * ONES, 12.0 * (1 + HALVES)], axis=1)), {1, 2}),
        (swaying(np.stack([6.0 * HALVES, 0 * ONES], axis=1)), {0, 3}),
        (swaying(np.stack([-6.0 * (np.abs(np.arange(61) - 30) < 5), 0 * ONES], axis=1)), set()),  # for 0.9 s
        (swaying(np.stack([-6.0 * (np.abs(np.arange(61) - 30) < 13), 0 * ONES], axis=1)), {0}),  # for 2.5 s
        (swaying(NOTHING, 0.25 * np.sin(3.0 * DT * np.arange(61))), {4}),
        (swaying(NOTHING, 1.0 * DT * np.arange(61)), {5}),
        (swaying(NOTHING, 0.9 * DT * np.arange(61)), set()),
    ],
)
def test_each_limit_of_comfort_is_its_own(ego: np.ndarray, passed: set[int]) -> None:
    assert set(np.flatnonzero(score.discomfort(ego[:, None], DT)[0])) == passed


def test_smoothing_is_savitzkys_and_golays() -> None:
    savgol = pytest.importorskip("scipy.signal").savgol_filter
    values = np.random.default_rng(0).normal(size=(60, 3))
    for window, order in ((41, 0), (41, 1), (5, 1), (5, 2), (15, 1)):
        theirs = savgol(values, window, polyorder=3 if order == 2 else 2, deriv=order, delta=DT, axis=0)
        ours = score.smoothed(values, window, dt=DT, order=order)
        np.testing.assert_allclose(ours, theirs, atol=1e-9 / DT**order)
    parabola = (0.3 * np.arange(20.0) ** 2 - 2)[:, None]
    np.testing.assert_allclose(score.smoothed(parabola, 8), parabola, atol=1e-9)  # even windows, too


@pytest.mark.parametrize("turn", [0.7, 2.5, -1.9])
def test_scores_do_not_change_when_the_scene_is_turned_and_moved(turn: float) -> None:
    t = np.arange(51) * DT
    frame = np.array([40.0, -70.0, turn])
    for other in (still(30.0), moving(12.0, 6.0), states(0 * t + 20.0, -20.0 + 10.0 * t, yaw=np.pi / 2)):
        one = staged(other)
        state = one.state.copy()
        state[..., :2] = from_frame(state[..., :2], frame)
        state[..., 2] += turn
        state[..., 3:] = from_frame(state[..., 3:], frame * np.array([0, 0, 1]))
        here, there = (score.score_drive(drive) for drive in (one, dataclasses.replace(one, state=state)))
        for field in dataclasses.fields(score.Scores):
            np.testing.assert_array_equal(getattr(here, field.name), getattr(there, field.name))


def test_scenes_are_told_apart_by_what_the_expert_meets() -> None:
    def slices(one: Drive) -> dict[str, bool]:
        return {name: bool(flag[0]) for name, flag in score.slices(one, score.counted(one)).items()}

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


def test_a_route_that_comes_back_gives_no_progress_for_nothing() -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = 30 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1)
    x = np.linspace(0.0, -6.0, 30)  # backwards, towards the end of the circle
    gained, aside = progress_along(np.stack([x, 0 * x], axis=1), circle, start=0.0)
    assert gained.max() == 0.0 and aside.max() < 1.0
    arc = circle[:50]
    gained, _ = progress_along(arc, circle, start=0.0)
    assert gained[-1] == pytest.approx(30 * angle[49], rel=1e-3)


# --- In the world ---


@pytest.fixture(scope="module")
def course() -> score.Course:
    return score.course("driving:small", "test", 16)


def steadily(seen: Samples, *, speed: float = 6.0) -> np.ndarray:
    """Plans (b, 8, 3) along the route by numpy alone, a scene at a time."""
    far = 4.0 * np.arange(1, 13)
    plans = np.zeros((len(seen["route"]), 8, 3))
    for b, route in enumerate(seen["route"].astype(float)):
        at = speed * np.arange(1, 9) / 2
        plans[b, :, :2] = np.stack([np.interp(at, far, route[:, k]) for k in range(2)], axis=1)
    return plans


def same(one: score.Scores, other: score.Scores, at: int) -> None:
    """Claims that scene `at` of the first was scored as the only one of the second."""
    for field in dataclasses.fields(score.Scores):
        np.testing.assert_array_equal(getattr(one, field.name)[at], getattr(other, field.name)[0], field.name)


def test_the_expert_drives_all_but_perfectly(course: score.Course) -> None:
    means = course.expert.means()
    assert means["score"] >= 0.97 and means["progress"] == 1.0
    assert means["at_fault"] == means["off_road"] == means["wrong_route"] == means["lost"] == 0.0


def test_a_course_is_driven_by_the_expert_once(course: score.Course) -> None:
    assert score.course("driving:small", "test", 16) is course


def test_scenes_side_by_side_are_driven_as_one_by_one(course: score.Course) -> None:
    together = drive(course.maps, course.casts, steadily, seconds=8.0)
    scores = score.score_drive(together, course.expected)
    for at in (0, 7, 13):
        alone = drive(course.maps[at : at + 1], course.casts[at : at + 1], steadily, seconds=8.0)
        for name in ("state", "active", "progress", "aside", "depth", "to_stop"):
            part = getattr(together, name)[:, at]
            assert part.tobytes() == getattr(alone, name)[:, 0].tobytes(), name
        same(scores, score.score_drive(alone, course.expected[at : at + 1]), at)


def test_the_first_second_and_a_half_is_the_experts(course: score.Course) -> None:
    expert, blind = (drive(course.maps[:3], course.casts[:3], one, seconds=3.0) for one in (None, steadily))
    np.testing.assert_array_equal(expert.state[:16], blind.state[:16])
    assert (np.abs(expert.state[20:, :, EGO] - blind.state[20:, :, EGO]) > 1e-3).any(axis=(0, 2)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_an_ego_whose_plan_cannot_be_driven_brakes_and_the_others_drive_on(
    course: score.Course, bad: float
) -> None:
    def broken(seen: Samples) -> np.ndarray:
        plans = steadily(seen)
        plans[1, 3, 0] = bad
        return plans

    maps, casts = course.maps[:3], course.casts[:3]
    driven, sound = (drive(maps, casts, policy, seconds=9.0) for policy in (broken, steadily))
    assert np.isfinite(driven.state).all()
    assert driven.lost.tolist() == [0.0, 1.0, 0.0]
    assert np.hypot(*driven.state[-1, 1, EGO, 3:]) == 0.0
    assert driven.state[:, [0, 2]].tobytes() == sound.state[:, [0, 2]].tobytes()
    assert score.score_drive(driven).lost[1] == 1.0


def test_a_policy_senses_what_samples_hold(course: score.Course) -> None:
    seen: list[Samples] = []

    def remember(given: Samples) -> np.ndarray:
        seen.append(given)
        return steadily(given)

    drive(course.maps[:2], course.casts[:2], remember, seconds=4.0)
    assert len(seen) == 5  # at 1.5, 2.0, ... 3.5 s
    recorded = scenes.record(scenes.PRESETS["driving:small"], [course.maps[0].seed])[0].samples
    for name, array in seen[0].items():
        np.testing.assert_array_equal(array[0], recorded[name][0], name)


# --- Baselines ---


@pytest.fixture(scope="module")
def judged(course: score.Course) -> dict[str, score.Scores]:
    torch.manual_seed(0)
    return {
        name: score.judge(course, baselines.policy_of(PLANNERS[name](SIZES)))
        for name in EVERY_BASELINE
        if not name.endswith("mlp")
    }


def test_the_expert_is_better_than_what_sees_nothing(
    course: score.Course, judged: dict[str, score.Scores]
) -> None:
    for scores in judged.values():
        assert scores.score.mean() < course.expert.score.mean() - 0.2


def test_stopping_is_safe_and_goes_nowhere(judged: dict[str, score.Scores]) -> None:
    means = judged["stop"].means()
    assert means["at_fault"] == means["off_road"] == means["success"] == 0.0 and means["progress"] < 0.5


def test_following_the_route_stays_on_the_road_and_straight_on_does_not(
    judged: dict[str, score.Scores],
) -> None:
    assert not judged["route_following"].off_road.any() and not judged["route_following"].wrong_route.any()
    assert judged["route_following"].at_fault.mean() > 0.2
    assert judged["constant_velocity"].off_road.mean() > 0.5


@pytest.mark.parametrize("name", EVERY_BASELINE)
def test_every_baseline_plans_eight_poses_from_samples(name: str) -> None:
    planner = PLANNERS[name](SIZES)
    route = 4.0 * torch.arange(1, 13)[:, None] * torch.tensor([1.0, 0.0])
    plan = planner(
        torch.zeros(2, 6, 64, 64, dtype=torch.uint8), route.expand(2, 12, 2),
        torch.zeros(2, dtype=torch.int8), torch.tensor([[5.0, 0, 0, 0, 0]]).expand(2, 5),
    ).plan  # fmt: skip
    assert plan.shape == (2, 8, 3) and plan.isfinite().all()
    if name in ("constant_velocity", "route_following"):
        torch.testing.assert_close(plan[0, :, 0], 2.5 * torch.arange(1.0, 9))


def test_driving_leaves_a_planner_in_the_mode_in_which_it_was() -> None:
    planner = baselines.EgoMLP().train()
    modes: list[bool] = []
    planner.net.register_forward_hook(lambda *_: modes.append(planner.training))
    seen = {"bev": np.zeros((1, 6, 64, 64), np.uint8), "route": np.ones((1, 12, 2), np.float32),
            "command": np.zeros(1, np.int8), "ego_state": np.zeros((1, 5), np.float32)}  # fmt: skip
    plan = baselines.policy_of(planner)(seen)
    assert plan.dtype == np.float64 and modes == [False] and planner.training


# --- Along the route ---


def test_a_plan_along_a_bend_stays_on_it() -> None:
    angle = torch.arange(1, 13) * 4.0 / 12.0  # of a circle of 12 m radius
    route = 12.0 * torch.stack([angle.sin(), 1 - angle.cos()], dim=1)[None]
    progress = torch.linspace(1.0, 40.0, 8)[None]
    plan = along(curve(route), progress, torch.zeros(1, 8))
    off = (plan[0, :, :2] - torch.tensor([0.0, 12.0])).norm(dim=1) - 12.0
    assert off.abs().max() < 0.1
    turned = torch.atan2(plan[0, :, 2].sin(), plan[0, :, 2].cos())
    expected = torch.atan2((progress[0] / 12.0).sin(), (progress[0] / 12.0).cos())
    torch.testing.assert_close(turned, expected, atol=0.08, rtol=0)  # arcs are 0.5 % longer than their chords
    beside = along(curve(route), progress, torch.full((1, 8), 2.0))
    gap = (beside[0, :, :2] - plan[0, :, :2]).norm(dim=1)
    torch.testing.assert_close(gap, torch.full((8,), 2.0))
    assert ((beside[0, :, :2] - torch.tensor([0.0, 12.0])).norm(dim=1) < 10.2).all()  # left is inward


def test_a_plan_goes_straight_on_beyond_the_route_and_has_gradients() -> None:
    route = (4.0 * torch.arange(1, 13)[:, None] * torch.tensor([0.6, 0.8]))[None]
    progress = torch.tensor([[6.0, 21.0, 47.0, 49.0, 50.0, 70.0, 80.0, 90.0]], requires_grad=True)
    lateral = torch.zeros(1, 8, requires_grad=True)
    plan = along(curve(route), progress, lateral)
    torch.testing.assert_close(plan[0, 2:, :2].norm(dim=1), progress[0, 2:].detach(), rtol=1e-4, atol=1e-3)
    plan[..., :2].sum().backward()
    assert progress.grad is not None and (progress.grad > 0).all()
    assert lateral.grad is not None and (lateral.grad != 0).all()


def test_a_plan_goes_straight_on_where_the_route_ends_early() -> None:
    ends = 4.0 * torch.arange(1, 13).clamp(max=3)[:, None] * torch.tensor([0.6, 0.8])
    progress = torch.tensor([[2.0, 6.0, 11.0, 12.5, 13.0, 20.0, 30.0, 60.0]])
    plan = along(curve(ends[None]), progress, torch.zeros(1, 8))
    torch.testing.assert_close(plan[0, 2:, :2].norm(dim=1), progress[0, 2:], rtol=1e-3, atol=0.05)
    torch.testing.assert_close(plan[0, 3:, 2], torch.full((5,), 0.9273), atol=1e-3, rtol=0)
    over = along(curve(torch.zeros(1, 12, 2)), progress, torch.zeros(1, 8))
    assert over.isfinite().all()


# --- Replayed among what was recorded ---


@pytest.fixture(scope="module")
def recorded() -> Samples:
    return scenes.joined(
        [one.samples for one in scenes.record(scenes.PRESETS["driving:small"], [50_000, 50_001])]
    )


def test_the_recorded_drive_replayed_scores_all_but_one(recorded: Samples) -> None:
    scores = score_plans(recorded, recorded["plan"].astype(float))
    means = scores.means()
    assert means["no_collision"] == means["progress"] == 1.0 and means["off_road"] == 0.0
    assert means["score"] > 0.9


def test_a_plan_through_another_costs_all(recorded: Samples) -> None:
    row = int(np.argmax((recorded["plan"][:, -1, 0] > 15) & recorded["future_boxes_mask"].all(axis=1)[:, 0]))
    one = {name: array[row : row + 1].copy() for name, array in recorded.items()}
    one["future_boxes"][0, :, 0, :3] = one["plan"][0, 5]  # stands where the expert comes by in 3 s
    scores = score_plans(one, one["plan"].astype(float))
    assert only(scores, "no_collision") == 0.0 and only(scores, "score") == 0.0
    stopping = np.zeros((1, 8, 3))
    assert only(score_plans(one, stopping), "no_collision") == 1.0


def test_a_replay_ends_where_the_recording_does(recorded: Samples) -> None:
    known = np.arange(8) < 4  # 2 s
    short = recorded | {
        "plan": np.where(known[:, None], recorded["plan"], 0),
        "plan_mask": np.tile(known, (len(recorded["plan"]), 1)),
        "future_boxes_mask": recorded["future_boxes_mask"] & known[:, None],
    }
    means = score_plans(short, recorded["plan"].astype(float)).means()
    assert means["progress"] > 0.99 and means["no_collision"] == 1.0 and means["off_road"] == 0.0
    astray = recorded["plan"].astype(float)
    astray[:, 7, 1] += 30.0  # after the end
    np.testing.assert_allclose(score_plans(short, astray).means()["score"], means["score"], atol=0.02)
    nothing = short | {"plan_mask": np.zeros_like(short["plan_mask"])}
    assert score_plans(nothing, np.zeros((len(astray), 8, 3))).means()["progress"] == 1.0


def test_a_plan_of_nan_brakes_in_a_replay(recorded: Samples) -> None:
    driven = replay(recorded, np.full((len(recorded["plan"]), 8, 3), np.nan))
    assert np.isfinite(driven.state).all() and driven.lost.all()
    assert (np.diff(np.hypot(driven.state[..., EGO, 3], driven.state[..., EGO, 4]), axis=0) <= 1e-12).all()


def test_between_key_frames_others_go_on_evenly() -> None:
    t = np.arange(1, 9) / 2
    boxes = np.zeros((1, 8, 1, 5))
    boxes[0, :, 0, 0], boxes[0, :, 0, 2] = 3.0 + 4.0 * t, 3.0 + 0.2 * t  # turns through pi
    boxes[..., 2] = (boxes[..., 2] + np.pi) % (2 * np.pi) - np.pi
    there = np.ones((1, 8, 1), dtype=bool)
    there[0, -1] = False
    state, active = between(boxes, there)
    fine = np.arange(41) / 10
    np.testing.assert_allclose(state[:, 0, 0, 0], 3.0 + 4.0 * fine, atol=1e-12)
    np.testing.assert_allclose(np.unwrap(state[:, 0, 0, 2]), 3.0 + 0.2 * fine, atol=1e-12)
    np.testing.assert_allclose(state[:, 0, 0, 3], 4.0)
    assert active[:35].all() and not active[36:].any()


def test_intervals_hold_the_mean_and_shrink_with_scenes() -> None:
    values = np.random.default_rng(0).uniform(size=400)
    low, high = score.interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    few = score.interval(values[:25])
    assert few[1] - few[0] > 2.5 * (high - low)
