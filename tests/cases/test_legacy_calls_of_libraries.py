"""Libraries that call torch's exporter as they always did, under as_torch_onnx()."""

from __future__ import annotations

import functools
import gzip
import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import pytest
import torch
from torch.onnx import export as imported_before

X = torch.randn(2, 3)
EVAL, TRAINING, PRESERVE = (getattr(torch.onnx.TrainingMode, name) for name in ("EVAL", "TRAINING", "PRESERVE"))
ONNX = torch.onnx.OperatorExportTypes.ONNX


def linear() -> torch.nn.Module:
    return torch.nn.Linear(3, 2).eval()


def dims(model: onnx.ModelProto) -> dict[str, list[Any]]:
    values = [*model.graph.input, *model.graph.output]
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def run(path: Any, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path if isinstance(path, bytes) else str(path))
    return session.run(
        None, dict(zip((i.name for i in session.get_inputs()), (x.numpy() for x in inputs), strict=True))
    )


def expect(path: Any, model: torch.nn.Module, *inputs: torch.Tensor) -> None:
    want = model(*inputs)
    for got, expected in zip(run(path, *inputs), want if isinstance(want, tuple) else (want,), strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_call_of_many_libraries(tmp_path):
    path, model = tmp_path / "model.onnx", linear()
    with onnxport.as_torch_onnx(), pytest.warns(UserWarning, match=r"dynamo=False.*as_torch_onnx") as caught:
        torch.onnx.export(
            model,
            X,
            str(path),
            input_names=["images"],
            output_names=["out"],
            dynamic_axes={"images": {0: "batch"}, "out": {0: "batch"}},
            do_constant_folding=True,
            opset_version=18,
            dynamo=False,
        )
    assert {warning.filename for warning in caught} == {__file__}
    assert dims(onnx.load(path)) == {"images": ["batch", 3], "out": ["batch", 2]}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]  # the weights are in it
    expect(path, model, torch.randn(5, 3))


