"""What an architecture costs on this machine: latency, under a runtime, and memory.

Published latencies are often wrong in the same few ways: no synchronisation with the GPU, no warm-up, many
models in one drifting process, a machine that others use. So here: evaluation and inference mode; one fixed
random input that lies on the device; warm-up; every timed call synchronised; each call paired with one of a
reference, in several passes (see `pairs`); quantiles, not a mean; an interval, and a flag on what stayed
unstable. A fresh process per architecture, and time between its passes, are for the caller.
"""

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from attnsweep.core import collection
from attnsweep.core.containment import ensured
from attnsweep.core.deployment import Deployment, Reference, Subject
from attnsweep.core.errors import reason
from attnsweep.measuring.device import cpu_threads, placed, synchronise_of
from attnsweep.measuring.memory import PeakMemory, explained_out_of_memory, ran_out_of_memory
from attnsweep.measuring.pairs import Call, Pairs, are_enough, joined, quantile, time_pairs
from attnsweep.measuring.reference import reference_call
from attnsweep.measuring.reference import reference_ms as time_reference
from attnsweep.measuring.runtimes import Inference, Unavailable, prepare, versions_of
from attnsweep.results import provenance
from attnsweep.results.schema import ARCHITECTURE, LATENCY, PERCENTILES
from attnsweep.results.store import Row
from attnsweep.tasks.counting import count
from attnsweep.tasks.registry import TASKS, build, procedure

LONGEST = 300  # characters of an error in a row


def event_ms(call: Call, *, calls: int, cuda: Any = torch.cuda) -> float:
    """Milliseconds per call between two events on the GPU, which is synchronised once, at the end."""
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    cuda.synchronize()
    return float(start.elapsed_time(end)) / calls


def time_model(call: Call, reference: Reference, *, device: str) -> Pairs:
    """One pass over a call that computes on the device, where its model and inputs lie already, beside a
    reference: in inference mode, or for a model that differentiates as it answers, and so raises there,
    without gradients only.
    """
    try:
        return timed_in(torch.inference_mode(), call, reference, device=device)
    except RuntimeError as error:
        if ran_out_of_memory(error):
            raise
        return timed_in(torch.no_grad(), call, reference, device=device)


def timed_in(
    mode: contextlib.AbstractContextManager[Any], call: Call, reference: Reference, *, device: str
) -> Pairs:
    """See `time_model`."""
    synchronise = synchronise_of(device)

    def answered() -> None:
        call()
        synchronise()

    gc.collect()
    with mode, collection.paused():
        return time_pairs(answered, reference_call(reference, device, synchronise))


def measure_reference(reference: Reference, *, device: str, threads: int) -> Row:
    """The row of `references` for a reference: its own time on this device. Takes two seconds."""
    gc.collect()
    with cpu_threads(threads), torch.inference_mode(), collection.paused():
        ms = time_reference(reference_call(reference, device, synchronise_of(device)))
    return {
        "reference": reference.name,
        "measured_on": provenance.device_name(device, threads),
        "versions": versions_of("eager"),
        "ms": ms,
        "host": provenance.host(),
        "measured_at": datetime.now(UTC),
    }


def measure_architecture(
    subject: Subject,
    deployment: Deployment,
    *,
    device: str,
    reference_ms: float | None = None,
) -> Row:
    """Like `measure`, of the model that the subject describes."""
    *_, (row, _) = architecture_passes(subject, deployment, device=device, reference_ms=reference_ms)
    return row


def architecture_passes(
    subject: Subject,
    deployment: Deployment,
    *,
    device: str,
    reference_ms: float | None = None,
) -> Iterator[tuple[Row, bool]]:
    """Like `passes`, of the model that the subject describes."""
    with ensured():
        model = build(subject.config, subject.source)
        yield from passes(model, subject, deployment, device=device, reference_ms=reference_ms)


def measure(
    model: nn.Module,
    subject: Subject,
    deployment: Deployment,
    *,
    device: str,
    reference_ms: float | None = None,
) -> Row:
    """The last row that `passes` gives, one pass after another. Takes half a second to six."""
    *_, (row, _) = passes(model, subject, deployment, device=device, reference_ms=reference_ms)
    return row


