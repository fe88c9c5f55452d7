"""A float argument that a dynamic size makes follows the size: by decomposition, where ONNX takes a constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import FunctionModule, expect_equal

FUNCTIONS: Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "leaky_relu": lambda x, s: F.leaky_relu(x, negative_slope=s),
    "elu": lambda x, s: F.elu(x, alpha=s),
    "celu": lambda x, s: F.celu(x, alpha=s),
    "hardtanh": lambda x, s: F.hardtanh(x, -s, s),
    "threshold": lambda x, s: F.threshold(x, s, 2 * s),
    "softplus": lambda x, s: F.softplus(x, beta=s),
    "hardshrink": lambda x, s: F.hardshrink(x, s),
    "softshrink": lambda x, s: F.softshrink(x, s),
    "clamp": lambda x, s: x.clamp(-s, s),
    "norm": lambda x, s: x.norm(p=1 + s),
    "vector_norm": lambda x, s: torch.linalg.vector_norm(x, ord=2 * s, dim=1),
    "normalize": lambda x, s: F.normalize(x, p=1 + s),
    "dist": lambda x, s: torch.dist(x, x.flip(1), p=1 + s),
    "renorm": lambda x, s: torch.renorm(x, 2, 0, s),
    "lerp": lambda x, s: torch.lerp(x, x.flip(1), s),
    "lerp from the far end": lambda x, s: torch.lerp(x, x.flip(1), 1 - s),
    "lerp of halves": lambda x, s: torch.lerp(x.half(), x.flip(1).half(), s).float(),
    "addcmul": lambda x, s: torch.addcmul(x, x, x, value=s),
    "add": lambda x, s: torch.add(x, x, alpha=s),
    "pow": lambda x, s: x.abs() ** s + s**x,
    "full": lambda x, s: torch.full((4,), s) + x,
    "masked_fill": lambda x, s: x.masked_fill(x > 0, s),
    "remainder": lambda x, s: torch.fmod(x, s) + torch.remainder(x, s),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_follows_the_size(name: str) -> None:
    model = FunctionModule(lambda x: FUNCTIONS[name](x, 1 / x.shape[0]))
    x, longer = torch.randn(5, 4), torch.randn(7, 4)
    program = onnxport.export(model, (x,), dynamic_shapes=({0: "n"},))
    for value in (x, longer):
        expect_equal(program(value)[0], model(value))


@pytest.mark.parametrize("name", ["elu", "leaky_relu", "threshold"])
def test_an_integer_size_is_taken_as_a_float(name: str) -> None:
    model, x, longer = FunctionModule(lambda x: FUNCTIONS[name](x, x.shape[0])), torch.randn(3, 4), torch.randn(4, 4)
    program = onnxport.export(model, (x,), dynamic_shapes=({0: "n"},))
    for value in (x, longer):
        expect_equal(program(value)[0], model(value))


def test_what_has_no_other_form_is_refused_with_the_reason() -> None:
    model = FunctionModule(lambda x: x.histc(4, -1 / x.shape[0], 3.0))
    with pytest.raises(onnxport.UnsupportedOperatorsError, match=r"known at run time only.*axes static"):
        onnxport.export(model, (torch.randn(5, 4),), dynamic_shapes=({0: "n"},))
