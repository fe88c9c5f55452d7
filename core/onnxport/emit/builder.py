"""``op``: what a translation emits ONNX nodes with.

``op.Name(inputs…, attribute=…)`` makes one node of the default domain at the target opset. What can be known per
operator is computed once (:mod:`onnxport.emit.schemas`); per node there is only binding, naming and appending.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnx_ir import DataType

from onnxport.emit import domains, literals, local_functions
from onnxport.emit.frame import Frame, Position
from onnxport.emit.graphs import detach
from onnxport.emit.schemas import OpSpec, missing, spec_of
from onnxport.emit.symbols import Symbols
from onnxport.emit.tensor import Node, Result, Tensor
from onnxport.emit.values import Values
from onnxport.errors import Unsupported
from onnxport.host.emission import Emission
from onnxport.host.profiles import DEFAULT
from onnxport.text import writable
from onnxport.vocabulary.dtypes import onnx_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch.fx

    from onnxport.emit.emitter import Walks
    from onnxport.host.profiles import Profile
    from onnxport.host.records import Translation

_UNCHANGED: Any = object()


class Builder(Values):
    """Emits the nodes of one model; see the module's docstring.

    Attributes:
        opset: target opset of the default domain.
        node: the FX node being translated.
        source: the user's node that ``node`` is a decomposed step of, if it is one.
        origin: the translation being run.
        seed: the seed for random nodes that the user wants, or None.
        emission: what plugins teach about ONNX operators and sizes.
        profile: the runtime that the file is for; ``op.call`` takes a domain's version from it.
        frames: the graphs under construction, the innermost last.
    """

    def __init__(
        self,
        opset: int,
        *,
        metadata: str = "full",
        names: dict[Any, str] | None = None,
        seed: int | None = None,
        profile: Profile = DEFAULT,
        emission: Emission | None = None,
        walker: Walks | None = None,
    ) -> None:
        self.opset = opset
        self.emission = Emission() if emission is None else emission
        self.node: torch.fx.Node | None = None
        self.source: torch.fx.Node | None = None
        self.origin: Translation | None = None
        self.frames: list[Frame] = [Frame()]
        self.symbols = Symbols(self, names)
        self.domains: dict[str, int] = {"": opset}
        self.functions: dict[tuple[str, str, str], ir.Function] = {}
        self.local = local_functions.Functions()
        self.seed = seed
        self.profile = profile
        self._metadata = metadata
        self._walker = walker

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
        attributes = literals.by_name(attrs)
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
        return self._append("", spec.name, values, attrs, dtypes, self._shape("", spec.name, values, attributes))

    def _dtypes(
        self, domain: str, name: str, values: Sequence[Any], attributes: dict[str, Any], count: int
    ) -> list[DataType | None] | None:
        """The element types of an operator's results that plugins tell, where its schema doesn't."""
        known = self.emission.inference.get((domain, name))
        return None if known is None or known.dtypes is None else known.dtypes(attributes, count, values)

    def _shape(
        self, domain: str, name: str, values: Sequence[Tensor | None], attributes: dict[str, Any]
    ) -> ir.Shape | None:
        """The shape of an operator's first result, as far as plugins tell; nothing is known of what a function asks."""
        known = self.emission.inference.get((domain, name))
        if known is None or known.dims is None or any(type(value) is ir.Attr for value in attributes.values()):
            return None
        dims = known.dims(values, attributes)
        return None if dims is None else self.symbols.shared(dims)

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
            root=self.frames[-1].root,
        )
        self.frames[-1].nodes.append(node)
        return results[0] if len(results) == 1 else tuple(results)

    def _bind(self, spec: OpSpec, inputs: tuple[Any, ...]) -> tuple[list[Tensor | None], dict[str, DataType]]:
        """Inputs as tensors, and the element type of each type variable."""
        kinds = spec.inputs
        types: dict[str, DataType] = {}
        last = len(kinds) - 1
        if len(inputs) > len(kinds) and not spec.variadic:
            raise TypeError(
                f"{spec.name} takes at most {len(kinds)} inputs, {len(inputs)} were given: leave out the others"
            )
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
            raise TypeError(
                f"{spec.name} needs {spec.min_inputs} inputs, {len(values)} were given: give the others, too"
            )
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
        known = self._dtypes("", spec.name, values, attributes, count)
        if known is not None:
            return known
        last = len(kinds) - 1
        found = (kinds[min(i, last)] for i in range(count))
        return [kind if isinstance(kind, DataType) else types.get(kind) for kind in found]

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
            dtypes: element type of each result; by default what a plugin tells of the operator, or that of the first
                tensor input.

        Raises:
            ValueError: the model has another version of the domain.
        """
        domain, spec = domains.require(self, domain, version, name)
        first = next((v.dtype for v in inputs if isinstance(v, Tensor)), None)
        values = [self.tensor(value, first) for value in inputs]
        attrs = [literals.attribute(spec or name, key, value) for key, value in attributes.items() if value is not None]
        given = literals.by_name(attrs)
        if dtypes is None:
            count = literals.count(name, outputs)
            kinds = self._dtypes(domain, name, values, given, count) or [first] * count
        else:
            kinds = [None if dtype is None else onnx_dtype(dtype) for dtype in dtypes]
        return self._append(domain, name, values, attrs, kinds, self._shape(domain, name, values, given), overload)

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

    # The FX node ---------------------------------------------------------------------------------------------------

    @property
    def results(self) -> list[Result]:
        """The results of the FX node, one entry a tensor: their element types and shapes."""
        value = self.node.meta.get("val") if self.node is not None else None
        fakes = value if isinstance(value, (list, tuple)) else [value]
        return [Result(fake, self.symbols.shape(fake)) for fake in fakes if isinstance(fake, torch.Tensor)]

    @property
    def result(self) -> Result:
        """The result of an FX node that has one tensor as its result."""
        return self.results[0]

    def at(self, node: torch.fx.Node | None, *, source: Any = _UNCHANGED, origin: Any = _UNCHANGED) -> Position:
        """While it lasts, what is emitted comes from this FX node; see the attributes of these names."""
        source = self.source if source is _UNCHANGED else source
        return Position(self, node, source, self.origin if origin is _UNCHANGED else origin)

    def serve(self, candidate: Translation) -> None:
        """Note which translation is run for the FX node; it holds until the node is left."""
        self.origin = candidate

    def inline(self, graph_module: torch.fx.GraphModule, *values: Any) -> list[Any]:
        """Translate the nodes of an FX graph here; its flat outputs."""
        return self._walking().inline(graph_module, *values)

    def translate(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run another operator's translation on values: ``op.translate("aten::relu", value)``.

        Raises:
            Unsupported: none takes them.
        """
        return self._walking().translate(target, *args, **kwargs)

    def _walking(self) -> Walks:
        if self._walker is None:
            raise Unsupported("this builder has no FX graph to walk: use the op that an export gives")
        return self._walker

    # Frames --------------------------------------------------------------------------------------------------------

    @property
    def frame(self) -> Frame:
        """The graph that nodes go to now."""
        return self.frames[-1]

    def unique(self, base: str) -> str:
        """A name that no other value of the model has."""
        base = writable(base)
        names = self.frames[-1].names
        count = names.get(base)
        if count is None:
            names[base] = 1
            return base
        while True:
            name = f"{base}_{count}"
            count += 1
            if name not in names:
                names[base] = count
                names[name] = 1
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
        self.frame.complexes += [value for value in values if value.is_complex]
        with self.entered(self.frame.branch()) as frame:
            results = function(*values)
            outputs: list[Tensor] = []
            for result in results if isinstance(results, (list, tuple)) else [results]:
                tensor = self.tensor(result)
                if tensor is None:
                    raise TypeError("a subgraph's output is None: return tensors from its function")
                producer = tensor.producer()
                if producer is None or producer not in frame.nodes or any(tensor is o for o in outputs):
                    shape, flag = tensor.shape, tensor.is_complex
                    tensor = self.Identity(tensor)
                    if flag:
                        tensor = self.as_complex(tensor, shape)
                outputs.append(tensor)
        return ir.Graph(values, outputs, nodes=frame.nodes, name=self.unique(prefix))

    @contextlib.contextmanager
    def entered(self, frame: Frame) -> Iterator[Frame]:
        """While it lasts, nodes go to this frame. What a branch adds to shared caches stays behind it."""
        self.frames.append(frame)
        try:
            yield frame
        finally:
            self.frames.pop()
            if (outer := frame.outer) is not None:
                shared = (outer.constants, outer.initializers, self.domains)
                outer.journal.extend(entry for entry in frame.journal if any(entry[0] is cache for cache in shared))

    def mark(self) -> tuple[int, int, int]:
        """A point that :meth:`rollback` can go back to."""
        frame = self.frame
        return len(frame.nodes), len(frame.journal), len(frame.complexes)

    def rollback(self, mark: tuple[int, int, int]) -> None:
        """Undo everything emitted in the current frame since ``mark``."""
        nodes, journal, complexes = mark
        frame = self.frame
        for node in reversed(frame.nodes[nodes:]):
            detach(node)
        del frame.nodes[nodes:]
        for cache, key in frame.journal[journal:]:
            cache.pop(key, None)
        del frame.journal[journal:]
        del frame.complexes[complexes:]
