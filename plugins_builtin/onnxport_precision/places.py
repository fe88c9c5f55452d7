"""Where a node comes from: its module, its torch operator and its line."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnxport.kit import is_library, keys, provenance

if TYPE_CHECKING:
    import torch

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')


@dataclass(frozen=True)
class Place:
    """Where a node comes from; what isn't known is empty.

    Attributes:
        path: of the module.
        operator: of torch, such as ``aten::exp``.
        line: ``file:line: code`` of the model.
    """

    path: str = ""
    operator: str = ""
    line: str = ""


def place_of(node: ir.Node) -> Place:
    """Where a node comes from."""
    source = getattr(node, "fx_node", None)
    if source is not None:
        operator = _operator(provenance.target_name(source.target))
        return Place(provenance.module_path(source), operator, _line_of(source))
    scopes = _strings(node.metadata_props.get(keys.SCOPES, "[]"))
    classes = _strings(node.metadata_props.get(keys.CLASSES, "[]"))
    is_call = len(scopes) == len(classes) and bool(scopes) and "::" not in _operator(classes[-1])
    path = (scopes if is_call else scopes[:-1])[-1:]
    line = _line_in(node.metadata_props.get(keys.STACK_TRACE, ""))
    return Place(path[0] if path else "", _operator(classes[-1]) if classes else "", line)


def _line_of(source: torch.fx.Node) -> str:
    """The innermost line of the model; that of a library where no other is known."""
    return _line_in(source.meta.get("stack_trace") or "") or provenance.source_line(source)


def _line_in(trace: str) -> str:
    frames = [each for each in _FRAME.findall(trace) if not (is_library(each[0]) or each[0].startswith("torch/"))]
    return "{}:{}: {}".format(*frames[-1]) if frames else ""


def _strings(text: str) -> list[str]:
    try:
        return [str(each) for each in ast.literal_eval(text)]
    except (SyntaxError, ValueError, TypeError):  # another exporter's, or edited by hand
        return []


def _operator(target: str) -> str:
    """``aten.exp.default`` as ``aten::exp``."""
    parts = target.split(".")
    return "::".join(parts[:2]) if len(parts) == 3 else target
