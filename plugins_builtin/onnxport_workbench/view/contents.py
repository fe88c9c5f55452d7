"""What a page shows of a model: groups (modules, subgraphs, functions), nodes and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MODULE, GRAPH, FUNCTION, PART = "module", "graph", "function", "part"

_MOST_NODES, _PART_NODES = 250, 100


@dataclass
class Group:
    """Nodes that belong together.

    Attributes:
        kind: ``"module"``, the ``"graph"`` of an ``If``, ``Loop`` or ``Scan``, a ``"function"`` of the file, or a
            ``"part"`` of a long list of nodes.
        name: what tells it from others beside it.
        path: the module's whole path; the name of a function.
        class_name: the module's class, where it is known.
        parent: index of the group around it; -1 for the model itself and for functions.
    """

    kind: str
    name: str
    path: str = ""
    class_name: str = ""
    parent: int = -1


@dataclass
class Value:
    """A value: its name, its type as text, and the bytes of a weight (-1 for others)."""

    name: str
    type: str = ""
    weight_bytes: int = -1


@dataclass(frozen=True)
class Frame:
    """A line of the model's source."""

    file: str
    line: int
    function: str
    code: str


@dataclass
class Entry:
    """A node. ``inputs`` and ``outputs`` are indices of values, -1 for an input that is left out."""

    name: str
    operator: str
    domain: str
    group: int
    inputs: list[int]
    outputs: list[int]
    torch_operator: str = ""
    fx_node: str = ""
    translation: str = ""
    plugin: str = ""
    trace: tuple[Frame, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    bodies: list[int] = field(default_factory=list)
    function: int = -1
    status: str = ""
    changes: list[str] = field(default_factory=list)


@dataclass
class Contents:
    """All that a page shows of a model's graphs. Group 0 is the model itself."""

    groups: list[Group] = field(default_factory=list)
    nodes: list[Entry] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    @property
    def weights(self) -> list[int]:
        """Indices of the weights among the values."""
        return [index for index, value in enumerate(self.values) if value.weight_bytes >= 0]

    def ancestors(self, group: int) -> Iterator[int]:
        """The group, and those around it, from the inside out."""
        while group >= 0:
            yield group
            group = self.groups[group].parent

    def module_of(self, group: int) -> tuple[str, str]:
        """What a group is called in both of two models: the function or graph that it is in, and its path."""
        names = [
            self.groups[each].name for each in self.ancestors(group) if self.groups[each].kind in (GRAPH, FUNCTION)
        ]
        return "/".join(reversed(names)), self.groups[group].path


def in_parts(contents: Contents) -> None:
    """Put long lists of nodes of one group into groups of their own, so that a page can show them."""
    direct: dict[int, list[int]] = {}
    for index, node in enumerate(contents.nodes):
        direct.setdefault(node.group, []).append(index)
    for group, nodes in direct.items():
        if len(nodes) <= _MOST_NODES:
            continue
        for start in range(0, len(nodes), _PART_NODES):
            chosen = nodes[start : start + _PART_NODES]
            name = f"nodes {start + 1}–{start + len(chosen)}"
            contents.groups.append(Group(PART, name, contents.groups[group].path, parent=group))
            for index in chosen:
                contents.nodes[index].group = len(contents.groups) - 1
                for body in contents.nodes[index].bodies:
                    contents.groups[body].parent = len(contents.groups) - 1
