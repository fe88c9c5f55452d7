"""Checks of what hooks return, made when a hook is called, so that a mistake affects its own plugin alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from reprlib import repr as brief
from types import TracebackType
from typing import Any, TypeVar

from onnxport.errors import OnnxExporterError
from onnxport.host import fields
from onnxport.host.fields import expect, items_of
from onnxport.host.info import PluginInfo
from onnxport.records.profiles import Profile
from onnxport.records.stages import ACTIONS, Action, Container, Pass, ProgramPass, Strategy
from onnxport.records.translations import Deferred, Translation, check_opset, check_profile, key_of
from onnxport.vocabulary.opsets import LOWEST_OPSET, NEWEST_OPSET
from onnxport.vocabulary.patching import Replacement, applied, holds
from onnxport.vocabulary.upstream import OpOverload

_T = TypeVar("_T")

_OPSETS = range(LOWEST_OPSET, NEWEST_OPSET + 1)
_PLAIN = re.compile(r"\w+::\w+(\.(?!default$)\w+)?").fullmatch
"""Tells names that are keys as they stand."""


def translations(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Translation]:
    """Records, with the plugin that brought them and its tier."""
    name, tier = info.name, info.tier
    return [record if id(record) in kept else _record(record, name, tier) for record in items_of(value, Translation)]


def _record(record: Translation, plugin: str, tier: int) -> Translation:
    """A record as the host keeps it. Some thousand are made at start-up, so that what is right is told at a glance."""
    target, function, opset, priority = record.target, record.function, record.opset, record.priority
    if type(target) is not str or not _PLAIN(target):
        target = key_of(target)
    if not (type(function) is Deferred or callable(function)):
        raise TypeError(f"the translation of {record.name}: function is {brief(function)}, it must be callable")
    if type(priority) is not int or type(record.complex) is not bool or type(opset) is not int or opset not in _OPSETS:
        owner = f"the translation of {record.name}"
        expect(type(priority) is int, owner, "priority", priority, "an int")
        expect(type(record.complex) is bool, owner, "complex", record.complex, "True or False")
        check_opset(opset, owner)
    # Not dataclasses.replace, which takes several times as long.
    if record.profile is not None:
        check_profile(record.profile, f"the translation of {record.name}")
    needs_builder, profile = record.needs_builder, record.profile
    return Translation(target, function, opset, priority, record.complex, plugin, tier, needs_builder, profile)


def resolved(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Translation] | None:
    """Records for one target, which takes the place of theirs; None where there are none."""
    records = items_of(value, Translation)
    own = [record if id(record) in kept else replace(record, target="resolved::target") for record in records]
    return translations(info, own, kept) or None


def adapted(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> Translation:
    """One record, whose function and complex flag are used."""
    if not isinstance(value, Translation):
        raise TypeError(f"expected a Translation, got {brief(value)}")
    expect(callable(value.function), "the Translation", "function", value.function, "callable")
    return value


def decompositions(info: PluginInfo, value: Any, _kept: frozenset[int]) -> Mapping[OpOverload, Callable[..., Any]]:
    """Functions by operator."""
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a dict of functions by OpOverload, got {brief(value)}")
    for target, function in value.items():
        if not isinstance(target, OpOverload):
            key_of(target)  # which says what is wrong with a packet
            raise TypeError(f"the key {brief(target)} is no OpOverload, such as torch.ops.aten.gelu.default")
        expect(callable(function), f"the decomposition of {key_of(target)}", "the function", function, "callable")
    return value


def containers(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Container]:
    """Classes that hold tensors."""
    items = items_of(value, Container)
    for item in items:
        named = isinstance(item.cls, str) and re.fullmatch(r"[\w.]+:[\w.]+", item.cls)
        wanted = "a class, or its name such as 'mylib.states:State'"
        expect(isinstance(item.cls, type) or bool(named), "a Container", "cls", item.cls, wanted)
        owner = f"the Container of {item.cls if isinstance(item.cls, str) else item.cls.__qualname__}"
        expect(callable(item.flatten), owner, "flatten", item.flatten, "a function")
        expect(callable(item.unflatten), owner, "unflatten", item.unflatten, "a function")
        expect(item.names is None or callable(item.names), owner, "names", item.names, "a function or None")
        name = item.serialized_name
        expect(name is None or isinstance(name, str), owner, "serialized_name", name, "a string or None")
        expect(type(item.subclasses) is bool, owner, "subclasses", item.subclasses, "True or False")
        is_listed = isinstance(item.counters, (list, tuple)) and all(isinstance(each, str) for each in item.counters)
        expect(is_listed, owner, "counters", item.counters, "a list of names")
    return items


def _steps(info: PluginInfo, value: Any, kept: frozenset[int], kind: type[_T]) -> list[_T]:
    """Named steps, with the plugin that brought them."""
    items: list[Any] = items_of(value, kind)
    for item in items:
        expect(isinstance(item.name, str) and bool(item.name), f"a {kind.__name__}", "name", item.name, "a string")
        owner = f"the {kind.__name__} {item.name!r}"
        for field, is_optional in _FUNCTIONS[kind].items():
            function = getattr(item, field)
            wanted = "a function or None" if is_optional else "a function"
            expect(callable(function) or (is_optional and function is None), owner, field, function, wanted)
        for field in ("before", "after"):
            place = getattr(item, field, None)
            expect(place is None or isinstance(place, str), owner, field, place, "the name of a pass or None")
        check_profile(getattr(item, "profile", None), owner)
    return [item if id(item) in kept else replace(item, plugin=info.name) for item in items]


_FUNCTIONS: Mapping[type, Mapping[str, bool]] = {
    Pass: {"function": False},
    ProgramPass: {"function": False, "weights": True},
    Strategy: {"capture": False, "turn": False, "check": True, "final": True},
    Action: {"function": False},
}
"""The fields of records that hold functions, and whether they may be left out."""


def actions(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Action]:
    """What programs do."""
    items = _steps(info, value, kept, Action)
    for item in items:
        expect(item.name in ACTIONS, "an Action", "name", item.name, f"one of {', '.join(ACTIONS)}")
    return items


def advice(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> str | None:
    """One line of help."""
    if not isinstance(value, str) or "\n" in value:
        raise TypeError(f"expected one line of text, got {brief(value)}")
    return value.strip() or None


def page(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> str:
    """HTML."""
    if not isinstance(value, str):
        raise TypeError(f"expected HTML as text, got {brief(value)}")
    return value


class Patch(AbstractContextManager[Any]):
    """A context manager of a plugin: where entering or leaving it fails, that is the plugin's fault alone."""

    def __init__(self, info: PluginInfo, inner: AbstractContextManager[Any], record: Replacement | None = None) -> None:
        self._info, self._inner = info, inner
        self.record = record
        self._is_active = False

    def __enter__(self) -> Any:
        try:
            value = self._inner.__enter__()
        except OnnxExporterError:  # what is wrong with the model, not with the plugin
            raise
        except Exception as error:
            self._info.fail("a context manager of onnxport_patches failed", error)
            return None
        self._is_active = True
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_active:
            return
        try:
            self._inner.__exit__(kind, error, traceback)
        except Exception as raised:
            if raised is not error:
                self._info.fail("a context manager of onnxport_patches failed", raised)


