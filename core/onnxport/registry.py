"""Translations, their ranking, and the table that the translator asks for each node.

A :class:`Translation` is an immutable record: one function that serves one target from one opset
on. Plugins return them; a :class:`Registry` groups them by target once for a set of plugins, and
ranks a target's candidates when it is first asked for, so that a model pays for its own operators
only.
"""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from onnxport.arguments import shown
from onnxport.errors import PluginError
from onnxport.host import explaining, spelling
from onnxport.host.binding import bind as bind
from onnxport.host.binding import signature_mismatch as signature_mismatch
from onnxport.host.explaining import Conflict, Explanation

BUILTIN_TIER, THIRD_PARTY_TIER, TABLE_TIER = 0, 1, 2
LOWEST_OPSET = 18
NEWEST_OPSET = 28
"""The newest that this release knows; an older onnx knows fewer, and its records above those are no candidates."""

_RECORDS = "__onnxport_translations__"
WRITTEN = "__onnxport_written__"
"""The attribute of a function that calls another one, by which messages name that."""
_F = TypeVar("_F", bound=Callable[..., Any])

Key = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Deferred:
    """A translation's function that is imported when its operator is first met.

    Attributes:
        module: importing it declares the translation.
        owner: the module whose ``collect(owner)`` then has the record; mostly the same.
    """

    module: str
    owner: str

    def load(self, record: Translation) -> Callable[..., Any]:
        """Import the module; the function of the record that equals ``record`` in all else.

        Raises:
            PluginError: the module declares no such translation.
        """
        importlib.import_module(self.module)
        wanted = (record.target, record.opset, record.priority, record.complex)
        for found in collect(importlib.import_module(self.owner)):
            if (found.target, found.opset, found.priority, found.complex) == wanted:
                return found.function  # type: ignore[no-any-return]
        raise PluginError(
            f"{self.owner} has no translation of {record.name} any more: restart Python.",
            plugins=[record.plugin],
            target=record.name,
        )


@dataclass(frozen=True, slots=True)
class Translation:
    """One function that translates one target.

    Attributes:
        target: torch's qualified overload name (``"aten::add.Tensor"``, ``"aten::gelu"`` for a
            default overload, ``"higher_order::cond"``), or the Python callable that stands in the graph.
        function: called as ``function(op, **arguments)``; in records of plugins, it may be :class:`Deferred`.
        opset: the lowest ONNX opset whose operators it emits.
        priority: the greater is tried first, among the translations of one tier.
        complex: it handles complex tensors in their layout of real tensors with a last axis of 2.
        plugin: name of the plugin that brought it; filled when the plugin is loaded.
        tier: 0 for built-ins, 1 for third parties, 2 for the table of one call.
        needs_builder: the function's first parameter is the builder ``op``.
    """

    target: Key
    function: Callable[..., Any]
    opset: int = LOWEST_OPSET
    priority: int = 0
    complex: bool = False
    plugin: str = ""
    tier: int = THIRD_PARTY_TIER
    needs_builder: bool = True

    @property
    def name(self) -> str:
        """The target's name, for people."""
        return name_of(self.target)

    @property
    def function_name(self) -> str:
        """``package.module.function``, for messages and metadata; the module alone while the function is deferred."""
        if isinstance(self.function, Deferred):
            return self.function.owner
        function = inner(self.function)
        return f"{function.__module__}.{function.__qualname__}"

    @property
    def location(self) -> str:
        """``package/module.py:line`` of the function, without the machine's directories."""
        if isinstance(self.function, Deferred):
            return self.function.owner
        function = inner(self.function)
        code = getattr(unwrapped(function), "__code__", None)
        if code is None:
            return str(function.__module__)
        path = code.co_filename.replace("\\", "/")
        parts = function.__module__.split(".")
        is_package = path.endswith("/__init__.py")
        depth = len(parts) + (1 if is_package else 0)
        return "/".join(path.split("/")[-depth:]) + f":{code.co_firstlineno}"

    def loaded(self) -> Translation:
        """This record with its function imported."""
        return _loaded(self) if isinstance(self.function, Deferred) else self

    @property
    def rank(self) -> tuple[int, int, int]:
        """What decides between candidates; the greatest is tried first."""
        return (self.tier, self.priority, self.opset)

    def __str__(self) -> str:
        return f"{self.function_name} (plugin {self.plugin or 'unknown'})"


