"""Local functions of a model: bodies that are emitted once and called by name.

A body is emitted as a graph of its own, apart from the one around it. What it needs from there becomes inputs: its
arguments, the symbolic sizes that no argument's shape tells, and large constants. Small constants become `Constant`
nodes, since a function has no initializers. Bodies that come out equal are one function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch.fx
from onnx_ir import AttributeType, DataType
from onnxport import Size, Tensor, Unsupported
from onnxport.kit import SYMBOLIC, any_attribute, constant_node, domains, graphs_of, nodes_of, provenance

from onnxport_functions.fingerprints import Structure, content

if TYPE_CHECKING:
    import sympy
    from onnxport import Builder
    from onnxport.kit import Frame

_CONSTANT_BYTES = 1024
"""Larger constants are initializers of the model that every call passes, so that the file holds them once."""


@dataclass
class Call:
    """The call of a function whose body was emitted for certain arguments.

    Attributes:
        function: the function.
        sources: what each of its inputs is given: the place of an argument, a symbol, a constant, or None for nothing.
        results: for each result of the body, the place of an argument that it is, the output of the function that it
            is, as a 1-tuple, or None.
        outputs: element type, None where an attribute decides it, and complex flag of each output of the function.
        single: the body gives one tensor, not a sequence.
    """

    function: ir.Function | None
    sources: list[int | sympy.Basic | ir.TensorProtocol | None]
    results: list[int | tuple[int] | None]
    outputs: list[tuple[DataType | None, bool]]
    single: bool = False

    def emit(self, op: Builder, arguments: Sequence[Tensor], attributes: dict[str, Any] | None = None) -> list[Any]:
        """Call the function; the results of the body. A body that computes nothing needs no call."""
        if self.function is None:
            return [arguments[r] if isinstance(r, int) else None for r in self.results]
        given = []
        for source in self.sources:
            if source is None or isinstance(source, int):
                given.append(None if source is None else arguments[source])
            elif isinstance(source, ir.TensorProtocol):
                given.append(_passed(op, source))
            else:
                given.append(op.symbols.vector(source))
        dtypes = [dtype for dtype, _ in self.outputs]
        domain, name = self.function.domain, self.function.name
        made = op.call(domain, name, *given, outputs=len(dtypes), dtypes=dtypes, **(attributes or {}))
        values = list(made) if isinstance(made, tuple) else [made]
        values = [op.as_complex(v) if flag else v for v, (_, flag) in zip(values, self.outputs)]
        return [values[r[0]] if isinstance(r, tuple) else None if r is None else arguments[r] for r in self.results]


class LocalFunctions:
    """The functions of a model: those that were emitted are found again.

    Args:
        op: the builder of the model.
    """

    def __init__(self, op: Builder) -> None:
        self._op = op
        self._calls: dict[Any, Call] = {}  # by what a body was emitted for
        self._bodies: dict[Any, ir.Function] = {}  # by what they consist of
        self._constants: dict[Any, ir.TensorProtocol] = {}  # large ones, by what they hold

    def define(
        self,
        domain: str,
        name: str,
        arguments: Sequence[Tensor],
        emit: Callable[[list[Tensor]], Sequence[Tensor | None]],
        *,
        names: Sequence[str] = (),
        root: str | None = None,
        attributes: Sequence[ir.Attr] = (),
        gaps: Sequence[int] | None = None,
    ) -> Call:
        """Emit a body as a function of the model, or find the function that has the same body.

        Args:
            domain: the function's domain.
            name: its name; other bodies of this name get a number behind it.
            arguments: tensors around the function that its inputs stand for.
            emit: takes the inputs, returns the results; None for one that there isn't.
            names: names of the inputs.
            root: path of the module whose call the body is; metadata in the body is relative to it.
            attributes: the function's attribute parameters.
            gaps: for a function that stands for an operator: how many arguments are before an input that no call gives,
                for each of these. Arguments that the body doesn't read are inputs too.

        Raises:
            ValueError: the body uses a tensor of the graph around it that is no argument.
        """
        op = self._op
        with op.entered(op.frame.function(root)) as frame:
            inputs = []
            for i, argument in enumerate(arguments):
                label = op.unique(names[i] if i < len(names) else "input")
                inputs.append(Tensor(label, argument.dtype, argument.shape, is_complex=argument.is_complex))
                if argument.is_complex:
                    frame.complexes.append(inputs[-1])
            for tensor in inputs:
                if tensor.shape is not None:
                    op.symbols.bind_shape(tensor, tensor.shape)
            results = list(emit(inputs))
            places, outputs = _results(op, inputs, results)
            nodes, constants = self._constants_of(frame)
            if gaps is not None and (frame.captured or constants):
                raise Unsupported(f"the body of {domain}::{name} needs inputs that the operator hasn't")
            nodes += frame.nodes
            sources: list[Any] = []
            parameters: list[Tensor] = []
            for source, tensor in [*enumerate(inputs), *frame.captured.items(), *constants]:
                is_argument = gaps is not None and isinstance(source, int)
                for _ in range(gaps.count(source) if gaps is not None and is_argument else 0):
                    sources.append(None)
                    parameters.append(Tensor(op.unique("absent"), inputs[0].dtype, None))
                if is_argument or tensor.uses():
                    sources.append(source)
                    parameters.append(tensor)
        kinds: list[tuple[DataType | None, bool]] = [(tensor.dtype, tensor.is_complex) for tensor in outputs]
        for tensor in frame.complexes:
            if tensor.shape is not None:
                tensor.shape = ir.Shape([*tensor.shape, 2])
        if not outputs:
            return Call(None, [], places, [])
        imports = {node.domain: op.domains[node.domain] for node in nodes_of(nodes)} | {"": op.opset}
        _expect_closed(f"{domain}::{name}", nodes, {id(tensor) for tensor in parameters})
        graph = ir.Graph(parameters, outputs, nodes=nodes, opset_imports=imports, name=name)
        return Call(self._shared(domain, name, graph, attributes), sources, places, kinds)

    def function(
        self,
        domain: str,
        name: str,
        body: Callable[..., Any] | torch.fx.GraphModule,
        inputs: Sequence[Any],
        key: Any,
        attributes: dict[str, Any],
    ) -> Any:
        """Emit the call of a function, and its body where no equal one was emitted: see :meth:`Builder.function`."""
        op = self._op
        references = {k: any_attribute(name, k, v) for k, v in attributes.items()}
        if isinstance(body, torch.fx.GraphModule):
            inputs = _with_own_symbols(op, body, inputs)
        structure = Structure(op)
        is_graph = isinstance(body, torch.fx.GraphModule)
        identity = structure.value(body) if is_graph else (body if key is None else key)
        kinds = tuple((k, a.type) for k, a in sorted(references.items()))
        signature = (domain, name, identity, tuple(structure.value(value) for value in inputs), kinds)
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        single = False

        def emit(parameters: list[Tensor]) -> list[Tensor | None]:
            nonlocal single
            following = iter(parameters)
            values = [next(following) if isinstance(value, Tensor) else value for value in inputs]
            if isinstance(body, torch.fx.GraphModule):
                return [op.tensor(result) for result in op.inline(body, *values)]
            with op.at(None):
                results = body(*values, **{k: ir.RefAttr(k, k, a.type) for k, a in references.items()})
            single = not isinstance(results, (list, tuple))
            return [op.tensor(result) for result in ([results] if single else results)]

        made = self._calls.get(signature)
        if made is None:
            parameters = [ir.Attr(k, a.type, None) for k, a in references.items()]
            root = provenance.module_path(op.node) if is_graph and op.node is not None else None
            gaps = None
            if domain in op.profile.domains:  # it stands for an operator of the runtime, whose inputs have their places
                absent = [i for i, value in enumerate(inputs) if value is None]
                gaps = [sum(isinstance(value, Tensor) for value in inputs[:i]) for i in absent]
            made = self.define(domain, name, tensors, emit, root=root, attributes=parameters, gaps=gaps)
            made.single = single
            self._calls[signature] = made
        results = made.emit(op, tensors, attributes)
        return results[0] if made.single else tuple(results)

    def _constants_of(self, frame: Frame) -> tuple[list[ir.Node], list[tuple[ir.TensorProtocol, Tensor]]]:
        """The body's constants: nodes for small ones, inputs for the others."""
        nodes = []
        passed = []
        for tensor in frame.initializers.values():
            data = tensor.const_value
            if data is None or not tensor.uses():
                continue
            if data.nbytes > _CONSTANT_BYTES:
                key = data.dtype, tuple(data.shape), hashlib.sha256(data.tobytes()).digest()
                passed.append((self._constants.setdefault(key, data), tensor))
                tensor.const_value = None
            else:
                nodes.append(constant_node(tensor, data))
        return nodes, passed

    def _shared(self, domain: str, name: str, graph: ir.Graph, attributes: Sequence[ir.Attr]) -> ir.Function:
        """The function of this body: one that is there already, where only element types and shapes differ."""
        op = self._op
        key = (domain, name, tuple(a.name for a in attributes), *_described(graph))
        known = self._bodies.get(key)
        if known is None:
            free = (n for n in _numbered(name) if (domain, n, "") not in op.functions)
            function = ir.Function(domain, next(free), graph=graph, attributes=attributes)
            op.functions[function.identifier()] = self._bodies[key] = function
            domains.require(op, domain)
            return function
        for mine, other in zip(_values(known), _values(graph)):
            if mine.dtype is not other.dtype:
                mine.type = None
            if mine.shape is not None and other.shape is not None and len(mine.shape) == len(other.shape):
                dims = [d if d == o else ir.SymbolicDim(None) for d, o in zip(mine.shape, other.shape)]
                mine.shape = mine.shape if dims == list(mine.shape) else ir.Shape(dims)
            else:
                mine.shape = None
        return known


