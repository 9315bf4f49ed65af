"""One Parquet file of a table: how it is written, how much of it is read, and which version's columns it has.

Files may come from elsewhere. A few kilobytes can hold a million rows, or gigabytes of text, so a file's own
numbers are looked at before its content, and nothing is unpacked to many times its size. And files may come
from another version of this package: an older one lacks columns, or has some that stand in another table now;
a newer one has columns that nobody here knows, and that are not ours to drop.
"""

import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attnsweep.core import files
from attnsweep.results.schema import BEFORE, KEYS, MOVED, SCHEMA_VERSION, SCHEMAS

ID = r"^[^/\\\x00-\x1f\x7f-\x{9f}]{1,200}$"
NO_FOLDER = r"[^.]|^\.{3}"  # neither this one nor the one above
FIRST_US, LAST_US = -62_135_596_800_000_001, 253_402_300_800_000_000  # of the years 1 to 9999
FEW_ROWS = 20
MOST_COLUMNS = 5_000
MOST_TIMES = 200  # times its size that a file may take in memory: ours take up to 20
VALUE_BYTES = 8  # of a number, and of where a text ends
ROW_BYTES = 256  # of a row's key as Python's objects
ARROW_SCHEMA = b"ARROW:schema"
Layout = Literal["ours", "older", "newer"]
Source = Any  # a file that is open: Python's, or Arrow's


@dataclass(frozen=True)
class Part:
    """One file of a table: its rows by this version's schema, and by table those of columns that have moved.

    Its layout is `newer` where it has columns, or is of a version, that are not known here.
    """

    path: str
    layout: Layout
    tables: Mapping[str, pa.Table]


# --- Reading ---


def read_part(source: Source, table: str, path: str) -> Part:
    """The rows of a file of a table. Raises ArrowInvalid, and what else Arrow raises, where it is none."""
    file = parquet_file(source)
    layout = layout_of(file, table)
    names = None if layout == "ours" else [name for name in columns_of(file) if name in known_columns(table)]
    return Part(path, layout, by_table(read_within(source, file, names), table))


def read_raw(source: Source) -> pa.Table:
    """All columns of a file, known or not. Raises what `read_part` raises."""
    return read_within(source, parquet_file(source), None)


def parquet_file(source: Source, **options: Any) -> pq.ParquetFile:
    """A file that is open, as Parquet; each page has a checksum."""
    return pq.ParquetFile(source, page_checksum_verification=True, **options)


def read_within(source: Source, file: pq.ParquetFile, names: Sequence[str] | None) -> pa.Table:
    """The named columns, or all. Raises ArrowInvalid where they would take many times the file's size."""
    numbers, size = file.metadata, source.seek(0, os.SEEK_END)
    if numbers.num_columns > MOST_COLUMNS:
        raise pa.ArrowInvalid(f"it has {numbers.num_columns:,} columns")
    width = ROW_BYTES + VALUE_BYTES * (numbers.num_columns if names is None else len(names))
    packed = sum(numbers.row_group(i).total_byte_size for i in range(numbers.num_row_groups))
    most = MOST_TIMES * size
    refuse_above(most, max(packed, numbers.num_rows * width), numbers.num_rows, size)
    if numbers.num_rows * packed <= most:  # even if each row had all the text that there is
        return file.read(columns=names, use_threads=False)  # small: threads cost more
    texts = [name for name in file.schema_arrow.names if is_text(file.schema_arrow.field(name).type)]
    once = parquet_file(source, metadata=numbers, read_dictionary=texts).read(names, use_threads=False)
    refuse_above(most, sum(map(unpacked, once.columns)), numbers.num_rows, size)
    return once.cast(pa.schema([plain(field) for field in once.schema], once.schema.metadata))


def refuse_above(most: int, wanted: int, rows: int, size: int) -> None:
    """Raises ArrowInvalid where a file of `size` bytes wants more than the most; all in bytes."""
    if wanted > most:
        raise pa.ArrowInvalid(f"its {size / 1e3:,.0f} kB unpack to {wanted / 1e6:,.0f} MB in {rows:,} rows")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column's values may be of any length."""
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind))


def unpacked(column: pa.ChunkedArray) -> int:
    """The bytes of a column once each row has a text of its own."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = (pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks)
    return sum(pc.sum(one).as_py() or 0 for one in lengths)


def plain(field: pa.Field) -> pa.Field:
    """A column whose texts were read once each, as one of texts."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


# --- Versions ---


def layout_of(file: pq.ParquetFile, table: str) -> Layout:
    """Whether a file has this version's columns, lacks some, or has others that are not known here."""
    if (file.metadata.metadata or {}).get(ARROW_SCHEMA) == written_schema(table):
        return "ours"
    names = columns_of(file)
    if set(names) - known_columns(table) or version_of(file, names) > SCHEMA_VERSION:
        return "newer"
    return "ours" if file.schema_arrow.equals(SCHEMAS[table]) else "older"


