"""A Ray cluster as the place where a command works: its trials by Ray Tune, its data and latency by Ray's
tasks.
"""

import concurrent.futures
import contextlib
import functools
import logging
import statistics
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from attnsweep.core.deployment import Ask, Deployments
from attnsweep.core.errors import Interrupted, UserError
from attnsweep.engine import cluster, meters
from attnsweep.engine.engine import Bench, Engine, MachineInfo, Measured, Settings, WaitReport
from attnsweep.engine.tune import TuneEngine
from attnsweep.results.store import Row

GONE = (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError)
FAULTS = (
    *GONE, ray.exceptions.RayTaskError, ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError,
    UserError,
)  # fmt: skip
SAY_S = 2.0  # of waiting, until it is said what is waited for
DISAGREE = 0.05  # relative, of a node's ratio for the same architecture
log = logging.getLogger("attnsweep")


@contextlib.contextmanager
def opened(address: str | None, *, log: Path, report: WaitReport) -> "Iterator[RayCluster]":
    """The cluster at an address (see `cluster.connected`), whose own messages go to the file `log`; what is
    waited for is reported.

    Raises Interrupted where the cluster is lost.
    """
    try:
        with cluster.connected(address, log=log) as is_new:
            yield RayCluster(report, is_new=is_new)
    except RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise Interrupted(
            f"the Ray cluster was lost ({cause}); finished rows are intact, the same command goes on"
        ) from error


class RayCluster:
    """The cluster that Ray is connected to, which may be a new one of this machine: a `Backend`."""

    def __init__(self, report: WaitReport, *, is_new: bool = False) -> None:
        self.report, self.is_new = report, is_new
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
        slots = cluster.slots(asked)
        return TuneEngine(settings, asked, slots=slots, waits_for=self.waiting, of_driver=self.is_new)

    def workers(self) -> concurrent.futures.Executor:
        return RayWorkers(lambda: self.report(self.waiting()))

    def benches(self, asked: Deployments, *, gpus: bool) -> Sequence[Bench]:
        """The kinds of devices in the cluster, those with GPUs first."""
        there = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
        ones = [Node(node["NodeID"], *alone(node["Resources"], gpus=gpus)) for node in there]
        answers = [(one, one.describe(asked)) for one in ones]
        kinds: dict[tuple[float, str], list[tuple[Node, MachineInfo]]] = {}
        for one, answer in answers:
            with contextlib.suppress(*GONE):  # another of its kind may be there
                machine = ray.get(answer)
                kinds.setdefault((-one.gpus, str(machine)), []).append((one, machine))
        return [
            Kind(like[0][1], tuple(node for node, _ in like), self.report)
            for _, like in sorted(kinds.items(), key=lambda item: item[0])
        ]

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
    """A node that measures: with all its CPUs, so that nothing else of Ray's runs there meanwhile."""

    node_id: str
    cpus: float
    gpus: float

    def task(self, function: Callable[..., Any], cpus: float) -> Any:
        """`function` as a task on this node."""
        where = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        task = ray.remote(max_calls=1 if self.gpus else 0)(function)  # a GPU is not kept by one that is idle
        return task.options(num_cpus=cpus, num_gpus=self.gpus, scheduling_strategy=where)

    def describe(self, asked: Deployments) -> Any:
        """A reference to what it says of itself, for which it need not be alone."""
        return self.task(meters.describe, 0).remote(self.gpus, asked.threads, asked.runtime)

    def measure(self, asks: Sequence[Ask]) -> Any:
        """References to the answers, after one to None as soon as it begins."""
        return self.task(begin_and_measure, self.cpus).remote(asks, self.gpus, max(1, int(self.cpus)))


Share = tuple[Node, Sequence[Ask]]


