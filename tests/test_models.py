import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep.core.axes import Config
from attnsweep.space.trials import cost_of
from attnsweep.tasks.driving.planners import PLANNERS
from attnsweep.tasks.images import models
from attnsweep.tasks.images.models.zoo import MECHANISMS
from attnsweep.tasks.images.space import feature_side
from attnsweep.tasks.registry import TASK_OF, build, resolve

MODELS = tuple(name for name in models.MODELS if name not in MECHANISMS)  # those have tests of their own
TRANSFORMERS = ("vit", "deepvit", "hybrid")
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
SMALL = dict(dim=16, depth=2, heads=2, dim_head=8, mlp_dim=24)

# The README of github.com/holestine/attention, experiment three: parameters on MNIST, CIFAR-10, CIFAR-100.
SETTINGS = {
    "small": dict(dim=128, depth=6, heads=4, mlp_dim=256),
    "base": dict(dim=768, depth=12, heads=12, mlp_dim=3072),
    "depth6": dict(dim=768, depth=6, heads=12, mlp_dim=3072),
}
PUBLISHED = {
    ("small", "cnn"): (1_199_882, 1_626_442, 1_638_052),
    ("small", "vit"): (1_614_866, 1_812_106, 1_823_716),
    ("small", "deepvit"): (1_615_010, 1_812_250, 1_823_860),
    ("small", "hybrid"): (1_591_652, 1_727_012, 1_727_012),
    ("base", "cnn"): (1_199_882, 1_626_442, 1_638_052),
    ("base", "vit"): (87_599_250, 88_776_970, 88_846_180),
    ("base", "deepvit"): (87_601_266, 88_778_986, 88_848_196),
    ("base", "hybrid"): (87_275_146, 88_076_106, 88_145_316),
    ("depth6", "cnn"): (1_199_882, 1_626_442, 1_638_052),
    ("depth6", "vit"): (45_085_842, 46_263_562, 46_332_772),
    ("depth6", "deepvit"): (45_086_850, 46_264_570, 46_333_780),
    ("depth6", "hybrid"): (44_761_738, 45_562_698, 45_631_908),
}
HUNDRED_WAY = {("small", "hybrid", "mnist"), ("small", "hybrid", "cifar10")}  # published with such a head
CELLS = [
    (setting, model, dataset, params)
    for (setting, model), row in PUBLISHED.items()
    for dataset, params in zip(("mnist", "cifar10", "cifar100"), row, strict=True)
]


def published(setting: str, model: str, dataset: str) -> Config:
    """The configuration of one published cell."""
    classes = {"num_classes": 100} if (setting, model, dataset) in HUNDRED_WAY else {}
    sizes = {} if model == "cnn" else SETTINGS[setting]
    return resolve({"model": model, "dataset": dataset, "geometry": "published", **sizes, **classes})


def parameters(config: Config) -> int:
    """The parameters of the built model."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


def small(model: str, dataset: str, **point: object) -> Config:
    return resolve({"model": model, "dataset": dataset, **SMALL, **point})


def images_for(config: Config, n: int = 3) -> Tensor:
    shape = (n, config["channels"], config["image_size"], config["image_size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def seeded(config: Config) -> nn.Module:
    torch.manual_seed(0)
    return build(config)


def transformer_of(model: nn.Module) -> nn.Module:
    """The model's vision transformer: itself, or the part behind the convolutions."""
    return model[1] if isinstance(model, nn.Sequential) else model


def test_there_are_36_published_counts() -> None:
    assert len(CELLS) == 36


@pytest.mark.parametrize(("setting", "model", "dataset", "params"), CELLS)
def test_the_closed_form_gives_the_published_parameters_to_the_unit(
    setting: str, model: str, dataset: str, params: int
) -> None:
    assert cost_of(published(setting, model, dataset)).params == params


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "model", "dataset", "params"), CELLS)
def test_the_built_model_has_the_published_parameters_to_the_unit(
    setting: str, model: str, dataset: str, params: int
) -> None:
    assert parameters(published(setting, model, dataset)) == params


@pytest.mark.parametrize(("dataset", "params"), [("mnist", 1_580_042), ("cifar10", 1_715_402)])
def test_a_ten_way_head_on_the_two_hundred_way_cells_saves_90_outputs(dataset: str, params: int) -> None:
    config = published("small", "hybrid", dataset) | {"num_classes": 10}
    assert parameters(config) == cost_of(config).params == params
    assert cost_of(published("small", "hybrid", dataset)).params - params == 90 * 129


