"""A call's arguments -> the inputs of an ONNX graph -> onnxruntime -> torch tensors."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from onnxport.dtypes import COMPONENT, ONNX_TO_TORCH
from onnxport.errors import InputError
from onnxport.weights import TorchTensor

ORIGIN = "pkg.torch.onnx.original_node_name"
COMPLEX = "onnxport.complex"
OUTPUT_KIND = "pkg.torch.export.graph_signature.OutputSpec.kind"


def bind(
    inputs: Sequence[ir.Value],
    program: ExportedProgram | None,
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
        raise InputError("args must be a tuple of the forward's positional arguments, kwargs a dict of the others.")
    if program is None:
        leaves = _leaves_by_order(inputs, args, kwargs)
    else:
        leaves = _leaves_of_program(inputs, program, args, kwargs)
    sizes: dict[str, tuple[int, str]] = {}
    return {value.name: _checked(value, leaf, sizes) for value, leaf in leaves}  # type: ignore[misc]


def _leaves_by_order(
    inputs: Sequence[ir.Value], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[ir.Value, Any]]:
    names = {value.name for value in inputs}
    named = {name: leaf for name, leaf in kwargs.items() if name in names}
    others = {name: leaf for name, leaf in kwargs.items() if name not in names}
    rest = [value for value in inputs if value.name not in named]
    leaves = [
        leaf for leaf in pytree.tree_leaves((tuple(args), others)) if isinstance(leaf, (torch.Tensor, np.ndarray))
    ]
    if len(leaves) != len(rest):
        raise InputError(
            f"The model takes {len(inputs)} input(s), {', '.join(map(_describe, inputs)) or 'none'}; "
            f"{len(leaves) + len(named)} tensor(s) were given. Pass one tensor for each."
        )
    return [*((value, named[value.name]) for value in inputs if value.name in named), *zip(rest, leaves)]


def _leaves_of_program(
    inputs: Sequence[ir.Value], program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[ir.Value, Any]]:
    leaves = flatten_arguments(program, args, kwargs)
    specs = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    given = {}
    for arg, leaf in zip(specs, leaves, strict=True):
        if isinstance(arg, ConstantArgument):
            if isinstance(leaf, torch.Tensor) or type(leaf) is not type(arg.value) or leaf != arg.value:
                raise InputError(
                    f"The argument {arg.name!r} was {arg.value!r} when the model was exported and is baked in; "
                    f"{_kind(leaf)} can't take its place. Pass {arg.value!r}, or export again."
                )
        else:
            given[arg.name] = leaf
    origins = [value.metadata_props.get(ORIGIN, value.name) for value in inputs]
    if all(origin in given for origin in origins):
        return [(value, given[origin]) for value, origin in zip(inputs, origins)]
    if len(given) == len(inputs):
        return list(zip(inputs, given.values()))
    missing = [value.name for value, origin in zip(inputs, origins) if origin not in given]
    raise InputError(f"The exported program has no argument for the graph's input(s) {missing}; was the model edited?")


def flatten_arguments(program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Flatten a call's arguments in the order of the program's user inputs.

    Positional arguments may be given by keyword and the other way round; arguments that are left out get the value
    that was baked in.

    Raises:
        InputError: missing, unknown or repeated arguments, or a container of another structure.
    """
    args_spec, kwargs_spec = program.call_spec.in_spec.children()  # type: ignore[union-attr]
    keywords = list(kwargs_spec.context or [])
    count = args_spec.num_children
    if len(args) != count or set(kwargs) != set(keywords):
        args, kwargs = _rearranged(program, args, kwargs, count, keywords)
    leaves = []
    named = [*zip((f"argument {i + 1}" for i in range(count)), args, args_spec.children())]
    named += [(f"argument {name!r}", kwargs[name], spec) for name, spec in zip(keywords, kwargs_spec.children())]
    for label, value, spec in named:
        value = _in_order(value, spec)
        found, structure = pytree.tree_flatten(value)
        if structure != spec:
            raise InputError(
                f"The {label} is not nested as in the export: expected {_structure(spec)}, got {_structure(structure)}."
            )
        leaves += found
    return leaves


def _rearranged(
    program: ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    count: int,
    keywords: list[str],
) -> tuple[list[Any], dict[str, Any]]:
    signature = program.module_call_graph[0].signature
    names = list(getattr(signature, "forward_arg_names", None) or [])
    if len(names) != count + len(keywords):
        raise InputError(
            f"The model takes {count} positional argument(s) and the keyword argument(s) {keywords}; "
            f"got {len(args)} and {list(kwargs)}."
        )
    bound = dict(zip(names, args))
    problems = []
    if len(args) > len(names):
        problems.append(f"{len(args) - len(names)} positional argument(s) too many")
    problems += [f"{name!r} given twice" for name in kwargs if name in bound]
    problems += [f"{name!r} unknown" for name in kwargs if name not in names]
    bound.update(kwargs)
    examples = {}
    if program.example_inputs is not None:
        example_args, example_kwargs = program.example_inputs
        examples = {**dict(zip(names, example_args)), **example_kwargs}
    for name in names:
        if name not in bound:
            leaves = pytree.tree_leaves(examples[name]) if name in examples else [torch.empty(0)]
            if any(isinstance(leaf, torch.Tensor) for leaf in leaves):
                problems.append(f"{name!r} missing")
            else:
                bound[name] = examples[name]
    if problems:
        raise InputError(f"The arguments don't fit the model's forward({', '.join(names)}): {'; '.join(problems)}.")
    return [bound[name] for name in names[:count]], {name: bound[name] for name in keywords}


