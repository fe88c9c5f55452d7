"""Results of translations, checked against the FX node: their number, element types and shapes."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy
import torch
from onnx_ir import DataType

from onnxport.emit.symbols import Size
from onnxport.emit.tensor import Result, Tensor
from onnxport.records.translations import BUILTIN_TIER
from onnxport.translate import model
from onnxport.translate.faults import fault
from onnxport.vocabulary.dtypes import COMPONENT, SYMBOLIC, component_dtype

if TYPE_CHECKING:
    import torch.fx

    from onnxport.emit.builder import Builder
    from onnxport.records.emission import Inferred
    from onnxport.records.translations import Translation

_EXACT = ("aten", "prims")


class Results:
    """Checks the results of each FX node, names them and gives them their shapes.

    Args:
        op: the builder.
        graph: the model's own FX graph, whose nodes values are linked to; steps of decompositions aren't.
    """

    def __init__(self, op: Builder, graph: torch.fx.Graph) -> None:
        self._op = op
        self._graph = graph

    def accept(
        self,
        node: torch.fx.Node,
        value: Any,
        inferred: Mapping[int, Inferred] | None = None,
        candidate: Any = None,
    ) -> Any:
        """The results of a node.

        Args:
            node: the FX node.
            value: what was returned for it.
            inferred: what is inferred of the results, for translations that tests don't hold to it.
            candidate: the translation, or a plugin's decomposition; None for one of torch's.

        Raises:
            TranslationError: they aren't what torch knows the node to give.
        """
        fake = node.meta.get("val")
        if isinstance(fake, torch.Tensor):
            if isinstance(value, (list, tuple)) and len(value) == 1:
                value = value[0]
            return self._tensor(node, value, fake, node.name, candidate, inferred)
        if isinstance(fake, (list, tuple)):
            values = list(value) if isinstance(value, (list, tuple)) else [value]
            if len(values) != len(fake):
                raise fault(candidate, node, f"returned {len(values)} values, {len(fake)} were expected")
            return [
                self._tensor(node, v, f, f"{node.name}_{i}", candidate, inferred)
                if isinstance(f, torch.Tensor)
                else self.number(v, f, node, candidate)
                for i, (v, f) in enumerate(zip(values, fake))
            ]
        return self.number(value, fake, node, candidate)

    def number(self, value: Any, fake: Any, node: torch.fx.Node | None = None, candidate: Any = None) -> Any:
        """A number that a node gives, or that a graph is given."""
        if not isinstance(fake, SYMBOLIC):
            return value
        if node is not None and _is_foreign(candidate):
            self._hold(node, value, fake, candidate)
        if isinstance(value, Tensor):
            symbols, expr = self._op.symbols, fake.node.expr
            if isinstance(expr, sympy.Eq) and expr.lhs.is_Symbol and expr.rhs == 1:  # what item() of a bool gives
                expr, value = expr.lhs, self._op.cast(value, DataType.INT64)
            if expr.is_Symbol and symbols.bound(expr) is None:
                symbols.bind(expr, value, None)  # type: ignore[arg-type]
            return symbols.of_torch(fake)
        return value

    def stand_in(self, fake: Any) -> Any:
        """A value for a refused node, so that the walk can go on."""
        if isinstance(fake, torch.Tensor):
            flag = fake.dtype in COMPONENT
            tensor = Tensor(
                self._op.unique("refused"), component_dtype(fake.dtype), self._op.symbols.shape(fake), is_complex=flag
            )
            self._op.symbols.bind_shape(tensor, tensor.shape)  # type: ignore[arg-type]
            return tensor
        if isinstance(fake, (list, tuple)):
            return [self.stand_in(f) for f in fake]
        if isinstance(fake, SYMBOLIC):
            for symbol in fake.node.expr.free_symbols:
                if self._op.symbols.bound(symbol) is None:
                    self._op.symbols.bind(symbol, Tensor("refused", DataType.INT64, ir.Shape([])), None)
            return self._op.symbols.of_torch(fake)
        return fake

    def _hold(self, node: torch.fx.Node, value: Any, fake: Any, candidate: Translation) -> None:
        """Let what reads a number from now on read it from where a table or a third party has computed it."""
        wanted = model.NUMBERS[type(fake)]
        if isinstance(value, Size):
            return
        if not isinstance(value, Tensor):
            constant = isinstance(value, (int, float)) and not fake.node.expr.free_symbols
            if not constant:
                raise fault(candidate, node, f"returned {value!r}, a number was expected that follows the size {fake}")
            return
        shape = None if value.shape is None else list(value.shape)
        if shape not in ([], [1]):
            raise fault(candidate, node, f"returned shape {value.shape}, a number was expected: shape []")
        if value.dtype is not wanted and not (value.dtype.is_integer() and wanted is DataType.INT64):
            raise fault(candidate, node, f"returned {value.dtype.name}, {wanted.name} was expected")
        self._op.symbols.hold(fake.node.expr, self._op.cast(value, wanted))

    def _tensor(
        self,
        node: torch.fx.Node,
        value: Any,
        fake: torch.Tensor,
        name: str,
        candidate: Any,
        inferred: Mapping[int, Inferred] | None,
    ) -> Any:
        op = self._op
        if value is None:
            if any(user.op == "output" or user.target is not operator.getitem for user in node.users):
                raise fault(candidate, node, "returned None for a result that is used: has it a return?")
            return None
        if isinstance(value, (int, float, bool, complex, Size)):
            value = op.cast(value, component_dtype(fake.dtype)) if fake.dtype not in COMPONENT else value
        if not isinstance(value, Tensor):
            raise fault(candidate, node, f"returned {type(value).__name__}, a tensor was expected")
        expected = Result(fake, op.symbols.shape(fake))
        found = None if inferred is None else inferred.get(id(value))
        if value.dtype is None:
            value.dtype = expected.dtype if found is None or found.dtype is None else DataType(found.dtype)
        if value.dtype is not expected.dtype:
            raise fault(candidate, node, f"returned {value.dtype.name}, {expected.dtype.name} was expected")
        if value.is_complex is not expected.is_complex:
            kinds = {True: "a complex tensor", False: "a real tensor"}
            what = f"returned {kinds[value.is_complex]}, {kinds[expected.is_complex]} was expected"
            raise fault(candidate, node, what)
        self._check_shape(node, value, expected, candidate, found)
        shape, producer = value.shape, value.producer()
        if producer is not None and not value.accepted:
            value.accepted = True
            value.name = op.unique(name)
            producer.name = f"node_{value.name}"
            value.shape = expected.shape
        elif shape is None:
            value.shape = expected.shape
        if producer is not None and node.graph is self._graph:  # no step of a decomposition
            model.link(value, node, name)
        op.symbols.bind_shape(value, expected.shape)
        return value

    def _check_shape(
        self, node: torch.fx.Node, value: Tensor, expected: Result, candidate: Any, found: Inferred | None
    ) -> None:
        wanted = expected.shape
        shape = value.shape
        if shape is not None:
            wrong = len(shape) != len(wanted) or any(
                type(have) is int and type(want) is int and have != want for have, want in zip(shape, wanted)
            )
            if wrong:
                raise fault(candidate, node, f"returned shape {shape}, {wanted} was expected")
        if not _is_foreign(candidate):
            return
        exact = getattr(node.target, "namespace", "") in _EXACT
        if shape is not None and any(_contradicts(have, want, exact) for have, want in zip(shape, wanted)):
            raise fault(candidate, node, f"returned shape {shape}, {wanted} was expected")
        if found is not None and found.dims is not None:
            dims = found.dims[:-1] if value.is_complex else found.dims
            named = [self._op.symbols.named(dim) if isinstance(dim, str) else dim for dim in dims]
            if len(dims) != len(wanted) or any(_contradicts(have, want, exact) for have, want in zip(named, wanted)):
                listed = ",".join("?" if dim is None else str(dim) for dim in dims)
                raise fault(candidate, node, f"returned shape [{listed}], {wanted} was expected")


def _is_foreign(candidate: Any) -> bool:
    """It is a translation of a table or a third party."""
    return getattr(candidate, "tier", None) not in (None, BUILTIN_TIER)


def _contradicts(have: Any, want: Any, exact: bool) -> bool:
    """Whether a dimension contradicts the one that torch knows: another number, a fixed number, another size.

    Two sizes may be equal for reasons that torch doesn't know, unless the operator is its own (``exact``).
    """
    if isinstance(have, ir.SymbolicDim) and not isinstance(have, Size):
        return False
    if have is None or (type(have) is int and type(want) is int):
        return have is not None and have != want
    exprs = [dim.expr for dim in (have, want) if isinstance(dim, Size)]
    if any(str(symbol).startswith(("u", "zu")) for expr in exprs for symbol in expr.free_symbols):
        return False  # a size that data decide
    if len(exprs) == 2:
        return exact and all(expr.is_Symbol for expr in exprs) and str(have) != str(want)
    return exact or type(have) is int
