"""Higher order operators: cond, while_loop, scan, map and associative_scan as subgraphs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnxport import DataType, Size, Tensor, Unsupported, component_dtype, translation
from onnxport.authoring import is_used

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.fx import GraphModule

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def placeholder_fakes(graph: GraphModule) -> list[Any]:
    return [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]


Signature = list[tuple[DataType, Any, bool]]


def signature(op: Any, fakes: Sequence[Any]) -> Signature:
    """Element type, shape and complex flag of subgraph inputs, from the fake values of a body's placeholders."""
    inputs: Signature = []
    for fake in fakes:
        if isinstance(fake, torch.Tensor):
            inputs.append((component_dtype(fake.dtype), op.symbols.shape(fake), fake.dtype.is_complex))
        elif isinstance(fake, (torch.SymBool, bool)):
            inputs.append((DataType.BOOL, [], False))
        elif isinstance(fake, (torch.SymFloat, float)):
            inputs.append((DataType.DOUBLE, [], False))
        else:
            inputs.append((DataType.INT64, [], False))
    return inputs


def flagged(op: Any, value: Tensor, shape: Any, is_complex: bool) -> Tensor:
    """A value that was made of complex ones by an operator that doesn't know of them, as complex."""
    return op.as_complex(value, ir.Shape(shape)) if is_complex else value


def as_results(op: Any, results: Any, places: Sequence[int] | None = None) -> list[Tensor | None]:
    """The results of the FX node, complex where it says so.

    Args:
        results: what the ONNX node gives, one tensor or several.
        places: which result of the FX node each of them is; None stands in the other places. By default, all in order.
    """
    given: dict[int, Tensor] = dict(zip(places or range(2**31), results if isinstance(results, tuple) else (results,)))
    expected = signature(op, op.node.meta["val"])
    return [flagged(op, given[i], shape, flag) if i in given else None for i, (_, shape, flag) in enumerate(expected)]


def as_tensor(op: Any, value: Any, dtype: DataType) -> Tensor:
    """A carried value as a tensor: numbers and sizes become 0-d ones."""
    return value if isinstance(value, Tensor) else op.cast(value, dtype)


@contextlib.contextmanager
def bound(op: Any, graph: GraphModule, values: Sequence[Any]) -> Iterator[None]:
    """While it lasts, the symbols that ``graph`` gives its inputs are read from ``values``.

    The bodies of one loop share their symbols although these stand for another value at every call; what is bound and
    computed of them may not outlive the call.
    """
    frame = op.frame
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
    outer = {symbol: frame.bindings.get(symbol) for symbol in symbols}
    forget(frame, symbols)
    for symbol, (value, axis) in symbols.items():
        op.symbols.bind(symbol, value, axis)
    try:
        yield
    finally:
        forget(frame, symbols)
        for symbol, place in outer.items():
            frame.bindings.pop(symbol, None)
            if place is not None:
                frame.bindings[symbol] = place


def is_local(op: Any, symbol: Any) -> bool:
    """Whether a dimension's symbol belongs to the loop, not to the graph around it."""
    return op.symbols.bound(symbol) is None or (symbol in op.frame.bindings and len(op.frames) > 1)


def forget(frame: Any, symbols: Any) -> None:
    """Drop computed sizes that depend on any of these symbols."""
    for key in list(frame.sizes):
        expr = key[0] if isinstance(key, tuple) else key
        if not expr.free_symbols.isdisjoint(symbols):
            del frame.sizes[key]


def call(op: Any, graph: GraphModule, values: Sequence[Any]) -> list[Any]:
    """The flat results of a body on these values, as tensors where they are numbers that depend on its symbols."""
    with bound(op, graph, values):
        results = op.inline(graph, *values)
        return [op.symbols.scalar(r.expr) if isinstance(r, Size) else r for r in results]


@translation("higher_order::cond", complex=True)
def cond(op: Any, pred: Any, true_fn: GraphModule, false_fn: GraphModule, operands: Sequence[Any] = ()) -> Any:
    """An If whose branches see the operands as outer values."""
    if isinstance(pred, bool):
        return op.inline(true_fn if pred else false_fn, *operands)
    condition = op.cast(pred, DataType.BOOL)
    used = [i for i, _ in enumerate(op.node.meta["val"]) if is_used(op, i)] or [0]

    def branch(body: GraphModule) -> list[Any]:
        results = op.inline(body, *operands)
        return [results[i] for i in used]

    then_branch, else_branch = (
        op.subgraph(lambda body=body: branch(body), name=name) for body, name in ((true_fn, "then"), (false_fn, "else"))
    )
    results = op.If(condition, then_branch=then_branch, else_branch=else_branch, outputs=len(used))
    return as_results(op, results, used)


@translation("higher_order::while_loop", complex=True)
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
    start = [as_tensor(op, value, dtype) for value, (dtype, *_) in zip(carried_inputs, inputs)]
    goes_on = op.cast(call(op, cond_fn, [*start, *additional_inputs])[0], DataType.BOOL)

    def turn(_step: Tensor, _condition: Tensor, *carried: Tensor) -> list[Tensor]:
        results = call(op, body_fn, [*carried, *additional_inputs])
        results = [as_tensor(op, value, dtype) for value, (dtype, *_) in zip(results, inputs)]
        again = call(op, cond_fn, [*results, *additional_inputs])[0]
        return [op.cast(again, DataType.BOOL), *results]

    body = op.subgraph(turn, [(DataType.INT64, []), (DataType.BOOL, []), *inputs])
    results = as_results(op, op.Loop(None, goes_on, *start, body=body, outputs=count))
    for result, (_, shape, _) in zip(results, inputs):
        if not len(shape):
            result.shape = ir.Shape([])  # a number is then read without a Reshape
    return results


