"""``check(runtime=...)`` for other runtimes: which nodes would fall back, why, and what avoids it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnxport
import onnxport_targets
import pytest
import torch
from onnxport.kit import onnx_schema
from onnxport_targets.fallbacks import fallbacks
from onnxport_targets.tables import NAMES, targets
from onnxport_workbench import cli
from support import as_module
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

OWN: dict[str, Any] = {"plugins": [onnxport_targets]}
X = torch.randn(2, 3, 8, 8)


def looked(model: Any, *args: Any, runtime: str, **options: Any) -> list[Any]:
    module = model if isinstance(model, nn.Module) else as_module(model)
    return list(onnxport.check(module.eval(), args, runtime=runtime, **OWN, **options).missing_kernels)


def reasons(found: list[Any]) -> dict[str, str]:
    return {each.operator: each.reason for each in found if each.certain}


# The tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_table_says_where_it_is_from_and_names_what_exists(name: str) -> None:
    target = targets()[name]
    assert target.source and target.date and target.otherwise and target.unknown
    assert len(target.operators) > 50
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    gone = {"ImageScaler", "Inverse", "SimplifiedLayerNormalization"}  # in the pages, and not in ONNX
    types = {each.name for each in onnxport.DataType}
    for operator, facts in target.operators.items():
        domain, _, plain = operator.rpartition("::")
        assert domain == "com.microsoft" or plain in known | gone, operator
        assert set(facts.types) <= types, operator
        schema = None if domain else onnx_schema(plain, "", 24)
        assert schema is None or set(facts.attributes) <= set(schema.attributes), operator
        places = [int(i) for i in facts.ranks] + list(facts.constant) + list(facts.static)
        assert schema is None or all(place < max(len(schema.inputs), 1) for place in places), operator


def test_profiles_have_the_source() -> None:
    profiles = {profile.name: profile for profile in onnxport_targets.onnxport_profiles()}
    assert set(profiles) == set(NAMES)
    assert "docs/operators.md of github.com/onnx/onnx-tensorrt" in profiles["tensorrt"].description


# Operators, types, ranks, sizes --------------------------------------------------------------------------------------


def test_an_operator_that_the_table_lacks() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.det(self.inner(x))  # not in TensorRT

    (found,) = (each for each in looked(Net(), X, runtime="tensorrt") if each.certain)
    assert (found.operator, found.count) == ("Det", 1)
    assert found.reason == "the table doesn't have the operator" and not found.option
    assert "# not in TensorRT" in found.sources[0] and __file__.rpartition("/")[2] in found.sources[0]


@pytest.mark.parametrize(("function", "operator", "opset"), [
    (lambda x: F.layer_norm(x, (8,)), "LayerNormalization", 16), (F.gelu, "Gelu", 19), (F.hardswish, "HardSwish", 13),
])  # fmt: skip
def test_the_opset_that_avoids_an_operator(function: Any, operator: str, opset: int) -> None:
    (found,) = (each for each in looked(function, X, runtime="openvino") if each.operator == operator)
    assert found.option == f"opset_version={opset}, which has no {operator}"
    assert operator not in reasons(looked(function, X, runtime="openvino", opset_version=opset))


def test_types() -> None:
    assert not reasons(looked(lambda x: x + 1, X.bfloat16(), runtime="tensorrt"))
    (found,) = looked(lambda x: x + 1, X.bfloat16(), runtime="onnxruntime-mobile", opset_version=15)
    assert found.reason == "bfloat16 isn't taken" and found.option == "dtype='float16', or no dtype"
    half = looked(lambda x: x + 1, X.half(), runtime="onnxruntime-mobile", opset_version=15)
    assert [(each.operator, each.option) for each in half] == [("Add", "no dtype: float32")]


def test_doubles_are_narrowed() -> None:
    (found,) = looked(lambda x: x + 1, X.double(), runtime="tensorrt")
    assert not found.certain and found.option == "model.float(), and inputs of float32"
    (found,) = looked(lambda x: x + 1, X.double(), runtime="onnxruntime-mobile", opset_version=13)
    assert found.certain and found.reason == "double isn't taken"


def test_ranks_and_attributes() -> None:
    pool = looked(lambda x: F.avg_pool1d(x.flatten(2), 2), X, runtime="coreml")
    assert reasons(pool)["AveragePool"] == "input 0 has 3 axes; 4 are taken"
    resize = looked(lambda x: F.interpolate(x, size=5, mode="bicubic"), X, runtime="tensorrt")
    assert reasons(resize)["Resize"] == "mode=cubic; nearest or linear is taken"
    dilated = looked(lambda x: F.max_pool2d(x, 3, dilation=2), X, runtime="tensorrt")
    assert reasons(dilated)["MaxPool"] == "dilations=(2, 2); ones is taken"
    assert not reasons(looked(lambda x: F.max_pool2d(x, 3), X, runtime="tensorrt"))
    indices = looked(lambda x: F.max_pool2d(x, 2, return_indices=True), X, runtime="tensorrt")
    assert reasons(indices)["MaxPool"] == "results behind the first 1 aren't given"


def test_dynamic_sizes_and_what_fixes_them() -> None:
    shapes = {"x": {0: "batch"}}

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() + torch.arange(x.shape[0])[:, None, None, None]

    found = looked(Net(), X, runtime="qnn", dynamic_shapes=shapes)
    assert str(found[0]).startswith("the model: dynamic sizes: batch (x axis 0)\n    instead: program.fix(batch=1)")
    assert reasons(found)["Range"] == "input 1 is computed; it has to be a constant"
    program = onnxport.export(Net(), (X,), dynamic_shapes=shapes, runtime="qnn", verbose=False, **OWN)
    assert program.model.metadata_props["onnxport.runtime"] == "qnn"
    program.fix(batch=2)
    assert not [each for each in fallbacks(program, "qnn") if each.certain]


def test_opsets() -> None:
    found = looked(lambda x: x + 1, X, runtime="onnxruntime-mobile")
    assert found[0].reason == "opset 20; the runtime takes 12 to 15" and found[0].option == "opset_version=15"
    assert not looked(lambda x: x + 1, X, runtime="onnxruntime-mobile", opset_version=15)


def test_versions() -> None:
    assert not reasons(looked(lambda x: x.relu() + x, X, runtime="webgpu"))
    found = looked(lambda x: (x > 0) & (x < 1), X, runtime="webgpu")
    assert reasons(found) == {"And": "the table doesn't have the operator"}
    program = onnxport.export(as_module(lambda x: x.transpose(1, 2)), (X,), opset_version=24, verbose=False)
    (found,) = fallbacks(program, "webgpu")
    assert found.reason.startswith("the table has version 1 to 12") and found.option == "opset_version=22"


# Results -------------------------------------------------------------------------------------------------------------


def test_a_model_that_all_of_is_taken() -> None:
    result = onnxport.check(nn.Conv2d(3, 4, 3).eval(), (X,), runtime="coreml", **OWN)
    assert not result.missing_kernels
    assert "coreml: no node is known that it doesn't take" in str(result)


def test_a_result_as_text_and_json() -> None:
    result = onnxport.check(as_module(torch.linalg.det), (X,), runtime="tensorrt", **OWN)
    text = str(result)
    assert "tensorrt: 1 of " in text and "as of 20" in text and "It doesn't tell: " in text
    assert json.loads(result.to_json())["missing_kernels"][0]["operator"] == "Det"


def test_nodes_of_functions_and_bodies() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, torch.linalg.det, lambda x: x.sum(-1).sum(-1), (self.norm(x),))

    program = onnxport.export(Net().eval(), (X,), functions=[nn.LayerNorm], verbose=False)
    found = reasons(fallbacks(program, "openvino"))
    assert set(found) >= {"LayerNormalization", "Det"}


def test_a_model_with_refusals_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.library.custom_op("onnxport_targets_test::own", mutates_args=())
    def own(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    own.register_fake(torch.empty_like)
    result = onnxport.check(as_module(lambda x: torch.linalg.det(own(x))), (X,), runtime="tensorrt", **OWN)
    assert len(result.refusals) == 1


def test_a_file_and_the_command(tmp_path: Path) -> None:
    path = tmp_path / "det.onnx"
    onnxport.export(as_module(torch.linalg.det), (X,), path, verbose=False)
    (found,) = fallbacks(path, "tensorrt")
    assert found.operator == "Det" and found.count == 1
    with pytest.raises(onnxport.InputError, match="give one of 'tensorrt', 'coreml'"):
        fallbacks(path, "tensorflow")
    from onnxport_targets.commands import add

    app = cli.typer.Typer()
    add(app)
    app.callback()(lambda: None)
    result = CliRunner().invoke(app, ["fallbacks", str(path), "--runtime", "tensorrt", "--json"])
    assert json.loads(result.stdout)[0]["operator"] == "Det"
    result = CliRunner().invoke(app, ["fallbacks", str(path), "--runtime", "openvino"])
    assert "Det-11 (1 node)" in result.stdout
