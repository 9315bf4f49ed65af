"""Prints the results as a Markdown table in the layout of the published ones.

    python -m attnsweep table results/ [--by depth,heads] [--published] [--where "epochs == 15"]

A line per model and data set. Several settings stand side by side in a cell, as in `97.87 -> 98.87`, or once
where they are equal; more than six are lines of their own, unless --by names axes. With --published, the
settings are the published ones, whose figures stand beside ours.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from attnsweep.answers import naming, pareto, selection
from attnsweep.core.clean import cleaned, in_markdown
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.core.text import words
from attnsweep.figures.arguments import add_results, add_runtime, add_where, command_parser
from attnsweep.results.loading import load

# Transcribed from the README "Attention", Experiment Three, of the experiments that this project grew from.
PUBLISHED = Path(__file__).with_name("published.csv")
PUBLISHED_COLUMNS = (
    "setting", "model", "dataset", "dim", "depth", "heads", "mlp_dim",
    "max_accuracy", "inference_ms", "params", "head_classes",
)  # fmt: skip
MODELS = ("cnn", "vit", "deepvit", "hybrid")  # the published order; others follow by name
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
MOST_NAMED = 3  # settings in a note
MOST_IN_CELL = 6  # settings side by side; more are lines of their own
MISSING = "\u2013"
UNSURE = "~"  # before a latency that is unstable
Show = Callable[[pd.Series], str]


# --- Compute ---


@dataclass(frozen=True)
class Line:
    """One model on one data set: its row of `over_seeds` at each setting, and the published row beside it."""

    model: str
    dataset: str
    ours: tuple[pd.Series | None, ...]
    published: tuple[pd.Series | None, ...] = ()


@dataclass(frozen=True)
class Table:
    """The lines, and what the positions within a cell stand for."""

    settings: tuple[str, ...]
    lines: tuple[Line, ...]


def our_table(rows: pd.DataFrame, by: Sequence[str]) -> Table:
    """The table of all rows of `over_seeds`. Raises UserError where `by` leaves two rows to a cell."""
    axes = list(dict.fromkeys(by)) or naming.distinguishing(rows)
    selection.require(rows, *axes)
    settings = distinct_settings(rows, axes)
    if len(settings) > MOST_IN_CELL and not by:
        return long_table(rows)
    lines = (
        Line(model, dataset, tuple(only_match(group, setting, axes) for setting in settings))
        for model, dataset, group in groups(rows)
    )
    typed = naming.as_typed(pd.DataFrame(settings), axes)
    names = (" ".join(naming.words(setting, axes)) for _, setting in typed.iterrows())
    return Table(tuple(names), tuple(lines))


def long_table(rows: pd.DataFrame) -> Table:
    """A line for each setting, where a cell would hold too many."""
    named = rows.assign(label=naming.labels(rows, short=False))
    lines = (
        Line(str(row["label"]), dataset, (row,))
        for _, dataset, group in groups(named)
        for _, row in group.iterrows()
    )
    return Table(("",), tuple(lines))


def groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Model, data set and rows of each line, in the order of the published table."""
    parts = [(str(model), str(data), part) for (model, data), part in rows.groupby(["model", "dataset"])]
    return iter(sorted(parts, key=lambda part: (rank(part[0], MODELS), rank(part[1], DATASETS))))


def rank(name: str, known: Sequence[str]) -> tuple[int, str]:
    return (known.index(name) if name in known else len(known), name)


def distinct_settings(rows: pd.DataFrame, axes: list[str]) -> list[pd.Series]:
    """The combinations of the axes' values; one that lacks an axis only if it fits no complete one."""
    combinations = rows[axes].drop_duplicates().sort_values(axes) if axes else rows[[]].head(1)
    lacking = combinations.isna().sum(axis=1).sort_values(kind="stable")
    settings = combinations[lacking.reindex(combinations.index) == 0]
    for index in lacking[lacking > 0].index:
        known = combinations.loc[index].dropna()
        if not (settings[known.index] == known).all(axis=1).any():
            settings = pd.concat([settings, combinations.loc[[index]]])
    return [setting for _, setting in settings.iterrows()]


