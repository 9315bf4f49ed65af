import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsweep.core.axes import Axis
from attnsweep.core.errors import UserError
from attnsweep.results.schema import TABLES
from attnsweep.tasks.images import space as images
from attnsweep.tasks.images.datasets import DATASETS
from attnsweep.tasks.images.space import BLOCKS, RECIPE, feature_side
from attnsweep.tasks.registry import AXES, COLUMNS, TASKS, resolve
from attnsweep.tasks.sequences import space as sequences

VIT = {"model": "vit"}
MODELS = {model: images.MODELS[model] for model in ("cnn", "vit", "deepvit", "hybrid")}
OF_IMAGES = {"task", "model", "dataset", *images.OF_DATA, *RECIPE, *itertools.chain(*MODELS.values())}
OF_OTHERS = AXES.keys() - OF_IMAGES | {"unreadable", "pooling", "clip_norm", "weights", *images.VARIANTS}
NUMBERS = [axis for axis in AXES.values() if axis.kind is not str and axis.settable]
SETTABLE = [axis for axis in NUMBERS if axis.name not in ("image_size", "num_classes", "patch_size")]


def refusal(**point: object) -> str:
    """The sentence with which a point is refused."""
    with pytest.raises(UserError) as caught:
        resolve({**VIT, **point})
    return str(caught.value)


def divisors(side: int) -> list[int]:
    return [size for size in range(1, side + 1) if side % size == 0]


# Values that are refused


