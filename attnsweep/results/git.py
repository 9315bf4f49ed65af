"""The commit of the working directory, asked of git in a way that runs nothing of the repository's.

The settings of a repository name programs: a monitor of its files (core.fsmonitor), filters, hooks, helpers
that fetch what is missing. Who may write to a shared folder may have set them, and `git status` runs them. So
git compares the files for a repository of our own, empty but for what it is to compare them with: its
settings are not read, but for a few that are no programs.
"""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SETTINGS = (
    "core.fsmonitor=false", "core.hooksPath=/dev/null", "core.pager=cat", "diff.external=",
    "safe.bareRepository=explicit", "protocol.allow=never",
)  # fmt: skip
# Of a repository's own settings, those that say how its files are to be compared.
KEPT_SETTINGS = (
    r"^core\.(filemode|symlinks|ignorecase|autocrlf|eol|precomposeunicode|trustctime|checkstat"
    r"|bigfilethreshold)$"
)
KEPT_VARIABLES = (
    "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_TEST_ASSUME_DIFFERENT_OWNER",
)  # fmt: skip
STATUS = (
    "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--no-ahead-behind",
    "--untracked-files=no", "--ignore-submodules=dirty",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """The repository of the working directory: its files, its index, its objects, its commit."""

    files: str
    folder: str
    objects: str
    hashes: str  # sha1 or sha256
    commit: str | None  # None before the first one


def state() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the working directory; nulls outside a repository.

    Like `git describe --dirty` it does not look at untracked files, which take long to list beside data.
    Nulls also where git is missing or refuses, as it does in a repository of another user.
    """
    one = found()
    if one is None:
        return None, None
    try:
        with tempfile.TemporaryDirectory(prefix="attnsweep-") as folder:
            status = status_of(one, Path(folder))
    except OSError:
        status = None
    return (None, None) if status is None else parse_status(status)


def parse_status(status: str) -> tuple[str | None, bool]:
    """(commit, dirty) from the output of STATUS; the commit is null before the first one."""
    lines = status.splitlines()
    sha = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    return (None if sha == "(initial)" else sha), any(not line.startswith("#") for line in lines)


def found() -> Repository | None:
    """The repository of the working directory, None where git finds none. No program is run that it names."""
    paths = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--show-object-format")
    lines = (git("rev-parse", *paths) or "").splitlines()
    if len(lines) != len(paths):
        return None
    files, folder, common, hashes = lines
    commit = git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    objects = os.path.join(os.path.abspath(common), "objects")
    return Repository(files, folder, objects, hashes, commit.strip() if commit else None)


def status_of(one: Repository, scratch: Path) -> str | None:
    """What git says of a repository's files, with `scratch` in place of the folder that has its settings."""
    version = f"[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = {one.hashes}\n"
    (scratch / "config").write_text(version)
    (scratch / "HEAD").write_text(f"{one.commit}\n" if one.commit else "ref: refs/heads/none\n")
    (scratch / "refs").mkdir()
    settings = [word for setting in harmless_settings() for word in ("-c", setting)]
    return git(
        *settings,
        *STATUS,
        GIT_DIR=str(scratch),
        GIT_WORK_TREE=one.files,
        GIT_INDEX_FILE=os.path.join(one.folder, "index"),
        GIT_OBJECT_DIRECTORY=one.objects,
    )


def harmless_settings() -> list[str]:
    """The repository's own settings that decide how files are compared and name no program."""
    settings = git("config", "--local", "--null", "--get-regexp", KEPT_SETTINGS) or ""
    return [setting.replace("\n", "=", 1) for setting in settings.split("\0") if "\n" in setting]


def git(*arguments: str, **variables: str) -> str | None:
    """What git prints; None where it is not installed, fails, or takes too long."""
    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    environment = {**kept, "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0", **variables}
    return output_of("git", *settings, *arguments, environment=environment)


def is_kept(variable: str) -> bool:
    """Whether git sees a variable of the environment: with others, git looks elsewhere or runs something."""
    return not variable.startswith("GIT_") or variable in KEPT_VARIABLES


def output_of(*command: str, timeout_s: float = 5.0, environment: dict[str, str] | None = None) -> str | None:
    """What a command prints; None where it is not installed, fails, or takes longer than `timeout_s`."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
