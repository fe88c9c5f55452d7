"""The models of a zoo of onnxport-zoo: ``transformers:llama`` is a small one of that type, with random weights."""

from __future__ import annotations

from typing import Any

from onnxport import InputError
from onnxport_zoo import Resolver


def _names() -> list[str]:
    from onnxport_transformers.small import model_types

    return model_types()


def _example(name: str) -> dict[str, Any]:
    """The model of a type whose forward is called once; the first file of one that becomes several."""
    from onnxport_transformers.small import small_model

    if name not in _names():
        raise InputError(f"This transformers has no model type {name!r}. Name one that `transformers:*` lists.")
    graph = next(iter(small_model(name).graphs.values()))
    return {"model": graph.model, **{key: value for key, value in graph.options().items() if value is not None}}


resolver = Resolver(_names, _example, ("transformers", "onnxport-transformers"))
