"""The session that ``verify`` compares with: its options, its providers, and libraries of operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxport
import onnxruntime as ort
import pytest
import torch
from onnxport import InputError
from onnxport_workbench import cli
from torch import nn
from typer.testing import CliRunner

X = torch.randn(2, 3)
CPU = ["CPUExecutionProvider"]


@torch.library.custom_op("sessions::negpos", mutates_args=())
def negpos(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.clamp(max=0), x.clamp(min=0)


@negpos.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


class NegPos(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        negative, positive = torch.ops.sessions.negpos(x)
        return positive - 2 * negative


def _translated(op: Any, x: Any) -> Any:
    """``NegPos`` of onnxruntime-extensions, which onnxruntime itself hasn't."""
    return op.call("ai.onnx.contrib", "NegPos", x, outputs=2, version=1)


@pytest.fixture(scope="module")
def program() -> onnxport.ONNXProgram:
    torch.manual_seed(0)
    return onnxport.export(nn.Linear(3, 4).eval(), (X,), dynamic_shapes=({0: "n"},))


@pytest.fixture(scope="module")
def foreign() -> onnxport.ONNXProgram:
    table = {torch.ops.sessions.negpos.default: _translated}
    return onnxport.export(NegPos(), (X,), dynamic_shapes=({0: "n"},), custom_translation_table=table)


@pytest.fixture(scope="module")
def library() -> str:
    return str(pytest.importorskip("onnxruntime_extensions").get_library_path())


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("*.json"):
        yield from (event for event in json.loads(path.read_text()) if event.get("cat") == "Node")


def test_the_options_are_those_of_the_session(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    result = onnxport.verify(program, session_options=options, providers=CPU)
    assert result.passed and len(result.comparisons) > 1
    assert {event["args"]["provider"] for event in _events(tmp_path)} == set(CPU)
    assert program.inference_session is None  # it had a session of its own


def test_the_session_of_a_program_stays(program: onnxport.ONNXProgram) -> None:
    program(X)
    session = program.inference_session
    assert onnxport.verify(program, providers=CPU).passed
    assert program.inference_session is session
    program.release()


def test_a_provider_with_options(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    program.save(tmp_path / "model.onnx")
    module = program.exported_program.module()
    result = onnxport.verify(
        tmp_path / "model.onnx", module, (X,), providers=[("CPUExecutionProvider", {"use_arena": "0"})]
    )
    assert result.passed


@pytest.mark.parametrize("providers", [["NoSuchProvider"], "CPUExecutionProvider", [3], [("CPUExecutionProvider",)]])
def test_providers_that_cannot_be(program: onnxport.ONNXProgram, providers: Any) -> None:
    with pytest.raises(InputError) as caught:
        onnxport.verify(program, providers=providers)
    assert caught.value.parameter is not None and caught.value.parameter.startswith("providers")


def test_options_of_another_type(program: onnxport.ONNXProgram) -> None:
    with pytest.raises(InputError, match="SessionOptions"):
        onnxport.verify(program, session_options={"intra_op_num_threads": 1})  # type: ignore[arg-type]


def test_an_operator_of_a_library(foreign: onnxport.ONNXProgram, library: str) -> None:
    without = onnxport.verify(foreign)
    assert not without.passed and "does not run" in without.failures()[-1]
    for custom_ops in (library, [library], Path(library)):
        assert onnxport.verify(foreign, custom_ops=custom_ops).passed
    options = ort.SessionOptions()
    assert onnxport.verify(foreign, session_options=options, custom_ops=[library], providers=CPU).passed


def test_a_wrong_operator_of_a_library_is_found(library: str) -> None:
    def swapped(op: Any, x: Any) -> Any:
        return tuple(reversed(_translated(op, x)))

    table = {torch.ops.sessions.negpos.default: swapped}
    wrong = onnxport.export(NegPos(), (X,), custom_translation_table=table)
    result = onnxport.verify(wrong, custom_ops=library)
    assert not result.passed and "differ" in "".join(result.failures())


def test_libraries_that_cannot_be(foreign: onnxport.ONNXProgram, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is no file: give its path"):
        onnxport.verify(foreign, custom_ops=[tmp_path / "none.so"])
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(InputError, match=r"can't load the library .*Build it for this onnxruntime"):
        onnxport.verify(foreign, custom_ops=str(tmp_path / "text.so"))
    with pytest.raises(InputError, match="custom_ops"):
        onnxport.verify(foreign, custom_ops=3)  # type: ignore[arg-type]


def test_the_command(foreign: onnxport.ONNXProgram, library: str, tmp_path: Path, monkeypatch: Any) -> None:
    foreign.save(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "session_models.py").write_text(
        "import torch\nfrom test_verify_sessions import NegPos\ndef net():\n    return NegPos(), (torch.randn(2, 3),)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    arguments = ["verify", "model.onnx", "session_models:net", "--provider", CPU[0]]
    refused = CliRunner().invoke(cli.app, arguments)
    assert refused.exit_code == cli.REFUSED, refused.output
    passed = CliRunner().invoke(cli.app, [*arguments, "--custom-ops", library])
    assert passed.exit_code == cli.OK, passed.output
