"""Table 2 of UniAD (https://arxiv.org/abs/2212.10156) from results: which modules a planning stack has, and
what each task is worth then, as Markdown and as a figure.

Every cell has its 95 % interval: of several seeds that of their mean by Student's t; of one seed by bootstrap
over test maps, whose own values (`test_map_measures`) are drawn anew and whose mean is moved to the cell's.
The score has an interval of its own, over maps, or over samples of recorded traffic.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnsweep.answers.spread import reach_of_mean
from attnsweep.core.clean import in_markdown
from attnsweep.figures.canvas import INK, STYLE, Layout, canvas, save, widest
from attnsweep.figures.canvas import write as write_file
from attnsweep.figures.placement import GREY, PALE
from attnsweep.tasks.driving.columns import COLUMNS
from attnsweep.tasks.driving.judging.score import interval

BETTER = {column.name: column.better for column in COLUMNS}
ARROWS = {"higher": "↑", "lower": "↓", None: ""}
NOTHING, TICK = "-", "✓"


@dataclass(frozen=True)
class Measure:
    """A column of the table: its task, its name, the columns of results that it is the mean of, and the unit
    and the digits that its numbers are written with.
    """

    task: str
    name: str
    columns: tuple[str, ...]
    unit: str = ""
    digits: int = 2

    @property
    def better(self) -> str | None:
        return BETTER[self.columns[0]]

    @property
    def below(self) -> str:
        """What stands after the name: unit and direction."""
        unit = f"({self.unit})" if self.unit else ""
        return f"{unit} {ARROWS[self.better]}".strip()

    def written(self, value: float) -> str:
        return f"{100 * value if self.unit == '%' else value:.{self.digits}f}"


def percent(task: str, name: str, *columns: str) -> Measure:
    return Measure(task, name, columns, "%", digits=1)


MODULES = {  # what a configuration has: UniAD ticks tracking, which detection alone stands in for
    "Track": ("track", ("offset",)),
    "Map": ("lines", ("dense", "vector", "both")),
    "Motion": ("motion", ("former",)),
    "Occ.": ("occ", ("head", "former")),
    "Plan": ("plan", ("on",)),
}
TRACKING, MAPPING, MOTION, OCCUPANCY = "Tracking", "Mapping", "Motion forecasting", "Occupancy prediction"
OPEN, CLOSED = "Planning, open loop", "Planning, closed loop"
MEASURES = (
    Measure(TRACKING, "AMOTA", ("test_amota",)),
    Measure(TRACKING, "AMOTP", ("test_amotp",), "m"),
    Measure(TRACKING, "IDS", ("test_ids",), digits=0),
    percent(MAPPING, "IoU road", "test_map_iou_drivable"),
    percent(MAPPING, "IoU border", "test_map_iou_border"),
    percent(MAPPING, "IoU divider", "test_map_iou_divider"),
    Measure(MOTION, "minADE", ("test_min_ade6",), "m"),
    Measure(MOTION, "minFDE", ("test_min_fde6",), "m"),
    Measure(MOTION, "miss rate", ("test_miss_rate",)),
    Measure(MOTION, "EPA", ("test_epa",)),
    percent(OCCUPANCY, "IoU near", "test_occ_iou_near"),
    percent(OCCUPANCY, "IoU far", "test_occ_iou_far"),
    percent(OCCUPANCY, "VPQ near", "test_vpq_near"),
    percent(OCCUPANCY, "VPQ far", "test_vpq_far"),
    Measure(OPEN, "avg. L2", ("test_l2_1s", "test_l2_2s", "test_l2_3s"), "m"),
    percent(OPEN, "avg. collision", "test_col_1s", "test_col_2s", "test_col_3s"),
    percent(CLOSED, "score", "test_score"),
    percent(CLOSED, "at fault", "test_at_fault"),
    percent(CLOSED, "off road", "test_off_road"),
)


# --- Compute ---


@dataclass(frozen=True)
class Cell:
    """A mean over seeds with its 95 % interval; None where nothing tells how it varies."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """A setting: its name, which modules it has (nothing for what is no stack), and a cell per measure, None
    where it has no such task.
    """

    name: str
    modules: tuple[bool, ...]
    cells: tuple[Cell | None, ...]


def row_of(group: pd.DataFrame, name: str) -> Row:
    """The row of one setting's rows of results, a row per seed."""
    first = group.iloc[0]
    is_stack = first["model"] == "planning"
    modules = tuple(first.get(axis) in values for axis, values in MODULES.values()) if is_stack else ()
    return Row(name, modules, tuple(cell(group, measure) for measure in MEASURES))


