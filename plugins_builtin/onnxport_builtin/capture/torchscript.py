"""Parts that come as TorchScript: scripted, traced or loaded modules, and scripted functions.

TorchScript's own interpreter makes numbers of all sizes, and torch.export can't run its modules at all where they are
nested. While an export captures, a graph of TorchScript is run here, operator by operator: sizes stay symbolic, and
branches and loops are decided as they are in Python. The modules of a model are replaced by ones with the same
parameters, buffers and names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from onnxport import is_in_onnx_export
from onnxport.kit import Replacement, all_applied

from onnxport_builtin.capture.torchscript_operators import DTYPE_OF, ON_NUMBERS, OPERATORS, Number

_NUMBER_OF = {dtype: number for number, dtype in DTYPE_OF.items()}
_LAYOUTS = {0: torch.strided, 1: torch.sparse_coo, 2: torch.sparse_csr}
_MEMORY_FORMATS = {
    0: torch.contiguous_format, 1: torch.preserve_format, 2: torch.channels_last, 3: torch.channels_last_3d,
}  # fmt: skip
_ENUMERATIONS = {"ScalarType": DTYPE_OF, "Layout": _LAYOUTS, "MemoryFormat": _MEMORY_FORMATS}
#: Kinds of nodes that are run by a method below.
_STRUCTURES = (
    "Constant", "GetAttr", "SetAttr", "If", "Loop", "ListConstruct", "TupleConstruct", "DictConstruct", "ListUnpack",
    "TupleUnpack", "TupleIndex", "RaiseException", "NumToTensor", "Uninitialized", "isinstance", "dtype",
    "CreateObject", "Enter", "Exit",
)  # fmt: skip
#: Blocks that change nothing in a file.
_BLOCKS = ("grad_mode", "record_function")


@contextmanager
def torchscript_parts(model: torch.nn.Module) -> Iterator[None]:
    """While this is active, modules of TorchScript in a model, and scripted functions, run operator by operator."""
    changed: list[tuple[torch.nn.Module, str, torch.nn.Module]] = []
    made: dict[int, torch.nn.Module] = {}
    shared: dict[Any, torch.nn.Parameter] = {}
    for module in list(model.modules()):
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, child in list(module._modules.items()):
            if isinstance(child, torch.jit.ScriptModule):
                changed.append((module, name, child))
    with all_applied(_replaced()):
        for module, name, child in changed:
            made.setdefault(id(child), _part(child, shared))
            module._modules[name] = made[id(child)]
        try:
            yield
        finally:
            for module, name, child in changed:
                module._modules[name] = child


def _replaced() -> Iterator[Replacement]:
    yield Replacement(torch._C.ScriptFunction, "__call__", _interpreted)
    yield Replacement(torch._C.ScriptMethod, "__call__", _interpreted)  # of modules that no module holds as a part


def _interpreted(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        captures = is_in_onnx_export() and not torch.compiler.is_dynamo_compiling()
        graph = _graph(self) if captures else None
        if graph is None or any(_unknown(graph)):
            return original(self, *args, **kwargs)
        owner = (self.owner,) if isinstance(self, torch._C.ScriptMethod) else ()
        return _Interpreter().call(graph, self.schema, (*owner, *args), kwargs)

    return call


def _graph(function: Any) -> Any:
    """The graph of a function or method; None for one that is written in C++."""
    try:
        return function.inlined_graph
    except RuntimeError:
        return None


def _part(script: torch.jit.ScriptModule, shared: dict[Any, torch.nn.Parameter]) -> torch.nn.Module:
    """A module of the same names and tensors whose methods run the graphs."""
    part = type(script.original_name, (_Part,), {"__module__": __name__})()
    vars(part).update(_script=script, training=script.training)
    for name, parameter in script.named_parameters(recurse=False):
        if not isinstance(parameter, torch.nn.Parameter):  # those of a loaded module are plain tensors
            new = torch.nn.Parameter(parameter.detach(), parameter.requires_grad)
            parameter = shared.setdefault((parameter.data_ptr(), parameter.shape, parameter.stride()), new)
        part._parameters[name] = parameter
    part._buffers.update(script.named_buffers(recurse=False))
    part._modules.update((name, _part(child, shared)) for name, child in script.named_children())
    return part


class _Part(torch.nn.Module):
    """What stands for a module of TorchScript during a capture."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return _run(vars(self)["_script"]._c._get_method("forward"), (self, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        with suppress(AttributeError):
            return super().__getattr__(name)
        found = getattr(vars(self)["_script"], name)
        if isinstance(found, torch._C.ScriptMethod):
            return lambda *args, **kwargs: _run(found, (self, *args), kwargs)
        return found

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, key: Any) -> Any:
        return self._modules[key] if isinstance(key, str) else list(self._modules.values())[key]


