"""From a laptop to the cluster that `ray up` made: a sweep runs there as a Ray job, and its rows come back.

What travels there: the sweep file and the user's own models beside it, this package's source as it is here,
so that every node runs the same code, and the final rows that are here already. The job belongs to the
cluster, not to the connection: it goes on without the laptop, and the same command finds it again, by a name
that follows from the sweep file and the arguments.

Everything goes over SSH, by Ray's own commands; the dashboard, which takes the job, listens on the head's
loopback only.
"""

import asyncio
import contextlib
import functools
import getpass
import hashlib
import logging
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from attnsweep.core import files, text
from attnsweep.core.errors import Interrupted, UserError
from attnsweep.engine import ray_private
from attnsweep.results import merge, provenance
from attnsweep.results.store import Store
from attnsweep.space.files import own_sources, read_sweep
from attnsweep.space.plan import Folders

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DASHBOARD_PORT = 8265  # on the head's loopback
FETCH_S = 60.0  # between two fetches of rows while the sweep runs
RETRY_S = 5.0
STEADY_S = 30.0  # a connection that lasted that long was one
PATIENCE_S = 600.0  # with one that does not come back
START_S = 60.0  # for a tunnel to open
LOCK_S = 60.0  # for another command to stop writing to the results here
TUNNEL = """
import os, signal, sys, threading
from attnsweep.engine.ray_private import run_command
pipe = os.dup(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
def watch():  # whoever opened the tunnel may be killed; ssh would stay
    os.read(pipe, 1)
    os.killpg(0, signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
run_command()
"""
ENTRY = (
    "sent=$PWD; mkdir -p ~/{folder} && cd ~/{folder}"
    ' && python -m attnsweep.results.merge "$sent/known" results'
    ' && exec python -m attnsweep "$sent/"{arguments}'
)
log = logging.getLogger("attnsweep")


class Dropped(Exception):
    """The connection to the cluster is gone; the job goes on."""


@dataclass(frozen=True)
class Errand:
    """What is asked of a cluster: a sweep file, the arguments after it, and where its rows go here."""

    cluster: Path
    sweep: Path
    arguments: tuple[str, ...]
    where: Folders

    @property
    def name(self) -> str:
        """Says which command it is: the sweep's name and 8 hex digits over its text and the arguments."""
        texts = [file.read_text() for file in self.files]
        content = "\0".join([*texts, *self.arguments, self.where.results])
        stem = re.sub(r"[^\w.]+", "_", self.sweep.stem)
        return f"attnsweep-{stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @functools.cached_property
    def files(self) -> list[Path]:
        """The sweep file, the user's own models beside it, and the modules that those import, beside it or
        below.

        Raises UserError where one lies elsewhere.
        """
        folder, sources = self.sweep.resolve().parent, own_sources(read_sweep(self.sweep))
        models = [Path(source.file) for source in sources]
        modules = [Path(module.file) for source in sources for module in source.modules if module.file]
        for file in (*models, *modules):
            here = file.resolve().parent
            if here != folder and (file in models or not here.is_relative_to(folder)):
                raise UserError(
                    f"{file} does not lie beside {self.sweep}; put it there, so that it can travel"
                )
        others = list(dict.fromkeys((*models, *modules)))
        return [self.sweep, *others]

    @property
    def folder(self) -> str:
        """Where its results lie on the head, below the home folder."""
        return f"attnsweep/{self.name}"

    @property
    def is_fetched(self) -> bool:
        """Whether rows come back here; a store with a URI is written to by the head."""
        return "://" not in self.where.results


def run(errand: Errand, *, stop: bool = False) -> int:
    """Runs an errand, or joins it where it runs already; returns the exit status of the sweep, or 130 where
    Ctrl-C ended the visit. With `stop` it ends the sweep instead.

    Raises UserError where the cluster is not up or does not let us in, Interrupted where it no longer
    answers.
    """
    from attnsweep.engine import tokens

    screen = text.screen()
    tokens.keep_private()
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(variable, None)  # Ray would prefer it to the cluster that was named
    for variable in ("no_proxy", "NO_PROXY"):
        os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1"]))
    require_head(errand.cluster)
    visit, lost_at = Visit(errand, screen), math.inf
    while True:
        opened_at = math.inf
        try:
            with tunnel(errand.cluster) as url:
                opened_at = time.monotonic()
                return visit.stop(connect(url)) if stop else visit.stay(connect(url))
        except Dropped as error:
            now = time.monotonic()
            lost_at = now if now - opened_at > STEADY_S else min(now, lost_at)
            if not visit.job:
                raise UserError(
                    f"the head of {errand.cluster} does not answer over SSH ({error}); "
                    f"is it well? ray exec {errand.cluster} uptime"
                ) from error
            if now - lost_at > PATIENCE_S:
                raise Interrupted(
                    f"the cluster of {errand.cluster} no longer answers ({error}); "
                    "the same command tries again"
                ) from error
            log.warning("the connection dropped (%s); the sweep goes on there; trying again", error)
            time.sleep(RETRY_S)
        except KeyboardInterrupt:
            screen.print(
                "detached: the sweep goes on there. The same command joins it again, with --stop it ends it",
                highlight=False,
            )
            return 130


