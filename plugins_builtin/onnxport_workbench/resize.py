"""Example inputs at other sizes of their dynamic dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from onnxport import InputError
from onnxport.kit import dense, flatten_arguments, runtime
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from onnxport_workbench.sizes import Sizes

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxport import ONNXProgram
    from torch.export import ExportedProgram


_NOISY = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128)


def resized_inputs(
    program: ONNXProgram,
    exported: ExportedProgram | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    smallest_size: int = 1,
    given: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]] = lambda args, kwargs: (args, kwargs),
) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Make inputs of other sizes: all dynamic dimensions larger and each another, then all as small as allowed.

    Dimensions of one name in the file get one size, whether or not the torch model ties them; one that is arithmetic
    over names, such as ``2*n``, gets what follows.

    Args:
        program: the ONNX program, for the names of its dimensions.
        exported: where the dimensions and their ranges are known from; without it, from the graph's inputs.
        args: the example's positional inputs.
        kwargs: its keyword inputs.
        smallest_size: what a dimension is at least in the last set.
        given: what the ONNX model is called with for arguments of the torch model, where there is no torch program.

    Returns:
        For each set of sizes, the sizes as text ("batch=9, seq=4"), and the inputs. The example's rows are repeated,
        so that indices and masks stay valid. Sizes that can't be solved for give no set.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    marked = [_marked(leaf) for leaf in leaves]
    try:
        known = _known(program, exported, given, *pytree.tree_unflatten(marked, structure))
    except InputError:
        return []  # the run with the example reports it
    sizes = Sizes({} if exported is None else exported.range_constraints)
    expected = [_axes(sizes, leaf, *known[id(leaf)]) if id(leaf) in known else None for leaf in marked]
    cases: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    earlier = [sizes.example()]
    generator = torch.Generator().manual_seed(0)
    for smallest in (None, smallest_size):
        chosen = sizes.chosen(smallest)
        if not chosen or chosen in earlier:
            continue
        wanted = [None if axes is None else [sizes.value(axis, chosen) for axis in axes] for axes in expected]
        if any(axes is not None and None in axes for axes in wanted):
            continue
        earlier.append(chosen)
        made = [_resized(leaf, axes, generator) for leaf, axes in zip(leaves, wanted)]
        cases.append((sizes.label(chosen), *pytree.tree_unflatten(made, structure)))
    return cases


class _Int(int):
    """A number that is an object of its own: small numbers are shared."""


def _marked(leaf: Any) -> Any:
    """A leaf that stands for its place alone, though a tensor or a number may be given twice."""
    if isinstance(leaf, torch.Tensor):
        return leaf.detach()
    return _Int(leaf) if type(leaf) is int else leaf


def _known(
    program: ONNXProgram,
    exported: ExportedProgram | None,
    given_of: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[int, tuple[list[Any] | None, ir.Value | None]]:
    """By id of a leaf, its sizes as torch has them, and the graph input that takes it."""
    inputs = program.model.graph.inputs
    if exported is None:
        return {id(leaf): (None, value) for value, leaf in runtime.leaves_by_order(inputs, *given_of(args, kwargs))}
    ordered = flatten_arguments(exported, args, kwargs)
    specs = [s.arg for s in exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    given = {a.name: leaf for a, leaf in zip(specs, ordered) if not isinstance(a, ConstantArgument)}
    values = {id(leaf): value for value, leaf in runtime.leaves_by_name(inputs, given)}
    return {id(leaf): (sizes, values.get(id(leaf))) for leaf, sizes in zip(ordered, _sizes_from_program(exported))}


def _axes(sizes: Sizes, leaf: Any, theirs: list[Any] | None, value: ir.Value | None) -> list[Any] | None:
    """The expressions of a leaf's sizes, or of a number; None for a constant."""
    if not isinstance(leaf, torch.Tensor):
        return None if theirs is None else [sizes.axis(leaf, theirs[0])]
    texts: list[Any] = []
    if value is not None and value.shape is not None:
        texts = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        texts = texts[:-1] if leaf.is_complex() else texts  # a pair of real numbers for each complex one
    if theirs is None and len(texts) != leaf.dim():
        return None
    texts = texts if len(texts) == leaf.dim() else [None] * leaf.dim()
    return [sizes.axis(*axis) for axis in zip(leaf.shape, theirs or [None] * leaf.dim(), texts)]


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


def _resized(leaf: Any, sizes: list[Any] | None, generator: torch.Generator) -> Any:
    if sizes is None:
        return leaf
    if not isinstance(leaf, torch.Tensor):
        return sizes[0]
    if dense(leaf) is not leaf:
        return _resized(dense(leaf), sizes, generator).to_sparse(layout=leaf.layout)
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
