"""Folders that others can write to: code of theirs is not run, their links are not written through, and what
they have put in the way hangs nobody.
"""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnsweep.cli.new import new
from attnsweep.core import files
from attnsweep.core.errors import Interrupted, UserError, writing
from attnsweep.core.terminal import screen
from attnsweep.engine import latency
from attnsweep.engine.live import Live
from attnsweep.engine.recorder import Recorder
from attnsweep.engine.writer import sole_writer
from attnsweep.figures import canvas
from attnsweep.results import storage
from attnsweep.results.store import Store
from attnsweep.space.plan import make_plan
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import expand
from attnsweep.tasks import own

MINE = "the only copy of a thesis"
NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users, which takes root")


@pytest.fixture
def thesis(tmp_path: Path) -> Iterator[Path]:
    """A file elsewhere that must stay as it is."""
    path = tmp_path / "elsewhere/thesis.txt"
    path.parent.mkdir()
    path.write_text(MINE)
    yield path
    assert path.read_text() == MINE and sorted(path.parent.iterdir()) == [path]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


# --- What is written follows no link ---


def figure(folder: Path, name: str) -> None:
    from matplotlib.figure import Figure

    canvas.save(Figure(), folder, name.partition(".")[0])


def recorder(folder: Path) -> Recorder:
    trials, _ = expand(Sweep(model="vit", depth=1).points(), Path("."))
    plan = make_plan(Sweep(model="vit"), (trials, []), [])
    (folder / "runs").mkdir(exist_ok=True)
    return Recorder("x", Store(folder / "results"), folder / "runs", Live(screen(), plan, slots=1))


def started(folder: Path) -> None:
    trials, _ = expand(Sweep(model="vit", depth=1).points(), Path("."))
    recorder(folder).started(trials[0])


def lock(folder: Path) -> None:
    with sole_writer(Store(folder / "results"), folder / "runs"):
        pass


def row(folder: Path) -> None:
    Store(folder / "results").write("trials", [{"trial_id": "a", "status": "done"}], "a")


REPLACED: dict[str, Callable[[Path], object]] = {  # what takes the place of whatever has its name
    "figures/pareto.png": lambda folder: figure(folder / "figures", "pareto.png"),
    "figures/pareto.svg": lambda folder: figure(folder / "figures", "pareto.svg"),
    "runs/a/checkpoint.pt": lambda folder: storage.write(f"{folder}/runs/a/checkpoint.pt", b"state"),
    "runs/a/weights.pt": lambda folder: storage.write(f"{folder}/runs/a/weights.pt", b"weights"),
    "results/trials/a.parquet": row,
}
KEPT: dict[str, Callable[[Path], object]] = {  # what is opened as it is
    "runs/starts.log": started,
    "runs/lock": lock,
    "runs/collected.log": lambda folder: files.append(folder / "runs/collected.log", "x\n"),
}
REFUSED = (OSError, UserError, Interrupted)


def link(path: Path, thesis: Path) -> None:
    path.symlink_to(thesis)


def second_name(path: Path, thesis: Path) -> None:
    os.link(thesis, path)


def pipe(path: Path, thesis: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path, thesis: Path) -> None:
    path.symlink_to(thesis.parent / "new.txt")


KINDS = (link, second_name, pipe, dangling)


def in_time(write: Callable[[Path], object], folder: Path) -> Exception | None:
    """What a write raises, which ends within seconds: a pipe that nobody reads would hang it for ever."""
    raised: list[Exception | None] = []

    def run() -> None:
        try:
            write(folder)
            raised.append(None)
        except REFUSED as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert raised, "it hangs"
    return raised[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REPLACED)
def test_a_file_takes_the_place_of_a_link_or_pipe_of_its_name(
    name: str, kind: Callable[[Path, Path], None], shared: Path, thesis: Path
) -> None:
    (shared / name).parent.mkdir(parents=True)
    kind(shared / name, thesis)
    assert in_time(REPLACED[name], shared) is None
    assert stat.S_ISREG((shared / name).lstat().st_mode) and (shared / name).stat().st_nlink == 1
    assert not [path for path in shared.rglob("*") if path.name.endswith(files.SCRATCH)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KEPT)
def test_a_log_or_lock_that_is_a_link_or_pipe_is_refused_with_a_sentence(
    name: str, kind: Callable[[Path, Path], None], shared: Path, thesis: Path
) -> None:
    (shared / name).parent.mkdir(parents=True)
    kind(shared / name, thesis)
    error = in_time(KEPT[name], shared)
    assert error is not None and name in str(error)
    assert "it is a link, a pipe or the like" in str(error) or "it has a second name" in str(error)


