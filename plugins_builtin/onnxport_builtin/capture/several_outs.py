"""Operators that write several results: ``torch.max(x, 1, out=(values, indices))``, ``topk``, ``sort``, ``linalg.qr``.

torch's kernels for shapes give these tensors of ``out=`` the example's sizes. While a non-strict capture traces, the
function is computed without ``out=``, and each result is written by an operator whose ``out=`` follows sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree
from onnxport.kit import Replacement

from onnxport_builtin.capture.non_strict import calls


def several_outs() -> Iterator[Replacement]:
    """While any thread is in it, ``out=`` of these functions follows dynamic sizes."""
    yield from calls(_CALLS)


def _written(function: Callable[..., Any], *args: Any, out: Any = None, **kwargs: Any) -> Callable[[], Any] | None:
    if out is None or not any(map(_is_dynamic, pytree.tree_leaves((args, kwargs, out)))):
        return None

    def written() -> Any:
        results = function(*args, **kwargs)
        if isinstance(results, torch.Tensor):
            return _write(results, out)
        return type(results)([_write(*pair) for pair in zip(results, out, strict=True)])

    return written


def _write(result: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``out`` with the value and the shape of a result, which has its dtype: nothing else is taken in eager."""
    if result.dtype != out.dtype:
        raise RuntimeError(f"Expected out= to have dtype {result.dtype}, but got {out.dtype} instead")
    return torch.mul(result, 1, out=out)


def _is_dynamic(value: Any) -> bool:
    sizes = value.shape if isinstance(value, torch.Tensor) else [value]
    return any(isinstance(size, torch.SymInt) for size in sizes)


_FUNCTIONS = (
    *(torch.max, torch.min, torch.topk, torch.sort, torch.kthvalue, torch.median, torch.nanmedian, torch.mode),
    *(torch.cummax, torch.cummin, torch.aminmax, torch.frexp, torch.gather, torch.take_along_dim),
    *(torch.linalg.qr, torch.linalg.svd, torch.linalg.eigh, torch.linalg.eig, torch.linalg.slogdet, torch.linalg.lu),
    *(torch.linalg.lu_factor, torch.linalg.inv_ex, torch.linalg.cholesky_ex, torch.linalg.solve_ex),
    *(torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm),
)
_CALLS = {function: functools.partial(_written, function) for function in _FUNCTIONS}
