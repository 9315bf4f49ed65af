"""What cannot see the image is refused, and is no default: a model whose logits are the same whatever it is
shown trains to its end, and its row looks like any other.
"""

from typing import Any

import pytest
import torch
from PIL import Image

from attnsweep.core.errors import UserError
from attnsweep.tasks.images import space
from attnsweep.tasks.images.zoo_sizes import STAGES, TAKES, UNNORMED
from attnsweep.tasks.registry import build, procedure, resolve

SMALL: dict[str, Any] = dict(depth=4, heads=2, dim=32, dim_head=16, mlp_dim=64, dropout=0, emb_dropout=0)
PATCHED = [model for model, axes in space.MODELS.items() if "patch_size" in axes and model != "hybrid"]
SIDES = (5, 6, 9, 12, 33, 37, 40, 64)  # of folders, primes among them

every_model = pytest.mark.parametrize("model", space.MODELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of images, whose side is the sweep's to set."""
    root = tmp_path_factory.mktemp("images")
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(root / label / f"{i}.png")
    return f"folder:{root}"


def sees(point: dict[str, Any]) -> bool:
    """Whether the logits depend on the image, of a model moved off its initial values, some of which hide it.

    In training, where batch norms go by the batch, and with the same dropout for both batches.
    """
    config = resolve({**SMALL, **point})
    torch.manual_seed(0)
    model = build(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        logits = []
        for seed in (1, 2):
            shape = (2, config["channels"], config["image_size"], config["image_size"])
            images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            torch.manual_seed(0)
            logits.append(model(images))
    return bool((logits[0] - logits[1]).abs().max() > 1e-5)


def in_the_published_geometry(point: dict[str, Any]) -> list[dict[str, Any]]:
    takes = "geometry" in space.MODELS[point["model"]]
    return [point, {**point, "geometry": "published"}] if takes else [point]


@pytest.mark.slow
@every_model
def test_every_model_sees_the_images_of_every_named_set_by_default(model: str) -> None:
    for dataset in ("digits", "mnist", "cifar10"):
        for point in in_the_published_geometry({"model": model, "dataset": dataset}):
            assert sees(point), point


@pytest.mark.slow
@every_model
def test_every_model_sees_the_images_of_a_folder_by_default_or_says_which_side_to_take(
    model: str, folder: str
) -> None:
    refused = []
    for side in SIDES:
        point = {"model": model, "dataset": folder, "image_size": side}
        try:
            assert sees(point), point
        except UserError as refusal:
            refused.append(side)
            assert f"image_size={side}" in str(refusal) and "use " in str(refusal)
    primes = {5, 37}
    assert set(refused) <= {*primes, *({9, 33} if model == "nest" else set())}
    assert primes <= set(refused) or model not in PATCHED


@pytest.mark.parametrize("model", PATCHED)
def test_a_single_pixel_is_no_default_patch(model: str, folder: str) -> None:
    for side in range(4, 80):
        try:
            patch = resolve({**SMALL, "model": model, "dataset": folder, "image_size": side})["patch_size"]
        except UserError:
            continue
        assert 1 < patch < side


def test_the_sides_that_are_named_for_a_prime_one_can_be_taken(folder: str) -> None:
    for side in (2, 3, 5, 7, 37, 61):
        with pytest.raises(UserError) as caught:
            resolve({"model": "vit", "dataset": folder, "image_size": side})
        named = str(caught.value).partition("use image_size=")[2].partition(", or give patch_size")[0]
        for other in map(int, named.split(" or ")):
            assert resolve({"model": "vit", "dataset": folder, "image_size": other})["patch_size"] > 1
        assert sees({"model": "vit", "dataset": folder, "image_size": side, "patch_size": side})


@pytest.mark.parametrize("model", PATCHED)
def test_a_patch_of_a_single_value_is_refused_where_a_norm_leaves_nothing_of_it(model: str) -> None:
    """Of a grey image; in colour a pixel has three values."""
    point = {"model": model, "dataset": "digits", "patch_size": 1}
    if model in UNNORMED and model not in ("look_vit", "pit"):
        assert sees(point)
        return
    with pytest.raises(UserError, match=r"patch_size=1 .*; use .*\b[248]"):
        resolve({**SMALL, **point})


@pytest.mark.slow
@pytest.mark.parametrize("model", [*TAKES, "vit", "deepvit", "hybrid"])
def test_the_least_width_that_is_taken_sees_and_one_whose_norms_leave_a_sign_is_refused(model: str) -> None:
    narrow = {"heads": 1, "dim_head": 4, "mlp_dim": 48}
    least = {"dim": 3, **STAGES.get(model, {})}
    for dim in (1, 2):
        with pytest.raises(UserError, match=f"dim={dim} is too small"):
            resolve({**SMALL, **narrow, "model": model, "dim": dim, "dataset": "mnist"})
    for dim in range(least["dim"], 65):
        try:
            resolve({**SMALL, **narrow, "model": model, "dim": dim, "dataset": "mnist"})
        except UserError:
            continue  # no multiple of what the mechanism needs
        assert sees({**narrow, "model": model, "dim": dim, "dataset": "mnist"})
        return
    pytest.fail("no width was taken")


@pytest.mark.parametrize("model", ["transformer", "decoder"])
@pytest.mark.parametrize(("norm", "least"), [("post", 2), ("pre", 2), ("rms", 1)])
def test_what_reads_tokens_reads_them_at_the_least_width_that_is_taken(
    model: str, norm: str, least: int
) -> None:
    point = {"model": model, "norm": norm, "depth": 1, "heads": 1, "dim_head": 2, "mlp_dim": 8}
    if least > 1:
        with pytest.raises(UserError, match=r"dim=1 is too small for norm='\w+', which leaves nothing"):
            resolve({**point, "dim": 1})
    config = resolve({**point, "dim": least})
    torch.manual_seed(0)
    built, example = build(config).eval(), procedure(config["task"]).example(config, 16)
    with torch.no_grad():
        logits = built(*example)
    assert logits.std(0).max() > 1e-3


def test_a_looped_vit_whose_norms_leave_nothing_of_its_queries_is_refused() -> None:
    with pytest.raises(UserError, match="dim_head=1 is too small for looped_vit; use 2 or more"):
        resolve({**SMALL, "model": "looped_vit", "dim_head": 1})
    assert sees({"model": "looped_vit", "dim_head": 2})