def _run(method: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if unknown := sorted(set(_unknown(method.inlined_graph))):
        raise RuntimeError(
            f"A part of the model is TorchScript with {', '.join(unknown)}, which can't be captured. Give the "
            "nn.Module that it was scripted from"
        )
    return _Interpreter().call(method.inlined_graph, method.schema, args, kwargs)


class _Interpreter:
    """One run of an inlined graph."""

    def __init__(self) -> None:
        self.env: dict[str, Any] = {}

    def call(self, graph: Any, schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What the graph returns for these arguments, ``args`` with the module first where there is one."""
        names = [argument.name for argument in schema.arguments]
        given = {**dict(zip(names, args)), **kwargs}
        values = [given.get(argument.name, argument.default_value) for argument in schema.arguments]
        if len(args) > len(names) or set(given) - set(names) or len(given) < len(args) + len(kwargs):
            raise TypeError(f"{schema.name} takes the arguments {', '.join(names)}")
        for value, argument in zip(graph.inputs(), values):
            self.env[value.debugName()] = argument
        self._block(graph)
        results = [self.env[value.debugName()] for value in graph.outputs()]
        return _plain(results[0] if len(results) == 1 else tuple(results))

    def _block(self, block: Any) -> None:
        for node in block.nodes():
            inputs = [self.env[value.debugName()] for value in node.inputs()]
            results = self._node(node, inputs)
            outputs = list(node.outputs())
            if len(outputs) == 1:
                results = (results,)
            for value, result in zip(outputs, results or ()):
                self.env[value.debugName()] = result

    def _node(self, node: Any, inputs: list[Any]) -> Any:
        namespace, _, kind = node.kind().partition("::")
        if namespace == "prim" and kind in _STRUCTURES:
            return getattr(self, f"_{kind.lower()}")(node, inputs)
        name, overload = _name(node)
        if any(isinstance(value, Number) for value in inputs):
            numbers = [_number(value) for value in inputs]
            if kind in ON_NUMBERS and not any(isinstance(value, torch.Tensor) for value in numbers):
                return Number(ON_NUMBERS[kind](*numbers))
            if kind in ("Int", "Float", "IntImplicit", "FloatImplicit", "ScalarImplicit", "item", "Bool"):
                return OPERATORS["Int" if kind == "item" else kind](numbers[0])
            inputs = [value.tensor() if isinstance(value, Number) else value for value in inputs]
        own = OPERATORS.get(kind if namespace == "aten" else name)
        if own is not None and (kind in _SIZES or not _has_kernel(_full(name, overload))):
            if kind in ("tensor", "as_tensor"):
                inputs[1] = DTYPE_OF.get(inputs[1])
            return own(*inputs)
        operator = getattr(getattr(getattr(torch.ops, namespace), kind), overload or "default")
        positional, keywords = [], {}
        for argument, value in zip(operator._schema.arguments, inputs):
            enumeration: Any = _ENUMERATIONS.get(str(argument.real_type).removeprefix("Optional[").removesuffix("]"))
            value = enumeration.get(value, value) if enumeration is not None and isinstance(value, int) else value
            if argument.kwarg_only:
                keywords[argument.name] = value
            else:
                positional.append(value)
        results = operator(*positional, **keywords)
        return list(results) if isinstance(results, list) else results

    # Nodes of the language itself ------------------------------------------------------------------------------------

    def _constant(self, node: Any, _inputs: list[Any]) -> Any:
        return node.output().toIValue() if node.hasAttributes() else None

    def _getattr(self, node: Any, inputs: list[Any]) -> Any:
        owner, name = inputs[0], node.s("name")
        if isinstance(owner, torch.nn.Module):
            for kind in (owner._parameters, owner._buffers, owner._modules, vars(owner).get("_assigned", {})):
                if name in kind:
                    return kind[name]
            owner = vars(owner)["_script"]._c
        return getattr(owner, "getattr", partial(getattr, owner))(name)  # a C++ module has a method for it

    def _setattr(self, node: Any, inputs: list[Any]) -> None:
        owner, value = inputs
        name = node.s("name")
        if isinstance(owner, torch.nn.Module) and name in owner._buffers:
            setattr(owner, name, value)
        elif isinstance(owner, torch.nn.Module):
            vars(owner).setdefault("_assigned", {})[name] = value
        else:
            setattr(owner, name, value)

    def _if(self, node: Any, inputs: list[Any]) -> list[Any]:
        then, other = node.blocks()
        chosen = then if inputs[0] else other
        self._block(chosen)
        return self._results(node, [self.env[value.debugName()] for value in chosen.outputs()])

    def _loop(self, node: Any, inputs: list[Any]) -> list[Any]:
        (block,) = node.blocks()
        count, condition, *carried = inputs
        turn = 0
        while condition and turn < count:
            for value, current in zip(block.inputs(), [turn, *carried]):
                self.env[value.debugName()] = current
            self._block(block)
            condition, *carried = (self.env[value.debugName()] for value in block.outputs())
            turn += 1
        return self._results(node, carried)

    def _results(self, node: Any, values: list[Any]) -> Any:
        return values[0] if len(list(node.outputs())) == 1 else values

    def _listconstruct(self, _node: Any, inputs: list[Any]) -> list[Any]:
        return [_number(value) for value in inputs] if not any(map(_is_tensor, inputs)) else _tensors(inputs)

    def _tupleconstruct(self, node: Any, inputs: list[Any]) -> Any:
        return tuple(inputs)

    def _dictconstruct(self, _node: Any, inputs: list[Any]) -> dict[Any, Any]:
        return dict(zip(inputs[::2], inputs[1::2]))

    def _listunpack(self, node: Any, inputs: list[Any]) -> Any:
        return self._results(node, list(inputs[0]))

    _tupleunpack = _listunpack

    def _tupleindex(self, _node: Any, inputs: list[Any]) -> Any:
        return inputs[0][inputs[1]]

    def _raiseexception(self, _node: Any, inputs: list[Any]) -> None:
        raise RuntimeError(str(inputs[0]))

    def _numtotensor(self, _node: Any, inputs: list[Any]) -> Number:
        return Number(inputs[0])

    def _createobject(self, _node: Any, _inputs: list[Any]) -> SimpleNamespace:
        return SimpleNamespace()  # its methods, the first of which sets its attributes, are in the graph

    def _enter(self, _node: Any, inputs: list[Any]) -> Any:
        return inputs[0]

    def _exit(self, _node: Any, _inputs: list[Any]) -> None:
        return None

    def _uninitialized(self, _node: Any, _inputs: list[Any]) -> None:
        return None

    def _isinstance(self, node: Any, inputs: list[Any]) -> bool:
        return any(_is_of(inputs[0], kind) for kind in node.tys("types"))

    def _dtype(self, _node: Any, inputs: list[Any]) -> int:
        tensor = inputs[0].tensor() if isinstance(inputs[0], Number) else inputs[0]
        return _NUMBER_OF[tensor.dtype]


#: Operators with kernels that are not to be asked: they would give a number for a size.
_SIZES = ("size", "sym_size", "stride", "numel", "dim", "item", "storage_offset", "Int", "Float", "Bool", "tensor")


@cache
def _parsed(text: str) -> tuple[str, str]:
    schema = torch._C.parse_schema(text)
    return schema.name, schema.overload_name


def _name(node: Any) -> tuple[str, str]:
    text = node.schema()
    return (node.kind(), "") if text.startswith("(no schema") else _parsed(text)


def _full(name: str, overload: str) -> str:
    return f"{name}.{overload}" if overload else name


def _unknown(graph: Any) -> Iterator[str]:
    """The nodes of a graph that aren't run here."""
    for node in graph.nodes():
        if not _knows(node):
            yield node.kind()
        for block in node.blocks():
            yield from _unknown(block)


def _knows(node: Any) -> bool:
    namespace, _, kind = node.kind().partition("::")
    if kind in ("Enter", "Exit"):
        return any(name in str(next(iter(node.inputs())).type()) for name in _BLOCKS)
    if namespace == "prim" and kind in _STRUCTURES:
        return True
    name, overload = _name(node)
    return (kind if namespace == "aten" else name) in OPERATORS or _has_kernel(_full(name, overload))


@cache
def _has_kernel(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel(name))


def _number(value: Any) -> Any:
    if isinstance(value, Number):
        return value.value
    if isinstance(value, torch.Tensor) and value.dim() == 0 and type(value) is torch.Tensor:
        return value.item()  # a constant of the trace
    return value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _tensors(values: list[Any]) -> list[Any]:
    return [value.tensor() if isinstance(value, Number) else value for value in values]


def _plain(value: Any) -> Any:
    """What the model gets: a tensor for a traced number, in containers too."""
    if isinstance(value, Number):
        return value.tensor()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type of TorchScript."""
    name = kind.kind()
    simple: dict[str, Any] = {
        "TensorType": (torch.Tensor, Number), "IntType": (int, torch.SymInt), "FloatType": (float, torch.SymFloat),
        "BoolType": (bool, torch.SymBool), "StringType": str, "NoneType": type(None), "ListType": list,
        "TupleType": tuple, "DictType": dict, "DeviceObjType": torch.device,
    }  # fmt: skip
    if name == "OptionalType":
        return value is None or _is_of(value, kind.getElementType())
    if name == "ListType" and isinstance(value, list) and value:
        return _is_of(value[0], kind.getElementType())
    if name == "IntType" and isinstance(value, bool):
        return False
    return isinstance(value, simple.get(name, ()))
