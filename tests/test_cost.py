import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attnsweep.core.axes import Config
from attnsweep.core.cost import Cost
from attnsweep.nn.cost import linear
from attnsweep.space.trials import cost_of
from attnsweep.tasks.counting import count
from attnsweep.tasks.images.space import feature_side
from attnsweep.tasks.registry import build, resolve

MODELS = ("cnn", "vit", "deepvit", "hybrid")


def configuration(model: str, image_size: int, channels: int, patch: int, **point: object) -> Config:
    """The configuration of an image of any size; `patch` counts up the divisors of the feature map's side."""
    config = resolve({"model": model, "dataset": "digits", **point})
    config |= {"image_size": image_size, "channels": channels}
    side = feature_side(config)
    divisors = [size for size in range(1, side + 1) if side % size == 0]
    return config | ({} if model == "cnn" else {"patch_size": divisors[patch % len(divisors)]})


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Any architecture that is built in an instant.

    For DeepViT without contractions over one element: torch's einsum makes element-wise products of them.
    """
    small, model = st.integers(1, 20), draw(st.sampled_from(MODELS))
    least = 2 if model == "deepvit" else 1
    return configuration(
        model,
        image_size=draw(st.integers(6, 40)),
        channels=draw(st.integers(1, 4)),
        patch=draw(small),
        geometry=draw(st.sampled_from(("image", "published"))),
        num_classes=draw(st.integers(10, 30)),
        depth=draw(st.integers(1, 3)),
        heads=draw(st.integers(least, 4)),
        dim=draw(small),
        dim_head=draw(st.integers(least, 20)),
        mlp_dim=draw(small),
    )


def counted(config: Config) -> Cost:
    """What the built model has and does, by torch's own count."""
    with torch.device("meta"):
        model = build(config)
        return count(model, torch.empty(1, config["channels"], *[config["image_size"]] * 2))


@settings(max_examples=100)
@given(configurations())
@example(configuration("vit", 28, 1, 0, heads=1, dim=16, dim_head=16, depth=1))
@example(configuration("hybrid", 28, 1, 0, heads=1, dim=16, dim_head=16, depth=1, geometry="published"))
@example(configuration("hybrid", 6, 1, 0))
@example(configuration("cnn", 6, 1, 0))
@example(configuration("vit", 28, 1, 0, attention="fused"))
def test_the_closed_form_is_what_torch_counts_in_the_built_model(config: Config) -> None:
    assert cost_of(config) == counted(config)


def test_the_closed_form_holds_for_a_deepvit_with_one_head() -> None:
    config = configuration("deepvit", 28, 1, 3, heads=1, dim=16, dim_head=16)
    assert cost_of(config).params == counted(config).params
    assert cost_of(config) == counted(config)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("geometry", ["image", "published"])
@pytest.mark.parametrize("model", MODELS)
def test_the_closed_form_holds_for_the_defaults_on_every_data_set(
    model: str, geometry: str, dataset: str
) -> None:
    point = {"model": model, "dataset": dataset} | ({} if model == "cnn" else {"geometry": geometry})
    assert cost_of(resolve(point)) == counted(resolve(point))


def test_the_published_geometry_costs_parameters_and_no_arithmetic() -> None:
    point = {"model": "vit", "dataset": "mnist", "patch_size": 14}
    image, published = (cost_of(resolve({**point, "geometry": g})) for g in ("image", "published"))
    assert published.macs == image.macs
    assert published.params - image.params == (3_137 - 5) * 128


def test_costs_add_and_multiply() -> None:
    assert Cost(1, 2) + Cost(3, 4) * 2 == Cost(7, 10)


def test_a_bias_costs_parameters_and_no_multiplication() -> None:
    assert linear(3, 5, tokens=7) == Cost(20, 105)
    assert linear(3, 5, tokens=7, bias=False) == Cost(15, 105)
