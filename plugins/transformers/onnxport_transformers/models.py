"""A folder of transformers (configuration, weights) as a model that can be exported.

Weights stay on disk: the model has tensors without data, and what is saved is read from the checkpoint piece by piece.
So a model may be larger than the memory. Where transformers merges or splits weights of a checkpoint as it loads it
(experts of a mixture, heads that were stored together), the same functions of transformers are called for one weight at
a time, when that weight is written.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from onnxport import InputError, ONNXProgram, WeightError
from onnxport.kit import TorchTensor, load, own_memory
from torch._subclasses.fake_tensor import FakeTensorMode

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Source:
    """A model to export.

    Attributes:
        model: in eval mode.
        weights: its weights on disk, by state-dict name; empty where the model has them itself.
        folder: where it was read from; None for a model that the caller gave.
    """

    model: Any
    weights: dict[str, TorchTensor] = field(default_factory=dict)
    folder: Path | None = None

    def fill(self, program: ONNXProgram) -> None:
        """Give an exported program the weights that are on disk, of which each part of a model has some."""
        tensors = [value.const_value for value in program.model.graph.initializers.values()]
        leaves = [leaf for tensor in tensors if isinstance(tensor, TorchTensor) for leaf in tensor.leaves()]
        names = {name for leaf in leaves for name in (leaf.source, *leaf.aliases)}
        given = {name: tensor for name, tensor in self.weights.items() if name in names}
        if given:
            program.apply_weights(given, strict=False)  # type: ignore[arg-type]


class ConvertedTensor(TorchTensor):
    """A weight that is computed of others whenever its data is asked for, and never kept.

    Args:
        parents: what it is computed of.
        function: computes it of their torch tensors.
        layout: a tensor on the meta device, of its shape and dtype.
        name: its name in the state dict.
    """

    __slots__ = ()

    def __init__(
        self, parents: Sequence[TorchTensor], function: Callable[..., torch.Tensor], layout: torch.Tensor, name: str
    ) -> None:
        super().__init__(layout, name)
        self._raw = None
        self.parents, self._function = tuple(parents), function


def read_config(folder: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Any:
    """The configuration of a folder.

    Raises:
        InputError: it isn't there, or this transformers can't read it.
    """
    from transformers import AutoConfig

    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError(f"{str(path)!r} has no config.json: give the folder of a model.", parameter="folder")
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"transformers can't read {str(path / 'config.json')!r}: {error}. Update transformers, or pass "
            "--trust-remote-code where the folder has code of its own that you trust.",
            parameter="folder",
        ) from error


def build(
    factory: Any,
    config: Any,
    folder: Path | None,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> Source:
    """A model of a configuration, in eval mode.

    Args:
        factory: one of transformers' ``AutoModelFor…``.
        config: the configuration.
        folder: has the weights; None for random ones.
        dtype: of the weights.
        trust_remote_code: whether code of the folder may run.
        seed: of random weights.
    """
    options: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    if folder is None:
        torch.manual_seed(seed)
        return Source(factory.from_config(config, dtype=dtype, **options).eval())
    checkpoint = _checkpoint(folder)
    if checkpoint is not None:
        with torch.device("meta"):
            model = factory.from_config(config, dtype=dtype, **options).eval()
        weights = streamed(model, checkpoint)
        if weights is not None:
            _without_data(model)
            return Source(model, weights, folder)
    return Source(loaded(factory, folder, config=config, dtype=dtype, **options), folder=folder)


def loaded(factory: Any, folder: Path, **options: Any) -> Any:
    """The model of a folder in memory, in eval mode."""
    return factory.from_pretrained(folder, **options).eval()


def _checkpoint(folder: Path) -> Mapping[str, TorchTensor] | None:
    """The tensors of a folder's safetensors files; None where it has none."""
    names = ("model.safetensors.index.json", "model.safetensors")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    for reader in load(None).items("onnxport_checkpoints"):
        found = reader(str(path))
        if found is not None:
            return found  # type: ignore[no-any-return]
    return None


