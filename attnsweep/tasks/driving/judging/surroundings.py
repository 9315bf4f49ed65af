"""How well the map and occupancy are predicted: IoU, F1 of lines, video panoptic quality."""

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.judging.perception import match
from attnsweep.tasks.driving.judging.readout import Readout
from attnsweep.tasks.driving.records.samples import OCCUPANCY, Samples, occupancy_mask
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.sensor import GRID

LAYERS = ("drivable", "border", "divider")
CHAMFER = (0.5, 1.0, 1.5)  # m
NEAR = 15.0  # m along and across, from the ego
LEAST_IOU = 0.5  # of a segment that counts as matched


def measure_surroundings(readout: Readout, samples: Samples) -> dict[str, float]:
    """What the planner predicts of: `map_iou_drivable`, `_border`, `_divider`; `line_f1_05`, `_1`, `_15`;
    `occ_iou_near` (30 m x 30 m about the ego) and `occ_iou_far` (the whole grid), `vpq_near` and `vpq_far`.
    """
    found: dict[str, float] = {}
    if readout.map is not None:
        truth = samples["map"].astype(bool)
        fine = finer(readout.map, truth.shape[-1]).astype(bool)
        found |= {f"map_iou_{name}": iou(fine[:, k], truth[:, k]) for k, name in enumerate(LAYERS)}
    if readout.line_class is not None and readout.line_points is not None:
        found |= line_f1(readout.line_class, readout.line_points, samples)
    if readout.instances is not None:
        truth = samples["occupancy"].astype(np.uint8)
        predicted, off = finer(readout.instances, truth.shape[-1]), np.abs(GRID.centres()).max(axis=-1)
        for name, reach in (("near", NEAR), ("far", np.inf)):
            counts = occupancy_mask(samples)[..., None, None] & (off < reach)
            found[f"occ_iou_{name}"] = iou((predicted > 0) & counts, (truth > 0) & counts)
            found[f"vpq_{name}"] = panoptic_quality(predicted * counts, truth * counts)
    return found


def finer(values: NDArray[np.uint8 | np.bool_], cells: int) -> NDArray[np.uint8 | np.bool_]:
    """Grids (..., g, g) on as many cells each way, of which g is a divisor."""
    times = cells // values.shape[-1]
    return values.repeat(times, axis=-1).repeat(times, axis=-2)


def iou(predicted: Flags, truth: Flags) -> float:
    """Cells in both over cells in either; NaN where there are none."""
    either = int((predicted | truth).sum())
    return float((predicted & truth).sum() / either) if either else float("nan")


# --- Lines ---


def line_f1(line_class: Floats, points: Floats, samples: Samples) -> dict[str, float]:
    """F1 of lines at three Chamfer distances: the most confident first, each the nearest of its class that is
    not taken (the matching of Liao et al., "MapTR", ICLR 2023). A line counts as predicted whose class is
    more probable than that there is none.
    """
    kind, confidence = line_class.argmax(axis=2), line_class.max(axis=2)
    predicted = line_class.sum(axis=2) > 0.5
    truth = samples["line_kind"].astype(np.int64)
    alike = predicted[..., None] & (kind[..., None] == truth[:, None])
    gap = np.full(alike.shape, np.inf)
    lines = samples["lines"].astype(np.float64)
    s, i, j = np.nonzero(alike)
    near = no_nearer(points[s, i], lines[s, j]) < max(CHAMFER)
    s, i, j = s[near], i[near], j[near]
    gap[s, i, j] = chamfer(points[s, i], lines[s, j])
    total = int(predicted.sum() + (truth >= 0).sum())
    found = {}
    for reach in CHAMFER:
        right = int((match(confidence, gap, reach) >= 0).sum())
        found[f"line_f1_{f'{reach:g}'.replace('.', '')}"] = 2 * right / total if total else float("nan")
    return found


def chamfer(one: Floats, other: Floats) -> Floats:
    """How far (k,) points of each of two polylines (k, p, 2) are from the other, the mean of both ways."""
    return (to_line(one, other).mean(axis=1) + to_line(other, one).mean(axis=1)) / 2


def no_nearer(one: Floats, other: Floats) -> Floats:
    """What `chamfer` of polylines (k, p, 2) cannot be below (k,): the same to the boxes around them."""
    ways = []
    for points, line in ((one, other), (other, one)):
        off = points - points.clip(line.min(axis=1)[:, None], line.max(axis=1)[:, None])
        ways.append(np.hypot(off[..., 0], off[..., 1]).mean(axis=1))
    return (ways[0] + ways[1]) / 2


def to_line(points: Floats, line: Floats) -> Floats:
    """The distance (k, p) of points (k, p, 2) from polylines (k, m, 2)."""
    (px, py), (x, y) = np.moveaxis(points, -1, 0)[..., None], np.moveaxis(line, -1, 0)[:, :, None]
    dx, dy = np.diff(x), np.diff(y)
    ax, ay = px - x[..., :-1], py - y[..., :-1]  # (k, p, m - 1)
    share = np.clip((ax * dx + ay * dy) / np.maximum(dx**2 + dy**2, 1e-12), 0, 1)
    return np.sqrt(((ax - share * dx) ** 2 + (ay - share * dy) ** 2).min(axis=2))


# --- Occupancy ---


def panoptic_quality(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """The panoptic quality of instances (s, 5, 64, 64), 0 where there is none, over the five times of each
    sample; NaN where there are no instances.

    A segment is matched by one with which it shares more than half of their union, and that is the same
    instance as matched it before; else both are wrong (Kim et al., "Video panoptic segmentation", CVPR 2020,
    as Hu et al., "FIERY", ICCV 2021, apply it to agents).
    """
    shared = together(predicted, truth)  # (s, 5, i, j)
    truths, predictions = shared.sum(axis=2), shared.sum(axis=3)
    union = predictions[..., None] + truths[..., None, :] - shared
    found = np.where(union > 0, shared / np.maximum(union, 1), 0.0)[:, :, 1:, 1:]
    total = 0.0
    known = np.zeros((len(found), found.shape[3]), dtype=np.int64)  # by whom each was matched last
    for t in range(OCCUPANCY):
        s, i, j = np.nonzero(found[:, t] > LEAST_IOU)
        same = (known[s, j] == 0) | (known[s, j] == i + 1)
        known[s, j] = i + 1
        total += found[s, t, i, j][same].sum()
    segments = int((truths[:, :, 1:] > 0).sum() + (predictions[:, :, 1:] > 0).sum())
    return float(2 * total / segments) if segments else float("nan")


def together(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Indices:
    """How many cells (s, 5, i, j) are predicted to be of instance i and are of j, but for (0, 0)."""
    first, second = int(predicted.max(initial=0)) + 1, int(truth.max(initial=0)) + 1
    sample, time, *_ = at = np.nonzero(predicted | truth)  # few
    index = ((sample * OCCUPANCY + time) * first + predicted[at]) * second + truth[at]
    counts = np.bincount(index, minlength=len(truth) * OCCUPANCY * first * second)
    return counts.reshape(-1, OCCUPANCY, first, second)
