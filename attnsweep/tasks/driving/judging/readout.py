"""What a planner predicts about many samples, compact and in numpy, so that it can be measured."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnsweep.tasks.driving.records.batches import INPUTS
from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.stack.prediction import Agents, Prediction
from attnsweep.tasks.driving.world.geometry import Flags, Floats

CONFIDENT = 0.4  # from which on an agent counts as detected for occupancy; UniAD's for new tracks


@dataclass(frozen=True)
class Readout:
    """A `Prediction` about `s` samples, without what takes much room: `confidence` (s, q) from 0 to 1 that an
    agent is there, its `box` (s, q, 6), `velocity` (s, q, 2), `offset` (s, q, 2) and `futures` (s, q, m, 8,
    2); `line_class` (s, l, 3) probabilities of centre, border and divider, `line_points` (s, l, 10, 2);
    `map` (s, 3, g, g) bool; `instances` (s, 5, g, g) uint8: 1 + the query that most covers the cell, of those
    with a confidence of 0.4, 0 where none does. None where the planner has no such stage.
    """

    plan: Floats
    confidence: Floats | None = None
    box: Floats | None = None
    velocity: Floats | None = None
    offset: Floats | None = None
    futures: Floats | None = None
    line_class: Floats | None = None
    line_points: Floats | None = None
    map: Flags | None = None
    instances: NDArray[np.uint8] | None = None


def scenes_of(readout: Readout, samples: Samples) -> Iterator[tuple[Readout, Samples]]:
    """The rows of each scene by themselves, in the order of the samples, whose scenes are not mixed."""
    starts = np.flatnonzero(np.diff(samples["scene"].astype(np.int64), prepend=-1))
    for first, last in zip(starts, [*starts[1:], len(samples["scene"])], strict=True):
        part = {name: array[first:last] for name, array in samples.items()}
        previous = part["previous"].astype(np.int64)
        part["previous"] = np.where(previous >= 0, previous - first, -1)
        yield Readout(**{name: values[first:last] for name, values in told(readout).items()}), part


def told(readout: Readout) -> dict[str, Any]:
    """The arrays that there are."""
    arrays = {field.name: getattr(readout, field.name) for field in fields(Readout)}
    return {name: values for name, values in arrays.items() if values is not None}


def read_out(
    planner: nn.Module, samples: Samples, *, inputs: Iterable[str] = INPUTS, batch_size: int = 64
) -> Readout:
    """What the planner, which reads `inputs`, predicts about all samples, on the device that it is on."""
    parts = []
    for first in range(0, len(samples["plan"]), batch_size):
        rows = slice(first, first + batch_size)
        parts.append(compact(predict(planner, [samples[name][rows] for name in inputs])))
    return joined(parts)


def predict(planner: nn.Module, inputs: Iterable[NDArray[np.generic]]) -> Prediction:
    """What the planner predicts from inputs, in evaluation mode, without gradients, on its own device."""
    device = next((p.device for p in planner.parameters()), torch.device("cpu"))
    was = planner.training
    planner.eval()
    with torch.no_grad():
        prediction: Prediction = planner(*(torch.from_numpy(np.array(array)).to(device) for array in inputs))
    planner.train(was)
    return prediction


def joined(parts: list[Readout]) -> Readout:
    """The readouts of several batches in one."""
    rows = [told(part) for part in parts]
    return Readout(**{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def compact(prediction: Prediction) -> Readout:
    """The readout of one prediction."""
    agents, lines, futures = prediction.agents, prediction.lines, prediction.futures
    return Readout(
        plan=prediction.plan.double().cpu().numpy(),
        confidence=numpy_of(agents.logit.sigmoid() if agents else None),
        box=numpy_of(agents.box if agents else None),
        velocity=numpy_of(agents.velocity if agents else None),
        offset=numpy_of(agents.offset if agents else None),
        futures=numpy_of(futures.offsets if futures else None),
        line_class=numpy_of(lines.logits.softmax(dim=2)[..., :3] if lines else None),
        line_points=numpy_of(lines.points if lines else None),
        map=None if prediction.map is None else (prediction.map > 0).cpu().numpy(),
        instances=None if prediction.occupancy is None else instances(prediction.occupancy, agents),
    )


def numpy_of(values: Tensor | None) -> Floats | None:
    return None if values is None else values.double().cpu().numpy()


def instances(occupancy: Tensor, agents: Agents | None) -> NDArray[np.uint8]:
    """1 + the query (b, 5, g, g) whose logit (b, 5, q, g, g) is the highest and above 0, else 0."""
    if agents:
        detected = agents.logit.sigmoid() >= CONFIDENT
        occupancy = occupancy.masked_fill(~detected[:, None, :, None, None], -torch.inf)
    best, query = occupancy.max(dim=2)
    return torch.where(best > 0, query + 1, 0).to(torch.uint8).cpu().numpy()