@pytest.mark.parametrize(
    "options",
    [
        {"training": EVAL, "operator_export_type": ONNX, "export_params": True, "keep_initializers_as_inputs": None},
        {"custom_opsets": None, "export_modules_as_functions": False, "autograd_inlining": True, "verbose": False},
        {"dynamic_axes": {}, "input_names": [], "output_names": []},
        {"dynamic_axes": None, "kwargs": None, "opset_version": None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_asks_for_nothing_else_is_taken_without_a_word(options, tmp_path):
    model = linear()
    with onnxport.as_torch_onnx(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="This call asks for torch's TorchScript exporter")
        torch.onnx.export(model, (X,), tmp_path / "model.onnx", dynamo=False, **options)
    expect(tmp_path / "model.onnx", model, X)


@pytest.mark.parametrize(
    "options",
    [
        {"operator_export_type": torch.onnx.OperatorExportTypes.ONNX_ATEN_FALLBACK},
        {"do_constant_folding": False},
        {"custom_opsets": {"mine": 1}},
        {"export_modules_as_functions": True},
        {"autograd_inlining": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_has_no_effect_is_told(options, tmp_path):
    model = linear()
    with onnxport.as_torch_onnx(), pytest.warns(DeprecationWarning, match=f"{next(iter(options))}= .* no effect"):
        torch.onnx.export(model, (X,), tmp_path / "model.onnx", dynamo=False, **options)
    expect(tmp_path / "model.onnx", model, X)


@pytest.mark.parametrize("opset", [9, 11, 12])
@pytest.mark.parametrize("dynamo", [True, False])
def test_old_opsets_become_the_oldest_that_is_written(opset, dynamo, tmp_path):
    model = linear()
    with onnxport.as_torch_onnx(), pytest.warns(UserWarning, match=rf"opset_version={opset} .* opset 13"):
        torch.onnx.export(model, (X,), tmp_path / "model.onnx", opset_version=opset, dynamo=dynamo)
    assert [entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import] == [13]
    with pytest.raises(onnxport.OpsetError):
        onnxport.export(model, (X,), opset_version=opset)


def test_a_later_opset_is_the_one_asked_for(tmp_path):
    with onnxport.as_torch_onnx(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(linear(), (X,), tmp_path / "model.onnx", opset_version=21, dynamo=False)
    assert [entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import] == [21]


class Two(torch.nn.Module):
    def forward(self, x, y=None, *, scale=None):
        return (x if y is None else x + y) * (1 if scale is None else scale)


@pytest.mark.parametrize(
    ("args", "kwargs", "inputs"),
    [
        (X, None, (X,)),
        ([X, X], None, (X, X)),
        ((X, {"y": X}), None, (X, X)),
        ((X, {}), None, (X,)),
        ({"x": X, "y": X}, None, (X, X)),
        ((X,), {"scale": X}, (X, X)),
        ((X, None, {"scale": X}), None, (X, X)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ways_to_give_the_example(args, kwargs, inputs, tmp_path):
    model = Two().eval()
    with onnxport.as_torch_onnx():
        torch.onnx.export(model, args=args, f=tmp_path / "model.onnx", kwargs=kwargs, dynamo=False)
    scaled = bool(kwargs) or (isinstance(args, tuple) and isinstance(args[-1], dict) and "scale" in args[-1])
    want = X * X if scaled else sum(inputs)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", *inputs)[0], want.numpy(), rtol=1e-5)


class Modes(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.frozen = torch.nn.BatchNorm1d(3).eval()
        torch.nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        return self.frozen(self.norm(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("training", "wanted"), [(None, "eval"), (EVAL, "eval"), (PRESERVE, "train"), (TRAINING, "train")]
)
def test_the_mode_is_the_one_asked_for(training, wanted, tmp_path):
    model = Modes()  # in training mode, but for one part
    options = {} if training is None else {"training": training}
    with onnxport.as_torch_onnx():
        torch.onnx.export(model, (X,), tmp_path / "model.onnx", dynamo=False, **options)
    assert model.training and model.norm.training and not model.frozen.training
    if training in (None, EVAL):
        expect(tmp_path / "model.onnx", model.eval(), X)
    else:
        assert abs(run(tmp_path / "model.onnx", X)[0].mean()) < 1e-5  # normalized by the batch itself


@pytest.mark.filterwarnings("ignore")
def test_lists_of_axes_and_names_that_are_not_there(tmp_path):
    axes = {"x": [0], "out": [0], "nowhere": {0: "batch"}}
    with onnxport.as_torch_onnx(), pytest.warns(UserWarning, match=r"'nowhere'.*left out"):
        torch.onnx.export(
            linear(), X, tmp_path / "m.onnx", input_names=["x"], output_names=["out"], dynamic_axes=axes, dynamo=False
        )
    assert dims(onnx.load(tmp_path / "m.onnx")) == {"x": ["x_dynamic_axes_1", 3], "out": ["out_dynamic_axes_1", 2]}


class Loop(torch.nn.Module):
    def forward(self, x):
        return torch.stack([x[i].cumsum(0) for i in range(x.shape[0])])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_axes_that_the_model_makes_static(tmp_path):
    axes = {"x": {0: "batch", 1: "length"}, "out": {0: "batch", 1: "length"}}
    names = {"input_names": ["x"], "output_names": ["out"]}
    with onnxport.as_torch_onnx(), pytest.warns(UserWarning, match=r"axis 0 of x \('batch'\).*range\(x\.shape\[0\]\)"):
        torch.onnx.export(Loop().eval(), X, tmp_path / "m.onnx", dynamic_axes=axes, dynamo=False, **names)
    assert dims(onnx.load(tmp_path / "m.onnx")) == {"x": [2, "length"], "out": [2, "length"]}
    expect(tmp_path / "m.onnx", Loop(), torch.randn(2, 7))
    with onnxport.as_torch_onnx(), pytest.raises(onnxport.DynamicShapesError):  # a wish of the user's own
        torch.onnx.export(Loop().eval(), (X,), dynamic_shapes=({0: "batch", 1: "length"},))


@pytest.mark.filterwarnings("ignore")
def test_other_ways_to_the_function(tmp_path):
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs, dynamo=False)

    model, path = linear(), tmp_path / "model.onnx"
    with onnxport.as_torch_onnx():
        original = torch.onnx.export
        for export in (
            functools.partial(imported_before, dynamo=False),
            wrapped,
            torch.onnx.utils.export,
        ):
            path.unlink(missing_ok=True)
            export(model, X, str(path))
            assert onnx.load(path).producer_name == "onnxport"
            expect(path, model, X)
    assert torch.onnx.utils.export.__code__.co_filename != onnxport.as_torch_onnx.__wrapped__.__code__.co_filename


def test_a_direct_call_says_no():
    with pytest.raises(onnxport.InputError, match="TorchScript"):
        onnxport.export(linear(), (X,), dynamo=False)


@pytest.mark.filterwarnings("ignore")
def test_timm(tmp_path):
    timm = pytest.importorskip("timm")
    from timm.utils.onnx import onnx_export

    model = timm.create_model("test_resnet", pretrained=False).eval()
    with onnxport.as_torch_onnx():
        onnx_export(model, str(tmp_path / "model.onnx"), batch_size=1, input_size=(3, 64, 64), check=True)
    expect(tmp_path / "model.onnx", model, torch.randn(1, 3, 64, 64))


@pytest.mark.filterwarnings("ignore")
def test_helpers_of_onnxruntime(tmp_path):
    helper = pytest.importorskip("onnxruntime.transformers.torch_onnx_export_helper")
    model = linear()
    with onnxport.as_torch_onnx():
        helper.torch_onnx_export(
            model, (X,), f=str(tmp_path / "model.onnx"), input_names=["x"], opset_version=14,
            dynamic_axes={"x": {0: "batch"}}, use_external_data_format=False,
        )  # fmt: skip
    assert dims(onnx.load(tmp_path / "model.onnx"))["x"] == ["batch", 3]
    expect(tmp_path / "model.onnx", model, torch.randn(4, 3))


# Files ---------------------------------------------------------------------------------------------------------------


class Sink:
    """All that a file needs to be written to."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return len(data)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore:This call asks")
def test_files_open_for_writing(dynamo, tmp_path):
    model = linear()
    buffer, sink = io.BytesIO(), Sink()
    with onnxport.as_torch_onnx(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="This call asks")
        torch.onnx.export(model, (X,), buffer, dynamo=dynamo)
        torch.onnx.export(model, (X,), f=sink, dynamo=dynamo)
        with open(tmp_path / "a.onnx", "wb") as file:
            torch.onnx.export(model, (X,), file, dynamo=dynamo)
        with gzip.open(tmp_path / "a.gz", "wb") as packed:
            torch.onnx.export(model, (X,), packed, dynamo=dynamo)
    with gzip.open(tmp_path / "a.gz") as packed:
        contents = [buffer.getvalue(), sink.content, (tmp_path / "a.onnx").read_bytes(), packed.read()]
    for content in contents:
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
        expect(content, model, X)


def test_files_of_a_direct_call(tmp_path):
    buffer, model = io.BytesIO(), linear()
    program = onnxport.export(model, (X,), buffer, verify=True, external_data=True)
    assert buffer.getvalue() and onnx.load_from_string(buffer.getvalue()).graph.initializer
    expect(buffer.getvalue(), model, X)
    second = io.BytesIO()
    program.save(second)
    assert second.getvalue() == buffer.getvalue()
    empty = io.BytesIO()
    onnxport.export(model, (X,), empty, export_params=False)
    assert not onnx.load_from_string(empty.getvalue()).graph.initializer


@pytest.mark.parametrize("words", ["takes text", "is closed", "not open for writing"])
def test_files_that_can_not_be_written(words):
    with open(__file__, "rb") as read, io.BytesIO() as closed:
        closed.close()
        target = {"takes text": io.StringIO(), "is closed": closed, "not open for writing": read}[words]
        with pytest.raises(onnxport.InputError, match=words):
            onnxport.export(linear(), (X,), target)
        with pytest.raises(onnxport.InputError, match=words):
            onnxport.export(linear(), (X,)).save(target)


def test_a_file_that_fails_while_it_is_written():
    class Full(Sink):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(onnxport.SaveError, match="The disk is full"):
        onnxport.export(linear(), (X,), Full())
