import copy
import gc
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from attnsweep.core.deployment import DISPATCH, Deployment, Subject
from attnsweep.measuring import measure, memory
from attnsweep.measuring.device import cpu_threads, pick_device
from attnsweep.measuring.memory import PeakMemory
from attnsweep.results import schema
from attnsweep.results import store as results
from attnsweep.space.trials import cost_of
from attnsweep.tasks.counting import count
from attnsweep.tasks.registry import resolve

MS = 1_000_000
COLUMNS = {column.name for column in schema.TABLES["latency"]} - {"schema_version"}
CONFIG = resolve({"model": "vit", "dataset": "digits", "depth": 1, "dim": 16, "heads": 2, "dim_head": 8})


# Counting


class Attention(nn.Module):
    """Images (b, h, n, d) through scaled dot-product attention of an input with itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(x, x, x)


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


N, D, HIDDEN = 5, 16, 32
ATTENTION_MACS = 3 * N * D * D + 2 * N * N * D + N * D * D
FEED_FORWARD_MACS = 2 * N * D * HIDDEN
ATTENTION_PARAMS = 4 * (D * D + D)
FEED_FORWARD_PARAMS = 2 * D * HIDDEN + HIDDEN + D
LAYER = nn.TransformerEncoderLayer(D, nhead=4, dim_feedforward=HIDDEN, batch_first=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape", "params", "macs"),
    [
        (nn.Linear(7, 3), (7,), 24, 21),
        (nn.Linear(7, 3, bias=False), (4, 7), 21, 4 * 21),
        (nn.Conv2d(3, 8, 3), (3, 10, 12), 8 * 28, 8 * 27 * 8 * 10),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), (4, 8, 8), 8 * 19, 8 * 18 * 16),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()), (3, 6, 6), 8 * 4 + 16, 24 * 36),
        (Attention(), (2, N, D), 0, 2 * 2 * N * N * D),
        (SelfAttention(D, 4, batch_first=True), (N, D), ATTENTION_PARAMS, ATTENTION_MACS),
        (LAYER, (N, D), ATTENTION_PARAMS + FEED_FORWARD_PARAMS + 4 * D, ATTENTION_MACS + FEED_FORWARD_MACS),
    ],
    ids=["linear", "linear-tokens", "conv", "conv-groups", "conv-norm", "sdpa", "attention", "encoder-layer"],
)
def test_counts_equal_their_closed_forms(
    model: nn.Module, shape: tuple[int, ...], params: int, macs: int
) -> None:
    counted = count(model, torch.randn(1, *shape))
    assert (counted.params, counted.macs) == (params, macs)


@pytest.mark.parametrize("model", ["cnn", "vit", "deepvit", "hybrid"])
def test_counts_of_built_models_equal_the_plan(model: str) -> None:
    from attnsweep.tasks.registry import build

    config = resolve({"model": model, "dataset": "cifar10"})
    assert count(build(config), torch.zeros(1, 3, 32, 32)) == cost_of(config)


def test_macs_are_those_of_one_example_whatever_the_batch() -> None:
    assert count(LAYER, torch.randn(6, N, D)) == count(LAYER, torch.randn(1, N, D))


def test_frozen_parameters_do_not_count_but_their_arithmetic_does() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
    model[0].requires_grad_(False)
    counted = count(model, torch.randn(1, 4))
    assert (counted.params, counted.macs) == (36, 20 + 30)


def test_a_frozen_encoder_layer_counts_in_full() -> None:
    frozen = copy.deepcopy(LAYER).requires_grad_(False)
    counted = count(frozen, torch.randn(1, N, D))
    assert (counted.params, counted.macs) == (0, ATTENTION_MACS + FEED_FORWARD_MACS)


def test_tied_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert count(model, torch.randn(1, 4)).params == 16 + 4 + 4


def test_counting_leaves_model_fast_path_and_gradient_mode_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.backends.mha.set_fastpath_enabled(True)
    with torch.no_grad():
        count(model, torch.randn(2, 3, 8, 8))
        assert not torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
    assert model.training and all(module.training for module in model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_fast_path_comes_back_when_counting_fails() -> None:
    torch.backends.mha.set_fastpath_enabled(True)
    with pytest.raises(RuntimeError):
        count(nn.Linear(7, 3), torch.randn(1, 8))
    assert torch.backends.mha.get_fastpath_enabled()


# Device events


@dataclass
class FakeCuda:
    """Events that note the device's time, which the calls advance."""

    now_ms: float = 0.0
    synchronised: int = 0

    def Event(self, *, enable_timing: bool) -> "FakeEvent":
        assert enable_timing
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.synchronised += 1

    def call(self) -> None:
        self.now_ms += 3


