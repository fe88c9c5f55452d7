"""Each pass alone: what it changes, what it must leave, and that the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxport
import onnxruntime
import pytest
import torch
from onnx_ir.passes.common import ShapeInferencePass
from onnxport.host.discovery import load
from onnxport.optimize.pipeline import optimize
from onnxport.vocabulary import provenance
from onnxport_builtin.passes.order import PASSES
from support import export_and_compare, op_types
from torch import nn

_TEXT = '<ir_version: 10, opset_import: ["" : 20]> '


def _model(text: str) -> ir.Model:
    model = ir.from_onnx_text(_TEXT + text)
    ShapeInferencePass()(model)
    return model


def _outputs(model: ir.Model, feeds: dict[str, Any]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _check(text: str, name: str, expected: list[str], *, changes: bool = True) -> ir.Model:
    """Run one pass; the operators left must be these, and the outputs what they were."""
    model = _model(text)
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        shape = [d if isinstance(d, int) else 3 for d in value.shape]
        feeds[value.name] = rng.standard_normal(shape).astype(value.dtype.numpy())
    before = _outputs(model, feeds)
    changed = PASSES[name](model)
    PASSES["dead_code"](model)
    assert [node.op_type for node in model.graph] == expected
    assert bool(changed) == changes
    for old, new in zip(before, _outputs(model, feeds), strict=True):
        np.testing.assert_allclose(old, new)
    return model


def test_identities() -> None:
    _check("g (float[N,4] x) => (float[N,4] y) { a = Identity(x) b = Relu(a) y = Identity(b) }", "identities", ["Relu"])
    _check("g (float[2] x) => (float[2] y) { y = Identity(x) }", "identities", ["Identity"], changes=False)
    _check("g (float[2,3] x) => (float[2,3] y) { a = Transpose<perm=[0,1]>(x) y = Neg(a) }", "identities", ["Neg"])
    _check(
        "g (float[2,3] x) => (float[3,2] y) { y = Transpose<perm=[1,0]>(x) }",
        "identities",
        ["Transpose"],
        changes=False,
    )


def test_casts() -> None:
    _check("g (float[2] x) => (float16[2] y) { a = Cast<to=11>(x) y = Cast<to=10>(a) }", "casts", ["Cast"])
    _check(
        "g (float[2] x) => (float[2] y) { a = Cast<to=7>(x) y = Cast<to=1>(a) }",
        "casts",
        ["Cast", "Cast"],
        changes=False,
    )


def test_merge_layout() -> None:
    _check(
        "g (float[2,3,4] x) => (float[3,4,2] y) { a = Transpose<perm=[2,0,1]>(x) y = Transpose<perm=[2,0,1]>(a) }",
        "merge_layout",
        ["Transpose"],
    )
    _check(
        "g (float[2,6] x) => (float[4,3] y) <int64[2] s = {3,4}, int64[2] t = {4,3}> "
        "{ a = Reshape(x, s) y = Reshape(a, t) }",
        "merge_layout",
        ["Reshape"],
    )


def test_common_subexpressions() -> None:
    _check(
        "g (float[2] x) => (float[2] y) { a = Exp(x) b = Exp(x) y = Add(a, b) }",
        "common_subexpressions",
        ["Exp", "Add"],
    )
    _check(
        "g (float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Exp(x) }",
        "common_subexpressions",
        ["Exp", "Exp"],
        changes=False,
    )


def test_random_nodes_are_never_shared() -> None:
    model = _model("g (float[2] x) => (float[2] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }")
    assert PASSES["common_subexpressions"](model) == 0


def test_constants() -> None:
    _check(
        "g (float[2,3] x) => (float[6] y) <int64[1] one = {1}, int64[1] five = {5}> "
        "{ s = Add(one, five) y = Reshape(x, s) }",
        "constants",
        ["Reshape"],
    )


def test_dead_code() -> None:
    _check("g (float[2] x) => (float[2] y) { a = Exp(x) b = Neg(a) y = Relu(x) }", "dead_code", ["Relu"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_batch_norm_is_folded_into_the_convolution_of_its_edge(bias: bool, transposed: bool) -> None:
    """Two branches whose weights are alike in all but value: matched by edges, not by names (pytorch#166797)."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(kind(3, 4, 3, bias=bias) for _ in range(2))
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
            for norm in self.norms:
                for tensor in (norm.running_mean, norm.weight, norm.bias):
                    nn.init.normal_(tensor)
                nn.init.uniform_(norm.running_var, 0.5, 2.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norms[1](self.convs[0](x)) - self.norms[0](self.convs[1](x))

    program = export_and_compare(Branches(), (torch.randn(2, 3, 8, 8),), rtol=1e-3, atol=1e-4)
    assert "BatchNormalization" not in op_types(program)


def test_batch_norm_stays_where_the_convolution_is_used_twice() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    program = export_and_compare(Shared(), (torch.randn(2, 3, 8, 8),))
    assert "BatchNormalization" in op_types(program)


def test_transposed_weights_share_the_storage() -> None:
    linear = nn.Linear(4, 5)
    program = export_and_compare(linear, (torch.randn(2, 3, 4),))
    assert op_types(program) == ["MatMul", "Add"]
    weight = program.model.graph.initializers["weight.T"].const_value
    assert weight.raw.data_ptr() == linear.weight.data_ptr()


def test_passes_can_be_left_out_and_unknown_ones_are_named() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

    program = onnxport.export(Model(), (torch.randn(2, 3, 4),), optimize=False)
    assert "Transpose" in op_types(program)
    optimize(program.model, load(()).ir_passes(), without=["transposed_weights"])
    assert "Transpose" in op_types(program)
    with pytest.raises(ValueError, match="No pass is called nonsense"):
        optimize(program.model, load(()).ir_passes(), without=["nonsense"])


def test_passes_leave_provenance_to_those_who_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made when it is first read, which takes longer than all passes: of few nodes while a model is optimized."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(20))).eval()
    made: list[object] = []
    original = provenance.node_properties
    monkeypatch.setattr(provenance, "node_properties", lambda *args: made.append(args) or original(*args))
    program = onnxport.export(model, (torch.randn(2, 4),), verbose=False)
    assert not made
    assert len(list(program.model.graph)) == 40
    assert all(node.metadata_props for node in program.model.graph) and len(made) == 40
