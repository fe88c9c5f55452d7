"""Reductions: sums, products, extrema, logic, moments, norms and order statistics.

Facts about onnxruntime 1.32 that shape these translations:

* ReduceMax and ReduceMin may lose a NaN (they are vectorised with a plain comparison), and ArgMax and ArgMin never
  prefer one; torch propagates NaN in all of them. TopK orders NaN as the largest value, as torch's sort does, and
  breaks ties by the lower index, so it serves wherever a position is asked for.
* ReduceL1 is NaN exactly where an operand is NaN (a sum of absolute values never meets ``inf - inf``), the cheapest
  exact test.
* The reductions have kernels for float16/32/64 and int32/64 only (extrema also int8 and uint8); a mean over nothing
  gives 0.
"""

from __future__ import annotations

import builtins
import math
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import may_be_zero

from onnxport_builtin.aten.whole_numbers import whole_product, whole_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

FLOATS = frozenset({DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16})
NARROW_FLOATS = frozenset({DataType.FLOAT16, DataType.BFLOAT16})
Dims = "int | Sequence[int] | None"


def reduced_axes(x: Tensor, dim: Any) -> list[int]:
    """The axes that torch's ``dim`` names, as non-negative numbers; all of them for None and for an empty list."""
    rank = len(x.shape)
    if dim is None or dim == [] or dim == ():
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return sorted({d % rank for d in dims}) if rank else []


def count(x: Tensor, axes: Sequence[int]) -> int | Size:
    """The number of elements that a reduction over ``axes`` combines."""
    total: int | Size = 1
    for axis in axes:
        total = total * x.shape[axis]
    return total


