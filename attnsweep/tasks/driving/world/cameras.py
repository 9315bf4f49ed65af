"""Six small pinhole cameras around the ego, an option beside the scanner.

They see what the scanner sees, boxes and paint, and besides where the road is: every pixel's ray ends at the
nearest box, else on the ground, else in the sky. Boxes are as high as their kind is, and coloured by kind and
by the side that is seen; nobody's colour tells who it is.

Frames: the ego's, x forward, y left, z up, its origin on the ground below its middle; a camera's, x right, y
down, z forward. A point p in the ego's frame is (X, Y, Z) = extr p in a camera's, and lies at u = fx X / Z +
cx, v = fy Y / Z + cy in its image, where pixel (row, column) covers [column, column + 1] x [row, row + 1].
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.world.cast import CAR, CYCLIST, PARKED, PEDESTRIAN
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices, from_frame, to_frame, wrap
from attnsweep.tasks.driving.world.roads import DrivableArea
from attnsweep.tasks.driving.world.sensor import Grid, rasterise

CAMERAS = {
    "cams": "(6, 3, 64, 112) uint8: the views ahead, ahead left, behind left, behind, behind right, ahead "
    "right; red, green, blue",
    "intr": "(6, 3, 3) float32: from a camera's frame to pixels",
    "extr": "(6, 4, 4) float32: from the ego's frame, with z up, to the camera's",
}
TALL, LONG = 3.2, 6.0  # m, how high vehicles are that are longer than this
HEIGHT = {CAR: 1.5, PEDESTRIAN: 1.75, PARKED: 1.5, CYCLIST: 1.75}  # m
COLOUR = {
    CAR: (70, 90, 200), PEDESTRIAN: (230, 130, 40), PARKED: (130, 90, 150), CYCLIST: (40, 150, 120)
}  # fmt: skip
SKY, ROAD, VERGE, PAINT, RED = (170, 200, 235), (95, 95, 100), (90, 130, 70), (235, 235, 235), (220, 30, 30)
SHADE = (0.8, 0.6, 1.0)  # of the ends, the sides and the top of a box
NEAR_GROUND = Grid(cells=480, size=0.25, back=-60.0)  # in which paint is looked up


@dataclass(frozen=True)
class Rig:
    """Cameras at one point `above` the ego's middle (m), each turned by an equal part of a full turn, as wide
    as `field` (degrees), with images of `height` times `width` pixels.
    """

    count: int = 6
    field: float = 70.0
    above: float = 1.6
    height: int = 64
    width: int = 112

    @property
    def yaw(self) -> Floats:
        """The directions (c,) of the cameras, to the left (rad)."""
        return np.arange(self.count) * 2 * np.pi / self.count

    @property
    def intr(self) -> Floats:
        """(c, 3, 3)"""
        focal = self.width / 2 / np.tan(np.radians(self.field) / 2)
        one = np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1]])
        return np.tile(one, (self.count, 1, 1))

    @property
    def extr(self) -> Floats:
        """(c, 4, 4)"""
        cos, sin, none = np.cos(self.yaw), np.sin(self.yaw), np.zeros(self.count)
        right, down, ahead = (sin, -cos, none), (none, none, none - 1), (cos, sin, none)
        turned = np.stack([np.stack(axis, axis=-1) for axis in (right, down, ahead)], axis=1)  # (c, 3, 3)
        moved = -turned @ np.array([0.0, 0.0, self.above])
        whole = np.tile(np.eye(4), (self.count, 1, 1))
        whole[:, :3, :3], whole[:, :3, 3] = turned, moved
        return whole


@dataclass(frozen=True)
class Sight:
    """Where the pixels of a rig look, the images side by side, n = c w columns: `rays` (h, n, 3) in the ego's
    frame, 1 m deep in the camera's; `azimuth` (n,) of each column, which all its rays share; which rays meet
    the ground (h, n), and where those do (g, 2).
    """

    rays: Floats
    azimuth: Floats
    below: Flags
    ground: Floats


@functools.lru_cache(maxsize=4)
def sight(rig: Rig) -> Sight:
    """Where a rig looks."""
    v, u = np.meshgrid(np.arange(rig.height) + 0.5, np.arange(rig.width) + 0.5, indexing="ij")
    deep = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(rig.intr[0]).T  # (h, w, 3)
    rays = np.einsum("hwi,cij->hcwj", deep, rig.extr[:, :3, :3]).reshape(rig.height, -1, 3)
    below = rays[..., 2] < 0
    met = rays[below]
    azimuth = np.arctan2(rays[0, :, 1], rays[0, :, 0])
    return Sight(rays, azimuth, below, met[:, :2] * (rig.above / -met[:, 2:]))


def render(
    pose: Floats, boxes: Floats, kind: Indices, *, area: DrivableArea, paint: Floats, red: Floats, rig: Rig
) -> NDArray[np.uint8]:
    """The views (c, 3, h, w) at a pose (3,) of boxes (a, 5) of kinds (a,), the ground, and points (n, 2) of
    paint and of stop lines that show red, all in the world.
    """
    see = sight(rig)
    image = empty_world(see, pose, area, paint, red)
    depth = np.full(see.below.shape, np.inf)
    middle = to_frame(boxes[:, :2], pose)
    for a, (x, y) in enumerate(middle):
        reach = np.arcsin(min(1.0, np.hypot(*boxes[a, 3:5]) / 2 / max(np.hypot(x, y), 1e-9)))
        columns = np.flatnonzero(np.abs(wrap(see.azimuth - np.arctan2(y, x))) <= reach)
        high = TALL if kind[a] == CAR and boxes[a, 3] > LONG else HEIGHT[int(kind[a])]
        half = np.array([*boxes[a, 3:5], high]) / 2
        hit, side = entries(see.rays[:, columns], np.array([x, y, boxes[a, 2] - pose[2]]), half, rig.above)
        row, column = np.nonzero(hit < depth[:, columns])
        shade = np.array(SHADE)[side[row, column], None]
        depth[row, columns[column]] = hit[row, column]
        image[row, columns[column]] = (np.array(COLOUR[int(kind[a])]) * shade).astype(np.uint8)
    return image.reshape(rig.height, rig.count, rig.width, 3).transpose(1, 3, 0, 2)


def empty_world(
    see: Sight, pose: Floats, area: DrivableArea, paint: Floats, red: Floats
) -> NDArray[np.uint8]:
    """The images (h, n, 3) of a world without agents."""
    image = np.empty(see.rays.shape, dtype=np.uint8)
    image[...] = SKY
    colours = np.where((area.at(from_frame(see.ground, pose)) > 0)[:, None], ROAD, VERGE).astype(np.uint8)
    index, inside = NEAR_GROUND.index(see.ground)
    for points, colour in ((paint, PAINT), (red, RED)):
        there = rasterise(points, pose, NEAR_GROUND).ravel()[index] > 0
        colours[there & inside] = colour
    image[see.below] = colours
    return image


def entries(rays: Floats, pose: Floats, half: Floats, above: float) -> tuple[Floats, Indices]:
    """How deep (...) rays (..., 3) from a camera `above` the ground enter a box of half sizes (3,) that
    stands on it at a pose (3,), inf where they miss it, and through which side: 0 an end, 1 a side, 2 its
    top. By the slab test.
    """
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    start = np.array([-cos * pose[0] - sin * pose[1], sin * pose[0] - cos * pose[1], above - half[2]])
    x, y, z = np.moveaxis(rays, -1, 0)
    way = np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-half - start) / way, (half - start) / way
    first, last = np.fmin(one, other), np.fmax(one, other)
    enters, leaves = first.max(axis=-1), last.min(axis=-1)
    return np.where((enters <= leaves) & (enters > 0), enters, np.inf), first.argmax(axis=-1)


def pixels_of(points: Floats, rig: Rig) -> tuple[Floats, Floats]:
    """Where points (n, 3) in the ego's frame lie in each image: u and v (c, n, 2), and how deep (c, n); what
    is not deeper than 0 lies behind the camera.
    """
    whole = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    local = np.einsum("cij,nj->cni", rig.extr, whole)[..., :3]
    image = np.einsum("cij,cnj->cni", rig.intr, local)
    depth = local[..., 2]
    return image[..., :2] / np.where(np.abs(depth) > 1e-9, depth, 1e-9)[..., None], depth
