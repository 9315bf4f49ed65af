"""Driving: a planner learns from recorded scenes what an expert does, and is judged by driving by itself.

What counts is the closed loop: maps that it has not seen, traffic that reacts, a new plan each half second.
Distances to the expert's path are columns, never the aim: who stays closest may drive worst.
"""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.tasks import own
from attnsweep.tasks.driving import datasets
from attnsweep.tasks.driving.columns import BY_MAP, NO_COLUMNS, SLICES, SLICES_DRIVEN
from attnsweep.tasks.driving.judging import open_loop, replay
from attnsweep.tasks.driving.judging.baselines import policy_of
from attnsweep.tasks.driving.judging.closed_loop import Policy
from attnsweep.tasks.driving.judging.course import Course, course
from attnsweep.tasks.driving.judging.course import judge as drive_course
from attnsweep.tasks.driving.judging.perception import measure_agents
from attnsweep.tasks.driving.judging.readout import Readout, read_out, scenes_of
from attnsweep.tasks.driving.judging.score import Scores, interval
from attnsweep.tasks.driving.judging.surroundings import measure_surroundings
from attnsweep.tasks.driving.judging.tracking import measure_tracks
from attnsweep.tasks.driving.records import scenes
from attnsweep.tasks.driving.records.batches import SHAPES, inputs_of, rig_of, rows, tensors
from attnsweep.tasks.driving.records.presets import Preset
from attnsweep.tasks.driving.records.samples import ROUTE_POINTS, ROUTE_STEP, Samples
from attnsweep.tasks.driving.stack.losses import losses, total
from attnsweep.tasks.driving.world.geometry import Floats

ADAM: Mapping[str, Any] = {"betas": (0.9, 0.99)}
tune = None  # a model is trained as it is initialised
JUDGE_BATCH = 100
SHORTCUT = 0.05  # a planner that loses less than that without its sensor does not look
Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """The recorded parts: the training part as tensors, the others as they lie on disk."""

    source: scenes.Source
    train: Mapping[str, Tensor]
    val: Samples
    test: Samples
    device: str

    @property
    def train_size(self) -> int:
        return len(self.train["plan"])

    def course(self, part: str) -> Course | None:
        """The maps of a part, to be driven; None where there is no world, only a recording."""
        if not isinstance(self.source, Preset):
            return None
        return course(self.source.name, part, getattr(self.source, part))


@functools.lru_cache(maxsize=2)
def load(
    dataset_name: str, data_dir: str, device: str, inputs: tuple[str, ...], sha256: str | None = None
) -> Data:
    """The samples, recorded if they are not there; mapped into memory, which a machine's processes share.

    Raises UserError where recorded traffic has another checksum than `sha256` (None: any).
    """
    found = datasets.find(dataset_name)
    assert found is not None, "driving.space admits no other"
    if sha256 not in (None, found.checksum(Path(data_dir))):
        raise UserError(
            f"dataset={dataset_name!r} has changed since the plan was made; the same command makes it anew"
        )
    source, here = found.source, Path(data_dir)
    scenes.ensure(source, here)
    train, val, test = (scenes.load(source, here, part) for part in ("train", "val", "test"))
    return Data(source, tensors(train, inputs), val, test, device)


def load_for(config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None) -> Data:
    """The data of one trial; see `load`."""
    return load(config["dataset"], data_dir, device, inputs_of(config), sha256)


def batches(data: Data, config: Mapping[str, Any], *, epoch: int, order: torch.Generator) -> Iterator[Batch]:
    """One epoch of samples in an order drawn from `order`; none mirrored, for traffic would keep left."""
    index = torch.randperm(data.train_size, generator=order)
    for chosen in index.split(config["batch_size"]):
        yield {name: array.to(data.device) for name, array in rows(data.train, chosen).items()}, chosen


def loss(model: nn.Module, batch: Batch, config: Mapping[str, Any]) -> Tensor:
    """The sum of the terms that the planner's stages have, a scalar."""
    samples, _ = batch
    return total(losses(model(*(samples[name] for name in inputs_of(config))), samples))


