"""The world: its physics against highway-env, its maps, and that its traffic drives safely and repeatably."""

import itertools
import math

import numpy as np
import pytest

from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cast import CAR, EGO, PEDESTRIAN, Crowd, draw_cast
from attnsweep.tasks.driving.world.drivers import leaders, time_to
from attnsweep.tasks.driving.world.geometry import overlap, project
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import KINDS, draw_map
from attnsweep.tasks.driving.world.roads import GREEN_S, TYPICAL, standing
from attnsweep.tasks.driving.world.traffic import Log, World, crashed, roll_out

pytestmark = pytest.mark.slow

SMALL, FULL = Crowd(drivers=12), Crowd(drivers=12, pedestrians=4, parked=6)


def world_of(seeds: list[int], *, full: bool = False, kinds: tuple[str, ...] = KINDS) -> World:
    maps = [draw_map(seed, full=full, kinds=kinds) for seed in seeds]
    return World(maps, [draw_cast(one, FULL if full else SMALL, dt=DT) for one in maps])


@pytest.fixture(scope="module")
def rolled() -> tuple[World, Log]:
    world = world_of(list(range(50_000, 50_030)))
    return world, roll_out(world, 200)


# --- Against highway-env ---


@pytest.mark.parametrize("seed", range(5))
def test_the_bicycle_moves_as_highway_env_moves_it(seed: int) -> None:
    oracle = pytest.importorskip("highway_env.vehicle.kinematics").Vehicle
    rng = np.random.default_rng(seed)
    start = rng.uniform([-50, -50, -3, 1], [50, 50, 3, 25], (20, 4))
    theirs = [oracle(None, one[:2].copy(), heading=one[2], speed=one[3]) for one in start]
    ours, wheelbase = start, np.full(20, oracle.LENGTH)
    for _ in range(60):
        acceleration, steering = rng.uniform(-0.3, 0.3, 20), rng.uniform(-0.6, 0.6, 20)
        ours = kinematics.bicycle(ours, acceleration, steering, wheelbase, dt=1 / 15)
        for vehicle, a, delta in zip(theirs, acceleration, steering, strict=True):
            vehicle.act({"acceleration": a, "steering": delta})
            vehicle.step(1 / 15)
    expected = [[*vehicle.position, vehicle.heading, vehicle.speed] for vehicle in theirs]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


def test_drivers_follow_as_highway_env_lets_them_follow() -> None:
    pytest.importorskip("highway_env")
    from highway_env.road.lane import StraightLane
    from highway_env.road.road import Road, RoadNetwork
    from highway_env.vehicle.behavior import IDMVehicle

    network = RoadNetwork()
    network.add_lane("a", "b", StraightLane([0, 0], [1000, 0], speed_limit=30))
    road = Road(network=network, np_random=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    speed, leading, wanted, gap = (
        rng.uniform(low, high, 200) for low, high in ((0, 30), (0, 30), (3, 29), (5, 80))
    )
    expected = []
    for v, u, w, d in zip(speed, leading, wanted, gap, strict=True):
        own = IDMVehicle(road, [100.0, 0.0], 0.0, v, target_speed=w)
        ahead = IDMVehicle(road, [100.0 + d, 0.0], 0.0, u)
        expected.append(own.acceleration(own, ahead))
    most, comfortable = np.full(200, IDMVehicle.COMFORT_ACC_MAX), np.full(200, -IDMVehicle.COMFORT_ACC_MIN)
    free = kinematics.free_road(speed, wanted, most=most, exponent=IDMVehicle.DELTA)
    taken = kinematics.braking(
        speed, speed - leading, gap, most=most, comfortable=comfortable,
        headway=np.full(200, IDMVehicle.TIME_WANTED), standing=IDMVehicle.DISTANCE_WANTED,
    )  # fmt: skip
    np.testing.assert_allclose(free - taken, expected, rtol=0, atol=1e-9)


# --- Physics by closed forms ---


def test_a_bicycle_that_steers_steadily_drives_a_circle() -> None:
    state, wheelbase, dt = np.array([[0.0, 0, 0, 5]]), np.array([2.8]), 1e-3
    slip = float(kinematics.slip_of(np.array(0.3)))
    radius = 1.4 / math.sin(slip)
    centre = radius * np.array([-math.sin(slip), math.cos(slip)])
    for _ in range(3000):
        state = kinematics.bicycle(state, np.zeros(1), np.full(1, 0.3), wheelbase, dt=dt)
        assert np.hypot(*(state[0, :2] - centre)) == pytest.approx(radius, rel=2e-3)
    assert state[0, 2] == pytest.approx(5 * 3 / radius)


def test_the_time_for_a_distance_is_that_of_uniform_acceleration() -> None:
    one = np.ones(1)
    assert time_to(8 * one, 0 * one, one, 100 * one)[0] == pytest.approx(4.0)  # s = a t^2 / 2
    assert time_to(12 * one, 0 * one, one, 2 * one)[0] == pytest.approx(2 + 10 / 2)  # 2 m to reach 2 m/s
    assert time_to(20 * one, 10 * one, one, 5 * one)[0] == pytest.approx(2.0)  # faster than allowed
    assert time_to(-1 * one, 10 * one, one, 5 * one)[0] == 0


def test_a_plan_is_tracked() -> None:
    angle = np.linspace(0, 1.2, 9)
    arc = 20 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1)
    plan = np.stack([arc, np.outer(np.linspace(0, 1, 9), [30.0, 0.0]), np.zeros((9, 2))])
    speed = np.hypot(*(plan[:, 1] - plan[:, 0]).T) / 0.5
    state, wheelbase = np.concatenate([np.zeros((3, 3)), speed[:, None]], axis=1), np.full(3, 2.8)
    for step in range(40):
        control = kinematics.pursue(state, plan, elapsed=step * DT, wheelbase=wheelbase)
        state = kinematics.bicycle(state, control[:, 0], control[:, 1], wheelbase, dt=DT)
    np.testing.assert_allclose(state[:, :2], plan[:, -1], atol=0.15)
    assert np.abs(state[2]).max() == 0  # a plan to stand is standing


