"""Weights that are tensor subclasses, as torchao's quantized ones, as the plain tensors that they hold.

``torch.export`` records what a subclass computes on its inner tensors, each read by ``access_subclass_inner_tensor``.
Here these readings become weights of the program: ``linear.weight.qdata``, ``linear.weight.scale``. A subclass that an
operator reads as a whole, because it only overrides ``__torch_dispatch__``, is taken apart by torch, which traces the
program a second time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from onnxport import WeightError
from onnxport.kit import dense
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_READ = "export.access_subclass_inner_tensor.default"


def plain_tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Named tensors with each subclass as its inner tensors, named after it."""
    return dict(item for name, tensor in tensors.items() for item in _flat(name, tensor))


def _flat(name: str, tensor: Any) -> Iterator[tuple[str, Any]]:
    if not is_traceable_wrapper_subclass(tensor):
        yield name, dense(tensor) if isinstance(tensor, Tensor) else tensor
        return
    for attribute in tensor.__tensor_flatten__()[0]:
        yield from _flat(f"{name}.{attribute}", getattr(tensor, attribute))


def with_plain_weights(program: ExportedProgram) -> ExportedProgram:
    """The program with inner tensors for weights; ``program`` itself, which is left as it is, where none is a subclass.

    Raises:
        WeightError: a subclass that the program reads as a whole, and torch can't take apart.
    """
    tensors = {**program.constants, **program.state_dict}
    wrapped = {
        spec.arg.name: (spec, tensors[spec.target])
        for spec in program.graph_signature.input_specs
        if spec.target is not None and is_traceable_wrapper_subclass(tensors.get(spec.target))
    }
    if not wrapped:
        return program
    for node in program.graph.find_nodes(op="placeholder"):
        whole = [user for user in node.users if str(user.target) != _READ] if node.name in wrapped else []
        if whole:
            return _desugared(program, *wrapped[node.name], whole[0])
    graph, copies = Graph(), dict[Node, Node]()
    graph.output(graph.graph_copy(program.graph, copies))
    for original, made in copies.items():
        made.name = original.name  # a name such as `input` would be made another, and the signature goes by names
    graph.output_node().meta = copy.copy(program.graph.output_node().meta)
    added: dict[str, list[InputSpec]] = {}
    for node in list(graph.nodes):
        if node.op == "placeholder" and node.name in wrapped:
            spec, tensor = wrapped[node.name]
            added[node.name] = list(_unwrap(graph, node, spec, tensor))
    signature = program.graph_signature
    specs = [new for spec in signature.input_specs for new in added.get(spec.arg.name, [spec])]
    return ExportedProgram(
        GraphModule(program.graph_module, graph),
        graph,
        ExportGraphSignature(specs, list(signature.output_specs)),
        plain_tensors(program.state_dict),
        program.range_constraints,
        program.module_call_graph,
        program.example_inputs,
        constants=plain_tensors(program.constants),
        verifiers=program.verifiers,
    )


def _unwrap(graph: Graph, node: Node, spec: InputSpec, tensor: Any) -> Iterator[InputSpec]:
    """Replace a placeholder by those of the inner tensors; yields their specs in the order of the graph."""
    inner: dict[str, Node] = {}
    for user in list(node.users):
        if str(user.target) != _READ:
            raise _unreadable(spec, tensor, user)
        attribute = str(user.args[1])
        if attribute not in inner:
            with graph.inserting_before(node):
                inner[attribute] = graph.placeholder(f"{node.name}_{attribute}")
            inner[attribute].meta = copy.copy(user.meta)
        user.replace_all_uses_with(inner[attribute])
        graph.erase_node(user)
    graph.erase_node(node)
    for attribute, placeholder in inner.items():
        part = getattr(tensor, attribute)
        arg = TensorArgument(placeholder.name)
        is_constant = spec.kind is InputKind.CONSTANT_TENSOR
        kind, persistent = (spec.kind, None) if is_constant else (InputKind.BUFFER, spec.persistent is not False)
        plain = InputSpec(kind, arg, f"{spec.target}.{attribute}", persistent)
        if is_traceable_wrapper_subclass(part):
            yield from _unwrap(graph, placeholder, plain, part)
        else:
            yield plain


def _desugared(program: ExportedProgram, spec: InputSpec, tensor: Any, user: Node) -> ExportedProgram:
    """The program as torch traces it below all subclasses, with the names that :func:`plain_tensors` gives."""
    try:
        traced = program.run_decompositions({})
    except Exception as error:  # whatever a subclass or torch stumbles over
        raise _unreadable(spec, tensor, user) from error
    names = dict(_parametrized({**program.constants, **program.state_dict}))
    signature = traced.graph_signature
    specs = [replace(spec, target=names.get(spec.target or "", spec.target)) for spec in signature.input_specs]
    return ExportedProgram(
        traced.graph_module,
        traced.graph,
        ExportGraphSignature(specs, list(signature.output_specs)),
        {names.get(name, name): weight for name, weight in traced.state_dict.items()},
        traced.range_constraints,
        traced.module_call_graph,
        traced.example_inputs,
        constants={names.get(name, name): value for name, value in traced.constants.items()},
        verifiers=traced.verifiers,
    )


def _parametrized(tensors: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What torch 2.14 calls the inner tensors of a weight that it takes apart, and their names here."""
    for name, tensor in tensors.items():
        *path, attribute = name.split(".")
        if is_traceable_wrapper_subclass(tensor):
            for index, (inner, _) in enumerate(_flat(name, tensor)):
                yield ".".join([*path, "parametrizations", attribute, f"original{index}"]), inner


def _unreadable(spec: InputSpec, tensor: Any, user: Node) -> WeightError:
    return WeightError(
        f"The weight {spec.target!r} is a {type(tensor).__name__}, which {user.target} reads as a whole. "
        "Make it plain tensors before the export, as torchao.utils.unwrap_tensor_subclass does."
    )
