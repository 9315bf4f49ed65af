"""Sweeps in this process, and where Ray cannot be imported."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import attnsweep
from attnsweep import Sweep, UserError
from attnsweep.__main__ import main
from attnsweep.core.deployment import Ask, Deployment
from attnsweep.engine import meters, serial
from attnsweep.engine.engine import Failed, Measured, Queue, Settings
from attnsweep.engine.meters import Meter
from attnsweep.engine.serial import InProcess, Limit, Overdue, SerialEngine, ThisProcess
from attnsweep.training import trial as training

from commands import PATIENCE_S, UNDISTURBED

TINY = dict(model="vit", depth=1, heads=2, dim=16, dim_head=8, mlp_dim=16, batch_size=500, epochs=2)
SEEDS = {"grid_search": [0, 1]}
WITHOUT_RAY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

sys.meta_path.insert(0, Blocked())
from attnsweep.__main__ import main
status = main(sys.argv[1:])
assert not any(name.partition(".")[0] == "ray" for name in sys.modules)
sys.exit(status)
"""
HANGING = """
import time
from torch import nn

class Hanging(nn.Module):
    def __init__(self, *, image_size, channels, num_classes, hangs=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))
        self.hangs = hangs

    def forward(self, x):
        while self.hangs and self.training and len(x) > 2:  # the plan tries a step on two
            time.sleep(0.05)
        return self.layers(x)
"""
BREAKPOINT = """
from torch import nn

STACK = []

class Watched(nn.Module):
    def __init__(self, *, image_size, channels, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))

    def forward(self, x):
        import inspect, os, threading
        if self.training:
            names = {frame.function for frame in inspect.stack()}
            assert "test_a_debugger_stops_in_a_models_forward" in names, names
            assert threading.current_thread() is threading.main_thread()
        return self.layers(x)
"""


def run(folder: Path, sweep: Sweep, **options: Any) -> pd.DataFrame:
    return attnsweep.run(sweep, folder / "results", serial=True, **{"latency": False, **options})


