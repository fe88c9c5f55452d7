"""Every error that onnxport raises on purpose. All derive from :class:`OnnxExporterError`.

Messages end with what the user can do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from onnxport.program import ONNXProgram


class OnnxExporterError(torch.onnx.OnnxExporterError):
    """Base class of all errors raised by onnxport. Code that catches the one of ``torch.onnx`` catches them too."""


class InputError(OnnxExporterError, ValueError):
    """The arguments of a call, or the example inputs of a model, can't be used."""


class NamesError(InputError):
    """``input_names`` or ``output_names`` don't fit the model: too many, or duplicated."""


class DynamicShapesError(InputError):
    """``dynamic_shapes`` doesn't fit the inputs, or the model froze a dimension that was asked to be dynamic."""


class OpsetError(InputError):
    """The requested opset is unknown, or lies outside what onnxport writes."""


class TableError(InputError):
    """A ``custom_translation_table`` key or value can't be used."""


class CaptureError(OnnxExporterError):
    """``torch.export`` could not capture the model; ``__cause__`` is its first error."""


class PluginError(OnnxExporterError):
    """A plugin can't be used as asked."""


class PluginConflictError(PluginError):
    """Two plugins serve one operator at equal rank."""


class WeightError(OnnxExporterError, ValueError):
    """A weight has no data, or weights given don't fit the model."""


class SaveError(OnnxExporterError, OSError):
    """The model could not be written. What stood at the destination before is unharmed."""


class VerificationError(OnnxExporterError):
    """The exported model doesn't compute what the torch model computes.

    Attributes:
        program: the exported program, which was not saved; None where a file was verified.
    """

    program: ONNXProgram | None = None


class MutationError(OnnxExporterError):
    """The model changes a buffer or an input, and ``mutation="error"`` was asked for."""


class TranslationError(OnnxExporterError):
    """A translation broke its contract: wrong number of results, wrong dtype or rank, or an exception of its own."""


class Unsupported(Exception):  # noqa: N818 - a signal between translations and the translator, not a failure
    """Raised by a translation that can't serve these arguments; the next candidate is tried.

    Args:
        reason: why, for the user; it is shown when nothing else serves the operator.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Refusal:
    """One operator that nothing could translate, with every place where the model calls it.

    Attributes:
        target: qualified name of the operator, such as ``aten::fft_rfft``.
        count: number of calls in the model.
        module: path of the first call's module, such as ``encoder.layers.0.attn``.
        source: ``file:line: code`` of the first call in the user's model.
        sources: the same of all calls, each line once.
        reasons: what each candidate, and then the decomposition, said.
        advice: what would serve it, such as a pack to install.
    """

    target: str
    count: int
    module: str
    source: str
    reasons: list[str] = field(default_factory=list)
    advice: str = ""
    sources: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        calls = "call" if self.count == 1 else "calls"
        lines = [f"{self.target} ({self.count} {calls})"]
        if self.module:
            lines.append(f"    module: {self.module}")
        if self.source:
            lines.append(f"    source: {self.source}")
        lines.extend(f"       and: {source}" for source in self.sources[1:])
        lines.extend(f"    reason: {reason}" for reason in self.reasons)
        if self.advice:
            lines.append(f"    advice: {self.advice}")
        return "\n".join(lines)


class UnsupportedOperatorsError(OnnxExporterError):
    """Operators of the model that have no translation, all of them at once.

    Attributes:
        refusals: one :class:`Refusal` an operator.
    """

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = list(refusals)
        listing = "\n".join(f"  {refusal}" for refusal in self.refusals)
        super().__init__(
            f"{len(self.refusals)} operator(s) of the model can't be translated to ONNX:\n{listing}\n"
            "Give a translation in custom_translation_table, install a pack that has one, or change the model."
        )
