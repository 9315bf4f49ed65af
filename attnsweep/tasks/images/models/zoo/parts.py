"""Modules that stand before, after or in place of parts of vit-pytorch's mechanisms."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnsweep.tasks.images.models.zoo.rules import padded


class ThreeChannels(nn.Module):
    """Images of one channel or three, with three channels."""

    def forward(self, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b 3 s s"]:
        return images.expand(-1, 3, -1, -1)


def pad(side: int, multiple: int) -> nn.Module:
    """Pads images with zeros all around to a multiple of pixels."""
    extra = padded(side, multiple) - side
    before, after = extra // 2, extra - extra // 2
    return nn.ZeroPad2d((before, after, before, after))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class RMSNorm(nn.RMSNorm):
    """torch's, in the type of its weight, returned in that of the tokens: torch's kernel takes one type."""

    def forward(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class SinglePrecision(nn.Module):
    """Its input in float32, of whatever type autocast computed it in."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x.float()


class LinearAttention(nn.Module):
    """Attention at a cost linear in the number of tokens: phi(Q) (phi(K)^T V), normalised, with
    phi(x) = elu(x) + 1 (https://arxiv.org/abs/2006.16236, eq. 5 to 7).
    """

    def __init__(self, *, dim: int, heads: int, dim_head: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        qkv = self.to_qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = einsum(k, v, "b h n d, b h n e -> b h d e")
        total = einsum(q, k.sum(dim=2), "b h n d, b h d -> b h n")
        out = einsum(q, memory, "b h n d, b h d e -> b h n e") / total[..., None]
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class LinearTransformer(nn.Module):
    """Pre-norm blocks of linear attention and a feed-forward layer."""

    def __init__(
        self, *, dim: int, depth: int, heads: int, dim_head: int, mlp_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            LinearAttention(dim=dim, heads=heads, dim_head=dim_head, dropout=dropout) for _ in range(depth)
        )
        self.feed_forwards = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dim),
                nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout),
                nn.Linear(mlp_dim, dim), nn.Dropout(dropout),
            )
            for _ in range(depth)
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class FusedAttention(nn.Module):
    """softmax(QK^T / sqrt(d)) V in one kernel."""

    def forward(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], v: Float[Tensor, "b h m d"]
    ) -> Float[Tensor, "b h n d"]:
        return F.scaled_dot_product_attention(q, k, v)


class TokenSampling(nn.Module):
    """Keeps the tokens at `keep` quantiles of their significance: inverse transform sampling at fixed points,
    as in the paper (https://arxiv.org/abs/2111.15667). vit-pytorch draws at random, in evaluation too.
    """

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(
        self, attn: Float[Tensor, "b h n n"], value: Float[Tensor, "b h n d"], mask: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b h k n"], Bool[Tensor, "b k"], Int[Tensor, "b k"]]:
        """The rows of the maps of the class token and of the tokens that are kept, their mask, false for
        repetitions, and their ids; `mask` says what is a token, the class token first.
        """
        significance = einsum(attn[:, :, 0, 1:], value[:, :, 1:].norm(dim=-1), "b h n, b h n -> b n").float()
        cdf = significance.masked_fill(~mask[:, 1:], 0).cumsum(dim=-1)
        cdf = cdf / cdf[:, -1:].clamp_min(torch.finfo(cdf.dtype).tiny)
        quantiles = (torch.arange(self.keep, device=attn.device) + 0.5) / self.keep
        ids = torch.searchsorted(cdf.detach(), repeat(quantiles, "k -> b k", b=len(attn)).contiguous())
        ids = F.pad(ids.clamp_max(cdf.shape[1] - 1) + 1, (1, 0))  # (b, keep + 1)
        fresh = F.pad(ids[:, 1:] != ids[:, :-1], (1, 0), value=True)
        rows = attn.gather(2, repeat(ids, "b k -> b h k n", h=attn.shape[1], n=attn.shape[-1]))
        return rows, fresh, ids


class OneSize(nn.Module):
    """A NaViT for images of one size, which need no packing and stay a batch; the logits are the same."""

    def __init__(self, navit: Any) -> None:
        super().__init__()
        self.navit = navit

    def forward(self, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b num_classes"]:
        net, p = self.navit, self.navit.patch_size
        x = rearrange(images, "b c (h p1) (w p2) -> b (h w) (c p1 p2)", p1=p, p2=p)
        positions = rearrange(net.pos_embed_height[:, None] + net.pos_embed_width, "h w d -> (h w) d")
        x = net.transformer(net.dropout(net.to_patch_embedding(x) + positions))
        query = repeat(net.attn_pool_queries, "d -> b 1 d", b=len(images))
        return net.mlp_head((net.attn_pool(query, context=x) + query)[:, 0])


class ClassQueries(nn.Module):
    """Queries for an attention of RvT of which only the class token's output is read: all by the projection
    of that token, none by the convolution over the patches.
    """

    def __init__(self, of_class: nn.Module) -> None:
        super().__init__()
        self.of_class = of_class

    def forward(self, tokens: Float[Tensor, "b n d"], fmap_dims: Any) -> Float[Tensor, "b n hd"]:
        return self.of_class(tokens)


class SlotsOnly(nn.Module):
    """The last block of a WWT with one kind of slots (https://arxiv.org/abs/2605.12021), of which only the
    slots are read: without what would give new tokens, and masks for a next block.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention, self.norms, self.mlp = block.attns[0], block.norms, block.mlps[1]
        self.to_queries_values, self.gate, self.to_slots = (
            attention.to_q_v_tokens, attention.slots_gate, attention.to_out_slots,
        )  # fmt: skip
        self.heads, self.scale = attention.heads, attention.scale
        to_keys, _ = attention.to_k_v_slots.weight.chunk(2)
        self.to_keys = nn.Linear(to_keys.shape[1], to_keys.shape[0], bias=False)
        self.to_keys.weight = nn.Parameter(to_keys.detach().clone())

    def forward(self, x: list[Tensor], masks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The tokens (b, t, d) and new slots (b, s, d) of these tokens and slots, and the masks, of which the
        first (b, 1, h, t, s) is added to the scores.
        """
        tokens, slots = (norm(seq) for norm, seq in zip(self.norms, x, strict=True))
        q, v = rearrange(self.to_queries_values(tokens), "b t (two h d) -> two b h t d", two=2, h=self.heads)
        k = rearrange(self.to_keys(slots), "b s (h d) -> b h s d", h=self.heads)
        scores = einsum(q, k, "b h t d, b h s d -> b h t s") * self.scale + masks[0][:, 0]
        read = einsum(scores.softmax(dim=-1), v, "b h t s, b h t d -> b h s d") * self.gate(slots)
        summed = x[1] + self.to_slots(rearrange(read, "b h s d -> b s (h d)"))
        return [x[0], summed + self.mlp(summed)], masks