# --- Maps ---


@pytest.mark.parametrize("kind", KINDS)
def test_paths_begin_and_end_where_their_lanes_do_and_stay_drivable(kind: str) -> None:
    for seed in range(70, 74):
        road_map = draw_map(seed, kinds=(kind,), full=True)
        assert road_map.kind == kind and road_map.paths
        for route, path in zip(road_map.routes, road_map.paths, strict=True):
            first, last = road_map.lanes[route[0]], road_map.lanes[route[-1]]
            np.testing.assert_allclose(path.xy[[0, -1]], [first.xy[0], last.xy[-1]], atol=1e-6)
            assert np.abs(path.curvature).max() < 0.25  # a car's circle has 4 m
            speeds = path.speed**2 * np.abs(path.curvature)
            assert speeds.max() <= 2.0 + 1e-9 and path.speed.min() > 1.5
            if not path.on_foot:
                assert road_map.drivable.at(path.xy[16:-16]).min() > 1.2  # m to the border at least
            for one, other in itertools.pairwise(route):
                gap = road_map.lanes[one].xy[-1] - road_map.lanes[other].xy[0]
                assert np.hypot(*gap) < 0.05


def test_where_paths_are_not_in_a_zone_vehicles_on_them_do_not_touch() -> None:
    road_map = draw_map(3, kinds=("crossing",))
    paths = road_map.paths
    for j, i in itertools.combinations(range(len(paths)), 2):
        boxes = standing(paths[i]), standing(paths[j])
        touching = overlap(boxes[0][:, None], boxes[1])
        for zone in road_map.zones:
            if (zone.one, zone.other) == (j, i):
                half = TYPICAL[0] / 2
                one = slice(int(zone.one_from - half), int(zone.one_to + half) + 1)
                other = slice(int(zone.other_from - half), int(zone.other_to + half) + 1)
                touching[other, one] = False
        assert not touching.any() or touching[0, 0]  # but where they share their start


def test_the_drivable_depth_is_the_distance_to_the_border() -> None:
    road_map = draw_map(5, kinds=("curve",))
    border = road_map.drivable.contours()
    points = np.concatenate([lane.xy[20:-20] for lane in road_map.lanes])[::7]
    nearest = np.min([np.abs(project(points, line)[1]) for line in border], axis=0)
    np.testing.assert_allclose(road_map.drivable.at(points), nearest, atol=0.35)


def test_a_map_is_the_same_each_time_and_another_for_another_seed() -> None:
    one, again, other = draw_map(8, full=True), draw_map(8, full=True), draw_map(9, full=True)
    for lane, copy in zip(one.lanes, again.lanes, strict=True):
        assert lane.xy.tobytes() == copy.xy.tobytes()
    assert one.lanes[0].xy.tobytes() != other.lanes[0].xy.tobytes()


# --- Traffic ---


def test_nobody_collides(rolled: tuple[World, Log]) -> None:
    world, log = rolled
    assert not crashed(log, world).any()


@pytest.mark.slow
def test_nobody_collides_among_people_on_foot_and_lights() -> None:
    world = world_of(list(range(50_000, 50_050)), full=True)
    log = roll_out(world, 200)
    assert not crashed(log, world).any()


def test_the_traffic_moves(rolled: tuple[World, Log]) -> None:
    world, log = rolled
    way = np.hypot(*np.moveaxis(np.diff(log.state[..., :2], axis=0), -1, 0)).sum(axis=0)  # (b, a)
    drivers = log.active[0] & (world.kind == CAR)
    assert (way[drivers] > 20).mean() > 0.9
    assert 3 < np.hypot(log.state[..., 3], log.state[..., 4])[:, drivers].mean() < 12  # m/s


