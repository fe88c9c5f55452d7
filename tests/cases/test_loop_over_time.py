"""A Python loop over a dynamic axis is an error that names the loop's line and tells what to write for a loop."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from onnxport_builtin.capture.advice import advice_at
from support import FunctionModule, export_and_compare
from torch._higher_order_ops import scan
from torch.export import Dim


class Recurrence(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        state, out = torch.zeros_like(a[:, 0]), []
        for t in range(a.shape[1]):
            state = a[:, t] * state + b[:, t]
            out.append(state)
        return torch.stack(out, 1)


class Cells(torch.nn.Module):
    def __init__(self, kind: type[torch.nn.Module]) -> None:
        super().__init__()
        self.cell = kind(3, 4)

    def forward(self, x: torch.Tensor) -> Any:
        state = None
        for t in range(x.size(1)):
            state = self.cell(x[:, t], state)
        return state


def steps(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for row in x.unbind(1):
        state = state * row
    return state


def rows(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for row in x.mT.mT.transpose(0, 1):
        state = state * row
    return state


def numbered(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for i, row in enumerate(x.transpose(0, 1)):
        state = state * row + i
    return state


def together(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for a, b in zip(x.unbind(1), x.flip(1).unbind(1)):
        state = state * a + b
    return state


def unzipped(x: torch.Tensor) -> torch.Tensor:
    return torch.stack(next(zip(*x.transpose(0, 1))))


def backwards(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for t in reversed(range(1, x.shape[1])):
        state = state * x[:, t]
    return state


def listed(x: torch.Tensor) -> torch.Tensor:
    count = x.shape[1]
    parts = [
        x[:, t] * 2
        for t in range(count)
    ]  # fmt: skip
    return torch.stack(parts, 1)


def summed(x: torch.Tensor) -> Any:
    return sum(row * 2 for row in x.transpose(0, 1))


def unpacked(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([*x.transpose(0, 1)], 1)


def one_by_one(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([part * 2 for part in x.split(1, dim=1)], 1)


def in_blocks(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:, i : i + 4].softmax(1) for i in range(0, x.shape[1], 4)], 1)


def half(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for t in range(x.shape[1] // 2):
        state = state * x[:, t]
    return state


def while_less(x: torch.Tensor) -> torch.Tensor:
    state, i = x[:, 0], 0
    while i < x.shape[1]:
        state, i = state * x[:, i], i + 1
    return state


def while_pairs(x: torch.Tensor) -> torch.Tensor:
    state, i = x[:, 0], 0
    while i + 2 <= x.shape[1]:
        state, i = state * x[:, i], i + 2
    return state


def until(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for i in itertools.count():
        if i >= x.shape[1]:
            break
        state = state * x[:, i]
    return state


def counted_by_tensor(x: torch.Tensor) -> torch.Tensor:
    state = x[:, 0]
    for i in torch.arange(x.shape[1]).tolist():
        state = state * x[:, i]
    return state


def whole_lists(x: torch.Tensor) -> torch.Tensor:
    return x * len([None] * x.shape[1])


def as_long_as_values_say(x: torch.Tensor) -> torch.Tensor:
    while x.sum() > 1:
        x = x * 0.5
    return x


def as_often_as_values_say(x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(x.sum())):
        x = x * 0.5
    return x


CAPTURED = [rows, listed, one_by_one, half, while_pairs, until, as_long_as_values_say]
OTHERS = [
    steps, numbered, together, unzipped, backwards, summed, unpacked, in_blocks, while_less, counted_by_tensor,
    whole_lists, as_often_as_values_say,
]  # fmt: skip


def expect_refusal(model: torch.nn.Module, args: tuple[torch.Tensor, ...], name: Any = "seq") -> str:
    with pytest.raises(onnxport.OnnxExporterError) as caught:
        onnxport.export(model.eval(), args, dynamic_shapes=({1: name},) * len(args))
    text = str(caught.value)
    assert "scan" in text and "while_loop" in text
    assert "torch.cond" not in text.splitlines()[-1]
    return text


def test_the_line_of_the_loop() -> None:
    text = expect_refusal(Recurrence(), (torch.rand(2, 7, 3),) * 2)
    assert "test_loop_over_time.py:22: for t in range(a.shape[1]):" in text


def test_cells() -> None:
    assert "nn.LSTM" in expect_refusal(Cells(torch.nn.LSTMCell), (torch.rand(2, 7, 3),))


@pytest.mark.parametrize("loop", OTHERS, ids=lambda loop: loop.__name__)
def test_lines_of_loops(loop: Callable[..., Any]) -> None:
    """What a line is taken for; a capture of each would take its time."""
    first = loop.__code__.co_firstlineno
    places = [f"{__file__}:{line}: {linecache.getline(__file__, line).strip()}" for line in range(first + 1, first + 4)]
    assert any("scan" in advice_at(place) for place in places)


@pytest.mark.parametrize("loop", CAPTURED, ids=lambda loop: loop.__name__)
def test_loops(loop: Callable[[torch.Tensor], Any]) -> None:
    text = expect_refusal(FunctionModule(loop), (torch.rand(2, 7, 3),))
    lines = range(loop.__code__.co_firstlineno, loop.__code__.co_firstlineno + 8)
    assert any(f"because of {__file__}:{line}: " in text for line in lines)


def test_a_dim() -> None:
    expect_refusal(FunctionModule(steps), (torch.rand(2, 7, 3),), Dim("seq"))


def test_other_lines_get_the_usual_advice() -> None:
    def fixed(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = x + 1
        return x.view(2, 7, 3)

    with pytest.raises(onnxport.DynamicShapesError) as caught:
        onnxport.export(FunctionModule(fixed), (torch.rand(2, 7, 3),), dynamic_shapes=({1: "seq"},))
    assert "scan" not in str(caught.value) and "-1 in reshape" in str(caught.value)


def test_a_loop_that_no_size_enters_is_a_condition() -> None:
    def padded(x: torch.Tensor) -> torch.Tensor:
        while x.shape[1] < 4:
            x = torch.nn.functional.pad(x, (0, 0, 0, 4))
        return x * 2

    with pytest.warns(UserWarning, match="seq >= 4"):
        onnxport.export(FunctionModule(padded), (torch.rand(2, 7, 3),), dynamic_shapes=({1: "seq"},))


def as_scan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    def step(state: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = row[0] * state + row[1]
        return state, state.clone()

    return scan(step, torch.zeros_like(a[:, 0]), torch.stack([a, b]).movedim(2, 0))[1].movedim(0, 1)


def as_while_loop(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    def more(i: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return i < a.shape[1]

    def step(i: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return i + 1, a.index_select(1, i[None])[:, 0] * state + b.index_select(1, i[None])[:, 0]

    return torch.while_loop(more, step, (torch.tensor(0), torch.zeros_like(a[:, 0])))[1]  # type: ignore[no-any-return]


def as_vmap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.vmap(lambda x, y: x * y.sum(), in_dims=1, out_dims=1)(a, b)


@pytest.mark.parametrize("function", [as_scan, as_while_loop, as_vmap])
def test_what_the_error_says_to_write(function: Callable[..., Any]) -> None:
    args, other = (torch.rand(2, 7, 3), torch.rand(2, 7, 3)), (torch.rand(2, 4, 3), torch.rand(2, 4, 3))
    export_and_compare(function, args, dynamic_shapes=(({1: "seq"}, {1: "seq"}),), other_args=other)
