"""A decoder without an encoder: blocks whose tokens attend to what came before, over one embedding that goes
in and comes out, as in GPT-2 (https://github.com/openai/gpt-2), made of the pieces in `nn`.

Shapes: b examples, n tokens, d the width of a token, v the vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from attnsweep.nn.attention import Cache
from attnsweep.nn.blocks import EncoderBlock, block_design, last_norm
from attnsweep.nn.positions import PositionalEncoding


class Decoder(nn.Module):
    """From token ids (b, n) to the logits (b, n, v) of what follows each. Built as its configuration says."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, design = config["dim"], block_design(config)
        self.embedding = nn.Embedding(config["num_classes"], dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.positions = PositionalEncoding(config["context"], dim, kind=config["positions"])
        self.dropout = nn.Dropout(config["dropout"])
        sizes = {key: config[key] for key in ("heads", "dim_head", "mlp_dim", "dropout", "norm", "attention")}
        self.blocks = nn.ModuleList(
            EncoderBlock(dim, **sizes, design=replace(design, block=i + 1)) for i in range(config["depth"])
        )
        self.norm = last_norm(dim, config["norm"])

    def forward(
        self, tokens: Int[Tensor, "b n"], caches: Sequence[Cache] | None = None
    ) -> Float[Tensor, "b n v"]:
        """Logits (b, n, v). With caches the tokens follow those in them, and are held from then on."""
        start = caches[0].tokens if caches else 0
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        x = self.dropout(self.positions(x, start=start))
        for i, block in enumerate(self.blocks):
            x = block(x, causal=True, cache=caches[i] if caches else None)
        return self.norm(x) @ self.embedding.weight.T

    def caches(self) -> list[Cache]:
        """Empty caches, one for each block."""
        return [Cache() for _ in self.blocks]
