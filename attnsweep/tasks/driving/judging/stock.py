"""An external test: highway-env's stock environments, driven by planners that have never seen them.

`intersection-v0`, `roundabout-v0`, `merge-v0` and `highway-v0` (Leurent, "An environment for autonomous
driving decision-making", 2018; github.com/Farama-Foundation/HighwayEnv) come with their own roads, drivers
and speeds, of which planners know nothing. What they sense is made by the same scanner as in the own world,
on the boxes and painted lines of highway-env; the route is the environment's own. As in `closed_loop` a
planner takes over after 1.5 s, here from highway-env's IDM driver, is asked each half second, and its plan is
tracked by pure pursuit; the ego is then highway-env's plain `Vehicle`.

`env.step` is bypassed: it plans at 1 Hz, and takes no accelerations in every environment. What it does
besides, traffic that leaves and appears at the intersection once a second, is done here. highway-env's y axis
points down; everything here is in a frame that is right-handed. Its collisions push vehicles apart before
they overlap; the ego is exempt from that (it is not `solid`), so that scores see what happened.
"""

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.judging.closed_loop import (
    HANDOVER,
    Drive,
    PlanFollower,
    Policy,
    progress_along,
    stacked,
)
from attnsweep.tasks.driving.judging.score import Scores, counted, gained, score_drive
from attnsweep.tasks.driving.records.samples import SWEEPS, Samples, ego_state, navigation
from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cast import CAR, EGO, PARKED
from attnsweep.tasks.driving.world.geometry import Floats, distinct, project, resample, stations, wrap
from attnsweep.tasks.driving.world.ground import Ground, Strip
from attnsweep.tasks.driving.world.roads import SHOULDER, SPACING, dashed, ribbon, rounded
from attnsweep.tasks.driving.world.sensor import Grid, Scan, Scanner, layers, scan
from attnsweep.tasks.driving.world.traffic import DT

STOCK = ("intersection-v0", "roundabout-v0", "merge-v0", "highway-v0")
FIRST_SEED = 70_000  # apart from all map seeds, for the sensor's noise
LONGEST = 1500.0  # m of a lane that count
REACH = 60.0  # m, that a route goes on straight behind its end
ARRIVED = 25.0  # m into its last lane, at which the intersection counts as crossed there
MERGED = 370.0  # m along x, at which the merge counts as done there
FLIP = np.array([1.0, -1.0])
JOINT = 6  # points, a metre apart, of each of two lanes that meet
NOTHING = np.zeros((0, 2))


@dataclass(frozen=True)
class Scenery:
    """What does not move in an environment: the road, and points (n, 2) of what is painted."""

    ground: Ground
    paint: Floats


def score_stock(policy: Policy | None, *, episodes: int = 5, seconds: float = 15.0) -> Scores:
    """The scores of a policy, `episodes` scenes of each of `STOCK` one after the other, against the progress
    of highway-env's IDM driver, who drives if there is no policy.

    There are no lights here, and nobody tells when an ego holds up traffic. Raises UserError where
    highway-env is not installed.
    """
    idm = idm_drive(episodes, seconds)
    driven = drive_stock(policy, episodes=episodes, seconds=seconds) if policy else idm
    return score_drive(driven, gained(idm, counted(idm)))


def require_highway_env() -> None:
    """Raises UserError where highway-env is not installed."""
    if importlib.util.find_spec("highway_env") is None:
        raise UserError(
            "highway-env is not installed, whose environments this test drives; pip install highway-env"
        )


@functools.lru_cache(maxsize=4)
def idm_drive(episodes: int, seconds: float) -> Drive:
    """What the IDM driver makes of it, once per process."""
    return drive_stock(None, episodes=episodes, seconds=seconds)


def drive_stock(
    policy: Policy | None, *, episodes: int = 5, seconds: float = 15.0, names: Sequence[str] = STOCK
) -> Drive:
    """`episodes` scenes of each environment, driven for `seconds` or until the ego is where it was to go,
    seeded from 0 on. Without a policy highway-env's IDM driver drives.

    Raises UserError where highway-env is not installed.
    """
    require_highway_env()
    runs = [Episode(name, seed) for name in names for seed in range(episodes)]
    follower = PlanFollower(policy, Senses(runs).observe) if policy else None
    entries = [snapshots(runs)]
    for step in range(round(seconds / DT)):
        commands = follower.command(step, *bicycles(runs)) if follower else None
        for b, run in enumerate(runs):
            run.step(None if commands is None else commands[b])
        entries.append(snapshots(runs))
    return drive_of(runs, entries, follower.lost_share if follower else np.zeros(len(runs)))


# --- One environment ---


