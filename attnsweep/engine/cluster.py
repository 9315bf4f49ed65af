"""The Ray cluster that trials run on: reaching one or starting one on this machine, and what it offers."""

import _thread
import contextlib
import io
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError

from attnsweep.core import files
from attnsweep.core.clean import without_secrets
from attnsweep.core.environment import with_variables
from attnsweep.core.errors import Interrupted, UserError, did_you_mean
from attnsweep.engine import forked_worker, ray_private, tokens
from attnsweep.engine.fork_server import fork_server

BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # `ray up` leaves it on the head, for the autoscaler
NODE_TYPE = "ray.io/node-group"  # a label of the nodes that `ray up` makes
LOST = "the head of the Ray cluster was lost; finished rows are intact, the same command goes on"
LOST_S = 20.0  # without a head, which ends the sweep
LEAVE_S = 10.0  # for the main thread to leave a call of Ray's; most of them cannot be interrupted
GPU_SHARE = 0.25  # of a GPU for one trial, where the sweep does not say
NICE = "RAY_worker_niceness"
NICENESS = int(os.environ.get(NICE, 15))  # of training, as Ray has it: who works on this machine goes first
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "AIR_VERBOSITY": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they make a folder and three files per trial: 150 ms
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it makes fit() return after Ctrl-C as if all were well
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is not needed to resume
}

log = logging.getLogger("attnsweep")


@contextlib.contextmanager
def connected(address: str | None, *, log: Path | None = None) -> Iterator[bool]:
    """A Ray cluster: the one at `address`, else at $RAY_ADDRESS, else one that `ray start` began on this
    machine, else a new local one; `local` is always a new one. What Ray itself has to say goes to the file
    `log`. Yields whether the cluster is a new one.

    A connection that was there before stays. Raises UserError where a named cluster cannot be reached, or one
    that was named or found does not take this machine's token; Interrupted where its head dies later.
    """
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    if ray.is_initialized():
        with messages_to(log):
            yield False
        return
    on_term, mode = signal.getsignal(signal.SIGTERM), os.environ.get(tokens.MODE)
    with contextlib.ExitStack() as servers:
        try:
            with messages_to(log):
                is_new = connect(address or os.environ.get("RAY_ADDRESS"), servers)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_term)  # ray.init put its own in place
            with messages_to(log), watched():
                yield is_new
        finally:
            ray.shutdown()
            tokens.set_mode(mode)


class LogFile(logging.FileHandler):
    """A log file, which is not written through a link: where there is one, messages are dropped, with one
    warning.
    """

    def _open(self) -> io.TextIOWrapper:
        try:
            return io.TextIOWrapper(files.log(self.baseFilename), "utf-8", "backslashreplace")
        except OSError as error:
            log.warning("Ray's messages go nowhere: %s: %s", self.baseFilename, error.strerror or error)
            return open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def messages_to(path: Path | None) -> Iterator[None]:
    """Redirects what Ray prints and logs to a file, which is made when there is something to write, or to
    nowhere.
    """
    ours = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.data")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in ours]
    file = LogFile(path, delay=True) if path else logging.NullHandler()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for logger in ours:
        logger.setLevel(logging.ERROR)
        logger.handlers[:] = [file] if logger is ours[0] else []
    try:
        with ray_private.messages_to(ours[0]):
            yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
        file.close()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raises Interrupted in the main thread once the cluster's head is lost; elsewhere nobody can be stopped.

    Ray says nothing for a minute and then ends the process, with no exception that could be caught.
    """
    over, lost = threading.Event(), threading.Event()
    if threading.current_thread() is threading.main_thread() and not ray_private.is_client():
        address = ray.get_runtime_context().gcs_address
        threading.Thread(target=watch, args=(address, over, lost), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise Interrupted(LOST) from None
        raise
    finally:
        over.set()


def watch(address: str, over: threading.Event, lost: threading.Event) -> None:
    """Interrupts the main thread when nobody has listened at `host:port` for `LOST_S`. Where that thread is
    stuck it ends the process, as Ray would half a minute later.
    """
    heard = time.monotonic()
    while not over.wait(2):
        try:
            knock(address)
            heard = time.monotonic()
        except OSError:
            if time.monotonic() - heard > LOST_S:
                lost.set()
                _thread.interrupt_main()
                break
    if lost.is_set() and not over.wait(LEAVE_S):
        print(f"attnsweep: {LOST}", file=sys.stderr, flush=True)
        os._exit(1)


def connect(address: str | None, servers: contextlib.ExitStack) -> bool:
    """See `connected`; returns whether the cluster is a new one. What it needs as long as it runs goes into
    `servers`.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    alone: dict[str, Any] = {**quiet, "address": "local", "include_dashboard": False}
    running, mode = address or tokens.running(), os.environ.get(tokens.MODE)
    if running in (None, "local"):
        start_here(alone, servers)
        return True
    try:
        attach(running, quiet)
        return False
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, RayError) as error:
        if address:
            raise UserError(
                f"no Ray cluster answers at address={without_key(address)!r}; start one (ray start --head), "
                "or leave --address and RAY_ADDRESS out to run on this machine"
            ) from error
        tokens.set_mode(mode)  # what runs no longer has left its address behind
        start_here(alone, servers)
        return True


