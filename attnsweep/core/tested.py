"""Packages whose insides this one relies on, and the versions with which that was tested."""

import functools
import importlib.metadata
import logging

log = logging.getLogger("attnsweep")


@functools.cache
def warn_if_newer(package: str, tested: tuple[int, int]) -> None:
    """Warns, once in a process, where a package is newer than the major and minor version that was tested."""
    try:
        version = importlib.metadata.version(package)
        found = tuple(int(part) for part in version.split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):  # a build from source, say
        return
    if found > tested:
        log.warning(
            "%s %s is newer than %d.%d, with which attnsweep was tested; it may be slower, or fail",
            package, version, *tested,
        )  # fmt: skip
