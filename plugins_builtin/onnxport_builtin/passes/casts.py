"""Shorten chains of casts: the first of two is skipped where it loses nothing that the second keeps."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir import DataType
from onnxport.optimize.rewriting import all_nodes, attribute, is_standard, remove_if_unused

_FLOATS = [DataType.FLOAT16, DataType.FLOAT, DataType.DOUBLE]
_SIGNED = [DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64]
_UNSIGNED = [DataType.UINT8, DataType.UINT16, DataType.UINT32]


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    for node in all_nodes(model):
        if not is_standard(node, "Cast") or node.graph is None:
            continue
        source = node.inputs[0]
        first = source.producer() if source is not None else None
        if first is None or not is_standard(first, "Cast") or first.inputs[0] is None:
            continue
        origin = first.inputs[0]
        if origin.dtype is None or not _lossless(origin.dtype, DataType(attribute(first, "to"))):
            continue
        node.replace_input_with(0, origin)
        remove_if_unused(first)
        changes += 1
    return changes


def _lossless(source: DataType, target: DataType) -> bool:
    """Every value of ``source`` is a value of ``target``."""
    if source is target or source is DataType.BOOL:
        return True
    for ladder in (_FLOATS, _SIGNED, _UNSIGNED):
        if source in ladder and target in ladder:
            return ladder.index(source) <= ladder.index(target)
    if source is DataType.BFLOAT16:
        return target in (DataType.FLOAT, DataType.DOUBLE)
    if source in _UNSIGNED and target in _SIGNED:
        return _UNSIGNED.index(source) < _SIGNED.index(target)
    if target is DataType.DOUBLE:
        return source in (*_SIGNED[:3], *_UNSIGNED)
    if target is DataType.FLOAT:
        return source in (*_SIGNED[:2], *_UNSIGNED[:2])
    return False
