"""How large should a planning stack be, once latency and parameters are counted?

27 trials of the full stack (depth x heads x dim), about 5 h on one core, 2.5 h on two. Expected: width
pays before depth; beyond a few hundred thousand parameters the little that driving:small holds is the limit.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    dict(
        model="planning",
        stages="id12",
        depth=tune.grid_search([1, 2, 3]),
        heads=tune.grid_search([2, 4, 8]),
        dim=tune.grid_search([32, 64, 128]),
    ),
    mlp_dim=tune.sample_from(lambda config: 2 * config["dim"]),
    dataset="driving:small",
)
