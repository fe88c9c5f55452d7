"""Types that an operator is computed in a wider one for, which holds the same numbers.

Those that the target opset doesn't define it for, such as bfloat16; and float8, for which onnxruntime lacks most
kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import onnx
from onnx_ir import DataType

_ELEMENT_TYPES = {
    f"tensor({name.lower()})": DataType[name]
    for name in (
        *("FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE", "INT8", "INT16", "INT32", "INT64"),
        *("UINT8", "UINT16", "UINT32", "UINT64"),
    )
}
_FLOAT8 = frozenset(
    {DataType.FLOAT8E4M3FN, DataType.FLOAT8E4M3FNUZ, DataType.FLOAT8E5M2, DataType.FLOAT8E5M2FNUZ, DataType.FLOAT8E8M0}
)
#: What converts to the type that it is asked for: there the narrow type itself is meant.
_CASTS = frozenset({"Cast", "CastLike", "BitCast"})
#: What passes its operands to a body.
_BODIES = frozenset({"If", "Loop", "Scan"})
_TAKE_FLOAT8 = _BODIES | {"Constant", "QuantizeLinear", "DequantizeLinear"}
#: What else onnxruntime 1.32 has kernels for, from the version of the operator on; none of them for float8e8m0.
_MOVES_FLOAT8 = {"Identity": 19, "Shape": 19, "Reshape": 21, "Transpose": 21}
_WHOLE = (DataType.INT32, DataType.INT64)
#: The types that hold every number of a type, the preferred one first.
_WIDER = {
    DataType.FLOAT16: (DataType.FLOAT,),
    DataType.BFLOAT16: (DataType.FLOAT,),
    DataType.FLOAT: (DataType.DOUBLE,),
    **dict.fromkeys((DataType.INT8, DataType.UINT8, DataType.INT16, DataType.UINT16), _WHOLE),
    DataType.INT32: (DataType.INT64,),
    DataType.UINT32: (DataType.INT64,),
}


@functools.cache
def wider_types(name: str, since: int, domain: str) -> Mapping[tuple[str, DataType], DataType]:
    """By type variable of an operator and element type, the type that is computed in instead."""
    if name in _CASTS:
        return {}
    found: dict[tuple[str, DataType], DataType] = {}
    taken = _FLOAT8 if name in _TAKE_FLOAT8 else frozenset()
    if since >= _MOVES_FLOAT8.get(name, 1 << 30):
        taken = _FLOAT8 - {DataType.FLOAT8E8M0}
    for constraint in onnx.defs.get_schema(name, since, domain).type_constraints:
        kind, allowed = constraint.type_param_str, {_ELEMENT_TYPES.get(text) for text in constraint.allowed_type_strs}
        if DataType.FLOAT in allowed:
            found.update({(kind, dtype): DataType.FLOAT for dtype in _FLOAT8 - taken})
        for dtype, wider in {} if name in _BODIES else _WIDER.items():
            wide = next((each for each in wider if each in allowed), None)
            if wide is not None and dtype not in allowed:
                found[kind, dtype] = wide
    return found
