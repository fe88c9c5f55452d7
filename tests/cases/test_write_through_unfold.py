"""Writes through views: each element is written once and the others stay, whichever way the capture takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import onnxport
import pytest
import torch
from onnxport_builtin.capture.below_autograd import capture_below_autograd
from support import expect_equal, export_and_compare
from torch import nn

_TARGET = "pkg.torch.export.graph_signature.OutputSpec.target"
Tensor = torch.Tensor

VIEWS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "windows with gaps": lambda t: t.unfold(1, 2, 3),
    "windows with a rest": lambda t: t.unfold(1, 3, 3),
    "windows side by side": lambda t: t.unfold(1, 2, 2),
    "one window": lambda t: t.unfold(1, 4, 1),
    "empty windows": lambda t: t.unfold(1, 0, 2),
    "windows of rows": lambda t: t.unfold(0, 1, 2),
    "windows of windows": lambda t: t.unfold(0, 1, 2).unfold(1, 1, 2),
    "one element of each window": lambda t: t.unfold(1, 2, 3)[..., 0],
    "the diagonal of windows": lambda t: t.unfold(1, 2, 3).diagonal(0, 0, 2),
    "windows turned": lambda t: t.unfold(1, 2, 3).permute(2, 0, 1)[:, 1:],
    "windows of a transpose": lambda t: t.t().unfold(0, 2, 3),
    "windows of a slice": lambda t: t[1:].unfold(1, 1, 2),
    "windows of a vector": lambda t: t.view(-1).unfold(0, 2, 5),
    "elements between windows": lambda t: t.view(-1).unfold(0, 3, 4)[:, 1:].t()[0],
    "one of what is repeated": lambda t: t.expand(2, *t.shape)[1],
    "strides": lambda t: t.as_strided((2, 2), (5, 2), 1),
    "strides of a slice": lambda t: t[1:, 1:].as_strided((2, 2), (4, 1), 5),
    "a row of strides that overlap": lambda t: t.as_strided((2, 2), (1, 1), 1)[0],
    "a diagonal": lambda t: t.t().diagonal(1),
    "a transpose": lambda t: t.t().unsqueeze(0).transpose(1, 2)[0, 1:],
    "a view of a view": lambda t: t.view(-1, 2)[1::2, 0],
    "a copy of a transpose": lambda t: t.t().reshape(-1),
    "real parts": lambda t: torch.view_as_complex(t.view(3, 2, 2)).real,
    "imaginary parts": lambda t: torch.view_as_complex(t.view(3, 2, 2))[1].imag,
    "imaginary parts of conjugates": lambda t: torch.view_as_complex(t.view(3, 2, 2)).conj().imag,
    "a part of a split": lambda t: t.tensor_split((2, 1), 1)[2],
    "data": lambda t: t.data[1],
}
WRITES: Mapping[str, Callable[[Tensor], Any]] = {
    "filled": lambda v: v.fill_(7),
    "multiplied": lambda v: v.mul_(2),
    "copied": lambda v: v.copy_(torch.arange(1.0, v.numel() + 1).reshape(v.shape)),
    "masked": lambda v: v.masked_fill_(v > 3, 1),
}


class Written(nn.Module):
    """Each view of a local tensor, of a buffer and of an input of its own is written."""

    def __init__(self, write: Callable[[Tensor], Any], way: str) -> None:
        super().__init__()
        self.write, self.way = write, way
        for i in range(len(VIEWS)):
            self.register_buffer(f"kept_{i}", torch.arange(1.0, 13).reshape(3, 4))

    def forward(self, x: Tensor, given: list[Tensor]) -> list[Tensor]:
        results = []
        for i, (name, view) in enumerate(VIEWS.items()):
            if self.way == "gradient" and name in ("strides of a slice", "a row of strides that overlap"):
                continue  # torch refuses these below autograd
            for tensor in (x * 1, getattr(self, f"kept_{i}"), given[i]):
                shown = view(tensor)
                self.write(shown)
                results += [tensor * 1, shown + 0]
        if self.way == "data":  # torch.export's trace loses such a tensor
            last = x.sin()
            last.data.mul_(2)
            results.append(last)
        if self.way == "gradient":  # captured below autograd
            results.append(_gradient(x))
        return results


def _gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad((leaf**3).sum(), leaf)[0]


def _given() -> tuple[Tensor, list[Tensor]]:
    return torch.arange(1.0, 13).reshape(3, 4), [torch.arange(2.0, 14).reshape(3, 4) for _ in VIEWS]


@pytest.mark.parametrize(
    ("way", "write"),
    [*(("", write) for write in WRITES), ("data", "multiplied"), ("gradient", "filled"), ("gradient", "copied")],
)
def test_elements_between_keep_their_values(way: str, write: str) -> None:
    model = Written(WRITES[write], way)
    program = onnxport.export(copy.deepcopy(model), _given())
    expected_given = _given()
    expected = model(*expected_given)
    outputs = list(zip(program.model.graph.outputs, program.run(_given()), strict=True))
    names = ["x", *(f"given_{i}" for i in range(len(VIEWS)))]
    after = dict(zip(names, (expected_given[0], *expected_given[1]), strict=True)) | dict(model.named_buffers())
    before = dict(zip(names, (_given()[0], *_given()[1]), strict=True))
    changed = {o.metadata_props[_TARGET]: value for o, value in outputs if _TARGET in o.metadata_props}
    for name, value in after.items():
        expect_equal(changed.get(name, before.get(name, torch.arange(1.0, 13).reshape(3, 4))), value)
    user = [value for output, value in outputs if _TARGET not in output.metadata_props]
    for got, want in zip(user, expected, strict=True):
        expect_equal(got, want)


@pytest.mark.parametrize("way", ["", "data", "gradient"])
def test_every_size(way: str) -> None:
    class Sized(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            first, second, third = x * 1, x + 1, x * 2
            first.unfold(0, 2, 3).mul_(2)
            second.unfold(1, 1, 2).fill_(0)
            third.t().unfold(1, 2, 3)[..., 0].add_(1)
            results = [first, second, third]
            if way == "data":
                x.sin().data.mul_(2)
            if way == "gradient":
                results.append(_gradient(x))
            return results

    export_and_compare(
        Sized(), (torch.rand(7, 4),), dynamic_shapes=({0: "n"},), other_args=(torch.rand(11, 4),)
    )  # fmt: skip


@pytest.mark.parametrize("way", ["", "data", "gradient"])
@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.unfold(1, 2, 1),
        lambda t: t.as_strided((2, 2), (1, 1), 1),
        lambda t: t[:, :1].unfold(0, 2, 1).transpose(0, 1),
    ],
)
def test_elements_that_overlap(view: Callable[[Tensor], Tensor], way: str) -> None:
    """One number for all of them is written."""

    class Overlapping(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            filled = x * 1
            view(filled).fill_(7)
            if way == "data":
                x.sin().data.mul_(2)
            return [filled, _gradient(x)] if way == "gradient" else [filled]

    export_and_compare(Overlapping(), (torch.rand(3, 4),))


@pytest.mark.parametrize("way", ["", "gradient"])
def test_elements_written_in_an_unknown_order(way: str) -> None:
    class Overlapping(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            y = x * 1
            y.unfold(1, 2, 1).mul_(2)
            return [y, _gradient(x)] if way == "gradient" else [y]

    with pytest.raises(onnxport.CaptureError, match="write to a clone") as caught:
        onnxport.export(Overlapping(), (torch.rand(3, 4),))
    assert way or "y.unfold(1, 2, 1).mul_(2)" in str(caught.value)


def test_a_program_traced_below_autograd_keeps_control_flow() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            y.unfold(0, 1, 2).fill_(3)
            return torch.cond(y.sum() > 3, lambda a: a * 2, lambda a: a - 1, (y,))

    program = capture_below_autograd(Branch(), (torch.ones(4),), {}, None)
    for x in (torch.ones(4), -torch.ones(4)):
        expect_equal(onnxport.export(program, (x,))(x)[0], Branch()(x))


def test_torchs_own_way_is_not_taken_where_it_loses_elements() -> None:
    class Resized(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x.new_zeros(2)
            first = y[:1]  # y has a view and is resized
            torch.add(x, 1, out=y)
            z = x * 1
            z.unfold(1, 2, 3).mul_(2)
            return y, z + first.shape[0]

    x = torch.rand(3, 4)
    for got, expected in zip(onnxport.export(Resized(), (x,))(x), Resized()(x), strict=True):
        assert torch.equal(got, expected)


DATA: Mapping[str, Callable[[Any, Tensor], Any]] = {
    "assigned": lambda m, x: _assigned(x + 1, x * 3) * 2,
    "of another shape": lambda m, x: _assigned(x + 1, x.t() * 3) * 2,
    "read after a view": lambda m, x: _with_view(x + 1, x * 3),
    "a buffer's": lambda m, x: _assigned(m.kept, x * 3) + m.kept,
    "a buffer's in place": lambda m, x: m.kept.data.add_(x) + m.kept,
    "a parameter's": lambda m, x: _assigned(m.weight, m.weight * 3) + x,
    "a parameter's in place": lambda m, x: m.weight.data.mul_(2) + m.weight * x,
    "a parameter's read": lambda m, x: m.weight.data + x,
    "an input's": lambda m, x: x.data.mul_(2) + x,
    "an element's": lambda m, x: _assigned_in(x + 1),
    "set": lambda m, x: (x + 1).set_(x * 3) * 2,
}


def _assigned(tensor: Tensor, value: Tensor) -> Tensor:
    tensor.data = value
    return tensor


def _assigned_in(tensor: Tensor) -> Tensor:
    tensor.data[0] = 3
    tensor.data.add_(1)
    rest = tensor.data
    rest[1] *= 2
    return tensor


def _with_view(tensor: Tensor, value: Tensor) -> Tensor:
    row = tensor[0]
    tensor.data = value
    tensor.mul_(2)
    return tensor + row


@pytest.mark.parametrize("name", DATA)
def test_the_data_of_a_tensor(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 4))
            self.register_buffer("kept", torch.rand(3, 4))

        def forward(self, x: Tensor) -> Any:
            return DATA[name](self, x)

    model, x = Model(), torch.rand(3, 4)
    program = onnxport.export(copy.deepcopy(model), (x.clone(),))
    outputs = dict(zip([o.name for o in program.model.graph.outputs], program.run((x.clone(),)), strict=True))
    expect_equal(program(x.clone())[0], model(x))
    for kept in ("weight", "kept"):
        if f"{kept}_out" in outputs:
            expect_equal(outputs[f"{kept}_out"], getattr(model, kept).detach())


DYNAMIC: Mapping[str, Callable[[Tensor], Any]] = {
    "windows with gaps": lambda y: y.unfold(1, 2, 3).mul_(2),
    "windows side by side": lambda y: y.unfold(1, 2, 2).mul_(2),
    "one element of each window": lambda y: y.unfold(1, 2, 3)[..., 0].add_(1),
    "windows of two axes": lambda y: y.unfold(0, 1, 2).unfold(1, 2, 3).mul_(3),
}


@pytest.mark.parametrize("name", DYNAMIC)
def test_windows_of_a_dynamic_length(name: str) -> None:
    def written(x: Tensor) -> Tensor:
        y = x.clone()
        DYNAMIC[name](y)
        return y

    program = export_and_compare(written, (torch.randn(5, 9),), dynamic_shapes=({0: "n", 1: "t"},))
    for shape in ((3, 11), (1, 7), (4, 12), (2, 13), (6, 2)):
        x = torch.randn(shape)
        expect_equal(program(x)[0], written(x))
