"""Ray's cluster as an executor, so that data are prepared on all its CPUs: a task each, on one CPU."""

import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any


class RayWorkers(concurrent.futures.Executor):
    """Runs what is submitted as tasks of the cluster that Ray is connected to.

    A task that fails raises here what it raised there; one whose worker dies is tried again by Ray.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        import ray

        ref = task_of(fn).remote(*args, **kwargs)
        mine: concurrent.futures.Future[Any] = concurrent.futures.Future()
        mine.add_done_callback(lambda done: ray.cancel(ref) if done.cancelled() else None)
        ref.future().add_done_callback(lambda theirs: pass_on(theirs, mine))
        return mine


@functools.cache
def task_of(fn: Callable[..., Any]) -> Any:
    """The function as a Ray task."""
    import ray

    return ray.remote(num_cpus=1)(fn)


def pass_on(theirs: concurrent.futures.Future[Any], mine: concurrent.futures.Future[Any]) -> None:
    """Hands a task's result, or the error without Ray's wrapping, to who waits for it."""
    if not mine.set_running_or_notify_cancel():
        return
    error = theirs.exception()
    if error is None:
        mine.set_result(theirs.result())
    else:
        mine.set_exception(getattr(error, "cause", None) or error)