@functools.cache
def written_schema(table: str) -> bytes | None:
    """What Arrow writes into a file of the table about its columns: equal in files whose columns are ours."""
    file = parquet_file(pa.BufferReader(as_bytes(SCHEMAS[table].empty_table())))
    schema: bytes | None = (file.metadata.metadata or {}).get(ARROW_SCHEMA)
    return schema


def columns_of(file: pq.ParquetFile) -> list[str]:
    """The names of a file's columns."""
    names: list[str] = file.schema_arrow.names
    return names


def version_of(file: pq.ParquetFile, names: Sequence[str]) -> int:
    """The newest version of the schema that a file's rows name, 0 where they name none."""
    if "schema_version" not in names or file.metadata.num_rows == 0:
        return 0
    column = file.read(columns=["schema_version"], use_threads=False)["schema_version"]
    return int(pc.max(column).as_py() or 0) if pa.types.is_integer(column.type) else 0


def known_columns(table: str) -> set[str]:
    """The columns of a table, today and in earlier versions."""
    gone = {name for move in MOVED if move.out_of == table for name in move.columns}
    return {*SCHEMAS[table].names, *gone}


def by_table(rows: pa.Table, table: str) -> dict[str, pa.Table]:
    """The rows of a file of a table, and of tables that some of its columns have moved to: one for each row
    that has a value there.
    """
    found, names = {table: conform(rows, SCHEMAS[table], KEYS[table])}, set(rows.column_names)
    for move in MOVED:
        moved = [name for name in move.columns if name in names]
        if move.out_of == table and moved:
            has_any = functools.reduce(pc.or_, (pc.is_valid(rows[name]) for name in moved))
            kept = rows.select([*KEYS[move.into], *moved]).filter(has_any)
            found[move.into] = conform(kept, SCHEMAS[move.into], KEYS[move.into])
    return found


def of_this_version(rows: pa.Table) -> pa.Table:
    """Rows by this version's schema, as ones that it has written."""
    at = rows.column_names.index("schema_version")
    versions = pa.array([SCHEMA_VERSION] * len(rows), pa.int64())
    return rows.set_column(at, rows.schema.field(at), versions)


# --- What a row of ours is ---


def conform(part: pa.Table, schema: pa.Schema, keys: Iterable[str]) -> pa.Table:
    """`part` with exactly the columns of `schema`: null where it lacks one, or what was always so before.

    Raises ArrowInvalid if a key is missing, a column is there twice, or a value is none of a row of ours.
    """
    if not part.schema.equals(schema):
        if lacking := [key for key in keys if key not in {*part.column_names, *BEFORE}]:
            raise pa.ArrowInvalid(f"no column {', '.join(lacking)}: not a file of this table")
        twice = [name for name, times in Counter(part.column_names).items() if times > 1]
        if twice:
            raise pa.ArrowInvalid(f"several columns {', '.join(twice)}: not a file of this table")
        columns = [
            part[field.name].cast(field.type)
            if field.name in part.column_names
            else pa.repeat(pa.scalar(BEFORE.get(field.name), field.type), len(part))
            for field in schema
        ]
        part = pa.table(columns, schema=schema)
    part.validate(full=True)  # text that is none would stop whoever reads it
    check_values(part, keys)
    return part


def check_values(part: pa.Table, keys: Iterable[str]) -> None:
    """Raises ArrowInvalid for a null in a key, an id that is none, or a time that Python has no word for."""
    for name in keys:
        if part[name].null_count:
            raise pa.ArrowInvalid(f"a row without {name}: not a file of this table")
        if name.endswith("_id") and not all(  # it names files
            all_true(pc.match_substring_regex(part[name], one)) for one in (ID, NO_FOLDER)
        ):
            raise pa.ArrowInvalid(f"{name} holds something that is no id: not a file of this table")
    for field in part.schema:
        if pa.types.is_timestamp(field.type):
            times = part[field.name].cast(pa.int64())
            if not all_true(pc.and_(pc.less(FIRST_US, times), pc.less(times, LAST_US))):
                raise pa.ArrowInvalid(f"{field.name} lies thousands of years away: not a file of this table")


def all_true(values: pa.ChunkedArray) -> bool:
    """Whether none is false; nulls are not."""
    return pc.all(values, min_count=0).as_py() is not False


# --- Writing ---


def as_bytes(content: pa.Table) -> pa.Buffer:
    """A table as the bytes of a file. A few rows gain nothing by dictionaries and statistics per column,
    which are a quarter of the time that they take to write.
    """
    sink, many = pa.BufferOutputStream(), len(content) > FEW_ROWS
    pq.write_table(content, sink, write_page_checksum=True, use_dictionary=many, write_statistics=many)
    return sink.getvalue()


def is_parquet(path: str) -> bool:
    """Whether the file's footer can be parsed; also where the system does not give the file, which says
    nothing.
    """
    try:
        with files.reading(path, follow=True) as file:
            pq.read_metadata(file)
    except OSError as error:  # of Arrow's own ones, about the content, none has a number
        return error.errno is not None
    except Exception:  # whatever types that other packages have registered with Arrow raise
        return False
    return True
