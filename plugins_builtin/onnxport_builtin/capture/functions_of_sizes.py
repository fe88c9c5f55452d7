"""Functions of torch that take plain numbers where a model gives dynamic sizes: ``one_hot(index, n)``, ``linspace``.

torch.export makes such a size the example's. While a non-strict capture traces, these functions are computed from
their formulas: classes of one_hot, indices of triangles, ranges, powers, frequencies, corrections of variances,
scales of attention.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from onnxport.kit import Replacement
from torch.fx.experimental.symbolic_shapes import statically_known_true

from onnxport_builtin.capture.non_strict import calls

_SYMBOLIC = (torch.SymInt, torch.SymFloat)
_Chosen = Callable[[], Any] | None
_library = torch.library.Library("onnxport", "FRAGMENT")
_library.define("triangle_indices(SymInt row, SymInt col, SymInt offset, bool lower, ScalarType dtype) -> Tensor")


def functions_of_sizes() -> Iterator[Replacement]:
    """While any thread is in it, these functions take dynamic sizes."""
    yield from calls(_CALLS)
    for name, choose in (("linspace", _linspace), ("logspace", _logspace), ("range", _range)):
        yield Replacement(
            torch, name, functools.partial(_attribute, choose)
        )  # for decompositions, which no handler sees


def _is_symbolic(*numbers: Any) -> bool:
    return any(isinstance(number, _SYMBOLIC) for number in numbers)


def _scalar(number: Any, dtype: torch.dtype, device: Any = None) -> torch.Tensor:
    """A 0-d tensor; a tensor is cast."""
    if isinstance(number, torch.Tensor):
        return number.to(dtype)
    return torch.scalar_tensor(number, dtype=dtype, device=device)


# Classes and indices --------------------------------------------------------------------------------------------------


def _one_hot(tensor: torch.Tensor, num_classes: Any = -1) -> _Chosen:
    if not _is_symbolic(num_classes):
        return None

    def one_hot() -> torch.Tensor:
        classes = torch.arange(num_classes, dtype=tensor.dtype, device=tensor.device)
        return (tensor.unsqueeze(-1) == classes).to(torch.int64)

    return one_hot


def _triangle(
    lower: bool, row: Any, col: Any, offset: Any = 0, *, dtype: torch.dtype = torch.int64, device: Any = None, **_: Any
) -> _Chosen:
    if not _is_symbolic(row, col, offset):
        return None
    indices = torch.ops.onnxport.triangle_indices
    return lambda: indices(row, col, offset, lower, dtype or torch.int64).to(device or torch.get_default_device())


def _triangle_indices(row: Any, col: Any, offset: Any, lower: bool, dtype: torch.dtype) -> torch.Tensor:
    function = torch.tril_indices if lower else torch.triu_indices
    return function(int(row), int(col), int(offset), dtype=dtype)


def _triangle_shape(row: Any, col: Any, offset: Any, lower: bool, dtype: torch.dtype) -> torch.Tensor:
    below = _elements_below(row, col, offset if lower else offset - 1)
    return torch.empty(2, below if lower else row * col - below, dtype=dtype)


def _elements_below(row: Any, col: Any, offset: Any) -> Any:
    """How many elements a lower triangle has: the sum over rows ``i`` of ``i + 1 + offset``, between 0 and ``col``.

    That is a difference of sums of ``max(0, i + 1 + k)``, each of which is a difference of triangular numbers.
    """

    def twice_triangular(k: Any) -> Any:
        k = k if statically_known_true(k >= 0) else 0 if statically_known_true(k <= 0) else torch.sym_max(k, 0)
        return k * (k + 1)

    first = twice_triangular(row + offset) - twice_triangular(offset)
    return (first - (twice_triangular(row + offset - col) - twice_triangular(offset - col))) // 2


_library.impl("triangle_indices", _triangle_indices, "CompositeExplicitAutograd")
torch.library.register_fake("onnxport::triangle_indices", _triangle_shape, lib=_library)

# Ranges ---------------------------------------------------------------------------------------------------------------


def _linspace(
    start: Any, end: Any, steps: Any, *, dtype: torch.dtype | None = None, device: Any = None, **others: Any
) -> _Chosen:
    if not _is_symbolic(steps) or others.get("out") is not None:
        return None
    return functools.partial(_spaced, start, end, steps, _dtype(dtype, start, end), device)


def _dtype(dtype: torch.dtype | None, *ends: Any) -> torch.dtype:
    default = torch.get_default_dtype()
    is_complex = any(v.is_complex() if isinstance(v, torch.Tensor) else isinstance(v, complex) for v in ends)
    return dtype or (default.to_complex() if is_complex else default)


def _spaced(start: Any, end: Any, steps: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
    if dtype.is_complex:
        real = dtype.to_real()
        parts = ([torch.real(_scalar(v, dtype)), torch.imag(_scalar(v, dtype))] for v in (start, end))
        (re, im), (re_end, im_end) = parts
        return torch.complex(_spaced(re, re_end, steps, real, device), _spaced(im, im_end, steps, real, device))
    if not dtype.is_floating_point:
        start, end = (_whole(v) for v in (start, end))
    work = torch.float32 if dtype.is_floating_point and dtype != torch.float64 else torch.float64
    index = torch.arange(steps, dtype=work, device=device)
    first, last = _scalar(start, work, device), _scalar(end, work, device)
    step = (last - first) / _scalar(torch.sym_max(steps - 1, 1), work, device)
    # From both ends towards the middle, as torch does; one step alone is at the start.
    is_first = index < torch.sym_max(steps // 2, 1)
    if dtype.is_floating_point:
        return torch.where(is_first, first + step * index, last - step * (steps - 1 - index)).to(dtype)
    return _fused(step, torch.where(is_first, index, index - (steps - 1)), torch.where(is_first, first, last)).to(dtype)


def _fused(step: torch.Tensor, index: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """``start + step * index`` with one rounding, as processors compute it: integers cut off what is just below one.

    The step is the sum of two numbers of 26 bits, whose products with an index are exact (Dekker, 1971).
    """
    scaled = step * (2.0**27 + 1)
    high = scaled - (scaled - step)
    near = torch.round(start + step * index)
    return near + (((start - near) + high * index) + (step - high) * index)


def _whole(number: Any) -> Any:
    """An end of a range of integers: eager cuts off its fraction first."""
    if isinstance(number, torch.Tensor):
        return number.to(torch.int64)
    return number if isinstance(number, torch.SymInt) else math.trunc(number)


def _logspace(
    start: Any,
    end: Any,
    steps: Any,
    base: float = 10.0,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    **others: Any,
) -> _Chosen:
    wanted = _dtype(dtype, start, end)
    if not _is_symbolic(steps, base) or others.get("out") is not None or wanted.is_complex:
        return None

    def logspace() -> torch.Tensor:
        if wanted.is_floating_point:
            work = torch.float64 if wanted == torch.float64 else torch.float32
            exponents = _spaced(start, end, steps, work, device)
        else:
            work = torch.float64
            exponents = _spaced(_whole(start), _whole(end), steps, work, device)
        return torch.pow(_scalar(base, work, device), exponents).to(wanted)

    return logspace


def _range(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    **others: Any,
) -> _Chosen:
    start, end = (0, start) if end is None else (start, end)
    if not _is_symbolic(start, end, step) or others.get("out") is not None:
        return None

    def inclusive() -> torch.Tensor:
        count = math.floor((end - start) / step) + 1 if _of_floats(start, end, step) else (end - start) // step + 1
        wanted = dtype or torch.get_default_dtype()
        work = torch.float64 if wanted == torch.float64 or not wanted.is_floating_point else torch.float32
        index = torch.arange(count, dtype=work, device=device)
        return (_scalar(start, work, device) + _scalar(step, work, device) * index).to(wanted)

    return inclusive


def _attribute(choose: Callable[..., _Chosen], original: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        chosen = None if torch.compiler.is_dynamo_compiling() else choose(*args, **kwargs)
        return original(*args, **kwargs) if chosen is None else chosen()

    return function


def _of_floats(*numbers: Any) -> bool:
    return any(isinstance(number, (float, torch.SymFloat)) for number in numbers)


def _frequencies(
    is_half: bool, n: Any, d: Any = 1.0, *, dtype: torch.dtype | None = None, device: Any = None, **others: Any
) -> _Chosen:
    if not _is_symbolic(n, d) or others.get("out") is not None:
        return None

    def frequencies() -> torch.Tensor:
        wanted = dtype or torch.get_default_dtype()
        work = torch.float64 if wanted == torch.float64 else torch.float32
        index = torch.arange(n // 2 + 1 if is_half else n, device=device)
        if not is_half:
            index = torch.where(index < (n + 1) // 2, index, index - n)
        scale = 1 / (_scalar(n, torch.float64, device) * _scalar(d, torch.float64, device))
        return (index.to(work) * scale.to(work)).to(wanted)

    return frequencies


def _vander(x: torch.Tensor, N: Any = None, increasing: bool = False) -> _Chosen:
    powers = _linalg_vander(x, N=N)
    return powers if powers is None or increasing else lambda: powers().flip(-1)


def _linalg_vander(x: torch.Tensor, *, N: Any = None) -> _Chosen:
    columns = x.shape[-1] if N is None else N
    if not _is_symbolic(columns) and not (N is not None and _is_symbolic(*x.shape)):
        return None

    def powers() -> torch.Tensor:
        factors = x.unsqueeze(-1).expand(*x.shape, columns - 1)
        return torch.cat([factors.new_ones([*x.shape, 1]), factors], -1).cumprod(-1)

    return powers


# Variances ------------------------------------------------------------------------------------------------------------


def _spread(
    name: str,
    input: torch.Tensor,
    dim: Any = None,
    *,
    correction: Any = 1,
    keepdim: bool = False,
    out: Any = None,
    **others: Any,
) -> _Chosen:
    """A variance or deviation of an empty or negative number of degrees of freedom is divided by 0, as eager's is."""
    if not _is_symbolic(correction) or out is not None or others:
        return None

    def spread() -> Any:
        listed = list(range(input.dim())) if dim is None or dim == () else [dim] if isinstance(dim, int) else list(dim)
        work = torch.float64 if input.dtype in (torch.float64, torch.complex128) else torch.float32
        count = math.prod(input.shape[axis] for axis in listed)
        freedom = _scalar(count - correction, torch.float64, input.device).clamp(min=0)
        factor = (_scalar(count, torch.float64, input.device) / freedom).to(work)
        variance = torch.var(input, listed, correction=0, keepdim=keepdim)
        result = (variance.to(work) * factor).to(variance.dtype)
        result = torch.sqrt(result) if name.startswith("std") else result
        return (result, torch.mean(input, listed, keepdim=keepdim)) if name.endswith("_mean") else result

    return spread


