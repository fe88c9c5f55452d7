"""Messages about mistakes of translations: whose function, where it is, what it did, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from onnxport.errors import TranslationError
from onnxport.records import translations
from onnxport.vocabulary import provenance

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch.fx

    from onnxport.records.emission import Explain
    from onnxport.records.translations import Translation


def fault(
    candidate: Translation | Callable[..., Any] | None,
    node: torch.fx.Node,
    what: str,
    error: BaseException | None = None,
    target: str = "",
) -> TranslationError:
    """A mistake of a translation.

    Args:
        candidate: the translation; a plugin's decomposition, or None for one of torch's.
        node: the FX node.
        what: what it did.
        error: what it raised.
        target: the operator, where it isn't the node's.
    """
    target = target or translations.name_of(node.target)
    record = candidate if isinstance(candidate, translations.Translation) else None
    if record is not None:
        who = f"The translation {record}"
    else:
        who = "The decomposition" if candidate is None else f"The decomposition {_name(candidate)}"
    module, source = provenance.module_path(node), provenance.source_line(node)
    lines = [f"{who} of {target} {what}"]
    if record is not None and record.tier:
        lines.append(f"    function: {_place(record)}")
    if error is not None and not isinstance(error, MistakeError) and (line := provenance.line_of(error)):
        lines.append(f"    raised at: {line}")
    lines += [f"    module: {module}", f"    source: {source}", f"    node: {node.format_node()}", _cure(record)]
    return TranslationError(
        "\n".join(lines),
        target=target,
        function=record.function_name if record is not None else _name(candidate) if candidate is not None else "",
        plugin=record.plugin if record is not None else "",
        module=module,
        source=source,
    )


class MistakeError(Exception):
    """A mistake of a translation that is found for it; the message goes on behind its name."""


def told(error: Exception, emitted: Sequence[ir.Node], explanations: Iterable[Explain]) -> str:
    """The message for an exception of a translation.

    Args:
        error: the exception.
        emitted: the nodes that it had emitted.
        explanations: what plugins know of such exceptions; the first that says something is taken.
    """
    if isinstance(error, MistakeError):
        return str(error)
    for explain in explanations:
        if said := explain(error, emitted):
            return said
    name, text = type(error).__name__, str(error)
    return f"raised {name}: {text}" if text else f"raised {name}"


def _cure(record: Translation | None) -> str:
    if record is None or not record.tier:
        return "This is a bug of onnxport, not of the model: please report it."
    if record.tier == translations.TABLE_TIER:
        return "This is a mistake in the function that custom_translation_table gives for it: correct the function."
    return (
        f"This is a mistake of the plugin {record.plugin!r}, not of the model: correct it, or report it to those who "
        "wrote it; plugins=[...] leaves a plugin out."
    )


def _place(record: Translation) -> str:
    """``file:line`` of a function, as the lines of tracebacks are shown."""
    code = getattr(translations.unwrapped(record.function), "__code__", None)
    return f"{provenance.relative(code.co_filename)}:{code.co_firstlineno}" if code is not None else record.location


def _name(function: Any) -> str:
    function = translations.inner(function)
    return f"{function.__module__}.{function.__qualname__}"
