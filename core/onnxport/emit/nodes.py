"""The part of the builder that emits nodes.

What can be known per operator is computed once (:mod:`onnxport.emit.schemas`); per node there is only binding, naming
and appending.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnx_ir import DataType

from onnxport.emit import domains, literals
from onnxport.emit.frame import Frame
from onnxport.emit.schemas import OpSpec, missing, spec_of
from onnxport.emit.tensor import Node, Tensor
from onnxport.emit.values import Values
from onnxport.vocabulary.dtypes import onnx_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch.fx

    from onnxport.emit.symbols import Size
    from onnxport.records.emission import Emission
    from onnxport.records.profiles import Profile
    from onnxport.records.translations import Translation


_Wider = Mapping[Any, DataType]


class Nodes(Values):
    """Emits nodes, those of the default domain by ``op.Name(inputs…, attribute=…)``, others by ``op.call``."""

    if TYPE_CHECKING:
        source: torch.fx.Node | None
        origin: Translation | None
        emission: Emission
        profile: Profile
        frames: list[Frame]
        domains: dict[str, int]
        _metadata: str

    if not TYPE_CHECKING:  # which would take a misspelt operator for one that is there

        def __getattr__(self, name: str) -> Callable[..., Any]:
            """The emitter of an ONNX operator; kept as an attribute, so this runs once per operator."""
            if not name[0].isupper():
                raise AttributeError(f"the builder has no attribute {name!r}; ONNX operators start with a capital")
            spec, form = spec_of(name, self.opset), self.emission.forms.get(name)

            wider = self._wider(spec)

            def native(*inputs: Any, outputs: int | None = None, **attributes: Any) -> Any:
                return self._emit(spec, wider, inputs, outputs, attributes)

            emit: Any = native
            if form is not None and self.opset < form.below:
                emit = functools.partial(form.write, self, native if spec is not None else None)
            elif spec is None:
                raise missing(name, self.opset)
            emit.since = spec.since if spec is not None else 0
            setattr(self, name, emit)
            return emit

    def _wider(self, spec: OpSpec | None) -> _Wider:
        """The types that an operator is computed in a wider one for, as plugins tell."""
        tell = self.emission.wider_types
        return {} if spec is None or tell is None else tell(spec.name, spec.since, spec.domain)

    def _emit(
        self, spec: OpSpec, wider: _Wider, inputs: tuple[Any, ...], outputs: int | None, attributes: dict[str, Any]
    ) -> Any:
        given = attributes
        attrs = [literals.attribute(spec, key, value) for key, value in given.items() if value is not None]
        attributes = literals.by_name(attrs)
        values, types = self._bind(spec, inputs)
        if wider and not wider.keys().isdisjoint(types.items()):
            return self._in_wider(spec, wider, values, types, outputs, given)
        count = literals.count(spec.name, outputs) if outputs is not None else self._count(spec, attributes)
        dtypes = self._output_types(spec, types, attributes, count, values)
        kind, own = (spec.outputs[0], dtypes[0]) if wider and dtypes else ("", None)
        wide = wider.get((kind, own)) if kind not in types else None  # of an element type that an attribute asks for
        if wide is not None and own is not None:
            made = self._emit(spec, wider, tuple(values), outputs, literals.of_type(spec, given, wide))
            return self._cast_all(made, own)
        return self._append("", spec.name, values, attrs, dtypes, [self._shape("", spec.name, values, attributes)])

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
        self,
        spec: OpSpec,
        wider: _Wider,
        values: list[Any],
        types: dict[str, DataType],
        outputs: int | None,
        attrs: dict[str, Any],
    ) -> Any:
        """An operator that isn't available for a type, between two casts, of which the first is exact."""
        last = len(spec.inputs) - 1
        wide = [
            self.cast(value, wider[spec.inputs[min(i, last)], value.dtype])
            if isinstance(value, Tensor) and (spec.inputs[min(i, last)], value.dtype) in wider
            else value
            for i, value in enumerate(values)
        ]
        results = self._emit(spec, wider, tuple(wide), outputs, attrs)
        kinds, end = spec.outputs, len(spec.outputs) - 1
        narrow = []
        for i, result in enumerate(results if isinstance(results, tuple) else (results,)):
            kind = kinds[min(i, end)]
            own = types.get(kind) if isinstance(kind, str) else None
            narrow.append(self.cast(result, own) if own is not None and (kind, own) in wider else result)
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
        shapes: Sequence[ir.Shape | None],
        overload: str = "",
    ) -> Any:
        base = f"{self.node.name}_{op_type}" if self.node is not None else op_type
        results = [Tensor(self.unique(base), dtype) for dtype in dtypes]
        for result, shape in zip(results, shapes):  # of the first alone, where a plugin tells it
            result.shape = shape
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
        shapes: Sequence[Sequence[int | Size] | ir.Shape | None] | None = None,
        like: Tensor | None = None,
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
            shapes: of each result, None where it isn't known; by default what a plugin tells of the operator.
            like: a tensor whose element type and shape the results have that ``dtypes`` and ``shapes`` say nothing of.

        Raises:
            ValueError: the model has another version of the domain.
        """
        domain, spec = domains.require(self, domain, version, name)
        first = next((v.dtype for v in inputs if isinstance(v, Tensor)), None)
        values = [self.tensor(value, first) for value in inputs]
        count = literals.count(name, outputs) if dtypes is None else len(dtypes)
        attrs = [literals.attribute(spec or name, key, value) for key, value in attributes.items() if value is not None]
        given = literals.by_name(attrs)
        if dtypes is not None:
            kinds = [None if dtype is None else onnx_dtype(dtype) for dtype in dtypes]
        elif like is not None:
            kinds = [like.dtype] * count
        else:
            kinds = self._dtypes(domain, name, values, given, count) or [first] * count
        if shapes is None:
            shapes = [self._shape(domain, name, values, given)] if like is None else [like.shape] * count
        elif len(shapes) != count:
            raise ValueError(f"{name} has {count} results, and shapes= is of {len(shapes)}: give one for each, or None")
        dims = [None if shape is None else self.symbols.shared(shape) for shape in shapes]
        return self._append(domain, name, values, attrs, kinds, dims, overload)
