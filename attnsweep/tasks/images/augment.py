"""Augmentation of training images: drawn for each image of a batch, done for all of them at once, where the
data are.

What is drawn comes from the generator that draws the order of the examples, whose state is part of a
checkpoint. It draws on the CPU, so that the same is drawn on every device: a few numbers per image, and the
noise of what is erased.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Generator, Tensor

from attnsweep.tasks.images import policies

SHIFT = 1 / 8  # of the side, by which an image is shifted at most: 4 of 32 pixels (He et al. 2015)
ERASED, RATIO = (0.02, 0.33), (0.3, 3.3)  # share of the area, and height over width (Zhong et al. 2017)
Pixels = UInt8[Tensor, "b c s s"]
Images = Float[Tensor, "b c s s"]


def augmented(pixels: Pixels, config: Mapping[str, Any], order: Generator) -> Pixels:
    """The images as the axis `augment` has them; the very tensor where it is `none`."""
    kind = config.get("augment") or "none"
    if kind == "none":
        return pixels
    pixels = crop_flip(pixels, order)
    return pixels if kind == "crop_flip" else policies.apply(policies.POLICIES[kind], pixels, order)


def crop_flip(pixels: Pixels, order: Generator) -> Pixels:
    """Each image shifted by up to an eighth of its side, black where it has left; half of them mirrored."""
    b, side = len(pixels), pixels.shape[-1]
    most = max(1, round(side * SHIFT))
    down, right = torch.randint(-most, most + 1, (2, b, 1), generator=order, device="cpu").to(pixels.device)
    flipped = torch.randint(2, (b, 1), generator=order, device="cpu").bool().to(pixels.device)
    return policies.gathered(pixels, places(side, down, right, flipped))


def places(
    side: int, down: Int64[Tensor, "b 1"], right: Int64[Tensor, "b 1"], flipped: Bool[Tensor, "b 1"]
) -> Int64[Tensor, "b s*s"]:
    """Where each pixel of a crop is taken from, by its number in the image; `side * side` outside of it.

    The crop begins `down` rows below and `right` columns right of the image's corner, and is mirrored then.
    """
    line = torch.arange(side, device=down.device)
    rows, columns = line + down, torch.where(flipped, line.flip(0), line) + right
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
    return torch.where(inside, rows[:, :, None] * side + columns[:, None], side * side).flatten(1)


def erased(images: Images, config: Mapping[str, Any], order: Generator) -> Images:
    """The normalised images, where a rectangle of some becomes normal noise, in place (random erasing, Zhong
    et al. 2017, https://arxiv.org/abs/1708.04896, with random values): at the rate of the axis
    `random_erasing`, of 2 to 33 % of the area, 0.3 to 3.3 times as high as wide.
    """
    rate = config.get("random_erasing") or 0.0
    if not rate:
        return images
    b, channels, side, _ = images.shape
    chance, area, ratio, *corner = torch.rand((5, b), generator=order, device="cpu")
    area = side**2 * (ERASED[0] + (ERASED[1] - ERASED[0]) * area)
    ratio = (math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * ratio).exp()
    sizes = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()]).round().clamp(1, max(side - 1, 1))
    sizes *= chance < rate  # of the others nothing
    first = (torch.stack(corner) * (side - sizes + 1)).floor()
    noise = torch.randn(int(sizes.prod(0).sum()) * channels, generator=order, device="cpu")
    first, end = first.to(images.device), (first + sizes).to(images.device)
    return images.masked_scatter_(rectangles(side, first, end), noise.to(images.device))


def rectangles(side: int, first: Float[Tensor, "2 b"], end: Float[Tensor, "2 b"]) -> Bool[Tensor, "b 1 s s"]:
    """Which pixels of an image lie in its rectangle, from the `first` row and column to before the `end`."""
    line = torch.arange(side, device=first.device)
    within = (line >= first[..., None]) & (line < end[..., None])  # 2 b s
    return (within[0, :, :, None] & within[1, :, None, :])[:, None]


# --- Two images in one ---


def mixed(
    images: Images, labels: Int64[Tensor, " b"], config: Mapping[str, Any], order: Generator
) -> tuple[Images, Int64[Tensor, " b"] | Float[Tensor, "b classes"]]:
    """Images with another one of their batch in them, and their labels as shares that sum to 1, by the axes
    `mixup` and `cutmix`; what came in where both are 0.

    mixup (Zhang et al. 2017, https://arxiv.org/abs/1710.09412) blends two images, CutMix (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899) pastes a rectangle of one into the other. Where there are both, each
    image has either with probability 1/2, as in DeiT.
    """
    mixup, cutmix = config.get("mixup") or 0.0, config.get("cutmix") or 0.0
    if not mixup and not cutmix:
        return images, labels
    partner = torch.randperm(len(labels), generator=order, device="cpu").to(labels.device)
    chance, quantile, *centre = torch.rand((4, len(labels)), generator=order, device="cpu")
    cut = chance < (0.5 if mixup else 1.0) if cutmix else torch.zeros_like(chance, dtype=torch.bool)
    share = torch.where(cut, beta(cutmix, quantile), beta(mixup, quantile)).to(images.device)
    cut, middle = cut.to(images.device), torch.stack(centre).to(images.device)
    square = pasted(images.shape[-1], share, middle)
    weight = torch.where(cut[:, None, None, None], square, share[:, None, None, None])
    share = torch.where(cut, square.mean(dim=(1, 2, 3)), share)  # of a square what lies in the image
    known = F.one_hot(labels, config["num_classes"]).float()
    return images[partner].lerp_(images, weight), known[partner].lerp_(known, share[:, None])


def pasted(side: int, share: Float[Tensor, " b"], centre: Float[Tensor, "2 b"]) -> Float[Tensor, "b 1 s s"]:
    """0 in a square of the share 1 - `share` of the image around a point anywhere in it, else 1."""
    half, middle = side * (1 - share).sqrt() / 2, (side * centre).floor()
    return (~rectangles(side, (middle - half).round(), (middle + half).round())).float()


def beta(alpha: float, quantile: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Draws from Beta(`alpha`, `alpha`), by its inverse, from even ones in 0..1; 1 for an alpha of 0."""
    if not alpha:
        return torch.ones_like(quantile)
    if alpha == 1:
        return quantile
    from scipy.special import betaincinv  # here: a tenth of a second of a worker's start

    return torch.from_numpy(betaincinv(alpha, alpha, quantile.double().numpy())).float()
