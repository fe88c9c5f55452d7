"""Targets that torch itself doesn't have are told; of a library that isn't loaded nothing is said."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from onnxport import Translation, hookimpl, translation
from onnxport.host import discovery
from pack_support import Pack, X, said


def of(*targets: Any) -> Pack:
    @translation(*targets)
    def mine(op, self):
        return op.Identity(self)

    return Pack(mine)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("aten::gelus", "has no operator aten::gelus; did you mean aten::gelu?"),
        ("aten::gelu.tanh", "aten::gelu has no overload 'tanh'; name one of aten::gelu, aten::gelu.out"),
        ("aten::add", "aten::add has no default overload; name one of aten::add.Scalar"),
        ("aten::add.Tensr", "no overload 'Tensr'; name one of"),
        ("aten::softmax", "name one of aten::softmax.int"),
        ("aten::Relu", "has no operator aten::Relu; did you mean aten::relu?"),
        ("aten::nothing_like_it", "has no operator aten::nothing_like_it"),
        ("prims::expp", "has no operator prims::expp; did you mean prims::exp?"),
        ("quantized::addd", "has no operator quantized::addd"),
        ("higher_order::conds", "did you mean higher_order::cond?"),
    ],
)
def test_it_is_named_with_what_may_have_been_meant(target: str, words: str) -> None:
    pack = of(target)
    with said() as heard:
        program = onnxport.export(torch.nn.GELU(), (X,), plugins=[pack])
    assert [node.op_type for node in program.model.graph] == ["Gelu"]
    (text,) = (text for text in heard if target in text)
    assert words in text and "mine translates no operator" in text and "'Pack'" in text
    info = discovery.load([pack]).infos[1]
    assert words in info.warning and not info.error and info.translations == 1


@pytest.mark.parametrize(
    "target",
    [
        "mylib::gelus",  # it may be imported later
        "torchvision::nms",
        "aten::gelu",
        "aten::gelu.default",
        "aten::add_.Tensor",
        "aten::add.out",
        "aten::tensor.bool",  # TorchScript's, which graphs of some versions have
        "higher_order::cond",
        "higher_order::of_another_library",
        torch.ops.aten.gelu.default,
        torch.sym_max,
    ],
    ids=lambda target: target if isinstance(target, str) else getattr(target, "__name__", None),
)
def test_what_exists_or_may_exist_says_nothing(target: Any) -> None:
    with said() as heard:
        onnxport.export(torch.nn.ReLU(), (X,), plugins=[of(target)])
    assert not heard


def test_one_mistake_among_several_leaves_the_others() -> None:
    @translation("aten::relus")
    @translation("aten::relu")
    def relu(op, self):
        return op.Max(self, 0)

    with said() as heard:
        program = onnxport.export(torch.nn.ReLU(), (X,), plugins=[Pack(relu)])
    assert [node.op_type for node in program.model.graph] == ["Max"]
    assert len(heard) == 1 and "aten::relus" in heard[0]


def test_records_without_the_decorator() -> None:
    class Records:
        @hookimpl
        def onnxport_translations(self):
            return [Translation("aten::gelus", lambda op, self: self)]

    with said() as heard:
        onnxport.export(torch.nn.ReLU(), (X,), plugins=[Records()])
    assert any("aten::gelus" in text for text in heard)


def test_a_library_that_is_loaded_may_still_grow() -> None:
    with torch.library._scoped_library("cases_grow", "DEF") as library:
        library.define("op(Tensor self) -> Tensor")
        with said() as heard:
            onnxport.export(torch.nn.ReLU(), (X,), plugins=[of("cases_grow::later")])
    assert not heard


@pytest.mark.parametrize(
    "target", ["gelus", "aten:gelu", "aten.gelu", "", "::x", "aten::", None, 3, torch.ops.aten.add]
)
def test_what_is_no_name_is_refused_by_the_decorator(target: Any) -> None:
    with pytest.raises(onnxport.PluginError):
        translation(target)
