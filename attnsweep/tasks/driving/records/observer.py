"""What egos sense while they drive, in the own world or in another: what samples hold of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from attnsweep.tasks.driving.records.samples import SWEEPS, Samples
from attnsweep.tasks.driving.records.sensed import ego_state, navigation, red_points, with_rig
from attnsweep.tasks.driving.world.cameras import Rig, render
from attnsweep.tasks.driving.world.cast import EGO
from attnsweep.tasks.driving.world.geometry import Flags, Floats
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import RoadMap
from attnsweep.tasks.driving.world.sensor import SCANNER, Scan, layers, scan
from attnsweep.tasks.driving.world.traffic import World


@dataclass(frozen=True)
class Moment:
    """All scenes now, the ego first among the agents: states (b, a, 5) as `World.motion`, those of the egos
    (b, 5) a step ago, sizes (b, a, 2), who is there (b, a), and of each scene the points (n, 2) of stop lines
    in sight whose light is not green.
    """

    state: Floats
    before: Floats
    size: Floats
    active: Flags
    red: Sequence[Floats]


class Observer:
    """The egos' senses: `observe` once at each key frame from the start on, and from the fourth on it returns
    what samples hold of `bev`, `route`, `command` and `ego_state`, a row per scene, and what `views` gives.

    Of each scene: the `routes` (n, 2), what is painted (n, 2), and the seed of the sensor's noise.
    """

    def __init__(
        self,
        moment: Callable[[], Moment],
        *,
        routes: Sequence[Floats],
        paint: Sequence[Floats],
        seeds: Sequence[int],
        views: Callable[[], Samples] = dict,
    ) -> None:
        self.moment, self.routes, self.paint, self.seeds, self.views = moment, routes, paint, seeds, views
        self.scans: list[list[Scan]] = []

    def observe(self) -> Samples:
        """What is sensed now; nothing yet at the first three key frames."""
        now = self.moment()
        pose = np.ascontiguousarray(now.state[:, EGO, :3])
        self.scans.append(self.scan(now, pose))
        if len(self.scans) < SWEEPS:
            return {}
        sweeps = list(zip(*self.scans[-SWEEPS:], strict=True))  # of each scene
        grids = [layers(sweeps[b], now.red[b], pose[b]) for b in range(len(pose))]
        ways = [navigation(route, pose[b : b + 1]) for b, route in enumerate(self.routes)]
        return {
            "bev": np.stack(grids),
            **{name: np.concatenate([way[name] for way in ways]) for name in ways[0]},
            "ego_state": ego_state(now.state[:, EGO], now.before, DT),
            **self.views(),
        }

    def scan(self, now: Moment, pose: Floats) -> list[Scan]:
        """A turn of the scanner in each scene."""
        boxes, others = np.concatenate([now.state[..., :3], now.size], axis=-1), now.active.copy()
        others[:, EGO] = False
        seeds = [(seed, len(self.scans)) for seed in self.seeds]
        return scan(pose, boxes, others, paint=self.paint, seeds=seeds, scanner=SCANNER)


def observer_of(maps: Sequence[RoadMap], world: World, rig: Rig | None = None) -> Observer:
    """The senses of the egos of the own world, with a `rig` of cameras or without."""
    return Observer(
        lambda: Moment(world.motion, world.before[:, EGO], world.size, world.active, red_of(maps, world)),
        routes=[m.paths[route].xy for m, route in zip(maps, world.manners.route[:, EGO], strict=True)],
        paint=[m.paint for m in maps],
        seeds=[m.seed for m in maps],
        views=partial(views_of, maps, world, rig) if rig else dict,
    )


def red_of(maps: Sequence[RoadMap], world: World) -> list[Floats]:
    """The points (n, 2) of each scene's stop lines in sight whose light is not green."""
    lights = zip(maps, world.lights, world.state[:, EGO], strict=True)
    return [red_points(one.stop_lines, one.red(green), ego) for one, green, ego in lights]


def views_of(maps: Sequence[RoadMap], world: World, rig: Rig) -> Samples:
    """What the egos' cameras show."""
    images = []
    for b, (one, red) in enumerate(zip(maps, red_of(maps, world), strict=True)):
        others = np.flatnonzero(world.active[b, EGO + 1 :]) + EGO + 1
        boxes, kind, pose = world.boxes[b, others], world.kind[b, others], world.state[b, EGO, :3]
        images.append(render(pose, boxes, kind, area=one.drivable, paint=one.paint, red=red, rig=rig))
    return with_rig(images, rig)
