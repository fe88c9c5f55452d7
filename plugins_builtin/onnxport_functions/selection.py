"""Which calls become calls of functions: those of the module classes that were asked for, and marked regions."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.fx
from onnxport import InputError
from onnxport.kit import provenance

#: A patch of the capture adds an entry whose key ends with ``nested_compile_region@1``, ``@2``, … to the
#: `nn_module_stack` of the nodes of a call that is to be one of a function in any case.
REGION = "nested_compile_region"


class Selection:
    """The module classes that are to be functions, and the regions that are.

    Args:
        wanted: classes, or names: qualified ones or their last parts.
        graph_module: the captured graph.

    Raises:
        InputError: no operator of the graph belongs to such a class.
    """

    def __init__(self, wanted: Sequence[type | str], graph_module: torch.fx.GraphModule) -> None:
        names = [w if isinstance(w, str) else f"{w.__module__}.{w.__qualname__}" for w in wanted]
        stacks = {tuple(node.meta.get("nn_module_stack") or ()): node for node in _all_nodes(graph_module)}
        present = sorted({name for node in stacks.values() for name in classes(node)})
        self._classes = {p for p in present for n in names if p == n or p.endswith(f".{n}")}
        self.is_empty = not names and not any(REGION in key for stack in stacks for key in stack)
        for name in names:
            if not any(p == name or p.endswith(f".{name}") for p in present):
                near = _near(name, present)
                raise InputError(
                    f"functions=: no operator of the model was called in a module {name}. {near}", parameter="functions"
                )
        self._matches: dict[Any, list[tuple[str, str, str]]] = {}
        self._of: dict[torch.fx.Node, list[tuple[str, str, str]]] = {}

    def calls(self, node: torch.fx.Node) -> list[tuple[str, str, str]]:
        """The calls of chosen classes that the node belongs to, from the outside in: key, path and class."""
        found = self._of.get(node)
        if found is None:
            found = self._of[node] = self._matching(node)
        return found

    def _matching(self, node: torch.fx.Node) -> list[tuple[str, str, str]]:
        stack = node.meta.get("nn_module_stack") or {}
        known = self._matches.get(tuple(stack))
        if known is None:
            regions = [key for key in stack if REGION in key]
            paths = [path for path, _ in provenance.module_stack(node)]
            # torch's keys have names for one call that differ, after an assignment to a buffer; what is behind @ counts
            counts = [key.rpartition("@")[2] if "@" in key else "0" for key in stack]
            keys = [f"{path}@{n if n.isdigit() else 0}" for path, n in zip(paths, counts)]
            keys = [key if key in regions else name for key, name in zip(stack, keys)]
            known = [c for c in zip(keys, paths, classes(node)) if c[2] in self._classes or c[0] in regions]
            self._matches[tuple(stack)] = known
        return known


def classes(node: torch.fx.Node) -> list[str]:
    """The classes of the modules that the node was recorded in; none where torch doesn't know."""
    stack = node.meta.get("nn_module_stack") or {}
    if _UNKNOWN in stack:
        return []
    return [kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}" for _, kind in stack.values()]


def _near(name: str, present: Sequence[str]) -> str:
    """What may have been meant."""
    last = {p.rpartition(".")[2]: p for p in present}
    near = difflib.get_close_matches(name.rpartition(".")[2], last, 3, 0.5)
    return f"Did you mean {', '.join(last[n] for n in near)}?" if near else f"There are: {', '.join(present)}."


def _all_nodes(graph_module: torch.fx.GraphModule) -> Iterator[torch.fx.Node]:
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from module.graph.nodes


_UNKNOWN = "_empty_nn_module_stack_from_metadata_hook"
