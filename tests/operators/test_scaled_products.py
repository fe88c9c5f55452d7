"""Products of float8 matrices with scales in blocks. torch has no CPU kernels of them: the formula is compared."""

from __future__ import annotations

from collections.abc import Callable

import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal, op_types
from torch.nn.functional import ScalingType, SwizzleType

F8, POWERS = torch.float8_e4m3fn, torch.float8_e8m0fnu
Dim = torch.export.Dim
N, K = 128, 256


def spread(scale: torch.Tensor, shape: tuple[int, ...], block: int = 128) -> torch.Tensor:
    """Each number of a scale repeated over its block."""
    for axis, size in enumerate(shape):
        if scale.shape[axis] not in (1, size):
            scale = scale.repeat_interleave(block, axis).narrow(axis, 0, size)
    return scale


def swizzled(scale: torch.Tensor) -> torch.Tensor:
    """A scale (rows, blocks) in the order of the GPU's kernel: tiles of 128 rows and 4 blocks."""
    rows, blocks = (-(-size // tile) for size, tile in zip(scale.shape, (128, 4)))
    padded = scale.new_zeros(rows * 128, blocks * 4)
    padded[: scale.shape[0], : scale.shape[1]] = scale
    tiles = padded.view(rows, 4, 32, blocks, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(-1)


def matrices(rows: int, width: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, width).to(F8), torch.randn(N, width).to(F8)


def compare(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scales: tuple[torch.Tensor, torch.Tensor],
    rows: int = 32,
    width: int = K,
    opset: int = 21,
    block: int = 128,
) -> list[str]:
    """The graph's operators; ``scales`` are (rows, blocks) and (blocks, N)."""
    a, b = matrices(rows, width)
    program = onnxport.export(FunctionModule(product), (a, b), opset_version=opset)
    expected = (a.float() * spread(scales[0], (rows, width), block)) @ (
        b.t().float() * spread(scales[1], (width, N), block)
    )
    expect_equal(program(a, b)[0], expected.bfloat16())
    return op_types(program)


@pytest.mark.parametrize(("width", "opset"), [(256, 21), (256, 20), (200, 21)])
def test_neighbours(width: int, opset: int) -> None:
    one, two = torch.rand(32, 2) + 0.5, torch.rand(2, N) + 0.5
    found = compare(
        lambda a, b: torch._scaled_mm(a, b.t(), one, two, out_dtype=torch.bfloat16), (one, two), 32, width, opset
    )
    assert found.count("DequantizeLinear") == (2 if (width, opset) == (256, 21) else 0)


def test_squares() -> None:
    one, two, squares = torch.rand(256, 2) + 0.5, torch.rand(2, N) + 0.5, torch.rand(2, 1) + 0.5
    options = {"out_dtype": torch.bfloat16}
    compare(lambda a, b: torch._scaled_mm(a, b.t(), one, squares, **options), (one, squares), 256)
    wide = torch.rand(2, 2) + 0.5
    compare(lambda a, b: torch._scaled_mm(a, b.t(), wide, two, **options), (wide, two), 256)


@pytest.mark.parametrize("rows", [32, 200])
def test_powers_of_two(rows: int) -> None:
    one, two = (torch.randint(-3, 4, (size, K // 32)).float().exp2() for size in (rows, N))

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        scales = swizzled(one).to(POWERS), swizzled(two).to(POWERS)
        return torch._scaled_mm(a, b.t(), *scales, out_dtype=torch.bfloat16)

    compare(product, (one, two.t()), rows, opset=24, block=32)


def functional(scale_a: torch.Tensor, kind_a: int, scale_b: torch.Tensor, kind_b: int, **options: object):
    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_mm(a, b.t(), scale_a, kind_a, scale_b, kind_b, **options)

    return product


def test_recipes() -> None:
    one, two = torch.rand(32, 2) + 0.5, torch.rand(2, N) + 0.5
    tensor, row = torch.tensor([[0.5]]), (torch.rand(32, 1), torch.rand(1, N))
    compare(functional(tensor, ScalingType.TensorWise, tensor, ScalingType.TensorWise), (tensor, tensor))
    compare(functional(row[0], ScalingType.RowWise, row[1], ScalingType.RowWise), row)
    compare(functional(one, ScalingType.BlockWise1x128, two.t(), ScalingType.BlockWise1x128), (one, two))
    padded = torch.nn.functional.pad(two[:, :1], (0, 0, 0, 2))  # K's blocks to a multiple of 4
    compare(functional(one, ScalingType.BlockWise1x128, padded, ScalingType.BlockWise128x128), (one, two[:, :1]))
    powers = torch.randint(-3, 4, (32, 8)).float().exp2(), torch.randint(-3, 4, (N, 8)).float().exp2()
    blocks = [swizzled(each).to(POWERS) for each in powers]
    order = {"swizzle_a": SwizzleType.SWIZZLE_32_4_4, "swizzle_b": SwizzleType.SWIZZLE_32_4_4}
    scaled = functional(blocks[0], ScalingType.BlockWise1x32, blocks[1], ScalingType.BlockWise1x32, **order)
    compare(scaled, (powers[0], powers[1].t()), opset=24, block=32)


def test_a_dynamic_number_of_rows() -> None:
    class Scaled(torch.nn.Module):
        def forward(self, a: torch.Tensor, one: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch._scaled_mm(a, b.t(), one, two, out_dtype=torch.float32)

    two = torch.rand(2, N) + 0.5
    shapes = ({0: Dim("m", min=17)}, {0: Dim("m", min=17)}, None)
    a, b = matrices(32)
    program = onnxport.export(Scaled(), (a, torch.rand(32, 2), b), dynamic_shapes=shapes, opset_version=21)
    assert op_types(program).count("DequantizeLinear") == 2
    a, one = matrices(48)[0], torch.rand(48, 2)
    expected = (a.float() * spread(one, (48, K))) @ (b.t().float() * spread(two, (K, N)))
    expect_equal(program(a, one, b)[0], expected, 1e-3, 1e-3)


def test_what_is_refused() -> None:
    a, b = matrices(32)
    ones = torch.ones(32, 2), torch.ones(N, 2)
    for recipe, swizzle in (
        (ScalingType.BlockWise1x16, None),
        (ScalingType.BlockWise1x128, SwizzleType.SWIZZLE_32_4_4),
    ):
        product = functional(ones[0], recipe, ones[1], recipe, swizzle_a=swizzle, swizzle_b=swizzle)
        with pytest.raises(onnxport.UnsupportedOperatorsError, match="scaling recipe"):
            onnxport.export(FunctionModule(product), (a, b))
    product = functional(torch.ones(31, 2), ScalingType.BlockWise1x128, ones[1], ScalingType.BlockWise1x128)
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="a scale of shape"):
        onnxport.export(FunctionModule(product), (a, b))
