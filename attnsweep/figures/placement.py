"""Places labels beside the points of a figure, so that nobody needs a legend: one by one, the front first."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from numpy.typing import ArrayLike, NDArray

from attnsweep.figures import fonts

GREY, PALE = "#777777", "#D4D4D4"


class Point(Protocol):
    """What is labelled: its place in data coordinates, and the range of its seeds."""

    @property
    def label(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def cost(self) -> float: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def on_front(self) -> bool: ...


Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels
Place = tuple[Box, list[Box]]  # of a label, and the small boxes along the line that leads to it
RADII = (6, 9, 13, 18, 25, 34, 45, 58, 74, 92)  # points from a marker's centre to its label
LEADER_FROM = 13  # points; from there on a line ties the label to its marker
DIRECTIONS = [  # in degrees, each with the part of the label's width that lies to the left of where it points
    *((angle, 0.0) for angle in (-90.0, -67.5, -45.0, -22.5, 0.0, 22.5, 45.0, 67.5, 90.0)),
    *((angle, 0.5) for angle in (-90.0, 90.0)),
    *((angle, 1.0) for angle in (90.0, 112.5, 135.0, 157.5, 180.0, -157.5, -135.0, -112.5, -90.0)),
]
OFF_THE_FRONT, BEHIND_THE_FRONT = 120.0, -45.0  # degrees; where labels look best
ORDERS = 5  # in which the front is labelled at most, until all of it finds room
ON_THE_LINE = 25.0  # the penalty of a label of the front that meets its line


class LabelPlacer:
    """Writes a label beside each point, the front first, where it covers no label, marker, bar or leader.

    A point whose label finds no free place goes without. Distances are in pixels of the figure.
    """

    def __init__(
        self,
        axes: Axes,
        points: Sequence[Point],
        line: Sequence[tuple[float, float]],
        *,
        colour: Callable[[str], str],
    ) -> None:
        self.axes, self.points, self.colour = axes, points, colour
        self.per_point = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
        self.limits = axes.get_window_extent()
        self.taken, self.found = self.markers(), dict[int, Place]()  # by the index of the point
        self.line = self.boxes_of_line(line)
        self.centres = np.array([self.pixels(point.cost, point.accuracy) for point in points]).reshape(-1, 2)

    def place(self) -> int:
        """Labels the front; then the best of each model not on it; then others that have room beside them.
        Returns how many points have no label.
        """
        by_accuracy = sorted(range(len(self.points)), key=lambda i: -self.points[i].accuracy)
        front = [i for i, point in enumerate(self.points) if point.on_front]
        dominated = [i for i in by_accuracy if not self.points[i].on_front]
        named = {self.points[i].model for i in front}
        best = {self.points[i].model: i for i in reversed(dominated) if self.points[i].model not in named}
        rest = [i for i in dominated if best.get(self.points[i].model) != i]
        near = [radius for radius in RADII if radius < LEADER_FROM]
        with fonts.quietly():
            self.place_front(front)
            self.find_places([*best.values()], RADII)
            self.find_places(rest, near)
            for i, place in self.found.items():
                self.draw(i, place)
        return len(self.points) - len(self.found)

    def place_front(self, front: Sequence[int]) -> None:
        """Finds places for the front in the order in which most of it finds room: who found none comes first
        in the next one that is tried.
        """
        order, least = list(front), math.inf
        best = self.taken, self.found
        for _ in range(min(ORDERS, len(front))):
            self.taken, self.found = self.markers(), {}
            missed = self.find_places(order, RADII)
            if len(missed) < least:
                least, best = len(missed), (self.taken, self.found)
            if not missed:
                break
            order = [*missed, *(i for i in order if i not in missed)]
        self.taken, self.found = best

    def find_places(self, points: Sequence[int], radii: Sequence[int]) -> list[int]:
        """Finds places for the labels of these points in turn; returns those that found no room."""
        for i in points:
            place = self.best_place(self.points[i], self.size_of(i), radii)
            if place is not None:
                box, leader = self.found[i] = place
                self.taken += [(box[0] - 3, box[1], box[2] + 3, box[3]), *leader]
        return [i for i in points if i not in self.found]

    @functools.cache  # noqa: B019  the placer lives no longer than its figure is drawn
    def size_of(self, i: int) -> tuple[float, float]:
        """The width and height of a point's label."""
        text = self.text_of(i)
        extent = text.get_window_extent()
        text.remove()
        return extent.width, extent.height

    def text_of(self, i: int) -> Annotation:
        """The label of a point, written onto it."""
        point = self.points[i]
        colour, size = (self.colour(point.model), 8.5) if point.on_front else (GREY, 7)
        text = self.axes.annotate(
            point.label, (point.cost, point.accuracy), xytext=(0, 0), textcoords="offset points",
            color=colour, size=size, ha="left", va="bottom", zorder=9, annotation_clip=False,
            path_effects=[patheffects.withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        fonts.add_fonts(text)
        return text

    def draw(self, i: int, place: Place) -> None:
        """Writes the label of a point at its place, and draws a line to it where it is far away."""
        (box, leader), point = place, self.points[i]
        self.text_of(i).set_position(self.offset(point, (box[0], box[1])))
        if leader:
            self.draw_leader(point, box)

    def best_place(self, point: Point, size: tuple[float, float], radii: Sequence[int]) -> Place | None:
        """The place of its label with the least penalty; None where nothing is free."""
        places = sorted(self.places(point, size, radii))
        boxes, taken = np.array([box for _, box, _ in places]), np.array(self.taken)
        usable = self.inside(boxes) & ~overlaps(boxes, taken)
        on_line = overlaps(boxes, self.line)
        if not point.on_front:
            usable &= ~on_line
        best, least = None, math.inf
        for i in np.flatnonzero(usable):
            penalty, box, radius = places[i]
            if penalty >= least:
                break
            leader = self.leader(point, box) if radius >= LEADER_FROM else []
            if overlaps(leader, taken).any() or (not leader and self.is_nearer_to_another(point, box)):
                continue
            if penalty + ON_THE_LINE * on_line[i] < least:
                best, least = (box, leader), penalty + ON_THE_LINE * on_line[i]
        return best

    def places(
        self, point: Point, size: tuple[float, float], radii: Sequence[int]
    ) -> Iterator[tuple[float, Box, int]]:
        """Every place that is tried: its penalty, the box of the label, and how far away that is."""
        x, y = self.pixels(point.cost, point.accuracy)
        preferred = OFF_THE_FRONT if point.on_front else BEHIND_THE_FRONT
        for radius, (angle, hangs) in itertools.product(radii, DIRECTIONS):
            reach, up = radius * self.per_point, math.sin(math.radians(angle))
            left = x + reach * math.cos(math.radians(angle)) - size[0] * hangs
            bottom = y + reach * up - size[1] * (1 - up) / 2
            turned = abs(math.remainder(angle - preferred, 360))
            yield radius + 0.07 * turned, (left, bottom, left + size[0], bottom + size[1]), radius

    def is_nearer_to_another(self, point: Point, box: Box) -> bool:
        """Whether a label that no line ties to its point would be taken for that of another."""
        low, high = np.array(box[:2]), np.array(box[2:])
        apart = np.linalg.norm(self.centres - np.clip(self.centres, low, high), axis=1)
        x, y = self.pixels(point.cost, point.accuracy)
        own = math.dist((x, y), nearest(box, (x, y)))
        return bool((apart < own - 1e-6).any())

    def inside(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the boxes (n, 4) stay in the panel; a few pixels to the right and above do not matter."""
        left, bottom, right, top = self.limits.extents
        low, high = boxes[:, :2] >= (left + 2, bottom + 2), boxes[:, 2:] <= (right + 12, top + 4)
        return np.all(low & high, axis=1)

    def leader(self, point: Point, box: Box) -> list[Box]:
        """Small boxes along the line from the marker's edge to the label."""
        x, y = self.pixels(point.cost, point.accuracy)
        across, up = nearest(box, (x, y))
        length = math.hypot(across - x, up - y)
        parts = np.arange(6.5 * self.per_point, length - 3, 2.0) / max(length, 1.0)
        return [square(x + (across - x) * part, y + (up - y) * part, 1.5) for part in parts]

    def draw_leader(self, point: Point, box: Box) -> None:
        """Draws a line from a label to its point."""
        end = self.offset(point, nearest(box, self.pixels(point.cost, point.accuracy)))
        self.axes.annotate(
            "", (point.cost, point.accuracy), xytext=end, textcoords="offset points", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": PALE, "lw": 0.7, "shrinkA": 0, "shrinkB": 4}, zorder=2.5,
        )  # fmt: skip

    def pixels(self, cost: float, accuracy: float) -> tuple[float, float]:
        x, y = self.axes.transData.transform((cost, accuracy))
        return float(x), float(y)

    def offset(self, point: Point, place: tuple[float, float]) -> tuple[float, float]:
        """From the marker to a place in pixels, in points: the same at every resolution."""
        x, y = self.pixels(point.cost, point.accuracy)
        return (place[0] - x) / self.per_point, (place[1] - y) / self.per_point

    def markers(self) -> list[Box]:
        """What is taken before anything has a label."""
        return [box for point in self.points for box in self.boxes_of(point)]

    def boxes_of(self, point: Point) -> list[Box]:
        """The marker and the bar of a point."""
        x, y = self.pixels(point.cost, point.accuracy)
        low, high = self.pixels(point.cost, point.low)[1], self.pixels(point.cost, point.high)[1]
        return [square(x, y, 4 * self.per_point), (x - 1.5, low - 1, x + 1.5, high + 1)]

    def boxes_of_line(self, line: Sequence[tuple[float, float]]) -> list[Box]:
        """The pieces of the staircase."""
        corners = [self.pixels(x, y) for x, y in line]
        return [(a[0] - 1, a[1] - 1, b[0] + 1, b[1] + 1) for a, b in itertools.pairwise(corners)]


def overlaps(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.bool_]:
    """Which of the boxes (n, 4) overlap any of the others (m, 4)."""
    a, b = np.reshape(boxes, (-1, 1, 4)), np.reshape(others, (1, -1, 4))
    apart = (a[..., :2] >= b[..., 2:]) | (b[..., :2] >= a[..., 2:])
    return np.any(~np.any(apart, axis=2), axis=1)


def square(x: float, y: float, half: float) -> Box:
    return x - half, y - half, x + half, y + half


def nearest(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    """The point of the box that is nearest to `point`."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])
