"""Steps that translations are made of: shapes, values and dims. Packs import them from ``onnxport.authoring``.

Shapes are lists of ints and sizes. A step emits as few nodes as its arguments need, and none where there is nothing to
do.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import sympy
from onnxport import DataType, Size, Tensor, Unsupported
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

if TYPE_CHECKING:
    from onnxport import Builder

Dim = int | Size
"""One dimension of a shape."""

_EXACT = 2**24
"""Integers up to here are exact in float32, which attributes of nodes are."""
_CONSTANT_ELEMENTS = 1024
"""Tensors of one value are constants up to this number of elements."""


def axis_of(x: Tensor, dim: int) -> int:
    """`dim` counted from the front; 0-d tensors have one dimension for this purpose, as in torch."""
    return dim % max(len(x.shape), 1)


def is_static(dims: Iterable[Dim]) -> bool:
    """Whether no dim is symbolic."""
    return all(isinstance(d, int) for d in dims)


def static(name: str, *values: Any) -> list[int]:
    """The values as ints, for what ONNX takes as an attribute.

    Raises:
        Unsupported: one of them is a symbolic size.
    """
    if not all(isinstance(value, int) for value in values):
        raise Unsupported(f"{name} must be static, not {list(values)}")
    return list(values)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims; 1 of none."""
    result: Dim = 1
    for d in dims:
        result = d if isinstance(result, int) and result == 1 else result * d
    return result


def larger(op: Builder, a: Dim, b: Dim) -> Dim:
    """The larger of two sizes, which may be known at run time only."""
    return _of_two(op, sympy.Max, a, b) if not is_static((a, b)) else max(a, b)


