"""Draws which stages of the planning stack help it to drive, or renders how one planner drives.

    python -m attnsweep planning results/ [--against id12] [--out figures/] [--where "epochs == 10"]
    python -m attnsweep planning results/ --episode TRIAL_ID [--map 3]

The first writes all settings in the layout of UniAD's Table 2, and draws the closed-loop score of each that
plans, and how it differs from that of one set of stages: paired, map by map. The second drives a test map and
leaves a film (GIF) and a strip (PNG) of it: what the sensor returns, the agents that were found, their
futures, the occupancy, and the plan.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnsweep.answers import naming, selection
from attnsweep.core.clean import cleaned
from attnsweep.core.errors import UserError, one_of
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import counted
from attnsweep.figures import table2
from attnsweep.figures.arguments import add_out, add_results, add_where, folder_of
from attnsweep.figures.canvas import INK, STYLE, Layout, canvas, save, widest
from attnsweep.figures.placement import PALE
from attnsweep.results.loading import load
from attnsweep.tasks.driving.judging.score import interval

SETS = {  # UniAD's, and ours from id13 on
    "id0": "all tasks, no links", "id1": "track", "id2": "map", "id3": "track, map",
    "id4": "detect, motion", "id5": "track, motion", "id6": "track, map, motion", "id7": "detect, occupancy",
    "id8": "track, occupancy", "id9": "no plan", "id10": "plan only", "id11": "no occupancy", "id12": "all",
    "id13": "side by side", "id14": "all, plan refined", "id15": "all, ego state",
    "id16": "plan only, ego state",
}  # fmt: skip
RULES = {
    "expert": "expert (sees all)", "ego_mlp": "ego state and route, blind",
    "route_mlp": "route, blind, learned",
    "route_following": "along the route, blind", "steady": "6 m/s along the route, blind",
    "constant_velocity": "constant velocity", "stop": "stop",
}  # fmt: skip
OURS, OTHERS = "#0072B2", "#777777"
LEAST_LEFT = 2.9  # inches, for the names of settings
LEAST_REACH = 0.04  # of an axis, so that one without any bar has round numbers
NEEDED = ("stages", "params", "test_score", "test_map_scores", "test_at_fault", "test_off_road", "test_l2_3s")


# --- Compute ---


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, by bootstrap over maps."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One setting: its closed-loop score, and how much higher it is than the reference's on the same maps."""

    label: str
    is_rule: bool
    seeds: tuple[float, ...]  # the score of each
    score: Interval
    gain: Interval | None  # None for the reference itself, for rules, and where there is no reference
    at_fault: float
    off_road: float
    l2_3s: float
    params: float


def lines_of(frame: pd.DataFrame, against: str) -> list[Line]:
    """A line for each setting that drove maps among rows of driving, in the order of `settings_of`."""
    settings = {name: group for name, group in settings_of(frame).items() if drove(group)}
    references = [group for group in settings.values() if group["stages"].iloc[0] == against]
    reference = by_map(references[0]) if references else None
    return [line(group, name, reference, against) for name, group in settings.items()]


