"""highway-env's stock environments as an external test: their physics, their frame, their determinism."""

import importlib.util

import numpy as np
import pytest

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.judging import stock
from attnsweep.tasks.driving.judging.closed_loop import Drive
from attnsweep.tasks.driving.judging.score import score_drive
from attnsweep.tasks.driving.records.samples import LEFT, STRAIGHT, Samples
from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cast import EGO, PARKED
from attnsweep.tasks.driving.world.geometry import Floats, stations, to_frame
from attnsweep.tasks.driving.world.sensor import Grid

pytestmark = pytest.mark.slow

highway_private = pytest.importorskip("attnsweep.tasks.driving.judging.highway_private")


def along(seen: Samples, speed: Floats) -> Floats:
    """Plans along the route at a speed (b,) each."""
    plans = np.zeros((len(speed), 8, 3))
    for b, points in enumerate(np.asarray(seen["route"], float)):
        line = np.concatenate([np.zeros((1, 2)), points])
        at = speed[b] * 0.5 * np.arange(1, 9)
        plans[b, :, :2] = np.stack([np.interp(at, stations(line), line[:, k]) for k in range(2)], axis=1)
    return plans


def steady(seen: Samples) -> Floats:
    return along(seen, np.asarray(seen["ego_state"][:, 0], float))


def test_a_step_of_the_ego_is_the_bicycles_in_a_right_handed_frame() -> None:
    run = highway_private.Episode("intersection-v0", 0)
    for command in ((0.0, 0.0), (1.0, 0.3), (-2.0, -0.2), (0.5, 0.05)):
        before, speed = run.motion()[0][EGO], run.ego.speed
        run.step(np.array(command))
        state, steering = np.array([*before[:3], speed]), np.array(command[1])
        expected = kinematics.bicycle(state, np.array(command[0]), steering, np.array(5.0), dt=0.1)
        now = run.motion()[0][EGO]
        np.testing.assert_allclose([*now[:3], run.ego.speed], expected, atol=1e-9)
        course = now[2] + kinematics.slip_of(steering)
        np.testing.assert_allclose(
            now[3:], run.ego.speed * np.array([np.cos(course), np.sin(course)]), atol=1e-9
        )


@pytest.fixture(scope="module")
def driven() -> tuple[Drive, list[Samples]]:
    """Each environment once, along its route at the speed of the takeover, and what was seen."""
    seen: list[Samples] = []

    def policy(now: Samples) -> Floats:
        seen.append(now)
        return steady(now)

    return stock.drive_stock(policy, episodes=1, seconds=9.0), seen


def test_who_follows_the_route_keeps_to_it_and_to_the_road(driven: tuple[Drive, list[Samples]]) -> None:
    drive, _ = driven
    assert (drive.lateral_offset.max(axis=0) < 1.0).all()  # m
    assert not drive.placement.off_road.any() and (drive.lost == 0).all()
    assert (drive.placement.with_traffic > -0.1).all()  # m against traffic
    assert drive.placement.at_junction.any(axis=0).tolist() == [True, False, False, False]
    driven_m = np.hypot(*np.diff(drive.state[:, :, EGO, :2], axis=0).transpose(2, 0, 1)).sum(axis=0)
    np.testing.assert_allclose(drive.progress[-1], driven_m, rtol=0.03, atol=1.0)
    assert (drive.progress[-1] > [50, 50, 150, 150]).all()


def test_what_is_seen_is_like_what_samples_hold(driven: tuple[Drive, list[Samples]]) -> None:
    drive, seen = driven
    assert len(seen) == 15  # from 1.5 s on each half second, to 8.5 s
    first = seen[0]
    assert first["bev"].shape == (4, 6, 64, 64) and first["bev"].dtype == np.uint8
    assert first["bev"][:, :4].any(axis=(2, 3)).all() and first["bev"][:, 4].any(axis=(1, 2)).all()
    assert first["command"].tolist()[0] == LEFT and first["command"].tolist()[2:] == [STRAIGHT] * 2
    for b in range(4):  # the last sweep hits those who are there, on their side of the ego
        there = drive.active[15, b].copy()
        there[EGO] = False
        others = to_frame(drive.state[15, b, there, :2], drive.state[15, b, EGO, :3])
        hits = Grid().centres()[first["bev"][b, 3] > 0]
        distance = np.hypot(*(hits[:, None] - others).transpose(2, 0, 1)).min(axis=1)
        assert (
            distance < 3.5
        ).mean() > 0.75  # m: half a car's length and a cell; the rest comes from nowhere


def test_the_same_seed_gives_the_same_drive_whatever_was_built_before() -> None:
    once = stock.drive_stock(steady, episodes=1, seconds=4.0, names=("merge-v0", "roundabout-v0"))
    stock.drive_stock(None, episodes=1, seconds=0.5, names=("intersection-v0",))
    again = stock.drive_stock(steady, episodes=1, seconds=4.0, names=("merge-v0", "roundabout-v0"))
    for name in ("state", "active", "progress"):
        assert getattr(once, name).tobytes() == getattr(again, name).tobytes()
    assert highway_private.make("merge-v0").config["other_vehicles_type"].endswith("MergeDriver")


def test_traffic_appears_and_leaves_at_the_intersection_and_obstacles_stand() -> None:
    def slow(seen: Samples) -> Floats:
        return along(seen, np.full(len(seen["route"]), 1.0))

    drive = stock.drive_stock(slow, episodes=1, seconds=16.0, names=("intersection-v0", "merge-v0"))
    there = drive.active[:, 0]
    assert (~there[0] & there[-1]).any() and (there[0] & ~there[-1]).any()
    assert drive.active[:, :, EGO].all()
    standing = drive.kind[1] == PARKED
    assert standing.sum() == 1 and (drive.state[:, 1, standing, 3:] == 0).all()


def test_the_ego_goes_through_whom_it_hits_so_that_scores_see_it() -> None:
    def fast(seen: Samples) -> Floats:
        return along(seen, np.full(len(seen["route"]), 40.0))

    drive = stock.drive_stock(fast, episodes=1, seconds=8.0, names=("highway-v0",))
    assert score_drive(drive).at_fault.all()


def test_plans_that_cannot_be_driven_brake_and_are_counted() -> None:
    def broken(seen: Samples) -> Floats:
        return np.full((len(seen["route"]), 8, 3), np.nan)

    drive = stock.drive_stock(broken, episodes=1, seconds=5.0, names=("intersection-v0",))
    assert drive.lost.tolist() == [1.0] and np.isfinite(drive.state).all()
    speed = np.hypot(drive.state[:, 0, EGO, 3], drive.state[:, 0, EGO, 4])
    np.testing.assert_allclose(np.diff(speed[15:25]), -0.4, atol=1e-6)


def test_where_highway_env_has_renamed_its_insides_traffic_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_clear_vehicles", "_spawn_vehicle"):
        run = highway_private.Episode("intersection-v0", 0)
        assert hasattr(run.env, name)  # relied upon; else the way round is all there is
        monkeypatch.setattr(run.env, name, None)
        there = list(run.road.vehicles)
        for _ in range(20):
            run.step(None)
        assert run.road.vehicles == there and len(run.agents) == len(there)


def test_without_highway_env_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="highway-env is not installed"):
        stock.drive_stock(steady)
