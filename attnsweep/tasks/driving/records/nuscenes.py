"""Scenes from a data set in nuScenes' format: its JSON tables and its map expansion, version 1.3.

Read are the tables `scene`, `sample`, `sample_data`, `ego_pose`, `sample_annotation`, `instance`, `category`
and `log`, and of the maps nodes, polygons, lines, drivable areas, dividers, crosswalks and lanes' paths.
Neither images nor lidar sweeps are: what the ego senses is simulated on the recorded boxes, with the same
scanner as in the own world. The ego poses of all sensors are used; no sensor's calibration is needed.

Boxes are annotated at 2 Hz and interpolated; velocities are differences of positions. Kinds go by the names
of categories: `vehicle.*` drives, `human.*` and `animal` walk, everything else stands. Lights are not
recorded: no line shows red. Borders of the road count as painted, since a scanner sees kerbs.

Format: Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020;
github.com/nutonomy/nuscenes-devkit, docs/schema_nuscenes.md. The data are licensed CC BY-NC-SA 4.0.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.routes import OFF_MAP
from attnsweep.tasks.driving.records.samples import SceneLog
from attnsweep.tasks.driving.records.tracks import (
    LONGEST,
    WIDEST,
    Surroundings,
    Track,
    log_of,
    part_of_map,
)
from attnsweep.tasks.driving.world.cast import CAR, CYCLIST, PARKED, PEDESTRIAN
from attnsweep.tasks.driving.world.geometry import Floats, distinct, headings, resample, wrap
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import SHOULDER, dashed, drivable_area

TABLES = {
    "scene": ("token", "name", "log_token"),
    "sample": ("token", "timestamp", "scene_token"),
    "sample_data": ("token", "sample_token", "ego_pose_token", "timestamp"),
    "ego_pose": ("token", "translation", "rotation"),
    "sample_annotation": ("token", "sample_token", "instance_token", "translation", "size", "rotation"),
    "instance": ("token", "category_token"),
    "category": ("token", "name"),
    "log": ("token", "location"),
}
ENDINGS = {"token": str, "name": str, "location": str, "tokens": list, "segments": list, "holes": list}
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
EGO_SIZE = (4.084, 1.730)  # m, of the Renault Zoe that recorded
CENTRE_AHEAD = 1.4  # m, of its centre from the middle of the rear axle, where ego poses are
GAP = 1.1  # s; an agent that misses one annotation is there all the same
FARTHEST, LATEST = 1e7, 1e12  # m and s, of what occurs
LONGEST_S = 600.0  # s, of a scene
JOINED, ALIKE = 0.5, 0.5  # m and rad, within which the end of a lane is the start of the next

Row = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A scene's name, the drive that it is a part of, and its log, or why it makes none."""

    name: str
    drive: str
    log: SceneLog | str


def scenes_of(root: Path) -> Iterator[Scene]:
    """The scenes of a data set in the order of their names, numbered from 0.

    Raises UserError, naming file and record, where something is missing, malformed or not finite.
    """
    folder = version_folder(root)
    tables = {name: table(folder, name, fields) for name, fields in TABLES.items()}
    samples = grouped(tables["sample"], "scene_token")
    data = grouped(tables["sample_data"], "sample_token")
    boxes = grouped(tables["sample_annotation"], "sample_token")
    maps: dict[str, StreetMap] = {}
    for number, scene in enumerate(scene_rows(root)):
        where = f"{folder / 'scene.json'}: {scene['name']}"
        frames = sorted(samples[scene["token"]], key=lambda row: time_of(row, folder, "sample"))
        if not frames:
            yield Scene(scene["name"], scene["log_token"], "it has no sample")
            continue
        ego = ego_track(frames, data, tables, folder)
        others = agent_tracks(frames, boxes, tables, folder)
        location = pick(tables, "log", scene["log_token"], where)["location"]
        if location not in maps:
            maps[location] = read_map(folder.parent / "maps" / "expansion", location)
        around = maps[location].around(ego.pose[:, :2])
        made = around if isinstance(around, str) else log_of([ego, *others], 0, around, number=number)
        yield Scene(scene["name"], scene["log_token"], made)


