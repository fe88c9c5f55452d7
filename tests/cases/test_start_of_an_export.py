"""The first export of a process loads nothing of the command line: its libraries take a quarter of a second."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import onnxport
import torch

onnxport.export(torch.nn.ReLU(), (torch.ones(2),), plugins=())
print(*sorted({"typer", "rich", "click"} & sys.modules.keys()))
"""


def test_an_export_loads_no_library_of_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
