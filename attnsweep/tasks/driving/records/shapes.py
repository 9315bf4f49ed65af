"""Shapes in CommonRoad files as oriented boxes: what is no rectangle becomes the least one around it, and a
shape that covers nothing, such as a boundary of the road that is drawn as a line, a box of 0.1 m."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.commonroad_xml import number_in, points_in
from attnsweep.tasks.driving.records.tracks import LONGEST, WIDEST
from attnsweep.tasks.driving.world.geometry import Floats, corners, from_frame, wrap

GROUPS = ("shape", "shapeGroup", "absoluteShapeGroup", "semiTrailerTruckShape")
THINNEST = 0.1  # m, of what is drawn as a line or a point
ALIKE = 1e-6  # rad; axes that are equally near to the heading but for rounding
HOLLOW = 0.5  # of a box, below which a shape leaves too much of it free
MOST_PARTS = 8  # of a shape; more are the drawn edge of a road, and would take the places of 24 agents


@dataclass(frozen=True)
class Box:
    """A box in the frame of its obstacle: its centre (2,), how far it is turned, its length and width."""

    centre: Floats
    turn: float
    size: tuple[float, float]

    def placed(self, poses: Floats) -> Floats:
        """The poses (n, 3) of the box, of poses (n, 3) of the obstacle."""
        return np.column_stack([from_frame(self.centre, poses), poses[:, 2] + self.turn])


def box_of(shape: Element | None, where: str, *, along: bool) -> Box:
    """The box of an obstacle's shape: a rectangle, or the square around a circle, as it is; of anything else
    the least rotated rectangle around all parts. That lies along the obstacle's heading as well as it can
    (`along`: what moves faces where it goes), or along its own longer side.

    Raises UserError where there is no shape.
    """
    parts = list(shape) if shape is not None else []
    if len(parts) == 1 and parts[0].tag in ("rectangle", "circle"):
        x, y, turn, length, width = upright(parts[0], where)
        return Box(np.array([x, y]), float(turn), (float(length), float(width)))
    points = [points for part in parts for points in outlines(part, where)]
    if not sum(map(len, points)):
        raise UserError(f"{where} has no shape; use rectangle, circle or polygon")
    return least_box(np.concatenate(points), along=along)


def boxes_of(shape: Element | None, where: str) -> list[Box]:
    """The boxes of what stands: one around all of its shape, or, where that leaves more than half of the box
    free, as two walls do that meet at a corner, one around each part. A wall of more than 30 m is several
    boxes end to end; whatever else is longer, such as a building, or has more than 8 parts, is none.

    Raises UserError where there is no shape.
    """
    whole = box_of(shape, where, along=False)
    parts = [points for part in shape or () for points in outlines(part, where) if len(points)]
    if max(whole.size) <= LONGEST and not is_hollow(whole, parts):
        return [whole]
    if len(parts) > MOST_PARTS:
        return []
    found = [(least_box(points, along=False), points) for points in parts]
    walls = [box for box, points in found if max(box.size) <= LONGEST or not is_hollow(box, [points])]
    return [piece for wall in walls for piece in pieces(wall)]


def is_hollow(box: Box, parts: Sequence[Floats]) -> bool:
    """Whether parts (n, 2) leave more than half of the box around them free; a line fills its own."""
    import shapely

    areas = [shapely.Polygon(points) for points in parts if len(points) > 2 and spans_area(points)]
    if len(parts) == 1 and not areas:
        return False
    covered = shapely.union_all(shapely.make_valid(areas)).area
    return bool(covered < HOLLOW * box.size[0] * box.size[1])


def pieces(box: Box) -> list[Box]:
    """A box as boxes of at most 30 m end to end; none where it is wider than that."""
    length, width = box.size
    if width > LONGEST or length > WIDEST:
        return []
    count = int(np.ceil(length / LONGEST))
    at = (np.arange(count) + 0.5) / count - 0.5
    way = length * np.array([np.cos(box.turn), np.sin(box.turn)])
    return [Box(box.centre + share * way, box.turn, (length / count, width)) for share in at]


def least_box(points: Floats, *, along: bool) -> Box:
    """The least rotated rectangle around points (n, 2); see `box_of`."""
    import shapely  # here: a sweep that reads no such file need not wait for it

    around = shapely.MultiPoint(points)
    if not spans_area(points):
        around = around.minimum_rotated_rectangle.buffer(THINNEST / 2, cap_style="square", join_style="mitre")
    ring = np.array(around.minimum_rotated_rectangle.exterior.coords)
    sides = np.diff(ring[:3], axis=0)
    lengths, turns = np.hypot(*sides.T), wrap(2 * np.arctan2(sides[:, 1], sides[:, 0])) / 2
    off = np.abs(turns)  # from the heading, whichever end is in front
    longer = int(lengths[1] > lengths[0])
    first = longer if not along or abs(off[0] - off[1]) < ALIKE else int(off[1] < off[0])
    size = float(lengths[first]), float(lengths[1 - first])
    return Box(ring[:4].mean(axis=0), float(turns[first]), size)


def spans_area(points: Floats) -> bool:
    """Whether points (n, 2) do not all lie on a line."""
    return bool(np.linalg.matrix_rank(points - points[0], tol=1e-6) == 2)


def outlines(element: Element, where: str) -> Iterator[Floats]:
    """The corners (n, 2) of each shape that an element is or holds."""
    if element.tag == "polygon":
        yield points_in(element, f"{where}, polygon")
    elif element.tag in ("rectangle", "circle"):
        yield corners(upright(element, where))
    elif element.tag == "truckShape":
        yield truck(element, where)
    elif element.tag in GROUPS:
        for child in element:
            yield from outlines(child, where)
        if element.tag == "semiTrailerTruckShape":
            yield trailer(element, where)


def upright(element: Element, where: str) -> Floats:
    """The box (5,) of a rectangle, or of the square around a circle."""
    x, y = (number_in(element.findtext(f"center/{axis}", "0"), f"{where}, center") for axis in "xy")
    if element.tag == "circle":
        side = 2 * size_in(element, "radius", where)
        return np.array([x, y, 0.0, side, side])
    turn = number_in(element.findtext("orientation", "0"), f"{where}, orientation")
    shift = number_in(element.findtext("originXShift", "0"), f"{where}, originXShift")
    x, y = from_frame(np.array([-shift, 0.0]), np.array([x, y, turn]))
    return np.array([x, y, turn, size_in(element, "length", where), size_in(element, "width", where)])


def truck(element: Element, where: str) -> Floats:
    """The corners (4, 2) of a truck, whose origin is shifted from its centre."""
    length, width = (size_in(element, f"truckDims/{tag}", where) for tag in ("length", "width"))
    shift = number_in(element.findtext("originXShift"), f"{where}, originXShift")
    return corners(np.array([-shift, 0.0, 0.0, length, width]))


def trailer(element: Element, where: str) -> Floats:
    """The corners (4, 2) of a semi-trailer that is in line with its truck."""
    shift = number_in(element.findtext("truckShape/originXShift"), f"{where}, originXShift")
    rear = number_in(element.findtext("truckShape/truckDims/distFromRearToRearAxle"), f"{where}, truckDims")
    hitch = number_in(element.findtext("truckShape/truckDims/distFromRearAxleToHitch"), f"{where}, truckDims")
    long = size_in(element, "truckShape/truckDims/length", where)
    length, width = (size_in(element, f"trailerDims/{tag}", where) for tag in ("length", "width"))
    front = number_in(element.findtext("trailerDims/distFromFrontToHitch"), f"{where}, trailerDims")
    at = hitch - (long / 2 - rear) - shift  # of the hitch, from the truck's origin
    return corners(np.array([at + front - length / 2, 0.0, 0.0, length, width]))


def size_in(element: Element, tag: str, where: str) -> float:
    """A length above 0. Raises UserError for any other."""
    value = number_in(element.findtext(tag), f"{where}, {tag.rpartition('/')[2]}")
    if value <= 0:
        raise UserError(f"{where}, {tag.rpartition('/')[2]} is {value:g}; it must be above 0")
    return value


def centre_of(place: Element, where: str) -> Floats | None:
    """The centre (2,) of a position: its point, or that of its regions; None where it names none."""
    points = points_in(place, f"{where}, position")
    parts = [points] if len(points) else [part for child in place for part in outlines(child, where)]
    if not parts:
        return None
    middles = [middle_of(part) for part in parts]
    return np.asarray(np.mean(middles, axis=0))


def middle_of(points: Floats) -> Floats:
    """The centroid (2,) of the area within points (n, 2), or their mean where they span none."""
    import shapely

    if len(points) < 3 or not spans_area(points):
        return np.asarray(points.mean(axis=0))
    area = shapely.Polygon(points)
    return np.array((area if area.is_valid else area.convex_hull).centroid.coords[0])
