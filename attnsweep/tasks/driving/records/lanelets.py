"""The road network of a CommonRoad file: lanelets, what is painted, and traffic lights. What a file leaves
open:

- The road reaches 0.8 m beyond the outermost lanelets.
- Where no bound of a lanelet has a marking, borders are painted solid and dividers dashed; where some have,
  only those are painted.
- A stop line without points lies across the end of its lanelet. Lights go by the cycles in the file.
- References to lanelets that are not in the file, as in cut-outs of maps, lead nowhere.
- Sidewalks, bicycle lanes and crosswalks are not drivable, nor are lanelets that are open to no motor
  vehicle, unless a file has no others; the bounds of crosswalks are painted.
- A bound whose points all coincide is one point: its lanelet is a triangle. Lanelets whose centre line is a
  point, because both bounds are, or because they run against each other, lead nowhere and are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.core.text import counted
from attnsweep.tasks.driving.records.commonroad_xml import number_in, points_in, references
from attnsweep.tasks.driving.records.routes import OFF_MAP, Lanes
from attnsweep.tasks.driving.records.tracks import Surroundings, part_of_map
from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.geometry import Flags, Floats
from attnsweep.tasks.driving.world.roads import DrivableArea, dashed, drivable_area

NOT_DRIVABLE, CROSSWALK = {"sidewalk", "bicycleLane", "crosswalk"}, "crosswalk"
MOTOR_VEHICLES = {"vehicle", "car", "truck", "bus", "motorcycle", "priorityVehicle", "taxi"}
STOPS = ("red", "yellow", "redYellow")  # colours of a light at which one does not drive
EDGE = 0.8  # m, drivable beyond a lane's outer edge, of which recorded drivers use up to 0.6
Light = tuple[Floats, list[bool], float]  # see `lights_of`
SIDES = ("left", "right")
SAME = 1e-9  # of a bound's length; breakpoints that are closer are one


@dataclass(frozen=True)
class Lanelet:
    """A lanelet: its types; its bounds (n, 2) in the direction of travel, with breakpoints at the same shares
    of their lengths, and their markings ("": none); the lanelets that follow it and that it follows; its
    neighbours on the left and on the right, and those of them that are driven the same way; where one stops
    on it for which lights.
    """

    types: frozenset[str]
    users: frozenset[str]
    left: Floats
    right: Floats
    markings: tuple[str, str]
    successors: tuple[str, ...]
    predecessors: tuple[str, ...]
    neighbours: tuple[str, ...]
    beside: tuple[str | None, str | None]
    stop_line: Floats | None
    lights: tuple[str, ...]

    @property
    def drivable(self) -> bool:
        """Whether motor vehicles drive on it."""
        return not self.types & NOT_DRIVABLE and (not self.users or bool(self.users & MOTOR_VEHICLES))

    @property
    def centre(self) -> Floats:
        """The centre line (n, 2)."""
        return geometry.distinct((self.left + self.right) / 2)

    @property
    def half_width(self) -> float:
        """How far (m) its bounds lie from its centre line, where it is widest."""
        return float(np.abs(geometry.project(self.left, self.right)[1]).max()) / 2


@dataclass(frozen=True)
class Network:
    """All lanelets of a file and those on which one drives, by id, and its lights as in `lights_of`."""

    lanelets: Mapping[str, Lanelet]
    driven: Mapping[str, Lanelet]
    lights: Mapping[str, Light]

    @property
    def place(self) -> dict[str, int]:
        """The place of each lane in `Surroundings`, by the id of its lanelet."""
        return {name: i for i, name in enumerate(self.driven)}

    def around(self, agents: Floats) -> Surroundings | str:
        """What surrounds agents (n, 2), or why that is too much."""
        lanes, place = list(self.driven.values()), self.place
        edges = [(geometry.offset(one.left, EDGE), geometry.offset(one.right, -EDGE)) for one in lanes]
        polygons = [polygon for left, right in edges for polygon in surfaces(left, right)]
        within = part_of_map(np.concatenate(polygons), agents)
        if isinstance(within, str):
            return within
        area = drivable_area(polygons, within=within)
        dividers = dividers_of(self.driven)
        stops = [(one.stop_line, one.lights) for one in lanes if one.stop_line is not None]
        lines = tuple(line for line, _ in stops)
        return Surroundings(
            lanes=Lanes(
                tuple(one.centre for one in lanes),
                tuple(max(OFF_MAP, one.half_width) for one in lanes),
                successors_of(self.driven, place),
                tuple(tuple(place[n] for n in one.neighbours if n in place) for one in lanes),
            ),
            drivable=area,
            dividers=dividers,
            paint=paint_of(list(self.lanelets.values()), area, dividers, lines),
            stop_lines=lines,
            red=reds([lights for _, lights in stops], self.lights),
        )


def surfaces(left: Floats, right: Floats) -> list[Floats]:
    """The polygon between two edges (n, 2); or, where it crosses itself, as that of a loop does, which would
    be filled by the even-odd rule, the quadrangles from point to point.
    """
    import shapely  # here: a sweep that reads no such file need not wait for it

    whole = np.concatenate([left, right[::-1]])
    if shapely.Polygon(whole).is_valid:
        return [whole]
    return list(np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1))


def network_of(root: Element, path: Path, step: float) -> Network:
    """The road network of a scenario. Raises UserError where there is none, or an id is there twice."""
    read: dict[str, Lanelet | None] = {}
    for one in root.findall("lanelet"):
        if (name := str(one.get("id"))) in read:
            raise UserError(f"{path} has two lanelets with the id {name}")
        read[name] = lanelet_of(one, path)
    lanelets = {name: one for name, one in read.items() if one is not None}
    driven = {name: one for name, one in lanelets.items() if one.drivable} or lanelets
    if not driven:
        raise UserError(f"{path} has no lanelet that leads anywhere, and so no road")
    return Network(lanelets, driven, lights_of(root, path, step))


def successors_of(driven: Mapping[str, Lanelet], place: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """The lanes that each lane leads to: those that it names, and those that name it as their predecessor."""
    ahead: dict[str, dict[int, None]] = {name: {} for name in driven}
    for name, one in driven.items():
        ahead[name] |= {place[other]: None for other in one.successors if other in place}
        for other in one.predecessors:
            if other in ahead:
                ahead[other][place[name]] = None
    return tuple(tuple(lanes) for lanes in ahead.values())


def dividers_of(driven: Mapping[str, Lanelet]) -> tuple[Floats, ...]:
    """The lines between lanes, each once, whichever of the two names the other: the left bound of one, or
    else its right bound, as between opposite lanes where one drives on the left.
    """
    lines: dict[frozenset[str], Floats] = {}
    for side in range(2):
        for name, one in driven.items():
            beside = one.beside[side]
            if beside in driven and beside != name:
                lines.setdefault(frozenset((name, str(beside))), (one.left, one.right)[side])
    return tuple(lines.values())


# --- Lanelets ---


def lanelet_of(element: Element, path: Path) -> Lanelet | None:
    """A lanelet, or None where its centre line is a point.

    Raises UserError where a bound has fewer than two points.
    """
    where = f"{path}: lanelet {element.get('id')}"
    bounds = [element.find(tag) for tag in ("leftBound", "rightBound")]
    points = [bound_points(bound, f"{where}, {side}") for bound, side in zip(bounds, SIDES, strict=True)]
    left, right = paired(*points)
    if len(geometry.distinct((left + right) / 2)) == 1:
        return None
    neighbours = [element.find(tag) for tag in ("adjacentLeft", "adjacentRight")]
    beside = [None if one is None else one.get("ref") for one in neighbours]
    marked = ["" if bound is None else bound.findtext("lineMarking", "").strip() for bound in bounds]
    lights, stop_line = stop_of(element, left, right, where)
    return Lanelet(
        types=texts(element, "laneletType"),
        users=texts(element, "userOneWay") | texts(element, "userBidirectional"),
        left=left,
        right=right,
        markings=(marked[0], marked[1]),
        successors=references(element, "successor"),
        predecessors=references(element, "predecessor"),
        neighbours=tuple(
            str(one.get("ref")) for one in neighbours if one is not None and one.get("drivingDir") == "same"
        ),
        beside=(beside[0], beside[1]),
        stop_line=stop_line,
        lights=lights,
    )


def texts(element: Element, tag: str) -> frozenset[str]:
    """The words that children of that tag hold."""
    return frozenset((child.text or "").strip() for child in element.findall(tag)) - {""}


def stop_of(
    element: Element, left: Floats, right: Floats, where: str
) -> tuple[tuple[str, ...], Floats | None]:
    """The lights of a lanelet, and its stop line (2, 2), or None where it has neither line nor light."""
    stop = element.find("stopLine")
    lights = references(element, "trafficLightRef")
    lights += () if stop is None else references(stop, "trafficLightRef")
    if stop is None and not lights:
        return (), None
    line = points_in(stop, f"{where}, stopLine")
    return tuple(dict.fromkeys(lights)), line if len(line) == 2 else np.stack([left[-1], right[-1]])


def bound_points(bound: Element | None, where: str) -> Floats:
    """The points (n, 2) of a bound."""
    points = points_in(bound, f"{where} bound")
    if len(points) < 2:
        raise UserError(f"{where} bound has {counted(len(points), 'point')}; it takes 2 for a line")
    return points


def paired(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Two bounds with equally many points (n, 2), which lie across from each other: their own points in their
    order, as the format has it, or else, where one is repeated or missing, the points at those shares of the
    way along each at which either has a breakpoint. Neither line moves.
    """
    given = len(left) + len(right)
    left, right = geometry.distinct(left), geometry.distinct(right)
    if 2 * len(left) == 2 * len(right) == given:
        return left, right
    if min(len(left), len(right)) == 1:  # a triangle
        wider = np.broadcast_shapes(left.shape, right.shape)
        return np.broadcast_to(left, wider), np.broadcast_to(right, wider)
    shares = [geometry.stations(line) / geometry.stations(line)[-1] for line in (left, right)]
    every = np.unique(np.concatenate(shares))
    every = every[np.concatenate([[True], np.diff(every) > SAME])]
    return geometry.interpolated(every, shares[0], left), geometry.interpolated(every, shares[1], right)


