"""The nodes of a model that a runtime doesn't take, with what avoids them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx
import onnx_ir as ir
from onnxport import InputError, ONNXProgram
from onnxport.kit import counted, covers, onnx_schema, place_of, shown
from onnxport.optimize.rewriting import all_nodes, attribute, has_references

from onnxport_targets.tables import Operator, Target, targets

_LOWEST_OPSET = 13
#: Operators whose results, and not their first inputs, have the type that tables mean.
_BY_RESULT = frozenset(
    ["ConstantOfShape", "EyeLike", "OneHot", "RandomNormal", "RandomUniform", "Range", "Where", "Cast", "CastLike"]
)


@dataclass
class Fallback:
    """Nodes of one operator that a runtime doesn't take, for one reason.

    Attributes:
        provider: the runtime, such as ``tensorrt``.
        operator: the ONNX operator, with its domain if it isn't ONNX's own; empty for the model as a whole.
        version: of the operator at the model's opset.
        reason: why not.
        option: what avoids it; empty where nothing is known.
        count: number of nodes.
        modules: the paths of their modules, the first ones.
        sources: ``file:line: code`` of the model, the first ones.
        certain: the table says so; else it names a restriction that the model doesn't show.
        title: what a list of these is about.
    """

    provider: str
    operator: str
    version: int
    reason: str
    option: str = ""
    count: int = 0
    modules: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    certain: bool = True
    title: str = ""

    LISTED: ClassVar[int] = 3

    def __str__(self) -> str:
        what = f"{self.operator}-{self.version} ({counted(self.count, 'node')})" if self.operator else "the model"
        lines = [f"{what}: {'' if self.certain else 'perhaps: '}{self.reason}"]
        lines += [f"    instead: {self.option}"] if self.option else []
        lines += [f"    module: {path}" for path in self.modules if path]
        lines += [f"    source: {line}" for line in self.sources if line]
        return "\n".join(lines)

    def add(self, node: ir.Node) -> None:
        """Count a node."""
        place = place_of(node)
        self.count += 1
        for texts, text in ((self.modules, place.path), (self.sources, place.line)):
            if text and text not in texts and len(texts) < self.LISTED:
                texts.append(text)


def fallbacks(model: ONNXProgram | ir.Model | str | os.PathLike[str], runtime: str) -> list[Fallback]:
    """The nodes of a model that a runtime doesn't take.

    Args:
        model: an exported program, a model of onnx_ir, or the path of a file.
        runtime: one of the pack's: ``tensorrt``, ``coreml``, ``qnn``, ``openvino``, ``webgpu``, ``onnxruntime-mobile``.

    Returns:
        What the runtime's table doesn't have comes first, and the largest numbers of nodes first among these.

    Raises:
        InputError: the runtime isn't of this pack, or the file can't be read.
    """
    known = targets()
    if runtime not in known:
        raise InputError(f"runtime={shown(runtime)}: give one of {', '.join(map(repr, known))}.", parameter="runtime")
    if isinstance(model, (str, os.PathLike)):
        with ONNXProgram.load(model) as opened:
            return _Look(opened.model, known[runtime]).found()
    return _Look(model.model if isinstance(model, ONNXProgram) else model, known[runtime]).found()


def optimized_fallbacks(model: ir.Model, runtime: str) -> list[Fallback]:
    """Those of a model that was translated, as the passes leave it."""
    try:
        copied = model.clone()
    except RuntimeError:  # with refusals, it has values that no node gives: it is looked at without the passes
        return fallbacks(model, runtime)
    copied.meta.update(model.meta)
    program = ONNXProgram(copied)
    program.optimize()
    return fallbacks(program, runtime)


class _Look:
    """A look at one model for one runtime."""

    def __init__(self, model: ir.Model, target: Target) -> None:
        self._model, self._target = model, target
        self._found: dict[tuple[str, str], Fallback] = {}

    def found(self) -> list[Fallback]:
        """All that the runtime doesn't take."""
        self._look_at_model()
        for node in all_nodes(self._model):
            if node.op_identifier() not in self._model.functions and (node.domain or node.op_type != "Constant"):
                self._look_at(node)
        order = sorted(self._found.values(), key=lambda each: (bool(each.operator), not each.certain, -each.count))
        total = sum(1 for _ in all_nodes(self._model))
        nodes = sum(each.count for each in order if each.certain and each.operator)
        target = self._target
        title = (
            f"{target.name}: {nodes} of {total} nodes would fall back, by {target.source}, as of {target.date} "
            f"({target.otherwise}). It doesn't tell: {'; '.join(target.unknown)}."
        )
        for each in order:
            each.title = title
        return order

    def _look_at_model(self) -> None:
        target = self._target
        opset = self._model.opset_imports.get("", 1)
        if target.opsets is not None and not target.opsets[0] <= opset <= target.opsets[1]:
            last = target.opsets[1]
            self._add(None, f"opset {opset}; the runtime takes {target.opsets[0]} to {last}", f"opset_version={last}")
        if not target.dynamic:
            names = {
                str(dim.value): f"{value.name} axis {axis}"
                for value in reversed(self._model.graph.inputs)
                for axis, dim in reversed(list(enumerate(value.shape or ())))
                if isinstance(dim, ir.SymbolicDim)
            }
            if names:
                listed = ", ".join(f"{name} ({where})" for name, where in reversed(names.items()))
                sizes = ", ".join(f"{name}=1" for name in reversed(names) if name.isidentifier())
                self._add(None, f"dynamic sizes: {listed}", f"program.fix({sizes}), with the sizes that you need")

    def _look_at(self, node: ir.Node) -> None:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        operator = self._target.operators.get(name)
        if operator is None:
            self._add(node, "the table doesn't have the operator", self._older(node))
            return
        for reason, option in self._problems(node, operator):
            self._add(node, reason, option)
            return
        if operator.note:
            self._add(node, operator.note, "", certain=False)
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.dtype is not None and value.dtype.name in self._target.narrowed:
                name = value.dtype.name.lower()
                self._add(node, f"{name} is computed in a narrower type", self._instead_of(value.dtype), certain=False)
                return

    def _problems(self, node: ir.Node, operator: Operator) -> Iterator[tuple[str, str]]:
        yield from self._types(node, operator)
        version = self._version(node)
        if operator.versions and not any(covers(versions, version) for versions in operator.versions):
            listed = ", ".join(_range(*versions) for versions in operator.versions)
            yield f"the table has version {listed}", self._of_versions(node, operator)
        for index, ranks in operator.ranks.items():
            value = node.inputs[int(index)] if int(index) < len(node.inputs) else None
            if value is not None and value.shape is not None and len(value.shape) not in ranks:
                axes = " or ".join(map(str, ranks))
                yield f"input {index} has {len(value.shape)} axes; {axes} are taken", ""
        for place in operator.constant:
            value = node.inputs[place] if place < len(node.inputs) else None
            if value is not None and not _is_constant(value):
                yield f"input {place} is computed; it has to be a constant", self._fixed()
        for place in operator.static:
            value = node.inputs[place] if place < len(node.inputs) else None
            if value is not None and (value.shape is None or _is_dynamic(value.shape)):
                yield f"input {place} has dynamic sizes", self._fixed()
        if operator.inputs is not None and any(value is not None for value in node.inputs[operator.inputs :]):
            yield f"inputs behind the first {operator.inputs} aren't taken", ""
        others = () if operator.outputs is None else node.outputs[operator.outputs :]
        if any(value.uses() or value.is_graph_output() for value in others):
            yield f"results behind the first {operator.outputs} aren't given", ""
        yield from self._attributes(node, operator)

    def _types(self, node: ir.Node, operator: Operator) -> Iterator[tuple[str, str]]:
        by_result = node.op_type in _BY_RESULT or not node.inputs
        values: list[ir.Value | None] = list(node.outputs[:1] if by_result else node.inputs[:1])
        if node.op_type in ("Cast", "CastLike"):
            values += node.inputs[:1]
        for value in values:
            dtype = None if value is None else value.dtype
            if dtype is None or dtype.name in self._target.narrowed:
                continue
            if dtype.name in self._target.without or (operator.types and dtype.name not in operator.types):
                yield f"{dtype.name.lower()} isn't taken", self._instead_of(dtype)

    def _instead_of(self, dtype: ir.DataType) -> str:
        if dtype is ir.DataType.DOUBLE:
            graph = self._model.graph
            is_own = any(value.dtype is dtype for value in (*graph.inputs, *graph.initializers.values()))
            return "model.float(), and inputs of float32" if is_own else ""
        if dtype is ir.DataType.BFLOAT16:
            return "dtype='float16', or no dtype"
        return "no dtype: float32" if dtype is ir.DataType.FLOAT16 else ""

    def _attributes(self, node: ir.Node, operator: Operator) -> Iterator[tuple[str, str]]:
        if has_references(node):
            return
        for name, wanted in operator.attributes.items():
            value = attribute(node, name, self._default(node, name))
            value = value.decode() if isinstance(value, bytes) else value
            if value is None:
                continue
            fits = all(each == 1 for each in value) if wanted == "ones" else value in wanted
            if not fits:
                allowed = "ones" if wanted == "ones" else " or ".join(map(str, wanted))
                yield f"{name}={value}; {allowed} is taken", ""

    def _default(self, node: ir.Node, name: str) -> Any:
        schema = onnx_schema(node.op_type, node.domain, self._model.opset_imports.get(node.domain, 1))
        found = None if schema is None else schema.attributes.get(name)
        if found is None or found.default_value.type == onnx.AttributeProto.UNDEFINED:
            return None
        return onnx.helper.get_attribute_value(found.default_value)

    def _version(self, node: ir.Node) -> int:
        opset = self._model.opset_imports.get(node.domain, 1)
        schema = onnx_schema(node.op_type, node.domain, opset)
        return opset if schema is None else schema.since_version

    def _older(self, node: ir.Node) -> str:
        """The opset that lacks the operator, where onnxport writes it with older ones."""
        if node.domain:
            return "runtime='onnx', which writes operators of the standard" if node.domain == "com.microsoft" else ""
        opset = _first_version(node.op_type) - 1
        return f"opset_version={opset}, which has no {node.op_type}" if opset >= _LOWEST_OPSET else ""

    def _of_versions(self, node: ir.Node, operator: Operator) -> str:
        """The highest opset at which the operator has a version that the table has."""
        for opset in range(self._model.opset_imports.get("", 1) - 1, _LOWEST_OPSET - 1, -1):
            schema = onnx_schema(node.op_type, node.domain, opset)
            if schema is not None and any(covers(each, schema.since_version) for each in operator.versions):
                return f"opset_version={opset}"
        return ""

    def _fixed(self) -> str:
        shapes = [value.shape or () for value in self._model.graph.inputs]
        names = {str(dim.value) for shape in shapes for dim in shape if isinstance(dim, ir.SymbolicDim)}
        sizes = ", ".join(f"{name}=1" for name in sorted(names) if name.isidentifier())
        return f"program.fix({sizes}), if it is computed of sizes" if sizes else ""

    def _add(self, node: ir.Node | None, reason: str, option: str, *, certain: bool = True) -> None:
        name = "" if node is None else f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        key = name, reason
        if key not in self._found:
            version = 0 if node is None else self._version(node)
            self._found[key] = Fallback(self._target.name, name, version, reason, option, certain=certain)
        if node is not None:
            self._found[key].add(node)


def _range(first: int, last: int | None) -> str:
    return str(first) if last in (None, first) else f"{first} to {last}"


@functools.cache
def _first_version(op_type: str) -> int:
    """The opset that brought an operator; 1 for what isn't ONNX's."""
    versions = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op_type and not s.domain]
    return min(versions, default=1)


def _is_constant(value: ir.Value) -> bool:
    node = value.producer()
    if node is None:
        return value.const_value is not None and not value.is_graph_input()
    return node.op_type == "Constant" and not node.domain


def _is_dynamic(shape: ir.Shape) -> bool:
    return any(not isinstance(dim, int) for dim in shape)
