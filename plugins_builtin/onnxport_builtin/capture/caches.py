"""The caches of transformers among a model's inputs and outputs: a layer is a dict of its ``key`` and ``value``.

What is left of a cache when its tensors are taken out is a :class:`CacheState`. torch keeps it as JSON, so that
programs with caches can be saved.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
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


# States --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Child:
    """A tensor or a symbolic number, which is a child of the container, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class TensorOf:
    """A tensor that has the same number as another attribute of the layer."""

    attribute: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list, or a tuple."""

    values: list[Any]
    is_tuple: bool


@dataclass(frozen=True, slots=True)
class Entries:
    """A dict: its keys with their values."""

    pairs: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Dtype:
    """A ``torch.dtype``."""

    name: str


@dataclass(frozen=True, slots=True)
class Device:
    """A ``torch.device``."""

    name: str


@dataclass(frozen=True, slots=True)
class Class:
    """A class, as ``module:name``."""

    path: str


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer without its tensors.

    Attributes:
        cls: its class.
        attributes: its attributes: numbers and strings as they are, all else as one of the classes above.
        is_counted: its counter is the size of its keys.
    """

    cls: Class
    attributes: dict[str, Any]
    is_counted: bool


@dataclass(frozen=True, slots=True)
class CacheState:
    """A cache without its tensors.

    Attributes:
        cls: its class.
        attributes: as those of a layer.
        nested: names of the attributes that are caches themselves, as the halves of an encoder-decoder's are.
        layers: its layers; None for a cache of nested ones, or without any.
    """

    cls: Class
    attributes: dict[str, Any]
    nested: list[str]
    layers: list[LayerState] | None


_KINDS = (Child, TensorOf, Items, Entries, Dtype, Device, Class, LayerState, CacheState)
_STATES = {kind.__name__: kind for kind in _KINDS}
_KIND = "is"  # a word of Python, which no attribute is named by


