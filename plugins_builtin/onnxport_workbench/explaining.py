"""What is told of one operator: who translates it, in which order, and who is in conflict about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxport import PluginError
from onnxport.kit import translations

from onnxport_workbench import spelling

if TYPE_CHECKING:
    from onnxport import Translation
    from onnxport.kit import Conflict, Key, Registry


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the registry knows about one target.

    Attributes:
        target: its name.
        opset: the target opset of the registry.
        candidates: translations in the order in which they are tried.
        rejected: translations out of reach, with the reason.
        decomposition: plugin function that expands it, or empty.
        hints: what else to look at.
        conflict: candidates of equal rank, for which an export fails; None where there are none.
        overloads: the same of each overload, where the name is that of all of them.
        schema: the operator's signature as torch writes it; empty for what has none here, such as an operator whose
            library isn't imported.
        of_sizes: a function of Python that graphs hold for arithmetic of sizes, which needs no translation.
    """

    target: str
    opset: int
    candidates: tuple[Translation, ...]
    rejected: tuple[tuple[Translation, str], ...]
    decomposition: str
    hints: tuple[str, ...]
    conflict: Conflict | None = None
    overloads: tuple[Explanation, ...] = ()
    of_sizes: bool = False
    schema: str = ""


def explain(registry: Registry, target: object) -> Explanation:
    """The candidates of ``target`` in order, and why others are none.

    Args:
        registry: the translations.
        target: an FX target, or a name such as ``"aten::add.Tensor"``, ``"operator.add"``, or what graphs, torch's
            errors and Python print of an operator.

    Raises:
        PluginError: the name is no operator name.
    """
    key: Key
    hints: list[str] = []
    overloads: tuple[Explanation, ...] = ()
    if isinstance(target, str):
        known = registry.targets()
        found, others = spelling.named(target, known)
        if not found:
            close = spelling.near(target, known)
            raise PluginError(
                f"{target!r} is neither an operator name such as 'aten::add.Tensor', nor a Python function that has a "
                f"translation. {f'Did you mean {_either(close)}?' if close else 'onnxport ops lists all there are.'}",
                target=target,
            )
        key = found[0] if len(found) == 1 else spelling.packet_of(found)
        if len(found) > 1:
            hints.append("overloads with translations: " + ", ".join(sorted(translations.name_of(k) for k in found)))
            overloads = tuple(
                explain(registry, translations.name_of(k)) for k in sorted(found, key=translations.name_of)
            )
        if others:
            hints.append("others of that name: " + ", ".join(map(translations.name_of, others)))
        if found[0] not in known and isinstance(key, str) and (close := spelling.near(target, known)):
            hints.append("names that look like it: " + ", ".join(close))
    else:
        key = translations.key_of(target)
    key = translations.key_of(key)
    asked = registry.collecting()
    candidates = asked.candidates(translations.operator_named(key) if isinstance(target, str) else target)
    conflicts = asked.conflicts or {}
    hints += registry.settled(candidates)
    if callable(key) and not candidates:
        hints.append("sizes are computed without a translation: as arithmetic of the shapes that they come from")
    decomposition = ""
    for operator, function in registry.decompositions.items():
        if translations.key_of(operator) == key:
            decomposition = f"{translations.inner(function).__module__}.{translations.inner(function).__qualname__}"
    return Explanation(
        translations.name_of(key),
        registry.opset,
        tuple(candidate.loaded() for candidate in candidates),
        tuple(registry.rejected(key)),
        decomposition,
        tuple(hints),
        next(iter(conflicts.values()), None),
        overloads,
        callable(key),
        _schema_of(key),
    )


def _schema_of(key: Key) -> str:
    return str(getattr(translations.operator_named(key), "_schema", "")) if isinstance(key, str) else ""


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(map(repr, names[:-1])), repr(names[-1])] if len(names) > 1 else map(repr, names))
