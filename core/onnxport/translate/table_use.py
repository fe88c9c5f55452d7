"""The use of translations that aren't built in: entries of a table that no node has, and those that others replaced."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

import torch.fx

from onnxport.errors import Unsupported
from onnxport.host.binding import Unbound
from onnxport.records.translations import TABLE_TIER, Translation, name_of

_LISTED = 8
_TABLE = "custom_translation_table"


class TableUse:
    """Notes which entries of the table of a call are asked; and which of them, and of packs, are passed over."""

    def __init__(self) -> None:
        self._met: set[object] = set()
        self._unbound: list[Translation] = []
        self._passed: dict[str, str] = {}

    def note_refusal(self, candidate: Translation, refusal: Unsupported) -> None:
        """Note that a candidate declines: :meth:`note` tells it where it has no parameter for an argument."""
        self._unbound += [candidate] if isinstance(refusal, Unbound) else []

    def note(self, candidates: Sequence[Translation], chosen: Translation | str, reasons: Sequence[str]) -> None:
        """Note that the candidates were asked for a node, best first.

        Args:
            candidates: for the operator.
            chosen: the one that served, or the words for what did; empty where nothing did, which is an error.
            reasons: of those that didn't.
        """
        if not reasons and not (candidates and candidates[0].tier == TABLE_TIER):
            return  # as for nearly all nodes: no table is asked, and nobody declines
        self._met.update(each.target for each in candidates if each.tier == TABLE_TIER)
        chosen = chosen if isinstance(chosen, str) else chosen.loaded()
        plugin = getattr(chosen, "plugin", "")
        for each in candidates if chosen and reasons else ():
            is_passed = each.tier == TABLE_TIER or (each.tier and each in self._unbound)
            if is_passed and each.plugin != plugin:
                name = f"{_TABLE}[{each.name}]" if each.tier == TABLE_TIER else f"The translation {each} of {each.name}"
                said = f"{name} was passed over: {'; '.join(reasons)}. {chosen} took its place."
                self._passed.setdefault(name, f"{said} Give a function that takes these arguments.")
        self._unbound = [each for each in self._unbound if each not in candidates]

    def problems(self, table: Iterable[Translation], graph: torch.fx.Graph) -> Iterator[str]:
        """Yield the warnings.

        Args:
            table: its records.
            graph: of the model, without writes.
        """
        yield from self._passed.values()
        calls = list(dict.fromkeys(name_of(n.target) for n in graph.nodes if n.op == "call_function"))
        for record in {record.target: record for record in table}.values():
            if record.target not in self._met:
                yield f"{_TABLE}[{record.name}] ({record.function_name}) has no effect: {_hint(record.name, calls)}"


def _hint(name: str, calls: Sequence[str]) -> str:
    """The targets that the model calls instead, for the message."""
    base = name.partition(".")[0].removesuffix("_")
    near = [call for call in calls if call.partition(".")[0] == base] or difflib.get_close_matches(name, calls, 1, 0.75)
    if near:
        return f"no node of the model calls it. Did you mean {' or '.join(near)}?"
    listed = ", ".join(calls[:_LISTED]) + (", …" if len(calls) > _LISTED else "")
    return f"no node of the model calls it; they call {listed or 'nothing'}. Name one of these, or leave the entry out."
