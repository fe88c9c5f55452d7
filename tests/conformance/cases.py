"""Cases out of torch's operator database: one sample of one operator, its tensors as inputs, the rest baked in."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
import torch.utils._pytree as pytree

DTYPES = [
    *("float32", "float64", "int64", "int32", "uint8", "bool", "float16", "bfloat16"),
    *("complex64", "complex128"),
]

#: what these return holds whatever was in memory: dtype and shape are all there is to compare
UNINITIALIZED = frozenset({"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"})

_HOLE = object()


class Baked(torch.nn.Module):
    """The operator with its non-tensor arguments baked in."""

    def __init__(self, function: Any, spec: Any, leaves: list[Any]) -> None:
        super().__init__()
        self.function, self.spec, self.leaves = function, spec, leaves

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if leaf is _HOLE else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.function(*args, **kwargs)


@dataclass
class Case:
    """One sample of one operator.

    Attributes:
        name: the entry's name and, after a dot, its variant.
        dtype: name of the dtype asked of the sample generator.
        index: place of the sample in the generator's list.
        tensors: the inputs.
        module: takes the inputs; all other arguments are its own.
        siblings: inputs of other samples with equal other arguments and inputs of the same ranks, shapes apart.
    """

    name: str
    dtype: str
    index: int
    tensors: list[torch.Tensor]
    module: torch.nn.Module
    siblings: list[list[torch.Tensor]] = field(default_factory=list)


@dataclass
class _Sample:
    tensors: list[torch.Tensor]
    leaves: list[Any]
    spec: Any

    @property
    def key(self) -> str:
        """Equal for samples that differ in their tensors' values and sizes alone."""
        signature = [(t.dtype, t.dim(), str(t.layout)) for t in self.tensors]
        return repr((self.spec, ["tensor" if leaf is _HOLE else leaf for leaf in self.leaves], signature))


def operators() -> list[Any]:
    """torch's operator database."""
    from torch.testing._internal.common_methods_invocations import op_db

    return list(op_db)


def name_of(entry: Any) -> str:
    """``name`` or ``name.variant``."""
    return f"{entry.name}.{entry.variant_test_name}" if entry.variant_test_name else str(entry.name)


def has_dtype(entry: Any, dtype: str) -> bool:
    """Whether the operator takes that dtype on the CPU."""
    return getattr(torch, dtype) in entry.supported_dtypes("cpu")


def reseed(seed: int = 0) -> None:
    """The same random numbers each time."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed, which asks for each accelerator, takes milliseconds


def cases(entry: Any, dtype: str, limit: int) -> Iterator[Case]:
    """Samples spread over the generator, not only its trivial first ones; all of them when ``limit`` is 0."""
    reseed()
    samples = [_taken_apart(s) for s in entry.sample_inputs("cpu", getattr(torch, dtype), requires_grad=False)]
    step = max(1, len(samples) // limit) if limit else 1
    chosen = list(range(0, len(samples), step))
    keys = [sample.key for sample in samples]
    for index in chosen[-limit:] if limit else chosen:
        sample = samples[index]
        siblings = [
            other.tensors
            for key, other in zip(keys, samples)
            if key == keys[index] and [t.shape for t in other.tensors] != [t.shape for t in sample.tensors]
        ]
        module = Baked(entry.op, sample.spec, sample.leaves).eval()
        yield Case(name_of(entry), dtype, index, sample.tensors, module, siblings[-4:])


def _taken_apart(sample: Any) -> _Sample:
    leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), dict(sample.kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return _Sample(tensors, [_HOLE if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec)


def copied(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Inputs that may be written to."""
    return tuple(tensor.detach().clone() for tensor in tensors)


# Other sizes ---------------------------------------------------------------------------------------------------------


def symbolic_shapes(program: torch.export.ExportedProgram) -> list[tuple[Any, ...]]:
    """Shapes of the user's tensor inputs: ints, and sympy expressions where the capture left a dimension open."""
    wanted = set(program.graph_signature.user_inputs)
    shapes = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted and isinstance(node.meta.get("val"), torch.Tensor):
            shapes.append(tuple(d.node.expr if isinstance(d, torch.SymInt) else int(d) for d in node.meta["val"].shape))
    return shapes


def other_inputs(case: Case, program: torch.export.ExportedProgram) -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Inputs of other sizes that the captured shapes allow: of other samples first, then grown ones."""
    shapes = symbolic_shapes(program)
    if len(shapes) != len(case.tensors):
        return
    for tensors in case.siblings:
        if _fits(shapes, [tuple(t.shape) for t in tensors]):
            yield "sample", copied(tensors)
    if _is_linear_algebra(case.name) or case.name in _SORTED:
        return  # a matrix grown by repetition is singular, or no longer positive definite
    values = {
        d: size
        for shape, tensor in zip(shapes, case.tensors)
        for d, size in zip(shape, tensor.shape)
        if getattr(d, "is_Symbol", False)
    }
    for grow in (lambda n: n + 2, lambda n: 2 * n, lambda n: n + 1):
        new = {symbol: grow(int(size)) for symbol, size in values.items()}
        sizes = [tuple(int(d.subs(new)) if hasattr(d, "subs") else d for d in shape) for shape in shapes]
        yield "grown", tuple(_grown(tensor, size) for tensor, size in zip(case.tensors, sizes))


#: take boundaries in order, which repetition is not
_SORTED = ("bucketize", "searchsorted")


def _is_linear_algebra(name: str) -> bool:
    matrix_words = (
        "cholesky",
        "lu",
        "svd",
        "inverse",
        "pinverse",
        "logdet",
        "ormqr",
        "geqrf",
        "qr",
        "triangular_solve",
    )
    return name.startswith("linalg.") or name.split(".")[0] in matrix_words or "cholesky" in name or "lowrank" in name


def _fits(shapes: Sequence[tuple[Any, ...]], sizes: Sequence[tuple[int, ...]]) -> bool:
    known: dict[Any, int] = {}
    for shape, size in zip(shapes, sizes):
        for d, n in zip(shape, size):
            if isinstance(d, int):
                if d != n:
                    return False
            elif n < 2 or (d.is_Symbol and known.setdefault(d, n) != n):
                return False  # torch.export takes sizes of 0 and 1 for fixed ones
    return all(
        int(d.subs(known)) == n
        for shape, size in zip(shapes, sizes)
        for d, n in zip(shape, size)
        if not isinstance(d, int) and not d.is_Symbol and d.free_symbols <= known.keys()
    )


def _grown(tensor: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The tensor repeated up to a size, so that its values stay in the operator's domain; floats a little apart, where
    that doesn't round them to poles and edges."""
    result = tensor.detach()
    for axis, n in enumerate(size):
        if n != result.shape[axis] and result.shape[axis]:
            places = torch.arange(n) % result.shape[axis]
            result = result.index_select(axis, places)
    wide = tensor.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128)
    if wide and result.shape != tensor.shape:
        generator = torch.Generator().manual_seed(1)
        result = result * (1 - 0.05 * torch.rand(result.shape, generator=generator)).to(result.dtype)
    return result.clone()


__all__ = ["DTYPES", "Baked", "Case", "cases", "copied", "has_dtype", "name_of", "operators", "other_inputs", "reseed"]
