"""What a person reads of a sweep before and after it runs: its plan, data, costs and time, how it
ended, and what was measured. `live` shows what changes in between.

All of it goes to standard output, warnings to standard error.
"""

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attnsweep.core.clean import clean
from attnsweep.core.labels import model_name
from attnsweep.core.text import amount, counted, duration, span
from attnsweep.core.trial import Trial
from attnsweep.engine.deadline import GRACE_S, Deadline, hours_of
from attnsweep.engine.live import MARK
from attnsweep.space.estimate import MEASURE_S, START_S
from attnsweep.space.labels import label, value_text, varying
from attnsweep.tasks.registry import TASKS

if TYPE_CHECKING:
    from attnsweep.engine.latency import Tally
    from attnsweep.space.plan import Plan

MOST_LISTED = 40
MOST_NAMED = 8
MOST_REASONS = 5
AMPLE = 1.5  # times the seconds that an epoch seems to take: machines get busy


def show_plan(console: Console, plan: "Plan") -> None:
    """Prints how many trials are new, done and invalid, and what they cost."""
    trials, states = plan.typical, Counter(plan.state.values())
    states["invalid"] = len(plan.invalid)
    states["to be suggested"] = len(plan.open)
    parts = [
        f"{states[state]:,} {state}"
        for state in ("to be suggested", "new", "done", "over budget", "invalid")
        if states[state] or (state == "new" and not plan.samples)
    ]
    console.print(
        f"[bold]{escape(plan.name)}[/]: {counted(states.total(), 'trial')} ({', '.join(parts)})",
        highlight=False,
    )
    if trials:
        models, sets = (
            several(list(dict.fromkeys(value_text(key, trial.config[key]) for trial in trials)), noun)
            for key, noun in (("model", "model"), ("dataset", "data set"))
        )
        architectures = counted(len({trial.arch_id for trial in trials}), "architecture")
        if plan.samples:
            architectures += " among points drawn at random"
        params, macs = span([trial.params for trial in trials]), span([trial.macs for trial in trials])
        console.print(f"  {escape(models)} on {escape(sets)}; {architectures}", highlight=False)
        console.print(f"  {params} parameters, {macs} MACs per example", highlight=False)
        show_data(console, trials)
    if plan.repeated:
        points = counted(len(plan.trials) + plan.repeated, "point")
        console.print(f"  {points}, {plan.repeated:,} of them the same trial as another", highlight=False)
    for keys, models in grouped(plan.unused).items():
        console.print(f"  without {escape(keys)}: {escape(models)}", style="dim", highlight=False)
    for why, times in Counter(point.reason for point in plan.invalid).most_common(10):
        console.print(f"  invalid ({times}): {why}", style="red", markup=False, highlight=False)
    show_budget(console, plan)
    show_at_chance(console, plan.at_chance, plan.trials)


def show_budget(console: Console, plan: "Plan") -> None:
    """Prints how many trials exceed the budget, which is the nearest to it, and which the farthest."""
    over = [trial for trial in plan.typical if trial.trial_id in plan.over]
    if over:
        keys = varying(one_each(plan.typical))
        names = {
            f"{label(one, keys)} ({plan.over[one.trial_id]})": plan.over[one.trial_id].share
            for one in one_each(over)
        }
        nearest, farthest = min(names, key=names.__getitem__), max(names, key=names.__getitem__)
        several = f"; the nearest is {nearest}, the farthest {farthest}" if len(names) > 1 else f": {nearest}"
        what = f"of {len(plan.samples)} points drawn at random {len(over)}" if plan.samples else len(over)
        console.print(f"  over budget, not trained: {what}{several}", highlight=False, markup=False)
        if doubt := sum(plan.over[one.trial_id].is_in_doubt for one in one_each(over)):
            console.print(
                f"  of these {counted(doubt, 'architecture')} may be within it: the machine was too busy to "
                "tell; delete the table latency in the results, and it is measured again",
                style="yellow", highlight=False, markup=False,
            )  # fmt: skip
    if plan.undecided:
        count = counted(plan.undecided, "architecture")
        console.print(
            f"  the latency of {count} is not known yet: measured before anything is trained", highlight=False
        )


