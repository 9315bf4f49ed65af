"""Images of one's own as tables, as Parquet and as arrays; how they are split; what is refused."""

import io
import json
import random
import re
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image

from attnsweep.core.errors import UserError
from attnsweep.tasks.images import datasets
from attnsweep.tasks.images import training as images
from attnsweep.tasks.images.description import description, warnings
from attnsweep.tasks.images.own_data import split
from attnsweep.tasks.images.own_data.collection import Collection, decoded
from attnsweep.tasks.images.own_data.listing import Entry
from attnsweep.tasks.registry import class_names, find_dataset, resolve

SIDE = 8
Rows = Sequence[tuple[np.ndarray, str]]  # images (h, w, 3) or (h, w), and their classes


@pytest.fixture(autouse=True)
def forgetful(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test reads its files anew, as another process would, and decodes into a folder of its own."""
    datasets.forget()
    images.load.cache_clear()
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    yield


def found(name: str) -> datasets.ImageSet:
    datasets.forget()
    one = datasets.find(name)
    assert one is not None
    return one


def own_of(name: str) -> Collection:
    own = found(name).own
    assert own is not None
    return own


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        found(name).ensure(Path("data"))
    sentence = str(caught.value)
    assert sentence.startswith(f"dataset={name!r}: ") and "\n" not in sentence
    return sentence.partition(": ")[2]


def rows(count: int, *, grey: bool = False, seed: int = 0) -> list[tuple[np.ndarray, str]]:
    """Noise of two classes in turn."""
    noise = np.random.RandomState(seed)
    shape = (SIDE, SIDE) if grey else (SIDE, SIDE, 3)
    return [(noise.randint(256, size=shape).astype(np.uint8), ("dog", "cat")[i % 2]) for i in range(count)]


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def written_csv(folder: Path, some: Rows, *, parts: Sequence[str] = (), delimiter: str = ",") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [delimiter.join(("path", "label", *(("split",) if parts else ())))]
    for i, (pixels, label) in enumerate(some):
        (folder / f"{i}.png").write_bytes(encoded(pixels))
        lines.append(delimiter.join((f"{i}.png", label, *parts[i : i + 1])))
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


def written_parquet(
    file: Path, some: Rows, *, names: Sequence[str] | None = ("cat", "dog"), image: str = "image"
) -> Path:
    """Hugging Face's layout: image {bytes, path} and label, the classes' names in the metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    labels = [label if names is None else list(names).index(label) for _, label in some]
    table = pa.table({
        image: [{"bytes": encoded(pixels), "path": f"{i}.png"} for i, (pixels, _) in enumerate(some)],
        "label": labels,
    })  # fmt: skip
    if names is not None:
        features = {image: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file)
    return file


def written_npz(file: Path, **parts: Rows) -> Path:
    """MedMNIST's layout."""
    number = {"cat": 0, "dog": 1}
    arrays = {f"{part}_images": np.stack([pixels for pixels, _ in some]) for part, some in parts.items()}
    arrays |= {
        f"{part}_labels": np.array([[number[label]] for _, label in some], np.uint8)
        for part, some in parts.items()
    }
    np.savez_compressed(file, **arrays)
    return file


def pixels_of(name: str, size: int = SIDE) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return dict(datasets.pixels(name, size, Path("data"), sha256=None).parts)


def as_given(some: Rows) -> np.ndarray:
    """The images of rows (n, channels, h, w)."""
    return np.stack([np.atleast_3d(pixels).transpose(2, 0, 1) for pixels, _ in some])


# What each kind means


@pytest.mark.slow
def test_the_same_images_are_the_same_pixels_from_each_kind(tmp_path: Path) -> None:
    parts = {"train": rows(20), "val": rows(6, seed=1), "test": rows(8, seed=2)}
    together = [row for some in parts.values() for row in some]
    said = [part for part, some in parts.items() for _ in some]
    for part, some in parts.items():
        written_parquet(tmp_path / f"hf/{part}-00000-of-00001.parquet", some)
        for i, (pixels, label) in enumerate(some):
            (tmp_path / f"folder/{part}/{label}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"folder/{part}/{label}/{i:02}.png").write_bytes(encoded(pixels))
    kinds = [
        f"csv:{written_csv(tmp_path / 'table', together, parts=said)}",
        f"parquet:{tmp_path / 'hf'}",
        f"npz:{written_npz(tmp_path / 'set.npz', **parts)}",
        f"folder:{tmp_path / 'folder'}",
    ]
    for name in kinds:
        one, read = found(name), pixels_of(name)
        assert (one.train_size, one.val_size, one.test_size, one.num_classes) == (20, 6, 8, 2)
        for part, some in parts.items():
            labels = np.array([label for _, label in some])
            order = np.argsort(labels, kind="stable") if "folder:" in name else np.arange(len(some))
            assert np.array_equal(read[part][0], as_given(some)[order]), (name, part)
            assert read[part][1].tolist() == (labels[order] == "dog").tolist()
    assert class_names(resolve({"model": "vit", "dataset": kinds[0]})) == ["cat", "dog"]
    assert class_names(resolve({"model": "vit", "dataset": kinds[2]})) == ["0", "1"]


@pytest.mark.slow
def test_parquet_shards_are_read_in_their_order_and_one_file_without_parts_is_split(tmp_path: Path) -> None:
    some = rows(40)
    for i in range(2):
        written_parquet(tmp_path / f"hf/data/train-0000{i}-of-00002.parquet", some[20 * i : 20 * i + 20])
    written_parquet(tmp_path / "hf/data/validation-00000-of-00001.parquet", rows(6, seed=3))
    one = found(f"parquet:{tmp_path / 'hf'}")
    assert (one.train_size + one.val_size, one.test_size) == (40, 6)  # as in ImageNet
    alone = written_parquet(tmp_path / "all.parquet", some)
    read = pixels_of(f"parquet:{alone}")
    assert sum(len(labels) for _, labels in read.values()) == 40 and all(len(read[part][1]) for part in read)


def test_numbers_of_classes_in_parquet_keep_the_order_of_their_names(tmp_path: Path) -> None:
    file = written_parquet(tmp_path / "set.parquet", rows(20), names=("dog", "bird", "cat"))
    assert found(f"parquet:{file}").classes == ("dog", "cat")


def test_words_in_parquet_are_classes_too_and_bytes_need_no_struct(tmp_path: Path) -> None:
    file = written_parquet(tmp_path / "set.parquet", rows(20), names=None)
    assert found(f"parquet:{file}").classes == ("cat", "dog")
    plain = pa.table({"img": [encoded(pixels) for pixels, _ in rows(20)], "fine_label": list(range(4)) * 5})
    pq.write_table(plain, tmp_path / "plain.parquet")
    assert found(f"parquet:{tmp_path / 'plain.parquet'}").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_may_be_of_any_usual_delimiter_and_labels_of_numbers_are_in_their_order(
    tmp_path: Path, delimiter: str
) -> None:
    some = [(pixels, str(i % 11)) for i, (pixels, _) in enumerate(rows(55))]
    file = written_csv(tmp_path, some, delimiter=delimiter)
    assert found(f"csv:{file}").classes == tuple(map(str, range(11)))


def test_what_windows_makes_of_a_table_is_read(tmp_path: Path) -> None:
    file = written_csv(tmp_path / "images", rows(20)).rename(tmp_path / "table.csv")
    lines = [line if i == 0 else f"images\\{line}" for i, line in enumerate(file.read_text().splitlines())]
    file.write_bytes(b"\xef\xbb\xbf\r\n" + "\r\n".join(lines).encode())
    assert [entry.label for entry in own_of(f"csv:{file}").entries] == ["dog", "cat"] * 10


def test_a_path_that_no_file_can_have_is_no_file(tmp_path: Path) -> None:
    written_csv(tmp_path, rows(2)).write_text(f"path,label\n0.png,a\n{'x' * 5_000},b\n")
    assert "1 of 2 files are not there: row 3" in refusal(f"csv:{tmp_path / 'images.csv'}")


def test_grey_arrays_may_have_an_axis_of_one_channel_and_validation_alone_tests(tmp_path: Path) -> None:
    some = [(pixels[..., None], label) for pixels, label in rows(20, grey=True)]
    one = own_of(f"npz:{written_npz(tmp_path / 'set.npz', train=some, val=some)}")
    assert (one.channels, one.size("test"), one.listing.named["test"]) == (1, 20, "val_images")


def test_parquet_of_a_part_train_alone_is_the_whole_set(tmp_path: Path) -> None:
    written_parquet(tmp_path / "train_0.parquet", rows(30))
    written_parquet(tmp_path / "train_1.parquet", rows(10, seed=1))
    one = own_of(f"parquet:{tmp_path}")
    assert not one.listing.named and sum(map(one.size, ("train", "val", "test"))) == 40


def test_grey_stays_grey_where_all_images_are_and_nowhere_else(tmp_path: Path) -> None:
    grey = written_npz(tmp_path / "grey.npz", train=rows(20, grey=True), test=rows(6, grey=True, seed=1))
    config = resolve({"model": "vit", "dataset": f"npz:{grey}"})
    assert (config["channels"], config["image_size"]) == (1, SIDE)
    assert np.array_equal(pixels_of(f"npz:{grey}")["test"][0], as_given(rows(6, grey=True, seed=1)))
    mixed = written_csv(tmp_path / "mixed", [*rows(20, grey=True), *rows(1)])
    assert found(f"csv:{mixed}").channels == 3
    assert ", grey, resized" in description(found(f"npz:{grey}"), [16])[1]


def test_images_of_one_small_size_are_not_blown_up_and_any_size_can_be_asked_for(tmp_path: Path) -> None:
    name = f"csv:{written_csv(tmp_path, rows(20))}"
    assert resolve({"model": "vit", "dataset": name})["image_size"] == SIDE
    assert images.load_for(
        resolve({"model": "vit", "dataset": name, "image_size": 24}), "data", "cpu"
    ).train.images.shape[2:] == (24, 24)


@pytest.mark.slow
def test_a_built_in_set_can_be_resized_and_at_its_own_size_is_what_it_was() -> None:
    plain, large = resolve({"model": "vit"}), resolve({"model": "vit", "image_size": 16})
    assert resolve({"model": "vit", "image_size": 8}) == plain
    small, data = (images.load_for(config, "data", "cpu") for config in (plain, large))
    assert data.train.images.shape == (1294, 1, 16, 16)
    assert all(
        getattr(small, part).labels.equal(getattr(data, part).labels) for part in ("train", "val", "test")
    )
    again = np.asarray(Image.fromarray(data.test.images[7, 0].numpy()).resize((8, 8), Image.Resampling.BOX))
    assert np.abs(again.astype(int) - small.test.images[7, 0].numpy()).mean() < 16
    assert description(find_dataset("digits"), [8, 16])[1].startswith("  8x8 px, resized to 8x8 and 16x16;")


# How they are split


def digests(count: int, seed: int = 0) -> list[bytes]:
    noise = np.random.RandomState(seed)
    return [noise.bytes(32) for _ in range(count)]


def parts_of(entries: Sequence[Entry], contents: Sequence[bytes]) -> list[str]:
    return split.split(entries, contents)[0]


def test_adding_an_image_moves_no_other_one_between_parts() -> None:
    """Of every class that has an image in each part by itself."""
    contents = digests(400)
    entries = [Entry(f"{i}", f"{i % 3}") for i in range(400)]
    whole = parts_of(entries, contents)
    for count in range(150, 400, 7):
        assert parts_of(entries[:count], contents[:count]) == whole[:count]
    order = np.random.RandomState(1).permutation(400)
    shuffled = parts_of([entries[i] for i in order], [contents[i] for i in order])
    assert shuffled == [whole[i] for i in order]


def test_parts_are_shares_of_each_class_on_average() -> None:
    entries, contents = [Entry(f"{i}", f"{i % 2}") for i in range(4_000)], digests(4_000)
    parts = np.array(parts_of(entries, contents))
    for label in (0, 1):
        own = parts[label::2]
        assert np.mean(own == "test") == pytest.approx(0.2, abs=0.036)
        assert np.mean(own == "val") == pytest.approx(0.08, abs=0.025)
    given = parts_of([Entry(one.name, one.label, "train") for one in entries], contents)
    assert set(given) == {"train", "val", "test"} and np.mean(np.array(given) == "test") > 0.1
    said = [Entry(one.name, one.label, ("train", "test")[i % 4 == 0]) for i, one in enumerate(entries)]
    drawn = parts_of(said, contents)
    assert [part == "test" for part in drawn] == [one.part == "test" for one in said]
    assert np.mean(np.array(drawn) == "val") == pytest.approx(0.075, abs=0.025)


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_each_part_has_an_image_of_each_class_however_small_it_is(count: int) -> None:
    for seed in range(50):
        entries = [Entry(f"{i}", "one") for i in range(count)]
        assert set(parts_of(entries, digests(count, seed))) == {"train", "val", "test"}


def test_copies_of_an_image_are_in_one_part() -> None:
    contents = digests(300)
    entries = [Entry(f"{i}", "one") for i in range(600)]
    parts = parts_of(entries, contents * 2)
    assert parts[:300] == parts[300:]
    for seed in range(50):  # of five images often none is in a part by itself
        parts, copies = split.split(entries[:10], digests(5, seed) * 2)
        assert parts[:5] == parts[5:] and {"train", "val", "test"} == {*parts}
        assert copies <= {*range(5, 10)} and parts == parts_of(entries[:5], digests(5, seed)) * 2


def test_images_that_stand_in_train_and_in_test_are_counted_and_named(tmp_path: Path) -> None:
    parts = {
        "train": rows(20),
        "val": rows(6, seed=1),
        "test": [*rows(6, seed=2), *rows(2), *rows(1, seed=1)],
    }
    name = f"npz:{written_npz(tmp_path / 'set.npz', **parts)}"
    (line,) = (line for line in warnings(found(name)) if "byte for byte" in line)
    assert "3 images, test_images[6] = train_images[0], test_images[7] = train_images[1], " in line
    assert "test_images[8] = val_images[0]" in line
    whole = found(f"npz:{written_npz(tmp_path / 'clean.npz', train=rows(20), test=rows(6, seed=2))}")
    assert not any("byte for byte" in line for line in warnings(whole))


def test_an_image_under_two_classes_is_named_and_so_are_classes_spelt_alike(tmp_path: Path) -> None:
    some = [(pixels, ("1", "01", "1.0", "NaN")[i % 4]) for i, (pixels, _) in enumerate(rows(40))]
    said = warnings(found(f"csv:{written_csv(tmp_path, [*some, (some[0][0], '01')])}"))
    assert "  of one class and, byte for byte, of another too: 1 image, 40.png = 0.png" in said
    assert "  classes that may be the same: 01, 1, 1.0" in said
    assert "  classes that may be missing labels: NaN" in said


# What is refused


def csv_with(text: str | bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        file = written_csv(folder, rows(20))
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"csv:{file}"

    return write


def parquet_table(columns: Sequence[Any], names: Sequence[str]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        folder.mkdir()
        pq.write_table(pa.table(columns, names=names), folder / "set.parquet")
        return f"parquet:{folder / 'set.parquet'}"

    return write


def parquet_of(**columns: Any) -> Callable[[Path], str]:
    return parquet_table([*columns.values()], [*columns])


def parquet_files(*names: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        for name in names:
            written_parquet(folder / f"{name}.parquet", rows(20))
        return f"parquet:{folder}"

    return write


def parquet_with(part: str, empty: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        file = written_parquet(folder / f"{part}.parquet", rows(20))
        pq.write_table(pq.read_table(file).slice(0, 0), folder / f"{empty}.parquet")
        return f"parquet:{folder}"

    return write


def encrypted(folder: Path) -> str:
    file = written_npz(folder.with_suffix(".npz"), train=rows(20), test=rows(6))
    content = bytearray(file.read_bytes())
    for found in re.finditer(b"PK\x01\x02", bytes(content)):
        content[found.start() + 8] |= 1  # the flag
    file.write_bytes(content)
    return f"npz:{file}"


def npz_of(**arrays: np.ndarray) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        folder.mkdir()
        np.savez(folder / "set.npz", **arrays)
        return f"npz:{folder / 'set.npz'}"

    return write


GREYS, TWO = np.zeros((4, 8, 8), np.uint8), np.array([[0], [1], [0], [1]])
IMAGES = [{"bytes": encoded(pixels), "path": None} for pixels, _ in rows(4)]
REFUSED = {
    "csv: missing files": (
        csv_with("path,label\n0.png,a\ngone.png,b\n1.png,a\nlost.png,b\n"),
        "2 of 4 files are not there: row 3 (gone.png), row 5 (lost.png); paths are from ",
    ),
    "csv: no header": (csv_with("0.png,a\n1.png,b\n"), "(0.png, a) names no column path and no label"),
    "csv: no label": (csv_with("path,text\n0.png,a\n"), "names no column label"),
    "csv: two labels": (csv_with("path,label,Label\n0.png,a,b\n"), "2 columns are called label; keep one"),
    "csv: empty label": (csv_with("path,label\n0.png,a\n1.png,\n"), "row 3 (1.png, ) has no label"),
    "csv: short row": (csv_with("path,label\n0.png\n"), "row 2 (0.png) has no label"),
    "csv: long row": (
        csv_with("path,label\n0.png,cat, black\n"),
        "row 2 (0.png, cat,  black) has 3 values and the first row 2; write what has a comma in it in quotes",
    ),
    "csv: empty": (csv_with(""), "its first row (nothing) names no column path and no label"),
    "csv: no rows": (csv_with("path,label\n"), "it has no image"),
    "csv: an image": (csv_with(encoded(GREYS[0])), "it is no table as text"),
    "csv: quote": (csv_with('path,label\n"0.png,a\n'), "it is no table as text"),
    "csv: strange part": (csv_with("path,label,split\n0.png,a,holdout\n"), "split 'holdout' is no part"),
    "csv: half a part": (csv_with("path,label,split\n0.png,a,train\n1.png,b,\n"), "(1.png, b, ) has no part"),
    "csv: train alone": (csv_with("path,label,split\n0.png,a,train\n"), "split train without a part 'test'"),
    "csv: one class": (csv_with("path,label\n0.png,a\n1.png,a\n"), "1 class (a); it wants two or more"),
    "csv: none": (lambda folder: f"csv:{folder / 'x.csv'}", "it cannot be read (No such file or directory)"),
    "parquet: two images": (
        parquet_table([*[pa.array(IMAGES)] * 2, pa.array([0, 1] * 2)], ["image", "image", "label"]),
        "set.parquet: 2 columns are called image; keep one",
    ),
    "parquet: two labels": (
        parquet_table([pa.array(IMAGES), *[pa.array([0, 1] * 2)] * 2], ["image", "label", "label"]),
        "set.parquet: 2 columns are called label; keep one",
    ),
    "parquet: classes of one name": (
        lambda at: f"parquet:{written_parquet(at / 'x.parquet', rows(9), names=('cat', 'dog', 'cat'))}",
        "x.parquet: its metadata calls several classes 'cat'; give each a name of its own",
    ),
    "parquet: parts by other names": (
        parquet_files("cats_test", "cats_train"),
        "cats_test.parquet, cats_train.parquet could be parts or one set; begin their names with train-",
    ),
    "parquet: parts of a partition": (
        parquet_files("split=test/0", "split=train/0"),
        "split=test/0.parquet, split=train/0.parquet could be parts or one set",
    ),
    "parquet: no label": (
        parquet_of(image=IMAGES, text=list("abab")),
        "set.parquet: no label among the columns image, text; name one label",
    ),
    "parquet: no image": (parquet_of(label=[0, 1]), "set.parquet: no column of images"),
    "parquet: labels that are no text": (
        parquet_of(image=IMAGES, label=pa.array([b"\xff", b"b"] * 2, pa.binary()).view(pa.string())),
        "set.parquet: it is no Parquet file ('utf-8' codec can't decode",
    ),
    "parquet: paths that are no text": (
        parquet_of(
            image=pa.StructArray.from_arrays(
                [
                    pa.array([encoded(pixels) for pixels, _ in rows(8)]),
                    pa.array([b"\xff"] * 8, pa.binary()).view(pa.string()),
                ],
                ["bytes", "path"],
            ),
            label=[0, 1] * 4,
        ),
        "it cannot be read ('utf-8' codec can't decode",
    ),
    "parquet: bytes as words": (
        parquet_of(image=[{"bytes": "?", "path": None}] * 4, label=[0, 1] * 2),
        "set.parquet: no column of images ({bytes, path}) among image, label",
    ),
    "parquet: paths as numbers": (
        parquet_of(image=[{"bytes": None, "path": 3}] * 4, label=[0, 1] * 2),
        "set.parquet: no column of images",
    ),
    "parquet: nulls": (parquet_of(other=[None] * 4, label=[0, 1] * 2), "set.parquet: no column of images"),
    "parquet: null label": (parquet_of(image=IMAGES, label=[0, 1, None, 1]), "row 2 has the label None"),
    "parquet: -1": (parquet_of(image=IMAGES, label=[0, 1, 0, -1]), "row 3 has the label -1"),
    "parquet: half a class": (parquet_of(image=IMAGES, label=[0, 1, 0.5, 1]), "row 2 has the label 0.5"),
    "parquet: an empty part": (
        parquet_with("train", "test"),
        "no image in test; add images, or leave the part out",
    ),
    "parquet: torn": (
        lambda folder: f"parquet:{written_csv(folder, rows(2))}",
        "images.csv: it is no Parquet file",
    ),
    "parquet: fewer files than their names announce": (
        parquet_files("train-00000-of-00002", "test-00000-of-00001"),
        "1 of 2 files of train are not there, such as train-00001-of-00002.parquet; add them",
    ),
    "parquet: two sets in one folder": (
        parquet_files("a/train-0", "a/test-0", "b/train-0", "b/test-0"),
        "test lies in a, b, which may be sets of their own; name one of the folders",
    ),
    "parquet: none": (lambda folder: f"parquet:{folder}", "is no Parquet file; name a file or folder"),
    "parquet: an unreadable image": (
        parquet_of(image=[*IMAGES * 2, {"bytes": b"?", "path": None}], label=[0, 1] * 4 + [1]),
        "1 of 9 images cannot be read: row 8 (it is in no known format)",
    ),
    "parquet: a path to nothing": (
        parquet_of(image=[*IMAGES * 2, {"bytes": None, "path": "gone.png"}], label=[0, 1] * 4 + [1]),
        "row 8 (it is not a file)",
    ),
    "npz: no labels": (npz_of(train_images=GREYS, test_images=GREYS), "it has no array train_labels"),
    "npz: no test": (npz_of(train_images=GREYS, train_labels=TWO), "arrays of train without a part 'test'"),
    "npz: labels of nothing": (
        npz_of(train_images=GREYS, train_labels=TWO, val_labels=TWO),
        "it has no array val_images; there are train_images, train_labels, val_labels",
    ),
    "npz: several labels": (
        npz_of(train_images=GREYS, train_labels=np.zeros((4, 14), int), test_images=GREYS, test_labels=TWO),
        "train_labels is (4, 14) of int64; it wants one whole number per image",
    ),
    "npz: floats": (
        npz_of(train_images=GREYS / 2, train_labels=TWO, test_images=GREYS, test_labels=TWO),
        "train_images is (4, 8, 8) of float64; images are",
    ),
    "npz: volumes": (
        npz_of(train_images=GREYS[:, None].repeat(8, 1), train_labels=TWO, test_images=GREYS, test_labels=[]),
        "train_images is (4, 8, 8, 8) of uint8; images are",
    ),
    "npz: fewer labels": (
        npz_of(train_images=GREYS, train_labels=TWO[:3], test_images=GREYS, test_labels=TWO),
        "train_images has 4 images and train_labels 3 labels",
    ),
    "npz: objects": (
        npz_of(train_images=GREYS, train_labels=np.array([None] * 4), test_images=GREYS, test_labels=TWO),
        "it cannot be read (Object arrays cannot be loaded",
    ),
    "npz: torn": (lambda folder: f"npz:{written_csv(folder, rows(2))}", "(File is not a zip file)"),
    "npz: an empty part": (
        npz_of(train_images=GREYS, train_labels=TWO, test_images=GREYS[:0], test_labels=TWO[:0]),
        "no image in test_images; add images, or leave the part out",
    ),
    "npz: encrypted": (encrypted, "is encrypted, password required"),
    "npz: a folder": (lambda folder: folder.mkdir() or f"npz:{folder}", "it cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_a_sentence_that_names_file_and_row(tmp_path: Path, case: str) -> None:
    make, sentence = REFUSED[case]
    said = refusal(make(tmp_path / "data"))
    assert sentence in said and "dataset=" not in said  # the data set is named once


@pytest.mark.parametrize("array", ["train_images", "train_labels"])
def test_arrays_that_are_larger_than_their_file_are_not_made_room_for(tmp_path: Path, array: str) -> None:
    file = tmp_path / "set.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in {"train_images": GREYS, "train_labels": TWO[:, 0]}.items():
            shape = (2**40, *values.shape[1:]) if name == array else values.shape
            header = {"descr": values.dtype.str, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w") as content:
                np.lib.format.write_array_header_1_0(content, header)
                content.write(values.tobytes())
        archive.writestr("test_images.npy", b"")
        archive.writestr("test_labels.npy", b"")
    assert f"{array} is announced as (1099511627776" in refusal(f"npz:{file}")


def test_no_flipped_bit_of_an_array_is_a_traceback(tmp_path: Path) -> None:
    content = written_npz(tmp_path / "set.npz", train=rows(20), test=rows(6)).read_bytes()
    chance, outcomes = random.Random(0), Counter[str]()
    for _ in range(200):
        torn = bytearray(content)
        torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
        (tmp_path / "set.npz").write_bytes(torn)
        try:
            [*decoded(own_of(f"npz:{tmp_path / 'set.npz'}"), SIDE)]
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100


def test_labels_of_a_column_that_once_had_gaps_are_whole_numbers(tmp_path: Path) -> None:
    file = written_parquet(tmp_path / "set.parquet", rows(20))
    table = pq.read_table(file)
    floats = table["label"].cast(pa.float64())
    pq.write_table(table.set_column(1, "label", floats), file)
    assert found(f"parquet:{file}").classes == ("cat", "dog")
    pq.write_table(table.set_column(1, "label", floats).replace_schema_metadata(None), file)
    assert found(f"parquet:{file}").classes == ("0", "1")


@pytest.mark.parametrize("names", [5, {"0": "cat"}, None])
def test_names_of_classes_that_are_none_are_no_names(tmp_path: Path, names: Any) -> None:
    file = written_parquet(tmp_path / "set.parquet", rows(20))
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pq.read_table(file).replace_schema_metadata(said), file)
    assert found(f"parquet:{file}").classes == ("0", "1")


def test_the_folder_of_no_name_is_not_the_one_here() -> None:
    with pytest.raises(UserError, match=r"dataset='folder: ' names no folder \(it is empty\); write folder:"):
        found("folder: ")


def test_no_program_draws_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow goes by the content of a file, and has Ghostscript run one that begins like a drawing."""
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was run"))
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    file = written_csv(tmp_path, rows(20))
    (tmp_path / "3.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage")
    assert "3.png (it is in no known format)" in refusal(f"csv:{file}")


def test_classes_that_look_alike_are_named(tmp_path: Path) -> None:
    some = [(pixels, ("caf\u00e9", "cafe\u0301")[i % 2]) for i, (pixels, _) in enumerate(rows(20))]
    said = warnings(found(f"csv:{written_csv(tmp_path, some)}"))
    assert any(line.startswith("  classes that may be the same: ") for line in said)


def test_a_table_whose_image_has_changed_is_noticed_by_name(tmp_path: Path) -> None:
    name = f"csv:{written_csv(tmp_path, rows(20))}"
    one = found(name)
    (tmp_path / "3.png").write_bytes(encoded(rows(1, seed=9)[0][0]))
    with pytest.raises(UserError, match=r"3\.png has changed since the plan was made"):
        one.ensure(Path("data"))
    assert found(name).checksum(Path("data")) != one.checksum(Path("data"))
