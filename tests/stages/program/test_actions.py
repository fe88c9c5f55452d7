"""What an ``ONNXProgram`` does is done by the first plugin that has the action."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from onnxport import ONNXProgram, PluginError, hookimpl
from onnxport.host import discovery
from onnxport.kit import Action, Captured, Request, interface_of, request_of
from torch import nn

X = torch.randn(2, 3)


class Pack:
    def __init__(self, *actions: Any) -> None:
        self._actions = list(actions)

    @hookimpl
    def onnxport_actions(self) -> Any:
        return self._actions


class Bucket:
    """Files by their address, which is no path."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Any]] = {}

    def check(self, destination: Any, external_data: bool) -> Any:
        return False if str(destination).startswith("bucket://") else NotImplemented

    def save(self, program: ONNXProgram, destination: Any, **options: Any) -> Any:
        if not str(destination).startswith("bucket://"):
            return NotImplemented
        self.files[str(destination)] = options
        return None


def test_a_pack_saves_where_the_built_in_cannot(tmp_path: Path) -> None:
    bucket = Bucket()
    pack = Pack(Action("save", bucket.save), Action("check_destination", bucket.check))
    program = onnxport.export(nn.ReLU(), (X,), "bucket://models/relu", plugins=[pack])
    assert bucket.files["bucket://models/relu"] == {
        "include_initializers": True,
        "keep_initializers_as_inputs": False,
        "external_data": False,
        "shard_bytes": None,
    }
    program.save(tmp_path / "relu.onnx")  # which the pack leaves to the built-in
    torch.testing.assert_close(ONNXProgram.load(tmp_path / "relu.onnx")(X)[0], X.relu())
    with pytest.raises(onnxport.SaveError, match="folder"):
        onnxport.export(nn.ReLU(), (X,), tmp_path / "none" / "relu.onnx", plugins=[pack])


def test_a_pack_runs_programs() -> None:
    def run(program: ONNXProgram, args: Any, kwargs: Any, all_outputs: bool) -> Any:
        return (torch.full((1,), float(len(program.model.graph))),)

    program = onnxport.export(nn.ReLU(), (X,), plugins=[Pack(Action("run", run))])
    assert program(X)[0].tolist() == [1.0]
    assert program.inference_session is None
    torch.testing.assert_close(program.call_reference(X)[0], X.relu())  # the built-in's


def test_an_error_of_an_action_is_the_callers() -> None:
    def run(*_: Any) -> Any:
        raise ZeroDivisionError("of the pack")

    program = onnxport.export(nn.ReLU(), (X,), plugins=[Pack(Action("run", run))])
    with pytest.raises(ZeroDivisionError, match="of the pack"):
        program(X)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action("store", print), "name is 'store', it must be one of choose_target, "),
        (Action("save", 3), "function is 3, it must be a function"),  # type: ignore[arg-type]
        (print, "expected Action objects"),
    ],
)
def test_mistakes_in_actions(action: Any, said: str) -> None:
    pack = Pack(action)
    program = onnxport.export(nn.ReLU(), (X,), plugins=[pack])
    torch.testing.assert_close(program(X)[0], X.relu())  # by the built-in, as before
    (info,) = discovery.load([pack]).failures
    assert said in info.error


def test_an_action_that_no_plugin_does() -> None:
    with pytest.raises(PluginError, match="No plugin does 'whistle'"):
        discovery.load(()).act("whistle")


def test_a_pack_captures_a_model_in_its_own_way() -> None:
    captured: list[Request] = []

    def capture(model: Any, request: Request, plugins: Any, **told: Any) -> Any:
        if not isinstance(model, nn.Tanh):
            return NotImplemented
        captured.append(request)
        program = torch.export.export(model, request.args, request.kwargs, strict=True)
        return Captured(program, interface_of(program, request), {"x < 3": ""})

    pack = Pack(Action("capture", capture))
    program = onnxport.export(nn.Tanh(), (X,), input_names=["given"], plugins=[pack])
    assert [leaf.path for leaf in captured[0].leaves] == ["input"]
    assert [value.name for value in program.model.graph.inputs] == ["given"]
    torch.testing.assert_close(program(X)[0], X.tanh())
    program = onnxport.export(nn.ReLU(), (X,), plugins=[pack])  # which the pack leaves to the built-in
    torch.testing.assert_close(program(X)[0], X.relu())
    assert len(captured) == 1


def test_a_pack_prepares_what_the_built_in_does_not_take() -> None:
    def prepare(model: Any, args: Any, kwargs: Any, **options: Any) -> Any:
        return request_of(model, (torch.as_tensor(args),), kwargs) if isinstance(args, list) else NotImplemented

    program = onnxport.export(nn.ReLU(), [[1.0, -1.0]], plugins=[Pack(Action("prepare", prepare))])
    torch.testing.assert_close(program(torch.tensor([[2.0, -2.0]]))[0], torch.tensor([[2.0, 0.0]]))
