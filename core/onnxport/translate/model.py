"""The outside of an ONNX model: its inputs, weights and outputs with their names and metadata, and the model itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import onnx_ir as ir
import torch
import torch.fx

from onnxport.emit.graphs import reachable
from onnxport.emit.schemas import ir_version
from onnxport.emit.tensor import Tensor
from onnxport.errors import InputError, Refusal, TranslationError, UnsupportedOperatorsError
from onnxport.records.profiles import STANDARD
from onnxport.text import writable
from onnxport.vocabulary import keys
from onnxport.vocabulary.dtypes import COMPONENT, SYMBOLIC, component_dtype

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch.export import ExportedProgram

    from onnxport.emit.builder import Builder
    from onnxport.emit.weights import Initializer
    from onnxport.translate.tally import Trial


NUMBERS = {torch.SymInt: ir.DataType.INT64, torch.SymFloat: ir.DataType.DOUBLE, torch.SymBool: ir.DataType.BOOL}
"""The element types of symbolic numbers."""


@dataclass
class Names:
    """The names of the file's inputs, outputs and dimensions.

    Attributes:
        inputs: name by placeholder of the FX graph.
        outputs: names of the user's outputs, in order.
        dims: name by symbol of the shape environment.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    dims: Mapping[Any, str] = field(default_factory=dict)


@dataclass
class Translated:
    """The result of the walk.

    Attributes:
        model: the ONNX model.
        refusals: operators that nothing translated; the model is of use only when there are none.
        served: how many nodes each translation served, by (operator, translation, plugin).
        decomposed: how many nodes of each operator were expanded by decomposition.
        functions: the functions that stand for modules.
        inlined: calls of modules that were to be functions and aren't, by path, with the reason.
    """

    model: ir.Model
    refusals: list[Refusal]
    served: Counter[tuple[str, str, str]]
    decomposed: Counter[str]
    functions: list[FunctionUse] = field(default_factory=list)
    inlined: dict[str, str] = field(default_factory=dict)

    def expect_complete(self) -> None:
        """Raise one error that lists everything that was refused, if anything was.

        Raises:
            UnsupportedOperatorsError: some operator has no translation.
        """
        if self.refusals:
            raise UnsupportedOperatorsError(self.refusals)


def initializer(op: Builder, weight: Initializer, node: torch.fx.Node, name: str) -> Tensor:
    """A weight as an initializer that shares the storage of the torch tensor."""
    fake = node.meta["val"]
    flag = fake.dtype in COMPONENT
    shape = op.symbols.shape(fake)
    tensor = Tensor(name, weight.tensor.dtype, shape, is_complex=flag, const_value=weight.tensor)
    weight.tensor.name = name
    if flag:
        op.frame.complexes.append(tensor)
    properties = tensor.metadata_props
    properties[keys.ORIGIN] = node.name
    properties[keys.INPUT_KIND] = weight.kind.name
    if weight.persistent is not None:
        properties[keys.INPUT_PERSISTENT] = str(weight.persistent)
    op.frame.initializers[name] = tensor
    return tensor


def graph_input(op: Builder, node: torch.fx.Node, name: str | None, inputs: list[Tensor]) -> Any:
    """The value of a placeholder: a graph input, which is added to ``inputs``, or the number that was baked in."""
    fake = node.meta.get("val")
    if isinstance(fake, torch.Tensor):
        flag = fake.dtype in COMPONENT
        tensor = Tensor(None, component_dtype(fake.dtype), op.symbols.shape(fake), is_complex=flag)
        if flag:
            op.frame.complexes.append(tensor)
    elif isinstance(fake, SYMBOLIC):
        tensor = Tensor(None, NUMBERS[type(fake)], ir.Shape([]))
    else:
        return fake
    tensor.name = name if name is not None else op.unique(node.name)
    properties = tensor.metadata_props
    properties[keys.ORIGIN] = node.name
    properties[keys.INPUT_KIND] = "USER_INPUT"
    if tensor.is_complex:
        properties[keys.COMPLEX] = "1"
    inputs.append(tensor)
    if isinstance(fake, SYMBOLIC):
        op.symbols.bind(fake.node.expr, tensor, None)
        return op.symbols.of_torch(fake)
    op.symbols.bind_shape(tensor, tensor.shape)  # type: ignore[arg-type]
    return tensor


