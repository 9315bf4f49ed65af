"""Files on a disk of this machine, on a shared one, or behind any URI that pyarrow opens (s3://bucket/prefix).

A file is written whole or not at all. A store that is not a disk may fail for a while, and what a sweep has
found out is worth more than a minute: it is asked again and again before anything is given up.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from attnsweep.core import files as on_disk
from attnsweep.core.clean import clean
from attnsweep.core.errors import Unreachable

T = TypeVar("T")
PATIENCE_S = 90.0  # with a store that fails; pyarrow alone gives up after 6 s where nobody listens
WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # between two attempts: doubled each time
HOPELESS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
FLAT = ("s3", "gcs")  # object stores, which have no folders
log = logging.getLogger("attnsweep")


def opened(root: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the path on it. Raises ArrowInvalid or OSError where there is
    none such.
    """
    if "://" in root:
        files, path = fs.FileSystem.from_uri(root)
        return files, path
    return fs.LocalFileSystem(), str(on_disk.expanded(root).absolute())


def below(root: str | Path, name: str) -> str:
    """The path or URI of `name` below a folder; what follows the `?` of a URI stays at its end."""
    path, mark, query = str(root).partition("?") if "://" in str(root) else (str(root), "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def is_local(files: fs.FileSystem) -> bool:
    """Whether files lie on a disk that this machine has mounted."""
    return isinstance(files, fs.LocalFileSystem)


def patiently(files: fs.FileSystem, call: Callable[[], T]) -> T:
    """What `call` returns. Where a store fails it is called again, for `PATIENCE_S` in all; a disk is not.

    Raises Unreachable; at once where time heals nothing, such as a denial. Of a disk, what `call` raises.
    """
    began, wait = time.monotonic(), WAIT_S
    while True:
        try:
            return call()
        except FileNotFoundError:
            raise
        except pa.ArrowException as error:  # its subclasses are about what a file holds
            if type(error) is not pa.ArrowException:
                raise
            raise Unreachable(f"the store refuses ({short(error)})") from error
        except OSError as error:
            if is_local(files):
                raise
            if any(word in str(error) for word in HOPELESS):
                raise Unreachable(f"the store refuses ({short(error)})") from error
            if time.monotonic() - began > PATIENCE_S:
                raise Unreachable(f"the store failed for {PATIENCE_S:.0f} s ({short(error)})") from error
            if wait == WAIT_S:
                log.warning("the store does not answer (%s); trying for %.0f s", short(error), PATIENCE_S)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)


def short(error: Exception) -> str:
    """The message of a store's error, without the parts that only the store can read."""
    return clean(str(error).partition("\n")[0].partition(" (Request ID")[0].partition("; Details")[0])


def put(files: fs.FileSystem, path: str, content: "bytes | pa.Buffer") -> None:
    """Writes a file of a store that is not a disk; it is seen when all of it is there."""
    if files.type_name not in FLAT:
        files.create_dir(path.rpartition("/")[0], recursive=True)
    with files.open_output_stream(path) as stream:
        stream.write(content)


def delete(files: fs.FileSystem, path: str) -> None:
    """Deletes a file; of a store, one that an earlier attempt has deleted already is no error."""
    if is_local(files):
        on_disk.delete(path)
        return
    with contextlib.suppress(FileNotFoundError):
        patiently(files, lambda: files.delete_file(path))


def read(path: str) -> bytes:
    """The content of a file by its path or URI. Raises FileNotFoundError, or another OSError."""
    files, inner = opened(path)
    if is_local(files):
        return on_disk.read(inner)

    def download() -> bytes:
        with files.open_input_file(inner) as file:
            return bytes(file.read())

    return patiently(files, download)


def write(path: str, content: bytes) -> None:
    """Writes a file by its path or URI, whole or not at all, and the folders above it. Raises OSError."""
    files, inner = opened(path)
    if not is_local(files):
        patiently(files, lambda: put(files, inner, content))
        return
    Path(inner).parent.mkdir(parents=True, exist_ok=True)
    on_disk.replace(inner, content)


def drop(folder: str, stem: str) -> None:
    """Deletes the files `stem`.* of a folder by its path or URI, and the folder where it is empty then.

    What fails stays: it is only in the way.
    """
    with contextlib.suppress(OSError):
        files, inner = opened(folder)
        if is_local(files):
            on_disk.drop(inner, f"{stem}.")
            return
        there = files.get_file_info(fs.FileSelector(inner, allow_not_found=True))
        doomed = [info for info in there if info.base_name.startswith(f"{stem}.")]
        if there and len(doomed) == len(there):
            files.delete_dir(inner)
            return
        for info in doomed:
            files.delete_file(info.path)
