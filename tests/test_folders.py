import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.engine import command, runner
from attnsweep.space.search import expand_sweep
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import make_trial
from attnsweep.tasks.images import datasets
from attnsweep.tasks.images import training as images
from attnsweep.tasks.images.description import chance, description, warnings
from attnsweep.tasks.images.own_data import pixels
from attnsweep.tasks.registry import dataset_of, resolve
from attnsweep.training.trial import Options, run

GREY = {"cats": 10, "dogs": 200}  # each image of a folder is of one grey per class
NOWHERE = Path("nowhere")


@pytest.fixture(autouse=True)
def forgetful(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test reads its files anew, as another process would, and decodes into a folder of its own."""
    datasets.forget()
    images.load.cache_clear()
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    yield


def save(path: Path, grey: int = 0, size: tuple[int, int] = (12, 8), mark: int = 0) -> None:
    """One grey, but for a corner by which images differ and that is cut off when they are made square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (grey, grey + 1, grey + 2))
    image.putpixel((0, 0), (mark, 0, 0))
    image.save(path)


def fill(root: Path, **counts: int) -> Path:
    """A folder for each class with as many images."""
    for label, count in counts.items():
        for i in range(count):
            save(root / label / f"{i:02}.png", GREY.get(label, 90), mark=i)
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """PATH/CLASS: two classes of seven and five images."""
    return fill(tmp_path / "pets", cats=7, dogs=5)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """PATH/train/CLASS and PATH/test/CLASS: eight and three images."""
    fill(tmp_path / "split/train", cats=4, dogs=4)
    fill(tmp_path / "split/test", cats=1, dogs=2)
    return tmp_path / "split"


def found(path: Path, **options: bool) -> datasets.ImageSet:
    datasets.forget()
    one = datasets.find(f"folder:{path}", **options)
    assert one is not None
    return one


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        found(path, **options)
    sentence = str(caught.value)
    assert sentence.startswith(f"dataset='folder:{path}': ") and "\n" not in sentence
    return sentence.partition(": ")[2]


def read(path: Path, size: int = 8, sha256: str | None = None) -> dict[str, Any]:
    found = datasets.pixels(f"folder:{path}", size, NOWHERE, sha256=sha256)
    return dict(found.parts)


def trial(path: Path, **point: Any) -> Trial:
    """A tiny trial on the folder, as a new plan has it."""
    datasets.forget()
    sizes = {"depth": 1, "heads": 1, "dim": 8, "dim_head": 8, "mlp_dim": 8}
    return make_trial(
        resolve(
            {"model": "vit", "dataset": f"folder:{path}", "image_size": 8, "epochs": 1, **sizes, **point}
        ),
        NOWHERE,
    )


def last_event(one: Trial) -> dict[str, Any]:
    return list(run(one, Options(data_dir="nowhere")))[-1]


# Parts and classes


def names(path: Path) -> list[str]:
    """The images of a folder, in the order of its checksum."""
    return [entry.name for entry in found(path).own.entries]


def test_class_folders_at_the_top_give_each_part_images_of_each_class(flat: Path) -> None:
    one = found(flat)
    assert (one.name, one.num_classes) == (f"folder:{flat}", 2)
    assert one.train_size + one.val_size + one.test_size == 12
    assert all(count >= 1 for part in ("train", "val", "test") for count in one.own.counts(part).values())


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"), ("Training", "test"),
     ("train", "val"), ("Train", "Valid"), ("train", "validation"), ("train", "VAL")],
)  # fmt: skip
def test_parts_go_by_the_names_of_their_folders_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / train, cats=4, dogs=4)
    fill(tmp_path / test, cats=1, dogs=2)
    one = found(tmp_path)
    assert (one.classes, one.train_size + one.val_size, one.test_size) == (("cats", "dogs"), 8, 3)
    assert read(tmp_path)["test"][1].tolist() == [0, 1, 1]


