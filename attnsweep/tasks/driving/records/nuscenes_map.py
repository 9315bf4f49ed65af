"""A city's map in nuScenes' map expansion, version 1.3: nodes, polygons, lines, drivable areas, dividers,
crosswalks and lanes' paths.

Borders of the road count as painted, since a scanner sees kerbs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.nuscenes_tables import Row, figures, parse, pick, rows
from attnsweep.tasks.driving.records.routes import OFF_MAP, Lanes
from attnsweep.tasks.driving.records.tracks import WIDEST, Surroundings, part_of_map
from attnsweep.tasks.driving.world.geometry import Floats, distinct, headings, resample, wrap
from attnsweep.tasks.driving.world.roads import SHOULDER, dashed, drivable_area

SHAPES = {  # of a map, and what a record of each must have
    "node": ("x", "y"),
    "polygon": ("exterior_node_tokens", "holes"),
    "line": ("node_tokens",),
}
LAYERS = {
    "drivable_area": ("polygon_tokens",),
    "ped_crossing": ("polygon_token",),
    "lane_divider": ("line_token", "lane_divider_segments"),
    "road_divider": ("line_token",),
}
ARC = ("start_pose", "shape", "radius", "segment_length")
JOINED, ALIKE = 0.5, 0.5  # m and rad, within which the end of a lane is the start of the next


@dataclass(frozen=True)
class StreetMap:
    """A city's map: middles of lanes, drivable polygons with their holes, dividers with how they are painted,
    and the outlines of crosswalks.
    """

    lanes: list[Floats]
    areas: list[tuple[Floats, list[Floats]]]
    dividers: list[tuple[Floats, str]]
    crosswalks: list[Floats]

    def around(self, way: Floats) -> Surroundings | str:
        """What of it lies around a way (n, 2), or why that is too much."""
        points = np.concatenate([way, *self.lanes, *(polygon for polygon, _ in self.areas)])
        within = part_of_map(points, way)
        if isinstance(within, str):
            return within
        centres = [line for line in self.lanes if reaches(line, within)]
        dividers = [(line, paint) for line, paint in self.dividers if reaches(line, within)]
        areas = [area for area in self.areas if reaches(area[0], within)]
        drivable = drivable_area([one[0] for one in areas], holes=[one[1] for one in areas], within=within)
        paint = [dashed(line) for line, marking in dividers if "DASHED" in marking]
        paint += [resample(line, 0.5) for line, marking in dividers if marking and "DASHED" not in marking]
        paint += [resample(line, 0.5) for line in self.crosswalks if reaches(line, within)]
        paint += [resample(line, 0.5) for line in drivable.contours(SHOULDER)]
        return Surroundings(
            lanes=Lanes(tuple(centres), (OFF_MAP,) * len(centres), successors_of(centres)),
            drivable=drivable,
            dividers=tuple(line for line, _ in dividers),
            paint=np.concatenate([np.zeros((0, 2)), *paint]),
        )


def reaches(line: Floats, within: Floats) -> bool:
    """Whether the box around a line overlaps another, given by its lowest and highest x and y."""
    return bool((line.max(axis=0) >= within[0]).all() and (line.min(axis=0) <= within[1]).all())


def successors_of(lanes: Sequence[Floats]) -> tuple[tuple[int, ...], ...]:
    """The lanes that begin where each ends, in the same direction."""
    if not lanes:
        return ()
    starts, ends = np.array([line[0] for line in lanes]), np.array([line[-1] for line in lanes])
    leaves, arrives = (np.array([headings(line)[k] for line in lanes]) for k in (0, -1))
    near = np.hypot(*(starts[None] - ends[:, None]).transpose(2, 0, 1)) < JOINED
    follows = near & (np.abs(wrap(leaves[None] - arrives[:, None])) < ALIKE)
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in follows)


class Shapes:
    """The points, polygons and lines of a map file, by token."""

    def __init__(self, content: Row, file: Path) -> None:
        self.file, self.tables = file, {}
        for name, fields in SHAPES.items():
            self.tables[name] = rows(content[name], f"{file}: {name}", ("token", *fields))

    def points(self, tokens: object, where: str, least: int) -> Floats:
        """The points (n, 2) of a list of nodes."""
        names = tokens if isinstance(tokens, list) else []
        nodes = [pick(self.tables, "node", one, where) for one in names]
        if len(nodes) < least:
            raise UserError(f"{where} has {len(nodes)} nodes; it takes {least}")
        return np.array(
            [figures([row["x"], row["y"]], 2, f"{self.file}: node {row['token']}") for row in nodes]
        )

    def polygon(self, token: object, where: str) -> tuple[Floats, list[Floats]]:
        """A polygon and its holes."""
        row, where = pick(self.tables, "polygon", token, where), f"{self.file}: polygon {token}"
        gaps = [hole.get("node_tokens") if isinstance(hole, dict) else None for hole in row["holes"]]
        outline = self.points(row["exterior_node_tokens"], where, 3)
        return outline, [self.points(gap, f"{where}, hole", 3) for gap in gaps]

    def line(self, token: object, where: str) -> Floats:
        """A line without repeated points."""
        row = pick(self.tables, "line", token, where)
        return distinct(self.points(row["node_tokens"], f"{self.file}: line {token}", 2))


def read_map(folder: Path, location: str) -> StreetMap:
    """The map of a location, out of the folder of the map expansion."""
    file = folder / f"{location}.json"
    if file not in set(folder.glob("*.json")):
        raise UserError(f"{file} is missing; it belongs to nuScenes' map expansion, version 1.3")
    content = parse(file)
    missing = [name for name in (*SHAPES, *LAYERS, "arcline_path_3") if name not in content]
    if missing or not isinstance(content["arcline_path_3"], dict):
        raise UserError(
            f"{file} has no {(missing or ['arcline_path_3'])[0]}; use the map expansion, version 1.3"
        )
    shapes = Shapes(content, file)
    layers = {
        name: rows(content[name], f"{file}: {name}", ("token", *fields)) for name, fields in LAYERS.items()
    }
    areas = [
        shapes.polygon(polygon, f"{file}: drivable_area {token}")
        for token, row in layers["drivable_area"].items()
        for polygon in row["polygon_tokens"]
    ]
    dividers = [
        (shapes.line(row["line_token"], f"{file}: {name} {token}"), marking_of(row))
        for name in ("lane_divider", "road_divider")
        for token, row in layers[name].items()
    ]
    crosswalks = [
        shapes.polygon(row["polygon_token"], f"{file}: ped_crossing {token}")[0]
        for token, row in layers["ped_crossing"].items()
    ]
    lanes = [
        path_of(arcs, f"{file}: arcline_path_3 {token}") for token, arcs in content["arcline_path_3"].items()
    ]
    return StreetMap(
        lanes=[line for line in lanes if len(line) > 1],
        areas=areas,
        dividers=[(line, marking) for line, marking in dividers if len(line) > 1],
        crosswalks=crosswalks,
    )


def marking_of(divider: Row) -> str:
    """How most of a divider is painted; "" where most of it is not. Dividers that do not say are solid."""
    segments = divider.get("lane_divider_segments")
    kinds = Counter(str(one.get("segment_type")) for one in segments or [] if isinstance(one, dict))
    found = kinds.most_common(1)[0][0] if kinds else "SOLID"
    return "" if found == "NIL" else found


def path_of(arcs: object, where: str) -> Floats:
    """The line (n, 2), a point about each metre, of a lane's path: per record three parts of arcs or straight
    lines, L, S or R, of one radius.
    """
    points = [np.zeros((0, 2))]
    for arc in arcs if isinstance(arcs, list) else []:
        missing = [one for one in ARC if not isinstance(arc, dict) or one not in arc]
        if missing:
            raise UserError(f"{where} has no {missing[0]}")
        x, y, yaw = figures(arc["start_pose"], 3, f"{where}, start_pose")
        (radius,) = figures([arc["radius"]], 1, f"{where}, radius")
        lengths = figures(arc["segment_length"], 3, f"{where}, segment_length", most=WIDEST)
        points.append(np.array([[x, y]]))
        for turn, length in zip(str(arc["shape"]), lengths, strict=False):
            bend = {"L": 1.0, "R": -1.0}.get(turn, 0.0) / max(radius, 1e-3)
            s = np.linspace(0.0, length, max(2, round(length) + 1))[1:]
            # along a chord of an arc: sinc, which is 1 on a straight line
            chord, course = s * np.sinc(bend * s / (2 * np.pi)), yaw + bend * s / 2
            points.append(np.stack([x + chord * np.cos(course), y + chord * np.sin(course)], axis=1))
            (x, y), yaw = points[-1][-1], yaw + bend * length
    line = np.concatenate(points)
    return distinct(line) if len(line) else line
