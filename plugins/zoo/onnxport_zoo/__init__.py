"""Zoos of models, as an onnxport plugin: the commands ``onnxport zoo run|diff|page``."""

from __future__ import annotations

import typer
from onnxport import hookimpl

from onnxport_zoo.resolvers import Resolver


@hookimpl
def onnxport_commands(app: typer.Typer) -> None:
    """Add ``zoo`` to the command line."""
    from onnxport_zoo.commands import zoo  # what an export doesn't need

    app.add_typer(zoo, name="zoo")


__all__ = ["Resolver", "onnxport_commands"]
