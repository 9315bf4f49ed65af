"""A folder of images as a data set: its parts and classes, its checksum, and its pixels.

The layout is that of torchvision's ImageFolder: a folder of images per class, at the top or below the parts
`train` and `test` (and `val`, where there is one). A layout that could mean two things is refused. Pixels are
ImageFolder's too, but for what a viewer would show otherwise: photographs are turned upright, transparent
pixels lie on white, and 16 bits are scaled to 8.
"""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.text import counted

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")  # as ImageFolder's
PARTS = {  # by the names of their folders, in any case
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
SYSTEM = {  # folders that archives, file systems and Python leave, besides names that begin with a dot
    "__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information",
}  # fmt: skip
EVERY = 5  # without a part `test` every fifth image of a class is in it
VALIDATION_SHARE = 0.1  # of the training part, without a part `val`
VALIDATION_SEED = 0  # the same split for every trial, whatever its own seed
ORIENTATION = 0x0112  # EXIF's tag
DEEP = ("I", "F")  # what Pillow's modes of more than 8 bits begin with
MOST_NAMED = 100  # images in one sentence
SAMPLED = 8  # images that stand for a folder's range of pixels
SLOW = 1_000  # images that take long enough to decode for a bar
Classes = Mapping[str, Sequence[Path]]  # the images of each class, in the order of their paths


@dataclass(frozen=True)
class Folder:
    """The images of a folder by part (`train`, `test`, `val` where it has its own) and class.

    `above` are the folders of the parts, empty where class folders lie at the top. `skipped` are unreadable
    images that were left out, with the reason; None where they are in the parts. `loose` are images in no
    class folder, which are left out too.
    """

    root: Path
    parts: Mapping[str, Classes]
    above: Mapping[str, Path] = field(default_factory=dict)
    skipped: Mapping[Path, str] | None = None
    loose: Sequence[Path] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        return tuple(sorted(self.parts["train"]))

    @property
    def paths(self) -> list[Path]:
        """Every image, in the order of the checksum."""
        return [path for _, _, path in self.labelled()]

    def labelled(self) -> Iterator[tuple[str, str, Path]]:
        """The part, the class and the path of every image, in the order of the checksum."""
        for part, classes in self.parts.items():
            for label in sorted(classes):
                for path in classes[label]:
                    yield part, label, path

    def counts(self, part: str) -> dict[str, int]:
        """How many images of each class a part has."""
        return {label: len(paths) for label, paths in self.parts.get(part, {}).items()}

    def size(self, part: str) -> int:
        """How many images a part has."""
        return sum(self.counts(part).values())

    def name(self, path: Path) -> str:
        """An image's path below the folder."""
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Survey:
    """The SHA-256 of a folder's images, and the least and greatest of their shorter sides in pixels (None
    where no image has a size that can be read).
    """

    sha256: str
    sides: tuple[int, int] | None


# --- The layout ---


def scan(root: Path, *, skip_unreadable: bool = False) -> Folder:
    """The images of a folder, without those that cannot be read where these are to be skipped.

    Raises UserError where the layout is none of the two, or a part or a class has too few images.
    """
    try:
        if not root.is_dir():
            raise refusal(root, f"{root} is not a folder; it wants one folder of images per class")
        above = part_folders(root)
        found = {part: by_class(root, folder) for part, folder in (above or {"train": root}).items()}
        loose = sorted(path for folder in {root, *above.values()} for path in images_in(folder))
    except OSError as error:
        raise refusal(root, f"{error.filename} cannot be read ({error.strerror})") from error
    check_classes(root, found, above, loose)
    everything = [path for classes in found.values() for paths in classes.values() for path in paths]
    skipped = unreadable(everything) if skip_unreadable else None
    found = {part: without(classes, skipped or {}) for part, classes in found.items()}
    if not above:
        check_fifths(root, found["train"])
        found = every_fifth(found["train"])
    check_parts(root, found)
    return Folder(root, found, above, skipped, loose)


def part_folders(root: Path) -> dict[str, Path]:
    """The folders of the parts, none where class folders lie at the top.

    Without a part `test`, `val` is it, as in ImageNet. Raises UserError where folders could be either, where
    two are the same part, or where one is missing.
    """
    named: dict[str, list[Path]] = {}
    for folder in subfolders(root):
        named.setdefault(PARTS.get(folder.name.casefold(), ""), []).append(folder)
    others = named.pop("", [])
    if not named:
        return {}
    for part, folders in named.items():
        if len(folders) > 1:
            raise refusal(root, f"{names(folders)} are all the part {part!r}; keep one of them")
    found = {part: folder for part, (folder,) in named.items()}
    if classes := [folder for folder in others if next(images_below(folder), None)]:
        raise refusal(
            root,
            f"{names(found.values())} beside {names(classes)} could be parts or classes; move the classes "
            "into the parts, or give a class another name",
        )
    if "train" not in found or len(found) == 1:
        missing = "test" if "train" in found else "train"
        raise refusal(root, f"{names(found.values())} without a part {missing!r}; add the folder {missing}")
    if "test" not in found:
        found["test"] = found.pop("val")
    return {part: found[part] for part in ("train", "test", "val") if part in found}


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are neither hidden nor a system's, by name."""
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name) and path.is_dir())


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or left by an archive or a file system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES and not is_ignored(path.name)


