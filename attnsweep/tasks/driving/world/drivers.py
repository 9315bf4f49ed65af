"""What drivers see, and how far they may go: whom they follow, and where they must stop.

A driver follows by the intelligent driver model, obeys lights, and at zones lets those pass who have priority
or can no longer stop. Everything is a function of one moment of all scenes.
"""

from dataclasses import dataclass

import numpy as np

from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cast import PEDESTRIAN, Cast
from attnsweep.tasks.driving.world.geometry import Flags, Floats
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import GREEN_S
from attnsweep.tasks.driving.world.tables import PathTables, Situation, ZoneTable

SIGHT = 70.0  # m, beyond which a driver leaves others out of account
FIRM = 4.0  # m/s2, the braking with which a driver reckons when it decides whether to stop
GENTLE = 1.8  # m/s2, of a car before which one crosses a road on foot
CALM = 2.5  # m/s2, of braking for a gap that is small but does not shrink
MERGE_LENGTH = 10.0  # m behind its start, in which a zone that merges belongs to one
CREEP = 4.0  # m before a stop, within which a driver who has stopped comes no closer
RESTART_S = 2.5  # s, that who is held up takes longer


@dataclass(frozen=True)
class View:
    """All scenes at `time` (s): the agents and how they drive, as of `cast.side_by_side`, and their paths;
    states (b, a, 4), who is `active` (b, a), the seconds `phase` (b, 2) since each group of lights turned
    green, where everybody is on each path, and the arc length `s` (b, a) of each on its own.
    """

    time: float
    manners: Cast
    tables: PathTables
    state: Floats
    active: Flags
    phase: Floats
    situation: Situation
    s: Floats

    @property
    def speed(self) -> Floats:
        """(b, a)"""
        return self.state[..., 3]


def waits(view: View) -> Flags:
    """Who stands on foot beside the road (b, a), before or after crossing it."""
    arrived = view.s > view.tables.length - 0.8
    return (view.manners.kind == PEDESTRIAN) & ((view.time < view.manners.go) | arrived)


# --- Others ahead ---


def leaders(view: View) -> tuple[Floats, Floats]:
    """What those ahead take off each driver's acceleration (b, a), and the gap to the nearest. Who comes the
    other way crosses the path or leaves it, and counts as if it stood there.
    """
    hinders, gap = in_the_way(view)
    how, speed = view.manners, view.speed
    along = np.maximum(np.cos(view.situation.turn), 0.0)
    closing = speed[:, :, None] - speed[:, None, :] * along
    braking = kinematics.braking(
        speed[:, :, None], closing, np.maximum(gap, 0.1),
        most=how.most[:, :, None], comfortable=how.comfortable[:, :, None],
        headway=how.headway[:, :, None], standing=how.standing[:, :, None],
    )  # fmt: skip
    needed = np.maximum(closing, 0.0) ** 2 / np.maximum(gap - 0.5, 0.1)
    worst = (hinders * np.minimum(braking, CALM + needed)).max(axis=2)
    return worst, np.where(hinders > 0, gap, np.inf).min(axis=2)


def in_the_way(view: View) -> tuple[Floats, Floats]:
    """How much each agent hinders each driver (b, i, j), from 0 to 1, and the gap between them along the
    driver's path. One who moves aside counts less the sooner it will be gone before the driver comes.
    """
    seen, how, speed = view.situation, view.manners, view.speed
    cos, sin = np.cos(seen.turn), np.sin(seen.turn)
    half_length, half_width = how.length[:, None, :] / 2, how.width[:, None, :] / 2
    along = np.abs(cos) * half_length + np.abs(sin) * half_width
    across = np.abs(sin) * half_length + np.abs(cos) * half_width
    ahead = seen.s - view.s[:, :, None]
    gap = ahead - along - how.length[:, :, None] / 2
    swing = seen.bend * how.length[:, :, None] ** 2 / 8  # of the own corners in a bend
    reach = how.width[:, :, None] / 2 + swing + across + 0.2
    apart = seen.side - how.side[:, :, None]
    lateral = speed[:, None, :] * sin
    leaves = (reach - apart * np.sign(lateral)) / np.maximum(np.abs(lateral), 0.01)  # s from now
    comes = gap / np.maximum(speed[:, :, None], 0.1)
    hinders = np.clip((leaves + 3.0 - comes) / 1.5, 0.0, 1.0)
    counts = (np.abs(apart) < reach) & (ahead > 0) & (gap < SIGHT) & view.active[:, None, :]
    on_foot = how.kind == PEDESTRIAN  # who give way to one another without stopping
    counts &= ~(on_foot[:, :, None] & on_foot[:, None, :])
    return np.where(counts, hinders, 0.0), gap


