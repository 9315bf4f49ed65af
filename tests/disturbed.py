"""What a fault cost: the tables of a disturbed sweep against those of one that nothing disturbed."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

import attnsweep
from attnsweep.core import files
from attnsweep.results import provenance
from attnsweep.results.store import Store
from attnsweep.space.files import read_sweep
from attnsweep.space.trials import expand
from attnsweep.training.trial import Options, run

from commands import metrics, raw_ids

TEXT = """# What faults cost

Sweeps of three small trials on one machine, in which real processes are killed with SIGKILL, or die of what
the line says. After each the tables are held against those of a sweep that nothing disturbed: metrics and
learning curves are equal to the bit, or the test fails.

{table}

- **commands**: how often the same command was given until all trials were done; 1 means that the fault
  ended nothing.
- **rows lost, doubled**: rows that were finished before the fault or ought to be there at the end, and are
  not; rows that pandas alone reads more than once.
- **trained again**: seconds from the last epoch that survived, or from the first trial's start, to the
  fault, summed over the trials that it hit. An epoch survives once it is checkpointed: when more than 1 s
  of training is unsaved, or 20 times what the last checkpoint took to write. Waiting is not in it: until
  a fault is noticed (a lost head after 20 s, a node by Ray's health check) and until a command has begun.

Made by `make test-faults` on {made}.
"""
HEAD = (
    "| fault | tried | commands | rows lost | rows doubled | trained again, s | on |",
    "|---|---|---|---|---|---|---|",
)
CURVE = ["trial_id", "epoch", "lr", "train_loss", "val_loss", "val_acc", "test_acc"]


def curves(results: Path | str) -> pd.DataFrame:
    """The learning curves as pandas alone reads them, without times."""
    rows = pd.read_parquet(f"{results}/epochs")
    return rows[CURVE].sort_values(CURVE[:2]).reset_index(drop=True)


@dataclass(frozen=True)
class Reference:
    """What an undisturbed sweep has found out."""

    metrics: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of(cls, results: Path | str) -> "Reference":
        return cls(metrics(results), curves(results))

    @property
    def ids(self) -> list[str]:
        return sorted(self.metrics["trial_id"])


@dataclass(frozen=True)
class Fault:
    """One fault as it was tried, and what was lost by it; seconds of training that were done again."""

    name: str
    commands: int
    rows_lost: int
    rows_doubled: int
    seconds_lost: float


def undisturbed_sweep(sweep: Path) -> Reference:
    """Runs a sweep file's trials one after another in this process, without Ray, and takes no naps."""
    store = Store(sweep.parent / "results")
    trials, invalid = expand(read_sweep(sweep).points(), sweep.parent)
    assert not invalid
    for trial in trials:
        *curve, last = run(trial, Options(data_dir=str(sweep.parent)))
        row = {**last["row"], "status": last["status"], "attempts": 1}
        store.write("trials", [row], trial.trial_id)
        epochs = [epoch for event in (*curve, last) for epoch in event.get("curve", ())]
        store.write("epochs", epochs, trial.trial_id)
    return Reference.of(store.root)


class Moment:
    """The moment of a fault: what was finished then, and when the trials that were running had begun."""

    def __init__(self, results: Path | str, began: datetime) -> None:
        self.results, self.began, self.at = results, began, datetime.now(UTC)
        self.finished = metrics(results) if pd_readable(results) else pd.DataFrame({"trial_id": []})

    def judge(self, name: str, reference: Reference, *, commands: int) -> Fault:
        """What was lost, now that the sweep is complete. Raises AssertionError where a number has changed."""
        after = metrics(self.results)
        pd.testing.assert_frame_equal(after, reference.metrics)
        pd.testing.assert_frame_equal(curves(self.results), reference.curves)
        raw = raw_ids(self.results)
        lost = {*self.finished["trial_id"], *reference.ids} - set(raw)
        kept = after[after["trial_id"].isin(self.finished["trial_id"])].reset_index(drop=True)
        if len(self.finished):
            pd.testing.assert_frame_equal(kept, self.finished)
        return Fault(name, commands, len(lost), len(raw) - len(set(raw)), self._again())

    def _again(self) -> float:
        """Seconds of training before the fault that had to be done again, over all trials."""
        rows = attnsweep.load(self.results, status=None)
        epochs = attnsweep.load(self.results, "epochs")
        total = 0.0
        for trial_id in rows.loc[rows["attempts"] > 1, "trial_id"]:
            kept = epochs.loc[
                (epochs["trial_id"] == trial_id) & (epochs["finished_at"] <= self.at), "finished_at"
            ]
            total += (self.at - max([self.began, *kept])).total_seconds()
        return total


def pd_readable(results: Path | str) -> bool:
    """Whether there are rows yet."""
    return bool(Store(results).paths("trials"))


def write_table(faults: Sequence[Fault], path: Path) -> None:
    """The table of faults in Markdown, one line per kind of fault; lines of faults that were not tried now
    stay.
    """
    rows, today = pd.DataFrame([vars(fault) for fault in faults]), f"{datetime.now(UTC):%Y-%m-%d}"
    old = path.read_text().splitlines() if path.exists() else []
    lines = {line.split(" | ")[0]: line for line in old if line.startswith("| ") and line not in HEAD}
    for name, same in rows.groupby("name", sort=False):
        seconds = same["seconds_lost"]
        spread = f"{seconds.min():.1f}" if len(same) == 1 else f"{seconds.min():.1f} to {seconds.max():.1f}"
        counts = f"{same['rows_lost'].sum()} | {same['rows_doubled'].sum()}"
        line = f"| {name} | {len(same)} | {same['commands'].max()} | {counts} | {spread} | {today} |"
        lines[f"| {name}"] = line
    made = (
        f"{today}, {provenance.cpu_name()}, {os.cpu_count()} cores; Python "
        f"{platform.python_version()}, Ray {version('ray')}, torch {version('torch')}, "
        f"pyarrow {version('pyarrow')}, moto {version('moto')}"
    )
    text = TEXT.replace("{made}", made).replace("{table}", "\n".join([*HEAD, *sorted(lines.values())]))
    files.replace(path, text.encode())
