"""What a plan says of a data set of images, and what it warns of."""

from collections import Counter
from collections.abc import Sequence

from attnsweep.core.axes import Config
from attnsweep.core.clean import clean
from attnsweep.core.text import counted
from attnsweep.tasks.images import datasets, space
from attnsweep.tasks.images.datasets import ImageSet
from attnsweep.tasks.images.folders import Folder

MOST_CLASSES = 20  # named in a plan
MOST_LEFT_OUT = 5
FEW = 100  # images that validate: with fewer the accuracy moves in steps of more than a point


def about_data(configs: Sequence[Config]) -> tuple[list[str], list[str]]:
    """The lines of a plan about the data of trials, and its warnings."""
    sizes: dict[ImageSet, list[int]] = {}
    for config in configs:
        sizes.setdefault(space.image_set(config), []).append(config["image_size"])
    lines = [line for dataset, found in sizes.items() for line in description(dataset, found)]
    return lines, [line for dataset in sizes for line in warnings(dataset)]


def chance(config: Config) -> tuple[float, int]:
    """The accuracy that chance gives on a trial's data, and how many images validate."""
    dataset = space.image_set(config)
    return dataset.chance, dataset.val_size


def description(dataset: ImageSet, image_sizes: Sequence[int]) -> list[str]:
    """The lines of a plan about a data set whose trials have these image sizes: its parts, its images, its
    classes by name and the accuracy that chance gives.
    """
    folder, train = dataset.folder, dataset.train_size
    sizes = {"train": train - dataset.val_size, "val": dataset.val_size, "test": dataset.test_size}
    if folder and "val" in folder.parts:
        sizes["train"] = train
    origin = origins(folder) if folder else dict.fromkeys(sizes, "")
    lines = [
        f"{clean(dataset.name)}: {sizes['train']:,} images to train on{origin['train']}, "
        f"{sizes['val']:,} for validation{origin['val']}, {sizes['test']:,} for the test{origin['test']}",
        f"  {pixels(dataset, image_sizes)}; chance level {100 * dataset.chance:.1f} %",
        f"  {classes(dataset)}",
    ]
    return [*lines, *(left_out(folder) if folder else [])]


def origins(folder: Folder) -> dict[str, str]:
    """Where the images of each part come from, in brackets."""
    if not folder.above:
        return {"train": "", "val": "", "test": " (every fifth of a class)"}
    named = {part: f" ({path.name}/)" for part, path in folder.above.items()}
    return {"val": f" (a tenth of {folder.above['train'].name}/)", **named}


def pixels(dataset: ImageSet, image_sizes: Sequence[int]) -> str:
    """The sizes of the images, and to what they are resized."""
    shown = " and ".join(f"{size}x{size}" for size in sorted(set(image_sizes)))
    sides = datasets.survey(dataset.name, dataset.skipped is not None).sides if dataset.folder else None
    if sides is None:
        return f"{shown} px"
    low, high = sides
    between = f"{low}" if low == high else f"{low} to {high}"
    return f"{between} px on the shorter side, resized and cut to {shown}"


def classes(dataset: ImageSet) -> str:
    """The classes by name, those of a folder with the number of their images in each part."""
    names = list(dataset.classes[:MOST_CLASSES])
    more = dataset.num_classes - len(names)
    if not names:
        return f"{dataset.num_classes} classes"
    parts = ""
    if folder := dataset.folder:
        parts = f", images in {' + '.join(folder.parts)}"
        counts = [folder.counts(part) for part in folder.parts]
        names = [f"{clean(name)} {' + '.join(str(count.get(name, 0)) for count in counts)}" for name in names]
    listed = ", ".join(names) + (f" and {more} more" if more else "")
    return f"{dataset.num_classes} classes{parts}: {listed}"


def left_out(folder: Folder) -> list[str]:
    """What lies in a folder and is not in its parts."""
    lines = []
    if folder.skipped:
        named = [f"{clean(folder.name(path))} ({why})" for path, why in folder.skipped.items()]
        lines.append(f"  left out, as they cannot be read: {shortened(named)}")
    if folder.loose:
        named = [clean(folder.name(path)) for path in folder.loose]
        lines.append(f"  left out, as they lie in no class folder: {shortened(named)}")
    return lines


def shortened(names: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    more = ", ..." if len(names) > MOST_LEFT_OUT else ""
    return f"{counted(len(names), 'image')}, {', '.join(names[:MOST_LEFT_OUT])}{more}"


def warnings(dataset: ImageSet) -> list[str]:
    """What makes results on a data set doubtful."""
    found, few = [], dataset.val_size
    if few < FEW:
        found.append(
            f"  few images for validation, which selects the epoch: of {few} each is "
            f"{100 / few:.1f} points of val_acc"
        )
    same = Counter(name.casefold() for name in dataset.classes)
    if twins := [name for name in dataset.classes if same[name.casefold()] > 1]:
        found.append(f"  classes whose names differ in case alone: {', '.join(map(clean, twins))}")
    return found
