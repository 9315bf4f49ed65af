"""Driving in closed loop: the expert, what sees nothing, what nobody would ride with, and recorded plans."""

import dataclasses

import numpy as np
import pytest
import torch
from test_planning_score import only

from attnsweep.tasks.driving.judging import baselines, score
from attnsweep.tasks.driving.judging.closed_loop import HANDOVER, drive
from attnsweep.tasks.driving.judging.course import Course, course
from attnsweep.tasks.driving.judging.replay import between, extended, placement, replay, score_plans
from attnsweep.tasks.driving.planners import PLANNERS
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.stack.route import along, curve
from attnsweep.tasks.driving.world.cast import EGO, Cast, draw_cast
from attnsweep.tasks.driving.world.geometry import Floats
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import CLEARING_S, GREEN_S, YELLOW_S, RoadMap

import policies

pytestmark = pytest.mark.slow

SIZES = {"dim": 128, "depth": 2}
EVERY_BASELINE = [name for name in PLANNERS if name not in ("planning", "expert")]
MAPS = {"driving:small": 8, "driving:full": 4}  # with all policies side by side a preset takes some 8 s


# --- In the world ---


@pytest.fixture(scope="module", params=MAPS)
def run(request: pytest.FixtureRequest) -> Course:
    return course(request.param, "test", MAPS[request.param])


@pytest.fixture(scope="module")
def small() -> Course:
    return course("driving:small", "test", MAPS["driving:small"])


def steadily(seen: Samples) -> Floats:
    """Plans (b, 8, 3) along the route at 6 m/s by numpy alone, a scene at a time."""
    return policies.along(seen, 6.0 * policies.SECONDS)


def same(one: score.Scores, other: score.Scores, at: int) -> None:
    """Claims that scene `at` of the first was scored as the only one of the second."""
    for field in dataclasses.fields(score.Scores):
        np.testing.assert_array_equal(getattr(one, field.name)[at], getattr(other, field.name)[0], field.name)


def test_the_expert_drives_all_but_perfectly(run: Course) -> None:
    means = run.expert.means()
    assert means["score"] > 0.97 and means["progress"] == means["made_progress"] == means["direction"] == 1.0
    for fault in ("at_fault", "off_road", "ran_red", "rough", "wrong_route", "lost"):
        assert means[fault] == 0.0, fault


def test_a_course_is_driven_by_the_expert_once(small: Course) -> None:
    assert course("driving:small", "test", MAPS["driving:small"]) is small


def test_scenes_side_by_side_are_driven_as_one_by_one(run: Course) -> None:
    together = drive(run.maps, run.casts, steadily, seconds=8.0)
    scores = score.score_drive(together, run.expected)
    for at in (0, len(run.maps) - 1):
        alone = drive(run.maps[at : at + 1], run.casts[at : at + 1], steadily, seconds=8.0)
        for name in ("state", "active", "progress", "lateral_offset", "ran_red", "impeding", "to_stop"):
            part = getattr(together, name)[:, at]
            assert part.tobytes() == getattr(alone, name)[:, 0].tobytes(), name
        for field in dataclasses.fields(together.placement):
            part = getattr(together.placement, field.name)[:, at]
            assert part.tobytes() == getattr(alone.placement, field.name)[:, 0].tobytes(), field.name
        same(scores, score.score_drive(alone, run.expected[at : at + 1]), at)


