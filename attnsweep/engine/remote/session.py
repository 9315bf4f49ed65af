"""One command's dealings with a cluster: a job is submitted or joined and followed, its rows are fetched."""

import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from attnsweep.core import files
from attnsweep.core.errors import Interrupted, UserError
from attnsweep.core.text import counted
from attnsweep.engine.remote.jobs import asked, is_from_ray, is_over, jobs, mark, next_output, number_of
from attnsweep.engine.remote.remote_sweep import RemoteSweep, entrypoint, pack
from attnsweep.engine.remote.rows import LOCK_S, Rows
from attnsweep.results import provenance

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger("attnsweep")


class Session:
    """What stays the same over as many connections as it takes."""

    def __init__(self, sweep: RemoteSweep, screen: Console) -> None:
        self.sweep, self.screen = sweep, screen
        self.rows = Rows(sweep)
        self.job = ""  # the submission that this command follows
        self.printed = 0  # characters of its output
        self.collected = sweep.where.runs / "collected.log"  # submissions whose end has been seen here

    def follow(self, client: "JobSubmissionClient") -> int:
        """Follows the job to its end, after submitting it where there is none to follow; returns the exit
        status of the sweep.
        """
        if self.job and self.job not in [job.submission_id for job in jobs(client, self.sweep.name)]:
            raise Interrupted(
                "the head was begun anew and knows nothing of the sweep; the same command goes on"
            )
        self.job = self.job or self._find(client) or self._submit(client)
        asyncio.run(self._print_output(client))
        return self._end(client)

    def stop(self, client: "JobSubmissionClient") -> int:
        """Ends the job; what it has finished comes back. Returns the exit status."""
        running = [job for job in jobs(client, self.sweep.name) if not is_over(job)]
        if not running:
            raise UserError(
                f"no such sweep runs on the cluster of {self.sweep.cluster}; "
                "name the file and the values that it was begun with"
            )
        self.job = str(running[-1].submission_id)
        asked(client.stop_job, self.job)
        return self._end(client)

    def _find(self, client: "JobSubmissionClient") -> str | None:
        """The submission of the same command that runs, or that ended while nobody was looking."""
        known = jobs(client, self.sweep.name)
        if not known:
            return None
        last = known[-1]
        seen = files.words(self.collected)
        if is_over(last) and (mark(last) in seen or last.driver_exit_code not in (0, 1)):
            return None
        self._say(f"{'ended meanwhile' if is_over(last) else 'joining'}: {last.submission_id}")
        if (last.metadata or {}).get("code_hash") != provenance.code_hash():
            log.warning("it was begun with another version of the code; it keeps to that one")
        return str(last.submission_id)

    def _submit(self, client: "JobSubmissionClient") -> str:
        number = 1 + max(map(number_of, jobs(client, self.sweep.name)), default=0)
        sha, dirty = provenance.git_state()
        with tempfile.TemporaryDirectory(prefix="attnsweep-") as folder:
            pack(self.sweep, Path(folder))
            job: str = asked(
                client.submit_job,
                entrypoint=entrypoint(self.sweep),
                submission_id=f"{self.sweep.name}-{number}",
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {provenance.SENT_GIT: f"{sha or ''} {dirty or ''}", "PYTHONUNBUFFERED": "1"},
                },
                metadata={"code_hash": provenance.code_hash()},
            )
        self._say(f"submitted: {job}; results on the head: ~/{self.sweep.folder}")
        return job

    async def _print_output(self, client: "JobSubmissionClient") -> None:
        """Prints the job's output as it comes, and fetches its rows now and then."""
        output, passed = client.tail_job_logs(self.job), 0
        while chunk := await next_output(output):
            passed += len(chunk)
            if passed > self.printed:
                print_own(chunk[self.printed - passed :])
                self.printed = passed
            if self.rows.is_due:
                await asyncio.to_thread(self.rows.fetch)

    def _end(self, client: "JobSubmissionClient") -> int:
        """Waits until the job has ended, fetches what it left, and returns its exit status."""
        while not is_over(details := asked(client.get_job_info, self.job)):
            time.sleep(0.5)
        self.rows.fetch(wait_s=LOCK_S)
        if self.sweep.is_fetched:
            self._say(f"fetched {counted(self.rows.trials, 'trial')} into {self.sweep.where.results}")
        self.collected.parent.mkdir(parents=True, exist_ok=True)
        files.append(self.collected, f"{mark(details)}\n")
        if details.status == "STOPPED":
            self._say("stopped; the same command goes on")
            return 130
        if details.driver_exit_code is None:
            log.warning("the cluster gave the sweep up: %s", details.message)
            return 1
        return int(details.driver_exit_code)

    def _say(self, sentence: str) -> None:
        self.screen.print(sentence, highlight=False)


def print_own(output: str) -> None:
    """Prints a sweep's own output; Ray adds a line or two about the job."""
    sys.stdout.write("".join(line for line in output.splitlines(keepends=True) if not is_from_ray(line)))
    sys.stdout.flush()
