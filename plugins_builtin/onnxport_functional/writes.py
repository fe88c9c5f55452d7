"""What operators write, by their schemas, and the pure operators that compute the same."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from onnxport.kit import Assertion, Write, mutated
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from onnxport_functional import meaning

aten = torch.ops.aten

# Mutating operators whose result is the tensor itself, with nothing written.
SAME_TENSOR = frozenset({"aten::requires_grad_", "aten::detach_"})
TURNS_INTO_VIEW = frozenset(f"aten::{n}_" for n in ["transpose", "t", "squeeze", "unsqueeze", "swapaxes", "swapdims"])
_RENAMED = {
    "__iand__": "bitwise_and",
    "__ior__": "bitwise_or",
    "__ixor__": "bitwise_xor",
    "__ilshift__": "bitwise_left_shift",
    "__irshift__": "bitwise_right_shift",
}
PYTHON_INPLACE: Mapping[Any, Any] = {
    getattr(operator, f"i{name}"): getattr(operator, name if name not in ("and", "or") else f"{name}_")
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
}


def is_assertion(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "profiler":
        return True
    return meaning.of(Assertion, target) is not None


def may_change(target: Any) -> bool:
    """Whether :func:`must_change` holds for some call of the operator."""
    if isinstance(target, torch._ops.OpOverload):
        return bool(mutated(target)) or meaning.of(Write, target) is not None or target is aten.as_strided.default
    return target in PYTHON_INPLACE or is_kernel(target)


def must_change(node: Node) -> bool:
    """Whether a graph can't stay as it is because of the node: a write, or a view of a storage beyond its argument."""
    return node.target is aten.as_strided.default or is_write(node)


def is_write(node: Node) -> bool:
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return bool(mutated(target)) or is_meant(node)
    return target in PYTHON_INPLACE or is_kernel(target)


def is_kernel(target: Any) -> bool:
    """Whether it is the launch of a Triton kernel, which returns nothing and writes its arguments."""
    return getattr(target, "__name__", "") == "triton_kernel_wrapper_mutation"


def is_meant(node: Node) -> bool:
    """Whether the call is a write by a record."""
    record = meaning.of(Write, node.target)
    return record is not None and (record.when is None or record.when(node))


def is_inplace(target: Any) -> bool:
    """Whether a call of `target` returns its first argument, written."""
    if not isinstance(target, torch._ops.OpOverload) or not mutated(target) or len(target._schema.returns) != 1:
        return False
    returned, first = target._schema.returns[0].alias_info, target._schema.arguments[0].alias_info
    return returned is not None and first is not None and first.is_write and target._schema.name.endswith("_")


#: Operators whose `out=` keeps its shape where that has as many elements as the result.
RANGES = frozenset(f"aten::{name}" for name in ("arange", "linspace", "logspace", "range"))
#: What operators that make tensors of numbers take, where they have no `out=`.
_FACTORY = frozenset({"dtype", "layout", "device", "pin_memory"})


def as_out_decides(twin: torch._ops.OpOverload, given: Mapping[str, Any], out: torch.Tensor) -> dict[str, Any]:
    """The arguments of the pure operator that a written tensor decides: `sum(x, 0, out=o)` adds in the dtype of `o`."""
    names = {argument.name for argument in twin._schema.arguments if argument.kwarg_only}
    decided = {"dtype": out.dtype, "device": out.device}
    return {name: value for name, value in decided.items() if name in names and given.get(name) is None}


#: Operators whose kernels write before they have read everything, and the argument that they may write none the less.
ACCUMULATES: Mapping[str, str] = {
    **dict.fromkeys(("sum", "mean", "prod", "amax", "amin", "aminmax", "nansum", "nanmean", "all", "any"), ""),
    **dict.fromkeys(("mm", "bmm", "mv", "matmul", "linalg_matmul", "dot", "vdot", "inverse", "linalg_inv"), ""),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "addbmm"), "self"),
}


def pure_twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The pure operator with the same arguments, without those for `out=`.

    It returns what `target` returns beside the tensors it writes, and then the new values of those. What makes tensors
    of numbers (`arange`) also takes what `out=` decides otherwise: see :data:`_FACTORY`. A record names it, or torch
    has one of the same name.
    """
    record = meaning.of(Write, target)
    return meaning.named(record.value, record) if record and isinstance(record.value, str) else _twin_by_name(target)


@cache
def _twin_by_name(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    namespace, name = target._schema.name.split("::")
    base = name.removesuffix("_")
    is_out = any(written.is_out for written in mutated(target))
    wanted = [str(argument.type) for argument in target._schema.arguments if not argument.is_out]
    names = [name] if is_out else [base, f"{base}_functional"]
    for candidate in (*names, _RENAMED.get(name)):
        packet = getattr(getattr(torch.ops, namespace), candidate, None) if candidate else None
        found = []
        for overload_name in packet.overloads() if packet else ():
            overload = getattr(packet, overload_name)
            types = [str(argument.type) for argument in overload._schema.arguments]
            extra = {argument.name for argument in overload._schema.arguments[len(wanted) :]}
            is_twin = types[: len(wanted)] == wanted and (not extra or (is_out and extra == _FACTORY))
            if is_twin and not mutated(overload):
                found.append(overload)
        if found:
            return next((o for o in found if o._overloadname == target._overloadname), found[0])
    return None


#: They read gates beyond the end of a weight of one element: torch 2.14 ends the process.
_NEEDS_GATES = frozenset(f"aten::{name}" for name in ("lstm", "gru", "lstm_cell", "gru_cell"))
_KINDS: dict[Any, list[tuple[torch.dtype, int]]] = {}


def result_dtypes(twin: torch._ops.OpOverload, args: Any, kwargs: Any) -> list[torch.dtype]:
    """The dtypes that a pure operator gives; empty where they can't be found."""
    return [dtype for dtype, _ in result_kinds(twin, args, kwargs)]


def result_kinds(twin: torch._ops.OpOverload, args: Any, kwargs: Any) -> list[tuple[torch.dtype, int]]:
    """The dtypes and ranks that a pure operator gives, found by running it on tensors of one element; or empty."""
    if twin._schema.name in _NEEDS_GATES:
        return []
    key = (twin, frozen(map_arg(args, _kind)), frozen(tuple(map_arg(kwargs, _kind).items())))
    if key not in _KINDS:
        try:
            results = pytree.tree_leaves(twin(*map_arg(args, _one_element), **map_arg(kwargs, _one_element)))
            _KINDS[key] = [(result.dtype, result.dim()) for result in results]
        # what needs real sizes doesn't promote
        except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError):
            _KINDS[key] = []
    return _KINDS[key]


def _kind(node: Node) -> Any:
    val = node.meta.get("val")
    return (val.dtype, val.dim()) if isinstance(val, torch.Tensor) else type(val)


def _one_element(node: Node) -> Any:
    val = node.meta.get("val")
    if isinstance(val, torch.Tensor):
        return torch.empty((1,) * val.dim(), dtype=val.dtype, device="meta")
    return {torch.SymInt: 1, torch.SymFloat: 1.0, torch.SymBool: True}.get(type(val), val)


def frozen(value: Any) -> Any:
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else (type(value), value)
