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
from attnsweep.tasks.driving.records.nuscenes_tables import (
    TABLES,
    Row,
    figures,
    grouped,
    pick,
    pose_of,
    scene_rows,
    table,
    time_of,
    version_folder,
)
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
