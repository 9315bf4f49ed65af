"""Decoded images on the disk: whole or not at all, one copy for all workers, larger than memory."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnsweep.core import files
from attnsweep.core.errors import UserError
from attnsweep.space.search import expand_sweep
from attnsweep.space.sweep import Sweep
from attnsweep.tasks.images import cache, datasets
from attnsweep.tasks.images import training as images
from attnsweep.tasks.images.cache import Pixels, Undecoded
from attnsweep.tasks.images.own_data import pixels
from attnsweep.training.trial import Options, run

from commands import PATIENCE_S

SHA = "0123456789abcdef" * 4
MB = 1_000_000


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Each test reads its files anew, as another process would."""
    datasets.forget()
    images.load.cache_clear()
    yield
    images.load.cache_clear()


def drawn(sizes: dict[str, int], shape: tuple[int, int, int] = (3, 6, 6)) -> dict[str, cache.Part]:
    noise = np.random.RandomState(0)
    return {
        part: (noise.randint(256, size=(count, *shape)).astype(np.uint8), np.arange(count) % 3)
        for part, count in sizes.items()
    }


def undecoded(parts: dict[str, cache.Part], shape: tuple[int, int, int] = (3, 6, 6)) -> Undecoded:
    """A set whose images come in turns of all parts."""

    def each() -> Iterator[tuple[str, int, np.ndarray]]:
        for i in range(max(len(labels) for _, labels in parts.values())):
            for part, (some, labels) in parts.items():
                if i < len(labels):
                    yield part, int(labels[i]), some[i]

    return Undecoded("noise", {part: len(labels) for part, (_, labels) in parts.items()}, shape, each)


@pytest.fixture
def noise() -> dict[str, cache.Part]:
    return drawn({"train": 30, "val": 4, "test": 7})


def provided(place: Path, parts: dict[str, cache.Part]) -> Pixels:
    return cache.provided(place, SHA, lambda: undecoded(parts))


def same(found: Pixels, parts: dict[str, cache.Part]) -> bool:
    return all(
        np.array_equal(found.parts[part][0], some) and np.array_equal(found.parts[part][1], labels)
        for part, (some, labels) in parts.items()
    )


def is_mapped(found: Pixels) -> bool:
    return all(isinstance(some, np.memmap) and not some.flags.writeable for some, _ in found.parts.values())


def pets(root: Path, count: int = 12, side: int = 16) -> Path:
    noise = np.random.RandomState(0)
    for label in ("cats", "dogs"):
        (root / label).mkdir(parents=True)
        for i in range(count):
            bits = noise.randint(256, size=(side, side, 3)).astype(np.uint8)
            Image.fromarray(bits).save(root / label / f"{i:03}.png")
    return root


# What is kept


def test_what_is_kept_is_what_was_decoded_and_it_is_mapped(
    tmp_path: Path, noise: dict[str, cache.Part]
) -> None:
    place = cache.folder_of(tmp_path, SHA, 6)
    found = provided(place, noise)
    assert same(found, noise) and is_mapped(found)
    again = cache.provided(place, SHA, lambda: pytest.fail("decoded twice"))
    assert same(again, noise) and is_mapped(again)
    held = cache.in_memory(undecoded(noise))
    assert same(held, noise) and (held.mean, held.std) == (found.mean, found.std) == (again.mean, again.std)


def test_mean_and_deviation_are_those_of_what_trains(noise: dict[str, cache.Part]) -> None:
    held, train = cache.in_memory(undecoded(noise)), noise["train"][0] / 255
    assert np.allclose(held.mean, train.mean(axis=(0, 2, 3))) and np.allclose(
        held.std, train.std(axis=(0, 2, 3))
    )


def test_another_checksum_or_size_is_another_set(tmp_path: Path, noise: dict[str, cache.Part]) -> None:
    place = cache.folder_of(tmp_path, SHA, 6)
    provided(place, noise)
    assert cache.opened(place, SHA.replace("f", "e")) is None
    places = {cache.folder_of(tmp_path, sha, side) for sha in (SHA, "ff" + SHA[2:]) for side in (6, 7)}
    assert len(places) == 4


DAMAGE = {
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("gone")),
}


