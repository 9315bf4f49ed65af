"""Parameters and multiply-accumulates of the image models that have a closed form."""

from collections.abc import Mapping
from typing import Any

from attnsweep.core.cost import Cost
from attnsweep.nn.cost import attention, feed_forward, linear, multi_head, norm
from attnsweep.nn.design import variant_of
from attnsweep.tasks.images.space import CNN_DIM, feature_side, is_varied


def convolution(inputs: int, outputs: int, side: int) -> Cost:
    """A 3x3 convolution without padding on a square of `side` pixels."""
    return Cost(9 * inputs * outputs + outputs, 9 * inputs * outputs * (side - 2) ** 2)


def convolutions(channels: int, side: int, dim: int = CNN_DIM) -> Cost:
    """The two convolutions of the PyTorch MNIST sample, to a quarter and a half of `dim` channels."""
    return convolution(channels, dim // 4, side) + convolution(dim // 4, dim // 2, side - 2)


def reattention(heads: int, tokens: int) -> Cost:
    """DeepViT's mixing of maps across heads, with its norm (https://arxiv.org/abs/2103.11886, eq. 3)."""
    mixing = (heads * tokens) ** 2 if heads > 1 else 0  # of one head a scale, element by element
    return Cost(heads * heads, mixing) + norm(heads)


def transformer(config: Mapping[str, Any], channels: int) -> Cost:
    """A ViT or DeepViT on a square of `feature_side` pixels with `channels` channels."""
    dim, heads, dim_head, patch = (config[key] for key in ("dim", "heads", "dim_head", "patch_size"))
    deep, side = config["model"] == "deepvit", feature_side(config)
    patches, patch_dim = (side // patch) ** 2, channels * patch * patch
    tokens = patches + 1
    positions = (side * side // patch) ** 2 + 1 if config["geometry"] == "published" else tokens
    if is_varied(config):
        positions = 0 if config["positions"] else positions
    embedding = (
        norm(patch_dim) + linear(patch_dim, dim, tokens=patches) + norm(dim) + Cost(dim + positions * dim, 0)
    )
    if is_varied(config):
        return embedding + varied(config, tokens)
    block = attention(dim, heads, dim_head, tokens, project=deep or not (heads == 1 and dim_head == dim))
    block += feed_forward(dim, config["mlp_dim"], tokens)
    block += reattention(heads, tokens) if deep else Cost(0, 0)
    return embedding + block * config["depth"] + norm(dim) + linear(dim, config["num_classes"])


def varied(config: Mapping[str, Any], tokens: int) -> Cost:
    """The blocks of a ViT that are made of our own pieces, its last norm and its head."""
    dim, kind = config["dim"], config["norm"] or "pre"
    sizes = {key: config[key] for key in ("heads", "dim_head", "attention")}
    block = norm(dim, kind) + multi_head(dim, tokens, tokens, variant=variant_of(config), **sizes)
    block += feed_forward(dim, config["mlp_dim"], tokens, kind=config["mlp"] or "gelu", norm_kind=kind)
    return block * config["depth"] + norm(dim, kind) + linear(dim, config["num_classes"])


def cnn(config: Mapping[str, Any]) -> Cost:
    """The PyTorch MNIST sample's network: two convolutions, pooling, two linear layers."""
    side, dim = config["image_size"], config["dim"] or CNN_DIM
    places = 1 if config["pooling"] in ("mean", "max") else feature_side(config) ** 2
    head = linear(dim // 2 * places, dim) + linear(dim, config["num_classes"])
    return convolutions(config["channels"], side, dim) + head


def vision(config: Mapping[str, Any]) -> Cost:
    """A ViT or DeepViT on the image itself."""
    return transformer(config, config["channels"])


def hybrid(config: Mapping[str, Any]) -> Cost:
    """The CNN's convolutions, then a ViT on their 64 channels."""
    return convolutions(config["channels"], config["image_size"]) + transformer(config, channels=64)


CLOSED_FORMS = {"cnn": cnn, "vit": vision, "deepvit": vision, "hybrid": hybrid}


def cost(config: Mapping[str, Any]) -> Cost | None:
    """Parameters and MACs of a configuration in full; None for a model without a closed form."""
    form = CLOSED_FORMS.get(config["model"])
    return form(config) if form else None
