"""A captured program and a request -> the final names of the file's inputs, outputs and dimensions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from onnxport import DynamicShapesError, InputError, NamesError, warn
from onnxport.kit import SYMBOLIC, InputLeaf, Interface, Leaf, Request
from torch.export import ExportedProgram

from onnxport_builtin.program.call_spec import check_layout
from onnxport_builtin.request.dimensions import asked_for, expressions_of
from onnxport_builtin.request.leaves import input_names_of, walk

if TYPE_CHECKING:
    import sympy


def interface_of(program: ExportedProgram, request: Request) -> Interface:
    """Settle the names of a captured program's inputs, outputs and dimensions.

    Raises:
        NamesError: more ``output_names`` than outputs, or a name for both an input and an output.
        InputError: the program has other inputs than the request.
    """
    specs = [s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    leaves = request.leaves
    if not leaves:  # a program without example inputs
        leaves = [Leaf(s.arg.name, values.get(s.arg.name)) for s in specs]
    else:
        check_layout(program, request.args, request.kwargs)
    if len(leaves) != len(specs):
        raise InputError(
            f"The exported program has {len(specs)} inputs, but {len(leaves)} are given. Give its own, or none.",
            parameter="args",
        )
    asked = input_names_of(request.input_names, leaves)
    result = Interface()
    for i, (spec, leaf) in enumerate(zip(specs, leaves, strict=True)):
        value = values.get(spec.arg.name)
        if isinstance(value, (torch.Tensor, *SYMBOLIC)):
            kind = "tensor" if isinstance(value, torch.Tensor) else "number"
            axes = {axis: a.label for axis, a in leaf.asked.items() if a.label and axis is not None}
            result.inputs.append(InputLeaf(spec.arg.name, asked.get(i, ""), leaf.path, kind, None, axes))
        else:
            result.inputs.append(InputLeaf(spec.arg.name, "", leaf.path, "baked", leaf.value))
    _name_outputs(program, request, result)
    result.dim_names = _dim_names(result, leaves, values)
    return result


def _name_outputs(program: ExportedProgram, request: Request, result: Interface) -> None:
    specs = [s for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    constants = [not hasattr(s.arg, "value") or s.arg.value is not None for s in specs]
    result.output_paths = _output_paths(program, [values.get(s.arg.name) for s in specs])
    named = [i for i, present in enumerate(constants) if present]
    names = request.output_names
    if len(names) > len(named):
        if len(names) != len(specs):
            listing = "".join(f"\n    {result.output_paths[i] or specs[i].arg.name}" for i in named)
            raise NamesError(
                f"output_names has {len(names)} names, but the model has {len(named)} outputs:{listing or ' none'}",
                parameter="output_names",
                names=names[len(named) :],
            )
        names = [names[i] for i in named]
    chosen = dict(zip(named, names, strict=False))
    both = sorted(set(chosen.values()) & {leaf.name for leaf in result.inputs if leaf.name})
    if both:
        raise NamesError(
            f"{', '.join(map(repr, both))} is named both in input_names and output_names: names in a file are unique.",
            parameter="output_names",
            names=both,
        )
    taken = set(chosen.values()) | {leaf.name for leaf in result.inputs}
    for leaf in result.inputs:
        if not leaf.name and leaf.kind != "baked":
            leaf.name = _free(leaf.placeholder, taken)
            if leaf.name != leaf.placeholder:
                warn(
                    f"The input {leaf.path} is named {leaf.name!r}, since {leaf.placeholder!r} was given to "
                    "something else. Give input_names to choose another."
                )
    named_inputs = {leaf.name for leaf in result.inputs}
    for i, spec in enumerate(specs):
        if i in chosen or not constants[i]:
            result.outputs.append(chosen.get(i, ""))
            continue
        path = result.output_paths[i]
        readable = re.sub(r"\W", "_", re.sub(r"^[\d.]+", "", path))
        name = readable or spec.arg.name or f"output_{i}"
        result.outputs.append(_free(f"{name}_out" if name in named_inputs else name, taken))
    for name, axes in request.output_axes.items():
        if name not in result.outputs:
            raise DynamicShapesError(
                f"dynamic_axes names {name!r}, which is neither an input nor an output. Inputs: "
                f"{', '.join(leaf.name for leaf in result.inputs if leaf.name)}; outputs: "
                f"{', '.join(filter(None, result.outputs))}.",
                parameter="dynamic_axes",
            )
        result.output_axes[result.outputs.index(name)] = axes


def _output_paths(program: ExportedProgram, values: list[Any]) -> list[str]:
    spec: Any = program.module_call_graph[0].signature.out_spec  # type: ignore[union-attr]  # call_spec makes a class a call
    try:
        paths = [path for path, _ in walk("", spec.unflatten(values))]
    except Exception:  # a container may refuse to be built of fake tensors; its leaves are numbered then
        paths = []
    return paths if len(paths) == len(values) else [str(i) for i in range(len(values))]


def _free(name: str, taken: set[str]) -> str:
    free, n = name, 0
    while free in taken:
        n += 1
        free = f"{name}_{n}"
    taken.add(free)
    return free


def _dim_names(interface: Interface, leaves: list[Leaf], values: dict[str, Any]) -> dict[sympy.Basic, str]:
    """What each symbol is called: names of plain dimensions first, then the roots of derived ones, then defaults."""
    found: dict[sympy.Basic, str] = {}
    defaults: dict[sympy.Basic, str] = {}
    for entry, leaf in zip(interface.inputs, leaves, strict=True):
        value = values.get(entry.placeholder)
        for axis, size in enumerate(value.shape) if isinstance(value, torch.Tensor) else [(None, value)]:
            expression = getattr(getattr(size, "node", None), "expr", None)
            if expression is None or axis not in leaf.asked:
                continue
            asked = leaf.asked[axis]
            for symbol, name in expressions_of(asked, expression):
                found.setdefault(symbol, name)
            if asked.label and not expression.is_Symbol:  # past + new: as the caller writes it
                found.setdefault(expression, asked.label)
            if not asked.label and expression.is_Symbol:
                defaults.setdefault(expression, entry.name if axis is None else f"{entry.name}_dim_{axis}")
    return {**defaults, **_declared(values), **found}


def _declared(values: dict[str, Any]) -> dict[sympy.Basic, str]:
    """The names of the ``Dim``s that a program was captured with. A program that was saved and loaded has none."""
    fake = next((value for value in values.values() if hasattr(value, "fake_mode")), None)
    env = getattr(getattr(fake, "fake_mode", None), "shape_env", None)
    symbols, replaced = getattr(env, "source_to_var", {}), getattr(env, "replacements", {})
    found: dict[sympy.Basic, str] = {}
    for source, name in getattr(env, "source_name_to_debug_name", {}).items():
        asked, symbol = asked_for(name), symbols.get(source)
        if asked is not None and symbol is not None:
            found |= dict(expressions_of(asked, replaced.get(symbol, symbol)))
    return found
