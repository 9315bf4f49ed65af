"""Text of one's own, or Python's, cut into blocks that are trained on, validate and test.

A block lies in one part alone, and no block overlaps another. Every tenth block validates and every tenth is
for the test, so that both have something of every part of the text, and how it is encoded changes neither.
"""

import codecs
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnsweep.core import files
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.text import counted
from attnsweep.tasks.task import Ready

PREFIX, PYTHON = "text:", "text:python"
BLOCK = 4096  # bytes; of a short text less, so that it has LEAST_BLOCKS
LEAST_BLOCKS = 40
SHORTEST = 400  # bytes of a text that can be trained on and judged
OF_TEN = {4: "val", 9: "test"}  # by the last digit of a block's number; all others are trained on
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CHARACTER = 4  # bytes that UTF-8 takes at most for a character
BYTES_PER_TOKEN = 3  # of byte pairs, roughly: what a plan reckons with before they are learnt


@dataclass(frozen=True)
class Text(Ready):
    """A text by its name, `text:python` or `text:PATH`; `context` and `encoding` are those of one trial."""

    name: str
    context: int = 256
    encoding: str = "bytes"

    @property
    def is_folder(self) -> bool:
        return self.name != PYTHON

    @property
    def train_size(self) -> int:
        """The windows of an epoch; with byte pairs, roughly."""
        tokens = self.context * (1 if self.encoding == "bytes" else BYTES_PER_TOKEN)
        return sum(-(-len(block) // tokens) for block in parts(self.name)["train"])

    def checksum(self, data_dir: Path) -> str:
        """SHA-256 over the names and contents of its files, whatever they lie in."""
        return checksum(self.name)


def find(name: str) -> Text | None:
    """The text of that name, its path in full; None where it is no text. Raises UserError as `read` does."""
    if not name.startswith(PREFIX):
        return None
    if name != PYTHON:
        given = name.removeprefix(PREFIX)
        if not given or "\0" in given:
            raise UserError(f"dataset={name!r} names no file; write text:PATH, or text:python")
        name = f"{PREFIX}{Path(os.path.expanduser(given)).absolute().as_posix()}"
    read(name)
    return Text(name)


def forget() -> None:
    """Has files read anew."""
    for remembered in (read, parts, checksum):
        remembered.cache_clear()


@functools.lru_cache(maxsize=4)
def read(name: str) -> Mapping[str, bytes]:
    """The contents of a text's files by their names below its path, each of valid UTF-8.

    Raises UserError, which names file and byte, for what is none, and where there is nothing to read.
    """
    if name == PYTHON:
        return {"topics": python_topics().encode()}
    root = Path(name.removeprefix(PREFIX))
    try:
        contents = {path.relative_to(root).as_posix(): content_of(path) for path in paths_below(root)}
    except OSError as error:
        hint = ", or text:python" + did_you_mean(root.name, ["python"])
        raise UserError(
            f"{clean(error.filename or root)} cannot be read ({error.strerror or error}); name a file, or a "
            f"folder of files{hint}"
        ) from error
    if not contents:
        raise UserError(f"{clean(root)} has no files; name a file of text, or a folder of such")
    return contents


def python_topics() -> str:
    """The reference texts that come with Python, each paragraph once: some topics are part of others, and
    what is trained on must not be in the test. Their wording hangs on the version of Python.
    """
    from pydoc_data.topics import topics

    paragraphs = (part.strip("\n") for topic in sorted(topics) for part in topics[topic].split("\n\n"))
    return "\n\n".join(filter(None, dict.fromkeys(paragraphs)))


def paths_below(root: Path) -> Iterator[Path]:
    """The file itself, or all files below a folder, in the order of their names, but for hidden ones and
    what systems leave; each once, whatever links lead to it: what is trained on must not be in the test.

    Raises OSError where there is nothing of that name.
    """
    seen: set[Path] = set()

    def below(path: Path) -> Iterator[Path]:
        real = path.resolve(strict=True)
        if real in seen:
            return
        seen.add(real)
        if not path.is_dir():
            yield path
            return
        for inner in sorted(path.iterdir()):
            if not files.is_ignored(inner.name):
                yield from below(inner)

    return below(root)


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises UserError where they are no text."""
    content = files.read(path, follow=True)
    if not content.strip():
        raise UserError(f"{clean(path)} is empty; delete it, or leave it out")
    if content.startswith(UTF_16):
        raise UserError(f"{clean(path)} is UTF-16; convert it, as by iconv -f utf-16 -t utf-8")
    if b"\0" in content:
        raise UserError(
            f"{clean(path)} is binary (byte {content.index(0):,} is 0); leave it out, text is UTF-8"
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{clean(path)} is not UTF-8: byte {error.start:,} is 0x{content[error.start]:02x} "
            f"({error.reason}); convert it, as by iconv -t utf-8, or leave it out"
        ) from error
    return content


@functools.lru_cache(maxsize=4)
def checksum(name: str) -> str:
    """See `Text.checksum`. A single file's name does not count."""
    digest, found = hashlib.sha256(), read(name)
    for path, content in found.items():
        named = path if len(found) > 1 else ""
        digest.update(os.fsencode(f"{named}\0{len(content)}\0") + content)
    return digest.hexdigest()


@functools.lru_cache(maxsize=4)
def parts(name: str) -> Mapping[str, Sequence[bytes]]:
    """The blocks of `train`, `val` and `test`, each in the order of the text.

    Raises UserError where a text is too short for all of them.
    """
    contents, size = read(name), block_size(name)
    found: dict[str, list[bytes]] = {"train": [], "val": [], "test": []}
    for number, block in enumerate(block for content in contents.values() for block in blocks(content, size)):
        found[OF_TEN.get(number % 10, "train")].append(block)
    if total(name) < SHORTEST or not found["test"]:
        raise UserError(
            f"{clean(name)} has {counted(total(name), 'byte')}, too few to train on some and test on others; "
            f"use {SHORTEST} or more"
        )
    return found


def block_size(name: str) -> int:
    """The bytes of a block: BLOCK, or as few as give LEAST_BLOCKS."""
    return max(CHARACTER, min(BLOCK, total(name) // LEAST_BLOCKS))


def total(name: str) -> int:
    """The bytes of a text."""
    return sum(map(len, read(name).values()))


def blocks(content: bytes, size: int) -> Iterator[bytes]:
    """The content in pieces of up to `size` bytes, cut between characters."""
    begin = 0
    while begin < len(content):
        end = min(begin + size, len(content))
        while end < len(content) and content[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        yield content[begin:end]
        begin = end


def check_context(name: str, context: int) -> None:
    """Raises UserError for a context longer than a block, of which no window would be full."""
    size = block_size(name)
    if context > size:
        raise UserError(
            f"context={context} is longer than a block of {clean(name)}: its {total(name):,} bytes are cut "
            f"into blocks of {size:,}; use {size} or less{', or more text' if size < BLOCK else ''}"
        )


def about(configs: Sequence[Mapping[str, object]]) -> tuple[list[str], list[str]]:
    """The lines of a plan about the texts of trials, and its warnings."""
    names = list(dict.fromkeys(str(config["dataset"]) for config in configs))
    return [description(name) for name in names], []


def description(name: str) -> str:
    """How much of a text is trained on, validates and tests."""
    train, val, test = (sum(map(len, blocks)) for blocks in parts(name).values())
    return (
        f"{clean(name)}: {train:,} bytes to train on, {val:,} for validation, {test:,} for the test, in "
        f"blocks of {block_size(name):,}"
    )
