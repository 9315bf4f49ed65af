from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attnsweep.core.errors import Interrupted
from attnsweep.core.trial import Trial
from attnsweep.engine import recorder as module
from attnsweep.engine.recorder import BUNDLE, Recorder
from attnsweep.results.store import Store
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve


class Silent:
    """A live table that shows nothing."""

    def started(self, trial: Trial) -> None: ...

    def advanced(self, trial_id: str, share: float, val_acc: float | None = None) -> None: ...

    def ended(self, trial_id: str, row: dict[str, Any]) -> None: ...

    def waiting(self, reason: str | None) -> None: ...

    def name(self, trial: Trial) -> str:
        return "cnn"


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    runs = tmp_path / "runs"
    runs.mkdir()
    return Recorder("s", Store(tmp_path / "results"), runs, Silent())  # type: ignore[arg-type]


def trials(number: int) -> list[Trial]:
    return [make_trial(resolve(dict(model="cnn", seed=seed)), Path("nowhere")) for seed in range(number)]


def finish(recorder: Recorder, trial: Trial, *, status: str = "done", epochs: int = 2) -> None:
    recorder.started(trial)
    curve = [{"trial_id": trial.trial_id, "epoch": epoch + 1} for epoch in range(epochs)]
    recorder.reported(trial, {"curve": curve, "status": status})
    recorder.ended(trial, status, trial.row())


def as_pandas_reads(recorder: Recorder, table: str) -> pd.DataFrame:
    return pd.read_parquet(f"{recorder.store.base}/{table}")


@pytest.mark.slow
def test_many_trials_stand_in_few_files_and_each_row_once(recorder: Recorder) -> None:
    several = trials(2 * BUNDLE + 7)
    for trial in several:
        finish(recorder, trial)
    assert len(recorder.store.paths("trials")) == len(recorder.store.paths("epochs")) == 2 + 7
    assert sorted(as_pandas_reads(recorder, "trials")["trial_id"]) == sorted(one.trial_id for one in several)
    assert len(as_pandas_reads(recorder, "epochs")) == 2 * len(several)


@pytest.mark.slow
def test_a_failed_trial_is_never_bundled_for_a_retry_replaces_its_row(recorder: Recorder) -> None:
    failed, *rest = trials(BUNDLE + 1)
    finish(recorder, failed, status="failed")
    for trial in rest:
        finish(recorder, trial)
    assert len(recorder.store.paths("trials")) == 2
    finish(recorder, failed)
    rows = as_pandas_reads(recorder, "trials").set_index("trial_id")
    assert rows.index.is_unique and set(rows["status"]) == {"done"}
    assert rows.loc[failed.trial_id, "attempts"] == 2


@pytest.mark.slow
def test_trials_that_diverge_in_their_first_epoch_leave_no_curve(recorder: Recorder) -> None:
    for trial in trials(BUNDLE):
        finish(recorder, trial, status="diverged", epochs=0)
    assert len(as_pandas_reads(recorder, "trials")) == BUNDLE
    assert recorder.store.paths("epochs") == []


def test_a_trial_whose_worker_could_not_begin_is_a_row_too(recorder: Recorder) -> None:
    (trial,) = trials(1)
    recorder.ended(trial, "failed", {**trial.row(), "error": "its worker failed"})
    row = as_pandas_reads(recorder, "trials").iloc[0]
    assert (row["status"], row["error"], row["attempts"]) == ("failed", "its worker failed", 0)


def test_attempts_of_earlier_drivers_count(recorder: Recorder) -> None:
    (trial,) = trials(1)
    recorder.started(trial)
    again = Recorder("s", recorder.store, recorder.runs, Silent())  # type: ignore[arg-type]
    finish(again, trial)
    assert as_pandas_reads(again, "trials")["attempts"].item() == 2


def test_a_curve_can_be_read_while_its_trial_runs(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CURVE_S", 0)
    (trial,) = trials(1)
    recorder.started(trial)
    for epoch in (1, 2):
        recorder.reported(trial, {"curve": [{"trial_id": trial.trial_id, "epoch": epoch}]})
        assert list(as_pandas_reads(recorder, "epochs")["epoch"]) == list(range(1, epoch + 1))


@pytest.mark.slow
def test_a_disk_that_is_full_while_bundling_loses_no_row(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = trials(BUNDLE)
    for trial in several[:-1]:
        finish(recorder, trial)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "bundle", full)
    with pytest.raises(Interrupted, match="No space left on device"):
        finish(recorder, several[-1])
    assert len(as_pandas_reads(recorder, "trials")) == BUNDLE


UNWRITABLE: dict[str, Any] = {
    "a truth for a word": {"attention": True},
    "a word for a number": {"depth": "many"},
    "a number beyond all": {"params": 2**80},
    "a list": {"seed": [1, 2]},
    "a time that is none": {"started_at": "soon"},
    "a measure that nobody declared": {"val_charm": 0.5},
}


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_row_that_cannot_be_written_is_a_failed_trial_and_others_go_on(
    kind: str, recorder: Recorder
) -> None:
    bad, good = trials(2)
    recorder.started(bad)
    recorder.reported(bad, {"curve": [{"trial_id": bad.trial_id, "epoch": 1, "val_acc": 0.5}]})
    recorder.ended(bad, "done", {**bad.row(), **UNWRITABLE[kind]})
    finish(recorder, good)
    rows = as_pandas_reads(recorder, "trials").set_index("trial_id")
    (name,) = UNWRITABLE[kind]
    assert rows.loc[bad.trial_id, "status"] == "failed"
    assert f"its row cannot be written, for {name}=" in rows.loc[bad.trial_id, "error"]
    assert rows.loc[bad.trial_id, "model"] == "cnn" and rows.loc[good.trial_id, "status"] == "done"


def test_a_text_that_is_none_is_written_with_its_bytes_escaped(recorder: Recorder) -> None:
    (bad,) = trials(1)
    recorder.started(bad)
    recorder.ended(bad, "failed", {**bad.row(), "error": "RuntimeError: gr\udcf6\udcdfe"})
    (row,) = as_pandas_reads(recorder, "trials").to_dict("records")
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: gr\\udcf6\\udcdfe")


def test_an_epoch_that_cannot_be_written_loses_what_no_column_holds(recorder: Recorder) -> None:
    (bad,) = trials(1)
    recorder.started(bad)
    epoch = {"trial_id": bad.trial_id, "epoch": 1, "val_acc": "high", "train_loss": 0.5, "charm": 1}
    recorder.reported(bad, {"curve": [epoch]})
    recorder.ended(bad, "done", bad.row())
    (row,) = as_pandas_reads(recorder, "epochs").to_dict("records")
    assert (row["epoch"], row["train_loss"]) == (1, 0.5) and pd.isna(row["val_acc"])
