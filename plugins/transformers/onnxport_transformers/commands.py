"""The command ``onnxport transformers``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from onnxport.kit import JsonOption, OpsetOption, PluginsOption, QuantizeOption, UsageError, formats, print_json


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
    quantize: QuantizeOption = None,
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
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="The folder of a LoRA adapter of peft, whose file gets the folder's name; may be repeated."),
    ] = None,
    opset: OpsetOption = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that the folder has for its model.")
    ] = False,
    plugin: PluginsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model of transformers from its folder, as a package that can be run."""
    from onnxport_transformers.package import export_folder

    package = export_folder(
        folder,
        output,
        task=task,
        runtime=runtime,
        quantize=formats(quantize) or None,
        dtype=dtype,
        genai=genai,
        from_config=from_config,
        last_logits=last_logits,
        verify=verify,
        opset_version=opset,
        trust_remote_code=trust_remote_code,
        adapters=_named(adapter or []),
        plugins=plugin,
        tell=lambda line: print(line, file=sys.stderr),
    )
    if as_json:
        print_json(package.as_dict())
    else:
        for path in (*package.files.values(), *package.adapters.values(), *package.others):
            print(path)


def _named(folders: list[Path]) -> dict[str, Path]:
    """Folders by their own names."""
    found = {folder.resolve().name: folder for folder in folders}
    if len(found) < len(folders):
        raise UsageError("Two adapters have folders of one name: rename one of them.")
    return found
