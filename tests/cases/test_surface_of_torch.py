"""What onnxport's program and reports take and give is what those of torch's exporter do."""

from __future__ import annotations

import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxport
import pytest
import torch
from support import expect_equal
from torch.export import Dim

X = torch.rand(4, 3)
METHODS = [name for name, value in vars(torch.onnx.ONNXProgram).items() if callable(value) and name[0] != "_"]


@pytest.mark.parametrize("name", [*METHODS, "__call__"])
def test_methods_take_the_parameters_of_torchs(name):
    theirs = inspect.signature(getattr(torch.onnx.ONNXProgram, name)).parameters
    ours = inspect.signature(getattr(onnxport.ONNXProgram, name)).parameters
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert [n for n, p in theirs.items() if p.kind in positional] == [
        n for n, p in ours.items() if p.kind in positional
    ][: sum(p.kind in positional for p in theirs.values())]
    assert set(theirs) <= set(ours)


def test_the_exporters_take_the_same_keywords():
    parameters = inspect.signature(torch.onnx.export).parameters
    ours = inspect.signature(onnxport.export).parameters
    deprecated = set(parameters) - set(ours)
    assert deprecated == {
        "training", "operator_export_type", "do_constant_folding", "custom_opsets", "export_modules_as_functions",
        "autograd_inlining",
    }  # fmt: skip
    for name in deprecated:
        with pytest.warns(DeprecationWarning, match=f"{name}= is deprecated"):
            onnxport.export(torch.nn.Linear(3, 2).eval(), (X,), **{name: parameters[name].default})
    for name in set(parameters) & set(ours):
        assert parameters[name].default == ours[name].default, name


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, x, y):
        return torch.cat([self.linear(x).relu(), y]), x + 1


def exported() -> tuple[torch.nn.Module, onnxport.ONNXProgram]:
    model = Model().eval()
    shapes = ({0: "s0"}, {0: "s1"})
    return model, onnxport.export(model, (X, torch.rand(5, 2)), dynamic_shapes=shapes)


def shapes_of(program: onnxport.ONNXProgram) -> list[str]:
    return [str(value.shape) for value in (*program.model.graph.inputs, *program.model.graph.outputs)]


def test_axes_are_renamed_by_name_and_by_dimension():
    model, program = exported()
    assert shapes_of(program) == ["[s0,3]", "[s1,2]", "[s0+s1,2]", "[s0,3]"]
    x, y = program.model.graph.inputs
    assert program.rename_axes({x.shape[0]: "batch", "s1": "rows"}) is None
    assert shapes_of(program) == ["[batch,3]", "[rows,2]", "[batch+rows,2]", "[batch,3]"]
    program.rename_axes(rename_mapping={ir.SymbolicDim("batch"): "n", "batch+rows": "total"})
    assert shapes_of(program) == ["[n,3]", "[rows,2]", "[total,2]", "[n,3]"]
    program.rename_axes({})
    a, b = torch.rand(7, 3), torch.rand(1, 2)
    for got, want in zip(program(a, b), model(a, b), strict=True):
        expect_equal(got, want)
    assert x.shape[0].value == "n" and y.shape[0].value == "rows"


@pytest.mark.parametrize(
    "mapping",
    [
        {"nowhere": "n"},
        {ir.SymbolicDim("nowhere"): "n"},
        {"s0": "a b"},
        {"s0": 3},
        {3: "n"},
        {ir.SymbolicDim(None): "n"},
        5,
    ],
    ids=repr,
)
def test_axes_that_can_not_be_renamed(mapping):
    _, program = exported()
    with pytest.raises(onnxport.InputError) as caught:
        program.rename_axes(mapping)
    assert caught.value.parameter == "rename_mapping"
    assert shapes_of(program)[0] == "[s0,3]"


