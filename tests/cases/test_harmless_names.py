"""Names with terminal sequences, markup or surrogates are shown as they are written, in all messages and pages."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxport import text as display
from onnxport.vocabulary import callers, notes
from onnxport_builtin import pages
from onnxport_workbench.cli import app
from onnxport_workbench.cli_output import PlainConsole
from typer.testing import CliRunner

EVIL = "\x1b[31mred\x1b[0m\x07|`<script>alert(1)</script>[a](http://b)\u202egnp.exe\x9b2J\r\nnext\udcff"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def harmless(text: str) -> bool:
    """A terminal and a file take the text."""
    return not CONTROL.search(text) and bool(text.encode())


@pytest.mark.parametrize("text", [EVIL, "\x00\x7f", "a\tb\nc", "日本語 ünï", "\ud83d", "\u2028\u2066x\ufeff"])
def test_texts(text: str) -> None:
    assert harmless(display.plain(text))
    cell = pages.markdown(text)
    assert harmless(cell) and "\n" not in cell and "<script" not in cell and "](" not in cell
    assert not re.search(r"(?<!\\)[|`]", cell.replace(r"\\", ""))
    block = pages.fenced(f"```\n{text}\n```")
    assert harmless(block) and block.count("```") == 2
    if text == "日本語 ünï":
        assert display.plain(text) == pages.markdown(text) == text


def test_errors_and_warnings(caplog: pytest.LogCaptureFixture) -> None:
    for kind in (onnxport.InputError, onnxport.SaveError, onnxport.FileError, onnxport.MissingFileError,
                 onnxport.WeightError, onnxport.OnnxExporterError):  # fmt: skip
        error = kind(f"The name {EVIL} is wrong.")
        assert harmless(str(error)) and harmless(str(error.args[0])) and "\\x1b[31mred" in str(error)
    refusal = onnxport.Refusal(EVIL, 1, EVIL, EVIL, [EVIL])
    assert harmless(str(onnxport.UnsupportedOperatorsError([refusal]))) and harmless(str(refusal))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callers.warn(EVIL)
    assert harmless(str(caught[0].message))
    with caplog.at_level(logging.INFO):
        notes.note(EVIL)
    assert harmless(caplog.records[-1].getMessage())


def test_a_model_of_somebody_else(tmp_path: Path) -> None:
    """Its names are foreign: of values, nodes and dimensions."""
    name = EVIL.replace("\udcff", "")
    x = helper.make_tensor_value_info(name, TensorProto.FLOAT, [name, 4])
    y = helper.make_tensor_value_info(f"{name}y", TensorProto.FLOAT, [name, 4])
    w = numpy_helper.from_array(np.zeros((4, 4), np.float32), f"{name}w")
    node = helper.make_node("MatMul", [name, f"{name}w"], [f"{name}y"], name=name)
    graph = helper.make_graph([node], name, [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    program = onnxport.ONNXProgram.load(tmp_path / "m.onnx")
    assert harmless(repr(program)) and harmless(str(program))
    result = onnxport.verify(tmp_path / "m.onnx", torch.nn.Linear(4, 4), (torch.ones(2, 4),))
    assert not result.passed and harmless(result.table()) and all(map(harmless, result.failures()))
    assert "<script" not in result.table() and len(set(map(_cells, result.table().splitlines()[:3]))) == 1
    for wrong in (lambda: program(torch.ones(2, 5)), lambda: program(), lambda: program.compute_values([f"{name}z"])):
        with pytest.raises(onnxport.OnnxExporterError) as caught:
            wrong()
        assert harmless(str(caught.value))
    program.save(tmp_path / "again.onnx")
    assert onnx.load(tmp_path / "again.onnx").graph.input[0].name == name  # the file keeps them


def _cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row))


@torch.library.custom_op("case_foreign::operator", mutates_args=())
def operator(x: torch.Tensor) -> torch.Tensor:
    """An operator that nothing translates."""
    return x + 1


@operator.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Foreign(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return operator(x)


def network(inner: torch.nn.Module) -> torch.nn.Module:
    model = torch.nn.Sequential()
    model.add_module(EVIL.replace(".", ""), inner)
    return model


def test_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.ones(3, 3)
    onnxport.export(network(torch.nn.Linear(3, 3)), (x,), report=True, profile=True, verbose=True, verify=True,
                    artifacts_dir=tmp_path)  # fmt: skip
    with pytest.raises(onnxport.OnnxExporterError) as caught:
        onnxport.export(network(Foreign()), (x,), report=True, verbose=True, artifacts_dir=tmp_path)
    assert harmless(str(caught.value))
    pages = sorted(tmp_path.glob("*.md"))
    assert len(pages) >= 2
    for page in (*pages, *tmp_path.glob("*.json"), *tmp_path.glob("*.html")):
        text = page.read_text("utf-8")
        assert harmless(text)
        outside = re.sub(r"(?ms)^```.*?^```", "", text)
        assert page.suffix != ".md" or "<script" not in outside
    assert harmless(capsys.readouterr().out)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "\x1b[31m[red]m.py"
    path.write_text("def broken():\n    raise ValueError('\\x1b[2J[bold]')\n")
    run = CliRunner()
    commands = [["export", f"{path}:broken", "-o", "m.onnx"], ["check", f"{path}:none"], ["explain", "\x1b[1m[red]"],
                ["export", "[/red]:none", "-o", "\x1b[1m.onnx"], ["verify", f"{path}", "\x1b:x"]]  # fmt: skip
    for command in commands:
        outcome = run.invoke(app, command)
        assert outcome.exit_code in (1, 2)
        assert harmless(outcome.output)
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit)


def test_a_console_shows_markup() -> None:
    from rich.table import Table

    console = PlainConsole()
    table = Table("name")
    table.add_row("[red]\x1b[1m:smile:")
    with console.capture() as captured:
        console.print("[/bold] [link=x]:smile:\x1b[2J", style="red")
        console.print(table)
    text = captured.get()
    assert "[/bold] [link=x]:smile:\\x1b[2J" in text and "[red]\\x1b[1m:smile:" in text


def test_axes_and_inputs_of_ones_own() -> None:
    """What may not be a name at all is refused, in a harmless message."""
    calls: list[dict[str, Any]] = [
        {"input_names": [EVIL, EVIL]},
        {"dynamic_shapes": {EVIL: {0: "n"}}},
        {"functions": [EVIL]},
        {"plugins": [EVIL]},
        {"metadata": EVIL},
    ]
    for options in calls:
        with pytest.raises(onnxport.OnnxExporterError) as caught:
            onnxport.export(torch.nn.Linear(3, 3), (torch.ones(2, 3),), **options)
        assert harmless(str(caught.value))
