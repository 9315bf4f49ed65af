"""Files on the disks of this machine, where other people may write beside us.

A name says little there: between two looks at it, somebody else can put a link, a pipe or another file in its
place. So a file is opened once, what was opened is checked, and that is what is read. What is written follows
no link: a file is made beside its place under a name that nobody can know, and renamed.
"""

import contextlib
import errno
import fcntl
import grp
import hashlib
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Not to block: a pipe that nobody writes to would hang whoever opens it.
ONCE = os.O_NONBLOCK | os.O_CLOEXEC
FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
MODE = 0o666  # less the umask: a group that shares a folder sets it to 002
SCRATCH = ".tmp"
ROOT = 0
DEVICES = "/dev"
SYSTEM = {  # what archives, file systems and Python leave, besides names that begin with a dot
    "__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information", "thumbs.db", "desktop.ini",
}  # fmt: skip
NO_FILE = "it is a link, a pipe or the like, and no file; delete it"


class Unsafe(PermissionError):
    """Somebody else can have written a file; the message says how, and what to do."""


def expanded(path: str | Path) -> Path:
    """The path with the home for `~` or `~name`; as it is where nobody has that name, as in shells."""
    return Path(os.path.expanduser(path))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or left by an archive or a file system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def read(path: str | Path, *, follow: bool = False) -> bytes:
    """A file's content; a link's only with `follow`. Raises OSError where it is none: a pipe, a folder."""
    with reading(path, follow=follow) as file:
        return file.read()


def words(path: str | Path) -> list[str]:
    """The words of a log; none where there is no log that can be read."""
    try:
        return read(path).decode(errors="replace").split()
    except OSError:
        return []


@contextlib.contextmanager
def reading(path: str | Path, *, follow: bool = False) -> Iterator[BinaryIO]:
    """A file to read from. Links and errors as with `read`."""
    with opened(path, os.O_RDONLY, follow=follow) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        yield file


def sha256_of(path: str | Path, *, follow: bool = False) -> str:
    """The SHA-256 of a file, which is read in pieces. Links and errors as with `read`."""
    with reading(path, follow=follow) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]


def read_trusted(path: str | Path) -> bytes:
    """The content of a file that only this user or root can have written: it is code.

    Raises Unsafe where somebody else owns the file, or a folder that it lies in, or may write to one of them;
    OSError where there is no such file. Links on the way are resolved once, and what they lead to is checked.
    """
    try:
        return read_checked(Path(os.path.realpath(path)))
    except Unsafe as error:
        raise Unsafe(error.errno, f"{error.filename}: {error.strerror}", str(path)) from None


def read_checked(real: Path) -> bytes:
    """The content of the file at an absolute path without links. Raises as `read_trusted` does."""
    with contextlib.ExitStack() as above:
        at = above.enter_context(folder(real.anchor))
        check_owner(at, Path(real.anchor))
        for i, part in enumerate(real.parts[1:-1], 2):
            at = above.enter_context(folder(part, inside=at))
            check_owner(at, Path(*real.parts[:i]))
        descriptor = above.enter_context(opened(real.name, os.O_RDONLY, inside=at))
        check_owner(descriptor, real)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read()


def check_owner(descriptor: int, path: Path) -> None:
    """Raises Unsafe where others than this user and root own, or may write to, a file or folder that is open.

    Into a folder like /tmp everybody may write, but its sticky bit keeps them from what is not theirs.
    """
    info = os.fstat(descriptor)
    if info.st_uid not in (os.geteuid(), ROOT):
        raise Unsafe(errno.EPERM, f"it belongs to {user_name(info.st_uid)}; copy what you trust", str(path))
    if stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX:
        return
    if info.st_mode & stat.S_IWOTH:
        raise Unsafe(errno.EPERM, f"everybody may write to it; chmod o-w {path}", str(path))
    if info.st_mode & stat.S_IWGRP and not is_private_group(info.st_gid):
        raise Unsafe(errno.EPERM, f"its group may write to it; chmod g-w {path}", str(path))


def is_private_group(gid: int) -> bool:
    """Whether a group is this user's own, with nobody else in it: of the user's name, as most systems make
    one, so that umask 002 gives nothing away. As for pam_umask, root has none.
    """
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    alone = set(group.gr_mem) <= {user.pw_name}
    return user.pw_uid != ROOT and group.gr_name == user.pw_name and user.pw_gid == gid and alone


