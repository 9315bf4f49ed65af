"""Who takes part in a scene: the ego, other drivers, people on foot and parked cars, drawn from the seed.

Every draw belongs to one scene and comes from its own generator, so a scene is the same whatever is drawn
beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.planning.geometry import Floats
from attnsweep.planning.roads import ON_FOOT, Path, RoadMap, Zone

EGO = 0  # its place among the agents
CAR, PEDESTRIAN, PARKED = range(3)
LONGEST_DELAY_S = 0.6
LONG, SHARP = 5.5, 0.08  # m, 1/m: longer vehicles keep out of sharper bends
TRIES = 60  # places that are tried for a driver before the road counts as full


@dataclass(frozen=True)
class Crowd:
    """How many take part at most: drivers with the ego, people on foot, parked cars."""

    drivers: int = 12
    pedestrians: int = 0
    parked: int = 0

    @property
    def size(self) -> int:
        return self.drivers + self.pedestrians + self.parked


@dataclass(frozen=True)
class Cast:
    """The agents (a,) of a scene, the ego first; where `present` is false a place is empty.

    `route` is the index of the path, `s` and `speed` where and how fast it starts there, `side` how far left
    of the path it drives, `go` the time before which it stands. The rest are its size and its manner:
    `eagerness` is the factor on allowed speeds, `most` and `comfortable` accelerations of the IDM, `headway`
    its time gap, `standing` its gap at rest, `delay` the reaction time in steps, `patience` the time gap (s)
    that it wants to others when it does not have priority.
    """

    kind: NDArray[np.int64]
    present: NDArray[np.bool_]
    route: NDArray[np.int64]
    pose: Floats  # (a, 3), of parked cars
    s: Floats
    speed: Floats
    side: Floats
    go: Floats
    length: Floats
    width: Floats
    wheelbase: Floats
    eagerness: Floats
    most: Floats
    comfortable: Floats
    headway: Floats
    standing: Floats
    delay: NDArray[np.int64]
    patience: Floats
    goal: float  # the arc length of the ego's path at which its route ends
    light_offset: float  # s, into the cycle of the lights


def draw_cast(road_map: RoadMap, crowd: Crowd, *, dt: float) -> Cast:
    """The cast of a map's scene."""
    rng = np.random.default_rng([road_map.seed, 2])
    n = crowd.size
    kind = np.repeat([CAR, PEDESTRIAN, PARKED], [crowd.drivers, crowd.pedestrians, crowd.parked])
    long = (rng.random(n) < 0.12) & (np.arange(n) != EGO)
    length = np.where(long, rng.uniform(6.0, 8.0, n), rng.uniform(3.9, 5.0, n))
    width = np.where(long, rng.uniform(2.1, 2.3, n), rng.uniform(1.7, 2.0, n))
    foot = kind == PEDESTRIAN
    eagerness = np.where(foot, rng.uniform(0.55, 0.85, n), rng.uniform(0.8, 1.1, n))
    places = Places(road_map, rng, length, eagerness)
    for agent in range(n):
        if kind[agent] == CAR:
            places.put_driver(agent)
        elif kind[agent] == PEDESTRIAN:
            places.put_pedestrian(agent)
    places.park(np.flatnonzero(kind == PARKED))
    ego = road_map.paths[places.route[EGO]]
    return Cast(
        kind=kind,
        present=places.present,
        route=places.route,
        pose=places.pose,
        s=places.s,
        speed=places.speed,
        side=np.where((kind == CAR) & (np.arange(n) != EGO), rng.uniform(-0.25, 0.25, n), 0.0),
        go=np.where(foot, rng.uniform(0.0, 12.0, n), 0.0),
        length=np.where(foot, 0.6, length),
        width=np.where(foot, 0.6, width),
        wheelbase=np.where(foot, 0.3, 0.6 * length),
        eagerness=eagerness,
        most=np.where(foot, 1.0, rng.uniform(1.2, 2.0, n)),
        comfortable=rng.uniform(1.6, 2.6, n),
        headway=np.where(foot, 0.3, rng.uniform(1.0, 1.8, n)),
        standing=np.where(foot, 0.6, rng.uniform(1.6, 3.0, n)),
        delay=np.where(foot, 0, np.round(rng.uniform(0, LONGEST_DELAY_S, n) / dt)).astype(np.int64),
        patience=rng.uniform(1.0, 2.2, n),
        goal=min(ego.length - 50.0, ego.approach + 70.0),
        light_offset=float(rng.uniform(0, 100.0)),
    )


