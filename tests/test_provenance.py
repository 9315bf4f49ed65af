import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import attnsweep
from attnsweep.results import provenance
from attnsweep.results.schema import PROVENANCE

COLUMNS = {column.name for column in PROVENANCE}
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in a new repository, which is the working directory."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(("git", *who, *arguments), check=True, capture_output=True, text=True).stdout

    run("init", "--quiet")
    return run


def commit(git: Git) -> str:
    """Commits a file; returns the commit."""
    Path("file").write_text("one\n")
    git("add", "file")
    git("commit", "--quiet", "--message", "A file")
    return git("rev-parse", "HEAD").strip()


def test_driver_and_worker_share_the_columns_between_them() -> None:
    driver, worker = provenance.driver(), provenance.worker("cpu")
    assert not driver.keys() & worker.keys()
    assert driver.keys() | worker.keys() == COLUMNS - {
        "data_sha256",
        "images_skipped",
        "numerics",
        "schema_version",
    }


def test_versions_are_those_that_run() -> None:
    import ray
    import torch

    driver, worker = provenance.driver(), provenance.worker("cpu")
    assert (driver["ray"], driver["attnsweep"]) == (ray.__version__, attnsweep.__version__)
    assert driver["python"] == platform.python_version()
    assert worker["torch"] == torch.__version__ and type(worker["torch"]) is str
    assert worker["cuda"] is None


@pytest.mark.slow
def test_importing_provenance_imports_neither_torch_nor_ray() -> None:
    code = "import sys; from attnsweep.results import provenance; provenance.driver(); "
    code += "print({'torch', 'ray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_a_clean_commit_is_named(git: Git) -> None:
    sha = commit(git)
    assert provenance.git_state() == (sha, False)


def test_a_changed_file_makes_the_commit_dirty(git: Git) -> None:
    sha = commit(git)
    Path("file").write_text("two\n")
    assert provenance.git_state() == (sha, True)


def test_a_staged_file_makes_the_commit_dirty(git: Git) -> None:
    sha = commit(git)
    Path("other").touch()
    git("add", "other")
    assert provenance.git_state() == (sha, True)


def test_untracked_files_do_not_make_the_commit_dirty(git: Git) -> None:
    sha = commit(git)
    Path("results").touch()
    assert provenance.git_state() == (sha, False)


