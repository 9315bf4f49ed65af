"""Which attention mechanism makes the most of 420,000 parameters?

54 models on MNIST, each as wide as brings it within 4 % of that number (benchmarks/widths.py finds the
widths; a tenth of RegionViT's parameters never learn); some 2 h on two cores. Expected: those that cut the
image finely or with convolutions lead, at several times the latency; the plain transformers lie two points
lower, within two points of each other. After one epoch: MaxViT with registers 98.2 %, the hybrid 97.9 %, NesT
97.2 %, MobileViT 97.0 %, the ViT 95.5 %.
"""

from attnsweep import Sweep

WIDTHS = {
    128: "vit deepvit ats_vit efficient jet_vit learnable_memory_vit looped_vit normalized_vit vat vit_5 t2t "
    "vit_for_small_dataset vit_with_keel_post_ln vit_with_patch_dropout vit_with_patch_merger simple_vit "
    "simple_flash_attn_vit simple_vit_orthog_residual_update simple_vit_with_fft simple_vit_with_qk_norm "
    "simple_vit_with_hyper_connections simple_vit_with_patch_dropout simple_vit_with_register_tokens "
    "simple_vit_with_sparse_gating simple_vit_with_specialized_cls simple_vit_with_value_residual",
    120: "attn_residual_with_dca_simple_vit simple_uvit simple_vit_with_relative_proj_pos_bias",
    124: "na_vit", 112: "hybrid local_vit", 106: "rvt", 104: "cct", 100: "cait xcit",
    88: "simple_vit_attn_residual", 86: "wwt", 84: "parallel_vit", 78: "cross_vit", 72: "look_vit",
    64: "nest", 48: "jumbo_vit mobile_vit", 44: "pit", 33: "crossformer",
    32: "max_vit max_vit_with_registers", 16: "levit regionvit sep_vit", 15: "cvt",
    14: "twins_svt", 8: "scalable_vit",
}  # fmt: skip

sweep = Sweep(
    [dict(model=model, dim=dim, mlp_dim=2 * dim) for dim in WIDTHS for model in WIDTHS[dim].split()],
    dataset="mnist", depth=4, heads=4, dim_head=16, lr=1e-3, epochs=3,
)  # fmt: skip