def patches(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Patch]:
    """Context managers for one capture; a replacement becomes one."""
    if isinstance(value, (Replacement, AbstractContextManager)):
        raise TypeError(f"returned a {type(value).__name__}: return a list of replacements and context managers")
    patched: list[Patch] = []
    for item in items_of(value, object):
        if isinstance(item, Patch) and id(item) in kept:
            patched.append(item)
        elif isinstance(item, Replacement):
            record = _replacement(info, item)
            patched.append(Patch(info, applied(record), record))
        elif isinstance(item, AbstractContextManager):
            patched.append(Patch(info, item))
        else:
            raise TypeError(f"expected Replacement objects and context managers, got {brief(item)}")
    return patched


def _replacement(info: PluginInfo, item: Replacement) -> Replacement:
    expect(isinstance(item.name, str) and bool(item.name), "a Replacement", "name", item.name, "a string")
    owner = f"the Replacement of {item.target}"
    is_named = isinstance(item.owner, str) and not re.fullmatch(r"[\w.]+(:[\w.]+)?", item.owner)
    expect(not is_named, owner, "owner", item.owner, "a module, a class, or its name such as 'mylib.layers:Layer'")
    expect(callable(item.wrapper), owner, "wrapper", item.wrapper, "a function")
    expect(isinstance(item.torch, str), owner, "torch", item.torch, "a condition such as '<2.16'")
    expect(isinstance(item.why, str), owner, "why", item.why, "a string")
    holds(item.torch, "0")  # which says what is wrong with it
    return replace(item, plugin=info.name)