def one_each(trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of each architecture and precision, which cost the same."""
    found = {(trial.arch_id, trial.config["precision"]): trial for trial in reversed(trials)}
    return [*reversed(found.values())]


def show_data(console: Console, trials: Sequence[Trial]) -> None:
    """Prints what trials learn from, and what makes it a doubtful base."""
    for task in TASKS.values():
        configs = [dict(trial.config) for trial in trials if trial.config["task"] == task.name]
        if not configs or task.about_data is None:
            continue
        lines, warnings = task.about_data(configs)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False)
        for line in warnings:
            console.print(f"  {line}", style="yellow", markup=False, highlight=False)


def show_at_chance(console: Console, trials: Sequence[Trial], among: Sequence[Trial]) -> None:
    """Prints which done trials have learnt nothing, by the names that they have among all of the sweep."""
    if not trials:
        return
    keys = varying(among)
    names = list(dict.fromkeys(label(trial, keys) for trial in trials))
    falls = any(trial.config.get("lr_gamma") is not None for trial in trials)
    console.print(
        f"  no better than chance on validation: {several(names, 'done trial')}; train longer, or raise lr"
        + ", or lr_gamma, by which lr falls with each epoch" * falls,
        style="yellow", markup=False, highlight=False,
    )  # fmt: skip


def grouped(unused: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The models that have no use for the same keys, together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for model, keys in unused.items():
        groups[", ".join(keys)].append(model_name(model))
    return {keys: ", ".join(models) for keys, models in groups.items()}


def several(names: Sequence[str], noun: str) -> str:
    """The names, or only how many they are."""
    return ", ".join(names) if len(names) <= MOST_NAMED else counted(len(names), noun)


def show_time(console: Console, plan: "Plan", slots: int, *, latency: bool = True) -> None:
    """Prints how long the new trials will take, and with their start and the measuring of `latency` all."""
    left = len(plan.new) + len(plan.open)
    if not left:
        return
    seconds = plan.seconds / max(1, min(slots, left))
    basis = plan.speed.basis if plan.speed.observed else "a guess: no finished trial to go by"
    measured = plan.unmeasured if latency else 0
    whole = START_S + seconds + MEASURE_S * measured
    then = f", then latency of {counted(measured, 'architecture')}" if measured else ""
    training = f"about {duration(seconds)} at {counted(slots, 'trial')} at a time ({basis})"
    console.print(f"  in all about {duration(whole)}: start, {training}{then}", highlight=False)


def show_deadline(console: Console, plan: "Plan", slots: int, left_s: float) -> None:
    """Prints how much of the plan fits into the time that is left, as far as that is known."""
    trials, seconds = len(plan.new) + len(plan.open), plan.seconds / max(1, slots)
    if not plan.speed.observed or not trials:
        return
    fits = trials if seconds <= left_s else math.floor(trials * left_s / seconds)
    rest = "" if fits == trials else "; the same command goes on with the others"
    within = f"about {fits:,} of {counted(trials, 'trial')}{rest}"
    console.print(f"  in {duration(left_s)}: {within}", highlight=False)
    if (epoch_s := shortest_epoch_s(plan)) > left_s + GRACE_S:
        console.print(
            f"  in that time no epoch ends, and nothing is kept: {enough(epoch_s, than=left_s)}",
            style="yellow", highlight=False,
        )  # fmt: skip


def shortest_epoch_s(plan: "Plan") -> float:
    """The least seconds that an epoch of the trials that are to run takes; 0 where that is not known."""
    if not plan.speed.observed:
        return 0.0
    trials = plan.new or plan.samples
    return min((plan.speed.estimate([one]) / one.config["epochs"] for one in trials), default=0.0)


def enough(epoch_s: float, *, than: float) -> str:
    """How many hours let an epoch of so many seconds end (0: not known), more `than` those seconds."""
    takes = f"an epoch takes about {duration(epoch_s)} here, so " if epoch_s else ""
    return f"{takes}use --hours {hours_of(max(START_S + AMPLE * epoch_s, 2 * than))} or more"


def unkept(until: Deadline, plan: "Plan") -> str:
    """What is said where the time was up before any epoch had ended; nothing otherwise."""
    if not until.is_over or until.kept or not (plan.new or plan.open):
        return ""
    epoch_s = shortest_epoch_s(plan)
    if math.isfinite(until.epoch_s):
        epoch_s = max(epoch_s, until.epoch_s)
    return f"no epoch has ended, so nothing of it is kept: {enough(epoch_s, than=until.seconds)}"


def show_trials(console: Console, plan: "Plan") -> None:
    """Prints the trials as a table, the first of them where there are many."""
    if not plan.trials:
        return
    table, keys = Table(box=None, header_style="dim"), varying(plan.trials)
    for title in ("trial_id", "trial", "status"):
        table.add_column(title)
    for title in ("params", "MACs"):
        table.add_column(title, justify="right")
    for trial in plan.trials[:MOST_LISTED]:
        state = plan.state[trial.trial_id]
        table.add_row(
            trial.trial_id, escape(label(trial, keys)), state, f"{trial.params:,}", amount(trial.macs)
        )
    console.print(table)
    if len(plan.trials) > MOST_LISTED:
        console.print(
            f"  ... and {len(plan.trials) - MOST_LISTED:,} more (--json lists them all)", highlight=False
        )


def show_closing(
    console: Console,
    counts: Mapping[str, int],
    results: str,
    seconds: float,
    *,
    tasks: Collection[str],
    interrupted: bool,
    unkept: str = "",
) -> None:
    """Prints how the sweep of these tasks ended and what to read next; where nothing is `unkept`, that the
    same command goes on.
    """
    states = (*MARK, "over budget")
    ended = ", ".join(f"{counts[state]:,} {state}" for state in states if counts[state] or state == "done")
    if interrupted or counts["new"]:
        left = counts["new"] + counts["failed"]
        then = unkept or "the same command goes on" + f" with {counted(left, 'trial')}" * bool(left)
        console.print(f"[yellow]cut off[/] after {duration(seconds)}: {ended}; {then}")
        return
    console.print(
        f"[bold]{ended}[/] in {duration(seconds)}; rows in {escape(results)}/trials", highlight=False
    )
    if counts["stopped"]:
        begun = sum(counts.values()) - counts["over budget"]
        console.print(
            f"  {counts['stopped']:,} of {counted(begun, 'trial')} were stopped early: "
            "others of their model and data set learned faster",
            highlight=False,
        )
    if counts["failed"]:
        console.print("  the column `error` says why; the same command tries them again", highlight=False)
    if counts["done"]:
        commands = dict.fromkeys(TASKS[task].draws for task in tasks)
        for command in commands:
            line = f"  next: python -m attnsweep {command} {shlex.quote(results)}"
            console.print(escape(line), highlight=False)


def show_tally(console: Console, tally: "Tally") -> None:
    """What the latency phase did: nothing that was known already is claimed as measured."""
    anew, failed_before = " (measure --again measures them anew)", tally.known_to_fail.total()
    unsure = f", {tally.known_unstable} of them [yellow]unstable[/]" if tally.known_unstable else ""
    parts = [
        (tally.known, f"{tally.known} known{unsure}{anew * (not failed_before)}"),
        (failed_before, f"{failed_before} known to fail (measure --again tries them anew)"),
        (tally.unstable, f"[yellow]{tally.unstable} unstable[/], known to no better than 3 %"),
        (tally.lost, f"[yellow]{tally.lost} did not come about[/], and is tried again next time"),
        (tally.left, f"[yellow]{tally.left} left[/] for another time"),
        (tally.failed, f"[yellow]{tally.failed.total()} failed[/]"),
    ]
    words = [f"{tally.measured} measured", *(words for count, words in parts if count)]
    if len(words) > 1 or tally.measured:
        console.print(f"latency: {', '.join(words)}", highlight=False)
    reasons = tally.failed + tally.known_to_fail
    for reason, times in reasons.most_common(MOST_REASONS):
        console.print(
            f"  not measured{f' ({times} times)' * (times > 1)}: {clean(reason)}",
            highlight=False,
            markup=False,
        )
    if (left := len(reasons) - MOST_REASONS) > 0:
        console.print(f"  and {left} more; see the column error of the table latency", highlight=False)
