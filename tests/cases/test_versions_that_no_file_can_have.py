"""A file has one version of each domain, and opsets from 18 on: what asks for others is told both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Translation, Unsupported, translation
from onnxport.host import discovery
from pack_support import Pack, X

Emit = Callable[[Any, Any], Any]


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.neg(torch.relu(x))


def exported(first: Emit, second: Emit, **options: Any) -> onnxport.ONNXProgram:
    @translation("aten::relu")
    def relu(op, self):
        return first(op, self)

    @translation("aten::neg")
    def neg(op, self):
        return second(op, self)

    return onnxport.export(Two(), (X,), plugins=[Pack(relu, neg)], **options)


def body(op: Any, x: Any) -> Any:
    return op.function("mine", "Body", op.Neg, x)


def branch(op: Any, x: Any) -> Any:
    graph = op.subgraph(lambda: op.call("mine", "Inner", x, version=2))
    return op.If(op.const(True), then_branch=graph, else_branch=graph)


def first(op: Any, x: Any) -> Any:
    return op.call("mine", "First", x, version=1)


def second(op: Any, x: Any) -> Any:
    return op.call("mine", "Second", x, version=2)


def default(op: Any, x: Any) -> Any:
    return op.call("mine", "Default", x)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (first, second, "version 2 of the domain 'mine' is asked for, but the node First of .*relu has version 1"),
        (second, first, "version 1 of the domain 'mine' is asked for, but the node Second of .*relu has version 2"),
        (default, second, "version 2 of the domain 'mine' .* the node Default of .*relu has version 1"),
        (first, branch, "version 2 of the domain 'mine' .* has version 1"),
        (branch, first, "version 1 of the domain 'mine' .* has version 2"),
        (body, second, "version 2 of the domain 'mine' .* has version 1"),
        (first, lambda op, x: op.call("", "Neg", x, version=17), "version 17 of the domain 'ai.onnx' .* opset 20"),
        (first, lambda op, x: op.call("ai.onnx", "Neg", x, version=13), "version 13 .* opset 20"),
    ],
)
def test_two_versions_of_one_domain(one: Emit, other: Emit, words: str) -> None:
    with pytest.raises(onnxport.TranslationError, match=words) as raised:
        exported(one, other)
    assert raised.value.plugin == "Pack" and raised.value.function.endswith("neg")


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1"])
def test_what_is_no_version(version: Any) -> None:
    with pytest.raises(onnxport.TranslationError, match=r"version of the domain 'mine' is .* must be a positive int"):
        exported(lambda op, x: op.call("mine", "F", x, version=version), default)


def test_what_is_no_domain() -> None:
    with pytest.raises(onnxport.TranslationError, match="the domain is None"):
        exported(lambda op, x: op.call(None, "F", x), default)


@pytest.mark.parametrize(
    ("one", "other", "version"), [(first, first, 1), (second, second, 2), (second, default, 2), (second, body, 2)]
)
def test_one_version(one: Emit, other: Emit, version: int) -> None:
    assert exported(one, other).model.opset_imports == {"": 20, "mine": version}


def test_what_is_rolled_back_asks_for_nothing() -> None:
    def refuses(op, x):
        branch(op, x)
        raise Unsupported("not this one")

    program = exported(refuses, first)
    assert program.model.opset_imports == {"": 20, "mine": 1}


def test_the_target_opset_may_be_named() -> None:
    program = exported(
        lambda op, x: op.call("ai.onnx", "Relu", x, version=20), lambda op, x: op.call("", "Neg", x), optimize=False
    )
    assert program.model.opset_imports == {"": 20}
    assert [node.domain for node in program.model.graph] == ["", ""]


@pytest.mark.parametrize("opset", [17, 0, -1, 20.0, "20", True, None, 99])
def test_opsets_of_the_decorator(opset: Any) -> None:
    with pytest.raises(onnxport.PluginError, match=r"opset is .* from 18 to"):
        translation("aten::relu", opset=opset)


def test_opsets_of_records_without_the_decorator() -> None:
    class Records:
        @onnxport.hookimpl
        def onnxport_translations(self):
            return [Translation("aten::relu", first, opset=17)]

    loaded = discovery.load([Records()])
    assert "opset is 17" in loaded.infos[1].error
