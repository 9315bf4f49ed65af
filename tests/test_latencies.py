"""Which measurements stand in the rows of trials, and that those of several kinds never mix."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import attnsweep
from attnsweep import UserError
from attnsweep.__main__ import main
from attnsweep.answers import pareto, selection
from attnsweep.cli import measure
from attnsweep.core.deployment import Deployment, Deployments, Subject
from attnsweep.engine import runner
from attnsweep.engine.latency import Tally
from attnsweep.figures import front
from attnsweep.results import latencies, schema
from attnsweep.results.store import Store

START = datetime(2026, 1, 1, tzinfo=UTC)


def measured(ms: float | None = 1.0, **columns: Any) -> dict[str, Any]:
    """A row of `latency`."""
    found = {name: None for name in latencies.NAMES} | {
        "arch_id": "a", "measured_on": "Xeon, 1 thread", "runtime": "eager", "versions": "torch 2",
        "batch": 1,
        "precision": "fp32", "latency_ms_p50": ms, "unstable": False, "throughput_per_s": 1e3,
        "measured_at": START,
    }  # fmt: skip
    return found | columns


def trial(trial_id: str = "t", **columns: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "arch_id": "a", "precision": "fp32", "measured_on": None} | columns


def joined(rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """What the one trial gets."""
    options = {"runtime": "eager", **options}
    return dict(latencies.of_trials([options.pop("trial", trial())], rows, **options)).get("t", {})


def test_a_trial_gets_the_smallest_batch_and_the_throughput_of_the_largest() -> None:
    rows = [measured(8.0, batch=256, throughput_per_s=32e3), measured(1.0, batch=1), measured(2.0, batch=32)]
    found = joined(rows)
    assert (found["latency_ms_p50"], found["latency_batch"], found["throughput_per_s"]) == (1.0, 1, 32e3)
    assert joined(rows[1:2])["throughput_per_s"] is None, "batch 1 is no throughput batch"


def test_runtimes_precisions_and_failures_do_not_mix() -> None:
    rows = [measured(1.0), measured(0.3, runtime="onnxruntime"), measured(0.5, precision="bf16")]
    assert joined(rows)["latency_ms_p50"] == 1.0
    assert joined(rows, runtime="onnxruntime")["runtime"] == "onnxruntime"
    assert joined(rows, trial=trial(precision="bf16"))["latency_ms_p50"] == 0.5
    assert joined([measured(None, error="no")]) == {}
    assert joined(rows, runtime="openvino") == {}


def test_a_trial_keeps_its_device_unless_another_is_asked_for() -> None:
    later = START + timedelta(hours=1)
    rows = [measured(1.0), measured(9.0, measured_on="Pi, 1 thread", measured_at=later)]
    assert joined(rows, trial=trial(measured_on="Xeon, 1 thread"))["latency_ms_p50"] == 1.0
    assert joined(rows)["latency_ms_p50"] == 9.0, "the last one"
    assert joined(rows, measured_on="Xeon, 1 thread")["latency_ms_p50"] == 1.0
    assert joined(rows, measured_on="H100") == {}


def test_of_several_versions_the_last_one_counts_whole() -> None:
    later = START + timedelta(hours=1)
    rows = [
        measured(1.0), measured(8.0, batch=256, throughput_per_s=32e3),
        measured(0.9, versions="torch 3", measured_at=later),
    ]  # fmt: skip
    found = joined(rows)
    assert (found["latency_ms_p50"], found["throughput_per_s"]) == (0.9, None)
    assert joined(rows, versions="torch 2")["latency_ms_p50"] == 1.0, "those that are here"
    assert joined(rows, versions="torch 4")["latency_ms_p50"] == 0.9, "not measured yet"


@pytest.fixture
def results(tmp_path: Path) -> str:
    """A trial that was measured under two runtimes."""
    store = Store(tmp_path)
    point = {"status": "done", "model": "vit", "dataset": "digits", "task": "images", "seed": 0}
    row = trial(
        "0" * 12,
        **point,
        val_acc=0.9,
        test_acc=0.9,
        params=10,
        latency_ms_p50=1.0,
        runtime="eager",
        latency_batch=1,
    )
    store.write("trials", [row | {"measured_on": "Xeon, 1 thread"}], "one")
    rows = [measured(1.0), measured(0.3, runtime="onnxruntime", unstable=True)]
    known = [{key: value for key, value in row.items() if key in LATENCY} for row in rows]
    store.write("latency", known, "all")
    return str(tmp_path)


LATENCY = {column.name for column in schema.LATENCY}


@pytest.mark.slow
def test_load_takes_the_latency_of_one_runtime(results: str) -> None:
    (first,) = attnsweep.load(results).to_dict("records")
    assert (first["latency_ms_p50"], first["runtime"]) == (1.0, "eager")
    (other,) = attnsweep.load(results, runtime="onnxruntime").to_dict("records")
    assert (other["latency_ms_p50"], other["latency_unstable"]) == (0.3, True)
    with pytest.raises(
        UserError, match="nothing was measured under runtime='openvino', only under eager, onnx"
    ):
        attnsweep.load(results, runtime="openvino")
    with pytest.raises(UserError, match="runtime='onnxruntme' is unknown, did you mean 'onnxruntime'"):
        attnsweep.load(results, runtime="onnxruntme")
    other = {key: value for key, value in measured(runtime="openvino", arch_id="b").items() if key in LATENCY}
    Store(results).write("latency", [other], "of another architecture")
    assert attnsweep.load(results, runtime="openvino", all_columns=True)["latency_ms_p50"].isna().all()


def test_load_takes_the_latency_on_one_device(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also on one that the rows do not name: the other kind of machine of a cluster, other threads."""
    gpu = {"measured_on": "an H200", "measured_at": START - timedelta(days=1)}
    rows = [measured(0.1, **gpu), measured(0.04, runtime="onnxruntime", **gpu)]
    known = [{key: value for key, value in row.items() if key in LATENCY} for row in rows]
    Store(results).write("latency", known, "other")
    (shown,) = attnsweep.load(results).to_dict("records")
    assert shown["measured_on"] == "Xeon, 1 thread"
    (other,) = attnsweep.load(results, measured_on="an H200").to_dict("records")
    assert (other["latency_ms_p50"], other["runtime"], other["measured_on"]) == (0.1, "eager", "an H200")
    (both,) = attnsweep.load(results, measured_on="an H200", runtime="onnxruntime").to_dict("records")
    assert both["latency_ms_p50"] == 0.04
    with pytest.raises(UserError, match=r"measured_on='H200'.*; there are Xeon, 1 thread; an H200"):
        attnsweep.load(results, measured_on="H200")
    Store(results).write("latency", [{**known[0], "measured_on": "a Pi", "latency_ms_p50": 9.0}], "third")
    with pytest.raises(UserError, match="measured on a Pi under onnxruntime, only under eager; choose it"):
        attnsweep.load(results, measured_on="a Pi", runtime="onnxruntime")
    (row,) = Store(results).read("trials").to_pylist()
    Store(results).write("trials", [{**row, "runtime": "onnxruntime"}], "one")  # measured last under that
    assert attnsweep.load(results, measured_on="a Pi")["latency_ms_p50"].tolist() == [9.0], "eager's"
    Store(results).write("trials", [row], "one")
    assert main(["pick", "--results", results, "--latency-ms", "0.5", "--measured-on", "an H200"]) == 0
    assert "0.1" in capsys.readouterr().out
    Store(results).write("trials", [trial("1" * 12, status="done", measured_on="by hand", runtime="eager",
                                          latency_ms_p50=7.0, arch_id="b")], "two")  # fmt: skip
    rows_by_id = attnsweep.load(results, measured_on="by hand").set_index("trial_id")["latency_ms_p50"]
    assert rows_by_id["1" * 12] == 7.0 and pd.isna(rows_by_id["0" * 12]), "which has no row of latency"