def _with_own_symbols(op: Builder, body: torch.fx.GraphModule, inputs: Sequence[Any]) -> list[Any]:
    """Sizes that the body has a symbol of its own for are passed as tensors, which that symbol is then read from."""
    placeholders = [node.meta.get("val") for node in body.graph.nodes if node.op == "placeholder"]
    given = []
    for fake, value in zip(placeholders, inputs):
        own = isinstance(value, Size) and isinstance(fake, SYMBOLIC) and fake.node.expr != value.expr
        given.append(op.tensor(value) if own else value)
    return given


def _passed(op: Builder, data: ir.TensorProtocol) -> Tensor:
    """A large constant of a function as an initializer where the function is called; one for all calls."""
    frame = op.frame
    found = frame.constants.get(id(data))
    if found is None:
        data.name = op.unique("const")
        found = Tensor(data.name, data.dtype, ir.Shape(data.shape.numpy()), const_value=data)
        frame.remember(frame.constants, id(data), found)
        frame.remember(frame.initializers, data.name, found)
    return found


def _results(
    op: Builder, inputs: Sequence[Tensor], results: Sequence[Tensor | None]
) -> tuple[list[int | tuple[int] | None], list[Tensor]]:
    """The place of each result, and the outputs of the function, each once."""
    own = {id(value) for node in op.frame.nodes for value in node.outputs}
    arguments = {id(tensor): i for i, tensor in enumerate(inputs)}
    places: list[int | tuple[int] | None] = []
    outputs: dict[int, tuple[int, Tensor]] = {}
    for result in results:
        if result is None:
            places.append(None)
        elif id(result) in arguments:
            places.append(arguments[id(result)])
        else:
            if id(result) not in outputs:
                made = result
                if id(result) not in own:
                    made = op.Identity(result)
                    made = op.as_complex(made, result.shape) if result.is_complex else made
                outputs[id(result)] = len(outputs), made
            places.append((outputs[id(result)][0],))
    return places, [tensor for _, tensor in outputs.values()]


