"""`ONNXProgram.fix` and `onnxport fix`: dynamic dimensions become numbers, and the file equals a static export."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxport
import onnxruntime
import pytest
import torch
from models.zoo import ZOO
from onnxport_workbench.cli import app
from support import expect_equal
from torch import nn
from typer.testing import CliRunner


class Sizes(nn.Module):
    """Sizes in arithmetic, reshapes, ranges, and as results."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        z = torch.cat([x, x], 1) + y
        grown = nn.functional.interpolate(x[:, None], scale_factor=2.0)
        return self.linear(z.reshape(x.shape[0] * x.shape[1] * 2, -1)), grown, torch.arange(x.shape[1]) + x.shape[0]


SHAPES = {"x": {0: "batch", 1: "seq"}, "y": {0: "batch", 1: "2*seq"}}


def inputs(batch: int, seq: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, seq, 8), torch.randn(batch, 2 * seq, 8)


def operators(program: onnxport.ONNXProgram) -> Counter[str]:
    return Counter(node.op_type for node in program.model.graph.all_nodes())


def shapes_of(program: onnxport.ONNXProgram) -> list[list[Any]]:
    values = [*program.model.graph.inputs, *program.model.graph.outputs]
    return [[dim if isinstance(dim, int) else str(dim.value) for dim in value.shape] for value in values]


def test_a_fixed_program_equals_a_static_export() -> None:
    model = Sizes().eval()
    program = onnxport.export(model, inputs(2, 3), dynamic_shapes=SHAPES)
    static = onnxport.export(model, inputs(5, 7))
    program.fix(batch=5, seq=7)
    assert shapes_of(program) == shapes_of(static)
    assert "Shape" not in operators(program)
    onnx.checker.check_model(program.model_proto, full_check=True)
    args = inputs(5, 7)
    for got, want in zip(program(*args), model(*args), strict=True):
        expect_equal(got, want)
    with pytest.raises(onnxport.InputError, match="axis 0 is fixed to 5"):
        program(*inputs(2, 7))


def test_some_dimensions_stay() -> None:
    model = Sizes().eval()
    program = onnxport.export(model, inputs(2, 3), dynamic_shapes=SHAPES)
    whole = copy.deepcopy(program)
    program.fix(batch=1)
    assert shapes_of(program)[:3] == [[1, "seq", 8], [1, "2*seq", 8], ["2*seq", 4]]
    for seq in (2, 6):
        args = inputs(1, seq)
        for got, want in zip(program(*args), model(*args), strict=True):
            expect_equal(got, want)
    assert shapes_of(whole)[0] == ["batch", "seq", 8], "a copy keeps the dynamic model"
    program.fix(seq=4)
    assert shapes_of(program)[:2] == [[1, 4, 8], [1, 8, 8]]


def test_a_fixed_program_is_verified() -> None:
    """At the example's sizes it is compared; at others the result says what the file takes."""
    for batch, seq in ((2, 3), (1, 3)):
        program = onnxport.export(Sizes().eval(), inputs(2, 3), dynamic_shapes=SHAPES, verbose=False)
        program.fix(batch=batch, seq=seq)
        result = onnxport.verify(program)
        assert result.passed == (batch == 2)
        if batch == 1:
            assert "axis 0 is fixed to 1" in result.failures()[0]
            assert onnxport.verify(program, args=inputs(1, 3)).passed


LARGER = [pytest.param(name, marks=pytest.mark.grid) for name in ("gpt2", "llama", "gru", "mlp")]


@pytest.mark.parametrize("name", ["llama_with_cache", "lstm", "cond", "bert", *LARGER])
def test_models_equal_their_static_exports(name: str) -> None:
    """Node by node; what a static export computes of weights is left to the file, since they may be replaced."""
    torch.manual_seed(0)
    example = ZOO[name]()
    args, kwargs = example.args, example.kwargs
    program = onnxport.export(example.model, args, kwargs=copy.deepcopy(kwargs), dynamic_shapes=example.dynamic_shapes)
    static = onnxport.export(example.model, args, kwargs=copy.deepcopy(kwargs))
    sizes: dict[str, int] = {}
    for value, fixed in zip(program.model.graph.inputs, static.model.graph.inputs, strict=True):
        for dim, size in zip(value.shape, fixed.shape, strict=True):
            if isinstance(dim, ir.SymbolicDim) and str(dim.value).isidentifier():
                sizes[str(dim.value)] = int(size)
    program.fix(**sizes)
    lookups = {"Slice", "GatherElements", "Expand", "Gather"} if name in ("bert", "gpt2") else set()
    assert not {kind: n for kind, n in (operators(program) - operators(static)).items() if kind not in lookups}
    assert not operators(static) - operators(program)
    results = (each(*copy.deepcopy(args), **copy.deepcopy(kwargs)) for each in (program, static))
    for got, want in zip(*results, strict=True):
        expect_equal(got, want, 1e-3, 1e-4)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"bach": 1}, "The model has no dimension 'bach': it has batch, seq."),
        ({"batch": -1}, "give an int of at least 0"),
        ({"batch": 1.0}, "give an int of at least 0"),
        ({"batch": True}, "give an int of at least 0"),
        ({}, r"give a size for each dimension to fix, such as fix\(batch=1\)"),
    ],
)
def test_what_cant_be_fixed_is_refused_and_changes_nothing(sizes: dict[str, Any], said: str) -> None:
    program = onnxport.export(Sizes().eval(), inputs(2, 3), dynamic_shapes=SHAPES)
    before = program.model_proto
    with pytest.raises(onnxport.InputError, match=said):
        program.fix(**sizes)
    assert program.model_proto == before


def test_sizes_that_the_model_cant_have_are_refused() -> None:
    class Shorter(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[4:]

    program = onnxport.export(Shorter(), (torch.randn(9),), dynamic_shapes=({0: torch.export.Dim("n", min=6)},))
    with pytest.raises(onnxport.InputError, match=r"n=2\. Give sizes that the model takes"):
        program.fix(n=2)


def test_bodies_of_functions_are_fixed() -> None:
    model = Sizes().eval()
    program = onnxport.export(model, inputs(2, 3), dynamic_shapes=SHAPES, functions=[nn.Linear])
    program.fix(batch=1, seq=2)
    (function,) = program.model.functions.values()
    assert list(function.inputs[0].shape or ()) == [4, 8]
    args = inputs(1, 2)
    expect_equal(program(*args)[0], model(*args)[0])


def test_the_command_fixes_a_file(tmp_path: Path) -> None:
    model = Sizes().eval()
    path = tmp_path / "model.onnx"
    onnxport.export(model, inputs(2, 3), dynamic_shapes=SHAPES).save(path)
    result = CliRunner().invoke(app, ["fix", str(path), "--dim", "batch=1", "--dim", "seq=5", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["inputs"] == {"x": ["1", "5", "8"], "y": ["1", "10", "8"]} and told["nodes"] < told["nodes_before"]
    session = onnxruntime.InferenceSession(tmp_path / "model.fixed.onnx", providers=["CPUExecutionProvider"])
    args = inputs(1, 5)
    got = session.run(None, {"x": args[0].numpy(), "y": args[1].numpy()})
    for one, want in zip(got, model(*args), strict=True):
        expect_equal(torch.from_numpy(one), want)


@pytest.mark.parametrize("text", ["batch", "batch=", "=1", "batch=-1", "batch=x"])
def test_the_command_says_how_a_size_is_written(text: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fix", str(tmp_path / "none.onnx"), "--dim", text])
    assert result.exit_code == 2 and "write it as NAME=SIZE, such as batch=1" in result.output
