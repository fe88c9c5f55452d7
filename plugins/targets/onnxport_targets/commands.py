"""The command ``onnxport fallbacks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from onnxport.kit import JsonOption, PlainConsole, UsageError, guarded, print_json

from onnxport_targets.tables import NAMES


def add(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command("fallbacks")(fallbacks)


@guarded
def fallbacks(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.")],
    runtime: Annotated[str, typer.Option("--runtime", help=f"One of {', '.join(NAMES)}.")],
    as_json: JsonOption = False,
) -> None:
    """List the nodes of an ONNX file that a runtime doesn't take, by the table that it publishes."""
    from onnxport_targets.fallbacks import fallbacks as look
    from onnxport_targets.tables import targets

    if runtime not in NAMES:
        raise UsageError(f"--runtime {runtime}: give one of {', '.join(NAMES)}")
    if not model.is_file():
        raise UsageError(f"there is no file {model}")
    found = look(model, runtime)
    if as_json:
        print_json([vars(each) for each in found])
        return
    target = targets()[runtime]
    console = PlainConsole()
    nothing = f"{runtime}: nothing would fall back, by {target.source}, as of {target.date}."
    console.print(found[0].title if found else nothing)
    for each in found:
        console.print(f"  {each}")
