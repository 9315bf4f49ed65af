"""Rows of tables: which values a column can hold, and which row of a key counts, where there are several."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from attnsweep.results.schema import KEYS

UNFIT = (pa.ArrowException, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # of a row


def fitting(row: Mapping[str, Any], types: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """The values of a row that columns of these types can hold; in texts, what is no UTF-8 is escaped."""
    texts = {
        key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in row.items()
    }
    return {key: value for key, value in texts.items() if key in types and is_held(value, types[key])}


def is_held(value: Any, kind: pa.DataType) -> bool:
    """Whether a column of that type can hold a value."""
    try:
        pa.array([value], kind)
    except UNFIT:
        return False
    return True


def ids(part: pa.Table) -> set[str]:
    """The trials that have rows in a file."""
    return set(part["trial_id"].to_pylist())


def keys_of(rows: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """What each row has in the named columns."""
    return list(zip(*(rows[name].to_pylist() for name in names), strict=True))


def matching(rows: pa.Table, names: Sequence[str], keys: Collection[tuple[Any, ...]]) -> pa.Table:
    """The rows that have one of the keys in the named columns."""
    return rows.filter(pa.array([key in keys for key in keys_of(rows, names)], pa.bool_()))


def newest(table: str, content: pa.Table) -> pa.Table:
    """The last row of each key, in order of first appearance of those rows."""
    keys = keys_of(content, KEYS[table])
    last = {key: i for i, key in enumerate(keys)}
    return content if len(last) == len(keys) else content.take(sorted(last.values()))


def latest(table: str, contents: Sequence[pa.Table]) -> list[pa.Table]:
    """Of each file's rows, oldest file first, those that no later row of the same key replaces."""
    keys = [keys_of(rows, KEYS[table]) for rows in contents]
    last = {key: (i, j) for i, part in enumerate(keys) for j, key in enumerate(part)}
    kept = [[last[key] == (i, j) for j, key in enumerate(part)] for i, part in enumerate(keys)]
    return [rows.filter(pa.array(flags, pa.bool_())) for rows, flags in zip(contents, kept, strict=True)]
