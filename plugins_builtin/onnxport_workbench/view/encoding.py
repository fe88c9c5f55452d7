"""What a page shows, as compact JSON: tables of strings, columns of numbers."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from onnxport.kit import plain

from onnxport_workbench.view.contents import Contents, Entry, Frame
from onnxport_workbench.view.repeats import repeats_of


class _Strings:
    """Strings by number, each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def table(self) -> list[str]:
        return list(self._numbers)


def encoded(
    contents: Contents, about: Mapping[str, Any], latencies: Mapping[int, float] | None = None
) -> dict[str, Any]:
    """The data of a page as JSON types.

    Indices of values are relative to the node's first result, and these to those of the node before, so that equal
    layers give equal numbers, which compress well.

    Args:
        contents: the graphs.
        about: what is told of the whole model: it goes into the page as it is.
        latencies: seconds by ``id`` of node; a comparison puts others between them.
    """
    strings = _Strings()
    number = strings.number
    number("")
    traces = _Traces(number)
    groups, nodes = contents.groups, contents.nodes
    attributes: dict[tuple[tuple[str, str], ...], int] = {}
    firsts = [node.outputs[0] if node.outputs else 0 for node in nodes]
    data: dict[str, Any] = {
        "about": dict(about),
        "groups": {
            "kind": [group.kind for group in groups],
            "name": [number(group.name) for group in groups],
            "path": [number(group.path) for group in groups],
            "type": [number(group.class_name) for group in groups],
            "parent": [group.parent for group in groups],
        },
        "nodes": {
            "name": [number(node.name) for node in nodes],
            "op": [number(f"{node.domain}::{node.operator}" if node.domain else node.operator) for node in nodes],
            "group": _steps([node.group for node in nodes]),
            "first": _steps(firsts),
            "inputs": [
                [None if value < 0 else first - value for value in node.inputs] for node, first in zip(nodes, firsts)
            ],
            "outputs": [[value - first for value in node.outputs[1:]] for node, first in zip(nodes, firsts)],
            "no_outputs": [i for i, node in enumerate(nodes) if not node.outputs],
            "torch": [number(node.torch_operator) for node in nodes],
            "fx": [_alike(node, contents) or number(node.fx_node) for node in nodes],
            "translation": [number(node.translation) for node in nodes],
            "plugin": [number(node.plugin) for node in nodes],
            "trace": [traces.number(node.trace) for node in nodes],
            "attributes": [attributes.setdefault(node.attributes, len(attributes)) for node in nodes],
            "bodies": {str(i): node.bodies for i, node in enumerate(nodes) if node.bodies},
            "function": {str(i): node.function for i, node in enumerate(nodes) if node.function >= 0},
            "status": {str(i): node.status for i, node in enumerate(nodes) if node.status},
            "changes": {str(i): node.changes for i, node in enumerate(nodes) if node.changes},
        },
        "values": {
            "name": [number(value.name) for value in contents.values],
            "type": [number(value.type) for value in contents.values],
            "bytes": {str(i): contents.values[i].weight_bytes for i in contents.weights},
        },
        "inputs": contents.inputs,
        "outputs": contents.outputs,
        "repeats": repeats_of(contents),
        "frames": traces.frames,
        "traces": traces.traces,
        "attributes": [[[number(key), number(text)] for key, text in pairs] for pairs in attributes],
    }
    if latencies:
        data["latency"] = {
            str(i): round(latencies[id(node)] * 1e6, 3) for i, node in enumerate(nodes) if id(node) in latencies
        }
    data["strings"] = strings.table
    return data


def _alike(node: Entry, contents: Contents) -> int:
    """-1 where the FX node is called as the node's first result, as it is for most."""
    return -1 if node.outputs and node.fx_node and contents.values[node.outputs[0]].name == node.fx_node else 0


def _steps(numbers: list[int]) -> list[int]:
    return [number - before for number, before in zip(numbers, [0, *numbers])]


class _Traces:
    """Stack traces as lists of frames; the layers of a model share most of both."""

    def __init__(self, number: Any) -> None:
        self._number = number
        self._frames: dict[Frame, int] = {}
        self._traces: dict[tuple[int, ...], int] = {(): 0}

    def number(self, trace: tuple[Frame, ...]) -> int:
        key = tuple(self._frames.setdefault(frame, len(self._frames)) for frame in trace)
        return self._traces.setdefault(key, len(self._traces))

    @property
    def frames(self) -> list[list[int]]:
        number = self._number
        return [[number(f.file), f.line, number(f.function), number(f.code)] for f in self._frames]

    @property
    def traces(self) -> list[list[int]]:
        return [list(trace) for trace in self._traces]


def packed(data: Any) -> str:
    """The data deflated, in base64; ``plain`` texts stand for those that a page can't hold."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "backslashreplace"), 9)).decode("ascii")


def harmless(data: Any) -> Any:
    """The data with texts that hold no control characters, and numbers that JSON has."""
    if isinstance(data, dict):
        return {plain(key): harmless(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [harmless(value) for value in data]
    if isinstance(data, float) and not float("-inf") < data < float("inf"):
        return str(data)
    return data if data is None or isinstance(data, (bool, int, float)) else plain(data)
