"""Symbolic dimensions that get other names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir
from onnxport import InputError, ONNXProgram
from onnxport.kit import wrong

from onnxport_builtin.rewriting import bodies, values_of

_IDENTIFIER = re.compile(r"[^\W\d]\w*")


def rename_axes(program: ONNXProgram, rename_mapping: Mapping[str | ir.SymbolicDim, str]) -> None:
    """See `ONNXProgram.rename_axes`."""
    if not isinstance(rename_mapping, Mapping):
        raise wrong("rename_mapping", rename_mapping, "a dict of new names by present names")
    names = {
        str(key.value) if isinstance(key, ir.SymbolicDim) and key.value is not None else key: new
        for key, new in rename_mapping.items()
    }
    values = [value for graph in bodies(program.model) for value in values_of(graph)]
    dims = {str(dim.value) for value in values for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    present = dims | {name for dim in dims for name in _IDENTIFIER.findall(dim)}
    for old, new in names.items():
        problem = ""
        if old not in present:
            problem = f"The model has no dimension {old!r}; it has {sorted(present - {'None'})}."
        elif not isinstance(new, str) or not new.isidentifier():
            problem = f"{new!r} is no name for a dimension: use letters, digits and underscores."
        elif (new in present and new not in names) or list(names.values()).count(new) > 1:
            problem = f"The name {new!r} would stand for two dimensions: choose different ones."
        if problem:
            raise InputError(problem, parameter="rename_mapping")

    def renamed(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
        if isinstance(dim, int) or dim.value is None:
            return dim
        text = str(dim.value)
        new = names.get(text) or _IDENTIFIER.sub(lambda match: names.get(match[0], match[0]), text)
        return dim if new == text else ir.SymbolicDim(new)

    for value in values:
        if value.shape is not None and not value.shape.is_static():
            value.shape = ir.Shape([renamed(dim) for dim in value.shape])
