"""What `torch.func` transforms leave in a captured graph becomes the operators that they stand for.

Between `_vmap_increment_nesting` and its counterpart, torch 2.14 records what one example sees. These nodes alone are
traced again, under the program's own fake mode. `grad`, `vjp` and `jacrev` record the backward operators, but they lift
the tensors that they wrap as constants without data: each is found again by the memory that it wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from onnxport import Unsupported
from onnxport.kit import contained, storage_of
from torch._C import _functorch
from torch._functorch import predispatch
from torch.fx import GraphModule, Node, traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from onnxport_functional.regions import GraphWriter, attribute_of

_NESTING = {predispatch._vmap_increment_nesting: 1, predispatch._vmap_decrement_nesting: -1}
_UNWRAP = getattr(predispatch, "_unwrap_for_grad", None)  # torch 2.11 records no such node


def records_transforms(graph_module: GraphModule, constants: Mapping[str, Any] | None = None) -> bool:
    """Whether the graph, or what its capture lifted as constants, shows a step of `vmap`, `grad` or a similar one."""
    return any(node.op == "call_function" and _is_step(node) for node in graph_module.graph.nodes) or any(
        isinstance(value, torch.Tensor) and _functorch.is_functorch_wrapped_tensor(value)
        for value in (constants or {}).values()
    )


def without_transforms(graph_module: GraphModule, constants: Mapping[str, Any]) -> GraphModule:
    """The graph with the operators that the transforms stand for.

    Args:
        graph_module: never changed.
        constants: by name of their placeholder, the tensors that the capture lifted.

    Raises: Unsupported where they can't be resolved.
    """
    return _Resolver(graph_module, constants).run()


def _is_step(node: Node) -> bool:
    return getattr(node.target, "__module__", "").startswith("torch._functorch")


def _unwrapped(value: Any) -> Any:
    while isinstance(value, torch.Tensor) and _functorch.is_functorch_wrapped_tensor(value):
        value = _functorch.get_unwrapped(value)
    return value


def _key(value: Any) -> Any:
    """What a wrapped tensor and the tensor inside have in common."""
    return storage_of(_unwrapped(value)), str(tuple(value.shape))


class _Resolver:
    def __init__(self, owner: GraphModule, constants: Mapping[str, Any]) -> None:
        self.owner = owner
        self.wrapped = {
            node: _key(constants[node.name])
            for node in owner.graph.nodes
            if node.op == "placeholder"
            and isinstance(constants.get(node.name), torch.Tensor)
            and _functorch.is_functorch_wrapped_tensor(constants[node.name])
        }
        self.writer = GraphWriter()
        self.env: dict[Node, Any] = {}
        self.known: dict[Any, Node] = {}
        """The latest old node with each memory and shape."""

    def run(self) -> GraphModule:
        region: list[Node] = []
        depth = 0
        for node in self.owner.graph.nodes:
            depth += _NESTING.get(node.target, 0)
            if depth or region:
                region.append(node)
                if not depth:
                    self._retrace(region)
                    region = []
            elif node.op == "output":
                self.writer.graph.output(map_arg(node.args[0], self._read))
            elif node.op == "call_function" and _is_step(node):
                self._step(node)
            else:
                self._copy(node)
        return self.writer.finish()

    def _copy(self, node: Node) -> None:
        if node in self.wrapped:
            return
        if node.op == "get_attr":
            name = self.writer.attribute(str(node.target), attribute_of(self.owner, str(node.target)))
            new = self.writer.graph.get_attr(name)
            new.meta = dict(node.meta)
        else:
            new = self.writer.copy(node, self._read)
            if "val" in new.meta:
                new.meta["val"] = pytree.tree_map(_unwrapped, new.meta["val"])
        self.env[node] = new
        self._know(node)

    def _know(self, node: Node) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            self.known[_key(value)] = node

    def _read(self, node: Node) -> Any:
        return self.env[self._source(node)]

    def _source(self, node: Node) -> Node:
        """The node itself, or what a constant without data stands for."""
        if node not in self.wrapped:
            return node
        found = self.known.get(self.wrapped[node])
        if found is None:
            raise Unsupported(
                "torch.export recorded a tensor of a torch.func transform as a constant without data. Take the "
                "gradient with torch.autograd.grad under torch.enable_grad() instead"
            )
        return found

    def _step(self, node: Node) -> None:
        if node.target is _UNWRAP:
            self.env[node] = self._read(node.args[0])  # type: ignore[arg-type]
            self._know(node)
        elif node.users or node.target is not predispatch.lazy_load_decompositions:
            raise Unsupported(f"the graph records {node.target.__name__}, which can't be exported")  # type: ignore[union-attr]

    def _retrace(self, region: list[Node]) -> None:
        """The nodes of one outermost `vmap`, as operators on whole batches."""
        inside = set(region)
        for node in region:
            self._know(node)
        sources = dict.fromkeys(self._source(arg) for node in region for arg in node.all_input_nodes)
        inputs = [node for node in sources if node not in inside and isinstance(self.env[node], Node)]
        inputs = [node for node in inputs if node.op != "get_attr"]
        results = [node for node in region if any(user not in inside for user in node.users)]
        fakes = [self.env[node].meta["val"] for node in inputs]
        mode = next((fake.fake_mode for fake in fakes if hasattr(fake, "fake_mode")), None)

        def batched(*values: Any) -> list[Any]:
            return self._interpret(region, dict(zip(inputs, values)), results)

        try:
            with contained(), mode or nullcontext(), torch.no_grad(), traceback.preserve_node_meta():
                graph = make_fx(batched, _allow_non_fake_inputs=True)(*fakes)
        except Exception as error:  # whatever torch's own code raises is the reason that users see
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Unsupported(f"vmap can't be traced: {reason}") from error
        copies = dict(zip((n for n in graph.graph.nodes if n.op == "placeholder"), map(self._read, inputs)))
        read: Callable[[Node], Any] = copies.__getitem__
        for node in graph.graph.nodes:
            if node.op == "output":
                self.env.update(zip(results, map_arg(node.args[0], read)))
            elif node.op == "get_attr":
                value = attribute_of(graph, str(node.target))
                copies[node] = self.writer.graph.get_attr(self.writer.attribute(f"vmap_{node.target}", value))
                copies[node].meta = dict(node.meta)
            elif node.op != "placeholder":
                copies[node] = self.writer.copy(node, read)

    def _interpret(self, region: list[Node], env: dict[Node, Any], results: list[Node]) -> list[Any]:
        for node in region:
            if node.op == "get_attr":
                env[node] = attribute_of(self.owner, str(node.target))
                continue
            args, kwargs = map_arg((node.args, node.kwargs), lambda arg: self._value(arg, env))
            with traceback.set_current_meta(node):
                if node.target is _UNWRAP:
                    env[node] = args[0]
                else:
                    env[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return [env[node] for node in results]

    def _value(self, node: Node, env: Mapping[Node, Any]) -> Any:
        node = self._source(node)
        if node not in env and node.op == "get_attr":
            return attribute_of(self.owner, str(node.target))
        return env[node]
