"""Which group each node is in: modules by the stack of their calls."""

from __future__ import annotations

from collections.abc import Sequence

from onnxport.kit import plain

from onnxport_workbench.view.contents import GRAPH, MODULE, Contents, Group

#: Modules around a node from the outside in, as (path, class)
Stack = Sequence[tuple[str, str]]


class Places:
    """Puts nodes into groups, once all are known.

    A module that is called several times is a group for each call, if something between two calls needs the one and is
    needed by the other: the groups of a graph then never depend on each other in a circle.

    Attributes:
        owners: for the group of a subgraph, the node that it is an attribute of.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._scopes: dict[int, list[int]] = {}
        self._stacks: dict[int, Stack] = {}
        self._needs: dict[int, list[int]] = {}
        self._producers: dict[int, int] = {}
        self._order: dict[int, int] = {}
        self.owners: dict[int, int] = {}

    def add(self, node: int, scope: int, stack: Stack) -> None:
        """Take in a node of the graph whose own group is ``scope``."""
        self._scopes.setdefault(scope, []).append(node)
        self._stacks[node] = stack
        for value in self._contents.nodes[node].outputs:
            self._producers[value] = node

    def settle(self) -> None:
        """Make the groups, those of outer graphs first. Sources that name no module go before their first user."""
        groups, nodes = self._contents.groups, self._contents.nodes
        for node, entry in enumerate(nodes):
            self._needs[node] = [self._producers[value] for value in entry.inputs if value in self._producers]
        for body in sorted(self.owners, reverse=True):  # what the inside of a graph needs, its owner needs
            for node in self._scopes.get(body, ()):
                self._needs[self.owners[body]] += self._needs[node]
        for nodes_of_scope in self._scopes.values():
            self._sources_to_their_users(nodes_of_scope)
        for scope in sorted(self._scopes):
            if groups[scope].kind == GRAPH:
                groups[scope].parent = nodes[self.owners[scope]].group
                groups[scope].path = groups[groups[scope].parent].path
            around = groups[scope].path if groups[scope].kind == GRAPH else ""
            members = [(node, _within(self._stacks[node], around)) for node in self._scopes[scope]]
            self._place(scope, members)
        self._contents.nodes = [nodes[i] for i in sorted(range(len(nodes)), key=lambda i: (self._order.get(i, i), i))]

    def _sources_to_their_users(self, nodes: Sequence[int]) -> None:
        """Constants of other exporters, which name no module, belong where they are used."""
        users: dict[int, list[int]] = {}
        for node in nodes:
            for need in self._needs[node]:
                users.setdefault(need, []).append(node)
        for node in reversed(nodes):
            if self._stacks[node] or self._needs[node] or self._contents.nodes[node].torch_operator:
                continue
            if node in users:
                self._stacks[node] = _common([self._stacks[user] for user in users[node]])
                self._order[node] = min(self._order.get(user, user) for user in users[node])

    def _place(self, group: int, members: Sequence[tuple[int, Stack]]) -> None:
        """Put nodes into a group, and into groups in it, one for each call of a module."""
        inside: dict[int, list[tuple[int, Stack]]] = {}
        current: dict[str, int] = {}
        calls: dict[str, int] = {}
        bits: dict[int, int] = {}
        item: dict[int, int] = {}
        left: dict[int, int] = {}  # by node, the calls that were left on some way to it, as bits
        for node, stack in members:
            call = current.get(stack[0][0], -1) if stack else -1
            behind = 0
            for need in self._needs[node]:
                if need in left:
                    behind |= left[need] | (0 if item[need] == call else bits.get(item[need], 0))
            if stack and (call < 0 or behind & bits[call]):
                path, class_name = stack[0]
                calls[path] = calls.get(path, 0) + 1
                call = current[path] = self._made(group, path, class_name, calls[path])
                bits[call] = 1 << len(bits)
            item[node], left[node] = call, behind
            if stack:
                inside.setdefault(call, []).append((node, stack[1:]))
            else:
                self._contents.nodes[node].group = group
        for call, nodes in inside.items():
            self._place(call, nodes)

    def _made(self, parent: int, path: str, class_name: str, call: int) -> int:
        groups = self._contents.groups
        outside = groups[parent].path
        inside = path[len(outside) + 1 :] if outside and path.startswith((f"{outside}.", f"{outside}/")) else path
        name = inside if call == 1 else f"{inside}, call {call}"
        groups.append(Group(MODULE, plain(name), plain(path), plain(class_name), parent))
        return len(groups) - 1


def _within(stack: Stack, around: str) -> Stack:
    """The modules of a stack that lie in the graph: not the root, nor those that the graph lies in."""
    return [(path, kind) for path, kind in stack if path and not f"{around}.".startswith(f"{path}.")]


def _common(stacks: Sequence[Stack]) -> Stack:
    shortest = min(map(len, stacks))
    count = 0
    while count < shortest and len({stack[count] for stack in stacks}) == 1:
        count += 1
    return stacks[0][:count]
