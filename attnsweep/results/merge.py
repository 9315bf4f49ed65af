"""Rows of one store into another, as they travel between a laptop and a cluster.

    python -m attnsweep.results.merge FROM INTO

Nothing that is final is lost and no row comes twice. Of two rows of one trial the final one stays, of two
final ones the later, of one and the same the one with latency; a trial's curve comes and goes with its row.
Tables that only another version knows come as they are.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attnsweep.results.latencies import LONG_AGO, when
from attnsweep.results.rows import keys_of, matching
from attnsweep.results.schema import FINAL, KEYS, OWN
from attnsweep.results.store import Row, Store


def merge(source: str | Path, into: str | Path) -> int:
    """Adds the rows of one store to another; returns how many trials are new or renewed there.

    The curves come first: a trial is not taken again once its row is there.
    """
    theirs, ours = Store(source), Store(into)
    trials = better_rows(ours, theirs, "trials", worth)
    merge_curves(ours, theirs, trials)
    merge_trials(ours, theirs, trials)
    for table, worth_of in (("latency", when), ("references", as_first_measured)):
        measured = better_rows(ours, theirs, table, worth_of)
        measured = without_newer(ours, theirs, table, measured, KEYS[table])
        ours.supersede(table, measured, KEYS[table])
    for table in theirs.unknown_tables():
        for name, content in theirs.contents(table):
            ours.keep(table, name, content)
    return len(trials)


def merge_curves(ours: Store, theirs: Store, trials: Sequence[Row]) -> None:
    """Adds their learning curves of these trials, and of those that have no row yet."""
    wanted, known = {row["trial_id"] for row in trials}, known_trials(ours) | known_trials(theirs)
    curves = [
        row
        for row in theirs.read("epochs").to_pylist()
        if row["trial_id"] in wanted or row["trial_id"] not in known
    ]
    final = {row["trial_id"] for row in trials if row["status"] in FINAL}
    curves = without_newer(ours, theirs, "epochs", curves, ["trial_id"])
    for trial_id, curve in by_trial(curves).items():
        if trial_id not in final:
            ours.write("epochs", curve, trial_id)
    ours.supersede("epochs", [row for row in curves if row["trial_id"] in final], ["trial_id"])


def merge_trials(ours: Store, theirs: Store, trials: Sequence[Row]) -> None:
    """Adds these rows of theirs, after the measures that tasks keep of them in tables of their own."""
    wanted = {row["trial_id"] for row in trials}
    for table in OWN:
        measures = [row for row in theirs.read(table).to_pylist() if row["trial_id"] in wanted]
        ours.supersede(table, without_newer(ours, theirs, table, measures, KEYS[table]), KEYS[table])
    rest = without_newer(ours, theirs, "trials", trials, KEYS["trials"])
    for row in rest:
        if row["status"] not in FINAL:  # a retry replaces it, by the name of its file
            ours.write("trials", [row], row["trial_id"])
    ours.supersede("trials", [row for row in rest if row["status"] in FINAL], KEYS["trials"])


def without_newer(
    ours: Store, theirs: Store, table: str, rows: Sequence[Row], keys: Sequence[str]
) -> list[Row]:
    """The rows that no file of a newer version has. Those that one has are added to our store here, with the
    columns that this version does not know.
    """
    wanted, added = {tuple(row[key] for key in keys) for row in rows}, set()
    for content in theirs.newer(table):
        there = matching(content, keys, wanted)
        ours.adopt(table, there, keys)
        added |= set(keys_of(there, keys))
    return [row for row in rows if tuple(row[key] for key in keys) not in added]


def known_trials(store: Store) -> set[str]:
    """The trials that have a row."""
    return set(store.read("trials")["trial_id"].to_pylist())


def better_rows(ours: Store, theirs: Store, table: str, worth: Any) -> list[Row]:
    """Their rows that are worth more than ours of the same key, or have no counterpart."""
    mine = keyed(table, ours.read(table).to_pylist())
    return [
        row
        for key, row in keyed(table, theirs.read(table).to_pylist()).items()
        if key not in mine or worth(row) > worth(mine[key])
    ]


def keyed(table: str, rows: Sequence[Row]) -> Mapping[tuple[Any, ...], Row]:
    """The rows by the table's key."""
    return {tuple(row[key] for key in KEYS[table]): row for row in rows}


def worth(row: Row) -> tuple[bool, datetime, bool]:
    """What makes one row of a trial better than another."""
    return row["status"] in FINAL, row["finished_at"] or LONG_AGO, row["latency_ms_p50"] is not None


def as_first_measured(row: Row) -> int:
    """A reference's own time that is known stays, since latencies here rest on it."""
    return 0


def by_trial(curves: Sequence[Row]) -> dict[str, list[Row]]:
    """The epochs of each trial."""
    grouped: dict[str, list[Row]] = {}
    for row in curves:
        grouped.setdefault(row["trial_id"], []).append(row)
    return grouped


def extract(source: str | Path, into: str | Path) -> None:
    """Writes what a driver elsewhere needs to know of a store: its final trials, its latencies, and what
    those are measured beside.
    """
    rows = [row for row in Store(source).read("trials").to_pylist() if row["status"] in FINAL]
    Store(into).supersede("trials", rows, KEYS["trials"])
    for table in ("latency", "references"):
        Store(into).supersede(table, Store(source).read(table).to_pylist(), KEYS[table])


if __name__ == "__main__":
    merge(sys.argv[1], sys.argv[2])