def learning_rate(config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
    """Rises to `lr` over `warmup_steps`, then falls along a cosine to nothing at the end of training."""
    rise, steps = config["warmup_steps"], steps_per_epoch * config["epochs"]
    if step < rise:
        return float(config["lr"] * (step + 1) / rise)
    return float(config["lr"] * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2)


# --- Judging ---


def policy(model: nn.Module, config: Mapping[str, Any]) -> Policy | None:
    """What drives in closed loop; None is the expert."""
    return None if config["model"] == "expert" else policy_of(model, inputs_of(config))


def plans_of(readout: Readout, samples: Samples, config: Mapping[str, Any]) -> Floats:
    """The plans (s, 8, 3) that a planner made; the expert's are what was recorded."""
    return replay.extended(samples) if config["model"] == "expert" else np.asarray(readout.plan, np.float64)


def judge(model: nn.Module, data: Data, config: Mapping[str, Any]) -> dict[str, float]:
    """On the validation part: the closed-loop score, the share of at-fault collisions, how far plans are from
    the expert's after 3 s, and the loss. Without a planner, the loss alone.
    """
    columns = {} if config["model"] == "expert" else {"val_loss": mean_loss(model, data, config)}
    if config["plan"] == "off":
        return columns
    plans = plans_of(read_out(model, data.val, inputs=inputs_of(config)), data.val, config)
    off = open_loop.summary(open_loop.measures(data.val, plans))["l2_3s"]
    means = drives(model, data.val, data.course("val"), config).means()
    columns |= {"val_score": means["score"], "val_at_fault": means["at_fault"], "val_l2_3s": off}
    return {name: value for name, value in columns.items() if name != "val_l2_3s" or value == value}


def drives(
    model: nn.Module, samples: Samples, run: Course | None, config: Mapping[str, Any], *, blind: bool = False
) -> Scores:
    """How a planner drives on a course, or, without one, among recorded traffic for 4 s from each sample;
    `blind`: with a sensor that sees nothing.
    """
    sensed, *_ = inputs = inputs_of(config)
    if run is None:
        shown = samples | nothing(sensed, len(samples["plan"])) if blind else samples
        return replay.score_plans(samples, plans_of(read_out(model, shown, inputs=inputs), samples, config))
    plan = policy(model, config)
    rig = None if blind else rig_of(config)
    return drive_course(run, blanked(plan, sensed) if blind and plan else plan, rig)


def mean_loss(model: nn.Module, data: Data, config: Mapping[str, Any]) -> float:
    """The loss over the validation part."""
    part, summed = tensors(data.val, inputs_of(config)), 0.0
    for chosen in torch.arange(len(part["plan"])).split(JUDGE_BATCH):
        batch = {name: array.to(data.device) for name, array in rows(part, chosen).items()}
        summed += loss(model, (batch, chosen), config).item() * len(chosen)
    return summed / len(part["plan"])


def examine(model: nn.Module, data: Data, config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about the test part: detections and forecasts, plans against the expert's, and how it
    drives, with its sensor and without; no column of what has no value, as where nothing was there.
    """
    readout = read_out(model, data.test, inputs=inputs_of(config))
    columns: dict[str, Any] = of_test(measured(readout, data.test))
    outcomes: dict[str, Floats] = {}  # on each map
    if config["plan"] != "off":
        columns |= of_test(of_plans(readout, data.test, config))
        run = data.course("test")
        scores = drives(model, data.test, run, config)
        columns |= of_drives(model, data, config, run, scores)
        outcomes = {name: getattr(scores, name) for name in ("at_fault", "off_road")} if run else {}
    columns["test_map_measures"] = by_map(readout, data.test, config, outcomes)
    return {name: value for name, value in columns.items() if value == value}


def of_test(measures: Mapping[str, float]) -> dict[str, float]:
    """The columns of these measures of the test part."""
    return {f"test_{name}": value for name, value in measures.items() if name not in NO_COLUMNS}


def by_map(
    readout: Readout, samples: Samples, config: Mapping[str, Any], outcomes: Mapping[str, Floats]
) -> str:
    """The measures of `BY_MAP` on each scene of the test part by itself, and the `outcomes` of closed loop on
    each map, as JSON; null where a scene has none.
    """
    rows: list[dict[str, float]] = []
    for of_scene, part in scenes_of(readout, samples):
        rows.append(measured(of_scene, part))
        if config["plan"] != "off":
            rows[-1] |= open_loop.summary(open_loop.measures(part, plans_of(of_scene, part, config)))
    lists = {name: [row.get(name, math.nan) for row in rows] for name in BY_MAP} | dict(outcomes)
    return json.dumps(
        {
            name: [round(float(value), 4) if value == value else None for value in values]
            for name, values in lists.items()
            if any(value == value for value in values)
        }
    )


def measured(readout: Readout, samples: Samples) -> dict[str, float]:
    """What the stages before the planner are worth."""
    agents, tracks = measure_agents(readout, samples), measure_tracks(readout, samples)
    return agents | tracks | measure_surroundings(readout, samples)


def of_plans(readout: Readout, samples: Samples, config: Mapping[str, Any]) -> dict[str, float]:
    """Plans against what was recorded: all measures of all samples, distance and collisions by slice."""
    plans = plans_of(readout, samples, config)
    found = open_loop.measures(samples, plans)
    columns = open_loop.summary(found)
    where = open_loop.slices(samples)
    for part in SLICES:
        of_part = open_loop.summary(found, where[part])
        columns |= {f"{name}_{part}": of_part[name] for name in ("l2_3s", "col_4s")}
    return columns | {"score_4s": float(replay.score_plans(samples, plans).score.mean())}


def of_drives(
    model: nn.Module, data: Data, config: Mapping[str, Any], run: Course | None, scores: Scores
) -> dict[str, Any]:
    """The columns of driving on the test part: of `scores` with the sensor, and without it."""
    low, high = interval(scores.score)
    columns: dict[str, Any] = of_test(scores.means())
    columns |= {"test_score_low": low, "test_score_high": high}
    where = run.slices if run else open_loop.slices(data.test)
    columns |= {f"test_score_{part}": scores.means(where[part])["score"] for part in SLICES_DRIVEN}
    if run:
        columns["test_map_scores"] = json.dumps([round(float(score), 4) for score in scores.score])
    if config["model"] == "planning" or own.is_own(config["model"]):  # those that look at all
        blank = drives(model, data.test, run, config, blind=True).means()["score"]
        columns |= {"test_score_blank": blank, "shortcut": columns["test_score"] - blank < SHORTCUT}
    return columns


def blanked(plan: Policy, sensed: str) -> Policy:
    """The policy with a sensor that sees nothing; `sensed` is what it gives."""
    return lambda seen: plan(seen | nothing(sensed, len(seen["route"])))


def nothing(sensed: str, samples: int) -> Samples:
    """What a sensor gives that sees nothing."""
    return {sensed: np.zeros((samples, *SHAPES[sensed]), np.uint8)}


# --- Measuring ---


def example(config: Mapping[str, Any], batch: int) -> tuple[Tensor, ...]:
    """A fixed scene that is full of returns, or of colours, and a straight route: what `inputs_of` names."""
    generator, sensed = torch.Generator().manual_seed(0), inputs_of(config)[0]
    most = 256 if rig_of(config) else 3
    seen = torch.randint(0, most, (batch, *SHAPES[sensed]), generator=generator, dtype=torch.uint8)
    ahead = ROUTE_STEP * torch.arange(1, ROUTE_POINTS + 1, dtype=torch.float32)
    route = torch.stack([ahead, torch.zeros_like(ahead)], dim=1).expand(batch, -1, -1).contiguous()
    return seen, route, torch.zeros(batch, dtype=torch.int8), torch.zeros(batch, 5)


def answer(model: nn.Module, inputs: tuple[Tensor, ...], config: Mapping[str, Any]) -> Callable[[], object]:
    """One forward pass: from the sensor to all that the stack predicts."""
    return functools.partial(model, *inputs)
