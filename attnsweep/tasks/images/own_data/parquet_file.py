"""Images in Parquet as Hugging Face's datasets write them: a column of {bytes, path} and one of labels.

One file, or a folder of them whose names begin with their part (`train-00000-of-00002.parquet`), or that lie
in a folder of that name; files of a part `train` alone are the whole set. The names of the classes stand in
the schema's metadata.
https://huggingface.co/docs/hub/datasets-image
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attnsweep.core.errors import UserError
from attnsweep.core.text import counted
from attnsweep.tasks.images.own_data import folder, listing
from attnsweep.tasks.images.own_data.csv_file import in_order
from attnsweep.tasks.images.own_data.listing import PARTS, Entry, Listing, Reader, parts_or_refusal

LABELS = ("label", "labels", "class", "target", "fine_label")  # what a column of labels is called
ROWS = 64  # that are read at once
TORN = (OSError, pa.ArrowException, UnicodeError)  # what reading a file raises that is not whole
WORD = re.compile(r"[^\W\d_]*")  # that a name begins with: `train` of `train-00000` and of `train_0`
NUMBERED = re.compile(r"(.+)-\d{5}-of-(\d{5})\.parquet")


@dataclass(frozen=True)
class Table:
    """One file: its part, as its name says it, its columns, and the names of its classes by their labels."""

    file: Path
    part: str
    image: str
    label: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]  # of its rows


def listed(root: Path) -> Listing:
    """The images of a file, or of all files below a folder. Raises UserError where one lacks a column."""
    dataset = f"parquet:{root}"
    files = files_of(root)
    words = {word_of(root, file): PARTS.get(word_of(root, file).casefold()) for file in files}
    has_parts = any(words.values()) and set(words.values()) != {"train"}
    check_files(root, files)
    if not has_parts:
        refuse_hidden_parts(root, files)
    parts = parts_or_refusal(dataset, words, "part") if has_parts else {}
    tables = sorted(
        (table_of(dataset, file, word_of(root, file) if has_parts else "") for file in files),
        key=lambda table: ("train", "test", "val", None).index(parts.get(table.part)),
    )
    several = len(tables) > 1
    entries = [
        Entry(f"{below(root, table.file)} row {i}" if several else f"row {i}", label, parts.get(table.part))
        for table in tables
        for i, label in enumerate(table.labels)
    ]
    known = dict.fromkeys(table.classes for table in tables if table.classes)
    if len(known) > 1:
        raise listing.refusal(dataset, "its files name other classes than each other; keep those of one set")
    return Listing(
        dataset,
        entries,
        lambda indices: readers(tables, indices),
        classes=next(iter(known), ()) or in_order({entry.label for entry in entries}),
        named={part: name for name, part in parts.items() if part},
    )


def files_of(root: Path) -> list[Path]:
    """The files of a data set. Raises UserError where there is none."""
    try:
        found = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
        found = [path for path in found if not path.name.startswith(".")]
        if not found or not all(path.is_file() for path in found):
            raise listing.refusal(f"parquet:{root}", f"{root} is no Parquet file; name a file or folder")
    except OSError as error:
        raise listing.refusal(f"parquet:{root}", f"it cannot be read ({error.strerror or error})") from error
    return found


def check_files(root: Path, files: Sequence[Path]) -> None:
    """Raises UserError where a folder lacks a file of several that are numbered, or may hold several sets."""
    lie: dict[str, dict[Path, None]] = {}
    for file in files:
        lie.setdefault(word_of(root, file), {})[file.parent] = None
        if (numbered := NUMBERED.fullmatch(file.name)) and root.is_dir():
            first, last = numbered.group(1), numbered.group(2)
            named = [f"{first}-{i:0{len(last)}}-of-{last}.parquet" for i in range(int(last))]
            if missing := [name for name in named if not (file.parent / name).is_file()]:
                raise listing.refusal(
                    f"parquet:{root}",
                    f"{len(missing):,} of {counted(len(named), 'file')} of {first} are not there, such as "
                    f"{missing[0]}; add them",
                )
    for word, folders in lie.items():
        if word.casefold() in PARTS and len(folders) > 1:
            shown = ", ".join(below(root, folder) for folder in folders)
            raise listing.refusal(
                f"parquet:{root}",
                f"{word} lies in {shown}, which may be sets of their own; name one of the folders",
            )


def refuse_hidden_parts(root: Path, files: Sequence[Path]) -> None:
    """Raises UserError where files are rather parts by other names, such as `cats_test.parquet`."""
    names = [below(root, file) for file in files]
    meant = {name: part for name in names if (part := folder.part_in(name))}
    if len({*meant.values()}) > 1:
        raise listing.refusal(
            f"parquet:{root}",
            f"{listing.first_of(list(meant))} could be parts or one set; begin their names with train-, "
            "test- or val-",
        )


def word_of(root: Path, file: Path) -> str:
    """What says which part a file is: what its name begins with, else the folder that it lies in."""
    first = WORD.match(file.stem)[0]  # type: ignore[index]  # it matches nothing, too
    return first if first.casefold() in PARTS or file.parent in (root, root.parent) else file.parent.name


def below(root: Path, file: Path) -> str:
    """A file's or folder's path below the folder."""
    return file.relative_to(root).as_posix() if file != root else file.name


def table_of(dataset: str, file: Path, part: str) -> Table:
    """What a file says without its images. Raises UserError, which names file and row."""

    def refuse(sentence: str) -> UserError:
        return listing.refusal(dataset, f"{file.name}: {sentence}")

    try:
        schema = pq.read_schema(file)
        features = features_of(schema)
        image, label = image_column(schema, features), label_column(schema, features)
        if image is None:
            raise refuse(f"no column of images ({{bytes, path}}) among {', '.join(schema.names)}")
        if not isinstance(label, str):
            lacking = f"{' and '.join(label)} could each be the label; keep one" if label else "no label"
            raise refuse(f"{lacking} among the columns {', '.join(schema.names)}; name one label")
        for name in (image, label):
            if (count := schema.names.count(name)) > 1:
                raise refuse(f"{count} columns are called {name}; keep one, or give the others another name")
        values = [whole(value) for value in pq.read_table(file, columns=[label])[label].to_pylist()]
    except TORN as error:
        raise refuse(f"it is no Parquet file ({str(error).splitlines()[0]})") from error
    known = features.get(label, {}).get("names")
    names = tuple(map(str, known)) if isinstance(known, list) else ()
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise refuse(f"its metadata calls several classes {twice[0]!r}; give each a name of its own")
    for i, value in enumerate(values):
        if not is_label(value, names):
            raise refuse(f"row {i} has the label {value!r}, which is no class; give it one, or leave it out")
    labels = tuple(names[value] if names and isinstance(value, int) else str(value) for value in values)
    return Table(file, part, image, label, names, labels)


def features_of(schema: pa.Schema) -> Mapping[str, Any]:
    """What Hugging Face says of the columns, in the metadata of a schema; nothing where it does not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: one for name, one in features.items() if isinstance(one, dict)}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return {}


