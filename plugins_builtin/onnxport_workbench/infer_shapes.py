"""Dynamic shapes from what varies between real calls of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from onnxport import InputError, OnnxExporterError
from onnxport.kit import (
    Asked,
    Leaf,
    Request,
    asked_for,
    listed,
    needs_gradients,
    recognize,
    request_of,
    takes,
    torch_shapes,
    wrong,
)
from torch.export import Dim

from onnxport_workbench.arguments import call_arguments
from onnxport_workbench.json_results import JsonResult


@dataclass
class InferredShapes(JsonResult):
    """What :func:`infer_dynamic_shapes` found; unpacks as ``args, kwargs, dynamic_shapes``.

    Attributes:
        args: example positional arguments.
        kwargs: example keyword arguments.
        dynamic_shapes: for :func:`onnxport.export`, with names for the dimensions; None when nothing varied.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: dict[str, Any] | None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.args, self.kwargs, self.dynamic_shapes))

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types; of tensors, dtype and shape."""

        def described(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor):
                return {"dtype": str(leaf.dtype).removeprefix("torch."), "shape": list(leaf.shape)}
            return leaf if leaf is None or isinstance(leaf, (bool, int, float, str)) else str(leaf)

        args, kwargs = pytree.tree_map(described, (list(self.args), self.kwargs))
        shapes = pytree.tree_map(described, self.dynamic_shapes)
        return {"args": args, "kwargs": kwargs, "dynamic_shapes": shapes}


def infer_dynamic_shapes(model: torch.nn.Module, inputs: Sequence[Any] | Callable[[], Any]) -> InferredShapes:
    """Run a model on several real inputs, and ask for every dimension that varied.

    ::

        args, kwargs, shapes = infer_dynamic_shapes(model, [(x1,), (x2,)])
        args, kwargs, shapes = infer_dynamic_shapes(model, lambda: model.generate(ids, max_new_tokens=4))

    Axes whose sizes were the same in all calls share a name; one that was the sum of two others is called so
    (``"past + seq"``). A number that varied becomes an input.

    Args:
        model: the module.
        inputs: each a tuple of arguments, a dict of keyword arguments, or a pair of both; or a function that calls the
            model, such as a generation loop, of whose calls those with the most inputs count.

    Returns:
        The last of the calls as example, and ``dynamic_shapes`` for it.

    Raises:
        InputError: an argument is of a wrong type, or the model doesn't accept the inputs; there are fewer than two
            calls of one structure, or dtypes, ranks or constants differ.
    """
    if not isinstance(model, torch.nn.Module):
        raise wrong("model", model, "an nn.Module")
    calls = _observed(model, inputs)
    by_structure: dict[tuple[str, ...], list[Request]] = {}
    for request in calls:
        by_structure.setdefault(tuple(leaf.path for leaf in request.leaves if leaf.value is not None), []).append(
            request
        )
    if not callable(inputs) and len(by_structure) > 1:
        listing = "".join(f"\n    {', '.join(paths)}" for paths in by_structure)
        raise InputError(
            f"The inputs have different structures:{listing}\nGive inputs of one structure.", parameter="inputs"
        )
    found = max(by_structure.values(), key=lambda group: (len(group) > 1, len(group[0].leaves)), default=[])
    if len(found) < 2:
        raise InputError("What is dynamic shows only in two calls or more: give more inputs.", parameter="inputs")
    example = found[-1]
    rest = f"{example.variadic}."  # the file names inputs by the keyword, whether forward takes it by **kwargs or not
    columns = [Column(leaves, rest) for leaves in zip(*(request.leaves for request in found), strict=True)]
    names = _named([size for column in columns for size in column.varying.values()], columns)
    for column, leaf in zip(columns, example.leaves, strict=True):
        for axis, sizes in column.varying.items():
            asked = asked_for(names[sizes])
            leaf.asked[axis] = asked if asked is not None and not isinstance(leaf.value, float) else Asked(Dim.DYNAMIC)
    shapes = torch_shapes(example)
    if shapes is not None:
        wanted = iter(example.leaves)
        shapes = pytree.tree_map(lambda _: _plain(next(wanted)), shapes, is_leaf=_is_shape)
    return InferredShapes(example.args, example.kwargs, shapes)


class Column:
    """One leaf over all calls.

    Attributes:
        path: its readable path, below forward's ``**kwargs``.
        varying: the sizes in each call, by axis (None for a number), where they differ.
    """

    def __init__(self, leaves: Sequence[Leaf], rest: str) -> None:
        self.path = leaves[0].path.removeprefix(rest)
        self.varying: dict[int | None, tuple[Any, ...]] = {}
        values = [leaf.value for leaf in leaves]
        first = values[0]
        if isinstance(first, torch.Tensor):
            if len({(v.dtype, v.dim()) for v in values}) > 1:
                raise InputError(
                    f"{self.path} differs in dtype or rank between calls: {[(v.dtype, v.dim()) for v in values]}."
                )
            for axis in range(first.dim()):
                self._add(axis, tuple(int(v.shape[axis]) for v in values))
        elif any(type(v) is not type(first) or v != first for v in values):
            if type(first) not in (int, float) or any(type(v) is not type(first) for v in values):
                raise InputError(
                    f"{self.path} differs between calls ({values}), but only sizes and numbers can be dynamic."
                )
            self._add(None, tuple(values))

    def _add(self, axis: int | None, sizes: tuple[Any, ...]) -> None:
        if len(set(sizes)) > 1:
            self.varying[axis] = sizes


def _is_shape(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, type(Dim.AUTO))
        or (isinstance(value, dict) and all(type(k) is int for k in value))
    )


def _plain(leaf: Leaf) -> Any:
    if None in leaf.asked:
        return leaf.asked[None].dim
    return {axis: asked.dim for axis, asked in leaf.asked.items()} or None


def _observed(model: torch.nn.Module, inputs: Any) -> list[Request]:
    """The calls, each with arguments of its own: a forward may change a cache in place."""
    calls: list[Request] = []

    def note(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recognize((args, kwargs))
        request = request_of(model, args, kwargs)
        leaves, spec = pytree.tree_flatten((request.args, request.kwargs))
        copies = [v.detach().clone() if isinstance(v, torch.Tensor) else v for v in leaves]
        calls.append(request_of(model, *pytree.tree_unflatten(copies, spec)))

    each = [] if callable(inputs) else listed(inputs)
    if each is None:
        raise wrong("inputs", inputs, "a list with the arguments of each call, or a function that calls the model")
    given = [_call(i, call) for i, call in enumerate(each)]
    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            if callable(inputs):
                if not takes(inputs):
                    raise wrong("inputs", inputs, "a function without parameters, which calls the model")
                _run("inputs()", inputs)
            for i, (args, kwargs) in enumerate(given):
                what = f"The model, called with inputs[{i}],"
                try:
                    _run(what, model, *args, **kwargs)
                except InputError as error:
                    if not needs_gradients(error):
                        raise
                    calls.pop()
                    with torch.enable_grad():
                        _run(what, model, *args, **kwargs)
    finally:
        handle.remove()
    return calls


def _run(what: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    try:
        function(*args, **kwargs)
    except OnnxExporterError:
        raise
    except Exception as error:  # a forward may raise anything about what it doesn't take
        raise InputError(
            f"{what} raised {type(error).__name__}: {error}. Give arguments that the model's forward takes.",
            parameter="inputs",
        ) from error


def _call(index: int, call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    label = f"inputs[{index}]"
    if isinstance(call, dict):
        return call_arguments((), call, label)
    if isinstance(call, tuple) and len(call) == 2 and isinstance(call[0], tuple) and isinstance(call[1], dict):
        return call_arguments(*call, label)
    return (tuple(call), {}) if isinstance(call, (tuple, list)) else ((call,), {})


def _named(sizes: list[tuple[Any, ...]], columns: list[Column]) -> dict[tuple[Any, ...], str]:
    """A name for each sequence of sizes: from the first axis that has it, or the sum of two others."""
    names: dict[tuple[Any, ...], str] = {}
    known = list(dict.fromkeys(sizes))
    for column in columns:
        for axis, values in column.varying.items():
            if values not in names:
                base = re.sub(r"\W", "_", column.path)
                names[values] = base if axis is None else f"{base}_dim_{axis}"
    for total in known:
        for i, a in enumerate(known):
            for b in known[i:]:
                plain = all("+" not in names[part] for part in (a, b)) and total not in (a, b) and len(total) > 2
                if plain and all(x + y == z for x, y, z in zip(a, b, total, strict=True)):
                    names[total] = f"{names[a]} + {names[b]}"
    return names
