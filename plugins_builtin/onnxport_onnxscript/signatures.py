"""The signatures of onnxscript's functions: which parameters are inputs, which attributes, and of what types."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from onnx_ir import DataType
from onnxport import Size, Tensor, Unsupported, onnx_dtype, promote
from onnxport.kit import any_complex
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from onnxport import Builder

_COMMON = "pkg.onnxscript.torch_lib.common"
#: What an operator may be told beside its values; a function that has no such parameter computes the same.
_PLACES = ("device", "layout", "pin_memory", "non_blocking", "memory_format", "generator")


def signature_of(function: Any) -> Any:
    """The signature of a function of onnxscript; None where it can't be told from its annotations."""
    try:
        return function.op_signature
    except (AttributeError, TypeError, ValueError):
        return None


def _is_input(parameter: Any) -> bool:
    return hasattr(parameter, "type_constraint")


def given_by(op: Builder, bound: Mapping[str, Any], names: Sequence[str], optional: Set[str]) -> dict[str, Any]:
    """The arguments that a function takes, of all that the operator has.

    What is at the schema's default is left to the function's own default. What the function has no parameter for is
    left out where it says nothing about values, such as a device. The rest stays, and goes by its order.

    Args:
        op: the builder.
        bound: the arguments by the schema's names.
        names: of the function's parameters.
        optional: those that have a default.
    """
    target = op.node.target if op.node is not None else None
    if not isinstance(target, OpOverload):
        return dict(bound)
    defaults = {a.name: a.default_value for a in target._schema.arguments if a.has_default_value()}
    usual = {name for name, value in bound.items() if name in defaults and _is_same(value, defaults[name])}
    extra = {name for name in bound if name not in names and name not in usual and name not in _PLACES}
    if extra or any(name not in bound for name in names if name not in optional):
        return dict(bound)  # its parameters have names of their own
    return {name: value for name, value in bound.items() if name in names and not (name in usual and name in optional)}


def _is_same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def plain(value: Any) -> Any:
    """Values as onnxscript's functions take them: the number of a dtype, the name of a device or a layout."""

    def of(item: Any) -> Any:
        if isinstance(item, torch.dtype):
            return onnx_dtype(item)
        return str(item) if isinstance(item, (torch.device, torch.layout, torch.memory_format)) else item

    return pytree.tree_map(of, value)


def converted(op: Builder, signature: Any, given: Mapping[str, Any], attributes: Set[str]) -> dict[str, Any]:
    """Arguments as the parameters of a script function take them.

    Numbers for an input are constants of the type that its type variable has in the other inputs. Attributes are
    Python values, and left out where they are None.

    Raises:
        Unsupported: an attribute would have to be computed in the graph.
    """
    parameters = {parameter.name: parameter for parameter in getattr(signature, "params", ()) if _is_input(parameter)}
    types = {
        parameters[name].type_constraint: value.dtype
        for name, value in given.items()
        if isinstance(value, Tensor) and name in parameters
    }
    result: dict[str, Any] = {}
    for name, value in given.items():
        if name in attributes:
            if any(isinstance(item, (Tensor, Size)) for item in pytree.tree_leaves(value)):
                raise Unsupported(
                    f"{name} is an attribute of the function, but its value here is computed in the graph"
                )
            if value is not None:
                result[name] = value
        else:
            result[name] = _input(op, parameters.get(name), value, types)
    return result


def _input(op: Builder, parameter: Any, value: Any, types: Mapping[Any, DataType]) -> Any:
    if value is None or isinstance(value, Tensor):
        return value
    kinds = list(parameter.type_constraint.allowed_types) if parameter is not None else []
    if kinds and all(type(kind).__name__ == "SequenceType" for kind in kinds):
        return op.SequenceConstruct(*[op.tensor(item) for item in value])
    if isinstance(value, complex):
        value = [value.real, value.imag]
    dtype = types.get(parameter.type_constraint) if parameter is not None else None
    if dtype is None and len(kinds) == 1:
        dtype = kinds[0].dtype
    if dtype is None and isinstance(value, (list, tuple)) and not value:
        dtype = DataType.INT64
    return value if dtype is None and parameter is None else op.tensor(value, dtype)