def image_column(schema: pa.Schema, features: Mapping[str, Any]) -> str | None:
    """The column of images; None where there is none."""
    for i, name in enumerate(schema.names):
        kind = schema.field(i).type
        if pa.types.is_struct(kind) and is_image({one.name: one.type for one in kind}):
            return str(name)
        if is_of(kind, "binary") and features.get(name, {}).get("_type") in (None, "Image"):
            return str(name)
    return None


def is_image(fields: Mapping[str, pa.DataType]) -> bool:
    """Whether a struct of these fields is an image: bytes and perhaps a path, of which all may be null."""
    content, path = fields.get("bytes"), fields.get("path", pa.null())
    return content is not None and all(
        is_of(kind, what) or pa.types.is_null(kind) for kind, what in ((content, "binary"), (path, "string"))
    )


def is_of(kind: pa.DataType, what: str) -> bool:
    """Whether a column of a type is `binary`, or `string`, of any size."""
    return str(kind) in (what, f"large_{what}", f"{what}_view")


def label_column(schema: pa.Schema, features: Mapping[str, Any]) -> str | list[str]:
    """The column of labels, by the features, else by a usual name; of several or none, these."""
    declared = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    usual = [name for name in LABELS if name in (declared or schema.names)]
    found = declared if len(declared) == 1 else usual[:1] or declared
    return found[0] if len(found) == 1 else found


def whole(value: Any) -> Any:
    """A label as a whole number where it is one: a column that once had gaps is of floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_label(value: object, names: Sequence[str]) -> bool:
    """Whether a value is a class: a word, or a number, which has a name where classes have names."""
    if isinstance(value, bool) or value is None:
        return isinstance(value, bool) and not names
    if isinstance(value, int):
        return 0 <= value < len(names) if names else value >= 0
    return isinstance(value, str) and bool(value) and (not names or value in names)


def readers(tables: Sequence[Table], indices: Sequence[int]) -> Iterator[Reader]:
    """What gives the images of these indices, a few rows of a file at once."""
    wanted, at = set(indices), 0
    for table in tables:
        try:
            for batch in pq.ParquetFile(table.file).iter_batches(ROWS, columns=[table.image]):
                for i in range(batch.num_rows):
                    if at + i in wanted:
                        yield reader(table, batch.column(0)[i].as_py())
                at += batch.num_rows
        except TORN as error:
            raise listing.refusal(
                f"parquet:{table.file}", f"it cannot be read ({str(error).splitlines()[0]})"
            ) from error


def reader(table: Table, value: Any) -> Reader:
    """What gives the content of one value: bytes, or {bytes, path}, whose path is from the file's folder."""
    content: bytes | None = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else None
    if content is None and path:
        return lambda: folder.content_of(table.file.parent / path)
    return lambda: content or b""