@pytest.mark.parametrize("name", ["runs/a/checkpoint.pt", "results/trials/a.parquet"])
def test_a_folder_below_runs_or_results_that_is_a_link_is_not_followed(
    name: str, shared: Path, thesis: Path
) -> None:
    (shared / name).parent.parent.mkdir(parents=True)
    (shared / name).parent.symlink_to(thesis.parent)
    error = in_time(REPLACED[name], shared)
    assert error is not None and "its folder is a link, which is not followed" in str(error)
    storage.drop(str((shared / name).parent), "thesis")


@pytest.mark.parametrize("root", ["results", "runs", "figures"])
def test_a_link_of_one_s_own_to_another_disk_serves_as_results_runs_or_figures(
    shared: Path, root: str
) -> None:
    (shared / "disk").mkdir()
    (shared / root).symlink_to(shared / "disk")
    names = [name for name in REPLACED if name.startswith(root)]
    for name in names:
        assert in_time(REPLACED[name], shared) is None
    assert in_time(lock, shared) is None
    assert all((shared / "disk" / name.partition("/")[2]).is_file() for name in names)


@as_root
@pytest.mark.parametrize("root", ["results", "runs", "figures"])
def test_a_link_of_somebody_else_is_not_followed(shared: Path, thesis: Path, root: str) -> None:
    (shared / root).symlink_to(thesis.parent)
    os.lchown(shared / root, NOBODY, NOBODY)
    error = in_time(REPLACED["figures/pareto.png"] if root == "figures" else lock, shared)
    assert error is not None and "it is a link of nobody; name the folder itself" in str(error)


def test_an_unreadable_file_is_put_aside_through_no_link(shared: Path, thesis: Path) -> None:
    (shared / "results/trials").mkdir(parents=True)
    (shared / "results/trials/thesis.parquet").write_bytes(b"no Parquet")
    (shared / "runs").mkdir()
    (shared / "runs/unreadable").symlink_to(thesis.parent)
    assert "its folder is a link" in str(in_time(lock, shared))


def test_an_example_is_written_over_nothing(shared: Path, thesis: Path) -> None:
    (shared / "depth.py").symlink_to(thesis.parent / "new.py")
    with pytest.raises(UserError, match=r"depth\.py is there already"):
        new("depth", shared)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_what_is_written_is_as_open_as_the_umask_says(shared: Path, umask: int) -> None:
    """With 002 a group shares a folder: its members replace, append to and lock each other's files."""
    before = os.umask(umask)
    try:
        for write in (*REPLACED.values(), *KEPT.values()):
            write(shared)
    finally:
        os.umask(before)
    written = [path for path in shared.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written if path.is_file()} == {0o666 & ~umask}
    assert {stat.S_IMODE(path.stat().st_mode) for path in written if path.is_dir()} == {0o777 & ~umask}


AS_OTHER = """
import os, sys
from pathlib import Path
from attnsweep.core.errors import UserError
from attnsweep.engine.writer import sole_writer
from attnsweep.results.store import Store
store = Store("{folder}/results")
store.paths("trials")
os.umask({umask})
os.setgroups([{gid}])
os.setgid({gid})
os.setuid({uid})
try:
    with sole_writer(store, Path("{folder}/runs")):
        store.write("trials", [{{"trial_id": "{uid}", "status": "done"}}], "{uid}")
        store.compact()
except UserError as error:
    sys.exit(str(error))
os._exit(0)  # Arrow's threads have been given another user, and do not all survive the way out
"""


@pytest.mark.slow
@as_root
@pytest.mark.parametrize("umask", [0o002, 0o022])
def test_a_group_shares_results_with_umask_002_or_is_told_what_to_set(shared: Path, umask: int) -> None:
    reachable(shared)
    os.chown(shared, -1, 4_321)
    shared.chmod(0o2775)
    for uid in (4_322, 4_323):
        script = AS_OTHER.format(gid=4_321, uid=uid, folder=shared, umask=umask)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        if umask == 0o022 and uid == 4_323:
            assert "each of its members `umask 002`" in done.stderr
            return
        assert done.returncode == 0, done.stderr
    assert sorted(Store(shared / "results").read("trials")["trial_id"].to_pylist()) == ["4322", "4323"]


def reachable(folder: Path) -> None:
    """Lets other users into a folder of pytest's."""
    for above in folder.parents:
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)