def output_dtypes(
    op: Builder, proto: Any, signature: Any, inputs: Sequence[Any], *, inner: bool
) -> list[DataType | None]:
    """The element types of a function's results.

    Those of the FX node, for the function that translates it; else what the signature says, or the first input's.
    """
    count, results = len(proto.output), op.results
    if not inner and len(results) == count:
        return [result.dtype for result in results]
    first = next((value.dtype for value in inputs if isinstance(value, Tensor)), None) or DataType.FLOAT
    outputs = list(getattr(signature, "outputs", ()))
    if len(outputs) != count:
        return [first] * count
    types = {
        parameter.type_constraint: value.dtype
        for parameter, value in zip((p for p in signature.params if _is_input(p)), inputs)
        if isinstance(value, Tensor)
    }
    dtypes: list[DataType | None] = []
    for output in outputs:
        kinds = list(output.type_constraint.allowed_types)
        dtypes.append(types.get(output.type_constraint) or (kinds[0].dtype if len(kinds) == 1 else first))
    return dtypes


def answer(proto: Any, given: Mapping[str, Any]) -> bool | int | None:
    """What the collection's questions about a tensor's rank are answered, on which Python code branches; None: else."""
    value = next(iter(given.values()), None)
    if proto.domain != _COMMON or not isinstance(value, Tensor) or value.shape is None:
        return None
    rank = len(value.shape)
    return {"Rank": rank, "IsScalar": rank == 0}.get(proto.name)