def test_runtimes_share_no_front(results: str) -> None:
    both = pd.concat([attnsweep.load(results), attnsweep.load(results, runtime="onnxruntime")])
    with pytest.raises(UserError, match="rows that differ in runtime cannot be compared"):
        attnsweep.front(both)
    with pytest.raises(UserError, match="choose one with --runtime"):
        selection.of_device(both)


@pytest.mark.slow
def test_fronts_of_two_runtimes_are_drawn_beside_each_other(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from attnsweep.figures import front

    assert front.main([results, "--runtime", "onnxruntime,eager", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    heads = [line for line in printed.splitlines() if "on the front" in line]
    assert heads == [
        f"digits, latency_ms_p50 under {name}: 1 of 1 setting on the front"
        for name in ("onnxruntime", "eager")
    ]
    svg = (tmp_path / "pareto.svg").read_text()
    assert "digits, onnxruntime" in svg and "digits, eager" in svg
    with pytest.raises(SystemExit):
        front.main([results, "--runtime", "eager,tensorrt"])
    assert "'tensorrt' is no runtime; those are eager, compile" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_unstable_is_marked_in_figure_and_table(results: str) -> None:
    from attnsweep.figures import panels, table

    (steady,), (unsure,) = (
        [row for _, row in pareto.over_seeds(attnsweep.load(results, runtime=name)).iterrows()]
        for name in ("eager", "onnxruntime")
    )
    show = table.milliseconds("latency_ms_p50")
    assert (show(steady), show(unsure)) == ("1.00", "~0.300")
    between = {"latency_ms_low": 0.2, "latency_ms_high": 0.4}
    assert panels.unsure(pd.Series({**steady, **between}), "latency_ms_p50") is None
    assert panels.unsure(pd.Series({**unsure, **between}), "latency_ms_p50") == (0.2, 0.4)
    assert panels.unsure(pd.Series({**unsure, **between}), "params") is None


# What is asked for


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"status": "failed"}, "has no done trial; there are 1 failed; the column error says why"),
        ({"params": 0}, "models without parameters have none"),
        ({}, "no row satisfies 'depth == 7'"),
    ],
)
def test_nothing_to_measure_is_a_sentence(results: str, row: dict[str, Any], sentence: str) -> None:
    known = Store(results).read("trials").to_pylist()[0]
    Store(results).write("trials", [{**known, **row}], "one")
    with pytest.raises(UserError, match=sentence):
        runner.measure(results, Deployments(), where=None if row else "depth == 7", in_process=True)


