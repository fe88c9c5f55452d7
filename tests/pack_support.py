"""What tests of plugins share: packs made of functions, packs that lie on the path as if installed, what is said."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from onnxport import collect, hookimpl
from onnxport.host import discovery


class Pack:
    """A plugin with the translations of some decorated functions."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self._functions = functions

    @hookimpl
    def onnxport_translations(self) -> list[onnxport.Translation]:
        return collect(*self._functions)


def write_pack(folder: Path, name: str, source: str) -> None:
    """A module with an entry point of its name, found by whoever has the folder on his path."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[onnxport]\n{name} = {name}\n")


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Installs packs for one test: call it with a name and the source of the module."""
    folder = tmp_path / "packs"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    names: list[str] = []

    def install(name: str, source: str) -> None:
        write_pack(folder, name, source)
        names.append(name)
        discovery.forget()

    discovery.forget()
    yield install
    for name in names:
        sys.modules.pop(name, None)
    monkeypatch.undo()
    discovery.forget()


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """What is warned of and logged meanwhile."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("onnxport")
    logger.addHandler(listener)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield heard
        finally:
            logger.removeHandler(listener)
            heard += [str(warning.message) for warning in told]


class Unary(torch.nn.Module):
    """One operator on one tensor."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


X = torch.randn(2, 3)
