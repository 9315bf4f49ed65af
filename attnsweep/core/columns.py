"""A column of the tables of results knows its type, unit and meaning, which way is better, and where it is
shown."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

STR, INT, FLOAT, BOOL, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")
BITS = pa.binary()  # a bit per example, as `core.bits` packs them
View = Literal["closing", "pick", "curve"]


@dataclass(frozen=True)
class Column:
    """One column. `table` is `trials`, or a table that its task has for itself, one row per trial."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    better: Literal["higher", "lower"] | None = None
    table: str = "trials"
    per_epoch: bool = False  # judged after each epoch, so in `epochs` too; a trial has its selected epoch's
    over_seeds: Literal["mean", "median", "first"] | None = None  # how a setting's seeds become one value
    of_data: bool = False  # known of the data set before training: stands beside its checksum
    same: tuple[str, ...] = ()  # columns that must be equal where values of this one are compared
    objective: bool = (
        False  # whether an adaptive search may aim at it: known at the latest once a trial was trained
    )
    of_selected: bool = False  # judged with each epoch, and kept of the selected one alone
    shown: tuple[View, ...] = ()  # a trial's closing line, the table of `pick`, the learning curve of `show`