def cell(group: pd.DataFrame, measure: Measure) -> Cell | None:
    """A measure of one setting."""
    if measure.name == "IDS" and "test_amota" in group:
        group = group[group["test_amota"] != 0]  # who tracks nobody confuses nobody
    columns = group.reindex(columns=list(measure.columns)).astype(float)
    values = columns.mean(axis=1, skipna=False).dropna()
    if values.empty:
        return None
    if len(values) > 1:
        return within(of_seeds(values.to_numpy()), measure)
    value, row = float(values.iloc[0]), group.loc[values.index[0]]
    if measure.columns == ("test_score",):  # which knows its interval, among recorded traffic, too
        low, high = (float(row.get(f"test_score_{end}", np.nan)) for end in ("low", "high"))
        return Cell(value, low, high) if low < high else Cell(value)
    return within(of_maps(value, map_values(row, measure)), measure)


def within(one: Cell, measure: Measure) -> Cell:
    """The cell with its interval cut to the values that there can be."""
    if one.low is None or one.high is None:
        return one
    least = -np.inf if measure.name == "EPA" else 0.0
    most = np.inf if measure.unit == "m" or measure.name == "IDS" else 1.0
    return Cell(one.mean, float(np.clip(one.low, least, most)), float(np.clip(one.high, least, most)))


def of_seeds(values: np.ndarray) -> Cell:
    """The mean of values (n,) of seeds, with the interval of Student's t; equal ones tell of none."""
    mean, reach = float(values.mean()), reach_of_mean(values)
    return Cell(mean) if np.ptp(values) == 0 else Cell(mean, mean - reach, mean + reach)


def of_maps(value: float, maps: np.ndarray) -> Cell:
    """A value with the percentile interval by bootstrap over the maps' own values (n,); equal ones, such as
    of what never happened, tell of none.
    """
    if len(maps) < 2 or np.ptp(maps) == 0:
        return Cell(value)
    low, high = interval(maps - maps.mean())
    return Cell(value, value + low, value + high)


def map_values(row: pd.Series, measure: Measure) -> np.ndarray:
    """The measure on each test map (n,) that has one; of counts as if all maps were like it."""
    names = [column.removeprefix("test_") for column in measure.columns]
    lists = json.loads(row["test_map_measures"]) if isinstance(row.get("test_map_measures"), str) else {}
    if not all(name in lists for name in names):
        return np.zeros(0)
    values = np.array([lists[name] for name in names], dtype=float).mean(axis=0)
    known = values[~np.isnan(values)]
    return known * len(known) if names == ["ids"] else known


def best(rows: Sequence[Row], k: int) -> str:
    """The best that any stack has in measure `k`, as it is written; nothing where none is worse."""
    known = [one.mean for row in rows if row.modules and (one := row.cells[k]) is not None]
    written = {MEASURES[k].written(mean) for mean in known}
    if len(written) < 2:
        return ""
    return MEASURES[k].written(min(known) if MEASURES[k].better == "lower" else max(known))


