"""Where vehicles may drive, and which way: the road and its lanes as exact polygons.

`roads.DrivableArea` is the same road on a raster, for grids and paint; rules are judged on this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from attnsweep.tasks.driving.world.geometry import Flags, Floats, corners

DIRECTION = 0.5  # m, before and behind a place on a lane, between which its direction is taken


@dataclass(frozen=True)
class Strip:
    """A lane: its middle line `xy` (n, 2) in the direction of traffic, its width (m), the lanes that it leads
    to by their places in a list, and whether it lies inside a junction.
    """

    xy: Floats
    width: float
    successors: tuple[int, ...] = ()
    inside: bool = False


@dataclass(frozen=True)
class Placement:
    """Where an ego is at each of `t` entries, every array (t,).

    `off_road`: a corner of its box lies outside the road; `between_lanes`: its corners lie in several lanes,
    and neither in one of them nor in one and the next lie all four; `at_junction`: a corner lies inside a
    junction; `with_traffic`: by how many metres it moved in the direction of traffic since the entry before,
    negative against it. Where lanes overlap, of several directions the one that fits best counts; off all
    lanes there is none, and 0 m.
    """

    off_road: Flags
    between_lanes: Flags
    at_junction: Flags
    with_traffic: Floats


class Ground:
    """The road: all that lies within half a width and `shoulder` metres of the middle of a lane, the polygons
    `areas` (n, 2), and holes that measure less than `smallest_hole` m2.
    """

    def __init__(
        self,
        strips: Sequence[Strip],
        areas: Sequence[Floats] = (),
        *,
        shoulder: float = 0.0,
        smallest_hole: float = 0.0,
    ) -> None:
        self.lines = np.array([shapely.LineString(strip.xy) for strip in strips])
        half = np.array([strip.width / 2 for strip in strips])
        self.lanes = shapely.buffer(self.lines, half, cap_style="flat")
        self.pairs = np.array(
            [
                shapely.union(self.lanes[i], self.lanes[k])
                for i, strip in enumerate(strips)
                for k in strip.successors or (i,)
            ]
        )
        drivable = [*shapely.buffer(self.lines, half + shoulder), *map(shapely.Polygon, areas)]
        self.road = without_holes(shapely.union_all(shapely.make_valid(drivable)), smallest_hole)
        inside = self.lanes[[strip.inside for strip in strips]]
        self.junction = without_holes(shapely.union_all(inside), np.inf)
        shapely.prepare([self.road, self.junction])

    def holds(self, points: Floats) -> Flags:
        """Whether points (..., 2) lie on the road."""
        return np.asarray(shapely.contains_xy(self.road, points[..., 0], points[..., 1]))

    def placement(self, ego: Floats, size: Floats) -> Placement:
        """Where an ego with states (t, 5), as in `World.motion`, and that length and width is."""
        boxes = np.concatenate([ego[:, :3], np.broadcast_to(size, (len(ego), 2))], axis=1)
        edges = corners(boxes)  # (t, 4, 2)
        at_junction = shapely.contains_xy(self.junction, edges[..., 0], edges[..., 1])
        return Placement(
            off_road=np.any(~self.holds(edges), axis=1),
            between_lanes=self.between_lanes(edges),
            at_junction=np.any(at_junction, axis=1),
            with_traffic=self.with_traffic(ego[:, :2]),
        )

    def between_lanes(self, edges: Floats) -> Flags:
        """Whether corners (t, 4, 2) lie in several lanes, not all in one of them, or in one and the next."""
        tree = shapely.STRtree(shapely.points(edges.reshape(-1, 2)))
        touched, held = (np.zeros((len(edges), len(part)), int) for part in (self.lanes, self.pairs))
        for counts, part in ((touched, self.lanes), (held, self.pairs)):
            lane, point = tree.query(part, predicate="contains")
            np.add.at(counts, (point // 4, lane), 1)
        return np.asarray(((touched > 0).sum(axis=1) > 1) & ~(held == 4).any(axis=1))

    def with_traffic(self, xy: Floats) -> Floats:
        """How many metres (t,) someone at positions (t, 2) moved with traffic since the entry before."""
        points = shapely.points(xy)
        lane, entry = shapely.STRtree(points).query(self.lanes, predicate="contains")
        step, line = np.diff(xy, axis=0, prepend=xy[:1])[entry], self.lines[lane]
        at = shapely.line_locate_point(line, points[entry])
        before, behind = (
            shapely.get_coordinates(shapely.line_interpolate_point(line, np.maximum(at + reach, 0.0)))
            for reach in (-DIRECTION, DIRECTION)
        )
        way = behind - before
        along = (step * way).sum(axis=1) / np.hypot(*way.T)
        best = np.full(len(xy), -np.inf)
        np.maximum.at(best, entry, along)
        return np.where(np.isfinite(best), best, 0.0)


def without_holes(area: shapely.Geometry, smallest: float) -> shapely.Geometry:
    """The area with its holes of less than `smallest` m2 filled."""
    parts = shapely.get_parts(area)
    holes = [shapely.Polygon(ring) for part in parts for ring in part.interiors]
    return shapely.union_all([*parts, *(hole for hole in holes if hole.area < smallest)])
