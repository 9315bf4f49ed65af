"""Scenes from a data set in nuScenes' format: its JSON tables and its map expansion, version 1.3.

Neither images nor lidar sweeps are read: what the ego senses is simulated on the recorded boxes, with the
same scanner as in the own world. The ego poses of all sensors are used; no sensor's calibration is needed.

Boxes are annotated at 2 Hz and interpolated; velocities are differences of positions. Kinds go by the names
of categories: `vehicle.*` drives, `human.*` and `animal` walk, everything else stands. Lights are not
recorded: no line shows red.

Format: Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020;
github.com/nutonomy/nuscenes-devkit, docs/schema_nuscenes.md. The data are licensed CC BY-NC-SA 4.0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.nuscenes_map import StreetMap, read_map
from attnsweep.tasks.driving.records.nuscenes_tables import Row, Tables, figures, grouped, pick, tables_of
from attnsweep.tasks.driving.records.samples import SceneLog
from attnsweep.tasks.driving.records.tracks import LONGEST, Track, log_of
from attnsweep.tasks.driving.world.cast import CAR, CYCLIST, PARKED, PEDESTRIAN
from attnsweep.tasks.driving.world.kinematics import DT

EGO_SIZE = (4.084, 1.730)  # m, of the Renault Zoe that recorded
CENTRE_AHEAD = 1.4  # m, of its centre from the middle of the rear axle, where ego poses are
GAP = 1.1  # s; an agent that misses one annotation is there all the same
LONGEST_S = 600.0  # s, of a scene


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
    tables = tables_of(root)
    samples = grouped(tables.rows["sample"], "scene_token")
    data = grouped(tables.rows["sample_data"], "sample_token")
    boxes = grouped(tables.rows["sample_annotation"], "sample_token")
    maps: dict[str, StreetMap] = {}
    for number, scene in enumerate(sorted(tables.rows["scene"].values(), key=lambda row: row["name"])):
        frames = sorted(samples[scene["token"]], key=lambda row: tables.time("sample", row))
        if not frames:
            yield Scene(scene["name"], scene["log_token"], "it has no sample")
            continue
        ego, others = ego_track(frames, data, tables), agent_tracks(frames, boxes, tables)
        where = tables.place("scene", scene["name"])
        location = pick(tables.rows, "log", scene["log_token"], where)["location"]
        if location not in maps:
            maps[location] = read_map(tables.folder.parent / "maps" / "expansion", location)
        around = maps[location].around(ego.pose[:, :2])
        made = around if isinstance(around, str) else log_of([ego, *others], 0, around, number=number)
        yield Scene(scene["name"], scene["log_token"], made)


# --- Who takes part ---


def ego_track(frames: list[Row], data: Mapping[str, list[Row]], tables: Tables) -> Track:
    """The ego from the first sample of a scene to the last, a pose about each tenth of a second."""
    first, last = (tables.time("sample", frame) for frame in (frames[0], frames[-1]))
    tokens = {}
    for row in (row for frame in frames for row in data[frame["token"]]):
        time = tables.time("sample_data", row) - first
        if 0 <= time <= last - first:
            tokens[time] = row
    if not tokens:
        where = tables.place("sample", frames[0]["token"])
        raise UserError(f"{where}: no sample_data tells of its ego pose")
    times = np.array(sorted(tokens))
    if last - first > LONGEST_S:
        where = tables.place("sample", frames[-1]["token"])
        raise UserError(f"{where} is {last - first:.0f} s after the first")
    grid = np.arange(0.0, times[-1] + DT, DT)
    nearest = np.unique(np.abs(times[:, None] - grid).argmin(axis=0))
    poses = []
    for time in times[nearest]:
        where = tables.place("sample_data", tokens[time]["token"])
        row = pick(tables.rows, "ego_pose", tokens[time]["ego_pose_token"], where)
        poses.append(tables.pose("ego_pose", row))
    pose = np.array(poses)
    pose[:, :2] += CENTRE_AHEAD * np.stack([np.cos(pose[:, 2]), np.sin(pose[:, 2])], axis=1)
    return Track("ego", CAR, EGO_SIZE, times[nearest], pose, None, GAP)


def agent_tracks(frames: list[Row], boxes: Mapping[str, list[Row]], tables: Tables) -> list[Track]:
    """The annotated agents of a scene, in the order of their first annotation."""
    start = tables.time("sample", frames[0])
    seen: dict[str, list[tuple[float, Row]]] = {}
    for frame in frames:
        time = tables.time("sample", frame) - start
        for row in boxes[frame["token"]]:
            seen.setdefault(row["instance_token"], []).append((time, row))
    tracks = []
    for token, entries in seen.items():
        first = entries[0][1]
        where, own = tables.place("sample_annotation", first["token"]), tables.place("instance", token)
        instance = pick(tables.rows, "instance", token, where)
        category = pick(tables.rows, "category", instance["category_token"], own)
        width, length, _ = figures(first["size"], 3, f"{where}, size")
        if min(width, length) <= 0:
            raise UserError(f"{where}, size is {first['size']}; it must be above 0")
        if max(width, length) > LONGEST:
            continue
        pose = np.array([tables.pose("sample_annotation", row) for _, row in entries])
        times = np.array([time for time, _ in entries])
        if (np.diff(times) <= 0).any():
            raise UserError(f"{where}: its instance has two annotations at one time")
        kind = kind_of(category["name"])
        tracks.append(Track(token, kind, (length, width), times, pose, None, GAP))
    return tracks


def kind_of(category: str) -> int:
    """The kind of agent that a category's name tells."""
    if category == "vehicle.bicycle":
        return CYCLIST
    group = category.partition(".")[0]
    return {"vehicle": CAR, "human": PEDESTRIAN, "animal": PEDESTRIAN}.get(group, PARKED)
