import contextlib
import copy
import functools
import importlib.util
import math
import pkgutil
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.measuring.device import precision_of
from attnsweep.space.files import read_sweep
from attnsweep.space.trials import cost_of, expand
from attnsweep.tasks.counting import count
from attnsweep.tasks.images.models.zoo import MECHANISMS, parts, rules
from attnsweep.tasks.images.models.zoo.arguments import flat
from attnsweep.tasks.images.space import patch_size
from attnsweep.tasks.images.zoo_sizes import (
    LEAST,
    MULTIPLES,
    NOT_CARRIED,
    TAKES,
    check,
    default_patch,
    patches,
)
from attnsweep.tasks.registry import resolve
from attnsweep.training import kernels

pytestmark = pytest.mark.slow

INPUTS = {"mnist": (28, 1), "cifar10": (32, 3), "digits": (8, 1)}
SMALL: dict[str, Any] = dict(
    depth=4, heads=2, dim=32, dim_head=8, mlp_dim=96, dropout=0.0, emb_dropout=0.0, drop_path=0.0
)
OTHER: dict[str, Any] = dict(
    depth=5, heads=4, dim=48, dim_head=16, mlp_dim=192, patch_size=14, dropout=0.5, emb_dropout=0.5,
    drop_path=0.9,
)  # fmt: skip
AXES = (*SMALL, "patch_size")
ONLY_FLOAT32 = ("crossformer", "normalized_vit")
ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-10}  # of a gradient, by the largest of the model

# Parameters that are counted though no logit depends on them, at some size or at all, by their names in
# the mechanism. Nearly all are biases that a batch norm or a softmax cancels; they stay, as published.
# What nothing reads is left out by the builders.
UNTRAINED = {
    "cct": r"classifier\.attention_pool\.bias",
    "crossformer": r".*\.dpb\.[79]\.bias",
    "levit": r".*\.(to_k\.1|to_out\.1|net\.3)\.bias",
    "max_vit": r".*(conv_stem\.1|\.0(\.fn)?\.[037]|\.net\.4)\.bias",
    "max_vit_with_registers": r".*(conv_stem\.1|\.0(\.fn)?\.[037]|\.1\.4)\.bias",
    "mobile_vit": r".*(\.conv\.7|\.net\.4)\.bias",
    "nest": r"layers\.1\.0\.pos_emb",  # one number per place, which the norm over channels cancels
    "regionvit": r".*\.local_rel_pos_bias\.weight",  # of windows of one place; of the last block
    "xcit": r".*\.net\.2\.bias",
}
every_mechanism = pytest.mark.parametrize("model", MECHANISMS)
every_input = pytest.mark.parametrize("dataset", INPUTS)


def configured(model: str, dataset: str = "mnist", **point: Any) -> dict[str, Any]:
    """A configuration with the keys that the mechanism takes and no others: reading one raises KeyError."""
    side, channels = INPUTS[dataset]
    config = {"model": model, "image_size": side, "channels": channels, "num_classes": 10, **SMALL, **point}
    config.setdefault("patch_size", default_patch(config))
    return {key: value for key, value in config.items() if key not in AXES or key in TAKES[model]}


