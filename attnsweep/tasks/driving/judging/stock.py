"""An external test: highway-env's stock environments, driven by planners that have never seen them.

`intersection-v0`, `roundabout-v0`, `merge-v0` and `highway-v0` (Leurent, "An environment for autonomous
driving decision-making", 2018; github.com/Farama-Foundation/HighwayEnv) come with their own roads, drivers
and speeds, of which planners know nothing. What they sense is made by the same scanner as in the own world,
on the boxes and painted lines of highway-env; the route is the environment's own. As in `closed_loop` a
planner takes over after 1.5 s, here from highway-env's IDM driver, is asked each half second, and its plan is
tracked by pure pursuit; the ego is then highway-env's plain `Vehicle`.

Its collisions push vehicles apart before they overlap; the ego is exempt from that, so that scores see what
happened. All that is read of highway-env is in `highway_private`.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving import external
from attnsweep.tasks.driving.judging import closed_loop
from attnsweep.tasks.driving.judging.closed_loop import Drive, PlanFollower, Policy
from attnsweep.tasks.driving.judging.score import Scores, counted, gained, score_drive
from attnsweep.tasks.driving.records.observer import Moment, Observer
from attnsweep.tasks.driving.world.cast import EGO
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.kinematics import DT

if TYPE_CHECKING:
    from attnsweep.tasks.driving.judging.highway_private import Episode

STOCK = ("intersection-v0", "roundabout-v0", "merge-v0", "highway-v0")
FIRST_SEED = 70_000  # apart from all map seeds, for the sensor's noise
NOTHING = np.zeros((0, 2))


def score_stock(policy: Policy) -> Scores:
    """The scores of a policy, five scenes of each of `STOCK` one after the other, against the progress of
    highway-env's IDM driver.

    There are no lights here, and nobody tells when an ego holds up traffic. Raises UserError where
    highway-env is not installed.
    """
    idm = idm_drive()
    return score_drive(drive_stock(policy), gained(idm, counted(idm)))


@functools.cache
def idm_drive() -> Drive:
    """What the IDM driver makes of it, once per process."""
    return drive_stock(None)


def drive_stock(
    policy: Policy | None, *, episodes: int = 5, seconds: float = 15.0, names: Sequence[str] = STOCK
) -> Drive:
    """`episodes` scenes of each environment, driven for `seconds` or until the ego is where it was to go,
    seeded from 0 on. Without a policy highway-env's IDM driver drives.

    Raises UserError where highway-env is not installed.
    """
    external.require()
    from attnsweep.tasks.driving.judging.highway_private import Episode  # here: it is optional

    runs = [Episode(name, seed) for name in names for seed in range(episodes)]
    follower = PlanFollower(policy, observer_of(runs).observe) if policy else None
    entries = [snapshots(runs)]
    for step in range(round(seconds / DT)):
        commands = follower.command(step, *bicycles(runs)) if follower else None
        for b, run in enumerate(runs):
            run.step(None if commands is None else commands[b])
        entries.append(snapshots(runs))
    return drive_of(runs, entries, follower.lost_share if follower else np.zeros(len(runs)))


def snapshots(runs: "Sequence[Episode]") -> tuple[Floats, Flags, Floats, Indices]:
    """States (b, a, 5), who is there (b, a), sizes (b, a, 2) and kinds (b, a), as many as the most need."""
    parts = zip(*((*run.motion(), *run.sizes()) for run in runs), strict=True)
    state, active, size, kind = (padded(part, axis=0) for part in parts)
    return state, active, size, kind


def padded(arrays: Sequence[NDArray[Any]], *, axis: int) -> NDArray[Any]:
    """Arrays stacked, those that are shorter along an axis than the longest with zeros behind."""
    most = max(array.shape[axis] for array in arrays)
    last = [[(0, (most - array.shape[axis]) * (k == axis)) for k in range(array.ndim)] for array in arrays]
    return np.stack([np.pad(array, width) for array, width in zip(arrays, last, strict=True)])


def bicycles(runs: "Sequence[Episode]") -> tuple[Floats, Floats]:
    """The egos as bicycles (b, 4) and their wheelbases (b,)."""
    states, wheelbases = zip(*(run.bicycle() for run in runs), strict=True)
    return np.array(states, dtype=float), np.array(wheelbases, dtype=float)


def observer_of(runs: "Sequence[Episode]") -> Observer:
    """The egos' senses. There are no lights."""

    def moment() -> Moment:
        state, active, size, _ = snapshots(runs)
        before = np.stack([run.before for run in runs])
        return Moment(state, before, size, active, red=[NOTHING] * len(runs))

    return Observer(
        moment,
        routes=[run.route for run in runs],
        paint=[run.scenery.paint for run in runs],
        seeds=range(FIRST_SEED, FIRST_SEED + len(runs)),
    )


def drive_of(
    runs: "Sequence[Episode]", entries: list[tuple[Floats, Flags, Floats, Indices]], lost: Floats
) -> Drive:
    """What happened, from the snapshots of every step, which have ever more places."""
    states, actives, sizes, kinds = zip(*entries, strict=True)
    state, size = padded(states, axis=1), sizes[-1]
    ego = state[:, :, EGO]
    routes, start = [run.route for run in runs], np.array([run.start for run in runs])
    progress, lateral_offset = closed_loop.along_routes(ego, routes, start)
    places = [run.scenery.ground.placement(ego[:, b], size[b, EGO]) for b, run in enumerate(runs)]
    return Drive(
        dt=DT,
        state=state,
        active=padded(actives, axis=1),
        kind=kinds[-1],
        size=size,
        handover=closed_loop.HANDOVER,
        placement=closed_loop.stacked(places),
        progress=progress,
        lateral_offset=lateral_offset,
        way=np.array([run.way for run in runs]),
        lost=lost,
    )