def inner(function: Any) -> Any:
    """What has a name and code: the function of a partial one, the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def unwrapped(function: Any) -> Any:
    """The function that was written, behind those that call it."""
    function = inner(function)
    while True:
        written = getattr(function, WRITTEN, None) or getattr(function, "__wrapped__", None)
        if written is None:
            return function
        function = inner(written)


@cache
def _loaded(record: Translation) -> Translation:
    return replace(record, function=record.function.load(record))  # type: ignore[attr-defined]


def key_of(target: object) -> Key:
    """The key under which a target's translations are kept.

    Raises:
        PluginError: ``target`` names no single operator. For a packet such as ``torch.ops.aten.add``
            the message lists its overloads.
    """
    if isinstance(target, OpOverload):
        return target.name()
    if isinstance(target, HigherOrderOperator):
        return f"higher_order::{target.name()}"
    if isinstance(target, OpOverloadPacket):
        names = ", ".join(f"{target}.{overload}" for overload in target.overloads())
        raise PluginError(
            f"{target} is a packet of overloads, not one operator: name one of {names}.", target=str(target)
        )
    if isinstance(target, str):
        namespace, separator, name = target.partition("::")
        if not (namespace and separator and name) or name.endswith("."):
            raise PluginError(
                f"{target!r} is no operator name: write it as 'namespace::name' or 'namespace::name.overload', "
                "such as 'aten::add.Tensor'.",
                target=target,
            )
        return target.removesuffix(".default")
    if callable(target):
        return target
    raise PluginError(f"{shown(target)} is neither an operator name, nor an OpOverload, nor a Python callable.")


def name_of(target: object) -> str:
    """A target's name as people read it: ``aten::add.Tensor``, ``operator.add``, ``torch.sym_float``."""
    if isinstance(target, (OpOverload, HigherOrderOperator, str)):
        return str(key_of(target))
    module = (getattr(target, "__module__", None) or "").lstrip("_")
    name = getattr(target, "__qualname__", None) or repr(target)
    return f"{module}.{name}" if module else name


def check_opset(opset: object, owner: str) -> None:
    """Refuse the lowest opset of a translation where no file can have it.

    Raises:
        PluginError: it is no int, or lies outside what onnxport writes.
    """
    if type(opset) is not int or not LOWEST_OPSET <= opset <= NEWEST_OPSET:
        newest = NEWEST_OPSET
        if type(opset) is int and opset > newest:
            from onnxport.graph.schemas import MAX_OPSET

            newest = max(newest, MAX_OPSET)  # an onnx that is newer than this release
        if type(opset) is not int or not LOWEST_OPSET <= opset <= newest:
            raise PluginError(
                f"{owner}: opset is {shown(opset)}, the lowest opset that it needs must be an int from {LOWEST_OPSET} "
                f"to {newest}. Leave it out for {LOWEST_OPSET}."
            )


def translation(
    *targets: object, opset: int = LOWEST_OPSET, priority: int = 0, complex: bool = False
) -> Callable[[_F], _F]:
    """Declare that the decorated function translates ``targets``; the function itself stays as it is.

    ::

        @translation("aten::gelu", opset=20)
        def gelu(op, self, *, approximate="none"):
            return op.Gelu(self, approximate=approximate)

    Args:
        targets: qualified overload names, ``OpOverload`` objects, or Python callables that stand in
            FX graphs (``operator.add``, ``math.ceil``, ``torch.sym_max``).
        opset: lowest ONNX opset that the function needs.
        priority: the greater is tried first within the plugins of one tier.
        complex: the function handles complex tensors.

    Raises:
        PluginError: no target, one that names no single operator, or an opset or priority that can't be.
    """
    if not targets:
        raise PluginError("translation() needs at least one target, such as 'aten::add.Tensor'.")
    keys = [key_of(target) for target in targets]
    check_opset(opset, f"translation({name_of(keys[0])!r})")
    if type(priority) is not int:
        raise PluginError(f"translation({name_of(keys[0])!r}): priority is {shown(priority)}, it must be an int.")
    if type(complex) is not bool:
        raise PluginError(f"translation({name_of(keys[0])!r}): complex is {shown(complex)}, it must be True or False.")

    def decorate(function: _F) -> _F:
        namespace = getattr(function, "__globals__", None)
        if namespace is None:
            raise PluginError(f"translation() decorates Python functions, not {shown(function)}.")
        records = [Translation(key, function, opset, priority, complex) for key in keys]
        # Kept on the function for whoever has it, and in its module, where collect() also finds
        # functions made in a loop.
        setattr(function, _RECORDS, [*getattr(function, _RECORDS, ()), *records])
        namespace.setdefault(_RECORDS, []).extend(records)
        return function

    return decorate


