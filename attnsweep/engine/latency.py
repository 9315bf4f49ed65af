"""The latency phase, which measures what is not known yet on every kind of device; and latency that is
measured before training, because it decides which trials are trained.
"""

import contextlib
import functools
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from attnsweep.core.cost import Cost
from attnsweep.core.deployment import Ask, Deployment, Deployments, Subject, Weights
from attnsweep.core.errors import UserError, writing
from attnsweep.core.text import counted
from attnsweep.core.trial import Trial, short_hash
from attnsweep.engine.deadline import Deadline
from attnsweep.engine.engine import Bench, Measured
from attnsweep.results import latencies
from attnsweep.results.schema import ARCHITECTURE, KEYS
from attnsweep.results.store import Row, Store
from attnsweep.space.plan import Folders
from attnsweep.space.rerun import trial_of
from attnsweep.space.trials import arch_id_of, cost_of
from attnsweep.tasks import own
from attnsweep.tasks.registry import TASKS, architecture, buildable

Progress = Callable[[int, int], None]  # how many are measured, of how many
LONGEST = 65_536  # tokens that latency is measured of
DRIFT = 1.5  # of a reference's time since it was measured, from which on it is said
log = logging.getLogger("attnsweep")


@dataclass
class Tally:
    """Counts of measurements: made, known already, known but unstable, made but unstable, lost (tried again
    next time), known to fail and failed, both by reason; `left` for another time, as this one was up; and
    runtimes and numbers of threads that a machine does not have.
    """

    measured: int = 0
    known: int = 0
    known_unstable: int = 0
    unstable: int = 0
    lost: int = 0
    left: int = 0
    impossible: int = 0
    known_to_fail: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def is_whole(self) -> bool:
        """Whether there is a figure for everything that was asked for, and anything was."""
        without = self.failed or self.known_to_fail or self.lost or self.left or self.impossible
        return bool(self.measured or self.known) and not without


