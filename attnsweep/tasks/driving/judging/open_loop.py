"""Plans against what was driven: distances, collisions and leaving the road, without anybody reacting.

Each measure is an array over samples, NaN where the recording does not reach so far; means divide by the
number of values that there are. These are columns to look at. What is sought is the score of closed loop:
open-loop distances rank planners differently (Dauner et al., "Parting with misconceptions about
learning-based vehicle motion planning", CoRL 2023).
"""

import numpy as np

from attnsweep.tasks.driving.judging.closed_loop import drivable_plan
from attnsweep.tasks.driving.judging.replay import depth_at
from attnsweep.tasks.driving.records.samples import KEY_S, Samples
from attnsweep.tasks.driving.world.geometry import Flags, Floats, corners, overlap

SECONDS = (1, 2, 3, 4)
SLOW_STEP = 0.3  # m per key frame, below which a plan's yaw is not taken from it
MOVING = 0.5  # m/s


def measures(samples: Samples, plans: Floats) -> dict[str, Floats]:
    """For plans (s, 8, 3) of all samples, by name and each (s,):

    `l2_Ks` distance (m) K seconds on; `l2avg_Ks` its mean over the key frames up to then; `col_Ks` whether
    the ego's box overlaps any other's, seen or not, at any key frame up to then; `gt_col_Ks` the same of the
    recorded drive; `offroad_Ks` whether a corner leaves the drivable area, to about 0.2 m.

    A plan that cannot be driven counts as standing still.
    """
    _, lost = drivable_plan(plans)
    plans = np.where(lost[:, None, None], 0.0, np.asarray(plans, dtype=np.float64))
    truth, known = samples["plan"].astype(np.float64), samples["plan_mask"].astype(bool)
    found = distances(plans, truth, known)
    boxes, there = samples["future_boxes"].astype(np.float64), samples["future_boxes_mask"].astype(bool)
    for name, plan in (("col", plans), ("gt_col", truth)):
        hit = overlap(ego_boxes(plan, samples)[:, :, None], boxes) & there
        found |= until(name, hit.any(axis=2), known)
    outside = depth_at(samples["depth"], corners(ego_boxes(plans, samples))).min(axis=2) < 0
    found |= until("offroad", outside, known)
    return found


def summary(found: dict[str, Floats], where: Flags | slice = slice(None)) -> dict[str, float]:
    """The mean of each measure over the samples that have a value; NaN where none has."""
    values = {name: column[where][~np.isnan(column[where])] for name, column in found.items()}
    return {name: float(column.mean()) if column.size else float("nan") for name, column in values.items()}


def slices(samples: Samples) -> dict[str, Flags]:
    """Which samples (s,) belong to each slice of a report."""
    return {
        "all": np.ones(len(samples["plan"]), dtype=bool),
        "moving": samples["ego_state"][:, 0].astype(float) > MOVING,
        **{name: np.asarray(samples[f"is_{name}"], dtype=bool) for name in ("turn", "interactive", "hard")},
    }


def step(seconds: int) -> int:
    """The index of the key frame that many seconds on."""
    return round(seconds / KEY_S) - 1


def distances(plans: Floats, truth: Floats, known: Flags) -> dict[str, Floats]:
    """`l2_Ks` and `l2avg_Ks`."""
    off = np.where(known, np.hypot(*np.moveaxis(plans[..., :2] - truth[..., :2], -1, 0)), 0.0)
    total, count = np.cumsum(off, axis=1), np.cumsum(known, axis=1)
    found = {f"l2_{s}s": np.where(known[:, step(s)], off[:, step(s)], np.nan) for s in SECONDS}
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found | {f"l2avg_{s}s": mean[:, step(s)] for s in SECONDS[:3]}


def until(name: str, happens: Flags, known: Flags) -> dict[str, Floats]:
    """Whether it happens at any known key frame (s, 8) up to each second; NaN where that one is not known."""
    ever = np.maximum.accumulate(happens & known, axis=1).astype(float)
    return {f"{name}_{s}s": np.where(known[:, step(s)], ever[:, step(s)], np.nan) for s in SECONDS}


def ego_boxes(plans: Floats, samples: Samples) -> Floats:
    """The ego's boxes (s, 8, 5) along plans (s, 8, 3). Its yaw is the plan's, and stays what it was where the
    plan moves by less than 0.3 m, since the yaw of a plan that stands means nothing.
    """
    moved = np.hypot(*np.moveaxis(np.diff(np.pad(plans[..., :2], ((0, 0), (1, 0), (0, 0))), axis=1), -1, 0))
    last = np.maximum.accumulate(np.where(moved >= SLOW_STEP, np.arange(1, plans.shape[1] + 1), 0), axis=1)
    yaw = np.take_along_axis(np.pad(plans[..., 2], ((0, 0), (1, 0))), last, axis=1)
    size = np.broadcast_to(samples["size"].astype(np.float64)[:, None], (*yaw.shape, 2))
    return np.concatenate([plans[..., :2], yaw[..., None], size], axis=-1)