def test_a_part_of_its_own_validates_and_nothing_is_taken_from_training(split: Path) -> None:
    before = trial(split)
    fill(split / "Val", cats=2, dogs=1)
    assert trial(split).trial_id != before.trial_id
    data = images.load(f"folder:{split}", 8, "nowhere", "cpu")
    assert [len(part) for part in (data.train, data.val, data.test)] == [8, 3, 3]
    assert data.val.labels.tolist() == [0, 0, 1]
    assert found(split).val_size == 3


def test_labels_follow_the_names_of_the_classes_as_image_folder_has_them(split: Path) -> None:
    fill(split / "train", Ants=3)
    fill(split / "test", Ants=1)
    fill(split / "val", Ants=1, cats=2)
    for part in ("train", "test"):
        theirs = torchvision.datasets.ImageFolder(str(split / part))
        assert list(found(split).classes) == theirs.classes
        assert read(split)[part][1].tolist() == theirs.targets


def test_hidden_files_and_what_systems_leave_are_no_part_of_a_folder(flat: Path, split: Path) -> None:
    for root, above in ((flat, flat), (split, split / "train")):
        before = trial(root).trial_id
        for name in (".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN"):
            save(root / name / "x/0.png")
            save(above / name / "0.png")
            save(above / "cats" / name / "0.png")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._00.png", ".hidden.png", "notes.txt"):
            (root / name).write_bytes(b"not an image")
            (above / "cats" / name).write_bytes(b"not an image")
        assert trial(root).trial_id == before
        assert not found(root).own.listing.loose


def test_images_in_deeper_folders_and_behind_links_belong_to_their_class(flat: Path, tmp_path: Path) -> None:
    fill(tmp_path / "more", young=3)
    (flat / "cats/deep").symlink_to(tmp_path / "more")
    save(flat / "dogs/old/grey/0.PNG")
    assert sum(name.startswith("cats/") for name in names(flat)) == 10
    theirs = torchvision.datasets.ImageFolder(str(flat))
    assert len(theirs) == len(names(flat))


def test_a_link_to_a_folder_above_is_not_followed(flat: Path) -> None:
    before = trial(flat).trial_id
    (flat / "cats/up").symlink_to(flat)
    (flat / "cats/self").symlink_to(flat / "cats")
    (flat / "dogs/circle").symlink_to(flat / "dogs/circle")
    assert trial(flat).trial_id == before


def test_images_in_no_class_folder_are_left_out_as_image_folder_does_and_the_plan_says_so(
    flat: Path, split: Path
) -> None:
    for root in (flat, split):
        before = trial(root).trial_id
        save(root / "cover.png")
        assert trial(root).trial_id == before
        assert any("no class folder: 1 image, cover.png" in line for line in description(found(root), [8]))


def test_the_plan_says_what_is_left_out_by_its_name(flat: Path) -> None:
    before = trial(flat).trial_id
    for name in ("a.gif", "b.GIF", "notes", "Thumbs.db", ".hidden.gif"):
        (flat / "cats" / name).write_bytes(b"GIF89a")
    assert trial(flat).trial_id == before
    said = description(found(flat), [8])[-1]
    assert "images': 3 files (" in said and "2 .gif" in said and "1 without any" in said


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: fill(root, train=5, cats=5), "train beside cats could be parts or classes"),
        (lambda root: fill(root, test=5, control=5), "test beside control could be parts or classes"),
        (lambda root: fill(root / "Train", cats=9, dogs=9), "Train without a part 'test'"),
        (lambda root: fill(root / "test", cats=9, dogs=9), "test without a part 'train'"),
        (lambda root: [fill(root / part, cats=9, dogs=9) for part in ("train", "Train", "test")],
         "Train, train are all the part 'train'"),
        (lambda root: [fill(root / part, cats=9, dogs=9) for part in ("train", "val", "validation")],
         "val, validation are all the part 'val'"),
        (lambda root: [fill(root / part, cats=9, dogs=9) for part in ("train", "test", "extra")],
         "test, train beside extra could be parts or classes"),
        (lambda root: fill(root, train=5, test=5), "train has no class folders; its 5 images lie in none"),
        (lambda root: [save(root / f"{i}.png") for i in range(9)], "its 9 images lie in none"),
        (lambda root: [fill(root / part, cats=9, dogs=9) for part in ("training_set", "test_set")],
         "test_set, training_set could be parts or classes; call them after the parts: test_set test, "),
        (lambda root: [fill(root / part, cats=9, dogs=9) for part in ("seg_train", "Seg Test", "seg_pred")],
         "Seg Test, seg_train could be parts or classes"),
        (lambda root: [fill(root / label, train=9, test=9) for label in ("cats", "dogs")],
         "the parts test, train lie below the classes, as in cats; move them above these"),
        (lambda root: root.mkdir(), "no class folders; it wants one folder of images per class"),
        (lambda root: fill(root, cats=9), "1 class (cats)"),
        (lambda root: fill(root / "pets", cats=9, dogs=9), "did you mean folder:{root}/pets?"),
        (lambda root: (fill(root, cats=9, dogs=9), (root / "birds").mkdir()), ".png, .jpg"),
        (lambda root: (fill(root, a=9, b=9), (root / "c").mkdir(), (root / "c/x.gif").touch()), "in c;"),
    ],
)  # fmt: skip
def test_a_layout_with_two_meanings_or_none_is_refused(
    tmp_path: Path, make: Callable[[Path], object], sentence: str
) -> None:
    make(root := tmp_path / "data")
    assert sentence.format(root=root) in refusal(root)


