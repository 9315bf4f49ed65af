import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from attnsweep.tasks.images import augment, policies
from attnsweep.tasks.images import training as images
from attnsweep.tasks.images.policies import OPERATIONS, POLICIES
from attnsweep.tasks.images.training import Data, Split
from attnsweep.tasks.registry import resolve

TORCHVISION = {"randaugment": v2.RandAugment(), "trivialaugment": v2.TrivialAugmentWide()}
EVERYTHING = dict(augment="randaugment", random_erasing=0.5, mixup=0.8, cutmix=1.0, label_smoothing=0.1)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    """Images of bytes, half of them smooth: contrast, histograms and edges of several kinds."""
    chance = generator(seed)
    rough = torch.randint(256, (count, channels, side, side), generator=chance, dtype=torch.uint8)
    coarse = torch.randint(40, 200, (count, channels, 3, 3), generator=chance).float()
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").to(torch.uint8)
    return torch.where(torch.arange(count)[:, None, None, None] % 2 == 0, rough, smooth)


def data(channels: int = 3, side: int = 32) -> Data:
    part, shape = Split(noise(100, channels, side), torch.arange(100) % 10), (1, channels, 1, 1)
    return Data(part, part, part, torch.full(shape, 0.01), torch.full(shape, -1.0))


def batch_of(seed: int = 0, *, channels: int = 3, side: int = 32, **recipe: Any) -> tuple[Tensor, Tensor]:
    config = {"batch_size": 100, "num_classes": 10, **recipe}
    return next(images.batches(data(channels, side), config, epoch=0, order=generator(seed)))


# Crops and flips


def test_flipping_twice_is_the_identity() -> None:
    pixels, still, flip = noise(5), torch.zeros(5, 1, dtype=torch.long), torch.ones(5, 1, dtype=torch.bool)
    mirrored = augment.places(32, still, still, flip)
    once = policies.gathered(pixels, mirrored)
    assert torch.equal(once, pixels.flip(-1))
    assert torch.equal(policies.gathered(once, mirrored), pixels)


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (1, 8)])
def test_crops_and_flips_are_torchvisions_image_by_image(channels: int, side: int) -> None:
    pixels, most = noise(40, channels, side), side // 8
    chance = generator(1)
    down, right = torch.randint(-most, most + 1, (2, 40, 1), generator=chance)
    flipped = torch.randint(2, (40, 1), generator=chance).bool()
    found = policies.gathered(pixels, augment.places(side, down, right, flipped))
    for image, y, x, flip, out in zip(pixels, down[:, 0], right[:, 0], flipped[:, 0], found, strict=True):
        expected = vision.crop(vision.pad(image, [most] * 4), int(y) + most, int(x) + most, side, side)
        assert torch.equal(out, vision.horizontal_flip(expected) if flip else expected)


def test_every_shift_up_to_an_eighth_and_both_sides_occur_as_often() -> None:
    pixels = torch.zeros(2_000, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, 16, 12] = 255
    places = augment.crop_flip(pixels, generator()).flatten(1).argmax(dim=1)
    rows, columns = places // 32, places % 32
    assert sorted(rows.unique().tolist()) == list(range(12, 21))
    assert sorted(columns.unique().tolist()) == [*range(8, 24)]  # 12 and, mirrored, 19; four to each side
    for counts in (rows.bincount()[12:], (columns > 15.5).long().bincount()):
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


# Policies


def test_the_operations_are_those_of_torchvision() -> None:
    for transform in TORCHVISION.values():
        assert set(transform._AUGMENTATION_SPACE) == set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 8)])
