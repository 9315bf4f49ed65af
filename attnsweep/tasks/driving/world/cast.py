"""Who takes part in a scene: the ego, other drivers, people on foot and parked cars, drawn from the seed.

Every draw belongs to one scene and comes from its own generator, so a scene is the same whatever is drawn
beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.roads import ON_FOOT, SPACING, Path, RoadMap, Zone

EGO = 0  # its place among the agents
CAR, PEDESTRIAN, PARKED, CYCLIST = range(4)  # cyclists are in recordings alone
LONGEST_DELAY_S = 0.6
LONG, SHARP = 5.5, 0.08  # m, 1/m: longer vehicles keep out of sharper bends
TRIES = 60  # places that are tried for a driver before the road counts as full
LEADERS, RIVALS = 1, 4  # drivers put ahead of the ego, and timed to meet it where it must yield
NEVER = 1e9  # m, an arc length that nobody reaches


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
    of the path it drives, `go` the time before which it stands; at `halt` along its path it stands for
    `halt_s` seconds, to let someone out. The rest are its size and its manner:
    `eagerness` is the factor on allowed speeds, `most` and `comfortable` accelerations of the IDM, `headway`
    its time gap, `standing` its gap at rest, `delay` the reaction time in steps, `patience` the time gap (s)
    that it wants to others when it does not have priority.
    """

    kind: Indices
    present: Flags
    route: Indices
    pose: Floats  # (a, 3), of parked cars
    s: Floats
    speed: Floats
    side: Floats
    go: Floats
    halt: Floats
    halt_s: Floats
    length: Floats
    width: Floats
    wheelbase: Floats
    eagerness: Floats
    most: Floats
    comfortable: Floats
    headway: Floats
    standing: Floats
    delay: Indices
    patience: Floats
    goal: Floats  # (), the arc length of the ego's path at which its route ends
    light_offset: Floats  # (), s, into the cycle of the lights


def draw_cast(road_map: RoadMap, crowd: Crowd, *, dt: float) -> Cast:
    """The cast of a map's scene."""
    rng = np.random.default_rng([road_map.seed, 2])
    n = crowd.size
    kind = np.repeat([CAR, PEDESTRIAN, PARKED], [crowd.drivers, crowd.pedestrians, crowd.parked])
    long = (rng.random(n) < 0.12) & (np.arange(n) != EGO)
    length = np.where(long, rng.uniform(6.0, 8.0, n), rng.uniform(3.9, 5.0, n))
    width = np.where(long, rng.uniform(2.1, 2.3, n), rng.uniform(1.7, 2.0, n))
    foot = kind == PEDESTRIAN
    slow = np.arange(n) == LEADERS  # who leads dawdles at times
    eagerness = np.where(foot, rng.uniform(0.55, 0.85, n), rng.uniform(0.8, 1.1, n))
    eagerness = np.where(slow, rng.uniform(0.6, 1.0, n), eagerness)
    places = Places(road_map, rng, length, eagerness)
    for agent in np.flatnonzero(kind == CAR):
        places.put_driver(int(agent))
    for agent in np.flatnonzero(kind == PEDESTRIAN):
        places.put_pedestrian(int(agent))
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
        halt=places.halt,
        halt_s=rng.uniform(2.0, 6.0, n),
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
        goal=np.array(min(ego.length - 50.0, ego.approach + 70.0)),
        light_offset=np.array(rng.uniform(0, 100.0)),
    )


def side_by_side(casts: Sequence[Cast]) -> Cast:
    """The casts of scenes of equal crowds as one, whose arrays have an axis of scenes before the others."""
    names = [field.name for field in fields(Cast)]
    return Cast(**{name: np.stack([getattr(cast, name) for cast in casts]) for name in names})


