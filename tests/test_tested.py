"""Newer packages than those that were tested are a warning, and what is bounded is what was tested."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnsweep.core import tested


@pytest.fixture(autouse=True)
def not_warned_yet() -> Iterator[None]:
    tested.warn_of_newer.cache_clear()
    yield
    tested.warn_of_newer.cache_clear()


def test_a_newer_ray_is_a_warning_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    versions = {**{package: f"{a}.{b}.9" for package, (a, b) in tested.NEWEST.items()}, "ray": "2.99.1"}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    tested.warn_of_newer()
    tested.warn_of_newer()
    assert len(caplog.messages) == 1 and "ray 2.99.1 is newer than 2.60" in caplog.messages[0]


@pytest.mark.parametrize("version", ["0.1", "2.9.0", "nightly", None])
def test_older_unknown_and_missing_versions_are_none(
    version: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def found(package: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(importlib.metadata, "version", found)
    monkeypatch.setattr(tested, "NEWEST", {"ray": (2, 60)})
    tested.warn_of_newer()
    assert not caplog.messages


def test_what_is_installed_was_tested(caplog: pytest.LogCaptureFixture) -> None:
    tested.warn_of_newer()
    assert not caplog.messages


def test_dependencies_are_bounded_by_what_was_tested() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for group in project["optional-dependencies"].values() for line in group),
    ]
    bounds = {}
    for line in lines:
        if bound := re.match(r"([\w-]+)(?:\[[\w,]+\])?.*<(\d+)(?:\.(\d+))?$", line):
            bounds[bound[1]] = (int(bound[2]), int(bound[3] or 0))
    for package, (major, minor) in tested.NEWEST.items():
        assert (major, minor) < bounds[package] <= (major + 1, 0)
        assert bounds[package] in ((major, minor + 1), (major + 1, 0))
