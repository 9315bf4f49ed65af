"""A table of images as text: a row per image, with its path and label, and its part where there is one."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.own_data import folder, listing
from attnsweep.tasks.images.own_data.listing import PARTS, Entry, Listing, parts_or_refusal

NAMES = {  # of columns, in any case
    "path": ("path", "file", "filename", "filepath", "image", "image_path"),
    "label": ("label", "class", "target", "category"),
    "part": ("part", "split", "subset"),
}
DELIMITERS = ",;\t"
# its line in the file, path, label, part (empty where there is no such column)
Row = tuple[int, str, str, str]


def listed(file: Path) -> Listing:
    """The images of a table, whose paths are from the folder that it lies in.

    Raises UserError where it is no such table, or names files that are not there.
    """
    rows = list(rows_of(file))
    paths = [
        file.parent / (path if is_there(file.parent / path) else path.replace("\\", "/"))  # of Windows
        for _, path, _, _ in rows
    ]
    missing = [row for row, path in zip(rows, paths, strict=True) if not is_there(path)]
    if missing:
        raise refusal(
            file,
            f"{len(missing):,} of {len(rows):,} files are not there: {named(missing)}; paths are from "
            f"{file.parent}",
        )
    parts = parts_of(file, rows)
    return Listing(
        f"csv:{file}",
        [Entry(path, label, parts.get(part)) for _, path, label, part in rows],
        lambda indices: folder.readers([paths[i] for i in indices]),
        classes=in_order({label for _, _, label, _ in rows}),
        named={part: name for name, part in parts.items() if part},
    )


def is_there(path: Path) -> bool:
    """Whether there is a file that can be looked at."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def rows_of(file: Path) -> Iterator[Row]:
    """The rows of a table. Raises UserError where it is none, or where a row lacks a path or a label."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        delimiter = max(DELIMITERS, key=text.lstrip().partition("\n")[0].count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = (values for values in lines if any(value.strip() for value in values))
        head = next(rows, [])
        at = columns_of(file, head)
        for values in rows:
            yield row_of(file, lines.line_num, values, at, columns=len(head))
    except OSError as error:
        raise refusal(file, f"it cannot be read ({error.strerror or error}); name a file") from error
    except (UnicodeError, csv.Error) as error:
        raise refusal(file, f"it is no table as text ({error}); save it as CSV in UTF-8") from error


def columns_of(file: Path, head: Sequence[str]) -> dict[str, int]:
    """Where path, label and part stand. Raises UserError where one of the first two stands nowhere."""
    titles = [name.strip().casefold() for name in head]
    columns = {
        meaning: next(titles.index(name) for name in names if name in titles)
        for meaning, names in NAMES.items()
        if set(names) & set(titles)
    }
    if lacking := [meaning for meaning in ("path", "label") if meaning not in columns]:
        shown = ", ".join(name[:40] for name in head[:8]) or "nothing"
        raise refusal(
            file,
            f"its first row ({shown}) names no column {' and no '.join(lacking)}; write path,label there "
            "(and split, where the parts are given)",
        )
    for column in columns.values():
        if (count := titles.count(titles[column])) > 1:
            raise refusal(file, f"{count} columns are called {titles[column]}; keep one of them")
    return columns


def row_of(file: Path, number: int, values: Sequence[str], at: Mapping[str, int], *, columns: int) -> Row:
    """One row. Raises UserError where it has no path or no label, or more values than the first row."""
    if any(value.strip() for value in values[columns:]):
        raise refusal(
            file,
            f"row {number} ({', '.join(values)}) has {len(values)} values and the first row {columns}; write "
            "what has a comma in it in quotes",
        )
    found = {meaning: values[i].strip() if i < len(values) else "" for meaning, i in at.items()}
    for meaning, value in found.items():
        if not value:
            raise refusal(file, f"row {number} ({', '.join(values)}) has no {meaning}; complete it")
    return number, found["path"], found["label"], found.get("part", "")


def parts_of(file: Path, rows: Sequence[Row]) -> dict[str, str | None]:
    """The part that each word of the column of parts means; none where there is no such column."""
    words = {part: PARTS.get(part.casefold()) for _, _, _, part in rows if part}
    return parts_or_refusal(f"csv:{file}", words, "split") if words else {}


def in_order(labels: set[str]) -> list[str]:
    """The classes in the order of their labels: numbers by their value, words by the alphabet."""
    if all(label.isascii() and label.isdigit() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def named(rows: Sequence[Row]) -> str:
    """The rows with their paths, the first ones of many."""
    return listing.first_of([f"row {number} ({path})" for number, path, _, _ in rows])


def refusal(file: Path, sentence: str) -> UserError:
    """The error that says which file it is about."""
    return listing.refusal(f"csv:{file}", sentence)
