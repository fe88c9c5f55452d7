"""Parts of a dynamic size are as long as eager's at every size, and the file's dims say so."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule
from torch.export import Dim

SIZES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 31, 32)

EQUAL: dict[str, Callable[[torch.Tensor], Sequence[torch.Tensor]]] = {
    "three": lambda x: torch.tensor_split(x, 3, dim=1),
    "two, a method": lambda x: x.tensor_split(2, 1),
    "five, from behind": lambda x: x.tensor_split(5, dim=-1),
    "one": lambda x: x.tensor_split(1, dim=1),
    "a number in a tensor": lambda x: torch.tensor_split(x, torch.tensor(3), dim=1),
    "of half of it": lambda x: x[:, : x.shape[1] // 2].tensor_split(3, dim=1),
    "sections": lambda x: torch.tensor_split(x, sections=4, dim=1),
}


def export(function: Callable[[torch.Tensor], Any], size: int = 8) -> onnxport.ONNXProgram:
    axes = ({0: "b", 1: "t"},)
    return onnxport.export(FunctionModule(function), (torch.randn(2, size),), dynamic_shapes=(axes,))


def compare(program: onnxport.ONNXProgram, function: Callable[[torch.Tensor], Any], size: int) -> None:
    x = torch.randn(3, size)
    got, want = program(x.clone()), function(x.clone())
    assert len(got) == len(want)
    for output, a, b in zip(program.model.graph.outputs, got, want):
        assert torch.equal(a, b), (size, tuple(a.shape), tuple(b.shape))
        for dim, length in zip(output.shape, b.shape):
            text = str(getattr(dim, "value", dim))
            assert eval(text, {"b": 3, "t": size, "Max": max, "Min": min}) == length, (size, text)


@pytest.mark.parametrize("name", EQUAL)
def test_parts_of_every_size(name: str) -> None:
    def scaled(x: torch.Tensor) -> list[torch.Tensor]:
        return [part * 2 for part in EQUAL[name](x)]

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no condition is left on the size
        program = export(scaled)
    for size in SIZES:
        compare(program, scaled, size)


def test_the_outputs_themselves_and_arithmetic_of_their_lengths() -> None:
    def split(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second, third = torch.tensor_split(x, 3, dim=1)
        return (
            first,
            third,
            first.reshape(-1, first.shape[1]),
            torch.cat([third, first], 1),
            second.new_ones(third.shape),
        )

    program = export(split)
    for size in SIZES:
        compare(program, split, size)


def test_writes_through_parts() -> None:
    def write(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 1
        for i, part in enumerate(y.tensor_split(3, dim=1)):
            part.mul_(i)
        return (y,)

    program = export(write)
    for size in SIZES:
        compare(program, write, size)


def test_parts_of_a_fixed_size_are_the_operator() -> None:
    program = onnxport.export(FunctionModule(lambda x: x.tensor_split(3, dim=1)), (torch.randn(2, 8),))
    assert [node.op_type for node in program.model.graph] == ["Split"]
    assert [tuple(part.shape) for part in program(torch.randn(2, 8))] == [(2, 3), (2, 3), (2, 2)]


@pytest.mark.parametrize(
    "function", [lambda x: torch.hsplit(x, 2), lambda x: torch.vsplit(x.mT, 2), lambda x: torch.dsplit(x[None], 2)]
)
def test_halves(function: Callable[[torch.Tensor], Any]) -> None:
    """hsplit and its kin want a size that divides, in eager too."""
    program = export(function)
    for size in SIZES[::2]:
        if size % 2 == 0:
            compare(program, function, size)


@pytest.mark.parametrize(
    ("function", "condition"),
    [
        (lambda x: x.split(x.shape[1] // 2, dim=1), "== 2"),
        (lambda x: torch.split(x, x.shape[1] // 2, 1), "== 2"),
        (lambda x: x.chunk(3, dim=1), "== 3"),
        (lambda x: torch.unsafe_chunk(x, chunks=3, dim=1), "== 3"),
    ],
)
def test_a_number_of_parts_that_some_sizes_change_is_told(function: Callable[..., Any], condition: str) -> None:
    with pytest.warns(UserWarning, match=rf"{condition}, because of .*test_tensor_split_dynamic\.py"):
        program = export(function)
    compare(program, function, 12)


def test_two_chunks_are_no_condition() -> None:
    def chunk(x: torch.Tensor) -> list[torch.Tensor]:
        return [part + 1 for part in x.chunk(2, dim=1)]

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        program = export(chunk)
    for size in SIZES:
        compare(program, chunk, size)


@pytest.mark.parametrize("function", [lambda x: x.split(3, dim=1), lambda x: torch.chunk(x, 4, dim=1)])
def test_a_number_of_parts_that_follows_the_size_names_the_line(function: Callable[..., Any]) -> None:
    with pytest.raises(onnxport.DynamicShapesError, match=r"because of .*test_tensor_split_dynamic\.py:\d+: .*lambda"):
        export(function, 8 if "split" in function.__code__.co_names else 9)


def test_places_beyond_the_example() -> None:
    """A slice that takes all of the example's rows isn't the identity."""

    def split(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *torch.tensor_split(x, (5, 2, -20, 50), dim=1), x[:, -20:]

    program = export(split)
    for size in (8, 19, 21, 32, 60):
        x = torch.randn(3, size)
        for got, want in zip(program(x), split(x), strict=True):
            assert torch.equal(got, want)


def test_one_axis_dynamic_among_nested_parts() -> None:
    def split(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(p.sum(1) for half in x.tensor_split(2, 1) for p in half.tensor_split(2, 1))

    axes = (({1: Dim.DYNAMIC},),)
    program = onnxport.export(FunctionModule(split), (torch.randn(2, 8),), dynamic_shapes=axes)
    for size in SIZES:
        x = torch.randn(2, size)
        for got, want in zip(program(x), split(x), strict=True):
            assert torch.allclose(got, want)
