"""Sparse tensors, which ONNX operators don't take, as dense ones.

While an export captures, the sparse weights and constants of a model are dense, functions that make sparse tensors of
indices and values make dense ones, and functions for sparse tensors take those. Where a function needs the places of
the elements (``values()``, a softmax over them), they are known of weights and constants; elsewhere that is an error.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from onnxport import CaptureError, is_in_onnx_export, note
from onnxport.kit import Replacement, all_applied
from torch.utils._python_dispatch import _disable_current_modes

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)

_LARGEST = 8 * 2**30  # bytes of a dense tensor in the place of a sparse one


@dataclass
class _Swap:
    """A sparse tensor of a model, and the dense one in its place: ``space[key]`` while a capture lasts."""

    space: Any
    key: Any
    dense: torch.Tensor
    sparse: torch.Tensor


_swaps: list[_Swap] = []
_is_outside: contextvars.ContextVar[bool] = contextvars.ContextVar("onnxport_outside_of_the_trace", default=False)


@contextlib.contextmanager
def dense_tensors(model: torch.nn.Module) -> Iterator[None]:
    """While this is active, the model's sparse tensors are dense, and functions for sparse tensors take dense ones."""
    swaps, containers = [], []
    known: dict[int, torch.Tensor] = {}
    for path, module in model.named_modules():
        for space in (module._parameters, module._buffers, vars(module)):
            for key, value in list(space.items()):
                where = f"{path}.{key}" if path else str(key)
                if _is_sparse(value):
                    note(f"{where}, {_described(value)}, is dense in the file")
                    swaps.append(_Swap(space, key, _dense(value, known), value))
                elif space is vars(module) and type(value) in (list, dict) and not key.startswith("_"):
                    items = list(value.items() if isinstance(value, dict) else enumerate(value))
                    if sparse := [(name, item) for name, item in items if _is_sparse(item)]:
                        note(f"the sparse tensors of {where} are dense in the file")
                        copy = value.copy()
                        containers.append((space, key, copy, value))
                        swaps += [_Swap(copy, name, _dense(item, known), item) for name, item in sparse]
    for globals_, name, value in _globals(model):
        swaps.append(_Swap(globals_, name, _dense(value, known), value))
    with all_applied(_replaced()):
        try:
            for space, key, copy, _ in containers:
                space[key] = copy
            for swap in swaps:
                swap.space[swap.key] = swap.dense
            _swaps.extend(swaps)
            yield
        finally:
            for swap in swaps:
                swap.space[swap.key] = swap.sparse
                _swaps.remove(swap)
            for space, key, _, value in containers:
                space[key] = value


