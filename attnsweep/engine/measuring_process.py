"""A process that measures, for `meters.Meter`: it imports once and measures each architecture in a fork.

So each starts from the same state, its memory is its own, one that crashes takes nothing with it, and one
that hangs can be ended. On a GPU nothing is forked: a driver's context does not survive that.

`python -m attnsweep.engine.measuring_process` reads pickled (ask, GPUs, limit in seconds) from standard input
and answers each on standard output with a pickled row.
"""

import contextlib
import os
import pickle
import select
import signal
import sys
import time
from typing import IO, Any

import torch

from attnsweep.core.deployment import Ask, Weights
from attnsweep.measuring import measure
from attnsweep.measuring.device import pick_device
from attnsweep.measuring.runtimes import Unavailable, preload
from attnsweep.measuring.runtimes.quantised import accuracy
from attnsweep.results.store import Row
from attnsweep.tasks.registry import build, procedure
from attnsweep.training.checkpoint import weights_path
from attnsweep.training.trained import fill

CHUNK = 1 << 20


def main() -> None:
    """Answers until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model prints is no answer
    asked = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while (request := next_of(asked)) is not None:
        ask, gpus, limit_s = request
        pickle.dump(answer(ask, gpus, limit_s), answers)
        answers.flush()


def next_of(asked: IO[bytes]) -> tuple[Ask, float, float] | None:
    """The next request; None at the end."""
    try:
        request: tuple[Ask, float, float] = pickle.load(asked)  # of the process that started this one
        return request
    except EOFError:
        return None


def answer(ask: Ask, gpus: float, limit_s: float) -> Row:
    """The row that was asked for; where the measurement ends otherwise, one that says how."""
    with contextlib.suppress(Unavailable):  # the measurement says so
        preload(ask.deployment.runtime)
    if gpus:
        return measured(ask, gpus)
    content, end = in_fork(ask, limit_s)
    if content:
        row: Row = pickle.loads(content)  # of our own child
        return row
    if ask.subject is None:
        raise RuntimeError(f"the reference could not be measured: {end}")
    return {**measure.row_of(ask.subject, ask.deployment, "cpu"), "error": end}


def measured(ask: Ask, gpus: float) -> Row:
    """Measures here and now."""
    device, deployment = pick_device(gpus), ask.deployment
    if ask.subject is None:
        return measure.measure_reference(deployment.reference, device=device, threads=deployment.threads)
    row = measure.measure_architecture(ask.subject, deployment, device=device, reference_ms=ask.reference_ms)
    if ask.weights is None or row["error"]:
        return row
    return {**row, **judged(ask.weights, deployment.threads)}


def judged(weights: Weights, threads: int) -> Row:
    """The accuracy in int8 of the first trial whose weights are here, and its id; nothing where none is."""
    for trial in weights.trials:
        model = build(trial.config, trial.source).eval()
        try:
            fill(model, weights_path(weights.checkpoints, trial.trial_id))
        except FileNotFoundError:
            continue
        task = procedure(trial.config["task"])
        data = task.load_for(trial.config, weights.data_dir, "cpu", sha256=trial.data_sha256)
        with torch.inference_mode():
            return {"trial_id": trial.trial_id, **accuracy(model, data, threads=threads)}
    return {}


def in_fork(ask: Ask, limit_s: float) -> tuple[bytes, str]:
    """The pickled row of a measurement in a child process; or nothing, and how the child ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reading)
        report(ask, writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        content, in_time = read_until(pipe, time.monotonic() + limit_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # with what it may have started
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not in_time:
        return b"", f"it took longer than {limit_s:g} s"
    return content, f"its process ended with {os.waitstatus_to_exitcode(status)}"


def report(ask: Ask, pipe: int) -> None:
    """Measures and writes the pickled row, then ends this process, whatever happens."""
    try:
        try:
            row = measured(ask, 0)
        except Exception as error:
            if ask.subject is None:
                raise
            row = measure.row_of(ask.subject, ask.deployment, "cpu")
            row["error"] = f"{type(error).__name__}: {error}"[: measure.LONGEST]
        with os.fdopen(pipe, "wb") as out:
            out.write(pickle.dumps(row))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


def read_until(pipe: Any, deadline: float) -> tuple[bytes, bool]:
    """What a pipe gives until its other end is closed, and whether that was before the deadline."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        part = pipe.read(CHUNK)
        if not part:
            return b"".join(parts), True
        parts.append(part)
    return b"", False


if __name__ == "__main__":
    main()
