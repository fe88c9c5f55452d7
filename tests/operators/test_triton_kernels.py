"""Triton kernels: an operator made of one is exported by its translation; a launch in forward is refused."""

from __future__ import annotations

import onnxport
import pytest
import torch
from support import expect_equal, op_types

# torch has no requirement of it but for GPUs, and the kernels aren't run here
triton = pytest.importorskip("triton")
language = pytest.importorskip("triton.language")


@triton.jit
def sum_kernel(x, y, out, count, block: language.constexpr):
    places = language.program_id(0) * block + language.arange(0, block)
    inside = places < count
    total = language.load(x + places, mask=inside) + language.load(y + places, mask=inside)
    language.store(out + places, total, mask=inside)


def launch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    torch.library.wrap_triton(sum_kernel)[(triton.cdiv(out.numel(), 128),)](x, y, out, out.numel(), block=128)
    return out


@torch.library.triton_op("onnxport_test::sum", mutates_args=())
def sum_operator(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return launch(x, y)


class Calls(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return sum_operator(x, y) * 2


class Launches(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return launch(x, y) * 2


def test_an_operator_by_its_translation() -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    table = {torch.ops.onnxport_test.sum.default: lambda op, x, y: op.Add(x, y)}
    program = onnxport.export(Calls(), (x, y), custom_translation_table=table)
    assert op_types(program) == ["Add", "Mul"]
    expect_equal(program(x, y)[0], (x + y) * 2)
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="onnxport_test::sum"):
        onnxport.export(Calls(), (x, y))


def test_a_launch_is_never_dropped() -> None:
    """Its node has no results: what it writes would be the memory as it was allocated."""
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    with pytest.raises(onnxport.CaptureError, match=r"a Triton kernel is launched: .*triton_op"):
        onnxport.export(Launches(), (x, y))
