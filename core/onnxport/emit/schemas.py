"""ONNX operator schemas, each reduced once per opset to what emitting a node needs."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir import DataType

from onnxport.errors import Unsupported

_ELEMENT_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(double)": DataType.DOUBLE,
    "tensor(float16)": DataType.FLOAT16,
    "tensor(bfloat16)": DataType.BFLOAT16,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(bool)": DataType.BOOL,
    "tensor(string)": DataType.STRING,
    "tensor(complex64)": DataType.COMPLEX64,
    "tensor(complex128)": DataType.COMPLEX128,
}


@dataclass(frozen=True, slots=True)
class OpSpec:
    """An operator's schema, reduced to what emitting a node needs.

    Attributes:
        inputs: type of each input: a type variable's name, or a ``DataType`` where only one is allowed.
        min_inputs: how many there must be.
        variadic: the last input repeats.
        homogeneous: all repetitions share one type.
        outputs: type of each output, as for ``inputs``.
        min_outputs: results to make when the caller doesn't say.
        attributes: the attribute's type by name.
    """

    name: str
    domain: str
    inputs: tuple[str | DataType, ...]
    min_inputs: int
    variadic: bool
    homogeneous: bool
    outputs: tuple[str | DataType, ...]
    variadic_outputs: bool
    min_outputs: int
    attributes: dict[str, ir.AttributeType]
    since: int


def _types(schema: onnx.defs.OpSchema) -> dict[str, str | DataType]:
    """Each type variable as itself, or as the single element type it allows."""
    types: dict[str, str | DataType] = {}
    for constraint in schema.type_constraints:
        allowed = constraint.allowed_type_strs
        single = _ELEMENT_TYPES.get(allowed[0]) if len(allowed) == 1 else None
        types[constraint.type_param_str] = single if single is not None else constraint.type_param_str
    return types


@functools.cache
def spec_of(name: str, opset: int, domain: str = "") -> OpSpec | None:
    """The newest version of an operator that is not above ``opset``; None where there is none."""
    try:
        schema = onnx.defs.get_schema(name, opset, domain)
    except onnx.defs.SchemaError:
        return None
    if schema.deprecated:
        return None
    types = _types(schema)

    def kind(formal: onnx.defs.OpSchema.FormalParameter) -> str | DataType:
        return types.get(formal.type_str) or _ELEMENT_TYPES.get(formal.type_str) or formal.type_str

    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    inputs, outputs = schema.inputs, schema.outputs
    return OpSpec(
        name=name,
        domain=domain,
        inputs=tuple(kind(formal) for formal in inputs),
        min_inputs=schema.min_input,
        variadic=bool(inputs) and inputs[-1].option == variadic,
        homogeneous=bool(inputs) and inputs[-1].is_homogeneous,
        outputs=tuple(kind(formal) for formal in outputs),
        variadic_outputs=bool(outputs) and outputs[-1].option == variadic,
        min_outputs=max(1, schema.min_output),
        attributes={
            key: ir.AttributeType(int(attr.type.value))  # type: ignore[attr-defined]
            for key, attr in schema.attributes.items()
        },
        since=schema.since_version,
    )


@functools.cache
def _history(domain: str = "") -> dict[str, list[onnx.defs.OpSchema]]:
    """All versions of each operator of a domain, the oldest first."""
    found: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == domain:
            found.setdefault(schema.name, []).append(schema)
    return {name: sorted(schemas, key=lambda schema: schema.since_version) for name, schemas in found.items()}


def missing(name: str, opset: int) -> Exception:
    """The error for an operator that an opset lacks: a newer opset has it, or none that can be written.

    Returns:
        ``Unsupported`` in the first case, an ``AttributeError`` in the other.
    """
    versions = [schema.since_version for schema in _history().get(name, ()) if not schema.deprecated]
    if versions and min(versions) > opset:
        return Unsupported(f"needs opset {min(versions)}: {name}")
    if versions:
        return AttributeError(f"opset {opset} has no operator {name!r} any more: ONNX has removed it, use another one")
    known = {each.lower(): each for each in _history()}
    near = difflib.get_close_matches(name.lower(), known, 1, 0.75)
    hint = f"; did you mean {known[near[0]]!r}?" if near else ": op.call(domain, name) emits one of another domain"
    return AttributeError(f"ONNX has no operator {name!r}{hint}")


def first_opset_of_attribute(name: str, attribute: str, domain: str = "") -> int | None:
    """The opset that gave an operator an attribute, None where no version has it."""
    versions = [schema.since_version for schema in _history(domain).get(name, ()) if attribute in schema.attributes]
    return min(versions, default=None)


def ir_version(opset: int, *, has_functions: bool = False) -> int:
    """The ONNX IR version to write: 10, which runtimes have read since 2024, or what the opset needs.

    Opsets below 18 are for older toolchains: they get the version of their time, or 8 if there are local functions.
    """
    lowest = 10 if opset >= 18 else 8 if has_functions else 7
    return max(lowest, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True))
