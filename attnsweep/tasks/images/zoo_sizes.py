"""What the mechanisms of the zoo (models/zoo) take, and which sizes fit each; needs no torch."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.patches import default, divisors, is_seen, nearest, unseen

PLAIN = ("depth", "heads", "dim", "dim_head", "mlp_dim", "patch_size")

# Which axes change the mechanism; what is missing its constructor cannot express.
ALIKE: dict[tuple[str, ...], tuple[str, ...]] = {
    PLAIN: (
        "attn_residual_with_dca_simple_vit", "jumbo_vit", "simple_flash_attn_vit", "simple_uvit",
        "simple_vit_attn_residual", "simple_vit_orthog_residual_update", "simple_vit_with_fft",
        "simple_vit_with_hyper_connections", "simple_vit_with_patch_dropout", "simple_vit_with_qk_norm",
        "simple_vit_with_register_tokens", "simple_vit_with_relative_proj_pos_bias",
        "simple_vit_with_sparse_gating", "simple_vit_with_specialized_cls", "simple_vit_with_value_residual",
    ),
    (*PLAIN, "dropout"): ("efficient", "look_vit", "normalized_vit", "rvt", "wwt"),
    (*PLAIN, "dropout", "emb_dropout"): (
        "ats_vit", "cait", "cross_vit", "jet_vit", "learnable_memory_vit", "local_vit", "looped_vit",
        "na_vit", "parallel_vit", "pit", "vat", "vit_5", "vit_for_small_dataset", "vit_with_keel_post_ln",
        "vit_with_patch_dropout", "vit_with_patch_merger", "xcit",
    ),
    ("depth", "heads", "dim", "dim_head", "mlp_dim", "dropout", "emb_dropout"): ("t2t",),
    ("depth", "heads", "dim", "dim_head", "mlp_dim", "dropout"): ("levit", "scalable_vit"),
    ("depth", "heads", "dim", "mlp_dim", "patch_size", "dropout"): ("nest",),
    ("depth", "heads", "dim", "mlp_dim", "dropout", "drop_path"): ("cct",),
    ("depth", "heads", "dim", "mlp_dim", "dropout"): ("cvt", "sep_vit"),
    ("depth", "dim", "dim_head", "dropout"): ("max_vit", "max_vit_with_registers"),
    ("depth", "dim", "dropout"): ("crossformer", "regionvit", "twins_svt"),
    ("depth", "dim"): ("mobile_vit",),
    (*PLAIN, "drop_path"): ("simple_vit",),
}  # fmt: skip
TAKES = dict(sorted((model, axes) for axes, models in ALIKE.items() for model in models))

# The other modules of vit-pytorch, each with the reason why no model here is built from it. `vit` and
# `deepvit` have files of their own.
VIDEO = "takes video or volumes, not images"
PRETRAINING = "trains another model without labels and classifies nothing itself"
NOT_CARRIED: dict[str, str] = dict(sorted({
    **dict.fromkeys((
        "accept_video_wrapper", "cct_3d", "na_vit_nested_tensor_3d", "simple_flash_attn_vit_3d",
        "simple_vit_3d", "vit_3d", "vivit", "vivit_with_moss",
    ), VIDEO),
    **dict.fromkeys(
        ("dino", "es_vit", "lejepa", "levjepa", "levjepa_nd", "mae", "mp3", "mpp", "simmim"), PRETRAINING
    ),
    "distill": "trains a model on the answers of another that has been trained before",
    "extractor": "reads out the embeddings inside another model",
    "na_vit_nested_tensor": "is na_vit for images of many sizes in a batch; a data set here has one size",
    "recorder": "reads out the attention maps inside another model",
    "simple_vit_1d": "takes series, not images",
    "vaat": "takes video and sound and gives actions of a robot",
    "vat_siglip": "takes views and joint angles of a robot and gives its actions",
    "vit_1d": "takes series, not images",
    "vit_detpool": "attends and pools within a mask of the object; without one it is a ViT with mean pooling",
    "vit_nd": "is vit for arrays of any number of axes",
    "vit_nd_masking": "has the causal masks of the modules for any number of axes, and no model",
    "vit_nd_pope": "is vit_nd with polar instead of rotary positions",
    "vit_nd_rotary": "is vit_nd with rotary positions; for images rvt has them",
    "vit_with_decorr": "is the ViT with a second loss, on correlated features; a model here has one loss",
}.items()))  # fmt: skip

SINES = [  # positions are sines and cosines of two coordinates
    "attn_residual_with_dca_simple_vit", "jumbo_vit", "look_vit",
    *(model for model in TAKES if model.startswith("simple_")),
]  # fmt: skip
# An axis must be a whole multiple of a number or of another axis.
MULTIPLES: dict[str, dict[str, int | str]] = {
    **{model: {"dim": 4} for model in SINES},
    "cct": {"dim": "heads"},
    "cross_vit": {"dim": 2, "mlp_dim": 2},  # its branch of small patches is half as wide
    "cvt": {"mlp_dim": "dim"},
    "jet_vit": {"dim": "dim_head"},
    "levit": {"mlp_dim": "dim"},
    "max_vit": {"dim": "dim_head"},
    "max_vit_with_registers": {"dim": "dim_head"},
    "mobile_vit": {"dim": 8},
    "nest": {"dim": "heads", "mlp_dim": "dim"},
    "scalable_vit": {"mlp_dim": "dim"},
    "vit_5": {"dim_head": 4},
}
# The least value of an axis: a block in every stage, an angle for every coordinate, a head in every block.
STAGES: dict[str, dict[str, int]] = {
    "cross_vit": {"dim": 6},  # its branch of small patches is half as wide
    "crossformer": {"depth": 4, "dim": 32},
    "cvt": {"depth": 3, "image_size": 5},
    "jet_vit": {"dim_head": 4},
    "levit": {"depth": 3, "image_size": 5},
    "looped_vit": {"dim_head": 2},  # it norms queries and keys
    "max_vit": {"depth": 2},
    "max_vit_with_registers": {"depth": 2},
    "mobile_vit": {"depth": 3},
    "nest": {"depth": 2},
    "pit": {"depth": 3},
    "regionvit": {"depth": 4},
    "scalable_vit": {"depth": 2},
    "sep_vit": {"depth": 2},
    "twins_svt": {"depth": 4},
    "vit_with_keel_post_ln": {"depth": 2},
}
LEAST = {  # of one value a layer norm leaves nothing, of two a sign
    model: {"dim": 8 if model in SINES else 3, **STAGES.get(model, {})} for model in TAKES
}
# Of mechanisms that are built otherwise than at first: raised, their trials run again.
REVISIONS = dict.fromkeys(("rvt", "simple_vit_with_specialized_cls", "vit_with_patch_merger", "wwt"), 2)
UNNORMED = (  # embed the values of a patch as they are, or several patches' together
    "look_vit", "looped_vit", "normalized_vit", "parallel_vit", "pit", "rvt", "simple_vit_with_fft", "vit_5",
    "vit_for_small_dataset", "vit_with_patch_dropout",
)  # fmt: skip
FINER = ("cross_vit", "look_vit", "pit")  # cut a second time, with finer or overlapping patches


def check(config: Mapping[str, Any]) -> None:
    """Raises UserError, naming the values that fit, where a mechanism cannot be built at these sizes, which
    are complete: `default_patch` has been asked where no patch was.
    """
    model = config["model"]
    for key, least in LEAST.get(model, {}).items():
        if config[key] < least:
            raise UserError(f"{key}={config[key]} is too small for {model}; use {least} or more")
    for key, of in MULTIPLES.get(model, {}).items():
        check_multiple(config, key, of)
    if "patch_size" in TAKES[model]:
        check_patch(config)


def check_multiple(config: Mapping[str, Any], key: str, of: int | str) -> None:
    """Raises UserError where `key` is no multiple of a number or of another axis."""
    step, value = (config[of] if isinstance(of, str) else of), config[key]
    if value % step:
        name = f"{of}={step}" if isinstance(of, str) else str(of)
        least = LEAST.get(config["model"], {}).get(key, 1)
        near = ", ".join(str(n * step) for n in (value // step, value // step + 1) if n * step >= least)
        raise UserError(f"{key}={value} is no multiple of {name}, as {config['model']} needs; use {near}")


def check_patch(config: Mapping[str, Any]) -> None:
    """Raises UserError where the patch is none that fits."""
    model, side, asked, fit = config["model"], config["image_size"], config["patch_size"], patches(config)
    if asked in fit:
        return
    if asked == 1 and model not in FINER and is_cut(config, asked):
        raise unseen(model, asked, fit)
    raise UserError(
        f"patch_size={asked} does not fit {model} on images {side} wide; use {nearest(fit, asked)}"
    )


def patches(config: Mapping[str, Any]) -> list[int]:
    """The sides of patches that fit, ascending: they divide the image, and the mechanism sees them.

    Raises UserError where there is none.
    """
    model, channels = config["model"], config["channels"]
    fit = [size for size in divisors(config["image_size"]) if is_cut(config, size)]
    if model == "cross_vit":  # its other branch sees the next smaller patch
        fit = [size for smaller, size in pairwise([1, *fit]) if is_seen(smaller, channels)]
    elif model not in UNNORMED:
        fit = [size for size in fit if is_seen(size, channels)]
    if not fit:
        raise UserError(f"image_size={config['image_size']} cannot be cut for {model}; use an even one")
    return fit


def is_cut(config: Mapping[str, Any], size: int) -> bool:
    """Whether the mechanism can cut the image into patches of that side, which divides it.

    Of 2 or more where it is cut again; smaller than the image for XCiT, whose batch norm needs several; an
    even number of them for NesT, which halves the map.
    """
    model, count = config["model"], config["image_size"] // size
    if config["image_size"] % size:
        return False
    if model in FINER:
        return size > 1
    return count > 1 if model == "xcit" else count % 2 == 0 or model != "nest"


def default_patch(config: Mapping[str, Any]) -> int | None:
    """The patch where none is asked for; null where the mechanism takes none.

    Raises UserError where there is none.
    """
    if "patch_size" not in TAKES[config["model"]]:
        return None
    return default(patches(config), config["image_size"])
