"""The loop over an engine's events: it records rows, starts further trials, and stops those that learn
too slowly.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attnsweep.core.trial import Trial
from attnsweep.engine.deadline import Deadline
from attnsweep.engine.engine import Engine, Event, Failed, Ready, Reported, Started, Tick, TrialSource
from attnsweep.engine.halving import Halving
from attnsweep.results.store import Row

MOST_STARTS = 3  # of a trial whose worker dies every time, in one command
# a warning follows this many usual intervals between reports, and this long, without a report
SILENT_STEPS, SILENT_S = 20, 120.0
UNKNOWN_S = 900.0  # ... or, before any trial of its model has reported twice, this long
log = logging.getLogger("attnsweep")


class Record(Protocol):
    """Records the events of trials."""

    def started(self, trial: Trial) -> None: ...

    def reported(self, trial: Trial, report: Mapping[str, Any]) -> None: ...

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...

    def failed(self, trial: Trial, error: str) -> None:
        """The worker of a trial that will be tried again has died."""

    def left(self, trial: Trial) -> None:
        """A trial has been ended, and is to go on another time."""

    def waiting(self, waits_for: str | None) -> None: ...


def run_trials(
    engine: Engine,
    source: TrialSource,
    record: Record,
    halving: Halving | None = None,
    deadline: Deadline | None = None,
) -> None:
    """Runs the trials of a source until they end, or until a deadline. A trial whose worker dies is started
    again, up to `MOST_STARTS` times in all.

    Raises what the record raises, and KeyboardInterrupt.
    """
    loop = Loop(engine, source, record, halving, deadline or Deadline())
    events = engine.events()
    try:
        for event in events:
            loop.handle(event)
    finally:
        events.close()  # type: ignore[attr-defined]  # at once, and not when the garbage is collected


class Loop:
    """The running trials, and the decision on each event."""

    def __init__(
        self, engine: Engine, source: TrialSource, record: Record, halving: Halving | None, deadline: Deadline
    ) -> None:
        self.engine, self.source, self.record, self.halving = engine, source, record, halving
        self.deadline = deadline
        self.trials: dict[str, Trial] = {}  # those that run
        self.rows: dict[str, Row] = {}  # theirs so far
        self.failures: Counter[str] = Counter()
        self.silence = Silence()

    def handle(self, event: Event) -> None:
        """Records an event, and starts, stops or ends trials accordingly."""
        match event:
            case Ready(spare):
                if not self.deadline.is_over and (trial := self.source.take(last=spare)):
                    self.engine.start(trial)
            case Started(trial):
                self.deadline.begins(trial.trial_id)
                self.trials[trial.trial_id] = trial
                self.rows[trial.trial_id] = trial.row()
                self.silence.started(trial)
                self.record.started(trial)
            case Reported(trial, report):
                self._report(trial, report)
            case Failed(trial, error, final):
                self._fail(trial, error, final=final)
            case Tick(waits_for):
                self.silence.remark()
                if self.deadline.is_long_over:
                    for trial in list(self.trials.values()):
                        self._leave(trial)
                self.record.waiting(waits_for)

    def _report(self, trial: Trial, report: Mapping[str, Any]) -> None:
        self.silence.reported(trial)
        self.rows[trial.trial_id] = report.get("row", self.rows[trial.trial_id])
        self.record.reported(trial, report)
        self.deadline.reported(trial, report)
        slow = [self.halving.stops(trial, epoch) for epoch in report.get("curve", ())] if self.halving else []
        if "status" in report:
            self._end(trial, report["status"])
        elif slow and slow[-1]:
            self.engine.stop(trial)
            self._end(trial, "stopped")
        elif self.deadline.ends(trial.trial_id, report):
            self._leave(trial)

    def _leave(self, trial: Trial) -> None:
        """Ends a trial before its end; the same command will go on with it."""
        self.engine.stop(trial)
        self.silence.ended(trial)
        self.rows.pop(trial.trial_id)
        self.trials.pop(trial.trial_id)
        self.record.left(trial)

    def _fail(self, trial: Trial, error: str, *, final: bool) -> None:
        self.failures[trial.trial_id] += 1
        if not final and self.failures[trial.trial_id] < MOST_STARTS:
            self.silence.ended(trial)
            self.trials.pop(trial.trial_id, None)
            self.record.failed(trial, error)
            if not self.deadline.is_over:
                self.engine.start(trial)
            return
        starts = self.failures[trial.trial_id]
        reason = error if final else f"its worker failed, at {starts} starts: {error}"
        self.rows.setdefault(trial.trial_id, trial.row())["error"] = reason
        self._end(trial, "failed")

    def _end(self, trial: Trial, status: str) -> None:
        self.silence.ended(trial)
        self.trials.pop(trial.trial_id, None)
        row = self.rows.pop(trial.trial_id)
        self.record.ended(trial, status, row)
        self.source.ended(trial, status, row)


class Silence:
    """Warns of trials that have not reported for many times as long as is usual for their model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.heard: dict[str, tuple[Trial, float]] = {}  # each running trial, and when it reported last
        self.usual: dict[str, float] = defaultdict(float)  # the longest time between two reports, per model
        self.remarked: set[str] = set()

    def started(self, trial: Trial) -> None:
        self.heard[trial.trial_id] = (trial, self.clock())

    def reported(self, trial: Trial) -> None:
        _, before = self.heard[trial.trial_id]
        model = trial.config["model"]
        self.usual[model] = max(self.usual[model], self.clock() - before)
        self.started(trial)

    def ended(self, trial: Trial) -> None:
        self.heard.pop(trial.trial_id, None)
        self.remarked.discard(trial.trial_id)

    def remark(self) -> None:
        """Warns once of each trial that has been silent for too long."""
        for trial_id, (trial, since) in self.heard.items():
            silent_s, usual_s = self.clock() - since, self.usual.get(trial.config["model"], math.nan)
            most_s = UNKNOWN_S if math.isnan(usual_s) else max(SILENT_S, SILENT_STEPS * usual_s)
            if silent_s > most_s and trial_id not in self.remarked:
                self.remarked.add(trial_id)
                log.warning(
                    "trial %s (%s) has not reported for %.0f s; trial_timeout= in the sweep ends such trials",
                    trial_id, trial.config["model"], silent_s,
                )  # fmt: skip
