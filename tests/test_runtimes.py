import itertools
import os
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from attnsweep.core import runtimes as known
from attnsweep.core.errors import UserError
from attnsweep.measuring.runtimes import RUNTIMES, Inference, Prepared, Unavailable, prepare, versions_of
from attnsweep.measuring.runtimes import graph as graphs
from attnsweep.measuring.runtimes.onnx_sessions import opened
from attnsweep.measuring.runtimes.outputs import answered, apart_from, difference, tensors_of
from attnsweep.measuring.runtimes.quantised import accuracy
from attnsweep.tasks.images import training
from attnsweep.tasks.registry import build, procedure, resolve

SMALL = {"dataset": "digits", "depth": 1, "dim": 16, "heads": 2, "dim_head": 8, "mlp_dim": 32}
CNN = {"model": "cnn", "dataset": "digits"}
VIT = {"model": "vit", **SMALL}
CCT = {"model": "cct", **{key: value for key, value in SMALL.items() if key != "dim_head"}}
GRAPHS = ("onnxruntime", "openvino")


@pytest.fixture(autouse=True)
def weights_are_fixed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def prepared(
    runtime: str,
    point: dict[str, Any],
    *,
    model: nn.Module | None = None,
    precision: str = "fp32",
    batch: int = 1,
    **options: Any,
) -> Prepared:
    config = resolve(point)
    inputs = procedure(config["task"]).example(config, batch)
    ready = model or build(config).eval()
    return prepare(runtime, Inference(ready, inputs, config, precision=precision, **options))


# What is computed


@pytest.mark.slow
@pytest.mark.parametrize("runtime", GRAPHS)
@pytest.mark.parametrize("point", [CNN, VIT, CCT], ids=lambda point: point["model"])
def test_a_runtime_computes_what_eager_computes(runtime: str, point: dict[str, Any]) -> None:
    model = build(resolve(point)).eval()
    found = prepared(runtime, point, model=model, batch=3)
    wanted = answered(prepared("eager", point, model=model, batch=3).call)
    assert [tensor.shape for tensor in answered(found.call)] == [(3, 10)]
    assert torch.allclose(answered(found.call)[0], wanted[0], atol=1e-4)
    assert found.max_abs_diff is not None and found.max_abs_diff < 1e-4


def test_eager_in_fp32_is_what_others_are_held_against() -> None:
    assert prepared("eager", VIT).max_abs_diff is None


@pytest.mark.slow
def test_a_compiled_model_computes_what_eager_computes_and_leaves_no_files(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(inductor, "cpp_cache_precompile_headers", False)  # for one kernel they take longest
    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", False)  # else a program is compiled for each kind
    small = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10), nn.GELU()).eval()
    found = prepared("compile", VIT, model=small)
    assert found.max_abs_diff is not None and found.max_abs_diff < 1e-4
    assert not list(tmp_path.iterdir())


class Pretending(nn.Module):
    """Answers otherwise while it is exported."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) + (1 if torch.compiler.is_exporting() else 0)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", GRAPHS)
def test_a_runtime_that_computes_something_else_is_never_timed(runtime: str) -> None:
    with pytest.raises(Unavailable, match="computes something else: output 0 differs by"):
        prepared(runtime, VIT, model=Pretending().eval())


class Looking(nn.Module):
    """Decides by what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", GRAPHS)
def test_a_model_that_no_exporter_can_follow_has_a_reason_of_one_line(runtime: str) -> None:
    with pytest.raises(Unavailable, match=f"{runtime} cannot run it in fp32: ") as raised:
        prepared(runtime, VIT, model=Looking().eval())
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_differences_are_relative_to_the_scale_of_an_output() -> None:
    large = [torch.tensor([1e4, -1.0])]
    assert difference([torch.tensor([1e4 + 2, -1.0])], large, precision="fp32") == 2
    with pytest.raises(Unavailable, match=r"differs by 2 from eager's, whose largest value is 1; 0\.001 of"):
        difference([torch.tensor([3.0])], [torch.tensor([1.0])], precision="fp32")
    with pytest.raises(Unavailable, match="not finite"):
        difference([torch.tensor([torch.nan])], [torch.tensor([1.0])], precision="fp32")
    with pytest.raises(Unavailable, match="other shapes"):
        difference([torch.ones(2)], [torch.ones(1)], precision="fp32")
    assert difference([torch.tensor([torch.nan])], [torch.tensor([torch.nan])], precision="fp32") == 0


@dataclass
class Answer:
    first: Tensor
    others: list[dict[str, Tensor] | None]
    word: str = "no tensor"


def test_nothing_is_held_against_an_answer_that_changes_from_call_to_call() -> None:
    counter, fixed = itertools.count(1.0), torch.ones(3)
    with pytest.raises(Unavailable, match="its own answer to one input changes from call to call"):
        apart_from(lambda: fixed, lambda: next(counter) * fixed, precision="fp32")
    assert apart_from(lambda: 1.0005 * fixed, lambda: fixed, precision="fp32") == pytest.approx(
        5e-4, rel=0.01
    )


def test_the_tensors_of_an_answer_come_in_order() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert [float(one) for one in tensors_of(Answer(a, [None, {"b": b}]))] == [0, 1]


# Precision


def test_bf16_casts_a_copy_once_and_leaves_the_model() -> None:
    model = build(resolve(VIT)).eval()
    found = prepared("eager", VIT, model=model, precision="bf16")
    assert found.max_abs_diff is not None and 0 < found.max_abs_diff < 0.1
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in tensors_of(found.call())} == {torch.bfloat16}


