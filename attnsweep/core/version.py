"""The version of this package, and of others."""

import importlib.metadata

__version__ = "0.1.0"


def installed(package: str) -> str | None:
    """The installed version of a package, found without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
