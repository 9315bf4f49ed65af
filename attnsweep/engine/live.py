"""What changes on the screen while a command runs: bars of what takes a while, what is waited for, and the
running trials with a line for each that has ended.

On a terminal all of it is live; elsewhere plain lines.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from attnsweep.core.clean import clean
from attnsweep.core.text import duration
from attnsweep.core.trial import Trial
from attnsweep.results.schema import MEASURES
from attnsweep.results.store import Row
from attnsweep.space.estimate import work
from attnsweep.space.labels import label, varying

if TYPE_CHECKING:
    from attnsweep.space.plan import Plan

CLOSING = tuple(name for name, column in MEASURES.items() if "closing" in column.shown)
REFRESH_S = 0.5
SAY_AGAIN_S = 30.0
MARK = {
    "done": "[green]done[/]",
    "failed": "[red]failed[/]",
    "diverged": "[yellow]diverged[/]",
    "stopped": "stopped",
}


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for something that takes a while, as a function that is called with how much of how much
    is done; where there is no terminal, a plain line for every tenth.
    """
    with counting_and_waiting(console, what) as (advance, _):
        yield advance


@contextmanager
def counting_and_waiting(
    console: Console, what: str
) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """The same, with a function that shows beside it what is waited for."""
    progress = timed_bar(console)
    task = progress.add_task(escape(what), total=None)

    def advance(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        if progress.disable and 10 * done // total > 10 * (done - 1) // total:
            console.print(f"  {what}: {done}/{total}", highlight=False, markup=False)

    def show(waiting: str) -> None:
        progress.update(task, description=escape(f"{what} {waiting}".rstrip()))

    with progress:
        yield advance, show


def timed_bar(console: Console) -> Progress:
    """A bar with how much is done of how much, the time that has passed, and the time that is left."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


class Waits:
    """Says what is waited for: in the live display of a terminal, else in lines, now and then."""

    def __init__(self, console: Console, show: Callable[[str], None] | None = None) -> None:
        self.console, self.show = console, show
        self.since: float | None = None
        self.next_s = 0.0

    @contextmanager
    def shown(self, show: Callable[[str], None]) -> Iterator[None]:
        """On a terminal `show` displays it meanwhile; an empty text ends the waiting."""
        before, self.show = self.show, show
        try:
            yield
        finally:
            self.show = before

    @contextmanager
    def after(self, seconds: float, reason: str) -> Iterator[None]:
        """Says what is waited for if the block takes longer than that."""
        timer = threading.Timer(seconds, self.report, (reason,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            self.report(None)

    def report(self, reason: str | None) -> None:
        """What is waited for now; None where nothing is."""
        show = self.show if self.console.is_terminal else None
        if reason is None:
            if self.since is not None and show:
                show("")
            self.since, self.next_s = None, 0.0
            return
        now = time.monotonic()
        self.since = now if self.since is None else self.since
        if show:
            show(f"waiting for {reason}")
        elif now - self.since >= self.next_s:
            self.console.print(f"  waiting for {reason}", highlight=False, markup=False)
            self.next_s = max(SAY_AGAIN_S, 2 * self.next_s)


class Live:
    """The running trials. A context: the bars are there inside it, and gone after it."""

    def __init__(self, console: Console, plan: "Plan", *, slots: int) -> None:
        self.console, self.plan, self.slots, self.speed = console, plan, max(1, slots), plan.speed
        self.trials = {trial.trial_id: trial for trial in plan.new}  # and those that start
        self.total = len(plan.new) + len(plan.open)
        self.keys = varying([*plan.new, *plan.samples])
        self.left: dict[str, float] = {}  # the share of each trial that is still to be done,
        self.shares = 0.0  # the sum of these shares,
        self.work: dict[str, float] = defaultdict(float)  # and the work in them, per model
        for trial_id in self.trials:
            self._leave(trial_id, 1.0)
        self.bars: dict[str, TaskID] = {}
        self.seen: dict[str, tuple[float, float]] = {}  # share done and clock of a trial's latest event
        self.ended_count = 0
        self.began, self.refreshed = time.monotonic(), -math.inf
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            console=console, transient=True, disable=not console.is_terminal, refresh_per_second=4,
        )  # fmt: skip
        self.overall = self.progress.add_task(self._title(), total=1.0, note="")
        self.waits = Waits(console, lambda text: self.progress.update(self.overall, note=escape(text)))

    def __enter__(self) -> "Live":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, trial: Trial) -> None:
        """A trial begins, or begins again."""
        trial_id = trial.trial_id
        self.trials[trial_id] = trial
        if trial_id not in self.left:
            self._leave(trial_id, 1.0)
        self.seen[trial_id] = (0.0, time.monotonic())
        if trial_id not in self.bars:
            name = escape(label(trial, self.keys))
            self.bars[trial_id] = self.progress.add_task(name, total=1.0, note="")

    def advanced(self, trial_id: str, share: float, quality: float | None = None) -> None:
        """A share (0..1) of a trial is done; `quality` is what the last epoch has on validation."""
        before, clock = self.seen.get(trial_id, (0.0, time.monotonic()))
        if before > 0 and share > before:  # the first stretch has the start-up in it
            self.speed.observe(self.trials[trial_id], time.monotonic() - clock, share=share - before)
        self.seen[trial_id] = (share, time.monotonic())
        self._leave(trial_id, 1 - share)
        if quality is not None:
            self.progress.update(self.bars[trial_id], note=f"val {quality:.3f}")
        self.progress.update(self.bars[trial_id], completed=share)
        self._refresh()

    def ended(self, trial_id: str, row: Row) -> None:
        """A trial is over."""
        if (bar := self.bars.pop(trial_id, None)) is not None:
            self.progress.remove_task(bar)
        self._leave(trial_id, 0.0)
        self.ended_count += 1
        self.console.print(self._line(trial_id, row), highlight=False)
        self._refresh()

    def set_aside(self, trial: Trial) -> None:
        """The time is up for a trial that has not ended."""
        if (bar := self.bars.pop(trial.trial_id, None)) is not None:
            self.progress.remove_task(bar)
        share, _ = self.seen.get(trial.trial_id, (0.0, 0.0))
        epochs = trial.config["epochs"]
        share = math.floor(share * epochs + 1e-6) / epochs  # what an epoch has learnt is kept when it ends
        self.console.print(
            f"  time is up: {escape(self.name(trial))} goes on next time, {share:.0%} is done",
            highlight=False,
        )

    def waiting(self, reason: str | None) -> None:
        """What trials wait for, where none runs."""
        self.waits.report(reason)

    def name(self, trial: Trial) -> str:
        """A short name of a trial of this sweep."""
        return label(trial, self.keys)

    def _leave(self, trial_id: str, share: float) -> None:
        """Notes the share of a trial that is still to be done; the sums follow, as there may be many."""
        trial, more = self.trials[trial_id], share - self.left.get(trial_id, 0.0)
        self.shares += more
        self.work[trial.config["model"]] += more * work(trial)
        self.left[trial_id] = share

    def _line(self, trial_id: str, row: Row) -> str:
        width = len(str(self.total))
        name = escape(label(self.trials[trial_id], self.keys))
        head = f"{self.ended_count:>{width}}/{self.total} {name}"
        if row["status"] == "failed":
            return f"{head}  {MARK['failed']}: {escape(clean(row['error']))}"
        scores = [f"{key.partition('_')[0]} {row[key]:.3f}" for key in CLOSING if row.get(key) is not None]
        return "  ".join([head, MARK[row["status"]], *scores, duration(row.get("train_s") or 0)])

    def _title(self) -> str:
        return f"{self.ended_count}/{self.total} trials"

    def _refresh(self) -> None:
        if self.progress.disable or time.monotonic() - self.refreshed < REFRESH_S:
            return
        self.refreshed = time.monotonic()
        seconds = self.speed.estimate_work(self.work)
        unseen = self.total - len(self.left)
        seconds += unseen * self.plan.seconds_of_open if unseen else 0
        done = 1 - (self.shares + unseen) / self.total
        left = f", {duration(seconds / self.slots)} left" if self.speed.observed else ""
        note = f"{duration(time.monotonic() - self.began)} so far{left}"
        self.progress.update(self.overall, completed=done, description=self._title(), note=note)