# --- Write ---


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown, the best of each measure in bold."""
    headers = ["ID", *MODULES, *(f"{one.task}: {one.name} {one.below}" for one in MEASURES)]
    lines = [headers, ["---", *[":-:"] * len(MODULES), *["--:"] * len(MEASURES)]]
    firsts = [best(rows, k) for k in range(len(MEASURES))]
    for row in rows:
        ticks = [TICK * has for has in row.modules] or [""] * len(MODULES)
        cells = [
            in_words(one, measure, best=first if row.modules else "")
            for one, measure, first in zip(row.cells, MEASURES, firsts, strict=True)
        ]
        lines.append([in_markdown(row.name), *ticks, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def in_words(one: Cell | None, measure: Measure, *, best: str) -> str:
    """Such as `**0.51** [0.48, 0.54]`."""
    if one is None:
        return NOTHING
    mean = measure.written(one.mean)
    mean = f"**{mean}**" if mean == best else mean
    return mean if one.low is None else f"{mean} {brackets(one, measure)}"


def brackets(one: Cell, measure: Measure) -> str:
    assert one.low is not None and one.high is not None
    return f"[{measure.written(one.low)}, {measure.written(one.high)}]"


# --- Draw ---


LABEL, MODULE, NUMBER, LINE = 2.3, 0.5, 0.78, 0.34  # inches, of columns (names: at least) and of a row
NAME_SIZE = 8.5  # of the names of settings
LAYOUT_EDGES = {"left": 0.25, "right": 0.25, "above": 0.75, "below": 0.3}
FOOTNOTE = (
    "Brackets: 95 % intervals, of several seeds by Student's t, of one by bootstrap over test maps; none "
    "where all are equal. Bold: the best stack. Track: agents are followed; without it they are detected, "
    "where a later module needs them. IDS: identity switches on all test maps, where anybody was tracked "
    "(AMOTA above 0). Averages over 1, 2 and 3 s. -: no such task."
)


def draw(rows: Sequence[Row], about: str) -> Figure:
    """The table as a figure."""
    label = max(LABEL, 0.15 + widest([row.name for row in rows], NAME_SIZE))
    widths = [label, *[MODULE] * len(MODULES), *[NUMBER] * len(MEASURES)]
    edges = np.concatenate([[0.0], np.cumsum(widths)])
    height = LINE * (len(rows) + 2.2)
    layout = Layout((float(edges[-1]), height), (0.0, 0.0), **LAYOUT_EDGES)
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (1, 1), layout, title="Which task helps planning?", subtitle=about, footnote=FOOTNOTE
        )
        axes = grid[0, 0]
        axes.set_axis_off()
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, height)
        draw_header(axes, edges, height)
        for place, row in enumerate(rows):
            draw_row(axes, row, rows, edges, y=height - LINE * (place + 2.7))
    return figure


def draw_header(axes: Axes, edges: np.ndarray, height: float) -> None:
    """The names of tasks above those of measures, and the lines around them."""
    groups = [("Modules", 1, len(MODULES))]
    for task in dict.fromkeys(measure.task for measure in MEASURES):
        of_task = [k for k, measure in enumerate(MEASURES) if measure.task == task]
        groups.append((task, of_task[0] + 1 + len(MODULES), len(of_task)))
    for name, first, count in groups:
        left, right = edges[first], edges[first + count]
        axes.text((left + right) / 2, height - 0.45 * LINE, name, size=8.5, weight="bold", ha="center")
        axes.plot([left + 0.05, right - 0.05], [height - 0.8 * LINE] * 2, color=GREY, linewidth=0.7)
    names = ["", *MODULES, *(f"{measure.name}\n{measure.below}" for measure in MEASURES)]
    for k, name in enumerate(names):
        x = (edges[k] + edges[k + 1]) / 2
        axes.text(x, height - 1.4 * LINE, name, size=7.2, ha="center", va="center", linespacing=1.3)
    axes.plot([0, edges[-1]], [height - 1.95 * LINE] * 2, color=INK, linewidth=0.9)
    axes.plot([0, edges[-1]], [0.05 * LINE] * 2, color=INK, linewidth=0.9)


def draw_row(axes: Axes, row: Row, rows: Sequence[Row], edges: np.ndarray, *, y: float) -> None:
    """A setting's name, its modules, and its cells with their intervals below."""
    axes.text(0.05, y, row.name, size=NAME_SIZE, va="center")
    axes.plot([0, edges[-1]], [y - LINE / 2] * 2, color=PALE, linewidth=0.4, zorder=0)
    for k, has in enumerate(row.modules, 1):
        if has:
            axes.text((edges[k] + edges[k + 1]) / 2, y, TICK, size=9, ha="center", va="center")
    for k, (one, measure) in enumerate(zip(row.cells, MEASURES, strict=True)):
        x = (edges[k + 1 + len(MODULES)] + edges[k + 2 + len(MODULES)]) / 2
        if one is None:
            axes.text(x, y, NOTHING, size=8, ha="center", va="center", color=GREY)
            continue
        mean, up = measure.written(one.mean), 0.13 * LINE if one.low is not None else 0.0
        weight = "bold" if row.modules and mean == best(rows, k) else "normal"
        axes.text(x, y + up, mean, size=8.2, ha="center", va="center", weight=weight)
        if one.low is not None:
            text = brackets(one, measure)
            axes.text(x, y - 0.24 * LINE, text, size=5.6, ha="center", va="center", color=GREY)


def write(rows: Sequence[Row], about: str, folder: Path) -> list[Path]:
    """Writes `planning_table2` as Markdown, SVG and PNG; returns their paths."""
    text = f"{about}\n\n{markdown(rows)}\n{FOOTNOTE}\n".encode()
    table = write_file(folder, "planning_table2.md", lambda file: file.write(text))
    return [table, *save(draw(rows, about), folder, "planning_table2")]
