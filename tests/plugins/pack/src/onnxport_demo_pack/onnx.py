"""The plugin: how onnxport writes the library's operator. It doesn't import the library."""

from __future__ import annotations

import sys

import typer
from onnxport import Tensor, Translation, collect, hookimpl, translation


@translation("demo::scaled_add")
def scaled_add(op, x: Tensor, y: Tensor, *, scale: float = 2.0) -> Tensor:
    """x + scale * y."""
    return op.Add(x, op.Mul(y, scale))


@translation("aten::relu")
def relu(op, self: Tensor) -> Tensor:
    """Max(x, 0), in place of the built-in Relu: a third party's translation goes first."""
    return op.Max(self, 0)


@hookimpl
def onnxport_translations() -> list[Translation]:
    return collect(sys.modules[__name__])


@hookimpl
def onnxport_commands(app: typer.Typer) -> None:
    @app.command("demo-greeting")
    def greeting() -> None:
        """Say hello."""
        typer.echo("hello from the demo pack")