@dataclass(frozen=True)
class Phase:
    """One latency phase: what is measured, where its rows go, what shows its progress."""

    store: Store
    asked: Deployments
    progress: Progress
    again: bool = False
    folders: Folders | None = None  # of weights and data, to judge int8 models
    tally: Tally = field(default_factory=Tally)
    until: Deadline = field(default_factory=Deadline)

    def measure(self, subjects: Mapping[tuple[str, str], Subject], benches: Sequence[Bench]) -> Tally:
        """Measures the subjects, by (arch_id, precision), on each bench, and writes latency into the rows of
        their trials. The first bench comes last, so that its figures stay there.
        """
        for bench in reversed(benches):
            asks = list(self.missing(subjects, bench))
            self.run(asks, bench)
            self.join(subjects, bench)
        return self.tally

    def missing(self, subjects: Mapping[tuple[str, str], Subject], bench: Bench) -> Iterator[Ask]:
        """The asks without a row of this device and these versions; with `again` all asks."""
        rows = [] if self.again else self.store.read("latency").to_pylist()
        known = {key_of(row): row for row in rows}
        possible = self.possible(bench)
        for (_, precision), subject in subjects.items():
            wanted = []
            for one in possible.each(precision):
                if row := known.get(key_on(bench, subject.arch_id, one)):
                    self.count_known(row)
                else:
                    wanted.append(one)
            judged = any(one.precision == "int8" for one in wanted)
            weights = self.weights(subject) if judged else None
            for one in wanted:
                yield Ask(one, subject, weights=weights if one.precision == "int8" else None)

    def count_known(self, row: Row) -> None:
        """Counts a row that is there already."""
        if row["error"]:
            self.tally.known_to_fail[failure(row)] += 1
            return
        self.tally.known += 1
        self.tally.known_unstable += bool(row["unstable"])

    def weights(self, subject: Subject) -> Weights | None:
        """The trials of an architecture that can be judged in int8, the best on validation first."""
        if self.folders is None:
            return None
        trials = []
        for row in self.judged_trials:
            if row["arch_id"] == subject.arch_id:
                with contextlib.suppress(UserError):  # its data or its code are other ones now
                    trials.append(trial_of(row, self.folders.data))
        if not trials:
            return None
        return Weights(tuple(trials), self.folders.checkpoints, str(self.folders.data))

    @functools.cached_property
    def judged_trials(self) -> list[Row]:
        """The rows of finished trials with an accuracy, the best on validation first."""
        done = self.store.read("trials").filter(pc.field("status") == "done").to_pylist()
        return sorted((row for row in done if row["val_acc"] is not None), key=lambda row: -row["val_acc"])

    def possible(self, bench: Bench) -> Deployments:
        """The deployments asked for, without runtimes and numbers of threads that the bench lacks."""
        here = bench.machine
        for runtime in self.asked.runtime:
            if runtime in here.missing:
                log.warning("%s; not measured", here.missing[runtime])
        for threads in self.asked.threads:
            if threads > here.cores:
                log.warning(
                    "threads=%d is more than the %s there; not measured", threads, counted(here.cores, "core")
                )
        runtimes = tuple(one for one in self.asked.runtime if one in here.versions)
        numbers = tuple(one for one in self.asked.threads if one <= here.cores)
        self.tally.impossible += len(self.asked.runtime) - len(runtimes)
        self.tally.impossible += len(self.asked.threads) - len(numbers)
        return replace(self.asked, runtime=runtimes, threads=numbers)

    def run(self, asks: Sequence[Ask], bench: Bench) -> list[Row]:
        """Measures and writes each row as it comes, until the time is up; returns them."""
        self.tally.left += len(asks)
        if not asks or self.until.is_over:
            return []
        disturbed, rows = "", []
        for number, measured in enumerate(self.answers(asks, bench), 1):
            self.progress(number, len(asks))
            before = self.tally.unstable
            self.record(measured)
            self.tally.left -= 1
            disturbed = disturbed or (measured.disturbed_by if self.tally.unstable > before else "")
            rows += [measured.row] if measured.row else []
            if self.until.is_over:
                break
        if disturbed:
            log.warning("latency is known less well than it could be: %s", disturbed)
        if len(asks) > 1 and not 1 / DRIFT < (drift := latencies.drift_of(rows)) < DRIFT:
            log.warning(
                "beside these models the reference took %.2g times what it took when it was measured by "
                "itself: milliseconds may be off by as much, ratios (latency_rel) are not%s",
                drift,
                "" if self.again else "; `measure --again` measures both anew",
            )
        return rows

    def answers(self, asks: Sequence[Ask], bench: Bench) -> Iterator[Measured]:
        """The answers in ms, as they come. References whose own time on that device is not known, and with
        `again` all of them, are measured by the same processes, first of all. Raises UserError where that
        fails.
        """
        own_ms, early = {} if self.again else self.references(bench), list[Measured]()
        wanted = {reference_key(ask.deployment): replace(ask.deployment, runtime="eager") for ask in asks}
        missing = [Ask(deployment) for key, deployment in wanted.items() if key not in own_ms]
        for measured in bench.measure([*missing, *asks]):
            if measured.ask.subject is None:
                own_ms[reference_key(measured.ask.deployment)] = self.record_reference(measured)
            else:
                early.append(measured)
            for one in [one for one in early if reference_key(one.ask.deployment) in own_ms]:
                early.remove(one)
                ms = own_ms[reference_key(one.ask.deployment)]
                yield replace(one, row=one.row and latencies.in_ms(one.row, ms))
        for one in early:  # the node of their reference was lost
            yield replace(one, row=None, error="its reference was not")

    def references(self, bench: Bench) -> dict[tuple[str, int], float]:
        """The references' own times on that device, in ms, by name and threads, as far as they are known."""
        here = bench.machine
        threads = {name: number for number, name in here.measured_on.items()}
        return {
            (row["reference"], threads[row["measured_on"]]): row["ms"]
            for row in self.store.read("references").to_pylist()
            if row["measured_on"] in threads and row["versions"] == here.versions["eager"]
        }

    def record_reference(self, measured: Measured) -> float:
        """Writes a reference's row; returns its time in ms. Raises UserError where it has none."""
        if (row := measured.row) is None:
            raise UserError(f"latency cannot be measured on this machine: {measured.error}")
        with writing(self.store.root):
            self.rescale(row)
            self.store.write("references", [row], name_of("references", row))
        ms: float = row["ms"]
        return ms

    def rescale(self, reference: Row) -> None:
        """Writes the rows that go by a reference, on its device and version of torch, in its new time, and
        the latency of their trials, so that rows of one device can be compared.
        """
        ms, measured_on = reference["ms"], reference["measured_on"]
        old = [
            row
            for row in self.store.read("latency").to_pylist()
            if latencies.goes_by(row, reference) and row["reference_ms"] not in (None, ms)
        ]
        if not old:
            return
        rows = [{**latencies.in_ms(row, ms / row["reference_ms"]), "reference_ms": ms} for row in old]
        self.store.write("latency", rows, name_of("references", reference))
        log.warning(
            "the reference takes %.3g ms, where it took %.3g: the milliseconds of %s change with it",
            ms, old[0]["reference_ms"], counted(len(rows), "row"),
        )  # fmt: skip
        trials = [row for row in self.store.read("trials").to_pylist() if row["measured_on"] == measured_on]
        for runtime in {row["runtime"] for row in trials}:
            self.update([row for row in trials if row["runtime"] == runtime], runtime)

    def record(self, measured: Measured) -> None:
        """Writes a measurement's row; warns where it has none, so that it is tried again next time."""
        row, subject = measured.row, measured.ask.subject
        if row is None:
            arch_id = subject.arch_id if subject else ""
            log.warning("the latency of architecture %s was not measured: %s", arch_id, measured.error)
            self.tally.lost += 1
            return
        with writing(self.store.root):
            self.store.write("latency", [row], name_of("latency", row))
        if row["error"]:
            self.tally.failed[failure(row)] += 1
            return
        self.tally.measured += 1
        self.tally.unstable += bool(row["unstable"])

    def join(self, subjects: Mapping[tuple[str, str], Subject], bench: Bench) -> None:
        """Writes latency into the rows of these architectures' trials, where it has changed; not of a runtime
        that this machine does not have.
        """
        here, runtime = bench.machine, self.asked.runtime[0]
        if runtime not in here.versions:
            return
        trials = [
            row
            for row in self.store.read("trials").to_pylist()
            if (row["arch_id"], row["precision"]) in subjects
        ]
        self.update(trials, runtime, here.measured_on[self.asked.threads[0]], here.versions[runtime])

    def update(
        self,
        trials: Sequence[Row],
        runtime: str,
        measured_on: str | None = None,
        versions: str | None = None,
    ) -> None:
        """Writes latency into these rows of trials as `latencies.of_trials` says, where it has changed."""
        measured = self.store.read("latency").to_pylist()
        before = {row["trial_id"]: row for row in trials}
        changes = {
            trial_id: change
            for trial_id, change in latencies.of_trials(
                trials, measured, runtime=runtime, measured_on=measured_on, versions=versions
            )
            if any(before[trial_id][name] != value for name, value in change.items())
        }
        with writing(self.store.root):
            self.store.update_trials(changes)


