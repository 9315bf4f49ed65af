"""Results for other tools, read again by those tools."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_choice import sweep
from test_report import write_results

import attnsweep
from attnsweep.__main__ import main
from attnsweep.answers import exports, pareto


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
    exports.export("latex", frame, pd.DataFrame(), tmp_path / "t.tex")
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


def test_a_place_that_is_none_is_answered_in_a_sentence(results, tmp_path, capsys):
    assert main(["export-results", "csv", str(tmp_path / "no" / "r.csv"), "--results", results]) == 2
    assert "lies in no folder" in capsys.readouterr().err
    failed = pd.DataFrame(sweep().assign(status="failed"))
    with pytest.raises(attnsweep.UserError, match="no trial is done"):
        exports.export("latex", failed, pd.DataFrame(), Path(tmp_path / "t.tex"))
