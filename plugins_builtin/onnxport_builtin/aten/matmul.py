"""Products of vectors, matrices and batches of matrices, up to einsum."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from onnxport import DataType, Size, Tensor, Unsupported, promote, translation
from onnxport.authoring import Dim, reshape
from onnxport.authoring import product as extent

from onnxport_builtin.aten.grouped_heads import groups_of
from onnxport_builtin.aten.whole_numbers import whole_sum

if TYPE_CHECKING:
    from onnxport import Builder

# onnxruntime 1.32 multiplies matrices of float, double, float16, int32 and int64 only.
_WIDENED = {
    DataType.BOOL: DataType.INT32,
    DataType.UINT8: DataType.INT32,
    DataType.INT8: DataType.INT32,
    DataType.INT16: DataType.INT32,
}
_FLOATS = (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16)


def matrix_product(op: Builder, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` with numpy's rules for 1-D operands and batches, in the operands' dtype (any, bool included)."""
    dtype = a.dtype
    wide = _WIDENED.get(dtype)
    if wide is None:
        groups = groups_of(op, a, b)
        return op.MatMul(a, b) if groups is None else groups.product(op, a)
    return op.cast(op.MatMul(op.cast(a, wide), op.cast(b, wide)), dtype)


def swap_last(op: Builder, x: Tensor, rank: int) -> Tensor:
    """`x` with its last two axes exchanged."""
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


