"""A small model of any type of transformers, with random weights, and what it is exported from.

For sweeps over all types and zoos of models: what a type's classes are is read from transformers, its sizes from its
configuration (``small_configs``), its inputs from its forward (``inputs``). What runs in eager torch is taken.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from onnxport import InputError

from onnxport_transformers import package, tasks
from onnxport_transformers.decoding import Graph
from onnxport_transformers.small_configs import repair, small_configs
from onnxport_transformers.tasks import Task

LARGEST = 120_000_000
"""Weights of a model that can't be made smaller."""
EXCEPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"codebook_dim": 64} for name in ("wavtokenizer", "wavtokenizer_encoder", "apertus1p5")},
    **{name: {"num_key_value_heads": 4} for name in ("esmc", "esmfold2")},
    **{name: {"condition_dim": 64} for name in ("pocket_tts", "gradium_phonon_tts")},
    **{name: {"prediction_length": 8} for name in ("autoformer", "informer", "time_series_transformer")},
    "dots3_note_audio_encoder": {"adapter_input_size": 64},
    "dots3_note_vision_encoder": {"adapter_in_dim": 64},
    "dots3_note": {"adapter_input_size": 64, "adapter_in_dim": 64},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1, "num_hidden_layers": 3},
    "seggpt": {"merge_index": 0},
    "molmo2": {"vision_feature_layer": [-1, -2]},
}
"""Numbers that a type needs, where they depend on each other in other ways than names tell."""


_WHOLE = ("image-text-to-text", "zero-shot-image-classification")
"""Tasks of models whose parts have tasks of their own."""


class NotBuiltError(InputError):
    """No small model of a type runs in eager torch."""


@dataclass
class SmallModel:
    """A model that runs in eager torch.

    Attributes:
        model_type: of its configuration.
        task: what it is for; of a class that no task has, the name of the class.
        model: in eval mode.
        graphs: what its files are exported from, by name.
    """

    model_type: str
    task: str
    model: Any
    graphs: dict[str, Graph]


@dataclass(frozen=True)
class _Class:
    """A class of models of a type: what builds one of a configuration, and the task."""

    name: str
    build: Callable[[Any], Any]
    task: Task


def model_types() -> list[str]:
    """All types that this transformers has, sorted."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return sorted(CONFIG_MAPPING_NAMES)


def small_model(model_type: str) -> SmallModel:
    """The first class of a type of which a small model runs in eager torch.

    Raises:
        NotBuiltError: there is none; the message is what the first one raised.
    """
    errors: list[str] = []
    for number, each in enumerate(_classes(model_type)):
        exceptions, tried = dict(EXCEPTIONS.get(model_type, {})), set[str]()
        for _ in range(3):
            repairs: dict[str, Any] = {}
            configs = small_configs(_config_class(model_type), exceptions)
            for config in configs if number < 2 else itertools.islice(configs, 1):
                text = config.to_json_string()
                if text in tried:
                    continue
                tried.add(text)
                try:
                    return _running(model_type, each, config)
                except Exception as error:  # whatever the code of a model raises
                    lines = str(error).splitlines() or [""]
                    errors.append(f"{each.name}: {type(error).__name__}: {lines[0]}")
                    repairs = repairs or repair(str(error))
            if not repairs:
                break
            exceptions |= repairs
    raise NotBuiltError(errors[0] if errors else "transformers has no class of models for it")


def _running(model_type: str, each: _Class, config: Any) -> SmallModel:
    """The model of a configuration, which was run.

    Raises:
        NotBuiltError: it has too many weights.
        Exception: whatever it raises.
    """
    count = _weights(each, config)
    if count is not None and count > LARGEST:
        raise NotBuiltError(f"{count / 1e6:.0f} million weights")
    torch.manual_seed(0)
    model = each.build(config).eval()
    with torch.no_grad():
        graphs = package.graphs_of(model, each.task, False)
        for graph in graphs.values():
            for kwargs in (graph.kwargs, *graph.others):
                graph.model(**_copied(kwargs))
    return SmallModel(model_type, each.task.name or type(model).__name__, model, graphs)


def _weights(each: _Class, config: Any) -> int | None:
    """How many weights a model has; None where it can't be built without data."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in each.build(config).parameters())
    except Exception:  # forwards of some models' constructors read their data
        return None


def _copied(value: Any) -> Any:
    from torch.utils._pytree import tree_map

    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)


@functools.cache
def _config_class(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def _classes(model_type: str) -> Iterator[_Class]:
    """The classes of a type: those of tasks, then those that transformers lists otherwise, then all others."""
    from transformers.models.auto import modeling_auto

    listed = [task for task in tasks.TASKS.values() if model_type in getattr(modeling_auto, task.mapping, {})]
    for task in sorted(listed, key=_rank):
        yield _Class(task.name, tasks.factory_of(task).from_config, task)
    single = Task("", "", "")
    config_class = _config_class(model_type)
    try:
        module = importlib.import_module(config_class.__module__.replace(".configuration_", ".modeling_"))
    except ImportError:
        return
    from transformers import PreTrainedModel

    for name, found in vars(module).items():
        if not (inspect.isclass(found) and issubclass(found, PreTrainedModel) and found.__module__ == module.__name__):
            continue
        if getattr(found, "config_class", None) is config_class and "forward" in _own_attributes(found):
            yield _Class(name, found._from_config, single)


def _rank(task: Task) -> int:
    """Whole models go before their parts: encoder-decoders, then those that read images, then all others."""
    return 0 if task.form == tasks.ENCODER_DECODER else 1 if task.name in _WHOLE else 2


def _own_attributes(found: type) -> set[str]:
    """What a class and its parents in its own file define."""
    return {name for each in found.__mro__ if each.__module__ == found.__module__ for name in vars(each)}
