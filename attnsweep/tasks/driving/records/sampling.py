"""From the log of a scene to samples: at which key frames, what is sensed there, and what there is to learn.

A key frame makes a sample that has 1.5 s of past and 4 s of future. Of a log that is too short for one, every
key frame with any future makes a sample, or, where none has one, the first. What is not known there is
empty or zero: sweeps in the past, and in the future whatever `plan_mask`, `future_mask` and
`future_boxes_mask` say.
"""

from dataclasses import replace

import numpy as np

from attnsweep.tasks.driving.records import targets
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, SWEEPS, Samples, SceneLog, in_frame
from attnsweep.tasks.driving.records.sensed import before, ego_state, navigation, sense, views
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.geometry import Flags, Indices
from attnsweep.tasks.driving.world.sensor import SCANNER, Scanner


def samples_of(log: SceneLog, scanner: Scanner = SCANNER, rig: Rig | None = None) -> Samples:
    """The samples of a scene, a row each in every array; with a `rig` also what `cameras.CAMERAS` says."""
    log, padding = padded(log)
    keys = np.arange(0, len(log.state), round(KEY_S / log.dt))
    at = key_frames(log.valid[keys, 0], short=padding > 0)
    if not len(at):
        return {}
    state, valid = log.state[keys], log.valid[keys]
    pose = state[:, 0, :3]
    sensed, hits = sense(log, keys, at, scanner)
    seen = sum(hits[at - k] for k in range(SWEEPS)) > 0
    slots = targets.visible(state[at], valid[at] & seen, pose[at])
    return {
        "bev": sensed,
        **navigation(log.route, pose[at]),
        "ego_state": ego_state(log.state[keys[at], 0], before(log, keys[at]), log.dt),
        **targets.agents(log, state, valid, at, slots),
        **targets.map_lines(log, pose[at]),
        **targets.map_grids(log, pose[at]),
        "occupancy": targets.occupancy(log, state, valid, at, slots),
        **targets.everyone(log, state, valid, at),
        "scene": np.full(len(at), log.number, dtype=np.int32),
        "time": ((keys[at] - padding) * log.dt).astype(np.float32),
        "pose": pose[at],
        "size": np.tile(log.size[0].astype(np.float32), (len(at), 1)),
        "previous": np.arange(-1, len(at) - 1, dtype=np.int32),
        "motion": in_frame(pose[at - 1], pose[at]).astype(np.float32),
        **targets.slices(log, keys, at, state),
        **(views(log, keys[at], rig) if rig else {}),
    }


def padded(log: SceneLog) -> tuple[SceneLog, int]:
    """A log that is long enough for a sample, and how many entries were put before it. Nobody is there in the
    entries that are put before and behind one that is too short.
    """
    every = round(KEY_S / log.dt)
    keys = len(range(0, int(log.valid[:, 0].sum()), every))
    if keys >= SWEEPS + FUTURE:
        return log, 0
    first, last = (SWEEPS - 1) * every, FUTURE * every
    ends = ((first, last), (0, 0))
    return (
        replace(
            log,
            state=np.pad(log.state, (*ends, (0, 0)), mode="edge"),
            valid=np.pad(log.valid, ends),
            red=np.pad(log.red, ends, mode="edge"),
            yields=np.pad(log.yields, ends[:1]),
        ),
        first,
    )


def key_frames(known: Flags, *, short: bool) -> Indices:
    """The key frames that make samples (s,), of those at which the ego is there (k,); see the module."""
    if not short:
        return np.arange(SWEEPS - 1, len(known) - FUTURE)
    at = np.flatnonzero(known)
    with_future = at[[bool(known[k + 1 : k + 1 + FUTURE].any()) for k in at]]
    return with_future if len(with_future) else at[:1]