# --- Paint and lights ---


def paint_of(
    lanelets: Sequence[Lanelet], area: DrivableArea, dividers: Sequence[Floats], stop_lines: Sequence[Floats]
) -> Floats:
    """Points (n, 2) of all that is painted, a point each half metre."""
    marked = [pair for one in lanelets for pair in zip((one.left, one.right), one.markings, strict=True)]
    if any(marking for _, marking in marked):
        dashes = [line for line, marking in marked if "dashed" in marking]
        solid = [line for line, marking in marked if "solid" in marking]
    else:
        dashes, solid = [*dividers], area.contours(EDGE)
    crossings = [line for one in lanelets if CROSSWALK in one.types for line in (one.left, one.right)]
    points = [dashed(line) for line in dashes]
    points += [geometry.resample(line, 0.5) for line in (*solid, *crossings, *stop_lines)]
    return np.unique(np.concatenate([np.zeros((0, 2)), *points]), axis=0)


def lights_of(root: Element, path: Path, step: float) -> dict[str, Light]:
    """The active lights: when the phases of a cycle end (n,) in s, in which one stops, and when it began."""
    lights = {}
    for light in root.findall("trafficLight"):
        where = f"{path}: trafficLight {light.get('id')}"
        phases = light.findall("cycle/cycleElement")
        if not phases or light.findtext("active", "true").strip().lower() in ("false", "0"):
            continue
        lasts = [number_in(phase.findtext("duration"), f"{where}, duration") for phase in phases]
        if min(lasts) < 0 or sum(lasts) <= 0:
            raise UserError(f"{where} has a cycle of durations {lasts}; they must be above 0")
        began = number_in(light.findtext("cycle/timeOffset", "0"), f"{where}, timeOffset")
        stops = [phase.findtext("color", "").strip() in STOPS for phase in phases]
        lights[str(light.get("id"))] = (np.cumsum(lasts) * step, stops, began * step)
    return lights


def reds(groups: list[tuple[str, ...]], lights: Mapping[str, Light]) -> Callable[[Floats], Flags]:
    """From times (t,), which stop lines (t, lines) show red: those of whose lights none lets one drive."""

    def red(times: Floats) -> Flags:
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
