"""Normalizations against eager, in training and evaluation, at the opsets that differ."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

DYNAMIC = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
FLOATS = [torch.float32, torch.float64]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.BatchNorm2d(4),
        lambda: nn.BatchNorm2d(4, affine=False),
        lambda: nn.InstanceNorm2d(4, affine=True),
        lambda: nn.InstanceNorm2d(4, track_running_stats=True),
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.GroupNorm(2, 4, affine=False),
        lambda: nn.LocalResponseNorm(3),
    ],
)
def test_layers_of_images(layer: object, dtype: torch.dtype) -> None:
    module = layer().to(dtype)  # type: ignore[operator]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    export_and_compare(
        module,
        (values(2, 4, 5, 6, dtype=dtype),),
        other_args=(values(3, 4, 7, 8, dtype=dtype),),
        dynamic_shapes=(DYNAMIC,),
    )


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.float16])
def test_last_axes(dtype: torch.dtype, opset: int) -> None:
    x, other = values(2, 4, 5, 6, dtype=dtype), values(3, 4, 5, 6, dtype=dtype)
    for module in (nn.LayerNorm((5, 6)), nn.LayerNorm(6, bias=False), nn.LayerNorm(6, elementwise_affine=False)):
        export_and_compare(
            module.to(dtype), (x,), other_args=(other,), dynamic_shapes=({0: Dim.AUTO},), opset_version=opset
        )
    for rms in (nn.RMSNorm((5, 6)), nn.RMSNorm(6, eps=0.1), nn.RMSNorm(6, elementwise_affine=False)):
        export_and_compare(
            rms.to(dtype), (x,), other_args=(other,), dynamic_shapes=({0: Dim.AUTO},), opset_version=opset
        )


def test_one_node() -> None:
    assert op_types(export_and_compare(nn.BatchNorm2d(4), (values(2, 4, 5, 6),))) == ["BatchNormalization"]
    assert op_types(export_and_compare(nn.LayerNorm(6), (values(2, 4, 6),))) == ["LayerNormalization"]
    assert op_types(export_and_compare(nn.RMSNorm(6), (values(2, 4, 6),), opset_version=23)) == ["RMSNormalization"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_statistics_of_the_batch(dtype: torch.dtype) -> None:
    x, weight, bias = values(3, 4, 5, dtype=dtype), values(4, dtype=dtype), values(4, dtype=dtype)
    mean, var = values(4, dtype=dtype), values(4, dtype=dtype).abs()
    aten = torch.ops.aten
    export_and_compare(
        lambda x, w, b, m, v: aten._native_batch_norm_legit_functional(x, w, b, m, v, True, 0.3, 1e-5),
        (x, weight, bias, mean, var),
        other_args=(values(5, 4, 6, dtype=dtype), weight, bias, mean, var),
        dynamic_shapes=(({0: Dim.AUTO, 2: Dim.AUTO}, None, None, None, None),),
    )
    export_and_compare(lambda x, w: aten._native_batch_norm_legit.no_stats(x, w, None, True, 0.1, 1e-5), (x, weight))
    export_and_compare(
        lambda x, w, b, m, v: aten._native_batch_norm_legit_no_training(x, w, b, m, v, 0.1, 1e-5)[0],
        (x, weight, bias, mean, var),
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_native_forms(dtype: torch.dtype) -> None:
    x, weight = values(3, 4, 6, dtype=dtype), values(6, dtype=dtype)
    aten = torch.ops.aten
    export_and_compare(lambda x, w: aten.native_layer_norm(x, [6], w, None, 1e-5), (x, weight))
    export_and_compare(lambda x: aten.native_group_norm(x, None, None, 3, 4, 6, 2, 1e-5), (x,))
    export_and_compare(lambda x, w: aten._fused_rms_norm(x, [6], w, 1e-5), (x, weight))


def test_normalize() -> None:
    for p in (1.0, 2.0, 3.0, float("inf")):
        export_and_compare(lambda x, p=p: F.normalize(x, p, 1), (values(3, 4, 5),))


@pytest.mark.parametrize("opset", [20, 23])
def test_epsilon_of_doubles(opset: int) -> None:
    """Where the variance is smaller than epsilon, its rounding to float32, as attributes are, costs half the digits."""
    x = values(2, 4, 6, dtype=torch.float64) * 1e-3
    mean, var, weight = values(3, 4, dtype=torch.float64).abs() * 1e-6
    export_and_compare(
        lambda x: (
            F.layer_norm(x, (4, 6)),
            F.layer_norm(x, (6,), weight.repeat(2)[:6], weight.repeat(2)[:6]),
            F.batch_norm(x, mean, var, weight, weight),
            F.rms_norm(x, (6,), eps=1e-5),
        ),
        (x,),
        opset_version=opset,
        rtol=1e-12,
        atol=0,
    )
