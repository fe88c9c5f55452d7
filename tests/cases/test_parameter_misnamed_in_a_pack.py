"""A pack's mistake is told with the function, its line and what to do; another translation never takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from onnxport import hookimpl, translation
from pack_support import Pack, Unary, X, said

GELU = torch.nn.GELU("tanh")


def plain(op, self, *, approximate="none"):
    return op.call("com.microsoft", "Gelu", self)


def misnamed(op, x, approximate):
    return op.Gelu(x)


def misnamed_keyword(op, self, *, aproximate="none"):
    return op.Gelu(self, approximate=aproximate)


def misnamed_required_keyword(op, self, *, mode):
    return op.Gelu(self, approximate=mode)


def extra(op, self, approximate, beta):
    return op.Gelu(self)


def none_but_the_builder(op):
    return op.const(1.0)


def positional_only(op, self, /, approximate="none"):
    return op.Gelu(self)


def no_builder(*, self, approximate="none"):
    return self


PARAMETERS = {
    misnamed: "parameter 'x', which the schema lacks, and has no parameter for 'self'",
    misnamed_keyword: "'aproximate'",
    misnamed_required_keyword: "'mode'",
    extra: "'beta'",
    none_but_the_builder: "no parameter for 'self'",
    positional_only: "positional-only",
    no_builder: "first parameter must be op",
}


@pytest.mark.parametrize("function", PARAMETERS, ids=lambda function: function.__name__)
def test_parameters(function: Callable[..., Any]) -> None:
    with pytest.raises(onnxport.TranslationError) as raised:
        onnxport.export(GELU, (X,), plugins=[Pack(translation("aten::gelu")(function))])
    text = str(raised.value)
    assert function.__name__ in text and "aten::gelu" in text and PARAMETERS[function] in text
    assert "function: " in text and "test_parameter_misnamed_in_a_pack.py:" in text
    assert "mistake of the plugin 'Pack'" in text


@pytest.mark.parametrize(
    "function", [f for f in PARAMETERS if f is not no_builder], ids=lambda function: function.__name__
)
def test_parameters_of_a_table(function: Callable[..., Any]) -> None:
    with pytest.raises(onnxport.OnnxExporterError) as raised:
        onnxport.export(GELU, (X,), custom_translation_table={torch.ops.aten.gelu.default: function})
    assert function.__name__ in str(raised.value) and "gelu" in str(raised.value)


NODES = [
    (lambda op, x: op.Softmax(x, axs=1), "Softmax of opset 13 has no attribute 'axs': did you mean 'axis'?"),
    (lambda op, x: op.Softmax(x, dimension=1), "no attribute 'dimension': it has axis, and its inputs are given by"),
    (lambda op, x: op.Softmax(input=x, axis=1), "no attribute 'input': it has axis, and its inputs are given by"),
    (lambda op, x: op.Softmax(x, axis=1, _version=13), "no attribute '_version': it is written at the target opset"),
    (lambda op, x: op.Softmax(x, axis=1, _domain=""), "op.call takes other domains"),
    (lambda op, x: op.Relu(x, alpha=1), "no attribute 'alpha': it has none"),
    (lambda op, x: op.ReduceSum(x, axes=[1]), "ReduceSum of opset 13 has no attribute 'axes'"),
    (lambda op, x: op.call("", "Softmax", x, axs=1), "did you mean 'axis'?"),
    (lambda op, x: op.call("ai.onnx.ml", "Scaler", x, ofset=[0.0]), "no attribute 'ofset': did you mean 'offset'?"),
    (lambda op, x: op.Sofmax(x), "ONNX has no operator 'Sofmax'; did you mean 'Softmax'?"),
    (lambda op, x: op.FastGelu(x), "ONNX has no operator 'FastGelu'"),
    (lambda op, x: op.call("", "Sofmax", x), "ONNX has no operator 'Sofmax'"),
    (lambda op, x: op.Upsample(x), "opset 20 has no operator 'Upsample' any more"),
    (lambda op, x: op.softmax(x), "ONNX operators start with a capital"),
    (lambda op, x: op.Softmax(x, x), "at most 1 inputs, 2 were given"),
    (lambda op, x: op.Add(x), "needs 2 inputs, 1 were given"),
    (lambda op, x: op.Add(None, x), "emitted a node that can't be: Add"),
    (lambda op, x: op.Softmax(x, outputs=2)[0], "emitted a node that can't be: Softmax"),
]


@pytest.mark.parametrize(("emit", "words"), NODES, ids=[words for _, words in NODES])
def test_nodes(emit: Callable[[Any, Any], Any], words: str) -> None:
    @translation("aten::softmax.int")
    def mine(op, self, dim, dtype=None):
        return emit(op, self)

    with pytest.raises(onnxport.TranslationError) as raised:
        onnxport.export(torch.nn.Softmax(1), (X,), plugins=[Pack(mine)])
    text = str(raised.value)
    assert words in text and "test_parameter_misnamed_in_a_pack.py:" in text and "plugin 'Pack'" in text


def test_what_is_right_says_nothing() -> None:
    with said() as heard:
        program = onnxport.export(torch.nn.GELU(), (X,), plugins=[Pack(translation("aten::gelu")(plain))])
    assert [node.op_type for node in program.model.graph] == ["Gelu"] and not heard


def heard_of(model: torch.nn.Module, plugin: Any) -> list[str]:
    with said() as heard:
        onnxport.export(model, (X,), plugins=[plugin])
    return heard


def pack(*priorities: int) -> Pack:
    """A pack with translations that lack a parameter, and at last one that lacks none."""
    functions = []
    for priority in priorities:

        @translation("aten::gelu", priority=priority)
        def without_approximate(op, self):
            return op.Relu(self)

        functions.append(without_approximate)
    return Pack(*functions)


def test_a_missing_parameter_is_told_where_another_translation_serves() -> None:
    """A translation may lack a parameter that newer torch versions add, but not in silence."""
    (text,) = heard_of(torch.nn.Sequential(GELU, GELU), pack(0))
    assert "without_approximate (plugin Pack) of aten::gelu was passed over" in text
    assert "doesn't know the argument approximate='tanh': add such a parameter" in text
    assert "activation.gelu (plugin builtin) took its place" in text
    assert not heard_of(torch.nn.GELU(), pack(0))  # at its default, the argument isn't missed


def test_a_missing_parameter_is_told_where_the_decomposition_serves() -> None:
    with torch.library._scoped_library("test_missing", "DEF") as library:
        library.define("twice(Tensor self, float by=2.0) -> Tensor")
        library.impl("twice", lambda self, by=2.0: self * by, "CompositeExplicitAutograd")
        library.impl("twice", lambda self, by=2.0: torch.empty_like(self), "Meta")
        operator = torch.ops.test_missing.twice

        class Both(Pack):
            @hookimpl
            def onnxport_decompositions(self) -> dict[Any, Any]:
                return {operator.default: lambda self, by=2.0: self * by}

        plugin = Both(translation("test_missing::twice")(lambda op, self: op.Add(self, self)))
        (text,) = heard_of(Unary(lambda x: operator(x, 3.0)), plugin)
        assert "Its decomposition took its place" in text and "by=3.0" in text
        assert not heard_of(Unary(operator), plugin)


def test_another_translation_of_the_pack_is_its_authors_choice() -> None:
    general = translation("aten::gelu", priority=-1)(lambda op, self, approximate: op.Tanh(self))
    both = Pack(*pack(0)._functions, general)
    assert not heard_of(GELU, both)


def test_what_a_pack_refuses_on_purpose_is_not_told() -> None:
    @translation("aten::gelu")
    def refuses(op, self, approximate="none"):
        raise onnxport.Unsupported("tanh")

    assert not heard_of(GELU, Pack(refuses))
