"""Which task helps planning? UniAD's table 2 as a sweep, with the controls that make it a comparison.

Equal data and steps for all; the planner alone (id10) once more with as many parameters as all stages (id12);
all tasks without links (id0); links but no gradient from the plan to what is perceived; ego state in place of
perception (id16); three seeds. 24 trials, some 70 min on two idle cores; python -m attnsweep planning results
draws them. Not run whole yet: of one seed, id10 (88 %) and id12 (86 %) differ by no more than chance.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    [
        dict(stages=tune.grid_search(["id0", "id10", "id11", "id12", "id13", "id16"])),
        dict(stages="id10", dim=68, mlp_dim=168),  # as many parameters as id12
        dict(stages="id12", grad_stop="bev"),
    ],
    model="planning", dataset="driving:small", seed=tune.grid_search([0, 1, 2]),
)  # fmt: skip
