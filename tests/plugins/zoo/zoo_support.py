"""What tests of zoos share: zoos of toy cases, and runs of them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from onnxport_zoo.engines import Engine, local
from onnxport_zoo.running import Summary, run_zoo

HERE = Path(__file__).parent
BAD = {"crash": "crashed", "hang": "timeout", "eat": "memory", "wrong": "wrong"}
EXPECTED = {f"toys.py:{name}": status for name, status in BAD.items()}


def write_zoo(folder: Path, names: list[str], extra: str = "") -> Path:
    """A zoo of toys in a folder that has a copy of their module."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "toys.py", folder)
    text = '[defaults]\nseconds = 240\nmemory = "1500 MiB"\nlatency = false\n'
    for name in names:
        text += f"[[cases]]\nmodel = 'toys.py:{name}'\n"
        text += {"hang": "seconds = 4\n", "relu": "latency = true\n"}.get(name, "")
    path = folder / "zoo.toml"
    path.write_text(text + extra)
    return path


def performed(zoo: Path, out: Path, engine: Engine | None = None, **options: Any) -> Summary:
    """A run of a zoo, one case at a time."""
    return run_zoo(zoo, out, engine or local(1), **options)


def statuses(summary: Summary) -> dict[str, str]:
    return {record["case"]: str(record["status"]) for record in summary.records}


def environment() -> dict[str, str]:
    """The variables of a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
