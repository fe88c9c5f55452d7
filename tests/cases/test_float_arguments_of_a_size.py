"""A float argument that a dynamic size makes follows the size: by decomposition, where ONNX takes a constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from onnxport import Unsupported
from onnxport_builtin.decomposer import Decomposer
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
    "scatter": lambda x, s: x.scatter(1, torch.tensor([[0, 2]]), s).scatter(
        0, torch.tensor([[1]]), 2 * s, reduce="add"
    ),
    "threshold of softplus": lambda x, s: F.softplus(x * 9, threshold=s),
    "fill_diagonal_": lambda x, s: x[:, :4].clone().fill_diagonal_(s) + x.clone().fill_diagonal_(2 * s, wrap=False),
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


def orders(n: int) -> list[float]:
    """At 6 all but two are even."""
    return [n, n * 0.5, n / 3, -n / 2, n - 4, 1.5 * (n - 8)]


NORMS: Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "norm": lambda x, p: x.norm(p=p),
    "norm of axes": lambda x, p: torch.linalg.vector_norm(x, p, (0, 1), keepdim=True),
    "norm of halves": lambda x, p: x.half().norm(p, 1).float(),
    "norm of a complex tensor": lambda x, p: torch.linalg.vector_norm(torch.complex(x, x.flip(0)), p, 0),
    "normalize": lambda x, p: F.normalize(x.double() + 3, p=p),
    "dist": lambda x, p: torch.dist(x, x.flip(1), p=p),
    "renorm": lambda x, p: torch.renorm(x, p * p + 1, 0, 1.5),
}


@pytest.mark.parametrize("name", NORMS)
def test_the_order_of_a_norm_follows_the_size(name: str) -> None:
    """Also whether it is even, which torch's decomposition asks of the example's number to leave out the modulus."""
    model = FunctionModule(lambda x, y: [NORMS[name](x, order) for order in orders(y.shape[0])])
    x = torch.tensor([[-1.5, 0.0, 2.0, -0.5], [0.25, -3.0, 1.0, 0.75]])
    program = onnxport.export(model, (x, torch.ones(6)), dynamic_shapes=(({}, {0: "n"}),))
    for size in (3, 4, 5, 6, 8):
        for got, want in zip(program(x, torch.ones(size)), model(x, torch.ones(size)), strict=True):
            expect_equal(got, want, rtol=2e-3, atol=1e-4)


def parity(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * 2 if n % 2 == 0 else x * n


def above_ten(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * 2 if n > 10 else x * n


def number(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * int(n // 2)


def always(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * n if -1 < n < 2**64 else x


def of_the_shape(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * n if x.shape[0] == 4 else x


@pytest.mark.parametrize("example", [6, 12, 5])
@pytest.mark.parametrize("captured", [False, True], ids=["at first", "and in the capture"])
@pytest.mark.parametrize("function", [parity, above_ten, number, always, of_the_shape], ids=lambda f: f.__name__)
def test_a_decomposition_that_decides_by_the_number_is_refused(function: Any, captured: bool, example: int) -> None:
    """The kernel for shapes may have decided so before: then the program has the guard, and no new one arises."""
    name = f"decided_{function.__name__}_{captured}_{example}"
    with torch.library._scoped_library("onnxport_tests", "FRAGMENT") as library:
        library.define(f"{name}(Tensor x, SymInt n) -> Tensor")
        library.impl(name, function, "CPU")
        library.impl(name, function if captured else lambda x, n: torch.empty_like(x), "Meta")
        target = getattr(torch.ops.onnxport_tests, name).default

        class Model(torch.nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return target(x, y.shape[0])

        program = torch.export.export(
            Model(), (torch.ones(4), torch.ones(example)), dynamic_shapes=({}, {0: torch.export.Dim.DYNAMIC})
        )
    node = next(n for n in program.graph.nodes if n.target is target)
    decomposer = Decomposer({target: function}, lambda graph: graph)
    if function in (always, of_the_shape):
        assert torch.ops.aten.mul.Tensor in [n.target for n in decomposer.expand(node).graph_module.graph.nodes]
        return
    with pytest.raises(Unsupported, match=r"decides by the example's number|makes a number of a dynamic size"):
        decomposer.expand(node)