def only_match(group: pd.DataFrame, setting: pd.Series, axes: Sequence[str]) -> pd.Series | None:
    """The row of one model and data set that has the setting. Raises UserError where several have it."""
    has = group[[*axes]].astype(object)  # each axis that its model has
    return only(group[(has.isna() | (has == setting)).all(axis=1)])


def only(found: pd.DataFrame) -> pd.Series | None:
    """The one row found, or none. Raises UserError, naming the axes that differ, where there are several."""
    if len(found) > 1:
        first, axes = found.iloc[0], ", ".join(naming.varying(found))
        raise UserError(
            f"{len(found)} settings of {first['model']} on {first['dataset']} differ in {axes} and would "
            "share a cell; name those axes with --by, or choose with --where"
        )
    return None if found.empty else found.iloc[0]


def published_table(rows: pd.DataFrame, published: pd.DataFrame) -> Table:
    """The published lines, each with our rows at the same settings."""
    names = tuple(published["setting"].unique())
    lines = []
    for model, dataset, group in groups(published):
        theirs = tuple(only(group[group["setting"] == name]) for name in names)
        ours = tuple(None if cell is None else only(same_architecture(rows, cell)) for cell in theirs)
        lines.append(Line(model, dataset, ours, theirs))
    return Table(names, tuple(lines))


def same_architecture(rows: pd.DataFrame, cell: pd.Series) -> pd.DataFrame:
    """Our rows of the architecture of a published cell; so their parameters are equal to the unit."""
    same = (rows["model"] == cell["model"]) & (rows["dataset"] == cell["dataset"])
    same &= rows["num_classes"] == cell["head_classes"]
    if pd.isna(cell["dim"]):
        return rows[same]
    for axis in ("dim", "depth", "heads", "mlp_dim"):
        same &= rows[axis] == cell[axis]
    return rows[same & (rows["geometry"] == "published") & (rows["dim_head"] == 64)]


def read_published(path: Path) -> pd.DataFrame:
    """The published cells. Raises UserError where the file is missing or lacks a column."""
    if not path.is_file():
        raise UserError(
            f"--published {str(path)!r} is not a file; leave the path out for the figures that come along"
        )
    cells = pd.read_csv(path)
    if lacking := [name for name in PUBLISHED_COLUMNS if name not in cells]:
        raise UserError(f"{path} lacks {', '.join(lacking)}; its columns are {', '.join(PUBLISHED_COLUMNS)}")
    return cells


# --- Draw ---


def percent(name: str) -> Show:
    """Shows an accuracy in percent: the mean, and the standard deviation of several seeds."""

    def show(row: pd.Series) -> str:
        deviation = "" if pd.isna(row[f"{name}_sd"]) else f" \u00b1 {100 * row[f'{name}_sd']:.2f}"
        return MISSING if pd.isna(row[name]) else f"{100 * row[name]:.2f}{deviation}"

    return show


def milliseconds(name: str) -> Show:
    """Shows a time with two decimals, or three where it is below 1 ms; with a mark where it is unstable."""

    def show(row: pd.Series) -> str:
        value, unsure = row[name], UNSURE if selection.is_unstable(row) else ""
        return MISSING if pd.isna(value) else f"{unsure}{value:.{2 if value >= 1 else 3}f}"

    return show


def count(name: str) -> Show:
    """Shows a number with separators of thousands."""
    return lambda row: MISSING if pd.isna(row[name]) else f"{row[name]:,.0f}"


QUALITIES = {  # left out where no row has them
    "Max accuracy (%)": "test_acc_best",
    "Test accuracy (%)": "test_acc",
    "Closed-loop score (%)": "test_score",
    "At-fault collisions (%)": "test_at_fault",
}
OURS: dict[str, Show] = {
    **{head: percent(name) for head, name in QUALITIES.items()},
    "Latency p50 (ms)": milliseconds("latency_ms_p50"),
    "Parameters": count("params"),
}
THEIRS: dict[str, tuple[str, Show]] = {  # beside ours, with a head of its own
    "Max accuracy (%)": ("published (%)", lambda cell: f"{cell['max_accuracy']:.2f}"),
    "Latency p50 (ms)": ("published, 1,000 images (ms)", milliseconds("inference_ms")),
    "Parameters": ("published", count("params")),
}