@pytest.mark.parametrize("name", POLICIES)
def test_every_operation_at_every_strength_is_torchvisions_image_by_image_to_the_bit(
    name: str, channels: int, side: int
) -> None:
    policy, theirs = POLICIES[name], TORCHVISION[name]
    draws = torch.cartesian_prod(
        torch.arange(len(OPERATIONS)), torch.arange(2), torch.arange(len(policy.bins))
    )
    draws = draws[torch.randperm(len(draws), generator=generator(1))]
    pixels = noise(len(draws), channels, side)
    found = pixels.clone()
    policies.operate(policy, found, *draws.T)
    for image, (operation, sign, bin), out in zip(pixels, draws.tolist(), found, strict=True):
        strengths, signed = theirs._AUGMENTATION_SPACE[OPERATIONS[operation]]
        known = strengths(policies.BINS, side, side)
        strength = 0.0 if known is None else float(known[policy.bins[bin]])
        expected = theirs._apply_image_or_video_transform(
            image, OPERATIONS[operation], -strength if signed and sign else strength,
            interpolation=theirs.interpolation, fill=theirs._fill,
        )  # fmt: skip
        assert torch.equal(out, expected), (OPERATIONS[operation], sign, bin)


@pytest.mark.parametrize("name", POLICIES)
def test_operations_signs_and_strengths_are_drawn_evenly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    monkeypatch.setattr(policies, "operate", lambda policy, pixels, *draws: drawn.append(torch.stack(draws)))
    policies.apply(POLICIES[name], torch.zeros(4_000, 1, 8, 8, dtype=torch.uint8), generator())
    assert len(drawn) == POLICIES[name].operations
    for counts, kinds in zip(drawn[0], (14, 2, len(POLICIES[name].bins)), strict=True):
        assert kinds == 1 or stats.chisquare(counts.bincount(minlength=kinds).numpy()).pvalue > 1e-3


# Erasing


def rectangle(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels that are set. Raises where they are no full rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    assert mask[top : top + height, left : left + width].all()
    return int(top), int(left), int(height), int(width)


def test_what_is_erased_is_a_rectangle_of_noise_in_the_share_of_images_that_was_asked_for() -> None:
    blank = torch.full((3_000, 3, 32, 32), 9.0)
    out = augment.erased(blank.clone(), {"random_erasing": 0.25}, generator())
    erased = (out != 9).all(dim=1).numpy()
    assert np.array_equal(erased, (out != 9).any(dim=1).numpy()), "all channels"
    touched = erased.any((1, 2))
    assert stats.binomtest(int(touched.sum()), 3_000, 0.25).pvalue > 1e-3
    sizes = [rectangle(mask)[2:] for mask in erased[touched]]
    areas, ratios = (np.array(one) for one in zip(*((h * w / 1024, h / w) for h, w in sizes), strict=True))
    assert 0.015 < areas.min() and areas.max() < 0.36 and abs(areas.mean() - 0.175) < 0.01
    assert 0.2 < ratios.min() and ratios.max() < 4.6 and abs(np.log(ratios).mean()) < 0.06
    values = out[(out != 9)]
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02


def test_erasing_is_torchvisions_image_by_image() -> None:
    pixels = torch.randn(50, 3, 32, 32, generator=generator(2))
    out = augment.erased(pixels.clone(), {"random_erasing": 1.0}, generator())
    for image, found in zip(pixels, out, strict=True):
        top, left, height, width = rectangle((image != found).any(dim=0).numpy())
        inside = found[:, top : top + height, left : left + width]
        assert torch.equal(vision.erase(image, top, left, height, width, inside), found)


# Mixing


@pytest.mark.parametrize("recipe", [dict(mixup=0.8), dict(cutmix=1.0), dict(mixup=0.8, cutmix=1.0)])
def test_mixed_labels_are_shares_that_sum_to_1_and_are_those_of_the_pixels(recipe: dict[str, float]) -> None:
    labels = torch.arange(10).repeat(20)
    pixels = torch.nn.functional.one_hot(labels, 10).float()[:, :, None, None].expand(-1, -1, 16, 16)
    mixed, shares = augment.mixed(pixels, labels, {**recipe, "num_classes": 10}, generator())
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(200))
    assert shares.min() >= 0 and (shares > 0).sum(dim=1).max() == 2
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), shares)  # a class is a channel here