def user_name(uid: int) -> str:
    """The name of a user, else the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def replace(path: str | Path, content: Any, *, scratch_in: str | Path | None = None) -> None:
    """Writes a file whole or not at all, in place of what has its name, which may be a link or a pipe.

    The scratch file is made in the file's own folder, else in `scratch_in`, of the same disk. Raises OSError;
    also where the folder is a link, or one of devices: root would take /dev/stdout from everybody.
    """
    if os.path.realpath(Path(path).parent) == DEVICES:
        raise OSError(errno.EINVAL, "a device is no place for a file", str(path))
    path, scratch = Path(path), f".{Path(path).name[:100]}-{secrets.token_hex(8)}{SCRATCH}"
    with folder(path.parent) as there, contextlib.ExitStack() as more:
        here = there if scratch_in is None else more.enter_context(folder(scratch_in, follow=True))
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | ONCE, MODE, dir_fd=here)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(scratch, path.name, src_dir_fd=here, dst_dir_fd=there)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch, dir_fd=here)
            raise


def move(path: str | Path, target: str | Path) -> None:
    """Renames a file, in place of what has the name of the target. Raises OSError."""
    path, target = Path(path), Path(target)
    with folder(path.parent) as here, folder(target.parent) as there:
        os.replace(path.name, target.name, src_dir_fd=here, dst_dir_fd=there)


def delete(path: str | Path) -> None:
    """Deletes a file. Raises OSError; also where its folder is a link."""
    with folder(Path(path).parent) as there:
        os.unlink(Path(path).name, dir_fd=there)


def drop(where: str | Path, prefix: str) -> None:
    """Deletes the files of a folder whose names begin with `prefix`, and the folder where it is empty then.

    Raises OSError; also where the folder is a link.
    """
    with folder(where, flags=os.O_RDONLY) as there:
        for name in os.listdir(there):
            if name.startswith(prefix):
                os.unlink(name, dir_fd=there)
        is_empty = not os.listdir(there)
    if is_empty:
        os.rmdir(where)


def append(path: str | Path, text: str) -> None:
    """Adds to the end of a log, which is made where there is none. Raises OSError as `log` does."""
    with log(path) as file:
        file.write(text.encode())


def log(path: str | Path) -> BinaryIO:
    """A log to add to, made where there is none. Raises OSError; also for a link, or one of two names."""
    with opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, alone=True) as descriptor:
        return os.fdopen(os.dup(descriptor), "ab")


@contextlib.contextmanager
def locked(path: str | Path, note: str, *, wait: bool = False, leave: bool = True) -> Iterator[None]:
    """Holds the lock that is a file of this machine, in which `note` stands meanwhile and which stays there,
    or goes; waits for it, or raises BlockingIOError, whose message is the note of who has it.

    Raises OSError as `append` does.
    """
    while True:
        with opened(path, os.O_RDWR | os.O_CREAT, alone=True) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                theirs = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
                raise BlockingIOError(errno.EWOULDBLOCK, theirs, str(path)) from error
            if not has_name(descriptor, path):
                continue  # who had it has deleted it meanwhile
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(descriptor, 0)
                if not leave:
                    with contextlib.suppress(OSError):
                        delete(path)
            return


def has_name(descriptor: int, path: str | Path) -> bool:
    """Whether a path names the very file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def opened(
    path: str | Path, flags: int, *, inside: int | None = None, alone: bool = False, follow: bool = False
) -> Iterator[int]:
    """The descriptor of a regular file, below the folder `inside` where that is given. A file that is to be
    `alone` has no other name: what is written there would be written to both.

    Raises OSError where there is none, or it is a link, a pipe, a device or a folder.
    """
    try:
        unfollowed = 0 if follow else os.O_NOFOLLOW
        descriptor = os.open(path, flags | ONCE | unfollowed, MODE, dir_fd=inside)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # ENXIO: a pipe that nobody reads
            raise OSError(error.errno, NO_FILE, str(path)) from error
        raise
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, NO_FILE, str(path))
        if alone and info.st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name; delete this one", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def folder(
    path: str | Path, *, inside: int | None = None, follow: bool = False, flags: int = FOLDER
) -> Iterator[int]:
    """The descriptor of a folder; of one that is a link only with `follow`. Raises OSError."""
    unfollowed = 0 if follow else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC | unfollowed, dir_fd=inside)
    except OSError as error:
        if Path(path).is_symlink() and inside is None:
            raise OSError(error.errno, "its folder is a link, which is not followed", str(path)) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: str | Path) -> Path:
    """Makes a folder that the user names, and those above it; returns where it really is.

    Raises OSError; also where it is a link of somebody else.
    """
    Path(path).mkdir(parents=True, exist_ok=True)
    refuse_link_of_others(path)
    return Path(os.path.realpath(path))


def refuse_link_of_others(path: str | Path) -> None:
    """Raises Unsafe where a folder that the user names is a link, and neither this user's nor root's."""
    path = Path(path)
    if path.is_symlink() and (owner := path.lstat().st_uid) not in (os.geteuid(), ROOT):
        raise Unsafe(errno.EPERM, f"it is a link of {user_name(owner)}; name the folder itself", str(path))


def refuse_unwritable(path: str | Path) -> None:
    """Raises OSError where a folder is there and nothing can be written into it, or it is none."""
    if os.path.lexists(path) and not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if os.path.isdir(path) and not os.access(path, os.W_OK):
        number = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number), str(path))