@pytest.mark.slow
def test_onnx_runtime_has_no_kernels_for_bf16_on_a_cpu() -> None:
    with pytest.raises(Unavailable, match="precision='bf16' finds no kernels for the CPU"):
        prepared("onnxruntime", VIT, precision="bf16")
    graph = graphs.exported(nn.Linear(2, 2).bfloat16().eval(), [torch.zeros(1, 2, dtype=torch.bfloat16)])
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        opened(graph.SerializeToString(), device="cpu", threads=1)


@pytest.mark.slow
def test_int8_is_judged_on_the_images_it_was_not_calibrated_on(tmp_path: Path) -> None:
    config = resolve(CNN)
    data, model = training.load_for(config, str(tmp_path), "cpu"), build(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for batch in training.batches(data, config | {"batch_size": 32}, epoch=0, order=torch.Generator()):
        optimizer.zero_grad()
        training.loss(model, batch, config).backward()
        optimizer.step()
    with torch.no_grad():
        judged = training.judge(model.eval(), data, config)
    found = accuracy(model, data, threads=1)
    assert found.keys() == {"val_acc", "test_acc"}
    assert judged["test_acc"] > 0.8 and abs(found["test_acc"] - judged["test_acc"]) < 0.03
    assert prepared("onnxruntime", CNN, model=model, precision="int8").max_abs_diff > 0


# What cannot be


def test_what_decodes_token_by_token_runs_eagerly_alone() -> None:
    point = {"model": "transformer", "length": 4, "dim": 16, "heads": 2, "depth": 1, "mlp_dim": 16}
    assert prepared("eager", point).max_abs_diff is None
    for runtime in RUNTIMES[1:]:
        with pytest.raises(Unavailable, match="decodes its answer token by token"):
            prepared(runtime, point)


def test_a_runtime_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known.PACKAGES, "openvino", (("onnxscript",), ("no-such-package",)))
    with pytest.raises(Unavailable, match=r"needs no-such-package; pip install 'attnsweep\[openvino\]'"):
        versions_of("openvino")
    with pytest.raises(UserError, match=r"runtime='openvno' is unknown, did you mean 'openvino'"):
        versions_of("openvno")


def test_versions_name_all_that_determines_a_latency() -> None:
    assert [part.split()[0] for part in versions_of("onnxruntime").split(", ")] == [
        "torch", "onnxscript", "onnxruntime",
    ]  # fmt: skip
    assert versions_of("eager").startswith("torch ")


def test_cuda_graphs_and_int8_say_what_they_are_for() -> None:
    with pytest.raises(Unavailable, match="is for CUDA devices, and this one is cpu"):
        prepared("cudagraphs", VIT)
    with pytest.raises(Unavailable, match="precision='int8' is for runtime='onnxruntime'"):
        prepared("openvino", VIT, precision="int8")


# What is left behind


@pytest.mark.slow
@pytest.mark.parametrize("runtime", GRAPHS)
def test_one_thread_computes_and_nothing_is_left_behind(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    before = len(os.listdir("/proc/self/task"))
    prepared(runtime, VIT)
    assert len(os.listdir("/proc/self/task")) == before
    assert not list(tmp_path.iterdir())


# The exporter's second trace, which is spared


class Written(nn.Module):
    """Changes what it holds in place: a tensor that is read by that name alone, or by another one too."""

    def __init__(self, *, otherwise: bool) -> None:
        super().__init__()
        self.otherwise = otherwise

    def forward(self, images: Tensor) -> Tensor:
        tokens = 2 * images.flatten(1)
        if not self.otherwise:
            return tokens.view(-1).add_(1).sum() + images.sum()
        seen = tokens.view(-1)
        return tokens.add_(1) * seen.sum()


class Spread(nn.Module):
    """What has no translation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        images = self.norm(images).to(torch.float64).to(torch.float32) + rows - 2 * columns
        ranks = torch.searchsorted(images.flatten(1).sort().values.contiguous(), images.flatten(1))
        means = nn.functional.adaptive_avg_pool2d(images, 1).flatten(1)
        spread = images.var(dim=(2, 3), unbiased=True) + images.var(dim=(2, 3), unbiased=False, keepdim=True)
        return torch.cat([ranks, means, spread.flatten(1)], dim=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "spared"),
    [(Written(otherwise=False), True), (Written(otherwise=True), False), (Spread(), True)],
)
def test_the_second_trace_is_spared_only_where_nothing_else_comes_out(
    model: nn.Module, spared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = []
    trace = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram,
        "run_decompositions",
        lambda program, table: (traces.append(program), trace(program, table))[1],
    )
    found = prepared("onnxruntime", VIT, model=model.eval(), batch=2)
    assert found.max_abs_diff is not None and found.max_abs_diff < 1e-4
    assert (not traces) == spared


@pytest.mark.slow
def test_a_graph_is_exported_once_for_all_runtimes_until_the_weights_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exports = []
    export = graphs.exported
    monkeypatch.setattr(
        graphs, "exported", lambda *args, **named: (exports.append(1), export(*args, **named))[1]
    )
    model = build(resolve(CNN)).eval()
    for runtime, threads in (("onnxruntime", 1), ("onnxruntime", 2), ("openvino", 1)):
        prepared(runtime, CNN, model=model, threads=threads)
    assert len(exports) == 1
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert prepared("openvino", CNN, model=model).max_abs_diff is not None
    prepared("openvino", CNN, model=model, batch=2)
    assert len(exports) == 3


@pytest.mark.slow
@pytest.mark.parametrize("runtime", GRAPHS)
def test_the_calling_thread_computes(runtime: str) -> None:
    call = prepared(runtime, {"model": "vit", "dataset": "mnist"}).call
    call()
    switched = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(20):
        call()
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - switched < 10  # it waited for nobody