# --- The lock names its holder ---


def test_a_lock_names_its_holder(shared: Path) -> None:
    store = Store(shared / "results")
    said = rf"another sweep is writing to {shared}/results from .+ \(process {os.getpid()}, since 20\d\d-"
    with sole_writer(store, shared / "runs"):
        with pytest.raises(UserError, match=said), sole_writer(store, shared / "runs"):
            pass
    assert (shared / "runs/lock").read_text() == ""
    with sole_writer(store, shared / "runs"):
        pass


@pytest.mark.parametrize(("flag", "why"), [(os.ST_RDONLY, "Read-only file system"), (0, "Permission denied")])
def test_results_that_cannot_be_written_are_refused_before_anything_is_measured_or_trained(
    shared: Path, monkeypatch: pytest.MonkeyPatch, flag: int, why: str
) -> None:
    (shared / "results").mkdir(exist_ok=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(shared / "results"))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flag))
    said = rf"{shared}/results cannot be written \({why}\); choose another folder"
    with pytest.raises(UserError, match=said), sole_writer(Store(shared / "results"), shared / "runs"):
        pass


def test_what_cannot_be_written_in_the_middle_is_named_by_its_folder() -> None:
    with pytest.raises(Interrupted, match=r"^rows/results cannot be written \(Read-only file system\); fin"):
        with writing("rows/results"):
            raise OSError(errno.EROFS, "Read-only file system", ".2b6.parquet.tmp")


@pytest.mark.parametrize("note", ["", "{", '{"host": "\\u001b[2J", "pid": 1}', "\x1b[2J"])
def test_what_a_lock_says_is_text(shared: Path, note: str) -> None:
    (shared / "runs").mkdir()
    with files.locked(shared / "runs/lock", note):
        with pytest.raises(UserError, match="another sweep is writing") as caught:
            lock(shared)
    assert str(caught.value).isprintable()


# --- Code that others may have written ---


MODEL = "import torch\nclass Net(torch.nn.Module):\n    pass\n"


@pytest.fixture
def model(shared: Path) -> Path:
    path = shared / "mynet.py"
    path.write_text(MODEL)
    return path


def read(path: Path) -> str:
    return own.read(f"{path}:Net", trusted=True).text


def test_code_of_one_s_own_is_read(model: Path) -> None:
    assert read(model) == MODEL


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o620, 0o777])
def test_code_that_others_may_write_to_is_not(model: Path, mode: int) -> None:
    model.chmod(mode)
    with pytest.raises(UserError, match=r"mynet.py may be somebody else's code .*mynet.py: .* chmod [go]-w"):
        read(model)


@pytest.mark.parametrize("mode", [0o777, 0o775])
@pytest.mark.parametrize("up", [1, 2])
def test_nor_code_in_a_folder_that_others_may_write_to(model: Path, mode: int, up: int) -> None:
    """They could put another file, or folder, in its place."""
    folder = model.parents[up - 1]
    folder.chmod(mode)
    with pytest.raises(UserError, match=rf"somebody else's code \({folder}: .* chmod [go]-w {folder}\)"):
        read(model)


def test_a_sticky_folder_keeps_others_from_what_is_not_theirs(model: Path) -> None:
    model.parent.chmod(0o1777)
    assert read(model) == MODEL


@as_root
def test_code_that_belongs_to_somebody_else_is_not_read(model: Path) -> None:
    os.chown(model, NOBODY, -1)
    with pytest.raises(UserError, match="it belongs to nobody"):
        read(model)
    os.chown(model, 0, -1)
    os.chown(model.parent, NOBODY, -1)
    with pytest.raises(UserError, match="it belongs to nobody"):
        read(model)


