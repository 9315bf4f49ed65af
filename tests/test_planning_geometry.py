"""Boxes, frames and polylines against brute force, and the curves that roads are made of."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.kinematics import point_at, progress

rng = np.random.default_rng(0)
coordinate = st.floats(-6, 6)
box = st.tuples(coordinate, coordinate, st.floats(-7, 7), st.floats(0.5, 8), st.floats(0.3, 3)).map(np.array)


def clip(polygon: list[np.ndarray], inside: np.ndarray) -> list[np.ndarray]:
    """A polygon cut by each side of a counter-clockwise convex one (Sutherland and Hodgman, 1974)."""
    for a, b in zip(inside, np.roll(inside, -1, axis=0), strict=True):
        side = [(b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) for p in polygon]
        kept = []
        for (p, s), (q, t) in zip(
            zip(polygon, side, strict=True),
            zip(polygon[1:] + polygon[:1], side[1:] + side[:1], strict=True),
            strict=True,
        ):
            kept += [p] if s >= 0 else []
            kept += [p + (q - p) * s / (s - t)] if s * t < 0 else []
        polygon = kept
    return polygon


def shared_area(one: np.ndarray, other: np.ndarray) -> float:
    polygon = clip(list(geometry.corners(one)), geometry.corners(other))
    x, y = np.array(polygon).T if polygon else np.zeros((2, 1))
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@pytest.mark.slow
@given(box, box)
def test_boxes_overlap_exactly_where_they_share_area(one: np.ndarray, other: np.ndarray) -> None:
    gap = float(geometry.separation(one, other))
    if abs(gap) > 1e-6:  # nearer than that, rounding decides
        assert (shared_area(one, other) > 0) == (gap < 0)
        assert geometry.overlap(one, other) == geometry.overlap(other, one) == (gap < 0)


@given(box, st.floats(-3, 3), coordinate, coordinate)
def test_separation_does_not_change_when_the_scene_is_turned(
    one: np.ndarray, turn: float, x: float, y: float
) -> None:
    other = np.array([1.0, 2.0, 0.3, 4.5, 1.8])
    pose = np.array([x, y, turn])
    moved = [np.array([*geometry.from_frame(b[:2], pose), b[2] + turn, *b[3:]]) for b in (one, other)]
    assert geometry.separation(*moved) == pytest.approx(geometry.separation(one, other), abs=1e-9)


def test_boxes_side_by_side_do_not_overlap_and_their_gap_is_known() -> None:
    one, other = np.array([0.0, 0, 0, 4, 2]), np.array([0.0, 2.5, np.pi, 4, 2])
    assert geometry.separation(one, other) == pytest.approx(0.5)
    assert not geometry.overlap(one, other)
    assert geometry.separation(one, one + np.array([3.0, 0, 0, 0, 0])) == pytest.approx(-1.0)


def test_overlap_broadcasts_and_equals_one_by_one() -> None:
    boxes = rng.uniform([-5, -5, -4, 1, 0.5], [5, 5, 4, 6, 3], (12, 5))
    together = geometry.overlap(boxes[:, None], boxes)
    for i, j in itertools.product(range(12), repeat=2):
        assert together[i, j] == geometry.overlap(boxes[i], boxes[j])


@given(coordinate, coordinate, st.floats(-10, 10), coordinate, coordinate)
def test_frames_undo_each_other_and_keep_distances(
    x: float, y: float, yaw: float, px: float, py: float
) -> None:
    pose, point = np.array([x, y, yaw]), np.array([px, py])
    local = geometry.to_frame(point, pose)
    np.testing.assert_allclose(geometry.from_frame(local, pose), point, atol=1e-9)
    assert np.hypot(*local) == pytest.approx(np.hypot(*(point - pose[:2])), abs=1e-9)


def test_ahead_is_x_and_left_is_y() -> None:
    pose = np.array([10.0, 5.0, np.pi / 2])  # looks north
    np.testing.assert_allclose(geometry.to_frame(np.array([10.0, 8.0]), pose), [3, 0], atol=1e-12)
    np.testing.assert_allclose(geometry.to_frame(np.array([9.0, 5.0]), pose), [0, 1], atol=1e-12)


@pytest.mark.slow
def test_projection_finds_the_nearest_of_many_points_along_the_line() -> None:
    line = np.cumsum(rng.uniform([0.2, -1], [1.5, 1], (20, 2)), axis=0)
    fine = geometry.stations(line)
    dense = np.linspace(0, fine[-1], 200_001)
    along = np.stack([np.interp(dense, fine, line[:, k]) for k in range(2)], axis=1)
    points = rng.uniform(line.min(axis=0) - 2, line.max(axis=0) + 2, (60, 2))
    s, side = geometry.project(points, line)
    batched = progress(points, np.broadcast_to(line, (60, *line.shape)), np.broadcast_to(fine, (60, 20)))
    np.testing.assert_allclose(batched, s, atol=1e-9)
    for point, at, d in zip(points, s, side, strict=True):
        distances = np.hypot(*(along - point).T)
        assert abs(d) == pytest.approx(distances.min(), abs=1e-3)
        assert np.hypot(*(along[np.searchsorted(dense, at)] - point)) == pytest.approx(abs(d), abs=1e-2)


def test_left_of_a_line_is_positive() -> None:
    line = np.array([[0.0, 0], [10, 0]])
    s, side = geometry.project(np.array([[3.0, 2], [4, -1]]), line)
    np.testing.assert_allclose(s, [3, 4])
    np.testing.assert_allclose(side, [2, -1])
    np.testing.assert_allclose(geometry.offset(line, 2.0), [[0, 2], [10, 2]], atol=1e-12)


def test_points_of_lines_lie_at_their_arc_length_and_go_straight_on_beyond_the_end() -> None:
    line = np.array([[[0.0, 0], [3, 0], [3, 4], [3, 4]]])  # the last step stands still
    s = np.array([[0.0, 3, 7, 7]])
    for at, place in ((1.5, (1.5, 0)), (3, (3, 0)), (5, (3, 2)), (7, (3, 4)), (9, (3, 6))):
        np.testing.assert_allclose(point_at(line, s, np.array([float(at)]))[0], place, atol=1e-6)


@pytest.mark.parametrize("turn", [0.0, 0.4, np.pi / 2, 2.5])
def test_a_curve_between_the_ends_of_an_arc_is_nearly_that_arc(turn: float) -> None:
    radius = 10.0
    if turn:
        end = radius * np.array([np.sin(turn), 1 - np.cos(turn)])
        curve = geometry.bezier(np.zeros(3), np.array([*end, turn]))
        distances = np.hypot(curve[:, 0], curve[:, 1] - radius)
        np.testing.assert_allclose(distances, radius, rtol=0.02 if turn > 2 else 0.001)
    else:
        curve = geometry.bezier(np.zeros(3), np.array([8.0, 0, 0]))
        np.testing.assert_allclose(curve[:, 1], 0, atol=1e-12)


def test_resampling_keeps_the_ends_and_spaces_evenly() -> None:
    line = geometry.resample(np.array([[0.0, 0], [4, 0], [4, 3.2]]), 0.5)
    np.testing.assert_allclose(line[[0, -1]], [[0, 0], [4, 3.2]])
    steps = np.diff(geometry.stations(line))
    assert steps.max() == pytest.approx(7.2 / 14, abs=1e-9)  # at the corner the chord is shorter
    assert np.median(steps) == pytest.approx(7.2 / 14, abs=1e-9)
