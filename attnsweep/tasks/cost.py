"""Parameters and multiply-accumulates of an architecture in closed form, so that a plan can state them before
anything is built.

The tests hold every formula against the built model: parameters to the unit, MACs against torch's FLOP
counter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnsweep.tasks.images.space import feature_side
from attnsweep.tasks.sequences.space import positions_for


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-accumulates of one forward pass of one example."""

    params: int
    macs: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.params * times, self.macs * times)


def linear(inputs: int, outputs: int, *, tokens: int = 1, bias: bool = True) -> Cost:
    """A linear layer applied to `tokens` vectors."""
    return Cost(inputs * outputs + bias * outputs, tokens * inputs * outputs)


def norm(width: int) -> Cost:
    """A layer norm: a scale and a shift. Its arithmetic is not counted, as is usual."""
    return Cost(2 * width, 0)


def convolution(inputs: int, outputs: int, side: int) -> Cost:
    """A 3x3 convolution without padding on a square of `side` pixels."""
    return Cost(9 * inputs * outputs + outputs, 9 * inputs * outputs * (side - 2) ** 2)


def convolutions(channels: int, side: int) -> Cost:
    """The two convolutions of the PyTorch MNIST sample, to 32 and 64 channels."""
    return convolution(channels, 32, side) + convolution(32, 64, side - 2)


def feed_forward(dim: int, mlp_dim: int, tokens: int) -> Cost:
    """Norm, two linear layers."""
    return norm(dim) + linear(dim, mlp_dim, tokens=tokens) + linear(mlp_dim, dim, tokens=tokens)


def attention(dim: int, heads: int, dim_head: int, tokens: int, *, project: bool = True) -> Cost:
    """Norm, queries, keys and values without bias, the two products of softmax(QK^T)V, and the projection
    back.
    """
    inner = heads * dim_head
    products = Cost(0, 2 * tokens * tokens * inner)
    back = linear(inner, dim, tokens=tokens) if project else Cost(0, 0)
    return norm(dim) + linear(dim, 3 * inner, tokens=tokens, bias=False) + products + back


def reattention(heads: int, tokens: int) -> Cost:
    """DeepViT's mixing of the attention maps across heads, with its norm (https://arxiv.org/abs/2103.11886,
    eq. 3).
    """
    mixing = (heads * tokens) ** 2 if heads > 1 else 0  # of one head a scale, element by element
    return Cost(heads * heads, mixing) + norm(heads)


def transformer(config: Mapping[str, Any], channels: int) -> Cost:
    """A ViT or DeepViT on a square of `feature_side` pixels with `channels` channels."""
    dim, heads, dim_head, patch = (config[key] for key in ("dim", "heads", "dim_head", "patch_size"))
    deep, side = config["model"] == "deepvit", feature_side(config)
    patches, patch_dim = (side // patch) ** 2, channels * patch * patch
    tokens = patches + 1
    positions = (side * side // patch) ** 2 + 1 if config["geometry"] == "published" else tokens
    embedding = (
        norm(patch_dim) + linear(patch_dim, dim, tokens=patches) + norm(dim) + Cost(dim + positions * dim, 0)
    )
    block = attention(dim, heads, dim_head, tokens, project=deep or not (heads == 1 and dim_head == dim))
    block += feed_forward(dim, config["mlp_dim"], tokens) + (
        reattention(heads, tokens) if deep else Cost(0, 0)
    )
    return embedding + block * config["depth"] + norm(dim) + linear(dim, config["num_classes"])


def cnn(config: Mapping[str, Any]) -> Cost:
    """The PyTorch MNIST sample's network: two convolutions, pooling, two linear layers."""
    side, channels = config["image_size"], config["channels"]
    flat = 64 * feature_side(config) ** 2
    return convolutions(channels, side) + linear(flat, 128) + linear(128, config["num_classes"])


def multi_head(dim: int, queries: int, keys: int) -> Cost:
    """Attention of `queries` tokens to `keys` tokens, heads x dim_head = dim, all four projections with
    bias. Masked pairs count too.
    """
    read, written = linear(dim, dim, tokens=keys), linear(dim, dim, tokens=queries)
    return read * 2 + written * 2 + Cost(0, 2 * queries * keys * dim)


def encoder_decoder(config: Mapping[str, Any]) -> Cost:
    """The transformer of https://arxiv.org/abs/1706.03762 with one embedding for source, target and output.

    MACs are of one source of `length` tokens and a target of one more, which begins with a token of its own.
    """
    dim, depth, vocabulary, length = (config[key] for key in ("dim", "depth", "num_classes", "length"))
    source, target, pre = length, length + 1, config["norm"] == "pre"
    encoder = multi_head(dim, source, source) + norm(dim) + feed_forward(dim, config["mlp_dim"], source)
    decoder = multi_head(dim, target, target) + norm(dim) + feed_forward(dim, config["mlp_dim"], target)
    decoder += multi_head(dim, target, source) + norm(dim)
    learned = positions_for(length) * dim if config["positions"] == "learned" else 0
    logits = linear(dim, vocabulary, tokens=target, bias=False)  # its weights are the embedding
    return (encoder + decoder) * depth + norm(dim) * (2 * pre) + Cost(learned, 0) + logits


def vision(config: Mapping[str, Any]) -> Cost:
    """A ViT or DeepViT on the image itself."""
    return transformer(config, config["channels"])


def hybrid(config: Mapping[str, Any]) -> Cost:
    """The CNN's convolutions, then a ViT on their 64 channels."""
    return convolutions(config["channels"], config["image_size"]) + transformer(config, channels=64)


CLOSED_FORMS = {
    "cnn": cnn,
    "vit": vision,
    "deepvit": vision,
    "hybrid": hybrid,
    "transformer": encoder_decoder,
}


def cost(config: Mapping[str, Any]) -> Cost:
    """Parameters and MACs of the architecture that `config` (see `spaces.resolve`) describes.

    Raises KeyError for a model without a closed form; `sweep.cost_of` counts those.
    """
    return CLOSED_FORMS[config["model"]](config)
