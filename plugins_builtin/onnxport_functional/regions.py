"""Regions that only change how torch runs their body become part of the graph around them.

`torch.export` records `with torch.no_grad()`, `with torch.autocast(...)` and activation checkpoints as higher order
operators that call a nested graph. Gradients and checkpoints mean nothing for inference; autocast means casts, which
are written out here as torch would do them.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from onnxport.kit import Region, storage_of
from torch.fx import Graph, GraphModule, Node
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.node import map_arg

from onnxport_functional import meaning
from onnxport_functional.writes import result_dtypes

logger = logging.getLogger(__name__)

FOREIGN_STORAGES = "onnxport.foreign_storages"
"""Key of a graph module's `meta`: its fake values don't tell what shares storage, since bodies were inlined."""

_LOW_PRECISION = frozenset({"aten::linear", "aten::matmul", "aten::conv2d", "aten::scaled_dot_product_attention"})
_AUTOCAST_DTYPES = (torch.float16, torch.bfloat16)
_ENTER, _EXIT = torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast
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
    autocast = _recorded_autocast(graph_module)
    regions = (_is_region(node, subgraphs) or node.target is _ENTER for node in graph_module.graph.nodes)
    if not autocast and not any(regions):
        return graph_module
    inliner = _Inliner(subgraphs)
    inliner.writer.graph.output(inliner.copy(graph_module, None, autocast))
    result = inliner.writer.finish()
    if inliner.foreign:
        result.meta[FOREIGN_STORAGES] = True
    return result


def _is_region(node: Node, subgraphs: bool) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    if meaning.of(Region, node.target) is None or _KEPT.get()(node.target):
        return False
    return subgraphs or node.target.name() != "invoke_subgraph"


_KEPT: ContextVar[Callable[[Any], bool]] = ContextVar("onnxport_kept_regions", default=lambda _target: False)


@contextmanager
def keeping(is_kept: Callable[[Any], bool]) -> Iterator[None]:
    """Leave the regions of some operators as they are meanwhile, for translations of these."""
    token = _KEPT.set(is_kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


class _Inliner:
    def __init__(self, subgraphs: bool) -> None:
        self.subgraphs = subgraphs
        self.writer = GraphWriter()
        self.bodies: set[int] = set()
        self.foreign = False
        """A body was recorded apart from the graph around it, or is inlined twice."""

    def copy(self, owner: GraphModule, inputs: Sequence[Any] | None, autocast: Mapping[str, _Autocast]) -> Any:
        """Copies the nodes of `owner` and returns what its output node returns, in terms of the new nodes.

        `autocast` has the enabled region of each type of device.
        """
        env: dict[Node, Any] = {}
        supply = iter(inputs or ())
        entered = [autocast]
        for node in owner.graph.nodes:
            if node.op == "placeholder" and inputs is not None:
                env[node] = next(supply)
                given = env[node].meta.get("val") if isinstance(env[node], Node) else None
                self.foreign |= storage_of(given) != storage_of(node.meta.get("val"))
            elif node.op == "output":
                return map_arg(node.args[0], env.__getitem__)
            elif node.op == "get_attr":
                if all(_is_region(user, self.subgraphs) for user in node.users):
                    continue  # a body: its nodes are copied where it is called
                name = self.writer.attribute(str(node.target), attribute_of(owner, str(node.target)))
                env[node] = self.writer.graph.get_attr(name)
                env[node].meta = dict(node.meta)
            elif _is_region(node, self.subgraphs):
                env[node] = self._body(owner, node, env, autocast)
            elif node.target is _ENTER:  # left in a graph that has control flow as well
                autocast = _within(autocast, *node.args[:3])
                entered.append(autocast)
            elif node.target is _EXIT:
                entered.pop()
                autocast = entered[-1]
            elif node.target is operator.getitem and isinstance(env[node.args[0]], (tuple, list)):  # type: ignore[index]
                env[node] = env[node.args[0]][node.args[1]]  # type: ignore[index]
            else:
                region = autocast.get(_device_of(node)) if autocast else None
                read = region.arguments(self.writer.graph, node, env.__getitem__) if region else env.__getitem__
                if autocast and isinstance(node.target, torch._ops.HigherOrderOperator):
                    read = self._with_bodies(owner, autocast, env.__getitem__)
                env[node] = self.writer.copy(node, read)
        raise ValueError("the graph has no output node")

    def _with_bodies(
        self, owner: GraphModule, autocast: Mapping[str, _Autocast], read: Callable[[Node], Any]
    ) -> Callable[[Node], Any]:
        """What reads the arguments of control flow: its branches and bodies have the casts of the region around."""

        def with_casts(node: Node) -> Any:
            body = attribute_of(owner, str(node.target)) if node.op == "get_attr" else None
            if not isinstance(body, GraphModule):
                return read(node)
            inliner = _Inliner(self.subgraphs)
            regions = {device: _Autocast(device, region.dtype) for device, region in autocast.items()}
            inliner.writer.graph.output(inliner.copy(body, None, regions))
            new = self.writer.graph.get_attr(self.writer.attribute(str(node.target), inliner.writer.finish()))
            new.meta = dict(node.meta)
            return new

        return with_casts

    def _body(self, owner: GraphModule, node: Node, env: Mapping[Node, Any], autocast: Mapping[str, _Autocast]) -> Any:
        region = meaning.of(Region, node.target)
        if region is None:
            raise ValueError(f"{node.target} is no region")
        body = attribute_of(owner, str(node.args[region.body].target))  # type: ignore[union-attr]
        self.foreign |= id(body) in self.bodies
        self.bodies.add(id(body))
        inputs: Any = node.args[region.body + 1 :] if region.inputs is None else region.inputs(node.args)
        if node.target.name() == "wrap_with_autocast":  # type: ignore[union-attr]
            autocast = _within(autocast, *node.args[:3])
        result = self.copy(body, [map_arg(arg, env.__getitem__) for arg in inputs], autocast)
        return result if region.results is None else region.results(result)


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
        if _has_autocast(schema.name, schema.overload_name, self.key):
            self._check(node, schema.name, dtype)
        elif dtype != self.dtype or dtype in result_dtypes(node.target, node.args, node.kwargs):
            return read  # of the operators without a rule, only composite ones change: by the rules of their parts

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

    def _check(self, node: Node, name: str, dtype: torch.dtype) -> None:
        """torch 2.14 records the body of a strict capture's region without its autocast."""
        if name in _LOW_PRECISION and dtype is torch.float32:
            logger.warning("%s is exported in float32: torch.export recorded its autocast region without casts", node)