def images_in(folder: Path) -> list[Path]:
    """The images that lie in a folder itself."""
    return [path for path in folder.iterdir() if is_image(path) and not path.is_dir()]


def by_class(root: Path, part: Path) -> dict[str, list[Path]]:
    """The images of each class folder of a part, however deep, in the order of their paths."""
    above = (identity(root), identity(part))
    return {folder.name: sorted(images_below(folder, above)) for folder in subfolders(part)}


def images_below(folder: Path, above: Collection[tuple[int, int]] = ()) -> Iterator[Path]:
    """Every image below a folder, links followed, but for those to a folder above them."""
    here = identity(folder)
    if here in above:
        return
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if path.is_dir():
            yield from images_below(path, (*above, here))
        elif is_image(path):
            yield path


def identity(folder: Path) -> tuple[int, int]:
    """What identifies a folder on this machine, by whatever links it is reached."""
    info = folder.stat()
    return info.st_dev, info.st_ino


def every_fifth(classes: Mapping[str, list[Path]]) -> dict[str, dict[str, list[Path]]]:
    """Every fifth image of a class for the test, the others to train on."""
    parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    for label, paths in classes.items():
        parts["test"][label] = paths[EVERY - 1 :: EVERY]
        parts["train"][label] = [path for i, path in enumerate(paths) if i % EVERY != EVERY - 1]
    return parts


def without(classes: Classes, skipped: Collection[Path]) -> dict[str, list[Path]]:
    """The classes without some of their images."""
    return {label: [path for path in paths if path not in skipped] for label, paths in classes.items()}


def drawn_for_validation(count: int) -> "tuple[np.ndarray, np.ndarray]":
    """The indices, of `count` training images, of those to train on (ascending) and those that validate."""
    import numpy as np  # here, as a plan of other data has no need of it

    order = np.random.RandomState(VALIDATION_SEED).permutation(count)
    held_out = validation_size(count)
    return np.sort(order[held_out:]), order[:held_out]


def validation_size(count: int) -> int:
    """How many of `count` training images validate."""
    return round(VALIDATION_SHARE * count)


# --- What is refused ---


def check_classes(
    root: Path, found: Mapping[str, Classes], above: Mapping[str, Path], loose: Sequence[Path]
) -> None:
    """Raises UserError where there are fewer than two classes, where a class folder has no image, or where a
    class is missing in the training or the test part.
    """
    for part, classes in found.items():
        folder = above.get(part, root)
        if not classes:
            there = sum(path.parent == folder for path in loose)
            lie = f"; its {counted(there, 'image')} lie in none" if there else ""
            raise refusal(
                root, f"{folder} has no class folders{lie}; it wants one folder of images per class"
            )
        if empty := [folder / label for label, paths in classes.items() if not paths]:
            named = ", ".join(path.relative_to(root).as_posix() for path in empty)
            raise refusal(root, f"no image ({', '.join(SUFFIXES)}) in {named}; add images, or delete it")
    known = found["train"]
    for part in ("test", "val"):
        if strangers := sorted(found.get(part, {}).keys() - known.keys()):
            hint = did_you_mean(strangers[0], known)
            raise refusal(
                root, f"classes of the {part} part that the training part lacks: {', '.join(strangers)}{hint}"
            )
    if missing := sorted(known.keys() - found.get("test", known).keys()):
        raise refusal(
            root, f"classes of the training part that the test part lacks: {', '.join(missing)}; add images"
        )
    if len(known) < 2:
        folder = above.get("train", root) / next(iter(known))
        hint = f", or did you mean folder:{folder}?" if subfolders(folder) else ""
        raise refusal(root, f"1 class ({folder.name}) in {folder.parent}; it wants two or more{hint}")