# --- Places to stop: how far (b, a) it is to them, inf where there is none ---


def to_red_light(view: View) -> Floats:
    """To a line at which the driver must stop for a light, and can."""
    group = view.tables.light
    phase = np.take_along_axis(view.phase, np.maximum(group, 0), axis=1)
    gap = view.tables.light_at - view.s - view.manners.length / 2
    can_stop = gap > view.speed**2 / (2 * FIRM)
    return np.where((group >= 0) & (phase >= GREEN_S) & can_stop, gap, np.inf)


def to_halt(view: View, stood: Floats) -> Floats:
    """To where a driver lets someone out, until it has stood there long enough (b, a), in seconds."""
    gap = view.manners.halt - view.s - view.manners.length / 2
    return np.where((gap > 0) & (gap < SIGHT) & (stood < view.manners.halt_s), gap, np.inf)


def at_halt(view: View) -> Flags:
    """Who stands (b, a) where it lets someone out."""
    gap = view.manners.halt - view.s - view.manners.length / 2
    return (gap < CREEP) & (gap > 0) & (view.speed < 0.3)


def to_zone(view: View, zones: ZoneTable, allowed: Floats, blocked: Flags, held: Floats) -> Floats:
    """To the zone at which the driver must let others pass. `allowed` (b, a): the speeds that drivers would
    go, `blocked` (b, a): who cannot go on, `held` (b, a): how far it was to where each last had to stop.
    """
    stop = stop_of_rows(view, zones, allowed.ravel(), blocked.ravel(), held.ravel())
    return zones.nearest(stop, view.s.size).reshape(view.s.shape)


def stop_of_rows(view: View, zones: ZoneTable, allowed: Floats, blocked: Flags, held: Floats) -> Floats:
    """How far it is from each row's agent to the zone (r,) if it must stop before it, else inf."""
    how = view.manners
    i, j = zones.one, zones.other
    s, half, speed = view.s.ravel(), how.length.ravel() / 2, view.speed.ravel()
    active, most, late = view.active.ravel(), how.most.ravel(), how.delay.ravel() * DT
    patience = how.patience.ravel()[i] + zones.merges
    ahead, other_ahead = zones.one_from - s[i] - half[i], zones.other_from - s[j] - half[j]
    clears = np.where(zones.merges, zones.one_from + MERGE_LENGTH, zones.one_to)
    other_clears = np.where(zones.merges, zones.other_from + MERGE_LENGTH, zones.other_to)
    to_end, other_to_end = clears - s[i] + half[i], other_clears - s[j] + half[j]
    entered = other_ahead < 0
    relevant = active[i] & active[j] & (ahead > 0) & (ahead < SIGHT) & (other_to_end > 0)

    enters = time_to(ahead, speed[i], most[i], allowed[i])
    leaves = late[i] + time_to(to_end, speed[i], most[i], allowed[i])
    other_enters = time_to(other_ahead, speed[j], most[j], allowed[j])
    other_leaves = other_to_end / np.maximum(speed[j], 0.5)
    passes = other_leaves + 0.5 < enters

    can_stop = ahead > speed[i] ** 2 / (2 * FIRM) + speed[i] * DT
    on_foot = how.kind.ravel()[i] == PEDESTRIAN  # who wants more time than a driver
    needs = speed[j] ** 2 / (2 * np.where(on_foot, GENTLE, FIRM)) + speed[j] * np.where(on_foot, 1.0, DT)
    other_can_stop = other_ahead > needs
    gap = np.where(zones.first, 0.3, np.where(blocked[j], 0.3 - RESTART_S, patience))
    in_time = other_enters > leaves + gap
    stands_before = (speed[j] < 0.5) & (other_ahead > held[j] + 1.0)
    claims = np.where(zones.first, ~other_can_stop, ~stands_before)
    must = ~passes & np.where(entered, True, claims & ~in_time & can_stop)
    return np.where(relevant & must, ahead, np.inf)


def time_to(distance: Floats, speed: Floats, acceleration: Floats, most: Floats) -> Floats:
    """How long one takes for a distance, speeding up to `most` at that acceleration; 0 where it is behind."""
    most = np.maximum(np.maximum(most, speed), 0.5)
    distance = np.maximum(distance, 0.0)
    speeding_up = (most**2 - speed**2) / (2 * acceleration)
    short = (np.sqrt(speed**2 + 2 * acceleration * distance) - speed) / acceleration
    long = (most - speed) / acceleration + (distance - speeding_up) / most
    return np.where(distance < speeding_up, short, long)
