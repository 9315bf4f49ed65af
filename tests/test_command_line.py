"""The command line without Ray: plans, looking into results, and what it says to nonsense."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attnsweep import Sweep
from attnsweep.__main__ import main
from attnsweep.cli.commands import COMMANDS
from attnsweep.cli.doctor import store_findings
from attnsweep.core import terminal
from attnsweep.core.errors import did_you_mean
from attnsweep.results.schema import TABLES
from attnsweep.results.store import Store
from attnsweep.space.files import read_sweep
from attnsweep.space.plan import folders_of
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import AXES, resolve

from commands import PATIENCE_S

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes, image_size, width=3):
        super().__init__(nn.Flatten(), nn.Linear(image_size**2, width), nn.Linear(width, num_classes))
"""
HEAD = "from ray import tune\nfrom attnsweep import Sweep\n"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNSWEEP_DATA", raising=False)


def sweep_file(body: str, *, head: str = HEAD) -> str:
    Path("s.py").write_text(head + body)
    return "s.py"


def finish_trial(**point: object) -> dict[str, object]:
    """Writes a done row for a point, as a sweep would; returns it."""
    trial = make_trial(resolve(point), Path("nowhere"))
    done = {"status": "done", "sweep": "s", "val_acc": 0.9, "test_acc": 0.8, "train_s": 3.5, "attempts": 1}
    row = {**trial.row(), **done, "finished_at": datetime.now(UTC), "latency_ms_p50": 1.0, "latency_batch": 1,
           "measured_on": "a CPU"}  # fmt: skip
    store = Store("results")
    store.write("trials", [row], trial.trial_id)
    store.write("epochs", [{"trial_id": trial.trial_id, "epoch": 1, "val_acc": 0.9}], trial.trial_id)
    return row


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    ("body", "sentences"),
    [
        ("", ["defines no variable `sweep`", "sweep = Sweep("]),
        ("sweep = 7", ["sets sweep to a int"]),
        ("sweep = Sweep(model='vit'", ["s.py:3", "SyntaxError"]),
        ("1 / 0", ["s.py:3", "ZeroDivisionError"]),
        ("raise SystemExit(0)", ["s.py:3", "SystemExit"]),
        ("sweep = Sweep(model='vit', dephts=3)", ["'dephts' is not a key", "did you mean 'depth'?"]),
        ("sweep = Sweep(model='vitt')", ["model='vitt' is unknown", "did you mean 'vit'?"]),
        ("sweep = Sweep(model='vit', dataset='minst')", ["dataset='minst' is unknown", "mnist"]),
        ("sweep = Sweep(depth=3)", ["no model"]),
        ("sweep = Sweep(model='vit', depth=tune.grid_search([]))", ["depth: the grid is empty"]),
        ("sweep = Sweep(model='vit', depth=[1, 2])", ["tune.grid_search([1, 2])"]),
        ("sweep = Sweep(model='vit', depth='six')", ["depth='six' is not a whole number"]),
        ("sweep = Sweep(model='vit', lr=-1)", ["lr=-1 is out of range", "above 0"]),
        ("sweep = Sweep(model='vit', dropout=1.5)", ["dropout=1.5 is out of range"]),
        ("sweep = Sweep(model='vit', patch_size=3)", ["patch_size=3 does not divide", "use 2, 4, 8"]),
        ("sweep = Sweep(model='vit', resources={'gpu': -1})", ["gpu=-1 is out of range"]),
        ("sweep = Sweep(model='vit', resources=3)", ["resources=3 is not a dict"]),
        ("sweep = Sweep(model='vit', num_samples=0)", ["num_samples=0 is out of range"]),
        ("sweep = Sweep(model='vit', scheduler='hyperband')", ["scheduler='hyperband' is unknown"]),
        ("sweep = Sweep([3])", ["a dict, or a list of dicts"]),
        ("sweep = Sweep(model='vit', dataset='folder:nowhere')", ["nowhere is not a folder"]),
    ],
)
@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_a_bad_sweep_is_refused_before_anything_starts(
    body: str, sentences: list[str], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, sweep_file(body), *flags)
    assert status == 2
    for sentence in sentences:
        assert sentence in out + err
    assert "Traceback" not in out + err
    assert not Path("results").exists()


