"""Parts whose number the input says: an error that says so and what to write; a fixed number is exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule, export_and_compare


def split(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.softmax(0) for part in torch.split(x, lengths.tolist())])


def split_by_a_list(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    numbers = (lengths * 1).tolist()
    return torch.cat([part.softmax(0) for part in x.split(numbers)])


def split_at_a_tensor(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.softmax(0) for part in torch.tensor_split(x, lengths.cumsum(0)[:-1])])


def padded(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(x.split(lengths.tolist()), batch_first=True)


def sliced(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    ends = lengths.cumsum(0)
    return torch.stack([x[start:end].sum(0) for start, end in zip(ends - lengths, ends)])


COUNTED_BY_ROWS = [split, split_by_a_list, split_at_a_tensor, padded, sliced]


def repeated(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    parts = torch.split(x, (lengths * 0 + 2).repeat_interleave(lengths).tolist())
    return torch.cat([part.softmax(0) for part in parts])


def selected(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    state = x[0]
    for row in x[x[:, 0] > 0.5]:
        state = state * 0.5 + row
    return state


def found(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    state = x[0]
    for place in (x[:, 0] > 0.5).nonzero():
        state = state * 0.5 + x[place[0]]
    return state


def longest(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    state = x[0]
    for t in range(int(lengths.max())):
        state = state * 0.5 + x[t]
    return state


COUNTED_BY_VALUES = [repeated, selected, found, longest]

X, LENGTHS = torch.rand(12, 4), torch.tensor([3, 4, 5])
OTHER = torch.rand(14, 4), torch.tensor([3, 9, 2])
MORE = torch.rand(14, 4), torch.tensor([3, 4, 2, 5])


def expect_refusal(function: Callable[..., Any], *shapes: Any) -> str:
    with pytest.raises(onnxport.OnnxExporterError) as caught:
        onnxport.export(FunctionModule(function), (X, LENGTHS), dynamic_shapes=(shapes,))
    text = str(caught.value)
    line = function.__code__.co_firstlineno
    assert any(f"because of {__file__}:{n}: " in text for n in range(line, line + 5))
    assert "mask" in text and "torch.cond" not in text.splitlines()[-1]
    return text


@pytest.mark.parametrize("function", COUNTED_BY_ROWS, ids=lambda function: function.__name__)
def test_the_number_of_lengths_is_dynamic(function: Callable[..., Any]) -> None:
    text = expect_refusal(function, {0: "tokens"}, {0: "parts"})
    assert "number of parts" in text or "number of steps" in text


@pytest.mark.parametrize("function", COUNTED_BY_ROWS, ids=lambda function: function.__name__)
def test_a_fixed_number_of_lengths(function: Callable[..., Any]) -> None:
    export_and_compare(function, (X, LENGTHS), dynamic_shapes=(({0: "tokens"}, None),), other_args=OTHER)


@pytest.mark.parametrize("function", COUNTED_BY_VALUES, ids=lambda function: function.__name__)
def test_the_number_is_made_of_values(function: Callable[..., Any]) -> None:
    expect_refusal(function, {0: "tokens"}, None)


def by_mask(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    part = torch.searchsorted(lengths.cumsum(0), torch.arange(len(x)), right=True)
    others = (part[:, None] != part)[..., None]
    return (x - x[None].masked_fill(others, -torch.inf).logsumexp(1)).exp()


def rows_of_parts(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return x[: lengths.shape[0]].repeat_interleave(lengths, 0)


@pytest.mark.parametrize("function", [by_mask, rows_of_parts])
def test_what_the_error_says_to_write(function: Callable[..., Any]) -> None:
    shapes = ({0: "tokens"}, {0: "parts"})
    export_and_compare(function, (X, LENGTHS), dynamic_shapes=(shapes,), other_args=MORE)
    if function is by_mask:
        assert torch.allclose(by_mask(*MORE), split(*MORE), atol=1e-6)
