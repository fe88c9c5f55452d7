"""The caches of transformers among a model's inputs and outputs: a layer is a dict of its ``key`` and ``value``.

An instance is its state with the tensors taken out; a state is JSON, so that programs with caches can be saved.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

import torch
from onnxport import Container

_MODULE = "transformers.cache_utils"
# A sliding layer counts the tokens that it has seen; while it is not full, that is a size of its keys, and no constant.
_COUNTER, _COUNTED_AXIS = "cumulative_length", -2


def container() -> Container:
    """All classes of caches, where transformers is loaded."""
    return Container(
        f"{_MODULE}:Cache", _flatten_cache, _unflatten_cache, names=_names, subclasses=True, counters=(_COUNTER,)
    )


def _flatten_cache(cache: Any) -> tuple[list[Any], Any]:
    state = dict(vars(cache))
    layers = state.pop("layers", None)
    nested = {name: value for name, value in state.items() if _is_nested(value)}
    state = {name: _encode(value, [], name) for name, value in state.items() if name not in nested}
    context: dict[str, Any] = {"class": _path(type(cache)), "state": state, "nested": list(nested)}
    items: list[Any] = list(nested.values())
    if layers is not None and not nested:
        flat = [_flatten_layer(layer) for layer in layers]
        items = [tensors for tensors, _ in flat]
        context["layers"] = [layer for _, layer in flat]
    return items, context


def _names(cache: Any) -> list[str | int]:
    nested = [name for name, value in vars(cache).items() if _is_nested(value)]
    layers = vars(cache).get("layers")
    return [*nested] if nested or layers is None else [*range(len(layers))]


def _is_nested(value: Any) -> bool:
    """Whether a state is a cache itself, as the two halves of an encoder-decoder's are."""
    return isinstance(value, sys.modules[_MODULE].Cache)


def _flatten_layer(layer: Any) -> tuple[dict[str, Any], Any]:
    tensors: list[tuple[str, Any]] = []
    state = {}
    for name, value in vars(layer).items():
        if name == _COUNTER and _counts_keys(layer, value):
            continue
        source = name.removeprefix("_").removesuffix("_tensor")
        if name.startswith("_") and isinstance(value, torch.Tensor) and isinstance(vars(layer).get(source), int):
            state[name] = {"$of": source}  # a number of the layer's that it keeps as a tensor too
            continue
        if name == _COUNTER and value is not None and getattr(layer, "keys", None) is not None:
            tensors.append((name, value))  # beyond the window, no size of the layer's tells it
            state[name] = {"$tensor": name}
            continue
        state[name] = _encode(value, tensors, {"keys": "key", "values": "value"}.get(name, name))
    return dict(tensors), {
        "class": _path(type(layer)),
        "state": state,
        "counted": _counts_keys(layer, vars(layer).get(_COUNTER)),
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
        setattr(layer, _COUNTER, None if shape is None else shape[_COUNTED_AXIS])
    return layer


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
