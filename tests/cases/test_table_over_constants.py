"""What a table or a pack translates is asked for, over constants, sizes and regions too: nothing acts before."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Translation, Unsupported, hookimpl
from pack_support import Unary
from support import expect_equal, flat_tensors, op_types

aten = torch.ops.aten
X = torch.randn(2, 3)


class Constants(torch.nn.Module):
    """Forward gets buffers behind its argument."""

    def __init__(self, function: Callable[..., Any], *buffers: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        self.names = [f"buffer_{i}" for i in range(len(buffers))]
        for name, buffer in zip(self.names, buffers):
            self.register_buffer(name, buffer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, *(getattr(self, name) for name in self.names))


class Asked:
    """Functions for a table that note the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def asked(op: onnxport.Builder, *args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            return function(op, *args, **kwargs)

        return asked


def export(
    model: Any, table: dict[Any, Any], args: tuple[Any, ...] = (X,), *, pack: bool = False, **options: Any
) -> Any:
    """An export by a table, or by a pack with the same functions; compared with eager."""
    if pack:

        class Pack:
            @hookimpl
            def onnxport_translations(self):
                return [Translation(target, function) for target, function in table.items()]

        options["plugins"] = [Pack()]
    else:
        options["custom_translation_table"] = table
    program = onnxport.export(model, args, **options)
    eager = model.module() if isinstance(model, torch.export.ExportedProgram) else model
    for got, want in zip(program(*args), flat_tensors(eager(*args)), strict=True):
        expect_equal(got, want)
    return program


def add(op, self, other, alpha=1):
    return op.Add(self, other)


def mul(op, self, other):
    return op.Mul(self, other)


@pytest.mark.parametrize("pack", [False, True], ids=["table", "pack"])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize(
    ("target", "function", "model"),
    [
        (aten.add.Tensor, add, Constants(lambda x, a, b: x * (a + b), torch.ones(3), torch.arange(3.0))),
        (aten.add.Tensor, add, Unary(lambda x: x * (torch.arange(3.0) + torch.ones(3)))),
        (
            aten.mul.Tensor,
            mul,
            Constants(lambda x, a, b: x + torch.sin(torch.cos(a) * b), torch.ones(3), torch.ones(3)),
        ),
        (aten.add.Tensor, add, Constants(lambda x, a: x * (a + 2), torch.ones(3))),
        (aten.arange.default, lambda op, **_: op.const([0.0, 1.0, 2.0]), Unary(lambda x: x * torch.arange(3.0))),
        (aten.zeros_like.default, lambda op, self, **_: op.Sub(self, self), Unary(lambda x: x + torch.zeros_like(x))),
        (aten.ones_like.default, lambda op, self, **_: op.Div(self, self), Unary(lambda x: x + torch.ones_like(x))),
        (aten.full.default, lambda op, **_: op.const([2.0, 2.0, 2.0]), Unary(lambda x: x + torch.full((3,), 2.0))),
        (
            aten.split.Tensor,
            lambda op, self, split_size, dim: list(op.Split(self, num_outputs=2, axis=dim, outputs=2)),
            Constants(lambda x, a: x + torch.split(a, 3)[0] * torch.split(a, 3)[1], torch.arange(6.0)),
        ),
        (
            aten.topk.default,
            lambda op, self, k, **_: list(op.TopK(self, [k], outputs=2)),
            Constants(lambda x, a: x + a.topk(3).values, torch.arange(5.0)),
        ),
        (
            aten.linear.default,
            None,
            Constants(lambda x, a, b: x + torch.nn.functional.linear(a, b), X, torch.ones(3, 3)),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, torch._ops.OpOverload) else "",
)
def test_operators_over_constants(target: Any, function: Any, model: Any, optimize: bool, pack: bool) -> None:
    def linear(op, input, weight, bias=None):
        return op.MatMul(input, op.Transpose(weight, perm=[1, 0]))

    asked = Asked()
    export(model, {target: asked.of("it", function or linear)}, pack=pack, optimize=optimize)
    assert asked.calls


def test_what_it_reads_and_what_nobody_names_is_computed_all_the_same() -> None:
    asked = Asked()
    model = Constants(lambda x, a, b: x * ((a.sin() + b.cos()) * 2).exp(), torch.ones(3), torch.arange(3.0))

    def add_with_neg(op, self, other, alpha=1):
        return op.call("", "Sub", self, op.Neg(other))

    program = export(model, {aten.add.Tensor: asked.of("add", add_with_neg)})
    types = op_types(program)
    assert "Sin" not in types and "Cos" not in types
    folded = export(model, {aten.neg.default: asked.of("neg", lambda op, self: self)})
    assert op_types(folded) == ["Mul"] and asked.calls == ["add"]


def test_views_and_items_of_constants() -> None:
    asked = Asked()

    def getitem(op, values, index):
        return values[index]

    model = Constants(lambda x, a: x + torch.unbind(a)[0] * torch.unbind(a)[1], torch.randn(2, 3))
    export(model, {operator.getitem: asked.of("item", getitem)})
    assert asked.calls.count("item") >= 2

    def refuses(op, values, index):
        raise Unsupported("not this one")

    assert export(model, {operator.getitem: refuses}), "an item is taken as always"

    def select(op, self, dim, index):
        return op.Gather(self, op.const(index), axis=dim)

    export(Constants(lambda x, a: x + a[1], torch.randn(2, 3)), {aten.select.int: asked.of("select", select)})
    assert asked.calls[-1] == "select"


def test_steps_of_a_decomposition_over_constants() -> None:
    asked = Asked()
    buffers = torch.rand(3), torch.rand(2, 4), torch.rand(4, 3)
    model = Constants(lambda x, a, b, c: x + aten._addmm_activation(a, b, c), *buffers)

    def mm(op, self, mat2):
        return op.MatMul(self, mat2)

    assert "aten::_addmm_activation" not in onnxport.check(model, (X,)).operators, "no translation takes it whole"
    export(model, {aten.mm.default: asked.of("mm", mm)})
    assert asked.calls == ["mm"]
    program = export(model, {aten.neg.default: asked.of("neg", lambda op, self: op.Neg(self))})
    assert op_types(program) == ["Add"] and asked.calls == ["mm"]


def test_a_resolver_is_a_third_party() -> None:
    class Resolves:
        @hookimpl
        def onnxport_resolve(self, target):
            if target is not aten._addmm_activation.default:
                return None
            return [Translation(target, lambda op, self, mat1, mat2, **_: op.Relu(op.Gemm(mat1, mat2, self)))]

    model = Constants(
        lambda x, *abc: x + aten._addmm_activation(*abc), torch.rand(3), torch.rand(2, 4), torch.rand(4, 3)
    )
    program = onnxport.export(model, (X,), plugins=[Resolves()])
    assert op_types(program)[:2] == ["Gemm", "Relu"]
    assert op_types(onnxport.export(model, (X,))) == ["Add"]


def test_numbers_made_of_sizes() -> None:
    asked = Asked()

    def size(op, self, dim):
        return op.Squeeze(op.Shape(self, start=dim, end=dim + 1))

    def product(op, a, b):
        return op.Mul(op.tensor(a), op.tensor(b))

    model = Unary(lambda x: torch.zeros(x.shape[0] * 2, 4) + x.shape[0] * 2)
    table = {aten.sym_size.int: asked.of("size", size), operator.mul: asked.of("product", product)}
    program = export(model, table, dynamic_shapes=({0: "n"},))
    assert {"size", "product"} <= set(asked.calls)
    assert op_types(program).count("Mul") == 1, "the product is read from where the function has computed it"
    (got,) = program(torch.zeros(5, 3))
    expect_equal(got, model(torch.zeros(5, 3)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda op, a, b: op.Cast(op.tensor(a), to=1), "returned FLOAT, INT64 was expected"),
        (lambda op, a, b: op.const([1, 2]), "a number was expected"),
        (lambda op, a, b: "4", "a number was expected"),
        (lambda op, a, b: None, "a number was expected"),
        (lambda op, a, b: [4], "a number was expected"),
    ],
)
def test_numbers_that_are_none(wrong: Any, words: str) -> None:
    model = Unary(lambda x: torch.zeros(x.shape[0] * 2, 4))
    with pytest.raises(onnxport.TranslationError, match=words):
        onnxport.export(model, (X,), dynamic_shapes=({0: "n"},), custom_translation_table={operator.mul: wrong})


class Region(torch.nn.Module):
    def __init__(self, writes: str = "") -> None:
        super().__init__()
        self.writes = writes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        if self.writes == "before":
            y[0] = 1.0
        with torch.no_grad():
            y = y.sin()
            if self.writes == "inside":
                y[0] = 2.0
        return y + 1


@pytest.mark.parametrize("writes", ["", "before", "inside"])
def test_regions(writes: str) -> None:
    asked = Asked()

    def region(op, enabled, body, *values):
        return op.inline(body, *values)

    program = torch.export.export(Region(writes), (X,))
    table = {torch.ops.higher_order.wrap_with_set_grad_enabled: asked.of("region", region)}
    export(program, table)
    assert asked.calls == ["region"]
    export(program, {aten.sin.default: asked.of("sin", lambda op, self: op.Sin(self))})
    assert asked.calls[-1] == "sin", "inside of a region, too"


def test_a_preferred_built_in_lets_constants_be_computed() -> None:
    class Pack:
        @hookimpl
        def onnxport_translations(self):
            return [Translation("aten::add.Tensor", add)]

    model = Constants(lambda x, a, b: x * (a + b), torch.ones(3), torch.arange(3.0))
    assert op_types(onnxport.export(model, (X,), plugins=[Pack()], optimize=True)) != []
    program = onnxport.export(model, (X,), plugins=[Pack()], prefer={"aten::add.Tensor": "builtin"})
    assert op_types(program) == ["Mul"]