def _cov(input: torch.Tensor, *, correction: Any = 1, fweights: Any = None, aweights: Any = None) -> _Chosen:
    """torch asks whether the degrees of freedom are none, to warn."""
    is_weighted = fweights is not None or aweights is not None
    if input.dim() > 2 or is_weighted or not _is_symbolic(correction, *input.shape):
        return None
    return functools.partial(_covariance, input, correction)


def _covariance(input: torch.Tensor, correction: Any) -> torch.Tensor:
    rows = input if input.dim() == 2 else input.reshape(1, -1)
    centered = rows - rows.sum(1, keepdim=True) / rows.shape[1]
    freedom = _scalar(rows.shape[1] - correction, centered.dtype.to_real(), input.device).clamp(min=0)
    result = centered @ centered.mH / freedom
    return result if input.dim() == 2 and input.shape[0] != 1 else result.reshape(())


def _corrcoef(input: torch.Tensor) -> _Chosen:
    if input.dim() > 2 or not _is_symbolic(*input.shape):
        return None

    def correlations() -> torch.Tensor:
        covariance = _covariance(input, 1)
        if covariance.dim() == 0:
            return covariance / covariance
        deviations = covariance.diagonal().real.sqrt()
        result = covariance / deviations.unsqueeze(1) / deviations.unsqueeze(0)
        return result if result.is_complex() else result.clamp(-1, 1)

    return correlations


