"""What an architecture costs on this machine: parameters, multiply-accumulates, latency, memory.

Published latencies are often wrong in the same few ways: no synchronisation with the GPU, no warm-up, many
models in one drifting process. So here: evaluation and inference mode; one fixed random input that lies on
the device; warm-up until the times settle; every timed call synchronised; quantiles, not a mean; and a flag
on what stayed unstable. A fresh process per architecture, with the device to itself, is for the caller.
"""

import contextlib
import functools
import gc
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnsweep.core.containment import ensured
from attnsweep.core.source import Source
from attnsweep.results import provenance
from attnsweep.results.schema import ARCHITECTURE
from attnsweep.results.store import Row
from attnsweep.tasks import own
from attnsweep.tasks.counting import count
from attnsweep.tasks.registry import AXES, build, procedure

WINDOW_CALLS, WINDOW_NS = 2, 100_000_000  # five windows: at least 10 calls and 0.5 s
WINDOWS, AGREEMENT = 5, 0.02
WARMUP_MOST_NS = 5_000_000_000  # a machine that has not settled by then will not
LEAST_CALLS, MOST_NS = 10, 2_000_000_000
ENOUGH_CALLS, ENOUGH_NS = 200, 500_000_000
UNSTABLE_IQR = 0.1
SELF = Path("/proc/self")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # CUDA and MPS; CPU
Call = Callable[[], object]
Clock = Callable[[], int]


def pick_device(gpu: float = 0) -> str:
    """`cuda` for who has a share of a GPU, else `mps` where there is one, else `cpu`."""
    if gpu > 0 and torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True)
class Timings:
    """The times of the timed calls in nanoseconds, at least two, and how many calls went before them."""

    ns: tuple[int, ...]
    warmup_calls: int

    @functools.cached_property
    def percentiles_ms(self) -> list[float]:
        """The 1st to 99th percentile in milliseconds, interpolated linearly as numpy does."""
        return [ns / 1e6 for ns in statistics.quantiles(self.ns, n=100, method="inclusive")]

    def ms(self, percentile: int) -> float:
        """The percentile, 1 to 99, in milliseconds."""
        return self.percentiles_ms[percentile - 1]

    @property
    def iqr_ms(self) -> float:
        return self.ms(75) - self.ms(25)

    @property
    def unstable(self) -> bool:
        return self.iqr_ms > UNSTABLE_IQR * self.ms(50)


def time_calls(call: Call, synchronise: Call, *, clock: Clock = time.perf_counter_ns) -> Timings:
    """Times `call`, each with the `synchronise` after it, by a clock in nanoseconds, once it has warmed up.

    Stops when it has 200 calls and 0.5 s, or 2 s, but not before 10 calls: a quick model gets its p99 from
    many calls, a slow one does not take minutes.
    """

    def timed() -> int:
        start = clock()
        call()
        synchronise()
        return clock() - start

    synchronise()
    warmup_calls = warm_up(timed)
    return Timings(tuple(repeat(timed, enough)), warmup_calls)


def enough(calls: int, ns: int) -> bool:
    """Whether so many timed calls, which took so long together, will do."""
    return calls >= LEAST_CALLS and (ns >= MOST_NS or (calls >= ENOUGH_CALLS and ns >= ENOUGH_NS))


def warm_up(timed: Callable[[], int]) -> int:
    """Calls `timed` until the medians of five windows in a row agree; returns how often it called.

    A window is at least 2 calls and 0.1 s, so five are at least 10 calls and 0.5 s. Gives up after 5 s.
    """
    medians: list[float] = []
    calls = spent = 0
    while not settled(medians) and (len(medians) < WINDOWS or spent < WARMUP_MOST_NS):
        window = repeat(timed, window_is_full)
        medians.append(statistics.median(window))
        calls, spent = calls + len(window), spent + sum(window)
    return calls


def window_is_full(calls: int, ns: int) -> bool:
    """Whether so many calls, which took so long together, make a window of the warm-up."""
    return calls >= WINDOW_CALLS and ns >= WINDOW_NS


