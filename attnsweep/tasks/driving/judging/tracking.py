"""Who is who over the key frames of a scene, and how well that is predicted: AMOTA, AMOTP, IDF1.

Detections are joined to tracks by where they say they were a key frame ago (Zhou et al., "Tracking objects as
points", ECCV 2020). All scenes, and all thresholds of confidence, are gone through side by side.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from attnsweep.tasks.driving.judging.perception import REACH, gaps
from attnsweep.tasks.driving.judging.readout import Readout
from attnsweep.tasks.driving.records.samples import KEY_S, Samples
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices, from_frame

RECALLS = np.linspace(0.1, 1.0, 40).round(12)
PATIENCE = 2  # key frames for which a track that is not detected goes on


def measure_tracks(readout: Readout, samples: Samples) -> dict[str, float]:
    """`amota`, `amotp` (m), `idf1` and `ids`, the identity switches; nothing where no agents are detected,
    NaN where there are none.

    AMOTA and AMOTP are those of nuScenes' devkit 1.2 (`eval/tracking/algo.py`, `metrics.py`), of one class
    at 2 m: means over 40 recalls of MOTAR, 1 less false positives per match, and of the mean distance, with
    the worst value, 0 or 2 m, where a recall is not reached. It fills in boxes that are missing in the
    middle of a track, true or predicted, and leaves out what is far away; here truth is the agents that could
    be seen. IDF1 and switches are those at the threshold of the highest MOTA, which may be below 0; the
    devkit cuts it there, and so takes the highest recall of trackers that are wrong more often than right.
    Where no recall is reached both are 0; the devkit then knows of no switches.
    """
    if readout.confidence is None or readout.box is None:
        return {}
    if not samples["mask"].any():
        return dict.fromkeys(("amota", "amotp", "idf1", "ids"), float("nan"))
    clips, off = clips_of(samples), gaps(readout.box, samples)
    tracks = join(readout, samples, clips)
    score = track_scores(tracks, readout.confidence, clips)
    thresholds = at_recalls(score, tracks, off, clips)
    reached = np.isfinite(thresholds)
    if not reached.any():
        return {"amota": 0.0, "amotp": REACH, "idf1": 0.0, "ids": 0.0}
    shown = score >= thresholds[reached][:, None, None]
    tally = count(tracks, shown, off, clips)
    unreached = len(RECALLS) - int(reached.sum())
    best = len(tally.matches) - 1 - int((tally.matches - tally.false_positives)[::-1].argmax())
    return {
        "amota": float(tally.motar.sum() / len(RECALLS)),
        "amotp": float((tally.motp.sum() + REACH * unreached) / len(RECALLS)),
        "idf1": idf1(tracks, shown[best], off, clips),
        "ids": float(tally.switches[best]),
    }


@dataclass(frozen=True)
class Clips:
    """Which clip each sample (s,) belongs to, the sample `before` it or -1, and the number of each agent
    (s, n) in its clip, -1 where there is none.
    """

    clip: Indices
    before: Indices
    agent: Indices


def clips_of(samples: Samples) -> Clips:
    """The clips of consecutive key frames; `previous` is as in `SAMPLE`, and points back."""
    before = samples["previous"].astype(np.int64)
    clip = np.cumsum(before < 0) - 1
    for row in np.flatnonzero(before >= 0):
        clip[row] = clip[before[row]]
    agent = np.where(samples["mask"].astype(bool), samples["id"].astype(np.int64), -1)
    for one in range(int((before < 0).sum())):
        rows = clip == one
        known, number = np.unique(agent[rows], return_inverse=True)
        agent[rows] = number.reshape(agent[rows].shape) - (known[0] < 0)
    return Clips(clip, before, agent)


# --- Joining detections to tracks ---


@dataclass(frozen=True)
class Tracks:
    """Tracks (k,) at a key frame: where (k, 2), how fast (k, 2), which, and for how many key frames lost."""

    xy: Floats
    velocity: Floats
    number: Indices
    lost: Indices

    def moved(self, motion: Floats) -> "Tracks":
        """The same in the frame of the next key frame, given the pose (3,) of this one in it."""
        xy, velocity = from_frame(self.xy, motion), from_frame(self.velocity, motion * [0.0, 0.0, 1.0])
        return replace(self, xy=xy, velocity=velocity)


NOBODY = Tracks(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64))


def join(readout: Readout, samples: Samples, clips: Clips) -> Indices:
    """The track (s, q) of each detection, numbers that are unique in its clip.

    The most confident first, a detection goes on with the nearest track of less than 2 m from where it says
    it was; else it begins one. Without offsets it says so by its velocity. A track that is not detected goes
    on at its velocity for two key frames.
    """
    assert readout.confidence is not None and readout.box is not None and readout.velocity is not None
    xy, velocity, motion = readout.box[..., :2], readout.velocity, samples["motion"].astype(np.float64)
    was = xy + (-KEY_S * velocity if readout.offset is None else readout.offset)
    rank = np.argsort(-readout.confidence, axis=1, kind="stable")
    found = np.full(rank.shape, -1)
    begun = np.zeros(int(clips.clip.max()) + 1, dtype=np.int64)  # tracks of each clip so far
    tracks: list[Tracks] = []  # as each sample leaves them
    for row, (before, clip) in enumerate(zip(clips.before, clips.clip, strict=True)):
        old = tracks[before].moved(motion[row]) if before >= 0 else NOBODY
        gap = np.hypot(*np.moveaxis(was[row][:, None] - old.xy, -1, 0))
        gap = np.pad(np.where(gap < REACH, gap, np.inf), ((0, 0), (0, 1)), constant_values=REACH)
        for query in rank[row]:
            nearest = int(gap[query].argmin())
            if nearest == len(old.number):  # beyond the old ones: one that begins
                found[row, query] = begun[clip]
                begun[clip] += 1
            else:
                found[row, query] = old.number[nearest]
                gap[:, nearest] = np.inf
        on = ~np.isin(old.number, found[row]) & (old.lost < PATIENCE)
        tracks.append(
            Tracks(
                np.concatenate([xy[row], old.xy[on] + KEY_S * old.velocity[on]]),
                np.concatenate([velocity[row], old.velocity[on]]),
                np.concatenate([found[row], old.number[on]]),
                np.concatenate([np.zeros_like(found[row]), old.lost[on] + 1]),
            )
        )
    return found


# --- Counting ---


@dataclass(frozen=True)
class Tally:
    """At each threshold (k,): agents that are matched with the track that they had before, switches, those
    that are matched with another, false positives, and the sum of the distances (m) of both.
    """

    matches: Indices
    switches: Indices
    false_positives: Indices
    distance: Floats

    @property
    def motar(self) -> Floats:
        """MOTA at the recall that is reached, from 0 to 1; as nuScenes counts recall, without switches."""
        return np.maximum(0.0, 1 - self.false_positives / np.maximum(self.matches, 1)) * (self.matches > 0)

    @property
    def motp(self) -> Floats:
        """The mean distance (m); 2 m where nothing is matched."""
        found = self.matches + self.switches
        return np.where(found > 0, self.distance / np.maximum(found, 1), REACH)


def count(tracks: Indices, shown: Flags, off: Floats, clips: Clips) -> Tally:
    """What is right and wrong with only the detections that are shown (k, s, q)."""
    agent, switched = associate(tracks, shown, off, clips)
    k, s, q = np.nonzero(agent >= 0)
    distance = np.bincount(k, off[s, q, agent[k, s, q]], minlength=len(shown)).astype(float)
    right, wrong = (agent >= 0) & ~switched, shown & (agent < 0)
    return Tally(right.sum(axis=(1, 2)), switched.sum(axis=(1, 2)), wrong.sum(axis=(1, 2)), distance)


def track_scores(tracks: Indices, confidence: Floats, clips: Clips) -> Floats:
    """The mean confidence (s, q) of the track that each detection is part of, as nuScenes has it."""
    longest = int(tracks.max(initial=0)) + 1
    number = (clips.clip[:, None] * longest + tracks).ravel()
    total, size = np.bincount(number, confidence.ravel()), np.bincount(number)
    return (total / np.maximum(size, 1))[number].reshape(tracks.shape)


def at_recalls(score: Floats, tracks: Indices, off: Floats, clips: Clips) -> Floats:
    """The scores (40,) at which each recall from 0.1 to 1 is reached; NaN where it never is. Recall counts
    the matches, without switches, that all detections have.
    """
    agent, switched = associate(tracks, np.ones((1, *score.shape), dtype=bool), off, clips)
    scores = -np.sort(-score[(agent[0] >= 0) & ~switched[0]])
    recall = np.arange(1, len(scores) + 1) / (clips.agent >= 0).sum()
    if not len(recall):
        return np.full(len(RECALLS), np.nan)
    return np.where(RECALLS > recall[-1], np.nan, np.interp(RECALLS, recall, scores, right=0))


def associate(tracks: Indices, shown: Flags, off: Floats, clips: Clips) -> tuple[Indices, Flags]:
    """Which agent each of the detections that are shown (k, s, q) is, or -1, and whether the agent was of
    another track when it was matched last.

    CLEAR MOT (Bernardin and Stiefelhagen, 2008): an agent stays with its track while that is less than 2 m
    away; of the rest as many as possible are matched, at the least sum of distances.
    """
    last = np.full((len(shown), int(clips.clip.max()) + 1, max(int(clips.agent.max()) + 1, 1)), -1)
    found, switched = np.full(shown.shape, -1), np.zeros(shown.shape, dtype=bool)
    for row, (clip, agent) in enumerate(zip(clips.clip, clips.agent, strict=True)):
        gap = np.where(shown[:, row, :, None] & (off[row] < REACH), off[row], np.inf)  # (k, q, n)
        before = np.where(agent >= 0, last[:, clip, agent], -1)  # (k, n)
        same = np.isfinite(gap) & (tracks[row][:, None] == before[:, None])
        same &= np.cumsum(same, axis=2) == 1  # two agents that were of one track
        rest = ~same.any(axis=2, keepdims=True) & ~same.any(axis=1, keepdims=True)
        k, q, n = np.nonzero(same | assigned(np.where(rest, gap, np.inf)))
        now, was = tracks[row, q], before[k, n]
        last[k, clip, agent[n]] = now
        found[k, row, q] = n
        switched[k, row, q] = (was >= 0) & (was != now)
    return found, switched


def assigned(gap: Floats) -> Flags:
    """Which pairs of distances (..., q, n) are matched, inf never: as many as can be, at the least sum."""
    matched = np.isfinite(gap)
    crowded = (matched.sum(axis=-1) > 1).any(axis=-1) | (matched.sum(axis=-2) > 1).any(axis=-1)
    for place in np.argwhere(crowded):
        pairs = matched[tuple(place)]
        some = np.ix_(pairs.any(axis=1), pairs.any(axis=0))
        cost = np.where(pairs[some], gap[tuple(place)][some], REACH * gap.shape[-1] + 1)
        chosen = np.zeros_like(pairs[some])
        chosen[linear_sum_assignment(cost)] = True
        pairs[some] &= chosen
    return matched


def idf1(tracks: Indices, shown: Flags, off: Floats, clips: Clips) -> float:
    """Twice the detections that are of the agent to which their track belongs, per agents and detections,
    with the best assignment of tracks to agents (Ristani et al., 2016).
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
