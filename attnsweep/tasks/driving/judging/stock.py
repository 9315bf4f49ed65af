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
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.judging.closed_loop import (
    HANDOVER,
    Drive,
    PlanFollower,
    Policy,
    progress_along,
    stacked,
)
from attnsweep.tasks.driving.judging.score import Scores, counted, gained, score_drive
from attnsweep.tasks.driving.records.observer import Moment, Observer
from attnsweep.tasks.driving.world.cast import CAR, EGO
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.kinematics import DT

if TYPE_CHECKING:
    from attnsweep.tasks.driving.judging.highway_private import Episode

STOCK = ("intersection-v0", "roundabout-v0", "merge-v0", "highway-v0")
FIRST_SEED = 70_000  # apart from all map seeds, for the sensor's noise
NOTHING = np.zeros((0, 2))


def score_stock(policy: Policy | None, *, episodes: int = 5, seconds: float = 15.0) -> Scores:
    """The scores of a policy, `episodes` scenes of each of `STOCK` one after the other, against the progress
    of highway-env's IDM driver, who drives if there is no policy.

    There are no lights here, and nobody tells when an ego holds up traffic. Raises UserError where
    highway-env is not installed.
    """
    idm = idm_drive(episodes, seconds)
    driven = drive_stock(policy, episodes=episodes, seconds=seconds) if policy else idm
    return score_drive(driven, gained(idm, counted(idm)))


def require_highway_env() -> None:
    """Raises UserError where highway-env is not installed."""
    if importlib.util.find_spec("highway_env") is None:
        raise UserError(
            "highway-env is not installed, whose environments this test drives; pip install highway-env"
        )


@functools.lru_cache(maxsize=4)
def idm_drive(episodes: int, seconds: float) -> Drive:
    """What the IDM driver makes of it, once per process."""
    return drive_stock(None, episodes=episodes, seconds=seconds)


def drive_stock(
    policy: Policy | None, *, episodes: int = 5, seconds: float = 15.0, names: Sequence[str] = STOCK
) -> Drive:
    """`episodes` scenes of each environment, driven for `seconds` or until the ego is where it was to go,
    seeded from 0 on. Without a policy highway-env's IDM driver drives.

    Raises UserError where highway-env is not installed.
    """
    require_highway_env()
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


def snapshots(runs: "Sequence[Episode]") -> tuple[Floats, Flags]:
    """The states (b, a, 5) of all agents and who is there (b, a), with as many places as the most need."""
    places = max(len(run.agents) for run in runs)
    state, active = np.zeros((len(runs), places, 5)), np.zeros((len(runs), places), dtype=bool)
    for b, run in enumerate(runs):
        count = len(run.agents)
        state[b, :count], active[b, :count] = run.motion()
    return state, active


def sizes(runs: "Sequence[Episode]", places: int) -> tuple[Floats, Indices]:
    """Length and width (b, a, 2) and kinds (b, a) of all agents."""
    size, kind = np.ones((len(runs), places, 2)), np.full((len(runs), places), CAR)
    for b, run in enumerate(runs):
        size[b, : len(run.agents)], kind[b, : len(run.agents)] = run.sizes()
    return size, kind


def bicycles(runs: "Sequence[Episode]") -> tuple[Floats, Floats]:
    """The egos as bicycles (b, 4) and their wheelbases (b,)."""
    states, wheelbases = zip(*(run.bicycle() for run in runs), strict=True)
    return np.array(states, dtype=float), np.array(wheelbases, dtype=float)


def observer_of(runs: "Sequence[Episode]") -> Observer:
    """The egos' senses. There are no lights."""

    def moment() -> Moment:
        state, active = snapshots(runs)
        before, (size, _) = np.stack([run.before for run in runs]), sizes(runs, state.shape[1])
        return Moment(state, before, size, active, red=[NOTHING] * len(runs))

    return Observer(
        moment,
        routes=[run.route for run in runs],
        paint=[run.scenery.paint for run in runs],
        seeds=range(FIRST_SEED, FIRST_SEED + len(runs)),
    )


def drive_of(runs: "Sequence[Episode]", entries: list[tuple[Floats, Flags]], lost: Floats) -> Drive:
    """What happened, from the snapshots of every step, which have ever more places."""
    places = entries[-1][1].shape[1]
    state, active = (
        np.zeros((len(entries), len(runs), places, 5)),
        np.zeros((len(entries), len(runs), places), bool),
    )
    for t, (one, there) in enumerate(entries):
        state[t, :, : one.shape[1]], active[t, :, : one.shape[1]] = one, there
    size, kind = sizes(runs, places)
    ego = state[:, :, EGO]
    along = [progress_along(ego[:, b, :2], run.route, start=run.start) for b, run in enumerate(runs)]
    places = [run.scenery.ground.placement(ego[:, b], size[b, EGO]) for b, run in enumerate(runs)]
    progress, lateral_offset = (np.stack(part, axis=1) for part in zip(*along, strict=True))
    never = np.zeros(active.shape[:2], dtype=bool)
    return Drive(
        dt=DT,
        state=state,
        active=active,
        kind=kind,
        size=size,
        handover=HANDOVER,
        placement=stacked(places),
        progress=progress,
        lateral_offset=lateral_offset,
        ran_red=never,
        impeding=never,
        way=np.array([run.way for run in runs]),
        to_stop=np.full(active.shape[:2], np.inf),
        lost=lost,
    )
