"""The options that several commands of the command line have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FACTORY|FILE.pt2",
        help="A callable that returns (model, args), (model, args, kwargs), or a dict with 'model', 'args', 'kwargs' "
        "and options of onnxport.export; MODULE is importable or a .py file. Or a saved ExportedProgram.",
    ),
]
OpsetOption = Annotated[int | None, typer.Option("--opset", help="ONNX opset to write, from 18.")]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", help="Write for this runtime; `onnxport profiles` lists them. 'onnx' for every runtime."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to the standard output.")]
PluginsOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="Use this installed plugin only (repeatable); 'builtin' for none of them."),
]

FunctionsOption = Annotated[
    list[str] | None,
    typer.Option("--functions", help="Make the calls of this module class calls of an ONNX function (repeatable)."),
]

PreferOption = Annotated[
    list[str] | None,
    typer.Option(
        "--prefer",
        metavar="OPERATOR=PLUGIN",
        help="Which plugin goes first for an operator, such as aten::gelu=mypack (repeatable).",
    ),
]

QuantizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quantize",
        metavar="[NAME=]FORMAT",
        help="Round the weights of products: int4, int8, uint4 or uint8; with the name of a weight or module, its own, "
        "such as lm_head=none (repeatable).",
    ),
]


class UsageError(Exception):
    """What was asked can't be found or read."""


def given(
    opset: int | None,
    plugins: list[str] | None,
    functions: list[str] | None = None,
    prefer: list[str] | None = None,
    runtime: str | None = None,
    quantize: list[str] | None = None,
) -> dict[str, Any]:
    """Options of the command line that go before those of the factory."""
    options = {
        "opset_version": opset,
        "plugins": plugins,
        "functions": functions,
        "prefer": preferred(prefer),
        "runtime": runtime,
        "quantize": formats(quantize),
    }
    return {name: value for name, value in options.items() if value}


def preferred(prefer: list[str] | None) -> dict[str, str]:
    """The plugin by operator, of ``OPERATOR=PLUGIN``."""
    pairs = {}
    for text in prefer or ():
        operator, separator, plugin = text.partition("=")
        if not (separator and operator.strip() and plugin.strip()):
            raise UsageError(f"--prefer {text}: write it as OPERATOR=PLUGIN, such as aten::gelu=mypack")
        pairs[operator.strip()] = plugin.strip()
    return pairs


def formats(quantize: list[str] | None) -> dict[str, str | None]:
    """The format by name, of ``NAME=FORMAT``, or of a format alone, which is for all others."""
    found: dict[str, str | None] = {}
    for text in quantize or ():
        name, separator, form = text.rpartition("=")
        name, form = name.strip() if separator else "*", form.strip()
        if not name or not form:
            raise UsageError(f"--quantize {text}: write it as FORMAT or NAME=FORMAT, such as int4 or lm_head=none")
        if name in found:
            raise UsageError(f"--quantize {text}: {name} has a format already: give one only")
        found[name] = None if form.lower() == "none" else form
    return found
