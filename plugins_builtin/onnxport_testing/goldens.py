"""Goldens: how many nodes of each operator a file has, kept beside the tests."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from onnxport import ONNXProgram

UPDATE = "ONNXPORT_UPDATE_GOLDENS"
"""The environment variable with which goldens are written instead of compared."""


def node_counts(program: ONNXProgram) -> dict[str, int]:
    """The number of nodes by operator, of the graph, its subgraphs and functions; others' are ``domain::Name``."""
    graphs = [program.model.graph, *(function.graph for function in program.model.functions.values())]
    nodes = (node for graph in graphs for node in graph.all_nodes())
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    return dict(sorted(counts.items()))


def expect_node_counts(
    program: ONNXProgram, golden: str | os.PathLike[str], name: str = "", *, update: bool | None = None
) -> None:
    """Compare the node counts of a program with those that a JSON file has.

    Args:
        program: an export's result.
        golden: path of the file.
        name: the entry of the file; a file may have those of several tests.
        update: write the counts instead; by default, where ``ONNXPORT_UPDATE_GOLDENS`` is set to something else than 0.

    Raises:
        AssertionError: they differ, or the file has no such entry.
    """
    path = Path(golden)
    entries = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    counts = node_counts(program)
    if os.environ.get(UPDATE, "0") not in ("", "0") if update is None else update:
        entries[name] = counts
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", "utf-8")
        return
    advice = f"Set {UPDATE}=1 (pytest --update-goldens) to write it, and look at what changed."
    if name not in entries:
        raise AssertionError(f"{path} has no entry {name!r}. {advice}")
    before = entries[name]
    differing = [key for key in sorted({*before, *counts}) if before.get(key, 0) != counts.get(key, 0)]
    if differing:
        told = "\n".join(f"  {key}: {before.get(key, 0)} in the golden, {counts.get(key, 0)} now" for key in differing)
        raise AssertionError(f"The node counts differ from {path}, entry {name!r}:\n{told}\n{advice}")


__all__ = ["UPDATE", "expect_node_counts", "node_counts"]
