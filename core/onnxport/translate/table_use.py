"""The use of a table's entries: those that no node has, and those that another translation replaced."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

import torch.fx

from onnxport.host.records import TABLE_TIER, Translation, name_of

_LISTED = 8
_TABLE = "custom_translation_table"


class TableUse:
    """Notes which entries of the table of a call are asked, and which serve."""

    def __init__(self) -> None:
        self._met: set[object] = set()
        self._passed: dict[str, str] = {}

    def note(self, candidates: Sequence[Translation], chosen: Translation | None, reasons: Sequence[str]) -> None:
        """Note that the candidates were asked for a node, best first.

        Args:
            candidates: for the operator.
            chosen: the one that served; None where none did, which is an error that has the reasons.
            reasons: of those that didn't.
        """
        if not candidates or candidates[0].tier != TABLE_TIER:
            return
        self._met.add(candidates[0].target)
        if chosen is not None and chosen.tier != TABLE_TIER:
            name = candidates[0].name
            self._passed.setdefault(name, f"{_TABLE}[{name}] was passed over: {'; '.join(reasons)}. {chosen} took its "
                                          "place. Give a function that takes these arguments.")  # fmt: skip

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