def start_here(options: Mapping[str, Any], servers: contextlib.ExitStack) -> None:
    """Starts a cluster of this machine alone, whose workers are forked where they can be. Raises UserError
    where Ray cannot use the temporary folder, or gives up waiting for its own processes.
    """
    tokens.keep_private(create=True)
    servers.enter_context(fork_server())
    try:
        with with_variables({NICE: "0"}):  # until they train: Ray's helpers would start before its workers do
            ray_private.start_on_loopback(
                ray.init,
                {**options, **ray_private.without_working_directory()},
                worker=forked_worker.__file__ if forked_worker.ADDRESS in os.environ else None,
            )
    except Exception as error:  # Ray has no name of its own for the last
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        if isinstance(error, UnicodeEncodeError) and not folder.isascii():
            raise UserError(
                f"TMPDIR={folder!r} has letters that Ray does not take; set another, as TMPDIR=/tmp"
            ) from error
        if "AF_UNIX" in str(error):
            raise UserError(
                f"TMPDIR={folder!r} is too long for the sockets of Ray below it; "
                "set a shorter one, as TMPDIR=/tmp"
            ) from error
        if "timed out during startup" in str(error):
            raise UserError(
                f"Ray did not start within half a minute: {os.getloadavg()[0]:.0f} processes of this machine "
                f"wait for its {os.cpu_count()} CPUs; try again when they do less, or run with --serial"
            ) from error
        raise


def attach(address: str, quiet: Mapping[str, Any]) -> None:
    """Connects to the cluster at `[ray://]host:port`, or with `auto` to the one that runs on this machine."""
    if address == "auto":
        address = tokens.running() or "auto"
    knock(address)
    if "://" not in address and address != "auto":
        tokens.agree(address)
    ray.init(**quiet, address=address)


def without_key(address: str) -> str:
    """An address as it can be shown, also one without the `SCHEME://` by which keys are known."""
    scheme = "" if "://" in address else "ray://"
    return without_secrets(f"{scheme}{address}").removeprefix(scheme)


def knock(address: str) -> None:
    """Raises OSError where nobody listens at `[ray://]host:port`; Ray would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def request(resources: Mapping[str, float] | None) -> dict[str, float]:
    """What one trial asks of the cluster. Without GPUs in the cluster, none is asked for and trials run on
    CPUs.

    Raises UserError where no node has all of it.
    """
    nodes = [*up(), *to_come()]
    gpus = any(node.get("GPU") for node in nodes)
    asked = {"cpu": 1.0, "gpu": GPU_SHARE if gpus else 0, **(resources or {})}
    if not gpus:
        asked["gpu"] = 0
    if not any(room(node, asked) for node in nodes):
        refuse(asked, nodes)
    return asked


def refuse(asked: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Raises UserError, which says what is too much and what the cluster has."""
    most = {key: max((node.get(ray_name(key), 0) for node in nodes), default=0) for key in asked}
    too_much = [key for key, amount in asked.items() if amount > most[key]]
    has = f"the cluster has {described(nodes)}"
    if too_much:
        key = too_much[0]
        known = {name for node in nodes for name in node} if not most[key] else ()
        raise UserError(
            f"resources: {key}={asked[key]:g} is more than any node of the cluster has ({most[key]:g})"
            f"{did_you_mean(key, known)}; {has}"
        )
    together = ", ".join(f"{key}={amount:g}" for key, amount in asked.items() if amount)
    raise UserError(f"resources: no node of the cluster has {together} at once; {has}")


def described(nodes: Sequence[Mapping[str, float]]) -> str:
    """What the nodes have, such as `2 x (CPU: 8, GPU: 1), 1 x (CPU: 4)`."""
    kinds = Counter(
        ", ".join(f"{key}: {amount:g}" for key, amount in sorted(node.items()) if not is_inner(key))
        for node in nodes
    )
    by_number = sorted(kinds.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{times} x ({kind or 'nothing'})" for kind, times in by_number) or "no node"


def is_inner(resource: str) -> bool:
    """Whether a resource is one of Ray's own, of which each node has some."""
    return resource in ("memory", "object_store_memory") or resource.startswith("node:")


def ray_name(resource: str) -> str:
    """A resource's name as Ray's nodes spell it."""
    return resource.upper() if resource in ("cpu", "gpu") else resource


def room(node: Mapping[str, float], asked: Mapping[str, float]) -> int:
    """How many such trials fit into a node side by side; 1 where nothing is asked for.

    A share of a GPU is a share of one GPU: two of three quarters need two.
    """
    counts = []
    for key, amount in asked.items():
        there = node.get(ray_name(key), 0)
        if key == "gpu" and 0 < amount < 1:
            counts.append(int(there) * int(1 / amount + 1e-9))
        elif amount:
            counts.append(int(there / amount + 1e-9))
    return min(counts, default=1)


def slots(asked: Mapping[str, float]) -> int:
    """How many such trials fit into the cluster side by side, once all its nodes are up."""
    if not any(asked.values()):
        return 1
    return sum(room(node, asked) for node in (*up(), *to_come()))


def up() -> list[dict[str, float]]:
    """The resources of each node that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def to_come() -> list[dict[str, float]]:
    """The resources of each node that the autoscaler of `ray up` may still add; none unless on the head."""
    here, nodes = ray.get_runtime_context().get_node_id(), [node for node in ray.nodes() if node["Alive"]]
    kind_of = {node["NodeID"]: node["Labels"].get(NODE_TYPE) for node in nodes}
    file = Path(BOOTSTRAP).expanduser()
    if not kind_of.get(here) or not file.exists():  # `ray up` made no such node, or not of this machine
        return []
    count = Counter(kind_of.values())
    kinds = yaml.safe_load(file.read_text()).get("available_node_types", {})
    return [
        kind["resources"]
        for name, kind in kinds.items()
        for _ in range(count[name], kind.get("max_workers", 0))
    ]
