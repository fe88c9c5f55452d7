"""Translations are run on the values of a node: what one emitted is taken back where it declines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxport.emit.complex_values import any_complex, fake_complex
from onnxport.errors import TranslationError, Unsupported
from onnxport.host import registry
from onnxport.host.binding import mistake
from onnxport.records import translations
from onnxport.translate.faults import MistakeError, fault, told
from onnxport.translate.tally import Outcome, Tally
from onnxport.vocabulary.upstream import OpOverload

if TYPE_CHECKING:
    import torch.fx

    from onnxport.emit.builder import Builder
    from onnxport.records.emission import Inferred
    from onnxport.records.translations import Translation
    from onnxport.translate.results import Results
    from onnxport.translate.table_use import TableUse


class Candidates:
    """Runs translations, and holds those of tables and third parties to what they owe.

    Args:
        op: the builder.
        results: checks what they give for FX nodes.
        tally: counts the nodes that they serve.
        table_use: notes which of them decline.
    """

    def __init__(self, op: Builder, results: Results, tally: Tally, table_use: TableUse) -> None:
        self._op = op
        self._results = results
        self._tally = tally
        self._table_use = table_use
        self._checks = [make(op) for make in reversed(op.emission.node_checks)]  # what the first infers counts
        self._active: list[Translation] = []

    def is_active(self, candidate: Translation) -> bool:
        """It is running, and has asked for another translation."""
        return candidate in self._active

    def run(
        self,
        candidate: Translation,
        target: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        node: torch.fx.Node | None = None,
    ) -> Outcome:
        """Run a candidate.

        Args:
            candidate: the translation.
            target: the operator.
            args: its positional arguments.
            kwargs: its keyword arguments.
            node: the FX node whose value it gives; None where another translation asks for a value.

        Raises:
            TranslationError: it has a mistake.
        """
        op, fake = self._op, None if node is None else node.meta.get("val")
        if not candidate.complex and (fake_complex(fake) or any_complex((args, kwargs))):
            return Outcome(reasons=(f"{candidate.function_name}: not written for complex tensors",))
        mark = op.mark()
        self._active.append(candidate)
        try:
            candidate = candidate.loaded()
            if node is None:
                return Outcome(self._emitted(candidate, target, args, kwargs)[0])
            op.serve(candidate)
            value = self._results.accept(node, *self._emitted(candidate, target, args, kwargs), candidate)
            self._tally.served[translations.name_of(target), candidate.function_name, candidate.plugin] += 1
            return Outcome(value)
        except Unsupported as refusal:
            op.rollback(mark)
            self._table_use.note_refusal(candidate, refusal)
            return Outcome(reasons=(f"{candidate.function_name}: {refusal.reason}",))
        except Exception as error:
            if op.node is None or isinstance(error, TranslationError):
                raise
            said = told(error, op.frame.nodes[mark[0] :], op.emission.explanations)
            raise fault(candidate, op.node, said, error, translations.name_of(target)) from error
        finally:
            self._active.pop()

    def _emitted(
        self, candidate: Translation, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Mapping[int, Inferred] | None]:
        """The value of a translation, and for third parties what is inferred of it."""
        op, emitted = self._op, len(self._op.frame.nodes)
        if candidate.tier and isinstance(target, OpOverload) and (wrong := mistake(candidate.function, target)):
            raise MistakeError(wrong)
        positional, keyword = registry.bind(candidate, target, args, kwargs)
        value = candidate.function(op, *positional, **keyword)
        if not candidate.tier:
            return value, None
        results = value if isinstance(value, (list, tuple)) else [value]
        inferred: dict[int, Inferred] = {}
        for check in self._checks:
            inferred.update(check(op.frame.nodes[emitted:], results))
        return value, inferred