def without_ray(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    (folder / "without_ray.py").write_text(WITHOUT_RAY)
    command = [sys.executable, str(folder / "without_ray.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.slow
def test_a_serial_sweep_leaves_the_rows_of_any_sweep_and_runs_once(tmp_path: Path) -> None:
    rows = run(tmp_path, Sweep(**TINY, seed=SEEDS))
    assert list(rows["status"]) == ["done", "done"]
    assert rows[["val_acc", "test_acc", "train_s", "host"]].notna().all(axis=None)
    assert len(attnsweep.load(tmp_path / "results", "epochs")) == 4
    assert set(run(tmp_path, Sweep(**TINY, seed=SEEDS))["attempts"]) == {1}


@pytest.mark.slow
def test_a_debugger_stops_in_a_models_forward(tmp_path: Path) -> None:
    """The call stack of a forward pass reaches down to whoever called `run`, in the main thread."""
    (tmp_path / "watched.py").write_text(BREAKPOINT)
    rows = run(tmp_path, Sweep(model=f"{tmp_path}/watched.py:Watched", epochs=1, batch_size=500))
    assert list(rows["status"]) == ["done"], rows["error"].item()


@pytest.mark.slow
def test_a_sweep_runs_where_ray_cannot_be_imported_with_latency(tmp_path: Path) -> None:
    words = ", ".join(f"{key}={value!r}" for key, value in {**TINY, "epochs": 1}.items())
    lines = [
        "from ray import tune",
        "from attnsweep import Sweep",
        f"sweep = Sweep({words}, lr=tune.choice([1e-3]))",
    ]
    (tmp_path / "s.py").write_text("\n".join(lines))
    done = without_ray(tmp_path, "s.py", "--serial")
    assert (done.returncode, "1 done in" in done.stdout) == (0, True), done.stderr
    row = pd.read_parquet(tmp_path / "results/trials").iloc[0]
    assert row["status"] == "done" and row["latency_ms_p50"] > 0 and row["throughput_per_s"] > 0
    assert set(pd.read_parquet(tmp_path / "results/latency")["batch"]) == {1, 256}


@pytest.mark.slow
def test_where_ray_cannot_be_imported_a_sentence_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("from attnsweep import Sweep\nsweep = Sweep(model='cnn')\n")
    done = without_ray(tmp_path, "s.py")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Ray cannot be imported" in done.stderr and "--serial" in done.stderr


@pytest.mark.slow
def test_the_doctor_finds_that_ray_is_missing(tmp_path: Path) -> None:
    done = without_ray(tmp_path, "doctor")
    assert done.returncode == 1 and "sweeps run with --serial only" in done.stdout, done.stderr


@pytest.mark.parametrize("words", [["--address", "auto"], ["--cluster", "cluster.yaml"]])
def test_serial_and_a_cluster_contradict_each_other(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep.py", "--serial", *words]) == 2
    assert "--serial uses no cluster" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_that_fails_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(HANGING.replace("time.sleep(0.05)", "raise OSError('gone')"))
    sweep = Sweep(model=f"{tmp_path}/broken.py:Hanging", hangs={"grid_search": [True, False]}, epochs=1)
    rows = run(tmp_path, sweep).sort_values("status")
    assert list(rows["status"]) == ["done", "failed"]
    assert "gone" in rows["error"].iloc[1]


@pytest.mark.slow
def test_a_trial_that_hangs_is_failed_the_sweep_goes_on_and_a_rerun_tries_it_again(tmp_path: Path) -> None:
    """Two that hang, one after the other: others would have to be fast enough."""
    (tmp_path / "hanging.py").write_text(HANGING)
    model = f"{tmp_path}/hanging.py:Hanging"
    sweep = Sweep(model=model, hangs=True, epochs=1, seed=SEEDS, trial_timeout=0.5)
    rows = run(tmp_path, sweep)
    assert list(rows["status"]) == ["failed"] * 2
    assert rows["error"].str.startswith("it took longer than trial_timeout=0.5 s").all()
    assert set(run(tmp_path, sweep)["attempts"]) == {2}


def test_a_trial_that_catches_everything_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial, "ASK_AGAIN_S", 0.05)
    caught = []

    def stubborn() -> None:
        for _ in range(3):
            try:
                time.sleep(10)
            except BaseException as error:
                caught.append(error)
        time.sleep(10)

    with pytest.raises(Overdue):
        Limit(0.05).call(stubborn)
    assert len(caught) == 3


def test_a_trial_that_nothing_interrupts_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As C code is, which gives Python's lock away."""
    monkeypatch.setattr(serial, "ASK_AGAIN_S", 0.02)

    def deaf() -> None:
        while not caplog.messages:
            with contextlib.suppress(BaseException):
                time.sleep(10)
        time.sleep(10)

    with pytest.raises(Overdue):
        Limit(0.02).call(deaf)
    assert caplog.messages == [serial.STUCK]


def test_a_limit_that_is_kept_leaves_nothing_behind() -> None:
    before = signal.getsignal(signal.SIGALRM)
    assert Limit(10.0).call(lambda: 5) == 5 and Limit(None).call(lambda: 6) == 6
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_alarms_of_others_go_off_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        Limit(10.0).call(lambda: time.sleep(0.2))
        assert heard == [signal.SIGALRM]
        signal.setitimer(signal.ITIMER_REAL, 100.0)
        with pytest.raises(Overdue):
            Limit(0.05).call(lambda: time.sleep(10))
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90 and len(heard) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_in_another_thread_the_time_is_looked_at_between_two_reports() -> None:
    found: list[Any] = []

    def other() -> None:
        limit = Limit(0.05)
        found.append(limit.call(lambda: time.sleep(0.1)))
        try:
            limit.call(lambda: None)
        except Overdue:
            found.append("overdue")

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [None, "overdue"]


@pytest.mark.slow
def test_ctrl_c_goes_on_from_the_checkpoint_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(**{**TINY, "epochs": 4}, seed=SEEDS)
    undisturbed = run(tmp_path / "calm", sweep)
    options = functools.partial(training.Options, checkpoint_s=0.0)
    monkeypatch.setattr(training, "Options", options)
    judge, judged = training.judge, []

    def interrupted(*args: Any, **options: Any) -> Any:
        judged.append(1)
        if len(judged) == 3:
            signal.raise_signal(signal.SIGINT)
        return judge(*args, **options)

    monkeypatch.setattr(training, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, sweep)
    assert len(list((tmp_path / "runs").glob("*/checkpoint.pt"))) == 1
    rows = run(tmp_path, sweep)
    assert len(judged) == 3 + 2 + 4, "two epochs of the first trial were left, and all of the second"
    pd.testing.assert_frame_equal(rows[UNDISTURBED], undisturbed[UNDISTURBED])


@pytest.mark.slow
def test_a_stopped_trial_does_not_train_on(tmp_path: Path) -> None:
    """At the first rate 0.8 of the digits are right after an epoch, at those that learn nothing 0.1."""
    rates = {"grid_search": [3e-3, 1e-7, 1e-8]}
    rows = run(tmp_path, Sweep(model="cnn", epochs=3, lr=rates, lr_gamma=1, scheduler="asha")).set_index("lr")
    epochs = attnsweep.load(tmp_path / "results", "epochs").groupby("trial_id").size()
    assert rows.loc[3e-3, "status"] == "done"
    for trial_id in rows.loc[rows["status"] == "stopped", "trial_id"]:
        assert epochs[trial_id] == 1
    assert (rows["status"] == "stopped").sum() == 2


@pytest.mark.slow
def test_halving_goes_on_from_an_earlier_command(tmp_path: Path) -> None:
    """The same rates stop, whether in one command or the good ones first."""
    rates = [3e-3, 1e-3, 1e-7, 1e-8]
    sweep = Sweep(model="cnn", epochs=2, lr={"grid_search": rates}, lr_gamma=1, scheduler="asha")
    run(tmp_path, sweep.override({"lr": rates[:1]}))
    rows = run(tmp_path, sweep).set_index("lr")
    assert list(rows.loc[[1e-7, 1e-8], "status"]) == ["stopped", "stopped"]


def test_data_are_prepared_in_this_process() -> None:
    with InProcess() as workers:
        assert workers.submit(os.getpid).result() == os.getpid()
        with pytest.raises(ZeroDivisionError):
            workers.submit(lambda: 1 / 0).result()


def test_a_request_is_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial, "has_gpu", lambda: False)
    assert ThisProcess().request({"cpu": 1, "gpu": 0.5}) == {"cpu": 1, "gpu": 0}
    with pytest.raises(UserError, match="cpu=1000 is more than this machine has"):
        ThisProcess().request({"cpu": 1000})


def test_trials_compute_on_as_many_threads_as_they_have_cpus() -> None:
    import torch

    before = torch.get_num_threads()
    with serial.few_threads(0.5):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_what_fails_in_the_measuring_process_is_why_nothing_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meters.sys, "executable", "/bin/false")
    asks = [Ask(Deployment()), Ask(Deployment(batch=2))]
    with Meter() as meter:
        found = list(meter.measure(asks))
    assert found == [Measured(ask, None, error="its process ended") for ask in asks]


def test_a_trial_that_takes_too_long_is_told_by_an_event() -> None:
    engine = SerialEngine(Settings({"cpu": 1, "data_dir": "."}, trial_timeout=1e-9))
    events = []
    source = Queue([trial_of_digits()])
    for event in engine.events():
        if isinstance(event, serial.Ready):
            if trial := source.take(last=False):
                engine.start(trial)
        else:
            events.append(event)
    assert isinstance(events[-1], Failed) and events[-1].final


def trial_of_digits() -> Any:
    from attnsweep.space.trials import make_trial
    from attnsweep.tasks.registry import resolve

    return make_trial(resolve(TINY), Path("."))


@pytest.mark.slow
def test_a_sweep_whose_hours_are_up_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    sweep = Sweep(model="cnn", dim=8, epochs=30, seed=SEEDS)
    whole = run(tmp_path / "whole", sweep).sort_values("seed")
    cut, calls = pd.DataFrame(), 0
    while len(cut) < 2 and calls < 60:
        calls += 1
        cut = run(tmp_path / "cut", sweep, hours=1.2 / 3_600)
    assert calls > 1 and (cut.status == "done").all() and cut.attempts.max() > 1
    for column in ("test_acc", "train_loss"):
        assert cut.sort_values("seed")[column].tolist() == whole[column].tolist()
