"""The transformer of "Attention Is All You Need" (https://arxiv.org/abs/1706.03762): an encoder, a decoder,
and one embedding that both and the output share.

Token 0 is padding, which nothing attends to; what a sequence begins and ends with is up to `decoding`.
Shapes: b examples, n source tokens, m target tokens, d the width of a token, v the vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnsweep.nn.attention import Cache
from attnsweep.nn.blocks import AS_PUBLISHED, BlockDesign, DecoderBlock, EncoderBlock, block_design, last_norm
from attnsweep.nn.kernels import padding_mask
from attnsweep.nn.positions import PositionalEncoding
from attnsweep.tasks.sequences.problems import PAD
from attnsweep.tasks.sequences.space import positions_for

Caches = Sequence[tuple[Cache, Cache]]  # per decoder block: its own tokens, the encoder's output


class Transformer(nn.Module):
    """Encoder and decoder of `depth` blocks each; sequences have up to `longest` tokens.

    norm "post" (the paper's), or "pre" or "rms", which end each of the two stacks with a norm of its own; the
    positions are the same for source and target; `design` is what every block has otherwise than the paper's.
    The weights begin as the paper leaves open: projections by Xavier, biases 0, embeddings N(0, 1/d), which
    sqrt(d) times are N(0, 1), as are the logits. `dim_head` is dim // heads if not given, and the depths of
    encoder and decoder are `depth`. Raises UserError for an unknown word, or sizes that do not fit.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dim_head: int | None = None,
        dropout: float = 0.1,
        norm: str = "post",
        positions: str = "sinusoidal",
        longest: int = 512,
        attention: str = "fused",
        design: BlockDesign = AS_PUBLISHED,
        encoder_depth: int | None = None,
        decoder_depth: int | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.positions, self.dropout = PositionalEncoding(longest, dim, kind=positions), nn.Dropout(dropout)
        sizes: dict[str, Any] = dict(
            heads=heads, mlp_dim=mlp_dim, dim_head=dim_head, dropout=dropout, norm=norm, attention=attention
        )
        encoders, decoders = (
            [replace(design, block=i + 1) for i in range(blocks or depth)]
            for blocks in (encoder_depth, decoder_depth)
        )
        self.encoder = nn.ModuleList(EncoderBlock(dim, **sizes, design=one) for one in encoders)
        self.decoder = nn.ModuleList(DecoderBlock(dim, **sizes, design=one) for one in decoders)
        self.encoder_norm, self.decoder_norm = (last_norm(dim, norm) for _ in range(2))

    def forward(self, source: Int[Tensor, "b n"], target: Int[Tensor, "b m"]) -> Float[Tensor, "b m v"]:
        """Of token ids (b, n) and (b, m), logits (b, m, v) of what follows each target token."""
        return self.decode(target, self.encode(source), memory_mask=padding_mask(source, padding=PAD))

    def encode(self, source: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """The encoder's output (b, n, d) for token ids (b, n)."""
        x, mask = self.embed(source), padding_mask(source, padding=PAD)
        for block in self.encoder:
            x = block(x, mask=mask)
        return self.encoder_norm(x)

    def decode(
        self,
        target: Int[Tensor, "b m"],
        memory: Float[Tensor, "b n d"],
        *,
        memory_mask: Bool[Tensor, "b 1 n"],
        caches: Caches | None = None,
    ) -> Float[Tensor, "b m_new v"]:
        """Logits (b, m, v) of what follows each token of `target` (b, m), given what `encode` returned.

        With caches, only of the tokens that they do not hold yet, which they hold from then on.
        """
        past = caches[0][0].tokens if caches else 0
        x, mask = self.embed(target[:, past:], start=past), padding_mask(target, padding=PAD)
        pairs: Sequence[tuple[Cache, Cache] | None] = caches or [None] * len(self.decoder)
        for block, pair in zip(self.decoder, pairs, strict=True):
            x = block(x, memory, mask=mask, causal=True, memory_mask=memory_mask, caches=pair)
        return self.decoder_norm(x) @ self.embedding.weight.T

    def embed(self, tokens: Int[Tensor, "b n"], *, start: int = 0) -> Float[Tensor, "b n d"]:
        """sqrt(d) times the embedding (section 3.4), plus the positions from `start` on: (b, n, d)."""
        scaled = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(self.positions(scaled, start=start))

    def caches(self) -> Caches:
        """Empty caches for `decode`."""
        return [(Cache(), Cache()) for _ in self.decoder]


def transformer(config: Mapping[str, Any]) -> Transformer:
    """The transformer that a configuration describes.

    `length` is that of the longest source in training; there are positions for four times that and 8 more, so
    that longer ones can be tried.
    """
    return Transformer(
        vocabulary=config["num_classes"],
        longest=positions_for(config["length"]),
        design=block_design(config),
        dim_head=config.get("dim_head"),
        encoder_depth=config.get("encoder_depth"),
        decoder_depth=config.get("decoder_depth"),
        **{key: config[key] for key in ("dim", "depth", "heads", "mlp_dim", "dropout")},
        **{key: config[key] for key in ("norm", "positions", "attention")},
    )
