"""Places labels beside the points of a figure, so that nobody needs a legend: one by one, the front first."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from numpy.typing import NDArray

from attnsweep.figures import fonts
from attnsweep.figures.panels import Point

GREY, PALE = "#777777", "#D4D4D4"
Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels
Pixel = tuple[float, float]  # or a point in data coordinates
Boxes = NDArray[np.float64]  # (n, 4), or of points (n, 2)
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
MOST_SHOWN = 40  # characters of a label
ON_THE_LINE = 25.0  # the penalty of a label of the front that meets its line
LEADER_WIDTH = 1.5  # pixels to either side of a line to a label that nothing else may be in


class LabelPlacer:
    """Writes a label beside each point, the front first, where it covers no label, marker, bar or leader.

    A point whose label finds no free place goes without. Distances are in pixels of the figure.
    """

    def __init__(
        self, axes: Axes, points: Sequence[Point], line: Sequence[Pixel], *, colour: Callable[[str], str]
    ) -> None:
        self.axes, self.points, self.colour = axes, points, colour
        self.per_point = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
        self.limits = axes.get_window_extent()
        self.centres = np.array([self.pixels(point.cost, point.accuracy) for point in points]).reshape(-1, 2)
        self.taken, self.found = self.markers(), dict[int, Place]()  # by the index of the point
        corners = [self.pixels(x, y) for x, y in line]  # of the staircase
        pieces = [(a[0] - 1, a[1] - 1, b[0] + 1, b[1] + 1) for a, b in itertools.pairwise(corners)]
        self.line = np.reshape(pieces, (-1, 4))

    def place(self) -> int:
        """Labels the front; then of each model that has no label yet the best setting that finds room; then
        others that have room beside them. Returns how many points have no label.
        """
        by_accuracy = sorted(range(len(self.points)), key=lambda i: -self.points[i].accuracy)
        front = [i for i, point in enumerate(self.points) if point.on_front]
        near = [radius for radius in RADII if radius < LEADER_FROM]
        with fonts.quietly():
            self.place_front(front)
            named = {self.points[i].model for i in self.found}
            for i in by_accuracy:
                if self.points[i].model not in named and not self.find_places([i], RADII):
                    named.add(self.points[i].model)
            self.find_places([i for i in by_accuracy if i not in {*front, *self.found}], near)
            for i, place in self.found.items():
                self.draw(i, place)
        return len(self.points) - len(self.found)

    def place_front(self, front: Sequence[int]) -> None:
        """Places the front in the order that leaves fewest out: who found no place comes first next time."""
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
            if (place := self.best_place(i, radii)) is not None:
                (left, bottom, right, top), leader = self.found[i] = place
                self.taken = np.vstack([self.taken, (left - 3, bottom, right + 3, top), *leader])
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
            cut(point.label, MOST_SHOWN), (point.cost, point.accuracy), xytext=(0, 0),
            textcoords="offset points", color=colour, size=size, ha="left", va="bottom", zorder=9,
            annotation_clip=False, path_effects=[patheffects.withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        fonts.add_fonts(text)
        return text

    def draw(self, i: int, place: Place) -> None:
        """Writes the label of a point at its place, and draws a line to it where it is far away."""
        box, leader = place
        self.text_of(i).set_position(self.offset(i, box[:2]))
        if leader:
            point, end = self.points[i], self.offset(i, nearest(box, self.centres[i]))
            self.axes.annotate(
                "", (point.cost, point.accuracy), xytext=end, textcoords="offset points", zorder=2.5,
                arrowprops={"arrowstyle": "-", "color": PALE, "lw": 0.7, "shrinkA": 0, "shrinkB": 4},
                annotation_clip=False,
            )  # fmt: skip

    def best_place(self, i: int, radii: Sequence[int]) -> Place | None:
        """The place of a point's label with the least penalty; None where nothing is free."""
        penalty, boxes, far = self.places(i, radii)
        on_line = overlaps(boxes, self.line)
        usable = self.inside(boxes) & ~overlaps(boxes, self.taken) & (self.points[i].on_front | ~on_line)
        penalty, boxes, far = penalty[usable] + ON_THE_LINE * on_line[usable], boxes[usable], far[usable]
        centre, low, high = self.centres[i], boxes[:, :2], boxes[:, 2:]
        apart = self.centres - np.clip(self.centres, low[:, None], high[:, None])
        apart = np.linalg.norm(apart, axis=2)  # (places, points), from a label to each point
        misread = (apart < apart[:, [i]] - 1e-6).any(axis=1)  # without a line to its own point
        others = np.delete(self.taken, [2 * i, 2 * i + 1], axis=0)  # a leader may run along its point's bar
        wrong = np.where(far, crosses(*self.shortened(centre, np.clip(centre, low, high)), others), misread)
        if wrong.all():
            return None
        best = int(np.where(wrong, math.inf, penalty).argmin())
        left, bottom, right, top = boxes[best].tolist()
        box = (left, bottom, right, top)
        return box, self.leader(i, box) if far[best] else []

    def places(self, i: int, radii: Sequence[int]) -> tuple[Boxes, Boxes, NDArray[np.bool_]]:
        """Every place that is tried: penalty, the label's box (places, 4), whether a line leads to it."""
        width, height = self.size_of(i)
        tried = [(radius, *direction) for radius in radii for direction in DIRECTIONS]
        radius, degrees, hangs = np.array(tried).T
        reach, across, up = radius * self.per_point, np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        left = self.centres[i, 0] + reach * across - width * hangs
        bottom = self.centres[i, 1] + reach * up - height * (1 - up) / 2
        preferred = OFF_THE_FRONT if self.points[i].on_front else BEHIND_THE_FRONT
        turned = np.abs((degrees - preferred + 180) % 360 - 180)
        boxes = np.column_stack([left, bottom, left + width, bottom + height])
        return radius + 0.07 * turned, boxes, radius >= LEADER_FROM

    def inside(self, boxes: Boxes) -> NDArray[np.bool_]:
        """Which of the boxes (n, 4) stay in the panel; a few pixels to the right and above do not matter."""
        left, bottom, right, top = self.limits.extents
        low, high = boxes[:, :2] >= (left + 2, bottom + 2), boxes[:, 2:] <= (right + 12, top + 4)
        return np.all(low & high, axis=1)

    def shortened(self, centre: Boxes, ends: Boxes) -> tuple[Boxes, Boxes]:
        """Both ends (n, 2) of lines from a marker's edge to just before `ends`."""
        way = ends - centre
        length = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1.0)
        return centre + way * (6.5 * self.per_point / length), ends - way * (3 / length)

    def leader(self, i: int, box: Box) -> list[Box]:
        """Small boxes along the line from a point's marker to its label."""
        (start,), (end,) = self.shortened(self.centres[i], np.array([nearest(box, self.centres[i])]))
        parts = np.linspace(0, 1, max(int(math.dist(start, end) / 2), 2))[:, None]
        return [square(x, y, LEADER_WIDTH) for x, y in (start + (end - start) * parts).tolist()]

    def pixels(self, cost: float, accuracy: float) -> tuple[float, float]:
        x, y = self.axes.transData.transform((cost, accuracy))
        return float(x), float(y)

    def offset(self, i: int, place: Pixel) -> Pixel:
        """From a marker to a place in pixels, in points: the same at every resolution."""
        x, y = self.centres[i].tolist()
        return (place[0] - x) / self.per_point, (place[1] - y) / self.per_point

    def markers(self) -> Boxes:
        """What is taken before anything has a label: of each point the marker, then the bar."""
        return np.reshape([self.boxes_of(i) for i in range(len(self.points))], (-1, 4))

    def boxes_of(self, i: int) -> list[Box]:
        """The marker and the bar of a point."""
        point, (x, y) = self.points[i], self.centres[i].tolist()
        low, high = self.pixels(point.cost, point.low)[1], self.pixels(point.cost, point.high)[1]
        return [square(x, y, 4 * self.per_point), (x - 1.5, low - 1, x + 1.5, high + 1)]


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """Which of the boxes (n, 4) overlap any of the others (m, 4)."""
    left, bottom, right, top = (boxes[:, [side]] for side in range(4))
    over = (left < others[:, 2]) & (right > others[:, 0]) & (bottom < others[:, 3]) & (top > others[:, 1])
    return np.any(over, axis=1)


