"""Does a model of one's own beat attention here?  An MLP-Mixer, in `own_net.py` beside this, against the ViT.

9 trials on the built-in digits, about 2 min on two cores: the mixer at two depths and three widths across its
tokens, the ViT at three depths. Expected: at equal parameters the mixer is ahead on so small a set.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(
            model="own_net.py:Mixer",
            depth=tune.grid_search([2, 4]),
            token_dim=tune.grid_search([16, 32, 64]),  # an argument that only this class has
        ),
        dict(model="vit", depth=tune.grid_search([1, 2, 4])),
    ],
    dataset="digits", patch_size=2, dim=64, heads=4, dim_head=16, mlp_dim=128,
    lr=1e-3, lr_gamma=0.95, epochs=20,
)  # fmt: skip
