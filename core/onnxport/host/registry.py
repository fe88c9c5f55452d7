"""Translations, their ranking, and the table that the translator asks for each node.

A :class:`Translation` is an immutable record: one function that serves one target from one opset
on. Plugins return them; a :class:`Registry` groups them by target once for a set of plugins, and
ranks a target's candidates when it is first asked for, so that a model pays for its own operators
only.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnxport.host.binding import bind as bind
from onnxport.host.binding import signature_mismatch as signature_mismatch
from onnxport.records.profiles import STANDARD, is_for
from onnxport.records.translations import TABLE_TIER, Conflict, Key, Resolver, Translation, key_of, name_of
from onnxport.vocabulary.opsets import LOWEST_OPSET


class Registry:
    """All translations of a set of plugins at one opset.

    Args:
        translations: records, in any order.
        resolvers: asked in their order for a target without records.
        decompositions: functions that expand an ``OpOverload``, by plugin choice.
        opset: the ONNX opset that is written.
        positions: of plugins that were named in an order: the lower goes first among records of equal rank.
        profile: name of the profile that is written for.

    Attributes:
        conflicts: conflicts of the targets that were asked for, where they are collected; None where they are errors.
    """

    def __init__(
        self,
        translations: Iterable[Translation],
        resolvers: Sequence[Resolver] = (),
        decompositions: Mapping[Any, Callable[..., Any]] | None = None,
        opset: int = LOWEST_OPSET,
        positions: Mapping[str, int] | None = None,
        profile: str = STANDARD,
    ) -> None:
        self.opset = opset
        self.profile = profile
        self.decompositions = decompositions or {}
        self.conflicts: dict[str, Conflict] | None = None
        self._by_key, self._others = _grouped(translations, profile)
        self._resolvers = tuple(resolvers)
        self._positions = positions or {}
        self._preferred: Mapping[Key, str] = {}
        self._ranked: dict[object, tuple[Translation, ...]] = {}
        self._open: dict[Key, Conflict] = {}

    def _changed(self) -> Registry:
        """A copy that shares the grouped records, and hasn't ranked any."""
        registry = copy.copy(self)
        registry._ranked, registry._open = {}, {}
        return registry

    def at_opset(self, opset: int) -> Registry:
        """The same translations for another target opset."""
        registry = self._changed()
        registry.opset = opset
        return registry

    def for_profile(self, profile: str) -> Registry:
        """The same translations for files of another profile."""
        registry = self._changed()
        registry.profile = profile
        records = [record for grouped in (self._by_key, self._others) for each in grouped.values() for record in each]
        registry._by_key, registry._others = _grouped(records, profile)
        return registry

    def with_table(self, records: Iterable[Translation]) -> Registry:
        """A registry in which ``records``, those of one call, come before all others."""
        registry = self._changed()
        by_key = registry._by_key = dict(self._by_key)
        for record in records:
            by_key[record.target] = [*by_key.get(record.target, ()), replace(record, tier=TABLE_TIER)]
        return registry

    def with_preferences(self, preferred: Mapping[Key, str]) -> Registry:
        """A registry in which the records of the named plugin come first for a target, behind those of the table."""
        registry = self._changed()
        registry._preferred = preferred
        return registry

    def collecting(self) -> Registry:
        """A registry that collects conflicts instead of raising them, and goes on with the plugin loaded first."""
        registry = self._changed()
        registry.conflicts = {}
        return registry

    def candidates(self, target: object) -> tuple[Translation, ...]:
        """Translations of ``target`` that this opset allows, best first.

        Where two differ in nothing but ``complex``, the one for real tensors is first.

        Raises:
            PluginConflictError: two of them have equal rank.
        """
        ranked = self._ranked.get(target)
        if ranked is None:
            ranked = self._ranked[target] = self._rank(target)
        return ranked

    def is_overridden(self, target: object) -> bool:
        """A table or a third party translates the operator, and is asked before the built-ins."""
        candidates = self.candidates(target)
        return bool(candidates and candidates[0].tier)

    def has_overrides(self) -> bool:
        """Whether :meth:`is_overridden` may be true of an operator."""
        return bool(self._resolvers) or any(record.tier for records in self._by_key.values() for record in records)

    def _order(self, record: Translation) -> tuple[Any, ...]:
        tier, is_special, priority, opset = record.rank
        is_table, position = tier == TABLE_TIER, self._positions.get(record.plugin, 0)
        is_preferred = not is_table and self._preferred.get(record.target) == record.plugin
        return is_table, is_preferred, tier, is_special, priority, opset, -position

    def _rank(self, target: object) -> tuple[Translation, ...]:
        key = key_of(target)
        records = self._by_key.get(key, [])
        if all(record.tier == TABLE_TIER for record in records):
            records = [*records, *self._resolve(target)]
        usable = [record for record in records if record.opset <= max(self.opset, LOWEST_OPSET)]
        usable.sort(key=lambda record: (self._order(record), not record.complex), reverse=True)
        ranked: list[Translation] = []
        for _, group in itertools.groupby(usable, lambda record: (self._order(record), record.complex)):
            equal = list(group)
            if len(equal) > 1:
                conflict = Conflict(name_of(key), tuple(equal))
                is_settled = any(self._order(ranked[0])[:2]) if ranked else False
                if self.conflicts is not None:
                    self.conflicts.setdefault(conflict.target, conflict)
                elif is_settled:  # by the table or a preference; it is one only if what goes first refuses
                    self._open[key] = conflict
                    break
                else:
                    raise conflict.error()
            ranked += equal
        return tuple(ranked)

    def _resolve(self, target: object) -> list[Translation]:
        for resolver in self._resolvers:
            records = resolver.function(target, self.opset)
            if records:
                of = resolver if resolver.plugin else None  # else they say themselves whose they are
                return [
                    replace(record, target=key_of(target), plugin=(of or record).plugin, tier=(of or record).tier)
                    for record in records
                ]
        return []

    def why_not(self, target: object) -> list[str]:
        """Reasons why registered translations of ``target`` are no candidates; empty when none is registered."""
        key = key_of(target)
        conflicts = [str(self._open[key])] if key in self._open else []
        return conflicts + [f"{record}: {reason}" for record, reason in self.rejected(key)]

    def rejected(self, key: Key) -> list[tuple[Translation, str]]:
        """Registered translations that are no candidates, with the reason."""
        served = max(self.opset, LOWEST_OPSET)
        above = [record.loaded() for record in self._by_key.get(key, ()) if record.opset > served]
        others = [record.loaded() for record in self._others.get(key, ())]
        return [(r, f"needs opset {r.opset}, the target is {self.opset}") for r in above] + [
            (r, f"is for runtime={r.profile!r}, the target is {self.profile!r}") for r in others
        ]

    def targets(self) -> list[Key]:
        """Every target that some record names."""
        return list(self._by_key)

    def table(self) -> Iterator[Translation]:
        """Every record, those above the target opset and of other profiles too."""
        for records in (*self._by_key.values(), *self._others.values()):
            yield from (record.loaded() for record in records)

    def __len__(self) -> int:
        return sum(len(records) for records in self._by_key.values())

    def __contains__(self, target: object) -> bool:
        return bool(self.candidates(target))

    def find(self, name: str) -> list[Key]:
        """The target of a name such as ``aten::gelu`` or ``operator.add``; the overloads where none has that name."""
        name = name.removesuffix(".default")
        exact = [key for key in self._by_key if name_of(key) == name]
        return exact or [key for key in self._by_key if isinstance(key, str) and key.partition(".")[0] == name]

    def settled(self, candidates: Sequence[Translation]) -> Iterator[str]:
        """Messages about candidates of equal rank that the caller has put in an order."""
        for first, second in itertools.pairwise(candidates):
            same = first.rank == second.rank and first.complex == second.complex
            if same and self._order(first) != self._order(second):
                how = "prefer=" if first.plugin == self._preferred.get(first.target) else "the order of plugins="
                yield f"the conflict of the plugins {first.plugin!r} and {second.plugin!r} is settled by {how}"


def _grouped(
    records: Iterable[Translation], profile: str
) -> tuple[dict[Key, list[Translation]], dict[Key, list[Translation]]]:
    """Records by target: those for a profile, and those for others."""
    fitting: dict[Key, list[Translation]] = {}
    others: dict[Key, list[Translation]] = {}
    for record in records:
        (fitting if is_for(record.profile, profile) else others).setdefault(record.target, []).append(record)
    return fitting, others