@pytest.mark.parametrize(("found", "status"), [(["a", "b"], 0), (["b"], 1), ([], 1)])
def test_an_architecture_that_cannot_be_built_any_more_is_no_figure(
    results: str, found: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Store(results).read("trials").to_pylist()[0]
    Store(results).write("trials", [row, {**row, "trial_id": "1" * 12, "arch_id": "b"}], "one")
    subjects = {(name, "fp32"): Subject(name, {}) for name in found}
    backend = SimpleNamespace(request=lambda asked: {"gpu": 0})
    opened: list[bool] = []
    monkeypatch.setattr(runner, "subjects_of", lambda *_, **__: subjects)
    monkeypatch.setattr(
        runner, "opened", lambda *_, **__: opened.append(True) or contextlib.nullcontext((backend, None))
    )
    monkeypatch.setattr(runner, "measure_latency", lambda *_, **__: Tally(known=len(found)))
    assert runner.measure(results, Deployments()) == status
    assert bool(opened) is bool(found), "no cluster is started for nothing"


def test_deployments_are_all_combinations() -> None:
    both = ["eager", "onnxruntime"]
    asked = Deployments.of({"runtime": both, "batch": 1, "threads": (1, 2), "precision": "bf16"})
    assert [*asked.each("fp32")] == [
        Deployment(runtime, 1, "bf16", threads) for runtime in both for threads in (1, 2)
    ]
    assert {one.precision for one in Deployments().each("bf16")} == {"bf16"}, "as it was trained"


def test_options_may_be_given_several_times_and_values_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Any, Any]] = []
    monkeypatch.setattr(
        runner,
        "measure",
        lambda results, asked, *, where, lengths, **_: calls.append((asked, where, lengths)) or 0,
    )
    given = ["--runtime", "eager,eager", "--runtime", "openvino,eager", "--batch", "1,32", "--batch", "01"]
    given += ["--threads", "2,2", "--length", "8,8", "--length", "9", "--where", "a", "--where", "b or c"]
    assert measure.main(given) == 0
    assert calls == [
        (Deployments(("eager", "openvino"), (1, 32), (2,)), "(a) and (b or c)", [8, 8, 9]),
    ]
    assert front.arguments(["--runtime", "eager", "--runtime", "openvino"]).runtime == ["eager", "openvino"]


@pytest.mark.parametrize("value", ["", ",", "onnx", "eager,onnx"])
def test_what_is_no_runtime_is_refused_by_name(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        front.arguments(["--runtime", value])
    assert "is no runtime; those are eager, compile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"runtime": "onnx"}, "latency: runtime='onnx' is unknown"),
        ({"runtime": []}, "latency: runtime names no value"),
        ({"batch": 0}, "latency: batch=0 is out of range"),
        ({"batch": [True]}, "latency: batch=True is out of range"),
        ({"threads": ["two"]}, "latency: threads='two' is out of range"),
        ({"precision": "fp8"}, "latency: precision='fp8' is unknown"),
        ({"precision": ["fp32", "int8"]}, "latency: precision='int8' is for runtime='onnxruntime'"),
        ({"batches": 1}, "latency: 'batches' is unknown, did you mean 'batch'"),
        ("eager", "latency='eager' is not a dict"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_value(asked: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        attnsweep.Sweep(model="vit", latency=asked)
    assert str(error.value).startswith(sentence)
