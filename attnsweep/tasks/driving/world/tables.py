"""The paths and zones of many scenes, laid end to end, so that all are looked up at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.world.cast import PARKED, Cast
from attnsweep.tasks.driving.world.geometry import Floats, Indices, wrap
from attnsweep.tasks.driving.world.roads import SPACING, RoadMap

COARSE = 6  # points of a path from one that the search for the nearest looks at to the next


@dataclass(frozen=True)
class Situation:
    """Each agent as seen along the path of each: `s` and `side` of agent j on the path of i (b, i, j), and
    its direction relative to that path there; and how sharply the path bends there (1/m).
    """

    s: Floats
    side: Floats
    turn: Floats
    bend: Floats


class PathTables:
    """The paths of all agents of all scenes, laid end to end, so that any of them is one gather away."""

    def __init__(self, maps: Sequence[RoadMap], cast: Cast) -> None:
        paths = [path for road_map in maps for path in road_map.paths]
        starts = np.concatenate([[0], np.cumsum([len(path.xy) for path in paths])])
        firsts = np.concatenate([[0], np.cumsum([len(road_map.paths) for road_map in maps])])
        which = cast.route + firsts[:-1, None]  # (b, a)
        self.first = starts[which]
        self.points = np.array([len(path.xy) for path in paths])[which]
        self.length = SPACING * (self.points - 1)
        self.light = np.array([path.light for path in paths])[which]
        self.light_at = np.array([path.light_at for path in paths])[which]
        self.x, self.y = np.concatenate([path.xy for path in paths]).T.copy()
        self.yaw = np.concatenate([path.yaw for path in paths])
        self.curvature = np.concatenate([path.curvature for path in paths])
        self.speed = np.concatenate([path.speed for path in paths])
        self.cos, self.sin = np.cos(self.yaw), np.sin(self.yaw)
        self.coarse = self.coarse_points()

    def coarse_points(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """x, y and x^2 + y^2 (b, a, 1, p) of every COARSE-th point; beyond a path's end, far away."""
        count = int(-(-self.points.max() // COARSE))
        at = COARSE * np.arange(count)
        beyond = at >= self.points[..., None]
        index = self.first[..., None] + np.minimum(at, self.points[..., None] - 1)
        x, y = self.x[index], self.y[index]
        square = np.where(beyond, np.inf, x**2 + y**2)
        x, y, square = (values[:, :, None, :].astype(np.float32) for values in (x, y, square))
        return x, y, square

    def project(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Arc length, distance to the left, and direction and unsigned curvature there (b, i, j) of the path
        of i at agent j, for positions (b, j).

        The nearest coarse point first; from there along the arc of its curvature.
        """
        cx, cy, square = self.coarse
        score = cx * (-2 * x).astype(np.float32)[:, None, :, None]
        score += cy * (-2 * y).astype(np.float32)[:, None, :, None]
        score += square
        step = COARSE * score.argmin(axis=-1)
        index = self.first[:, :, None] + step
        dx, dy = x[:, None, :] - self.x[index], y[:, None, :] - self.y[index]
        cos, sin, curvature = self.cos[index], self.sin[index], self.curvature[index]
        along, left = cos * dx + sin * dy, cos * dy - sin * dx
        along = along / np.maximum(1 - curvature * left, 0.3)
        side = left - curvature * along**2 / 2
        return SPACING * step + along, side, self.yaw[index] + curvature * along, np.abs(curvature)

    def index(self, s: Floats) -> Indices:
        """Where in the tables arc lengths (b, a) lie: the point before each."""
        at = np.clip((s / SPACING).astype(np.int64), 0, self.points - 2)
        return self.first + at

    def speed_at(self, s: Floats) -> Floats:
        return self.speed[self.index(s)]

    def yaw_at(self, s: Floats) -> Floats:
        """The direction (b, a) at arc lengths, between points in proportion."""
        i = self.index(s)
        share = np.clip(s / SPACING - (i - self.first), 0, 1)
        return self.yaw[i] + share * (self.yaw[i + 1] - self.yaw[i])

    def look(self, state: Floats) -> Situation:
        """Every agent, of states (b, a, 4), on every path."""
        s, side, yaw, bend = self.project(state[..., 0], state[..., 1])
        return Situation(s, side, wrap(state[:, None, :, 2] - yaw), bend)

    def start(self, cast: Cast) -> Floats:
        """The first state (b, a, 4): on the paths, and turned as a vehicle is that has come along them."""
        i, yaw = self.index(cast.s), self.yaw_at(cast.s)
        rest = cast.s - SPACING * (i - self.first)
        x = self.x[i] + rest * np.cos(yaw) - cast.side * np.sin(yaw)
        y = self.y[i] + rest * np.sin(yaw) + cast.side * np.cos(yaw)
        yaw = yaw - np.arcsin(np.clip(self.curvature[i] * cast.wheelbase / 2, -0.5, 0.5))
        state = np.stack([x, y, yaw, cast.speed], axis=-1)
        parked = cast.kind == PARKED
        state[parked, :3], state[parked, 3] = cast.pose[parked], 0.0
        return state


class ZoneTable:
    """One row for each agent, other agent and zone of their paths, over all scenes: shall the one stop before
    it? Rows are sorted by agent, so that an agent's rows lie together.

    Agents `one` and `other` by their places (r,) in arrays (b a,); where the zone lies on the path of each,
    whether it merges, and whether `one` has priority, `first`.
    """

    def __init__(self, maps: Sequence[RoadMap], cast: Cast) -> None:
        rows: list[tuple[float, ...]] = []
        route = np.where(cast.present & (cast.kind != PARKED), cast.route, -1)
        for scene, road_map in enumerate(maps):
            rows += zone_rows(road_map, route[scene], scene * route.shape[1])
        table = np.array(sorted(rows)).reshape(-1, 8)
        self.one, self.other = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        self.one_from, self.one_to, self.other_from, self.other_to = table[:, 2:6].T.copy()
        self.merges, self.first = table[:, 6] > 0, table[:, 7] > 0
        self.agents, self.starts = np.unique(self.one, return_index=True)

    def nearest(self, stop: Floats, agents: int) -> Floats:
        """The least (agents,) of what the rows (r,) of each agent say; inf where it has none."""
        found = np.full(agents, np.inf)
        if len(self.one):
            found[self.agents] = np.minimum.reduceat(stop, self.starts)
        return found


def zone_rows(road_map: RoadMap, route: Indices, first: int) -> list[tuple[float, ...]]:
    """The rows of one scene, whose agents move on routes (a,), -1: nowhere, and are numbered from `first`."""
    on = [np.flatnonzero(route == one).tolist() for one in range(len(road_map.paths))]
    rows: list[tuple[float, ...]] = []
    for zone in road_map.zones:
        ways = ((zone.one_from, zone.one_to), (zone.other_from, zone.other_to))
        for a in on[zone.one]:
            for b in on[zone.other]:
                rows.append((first + a, first + b, *ways[0], *ways[1], zone.merges, zone.one_first))
                rows.append((first + b, first + a, *ways[1], *ways[0], zone.merges, not zone.one_first))
    return rows
