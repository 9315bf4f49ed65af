"""How well agents are detected and their motion is forecast: average precision, F1, displacement errors, EPA.

All agents are of one class here; truth is what samples hold of agents that could be seen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.judging.readout import Readout
from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices

REACHES = (0.5, 1.0, 2.0, 4.0)  # m, between centres
REACH = 2.0  # m, of F1, tracking and motion forecasts
LEAST = 0.1  # of recall and precision, below which nuScenes does not count
FALSE_WEIGHT = 0.5  # of false positives, in EPA


@dataclass(frozen=True)
class Curve:
    """Detections, the surest first: `confidence` (k,), which are `right` (k,), of `count` agents in all."""

    confidence: Floats
    right: Flags
    count: int


def measure_agents(readout: Readout, samples: Samples) -> dict[str, float]:
    """`ap_05`, `ap_1`, `ap_2`, `ap_4` and their mean `ap`, `f1_2m` and its `f1_threshold`; with motion
    forecasts also `min_ade6`, `min_fde6`, `miss_rate`, `epa`. Nothing where no agents are detected; NaN where
    there are none.
    """
    if readout.confidence is None or readout.box is None:
        return {}
    confidence, off = readout.confidence, gaps(readout.box, samples)
    found = {}
    for reach in REACHES:
        detections = curve(confidence, match(confidence, off, reach), samples)
        found[f"ap_{f'{reach:g}'.replace('.', '')}"] = average_precision(detections)
    found["ap"] = float(np.mean(list(found.values())))
    matched = match(confidence, off, REACH)
    found["f1_2m"], threshold = best_f1(curve(confidence, matched, samples))
    found["f1_threshold"] = threshold
    if readout.futures is not None:
        found |= measure_futures(readout, samples, confidence >= threshold, matched)
    return found


def gaps(box: Floats, samples: Samples) -> Floats:
    """Distances (s, q, n) between the centres of detections (s, q, 6) and agents; inf: there is no agent."""
    truth = samples["box"][:, None, :, :2].astype(np.float64)
    off = np.hypot(*np.moveaxis(box[:, :, None, :2] - truth, -1, 0))
    return np.where(samples["mask"][:, None].astype(bool), off, np.inf)


def match(confidence: Floats, off: Floats, reach: float) -> Indices:
    """Which agent (s, q) each detection is, or -1: the most confident first, each the nearest (s, q, n) that
    is not taken yet, if it is less than `reach` away.

    The rule of nuScenes' detection task (Caesar et al., CVPR 2020; `eval/detection/algo.py` of its devkit).
    """
    rows, order = np.arange(len(off)), np.argsort(-confidence, axis=1, kind="stable")
    free, matched = off.copy(), np.full(confidence.shape, -1)
    for query in order.T:
        distance = free[rows, query]  # (s, n)
        nearest = distance.argmin(axis=1)
        near = distance[rows, nearest] < reach
        matched[rows[near], query[near]] = nearest[near]
        free[rows[near], :, nearest[near]] = np.inf
    return matched


def curve(confidence: Floats, matched: Indices, samples: Samples) -> Curve:
    """All detections, the most confident first."""
    order = np.argsort(-confidence.ravel(), kind="stable")
    return Curve(confidence.ravel()[order], matched.ravel()[order] >= 0, int(samples["mask"].sum()))


def average_precision(curve: Curve) -> float:
    """The area under precision over recall, from 0 to 1, of what of either exceeds 0.1, at 100 recalls, as
    nuScenes has it; NaN where there are no agents.
    """
    if not curve.count:
        return float("nan")
    hits = np.cumsum(curve.right)
    if not len(hits) or not hits[-1]:
        return 0.0
    recall, precision = hits / curve.count, hits / np.arange(1, len(hits) + 1)
    if recall[0] != 0:
        recall, precision = np.append(0.0, recall), np.append(precision[0], precision)
    at = np.interp(np.linspace(0, 1, 101), recall, precision, right=0)[round(100 * LEAST) + 1 :]
    return float(np.maximum(at - LEAST, 0).mean() / (1 - LEAST))


def best_f1(curve: Curve) -> tuple[float, float]:
    """The best F1 over thresholds of confidence, and the threshold."""
    if not curve.count or not len(curve.right):
        return float("nan") if not curve.count else 0.0, 1.0
    f1 = 2 * np.cumsum(curve.right) / (np.arange(1, len(curve.right) + 1) + curve.count)
    last = np.append(curve.confidence[1:] != curve.confidence[:-1], True)  # equals are detected together
    best = int(np.where(last, f1, -1).argmax())
    return float(f1[best]), float(curve.confidence[best])


def measure_futures(
    readout: Readout, samples: Samples, confident: Flags, matched: Indices
) -> dict[str, float]:
    """Of the confident detections (s, q) that are agents, with the best of their modes: the mean over agents
    of the mean distance (m) and of the last one, and the share that is ever more than 2 m off; and `epa`,
    those predicted to 2 m at the end, less half of the false positives, per agent (Gu et al., "ViP3D", CVPR
    2023).
    """
    assert readout.futures is not None and readout.box is not None
    s, q = np.nonzero(confident & (matched >= 0))
    n = matched[s, q]
    known = samples["future_mask"][s, n].astype(bool)
    s, q, n, known = (values[known.any(axis=1)] for values in (s, q, n, known))
    predicted = readout.futures[s, q] + readout.box[s, q, None, None, :2]
    truth = samples["future"][s, n].astype(np.float64) + samples["box"][s, n, None, :2].astype(np.float64)
    off = np.hypot(*np.moveaxis(predicted - truth[:, None], -1, 0))  # (k, m, 8)
    off = np.where(known[:, None], off, 0.0)
    last = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    end = np.take_along_axis(off, last[:, None, None], axis=2)[..., 0].min(axis=1)
    mean = (off.sum(axis=2) / known.sum(axis=1)[:, None]).min(axis=1)
    there = int((samples["mask"].astype(bool) & samples["future_mask"].any(axis=2)).sum())
    wrong = int((confident & (matched < 0)).sum())
    return {
        "min_ade6": mean_of(mean),
        "min_fde6": mean_of(end),
        "miss_rate": mean_of(off.max(axis=2).min(axis=1) > REACH),
        "epa": float(((end < REACH).sum() - FALSE_WEIGHT * wrong) / there) if there else float("nan"),
    }


def mean_of(values: NDArray[np.generic]) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values.astype(np.float64))) if values.size else float("nan")