def check_fifths(root: Path, classes: Classes) -> None:
    """Raises UserError where a class is too small for every fifth image to be in the test part."""
    if small := {label: len(paths) for label, paths in classes.items() if len(paths) < EVERY}:
        sizes = ", ".join(f"{label} has {count}" for label, count in small.items())
        raise refusal(
            root,
            f"every fifth image of a class is for the test, so a class wants {EVERY} or more that can be "
            f"read: {sizes}; add images, or make the folders train and test",
        )


def check_parts(root: Path, parts: Mapping[str, Classes]) -> None:
    """Raises UserError where a class has nothing to train on or no test image, or nothing validates."""
    labels = [label for label, paths in sorted(parts["train"].items()) for _ in paths]
    if "val" not in parts:
        if not validation_size(len(labels)):
            raise refusal(
                root,
                f"{len(labels)} images to train on, of which a tenth is for validation: it wants 6 or more; "
                "add images, or a folder val",
            )
        labels = [labels[i] for i in drawn_for_validation(len(labels))[0]]
    elif not any(parts["val"].values()):
        raise refusal(root, "no image of the part val can be read; add images, or delete its folder")
    for part, left in (("training", labels), ("test", [label for label, p in parts["test"].items() if p])):
        if missing := sorted(parts["train"].keys() - set(left)):
            split = " once a tenth is set aside for validation" if part == "training" else ""
            raise refusal(
                root, f"no image is left in the {part} part{split} of {', '.join(missing)}; add images"
            )


def refusal(root: Path, sentence: str) -> UserError:
    """The error that says which folder it is about."""
    return UserError(f"dataset='folder:{root}': {sentence}")


def names(paths: Iterable[Path]) -> str:
    """The last parts of paths, with commas between them."""
    return ", ".join(path.name for path in paths)


# --- The files ---


def survey(folder: Folder) -> Survey:
    """Reads every file once; one that cannot be read counts as empty here, and `check_readable` names it."""
    digest, sides = hashlib.sha256(), []
    with quiet():
        for path in folder.paths:
            try:
                content = content_of(path)
            except OSError:
                content = b""
            image = header(content)
            add(digest, folder.name(path), content, image)
            sides += [min(image.size)] if image else []
    return Survey(digest.hexdigest(), (min(sides), max(sides)) if sides else None)


