"""What runtimes other than onnxruntime's CPU don't take of a model, by the tables that they publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxport import Profile, hookimpl

if TYPE_CHECKING:
    import onnx_ir as ir
    import typer


def _no_kernels() -> dict[Any, Any]:
    """The tables of this pack say more than kernels: see `check`."""
    return {}


def _check(model: ir.Model, profile: Profile) -> list[Any]:
    from onnxport_targets.fallbacks import optimized_fallbacks
    from onnxport_targets.tables import targets

    return list(optimized_fallbacks(model, profile.name)) if profile.name in targets() else []


@hookimpl
def onnxport_profiles() -> list[Profile]:
    """The runtimes; files for them have standard operators."""
    from onnxport_targets.tables import targets

    return [
        Profile(name, f"{target.description} ({target.source}; {target.date})", kernels=_no_kernels)
        for name, target in targets().items()
    ]


@hookimpl
def onnxport_check() -> list[Callable[..., Any]]:
    """What a runtime of this pack doesn't take."""
    return [_check]


@hookimpl
def onnxport_commands(app: typer.Typer) -> None:
    """``onnxport fallbacks``."""
    from onnxport_targets.commands import add

    add(app)


def __getattr__(name: str) -> Any:
    if name in ("Fallback", "fallbacks"):
        from onnxport_targets import fallbacks as module

        return getattr(module, name)
    raise AttributeError(name)
