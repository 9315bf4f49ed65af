"""A column of the tables of results: its type, unit and meaning, which way is better, and where it is
shown.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

STR, INT, FLOAT, BOOL, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")
BITS = pa.binary()  # a bit per example, as `core.bits` packs them
View = Literal["closing", "pick", "curve"]


@dataclass(frozen=True)
class Column:
    """One column. `table` is `trials`, or its task's own table, which also has one row per trial."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    better: Literal["higher", "lower"] | None = None
    table: str = "trials"
    per_epoch: bool = False  # also in `epochs`; a trial has the value of its selected epoch
    over_seeds: Literal["mean", "median", "first"] | None = None  # how a setting's seeds are aggregated
    of_data: bool = False  # describes the data set and is known before training: `Task.data_columns`
    same: tuple[str, ...] = ()  # columns that must be equal in rows whose values are compared
    objective: bool = False  # whether a search may optimise it: it is known once a trial was trained
    of_selected: bool = False  # judged after each epoch like `per_epoch`, but kept for the selected one only
    shown: tuple[View, ...] = ()  # in a trial's closing line, the table of `pick`, the curve of `show`