def test_the_first_second_and_a_half_is_the_experts(small: Course) -> None:
    expert, blind = (drive(small.maps[:3], small.casts[:3], one, seconds=3.0) for one in (None, steadily))
    assert expert.handover == blind.handover == HANDOVER == 15
    np.testing.assert_array_equal(expert.state[:16], blind.state[:16])
    assert (np.abs(expert.state[20:, :, EGO] - blind.state[20:, :, EGO]) > 1e-3).any(axis=(0, 2)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_an_ego_whose_plan_cannot_be_driven_brakes_and_the_others_drive_on(small: Course, bad: float) -> None:
    def broken(seen: Samples) -> np.ndarray:
        plans = steadily(seen)
        plans[1, 3, 0] = bad
        return plans

    maps, casts = small.maps[:3], small.casts[:3]
    driven, sound = (drive(maps, casts, policy, seconds=9.0) for policy in (broken, steadily))
    assert np.isfinite(driven.state).all()
    assert driven.lost.tolist() == [0.0, 1.0, 0.0]
    assert np.hypot(*driven.state[-1, 1, EGO, 3:]) == 0.0
    assert driven.state[:, [0, 2]].tobytes() == sound.state[:, [0, 2]].tobytes()
    assert score.score_drive(driven).lost[1] == 1.0


def test_a_policy_senses_what_samples_hold(small: Course) -> None:
    seen: list[Samples] = []

    def remember(given: Samples) -> np.ndarray:
        seen.append(given)
        return steadily(given)

    drive(small.maps[:2], small.casts[:2], remember, seconds=4.0)
    assert len(seen) == 5  # at 1.5, 2.0, ... 3.5 s
    recorded = presets.record(presets.PRESETS["driving:small"], [small.maps[0].seed])[0].samples
    for name, array in seen[0].items():
        np.testing.assert_array_equal(array[0], recorded[name][0], name)


@pytest.mark.parametrize("metres", [1.0, 9.0])
def test_a_plan_behind_oneself_brakes_for_there_is_no_reverse_gear(small: Course, metres: float) -> None:
    def back(seen: Samples) -> Floats:
        plans = np.zeros((len(seen["route"]), 8, 3))
        plans[..., 0] = -metres * policies.SECONDS
        return plans

    driven = drive(small.maps[:3], small.casts[:3], back, seconds=6.0)
    speed = np.hypot(driven.state[HANDOVER:, :, EGO, 3], driven.state[HANDOVER:, :, EGO, 4])
    assert (np.diff(speed, axis=0) <= 1e-12).all() and (speed[-1] < 0.01).all()


# --- Lights ---


def lit(count: int) -> tuple[list[RoadMap], list[Cast]]:
    """The first scenes of the full preset whose ego has a light."""
    preset = presets.find("driving:full")
    found: tuple[list[RoadMap], list[Cast]] = ([], [])
    for seed in preset.seeds("test"):
        road_map = draw_map(seed, kinds=("crossing",), full=True)
        cast = draw_cast(road_map, preset.crowd, dt=DT)
        if road_map.paths[cast.route[EGO]].light >= 0:
            found[0].append(road_map)
            found[1].append(cast)
        if len(found[0]) == count:
            break
    return found


def test_who_crosses_the_line_at_red_runs_a_light_and_who_does_at_green_or_yellow_does_not() -> None:
    half = GREEN_S + YELLOW_S + CLEARING_S
    maps, casts = lit(2)
    offsets = np.arange(0.0, 2 * half, 3.0)
    maps, casts = maps * len(offsets), [
        dataclasses.replace(cast, light_offset=float(offset)) for offset in offsets for cast in casts
    ]  # fmt: skip
    fast = drive(maps, casts, lambda seen: policies.along(seen, 12.0 * policies.SECONDS), seconds=8.0)
    assert not drive(maps, casts, None, seconds=8.0).ran_red.any()
    reds = 0
    for b, (road_map, cast) in enumerate(zip(maps, casts, strict=True)):
        path = road_map.paths[cast.route[EGO]]
        front = cast.s[EGO] + fast.progress[:, b] + cast.length[EGO] / 2
        at = DT * np.argmax(front >= path.light_at)
        since_green = (at + cast.light_offset + half * path.light) % (2 * half)
        assert (front >= path.light_at).any()
        assert fast.ran_red[:, b].sum() == (since_green >= GREEN_S + YELLOW_S)
        reds += since_green >= GREEN_S + YELLOW_S
    assert 4 <= reds <= 12


# --- Baselines, and policies that nobody would ride with ---


@pytest.fixture(scope="module")
def judged(run: Course) -> dict[str, score.Scores]:
    """The scores of all that see nothing, and of the degenerate ones."""
    made = {
        name: baselines.policy_of(PLANNERS[name](SIZES))
        for name in EVERY_BASELINE
        if not name.endswith("mlp")
    }
    made |= {f"degenerate {name}": policy() for name, policy in policies.DEGENERATE.items()}
    count, many = len(run.maps), len(made)  # all side by side: steps cost little more for more scenes

    def everyone(seen: Samples) -> Floats:
        parts = [{name: array[k * count :][:count] for name, array in seen.items()} for k in range(many)]
        return np.concatenate([policy(part) for policy, part in zip(made.values(), parts, strict=True)])

    scores = score.score_drive(
        drive(run.maps * many, run.casts * many, everyone), np.tile(run.expected, many)
    )
    return {
        name: score.Scores(
            **{f.name: getattr(scores, f.name)[k * count :][:count] for f in dataclasses.fields(scores)}
        )
        for k, name in enumerate(made)
    }


def test_the_expert_is_better_than_what_sees_nothing(run: Course, judged: dict[str, score.Scores]) -> None:
    for scores in judged.values():
        assert scores.score.mean() < run.expert.score.mean() - 0.2


def test_what_nobody_would_ride_with_scores_below_following_the_route(
    judged: dict[str, score.Scores],
) -> None:
    following = judged["route_following"].score.mean()
    for name, most in policies.MOST.items():
        mean = judged[f"degenerate {name}"].score.mean()
        assert mean <= most < following, (name, mean, following)


def test_what_breaks_a_rule_is_found_to_break_it(judged: dict[str, score.Scores]) -> None:
    means = {name.removeprefix("degenerate "): scores.means() for name, scores in judged.items()}
    for name in ("stop", "creep", "nan", "reverse", "behind"):
        assert means[name]["impeding"] > 0.8 and means[name]["made_progress"] < 0.1, name
    assert means["alternate"]["rough"] == means["weave"]["rough"] == 1.0
    assert means["alternate"]["comfort"] == means["creep"]["comfort"] == 0.0  # 6 m/s2 at the handover
    assert means["wrong lane"]["direction"] < 0.6 and means["wrong lane"]["lane_keeping"] < 0.2
    assert means["off the map"]["off_road"] > 0.7 and means["off the map"]["progress"] < 0.3
    assert means["nan"]["lost"] == 1.0


def test_stopping_is_safe_and_goes_nowhere(judged: dict[str, score.Scores]) -> None:
    means = judged["stop"].means()
    assert means["at_fault"] == means["off_road"] == means["success"] == 0.0 and means["progress"] < 0.3


def test_following_the_route_stays_on_the_road_and_straight_on_does_not(
    judged: dict[str, score.Scores],
) -> None:
    following = judged["route_following"].means()
    assert following["off_road"] == following["wrong_route"] == following["rough"] == 0.0
    assert following["direction"] == following["lane_keeping"] == 1.0
    assert following["at_fault"] > 0.2
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
        [one.samples for one in presets.record(presets.PRESETS["driving:small"], [50_000, 50_001])]
    )


