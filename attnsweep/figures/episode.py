"""A planner's drive over one test map as a film and as a strip of pictures: what it saw and predicted.

Every picture is drawn in the frame of the ego at a key frame, which looks up; the scale is that of its grid.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from PIL import Image
from torch import nn

from attnsweep.core.errors import UserError
from attnsweep.core.labels import model_name
from attnsweep.figures.canvas import INK, STYLE, Layout, canvas, write
from attnsweep.space import plan
from attnsweep.space.rerun import find_trial, trial_of
from attnsweep.tasks.driving.judging.closed_loop import Drive, drive
from attnsweep.tasks.driving.judging.course import course_of
from attnsweep.tasks.driving.judging.readout import CONFIDENT, predict
from attnsweep.tasks.driving.judging.score import Scores, score_drive
from attnsweep.tasks.driving.records import presets
from attnsweep.tasks.driving.records.batches import inputs_of, rig_of
from attnsweep.tasks.driving.records.observer import observer_of
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, SWEEPS, Samples, in_frame
from attnsweep.tasks.driving.stack.prediction import Prediction
from attnsweep.tasks.driving.world.cast import EGO, Cast, draw_cast
from attnsweep.tasks.driving.world.geometry import Floats, corners
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import RoadMap
from attnsweep.tasks.driving.world.sensor import GRID
from attnsweep.tasks.driving.world.traffic import World
from attnsweep.tasks.registry import build
from attnsweep.training.trained import trained

PICTURES, FRAME_MS = 5, 250
LAYOUT = Layout((2.4, 3.0), (0.15, 0.5), left=0.25, right=0.25, above=0.85, below=0.3)
SUBTITLES = {  # by whether agents are sought
    True: "Sensor, agents found and their futures (blue), occupancy (yellow), plan (orange)",
    False: "Sensor and plan (orange); nothing else is told by this planner",
}
FOOTNOTE = (
    "Squares: returns of the last four sweeps, the older the paler; grey: paint; red: stop lines. "
    "Dashes: the route that it was given. Dotted boxes: where the others really were, which it was not told."
)
BACK, AHEAD, BESIDE = -14.0, 46.0, 24.0  # m, of what is shown
PLAN, FOUND, TRUTH = "#D55E00", "#0072B2", "#8A8A8A"
COVERED = LinearSegmentedColormap.from_list("covered", ["#FFFFFF00", "#E69F00C0"])


@dataclass(frozen=True)
class Frame:
    """One key frame: what was sensed and predicted, rows of a batch of one, and where the others were."""

    time: float
    seen: Samples
    prediction: Prediction
    threshold: float  # from which confidence on an agent is detected
    others: Floats  # (n, 5), boxes in the ego's frame
    size: Floats  # (2,) of the ego


def render(results: str, trial_id: str, *, number: int, data: str | None, folder: Path) -> list[Path]:
    """Writes `episode-TRIAL_ID-NUMBER.gif` and `.png`; returns their paths. Raises UserError where the trial
    does not drive, or there is no such map.
    """
    folders = plan.folders_of(results, data)
    row = find_trial(results, trial_id)
    if row["task"] != "driving" or row["plan"] == "off" or row["status"] != "done":
        raise UserError(f"trial {row['trial_id']} is of {row['model']} ({row['status']}), which has no plans")
    if not str(row["dataset"]).startswith("driving:"):
        raise UserError(
            f"trial {row['trial_id']} is of {row['dataset']}: nobody can drive in recorded traffic"
        )
    one = trial_of(row, folders.data)
    preset = presets.find(one.config["dataset"])
    if not 0 <= number < preset.test:
        raise UserError(f"--map {number} is out of range; use 0 to {preset.test - 1}")
    model = build(one.config, one.source).eval()
    if row["params"]:  # rules have none
        model = trained(row, one, runs=folders.checkpoints, data=folders.data)
    threshold = CONFIDENT if pd.isna(row["test_f1_threshold"]) else float(row["test_f1_threshold"])
    frames, outcome = episode(model, preset, number, one.config, threshold=threshold)
    name = f"episode-{one.trial_id}-{number}"
    stages = "" if pd.isna(row["stages"]) else f" {row['stages']}"
    who = model_name(row["model"]) + stages + (" by cameras" if rig_of(one.config) else "")
    about = SUBTITLES[frames[0].prediction.agents is not None]
    narrow = f"Test map {number}", f"{who} on {preset.name}: {outcome}. {about}"
    wide = f"{who} on test map {number} of {preset.name}: {outcome}", about
    return [
        write(folder, f"{name}.gif", lambda file: film(frames, *narrow, file)),
        write(folder, f"{name}.png", lambda file: strip(frames, *wide, file)),
    ]


# --- Drive ---


def episode(
    model: nn.Module, preset: presets.Preset, number: int, config: Mapping[str, Any], *, threshold: float
) -> tuple[list[Frame], str]:
    """The key frames of a drive over a test map, with agents of that confidence, and its outcome in words."""
    road_map = draw_map(preset.seeds("test")[number], kinds=preset.kinds, full=preset.full)
    cast = draw_cast(road_map, preset.crowd, dt=DT)
    heard: list[tuple[Samples, Prediction]] = []

    def policy(seen: Samples) -> Floats:
        prediction = predict(model, [seen[name] for name in inputs_of(config)])
        heard.append((seen, prediction))
        return np.asarray(prediction.plan.double())

    is_expert = config["model"] == "expert"
    driven = drive([road_map], [cast], None if is_expert else policy, rig=rig_of(config))
    heard += of_expert(road_map, cast, driven) if is_expert else []
    scores = score_drive(driven, course_of([road_map], [cast]).expected)
    frames = [frame(driven, SWEEPS - 1 + k, *one, threshold=threshold) for k, one in enumerate(heard)]
    return frames, ", ".join([f"score {scores.score[0]:.2f}", *events(scores)])


def events(scores: Scores) -> list[str]:
    """What went wrong in the first scene, in words."""
    happened = {
        "collision": scores.at_fault,
        "off the road": scores.off_road,
        "against traffic": scores.direction < 1,
        "red light run": scores.ran_red,
        "wrong route": scores.wrong_route,
        "no progress": scores.made_progress == 0,
        "rough ride": scores.rough,
    }
    return [word for word, happens in happened.items() if happens[0]]


def of_expert(road_map: RoadMap, cast: Cast, driven: Drive) -> list[tuple[Samples, Prediction]]:
    """The scanner's returns at each key frame of the expert's drive, and as its plan where it then went."""
    world, every, heard = World([road_map], [cast]), round(KEY_S / driven.dt), []
    observer, ego = observer_of([road_map], world), driven.state[:, 0, EGO, :3]
    for at in range(len(ego) - 1):
        if at % every == 0 and (seen := observer.observe()):
            later = np.minimum(at + every * np.arange(1, FUTURE + 1), len(ego) - 1)
            plan = torch.from_numpy(in_frame(ego[later], ego[at])).float()
            heard.append((seen, Prediction(plan[None])))
        world.step()
    return heard


def frame(driven: Drive, key: int, seen: Samples, prediction: Prediction, *, threshold: float) -> Frame:
    """The key frame of that number, counted from the start."""
    at = key * round(KEY_S / driven.dt)
    ego, there = driven.state[at, 0, EGO, :3], driven.active[at, 0].copy()
    there[EGO] = False
    others = np.concatenate([in_frame(driven.state[at, 0, :, :3], ego), driven.size[0]], axis=1)
    return Frame(key * KEY_S, seen, prediction, threshold, others[there], driven.size[0, EGO])


# --- Draw ---


def strip(frames: Sequence[Frame], title: str, about: str, file: BinaryIO) -> None:
    """Writes some of the frames side by side, evenly spaced in time, as a PNG."""
    places = np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int)
    chosen = [frames[i] for i in places]
    with matplotlib.rc_context(STYLE):
        figure = pictures(chosen, title, about, footnote=FOOTNOTE)
        figure.savefig(file, format="png", dpi=150)


def film(frames: Sequence[Frame], title: str, about: str, file: BinaryIO) -> None:
    """Writes all frames one after another, at twice the speed of life, as a GIF."""
    images = []
    with matplotlib.rc_context(STYLE):
        for one in frames:
            buffer = io.BytesIO()
            pictures([one], title, about, footnote="").savefig(buffer, format="png", dpi=90)
            opaque = Image.open(buffer).convert("RGB")  # Pillow confuses the channels of palettes with alpha
            images.append(opaque.quantize(128))
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0)


def pictures(frames: Sequence[Frame], title: str, about: str, *, footnote: str) -> Figure:
    """The frames side by side."""
    figure, grid = canvas((1, len(frames)), LAYOUT, title=title, subtitle=about, footnote=footnote)
    for one, axes in zip(frames, grid.flat, strict=True):
        draw(axes, one)
    return figure


def draw(axes: Axes, one: Frame) -> None:
    """One key frame, x up and y to the left."""
    axes.set_xlim(BESIDE, -BESIDE)
    axes.set_ylim(BACK, AHEAD)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{one.time:.1f} s", loc="left", size=9)
    draw_sensor(axes, one.seen["bev"][0])
    draw_prediction(axes, one.prediction, one.threshold)
    for box in one.others:
        axes.add_patch(outline(box, edgecolor=TRUTH, linestyle=":", linewidth=0.9))
    axes.add_patch(outline(np.array([0, 0, 0, *one.size]), facecolor=PLAN, edgecolor="white", zorder=6))
    route = np.concatenate([[[0, 0]], one.seen["route"][0]])
    axes.plot(route[:, 1], route[:, 0], color=TRUTH, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    way = np.concatenate([[[0, 0]], one.prediction.plan[0, :, :2]])
    axes.plot(way[:, 1], way[:, 0], "-o", color=PLAN, linewidth=1.6, markersize=2.6, zorder=7)


def draw_sensor(axes: Axes, bev: np.ndarray) -> None:
    """Paint, red lines, and returns, the older the paler; of layers (6, 64, 64)."""
    *sweeps, paint, red = bev
    layers = [(paint, "#BDBDBD", 1.6), (red, "#D00000", 3.4)]
    layers += [(sweep, INK, 3.0) for sweep in sweeps]
    fade = [1.0, 1.0, *np.linspace(0.15, 0.9, len(sweeps))]
    for (layer, colour, size), alpha in zip(layers, fade, strict=True):
        x, y = GRID.centres()[layer > 0].T
        axes.plot(y, x, "s", color=colour, alpha=alpha, markersize=size, markeredgewidth=0)


def draw_prediction(axes: Axes, prediction: Prediction, threshold: float) -> None:
    """Where it will be occupied, and the agents that are sure enough with their likeliest futures."""
    if prediction.agents is None:
        return
    sure = prediction.agents.logit[0].sigmoid() >= threshold
    if prediction.occupancy is not None and sure.any():
        covered = prediction.occupancy[0][:, sure].sigmoid().amax(dim=(0, 1))
        low, side = GRID.corner, GRID.cells * GRID.size
        extent = (low[1], low[1] + side, low[0], low[0] + side)
        axes.imshow(covered.numpy(), origin="lower", extent=extent, cmap=COVERED, vmin=0.2, vmax=1, zorder=0)
    for query in torch.nonzero(sure)[:, 0]:
        x, y, cos, sin, length, width = prediction.agents.box[0, query].tolist()
        box = np.array([x, y, np.arctan2(sin, cos), length, width])
        axes.add_patch(outline(box, edgecolor=FOUND, linewidth=1.3, zorder=4))
        if prediction.futures is not None:
            mode = int(prediction.futures.logits[0, query].argmax())
            way = prediction.futures.offsets[0, query, mode].numpy()
            axes.plot([y, *(y + way[:, 1])], [x, *(x + way[:, 0])], color=FOUND, linewidth=1.0, zorder=4)


def outline(box: Floats, **look: object) -> Polygon:
    """A box (5,) as a patch."""
    return Polygon(corners(box)[:, ::-1], closed=True, **{"facecolor": "none", **look})