def test_a_folder_of_the_repository_is_in_the_repository(git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = commit(git)
    Path("folder").mkdir()
    monkeypatch.chdir("folder")
    assert provenance.git_state() == (sha, False)


def test_a_repository_without_a_commit_has_no_commit(git: Git) -> None:
    assert provenance.git_state() == (None, False)


def test_outside_a_repository_both_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert provenance.git_state() == (None, None)


def test_without_git_both_are_null(git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(git)
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() == (None, None)


def test_in_a_repository_of_dubious_ownership_both_are_null(
    git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(git)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests use it
    assert provenance.git_state() == (None, None)


def program(path: Path, canary: Path) -> str:
    """A program that makes a file, and fails."""
    path.write_text(f"#!/bin/sh\ntouch '{canary}'\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def monitor(git: Git, evil: str) -> None:
    git("config", "core.fsmonitor", evil)


def included(git: Git, evil: str) -> None:
    Path(".git/more").write_text(f"[core]\nfsmonitor = {evil}\n")
    git("config", "include.path", "more")


def hook(git: Git, evil: str) -> None:
    Path(".git/hooks").mkdir(exist_ok=True)
    Path(".git/hooks/post-index-change").symlink_to(evil)
    os.utime("file", (1, 1))  # so that git writes its index, of which the hook is told


def filtering(git: Git, evil: str) -> None:
    """A filter of a file that was written again with the same content, which git has to read."""
    Path(".gitattributes").write_text("* filter=evil\n")
    git("config", "filter.evil.clean", evil)
    Path("file").write_text(Path("file").read_text())
    os.utime("file", (1, 1))


def filtering_by_a_process(git: Git, evil: str) -> None:
    filtering(git, "true")
    git("config", "--unset", "filter.evil.clean")
    git("config", "filter.evil.process", evil)


def submodule(git: Git, evil: str) -> None:
    """One whose own settings name the program."""
    subprocess.run(("git", "init", "--quiet", "inner"), check=True)
    Path("inner/a").write_text("a")
    for words in (
        ("add", "a"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a"),
    ):
        subprocess.run(("git", "-C", "inner", *words), check=True)
    git("-c", "advice.addEmbeddedRepo=false", "add", "inner")
    git("commit", "--quiet", "--message", "A submodule")
    subprocess.run(("git", "-C", "inner", "config", "core.fsmonitor", evil), check=True)


def promised(git: Git, evil: str) -> None:
    """A commit whose tree is missing, and is to be fetched by a program."""
    tree = git("rev-parse", "HEAD^{tree}").strip()
    Path(".git/objects", tree[:2], tree[2:]).unlink()
    for setting, value in {
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "far", "remote.far.promisor": "true",
        "remote.far.url": f"ext::{evil} %S far", "protocol.ext.allow": "always", "remote.far.fetch": "+x:x",
    }.items():  # fmt: skip
        git("config", setting, value)


RUNS = (monitor, included, hook, filtering, filtering_by_a_process, submodule, promised)


@pytest.mark.parametrize("make", RUNS)
def test_no_program_that_a_repository_names_is_run(
    git: Git, tmp_path: Path, make: Callable[[Git, str], None]
) -> None:
    commit(git)
    canary = tmp_path / "canary"
    make(git, program(tmp_path / "evil", canary))
    canary.unlink(missing_ok=True)
    provenance.git_state()
    assert not canary.exists()
    subprocess.run(("git", "status"), capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert canary.exists(), "what git status would have run"


@pytest.mark.parametrize("make", (monitor, hook, filtering, submodule))
def test_beside_a_hostile_setting_the_state_is_known(
    git: Git, tmp_path: Path, make: Callable[[Git, str], None]
) -> None:
    commit(git)
    make(git, program(tmp_path / "evil", tmp_path / "canary"))
    assert provenance.git_state() == (git("rev-parse", "HEAD").strip(), False)
    Path("file").write_text("changed")
    assert provenance.git_state()[1] is True


def test_no_program_that_the_environment_names_is_run(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha, canary = commit(git), tmp_path / "canary"
    evil = program(tmp_path / "evil", canary)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EDITOR"):
        monkeypatch.setenv(name, evil)
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": evil}
    for name, value in {**settings, "GIT_DIR": "nowhere", "GIT_INDEX_FILE": "nothing"}.items():
        monkeypatch.setenv(name, value)
    assert provenance.git_state() == (sha, False) and not canary.exists()


def test_files_are_compared_as_the_repository_says(git: Git) -> None:
    """A file system without executable bits, a system with other ends of lines."""
    sha = commit(git)
    git("config", "core.fileMode", "false")
    git("config", "core.autocrlf", "true")
    Path("file").chmod(0o755)
    Path("file").write_bytes(b"one\r\n")
    git("add", "file")
    os.utime("file", (1, 1))  # so that it has to be read
    assert provenance.git_state() == (sha, False)
    git("config", "core.fileMode", "true")
    assert provenance.git_state() == (sha, True)


def test_a_second_working_tree_has_a_state_of_its_own(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = commit(git)
    git("worktree", "add", "--quiet", "--detach", str(tmp_path / "second"))
    Path("file").write_text("changed here")
    monkeypatch.chdir(tmp_path / "second")
    assert provenance.git_state() == (sha, False)


def test_hashes_of_256_bits_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(("git", "init", "--quiet", "--object-format=sha256"), check=True)
    Path("file").write_text("a\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(("git", "add", "file"), check=True)
    subprocess.run(("git", *who, "commit", "--quiet", "-m", "a"), check=True)
    sha, dirty = provenance.git_state()
    assert sha is not None and len(sha) == 64 and dirty is False


def test_in_a_broken_repository_both_are_null(git: Git) -> None:
    commit(git)
    Path(".git/HEAD").write_text("nonsense")
    Path(".git/index").write_bytes(b"nonsense")
    assert provenance.git_state() == (None, None)


def test_in_a_deleted_working_directory_both_are_null(git: Git, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert provenance.git_state()[1] is None


def test_a_command_that_takes_too_long_gives_nothing() -> None:
    assert provenance.output_of(sys.executable, "-c", "input()", timeout_s=0.0) is None


def test_the_hash_follows_names_and_contents_of_the_sources_only(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "inner" / "b.py").write_text("2")
    first = provenance.hash_sources(tmp_path)
    (tmp_path / "notes.txt").write_text("not code")
    assert provenance.hash_sources(tmp_path) == first
    (tmp_path / "a.py").write_text("3")
    changed = provenance.hash_sources(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    assert len({first, changed, provenance.hash_sources(tmp_path)}) == 3
    assert len(first) == 12 and int(first, 16) >= 0


def test_moving_text_between_files_changes_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("12")
    (tmp_path / "b.py").write_text("3")
    before = provenance.hash_sources(tmp_path)
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("23")
    assert provenance.hash_sources(tmp_path) != before


def test_the_package_has_a_hash() -> None:
    assert provenance.code_hash() == provenance.hash_sources(Path(attnsweep.__file__).parent)


@pytest.mark.parametrize(("threads", "end"), [(1, ", 1 thread"), (8, ", 8 threads")])
def test_a_cpu_is_named_with_its_threads(threads: int, end: str) -> None:
    assert provenance.device_name("cpu", threads) == provenance.cpu_name() + end
    assert provenance.worker("cpu", threads)["device"] == provenance.cpu_name() + end


def test_a_gpu_is_named_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    worker = provenance.worker("cuda", 4)
    assert (worker["device"], worker["cuda"]) == ("NVIDIA H100 80GB HBM3", "13.0")


def test_the_model_name_is_read_from_cpuinfo() -> None:
    text = "processor\t: 0\nmodel\t\t: 167\nmodel name\t: AMD EPYC 9654 96-Core Processor\n\nprocessor\t: 1\n"
    assert provenance.model_name(text) == "AMD EPYC 9654 96-Core Processor"


def test_a_cpu_without_a_model_name_still_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 243.75\n")
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert provenance.cpu_name.__wrapped__() in (platform.processor(), platform.machine())
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "missing")
    assert provenance.cpu_name.__wrapped__()


def test_columns_hold_no_path() -> None:
    values = {**provenance.driver(), **provenance.worker("cpu")}.values()
    assert not any(isinstance(value, str) and str(Path.cwd()) in value for value in values)