def test_a_missing_sweep_file_is_named_with_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("depth.py").touch()
    status, _, err = said(capsys, "dept.py")
    assert (status, err) == (2, "attnsweep: there is no sweep file dept.py, did you mean 'depth.py'?\n")


@pytest.mark.parametrize("override", ["depth", "depth=", "depht=3", "depth=abc", "channels=3"])
def test_a_bad_override_is_refused(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, sweep_file("sweep = Sweep(model='vit')"), override, "--dry-run")
    assert status == 2 and override.partition("=")[0] in out + err


def test_data_that_is_neither_here_nor_to_be_had_is_named_with_folder_and_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    def no_network(*_: object, **__: object) -> None:
        raise RuntimeError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", no_network)
    status, _, err = said(capsys, sweep_file("sweep = Sweep(model='cnn', dataset='mnist')"), "--data", "here")
    assert status == 2 and len(err.splitlines()) == 1
    for part in (
        str(Path("here").absolute()),
        "MNIST/raw/train-images-idx3-ubyte",
        "--data",
        "Name or service",
    ):
        assert part in err


def test_json_of_a_dry_run_has_one_object_per_trial_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = finish_trial(model="vit", depth=2, epochs=1)
    grids = "depth=tune.grid_search([2, 3]), patch_size=tune.grid_search([2, 3])"
    body = f"sweep = Sweep(model='vit', epochs=1, {grids})"
    status, out, _ = said(capsys, sweep_file(body), "--dry-run", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["status"] for line in lines] == ["done", "new", "invalid", "invalid"] and status == 2
    assert lines[0]["trial_id"] == done["trial_id"] and lines[2]["trial_id"] is None
    assert "patch_size=3 does not divide" in lines[2]["reason"] and lines[0]["reason"] is None
    wanted = {"trial_id", "arch_id", "status", "reason", "params", "macs", *AXES}
    assert all(wanted <= set(line) for line in lines)
    assert lines[1]["depth"] == 3 and lines[1]["params"] > lines[0]["params"]


@pytest.mark.slow
def test_what_a_users_files_print_does_not_come_between_the_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("net.py").write_text("print('a model')\n" + NET)
    width = "tune.sample_from(lambda: print('drawn') or 4)"
    body = f"print('a sweep')\nsweep = Sweep(model='net.py:Net', width={width})"
    status, out, err = said(capsys, sweep_file(body), "--dry-run", "--json")
    assert status == 0 and [json.loads(line)["status"] for line in out.splitlines()] == ["new"]
    assert all(words in err for words in ("a sweep", "a model", "drawn"))