def test_vehicles_keep_to_their_lanes() -> None:
    world = world_of(list(range(60, 80)))
    worst = 0.0
    for _ in range(150):
        world.step()
        off = np.diagonal(world.situation.side, axis1=1, axis2=2) - world.manners.side
        worst = max(worst, np.abs(off[world.active & (world.kind == CAR)]).max())
    assert worst < 0.3  # m


def test_a_batch_rolls_out_as_its_scenes_do_one_by_one() -> None:
    seeds = [1000, 1004, 1010, 1001]
    together = roll_out(world_of(seeds, full=True), 120)
    for b, seed in enumerate(seeds):
        alone = roll_out(world_of([seed], full=True), 120)
        assert alone.state[:, 0].tobytes() == together.state[:, b].tobytes()
        assert alone.active[:, 0].tobytes() == together.active[:, b].tobytes()


def test_the_order_of_scenes_changes_nothing() -> None:
    one, other = roll_out(world_of([7, 8, 9]), 60), roll_out(world_of([9, 7, 8]), 60)
    assert one.state[:, [2, 0, 1]].tobytes() == other.state.tobytes()


def test_others_react_to_an_ego_that_is_steered_from_outside() -> None:
    seeds = [seed for seed in range(2000, 2030) if has_follower(seed)][:4]
    assert len(seeds) == 4
    world = world_of(seeds)
    expert = roll_out(world_of(seeds), 100)
    for _ in range(100):
        world.step(np.stack([np.full(4, -3.0), np.zeros(4)], axis=1))  # the ego brakes and stays
    assert np.abs(world.state[:, EGO, 3]).max() < 1e-9
    assert not np.array_equal(world.motion[:, 1:], expert.state[-1][:, 1:])
    ego, others = world.boxes[:, EGO : EGO + 1], world.boxes[:, 1:]
    assert not (overlap(ego, others) & world.active[:, 1:]).any()


def has_follower(seed: int) -> bool:
    """Whether someone drives behind the ego on its lane, less than 40 m away, at the start."""
    world = world_of([seed])
    s, side = world.situation.s[0, EGO], world.situation.side[0, EGO]
    behind = s[EGO] - s
    return bool(((behind > 5) & (behind < 40) & (np.abs(side) < 1) & world.active[0]).any())


def test_steering_the_ego_as_the_expert_does_changes_nothing() -> None:
    expert, steered = world_of([1003, 1006]), world_of([1003, 1006])
    for _ in range(80):
        expert.step()
        control = np.stack([expert.acceleration[:, EGO], kinematics.steering_of(expert.slip[:, EGO])], axis=1)
        steered.step(control)
        np.testing.assert_allclose(steered.state, expert.state, atol=1e-6)


def test_red_lights_are_obeyed() -> None:
    lit = [seed for seed in range(3000, 3040) if max((-1, *draw_map(seed, full=True).stop_lights)) >= 0]
    seeds = lit[:6]
    world = world_of(seeds, full=True)
    crossed = 0
    for _ in range(250):
        red = np.take_along_axis(world.light_phase(), np.maximum(world.tables.light, 0), axis=1) > GREEN_S + 2
        before = world.own_s + world.length / 2 < world.tables.light_at
        world.step()
        over = world.own_s + world.length / 2 >= world.tables.light_at
        lit = (world.tables.light >= 0) & world.active & (world.kind == CAR)
        assert not (before & over & red & lit).any()
        crossed += int((before & over & lit).sum())
    assert crossed > 10


def test_a_crash_is_of_any_two_but_people_on_foot() -> None:
    world = world_of([3, 4, 5])
    log = roll_out(world, 2)
    world.kind[1, 2:4] = PEDESTRIAN
    log.active[:, :, :4] = True
    for b in range(2):
        log.state[1, b, 2] = log.state[1, b, 3]  # in one place
    assert crashed(log, world).tolist() == [True, False, False]


def test_who_comes_the_other_way_is_braked_for_as_if_it_stood() -> None:
    """Such a car crosses the path or leaves it, so that the gap does not close by its speed."""
    world = world_of([3])
    seen, ego = world.situation, (0, EGO)
    seen.s[0, EGO, 1:] = world.own_s[ego] + np.array([25.0, *[-100.0] * (seen.s.shape[2] - 2)])
    seen.side[0, EGO, 1], world.active[0, :2], world.state[ego][3] = world.manners.side[ego], True, 6.0
    found = {}
    for turn, speed in itertools.product((0.0, math.pi), (0.0, 6.0)):
        seen.turn[0, EGO, 1], world.state[0, 1, 3] = turn, speed
        found[turn, speed] = leaders(world.view)[0][ego]
    assert found[0.0, 6.0] < found[0.0, 0.0] == found[math.pi, 0.0] == found[math.pi, 6.0]
