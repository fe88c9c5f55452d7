"""Writes ``kernels.json``: which operators onnxruntime's execution providers have kernels for.

The CPU provider's come from the onnxruntime that is installed. Those of other providers come from the table that
onnxruntime publishes for each release (``docs/OperatorKernels.md`` of its repository), since a build with them doesn't
import without their libraries::

    python -m onnxport_workbench.kernel_table [OperatorKernels.md VERSION]

``VERSION`` is a release or commit, kept in the file. Without arguments, other providers keep what the file has. Only
what a model of opset 18 or later can reach is kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

FILE = Path(__file__).with_name("kernels.json")
CPU = "CPUExecutionProvider"
KEPT = {"CUDAExecutionProvider"}
OPEN = 2**31 - 1
DOMAINS = {"ai.onnx": "", "": "", "com.microsoft": "com.microsoft"}

Rows = dict[str, list[tuple[int, int, dict[str, list[str]]]]]


def main() -> None:
    """Read, reduce and write the table."""
    old = json.loads(FILE.read_text()) if FILE.exists() else {"versions": {}, "sets": [], "providers": {}}
    versions = {**old["versions"], CPU: onnxruntime.__version__}
    providers: dict[str, Rows] = {
        name: {
            operator: [(a, b or OPEN, {kind: old["sets"][i] for kind, i in types.items()}) for a, b, types in rows]
            for operator, rows in operators.items()
        }
        for name, operators in old["providers"].items()
    }
    providers[CPU] = installed()
    if len(sys.argv) == 3:
        table = published(Path(sys.argv[1]).read_text())
        providers |= {name: rows for name, rows in table.items() if name in KEPT}
        versions |= dict.fromkeys(KEPT & set(table), sys.argv[2])
    sets: list[list[str]] = []
    data: dict[str, Any] = {"providers": {}}
    for name, operators in sorted(providers.items()):
        data["providers"][name] = {
            operator: encoded
            for operator, rows in sorted(operators.items())
            if (encoded := [encode(row, sets) for row in rows if reachable(operator, row)])
        }
    lines = [f'{{"versions": {json.dumps(versions)},', f'"sets": {json.dumps(sets)},', '"providers": {']
    for i, (name, operators) in enumerate(data["providers"].items()):
        rows = [f"{json.dumps(operator)}: {json.dumps(rows)}" for operator, rows in operators.items()]
        lines += [f'"{name}": {{', ",\n".join(rows), "}" + ("," if i + 1 < len(data["providers"]) else "")]
    FILE.write_text("\n".join([*lines, "}}"]) + "\n")


def installed() -> Rows:
    """The CPU kernels of the onnxruntime at hand."""
    rows: Rows = defaultdict(list)
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == CPU and kernel.domain in DOMAINS:
            types = {name: sorted(kinds) for name, kinds in kernel.type_constraints.items()}
            rows[qualified(kernel.domain, kernel.op_name)].append((*kernel.version_range, types))
    return rows


def published(text: str) -> dict[str, Rows]:
    """The kernels of the published markdown table, by provider."""
    found: dict[str, Rows] = {}
    rows: Rows = {}
    domain, operator = "", ""
    for line in text.splitlines():
        heading = re.match(r"## Operators implemented by (\w+)", line)
        if heading:
            rows = found[heading[1]] = defaultdict(list)
        cells = [cell.strip() for cell in line.split("|")][1:-1]
        named = re.match(r"\|\*\*Operator Domain:\*\* \*([\w.]+)\*", line)
        if named:
            domain = named[1]
        elif len(cells) == 4 and (version := re.fullmatch(r"\[(\d+), (\d+)\]|(\d+)(\+?)", cells[2])):
            operator = cells[0] or operator
            first = int(version[1] or version[3])
            last = int(version[2]) if version[2] else OPEN if version[4] else first
            types = dict(re.findall(r"\*\*(\w+)\*\* = ([^*<]+)", cells[3]))
            if domain in DOMAINS:
                listed = {name: sorted(kind.strip() for kind in kinds.split(", ")) for name, kinds in types.items()}
                rows[qualified(DOMAINS[domain], operator)].append((first, last, listed))
    return found


def qualified(domain: str, operator: str) -> str:
    return f"{domain}::{operator}" if domain else operator


def reachable(name: str, row: tuple[int, int, dict[str, list[str]]]) -> bool:
    """Whether a kernel serves some version of its operator from opset 18 on."""
    domain, _, operator = name.rpartition("::")
    if domain:
        return True
    for opset in range(18, onnx.defs.onnx_opset_version() + 1):
        try:
            since = onnx.defs.get_schema(operator, opset, domain).since_version
        except onnx.defs.SchemaError:
            continue
        if row[0] == since or row[0] < since <= row[1] != OPEN:
            return True
    return False


def encode(row: tuple[int, int, dict[str, list[str]]], sets: list[list[str]]) -> list[Any]:
    """A row with its sets of types as numbers; 0 for an open range."""
    numbers = {}
    for name, kinds in row[2].items():
        if kinds not in sets:
            sets.append(kinds)
        numbers[name] = sets.index(kinds)
    return [row[0], 0 if row[1] == OPEN else row[1], numbers]


if __name__ == "__main__":
    main()