@dataclass(frozen=True)
class Kind:
    """The nodes of one kind: a `Bench`. They share the work; what a lost node leaves, others measure."""

    machine: MachineInfo
    nodes: tuple[Node, ...]
    report: WaitReport

    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        """See `Bench`. While other work has the nodes, that is reported.

        Where there are several, all measure the first architecture to begin with, and one whose answer is
        not that of the others is named and left out.
        """
        nodes, left = list(self.nodes), list(asks)
        first = next((ask for ask in left if ask.subject), None)
        if first and len(nodes) > 1 and len(left) > len(nodes):
            left.remove(first)
            nodes = yield from self.agreeing(nodes, first)
        while left and nodes:
            shares = [left[i :: len(nodes)] for i in range(len(nodes))]
            lost = yield from self.in_shares(list(zip(nodes, shares, strict=True)))
            nodes = [node for node in nodes if node not in lost]
            left = [ask for node in lost for ask in lost[node]]

    def agreeing(self, nodes: Sequence[Node], ask: Ask) -> Generator[Measured, None, list[Node]]:
        """The nodes whose ratios for one architecture agree; yields the answer."""
        answers: dict[Node, Measured] = {}
        for node, measured in self.gathered([(node, [ask]) for node in nodes]):
            answers[node] = measured
        rows = {
            node: one.row for node, one in answers.items() if one.row and one.row["latency_rel"] is not None
        }
        if not rows:
            yield from list(answers.values())[:1]
            return list(answers)
        middle = statistics.median_low(row["latency_rel"] for row in rows.values())
        good = [node for node, row in rows.items() if agrees(row, middle)]
        for node in rows.keys() - set(good):
            log.warning(
                "%s measures %.3f where others measure %.3f times the reference, so it measures no more",
                rows[node]["host"], rows[node]["latency_rel"], middle,
            )  # fmt: skip
        yield next(answers[node] for node in good)
        return good

    def in_shares(self, shares: Sequence[Share]) -> Generator[Measured, None, dict[Node, list[Ask]]]:
        """Yields the answers; returns what lost nodes were asked and did not answer."""
        open_asks = {node: list(asks) for node, asks in shares}
        for node, measured in self.gathered(shares):
            open_asks[node] = [ask for ask in open_asks[node] if ask != measured.ask]
            yield measured
        return {node: asks for node, asks in open_asks.items() if asks}

    def gathered(self, shares: Sequence[Share]) -> Iterator[tuple[Node, Measured]]:
        """The answers of all nodes as they come; of a node that is lost, none any more."""
        running: dict[Any, Node] = {node.measure(asks): node for node, asks in shares if asks}
        begun: set[Node] = set()
        while running:
            ready: list[Any] = ray.wait(list(running), timeout=SAY_S)[0]
            if not ready and begun.issuperset(running.values()):
                continue  # a measurement takes longer than that
            if not ready:
                self.report(f"room to measure, where other work of the cluster runs; {free({'cpu': 1.0})}")
                continue
            answers, node = ready[0], running[ready[0]]
            try:
                measured: Measured | None = ray.get(next(answers))
            except StopIteration:
                del running[answers]
            except FAULTS as error:
                log.warning("a node measures no more: %s", str(error).strip().splitlines()[-1])
                del running[answers]
            else:
                self.report(None)
                begun.add(node)
                if measured is not None:
                    yield node, measured


def agrees(row: Row, middle: float) -> bool:
    """Whether a ratio, in units of the reference as all of the row, may be that of others: its interval
    comes as near, as what has not settled says nothing of its node.
    """
    ends = (row.get(f"latency_ms_{end}") for end in ("low", "high"))
    low, high = (row["latency_rel"] if end is None else end for end in ends)
    return bool(low <= middle * (1 + DISAGREE) and high >= middle * (1 - DISAGREE))


def begin_and_measure(asks: Sequence[Ask], gpus: float, cpus: int) -> Iterator[Measured | None]:
    """None as soon as it runs, then what was measured."""
    yield None
    yield from meters.measure_here(asks, gpus, cpus)


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
        """See `concurrent.futures.Executor.submit`: a task of the cluster."""
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
        """See `concurrent.futures.Future.result`."""
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
