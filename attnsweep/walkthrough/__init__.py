"""One small example from tokens to loss, then again with each variant of attention: to be read, or to be
stepped through in a debugger.

    python -m attnsweep.walkthrough            # everything, from top to bottom
    python -m attnsweep.walkthrough rope       # one variant; --list names them

The example is a question of `reverse`, `3 1 4` with a place of padding, and its answer. Every number that is
printed is computed here, piece by piece, from the weights of the very model that is trained elsewhere, and
what comes out is asserted to be what the model gives. Section and equation numbers are those of "Attention Is
All You Need" (https://arxiv.org/abs/1706.03762), or of the paper that is named.
"""
