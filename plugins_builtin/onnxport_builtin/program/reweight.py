"""Other weights for an exported model: fake tensors filled in, or a checkpoint exchanged for another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnxport import ONNXProgram, WeightError
from onnxport.kit import (
    ONNX_TO_TORCH,
    TorchTensor,
    counted,
    initializers_of,
    keys,
    path_argument,
    require_flags,
    storage_key,
    unset_fake_temporarily,
    with_program_passes,
)
from torch.export.graph_signature import InputKind

if TYPE_CHECKING:
    from onnxport.kit import Plugins, ProgramPass
    from torch.export import ExportedProgram


def apply_weights(
    program: ONNXProgram, state_dict: Mapping[str, Any] | str | os.PathLike[str], strict: bool, plugins: Plugins
) -> None:
    """See `ONNXProgram.apply_weights`."""
    require_flags(strict=strict)
    if isinstance(state_dict, (str, os.PathLike)):
        state_dict = _read(path_argument("state_dict", state_dict, "a state dict, or a checkpoint's path"), plugins)
    if not isinstance(state_dict, Mapping):
        raise WeightError(f"A {type(state_dict).__name__} is given: give a state dict, or a checkpoint's path.")
    with unset_fake_temporarily():
        _replace_weights(program.model, program.exported_program, state_dict, plugins, strict)


def _read(path: str, plugins: Plugins) -> Mapping[str, Any]:
    """A checkpoint, by the first plugin that reads it."""
    for reader in plugins.items("onnxport_checkpoints"):
        weights: Mapping[str, Any] | None = reader(path)
        if weights is not None:
            return weights
    raise WeightError(f"No plugin reads the checkpoint {path!r}: load it, and give the state dict.")


def _replace_weights(
    model: ir.Model, program: ExportedProgram | None, state_dict: Mapping[str, Any], plugins: Plugins, strict: bool
) -> None:
    for quantizer in plugins.items("onnxport_quantizers"):
        quantizer.restore(model)
    passes = [each for each in plugins.program_passes() if each.weights is not None]
    state_dict = weights_behind(state_dict, passes)
    program = None if program is None else with_program_passes(program, passes)
    present: dict[str, ir.TensorProtocol] = {}
    aliases: dict[str, str] = {}
    computed = set(model.meta.get(keys.FOLDED, ()))
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, TorchTensor):
            for leaf in tensor.leaves():
                if leaf.source is not None:
                    present[leaf.source] = leaf
                    aliases |= dict.fromkeys(leaf.aliases, leaf.source)
        elif keys.FOLDED_FROM in value.metadata_props:
            computed.update([name, *value.metadata_props[keys.FOLDED_FROM].split(", ")])
        elif tensor is not None:
            present[name] = tensor
    used, unused = names_of(program)
    problems: dict[str, str] = {}
    chosen: dict[str, torch.Tensor | TorchTensor] = {}
    for name, given in state_dict.items():
        target = aliases.get(name, name)
        if target in computed or (target not in present and name in used):
            known = _known(program, name)
            if known is not None and not _misfit(TorchTensor(known), given) and _same(known, given):
                continue
            problems[name] = "computed into constants at export; export with optimize=False to replace it"
        elif target in present:
            problem = _misfit(present[target], given)
            if problem:
                problems[name] = problem
            elif not _same(chosen.setdefault(target, given), given):
                problems[name] = f"tied to {target} in the model, but the values given differ"
        elif name not in unused:
            problems[name] = "not a weight of the model"
    missing = _missing(model, program, present, {aliases.get(name, name) for name in state_dict}) if strict else []
    problems |= dict.fromkeys(missing, "missing")
    if problems:
        listing = "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
        advice = "\nGive the missing ones too; or strict=False, where they should stay as they are." if missing else ""
        verb = "doesn't" if len(problems) == 1 else "don't"
        raise WeightError(
            f"{counted(len(problems), 'weight')} {verb} fit the model; nothing was changed:\n{listing}{advice}",
            names=list(problems),
        )
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, TorchTensor):
            value.const_value = tensor.rebuilt(chosen)
        elif name in chosen:
            given = chosen[name]
            value.const_value = given if isinstance(given, TorchTensor) else TorchTensor(given.detach(), name)


def _missing(
    model: ir.Model, program: ExportedProgram | None, present: Mapping[str, ir.TensorProtocol], given: set[str]
) -> list[str]:
    """The weights that a state dict of the model has, and that aren't given; and all that have no data.

    A file tells its parameters and buffers from constants where onnxport or torch wrote it.
    """
    needed = [n for n, tensor in present.items() if isinstance(tensor, TorchTensor) and not tensor.has_data]
    if program is not None:
        read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
        for weight in initializers_of(program):
            kept = weight.kind is InputKind.PARAMETER or (weight.kind is InputKind.BUFFER and weight.persistent)
            if kept and read.intersection(weight.placeholders) and not given.intersection(weight.aliases):
                needed.append(weight.name)
    else:
        for name, value in model.graph.initializers.items():
            if keys.FOLDED_FROM in value.metadata_props:
                continue
            kind, persistent = (value.metadata_props.get(key) for key in (keys.INPUT_KIND, keys.INPUT_PERSISTENT))
            if kind == "PARAMETER" or (kind == "BUFFER" and persistent != "False"):
                needed.append(name)
    return [name for name in dict.fromkeys(needed) if name not in given]


def names_of(program: ExportedProgram | None) -> tuple[set[str], set[str]]:
    """State-dict names of the exported program: those that its graph reads, and those that it doesn't."""
    if program is None:
        return set(), set()
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    names: tuple[set[str], set[str]] = (set(), set(program.state_dict))
    for weight in initializers_of(program):
        names[0 if read.intersection(weight.placeholders) else 1].update((weight.name, *weight.aliases))
    return names


def _known(program: ExportedProgram | None, name: str) -> torch.Tensor | None:
    return None if program is None else program.state_dict.get(name, program.constants.get(name))


def _misfit(present: ir.TensorProtocol, given: object) -> str:
    """Say why a tensor can't take the place of another, or nothing."""
    if not isinstance(given, (torch.Tensor, TorchTensor)):
        return f"a tensor is needed, not {type(given).__name__}"
    try:
        new = given if isinstance(given, TorchTensor) else TorchTensor(given)
    except WeightError as error:
        return str(error)
    if tuple(new.shape) != tuple(present.shape):
        return f"shape {list(new.shape.numpy())} given, {list(present.shape.numpy())} expected"
    if new.dtype is not present.dtype:
        names = [ONNX_TO_TORCH.get(dtype, dtype) for dtype in (new.dtype, present.dtype)]
        return f"dtype {names[0]} given, {names[1]} expected"
    return ""


def _same(left: torch.Tensor | TorchTensor, right: torch.Tensor | TorchTensor) -> bool:
    if left is right:
        return True
    left, right = (tensor.raw if isinstance(tensor, TorchTensor) else tensor for tensor in (left, right))
    if left.shape != right.shape or left.dtype is not right.dtype or left.device != right.device:
        return False
    shared = storage_key(left.untyped_storage()) == storage_key(right.untyped_storage())
    if shared and left.stride() == right.stride() and left.storage_offset() == right.storage_offset():
        return True
    return TorchTensor(left).has_data and TorchTensor(right).has_data and torch.equal(left, right)


def weights_behind(tensors: Mapping[str, Any], passes: Iterable[ProgramPass]) -> Mapping[str, Any]:
    """The tensors of a state dict, by the names and in the form that a program has them behind the passes."""
    for each in passes:
        if each.weights is not None:
            tensors = each.weights(tensors)
    return tensors
