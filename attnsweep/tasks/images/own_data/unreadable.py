"""Which images cannot be decoded, as decoding all of them has shown: kept on this machine's disk, so
that a plan that leaves them out decodes them once.

What is kept is of one sequence of contents, whatever their names, and of one version of Pillow.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnsweep.core import files
from attnsweep.tasks.images.cache import DAMAGED


def known(folder: Path, digests: Sequence[bytes]) -> dict[int, str] | None:
    """Why images of these digests cannot be decoded, by their indices; None where nobody has tried."""
    sha256 = checksum(digests)
    try:
        kept = json.loads(files.read(path_of(folder, sha256)))
        return {int(i): str(why) for i, why in kept["faults"].items()} if kept["sha256"] == sha256 else None
    except DAMAGED:
        return None


def keep(folder: Path, digests: Sequence[bytes], faults: Mapping[int, str]) -> None:
    """Keeps what was found out, where the folder can be written."""
    sha256 = checksum(digests)
    path, content = path_of(folder, sha256), json.dumps({"sha256": sha256, "faults": faults})
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content.encode(errors="surrogateescape"))


def path_of(folder: Path, sha256: str) -> Path:
    """Beside the decoded images."""
    return folder / "decoded" / f"unreadable-{sha256[:16]}.json"


def checksum(digests: Sequence[bytes]) -> str:
    """SHA-256 of what decides which images can be decoded."""
    import PIL

    return hashlib.sha256(b"".join([PIL.__version__.encode(), *digests])).hexdigest()