def _globals(model: torch.nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """Sparse tensors that the code of a forward reads by a global name."""
    found = set()
    for kind in {type(module) for module in model.modules()}:
        function = inspect.unwrap(kind.forward)
        names, space = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        for name in names.co_names if names is not None else ():
            if _is_sparse(space.get(name)) and (id(space), name) not in found:
                found.add((id(space), name))
                yield space, name, space[name]


def _is_sparse(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout in _LAYOUTS


def _described(value: torch.Tensor) -> str:
    layout = str(value.layout).removeprefix("torch.sparse_").upper()
    return f"a sparse tensor ({layout}, {value._nnz()} entries, {list(value.shape)})"


def _dense(tensor: torch.Tensor, known: dict[int, torch.Tensor]) -> torch.Tensor:
    if id(tensor) not in known:
        size = tensor.numel() * tensor.dtype.itemsize
        if size > _LARGEST:
            raise CaptureError(
                f"The model has {_described(tensor)}, which would be {size / 2**30:.0f} GiB as a dense one, and ONNX "
                "operators take no other. Compute with its indices and values instead (torch.Tensor.index_add)."
            )
        data = _outside(torch.Tensor.to_dense, tensor.detach())
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        known[id(tensor)] = torch.nn.Parameter(data, tensor.requires_grad) if is_parameter else data
    return known[id(tensor)]


def _outside(function: Callable[..., Any], *args: Any) -> Any:
    """What a function of torch gives for real tensors, without a trace of it: the result is a constant."""
    token = _is_outside.set(True)
    try:
        with torch.no_grad(), _disable_current_modes():
            return function(*args)
    finally:
        _is_outside.reset(token)


def _pattern(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """The sparse tensor itself, or the one that a dense tensor stands for.

    Raises:
        CaptureError: it is an input, or was computed: where its elements are isn't known.
    """
    known = _known(tensor)
    if known is not None:
        return known
    raise CaptureError(
        f"{what} needs the places of a sparse tensor's elements, which are known of weights and constants alone: the "
        "file has dense tensors. Give the indices and values as inputs, or call to_dense() first and compute with that"
    )


def _known(tensor: torch.Tensor) -> torch.Tensor | None:
    """The sparse tensor itself, or the weight or constant that a dense tensor stands for; None for all others."""
    if _is_sparse(tensor):
        return tensor
    for swap in _swaps:
        if tensor is swap.dense or tensor is swap.space[swap.key]:  # torch.export puts a fake one there
            return swap.sparse
    return None


def _mask(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """Where the elements are, of the tensor's shape."""

    def where(sparse: torch.Tensor) -> torch.Tensor:
        pattern = sparse.to_sparse_coo().coalesce()
        ones = torch.ones_like(pattern.values(), dtype=torch.bool)
        return torch.zeros(sparse.shape, dtype=torch.bool).index_put(tuple(pattern.indices()), ones)

    return _outside(where, _pattern(tensor, what))


def _plain(value: Any) -> Any:
    """A real sparse tensor, such as a global of the model's code, as a dense constant."""
    return _outside(torch.Tensor.to_dense, value) if _is_sparse(value) else value


# What takes their place ----------------------------------------------------------------------------------------------


def _instead(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """While this thread captures, ``function`` on dense tensors in place of the original."""

    def replaced(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not is_in_onnx_export() or _is_outside.get():
                return original(*args, **kwargs)
            return function(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})

        return call

    return replaced


def _of_pattern(name: str) -> Callable[[Any], Any]:
    """A method of sparse tensors, asked of the one that a dense tensor stands for."""

    def replaced(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: torch.Tensor, *args: Any) -> Any:
            if not is_in_onnx_export() or _is_outside.get():
                return original(self, *args)
            pattern = _pattern(self, f"Tensor.{name}()")
            if name in ("values", "indices") and pattern.layout is torch.sparse_coo:
                pattern = _outside(torch.Tensor.coalesce, pattern)
            found = _outside(original, pattern, *args)
            return _outside(torch.Tensor.clone, found) if isinstance(found, torch.Tensor) else found

        return method

    return replaced


def _itself(self: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
    return self


def _to_sparse(self: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
    if _known(self) is None:
        raise CaptureError(
            "Tensor.to_sparse() of an input or a computed tensor: ONNX has no operator that gives a sparse tensor. "
            "Leave it out: a dense tensor has the same values, and torch.sparse.mm takes it too"
        )
    return self


def _to_dense(self: torch.Tensor, dtype: torch.dtype | None = None, **_kwargs: Any) -> torch.Tensor:
    return self if dtype is None else self.to(dtype)


def _mm(mat1: torch.Tensor, mat2: torch.Tensor, reduce: str | None = None) -> torch.Tensor:
    if reduce not in (None, "sum"):
        raise CaptureError(f"torch.sparse.mm(reduce={reduce!r}) can't be exported: use torch.Tensor.scatter_reduce")
    return torch.mm(mat1, mat2)


def _addmm(mat: torch.Tensor, mat1: torch.Tensor, mat2: torch.Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    return torch.addmm(mat, mat1, mat2, beta=beta, alpha=alpha)


def _sum(input: torch.Tensor, dim: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
    return input.sum(dtype=dtype) if dim is None else input.sum(dim, dtype=dtype)


def _softmax(name: str, empty: float) -> Callable[..., torch.Tensor]:
    def softmax(input: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        mask = _mask(input, f"torch.sparse.{name}")
        values = getattr(torch, name)(input.masked_fill(~mask, -torch.inf), dim, dtype=dtype)
        return torch.where(mask, values, empty)

    return softmax


def _sampled_addmm(
    input: torch.Tensor, mat1: torch.Tensor, mat2: torch.Tensor, *, beta: float = 1, alpha: float = 1, out: Any = None
) -> torch.Tensor:
    mask = _mask(input, "torch.sparse.sampled_addmm")
    return torch.where(mask, torch.addmm(input, mat1, mat2, beta=beta, alpha=alpha), 0)


def _sparse_mask(self: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(_mask(mask, "Tensor.sparse_mask"), self, 0)


def _scattered(indices: torch.Tensor, values: torch.Tensor, size: Any) -> torch.Tensor:
    """The dense tensor with these values (entries, ...) added up at the indices (axes, entries)."""
    places = tuple(indices[axis] for axis in range(indices.shape[0]))
    return values.new_zeros(tuple(size)).index_put(places, values, accumulate=True)


def _coo(
    indices: Any, values: Any, size: Any = None, *, dtype: torch.dtype | None = None, device: Any = None, **_kwargs: Any
) -> torch.Tensor:
    indices = torch.as_tensor(indices, device=device)
    values = torch.as_tensor(values, dtype=dtype, device=device)
    if dtype is not None:
        values = values.to(dtype)
    if size is None:
        raise CaptureError(
            "torch.sparse_coo_tensor without a size has one that depends on the values of its indices: give the size"
        )
    return _scattered(indices, values, size)


def _compressed(rows: bool, block: bool = False) -> Callable[..., torch.Tensor]:
    """``crow_indices, col_indices, values, size`` (by rows), or the same by columns."""

    def make(
        compressed: Any, plain: Any, values: Any, size: Any = None, *, dtype: torch.dtype | None = None,
        device: Any = None, **_kwargs: Any,
    ) -> torch.Tensor:  # fmt: skip
        compressed, plain = (torch.as_tensor(index, device=device) for index in (compressed, plain))
        values = torch.as_tensor(values, dtype=dtype, device=device)
        if size is None or block or compressed.dim() != 1:
            raise CaptureError(
                "A compressed sparse tensor that forward makes can be exported with a size, without blocks and without "
                "a batch: make a dense tensor there, or torch.sparse_coo_tensor"
            )
        entry = torch.arange(plain.shape[0], device=plain.device)
        other = torch.searchsorted(compressed, entry, right=True) - 1  # the row, or column, that holds the entry
        indices = torch.stack([other, plain] if rows else [plain, other])
        return _scattered(indices, values.to(dtype or values.dtype), size)

    return make


def _replaced() -> Iterable[Replacement]:
    sparse, tensor = torch.sparse, torch.Tensor
    functions: dict[Any, dict[str, Callable[..., Any]]] = {
        sparse: {
            "mm": _mm, "addmm": _addmm, "sum": _sum, "softmax": _softmax("softmax", 0.0),
            "log_softmax": _softmax("log_softmax", 0.0), "sampled_addmm": _sampled_addmm,
        },
        torch: {
            "spmm": torch.mm, "smm": torch.mm, "hspmm": torch.mm, "dsmm": torch.mm, "hsmm": torch.mm,
            "sspaddmm": torch.addmm, "saddmm": torch.addmm, "sparse_coo_tensor": _coo,
            "sparse_csr_tensor": _compressed(True), "sparse_csc_tensor": _compressed(False),
            "sparse_bsr_tensor": _compressed(True, True), "sparse_bsc_tensor": _compressed(False, True),
        },
        tensor: {
            **dict.fromkeys(
                ("coalesce", "to_sparse_csr", "to_sparse_csc", "to_sparse_bsr", "to_sparse_bsc"), _itself,
            ),
            **dict.fromkeys(("to_sparse", "to_sparse_coo"), _to_sparse),
            "to_dense": _to_dense, "smm": torch.mm, "sspaddmm": torch.addmm, "sparse_mask": _sparse_mask,
            "is_coalesced": lambda self: True,
        },
    }  # fmt: skip
    for owner, named in functions.items():
        for name, function in named.items():
            if hasattr(owner, name):
                yield Replacement(owner, name, _instead(function))
    for name in ("values", "indices", "_values", "_indices", "_nnz", "crow_indices", "col_indices", "ccol_indices",
                 "row_indices", "sparse_dim", "dense_dim"):  # fmt: skip
        yield Replacement(tensor, name, _of_pattern(name))