def test_classes_that_only_sound_like_parts_are_classes(tmp_path: Path) -> None:
    fill(tmp_path, **{"toy train": 5, "test tube": 5, "valley": 5})
    fill(tmp_path / "toy train", old=2)
    assert found(tmp_path).classes == ("test tube", "toy train", "valley")


def test_a_class_that_one_part_lacks_is_named(split: Path) -> None:
    fill(split / "test", birds=1)
    assert "that the training part lacks: birds" in refusal(split)
    fill(split / "train", birds=2, mice=3)
    assert "that the test part lacks: mice" in refusal(split)
    fill(split / "test", mice=1)
    fill(split / "val", Cats=1)
    assert "that the training part lacks: Cats, did you mean 'cats'?" in refusal(split)


def test_classes_that_differ_in_case_alone_are_two_and_the_plan_warns(flat: Path) -> None:
    fill(flat, Cats=5)
    assert found(flat).classes == ("Cats", "cats", "dogs")
    assert any("may be the same: Cats, cats" in line for line in warnings(found(flat)))


@pytest.mark.parametrize("path", ["loop", "nul\0", "\udcff", "~nobody-of-that-name/x"])
def test_what_is_no_path_is_a_sentence(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is not a folder|names no folder"):
        datasets.find(f"folder:{path}")


# Small sets


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ({"cats": 9, "dogs": 2}, None, "a class wants 3 or more that can be read: dogs has 2"),
        ({"cats": 9, "dogs": 1}, None, "dogs has 1"),
        (
            {"cats": 1, "dogs": 1},
            {"cats": 1, "dogs": 1},
            "no image validates, as each class has 1 to train on",
        ),
    ],
)
def test_a_set_too_small_for_its_parts_is_a_sentence(
    tmp_path: Path, train: dict[str, int], test: dict[str, int] | None, sentence: str
) -> None:
    fill(tmp_path / ("train" if test else ""), **train)
    if test:
        fill(tmp_path / "test", **test)
    assert sentence in refusal(tmp_path)


@pytest.mark.slow
def test_the_smallest_sets_that_are_taken_train_in_a_batch_larger_than_they_are(
    tmp_path: Path, flat: Path
) -> None:
    fill(tmp_path / "six/train", cats=3, dogs=3)
    fill(tmp_path / "six/test", cats=1, dogs=1)
    for root in (tmp_path / "six", fill(tmp_path / "three", cats=3, dogs=3), flat):
        event = last_event(trial(root, batch_size=1_000))
        assert event["status"] == "done", event["row"]
        assert 0 <= event["row"]["val_acc"] <= 1


# Pixels


def shown(image: Image.Image, **options: Any) -> np.ndarray:
    """The pixels (h, w, 3) of an image as PNG, or in another format."""
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return np.asarray(pixels.decoded(pixels.opened(buffer.getvalue())))


