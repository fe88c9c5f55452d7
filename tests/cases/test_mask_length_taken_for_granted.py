"""Lengths of selections beside other lengths: one selected element is broadcast, and nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxport
import pytest
import torch
from onnxport_builtin.capture.assumptions import check_assumptions
from support import as_module, expect_equal, flat_tensors

Tensor = torch.Tensor


def _beside(combine: Callable[[Tensor, Tensor], Any], select: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """What combines a selection with a tensor of fixed length, and what the selection's own length then is."""

    def forward(x: Tensor, y: Tensor) -> tuple[Any, ...]:
        v = select(x, y)
        return combine(x, v), v + v.shape[0], v.sum() / v.numel()

    return forward


SELECTIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index": lambda x, y: y[y > 1],
    "masked_select": lambda x, y: y.masked_select(y > 1),
    "nonzero": lambda x, y: (y > 1).nonzero()[:, 0],
    "where": lambda x, y: torch.where(y > 1)[0],
    "unique": lambda x, y: torch.unique((y > 1).float().sum() * torch.ones(3) + (y[:3] > 1) * (y.sum() > 3)),
    "repeat_interleave": lambda x, y: y[:2].repeat_interleave((y[:2] > 1).long() + (y[:2] > 3).long()),
    "bincount": lambda x, y: torch.bincount((y > 1).sum() * torch.ones(1, dtype=torch.int64) - 1),
    "item": lambda x, y: y[: ((y > 1).sum()).item()],
    "arange": lambda x, y: torch.arange((y > 1).sum().item()),
    "a mask of rows": lambda x, y: torch.stack([y, -y], 1)[y > 1][:, 0],
}
COMBINATIONS: Mapping[str, Callable[[Tensor, Tensor], Any]] = {
    "minimum": torch.minimum,
    "sum": lambda x, v: x + v,
    "in two dims": lambda x, v: x[:, None] + v[None],
    "in place": lambda x, v: x.clone().add_(v),
    "copied": lambda x, v: x.clone().copy_(v),
    "assigned": lambda x, v: x.clone().index_copy_(0, torch.arange(3), (x * 0).copy_(v)),
    "to a slice": lambda x, v: _set(x.clone(), slice(None), v),
    "to a mask": lambda x, v: _set(x.clone(), x > 0, v),
    "expanded": lambda x, v: v.expand(3) * x,
    "expanded as": lambda x, v: v.expand_as(x) * x,
    "chosen": lambda x, v: torch.where(v > 2, x, v),
    "compared": lambda x, v: x > v,
    "divided": lambda x, v: x // v,
    "interpolated": lambda x, v: torch.lerp(x, v, 0.5),
    "three": lambda x, v: torch.addcmul(x, x, v),
    "masked": lambda x, v: x.masked_fill(v > 2, 9.0),
    "indices": lambda x, v: torch.stack([x, x])[torch.tensor([0, 1, 1]), (v > 2).long()],
    "out": lambda x, v: torch.add(x, v, out=x.clone()),
}
ONE = torch.tensor([0.5, 3.0, 2.0]), torch.tensor([0.0, 2.5, -1.0, 1.0])
THREE = torch.tensor([0.5, 3.0, 2.0]), torch.tensor([4.0, 2.5, -1.0, 2.0])


def _set(tensor: Tensor, index: Any, value: Tensor) -> Tensor:
    tensor[index] = value
    return tensor


def _expect(program: onnxport.ONNXProgram, model: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
    for got, want in zip(program(*args), flat_tensors(model(*args)), strict=True):
        expect_equal(got, want)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_one_element_is_broadcast(name: str) -> None:
    """In the example or at another run, whichever of the two was the example."""
    model = as_module(_beside(COMBINATIONS[name], SELECTIONS["index"]))
    for example in (ONE, THREE):
        program = onnxport.export(model, tuple(arg.clone() for arg in example))
        for args in (ONE, THREE):
            _expect(program, model, args)


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_selections_of_all_kinds(name: str) -> None:
    model = as_module(_beside(torch.add, SELECTIONS[name]))
    program = onnxport.export(model, tuple(arg.clone() for arg in ONE))
    _expect(program, model, ONE)


def test_beside_a_dynamic_length() -> None:
    model = as_module(_beside(torch.minimum, SELECTIONS["index"]))
    args = torch.rand(5), ONE[1]
    program = onnxport.export(model, args, dynamic_shapes=(({0: "n"}, {0: "m"}),))
    for n in (5, 3, 9):
        _expect(program, model, (torch.rand(n), ONE[1]))
    _expect(program, model, (torch.rand(4), torch.arange(2.0, 6)))


def test_a_view_of_a_selection_stays_one() -> None:
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        v = y[y > 1]
        wide = v.expand(3)
        v.add_(1)
        return wide * x, v

    model = as_module(forward)
    for example in (ONE, THREE):
        program = onnxport.export(model, tuple(arg.clone() for arg in example))
        for args in (ONE, THREE):
            _expect(program, model, args)


def test_what_follows_from_equal_lengths_is_decided() -> None:
    """A comparison that needs the length takes torch.export's assumption, for an example that it holds for."""

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        v = y[y > 1]
        return x + v, v * 2 if v.shape[0] == 3 else v * 3

    model = as_module(forward)
    _expect(onnxport.export(model, THREE), model, THREE)
    with pytest.raises(onnxport.CaptureError, match=r"v = y\[y > 1\]"):
        onnxport.export(model, ONE)


REFUSED: Mapping[str, tuple[Callable[..., Any], str]] = {
    "two selections": (lambda x, y: (lambda v, w: v * w + w.shape[0])(y[y > 1], x[x > 0]), "Eq"),
    "a rank": (lambda x, y: y[y > 1].squeeze(), "squeeze"),
    "a product of batches": (
        lambda x, y: (lambda v: x[:, None, None].expand(3, 2, 2) @ v[:, None, None].expand(-1, 2, 2) + v.shape[0])(
            y[y > 1]
        ),
        "index",
    ),
    "tensors broadcast to one another": (lambda x, y: torch.broadcast_tensors(x, y[y > 1])[1], "index"),
    "a list of tensors": (lambda x, y: torch._foreach_add([x], [y[y > 1]])[0], "index"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_example_that_contradicts_is_refused_with_the_line(name: str) -> None:
    function, said = REFUSED[name]
    model = as_module(function)
    with pytest.raises(onnxport.CaptureError, match=said) as caught:
        onnxport.export(model, ONE)
    message = str(caught.value)
    assert "assumes that" in message and "give example inputs" in message
    assert "test_mask_length_taken_for_granted.py" in message or "comparing.py" in message
    if name != "two selections":
        _expect(onnxport.export(model, THREE), model, THREE)


def test_programs_captured_elsewhere_are_held_against_their_example() -> None:
    model = as_module(_beside(torch.minimum, SELECTIONS["index"]))
    captured = torch.export.export(model, ONE)
    with pytest.raises(onnxport.CaptureError, match="assumes that"):
        onnxport.export(captured)
    check_assumptions(torch.export.export(model, THREE))


def test_what_the_program_writes_stays() -> None:
    """The example is run on copies, with buffers as they are."""

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            self.count.add_(y[y > 1])
            x.mul_(2)
            return self.count * x

    model, x = Counter(), ONE[0].clone()
    program = onnxport.export(model, (x, ONE[1]))
    assert torch.equal(x, ONE[0]) and torch.equal(model.count, torch.zeros(3))
    assert torch.equal(program.exported_program.state_dict["count"], torch.zeros(3))
    expect_equal(program(ONE[0].clone(), ONE[1])[0], model(x, ONE[1]))