@cache
def _has_autocast(name: str, overload: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{name}.{overload}" if overload else name, key)


def _recorded_autocast(graph_module: GraphModule) -> Mapping[str, _Autocast]:
    """What autocast was on while the graph was captured: torch records such a block's results without its casts."""
    for node in graph_module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name in _LOW_PRECISION:
            dtype = _float_dtype(node.meta.get("val"))
            if dtype in _AUTOCAST_DTYPES and _float_dtype(node.all_input_nodes[0].meta.get("val")) is torch.float32:
                return {_device_of(node): _Autocast(_device_of(node), dtype)}
    return {}


def _within(autocast: Mapping[str, _Autocast], device: Any, dtype: Any, enabled: Any) -> Mapping[str, _Autocast]:
    """The enabled regions after one more is entered."""
    others = {other: region for other, region in autocast.items() if other != device}
    return {**others, str(device): _Autocast(str(device), dtype)} if enabled else others


def _device_of(node: Node) -> str:
    """The type of device on which a node computes; empty where it gives no tensor."""
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return next((item.device.type for item in values if isinstance(item, torch.Tensor)), "")


def _float_dtype(value: Any) -> torch.dtype | None:
    values = value if isinstance(value, (tuple, list)) else (value,)
    dtypes = (item.dtype for item in values if isinstance(item, torch.Tensor))
    return next((dtype for dtype in dtypes if dtype.is_floating_point), None)