@as_root
@pytest.mark.parametrize("private", [True, False])
def test_a_group_of_one_s_own_may_write(model: Path, private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As umask 002 has it where each user has a group of the same name."""
    import grp
    import pwd

    members = ["ada"] if private else ["ada", "bob"]
    user = pwd.struct_passwd(("ada", "x", 1000, 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("ada", "x", 1000, members)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    os.chown(model, 1000, 1000)
    os.chown(model.parent, 1000, 1000)
    model.chmod(0o664)
    model.parent.chmod(0o775)
    for above in model.parents[1:]:  # pytest's own, of root
        assert above.stat().st_uid == 0
    if private:
        assert read(model) == MODEL
    else:
        with pytest.raises(UserError, match="its group may write to it"):
            read(model)


def test_code_is_what_was_checked_even_if_its_name_leads_elsewhere_by_then(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just after the check another file takes the name."""
    check = files.check_owner

    def and_then_swap(descriptor: int, path: Path) -> None:
        check(descriptor, path)
        if path.name == "mynet.py":
            (model.parent / "evil.py").write_text("evil")
            os.replace(model.parent / "evil.py", model)

    monkeypatch.setattr(files, "check_owner", and_then_swap)
    assert read(model) == MODEL and model.read_text() == "evil"


@pytest.mark.parametrize("part", ["mynet.py", "shared"])
def test_a_link_that_is_turned_during_the_check_is_noticed(
    model: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was resolved is opened without following, folder by folder."""
    evil = tmp_path / "evil"
    evil.mkdir(mode=0o777)
    (evil / "mynet.py").write_text("evil")
    resolve = os.path.realpath

    def and_then_turn(path: Any) -> str:
        real = resolve(path)
        turned = model if part == "mynet.py" else model.parent
        os.rename(turned, tmp_path / "away")
        turned.symlink_to(evil / "mynet.py" if part == "mynet.py" else evil)
        return real

    monkeypatch.setattr(os.path, "realpath", and_then_turn)
    with pytest.raises(UserError):
        read(model)


def test_a_link_to_code_of_one_s_own_leads_to_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.py").symlink_to(model)
    assert read(tmp_path / "link.py") == MODEL
    model.chmod(0o666)
    with pytest.raises(UserError, match=rf"somebody else's code \({model}: everybody may write to it"):
        read(tmp_path / "link.py")


@pytest.mark.parametrize("what", ["pipe", "folder", "nothing", "loop", "nul"])
def test_what_is_no_file_is_no_code(shared: Path, what: str) -> None:
    path = shared / ("a\0b.py" if what == "nul" else "net.py")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path)
    with pytest.raises(UserError, match="there is no file"):
        read(path)


@pytest.mark.slow
def test_measure_builds_the_text_that_was_checked(model: Path, shared: Path) -> None:
    """Not what the name leads to when its turn comes."""
    from attnsweep.core.trial import Trial
    from attnsweep.space.trials import make_trial
    from attnsweep.tasks.registry import resolve

    model.write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, image_size: int, num_classes: int) -> None:\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(image_size**2, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1))\n"
    )
    good = model.read_text()
    trial: Trial = make_trial(resolve({"model": f"{model}:Net"}), shared)
    store = Store(shared / "results")
    store.write("trials", [{**trial.row(), "status": "done"}], trial.trial_id)
    (one,) = latency.subjects_of(store, None).values()
    model.write_text("evil")
    assert one.source and one.source.text == good
    assert latency.subjects_of(store, None) == {}


# --- Reading what others have put there ---


@pytest.mark.parametrize("kind", [link, pipe])
def test_a_checkpoint_that_is_a_link_or_pipe_is_none(
    kind: Callable[[Path, Path], None], shared: Path, thesis: Path
) -> None:
    kind(shared / "checkpoint.pt", thesis)
    with pytest.raises(OSError, match="it is a link, a pipe or the like") as caught:
        storage.read(f"{shared}/checkpoint.pt")
    assert caught.value.errno in (errno.ELOOP, errno.EINVAL)


def test_a_table_may_hold_links_to_files_elsewhere(shared: Path, tmp_path: Path) -> None:
    """Which are read, and not written to."""
    row(shared)
    Store(tmp_path / "other").write("trials", [{"trial_id": "b", "status": "done"}], "b")
    there = tmp_path / "other/trials/b.parquet"
    (shared / "results/trials/b.parquet").symlink_to(there)
    store, before = Store(shared / "results"), there.read_bytes()
    assert sorted(store.read("trials")["trial_id"].to_pylist()) == ["a", "b"]
    store.update_trials({"b": {"depth": 3}})
    store.compact()
    assert there.read_bytes() == before
    read = store.read("trials").sort_by("trial_id")
    assert (read["trial_id"].to_pylist(), read["depth"].to_pylist()) == (["a", "b"], [None, 3])


def test_descriptors_are_closed_whatever_happens(shared: Path, thesis: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for make in (link, pipe, second_name):
        make(shared / "starts.log", thesis)
        for call in (files.append, files.replace):
            with contextlib.suppress(OSError):
                call(shared / "starts.log", "x" if call is files.append else b"x")
        with contextlib.suppress(OSError):
            files.read_trusted(shared / "starts.log")
        (shared / "starts.log").unlink()
    assert set(os.listdir("/proc/self/fd")) == before
