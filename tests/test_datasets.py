import pickle
import re
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from attnsweep.core.errors import UserError
from attnsweep.tasks.images import datasets, decoding, official
from attnsweep.tasks.images.datasets import DATASETS, ImageSet
from attnsweep.tasks.registry import find_dataset, resolve

DIGITS = DATASETS["digits"]
CLASS_OF = {
    "mnist": torchvision.datasets.MNIST,
    "fashion_mnist": torchvision.datasets.FashionMNIST,
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
}
BESIDES = {"cifar10": ["cifar-10-batches-py/batches.meta"], "cifar100": ["cifar-100-python/meta"]}
GREY = {"cats": 10, "dogs": 200}  # each image of a folder is of one grey per class


@pytest.fixture(autouse=True)
def forgetful(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test reads its files anew, as another process would, and decodes into a folder of its own."""
    datasets.forget()
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


def save(path: Path, grey: int, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey + 1, grey + 2)).save(path)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """PATH/CLASS: two classes of seven and five images."""
    for label, n in (("cats", 7), ("dogs", 5)):
        for i in range(n):
            save(tmp_path / f"pets/{label}/{i}.png", GREY[label])
    return tmp_path / "pets"


def folder(path: Path) -> ImageSet:
    return datasets.find(f"folder:{path}")


# The digits, which are always here


def test_digits_are_what_is_known_of_them_beforehand() -> None:
    parts = official.read(DIGITS, Path("nowhere"))
    for part, size in (("train", DIGITS.train_size), ("test", DIGITS.test_size)):
        images, labels = parts[part]
        assert images.shape == (size, DIGITS.channels, DIGITS.image_size, DIGITS.image_size)
        assert (images.dtype, labels.dtype, labels.shape) == (np.uint8, np.int64, (size,))
        assert set(labels) == set(range(DIGITS.num_classes))


def test_digits_use_most_of_the_range_of_a_byte_and_keep_all_grey_values() -> None:
    images, _ = official.read(DIGITS, Path("nowhere"))["train"]
    assert sorted(set(images.flat)) == list(range(0, 241, 15))


@pytest.mark.slow
def test_every_fifth_digit_is_for_the_test_and_none_is_lost() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    parts = official.read(DIGITS, Path("nowhere"))
    assert np.array_equal(parts["test"][0].reshape(-1, 64), pixels[4::5] * 15)
    assert np.array_equal(parts["test"][1], labels[4::5])
    assert len(parts["train"][1]) + len(parts["test"][1]) == len(labels)


def test_the_digits_have_their_official_checksum() -> None:
    assert official.checksum(DIGITS, Path("nowhere")) == DIGITS.sha256


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_published_of_a_data_set_fits_its_channels(name: str) -> None:
    one = DATASETS[name]
    assert len(one.mean or ()) == len(one.std or ()) == one.channels


@pytest.mark.parametrize("name", ["minst", "CIFAR10", "", None, 3, "folder"])
def test_an_unknown_data_set_is_answered_with_all_there_are(name: object) -> None:
    meant = {"minst": "mnist", "CIFAR10": "cifar10", "folder": "folder:PATH"}.get(str(name))
    hint = f", did you mean {meant!r}?" if meant else ""
    wanted = f"dataset={name!r} is unknown{hint}; use one of these: for images digits, mnist"
    with pytest.raises(UserError, match=re.escape(wanted)):
        find_dataset(name)


# Files that are missing or not the official ones


def files_in(data_dir: Path, one: ImageSet, content: bytes = b"not it") -> None:
    for file in (*one.files, *BESIDES.get(one.name, ())):
        (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / file).write_bytes(content)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_the_checksum_of_missing_files_is_the_official_one(tmp_path: Path, name: str) -> None:
    assert official.checksum(DATASETS[name], tmp_path) == DATASETS[name].sha256


def test_missing_files_without_an_official_checksum_are_named() -> None:
    with pytest.raises(UserError) as caught:
        official.checksum(DATASETS["fashion_mnist"], Path("here"))
    assert str(caught.value).startswith(
        "dataset='fashion_mnist' is not in here: wanted FashionMNIST/raw/train-images"
    )
    assert "part of every trial's id" in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_files_that_are_not_the_official_ones_are_refused_before_they_are_decoded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_in(tmp_path, DATASETS[name])
    monkeypatch.setattr(CLASS_OF[name], "__init__", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"are not the official ones; delete them") as caught:
        official.read(DATASETS[name], tmp_path)
    assert f"dataset={name!r}: the files in {(tmp_path / DATASETS[name].files[0]).parent}" in str(
        caught.value
    )


def idx(values: np.ndarray) -> bytes:
    """An array of bytes as a file of MNIST's."""
    return b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def fashion(folder: Path, shade: int = 7) -> ImageSet:
    """A small set in the layout of FashionMNIST, of which no official checksum is known."""
    one = DATASETS["fashion_mnist"]
    for file, values in zip(one.files, (*parts_of(5, shade), *parts_of(2, shade)), strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(idx(values))
    return one


def parts_of(count: int, shade: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((count, 28, 28), shade, np.uint8), np.arange(count, dtype=np.uint8)


def test_files_in_the_format_of_mnist_are_decoded(tmp_path: Path) -> None:
    parts = official.read(fashion(tmp_path), tmp_path)
    images, labels = parts["train"]
    assert images.shape == (5, 1, 28, 28) and set(images.flat) == {7}
    assert (images.dtype, labels.dtype, labels.tolist()) == (np.uint8, np.int64, [0, 1, 2, 3, 4])
    assert parts["test"][0].shape == (2, 1, 28, 28)


BROKEN = {
    "empty": b"", "torn in its head": b"\0\0\x08\x03", "torn": idx(np.zeros((5, 28, 28), np.uint8))[:-1],
    "labels for images": idx(np.zeros((4,), np.uint8)), "of floats": b"\0\0\x0d\x01\0\0\0\x01" + bytes(4),
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_none_of_a_data_set_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    one = fashion(tmp_path)
    (tmp_path / one.files[0]).write_bytes(content)
    with pytest.raises(UserError, match=f"dataset='fashion_mnist': a file in {tmp_path} is none of it"):
        official.read(one, tmp_path)


def test_what_is_decoded_is_what_was_hashed(tmp_path: Path) -> None:
    """A set that was planned with, and replaced before it is read."""
    one = fashion(tmp_path)
    official.checksum(one, tmp_path)
    fashion(tmp_path, shade=8)
    with pytest.raises(UserError, match="have changed since the plan was made; run the sweep again"):
        official.read(one, tmp_path)


def test_a_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at a name another file can take it."""
    one, opened = fashion(tmp_path), []
    official.checksum(one, tmp_path)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read_bytes(path))
    official.read(one, tmp_path)
    assert sorted(opened) == sorted(Path(file).name for file in one.files)


class Touch:
    """Pickled, a command that makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def test_a_pickle_of_cifar_gets_arrays_and_plain_values() -> None:
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    batch = pickle.dumps({"data": pixels, "labels": [3, 1], "filenames": ["a", "b"]}, protocol=4)
    images, labels = decoding.cifar_batch(batch)
    assert np.array_equal(images, pixels.reshape(2, 3, 32, 32)) and labels.tolist() == [3, 1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_code_in_a_pickle_of_cifar_is_run(tmp_path: Path, protocol: int) -> None:
    hostile = pickle.dumps({"data": Touch(tmp_path / "canary"), "labels": []}, protocol)
    with pytest.raises(pickle.UnpicklingError, match="which no file of CIFAR does"):
        decoding.cifar_batch(hostile)
    assert not (tmp_path / "canary").exists()


def test_files_that_arrive_after_the_plan_are_checked_too(tmp_path: Path) -> None:
    official.checksum(DATASETS["cifar10"], tmp_path)
    files_in(tmp_path, DATASETS["cifar10"])
    with pytest.raises(UserError, match="are not the official ones"):
        official.checksum(DATASETS["cifar10"], tmp_path)


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route to host"), RuntimeError("Error downloading x\nmore")]
)
@pytest.mark.parametrize("name", CLASS_OF)
def test_missing_files_without_a_network_are_one_sentence_that_names_folder_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def download(self: object) -> None:
        raise error

    monkeypatch.setattr(CLASS_OF[name], "download", download)
    with pytest.raises(UserError) as caught:
        official.ensure(DATASETS[name], tmp_path)
    sentence = str(caught.value)
    assert f"dataset={name!r} is not in {tmp_path}" in sentence
    assert all(file in sentence for file in DATASETS[name].files)
    assert str(error).splitlines()[0] in sentence
    assert sentence.endswith("Put the files there, or name their folder with --data")
    assert "\n" not in sentence


def test_a_download_that_fails_without_a_word_is_a_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    with pytest.raises(UserError, match="downloading failed"):
        official.ensure(DATASETS["mnist"], tmp_path)


@pytest.mark.parametrize("name", CLASS_OF)
def test_files_that_are_here_are_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files_in(tmp_path, DATASETS[name])
    monkeypatch.setattr(CLASS_OF[name], "__init__", lambda *_, **__: pytest.fail("downloaded"))
    official.ensure(DATASETS[name], tmp_path)


def test_one_missing_file_is_downloaded_into_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = DATASETS["mnist"]
    files_in(tmp_path, one)
    (tmp_path / one.files[2]).unlink()
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: files_in(Path(self.root), one))
    monkeypatch.setattr(torchvision.datasets.MNIST, "_load_data", lambda self: (None, None))
    official.ensure(one, tmp_path)
    assert (tmp_path / one.files[2]).is_file()


# A folder of images; see test_folders.py


def test_digits_and_folders_need_no_download(flat: Path) -> None:
    DIGITS.ensure(Path("nowhere"))
    folder(flat).ensure(Path("nowhere"))


def test_a_folder_decides_channels_and_classes_and_leaves_the_size_to_the_sweep(flat: Path) -> None:
    config = resolve({"model": "vit", "dataset": f"folder:{flat}"})
    assert (config["image_size"], config["channels"], config["num_classes"]) == (8, 3, 2)
    save(flat / "cats/large.png", 7, (300, 200))
    datasets.forget()
    assert resolve({"model": "vit", "dataset": f"folder:{flat}"})["image_size"] == 64
    assert resolve({"model": "vit", "dataset": f"folder:{flat}", "image_size": 32})["patch_size"] == 8


@pytest.mark.parametrize("model", ["cnn", "hybrid"])
def test_an_image_too_small_for_the_convolutions_is_refused(flat: Path, model: str) -> None:
    point = {"model": model, "dataset": f"folder:{flat}"}
    assert resolve({**point, "image_size": 6})["image_size"] == 6
    with pytest.raises(UserError, match=f"image_size=5 is too small for {model}; use 6 or more"):
        resolve({**point, "image_size": 5})


def test_the_home_folder_may_be_written_as_a_tilde(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(flat.parent))
    assert datasets.find("folder:~/pets") == folder(flat)


# The real data


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_real_data_is_what_is_known_of_it_beforehand(data_dir: Path, name: str) -> None:
    one = DATASETS[name]
    assert official.checksum(one, data_dir) == one.sha256
    parts: dict[str, Any] = official.read(one, data_dir)
    for part, size in (("train", one.train_size), ("test", one.test_size)):
        images, labels = parts[part]
        assert images.shape == (size, one.channels, one.image_size, one.image_size)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert np.bincount(labels).min() > 0 and len(np.bincount(labels)) == one.num_classes
    pixels = parts["train"][0][::5] / np.float32(255)
    assert pixels.mean(axis=(0, 2, 3)) == pytest.approx(one.mean, abs=5e-3)
    assert pixels.std(axis=(0, 2, 3)) == pytest.approx(one.std, abs=5e-3)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_real_data_is_decoded_as_torchvision_decodes_it(data_dir: Path, name: str) -> None:
    ours: dict[str, Any] = official.read(DATASETS[name], data_dir)
    for part, (images, labels) in ours.items():
        theirs = CLASS_OF[name](str(data_dir), train=part == "train")
        pixels = np.asarray(theirs.data)
        expected = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        assert np.array_equal(images, expected) and np.array_equal(labels, theirs.targets)


@pytest.mark.data
def test_one_changed_byte_of_real_data_is_noticed(data_dir: Path, tmp_path: Path) -> None:
    one = DATASETS["mnist"]
    for file in one.files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((data_dir / file).read_bytes())
    assert official.checksum(one, tmp_path) == one.sha256
    content = bytearray((tmp_path / one.files[-1]).read_bytes())
    content[-1] ^= 1
    (tmp_path / one.files[-1]).write_bytes(content)
    datasets.forget()
    with pytest.raises(UserError, match="not the official ones"):
        official.checksum(one, tmp_path)


@pytest.mark.data
def test_real_data_without_a_file_that_torchvision_wants_is_read_or_refused_in_a_sentence(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", download)
    for file in DATASETS["cifar10"].files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).symlink_to(data_dir / file)
    try:
        official.ensure(DATASETS["cifar10"], tmp_path)
        official.read(DATASETS["cifar10"], tmp_path)
    except UserError as error:
        assert "batches.meta" in str(error)
