"""What the server of processes imports, once: all that an export and a verification import.

An export is made in a process beside it, which tells what was imported; the server itself runs nothing, and so has no
threads that a fork would lose.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys

import onnxport
import onnxruntime
import torch
from onnxport.kit import load

import onnxport_zoo.isolation
import onnxport_zoo.task

__all__ = ["onnxport_zoo", "onnxruntime"]


def _imports_of_an_export() -> list[str]:
    """The modules that an export and its verification import."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            os.close(reader)
            before = set(sys.modules)
            program = onnxport.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),))
            onnxport.verify(program)
            names = [name for name in sys.modules if name not in before]
            with os.fdopen(writer, "w") as file:
                json.dump(names, file)
        finally:  # what failed here fails in each case too, and is told there
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    imported: list[str] = json.loads(text) if text else []
    return imported


if hasattr(os, "fork"):
    load()
    for name in _imports_of_an_export():
        with contextlib.suppress(Exception):  # a module that another one puts into the table itself
            importlib.import_module(name)
