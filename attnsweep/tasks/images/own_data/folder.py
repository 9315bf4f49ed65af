"""A folder of images: the layout of torchvision's ImageFolder.

It has a folder of images per class, at the top or below the parts `train` and `test` (and `val`, where there
is one). A layout that could mean two things is refused.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.core.files import is_ignored
from attnsweep.core.text import counted
from attnsweep.tasks.images.own_data import listing
from attnsweep.tasks.images.own_data.listing import PARTS, Entry, Listing, Reader

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")  # as ImageFolder's
Classes = Mapping[str, Sequence[Path]]  # the images of each class, in the order of their paths


def listed(root: Path) -> Listing:
    """The images of a folder. Raises UserError where the layout is none of the two."""
    try:
        if not root.is_dir():
            raise refusal(root, f"{root} is not a folder; it wants one folder of images per class")
        above = part_folders(root)
        files = {part: by_class(root, folder) for part, folder in (above or {"train": root}).items()}
        lying = (path for folder in {root, *above.values()} for path in folder.iterdir() if is_image(path))
        loose = sorted(path for path in lying if not is_ignored(path.name) and not path.is_dir())
    except OSError as error:
        raise refusal(root, f"{error.filename} cannot be read ({error.strerror})") from error
    images = {
        part: {label: list(filter(is_image, paths)) for label, paths in classes.items()}
        for part, classes in files.items()
    }
    check_folders(root, images, above, loose)
    every = (path for classes in files.values() for paths in classes.values() for path in paths)
    entries, paths = [], []
    for part, classes in images.items():
        for label in sorted(classes):
            for path in classes[label]:
                entries.append(Entry(name_of(root, path), label, part if above else None))
                paths.append(path)
    return Listing(
        f"folder:{root}",
        entries,
        lambda indices: readers([paths[i] for i in indices]),
        named={part: f"{path.name}/" for part, path in above.items()},
        loose=[name_of(root, path) for path in loose],
        others=Counter(path.suffix.lower() for path in every if not is_image(path)),
    )


def name_of(root: Path, path: Path) -> str:
    """An image's path below the folder."""
    return path.relative_to(root).as_posix()


def readers(paths: Iterable[Path]) -> Iterator[Reader]:
    """What reads each of the files."""
    return (lambda path=path: content_of(path) for path in paths)  # type: ignore[misc]


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises OSError, also for a pipe or a link to nothing."""
    if not path.is_file():
        raise OSError("it is not a file")
    return path.read_bytes()


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
        refuse_hidden_parts(root, others)
        return {}
    for part, folders in named.items():
        if len(folders) > 1:
            raise refusal(root, f"{names(folders)} are all the part {part!r}; keep one of them")
    parts = {part: folder for part, (folder,) in named.items()}
    if classes := [folder for folder in others if any(map(is_image, files_below(folder)))]:
        raise refusal(
            root,
            f"{names(parts.values())} beside {names(classes)} could be parts or classes; move the classes "
            "into the parts, or give a class another name",
        )
    if "train" not in parts or len(parts) == 1:
        missing = "test" if "train" in parts else "train"
        alone = f", or name folder:{parts['train']} to have a test drawn from it" if missing == "test" else ""
        raise refusal(
            root, f"{names(parts.values())} without a part {missing!r}; add the folder {missing}{alone}"
        )
    if "test" not in parts:
        parts["test"] = parts.pop("val")
    return {part: parts[part] for part in ("train", "test", "val") if part in parts}


def refuse_hidden_parts(root: Path, classes: Sequence[Path]) -> None:
    """Raises UserError where class folders are rather parts by other names, such as `test_set`, with class
    folders below, or have the parts below them.
    """
    meant = {folder: part for folder in classes if (part := part_in(folder.name)) and subfolders(folder)}
    if len({*meant.values()}) > 1:
        called = ", ".join(f"{folder.name} {part}" for folder, part in meant.items())
        raise refusal(root, f"{names(meant)} could be parts or classes; call them after the parts: {called}")
    below = [{PARTS.get(inner.name.casefold()) for inner in subfolders(folder)} for folder in classes]
    if below and all("train" in parts and len(parts) > 1 and None not in parts for parts in below):
        inside = names(subfolders(classes[0]))
        raise refusal(
            root, f"the parts {inside} lie below the classes, as in {classes[0].name}; move them above these"
        )


def part_in(name: str) -> str | None:
    """The part that one of a name's words means: `test` for `test_set`, `seg_test` and `Testset`."""
    words = (word.removesuffix("set") for word in re.split(r"[\W_\d]+", name.casefold()))
    return next((PARTS[word] for word in words if word in PARTS), None)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are neither hidden nor a system's, by name."""
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name) and path.is_dir())


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES


def by_class(root: Path, part: Path) -> dict[str, list[Path]]:
    """The files of each class folder of a part, however deep, in the order of their paths."""
    above = (identity(root), identity(part))
    return {folder.name: sorted(files_below(folder, above)) for folder in subfolders(part)}


def files_below(folder: Path, above: Collection[tuple[int, int]] = ()) -> Iterator[Path]:
    """Every file below a folder that is not ignored, links followed, but for those to a folder above them."""
    here = identity(folder)
    if here in above:
        return
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if path.is_dir():
            yield from files_below(path, (*above, here))
        else:
            yield path


def identity(folder: Path) -> tuple[int, int]:
    """What identifies a folder on this machine, by whatever links it is reached."""
    info = folder.stat()
    return info.st_dev, info.st_ino


# --- What is refused ---


def check_folders(
    root: Path, found: Mapping[str, Classes], above: Mapping[str, Path], loose: Sequence[Path]
) -> None:
    """Raises UserError where a part has no class folders, a class folder no image, or there is one class."""
    for part, classes in found.items():
        folder = above.get(part, root)
        if not classes:
            there = sum(path.parent == folder for path in loose)
            lie = f"; its {counted(there, 'image')} lie in none" if there else ""
            raise refusal(
                root, f"{folder} has no class folders{lie}; it wants one folder of images per class"
            )
        if empty := [folder / label for label, paths in classes.items() if not paths]:
            named = ", ".join(name_of(root, path) for path in empty)
            raise refusal(root, f"no image ({', '.join(SUFFIXES)}) in {named}; add images, or delete it")
    known = found["train"]
    if len(known) < 2 and not any(classes.keys() - known for classes in found.values()):
        folder = above.get("train", root) / next(iter(known))
        hint = f", or did you mean folder:{folder}?" if subfolders(folder) else ""
        raise refusal(root, f"1 class ({folder.name}) in {folder.parent}; it wants two or more{hint}")


def refusal(root: Path, sentence: str) -> UserError:
    """The error that says which folder it is about."""
    return listing.refusal(f"folder:{root}", sentence)


def names(paths: Iterable[Path]) -> str:
    """The last parts of paths, with commas between them."""
    return ", ".join(path.name for path in paths)
