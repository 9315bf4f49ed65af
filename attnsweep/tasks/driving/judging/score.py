"""Scores of driving, from 0 to 1: NAVSIM's extended PDM score in a closed loop.

    score = NC x DAC x DDC x TLC x MP x RC x (5 EP + 5 TTC + 2 LK + 2 C) / 14

NC, DAC, DDC, TLC, EP, TTC, LK and C with their weights and limits are those of NAVSIM 2.2, "Pseudo-simulation
for autonomous driving", CoRL 2025 (`docs/metrics.md`, `pdm_scorer.py` of github.com/autonomousvision/navsim):
no collision at fault, on the road, in the direction of traffic, no red light, progress, time to collision,
lane keeping, comfort. Its extended comfort, whether two plans in a row agree, is left out as in its own
`pdm_score`: here both are driven, and comfort sees the jolt. MP, making progress, is of the closed-loop score
of nuPlan 1.2 (Karnchanachari et al., 2024).

15 s of a closed loop show two things that 4 s of a plan cannot, and that these leave unpunished: an ego that
stands or creeps where nothing keeps it from going, which MP is made to see, and one that shakes its
passengers all the time: RC, a ride of which at least every other second is comfortable.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from attnsweep.tasks.driving.judging.closed_loop import Drive
from attnsweep.tasks.driving.judging.collisions import at_fault, closes_in, near, touching
from attnsweep.tasks.driving.judging.comfort import discomfort
from attnsweep.tasks.driving.world.cast import EGO, PARKED
from attnsweep.tasks.driving.world.geometry import Flags, Floats

WEIGHTS = {"progress": 5, "ttc": 5, "lane_keeping": 2, "comfort": 2}
LEAST_WAY = 5.0  # m; where the expert gains no more, progress counts as made
LEAST_PROGRESS = 0.2  # of the expert's
LEAST_IMPEDING, MOST_IMPEDING = 0.1, 0.5  # of the time; the expert, too, does for up to a tenth of it
MOST_ROUGH = 0.5  # of the seconds
AGAINST_S, AGAINST = 1.0, (2.0, 6.0)  # s, and m driven in them against traffic that cost half, and all
OFF_CENTRE, OFF_CENTRE_S = 0.5, 2.0  # m off the route, and for how long (s), that are no lane keeping
ROUTE_LEFT = 8.0  # m from the route, beyond which it is another road
SUCCESS = 0.8  # of the expert's progress
DRAWS = 4000  # of the bootstrap


@dataclass(frozen=True)
class Scores:
    """How each of `b` scenes was driven, every array (b,).

    `score` and its factors: `no_collision` 1, 0.5 or 0, `off_road`, `direction` 1, 0.5 or 0 for metres driven
    against traffic, `ran_red` a red light, `made_progress` 0 with less than 0.2 of the expert's progress, and
    else 1 where traffic was held up for at most a tenth of the time, falling to 0 for half of it, `rough`
    where a limit of comfort was passed in more than half of its seconds. Its weighted parts: `progress` along
    the route as a share of the expert's, at most 1, `ttc` 1 where no collision was ever less than a second
    away, `lane_keeping` 1 where the ego was never more than 0.5 m off its route for 2 s outside of junctions,
    `comfort` 1 where no limit was passed. Besides: `at_fault`: in a collision that counts against the ego;
    `wrong_route`: was more than 8 m off the route; `impeding`: share of the time in which it held up traffic;
    `success`: a score above 0 and at least 0.8 of the expert's progress; `finish_s`: s until the goal was
    reached, NaN where it was not; `lost`: share of plans that could not be driven.
    """

    score: Floats
    no_collision: Floats
    direction: Floats
    made_progress: Floats
    progress: Floats
    ttc: Floats
    lane_keeping: Floats
    comfort: Floats
    at_fault: Flags
    off_road: Flags
    ran_red: Flags
    rough: Flags
    wrong_route: Flags
    impeding: Floats
    success: Flags
    finish_s: Floats
    lost: Floats

    def means(self, where: Flags | slice = slice(None)) -> dict[str, float]:
        """The mean of each over some scenes, of `finish_s` the median; NaN where none has a value."""
        found = {}
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), float)[where]
            values = values[~np.isnan(values)]
            middle = np.median if field.name == "finish_s" else np.mean
            found[field.name] = float(middle(values)) if values.size else float("nan")
        return found


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % interval of the mean of values (b,), by bootstrap over scenes; the same each time."""
    picks = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.percentile(np.asarray(values, float)[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def score_drive(drive: Drive, expected: Floats | None = None) -> Scores:
    """The scores of a drive; `expected` (b,) is the metres along the route that the expert gains after the
    handover, without which the drive is measured by itself.
    """
    counts = counted(drive)
    gain = gained(drive, counts)
    wanted = gain if expected is None else expected
    progress = np.where(wanted > LEAST_WAY, np.minimum(gain / np.maximum(wanted, LEAST_WAY), 1.0), 1.0)
    found = traffic(drive, counts) | ride(drive, counts) | way(drive, counts)
    flow = np.interp(found["impeding"], [LEAST_IMPEDING, MOST_IMPEDING], [1.0, 0.0])
    made = np.where(progress >= LEAST_PROGRESS, flow, 0.0)
    found |= {"progress": progress, "made_progress": made}
    weighted = sum(weight * found[name] for name, weight in WEIGHTS.items()) / sum(WEIGHTS.values())
    ruled_out = found["off_road"] | found["ran_red"] | found["rough"]
    score = found["no_collision"] * found["direction"] * made * ~ruled_out * weighted
    return Scores(score=score, success=(score > 0) & (progress >= SUCCESS), lost=drive.lost, **found)


def traffic(drive: Drive, counts: Flags) -> dict[str, Any]:
    """What is due to others: collisions and near ones."""
    close = near(drive)
    hit = touching(drive, close)
    blamed = at_fault(drive, counts, hit)
    parked = drive.kind == PARKED  # who hits nobody else gets half
    no_collision = np.where((blamed & ~parked).any(axis=1), 0.0, np.where(blamed.any(axis=1), 0.5, 1.0))
    closing = closes_in(drive, counts, close & ~reached(hit))
    fault = no_collision < 1
    return {"no_collision": no_collision, "at_fault": fault, "ttc": 1.0 - (closing | fault)}


def ride(drive: Drive, counts: Flags) -> dict[str, Any]:
    """What the policy's own part of the drive is like for passengers, and for those behind."""
    own = counts & (np.arange(len(counts))[:, None] > drive.handover)
    uncomfortable = discomforts(drive, counts) & own
    return {
        "comfort": 1.0 - uncomfortable.any(axis=0),
        "rough": share(in_seconds(uncomfortable, drive), in_seconds(own, drive)) > MOST_ROUGH,
        "impeding": share(drive.impeding, own),
    }


def way(drive: Drive, counts: Flags) -> dict[str, Any]:
    """Which way the ego takes, and how it keeps to the rules of the road."""
    there = (drive.progress >= drive.way) & counts
    return {
        "off_road": (drive.placement.off_road & counts).any(axis=0),
        "direction": direction_score(drive, counts),
        "ran_red": (drive.ran_red & counts).any(axis=0),
        "lane_keeping": lane_keeping(drive, counts),
        "wrong_route": ((drive.lateral_offset > ROUTE_LEFT) & counts).any(axis=0),
        "finish_s": np.where(there.any(axis=0), there.argmax(axis=0) * drive.dt, np.nan),
    }


# --- What counts ---


def counted(drive: Drive) -> Flags:
    """Which entries (t, b) count: up to the first at which the goal is reached or the ego is gone."""
    over = (drive.progress >= drive.way) | ~drive.active[:, :, EGO]
    return np.cumsum(over, axis=0) - over == 0


def in_seconds(flags: Flags, drive: Drive) -> Flags:
    """Whether any entry (t, b) of each second (s, b) since the handover is flagged."""
    own = flags[min(drive.handover, len(flags) - 2) + 1 :]
    return np.logical_or.reduceat(own, np.arange(0, len(own), round(1 / drive.dt)), axis=0)


def share(flags: Flags, counts: Flags) -> Floats:
    """How many (b,) of the entries that count (t, b) are flagged, as a share of them."""
    return np.asarray((flags & counts).sum(axis=0) / np.maximum(counts.sum(axis=0), 1))


def reached(flags: Flags) -> Flags:
    """Which entries (t, ...) are at or after the first that is flagged."""
    return np.logical_or.accumulate(flags, axis=0)


# --- Factors and parts ---


def direction_score(drive: Drive, counts: Flags) -> Floats:
    """DDC (b,): 1 where no second took the ego 2 m or more against traffic, 0 from 6 m on, else 0.5."""
    moved = np.cumsum(np.where(counts, drive.placement.with_traffic, 0.0), axis=0)
    entries = round(AGAINST_S / drive.dt) + 1  # as nuPlan sums them
    before = np.pad(moved, ((entries, 0), (0, 0)))[: len(moved)]
    against = (before - moved).max(axis=0)
    return np.where(against < AGAINST[0], 1.0, np.where(against < AGAINST[1], 0.5, 0.0))


def gained(drive: Drive, counts: Flags) -> Floats:
    """Metres along the route (b,) since the handover, to the goal at most, until the route is left."""
    kept = counts & ~reached(drive.lateral_offset > ROUTE_LEFT)
    most = np.where(kept, drive.progress, 0.0).max(axis=0)
    start = drive.progress[min(drive.handover, len(drive.progress) - 1)]
    return np.maximum(np.minimum(most, drive.way) - start, 0.0)


def lane_keeping(drive: Drive, counts: Flags) -> Floats:
    """LK (b,): 0 where the ego is over 0.5 m off its route for 2 s on end, time at junctions left out."""
    outside, most = counts & ~drive.placement.at_junction, round(OFF_CENTRE_S / drive.dt)
    longest = np.zeros(counts.shape[1], dtype=np.int64)
    run = np.zeros_like(longest)
    for off, here in zip(drive.lateral_offset > OFF_CENTRE, outside, strict=True):
        run = np.where(here, np.where(off, run + 1, 0), run)
        longest = np.maximum(longest, run)
    return (longest < most).astype(float)


def discomforts(drive: Drive, counts: Flags) -> Flags:
    """When (t, b) egos pass limits of comfort; windows reach back before the handover, as NAVSIM's do."""
    found = np.zeros(counts.shape, dtype=bool)
    for b, end in enumerate(counts.sum(axis=0)):
        found[:end, b] = discomfort(drive.state[:end, b, EGO], drive.dt).any(axis=1)
    return found
