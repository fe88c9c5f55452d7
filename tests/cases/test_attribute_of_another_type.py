"""An attribute has the type that its operator says: nothing is rounded, and no text is read as a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
from onnxport import translation
from pack_support import Pack, X, said

SOFTMAX = torch.nn.Softmax(1)
Emit = Callable[[Any, Any], Any]


def pack(emit: Emit) -> Pack:
    @translation("aten::softmax.int")
    def mine(op, self, dim, dtype=None):
        return emit(op, self)

    return Pack(mine)


def attributes_of(emit: Emit, **options: Any) -> dict[str, Any]:
    """Those of the first node, whose translation has to be that of the pack."""
    program = onnxport.export(SOFTMAX, (X,), plugins=[pack(emit)], **options)
    node = program.model.graph[0]
    assert node.origin.plugin == "Pack"
    return {attribute.name: attribute.value for attribute in node.attributes.values()}


WRONG = [
    (lambda op, x: op.Softmax(x, axis=1.5), "'axis' of Softmax is 1.5, it must be an int"),
    (lambda op, x: op.Softmax(x, axis=1.0), "'axis' of Softmax is 1.0"),
    (lambda op, x: op.Softmax(x, axis="1"), "'axis' of Softmax is '1'"),
    (lambda op, x: op.Softmax(x, axis=[1]), r"'axis' of Softmax is \[1\]"),
    (lambda op, x: op.Softmax(x, axis=np.float32(1.5)), "an int of 64 bits"),
    (lambda op, x: op.Softmax(x, axis=torch.tensor(1.5)), "an int of 64 bits"),
    (lambda op, x: op.Softmax(x, axis=torch.tensor([1, 0])), "an int of 64 bits"),
    (lambda op, x: op.Softmax(x, axis=2**63), "an int of 64 bits"),
    (lambda op, x: op.Softmax(x, axis=1j), "an int of 64 bits"),
    (lambda op, x: op.Transpose(x, perm=[1.0, 0.0]), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm=[1, "0"]), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm=[1, None]), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm=[[1, 0]]), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm=np.array([1.0, 0.0])), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm=1), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm="10"), "a list of ints"),
    (lambda op, x: op.Transpose(x, perm={1, 0}), "a list of ints"),
    (lambda op, x: op.Elu(x, alpha="1.5"), "'alpha' of Elu is '1.5', it must be a float"),
    (lambda op, x: op.Elu(x, alpha=1e300), "a float of 32 bits"),
    (lambda op, x: op.Elu(x, alpha=1j), "a float of 32 bits"),
    (lambda op, x: op.Elu(x, alpha=[1.0]), "a float of 32 bits"),
    (lambda op, x: op.Gelu(x, approximate=1), "it must be a string"),
    (lambda op, x: op.Cast(x, to=1.5), "'to' of Cast is 1.5"),
    (lambda op, x: op.Cast(x, to="float"), "'to' of Cast is 'float'"),
    (lambda op, x: op.Cast(x, to=99), "99"),
    (lambda op, x: op.Constant(value=object()), "must be a constant"),
    (lambda op, x: op.Constant(value_floats=1.0), "a list of floats"),
    (lambda op, x: op.Constant(value_strings="ab"), "a list of strings"),
    (lambda op, x: op.Constant(value_ints=[1, 2**63]), "a list of ints"),
    (lambda op, x: op.If(op.const(True), then_branch=1, else_branch=2), "op.subgraph"),
    # domains that onnx knows
    (lambda op, x: op.call("", "Softmax", x, axis=1.5), "'axis' of Softmax is 1.5"),
    (lambda op, x: op.call("ai.onnx", "Softmax", x, axis="1"), "'axis' of Softmax is '1'"),
    (lambda op, x: op.call("ai.onnx.ml", "Binarizer", x, threshold="1"), "'threshold' of Binarizer is '1'"),
    # domains that it doesn't: what no attribute can hold
    (lambda op, x: op.call("mine", "F", x, a=[1, "a"]), "'a' of F is"),
    (lambda op, x: op.call("mine", "F", x, a=[1, None]), "'a' of F is"),
    (lambda op, x: op.call("mine", "F", x, a={"a": 1}), "'a' of F is"),
    (lambda op, x: op.call("mine", "F", x, a=2**63), "'a' of F is"),
    (lambda op, x: op.call("mine", "F", x, a=[1e300]), "'a' of F is"),
    (lambda op, x: op.call("mine", "F", x, a=object()), "'a' of F is"),
    (lambda op, x: op.call("mine", "F", x, a=1j), "'a' of F is"),
    # how many results
    (lambda op, x: op.Softmax(x, outputs=0), "outputs of Softmax is 0"),
    (lambda op, x: op.Softmax(x, outputs="1"), "outputs of Softmax is '1'"),
    (lambda op, x: op.call("mine", "F", x, outputs=1.0), "outputs of F is 1.0"),
]


@pytest.mark.parametrize(("emit", "words"), WRONG, ids=[words for _, words in WRONG])
def test_the_value_is_refused_with_the_line(emit: Emit, words: str) -> None:
    with pytest.raises(onnxport.TranslationError, match=words) as raised:
        onnxport.export(SOFTMAX, (X,), plugins=[pack(emit)])
    assert raised.value.plugin == "Pack" and raised.value.function.endswith("mine")
    assert "raised at: test_attribute_of_another_type.py" in str(raised.value).replace("tests/cases/", "")


def test_the_table_and_check_say_the_same() -> None:
    def softmax(op, self, dim, dtype=None):
        return op.Softmax(self, axis=dim + 0.5)

    table = {torch.ops.aten.softmax.int: softmax}
    for run in (onnxport.export, onnxport.check):
        with pytest.raises(onnxport.TranslationError, match=r"'axis' of Softmax is 1\.5"):
            run(SOFTMAX, (X,), custom_translation_table=table)


RIGHT = [
    (lambda op, x: op.Softmax(x, axis=True), {"axis": 1}),
    (lambda op, x: op.Softmax(x, axis=None), {}),
    (lambda op, x: op.Softmax(x, axis=np.int32(1)), {"axis": 1}),
    (lambda op, x: op.Softmax(x, axis=np.bool_(True)), {"axis": 1}),
    (lambda op, x: op.Softmax(x, axis=torch.tensor(1)), {"axis": 1}),
    (lambda op, x: op.Softmax(x, axis=-1), {"axis": -1}),
    (lambda op, x: op.Transpose(op.Transpose(x, perm=[1, 0]), perm=[1, 0]), {"perm": (1, 0)}),
    (lambda op, x: op.Transpose(op.Transpose(x, perm=np.array([1, 0])), perm=range(1, -1, -1)), {"perm": (1, 0)}),
    (lambda op, x: op.Elu(x, alpha=2), {"alpha": 2.0}),
    (lambda op, x: op.Elu(x, alpha=np.float32(2)), {"alpha": 2.0}),
    (lambda op, x: op.Elu(x, alpha=torch.tensor(2.0)), {"alpha": 2.0}),
    (lambda op, x: op.Elu(x, alpha=float("inf")), {"alpha": float("inf")}),
    (lambda op, x: op.Gelu(x, approximate="tanh"), {"approximate": "tanh"}),
    (lambda op, x: op.Cast(x, to=torch.float32), {"to": 1}),
    (lambda op, x: op.Cast(x, to=onnxport.DataType.FLOAT), {"to": 1}),
    (
        lambda op, x: op.call("mine", "F", x, a=True, b=np.float32(2), c=torch.tensor(3), d="s", e=[1, 2.5], f=None),
        {"a": 1, "b": 2.0, "c": 3, "d": "s", "e": (1.0, 2.5)},
    ),
]


@pytest.mark.parametrize(("emit", "expected"), RIGHT)
def test_values_of_that_type_in_other_forms(emit: Emit, expected: dict[str, Any]) -> None:
    with said() as heard:
        found = attributes_of(emit, optimize=False)
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()} == expected
    assert not heard