class LatencyOnDemand:
    """A `LatencyOf` for one bench: latency as the table has it for this device and these versions, else
    measured and written there. Measures `asked.first` of the phase, which the rows of trials show.

    Raises UserError where the bench lacks that runtime or so many threads.
    """

    def __init__(self, phase: Phase, bench: Bench) -> None:
        self.phase = replace(phase, asked=phase.asked.first)
        self.bench, here = bench, bench.machine
        (runtime,), (threads,) = self.phase.asked.runtime, self.phase.asked.threads
        if runtime in here.missing:
            raise UserError(
                f"latency decides what is trained, and cannot be measured: {here.missing[runtime]}"
            )
        if threads > here.cores:
            raise UserError(
                f"latency decides what is trained, and cannot be measured: threads={threads} is more than "
                f"the {counted(here.cores, 'core')} there"
            )
        self.known = latencies.of_architectures(
            phase.store.read("latency").to_pylist(),
            phase.asked,
            measured_on=here.measured_on[threads],
            versions=here.versions[runtime],
        )

    def __call__(self, trial: Trial) -> float | None:
        if key_of_trial(trial) not in self.known:
            self.measure([trial])
        return self.known.get(key_of_trial(trial))

    def silent(self) -> "LatencyOnDemand":
        """Shows no further progress: single measurements follow."""
        self.phase = replace(self.phase, progress=lambda done, total: None)
        return self

    def measure(self, trials: Iterable[Trial]) -> None:
        """Measures the architectures that are not known; each is tried once."""
        learning = {key_of_trial(trial): trial for trial in trials if trial.params}  # rules have no latency
        asks = [
            Ask(deployment, subject_of_trial(trial))
            for key, trial in learning.items()
            if key not in self.known
            for deployment in self.phase.asked.each(key[1])
        ]
        self.phase.tally.known += len(learning) - len(asks)
        for row in self.phase.run(asks, self.bench):
            self.known[row["arch_id"], row["precision"]] = latencies.ms_of(row)
        for key in learning:
            self.known.setdefault(key, math.nan)