class Places:
    """Finds each agent a place at which it can start without danger."""

    def __init__(self, road_map: RoadMap, rng: np.random.Generator, length: Floats, eagerness: Floats):
        n = len(length)
        self.road_map, self.rng, self.length, self.eagerness = road_map, rng, length, eagerness
        self.present = np.zeros(n, dtype=bool)
        self.route = np.zeros(n, dtype=np.int64)
        self.pose = np.zeros((n, 3))
        self.s, self.speed, self.halt = np.zeros(n), np.zeros(n), np.full(n, NEVER)
        self.taken: list[tuple[Floats, float, float]] = []  # centre, length, speed
        paths = road_map.paths
        self.driven = [i for i, path in enumerate(paths) if not path.on_foot]
        self.yields = [yields_at(road_map, route) for route in range(len(paths))]
        self.times = [np.cumsum(SPACING / path.speed) for path in paths]  # unhindered, at allowed speeds
        self.walked = [i for i, path in enumerate(paths) if path.on_foot]

    def put_driver(self, agent: int) -> None:
        """The ego comes close to the junction; one drives ahead of it, some so that they meet it where it
        has to yield, the others anywhere. One for whom no safe place is found stays away.
        """
        draw = self.draw_start
        if agent == EGO:
            draw = self.draw_ego_start
        elif agent <= LEADERS and self.rng.random() < 0.75:
            draw = self.draw_leader_start
        elif agent <= LEADERS + RIVALS:
            draw = self.draw_rival_start
        for attempt in range(TRIES):
            if attempt == TRIES // 2 and agent != EGO:
                draw = self.draw_start
            route, s = draw(agent)
            path = self.road_map.paths[route]
            if self.length[agent] > LONG and np.abs(path.curvature).max() > SHARP:
                continue
            if not 6.0 < s < path.length - 20.0:
                continue
            share = 1.0 if draw == self.draw_rival_start else self.rng.uniform(0.7, 1.0)
            speed = float(path.speed[int(s / SPACING)] * self.eagerness[agent] * share)
            if self.is_safe(path, route, s, speed, self.length[agent]):
                self.take(agent, route, s, speed)
                if draw == self.draw_leader_start and self.rng.random() < 0.4:
                    self.halt[agent] = self.draw_halt(route, s)
                return
        if agent == EGO:  # the road is still empty then: a standing start is safe everywhere before a zone
            self.take(agent, self.driven[0], 8.0, 0.0)

    def draw_ego_start(self, agent: int) -> tuple[int, float]:
        """A route, those on which the ego must yield to others more often, and an arc length."""
        weight = np.array([3.0 if self.yields[route] else 1.0 for route in self.driven])
        route = int(self.rng.choice(self.driven, p=weight / weight.sum()))
        path = self.road_map.paths[route]
        if np.isfinite(path.approach):
            return route, path.approach - self.rng.uniform(22.0, 60.0)
        return route, self.rng.uniform(15.0, 45.0)

    def draw_start(self, agent: int) -> tuple[int, float]:
        """Any route, and an arc length on it."""
        route = int(self.rng.choice(self.driven))
        path = self.road_map.paths[route]
        if np.isfinite(path.approach) and self.rng.random() < 0.8:
            return route, path.approach - abs(self.rng.normal(0.0, 45.0)) - 8.0
        return route, self.rng.uniform(5.0, path.length - 30.0)

    def draw_leader_start(self, agent: int) -> tuple[int, float]:
        """A route that begins as the ego's does, and an arc length ahead of the ego."""
        first = self.road_map.routes[self.route[EGO]][0]
        shared = [route for route in self.driven if self.road_map.routes[route][0] == first]
        return int(self.rng.choice(shared)), self.s[EGO] + self.rng.uniform(14.0, 35.0)

    def draw_rival_start(self, agent: int) -> tuple[int, float]:
        """A route that meets the ego's, and from where one comes there as the ego does, or within seconds."""
        if not self.yields[self.route[EGO]]:
            return self.draw_start(agent)
        zone = self.yields[self.route[EGO]][int(self.rng.integers(len(self.yields[self.route[EGO]])))]
        route = zone.other if zone.one == self.route[EGO] else zone.one
        own = self.times[self.route[EGO]] / self.eagerness[EGO]
        meets = span(zone, self.route[EGO])[0]
        due = own[int(meets / SPACING)] - own[int(self.s[EGO] / SPACING)] + self.rng.uniform(-1.0, 4.0)
        time = self.times[route] / self.eagerness[agent]
        start = time[int(span(zone, route)[0] / SPACING)] - due
        return route, float(np.searchsorted(time, start)) * SPACING

    def draw_halt(self, route: int, s: float) -> float:
        """An arc length ahead at which one can stand without blocking a zone; NEVER: there is none near."""
        halt = s + self.rng.uniform(15.0, 60.0)
        if any(start - 12.0 < halt < end + 12.0 for start, end in self.dangers(route)):
            return NEVER
        return halt

    def is_safe(self, path: Path, route: int, s: float, speed: float, length: float) -> bool:
        """Whether one can start there: on the path, clear of every zone in which others could be, and far
        enough from those who are there already.
        """
        stopping = speed**2 / 4.0 + length / 2 + 8.0
        if any(start - stopping < s < end + length for start, end in self.dangers(route)):
            return False
        place = path.xy[int(s / SPACING)]
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

    def park(self, agents: Indices) -> None:
        """Puts parked cars into the map's bays, one each, as long as there are any."""
        bays = self.rng.permutation(len(self.road_map.bays))[: len(agents)]
        self.present[agents[: len(bays)]] = True
        jitter = self.rng.uniform(-1, 1, (len(bays), 3)) * np.array([0.4, 0.1, 0.03])
        self.pose[agents[: len(bays)]] = self.road_map.bays[bays] + jitter
        self.length[agents] = np.minimum(self.length[agents], 4.8)

    def take(self, agent: int, route: int, s: float, speed: float) -> None:
        """Gives the agent its place."""
        path = self.road_map.paths[route]
        self.present[agent], self.route[agent], self.s[agent], self.speed[agent] = True, route, s, speed
        if path.priority[0] != ON_FOOT:
            self.taken.append((path.xy[int(s / SPACING)], float(self.length[agent]), speed))


def span(zone: Zone, route: int) -> tuple[float, float]:
    """From where to where on a route the zone reaches; (-1, -1): it is not on it."""
    if zone.one == route:
        return zone.one_from, zone.one_to
    if zone.other == route:
        return zone.other_from, zone.other_to
    return -1.0, -1.0


def yields_at(road_map: RoadMap, route: int) -> list[Zone]:
    """The zones of a route at which it gives way to vehicles on another."""
    return [
        zone
        for zone in road_map.zones
        if (zone.one == route and not zone.one_first) or (zone.other == route and zone.one_first)
        if not (road_map.paths[zone.one].on_foot or road_map.paths[zone.other].on_foot)
    ]
