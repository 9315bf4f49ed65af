"""Is a wider token or a wider feed-forward layer the better use of parameters?

12 trials of a ViT on MNIST: dim 64, 128 and 256 by mlp_dim 1, 2 and 4 times dim, and a hybrid at each dim.
About 80 min on two cores. Expected: dim counts for more than mlp_dim at equal parameters.
"""

from ray import tune

from attnsweep import Sweep

DIMS = (64, 128, 256)

sweep = Sweep(
    [dict(model="vit", dim=dim, mlp_dim=tune.grid_search([dim, 2 * dim, 4 * dim])) for dim in DIMS]
    + [dict(model="hybrid", dim=dim, mlp_dim=2 * dim) for dim in DIMS],
    dataset="mnist", depth=4, heads=4, epochs=5,
)  # fmt: skip
