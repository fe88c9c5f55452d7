"""A kind of verification: the greedy tokens of a decoder's file are those of eager torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnxport
import torch
from onnxport import InputError
from onnxport.kit import runtime

from onnxport_transformers import decoding

Case = tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]
_FIRST = 5
"""The lowest token of prompts; below are the special ones."""


@dataclass(frozen=True)
class Generation:
    """Compares the greedy tokens of a decoder: ``onnxport.verify("model.onnx", model, kind=Generation())``.

    There is a case for each prompt, and one for all of them as a batch with padding on the left. Tokens that eager
    torch finds equally likely, within the tolerance, are equal; both go on with eager torch's.

    Attributes:
        steps: how many tokens follow a prompt; fewer where the model has no more positions.
        prompts: lengths of the prompts.
        tolerance: of logits, relative to the largest.
        seed: of the prompts' tokens.
    """

    steps: int = 64
    prompts: Sequence[int] = (1, 7, 20)
    tolerance: float = 1e-3
    seed: int = 0

    def __call__(self, program: onnxport.ONNXProgram, model: Any) -> Iterator[Case]:
        """The cases: labels, eager torch's tokens and the file's.

        Raises:
            InputError: the file is no decoder's, or the numbers can't be used.
        """
        inputs = {str(value.name): value for value in program.model.graph.inputs}
        if not {"input_ids", "attention_mask"} <= inputs.keys():
            raise InputError(
                f"The file takes {', '.join(inputs)}: it is no decoder's. Verify it without kind.", parameter="kind"
            )
        if not self.prompts or min(self.prompts) < 1 or self.steps < 1:
            raise InputError("Generation needs prompts of a token at least, and a step at least.", parameter="kind")
        config = decoding.text_config(model)
        limit = getattr(config, "max_position_embeddings", None) or 2**31
        steps = min(self.steps, limit - max(self.prompts))
        if steps < 1:
            raise InputError(
                f"The model has {limit} positions, and a prompt of {max(self.prompts)} tokens leaves no step: give "
                "shorter prompts.",
                parameter="kind",
            )
        generator = torch.Generator().manual_seed(self.seed)
        low = min(_FIRST, config.vocab_size - 1)
        prompts = [torch.randint(low, config.vocab_size, (n,), generator=generator) for n in self.prompts]
        for prompt in prompts:
            yield self._case(f"prompt of {len(prompt)}, {steps} steps", program, model, [prompt], steps)
        if len(prompts) > 1:
            yield self._case(f"{len(prompts)} prompts, padded, {steps} steps", program, model, prompts, steps)

    def _case(
        self, label: str, program: onnxport.ONNXProgram, model: Any, prompts: Sequence[torch.Tensor], steps: int
    ) -> Case:
        longest = max(map(len, prompts))
        ids = torch.stack([torch.nn.functional.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
        mask = torch.stack([(torch.arange(longest) >= longest - len(prompt)).long() for prompt in prompts])
        file = _File(program)
        eager = _Eager(model, file.has_keys)
        expected, found = [], []
        for _ in range(steps):
            positions = (mask.cumsum(-1) - 1).clip(0)[:, -ids.shape[1] :]
            scores = eager.scores(ids, mask, positions)
            token, other = scores.argmax(-1), file.scores(ids, mask, positions).argmax(-1)
            best = scores.gather(-1, token[:, None])[:, 0]
            margin = best - scores.gather(-1, other[:, None])[:, 0]
            is_tie = margin <= self.tolerance * scores.abs().amax(-1)
            expected.append(token)
            found.append(torch.where(is_tie, token, other))
            ids, mask = token[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        return label, {"tokens": torch.stack(expected, 1)}, {"tokens": torch.stack(found, 1)}


class _Eager:
    """The torch model with a cache of its own, whose sliding layers forget.

    Args:
        model: the model.
        has_keys: whether the cache has keys, for which the mask tells which count; else it is for new tokens alone.
    """

    def __init__(self, model: Any, has_keys: bool) -> None:
        from transformers import DynamicCache

        name = decoding.cache_parameter(model)
        if name is None:
            raise InputError(f"{type(model).__name__}.forward takes no cache: it is no decoder.", parameter="model")
        self._model, self._name, self._has_keys = model, name, has_keys
        self._cache = DynamicCache(config=decoding.text_config(model))
        self._has_positions = "position_ids" in decoding.parameters_of(model)

    def scores(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The logits (B, V) of the next token."""
        given: dict[str, Any] = {"position_ids": positions} if self._has_positions else {}
        given[self._name] = self._cache
        if not self._has_keys:
            mask = mask[:, -ids.shape[1] :]
        result = self._model(input_ids=ids, attention_mask=mask, use_cache=True, return_dict=True, **given)
        self._cache = result[self._name]
        return result.logits[:, -1].float()  # type: ignore[no-any-return]


class _File:
    """The file in its session: what is present after a call is the past of the next."""

    def __init__(self, program: onnxport.ONNXProgram) -> None:
        from onnxport.kit import ONNX_TO_TORCH

        self._program = program
        if program.inference_session is None:
            program.initialize_inference_session()
        self._names = [str(value.name) for value in program.model.graph.outputs]
        graph = program.model.graph
        self._inputs = {
            str(v.name): v for v in graph.inputs if v.name not in graph.initializers
        }  # adapters have defaults
        self._dtypes = {name: ONNX_TO_TORCH[value.dtype] for name, value in self._inputs.items()}  # type: ignore[index]
        self._states: Mapping[str, torch.Tensor] = {}
        self.has_keys = any(name.endswith(".key") for name in self._inputs)

    def scores(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The logits (B, V) of the next token."""
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **self._states}
        for name, value in self._inputs.items():
            if name not in feeds and value.shape is not None:
                dims = [dim if isinstance(dim, int) else 0 for dim in value.shape]
                feeds[name] = torch.zeros([len(ids), *dims[1:]], dtype=self._dtypes[name])
        session: Any = self._program.inference_session
        results = runtime.run(session, {name: feeds[name] for name in self._inputs}, self._names)
        given = dict(zip(self._names, results, strict=True))
        self._states = {
            name.replace("present", "past_key_values", 1): tensor
            for name, tensor in given.items()
            if name.startswith("present.")
        }
        return given[self._names[0]][:, -1].float()
