"""What a laptop sends to a cluster, as far as that can be seen without one; with one: test_cluster.py."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attnsweep.__main__ import main
from attnsweep.core.errors import UserError
from attnsweep.engine.remote.remote_sweep import RemoteSweep, entrypoint, pack
from attnsweep.results import provenance
from attnsweep.results.store import Store
from attnsweep.space.plan import folders_of
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve

from commands import PATIENCE_S
from hosts import REPOSITORY

SWEEP = """from ray import tune
from attnsweep import Sweep
sweep = Sweep(model=tune.grid_search(["cnn", "vit"]))
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my sweep.py").write_text(SWEEP)


def sweep(*arguments: str, cluster: str = "c.yaml", results: str = "results") -> RemoteSweep:
    return RemoteSweep(Path(cluster), Path("my sweep.py"), arguments, folders_of(results))


def finish_trial(model: str) -> None:
    trial = make_trial(resolve({"model": model}), Path("nowhere"))
    row = {**trial.row(), "status": "done", "finished_at": datetime.now(UTC)}
    Store("results").write("trials", [row], trial.trial_id)


def test_a_command_is_the_same_by_text_arguments_and_results() -> None:
    name = sweep("epochs=2").name
    assert name == sweep("epochs=2", cluster="other.yaml").name
    others = [sweep("epochs=3"), sweep("epochs=2", "--no-latency"), sweep("epochs=2", results="elsewhere")]
    names = {name, *(other.name for other in others)}
    Path("my sweep.py").write_text(f"{SWEEP}# changed\n")
    assert len({*names, sweep("epochs=2").name}) == 5


NET = """
from torch import nn
class Net(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(8, num_classes)
"""


def test_a_model_of_ones_own_travels_from_beside_the_sweep_and_is_part_of_the_name() -> None:
    Path("my sweep.py").write_text("from attnsweep import Sweep\nsweep = Sweep(model='net.py:Net')\n")
    Path("net.py").write_text(NET)
    Path("sent").mkdir()
    pack(sweep(), Path("sent"))
    assert Path("sent/sweep/net.py").read_text() == NET
    before = sweep().name
    Path("net.py").write_text(f"{NET}# edited\n")
    assert sweep().name != before


def test_the_modules_that_a_model_imports_travel_with_it() -> None:
    Path("my sweep.py").write_text("from attnsweep import Sweep\nsweep = Sweep(model='net.py:Net')\n")
    Path("net.py").write_text(f"import blocks.heads\n{NET}")
    Path("blocks").mkdir()
    Path("blocks/heads.py").write_text("import widths\n")
    Path("widths.py").write_text("WIDTH = 3\n")
    Path("sent").mkdir()
    pack(sweep(), Path("sent"))
    assert Path("sent/sweep/blocks/heads.py").is_file() and Path("sent/sweep/widths.py").is_file()
    before = sweep().name
    Path("widths.py").write_text("WIDTH = 4\n")
    assert sweep().name != before


def test_a_model_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/net.py").write_text(NET)
    Path("my sweep.py").write_text("from attnsweep import Sweep\nsweep = Sweep(model='far/net.py:Net')\n")
    with pytest.raises(UserError, match=r"far/net\.py does not lie beside my sweep\.py; put it there"):
        sweep().files  # noqa: B018


@pytest.mark.slow
def test_what_is_sent_runs_by_itself_and_knows_the_trials_that_are_done_here(tmp_path: Path) -> None:
    """The head's part, run by its shell in a home of its own; `code_hash` tells whose code it was."""
    finish_trial("cnn")
    Path("sent").mkdir()
    sent = sweep("seed=0", "--dry-run")
    pack(sent, Path("sent"))
    home = tmp_path / "head"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                   "PYTHONPATH": str(tmp_path / "sent")}  # fmt: skip
    command = ["sh", "-c", entrypoint(sent)]
    done = subprocess.run(command, cwd="sent", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "my sweep: 2 trials (1 new, 1 done)" in done.stdout
    assert len(list((home / sent.folder / "results/trials").glob("*.parquet"))) == 1
    assert provenance.hash_sources(Path("sent/attnsweep")) == provenance.code_hash()


def test_the_commit_of_the_laptop_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for sent, state in (("abc True", ("abc", True)), ("abc False", ("abc", False)), (" ", (None, None))):
        monkeypatch.setenv(provenance.SENT_GIT, sent)
        assert provenance.git_state() == state


def test_rows_go_straight_to_a_store_with_a_uri() -> None:
    there = sweep(results="s3://bucket/here")
    assert not there.is_fetched and entrypoint(there).endswith("--results s3://bucket/here")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--cluster", "nowhere.yaml"], "there is no cluster file nowhere.yaml"),
        (["--stop"], "--stop goes with --cluster"),
        (["--cluster", "c.yaml", "--address", "auto"], "name two clusters"),
        (["--cluster", "c.yaml", "depht=3"], "did you mean 'depth'?"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["my sweep.py", *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_that_is_not_up_is_said_to_be_and_no_local_one_is_started(tmp_path: Path) -> None:
    file = str(REPOSITORY / "cluster-local.yaml")
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "attnsweep", "my sweep.py", "--cluster", file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert f"start it with: ray up {file}" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("ray/session*")) and not (tmp_path / "results").exists()
