"""Exports in tests: which translation served an operator, and why one was refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnxport
from onnxport import ONNXProgram, Refusal, UnsupportedOperatorsError
from onnxport.kit import JsonResult, watching


@dataclass(frozen=True)
class Served:
    """What served the nodes of one operator.

    Attributes:
        operator: such as ``aten::gelu``.
        translation: qualified name of the function.
        plugin: the plugin that brought it.
        nodes: how many nodes of the captured graph it served.
    """

    operator: str
    translation: str
    plugin: str
    nodes: int

    def __str__(self) -> str:
        return f"{self.operator}: {self.translation} of {self.plugin}, {self.nodes} x"


@dataclass
class Case(JsonResult):
    """One export of a test.

    Attributes:
        label: what is special about it, such as ``float16, opset 21``; empty for the only one.
        program: the result.
        served: what served each operator.
        decomposed: number of nodes by operator that was expanded by a decomposition.
    """

    label: str
    program: ONNXProgram
    served: list[Served] = field(default_factory=list)
    decomposed: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the program as JSON types."""
        return {"label": self.label, "served": [asdict(one) for one in self.served], "decomposed": self.decomposed}

    def expect_served(self, operator: str, by: str | Callable[..., Any]) -> None:
        """Check that an operator occurs, and that one plugin or translation served all of its nodes.

        Args:
            operator: such as ``aten::gelu``; without an overload, all of its overloads.
            by: the name of a plugin, the qualified name of a translation, or its function.

        Raises:
            AssertionError: it doesn't occur, or something else served a node of it.
        """
        named = [one for one in self.served if operator in (one.operator, one.operator.partition(".")[0])]
        wanted = by if isinstance(by, str) else f"{by.__module__}.{by.__qualname__}"
        wrong = [one for one in named if wanted not in (one.plugin, one.translation)]
        told = "\n".join(f"    {one}" for one in wrong or self.served)
        where = f" ({self.label})" if self.label else ""
        if not named:
            how = "it was decomposed" if operator in self.decomposed else f"these were:\n{told or '    none'}"
            raise AssertionError(f"No node of {operator} was translated{where}; {how}")
        if wrong:
            raise AssertionError(f"{operator} was not served by {wanted} alone{where}, but by:\n{told}")


def exported(
    model: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, label: str = "", **options: Any
) -> Case:
    """Export a model, and keep what served its operators.

    Args:
        model: a module, or an ``ExportedProgram``.
        args: positional inputs.
        kwargs: keyword inputs.
        label: the case's label.
        options: more arguments of :func:`onnxport.export`.

    Raises:
        OnnxExporterError: as :func:`onnxport.export`.
    """
    with watching() as seen:
        program = onnxport.export(model, tuple(args), kwargs=None if kwargs is None else dict(kwargs), **options)
    translated = None if seen.run is None else seen.run.translated
    if translated is None:
        return Case(label, program)
    served = [Served(*names, count) for names, count in sorted(translated.served.items())]
    return Case(label, program, served, dict(translated.decomposed))


def expect_served(
    model: Any,
    args: Sequence[Any],
    operator: str,
    by: str | Callable[..., Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> ONNXProgram:
    """Export a model, and check which plugin or translation served an operator; see :meth:`Case.expect_served`."""
    case = exported(model, args, kwargs, **options)
    case.expect_served(operator, by)
    return case.program


def expect_refused(
    model: Any,
    args: Sequence[Any],
    operator: str,
    *,
    reason: str = "",
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Refusal:
    """Check that an export is refused for an operator.

    Args:
        model: a module, or an ``ExportedProgram``.
        args: positional inputs.
        operator: such as ``aten::gelu``.
        reason: a regular expression that the refusal's text has to match somewhere.
        kwargs: keyword inputs.
        options: more arguments of :func:`onnxport.export`.

    Returns:
        The refusal: its place, reasons and advice.

    Raises:
        AssertionError: the model is exported, or refused for something else.
        OnnxExporterError: the export fails by another error than a refusal.
    """
    try:
        exported(model, args, kwargs, **options)
    except UnsupportedOperatorsError as error:
        found = [refusal for refusal in error.refusals if refusal.target == operator]
        if not found:
            names = ", ".join(refusal.target for refusal in error.refusals)
            raise AssertionError(f"{operator} was not refused, but {names} was: {error}") from error
        if not re.search(reason, str(found[0])):
            raise AssertionError(f"{operator} was refused, but not for {reason!r}: {found[0]}") from error
        return found[0]
    raise AssertionError(f"{operator} was not refused: the model was exported")


__all__ = ["Case", "Served", "expect_refused", "expect_served", "exported"]