def test_the_recorded_drive_replayed_scores_all_but_one(recorded: Samples) -> None:
    scores = score_plans(recorded, recorded["plan"].astype(float))
    means = scores.means()
    assert (
        means["no_collision"] == means["progress"] == means["direction"] == 1.0 and means["off_road"] == 0.0
    )
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


def test_one_who_is_seen_at_a_single_key_frame_is_hit_there(recorded: Samples) -> None:
    row = int(np.argmax(recorded["plan"][:, -1, 0] > 15))
    one = {name: array[row : row + 1].copy() for name, array in recorded.items()}
    one["future_boxes_mask"][:] = False
    one["future_boxes"][0, 5, 0] = [*one["plan"][0, 5], 4.0, 2.0]
    assert only(score_plans(one, one["plan"].astype(float)), "no_collision") == 1.0
    one["future_boxes_mask"][0, 5, 0] = True
    assert only(score_plans(one, one["plan"].astype(float)), "no_collision") == 0.0


def test_a_replay_knows_traffic_and_junctions_by_the_middles_of_lanes() -> None:
    """Two lanes side by side in opposite directions, and one across, 20 m ahead."""
    x = np.linspace(-16.0, 47.0, 10)
    lines = np.zeros((1, 32, 10, 2), np.float32)
    lines[0, 0, :, 0], lines[0, 1, :, 0], lines[0, 1, :, 1] = x, x[::-1], 3.5
    lines[0, 2, :, 0], lines[0, 2, :, 1] = 20.0, np.linspace(-30, 30, 10)
    kinds = np.full((1, 32), -1, np.int8)
    kinds[0, :3] = 0
    samples = {"lines": lines, "line_kind": kinds, "size": np.full((1, 2), [4.0, 2.0], np.float32),
               "depth": np.full((1, 64, 64), 5.0, np.float16)}  # fmt: skip
    ego = np.zeros((41, 1, 5))
    ego[:, 0, 0] = np.arange(41)  # a metre each entry
    for y, moved in ((0.0, 1.0), (3.5, -1.0), (9.0, 0.0)):
        ego[:, 0, 1] = y
        found = placement(samples, ego)
        away = np.abs(ego[:, 0, 0] - 20.0) > 2.0
        np.testing.assert_allclose(found.with_traffic[1:, 0][away[1:]], moved)
        assert not found.at_junction[away].any()
        assert found.at_junction[20, 0] == (abs(moved) > 0)
        assert not found.off_road.any()


