"""Which attention mechanism makes the most of a millisecond?

40 models on MNIST, each as wide as brings its forward pass at batch 1 to 1 ms, within a tenth, on one thread
of an AMD EPYC; for your hardware: python benchmarks/widths.py --latency-ms 1. 14 mechanisms of the zoo take
longer however narrow they are. About 2 h on two cores. Expected: the hybrid leads; plain transformers gain a
width of 250 and more, those with many small steps are left with a few dozen.
"""

from attnsweep import Sweep

WIDTHS = {
    299: "vit_with_patch_merger", 296: "simple_vit", 272: "simple_flash_attn_vit", 249: "vit",
    280: "simple_vit_with_patch_dropout simple_vit_with_value_residual", 258: "vit_with_patch_dropout",
    256: "simple_vit_with_register_tokens", 264: "simple_vit_with_qk_norm", 216: "learnable_memory_vit",
    240: "simple_vit_orthog_residual_update simple_vit_with_specialized_cls vit_for_small_dataset",
    232: "efficient na_vit simple_uvit vit_with_keel_post_ln", 204: "simple_vit_with_sparse_gating",
    194: "vat", 192: "simple_vit_with_fft", 187: "deepvit", 180: "hybrid", 176: "jet_vit", 151: "local_vit",
    104: "jumbo_vit simple_vit_with_relative_proj_pos_bias", 99: "t2t", 89: "parallel_vit", 84: "nest",
    92: "ats_vit simple_vit_with_hyper_connections", 122: "cait", 72: "cct", 69: "vit_5", 64: "pit", 4: "rvt",
    56: "attn_residual_with_dca_simple_vit", 39: "looped_vit normalized_vit", 8: "simple_vit_attn_residual",
}  # fmt: skip

sweep = Sweep(
    [dict(model=model, dim=dim, mlp_dim=2 * dim) for dim in WIDTHS for model in WIDTHS[dim].split()],
    dataset="mnist", depth=4, heads=4, dim_head=16, lr=1e-3, epochs=3,
)  # fmt: skip
