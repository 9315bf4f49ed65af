"""Mechanisms whose tokens stay as many from block to block, where building takes more than the arguments."""

import importlib

from torch import nn

from attnsweep.tasks.images.models.drop_path import with_drop_path
from attnsweep.tasks.images.models.vit_pytorch_private import replace
from attnsweep.tasks.images.models.zoo import parts
from attnsweep.tasks.images.models.zoo.arguments import Config, flat, load, sizes
from attnsweep.tasks.images.models.zoo.rules import exact, finer


def ats_vit(config: Config) -> nn.Module:
    """ATS (https://arxiv.org/abs/2111.15667); the tokens kept fall evenly to half in the last block."""
    tokens, depth = (config["image_size"] // config["patch_size"]) ** 2, config["depth"]
    keep = tuple(tokens - tokens * (block + 1) // (2 * depth) for block in range(depth))
    net = flat("ats_vit.ViT", {"max_tokens_per_depth": keep})(config)
    for attention, _ in net.transformer.layers:
        replace(attention, "ats", parts.TokenSampling(attention.output_num_tokens))
    return net


def attn_residual_with_dca_simple_vit(config: Config) -> nn.Module:
    """SimpleViT whose blocks attend to all earlier ones (https://arxiv.org/abs/2502.06785)."""
    net = flat("attn_residual_with_dca_simple_vit.SimpleViT")(config)
    for module in [*net.modules()]:
        for name, norm in module.named_children():
            if isinstance(norm, nn.RMSNorm):
                setattr(module, name, parts.RMSNorm([*norm.normalized_shape], norm.eps))
    return net


def efficient(config: Config) -> nn.Module:
    """A ViT with linear attention (https://arxiv.org/abs/2006.16236), which is ours."""
    keys = ("dim", "depth", "heads", "dim_head", "mlp_dim", "dropout")
    return load("efficient.ViT")(
        transformer=parts.LinearTransformer(**{key: config[key] for key in keys}),
        **{key: config[key] for key in ("image_size", "channels", "num_classes", "patch_size", "dim")},
    )


def jet_vit(config: Config) -> nn.Module:
    """JetViT (https://arxiv.org/abs/2605.26636): linear and full attention in turn, without its search."""
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
    replace(vit, "mlp_head", nn.Identity())  # the memory's head is read
    return module.Adapter(vit=vit, num_classes=config["num_classes"]).requires_grad_(True)


def local_vit(config: Config) -> nn.Module:
    """LocalViT (https://arxiv.org/abs/2104.05707).

    vit-pytorch's norm in the feed-forward layers is over columns of the map and fails; here it is over the
    channels. The last such layer, whose patches nothing reads, is left out.
    """
    net = flat("local_vit.LocalViT")(config)
    for module in list(net.modules()):
        if isinstance(module, load("local_vit.FeedForward")):
            module.net[0] = parts.ChannelNorm(config["dim"])
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


def normalized_vit(config: Config) -> nn.Module:
    """nViT (https://arxiv.org/abs/2410.01131), whose residuals vit-pytorch cannot mix under autocast."""
    net = flat("normalized_vit.nViT")(config)
    for block in net.layers:
        block[0], block[1] = (nn.Sequential(part, parts.SinglePrecision()) for part in block)
    return net


def simple_flash_attn_vit(config: Config) -> nn.Module:
    """SimpleViT by a fused kernel (https://arxiv.org/abs/2205.14135), the choice of which is torch's:
    vit-pytorch asks an A100 for one that has no fp32.
    """
    net = flat("simple_flash_attn_vit.SimpleViT")(config)
    for attention, _ in net.transformer.layers:
        replace(attention, "attend", parts.FusedAttention())
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


def rvt(config: Config) -> nn.Module:
    """RvT: rotary positions, queries by convolution (https://arxiv.org/abs/2104.09864).

    In the last block the convolution for the queries of patches, whose outputs nothing reads, is left out.
    """
    net = flat("rvt.RvT")(config)
    last, _ = net.transformer.layers[-1]
    last.to_q = parts.ClassQueries(last.to_q.cls_proj)
    return net


def simple_vit_with_specialized_cls(config: Config) -> nn.Module:
    """SimpleViT whose class token has norms and projections of its own (https://arxiv.org/abs/2602.08626).

    The patches' two norms after the last attention, whose outputs nothing reads, are left out.
    """
    net = flat("simple_vit_with_specialized_cls.SimpleViT")(config)
    _, feed_forward = net.transformer.layers[-1]
    for norm in (feed_forward.norm, net.transformer.norm):
        norm.fns[1] = nn.Identity()
    return net


def vit_with_patch_merger(config: Config) -> nn.Module:
    """A ViT whose tokens are merged to eight halfway (https://arxiv.org/abs/2202.12015).

    It has no class token; the position of one is left out.
    """
    net = flat("vit_with_patch_merger.ViT", {"patch_merge_layer": max(1, config["depth"] // 2)})(config)
    net.pos_embedding = nn.Parameter(net.pos_embedding[:, :-1].detach().clone())
    return net


def wwt(config: Config) -> nn.Module:
    """WWT: tokens and eight slots attend to each other (https://arxiv.org/abs/2605.12021).

    The logits are read off the slots: what the last block would compute for the tokens and for a next block,
    an eighth of the parameters, is left out.
    """
    net = flat("wwt.WWT", {"num_slots": 8})(config)
    net.layers[-1] = parts.SlotsOnly(net.layers[-1])
    return net


def simple_vit(config: Config) -> nn.Module:
    """The plain ViT made simpler: mean pooling, positions of sines (https://arxiv.org/abs/2205.01580)."""
    return with_drop_path(flat("simple_vit.SimpleViT")(config), config["drop_path"])


def simple_vit_with_fft(config: Config) -> nn.Module:
    """SimpleViT on the patches of the image and of its Fourier transform."""
    return flat("simple_vit_with_fft.SimpleViT", {"freq_patch_size": config["patch_size"]})(config)


def na_vit(config: Config) -> nn.Module:
    """NaViT (https://arxiv.org/abs/2307.06304): positions by row and column, pooling by attention."""
    return parts.OneSize(flat("na_vit.NaViT")(config))
