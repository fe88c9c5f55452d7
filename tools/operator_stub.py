"""Writes ``emit/operators.pyi``: the methods of ``op`` for type checkers and editors, from onnx's schemas.

``python tools/operator_stub.py`` writes it; run it after an update of onnx. A method stands for all versions of an
operator between the lowest opset that is written and the newest that onnx knows: it has the attributes of each, and an
attribute or input is required where all versions require it.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from pathlib import Path

import onnx

STUB = Path(__file__).parents[1] / "core/onnxport/emit/operators.pyi"
LOWEST = 18

_OPTION = onnx.defs.OpSchema.FormalParameterOption
_KINDS = {
    onnx.defs.OpSchema.AttrType.INT: "_Int",
    onnx.defs.OpSchema.AttrType.INTS: "_Ints",
    onnx.defs.OpSchema.AttrType.FLOAT: "_Float",
    onnx.defs.OpSchema.AttrType.FLOATS: "_Floats",
    onnx.defs.OpSchema.AttrType.STRING: "_String",
    onnx.defs.OpSchema.AttrType.STRINGS: "_Strings",
    onnx.defs.OpSchema.AttrType.TENSOR: "_Constant",
    onnx.defs.OpSchema.AttrType.GRAPH: "_Subgraph",
}
_HEADER = '''"""The operators of ONNX as methods of ``op``; written by tools/operator_stub.py from onnx {version}."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import torch

from onnxport.emit.symbols import Size
from onnxport.emit.tensor import Tensor

_Number = bool | int | float | Size | np.generic
_Value = Tensor | _Number | np.ndarray[Any, Any] | Sequence[Any] | None
_Int = int | np.integer[Any] | np.bool_ | torch.dtype | ir.Attr
_Ints = Sequence[int] | np.ndarray[Any, Any] | ir.Attr
_Float = float | np.number[Any] | ir.Attr
_Floats = Sequence[float] | np.ndarray[Any, Any] | ir.Attr
_String = str | bytes | ir.Attr
_Strings = Sequence[str] | ir.Attr
_Constant = torch.Tensor | ir.TensorProtocol | np.ndarray[Any, Any] | Sequence[Any] | bool | float | ir.Attr
_Subgraph = ir.Graph | ir.Attr

class Operators(Protocol):
'''


def versions() -> dict[str, list[onnx.defs.OpSchema]]:
    """The versions of each operator of the default domain that a file can have, the oldest first."""
    found: dict[str, dict[int, onnx.defs.OpSchema]] = {}
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    for name in sorted(names):
        for opset in range(LOWEST, onnx.defs.onnx_opset_version() + 1):
            try:
                schema = onnx.defs.get_schema(name, opset, "")
            except onnx.defs.SchemaError:
                continue
            if not schema.deprecated:
                found.setdefault(name, {})[schema.since_version] = schema
    return {name: list(schemas.values()) for name, schemas in found.items()}


def method(name: str, schemas: list[onnx.defs.OpSchema]) -> str:
    """The stub of one operator."""
    newest = schemas[-1]
    parameters = ["self", *_inputs(schemas)]
    if not (newest.inputs and newest.inputs[-1].option == _OPTION.Variadic):
        parameters += ["/", "*"] if len(parameters) > 1 else ["*"]
    several = len(newest.outputs) != 1 or newest.outputs[0].option == _OPTION.Variadic
    parameters += [*_attributes(schemas), "outputs: int | None = None"]
    since = ", ".join(str(schema.since_version) for schema in schemas)
    result = "Any" if several else "Tensor"
    return f'    def {name}({", ".join(parameters)}) -> {result}:\n        """Versions of opset {since}."""\n'


def _inputs(schemas: list[onnx.defs.OpSchema]) -> Iterator[str]:
    required = min(schema.min_input for schema in schemas)
    longest = max(schemas, key=lambda schema: (len(schema.inputs), schema.since_version))
    taken = {"self", "outputs", *(name for schema in schemas for name in schema.attributes)}
    for i, formal in enumerate(longest.inputs):
        name = f"{formal.name}_" if formal.name in taken or keyword.iskeyword(formal.name) else formal.name
        if formal.option == _OPTION.Variadic:
            yield f"*{name}: _Value"
        else:
            yield f"{name}: _Value{'' if i < required else ' = None'}"


def _attributes(schemas: list[onnx.defs.OpSchema]) -> Iterator[str]:
    kinds: dict[str, str] = {}
    for schema in schemas:
        kinds |= {name: _KINDS.get(attribute.type, "Any") for name, attribute in schema.attributes.items()}
    for name in sorted(kinds):
        found = [schema.attributes.get(name) for schema in schemas]
        if all(attribute is not None and attribute.required for attribute in found):
            yield f"{name}: {kinds[name]}"
        else:
            yield f"{name}: {kinds[name]} | None = None"


def text() -> str:
    """The stub."""
    methods = [method(name, schemas) for name, schemas in versions().items()]
    return _HEADER.format(version=onnx.__version__) + "\n".join(methods)


def main() -> None:
    STUB.write_text(text(), encoding="utf-8")
    print(f"{STUB.name}: {len(versions())} operators, {STUB.stat().st_size} bytes")


if __name__ == "__main__":
    main()
