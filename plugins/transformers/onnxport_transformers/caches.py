"""A cache of transformers as named tensors, and back: what a file takes from one call and gives to the next."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnxport import InputError

_NAMES = {"keys": "key", "values": "value", "conv_states": "conv_state", "recurrent_states": "recurrent_state"}
"""Attributes of layers, and what runtimes call them."""
_WINDOWED = "SlidingWindow"
_HALVES = ("self_attention_cache", "cross_attention_cache")


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a cache.

    Attributes:
        layer: the layer's number.
        name: what runtimes call it, such as ``key``.
        attribute: of the layer.
        index: its key in the dict that the attribute is; None where the attribute is the tensor.
    """

    layer: int
    name: str
    attribute: str
    index: int | None = None

    def past(self) -> str:
        """The name of the input."""
        return f"past_key_values.{self.layer}.{self.name}"

    def present(self) -> str:
        """The name of the output."""
        return f"present.{self.layer}.{self.name}"


def empty_cache(config: Any) -> Any:
    """A cache without tokens whose attentions keep all keys: masks say which of them a window reads.

    So all layers have the same axes, whether or not their window is full.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=config)
    cache.layers = [_unlimited(layer) for layer in cache.layers]
    return cache


def _unlimited(layer: Any) -> Any:
    from transformers import cache_utils

    name = type(layer).__name__
    if _WINDOWED not in name:
        return layer
    if "LinearAttention" in name:
        return cache_utils.LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
    return cache_utils.DynamicLayer()


def places(cache: Any) -> list[Place]:
    """All tensors of a cache, by layer.

    Raises:
        InputError: it isn't a cache of layers.
    """
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise InputError(
            f"The model keeps its state in a {type(cache).__name__}, which has no layers. Export it with "
            "onnxport.export, which takes the state as an example input."
        )
    return [place for i, layer in enumerate(layers) for place in _places_of(i, layer)]


def _places_of(number: int, layer: Any) -> Iterator[Place]:
    for attribute, value in vars(layer).items():
        name = _NAMES.get(attribute, attribute)
        if isinstance(value, torch.Tensor):
            yield Place(number, name, attribute)
        elif isinstance(value, dict):
            held = {key: item for key, item in value.items() if isinstance(item, torch.Tensor)}
            for key in held:
                yield Place(number, name if len(held) == 1 else f"{name}.{key}", attribute, key)


def tensors(cache: Any, found: Sequence[Place]) -> list[torch.Tensor]:
    """The tensors at these places."""
    return [_tensor(cache.layers[place.layer], place) for place in found]


def _tensor(layer: Any, place: Place) -> torch.Tensor:
    value: Any = getattr(layer, place.attribute)
    return value if place.index is None else value[place.index]  # type: ignore[no-any-return]


def filled(template: Any, found: Sequence[Place], values: Sequence[torch.Tensor]) -> Any:
    """A cache like the template with other tensors in it. States that are written in place are copied first."""
    cache = copy.copy(template)
    cache.layers = [copy.copy(layer) for layer in template.layers]
    for layer in cache.layers:
        for name, value in vars(layer).items():
            if isinstance(value, dict):
                setattr(layer, name, dict(value))
    for place, value in zip(found, values, strict=True):
        layer = cache.layers[place.layer]
        if place.index is None:
            setattr(layer, place.attribute, value)
        else:
            getattr(layer, place.attribute)[place.index] = value.clone()
    return cache


def halves(cache: Any) -> list[Any]:
    """The caches of self and cross attention of an encoder-decoder's; the cache itself for others."""
    return [getattr(cache, name) for name in _HALVES] if hasattr(cache, _HALVES[0]) else [cache]


def joined(template: Any, own: Any, cross: Any) -> Any:
    """The cache of an encoder-decoder like the template, with these two; keys of the encoder are there already."""
    cache = copy.copy(template)
    for name, half in zip(_HALVES, (own, cross), strict=True):
        setattr(cache, name, half)
    cache.is_updated = dict.fromkeys(template.is_updated, True)
    return cache