def test_cutmix_pastes_a_square_and_mixup_blends_and_either_is_for_half_of_the_images() -> None:
    pixels, labels = noise(2_000, 1, 16).float(), torch.arange(2_000) % 10
    kept = {}
    for name, recipe in (
        ("both", {"mixup": 0.8, "cutmix": 1.0}), ("mixup", {"mixup": 0.8}), ("cutmix", {"cutmix": 1.0}),
    ):  # fmt: skip
        out, _ = augment.mixed(pixels, labels, {**recipe, "num_classes": 10}, generator())
        kept[name] = (out == pixels).flatten(1).float().mean(dim=1)
    assert kept["cutmix"].mean() > 0.5 > 0.1 > kept["mixup"].mean()
    pasted = torch.isclose(kept["both"], kept["cutmix"]).float().mean()
    assert 0.45 < pasted < 0.62  # a few images are whole either way


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 5.0])
def test_shares_are_drawn_from_the_beta_distribution_for_each_image(alpha: float) -> None:
    pixels, labels = torch.zeros(3_000, 1, 2, 2), torch.zeros(3_000, dtype=torch.long)
    labels[::2] = 1  # a partner of another class shows the share
    _, shares = augment.mixed(pixels, labels, {"mixup": alpha, "num_classes": 2}, generator())
    own = shares[torch.arange(3_000), labels]
    assert stats.kstest(own[own < 1].numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert len(own.unique()) > 1_000


# Batches


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28)])
def test_batches_of_one_generator_are_equal_to_the_bit_and_of_another_not(channels: int, side: int) -> None:
    shape = {"channels": channels, "side": side}
    first, again, other = (batch_of(seed, **shape, **EVERYTHING) for seed in (0, 0, 1))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (100, channels, side, side) and first[1].shape == (100, 10)


def test_what_is_drawn_does_not_depend_on_the_global_generator_nor_move_it() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = batch_of(**EVERYTHING)[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(batch_of(**EVERYTHING)[0], first)


def test_each_image_of_a_batch_has_draws_of_its_own() -> None:
    same = data()
    same.train.images[:] = same.train.images[:1]
    config = {"batch_size": 100, "augment": "crop_flip"}
    batch, _ = next(images.batches(same, config, epoch=0, order=generator()))
    assert len(batch.unique(dim=0)) > 50


@pytest.mark.parametrize(
    "recipe", [{}, dict(augment="none", random_erasing=0.0, mixup=0.0, cutmix=0.0), dict(augment=None)]
)
def test_without_augmentation_a_batch_is_the_images_as_they_are(recipe: dict[str, Any]) -> None:
    """Null, too, which is what rows of before the axes have."""
    one = data()
    order = torch.randperm(100, generator=generator())
    batch, labels = batch_of(**recipe)
    assert torch.equal(batch, images.inputs(one, one.train.images[order]))
    assert torch.equal(labels, one.train.labels[order])


def test_the_images_that_judge_and_those_of_the_data_set_stay_as_they_are() -> None:
    one, seen = data(), []

    class Watch(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 10)

    before = one.train.images.clone()
    config = {**resolve({"model": "vit"}), "batch_size": 100, "num_classes": 10, **EVERYTHING}
    list(images.batches(one, config, epoch=0, order=generator()))
    images.judge(Watch(), one, config)
    assert torch.equal(one.train.images, before)
    assert all(torch.equal(batch, images.inputs(one, one.val.images)) for batch in seen)


def test_the_loss_to_mixed_and_smoothed_labels_is_the_cross_entropy_to_them() -> None:
    chance = generator()
    logits = torch.randn(4, 10, generator=chance)
    shares = torch.rand(4, 10, generator=chance)
    shares /= shares.sum(dim=1, keepdim=True)
    smooth = 0.9 * shares + 0.1 / 10
    expected = -(smooth * logits.log_softmax(dim=1)).sum(dim=1).mean()
    found = images.loss(lambda x: x, (logits, shares), {"label_smoothing": 0.1})  # type: ignore[arg-type]
    assert math.isclose(found.item(), expected.item(), rel_tol=1e-6)
