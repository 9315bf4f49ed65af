"""Results for other tools, read again by those tools."""

import errno
import os
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_choice import sweep
from test_report import write_results

import attnsweep
from attnsweep.__main__ import main
from attnsweep.answers import pareto
from attnsweep.answers.exports import places
from attnsweep.answers.exports.forms import export


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_results(tmp_path_factory.mktemp("exports") / "results", sweep())


def test_csv_holds_every_trial_as_it_is(results, tmp_path, capsys):
    assert main(["export-results", "csv", str(tmp_path / "r.csv"), "--results", results]) == 0
    assert "12 trials" in capsys.readouterr().out
    read, own = pd.read_csv(tmp_path / "r.csv", dtype={"trial_id": str}), attnsweep.load(results)
    assert read["trial_id"].tolist() == own["trial_id"].tolist()
    assert np.allclose(read["val_acc"], own["val_acc"]) and "test_right" not in read


@pytest.mark.slow
def test_latex_has_a_line_per_setting_and_no_name_is_read_as_a_command(tmp_path):
    frame = sweep().assign(model="a_b&c%\\input{x}$")
    export("latex", frame, pd.DataFrame(), tmp_path / "t.tex")
    text = (tmp_path / "t.tex").read_text()
    assert text.count(r" \\") == 5 and r"a\_b\&c\%\textbackslash{}input\{x\}\$ depth=4" in text
    assert "3 seeds)" in text and r"98.0 \%" in text


@pytest.mark.slow
def test_the_best_trials_of_the_optuna_study_are_the_front(results, tmp_path):
    optuna = pytest.importorskip("optuna", reason="Optuna is not installed")
    place = tmp_path / "study.db"
    assert main(["export-results", "optuna", str(place), "--results", results]) == 0
    for cost in ("latency_ms_p50", "params"):
        study = optuna.load_study(study_name=f"mnist {cost}", storage=f"sqlite:///{place}")
        ours = attnsweep.front(pareto.over_seeds(attnsweep.load(results)), cost)
        assert {one.user_attrs["trial_id"] for one in study.best_trials} == set(ours["trial_id"])
        assert {one.params["depth"] for one in study.trials} == {1, 2, 3, 4}
        assert study.metric_names == [cost, "val_acc"]
    assert main(["export-results", "optuna", str(place), "--results", results]) == 2


@pytest.mark.slow
def test_tensorboard_reads_the_learning_curves(results, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    assert main(["export-results", "tensorboard", str(tmp_path / "tb"), "--results", results]) == 0
    runs = sorted(path.name for path in (tmp_path / "tb").iterdir())
    assert runs == sorted(attnsweep.load(results)["trial_id"])
    reader = accumulator.EventAccumulator(str(tmp_path / "tb" / runs[0]))
    reader.Reload()
    own = attnsweep.load(results, "epochs").query(f"trial_id == '{runs[0]}'")
    curve = reader.Scalars("val_acc")
    assert [one.step for one in curve] == own["epoch"].tolist()
    assert [one.value for one in curve] == pytest.approx(own["val_acc"].tolist())


@pytest.mark.slow
def test_mlflow_reads_every_trial_with_its_curve_and_its_end(tmp_path):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install attnsweep[mlflow]")
    frame = sweep().assign(started_at=pd.Timestamp("2026-01-02", tz="UTC"))
    frame.loc[0, ["status", "error", "test_acc", "val_acc"]] = ["failed", "MemoryError: no room", None, None]
    results = write_results(tmp_path / "results", frame)
    place = tmp_path / "m.db"
    assert main(["export-results", "mlflow", str(place), "--results", results]) == 0
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}")
    experiment = client.get_experiment_by_name("mnist")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    own = attnsweep.load(results, status=None).set_index("trial_id")
    assert runs.keys() == set(own.index)
    for trial, run in runs.items():
        assert run.data.params == {"depth": f"{own.depth[trial]:.0f}", "seed": f"{own.seed[trial]}"}
        assert run.info.start_time == 1767312000000
    lost, done = (runs[f"{i:012x}"] for i in (0, 1))
    assert (lost.info.status, lost.data.tags["error"]) == ("FAILED", "MemoryError: no room")
    assert done.info.status == "FINISHED"
    assert done.data.metrics["result/test_acc"] == own.test_acc[done.info.run_name]
    curve = attnsweep.load(results, "epochs").query(f"trial_id == '{done.info.run_name}'")
    history = client.get_metric_history(done.info.run_id, "val_acc")
    assert [(one.step, one.value) for one in history] == list(
        zip(curve["epoch"], curve["val_acc"], strict=True)
    )


@pytest.mark.slow
def test_mlflow_takes_odd_names_long_texts_and_leaves_out_what_is_no_number(tmp_path, caplog):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install attnsweep[mlflow]")
    from mlflow import MlflowClient

    names = ["Default", "", "d" * 600]  # the first is there already, of the last 500 are taken
    frame = sweep().assign(dataset=np.repeat(names, 4), optimizer=["o" * 9000, None] * 6, val_acc=np.inf)
    assert export("mlflow", frame, pd.DataFrame(), tmp_path / "m.db") == "12 runs"
    client = MlflowClient(f"sqlite:///{tmp_path / 'm.db'}")
    found = {one.name: one.experiment_id for one in client.search_experiments()}
    assert found.keys() == {"Default", "?", "d" * 500}
    for run in client.search_runs([found["Default"]]):
        assert run.data.metrics.keys() == {"result/test_acc", "result/params", "result/latency_ms_p50"}
        assert len(run.data.params.get("optimizer", "")) in (0, 6000)
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize("form", ["optuna", "tensorboard", "mlflow"])
def test_what_others_may_have_written_into_is_left_alone(results, tmp_path, capsys, form):
    pytest.importorskip({"tensorboard": "tensorboardX"}.get(form, form))
    place = tmp_path / "notes.txt"
    place.write_text("mine")
    assert main(["export-results", form, str(place), "--results", results]) == 2
    assert "is there already" in capsys.readouterr().err and place.read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["latex", "optuna"])