def noise(mode: str, size: tuple[int, int] = (9, 6)) -> Image.Image:
    bits = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(bits).convert(mode)


@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("RGB", "JPEG"), ("L", "JPEG"),
     ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("L", "PPM"), ("RGB", "PPM"),
     ("LAB", "TIFF"), ("YCbCr", "JPEG")],
)  # fmt: skip
def test_an_image_that_a_viewer_shows_as_it_is_stored_has_the_pixels_of_image_folder(
    tmp_path: Path, mode: str, format: str
) -> None:
    path = tmp_path / f"image.{format.lower()}"
    noise(mode).save(path, format=format)
    theirs = torchvision.datasets.folder.pil_loader(str(path))
    image = pixels.opened(path.read_bytes())
    assert pixels.is_as_stored(image)
    assert np.array_equal(np.asarray(pixels.decoded(image)), np.asarray(theirs))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format: str) -> None:
    values = np.linspace(0, 0xFFFF, 48).astype(np.uint16).reshape(6, 8)
    bits = shown(Image.fromarray(values), format=format)
    assert np.array_equal(bits, np.repeat((values // 256)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_whose_range_nobody_knows_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="neither 8 nor 16 bits"):
        shown(Image.fromarray(np.full((6, 8), 200, dtype=kind)), format="TIFF")


def test_a_pgm_of_sixteen_bits_is_scaled_too() -> None:
    values = np.arange(0, 48_000, 1_000, dtype=np.uint16).reshape(6, 8)
    content = b"P5 8 6 65535\n" + values.astype(">u2").tobytes()
    bits = np.asarray(pixels.decoded(pixels.opened(content)))
    assert np.array_equal(bits[..., 0], values // 256)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photograph_is_turned_upright(orientation: int, format: str) -> None:
    stored = Image.new("RGB", (16, 8), "black")
    stored.paste("white", (0, 0, 8, 4))  # the corner that is at the top left as it is stored
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    bits = shown(stored, format=format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    height, width, _ = bits.shape
    corners = bits[[1, 1, -2, -2], [1, -2, 1, -2], 0] > 128
    row0, column0 = {  # of EXIF 2.3: the visual side of the stored row 0 and column 0
        1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl",
    }[orientation]  # fmt: skip
    assert (width, height) == ((16, 8) if orientation < 5 else (8, 16))
    assert corners.tolist() == [row0 + column0 == corner for corner in ("tl", "tr", "bl", "br")]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_white(mode: str) -> None:
    """A black sign on nothing, which without its transparency would be black all over."""
    image = Image.new(mode, (8, 8), (0, 0) if mode == "LA" else (0, 0, 0, 0))
    image.paste((0, 255) if mode == "LA" else (0, 0, 0, 255), (2, 2, 6, 6))
    bits = shown(image)
    assert (bits[2:6, 2:6] == 0).all() and (bits[0] == 255).all() and (bits[:, 7] == 255).all()


def test_a_transparent_colour_of_a_palette_lies_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 0, 128, 0])
    image.putpixel((1, 1), 1)
    bits = shown(image, transparency=0)
    assert bits[0, 0].tolist() == [255, 255, 255] and bits[1, 1].tolist() == [0, 128, 0]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("PNG", "WEBP", "TIFF"):
        bits = shown(frames[0], format=format, save_all=True, append_images=frames[1:])
        assert (np.abs(bits.astype(int) - [255, 0, 0]) < 3).all()


def test_images_are_resized_on_the_shorter_side_and_cut_to_their_centre(tmp_path: Path) -> None:
    stripes = Image.new("RGB", (30, 10), "red")
    stripes.paste("blue", (10, 0, 20, 10))
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(5):
            stripes.save(tmp_path / label / f"{i}.png")
    bits, _ = read(tmp_path, size=10)["train"]
    assert (bits == np.array([0, 0, 255], dtype=np.uint8).reshape(1, 3, 1, 1)).all()


def test_every_part_has_its_images_and_labels(flat: Path) -> None:
    for part, (shades, labels) in read(flat, size=6).items():
        assert shades.shape == (found(flat).own.size(part), 3, 6, 6)
        assert (shades.dtype, labels.dtype) == (np.uint8, np.int64)
        for image, label in zip(shades, labels, strict=True):
            grey = GREY[("cats", "dogs")[label]]
            assert all((image[channel, 3:, 3:] == grey + channel).all() for channel in range(3))


# The checksum: what is read is what was hashed


def by_formula(root: Path, *, parts: bool, shown: str = "") -> str:
    content = hashlib.sha256()
    for name in names(root):
        *above, label, _ = name.split("/")
        mark = "as shown" if name == shown else ""
        content.update("\0".join((name, above[0] if parts else "", label, mark)).encode() + b"\0")
        content.update(hashlib.sha256((root / name).read_bytes()).digest())
    return content.hexdigest()


def test_the_checksum_is_the_one_that_finished_trials_had(flat: Path, split: Path) -> None:
    """Another one is another id for every trial on a folder."""
    assert names(flat) == [f"{label}/0{i}.png" for label, n in (("cats", 7), ("dogs", 5)) for i in range(n)]
    assert found(flat).checksum(NOWHERE) == by_formula(flat, parts=False)
    test = ["test/cats/00.png", "test/dogs/00.png", "test/dogs/01.png"]
    assert names(split)[8:] == test
    assert found(split).checksum(NOWHERE) == by_formula(split, parts=True)


def test_an_image_that_is_shown_otherwise_than_it_is_stored_marks_the_checksum(flat: Path) -> None:
    Image.new("RGBA", (4, 4)).save(flat / "cats/00.png")
    assert found(flat).checksum(NOWHERE) == by_formula(flat, parts=False, shown="cats/00.png")


def test_names_that_are_no_unicode_have_a_checksum_too(flat: Path) -> None:
    name = os.fsdecode(b"cats/\xff.png")
    save(flat / "cats/x.png")
    os.rename(flat / "cats/x.png", os.fsencode(flat) + b"/cats/\xff.png")
    assert name in names(flat)
    assert read(flat, sha256=found(flat).checksum(NOWHERE))


def changes() -> dict[str, Callable[[Path], object]]:
    def same_size(root: Path) -> None:
        path = root / "cats/03.png"
        before, content = path.stat(), bytearray(path.read_bytes())
        content[-1] ^= 1  # after the last chunk's type: Pillow reads it all the same
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return {
        "added": lambda root: save(root / "cats/99.png", 77),
        "deleted": lambda root: (root / "cats/01.png").unlink(),
        "renamed": lambda root: (root / "cats/01.png").rename(root / "cats/011.png"),
        "moved": lambda root: (root / "cats/01.png").rename(root / "dogs/01a.png"),
        "other pixels": lambda root: save(root / "cats/03.png", 55),
        "of the same size and time": same_size,
        "a class": lambda root: fill(root, birds=6),
    }


@pytest.mark.parametrize("change", changes())
def test_a_changed_folder_is_other_data_for_the_next_plan_and_for_a_worker_a_failure(
    flat: Path, change: str
) -> None:
    sweep = Sweep(model="vit", dataset=f"folder:{flat}", image_size=8, depth=1, dim=8, heads=1, epochs=1)
    ((planned,), _), _ = expand_sweep(sweep, NOWHERE), None
    changes()[change](flat)
    event = last_event(planned)
    assert event["status"] == "failed"
    assert "the images have changed since the plan was made" in event["row"]["error"]
    (again,), _ = expand_sweep(sweep, NOWHERE)
    assert again.trial_id != planned.trial_id and again.data_sha256 != planned.data_sha256
    event = last_event(again)
    assert (event["status"], event["row"]["data_sha256"]) == ("done", again.data_sha256)


def test_a_worker_that_has_read_a_folder_reads_it_anew_for_other_contents(flat: Path) -> None:
    first = trial(flat)
    before = images.load_for(first.config, "nowhere", "cpu", sha256=first.data_sha256)
    assert images.load_for(first.config, "nowhere", "cpu", sha256=first.data_sha256) is before
    fill(flat, cats=12)
    second = trial(flat)
    after = images.load_for(second.config, "nowhere", "cpu", sha256=second.data_sha256)
    assert len(after.train) > len(before.train)
    assert images.load_for(first.config, "nowhere", "cpu", sha256=first.data_sha256) is before


# Images that cannot be read


def png(width: int, height: int) -> bytes:
    """A PNG that claims these sizes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def jpeg(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    noise("RGB", (size, size)).save(buffer, format="JPEG")
    return buffer.getvalue()


def floats() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).rand(8, 8).astype(np.float32)).save(buffer, format="TIFF")
    return buffer.getvalue()


BAD = {
    "empty.png": b"",
    "text.jpg": b"not a picture",
    "header.png": png(8, 8)[:20],
    "torn.jpg": jpeg()[: len(jpeg()) // 2],
    "bomb.png": png(50_000, 50_000),
    "no_pixels.png": png(8, 8),
    "floats.tif": floats(),
    "page.webp": b"<html>404</html>",
}


@pytest.fixture
def damaged(flat: Path) -> Path:
    """A folder with every kind of image that cannot be read."""
    for name, content in BAD.items():
        (flat / "cats" / name).write_bytes(content)
    (flat / "dogs/gone.png").symlink_to(flat / "nothing")
    os.mkfifo(flat / "dogs/pipe.png")
    return flat


def test_every_image_that_cannot_be_read_is_named_at_once(damaged: Path) -> None:
    with pytest.raises(UserError) as caught:
        found(damaged).ensure(NOWHERE)
    sentence = str(caught.value)
    assert "\n" not in sentence and " 0x" not in sentence
    assert "10 of 22 images cannot be read: " in sentence and "--skip-unreadable" in sentence
    for name in (*(f"cats/{name}" for name in BAD), "dogs/gone.png", "dogs/pipe.png"):
        assert f"{name} (" in sentence
    assert "cats/00.png" not in sentence


def test_a_folder_whose_images_can_all_be_read_passes(flat: Path, split: Path) -> None:
    for root in (flat, split):
        found(root).ensure(NOWHERE)


def test_a_sweep_with_an_unreadable_image_is_refused_before_ray_starts(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "opened", lambda *args, **options: pytest.fail("something was started"))
    sweep = Sweep(model="cnn", dataset={"grid_search": ["digits", f"folder:{damaged}"]}, epochs=1)
    with pytest.raises(UserError, match=r"10 of 22 images cannot be read: .*bomb.png"):
        runner.run(sweep, tmp_path / "results")


def test_skipping_is_as_if_the_unreadable_images_were_not_there(damaged: Path) -> None:
    skipping = trial(damaged, unreadable="skip")
    assert (skipping.config["unreadable"], skipping.data_columns) == ("skip", {"images_skipped": 10})
    dataset_of(skipping.config).ensure(NOWHERE)
    event = last_event(skipping)
    assert event["status"] == "done", event["row"]
    assert (event["row"]["unreadable"], event["row"]["images_skipped"]) == ("skip", 10)
    listed = " ".join(description(dataset_of(skipping.config), [8]))
    assert "10 images, " in listed and "cats/bomb.png (" in listed
    for name in dataset_of(skipping.config).own.skipped:
        (damaged / name).unlink()
    clean = trial(damaged)
    assert (clean.trial_id, clean.data_sha256) == (skipping.trial_id, skipping.data_sha256)
    assert (clean.config["unreadable"], clean.data_columns) == (None, {"images_skipped": None})


def test_skipping_where_all_can_be_read_changes_nothing(flat: Path) -> None:
    assert trial(flat, unreadable="skip").trial_id == trial(flat).trial_id


def test_a_class_that_skipping_leaves_too_small_is_a_sentence(split: Path, flat: Path) -> None:
    (split / "test/cats/00.png").write_bytes(b"")
    assert "no image is left in the test part of cats" in refusal(split, skip_unreadable=True)
    for i in range(3):
        (flat / f"dogs/0{i}.png").write_bytes(b"")
    assert "dogs has 2" in refusal(flat, skip_unreadable=True)


def test_other_data_has_no_images_to_skip() -> None:
    assert resolve({"model": "vit", "unreadable": "skip"})["unreadable"] is None
    with pytest.raises(UserError, match="unreadable='ignore' is unknown; use one of skip"):
        resolve({"model": "vit", "unreadable": "ignore"})


# What a plan says


def test_a_plan_names_images_parts_classes_sizes_and_chance(tmp_path: Path) -> None:
    for part, counts in (("Train", {"cats": 60, "dogs": 40}), ("Test", {"cats": 6, "dogs": 2})):
        for label, count in counts.items():
            for i in range(count):
                save(tmp_path / part / label / f"{i:02}.png", len(part), (30 + i % 11, 80), mark=i)
    one = found(tmp_path)
    train, val = (one.own.counts(part) for part in ("train", "val"))
    assert one.trained_size + one.val_size == 100 and 3 <= one.val_size <= 25
    assert description(one, [64, 32, 64]) == [
        f"folder:{tmp_path}: {one.trained_size} images to train on (Train/), {one.val_size} for validation "
        "(10% of Train/, by content), 8 for the test (Test/)",
        "  30 to 40 px on the shorter side, resized and cut to 32x32 and 64x64; chance level 75.0 %",
        f"  2 classes, images in train + val + test: cats {train['cats']} + {val['cats']} + 6, "
        f"dogs {train['dogs']} + {val['dogs']} + 2",
    ]
    assert chance(trial(tmp_path).config) == (max(val.values()) / one.val_size, one.val_size)
    assert warnings(one)[:1] == [
        f"  few images for validation, which selects the epoch: of {one.val_size} each is "
        f"{100 / one.val_size:.1f} points of val_acc"
    ]


def test_a_plan_names_the_classes_of_a_named_set() -> None:
    assert description(datasets.DATASETS["fashion_mnist"], [28])[:2] == [
        "fashion_mnist: 54,000 images to train on, 6,000 for validation, 10,000 for the test",
        "  28x28 px; chance level 10.0 %",
    ]
    assert description(datasets.DATASETS["fashion_mnist"], [28])[2].startswith("  10 classes: T-shirt, ")
    assert description(datasets.DATASETS["cifar100"], [32])[2] == "  100 classes"
    assert warnings(datasets.DATASETS["digits"]) == []


def test_of_many_classes_a_plan_names_the_first(tmp_path: Path) -> None:
    fill(tmp_path, **{f"c{i:02}": 5 for i in range(23)})
    line = description(found(tmp_path), [8])[2]
    assert line.startswith("  23 classes, images in train + val + test: c00 ") and line.endswith("and 3 more")


def test_a_name_that_no_screen_can_show_does_not_break_a_plan(flat: Path) -> None:
    os.rename(os.fsencode(flat) + b"/cats", os.fsencode(flat) + b"/\x1b[31m\xff")
    "\n".join(description(found(flat), [8])).encode()
    assert "\x1b" not in "".join(description(found(flat), [8]))


def test_a_second_plan_that_skips_decodes_nothing(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a content changes, wherever the files lie."""
    data, tried = tmp_path / "data", list[bytes]()
    decoded = pixels.decoded
    monkeypatch.setattr(pixels, "decoded", lambda image: [tried.append(b""), decoded(image)][1])

    def plan(folder: Path = damaged) -> tuple[str, dict[str, str]]:
        tried.clear()
        (found,), _ = expand_sweep(Sweep(model="vit", dataset=f"folder:{folder}", unreadable="skip"), data)
        return found.trial_id, dict(dataset_of(found.config).own.skipped)

    first = plan()
    assert len(first[1]) == 10 and tried
    assert plan() == first and not tried
    moved = damaged.rename(damaged.with_name("moved"))
    assert plan(moved) == first and not tried
    (moved / "dogs/new.png").write_bytes(b"torn")
    assert plan(moved) == (first[0], {**first[1], "dogs/new.png": "it is in no known format"}) and tried
    for damage in (b"", b"[]", b'{"faults": 3}'):
        for kept in (data / "decoded").iterdir():
            kept.write_bytes(damage)
        assert len(plan(moved)[1]) == 11 and tried