def test_values_are_computed_as_torch_and_as_its_documentation_has_them():
    model, program = exported()
    args = (X, torch.rand(5, 2))
    relu = next(node.outputs[0].name for node in program.model.graph if node.op_type == "Relu")
    values = program.compute_values([relu, "x", "linear.weight"], args)
    want = model.linear(X).relu()
    # as torch's function gives them
    first, second, third = values
    assert isinstance(values[0], torch.Tensor) and len(values) == 3
    for got, expected in zip((first, second, third), (want, X, model.linear.weight), strict=True):
        expect_equal(got, expected)
    expect_equal(values[0], want)
    expect_equal(values[-1], model.linear.weight)
    assert [value.shape for value in values] == [(4, 2), (4, 3), (2, 3)]
    # as its documentation says
    assert isinstance(values, dict) and list(values.keys()) == [relu, "x", "linear.weight"]
    expect_equal(values[relu], want)
    assert relu in values and "y" not in values
    assert dict(values).keys() == values.keys()
    expect_equal(dict(values.items())["x"], X)
    with pytest.raises(KeyError):
        values["y"]
    with pytest.raises(ValueError, match="'nowhere'"):
        program.compute_values(["nowhere"], args)
    (alone,) = program.compute_values([relu], args=args, kwargs=None)
    expect_equal(alone, want)
    (by_name,) = program.compute_values([relu], kwargs={"x": X, "y": args[1]})
    expect_equal(by_name, want)


def test_torchs_own_program_gives_the_same():
    _, program = exported()
    args = (X, torch.rand(5, 2))
    theirs = torch.onnx.ONNXProgram(ir.serde.deserialize_model(program.model_proto), None)
    name = next(node.outputs[0].name for node in program.model.graph if node.op_type == "Relu")
    for ours, their in zip(
        program.compute_values([name, "x"], args), theirs.compute_values([name, "x"], args), strict=True
    ):
        expect_equal(ours, their)


# Reports --------------------------------------------------------------------------------------------------------------

STAMP = r"onnx_export_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@torch.library.custom_op("surface::unserved", mutates_args=())
def unserved(x: torch.Tensor) -> torch.Tensor:
    return x * 2


unserved.register_fake(lambda x: torch.empty_like(x))


class Unserved(torch.nn.Module):
    def forward(self, x):
        return torch.ops.surface.unserved(x)


