"""Text generation: one file for the prompt and for each token, with a free batch, sequence and past.

                  input_ids (B, S)   attention_mask (B, P + S)   position_ids (B, S)
                      |                   |                           |
    past_key_values.0.key (B, H, P, D) -> decoder -> present.0.key (B, H, P + S, D)
                      |
                  logits (B, S, V), or (B, 1, V) of the last token alone

A prompt has a past of length 0. Without padding, positions follow from the mask; a batch that is padded on the left
has them as an input, as ``generate`` of transformers computes them.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from onnxport import InputError
from torch._subclasses.fake_tensor import FakeTensor

from onnxport_transformers import caches, recurrences

BATCH, SEQUENCE, PAST, TOTAL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
SIZES = (2, 5, 3)  # batch, past and new tokens of examples: no two axes have the same size


@dataclass
class Graph:
    """What one file is exported from.

    Attributes:
        model: the module.
        kwargs: example inputs.
        dynamic_shapes: of these.
        input_names, output_names: in the order of the file.
        others: example inputs in other sizes, where those can't be made of the first by repeating rows.
    """

    model: torch.nn.Module
    kwargs: dict[str, Any]
    dynamic_shapes: dict[str, Any]
    input_names: list[str]
    output_names: list[str]
    others: list[dict[str, Any]] = field(default_factory=list)

    def options(self) -> dict[str, Any]:
        """The arguments of ``onnxport.export``."""
        return {
            "kwargs": self.kwargs,
            "dynamic_shapes": self.dynamic_shapes,
            "input_names": self.input_names or None,
            "output_names": self.output_names or None,
        }


def with_forward(model: torch.nn.Module, forward: Any, name: str, parameters: Iterable[str] = ()) -> Any:
    """The same model, weights and names of weights included, with another forward.

    Args:
        model: stays as it is.
        forward: takes the model, and what it is called with.
        name: of the class.
        parameters: names of keyword arguments, where the forward takes any.
    """
    made = copy.copy(model)
    if parameters:
        kinds = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ("self", *parameters)]
        forward.__signature__ = inspect.Signature(kinds)
    made.__class__ = type(name, (type(model),), {"forward": forward, "__module__": type(model).__module__})
    return made


def parameters_of(model: torch.nn.Module) -> set[str]:
    """Names of the arguments that a model's forward takes."""
    return set(inspect.signature(type(model).forward).parameters)


def cache_parameter(model: torch.nn.Module) -> str | None:
    """What a model's forward calls its cache, by itself and in its result: ``cache`` since transformers 5.24."""
    takes = parameters_of(model)
    return next((name for name in ("cache", "past_key_values", "cache_params") if name in takes), None)


def text_config(model: Any) -> Any:
    """The configuration of the part that decodes."""
    return model.config.get_text_config(decoder=True)


def decoder(model: Any, *, last_logits: bool = False) -> Graph:
    """The graph of a decoder that takes tokens.

    Args:
        model: a causal language model of transformers.
        last_logits: whether logits are those of the last token alone.

    Raises:
        InputError: its forward takes no cache, or no tokens, or can't give the logits of the last token; or its state
            can't be continued.
        NeedsWeightsError: it has states whose continuation has to be tried, and no weights yet.
    """
    takes = parameters_of(model)
    cache = cache_parameter(model)
    if cache is None or "input_ids" not in takes:
        raise InputError(
            f"{type(model).__name__}.forward takes no {'cache' if 'input_ids' in takes else 'input_ids'}: it is no "
            "decoder. Name another task."
        )
    if last_logits and "logits_to_keep" not in takes:
        raise InputError(
            f"{type(model).__name__}.forward has no logits_to_keep, so the file can't leave out logits. Ask for all.",
            parameter="last_logits",
        )
    template = example_cache(model)
    found = caches.places(template)
    has_positions = "position_ids" in takes
    extra = {"logits_to_keep": 1} if last_logits else {}
    axes = state_axes(model, template, found)
    lengths = next(((i, axis) for i, free in enumerate(axes) for axis, name in free.items() if name == PAST), None)

    def forward(
        self: Any, input_ids: Any, attention_mask: Any, position_ids: Any = None, past_key_values: Any = ()
    ) -> Any:
        if lengths is not None:  # the mask has an entry for each key, so its length is no dimension of its own
            total = past_key_values[lengths[0]].shape[lengths[1]] + input_ids.shape[1]
            torch._check(attention_mask.shape[1] == total)
        else:  # no layer looks back: what counts is which of the new tokens are padding
            new = input_ids.shape[1]
            torch._check(attention_mask.shape[1] >= new)
            attention_mask = attention_mask.narrow(1, attention_mask.shape[1] - new, new)
        given = {"position_ids": position_ids} if has_positions else {}
        with recurrences.continued(model):
            result = super(type(self), self).forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                **{cache: caches.filled(template, found, past_key_values)},
                use_cache=True,
                return_dict=True,
                **given,
                **extra,
            )
        return result.logits, *caches.tensors(result[cache], found)

    batch, past, new = SIZES
    kwargs: dict[str, Any] = {
        "input_ids": torch.randint(0, text_config(model).vocab_size, (batch, new)),
        "attention_mask": torch.ones(batch, past + new, dtype=torch.int64),
        "position_ids": torch.arange(past, past + new).expand(batch, new),
        "past_key_values": example_states(template, found),
    }
    shapes: dict[str, Any] = {
        "input_ids": {0: BATCH, 1: SEQUENCE},
        "attention_mask": {0: BATCH, 1: TOTAL},
        "position_ids": {0: BATCH, 1: SEQUENCE},
        "past_key_values": axes,
    }
    if not has_positions:
        del kwargs["position_ids"], shapes["position_ids"]
    names = [name for name in kwargs if name != "past_key_values"]
    graph = Graph(
        with_forward(model, forward, type(model).__name__),
        kwargs,
        shapes,
        [*names, *(place.past() for place in found)],
        ["logits", *(place.present() for place in found)],
    )
    if any(place.name not in ("key", "value") for place in found):
        _expect_continuation(model, graph, axes, last_logits)
    return graph


