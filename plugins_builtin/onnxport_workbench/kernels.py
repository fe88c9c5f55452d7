"""Which nodes of a model onnxruntime has no kernel for, by execution provider, without running anything.

The table is that of the installed onnxruntime, for the providers that it was built with, and else what
``kernel_table.py`` wrote to ``kernels.json``, which names the versions that it is of.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import onnx
import onnx_ir as ir
from onnxport.kit import provenance

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_OPEN = 2**31 - 1
_SHORT = {"FLOAT": "float", "DOUBLE": "double"}

_OTHERWISE = {CPU: "onnxruntime can't load the model", CUDA: "onnxruntime runs it on the CPU"}

#: First and last version of the operator, and the types allowed, by type variable
Kernel = tuple[int, int, Mapping[str, Iterable[str]]]
Table = Mapping[tuple[str, str], Sequence[Kernel]]


@dataclass
class MissingKernel:
    """An operator of the ONNX graph that an execution provider can't run with these types.

    Attributes:
        provider: such as ``CPUExecutionProvider``.
        operator: the ONNX operator, with its domain if it isn't the default one.
        version: the version of the operator at the target opset.
        types: the element types, by the schema's type variable.
        count: number of nodes.
        module: path of the first one's module.
        source: ``file:line: code`` of the first one in the user's model.
        otherwise: what onnxruntime does about it.
    """

    provider: str
    operator: str
    version: int
    types: dict[str, str] = field(default_factory=dict)
    count: int = 0
    module: str = ""
    source: str = ""
    otherwise: str = ""

    def __str__(self) -> str:
        types = ", ".join(f"{name}={kind}" for name, kind in self.types.items())
        where = "".join(
            f"\n    {word}: {text}" for word, text in (("module", self.module), ("source", self.source)) if text
        )
        nodes = "node" if self.count == 1 else "nodes"
        return f"{self.operator}-{self.version} ({types}; {self.count} {nodes}): {self.otherwise}{where}"


def missing_kernels(model: ir.Model, wanted: Mapping[str, Table] | None = None) -> list[MissingKernel]:
    """The nodes of a model, its functions and subgraphs that a runtime has no kernel for.

    Nodes of domains that the table doesn't know, and calls of the model's own functions, are left out.

    Args:
        model: the ONNX model.
        wanted: tables of kernels by name; those of onnxruntime's CPU and CUDA providers where it is left out.
    """
    opsets = dict(model.opset_imports)
    found: dict[Any, MissingKernel] = {}
    wanted = tables() if wanted is None else wanted
    for provider, table in wanted.items():
        for node in _nodes(model):
            opset = opsets.get(node.domain, 1)
            schema = onnx_schema(node.op_type, node.domain, opset)
            if schema is None or (node.domain, node.op_type, node.overload) in model.functions:
                continue
            types = _types(node, schema)
            if not _lacks(table, schema, opset, types):
                continue
            if provider != CPU and CPU in wanted and _lacks(wanted[CPU], schema, opset, types):
                continue  # said once
            key = (provider, node.domain, node.op_type, *types.items())
            if key not in found:
                name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                source = getattr(node, "fx_node", None)
                where = ("", "") if source is None else (provenance.module_path(source), provenance.source_line(source))
                otherwise = _OTHERWISE.get(provider, f"{provider} has no kernel for it")
                found[key] = MissingKernel(provider, name, schema.since_version, types, 0, *where, otherwise)
            found[key].count += 1
    return list(found.values())


@functools.cache
def tables() -> Mapping[str, Table]:
    """Kernels by provider, by domain and operator."""
    data = json.loads(resources.files(__package__).joinpath("kernels.json").read_text("utf-8"))
    known: dict[str, Table] = {}
    for provider, operators in data["providers"].items():
        table: dict[tuple[str, str], list[Kernel]] = {}
        for name, rows in operators.items():
            domain, _, operator = name.rpartition("::")
            table[domain, operator] = [
                (first, last or _OPEN, {kind: data["sets"][i] for kind, i in types.items()})
                for first, last, types in rows
            ]
        known[provider] = table
    return {**known, **installed_kernels()}


@functools.cache
def installed_kernels() -> Mapping[str, Table]:
    """The kernels of the onnxruntime that is installed, if it tells, for the providers that the file has."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        kernels = state.get_all_opkernel_def()
    except (ImportError, AttributeError):
        return {}
    tables: dict[str, dict[tuple[str, str], list[Kernel]]] = {}
    for kernel in kernels:
        if kernel.provider in (CPU, CUDA):
            rows = tables.setdefault(kernel.provider, {}).setdefault((kernel.domain, kernel.op_name), [])
            rows.append((*kernel.version_range, kernel.type_constraints))
    return tables


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