def settings_of(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each setting by its name, the stack's in the order of their stages, then the others."""
    frame = frame.reindex(columns=[*frame.columns, *(name for name in NEEDED if name not in frame)])
    settings = [name for name in selection.SETTING if name in frame]  # all of the configuration but the seed
    groups = [group for _, group in frame.groupby(settings, dropna=False, sort=False)]
    groups.sort(key=rank)
    return dict(zip(names_of(groups), groups, strict=True))


def drove(group: pd.DataFrame) -> bool:
    """Whether a setting was driven on test maps: it plans, and there is a world."""
    return bool(group["test_map_scores"].notna().all())


def rank(group: pd.DataFrame) -> tuple[int, int, float]:
    """Sets by number, and of one set the smallest first; then rules, the best first."""
    first = group.iloc[0]
    if first["model"] == "planning":
        return 0, int(first["stages"].removeprefix("id")), first["params"]
    return 1, 0, -float(np.nan_to_num(group["test_score"].mean()))


def names_of(groups: Sequence[pd.DataFrame]) -> list[str]:
    """What settings are called: stages in words, and what tells the same stages apart, or their training."""
    firsts = pd.DataFrame([group.iloc[0] for group in groups])
    models, recipe = naming.model_names(firsts), recipe_differences(firsts)
    names = []
    for i in firsts.index:
        axes = [*dict.fromkeys([*varying_beside(firsts.loc[i], firsts), *recipe])]
        names.append(named(naming.as_typed(firsts, axes).loc[i], axes, models))
    return names


def recipe_differences(firsts: pd.DataFrame) -> list[str]:
    """The axes of training that what learns does not have in common."""
    learns = firsts[firsts["params"] > 0]
    return [name for name in naming.RECIPE if name in learns and learns[name].nunique() > 1]


def varying_beside(row: pd.Series, firsts: pd.DataFrame) -> list[str]:
    """The axes in which settings of the row's own set of stages differ."""
    same = firsts[(firsts["model"] == row["model"]) & (firsts["stages"].fillna("") == (row["stages"] or ""))]
    return [] if len(same) < 2 else naming.varying(same)


def named(row: pd.Series, axes: list[str], models: Mapping[str, str]) -> str:
    """Such as `id12: all, dim=64`."""
    if row["model"] != "planning":
        return " ".join([RULES.get(row["model"], models[row["model"]]), *naming.words(row, axes)])
    return ", ".join([f"{row['stages']}: {SETS.get(row['stages'], '')}", *naming.words(row, axes)])


def by_map(group: pd.DataFrame) -> np.ndarray:
    """The mean score (maps,) of the seeds on each map."""
    return np.array([json.loads(scores) for scores in group["test_map_scores"]], dtype=float).mean(axis=0)


def line(group: pd.DataFrame, name: str, reference: np.ndarray | None, against: str) -> Line:
    """The line of one setting's rows, a row per seed."""
    scores, first = by_map(group), group.iloc[0]
    comparable = reference is not None and reference.shape == scores.shape and first["stages"] != against
    is_rule = first["model"] != "planning"
    return Line(
        label=name,
        is_rule=is_rule,
        seeds=tuple(group["test_score"]),
        score=bootstrap(scores),
        gain=bootstrap(scores - reference) if comparable and not is_rule else None,
        at_fault=group["test_at_fault"].mean(),
        off_road=group["test_off_road"].mean(),
        l2_3s=group["test_l2_3s"].mean(),
        params=first["params"],
    )


def bootstrap(values: np.ndarray) -> Interval:
    """The mean of values (maps,), with its interval over maps; the same each time."""
    return Interval(float(values.mean()), *interval(values))


# --- Draw ---


def draw(lines: Sequence[Line], about: str, against: str) -> Figure:
    """A row per setting; panels for score, gain, at-fault collisions, leaving the road, L2 after 3 s."""
    left = max(LEAST_LEFT, 0.3 + widest([one.label for one in lines], STYLE["font.size"]))
    layout = Layout((2.1, 0.30 * len(lines) + 0.2), (0.4, 0.5), left=left, right=0.3, above=0.85, below=0.75)
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas(
            (1, 5), layout, title="Which stages help to drive", subtitle=about, footnote=footnote(against)
        )
        places = np.arange(len(lines))[::-1]
        draw_scores(grid[0, 0], lines, places)
        draw_gains(grid[0, 1], lines, places, against)
        bars(grid[0, 2], [one.at_fault for one in lines], lines, places, "At-fault collisions", percent=True)
        bars(grid[0, 3], [one.off_road for one in lines], lines, places, "Leaves the road", percent=True)
        bars(grid[0, 4], [one.l2_3s for one in lines], lines, places, "L2 to the expert after 3 s (m)")
        for axes in grid[0]:
            axes.set_yticks(places, [one.label if axes is grid[0, 0] else "" for one in lines])
            axes.set_ylim(-0.6, len(lines) - 0.4)
    return figure


def colour(one: Line) -> str:
    return OTHERS if one.is_rule else OURS


def draw_scores(axes: Axes, lines: Sequence[Line], places: np.ndarray) -> None:
    """Means with intervals; the seeds as pale dots."""
    for one, y in zip(lines, places, strict=True):
        axes.plot([one.score.low, one.score.high], [y, y], color=colour(one), linewidth=1.6, zorder=2)
        if len(one.seeds) > 1:
            axes.plot(one.seeds, [y] * len(one.seeds), "|", color=colour(one), markersize=7, zorder=2)
        axes.plot(one.score.mean, y, "o", color=colour(one), markersize=5, zorder=3)
    finish(axes, "Closed-loop score")
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")


def draw_gains(axes: Axes, lines: Sequence[Line], places: np.ndarray, against: str) -> None:
    """What each setting gains over the reference, map by map; nothing for the rules."""
    axes.axvline(0, color=PALE, linewidth=1, zorder=1)
    for one, y in zip(lines, places, strict=True):
        if one.gain:
            axes.plot([one.gain.low, one.gain.high], [y, y], color=colour(one), linewidth=1.6, zorder=2)
            axes.plot(one.gain.mean, y, "o", color=colour(one), markersize=5, zorder=3)
    if not any(one.gain for one in lines):
        axes.text(0, places.mean(), f"nothing to compare with {against}", size=8, color=INK, ha="center")
    finish(axes, f"Gain over {against} (points)")
    reach = max([0.05, *(abs(x) for x in axes.get_xlim())])
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+g}" if value else "0")


def bars(
    axes: Axes, values: Sequence[float], lines: Sequence[Line], places: np.ndarray, name: str,
    *, percent: bool = False,
) -> None:  # fmt: skip
    """A bar per setting with its number."""
    known = np.nan_to_num(np.array(values, dtype=float))
    axes.barh(places, known, height=0.55, color=[colour(one) for one in lines], alpha=0.35)
    for value, y in zip(values, places, strict=True):
        text = table2.NOTHING if np.isnan(value) else f"{100 * value:.0f}%" if percent else f"{value:.2f}"
        axes.text(np.nan_to_num(value), y, f" {text}", va="center", size=8, color=INK)
    finish(axes, name)
    axes.set_xlim(0, 1.25 * max(known.max(), LEAST_REACH))
    if percent:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")


