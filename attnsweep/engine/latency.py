"""The latency phase: every architecture once per kind of device, alone on its machine, each in a process of
its own.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from attnsweep.core.errors import UserError, writing
from attnsweep.core.source import Source
from attnsweep.core.trial import short_hash
from attnsweep.engine import presence
from attnsweep.engine.engine import Bench, Measured, Report, Unmeasurable
from attnsweep.results.schema import ARCHITECTURE, LATENCY_OF_TRIAL
from attnsweep.results.store import Row, Store
from attnsweep.space.trials import arch_id_of
from attnsweep.tasks import own
from attnsweep.tasks.registry import buildable

LATENCY_BATCH = 1
THROUGHPUT_BATCH = 256
BATCHES = (LATENCY_BATCH, THROUGHPUT_BATCH)
PATIENCE_S = 10.0  # for other sweeps on the machine to end, and for the workers of this one
THREADS = 1  # of a forward pass on a CPU, as in training
log = logging.getLogger("attnsweep")


def device_name(gpus: float) -> str:
    """The `measured_on` of the process that this runs in."""
    from attnsweep.results import provenance

    if gpus == 0 and sys.platform != "darwin":  # without the seconds that torch takes to import
        return provenance.device_name("cpu", THREADS)
    from attnsweep.measuring import measure

    return provenance.device_name(measure.pick_device(gpus), THREADS)


def measure_once(
    config: dict[str, Any],
    arch_id: str,
    gpus: float,
    precision: str,
    batches: Sequence[int],
    source: Source | None,
) -> Measured:
    """Measures one architecture in the process that this runs in; a batch that does not fit has no row."""
    from attnsweep.measuring import measure

    rows, device = [], measure.pick_device(gpus)
    with presence.alone(PATIENCE_S) as is_alone:
        disturbed_by = presence.other_work() if is_alone else "another sweep trains there"
        for batch in batches:
            with contextlib.suppress(MemoryError):  # the driver warns about a batch that has no row
                rows.append(
                    measure.measure_architecture(
                        config,
                        arch_id,
                        device=device,
                        batch=batch,
                        precision=precision,
                        threads=THREADS,
                        source=source,
                    )
                )
    return Measured(rows, disturbed_by)


@dataclass(frozen=True)
class Architecture:
    """What is measured: a configuration, and the text of a user's own model as it was checked."""

    config: dict[str, Any]
    source: Source | None


def wanted(store: Store, trials: Mapping[str, str] | None) -> dict[tuple[str, str], Architecture]:
    """(arch_id, precision) to what is measured, of the done ones among `trials`, their ids to those of their
    architectures (None: of all in the results).
    """
    rows = store.read("trials").filter(pc.field("status") == "done").to_pylist()
    keys = [column.name for column in ARCHITECTURE]
    found = {}
    for row in rows:
        asked = trials is None or trials.get(row["trial_id"]) == row["arch_id"]
        if asked and row["params"]:  # a rule without parameters costs nothing
            config = {key: row[key] for key in keys}
            found[row["arch_id"], row["precision"]] = buildable(config)
    named = trials is not None
    read = {key: architecture(key[0], config, named=named) for key, config in found.items()}
    return {key: one for key, one in read.items() if one is not None}


def architecture(arch_id: str, config: dict[str, Any], *, named: bool) -> Architecture | None:
    """What a row's configuration describes; None, with a warning, where that is another architecture, or not
    safe to build: a file of code that no sweep of ours has `named` must be our own.
    """
    if arch_id_of(config) != arch_id:
        log.warning("the latency of architecture %s was not measured: its row describes another", arch_id)
        return None
    try:
        return Architecture(config, own.source_of(config, trusted=not named))
    except UserError as error:  # or the file is gone
        log.warning("the latency of architecture %s was not measured: %s", arch_id, error)
        return None


def measure_all(
    store: Store, trials: Mapping[str, str] | None, benches: Sequence[Bench], report: Report
) -> None:
    """Measures what is not in the table yet, and joins latency into the rows of `trials` (see `wanted`).
    `report` gets a line per architecture.
    """
    architectures = wanted(store, trials)
    for bench in reversed(benches):  # the first kind comes last: its figures stay in `trials`
        missing, remarks = list(unmeasured(store, architectures, bench.measured_on)), set[str]()
        for number, (arch_id, precision, batches) in enumerate(missing, 1):
            report(f"latency {number}/{len(missing)} on {bench.measured_on}")
            one = architectures[arch_id, precision]
            disturbed_by = measure_at(
                store, bench, one, arch_id=arch_id, precision=precision, batches=batches
            )
            if disturbed_by and not remarks:
                remarks.add(disturbed_by)
                log.warning("latency on %s may be measured too high: %s", bench.measured_on, disturbed_by)
        with writing(store.root):
            store.update_trials(dict(joined(store, architectures, bench.measured_on)))


def unmeasured(
    store: Store, architectures: Iterable[tuple[str, str]], measured_on: str
) -> Iterator[tuple[str, str, list[int]]]:
    """The architectures and precisions that lack a measurement on a device, with the batch sizes that they
    lack.
    """
    known = {key_of(row) for row in store.read("latency").to_pylist()}
    for arch_id, precision in architectures:
        batches = [batch for batch in BATCHES if (arch_id, measured_on, batch, precision) not in known]
        if batches:
            yield arch_id, precision, batches


def measure_at(
    store: Store,
    bench: Bench,
    one: Architecture,
    *,
    arch_id: str,
    precision: str,
    batches: list[int],
) -> str:
    """Measures one architecture and writes its rows; what cannot be measured is warned about and has none.
    Returns what disturbed the measurement.
    """
    try:
        measured = bench.measure(one.config, arch_id, precision=precision, batches=batches, source=one.source)
    except (Unmeasurable, UserError) as error:
        log.warning("the latency of architecture %s was not measured: %s", arch_id, error)
        return ""
    for row in measured.rows:
        name = short_hash(dict(zip("adbp", key_of(row), strict=True)))
        with writing(store.root):
            store.write("latency", [row], name)
    for batch in {*batches} - {row["batch"] for row in measured.rows}:
        log.warning(
            "architecture %s at batch %d does not fit into the memory of %s",
            arch_id,
            batch,
            bench.measured_on,
        )
    return measured.disturbed_by


def key_of(row: Row) -> tuple[str, str, int, str]:
    """What identifies a row of `latency`."""
    return row["arch_id"], row["measured_on"], row["batch"], row["precision"]


def joined(
    store: Store, architectures: Iterable[tuple[str, str]], measured_on: str
) -> Iterator[tuple[str, Row]]:
    """For each trial of these architectures: the latency columns that its row gets."""
    rows = {key_of(row): row for row in store.read("latency").to_pylist()}
    chosen, columns = set(architectures), [column.name for column in LATENCY_OF_TRIAL]
    for trial in store.read("trials").to_pylist():
        arch_id, precision = trial["arch_id"], trial["precision"]
        single = rows.get((arch_id, measured_on, LATENCY_BATCH, precision))
        if (arch_id, precision) not in chosen or single is None:
            continue
        many = rows.get((arch_id, measured_on, THROUGHPUT_BATCH, precision), {})
        values = {**single, "latency_batch": LATENCY_BATCH, "throughput_per_s": many.get("throughput_per_s")}
        change = {column: values[column] for column in columns}
        if any(trial[column] != value for column, value in change.items()):
            yield trial["trial_id"], change
