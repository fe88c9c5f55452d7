"""What the server of processes imports, once: all that an export and a verification import.

An export is made in a process beside it, which tells what was imported; the server itself runs nothing, and so has no
threads that a fork would lose.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
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
_LARGE = 2**21
_ADVICE = 14, 25  # MADV_HUGEPAGE, MADV_COLLAPSE (Linux 6.1)


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


def _in_large_pages() -> None:
    """Move the memory of this process into large pages, where Linux can.

    A fork copies the table of pages, and a process that ends gives it back: that is a quarter of the time then. What
    fails leaves the memory as it was.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with open("/proc/self/maps", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    for place, access, *_, inode, name in ([*line, ""][:6] for line in lines):
        if access == "rw-p" and inode == "0" and name in ("", "[heap]"):
            start, end = (int(part, 16) for part in place.split("-"))
            start = -(-start // _LARGE) * _LARGE
            for advice in _ADVICE:
                madvise(start, max(end - start, 0) // _LARGE * _LARGE, advice)


if hasattr(os, "fork"):
    load()
    for name in _imports_of_an_export():
        with contextlib.suppress(Exception):  # a module that another one puts into the table itself
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a process of a case writes to no memory that it shares with this one
    if sys.platform == "linux":
        _in_large_pages()
