"""Policies that nobody would ride with: what a score must put below one that at least follows its route."""

from collections.abc import Callable

import numpy as np

from attnsweep.tasks.driving.judging.closed_loop import Policy
from attnsweep.tasks.driving.records.samples import ROUTE_POINTS, ROUTE_STEP, Samples
from attnsweep.tasks.driving.world.geometry import Floats, offset

SECONDS = np.arange(1, 9) / 2  # from a plan's making to each of its points
LANE = 3.5  # m


def along(seen: Samples, metres: Floats, lateral: float = 0.0) -> Floats:
    """Plans (b, 8, 3) through points `metres` (8,) along the route, `lateral` metres to its left; behind the
    ego straight back.
    """
    stations = ROUTE_STEP * np.arange(-1, ROUTE_POINTS + 1)
    plans = np.zeros((len(seen["route"]), len(SECONDS), 3))
    for b, points in enumerate(seen["route"].astype(float)):
        line = np.concatenate([[[-ROUTE_STEP, 0.0], [0.0, 0.0]], points])
        line[2:] = offset(line, lateral)[2:]
        plans[b, :, :2] = np.stack([np.interp(metres, stations, line[:, k]) for k in range(2)], axis=1)
    return plans


def stop(seen: Samples) -> Floats:
    """Stays where it is."""
    return along(seen, 0 * SECONDS)


def creep(seen: Samples) -> Floats:
    """Follows the route at 1.5 m/s."""
    return along(seen, 1.5 * SECONDS)


def nan(seen: Samples) -> Floats:
    """Has no plan."""
    return np.full((len(seen["route"]), len(SECONDS), 3), np.nan)


def off_the_map(seen: Samples) -> Floats:
    """Leaves the road to the left at 8 m/s."""
    return along({"route": np.zeros((len(seen["route"]), ROUTE_POINTS, 2))}, 0 * SECONDS) + np.stack(
        [8 * SECONDS * np.cos(0.8), 8 * SECONDS * np.sin(0.8), np.full(len(SECONDS), 0.8)], axis=1
    )


def reverse(seen: Samples) -> Floats:
    """Drives backwards at 3 m/s, its points ever farther behind."""
    plans = np.zeros((len(seen["route"]), len(SECONDS), 3))
    plans[..., 0] = -3.0 * SECONDS
    return plans


def behind(seen: Samples) -> Floats:
    """Wants to be on the route, from 10 m behind itself on."""
    plans = along(seen, 6.0 * SECONDS)
    plans[..., 0] -= 10.0 + 6.0 * 4
    return plans


def wrong_lane(seen: Samples) -> Floats:
    """Follows the route at 8 m/s in the lane to its left."""
    return along(seen, 8.0 * SECONDS, LANE)


def runs_red(seen: Samples) -> Floats:
    """Waits while no light that is not green is in sight, and goes on at 10 m/s when one is."""
    red = seen["bev"][:, 5].any(axis=(1, 2))
    return np.where(red[:, None, None], along(seen, 10.0 * SECONDS), along(seen, 0 * SECONDS))


class Alternate:
    """Follows the route, in turn at 12 m/s and at a stop."""

    def __init__(self) -> None:
        self.plans = 0

    def __call__(self, seen: Samples) -> Floats:
        self.plans += 1
        return along(seen, 12.0 * (self.plans % 2) * SECONDS)


