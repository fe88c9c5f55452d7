"""Every structure is exported, checked, and run on onnxruntime beside eager: outputs, and what forward changes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import onnx
import onnxport
import pytest
import torch
import torch.utils._pytree as pytree
from support import expect_equal, flat_tensors
from torch._functorch import predispatch

from models.structures import STRUCTURES, Structure

_TARGET, _KIND = (f"pkg.torch.export.graph_signature.OutputSpec.{field}" for field in ("target", "kind"))
_WORKING = [name for name, item in STRUCTURES.items() if not (item.refused or item.uncaptured)]
_REFUSED = [name for name, item in STRUCTURES.items() if item.refused or item.uncaptured]


def _export(item: Structure, **options: Any) -> onnxport.ONNXProgram:
    args = copy.deepcopy(item.args)
    program = onnxport.export(item.build(), args, dynamic_shapes=item.dynamic_shapes, **{**item.options, **options})
    assert pytree.tree_structure(args) == pytree.tree_structure(item.args), "the caller's containers were changed"
    for given, kept in zip(pytree.tree_leaves(args), pytree.tree_leaves(item.args)):
        if isinstance(kept, torch.Tensor):
            expect_equal(given, kept, 0, 0)
    return program


@pytest.fixture
def second_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was traced a second time."""
    found: list[str] = []
    original = torch.export.ExportedProgram.run_decompositions

    def counted(self: torch.export.ExportedProgram, *args: Any, **kwargs: Any) -> torch.export.ExportedProgram:
        found.append(str(self.graph_signature))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    yield found


def _compare(program: onnxport.ONNXProgram, item: Structure, args: tuple[Any, ...]) -> None:
    """One run against eager. A buffer or input changes exactly where the file says so, and to the file's value."""
    model, eager_args = item.build(), copy.deepcopy(args)
    model.load_state_dict(program.exported_program.state_dict, strict=False)
    placeholders = list(program.exported_program.graph_signature.user_inputs)
    inputs = dict(zip(placeholders, pytree.tree_leaves(eager_args)))  # before forward changes the containers
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters()), **inputs}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    before = {name: value.detach().clone() for name, value in tensors.items()}
    with torch.no_grad():
        returned = model(*eager_args)
    # What forward returns may be changed by nobody any more: it may share memory with a buffer.
    expected = [tensor.clone() for tensor in flat_tensors(returned)]
    kept = dict(model.named_buffers())  # forward may have put another tensor under a buffer's name
    after = {name: kept.get(name, value).detach().clone() for name, value in tensors.items()}
    values = program.run(copy.deepcopy(args))
    outputs = list(zip(program.model.graph.outputs, values, strict=True))
    user = [value for output, value in outputs if output.metadata_props.get(_KIND, "USER_OUTPUT") == "USER_OUTPUT"]
    if item.holds:
        assert len(user) == len(expected)
        for got, want in zip(user, expected):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
        assert item.holds(*user)
    else:
        assert len(user) == len(expected), f"{len(user)} outputs, expected {len(expected)}"
        for got, want in zip(user, expected):
            expect_equal(got, want, item.rtol, item.atol)
    if item.mutates:
        assert len(program(*copy.deepcopy(args))) == len(user), "a call returns what forward returns, and no more"
    changed = {output.metadata_props[_TARGET]: value for output, value in outputs if _TARGET in output.metadata_props}
    for name, value in after.items():
        if name not in changed:
            expect_equal(value, before[name], 0, 0)
        elif not item.holds:
            expect_equal(changed[name], value, item.rtol, item.atol)


@pytest.mark.parametrize("name", _WORKING)
def test_structure_computes_what_eager_does(name: str, second_traces: list[str]) -> None:
    item = STRUCTURES[name]
    with pytest.warns(match=item.warns) if item.warns else contextlib.nullcontext():
        program = _export(item)
    if hasattr(predispatch, "_unwrap_for_grad"):  # before torch 2.13, transforms are traced below autograd at once
        assert len(second_traces) == int(item.second_trace)
    onnx.checker.check_model(program.model_proto, full_check=True)
    found = {
        output.metadata_props[_TARGET]: output.metadata_props[_KIND]
        for output in program.model.graph.outputs
        if _TARGET in output.metadata_props
    }
    assert found == dict(item.mutates)
    used = {node.op_type for node in program.model.graph.all_nodes()}
    assert used.issuperset(item.ops), f"{set(item.ops) - used} missing from {used}"
    assert used.isdisjoint(item.absent), used & set(item.absent)
    for args in (item.args, *item.other_args):
        _compare(program, item, args)


@pytest.mark.parametrize("name", _REFUSED)
def test_refusal_says_why(name: str) -> None:
    item = STRUCTURES[name]
    with pytest.raises(onnxport.OnnxExporterError, match=item.uncaptured or item.refused) as caught:
        _export(item)
    assert str(caught.value).startswith("torch.export can't capture") == bool(item.uncaptured)


@pytest.mark.parametrize("name", [name for name, item in STRUCTURES.items() if item.mutates][::7])
def test_mutations_are_refused_or_dropped_by_name(name: str) -> None:
    item = STRUCTURES[name]
    with pytest.raises(onnxport.MutationError) as refused:
        _export(item, mutation="error")
    with pytest.warns(match="are not in the exported model") as warned:
        program = _export(item, mutation="drop")
    dropped = next(str(w.message) for w in warned if "are not in the exported model" in str(w.message))
    for target, kind in item.mutates.items():
        words = f"{target} ({kind.lower().replace('_', ' ')})"
        assert words in str(refused.value)
        assert words in dropped
    with torch.no_grad():
        expected = flat_tensors(item.build()(*copy.deepcopy(item.args)))
    assert len(program.model.graph.outputs) == len(program(*copy.deepcopy(item.args))) == len(expected)
