"""What exceeds a budget is never trained: by fakes that take no time, and one real sweep."""

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray import tune

import attnsweep
from attnsweep import Sweep, UserError
from attnsweep.__main__ import main
from attnsweep.cli.dry_run import dry_run
from attnsweep.core import terminal
from attnsweep.core.deployment import DISPATCH, Ask, Deployment, Deployments
from attnsweep.core.source import Source
from attnsweep.core.text import limit
from attnsweep.core.trial import Trial
from attnsweep.engine import console, meters, serial
from attnsweep.engine.engine import (
    Event,
    MachineInfo,
    Measured,
    Ready,
    Reported,
    Settings,
    Started,
)
from attnsweep.measuring.measure import measure_reference
from attnsweep.results import latencies
from attnsweep.results.latencies import ms_of
from attnsweep.results.store import Row, Store
from attnsweep.space.budget import Budget, Excess, unknown
from attnsweep.space.plan import folders_of, make_plan, refuse_unmet
from attnsweep.space.search import PATIENCE, Search, expand_sweep

NOWHERE = Path("nowhere")
SMALL: dict[str, Any] = dict(model="vit", dataset="digits", heads=1, dim=16, dim_head=8, mlp_dim=16, epochs=1)
DEPTHS: dict[str, Any] = dict(**SMALL, depth=tune.grid_search([1, 2, 3, 4]))
DEVICE, VERSIONS = "A CPU, 1 thread", "torch 2"
OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, *, image_size, channels, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))

    def forward(self, x):
        return self.layers(x)
