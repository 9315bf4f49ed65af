"""RandAugment (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719) and TrivialAugment (Müller and Hutter
2021, https://arxiv.org/abs/2103.10158) for a whole batch, of which each image has operations and strengths of
its own. They are torchvision's, to the bit.

An operation that moves pixels is a table of where each comes from, and one that changes each value by itself
a table of 256 values: torchvision makes these tables, once, of an image whose values are their own places.
The others are torchvision's, called once for all images that drew the same operation and strength.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, Int32, Int64, UInt8
from torch import Generator, Tensor

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
VALUES = ("Brightness", "Posterize", "Solarize")
OTHERS = ("Color", "Contrast", "Sharpness", "AutoContrast", "Equalize")
OPERATIONS = (*MOVES, *VALUES, *OTHERS, "Identity")
WITHOUT_SIGN = ("Posterize", "Solarize", "AutoContrast", "Equalize", "Identity")
WITHOUT_STRENGTH = ("AutoContrast", "Equalize", "Identity")
BINS = 31  # of strength
Pixels = UInt8[Tensor, "b c s s"]
Draws = Int64[Tensor, " b"]


@dataclass(frozen=True)
class Policy:
    """How many operations an image has, of which bins of strength, and the greatest strength: of a shear, of
    a shift in pixels or (below 1) in sides, of a rotation in degrees, of a change of colours, and the bits
    that posterising leaves out.
    """

    operations: int
    bins: tuple[int, ...]
    shear: float
    shift: float
    degrees: float
    colour: float
    bits: int

    def strengths(self, operation: str, side: int) -> list[float]:
        """The strength of an operation in each of the policy's bins, on images of that side."""
        shift = self.shift * side if self.shift < 1 else self.shift
        most = dict(zip(MOVES, (self.shear, self.shear, shift, shift, self.degrees), strict=True))
        rising = torch.linspace(0.0, most.get(operation, self.colour), BINS, device="cpu")
        if operation == "Posterize":
            rising = (8 - torch.arange(BINS, device="cpu") / ((BINS - 1) / self.bits)).round()
        if operation == "Solarize":
            rising = torch.linspace(1.0, 0.0, BINS, device="cpu")
        return [float(rising[one]) for one in self.bins]


POLICIES = {  # the papers' spaces as torchvision has them; RandAugment with its defaults
    "randaugment": Policy(2, bins=(9,), shear=0.3, shift=150 / 331, degrees=30.0, colour=0.9, bits=4),
    "trivialaugment": Policy(
        1, bins=tuple(range(BINS)), shear=0.99, shift=32.0, degrees=135.0, colour=0.99, bits=6
    ),
}


def apply(policy: Policy, pixels: Pixels, order: Generator) -> Pixels:
    """The images after a policy's operations, which are drawn for each of them; changes `pixels`."""
    for _ in range(policy.operations):
        operation, sign, bin = (
            torch.randint(count, (len(pixels),), generator=order, device="cpu")
            for count in (len(OPERATIONS), 2, len(policy.bins))
        )
        operate(policy, pixels, operation, sign, bin)
    return pixels


