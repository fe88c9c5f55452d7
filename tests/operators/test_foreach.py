"""`torch._foreach_*`: every overload that writes nothing, and those that write, through their twins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from onnxport_builtin.foreach import decompositions
from support import export_and_compare

UNARY = ["abs", "exp", "floor", "lgamma", "log1p", "max", "neg", "norm", "powsum", "rsqrt", "sigmoid", "tanh", "trunc"]
BINARY = ["add", "clamp_max", "clamp_min", "div", "maximum", "minimum", "mul", "pow", "sub"]
A, B = torch.rand(3, 4) + 0.5, torch.rand(4) + 0.5


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(torch, f"_foreach_{name}")(*args, **kwargs)


def test_unary() -> None:
    export_and_compare(lambda a, b: [call(name, [a, b]) for name in UNARY], (A, B))


@pytest.mark.parametrize("other", ["list", "number", "numbers"])
def test_binary(other: str) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        second: Any = {"list": [a + 1, b + 1], "number": 2.0, "numbers": [2.0, 3.0]}[other]
        return [call(name, [a, b], second) for name in BINARY]

    export_and_compare(function, (A, B))


def test_ternary() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        x, y = [a, b], [a + 1, b + 1]
        blended = [call("lerp", x, y, 0.3), call("lerp", x, y, x)]
        added = [call(name, x, x, y, factor) for name in ("addcmul", "addcdiv") for factor in (0.5, [0.5, 2.0])]
        products = call("mm", [a], [a.T]) if hasattr(torch, "_foreach_mm") else []  # since torch 2.12
        return [*blended, *added, *products]

    export_and_compare(function, (A, B))


def test_writes() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        x = [a.clone(), b.clone()]
        torch._foreach_add_(x, 1.0)
        torch._foreach_mul_(x, [2.0, 3.0])
        y = [torch.zeros_like(a), torch.zeros(3, 4, dtype=torch.float64)]
        torch._foreach_copy_(y, [a, b])
        return [*x, *y]

    export_and_compare(function, (A, B))


def test_none_is_missing() -> None:
    """But those that take their scalars as a tensor, which torch.export can't capture."""
    served = decompositions()
    missing = []
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if name.startswith("aten::_foreach_"):
            operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
            if (
                not operator._schema.is_mutable
                and operator not in served
                and "Tensor scalars" not in str(operator._schema)
            ):
                missing.append(name)
    assert not missing
