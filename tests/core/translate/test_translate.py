"""The walk: rollback, decomposition, refusals, checks of results, names, ties."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from support import export_and_compare, op_types, run_model
from torch import nn

_RELU = torch.ops.aten.relu.default
X = torch.randn(2, 3)


@torch.library.custom_op("walk::unserved", mutates_args=())
def unserved(x: torch.Tensor) -> torch.Tensor:
    return x * 2


unserved.register_fake(lambda x: torch.empty_like(x))


def _export(function: Any, *args: Any, **options: Any) -> onnxport.ONNXProgram:
    class Module(nn.Module):
        def forward(self, *inputs: torch.Tensor) -> Any:
            return function(*inputs)

    return onnxport.export(Module().eval(), args or (X,), **options)


def test_every_refusal_is_in_one_error() -> None:
    def model(x: torch.Tensor) -> Any:
        return torch.ops.walk.unserved(x), torch.geqrf(x)[0], torch.ops.walk.unserved(x + 1)

    with pytest.raises(onnxport.UnsupportedOperatorsError) as caught:
        _export(model, plugins=())
    refusals = {r.target: r for r in caught.value.refusals}
    assert "walk::unserved" in refusals
    assert refusals["walk::unserved"].count == 2
    assert "test_translate.py" in refusals["walk::unserved"].source
    assert refusals["walk::unserved"].reasons


def test_check_finds_the_same_refusals() -> None:
    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.ops.walk.unserved(x), x.relu()

    found = onnxport.check(Module(), (X,))
    assert [r.target for r in found.refusals] == ["walk::unserved"]
    assert not found.passed
    assert found.operators["aten::relu"] == 1
    assert '"passed": false' in found.to_json()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda op, x: (x, x), "returned tuple, a tensor was expected"),
        (lambda op, x: op.Cast(x, to=torch.int64), "returned INT64, FLOAT was expected"),
        (lambda op, x: op.Reshape(x, [-1]), r"returned shape \[6\]"),
        (lambda op, x: op.Unsqueeze(x, [0]), "returned shape"),
        (lambda op, x: None, "returned None for a result that is used"),
        (lambda op, x: "text", "returned str"),
    ],
)
def test_a_translation_that_lies_is_named(result: Any, message: str) -> None:
    def liar(op: Any, self: Any) -> Any:
        return result(op, self)

    with pytest.raises(onnxport.TranslationError, match=message) as caught:
        _export(torch.relu, custom_translation_table={_RELU: liar})
    assert "liar (plugin custom_translation_table) of aten::relu" in str(caught.value)


def test_an_exception_in_a_translation_is_the_cause() -> None:
    def broken(op: Any, self: Any) -> Any:
        raise ZeroDivisionError("oh")

    with pytest.raises(onnxport.TranslationError, match="raised ZeroDivisionError: oh") as caught:
        _export(torch.relu, custom_translation_table={_RELU: broken})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_op_without_translation_is_decomposed() -> None:
    program = export_and_compare(
        lambda x: torch.ops.aten.rsub.Scalar(x, 2.0, 3.0) + torch.ops.aten._fused_rms_norm(x, [3], None, 1e-5)[0],
        (X,),
        dynamic_shapes=(({0: "batch"},),),
        other_args=(torch.randn(5, 3),),
    )
    assert op_types(program)


def test_an_output_that_is_an_input_or_twice_there_gets_an_identity() -> None:
    program = _export(lambda x: (x, x + 1, x, x * 2), output_names=["a", "b", "c", "d"])
    assert [o.name for o in program.model.graph.outputs] == ["a", "b", "c", "d"]
    shared = _export(lambda x: [y := x + 1, y])
    results = run_model(shared, (X,))
    torch.testing.assert_close(results[0], results[1])


def test_names_asked_for_win_over_names_of_operators_and_weights() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean() + self.mean

    program = onnxport.export(Module(), (X,), input_names=["add"], output_names=["x"])
    assert [v.name for v in program.model.graph.inputs] == ["add"]
    assert [v.name for v in program.model.graph.outputs] == ["x"]
    torch.testing.assert_close(run_model(program, (X,))[0], X.mean() + torch.ones(3))


def test_tied_weights_are_one_initializer() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(ids))

    program = export_and_compare(Tied(), (torch.tensor([[1, 2]]),))
    assert list(program.model.graph.initializers) == ["embedding.weight"]


def test_nodes_say_where_they_come_from() -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    properties = next(iter(onnxport.export(Outer(), (X,)).model.graph)).metadata_props
    assert "inner" in properties["namespace"]
    assert "aten.relu.default" in properties["pkg.torch.onnx.class_hierarchy"]
    assert "return x.relu()" in properties["pkg.torch.onnx.stack_trace"]
    assert 'File "/' not in properties["pkg.torch.onnx.stack_trace"]
    assert properties["onnxport.plugin"] == "builtin"
    bare = next(iter(onnxport.export(Outer(), (X,), metadata="none").model.graph))
    assert not bare.metadata_props


@pytest.mark.parametrize("mutation", ["outputs", "error", "drop"])
def test_mutations_are_never_dropped_in_silence(mutation: str) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x + self.count

    if mutation == "error":
        with pytest.raises(onnxport.MutationError, match="count"):
            onnxport.export(Counter(), (X,), mutation=mutation)
    elif mutation == "drop":
        with pytest.warns(UserWarning, match="count"):
            program = onnxport.export(Counter(), (X,), mutation=mutation)
        assert len(program.model.graph.outputs) == 1
    else:
        program = onnxport.export(Counter(), (X,), mutation=mutation)
        assert [o.name for o in program.model.graph.outputs][1] == "count_out"
        assert len(run_model(program, (X,))) == 1


def test_a_translation_of_the_table_may_wrap_the_built_in_one() -> None:
    def louder(op, self, *, approximate="none"):
        return op.Mul(op.translate("aten::gelu", self, approximate=approximate), 2.0)

    x = torch.randn(3)
    table = {torch.ops.aten.gelu.default: louder}
    program = onnxport.export(torch.nn.GELU().eval(), (x,), custom_translation_table=table)
    torch.testing.assert_close(program(x)[0], 2 * torch.nn.functional.gelu(x))
