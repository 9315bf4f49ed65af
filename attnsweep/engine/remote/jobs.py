"""Ray's jobs on the head, as its dashboard tells of them."""

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.engine import ray_private, tokens
from attnsweep.engine.remote.ssh import Dropped

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient


def connect(url: str) -> "JobSubmissionClient":
    """A client of the head's dashboard.

    Raises UserError where it wants another token, or a part of Ray is not installed here.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

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
    """The submissions of one sweep, oldest first."""
    ours = [job for job in asked(client.list_jobs) if (job.submission_id or "").rpartition("-")[0] == name]
    return sorted(ours, key=number_of)


def number_of(job: "JobDetails") -> int:
    """The number of a submission among those of its sweep, counted from 1."""
    return int(str(job.submission_id).rpartition("-")[2])


def mark(job: "JobDetails") -> str:
    """Tells one submission from those of all clusters: numbers begin anew with each."""
    return f"{job.submission_id}@{job.start_time}"


async def next_output(output: AsyncIterator[str]) -> str:
    """The next of the job's output; empty at its end. Raises Dropped where the connection is gone."""
    try:
        return await anext(output, "")
    except Exception as error:  # of several libraries
        raise Dropped(f"{type(error).__name__}: {error}") from error


def is_over(job: "JobDetails") -> bool:
    """Whether a submission has ended."""
    over: bool = job.status.is_terminal()
    return over


def is_from_ray(line: str) -> bool:
    """Whether a line of a job's output is not the job's."""
    return line.startswith("Running entrypoint for job") or "job_manager.py" in line