@pytest.mark.parametrize("file", ["train-images.npy", "test-labels.npy", cache.MANIFEST])
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_damaged_is_made_anew(
    tmp_path: Path, noise: dict[str, cache.Part], file: str, damage: str
) -> None:
    place = cache.folder_of(tmp_path, SHA, 6)
    provided(place, noise)
    DAMAGE[damage](place / file)
    found = provided(place, noise)
    assert same(found, noise) and is_mapped(found) and cache.opened(place, SHA)
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_a_manifest_of_nonsense_is_made_anew(tmp_path: Path, noise: dict[str, cache.Part]) -> None:
    place = cache.folder_of(tmp_path, SHA, 6)
    provided(place, noise)
    for said in ("[]", "{}", "null", json.dumps({"sha256": SHA}), json.dumps({"sha256": SHA, "files": 3})):
        (place / cache.MANIFEST).write_text(said)
        assert same(provided(place, noise), noise)


def hashed_by(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> int:
    """How many files are hashed meanwhile."""
    found: list[Path] = []
    real = files.sha256_of
    with monkeypatch.context() as patched:
        patched.setattr(files, "sha256_of", lambda path: found.append(path) or real(path))
        act()
    return len(found)


def test_what_nobody_has_touched_is_hashed_once_a_day(
    tmp_path: Path, noise: dict[str, cache.Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, now = cache.folder_of(tmp_path, SHA, 6), time.time()
    provided(place, noise)
    assert hashed_by(monkeypatch, lambda: cache.opened(place, SHA)) == 6  # written a moment ago
    monkeypatch.setattr(cache, "TICK_S", 0)
    assert hashed_by(monkeypatch, lambda: cache.opened(place, SHA)) == 0
    (place / "train-images.npy").touch()
    assert hashed_by(monkeypatch, lambda: cache.opened(place, SHA)) == 6
    clock = iter([now - 3600] * 2 + [now + 25 * 3600] * 2)
    monkeypatch.setattr(cache.time, "time", lambda: next(clock))
    for _ in range(2):
        assert hashed_by(monkeypatch, lambda: cache.opened(place, SHA)) == 6
    (place / cache.CHECKED).write_text("[1]")
    assert hashed_by(monkeypatch, lambda: cache.opened(place, SHA)) == 6


def test_what_a_source_was_goes_when_it_is_decoded_anew_unless_it_is_used(
    tmp_path: Path, noise: dict[str, cache.Part]
) -> None:
    def decode(digit: str, size: int = 6) -> Pixels:
        return cache.provided(
            cache.folder_of(tmp_path, digit * 64, size), digit * 64, lambda: undecoded(noise)
        )

    def there() -> list[str]:
        return sorted(path.name[0] for path in (tmp_path / "decoded").iterdir())

    used = decode("1")
    decode("2"), decode("2", size=7)
    assert there() == ["1", "2", "2"]
    images = used.parts["train"][0]
    del used
    decode("3")
    assert there() == ["1", "3"] and int(images.sum()) == int(noise["train"][0].sum())
    del images
    decode("4")
    assert there() == ["4"]
    assert cache.size_of(tmp_path)[0] == 1 and cache.size_of(tmp_path / "none") == (0, 0)


def test_a_source_that_cannot_be_read_leaves_no_folder_and_no_lock(tmp_path: Path) -> None:
    root = pets(tmp_path / "pets")
    (root / "cats/003.png").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        datasets.find(f"folder:{root}").ensure(tmp_path)
    with pytest.raises(UserError, match="MNIST"):
        datasets.pixels("mnist", 28, tmp_path / "data", sha256=None)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_a_plan_that_goes_on_keeps_what_it_was_made_of(tmp_path: Path) -> None:
    root = pets(tmp_path / "pets")
    before = datasets.find(f"folder:{root}")
    before.ensure(tmp_path)
    (root / "cats/003.png").unlink()
    code = f"import sys; sys.path[:0] = {sys.path[:1]!r}; from pathlib import Path\n"
    code += "from attnsweep.tasks.images import datasets\n"
    code += f"datasets.find('folder:{root}').ensure(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
    sha256 = before.checksum(tmp_path)
    assert is_mapped(datasets.pixels(before.name, 16, tmp_path, sha256=sha256))  # of a worker that begins now
    datasets.forget()
    assert len(list((tmp_path / "decoded").iterdir())) == 2


# Where it cannot be kept


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_leaves_the_images_in_memory_by_permission(
    tmp_path: Path, noise: dict[str, cache.Part]
) -> None:
    tmp_path.chmod(0o500)
    try:
        found = provided(cache.folder_of(tmp_path, SHA, 6), noise)
    finally:
        tmp_path.chmod(0o700)
    assert same(found, noise) and not is_mapped(found)


def test_where_no_folder_can_be_made_the_images_are_decoded_into_memory(
    tmp_path: Path, noise: dict[str, cache.Part]
) -> None:
    (tmp_path / "decoded").write_text("in the way")
    found = provided(cache.folder_of(tmp_path, SHA, 6), noise)
    assert same(found, noise) and not is_mapped(found)


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_nothing_and_the_images_are_decoded_into_memory(tmp_path: Path) -> None:
    """A process that may write no file beyond 100 kB, as on a full disk."""
    script = f"""
import resource, signal, sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from pathlib import Path
import test_cache as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
parts = t.drawn({{"train": 3000, "val": 4, "test": 7}})
place = t.cache.folder_of(Path({str(tmp_path)!r}), t.SHA, 6)
found = t.provided(place, parts)
assert t.same(found, parts) and not t.is_mapped(found)
assert not list(place.parent.iterdir()) if place.parent.exists() else True
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def test_a_plan_says_so_where_nothing_can_be_kept_and_tries_all_images_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = pets(tmp_path / "pets")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(cache, "synced", full)
    one = datasets.find(f"folder:{root}")
    one.ensure(tmp_path)
    assert "decoded images cannot be kept in" in caplog.text and "No space left on device" in caplog.text
    (root / "cats/003.png").write_bytes(b"torn")
    datasets.forget()
    with pytest.raises(UserError, match=r"1 of 24 images cannot be read: cats/003\.png"):
        datasets.find(f"folder:{root}").ensure(tmp_path)


# Several processes


def build_slowly(place: str, mark: str, seconds: float) -> None:
    """Decodes the set, noting that it does, image by image."""
    parts = drawn({"train": 20, "val": 2, "test": 2})

    def slow() -> Undecoded:
        one = undecoded(parts)

        def each() -> Iterator[tuple[str, int, np.ndarray]]:
            Path(mark, str(os.getpid())).touch()
            for image in one.images():
                time.sleep(seconds / 24)
                yield image

        return Undecoded(one.name, one.sizes, one.shape, each)

    assert same(cache.provided(Path(place), SHA, slow), parts)


@pytest.mark.slow
def test_of_several_at_once_one_decodes_and_all_use_that(tmp_path: Path) -> None:
    place = cache.folder_of(tmp_path, SHA, 6)
    (mark := tmp_path / "mark").mkdir()
    workers = [
        multiprocessing.get_context("fork").Process(target=build_slowly, args=(str(place), str(mark), 0.3))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(mark.iterdir())) == 1 and is_mapped(cache.opened(place, SHA))


@pytest.mark.slow
def test_of_one_that_is_killed_nothing_is_used_and_the_next_one_clears_it_away(tmp_path: Path) -> None:
    place = cache.folder_of(tmp_path, SHA, 6)
    (mark := tmp_path / "mark").mkdir()
    worker = multiprocessing.get_context("fork").Process(
        target=build_slowly, args=(str(place), str(mark), 60)
    )
    worker.start()
    deadline = time.monotonic() + PATIENCE_S
    while not list(mark.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.kill()
    worker.join(PATIENCE_S)
    assert cache.opened(place, SHA) is None
    assert [path for path in place.parent.iterdir() if path.is_dir()]
    parts = drawn({"train": 20, "val": 2, "test": 2})
    assert is_mapped(provided(place, parts))
    assert [path.name for path in place.parent.iterdir() if path.is_dir()] == [place.name]


HOLDER = """
import sys, torch
sys.path[:0] = {path!r}
from attnsweep.tasks.images import training
data = training.load({dataset!r}, 64, {data_dir!r}, "cpu")
total = sum(int(part.images.sum()) for part in (data.train, data.val, data.test))  # every page is touched
print(total, flush=True)
sys.stdin.read()
"""


def memory_of(pid: int, file: str) -> dict[str, float]:
    """The sums of /proc/PID/smaps over the mappings of a file, in MB."""
    found, inside = {"Rss": 0.0, "Pss": 0.0}, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            inside = line.endswith(file)
        elif inside and name[:-1] in found:
            found[name[:-1]] += int(rest.split()[0]) * 1024 / MB
    return found


@pytest.mark.slow
def test_two_workers_hold_one_copy(tmp_path: Path) -> None:
    """The images lie in the memory of both, and count half in the proportional share of each."""
    name, size = f"folder:{pets(tmp_path / 'pets', count=300, side=64)}", 600 * 3 * 64 * 64 / MB
    datasets.find(name).ensure(tmp_path)
    script = HOLDER.format(path=sys.path[:1], dataset=name, data_dir=str(tmp_path))
    workers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        totals = {worker.stdout.readline() for worker in workers}
        held = [memory_of(worker.pid, "-images.npy") for worker in workers]
    finally:
        for worker in workers:
            worker.communicate(timeout=PATIENCE_S)
    assert len(totals) == 1
    assert all(one["Rss"] == pytest.approx(size, rel=0.02) for one in held)
    assert sum(one["Pss"] for one in held) == pytest.approx(size, rel=0.02)


SMALL_MEMORY = """
import resource, sys
sys.path[:0] = {path!r}
from pathlib import Path
import numpy as np, torch
from attnsweep.tasks.images import cache, training
from attnsweep.tasks.registry import resolve
torch.set_num_threads(1)
def held():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmData"))
    return int(line.split()[1]) * 1024
limit = held() + {limit}
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones({size}, np.uint8)
except MemoryError:
    print("no room in memory")
image = np.zeros((3, 64, 64), np.uint8)
sizes = {{"train": {size} // image.size, "val": 10, "test": 10}}
def each():
    for part, count in sizes.items():
        for i in range(count):
            yield part, i % 2, image
found = cache.provided(Path({place!r}), "{sha}", lambda: cache.Undecoded("large", sizes, (3, 64, 64), each))
mean, std = training.range_of(found.mean, found.std)
factor, offset = training.normalisation(mean, std)
data = training.Data(**{{part: training.split(found.parts[part], "cpu") for part in found.parts}},
                     factor=factor, offset=offset)
model, seen = torch.nn.Linear(3 * 64 * 64, 2), 0
config = dict(batch_size=64)
for pictures, labels in training.batches(data, config, epoch=0, order=torch.Generator()):
    torch.nn.functional.cross_entropy(model(pictures.flatten(1)), labels).backward()
    seen += len(labels)
print("trained", seen == sizes["train"])
"""


@pytest.mark.slow
def test_a_set_larger_than_memory_trains(tmp_path: Path) -> None:
    """Under a limit on the memory that a process may have of its own, which is half of the set."""
    script = SMALL_MEMORY.format(
        path=sys.path[:1], limit=150 * MB, size=300 * MB, place=str(tmp_path / "large"), sha=SHA
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.split("\n")[:2] == ["no room in memory", "trained True"], done.stderr


# In a sweep


@pytest.mark.slow
def test_a_second_sweep_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(
        model="vit", dataset=f"folder:{pets(tmp_path / 'pets')}", depth=1, dim=8, heads=1, mlp_dim=8, epochs=1
    )

    def rows() -> list[dict[str, Any]]:
        datasets.forget()
        images.load.cache_clear()
        (trial,), _ = expand_sweep(sweep, tmp_path)
        datasets.find(str(trial.config["dataset"])).ensure(tmp_path)
        return [event["row"] for event in run(trial, Options(data_dir=str(tmp_path))) if "row" in event]

    before = rows()[-1]
    for name in ("decoded", "square"):
        monkeypatch.setattr(pixels, name, lambda *_: pytest.fail("decoded again"))
    after = rows()[-1]
    assert (after["test_acc"], after["train_loss"]) == (before["test_acc"], before["train_loss"])


def test_trials_are_the_same_from_the_disk_and_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"folder:{pets(tmp_path / 'pets')}"
    mapped = images.load(name, 12, str(tmp_path), "cpu")
    images.load.cache_clear()
    (tmp_path / "full").write_text("no folder")
    held = images.load(name, 12, str(tmp_path / "full"), "cpu")
    for part in ("train", "val", "test"):
        one, other = getattr(mapped, part), getattr(held, part)
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert torch.equal(mapped.factor, held.factor) and torch.equal(mapped.offset, held.offset)


def test_decoding_says_how_far_it_is_where_that_takes_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[int, int]] = []
    one = datasets.find(f"folder:{pets(tmp_path / 'pets')}")
    one.ensure(tmp_path, lambda done, total: said.append((done, total)))
    assert said == []
    monkeypatch.setattr(datasets, "SLOW", 20)
    datasets.sized(one, 9).ensure(tmp_path, lambda done, total: said.append((done, total)))
    assert said == [(i, 24) for i in range(1, 25)]


def test_threads_that_decode_take_no_more_ahead_than_they_need() -> None:
    from attnsweep.tasks.images.own_data.reading import AHEAD, in_parallel

    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1_000):
            taken.append(i)
            yield i

    found = in_parallel(lambda i: i * i, items())
    assert next(found) == 0 and len(taken) <= AHEAD * (os.cpu_count() or 1)
    assert list(found) == [i * i for i in range(1, 1_000)]