"""
HERE = MachineInfo(
    {1: DEVICE, 2: "A CPU, 2 threads"}, {"eager": VERSIONS}, {"openvino": "no openvino"}, cores=1
)


def trials_of(sweep: Sweep) -> list[Trial]:
    return list(expand_sweep(sweep, NOWHERE)[0])


def depth_of(trial: Trial) -> int:
    depth: int = trial.config["depth"]
    return depth


# --- What a budget is ---


@pytest.mark.parametrize(
    ("written", "value"),
    [("2M", 2e6), ("1.5 G", 1.5e9), ("300k", 3e5), ("1B", 1e9), ("2e6", 2e6), (" 7 ", 7), (3, 3), (0.5, 0.5),
     ("1_000_000", 1e6), ("1,000,000", 1e6)],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(written: Any, value: float) -> None:
    assert Budget.of({"params": written}).params == value
    assert Budget.of({"latency_ms": "2 ms"}).latency_ms == 2


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("latency_ms", "500us", 0.5), ("latency_ms", "1.5 s", 1500), ("latency_ms", "1,500", None),
        ("memory_mb", "2 GB", 2000), ("memory_mb", "800MB", 800), ("memory_mb", "2M", None),
        ("params", "1MB", None), ("params", "10,00", None), ("params", "", None), ("params", "1e400", None),
    ],
)  # fmt: skip
def test_each_limit_has_units_of_its_own(key: str, written: str, value: float | None) -> None:
    if value is not None:
        assert limit(key, written) == pytest.approx(value)
        return
    with pytest.raises(UserError, match=f"budget: {key}='{written}' is out of range"):
        limit(key, written)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"latncy_ms": 2}, "budget: 'latncy_ms' is unknown, did you mean 'latency_ms'"),
        ({"memory": 2}, "budget: 'memory' is unknown; use some of latency_ms, params, macs"),
        ({"params": "many"}, "budget: params='many' is out of range; use a number above 0, such as 2e6"),
        ({"params": 0}, "params=0 is out of range"),
        ({"macs": -1}, "macs=-1 is out of range"),
        ({"macs": True}, "macs=True is out of range"),
        ({"macs": [1]}, r"macs=\[1\] is out of range"),
        ({"latency_ms": math.nan}, "latency_ms=nan is out of range"),
        ({"latency_ms": "2M"}, "latency_ms='2M' is out of range; .* such as 2 or '500us'"),
        ({"latency_ms": "inf"}, "latency_ms='inf' is out of range"),
        (2, "budget=2 is not a dict; write budget={'latency_ms': 2, 'params': '2M'}"),
    ],
)
def test_what_is_no_budget_is_refused_with_a_sentence(budget: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sweep(**DEPTHS, budget=budget)


def test_a_budget_changes_no_id_and_outlives_overrides() -> None:
    plain, limited = Sweep(**DEPTHS), Sweep(**DEPTHS, budget={"latency_ms": 2, "params": "2M"})
    assert [one.trial_id for one in trials_of(plain)] == [one.trial_id for one in trials_of(limited)]
    assert limited.override({"epochs": [2]}).budget == Budget(latency_ms=2, params=2e6)
    assert Sweep(**DEPTHS, budget={"params": None}).budget == Budget() == plain.budget


def test_what_cannot_be_counted_or_measured_exceeds_nothing() -> None:
    trial = trials_of(Sweep(**SMALL, depth=1))[0]
    budget = Budget(latency_ms=1, params=trial.params, macs=trial.macs)
    assert budget.excess(trial, unknown) is None  # exactly as many are within
    assert budget.excess(trial, lambda _: math.nan) is None
    uncounted = Trial(trial.trial_id, trial.arch_id, trial.config, "", params=9, macs=None)
    assert Budget(macs=1).excess(uncounted, unknown) is None


def test_the_limit_that_is_exceeded_most_is_named_and_nothing_measured_in_vain() -> None:
    trial = trials_of(Sweep(**SMALL, depth=1))[0]
    assert trial.macs
    asked: list[Trial] = []

    def latency_of(trial: Trial) -> float:
        asked.append(trial)
        return 3.0

    assert Budget(latency_ms=2, params=1e9).excess(trial, latency_of) == Excess("latency_ms", 3.0, 2)
    assert str(Excess("latency_ms", 3.0, 2)) == "latency_ms 3 exceeds 2 by 50 %"
    over = Budget(latency_ms=2, params=trial.params / 2, macs=trial.macs / 3).excess(trial, latency_of)
    assert over and over.key == "macs" and over.share == pytest.approx(2) and len(asked) == 1


def test_an_unstable_latency_that_may_be_within_the_limit_says_so() -> None:
    row: Row = dict(latency_ms_p50=2.2, latency_ms_low=1.9, latency_ms_high=2.6)
    shaky, steady = (ms_of({**row, "unstable": unstable}) for unstable in (True, False))
    assert shaky == steady == 2.2
    excess = Excess("latency_ms", shaky, 2.0)
    assert excess.is_in_doubt and str(excess).endswith("exceeds 2 by 10 %, unstable: between 1.9 and 2.6")
    assert not Excess("latency_ms", steady, 2.0).is_in_doubt
    assert not Excess("latency_ms", shaky, 1.8).is_in_doubt


def test_latency_is_known_of_one_deployment_on_one_device_of_the_last_versions() -> None:
    asked = Deployments(runtime=("onnxruntime", "eager"), batch=(256, 8), threads=(2, 1))
    same: Row = dict(
        runtime="onnxruntime", batch=8, threads=2, precision="fp32", measured_on="A", versions="2"
    )
    rows = [
        {**same, "arch_id": "a", "latency_ms_p50": 1.0, "measured_at": pd.Timestamp(5, tz="UTC")},
        {**same, "arch_id": "b", "latency_ms_p50": None, "measured_at": pd.Timestamp(4, tz="UTC")},
        {**same, "arch_id": "c", "latency_ms_p50": 1.0, "versions": "1", "measured_at": None},
        {**same, "arch_id": "d", "latency_ms_p50": 2.0, "measured_on": "B", "measured_at": None},
        *(
            {**same, "arch_id": "e", **other}
            for other in ({"runtime": "eager"}, {"batch": 256}, {"threads": 1})
        ),
    ]
    known = latencies.of_architectures(rows, asked)
    assert known.keys() == {("a", "fp32"), ("b", "fp32")} and known["a", "fp32"] == 1
    assert math.isnan(known["b", "fp32"])
    assert latencies.of_architectures(rows, asked, measured_on="B") == {("d", "fp32"): 2}
    assert latencies.of_architectures(rows, asked, measured_on="A", versions="1") == {("c", "fp32"): 1}


# --- The plan ---


def test_a_plan_knows_what_exceeds_what_can_be_counted() -> None:
    trials = trials_of(Sweep(**DEPTHS))
    sweep = Sweep(**DEPTHS, budget={"params": trials[1].params})
    rows = [{"trial_id": trials[3].trial_id, "status": "done", "train_s": 1, "val_acc": 0.9}]
    plan = make_plan(sweep, expand_sweep(sweep, NOWHERE), rows)
    assert list(plan.state.values()) == ["new", "new", "over budget", "done"]  # what is there stays
    assert [depth_of(trial) for trial in plan.new] == [1, 2] and plan.undecided == 0


def test_seeds_of_one_architecture_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(**DEPTHS, seed=tune.grid_search([0, 1]), budget={"latency_ms": 3})
    done = [{"trial_id": one.trial_id, "status": "done", "train_s": 1} for one in trials_of(sweep)[-2:-1]]
    plan = make_plan(sweep, expand_sweep(sweep, NOWHERE), done, lambda one: float(depth_of(one)))
    console.show_budget(terminal.screen(), plan)
    said = "  over budget, not trained: 1: vit depth=4 (latency_ms 4 exceeds 3 by 33 %)\n"
    assert list(plan.state.values())[-2:] == ["done", "over budget"] and capsys.readouterr().out == said


def test_a_budget_that_nothing_meets_names_the_nearest() -> None:
    sweep = Sweep(**DEPTHS, budget={"params": 10})
    plan = make_plan(sweep, expand_sweep(sweep, NOWHERE), [])
    with pytest.raises(
        UserError, match=r"no trial is within the budget; the nearest is vit depth=1, whose par"
    ):
        refuse_unmet(plan)


def measured_row(trial: Trial, ms: float) -> Row:
    deployment: Row = dict(runtime="eager", batch=1, precision="fp32", threads=1)
    return {
        **deployment, "arch_id": trial.arch_id, "measured_on": DEVICE, "versions": VERSIONS,
        "latency_ms_p50": ms, "measured_at": pd.Timestamp(1, tz="UTC"),
    }  # fmt: skip


def test_a_dry_run_says_what_is_over_budget_and_what_is_not_measured_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, sweep = folders_of(tmp_path / "results", tmp_path), Sweep(**DEPTHS, budget={"latency_ms": 1})
    trials = trials_of(sweep)
    rows = [measured_row(trials[i], ms) for i, ms in ((0, 0.9), (2, 1.1), (3, 12.0))]
    Store(where.results).write("latency", rows, "known")
    assert dry_run(sweep, where, as_json=False, out=sys.stdout) == 0
    out = capsys.readouterr().out
    assert "4 trials (2 new, 2 over budget)" in out
    assert "the nearest is vit depth=3 (latency_ms 1.1 exceeds 1 by 10 %)" in out
    assert "the farthest vit depth=4 (latency_ms 12 is 12 times the limit of 1)" in out
    assert "the latency of 1 architecture is not known yet" in out
    assert dry_run(sweep, where, as_json=True, out=sys.stdout) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["new", "new", "over budget", "over budget"]
    assert lines[2]["reason"] == "latency_ms 1.1 exceeds 1 by 10 %" and lines[0]["reason"] is None


# --- A sweep, by fakes ---


@dataclass
class Fakes:
    """A backend whose trials end at once, and on which a model takes a millisecond per layer."""

    trained: list[Trial] = field(default_factory=list)
    measured: list[int | str] = field(default_factory=list)
    ms: Callable[[Mapping[str, Any]], float] = lambda config: float(config["depth"] or 1)
    error: str | None = None
    machine: MachineInfo = HERE
    fails_after: float = math.inf  # trials
    versions: str = VERSIONS
    queue: list[Trial] = field(default_factory=list)
    sources: list[Source | None] = field(default_factory=list)

    # A Backend
    def request(self, resources: Any) -> dict[str, float]:
        return {"cpu": 1.0, "gpu": 0.0}

    def slots(self, asked: Any) -> int:
        return 1

    def engine(self, settings: Settings, asked: Any) -> "Fakes":
        return self

    def workers(self) -> serial.InProcess:
        return serial.InProcess()

    def benches(self, asked: Deployments, *, gpus: bool) -> list["Fakes"]:
        assert not self.queue
        return [self]

    # An Engine
    def start(self, trial: Trial) -> None:
        self.queue.append(trial)

    def events(self) -> Iterator[Event]:
        while True:
            yield Ready()
            if not self.queue:
                return
            trial = self.queue.pop()
            if len(self.trained) >= self.fails_after:
                raise KeyboardInterrupt
            self.trained.append(trial)
            yield Started(trial)
            row = {**trial.row(), "val_acc": 0.5, "test_acc": 0.5, "train_s": 1.0}
            yield Reported(trial, {"status": "done", "row": row})

    # A Bench
    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        for ask in asks:
            row: Row = {"measured_on": DEVICE, "versions": self.versions, "host": "h"}
            row["measured_at"] = pd.Timestamp(1, tz="UTC")
            if ask.subject is None:
                self.measured.append("reference")
                yield Measured(ask, {**row, "reference": ask.deployment.reference.name, "ms": 1.0})
                continue
            self.measured.append(ask.subject.config["depth"])
            self.sources.append(ask.subject.source)
            ms = None if self.error else self.ms(ask.subject.config)
            row |= {
                **asdict(ask.deployment),
                "arch_id": ask.subject.arch_id,
                "model": "vit",
                "error": self.error,
            }
            yield Measured(ask, {**row, "unstable": False, "latency_ms_p50": ms})


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes()
    monkeypatch.setattr(serial, "ThisProcess", lambda: fakes)
    monkeypatch.setattr(meters, "beside_training", lambda *_: contextlib.nullcontext(fakes))
    return fakes


def ran(sweep: Sweep, folder: Path, **options: Any) -> pd.DataFrame:
    return attnsweep.run(sweep, folder / "results", serial=True, **options)


def depths(fakes: Fakes) -> list[int]:
    return sorted(map(depth_of, fakes.trained))


@pytest.mark.slow
def test_latency_is_measured_first_and_what_exceeds_it_is_not_trained(
    tmp_path: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(**DEPTHS, seed=tune.grid_search([0, 1]), budget={"latency_ms": 2}, latency={"batch": [1]})
    rows = ran(sweep, tmp_path)
    assert depths(fakes) == [1, 1, 2, 2] and fakes.measured == ["reference", 1, 2, 3, 4]
    assert list(rows["latency_ms_p50"]) == [float(depth) for depth in rows["depth"]] and len(rows) == 4
    out = " ".join(capsys.readouterr().out.split())
    assert "the latency of 4 architectures is not known yet" in out
    assert "over budget, not trained: 4; the nearest is vit depth=3" in out and "exceeds 2 by 100 %)" in out
    assert "4 done, 4 over budget in" in out
    ran(sweep, tmp_path)
    assert len(fakes.trained) == 4 and len(fakes.measured) == 5  # nothing is done twice
    ran(Sweep(**DEPTHS, budget={"latency_ms": 3}, latency={"batch": [1]}), tmp_path)
    assert depths(fakes) == [1, 1, 2, 2, 3] and len(fakes.measured) == 5


@pytest.mark.slow
def test_latency_decides_under_the_first_runtime_and_smallest_batch_and_the_rest_is_measured_of_the_trained(
    tmp_path: Path, fakes: Fakes
) -> None:
    sweep = Sweep(**DEPTHS, budget={"latency_ms": 1}, latency={"batch": [64, 2]})
    ran(sweep, tmp_path)
    rows = Store(tmp_path / "results").read("latency").to_pylist()
    assert sorted((row["batch"], row["latency_ms_p50"]) for row in rows) == [
        (2, 1), (2, 2), (2, 3), (2, 4), (64, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_that_was_cut_off_goes_on_to_the_same_trials(tmp_path: Path, fakes: Fakes) -> None:
    sweep = Sweep(**DEPTHS, budget={"latency_ms": 3}, latency={"batch": [1]})
    fakes.fails_after = 1
    with pytest.raises(KeyboardInterrupt):
        ran(sweep, tmp_path)
    assert depths(fakes) == [1] and fakes.measured == ["reference", 1, 2, 3, 4]
    fakes.fails_after, fakes.ms = math.inf, lambda config: 0.1  # the table decides, and no new measurement
    ran(sweep, tmp_path)
    assert depths(fakes) == [1, 2, 3] and len(fakes.measured) == 5


@pytest.mark.slow
def test_latency_of_other_versions_decides_nothing(tmp_path: Path, fakes: Fakes) -> None:
    sweep = Sweep(**DEPTHS, budget={"latency_ms": 1}, latency={"batch": [1]})
    ran(sweep, tmp_path)
    fakes.machine = MachineInfo(HERE.measured_on, {"eager": "torch 3"}, {}, cores=1)
    fakes.ms, fakes.versions = lambda config: config["depth"] / 2, "torch 3"
    ran(sweep, tmp_path)
    assert depths(fakes) == [1, 2]  # the done one stays, whatever it takes now
    assert fakes.measured == ["reference", 1, 2, 3, 4, "reference", 2, 3, 4, 1]


@pytest.mark.slow
def test_ones_own_model_is_measured_by_its_text(tmp_path: Path, fakes: Fakes) -> None:
    (tmp_path / "net.py").write_text(OWN)
    model = f"{tmp_path / 'net.py'}:Net"
    ran(Sweep(model=model, dataset="digits", epochs=1, budget={"latency_ms": 1}), tmp_path)
    assert [source and source.text for source in fakes.sources][:1] == [OWN] and len(fakes.trained) == 1


def test_beside_training_what_cannot_be_measured_is_said() -> None:
    class Dying(meters.Meter):
        def started(self) -> subprocess.Popen[bytes]:
            raise OSError

    ask = Ask(Deployment())
    with Dying() as meter:
        (measured,) = meters.BesideTraining(HERE, meter).measure([ask])
    assert measured == Measured(ask, None, error="its process ended")


def test_a_budget_that_nothing_meets_trains_nothing_and_keeps_what_was_measured(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.py"
    path.write_text(
        f"from attnsweep import Sweep\nsweep = Sweep(**{DEPTHS!r}, budget=dict(latency_ms=0.5))\n"
    )
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main([str(path), "--serial"]) == 2
        assert (
            "the nearest is vit depth=1, whose latency_ms 1 exceeds 0.5 by 100 %" in capsys.readouterr().err
        )
    assert not fakes.trained and fakes.measured == ["reference", 1, 2, 3, 4]
    assert main([str(path), "--dry-run"]) == 2
    assert "no trial is within the budget" in capsys.readouterr().err
    assert main([str(path), "--serial", "--no-latency"]) == 2
    assert "budget: latency_ms needs latency to be measured before training" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_counted_needs_no_latency(tmp_path: Path, fakes: Fakes) -> None:
    most = trials_of(Sweep(**DEPTHS))[1].params
    ran(Sweep(**DEPTHS, budget={"params": most}, scheduler="asha"), tmp_path, latency=False)
    assert depths(fakes) == [1, 2] and not fakes.measured


@pytest.mark.slow
def test_only_what_is_within_the_counted_budget_is_measured(tmp_path: Path, fakes: Fakes) -> None:
    most = trials_of(Sweep(**DEPTHS))[1].params
    ran(Sweep(**DEPTHS, budget={"params": most, "latency_ms": 1}, latency={"batch": [1]}), tmp_path)
    assert depths(fakes) == [1] and fakes.measured == ["reference", 1, 2]


@pytest.mark.slow
def test_what_cannot_be_measured_is_trained(
    tmp_path: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.error = "it does not export"
    ran(Sweep(**DEPTHS, budget={"latency_ms": 1}, latency={"batch": [1]}), tmp_path)
    assert depths(fakes) == [1, 2, 3, 4] and "it does not export" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("latency", "message"),
    [({"runtime": "openvino"}, "no openvino"), ({"threads": 2}, "more than the 1 core")],
)
def test_a_budget_that_cannot_be_measured_is_refused(
    tmp_path: Path, fakes: Fakes, latency: dict[str, Any], message: str
) -> None:
    fakes.machine = MachineInfo(
        {1: DEVICE, 2: "2"}, {"eager": VERSIONS}, {"openvino": "no openvino"}, cores=1
    )
    with pytest.raises(UserError, match=f"cannot be measured: .*{message}"):
        ran(Sweep(**DEPTHS, budget={"latency_ms": 1}, latency=latency), tmp_path)
    assert not fakes.trained


# --- A search ---

SEARCH: dict[str, Any] = dict(**SMALL, search="optuna")


@pytest.mark.slow
def test_a_search_trains_nothing_over_budget_and_measures_each_suggestion_once(
    tmp_path: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    sweep = Sweep(
        **SEARCH, depth=tune.randint(1, 41), num_samples=6, latency={"batch": [1]},
        objectives=("val_acc", "latency_ms_p50"), budget={"latency_ms": 20},
    )  # fmt: skip
    fakes.fails_after = 3
    with pytest.raises(KeyboardInterrupt):
        ran(sweep, tmp_path)
    fakes.fails_after = math.inf
    rows = ran(sweep, tmp_path)
    assert len(rows) == 6 and max(depths(fakes)) <= 20 and len(set(depths(fakes))) == len(fakes.trained) <= 7
    assert len(set(fakes.measured)) == len(fakes.measured) > 7
    assert "6 done, " in capsys.readouterr().out
    again = ran(sweep, tmp_path)
    assert sorted(again["trial_id"]) == sorted(rows["trial_id"])


@pytest.mark.slow
def test_a_search_within_a_budget_learns_where_it_lies() -> None:
    """One in ten depths is within: of points drawn at random one would see 100 distinct ones for ten."""
    pytest.importorskip("optuna")
    sweep = Sweep(**SEARCH, depth=tune.randint(1, 1001), num_samples=20, budget={"latency_ms": 100})
    search = Search(sweep, [], NOWHERE, lambda trial: float(depth_of(trial)))
    taken = 0
    while trial := search.take():
        taken += 1
        assert depth_of(trial) <= 100
        search.ended(trial, "done", {**trial.row(), "status": "done", "val_acc": 0.5})
    assert taken == 20 and len(search.over) < 100


def test_optuna_knows_by_how_much_a_suggestion_exceeds() -> None:
    pytest.importorskip("optuna")
    sweep = Sweep(**SEARCH, depth=tune.randint(1, 11), num_samples=9, budget={"latency_ms": 5})
    search = Search(sweep, [], NOWHERE, lambda trial: float(depth_of(trial)))
    while trial := search.take():
        search.ended(trial, "done", {**trial.row(), "status": "done", "val_acc": 0.5})
    told = [one for one in search.cells[0].study.trials if one.state.name != "WAITING"]
    assert {one.params["depth"] > 5 for one in told} == {True, False}
    within = [one for one in told if one.state.name == "COMPLETE"]
    assert {excess_of(one) for one in within} == {-0.8, -0.6, -0.4, -0.2, 0} and len(search.over) == 5
    over = [one for one in told if one.params["depth"] > 5]
    assert all(excess_of(one) == pytest.approx(one.params["depth"] / 5 - 1) for one in over)


def excess_of(told: Any) -> float:
    """What Optuna knows of the one constraint of a trial, by which it is the farther from the budget."""
    constraints = (
        getattr(told, "constraints", None) or told.system_attrs["constraints"]
    )  # since 5, and before
    (value,) = constraints.values() if isinstance(constraints, dict) else constraints
    return round(float(value), 6)


def test_finished_trials_over_budget_teach_and_do_not_count() -> None:
    pytest.importorskip("optuna")
    space: dict[str, Any] = dict(**SEARCH, depth=tune.randint(1, 11), num_samples=2)
    trials = trials_of(Sweep(**SMALL, depth=tune.grid_search([2, 9])))
    rows = [{**trial.row(), "status": "done", "val_acc": 0.5} for trial in trials]
    search = Search(Sweep(**space, budget={"latency_ms": 5}), rows, NOWHERE, lambda one: float(depth_of(one)))
    assert [depth_of(trial) for trial in search.done.values()] == [2] and len(search.open) == 1
    assert [excess_of(one) for one in search.cells[0].study.trials] == [-0.6, 0.8]


@pytest.mark.slow
def test_a_search_whose_budget_nothing_meets_ends_and_names_the_nearest(
    tmp_path: Path, fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("optuna")
    sweep = Sweep(**SEARCH, depth=tune.randint(3, 7), num_samples=2, budget={"latency_ms": 1})
    with pytest.raises(UserError, match="the nearest is vit depth=3, whose latency_ms 3 exceeds 1 by 200 %"):
        ran(sweep, tmp_path)
    assert not fakes.trained and sorted(fakes.measured[1:]) == [3, 4, 5, 6]
    assert (
        f"found 0 of 2 trials of {{}}: {PATIENCE} suggestions" in caplog.text or "found 0 of 2" in caplog.text
    )


@pytest.mark.slow
def test_what_cannot_be_measured_is_not_trained_where_latency_is_aimed_at(
    tmp_path: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    fakes.error = "it does not export"
    sweep = Sweep(**SEARCH, depth=tune.randint(1, 4), objectives="latency_ms_p50", num_samples=2)
    assert ran(sweep, tmp_path).empty
    assert "not measured (3 times): vit under eager: it does not export" in capsys.readouterr().out
    assert not fakes.trained and sorted(fakes.measured[1:4]) == [1, 2, 3]


def test_a_search_for_latency_without_latency_is_refused(tmp_path: Path) -> None:
    sweep = Sweep(**SEARCH, depth=tune.randint(1, 4), objectives="latency_ms_p50")
    with pytest.raises(UserError, match="objectives: latency_ms_p50 needs latency to be measured"):
        ran(sweep, tmp_path, latency=False)


# --- And really ---


@pytest.mark.slow
def test_a_real_sweep_trains_what_is_within_its_budget(tmp_path: Path) -> None:
    space: dict[str, Any] = dict(**{**SMALL, "dim": 64, "mlp_dim": 128}, depth=tune.grid_search([1, 24]))
    own = measure_reference(DISPATCH, device="cpu", threads=1)["ms"]
    limit = 1.5 * own  # one takes a third of the reference, the other six times as long
    rows = ran(Sweep(**space, budget={"latency_ms": limit}, latency={"batch": [1]}), tmp_path)
    assert list(rows["depth"]) == [1] and rows["latency_ms_p50"].notna().all()
    measured = pd.read_parquet(tmp_path / "results/latency")
    assert sorted(measured["depth"]) == [1, 24]
