"""Sweeps on one machine notice each other."""

import contextlib
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnsweep.core import terminal
from attnsweep.core.deployment import DISPATCH, Ask, Deployment, Deployments, Subject
from attnsweep.engine import console, meters, presence
from attnsweep.engine.command import measure_latency
from attnsweep.engine.deadline import Deadline
from attnsweep.engine.engine import MachineInfo, Measured
from attnsweep.engine.latency import Phase, Tally
from attnsweep.engine.live import Waits
from attnsweep.results.store import Store
from attnsweep.space.plan import folders_of

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


@pytest.mark.slow
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


ASK = Ask(Deployment())


def test_what_calls_a_compiler_keeps_nothing_else_waiting() -> None:
    asks = [Ask(Deployment(runtime, batch)) for batch in range(1, 21) for runtime in ("eager", "compile")]
    parts = meters.windows(asks)
    assert [[ask.deployment.runtime for ask in part] for part in parts] == [
        *(["eager"] * count for count in (12, 8)), *(["compile"] * 2 for _ in range(10)),
    ]  # fmt: skip
    assert {ask for part in parts for ask in part} == {*asks}
    assert [len(part) for part in meters.windows(asks[::2], shared_by=4)] == [5, 5, 5, 5]
    assert meters.windows([]) == []


def test_a_measurement_beside_a_sweep_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "PATIENCE_S", 0.0)
    monkeypatch.setattr(meters, "shared_out", lambda asks, *_: (Measured(ask, None) for ask in asks))
    file = presence.at_work()
    (measured,) = meters.measure_here([ASK], 0, 2)
    assert measured.disturbed_by == "another sweep trains or measures there"
    assert file
    file.close()
    monkeypatch.setattr(presence, "other_work", lambda: "other work takes 2 of its 4 CPUs")
    assert [one.disturbed_by for one in meters.measure_here([ASK, ASK], 0, 2)] == [
        "other work takes 2 of its 4 CPUs"
    ] * 2


@pytest.mark.parametrize("unstable", [True, False])
def test_what_disturbs_is_told_once_and_only_where_it_did(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unstable: bool
) -> None:
    class Disturbed:
        machine = MachineInfo({1: "CPU, 1 thread"}, {"eager": "torch 2"}, {}, cores=1)

        def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
            for ask in asks:
                row = reference if ask.subject is None else {**ROW, "arch_id": ask.subject.arch_id}
                yield Measured(
                    ask, {**row, "measured_on": "CPU, 1 thread"}, "", "another sweep trains or measures there"
                )

    reference = {"reference": DISPATCH.name, "versions": "torch 2", "ms": 1.0}
    ROW = {**asdict(ASK.deployment), "versions": "torch 2", "model": "vit", "unstable": unstable}
    ROW |= {"error": None, "latency_ms_p50": 1.0}
    heard: list[tuple[int, int]] = []
    phase = Phase(Store(tmp_path / "results"), Deployments(batch=(1,)), lambda *now: heard.append(now))
    subjects = {(name * 12, "fp32"): Subject(name * 12, {}) for name in "ab"}
    tally = phase.measure(subjects, [Disturbed()])
    assert heard == [(1, 2), (2, 2)] and (tally.measured, tally.known) == (2, 0)
    assert (
        caplog.messages
        == ["latency is known less well than it could be: another sweep trains or measures there"] * unstable
    )
    again = Phase(phase.store, phase.asked, lambda *now: heard.append(now))
    known = again.measure(subjects, [Disturbed()])
    assert (known.known, known.known_unstable, known.unstable, len(heard)) == (2, 2 * unstable, 0, 2)
    once_more = Phase(phase.store, phase.asked, lambda *now: heard.append(now), again=True)
    assert once_more.measure(subjects, [Disturbed()]).measured == 2