def test_a_plan_of_nan_brakes_in_a_replay(recorded: Samples) -> None:
    driven = replay(recorded, np.full((len(recorded["plan"]), 8, 3), np.nan))
    assert np.isfinite(driven.state).all() and driven.lost.all()
    assert (np.diff(np.hypot(driven.state[..., EGO, 3], driven.state[..., EGO, 4]), axis=0) <= 1e-12).all()


@pytest.mark.parametrize(("bad", "first"), [(np.nan, 0), (np.nan, 7), (np.inf, 3), (2e4, 5)])
def test_a_plan_that_cannot_be_driven_scores_nothing_in_a_replay(
    recorded: Samples, bad: float, first: int
) -> None:
    plans = extended(recorded)
    sound = score_plans(recorded, plans)
    plans[::2, first:] = bad
    found = score_plans(recorded, plans)
    assert (found.score[::2] == 0).all() and not found.success[::2].any() and (found.lost[::2] == 1).all()
    np.testing.assert_array_equal(found.score[1::2], sound.score[1::2])
    assert found.score[1::2].mean() > 0.9


def test_between_key_frames_others_go_on_evenly() -> None:
    t = np.arange(1, 9) / 2
    boxes = np.zeros((1, 8, 1, 5))
    boxes[0, :, 0, 0], boxes[0, :, 0, 2] = 3.0 + 4.0 * t, 3.0 + 0.2 * t  # turns through pi
    boxes[..., 2] = (boxes[..., 2] + np.pi) % (2 * np.pi) - np.pi
    there = np.ones((1, 8, 1), dtype=bool)
    there[0, -1] = False
    state, active = between(boxes, there)
    fine = np.arange(41) / 10
    np.testing.assert_allclose(state[:36, 0, 0, 0], 3.0 + 4.0 * fine[:36], atol=1e-12)
    np.testing.assert_allclose(np.unwrap(state[:36, 0, 0, 2]), 3.0 + 0.2 * fine[:36], atol=1e-12)
    np.testing.assert_allclose(state[:36, 0, 0, 3], 4.0)
    assert active[:36].all() and not active[36:].any()
    there[0, :6] = False
    state, active = between(boxes, there)
    assert np.flatnonzero(active).tolist() == [35]  # seen at one key frame only, at which it stands
    np.testing.assert_allclose(state[35, 0, 0, :2], boxes[0, 6, 0, :2])
    assert (state[35, 0, 0, 3:] == 0).all()
