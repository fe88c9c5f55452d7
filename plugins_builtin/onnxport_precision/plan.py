"""``dtype=``: from what is asked to a model in half precision, and what was done."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass
from onnxport import DataType, InputError, ONNXProgram
from onnxport.kit import FreeNames, JsonResult, keys, load, markdown, weight_bytes
from onnxport.optimize.rewriting import all_nodes, bodies, calls_by_function, values_of

from onnxport_precision.converting import Converter
from onnxport_precision.overflow import Overflow, overflow_of
from onnxport_precision.places import place_of
from onnxport_precision.ranges import Ranges
from onnxport_precision.request import Request, request_of
from onnxport_precision.rules import Rules

_FLOATING = frozenset({DataType.FLOAT16, DataType.BFLOAT16, DataType.FLOAT, DataType.DOUBLE})


def plan_of(request: Mapping[str, Any]) -> Plan:
    """What is asked, checked before anything else is done.

    Raises:
        InputError: it isn't understood.
    """
    return Plan(request_of(request))


@dataclass
class Conversion(JsonResult):
    """What became of a model.

    Attributes:
        dtype: the half precision; ``float32`` where the model is as it was.
        bytes_before: of weights and constants.
        bytes_after: likewise.
        float32: how many nodes are computed in float32, by the reason.
        half: how many nodes are computed in half precision.
        casts: how many casts were added.
        overflow: what the run of the example inputs says.
    """

    dtype: str
    bytes_before: int = 0
    bytes_after: int = 0
    float32: dict[str, int] = field(default_factory=dict)
    half: int = 0
    casts: int = 0
    overflow: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return dict(vars(self))

    def table(self) -> str:
        """Everything as markdown."""
        if self.dtype == "float32":
            return "The model is as it was: float32."
        rows = [f"| float32: {markdown(reason)} | {count} |" for reason, count in self.float32.items()]
        sizes = f"{self.bytes_before / 2**20:.1f} MiB became {self.bytes_after / 2**20:.1f} MiB"
        lines = ["| nodes | count |", "| --- | --- |", f"| {self.dtype} | {self.half} |", *rows]
        return "\n".join([*lines, f"| casts | {self.casts} |", "", f"Weights of {sizes}. {markdown(self.overflow)}"])


@dataclass(frozen=True)
class Plan:
    """A request that can be carried out.

    Attributes:
        request: what is asked.
        opset: the lowest that has half precision.
    """

    request: Request
    opset: int = 13

    def apply(self, program: ONNXProgram) -> Conversion:
        """Convert a program, in place.

        Raises:
            InputError: a pattern of ``keep`` matches nothing; the model has weights in another precision; or the
                example inputs have results that are too large for float16.
        """
        result = Conversion(self.request.name)
        model = program.model
        _infer_types(model)
        kept = self._kept(model)
        if self.request.dtype is DataType.FLOAT:
            return result
        functions = self._functions(model, kept)
        _refuse_others(model, self.request)
        original, before = program.model.clone(), weight_bytes(model)
        original.meta.update(model.meta)
        ranges = Ranges(self.request.dtype)
        rules = Rules(model, ranges, lambda node: node in kept)
        rules.decide(functions)
        converter = Converter(model, rules, ranges, self.request.keep_io)
        converter.convert()
        _tidy(program)
        if rules.floats:
            model.metadata_props[keys.DTYPE] = self.request.name
        program.release()
        result.bytes_before, result.bytes_after = before, weight_bytes(model)
        result.float32, result.casts = dict(rules.reasons), len(converter.casts)
        result.half = sum(mode.name == "HALF" for mode in rules.modes.values())
        found = overflow_of(program, original, ranges)
        result.overflow = found if isinstance(found, str) else ""
        if not isinstance(found, str):
            raise InputError(_told(found, self.request), parameter="dtype")
        return result

    def _kept(self, model: ir.Model) -> frozenset[ir.Node]:
        """The nodes that patterns match.

        Raises:
            InputError: a pattern matches none.
        """
        found: set[ir.Node] = set()
        served: set[str] = set()
        paths: set[str] = set()
        operators: set[str] = set()
        for node in all_nodes(model) if self.request.keep else ():
            place = place_of(node)
            paths.add(place.path)
            operators.add(place.operator)
            if matching := self.request.matching(place.path, place.operator):
                found.add(node)
                served.update(matching)
        for pattern in self.request.keep:
            if pattern not in served:
                known = operators if "::" in pattern else paths
                near = difflib.get_close_matches(pattern, sorted(each for each in known if each), n=3)
                hint = f"Near it are {', '.join(near)}." if near else "Give a module's path as named_modules() has it."
                raise InputError(f"keep: {pattern!r} matches nothing that the model computes. {hint}", parameter="keep")
        return frozenset(found)

    def _functions(self, model: ir.Model, kept: frozenset[ir.Node]) -> list[ir.OperatorIdentifier]:
        """The functions of the model that become half precision.

        Raises:
            InputError: a function is called by what is kept and by what isn't.
        """
        found = []
        wide: set[ir.OperatorIdentifier] = set()
        for key, calls in reversed(list(calls_by_function(model).items())):
            owners = {id(call.graph): call for call in calls}
            inside = {key for key, function in model.functions.items() if id(function.graph) in owners}
            modes = {call in kept for call in calls} | {True for each in inside if each in wide}
            if len(modes) > 1:
                raise InputError(
                    f"keep: the function {key[1]} is called by modules that are kept and by others. Keep all of them, "
                    "or leave its class out of functions=.",
                    parameter="keep",
                )
            typed = all(value.type is not None for value in values_of(model.functions[key].graph))
            if modes == {True} or not typed:
                wide.add(key)
            else:
                found.append(key)
        return [key for key in model.functions if key in found]


def _infer_types(model: ir.Model) -> None:
    """Find the types that values don't have, which passes and plugins may have left out.

    Raises:
        InputError: one can't be found.
    """
    if any(value.type is None for value in values_of(model.graph)):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    unknown = [
        value for value in values_of(model.graph) if value.type is None and (value.uses() or value.is_graph_output())
    ]
    if unknown:
        producer = unknown[0].producer()
        what = "an input" if producer is None else f"a result of {producer.op_type}"
        raise InputError(
            f"dtype: the type of {unknown[0].name}, {what}, isn't known. Let the plugin that writes it give its "
            "type, or leave dtype out.",
            parameter="dtype",
        )


def _refuse_others(model: ir.Model, request: Request) -> None:
    """Refuse a model whose weights or inputs aren't float32.

    Raises:
        InputError: names one.
    """
    weights = [v for v in model.graph.initializers.values() if v.metadata_props.get(keys.INPUT_KIND) == "PARAMETER"]
    for value in (*weights, *model.graph.inputs):
        if value.dtype in _FLOATING and value.dtype not in (DataType.FLOAT, request.dtype):
            name = {DataType.DOUBLE: "float64"}.get(value.dtype, str(value.dtype.name).lower())
            raise InputError(
                f"dtype={request.name!r} converts models of float32; {value.name} is {name}. Call model.float() and "
                "give inputs of float32, or leave dtype out.",
                parameter="dtype",
            )


def _tidy(program: ONNXProgram) -> None:
    """Leave out weights that nothing reads any more, and make the changes that a runtime needs."""
    model = program.model
    for name, value in tuple(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del model.graph.initializers[name]
    plugins = load() if program.plugins is None else program.plugins
    for step in plugins.required_passes(program.profile):
        step.function(model)
    names = FreeNames(model, *bodies(model))
    for node in all_nodes(model):
        if not node.name:
            node.name = names.take(f"node_{node.outputs[0].name}")


def _told(found: Overflow, request: Request) -> str:
    lines = [f"{request.name} can't hold {len(found.places)} of the model's results at the example inputs:"]
    for place, size in zip(found.places, found.largest):
        lines.append(f"  {place.operator or 'an operator'}: {size:.3g}, where the largest number is {found.limit:.5g}")
        lines += [f"    {word}: {text}" for word, text in (("module", place.path), ("line", place.line)) if text]
    named = dict.fromkeys(place.path or place.operator for place in found.places if place.path or place.operator)
    listed = ", ".join(f"{each!r}: 'float32'" for each in dict.fromkeys([*request.keep, *named]))
    lines.append(f"Keep them in float32 with keep={{{listed}}}, or use dtype='bfloat16': it has float32's range.")
    return "\n".join(lines)
