"""The tables of nuScenes: lists of records in JSON, checked, by token.

Raised is a UserError that names file and record, where something is missing, malformed or not finite.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnsweep.core.errors import UserError

TABLES = {
    "scene": ("token", "name", "log_token"),
    "sample": ("token", "timestamp", "scene_token"),
    "sample_data": ("token", "sample_token", "ego_pose_token", "timestamp"),
    "ego_pose": ("token", "translation", "rotation"),
    "sample_annotation": ("token", "sample_token", "instance_token", "translation", "size", "rotation"),
    "instance": ("token", "category_token"),
    "category": ("token", "name"),
    "log": ("token", "location"),
}
ENDINGS = {"token": str, "name": str, "location": str, "tokens": list, "segments": list, "holes": list}
FARTHEST, LATEST = 1e7, 1e12  # m and s, of what occurs

Row = dict[str, Any]


def version_folder(root: Path) -> Path:
    """The folder that holds the tables: `root`, or the only folder below it that does."""
    if (root / "scene.json").is_file():
        return root
    found = sorted(path.parent for path in root.glob("*/scene.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{root} has {len(found)} folders with a scene.json ({names}); name the one to use")
    return found[0]


def count_scenes(root: Path) -> int:
    """How many scenes there are."""
    return len(table(version_folder(root), "scene", TABLES["scene"]))


def files_of(root: Path) -> list[Path]:
    """All files that are read."""
    folder = version_folder(root)
    maps = sorted((folder.parent / "maps" / "expansion").glob("*.json"))
    return [*(folder / f"{name}.json" for name in TABLES), *maps]


def parse(file: Path, keep: Sequence[str] = ()) -> Any:
    """What a JSON file holds; of objects the fields to keep, for large tables would not fit in memory."""

    def kept(record: Row) -> Row:
        return {name: record[name] for name in keep if name in record}

    try:
        return json.loads(file.read_bytes(), object_hook=kept if keep else None)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}") from None


def table(folder: Path, name: str, fields: Sequence[str]) -> dict[str, Row]:
    """A table's rows by token, with those fields alone."""
    return rows(parse(folder / f"{name}.json", fields), f"{folder / name}.json", fields)


def rows(content: Any, where: str, fields: Sequence[str]) -> dict[str, Row]:
    """The records of a list by token, with those fields alone."""
    if not isinstance(content, list):
        raise UserError(f"{where} is not a list of records")
    kept: dict[str, Row] = {}
    for i, record in enumerate(content):
        missing = [one for one in fields if not isinstance(record, dict) or one not in record]
        if missing:
            raise UserError(f"{where}, record {i} has no {missing[0]}")
        for one in fields:
            wanted = next((kind for ending, kind in ENDINGS.items() if one.endswith(ending)), object)
            if not isinstance(record[one], wanted):
                raise UserError(f"{where}, record {i}: {one} is {record[one]!r}, not a {wanted.__name__}")
        kept[record["token"]] = {one: record[one] for one in fields}
    return kept


def grouped(rows: Mapping[str, Row], field: str) -> Mapping[str, list[Row]]:
    """Rows by what they have in a field; a list for whatever is asked for."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows.values():
        groups[row[field]].append(row)
    return groups


def pick(tables: Mapping[str, Mapping[str, Row]], name: str, token: object, where: str) -> Row:
    """The row of a table that another one refers to."""
    row = tables[name].get(str(token))
    if row is None:
        raise UserError(f"{where} refers to {name} {token!r}, which {name} lacks")
    return row


def figures(value: object, count: int, where: str, *, most: float = FARTHEST) -> tuple[float, ...]:
    """The `count` finite numbers of a list, none beyond `most`."""
    numbers = value if isinstance(value, list) and len(value) == count else []
    if not numbers or not all(isinstance(one, int | float) and abs(one) <= most for one in numbers):
        raise UserError(f"{where} is {value!r}, not {count} finite numbers")
    return tuple(float(one) for one in numbers)


@dataclass(frozen=True)
class Tables:
    """The rows of the tables in a folder, by table and token."""

    folder: Path
    rows: Mapping[str, Mapping[str, Row]]

    def place(self, name: str, token: str) -> str:
        """Where a row is to be found, for who must mend it."""
        return f"{self.folder / name}.json: {token}"

    def time(self, name: str, row: Row) -> float:
        """A record's time in seconds."""
        where = f"{self.place(name, row['token'])}, timestamp"
        return figures([row["timestamp"]], 1, where, most=1e6 * LATEST)[0] * 1e-6

    def pose(self, name: str, row: Row) -> tuple[float, float, float]:
        """x, y and yaw of a record with a translation and a rotation, a quaternion w, x, y, z."""
        where = self.place(name, row["token"])
        x, y, _ = figures(row["translation"], 3, f"{where}, translation")
        a, b, c, d = figures(row["rotation"], 4, f"{where}, rotation")
        return x, y, float(np.arctan2(2 * (a * d + b * c), a * a + b * b - c * c - d * d))


def tables_of(root: Path) -> Tables:
    """All that are read."""
    folder = version_folder(root)
    return Tables(folder, {name: table(folder, name, fields) for name, fields in TABLES.items()})
