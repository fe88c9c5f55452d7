"""What a third party teaches the builder: results of its operators, functions of sizes, the text of dimensions."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from onnxport import DataType, Translation, hookimpl
from onnxport.kit import (
    Explanation,
    FunctionWriter,
    Inference,
    Inferred,
    MistakeError,
    NodeCheck,
    SizeFunction,
    SizeText,
    Widening,
)
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


class OnlyRecords:
    def __init__(self, *records: Any) -> None:
        self.records = records

    @hookimpl
    def onnxport_emission(self) -> tuple[Any, ...]:
        return self.records


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


def test_an_operator_between_casts_to_a_wider_type() -> None:
    def types(name: str, version: int, domain: str) -> dict[tuple[str, DataType], DataType]:
        return {("T", DataType.FLOAT): DataType.DOUBLE} if (name, domain) == ("Sin", "") and version >= 7 else {}

    model = FunctionModule(lambda x: torch.sin(x) + torch.tanh(x))
    program = onnxport.export(model, (X,), plugins=[OnlyRecords(Widening(types))])
    by_output = {node.outputs[0]: node for node in program.model.graph}
    (sine,) = (node for node in program.model.graph if node.op_type == "Sin")
    assert sine.inputs[0].dtype == DataType.DOUBLE and by_output[sine.inputs[0]].op_type == "Cast"
    (other,) = (node for node in program.model.graph if node.op_type == "Tanh")
    assert other.inputs[0].dtype == DataType.FLOAT
    torch.testing.assert_close(program(X)[0], model(X))


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


def doubled(op: Any, self: Any) -> Any:
    return op.Add(self, self)


def test_a_check_of_nodes_sees_what_a_third_party_emits() -> None:
    seen: list[list[str]] = []

    def make(op: Any) -> Any:
        def check(nodes: Any, results: Any) -> dict[int, Inferred]:
            seen.append([node.op_type for node in nodes])
            return {}

        return check

    table = {torch.ops.aten.tanh.default: doubled}
    model = FunctionModule(lambda x: torch.tanh(x.relu()))
    onnxport.export(model, (X,), custom_translation_table=table, plugins=[Pack(NodeCheck(make))])
    assert seen == [["Add"]]  # none of the built-in translation of relu


def test_what_checks_of_nodes_say_is_told() -> None:
    def refuse(op: Any) -> Any:
        def check(nodes: Any, results: Any) -> dict[int, Inferred]:
            raise MistakeError("emitted an Add, which my runtime lacks")

        return check

    def infer(op: Any) -> Any:
        return lambda nodes, results: {id(results[0]): Inferred(1, (7, 3))}

    table = {torch.ops.aten.tanh.default: doubled}
    model = FunctionModule(torch.tanh)
    for make, said in (
        (refuse, "doubled.* emitted an Add, which my runtime lacks"),
        (infer, r"returned shape \[7,3\]"),
    ):
        with pytest.raises(onnxport.TranslationError, match=said) as caught:
            onnxport.export(model, (X,), custom_translation_table=table, plugins=[Pack(NodeCheck(make))])
        assert "raised at" not in str(caught.value)


def test_an_exception_that_a_plugin_explains() -> None:
    def broken(op: Any, self: Any) -> Any:
        raise KeyError("no_such_table")

    def explain(error: Exception, nodes: Any) -> str | None:
        return f"looks for {error.args[0]}: install it" if isinstance(error, KeyError) else None

    table = {torch.ops.aten.tanh.default: broken}
    for plugins, said in (((), "raised KeyError"), ([Pack(Explanation(explain))], "looks for no_such_table: install")):
        with pytest.raises(onnxport.TranslationError, match=said) as caught:
            onnxport.export(FunctionModule(torch.tanh), (X,), custom_translation_table=table, plugins=plugins)
        assert "raised at: " in str(caught.value)
        assert 'raise KeyError("no_such_table")' in str(caught.value)


def test_the_line_of_a_body_of_a_function_is_told() -> None:
    def broken(op: Any, self: Any) -> Any:
        return op.function("my.domain", "Broken", lambda x: x.missing, self)

    table = {torch.ops.aten.tanh.default: broken}
    with pytest.raises(onnxport.TranslationError) as caught:
        onnxport.export(FunctionModule(torch.tanh), (X,), custom_translation_table=table)
    assert "lambda x: x.missing" in str(caught.value).partition("raised at: ")[2].partition("\n")[0]

    def outer(op: Any, self: Any) -> Any:
        other = op.Neg(self)
        return op.function("my.domain", "Outer", lambda x: op.Add(x, other), self)  # which sees other

    with pytest.raises(onnxport.TranslationError, match="which is no argument of it") as caught:
        onnxport.export(FunctionModule(torch.tanh), (X,), custom_translation_table={torch.ops.aten.tanh.default: outer})
    assert "# which sees other" in str(caught.value).partition("raised at: ")[2].partition("\n")[0]
