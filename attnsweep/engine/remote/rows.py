"""The rows of a sweep on a cluster, brought into the results here."""

import tempfile
import time

from attnsweep.core.errors import Interrupted, UserError
from attnsweep.engine.remote.remote_sweep import RemoteSweep
from attnsweep.engine.remote.ssh import rsync_down
from attnsweep.engine.writer import sole_writer
from attnsweep.results import merge
from attnsweep.results.store import Store

FETCH_S = 60.0  # between two fetches while the sweep runs
LOCK_S = 60.0  # for another command to stop writing to the results here


class Rows:
    """What one command has fetched."""

    def __init__(self, sweep: RemoteSweep) -> None:
        self.sweep = sweep
        self.fetched_at = time.monotonic()
        self.trials = 0  # that it brought

    @property
    def is_due(self) -> bool:
        """Whether a running sweep has been left alone for long enough."""
        return time.monotonic() - self.fetched_at > FETCH_S

    def fetch(self, *, wait_s: float = 0.0) -> None:
        """Merges the rows that the head has. Results that another command writes to are waited for, or, with
        nothing to wait, left for the next time.

        Raises Dropped where the head does not answer, Interrupted where the results here stay locked.
        """
        self.fetched_at = time.monotonic()
        if not self.sweep.is_fetched:
            return
        with tempfile.TemporaryDirectory(prefix="attnsweep-") as folder:
            if rsync_down(self.sweep.cluster, f"~/{self.sweep.folder}/results/", folder):
                self._merge(folder, until=self.fetched_at + wait_s if wait_s else None)

    def _merge(self, folder: str, *, until: float | None) -> None:
        results = self.sweep.where.results
        while True:
            try:
                with sole_writer(Store(results), self.sweep.where.runs):
                    self.trials += merge.merge(folder, results)
                return
            except UserError as error:
                if until is None:
                    return
                if time.monotonic() > until:
                    raise Interrupted(f"{error}; the same command fetches the rows") from error
                time.sleep(0.5)
