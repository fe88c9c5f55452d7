"""Activation functions with all their parameters, in every float type, at the opsets that differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare

FLOATS = [torch.float32, torch.float64, torch.float16]


def values(dtype: torch.dtype) -> torch.Tensor:
    special = torch.tensor([0.0, 1e-3, -1e-3, 30.0, -30.0, 3.0, -3.0, 6.0, math.nan])
    return torch.cat([special, torch.linspace(-8, 8, 31)]).to(dtype).reshape(2, 4, 5)


SIMPLE: list[tuple[Callable[..., torch.Tensor], dict[str, Any]]] = [
    (F.relu, {}),
    (F.relu6, {}),
    (F.gelu, {}),
    (F.gelu, {"approximate": "tanh"}),
    (F.silu, {}),
    (F.mish, {}),
    (F.hardswish, {}),
    (F.hardsigmoid, {}),
    (F.hardtanh, {}),
    (F.hardtanh, {"min_val": -0.5, "max_val": 2.0}),
    (F.leaky_relu, {}),
    (F.leaky_relu, {"negative_slope": 0.3}),
    (F.elu, {}),
    (F.elu, {"alpha": 2.0}),
    (F.selu, {}),
    (F.celu, {}),
    (F.celu, {"alpha": 0.5}),
    (F.softplus, {}),
    (F.softplus, {"beta": 2.0, "threshold": 3.0}),
    (F.softsign, {}),
    (F.logsigmoid, {}),
    (F.tanhshrink, {}),
    (F.threshold, {"threshold": 0.1, "value": 20.0}),
    (F.softshrink, {"lambd": 0.7}),
    (F.hardshrink, {"lambd": 0.7}),
    (F.rrelu, {"lower": 0.1, "upper": 0.3}),
    (F.softmin, {"dim": 1}),
]


def name_of(value: Any) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("function", "arguments"), SIMPLE, ids=name_of)
def test_activation(function: Any, arguments: dict[str, Any], dtype: torch.dtype) -> None:
    export_and_compare(lambda a: function(a, **arguments), (values(dtype),))


@pytest.mark.parametrize("opset", [18, 24])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", [F.gelu, F.silu, F.elu, F.mish, F.leaky_relu], ids=name_of)
def test_other_opsets(function: Any, dtype: torch.dtype, opset: int) -> None:
    export_and_compare(function, (values(dtype),), opset_version=opset)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_general_elu(dtype: torch.dtype) -> None:
    export_and_compare(lambda a: torch.ops.aten.elu(a, 1.5, 2.0, 0.7), (values(dtype),))
    export_and_compare(lambda a: torch.ops.aten.elu(a, 1.5, 2.0), (values(dtype),))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5), ()], ids=str)
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_prelu(shape: tuple[int, ...], single: bool, dtype: torch.dtype) -> None:
    channels = 1 if single or len(shape) < 2 else shape[1]
    export_and_compare(F.prelu, (torch.randn(shape, dtype=dtype), torch.rand(channels, dtype=dtype)))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_glu(dim: int, dtype: torch.dtype) -> None:
    export_and_compare(lambda a: F.glu(a, dim), (torch.randn(2, 4, 6, dtype=dtype),))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_softmax(dim: int, dtype: torch.dtype) -> None:
    a = torch.randn(2, 3, 4, dtype=dtype) * 20
    export_and_compare(lambda a: (F.softmax(a, dim), F.log_softmax(a, dim)), (a,))


def test_softmax_of_other_types_and_shapes() -> None:
    export_and_compare(lambda a: F.softmax(a, 0, dtype=torch.float32), (torch.arange(4),))
    export_and_compare(lambda a: F.log_softmax(a, 0, dtype=torch.float64), (torch.randn(4),))
    export_and_compare(lambda a: (F.softmax(a, 0), F.log_softmax(a, -1)), (torch.tensor(2.0),))
    export_and_compare(lambda a: F.softmax(a, 1), (torch.zeros(2, 0, 3),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_softmax_of_rows_with_nan_and_infinity(dtype: torch.dtype) -> None:
    rows = [[1.0, math.nan, 2.0], [math.inf, 1.0, 2.0], [1.0, -math.inf, 0.0], [-math.inf] * 3, [1e30, 1e30, -1e30]]
    export_and_compare(lambda a: (F.softmax(a, 1), F.log_softmax(a, 1)), (torch.tensor(rows, dtype=dtype),))


def test_safe_softmax() -> None:
    a = torch.tensor([[1.0, 2.0, -math.inf], [-math.inf, -math.inf, -math.inf]])
    export_and_compare(lambda a: torch.ops.aten._safe_softmax(a, -1), (a,))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int8], ids=str)
def test_integers(dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, -1, 100]).to(dtype)
    export_and_compare(lambda a: (F.relu(a), F.relu6(a), F.threshold(a, 1, 5)), (a,))


def test_node_counts() -> None:
    def ops(function: Callable[[torch.Tensor], torch.Tensor], opset: int = 20) -> list[str]:
        program = export_and_compare(function, (torch.randn(2, 3),), opset_version=opset)
        return [node.op_type for node in program.model.graph]

    assert ops(F.gelu) == ["Gelu"]
    assert ops(F.hardswish) == ["HardSwish"]
    assert ops(F.silu) == ["Sigmoid", "Mul"]
    assert len(ops(F.gelu, 18)) == 5
    assert ops(F.logsigmoid) == ["Neg", "Softplus", "Neg"]
