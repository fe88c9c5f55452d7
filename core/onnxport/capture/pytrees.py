"""Pytree containers: classes that hold tensors among a model's inputs or outputs.

torch.export takes any class that is registered with ``torch.utils._pytree``. What is registered here stays registered,
since an ``ExportedProgram`` needs it for as long as it lives; a class that somebody else registered stays as it is.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree

if TYPE_CHECKING:
    from onnxport.host.hookspecs import Container

_LEAVES = (torch.Tensor, np.ndarray, bool, int, float, complex, str, type(None))
_CACHE_MODULE = "transformers.cache_utils"
# A sliding layer counts the tokens that it has seen; while it is not full, that is a size of its keys, and no constant.
COUNTER, _COUNTED_AXIS = "cumulative_length", -2


def register(containers: Iterable[Container]) -> None:
    """Register the classes that plugins bring."""
    for container in containers:
        keys = None if container.names is None else _keyed(container.flatten, container.names)
        _register(container.cls, container.flatten, container.unflatten, keys, container.serialized_name)


def recognize(value: Any, plugins: Sequence[object] | None = None) -> None:
    """Register the classes among a value's leaves that are containers: those of packs, caches, and dataclasses.

    A capture does so for its arguments; another process, which only runs the file, has to do it by itself.
    """
    if not all(isinstance(leaf, _LEAVES) for leaf in pytree.tree_leaves(value)):
        from onnxport.host.discovery import load

        register(load(plugins).containers())
        register_caches()
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


def register_caches() -> None:
    """Register the caches of transformers, where that is loaded; a layer is a dict of its ``key`` and ``value``."""
    module = sys.modules.get(_CACHE_MODULE)
    base = getattr(module, "Cache", None)
    if base is None:
        return
    waiting = [base]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        _register(cls, _flatten_cache, _unflatten_cache, _flatten_cache_with_keys)


def is_registered(value: Any) -> bool:
    """Whether a value is a container to pytree."""
    return not pytree.tree_structure(value, is_leaf=lambda v: v is not value).is_leaf()


def children(value: Any) -> tuple[list[Any], list[Any]]:
    """The keys (``str`` or ``int``) and the children of a container, one level deep."""
    try:
        pairs = _pairs_of_cache(value)
        if pairs is None:
            below, _ = pytree.tree_flatten_with_path(value, is_leaf=lambda v: v is not value)
            pairs = [(path[0], child) for path, child in below]
    except ValueError:  # registered without key paths
        leaves = pytree.tree_leaves(value, is_leaf=lambda v: v is not value)
        return list(range(len(leaves))), leaves
    return [_key(key) for key, _ in pairs], [child for _, child in pairs]


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


def _keyed(flatten: Callable[..., Any], names: Callable[[Any], list[str]]) -> Callable[[Any], Any]:
    def flatten_with_keys(value: Any) -> tuple[list[Any], Any]:
        items, context = flatten(value)
        return [(pytree.MappingKey(name), item) for name, item in zip(names(value), items, strict=True)], context

    return flatten_with_keys


# Caches of transformers ----------------------------------------------------------------------------------------------
# An instance is its state with the tensors taken out; a state is JSON, so that programs with caches can be saved.


def _flatten_cache(cache: Any) -> tuple[list[Any], Any]:
    state = dict(vars(cache))
    layers = state.pop("layers", None)
    nested = {
        name: value for name, value in state.items() if type(value) in pytree.SUPPORTED_NODES and _is_cache(value)
    }
    state = {name: _encode(value, [], name) for name, value in state.items() if name not in nested}
    context: dict[str, Any] = {"class": _path(type(cache)), "state": state, "nested": list(nested)}
    items: list[Any] = list(nested.values())
    if layers is not None and not nested:
        flat = [_flatten_layer(layer) for layer in layers]
        items = [tensors for tensors, _ in flat]
        context["layers"] = [layer for _, layer in flat]
    return items, context


def _flatten_cache_with_keys(cache: Any) -> tuple[list[Any], Any]:
    items, context = _flatten_cache(cache)
    keys: list[Any] = [pytree.MappingKey(name) for name in context["nested"]] or [
        pytree.SequenceKey(i) for i in range(len(items))
    ]
    return list(zip(keys, items, strict=True)), context


def _pairs_of_cache(value: Any) -> list[tuple[Any, Any]] | None:
    """The children of a cache whose class somebody else registered, where the order of its leaves is the same.

    The exporters of transformers register caches as a flat list of tensors without names.
    """
    node = pytree.SUPPORTED_NODES.get(type(value))
    if _CACHE_MODULE not in sys.modules or not _is_cache(value) or node is None or node.flatten_fn is _flatten_cache:
        return None
    pairs, _ = _flatten_cache_with_keys(value)
    leaves = [pytree.tree_leaves(tree) for tree in ([item for _, item in pairs], value)]
    return pairs if [*map(id, leaves[0])] == [*map(id, leaves[1])] else None


def _flatten_layer(layer: Any) -> tuple[dict[str, Any], Any]:
    tensors: list[tuple[str, Any]] = []
    state = {}
    for name, value in vars(layer).items():
        if name == COUNTER and _counts_keys(layer, value):
            continue
        source = name.removeprefix("_").removesuffix("_tensor")
        if name.startswith("_") and isinstance(value, torch.Tensor) and isinstance(vars(layer).get(source), int):
            state[name] = {"$of": source}  # a number of the layer's that it keeps as a tensor too
            continue
        if name == COUNTER and value is not None and getattr(layer, "keys", None) is not None:
            tensors.append((name, value))  # beyond the window, no size of the layer's tells it
            state[name] = {"$tensor": name}
            continue
        state[name] = _encode(value, tensors, {"keys": "key", "values": "value"}.get(name, name))
    return dict(tensors), {
        "class": _path(type(layer)),
        "state": state,
        "counted": _counts_keys(layer, vars(layer).get(COUNTER)),
    }


def _counts_keys(layer: Any, counter: Any) -> bool:
    keys = getattr(layer, "keys", None)
    if isinstance(counter, torch.Tensor) or counter is None or not isinstance(keys, torch.Tensor) or keys.dim() < 2:
        return False
    size = keys.shape[_COUNTED_AXIS]
    if isinstance(counter, int) and isinstance(size, int):
        return counter == size
    expressions = [str(getattr(getattr(n, "node", None), "expr", n)) for n in (counter, size)]
    return expressions[0] == expressions[1]


def _unflatten_cache(items: Iterable[Any], context: Any) -> Any:
    cls = _find(context["class"])
    cache = cls.__new__(cls)
    items = list(items)
    for name, value in context["state"].items():
        setattr(cache, name, _decode(value, {}))
    for name, value in zip(context["nested"], items, strict=False):
        setattr(cache, name, value)
    if "layers" in context:
        cache.layers = [_unflatten_layer(*pair) for pair in zip(items, context["layers"], strict=True)]
    return cache


def _unflatten_layer(tensors: dict[str, Any], context: Any) -> Any:
    cls = _find(context["class"])
    layer = cls.__new__(cls)
    for name, value in context["state"].items():
        derived = isinstance(value, dict) and "$of" in value
        setattr(layer, name, torch.tensor(context["state"][value["$of"]]) if derived else _decode(value, tensors))
    if context["counted"]:
        shape = getattr(layer.keys, "shape", None)
        setattr(layer, COUNTER, None if shape is None else shape[_COUNTED_AXIS])
    return layer


def _is_cache(value: Any) -> bool:
    return isinstance(value, sys.modules[_CACHE_MODULE].Cache)


def _encode(value: Any, tensors: list[tuple[str, Any]], name: str) -> Any:
    if isinstance(value, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)):
        tensors.append((name, value))
        return {"$tensor": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return {
            "$list": [_encode(v, tensors, f"{name}_{i}") for i, v in enumerate(value)],
            "$tuple": isinstance(value, tuple),
        }
    if isinstance(value, dict):
        return {"$dict": [[k, _encode(v, tensors, f"{name}_{k}")] for k, v in value.items()]}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"$device": str(value)}
    if isinstance(value, type):
        return {"$class": _path(value)}
    return None  # a stream or a lock: nothing that a traced forward may depend on


def _decode(value: Any, tensors: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "$tensor":
        return tensors[content]
    if kind == "$list":
        items = [_decode(v, tensors) for v in content]
        return tuple(items) if value["$tuple"] else items
    if kind == "$dict":
        return {k: _decode(v, tensors) for k, v in content}
    if kind == "$dtype":
        return getattr(torch, content)
    return torch.device(content) if kind == "$device" else _find(content)


def _path(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _find(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
