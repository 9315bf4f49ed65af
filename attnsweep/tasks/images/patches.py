"""Which patches cut an image, which of them a model sees, and which one it takes by default."""

from collections.abc import Sequence

from attnsweep.core.errors import UserError


def divisors(side: int) -> list[int]:
    """The sides of patches that divide an image, ascending."""
    return [size for size in range(1, side + 1) if side % size == 0]


def default(fit: Sequence[int], side: int, *, cuts: int = 4) -> int:
    """The largest of the patches that fit and cut the side into `cuts` or more, else the smallest; neither a
    single pixel, which makes a token of each, nor the whole image.

    Raises UserError where there is no such patch, as where the side is prime.
    """
    several = [size for size in fit if 1 < size < side]
    if not several:
        near = " or ".join(str(n) for n in (side // 4 * 4, side // 4 * 4 + 4) if n not in (0, side))
        raise UserError(
            f"image_size={side} divides into single pixels or not at all, neither of which is a default; "
            f"use image_size={near}, or give patch_size"
        )
    return max((size for size in several if size * cuts <= side), default=min(several))


def is_seen(size: int, channels: int) -> bool:
    """Whether a layer norm over a patch's values leaves anything of them: of a single value it leaves 0."""
    return size * size * channels > 1


def unseen(model: str, size: int, fit: Sequence[int]) -> UserError:
    """The error about a patch of a single value."""
    return UserError(
        f"patch_size={size} leaves a single value per patch, and the layer norm of {model} nothing of it: "
        f"it would not see the image; use {nearest(fit, size)}"
    )


def nearest(fit: Sequence[int], asked: int) -> str:
    """Of the patches that fit the four nearest to the one that was asked for."""
    return ", ".join(map(str, sorted(sorted(fit, key=lambda size: abs(size - asked))[:4])))