def collect(*sources: object) -> list[Translation]:
    """All records of modules or single functions that :func:`translation` decorated, in their order.

    Raises:
        PluginError: something else is given.
    """
    for source in sources:
        if not isinstance(source, ModuleType) and not callable(source):
            raise PluginError(f"collect() takes modules and functions, not {shown(source)}.")
    return [record for source in sources for record in getattr(source, _RECORDS, ())]


@dataclass(frozen=True, slots=True)
class Resolver:
    """``onnxport_resolve``: records for targets that no record names, of one plugin or, without a name, of several."""

    plugin: str
    tier: int
    function: Callable[[object, int], Iterable[Translation] | None]


class Registry:
    """All translations of a set of plugins at one opset.

    Args:
        translations: records, in any order.
        resolvers: asked in their order for a target without records.
        decompositions: functions that expand an ``OpOverload``, by plugin choice.
        opset: the ONNX opset that is written.
        positions: of plugins that were named in an order: the lower goes first among records of equal rank.

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
    ) -> None:
        by_key: dict[Key, list[Translation]] = {}
        for record in translations:
            by_key.setdefault(record.target, []).append(record)
        self.opset = opset
        self.decompositions = decompositions or {}
        self.conflicts: dict[str, Conflict] | None = None
        self._by_key = by_key
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
        tier, priority, opset = record.rank
        is_table, position = tier == TABLE_TIER, self._positions.get(record.plugin, 0)
        is_preferred = not is_table and self._preferred.get(record.target) == record.plugin
        return is_table, is_preferred, tier, priority, opset, -position

    def _rank(self, target: object) -> tuple[Translation, ...]:
        key = key_of(target)
        records = self._by_key.get(key, [])
        if all(record.tier == TABLE_TIER for record in records):
            records = [*records, *self._resolve(target)]
        usable = [record for record in records if record.opset <= self.opset]
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

    def check_conflicts(self) -> None:
        """Rank every target now.

        Raises:
            PluginConflictError: for the first target with two translations of equal rank.
        """
        for key in self._by_key:
            self.candidates(key)

    def why_not(self, target: object) -> list[str]:
        """Reasons why registered translations of ``target`` are no candidates; empty when none is registered."""
        key = key_of(target)
        conflicts = [str(self._open[key])] if key in self._open else []
        return conflicts + [f"{record}: {reason}" for record, reason in self.rejected(key)]

    def rejected(self, key: Key) -> list[tuple[Translation, str]]:
        """Registered translations that are no candidates, with the reason."""
        above = [record.loaded() for record in self._by_key.get(key, ()) if record.opset > self.opset]
        return [(r, f"needs opset {r.opset}, the target is {self.opset}") for r in above]

    def targets(self) -> list[Key]:
        """Every target that some record names."""
        return list(self._by_key)

    def table(self) -> Iterator[Translation]:
        """Every record, those above the target opset too."""
        for records in self._by_key.values():
            yield from (record.loaded() for record in records)

    def __len__(self) -> int:
        return sum(len(records) for records in self._by_key.values())

    def __contains__(self, target: object) -> bool:
        return bool(self.candidates(target))

    def find(self, name: str) -> list[Key]:
        """Targets that ``name`` names, as people, graphs and errors write it; all overloads where it has none."""
        return spelling.named(name, self._by_key)[0]

    def explain(self, target: object) -> Explanation:
        """Candidates of ``target`` in order, and why others are none.

        Args:
            target: an FX target, or a name such as ``"aten::add.Tensor"``, ``"operator.add"``, or what graphs, torch's
                errors and Python print of an operator.

        Raises:
            PluginError: the name is no operator name.
        """
        return explaining.explain(self, target)

    def settled(self, candidates: Sequence[Translation]) -> Iterator[str]:
        """What is said of candidates of equal rank that the caller has put in an order."""
        for first, second in itertools.pairwise(candidates):
            same = first.rank == second.rank and first.complex == second.complex
            if same and self._order(first) != self._order(second):
                how = "prefer=" if first.plugin == self._preferred.get(first.target) else "the order of plugins="
                yield f"the conflict of the plugins {first.plugin!r} and {second.plugin!r} is settled by {how}"


def operator_named(key: Key) -> object:
    """The ``OpOverload`` of that name where torch knows one: resolvers are given FX targets, not names."""
    if not isinstance(key, str):
        return key
    import torch

    namespace, _, name = key.partition("::")
    packet, _, overload = name.partition(".")
    found = getattr(getattr(torch.ops, namespace), packet, None)
    if isinstance(found, OpOverloadPacket):
        return getattr(found, overload or "default", key)
    return key