def _in_order(value: Any, spec: pytree.TreeSpec) -> Any:
    """Put the items of plain dicts into the order they had at export."""
    if spec.type is dict and type(value) is dict and set(value) == set(spec.context):
        return {key: _in_order(value[key], child) for key, child in zip(spec.context, spec.children())}
    if spec.type in (list, tuple) and type(value) is spec.type and len(value) == spec.num_children:
        return spec.type(_in_order(item, child) for item, child in zip(value, spec.children()))
    return value


def _structure(spec: pytree.TreeSpec) -> str:
    if spec.is_leaf():
        return "a tensor or number"
    kind, keys = getattr(spec.type, "__name__", str(spec.type)), spec.context if isinstance(spec.context, list) else []
    below = [_structure(child) for child in spec.children()]
    if len(keys) == len(below):
        below = [f"{key!r}: {text}" for key, text in zip(keys, below)]
    return f"{kind} of ({', '.join(below)})"


def _kind(leaf: Any) -> str:
    return f"a tensor of shape {list(leaf.shape)}" if isinstance(leaf, torch.Tensor) else repr(leaf)


def _describe(value: ir.Value) -> str:
    dtype = "?" if value.dtype is None else str(ONNX_TO_TORCH.get(value.dtype, value.dtype)).removeprefix("torch.")
    dims = "..." if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.name}: {dtype}[{dims}]"


def _checked(value: ir.Value, leaf: Any, sizes: dict[str, tuple[int, str]]) -> torch.Tensor:
    expected = ONNX_TO_TORCH.get(value.dtype) if value.dtype is not None else None
    if isinstance(leaf, np.ndarray):
        leaf = from_numpy(leaf)
    elif isinstance(leaf, (bool, int, float)) and value.shape is not None and len(value.shape) == 0:
        leaf = torch.tensor(leaf, dtype=expected)
    if not isinstance(leaf, torch.Tensor):
        raise InputError(f"The input {_describe(value)} needs a tensor, got {leaf!r}.")
    if leaf.dtype in COMPONENT:
        leaf = torch.view_as_real(leaf.resolve_conj())
    if expected is not None and leaf.dtype is not expected:
        raise InputError(f"The input {_describe(value)} got {leaf.dtype}. Convert it with .to({expected}).")
    if value.shape is None:
        return leaf
    if len(value.shape) != leaf.dim():
        raise InputError(f"The input {_describe(value)} got a tensor of rank {leaf.dim()}, shape {list(leaf.shape)}.")
    for axis, (dim, size) in enumerate(zip(value.shape, leaf.shape)):
        if isinstance(dim, int):
            if dim != size:
                raise InputError(
                    f"The input {_describe(value)} got shape {list(leaf.shape)}: axis {axis} is fixed to {dim}. "
                    "Export with dynamic_shapes to leave it open."
                )
        elif dim.value is not None:
            known, owner = sizes.setdefault(str(dim.value), (size, f"{value.name} axis {axis}"))
            if known != size:
                raise InputError(
                    f"The input {_describe(value)} got shape {list(leaf.shape)}: axis {axis}, {dim.value!r}, "
                    f"is {size}, but it is {known} in {owner}."
                )
    return leaf


def session(model: str | bytes, providers: Sequence[Any] | None = None, options: Any = None) -> ort.InferenceSession:
    """Open an inference session on a model file or its bytes, on CUDA where this onnxruntime has it, else on CPU."""
    if providers is None:
        available = ort.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    names = [name if isinstance(name, str) else name[0] for name in providers]
    if unknown := [name for name in names if name not in ort.get_all_providers()]:
        raise InputError(f"onnxruntime has no provider {unknown}; here are {', '.join(ort.get_available_providers())}.")
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = 3  # its warnings are about the model's makers, not its users
        # What the file says is computed. onnxruntime would fuse Q/DQ pairs and products into integer kernels, which
        # round the activations further and, without VNNI, saturate: errors of some percent that aren't the model's.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, sess_options=options, providers=list(providers))


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
        raise InputError(f"An output is a {value.data_type()}; only tensors can be returned.")
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
        if value.metadata_props.get(COMPLEX) == "1"
        else tensor
        for value, tensor in zip(values, tensors, strict=True)
    )


def is_user_output(value: ir.Value) -> bool:
    """Tell the outputs of the model's forward from those that carry mutated buffers and inputs."""
    return value.metadata_props.get(OUTPUT_KIND, "USER_OUTPUT") == "USER_OUTPUT"
