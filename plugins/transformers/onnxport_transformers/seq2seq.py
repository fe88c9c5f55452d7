"""Encoder and decoder, each a file.

    input_ids or input_features -> encoder -> last_hidden_state, present.0.encoder.key (B, H, T, D), …
                                                                          |
    decoder_input_ids (B, S), past_key_values.0.encoder.key …  <----------+
    past_key_values.0.decoder.key (B, H, P, D) -> decoder -> logits (B, S, V), present.0.decoder.key (B, H, P + S, D)

The encoder's file computes the keys and values of the cross attentions too, once for all tokens. The decoder's is for
the prompt and for each token.
"""

from __future__ import annotations

from typing import Any

import torch
from onnxport import InputError

from onnxport_transformers import caches, inputs
from onnxport_transformers.decoding import (
    BATCH,
    PAST,
    SEQUENCE,
    SIZES,
    Graph,
    cache_parameter,
    example_states,
    fake_mode_of,
    free_axes,
    parameters_of,
    with_forward,
)

ENCODED = "encoder_sequence_length"


def parts(model: Any) -> dict[str, Graph]:
    """The graphs of an encoder-decoder.

    Raises:
        InputError: its forward doesn't take what the decoder reads, or takes no cache.
    """
    takes = parameters_of(model)
    name = cache_parameter(model)
    missing = {"decoder_input_ids", "encoder_outputs"} - takes
    if missing or name is None:
        raise InputError(
            f"{type(model).__name__}.forward takes no {min(missing, default='cache')}: it can't be cut into encoder "
            "and decoder. Name the task feature-extraction."
        )
    parts = _Parts(model, name)
    return {"encoder": parts.encoder(), "decoder": parts.decoder()}


class _Parts:
    """The two graphs of a model, and the cache that goes between them.

    Args:
        model: of transformers.
        name: what its forward calls the cache.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.kwargs, self.shapes = inputs.example(model, decodes=False)
        self.is_masked = "attention_mask" in self.kwargs
        self.template, self.width = self._run(SIZES[0], SIZES[1], 0)
        self.halves = caches.halves(self.template)
        self.places = [caches.places(half) for half in self.halves]
        longer, wider = (self._run(b, n, t)[0] for b, n, t in ((2, SIZES[1] + 2, 4), (3, SIZES[1], 0)))
        self.axes = [
            free_axes(
                *(caches.tensors(caches.halves(cache)[i], found) for cache in (self.template, longer, wider)), last
            )
            for i, (found, last) in enumerate(zip(self.places, (PAST, ENCODED), strict=True))
        ]

    def _run(self, batch: int, length: int, longer: int) -> tuple[Any, int]:
        """The cache after a call, and the width of what the encoder gives.

        Args:
            batch: the number of examples.
            length: of the decoder's tokens.
            longer: by how much the encoder's free axis is longer than in the example inputs.
        """
        given = {}
        with torch.no_grad(), fake_mode_of(self.model):
            for name, tensor in self.kwargs.items():
                sizes = [*tensor.shape]
                for axis, label in self.shapes[name].items():
                    sizes[axis] = batch if label == BATCH else sizes[axis] + longer * (1 if sizes[axis] < 64 else 256)
                given[name] = torch.ones(sizes, dtype=tensor.dtype)
            ids = torch.zeros(batch, length, dtype=torch.int64)
            result = self.model(**given, decoder_input_ids=ids, use_cache=True, return_dict=True)
        return result[self.name], result.encoder_last_hidden_state.shape[-1]

    def encoder(self) -> Graph:
        """The file that is run once."""
        found, parameter, is_masked = self.places[1], self.name, self.is_masked

        def forward(self: Any, **given: Any) -> Any:
            from transformers.modeling_outputs import BaseModelOutput

            known = parameters_of(self.get_encoder())
            hidden = self.get_encoder()(**{k: v for k, v in given.items() if k in known}, return_dict=True)[0]
            mask = {"attention_mask": given["attention_mask"]} if is_masked else {}
            result = super(type(self), self).forward(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                decoder_input_ids=torch.zeros(hidden.shape[0], 1, dtype=torch.int64),
                use_cache=True,
                return_dict=True,
                **mask,
            )
            return hidden, *caches.tensors(caches.halves(result[parameter])[1], found)

        names = [f"present.{place.layer}.encoder.{place.name}" for place in found]
        return Graph(
            with_forward(self.model, forward, type(self.model).__name__, self.kwargs),
            self.kwargs,
            self.shapes,
            list(self.kwargs),
            ["last_hidden_state", *names],
        )

    def decoder(self) -> Graph:
        """The file for the prompt and each token."""
        parameter, template, halves, places, width = self.name, self.template, self.halves, self.places, self.width
        count = len(places[0])
        is_masked = self.is_masked

        def forward(self: Any, decoder_input_ids: Any, attention_mask: Any = None, past_key_values: Any = ()) -> Any:
            from transformers.modeling_outputs import BaseModelOutput

            states = past_key_values[:count], past_key_values[count:]
            own, cross = (caches.filled(*each) for each in zip(halves, places, states, strict=True))
            key = states[1][0]
            # Keys and values of the encoder are there: of what it gave, only the size is read.
            hidden = torch.zeros(key.shape[0], key.shape[2], width, dtype=key.dtype)
            result = super(type(self), self).forward(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                decoder_input_ids=decoder_input_ids,
                use_cache=True,
                return_dict=True,
                **{parameter: caches.joined(template, own, cross)},
                **({"attention_mask": attention_mask} if is_masked else {}),
            )
            return result.logits, *caches.tensors(caches.halves(result[parameter])[0], places[0])

        batch, _, new = SIZES
        states = [example_states(half, found) for half, found in zip(self.halves, self.places, strict=True)]
        kwargs: dict[str, Any] = {"decoder_input_ids": torch.zeros(batch, new, dtype=torch.int64)}
        shapes: dict[str, Any] = {"decoder_input_ids": {0: BATCH, 1: SEQUENCE}}
        if is_masked:
            kwargs["attention_mask"] = torch.ones(batch, states[1][0].shape[2], dtype=torch.int64)
            shapes["attention_mask"] = {0: BATCH, 1: ENCODED}
        names = list(kwargs)
        kwargs["past_key_values"], shapes["past_key_values"] = [*states[0], *states[1]], [*self.axes[0], *self.axes[1]]
        labels = [
            f"{place.layer}.{side}.{place.name}"
            for side, found in zip(("decoder", "encoder"), self.places, strict=True)
            for place in found
        ]
        return Graph(
            with_forward(self.model, forward, type(self.model).__name__),
            kwargs,
            shapes,
            [*("encoder_attention_mask" if name == "attention_mask" else name for name in names)]
            + [f"past_key_values.{label}" for label in labels],
            ["logits", *(f"present.{label}" for label in labels[:count])],
        )
