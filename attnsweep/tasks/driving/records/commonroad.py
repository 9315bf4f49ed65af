"""Scenes from CommonRoad scenario files (XML, formats 2018b, 2020a and later), such as recorded NGSIM
traffic.

Every motor vehicle that moves is the ego of a scene of its own, as long as it was there; and so is whoever a
planning problem is posed to, of whom the file gives an initial state and a goal, and nothing that an expert
did (`plan_mask`). Only where a file gives no such scene is somebody an ego who is there for less than half a
second, or goes less than 15 m, or rides, or is shorter than a car, or is known by the areas that it occupies.
A file in which nobody drives and that poses no problem gives none: who drives there, and where to, would be
invented. What the ego senses is simulated on the recorded boxes, with the same scanner as in the own world.
Besides what `lanelets` says of the road:

- A quantity that is uncertain counts as the centre of its interval, or of its area.
- A state without orientation, of a point mass, faces where its velocity points; without either, where its
  positions lead.
- A state at the same time as the one before it repeats it, and is left out; so are states without a position.
- Obstacles that are no rectangles are the least rotated rectangles around them, and what stands may be
  several (`shapes`).
- Obstacles longer than 30 m, such as trains and buildings, but for walls, are left out, and so are
  environment and phantom obstacles.
- An obstacle that has occupancies instead of a trajectory is in the middle of each.

Format: Althoff, Koschi, Manzinger, "CommonRoad: Composable benchmarks for motion planning on roads", IV 2017;
commonroad.in.tum.de.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.commonroad_xml import number_in, optional_value, parse, read, references
from attnsweep.tasks.driving.records.lanelets import Network, network_of
from attnsweep.tasks.driving.records.routes import Region
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, SceneLog
from attnsweep.tasks.driving.records.shapes import box_of, boxes_of, centre_of
from attnsweep.tasks.driving.records.tracks import LONGEST, Surroundings, Track, log_of, log_to_goal
from attnsweep.tasks.driving.world.cast import CAR, CYCLIST, PARKED, PEDESTRIAN
from attnsweep.tasks.driving.world.geometry import Floats, from_frame

KINDS = {"pedestrian": PEDESTRIAN, "bicycle": CYCLIST}  # of dynamic obstacles; all others are vehicles
ON_RAILS = "train"
SHORTEST = 2.5  # m; what is shorter is no car
EGO_SIZE = (4.508, 1.610)  # m; the BMW 320i, vehicle 2 of CommonRoad's vehicle models
ALWAYS = 1e6  # s, before and after which nothing stands any more
LEAST_STEP = 0.05  # m; from a shorter step no direction is taken
LONGEST_STEP = KEY_S * FUTURE  # s, from state to state


@dataclass(frozen=True)
class Obstacle:
    """A track, and whether it drives like a car, or is on wheels at all."""

    track: Track
    like_car: bool
    on_wheels: bool


@dataclass(frozen=True)
class Problem:
    """A planning problem: its initial state as a track, and the positions of its goals."""

    track: Track
    goals: tuple[Element, ...]


def logs_of(path: Path, *, number: int, content: bytes | None = None) -> list[tuple[str, SceneLog | str]]:
    """A scene of each vehicle that moves and of each planning problem, or why it makes none, each with its
    name; numbered from `number` on. `content` is what the file holds, where it has been read before.

    Raises UserError, naming file and record, where the file is malformed, has no road, or a figure is not
    finite.
    """
    root = parse(path, read(path) if content is None else content)
    step = number_in(root.get("timeStepSize"), f"{path}: timeStepSize")
    if step <= 0:
        raise UserError(f"{path}: timeStepSize={step:g} is not above 0")
    if step > LONGEST_STEP:
        raise UserError(f"{path}: timeStepSize={step:g} is longer than the 4 s of a plan; it counts seconds")
    obstacles = [obstacle for element in root for obstacle in obstacles_of(element, path, step)]
    problems = [problem_of(element, path, step) for element in root.findall("planningProblem")]
    drivers = [i for i, obstacle in enumerate(obstacles) if obstacle.like_car]
    riders = [i for i, obstacle in enumerate(obstacles) if obstacle.on_wheels]
    if not riders and not problems:
        return [(path.name, "nobody drives in it, and no planning problem is posed")]
    file = Scenario(path, number, [obstacle.track for obstacle in obstacles], network_of(root, path, step))
    found = file.logs(drivers, problems)
    if gives(found) or not riders:
        return found
    others = file.logs(riders, (), lenient=True)
    return others if gives(others) else found or others


def gives(logs: Sequence[tuple[str, SceneLog | str]]) -> bool:
    """Whether any of what may be scenes is one."""
    return any(isinstance(log, SceneLog) for _, log in logs)


@dataclass(frozen=True)
class Scenario:
    """A file as it was read; the scenes of it are numbered from `number` on."""

    path: Path
    number: int
    tracks: Sequence[Track]
    network: Network

    def logs(
        self, egos: Sequence[int], problems: Sequence[Problem], *, lenient: bool = False
    ) -> list[tuple[str, SceneLog | str]]:
        """The scene of each of these tracks and problems, or why it makes none; `lenient`: of those, too, who
        are there for a moment, or go less than 15 m.
        """
        own = [*(self.tracks[ego] for ego in egos), *(problem.track for problem in problems)]
        around = surroundings_of(self.network, own) if own else []
        found: list[SceneLog | str] = []
        for k, (track, near) in enumerate(zip(own, around, strict=True)):
            number = self.number + k
            if isinstance(near, str):
                found.append(near)
            elif k >= len(egos):
                goals = problems[k - len(egos)].goals  # read here: one that is not driven refuses nothing
                at = f"{self.path}: {track.name}, goalState"
                regions = [region for goal in goals for region in regions_of(goal, self.network.place, at)]
                found.append(log_to_goal(track, regions, self.tracks, near, number=number))
            elif track.has_future or lenient:
                found.append(log_of(self.tracks, egos[k], near, number=number, lenient=lenient))
            else:
                found.append(f"there for {track.seconds:.1f} s, less than from key frame to key frame")
        return [(f"{self.path.name}, {track.name}", log) for track, log in zip(own, found, strict=True)]


def surroundings_of(network: Network, tracks: Sequence[Track]) -> list[Surroundings | str]:
    """What surrounds each of the tracks: the same for all, unless together they go too far for that."""
    shared = network.around(np.concatenate([track.pose[:, :2] for track in tracks]))
    if not isinstance(shared, str):
        return [shared] * len(tracks)
    return [network.around(track.pose[:, :2]) for track in tracks]


# --- Obstacles ---


def obstacles_of(element: Element, path: Path, step: float) -> Iterator[Obstacle]:
    """The obstacle that an element is, if it is one; in files of 2018b its role is a child."""
    roles = {"staticObstacle": "static", "dynamicObstacle": "dynamic", "obstacle": element.findtext("role")}
    if element.tag not in roles:
        return
    role = (roles[element.tag] or "").strip()
    name = f"obstacle {element.get('id')}"
    where = f"{path}: {name}"
    initial = element.find("initialState")
    if role not in ("static", "dynamic") or initial is None:
        missing = "initialState" if initial is None else "role, static or dynamic"
        raise UserError(f"{where} has no {missing}")
    shape = element.find("shape")
    if role == "static":
        _, pose, _ = motion_of([initial], where, step)
        for one in boxes_of(shape, where):
            poses, time = one.placed(np.repeat(pose, 2, axis=0)), np.array([-ALWAYS, ALWAYS])
            yield Obstacle(Track(name, PARKED, one.size, time, poses, np.zeros((2, 2)), np.inf), False, False)
        return
    box = box_of(shape, where, along=True)
    if max(box.size) > LONGEST:
        return
    known, areas = element.findall("trajectory/state"), element.findall("occupancySet/occupancy")
    time, pose, velocity = motion_of([initial, *known, *areas], where, step)
    word = element.findtext("type", "").strip()
    kind = KINDS.get(word, CAR)
    track = Track(name, kind, box.size, time, box.placed(pose), velocity, gap=1.5 * step)
    like_car = kind == CAR and word not in (ON_RAILS, "motorcycle") and box.size[0] > SHORTEST and not areas
    yield Obstacle(track, like_car, on_wheels=kind != PEDESTRIAN and word != ON_RAILS)


def motion_of(elements: Sequence[Element], where: str, step: float) -> tuple[Floats, Floats, Floats | None]:
    """The times (n,) in seconds, poses (n, 3) and velocities (n, 2) of an obstacle's states, initial one
    first, without those that have no position or repeat the one before; no velocities where a state has none.

    Raises UserError where the first has no position, or one is earlier than the one before it.
    """
    states: list[list[float]] = []
    for i, element in enumerate(elements):
        state = state_of(element, at := f"{where}, state {i}")
        if state is None and not states:
            raise UserError(f"{at} has no position")
        if state is None or (states and state[0] == states[-1][0]):
            continue
        if states and state[0] < states[-1][0]:
            raise UserError(f"{at} is not later than the state before it")
        states.append(state)
    time, x, y, own, speed, across = np.array(states).T
    place, sideways = np.column_stack([x, y]), np.nan_to_num(across)
    yaw = orientations(place, own, np.nan_to_num(speed), across)
    if np.isnan(speed).any():
        return step * time, np.column_stack([place, yaw]), None
    is_point_mass = np.isnan(own) & ~np.isnan(across)
    frames = np.column_stack([0 * place, np.where(is_point_mass, 0.0, yaw)])
    return step * time, np.column_stack([place, yaw]), from_frame(np.column_stack([speed, sideways]), frames)


def state_of(element: Element, where: str) -> list[float] | None:
    """The state that an element describes: its time (steps), x, y, orientation, and velocity along and
    across: of a vehicle that has an orientation as it sees them, of a point mass along x and y; NaN for what
    it does not have. None where it has no position.
    """
    position = element.find("shape" if element.tag == "occupancy" else "position")
    place = None if position is None else centre_of(position, where)
    if place is None:
        return None
    time = optional_value(element, "time", where)
    if time is None and element.tag != "initialState":
        raise UserError(f"{where} has no time")
    rest = [optional_value(element, tag, where) for tag in ("orientation", "velocity", "velocityY")]
    return [time or 0.0, *place, *(np.nan if value is None else value for value in rest)]


def orientations(place: Floats, own: Floats, speed: Floats, across: Floats) -> Floats:
    """The orientation (n,) of each state: its own, or that of its velocity, or of the way to the next one;
    the nearest other one's where that is no way either, and 0 where no state has any.
    """
    ahead = np.diff(place, axis=0, append=2 * place[-1:] - place[-2:-1] if len(place) > 1 else place[-1:])
    of_way = np.where(np.hypot(*ahead.T) > LEAST_STEP, np.arctan2(ahead[:, 1], ahead[:, 0]), np.nan)
    of_velocity = np.where(np.hypot(speed, across) > 0, np.arctan2(across, speed), of_way)
    yaw = np.where(np.isnan(own), of_velocity, own)
    known = np.flatnonzero(~np.isnan(yaw))
    if not len(known):
        return np.zeros(len(yaw))
    nearest = np.abs(np.arange(len(yaw))[:, None] - known).argmin(axis=1)
    return yaw[known[nearest]]


# --- Planning problems ---


def problem_of(element: Element, path: Path, step: float) -> Problem:
    """A planning problem. Raises UserError where it has no initial state."""
    name = f"planning problem {element.get('id')}"
    initial = element.find("initialState")
    if initial is None:
        raise UserError(f"{path}: {name} has no initialState")
    time, pose, velocity = motion_of([initial], f"{path}: {name}", step)
    goals = [*element.findall("goalState/position"), *element.findall("goalRegion/state/position")]
    return Problem(Track(name, CAR, EGO_SIZE, time, pose, velocity, gap=1.5 * step), tuple(goals))


def regions_of(goal: Element, place: Mapping[str, int], where: str) -> list[Region]:
    """Where the position of a goal lies: on lanes of the road network, or around a centre."""
    lanes = references(goal, "lanelet")
    if lanes:
        return [Region(lane=place[name]) for name in lanes if name in place]
    centre = centre_of(goal, where)
    return [] if centre is None else [Region(centre=centre)]