# --- Tables ---


def version_folder(root: Path) -> Path:
    """The folder that holds the tables: `root`, or the only folder below it that does."""
    if (root / "scene.json").is_file():
        return root
    found = sorted(path.parent for path in root.glob("*/scene.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{root} has {len(found)} folders with a scene.json ({names}); name the one to use")
    return found[0]


def scene_rows(root: Path) -> list[Row]:
    """The rows of the table of scenes in the order of their names."""
    found = table(version_folder(root), "scene", TABLES["scene"])
    return sorted(found.values(), key=lambda row: row["name"])


def files_of(root: Path) -> list[Path]:
    """All files that are read."""
    folder = version_folder(root)
    maps = sorted((folder.parent / "maps" / "expansion").glob("*.json"))
    return [*(folder / f"{name}.json" for name in TABLES), *maps]


def parse(file: Path, keep: Sequence[str] = ()) -> Any:
    """What a JSON file holds; of its objects only the fields to keep, where some are named: large tables
    would not fit the memory else.
    """

    def kept(record: Row) -> Row:
        return {name: record[name] for name in keep if name in record}

    try:
        return json.loads(file.read_bytes(), object_hook=kept if keep else None)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}") from None


def table(folder: Path, name: str, fields: Sequence[str]) -> dict[str, Row]:
    """A table's rows by token, with those fields alone."""
    return rows(parse(folder / f"{name}.json", fields), f"{folder / name}.json", fields)


def rows(content: Any, where: str, fields: Sequence[str]) -> dict[str, Row]:
    """The records of a list by token, with those fields alone."""
    if not isinstance(content, list):
        raise UserError(f"{where} is not a list of records")
    kept: dict[str, Row] = {}
    for i, record in enumerate(content):
        missing = [one for one in fields if not isinstance(record, dict) or one not in record]
        if missing:
            raise UserError(f"{where}, record {i} has no {missing[0]}")
        for one in fields:
            wanted = next((kind for ending, kind in ENDINGS.items() if one.endswith(ending)), object)
            if not isinstance(record[one], wanted):
                raise UserError(f"{where}, record {i}: {one} is {record[one]!r}, not a {wanted.__name__}")
        kept[record["token"]] = {one: record[one] for one in fields}
    return kept


def grouped(rows: Mapping[str, Row], field: str) -> Mapping[str, list[Row]]:
    """Rows by what they have in a field; a list for whatever is asked for."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows.values():
        groups[row[field]].append(row)
    return groups


def pick(tables: Mapping[str, Mapping[str, Row]], name: str, token: object, where: str) -> Row:
    """The row of a table that another one refers to."""
    row = tables[name].get(str(token))
    if row is None:
        raise UserError(f"{where} refers to {name} {token!r}, which {name} lacks")
    return row


def figures(value: object, count: int, where: str, *, most: float = FARTHEST) -> tuple[float, ...]:
    """The `count` finite numbers of a list, none beyond `most`."""
    numbers = value if isinstance(value, list) and len(value) == count else []
    if not numbers or not all(isinstance(one, int | float) and abs(one) <= most for one in numbers):
        raise UserError(f"{where} is {value!r}, not {count} finite numbers")
    return tuple(float(one) for one in numbers)


def time_of(row: Row, folder: Path, name: str) -> float:
    """A record's time in seconds."""
    where = f"{folder / name}.json: {row['token']}, timestamp"
    return figures([row["timestamp"]], 1, where, most=1e6 * LATEST)[0] * 1e-6


def pose_of(row: Row, where: str) -> tuple[float, float, float]:
    """x, y and yaw of a record with a translation and a rotation, a quaternion w, x, y, z."""
    x, y, _ = figures(row["translation"], 3, f"{where}, translation")
    a, b, c, d = figures(row["rotation"], 4, f"{where}, rotation")
    return x, y, float(np.arctan2(2 * (a * d + b * c), a * a + b * b - c * c - d * d))


# --- Who takes part ---


