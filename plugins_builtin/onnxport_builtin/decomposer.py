"""One FX node -> a small FX graph, by the decomposition that a plugin or torch has for its operator.

The program is never traced again: only the node that no translation takes is expanded, under the program's own fake
mode and shape environment, once per (operator, argument signature).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
import torch.fx
from onnxport import Unsupported
from onnxport.kit import SYMBOLIC, Expansion, Replacement, all_applied, provenance, pytree
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.value_ranges import ValueRanges


def decomposer(
    decompositions: Mapping[Any, Callable[..., Any]],
    pure: Callable[[torch.fx.GraphModule], torch.fx.GraphModule],
) -> Decomposer:
    """What expands the nodes of one export."""
    return Decomposer(decompositions, pure)


class Decomposer:
    """Expands nodes; equal calls share one expansion.

    Args:
        decompositions: functions of plugins, which come before torch's own.
        pure: makes a traced graph one without writes.
    """

    def __init__(
        self,
        decompositions: Mapping[Any, Callable[..., Any]],
        pure: Callable[[torch.fx.GraphModule], torch.fx.GraphModule],
    ) -> None:
        self._pure = pure
        self._own = decompositions
        self._cache: dict[Any, Expansion | str] = {}

    def expand(self, node: torch.fx.Node) -> Expansion:
        """The node as a graph of other operators.

        Raises:
            Unsupported: it has no decomposition, or that can't be traced with these arguments.
        """
        target = node.target
        if not isinstance(target, OpOverload):
            raise Unsupported("none: not an operator with a schema")
        fakes = torch.fx.map_arg((list(node.args), dict(node.kwargs)), lambda n: n.meta.get("val"))
        flat, spec = pytree.tree_flatten(fakes, is_leaf=lambda x: x is None)
        if any(isinstance(value, torch.Tensor) and value.layout is not torch.strided for value in flat):
            raise Unsupported("ONNX operators take no sparse tensors")
        key = (target, tuple(_signature(value) for value in flat), spec)
        found = self._cache.get(key)
        if found is None:
            try:
                found = self._trace(target, flat, spec)
            except Unsupported as refusal:
                found = refusal.reason
            self._cache[key] = found
        if isinstance(found, str):
            raise Unsupported(found)
        return found

    def _function(self, target: Any) -> Callable[..., Any]:
        own = self._own.get(target)
        if own is not None:
            return own
        table = decomposition_table.get(target)
        if table is not None:
            return table
        if target._can_decompose():
            return target.decompose
        raise Unsupported("torch has none for this operator")

    def _trace(self, target: Any, flat: list[Any], spec: Any) -> Expansion:
        function = self._function(target)
        positions = tuple(i for i, value in enumerate(flat) if isinstance(value, (torch.Tensor, *SYMBOLIC)))
        single = True

        def call(*values: Any) -> Any:
            nonlocal single
            filled = list(flat)
            for i, value in zip(positions, values):
                filled[i] = value
            args, kwargs = pytree.tree_unflatten(filled, spec)
            result = function(*args, **kwargs)
            if result is NotImplemented:
                raise Unsupported("torch's decomposition declines these arguments")
            single = isinstance(result, torch.Tensor)
            return [result] if single else list(result)

        inputs = [flat[i] for i in positions]
        mode = next((v.fake_mode for v in inputs if hasattr(v, "fake_mode")), None) or FakeTensorMode()
        env = getattr(mode, "shape_env", None)
        known, decisions = 0 if env is None else len(env.guards), set[Any]()
        try:
            with mode, torch.no_grad(), all_applied([] if env is None else [_deciding(env, decisions)]):
                graph_module = make_fx(call, tracing_mode="real", _allow_non_fake_inputs=True)(*inputs)
        except Unsupported:
            raise
        except Exception as error:  # whatever torch's own code raises is the reason that users see
            said = (
                provenance.told(error)
                if target in self._own
                else f"{type(error).__name__}: {str(error).split(chr(10))[0]}"
            )
            raise Unsupported(said) from error
        loops = any(n.op == "call_function" and n.target is target for n in graph_module.graph.nodes)
        if loops:
            raise Unsupported("torch's decomposition leaves the operator as it is")
        for guard in [] if env is None else env.guards[known:]:
            if isinstance(guard.expr, sympy.Eq) and guard.expr.free_symbols and guard.expr.rhs.is_number:
                raise Unsupported(f"torch's decomposition makes a number of a dynamic size: {guard.expr.lhs}")
        numbers = {symbol for n in inputs if isinstance(n, SYMBOLIC) for symbol in n.node.expr.free_symbols}
        # Not those of shapes, which the capture has as well.
        if decided := [expr for expr in decisions if expr.free_symbols & numbers]:
            raise Unsupported(f"torch's decomposition decides by the example's number: {decided[0]}")
        return Expansion(self._pure(graph_module), positions, single)


def _deciding(env: Any, decisions: set[Any]) -> Replacement:
    """Notes what is decided by the example's numbers, also where a guard says so: what not all sizes of 64 bits do."""
    ranges = tuple((s, ValueRanges(min(r.lower, 2), 2**63 - 1)) for s, r in env.var_to_range.items() if r.is_int)

    def noting(evaluate: Any, number: Any, *args: Any, **kwargs: Any) -> Any:
        if ShapeEnv._maybe_evaluate_static(env, number.expr, axioms=(), var_to_range=ranges) is None:
            decisions.add(number.expr)
        return evaluate(number, *args, **kwargs)

    return Replacement(env, "evaluate_sym_node", lambda evaluate: functools.partial(noting, evaluate))


def _signature(value: Any) -> Any:
    """The part of a value that the expansion depends on."""
    if isinstance(value, torch.Tensor):
        dims = tuple(d if isinstance(d, int) else str(d) for d in (*value.shape, *value.stride()))
        return value.dtype, dims, value.layout
    if isinstance(value, SYMBOLIC):
        return str(value)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return type(value), value
