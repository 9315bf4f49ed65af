"""A Ray cluster as the place where a command works: its trials by Ray Tune, its data and latency by Ray's
tasks.
"""

import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from attnsweep.core.errors import Interrupted, UserError
from attnsweep.core.source import Source
from attnsweep.engine import cluster, latency
from attnsweep.engine.engine import Bench, Engine, Measured, Settings, Unmeasurable, WaitReport
from attnsweep.engine.tune import TuneEngine

GONE = (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError)
FAULTS = (
    *GONE, ray.exceptions.RayTaskError, ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError,
    UserError,
)  # fmt: skip
SAY_S = 2.0  # of waiting, until it is said what is waited for


@contextlib.contextmanager
def opened(address: str | None, *, log: Path, report: WaitReport) -> "Iterator[RayCluster]":
    """The cluster at an address (see `cluster.connected`), whose own messages go to the file `log`; what is
    waited for is reported.

    Raises Interrupted where the cluster is lost.
    """
    try:
        with cluster.connected(address, log=log):
            yield RayCluster(report)
    except RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise Interrupted(
            f"the Ray cluster was lost ({cause}); finished rows are intact, the same command goes on"
        ) from error


class RayCluster:
    """The cluster that Ray is connected to: a `Backend`."""

    def __init__(self, report: WaitReport) -> None:
        self.report = report
        self.groups = set(placement_group_table())  # of others, and of earlier commands
        self.asked: Mapping[str, float] = {"cpu": 1.0}

    def request(self, resources: Mapping[str, float] | None) -> dict[str, float]:
        """See `cluster.request`."""
        asked = cluster.request(resources)
        self.asked = asked
        return asked

    def slots(self, asked: Mapping[str, float]) -> int:
        """See `cluster.slots`."""
        return cluster.slots(asked)

    def engine(self, settings: Settings, asked: Mapping[str, float]) -> Engine:
        return TuneEngine(settings, asked, slots=cluster.slots(asked), waits_for=self.waiting)

    def workers(self) -> concurrent.futures.Executor:
        return RayWorkers(lambda: self.report(self.waiting()))

    def benches(self, *, gpus: bool) -> Sequence[Bench]:
        """One node per distinct kind of device in the cluster, those with GPUs first."""
        there = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
        ones = [Node("", node["NodeID"], *alone(node["Resources"], gpus=gpus), self.report) for node in there]
        asked = [(one, one.name()) for one in ones]
        named = []
        for one, answer in asked:
            with contextlib.suppress(*GONE):  # another of its kind may be there
                named.append(replace(one, measured_on=ray.get(answer)))
        named.sort(key=lambda one: (-one.gpus, one.measured_on))
        return list({one.measured_on: one for one in reversed(named)}.values())[::-1]

    def waiting(self) -> str:
        """See `Backend`. Room that Tune has reserved for a trial is no longer free."""
        ours = [one for key, one in placement_group_table().items() if key not in self.groups]
        if any(one["state"] == "CREATED" for one in ours):
            return "a worker to start"
        takes = ", ".join(f"{key} {amount:g}" for key, amount in self.asked.items() if amount)
        nodes = ", and a node may join" if cluster.to_come() else ""
        return f"room in the cluster: a trial takes {takes or 'nothing'}; {free(self.asked)}{nodes}"


def free(asked: Mapping[str, float]) -> str:
    """How much of what is asked for is free in the cluster, such as `free are cpu 0 of 2`."""
    total, left = ray.cluster_resources(), ray.available_resources()
    names = [key for key, amount in asked.items() if amount]
    amounts = ((key, cluster.ray_name(key)) for key in names)
    parts = (f"{key} {left.get(name, 0):g} of {total.get(name, 0):g}" for key, name in amounts)
    return f"free are {', '.join(parts)}"


# --- Latency ---


@dataclass(frozen=True)
class Node:
    """A node that stands for its kind of device: a `Bench`. A measurement takes all its CPUs, so that nothing
    else of Ray's runs there, and a process that ends with it.
    """

    measured_on: str
    node_id: str
    cpus: float
    gpus: float
    report: WaitReport

    def task(self, function: Callable[..., Any], cpus: float) -> Any:
        """`function` as a task on this node."""
        where = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        task = ray.remote(max_calls=1)(function)
        return task.options(num_cpus=cpus, num_gpus=self.gpus, scheduling_strategy=where)

    def name(self) -> Any:
        """A reference to the name of its device, which need not be alone to be read."""
        return self.task(latency.device_name, 0).remote(self.gpus)

    def measure(
        self,
        config: dict[str, Any],
        arch_id: str,
        *,
        precision: str,
        batches: list[int],
        source: Source | None,
    ) -> Measured:
        """See `Bench`. While other work has the node, that is reported."""
        try:
            answers = self.task(begin_and_measure, self.cpus).remote(
                config, arch_id, self.gpus, precision, batches, source
            )
            while not ray.wait([answers], timeout=SAY_S)[0]:
                has = free({"cpu": 1.0})
                self.report(f"{self.measured_on}, where other work of the cluster runs; {has}")
            ray.get(next(answers))  # it has begun
            self.report(None)
            measured: Measured = ray.get(next(answers))
            return measured
        except FAULTS as error:
            raise Unmeasurable(str(error).strip().splitlines()[-1]) from error


def begin_and_measure(*arguments: Any) -> Iterator[Measured | None]:
    """None as soon as it runs, then what was measured."""
    yield None
    yield latency.measure_once(*arguments)


def alone(resources: Mapping[str, float], *, gpus: bool) -> tuple[float, float]:
    """The CPUs and GPUs that a measurement takes of a node: all CPUs, so that nothing else runs there."""
    return resources["CPU"], float(gpus and resources.get("GPU", 0) >= 1)


# --- Data ---


class RayWorkers(concurrent.futures.Executor):
    """Prepares data by tasks of the cluster, a CPU each.

    A task that fails raises here what it raised there; one whose worker dies is tried again by Ray. While
    nothing comes, `on_wait` is called every `SAY_S` seconds.
    """

    def __init__(self, on_wait: Callable[[], None] = lambda: None) -> None:
        self.on_wait = on_wait

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        ref = task_of(fn).remote(*args, **kwargs)
        answer = Answer(self.on_wait)
        answer.add_done_callback(lambda done: ray.cancel(ref) if done.cancelled() else None)
        ref.future().add_done_callback(lambda task: pass_on(task, answer))
        return answer


class Answer(concurrent.futures.Future[Any]):
    """The result of a task, for which nobody waits in silence."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        super().__init__()
        self.on_wait = on_wait

    def result(self, timeout: float | None = None) -> Any:
        while timeout is None:
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return super().result(SAY_S)
            if self.done():  # the task itself has raised a TimeoutError
                break
            self.on_wait()
        return super().result(timeout)


@functools.cache
def task_of(fn: Callable[..., Any]) -> Any:
    """The function as a Ray task."""
    return ray.remote(num_cpus=1)(fn)


def pass_on(task: concurrent.futures.Future[Any], answer: concurrent.futures.Future[Any]) -> None:
    """Hands a task's result, or the error without Ray's wrapping, to who waits for it."""
    if not answer.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is None:
        answer.set_result(task.result())
    else:
        answer.set_exception(getattr(error, "cause", None) or error)
