import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import attnsweep
from attnsweep.cli.dry_run import dry_run
from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.engine import live
from attnsweep.engine.live import Live
from attnsweep.results.store import Row, Store
from attnsweep.space import plan
from attnsweep.space.estimate import ASSUMED_MACS_PER_S, MEASURE_S, START_S, Speed, work
from attnsweep.space.plan import Folders, Plan, folders_of, make_plan, refuse_invalid, state_of
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import expand, make_trial
from attnsweep.tasks.registry import AXES, resolve

WHERE = Folders("results", Path("runs"), Path("nowhere"))


def grid(*choices: object) -> dict[str, Any]:
    return {"grid_search": list(choices)}


DEPTHS = Sweep(model="vit", depth=grid(1, 2, 3), name="depths")


def trials_of(sweep: Sweep) -> list[Trial]:
    return expand(sweep.points(), WHERE.data)[0]


def planned(sweep: Sweep, rows: Sequence[Row]) -> Plan:
    return make_plan(sweep, expand(sweep.points(), WHERE.data), rows)


def rows_of(trials: Sequence[Trial], *statuses: str) -> list[Row]:
    return [
        {**trial.row(), "status": status, "train_s": 10.0}
        for trial, status in zip(trials, statuses, strict=False)
    ]


@pytest.fixture
def where(tmp_path: Path) -> Folders:
    return folders_of(tmp_path / "results", tmp_path / "data")


# Folders


def test_logs_lie_beside_the_results_and_never_inside(tmp_path: Path) -> None:
    assert folders_of(tmp_path / "results").runs == tmp_path / "runs"
    assert folders_of(f"{tmp_path}/results/").runs == tmp_path / "runs"
    assert folders_of(tmp_path / "mine").runs == tmp_path / "mine-runs"


@pytest.mark.parametrize("name", [".", "./", "below/..", "../results"])
def test_logs_lie_there_by_whatever_name_the_results_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "results" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "results")
    runs = folders_of(name).runs
    assert runs.parent.resolve() == tmp_path and runs.name == "runs"


def test_logs_of_results_in_a_bucket_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders_of("s3://bucket/prefix").runs == tmp_path / "prefix-runs"
    assert folders_of("s3://bucket/results").results == "s3://bucket/results"


def test_data_is_where_it_is_named_else_in_the_environment_else_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTNSWEEP_DATA", str(tmp_path / "environment"))
    assert folders_of(data="named").data == Path("named").absolute()
    assert folders_of(data="~/named").data == tmp_path / "named"
    assert folders_of().data == tmp_path / "environment"
    monkeypatch.delenv("ATTNSWEEP_DATA")
    assert folders_of().data == tmp_path / ".cache/attnsweep"


# What is new and what is done


def test_a_first_plan_is_all_new() -> None:
    made = planned(DEPTHS, [])
    assert made.name == "depths"
    assert made.new == list(made.trials) == trials_of(DEPTHS)
    assert made.invalid == ()


def test_a_plan_of_a_finished_sweep_has_nothing_new() -> None:
    rows = rows_of(trials_of(DEPTHS), "done", "done", "diverged")
    assert planned(DEPTHS, rows).new == []


def test_widening_a_finished_sweep_plans_only_the_new_cells() -> None:
    rows = rows_of(trials_of(DEPTHS), "done", "done", "done")
    wider = planned(DEPTHS.override({"depth": [1, 2, 3, 4]}), rows)
    assert [trial.config["depth"] for trial in wider.new] == [4]


@pytest.mark.parametrize(
    ("status", "scheduler", "state"),
    [
        ("done", None, "done"),
        ("done", "asha", "done"),
        ("diverged", None, "done"),
        ("diverged", "asha", "done"),
        ("failed", None, "new"),
        ("failed", "asha", "new"),
        ("stopped", None, "new"),
        ("stopped", "asha", "done"),
    ],
)
def test_a_trial_is_done_if_running_it_again_would_give_the_same_row(
    status: str, scheduler: str | None, state: str
) -> None:
    trials = trials_of(DEPTHS)
    states = state_of(trials, rows_of(trials, status), scheduler=scheduler)
    assert list(states.values()) == [state, "new", "new"]