@pytest.mark.parametrize(
    ("key", "value", "use"),
    [
        ("depth", 0, "a whole number from 1 to 1000"),
        ("depth", -3, "a whole number from 1 to 1000"),
        ("depth", 1001, "a whole number from 1 to 1000"),
        ("depth", 2.5, "a whole number from 1 to 1000"),
        ("depth", "6", "a whole number from 1 to 1000"),
        ("depth", True, "a whole number from 1 to 1000"),
        ("depth", math.nan, "a whole number from 1 to 1000"),
        ("heads", 0, "a whole number from 1 to 1024"),
        ("dim", 1 + 1e-9, "a whole number from 1 to 65536"),
        ("epochs", (1, 2), "a whole number from 1 to 1e+06"),
        ("seed", -1, "a whole number from 0 to "),
        ("seed", 2**31, "a whole number from 0 to "),
        ("dropout", -0.1, "a number from 0 to 0.99"),
        ("dropout", 1.0, "a number from 0 to 0.99"),
        ("emb_dropout", "high", "a number from 0 to 0.99"),
        ("lr", 0, "a number above 0 up to 1e+06"),
        ("lr", -1e-4, "a number above 0 up to 1e+06"),
        ("lr", "1e-4", "a number above 0 up to 1e+06"),
        ("lr", False, "a number above 0 up to 1e+06"),
        ("lr", math.nan, "a number above 0 up to 1e+06"),
        ("lr", math.inf, "a number above 0 up to 1e+06"),
        ("lr", -math.inf, "a number above 0 up to 1e+06"),
        ("lr", 1j, "a number above 0 up to 1e+06"),
        ("lr_gamma", 0.0, "a number above 0 up to 1"),
        ("lr_gamma", 1.01, "a number above 0 up to 1"),
        ("weight_decay", -1, "a number from 0 to 1e+06"),
        ("batch_size", 0, "a whole number from 1 to 1e+06"),
        ("num_classes", 1, "a whole number from 2 to 1e+06"),
        ("num_classes", 9, "use 10 or more"),
        ("optimizer", "lion", "use one of adam, adamw, sgd"),
        ("optimizer", 3, "use one of adam, adamw, sgd"),
        ("precision", "fp16", "use one of fp32, bf16"),
        ("geometry", "square", "use one of image, published"),
        ("task", "drivin", "use one of images, sequences, text, driving"),
        ("model", "resnet", "use one of cnn, vit, deepvit, hybrid, "),
        (
            "dataset",
            "imagenet",
            "for images digits, mnist, fashion_mnist, cifar10, cifar100, folder:PATH, csv:PATH, ",
        ),
        (
            "dataset",
            3,
            "for images digits, mnist, fashion_mnist, cifar10, cifar100, folder:PATH, csv:PATH, ",
        ),
        ("image_size", True, "a whole number from 1 to 1024"),
        ("image_size", 2000, "a whole number from 1 to 1024"),
        ("patch_size", 3, "use 2, 4, 8"),
        ("patch_size", 1, "would not see the image; use 2, 4, 8"),
        ("dim", 2, "is too small for vit; use 3 or more"),
        ("patch_size", 0, "a whole number from 1 to 1024"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_itself_and_what_to_use(
    key: str, value: object, use: str
) -> None:
    sentence = refusal(**{key: value})
    assert sentence.startswith(f"{key}={value!r} ")
    assert use in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("value", [math.inf, -math.inf, 10**400], ids=["inf", "-inf", "10**400"])
def test_a_number_without_bounds_is_refused_like_any_other(value: float) -> None:
    assert "a whole number from 1 to 1000" in refusal(depth=value)


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_a_list_inside_a_grid_is_refused_like_any_other(key: str) -> None:
    assert "['vit']" in refusal(**{key: ["vit"]})


def test_a_point_without_a_model_is_refused() -> None:
    with pytest.raises(UserError, match="no model; add model= one of cnn, vit, deepvit, hybrid"):
        resolve({"depth": 6})


@pytest.mark.parametrize(
    ("key", "typo", "meant"),
    [
        ("model", "deepvitt", "deepvit"),
        ("model", "hybird", "hybrid"),
        ("optimizer", "adamm", "adam"),
        ("geometry", "publishd", "published"),
        ("task", "image", "images"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_one_that_was_meant(key: str, typo: str, meant: str) -> None:
    assert f"did you mean {meant!r}?" in refusal(**{key: typo})


def test_a_word_that_resembles_none_gets_no_hint() -> None:
    assert "did you mean" not in refusal(optimizer="xyz")


@pytest.mark.parametrize("axis", SETTABLE, ids=lambda axis: axis.name)
def test_every_number_is_allowed_up_to_its_bounds_and_not_beyond(axis: Axis) -> None:
    step = 1 if axis.kind is int else 1e-9
    lowest = axis.low + step if axis.open_low else axis.low
    assert axis.check(lowest) == lowest and axis.check(axis.high) == axis.high
    for beyond in (lowest - step, axis.high + step):
        with pytest.raises(UserError, match=re.escape(f"{axis.name}={beyond!r}")):
            axis.check(beyond)


# Values that are taken


@pytest.mark.parametrize(
    "value", [3, 3.0, np.int64(3), np.int8(3), np.float64(3), np.float32(3), np.array(3)]
)
def test_a_whole_number_of_any_kind_becomes_an_int(value: object) -> None:
    depth = resolve({**VIT, "depth": value})["depth"]
    assert (type(depth), depth) == (int, 3)


@pytest.mark.parametrize("value", [1, 1.0, np.int64(1), np.float64(1), np.float32(1)])
def test_a_number_of_any_kind_becomes_a_float(value: object) -> None:
    lr = resolve({**VIT, "lr": value})["lr"]
    assert (type(lr), lr) == (float, 1.0)


@pytest.mark.parametrize("value", [np.bool_(True), np.float64("nan"), np.str_("3")])
def test_numpy_values_that_are_no_numbers_are_refused(value: object) -> None:
    assert "is not a whole number" in refusal(depth=value)


def test_words_of_numpy_become_words() -> None:
    config = resolve({"model": np.str_("vit"), "dataset": np.str_("mnist"), "optimizer": np.str_("sgd")})
    assert [(type(config[key]), config[key]) for key in ("model", "dataset", "optimizer")] == [
        (str, "vit"),
        (str, "mnist"),
        (str, "sgd"),
    ]


def test_more_classes_than_the_data_set_has_are_allowed() -> None:
    assert resolve({**VIT, "dataset": "mnist", "num_classes": 100})["num_classes"] == 100
    assert "num_classes=99 is too few for cifar100; use 100 or more" == refusal(
        dataset="cifar100", num_classes=99
    )


def test_the_image_size_of_a_data_set_may_be_stated() -> None:
    assert resolve({**VIT, "dataset": "mnist", "image_size": 28})["image_size"] == 28


def test_no_two_tasks_share_a_model_or_a_column() -> None:
    models = [model for task in TASKS.values() for model in task.models]
    columns = [column.name for column in TABLES["trials"]]
    columns += [column.name for column in COLUMNS if column.table != "trials"]
    for names in (models, columns):
        assert sorted(names) == sorted({*names})


# Defaults and columns


def test_the_defaults_are_the_published_recipe() -> None:
    config = resolve({**VIT, "dataset": "mnist"})
    assert config == {
        "task": "images", "model": "vit", "dataset": "mnist", "geometry": "image", "image_size": 28,
        "channels": 1, "num_classes": 10, "depth": 6, "heads": 4, "dim": 128, "dim_head": 64, "mlp_dim": 256,
        "patch_size": 7, "dropout": 0.1, "emb_dropout": 0.1, "optimizer": "adam", "lr": 1e-4, "lr_gamma": 0.7,
        "weight_decay": 0.0, "batch_size": 64, "epochs": 15, "precision": "fp32", "seed": 0,
        "attention": "explicit", "recipe": "published", "augment": "none", "random_erasing": 0.0,
        "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0, "schedule": "step", "warmup_epochs": 0.0,
        "ema": 0.0, "drop_path": 0.0, "freeze": "none", "backbone_lr": 1.0, "normalise": "data",
        **dict.fromkeys(OF_OTHERS),
    }  # fmt: skip


@pytest.mark.parametrize("key", [*BLOCKS, *RECIPE, "image_size", "num_classes"])
def test_none_means_the_default(key: str) -> None:
    assert resolve({**VIT, key: None}) == resolve(VIT)


@pytest.mark.parametrize("model", MODELS)
def test_every_default_is_a_value_that_is_allowed(model: str) -> None:
    for key, value in resolve({"model": model}).items():
        if value is not None and key not in ("task", "model", "dataset"):
            assert AXES[key].check(value) == value


@pytest.mark.parametrize("model", MODELS)
def test_every_column_is_there_and_null_exactly_where_a_model_has_no_such_thing(model: str) -> None:
    config = resolve({"model": model})
    assert list(config) == list(AXES)
    missing = {*BLOCKS, "attention"} - ({*MODELS[model]} - ({"dim"} if model == "cnn" else set()))
    assert {key for key, value in config.items() if value is None} == missing | OF_OTHERS


def test_the_cnn_takes_no_notice_of_what_only_transformers_have() -> None:
    assert resolve({"model": "cnn", "depth": 12, "heads": 3, "patch_size": 5}) == resolve({"model": "cnn"})


def test_the_architecture_is_what_neither_data_nor_recipe_nor_dropout_are() -> None:
    recipes = {*RECIPE, *sequences.RECIPE} - {"beam"}  # more beams take longer
    others = {axis.name for axis in AXES.values() if not axis.architecture}
    of_data = {"dataset", "weights_sha256"}
    assert others == {*of_data, "dropout", "emb_dropout", "drop_path", "grad_stop", *recipes}


@st.composite
def valid_points(draw: st.DrawFn) -> dict[str, object]:
    """Any point whose numbers are in range; the patch is left to be derived."""
    point: dict[str, object] = {
        "model": draw(st.sampled_from(sorted(MODELS))),
        "dataset": draw(st.sampled_from(sorted(DATASETS))),
        "geometry": draw(st.sampled_from(("image", "published"))),
    }
    for axis in SETTABLE:
        if axis.name != "kv_heads" and draw(st.booleans()):  # which must divide heads
            low, high = axis.low, axis.high
            whole, number = st.integers(int(low), int(high)), st.floats(low, high, exclude_min=axis.open_low)
            point[axis.name] = draw(whole if axis.kind is int else number)
    if "dim" in point:  # a CNN shares it out in quarters, a transformer norms it
        point["dim"] = max(4, int(str(point["dim"])) // 4 * 4)
    if "warmup_epochs" in point:  # it is part of the training
        point["warmup_epochs"] = min(float(str(point["warmup_epochs"])), float(str(point.get("epochs", 15))))
    if "drop_path" not in MODELS[str(point["model"])]:
        point.pop("drop_path", None)
    return point


@pytest.mark.slow
@given(valid_points())
def test_what_was_asked_for_is_what_the_configuration_says(point: dict[str, object]) -> None:
    config = resolve(point)
    kept = {"model", "dataset", *RECIPE, *MODELS[str(point["model"])]}
    assert {key: config[key] for key in point.keys() & kept} == {
        key: point[key] for key in point.keys() & kept
    }
    assert all(type(value) is AXES[key].kind for key, value in config.items() if value is not None)


@pytest.mark.slow
@given(valid_points())
def test_resolving_a_configuration_changes_nothing(point: dict[str, object]) -> None:
    assert resolve(resolve(point)) == resolve(point)


# Patches


@pytest.mark.parametrize(
    ("model", "dataset", "image", "published"),
    [
        ("vit", "digits", 2, 4),
        ("vit", "mnist", 7, 14),
        ("deepvit", "cifar10", 8, 16),
        ("hybrid", "digits", 1, 1),
        ("hybrid", "mnist", 3, 6),
        ("hybrid", "cifar10", 2, 7),
    ],
)
def test_the_patch_is_derived_from_the_side_that_is_cut(
    model: str, dataset: str, image: int, published: int
) -> None:
    point = {"model": model, "dataset": dataset}
    assert resolve({**point, "geometry": "image"})["patch_size"] == image
    assert resolve({**point, "geometry": "published"})["patch_size"] == published


@pytest.mark.parametrize(("geometry", "cuts"), [("image", 4), ("published", 2)])
def test_a_derived_patch_is_the_largest_that_cuts_often_enough(geometry: str, cuts: int) -> None:
    for dataset in DATASETS:
        for model in ("vit", "deepvit", "hybrid"):
            config = resolve({"model": model, "dataset": dataset, "geometry": geometry})
            side = feature_side(config)
            fitting = [size for size in divisors(side) if Fraction(side, size) >= cuts]
            assert config["patch_size"] == max(fitting, default=1)
            assert config["patch_size"] > 1 or model == "hybrid"


@given(st.sampled_from(("vit", "deepvit", "hybrid")), st.sampled_from(sorted(DATASETS)), st.integers(1, 60))
def test_a_patch_is_taken_if_it_divides_and_else_answered_with_the_nearest_that_do(
    model: str, dataset: str, asked: int
) -> None:
    point = {"model": model, "dataset": dataset}
    side = feature_side(resolve(point))
    blind = model != "hybrid" and resolve(point)["channels"] == 1
    fit = [size for size in divisors(side) if size > 1 or not blind]
    if asked in fit:
        assert resolve({**point, "patch_size": asked})["patch_size"] == asked
        return
    sentence = refusal(**point, patch_size=asked)
    assert f"{side} pixels wide" in sentence or (asked == 1 and "would not see the image" in sentence)
    named = [int(word) for word in sentence.rpartition("use ")[2].split(", ")]
    assert named == sorted(named) and set(named) <= set(fit)
    assert len(named) == min(4, len(fit))
    farthest = max(abs(size - asked) for size in named)
    assert all(abs(size - asked) >= farthest for size in set(fit) - set(named))


def test_a_refused_patch_says_what_it_should_have_divided() -> None:
    assert refusal(patch_size=3, dataset="mnist") == (
        "patch_size=3 does not divide the image of vit on mnist, 28 pixels wide; use 2, 4, 7, 14"
    )
    assert refusal(patch_size=5, dataset="cifar10", model="hybrid") == (
        "patch_size=5 does not divide the feature map of hybrid on cifar10, 14 pixels wide; use 1, 2, 7, 14"
    )


@pytest.mark.parametrize(
    ("dataset", "image", "behind"), [("digits", 8, 2), ("mnist", 28, 12), ("cifar10", 32, 14)]
)
def test_the_feature_side_is_the_image_or_what_two_convolutions_and_a_pooling_leave_of_it(
    dataset: str, image: int, behind: int
) -> None:
    sides = {model: feature_side(resolve({"model": model, "dataset": dataset})) for model in MODELS}
    assert sides == {"cnn": behind, "vit": image, "deepvit": image, "hybrid": behind}
