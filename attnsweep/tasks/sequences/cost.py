"""Parameters and multiply-accumulates of the transformer in closed form."""

import functools
from collections.abc import Mapping
from typing import Any

from attnsweep.core.cost import Cost
from attnsweep.nn.cost import feed_forward, linear, multi_head, norm
from attnsweep.tasks.sequences.space import positions_for


def encoder_decoder(config: Mapping[str, Any]) -> Cost:
    """The transformer of https://arxiv.org/abs/1706.03762 with one embedding for source, target and output.

    MACs are of one source of `length` tokens and a target of one more, which begins with a token of its own.
    """
    dim, depth, vocabulary, length = (config[key] for key in ("dim", "depth", "num_classes", "length"))
    dim_head = config.get("dim_head") or dim // config["heads"]
    attend = functools.partial(multi_head, dim, inner=config["heads"] * dim_head)
    source, target, pre = length, length + 1, config["norm"] == "pre"
    encoder = attend(source, source) + norm(dim) + feed_forward(dim, config["mlp_dim"], source)
    decoder = attend(target, target) + norm(dim) + feed_forward(dim, config["mlp_dim"], target)
    decoder += attend(target, source) + norm(dim)
    learned = positions_for(length) * dim if config["positions"] == "learned" else 0
    logits = linear(dim, vocabulary, tokens=target, bias=False)  # its weights are the embedding
    return (encoder + decoder) * depth + norm(dim) * (2 * pre) + Cost(learned, 0) + logits
