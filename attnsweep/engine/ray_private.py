"""What this package relies on inside Ray and Ray does not promise. All of it is here, tested with Ray 2.60.

Each function says what it relies on and what is done where that is gone; nothing here is needed to run a
sweep. A newer Ray than the tested one is a warning (see `core.tested`).
"""

import contextlib
import functools
import importlib.util
import logging
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.tested import newer
from attnsweep.engine.forked_worker import worker_file

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

GONE = (ImportError, AttributeError)
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")
PACKAGE = Path(__file__).parents[1]
log = logging.getLogger("attnsweep")


@contextlib.contextmanager
def replaced(owner: str, name: str, new: Callable[[Any], Any]) -> Iterator[None]:
    """Has an attribute of the module or class at `owner`, such as `ray._private.node:Node`, be for a while
    what `new` makes of it. Where this Ray has none, or one that `new` cannot take, nothing changes.
    """
    try:
        place = pkgutil.resolve_name(owner)
        before = getattr(place, name)
        changed = new(before)
    except (*GONE, TypeError):
        yield
        return
    setattr(place, name, changed)
    try:
        yield
    finally:
        setattr(place, name, before)


# --- Tune's records of trials ---


def forget(trials: "list[TuneTrial]") -> None:
    """Empties Tune's records of trials that have ended: it keeps them all, and turns them into JSON at its
    end, some 20 kB each.

    Relies on Tune going on with the very list that it passes to its callbacks (it cannot do without a last
    trial in it), and on the attributes that a record is made of. Without them the driver's memory grows.
    """
    for trial in [one for one in trials[:-1] if one.is_finished()]:
        trials.remove(trial)
        empty: dict[str, Any] = {"config": {}, "evaluated_params": {}, "_Trial__unresolved_config": {}}
        empty |= {"storage": None, "experiment_tag": "", "_state_json": "", "run_metadata": blank_metadata()}
        for name in empty.keys() & vars(trial).keys():
            setattr(trial, name, empty[name])


@functools.cache
def blank_metadata() -> Any:
    """What Tune keeps of a trial without results, one for all; relies on `Trial.run_metadata`."""
    from ray.tune.experiment import Trial

    return getattr(Trial("", stub=True), "run_metadata", None)


def worker_of(trial: "TuneTrial") -> Any:
    """The actor that Tune has given a trial; None where it has none yet, or where that cannot be seen.

    Relies on `Trial.temporary_state.ray_actor`. Without it a free worker gets whichever trial Tune chooses,
    which costs a request to the cluster now and then, and a trial that takes too long is ended by its own
    worker some seconds later (see `trainable.Worker`).
    """
    return getattr(getattr(trial, "temporary_state", None), "ray_actor", None)


def sees_workers(trial: "TuneTrial") -> bool:
    """Whether `worker_of` can tell."""
    return hasattr(getattr(trial, "temporary_state", None), "ray_actor")


@contextlib.contextmanager
def remembered_classes() -> Iterator[None]:
    """Has Tune remember the class that it trains by, for which it asks the cluster's head five times per
    trial: 3 ms in which the driver does nothing else.

    Relies on `ray.tune.registry._global_registry` with `get` and `contains`; without it Tune goes on asking.
    """
    try:
        from ray.tune.registry import _global_registry as registry

        ask, has = registry.get, registry.contains
    except GONE:
        yield
        return
    known: dict[tuple[str, str], Any] = {}

    def get(category: str, key: str) -> Any:
        if (category, key) not in known:
            known[category, key] = ask(category, key)
        return known[category, key]

    def contains(category: str, key: str) -> bool:
        return (category, key) in known or has(category, key)

    vars(registry).update(get=get, contains=contains)  # these go before the methods of its class
    try:
        yield
    finally:
        for name in ("get", "contains"):
            del vars(registry)[name]


@contextlib.contextmanager
def workers_as_they_are(*, of_driver: bool) -> Iterator[None]:
    """Has Tune train in the workers that the cluster has begun already. By default it asks for workers with
    some variables of the driver's environment, so that Ray begins others: which is needed where the driver
    has such variables, keys of S3 say, and workers are not `of_driver`, children of it with the same ones.

    Relies on `class_cache._ActorClassCache.get` and `ENV_VARS_TO_PROPAGATE`; without them the first step
    comes half a second later.
    """
    try:
        import ray
        from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
    except GONE:
        yield
        return
    if not of_driver and not os.environ.keys().isdisjoint(ENV_VARS_TO_PROPAGATE):
        yield
        return
    remote = functools.cache(ray.remote)
    cache = "ray.tune.execution.class_cache:_ActorClassCache"
    with replaced(cache, "get", lambda before: lambda self, kind: remote(kind)):
        yield


# --- Clusters ---


def start_on_loopback(
    init: Callable[..., Any], options: Mapping[str, Any], worker: str | None = None
) -> None:
    """Starts a cluster of this machine alone, all of whose processes listen on the loopback, without those
    that add nodes to it, pass on what workers print and answer a dashboard: half of its start. Its workers
    run the file `worker`, if there is one, in place of Ray's own (see `forked_worker`).

    Relies on `ray_constants.ENABLE_RAY_CLUSTER`, which is off where Ray runs on one machine only, as on
    macOS; without it they listen on every interface, behind Ray's token. And on the arguments of
    `parameter.RayParams`, on `Node.start_api_server` and on the place of the file that workers run; without
    them all processes are started, and workers are Ray's own.
    """
    with (
        replaced("ray._private.ray_constants", "ENABLE_RAY_CLUSTER", lambda before: False),
        replaced("ray._private.parameter", "RayParams", without_monitors),
        replaced("ray._private.parameter", "RayParams", functools.partial(whose_workers_run, worker)),
        replaced("ray._private.node:Node", "start_api_server", lambda before: no_dashboard),
    ):
        init(**options)


