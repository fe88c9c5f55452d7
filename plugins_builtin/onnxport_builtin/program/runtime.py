"""A call's arguments -> the inputs of an ONNX graph -> onnxruntime -> torch tensors."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxport import ArgumentError, InputError
from onnxport.kit import (
    COMPONENT,
    ONNX_TO_TORCH,
    CallSpec,
    TorchTensor,
    counted,
    dense,
    has_data,
    keys,
    optional,
    pytree,
    recognize,
    shown,
    walk,
    wrong,
)

from onnxport_builtin.program.onnxruntime_package import ort


def bind(
    inputs: Sequence[ir.Value],
    spec: CallSpec | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, torch.Tensor]:
    """Turn the arguments of the model's forward into a tensor for each graph input.

    Numbers and strings that the export baked in must be what they were then; complex tensors become real ones with
    a trailing axis of 2.

    Raises:
        InputError: arguments that the forward of this program doesn't take, or a tensor of another dtype, rank or
            static size than the graph's input; names the argument.
    """
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes)) or not isinstance(kwargs, Mapping):
        raise ArgumentError("args must be a tuple of the forward's positional arguments, kwargs a dict of the others.")
    leaves = leaves_by_order(inputs, args, kwargs) if spec is None else _leaves_of(inputs, spec, args, kwargs)
    sizes: dict[str, tuple[int, str]] = {}
    return {value.name: _checked(value, leaf, sizes) for value, leaf in leaves}  # type: ignore[misc]


def leaves_by_order(
    inputs: Sequence[ir.Value], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[ir.Value, Any]]:
    """Pair graph inputs with the tensors among arguments: by keyword where that is an input's name, else in order.

    Raises:
        InputError: there are more or fewer.
    """
    recognize((args, kwargs))
    by_name = {value.metadata_props.get(keys.ORIGIN, value.name): value.name for value in inputs}
    by_name |= {value.name: value.name for value in inputs}
    named = {by_name[name]: argument for name, argument in kwargs.items() if name in by_name}
    others: dict[str, Any] = {}
    for name, argument in kwargs.items():
        if name in by_name:
            continue
        found = {key: leaf for key, leaf in _named_leaves(name, argument) if key in by_name or _is_tensor(leaf)}
        if found and found.keys() <= by_name.keys() and not {by_name[key] for key in found} & named.keys():
            named |= {by_name[key]: leaf for key, leaf in found.items()}
        else:
            others[name] = argument
    rest = [value for value in inputs if value.name not in named]
    everything = pytree.tree_leaves((tuple(args), others))
    leaves = [leaf for leaf in everything if _is_tensor(leaf)]
    if len(leaves) != len(rest):  # a number may be an input too
        leaves = [leaf for leaf in everything if _is_tensor(leaf) or isinstance(leaf, (int, float))]
    if len(leaves) != len(rest):
        raise InputError(
            f"The model takes {counted(len(inputs), 'input')}, {', '.join(map(_describe, inputs)) or 'none'}; given: "
            f"{counted(len(leaves) + len(named), 'tensor')}. Pass one tensor for each input."
        )
    return [*((value, named[value.name]) for value in inputs if value.name in named), *zip(rest, leaves)]


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, (torch.Tensor, np.ndarray))


def _named_leaves(name: str, argument: Any) -> list[tuple[str, Any]]:
    """The leaves of a keyword argument, called as torch.export calls their placeholders."""
    try:
        return [(placeholder_name(path), leaf) for path, leaf in walk(name, argument)]
    except ValueError:  # a container without key paths
        return []


def placeholder_name(path: str) -> str:
    """The name that torch.export gives to the placeholder of the leaf at this path."""
    return re.sub(r"[^a-z0-9]", "_", path.lower())


def _leaves_of(
    inputs: Sequence[ir.Value], spec: CallSpec, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[ir.Value, Any]]:
    given = {}
    for (name, baked, known), leaf in zip(spec.leaves, spec.flatten(args, kwargs), strict=True):
        if not baked:
            given[name] = leaf
        elif isinstance(leaf, torch.Tensor) or type(leaf) is not type(known) or leaf != known:
            raise InputError(
                f"The argument {name!r} was {known!r} when the model was exported and is baked in; "
                f"{_kind(leaf)} can't take its place. Pass {known!r}, or export again."
            )
    return leaves_by_name(inputs, given)


def leaves_by_name(inputs: Sequence[ir.Value], given: Mapping[str, Any]) -> list[tuple[ir.Value, Any]]:
    """Pair graph inputs with arguments by the names of the exported program's placeholders.

    Raises:
        InputError: a graph input that none of them is for.
    """
    origins = [str(value.metadata_props.get(keys.ORIGIN, value.name)) for value in inputs]
    if all(origin in given for origin in origins):
        return [(value, given[origin]) for value, origin in zip(inputs, origins)]
    if len(given) == len(inputs):
        return list(zip(inputs, given.values()))
    missing = [value.name for value, origin in zip(inputs, origins) if origin not in given]
    raise InputError(
        f"The exported program has no argument for these inputs of the graph: {missing}. Was it edited? Export it "
        "again."
    )


def _kind(leaf: Any) -> str:
    return f"a tensor of shape {list(leaf.shape)}" if isinstance(leaf, torch.Tensor) else repr(leaf)


def _describe(value: ir.Value) -> str:
    dtype = "?" if value.dtype is None else str(ONNX_TO_TORCH.get(value.dtype, value.dtype)).removeprefix("torch.")
    dims = "..." if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.name}: {dtype}[{dims}]"


def _checked(value: ir.Value, leaf: Any, sizes: dict[str, tuple[int, str]]) -> torch.Tensor:
    expected = ONNX_TO_TORCH.get(value.dtype) if value.dtype is not None else None

    def refused(what: str) -> InputError:
        return InputError(f"The input {_describe(value)} {what}", parameter=str(value.name))

    try:
        if isinstance(leaf, np.ndarray):
            leaf = from_numpy(leaf)
        elif isinstance(leaf, (bool, int, float)) and value.shape is not None and len(value.shape) == 0:
            leaf = torch.tensor(leaf, dtype=expected)
    except (TypeError, ValueError, OverflowError, RuntimeError, KeyError) as error:  # of objects, or too large
        raise refused(f"can't be {shown(leaf)}: {error}. Give a tensor.") from error
    if not isinstance(leaf, torch.Tensor):
        raise refused(f"needs a tensor, got {shown(leaf)}.")
    if not has_data(leaf):
        raise refused("got a tensor without data, fake or on the meta device. Give one with values.")
    leaf = dense(leaf)
    if leaf.dtype in COMPONENT:
        leaf = torch.view_as_real(leaf.resolve_conj())
    if expected is not None and keys.DTYPE in value.metadata_props and leaf.is_floating_point():
        leaf = leaf.to(expected)  # the torch model takes float32
    if expected is not None and leaf.dtype is not expected:
        raise refused(f"got {leaf.dtype}. Convert it with .to({expected}).")
    if value.shape is None:
        return leaf
    if len(value.shape) != leaf.dim():
        raise refused(f"got a tensor of rank {leaf.dim()}, shape {list(leaf.shape)}.")
    for axis, (dim, size) in enumerate(zip(value.shape, leaf.shape)):
        if isinstance(dim, int):
            if dim != size:
                raise refused(
                    f"got shape {list(leaf.shape)}: axis {axis} is fixed to {dim}. Export with dynamic_shapes to leave "
                    "it open."
                )
        elif dim.value is not None:
            known, owner = sizes.setdefault(str(dim.value), (size, f"{value.name} axis {axis}"))
            if known != size:
                place = f"axis {axis}, {dim.value!r}"
                raise refused(f"got shape {list(leaf.shape)}: {place}, is {size}, but it is {known} in {owner}.")
    return leaf


def session(model: str | bytes, providers: Sequence[Any] | None = None, options: Any = None) -> ort.InferenceSession:
    """Open an inference session on a model file or its bytes, on CUDA where this onnxruntime has it, else on CPU.

    Its options are onnxruntime's defaults, so that what is computed here is what users of the file get.

    Raises:
        InputError: `providers` or `options` are of another type, or this onnxruntime has no such provider.
    """
    if providers is None:
        available = ort.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    wanted = "a list of names of execution providers, or of pairs of a name and a dict of options"
    if not isinstance(providers, (list, tuple)):
        raise wrong("providers", providers, wanted)
    for i, provider in enumerate(providers):
        pair = isinstance(provider, (list, tuple)) and len(provider) == 2 and isinstance(provider[1], dict)
        if not isinstance(provider[0] if pair else provider, str):
            raise wrong(f"providers[{i}]", provider, wanted)
    names = [name if isinstance(name, str) else name[0] for name in providers]
    if unknown := [name for name in names if name not in ort.get_all_providers()]:
        raise InputError(
            f"onnxruntime has no provider {unknown}; here are {', '.join(ort.get_available_providers())}. Name these.",
            parameter="providers",
        )
    optional("session_options", options, ort.SessionOptions, "an onnxruntime.SessionOptions")
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = 3  # its warnings are about the model's makers, not its users
    try:
        return ort.InferenceSession(model, sess_options=options, providers=list(map(_provider, providers)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"onnxruntime can't use providers={shown(providers)}: {error}. Give names and options that it knows.",
            parameter="providers",
        ) from error


def _provider(given: Any) -> Any:
    return given if isinstance(given, str) else tuple(given)


def run(opened: ort.InferenceSession, feeds: Mapping[str, torch.Tensor], names: Sequence[str]) -> list[torch.Tensor]:
    """Run a session on torch tensors of any dtype that ONNX has; the results are on the CPU."""
    holders = {name: TorchTensor(tensor.detach().cpu().contiguous(), name) for name, tensor in feeds.items()}
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(_bits(holder.numpy()), int(holder.dtype))
        for name, holder in holders.items()
    }
    return [_to_torch(value) for value in opened.run_with_ort_values(list(names), values)]


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.itemsize])


def _to_torch(value: ort.OrtValue) -> torch.Tensor:
    """Copy an onnxruntime value, byte by byte, since numpy doesn't know all of its dtypes."""
    if not value.is_tensor():
        raise InputError(f"An output is a {value.data_type()}; return tensors from the model's forward.")
    dtype, shape = ONNX_TO_TORCH[ir.DataType(value.element_type())], value.shape()
    size = math.prod(shape) * dtype.itemsize
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    data = bytearray((ctypes.c_ubyte * size).from_address(value.data_ptr()))
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape)


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """Convert an array, ml_dtypes' types included, sharing memory where that is safe."""
    dtype = ONNX_TO_TORCH[ir.DataType.from_numpy(array.dtype)]
    array = np.require(array, requirements=["C", "W"])
    return torch.from_numpy(array.view({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[array.itemsize])).view(
        dtype
    )


def restore(values: Sequence[ir.Value], tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Make those results complex again that the graph holds as pairs.

    They are copied: torch 2.14 can't export a model with a complex view of what `from_numpy` gives, itself a view.
    """
    return tuple(
        torch.view_as_complex(tensor.clone(memory_format=torch.contiguous_format))
        if value.metadata_props.get(keys.COMPLEX) == "1"
        else tensor
        for value, tensor in zip(values, tensors, strict=True)
    )


def is_user_output(value: ir.Value) -> bool:
    """Tell the outputs of the model's forward from those that carry mutated buffers and inputs."""
    return value.metadata_props.get(keys.OUTPUT_KIND, "USER_OUTPUT") == "USER_OUTPUT"
