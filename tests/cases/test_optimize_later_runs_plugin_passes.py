"""`ONNXProgram.optimize()` runs the passes of the export's plugins, each in its place."""

from __future__ import annotations

import copy
import io
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Pass, hookimpl

MODEL = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()).eval()
ARGS = (torch.randn(1, 3),)


class Passes:
    def __init__(self, **place: str) -> None:
        self.nodes: list[list[str]] = []
        self._place = place

    def _mine(self, model: Any) -> int:
        self.nodes.append([node.op_type for node in model.graph])
        model.metadata_props["case.pass"] = "ran"
        return 1

    @hookimpl
    def onnxport_ir_passes(self):
        return [Pass("case.later", self._mine, **self._place)]


def saved(program: onnxport.ONNXProgram) -> bytes:
    file = io.BytesIO()
    program.save(file)
    return file.getvalue()


@pytest.mark.parametrize("place", [{}, {"before": "dead_code"}, {"after": "transposed_weights"}])
@pytest.mark.parametrize("copied", [lambda program: program, copy.copy, copy.deepcopy])
def test_both_ways_give_the_same_file(place: dict[str, str], copied: Any) -> None:
    plugin = Passes(**place)
    at_once = onnxport.export(MODEL, ARGS, plugins=[plugin])
    later = copied(onnxport.export(MODEL, ARGS, plugins=[plugin], optimize=False))
    assert len(plugin.nodes) == 1
    later.optimize()
    assert len(plugin.nodes) == 2 and plugin.nodes[0] == plugin.nodes[1]
    assert saved(later) == saved(at_once)


def test_a_pass_that_fails_is_the_plugins_fault() -> None:
    class Fails:
        @hookimpl
        def onnxport_ir_passes(self):
            return [Pass("case.fails", lambda model: 1 // 0)]

    program = onnxport.export(MODEL, ARGS, plugins=[Fails()], optimize=False)
    with pytest.raises(onnxport.PluginError, match=r"case\.fails.*ZeroDivisionError"):
        program.optimize()