@dataclass
class FakeEvent:
    cuda: FakeCuda
    at_ms: float = math.nan

    def record(self) -> None:
        self.at_ms = self.cuda.now_ms

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert self.cuda.synchronised
        return end.at_ms - self.at_ms


def test_device_events_give_the_time_per_call_after_one_synchronisation() -> None:
    cuda = FakeCuda()
    assert measure.event_ms(cuda.call, calls=40, cuda=cuda) == 3
    assert cuda.synchronised == 1


# Rows

OF_OTHERS = {  # of GPUs, of sequences, of other runtimes, of int8, of what fails
    "device_ms", "latency_ms_per_token", "max_abs_diff", "val_acc", "test_acc", "trial_id", "error",
}  # fmt: skip


class Witness(nn.Module):
    """Notes in what circumstances it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.seen: set[tuple[object, ...]] = set()
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "meta":
            autocast = torch.is_autocast_enabled("cpu")
            state = (torch.is_inference_mode_enabled(), autocast, gc.isenabled(), torch.get_num_threads())
            self.seen.add((*state, self.training, tuple(x.shape)))
            self.inputs.append(x)
        return self.layer(x.mean(dim=(1, 2, 3))[:, None])


SUBJECT = Subject("0" * 12, CONFIG)


def row_of(model: nn.Module, **deployment: Any) -> results.Row:
    """A measured row of a model that takes digits."""
    return measure.measure(model, SUBJECT, Deployment(**deployment), device="cpu", reference_ms=0.5)


@pytest.mark.slow
def test_calls_are_timed_in_the_stated_circumstances() -> None:
    model = Witness().train()
    row_of(model, batch=3)
    assert model.seen == {(True, False, False, 1, False, (3, 1, 8, 8))}
    assert all(x is model.inputs[0] for x in model.inputs)


@pytest.mark.slow
def test_threads_and_garbage_collection_are_as_before() -> None:
    with cpu_threads(2):
        row_of(model := Witness(), threads=1)
        assert torch.get_num_threads() == 2
    assert gc.isenabled()
    assert {threads for _, _, _, threads, *_ in model.seen} == {1}


@pytest.mark.slow
def test_threads_are_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), cpu_threads(2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_measured_architecture_fills_every_column_of_the_table() -> None:
    subject = Subject("0123456789ab", CONFIG)
    row = measure.measure_architecture(subject, Deployment(batch=2), device="cpu", reference_ms=0.5)
    assert row.keys() == COLUMNS
    lacking = {key for key in COLUMNS if key in CONFIG and CONFIG[key] is None}
    assert {key for key, value in row.items() if value is None} == lacking | OF_OTHERS
    percentiles = [row[f"latency_ms_p{p}"] for p in (10, 50, 90, 99)]
    assert percentiles == sorted(percentiles)
    assert row["latency_ms_low"] <= row["latency_rel"] * row["reference_ms"] <= row["latency_ms_high"]
    assert row["throughput_per_s"] == pytest.approx(2e3 / row["latency_ms_p50"])
    assert (row["params"], row["macs"]) == (cost_of(CONFIG).params, cost_of(CONFIG).macs)
    assert row["measured_on"].endswith(", 1 thread") and row["versions"].startswith("torch ")
    assert row["arch_id"] == "0123456789ab" and row["depth"] == 1 and row["batch"] == 2


@pytest.mark.slow
def test_a_reference_is_measured_where_its_time_is_not_given() -> None:
    row = measure.measure_reference(DISPATCH, device="cpu", threads=1)
    assert row.keys() == {column.name for column in schema.TABLES["references"]} - {"schema_version"}
    assert row["ms"] > 0 and row["reference"] == DISPATCH.name
    found = measure.measure(Witness(), SUBJECT, Deployment(), device="cpu")
    assert found["reference"] == DISPATCH.name and found["reference_ms"] > 0


@pytest.mark.slow
def test_a_measured_row_comes_back_from_parquet(tmp_path: Path) -> None:
    row = row_of(Witness())
    results.Store(tmp_path).write("latency", [row], "one")
    (back,) = results.Store(tmp_path).read("latency").to_pylist()
    assert {**row, "schema_version": schema.SCHEMA_VERSION} == back


# Memory


class Failing(nn.Module):
    """Fails with an error wherever there are values."""

    def __init__(self, fail: Callable[[], object]) -> None:
        super().__init__()
        self.fail = fail

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "meta":
            self.fail()
        return x


def cuda_runs_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def openvino_runs_out() -> None:
    raise RuntimeError(
        "Check 'ptr' failed at cpu_memory.cpp:257: Failed to allocate 8704000000 bytes of memory"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail", "deployment"),
    [
        (cuda_runs_out, {}),
        (lambda: torch.empty(2**58), {}),
        (lambda: torch.empty(2**58), {"precision": "bf16"}),
        (openvino_runs_out, {"precision": "bf16"}),
        (lambda: np.empty(2**58), {}),
    ],
)
def test_a_batch_that_does_not_fit_is_named_not_lowered(
    fail: Callable[[], object], deployment: dict[str, Any]
) -> None:
    row = row_of(Failing(fail), batch=256, **deployment)
    assert re.fullmatch(r"batch=256 does not fit into the memory of .+, 1 thread; not measured", row["error"])
    assert row["latency_ms_p50"] is None and row["batch"] == 256


@pytest.mark.slow
def test_an_error_of_the_model_is_in_its_row() -> None:
    row = row_of(Failing(lambda: torch.ones(2, 3) @ torch.ones(2, 3)))
    assert "shapes cannot be multiplied" in row["error"] and row["latency_ms_p50"] is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_peak_memory_sees_what_was_freed_and_starts_anew() -> None:
    before = PeakMemory("cpu")
    base = before.mb()
    block = torch.ones(50_000_000)  # 200 MB
    del block
    peak = before.mb()
    assert peak >= base + 190
    assert PeakMemory("cpu").mb() <= peak - 150 or not can_reset()


def can_reset() -> bool:
    """Whether this process may reset its peak."""
    try:
        (memory.SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def test_peak_memory_without_proc_is_the_one_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = memory.peak_resident()
    monkeypatch.setattr(memory, "SELF", tmp_path / "missing")
    assert PeakMemory("cpu").mb() * 1e6 >= here * 0.5


# Devices


@pytest.mark.parametrize(
    ("gpu", "cuda", "mps", "expected"),
    [
        (0.25, True, False, "cuda"),
        (0, True, False, "cpu"),
        (1, False, False, "cpu"),
        (0, False, True, "mps"),
        (0.5, False, True, "mps"),
    ],
)
def test_the_device_follows_the_share_of_a_gpu(
    gpu: float, cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device(gpu) == expected


@pytest.mark.slow
def test_measuring_needs_no_ray() -> None:
    code = "import sys, attnsweep.measuring.measure; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_row_has_device_time_and_allocated_memory() -> None:
    deployment = Deployment(batch=64, precision="bf16")
    row = measure.measure_architecture(SUBJECT, deployment, device="cuda", reference_ms=0.5)
    assert row["device_ms"] > 0
    assert row["peak_mem_mb"] * 1e6 >= 4 * row["params"]
    assert "thread" not in row["measured_on"]
