"""Strongly connected components of a graph, dependencies first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T", bound=Hashable)


def components(nodes: Iterable[_T], dependencies: Callable[[_T], Iterable[_T]]) -> list[list[_T]]:
    """Tarjan's algorithm, without recursion: each component after those that it depends on.

    Args:
        nodes: all nodes; where dependencies leave a choice, their order is kept.
        dependencies: what a node depends on, itself excluded or not.

    Returns:
        Components of one node, and, for each set of nodes that depend on each other, one of several.
    """
    found: dict[_T, int] = {}
    low: dict[_T, int] = {}
    open_nodes: dict[_T, None] = {}
    result: list[list[_T]] = []
    for start in nodes:
        if start in found:
            continue
        path: list[tuple[_T, Iterator[_T]]] = [(start, iter(dependencies(start)))]
        found[start] = low[start] = len(found)
        open_nodes[start] = None
        while path:
            node, rest = path[-1]
            following = next((other for other in rest if other not in found or other in open_nodes), None)
            if following is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == found[node]:
                    component: list[_T] = []
                    while not component or component[-1] != node:
                        component.append(open_nodes.popitem()[0])
                    result.append(component[::-1])
            elif following in found:
                low[node] = min(low[node], found[following])
            else:
                found[following] = low[following] = len(found)
                open_nodes[following] = None
                path.append((following, iter(dependencies(following))))
    return result
