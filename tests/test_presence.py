"""Sweeps on one machine notice each other."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attnsweep.engine import latency, presence
from attnsweep.engine.engine import Measured
from attnsweep.measuring import measure
from attnsweep.results.store import Store

WORKS = """
import sys
from attnsweep.engine.presence import at_work
kept = at_work()
print("at work", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the machine's, for this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_a_measurement_is_alone_until_somebody_trains_and_again_when_he_was_killed() -> None:
    with presence.alone(0) as is_alone:
        assert is_alone
    process = subprocess.Popen([sys.executable, "-c", WORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"at work\n"
    with presence.alone(0) as is_alone:
        assert not is_alone
    process.kill()
    process.wait()
    with presence.alone(5) as is_alone:
        assert is_alone


def test_those_who_train_do_not_disturb_each_other() -> None:
    first, second = presence.at_work(), presence.at_work()
    assert first and second
    first.close()
    with presence.alone(0) as is_alone:
        assert not is_alone
    second.close()


def test_training_waits_for_a_measurement_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LET_MEASURE_S", 0.3)
    with presence.alone(0):
        began = time.monotonic()
        file = presence.at_work()
        assert file and time.monotonic() - began >= 0.3
        file.close()


def test_a_folder_that_somebody_else_may_write_to_is_left_alone(machine: Path) -> None:
    folder = machine / f"attnsweep-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert presence.at_work() is None
    with presence.alone(0) as is_alone:
        assert is_alone, "nobody to be seen"
    folder.rmdir()
    (machine / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(machine / "elsewhere")
    assert presence.at_work() is None


@pytest.mark.parametrize(
    ("after", "clause"),
    [
        ("cpu  150 0 0 850 0 0 0 0", ""),
        ("cpu  150 50 100 700 0 0 0 0", "other work takes 1.2 of its 4 CPUs"),
        ("cpu  150 50 100 600 100 0 0 0", "other work takes 1.2 of its 4 CPUs"),  # waiting for a disk is idle
        ("nothing", ""),
    ],
)
def test_other_work_shows_in_the_times_of_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str, clause: str
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(presence, "STAT", stat)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(time, "sleep", lambda seconds: stat.write_text(after + " 0 0\n") and None)
    assert presence.other_work() == clause


def test_a_measurement_beside_a_sweep_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PATIENCE_S", 0.0)
    monkeypatch.setattr(measure, "measure_architecture", lambda *args, **options: {"batch": options["batch"]})
    file = presence.at_work()
    measured = latency.measure_once({}, "0" * 12, 0, "fp32", [1, 256], None)
    assert measured.disturbed_by == "another sweep trains there"
    assert [row["batch"] for row in measured.rows] == [1, 256]
    assert file
    file.close()
    monkeypatch.setattr(presence, "other_work", lambda: "other work takes 2 of its 4 CPUs")
    assert latency.measure_once({}, "0" * 12, 0, "fp32", [1], None).disturbed_by.startswith("other work")


def test_what_disturbs_measurements_is_told_once_per_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Disturbed:
        measured_on = "CPU, 1 thread"

        def measure(self, config: object, arch_id: str, **options: object) -> Measured:
            return Measured([], "another sweep trains there")

    monkeypatch.setattr(
        latency,
        "wanted",
        lambda store, trials: {(name * 12, "fp32"): latency.Architecture({}, None) for name in "ab"},
    )
    monkeypatch.setattr(latency, "unmeasured", lambda *_: [("a" * 12, "fp32", []), ("b" * 12, "fp32", [])])
    reports: list[str] = []
    latency.measure_all(Store(tmp_path / "results"), None, [Disturbed()], reports.append)
    assert reports == ["latency 1/2 on CPU, 1 thread", "latency 2/2 on CPU, 1 thread"]
    assert caplog.messages == [
        "latency on CPU, 1 thread may be measured too high: another sweep trains there"
    ]
