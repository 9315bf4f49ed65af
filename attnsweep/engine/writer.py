"""The one driver that writes to results: the lock that it holds, and what it mends before it begins."""

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from attnsweep.core import files
from attnsweep.core.errors import Unreachable, UserError, writing
from attnsweep.results import lock, storage
from attnsweep.results.store import Store
from attnsweep.space.plan import folders_of

log = logging.getLogger("attnsweep")


@contextlib.contextmanager
def sole_writer(store: Store, runs: Path) -> Iterator[lock.Lock | None]:
    """Holds the lock on the results, and mends what an earlier driver, or an earlier version, has left. Of a
    store that is not a disk it yields the lock, which can be lost.

    Raises UserError while another driver holds it, or where the folder cannot be written.
    """
    with contextlib.ExitStack() as locks:
        try:
            if store.is_local:
                files.refuse_unwritable(store.base)
            runs, held = files.make_folder(runs), None
            files.refuse_link_of_others(store.base if store.is_local else runs)
            locks.enter_context(lock.held_here(runs / "lock"))
            if not store.is_local:
                held = locks.enter_context(
                    lock.held(storage.below(folders_of(store.root).checkpoints, "lock"))
                )
        except lock.Held as error:
            raise UserError(
                f"another sweep is writing to {store.root} from {error}; "
                "wait for it, or name another --results"
            ) from None
        except Unreachable:
            raise
        except OSError as error:
            raise UserError(
                f"results={store.root!r}: {error.filename or runs} cannot be written "
                f"({error.strerror or error}); choose another folder{of_group(error)}"
            ) from error
        mend(store, runs)
        try:
            yield held
        except KeyboardInterrupt:
            if held:
                held.check()
            raise


def of_group(error: OSError) -> str:
    """What a group that shares a folder sets, where a file in it is another member's."""
    if error.errno != errno.EACCES:
        return ""
    return "; a group that shares one sets `chmod g+ws` on it, and each of its members `umask 002`"


def mend(store: Store, runs: Path) -> None:
    """Puts away what stops readers of the tables: scratch files, torn files, files of older versions."""
    with writing(store.root):
        store.clear_scratch()
        for path in store.set_aside_unreadable(runs / "unreadable"):
            log.warning("%s is not a readable Parquet file; it was moved to %s", path, runs / "unreadable")
        store.upgrade()
