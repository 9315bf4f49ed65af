"""The road as exact polygons, against brute force over the lanes that it is made of."""

import numpy as np
import pytest

from attnsweep.tasks.driving.world.geometry import Floats, project
from attnsweep.tasks.driving.world.ground import Ground, Strip
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import SHOULDER, RoadMap

ARC = 5e-3  # m, by which a polygon's arcs are off


def beyond(road_map: RoadMap, points: Floats) -> Floats:
    """How far (n,) points lie outside of all lanes with their shoulders, negative inside."""
    lanes = [lane for lane in road_map.lanes if not lane.on_foot]
    away = [np.abs(project(points, lane.xy)[1]) - lane.width / 2 - SHOULDER for lane in lanes]
    return np.min(away, axis=0)


def within(polygon: Floats, points: Floats) -> np.ndarray:
    """Whether points (n, 2) lie in a polygon (m, 2): by how often a ray to the right crosses its edges."""
    (x, y), (ax, ay) = points.T[..., None], polygon.T
    bx, by = np.roll(polygon, -1, axis=0).T
    spans = (ay > y) != (by > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        right = x < ax + (y - ay) / (by - ay) * (bx - ax)
    return (spans & right).sum(axis=1) % 2 == 1


def drawn(kind: str, *, full: bool) -> RoadMap:
    return draw_map(7, kinds=(kind,), full=full)


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["crossing", "tjunction", "merge", "curve"])
def test_a_point_is_on_the_road_exactly_where_it_is_in_a_lane_or_an_area(kind: str, full: bool) -> None:
    road_map = drawn(kind, full=full)
    low, high = road_map.ground.road.bounds[:2], road_map.ground.road.bounds[2:]
    points = np.random.default_rng(0).uniform(low, high, (4000, 2))
    off = beyond(road_map, points)
    expected = (off < 0) | np.any([within(area, points) for area in road_map.areas] or [off < 0], axis=0)
    sure = np.abs(off) > ARC
    np.testing.assert_array_equal(road_map.ground.holds(points)[sure], expected[sure])
    assert 0.02 < expected.mean() < 0.9


@pytest.mark.slow
def test_the_island_of_a_roundabout_is_no_road_and_gaps_between_lanes_are() -> None:
    road_map = drawn("roundabout", full=False)
    assert not road_map.ground.holds(np.zeros((1, 2)))[0]
    points = np.random.default_rng(0).uniform(-40, 40, (20000, 2))
    gaps = road_map.ground.holds(points) & (beyond(road_map, points) > ARC)
    assert 0 < gaps.mean() * 80**2 < 4 * 25.0  # m2
    reach = np.hypot(*points[gaps].T)
    assert (reach > 15.0).all() and (reach < 35.0).all()


@pytest.mark.parametrize("nudge", [0.01, -0.01])
def test_a_centimetre_tells_on_the_road_from_off_it(nudge: float) -> None:
    ground = Ground([Strip(np.array([[0.0, 0.0], [50.0, 0.0]]), 4.0)], shoulder=0.4)
    ego = np.array([[25.0, 1.4 + nudge, 0.0, 5.0, 0.0]])  # its left corners at 2.4 m
    assert ground.placement(ego, np.array([4.0, 2.0])).off_road[0] == (nudge > 0)


# --- Where an ego is ---

EAST, WEST = np.array([[0.0, 0.0], [40.0, 0.0]]), np.array([[40.0, 4.0], [0.0, 4.0]])
ONWARD = np.array([[40.0, 0.0], [80.0, 0.0]])
ROAD = Ground([Strip(EAST, 4.0, (1,)), Strip(ONWARD, 4.0, inside=True), Strip(WEST, 4.0)])
SIZE = np.array([4.0, 2.0])


def at(x: float, y: float, yaw: float = 0.0) -> Floats:
    return np.array([[x, y, yaw, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("pose", "between"),
    [
        (at(20, 0), False),
        (at(20, 2), True),
        (at(20, 4, np.pi), False),
        (at(40, 0), False),  # in one lane and the next
        (at(40, 2), True),
        (at(20, -1.5), False),  # beside the road, in no other lane
    ],
)
def test_who_is_in_several_lanes_is_between_them_unless_one_leads_to_the_other(
    pose: Floats, between: bool
) -> None:
    assert ROAD.placement(pose, SIZE).between_lanes[0] == between


def test_a_junction_begins_where_the_front_enters_it() -> None:
    assert not ROAD.placement(at(37.9, 0), SIZE).at_junction[0]
    assert ROAD.placement(at(38.1, 0), SIZE).at_junction[0]


@pytest.mark.parametrize(
    ("start", "velocity", "along"),
    [
        ((10.0, 0.0), (5.0, 0.0), 5.0),
        ((30.0, 4.0), (-5.0, 0.0), 5.0),
        ((10.0, 4.0), (5.0, 0.0), -5.0),  # in the lane of those who come towards it
        ((20.0, 0.0), (-2.0, 0.0), -2.0),  # backwards in its own
        ((10.0, 0.5), (3.0, 0.1), 3.0),
        ((10.0, 9.0), (5.0, 0.0), 0.0),  # beside the road
    ],
)
def test_metres_with_traffic_are_those_along_the_lane(
    start: tuple[float, float], velocity: tuple[float, float], along: float
) -> None:
    t = np.arange(11)[:, None] * DT
    xy = np.array(start) + t * np.array(velocity)
    moved = ROAD.with_traffic(xy)
    assert moved[0] == 0.0
    np.testing.assert_allclose(moved[1:], along * DT, atol=1e-9)


def test_where_lanes_overlap_the_direction_that_fits_best_counts() -> None:
    crossing = np.array([[20.0, -20.0], [20.0, 20.0]])
    ground = Ground([Strip(EAST, 4.0), Strip(WEST - [0.0, 4.0], 4.0), Strip(crossing, 4.0)])
    for velocity in ([5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]):
        xy = np.array([20.0, 0.0]) + np.arange(3)[:, None] * DT * np.array(velocity)
        np.testing.assert_allclose(ground.with_traffic(xy)[1:], 5.0 * DT)