def cell(rows: Sequence[pd.Series | None], show: Show) -> str:
    """The values side by side; once where all are equal."""
    values = [MISSING if row is None else show(row) for row in rows]
    return values[0] if len(set(values)) == 1 else " -> ".join(values)


def ours_of(table: Table) -> dict[str, Show]:
    """Our columns, without the qualities that no row of the table has."""
    rows = [row for line in table.lines for row in line.ours if row is not None]
    idle = {head for head, name in QUALITIES.items() if rows and all(pd.isna(row.get(name)) for row in rows)}
    return {head: show for head, show in OURS.items() if head not in idle}


def cells(line: Line, ours: Mapping[str, Show]) -> dict[str, str]:
    """The cells of one line by column; a published one stands to the right of ours."""
    named = {"Model": in_markdown(line.model), "Dataset": in_markdown(line.dataset)}
    for head, show in ours.items():
        named[head] = cell(line.ours, show)
        if line.published and head in THEIRS:
            their_head, show_theirs = THEIRS[head]
            named[their_head] = cell(line.published, show_theirs)
    return named


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table, its columns padded so that it reads well as text; numbers to the right."""
    heads = list(rows[0])
    widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    left = ("Model", "Dataset")
    rule = "|".join("-" * (widths[h] + 2) if h in left else "-" * (widths[h] + 1) + ":" for h in heads)
    lines = [
        " | ".join(row[h].ljust(widths[h]) if h in left else row[h].rjust(widths[h]) for h in heads)
        for row in ({head: head for head in heads}, *rows)
    ]
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def settings_line(table: Table) -> str:
    """What a, b and c are in a cell `a -> b -> c`; nothing where there is one setting."""
    settings = " -> ".join(map(in_markdown, table.settings))
    return f"Each cell: {settings}\n\n" if len(table.settings) > 1 else ""


def notes(table: Table) -> list[str]:
    """What our columns mean, and where and how often they were measured; nothing where no row is ours."""
    rows = pd.DataFrame([row for line in table.lines for row in line.ours if row is not None])
    if rows.empty:
        return []
    seeds = sorted(rows["seeds"].unique())
    number = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    several = f"mean \u00b1 standard deviation of {number} seeds"
    drives = "Closed-loop score (%)" in ours_of(table)
    accuracy = "Max accuracy: the best test epoch. Test accuracy: at the epoch that validation selects."
    score = "Closed-loop score: mean over test maps, at the epoch that validation selects."
    return [
        *([] if rows["test_acc"].isna().all() else [accuracy]),
        *([score] if drives else []),
        f"{'Quality' if drives else 'Accuracy'}: {several if seeds[-1] > 1 else 'one seed'}.",
        latency_note(rows),
    ]


def latency_note(rows: pd.DataFrame) -> str:
    """What the latency is, or how to come by it."""
    measured = rows.dropna(subset=["latency_ms_p50"])
    if measured.empty:
        return f"Latency: not measured; {pareto.MEASURE}"
    batch, device = measured["latency_batch"].max(), measured["measured_on"].iloc[0]
    decodes = (measured["task"] == "sequences").any() if "task" in measured else False
    what = "one forward pass (sequences: of decoding an answer)" if decodes else "one forward pass"
    runtime = next(iter(measured["runtime"].dropna()), "eager") if "runtime" in measured else "eager"
    under = "" if runtime == "eager" else f" under {runtime}"
    is_unsure = "latency_unstable" in measured and measured["latency_unstable"].eq(True).any()
    unsure = f" {UNSURE}: known to no better than 3 %." if is_unsure else ""
    return f"Latency: {what} of batch {batch:.0f} on {in_markdown(device)}{under}.{unsure}"


def published_notes(table: Table, published: pd.DataFrame) -> list[str]:
    """What the published figures are, how they were measured, and how many have a trial here."""
    axes = ["dim", "depth", "heads", "mlp_dim"]
    sizes = published.dropna(subset=axes).drop_duplicates("setting")
    named = "; ".join(
        f"{row['setting']} is {' '.join(naming.words(row, axes))}" for _, row in sizes.iterrows()
    )
    here = sum(row is not None for line in table.lines for row in line.ours)
    return [
        f"Settings: {named}.",
        'Published: the README "Attention", Experiment Three. Its accuracy is the best test epoch of 15, '
        "trained on the full training set; compare it with max accuracy.",
        "Its inference time is wall clock around a forward pass of 1,000 images, without synchronisation; "
        "it does not compare with our latency.",
        f"{here} of {len(published)} published cells have a trial here.",
    ]


# --- Command line ---


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or of `given`."""
    parser = command_parser("table", __doc__)
    add = parser.add_argument
    add_results(parser)
    text = "the axes to set side by side, such as depth,heads; default: all that vary"
    add("--by", type=words, action="extend", default=[], metavar="AXIS[,AXIS]", help=text)
    add("--published", nargs="?", type=Path, const=PUBLISHED, help="show the published figures beside ours")
    add("--measured-on", help="latency on this device; default: the one that the trials name")
    add_runtime(parser)
    add_where(parser)
    return parser.parse_args(given)


