"""The zoo: the image classifiers of vit-pytorch that have no file of their own here, each by the name of its
module there.

Every builder takes a configuration and gives a module from images (b, c, s, s) to logits (b, num_classes).
`attnsweep.spaces.zoo` says which sizes each takes and which fit; what a mechanism has beyond them is fixed
here, by these rules:

- Where a mechanism has stages, `dim` and `heads` are those of the first and double where the map is halved;
  `depth` is the blocks of all stages together: equal shares, the rest to the last stage but one, the papers'
  main one (of two stages, to the second).
- Maps are made for images 32 wide, not 224: stems keep more of the image, windows are the largest that divide
  the map, up to 8, and images are padded with zeros where a mechanism must halve its map.
- Where the constructor wants three channels, a single one is repeated.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from attnsweep.spaces.zoo import TAKES

Config = Mapping[str, Any]
Builder = Callable[[Config], nn.Module]
SMALL, LARGEST_WINDOW = 16, 8  # pixels; images up to SMALL go through stems that keep their size


# Sizes


def spread(depth: int, stages: int) -> tuple[int, ...]:
    """The blocks of each stage, together `depth`."""
    share = [depth // stages] * stages
    share[-2 if stages > 2 else -1] += depth % stages
    return tuple(share)


def doubling(first: int, stages: int) -> tuple[int, ...]:
    """A width, or a number of heads, that doubles from stage to stage."""
    return tuple(first * 2**stage for stage in range(stages))


def window(side: int) -> int:
    """The side of the largest window, up to 8, that divides a map."""
    return max(size for size in range(1, LARGEST_WINDOW + 1) if side % size == 0)


def part(side: int) -> int:
    """The side of the largest window of which a map, if it is even, has several."""
    return window(side // 2 if side % 2 == 0 else side)


def pyramid(image_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides of four stages, and their maps' sides, on an image padded to a multiple of `pyramid_multiple`.

    The first divides by 4, of small images by 2; the others by 2 as long as that is whole and leaves 4.
    """
    strides = [pyramid_multiple(image_size) // 4]
    sides = [padded(image_size, pyramid_multiple(image_size)) // strides[0]]
    for _ in range(3):
        strides.append(2 if sides[-1] % 2 == 0 and sides[-1] >= 8 else 1)
        sides.append(sides[-1] // strides[-1])
    return tuple(strides), tuple(sides)


def pyramid_multiple(image_size: int) -> int:
    """Four times what the first stage divides by."""
    return 8 if image_size <= SMALL else 16


def widths(first: int, strides: Sequence[int]) -> tuple[int, ...]:
    """The widths of stages: doubled where the map is halved, but not in the first."""
    return tuple(first * math.prod(strides[1 : stage + 1]) for stage in range(len(strides)))


def padded(side: int, multiple: int) -> int:
    """The side of the image after padding to a multiple."""
    return -(-side // multiple) * multiple


def region_window(regions_of: int) -> int:
    """The least window of RegionViT, 2 or more, that divides a map and stays whole while both are halved."""

    def stays_whole(size: int) -> bool:
        local, region = regions_of, regions_of // size
        for _ in range(3):
            local, region = -(-local // 2), -(-region // 2)
            if local % region:
                return False
        return True

    return next(n for n in range(2, regions_of + 1) if regions_of % n == 0 and stays_whole(n))


# Parts


class ThreeChannels(nn.Module):
    """Images (b, 1 or 3, s, s) with three channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1)


def pad(side: int, multiple: int) -> nn.Module:
    """Pads images with zeros all around to a multiple of pixels."""
    extra = padded(side, multiple) - side
    before, after = extra // 2, extra - extra // 2
    return nn.ZeroPad2d((before, after, before, after))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (b, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SinglePrecision(nn.Module):
    """Tensors in fp32, whatever autocast made of them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class LinearAttention(nn.Module):
    """Tokens (b, n, d) through attention at a cost linear in n: phi(Q) (phi(K)^T V), normalised, with
    phi(x) = elu(x) + 1 (https://arxiv.org/abs/2006.16236, eq. 5 to 7).
    """

    def __init__(self, *, dim: int, heads: int, dim_head: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(
            self.to_qkv(self.norm(x)), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = einsum(k, v, "b h n d, b h n e -> b h d e")
        total = einsum(q, k.sum(dim=2), "b h n d, b h d -> b h n")
        out = einsum(q, memory, "b h n d, b h d e -> b h n e") / total[..., None]
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class LinearTransformer(nn.Module):
    """Tokens (b, n, d) through pre-norm blocks of linear attention and feed-forward layer."""

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

    def forward(self, x: Tensor) -> Tensor:
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class FusedAttention(nn.Module):
    """Queries, keys and values (b, h, n, d) to softmax(QK^T / sqrt(d)) V in one kernel."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class TokenSampling(nn.Module):
    """Keeps the tokens at `keep` quantiles of their significance: inverse transform sampling at fixed points,
    as in the paper (https://arxiv.org/abs/2111.15667). vit-pytorch draws at random, in evaluation too.
    """

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, attn: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of maps (b, h, n, n), values (b, h, n, d) and the mask (b, n) of what is a token, class token
        first, the rows (b, h, keep + 1, n) of the kept, their mask, false for repetitions, and their ids.
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
    """A NaViT on images of one size, which need no packing and stay a batch; the logits are the same."""

    def __init__(self, navit: Any) -> None:
        super().__init__()
        self.navit = navit

    def forward(self, images: Tensor) -> Tensor:
        net, p = self.navit, self.navit.patch_size
        x = rearrange(images, "b c (h p1) (w p2) -> b (h w) (c p1 p2)", p1=p, p2=p)
        positions = rearrange(net.pos_embed_height[:, None] + net.pos_embed_width, "h w d -> (h w) d")
        x = net.transformer(net.dropout(net.to_patch_embedding(x) + positions))
        query = repeat(net.attn_pool_queries, "d -> b 1 d", b=len(images))
        return net.mlp_head((net.attn_pool(query, context=x) + query)[:, 0])


# Builders


def load(path: str) -> Any:
    """`module.Class` of vit-pytorch, whose modules are imported only when one is built."""
    module, name = path.split(".")
    return getattr(importlib.import_module(f"vit_pytorch.{module}"), name)


def sizes(config: Config) -> dict[str, Any]:
    """The keyword arguments that vit-pytorch's flat models share, as far as the mechanism takes them."""
    return {key: config[key] for key in ("image_size", "num_classes", *TAKES[config["model"]])}


def flat(path: str, fixed: Mapping[str, Any] | None = None) -> Callable[[Config], Any]:
    """The builder of a class that takes vit-pytorch's usual arguments, with some fixed ones."""
    return lambda config: load(path)(**sizes(config), channels=config["channels"], **(fixed or {}))


def rgb(path: str, fixed: Mapping[str, Any]) -> Builder:
    """The same of a class that knows only three channels."""
    return lambda config: nn.Sequential(ThreeChannels(), load(path)(**sizes(config), **fixed))


def finer(patch: int, side: int) -> int:
    """The next smaller patch that divides the image."""
    return max(size for size in range(1, patch) if side % size == 0)


def exact(mlp_dim: int, dim: int) -> float:
    """The expansion factor that a constructor, which multiplies and rounds down, makes `mlp_dim` again."""
    return (mlp_dim + 0.25) / dim


def ats_vit(config: Config) -> nn.Module:
    """ATS (https://arxiv.org/abs/2111.15667); the tokens kept fall evenly to half in the last block."""
    tokens, depth = (config["image_size"] // config["patch_size"]) ** 2, config["depth"]
    keep = tuple(tokens - tokens * (block + 1) // (2 * depth) for block in range(depth))
    net = flat("ats_vit.ViT", {"max_tokens_per_depth": keep})(config)
    for attention, _ in net.transformer.layers:
        attention.ats = TokenSampling(attention.output_num_tokens)
    return net


def cct(config: Config) -> nn.Module:
    """CCT-depth/3x2, of small images 3x1 (https://arxiv.org/abs/2104.05704), without stochastic depth."""
    return load("cct.CCT")(
        img_size=config["image_size"], n_input_channels=config["channels"], num_classes=config["num_classes"],
        n_conv_layers=2 if config["image_size"] > SMALL else 1, kernel_size=3, stride=1, padding=1,
        embedding_dim=config["dim"], num_layers=config["depth"], num_heads=config["heads"],
        mlp_ratio=exact(config["mlp_dim"], config["dim"]), positional_embedding="learnable",
        dropout_rate=config["dropout"], attention_dropout=config["dropout"], stochastic_depth_rate=0,
    )  # fmt: skip


def cross_vit(config: Config) -> nn.Module:
    """CrossViT (https://arxiv.org/abs/2103.14899); per unit of depth, a block in each branch and an exchange.

    `dim`, `mlp_dim` and `patch_size` are those of the branch of large patches; the other is half as wide, on
    the next smaller patch.
    """
    dim, mlp_dim, heads, dim_head = (config[key] for key in ("dim", "mlp_dim", "heads", "dim_head"))
    return load("cross_vit.CrossViT")(
        image_size=config["image_size"], channels=config["channels"], num_classes=config["num_classes"],
        depth=config["depth"], dropout=config["dropout"], emb_dropout=config["emb_dropout"],
        lg_dim=dim, lg_patch_size=config["patch_size"],
        lg_enc_depth=1, lg_enc_heads=heads, lg_enc_dim_head=dim_head, lg_enc_mlp_dim=mlp_dim,
        sm_dim=dim // 2, sm_patch_size=finer(config["patch_size"], config["image_size"]),
        sm_enc_depth=1, sm_enc_heads=heads, sm_enc_dim_head=dim_head, sm_enc_mlp_dim=mlp_dim // 2,
        cross_attn_depth=1, cross_attn_heads=heads, cross_attn_dim_head=dim_head,
    )  # fmt: skip


def crossformer(config: Config) -> nn.Module:
    """CrossFormer (https://arxiv.org/abs/2108.00154); per unit of depth, a block of near and one of far
    attention, whose heads are 32 wide.
    """
    strides, sides = pyramid(config["image_size"])
    windows = tuple(map(part, sides))
    scales = tuple(strides[0] * 2**scale for scale in range(4))
    net = load("crossformer.CrossFormer")(
        channels=config["channels"], num_classes=config["num_classes"],
        dim=widths(config["dim"], strides), depth=spread(config["depth"], 4),
        global_window_size=windows, local_window_size=windows, cross_embed_strides=strides,
        cross_embed_kernel_sizes=(scales, *((stride, stride + 2) for stride in strides[1:])),
        attn_dropout=config["dropout"], ff_dropout=config["dropout"],
    )  # fmt: skip
    return nn.Sequential(pad(config["image_size"], pyramid_multiple(config["image_size"])), net)


def cvt(config: Config) -> nn.Module:
    """CvT (https://arxiv.org/abs/2103.15808); heads are 64 wide."""
    stride = 1 if config["image_size"] <= SMALL else 2
    side = -(-config["image_size"] // stride)
    depths, dims, heads = spread(config["depth"], 3), doubling(config["dim"], 3), doubling(config["heads"], 3)
    stages: dict[str, int] = {}
    for i, stage in enumerate(("s1", "s2", "s3")):
        side = -(-side // 2) if i else side
        stages |= {
            f"{stage}_emb_dim": dims[i], f"{stage}_heads": heads[i], f"{stage}_depth": depths[i],
            f"{stage}_mlp_mult": config["mlp_dim"] // config["dim"],
            f"{stage}_emb_stride": 2 if i else stride,
            f"{stage}_kv_proj_stride": 2 if side > 2 else 1,  # batch norm needs more than one place
        }  # fmt: skip
    return load("cvt.CvT")(
        channels=config["channels"], num_classes=config["num_classes"], dropout=config["dropout"], **stages
    )


def efficient(config: Config) -> nn.Module:
    """A ViT with linear attention (https://arxiv.org/abs/2006.16236), which is ours."""
    keys = ("dim", "depth", "heads", "dim_head", "mlp_dim", "dropout")
    return load("efficient.ViT")(
        transformer=LinearTransformer(**{key: config[key] for key in keys}),
        **{key: config[key] for key in ("image_size", "channels", "num_classes", "patch_size", "dim")},
    )


def jet_vit(config: Config) -> nn.Module:
    """JetViT (https://arxiv.org/abs/2605.26636): blocks of linear and of full attention in turn, instead of
    those that its search would choose.
    """
    kinds = [("LA", "FA")[block % 2] for block in range(config["depth"])]
    net = flat("jet_vit.JetViT", {"attn_layers": kinds})(config)
    for kind, (attention, _) in zip(kinds, net.transformer.layers, strict=True):
        attention.options = nn.ModuleDict({kind: attention.options[kind]})
    return net


def jumbo_vit(config: Config) -> nn.Module:
    """Jumbo (https://arxiv.org/abs/2502.15021): a class token six times as wide as the others.

    vit-pytorch takes both its feed-forward widths for expansion factors, so factors are passed; and it
    computes the last block's feed-forward layer of the patches in vain, so that is left out.
    """
    wide = 6 * config["dim"]
    net = load("jumbo_vit.JumboViT")(
        **sizes({**config, "mlp_dim": exact(config["mlp_dim"], config["dim"])}),
        channels=config["channels"], jumbo_ff_mult=exact(2, wide),
    )  # fmt: skip
    net.layers[-1][1] = nn.Identity()
    return net


def learnable_memory_vit(config: Config) -> nn.Module:
    """Ten memory tokens in each block (https://arxiv.org/abs/2203.15243), here learnt with all the rest."""
    module = importlib.import_module("vit_pytorch.learnable_memory_vit")
    vit = module.ViT(**sizes(config), channels=config["channels"])
    vit.mlp_head = nn.Identity()  # the memory's head is read
    return module.Adapter(vit=vit, num_classes=config["num_classes"]).requires_grad_(True)


def levit(config: Config) -> nn.Module:
    """LeViT (https://arxiv.org/abs/2104.01136); values are twice as wide as `dim_head`.

    The stem divides the side by 4 where the paper's divides 224 by 16, and keeps that of small images.
    """
    strides = (1, 1, 1, 1) if config["image_size"] <= SMALL else (1, 1, 2, 2)
    divisor = strides[2] * strides[3]
    side = padded(config["image_size"], divisor)
    net = load("levit.LeViT")(
        image_size=16 * side // divisor, num_classes=config["num_classes"],  # as if the stem divided by 16
        dim=doubling(config["dim"], 3), heads=doubling(config["heads"], 3), depth=spread(config["depth"], 3),
        mlp_mult=config["mlp_dim"] // config["dim"], dropout=config["dropout"],
        dim_key=config["dim_head"], dim_value=2 * config["dim_head"],
    )  # fmt: skip
    for convolution, stride in zip(net.conv_embedding, strides, strict=True):
        convolution.stride = (stride, stride)
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], divisor), net)


def local_vit(config: Config) -> nn.Module:
    """LocalViT (https://arxiv.org/abs/2104.05707).

    vit-pytorch's norm in the feed-forward layers is over columns of the map and fails; here it is over the
    channels. The last such layer, whose patches nothing reads, is left out.
    """
    net = flat("local_vit.LocalViT")(config)
    for module in list(net.modules()):
        if isinstance(module, load("local_vit.FeedForward")):
            module.net[0] = ChannelNorm(config["dim"])
    net.transformer.layers[-1][1] = nn.Identity()
    return net


def look_vit(config: Config) -> nn.Module:
    """LookupViT (https://arxiv.org/abs/2407.12753): `patch_size` is that of the few tokens that look up
    others, which lie on the next smaller patch.
    """
    factor = exact(config["mlp_dim"], config["dim"])
    arguments = sizes(config)
    del arguments["mlp_dim"]
    net = load("look_vit.LookViT")(
        **arguments, channels=config["channels"], mlp_factor=factor, highres_mlp_factor=factor,
        highres_patch_size=finer(config["patch_size"], config["image_size"]),
        cross_attn_heads=config["heads"], cross_attn_dim_head=config["dim_head"],
    )  # fmt: skip
    del net.pos_embedding  # learnt positions that nothing reads; it adds sines
    return net


def looped_vit(config: Config) -> nn.Module:
    """All blocks in a loop that is run twice (https://arxiv.org/abs/2609.40305)."""
    arguments = sizes(config)
    loop = {"pre_loop_depth": 0, "num_looped_blocks": arguments.pop("depth"), "post_loop_depth": 0}
    return load("looped_vit.LoopedViT")(**arguments, channels=config["channels"], **loop, loop_depth=2)


def max_vit(path: str) -> Builder:
    """MaxViT (https://arxiv.org/abs/2204.01697), with registers or without; of two stages, on an image padded
    to a multiple of 16, with dim / dim_head heads.
    """

    def build(config: Config) -> nn.Module:
        net = load(path)(
            channels=config["channels"], num_classes=config["num_classes"], dim=config["dim"],
            depth=spread(config["depth"], 2), dim_head=config["dim_head"], dropout=config["dropout"],
            window_size=window(padded(config["image_size"], 16) // 8),
        )  # fmt: skip
        return nn.Sequential(pad(config["image_size"], 16), net)

    return build


def mobile_vit(config: Config) -> nn.Module:
    """MobileViT-XXS (https://arxiv.org/abs/2110.02178), widened by dim / 64; on an image padded to a multiple
    of 32, which the first convolution does not halve.
    """
    side, unit = padded(config["image_size"], 32), config["dim"] // 8
    net = load("mobile_vit.MobileViT")(
        image_size=(side, side), num_classes=config["num_classes"], depths=spread(config["depth"], 3),
        dims=[8 * unit, 10 * unit, 12 * unit],
        channels=[unit * n for n in (2, 2, 3, 3, 6, 6, 8, 8, 10, 10, 40)],
    )  # fmt: skip
    net.conv1[0].stride = (1, 1)
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], 32), net)


def nest(config: Config) -> nn.Module:
    """NesT (https://arxiv.org/abs/2105.12723), of two hierarchies."""
    arguments = sizes(config)
    mult = arguments.pop("mlp_dim") // config["dim"]
    blocks = spread(arguments.pop("depth"), 2)
    return load("nest.NesT")(
        **arguments, channels=config["channels"], num_hierarchies=2, block_repeats=blocks, mlp_mult=mult
    )


def normalized_vit(config: Config) -> nn.Module:
    """nViT (https://arxiv.org/abs/2410.01131), whose residuals vit-pytorch cannot mix under autocast."""
    net = flat("normalized_vit.nViT")(config)
    for block in net.layers:
        block[0], block[1] = (nn.Sequential(part, SinglePrecision()) for part in block)
    return net


def pit(config: Config) -> nn.Module:
    """PiT (https://arxiv.org/abs/2103.16302), of three stages; patches overlap by half, `mlp_dim` is the same
    in all.
    """
    stages = {"depth": spread(config["depth"], 3), "heads": doubling(config["heads"], 3)}
    return load("pit.PiT")(**{**sizes(config), **stages}, channels=config["channels"])


def regionvit(config: Config) -> nn.Module:
    """RegionViT (https://arxiv.org/abs/2106.02689); the image padded to a multiple of 16; 4 heads 32 wide."""
    side = padded(config["image_size"], 16)
    net = load("regionvit.RegionViT")(
        num_classes=config["num_classes"], dim=doubling(config["dim"], 4), depth=spread(config["depth"], 4),
        window_size=region_window(side // 4), attn_dropout=config["dropout"], ff_dropout=config["dropout"],
    )  # fmt: skip
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], 16), net)


def scalable_vit(config: Config) -> nn.Module:
    """ScalableViT (https://arxiv.org/abs/2203.10790) of two stages on an image padded to a multiple of 16."""
    width = config["dim_head"]
    net = load("scalable_vit.ScalableViT")(
        channels=config["channels"], num_classes=config["num_classes"], dropout=config["dropout"],
        dim=config["dim"], depth=spread(config["depth"], 2), heads=doubling(config["heads"], 2),
        ff_expansion_factor=config["mlp_dim"] // config["dim"],
        ssa_dim_key=width, ssa_dim_value=width, iwsa_dim_key=width, iwsa_dim_value=width,
        reduction_factor=(2, 1), window_size=(part(padded(config["image_size"], 16) // 4), None),
    )  # fmt: skip
    return nn.Sequential(pad(config["image_size"], 16), net)


def sep_vit(config: Config) -> nn.Module:
    """SepViT (https://arxiv.org/abs/2203.15380), of two stages, on an image padded to a multiple of 16, whose
    maps have several windows; heads are 32 wide.
    """
    net = load("sep_vit.SepViT")(
        channels=config["channels"], num_classes=config["num_classes"], dropout=config["dropout"],
        dim=config["dim"], depth=spread(config["depth"], 2), heads=doubling(config["heads"], 2),
        ff_mult=exact(config["mlp_dim"], config["dim"]),
    )  # fmt: skip
    for stage, (_, _, transformer) in enumerate(net.layers):
        side = padded(config["image_size"], 16) // (4, 8)[stage]
        for attention, _ in transformer.layers:
            attention.window_size = part(side)  # the constructor's does not reach it
    return nn.Sequential(pad(config["image_size"], 16), net)


def simple_flash_attn_vit(config: Config) -> nn.Module:
    """SimpleViT by a fused kernel (https://arxiv.org/abs/2205.14135), the choice of which is torch's:
    vit-pytorch asks an A100 for one that has no fp32.
    """
    net = flat("simple_flash_attn_vit.SimpleViT")(config)
    for attention, _ in net.transformer.layers:
        attention.attend = FusedAttention()
    return net


def simple_vit_with_qk_norm(config: Config) -> nn.Module:
    """SimpleViT with norms of queries and keys (https://arxiv.org/abs/2302.05442).

    vit-pytorch's ends in a norm instead of a head; here it has both.
    """
    net = flat("simple_vit_with_qk_norm.SimpleViT")(config)
    net.linear_head = nn.Sequential(net.linear_head, nn.Linear(config["dim"], config["num_classes"]))
    return net


def simple_vit_with_relative_proj_pos_bias(config: Config) -> nn.Module:
    """SimpleViT with a bias by relative position, projected from the token."""
    side = config["image_size"] // config["patch_size"]
    return flat("simple_vit_with_relative_proj_pos_bias.SimpleViT", {"max_dist": side})(config)


def twins_svt(config: Config) -> nn.Module:
    """Twins-SVT (https://arxiv.org/abs/2104.13840); 8 heads, 64 wide; about 4x4 keys in global attention."""
    strides, sides = pyramid(config["image_size"])
    depths, dims = spread(config["depth"], 4), widths(config["dim"], strides)
    stages: dict[str, int] = {}
    for i, side in enumerate(sides):
        stages |= {
            f"s{i + 1}_emb_dim": dims[i], f"s{i + 1}_patch_size": strides[i],
            f"s{i + 1}_depth": depths[i] - 1,  # each stage has one more, before its positions
            f"s{i + 1}_local_patch_size": part(side),
            f"s{i + 1}_global_k": max(1, side // 4),
        }  # fmt: skip
    net = load("twins_svt.TwinsSVT")(num_classes=config["num_classes"], dropout=config["dropout"], **stages)
    multiple = pyramid_multiple(config["image_size"])
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], multiple), net)


def vit_with_patch_merger(config: Config) -> nn.Module:
    """A ViT whose tokens are merged to eight halfway (https://arxiv.org/abs/2202.12015)."""
    return flat("vit_with_patch_merger.ViT", {"patch_merge_layer": max(1, config["depth"] // 2)})(config)


def t2t(config: Config) -> nn.Module:
    """T2T-ViT (https://arxiv.org/abs/2101.11986) of two soft splits, which divide the side by four."""
    return flat("t2t.T2TViT", {"t2t_layers": ((3, 2), (3, 2))})(config)


def simple_vit_with_fft(config: Config) -> nn.Module:
    """SimpleViT on the patches of the image and of its Fourier transform."""
    return flat("simple_vit_with_fft.SimpleViT", {"freq_patch_size": config["patch_size"]})(config)


def na_vit(config: Config) -> nn.Module:
    """NaViT (https://arxiv.org/abs/2307.06304): positions by row and column, pooling by attention."""
    return OneSize(flat("na_vit.NaViT")(config))


MECHANISMS: dict[str, Builder] = {
    "ats_vit": ats_vit,
    "attn_residual_with_dca_simple_vit": flat(  # arXiv:2502.06785
        "attn_residual_with_dca_simple_vit.SimpleViT"
    ),
    "cait": rgb("cait.CaiT", {"cls_depth": 2}),  # arXiv:2103.17239
    "cct": cct,
    "cross_vit": cross_vit,
    "crossformer": crossformer,
    "cvt": cvt,
    "efficient": efficient,
    "jet_vit": jet_vit,
    "jumbo_vit": jumbo_vit,
    "learnable_memory_vit": learnable_memory_vit,
    "levit": levit,
    "local_vit": local_vit,
    "look_vit": look_vit,
    "looped_vit": looped_vit,
    "max_vit": max_vit("max_vit.MaxViT"),
    "max_vit_with_registers": max_vit("max_vit_with_registers.MaxViT"),
    "mobile_vit": mobile_vit,
    "na_vit": na_vit,
    "nest": nest,
    "normalized_vit": normalized_vit,
    "parallel_vit": flat("parallel_vit.ViT"),  # arXiv:2203.09795
    "pit": pit,
    "regionvit": regionvit,
    "rvt": flat("rvt.RvT"),  # arXiv:2104.09864
    "scalable_vit": scalable_vit,
    "sep_vit": sep_vit,
    "simple_flash_attn_vit": simple_flash_attn_vit,
    "simple_uvit": flat("simple_uvit.SimpleUViT"),  # arXiv:2209.12152
    "simple_vit": flat("simple_vit.SimpleViT"),  # arXiv:2205.01580
    "simple_vit_attn_residual": flat("simple_vit_attn_residual.SimpleViTAttnResidual"),  # arXiv:2603.15031
    "simple_vit_orthog_residual_update": flat(  # arXiv:2505.11881
        "simple_vit_orthog_residual_update.SimpleViT"
    ),
    "simple_vit_with_fft": simple_vit_with_fft,
    "simple_vit_with_hyper_connections": flat(  # arXiv:2409.19606
        "simple_vit_with_hyper_connections.SimpleViT", {"num_residual_streams": 4}
    ),
    "simple_vit_with_patch_dropout": flat("simple_vit_with_patch_dropout.SimpleViT"),  # arXiv:2208.07220
    "simple_vit_with_qk_norm": simple_vit_with_qk_norm,
    "simple_vit_with_register_tokens": flat("simple_vit_with_register_tokens.SimpleViT"),  # arXiv:2309.16588
    "simple_vit_with_relative_proj_pos_bias": simple_vit_with_relative_proj_pos_bias,
    "simple_vit_with_sparse_gating": flat("simple_vit_with_sparse_gating.SimpleViTWithSparseGating"),
    "simple_vit_with_specialized_cls": flat("simple_vit_with_specialized_cls.SimpleViT"),  # arXiv:2602.08626
    "simple_vit_with_value_residual": flat("simple_vit_with_value_residual.SimpleViT"),  # arXiv:2410.17897
    "t2t": t2t,
    "twins_svt": twins_svt,
    "vat": flat("vat.ViT", {"num_register_tokens": 4}),  # heads with gates, arXiv:2505.06708
    "vit_5": flat("vit_5.ViT"),  # arXiv:2602.08071
    "vit_for_small_dataset": flat("vit_for_small_dataset.ViT"),  # arXiv:2112.13492
    "vit_with_keel_post_ln": flat("vit_with_keel_post_ln.ViT"),  # arXiv:2601.19895
    "vit_with_patch_dropout": flat("vit_with_patch_dropout.ViT"),  # arXiv:2208.07220
    "vit_with_patch_merger": vit_with_patch_merger,
    "wwt": flat("wwt.WWT", {"num_slots": 8}),  # arXiv:2605.12021
    "xcit": rgb("xcit.XCiT", {"cls_depth": 2}),  # arXiv:2106.09681
}