class Branches(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Relu(torch.nn.Module):
    def forward(self, x):
        return x.relu()


def one_more(op: Any, self: Any) -> Any:
    return op.Add(self, 1.0)


def runtime_fails(op: Any, self: Any) -> Any:
    """No Reshape to a size that doesn't fit: only the runtime knows it."""
    return op.Reshape(self, op.Cast(op.Mul(op.ReduceMax(self, keepdims=False), [7.0, 11.0]), to=torch.int64))


TABLES = [{torch.ops.aten.relu.default: function} for function in (one_more, runtime_fails)]


@pytest.mark.parametrize(
    ("model", "options", "outcome"),
    [
        (Relu(), {}, "success"),
        (Relu(), {"verify": True}, "success"),
        (Branches(), {}, "pt_export"),
        (Unserved(), {}, "conversion"),
        (Relu(), {"verify": True, "custom_translation_table": TABLES[0]}, "accuracy"),
        (Relu(), {"verify": True, "custom_translation_table": TABLES[1]}, "runtime"),
    ],
    ids=["success", "verified", "pt_export", "conversion", "accuracy", "runtime"],
)  # fmt: skip
def test_names_of_reports(model, options, outcome, tmp_path):
    try:
        onnxport.export(model.eval(), (X,), report=True, dump_exported_program=True, artifacts_dir=tmp_path, **options)
        failed = ""
    except onnxport.OnnxExporterError as error:
        failed = type(error).__name__
    assert bool(failed) == (outcome != "success"), failed
    names = files(tmp_path)
    assert [name for name in names if re.fullmatch(rf"{STAMP}_{outcome}\.md", name)]
    assert [name for name in names if re.fullmatch(rf"{STAMP}_{outcome}\.json", name)]
    pages = [name for name in names if re.fullmatch(rf"{STAMP}_{outcome}\.html", name)]
    assert len(pages) == (outcome not in ("pt_export", "conversion"))  # where there is a model to be seen
    assert len(names) == (2 if outcome == "pt_export" else 3) + len(pages)
    if outcome != "pt_export":
        (dumped,) = (name for name in names if re.fullmatch(rf"{STAMP}\.pt2", name))
        torch.export.load(tmp_path / dumped)
    data = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert data["succeeded"] == (outcome == "success")


def test_profiles(tmp_path, capsys):
    onnxport.export(Relu(), (X,), profile=True, artifacts_dir=tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("Profile result:") and "| translate |" in printed
    (name,) = files(tmp_path)
    assert re.fullmatch(rf"{STAMP}_profile\.md", name) and "| translate |" in (tmp_path / name).read_text()
    onnxport.export(Relu(), (X,), profile=True, verbose=False, artifacts_dir=tmp_path)
    onnxport.export(Relu(), (X,), profile=True, report=True, artifacts_dir=tmp_path)
    onnxport.export(Relu(), (X,), profile=True, verbose=lambda stage: None, artifacts_dir=tmp_path)
    assert not capsys.readouterr().out
    assert "| translate |" in next(tmp_path.glob("*_success.md")).read_text()


# Programs -------------------------------------------------------------------------------------------------------------


class Two(torch.nn.Module):
    def forward(self, x, y):
        return x + y[: x.shape[0]], x * 2


@pytest.mark.parametrize("strict", [False, True])
def test_names_of_the_dims_of_programs(strict):
    batch, seq = Dim("batch"), Dim("seq", max=64)
    shapes = {"x": {0: batch, 1: seq}, "y": {0: 2 * batch, 1: seq}}
    program = torch.export.export(Two(), (torch.rand(4, 6), torch.rand(8, 6)), dynamic_shapes=shapes, strict=strict)
    want = ["[batch,seq]", "[2*batch,seq]", "[batch,seq]", "[batch,seq]"]
    for each in (program, program.run_decompositions({}), program.run_decompositions()):
        assert shapes_of(onnxport.export(each)) == want
    assert shapes_of(onnxport.export(program, dynamic_shapes={"x": {0: "n"}}))[:2] == ["[n,seq]", "[2*n,seq]"]
    with onnxport.as_torch_onnx():
        saved = io.BytesIO()
        torch.onnx.export(program, f=saved)
    assert shapes_of(onnxport.ONNXProgram(ir.from_proto(onnx.load_from_string(saved.getvalue())))) == want


class Rows(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x, x[:1]]), x.reshape(2, -1)


def test_names_of_roots_of_dims():
    for dim, want in (
        (2 * Dim("batch"), ["[2*batch,6]", "[2*batch+1,6]", "[2,6*batch]"]),
        (2 * Dim("batch") + 2, ["[2*batch+2,6]", "[2*batch+3,6]", "[2,6*batch+6]"]),
    ):
        program = torch.export.export(Rows(), (torch.rand(8, 6),), dynamic_shapes={"x": {0: dim}})
        assert shapes_of(onnxport.export(program)) == want


def test_programs_of_keywords_keep_their_dims():
    class Keywords(torch.nn.Module):
        def forward(self, x, scale=None, **rest):
            return x * scale, rest["z"] + 1

    kwargs = {"z": torch.rand(5), "scale": torch.rand(3)}
    shapes = {"x": {0: Dim("n")}, "scale": {0: Dim("n")}, "rest": {"z": {0: Dim("k")}}}
    program = torch.export.export(Keywords(), (torch.rand(3),), kwargs, dynamic_shapes=shapes)
    assert shapes_of(onnxport.export(program)) == ["[n]", "[k]", "[n]", "[n]", "[k]"]