def test_what_failed_is_not_counted_as_measured_nor_as_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {"a": None, "b": "no kernel", "c": "killed"}  # the last one brings no row
    place = {"measured_on": "CPU, 1 thread", "versions": "torch 2"}
    of_vit = {**place, **asdict(ASK.deployment), "model": "vit", "unstable": False, "latency_ms_p50": None}

    class Failing:
        machine = MachineInfo({1: "CPU, 1 thread"}, {"eager": "torch 2"}, {}, cores=1)

        def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
            for ask in asks:
                if ask.subject is None:
                    yield Measured(ask, {**place, "reference": DISPATCH.name, "ms": 1.0}, "", "")
                    continue
                error = errors[ask.subject.arch_id[0]]
                row = {**of_vit, "arch_id": ask.subject.arch_id, "error": error}
                yield Measured(ask, None if error == "killed" else row, error or "", "")

    def measured(names: str) -> Tally:
        phase = Phase(Store(tmp_path / "results"), Deployments(batch=(1,)), lambda *now: None)
        return phase.measure({(n * 12, "fp32"): Subject(n * 12, {}) for n in names}, [Failing()])

    first = measured("abc")
    assert (first.measured, first.known, first.lost) == (1, 0, 1)
    assert first.failed == {"vit under eager: no kernel": 1} and not first.is_whole
    second = measured("abc")
    assert (second.measured, second.known, second.lost) == (0, 1, 1)
    assert (second.known_to_fail, second.failed, first.known_to_fail) == (first.failed, {}, {})
    assert measured("a").is_whole and not measured("").is_whole
    console.show_tally(terminal.screen(), replace(second, lost=0))
    assert capsys.readouterr().out == (
        "latency: 0 measured, 1 known, 1 known to fail (measure --again tries them anew)\n"
        "  not measured: vit under eager: no kernel\n"
    )
    console.show_tally(terminal.screen(), Tally(known=3, known_unstable=2))
    assert capsys.readouterr().out == (
        "latency: 0 measured, 3 known, 2 of them unstable (measure --again measures them anew)\n"
    )


@dataclass
class Answering:
    """A machine of one core that measures whatever is asked, until it is cut off."""

    cut_off_after: float = math.inf
    given: int = 0
    machine = MachineInfo({1: "CPU, 1 thread"}, {"eager": "torch 2"}, {"openvino": "no openvino"}, cores=1)

    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        place = {"measured_on": "CPU, 1 thread", "versions": "torch 2"}
        for ask in asks:
            if ask.subject is None:
                yield Measured(ask, {**place, "reference": DISPATCH.name, "ms": 1.0})
                continue
            if self.given >= self.cut_off_after:
                raise KeyboardInterrupt
            self.given += 1
            known = {"arch_id": ask.subject.arch_id, "error": None, "unstable": False}
            yield Measured(ask, {**place, **asdict(ASK.deployment), **known})


FOUR = {(name * 12, "fp32"): Subject(name * 12, {}) for name in "abcd"}


@pytest.mark.parametrize(("times", "measured"), [([0, 9, 9], 0), ([0, 1, 1, 9, 9], 2)])
def test_measuring_ends_when_the_time_is_up(tmp_path: Path, times: list[int], measured: int) -> None:
    until = Deadline(5, clock=iter(times).__next__)
    phase = Phase(Store(tmp_path), Deployments(batch=(1,)), lambda *now: None, until=until)
    tally = phase.measure(FOUR, [Answering()])
    assert (tally.measured, tally.left, tally.is_whole) == (measured, 4 - measured, False)


def test_what_a_machine_does_not_have_is_no_figure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = Deployments(runtime=("eager", "openvino"), batch=(1,), threads=(1, 2))
    tally = Phase(Store(tmp_path), asked, lambda *now: None).measure(FOUR, [Answering()])
    assert (tally.measured, tally.impossible, tally.is_whole) == (4, 2, False)
    assert caplog.messages == [
        "no openvino; not measured",
        "threads=2 is more than the 1 core there; not measured",
    ]


def test_measuring_that_is_cut_off_says_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine: Any = Answering(cut_off_after=3)
    backend: Any = SimpleNamespace(benches=lambda *_, **__: [machine])
    asked, folders = Deployments(batch=(1,)), folders_of(tmp_path / "results")
    store, waits = Store(tmp_path / "results"), Waits(terminal.screen())
    with pytest.raises(KeyboardInterrupt):
        measure_latency(store, backend, waits, FOUR, asked, folders, gpus=False)
    assert capsys.readouterr().out.endswith("latency: 3 measured, 1 left for another time\n")
    assert store.read("latency").num_rows == 3


def test_measuring_under_a_missing_runtime_changes_no_rows(tmp_path: Path) -> None:
    store, openvino = Store(tmp_path), {**asdict(ASK.deployment), "runtime": "openvino"}
    store.write(
        "trials", [{"trial_id": "t", "arch_id": "a" * 12, "precision": "fp32", "runtime": "eager"}], "t"
    )
    there = {"measured_on": "CPU, 1 thread", "versions": "openvino 1", "latency_ms_p50": 1.0}
    store.write("latency", [{"arch_id": "a" * 12, **openvino, **there}], "known")
    Phase(store, Deployments(runtime=("openvino",)), lambda *now: None).measure(FOUR, [Answering()])
    assert store.read("trials")["runtime"].to_pylist() == ["eager"]


