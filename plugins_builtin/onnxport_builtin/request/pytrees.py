"""Pytree containers: classes that hold tensors among a model's inputs or outputs.

torch.export takes any class that is registered with ``torch.utils._pytree``. What is registered here stays registered,
since an ``ExportedProgram`` needs it for as long as it lives; a class that somebody else registered stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxport.kit import loaded, pytree

if TYPE_CHECKING:
    from onnxport import Container

_LEAVES = (torch.Tensor, np.ndarray, bool, int, float, complex, str, type(None))
_containers: dict[type, Container] = {}
"""What plugins say of classes, those that somebody else has registered with pytree included."""


def register(containers: Iterable[Container]) -> None:
    """Register the classes that plugins bring; those of libraries that aren't loaded wait for the next call."""
    for container in containers:
        root = loaded(container.cls) if isinstance(container.cls, str) else container.cls
        keys = None if container.names is None else _keyed(container.flatten, container.names)
        for cls in _classes(root, container.subclasses) if isinstance(root, type) else ():
            _containers.setdefault(cls, container)
            _register(cls, container.flatten, container.unflatten, keys, container.serialized_name)


def _classes(cls: type, derived: bool) -> Iterator[type]:
    below: type
    yield cls
    if derived:
        for below in cls.__subclasses__():
            yield from _classes(below, derived)


def count() -> int:
    """How many classes are known to pytree."""
    return len(pytree.SUPPORTED_NODES)


def counters() -> frozenset[str]:
    """Names of numbers that count what the tensors beside them hold."""
    return frozenset(name for container in _containers.values() for name in container.counters)


def recognize(value: Any, plugins: Sequence[object] | None = None) -> None:
    """Register the classes among a value's leaves that are containers: those of plugins, and dataclasses.

    A capture does so for its arguments; another process, which only runs the file, has to do it by itself.
    """
    if not all(isinstance(leaf, _LEAVES) for leaf in pytree.tree_leaves(value)):
        from onnxport.kit import load

        register(load(plugins).containers())
        register_dataclasses_in(value)


def register_dataclass(cls: type) -> None:
    """Register a dataclass; its fields become its children, those that are None included."""
    names = tuple(field.name for field in dataclasses.fields(cls) if field.init)

    def flatten(value: Any) -> tuple[list[Any], Any]:
        return [getattr(value, name) for name in names], list(names)

    def unflatten(children: Iterable[Any], context: Any) -> Any:
        return cls(**dict(zip(context, children, strict=True)))

    _register(cls, flatten, unflatten, _keyed(flatten, lambda _: list(names)))


def register_dataclasses_in(value: Any) -> None:
    """Register the dataclasses among a value's leaves, theirs too."""
    waiting = [value]
    while waiting:
        for leaf in pytree.tree_leaves(waiting.pop()):
            cls = type(leaf)
            if dataclasses.is_dataclass(cls) and cls not in pytree.SUPPORTED_NODES:
                register_dataclass(cls)
                waiting.append(leaf)


def is_registered(value: Any) -> bool:
    """Whether a value is a container to pytree."""
    return not pytree.tree_structure(value, is_leaf=lambda v: v is not value).is_leaf()


def children(value: Any) -> tuple[list[Any], list[Any]]:
    """The keys (``str`` or ``int``) and the children of a container, one level deep."""
    try:
        pairs = _pairs_of(value)
        if pairs is None:
            below, _ = pytree.tree_flatten_with_path(value, is_leaf=lambda v: v is not value)
            pairs = [(path[0], child) for path, child in below]
    except ValueError:  # registered without key paths
        leaves = pytree.tree_leaves(value, is_leaf=lambda v: v is not value)
        return list(range(len(leaves))), leaves
    return [_key(key) for key, _ in pairs], [child for _, child in pairs]


def _pairs_of(value: Any) -> list[tuple[Any, Any]] | None:
    """The children by the names of a plugin's container where somebody else registered its class without names.

    Only where the order of the leaves is the same: the exporters of transformers register caches as a flat list.
    """
    container, node = _containers.get(type(value)), pytree.SUPPORTED_NODES.get(type(value))
    if container is None or container.names is None or node is None or node.flatten_fn is container.flatten:
        return None
    pairs, _ = _keyed(container.flatten, container.names)(value)
    leaves = [pytree.tree_leaves(tree) for tree in ([item for _, item in pairs], value)]
    return pairs if [*map(id, leaves[0])] == [*map(id, leaves[1])] else None


def _key(entry: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)


def _register(
    cls: type, flatten: Callable[..., Any], unflatten: Callable[..., Any], keys: Any, name: str | None = None
) -> None:
    if cls in pytree.SUPPORTED_NODES:
        return
    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=name or f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=keys,
    )


def _keyed(
    flatten: Callable[[Any], tuple[list[Any], Any]], names: Callable[[Any], Sequence[str | int]]
) -> Callable[[Any], Any]:
    def flatten_with_keys(value: Any) -> tuple[list[Any], Any]:
        items, context = flatten(value)
        keys: list[Any] = [pytree.SequenceKey(n) if isinstance(n, int) else pytree.MappingKey(n) for n in names(value)]
        return list(zip(keys, items, strict=True)), context

    return flatten_with_keys