def _as_json(value: Any) -> Any:
    """A state as JSON takes it."""
    if isinstance(value, _KINDS):
        return {_KIND: type(value).__name__, **{f.name: _as_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    return [_as_json(each) for each in value] if isinstance(value, list) else value


def _from_json(value: Any) -> Any:
    """The state that is written so."""
    if isinstance(value, dict):
        inner = {name: _from_json(each) for name, each in value.items() if name != _KIND}
        return _STATES[value[_KIND]](**inner) if _KIND in value else inner
    return [_from_json(each) for each in value] if isinstance(value, list) else value


# Taken apart ---------------------------------------------------------------------------------------------------------


def _flatten_cache(cache: Any) -> tuple[list[Any], Any]:
    attributes = dict(vars(cache))
    layers = attributes.pop("layers", None)
    nested = {name: value for name, value in attributes.items() if _is_nested(value)}
    rest = {name: _encode(value, [], name) for name, value in attributes.items() if name not in nested}
    children: list[Any] = list(nested.values())
    states = None
    if layers is not None and not nested:
        flat = [_flatten_layer(layer) for layer in layers]
        children = [tensors for tensors, _ in flat]
        states = [state for _, state in flat]
    return children, _as_json(CacheState(_class_of(cache), rest, list(nested), states))


def _names(cache: Any) -> list[str | int]:
    nested = [name for name, value in vars(cache).items() if _is_nested(value)]
    layers = vars(cache).get("layers")
    return [*nested] if nested or layers is None else [*range(len(layers))]


def _is_nested(value: Any) -> bool:
    """Whether an attribute is a cache itself, as the two halves of an encoder-decoder's are."""
    return isinstance(value, sys.modules[_MODULE].Cache)


def _flatten_layer(layer: Any) -> tuple[dict[str, Any], LayerState]:
    tensors: list[tuple[str, Any]] = []
    attributes: dict[str, Any] = {}
    for name, value in vars(layer).items():
        if name == _COUNTER and _counts_keys(layer, value):
            continue
        source = name.removeprefix("_").removesuffix("_tensor")
        if name.startswith("_") and isinstance(value, torch.Tensor) and isinstance(vars(layer).get(source), int):
            attributes[name] = TensorOf(source)
            continue
        if name == _COUNTER and value is not None and getattr(layer, "keys", None) is not None:
            tensors.append((name, value))  # beyond the window, no size of the layer's tells it
            attributes[name] = Child(name)
            continue
        attributes[name] = _encode(value, tensors, {"keys": "key", "values": "value"}.get(name, name))
    is_counted = _counts_keys(layer, vars(layer).get(_COUNTER))
    return dict(tensors), LayerState(_class_of(layer), attributes, is_counted)


def _counts_keys(layer: Any, counter: Any) -> bool:
    keys = getattr(layer, "keys", None)
    if isinstance(counter, torch.Tensor) or counter is None or not isinstance(keys, torch.Tensor) or keys.dim() < 2:
        return False
    size = keys.shape[_COUNTED_AXIS]
    if isinstance(counter, int) and isinstance(size, int):
        return counter == size
    expressions = [str(getattr(getattr(n, "node", None), "expr", n)) for n in (counter, size)]
    return expressions[0] == expressions[1]


def _encode(value: Any, tensors: list[tuple[str, Any]], name: str) -> Any:
    """A value without its tensors, which are added to ``tensors``."""
    if isinstance(value, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)):
        tensors.append((name, value))
        return Child(name)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return Items([_encode(v, tensors, f"{name}_{i}") for i, v in enumerate(value)], isinstance(value, tuple))
    if isinstance(value, dict):
        return Entries([[k, _encode(v, tensors, f"{name}_{k}")] for k, v in value.items()])
    if isinstance(value, torch.dtype):
        return Dtype(str(value).removeprefix("torch."))
    if isinstance(value, torch.device):
        return Device(str(value))
    if isinstance(value, type):
        return Class(_path(value))
    return None  # a stream or a lock: nothing that a traced forward may depend on


# Put together --------------------------------------------------------------------------------------------------------


def _unflatten_cache(children: Iterable[Any], context: Any) -> Any:
    state: CacheState = _from_json(context)
    cache = _new(state.cls)
    children = list(children)
    for name, value in state.attributes.items():
        setattr(cache, name, _decode(value, {}))
    for name, value in zip(state.nested, children, strict=False):
        setattr(cache, name, value)
    if state.layers is not None:
        cache.layers = [_unflatten_layer(*pair) for pair in zip(children, state.layers, strict=True)]
    return cache


def _unflatten_layer(tensors: Mapping[str, Any], state: LayerState) -> Any:
    layer = _new(state.cls)
    for name, value in state.attributes.items():
        is_copy = isinstance(value, TensorOf)
        setattr(layer, name, torch.tensor(state.attributes[value.attribute]) if is_copy else _decode(value, tensors))
    if state.is_counted:
        shape = getattr(layer.keys, "shape", None)
        setattr(layer, _COUNTER, None if shape is None else shape[_COUNTED_AXIS])
    return layer


def _decode(value: Any, tensors: Mapping[str, Any]) -> Any:
    """The value of a state, with its tensors."""
    if isinstance(value, Child):
        return tensors[value.name]
    if isinstance(value, Items):
        items = [_decode(each, tensors) for each in value.values]
        return tuple(items) if value.is_tuple else items
    if isinstance(value, Entries):
        return {key: _decode(each, tensors) for key, each in value.pairs}
    if isinstance(value, Dtype):
        return getattr(torch, value.name)
    if isinstance(value, Device):
        return torch.device(value.name)
    return _find(value) if isinstance(value, Class) else value


def _new(cls: Class) -> Any:
    """An instance that ``__init__`` hasn't seen."""
    found = _find(cls)
    return found.__new__(found)


def _class_of(value: Any) -> Class:
    return Class(_path(type(value)))


def _path(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _find(cls: Class) -> Any:
    module, _, name = cls.path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