def seeded(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return MECHANISMS[config["model"]](config)


def images_for(config: dict[str, Any], n: int = 3) -> Tensor:
    shape = (n, config["channels"], config["image_size"], config["image_size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@functools.cache
def built(model: str, dataset: str) -> tuple[nn.Module, Tensor]:
    """A mechanism moved off its initial values, some of which hide gradients, and images for it; in float64,
    where no two tokens are as significant but for rounding.
    """
    check(config := configured(model, dataset))
    net, images = seeded(config), images_for(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return (net, images) if model in ONLY_FLOAT32 else (net.double(), images.double())


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


# Every mechanism


def test_every_mechanism_says_what_it_takes() -> None:
    assert MECHANISMS.keys() == TAKES.keys()
    assert all(set(takes) <= set(AXES) for takes in TAKES.values())


def test_every_module_of_vit_pytorch_is_carried_or_has_a_reason_why_not() -> None:
    """Fails with its name where a new release has one more: carry it, or say why not."""
    folder = importlib.util.find_spec("vit_pytorch").submodule_search_locations  # type: ignore[union-attr]
    carried = {*TAKES, "vit", "deepvit"}
    installed = {module.name for module in pkgutil.iter_modules(folder)}
    assert installed - carried - NOT_CARRIED.keys() == set()
    assert carried <= installed and not carried & NOT_CARRIED.keys()
    assert all(NOT_CARRIED.values())


def idle(model: str, dataset: str) -> set[str]:
    """The parameters whose gradient is nothing but rounding after a step, or none at all."""
    net, images = built(model, dataset)
    net.train().zero_grad()
    logits = net(images)
    assert logits.shape == (3, 10)
    loss = F.cross_entropy(logits, torch.arange(3))
    assert loss.isfinite()
    loss.backward()
    sizes = {
        name: p.grad.abs().max().item() if p.grad is not None else 0.0
        for name, p in net.named_parameters()
        if p.numel()
    }
    assert all(map(math.isfinite, sizes.values()))
    least = ROUNDING[images.dtype] * max(sizes.values())
    return {name for name, size in sizes.items() if size <= least}


@every_mechanism
def test_the_loss_is_finite_and_every_parameter_learns_but_those_that_are_named(model: str) -> None:
    untrained = set().union(*(idle(model, dataset) for dataset in INPUTS))
    assert all(re.fullmatch(UNTRAINED.get(model, "-"), name) for name in untrained), untrained
    assert bool(untrained) == (model in UNTRAINED)


@every_mechanism
def test_the_faster_layers_give_every_mechanism_its_gradients(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "mkl_falls_behind", torch.backends.mkldnn.is_available)
    monkeypatch.setattr(kernels, "LEAST_WORK", 0)
    net, images = (one.float() for one in copy.deepcopy(built(model, "mnist")))
    images = images.to(memory_format=torch.channels_last)
    found = []
    for layers in (contextlib.nullcontext, kernels.faster_layers):
        torch.manual_seed(0)  # some draw patches
        net.train().zero_grad()
        with layers():
            F.cross_entropy(net(images), torch.arange(3)).backward()
        found.append([parameter.grad for parameter in net.parameters() if parameter.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


@every_mechanism
@pytest.mark.filterwarnings("error")
def test_every_mechanism_learns_in_bf16(model: str) -> None:
    net, images = (one.float() for one in copy.deepcopy(built(model, "mnist")))
    net.train().zero_grad()
    with precision_of("cpu", "bf16"):
        loss = F.cross_entropy(net(images).float(), torch.arange(3))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@every_input
@every_mechanism
def test_evaluation_is_deterministic_and_sees_each_image_alone(model: str, dataset: str) -> None:
    net, images = built(model, dataset)
    net.eval()
    with torch.inference_mode():
        logits = net(images)
        assert torch.equal(logits, net(images))
        close = 1e-4 if model in ONLY_FLOAT32 else 1e-9
        torch.testing.assert_close(logits[1:2], net(images[1:2]), rtol=close, atol=close)


@every_mechanism
def test_cost_is_counted_without_computing(model: str) -> None:
    net, images = built(model, "mnist")
    counted = count(net, images)
    assert counted.params == parameters(net)
    weights = {id(p): p.numel() for m in net.modules() if isinstance(m, nn.Linear) for p in [m.weight]}
    assert counted.macs > sum(weights.values()) / 2


@functools.cache
def at_usual_sizes(model: str) -> tuple[int, Tensor]:
    """The parameters of a freshly initialised mechanism, and its logits for some images."""
    net = seeded(config := configured(model))
    return parameters(net), net(images_for(config)).detach()


@pytest.mark.parametrize(("model", "axis"), [(model, axis) for model in TAKES for axis in TAKES[model]])
def test_every_axis_that_a_mechanism_takes_changes_it(model: str, axis: str) -> None:
    check(other := configured(model, **{axis: OTHER[axis]}))
    size, logits = at_usual_sizes(model)
    if axis in ("depth", "dim", "mlp_dim"):
        assert size < parameters(built_on_meta(other))
    elif axis == "dim_head":  # of the same width, fewer heads
        assert size != parameters(built_on_meta(other))
    else:
        assert not torch.equal(logits, seeded(other)(images_for(other)))


def built_on_meta(config: dict[str, Any]) -> nn.Module:
    """The mechanism without values; on the CPU where its constructor looks at some."""
    try:
        with torch.device("meta"):
            return MECHANISMS[config["model"]](config)
    except RuntimeError:
        return seeded(config)


# What fits


@pytest.mark.parametrize(
    ("model", "axis", "least"), [(model, axis, n) for model in LEAST for axis, n in LEAST[model].items()]
)
def test_what_is_too_small_is_refused(model: str, axis: str, least: int) -> None:
    config = configured(model, **{axis: least - 1, "patch_size": 1})
    with pytest.raises(UserError, match=f"{axis}={least - 1} is too small for {model}; use {least} or more"):
        check(config)


@pytest.mark.parametrize(
    ("model", "axis"), [(model, axis) for model in MULTIPLES for axis in MULTIPLES[model]]
)
def test_what_is_no_multiple_is_refused_and_the_values_named_fit(model: str, axis: str) -> None:
    value = SMALL[axis] + 1
    with pytest.raises(UserError, match=f"{axis}={value} is no multiple of .*, as {model} needs") as refusal:
        check(configured(model, **{axis: value}))
    named = str(refusal.value).partition("use ")[2].split(", ")
    assert len(named) == 2
    for near in map(int, named):
        mlp_dim = {"mlp_dim": near * 3} if axis == "dim" else {}
        check(configured(model, **{**mlp_dim, axis: near}))


@pytest.mark.parametrize(
    ("model", "side", "asked", "named"),
    [
        ("simple_vit", 28, 8, "4, 7, 14"),
        ("cross_vit", 28, 1, "4, 7, 14, 28"),
        ("cross_vit", 28, 2, "4, 7, 14, 28"),
        ("look_vit", 32, 3, "2, 4, 8"),
        ("pit", 8, 1, "2, 4, 8"),
        ("nest", 28, 4, "2, 7, 14"),
        ("xcit", 32, 32, "2, 4, 8, 16"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_and_those_named_fit(
    model: str, side: int, asked: int, named: str
) -> None:
    config = {**configured(model), "image_size": side, "patch_size": asked}
    with pytest.raises(UserError, match=f"patch_size={asked} does not fit {model} .* use .*{named}"):
        check(config)
    for patch in map(int, named.split(", ")):
        check({**config, "patch_size": patch})


def test_an_image_that_no_patch_halves_is_refused() -> None:
    with pytest.raises(UserError, match="image_size=27 cannot be cut for nest; use an even one"):
        check({**configured("nest"), "image_size": 27})


def drawn(model: str, draw: random.Random) -> dict[str, Any] | None:
    """Any sizes, most of them odd; None where they have no default patch."""
    dim, side = (
        draw.choice([4, 5, 8, 12, 16, 24, 32, 33, 48]),
        draw.choice([1, 2, 5, 7, 8, 12, 17, 27, 28, 31, 32]),
    )
    point = dict(
        image_size=side, channels=draw.choice([1, 3]), num_classes=draw.choice([2, 10]),
        depth=draw.randint(1, 6), heads=draw.randint(1, 4), dim=dim, dim_head=draw.choice([1, 2, 3, 4, 6, 8]),
        mlp_dim=draw.choice([dim, 2 * dim, 7, 24]), dropout=draw.choice([0.0, 0.3]), emb_dropout=0.1,
    )  # fmt: skip
    patch = draw.choice([size for size in range(1, side + 1) if side % size == 0])
    try:
        return configured(model, **point, **({"patch_size": patch} if draw.random() < 0.5 else {}))
    except UserError:
        return None


def admitted(config: dict[str, Any]) -> bool:
    try:
        check(config)
    except UserError:
        return False
    return True


@every_mechanism
def test_whatever_is_admitted_trains_on_a_single_image(model: str) -> None:
    draw = random.Random(model)
    configs = [config for config in (drawn(model, draw) for _ in range(60)) if config and admitted(config)]
    assert len(configs) >= 5
    for config in configs[:5]:
        logits = seeded(config)(images_for(config, n=1))
        assert logits.shape == (1, config["num_classes"]), config
        assert logits.isfinite().all(), config


@every_mechanism
def test_the_default_patch_fits_and_differs_from_the_common_one_only_where_that_does_not(model: str) -> None:
    for side in range(6, 66, 2):
        config = {**configured(model), "image_size": side, "patch_size": None}
        patch = default_patch(config)
        if "patch_size" not in TAKES[model]:
            assert patch is None
        else:
            common, fit = patch_size({**config, "model": "vit", "geometry": "image"}), patches(config)
            assert patch in fit and 1 < patch < side
            assert patch == common or common not in fit


def test_what_fits_is_known_without_torch() -> None:
    code = "import sys, attnsweep.tasks.images.zoo_sizes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# The rules


@pytest.mark.parametrize(
    ("depth", "stages", "shares"),
    [(4, 4, (1, 1, 1, 1)), (7, 4, (1, 1, 4, 1)), (8, 3, (2, 4, 2)), (5, 2, (2, 3)), (6, 2, (3, 3))],
)
def test_depth_is_spread_over_the_stages(depth: int, stages: int, shares: tuple[int, ...]) -> None:
    assert rules.spread(depth, stages) == shares


@pytest.mark.parametrize(
    ("side", "strides", "maps"),
    [(28, (4, 2, 1, 1), (8, 4, 4, 4)), (32, (4, 2, 1, 1), (8, 4, 4, 4)), (8, (2, 1, 1, 1), (4, 4, 4, 4)),
     (224, (4, 2, 2, 2), (56, 28, 14, 7))],
)  # fmt: skip
def test_a_pyramid_halves_its_maps_down_to_four(
    side: int, strides: tuple[int, ...], maps: tuple[int, ...]
) -> None:
    assert rules.pyramid(side) == (strides, maps)


def test_twins_has_as_many_blocks_as_its_depth() -> None:
    kinds = [type(module).__name__ for module in seeded(configured("twins_svt", depth=7)).modules()]
    assert kinds.count("GlobalAttention") == 7


# Ours, and what we mended


def test_linear_attention_is_normalised_attention_by_its_kernel() -> None:
    torch.manual_seed(0)
    layer = parts.LinearAttention(dim=12, heads=3, dim_head=4, dropout=0).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    q, k, v = layer.to_qkv(layer.norm(x)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)  # (b, h, n, d)
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2)
    out = (weights / weights.sum(dim=-1, keepdim=True)) @ v
    torch.testing.assert_close(layer(x), layer.to_out(out.transpose(1, 2).flatten(2)), rtol=1e-12, atol=1e-12)


def test_macs_of_linear_attention_grow_linearly_with_the_tokens() -> None:
    few, more, most = (
        count(MECHANISMS["efficient"](config), images_for(config)).macs
        for config in (configured("efficient", patch_size=patch) for patch in (14, 4, 2))
    )
    patch_macs = {14: 4 * 196 * 32, 4: 49 * 16 * 32, 2: 196 * 4 * 32}  # the embedding
    per_token = [(few - patch_macs[14]), (more - patch_macs[4]), (most - patch_macs[2])]
    assert (per_token[2] - per_token[1]) / (197 - 50) == (per_token[1] - per_token[0]) / (50 - 5)


def test_a_navit_gives_the_logits_that_it_gives_packed() -> None:
    net = seeded(configured("na_vit", "cifar10")).eval()
    images = images_for(configured("na_vit", "cifar10"), n=5)
    with torch.inference_mode():
        torch.testing.assert_close(net(images), net.navit(list(images)), rtol=1e-4, atol=1e-4)


def test_token_sampling_keeps_the_tokens_at_the_quantiles_of_significance() -> None:
    significance = torch.tensor([0.05, 0.5, 0.15, 0.3])  # cumulated 0.05, 0.55, 0.7, 1
    attn = torch.zeros(1, 1, 5, 5)
    attn[0, 0, 0, 1:] = significance
    attn[0, 0, 1:] = torch.arange(1.0, 5)[:, None]
    mask = torch.ones(1, 5, dtype=torch.bool)
    rows, fresh, ids = parts.TokenSampling(3)(attn, torch.ones(1, 1, 5, 4) / 2, mask)  # at 1/6, 1/2 and 5/6
    assert ids.tolist() == [[0, 2, 2, 4]]
    assert fresh.tolist() == [[True, True, False, True]]
    assert torch.equal(rows, attn[:, :, [0, 2, 2, 4]])


def test_token_sampling_never_keeps_what_is_no_token() -> None:
    torch.manual_seed(0)
    attn, mask = torch.rand(20, 2, 9, 9), torch.rand(20, 9) < 0.5
    mask[:, :2] = True
    _, fresh, ids = parts.TokenSampling(4)(attn, torch.randn(20, 2, 9, 3), mask)
    assert mask.gather(1, ids)[fresh].all()


def test_fused_attention_is_the_explicit_one() -> None:
    explicit, fused = (
        seeded(configured(model)).transformer.layers[0][0]
        for model in ("simple_vit", "simple_flash_attn_vit")
    )
    fused.load_state_dict(explicit.state_dict())
    tokens = torch.randn(3, 5, SMALL["dim"], dtype=torch.float64)
    torch.testing.assert_close(fused.double()(tokens), explicit.double()(tokens))


def test_a_jumbo_vit_has_the_widths_that_were_asked_for() -> None:
    net = seeded(configured("jumbo_vit", dim=40, mlp_dim=57))
    assert net.layers[0][1][1].out_features == 57
    assert net.jumbo_ff[1][1].out_features == 2 * 6 * 40


PUBLISHED = {
    "rvt": flat("rvt.RvT"),
    "simple_vit_with_specialized_cls": flat("simple_vit_with_specialized_cls.SimpleViT"),
    "vit_with_patch_merger": flat("vit_with_patch_merger.ViT", {"patch_merge_layer": 2}),
    "wwt": flat("wwt.WWT", {"num_slots": 8}),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_what_is_left_out_changes_no_logit(model: str) -> None:
    config = configured(model, "cifar10")
    ours = seeded(config).eval()
    torch.manual_seed(0)
    whole = PUBLISHED[model](config).eval()
    assert parameters(ours) < parameters(whole)
    torch.testing.assert_close(ours(images_for(config)), whole(images_for(config)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", ["cct", "look_vit", "sep_vit"])
@pytest.mark.parametrize(("dim", "mlp_dim"), [(48, 1), (48, 57), (49, 98), (1000, 3333)])
def test_an_expansion_factor_gives_back_the_width(model: str, dim: int, mlp_dim: int) -> None:
    assert int(dim * rules.exact(mlp_dim, dim)) == mlp_dim


def test_the_norm_of_a_map_is_over_its_channels() -> None:
    x = torch.randn(2, 6, 3, 4)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(parts.ChannelNorm(6)(x), expected)


def test_a_norm_in_bf16_is_torchs_in_the_type_of_its_weight() -> None:
    torch.manual_seed(0)
    norm, tokens = parts.RMSNorm(32, 1e-6), torch.randn(4, 5, 32).bfloat16()
    nn.init.normal_(norm.weight)
    exact = F.rms_norm(tokens.double(), (32,), norm.weight.double(), 1e-6)
    assert norm(tokens).dtype == torch.bfloat16
    torch.testing.assert_close(norm(tokens), exact.bfloat16())


def test_memory_tokens_are_learnt_with_the_rest() -> None:
    assert all(
        parameter.requires_grad for parameter in seeded(configured("learnable_memory_vit")).parameters()
    )


# The sweep

ZOO_SWEEP = read_sweep(Path(__file__).parents[1] / "sweeps" / "attention_zoo.py")
POINTS = list(ZOO_SWEEP.points())


def test_the_sweep_names_every_mechanism_once() -> None:
    assert sorted(point["model"] for point in POINTS) == sorted([*MECHANISMS, "vit", "deepvit", "hybrid"])


def test_the_sweep_of_equal_latency_can_be_built_and_names_no_mechanism_twice() -> None:
    sweep = read_sweep(Path(__file__).parents[1] / "sweeps" / "attention_zoo_latency.py")
    trials, invalid = expand(sweep.points(), Path("nowhere"))
    assert not invalid and len(trials) == 40 == len({trial.config["model"] for trial in trials})


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["model"])
def test_the_sweep_gives_every_mechanism_as_many_parameters(point: dict[str, Any]) -> None:
    if point["model"] in MECHANISMS:
        keys = {key: value for key, value in point.items() if key not in ("dataset", "epochs")}
        check(config := configured(**keys))
        params = parameters(seeded(config))
    else:
        params = cost_of(resolve(point)).params
    assert params == pytest.approx(420_000, rel=0.04)