def ego_track(
    frames: list[Row], data: Mapping[str, list[Row]], tables: Mapping[str, Mapping[str, Row]], folder: Path
) -> Track:
    """The ego from the first sample of a scene to the last, a pose about each tenth of a second."""
    first, last = (time_of(frame, folder, "sample") for frame in (frames[0], frames[-1]))
    tokens = {}
    for row in (row for frame in frames for row in data[frame["token"]]):
        time = time_of(row, folder, "sample_data") - first
        if 0 <= time <= last - first:
            tokens[time] = row
    if not tokens:
        raise UserError(f"{folder}/sample.json: {frames[0]['token']}: no sample_data tells of its ego pose")
    times = np.array(sorted(tokens))
    if last - first > LONGEST_S:
        raise UserError(
            f"{folder}/sample.json: {frames[-1]['token']} is {last - first:.0f} s after the first"
        )
    grid = np.arange(0.0, times[-1] + DT, DT)
    nearest = np.unique(np.abs(times[:, None] - grid).argmin(axis=0))
    poses = []
    for time in times[nearest]:
        where = f"{folder}/sample_data.json: {tokens[time]['token']}"
        row = pick(tables, "ego_pose", tokens[time]["ego_pose_token"], where)
        poses.append(pose_of(row, f"{folder}/ego_pose.json: {row['token']}"))
    pose = np.array(poses)
    pose[:, :2] += CENTRE_AHEAD * np.stack([np.cos(pose[:, 2]), np.sin(pose[:, 2])], axis=1)
    return Track("ego", CAR, EGO_SIZE, times[nearest], pose, None, GAP)


def agent_tracks(
    frames: list[Row], boxes: Mapping[str, list[Row]], tables: Mapping[str, Mapping[str, Row]], folder: Path
) -> list[Track]:
    """The annotated agents of a scene, in the order of their first annotation."""
    start = time_of(frames[0], folder, "sample")
    seen: dict[str, list[tuple[float, Row]]] = {}
    for frame in frames:
        time = time_of(frame, folder, "sample") - start
        for row in boxes[frame["token"]]:
            seen.setdefault(row["instance_token"], []).append((time, row))
    tracks = []
    for token, entries in seen.items():
        where = [f"{folder}/sample_annotation.json: {row['token']}" for _, row in entries]
        instance = pick(tables, "instance", token, where[0])
        category = pick(tables, "category", instance["category_token"], f"{folder}/instance.json: {token}")
        width, length, _ = figures(entries[0][1]["size"], 3, f"{where[0]}, size")
        if min(width, length) <= 0:
            raise UserError(f"{where[0]}, size is {entries[0][1]['size']}; it must be above 0")
        if max(width, length) > LONGEST:
            continue
        pose = np.array([pose_of(row, at) for (_, row), at in zip(entries, where, strict=True)])
        times = np.array([time for time, _ in entries])
        if (np.diff(times) <= 0).any():
            raise UserError(f"{where[0]}: its instance has two annotations at one time")
        kind = kind_of(category["name"])
        tracks.append(Track(token, kind, (length, width), times, pose, None, GAP))
    return tracks


def kind_of(category: str) -> int:
    """The kind of agent that a category's name tells."""
    if category == "vehicle.bicycle":
        return CYCLIST
    group = category.partition(".")[0]
    return {"vehicle": CAR, "human": PEDESTRIAN, "animal": PEDESTRIAN}.get(group, PARKED)


# --- Maps ---


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
        drivable = drivable_area(
            [polygon for polygon, _ in areas], holes=[holes for _, holes in areas], within=within
        )
        paint = [dashed(line) for line, marking in dividers if "DASHED" in marking]
        paint += [resample(line, 0.5) for line, marking in dividers if marking and "DASHED" not in marking]
        paint += [resample(line, 0.5) for line in self.crosswalks if reaches(line, within)]
        paint += [resample(line, 0.5) for line in drivable.contours(SHOULDER)]
        return Surroundings(
            centres=tuple(centres),
            reaches=(OFF_MAP,) * len(centres),
            successors=successors_of(centres),
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
        return (
            self.points(row["exterior_node_tokens"], where, 3),
            [self.points(gap, f"{where}, hole", 3) for gap in gaps],
        )

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
