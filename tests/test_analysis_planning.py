"""The figures of driving: which stages help, and a drive as a film."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from attnsweep.figures import episode
from attnsweep.figures import planning as script
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space import plan
from attnsweep.space.trials import make_trial
from attnsweep.tasks.driving.judging.score import Scores
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.stack.prediction import Agents, Prediction
from attnsweep.tasks.registry import build, resolve
from attnsweep.training.trial import Options, run

pytestmark = pytest.mark.slow

MAPS = 40


def row(model: str, scores: np.ndarray, *, seed: int = 0, **point: Any) -> dict[str, Any]:
    trial = make_trial(resolve({"model": model, "seed": seed, **point}), Path("nowhere"))
    quality = {"test_score": scores.mean(), "test_map_scores": json.dumps(scores.tolist())}
    quality |= {"test_at_fault": (scores == 0).mean(), "test_l2_3s": 2.0}
    return {**trial.row(), **quality, "status": "done", "device": "a CPU, 1 thread"}


def drives(share: float, seed: int = 0) -> np.ndarray:
    """Scores of 40 maps, so many of which are driven well."""
    return np.where(np.random.default_rng(seed).permutation(MAPS) < share * MAPS, 0.9, 0.0)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("results")
    rows = [row("planning", drives(0.8, seed), stages="id12", seed=seed) for seed in (0, 1, 2)]
    rows += [row("planning", np.maximum(drives(0.8, s) - 0.1, 0), stages="id10", seed=s) for s in (0, 1, 2)]
    rows += [row("planning", drives(0.5), stages="id10", dim=64)]
    rows += [row("expert", np.ones(MAPS)), row("route_following", drives(0.4))]
    for one in rows:
        Store(folder / "results").write_trial(one)
    return load(folder / "results")


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["planning.py", *map(str, arguments)])
    return script.main()


def test_sets_come_in_their_order_and_rules_after_them_the_best_first(frame: Any) -> None:
    names = [line.label for line in script.lines_of(frame, "id12")]
    assert names[:2] == ["id10: plan only, dim=32", "id10: plan only, dim=64"]
    assert names[2:] == ["id12: all", "expert (sees all)", "along the route, blind"]


def test_a_gain_is_the_difference_map_by_map_and_its_interval_leaves_out_what_maps_share(frame: Any) -> None:
    lines = {line.label: line for line in script.lines_of(frame, "id12")}
    gain, score = lines["id10: plan only, dim=32"].gain, lines["id10: plan only, dim=32"].score
    assert gain is not None and gain.mean == pytest.approx(-0.1 * 0.8)
    assert gain.high - gain.low < 0.3 * (score.high - score.low)
    assert lines["id12: all"].gain is None and lines["expert (sees all)"].gain is None
    assert len(lines["id12: all"].seeds) == 3


def test_the_interval_is_the_bootstraps_and_of_equal_scores_a_point() -> None:
    assert script.bootstrap(np.full(MAPS, 0.5)) == script.Interval(0.5, 0.5, 0.5)
    values = drives(0.5)
    found = script.bootstrap(values)
    deviation = values.std() / MAPS**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_results_without_drives_are_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = make_trial(resolve({"model": "cnn"}), Path("nowhere"))
    Store(tmp_path / "results").write("trials", [{**trial.row(), "status": "done"}], "one")
    assert called(monkeypatch, tmp_path / "results") == 2
    assert "has no done trial that drove; run sweeps/planning_quick.py" in capsys.readouterr().err
    there = row("planning", drives(0.5)) | {"dataset": "commonroad:/a"}
    Store(tmp_path / "results").write_trial(there)
    assert called(monkeypatch, tmp_path / "results", "--episode", there["trial_id"]) == 2
    assert "nobody can drive in recorded traffic" in capsys.readouterr().err


def test_an_episode_becomes_a_film_of_every_plan_and_a_strip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where, small = plan.folders_of(tmp_path / "results"), dict(dim=16, mlp_dim=16, heads=2, epochs=1)
    scenes.ensure(presets.find("driving:tiny"), tmp_path, processes=1)
    trial = make_trial(resolve({"model": "planning", "dataset": "driving:tiny", **small}), tmp_path)
    options = Options(data_dir=str(tmp_path), runs_dir=where.checkpoints, keep_weights=True)
    last = list(run(trial, options))[-1]
    Store(where.results).write_trial({**last["row"], "status": last["status"]})
    asked = (where.results, "--episode", trial.trial_id, "--data", tmp_path)
    draw_prediction, drawn = episode.draw_prediction, []
    monkeypatch.setattr(
        episode, "draw_prediction", lambda axes, *args: (drawn.append(args[1]), draw_prediction(axes, *args))
    )
    assert called(monkeypatch, *asked, "--map", 1) == 0
    strip = Image.open(tmp_path / f"figures/episode-{trial.trial_id}-1.png")
    film = Image.open(tmp_path / f"figures/episode-{trial.trial_id}-1.gif")
    assert film.n_frames == 27, "one for each half second from 1.5 s to 14.5 s"
    assert strip.width > 3 * film.width
    for one in ImageSequence.Iterator(film):
        pixels = np.asarray(one.convert("RGB"), dtype=int)
        near = np.abs(pixels - [0xD5, 0x5E, 0x00]).max(axis=2) < 12
        assert near.sum() > 50, "the ego and its plan are orange"
        assert (pixels[:, -8:] > 250).all(), "no text is cut off"
    assert set(drawn) == {last["row"]["test_f1_threshold"]}  # that of the trial's own detections
    assert called(monkeypatch, *asked, "--map", 2) == 2
    assert "--map 2 is out of range; use 0 to 1" in capsys.readouterr().err


def test_rules_and_the_expert_have_films_too_and_titles_say_what_went_wrong() -> None:
    outcomes = {}
    for model in ("expert", "stop"):
        config = resolve({"model": model, "dataset": "driving:tiny"})
        found = episode.episode(build(config), presets.find("driving:tiny"), 0, config, threshold=1.0)
        frames, outcomes[model] = found
        assert frames[0].time == 1.5 and frames[0].seen["bev"].any()
    assert outcomes["expert"].startswith("score 1.00") and outcomes["stop"] == "score 0.00, no progress"
    way = frames[0].prediction.plan
    assert torch.equal(way, torch.zeros(1, 8, 3))


def test_every_rule_that_is_broken_stands_in_the_title() -> None:
    fine = {field.name: np.ones(1) for field in dataclasses.fields(Scores)}
    fine |= {name: np.zeros(1, bool) for name in ("at_fault", "off_road", "ran_red", "rough", "wrong_route")}
    assert episode.events(Scores(**fine)) == []
    broken = {"ran_red": "red light run", "direction": "against traffic", "rough": "rough ride"}
    for name, word in broken.items():
        assert episode.events(Scores(**fine | {name: np.logical_not(fine[name])})) == [word]


def test_agents_below_the_threshold_are_not_drawn() -> None:
    box = torch.zeros(1, 4, 6) + torch.tensor([5.0, 0, 1, 0, 4, 2])
    agents = Agents(torch.logit(torch.tensor([[0.9, 0.7, 0.5, 0.1]])), box, torch.zeros(1, 4, 2), None)
    for threshold, count in ((0.05, 4), (0.6, 2), (0.95, 0)):
        axes = Figure().subplots()
        episode.draw_prediction(axes, Prediction(torch.zeros(1, 8, 3), agents=agents), threshold)
        assert len(axes.patches) == count
