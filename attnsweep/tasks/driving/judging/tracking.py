"""Who is who over the key frames of a scene, and how well that is told: AMOTA, AMOTP, IDF1.

Findings are joined to tracks by where they say they were a key frame ago (Zhou et al., "Tracking objects as
points", ECCV 2020). All scenes, and all thresholds of confidence, are gone through side by side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from attnsweep.tasks.driving.judging.perception import REACH, Indices, curve, gaps, match
from attnsweep.tasks.driving.judging.readout import Readout
from attnsweep.tasks.driving.records.samples import KEY_S, Samples
from attnsweep.tasks.driving.world.geometry import Floats, from_frame

RECALLS = np.linspace(0.1, 1.0, 40)
PATIENCE = 2  # key frames for which a track that is not found goes on


def measure_tracks(said: Readout, samples: Samples) -> dict[str, float]:
    """`amota`, `amotp` (m), `idf1` and `ids`, the identity switches, both at the threshold of the highest
    MOTA, as nuScenes reports them; nothing where no agents are sought, NaN where there are none.
    """
    if said.confidence is None or said.box is None:
        return {}
    if not samples["mask"].any():
        return dict.fromkeys(("amota", "amotp", "idf1", "ids"), float("nan"))
    clips = clips_of(samples)
    confidence, off = said.confidence, gaps(said.box, samples)
    tracks = join(said, samples, clips)
    thresholds = at_recalls(confidence, off, samples)
    reached = np.isfinite(thresholds)
    tally = count(tracks, confidence, off, clips, thresholds[reached])
    motar = np.maximum(0.0, 1 - (tally.switches + tally.wrong) / np.maximum(tally.right, 1))
    gap = tally.distance / np.maximum(tally.right, 1)
    unreached = len(RECALLS) - int(reached.sum())
    found = {
        "amota": float(motar.sum() / len(RECALLS)),
        "amotp": float((gap.sum() + REACH * unreached) / len(RECALLS)),
    }
    if not reached.any():
        return found | {"idf1": 0.0, "ids": 0.0}
    best = int((tally.right - tally.switches - tally.wrong).argmax())
    shown = confidence >= thresholds[reached][best]
    return found | {"idf1": idf1(tracks, shown, off, clips), "ids": float(tally.switches[best])}


@dataclass(frozen=True)
class Clips:
    """Which clip each sample (s,) belongs to, its place `at` in it, the sample `before` it or -1, and the
    number of each agent (s, n) in its clip, -1 where there is none.
    """

    clip: Indices
    at: Indices
    before: Indices
    agent: Indices

    def moments(self) -> list[Indices]:
        """The samples of all clips' first key frames, of their second ones, ..."""
        return [np.flatnonzero(self.at == k) for k in range(int(self.at.max(initial=-1)) + 1)]


def clips_of(samples: Samples) -> Clips:
    """The clips of consecutive key frames; `previous` is as in `SAMPLE`, and points back."""
    before = samples["previous"].astype(np.int64)
    clip, at, started = np.zeros_like(before), np.zeros_like(before), 0
    for row, last in enumerate(before):
        clip[row], at[row] = (started, 0) if last < 0 else (clip[last], at[last] + 1)
        started += last < 0
    agent = np.where(samples["mask"].astype(bool), samples["id"].astype(np.int64), -1)
    for one in range(started):
        rows = clip == one
        known, number = np.unique(agent[rows], return_inverse=True)
        agent[rows] = number.reshape(agent[rows].shape) - (known[0] < 0)
    return Clips(clip, at, before, agent)


# --- Joining findings to tracks ---


