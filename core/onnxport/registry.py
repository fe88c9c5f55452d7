"""Translations, their ranking, and the table that the translator asks for each node.

A :class:`Translation` is an immutable record: one function that serves one target from one opset
on. Plugins return them; a :class:`Registry` groups them by target once for a set of plugins, and
ranks a target's candidates when it is first asked for, so that a model pays for its own operators
only.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

from onnxport.errors import PluginConflictError, PluginError, Unsupported

BUILTIN_TIER, THIRD_PARTY_TIER, TABLE_TIER = 0, 1, 2
LOWEST_OPSET = 18

_RECORDS = "__onnxport_translations__"
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
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def location(self) -> str:
        """``package/module.py:line`` of the function, without the machine's directories."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        if code is None:
            return self.function.__module__
        path = code.co_filename.replace("\\", "/")
        parts = self.function.__module__.split(".")
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
    raise PluginError(f"{target!r} is neither an operator name, nor an OpOverload, nor a Python callable.")


def name_of(target: object) -> str:
    """A target's name as people read it: ``aten::add.Tensor``, ``operator.add``, ``torch.sym_float``."""
    if isinstance(target, (OpOverload, HigherOrderOperator, str)):
        return str(key_of(target))
    module = (getattr(target, "__module__", None) or "").lstrip("_")
    name = getattr(target, "__qualname__", None) or repr(target)
    return f"{module}.{name}" if module else name


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
        PluginError: no target, or one that names no single operator.
    """
    if not targets:
        raise PluginError("translation() needs at least one target, such as 'aten::add.Tensor'.")
    keys = [key_of(target) for target in targets]

    def decorate(function: _F) -> _F:
        namespace = getattr(function, "__globals__", None)
        if namespace is None:
            raise PluginError(f"translation() decorates Python functions, not {function!r}.")
        records = [Translation(key, function, opset, priority, complex) for key in keys]
        # Kept on the function for whoever has it, and in its module, where collect() also finds
        # functions made in a loop.
        setattr(function, _RECORDS, [*getattr(function, _RECORDS, ()), *records])
        namespace.setdefault(_RECORDS, []).extend(records)
        return function

    return decorate


def collect(*sources: object) -> list[Translation]:
    """All records of modules or single functions that :func:`translation` decorated, in their order."""
    return [record for source in sources for record in getattr(source, _RECORDS, ())]


@cache
def _signature_of(target: OpOverload) -> tuple[tuple[str, ...], dict[str, Any]]:
    arguments = target._schema.arguments
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    return tuple(a.name for a in arguments), defaults


@cache
def _unknown_to(function: Callable[..., Any], target: OpOverload) -> tuple[str, ...]:
    """Schema arguments of ``target`` that ``function`` has no parameter for."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return ()
    return tuple(name for name in _signature_of(target)[0] if name not in parameters)


def signature_mismatch(function: Callable[..., Any], target: OpOverload) -> str:
    """Why ``function`` can't be called with the arguments of ``target``'s schema; empty when it can.

    The first parameter is the builder; the others bear the schema's names.
    """
    names, _ = _signature_of(target)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if unknown := _unknown_to(function, target):
        return f"has no parameter for {', '.join(unknown)}"
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            return f"parameter {parameter.name} is positional-only, but arguments are passed by name"
        if needed and parameter.name not in names:
            return f"parameter {parameter.name} is not in the schema {target._schema}"
    return ""


