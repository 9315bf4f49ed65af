"""Waiting that is not silent."""

import contextlib
import logging
import threading
from collections.abc import Iterator

PATIENCE_S = 5.0
log = logging.getLogger("attnsweep")


@contextlib.contextmanager
def awaited(what: str) -> Iterator[None]:
    """A context that says, if it takes longer than some seconds, what is waited for."""
    notice = threading.Timer(PATIENCE_S, log.warning, ("still waiting for %s; Ctrl-C ends it", what))
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
