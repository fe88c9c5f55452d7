"""Higher order operators: cond, while_loop, scan, map and associative_scan as subgraphs; flex_attention traced."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnxport import DataType, Size, Tensor, Unsupported, component_dtype, translation
from torch._higher_order_ops.flex_attention import math_attention
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.fx import GraphModule

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def placeholder_fakes(graph: GraphModule) -> list[Any]:
    return [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]


def signature(op: Any, fakes: Sequence[Any]) -> list[tuple[DataType, Any]]:
    """Element type and shape of subgraph inputs, from the fake values of a body's placeholders."""
    inputs: list[tuple[DataType, Any]] = []
    for fake in fakes:
        if isinstance(fake, torch.Tensor):
            if fake.dtype.is_complex:
                raise Unsupported("complex tensors carried through control flow")
            inputs.append((component_dtype(fake.dtype), op.symbols.shape(fake)))
        elif isinstance(fake, (torch.SymBool, bool)):
            inputs.append((DataType.BOOL, []))
        elif isinstance(fake, (torch.SymFloat, float)):
            inputs.append((DataType.DOUBLE, []))
        else:
            inputs.append((DataType.INT64, []))
    return inputs


def as_tensor(op: Any, value: Any, dtype: DataType) -> Tensor:
    """A carried value as a tensor: numbers and sizes become 0-d ones."""
    return value if isinstance(value, Tensor) else op.cast(value, dtype)


@contextlib.contextmanager
def bound(op: Any, graph: GraphModule, values: Sequence[Any]) -> Iterator[None]:
    """While it lasts, the symbols that ``graph`` gives its inputs are read from ``values``.

    The bodies of one loop share their symbols although these stand for another value at every call; what is bound and
    computed of them may not outlive the call.
    """
    scope = op.scope
    symbols: dict[Any, tuple[Tensor, int | None]] = {}
    for fake, value in zip(placeholder_fakes(graph), values):
        if not isinstance(value, Tensor):
            continue
        if isinstance(fake, _SYMBOLIC) and fake.node.expr.is_Symbol:
            symbols[fake.node.expr] = (value, None)
        elif isinstance(fake, torch.Tensor):
            for axis, dim in enumerate(op.symbols.shape(fake)):
                if isinstance(dim, Size) and dim.expr.is_Symbol and is_local(op, dim.expr):
                    symbols.setdefault(dim.expr, (value, axis))
    outer = {symbol: scope.bindings.get(symbol) for symbol in symbols}
    forget(scope, symbols)
    for symbol, (value, axis) in symbols.items():
        op.symbols.bind(symbol, value, axis)
    try:
        yield
    finally:
        forget(scope, symbols)
        for symbol, place in outer.items():
            scope.bindings.pop(symbol, None)
            if place is not None:
                scope.bindings[symbol] = place


def is_local(op: Any, symbol: Any) -> bool:
    """Whether a dimension's symbol belongs to the loop, not to the graph around it."""
    return op.symbols.bound(symbol) is None or (symbol in op.scope.bindings and len(op.scopes) > 1)


def forget(scope: Any, symbols: Any) -> None:
    """Drop computed sizes that depend on any of these symbols."""
    for key in list(scope.sizes):
        expr = key[0] if isinstance(key, tuple) else key
        if not expr.free_symbols.isdisjoint(symbols):
            del scope.sizes[key]


def call(op: Any, graph: GraphModule, values: Sequence[Any]) -> list[Any]:
    """The flat results of a body on these values, as tensors where they are numbers that depend on its symbols."""
    with bound(op, graph, values):
        results = op.inline(graph, *values)
        return [op.symbols.scalar(r.expr) if isinstance(r, Size) else r for r in results]


@translation("higher_order::cond")
def cond(op: Any, pred: Any, true_fn: GraphModule, false_fn: GraphModule, operands: Sequence[Any] = ()) -> Any:
    """An If whose branches see the operands as outer values."""
    if isinstance(pred, bool):
        return op.inline(true_fn if pred else false_fn, *operands)
    condition = op.cast(pred, DataType.BOOL)
    branches = [
        op.subgraph(lambda body=body: op.inline(body, *operands), name=name)
        for body, name in ((true_fn, "then"), (false_fn, "else"))
    ]
    count = len(branches[0].outputs)
    results = op.If(condition, then_branch=branches[0], else_branch=branches[1], outputs=count)
    return results if isinstance(results, tuple) else (results,)


