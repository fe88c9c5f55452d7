"""Example inputs at other sizes of their dynamic dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from onnxport.errors import InputError
from onnxport.running import runtime

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from onnxport.program import ONNXProgram


_NOISY = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128)


def resized_inputs(
    program: ONNXProgram,
    exported: ExportedProgram | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    smallest_size: int = 1,
) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Make inputs of other sizes: all dynamic dimensions larger and each another, then all as small as allowed.

    Args:
        program: the ONNX program, for the names of its dimensions.
        exported: where the dimensions and their ranges are known from; without it, from the graph's inputs.
        args: the example's positional inputs.
        kwargs: its keyword inputs.
        smallest_size: what a dimension is at least in the last set.

    Returns:
        For each set of sizes, the sizes as text ("batch=9, seq=4"), and the inputs. The example's rows are repeated,
        so that indices and masks stay valid. Sizes that can't be solved for give no set.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    if exported is None:
        sizes = _sizes_from_graph(program, leaves, kwargs)
        ranges: Mapping[Any, Any] = {}
    else:
        try:
            ordered = runtime.flatten_arguments(exported, args, kwargs)
        except InputError:
            return []  # the run with the example reports it
        by_id = dict(zip(map(id, ordered), _sizes_from_program(exported)))
        sizes, ranges = [by_id.get(id(leaf)) for leaf in leaves], exported.range_constraints
    known: dict[sympy.Symbol, int] = {}
    for leaf, wanted in zip(leaves, sizes):
        for size, expr in zip(_present(leaf), wanted or ()):
            symbols = sympy.sympify(expr).free_symbols
            if len(symbols) == 1 and not symbols & set(known):
                (symbol,) = symbols
                solved = sympy.solve(expr - size, symbol) if expr.is_polynomial(symbol) else []
                if len(solved) == 1 and solved[0].is_Integer:
                    known[symbol] = int(solved[0])
    cases: list[tuple[dict[sympy.Symbol, int], tuple[Any, ...], dict[str, Any]]] = []
    generator = torch.Generator().manual_seed(0)
    for smallest in (False, True):
        chosen: dict[sympy.Symbol, int] = {}
        for i, (symbol, size) in enumerate(known.items()):
            lower, upper = _bounds(ranges.get(symbol), smallest_size)
            chosen[symbol] = lower if smallest else max(lower, min(upper, 2 * size + 1 + i))
        if not chosen or chosen == known or any(chosen == earlier for earlier, _, _ in cases):
            continue
        made = [_resized(leaf, wanted, chosen, generator) for leaf, wanted in zip(leaves, sizes)]
        if any(item is None for item, leaf in zip(made, leaves) if leaf is not None):
            continue
        new_args, new_kwargs = pytree.tree_unflatten(made, structure)
        cases.append((chosen, new_args, new_kwargs))
    names = _dimension_names(program)
    return [
        (", ".join(f"{names.get(symbol, symbol)}={size}" for symbol, size in chosen.items()), a, k)
        for chosen, a, k in cases
    ]


def _dimension_names(program: ONNXProgram) -> dict[Any, str]:
    """The graph's names for torch's symbols."""
    dims = [dim for value in program.model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)]
    return {getattr(dim, "expr", None): str(dim.value) for dim in dims}


def _present(leaf: Any) -> Sequence[int]:
    return leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)


def _sizes_from_program(exported: ExportedProgram) -> list[list[Any] | None]:
    """For each user input, its dimensions (or the number itself) as ints and sympy expressions; None for constants."""
    fakes = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    sizes: list[list[Any] | None] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            fake = fakes.get(spec.arg.name)
            dims = list(fake.shape) if isinstance(fake, torch.Tensor) else [fake]
            symbolic = isinstance(fake, (torch.Tensor, torch.SymInt))
            sizes.append([getattr(getattr(dim, "node", None), "expr", dim) for dim in dims] if symbolic else None)
    return sizes


def _sizes_from_graph(program: ONNXProgram, leaves: list[Any], kwargs: dict[str, Any]) -> list[list[Any] | None]:
    """The same from the graph's inputs, where their dimensions are plain names."""
    inputs = list(program.model.graph.inputs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if len(tensors) != len(inputs):
        return [None] * len(leaves)
    named = {id(kwargs[value.name]): value for value in inputs if value.name in kwargs}
    rest = iter(value for value in inputs if value.name not in kwargs)
    sizes: list[list[Any] | None] = []
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            sizes.append(None)
            continue
        value = named.get(id(leaf)) or next(rest)
        dims = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or leaf.shape]
        if any(isinstance(dim, str) and not dim.isidentifier() for dim in dims):
            return [None] * len(leaves)
        sizes.append([dim if isinstance(dim, int) else sympy.Symbol(dim, integer=True) for dim in dims])
    return sizes


def _bounds(constraint: Any, smallest: int) -> tuple[int, int]:
    """The sizes to choose from. torch gives every dynamic dimension a lower bound of 2 by default: 1 is tried, too."""
    lower = int(constraint.lower) if constraint is not None and constraint.lower.is_Integer else 0
    upper = int(constraint.upper) if constraint is not None and constraint.upper.is_Integer else 2**31
    return (smallest if lower <= 2 <= upper or lower <= 1 else lower), upper


def _resized(leaf: Any, wanted: list[Any] | None, chosen: dict[Any, int], generator: torch.Generator) -> Any:
    if wanted is None:
        return leaf
    sizes = [int(size) for size in (sympy.sympify(expr).subs(chosen) for expr in wanted) if size.is_Integer]
    if len(sizes) != len(wanted):
        return None
    if not isinstance(leaf, torch.Tensor):
        return sizes[0] if sizes else leaf  # a symbolic int, or a float that is a 0-d tensor in the file
    tensor = leaf.detach()
    for axis, (old, new) in enumerate(zip(tensor.shape, sizes)):
        if old == 0 < new:
            tensor = tensor.new_zeros([*tensor.shape[:axis], new, *tensor.shape[axis + 1 :]])
        elif old != new:
            tensor = tensor.index_select(axis, torch.arange(new, device=tensor.device) % max(old, 1))
    if tensor.dtype in _NOISY:
        # Repeated rows would hide an element that comes from the wrong one. Magnitudes only shrink, so that values
        # stay where they may be (probabilities, masks of 0 and -inf).
        noise = torch.rand(tensor.shape, generator=generator)
        tensor = tensor * (1 - 0.1 * noise).to(tensor.device, tensor.dtype)
    return tensor.requires_grad_() if leaf.requires_grad else tensor


def with_small_integers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs with integer tensors that are valid indices of every dimension of the inputs."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    smallest = min((size for tensor in tensors for size in tensor.shape if size), default=1)

    def reduced(leaf: Any) -> Any:
        integral = isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.int64, torch.int32, torch.int16, torch.int8)
        return leaf.remainder(smallest) if integral else leaf

    return pytree.tree_map(reduced, (args, kwargs))  # type: ignore[no-any-return]