def finish(axes: Axes, name: str) -> None:
    """Names the x axis of a panel and draws its grid, with few ticks."""
    axes.set_xlabel(name)
    axes.grid(axis="x", color="#EDEDED", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))


def footnote(against: str) -> str:
    """What the marks mean, for who has the figure alone."""
    return (
        "Dots: means over seeds and test maps; lines: 95 % intervals by bootstrap over maps; strokes: seeds. "
        f"Gain: the difference to {against} on each map, which leaves out what the maps have in common. "
        "Grey: rules and others that stages do not apply to."
    )


def subtitle(frame: pd.DataFrame, maps: int) -> str:
    """What was trained, and on how many maps it was judged."""
    learns = frame[frame["params"] > 0]
    seeds, epochs = learns["seed"].nunique(), sorted({int(n) for n in learns["epochs"]})
    data = ", ".join(sorted(frame["dataset"].unique()))
    world = f", {counted(maps, 'unseen map')} with reactive traffic" if maps else ""
    if not data.startswith("driving:"):
        world = ", recorded traffic, which does not react to plans of 4 s"
    taught = "nothing learnt"
    if epochs:
        taught = f"{counted(seeds, 'seed')}; {' or '.join(map(str, epochs))} epoch{'s' * (epochs != [1])}"
    devices = ", ".join(sorted(frame["device"].dropna().unique()))
    return f"{counted(len(frame), 'trial')} on {data}{world}; {taught}; {devices}"


def table(lines: Sequence[Line]) -> str:
    """The figure's numbers as text."""
    rows = pd.DataFrame(
        {
            "setting": [one.label for one in lines],
            "params": [f"{one.params:,.0f}" if one.params else "" for one in lines],
            "score": [in_points(one.score) for one in lines],
            "gain": [in_points(one.gain, sign="+") if one.gain else "" for one in lines],
            "at fault": [f"{100 * one.at_fault:.0f}%" for one in lines],
            "off road": [f"{100 * one.off_road:.0f}%" for one in lines],
            "L2@3s (m)": [f"{one.l2_3s:.2f}" for one in lines],
        }
    )
    return rows.to_string(index=False)


def in_points(one: Interval, *, sign: str = "") -> str:
    """A mean and its interval in hundredths, as `72.1 [70.3, 73.9]`."""
    return f"{100 * one.mean:{sign}.1f} [{100 * one.low:{sign}.1f}, {100 * one.high:{sign}.1f}]"


# --- Command line ---


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or of `given`."""
    parser = argparse.ArgumentParser(
        prog="python -m attnsweep planning", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add_results(parser)
    add("--against", default="id12", help="the set of stages that the others are compared with")
    add("--dataset", help="only this data set; needed where there are several")
    add_where(parser)
    add("--episode", metavar="TRIAL_ID", help="render how this trial's planner drives, instead")
    add("--map", type=int, default=0, help="with --episode: the number of the test map, from 0")
    add("--data", help="with --episode: folder of the data sets")
    add_out(parser)
    return parser.parse_args(given)


def rows_to_draw(options: argparse.Namespace) -> pd.DataFrame:
    """The done rows of driving that the options ask for. Raises UserError where there are none."""
    frame = cleaned(load(options.results, all_columns=True))
    frame = frame[frame["task"] == "driving"]
    if frame.empty:
        raise UserError(f"{options.results} has no done trial that drove; run sweeps/planning_quick.py first")
    frame = selection.where(frame, options.where)
    if options.dataset:
        frame = selection.choose(frame, "dataset", options.dataset)
    selection.refuse_mixture(frame, "dataset", hint="choose one with --dataset")
    return frame


def run(options: argparse.Namespace) -> None:
    """Writes what the options ask for, and prints the paths. Raises UserError where no row can be drawn."""
    folder, _ = folder_of(options), one_of("--against", options.against, SETS)
    if options.episode:
        from attnsweep.figures.episode import render

        paths = render(options.results, options.episode, number=options.map, data=options.data, folder=folder)
    else:
        paths = write_figures(rows_to_draw(options), options.against, folder)
    for path in paths:
        print(f"wrote {path}")


def write_figures(frame: pd.DataFrame, against: str, folder: Path) -> list[Path]:
    """Writes and prints the table of all settings, and the figure of those that drove. Returns the paths."""
    settings, lines = settings_of(frame), lines_of(frame, against)
    driven = frame["test_map_scores"].dropna()
    about = subtitle(frame, len(json.loads(driven.iloc[0])) if len(driven) else 0)
    rows = [table2.row_of(group, name) for name, group in settings.items()]
    print(table2.markdown(rows))
    paths = table2.write(rows, about, folder)
    apart = [name for name, group in settings.items() if not drove(group)]
    if apart:
        print(f"in the table alone, as they drove no maps: {'; '.join(apart)}\n")
    if lines:
        print(table(lines) + "\n")
        paths += save(draw(lines, about, against), folder, "planning")
    return paths


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(arguments(given)))
