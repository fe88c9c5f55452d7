"""The results of a run as a page of documentation: totals by resolver, what doesn't pass and why, and each case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxport.kit import markdown

from onnxport_zoo.results import Status, read_run

_REASON = 200  # characters


def markdown_of(folder: Path, command: str) -> str:
    """The page's text.

    Args:
        folder: of the run.
        command: writes the page; the page says so.

    Raises:
        UsageError: there is no run in the folder.
    """
    run, records = read_run(folder)
    versions = ", ".join(
        f"{name} {version.partition('+')[0]}" for name, version in run["versions"].items() if name in _VERSIONS
    )
    lines = ["# Results of zoos", "", f"Written by `{command}`; don't edit it. {versions}.", "", *_totals(run, records)]
    failing = [record for record in records.values() if record["status"] != Status.PASSED]
    if failing:
        lines += ["", "## What doesn't pass", "", *_table(("case", "result", "stage", "why"), map(_reason, failing))]
    lines += ["", "## All cases", ""]
    lines += _table(
        ("case", "result", "nodes", "MB", "shapes", "largest difference", "relative"), map(_row, records.values())
    )
    return "\n".join(lines) + "\n"


_VERSIONS = ("python", "torch", "onnx", "onnxruntime")


def _totals(run: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line for each resolver: how many cases it has, how many have a result, and which."""
    statuses = [status for status in Status if any(record["status"] == status for record in records.values())]
    groups: dict[str, list[str]] = {}
    for name in run["cases"]:
        groups.setdefault(name.partition(":")[0], []).append(name)
    rows = []
    for group, names in groups.items():
        tried = [records[name]["status"] for name in names if name in records]
        counts = [str(tried.count(status)) for status in statuses]
        rows.append((group, str(len(names)), str(len(tried)), *counts))
    yield from _table(("resolver", "cases", "tried", *map(str, statuses)), rows)


def _reason(record: Mapping[str, Any]) -> Sequence[str]:
    message = " ".join(record.get("message", "").split())[:_REASON]
    if ties := sorted({tie for told in record.get("rounding", {}).values() for tie in told.get("ties", ())}):
        message += f" (choices among equal values or steps: {', '.join(ties)[:_REASON]})"
    return record["case"], record["status"], record.get("stage", ""), message


def _row(record: Mapping[str, Any]) -> Sequence[str]:
    found = [record["case"], record["status"], str(record.get("nodes", ""))]
    found.append(f"{record['bytes'] / 1e6:.1f}" if "bytes" in record else "")
    found.append(str(len(record["shapes"])) if "shapes" in record else "")
    found += [f"{float(record[key]):.1e}" if key in record else "" for key in ("max_abs", "relative")]
    return found


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(markdown(cell) for cell in row)} |" for row in rows)