class Episode:
    """An environment in motion. Agents keep their places: the ego first, then in the order of appearance."""

    def __init__(self, name: str, seed: int) -> None:
        self.env = make(name)
        self.env.reset(seed=seed)
        self.name, self.road, self.steps = name, self.env.road, 0
        self.scenery = scenery(name)
        self.put_ego(self.driver_class.create_from(self.env.vehicle))
        self.ego.enable_lane_change = False
        self.agents: list[Any] = [self.ego]
        self.route, self.way = route_of(self.env, name, self.ego)
        self.start = float(project(self.position[None], self.route)[0][0])
        self.meet()
        self.before = self.motion()[0][EGO]  # of the ego, a step ago

    @property
    def driver_class(self) -> Any:
        from highway_env.utils import class_from_path

        return class_from_path(self.env.config["other_vehicles_type"])

    @property
    def position(self) -> Floats:
        """Of the ego (2,)."""
        return np.asarray(self.ego.position * FLIP)

    @property
    def arrived(self) -> bool:
        return bool(project(self.position[None], self.route)[0][0] - self.start > self.way + 1.0)

    def put_ego(self, ego: Any) -> None:
        """Puts someone in the place of the ego."""
        at = self.road.vehicles.index(self.env.vehicle)
        ego.solid = False
        self.road.vehicles[at] = self.env.vehicle = self.ego = ego

    def hand_over(self) -> None:
        """From now on the ego follows commands."""
        from highway_env.vehicle.kinematics import Vehicle

        if type(self.ego) is not Vehicle:
            self.put_ego(Vehicle.create_from(self.ego))
            self.agents[EGO] = self.ego

    def step(self, command: Floats | None) -> None:
        """Moves everything on by DT; `command` (2,) is the acceleration and steering of the ego, or None as
        long as the IDM drives.
        """
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
            self.env._clear_vehicles()
            self.env._spawn_vehicle(spawn_probability=self.env.config["spawn_probability"])
        self.meet()

    def meet(self) -> None:
        """Gives those who are new a place."""
        self.agents += [one for one in (*self.road.vehicles, *self.road.objects) if one not in self.agents]

    def motion(self) -> tuple[Floats, NDArray[np.bool_]]:
        """x, y, yaw, vx, vy (a, 5) of the agents, and who is there (a,)."""
        there = {id(one) for one in (*self.road.vehicles, *self.road.objects)}
        rows = []
        for one in self.agents:
            steering = np.array(getattr(one, "action", {}).get("steering", 0.0))
            course = one.heading + kinematics.slip_of(steering)
            velocity = one.speed * np.array([np.cos(course), -np.sin(course)])
            rows.append([one.position[0], -one.position[1], -one.heading, *velocity])
        return np.array(rows), np.array([id(one) in there for one in self.agents])


def make(name: str) -> Any:
    """A stock environment whose drivers share no class with another's."""
    from highway_env.envs.highway_env import HighwayEnv
    from highway_env.envs.intersection_env import IntersectionEnv
    from highway_env.envs.merge_env import MergeEnv
    from highway_env.envs.roundabout_env import RoundaboutEnv

    kinds = {
        "intersection-v0": IntersectionEnv,
        "roundabout-v0": RoundaboutEnv,
        "merge-v0": MergeEnv,
        "highway-v0": HighwayEnv,
    }
    kind = kinds[name]
    driver = kind.__name__.removesuffix("Env") + "Driver"
    return kind(config={"other_vehicles_type": f"attnsweep.tasks.driving.judging.stock_vehicles.{driver}"})


@functools.lru_cache(maxsize=len(STOCK))
def scenery(name: str) -> Scenery:
    """The scenery of an environment, which is the same for all seeds."""
    from highway_env.road.lane import LineType

    network = make(name).road.network
    lanes = network.lanes_dict()
    places = list(lanes)
    strips, paint = [], []
    for (start, end, _), lane in lanes.items():
        width = lane.width_at(0.0)
        onward = tuple(i for i, (beyond, *_) in enumerate(places) if beyond == end)
        strips.append(Strip(beside(lane, 0.0), width, onward, inside=str(start).startswith("ir")))
        for line, side in zip(lane.line_types, (-width / 2, width / 2), strict=True):
            if line == LineType.STRIPED:
                paint.append(dashed(beside(lane, side)))
            elif line != LineType.NONE:
                paint.append(resample(beside(lane, side), 0.5))
    road = Ground(strips, joints(network), shoulder=SHOULDER)
    return Scenery(road, np.unique(np.concatenate(paint), axis=0))


def joints(network: Any) -> list[Floats]:
    """Polygons over where a lane leads to the next one. highway-env's lanes need not meet there: between
    those into its roundabout and the roundabout there are 5 m.
    """
    found = []
    for (start, end, index), lane in network.lanes_dict().items():
        for beyond in network.graph.get(end, {}):
            last = lane.position(lane.length, 0.0)
            follows, _ = network.next_lane_given_next_road(start, end, index, beyond, None, last)
            other = network.get_lane((end, beyond, follows))
            turn = wrap(np.array(lane.heading_at(lane.length) - other.heading_at(0.0)))
            if np.abs(turn) < 1.0:
                line = distinct(np.concatenate([beside(lane, 0.0)[-JOINT:], beside(other, 0.0)[:JOINT]]))
                found.append(ribbon(resample(line, 1.0), lane.width_at(lane.length) / 2 + SHOULDER))
    return found


