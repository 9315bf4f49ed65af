"""What the figures have in common: their type, their colours, the texts around their panels, their files."""

import io
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from attnsweep.core import files
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError
from attnsweep.figures import fonts
from attnsweep.figures.placement import GREY

# One look per model, the same in every figure; a model not named here takes a spare one. Colours after
# Okabe and Ito (https://jfly.uni-koeln.de/color/): colour-blind people can tell them apart.
LOOKS = {
    "cnn": ("#0072B2", "s"), "vit": ("#D55E00", "o"), "deepvit": ("#B0478C", "D"), "hybrid": ("#009E73", "^"),
}  # fmt: skip
SPARE = (("#8C6D00", "P"), ("#2E9BD6", "v"), ("#444444", "X"))
INK = "#222222"
STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#777777", "axes.linewidth": 0.7,
    "xtick.color": "#777777", "ytick.color": "#777777", "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "svg.hashsalt": "attnsweep",
    "text.parse_math": False,  # names may have a $
    "svg.fonttype": "none",  # text, to be searched and copied, and not its outlines
}  # fmt: skip
UNDATED = {"Date": None}  # so that equal figures are equal files
MOST_OF_LINE = 120  # characters of a name that has a line for itself
EDGE = 0.3  # inches that no text goes into on the right


@dataclass(frozen=True)
class Layout:
    """Inches: a panel's axes, the gaps between panels (x, y), and what lies around all, without the texts."""

    panel: tuple[float, float]
    gap: tuple[float, float]
    left: float
    right: float
    above: float
    below: float


def style_of(model: str) -> tuple[str, str]:
    """The colour and marker of a model: the same in every figure."""
    return LOOKS.get(model) or SPARE[sum(map(ord, model)) % len(SPARE)]


def canvas(
    shape: tuple[int, int], layout: Layout, *, title: str, subtitle: str, footnote: str
) -> tuple[Figure, np.ndarray]:
    """A figure of `shape` (rows, columns) panels with texts around them; the panels' axes."""
    inner = [
        count * size + (count - 1) * gap
        for count, size, gap in zip(shape[::-1], layout.panel, layout.gap, strict=True)
    ]
    left, width = layout.left, layout.left + inner[0] + layout.right
    line = width - left - EDGE
    title, subtitle = clean(title), clean(subtitle)
    subtitles, footnotes = textwrap.wrap(subtitle, int(line * 15)), textwrap.wrap(footnote, int(line * 17))
    top, bottom = layout.above + 0.16 * len(subtitles), layout.below + 0.15 * len(footnotes)
    height = bottom + inner[1] + top
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(*shape, squeeze=False)
    figure.subplots_adjust(
        left=left / width, right=1 - layout.right / width, top=1 - top / height, bottom=bottom / height,
        wspace=layout.gap[0] / layout.panel[0], hspace=layout.gap[1] / layout.panel[1],
    )  # fmt: skip
    figure.text(left / width, 1 - 0.22 / height, title, size=13, weight="bold", va="top")
    figure.text(left / width, 1 - 0.50 / height, "\n".join(subtitles), size=8.5, va="top", color=GREY)
    figure.text(left / width, 0.12 / height, "\n".join(footnotes), size=7.5, va="bottom", color=GREY)
    return figure, grid


def widest(texts: Iterable[str], size: float) -> float:
    """How wide (inches) the widest of some texts of that size is drawn."""
    with matplotlib.rc_context(STYLE), fonts.quietly():
        paths = [TextPath((0, 0), text, size=size) for text in texts if text.strip()]
    return max([0.0, *(float(path.get_extents().width) / 72 for path in paths)])


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes the figure as `name`.svg and `name`.png; returns their paths."""
    fonts.fit(figure)
    with matplotlib.rc_context(STYLE):
        return [
            write(folder, f"{name}.svg", lambda file: figure.savefig(file, format="svg", metadata=UNDATED)),
            write(folder, f"{name}.png", lambda file: figure.savefig(file, format="png", dpi=150)),
        ]


def write(folder: Path, name: str, draw: Callable[[BinaryIO], object]) -> Path:
    """Writes what `draw` draws as a file in place of the one that has its name; returns its path.

    Raises UserError where it cannot be written.
    """
    content = io.BytesIO()
    draw(content)
    try:
        files.replace(files.make_folder(folder) / name, content.getvalue())
    except OSError as error:
        raise UserError(
            f"{folder / name} cannot be written ({error.strerror or error}); name another folder with --out"
        ) from error
    return folder / name