def streamed(model: Any, checkpoint: Mapping[str, TorchTensor]) -> dict[str, TorchTensor] | None:
    """The weights of a model on the meta device, as tensors that are read from a checkpoint when they are needed.

    Returns:
        Tensors by state-dict name; None where transformers has to load the checkpoint itself: weights are missing, or
        have other shapes, or it is quantized, or tied weights are stored apart.

    Raises:
        WeightError: this transformers has no functions that tell how it reads checkpoints.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return None
    model.tie_weights()
    wanted = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if tensor is not None}
    found = _renamed(model, checkpoint, wanted)
    if found is None:
        return None
    groups: dict[int, list[str]] = {}
    for name, tensor in wanted.items():
        groups.setdefault(id(tensor), []).append(name)
    weights: dict[str, TorchTensor] = {}
    for names in groups.values():
        given = [name for name in names if name in found]
        if len(given) != 1 or tuple(found[given[0]].shape) != tuple(wanted[names[0]].shape):
            return None
        weights.update(dict.fromkeys(names, _cast(found[given[0]], wanted[names[0]].dtype, names[0])))
    return weights


def _cast(tensor: TorchTensor, dtype: torch.dtype, name: str) -> TorchTensor:
    layout = torch.empty([int(size) for size in tensor.shape], dtype=dtype, device="meta")
    if TorchTensor(layout).dtype is tensor.dtype:
        return tensor
    return ConvertedTensor([tensor], lambda raw: own_memory(raw.shape, dtype).copy_(raw), layout, name)


def _renamed(
    model: Any, checkpoint: Mapping[str, TorchTensor], wanted: Mapping[str, Any]
) -> dict[str, TorchTensor] | None:
    """The tensors of a checkpoint by the names that the model has for them; None where some can't be told."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError as error:
        raise WeightError(
            f"This transformers doesn't tell how it reads checkpoints ({error}). Install one from 5.20 on."
        ) from error
    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    found: dict[str, TorchTensor] = {}
    merged: dict[str, tuple[Any, list[tuple[str, str, TorchTensor]]]] = {}
    for name in sorted(checkpoint, key=_natural):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, wanted)
        if target not in wanted and name in wanted:
            target, pattern = name, None  # a checkpoint that was saved in the model's own form
        if pattern is None:
            found[target] = checkpoint[name]
        else:
            merged.setdefault(target, (by_pattern[pattern], []))[1].append((name, pattern, checkpoint[name]))
    for target, (converter, members) in merged.items():
        found.update(_converted(model, converter, target, members))
    return found


def _converted(
    model: Any, converter: Any, target: str, members: Sequence[tuple[str, str, TorchTensor]]
) -> dict[str, TorchTensor]:
    """What a converter of transformers makes of some tensors: their layouts now, their data when it is asked for."""

    def convert(*raw: torch.Tensor) -> dict[str, torch.Tensor]:
        single = copy.deepcopy(converter)
        for (name, pattern, _), tensor in zip(members, raw, strict=True):
            single.add_tensor(target, name, pattern, tensor)
        results = single.convert(target, model=model, config=model.config)
        return {key: value[0] if isinstance(value, list) else value for key, value in results.items()}

    tensors = [tensor for *_, tensor in members]
    layouts = convert(*(_layout(tensor) for tensor in tensors))

    def part(key: str) -> Callable[..., torch.Tensor]:
        return lambda *raw: convert(*raw)[key].contiguous()

    return {key: ConvertedTensor(tensors, part(key), layout, key) for key, layout in layouts.items()}


def _layout(tensor: TorchTensor) -> torch.Tensor:
    from onnxport.kit import ONNX_TO_TORCH

    return torch.empty([int(size) for size in tensor.shape], dtype=ONNX_TO_TORCH[tensor.dtype], device="meta")


def _natural(name: str) -> list[tuple[int, int | str]]:
    """The order in which transformers merges numbered weights: 2 before 10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"\.", name)]


def _without_data(model: Any) -> None:
    """Give a model on the meta device weights without data on the CPU, and buffers that no checkpoint has."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes: dict[int, Any] = {}
    stored = set(model.state_dict())

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in fakes:
            with mode:
                made = torch.empty(tensor.shape, dtype=tensor.dtype)
            fakes[id(tensor)] = (
                torch.nn.Parameter(made, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else made
            )
        return fakes[id(tensor)]  # type: ignore[no-any-return]

    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and f"{prefix}.{name}".lstrip(".") not in stored:
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
    for module in model.modules():
        module._is_hf_initialized = False
    model.initialize_weights()
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = fake(parameter)
        for name, buffer in module._buffers.items():
            if buffer is not None and f"{prefix}.{name}".lstrip(".") in stored:
                module._buffers[name] = fake(buffer)
