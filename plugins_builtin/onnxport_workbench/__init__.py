"""The workbench: verification, reports, what to find out about a model, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxport import hookimpl

from onnxport_workbench import observing

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnxport import Profile
    from onnxport.kit import Run


def _verify(*arguments: Any) -> Any:
    from onnxport_workbench.verify import verify  # onnxruntime, which an export alone doesn't need

    return verify(*arguments)


def _check(model: ir.Model, profile: Profile) -> list[Any]:
    from onnxport_workbench.kernels import missing_kernels, tables

    if profile.kernels is not None:
        return list(missing_kernels(model, {profile.name: profile.kernels()}))
    known = tables()  # of the providers of the profile, where these are known
    return list(missing_kernels(model, {name: known[name] for name in profile.providers if name in known} or known))


def _before_export(run: Run) -> None:
    from onnxport_workbench import progress

    progress.started(run)


def _after_export(run: Run, *, report: bool, profile: bool, shown: bool) -> None:
    from onnxport_workbench import progress

    progress.ended(run)
    pages = []
    if report or profile:
        from onnxport_workbench.report import Report

        pages = Report(run).write(report=report, profile=profile, shown=shown)
    observing.ended(run, pages)


@hookimpl
def onnxport_html(subject: object) -> str | None:
    from onnxport_workbench.view.summary import summary  # what only notebooks need

    return summary(subject)


@hookimpl
def onnxport_verify() -> list[Callable[..., Any]]:
    return [_verify]


@hookimpl
def onnxport_check() -> list[Callable[..., Any]]:
    return [_check]


@hookimpl
def onnxport_before_export() -> list[Callable[..., Any]]:
    return [_before_export]


@hookimpl
def onnxport_after_export() -> list[Callable[..., Any]]:
    return [_after_export]
