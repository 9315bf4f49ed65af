"""The rules by which sizes of the stages of a mechanism follow from an image's, and from a sweep's axes."""

import math
from collections.abc import Sequence

SMALL, LARGEST_WINDOW = 16, 8  # pixels; images up to SMALL go through stems that keep their size


def spread(depth: int, stages: int) -> tuple[int, ...]:
    """The blocks of each stage, together `depth`."""
    share = [depth // stages] * stages
    share[-2 if stages > 2 else -1] += depth % stages
    return tuple(share)


def doubling(first: int, stages: int) -> tuple[int, ...]:
    """A width, or a number of heads, that doubles from stage to stage."""
    return tuple(first * 2**stage for stage in range(stages))


def window(side: int) -> int:
    """The side of the largest window, up to 8, that divides a map."""
    return max(size for size in range(1, LARGEST_WINDOW + 1) if side % size == 0)


def part(side: int) -> int:
    """The side of the largest window of which a map, if it is even, has several."""
    return window(side // 2 if side % 2 == 0 else side)


def pyramid(image_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides of four stages, and their maps' sides, on an image padded to a multiple of `pyramid_multiple`.

    The first divides by 4, of small images by 2; the others by 2 as long as that is whole and leaves 4.
    """
    strides = [pyramid_multiple(image_size) // 4]
    sides = [padded(image_size, pyramid_multiple(image_size)) // strides[0]]
    for _ in range(3):
        strides.append(2 if sides[-1] % 2 == 0 and sides[-1] >= 8 else 1)
        sides.append(sides[-1] // strides[-1])
    return tuple(strides), tuple(sides)


def pyramid_multiple(image_size: int) -> int:
    """Four times what the first stage divides by."""
    return 8 if image_size <= SMALL else 16


def widths(first: int, strides: Sequence[int]) -> tuple[int, ...]:
    """The widths of stages: doubled where the map is halved, but not in the first."""
    return tuple(first * math.prod(strides[1 : stage + 1]) for stage in range(len(strides)))


def padded(side: int, multiple: int) -> int:
    """The side of the image after padding to a multiple."""
    return -(-side // multiple) * multiple


def region_window(regions_of: int) -> int:
    """The least window of RegionViT, 2 or more, that divides a map and stays whole while both are halved."""

    def stays_whole(size: int) -> bool:
        local, region = regions_of, regions_of // size
        for _ in range(3):
            local, region = -(-local // 2), -(-region // 2)
            if local % region:
                return False
        return True

    return next(n for n in range(2, regions_of + 1) if regions_of % n == 0 and stays_whole(n))


def finer(patch: int, side: int) -> int:
    """The next smaller patch that divides the image."""
    return max(size for size in range(1, patch) if side % size == 0)


def exact(mlp_dim: int, dim: int) -> float:
    """The expansion factor that a constructor, which multiplies and rounds down, makes `mlp_dim` again."""
    return (mlp_dim + 0.25) / dim
