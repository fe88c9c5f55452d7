"""bfloat16 under the profile of the CPU: nodes without a kernel compute in float32, and are rounded as in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnxport
import onnxport_onnxruntime
import pytest
import torch
from onnxport_onnxruntime import widening
from support import as_module, optimized_types
from torch import nn
from torch.nn import functional as F

BF16 = torch.bfloat16
OWN: dict[str, Any] = {"runtime": "onnxruntime-cpu", "plugins": [onnxport_onnxruntime], "verbose": False}
DYNAMIC = torch.export.Dim.DYNAMIC


def values(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(shape, generator=generator).to(BF16)


def expect_same(program: onnxport.ONNXProgram, model: nn.Module, args: tuple[Any, ...], steps: float = 2.0) -> None:
    """Types, shapes, and numbers to within some steps of bfloat16 of the largest."""
    onnx.checker.check_model(program.model_proto, full_check=True)
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(model(*args))
    for found, reference in zip(program(*args), expected, strict=True):
        assert found.dtype is reference.dtype and found.shape == reference.shape
        largest = reference.float().abs().max().item() if reference.numel() else 0.0
        tolerance = steps * largest * 2**-8 if reference.is_floating_point() else 0
        torch.testing.assert_close(found.float(), reference.float(), rtol=0.0, atol=tolerance)


class Layer(nn.Module):
    """Norm, heads, mask and feed-forward layer of a decoder."""

    def __init__(self, *, is_grouped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.rms = nn.LayerNorm(32), nn.RMSNorm(32)
        self.q, self.kv = nn.Linear(32, 32), nn.Linear(32, 32 if is_grouped else 64, bias=False)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y = self.norm(x)
        q = self.q(y).unflatten(2, [4, 8]).transpose(1, 2)
        k, v = (part.unflatten(2, [-1, 8]).transpose(1, 2) for part in self.kv(y).chunk(2, 2))
        kept = None if mask is None else mask[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, kept, is_causal=mask is None, enable_gqa=k.shape[1] != 4)
        x = x + y.transpose(1, 2).flatten(2)
        return x + self.down(F.gelu(self.up(self.rms(x)), approximate="tanh"))


CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "product": (lambda a, b: a @ b, (values(3, 5), values(5, 4))),
    "sum and product of an outer size": (lambda a, b: (a + b) * 2 - b / 3, (values(3, 1), values(4))),
    "one number": (lambda a: a.exp() + 1, (values(),)),
    "nothing": (lambda a: F.softmax(a * 2, -1).sum(0), (values(0, 4),)),
    "what has kernels": (lambda a: (a.T.reshape(-1), torch.cat([a, a])[1:]), (values(3, 4),)),
    "an input that is a result": (lambda a: (a, a.abs()), (values(3),)),
    "a result that is used and given": (lambda a: (lambda b: (b, b.relu(), b.float()))(a + 1), (values(3),)),
    "rounded on purpose": (lambda a: (a.float() * 1.001).to(BF16).float() * 3, (values(9),)),
    "comparisons": (lambda a, b: (a > b, torch.where(a > b, a, b), a.argmax(-1)), (values(3, 4), values(3, 4))),
    "made in the type": (
        lambda a: (torch.arange(5, dtype=BF16) + a, torch.full([2], 0.3, dtype=BF16), torch.eye(3, dtype=BF16)),
        (values(5),),
    ),
    "convolution": (lambda a, w: F.conv2d(a, w, padding=1).relu(), (values(1, 3, 6, 6), values(4, 3, 3, 3))),
    "pooling": (lambda a: F.max_pool2d(a, 2) + F.avg_pool2d(a, 2), (values(1, 2, 6, 6),)),
    "resize": (lambda a: F.interpolate(a, scale_factor=2, mode="nearest"), (values(1, 2, 3, 3),)),
    "sorting": (lambda a: (a.sort(-1), a.topk(2)), (values(3, 8),)),
    "sums": (lambda a: (a.sum(-1), a.mean(0), a.var(-1), a.cumsum(1)), (values(3, 8),)),
    "norms": (
        lambda a, w: (F.layer_norm(a, [8], w), F.rms_norm(a, [8], w), F.group_norm(a, 2)),
        (values(3, 8), values(8)),
    ),
    "a list of parts": (lambda a: [part * 2 for part in a.split([1, 2, 3])], (values(6, 2),)),
    "windows": (lambda a: a.unfold(1, 3, 2) * 2, (values(2, 9),)),
    "written": (lambda a, b: a.clone().index_put_([torch.tensor([0, 2])], b), (values(3, 4), values(2, 4))),
    "a mask of floats": (
        lambda q, m: F.scaled_dot_product_attention(q, q, q, m),
        (values(1, 2, 5, 8), values(5, 5)),
    ),
}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_operators(name: str, optimize: bool) -> None:
    function, args = CASES[name]
    model = as_module(function)
    expect_same(onnxport.export(model, args, optimize=optimize, **OWN), model, args)


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("opset", [20, 23])
def test_layer_at_two_sizes(is_grouped: bool, is_masked: bool, opset: int) -> None:
    model = Layer(is_grouped=is_grouped).eval().to(BF16)
    axes = {0: DYNAMIC, 1: DYNAMIC}

    def call(batch: int, length: int) -> tuple[torch.Tensor, ...]:
        mask = torch.ones(batch, length, dtype=torch.bool)
        mask[0, -1] = False
        return (values(batch, length, 32), mask) if is_masked else (values(batch, length, 32),)

    shapes = (axes, axes) if is_masked else (axes,)
    program = onnxport.export(model, call(2, 6), dynamic_shapes=shapes, opset_version=opset, **OWN)
    for size in ((2, 6), (3, 9), (1, 1)):
        expect_same(program, model, call(*size), steps=4.0)


def test_branches_and_loops() -> None:
    class Chosen(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            outer = x * 3

            def step(i: torch.Tensor, z: torch.Tensor) -> Any:
                return i + 1, z * 0.5 + y

            chosen = torch.cond(x.sum() > 0, lambda a: (a + y, outer), lambda a: (a * y, -outer), (x,))
            return chosen, torch.while_loop(lambda i, z: i < 3, step, (torch.tensor(0), x))

    model = Chosen()
    program = onnxport.export(model, (values(4), values(4)), **OWN)
    for x in (values(4).abs(), -values(4).abs()):
        expect_same(program, model, (x, values(4)))


def test_functions() -> None:
    model = nn.Sequential(*(Layer() for _ in range(2))).eval().to(BF16)
    program = onnxport.export(model, (values(2, 5, 32),), functions=[Layer], **OWN)
    assert program.model.functions
    expect_same(program, model, (values(2, 5, 32),), steps=4.0)


def test_values_inside_of_an_operator_are_not_rounded() -> None:
    """A linear layer rounds once, as torch's does: its product isn't rounded before the bias is added."""
    model = nn.Linear(64, 8).to(BF16)
    program = onnxport.export(model, (values(3, 2, 64),), **OWN)
    casts = [node for node in program.model.graph if node.op_type == "Cast" and node.attributes["to"].value == 16]
    assert len(casts) == 1
    expect_same(program, model, (values(3, 2, 64),), steps=1.0)


def test_only_under_the_profile() -> None:
    program = onnxport.export(as_module(lambda a: a + a), (values(3),), plugins=[onnxport_onnxruntime], verbose=False)
    assert [node.op_type for node in program.model.graph] == ["Add"]


def test_float32_stays_as_it_is() -> None:
    program = onnxport.export(as_module(lambda a: a + a), (torch.randn(3),), **OWN)
    assert [node.op_type for node in program.model.graph] == ["Add"]


def test_check_counts_the_casts_as_kernels() -> None:
    model, args = Layer().to(BF16), (values(1, 4, 32),)
    assert onnxport.check(model, args, plugins=OWN["plugins"]).missing_kernels
    assert not onnxport.check(model, args, runtime="onnxruntime-cpu", plugins=OWN["plugins"]).missing_kernels


@pytest.mark.parametrize("name", ["x_as_float", "tanh_float", "mul_as_bfloat16", "tanh_as_bfloat16"])
def test_casts_have_names_that_nothing_else_has(name: str) -> None:
    model = as_module(lambda x, y: torch.tanh(x) * 2 + y)
    args = (values(3, 4), values(3, 4))
    expect_same(onnxport.export(model, args, input_names=["x", name], **OWN), model, args)


def test_weights_in_4_bits_are_those_of_the_kernel() -> None:
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32, bias=False)).to(BF16)
    program = onnxport.export(model, (values(3, 64),), quantize="int4", **OWN)
    assert "MatMulNBits" in optimized_types(program)
    (found,) = program(values(3, 64))
    torch.testing.assert_close(found.float(), model(values(3, 64)).float(), rtol=0.0, atol=0.15)


def test_without_a_table_of_kernels_every_node_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widening, "installed_kernels", dict)
    model = as_module(lambda a: (a.T * 2).reshape(-1))
    expect_same(onnxport.export(model, (values(3, 4),), **OWN), model, (values(3, 4),))


def test_experts_in_4_bits() -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.experts = nn.Parameter(torch.randn(3, 96, 64))

        def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
            return torch._grouped_mm(x, self.experts.transpose(1, 2), offs=ends)

    model = Mixture().to(BF16)
    program = onnxport.export(
        model, (values(6, 64), torch.tensor([2, 2, 6], dtype=torch.int32)), quantize="int4", **OWN
    )
    assert optimized_types(program).count("MatMulNBits") == 3
    for ends in ([2, 2, 6], [0, 5, 6]):
        places = torch.tensor(ends, dtype=torch.int32)
        found, expected = program(values(6, 64), places)[0].float(), model(values(6, 64), places).float()
        assert (found - expected).norm() / expected.norm() < 0.15
