"""``op``: what a translation emits ONNX nodes with.

``op.Name(inputs…, attribute=…)`` makes one node of the default domain at the target opset. What can be known per
operator is computed once (:mod:`onnxport.emit.schemas`); per node there is only binding, naming and appending.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import DataType

from onnxport.emit import domains, infer, literals, local_functions
from onnxport.emit.complex_values import ComplexValues
from onnxport.emit.schemas import OpSpec, missing, spec_of
from onnxport.emit.scopes import Result, Scope, detach
from onnxport.emit.symbols import Size, Symbols
from onnxport.emit.tensor import Node, Tensor
from onnxport.emit.weights import TorchTensor
from onnxport.errors import Unsupported
from onnxport.host.profiles import DEFAULT
from onnxport.text import writable
from onnxport.vocabulary.dtypes import COMPONENT, ONNX_TO_TORCH, SINCE, onnx_dtype, saturates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch.fx

    from onnxport.host.records import Translation

_SMALL = 1024  # bytes; constants up to this size are shared by content


class Builder(ComplexValues):
    """Emits the nodes of one model; see the module's docstring.

    Attributes:
        opset: target opset of the default domain.
        node: the FX node being translated.
        source: the user's node that ``node`` is a decomposed step of, if it is one.
        origin: the translation being run.
        seed: the seed for random nodes that the user wants, or None.
        profile: the runtime that the file is for; ``op.call`` takes a domain's version from it.
        root: in a function, the path of the module whose call it is: metadata of its nodes is relative to it.
        inline: translates a GraphModule's nodes here; ``op.inline(graph_module, *values)`` gives its flat outputs.
        translate: runs another operator's translation on values; ``op.translate("aten::relu", value)``.
    """

    def __init__(self, opset: int, *, metadata: str = "full", names: dict[Any, str] | None = None) -> None:
        self.opset = opset
        self.node: torch.fx.Node | None = None
        self.source: torch.fx.Node | None = None
        self.origin: Translation | None = None
        self.scopes: list[Scope] = [Scope()]
        self.symbols = Symbols(self, names)
        self.domains: dict[str, int] = {"": opset}
        self.functions: dict[tuple[str, str, str], ir.Function] = {}
        self.local = local_functions.Functions()
        self.within: local_functions.Body | None = None
        self.root: str | None = None
        self.initializers: dict[str, Tensor] = {}
        self.complex_tensors: list[Tensor] = []
        self.seed: int | None = None
        self.profile = DEFAULT
        self.inline: Callable[..., list[Any]] = _no_walker
        self.translate: Callable[..., Any] = _no_walker
        self._metadata = metadata
        self.taken: dict[str, int] = {}
        self.constants: dict[Any, Tensor] = {}

    # Nodes ---------------------------------------------------------------------------------------------------------

    if not TYPE_CHECKING:  # which would take a misspelt operator for one that is there

        def __getattr__(self, name: str) -> Callable[..., Any]:
            """The emitter of an ONNX operator; kept as an attribute, so this runs once per operator."""
            if not name[0].isupper():
                raise AttributeError(f"the builder has no attribute {name!r}; ONNX operators start with a capital")
            spec = spec_of(name, self.opset)
            if spec is None:
                raise missing(name, self.opset)

            def emit(*inputs: Any, outputs: int | None = None, **attributes: Any) -> Any:
                return self._emit(spec, inputs, outputs, attributes)

            emit.__name__ = name
            emit.since = spec.since  # type: ignore[attr-defined]
            setattr(self, name, emit)
            return emit

    def _emit(self, spec: OpSpec, inputs: tuple[Any, ...], outputs: int | None, attributes: dict[str, Any]) -> Any:
        given = attributes
        attrs = [literals.attribute(spec, key, value) for key, value in given.items() if value is not None]
        attributes = {attr.name: attr if attr.ref_attr_name else attr.value for attr in attrs}
        values, types = self._bind(spec, inputs)
        if not spec.without.keys().isdisjoint(types.items()):
            return self._in_wider(spec, values, types, outputs, given)
        count = literals.count(spec.name, outputs) if outputs is not None else self._count(spec, attributes)
        dtypes = self._output_types(spec, types, attributes, count, values)
        kind, own = (spec.outputs[0], dtypes[0]) if dtypes else ("", None)
        wide = spec.without.get((kind, own)) if isinstance(kind, str) and own is not None else None
        if wide is not None and own is not None and kind not in types and spec.makes_of_attributes:
            made = self._emit(spec, tuple(values), outputs, literals.of_type(spec, given, wide))
            return self._cast_all(made, own)
        dims = infer.dims_of(spec.name, values, attributes)
        shape = None if dims is None else self.symbols.shared(dims)
        return self._append("", spec.name, values, attrs, dtypes, shape)

    def _in_wider(
        self, spec: OpSpec, values: list[Any], types: dict[str, DataType], outputs: int | None, attrs: dict[str, Any]
    ) -> Any:
        """An operator that this opset doesn't define for a type, between two casts, of which the first is exact."""
        last = len(spec.inputs) - 1
        wide = [
            self.cast(value, spec.without[spec.inputs[min(i, last)], value.dtype])  # type: ignore[index]
            if isinstance(value, Tensor) and (spec.inputs[min(i, last)], value.dtype) in spec.without
            else value
            for i, value in enumerate(values)
        ]
        results = self._emit(spec, tuple(wide), outputs, attrs)
        kinds, end = spec.outputs, len(spec.outputs) - 1
        narrow = []
        for i, result in enumerate(results if isinstance(results, tuple) else (results,)):
            kind = kinds[min(i, end)]
            own = types.get(kind) if isinstance(kind, str) else None
            narrow.append(self.cast(result, own) if own is not None and (kind, own) in spec.without else result)
        return narrow[0] if len(narrow) == 1 else tuple(narrow)

    def _cast_all(self, results: Any, dtype: DataType) -> Any:
        return tuple(self.cast(r, dtype) for r in results) if isinstance(results, tuple) else self.cast(results, dtype)

    def _append(
        self,
        domain: str,
        op_type: str,
        values: Sequence[Tensor | None],
        attrs: Sequence[ir.Attr],
        dtypes: Sequence[DataType | None],
        shape: ir.Shape | None,
        overload: str = "",
    ) -> Any:
        base = f"{self.node.name}_{op_type}" if self.node is not None else op_type
        results = [Tensor(self.unique(base), dtype) for dtype in dtypes]
        results[0].shape = shape
        node = Node(
            domain,
            op_type,
            values,
            attrs,
            outputs=results,
            overload=overload,
            name=f"node_{results[0].name}",
            fx_node=self.source or self.node,
            origin=self.origin,
            level=self._metadata,
            root=self.root,
        )
        self.scopes[-1].nodes.append(node)
        return results[0] if len(results) == 1 else tuple(results)

    def _bind(self, spec: OpSpec, inputs: tuple[Any, ...]) -> tuple[list[Tensor | None], dict[str, DataType]]:
        """Inputs as tensors, and the element type of each type variable."""
        kinds = spec.inputs
        types: dict[str, DataType] = {}
        last = len(kinds) - 1
        if len(inputs) > len(kinds) and not spec.variadic:
            raise TypeError(f"{spec.name} takes at most {len(kinds)} inputs, {len(inputs)} were given")
        pending = False
        for i, value in enumerate(inputs):
            if isinstance(value, Tensor):
                kind = kinds[min(i, last)]
                if isinstance(kind, str) and value.dtype is not None:
                    types.setdefault(kind, value.dtype)
            elif value is not None:
                pending = True
        if not pending:
            values = list(inputs)
        else:
            values = []
            for i, value in enumerate(inputs):
                kind = kinds[min(i, last)]
                dtype = kind if isinstance(kind, DataType) else types.get(kind)
                tensor = self.tensor(value, dtype)
                if isinstance(kind, str) and tensor is not None and tensor.dtype is not None:
                    types.setdefault(kind, tensor.dtype)
                values.append(tensor)
        while values and values[-1] is None:
            values.pop()
        if len(values) < spec.min_inputs:
            raise TypeError(f"{spec.name} needs {spec.min_inputs} inputs, {len(values)} were given")
        return values, types

    def _count(self, spec: OpSpec, attributes: dict[str, Any]) -> int:
        for key in ("then_branch", "body"):
            if key in attributes and spec.variadic_outputs:
                return len(attributes[key].outputs) - (spec.name == "Loop")
        return int(attributes.get("num_outputs", spec.min_outputs))

    def _output_types(
        self, spec: OpSpec, types: dict[str, DataType], attributes: dict[str, Any], count: int, values: Sequence[Any]
    ) -> list[DataType | None]:
        kinds = spec.outputs
        special = literals.special_types(spec.name, attributes, count, values)
        if special is not None:
            return special
        result: list[DataType | None] = []
        for i in range(count):
            kind = kinds[min(i, len(kinds) - 1)]
            result.append(kind if isinstance(kind, DataType) else types.get(kind))
        return result

    def call(
        self,
        domain: str,
        name: str,
        *inputs: Any,
        version: int | None = None,
        outputs: int = 1,
        dtypes: Sequence[DataType | torch.dtype | None] | None = None,
        overload: str = "",
        **attributes: Any,
    ) -> Any:
        """A node of another domain.

        Args:
            domain: such as ``"com.microsoft"``.
            version: of the domain; a model has one of each. By default the one that it has, or 1.
            inputs: tensors, None, numbers or lists; a number takes the first tensor's element type.
            outputs: number of results.
            dtypes: element type of each result; by default that of the first tensor input.

        Raises:
            ValueError: the model has another version of the domain.
        """
        domain, spec = domains.require(self, domain, version, name)
        first = next((v.dtype for v in inputs if isinstance(v, Tensor)), None)
        values = [self.tensor(value, first) for value in inputs]
        wanted = [first] * literals.count(name, outputs) if dtypes is None else dtypes
        kinds = [None if dtype is None else onnx_dtype(dtype) for dtype in wanted]
        attrs = [literals.attribute(spec or name, key, value) for key, value in attributes.items() if value is not None]
        return self._append(domain, name, values, attrs, kinds, None, overload)

    def function(
        self,
        domain: str,
        name: str,
        body: Callable[..., Any] | torch.fx.GraphModule,
        *inputs: Any,
        key: Any = None,
        **attributes: Any,
    ) -> Any:
        """A call of a local function of the model, whose body is emitted once.

        Args:
            domain: the function's domain, such as ``"com.example"``.
            name: its name. Where calls need bodies that differ, the later ones are called ``name_2`` and so on.
            body: takes the inputs, and the attributes as references that nodes take as attributes; emits nodes and
                returns one tensor or several. It sees nothing else of the model: no FX node, no outer tensors. A
                GraphModule is translated; its results come as a tuple.
            inputs: tensors, None, or Python numbers and sizes, which the body gets as they are.
            key: what the body depends on besides its inputs and their shapes, where ``body`` isn't the same object
                each time.
            attributes: attributes of the call.
        """
        return local_functions.call(self, domain, name, body, inputs, key, attributes)

    # Values --------------------------------------------------------------------------------------------------------

    def tensor(self, value: Any, dtype: DataType | None = None) -> Tensor | None:
        """A value as a tensor: tensors as they are, numbers and lists as constants, sizes as computed."""
        if value is None or isinstance(value, Tensor):
            return value  # type: ignore[return-value]
        if isinstance(value, Size):
            result = self.symbols.scalar(value.expr)
            return self.cast(result, dtype) if dtype is not None else result
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Size, Tensor)) for v in value):
            return self.sizes(value)
        if isinstance(value, np.ndarray) and dtype is None:
            return self.const(value)
        return self.const(value, dtype)

    def const(self, value: Any, dtype: DataType | torch.dtype | None = None) -> Tensor:
        """A constant, as an initializer that equal constants share.

        Args:
            value: number, nested list, numpy array, or torch tensor (not copied; may be of any size and dtype).
            dtype: element type; by default int64, float32 or bool as the value is, or the array's own.
        """
        wanted = None if dtype is None else onnx_dtype(dtype)
        if isinstance(value, torch.Tensor):
            if wanted is not None and onnx_dtype(value.dtype) is not wanted:
                value = value.to(ONNX_TO_TORCH[wanted])
            data: ir.TensorProtocol = TorchTensor(value)
            is_complex = value.dtype in COMPONENT
            key: Any = (data.dtype, tuple(value.shape), data.tobytes()) if data.nbytes <= _SMALL else None
            shape = ir.Shape(list(value.shape))
        else:
            array, element = literals.array(value, wanted)
            is_complex = False
            shape = ir.Shape(array.shape)
            key = (element, array.shape, array.tobytes()) if array.nbytes <= _SMALL else None
            found = self.constants.get(key) if key is not None else None
            if found is not None:
                return found
            data = ir.Tensor(array, dtype=element)
        found = self.constants.get(key) if key is not None else None
        if found is not None and found.is_complex == is_complex:
            return found
        name = self.unique(self.node.name + "_const" if key is None and self.node is not None else "const")
        data.name = name
        tensor = Tensor(name, data.dtype, shape, const_value=data, is_complex=is_complex)
        if is_complex:
            self.complex_tensors.append(tensor)
        if key is not None:
            self.scope.remember(self.constants, key, tensor)
        self.scope.remember(self.initializers, name, tensor)
        return tensor

    def derived(self, what: str, function: Callable[..., torch.Tensor], *values: Tensor) -> Tensor | None:
        """The weight that a function makes of weights or constants; None where one of them isn't, or has no data.

        It is made again when `ONNXProgram.apply_weights` replaces what it is made of.

        Args:
            what: names the result, after the first value; equal calls for the same values share it.
            function: takes the torch tensors and returns one, whose dtype and shape are the result's.
        """
        key = (what, *map(id, values))
        data = [value.const_value for value in values]
        if key in self.constants or not all(isinstance(d, TorchTensor) and d.has_data for d in data):
            return self.constants.get(key)
        first, *others = data
        made = first.derive(function, self.unique(f"{values[0].name}.{what}"), others)  # type: ignore[union-attr,arg-type]
        tensor = Tensor(made.name, made.dtype, ir.Shape(list(made.shape)), const_value=made)
        self.scope.remember(self.constants, key, tensor)
        self.scope.remember(self.initializers, made.name, tensor)
        return tensor

    def cast(self, value: Any, dtype: DataType | torch.dtype) -> Tensor:
        """The value in another element type; no node where it already has it. Numbers become constants."""
        wanted = onnx_dtype(dtype)
        if isinstance(value, Size):
            value = self.symbols.scalar(value.expr)
        if not isinstance(value, Tensor):
            return self.const(value, wanted)
        if value.dtype is wanted:
            return value  # type: ignore[return-value]
        for element in (value.dtype, wanted):
            if SINCE.get(element, 0) > self.opset:  # type: ignore[arg-type]
                raise Unsupported(f"needs opset {SINCE[element]}: {element.name}")  # type: ignore[index,union-attr]
        if wanted is DataType.FLOAT8E8M0:  # an exponent, of -127 at least; the sign is dropped
            value = self.Max(self.Abs(self.cast(value, DataType.FLOAT)), 2.0**-127)
            return self.Cast(value, to=wanted, saturate=0, round_mode="nearest")
        overflows = wanted.name.startswith("FLOAT8") and not saturates(wanted)
        if overflows and wanted is DataType.FLOAT8E4M3FN:  # onnxruntime 1.32 takes 480 to 496 for 448
            value = self.cast(value, DataType.FLOAT)
            fits = self.LessOrEqual(self.Abs(value), 464.0)
            value = self.Mul(value, self.Where(fits, np.float32(1), np.float32("nan")))
        return self.Cast(value, to=wanted, saturate=0 if overflows else None)

    def sizes(self, dims: Iterable[int | Size | Tensor]) -> Tensor:
        """A 1-D int64 tensor of ints, sizes and integer scalars."""
        listed = list(dims)
        if not any(isinstance(d, Tensor) for d in listed):
            if all(isinstance(d, int) for d in listed):
                return self.const([int(d) for d in listed], DataType.INT64)  # type: ignore[arg-type]
            return self.symbols.vectors(listed)  # type: ignore[arg-type]
        parts: list[Tensor] = []
        for computed, run in itertools.groupby(listed, lambda dim: isinstance(dim, Tensor)):
            if computed:
                parts += [self.Reshape(self.cast(dim, DataType.INT64), [1]) for dim in run]
            else:
                parts.append(self.sizes(run))  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else self.Concat(*parts, axis=0)

    def shape(self, value: Tensor) -> Tensor:
        """The logical shape as a 1-D int64 tensor; a constant where it is static."""
        if value.shape is not None and all(isinstance(d, int) or type(d) is Size for d in value.shape):
            return self.sizes(value.shape)  # type: ignore[arg-type]
        return self.Shape(value, end=-1) if value.is_complex else self.Shape(value)

    def size(self, value: Tensor, axis: int) -> int | Size:
        """One dimension of a value whose shape is known."""
        if value.shape is None:
            raise Unsupported(f"the shape of {value.name} isn't known")
        return value.shape[axis]  # type: ignore[return-value]

    def rank(self, value: Tensor) -> int:
        """The number of logical dimensions."""
        if value.shape is None:
            raise Unsupported(f"the rank of {value.name} isn't known")
        return len(value.shape)

    # The FX node ---------------------------------------------------------------------------------------------------

    @property
    def results(self) -> list[Result]:
        """What the FX node gives, one entry a tensor."""
        value = self.node.meta.get("val") if self.node is not None else None
        fakes = value if isinstance(value, (list, tuple)) else [value]
        return [Result(fake, self.symbols.shape(fake)) for fake in fakes if isinstance(fake, torch.Tensor)]

    @property
    def result(self) -> Result:
        """What the FX node gives, when that is one tensor."""
        return self.results[0]

    # Scopes --------------------------------------------------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        """The graph that nodes go to now."""
        return self.scopes[-1]

    def unique(self, base: str) -> str:
        """A name that no other value of the model has."""
        base = writable(base)
        count = self.taken.get(base)
        if count is None:
            self.taken[base] = 1
            return base
        while True:
            name = f"{base}_{count}"
            count += 1
            if name not in self.taken:
                self.taken[base] = count
                self.taken[name] = 1
                return name

    def subgraph(
        self,
        function: Callable[..., Any],
        inputs: Sequence[tuple[Any, ...]] = (),
        name: str = "body",
    ) -> ir.Graph:
        """A graph attribute (a branch, a loop's body). Outer values may be used in it directly.

        Args:
            function: takes the graph's inputs as tensors, returns its outputs.
            inputs: element type and shape of each input; True after them where it is complex.
        """
        prefix = f"{self.node.name}_{name}" if self.node is not None else name
        values = [
            Tensor(self.unique(f"{prefix}_in"), dtype, None if shape is None else ir.Shape(shape), is_complex=any(flag))
            for dtype, shape, *flag in inputs
        ]
        self.complex_tensors += [value for value in values if value.is_complex]
        with self.pushed() as scope:
            results = function(*values)
            outputs: list[Tensor] = []
            for result in results if isinstance(results, (list, tuple)) else [results]:
                tensor = self.tensor(result)
                if tensor is None:
                    raise TypeError("a subgraph's output is None")
                producer = tensor.producer()
                if producer is None or producer not in scope.nodes or any(tensor is o for o in outputs):
                    shape, flag = tensor.shape, tensor.is_complex
                    tensor = self.Identity(tensor)
                    if flag:
                        tensor = self.as_complex(tensor, shape)
                outputs.append(tensor)
        return ir.Graph(values, outputs, nodes=scope.nodes, name=self.unique(prefix))

    @contextlib.contextmanager
    def pushed(self) -> Iterator[Scope]:
        """A scope for an inner graph. What it added to shared caches outlives it, what it computed does not."""
        scope = Scope()
        self.scopes.append(scope)
        try:
            yield scope
        finally:
            self.scopes.pop()
            shared = (self.constants, self.initializers, self.domains)
            self.scope.journal.extend(entry for entry in scope.journal if any(entry[0] is cache for cache in shared))

    def mark(self) -> tuple[int, int, int]:
        """A point that :meth:`rollback` can go back to."""
        return len(self.scope.nodes), len(self.scope.journal), len(self.complex_tensors)

    def rollback(self, mark: tuple[int, int, int]) -> None:
        """Undo everything emitted in the current scope since ``mark``."""
        nodes, journal, complexes = mark
        scope = self.scope
        for node in reversed(scope.nodes[nodes:]):
            detach(node)
        del scope.nodes[nodes:]
        for cache, key in scope.journal[journal:]:
            cache.pop(key, None)
        del scope.journal[journal:]
        del self.complex_tensors[complexes:]


def _no_walker(*_args: Any, **_kwargs: Any) -> Any:
    raise Unsupported("this builder has no FX graph to walk")