# Numbers of operators -------------------------------------------------------------------------------------------------


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> _Chosen:
    if not _is_symbolic(scale):
        return None

    def attention() -> torch.Tensor:
        scaled = query * _scalar(scale, query.dtype, query.device)
        return F.scaled_dot_product_attention(
            scaled, key, value, attn_mask, dropout_p, is_causal, scale=1.0, enable_gqa=enable_gqa
        )

    return attention


def _quantile(name: str, input: torch.Tensor, q: Any, dim: Any = None, keepdim: bool = False, **others: Any) -> _Chosen:
    if not _is_symbolic(q):
        return None
    function = getattr(torch, name)
    return lambda: function(input, _scalar(q, input.dtype, input.device), dim, keepdim, **others)


def _trapezoid(name: str, y: torch.Tensor, x: Any = None, *, dx: Any = 1, dim: int = -1) -> _Chosen:
    if x is not None or not _is_symbolic(dx):
        return None
    return lambda: getattr(torch, name)(y, dx=1, dim=dim) * dx


def _table() -> dict[Any, Callable[..., _Chosen]]:
    spreads = {name: functools.partial(_spread, name) for name in ("var", "std", "var_mean", "std_mean")}
    return {
        F.one_hot: _one_hot,
        torch.tril_indices: functools.partial(_triangle, True),
        torch.triu_indices: functools.partial(_triangle, False),
        torch.cov: _cov,
        torch.Tensor.cov: _cov,
        torch.corrcoef: _corrcoef,
        torch.Tensor.corrcoef: _corrcoef,
        F.scaled_dot_product_attention: _attention,
        **{
            getattr(owner, name): functools.partial(_quantile, name)
            for owner in (torch, torch.Tensor)
            for name in ("quantile", "nanquantile")
        },
        **{
            getattr(torch, name): functools.partial(_trapezoid, name)
            for name in ("trapezoid", "trapz", "cumulative_trapezoid")
        },
        torch.linspace: _linspace,
        torch.logspace: _logspace,
        torch.vander: _vander,
        torch.linalg.vander: _linalg_vander,
        torch.fft.fftfreq: functools.partial(_frequencies, False),
        torch.fft.rfftfreq: functools.partial(_frequencies, True),
        **{getattr(torch, name): function for name, function in spreads.items()},
        **{getattr(torch.Tensor, name): spreads[name] for name in ("var", "std")},
    }


_CALLS = _table()  # of torch's own functions: other replacements stand while a capture goes on
