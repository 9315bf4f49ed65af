"""From a laptop to the cluster that `ray up` made: a sweep runs there as a Ray job, and its rows come back.

What travels there: the sweep file and the user's own models beside it, this package's source as it is here,
so that every node runs the same code, and the final rows that are here already. The job belongs to the
cluster, not to the connection: it goes on without the laptop, and the same command finds it again, by a name
that follows from the sweep file and the arguments.

Everything goes over SSH, by Ray's own commands; the dashboard, which takes the job, listens on the head's
loopback only.
"""

import logging
import math
import os
import time

from attnsweep.core import terminal
from attnsweep.core.errors import Interrupted, UserError
from attnsweep.engine import tokens
from attnsweep.engine.remote.jobs import connect
from attnsweep.engine.remote.remote_sweep import RemoteSweep
from attnsweep.engine.remote.session import Session
from attnsweep.engine.remote.ssh import Dropped, require_head, tunnel

RETRY_S = 5.0
STEADY_S = 30.0  # a connection that lasted that long was one
PATIENCE_S = 600.0  # with one that does not come back
log = logging.getLogger("attnsweep")


def run(sweep: RemoteSweep, *, stop: bool = False) -> int:
    """Runs a sweep, or joins it where it runs already; returns the exit status of the sweep, or 130 where
    Ctrl-C ended the session. With `stop` it ends the sweep instead.

    Raises UserError where the cluster is not up or does not let us in, Interrupted where it no longer
    answers.
    """
    screen = terminal.screen()
    tokens.keep_private()
    address_by_name()
    require_head(sweep.cluster)
    session, lost_at = Session(sweep, screen), math.inf
    while True:
        opened_at = math.inf
        try:
            with tunnel(sweep.cluster) as url:
                opened_at = time.monotonic()
                return session.stop(connect(url)) if stop else session.follow(connect(url))
        except Dropped as error:
            now = time.monotonic()
            lost_at = now if now - opened_at > STEADY_S else min(now, lost_at)
            if not session.job:
                raise UserError(
                    f"the head of {sweep.cluster} does not answer over SSH ({error}); "
                    f"is it well? ray exec {sweep.cluster} uptime"
                ) from error
            if now - lost_at > PATIENCE_S:
                raise Interrupted(
                    f"the cluster of {sweep.cluster} no longer answers ({error}); "
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


def address_by_name() -> None:
    """Has Ray's commands go to the cluster that was named, without a proxy, whatever the environment says."""
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(variable, None)
    for variable in ("no_proxy", "NO_PROXY"):
        os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1"]))
