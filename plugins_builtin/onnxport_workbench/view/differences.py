"""Two models in one: the second one's nodes, with those of the first one that it doesn't have; each says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

from onnxport_workbench.view.contents import Contents, Entry, Group

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


def merged(before: Contents, after: Contents) -> Contents:
    """The second model with what it lost of the first; ``Entry.status`` and ``Entry.changes`` say what differs.

    Nodes of one module are matched in their order, by operator and torch operator, whatever their names. A node is
    changed if its attributes, types, connections or translation are others. Weights are compared by type, not by value.
    ``after`` is changed in place and returned.
    """
    pairs = dict(_matched(before, after))
    values = _same_values(before, after, pairs)
    taken = set(pairs.values())
    for index, node in enumerate(after.nodes):
        node.status = "" if index in taken else ADDED
    for old, new in pairs.items():
        changes = list(_changes(before, before.nodes[old], after, after.nodes[new], values))
        if changes:
            after.nodes[new].status, after.nodes[new].changes = CHANGED, changes
    _with_removed(before, after, pairs, values)
    return after


def _matched(before: Contents, after: Contents) -> Iterator[tuple[int, int]]:
    """Nodes of both that are the same one, by index."""
    old, new = _by_module(before), _by_module(after)
    for module, ours in old.items():
        theirs = new.get(module, [])
        matcher = SequenceMatcher(None, _keys(before, ours), _keys(after, theirs), autojunk=False)
        for block in matcher.get_matching_blocks():
            yield from zip(ours[block.a : block.a + block.size], theirs[block.b : block.b + block.size])


def _keys(contents: Contents, nodes: list[int]) -> list[str]:
    """What nodes of two models are the same by."""
    rows = (contents.nodes[index] for index in nodes)
    return [f"{node.domain}::{node.operator} {node.torch_operator}" for node in rows]


def _by_module(contents: Contents) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for index, node in enumerate(contents.nodes):
        found.setdefault(contents.module_of(node.group), []).append(index)
    return found


def _same_values(before: Contents, after: Contents, pairs: dict[int, int]) -> dict[int, int]:
    """Values of the second model that are those of the first: results of matched nodes, and what has the same name."""
    values: dict[int, int] = {}
    produced = {value for node in after.nodes for value in node.outputs}
    names = {value.name: i for i, value in enumerate(after.values) if i not in produced and value.name}
    made = {value for node in before.nodes for value in node.outputs}
    for index, value in enumerate(before.values):
        if index not in made and value.name in names:
            values[index] = names[value.name]
    if len(before.inputs) == len(after.inputs):
        for left, right in zip(before.inputs, after.inputs):
            values.setdefault(left, right)
    for old, new in pairs.items():
        values.update(zip(before.nodes[old].outputs, after.nodes[new].outputs))
    return values


def _changes(before: Contents, old: Entry, after: Contents, new: Entry, values: dict[int, int]) -> Iterator[str]:
    """What differs between two matched nodes, a line each."""
    attributes = dict(old.attributes), dict(new.attributes)
    for name in dict.fromkeys([*attributes[0], *attributes[1]]):
        left, right = attributes[0].get(name, "left out"), attributes[1].get(name, "left out")
        if left != right:
            yield f"attribute {name}: {left} → {right}"
    for word, ours, theirs in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        if len(ours) != len(theirs):
            yield f"{word}s: {len(ours)} → {len(theirs)}"
        for place, (a, b) in enumerate(zip(ours, theirs)):
            yield from _change_of_value(before, a, after, b, values, f"{word} {place}")
    if (old.translation, old.plugin) != (new.translation, new.plugin) and old.translation and new.translation:
        yield f"translation: {old.translation} ({old.plugin}) → {new.translation} ({new.plugin})"


def _change_of_value(
    before: Contents, a: int, after: Contents, b: int, values: dict[int, int], what: str
) -> Iterator[str]:
    if (a < 0) != (b < 0):
        yield f"{what}: {'given' if a < 0 else 'left out'} now"
    elif a >= 0 and before.values[a].type != after.values[b].type:
        yield f"{what}: {before.values[a].type or 'unknown'} → {after.values[b].type or 'unknown'}"
    elif a >= 0 and what.startswith("input") and values.get(a) != b and not _are_weights(before, a, after, b):
        yield f"{what}: from {before.values[a].name} → from {after.values[b].name}"


def _are_weights(before: Contents, a: int, after: Contents, b: int) -> bool:
    """Two weights of one type may have different names."""
    return before.values[a].weight_bytes >= 0 and after.values[b].weight_bytes >= 0


def _with_removed(before: Contents, after: Contents, pairs: dict[int, int], values: dict[int, int]) -> None:
    """Add the nodes that only the first model has, where they stood."""
    groups = {(*after.module_of(i), g.kind, g.name): i for i, g in enumerate(after.groups)}
    new_groups: dict[int, int] = {}

    def group_of(index: int) -> int:
        if index < 0:
            return -1
        if index not in new_groups:
            group = before.groups[index]
            key: Any = (*before.module_of(index), group.kind, group.name)
            if index == 0:
                new_groups[index] = 0
            elif key in groups:
                new_groups[index] = groups[key]
            else:
                parent = group_of(group.parent)
                new_groups[index] = len(after.groups)
                after.groups.append(Group(group.kind, group.name, group.path, group.class_name, parent))
        return new_groups[index]

    def value_of(index: int) -> int:
        if index >= 0 and index not in values:
            values[index] = len(after.values)
            value = before.values[index]  # its weights are none of the second model's bytes
            after.values.append(replace(value, weight_bytes=min(value.weight_bytes, 0)))
        return -1 if index < 0 else values[index]

    followers: dict[int, list[Entry]] = {}
    last = -1
    for index, node in enumerate(before.nodes):
        if index in pairs:
            last = pairs[index]
            continue
        node.inputs, node.outputs = [*map(value_of, node.inputs)], [*map(value_of, node.outputs)]
        node.group, node.status = group_of(node.group), REMOVED
        node.bodies = [*map(group_of, node.bodies)]
        node.function = group_of(node.function)
        followers.setdefault(last, []).append(node)
    nodes = list(followers.get(-1, ()))
    for index, node in enumerate(after.nodes):
        nodes += [node, *followers.get(index, ())]
    after.nodes = nodes
