"""Writes what trials report into the tables: the driver is their only writer."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from attnsweep.core import files
from attnsweep.core.errors import reason, writing
from attnsweep.core.trial import Trial
from attnsweep.engine.live import Live
from attnsweep.results import provenance, storage
from attnsweep.results.rows import UNFIT, fitting
from attnsweep.results.schema import FINAL, MEASURES, SCHEMAS
from attnsweep.results.store import Row, Store

BUNDLE = 100  # trials
RAY_LOG = "ray.log"  # what Ray itself has to say, beside the results
CURVE_S = 5.0  # how often the learning curve of a running trial is written
log = logging.getLogger("attnsweep")


class Recorder:
    """What is known of the running trials until it stands in the tables."""

    def __init__(
        self, sweep: str, store: Store, runs: Path, live: Live, *, checkpoints: str | None = None
    ) -> None:
        self.sweep, self.store, self.runs, self.live = sweep, store, runs, live
        self.checkpoints = checkpoints or str(runs)
        self.warned: set[str] = set()
        self.origin = provenance.driver()
        self.curves: dict[str, list[Row]] = {}
        self.written: dict[str, float] = {}
        self.final: list[tuple[str, dict[str, Row], list[Row]]] = []  # ids, rows, curves
        self.starts_log, self.ray_log = runs / "starts.log", runs / RAY_LOG
        self.starts = Counter(files.words(self.starts_log))

    def started(self, trial: Trial) -> None:
        """Counts the attempt, in a log that outlives the driver."""
        self.starts[trial.trial_id] += 1
        with writing(self.starts_log):
            files.append(self.starts_log, f"{trial.trial_id}\n")
        self.curves[trial.trial_id] = []
        self.written[trial.trial_id] = time.monotonic()
        self.live.started(trial)

    def reported(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """Keeps the epochs of the learning curve and writes them now and then."""
        curve = self.curves[trial.trial_id]
        curve += report.get("curve", ())
        if (warning := report.get("warning")) and warning not in self.warned:
            self.warned.add(warning)
            log.warning("%s; a trial that is cut off starts over", warning)
        share = len(curve) / trial.config["epochs"]
        self.live.advanced(trial.trial_id, report.get("progress", share), report.get("quality"))
        if "curve" in report and time.monotonic() - self.written[trial.trial_id] > CURVE_S:
            self._write_curve(trial.trial_id)

    def ended(self, trial: Trial, status: str, row: Row) -> None:
        """Writes the trial's rows; its checkpoint is then of no more use."""
        self._write_curve(trial.trial_id)
        curve = self.curves.pop(trial.trial_id, [])  # none where its worker could not even begin
        full = {**row, **self.origin, "sweep": self.sweep, "status": status}
        full["attempts"] = self.starts[trial.trial_id]
        with writing(self.store.root):
            try:
                parts = self.store.write_trial(full)
            except UNFIT as error:
                full = failed(full, error)
                parts = self.store.write_trial(full)
        status = full["status"]
        if status != "stopped":  # a sweep without a scheduler would go on from there
            storage.drop(storage.below(self.checkpoints, trial.trial_id), "checkpoint")
        self.live.ended(trial.trial_id, full)
        if status in FINAL:
            self.final.append((trial.trial_id, parts, curve))
        if len(self.final) == BUNDLE:
            self._bundle()

    def failed(self, trial: Trial, error: str) -> None:
        """Says that the worker of a trial died, which starts again."""
        more = f"; more in {self.ray_log}" if self.ray_log.exists() else ""
        log.warning("%s: its worker died (%s); it starts again%s", self.live.name(trial), error, more)

    def left(self, trial: Trial) -> None:
        """Writes the learning curve of a trial that ends before its end."""
        self._write_curve(trial.trial_id)
        self.curves.pop(trial.trial_id, None)
        self.live.set_aside(trial)

    def waiting(self, waits_for: str | None) -> None:
        """Shows what trials wait for, where none runs."""
        self.live.waiting(waits_for)

    def _bundle(self) -> None:
        """Puts what ended lately into one file per table: a thousand files take seconds to read."""
        with writing(self.store.root):
            for table in {table: None for _, parts, _ in self.final for table in parts}:
                rows = {trial_id: parts[table] for trial_id, parts, _ in self.final if table in parts}
                self.store.bundle(table, [*rows.values()], [*rows])
            curves = {trial_id: curve for trial_id, _, curve in self.final if curve}
            self.store.bundle("epochs", [epoch for curve in curves.values() for epoch in curve], [*curves])
        self.final.clear()
        pa.default_memory_pool().release_unused()  # Arrow keeps it for a next time that takes minutes to come

    def _write_curve(self, trial_id: str) -> None:
        if curve := self.curves.get(trial_id):
            with writing(self.store.root):
                try:
                    self.store.write("epochs", curve, trial_id)
                except UNFIT:
                    types = {field.name: field.type for field in SCHEMAS["epochs"]}
                    curve[:] = [fitting(epoch, types) for epoch in curve]
                    self.store.write("epochs", curve, trial_id)
            self.written[trial_id] = time.monotonic()


def failed(row: Row, error: Exception) -> Row:
    """A row that cannot be written, without what no column can hold; where that is anything, its trial
    failed.
    """
    kept = fitting(row, {name: column.type for name, column in MEASURES.items()})
    if lost := sorted(row.keys() - kept.keys()):
        values = ", ".join(f"{key}={str(row[key])[:100]!r}" for key in lost)
        kept |= {"status": "failed", "error": f"its row cannot be written, for {values} ({reason(error)})"}
    return kept


def tidy(store: Store) -> None:
    """Compacts the tables; where that fails, say on a full disk, the small files stay as they are."""
    try:
        store.compact()
    except OSError as error:
        log.warning("the tables were not compacted (%s); their rows are intact", error)
    pa.default_memory_pool().release_unused()