class NeedsWeightsError(InputError):
    """A model without data can't show that its state is one to go on from."""


def _expect_continuation(model: Any, graph: Graph, axes: list[dict[int, str]], last_logits: bool) -> None:
    """Try that a text in two calls gives the logits of one call, the first from a state of zeros.

    Keys and values can always be continued. A layer with another state may begin in another way than it goes on, or
    may go on by single tokens alone; one file can't do both.

    Raises:
        NeedsWeightsError: the model's weights aren't loaded.
        InputError: the model can't go on like that.
    """
    if not isinstance(fake_mode_of(model), contextlib.nullcontext):
        raise NeedsWeightsError("The weights have to be loaded first. Build the model with from_pretrained.")
    ids = torch.randint(0, text_config(model).vocab_size, (2, 7))
    states = graph.kwargs["past_key_values"]
    empty = [
        torch.zeros([0 if free.get(i) == PAST else size for i, size in enumerate(state.shape)], dtype=state.dtype)
        for state, free in zip(states, axes, strict=True)
    ]
    logits = []
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False, return_dict=True).logits
        for start, end in ((0, 4), (4, 7)):
            positions = torch.arange(start, end).expand(2, -1)
            call = {"attention_mask": torch.ones(2, end, dtype=torch.int64), "position_ids": positions}
            given = {name: value for name, value in call.items() if name in graph.kwargs}
            result, *empty = graph.model(input_ids=ids[:, start:end], past_key_values=empty, **given)
            logits.append(result)
    found = torch.cat(logits, 1)
    expected = expected[:, [3, 6]] if last_logits else expected
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise InputError(
            f"{type(model).__name__} doesn't go on from its state as one file has to: a text in two calls has other "
            "logits than in one. Export the prompt and the step by onnxport.export_together, each with its own example."
        )


def example_cache(model: Any, batch: int = SIZES[0], length: int = SIZES[1]) -> Any:
    """The cache after a call of the model."""
    name = cache_parameter(model)
    with torch.no_grad(), fake_mode_of(model), _experts_by_gathering(model):
        ids = torch.zeros(batch, length, dtype=torch.int64)
        empty = caches.empty_cache(text_config(model))
        return model(input_ids=ids, **{name: empty}, use_cache=True, return_dict=True)[name]


@contextlib.contextmanager
def _experts_by_gathering(model: Any) -> Iterator[None]:
    """Experts whose shapes torch can tell without data: it has none for grouped products in float32."""
    config, name = text_config(model), "_experts_implementation"
    before = getattr(config, name, None)
    if before is None or isinstance(fake_mode_of(model), contextlib.nullcontext):
        yield
        return
    setattr(config, name, "batched_mm")
    try:
        yield
    finally:
        setattr(config, name, before)


def fake_mode_of(model: torch.nn.Module) -> Any:
    """The mode of a model whose weights aren't loaded; nothing for others."""
    fake = next((p for p in model.parameters() if isinstance(p, FakeTensor) or isinstance(p.data, FakeTensor)), None)
    return contextlib.nullcontext() if fake is None else fake.fake_mode  # type: ignore[attr-defined]


def example_states(template: Any, found: list[caches.Place]) -> list[torch.Tensor]:
    """The tensors of a cache, with random values where the model has no weights yet."""
    states = caches.tensors(template, found)
    return [torch.randn(tuple(s.shape), dtype=s.dtype) if _is_fake(s) else s.detach().clone() for s in states]


def _is_fake(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, FakeTensor)


def state_axes(model: Any, template: Any, found: list[caches.Place]) -> list[dict[int, str]]:
    """The free axes of a decoder's cache."""
    batch, length, _ = SIZES
    others = example_cache(model, batch, length + 2), example_cache(model, batch + 1, length)
    return free_axes(*(caches.tensors(cache, found) for cache in (template, *others)))


def free_axes(
    states: list[torch.Tensor], longer: list[torch.Tensor], wider: list[torch.Tensor], length: str = PAST
) -> list[dict[int, str]]:
    """What differs between tensors of a cache after calls of other lengths and batches."""
    axes = []
    for state, other, more in zip(states, longer, wider, strict=True):
        free = {i: BATCH for i, (size, changed) in enumerate(zip(state.shape, more.shape)) if size != changed}
        free |= {i: length for i, (size, changed) in enumerate(zip(state.shape, other.shape)) if size != changed}
        axes.append(free)
    return axes
