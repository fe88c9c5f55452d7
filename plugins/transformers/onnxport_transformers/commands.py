"""The command ``onnxport transformers``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def add(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command("transformers")(transformers)


def transformers(
    folder: Annotated[Path, typer.Argument(help="The folder of a model: config.json, weights, tokenizer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    task: Annotated[
        str | None, typer.Option(help="What the model is for; by default that of the class in its configuration.")
    ] = None,
    runtime: Annotated[
        str, typer.Option("--runtime", help="Write for this runtime; `onnxport profiles` lists them.")
    ] = "onnx",
    quantize: Annotated[
        list[str] | None,
        typer.Option(
            "--quantize",
            metavar="[NAME=]FORMAT",
            help="Round the weights of products: int4, int8, uint4 or uint8; with the name of a weight or module, its "
            "own, such as lm_head=none (repeatable).",
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of weights and results: float32, float16 or bfloat16.")] = "float32",
    genai: Annotated[bool, typer.Option("--genai", help="Also write what onnxruntime-genai reads.")] = False,
    from_config: Annotated[
        bool, typer.Option("--from-config", help="Random weights: only the configuration is read.")
    ] = False,
    last_logits: Annotated[
        bool, typer.Option("--last-logits", help="For text generation: logits of the last token alone.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what was written with the model; it is loaded for that.")
    ] = False,
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX opset to write, from 18.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that the folder has for its model.")
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="Use this installed plugin only (repeatable); 'builtin' for none of them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to the standard output.")] = False,
) -> None:
    """Export a model of transformers from its folder, as a package that can be run."""
    from onnxport.kit import print_json

    from onnxport_transformers.package import export_folder

    package = export_folder(
        folder,
        output,
        task=task,
        runtime=runtime,
        quantize=_formats(quantize),
        dtype=dtype,
        genai=genai,
        from_config=from_config,
        last_logits=last_logits,
        verify=verify,
        opset_version=opset,
        trust_remote_code=trust_remote_code,
        plugins=plugin,
        tell=lambda line: print(line, file=sys.stderr),
    )
    if as_json:
        print_json(package.as_dict())
    else:
        for path in (*package.files.values(), *package.others):
            print(path)


def _formats(given: list[str] | None) -> Any:
    """What ``onnxport.export`` takes for ``[NAME=]FORMAT`` options."""
    from onnxport import InputError

    found: dict[str, str | None] = {}
    for text in given or ():
        name, separator, form = text.rpartition("=")
        if not form.strip() or (separator and not name.strip()):
            raise InputError(f"--quantize {text}: write it as FORMAT or NAME=FORMAT, such as lm_head=none.")
        found[name.strip() if separator else "*"] = None if form.strip().lower() == "none" else form.strip()
    return found or None