def test_rows_of_other_sweeps_are_no_part_of_a_plan() -> None:
    others = rows_of(trials_of(Sweep(model="cnn")), "done")
    assert len(planned(DEPTHS, others).trials) == 3


def test_invalid_points_are_refused_with_up_to_three_reasons() -> None:
    refuse_invalid(planned(DEPTHS, []).invalid)
    two = planned(Sweep(model="vit", patch_size=grid(2, 3, 5), seed=grid(0, 1)), [])
    with pytest.raises(UserError) as caught:
        refuse_invalid(two.invalid)
    reasons = str(caught.value).split("; patch_size")
    assert len(two.invalid) == 4 and len(reasons) == 2
    many = planned(Sweep(model="vit", patch_size=grid(3, 5, 6, 7, 9)), [])
    with pytest.raises(UserError, match=r"\(and 2 more reasons: --dry-run lists them\)$"):
        refuse_invalid(many.invalid)


# What a plan warns of


def test_a_plan_names_the_trials_that_did_no_better_than_chance(
    where: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 144 images that validate, a tenth are right by chance; two standard errors are another 0.05."""
    trials = trials_of(DEPTHS)
    rows = rows_of(trials, "done", "done", "done")
    for row, reached in zip(rows, (0.1, 0.149, 0.151), strict=True):
        row["val_acc"] = reached
    made = planned(DEPTHS, rows)
    assert [one.config["depth"] for one in made.at_chance] == [1, 2]
    Store(where.results).write("trials", rows, "all")
    dry_run(DEPTHS, where, as_json=False, out=sys.stdout)
    text = capsys.readouterr().out
    assert "no better than chance on validation: vit depth=1, vit depth=2; train longer" in text
    assert "digits: 1,294 images to train on, 144 for validation, 359 for the test" in text


def test_a_plan_of_new_or_failed_trials_or_of_other_tasks_warns_of_no_chance() -> None:
    assert planned(DEPTHS, rows_of(trials_of(DEPTHS), "failed", "diverged")).at_chance == ()
    sequences = Sweep(model="transformer", dataset="sort")
    rows = [row | {"val_acc": 0.0} for row in rows_of(trials_of(sequences), "done")]
    assert planned(sequences, rows).at_chance == ()


# Time


def trial(model: str, **point: object) -> Trial:
    return make_trial(resolve({"model": model, **point}), WHERE.data)


def test_work_grows_with_epochs_images_and_arithmetic() -> None:
    one = trial("vit", epochs=1)
    assert work(one) >= one.macs * 1438
    assert work(trial("vit", epochs=7)) == pytest.approx(7 * work(one))
    assert work(trial("vit", epochs=1, num_classes=1000)) > work(one)
    assert work(trial("vit", epochs=1, dataset="mnist")) > 30 * work(one)


def test_without_a_finished_trial_the_time_is_assumed() -> None:
    speed = Speed()
    assert not speed.observed
    assert speed.estimate([trial("vit")]) == pytest.approx(work(trial("vit")) / ASSUMED_MACS_PER_S)


def test_a_finished_trial_tells_how_long_its_like_will_take() -> None:
    speed = Speed()
    speed.observe(trial("vit", epochs=2), 10)
    assert speed.observed
    assert speed.estimate([trial("vit", epochs=2)]) == pytest.approx(10)
    assert speed.estimate([trial("vit", epochs=4), trial("vit", epochs=2)]) == pytest.approx(30)


def test_each_model_has_a_speed_of_its_own_and_an_unseen_one_goes_by_the_others() -> None:
    speed, vit, cnn, hybrid = Speed(), trial("vit"), trial("cnn"), trial("hybrid")
    speed.observe(vit, 10)
    speed.observe(cnn, 100)
    assert speed.estimate([vit]) == pytest.approx(10)
    assert speed.estimate([cnn]) == pytest.approx(100)
    assert speed.estimate([hybrid]) == pytest.approx(110 * work(hybrid) / (work(vit) + work(cnn)))


def test_a_part_of_a_trial_counts_as_that_part() -> None:
    speed = Speed()
    speed.observe(trial("vit"), 10, share=0.25)
    assert speed.estimate([trial("vit")]) == pytest.approx(40)


def test_a_plan_learns_from_done_trials_only() -> None:
    rows = rows_of(trials_of(DEPTHS), "failed", "done")
    speed = planned(DEPTHS, rows).speed
    assert speed.estimate([trials_of(DEPTHS)[1]]) == pytest.approx(10)
    assert not planned(DEPTHS, rows[:1]).speed.observed


# The live table


def test_what_is_left_follows_every_event_to_the_same_sums(where: Folders) -> None:
    """It is summed up event by event; here once more over all trials."""
    made, chance = planned(Sweep(model=grid("vit", "cnn"), seed=grid(*range(10))), []), random.Random(0)
    live = Live(Console(quiet=True), made, slots=2)
    for trial in made.new:
        live.started(trial)
    for _ in range(100):
        trial = chance.choice(made.new)
        live.advanced(trial.trial_id, chance.random())
    for trial in made.new[:5]:
        live.ended(trial.trial_id, {**trial.row(), "status": "done"})
    assert live.shares == pytest.approx(sum(live.left.values()))
    seconds = sum(live.speed.estimate([trial]) * live.left[trial.trial_id] for trial in made.new)
    assert live.speed.estimate_work(live.work) == pytest.approx(seconds)


# The dry run


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Standard output, which must be JSON and nothing else."""
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def test_a_dry_run_in_json_is_one_object_per_trial(
    where: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = trials_of(DEPTHS)
    Store(where.results).write("trials", rows_of(trials, "done"), "one")
    assert dry_run(DEPTHS, where, as_json=True, out=sys.stdout) == 0
    assert lines(capsys) == [
        {**trial.row(), "status": status, "reason": None}
        for trial, status in zip(trials, ("done", "new", "new"), strict=True)
    ]


def test_a_dry_run_in_json_says_why_a_point_is_invalid(
    where: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(model="vit", patch_size=grid(2, 3), lr=1e-3)
    assert dry_run(sweep, where, as_json=True, out=sys.stdout) == 2
    valid, invalid = lines(capsys)
    assert valid["status"] == "new"
    assert valid.keys() - {"data_sha256", "images_skipped", "numerics"} == invalid.keys()
    assert invalid["status"] == "invalid"
    assert invalid["reason"].startswith("patch_size=3 does not divide")
    assert (invalid["model"], invalid["patch_size"], invalid["lr"], invalid["depth"]) == (
        "vit",
        3,
        1e-3,
        None,
    )
    assert [invalid[key] for key in ("trial_id", "arch_id", "params", "macs")] == [None] * 4


@pytest.mark.parametrize("value", [2.5, "x", (1, 2), 1j, None, object()])
def test_any_invalid_value_fits_into_json(
    where: Folders, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    assert (
        dry_run(Sweep(model="cnn", batch_size=grid(value), epochs=0), where, as_json=True, out=sys.stdout)
        == 2
    )
    assert set(AXES) < lines(capsys)[0].keys()


def test_an_invalid_number_is_json_that_any_reader_takes(
    where: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(Sweep(model="vit", lr=float("nan")), where, as_json=True, out=sys.stdout)
    json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_dry_run_for_people_says_how_many_trials_what_they_cost_and_how_long(
    where: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(model="vit", depth=grid(1, 2), patch_size=grid(2, 3), name="mine")
    Store(where.results).write("trials", rows_of(trials_of(sweep), "done"), "one")
    assert dry_run(sweep, where, as_json=False, out=sys.stdout) == 2
    text = capsys.readouterr().out
    assert "mine: 4 trials (1 new, 1 done, 2 invalid)" in text
    assert "invalid (2): patch_size=3 does not divide" in text
    assert "going by the trials in the results" in text
    for one in trials_of(sweep):
        assert one.trial_id in text and f"{one.params:,}" in text


def test_a_dry_run_writes_nothing(where: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry_run(DEPTHS, where, as_json=False, out=sys.stdout)
    assert "3 new" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_divides_by_the_trials_that_run_at_a_time(
    where: Folders, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(plan.Speed, "estimate", lambda self, trials: 90.0)
    dry_run(
        Sweep(model="vit", depth=grid(1, 2, 3), resources={"cpu": 4}), where, as_json=False, out=sys.stdout
    )
    assert "about 45 s at 2 trials at a time" in capsys.readouterr().out


def test_the_estimate_includes_the_start_and_the_measuring_of_latency(
    where: Folders, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six trials of three architectures, of which one is done."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(plan.Speed, "estimate", lambda self, trials: 10.0 * len(list(trials)))
    sweep = Sweep(model="vit", depth=grid(1, 2, 3), seed=grid(0, 1))
    Store(where.results).write("trials", rows_of(trials_of(sweep)[:2], "done", "done"), "one")
    dry_run(sweep, where, as_json=False, out=sys.stdout)
    whole = START_S + 20 + 2 * MEASURE_S
    assert f"in all about {whole:.0f} s: start, about 20 s at 2" in (out := capsys.readouterr().out)
    assert "then latency of 2 architectures" in out
    dry_run(sweep, where, as_json=False, out=sys.stdout, latency=False)
    assert f"in all about {START_S + 20:.0f} s: start" in (out := capsys.readouterr().out)
    assert "latency of" not in out


@pytest.mark.parametrize("is_terminal", [False, True])
def test_each_phase_shows_how_far_it_is(is_terminal: bool) -> None:
    screen = Console(file=io.StringIO(), force_terminal=is_terminal, width=120)
    with live.counting_and_waiting(screen, "latency") as (advance, show):
        advance(1, 4)
        advance(2, 4)
        show("waiting for room")
        time.sleep(0.3)
    out = screen.file.getvalue()  # type: ignore[attr-defined]
    if is_terminal:
        assert "2/4" in out and "0:00:00" in out and "waiting for room" in out
    else:
        assert out == "  latency: 1/4\n  latency: 2/4\n"


class CellOutput(io.StringIO):
    """Standard output as ipykernel has it: no file, but it says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.slow
def test_a_notebook_gets_few_plain_lines_and_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what ipykernel sets in the environment."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    monkeypatch.setattr(sys, "stdout", out := CellOutput())
    sweep = Sweep(model="cnn", epochs=1, batch_size=500, seed=grid(0, 1), name="mine")
    print("before")
    rows = attnsweep.run(sweep, tmp_path / "results", serial=True, latency=False)
    print("after")
    text = out.getvalue()
    assert "\x1b" not in text and "\r" not in text and len(rows) == 2
    lines = text.splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and len(lines) < 16
    assert sum(line.startswith(("1/2 cnn", "2/2 cnn")) for line in lines) == 2


@pytest.mark.slow
@pytest.mark.parametrize("words", [("columns",), ("doctor",), ("s.py", "--dry-run"), ("--help",)])
def test_colours_that_somebody_forces_are_not_for_pipes(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "s.py").write_text("from attnsweep import Sweep\nsweep = Sweep(model='cnn')\n")
    environment = {**os.environ, "FORCE_COLOR": "1", "PYTHONPATH": str(Path(attnsweep.__file__).parents[1])}
    command = [sys.executable, "-m", "attnsweep", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