def smaller(op: Builder, a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes, which may be known at run time only."""
    return _of_two(op, sympy.Min, a, b) if not is_static((a, b)) else min(a, b)


def is_less(op: Builder, a: Dim, b: Dim) -> bool | Size:
    """Whether a size is less than another: a bool, or what `op.If` and `op.Where` take as a condition at run time."""
    return _of_two(op, sympy.StrictLessThan, a, b, "bool") if not is_static((a, b)) else a < b


def _of_two(op: Builder, function: Any, a: Dim, b: Dim, kind: str = "int") -> Any:
    """An expression of two sizes, as it is written: sympy takes sizes for positive, and a file's may be 0."""
    if a == b:
        return False if kind == "bool" else a
    left, right = (d.expr if isinstance(d, Size) else sympy.Integer(d) for d in (a, b))
    return op.symbols.size(function(left, right, evaluate=False), kind)


def seed_of(op: Builder, draw: int = 0) -> float | None:
    """The seed for a random node, of the node and the export's own seed; None where the user gave none.

    Args:
        draw: tells the random nodes of one translation apart.
    """
    if op.seed is None:
        return None
    name = op.node.name if op.node is not None else ""
    return float(zlib.crc32(f"{op.seed}/{name}/{draw}/{len(op.frame.nodes)}".encode()) % _EXACT)


def may_be_zero(dim: Dim) -> bool:
    """Whether a size can be 0 at run time: data-dependent ones can; inputs' can't, since torch.export specializes 0."""
    return dim == 0 if isinstance(dim, int) else bool(free_unbacked_symbols(dim.expr))


def may_be_one(dim: Dim) -> bool:
    """Whether a size can be 1 at run time: data-dependent ones can; inputs' are taken not to be."""
    return dim == 1 if isinstance(dim, int) else bool(free_unbacked_symbols(dim.expr))


def broadcast_shape(*shapes: Iterable[Dim]) -> list[Dim]:
    """The shape that `shapes` broadcast to."""
    lists = [list(s) for s in shapes]
    rank = max((len(s) for s in lists), default=0)
    result: list[Dim] = []
    for column in zip(*([1] * (rank - len(s)) + s for s in lists), strict=True):
        sizes = [d for d in column if d != 1]
        static = [d for d in sizes if isinstance(d, int)]
        result.append(static[0] if static else sizes[0] if sizes else 1)
    return result


def reshape(op: Builder, x: Tensor, target: Iterable[Dim]) -> Tensor:
    """`x` in the shape `target`, whose dims are all known (no -1); a constant shape wherever that is right.

    One symbolic dim becomes -1; several are copied (0) from the same place of the input where they are equal.
    """
    wanted = list(target)
    source = None if x.shape is None else list(x.shape)
    if source is not None and source == wanted:
        return x
    symbolic = [i for i, d in enumerate(wanted) if not isinstance(d, int)]
    if not symbolic:
        return op.Reshape(x, wanted, allowzero=1 if 0 in wanted else None)
    if 0 in wanted:
        return op.Reshape(x, wanted, allowzero=1)
    if len(symbolic) == 1:
        wanted[symbolic[0]] = -1
        return op.Reshape(x, wanted)
    copied = [i for i in symbolic if source is not None and i < len(source) and source[i] == wanted[i]]
    computed = [i for i in symbolic if i not in copied]
    # a 0 in a copied dim would leave -1 undetermined
    if computed and any(may_be_zero(wanted[i]) for i in symbolic):
        return op.Reshape(x, wanted, allowzero=1)
    if computed:
        hardest = max(computed, key=lambda i: len(str(wanted[i])))
        wanted[hardest] = -1
    for i in copied:
        wanted[i] = 0
    return op.Reshape(x, wanted)


def flat(op: Builder, x: Tensor) -> Tensor:
    """`x` as a vector."""
    return x if x.shape is not None and len(x.shape) == 1 else op.Reshape(x, [-1])


def expand(op: Builder, x: Tensor, target: Iterable[Dim]) -> Tensor:
    """`x` broadcast to `target`; dims that stay as they are never need their size."""
    wanted = list(target)
    if x.shape is None:
        return op.Expand(x, wanted)
    source = list(x.shape)
    if source == wanted:
        return x
    new = len(wanted) - len(source)
    factors = [1] * new + [1 if s == t else t for s, t in zip(source, wanted[new:], strict=True)]
    if any(d != 1 for d in wanted[:new]):
        factors[:new] = wanted[:new]
    if all(isinstance(d, int) and d == 1 for d in factors):
        return op.Unsqueeze(x, list(range(new)))
    result = op.Expand(x, factors)
    result.shape = ir.Shape(wanted)
    return result


def permute(op: Builder, x: Tensor, order: Sequence[int]) -> Tensor:
    """The axes of `x` in another order; no node where it is theirs."""
    return x if list(order) == sorted(order) else op.Transpose(x, perm=list(order))


def move_axes(op: Builder, x: Tensor, source: Sequence[int], destination: Sequence[int]) -> Tensor:
    """The axes `source` of `x` put at the places `destination`, the others kept in their order."""
    rank = len(x.shape)
    if rank == 0:
        return x
    placed = {d % rank: s % rank for s, d in zip(source, destination, strict=True)}
    others = iter([a for a in range(rank) if a not in placed.values()])
    return permute(op, x, [placed[i] if i in placed else next(others) for i in range(rank)])


def unsqueeze(op: Builder, x: Tensor, *axes: int) -> Tensor:
    """`x` with axes of size 1 at these places of the result; no node where there are none."""
    return op.Unsqueeze(x, list(axes)) if axes else x


def iota(op: Builder, n: Dim | Tensor, dtype: DataType = DataType.INT64) -> Tensor:
    """0, 1, ... n - 1 as a vector.

    Args:
        n: how many; a tensor is 0-d.
        dtype: the element type.
    """
    if isinstance(n, int):
        return op.const(np.arange(n, dtype=np.int64), dtype)
    return op.cast(op.Range(0, op.tensor(n, DataType.INT64), 1), dtype)


def filled(op: Builder, shape: Iterable[Dim] | Tensor, value: Any, dtype: DataType) -> Tensor:
    """A tensor that has one value everywhere.

    Args:
        shape: its dims; or a tensor whose shape it has.
        value: a number, a size or a 0-d tensor.
        dtype: the element type.
    """
    if isinstance(shape, Tensor):
        if shape.shape is None:
            return op.Expand(op.cast(value, dtype), op.shape(shape))
        shape = shape.shape
    dims = list(shape)
    if isinstance(value, (Size, Tensor)):
        return expand(op, op.cast(value, dtype), dims)
    element = op.const(value, dtype)
    if not dims:
        return element
    numpy = element.const_value.numpy()
    if is_static(dims) and product(dims) <= _CONSTANT_ELEMENTS and dtype != DataType.BFLOAT16:
        return op.const(np.full(dims, numpy), dtype)
    return op.ConstantOfShape(op.sizes(dims), value=ir.tensor(numpy.reshape(1), dtype=dtype))


def is_used(op: Builder, index: int) -> bool:
    """Whether anything reads result `index` of the FX node, which has several."""
    if op.node is None:
        return True
    return any(user.target is not operator.getitem or user.args[1] == index for user in op.node.users)