class Visit:
    """One command's dealings with the cluster, over as many connections as it takes."""

    def __init__(self, errand: Errand, screen: Console) -> None:
        self.errand, self.screen = errand, screen
        self.job = ""  # the submission that this command follows
        self.printed = 0  # characters of its output
        self.fetched_at = time.monotonic()
        self.fresh = 0  # rows of trials that it brought
        self.collected = errand.where.runs / "collected.log"  # submissions whose end has been seen here

    def stay(self, client: "JobSubmissionClient") -> int:
        """Follows the job to its end, after submitting it where there is none to follow."""
        if self.job and self.job not in [job.submission_id for job in jobs(client, self.errand.name)]:
            raise Interrupted(
                "the head was begun anew and knows nothing of the sweep; the same command goes on"
            )
        self.job = self.job or self._find(client) or self._submit(client)
        asyncio.run(self._follow(client))
        return self._end(client)

    def stop(self, client: "JobSubmissionClient") -> int:
        """Ends the job; what it has finished comes back."""
        running = [job for job in jobs(client, self.errand.name) if not is_over(job)]
        if not running:
            raise UserError(
                f"no such sweep runs on the cluster of {self.errand.cluster}; "
                "name the file and the values that it was begun with"
            )
        self.job = str(running[-1].submission_id)
        asked(client.stop_job, self.job)
        return self._end(client)

    def _find(self, client: "JobSubmissionClient") -> str | None:
        """The submission of the same command that runs, or that ended while nobody was looking."""
        known = jobs(client, self.errand.name)
        if not known:
            return None
        last = known[-1]
        seen = files.words(self.collected)
        if is_over(last) and (mark(last) in seen or last.driver_exit_code not in (0, 1)):
            return None
        self.screen.print(
            f"{'ended meanwhile' if is_over(last) else 'joining'}: {last.submission_id}", highlight=False
        )
        if (last.metadata or {}).get("code_hash") != provenance.code_hash():
            log.warning("it was begun with another version of the code; it keeps to that one")
        return str(last.submission_id)

    def _submit(self, client: "JobSubmissionClient") -> str:
        errand, number = self.errand, 1 + max(map(number_of, jobs(client, self.errand.name)), default=0)
        sha, dirty = provenance.git_state()
        with tempfile.TemporaryDirectory(prefix="attnsweep-") as folder:
            pack(errand, Path(folder))
            job: str = asked(
                client.submit_job,
                entrypoint=entrypoint(errand),
                submission_id=f"{errand.name}-{number}",
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {provenance.SENT_GIT: f"{sha or ''} {dirty or ''}", "PYTHONUNBUFFERED": "1"},
                },
                metadata={"code_hash": provenance.code_hash()},
            )
        self.screen.print(f"submitted: {job}; results on the head: ~/{errand.folder}", highlight=False)
        return job

    async def _follow(self, client: "JobSubmissionClient") -> None:
        """Prints the job's output as it comes, and fetches its rows now and then."""
        output, passed = client.tail_job_logs(self.job), 0
        while chunk := await heard(output):
            passed += len(chunk)
            if passed > self.printed:
                self._print(chunk[self.printed - passed :])
                self.printed = passed
            if time.monotonic() - self.fetched_at > FETCH_S:
                await asyncio.to_thread(self._fetch, wait_s=0)

    def _print(self, text: str) -> None:
        """Prints the sweep's own output; Ray adds a line or two about the job."""
        lines = text.splitlines(keepends=True)
        sys.stdout.write("".join(line for line in lines if not is_ray_s(line)))
        sys.stdout.flush()

    def _end(self, client: "JobSubmissionClient") -> int:
        """Waits for the job's last word, fetches what it left, and returns its exit status."""
        while not is_over(details := asked(client.get_job_info, self.job)):
            time.sleep(0.5)
        self._fetch(wait_s=LOCK_S)
        self.collected.parent.mkdir(parents=True, exist_ok=True)
        files.append(self.collected, f"{mark(details)}\n")
        if details.status == "STOPPED":
            self.screen.print("stopped; the same command goes on", highlight=False)
            return 130
        if details.driver_exit_code is None:
            log.warning("the cluster gave the sweep up: %s", details.message)
            return 1
        return int(details.driver_exit_code)

    def _fetch(self, *, wait_s: float) -> None:
        """Brings the rows that the head has; one that another command is writing to waits for the next time.

        Raises Dropped where the head does not answer, Interrupted where results here stay locked.
        """
        self.fetched_at = time.monotonic()
        if not self.errand.is_fetched:
            return
        from attnsweep.engine.runner import sole_writer

        with tempfile.TemporaryDirectory(prefix="attnsweep-") as folder:
            source = f"~/{self.errand.folder}/results/"
            if not rsync_down(self.errand.cluster, source, folder):
                return
            store, until = Store(self.errand.where.results), time.monotonic() + wait_s
            while True:
                try:
                    with sole_writer(store, self.errand.where.runs):
                        self.fresh += merge.merge(folder, self.errand.where.results)
                    break
                except UserError as error:
                    if not wait_s:
                        return
                    if time.monotonic() > until:
                        raise Interrupted(f"{error}; the same command fetches the rows") from error
                    time.sleep(0.5)
        if wait_s:
            self.screen.print(
                f"fetched {text.counted(self.fresh, 'trial')} into {self.errand.where.results}",
                highlight=False,
            )


