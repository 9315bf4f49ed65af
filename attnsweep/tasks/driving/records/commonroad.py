"""Scenes from CommonRoad scenario files (XML, formats 2018b and 2020a), such as recorded NGSIM traffic.

Every car, bus or truck that moves is the ego of a scene of its own, as long as it was there. What the ego
senses is simulated on the recorded boxes, with the same scanner as in the own world. What a file leaves open:

- The road reaches 0.8 m beyond the outermost lanes.
- Where no bound of a lanelet has a marking, borders are painted solid and dividers dashed; where some have,
  only those are painted.
- A stop line without points lies across the end of its lanelet. Lights go by the cycles in the file.
- References to lanelets that are not in the file, as in cut-outs of maps, lead nowhere.
- Sidewalks, bicycle lanes and crosswalks are not drivable; the bounds of crosswalks are painted.
- Obstacles longer than 30 m, such as buildings and trains, are left out.
- An obstacle that has occupancies instead of a trajectory is there in its initial state alone.

Format: Althoff, Koschi, Manzinger, "CommonRoad: Composable benchmarks for motion planning on roads", IV 2017;
commonroad.in.tum.de. Document types, and with them entities, are refused: a file can only hold data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.samples import SceneLog
from attnsweep.tasks.driving.records.tracks import LONGEST, Surroundings, Track, distinct, log_of, part_of_map
from attnsweep.tasks.driving.world.cast import CAR, PARKED, PEDESTRIAN
from attnsweep.tasks.driving.world.geometry import Floats, from_frame, offset, resample, stations
from attnsweep.tasks.driving.world.roads import DrivableArea, dashed, drivable_area

FORMATS = ("2018b", "2020a")
ON_FOOT, CROSSWALK = ("sidewalk", "bicycleLane", "crosswalk"), "crosswalk"
STOPS = ("red", "yellow", "redYellow")  # colours of a light at which one does not drive
EDGE = 0.8  # m, drivable beyond a lane's outer edge, of which recorded drivers use up to 0.6
LARGEST = 1e9  # of all figures in a file; of finite ones
SHORTEST = 2.5  # m; what is shorter, such as a bicycle, is no ego
ALWAYS = 1e6  # s, before and after which nothing stands any more


@dataclass(frozen=True)
class Lanelet:
    """A lanelet: its bounds (n, 2) in the direction of travel and their markings ("": none), the lanelets
    that follow it, its neighbour on the left (None: it has none) and whether that one is driven the same way,
    and where one stops on it for which lights.
    """

    kind: str
    left: Floats
    right: Floats
    markings: tuple[str, str]
    successors: tuple[str, ...]
    beside: str | None
    same_way: bool
    stop_line: Floats | None
    lights: tuple[str, ...]

    @property
    def on_foot(self) -> bool:
        return self.kind in ON_FOOT


def logs_of(path: Path, *, number: int, content: bytes | None = None) -> list[tuple[str, SceneLog | str]]:
    """A scene of each car that moves, or why it makes none, each with its name; numbered from `number`
    on. `content` is what the file holds, where it has been read before.

    Raises UserError, naming file and record, where the file is malformed or a figure is not finite.
    """
    root = parse(path, read(path) if content is None else content)
    step = number_in(root.get("timeStepSize"), f"{path}: timeStepSize")
    if step <= 0:
        raise UserError(f"{path}: timeStepSize={step:g} is not above 0")
    tracks = [track for element in root for track in tracks_of(element, path, step)]
    egos = [i for i, track in enumerate(tracks) if track.kind == CAR and track.size[0] > SHORTEST]
    if not egos:
        return [(path.name, "no car moves in it")]
    around = surroundings_of(root, path, step, np.concatenate([tracks[i].pose[:, :2] for i in egos]))
    return [
        (f"{path.name}, {tracks[ego].name}", log_of(tracks, ego, around, number=number + k))
        for k, ego in enumerate(egos)
    ]


# --- XML ---


def read(path: Path) -> bytes:
    """What a file holds."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def parse(path: Path, content: bytes) -> Element:
    """The root of a scenario file."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise UserError(f"{path} has a document type, which no CommonRoad file needs; remove it")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise UserError(f"{path} is not well-formed XML: {error}") from None
    root = builder.close()
    if root.tag != "commonRoad" or root.get("commonRoadVersion") not in FORMATS:
        version = root.get("commonRoadVersion")
        formats = " or ".join(FORMATS)
        raise UserError(f"{path} is a <{root.tag}> of version {version}; use CommonRoad of {formats}")
    return root


def number_in(text: str | None, where: str) -> float:
    """The finite number that a text holds, of a size that occurs."""
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not abs(value) < LARGEST:
        raise UserError(f"{where} is {text!r}, not a finite number")
    return value


def value_in(element: Element, tag: str, where: str) -> float:
    """A quantity, exact or the middle of an interval."""
    found = element.find(tag)
    if found is None:
        raise UserError(f"{where} has no {tag}")
    start = found.findtext("intervalStart")
    if start is None:
        return number_in(found.findtext("exact"), f"{where}, {tag}")
    ends = (start, found.findtext("intervalEnd"))
    return sum(number_in(text, f"{where}, {tag}") for text in ends) / 2


def points_in(element: Element | None, where: str) -> Floats:
    """The points (n, 2) right below an element."""
    points = [] if element is None else element.findall("point")
    xy = [[number_in(point.findtext(axis), f"{where}, {axis}") for axis in "xy"] for point in points]
    return np.array(xy).reshape(-1, 2)


# --- The map ---


def surroundings_of(root: Element, path: Path, step: float, agents: Floats) -> Surroundings:
    """The map of a scenario, around agents (n, 2)."""
    lanelets = {str(one.get("id")): lanelet_of(one, path) for one in root.findall("lanelet")}
    driven = {name: one for name, one in lanelets.items() if not one.on_foot}
    if not driven:
        raise UserError(f"{path} has no lanelet on which one drives")
    place = {name: i for i, name in enumerate(driven)}
    polygons = [
        np.concatenate([offset(one.left, EDGE), offset(one.right, -EDGE)[::-1]]) for one in driven.values()
    ]
    area = drivable_area(polygons, within=part_of_map(np.concatenate(polygons), agents, str(path)))
    dividers = tuple(
        one.left
        for name, one in driven.items()
        if one.beside in driven and (one.same_way or place[name] < place[str(one.beside)])
    )
    stops = [(one.stop_line, one.lights) for one in driven.values() if one.stop_line is not None]
    lines = tuple(line for line, _ in stops)
    return Surroundings(
        centres=tuple((one.left + one.right) / 2 for one in driven.values()),
        successors=tuple(
            tuple(place[name] for name in one.successors if name in place) for one in driven.values()
        ),
        drivable=area,
        dividers=dividers,
        paint=paint_of(list(lanelets.values()), area, [*dividers], [*lines]),
        stop_lines=lines,
        red=reds([lights for _, lights in stops], lights_of(root, path, step)),
    )


def lanelet_of(element: Element, path: Path) -> Lanelet:
    """A lanelet; where its bounds have unequally many points, both get as many as the longer list."""
    where = f"{path}: lanelet {element.get('id')}"
    bounds = [element.find(tag) for tag in ("leftBound", "rightBound")]
    sides = [
        distinct_points(bound, f"{where}, {side}")
        for bound, side in zip(bounds, ("left", "right"), strict=True)
    ]
    left, right = sides
    if len(left) != len(right):
        count = max(len(left), len(right))
        left, right = evenly(left, count), evenly(right, count)
    beside, stop = element.find("adjacentLeft"), element.find("stopLine")
    refs = [*element.findall("trafficLightRef"), *([] if stop is None else stop.findall("trafficLightRef"))]
    lights = tuple(dict.fromkeys(str(ref.get("ref")) for ref in refs))
    stop_line = None
    if stop is not None or lights:
        stop_line = points_in(stop, f"{where}, stopLine")
        stop_line = stop_line if len(stop_line) == 2 else np.stack([left[-1], right[-1]])
    marked = ["" if bound is None else bound.findtext("lineMarking", "").strip() for bound in bounds]
    return Lanelet(
        kind=element.findtext("laneletType", "").strip(),
        left=left,
        right=right,
        markings=(marked[0], marked[1]),
        successors=tuple(str(one.get("ref")) for one in element.findall("successor")),
        beside=None if beside is None else beside.get("ref"),
        same_way=beside is not None and beside.get("drivingDir") == "same",
        stop_line=stop_line,
        lights=lights,
    )


def distinct_points(bound: Element | None, where: str) -> Floats:
    """The points (n, 2) of a bound, two at least."""
    points = points_in(bound, f"{where} bound")
    kept = distinct(points) if len(points) else points
    if len(kept) < 2:
        raise UserError(f"{where} bound has {len(kept)} different points; it takes 2 for a line")
    return kept


def evenly(xy: Floats, count: int) -> Floats:
    """The polyline through `count` points at equal distances."""
    along = stations(xy)
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, xy[:, k]) for k in range(2)], axis=1)


def paint_of(
    lanelets: Sequence[Lanelet], area: DrivableArea, dividers: list[Floats], stop_lines: list[Floats]
) -> Floats:
    """Points (n, 2) of all that is painted, a point each half metre."""
    marked = [
        (line, marking)
        for one in lanelets
        for line, marking in zip((one.left, one.right), one.markings, strict=True)
    ]
    if any(marking for _, marking in marked):
        dashes = [line for line, marking in marked if "dashed" in marking]
        solid = [line for line, marking in marked if "solid" in marking]
    else:
        dashes, solid = dividers, area.contours(EDGE)
    crossings = [line for one in lanelets if one.kind == CROSSWALK for line in (one.left, one.right)]
    points = [dashed(line) for line in dashes]
    points += [resample(line, 0.5) for line in (*solid, *crossings, *stop_lines)]
    return np.unique(np.concatenate([np.zeros((0, 2)), *points]), axis=0)


def lights_of(root: Element, path: Path, step: float) -> dict[str, tuple[Floats, list[bool], float]]:
    """The active lights: the ends (n,) of the phases of a cycle in seconds, whether one stops in each, and
    when the cycle began.
    """
    lights = {}
    for light in root.findall("trafficLight"):
        where = f"{path}: trafficLight {light.get('id')}"
        phases = light.findall("cycle/cycleElement")
        if not phases or light.findtext("active", "true").strip() == "false":
            continue
        lasts = [number_in(phase.findtext("duration"), f"{where}, duration") for phase in phases]
        if min(lasts) < 0 or sum(lasts) <= 0:
            raise UserError(f"{where} has a cycle of durations {lasts}; they must be above 0")
        began = number_in(light.findtext("cycle/timeOffset", "0"), f"{where}, timeOffset")
        stops = [phase.findtext("color", "").strip() in STOPS for phase in phases]
        lights[str(light.get("id"))] = (np.cumsum(lasts) * step, stops, began * step)
    return lights


def reds(
    groups: list[tuple[str, ...]], lights: dict[str, tuple[Floats, list[bool], float]]
) -> Callable[[Floats], NDArray[np.bool_]]:
    """From times (t,), which stop lines (t, lines) show red: those of whose lights none lets one drive."""

    def red(times: Floats) -> NDArray[np.bool_]:
        shown = np.zeros((len(times), len(groups)), dtype=bool)
        for line, group in enumerate(groups):
            active = [lights[name] for name in group if name in lights]
            stops = [
                np.array(stop)[
                    np.searchsorted(ends, (times - began) % ends[-1] + 1e-9, side="right") % len(ends)
                ]
                for ends, stop, began in active
            ]
            shown[:, line] = np.all(stops, axis=0) if stops else False
        return shown

    return red


# --- Obstacles ---


def tracks_of(element: Element, path: Path, step: float) -> Iterator[Track]:
    """The track of an element that is an obstacle."""
    roles = {"staticObstacle": "static", "dynamicObstacle": "dynamic", "obstacle": element.findtext("role")}
    role = (roles.get(element.tag) or "").strip()
    if element.tag not in roles:
        return
    name = f"obstacle {element.get('id')}"
    where = f"{path}: {name}"
    initial = element.find("initialState")
    if role not in ("static", "dynamic") or initial is None:
        missing = "initialState" if initial is None else "role, static or dynamic"
        raise UserError(f"{where} has no {missing}")
    middle, size = box_of(element.find("shape"), where)
    if max(size) > LONGEST:
        return
    if role == "static":
        pose = pose_of(initial, f"{where}, initialState", middle)
        time = np.array([-ALWAYS, ALWAYS])
        yield Track(name, PARKED, size, time, np.stack([pose, pose]), np.zeros((2, 2)), np.inf)
        return
    kind = PEDESTRIAN if element.findtext("type", "").strip() == "pedestrian" else CAR
    states = [initial, *element.findall("trajectory/state")]
    names = [f"{where}, state {i}" for i in range(len(states))]
    time = np.array([value_in(one, "time", at) for one, at in zip(states, names, strict=True)]) * step
    late = np.flatnonzero(np.diff(time) <= 0)
    if len(late):
        raise UserError(f"{names[late[0] + 1]} is not later than the state before it")
    poses = np.array([pose_of(one, at, middle) for one, at in zip(states, names, strict=True)])
    velocity = None
    if all(one.find("velocity") is not None for one in states):
        speed = np.array([value_in(one, "velocity", at) for one, at in zip(states, names, strict=True)])
        velocity = speed[:, None] * np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=1)
    yield Track(name, kind, size, time, poses, velocity, gap=1.5 * step)


def pose_of(state: Element, where: str, middle: Floats) -> Floats:
    """The pose (3,) of a box whose middle lies at `middle` in the obstacle's frame; where a position is an
    area, its own middle counts.
    """
    place = state.find("position")
    points = points_in(place, f"{where}, position")
    if not len(points) and place is not None:
        points = box_points(place, where)
    if not len(points):
        raise UserError(f"{where} has no position")
    yaw = value_in(state, "orientation", where)
    at = (points.min(axis=0) + points.max(axis=0)) / 2
    return np.array([*from_frame(middle, np.array([*at, yaw])), yaw])


def box_of(shape: Element | None, where: str) -> tuple[Floats, tuple[float, float]]:
    """The middle (2,) of the box around a shape in its obstacle's frame, and its length and width."""
    points = np.zeros((0, 2)) if shape is None else box_points(shape, where)
    if not len(points):
        raise UserError(f"{where} has no shape; use rectangle, circle or polygon")
    low, high = points.min(axis=0), points.max(axis=0)
    if not (high > low).all():
        raise UserError(f"{where} has a shape without area")
    return (low + high) / 2, (float(high[0] - low[0]), float(high[1] - low[1]))


def box_points(shape: Element, where: str) -> Floats:
    """The corners (n, 2) of all rectangles, circles and polygons below an element."""
    corners = [points_in(one, f"{where}, polygon") for one in shape.findall("polygon")]
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    for one in (*shape.findall("rectangle"), *shape.findall("circle")):
        at = [number_in(one.findtext(f"center/{axis}", "0"), f"{where}, center") for axis in "xy"]
        turn = number_in(one.findtext("orientation", "0"), f"{where}, orientation")
        tags = ("length", "width") if one.tag == "rectangle" else ("radius", "radius")
        half = np.array([number_in(one.findtext(tag), f"{where}, {tag}") for tag in tags])
        half = half / 2 if one.tag == "rectangle" else half
        corners.append(from_frame(signs * half, np.array([*at, turn])))
    return np.concatenate([np.zeros((0, 2)), *corners])