class Places:
    """Finds each agent a place at which it can start without danger."""

    def __init__(self, road_map: RoadMap, rng: np.random.Generator, length: Floats, eagerness: Floats):
        n = len(length)
        self.road_map, self.rng, self.length, self.eagerness = road_map, rng, length, eagerness
        self.present = np.zeros(n, dtype=bool)
        self.route = np.zeros(n, dtype=np.int64)
        self.pose = np.zeros((n, 3))
        self.s, self.speed = np.zeros(n), np.zeros(n)
        self.taken: list[tuple[Floats, float, float]] = []  # centre, length, speed
        paths = road_map.paths
        self.driven = [i for i, path in enumerate(paths) if not path.on_foot]
        self.walked = [i for i, path in enumerate(paths) if path.on_foot]

    def put_driver(self, agent: int) -> None:
        """The ego comes close to the junction, the others anywhere on its roads; one for whom no safe place
        is found stays away.
        """
        for _ in range(TRIES):
            route = int(self.rng.choice(self.driven))
            path = self.road_map.paths[route]
            if self.length[agent] > LONG and np.abs(path.curvature).max() > SHARP:
                continue
            s = self.draw_start(path, is_ego=agent == EGO)
            index = int(s / 0.5)
            speed = float(path.speed[index] * self.eagerness[agent] * self.rng.uniform(0.7, 1.0))
            if self.is_safe(path, route, s, speed, self.length[agent]):
                self.take(agent, route, s, speed)
                return
        if agent == EGO:  # the road is still empty then: a standing start is safe everywhere before a zone
            self.take(agent, self.driven[0], 8.0, 0.0)

    def draw_start(self, path: Path, *, is_ego: bool) -> float:
        """An arc length on the path."""
        enters = bool(np.isfinite(path.approach))
        if is_ego:
            return path.approach - self.rng.uniform(22.0, 60.0) if enters else self.rng.uniform(15.0, 45.0)
        if enters and self.rng.random() < 0.8:
            return path.approach - abs(self.rng.normal(0.0, 45.0)) - 8.0
        return self.rng.uniform(5.0, path.length - 30.0)

    def is_safe(self, path: Path, route: int, s: float, speed: float, length: float) -> bool:
        """Whether one can start there: on the path, clear of every zone in which others could be, and far
        enough from those who are there already.
        """
        if not 6.0 < s < path.length - 20.0:
            return False
        stopping = speed**2 / 4.0 + length / 2 + 8.0
        if any(start - stopping < s < end + length for start, end in self.dangers(route)):
            return False
        place = path.xy[int(s / 0.5)]
        return all(
            np.hypot(*(place - there)) > (length + other) / 2 + 4.0 + 1.2 * max(speed, pace)
            for there, other, pace in self.taken
        )

    def dangers(self, route: int) -> list[tuple[float, float]]:
        """From where to where the zones of a route reach; of one that merges, the part in which it begins."""
        found = []
        for zone in self.road_map.zones:
            start, end = span(zone, route)
            if start >= 0:
                found.append((start, start + 12.0 if zone.merges else end))
        return found

    def put_pedestrian(self, agent: int) -> None:
        """At the edge of a crosswalk, if the map has one."""
        if self.walked:
            self.take(agent, int(self.rng.choice(self.walked)), float(self.rng.uniform(0.3, 1.0)), 0.0)

    def park(self, agents: NDArray[np.int64]) -> None:
        """Puts parked cars into the map's bays, one each, as long as there are any."""
        bays = self.rng.permutation(len(self.road_map.bays))[: len(agents)]
        self.present[agents[: len(bays)]] = True
        jitter = self.rng.uniform(-1, 1, (len(bays), 3)) * np.array([0.4, 0.1, 0.03])
        self.pose[agents[: len(bays)]] = self.road_map.bays[bays] + jitter
        self.length[agents] = np.minimum(self.length[agents], 4.8)

    def take(self, agent: int, route: int, s: float, speed: float) -> None:
        path = self.road_map.paths[route]
        self.present[agent], self.route[agent], self.s[agent], self.speed[agent] = True, route, s, speed
        if path.priority[0] != ON_FOOT:
            self.taken.append((path.xy[int(s / 0.5)], float(self.length[agent]), speed))


def span(zone: Zone, route: int) -> tuple[float, float]:
    """From where to where on a route the zone reaches; (-1, -1): it is not on it."""
    if zone.one == route:
        return zone.one_from, zone.one_to
    if zone.other == route:
        return zone.other_from, zone.other_to
    return -1.0, -1.0