def operate(policy: Policy, pixels: Pixels, operation: Draws, sign: Draws, bin: Draws) -> None:
    """Changes each image by the operation of its number in OPERATIONS, at the strength of one of the policy's
    bins, which is negative where `sign` is 1 and the operation has one. The draws are on the CPU.
    """
    moves, values = tables(policy, pixels.shape[-1], str(pixels.device))
    for names, table, change in ((MOVES, moves, gathered), (VALUES, values, revalued)):
        first = OPERATIONS.index(names[0])
        drew = (operation >= first) & (operation < first + len(names))
        if len(chosen := drew.nonzero()[:, 0]):
            draws = torch.stack([operation[chosen] - first, sign[chosen], bin[chosen], chosen])
            *row, where = draws.to(pixels.device)
            pixels[where] = change(pixels[where], table[tuple(row)])
    for name in OTHERS:
        drew = operation == OPERATIONS.index(name)
        for by, chosen in alike(name, drew, sign, bin):
            where = chosen.to(pixels.device)
            strength = policy.strengths(name, pixels.shape[-1])[by // 2] * (-1 if by % 2 else 1)
            pixels[where] = operations()[name](pixels[where], strength)


def alike(name: str, drew: Tensor, sign: Draws, bin: Draws) -> "Sequence[tuple[int, Int64[Tensor, ' g']]]":
    """The images that drew an operation, in groups of one strength, each with twice the bin and the sign."""
    chosen = drew.nonzero()[:, 0]
    by = torch.zeros_like(chosen) if name in WITHOUT_STRENGTH else 2 * bin[chosen]
    by += 0 if name in WITHOUT_SIGN else sign[chosen]
    return [(int(one), chosen[by == one]) for one in by.unique()]


def gathered(pixels: Pixels, places: Int[Tensor, "b s*s"]) -> Pixels:
    """Each image with its pixels taken from the places of those numbers; s*s is black."""
    b, channels = pixels.shape[:2]
    with_black = torch.cat([pixels.flatten(2), pixels.new_zeros(b, channels, 1)], dim=2)
    return with_black.gather(2, places.long()[:, None].expand(-1, channels, -1)).view_as(pixels)


def revalued(pixels: Pixels, values: UInt8[Tensor, "b 256"]) -> Pixels:
    """Each image with every value replaced by that of its table."""
    return values.gather(1, pixels.flatten(1).long()).view_as(pixels)


# --- By torchvision ---


@functools.lru_cache(maxsize=2)
def tables(
    policy: Policy, side: int, device: str
) -> tuple[Int32[Tensor, "5 2 bins s*s"], UInt8[Tensor, "3 2 bins 256"]]:
    """By operation, sign and bin, for images of that side: where pixels come from, and what values become."""
    numbers = torch.arange(1.0, side * side + 1, device="cpu").view(1, side, side)  # outside of them is 0
    values = torch.arange(256, dtype=torch.uint8, device="cpu").view(1, 1, 256)

    def table(names: Sequence[str], image: Tensor) -> Tensor:
        rows = [
            operations()[name](image, sign * strength).flatten()
            for name in names
            for sign in ((1, 1) if name in WITHOUT_SIGN else (1, -1))
            for strength in policy.strengths(name, side)
        ]
        return torch.stack(rows).view(len(names), 2, len(policy.bins), -1)

    moved = table(MOVES, numbers).int()
    moves = torch.where(moved > 0, moved - 1, side * side)
    return moves.to(device), table(VALUES, values).to(device)


@functools.cache
def operations() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """torchvision's operations on images (..., c, s, s), by strength, as its RandAugment calls them."""
    from torchvision.transforms.v2 import functional as vision  # here: it imports torch's compiler

    def affine(image: Tensor, **how: Any) -> Tensor:
        known = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
        return vision.affine(image, **{**known, **how})

    def degrees(slope: float) -> float:
        return math.degrees(math.atan(slope))

    return {
        "ShearX": lambda image, by: affine(image, shear=[degrees(by), 0.0], center=[0, 0]),
        "ShearY": lambda image, by: affine(image, shear=[0.0, degrees(by)], center=[0, 0]),
        "TranslateX": lambda image, by: affine(image, translate=[int(by), 0]),
        "TranslateY": lambda image, by: affine(image, translate=[0, int(by)]),
        "Rotate": lambda image, by: vision.rotate(image, by),
        "Brightness": lambda image, by: vision.adjust_brightness(image, 1.0 + by),
        "Posterize": lambda image, by: vision.posterize(image, int(by)),
        "Solarize": lambda image, by: vision.solarize(image, 255.0 * by),
        "Color": lambda image, by: vision.adjust_saturation(image, 1.0 + by),
        "Contrast": lambda image, by: vision.adjust_contrast(image, 1.0 + by),
        "Sharpness": lambda image, by: vision.adjust_sharpness(image, 1.0 + by),
        "AutoContrast": lambda image, by: vision.autocontrast(image),
        "Equalize": lambda image, by: vision.equalize(image),
    }