def bind(
    translation: Translation, target: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The ``(positional, keyword)`` arguments for ``translation.function``, after the builder.

    Arguments of an ``OpOverload`` are all bound by the schema's names, with its defaults filled in.
    Python callables and higher-order operators have no schema: theirs are passed as they stand.

    Raises:
        Unsupported: the function lacks a parameter of the schema, as newer torch versions add them,
            and the argument isn't at its default.
    """
    if not isinstance(target, OpOverload):
        return args, kwargs
    names, defaults = _signature_of(target)
    bound = defaults.copy()
    bound.update(zip(names, args))
    bound.update(kwargs)
    for name in _unknown_to(translation.function, target):
        value = bound.pop(name, None)
        if value is not defaults.get(name) and value != defaults.get(name):
            raise Unsupported(f"{translation.function_name} doesn't know the argument {name}={value!r}")
    return (), bound


@dataclass(frozen=True, slots=True)
class Resolver:
    """A plugin's ``onnxport_resolve`` hook: records for targets that no record names."""

    plugin: str
    tier: int
    function: Callable[[object, int], Iterable[Translation] | None]


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
    """

    target: str
    opset: int
    candidates: tuple[Translation, ...]
    rejected: tuple[tuple[Translation, str], ...]
    decomposition: str
    hints: tuple[str, ...]


class Registry:
    """All translations of a set of plugins at one opset.

    Args:
        translations: records, in any order.
        resolvers: asked in their order for a target without records.
        decompositions: functions that expand an ``OpOverload``, by plugin choice.
        opset: the ONNX opset that is written.
    """

    def __init__(
        self,
        translations: Iterable[Translation],
        resolvers: Sequence[Resolver] = (),
        decompositions: Mapping[Any, Callable[..., Any]] | None = None,
        opset: int = LOWEST_OPSET,
    ) -> None:
        by_key: dict[Key, list[Translation]] = {}
        for record in translations:
            by_key.setdefault(record.target, []).append(record)
        self._setup(by_key, tuple(resolvers), decompositions or {}, opset)

    def _setup(
        self,
        by_key: dict[Key, list[Translation]],
        resolvers: tuple[Resolver, ...],
        decompositions: Mapping[Any, Callable[..., Any]],
        opset: int,
    ) -> None:
        self.opset = opset
        self.decompositions = decompositions
        self._by_key = by_key
        self._resolvers = resolvers
        self._ranked: dict[object, tuple[Translation, ...]] = {}

    def at_opset(self, opset: int) -> Registry:
        """The same translations for another target opset; the grouped records are shared."""
        registry = Registry.__new__(Registry)
        registry._setup(self._by_key, self._resolvers, self.decompositions, opset)
        return registry

    def with_table(self, records: Iterable[Translation]) -> Registry:
        """A registry in which ``records``, those of one call, come before all others."""
        by_key = dict(self._by_key)
        for record in records:
            by_key[record.target] = [*by_key.get(record.target, ()), replace(record, tier=TABLE_TIER)]
        registry = Registry.__new__(Registry)
        registry._setup(by_key, self._resolvers, self.decompositions, self.opset)
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

    def _rank(self, target: object) -> tuple[Translation, ...]:
        key = key_of(target)
        records = self._by_key.get(key) or self._resolve(target)
        usable = [record for record in records if record.opset <= self.opset]
        usable.sort(key=lambda record: (*record.rank, not record.complex), reverse=True)
        for first, second in itertools.pairwise(usable):
            if first.rank == second.rank and first.complex == second.complex:
                raise PluginConflictError(
                    f"{name_of(key)} has two translations of equal rank: {first.function_name} of plugin "
                    f"{first.plugin!r} and {second.function_name} of plugin {second.plugin!r}. Give one a priority, "
                    "or leave a plugin out with plugins=[...].",
                    plugins=[first.plugin, second.plugin],
                    target=name_of(key),
                    functions=[first.function_name, second.function_name],
                )
        return tuple(usable)

    def _resolve(self, target: object) -> list[Translation]:
        for resolver in self._resolvers:
            records = resolver.function(target, self.opset)
            if records:
                key = key_of(target)
                return [replace(r, target=key, plugin=resolver.plugin, tier=resolver.tier) for r in records]
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
        return [f"{record}: {reason}" for record, reason in self._rejected(key_of(target))]

    def _rejected(self, key: Key) -> list[tuple[Translation, str]]:
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
        """Targets that ``name`` names: itself, a Python callable's name, or the overloads of a packet."""
        wanted = name.removesuffix(".default")
        if wanted in self._by_key:
            return [wanted]
        packet = wanted.partition(".")[0] if "::" in wanted else ""
        return [
            key
            for key in self._by_key
            if name_of(key) == wanted or (packet and packet == wanted and str(key).partition(".")[0] == packet)
        ]

    def explain(self, target: object) -> Explanation:
        """Candidates of ``target`` in order, and why others are none.

        Args:
            target: an FX target, or a name such as ``"aten::add.Tensor"`` or ``"operator.add"``.

        Raises:
            PluginError: the name is no operator name.
            PluginConflictError: two translations have equal rank.
        """
        key: Key
        hints: list[str] = []
        if isinstance(target, str):
            found = self.find(target)
            key = found[0] if len(found) == 1 else target
            if len(found) > 1:
                hints.append("overloads with translations: " + ", ".join(sorted(name_of(k) for k in found)))
            if isinstance(key, str) and "::" not in key:
                raise PluginError(
                    f"{target!r} is neither an operator name such as 'aten::add.Tensor', nor a Python function that "
                    "has a translation.",
                    target=target,
                )
        key = key_of(key if isinstance(target, str) else target)
        candidates = self.candidates(target if not isinstance(target, str) else operator_named(key))
        decomposition = ""
        for operator, function in self.decompositions.items():
            if key_of(operator) == key:
                decomposition = f"{function.__module__}.{function.__qualname__}"
        return Explanation(
            name_of(key),
            self.opset,
            tuple(candidate.loaded() for candidate in candidates),
            tuple(self._rejected(key)),
            decomposition,
            tuple(hints),
        )


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
