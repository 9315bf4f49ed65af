"""Draws what a finished trial attends to, on examples of its test part.

    python -m attnsweep attention TRIAL_ID [--results results] [--data DIR] [--examples 6] [--out figures]

For vit, deepvit and hybrid: attention rollout (https://arxiv.org/abs/2005.00928) from the class token to the
patches, over the image. For the transformer: what each decoder block reads from the question, as a matrix.
The weights are those that the sweep kept (keep_weights=True); without them the trial is trained again, which
gives the same ones on the same kind of machine. Computed in fp32, whatever the precision of the training.

DeepViT's maps are taken before re-attention, where they are weights: none is negative and rows sum to one, as
rollout wants it. What re-attention makes of them is left out (see attnsweep/tasks/images/models/maps.py).
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from einops import rearrange, repeat
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import counted
from attnsweep.core.trial import Trial
from attnsweep.figures.arguments import command_parser
from attnsweep.figures.canvas import INK, STYLE, Layout, canvas, save, style_of
from attnsweep.figures.placement import GREY, PALE
from attnsweep.nn.attention import attention_maps
from attnsweep.space import plan
from attnsweep.space.rerun import find_trial, refuse_unfinished, trial_of
from attnsweep.tasks.images import training as images
from attnsweep.tasks.images.models.maps import Tiling, over_patches, patch_maps, rollout, tiling
from attnsweep.tasks.images.space import is_varied
from attnsweep.tasks.registry import class_names
from attnsweep.tasks.sequences import training as sequences
from attnsweep.tasks.sequences.problems import PAD, Problem, sign
from attnsweep.training.trained import trained

DRAWN = ("vit", "deepvit", "hybrid", "transformer")
MOST_EXAMPLES = 24
WRONG = "#C8102E"
PAIRS_IN_A_ROW, PAIR = 3, 1.4  # inches: the side of an image, and of its map beside it
BETWEEN = 0.06  # an image and its map, in sides
CELL = 0.15  # inches: the side of a cell of a matrix
LEFT, BAR = 0.6, 1.0  # inches: beside the panels on the left, and on the right for the bar of colours
LONGEST_NAME = 14  # signs of a class
OF_ATTENTION = {  # what its weights are
    "differential": " Weights are the difference of its two maps; white: none, or less than none.",
    "gated": " Weights are those before the gate.",
    "linear": " Weights are those that its sums amount to.",
    "sigmoid": " Weights are each by itself, and need not sum to one.",
}
NARROWEST = 5.4  # inches, for the title's sake


@dataclass(frozen=True)
class Picture:
    """An image (s, s, c) in 0..1, its label, the label that the model gives it, and how much of each patch
    (rows, columns) the class token has, in multiples of the mean patch.
    """

    image: np.ndarray
    truth: int
    predicted: int
    rollout: np.ndarray


@dataclass(frozen=True)
class Reading:
    """A question, its answer and what the model wrote, as signs, and the weights (blocks, written, question)
    with which each decoder block read the question for each written sign; the mean over heads.
    """

    question: tuple[str, ...]
    answer: tuple[str, ...]
    written: tuple[str, ...]
    maps: np.ndarray


# --- Compute ---


def pictures(
    model: nn.Module, config: Mapping[str, Any], data_dir: Path, count: int, *, sha256: str | None = None
) -> list[Picture]:
    """`count` test images, of as many classes as there are, seen by a model in evaluation mode with the
    explicit kernel; of data with that checksum (None: any).
    """
    data = images.load_for(config, str(data_dir), "cpu", sha256=sha256)
    index = of_all_classes(data.test.labels, count)
    chosen, truths = data.test.images[index], data.test.labels[index].tolist()
    collecting = attention_maps if is_varied(config) else patch_maps
    with collecting(model) as maps, torch.inference_mode():
        predicted = model(images.inputs(data, chosen)).argmax(dim=1).tolist()
    shares = over_patches(rollout(maps.values()))
    multiples = (shares / shares.mean(dim=(1, 2), keepdim=True)).numpy()
    pixels = rearrange(chosen, "b c h w -> b h w c").numpy() / 255
    return [Picture(*parts) for parts in zip(pixels, truths, predicted, multiples, strict=True)]


def of_all_classes(labels: Tensor, count: int) -> Tensor:
    """The indices, ascending, of `count` labels (n,): the first of each class, the second of each ..."""
    classes = pd.Series(labels.numpy())
    in_turn = classes.groupby(classes).cumcount().argsort(kind="stable")  # by the rank in its class
    return torch.from_numpy(in_turn.to_numpy(copy=True)[:count]).sort().values


def readings(model: Any, config: Mapping[str, Any], count: int) -> list[Reading]:
    """The first `count` test questions, answered by a transformer in evaluation mode."""
    data = sequences.load_for(config, "", "cpu")
    questions, answers = (part[:count] for part in data.held_out["test"])
    written = sequences.decode(model, questions, config, longest=answers.shape[1])
    with attention_maps(model) as maps, torch.inference_mode():
        model(questions, sequences.begun(written))
    crossed = [maps[f"decoder.{i}.cross_attention"].mean(dim=1) for i in range(len(model.decoder))]
    weights = rearrange(crossed, "blocks b m n -> b blocks m n").numpy()
    examples = zip(questions, answers, written, weights, strict=True)
    return [reading(data.problem, *example) for example in examples]


def reading(problem: Problem, question: Tensor, answer: Tensor, written: Tensor, maps: np.ndarray) -> Reading:
    """One reading, of padded token ids and the weights (blocks, written, question) between them."""
    asked, right, wrote = (signs(problem, tokens) for tokens in (question, answer, written))
    return Reading(asked, right, wrote, maps[:, : len(wrote), : len(asked)])


def signs(problem: Problem, tokens: Tensor) -> tuple[str, ...]:
    """Token ids (n,) as people write them, without padding."""
    return tuple(sign(problem, token) for token in tokens.tolist() if token != PAD)


# --- Draw ---


def draw_pictures(shown: Sequence[Picture], one: Trial, test_acc: float) -> Figure:
    """Each image and beside it its map, in rows of three; one scale of colours for all."""
    columns = min(len(shown), PAIRS_IN_A_ROW)
    layout = layout_of(columns, (PAIR * (2 + BETWEEN), PAIR), gap=(0.3, 0.4), below=0.35)
    norm = Normalize(0, max(picture.rollout.max() for picture in shown))
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (math.ceil(len(shown) / columns), columns),
            layout,
            title="What the class token attends to",
            subtitle=subtitle(one, test_acc),
            footnote=footnote_of_pictures(one.config),
        )
        for axes in grid.flat:
            axes.axis("off")
        names = [shortened(name) for name in class_names(one.config)]
        for axes, picture in zip(grid.flat, shown, strict=False):
            draw_picture(axes, picture, names, tiling(one.config), ScalarMappable(norm, shades(one)))
        bar(figure, grid, ScalarMappable(norm, shades(one)), "rollout (1: mean patch)")
    return figure


def draw_picture(
    axes: Axes, picture: Picture, names: Sequence[str], tiles: Tiling, colours: ScalarMappable
) -> None:
    """One image with its map beside it, and the names of its class and of the predicted one."""
    side, verdict = len(picture.image), GREY if picture.truth == picture.predicted else WRONG
    halves = (
        (plain(picture.image), f"class {names[picture.truth]}", INK),
        (overlaid(picture, tiles, colours), f"predicted {names[picture.predicted]}", verdict),
    )
    for at, (pixels, words, colour) in enumerate(halves):
        left = at * side * (1 + BETWEEN)
        axes.imshow(pixels, extent=(left, left + side, side, 0), interpolation="nearest")
        frame = Rectangle((left, 0), side, side, fill=False, edgecolor=PALE, linewidth=0.7, clip_on=False)
        axes.add_patch(frame)
        axes.text(left, -0.03 * side, words, size=9, va="bottom", color=colour)
    axes.set_xlim(0, side * (2 + BETWEEN))
    axes.set_ylim(side, 0)


def shortened(name: str) -> str:
    """The name of a class, as far as there is room for it beside the next image."""
    name = clean(name)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def plain(image: np.ndarray) -> np.ndarray:
    """The image (s, s, c) as (s, s, 3); grey ones, which are light on dark, as dark on light."""
    return repeat(1 - image, "h w 1 -> h w c", c=3) if image.shape[2] == 1 else image


def overlaid(picture: Picture, tiles: Tiling, colours: ScalarMappable) -> np.ndarray:
    """The map in colours (s, s, 3), white where there is no patch, with the image printed on it in grey."""
    paper = np.ones((*picture.image.shape[:2], 3))
    painted = colours.to_rgba(picture.rollout)[..., :3]
    inside, step = slice(tiles.start, tiles.end), tiles.step
    paper[inside, inside] = repeat(painted, "r c rgb -> (r high) (c wide) rgb", high=step, wide=step)
    light = plain(picture.image).mean(axis=2, keepdims=True)
    return paper * (0.4 + 0.6 * light)


def draw_readings(shown: Sequence[Reading], one: Trial, test_acc: float) -> Figure:
    """A column for each example, a row for each decoder block."""
    wide, high = (max(map(len, texts)) for texts in ([r.question for r in shown], [r.written for r in shown]))
    layout = layout_of(len(shown), (CELL * wide, CELL * high), gap=(0.42, 0.35), below=0.6)
    colours = ScalarMappable(Normalize(0, 1), shades(one))
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (len(shown[0].maps), len(shown)),
            layout,
            title="What the decoder reads of the question",
            subtitle=subtitle(one, test_acc),
            footnote=footnote_of_readings(one.config),
        )
        for column, reading in zip(grid.T, shown, strict=True):
            draw_reading(column, reading, colours)
        for block, axes in enumerate(grid[:, 0], 1):
            axes.set_ylabel(f"block {block}: written", size=8)
        grid[-1, 0].set_xlabel("question", size=8)
        bar(figure, grid, colours, "weight, mean over heads")
    return figure


def draw_reading(column: Sequence[Axes], reading: Reading, colours: ScalarMappable) -> None:
    """The matrices of one example, the first block on top."""
    right = reading.written == reading.answer
    verdict = "right" if right else f"should be\n{' '.join(reading.answer[:-1])}"
    column[0].set_title(verdict, loc="left", size=8, pad=4, color=GREY if right else WRONG)
    for axes, weights in zip(column, reading.maps, strict=True):
        axes.imshow(weights, cmap=colours.cmap, norm=colours.norm, aspect="equal", interpolation="nearest")  # type: ignore[arg-type]
        axes.set_xticks(range(len(reading.question)), reading.question, size=7)
        axes.set_yticks(range(len(reading.written)), reading.written, size=7)
        axes.tick_params(length=0, pad=2)
        axes.spines[:].set(visible=True, edgecolor=PALE)
        for i, label in enumerate(axes.get_yticklabels()):
            label.set_color(INK if reading.written[i : i + 1] == reading.answer[i : i + 1] else WRONG)


def layout_of(columns: int, panel: tuple[float, float], *, gap: tuple[float, float], below: float) -> Layout:
    """Room on the right for the bar of colours, and for the title where there are few columns."""
    inner = columns * (panel[0] + gap[0]) - gap[0]
    return Layout(panel, gap, LEFT, max(BAR, NARROWEST - LEFT - inner), above=0.9, below=below)


def shades(one: Trial) -> LinearSegmentedColormap:
    """From white to the model's colour."""
    colour = style_of(one.config["model"])[0]
    return LinearSegmentedColormap.from_list(colour, ["white", colour])