@pytest.mark.slow
def test_every_model_that_a_sweep_can_name_can_be_built() -> None:
    built = {*models.MODELS, *PLANNERS, "transformer", "decoder"}
    assert built == TASK_OF.keys()


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_every_data_set_and_trains_all_its_parameters(model: str, dataset: str) -> None:
    config = small(model, dataset)
    built = seeded(config)
    logits = built(images_for(config))
    assert logits.shape == (3, config["num_classes"])
    logits.square().mean().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("model", TRANSFORMERS)
def test_dropout_disturbs_training_and_never_evaluation(model: str, dropout: float) -> None:
    config = small(model, "mnist", dropout=dropout, emb_dropout=0)
    built, images = seeded(config), images_for(config)
    assert torch.equal(built(images), built(images)) == (dropout == 0)
    built.eval()
    assert torch.equal(built(images), built(images))


@pytest.mark.parametrize("model", MODELS)
def test_the_logits_of_an_image_do_not_depend_on_its_batch(model: str) -> None:
    config = small(model, "mnist")
    built, images = seeded(config).eval().double(), images_for(config).double()
    with torch.inference_mode():
        torch.testing.assert_close(built(images)[1:2], built(images[1:2]))


@pytest.mark.parametrize("model", ["vit", "hybrid"])
def test_both_kernels_of_attention_compute_the_same_logits_and_gradients(model: str) -> None:
    config = small(model, "mnist", dropout=0, emb_dropout=0)
    explicit, fused = (seeded({**config, "attention": kernel}).double() for kernel in ("explicit", "fused"))
    grads = []
    for built in (explicit, fused):
        logits = built(images_for(config).double())
        logits.square().mean().backward()
        grads.append([logits.detach(), *(parameter.grad for parameter in built.parameters())])
    assert len(grads[0]) > 20
    torch.testing.assert_close(*grads, rtol=0, atol=1e-10)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **_: calls.append(1) or q)
        fused(images_for(config).double())
    assert len(calls) == config["depth"], "every block attends by the kernel"


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
@pytest.mark.parametrize("model", TRANSFORMERS)
def test_published_geometry_cuts_the_image_into_four_patches(model: str, dataset: str) -> None:
    config = small(model, dataset, geometry="published")
    built, shapes = seeded(config), []
    transformer_of(built).to_patch_embedding.register_forward_hook(
        lambda module, inputs, tokens: shapes.append(tuple(tokens.shape))
    )
    assert built(images_for(config)).shape == (3, 10)
    assert shapes == [(3, 4, SMALL["dim"])]


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
@pytest.mark.parametrize("model", TRANSFORMERS)
def test_published_geometry_never_reads_most_of_its_position_table(model: str, dataset: str) -> None:
    built = seeded(config := small(model, dataset, geometry="published"))
    built(images_for(config)).square().mean().backward()
    positions = transformer_of(built).pos_embedding
    assert positions.grad is not None
    rows = positions.grad.reshape(-1, SMALL["dim"]).abs().sum(dim=1)  # (positions,)
    assert len(rows) == (feature_side(config) ** 2 // config["patch_size"]) ** 2 + 1
    assert (rows[:5] > 0).all(), "four patches and the class token"
    assert (rows[5:] == 0).all()


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_the_two_geometries_differ_in_nothing_but_positions_that_are_never_read(model: str) -> None:
    config = small(model, "mnist", geometry="published")
    long, short = (net.eval().double() for net in (seeded(config), build({**config, "geometry": "image"})))
    weights = long.state_dict()
    name = next(key for key in weights if key.endswith("pos_embedding"))
    weights[name] = weights[name][..., :5, :]
    short.load_state_dict(weights)
    images = images_for(config).double()
    with torch.inference_mode():
        torch.testing.assert_close(long(images), short(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim_head", [8, 16])
def test_one_head_as_wide_as_the_token_has_no_projection(dim_head: int) -> None:
    config = small("vit", "mnist", heads=1, dim=16, dim_head=dim_head)
    names = [name for name, _ in seeded(config).named_parameters()]
    assert any("to_out" in name for name in names) == (dim_head != 16)
    assert parameters(config) == cost_of(config).params