def _expect_closed(label: str, nodes: Iterable[ir.Node], known: set[int]) -> None:
    """Functions see nothing of the graph around them, unlike subgraphs."""
    for node in nodes:
        for value in node.inputs:
            if value is not None and id(value) not in known:
                raise ValueError(f"the body of {label} uses {value.name}, which is no argument of it: pass it")
        for graph in graphs_of(node):
            _expect_closed(label, graph, known | {id(value) for value in graph.inputs})
        known.update(id(value) for value in node.outputs)


def _numbered(name: str) -> Iterable[str]:
    yield name
    count = 2
    while True:
        yield f"{name}_{count}"
        count += 1


def _values(graph: ir.Graph | ir.Function) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
        for inner in graphs_of(node):
            yield from _values(inner)


def _described(graph: ir.Graph, known: dict[int, int] | None = None) -> tuple[Any, ...]:
    """A graph but for its names, element types and shapes."""
    places = {} if known is None else known
    for value in graph.inputs:
        places[id(value)] = len(places)
    nodes = []
    for node in graph:
        inputs = tuple(None if value is None else places[id(value)] for value in node.inputs)
        attributes = tuple((k, _attribute(a, places)) for k, a in sorted(node.attributes.items()))
        nodes.append((node.domain, node.op_type, node.overload, inputs, attributes, len(node.outputs)))
        for value in node.outputs:
            places[id(value)] = len(places)
    return len(graph.inputs), tuple(nodes), tuple(places[id(value)] for value in graph.outputs)


def _attribute(attribute: ir.Attr, places: dict[int, int]) -> Any:
    if attribute.is_ref():
        return attribute.type, attribute.ref_attr_name
    value = attribute.value
    if attribute.type is AttributeType.TENSOR:
        return content(value)
    if attribute.type is AttributeType.GRAPH:
        return _described(value, dict(places))
    if attribute.type is AttributeType.GRAPHS:
        return tuple(_described(graph, dict(places)) for graph in value)
    return attribute.type, repr(value)