def bar(figure: Figure, grid: np.ndarray, colours: ScalarMappable, meaning: str) -> None:
    """The scale of colours, on the right of the first row of panels."""
    width, _ = figure.get_size_inches()
    box = grid[0, -1].get_position()
    axes = figure.add_axes((box.x1 + 0.25 / width, box.y0, 0.12 / width, box.height))
    figure.colorbar(colours, cax=axes)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.tick_params(length=2, labelsize=7)
    axes.set_ylabel(meaning, size=7)


def subtitle(one: Trial, test_acc: float) -> str:
    """The trial in words."""
    config = one.config
    sizes = f"depth {config['depth']}, {counted(config['heads'], 'head')}, width {config['dim']}"
    return (
        f"{config['model']} on {config['dataset']}, {sizes}, {counted(config['epochs'], 'epoch')}, "
        f"test accuracy {100 * test_acc:.1f}%; trial {one.trial_id}"
    )


def footnote_of_pictures(config: Mapping[str, Any]) -> str:
    """How to read the maps, and what they leave out."""
    tiles = tiling(config)
    seen = tiles.step + 2 * tiles.margin
    how = (
        "From the test part; right of each image, attention rollout (Abnar & Zuidema 2020) from "
        f"the class token to the {tiles.count}x{tiles.count} patches: of every block the heads' mean and the "
        "residual connection, half each, multiplied over the blocks. 1 is the mean over the patches."
    )
    hybrid = (
        " The patches are of a feature map, behind two convolutions and a pooling: each is drawn in the "
        f"middle of the {seen}x{seen} pixels that it sees, which overlap."
    )
    deepvit = (
        " The maps are those before re-attention, after which values may be negative; how it mixes the heads "
        "is left out."
    )
    model = {"hybrid": hybrid, "deepvit": deepvit}.get(config["model"], "")
    return how + model + OF_ATTENTION.get(config["attention"], "")


