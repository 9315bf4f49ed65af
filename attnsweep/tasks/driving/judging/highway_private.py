"""What this package relies on inside highway-env and highway-env does not promise. All of it is here, tested
with 1.12, which promises gymnasium's `reset` and `step` alone; and `step` plans at 1 Hz, and takes no
accelerations in every environment.

Relied upon, beside what the names of classes say: `env.road`, `env.vehicle`, `env.config`, and the seeds of
`reset`; of vehicles `position`, `heading`, `speed`, `action`, `LENGTH`, `WIDTH`, `route`, `lane_index`,
`plan_route_to`, `create_from`, `enable_lane_change`, and `solid`, without which the ego goes through whom it
hits; of roads `act`, `step`, `vehicles`, `objects`; of networks `graph`, `get_lane` and
`next_lane_given_next_road`, all since 1.5 at least, and `lanes_dict`, since 1.10 at the latest. What has an
underscore is in `renew_traffic` alone, which has a way round.

Its y axis points down; what comes out of here is in a frame that is right-handed. To be imported where
highway-env is installed: see `external.require`.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from highway_env.envs.highway_env import HighwayEnv
from highway_env.envs.intersection_env import IntersectionEnv
from highway_env.envs.merge_env import MergeEnv
from highway_env.envs.roundabout_env import RoundaboutEnv
from highway_env.road.lane import LineType
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle

from attnsweep.tasks.driving.world import geometry, kinematics
from attnsweep.tasks.driving.world.cast import CAR, EGO, PARKED
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.ground import Ground, Strip
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import SHOULDER, SPACING, dashed, ribbon, rounded

LONGEST = 1500.0  # m of a lane that count
REACH = 60.0  # m, that a route goes on straight behind its end
ARRIVED = 25.0  # m into its last lane, at which the intersection counts as crossed there
MERGED = 370.0  # m along x, at which the merge counts as done there
FLIP = np.array([1.0, -1.0])
JOINT = 6  # points, a metre apart, of each of two lanes that meet


# A class of drivers for each environment, since `IntersectionEnv` sets their parameters on the class: with
# one for all, what is rolled out would depend on whether an intersection was built before in this process.


class IntersectionDriver(IDMVehicle): ...


class RoundaboutDriver(IDMVehicle): ...


class MergeDriver(IDMVehicle): ...


class HighwayDriver(IDMVehicle): ...


KINDS: dict[str, tuple[Any, Any]] = {
    "intersection-v0": (IntersectionEnv, IntersectionDriver),
    "roundabout-v0": (RoundaboutEnv, RoundaboutDriver),
    "merge-v0": (MergeEnv, MergeDriver),
    "highway-v0": (HighwayEnv, HighwayDriver),
}


def make(name: str) -> Any:
    """A stock environment whose drivers share no class with another's."""
    kind, driver = KINDS[name]
    return kind(config={"other_vehicles_type": f"{__name__}.{driver.__name__}"})


def renew_traffic(env: Any) -> None:
    """Lets those leave who have crossed the intersection, and perhaps one appear, as its `step` does.

    Relies on `IntersectionEnv._clear_vehicles` and `_spawn_vehicle` (since 1.5). Without them who has crossed
    drives on, and nobody comes.
    """
    clear, spawn = (getattr(env, name, None) for name in ("_clear_vehicles", "_spawn_vehicle"))
    if clear and spawn:
        clear()
        spawn(spawn_probability=env.config["spawn_probability"])


@dataclass(frozen=True)
class Scenery:
    """What does not move in an environment: the road, and points (n, 2) of what is painted."""

    ground: Ground
    paint: Floats