def profiles(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Profile]:
    """Runtimes, with the plugin that brought them."""
    items = items_of(value, Profile)
    for item in items:
        expect(isinstance(item.name, str) and bool(item.name), "a Profile", "name", item.name, "a string")
        owner = f"the Profile {item.name!r}"
        expect(isinstance(item.domains, Mapping), owner, "domains", item.domains, "a dict of versions by domain")
        for domain, version in item.domains.items():
            is_version = type(version) is int and version > 0
            expect(is_version, owner, f"the version of {domain!r}", version, "a positive int")
        if item.opset is not None:
            check_opset(item.opset, owner)
        expect(item.kernels is None or callable(item.kernels), owner, "kernels", item.kernels, "a function or None")
    return [item if id(item) in kept else replace(item, plugin=info.name) for item in items]


def _with_methods(owner: str, *methods: str) -> Callable[[PluginInfo, Any, frozenset[int]], list[Any]]:
    """Looks at objects that must have some methods."""

    def looked_at(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Any]:
        items = items_of(value, object)
        for item in items:
            for method in methods:
                expect(callable(getattr(item, method, None)), owner, method, item, "a method of it")
        return items

    return looked_at


def functions(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Any]:
    """Functions that the core calls itself: their errors are errors of the call."""
    items = items_of(value, object)
    for item in items:
        expect(callable(item), "an item of the list", "it", item, "a function")
    return items


CHECKS: Mapping[str, Callable[[PluginInfo, Any, frozenset[int]], Any]] = {
    "onnxport_translations": translations,
    "onnxport_resolve": resolved,
    "onnxport_adapt": adapted,
    "onnxport_decompositions": decompositions,
    "onnxport_containers": containers,
    "onnxport_patches": patches,
    "onnxport_strategies": partial(_steps, kind=Strategy),
    "onnxport_program_passes": partial(_steps, kind=ProgramPass),
    "onnxport_semantics": fields.records_of(fields.MEANINGS),
    "onnxport_emission": fields.records_of(fields.LESSONS),
    "onnxport_actions": actions,
    "onnxport_advice": advice,
    "onnxport_functionalizers": _with_methods("a functionalizer", "program", "graph"),
    "onnxport_precisions": _with_methods("a precision", "plan"),
    "onnxport_quantizers": _with_methods("a quantizer", "plan", "restore", "roundings"),
    "onnxport_html": page,
    "onnxport_profiles": profiles,
    **dict.fromkeys(
        (
            "onnxport_walkers",
            "onnxport_folders",
            "onnxport_checkpoints",
            "onnxport_verify",
            "onnxport_check",
            "onnxport_before_export",
            "onnxport_after_export",
        ),
        functions,
    ),
    "onnxport_fx_passes": partial(_steps, kind=Pass),
    "onnxport_ir_passes": partial(_steps, kind=Pass),
}