def footnote_of_readings(config: Mapping[str, Any]) -> str:
    """How to read the matrices."""
    how = "greedily" if config["beam"] == 1 else f"with {config['beam']} beams"
    return (
        f"From the start of the test part, a question a column, answered {how}. A row: how much a decoder "
        "block reads of each sign of the question (cross-attention, the heads' mean) in order to write the "
        "sign at its left; red where that is wrong." + OF_ATTENTION.get(config["attention"], "")
    )


# --- Command line ---


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or of `given`."""
    parser = command_parser("attention", __doc__)
    add = parser.add_argument
    add("trial_id", help="the trial, or the first digits of its id")
    add("--results", default="results", help="the folder that holds trials/, or a URI of it")
    add("--data", help="folder of the data sets; default $ATTNSWEEP_DATA, else ~/.cache/attnsweep")
    add("--examples", type=int, default=6, help="how many test examples to draw")
    add("--out", type=Path, help="folder for the figure; default: figures/ beside the results")
    return parser.parse_args(given)


def row_to_draw(options: argparse.Namespace) -> "pd.Series[Any]":
    """The row of the trial. Raises UserError where there is none, or none that can be drawn."""
    if not 1 <= options.examples <= MOST_EXAMPLES:
        raise UserError(f"--examples {options.examples} is out of range; use 1 to {MOST_EXAMPLES}")
    row = find_trial(options.results, options.trial_id)
    if row["model"] not in DRAWN:
        raise UserError(
            f"trial {row['trial_id']} is of {row['model']}, whose attention is not drawn; choose one of "
            f"{', '.join(DRAWN[:-1])} or {DRAWN[-1]}"
        )
    refuse_unfinished(row)
    return row


def run(options: argparse.Namespace) -> None:
    """Draws what the options ask for. Raises UserError."""
    row, folders = row_to_draw(options), plan.folders_of(options.results, options.data)
    one = trial_of(row, folders.data)
    by_themselves = one.config["model"] == "transformer" or is_varied(one.config)  # models show their weights
    kernel = None if by_themselves else "explicit"
    model = trained(row, one, runs=folders.checkpoints, data=folders.data, attention=kernel)
    count = options.examples
    if one.config["model"] == "transformer":
        figure = draw_readings(readings(model, one.config, count), one, row["test_acc"])
    else:
        figure = draw_pictures(
            pictures(model, one.config, folders.data, count, sha256=one.data_sha256), one, row["test_acc"]
        )
    for path in save(figure, options.out or folders.runs.parent / "figures", f"attention-{one.trial_id}"):
        print(f"wrote {path}")


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(arguments(given)))