def rows_to_show(options: argparse.Namespace) -> pd.DataFrame:
    """One row per setting of the trials that the options ask for. Raises UserError where there are none."""
    shown = {"runtime": options.runtime, "measured_on": options.measured_on}
    rows = cleaned(load(options.results, status=None, all_columns=True, **shown))
    done = selection.done(rows).dropna(subset=["test_acc", "test_score"], how="all")
    if done.empty:
        what = "no done trial with a test accuracy or score"
        raise UserError(f"{options.results} has {what}; {selection.instead(rows)}")
    done = selection.of_device(selection.where(done, options.where), options.measured_on)
    return pareto.over_seeds(done)


def stopped_notes(rows: pd.DataFrame) -> list[str]:
    """How many of how many trials a scheduler has stopped, and of which settings it has stopped some seeds;
    nothing where none was. `rows` are those of trials, of any status.
    """
    is_stopped = rows["status"] == "stopped"
    if not is_stopped.any():
        return []
    keys = [name for name in selection.SETTING if name in rows]
    counts = rows.assign(stopped=is_stopped, seeds=1).groupby(keys, dropna=False)[["stopped", "seeds"]].sum()
    some = counts[(counts["stopped"] > 0) & (counts["stopped"] < counts["seeds"])].reset_index()
    axes = naming.distinguishing(rows)
    named = [
        f"{row['stopped']} of {row['seeds']} seeds of "
        + in_markdown(" ".join([row["model"], *naming.words(row, axes)]))
        for _, row in naming.as_typed(some, axes).head(MOST_NAMED).iterrows()
    ]
    more = [f"{len(some) - MOST_NAMED} more settings"] if len(some) > MOST_NAMED else []
    parts = f"; of these {', '.join([*named, *more])}: their means are of the others" if named else ""
    stopped = f"{is_stopped.sum()} of {len(rows)} trials"
    return [f"Stopped early by a scheduler, and not in the table: {stopped}{parts}."]


def run(options: argparse.Namespace) -> None:
    """Prints the tables that the options ask for."""
    if options.by and options.published:
        by = ",".join(options.by)
        raise UserError(f"--by {by} does not go with --published, whose settings are fixed; drop one")
    rows = rows_to_show(options)
    published = read_published(options.published) if options.published else None
    table = our_table(rows, options.by) if published is None else published_table(rows, published)
    ours = ours_of(table)
    print(settings_line(table) + markdown([cells(line, ours) for line in table.lines]) + "\n")
    for note in (*notes(table), *(published_notes(table, published) if published is not None else ())):
        print(f"- {note}")
    every = selection.where(load(options.results, status=None, all_columns=True), options.where)
    for note in stopped_notes(every):
        print(f"- {note}")


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(arguments(given)))