def reduce(op: Any, name: str, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """One ONNX reduction; for a 0-d operand over no axes at all."""
    return getattr(op, name)(x, list(axes) if len(x.shape) else None, keepdims=int(keepdim))


def drop(op: Any, x: Tensor, axis: int, keepdim: bool) -> Tensor:
    return x if keepdim else op.Squeeze(x, [axis])


def full_like_result(op: Any, value: float | bool, index: int = 0) -> Tensor:
    """A constant result of the shape that torch expects."""
    result = op.results[index]
    return op.Expand(op.const(value, result.dtype), list(result.shape))


def widen(op: Any, x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, as torch accumulates them."""
    return op.cast(x, DataType.FLOAT) if x.dtype in NARROW_FLOATS else x


def accumulated(op: Any, x: Tensor, name: str, axes: Sequence[int], keepdim: bool) -> Tensor:
    """ReduceSum or ReduceProd in torch's result type (``dtype=`` already resolved by torch in ``op.result``)."""
    out = op.result.dtype
    if out == DataType.BOOL:
        return logical(op, x, axes, keepdim, every=name == "ReduceProd")
    if out.is_floating_point():
        return reduce(op, name, op.cast(x, out), axes, keepdim)
    if x.dtype.is_floating_point():
        x = op.cast(x, out)
    whole = whole_product if name == "ReduceProd" else whole_sum
    return op.cast(whole(op, x, axes, keepdims=keepdim), out)


@translation("aten::sum", "aten::sum.dim_IntList")
def sum(op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    return accumulated(op, self, "ReduceSum", reduced_axes(self, dim), keepdim)


@translation("aten::nansum")
def nansum(
    op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    if self.dtype in FLOATS:
        self = op.Where(op.IsNaN(self), 0, self)
    return accumulated(op, self, "ReduceSum", reduced_axes(self, dim), keepdim)


@translation("aten::prod", "aten::prod.dim_int")
def prod(
    op: Any, self: Tensor, *, dim: int | None = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    return accumulated(op, self, "ReduceProd", reduced_axes(self, dim), keepdim)


@translation("aten::mean", "aten::mean.dim")
def mean(op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    x, axes = op.cast(self, op.result.dtype), reduced_axes(self, dim)
    n = count(x, axes)
    if n == 0:
        return full_like_result(op, math.nan)
    if may_be_zero(n):
        return op.Div(reduce(op, "ReduceSum", x, axes, keepdim), n)
    return reduce(op, "ReduceMean", x, axes, keepdim)


@translation("aten::count_nonzero", "aten::count_nonzero.dim_IntList")
def count_nonzero(op: Any, self: Tensor, *, dim: Dims = None) -> Tensor:
    nonzero = op.cast(op.cast(self, DataType.BOOL), DataType.INT64)
    return reduce(op, "ReduceSum", nonzero, reduced_axes(self, dim), keepdim=False)


@translation("aten::sum_to_size")
def sum_to_size(op: Any, self: Tensor, size: Sequence[int | Size]) -> Tensor:
    x = op.cast(self, op.result.dtype)
    lead = len(x.shape) - len(size)
    axes = list(range(lead))
    axes += [lead + i for i, n in enumerate(size) if n == 1 and x.shape[lead + i] != 1]
    if not axes:
        return x
    if x.dtype.is_floating_point():
        summed = reduce(op, "ReduceSum", x, axes, keepdim=lead == 0)
    else:
        summed = op.cast(whole_sum(op, x, axes, keepdims=lead == 0), x.dtype)
    return summed if lead in (0, len(axes)) else op.Reshape(summed, list(size))


@translation("aten::trace")
def trace(op: Any, self: Tensor) -> Tensor:
    columns = self.shape[1]
    if columns == 0:
        return op.const(0, op.result.dtype)
    # The diagonal is every (columns + 1)th element of the first columns * columns ones.
    whole = not op.result.dtype.is_floating_point()
    flat = op.Reshape(op.cast(self, DataType.INT64 if whole else op.result.dtype), [-1])
    diagonal = op.Slice(flat, [0], [columns * columns], [0], [columns + 1])
    if not whole:
        return op.ReduceSum(diagonal, keepdims=0)
    # A dot product with ones, since neither size need be known.
    return op.cast(op.MatMul(diagonal, op.Expand(op.const(1), op.Shape(diagonal))), op.result.dtype)


# --- logic ---------------------------------------------------------------------------------------------------------


def logical(op: Any, x: Tensor, axes: Sequence[int], keepdim: bool, *, every: bool) -> Tensor:
    """any() or all() as a bool tensor."""
    name = "ReduceMin" if every else "ReduceMax"
    x = op.cast(x, DataType.BOOL)
    if not axes:
        return x
    if op.opset >= 20 and not may_be_zero(count(x, axes)):
        return reduce(op, name, x, axes, keepdim)
    # uint8 has the right values over nothing: 255 for the minimum, 0 for the maximum.
    return op.cast(reduce(op, name, op.cast(x, DataType.UINT8), axes, keepdim), DataType.BOOL)


@translation("aten::any", "aten::any.dim", "aten::any.dims")
def any(op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return op.cast(logical(op, self, logical_axes(self, dim), keepdim, every=False), op.result.dtype)


@translation("aten::all", "aten::all.dim", "aten::all.dims")
def all(op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return op.cast(logical(op, self, logical_axes(self, dim), keepdim, every=True), op.result.dtype)


def logical_axes(x: Tensor, dim: Any) -> list[int]:
    """As `reduced_axes`, but an empty list means no axis: ``any.dims`` and ``all.dims`` are the exception in torch."""
    return [] if isinstance(dim, (list, tuple)) and not dim else reduced_axes(x, dim)


# --- extrema -------------------------------------------------------------------------------------------------------


def extremum(op: Any, x: Tensor, axes: Sequence[int], keepdim: bool, *, largest: bool) -> Tensor:
    """The largest or smallest value over ``axes``, NaN if there is one."""
    name = "ReduceMax" if largest else "ReduceMin"
    if x.dtype == DataType.BOOL:
        return logical(op, x, axes, keepdim, every=not largest)
    if not axes:
        return x
    if x.dtype not in FLOATS:
        kernel = x.dtype in (DataType.INT64, DataType.INT32, DataType.INT8, DataType.UINT8)
        wide = x if kernel else op.cast(x, DataType.INT64)
        return op.cast(reduce(op, name, wide, axes, keepdim), x.dtype)
    if largest and len(axes) == 1:
        return drop(op, op.TopK(x, [1], axis=axes[0])[0], axes[0], keepdim)
    plain = reduce(op, name, x, axes, keepdim)
    magnitude = reduce(op, "ReduceL1", x, axes, keepdim)
    return op.Where(op.IsNaN(magnitude), magnitude, plain)


def position(op: Any, x: Tensor, axis: int, *, largest: bool) -> tuple[Tensor, Tensor]:
    """Value and index of the extremum along one axis (kept, of size 1); the first NaN wins."""
    if x.dtype in FLOATS:
        # NaN is the largest value for TopK, so the smallest one is sought among the negatives.
        values, indices = op.TopK(x if largest else op.Neg(x), [1], axis=axis)
        return (values if largest else op.Neg(values)), indices
    x = op.cast(x, DataType.UINT8) if x.dtype == DataType.BOOL else x
    return op.TopK(x, [1], axis=axis, largest=int(largest))


@translation("aten::amax")
def amax(op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return extremum(op, self, reduced_axes(self, dim), keepdim, largest=True)


@translation("aten::amin")
def amin(op: Any, self: Tensor, *, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return extremum(op, self, reduced_axes(self, dim), keepdim, largest=False)


@translation("aten::max")
def max_all(op: Any, self: Tensor) -> Tensor:
    return extremum(op, self, reduced_axes(self, None), keepdim=False, largest=True)


@translation("aten::min")
def min_all(op: Any, self: Tensor) -> Tensor:
    return extremum(op, self, reduced_axes(self, None), keepdim=False, largest=False)


@translation("aten::aminmax", "aten::_aminmax", "aten::_aminmax.dim")
def aminmax(op: Any, self: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    axes = reduced_axes(self, dim)
    if not axes:
        return self, self
    return extremum(op, self, axes, keepdim, largest=False), extremum(op, self, axes, keepdim, largest=True)


def extremum_dim(op: Any, x: Tensor, dim: int, keepdim: bool, *, largest: bool) -> tuple[Tensor, Tensor]:
    """Values and indices along one axis."""
    rank = len(x.shape)
    if rank == 0:
        return x, op.const(0, DataType.INT64)
    axis = dim % rank
    if x.dtype in (DataType.INT64, DataType.INT32, DataType.INT8, DataType.UINT8) and not keepdim:
        values = reduce(op, "ReduceMax" if largest else "ReduceMin", x, [axis], keepdim)
        return values, getattr(op, "ArgMax" if largest else "ArgMin")(x, axis=axis, keepdims=0)
    values, indices = position(op, x, axis, largest=largest)
    return op.cast(drop(op, values, axis, keepdim), x.dtype), drop(op, indices, axis, keepdim)


@translation("aten::max.dim")
def max_dim(op: Any, self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return extremum_dim(op, self, dim, keepdim, largest=True)


@translation("aten::min.dim")
def min_dim(op: Any, self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return extremum_dim(op, self, dim, keepdim, largest=False)


def argument(op: Any, x: Tensor, dim: int | None, keepdim: bool, *, largest: bool) -> Tensor:
    rank = len(x.shape)
    if rank == 0:
        return op.const(0, DataType.INT64)
    axis = 0 if dim is None else dim % rank
    if dim is None and rank > 1:
        x = op.Reshape(x, [-1])
    whole = dim is None and rank > 1 and keepdim
    if x.dtype in FLOATS:
        _, found = position(op, x, axis, largest=largest)
        if not whole:
            return drop(op, found, axis, keepdim)
    else:
        kernel = x.dtype in (DataType.INT64, DataType.INT32, DataType.INT8, DataType.UINT8)
        x = x if kernel else op.cast(x, DataType.INT32)
        found = getattr(op, "ArgMax" if largest else "ArgMin")(x, axis=axis, keepdims=int(keepdim))
    return op.Reshape(found, [1] * rank) if whole else found


@translation("aten::argmax")
def argmax(op: Any, self: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return argument(op, self, dim, keepdim, largest=True)


@translation("aten::argmin")
def argmin(op: Any, self: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return argument(op, self, dim, keepdim, largest=False)


# --- moments -------------------------------------------------------------------------------------------------------


def moments(op: Any, x: Tensor, axes: Sequence[int], correction: float | None, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Variance and mean: ``sum((x - mean)**2) / max(0, n - correction)``, two passes as torch's kernel is exact."""
    correction = 1 if correction is None else correction
    n = count(x, axes)
    if n == 0:
        nan = full_like_result(op, math.nan)
        return nan, nan
    center = reduce(op, "ReduceMean", x, axes, keepdim=True)
    squares = reduce(op, "ReduceSumSquare", op.Sub(x, center), axes, keepdim)
    if isinstance(n, int):
        divisor: Any = float(n - correction if n > correction else 0)
    else:
        divisor = op.Sub(op.cast(n, x.dtype), correction)
        if correction > 1 or may_be_zero(n):
            divisor = op.Max(divisor, 0)
    variance = op.Div(squares, divisor)
    return variance, center if keepdim or not axes else op.Squeeze(center, list(axes))


def spread(
    op: Any, self: Tensor, dim: Any, correction: float | None, keepdim: bool, *, root: bool, with_mean: bool
) -> Any:
    """var, std, var_mean and std_mean; computed in float32 for narrower floats."""
    dtype = op.results[0].dtype
    variance, center = moments(op, widen(op, self), reduced_axes(self, dim), correction, keepdim)
    first = op.cast(op.Sqrt(variance) if root else variance, dtype)
    return (first, op.cast(center, dtype)) if with_mean else first


@translation("aten::var", "aten::var.dim")
def var(op: Any, self: Tensor, *, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return spread(op, self, dim, int(unbiased), keepdim, root=False, with_mean=False)


@translation("aten::var.correction")
def var_correction(
    op: Any, self: Tensor, *, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    return spread(op, self, dim, correction, keepdim, root=False, with_mean=False)


@translation("aten::std", "aten::std.dim")
def std(op: Any, self: Tensor, *, dim: Dims = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return spread(op, self, dim, int(unbiased), keepdim, root=True, with_mean=False)


@translation("aten::std.correction")
def std_correction(
    op: Any, self: Tensor, *, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    return spread(op, self, dim, correction, keepdim, root=True, with_mean=False)


@translation("aten::var_mean", "aten::var_mean.dim")
def var_mean(
    op: Any, self: Tensor, *, dim: Dims = None, unbiased: bool = True, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return spread(op, self, dim, int(unbiased), keepdim, root=False, with_mean=True)


@translation("aten::var_mean.correction")
def var_mean_correction(
    op: Any, self: Tensor, *, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return spread(op, self, dim, correction, keepdim, root=False, with_mean=True)


@translation("aten::std_mean", "aten::std_mean.dim")
def std_mean(
    op: Any, self: Tensor, *, dim: Dims = None, unbiased: bool = True, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return spread(op, self, dim, int(unbiased), keepdim, root=True, with_mean=True)


@translation("aten::std_mean.correction")
def std_mean_correction(
    op: Any, self: Tensor, *, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return spread(op, self, dim, correction, keepdim, root=True, with_mean=True)


@translation("aten::logsumexp", "aten::special_logsumexp")
def logsumexp(op: Any, self: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    dtype = op.result.dtype
    x = widen(op, op.cast(self, dtype))
    return op.cast(reduce(op, "ReduceLogSumExp", x, reduced_axes(self, dim), keepdim), dtype)


# --- norms ---------------------------------------------------------------------------------------------------------


def norm(op: Any, x: Tensor, order: float | Size, axes: Sequence[int], keepdim: bool) -> Tensor:
    """``sum(|x|**order)**(1/order)`` over ``axes`` with torch's limits for 0 and the infinities."""
    if isinstance(order, Size):
        return norm_of_size(op, x, order, axes, keepdim)
    if order == 2:
        return reduce(op, "ReduceL2", x, axes, keepdim)
    if order == 1:
        return reduce(op, "ReduceL1", x, axes, keepdim)
    if math.isinf(order):
        magnitude = op.Abs(x)
        if count(x, axes) == 0:
            return full_like_result(op, 0.0 if order > 0 else math.inf)
        return extremum(op, magnitude, axes, keepdim, largest=order > 0)
    if order == 0:
        nonzero = op.cast(op.cast(x, DataType.BOOL), x.dtype)
        return reduce(op, "ReduceSum", nonzero, axes, keepdim)
    wide = widen(op, x)
    total = reduce(op, "ReduceSum", op.Pow(op.Abs(wide), op.const(float(order), wide.dtype)), axes, keepdim)
    return op.cast(op.Pow(total, op.const(1.0 / order, wide.dtype)), x.dtype)


def norm_of_size(op: Any, x: Tensor, order: Size, axes: Sequence[int], keepdim: bool) -> Tensor:
    """A norm whose order is known at run time only: 0 and the infinities are chosen there."""
    wide = widen(op, x)
    exponent = op.cast(order, wide.dtype)
    total = reduce(op, "ReduceSum", op.Pow(op.Abs(wide), exponent), axes, keepdim)
    result = op.Pow(total, op.Div(op.const(1, wide.dtype), exponent))
    if order.expr.is_positive is not True:
        result = op.Where(op.Equal(exponent, 0), norm(op, wide, 0, axes, keepdim), result)
    if not builtins.all(symbol.is_integer for symbol in order.expr.free_symbols):  # an element may be infinite
        for limit in (math.inf, -math.inf):
            is_limit = op.Equal(exponent, op.const(limit, wide.dtype))
            result = op.Where(is_limit, norm(op, wide, limit, axes, keepdim), result)
    return op.cast(result, x.dtype)


@translation("aten::linalg_vector_norm")
def vector_norm(
    op: Any,
    self: Tensor,
    ord: float | Size = 2,  # the schema's name
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    return norm(op, op.cast(self, op.result.dtype), ord, reduced_axes(self, dim), keepdim)


@translation(
    "aten::norm.Scalar",
    "aten::norm.ScalarOpt_dim",
    "aten::norm.ScalarOpt_dtype",
    "aten::norm.ScalarOpt_dim_dtype",
)
def norm_scalar(
    op: Any,
    self: Tensor,
    p: float | Size | None = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    return norm(op, op.cast(self, op.result.dtype), 2 if p is None else p, reduced_axes(self, dim), keepdim)


@translation("aten::dist")
def dist(op: Any, self: Tensor, other: Tensor, p: float | Size = 2) -> Tensor:
    dtype = op.result.dtype
    difference = op.Sub(op.cast(self, dtype), op.cast(other, dtype))
    rank = len(self.shape) if len(self.shape) > len(other.shape) else len(other.shape)
    if p == 2 or p == 1 or rank == 0:
        return op.ReduceL1(difference, keepdims=0) if p == 1 else norm(op, op.Reshape(difference, [-1]), p, [0], False)
    return norm(op, op.Reshape(difference, [-1]), p, [0], keepdim=False)


# --- order statistics ----------------------------------------------------------------------------------------------


def ascending(op: Any, x: Tensor, axis: int, k: int | Size | None = None) -> tuple[Tensor, Tensor]:
    """The k smallest (default all) values and their indices in order, NaN last."""
    if x.dtype == DataType.BOOL:
        values, indices = op.TopK(op.cast(x, DataType.UINT8), [x.shape[axis] if k is None else k], axis=axis, largest=0)
        return op.cast(values, DataType.BOOL), indices
    return op.TopK(x, [x.shape[axis] if k is None else k], axis=axis, largest=0)


def take(op: Any, x: Tensor, where: int | Size, axis: int, keepdim: bool) -> Tensor:
    """The slice of ``x`` at one position of ``axis``."""
    index = op.sizes([where])
    taken = op.Gather(x, index, axis=axis)
    return drop(op, taken, axis, keepdim)


def median_dim(op: Any, x: Tensor, axis: int, keepdim: bool, *, ignore_nan: bool) -> tuple[Tensor, Tensor]:
    """The lower median along ``axis``; with NaN the first NaN, or the median of the rest where ``ignore_nan``."""
    n = x.shape[axis]
    middle = (n - 1) // 2
    if x.dtype not in FLOATS:
        values, indices = ascending(op, x, axis, middle + 1)
        return take(op, values, middle, axis, keepdim), take(op, indices, middle, axis, keepdim)
    values, indices = ascending(op, x, axis)
    nans = op.ReduceSum(op.cast(op.IsNaN(x), DataType.INT64), [axis], keepdims=1)
    numbers = op.Sub(op.Reshape(op.sizes([n]), []), nans)
    if ignore_nan:
        where = op.Max(op.Div(op.Sub(numbers, 1), 2), 0)
    else:
        where = op.Where(op.Greater(nans, 0), numbers, op.Reshape(op.sizes([middle]), []))
    values = op.GatherElements(values, where, axis=axis)
    indices = op.GatherElements(indices, where, axis=axis)
    return drop(op, values, axis, keepdim), drop(op, indices, axis, keepdim)


def median_all(op: Any, x: Tensor, *, ignore_nan: bool) -> Tensor:
    if len(x.shape) == 0:
        return x
    if count(x, range(len(x.shape))) == 0:
        if x.dtype not in FLOATS:
            raise Unsupported("the median of an empty integer tensor is undefined")
        return op.const(math.nan, x.dtype)
    flat = x if len(x.shape) == 1 else op.Reshape(x, [-1])
    if flat.shape is None or not isinstance(flat.shape[0], int):
        flat.shape = type(x.shape)([count(x, range(len(x.shape)))])
    return median_dim(op, flat, 0, keepdim=False, ignore_nan=ignore_nan)[0]


@translation("aten::median")
def median(op: Any, self: Tensor) -> Tensor:
    return median_all(op, self, ignore_nan=False)


@translation("aten::nanmedian")
def nanmedian(op: Any, self: Tensor) -> Tensor:
    return median_all(op, self, ignore_nan=True)


@translation("aten::median.dim")
def median_along(op: Any, self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if not len(self.shape):
        return self, op.const(0, DataType.INT64)
    return median_dim(op, self, dim % len(self.shape), keepdim, ignore_nan=False)


@translation("aten::nanmedian.dim")
def nanmedian_along(op: Any, self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if not len(self.shape):
        return self, op.const(0, DataType.INT64)
    return median_dim(op, self, dim % len(self.shape), keepdim, ignore_nan=True)


@translation("aten::kthvalue")
def kthvalue(op: Any, self: Tensor, k: int | Size, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if not len(self.shape):
        return self, op.const(0, DataType.INT64)
    axis = dim % len(self.shape)
    values, indices = ascending(op, self, axis, k)
    return take(op, values, k - 1, axis, keepdim), take(op, indices, k - 1, axis, keepdim)


@translation("aten::mode")
def mode(op: Any, self: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The most frequent value (the smallest of several) and its last position: O(n**2) comparisons along the axis."""
    if not len(self.shape):
        return self, op.const(0, DataType.INT64)
    axis = dim % len(self.shape)
    values, indices = ascending(op, self, axis)
    rank = len(self.shape)
    # Sorted values: a run's last element is preceded by all of its equals.
    along = [i for i in range(rank) if i != axis]
    moved = values if axis == rank - 1 else op.Transpose(values, perm=[*along, axis])
    equal = op.Equal(op.Unsqueeze(moved, [rank]), op.Unsqueeze(moved, [rank - 1]))
    frequency = op.ReduceSum(op.cast(equal, DataType.INT32), [rank], keepdims=0)
    first = op.ArgMax(frequency, axis=rank - 1, keepdims=1)
    most = op.ReduceMax(frequency, [rank - 1], keepdims=1)
    where = op.Add(first, op.Sub(op.cast(most, DataType.INT64), 1))
    where = op.Max(where, 0)
    if axis != rank - 1:
        back = list(range(rank - 1))
        back.insert(axis, rank - 1)
        where = op.Transpose(where, perm=back)
    values = op.GatherElements(values, where, axis=axis)
    indices = op.GatherElements(indices, where, axis=axis)
    return drop(op, values, axis, keepdim), drop(op, indices, axis, keepdim)
