"""Records of what operators do, for operators of a third party, against eager torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Translation, hookimpl
from onnxport.kit import Assertion, Fill, Folding, Semantics, Ties, View, Write
from support import FunctionModule

X = torch.arange(12.0).reshape(4, 3)


@pytest.fixture(scope="module")
def ops() -> Iterator[Any]:
    """A view, its pure inverse, a write, its pure twin, a check, and a fill, all opaque to torch."""
    library = torch.library.Library("onnxport_meaning", "FRAGMENT")
    library.define("head(Tensor(a) x) -> Tensor(a)")
    library.impl("head", lambda x: x[:2], "CompositeExplicitAutograd")
    library.define("head_scatter(Tensor x, Tensor value) -> Tensor")
    library.impl("head_scatter", lambda x, value: torch.cat([value, x[2:]]), "CompositeExplicitAutograd")
    library.define("push_(Tensor(a!) x, Tensor y) -> Tensor(a!)")
    library.impl("push_", lambda x, y: x.copy_(x * 2 + y), "CompositeExplicitAutograd")
    library.define("pushed(Tensor x, Tensor y) -> Tensor")
    library.impl("pushed", lambda x, y: x * 2 + y, "CompositeExplicitAutograd")
    library.define("check(Tensor x) -> Tensor")
    library.impl("check", lambda x: x.new_zeros([]), "CompositeExplicitAutograd")
    library.define("sevens(Tensor x) -> Tensor")
    library.impl("sevens", lambda x: torch.full_like(x, 7), "CompositeExplicitAutograd")
    yield torch.ops.onnxport_meaning
    library._destroy()


def head(op: Any, x: Any) -> Any:
    return op.Slice(x, [0], [2])


def head_scatter(op: Any, x: Any, value: Any) -> Any:
    return op.Concat(value, op.Slice(x, [2], [2**31]), axis=0)


def pushed(op: Any, x: Any, y: Any) -> Any:
    return op.Add(op.Mul(x, op.CastLike(2.0, x)), y)


class Pack:
    def __init__(self, *records: Any) -> None:
        self.records = records

    @hookimpl
    def onnxport_translations(self) -> list[Translation]:
        functions = {"head": head, "head_scatter": head_scatter, "pushed": pushed}
        return [Translation(f"onnxport_meaning::{name}", function) for name, function in functions.items()]

    @hookimpl
    def onnxport_semantics(self) -> tuple[Any, ...]:
        return self.records


def compared(function: Any, *records: Any) -> onnxport.ONNXProgram:
    model = FunctionModule(function)
    program = onnxport.export(model, (X.clone(),), plugins=[Pack(*records)], dynamic_shapes=(({0: "n"},),))
    for x in (X, torch.randn(7, 3)):
        torch.testing.assert_close(program(x.clone())[0], model(x.clone()))
    return program


def test_a_view_is_written_through_by_its_inverse(ops: Any) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        ops.head(y).mul_(10)
        return y

    compared(forward)  # by the places of the view's elements
    program = compared(forward, View("onnxport_meaning::head", inverse="onnxport_meaning::head_scatter"))
    assert "Concat" in {node.op_type for node in program.model.graph}


def test_a_view_whose_inverse_torch_does_not_have(ops: Any) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        ops.head(y).mul_(10)
        return y

    with pytest.raises(onnxport.PluginError, match="names onnxport_meaning::nothing, and torch has no such operator"):
        onnxport.export(
            FunctionModule(forward), (X,), plugins=[Pack(View("onnxport_meaning::head", "onnxport_meaning::nothing"))]
        )


def test_a_view_by_a_function_that_emits_nodes(ops: Any) -> None:
    def inverse(emit: Any, step: Any, parent: Any, val: Any, value: Any) -> Any:
        return emit(ops.head_scatter.default, (parent, value), val)

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        ops.head(y).zero_()
        return y * 2

    compared(forward, View("onnxport_meaning::head", inverse=inverse))


def test_a_write_is_computed_by_the_operator_that_a_record_names(ops: Any) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x * 3
        part = y[1:]
        ops.push_(part, x[1:])
        return y + part.sum()

    program = compared(forward, Write("onnxport_meaning::push_", "onnxport_meaning::pushed"))
    assert {node.op_type for node in program.model.graph} >= {"Mul", "Add"}


def test_a_write_by_a_function_that_stores_the_new_value(ops: Any) -> None:
    def write(rewriter: Any, node: Any) -> list[Any]:
        alias = rewriter.alias(node.args[0])
        args = (rewriter.current(alias), rewriter.read(node.args[1]))
        rewriter.store(alias, rewriter.emit(ops.pushed.default, args, alias.val))
        return [alias]

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x * 3
        return ops.push_(y, x) + y

    compared(forward, Write("onnxport_meaning::push_", write))


def test_a_check_is_left_out_and_told(ops: Any) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        found = ops.check(x)
        return x + 1 if found is not None else x

    program = compared(forward, Assertion("onnxport_meaning::check"))
    assert [node.op_type for node in program.model.graph] == ["Add"]


def test_a_fill_is_a_constant_of_a_static_shape(ops: Any) -> None:
    record = Fill("onnxport_meaning::sevens", lambda node: 7)
    model = FunctionModule(lambda x: x + ops.sevens(x))
    with pytest.raises(onnxport.UnsupportedOperatorsError):
        onnxport.export(model, (X,), plugins=[Pack(record)])  # nothing says that it may be computed now
    allowed = Folding("onnxport_meaning::sevens", when=lambda node: True)
    program = onnxport.export(model, (X,), plugins=[Pack(record, allowed)])
    torch.testing.assert_close(program(X)[0], X + 7)
    assert [node.op_type for node in program.model.graph] == ["Add"]


def test_what_a_third_party_says_goes_before_the_built_in_record() -> None:
    model = FunctionModule(lambda x: x + torch.ones_like(x))
    forced = onnxport.export(model, (X,), plugins=[Pack(Fill("aten::ones_like", lambda node: 2))])
    torch.testing.assert_close(forced(X)[0], X + 2)  # wrong, and so told apart
    torch.testing.assert_close(onnxport.export(model, (X,), plugins=[])(X)[0], X + 1)


def test_records_are_found_by_overload_then_by_operator() -> None:
    ties, one = Ties("aten::add"), Ties("aten::add.Tensor", is_itself=True)
    semantics = Semantics([ties, one, Ties("aten::relu.default"), Ties("higher_order::cond")])
    add, relu = torch.ops.aten.add, torch.ops.aten.relu
    assert semantics.of(Ties, add.Tensor) is one and semantics.of(Ties, add.Scalar) is ties
    assert semantics.of(Ties, relu.default) is not None and semantics.of(Ties, relu.out) is None
    assert semantics.of(Ties, torch.ops.higher_order.cond) is not None and semantics.of(View, add.Tensor) is None
    assert Semantics([Assertion(torch._check)]).of(Assertion, torch._check) is not None
