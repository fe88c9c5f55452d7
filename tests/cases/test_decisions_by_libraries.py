"""A library that isn't the model compares sizes: the file follows them, or a warning names the model's line."""

from __future__ import annotations

import bisect
import math
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal

FOLLOWING: dict[str, Callable[[torch.Tensor], Any]] = {
    "np.max of a list": lambda x: x * np.max([x.shape[1], 9]),
    "np.amin of a shape": lambda x: x * np.amin(x.shape),
    "np.max of an array": lambda x: x * np.max(np.array(x.shape)),
    "bits that are cleared": lambda x: x[:, : x.shape[1] & ~3],
    "bits that are set": lambda x: torch.zeros(x.shape[1] | 1),
    "fmod": lambda x: x * math.fmod(-x.shape[1], 3),
    "remainder": lambda x: x * math.remainder(x.shape[1], 4),
    "ldexp": lambda x: x * math.ldexp(x.shape[1], -2),
    "copysign": lambda x: x * math.copysign(x.shape[1], -0.0),
    "modf": lambda x: x * math.modf(x.shape[1] / 3)[0] + math.modf(-x.shape[1] / 3)[1],
    "dist": lambda x: x * math.dist([x.shape[1], 2], [0, 1]),
    "fsum": lambda x: x * math.fsum([x.shape[1], 0.5]),
}

DECIDING: dict[str, Callable[[torch.Tensor], Any]] = {
    "bisect": lambda x: x * bisect.bisect([4, 9], x.shape[1]),
    "sorted": lambda x: x * sorted([x.shape[1], 9])[0],
    "statistics": lambda x: x * statistics.median([x.shape[1], 9, 10]),
    "np.sort": lambda x: x * np.sort([x.shape[1], 9])[0],
    "np.median": lambda x: x * np.median([x.shape[1], 9, 10]),
}


def export(function: Callable[[torch.Tensor], Any]) -> onnxport.ONNXProgram:
    return onnxport.export(FunctionModule(function), (torch.randn(2, 8),), dynamic_shapes=({1: "t"},))


@pytest.mark.parametrize("name", FOLLOWING)
def test_the_file_follows_the_size(name: str) -> None:
    program = export(FOLLOWING[name])
    for size in (8, 11, 5, 14):
        x = torch.randn(2, size)
        expect_equal(program(x)[0], FOLLOWING[name](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DECIDING)
def test_a_decision_is_told(name: str) -> None:
    function = DECIDING[name]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            program = export(function)
        except onnxport.DynamicShapesError as error:
            assert f'"{name}": lambda x' in str(error)
            return
    x = torch.randn(2, 8)
    expect_equal(program(x)[0], function(x), rtol=1e-4, atol=1e-5)
    assert any(f'"{name}": lambda x' in str(warning.message) for warning in told)
