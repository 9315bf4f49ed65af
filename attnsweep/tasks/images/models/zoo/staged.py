"""Mechanisms in stages, whose maps shrink while they widen, or with convolutions or several branches."""

from torch import nn

from attnsweep.tasks.images.models.vit_pytorch_private import replace
from attnsweep.tasks.images.models.zoo import rules
from attnsweep.tasks.images.models.zoo.arguments import Builder, Config, flat, load, sizes
from attnsweep.tasks.images.models.zoo.parts import ThreeChannels, pad


def cct(config: Config) -> nn.Module:
    """CCT-depth/3x2, of small images 3x1 (https://arxiv.org/abs/2104.05704)."""
    return load("cct.CCT")(
        img_size=config["image_size"], n_input_channels=config["channels"], num_classes=config["num_classes"],
        n_conv_layers=2 if config["image_size"] > rules.SMALL else 1, kernel_size=3, stride=1, padding=1,
        embedding_dim=config["dim"], num_layers=config["depth"], num_heads=config["heads"],
        mlp_ratio=rules.exact(config["mlp_dim"], config["dim"]), positional_embedding="learnable",
        dropout_rate=config["dropout"], attention_dropout=config["dropout"],
        stochastic_depth_rate=config["drop_path"] or 0,
    )  # fmt: skip


def cross_vit(config: Config) -> nn.Module:
    """CrossViT (https://arxiv.org/abs/2103.14899); per unit of depth, a block in each branch and an exchange.

    `dim`, `mlp_dim` and `patch_size`: of large patches; the other branch is half as wide, on smaller ones.
    """
    dim, mlp_dim, heads, dim_head = (config[key] for key in ("dim", "mlp_dim", "heads", "dim_head"))
    return load("cross_vit.CrossViT")(
        image_size=config["image_size"], channels=config["channels"], num_classes=config["num_classes"],
        depth=config["depth"], dropout=config["dropout"], emb_dropout=config["emb_dropout"],
        lg_dim=dim, lg_patch_size=config["patch_size"],
        lg_enc_depth=1, lg_enc_heads=heads, lg_enc_dim_head=dim_head, lg_enc_mlp_dim=mlp_dim,
        sm_dim=dim // 2, sm_patch_size=rules.finer(config["patch_size"], config["image_size"]),
        sm_enc_depth=1, sm_enc_heads=heads, sm_enc_dim_head=dim_head, sm_enc_mlp_dim=mlp_dim // 2,
        cross_attn_depth=1, cross_attn_heads=heads, cross_attn_dim_head=dim_head,
    )  # fmt: skip


def crossformer(config: Config) -> nn.Module:
    """CrossFormer (https://arxiv.org/abs/2108.00154): of near and far attention a block each per depth."""
    strides, sides = rules.pyramid(config["image_size"])
    windows = tuple(map(rules.part, sides))
    scales = tuple(strides[0] * 2**scale for scale in range(4))
    net = load("crossformer.CrossFormer")(
        channels=config["channels"], num_classes=config["num_classes"],
        dim=rules.widths(config["dim"], strides), depth=rules.spread(config["depth"], 4),
        global_window_size=windows, local_window_size=windows, cross_embed_strides=strides,
        cross_embed_kernel_sizes=(scales, *((stride, stride + 2) for stride in strides[1:])),
        attn_dropout=config["dropout"], ff_dropout=config["dropout"],
    )  # fmt: skip
    return nn.Sequential(pad(config["image_size"], rules.pyramid_multiple(config["image_size"])), net)


def cvt(config: Config) -> nn.Module:
    """CvT (https://arxiv.org/abs/2103.15808); heads are 64 wide."""
    stride = 1 if config["image_size"] <= rules.SMALL else 2
    side = -(-config["image_size"] // stride)
    depths, dims = rules.spread(config["depth"], 3), rules.doubling(config["dim"], 3)
    heads = rules.doubling(config["heads"], 3)
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


def levit(config: Config) -> nn.Module:
    """LeViT (https://arxiv.org/abs/2104.01136); values are twice as wide as `dim_head`.

    The stem divides the side by 4 where the paper's divides 224 by 16, and keeps that of small images.
    """
    strides = (1, 1, 1, 1) if config["image_size"] <= rules.SMALL else (1, 1, 2, 2)
    divisor = strides[2] * strides[3]
    side = rules.padded(config["image_size"], divisor)
    net = load("levit.LeViT")(
        image_size=16 * side // divisor, num_classes=config["num_classes"],  # as if the stem divided by 16
        dim=rules.doubling(config["dim"], 3), heads=rules.doubling(config["heads"], 3),
        depth=rules.spread(config["depth"], 3), mlp_mult=config["mlp_dim"] // config["dim"],
        dim_key=config["dim_head"], dim_value=2 * config["dim_head"], dropout=config["dropout"],
    )  # fmt: skip
    for convolution, stride in zip(net.conv_embedding, strides, strict=True):
        replace(convolution, "stride", (stride, stride))
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], divisor), net)


