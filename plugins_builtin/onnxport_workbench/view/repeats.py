"""Groups beside each other that are alike, such as the layers of a model: a page shows one of them and their number."""

from __future__ import annotations

import re
from typing import Any

from onnxport_workbench.view.contents import FUNCTION, Contents

_LONGEST_PERIOD = 8
_DIMENSION = re.compile(r"[^\W\d][\w.]*")


def repeats_of(contents: Contents) -> list[list[int]]:
    """Lists of groups that are alike, each in the order of the model.

    They are alike if their nodes have the same operators, attributes, types and connections in the same order, and so
    have the groups in them. Sizes that the model's inputs don't name are taken for equal. Layers of two or more kinds
    that take turns give a list each.
    """
    first = _first_nodes(contents)
    children: dict[int, list[int]] = {}
    for group, data in enumerate(contents.groups):
        if data.parent >= 0 and group in first and data.kind != FUNCTION:
            children.setdefault(data.parent, []).append(group)
    numbers: dict[Any, int] = {}
    likeness = _Likeness(contents)
    repeats = []
    for groups in children.values():
        if len(groups) < 2:
            continue
        groups.sort(key=first.__getitem__)
        kinds = [numbers.setdefault(likeness.of(group), len(numbers)) for group in groups]
        start = 0
        while start < len(kinds):
            period, count = _run(kinds, start)
            unit = groups[start : start + period]
            if count > 2 or (count == 2 and sum(map(likeness.size_of, unit)) > 1):  # not two activations
                repeats += [groups[start + i : start + period * count : period] for i in range(period)]
            start += period * count
    return repeats


def _run(kinds: list[int], start: int) -> tuple[int, int]:
    """The period that repeats from there on, and how often; the shortest period of those that reach the farthest."""
    best = (1, 1)
    for period in range(1, min(_LONGEST_PERIOD, (len(kinds) - start) // 2) + 1):
        unit, count = kinds[start : start + period], 1
        while kinds[start + count * period : start + (count + 1) * period] == unit:
            count += 1
        if count > 1 and (best[1] == 1 or period * count > best[0] * best[1]):
            best = (period, count)
            if period == 1:  # a run of one kind is shown as such, whatever follows
                break
    return best


def _first_nodes(contents: Contents) -> dict[int, int]:
    """The first node in a group, by group; those without nodes are left out."""
    first: dict[int, int] = {}
    for index, node in enumerate(contents.nodes):
        for group in contents.ancestors(node.group):
            first.setdefault(group, index)
    return first


class _Likeness:
    """What groups are compared by."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._members: dict[int, list[int]] = {}
        self._producer = {value: index for index, node in enumerate(contents.nodes) for value in node.outputs}
        self._named = {
            name
            for value in contents.inputs
            for name in _DIMENSION.findall(contents.values[value].type.partition("[")[2])
        }
        self._texts: dict[str, str] = {}
        for index, node in enumerate(contents.nodes):
            for group in contents.ancestors(node.group):
                self._members.setdefault(group, []).append(index)

    def size_of(self, group: int) -> int:
        """The number of nodes in a group and those in it."""
        return len(self._members[group])

    def of(self, group: int) -> tuple[Any, ...]:
        """Equal for groups that are alike."""
        contents = self._contents
        nodes = self._members[group]
        place = {node: i for i, node in enumerate(nodes)}
        inner: dict[int, int] = {group: 0}
        rows = []
        for index in nodes:
            node = contents.nodes[index]
            for each in reversed([*contents.ancestors(node.group)]):
                if each != group and each in self._members and self._is_inside(each, group):
                    inner.setdefault(each, len(inner))
            inputs = tuple(place.get(self._producer.get(value, -1), self._type(value)) for value in node.inputs)
            outputs = tuple(self._type(value) for value in node.outputs)
            rows.append((
                inner[node.group], node.operator, node.domain, node.torch_operator, node.attributes, inputs, outputs,
                node.function, node.status,
            ))  # fmt: skip
        return contents.groups[group].kind, contents.groups[group].class_name, tuple(rows)

    def _is_inside(self, group: int, outside: int) -> bool:
        return outside in self._contents.ancestors(group)

    def _type(self, value: int) -> str:
        """The type of a value, without the sizes that only the graph names."""
        if value < 0:
            return ""
        text = self._contents.values[value].type
        if text not in self._texts:
            kind, bracket, dims = text.partition("[")
            known = [
                dim if all(name in self._named for name in _DIMENSION.findall(dim)) else "?" for dim in dims.split(", ")
            ]
            self._texts[text] = kind + bracket + ", ".join(known)
        return self._texts[text]
