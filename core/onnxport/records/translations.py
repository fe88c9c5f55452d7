"""Records that plugins bring: translations with their targets, resolvers, and conflicts between them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from onnxport.errors import PluginConflictError, PluginError
from onnxport.vocabulary.checks import shown
from onnxport.vocabulary.opsets import LOWEST_OPSET, NEWEST_OPSET
from onnxport.vocabulary.upstream import HigherOrderOperator, OpOverload, OpOverloadPacket

BUILTIN_TIER, THIRD_PARTY_TIER, TABLE_TIER = 0, 1, 2
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
        wanted = (record.target, record.opset, record.priority, record.complex, record.profile)
        for found in collect(importlib.import_module(self.owner)):
            if (found.target, found.opset, found.priority, found.complex, found.profile) == wanted:
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
        profile: pattern of the profiles that it is for, such as ``"onnxruntime-*"``; None for all.
    """

    target: Key
    function: Callable[..., Any]
    opset: int = LOWEST_OPSET
    priority: int = 0
    complex: bool = False
    plugin: str = ""
    tier: int = THIRD_PARTY_TIER
    needs_builder: bool = True
    profile: str | None = None

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
    def rank(self) -> tuple[int, bool, int, int]:
        """The rank among candidates; the greatest is tried first."""
        return (self.tier, self.profile is not None, self.priority, self.opset)

    def __str__(self) -> str:
        return f"{self.function_name} (plugin {self.plugin or 'unknown'})"


def inner(function: Any) -> Any:
    """The object that has a name and code: the function of a partial one, the class of a callable object."""
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
    raise PluginError(
        f"{shown(target)} is neither an operator name, nor an OpOverload, nor a Python callable: give one of these."
    )


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
            from onnxport.vocabulary.opsets import MAX_OPSET

            newest = max(newest, MAX_OPSET)  # an onnx that is newer than this release
        if type(opset) is not int or not LOWEST_OPSET <= opset <= newest:
            raise PluginError(
                f"{owner}: opset is {shown(opset)}, the lowest opset that it needs must be an int from {LOWEST_OPSET} "
                f"to {newest}. Leave it out for {LOWEST_OPSET}."
            )


def check_profile(profile: object, owner: str) -> None:
    """Refuse a pattern of profiles that is none.

    Raises:
        PluginError: it is neither a non-empty string nor None.
    """
    if profile is not None and (not isinstance(profile, str) or not profile):
        raise PluginError(
            f"{owner}: profile is {shown(profile)}, it must be the name of a profile or a pattern such as "
            "'onnxruntime-*'. Leave it out for all."
        )


def translation(
    *targets: object,
    opset: int = LOWEST_OPSET,
    priority: int = 0,
    complex: bool = False,
    profile: str | None = None,
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
        profile: pattern of the profiles that the function is for (``"onnxruntime-*"``): files that are written for
            another runtime never have what it emits. None for all.

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

    check_profile(profile, f"translation({name_of(keys[0])!r})")

    def decorate(function: _F) -> _F:
        namespace = getattr(function, "__globals__", None)
        if namespace is None:
            raise PluginError(f"translation() decorates Python functions, not {shown(function)}.")
        records = [Translation(key, function, opset, priority, complex, profile=profile) for key in keys]
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


@dataclass(frozen=True, slots=True)
class Conflict:
    """Translations of equal rank of one target.

    Attributes:
        target: its name.
        translations: two or more, in the order in which their plugins were loaded.
    """

    target: str
    translations: tuple[Translation, ...]

    @property
    def plugins(self) -> list[str]:
        """Their plugins, each once."""
        return list(dict.fromkeys(record.plugin for record in self.translations))

    @property
    def functions(self) -> list[str]:
        """Their names."""
        return [record.function_name for record in self.translations]

    def __str__(self) -> str:
        listed = " and ".join(f"{r.function_name} of plugin {r.plugin!r}" for r in self.translations)
        count = {2: "two"}.get(len(self.translations), str(len(self.translations)))
        first = self.plugins[0]
        advice = (
            f"Prefer one with prefer={{{self.target!r}: {first!r}}} (--prefer {self.target}={first}) or by the order "
            "of plugins=[...], leave a plugin out, or give one a priority."
        )
        if len(self.plugins) == 1:
            advice = "Give one a priority, or remove one."
        return f"{self.target} has {count} translations of equal rank, a conflict: {listed}. {advice}"

    def as_dict(self) -> dict[str, Any]:
        """The conflict as JSON takes it."""
        return {"target": self.target, "plugins": self.plugins, "functions": self.functions, "message": str(self)}

    def error(self) -> PluginConflictError:
        """The conflict as an error."""
        return PluginConflictError(str(self), plugins=self.plugins, target=self.target, functions=self.functions)