@translation("higher_order::scan", complex=True)
def scan(
    op: Any, combine_fn: GraphModule, init: Sequence[Any], xs: Sequence[Tensor], additional_inputs: Sequence[Any] = ()
) -> Any:
    """A Scan along axis 0; ``torch.scan``'s other dims and ``reverse`` arrive as movedim and flip around it."""
    _check_states(op.node, combine_fn, len(init))
    fakes = placeholder_fakes(combine_fn)[: len(init) + len(xs)]
    inputs = signature(op, fakes)
    start = [as_tensor(op, value, dtype) for value, (dtype, *_) in zip(init, inputs)]
    if not xs:
        raise Unsupported("a scan over nothing")

    carried = len(init)
    used = [i for i, _ in enumerate(op.node.meta["val"]) if i < carried or is_used(op, i)] or [0]

    def step(*values: Tensor) -> list[Any]:
        results = call(op, combine_fn, [*values, *additional_inputs])
        return [results[i] for i in used]

    body = op.subgraph(step, inputs)
    return as_results(op, op.Scan(*start, *xs, body=body, num_scan_inputs=len(xs), outputs=len(used)), used)


def _check_states(node: Any, combine_fn: GraphModule, count: int) -> None:
    """Torch traces the step with one state where two begin with one tensor, so that it computes something else."""
    begins = list(node.args[1])[:count]
    states = [each for each in combine_fn.graph.nodes if each.op == "placeholder"]
    for begin, state in zip(begins, states):
        if begins.count(begin) > 1 and not state.users:
            raise Unsupported(
                "two states of the scan begin with one tensor, and torch.export takes them for one state: let one of "
                "them begin with a copy, tensor.clone()"
            )


@translation("higher_order::invoke_subgraph", complex=True)
def invoke_subgraph(op: Any, subgraph: GraphModule, identifier: str, *operands: Any) -> Any:
    """A call of a local function: the body of a nested compile region is in the file once."""
    return op.function("pkg.torch", identifier, subgraph, *operands)


@translation("higher_order::map_impl", complex=True)
def map_impl(op: Any, f: GraphModule, xs: Sequence[Tensor], pos_args: Sequence[Any] = ()) -> Any:
    """A Scan without state."""
    return scan(op, f, [], xs, pos_args)


@translation("higher_order::associative_scan", complex=True)
def associative_scan(
    op: Any, combine_fn: GraphModule, xs: Sequence[Tensor], additional_inputs: Sequence[Any] = ()
) -> Any:
    """A Scan along axis 0 whose state is what was combined so far; sums are a CumSum.

    The first element is passed on as it is. It is split off where there is sure to be a second one, since
    onnxruntime's Scan refuses to scan nothing.
    """
    if _adds(combine_fn) and xs[0].dtype in _SUMMED:
        return as_results(op, op.CumSum(xs[0], op.const(0, DataType.INT64)))
    length = op.size(xs[0], 0)
    if length == 1:
        return list(xs)
    firsts = [op.Gather(x, op.const(0, DataType.INT64), axis=0) for x in xs]
    inputs = [(x.dtype, list(x.shape)[1:], x.is_complex) for x in xs]
    for first, (_, shape, is_complex) in zip(firsts, inputs):
        flagged(op, first, shape, is_complex)

    def combined(values: Sequence[Tensor]) -> list[Any]:
        return call(op, combine_fn, [*values, *additional_inputs])

    if isinstance(length, int):
        rests = [op.Slice(x, [1], [2**63 - 1], [0]) for x in xs]

        def step(*values: Tensor) -> list[Any]:
            results = combined(values)
            return [*results, *results]

        body = op.subgraph(step, [*inputs, *inputs])
        scanned = op.Scan(*firsts, *rests, body=body, num_scan_inputs=len(xs), outputs=len(body.outputs))[len(xs) :]
        joined = [op.Concat(op.Unsqueeze(first, [0]), rest, axis=0) for first, rest in zip(firsts, scanned)]
    else:

        def chosen(is_first: Tensor, *values: Tensor) -> list[Any]:
            news = values[len(xs) :]
            results = [op.Where(is_first, new, old) for new, old in zip(news, combined(values))]
            for result, (_, shape, is_complex) in zip(results, inputs):
                flagged(op, result, shape, is_complex)
            return [*results, *results]

        marks = op.Equal(op.Range(0, length, 1), op.const(0, DataType.INT64))
        body = op.subgraph(lambda *v: chosen(v[len(xs)], *v[: len(xs)], *v[len(xs) + 1 :]), [*inputs, _MARK, *inputs])
        joined = op.Scan(*firsts, marks, *xs, body=body, num_scan_inputs=len(xs) + 1, outputs=len(body.outputs))
        joined = joined[len(xs) :]
    return as_results(op, tuple(joined))


_SUMMED = (DataType.FLOAT, DataType.DOUBLE, DataType.INT32, DataType.INT64)
_MARK: tuple[DataType, Any, bool] = (DataType.BOOL, [], False)


def _adds(graph: GraphModule) -> bool:
    """Whether the function is the sum of its two arguments."""
    first, *others = graph.graph.nodes
    if len(others) != 3 or others[1].target is not torch.ops.aten.add.Tensor:
        return False
    return set(others[1].args) == {first, others[0]} and not others[1].kwargs
