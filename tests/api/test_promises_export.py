"""export(): every parameter of torch.onnx.export."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import pytest
import torch
from onnxport_builtin.program import saving
from promises import promise
from torch import nn

X = torch.randn(2, 3)


class MLPModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc0 = nn.Linear(8, 8, bias=True)
        self.fc3 = nn.Linear(8, 2, bias=True)
        self.fc_combined = nn.Linear(8 + 8 + 8, 8, bias=True)

    def forward(self, tensor_x: torch.Tensor, input_dict: dict, input_list: list) -> torch.Tensor:
        combined_tensor = torch.cat([tensor_x, input_dict["tensor_x"], input_list[0]], dim=1)
        combined_tensor = torch.sigmoid(self.fc_combined(combined_tensor))
        return self.fc3(torch.sigmoid(self.fc0(combined_tensor)))


class SumModule(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sum(x, dim=1)


def linear() -> nn.Module:
    return nn.Linear(3, 4).eval()


def sizes(values: Any) -> list[list[int | str]]:
    return [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]


def names(values: Any) -> list[str]:
    return [value.name for value in values]


# Overview -------------------------------------------------------------------------------------------------------------


@promise("torch.export is leveraged to produce a traced graph representing only the Tensor computation")
def test_it_stands_on_torch_export() -> None:
    program = onnxport.export(linear(), (X,)).exported_program
    assert isinstance(program, torch.export.ExportedProgram)
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets == [torch.ops.aten.linear.default]


@promise("it eliminates all Python control flow and data structures (with certain exceptions)")
def test_python_is_gone() -> None:
    class Loops(nn.Module):
        def forward(self, x: torch.Tensor, rounds: int) -> dict[str, torch.Tensor]:
            for i in range(rounds):
                x = x + i if i % 2 else x * 2
            return {"x": x}

    program = onnxport.export(Loops(), (X, 3))
    assert [node.op_type for node in program.model.graph] == ["Mul", "Add", "Mul"]
    torch.testing.assert_close(program(X, 3)[0], Loops()(X, 3)["x"])


@promise("it records the set of shape constraints needed to show that this is sound for future inputs")
def test_constraints_are_kept() -> None:
    batch = torch.export.Dim("batch", min=2, max=7)
    program = onnxport.export(linear(), (X,), dynamic_shapes=({0: batch},))
    assert "VR[2, 7]" in program.model.graph.metadata_props["pkg.torch.export.ExportedProgram.range_constraints"]


@promise("during the export process, memory usage is significantly reduced")
def test_weights_are_not_copied(tmp_path: Path) -> None:
    model = nn.Linear(2048, 2048, bias=False).eval()  # 16 MiB
    onnxport.export(linear(), (X,), tmp_path / "first.onnx")
    tracemalloc.start()
    try:
        program = onnxport.export(model, (torch.randn(1, 2048),), tmp_path / "model.onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    (weight,) = (v.const_value for v in program.model.graph.initializers.values())
    assert weight.raw.data_ptr() == model.weight.data_ptr()  # type: ignore[union-attr]


@promise(
    "The ONNX exporter depends on extra Python packages, which can be installed through pip",
    differs="installing onnxport installs them",
)
def test_dependencies_are_declared() -> None:
    required = {re.split(r"\W", name)[0] for name in importlib.metadata.requires("onnxport") or ()}
    assert {"onnx", "onnxscript", "onnxruntime"} <= required


@promise("the simple example: tensors, dicts and lists as inputs, their names, dynamic shapes of the same structure")
def test_simple_example(tmp_path: Path) -> None:
    model = MLPModel().eval()
    inputs = (torch.rand(97, 8), {"tensor_x": torch.rand(97, 8)}, [torch.rand(97, 8)])
    onnx_program = onnxport.export(
        model,
        inputs,
        dynamic_shapes=({0: "batch_size"}, {"tensor_x": {0: "batch_size"}}, [{0: "batch_size"}]),
        input_names=["tensor_input", "tensor_x", "list_input_index_0"],
        output_names=["output"],
        dynamo=True,
    )
    for i in range(3):
        assert onnx_program.model.graph.inputs[i].shape == ("batch_size", 8)
    onnx_program.save(tmp_path / "mlp.onnx")
    saved = onnx.load(tmp_path / "mlp.onnx")
    assert names(saved.graph.input) == ["tensor_input", "tensor_x", "list_input_index_0"]
    torch.testing.assert_close(onnx_program(*inputs)[0], model(*inputs))
    other = (torch.rand(5, 8), {"tensor_x": torch.rand(5, 8)}, [torch.rand(5, 8)])
    torch.testing.assert_close(onnx_program(*other)[0], model(*other))


@promise("all you need is an instance of the model and its input; an ONNXProgram is returned")
def test_model_and_input_are_enough() -> None:
    assert isinstance(onnxport.export(linear(), (X,)), onnxport.ONNXProgram)


@promise("onnxruntime can then be used to execute the model")
@promise("You can view the exported model using Netron")
def test_the_file_runs_and_is_valid(tmp_path: Path) -> None:
    model = linear()
    onnxport.export(model, (X,), tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (result,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    np.testing.assert_allclose(result, model(X).detach().numpy(), rtol=1e-5, atol=1e-6)


@promise("When the conversion fails, call it again with report=True; a markdown report helps to resolve the issue")
def test_report_of_a_failure(tmp_path: Path) -> None:
    @torch.library.custom_op("onnxport_promises::unknown", mutates_args=())
    def unknown(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    unknown.register_fake(torch.empty_like)

    class Calls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return unknown(x)

    with pytest.raises(onnxport.UnsupportedOperatorsError):
        onnxport.export(Calls(), (X,), report=True, artifacts_dir=tmp_path)
    (report,) = tmp_path.glob("*.md")
    text = report.read_text(encoding="utf-8")
    assert all(said in text for said in ("onnxport_promises::unknown", Path(__file__).name, "custom_translation_table"))


# What is exported -----------------------------------------------------------------------------------------------------


@promise("export(model, args=(), f=None, *, kwargs=None, …): the parameters, their order and their defaults")
def test_signature() -> None:
    ours, theirs = (inspect.signature(function).parameters for function in (onnxport.export, torch.onnx.export))
    deprecated = {"training", "operator_export_type", "do_constant_folding", "custom_opsets",
                  "export_modules_as_functions", "autograd_inlining"}  # fmt: skip
    shared = [name for name in theirs if name not in deprecated]
    assert [name for name in ours if name in shared] == shared
    for name in shared:
        assert ours[name].default == theirs[name].default
        assert ours[name].kind == theirs[name].kind


@promise("1. If the model is already an ExportedProgram, it will be used as-is")
def test_an_exported_program_is_used_as_it_is() -> None:
    program = torch.export.export(linear(), (X,))
    graph = str(program.graph)
    assert onnxport.export(program).exported_program is program
    assert str(program.graph) == graph


@promise("2. Use torch.export.export() and set strict=False. 3. Use torch.export.export() and set strict=True")
def test_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, original = [], torch.export.export

    def export(*args: Any, strict: bool = False, **kwargs: Any) -> Any:
        tried.append(strict)
        if not strict:
            raise RuntimeError("not this time")
        return original(*args, strict=strict, **kwargs)

    monkeypatch.setattr(torch.export, "export", export)
    model = linear()
    torch.testing.assert_close(onnxport.export(model, (X,))(X)[0], model(X))
    assert tried == [False, True]


@promise("model: a torch.nn.Module or a torch.export.ExportedProgram")
@promise(
    "model: a torch.jit.ScriptModule or a torch.jit.ScriptFunction",
    differs="torch.export doesn't capture TorchScript; an InputError says to give the module it was made of",
)
def test_kinds_of_models() -> None:
    for model in (linear(), torch.export.export(linear(), (X,))):
        assert onnxport.export(model, (X,)).model.graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(linear(), (X,)), torch.jit.trace(lambda x: x + 1, (X,))
    for model in scripted:
        with pytest.raises(onnxport.InputError):
            onnxport.export(model, (X,))


@promise("Any non-Tensor arguments will be hard-coded into the exported model")
def test_other_arguments_are_hard_coded() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, scale: float, how: str) -> torch.Tensor:
            return x * scale if how == "times" else x + scale

    program = onnxport.export(Scaled(), (X, 3.0, "times"))
    assert names(program.model.graph.inputs) == ["x"]
    torch.testing.assert_close(program(X, 3.0, "times")[0], X * 3)


@promise("any Tensor arguments will become inputs of the exported model, in the order they occur in the tuple")
def test_tensors_are_inputs_in_order() -> None:
    class Four(nn.Module):
        def forward(self, b: Any, a: Any, n: int, c: Any) -> torch.Tensor:
            return a + b[0] + b[1] * n + c

    assert names(onnxport.export(Four(), ([X, X], X, 2, X)).model.graph.inputs) == ["b_0", "b_1", "a", "c"]


@promise("kwargs: optional example keyword inputs")
def test_keyword_inputs() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, *, mask: torch.Tensor | None = None) -> torch.Tensor:
            return x if mask is None else x * mask

    program = onnxport.export(Masked(), (X,), kwargs={"mask": torch.ones(3)})
    assert names(program.model.graph.inputs) == ["x", "mask"]
    assert names(onnxport.export(Masked(), (X,)).model.graph.inputs) == ["x"]


@promise("verbose: whether to enable verbose logging")
def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    onnxport.export(linear(), (X,))
    assert not capsys.readouterr().out
    onnxport.export(linear(), (X,), verbose=True, dynamic_shapes=({0: "batch"},))
    shown = capsys.readouterr().out
    assert "capture" in shown and "translate" in shown and "batch" in shown


@promise("input_names: names to assign to the input nodes of the graph, in order")
@promise("output_names: names to assign to the output nodes of the graph, in order")
def test_names_in_order() -> None:
    class Swap(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return y + 1, x + 2

    program = onnxport.export(Swap(), (X, torch.ones(4)), input_names=["y", "x"], output_names=["first", "second"])
    graph = program.model_proto.graph
    assert (names(graph.input), sizes(graph.input)) == (["y", "x"], [[2, 3], [4]])
    assert (names(graph.output), sizes(graph.output)) == (["first", "second"], [[4], [2, 3]])


# Where and how it is written ------------------------------------------------------------------------------------------


@promise("f: path to the output ONNX model file, a str or a PathLike; it is recommended to leave it unspecified")
def test_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert onnxport.export(linear(), (X,)) is not None
    assert not list(tmp_path.iterdir())
    for f in ("text.onnx", tmp_path / "path.onnx"):
        assert isinstance(onnxport.export(linear(), (X,), f), onnxport.ONNXProgram)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["path.onnx", "text.onnx"]


@promise("opset_version: the version of the default (ai.onnx) opset to target")
@pytest.mark.parametrize("version", [18, 20, 23])
def test_opset(version: int) -> None:
    proto = onnxport.export(linear(), (X,), opset_version=version).model_proto
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", version)]


@promise("opset_version: leave as default (None) to use the recommended version", differs="20; torch's is 18 or newer")
def test_default_opset() -> None:
    assert onnxport.export(linear(), (X,)).model.opset_imports[""] == 20
    assert "20 when left out" in inspect.getdoc(onnxport.export)  # type: ignore[operator]


@promise("external_data: whether to save the model weights as an external data file")
@promise("external_data: when False, the weights are saved in the ONNX file with the model architecture")
def test_external_data(tmp_path: Path) -> None:
    model = nn.Linear(64, 64).eval()
    args = (torch.randn(1, 64),)
    onnxport.export(model, args, tmp_path / "default.onnx")
    onnxport.export(model, args, tmp_path / "inside.onnx", external_data=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["default.onnx", "default.onnx.data", "inside.onnx"]
    for name in ("default", "inside"):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        (result,) = session.run(None, {session.get_inputs()[0].name: args[0].numpy()})
        np.testing.assert_allclose(result, model(*args).detach().numpy(), rtol=1e-4, atol=1e-5)


@promise("external_data is required for models with large weights that exceed the ONNX file size limit (2GB)")
def test_large_models_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "PROTOBUF_LIMIT", 10_000)
    model, args = nn.Linear(64, 64).eval(), (torch.randn(1, 64),)
    with pytest.raises(onnxport.SaveError, match="external_data=True"):
        onnxport.export(model, args, tmp_path / "model.onnx", external_data=False)
    onnxport.export(model, args, tmp_path / "model.onnx")


@promise("dynamic_shapes: a dictionary or a tuple of dynamic shapes for the model inputs, as torch.export.export takes")
@pytest.mark.parametrize(
    "shapes",
    [
        {"x": {0: "batch"}},
        ({0: "batch"},),
        [{0: torch.export.Dim("batch")}],
        {"x": ["batch", None]},
        ({0: torch.export.Dim("batch", min=2, max=9), 1: torch.export.Dim.STATIC},),
    ],
    ids=["names", "tuple", "list", "sequence", "dims"],
)
def test_dynamic_shapes(shapes: Any) -> None:
    program = onnxport.export(SumModule(), (X,), dynamic_shapes=shapes)
    assert sizes(program.model_proto.graph.input) == [["batch", 3]]
    assert sizes(program.model_proto.graph.output) == [["batch"]]
    other = torch.randn(7, 3)
    torch.testing.assert_close(program(other)[0], other.sum(1))


@promise("dynamic_shapes is only used (and preferred) when dynamo is True")
def test_dynamic_shapes_are_preferred() -> None:
    with pytest.warns(DeprecationWarning, match="dynamic_axes"):
        program = onnxport.export(SumModule(), (X,), dynamic_shapes=({0: "a"},), dynamic_axes={"x": {1: "b"}})
    assert sizes(program.model_proto.graph.input) == [["a", 3]]


@promise("custom_translation_table: the callable target in the fx Node as key, a function using ONNX Script as value")
def test_custom_translation() -> None:
    from onnxscript import opset18 as op

    def by_exponentials(self: Any) -> Any:
        return op.Div(op.Constant(value_float=1.0), op.Add(op.Constant(value_float=1.0), op.Exp(op.Neg(self))))

    table = {torch.ops.aten.sigmoid.default: by_exponentials}
    program = onnxport.export(nn.Sigmoid(), (X,), custom_translation_table=table)
    assert "Sigmoid" not in [node.op_type for node in program.model.graph]
    torch.testing.assert_close(program(X)[0], X.sigmoid())


@promise("custom_translation_table: a Callable or a Sequence of Callables")
def test_several_translations() -> None:
    def refuses(op: Any, self: Any) -> Any:
        raise onnxport.Unsupported("never")

    def softly(op: Any, self: Any) -> Any:
        return op.Softplus(self)

    table = {torch.ops.aten.sigmoid.default: [refuses, softly]}
    program = onnxport.export(nn.Sigmoid(), (X,), custom_translation_table=table)
    assert [node.op_type for node in program.model.graph] == ["Softplus"]


# Options --------------------------------------------------------------------------------------------------------------


@promise("report: whether to generate a markdown report for the export process")
@promise("artifacts_dir: the directory to save the debugging artifacts like the report and the exported program")
def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnxport.export(linear(), (X,), report=True, artifacts_dir=tmp_path / "artifacts")
    markdown, data, page = sorted((tmp_path / "artifacts").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert markdown.read_text(encoding="utf-8").startswith("# onnxport report")
    assert json.loads(data.read_text(encoding="utf-8"))["succeeded"] is True
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


@promise("artifacts_dir='.': artifacts go to the working directory by default")
@promise("dump_exported_program: whether to dump the torch.export.ExportedProgram to a file")
def test_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = linear()
    onnxport.export(model, (X,), dump_exported_program=True)
    (path,) = tmp_path.iterdir()
    torch.testing.assert_close(torch.export.load(path).module()(X), model(X))


@promise("profile: whether to profile the export process")
def test_profile(tmp_path: Path) -> None:
    onnxport.export(linear(), (X,), profile=True, artifacts_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    text = path.read_text(encoding="utf-8")
    assert all(stage in text for stage in ("capture", "functionalize", "translate", "optimize", "seconds", "memory"))


@promise("optimize: whether to optimize the exported model; the default is True")
def test_optimize() -> None:
    class Wasteful(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.t().t() + torch.arange(3).sum()

    lean, plain = onnxport.export(Wasteful(), (X,)), onnxport.export(Wasteful(), (X,), optimize=False)
    assert [node.op_type for node in lean.model.graph] == ["Add"]
    assert len(plain.model.graph) > 1
    torch.testing.assert_close(lean(X)[0], plain(X)[0])


@promise("verify: whether to verify the exported model using ONNX Runtime")
def test_verify() -> None:
    def wrong(op: Any, self: Any) -> Any:
        return op.Neg(op.Sigmoid(self))

    onnxport.export(nn.Sigmoid(), (X,), verify=True)
    table = {torch.ops.aten.sigmoid.default: wrong}
    assert onnxport.export(nn.Sigmoid(), (X,), custom_translation_table=table)
    with pytest.raises(onnxport.VerificationError):
        onnxport.export(nn.Sigmoid(), (X,), custom_translation_table=table, verify=True)


@promise("export_params: when f is specified: if false, parameters (weights) will not be exported")
def test_without_parameters(tmp_path: Path) -> None:
    program = onnxport.export(linear(), (X,), tmp_path / "model.onnx", export_params=False)
    assert not onnx.load(tmp_path / "model.onnx").graph.initializer
    assert len(program.model.graph.initializers) == 2


@promise("keep_initializers_as_inputs: if True, all the initializers will also be added as inputs to the graph")
@promise("keep_initializers_as_inputs: if False, only the user inputs are added as inputs")
def test_initializers_as_inputs(tmp_path: Path) -> None:
    model = linear()
    for keep, expected in ((True, ["input", "weight", "bias"]), (False, ["input"])):
        onnxport.export(model, (X,), tmp_path / "model.onnx", keep_initializers_as_inputs=keep)
        assert names(onnx.load(tmp_path / "model.onnx").graph.input) == expected


@promise("keep_initializers_as_inputs: set this to True if you intend to supply model weights at runtime")
def test_weights_at_runtime(tmp_path: Path) -> None:
    onnxport.export(linear(), (X,), tmp_path / "model.onnx", keep_initializers_as_inputs=True)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    feeds = {"input": X.numpy(), "weight": np.zeros((4, 3), np.float32), "bias": np.full(4, 5, np.float32)}
    np.testing.assert_array_equal(session.run(None, feeds)[0], np.full((2, 4), 5, np.float32))


# dynamic_axes ---------------------------------------------------------------------------------------------------------


@promise("By default the exported model will have the shapes of all inputs and outputs set to match those in args")
def test_shapes_are_static_by_default(tmp_path: Path) -> None:
    args = (torch.ones(2, 2),)
    onnxport.export(SumModule(), args, tmp_path / "onnx.pb", input_names=["x"], output_names=["sum"])
    graph = onnx.load(tmp_path / "onnx.pb").graph
    assert sizes(graph.input) == [[2, 2]] and sizes(graph.output) == [[2]]


@promise("dynamic_axes: a dict of axis indices and names, or a list of axis indices with automatic names")
def test_dynamic_axes(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="dynamic_shapes"):
        onnxport.export(
            SumModule(),
            (torch.ones(2, 2),),
            tmp_path / "onnx.pb",
            input_names=["x"],
            output_names=["sum"],
            dynamic_axes={"x": {0: "my_custom_axis_name"}, "sum": [0]},
        )
    graph = onnx.load(tmp_path / "onnx.pb").graph
    assert sizes(graph.input) == [["my_custom_axis_name", 2]]
    assert sizes(graph.output) == [["sum_dynamic_axes_1"]]


@promise(
    "dynamic_axes: each name must also be provided in input_names or output_names",
    differs="the names of forward's parameters do too",
)
@pytest.mark.filterwarnings("ignore:dynamic_axes:DeprecationWarning")
def test_names_of_dynamic_axes() -> None:
    program = onnxport.export(SumModule(), (X,), dynamic_axes={"x": [0]})
    assert sizes(program.model_proto.graph.input) == [["x_dynamic_axes_1", 3]]
    with pytest.raises(onnxport.DynamicShapesError, match="'unknown'"):
        onnxport.export(SumModule(), (X,), dynamic_axes={"unknown": [0]})


@promise("dynamic_axes: Deprecated: prefer specifying dynamic_shapes when dynamo=True")
def test_dynamic_axes_warn() -> None:
    with pytest.warns(DeprecationWarning, match="dynamic_shapes"):
        onnxport.export(SumModule(), (X,), dynamic_axes={"x": [0]})


# Deprecated and changed -----------------------------------------------------------------------------------------------


@promise("training: deprecated option; instead, set the training mode of the model before exporting")
@promise("operator_export_type: deprecated option; only ONNX is supported")
@promise("do_constant_folding: deprecated option; it is always enabled")
@promise("custom_opsets, export_modules_as_functions, autograd_inlining: deprecated options")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("training", torch.onnx.TrainingMode.TRAINING),
        ("operator_export_type", torch.onnx.OperatorExportTypes.ONNX_ATEN),
        ("do_constant_folding", False),
        ("custom_opsets", {"com.example": 1}),
        ("export_modules_as_functions", True),
        ("autograd_inlining", False),
    ],
)
def test_deprecated_options(name: str, value: Any) -> None:
    model = linear()
    with pytest.warns(DeprecationWarning, match=name):
        program: Any = onnxport.export(model, (X,), **{name: value})
    assert not model.training
    assert program.model_proto == onnxport.export(model, (X,)).model_proto


@promise(
    "Returns ONNXProgram if dynamo is True, otherwise None",
    differs="dynamo=False is an InputError: there is no TorchScript exporter",
)
def test_the_torchscript_exporter_is_refused() -> None:
    with pytest.raises(onnxport.InputError, match="dynamo=False"):
        onnxport.export(linear(), (X,), dynamo=False)


@promise("dynamo=True is the default, optimize=True is the default, and there is no fallback option")
def test_defaults() -> None:
    parameters = inspect.signature(onnxport.export).parameters
    assert parameters["dynamo"].default is True and parameters["optimize"].default is True
    with pytest.raises(onnxport.InputError, match="fallback"):
        onnxport.export(linear(), (X,), fallback=True)
