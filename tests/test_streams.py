"""Pipes, terminals, encodings and folders that fall short: a sentence, and the status a shell expects."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attnsweep import Sweep
from attnsweep.__main__ import main
from attnsweep.core.errors import UserError
from attnsweep.space import plan

SWEEP = """
from ray import tune
from attnsweep import Sweep
sweep = Sweep(model="vit", dataset="digits", depth=tune.grid_search(list(range(1, {n}))), name={name!r})
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "attnsweep", *words]


@pytest.mark.slow
def test_a_dry_run_whose_reader_leaves_ends_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text(SWEEP.format(n=120, name=""))  # more than a pipe holds
    words = command(str(tmp_path / "many.py"), "--dry-run", "--json")
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert run.stdout is not None and run.stderr is not None
    run.stdout.readline()
    run.stdout.close()
    assert (run.wait(60), run.stderr.read()) == (128 + signal.SIGPIPE, b"")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["[red]", "[/]", "a[/bold]b :smile:", "[link=x"])
def test_a_name_is_never_markup(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "size.py").write_text(SWEEP.format(n=2, name=name))
    assert main([str(tmp_path / "size.py"), "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and shown.out.startswith(f"{name}: 1 trial")


@pytest.mark.slow
def test_an_encoding_that_lacks_a_letter_does_not_stop_a_plan(tmp_path: Path) -> None:
    (tmp_path / "größe.py").write_text(SWEEP.format(n=2, name="größe"))
    done = subprocess.run(
        command(str(tmp_path / "größe.py"), "--dry-run"),
        capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(rb"gr\xf6\xdfe: 1 trial")


@pytest.mark.slow
def test_a_closed_terminal_ends_a_command_with_the_status_of_a_hangup(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(60)\n")
    run = subprocess.Popen(
        command(str(tmp_path / "slow.py"), "--dry-run"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # tests may run under nohup
    )  # fmt: skip
    assert run.stdout is not None and run.stderr is not None
    assert run.stdout.readline() == "here\n"
    run.send_signal(signal.SIGHUP)
    assert run.wait(60) == 128 + signal.SIGHUP
    assert run.stderr.read() == "attnsweep: cut off\n"


def test_a_user_without_a_home_directory_has_data_beside_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.delenv("ATTNSWEEP_DATA", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert plan.folders_of(tmp_path / "results").data == tmp_path / "data"


def test_a_sweep_of_a_user_without_a_home_directory_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "one.py").write_text(SWEEP.format(n=2, name="one"))
    monkeypatch.setattr(Path, "home", homeless)
    assert main([str(tmp_path / "one.py"), "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "attnsweep: this user has no home directory; set one, as HOME=/tmp/me\n"
    )


def test_a_trial_takes_some_of_a_cpu() -> None:
    with pytest.raises(UserError, match="resources: cpu=0 is out of range; every trial takes some"):
        Sweep(model="vit", resources={"cpu": 0})


@pytest.mark.slow
def test_a_temporary_folder_too_long_for_sockets_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 80)
    folder.mkdir()
    (tmp_path / "one.py").write_text(SWEEP.format(n=2, name="one"))
    done = subprocess.run(
        command("one.py", "epochs=1", "--address", "local"),
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        f"attnsweep: TMPDIR={str(folder)!r} is too long for the sockets of Ray below it; "
        "set a shorter one, as TMPDIR=/tmp\n",
    )
