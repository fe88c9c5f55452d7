"""Mixtures of experts as one node: which graphs are found, that results stay, and files in 4 bits and for elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxport_onnxruntime import fusion, measure
from support import optimized_types
from torch import nn

transformers = pytest.importorskip("transformers")

WIDTH, INNER, EXPERTS = 16, 24, 4
EVERY: dict[str, Any] = {
    "runtime": "onnxruntime-cpu",
    "plugins": [measure.Chosen("onnxruntime-cpu", *fusion.FORMS)],
    "verbose": False,
}
AXES = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}


def block(kind: str, **options: Any) -> nn.Module:
    """A layer's mixture as a library writes it, with random weights."""
    from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
    from transformers.models.mixtral import modeling_mixtral as mixtral
    from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen

    own: dict[str, Any] = {"hidden_size": WIDTH, "num_experts_per_tok": 2, **options}
    config: Any
    if kind == "mixtral":
        config = transformers.MixtralConfig(intermediate_size=INNER, num_local_experts=EXPERTS, **own)
        made = mixtral.MixtralSparseMoeBlock
    elif kind == "gpt_oss":
        config = transformers.GptOssConfig(intermediate_size=INNER, num_local_experts=EXPERTS, **own)
        made = gpt_oss.GptOssMLP
    else:
        config = transformers.Qwen3MoeConfig(moe_intermediate_size=INNER, num_experts=EXPERTS, **own)
        made = qwen.Qwen3MoeSparseMoeBlock
    config._experts_implementation = "grouped_mm"
    torch.manual_seed(0)
    model = made(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model


BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {}),
    "mixtral, one expert a token": ("mixtral", {"num_experts_per_tok": 1}),
    "mixtral, every expert": ("mixtral", {"num_experts_per_tok": EXPERTS}),
    "qwen, weights of all experts": ("qwen", {"norm_topk_prob": False}),
    "qwen, normalized": ("qwen", {"norm_topk_prob": True}),
    "gpt_oss": ("gpt_oss", {"swiglu_limit": 0.5}),
}


def types(program: onnxport.ONNXProgram) -> Counter[str]:
    return Counter(node.op_type for node in program.model.graph)


def tokens(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, WIDTH, generator=torch.Generator().manual_seed(sum(sizes)))


def first(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def compare(program: onnxport.ONNXProgram, model: nn.Module, x: torch.Tensor) -> None:
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, first(model(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_mixture_is_one_node(name: str) -> None:
    kind, options = BLOCKS[name]
    model = block(kind, **options)
    program = onnxport.export(model, (tokens(2, 3),), dynamic_shapes=(AXES,), **EVERY)
    assert types(program)["MoE"] == 1 and len(program.model.graph) < 12, types(program)
    for sizes in ((2, 3), (1, 1), (5, 4)):
        compare(program, model, tokens(*sizes))
    assert onnxport.find_mismatch(program, (tokens(2, 3),)).passed


class Changed(nn.Module):
    """The experts of Mixtral with a router that no kernel has."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.experts = block("mixtral").experts
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.change = change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.router(x)
        if self.change == "sigmoid":
            weights, places = logits.sigmoid().topk(2)
        elif self.change == "smallest":
            weights, places = logits.softmax(-1).topk(2, largest=False)
        else:
            weights, places = logits.softmax(-1).topk(2)
        if self.change == "scaled":
            weights = weights * 2.5
        if self.change == "nearly normalized":
            weights = weights / (weights.sum(-1, keepdim=True) + 0.1)
        if self.change == "softmax twice":
            weights = weights.softmax(-1)
        if self.change == "other experts":
            places = (places + 1) % EXPERTS
        return self.experts(x, places, weights)


@pytest.mark.parametrize(
    "change", ["sigmoid", "smallest", "scaled", "nearly normalized", "softmax twice", "other experts"]
)
def test_what_only_looks_like_it(change: str) -> None:
    model = Changed(change).eval()
    program = onnxport.export(model, (tokens(5),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), **EVERY)
    assert not types(program)["MoE"]
    compare(program, model, tokens(7))


def test_a_router_without_anything_else() -> None:
    model = Changed("").eval()
    program = onnxport.export(model, (tokens(5),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), **EVERY)
    assert types(program)["MoE"] == 1
    for count in (7, 1, 0):
        compare(program, model, tokens(count))


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_a_portable_file_runs_elsewhere(kind: str) -> None:
    model = block(kind)
    program = onnxport.export(model, (tokens(2, 3),), dynamic_shapes=(AXES,), portable=True, **EVERY)
    proto = program.model_proto
    assert not any(node.domain for node in program.model.graph) and not types(program)["Loop"]
    assert types(program)["MatMul"] >= 2 * EXPERTS  # a product for each expert's own tokens
    onnx.checker.check_model(proto, full_check=True)
    for sizes in ((2, 3), (1, 1)):
        x = tokens(*sizes)
        compare(program, model, x)
        found = ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x.numpy()})[0]
        np.testing.assert_allclose(found, first(model(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_experts_are_rounded_one_by_one(kind: str) -> None:
    model = block(kind)
    router = "gate" if kind == "mixtral" else "router"
    asked: Any = {router: None, "*": {"bits": 8, "block_size": 16}}
    program = onnxport.export(model, (tokens(2, 3),), dynamic_shapes=(AXES,), quantize=asked, **EVERY)
    plain = onnxport.export(model, (tokens(2, 3),), dynamic_shapes=(AXES,), quantize=asked, verbose=False)
    assert not types(program)["MoE"]
    assert optimized_types(program).count("MatMulNBits") == optimized_types(plain).count("MatMulNBits") == 2 * EXPERTS
    for sizes in ((2, 3), (1, 1)):
        torch.testing.assert_close(program(tokens(*sizes))[0], plain(tokens(*sizes))[0], rtol=1e-4, atol=1e-4)
