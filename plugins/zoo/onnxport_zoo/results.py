"""Results: one JSON object a line, appended when a case ends, so that a run that is killed loses none."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from onnxport.kit import UsageError

RESULTS, RUN = "results.jsonl", "run.json"


class Status(str, Enum):
    """What became of a case."""

    PASSED = "passed"  # the file computes what the model does
    ROUNDING = "rounding"  # it differs as the model does from itself when inputs are rounded otherwise
    WRONG = "wrong"  # it computes something else
    REFUSED = "refused"  # the export says what it can't do
    FAILED = "failed"  # the model can't be made, or something raised, or the file doesn't run
    CRASHED = "crashed"  # the process ended
    TIMEOUT = "timeout"
    MEMORY = "memory"  # more than it may have
    STOPPED = "stopped"  # by whoever ran it: this is never written

    def __str__(self) -> str:
        return self.value


def text_of(path: Path) -> dict[str, Any]:
    """The JSON object of a file."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def as_line(record: Mapping[str, Any]) -> str:
    """A record as a line; numbers that JSON doesn't have are text."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def write_whole(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(as_line(data))
    os.replace(temporary, path)


class Results:
    """The results of a run's folder.

    Args:
        folder: is made.

    Attributes:
        records: the last record of each case, by its name.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / RESULTS
        self._cut()
        self.records = {record["case"]: record for record in _lines(self._path)}

    def _cut(self) -> None:
        """Take away a last line that a kill left half written."""
        if self._path.exists():
            data = self._path.read_bytes()
            if data and not data.endswith(b"\n"):
                os.truncate(self._path, data.rfind(b"\n") + 1)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(as_line(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record["case"]] = dict(record)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return  # a run that goes on is writing it
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UsageError(f"{path}, line {number} is no JSON: {error}. Remove the line or the file.") from error


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What a folder says of its run, and the last record of each of its cases, in the order of the zoo.

    Raises:
        UsageError: there is no run in the folder.
    """
    if not (folder / RUN).is_file():
        raise UsageError(f"{folder} has no run: make one by onnxport zoo run ZOO.toml --out {folder}")
    run = text_of(folder / RUN)
    records = {record["case"]: record for record in _lines(folder / RESULTS)}
    return run, {name: records[name] for name in run["cases"] if name in records}
