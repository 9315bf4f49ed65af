"""The packages on whose private parts this package relies, and the newest versions that were tested.

`pyproject.toml` has these bounds; newer versions cause a warning, and everything works as far as it can.
"""

import functools
import logging

from attnsweep.core.version import installed

NEWEST = {  # major and minor version
    "ray": (2, 60),  # engine/ray_private.py
    "torch": (2, 15),  # nn/torch_private.py
    "vit-pytorch": (1, 26),  # tasks/images/models/vit_pytorch_private.py
    "optuna": (5, 0),  # space/optuna_study.py
    "highway-env": (1, 12),  # tasks/driving/judging/highway_private.py
}
log = logging.getLogger("attnsweep")


@functools.cache
def warn_of_newer() -> None:
    """Warns, once per process, of packages that are newer than the tested versions."""
    for package, tested in NEWEST.items():
        if version := newer(package):
            log.warning(
                "%s %s is newer than %d.%d, with which attnsweep was tested; it may be slower, or fail",
                package, version, *tested,
            )  # fmt: skip


def newer(package: str) -> str | None:
    """The version of a package that is here, where it is newer than the tested one."""
    version = installed(package) or ""
    try:
        found = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:  # a build from source, say, or none
        return None
    return version if found > NEWEST[package] else None
