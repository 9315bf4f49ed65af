"""Who is to blame for a collision, and which are less than a second away: by nuPlan's and NAVSIM's rules.

Sources: `no_ego_at_fault_collisions.py` and `time_to_collision_within_bound.py` of nuplan-devkit 1.2, and
`pdm_scorer.py` of NAVSIM 2.2, which has them from there. Where the two differ, nuPlan's are taken: it judges
a closed loop, as here, where NAVSIM judges 4 s in which nobody reacts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.judging.closed_loop import Drive
from attnsweep.tasks.driving.world.cast import EGO
from attnsweep.tasks.driving.world.geometry import Flags, Floats, overlap, wrap

Indices = NDArray[np.integer[Any]]
STOPPED, STANDING = 0.05, 5e-3  # m/s, up to which an ego, or another, stands
AHEAD, BEHIND = np.radians(30.0), np.radians(150.0)  # off the way the ego points, seen from its rear axle
REAR_AXLE = 0.3  # of the length behind the centre
PROJECTED_S = 0.1 * np.arange(1, 10)  # s ahead: a collision in 0.95 s is the first that does not count


def near(drive: Drive) -> Flags:
    """Which others (t, b, a) are there and could be reached within a second."""
    ego = drive.state[:, :, EGO : EGO + 1]
    distance = np.hypot(drive.state[..., 0] - ego[..., 0], drive.state[..., 1] - ego[..., 1])
    speed = np.hypot(drive.state[..., 3], drive.state[..., 4])
    half = np.hypot(drive.size[..., 0], drive.size[..., 1]) / 2
    reach = speed + speed[:, :, EGO : EGO + 1] + half + half[:, EGO : EGO + 1]
    close = drive.active & (distance < reach)
    close[:, :, EGO] = False
    return close


def touching(drive: Drive, close: Flags) -> Flags:
    """Which of the others that are close (t, b, a) the ego's box overlaps."""
    hit = close.copy()
    t, b, a = np.nonzero(close)
    hit[t, b, a] = overlap(boxes(drive, t, b, EGO), boxes(drive, t, b, a))
    return hit


def at_fault(drive: Drive, counts: Flags, hit: Flags) -> Flags:
    """With whom (b, a) the ego has a collision that counts against it, of those it touches (t, b, a), at
    entries that count (t, b).

    The first touch decides. The ego is at fault where it moves and the other stands, or its front bumper
    hits the other, or the other hits its side while it is between lanes, off the road or at a junction; it
    is not where it stands or the other comes from behind. The devkits let off an ego that is hit from the
    side at a junction; here, where all others yield to whom they can see, that would let off those who take
    the way of others.
    """
    first = hit & (np.cumsum(hit, axis=0) == 1) & counts[..., None]
    t, b, a = np.nonzero(first)
    ego, other = boxes(drive, t, b, EGO), boxes(drive, t, b, a)
    moves = speed(drive, t, b, EGO) > STOPPED
    stands = speed(drive, t, b, a) <= STANDING
    from_behind = bearing(ego, other) > BEHIND
    blamed = moves & (stands | (~from_behind & (overlap(front(ego), other) | exposed(drive)[t, b])))
    found = np.zeros(hit.shape[1:], dtype=bool)
    found[b[blamed], a[blamed]] = True
    return found


def closes_in(drive: Drive, counts: Flags, close: Flags) -> Flags:
    """In which scenes (b,) the ego would at an entry that counts (t, b) collide in less than 0.95 s, if both
    went on as they do, with one of the others that are close (t, b, a).

    Of others that count which are ahead of it, and, while it is between lanes, off the road or at a
    junction, all that are not behind it; an ego that stands collides with nobody. The devkits project both
    straight ahead; here each keeps its rate of turn, or every ego that turns in front of cars that wait
    would be blamed, at 7 of 100 junctions the expert.
    """
    moves = np.hypot(drive.state[:, :, EGO, 3], drive.state[:, :, EGO, 4]) > STANDING
    t, b, a = np.nonzero(close & (counts & moves)[..., None])
    off = bearing(boxes(drive, t, b, EGO), boxes(drive, t, b, a))
    counted = (off < AHEAD) | (exposed(drive)[t, b] & (off <= BEHIND))
    t, b, a = t[counted], b[counted], a[counted]
    touches = np.zeros(len(t), dtype=bool)
    for later in PROJECTED_S:
        touches |= overlap(projected(drive, t, b, EGO, later), projected(drive, t, b, a, later))
    found = np.zeros(drive.state.shape[1], dtype=bool)
    found[b[touches]] = True
    return found


def projected(drive: Drive, t: Indices, b: Indices, a: Indices | int, later: float) -> Floats:
    """The boxes (k, 5) of agents, see `boxes`, so many seconds later, if they keep speed and rate of turn."""
    now = drive.state[t, b, a]
    turn = later * wrap(now[:, 2] - drive.state[np.maximum(t - 1, 0), b, a, 2]) / drive.dt
    course = np.arctan2(now[:, 4], now[:, 3]) + turn / 2
    chord = later * np.hypot(now[:, 3], now[:, 4]) * np.sinc(turn / 2 / np.pi)
    pose = now[:, :3] + np.stack([chord * np.cos(course), chord * np.sin(course), turn], axis=1)
    return np.concatenate([pose, drive.size[b, a]], axis=1)


def exposed(drive: Drive) -> Flags:
    """When (t, b) an ego must look out to its sides: between lanes, off the road, at a junction."""
    place = drive.placement
    return np.asarray(place.between_lanes | place.off_road | place.at_junction)


def boxes(drive: Drive, t: Indices, b: Indices, a: Indices | int) -> Floats:
    """The boxes (k, 5) of agents `a` of scenes `b` at entries `t`, (k,) each."""
    return np.concatenate([drive.state[t, b, a, :3], drive.size[b, a]], axis=1)


def speed(drive: Drive, t: Indices, b: Indices, a: Indices | int) -> Floats:
    """How fast (k,) they go."""
    return np.hypot(drive.state[t, b, a, 3], drive.state[t, b, a, 4])


def bearing(ego: Floats, other: Floats) -> Floats:
    """The angle (k,) of boxes (k, 5) off an ego's heading, seen from its rear axle: 0 ahead, pi behind."""
    back = REAR_AXLE * ego[:, 3:4] * np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], axis=1)
    dx, dy = (other[:, :2] - ego[:, :2] + back).T
    return np.abs(wrap(np.arctan2(dy, dx) - ego[:, 2]))


def front(ego: Floats) -> Floats:
    """The front bumpers of boxes (k, 5), as boxes without length."""
    half = ego[:, 3] / 2
    x, y = ego[:, 0] + half * np.cos(ego[:, 2]), ego[:, 1] + half * np.sin(ego[:, 2])
    return np.stack([x, y, ego[:, 2], np.zeros(len(ego)), ego[:, 4]], axis=1)