def key_of_trial(trial: Trial) -> tuple[str, str]:
    """The architecture and precision of a trial, which its latency depends on."""
    return trial.arch_id, trial.config["precision"]


def subject_of_trial(trial: Trial) -> Subject:
    """The subject of a trial that need not have been trained."""
    config = buildable(architecture(trial.config))
    return Subject(trial.arch_id, config, trial.source, Cost(trial.params, trial.macs))


def failure(row: Row) -> str:
    """What has no latency, and why."""
    return f"{row['model']} under {row['runtime']}: {row['error']}"


def key_of(row: Row) -> tuple[Any, ...]:
    """The key of a row of `latency`."""
    return tuple(row[key] for key in KEYS["latency"])


def key_on(bench: Bench, arch_id: str, deployment: Deployment) -> tuple[Any, ...]:
    """The key of the row that a measurement on that bench would give."""
    here = bench.machine
    return key_of(
        {
            "arch_id": arch_id,
            "measured_on": here.measured_on[deployment.threads],
            "runtime": deployment.runtime,
            "versions": here.versions[deployment.runtime],
            "batch": deployment.batch,
            "precision": deployment.precision,
        }
    )


def reference_key(deployment: Deployment) -> tuple[str, int]:
    """The reference of a deployment, and its number of threads."""
    return deployment.reference.name, deployment.threads


def name_of(table: str, row: Row) -> str:
    """The name of a row's file, so that a row of the same key replaces it."""
    return short_hash({key: row[key] for key in KEYS[table]})


def subjects_of(
    store: Store, trials: Mapping[str, str] | None, *, chosen: Collection[str] | None = None
) -> dict[tuple[str, str], Subject]:
    """The subjects of the done trials among `trials`, which maps their ids to those of their architectures
    (None: of all done trials), by (arch_id, precision); only `chosen` architectures, where they are named.
    """
    rows = store.read("trials").filter(pc.field("status") == "done").to_pylist()
    found = {}
    for row in rows:
        asked = trials is None or trials.get(row["trial_id"]) == row["arch_id"]
        asked = asked and (chosen is None or row["arch_id"] in chosen)
        if asked and row["params"]:  # rules without parameters have no latency
            found[row["arch_id"], row["precision"]] = row
    subjects, lost = {}, defaultdict[str, list[str]](list)
    for key, row in found.items():
        try:
            subjects[key] = subject_of(row, named=trials is not None)
        except UserError as error:
            lost[str(error)].append(row["arch_id"])
    for why, ids in lost.items():
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        log.warning("the latency of architecture %s%s was not measured: %s", ids[0], more, why)
    return subjects


def at_lengths(
    subjects: Mapping[tuple[str, str], Subject], lengths: Sequence[int]
) -> dict[tuple[str, str], Subject]:
    """The models of sequences among the subjects at each of these lengths: architectures of their own, whose
    rows of `latency` state the length.

    Raises UserError where there is none, or a length is out of range.
    """
    if not lengths:
        raise UserError("--length names no value; name one, or leave it out")
    for length in lengths:
        if not isinstance(length, int) or not 1 <= length <= LONGEST:
            raise UserError(f"--length {length} is out of range; use whole numbers from 1 to {LONGEST:,}")
    found = {}
    for (_, precision), subject in subjects.items():
        at_length = TASKS[subject.config["task"]].at_length
        for length in lengths if at_length else ():
            config = at_length(dict(subject.config), length)  # type: ignore[misc]
            arch_id = arch_id_of(config)
            found[arch_id, precision] = Subject(
                arch_id, config, subject.source, cost_of(config, subject.source)
            )
    if not found:
        known = ", ".join(name for name, task in TASKS.items() if task.at_length)
        raise UserError(f"--length is for models of {known}, of which no trial is done; leave it out")
    return found


def subject_of(row: Row, *, named: bool) -> Subject:
    """The subject of a row. Raises UserError where its configuration is that of another architecture, its
    file of code is gone, or that is not safe to build: unless this command's sweep has `named` it, nobody
    else may have written it.
    """
    config = buildable({column.name: row[column.name] for column in ARCHITECTURE})
    if arch_id_of(config) != row["arch_id"]:
        raise UserError("its row describes another")
    source = own.source_of(config, trusted=not named)
    return Subject(row["arch_id"], config, source, Cost(row["params"], row["macs"]))
