"""Does a planner that sees the road drive better than what sees nothing?

9 trials, under 10 minutes on two cores, recording the scenes included. Expected: far better than following
the route blindly or planning by the ego's own motion, though that one stays closest to the expert in open
loop.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(model=tune.grid_search(["expert", "route_following", "steady", "constant_velocity", "stop"])),
        dict(model=tune.grid_search(["ego_mlp", "route_mlp"]), dim=128, depth=2, epochs=20),
        dict(model="planning", stages=tune.grid_search(["id10", "id12"])),
    ],
    dataset="driving:small",
    keep_weights=True,
)
