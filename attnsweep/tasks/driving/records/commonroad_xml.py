"""A CommonRoad file as a tree of elements, and the numbers and points that elements hold.

Entities are refused: a file can only hold data. Prefixes of namespaces are dropped, since the format has one
vocabulary.
"""

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from attnsweep.core import files
from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.world.geometry import Floats

OLDEST = "2018b"  # of the formats that are read
LARGEST = 1e9  # of all figures in a file; of finite ones


def read(path: Path) -> bytes:
    """The content of a file. Raises UserError where it cannot be read."""
    try:
        with files.reading(path, follow=True) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def parse(path: Path, content: bytes) -> Element:
    """The root of a scenario file. Raises UserError where it is no XML, or no scenario."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: builder.start(tag.rpartition(":")[2], attributes)
    parser.EndElementHandler = lambda tag: builder.end(tag.rpartition(":")[2])
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise UserError(f"{path} declares entities, which no CommonRoad file needs; remove them")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except UserError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # of an encoding that is not known, or wide
        raise UserError(f"{path} is not well-formed XML: {error}") from None
    root = builder.close()
    version = root.get("commonRoadVersion")
    if root.tag != "commonRoad" or version is None or version < OLDEST:
        formats = "2018b or 2020a, or of a later one"
        raise UserError(f"{path} is a <{root.tag}> of version {version}; use CommonRoad of {formats}")
    return root


def number_in(text: str | None, where: str) -> float:
    """The number that a text holds. Raises UserError where it is not finite or out of all proportion."""
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not abs(value) < LARGEST:
        raise UserError(f"{where} is {text!r}, not a finite number")
    return value


def optional_value(element: Element, tag: str, where: str) -> float | None:
    """A quantity, exact or the centre of its interval; None where the element has no such child."""
    found = element.find(tag)
    if found is None:
        return None
    start = found.findtext("intervalStart")
    if start is None:
        return number_in(found.findtext("exact"), f"{where}, {tag}")
    ends = (start, found.findtext("intervalEnd"))
    return sum(number_in(text, f"{where}, {tag}") for text in ends) / 2


def points_in(element: Element | None, where: str) -> Floats:
    """The points (n, 2) that are children of an element; heights are not read."""
    points = [] if element is None else element.findall("point")
    xy = [[number_in(point.findtext(axis), f"{where}, {axis}") for axis in "xy"] for point in points]
    return np.array(xy).reshape(-1, 2)


def references(element: Element, tag: str) -> tuple[str, ...]:
    """The ids that children of that tag refer to, each once."""
    return tuple(dict.fromkeys(str(child.get("ref")) for child in element.findall(tag)))