def test_nor_what_programs_say_that_a_users_files_start(capfd: pytest.CaptureFixture[str]) -> None:
    file = sweep_file("import os\nos.system('echo a program')\nsweep = Sweep(model='cnn')")
    assert main([str(file), "--dry-run", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["status"] == "new" and "a program" in err


@pytest.mark.parametrize("value", ["0", "-3", "soon", "inf", "true"])
def test_a_limit_for_trials_is_a_number_of_seconds(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file("sweep = Sweep(model='cnn')")
    status, _, err = said(capsys, file, f"trial_timeout={value}", "--dry-run")
    assert status == 2 and "trial_timeout=" in err and "seconds above 0" in err
    assert said(capsys, file, "trial_timeout=90", "--dry-run")[0] == 0


def test_a_limit_for_trials_changes_no_id() -> None:
    one, other = (read_sweep(sweep_file("sweep = Sweep(model='cnn')")), Sweep(model="cnn", trial_timeout=3))
    assert [list(sweep.points()) for sweep in (one, other)] == [[{"model": "cnn"}]] * 2
    assert other.override({"seed": [1]}).trial_timeout == 3


def test_a_dry_run_says_what_is_new_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    finish_trial(model="cnn", epochs=1)
    status, out, _ = said(capsys, sweep_file("sweep = Sweep(model='cnn', epochs=1)"), "seed=0,1", "--dry-run")
    assert status == 0
    assert "s: 2 trials (1 new, 1 done)" in out and "about" in out and "53,002" in out
    assert not Path("runs").exists()


@pytest.mark.slow
def test_ten_thousand_trials_are_planned_in_one_go(capsys: pytest.CaptureFixture[str]) -> None:
    body = "sweep = Sweep(model='vit', seed=tune.grid_search(list(range(10_000))))"
    status, out, _ = said(capsys, sweep_file(body), "--dry-run", "--json")
    assert status == 0 and len(out.splitlines()) == 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        dict(model="vit", depth=2, lr=3e-4, dropout=0.0),
        dict(model="transformer", dataset="sort", heads=2, beam=3),
        dict(model="cait", attention="fused"),
        dict(model="net.py:Net", width=7),
    ],
    ids=lambda point: point["model"],
)
def test_show_prints_every_known_column_the_curve_and_a_line_that_reruns_the_same_trial(
    point: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.py").write_text(NET)
    row = finish_trial(**point)
    status, out, _ = said(capsys, "show", str(row["trial_id"])[:6])
    assert status == 0 and "val_acc              0.9" in out and "a CPU" in out
    line = next(line for line in out.splitlines() if line.startswith("run it again: "))
    code = line.partition("attnsweep.run(")[2].rpartition(", results=")[0]
    from attnsweep.space import sweep as module
    from attnsweep.space.trials import expand

    again = eval(code, {"attnsweep": type("names", (), {"Sweep": module.Sweep})})
    assert expand(again.points(), Path("nowhere"))[0][0].trial_id == row["trial_id"]


@pytest.mark.parametrize("name", ["folder:images", "commonroad:traffic"])
def test_show_needs_no_data(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A colleague looks at results whose images lie elsewhere."""
    images = fill(Path("images"))
    row = finish_trial(model="cnn", dataset="folder:images", image_size=40, epochs=2)
    images.rename("gone")
    if name != "folder:images":
        Store("results").update_trials({str(row["trial_id"]): {"dataset": f"{name}", "task": "driving"}})
    status, out, err = said(capsys, "show", str(row["trial_id"]))
    assert (status, err) == (0, "")
    assert f"dataset              {row['dataset'] if name == 'folder:images' else name}" in out
    line = out.splitlines()[-1]
    assert line.startswith("run it again: python -c") and "epochs=2" in line
    if name == "folder:images":
        assert "image_size=40" in line and "num_classes=2" in line


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": None}, "task=nan, model='cnn', dataset='digits'"),
        ({"model_args": "[" * 5000}, "is not JSON"),
    ],
)
def test_show_shows_rows_of_somebody_else_and_says_why_they_cannot_be_run(
    changes: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = finish_trial(model="cnn")
    Store("results").update_trials({str(row["trial_id"]): {**changes, "train_s": math.inf}})
    status, out, err = said(capsys, "show", str(row["trial_id"]))
    assert (status, err) == (0, "") and "train_s              inf s" in out
    assert "it cannot be run again from here: " in out and reason in out.splitlines()[-1]


def fill(root: Path) -> Path:
    """A folder of two classes, ten images each."""
    for label in ("cats", "dogs"):
        (root / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(root / f"{label}/{i}.png")
    return root


def test_an_image_that_cannot_be_read_ends_a_dry_run_unless_it_is_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (fill(Path("images")) / "cats/3.png").write_bytes(b"torn")
    body = sweep_file("sweep = Sweep(model='cnn', dataset='folder:images')")
    status, out, err = said(capsys, body, "--dry-run")
    assert (status, out) == (2, "") and "1 of 20 images cannot be read: cats/3.png" in err
    assert said(capsys, body, "--dry-run", "--json")[0] == 2
    status, out, err = said(capsys, body, "--dry-run", "--skip-unreadable")
    assert (status, err) == (0, "") and "left out, as they cannot be read: 1 image, cats/3.png" in out
    status, out, _ = said(capsys, body, "--dry-run", "--skip-unreadable", "--json")
    (one,) = map(json.loads, out.splitlines())
    assert (status, one["unreadable"], one["images_skipped"], one["num_classes"]) == (0, "skip", 1, 2)


@pytest.mark.slow
def test_show_names_a_trial_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    finish_trial(model="cnn")
    assert said(capsys, "show", "zzz")[0] == 2
    assert said(capsys, "show", "")[0] == 0, "one trial: its id begins with nothing"
    finish_trial(model="cnn", seed=1)
    status, _, err = said(capsys, "show", "")
    assert status == 2 and "the beginning of 2 ids" in err


@pytest.mark.slow
def test_pick_prints_the_best_under_a_budget_or_says_what_it_would_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish_trial(model="cnn")
    status, out, _ = said(capsys, "pick", "--params", "1e5", "--latency-ms", "2")
    assert status == 0 and "cnn" in out
    status, _, err = said(capsys, "pick", "--params", "10")
    assert status == 2 and "53002" in err


@pytest.mark.slow
def test_columns_describes_every_column_of_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "columns")
    assert status == 0
    assert all(column.name in out for columns in TABLES.values() for column in columns)
    assert all(column.meaning for columns in TABLES.values() for column in columns)


@pytest.mark.parametrize("arguments", [["show", "abc"], ["pick"], ["measure"]])
def test_where_there_are_no_results_the_way_to_get_some_is_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = said(capsys, *arguments)
    assert status == 2 and "no results in results" in err and "new quickstart" in err


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    body = sweep_file("sweep = Sweep(model='cnn', epochs=1)")
    command = [sys.executable, "-m", "attnsweep", body, "--address", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2, done.stderr
    assert "no Ray cluster answers at address='127.0.0.1:1'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_results_where_nothing_can_be_written_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    status, _, err = said(capsys, sweep_file("sweep = Sweep(model='cnn')"), "--results", "file/results")
    assert status == 2 and "file/results" in err


def test_json_without_dry_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(capsys, sweep_file("sweep = Sweep(model='cnn')"), "--json")
    assert status == 2 and "--dry-run" in err


# What a newcomer types first


def test_the_bare_command_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == "" and all(f"python -m attnsweep {name} " in out for name in COMMANDS)
    assert "plot [RESULTS] " in out and "show ID " in out and "may be left out" in out


@pytest.mark.parametrize("word", ["pik", "tabel", "shwo", "colums", "docter", "measur", "Pick"])
def test_a_misspelt_command_is_told_from_a_sweep_file(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "--params", "2e6"]) == 2
    assert f"there is no command or sweep file {word!r}, did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "no command or sweep file 'run'; --help lists the commands"),
        (["small"], "no command or sweep file 'small', did you mean 'small.py'?"),
        (["x" * 300], "no command or sweep file 'xxx"),
        (["small.py", "--epochs=2"], "--epochs=2 is no option; write epochs=VALUE"),
        (["small.py", "--epochs", "2"], "--epochs is no option; write epochs=VALUE"),
        (["small.py", "seed=[0,1]"], "is Python; on the command line write a grid as seed=1,2,3"),
        (["small.py", "--results", ""], "results='' names no folder"),
        (["small.py", "--results", "s3:/bucket/x"], "results='s3:/bucket/x' names no folder"),
        (["small.py", "--results", "small.py", "--serial"], "small.py cannot be written (Not a directory)"),
    ],
)
def test_what_newcomers_write_is_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("small.py").write_text(
        "from attnsweep import Sweep\nsweep = Sweep(model='cnn', dataset='digits', epochs=1)\n"
    )
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_deleted_working_directory_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["columns"]) == 2
    assert "the folder that you are in has been deleted" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_a_sentence() -> None:
    command = [sys.executable, "-m", "attnsweep", "columns"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "attnsweep: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["columns"]) == 0


@pytest.mark.parametrize("columns", ["0", "10"])
def test_a_terminal_without_room_shows_a_plan_all_the_same(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal.screen().print("a plan of so many words")
    assert "a plan of so many words" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "meant"),
    [("hed", "heads"), ("dpeth", "depth"), ("patch", "patch_size"), ("LR", "lr"), ("EPOCHS", "epochs")],
)
def test_a_near_word_is_suggested(word: str, meant: str) -> None:
    assert did_you_mean(word, AXES) == f", did you mean {meant!r}?"


@pytest.mark.slow
@pytest.mark.parametrize("word", ["checkpoint", "quantise", "layers", "learning_rate"])
def test_a_word_that_is_not_near_is_not_suggested(word: str) -> None:
    assert did_you_mean(word, AXES) == ""


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null", "/dev/null/x"])
def test_the_doctor_says_where_results_cannot_be_written(place: str) -> None:
    ((good, finding),) = store_findings(folders_of(place))
    assert not good and finding.startswith(f"{place} cannot be written")


def test_the_doctor_leaves_nothing_behind(tmp_path: Path) -> None:
    ((good, _),) = store_findings(folders_of(tmp_path / "new/results"))
    assert good and not list(tmp_path.iterdir())