def graph_output(op: Builder, value: Any, name: str | None, kind: str, taken: Sequence[Tensor]) -> Tensor:
    """A value as a graph output. One that is also an input, a weight or another output gets an ``Identity``."""
    if isinstance(value, str):
        raise InputError(f"The model returns the string {value!r}, which no ONNX output can be: don't return it.")
    tensor = op.tensor(value)
    if tensor is None:
        raise TranslationError("An output of the model is None: return tensors and numbers.")
    if tensor.producer() is None or any(tensor is other for other in taken):
        flag, shape, base = tensor.is_complex, tensor.shape, tensor.name or "output"
        origin = {key: text for key, text in tensor.metadata_props.items() if key in (keys.ORIGIN, keys.RESULT_INDEX)}
        tensor = op.Identity(tensor)
        tensor.shape = shape
        tensor.metadata_props.update(origin)
        tensor.name = op.unique(f"{base}_out")
        if flag:
            tensor = op.as_complex(tensor, shape)
    if name is not None:
        tensor.name = name
    tensor.metadata_props[keys.OUTPUT_KIND] = kind
    if tensor.is_complex:
        tensor.metadata_props[keys.COMPLEX] = "1"
    return tensor


def link(tensor: Tensor, node: torch.fx.Node, name: str) -> None:
    """Note the FX node that a value comes from, unless it is another's already; ``name`` ends with the result's index
    where the node has several."""
    properties = tensor.metadata_props
    if keys.ORIGIN not in properties:
        properties[keys.ORIGIN] = node.name
        if name != node.name:
            properties[keys.RESULT_INDEX] = name.removeprefix(f"{node.name}_")


def assemble(op: Builder, inputs: list[Tensor], outputs: list[Tensor], program: ExportedProgram) -> ir.Model:
    """The model of everything that was emitted."""
    for tensor in op.frame.complexes:
        if tensor.shape is not None:
            tensor.shape = ir.Shape([*tensor.shape, 2])
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=op.frame.nodes,
        initializers=[tensor for tensor in op.frame.initializers.values() if tensor.uses()],
        opset_imports=op.domains,
        name="main_graph",
    )
    properties = graph.metadata_props
    properties[keys.PROGRAM_SIGNATURE] = writable(str(program.graph_signature))
    properties[keys.RANGE_CONSTRAINTS] = str(program.range_constraints)
    used = reachable(op.functions, graph)
    model = ir.Model(
        graph, ir_version=ir_version(op.opset, has_functions=bool(used)), producer_name="onnxport", functions=used
    )
    if op.profile.name != STANDARD:
        model.metadata_props[keys.RUNTIME] = op.profile.name
    return model


@dataclass
class FunctionUse:
    """The functions that the calls of one module class became.

    Attributes:
        name: ``domain::name`` of the function; a class whose calls differ has several.
        module: qualified name of the class.
        nodes: number of nodes of the function.
        calls: paths of the modules whose calls became calls of the function.
    """

    name: str
    module: str
    nodes: int
    calls: list[str] = field(default_factory=list)


class Walk(Protocol):
    """The translator of single nodes, as walkers use it.

    Attributes:
        op: the builder.
        program: the captured program.
        graph_module: its functional graph, which is translated.
        classes: the module classes of ``functions=``.
        weights: names of the placeholders of weights.
        env: what stands for each node.
        skipped: nodes that are left out.
    """

    op: Builder
    program: ExportedProgram
    graph_module: torch.fx.GraphModule
    classes: Sequence[type | str]
    weights: Sequence[str]
    env: dict[torch.fx.Node, Any]
    skipped: frozenset[torch.fx.Node]

    def visit(self, node: torch.fx.Node) -> None: ...

    def is_constant(self, node: torch.fx.Node) -> bool: ...

    def is_overridden(self, target: Any) -> bool: ...

    def accept(self, node: torch.fx.Node, value: Any) -> Any: ...

    def trial(self) -> AbstractContextManager[Trial]: ...


class Walker(Protocol):
    """Translates the nodes of a graph in an order of its own.

    Attributes:
        uses: by name, the functions that it made.
        inlined: what could not become one, by path, with the reason.
    """

    uses: dict[str, FunctionUse]
    inlined: dict[str, str]

    def walk(self, nodes: Sequence[torch.fx.Node]) -> None:
        """Translate nodes of the graph, or of one that is inlined."""


MakeWalker = Callable[[Walk], Walker | None]
"""Makes a walker for one export; None where it has nothing to do.

It raises InputError where ``functions=`` names a class that the model doesn't have.
"""
