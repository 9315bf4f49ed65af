"""Spares torch's ONNX exporter its second trace of a graph, which takes longer than all the rest.

That trace rewrites operations for which ONNX has no translation. The few that most models here have are
rewritten in this file; where others are left, the exporter traces as ever. What comes out is held against
eager's answer in either case.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.node import map_arg

aten = torch.ops.aten
IDENTITIES = ("dropout", "alpha_dropout", "feature_dropout")  # in evaluation mode give what they get


def without_second_trace(program: ExportedProgram, translated: set[Any]) -> ExportedProgram:
    """The program, changed in place: it is traced no more where all of its operations are `translated`."""
    graph = program.graph
    for node in list(graph.nodes):
        if is_in_place(node) and is_only_name(node):
            make_functional(node, graph)
        elif node.target in REWRITE:
            REWRITE[node.target](node, graph)
    if all(node.op != "call_function" or node.target in translated for node in graph.nodes):
        traced: Any = program
        traced.run_decompositions = lambda table=None: program
    return program


def is_in_place(node: Node) -> bool:
    """Whether an operation changes its first argument, and there is one that does not."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name, overload = node.target._schema.name.removeprefix("aten::"), node.target._overloadname
    return name.endswith("_") and overload in getattr(getattr(aten, name[:-1], None), "overloads", list)()


def is_only_name(node: Node) -> bool:
    """Whether nothing else reads what an operation changes, but by its first argument: then what it gives may
    take that one's place. False too where that is not sure.
    """
    name = arguments(node)[0]
    if any(is_view(user) for user in name.users if user is not node):
        return False
    while is_view(name):
        below = name.args[0]
        if not isinstance(below, Node) or len(below.users) > 1:
            return False
        name = below
    return name.op == "call_function"  # neither an input nor a parameter


