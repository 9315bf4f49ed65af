"""Which positions carry over to sequences longer than any in training?  On four exact problems.

20 trials: five ways to say where a token stands, on reversing, sorting, adding and closing brackets at up to
10 symbols; each row has the accuracy at 10, 20 and 40. About 10 min of one core; docs/transformer.md shows
what comes out.
"""

from ray import tune

from attnsweep import Sweep

sweep = Sweep(
    model="transformer",
    dataset=tune.grid_search(["reverse", "sort", "addition", "dyck"]),
    positions=tune.grid_search(["sinusoidal", "learned", "rope", "alibi", "none"]),
    batch_size=128, norm="pre", depth=2, heads=4, dim=64, mlp_dim=256, length=10, epochs=3, lr=2e-3,
    warmup_steps=100,
)  # fmt: skip