def max_vit(path: str) -> Builder:
    """MaxViT (https://arxiv.org/abs/2204.01697), with registers or without; of two stages, on an image padded
    to a multiple of 16, with dim / dim_head heads.
    """

    def build(config: Config) -> nn.Module:
        net = load(path)(
            channels=config["channels"], num_classes=config["num_classes"], dim=config["dim"],
            depth=rules.spread(config["depth"], 2), dim_head=config["dim_head"], dropout=config["dropout"],
            window_size=rules.window(rules.padded(config["image_size"], 16) // 8),
        )  # fmt: skip
        return nn.Sequential(pad(config["image_size"], 16), net)

    return build


def mobile_vit(config: Config) -> nn.Module:
    """MobileViT-XXS (https://arxiv.org/abs/2110.02178), widened by dim / 64; on an image padded to a multiple
    of 32, which the first convolution does not halve.

    On images up to 32 wide each place of the last stage attends to itself alone: the queries and keys there,
    a hundredth of the parameters, never learn.
    """
    side, unit = rules.padded(config["image_size"], 32), config["dim"] // 8
    net = load("mobile_vit.MobileViT")(
        image_size=(side, side), num_classes=config["num_classes"], depths=rules.spread(config["depth"], 3),
        dims=[8 * unit, 10 * unit, 12 * unit],
        channels=[unit * n for n in (2, 2, 3, 3, 6, 6, 8, 8, 10, 10, 40)],
    )  # fmt: skip
    net.conv1[0].stride = (1, 1)
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], 32), net)


def nest(config: Config) -> nn.Module:
    """NesT (https://arxiv.org/abs/2105.12723), of two hierarchies."""
    arguments = sizes(config)
    mult = arguments.pop("mlp_dim") // config["dim"]
    blocks = rules.spread(arguments.pop("depth"), 2)
    return load("nest.NesT")(
        **arguments, channels=config["channels"], num_hierarchies=2, block_repeats=blocks, mlp_mult=mult
    )


def pit(config: Config) -> nn.Module:
    """PiT (https://arxiv.org/abs/2103.16302), of three stages; patches overlap by half, `mlp_dim` stays."""
    stages = {"depth": rules.spread(config["depth"], 3), "heads": rules.doubling(config["heads"], 3)}
    return load("pit.PiT")(**{**sizes(config), **stages}, channels=config["channels"])


def regionvit(config: Config) -> nn.Module:
    """RegionViT (https://arxiv.org/abs/2106.02689); the image padded to a multiple of 16; 4 heads 32 wide.

    A kernel that halves a map 2 wide has 5 of its 9 places on the padding, one on a map 1 wide has 8: on
    images of 28 to 32 pixels a tenth of the parameters never learn, on images of 8 pixels a fifth.
    """
    side = rules.padded(config["image_size"], 16)
    net = load("regionvit.RegionViT")(
        num_classes=config["num_classes"], attn_dropout=config["dropout"], ff_dropout=config["dropout"],
        dim=rules.doubling(config["dim"], 4), depth=rules.spread(config["depth"], 4),
        window_size=rules.region_window(side // 4),
    )  # fmt: skip
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], 16), net)


def scalable_vit(config: Config) -> nn.Module:
    """ScalableViT (https://arxiv.org/abs/2203.10790) of two stages on an image padded to a multiple of 16."""
    width = config["dim_head"]
    net = load("scalable_vit.ScalableViT")(
        channels=config["channels"], num_classes=config["num_classes"], dropout=config["dropout"],
        dim=config["dim"], depth=rules.spread(config["depth"], 2), heads=rules.doubling(config["heads"], 2),
        ff_expansion_factor=config["mlp_dim"] // config["dim"],
        ssa_dim_key=width, ssa_dim_value=width, iwsa_dim_key=width, iwsa_dim_value=width,
        reduction_factor=(2, 1), window_size=(rules.part(rules.padded(config["image_size"], 16) // 4), None),
    )  # fmt: skip
    return nn.Sequential(pad(config["image_size"], 16), net)


def sep_vit(config: Config) -> nn.Module:
    """SepViT (https://arxiv.org/abs/2203.15380), of two stages, on an image padded to a multiple of 16, whose
    maps have several windows; heads are 32 wide.
    """
    net = load("sep_vit.SepViT")(
        channels=config["channels"], num_classes=config["num_classes"], dropout=config["dropout"],
        dim=config["dim"], depth=rules.spread(config["depth"], 2), heads=rules.doubling(config["heads"], 2),
        ff_mult=rules.exact(config["mlp_dim"], config["dim"]),
    )  # fmt: skip
    for stage, (_, _, transformer) in enumerate(net.layers):
        side = rules.padded(config["image_size"], 16) // (4, 8)[stage]
        for attention, _ in transformer.layers:
            replace(attention, "window_size", rules.part(side))  # the constructor's does not reach it
    return nn.Sequential(pad(config["image_size"], 16), net)


def twins_svt(config: Config) -> nn.Module:
    """Twins-SVT (https://arxiv.org/abs/2104.13840); 8 heads, 64 wide; about 4x4 keys in global attention."""
    strides, sides = rules.pyramid(config["image_size"])
    depths, dims = rules.spread(config["depth"], 4), rules.widths(config["dim"], strides)
    stages: dict[str, int] = {}
    for i, side in enumerate(sides):
        stages |= {
            f"s{i + 1}_emb_dim": dims[i], f"s{i + 1}_patch_size": strides[i],
            f"s{i + 1}_depth": depths[i] - 1,  # each stage has one more, before its positions
            f"s{i + 1}_local_patch_size": rules.part(side),
            f"s{i + 1}_global_k": max(1, side // 4),
        }  # fmt: skip
    net = load("twins_svt.TwinsSVT")(num_classes=config["num_classes"], dropout=config["dropout"], **stages)
    multiple = rules.pyramid_multiple(config["image_size"])
    return nn.Sequential(ThreeChannels(), pad(config["image_size"], multiple), net)


def t2t(config: Config) -> nn.Module:
    """T2T-ViT (https://arxiv.org/abs/2101.11986) of two soft splits, which divide the side by four."""
    return flat("t2t.T2TViT", {"t2t_layers": ((3, 2), (3, 2))})(config)