def beside(lane: Any, side: float) -> Floats:
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
    lines = [beside(network.get_lane(index), 0.0) for index in chain]
    line = np.concatenate([lines[0], *(one[1:] for one in lines[1:])])
    here = float(project((ego.position * FLIP)[None], line)[0][0])
    goal = stations(line)[-1]
    if name == "intersection-v0":
        goal = stations(line)[-1] - stations(lines[-1])[-1] + ARRIVED
    elif name == "merge-v0":
        goal = here + MERGED - ego.position[0]
    onward = line[-1] - line[-2]
    far = line[-1] + REACH * onward / np.hypot(*onward)
    return rounded(resample(np.concatenate([line, far[None]]), SPACING)), float(goal - here)


# --- Driving all of them side by side ---


def snapshots(runs: Sequence[Episode]) -> tuple[Floats, NDArray[np.bool_]]:
    """The states (b, a, 5) of all agents and who is there (b, a), with as many places as the most need."""
    places = max(len(run.agents) for run in runs)
    state, active = np.zeros((len(runs), places, 5)), np.zeros((len(runs), places), dtype=bool)
    for b, run in enumerate(runs):
        count = len(run.agents)
        state[b, :count], active[b, :count] = run.motion()
    return state, active


def sizes(runs: Sequence[Episode], places: int) -> tuple[Floats, NDArray[np.int64]]:
    """Length and width (b, a, 2) and kinds (b, a) of all agents; obstacles count as parked."""
    size, kind = np.ones((len(runs), places, 2)), np.full((len(runs), places), CAR)
    for b, run in enumerate(runs):
        for a, one in enumerate(run.agents):
            size[b, a] = one.LENGTH, one.WIDTH
            kind[b, a] = PARKED if one in run.road.objects else CAR
    return size, kind


def bicycles(runs: Sequence[Episode]) -> tuple[Floats, Floats]:
    """The egos as bicycles (b, 4), x, y, yaw and speed, and their wheelbases (b,): highway-env's is as long
    as the vehicle.
    """
    states = [[*run.position, -run.ego.heading, run.ego.speed] for run in runs]
    return np.array(states, dtype=float), np.array([run.ego.LENGTH for run in runs], dtype=float)


class Senses:
    """What egos sense: `observe` is `samples.Observer.observe` in these environments."""

    def __init__(self, runs: Sequence[Episode]) -> None:
        self.runs = runs
        self.grid, self.scanner = Grid(), Scanner()
        self.scans: list[list[Scan]] = []

    def observe(self) -> Samples:
        """What is sensed now; nothing yet at the first three key frames."""
        state, active = snapshots(self.runs)
        pose = np.ascontiguousarray(state[:, EGO, :3])
        size, _ = sizes(self.runs, state.shape[1])
        present = active.copy()
        present[:, EGO] = False
        self.scans.append(
            scan(
                pose,
                np.concatenate([state[..., :3], size], axis=-1),
                present,
                paint=[run.scenery.paint for run in self.runs],
                seeds=[(FIRST_SEED + b, len(self.scans)) for b in range(len(self.runs))],
                scanner=self.scanner,
            )
        )
        if len(self.scans) < SWEEPS:
            return {}
        recent = self.scans[-SWEEPS:]
        grids = [layers([one[b] for one in recent], NOTHING, pose[b], self.grid) for b in range(len(pose))]
        ways = [navigation(run.route, pose[b : b + 1]) for b, run in enumerate(self.runs)]
        before = np.stack([run.before for run in self.runs])
        return {
            "bev": np.stack(grids),
            **{name: np.concatenate([way[name] for way in ways]) for name in ways[0]},
            "ego_state": ego_state(state[:, EGO], before, DT),
        }


def drive_of(runs: Sequence[Episode], entries: list[tuple[Floats, NDArray[np.bool_]]], lost: Floats) -> Drive:
    """What happened, from the snapshots of every step, which have ever more places."""
    places = entries[-1][1].shape[1]
    state, active = (
        np.zeros((len(entries), len(runs), places, 5)),
        np.zeros((len(entries), len(runs), places), bool),
    )
    for t, (one, there) in enumerate(entries):
        state[t, :, : one.shape[1]], active[t, :, : one.shape[1]] = one, there
    size, kind = sizes(runs, places)
    ego = state[:, :, EGO]
    along = [progress_along(ego[:, b, :2], run.route, start=run.start) for b, run in enumerate(runs)]
    places = [run.scenery.ground.placement(ego[:, b], size[b, EGO]) for b, run in enumerate(runs)]
    progress, lateral_offset = (np.stack(part, axis=1) for part in zip(*along, strict=True))
    never = np.zeros(active.shape[:2], dtype=bool)
    return Drive(
        dt=DT,
        state=state,
        active=active,
        kind=kind,
        size=size,
        handover=HANDOVER,
        placement=stacked(places),
        progress=progress,
        lateral_offset=lateral_offset,
        ran_red=never,
        impeding=never,
        way=np.array([run.way for run in runs]),
        to_stop=np.full(active.shape[:2], np.inf),
        lost=lost,
    )
