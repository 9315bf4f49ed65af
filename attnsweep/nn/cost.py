"""Parameters and multiply-accumulates of layers in closed form, so that a plan can state those of an
architecture before anything is built.

Each task's `cost` module adds them up to its models. The tests hold every formula against the built model:
parameters to the unit, MACs against torch's FLOP counter.
"""

from attnsweep.core.cost import Cost


def linear(inputs: int, outputs: int, *, tokens: int = 1, bias: bool = True) -> Cost:
    """A linear layer applied to `tokens` vectors."""
    return Cost(inputs * outputs + bias * outputs, tokens * inputs * outputs)


def norm(width: int) -> Cost:
    """A layer norm: a scale and a shift. Its arithmetic is not counted, as is usual."""
    return Cost(2 * width, 0)


def feed_forward(dim: int, mlp_dim: int, tokens: int) -> Cost:
    """Norm, two linear layers."""
    return norm(dim) + linear(dim, mlp_dim, tokens=tokens) + linear(mlp_dim, dim, tokens=tokens)


def attention(dim: int, heads: int, dim_head: int, tokens: int, *, project: bool = True) -> Cost:
    """Norm, queries, keys and values without bias, the two products of softmax(QK^T)V, and the projection
    back.
    """
    inner = heads * dim_head
    products = Cost(0, 2 * tokens * tokens * inner)
    back = linear(inner, dim, tokens=tokens) if project else Cost(0, 0)
    return norm(dim) + linear(dim, 3 * inner, tokens=tokens, bias=False) + products + back


def multi_head(dim: int, queries: int, keys: int, *, inner: int) -> Cost:
    """Attention of `queries` tokens to `keys` tokens, heads x dim_head = `inner`, all four projections with
    bias. Masked pairs count too.
    """
    to_keys_and_values = linear(dim, inner, tokens=keys) * 2
    to_queries, to_output = linear(dim, inner, tokens=queries), linear(inner, dim, tokens=queries)
    return to_keys_and_values + to_queries + to_output + Cost(0, 2 * queries * keys * inner)
