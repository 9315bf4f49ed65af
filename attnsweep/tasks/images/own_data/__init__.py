"""Images of one's own as a data set: a folder, a table of paths, Parquet as Hugging Face writes it, or
MedMNIST's arrays. Each kind says what it lists; reading, splitting and decoding are the same for all.
"""

from collections.abc import Callable
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.own_data import csv_file, folder, npz_file, parquet_file
from attnsweep.tasks.images.own_data.collection import Collection
from attnsweep.tasks.images.own_data.collection import collect as collect_listing
from attnsweep.tasks.images.own_data.listing import Listing

KINDS: dict[str, Callable[[Path], Listing]] = {
    "folder": folder.listed,
    "csv": csv_file.listed,
    "parquet": parquet_file.listed,
    "npz": npz_file.listed,
}
NAMES = ("folder:PATH", "csv:PATH", "parquet:PATH", "npz:PATH")  # as people write them


def is_own(name: str) -> bool:
    """Whether a data set's name is `KIND:PATH` of one of these kinds."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in KINDS


def collect(name: str, *, skip_unreadable: bool = False, kept_in: Path | None = None) -> Collection:
    """The images that `KIND:PATH` names, read once; see `collection.collect`.

    Raises UserError where that is no path, or the images are not as they have to be.
    """
    kind = name.partition(":")[0]
    return collect_listing(KINDS[kind](path_of(name)), skip_unreadable=skip_unreadable, kept_in=kept_in)


def path_of(name: str) -> Path:
    """The path that `KIND:PATH` names, in full. Raises UserError where that is none."""
    kind, _, path = name.partition(":")
    try:
        if not path.strip():
            raise ValueError("it is empty")
        root = Path(path).expanduser().resolve()
        str(root).encode()  # as rows and screens want it
    except (OSError, RuntimeError, ValueError) as error:
        what = "folder" if kind == "folder" else "file"
        raise UserError(f"dataset={name!r} names no {what} ({error}); write {kind}:PATH") from error
    return root
