"""Which task helps planning? UniAD's table 2 as a sweep, with the controls that make it a comparison.

Equal steps and data for all; id10 once more as large as id12; all tasks without links (id0); links but no
gradient from the plan to what is perceived; three seeds. 24 trials, about 2 h on two cores. Read it with
python analysis/planning.py results. Expected: UniAD's answer is that all tasks help; ours is in the README.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(stages=tune.grid_search(["id0", "id10", "id11", "id12", "id13"])),
        dict(stages="id10", dim=88, mlp_dim=176),  # as many parameters as id12
        dict(stages="id12", grad_stop="bev"),
        dict(stages="id16"),  # ego state instead of perception
    ],
    model="planning", dataset="driving:small", seed=tune.grid_search([0, 1, 2]),
)  # fmt: skip