def total(op: Builder, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
    """The sum of `x` over `axes`, in x's own dtype (small integers wrap around, as in C)."""
    if x.dtype.is_floating_point():
        return op.ReduceSum(x, list(axes), keepdims=int(keepdims))
    return op.cast(whole_sum(op, x, sorted(axes), keepdims=keepdims), x.dtype)


def times(op: Builder, a: Tensor, b: Any) -> Tensor:
    """The elementwise product of two tensors of one dtype; of bools, their conjunction."""
    if a.dtype == DataType.BOOL:
        return op.And(a, b if isinstance(b, Tensor) else op.const(bool(b), DataType.BOOL))
    return op.Mul(a, b)


def plus(op: Builder, a: Tensor, b: Tensor) -> Tensor:
    """The elementwise sum of two tensors of one dtype; of bools, their disjunction."""
    return op.Or(a, b) if a.dtype == DataType.BOOL else op.Add(a, b)


def _scaled(op: Builder, x: Tensor, factor: Any) -> Tensor:
    if isinstance(factor, int | float) and factor == 1:
        return x
    if isinstance(factor, Size):
        factor = op.cast(factor, x.dtype)
    return times(op, x, factor)


def _accumulate(op: Builder, self: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    """``beta * self + alpha * product``; a zero `beta` hides the NaNs of `self`, as torch says it does."""
    scaled = _scaled(op, product, alpha)
    if isinstance(beta, int | float) and beta == 0:
        shape = op.result.shape
        return scaled if len(shape) == op.rank(product) else op.Expand(scaled, op.sizes(list(shape)))
    return plus(op, _scaled(op, op.cast(self, product.dtype), beta), scaled)


@translation("aten::linear")
def linear(op: Builder, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if len(weight.shape) == 1:
        product = matrix_product(op, input, weight)
        return product if bias is None else plus(op, product, bias)
    if len(input.shape) == 2 and input.dtype in _FLOATS and (bias is None or len(bias.shape) <= 2):
        return op.Gemm(input, weight, bias, transB=1)
    product = matrix_product(op, input, op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else plus(op, product, bias)


def _exact_in_float32(value: Any) -> bool:
    return isinstance(value, int | float) and float(torch.tensor(float(value), dtype=torch.float32)) == float(value)


@translation("aten::addmm")
def addmm(op: Builder, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    # Gemm's alpha and beta are float attributes: too coarse for most factors of a double product.
    exact = mat1.dtype != DataType.DOUBLE or (_exact_in_float32(alpha) and _exact_in_float32(beta))
    plain = isinstance(alpha, int | float) and isinstance(beta, int | float)
    if mat1.dtype in _FLOATS and self.dtype == mat1.dtype and exact and plain:
        addend = None if beta == 0 else self
        return op.Gemm(mat1, mat2, addend, alpha=float(alpha), beta=float(beta))
    return _accumulate(op, self, matrix_product(op, mat1, mat2), beta, alpha)


@translation("aten::addmm.dtype")
def addmm_dtype(
    op: Builder,
    self: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    out_dtype: torch.dtype,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> Tensor:
    product = matrix_product(op, op.cast(mat1, out_dtype), op.cast(mat2, out_dtype))
    return _accumulate(op, self, product, beta, alpha)


@translation("aten::mm", "aten::bmm")
def mm(op: Builder, self: Tensor, mat2: Tensor) -> Tensor:
    dtype = op.result.dtype
    return matrix_product(op, op.cast(self, dtype), op.cast(mat2, dtype))


@translation("aten::mm.dtype", "aten::bmm.dtype")
def mm_dtype(op: Builder, self: Tensor, mat2: Tensor, out_dtype: torch.dtype) -> Tensor:
    return matrix_product(op, op.cast(self, out_dtype), op.cast(mat2, out_dtype))


@translation("aten::matmul", "aten::linalg_matmul")
def matmul(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return matrix_product(op, self, other)


@translation("aten::mv")
def mv(op: Builder, self: Tensor, vec: Tensor) -> Tensor:
    return matrix_product(op, self, vec)


@translation("aten::dot")
def dot(op: Builder, self: Tensor, tensor: Tensor) -> Tensor:
    return matrix_product(op, self, tensor)


@translation("aten::vdot")
def vdot(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return matrix_product(op, self, other)


@translation("aten::baddbmm")
def baddbmm(op: Builder, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _accumulate(op, self, matrix_product(op, batch1, batch2), beta, alpha)


@translation("aten::baddbmm.dtype")
def baddbmm_dtype(
    op: Builder,
    self: Tensor,
    batch1: Tensor,
    batch2: Tensor,
    out_dtype: torch.dtype,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> Tensor:
    product = matrix_product(op, op.cast(batch1, out_dtype), op.cast(batch2, out_dtype))
    return _accumulate(op, self, product, beta, alpha)


@translation("aten::addbmm")
def addbmm(op: Builder, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _accumulate(op, self, total(op, matrix_product(op, batch1, batch2), [0]), beta, alpha)


@translation("aten::addmv")
def addmv(op: Builder, self: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _accumulate(op, self, matrix_product(op, mat, vec), beta, alpha)


def _outer(op: Builder, a: Tensor, b: Tensor, dtype: DataType) -> Tensor:
    return times(op, op.Unsqueeze(op.cast(a, dtype), [1]), op.Unsqueeze(op.cast(b, dtype), [0]))


@translation("aten::outer", "aten::ger")
def outer(op: Builder, self: Tensor, vec2: Tensor) -> Tensor:
    return _outer(op, self, vec2, op.result.dtype)


@translation("aten::addr")
def addr(op: Builder, self: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    dtype = op.result.dtype
    return _accumulate(op, op.cast(self, dtype), _outer(op, vec1, vec2, dtype), beta, alpha)


@translation("aten::inner")
def inner(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    ranks = len(self.shape), len(other.shape)
    if 0 in ranks:
        return times(op, self, other)
    if ranks[1] == 1:
        return matrix_product(op, self, other)
    if ranks[1] == 2:
        return matrix_product(op, self, op.Transpose(other, perm=[1, 0]))
    return _tensordot(op, self, other, [ranks[0] - 1], [ranks[1] - 1])


@translation("aten::linalg_vecdot")
def linalg_vecdot(op: Builder, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    dtype = promote(x, y)
    product = times(op, op.cast(x, dtype), op.cast(y, dtype))
    rank = max(len(x.shape), len(y.shape))
    return total(op, product, [dim % rank])


# ---- einsum -----------------------------------------------------------------------------------------------------


class _Operand:
    """A tensor whose axes have labels."""

    def __init__(self, value: Tensor, labels: str, dims: dict[str, Dim]) -> None:
        self.value = value
        self.labels = labels
        self.dims = dims

    def reordered(self, op: Builder, labels: str) -> Tensor:
        """The value with its axes in the order of `labels`, a permutation of its own."""
        if labels == self.labels:
            return self.value
        return op.Transpose(self.value, perm=[self.labels.index(label) for label in labels])

    def summed(self, op: Builder, labels: str) -> _Operand:
        """This operand without `labels`, which are summed over."""
        if not labels:
            return self
        axes = [self.labels.index(label) for label in labels]
        kept = "".join(label for label in self.labels if label not in labels)
        return _Operand(total(op, self.value, axes), kept, {label: self.dims[label] for label in kept})


def _grouped(op: Builder, operand: _Operand, groups: Sequence[str]) -> Tensor:
    """The operand's axes in the order of `groups`; the last two groups become one axis each."""
    value = operand.reordered(op, "".join(groups))
    if len(groups[-1]) == 1 and len(groups[-2]) == 1:
        return value
    batch = "".join(groups[:-2])
    shape: list[Dim] = [operand.dims[label] for label in batch]
    for group in groups[-2:]:
        shape.append(extent(operand.dims[label] for label in group))
    return reshape(op, value, shape)


def _contract(op: Builder, a: _Operand, b: _Operand, kept: set[str]) -> _Operand:
    """The product of two operands, summed over the labels that are not in `kept`."""
    a = a.summed(op, "".join(label for label in a.labels if label not in kept and label not in b.labels))
    b = b.summed(op, "".join(label for label in b.labels if label not in kept and label not in a.labels))
    shared = [label for label in a.labels if label in b.labels]
    # A dimension of 1 is broadcast against the other operand's: summing the other one first gives the same.
    for label in shared:
        if label in kept or a.dims[label] == b.dims[label]:
            continue
        if a.dims[label] == 1:
            b = b.summed(op, label)
            a = a.summed(op, label)
        elif b.dims[label] == 1:
            a = a.summed(op, label)
            b = b.summed(op, label)
    batch = "".join(label for label in a.labels if label in b.labels and label in kept)
    inner_labels = "".join(label for label in a.labels if label in b.labels and label not in kept)
    rows = "".join(label for label in a.labels if label not in b.labels)
    columns = "".join(label for label in b.labels if label not in a.labels)
    dims: dict[str, Dim] = {}
    for label in batch:
        dims[label] = b.dims[label] if a.dims[label] == 1 else a.dims[label]
    dims.update({label: a.dims[label] for label in rows})
    dims.update({label: b.dims[label] for label in columns})
    labels = batch + rows + columns
    if not inner_labels:
        left = (
            op.Unsqueeze(a.reordered(op, batch + rows), [len(batch) + len(rows) + i for i in range(len(columns))])
            if columns
            else a.reordered(op, batch + rows)
        )
        right = (
            op.Unsqueeze(b.reordered(op, batch + columns), [len(batch) + i for i in range(len(rows))])
            if rows
            else b.reordered(op, batch + columns)
        )
        return _Operand(times(op, left, right), labels, dims)
    product = matrix_product(
        op, _grouped(op, a, [batch, rows, inner_labels]), _grouped(op, b, [batch, inner_labels, columns])
    )
    if len(rows) != 1 or len(columns) != 1:
        shape = [dims[label] for label in labels]
        product = reshape(op, product, shape)
    return _Operand(product, labels, dims)


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, with the ellipsis spelled out as labels of its own."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ranks):
        raise Unsupported(f"einsum equation {equation!r} names {len(terms)} operands, not {len(ranks)}")
    spare = [chr(code) for code in range(0x100, 0x140)]
    widest = max((rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks) if "..." in term), default=0)
    ellipsis = "".join(spare[:widest])
    labels = []
    for term, rank in zip(terms, ranks):
        covered = rank - len(term.replace("...", ""))
        labels.append(term.replace("...", ellipsis[len(ellipsis) - covered :]))
    if arrow:
        return labels, output.replace("...", ellipsis)
    named = "".join(labels)
    once = [label for label in string.ascii_uppercase + string.ascii_lowercase if named.count(label) == 1]
    return labels, ellipsis + "".join(once)


def _diagonal(op: Builder, value: Tensor, labels: str) -> tuple[Tensor, str]:
    """The operand without repeated labels: the diagonal over them."""
    unique = "".join(dict.fromkeys(labels))
    if unique == labels:
        return value, labels
    letters = {label: string.ascii_letters[i] for i, label in enumerate(unique)}
    left, right = ("".join(letters[label] for label in term) for term in (labels, unique))
    wide = _WIDENED.get(value.dtype, value.dtype)
    return op.cast(op.Einsum(op.cast(value, wide), equation=f"{left}->{right}"), value.dtype), unique


@translation("aten::einsum")
def einsum(op: Builder, equation: str, tensors: Sequence[Tensor], *, path: Sequence[int] | None = None) -> Tensor:
    del path  # an order of evaluation: operands are taken from left to right here
    dtype = op.result.dtype
    labels, output = _parse(equation, [len(tensor.shape) for tensor in tensors])
    operands = []
    for tensor, term in zip(tensors, labels):
        dims: dict[str, Dim] = {}
        for label, dim in zip(term, tensor.shape):
            dims[label] = dim if dims.get(label, 1) == 1 else dims[label]
        value, unique = _diagonal(op, op.cast(tensor, dtype), term)
        operands.append(_Operand(value, unique, dims))
    current = operands[0]
    for i, operand in enumerate(operands[1:], 1):
        needed = set(output).union(*(set(later.labels) for later in operands[i + 1 :]))
        current = _contract(op, current, operand, needed)
    current = current.summed(op, "".join(label for label in current.labels if label not in output))
    return current.reordered(op, output)


def _tensordot(op: Builder, a: Tensor, b: Tensor, dims_a: Sequence[int], dims_b: Sequence[int]) -> Tensor:
    ranks = len(a.shape), len(b.shape)
    names = iter(string.ascii_letters)
    left = [next(names) for _ in range(ranks[0])]
    right = [next(names) for _ in range(ranks[1])]
    for i, j in zip(dims_a, dims_b):
        right[j % ranks[1]] = left[i % ranks[0]]
    contracted = {left[i % ranks[0]] for i in dims_a}
    first, second = (
        _Operand(value, "".join(names_of), dict(zip(names_of, value.shape)))
        for value, names_of in ((a, left), (b, right))
    )
    result = _contract(op, first, second, (set(left) | set(right)) - contracted)
    order = [label for label in left if label not in contracted] + [label for label in right if label not in contracted]
    return result.reordered(op, "".join(order))


@translation("aten::tensordot")
def tensordot(op: Builder, self: Tensor, other: Tensor, dims_self: Sequence[int], dims_other: Sequence[int]) -> Tensor:
    return _tensordot(op, self, other, dims_self, dims_other)


# ---- products of several operands ---------------------------------------------------------------------------------


def _chain(op: Builder, matrices: Sequence[Tensor], sizes: Sequence[Dim]) -> Tensor:
    """The product of matrices, in the cheapest order where the sizes are static, else from left to right."""
    if len(matrices) == 1:
        return matrices[0]
    if not all(isinstance(size, int) for size in sizes):
        return matrix_product(op, _chain(op, matrices[:-1], sizes[:-1]), matrices[-1])
    n = len(matrices)
    cost = {(i, i): 0 for i in range(n)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            options = [
                (cost[i, k] + cost[k + 1, j] + int(sizes[i]) * int(sizes[k + 1]) * int(sizes[j + 1]), k)
                for k in range(i, j)
            ]
            cost[i, j], split[i, j] = min(options)

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return matrices[i]
        return matrix_product(op, product(i, split[i, j]), product(split[i, j] + 1, j))

    return product(0, n - 1)


@translation("aten::linalg_multi_dot")
def linalg_multi_dot(op: Builder, tensors: Sequence[Tensor]) -> Tensor:
    matrices = list(tensors)
    first, last = len(matrices[0].shape) == 1, len(matrices[-1].shape) == 1
    sizes: list[Dim] = [1 if first else matrices[0].shape[0], matrices[0].shape[-1]]
    sizes += [matrix.shape[1] for matrix in matrices[1:-1]]
    sizes.append(1 if last else matrices[-1].shape[1])
    if first:
        matrices[0] = op.Unsqueeze(matrices[0], [0])
    if last:
        matrices[-1] = op.Unsqueeze(matrices[-1], [1])
    axes = ([0] if first else []) + ([1] if last else [])
    product = _chain(op, matrices, sizes)
    return op.Squeeze(product, axes) if axes else product


@translation("aten::chain_matmul")
def chain_matmul(op: Builder, matrices: Sequence[Tensor]) -> Tensor:
    return _chain(op, matrices, [matrices[0].shape[0], *(matrix.shape[1] for matrix in matrices)])


@translation("aten::bilinear")
def bilinear(op: Builder, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    outputs, left, right = weight.shape
    batch = list(input1.shape)[:-1]
    flat = reshape(op, op.Transpose(weight, perm=[1, 0, 2]), [left, outputs * right])
    partial = reshape(op, matrix_product(op, input1, flat), [*batch, outputs, right])
    product = op.Squeeze(matrix_product(op, partial, op.Unsqueeze(input2, [-1])), [-1])
    return product if bias is None else plus(op, product, bias)


@translation("aten::_trilinear")
def trilinear(
    op: Builder,
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    del unroll_dim  # how torch's kernel blocks its work
    factors = [
        op.Unsqueeze(value, list(axes)) if axes else value
        for value, axes in ((i1, expand1), (i2, expand2), (i3, expand3))
    ]
    product = times(op, times(op, factors[0], factors[1]), factors[2])
    return total(op, product, sumdim) if sumdim else product