def passes(
    model: nn.Module,
    subject: Subject,
    deployment: Deployment,
    *,
    device: str,
    reference_ms: float | None = None,
) -> Iterator[tuple[Row, bool]]:
    """The row of `latency` for a model after each pass, all columns but schema_version, and whether it is the
    last one: where most passes agree, after the fifth, or where there is an error.

    The model is moved to the device, in the memory format that it is trained in, and left in evaluation mode.
    `reference_ms` is the reference's own time on this device; without it that is measured first. What cannot
    be measured has an `error` in place of a latency: a runtime that does not take the model, or a batch that
    does not fit, which is never lowered.
    """
    row, clock = row_of(subject, deployment, device), Stopwatch()
    with cpu_threads(deployment.threads):
        try:
            with explained_out_of_memory(deployment.batch, row["measured_on"]):
                row |= cost_columns(model, subject)
                for columns, is_last in timed_columns(
                    model, subject.config, deployment, device, reference_ms
                ):
                    yield {**row, **columns, **clock.columns()}, is_last
                    clock.go_on()
                return
        except (Unavailable, MemoryError) as error:
            row["error"] = str(error)
        except RuntimeError as error:  # of the model's own forward pass
            row["error"] = reason(error)[:LONGEST]
        yield {**row, **clock.columns()}, True


class Stopwatch:
    """The time that measuring took, without that between passes."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.go_on()

    def go_on(self) -> None:
        """A pass begins."""
        self.began = time.perf_counter()

    def columns(self) -> Row:
        """A pass ends: what all took, and when that was."""
        self.spent += time.perf_counter() - self.began
        return {"measure_s": self.spent, "measured_at": datetime.now(UTC)}


def row_of(subject: Subject, deployment: Deployment, device: str) -> Row:
    """The columns of `latency` that are known before a model is timed; the others are null."""
    return {
        **{column.name: None for column in LATENCY if column.name != "schema_version"},
        "arch_id": subject.arch_id,
        "measured_on": provenance.device_name(device, deployment.threads),
        **asdict(deployment),
        **{column.name: subject.config[column.name] for column in ARCHITECTURE},
        "versions": versions_of(deployment.runtime),
        "unstable": False,
        "torch": str(torch.__version__),
        "host": provenance.host(),
    }


def cost_columns(model: nn.Module, subject: Subject) -> Row:
    """What the model costs on paper."""
    cost = subject.cost or count(model, *procedure(subject.config["task"]).example(subject.config, 1))
    return {"params": cost.params, "macs": cost.macs}


def timed_columns(
    model: nn.Module,
    config: Mapping[str, Any],
    deployment: Deployment,
    device: str,
    reference_ms: float | None,
) -> Iterator[tuple[Row, bool]]:
    """The columns of `latency` that come from running the model after each pass, and whether that was the
    last. Raises Unavailable and MemoryError.
    """
    task, memory = procedure(config["task"]), PeakMemory(device)
    own_ms = (
        reference_ms
        or measure_reference(deployment.reference, device=device, threads=deployment.threads)["ms"]
    )
    ready = placed(model.eval(), config, device)
    inputs = tuple(tensor.to(device) for tensor in task.example(config, deployment.batch))
    began = time.perf_counter()
    asked = Inference(ready, inputs, config, device, deployment.precision, deployment.threads)
    with torch.inference_mode():
        prepared = prepare(deployment.runtime, asked)
    prepare_s, done = time.perf_counter() - began, list[Pairs]()
    tokens = TASKS[config["task"]].decoded(config)
    is_last = False
    while not is_last:
        done.append(time_model(prepared.call, deployment.reference, device=device))
        known = joined(done)
        is_last = are_enough(done, known)
        columns = {
            **latency_columns(known, own_ms, batch=deployment.batch, tokens=tokens),
            "reference": deployment.reference.name,
            "device_ms": device_ms(prepared.call, len(known.ns)) if is_last and device == "cuda" else None,
            "max_abs_diff": prepared.max_abs_diff,
            "prepare_s": prepare_s,
            "peak_mem_mb": memory.mb(),
        }
        yield columns, is_last


def latency_columns(known: Pairs, own_ms: float, *, batch: int, tokens: int | None) -> Row:
    """Latency as it is known by pairs with a reference that takes `own_ms`."""
    low, high = known.interval
    ms = {50: own_ms * known.ratio, **{p: own_ms * known.quantile(p / 100) for p in PERCENTILES}}
    return {
        **{f"latency_ms_p{p}": value for p, value in ms.items()},
        "latency_ms_low": own_ms * low,
        "latency_ms_high": own_ms * high,
        "latency_ms_iqr": own_ms * (known.quantile(0.75) - known.quantile(0.25)),
        "latency_rel": known.ratio,
        "unstable": known.unstable,
        "reference_ms": own_ms,
        **{f"raw_ms_p{p}": quantile(known.ns, p / 100) / 1e6 for p in ms},
        "latency_ms_per_token": ms[50] / tokens if tokens else None,
        "throughput_per_s": batch * 1e3 / ms[50],
        "calls": len(known.ns),
        "warmup_calls": known.warmup_calls,
    }


def device_ms(call: Call, calls: int) -> float:
    """See `event_ms`, in inference mode."""
    with torch.inference_mode():
        return event_ms(call, calls=calls)