@functools.cache
def onnx_schema(operator: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    """The version of an operator that an opset has; None where onnx knows none."""
    try:
        return onnx.defs.get_schema(operator, opset, domain)
    except onnx.defs.SchemaError:
        return None


def _types(node: ir.Node, schema: onnx.defs.OpSchema) -> dict[str, str]:
    """The type of each type variable, as onnx writes it; those that aren't known are left out."""
    found: dict[str, str] = {}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for i, value in enumerate(values if formals else ()):
            formal = formals[min(i, len(formals) - 1)]
            if value is not None and value.type is not None and "(" not in formal.type_str:
                found.setdefault(formal.type_str, _text(value.type))
    return found


def _text(kind: Any) -> str:
    if isinstance(kind, ir.SequenceType):
        return f"seq({_text(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_text(kind.elem_type)})"
    name = kind.dtype.name
    return f"tensor({_SHORT.get(name, name.lower())})"


def _lacks(table: Table, schema: onnx.defs.OpSchema, opset: int, types: Mapping[str, str]) -> bool:
    """No kernel of the table serves, and onnxruntime has no way around it."""
    rows = table.get((schema.domain, schema.name))
    if rows is None and all(domain != schema.domain for domain, _ in table):
        return False
    kernels = [kernel for kernel in rows or () if covers(kernel, schema.since_version)]
    if any(_takes(kernel, types) for kernel in kernels):
        return False
    if schema.has_context_dependent_function or _is_composed(table, schema, opset, types):  # type: ignore[attr-defined]
        return False
    # the CPU provider casts float16 to float where only that has a kernel
    widened = {name: "tensor(float)" if kind == "tensor(float16)" else kind for name, kind in types.items()}
    return widened == types or not any(_takes(kernel, widened) for kernel in kernels)


def _is_composed(table: Table, schema: onnx.defs.OpSchema, opset: int, types: Mapping[str, str]) -> bool:
    """onnxruntime can put the operator's definition in its place, and has kernels for that.

    The definition is written for an opset; it serves a later one if none of its operators has changed.
    """
    versions = [version for version in schema.function_opset_versions if version <= opset]  # type: ignore[attr-defined]
    if not versions or not types:
        return False
    body = onnx.FunctionProto.FromString(schema.get_function_with_opset_version(max(versions)))  # type: ignore[attr-defined]
    kind = next(iter(types.values()))
    for node in body.node:
        then, now = onnx_schema(node.op_type, node.domain, max(versions)), onnx_schema(node.op_type, node.domain, opset)
        if then is None or now is None or then.since_version != now.since_version:
            return False
        inner = {c.type_param_str: kind for c in now.type_constraints if kind in c.allowed_type_strs}
        if node.op_type != "Constant" and _lacks(table, now, opset, inner):
            return False
    return True


def covers(kernel: Sequence[Any], version: int) -> bool:
    """onnxruntime's rule: an open range serves the version that it starts with alone.

    Args:
        kernel: its first and last version, which is the largest integer or None where the range is open, and more.
        version: of the operator.
    """
    first, last = kernel[:2]
    return bool(first == version or (last not in (None, _OPEN) and first < version <= last))


def _takes(kernel: Kernel, types: Mapping[str, str]) -> bool:
    return all(types[name] in allowed for name, allowed in kernel[2].items() if name in types)
