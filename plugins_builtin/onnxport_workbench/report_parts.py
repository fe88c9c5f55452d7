"""Parts of a report that tell of the call and the model: what was asked, weights, the graph, a translation to write."""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from onnxport.kit import fenced, keys, operator_named, plain
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from onnxport.kit import Run

#: Parameters of ``export`` that aren't options: they have sections of their own.
_SHOWN_ELSEWHERE = ("model", "args", "kwargs", "deprecated")
_LONGEST_GRAPH = 2000
_LONGEST_VALUE = 200


def relative(text: str) -> str:
    """A text without the folders of this machine: paths below the working directory or of packages are relative."""
    try:
        folders = [os.getcwd()]
    except FileNotFoundError:  # it was removed
        folders = []
    folders += [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")]
    for folder in sorted({folder for folder in folders if len(folder) > 1}, key=len, reverse=True):
        text = text.replace(folder.rstrip(os.sep) + os.sep, "")
    return text


def model_of(run: Run) -> dict[str, Any]:
    """The class of the model, and its parameters and buffers with their bytes by dtype."""
    model = run.asked.get("model")
    state = getattr(model, "state_dict", None)
    state = state() if callable(state) else state
    tensors = [t for t in (state or {}).values() if isinstance(t, torch.Tensor)]
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    weights = []
    for dtype in dtypes:
        same = [tensor for tensor in tensors if str(tensor.dtype).removeprefix("torch.") == dtype]
        elements = sum(tensor.numel() for tensor in same)
        size = sum(tensor.numel() * tensor.element_size() for tensor in same)
        weights.append({"dtype": dtype, "tensors": len(same), "elements": elements, "bytes": size})
    name = "" if model is None else f"{type(model).__module__}.{type(model).__qualname__}"
    return {"class": name, "training": bool(getattr(model, "training", False)), "weights": weights}


def options_of(run: Run, defaults: Mapping[str, Any]) -> dict[str, str]:
    """The options that were given another value than their default, as text."""
    return {
        name: _shown(value)
        for name, value in run.asked.items()
        if name not in _SHOWN_ELSEWHERE and not (value is defaults.get(name) or _equal(value, defaults.get(name)))
    }


def _equal(left: Any, right: Any) -> bool:
    return isinstance(left, (bool, int, float, str, tuple, type(None))) and type(left) is type(right) and left == right


def _shown(value: Any) -> str:
    try:
        text = relative(" ".join(repr(value).split()))
    except Exception:  # of a class of the caller's
        text = f"a {type(value).__name__}"
    return plain(text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}...")


def given_inputs(run: Run) -> list[dict[str, str]]:
    """The example inputs as they were given, for a report of a capture that failed: path, dtype and shape or value."""
    rows: list[dict[str, str]] = []
    args = run.asked.get("args", ())
    positional = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    for name, values in (("args", positional), ("kwargs", run.asked.get("kwargs") or {})):
        for path, leaf in pytree.tree_flatten_with_path(values)[0]:
            place = f"{name}{pytree.keystr(path)}"
            if isinstance(leaf, torch.Tensor):
                dtype = str(leaf.dtype).removeprefix("torch.")
                rows.append({"path": place, "dtype": dtype, "shape": str(list(leaf.shape)), "value": ""})
            else:
                rows.append({"path": place, "dtype": type(leaf).__name__, "shape": "", "value": _shown(leaf)})
    return rows


def graph_text(run: Run) -> str:
    """The captured graph as text, after writes became pure operators; empty where there is none."""
    module = None if run.translated is None else run.translated.model.meta.get(keys.TRANSLATED)
    if module is None:
        return ""
    lines = relative(str(module.graph)).splitlines()
    if len(lines) > _LONGEST_GRAPH:
        left = len(lines) - _LONGEST_GRAPH
        lines = [*lines[:_LONGEST_GRAPH], f"... {left} more lines: export with dump_exported_program=True to see all"]
    return "\n".join(lines)


def folded(summary: str, text: str) -> str:
    """A text that a page shows when it is asked for."""
    return f"<details>\n<summary>{summary}</summary>\n\n{fenced(text)}\n\n</details>"


def skeleton(target: str) -> str:
    """A translation to start from, for an operator that nothing translates."""
    schema = getattr(operator_named(target), "_schema", None)
    name = target.partition("::")[2].replace(".", "_") or "translation_of_it"
    name = "".join(letter if letter.isalnum() else "_" for letter in name)
    if schema is None:
        parameters, told = ["*args", "**kwargs"], "its schema isn't known here"
    else:
        told = str(schema)
        parameters = [_parameter(argument) for argument in schema.arguments if not argument.kwarg_only]
        only = [_parameter(argument) for argument in schema.arguments if argument.kwarg_only]
        parameters += ["*", *only] if only else []
    return (
        "from onnxport import Unsupported, translation\n\n\n"
        f'@translation("{target}")\n'
        f"def {name}({', '.join(['op', *parameters])}):\n"
        f"    # {told}\n"
        '    raise Unsupported("write its ONNX nodes, such as: return op.Relu(self)")\n'
    )


def _parameter(argument: Any) -> str:
    return f"{argument.name}={argument.default_value!r}" if argument.has_default_value() else str(argument.name)


def skeletons(targets: Iterable[str]) -> str:
    """A skeleton for each target once, as code blocks of a markdown page."""
    return "\n\n".join(f"```python\n{plain(skeleton(target))}```" for target in Counter(targets))


__all__ = ["folded", "given_inputs", "graph_text", "model_of", "options_of", "relative", "skeletons"]