@translation("higher_order::while_loop")
def while_loop(
    op: Any,
    cond_fn: GraphModule,
    body_fn: GraphModule,
    carried_inputs: Sequence[Any],
    additional_inputs: Sequence[Any] = (),
) -> Any:
    """A Loop: the condition is computed before it, and at the end of each turn for the next."""
    count = len(carried_inputs)
    inputs = signature(op, placeholder_fakes(body_fn)[:count])
    start = [as_tensor(op, value, dtype) for value, (dtype, _) in zip(carried_inputs, inputs)]
    goes_on = op.cast(call(op, cond_fn, [*start, *additional_inputs])[0], DataType.BOOL)

    def turn(_step: Tensor, _condition: Tensor, *carried: Tensor) -> list[Tensor]:
        results = call(op, body_fn, [*carried, *additional_inputs])
        results = [as_tensor(op, value, dtype) for value, (dtype, _) in zip(results, inputs)]
        again = call(op, cond_fn, [*results, *additional_inputs])[0]
        return [op.cast(again, DataType.BOOL), *results]

    body = op.subgraph(turn, [(DataType.INT64, []), (DataType.BOOL, []), *inputs])
    results = op.Loop(None, goes_on, *start, body=body, outputs=count)
    results = results if isinstance(results, tuple) else (results,)
    for result, (_, shape) in zip(results, inputs):
        if not len(shape):
            result.shape = ir.Shape([])  # a number is then read without a Reshape
    return results


@translation("higher_order::scan")
def scan(
    op: Any, combine_fn: GraphModule, init: Sequence[Any], xs: Sequence[Tensor], additional_inputs: Sequence[Any] = ()
) -> Any:
    """A Scan along axis 0; ``torch.scan``'s other dims and ``reverse`` arrive as movedim and flip around it."""
    fakes = placeholder_fakes(combine_fn)[: len(init) + len(xs)]
    inputs = signature(op, fakes)
    start = [as_tensor(op, value, dtype) for value, (dtype, _) in zip(init, inputs)]
    if not xs:
        raise Unsupported("a scan over nothing")

    def step(*values: Tensor) -> list[Any]:
        return call(op, combine_fn, [*values, *additional_inputs])

    body = op.subgraph(step, inputs)
    results = op.Scan(*start, *xs, body=body, num_scan_inputs=len(xs), outputs=len(body.outputs))
    return results if isinstance(results, tuple) else (results,)


@translation("higher_order::invoke_subgraph", complex=True)
def invoke_subgraph(op: Any, subgraph: GraphModule, identifier: str, *operands: Any) -> Any:
    """A call of a local function: the body of a nested compile region is in the file once."""
    return op.function("pkg.torch", identifier, subgraph, *operands)


@translation("higher_order::map_impl")
def map_impl(op: Any, f: GraphModule, xs: Sequence[Tensor], pos_args: Sequence[Any] = ()) -> Any:
    """A Scan without state."""
    return scan(op, f, [], xs, pos_args)


@translation("higher_order::associative_scan")
def associative_scan(
    op: Any, combine_fn: GraphModule, xs: Sequence[Tensor], additional_inputs: Sequence[Any] = ()
) -> Any:
    """A Scan along axis 0 over all but the first element, which is the initial state."""
    firsts = [op.Gather(x, op.const(0, DataType.INT64), axis=0) for x in xs]
    rests = [op.Slice(x, [1], [2**63 - 1], [0]) for x in xs]
    inputs = [(x.dtype, list(x.shape)[1:]) for x in xs] * 2

    def step(*values: Tensor) -> list[Any]:
        results = call(op, combine_fn, [*values, *additional_inputs])
        return [*results, *results]

    body = op.subgraph(step, inputs)
    scanned = op.Scan(*firsts, *rests, body=body, num_scan_inputs=len(xs), outputs=len(body.outputs))[len(xs) :]
    return [op.Concat(op.Unsqueeze(first, [0]), rest, axis=0) for first, rest in zip(firsts, scanned)]


@translation("higher_order::flex_attention")
def flex_attention(op: Any, query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any) -> Any:
    """torch's own dense formula, traced with the node's fake tensors: scores and masks become broadcast arithmetic."""
    node = op.node
    owner = node.graph.owning_module
    given = list(torch.fx.map_arg((node.args, node.kwargs), lambda n: described(owner, n)))
    flat, spec = pytree.tree_flatten(given)
    values, _ = pytree.tree_flatten([(query, key, value, *others), named])
    places = [i for i, leaf in enumerate(flat) if isinstance(leaf, (torch.Tensor, torch.SymInt))]

    def dense(*leaves: Any) -> Any:
        filled = list(flat)
        for place, leaf in zip(places, leaves):
            filled[place] = leaf
        args, kwargs = pytree.tree_unflatten(filled, spec)
        return math_attention(*args, **kwargs)

    with flat[places[0]].fake_mode, torch.no_grad():
        graph = make_fx(dense, _allow_non_fake_inputs=True)(*(flat[i] for i in places))
    graph.graph.eliminate_dead_code()
    for name, constant in list(vars(graph).items()) + list(graph.named_buffers()):
        if isinstance(constant, FakeTensor) and constant.constant is not None:
            setattr(graph, name, constant.constant)
    return op.inline(graph, *(values[i] for i in places))


def described(owner: Any, node: torch.fx.Node) -> Any:
    """What stands for an FX argument while tracing: its fake tensor, or the graph module that it names."""
    fake = node.meta.get("val")
    return getattr(owner, str(node.target)) if fake is None and node.op == "get_attr" else fake