def test_times_are_in_ms_once_their_reference_is_known_and_never_without(tmp_path: Path) -> None:
    """Of several nodes one may measure the reference, later than another an architecture, or be lost."""
    place = {"measured_on": "CPU, 1 thread", "versions": "torch 2"}
    times = {"latency_ms_p50": 2.0, "latency_ms_low": 1.5, "reference_ms": 1.0, "throughput_per_s": 500.0}

    class Late:
        machine = Answering.machine

        def __init__(self, *, is_lost: bool) -> None:
            self.is_lost, self.asked = is_lost, 0

        def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
            self.asked += len(asks)
            for ask in sorted(asks, key=lambda ask: ask.subject is None):
                if ask.subject:
                    known = {"arch_id": ask.subject.arch_id, "error": None, "unstable": False}
                    yield Measured(ask, {**place, **asdict(ask.deployment), **known, **times})
                elif not self.is_lost:
                    yield Measured(ask, {**place, "reference": DISPATCH.name, "ms": 0.5})

    store = Store(tmp_path)
    phase = Phase(store, Deployments(batch=(1,)), lambda *now: None)
    assert (phase.measure(FOUR, [Late(is_lost=True)]).lost, store.read("latency").num_rows) == (4, 0)
    phase.measure(FOUR, [once := Late(is_lost=False)])
    assert once.asked == 5, "the reference is asked for with the architectures, of one process"
    (row, *_) = store.read("latency").to_pylist()
    assert [row[name] for name in times] == [1.0, 0.75, 0.5, 1000.0] and row["latency_ms_p99"] is None
    phase.measure({**FOUR, ("e" * 12, "fp32"): Subject("e" * 12, {})}, [once])
    assert once.asked == 6, "it is known"


class Faster(Answering):
    """A machine whose reference takes 2 ms at first, as beside other work, then 1 ms."""

    ms = 2.0

    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        times = {"latency_ms_p50": 3.0, "latency_rel": 3.0, "reference_ms": 1.0, "raw_ms_p50": 3.0}
        for measured in super().measure(asks):
            row = {**(measured.row or {}), "reference": DISPATCH.name}
            yield replace(measured, row=row | (times if measured.ask.subject else {"ms": self.ms}))


def test_a_reference_that_is_measured_again_changes_all_rows_that_go_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, machine = Store(tmp_path), Faster()
    for (arch_id, precision), _ in FOUR.items():
        store.write("trials", [{"trial_id": arch_id, "arch_id": arch_id, "precision": precision}], arch_id)
    elsewhere = {"arch_id": "a" * 12, "measured_on": "GPU", "versions": "torch 2", "reference_ms": 2.0}
    elsewhere["reference"] = DISPATCH.name
    store.write("latency", [{**asdict(ASK.deployment), **elsewhere, "latency_ms_p50": 6.0}], "elsewhere")
    phase = Phase(store, Deployments(batch=(1,)), lambda *now: None)
    phase.measure(FOUR, [machine])
    assert {*store.read("trials")["latency_ms_p50"].to_pylist()} == {6.0}
    assert caplog.messages == [
        "beside these models the reference took 0.5 times what it took when it was measured by itself: "
        "milliseconds may be off by as much, ratios (latency_rel) are not; `measure --again` measures both "
        "anew"
    ]
    machine.ms = 1.0
    only = dict([next(iter(FOUR.items()))])
    replace(phase, again=True, tally=Tally()).measure(only, [machine])
    assert {*store.read("trials")["latency_ms_p50"].to_pylist()} == {3.0}, (
        "also of what is not measured again"
    )
    here = [row for row in store.read("latency").to_pylist() if row["measured_on"] != "GPU"]
    assert {(row["latency_ms_p50"], row["reference_ms"], row["latency_rel"]) for row in here} == {(3, 1, 3)}
    assert [row["latency_ms_p50"] for row in store.read("latency").to_pylist() if row not in here] == [6.0]
    assert store.read("references")["ms"].to_pylist() == [1.0]
    assert caplog.messages[1:] == [
        "the reference takes 1 ms, where it took 2: the milliseconds of 4 rows change with it"
    ]


@pytest.mark.slow
def test_rows_follow_their_reference_to_the_bit_however_often_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, machine, chance = Store(tmp_path), Faster(), random.Random(0)
    phase = Phase(store, Deployments(batch=(1,)), lambda *now: None)
    phase.measure(FOUR, [machine])
    only, write = dict([next(iter(FOUR.items()))]), Store._write

    def cut_off(self: Store, table: str, *rest: Any) -> None:
        if table == "references":
            raise KeyboardInterrupt
        write(self, table, *rest)

    for turn in range(20):
        machine.ms, is_cut_off = chance.uniform(1, 5), turn % 4 == 0
        monkeypatch.setattr(Store, "_write", cut_off if is_cut_off else write)
        with pytest.raises(KeyboardInterrupt) if is_cut_off else contextlib.nullcontext():
            replace(phase, again=True, tally=Tally()).measure(only, [machine])
        assert {row["reference_ms"] for row in store.read("latency").to_pylist()} == {machine.ms}
    for row in store.read("latency").to_pylist():
        assert row["latency_ms_p50"] == pytest.approx(3 * machine.ms)