def add(digest: Any, name: str, content: bytes, image: "Image.Image | None") -> None:
    """Adds an image to a checksum: its path, its bytes, and whether its pixels are those that are stored."""
    digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape"))
    digest.update(content)
    if image and not is_as_stored(image):
        digest.update(b"\0as shown")


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises OSError, also for a pipe or a link to nothing."""
    if not path.is_file():
        raise OSError("it is not a file")
    return path.read_bytes()


def check_readable(folder: Folder, *, on_image: Callable[[int, int], None] | None = None) -> None:
    """Decodes every image. Raises UserError that names all that cannot be read."""
    if not (faults := unreadable(folder.paths, on_image=on_image)):
        return
    listed = [f"{folder.name(path)} ({why})" for path, why in faults.items()]
    more = f" and {len(listed) - MOST_NAMED:,} more" if len(listed) > MOST_NAMED else ""
    raise refusal(
        folder.root,
        f"{len(faults):,} of {counted(len(folder.paths), 'image')} cannot be read: "
        f"{', '.join(listed[:MOST_NAMED])}{more}; delete or replace them, or leave them out: "
        "--skip-unreadable",
    )


def unreadable(
    paths: Sequence[Path], *, on_image: Callable[[int, int], None] | None = None
) -> dict[Path, str]:
    """The images that cannot be decoded, each with the reason; `on_image` is called with how many are done of
    all.
    """
    found = {}
    with quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python to other threads
        for i, (path, why) in enumerate(zip(paths, pool.map(fault, paths), strict=True), 1):
            if why:
                found[path] = why
            if on_image and len(paths) >= SLOW:
                on_image(i, len(paths))
    return found


def fault(path: Path) -> str | None:
    """Why an image cannot be decoded, None where it can."""
    try:
        decoded(opened(content_of(path)))
    except Exception as error:  # Pillow raises nearly anything on a torn or hostile file
        return why(error)
    return None


def why(error: Exception) -> str:
    """The reason in a few words."""
    text = str(getattr(error, "strerror", None) or error).splitlines()
    return text[0] if text else type(error).__name__


# --- The pixels ---


def read(
    folder: Folder, image_size: int, *, sha256: str | None
) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """Each part as RGB images (n, 3, image_size, image_size) of uint8 and labels (n,) of int64. The shorter
    side of an image is resized to `image_size`, then its centre is cut out.

    Raises UserError where an image cannot be read, or where the bytes that were decoded have another checksum
    than `sha256` (None: any).
    """
    import numpy as np

    digest, number = hashlib.sha256(), {label: i for i, label in enumerate(folder.classes)}
    shape = (3, image_size, image_size)
    images = {part: np.empty((folder.size(part), *shape), dtype=np.uint8) for part in folder.parts}
    labels: dict[str, list[int]] = {part: [] for part in folder.parts}
    with quiet():
        for part, label, path in folder.labelled():
            images[part][len(labels[part])] = pixels_of(folder, path, image_size, digest)
            labels[part].append(number[label])
    if sha256 not in (None, digest.hexdigest()):
        raise refusal(
            folder.root,
            "the images have changed since the plan was made; the same command makes it anew",
        )
    return {part: (images[part], np.array(labels[part], dtype=np.int64)) for part in folder.parts}


def sample(folder: Folder, image_size: int) -> "np.ndarray":
    """Up to `SAMPLED` training images (n, 3, image_size, image_size) from all over the folder, grey where one
    cannot be read.
    """
    import numpy as np

    paths = [path for part, _, path in folder.labelled() if part == "train"]
    chosen = paths[:: -(-len(paths) // SAMPLED)]
    images = np.full((len(chosen), 3, image_size, image_size), 128, dtype=np.uint8)
    with quiet():
        for image, path in zip(images, chosen, strict=True):
            with contextlib.suppress(UserError):  # `check_readable` names them all
                image[:] = pixels_of(folder, path, image_size, hashlib.sha256())
    return images


def pixels_of(folder: Folder, path: Path, side: int, digest: Any) -> "np.ndarray":
    """One image of a folder (3, side, side), whose bytes are added to the checksum.

    Raises UserError where it cannot be read.
    """
    import numpy as np
    from PIL import ImageOps

    try:
        content = content_of(path)
        add(digest, folder.name(path), content, header(content))
        return np.asarray(ImageOps.fit(decoded(opened(content)), (side, side))).transpose(2, 0, 1)
    except Exception as error:  # as in `fault`
        raise refusal(folder.root, f"{folder.name(path)} cannot be read ({why(error)})") from error


def quiet() -> Any:
    """A context without warnings: of a large image Pillow warns before it refuses a larger one."""
    return warnings.catch_warnings(action="ignore")


def header(content: bytes) -> "Image.Image | None":
    """The image in a file's bytes, not decoded; None where there is none."""
    try:
        return opened(content)
    except Exception:  # as in `fault`
        return None


def opened(content: bytes) -> "Image.Image":
    """The image in a file's bytes, not decoded. Raises what Pillow raises."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ValueError("it is empty")
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise ValueError("it is in no known format") from error


def is_as_stored(image: "Image.Image") -> bool:
    """Whether an image is shown as it is stored; asked before it is decoded."""
    turned = orientation(image) != 1
    return not (turned or image.mode.startswith(DEEP) or image.has_transparency_data)


def orientation(image: "Image.Image") -> int:
    """How the camera was held, as EXIF says in front of the pixels: 1 is upright."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode the pixels to look behind them
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as in `fault`
        return 1


def decoded(image: "Image.Image") -> "Image.Image":
    """The first frame of an image in RGB, as a viewer shows it. Raises what Pillow raises."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image) if orientation(image) != 1 else image
    if upright.mode.startswith(DEEP):
        return eight_bits(upright).convert("RGB")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    paper = Image.new("RGBA", upright.size, "white")
    paper.alpha_composite(upright.convert("RGBA"))
    return paper.convert("RGB")


def eight_bits(image: "Image.Image") -> "Image.Image":
    """A grey image of 16 bits with the upper 8 of them; Pillow would cut off all that is above 255.

    Raises ValueError where its pixels are floats, or have more than 16 bits: their range is not known.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("its pixels have neither 8 nor 16 bits; save it with 8")
    return Image.fromarray((values >> 8).astype(np.uint8))
