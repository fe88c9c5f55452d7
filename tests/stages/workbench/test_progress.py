"""What an export shows while it works: lines, a line of a terminal, or an output of a notebook; else nothing."""

from __future__ import annotations

import io
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from onnxport import hookimpl
from torch import nn

X = torch.randn(2, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).relu()


class Unexportable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes standard error a terminal; called in the test, since pytest puts its own stream there before it."""

    def make() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        return stream

    return make


class Notebook:
    """IPython as far as a kernel of a notebook shows it: a display whose content is replaced."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.ids: list[bool] = []

    def display(self, content: str, display_id: bool) -> Notebook:
        self.ids.append(display_id)
        self.update(content)
        return self

    def update(self, content: str) -> None:
        self.shown.append(content)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    made = Notebook()
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    shows: Any = types.ModuleType("IPython.display")
    shows.HTML, shows.display = str, made.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shows)
    return made


def test_a_terminal_shows_model_step_and_result(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    onnxport.export(Net().eval(), (X,))
    told = stream.getvalue()
    assert "Exporting Net (16 parameters, 64 B)" in told
    assert "Exported Net in " in told.splitlines()[-1] and "2 nodes, weights 64 B" in told
    assert any(f": {stage}" in told for stage in ("capture", "functionalize", "translate", "optimize"))


@pytest.mark.parametrize("verbose", [False, [].append], ids=["False", "a function"])
def test_nothing_is_shown_where_it_was_not_asked_for(terminal: Callable[[], Terminal], verbose: Any) -> None:
    stream = terminal()
    onnxport.export(Net().eval(), (X,), verbose=verbose)
    assert stream.getvalue() == ""


def test_nothing_is_shown_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    onnxport.export(Net().eval(), (X,))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "closed"])
def test_without_standard_error(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert onnxport.export(Net().eval(), (X,)).model.graph


def test_a_failure_ends_the_display(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(Unexportable(), (X,))
    assert "Exporting Unexportable: failed at capture" in stream.getvalue().splitlines()[-1]
    onnxport.export(Net().eval(), (X,))
    assert "Exported Net in " in stream.getvalue().splitlines()[-1]


def test_lines_tell_stages_and_interface(capsys: pytest.CaptureFixture[str]) -> None:
    onnxport.export(Net().eval(), (X,), dynamic_shapes=({0: "batch"},), verbose=True)
    lines = [line.removeprefix("[onnxport] ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Exporting Net (16 parameters, 64 B)"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "capture", "  input x", "  outputs", "functionalize", "translate", "optimize",
        lines[-1].partition(":")[0],
    ]  # fmt: skip
    assert "  input x: tensor {'0': 'batch'}" in lines
    assert lines[-1].startswith("Exported Net in ")


def test_a_second_attempt_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(Unexportable(), (X,), verbose=True, dynamic_shapes=({0: "n"},))
    told = capsys.readouterr().out
    assert "[onnxport] Exporting Unexportable: failed at " in told.splitlines()[-1]
    assert "capture: " in told


def test_a_notebook_has_one_output_that_changes(notebook: Notebook) -> None:
    onnxport.export(Net().eval(), (X,))
    assert notebook.ids == [True]
    assert notebook.shown[0].startswith("<div>Exporting Net (16 parameters, 64 B): 0 s<br>")
    assert any("translate" in shown for shown in notebook.shown)
    assert "<div>Exported Net in " in notebook.shown[-1] and "2 nodes" in notebook.shown[-1]
    assert not [thread for thread in threading.enumerate() if thread.name == "onnxport progress"]


def test_a_notebook_goes_on_counting_in_a_long_step(notebook: Notebook) -> None:
    class Slow(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(1.2)
            return super().forward(x)

    onnxport.export(Slow().eval(), (X,))
    assert len([shown for shown in notebook.shown if shown.endswith("<br>capture</div>")]) >= 3


def test_a_failure_in_a_notebook(notebook: Notebook) -> None:
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(Unexportable(), (X,))
    assert "failed at capture" in notebook.shown[-1]


def test_names_are_text(notebook: Notebook) -> None:
    hostile = type("<b>Net</b>", (Net,), {})
    onnxport.export(hostile().eval(), (X,))
    assert not any("<b>" in shown for shown in notebook.shown)


def test_parameters_without_a_size_yet(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    onnxport.export(nn.LazyLinear(3), (X,))
    assert "Exporting LazyLinear" in stream.getvalue() and "Exported LazyLinear in " in stream.getvalue()


def test_exports_of_several_threads_share_a_terminal(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    errors: list[Exception] = []

    def work() -> None:
        try:
            onnxport.export(Net().eval(), (X,))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert "Exported Net" in stream.getvalue()


def test_a_pack_shows_its_own_progress(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    steps: list[str] = []

    class Pack:
        @hookimpl
        def onnxport_before_export(self) -> list[Any]:
            return [self.start]

        def start(self, run: Any) -> None:
            assert isinstance(run.asked["model"], Net)
            run.observer = steps.append

    onnxport.export(Net().eval(), (X,), plugins=[Pack()])
    assert steps == ["capture", "functionalize", "translate", "optimize"]
    assert stream.getvalue() == ""