def join(said: Readout, samples: Samples, clips: Clips) -> Indices:
    """The track (s, q) of each finding, numbers that are unique in its clip.

    The most confident first, a finding goes on with the nearest track of less than 2 m from where it says it
    was; else it begins one. Without offsets it says so by its velocity. A track that is not found goes on at
    its velocity for two key frames.
    """
    assert said.confidence is not None and said.box is not None and said.velocity is not None
    xy, velocity = said.box[..., :2], said.velocity
    offset = -KEY_S * velocity if said.offset is None else said.offset
    rank = np.argsort(-said.confidence, axis=1, kind="stable")
    count, queries = rank.shape
    tracks = np.full((count, queries), -1)
    store = Store.empty(count, (1 + PATIENCE) * queries)
    begun = np.zeros(count, dtype=np.int64)  # tracks so far
    for rows in clips.moments():
        last = clips.before[rows]
        old = store.at(last).moved(samples["motion"][rows].astype(np.float64)) if clips.at[rows[0]] else None
        begun[rows] = begun[last] if old else 0
        free = np.where(old.age <= PATIENCE, 0.0, np.inf) if old else None
        for query in rank[rows].T:
            taken = np.full(len(rows), -1)
            if old is not None and free is not None:
                was = xy[rows, query] + offset[rows, query]
                gap = np.hypot(*np.moveaxis(old.xy - was[:, None], -1, 0)) + free
                nearest = gap.argmin(axis=1)
                near = np.flatnonzero(gap[np.arange(len(rows)), nearest] < REACH)
                taken[near] = old.track[near, nearest[near]]
                free[near, nearest[near]] = np.inf
            tracks[rows, query] = np.where(taken >= 0, taken, begun[rows])
            begun[rows] += taken < 0
        store.put(
            rows,
            Store(xy[rows], velocity[rows], tracks[rows], np.zeros((len(rows), queries), dtype=np.int64)),
        )
        if old is not None and free is not None:
            store.put(rows, old.left(free, PATIENCE * queries), first=queries)
    return tracks


@dataclass(frozen=True)
class Store:
    """Tracks (s, k): where, how fast, which, and for how many key frames not found; beyond 2: none."""

    xy: Floats
    velocity: Floats
    track: Indices
    age: Indices

    @classmethod
    def empty(cls, count: int, places: int) -> "Store":
        shape = (count, places)
        return cls(
            np.zeros((*shape, 2)), np.zeros((*shape, 2)), np.full(shape, -1), np.full(shape, PATIENCE + 1)
        )

    def at(self, rows: Indices) -> "Store":
        return Store(self.xy[rows], self.velocity[rows], self.track[rows], self.age[rows])

    def put(self, rows: Indices, other: "Store", *, first: int = 0) -> None:
        """Writes other tracks into places from `first` on."""
        places = slice(first, first + other.age.shape[1])
        for name in ("xy", "velocity", "track", "age"):
            getattr(self, name)[rows, places] = getattr(other, name)

    def moved(self, motion: Floats) -> "Store":
        """The same in the frame of the next key frame, given the pose (s, 3) of this one in it."""
        turned = motion * np.array([0.0, 0.0, 1.0])
        return Store(
            from_frame(self.xy, motion[:, None]),
            from_frame(self.velocity, turned[:, None]),
            self.track,
            self.age,
        )

    def left(self, free: Floats, places: int) -> "Store":
        """Those that were not found, the latest first, moved on by their velocity."""
        age = np.where(free == 0, self.age + 1, PATIENCE + 1)
        order = np.argsort(age, axis=1, kind="stable")[:, :places]
        xy, velocity = (np.take_along_axis(one, order[..., None], axis=1) for one in (self.xy, self.velocity))
        track, age = (np.take_along_axis(one, order, axis=1) for one in (self.track, age))
        return Store(xy + KEY_S * velocity, velocity, track, age)


# --- Counting ---


@dataclass(frozen=True)
class Tally:
    """At each threshold (k,): agents found, changes of who they are, findings that are none, and the sum of
    the distances (m) of the first.
    """

    right: Floats
    switches: Floats
    wrong: Floats
    distance: Floats


def at_recalls(confidence: Floats, off: Floats, samples: Samples) -> Floats:
    """The confidence (40,) at which each recall from 0.1 to 1 is reached; NaN where it never is."""
    found = curve(confidence, match(confidence, off, REACH), samples)
    recall = np.cumsum(found.right)[found.right] / found.count
    if not len(recall):
        return np.full(len(RECALLS), np.nan)
    place = np.searchsorted(recall, RECALLS - 1e-9)
    reached = found.confidence[found.right][np.minimum(place, len(recall) - 1)]
    return np.where(place < len(recall), reached, np.nan)