def require_head(cluster: Path) -> None:
    """Raises UserError where there is no such cluster, or it is not up."""
    if not cluster.is_file():
        raise UserError(f"there is no cluster file {cluster}")
    well, text = ray("get-head-ip", str(cluster))
    if not well:
        raise UserError(
            f"the cluster of {cluster} is not up ({last_line(text)}); start it with: ray up {cluster}"
        )


def connect(url: str) -> "JobSubmissionClient":
    """A client of the head's dashboard.

    Raises UserError where it wants another token, or a part of Ray is not installed here.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from attnsweep.engine import tokens

    for name in ray_private.CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client: JobSubmissionClient = asked(JobSubmissionClient, url, headers=tokens.header())
        return client
    except AuthenticationError as error:
        raise UserError(f"the cluster does not take this machine's Ray token; {tokens.HOW}") from error


def asked(call: Any, *arguments: Any, **named: Any) -> Any:
    """What the dashboard answers. Raises Dropped where the connection is gone, UserError where it refuses."""
    try:
        return call(*arguments, **named)
    except OSError as error:  # of requests, too
        raise Dropped(str(error)) from error
    except RuntimeError as error:  # or Ray lacks a part here, and says how to install it
        raise UserError(f"the cluster cannot do it: {error}") from error


def jobs(client: "JobSubmissionClient", name: str) -> "list[JobDetails]":
    """The submissions of one errand, oldest first."""
    ours = [job for job in asked(client.list_jobs) if (job.submission_id or "").rpartition("-")[0] == name]
    return sorted(ours, key=number_of)


def number_of(job: "JobDetails") -> int:
    """The how-manieth submission of its errand it is."""
    return int(str(job.submission_id).rpartition("-")[2])


def mark(job: "JobDetails") -> str:
    """Tells one submission from those of all clusters: numbers begin anew with each."""
    return f"{job.submission_id}@{job.start_time}"


async def heard(output: AsyncIterator[str]) -> str:
    """What the job says next; nothing at its end. Raises Dropped where the connection is gone."""
    try:
        return await anext(output, "")
    except Exception as error:  # of several libraries
        raise Dropped(f"{type(error).__name__}: {error}") from error


def is_over(job: "JobDetails") -> bool:
    """Whether a submission has ended."""
    over: bool = job.status.is_terminal()
    return over


def is_ray_s(line: str) -> bool:
    """Whether a line of a job's output is not the job's."""
    return line.startswith("Running entrypoint for job") or "job_manager.py" in line


def pack(errand: Errand, folder: Path) -> None:
    """Lays out what travels: the package's source, the sweep file, and the rows that are known here."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(provenance.PACKAGE, folder / "attnsweep", ignore=ignore)
    for file in errand.files:
        place = folder / "sweep" / file.resolve().relative_to(errand.sweep.resolve().parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    if errand.is_fetched:
        merge.extract(errand.where.results, folder / "known")


def entrypoint(errand: Errand) -> str:
    """The job's shell command: it works in a folder that outlives the job, with the code that was sent."""
    results = "results" if errand.is_fetched else errand.where.results
    words = [f"sweep/{errand.sweep.name}", *errand.arguments, "--results", results]
    return ENTRY.format(folder=shlex.quote(errand.folder), arguments=shlex.join(words))


@contextlib.contextmanager
def tunnel(cluster: Path) -> Iterator[str]:
    """A way to the head's dashboard: a URL on this machine. Raises Dropped where it does not open.

    Ray's commands share one SSH connection per user name, and it keeps every port that was ever forwarded:
    tunnels get a name, and so a connection, of their own.
    """
    port = free_port()
    ends = ["dashboard", str(cluster), "--port", str(port), "--remote-port", str(DASHBOARD_PORT)]
    environment = {**os.environ, "LOGNAME": f"{getpass.getuser()}-tunnel"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", TUNNEL, *ends], env=environment,
            stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + START_S
            while not answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    said.seek(0)
                    raise Dropped(last_line(said.read()))
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def free_port() -> int:
    """A port of this machine's loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def ray(*words: str) -> tuple[bool, str]:
    """Whether one of Ray's commands succeeds, and what it prints."""
    command = [*ray_private.command(), *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0, done.stdout + done.stderr


def rsync_down(cluster: Path, source: str, folder: str) -> bool:
    """Copies a folder of the head's; False where there is none yet. Raises Dropped where that fails.

    What vanishes meanwhile was compacted there: its rows come the next time.
    """
    well, text = ray("rsync-down", str(cluster), source, folder)
    said = [line for line in text.splitlines() if line.startswith("rsync")]
    if well or any("vanished" in line for line in said):
        return True
    if any("No such file or directory (2)" in line for line in said):
        return False
    raise Dropped(said[0] if said else last_line(text))


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no answer")
