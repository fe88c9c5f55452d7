"""The inputs that a verification makes have one size for one name, whether or not the torch model ties the axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxport
import pytest
import sympy
import torch
from onnxport_workbench.sizes import Sizes, parsed
from torch.export import Dim

X = torch.randn(2, 8)


class Untied(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, y.sum()


class Attention(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


@dataclass
class State:
    a: torch.Tensor
    b: torch.Tensor


class Nested(torch.nn.Module):
    def forward(self, x: torch.Tensor, state: State, more: dict[str, list[torch.Tensor]]) -> list[torch.Tensor]:
        return [x + 1, state.a * 2, state.b.sum(), more["one"][0] - 1, more["one"][1] * 3]


class Counted(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return x * count, y + count


batch, half = Dim("batch"), Dim("half")
heads = tuple(torch.randn(1, 2, 5, 4) for _ in range(3))
CASES: dict[str, tuple[torch.nn.Module, tuple[Any, ...], Any, list[str]]] = {
    "names": (Untied(), (X, X + 1), ({0: "n"}, {0: "n"}), ["n=5", "n=1"]),
    "a Dim": (Untied(), (X, X + 1), ({0: batch}, {0: batch}), ["batch=5", "batch=1"]),
    "one tensor twice": (Untied(), (X, X), ({0: "a"}, {0: "b"}), ["a=5, b=6", "a=1, b=1"]),
    "two names each": (Untied(), (X, X + 1), ({0: "n", 1: "m"}, {0: "n", 1: "m"}), ["n=5, m=18", "n=1, m=1"]),
    "crossed": (Untied(), (X[:, :2], X[:, :2]), ({0: "n", 1: "m"}, {0: "m", 1: "n"}), ["n=5, m=6", "n=1, m=1"]),
    "attention": (Attention(), heads, ({2: "s"},) * 3, ["s=11", "s=1"]),
    "attention, two names": (Attention(), heads, ({2: "q"}, {2: "k"}, {2: "k"}), ["q=11, k=12", "q=1, k=1"]),
    "twice": (Untied(), (X, torch.randn(4, 8)), ({0: "n"}, {0: "2*n"}), ["n=5", "n=1"]),
    "half a Dim": (Untied(), (X, torch.randn(4, 8)), ({0: half}, {0: 2 * half}), ["half=5", "half=1"]),
    "a sum": (Untied(), (X, torch.randn(5, 8)), ({0: "n"}, {0: "n + 3"}), ["n=5", "n=1"]),
    "containers": (
        Nested(),
        (X, State(X + 1, X + 2), {"one": [X + 3, torch.randn(4, 8)]}),
        ({0: "n"}, {"a": {0: "n"}, "b": {0: "n"}}, {"one": [{0: "n"}, {0: "2*n"}]}),
        ["n=5", "n=1"],
    ),
    "a number too": (Counted(), (X, X, 3), ({0: "n"}, {0: "n"}, Dim.DYNAMIC), ["n=5, ", "n=1, "]),
    "bounds": (
        Untied(),
        (X, torch.randn(6, 8)),
        ({0: Dim("n", min=2, max=4)}, {0: 3 * Dim("n", min=2, max=4)}),
        ["n=4"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_programs_and_files(name: str, tmp_path: Path) -> None:
    model, args, shapes, labels = CASES[name]
    program = onnxport.export(model, args, tmp_path / "m.onnx", dynamic_shapes=shapes, verify=True)
    result = onnxport.verify(program)
    assert result.passed, result.failures()
    told = [one.label for one in result.comparisons if not one.skipped]
    assert len(told) == len(labels) + 1
    assert all(label.startswith(start) for label, start in zip(told[1:], labels)), told
    result = onnxport.verify(tmp_path / "m.onnx", model, args)
    assert result.passed, result.failures()
    if name not in ("a number too", "bounds"):  # a file has no bounds, and a number may be any input's size
        assert [one.label for one in result.comparisons if not one.skipped] == ["example", *labels]


def test_a_file_whose_dims_have_no_names(tmp_path: Path) -> None:
    """Each is of its own size, and keeps it: a file doesn't say which are equal."""
    program = onnxport.export(Untied(), (X, X + 1), dynamic_shapes=({0: "n"}, {0: "n"}))
    for value in program.model.graph.inputs:
        value.shape = ir.Shape([None, 8])
    program.save(tmp_path / "m.onnx")
    result = onnxport.verify(tmp_path / "m.onnx", Untied(), (X, X[:1]))
    assert result.passed and [one.label for one in result.comparisons] == ["example"]


def test_other_inputs_are_taken_as_they_are() -> None:
    program = onnxport.export(Untied(), (X, X + 1), dynamic_shapes=({0: "n"}, {0: "n"}))
    result = onnxport.verify(program, other_inputs=[((X, X[:1]), None)], generate=False)
    assert not result.passed and "'n'" in result.failures()[0]


def name(text: str) -> sympy.Symbol:
    return sympy.Symbol(text, integer=True, positive=True)


@pytest.mark.parametrize(
    ("text", "values", "size"),
    [
        ("n", {"n": 3}, 3),
        ("2*n + m//2 - 1", {"n": 3, "m": 5}, 7),
        ("Max(1, n % 4)", {"n": 8}, 1),
        ("-(n - 9)", {"n": 4}, 5),
        ("batch size!", {"batch size!": 4}, 4),
        ("__import__('os').getcwd()", {"__import__('os').getcwd()": 4}, 4),
        ("9**9**9", {"9**9**9": 4}, 4),
        ("n // 0", {"n": 4}, None),
        ("Mod(n)", {"Mod(n)": 4}, 4),
    ],
)
def test_texts_of_dims_are_read_and_never_run(text: str, values: dict[str, int], size: int | None) -> None:
    found = parsed(text, name).subs({name(symbol): value for symbol, value in values.items()})
    assert (int(found) if found.is_Integer else None) == size


def test_sizes_that_must_be_whole() -> None:
    """Three of one are two of the other: only even sizes fit."""
    sizes = Sizes({})
    s, t = sympy.symbols("s t", integer=True, positive=True)
    axes = [sizes.axis(4, s, "a"), sizes.axis(6, t, "b"), sizes.axis(12, 3 * s, "c"), sizes.axis(12, 2 * t, "c")]
    chosen = sizes.chosen()
    values = [sizes.value(axis, chosen) for axis in axes]
    assert None not in values and values[2] == values[3] == 3 * values[0] == 2 * values[1]  # type: ignore[operator]
    assert values[0] > 4  # type: ignore[operator]


@pytest.mark.parametrize("edit", [lambda model: None, lambda model: model.graph.inputs[1].shape])
def test_models_that_a_caller_edited(edit: Callable[[Any], Any]) -> None:
    """The file's names count, not those of the export."""
    program = onnxport.export(Untied(), (X, X + 1), dynamic_shapes=({0: "n"}, {0: "m"}))
    if edit(program.model) is not None:
        program.model.graph.inputs[1].shape = ir.Shape(["n", 8])
        assert [one.label for one in onnxport.verify(program).comparisons] == ["example", "n=5", "n=1"]
    else:
        assert [one.label for one in onnxport.verify(program).comparisons] == ["example", "n=5, m=6", "n=1, m=1"]
    assert onnxport.verify(program).passed