def without_monitors(whole: Callable[..., Any]) -> Callable[..., Any]:
    """`RayParams` of a node that starts no monitors. Raises TypeError where it does not know them."""
    alone = functools.partial(whole, include_log_monitor=False, no_monitor=True)
    alone()
    return alone


def whose_workers_run(file: str | None, whole: Callable[..., Any]) -> Callable[..., Any]:
    """`RayParams` of a node whose workers run a file in place of Ray's own. Raises TypeError where it does
    not know such, Ray's own is not where that file looks for it, or a newer Ray may know a worker by the
    process that it has started.
    """
    if file is None:
        return whole
    if not os.path.isfile(worker_file()) or newer("ray"):
        raise TypeError
    changed = functools.partial(whole, worker_path=file)
    changed()
    return changed


def no_dashboard(node: Any, **options: Any) -> None:
    """What a node does in place of starting its dashboard."""
    node._webui_url = ""


def without_working_directory() -> dict[str, Any]:
    """The options of `ray.init` with which workers import nothing from the driver's working directory, which
    Ray would put before all that is installed; models of one's own come with their text.

    Relies on `JobConfig._py_driver_sys_path`, and on Ray extending it; without it workers look there.
    """
    try:
        from ray.job_config import JobConfig

        return {"job_config": JobConfig(_py_driver_sys_path=Fixed([str(PACKAGE.parent)]))}
    except (*GONE, TypeError):
        return {}


class Fixed(list[str]):
    """A list that nothing is added to."""

    def extend(self, more: Any) -> None: ...


def is_client() -> bool:
    """Whether this process reaches its cluster through Ray's client (`ray://`), without a raylet of its own.

    Relies on `ray.util.client.ray`; without it the head of such a cluster is not watched.
    """
    try:
        from ray.util.client import ray as client

        return bool(client.is_connected())
    except GONE:
        return True


def found_on_this_machine() -> str | None:
    """The address (host:port) of the cluster that `ray start` began on this machine, if it did.

    Relies on `services.find_bootstrap_address`; without it, such a cluster has to be named.
    """
    try:
        from ray._private import services

        address: str | None = services.find_bootstrap_address(None)
        return address
    except GONE:
        return None


# --- Messages ---


@contextlib.contextmanager
def messages_to(log_file: logging.Logger) -> Iterator[None]:
    """Has what Ray prints on standard output, such as a page of advice where a worker was killed, go to a
    logger instead.

    Relies on `ray._private.worker.print_to_stdstream`; without it, such messages are printed.
    """

    def to_log(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        log_file.error("(%s) %s", data.get("pid"), "\n".join(data.get("lines", ())))

    with replaced("ray._private.worker", "print_to_stdstream", lambda before: to_log):
        yield


# --- Tokens ---


def token() -> str | None:
    """The token of this machine's user, whatever the mode; None where there is none.

    Relies on `AuthenticationTokenLoader`; without it, no token is sent to dashboards.
    """
    try:
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        loader = AuthenticationTokenLoader.instance()
        if not loader.has_token(ignore_auth_mode=True):
            return None
        return str(loader.get_raw_token(ignore_auth_mode=True))
    except GONE:
        return None


def read_environment_again() -> None:
    """Has Ray read the variables of its tokens again, which it has read when it was imported.

    Relies on `Config.initialize` and the token loader's cache; without them a mode holds only for the
    processes that are started from now on.
    """
    try:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
    except GONE:
        return


def answers(address: str) -> bool | None:
    """Whether the head at `address` (host:port) answers this process as it is: False where it wants another
    token, None where it cannot be asked. Raises RayError where what listens there is no cluster.

    Relies on `ray._raylet.GcsClient`; without it Ray's own rules decide whether a token is sent.
    """
    from ray.exceptions import AuthenticationError

    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        with without_stderr():
            GcsClient(address).internal_kv_get(b"attnsweep", None)
        return True
    except AuthenticationError:
        return False
    except GONE:
        return None


@contextlib.contextmanager
def without_stderr() -> Iterator[None]:
    """Nothing reaches standard error: Ray's C++ part reports every refusal there, whatever its log level."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


# --- The command `ray` ---


def command() -> list[str]:
    """The beginning of a command of Ray's: that of this very environment, whatever $PATH says.

    Relies on the module `ray.scripts.scripts`; without it, on a `ray` that $PATH finds.
    """
    if importlib.util.find_spec("ray.scripts.scripts"):
        return [sys.executable, "-P", "-m", "ray.scripts.scripts"]
    return [shutil.which("ray") or "ray"]


def run_command() -> None:
    """Runs one of Ray's commands in this process, by its arguments in `sys.argv`; see `command`."""
    try:
        from ray.scripts.scripts import main
    except GONE:
        sys.exit(subprocess.call([*command(), *sys.argv[1:]]))
    main()
