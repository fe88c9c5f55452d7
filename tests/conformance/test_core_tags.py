"""Every overload that torch tags as core ATen has a translation, or a decomposition that is tested."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from onnxport.host import discovery
from onnxport_functional.aliasing import pure_twin

pytestmark = pytest.mark.conformance

#: served by torch's decomposition; where that is tested
DECOMPOSED = {
    "aten.embedding_dense_backward.default": "tests/operators/test_backward.py",
    "aten.native_group_norm_backward.default": "tests/operators/test_backward.py",
    "aten.native_layer_norm_backward.default": "tests/operators/test_backward.py",
}
#: a question about the memory layout, answered while the program is captured; no exported program holds it
ANSWERED_AT_CAPTURE = {"aten.sym_is_contiguous.default"}


def core_overloads() -> list[torch._ops.OpOverload]:
    """All overloads of ATen with the tag, as torch's dispatcher lists them."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        if namespace != "aten" or not hasattr(torch.ops.aten, packet):
            continue
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
        if operator is not None and torch.Tag.core in operator.tags:
            found.append(operator)
    return sorted(set(found), key=str)


@pytest.mark.parametrize("opset", [18, 20])
def test_every_core_overload_is_served(opset: int) -> None:
    """In-place and ``out=`` overloads are served by their pure twins, which functionalization puts in their place."""
    registry = discovery.load(None).registry(opset)
    missing = []
    for operator in core_overloads():
        if str(operator) in DECOMPOSED or str(operator) in ANSWERED_AT_CAPTURE:
            continue
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in operator._schema.arguments)
        if not registry.candidates((pure_twin(operator) or operator) if writes else operator):
            missing.append(str(operator))
    assert not missing


def test_there_are_as_many_as_known() -> None:
    assert len(core_overloads()) >= 150


def test_the_exceptions_are_still_needed() -> None:
    """One that has got its own translation leaves the list."""
    registry = discovery.load(None).registry(20)
    names = {str(operator): operator for operator in core_overloads()}
    assert not [
        name for name in (*DECOMPOSED, *ANSWERED_AT_CAPTURE) if name in names and registry.candidates(names[name])
    ]