def crosses(starts: Boxes, ends: Boxes, boxes: Boxes) -> NDArray[np.bool_]:
    """Which of the lines from `starts` to `ends` (n, 2) come within `LEADER_WIDTH` of any of the boxes
    (m, 4): those with a part that is between a box's sides and between its ends at once.
    """
    way = (ends - starts)[:, None]
    way = np.where(way == 0, 1e-9, way)
    to_low = (boxes[:, :2] - LEADER_WIDTH - starts[:, None]) / way  # (n, m, 2), in parts of the line
    to_high = (boxes[:, 2:] + LEADER_WIDTH - starts[:, None]) / way
    begins, ends_at = np.minimum(to_low, to_high).max(axis=2), np.maximum(to_low, to_high).min(axis=2)
    return np.any((begins < ends_at) & (begins < 1) & (ends_at > 0), axis=1)


def cut(text: str, most: int) -> str:
    """The beginning and the end of a text of more characters than there is room for."""
    return text if len(text) <= most else f"{text[: most // 2]}\u2026{text[most // 2 + 1 - most :]}"


def square(x: float, y: float, half: float) -> Box:
    return x - half, y - half, x + half, y + half


def nearest(box: Box, point: Sequence[float]) -> Pixel:
    """The point of the box that is nearest to `point`."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])
