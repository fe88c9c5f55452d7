"""Regions that only change how torch runs their body become part of the graph around them.

`torch.export` records `with torch.no_grad()`, `with torch.autocast(...)`, activation checkpoints and the like as higher
order operators that call a nested graph. Gradients and checkpoints mean nothing for inference; autocast means casts,
which are written out here as torch would do them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.node import map_arg

# Where each region operator keeps its body; the arguments behind it are the body's inputs.
_BODY_POSITION: Mapping[str, int] = {
    "wrap_with_set_grad_enabled": 1,
    "wrap_with_autocast": 4,
    "dynamo_bypassing_wrapper": 1,
    "tag_activation_checkpoint": 0,
    "wrap_activation_checkpoint": 0,
    "wrap": 0,
    "strict_mode": 0,
    "hints_wrapper": 0,
    "autograd_function_apply": 0,
    "invoke_subgraph": 0,
}
_INPUTS_IN_ONE_ARGUMENT = ("strict_mode", "hints_wrapper")
_DEVICE_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


class GraphWriter:
    """Collects the nodes of one new graph, and the attributes they refer to under names of their own."""

    def __init__(self) -> None:
        self.graph = Graph()
        self._attributes: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def attribute(self, name: str, value: Any) -> str:
        """The target under which `value` can be read by a get_attr node; the same object keeps one name."""
        if id(value) not in self._names:
            unique, count = name, 0
            while unique in self._attributes:
                count += 1
                unique = f"{name}_{count}"
            self._attributes[unique] = value
            self._names[id(value)] = unique
        return self._names[id(value)]

    def copy(self, node: Node, read: Callable[[Node], Any]) -> Node:
        """A copy of `node` with its metadata; a placeholder keeps its name, by which the signature knows it."""
        new = self.graph.node_copy(node, read)
        if node.op == "placeholder":
            new.name = node.name  # FX renames what is called like a Python builtin: `input`
        return new

    def prune(self) -> None:
        """Removes the nodes that nothing uses: only for a graph in which no operator writes."""
        for node in reversed(self.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)

    def finish(self) -> GraphModule:
        """The graph module; its Python code is written only if somebody asks for it."""
        return _LazyGraphModule(self._attributes, self.graph)


def attribute_of(owner: torch.nn.Module, target: str) -> Any:
    """The object behind the dotted `target` of a get_attr node. Raises AttributeError when there is none."""
    value: Any = owner
    for part in target.split("."):
        value = getattr(value, part)
    return value


def inline_regions(graph_module: GraphModule, *, subgraphs: bool = False) -> GraphModule:
    """The graph with the bodies of all regions in place of the calls, those in nested regions too.

    Args:
        graph_module: as torch.export gives it; never changed.
        subgraphs: also inline `invoke_subgraph`, whose bodies are otherwise kept, to become ONNX functions.

    Returns: `graph_module` itself when it has no region.
    """
    if not any(_is_region(node, subgraphs) for node in graph_module.graph.nodes):
        return graph_module
    writer = GraphWriter()
    result = _copy(writer, graph_module, None, subgraphs, None)
    writer.graph.output(result)
    return writer.finish()


def _is_region(node: Node, subgraphs: bool) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    name = node.target.name()
    return name in _BODY_POSITION and (subgraphs or name != "invoke_subgraph")


def _copy(
    writer: GraphWriter, owner: GraphModule, inputs: Sequence[Any] | None, subgraphs: bool, autocast: _Autocast | None
) -> Any:
    """Copies the nodes of `owner` and returns what its output node returns, in terms of the new nodes."""
    env: dict[Node, Any] = {}
    supply = iter(inputs or ())
    for node in owner.graph.nodes:
        if node.op == "placeholder" and inputs is not None:
            env[node] = next(supply)
        elif node.op == "output":
            return map_arg(node.args[0], env.__getitem__)
        elif node.op == "get_attr":
            if all(_is_region(user, subgraphs) for user in node.users):
                continue  # a body: its nodes are copied where it is called
            name = writer.attribute(str(node.target), attribute_of(owner, str(node.target)))
            env[node] = writer.graph.get_attr(name)
            env[node].meta = dict(node.meta)
        elif _is_region(node, subgraphs):
            env[node] = _copy_body(writer, owner, node, env, subgraphs, autocast)
        elif node.target is operator.getitem and isinstance(env[node.args[0]], (tuple, list)):  # type: ignore[index]
            env[node] = env[node.args[0]][node.args[1]]  # type: ignore[index]
        else:
            cast = autocast.arguments(writer.graph, node, env.__getitem__) if autocast else env.__getitem__
            env[node] = writer.copy(node, cast)
    raise ValueError("the graph has no output node")


def _copy_body(
    writer: GraphWriter,
    owner: GraphModule,
    node: Node,
    env: Mapping[Node, Any],
    subgraphs: bool,
    autocast: _Autocast | None,
) -> Any:
    operator_name = node.target.name()  # type: ignore[union-attr]
    position = _BODY_POSITION[operator_name]
    body = attribute_of(owner, str(node.args[position].target))  # type: ignore[union-attr]
    rest: Any = node.args[position + 1 :]
    if operator_name in _INPUTS_IN_ONE_ARGUMENT:
        rest = rest[0]
    elif operator_name in ("invoke_subgraph", "autograd_function_apply"):
        rest = rest[1:]  # an identifier, or the backward graph
    if operator_name == "wrap_with_autocast":
        device, dtype, enabled = node.args[:3]
        autocast = _Autocast(str(device), dtype) if enabled else None
    result = _copy(writer, body, [map_arg(arg, env.__getitem__) for arg in rest], subgraphs, autocast)
    # The forward graph of an autograd.Function returns its outputs and what it saves for backward.
    return result[0] if operator_name == "autograd_function_apply" else result


class _Autocast:
    """The casts of one enabled autocast region.

    Which inputs an operator casts follows from what was recorded: an operator that autocast knows computes in the
    dtype of its result, and autocast casts every float input but float64 to that dtype.
    """

    def __init__(self, device: str, dtype: Any) -> None:
        self.key = _DEVICE_KEYS.get(device, "AutocastCPU")
        self.dtype = dtype or torch.get_autocast_dtype(device)
        self.casts: dict[tuple[Node, torch.dtype], Node] = {}

    def arguments(self, graph: Graph, node: Node, read: Callable[[Node], Any]) -> Callable[[Node], Any]:
        dtype = _float_dtype(node.meta.get("val"))
        if dtype is None or not isinstance(node.target, torch._ops.OpOverload):
            return read
        schema = node.target._schema
        if not _has_kernel(schema.name, schema.overload_name, self.key):
            # A composite operator has no rule of its own, only its parts do; seen from outside, it computes in the
            # region's dtype. One that is told a dtype (`to`) computes in that.
            composite = _has_kernel(schema.name, schema.overload_name, "CompositeImplicitAutograd")
            tells_dtype = any(argument.name == "dtype" for argument in schema.arguments)
            if dtype != self.dtype or not composite or tells_dtype or all(r.alias_info for r in schema.returns):
                return read

        def cast(old: Node) -> Any:
            new = read(old)
            given = _float_dtype(old.meta.get("val"))
            if given is None or given in (dtype, torch.float64) or not isinstance(new, Node):
                return new
            if (new, dtype) not in self.casts:
                node_of_cast = graph.call_function(torch.ops.aten._to_copy.default, (new,), {"dtype": dtype})
                node_of_cast.meta = {**node.meta, "val": old.meta["val"].to(dtype)}
                self.casts[new, dtype] = node_of_cast
            return self.casts[new, dtype]

        return cast


@cache
def _has_kernel(name: str, overload: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{name}.{overload}" if overload else name, key)


def _float_dtype(value: Any) -> torch.dtype | None:
    values = value if isinstance(value, (tuple, list)) else (value,)
    dtypes = (item.dtype for item in values if isinstance(item, torch.Tensor))
    return next((dtype for dtype in dtypes if dtype.is_floating_point), None)