class Weave:
    """Follows the route at 8 m/s, in turn to its left and to its right."""

    def __init__(self) -> None:
        self.plans = 0

    def __call__(self, seen: Samples) -> Floats:
        self.plans += 1
        return along(seen, 8.0 * SECONDS, 1.2 if self.plans // 2 % 2 else -1.2)


def jump(seen: Samples) -> Floats:
    """Stays for 1.5 s and is then 40 m ahead."""
    return along(seen, np.where(SECONDS < 2, 0.0, 40.0))


def mirrored(seen: Samples) -> Floats:
    """Follows the route at 6 m/s in a frame whose y points to the right."""
    return along(seen, 6.0 * SECONDS) * [1, -1, -1]


def far_point(seen: Samples) -> Floats:
    """Has one point, 40 m ahead."""
    return along(seen, np.full(len(SECONDS), 40.0))


def tenfold(seen: Samples) -> Floats:
    """Follows the route at 6 m/s, in units of ten centimetres."""
    return 10 * along(seen, 6.0 * SECONDS)


def backwards_in_time(seen: Samples) -> Floats:
    """Follows the route at 6 m/s, the last point of the plan first."""
    return along(seen, 6.0 * SECONDS)[:, ::-1]


def good_at_first(seen: Samples) -> Floats:
    """Follows the route at 6 m/s for half a second, and then leaves it to the left."""
    return along(seen, 6.0 * SECONDS) + np.pad((3.0 * np.arange(8))[:, None], ((0, 0), (1, 1)))


def at_speed(seen: Samples, factor: float) -> Floats:
    """Follows the route at a multiple of the present speed."""
    parts = [{name: array[b : b + 1] for name, array in seen.items()} for b in range(len(seen["route"]))]
    speeds = seen["ego_state"][:, 0].astype(float)
    plans = [along(part, factor * v * SECONDS) for part, v in zip(parts, speeds, strict=True)]
    return np.concatenate(plans)


def hugs_the_border(seen: Samples) -> Floats:
    """Follows the route at 8 m/s, 1.3 m to its right."""
    return along(seen, 8.0 * SECONDS, -1.3)


def brakes_late(seen: Samples) -> Floats:
    """Follows the route at 12 m/s until a return lies less than 12 m ahead."""
    cells = seen["bev"][:, 3, 16 + 3 : 16 + 12, 31:33]  # a metre each, the ego between 16 and 17
    return np.where(cells.any(axis=(1, 2))[:, None, None], 0.0, along(seen, 12.0 * SECONDS))


class Jitters:
    """Follows the route at 8 m/s, each point of each plan off by chance."""

    def __init__(self) -> None:
        self.chance = np.random.default_rng(0)

    def __call__(self, seen: Samples) -> Floats:
        plans = along(seen, 8.0 * SECONDS)
        plans[..., 1] += self.chance.normal(0, 0.7, plans.shape[:2])
        return plans


class Stale:
    """Follows the route at 8 m/s as it was two seconds ago."""

    def __init__(self) -> None:
        self.plans: list[Floats] = []

    def __call__(self, seen: Samples) -> Floats:
        self.plans.append(along(seen, 8.0 * SECONDS))
        return self.plans[max(0, len(self.plans) - 5)]


class Starts:
    """Stands until its `first` plan to move, and then follows the route at 8 m/s until its `last` one."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.plans = first, last, 0

    def __call__(self, seen: Samples) -> Floats:
        self.plans += 1
        return along(seen, 8.0 * (self.first <= self.plans <= self.last) * SECONDS)


class Clocked:
    """Follows the route, `travelled` metres of it since the handover at each time (s)."""

    def __init__(self, travelled: Callable[[Floats], Floats]) -> None:
        self.travelled, self.plans = travelled, 0

    def __call__(self, seen: Samples) -> Floats:
        now = np.array(self.plans / 2)
        self.plans += 1
        return along(seen, self.travelled(now + SECONDS) - self.travelled(now))


def surging(seconds: Floats) -> Floats:
    """Metres: up to 6 m/s and down to a stop in turn, by at most 1.5 m/s2, which is comfortable."""
    return 3.0 * seconds + 6.0 * (1 - np.cos(seconds / 2))


def halting(seconds: Floats) -> Floats:
    """Metres: up to 8 m/s by 1.5 m/s2, on for 2 s, down again, a stand of 2 s, and anew."""
    rise, period = 8.0 / 1.5, 2 * 8.0 / 1.5 + 4.0
    whole, rest = np.divmod(seconds, period)
    up, even, down = rest.clip(0, rise), (rest - rise).clip(0, 2), (rest - rise - 2).clip(0, rise)
    return whole * (8 * rise + 16) + 0.75 * up**2 + 8 * even + 8 * down - 0.75 * down**2


def of_another_scene(seen: Samples) -> Floats:
    """Has the plan that would follow the route of another scene at 6 m/s."""
    return np.roll(along(seen, 6.0 * SECONDS), 1, axis=0)


class NowAndThen:
    """Follows the route at 8 m/s; every second plan is NaN."""

    def __init__(self) -> None:
        self.plans = 0

    def __call__(self, seen: Samples) -> Floats:
        self.plans += 1
        return along(seen, 8.0 * SECONDS) + (np.nan if self.plans % 2 else 0.0)


DEGENERATE: dict[str, Callable[[], Policy]] = {
    "stop": lambda: stop,
    "creep": lambda: creep,
    "nan": lambda: nan,
    "alternate": Alternate,
    "weave": Weave,
    "reverse": lambda: reverse,
    "behind": lambda: behind,
    "wrong lane": lambda: wrong_lane,
    "runs red": lambda: runs_red,
    "off the map": lambda: off_the_map,
    "jump": lambda: jump,
    "mirrored": lambda: mirrored,
    "far point": lambda: far_point,
    "tenfold": lambda: tenfold,
    "backwards in time": lambda: backwards_in_time,
    "good at first": lambda: good_at_first,
    "half speed": lambda: lambda seen: at_speed(seen, 0.5),
    "double speed": lambda: lambda seen: at_speed(seen, 2.0),
    "hugs the border": lambda: hugs_the_border,
    "brakes late": lambda: brakes_late,
    "jitters": Jitters,
    "stale": Stale,
    "starts late": lambda: Starts(15, 99),
    "gives up": lambda: Starts(1, 12),
    "surges": lambda: Clocked(surging),
    "halts": lambda: Clocked(halting),
    "of another scene": lambda: of_another_scene,
    "now and then": NowAndThen,
}
MOST = {  # the highest score that each may have, in any preset
    "stop": 0.1,
    "creep": 0.15,
    "nan": 0.1,
    "alternate": 0.1,
    "weave": 0.1,
    "reverse": 0.1,
    "behind": 0.1,
    "wrong lane": 0.2,
    "runs red": 0.15,
    "off the map": 0.1,
    **dict.fromkeys(("jump", "mirrored", "far point", "tenfold", "backwards in time", "good at first"), 0.1),
    **dict.fromkeys(("half speed", "double speed", "jitters", "stale"), 0.15),
    "hugs the border": 0.2,
    "brakes late": 0.22,
    "starts late": 0.15,
    "gives up": 0.15,
    "surges": 0.23,
    "halts": 0.23,
    "of another scene": 0.1,
    "now and then": 0.1,
}
