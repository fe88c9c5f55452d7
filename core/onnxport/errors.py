"""Every error that onnxport raises on purpose. All derive from :class:`OnnxExporterError`.

Messages end with what the user can do about it. What a message says is in the error's attributes too, for programs:
:meth:`OnnxExporterError.as_dict` gives all of it. Errors can be copied and pickled, and so come back from a pool of
processes as what they were.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from onnxport.portable import Portable
from onnxport.text import counted, plain


class OnnxExporterError(Portable, torch.onnx.OnnxExporterError):
    """Base class of all errors raised by onnxport. Code that catches the one of ``torch.onnx`` catches them too.

    Args:
        args: the message.
        attributes: what the message says, by names of attributes that the class has.
    """

    def __init__(self, *args: object, **attributes: object) -> None:
        args = tuple(plain(arg) if isinstance(arg, str) else arg for arg in args)
        super().__init__(*args)
        self.args = args  # OSError has set its own before
        for name, value in attributes.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Give type, message and attributes as JSON types."""
        classes = [cls for cls in reversed(type(self).__mro__) if issubclass(cls, OnnxExporterError)]
        names = [name for cls in classes for name in inspect.get_annotations(cls) if name not in self.stays]
        said = {name: _as_json(getattr(self, name)) for name in names}
        return {"type": type(self).__name__, "message": str(self), **said}


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_as_json(item) for item in value]
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return str(value)


class InputError(OnnxExporterError, ValueError):
    """The arguments of a call, or the example inputs of a model, can't be used.

    Attributes:
        parameter: the parameter of the call whose value can't be used; empty where it is none, or several.
    """

    parameter: str = ""


class ArgumentError(InputError, TypeError):
    """An argument of a call is of a wrong type."""


class FileError(InputError):
    """A model or checkpoint, or a file that it names, can't be read, or holds something else than it says.

    Attributes:
        path: the file.
    """

    path: str = ""


class MissingFileError(FileError, FileNotFoundError):
    """A model, a checkpoint, or a file that one of them names, isn't there."""


class NamesError(InputError):
    """``input_names`` or ``output_names`` don't fit the model: too many, or duplicated.

    Attributes:
        names: the names at fault.
    """

    names: Sequence[str] = ()


@dataclass
class DynamicAxis:
    """One axis of an input that can't be dynamic as it was asked to be.

    Attributes:
        input: readable place of the input, such as ``x`` or ``past_key_values.0.key``.
        axis: the axis, from 0; None for an input that is a number.
        name: the name or Dim that was asked for; empty for a hint such as ``Dim.DYNAMIC``.
        line: ``file:line: code`` of the model that decides it; empty where it is unknown.
        size: the only size that the model takes; None where it takes several.
    """

    input: str
    axis: int | None
    name: str = ""
    line: str = ""
    size: int | None = None


class DynamicShapesError(InputError):
    """``dynamic_shapes`` doesn't fit the inputs, or the model froze a dimension that was asked to be dynamic.

    Attributes:
        axes: one :class:`DynamicAxis` for each that is at fault; none where the form of ``dynamic_shapes`` is wrong.
    """

    axes: Sequence[DynamicAxis] = ()


class OpsetError(InputError):
    """The requested opset is unknown, or lies outside what onnxport writes.

    Attributes:
        opset: what was asked for.
        lowest: the lowest that can be asked for.
        highest: the highest.
    """

    opset: object = None
    lowest: int = 0
    highest: int = 0


class TableError(InputError):
    """A ``custom_translation_table`` key or value can't be used.

    Attributes:
        target: the key; empty where the table itself is at fault.
        function: the value, or its name.
    """

    target: str = ""
    function: str = ""


@dataclass
class Attempt:
    """One way in which a capture was tried.

    Attributes:
        name: what was tried, such as ``"strict"``.
        error: type and message of what torch.export raised.
        line: ``file:line: code`` of the model at which it arose; empty where it is unknown.
    """

    name: str
    error: str
    line: str = ""


class CaptureError(OnnxExporterError):
    """``torch.export`` could not capture the model; ``__cause__`` is its first error.

    Attributes:
        line: ``file:line: code`` of the model at which the first attempt failed; empty where it is unknown.
        attempts: one :class:`Attempt` for each way that was tried, in order.
    """

    line: str = ""
    attempts: Sequence[Attempt] = ()


class PluginError(OnnxExporterError):
    """A plugin can't be used as asked.

    Attributes:
        plugins: names of the plugins that it is about.
        target: the operator that it is about; empty where it is none.
    """

    plugins: Sequence[str] = ()
    target: str = ""


class PluginConflictError(PluginError):
    """Two plugins serve one operator at equal rank.

    Attributes:
        functions: names of the two translations, in the order of ``plugins``.
    """

    functions: Sequence[str] = ()


class WeightError(OnnxExporterError, ValueError):
    """A weight has no data, or weights given don't fit the model.

    Attributes:
        names: state-dict names of the weights that it is about.
    """

    names: Sequence[str] = ()


class SaveError(OnnxExporterError, OSError):
    """The model could not be written. What stood at the destination before is unharmed.

    Attributes:
        path: what was to be written; empty where the destination is no path.
    """

    path: str = ""


class VerificationError(OnnxExporterError):
    """The exported model doesn't compute what the torch model computes.

    Attributes:
        program: the exported program, which was not saved; None where a file was verified, and in another process.
        result: all that the verification found; None where the ONNX model does not run at all.
    """

    stays = frozenset({"program"})
    program: Any = None
    result: Any = None


class MutationError(OnnxExporterError):
    """The model changes a buffer or an input, and ``mutation="error"`` was asked for.

    Attributes:
        targets: names of the buffers and inputs.
    """

    targets: Sequence[str] = ()


class TranslationError(OnnxExporterError):
    """A translation broke its contract: wrong number of results, wrong dtype or rank, or an exception of its own.

    Attributes:
        target: the operator, such as ``aten::add.Tensor``.
        function: qualified name of the translation; empty for a decomposition.
        plugin: the plugin that brought it.
        module: path of the module that calls the operator.
        source: ``file:line: code`` of the call in the user's model.
    """

    target: str = ""
    function: str = ""
    plugin: str = ""
    module: str = ""
    source: str = ""


class Unsupported(Portable, Exception):  # noqa: N818 - a signal between translations and the translator, not a failure
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
        return plain("\n".join(lines))


class UnsupportedOperatorsError(OnnxExporterError):
    """Operators of the model that have no translation, all of them at once.

    Attributes:
        refusals: one :class:`Refusal` an operator.
    """

    refusals: Sequence[Refusal] = ()

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = list(refusals)
        listing = "\n".join(f"  {refusal}" for refusal in self.refusals)
        super().__init__(
            f"{counted(len(self.refusals), 'operator')} of the model can't be translated to ONNX:\n{listing}\n"
            "Give a translation in custom_translation_table, install a pack that has one, or change the model."
        )
