"""External tests, as `measure --highway-env`: which models they take, and that rows keep everything else."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnsweep.__main__ import main
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.plan import folders_of
from attnsweep.space.rerun import trial_of
from attnsweep.space.trials import make_trial
from attnsweep.tasks.driving.judging import stock
from attnsweep.tasks.driving.judging.closed_loop import Policy
from attnsweep.tasks.registry import build, resolve
from attnsweep.training import checkpoint
from attnsweep.training.trained import with_kept_weights

pytest.importorskip("highway_env")


@dataclasses.dataclass(frozen=True)
class Outcome:
    score: np.ndarray


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> list[Policy]:
    """The policies that are driven, in place of minutes in the environments."""
    policies: list[Policy] = []

    def score_stock(policy: Policy) -> Outcome:
        policies.append(policy)
        return Outcome(np.array([0.25, 0.75]))

    monkeypatch.setattr(stock, "score_stock", score_stock)
    return policies


def finished(results: Path, **point: Any) -> str:
    """Writes the rows of a finished trial; returns its id."""
    one = make_trial(resolve({"dataset": "driving:tiny", **point}), Path("nowhere"))
    store = Store(results)
    store.write("trials", [{**one.row(), "status": "done", "test_score": 0.5}], one.trial_id)
    store.write("driving", [{"trial_id": one.trial_id, "test_ttc": 0.9}], one.trial_id)
    return one.trial_id


def measured(results: Path, *more: str) -> int:
    return main(["measure", "--highway-env", "--results", str(results), *more])


def scores(results: Path) -> dict[str, float]:
    """Of the trials that have one."""
    rows = load(results, all_columns=True).dropna(subset="highway_env_score")
    return dict(zip(rows["trial_id"], rows["highway_env_score"], strict=True))


@pytest.mark.slow
def test_rules_and_planners_whose_weights_were_kept_are_driven_once(
    tmp_path: Path, driven: list[Policy]
) -> None:
    results = tmp_path / "results"
    rule = finished(results, model="stop")
    kept, lost = (finished(results, model="ego_mlp", dim=16, seed=seed) for seed in (0, 1))
    finished(results, model="expert")
    model = build(resolve({"model": "ego_mlp", "dim": 16, "dataset": "driving:tiny"}))
    checkpoint.write(model.state_dict(), checkpoint.weights_path(folders_of(results).checkpoints, kept))
    assert measured(results) == 0
    assert scores(results) == {rule: 0.5, kept: 0.5} and lost not in scores(results)
    rows = load(results, all_columns=True)
    assert (rows["test_ttc"] == 0.9).all() and (rows["test_score"] == 0.5).all()
    assert len(driven) == 2
    assert measured(results) == 2 and len(driven) == 2  # the one that is left has no weights


def test_without_weights_there_is_a_sentence(
    tmp_path: Path, driven: list[Policy], capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "results", model="ego_mlp", dim=16)
    assert measured(tmp_path / "results") == 2
    said = capsys.readouterr().err
    assert "run their sweep with keep_weights=True and another --results" in said and not driven


def test_it_drives_what_is_asked_for_and_again_where_that_is_asked_for(
    tmp_path: Path, driven: list[Policy]
) -> None:
    results = tmp_path / "results"
    stop, steady = finished(results, model="stop"), finished(results, model="steady")
    assert measured(results, "--where", "model == 'steady'") == 0 and set(scores(results)) == {steady}
    assert measured(results) == 0 and set(scores(results)) == {steady, stop} and len(driven) == 2
    assert measured(results, "--again", "--where", "model == 'stop'") == 0 and len(driven) == 3


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--batch", "8"], "--highway-env runs here and measures no latency; leave --batch out"),
        (["--address", "auto"], "leave --address out"),
        (["--where", "nonsense =="], "'nonsense ==' cannot be evaluated"),
        (["--where", ""], "'' cannot be evaluated"),
        (["--where", "model == 'vit'"], "no row satisfies"),
    ],
)
def test_an_option_that_means_nothing_is_refused(
    tmp_path: Path, driven: list[Policy], capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    finished(tmp_path / "results", model="stop")
    assert measured(tmp_path / "results", *more) == 2
    assert sentence in capsys.readouterr().err and not driven


def test_without_highway_env_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert measured(tmp_path / "results") == 2
    assert "pip install highway-env" in capsys.readouterr().err


def test_a_driven_planner_has_the_weights_that_were_kept(tmp_path: Path) -> None:
    results = tmp_path / "results"
    kept = finished(results, model="ego_mlp", dim=16)
    model = build(resolve({"model": "ego_mlp", "dim": 16, "dataset": "driving:tiny"}))
    checkpoint.write(model.state_dict(), checkpoint.weights_path(folders_of(results).checkpoints, kept))
    one = trial_of(load(results, all_columns=True).iloc[0], Path("nowhere"))
    loaded = with_kept_weights(one, folders_of(results).checkpoints)
    assert loaded is not None and not loaded.training
    for mine, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
