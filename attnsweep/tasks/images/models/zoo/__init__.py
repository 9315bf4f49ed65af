"""The zoo: the image classifiers of vit-pytorch that have no file of their own here, each by the name of its
module there.

Every builder takes a configuration and gives a module from images (b, c, s, s) to logits (b, num_classes).
`tasks.images.zoo_sizes` says which sizes each takes and which fit; what a mechanism has beyond them is fixed
here, by these rules:

- Where a mechanism has stages, `dim` and `heads` are those of the first and double where the map is halved;
  `depth` is the blocks of all stages together: equal shares, the rest to the last stage but one, the papers'
  main one (of two stages, to the second).
- Maps are made for images 32 wide, not 224: stems keep more of the image, windows are the largest that divide
  the map, up to 8, and images are padded with zeros where a mechanism must halve its map.
- Where the constructor wants three channels, a single one is repeated.
"""

from attnsweep.tasks.images.models.zoo import staged, uniform
from attnsweep.tasks.images.models.zoo.arguments import Builder, flat, rgb

BY_NAME: tuple[Builder, ...] = (  # each the builder of the mechanism of its name
    staged.cct, staged.cross_vit, staged.crossformer, staged.cvt, staged.levit, staged.mobile_vit,
    staged.nest, staged.pit, staged.regionvit, staged.scalable_vit, staged.sep_vit, staged.t2t,
    staged.twins_svt,
    uniform.ats_vit, uniform.attn_residual_with_dca_simple_vit, uniform.efficient, uniform.jet_vit,
    uniform.jumbo_vit, uniform.learnable_memory_vit, uniform.local_vit, uniform.look_vit, uniform.looped_vit,
    uniform.na_vit, uniform.normalized_vit, uniform.rvt, uniform.simple_flash_attn_vit, uniform.simple_vit,
    uniform.simple_vit_with_fft, uniform.simple_vit_with_qk_norm,
    uniform.simple_vit_with_relative_proj_pos_bias, uniform.simple_vit_with_specialized_cls,
    uniform.vit_with_patch_merger, uniform.wwt,
)  # fmt: skip
MECHANISMS: dict[str, Builder] = {
    **{builder.__name__: builder for builder in BY_NAME},
    "cait": rgb("cait.CaiT", {"cls_depth": 2}),  # arXiv:2103.17239
    "max_vit": staged.max_vit("max_vit.MaxViT"),
    "max_vit_with_registers": staged.max_vit("max_vit_with_registers.MaxViT"),
    "parallel_vit": flat("parallel_vit.ViT"),  # arXiv:2203.09795
    "simple_uvit": flat("simple_uvit.SimpleUViT"),  # arXiv:2209.12152
    "simple_vit_attn_residual": flat("simple_vit_attn_residual.SimpleViTAttnResidual"),  # arXiv:2603.15031
    "simple_vit_orthog_residual_update": flat(  # arXiv:2505.11881
        "simple_vit_orthog_residual_update.SimpleViT"
    ),
    "simple_vit_with_hyper_connections": flat(  # arXiv:2409.19606
        "simple_vit_with_hyper_connections.SimpleViT", {"num_residual_streams": 4}
    ),
    "simple_vit_with_patch_dropout": flat("simple_vit_with_patch_dropout.SimpleViT"),  # arXiv:2208.07220
    "simple_vit_with_register_tokens": flat("simple_vit_with_register_tokens.SimpleViT"),  # arXiv:2309.16588
    "simple_vit_with_sparse_gating": flat("simple_vit_with_sparse_gating.SimpleViTWithSparseGating"),
    "simple_vit_with_value_residual": flat("simple_vit_with_value_residual.SimpleViT"),  # arXiv:2410.17897
    "vat": flat("vat.ViT", {"num_register_tokens": 4}),  # heads with gates, arXiv:2505.06708
    "vit_5": flat("vit_5.ViT"),  # arXiv:2602.08071
    "vit_for_small_dataset": flat("vit_for_small_dataset.ViT"),  # arXiv:2112.13492
    "vit_with_keel_post_ln": flat("vit_with_keel_post_ln.ViT"),  # arXiv:2601.19895
    "vit_with_patch_dropout": flat("vit_with_patch_dropout.ViT"),  # arXiv:2208.07220
    "xcit": rgb("xcit.XCiT", {"cls_depth": 2}),  # arXiv:2106.09681
}
