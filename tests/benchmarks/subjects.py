"""The models that benchmarks measure, of default size with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram

Subject = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any], Any]
_DYNAMIC = torch.export.Dim.DYNAMIC


def _image(name: str) -> Callable[[], Subject]:
    def build() -> Subject:
        import torchvision

        return getattr(torchvision.models, name)().eval(), (torch.randn(2, 3, 224, 224),), {}, ({0: _DYNAMIC},)

    return build


def _tokens() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    ids = torch.randint(0, 1000, (2, 16))
    axes = {0: _DYNAMIC, 1: _DYNAMIC}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, {"input_ids": axes, "attention_mask": axes}


def _bert() -> Subject:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()).eval(), (), *_tokens()


def _gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(use_cache=False)).eval(), (), *_tokens()


def llama(layers: int) -> Subject:
    """A Llama of hidden size 64 with so many layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), (), *_tokens_below(256)


def _tokens_below(vocabulary: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    inputs, axes = _tokens()
    return {**inputs, "input_ids": inputs["input_ids"] % vocabulary}, axes


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "resnet50": _image("resnet50"),
    "vit_b_16": _image("vit_b_16"),
    "swin_v2_t": _image("swin_v2_t"),
    "bert": _bert,
    "gpt2": _gpt2,
}


def captured(subject: Subject) -> ExportedProgram:
    """The exported program of a subject."""
    model, args, kwargs, shapes = subject
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
