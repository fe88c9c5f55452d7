"""LoRA: the small matrices of an adapter are inputs of the file, and lie in a file of their own.

::

    x ──────────── MatMul (base weight) ──── Add
    └─ MatMul (lora_A) ─ MatMul (lora_B) ────┘

Each pair of matrices is an input with a default of rank 0, which adds nothing: without an adapter the file is the base
model. ``onnxruntime.LoraAdapter`` and ``onnxruntime_genai.Adapters`` read the ``.onnx_adapter`` files, and a session
changes from one to another with each run. The rank is free, so that adapters of several ranks fit one file; they may
also change other layers, as a layer that one of them leaves alone keeps its default.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from onnxport import InputError, ONNXProgram
from onnxport.kit import ONNX_TO_TORCH, TorchTensor
from torch import nn

from onnxport_transformers.decoding import Graph, with_forward

Pair = tuple[torch.Tensor, torch.Tensor]
"""The matrices (in, rank) and (rank, out) of a layer, the second one scaled."""

_UNSUPPORTED = {
    "use_dora": "weights that are normalized (DoRA)",
    "modules_to_save": "whole layers of its own (modules_to_save)",
    "lora_bias": "biases (lora_bias)",
    "layer_replication": "layers that are repeated (layer_replication)",
    "target_parameters": "parameters outside of linear layers (target_parameters)",
    "trainable_token_indices": "tokens of its own (trainable_token_indices)",
    "alora_invocation_tokens": "tokens that switch it on (alora_invocation_tokens)",
}
"""Settings of peft that an adapter of pairs can't have."""


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        name: of its file.
        pairs: its matrices, by the name of the layer in the model.
    """

    name: str
    pairs: Mapping[str, Pair]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The matrices by the names of the file's inputs."""
        return {name: matrix for path, pair in self.pairs.items() for name, matrix in zip(names_of(path), pair)}

    def write(self, folder: Path, program: ONNXProgram) -> Path:
        """Write the ``.onnx_adapter`` file, in the types that the inputs of a program have."""
        from onnxport.kit import ort

        inputs = {str(value.name): value for value in program.model.graph.inputs}
        values = {}
        for name, matrix in self.tensors().items():
            dtype: Any = inputs[name].dtype
            data = TorchTensor(matrix.to(ONNX_TO_TORCH[dtype]).contiguous(), name).numpy()
            values[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(data, int(dtype))
        form = ort.AdapterFormat()
        form.set_adapter_version(1)
        form.set_model_version(1)
        form.set_parameters(values)
        path = folder / f"{self.name}.onnx_adapter"
        form.export_adapter(str(path.absolute()))
        return path


def names_of(path: str) -> tuple[str, str]:
    """The names of a layer's two inputs."""
    return f"{path}.lora_A", f"{path}.lora_B"


def read(name: str, folder: str | os.PathLike[str]) -> Adapter:
    """The adapter of a folder, as peft's ``save_pretrained`` writes it.

    Raises:
        InputError: it isn't there, is of another kind, or has something else than pairs of matrices.
    """
    from safetensors.torch import load_file

    path = Path(folder)
    settings, weights = path / "adapter_config.json", path / "adapter_model.safetensors"
    if not settings.is_file() or not weights.is_file():
        raise InputError(
            f"{str(path)!r} has no adapter_config.json and adapter_model.safetensors: give the folder of an adapter "
            "that peft saved.",
            parameter="adapters",
        )
    config = json.loads(settings.read_text("utf-8"))
    _expect_pairs(config, str(path))
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(weights).items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.(lora_[AB])\.weight", key)
        if match is None or tensor.dim() != 2:
            raise InputError(
                f"The adapter {str(path)!r} has {key!r}, which is no matrix of a linear layer. Merge it into the model "
                "(merge_and_unload), and export that.",
                parameter="adapters",
            )
        found.setdefault(match[1], {})[match[2]] = tensor
    pairs = {}
    for layer, matrices in found.items():
        if len(matrices) != 2:
            raise InputError(f"The adapter {str(path)!r} has one matrix of two for {layer!r}. Save it again.")
        scale = _scale(config, layer, matrices["lora_A"].shape[0])
        pairs[layer] = (matrices["lora_A"].t().float(), matrices["lora_B"].t().float() * scale)
    return Adapter(name, pairs)


def _expect_pairs(config: Mapping[str, Any], where: str) -> None:
    kind = getattr(config.get("peft_type"), "value", config.get("peft_type"))
    reasons = [reason for setting, reason in _UNSUPPORTED.items() if config.get(setting)]
    if kind != "LORA":
        reasons.append(f"weights of the kind {kind}")
    if config.get("bias", "none") != "none":
        reasons.append("biases (bias)")
    if reasons:
        raise InputError(
            f"The adapter {where!r} has {', and '.join(reasons)}; inputs can be pairs of matrices alone. Merge it into "
            "the model (merge_and_unload), and export that.",
            parameter="adapters",
        )


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What peft multiplies the second matrix by."""
    patterns = config.get("alpha_pattern") or {}
    key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", layer)), None)
    alpha = float(config["lora_alpha"] if key is None else patterns[key])
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


@contextlib.contextmanager
def taken_off(model: Any) -> Iterator[tuple[Any, list[Adapter]]]:
    """A model of peft as its base model, with the layers that it had before, and its adapters; another model as it is.

    The model has its adapters again afterwards.

    Raises:
        InputError: an adapter has something else than pairs of matrices, or is merged.
    """
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping) or not hasattr(model, "get_base_model"):
        yield model, []
        return
    for name, config in configs.items():
        _expect_pairs(config.to_dict(), name)
    base = model.get_base_model()
    pairs: dict[str, dict[str, Pair]] = {name: {} for name in configs}
    changed = {path: module for path, module in base.named_modules() if hasattr(module, "base_layer")}
    for path, module in changed.items():
        if getattr(module, "merged", False):
            raise InputError(f"The adapter of {path!r} is merged. Call unmerge_adapter() before.", parameter="model")
        for name in module.lora_A:
            first, second = (part[name].weight.detach().t() for part in (module.lora_A, module.lora_B))
            pairs[name][path] = (first, second * module.scaling[name])
    try:
        for path, module in changed.items():
            base.set_submodule(path, module.base_layer)
        yield base, [Adapter(name, each) for name, each in pairs.items()]
    finally:
        for path, module in changed.items():
            base.set_submodule(path, module)


def layers_of(adapters: Sequence[Adapter]) -> dict[str, int]:
    """The layers that any of some adapters changes, with an example of its rank."""
    found: dict[str, int] = {}
    for adapter in adapters:
        for path, (first, _) in adapter.pairs.items():
            found.setdefault(path, first.shape[1])
    return found


def adapted(model: Any, graph: Graph, layers: Mapping[str, int]) -> Graph:
    """The graph with two inputs more for each layer.

    Args:
        model: what the graph was made of.
        graph: of the model.
        layers: by name, with an example of the rank.

    Raises:
        InputError: the model has no such linear layer.
    """
    modules = [_linear(model, path) for path in layers]
    tensors: list[torch.Tensor] = []
    for rank, module in zip(layers.values(), modules, strict=True):
        out, width = module.weight.shape
        rank = max(rank, 2)  # a size of 1 would be taken for one that stays
        dtype = module.weight.dtype
        tensors += [torch.randn(width, rank, dtype=dtype), torch.randn(rank, out, dtype=dtype)]

    def forward(self: Any, *, adapters: Any, **given: Any) -> Any:
        pairs = zip(modules, adapters[::2], adapters[1::2], strict=True)
        hooks = [module.register_forward_hook(_adding(first, second)) for module, first, second in pairs]
        try:
            return graph.model.forward(**given)
        finally:
            for hook in hooks:
                hook.remove()

    free = [axes for i in range(len(layers)) for axes in ({1: f"rank_{i}"}, {0: f"rank_{i}"})]
    kwargs = {**graph.kwargs, "adapters": tensors}
    names = [name for path in layers for name in names_of(path)]
    return Graph(
        with_forward(graph.model, forward, type(graph.model).__name__, kwargs),
        kwargs,
        {**graph.dynamic_shapes, "adapters": free},
        [*graph.input_names, *names],
        graph.output_names,
    )


def _adding(first: torch.Tensor, second: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda module, args, result: result + args[0] @ first @ second


def _linear(model: Any, path: str) -> nn.Linear:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear):
        kind = "has no such layer" if module is None else f"has a {type(module).__name__} there, and no linear layer"
        raise InputError(
            f"An adapter changes {path!r}; the model {kind}. Give the model that the adapter was trained for.",
            parameter="adapters",
        )
    return module


def without_adapter(program: ONNXProgram, layers: Mapping[str, int]) -> None:
    """Give the inputs of adapters their default: matrices of rank 0."""
    inputs = {str(value.name): value for value in program.model.graph.inputs}
    for path in layers:
        for name, axis in zip(names_of(path), (1, 0)):
            value = inputs[name]
            sizes = [0 if i == axis else dim for i, dim in enumerate(value.shape or ())]
            matrix = TorchTensor(torch.empty(sizes, dtype=ONNX_TO_TORCH[value.dtype]), name)  # type: ignore[index,arg-type]
            matrix.source = None  # no state dict has it
            value.const_value = matrix
            program.model.graph.initializers[name] = value
