"""Parameters, multiply-accumulates and memory of the cache of the transformer in closed form."""

import functools
from collections.abc import Mapping
from typing import Any

from attnsweep.core.cost import Cost
from attnsweep.nn.cost import cache_bytes, feed_forward, linear, multi_head, norm
from attnsweep.nn.design import variant_of
from attnsweep.tasks.sequences.space import positions_for


def encoder_decoder(config: Mapping[str, Any]) -> Cost:
    """The transformer of https://arxiv.org/abs/1706.03762 with one embedding for source, target and output.

    MACs are of one source of `length` tokens and a target of one more, which begins with a token of its own.
    """
    dim, vocabulary, length, kind = (config[key] for key in ("dim", "num_classes", "length", "norm"))
    sizes = attention_of(config)
    further = functools.partial(
        feed_forward, dim, config["mlp_dim"], kind=config.get("mlp") or "relu", norm_kind=kind
    )
    source, target, ends = length, length + 1, kind != "post"
    encoder = multi_head(dim, source, source, **sizes) + norm(dim, kind) + further(source)
    decoder = (
        multi_head(dim, target, target, causal=True, padded=True, **sizes) + norm(dim, kind) + further(target)
    )
    decoder += multi_head(dim, target, source, crosses=True, **sizes) + norm(dim, kind)
    learned = positions_for(length) * dim if config["positions"] == "learned" else 0
    logits = linear(dim, vocabulary, tokens=target, bias=False)  # its weights are the embedding
    encoders, decoders = depths(config)
    return encoder * encoders + decoder * decoders + norm(dim, kind) * (2 * ends) + Cost(learned, 0) + logits


def attention_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the cost of an attention."""
    dim_head = config.get("dim_head") or config["dim"] // config["heads"]
    sizes = {key: config[key] for key in ("heads", "attention")}
    return sizes | {"dim_head": dim_head, "variant": variant_of(config)}


def depths(config: Mapping[str, Any]) -> tuple[int, int]:
    """The blocks of the encoder and of the decoder."""
    own = (config.get("encoder_depth"), config.get("decoder_depth"))
    encoders, decoders = (config["depth"] if blocks is None else blocks for blocks in own)
    return encoders, decoders


def by_length(config: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of cost that follow from the length: see `results.schema`."""
    (_, decoders), length, sizes = depths(config), config["length"], attention_of(config)
    own = cache_bytes(length + 1, **sizes)
    token = cache_bytes(2, **sizes) - cache_bytes(1, **sizes)
    return {
        "macs_2x": encoder_decoder({**config, "length": 2 * length}).macs,
        "macs_4x": encoder_decoder({**config, "length": 4 * length}).macs,
        "cache_bytes": decoders * (own + cache_bytes(length, crosses=True, **sizes)),
        "cache_bytes_per_token": decoders * token,
    }
