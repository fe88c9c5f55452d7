"""Norms that models write themselves: one kernel in onnxruntime, with the numbers of eager torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import export_and_compare, op_types, optimized_types
from torch import nn
from torch.export import Dim

WIDTH = 16
KERNELS = {"RMSNormalization", "SimplifiedLayerNormalization"}
OTHERS = {"Cast", "Mul", "Add", "Pow", "ReduceMean", "Sqrt", "Div", "Reciprocal", "Sub"}


class Norm(nn.Module):
    """A weight, and a formula that takes it."""

    def __init__(self, formula: Callable[..., torch.Tensor], *shape: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.formula = formula
        self.weight = nn.Parameter(torch.randn(shape or (WIDTH,)).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.formula(x, self.weight)


def llama(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """transformers: Llama, Mistral, Qwen, Phi-3."""
    wide = x.to(torch.float32)
    variance = wide.pow(2).mean(-1, keepdim=True)
    return weight * (wide * torch.rsqrt(variance + 1e-6)).to(x.dtype)


def gemma(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """transformers: Gemma."""
    wide = x.float()
    normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return (normal * (1.0 + weight.float())).type_as(x)


def t5(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """transformers: T5LayerNorm."""
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(variance + 1e-6)).to(weight.dtype)


def divided(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + 1e-5) * weight


def of_power(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """transformers: Gemma 3n."""
    return x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-5, -0.5) * weight


def last_two(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + 1e-5) * weight


def compare(module: nn.Module, opset: int, dtype: torch.dtype = torch.float32) -> list[str]:
    """The operators that onnxruntime runs, after a comparison at two sizes."""
    axes = {0: Dim.AUTO, 1: Dim.AUTO}
    program = export_and_compare(
        module,
        (torch.randn(2, 3, WIDTH).to(dtype),),
        other_args=(torch.randn(3, 5, WIDTH).to(dtype) * 8,),
        dynamic_shapes=(axes,),
        opset_version=opset,
    )
    return optimized_types(program)


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("formula", [llama, gemma, t5, divided, of_power])
def test_one_kernel(formula: Callable[..., torch.Tensor], opset: int) -> None:
    assert [kind for kind in compare(Norm(formula), opset) if kind in KERNELS | OTHERS - {"Add"}] == [
        "RMSNormalization" if opset >= 23 else "SimplifiedLayerNormalization"
    ]


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("formula", [llama, gemma, t5])
def test_halves_are_summed_in_float32(formula: Callable[..., torch.Tensor], opset: int) -> None:
    """Squares above 65504 don't overflow; what the model casts, and when, stays."""
    module = Norm(formula, dtype=torch.float16)
    x = torch.full((1, 1, WIDTH), 3e4, dtype=torch.float16)
    program = export_and_compare(module, (x,), opset_version=opset)
    assert program(x)[0].isfinite().all()
    kinds = compare(module, opset, torch.float16)
    assert KERNELS & set(kinds)
    assert not set(kinds) & (OTHERS - {"Cast", "Add"})


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("weighted", [True, False])
def test_norm_of_torch(weighted: bool, dtype: torch.dtype, opset: int) -> None:
    kinds = compare(nn.RMSNorm(WIDTH, elementwise_affine=weighted).to(dtype), opset, dtype)
    assert KERNELS & set(kinds)
    assert set(kinds) <= KERNELS | {"Cast"}


def test_float64_keeps_its_own_sums() -> None:
    for formula in (divided, of_power):
        assert not KERNELS & set(compare(Norm(formula, dtype=torch.float64), 23, torch.float64))
    assert not KERNELS & set(compare(nn.RMSNorm(WIDTH).double(), 23, torch.float64))


def test_several_axes() -> None:
    module = Norm(last_two, 3, WIDTH)
    for opset in (20, 23):
        program = export_and_compare(module, (torch.randn(4, 3, WIDTH),), opset_version=opset)
    assert op_types(program) == ["RMSNormalization"]


def by_columns(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5) * weight


def of_another(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def cubes(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(3).abs().mean(-1, keepdim=True) + 1e-5) * weight


def with_a_tensor_added(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + weight.abs()) * weight


def of_halves(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.half()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3) * weight.half()


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("formula", [by_columns, of_another, cubes, with_a_tensor_added, of_halves])
def test_what_is_no_such_norm(formula: Callable[..., torch.Tensor], opset: int) -> None:
    assert not KERNELS & set(compare(Norm(formula), opset))


def parts_used(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    return x * inverse * weight, inverse


def weight_of_all(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight[0]


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("formula", [parts_used, weight_of_all])
def test_other_uses_and_weights(formula: Callable[..., torch.Tensor], opset: int) -> None:
    compare(Norm(formula), opset)


def layer_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return weight * (centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)) + weight


def layer_norm_without_bias(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-5) * weight


@pytest.mark.parametrize("formula", [layer_norm, layer_norm_without_bias])
def test_layer_norm(formula: Callable[..., torch.Tensor]) -> None:
    assert compare(Norm(formula), 20) == ["LayerNormalization"]
