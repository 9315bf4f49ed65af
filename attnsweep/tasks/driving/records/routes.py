"""Routes along lanes: the one that somebody took, and the one to a goal.

A recording does not say what its driver intended. The route of an ego is the centre line of the lanes that it
followed: which lanes is known from its future, as a navigation system would know it; where in a lane it
drove, how fast and when it stopped is not. A change of lane begins 15 m before the place where the ego
crossed and ends 15 m behind it. Beyond the last pose the route goes on along the straightest lane.

The route of a planning problem is the cheapest way through the graph of lanes from its initial state to its
goal region, by Dijkstra's algorithm, and ends at the centre of that region.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.roads import SPACING, rounded

if TYPE_CHECKING:
    from scipy.sparse import csr_array

OFF_MAP = 5.0  # m, that a lane reaches from its centre line at least; beyond, a vehicle is not on the map
TURNED = 3.0  # m, that a direction one rad off the lane's counts as
SWITCH = 6.0  # m, that going over to a lane that does not continue the last one counts as
CHANGE = 15.0  # m, before and behind the place of a change of lane
REACH = 60.0  # m, that a route goes on beyond the last pose
LEAST_ROUTE = 1.0  # m, of a route to a goal that the ego has reached already
ROUNDED_FROM = 12.0  # m; a shorter route is left with its corners
ASTRAY = 10.0  # m of way, that a metre off a lane's centre line counts as where a way to a goal is sought
CHANGE_COST = 30.0  # m of way, that a change of lane counts as there


@dataclass(frozen=True)
class Lanes:
    """The lanes of a map: their centre lines, how far from it (m) each reaches, the lanes that each leads to,
    and those beside it that are driven the same way.
    """

    centres: tuple[Floats, ...]
    reaches: tuple[float, ...]
    successors: tuple[tuple[int, ...], ...]
    neighbours: tuple[tuple[int, ...], ...] = ()

    def length(self, lane: int) -> float:
        """Of its centre line (m)."""
        return float(geometry.stations(self.centres[lane])[-1])


@dataclass(frozen=True)
class Region:
    """Where a way may end: at the centre (2,) of an area, or on a lane by its index."""

    centre: Floats | None = None
    lane: int | None = None


def on_lanes(points: Floats, lanes: Lanes) -> Flags:
    """Which points (n, 2) are on the map: no farther from the centre line of some lane than it reaches."""
    found = np.zeros(len(points), dtype=bool)
    for centre, reach in zip(lanes.centres, lanes.reaches, strict=True):
        found[~found] = np.abs(geometry.project(points[~found], centre)[1]) <= reach
    return found


def route_of(poses: Floats, lanes: Lanes) -> Floats:
    """The line (n, 2), a point each 0.5 m, along the lanes that someone with poses (t, 3) followed."""
    taken = lanes_taken(poses, lanes)
    starts = np.flatnonzero(np.diff(taken, prepend=-1))
    ends = np.append(starts[1:], len(taken)) - 1
    pieces, comes_over = [], False
    for start, end in zip(starts, ends, strict=True):
        lane, centre = taken[start], lanes.centres[taken[start]]
        (first, last), _ = geometry.project(poses[[start, end], :2], centre)
        goes_over = end + 1 < len(taken) and taken[end + 1] not in lanes.successors[lane]
        low = first + CHANGE if comes_over else 0.0
        high = last - CHANGE if goes_over else geometry.stations(centre)[-1]
        middle = (low + high) / 2
        pieces.append(between(centre, min(low, middle), max(high, middle)))
        comes_over = goes_over
    return smooth(np.concatenate([*pieces, *onward(poses[-1], int(taken[-1]), lanes)]))


def lanes_taken(poses: Floats, lanes: Lanes) -> Indices:
    """The lane (t,) of each pose (t, 3).

    The cheapest chain, where being off a lane's middle or direction costs, and so does going over to a lane
    that does not continue the last one; by dynamic programming (Viterbi, 1967). A lane that costs more than
    the best one and two changes at every pose is on no cheapest chain: large maps have many such.
    """
    _, _, cost = fits(poses, lanes)
    near = np.flatnonzero((cost <= cost.min(axis=1, keepdims=True) + 2 * SWITCH).any(axis=0))
    step = steps_between(near, lanes)
    total, back = cost[0, near], []
    for now in cost[1:, near]:
        ways = total[:, None] + step
        back.append(ways.argmin(axis=0))
        total = ways.min(axis=0) + now
    chain = [int(total.argmin())]
    for best in reversed(back):
        chain.append(int(best[chain[-1]]))
    return near[chain[::-1]]


def fits(poses: Floats, lanes: Lanes) -> tuple[Floats, Floats, Floats]:
    """Of each lane at each pose, (t, lanes) each: arc length, how far off its centre line the pose is, and
    how badly the lane fits, both in metres.
    """
    found = []
    for centre in lanes.centres:
        s, left = geometry.project(poses[:, :2], centre)
        yaw = np.interp(s, geometry.stations(centre), geometry.headings(centre))
        turned = geometry.wrap(yaw - poses[:, 2])
        found.append((s, np.abs(left), np.abs(left) + TURNED * np.abs(turned)))
    s, off, misfit = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    return s, off, misfit


def steps_between(near: Indices, lanes: Lanes) -> Floats:
    """What it costs (n, n) to go over from each of some lanes (n,) to another."""
    step = np.full((len(near), len(near)), SWITCH)
    np.fill_diagonal(step, 0.0)
    for i, lane in enumerate(near):
        step[i, np.isin(near, lanes.successors[lane])] = 0.0
    return step


def onward(pose: Floats, lane: int, lanes: Lanes) -> list[Floats]:
    """The lines that go on from a lane to `REACH` beyond a pose (3,), the straightest, then straight on."""
    s, _ = geometry.project(pose[None, :2], lanes.centres[lane])
    rest = REACH - (lanes.length(lane) - s[0])
    lines = [lanes.centres[lane]]
    while rest > 0 and lanes.successors[lane]:
        ways = {one: geometry.headings(lanes.centres[one]) for one in lanes.successors[lane]}
        lane = min(ways, key=lambda one: abs(ways[one][[0, -1]] @ [-1, 1]))
        lines.append(lanes.centres[lane])
        rest -= max(lanes.length(lane), 1.0)
    if rest > 0:
        way = lines[-1][-1] - lines[-1][-2]
        lines.append((lines[-1][-1] + rest * way / np.hypot(*way))[None])
    return lines[1:]


def between(xy: Floats, start: float, end: float) -> Floats:
    """The part of a polyline (n, 2) from one arc length to another."""
    along = geometry.stations(xy)
    s = np.concatenate([[start], along[(along > start) & (along < end)], [end]])
    return geometry.interpolated(s, along, xy)


# --- The route to a goal ---


def route_to(pose: Floats, goals: Sequence[Region], lanes: Lanes) -> Floats | None:
    """The line (n, 2), a point each 0.5 m, from a pose (3,) to the nearest of the goals that can be reached;
    where none can, on along the straightest lanes. None where the pose is on no lane (`on_lanes`).
    """
    starts = candidates(pose, lanes)
    if not starts:
        return None
    found = cheapest(starts, goals, lanes)
    if found is None:
        start, at, _ = min(starts, key=lambda one: one[2])
        lines = [rest_of(lanes.centres[start], at), *onward(pose, start, lanes)]
        return smooth(np.concatenate(lines))
    chain, at, end = found
    return smooth(along_lanes(chain, at, end, lanes))


def candidates(pose: Floats, lanes: Lanes) -> list[tuple[int, float, float]]:
    """The lanes on which a pose (3,) may be: index, arc length, and how badly it fits, in metres."""
    s, off, misfit = (part[0] for part in fits(pose[None], lanes))
    return [(int(lane), float(s[lane]), float(misfit[lane])) for lane in np.flatnonzero(off <= lanes.reaches)]


def cheapest(
    starts: Sequence[tuple[int, float, float]], goals: Sequence[Region], lanes: Lanes
) -> tuple[list[int], float, float] | None:
    """The chain of lanes of least cost to any goal, the arc length on its first lane at which it begins, and
    that on its last one at which it ends; None where no goal can be reached.
    """
    from scipy.sparse.csgraph import dijkstra  # here, for start-up time

    indices = [lane for lane, _, _ in starts]
    distance, before = dijkstra(graph(lanes), indices=indices, return_predecessors=True)
    best: tuple[float, list[int], float, float] | None = None
    for row, (start, s, misfit) in enumerate(starts):
        for lane, end, off in goal_places(goals, lanes, start=start, at=s):
            cost = distance[row, lane] - s + end + ASTRAY * (misfit + off)
            if not np.isfinite(cost) or (best is not None and cost >= best[0]):
                continue
            chain = chain_of(before[row], start, lane)
            if end >= least_arrival(chain, s, lanes):
                best = cost, chain, s, end
    return None if best is None else best[1:]


def graph(lanes: Lanes) -> "csr_array":
    """What it costs (lanes, lanes) to go on from each lane to another, in metres of way."""
    from scipy.sparse import csr_array

    count = len(lanes.centres)
    length = [max(lanes.length(one), LEAST_ROUTE) for one in range(count)]
    ways = {(one, other): CHANGE_COST for one, group in enumerate(lanes.neighbours) for other in group}
    ways |= {(one, other): length[one] for one, group in enumerate(lanes.successors) for other in group}
    rows, columns = ([way[k] for way in ways] for k in range(2))
    return csr_array((list(ways.values()), (rows, columns)), shape=(count, count))


def goal_places(
    goals: Sequence[Region], lanes: Lanes, *, start: int, at: float
) -> list[tuple[int, float, float]]:
    """Where ways from arc length `at` of the lane `start` may end: lane, arc length, metres from the goal."""
    found = []
    for goal in goals:
        if goal.lane is not None:
            whole = lanes.length(goal.lane)
            passed = goal.lane == start and at > whole / 2
            found.append((goal.lane, whole if passed else whole / 2, 0.0))
        if goal.centre is not None:
            found += nearest_lanes(goal.centre, lanes)
    return found


def least_arrival(chain: Sequence[int], at: float, lanes: Lanes) -> float:
    """The first arc length on the last of a chain of lanes that lies ahead of `at` on the first one."""
    for lane, ahead in itertools.pairwise(chain):
        at = 0.0 if ahead in lanes.successors[lane] else across(at, lanes.centres[lane], lanes.centres[ahead])
    return at


def across(at: float, centre: Floats, other: Floats) -> float:
    """The arc length of another line that is nearest to arc length `at` of a line."""
    (s,), _ = geometry.project(between(centre, at, at)[:1], other)
    return float(s)


def nearest_lanes(point: Floats, lanes: Lanes) -> list[tuple[int, float, float]]:
    """Lanes within 5 m of a point (2,), or else the nearest one: index, arc length, metres to it."""
    every = []
    for lane, centre in enumerate(lanes.centres):
        (s,), (left,) = geometry.project(point[None], centre)
        every.append((lane, float(s), float(abs(left))))
    return [one for one in every if one[2] <= OFF_MAP] or [min(every, key=lambda one: one[2])]


def chain_of(before: Indices, start: int, end: int) -> list[int]:
    """The lanes from one to another, of the lane (lanes,) before each."""
    chain = [end]
    while chain[-1] != start:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def along_lanes(chain: Sequence[int], at: float, end: float, lanes: Lanes) -> Floats:
    """The line (n, 2) along a chain of lanes, from an arc length of the first to one of the last. It goes
    over to a neighbouring lane at once: within 30 m, but no later than the lane or the whole way ends.
    """
    pieces = []
    for k, (lane, ahead) in enumerate(itertools.pairwise(chain), 2):
        centre = lanes.centres[lane]
        if ahead in lanes.successors[lane]:
            pieces.append(rest_of(centre, at))
            at = 0.0
            continue
        pieces.append(between(centre, at, at))
        at = across(min(at + 2 * CHANGE, float(geometry.stations(centre)[-1])), centre, lanes.centres[ahead])
        at = min(at, end) if k == len(chain) else at
    last = lanes.centres[chain[-1]]
    return np.concatenate([*pieces, between(last, at, max(end, at + LEAST_ROUTE * (not pieces)))])


def rest_of(centre: Floats, at: float) -> Floats:
    """A line (n, 2) from an arc length on."""
    return between(centre, at, float(geometry.stations(centre)[-1]))


def smooth(line: Floats) -> Floats:
    """A line (n, 2) as a route: a point each 0.5 m, its corners rounded where it is long enough."""
    points = geometry.resample(geometry.distinct(line), SPACING)
    return rounded(points) if geometry.stations(points)[-1] > ROUNDED_FROM else points
