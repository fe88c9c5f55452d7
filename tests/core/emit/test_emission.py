"""What a third party teaches the builder: results of its operators, functions of sizes, the text of dimensions."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from onnxport import DataType, Translation, hookimpl
from onnxport.kit import FunctionWriter, Inference, SizeFunction, SizeText
from support import FunctionModule

X = torch.randn(4, 3)


class Pack:
    """Records, and a translation of tanh that notes what is known of the nodes that it emits."""

    def __init__(self, *records: Any) -> None:
        self.records = records
        self.told: list[Any] = []

    @hookimpl
    def onnxport_emission(self) -> tuple[Any, ...]:
        return self.records

    @hookimpl
    def onnxport_translations(self) -> list[Translation]:
        def tanh(op: Any, self: Any) -> Any:
            found = op.call("my.domain", "Halves", self, outputs=2, parts=2)
            told = [(each.dtype, None if each.shape is None else [*map(str, each.shape)]) for each in found]
            pack.told.append(told)
            return op.Tanh(self)

        pack = self
        return [Translation("aten::tanh", tanh)]


def export(pack: Pack, function: Any = torch.tanh) -> onnxport.ONNXProgram:
    return onnxport.export(FunctionModule(function), (X,), plugins=[pack], dynamic_shapes=(({0: "n"},),))


def test_results_of_an_operator_of_another_domain() -> None:
    def dims(inputs: Any, attributes: Any) -> Any:
        return [*inputs[0].shape, attributes["parts"]]

    def dtypes(_attributes: Any, count: int, _inputs: Any) -> list[DataType]:
        return [DataType.FLOAT16, DataType.INT64][:count]

    unknown, known = Pack(), Pack(Inference("Halves", dims, dtypes, "my.domain"))
    export(unknown)
    export(known)
    assert unknown.told == [[(DataType.FLOAT, None), (DataType.FLOAT, None)]]
    assert known.told == [[(DataType.FLOAT16, ["n", "3", "2"]), (DataType.INT64, None)]]


def test_a_record_of_another_domain_is_not_for_an_operator_of_onnx() -> None:
    wrong = Inference("Tanh", lambda inputs, attributes: [1], domain="my.domain")
    program = export(Pack(wrong))
    torch.testing.assert_close(program(X)[0], X.tanh())


def test_a_function_of_sizes() -> None:
    used: list[Any] = []

    def floor_div(op: Any, a: Any, b: Any) -> Any:
        used.append((str(b), op.opset))
        return op.Div(op.symbols.vector(a), op.symbols.vector(b))

    def halved(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(x.shape[0] // 2, 2) + 1

    program = export(Pack(SizeFunction("FloorDiv", floor_div)), halved)
    assert used == [("2", 20)]
    for n in (4, 9):
        assert program(torch.zeros(n, 3))[0].shape == (n // 2, 2)


def test_the_text_of_dimensions() -> None:
    def write(expr: Any, names: Any, _divisible: Any) -> str:
        return f"<{'+'.join(sorted(names[symbol] for symbol in expr.free_symbols))}>"

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])

    program = export(Pack(SizeText(write)), doubled)
    assert [str(dim) for dim in program.model.graph.outputs[0].shape] == ["<n>", "3"]
    assert [str(dim) for dim in program.model.graph.inputs[0].shape] == ["n", "3"]


class Inline:
    """Writes no functions: the body's nodes stand where it is called."""

    def __init__(self, op: Any) -> None:
        self.op = op

    def function(self, domain: str, name: str, body: Any, inputs: Any, key: Any, attributes: Any) -> Any:
        return body(*inputs, **attributes)


def scaled(op: Any, self: Any) -> Any:
    return op.function("my.domain", "Scaled", lambda x, alpha: op.LeakyRelu(x, alpha=alpha), self, alpha=0.25)


def test_another_way_to_write_functions() -> None:
    table = {torch.ops.aten.tanh.default: scaled}
    model, wanted = FunctionModule(torch.tanh), torch.nn.functional.leaky_relu(X, 0.25)
    for plugins, names in (((), ["Scaled"]), ([Pack(FunctionWriter(Inline))], [])):
        program = onnxport.export(model, (X,), custom_translation_table=table, plugins=plugins)
        assert [function.name for function in program.model.functions.values()] == names
        torch.testing.assert_close(program(X)[0], wanted)


def test_functions_without_a_plugin_that_writes_them() -> None:
    with pytest.raises(onnxport.Unsupported, match="no plugin writes functions: install one"):
        scaled(onnxport.Builder(20), None)


def test_a_function_that_no_plugin_knows_is_named() -> None:
    op = onnxport.Builder(20)
    sympy = pytest.importorskip("sympy")
    n = sympy.Symbol("n", integer=True)
    with pytest.raises(onnxport.Unsupported, match=r"no ONNX form for the symbolic size n \+ 1 \(Add\)"):
        op.symbols.vector(n + 1)
    assert str(op.symbols.size(n + 1)) == "n + 1"