def test_latencies_of_two_devices_are_left_out_and_that_is_said(tmp_path, form):
    pytest.importorskip("optuna", reason="Optuna is not installed")
    frame = sweep().assign(measured_on=["cpu", "gpu"] * 6)  # of seeds of one setting, too
    said = export(form, frame, pd.DataFrame(), tmp_path / "out")
    assert "latency_ms_p50 is left out: rows that differ in measured_on" in said
    assert said.startswith({"latex": "4 settings", "optuna": "1 study: mnist params"}[form])


@pytest.mark.parametrize("form", ["csv", "latex"])
def test_a_link_or_a_pipe_at_the_place_is_replaced_and_not_followed(results, tmp_path, form):
    thesis, link, pipe = tmp_path / "thesis", tmp_path / "link", tmp_path / "pipe"
    thesis.write_text("mine")
    link.symlink_to(thesis)
    os.mkfifo(pipe)
    for place in (link, pipe):
        assert main(["export-results", form, str(place), "--results", results]) == 0
        assert place.is_file() and not place.is_symlink() and place.stat().st_size > 100
    assert thesis.read_text() == "mine"


def test_a_device_is_no_place_for_an_export(results, capsys):
    assert main(["export-results", "csv", "/dev/stdout", "--results", results]) == 2
    assert "/dev/stdout cannot be written (a device is no place for a file)" in capsys.readouterr().err
    assert Path("/dev/stdout").is_symlink()


def test_a_place_that_is_none_is_answered_in_a_sentence(results, tmp_path, capsys):
    assert main(["export-results", "csv", str(tmp_path / "no" / "r.csv"), "--results", results]) == 2
    assert "lies in no folder" in capsys.readouterr().err
    assert main(["export-results", "csv", str(tmp_path / ("r" * 300)), "--results", results]) == 2
    assert "File name too long" in capsys.readouterr().err
    failed = pd.DataFrame(sweep().assign(status="failed"))
    with pytest.raises(attnsweep.UserError, match="no trial is done"):
        export("latex", failed, pd.DataFrame(), Path(tmp_path / "t.tex"))
    with pytest.raises(attnsweep.UserError, match="no done trial has both a cost and a quality"):
        export("optuna", failed, pd.DataFrame(), Path(tmp_path / "t.db"))


@pytest.mark.parametrize("form", ["csv", "tensorboard"])
def test_a_folder_is_no_file_and_a_link_to_one_is_followed_on_the_way_alone(results, tmp_path, capsys, form):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    for place in (folder, link):
        assert main(["export-results", form, str(place), "--results", results]) == 2
        assert {"csv": "is a folder; name a file in it"}.get(form, "is there") in capsys.readouterr().err
    assert link.is_symlink()
    assert main(["export-results", form, str(link / "out"), "--results", results]) == 0
    assert (folder / "out").exists()


def test_a_scratch_disk_that_is_full_is_said_whatever_error_a_library_makes_of_it(tmp_path):
    with pytest.raises(attnsweep.UserError, match=r"no database .* \(database or disk is full\); set TMPDIR"):
        with places.database(tmp_path / "m.db"):
            try:
                raise sqlite3.OperationalError("database or disk is full")
            except sqlite3.OperationalError as error:
                raise RuntimeError("a library's own") from error
    with pytest.raises(KeyError), places.database(tmp_path / "m.db"):
        raise KeyError
    assert not (tmp_path / "m.db").exists()


def test_a_folder_that_does_not_become_whole_is_not_left(tmp_path, monkeypatch):
    """As on a full disk."""
    copied = []

    def until_full(source, target):
        if copied:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(target.write_bytes(source.read_bytes()))

    monkeypatch.setattr(places.shutil, "copyfile", until_full)
    with pytest.raises(OSError, match="No space left"), places.folder(tmp_path / "out") as scratch:
        for name in ("a", "b"):
            (scratch / name).mkdir()
            (scratch / name / "events").write_text("x")
    assert copied and not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["latex", "optuna"])
def test_rows_of_other_data_are_refused_where_they_would_be_compared(tmp_path, form):
    pytest.importorskip("optuna", reason="Optuna is not installed")
    with pytest.raises(attnsweep.UserError, match="differ in data_sha256"):
        export(form, sweep().assign(data_sha256=["d", "e"] * 6), pd.DataFrame(), tmp_path / "out")


def test_a_row_without_a_data_set_is_exported_too(tmp_path):
    said = export("latex", sweep().assign(dataset=None), pd.DataFrame(), tmp_path / "t.tex")
    assert said == "4 settings" and "? & vit depth=4" in (tmp_path / "t.tex").read_text()
