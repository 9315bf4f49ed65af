"""Parameters, multiply-accumulates and memory of the cache of the decoder in closed form."""

from collections.abc import Mapping
from typing import Any

from attnsweep.core.cost import Cost
from attnsweep.nn.cost import cache_bytes, feed_forward, linear, multi_head, norm
from attnsweep.nn.design import variant_of


def decoder(config: Mapping[str, Any]) -> Cost:
    """A decoder with one embedding for what goes in and what comes out; MACs are of `context` tokens."""
    dim, tokens, kind = config["dim"], config["context"], config["norm"]
    block = multi_head(dim, tokens, tokens, causal=True, **attention_of(config)) + norm(dim, kind)
    block += feed_forward(dim, config["mlp_dim"], tokens, kind=config["mlp"], norm_kind=kind)
    learned = tokens * dim if config["positions"] == "learned" else 0
    last = norm(dim, kind) if kind != "post" else Cost(0, 0)
    logits = linear(dim, config["num_classes"], tokens=tokens, bias=False)  # its weights are the embedding
    return block * config["depth"] + last + Cost(learned, 0) + logits


def attention_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the cost of an attention."""
    sizes = {key: config[key] for key in ("heads", "dim_head", "attention")}
    return sizes | {"variant": variant_of(config)}


def by_length(config: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of cost that follow from the length, here the context: see `results.schema`."""
    sizes, depth, context = attention_of(config), config["depth"], config["context"]
    token = cache_bytes(2, **sizes) - cache_bytes(1, **sizes)
    return {
        "macs_2x": decoder({**config, "context": 2 * context}).macs,
        "macs_4x": decoder({**config, "context": 4 * context}).macs,
        "cache_bytes": depth * cache_bytes(context, **sizes),
        "cache_bytes_per_token": depth * token,
    }
