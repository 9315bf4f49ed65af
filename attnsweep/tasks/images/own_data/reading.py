"""Images read and decoded in parallel, by threads: Pillow and hashlib leave Python to others meanwhile."""

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from attnsweep.core.machine import cores

AHEAD = 8  # images per thread that are read before the first of them is wanted
In = TypeVar("In")
Out = TypeVar("Out")


def in_parallel(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`function` of each item, in their order; no more items are taken than the threads have to do."""
    threads = cores()
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def quiet() -> contextlib.AbstractContextManager[Any]:
    """A context without warnings: of a large image Pillow warns before it refuses a larger one."""
    return warnings.catch_warnings(action="ignore")