def suited(op: Builder, signature: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the types that a function of the collection is written for.

    What shares a type variable is brought to one type, numbers included, and integers to the result's where only that
    is taken: torch promotes so before it calls such functions.

    Raises:
        Unsupported: an argument is of a type that the function doesn't take.
    """
    result = dict(given)
    groups: dict[Any, list[str]] = {}
    for parameter in getattr(signature, "params", ()):
        if _is_input(parameter) and isinstance(given.get(parameter.name), Tensor):
            groups.setdefault(parameter.type_constraint, []).append(parameter.name)
    wanted = [each.dtype for each in op.results]
    for constraint, names in groups.items():
        allowed = {kind.dtype for kind in constraint.allowed_types if type(kind).__name__ == "TensorType"}
        values = [given[name] for name in names]
        numbers = [
            p.name
            for p in signature.params
            if _is_input(p) and p.type_constraint == constraint and isinstance(given.get(p.name), (bool, int, float))
        ]
        one = len({value.dtype for value in values}) == 1 and not numbers
        dtype = values[0].dtype if one else promote(*values, *(given[name] for name in numbers))
        if allowed and dtype not in allowed and len(set(wanted)) == 1 and wanted[0] in allowed:
            dtype = wanted[0]
        if allowed and dtype not in allowed:
            raise Unsupported(f"the function doesn't take {dtype.name} for {', '.join(names)}")
        result |= {name: op.cast(value, dtype) for name, value in zip(names, values) if value.dtype is not dtype}
        result |= {name: op.const(given[name], dtype) for name in numbers}
    return result


def results(op: Builder, found: Any) -> Any:
    """What a function returns, as the results of the FX node.

    All outputs of one node are its first ones, and a sequence is taken apart.
    """
    wanted = op.results
    if isinstance(found, Tensor) and len(wanted) > 1 and _is_sequence(found):
        found = [op.SequenceAt(found, op.const(i)) for i in range(len(wanted))]
        for value, result in zip(found, wanted):
            value.dtype = result.dtype
    if not isinstance(found, Outputs):
        return found
    return found[0] if len(wanted) == 1 else list(found)[: len(wanted)]


def _is_sequence(value: Tensor) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in ("SplitToSequence", "SequenceConstruct", "SequenceMap")


# Complex numbers: to functions of the collection, a complex tensor is a real one with a last axis of 2 ----------------


@dataclass(frozen=True)
class Kind:
    """What a function of onnxscript is written for.

    Attributes:
        numbers: ``"real"`` or ``"complex"`` for a function of its collection for torch; empty for others.
        signature: of the function; None where it is unknown.
    """

    numbers: str = ""
    signature: Any = None

    def arguments(self, op: Builder, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments as the function takes them.

        Raises:
            Unsupported: it isn't written for them.
        """
        if self.numbers == "complex":
            return real_parts(op, self.signature, given)
        return suited(op, self.signature, given) if self.numbers else given

    def results(self, op: Builder, found: Any) -> Any:
        """What the function returns, as the results of the FX node."""
        found = results(op, found)
        return complex_results(op, found) if self.numbers == "complex" else found


def kind_of(function: Any) -> Kind:
    """Tell what a function is written for: those of the collection are registered for real or for complex tensors."""
    registration = sys.modules.get("onnxscript.function_libs.torch_lib.registration")
    module = str(getattr(getattr(function, "func", getattr(function, "function", None)), "__module__", ""))
    if registration is None or not module.startswith("onnxscript.function_libs.torch_lib"):
        return Kind()
    written = any(each is function for entry in registration.default_registry.values() for each in entry.complex)
    numbers = "complex" if written or str(function.name).endswith("_complex") else "real"
    return Kind(numbers, signature_of(function))


def real_parts(op: Builder, signature: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments with complex tensors as real ones; a real tensor of the same type variable gets imaginary parts of 0.

    Raises:
        Unsupported: there is nothing complex in the call.
    """
    if not any_complex(given) and not any(result.is_complex for result in op.results):
        raise Unsupported("the function is written for complex tensors")
    kinds = {p.name: p.type_constraint for p in getattr(signature, "params", ()) if _is_input(p)}
    shared = {kinds.get(name) for name, value in given.items() if isinstance(value, Tensor) and value.is_complex}

    def real(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_complex:
            return value
        pairs = op.Identity(value)
        pairs.shape = None if value.shape is None else type(value.shape)([*value.shape, 2])
        return pairs

    for name, value in given.items():
        if isinstance(value, Tensor) and not value.is_complex and kinds.get(name) in shared - {None}:
            given[name] = op.complex(value, op.Mul(value, op.const(0, value.dtype)))
    return pytree.tree_map(real, given)  # type: ignore[no-any-return]


def complex_results(op: Builder, found: Any) -> Any:
    """Results as complex tensors where the operator gives complex ones."""
    values = list(found) if isinstance(found, (list, tuple)) else [found]
    if len(values) != len(op.results):
        return found
    made = [
        op.as_complex(value) if result.is_complex and isinstance(value, Tensor) else value
        for value, result in zip(values, op.results)
    ]
    return made if isinstance(found, (list, tuple)) else made[0]


class Outputs(tuple[Tensor, ...]):
    """All outputs of one node, as onnxscript gives them; an operator that gets them as its input takes the first."""

    __slots__ = ()


def count_of(schema: Any, attributes: Mapping[str, Any]) -> int:
    """How many outputs a node has where the call doesn't say: all, but those of training."""
    if schema.name == "Split" and isinstance(attributes.get("num_outputs"), int):
        return int(attributes["num_outputs"])
    if schema.name == "BatchNormalization" and not attributes.get("training_mode"):
        return 1
    return len(schema.outputs)


def without_unused(op: Builder, nodes: Sequence[Outputs], returned: Any) -> None:
    """Take off the last outputs that nothing reads: a runtime would compute them."""
    if isinstance(returned, Outputs):
        returned = returned[: len(op.results)]
    kept = {id(value) for value in (returned if isinstance(returned, (list, tuple)) else [returned])}
    for outputs in nodes:
        node, count = outputs[0].producer(), len(outputs)
        while node is not None and count > 1 and not outputs[count - 1].uses() and id(outputs[count - 1]) not in kept:
            count -= 1
        if node is not None and count < len(outputs):
            node.resize_outputs(count)