def is_view(node: Node) -> bool:
    """Whether what a node gives may share memory with what it gets."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function"  # such as an element of a split
    schema = node.target._schema
    shares = any(part.alias_info is not None for part in schema.returns)
    return shares or schema.name.removeprefix("aten::") in IDENTITIES


def make_functional(node: Node, graph: Graph) -> None:
    """The operation without a change: whoever reads its argument afterwards reads its result."""
    target: Any = node.target
    changed = arguments(node)[0]
    name = target._schema.name.removeprefix("aten::")
    node.target = getattr(getattr(aten, name[:-1]), target._overloadname)
    order = {one: place for place, one in enumerate(graph.nodes)}
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])


# --- Operations for which there is no translation: each is rewritten in place, or left as it is ---


def copy_as(position: int) -> Callable[[Node, Graph], None]:
    """Rewrites a conversion whose argument at `position` is a type as the copy that ONNX has; all is on one
    device.
    """

    def rewrite(node: Node, graph: Graph) -> None:
        node.target, dtype = aten._to_copy.default, arguments(node)[position]
        node.args, node.kwargs = node.args[:1], {"dtype": dtype}

    return rewrite


def normalised(node: Node, graph: Graph) -> None:
    """A batch normalisation in evaluation mode."""
    *tensors, training, momentum, eps = arguments(node)[:8]
    if not training:
        inference = aten._native_batch_norm_legit_no_training.default
        replace(node, operator.getitem, added(graph, node, inference, *tensors, momentum, eps), 0)


def variance(node: Node, graph: Graph) -> None:
    """The mean square of what is left without the mean, over axes of known length."""
    given = arguments(node)
    images, axes, unbiased, keepdim = given + (True, False)[len(given) - 2 :]
    mean = added(graph, node, aten.mean.dim, images, axes, True)
    apart = added(graph, node, aten.sub.Tensor, images, mean)
    squares = added(graph, node, aten.mul.Tensor, apart, apart)
    count = math.prod(images.meta["val"].shape[axis] for axis in axes)
    total = added(graph, node, aten.sum.dim_IntList, squares, axes, keepdim)
    replace(node, aten.div.Tensor, total, float(count - unbiased))


def pooled(node: Node, graph: Graph) -> None:
    """The mean over all of a map."""
    images, size = arguments(node)
    if tuple(size) == (1, 1):
        replace(node, aten.mean.dim, images, [-1, -2], True)


def searched(node: Node, graph: Graph) -> None:
    """How many of a row, which ascends, are less than each value."""
    if len(node.args) > 2 or node.kwargs:
        return
    row, values = arguments(node)
    one = added(graph, node, aten.unsqueeze.default, row, -2)
    other = added(graph, node, aten.unsqueeze.default, values, -1)
    replace(node, aten.sum.dim_IntList, added(graph, node, aten.lt.Tensor, one, other), [-1])


def hypotenuse(node: Node, graph: Graph) -> None:
    """The root of the sum of two squares, which are far from the ends of what a float can be."""
    squares = [added(graph, node, aten.mul.Tensor, side, side) for side in arguments(node)]
    replace(node, aten.sqrt.default, added(graph, node, aten.add.Tensor, *squares))


def called(target: Any) -> Callable[[Node, Graph], None]:
    """Rewrites an operation as another one that gives the same."""
    return lambda node, graph: replace(node, target, *arguments(node))


def subtracted(node: Node, graph: Graph) -> None:
    """A number less a tensor."""
    if len(arguments(node)) == 2 and not node.kwargs:
        tensor, number = arguments(node)
        replace(node, aten.add.Scalar, added(graph, node, aten.neg.default, tensor), number)


def stepped(node: Node, graph: Graph) -> None:
    """The differences between neighbours along an axis."""
    given = arguments(node)
    tensor, times, axis = given[:3] + (1, -1)[len(given) - 1 :]
    if times == 1 and len(given) <= 3 and not node.kwargs:
        length = tensor.meta["val"].shape[axis]
        later = added(graph, node, aten.slice.Tensor, tensor, axis, 1, length)
        replace(
            node, aten.sub.Tensor, later, added(graph, node, aten.slice.Tensor, tensor, axis, 0, length - 1)
        )


def crossed(node: Node, graph: Graph) -> None:
    """Each axis of a grid along all of the others."""
    axes, order = arguments(node)[0], node.kwargs.get("indexing", arguments(node)[-1])
    if order != "ij" or any(user.target is not operator.getitem for user in node.users):
        return
    sizes = [axis.meta["val"].numel() for axis in axes]
    for user in list(node.users):
        place = arguments(user)[1]
        shape = [size if other == place else 1 for other, size in enumerate(sizes)]
        column = added(graph, node, aten.view.default, axes[place], shape)
        replace(user, aten.expand.default, column, sizes)
    graph.erase_node(node)


def dropped(node: Node, graph: Graph) -> None:
    """A check of what is fixed."""
    graph.erase_node(node)


def arguments(node: Node) -> tuple[Any, ...]:
    """What an operation gets, in order: nodes, numbers, types."""
    return node.args


def added(graph: Graph, before: Node, target: Any, *args: Any) -> Node:
    """A new operation before another, with what it gives in shape and type."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta["val"] = target(*map_arg(args, lambda one: one.meta["val"]))
    return node


def replace(node: Node, target: Any, *args: Any) -> None:
    """Another operation in the place of one that gives the same."""
    node.target, node.args, node.kwargs = target, args, {}


REWRITE: Mapping[Any, Callable[[Node, Graph], None]] = {
    aten.to.dtype: copy_as(1),
    aten.to.device: copy_as(2),
    aten.batch_norm.default: normalised,
    aten.var.dim: variance,
    aten.adaptive_avg_pool2d.default: pooled,
    aten.searchsorted.Tensor: searched,
    aten.hypot.default: hypotenuse,
    aten.diff.default: stepped,
    aten.rsub.Scalar: subtracted,
    aten.__or__.Tensor: called(aten.bitwise_or.Tensor),
    aten.__and__.Tensor: called(aten.bitwise_and.Tensor),
    aten.meshgrid.indexing: crossed,
    aten._assert_tensor_metadata.default: dropped,
}
