import itertools
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attnsweep.core.axes import Config
from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError
from attnsweep.nn.cost import linear
from attnsweep.space.trials import cost_of
from attnsweep.tasks.counting import count
from attnsweep.tasks.images.cost import CLOSED_FORMS
from attnsweep.tasks.images.space import feature_side
from attnsweep.tasks.registry import build, procedure, resolve

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
        dim=4 * draw(small) if model == "cnn" else draw(st.integers(3, 20)),
        pooling=draw(st.sampled_from((None, "flatten", "mean", "max"))),
        dim_head=draw(st.integers(least, 20)),
        mlp_dim=draw(small),
    )


def counted(config: Config) -> Cost:
    """What the built model has and does, by torch's own count."""
    with torch.device("meta"):
        model = build(config)
        return count(model, torch.empty(1, config["channels"], *[config["image_size"]] * 2))


@pytest.mark.slow
@settings(max_examples=100)
@given(configurations())
@example(configuration("vit", 28, 1, 0, heads=1, dim=16, dim_head=16, depth=1))
@example(configuration("hybrid", 28, 1, 0, heads=1, dim=16, dim_head=16, depth=1, geometry="published"))
@example(configuration("hybrid", 6, 1, 0))
@example(configuration("cnn", 6, 1, 0))
@example(configuration("cnn", 64, 3, 0, dim=4, pooling="max"))
@example(configuration("vit", 28, 1, 0, attention="fused"))
def test_the_closed_form_is_what_torch_counts_in_the_built_model(config: Config) -> None:
    assert cost_of(config) == counted(config)


@pytest.mark.slow
def test_the_closed_form_holds_for_a_deepvit_with_one_head() -> None:
    config = configuration("deepvit", 28, 1, 3, heads=1, dim=16, dim_head=16)
    assert cost_of(config).params == counted(config).params
    assert cost_of(config) == counted(config)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("geometry", [None, "published"])
@pytest.mark.parametrize("model", CLOSED_FORMS)
def test_the_closed_form_holds_for_the_defaults_on_every_data_set(
    model: str, geometry: str | None, dataset: str
) -> None:
    config = resolve({"model": model, "dataset": dataset, "geometry": geometry})
    assert cost_of(config) == counted(config)


def test_the_published_geometry_costs_parameters_and_no_arithmetic() -> None:
    point = {"model": "vit", "dataset": "mnist", "patch_size": 14}
    image, published = (cost_of(resolve({**point, "geometry": g})) for g in ("image", "published"))
    assert published.macs == image.macs
    assert published.params - image.params == (3_137 - 5) * 128


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "point"),
    [(5, {}), (4, {"stages": "id10"}), (5, {"bev_attention": "global"}), (6, {"model": "ego_mlp"})],
)
def test_a_deep_planner_has_the_cost_that_two_shallow_ones_tell(depth: int, point: dict[str, Any]) -> None:
    sizes = {"dataset": "driving:small", "dim": 16, "heads": 2, "mlp_dim": 16}
    config = resolve({"model": "planning", **sizes, **point, "depth": depth})
    with torch.device("meta"):
        assert cost_of(config) == count(build(config), *procedure("driving").example(config, 1))


def test_costs_add_and_multiply() -> None:
    assert Cost(1, 2) + Cost(3, 4) * 2 == Cost(7, 10)


def test_a_bias_costs_parameters_and_no_multiplication() -> None:
    assert linear(3, 5, tokens=7) == Cost(20, 105)
    assert linear(3, 5, tokens=7, bias=False) == Cost(15, 105)


def test_the_cnn_of_the_published_width_is_the_published_one() -> None:
    published = resolve({"model": "cnn", "dataset": "mnist"})
    assert (published["dim"], published["pooling"], cost_of(published).params) == (None, None, 1_199_882)
    stated = resolve({"model": "cnn", "dataset": "mnist", "dim": 128, "pooling": "flatten"})
    assert cost_of(stated) == cost_of(published)
    assert str(build(stated)) == str(build(published))


def test_there_is_a_cnn_under_any_budget_that_has_room_for_its_classes() -> None:
    """Of the images of a folder, 64 pixels wide: the published width alone has 7.4 million parameters."""
    config = resolve({"model": "cnn", "dataset": "mnist"}) | {"image_size": 64, "channels": 3}
    assert cost_of(config).params == 896 + 18_496 + (64 * 30 * 30 * 128 + 128) + 1_290
    for pooling, least in ((None, 7_000), ("mean", 130), ("max", 130)):
        widths = [cost_of(config | {"dim": dim, "pooling": pooling}).params for dim in range(4, 520, 4)]
        assert widths == sorted(widths) and widths[0] < 1.2 * least
        assert all(larger < 5 * smaller for smaller, larger in itertools.pairwise(widths))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_reads_each_channel_of_the_map_at_once(pooling: str) -> None:
    model = build(resolve({"model": "cnn", "dataset": "mnist", "dim": 16, "pooling": pooling})).eval()
    features = model[0](torch.randn(2, 1, 28, 28))  # (b, 8, 12, 12)
    pooled = features.mean(dim=(2, 3)) if pooling == "mean" else features.amax(dim=(2, 3))
    head = model[-4:]
    torch.testing.assert_close(model[2](features).flatten(1), pooled)
    torch.testing.assert_close(model[1:](features), head(pooled))


@pytest.mark.parametrize(("dim", "near"), [(1, "4"), (3, "4"), (6, "4, 8"), (130, "128, 132")])
def test_a_width_that_a_cnn_cannot_share_out_is_refused(dim: int, near: str) -> None:
    with pytest.raises(UserError, match=f"dim={dim} is no multiple of 4, as cnn needs; use {near}$"):
        resolve({"model": "cnn", "dim": dim})