def settled(medians: list[float]) -> bool:
    """Whether there are five medians and the last five agree within 2 %."""
    last = medians[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= (1 + AGREEMENT) * min(last)


def repeat(timed: Callable[[], int], stop: Callable[[int, int], bool]) -> list[int]:
    """The times of as many calls as it takes until `stop(calls, total ns)`."""
    times: list[int] = []
    total = 0
    while not stop(len(times), total):
        times.append(timed())
        total += times[-1]
    return times


def event_ms(call: Call, *, calls: int, cuda: Any = torch.cuda) -> float:
    """Milliseconds per call between two events on the GPU, which is synchronised once, at the end."""
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    cuda.synchronize()
    return float(start.elapsed_time(end)) / calls


class PeakMemory:
    """Peak memory in MB (1e6 bytes) since this object was made: allocated by torch on CUDA, else resident.

    What is resident includes the interpreter and torch itself: several hundred MB. Where the system cannot
    reset the peak (Linux can), it is that of the whole life of the process.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak_resident()

    def mb(self) -> float:
        """The peak until now, in MB."""
        return (torch.cuda.max_memory_allocated() if self.device == "cuda" else peak_resident()) / 1e6


def reset_peak_resident() -> None:
    """Sets the peak back to what is resident now (man 5 proc_pid_clear_refs), where the system allows it."""
    with contextlib.suppress(OSError):
        (SELF / "clear_refs").write_text("5")


def peak_resident() -> int:
    """The most bytes of this process that were in memory at once."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", provenance.contents(SELF / "status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """torch computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Python does not stop to collect garbage."""
    before = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def explained_out_of_memory(batch: int, where: str) -> Iterator[None]:
    """Turns any device's way of running out of memory into a MemoryError that names batch and device."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        raise MemoryError(f"batch={batch} does not fit into the memory of {where}; not measured") from error


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether that is why a device raised."""
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


def precision_of(device: str, precision: str) -> torch.autocast:
    """The context that computes in `bf16` by autocast, or in `fp32`. Raises UserError for anything else."""
    half = AXES["precision"].check(precision) == "bf16"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=half)


@dataclass(frozen=True)
class Measurement:
    """What timing a model gave: host times, time by device events (null without CUDA), peak memory in MB."""

    timings: Timings
    device_ms: float | None
    peak_mem_mb: float


def placed(model: nn.Module, config: Mapping[str, Any], device: str) -> nn.Module:
    """The model on the device, in the memory format that serves built-in models; one of the user's own stays
    in its own: a `view` in its forward pass may not be compatible with another.
    """
    if own.is_own(config["model"]):
        model.to(device)
        return model
    return model.to(device).to(memory_format=torch.channels_last)


def time_model(call: Call, *, device: str, precision: str) -> Measurement:
    """Times a call that computes on the device, where its model and inputs lie already: in inference mode, or
    for a model that differentiates as it answers, and so raises there, without gradients only.

    Under both autocast casts the weights anew in every call, and that is part of the time.
    """
    try:
        return timed_in(torch.inference_mode(), call, device=device, precision=precision)
    except RuntimeError as error:
        if ran_out_of_memory(error):
            raise
        return timed_in(torch.no_grad(), call, device=device, precision=precision)


def timed_in(
    mode: contextlib.AbstractContextManager[Any], call: Call, *, device: str, precision: str
) -> Measurement:
    """See `time_model`."""
    memory = PeakMemory(device)
    with mode, precision_of(device, precision), no_garbage_collection():
        timings = time_calls(call, torch.get_device_module(device).synchronize)
        device_ms = event_ms(call, calls=len(timings.ns)) if device == "cuda" else None
    return Measurement(timings, device_ms, memory.mb())


def measure(
    model: nn.Module,
    *,
    config: Mapping[str, Any],
    arch_id: str,
    device: str,
    batch: int,
    precision: str = "fp32",
    threads: int = 1,
) -> Row:
    """The row of `latency` for a model: all columns but schema_version. Takes 1 to 8 s or 20 calls.

    The model is moved to the device, in the memory format that it is trained in, and left in evaluation mode.
    Raises MemoryError where the batch does not fit (it is never lowered), UserError for an unknown precision.
    """
    where, task = provenance.device_name(device, threads), procedure(config["task"])
    cost = count(model, *task.example(config, 1))
    with cpu_threads(threads), explained_out_of_memory(batch, where):
        model.eval()
        ready = placed(model, config, device)
        inputs = tuple(tensor.to(device) for tensor in task.example(config, batch))
        timed = time_model(task.answer(ready, inputs, config), device=device, precision=precision)
    return {
        "arch_id": arch_id,
        "measured_on": where,
        "batch": batch,
        "precision": precision,
        **{column.name: config[column.name] for column in ARCHITECTURE},
        "params": cost.params,
        "macs": cost.macs,
        **timed_columns(timed, batch, task.tokens(config)),
        "threads": threads,
        "torch": str(torch.__version__),
        "host": provenance.host(),
        "measured_at": datetime.now(UTC),
    }


def timed_columns(measurement: Measurement, batch: int, tokens: int | None) -> Row:
    """The columns of `latency` that come from timing; `tokens` are those of one answer."""
    timings = measurement.timings
    return {
        **{f"latency_ms_p{p}": timings.ms(p) for p in (50, 90, 99)},
        "latency_ms_per_token": timings.ms(50) / tokens if tokens else None,
        "latency_ms_iqr": timings.iqr_ms,
        "unstable": timings.unstable,
        "device_ms": measurement.device_ms,
        "throughput_per_s": batch * 1e3 / timings.ms(50),
        "calls": len(timings.ns),
        "warmup_calls": timings.warmup_calls,
        "peak_mem_mb": measurement.peak_mem_mb,
    }


def measure_architecture(
    config: Mapping[str, Any],
    arch_id: str,
    *,
    device: str,
    batch: int,
    precision: str = "fp32",
    threads: int = 1,
    source: Source | None = None,
) -> Row:
    """The row of `latency` for the model that `config` and `source` (see `registry.build`) describe; like
    `measure`.
    """
    with ensured():
        return measure(
            build(config, source),
            config=config,
            arch_id=arch_id,
            device=device,
            batch=batch,
            precision=precision,
            threads=threads,
        )