class Episode:
    """An environment in motion. Agents keep their places: the ego first, then in the order of appearance."""

    def __init__(self, name: str, seed: int) -> None:
        self.env = make(name)
        self.env.reset(seed=seed)
        self.name, self.road, self.steps = name, self.env.road, 0
        self.scenery = scenery(name)
        self.put_ego(KINDS[name][1].create_from(self.env.vehicle))
        self.ego.enable_lane_change = False
        self.agents: list[Any] = [self.ego]
        self.route, self.way = route_of(self.env, name, self.ego)
        self.start = float(geometry.project(self.position[None], self.route)[0][0])
        self.meet()
        self.before = self.motion()[0][EGO]  # of the ego, a step ago

    @property
    def position(self) -> Floats:
        """Of the ego (2,)."""
        return np.asarray(self.ego.position * FLIP)

    @property
    def arrived(self) -> bool:
        return bool(geometry.project(self.position[None], self.route)[0][0] - self.start > self.way + 1.0)

    def put_ego(self, ego: Any) -> None:
        """Puts someone in the place of the ego."""
        at = self.road.vehicles.index(self.env.vehicle)
        ego.solid = False
        self.road.vehicles[at] = self.env.vehicle = self.ego = ego

    def hand_over(self) -> None:
        """From now on the ego follows commands."""
        if type(self.ego) is not Vehicle:
            self.put_ego(Vehicle.create_from(self.ego))
            self.agents[EGO] = self.ego

    def step(self, command: Floats | None) -> None:
        """Moves on by DT; `command` (2,): acceleration and steering of the ego, None while the IDM drives."""
        self.before = self.motion()[0][EGO]
        if self.arrived:
            return
        if command is not None:
            self.hand_over()
            self.ego.act({"acceleration": float(command[0]), "steering": -float(command[1])})
        self.road.act()
        self.road.step(DT)
        self.steps += 1
        if self.name == "intersection-v0" and self.steps % round(1 / DT) == 0:
            renew_traffic(self.env)
        self.meet()

    def meet(self) -> None:
        """Gives those who are new a place."""
        self.agents += [one for one in (*self.road.vehicles, *self.road.objects) if one not in self.agents]

    def motion(self) -> tuple[Floats, Flags]:
        """x, y, yaw, vx, vy (a, 5) of the agents, and who is there (a,)."""
        there = {id(one) for one in (*self.road.vehicles, *self.road.objects)}
        states = np.array([[*(one.position * FLIP), -one.heading, one.speed] for one in self.agents])
        steering = [getattr(one, "action", {}).get("steering", 0.0) for one in self.agents]
        motion = kinematics.motion_of(states, -kinematics.slip_of(np.array(steering)))
        return motion, np.array([id(one) in there for one in self.agents])

    def sizes(self) -> tuple[Floats, Indices]:
        """Length and width (a, 2) and kinds (a,) of the agents; obstacles count as parked."""
        size = np.array([[one.LENGTH, one.WIDTH] for one in self.agents], dtype=float)
        return size, np.array([PARKED if one in self.road.objects else CAR for one in self.agents])

    def bicycle(self) -> tuple[list[float], float]:
        """The ego's x, y, yaw and speed, and its wheelbase: highway-env's is as long as the vehicle."""
        return [*self.position, -self.ego.heading, self.ego.speed], self.ego.LENGTH


@functools.cache
def scenery(name: str) -> Scenery:
    """The scenery of an environment, which is the same for all seeds."""
    network = make(name).road.network
    lanes = network.lanes_dict()
    places = list(lanes)
    strips, paint = [], []
    for (start, end, _), lane in lanes.items():
        width = lane.width_at(0.0)
        onward = tuple(i for i, (beyond, *_) in enumerate(places) if beyond == end)
        strips.append(Strip(offset_line(lane, 0.0), width, onward, inside=str(start).startswith("ir")))
        for line, side in zip(lane.line_types, (-width / 2, width / 2), strict=True):
            if line == LineType.STRIPED:
                paint.append(dashed(offset_line(lane, side)))
            elif line != LineType.NONE:
                paint.append(geometry.resample(offset_line(lane, side), 0.5))
    road = Ground(strips, joints(network), shoulder=SHOULDER)
    return Scenery(road, np.unique(np.concatenate(paint), axis=0))


def joints(network: Any) -> list[Floats]:
    """Polygons where lanes lead on: highway-env's need not meet, with 5 m before its roundabout."""
    found = []
    for (start, end, index), lane in network.lanes_dict().items():
        for beyond in network.graph.get(end, {}):
            last = lane.position(lane.length, 0.0)
            follows, _ = network.next_lane_given_next_road(start, end, index, beyond, None, last)
            other = network.get_lane((end, beyond, follows))
            turn = geometry.wrap(np.array(lane.heading_at(lane.length) - other.heading_at(0.0)))
            if np.abs(turn) < 1.0:
                meeting = offset_line(lane, 0.0)[-JOINT:], offset_line(other, 0.0)[:JOINT]
                line = geometry.distinct(np.concatenate(meeting))
                found.append(ribbon(geometry.resample(line, 1.0), lane.width_at(lane.length) / 2 + SHOULDER))
    return found


def offset_line(lane: Any, side: float) -> Floats:
    """The line (n, 2), a point about each metre, that runs `side` metres to the right of a lane's middle."""
    length = min(float(lane.length), LONGEST)
    s = np.linspace(0.0, length, max(2, round(length) + 1))
    return np.array([lane.position(one, side) for one in s]) * FLIP


def route_of(env: Any, name: str, ego: Any) -> tuple[Floats, float]:
    """The line (n, 2), a point each 0.5 m, along the lanes of the ego's route, and how far it is from where
    the ego is to its goal; where the environment names none, to the route's end.
    """
    network = env.road.network
    if name == "merge-v0":
        ego.plan_route_to("d")
    chain = [ego.lane_index]
    for start, end, lane in (ego.route or chain)[1:]:
        at = network.get_lane(chain[-1]).position(network.get_lane(chain[-1]).length, 0.0)
        index, _ = network.next_lane_given_next_road(*chain[-1], end, lane, at)
        chain.append((start, end, index))
    lines = [offset_line(network.get_lane(index), 0.0) for index in chain]
    line = np.concatenate([lines[0], *(one[1:] for one in lines[1:])])
    here = float(geometry.project((ego.position * FLIP)[None], line)[0][0])
    goal = geometry.stations(line)[-1]
    if name == "intersection-v0":
        goal = geometry.stations(line)[-1] - geometry.stations(lines[-1])[-1] + ARRIVED
    elif name == "merge-v0":
        goal = here + MERGED - ego.position[0]
    onward = line[-1] - line[-2]
    far = line[-1] + REACH * onward / np.hypot(*onward)
    return rounded(geometry.resample(np.concatenate([line, far[None]]), SPACING)), float(goal - here)
