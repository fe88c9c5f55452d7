"""The page: one HTML file with the data, the scripts and the styles in it, which asks for nothing from outside."""

from __future__ import annotations

import functools
import html
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnxport import FileError, InputError, MissingFileError, ONNXProgram, SaveError
from onnxport.kit import path_argument, plain, wrong

from onnxport_workbench.find_mismatch import MismatchResult
from onnxport_workbench.latency import Nodes, seconds_by_name
from onnxport_workbench.verify import VerificationResult
from onnxport_workbench.view.contents import Contents, in_parts
from onnxport_workbench.view.differences import merged
from onnxport_workbench.view.encoding import encoded, harmless, packed
from onnxport_workbench.view.reading import contents_of

_SCRIPTS = ("model.js", "layout.js", "graph.js", "tree.js", "details.js", "app.js")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def view(
    model: ONNXProgram | ir.Model | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    before: ONNXProgram | ir.Model | str | os.PathLike[str] | None = None,
    verification: VerificationResult | None = None,
    mismatch: MismatchResult | None = None,
    latencies: Mapping[str, float] | str | os.PathLike[str] | None = None,
) -> Path:
    """Write an HTML page that shows a model: its modules, graph and source lines. A browser opens it without a server.

    Args:
        model: an exported program, or the path of any ONNX file. Weights aren't read; their data file may be missing.
        output: path of the page; by default the model's with ``.html``.
        before: an older version of the model: the page shows what was added, removed and changed since.
        verification: what ``verify`` found, to be shown too.
        mismatch: what ``find_mismatch`` found: the page marks the node.
        latencies: seconds by name of node, or the path of a profile that onnxruntime wrote (``enable_profiling``).

    Returns:
        The path of the page.

    Raises:
        InputError: an argument is of a wrong type, or ``output`` is left out for a model without a path.
        FileError: a file can't be read.
        SaveError: the page can't be written.
    """
    opened, name, path = _opened(model, "model")
    if output is None and not path:
        raise InputError("The model has no path: pass `output`, such as 'model.html'.", parameter="output")
    target = Path(path).with_suffix(".html") if output is None else Path(path_argument("output", output, "a path"))
    older = None if before is None else _opened(before, "before")
    for parameter, result, kind in (
        ("verification", verification, VerificationResult),
        ("mismatch", mismatch, MismatchResult),
    ):
        if result is not None and not isinstance(result, kind):
            raise wrong(parameter, result, f"a {kind.__name__}")
    text = page_of(
        opened,
        name,
        before=None if older is None else older[:2],
        verification=None if verification is None else verification.as_dict(),
        mismatch=None if mismatch is None else mismatch.as_dict(),
        latencies=seconds_by_name(latencies),
    )
    try:
        target.write_text(text, "utf-8")
    except OSError as error:
        raise SaveError(f"The page can't be written: {error}. Give another path.", path=str(target)) from error
    return target


def _opened(model: Any, parameter: str) -> tuple[ir.Model, str, str]:
    """A model, its name, and its path where it is a file's."""
    if isinstance(model, ONNXProgram):
        return model.model, "", ""
    if isinstance(model, ir.Model):
        return model, "", ""
    path = path_argument(parameter, model, "an ONNXProgram, or the path of an .onnx file")
    try:
        return ONNXProgram.load(path).model, os.path.basename(path), path
    except MissingFileError:
        if not os.path.isfile(path):
            raise
    try:  # its weights' file isn't there, and isn't needed
        return ir.from_proto(onnx.load(path, load_external_data=False)), os.path.basename(path), path
    except Exception as error:  # of onnx and onnx_ir, which have none of their own
        raise FileError(f"{path!r} can't be read: {error}. Export it again.", path=path) from error


def page_of(
    model: ir.Model,
    name: str,
    *,
    before: tuple[ir.Model, str] | None = None,
    verification: dict[str, Any] | None = None,
    mismatch: dict[str, Any] | None = None,
    latencies: Mapping[str, float] | None = None,
) -> str:
    """The page as text, see :func:`view`. ``verification`` and ``mismatch`` are as their results' ``as_dict`` has them.

    Args:
        name: the model's, for the title; of the class of its outermost module where it is empty.
        before: an older model, and its name.
        latencies: seconds by name of node, in the file or in onnxruntime.
    """
    contents = contents_of(model, name)
    if not name:
        name = contents.groups[0].class_name.rpartition(".")[2] or plain(model.graph.name or "model")
        contents.groups[0].name = name
    about = {
        "name": name,
        "facts": facts_of(model, contents),
        "before": "",
        "verification": verification,
        "mismatch": mismatch,
        "unmatched": 0.0,
    }
    seconds: dict[int, float] = {}
    if latencies:
        seconds, rest = Nodes(contents).seconds(latencies)
        about["unmatched"] = round(rest * 1e6, 3)  # of nodes that the file doesn't have
    by_node = {id(contents.nodes[index]): time for index, time in seconds.items()}
    if before is not None:
        about["before"] = before[1] or "another model"
        contents = merged(contents_of(before[0], name), contents)
    in_parts(contents)
    return _written(encoded(contents, harmless(about), by_node), name)


def facts_of(model: ir.Model, contents: Contents) -> list[list[str]]:
    """What a model is, a word and a text each."""
    producer = f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip()
    domains = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opset_imports.items())
    weights = [contents.values[index].weight_bytes for index in contents.weights]
    facts = [["producer", producer], ["opset", domains], ["IR version", str(model.ir_version)]]
    facts.append(["nodes", f"{len(contents.nodes):,}"])
    if model.functions:
        facts.append(["functions", str(len(model.functions))])
    facts.append(["weights", f"{len(weights):,} tensors, {bytes_text(sum(weights))}"])
    facts += [[plain(key)[:80], plain(text)[:200]] for key, text in model.metadata_props.items()]
    return facts


def bytes_text(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


@functools.cache
def _asset(name: str) -> str:
    return resources.files("onnxport_workbench.view").joinpath(f"assets/{name}").read_text("utf-8")


@functools.cache
def _dagre() -> str:
    """dagre 3.1.3 as published, with its licence: control characters are escaped, and no source map is asked for."""
    code = plain(re.sub(r"(?m)^//# sourceMappingURL=.*", "", _asset("dagre.min.js")))
    return f"/*! dagre\n{_asset('dagre.LICENSE.txt')}*/\n{code}"


def _written(data: Any, title: str) -> str:
    scripts = "\n".join(_asset(name) for name in _SCRIPTS)
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html.escape(plain(title))}</title>",
        f"<style>\n{_asset('page.css')}</style>",
        "</head>",
        f"<body>\n{_asset('body.html')}",
        f'<script type="text/plain" id="data">{packed(data)}</script>',
        f"<script>\n{_dagre()}</script>",
        f'<script>\n"use strict";\n(() => {{\n{scripts}\n}})();\n</script>',
        "</body>",
        "</html>\n",
    ])  # fmt: skip
