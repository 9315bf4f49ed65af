"""What a plan says of a data set of images, and what it warns of."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from attnsweep.core.axes import Config
from attnsweep.core.clean import clean
from attnsweep.core.text import counted
from attnsweep.tasks.images import space
from attnsweep.tasks.images.datasets import ImageSet
from attnsweep.tasks.images.own_data.collection import PARTS, Collection
from attnsweep.tasks.images.own_data.split import TEST_SHARE, VALIDATION_SHARE

MOST_CLASSES = 20  # named in a plan
MOST_LEFT_OUT = 5
MISSING = {"nan", "na", "n/a", "null", "none"}  # what programs write where a label is missing
FEW = 100  # images that validate: with fewer the accuracy moves in steps of more than a point


def about_data(configs: Sequence[Config]) -> tuple[list[str], list[str]]:
    """The lines of a plan about the data of trials, and its warnings."""
    sizes: dict[ImageSet, list[int]] = {}
    for config in configs:
        sizes.setdefault(space.image_set(config), []).append(config["image_size"])
    lines = [line for dataset, found in sizes.items() for line in description(dataset, found)]
    return lines, [line for dataset in sizes for line in warnings(dataset)]


def chance(config: Config) -> tuple[float, int]:
    """The accuracy of chance on the validation part of a trial's data, and how many images that has."""
    dataset = space.image_set(config)
    return dataset.chance("val"), dataset.val_size


def description(dataset: ImageSet, image_sizes: Sequence[int]) -> list[str]:
    """The lines of a plan about a data set whose trials have these image sizes: its parts, its images, its
    classes by name and the accuracy that chance gives.
    """
    own = dataset.own
    origin = origins(own) if own else dict.fromkeys(("train", "val", "test"), "")
    train, val, test = (origin[part] for part in PARTS)
    lines = [
        f"{clean(dataset.name)}: {dataset.trained_size:,} images to train on{train}, "
        f"{dataset.val_size:,} for validation{val}, {dataset.test_size:,} for the test{test}",
        f"  {pixels(dataset, image_sizes)}; chance level {100 * dataset.chance('test'):.1f} %",
        f"  {classes(dataset)}",
    ]
    return [*lines, *(left_out(own) if own else [])]


def origins(own: Collection) -> dict[str, str]:
    """Where the images of each part come from, in brackets."""
    named = {part: f" ({clean(name)})" for part, name in own.listing.named.items()}
    rest = clean(own.listing.named.get("train", "the rest"))
    drawn = {
        "train": "",
        "val": f" ({VALIDATION_SHARE:.0%} of {rest}, by content)",
        "test": f" ({TEST_SHARE:.0%} of each class, by content)",
    }
    return drawn | named


def pixels(dataset: ImageSet, image_sizes: Sequence[int]) -> str:
    """The sizes of the images, and to what they are resized."""
    asked = sorted(set(image_sizes))
    shown = " and ".join(f"{size}x{size}" for size in asked)
    if dataset.own is None:
        native = f"{dataset.image_size}x{dataset.image_size} px"
        return native if asked == [dataset.image_size] else f"{native}, resized to {shown}"
    grey = ", grey" if dataset.channels == 1 else ""
    if dataset.own.sides is None:
        return f"{shown} px{grey}"
    low, high = dataset.own.sides
    between = f"{low}" if low == high else f"{low} to {high}"
    return f"{between} px on the shorter side{grey}, resized and cut to {shown}"


def classes(dataset: ImageSet) -> str:
    """The classes by name, those of one's own data with the number of their images in each part."""
    names = list(dataset.classes[:MOST_CLASSES])
    more = dataset.num_classes - len(names)
    if not names:
        return f"{dataset.num_classes} classes"
    parts = ""
    if own := dataset.own:
        parts = f", images in {' + '.join(PARTS)}"
        counts = [own.counts(part) for part in PARTS]
        names = [f"{clean(name)} {' + '.join(str(count[name]) for count in counts)}" for name in names]
    listed = ", ".join(names) + (f" and {more} more" if more else "")
    return f"{dataset.num_classes} classes{parts}: {listed}"


def left_out(own: Collection) -> list[str]:
    """What a source has and what is not in its parts."""
    lines = []
    if own.skipped:
        named = [f"{clean(name)} ({why})" for name, why in own.skipped.items()]
        lines.append(f"  left out, as they cannot be read: {shortened(named)}")
    if own.listing.loose:
        named = [clean(name) for name in own.listing.loose]
        lines.append(f"  left out, as they lie in no class folder: {shortened(named)}")
    if own.listing.others:
        named = [f"{count} {clean(ending) or 'without any'}" for ending, count in own.listing.others.items()]
        total = counted(sum(own.listing.others.values()), "file")
        lines.append(f"  left out, as their names end otherwise than images': {total} ({', '.join(named)})")
    return lines


def shortened(names: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    more = ", ..." if len(names) > MOST_LEFT_OUT else ""
    return f"{counted(len(names), 'image')}, {', '.join(names[:MOST_LEFT_OUT])}{more}"


def warnings(dataset: ImageSet) -> list[str]:
    """What makes results on a data set doubtful."""
    lines, few = [], dataset.val_size
    if few < FEW:
        lines.append(
            f"  few images for validation, which selects the epoch: of {few} each is "
            f"{100 / few:.1f} points of val_acc"
        )
    if leaked := dataset.own.leaked() if dataset.own else []:
        lines.append(f"  of the test and, byte for byte, of another part too: {paired(leaked)}")
    if contradictory := dataset.own.contradictory() if dataset.own else []:
        lines.append(f"  of one class and, byte for byte, of another too: {paired(contradictory)}")
    same = Counter(map(spelt, dataset.classes))
    if twins := [name for name in dataset.classes if same[spelt(name)] > 1]:
        lines.append(f"  classes that may be the same: {', '.join(map(clean, twins))}")
    if dataset.own and (missing := [name for name in dataset.classes if spelt(name) in MISSING]):
        lines.append(f"  classes that may be missing labels: {', '.join(map(clean, missing))}")
    return lines


def paired(names: Sequence[tuple[str, str]]) -> str:
    """How many pairs of images there are, and the first of them."""
    return shortened([f"{clean(one)} = {clean(other)}" for one, other in names])


def spelt(name: str) -> str:
    """A class's name without what may be spelt either way: capitals, accents, zeros around a number."""
    word = unicodedata.normalize("NFKC", name).strip().casefold()
    number = re.fullmatch(r"0*(\d+?)(\.0*)?", word, re.ASCII)
    return number[1] if number else word