def count(tracks: Indices, confidence: Floats, off: Floats, clips: Clips, thresholds: Floats) -> Tally:
    """What is right and wrong with only the findings of each threshold (k,).

    As in CLEAR MOT (Bernardin and Stiefelhagen, 2008): an agent stays with its track while that is less than
    2 m away; the others are joined nearest first, and a change of track is a switch.
    """
    totals = np.zeros((4, len(thresholds)))
    last = np.full((len(thresholds), int(clips.clip.max()) + 1, max(int(clips.agent.max()) + 1, 1)), -1)
    every = np.arange(len(thresholds))[:, None, None]
    for rows in clips.moments():
        shown = confidence[rows] >= thresholds[:, None, None]  # (k, r, q)
        gap = np.where(shown[..., None] & (off[rows] < REACH), off[rows], np.inf)  # (k, r, q, n)
        agent, clip = clips.agent[rows], clips.clip[rows][:, None]
        before = np.where(agent >= 0, last[every, clip, agent], -1)  # (k, r, n)
        same = tracks[rows][None, :, :, None] == before[:, :, None, :]
        stays = nearest_first(np.where(same, gap, np.inf))
        taken = (stays >= 0)[:, :, :, None] | taken_agents(stays, agent.shape[1])[:, :, None, :]
        joined = np.maximum(stays, nearest_first(np.where(taken, np.inf, gap)))  # (k, r, q)
        k, r, q = np.nonzero(joined >= 0)
        n = joined[k, r, q]
        now, was = tracks[rows][r, q], before[k, r, n]
        last[k, clip[r, 0], agent[r, n]] = now
        totals[0] += np.bincount(k, minlength=len(thresholds))
        totals[1] += np.bincount(k, (was >= 0) & (was != now), minlength=len(thresholds))
        totals[2] += (shown & (joined < 0)).sum(axis=(1, 2))
        totals[3] += np.bincount(k, gap[k, r, q, n], minlength=len(thresholds))
    return Tally(*totals)


def nearest_first(gap: Floats) -> Indices:
    """Which column (..., q) each row of distances (..., q, n) is joined to, or -1, the nearest pairs first;
    inf: never.
    """
    gap, joined = gap.copy(), np.full(gap.shape[:-1], -1)
    while np.isfinite(gap).any():
        column, row = gap.argmin(axis=-1), gap.argmin(axis=-2)  # (..., q), (..., n)
        mutual = np.take_along_axis(row, column, axis=-1) == np.arange(gap.shape[-2])
        mutual &= np.isfinite(np.take_along_axis(gap, column[..., None], axis=-1)[..., 0])
        joined = np.where(mutual, column, joined)
        gap[mutual] = np.inf
        gap = np.where(taken_agents(np.where(mutual, column, -1), gap.shape[-1])[..., None, :], np.inf, gap)
    return joined


def taken_agents(joined: Indices, agents: int) -> NDArray[np.bool_]:
    """Which of the agents (..., n) some finding (..., q) is joined to."""
    return np.asarray((joined[..., None] == np.arange(agents)).any(axis=-2))


def idf1(tracks: Indices, shown: NDArray[np.bool_], off: Floats, clips: Clips) -> float:
    """Twice the findings that are of the agent to which their track belongs, per agents and findings, with
    the best assignment of tracks to agents (Ristani et al., 2016).
    """
    s, q, n = np.nonzero(shown[..., None] & (off < REACH))
    agents, own = int(clips.agent.max()) + 1, 0.0
    for clip in range(int(clips.clip.max()) + 1):
        here = clips.clip[s] == clip
        track, agent = tracks[s[here], q[here]], clips.agent[s[here], n[here]]
        together = np.bincount(track * agents + agent, minlength=agents).astype(float)
        together = np.pad(together, (0, -len(together) % agents)).reshape(-1, agents)
        own += together[linear_sum_assignment(together, maximize=True)].sum()
    total = int((clips.agent >= 0).sum() + shown.sum())
    return float(2 * own / total) if total else float("nan")
